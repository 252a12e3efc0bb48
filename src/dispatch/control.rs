//! What commands ask of the server's frame: things that only the top of the program can do.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::blocking::Parked;
use crate::config::Effect;

/// How the server is to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shutdown {
    /// SAVE (true), NOSAVE (false), or as the save points say.
    pub save: Option<bool>,
    /// Without waiting for replicas.
    pub now: bool,
    /// Whatever fails.
    pub force: bool,
    /// After a replica of a cluster's primary took over, also where that is not the rule.
    pub failover: bool,
}

/// A request to the frame.
pub enum Request {
    /// Ends the process: SHUTDOWN with its options.
    Shutdown {
        /// The options.
        how: Shutdown,
        /// Who asked: told if the server goes on.
        client: Arc<Parked>,
    },
    /// A replica has taken over, or could not: the shutdown goes on.
    HandedOver {
        /// The options.
        how: Shutdown,
        /// Who asked.
        clients: Vec<Arc<Parked>>,
    },
    /// The shutdown that waits for replicas is given up; the answer is whether there was one.
    AbortShutdown(Sender<bool>),
    /// The parameters that listeners depend on changed; the answer is an error text if the new
    /// ones do not work.
    Listeners(Sender<Result<(), ()>>),
    /// The process as a whole follows a parameter that changed: title, crash handlers, watchdog.
    /// The answer comes when it does.
    Follow(Effect, Sender<()>),
}

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

    /// Has the listeners follow the parameters, and waits for the result. An error is in the log.
    #[allow(clippy::result_unit_err)]
    pub fn listeners(&self) -> Result<(), ()> {
        let (answer, result) = channel();
        self.send(Request::Listeners(answer));
        result.recv().unwrap_or(Ok(()))
    }

    /// Gives the shutdown up that waits for replicas; false without one.
    pub fn abort_shutdown(&self) -> bool {
        let (answer, result) = channel();
        self.send(Request::AbortShutdown(answer));
        result.recv().unwrap_or(false)
    }

    /// Has the process follow a changed parameter, and waits until it does.
    pub fn follow(&self, effect: Effect) {
        let (answer, done) = channel();
        self.send(Request::Follow(effect, answer));
        // Without an answer the frame is gone, and there is nothing left to follow.
        let _ = done.recv();
    }
}
