//! What commands ask of the server's frame: things that only the top of the program can do.

use std::sync::mpsc::{Sender, channel};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A request to the frame.
#[derive(Debug)]
pub enum Request {
    /// Ends the process: SHUTDOWN with its options. The answer comes only when it fails.
    Shutdown {
        /// SAVE (true) or NOSAVE (false), when said.
        save: Option<bool>,
        /// Do not wait for replicas.
        now: bool,
        /// Ignore errors of saving.
        force: bool,
        /// Told that the shutdown failed.
        failed: Sender<()>,
    },
    /// The parameters that listeners depend on changed; the answer says whether the new ones
    /// work. If not, the log says why.
    Listeners(Sender<Result<(), Refused>>),
}

/// The frame could not do what was asked. The log says why.
#[derive(Debug)]
pub struct Refused;

/// The way to the frame. Requests are rare (SHUTDOWN, CONFIG SET of listeners), so the channel
/// needs no bound.
pub struct Control {
    sender: UnboundedSender<Request>,
}

impl Control {
    /// The way and its end.
    pub fn new() -> (Self, UnboundedReceiver<Request>) {
        let (sender, receiver) = unbounded_channel();
        (Self { sender }, receiver)
    }

    /// Sends a request. When the frame is gone the process is ending anyway.
    pub fn send(&self, request: Request) {
        let _ = self.sender.send(request);
    }

    /// Has the listeners follow the parameters, and waits for the result.
    pub fn listeners(&self) -> Result<(), Refused> {
        let (answer, result) = channel();
        self.send(Request::Listeners(answer));
        result.recv().unwrap_or(Ok(()))
    }
}
