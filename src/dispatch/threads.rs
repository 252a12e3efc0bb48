//! Starting threads that work on the whole server: a save in the background, a replica's thread.
//!
//! A command has the server borrowed; a thread that outlives the command needs a share of it. Whoever
//! is to serve clients (the workers) is started by the frame, which also ends it.

use std::io;
use std::sync::{Arc, Weak};

use super::context::Shared;

/// The way to a thread of one's own.
pub struct Threads(Weak<Shared>);

impl Threads {
    /// For the server that is being built.
    pub fn of(server: &Weak<Shared>) -> Self {
        Self(Weak::clone(server))
    }

    /// Has `work` done on a thread of this name. It is not awaited by anybody: what it does and how
    /// it ended is told in the state that it works on.
    ///
    /// # Errors
    /// There can be no more threads; `work` is dropped.
    pub fn start(
        &self,
        name: &str,
        work: impl FnOnce(&Arc<Shared>) + Send + 'static,
    ) -> io::Result<()> {
        let shared = self.0.upgrade();
        let shared = shared.expect("whoever calls this has the server borrowed");
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || work(&shared)).map(drop)
    }
}
