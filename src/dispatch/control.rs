//! What commands ask of the server's frame: things that only the top of the program can do.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A request to the frame.
#[derive(Debug)]
pub enum Request {
    /// Ends the process: SHUTDOWN, with its options.
    Shutdown {
        /// `SHUTDOWN NOSAVE` or SAVE, when said.
        save: Option<bool>,
        /// Do not wait for replicas.
        now: bool,
        /// Ignore errors of saving.
        force: bool,
    },
    /// `SHUTDOWN ABORT`
    AbortShutdown,
    /// The parameters that listeners depend on changed; the answer is an error text if the new
    /// ones do not work.
    Listeners(Sender<Result<(), String>>),
    /// The parameters that the log depends on changed.
    Log,
    /// A connection moves to another worker or the number of clients fell: look at the balance.
    Balance,
}

/// The way to the frame.
pub struct Control {
    sender: Mutex<Sender<Request>>,
}

impl Control {
    /// The way and its end.
    pub fn new() -> (Self, Receiver<Request>) {
        let (sender, receiver) = channel();
        (
            Self {
                sender: Mutex::new(sender),
            },
            receiver,
        )
    }

    /// Sends a request. When the frame is gone the process is ending anyway.
    pub fn send(&self, request: Request) {
        let sender = self
            .sender
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = sender.send(request);
    }

    /// Has the listeners follow the parameters, and waits for the result.
    pub fn listeners(&self) -> Result<(), String> {
        let (answer, result) = channel();
        self.send(Request::Listeners(answer));
        result.recv().unwrap_or(Ok(()))
    }
}
