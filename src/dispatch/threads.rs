//! Starting threads that work on the whole server: a save in the background, a replica's thread.
//!
//! A command has the server borrowed; a thread that outlives the command needs a share of it. Whoever
//! is to serve clients (the workers) is started by the frame, which also ends it.

use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::context::Shared;
use crate::config::strerror;

/// Bytes of the stack of a thread that may run scripts: they go deep, in patterns and in tables within tables.
pub const STACK: usize = 16 << 20;

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
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK);
        thread.spawn(move || work(&shared)).map(drop)
    }

    /// As [`Threads::start`], for work that has to be done: where there can be no more threads, the
    /// calling one does it.
    pub fn start_or_do(&self, name: &str, work: impl FnOnce(&Arc<Shared>) + Send + 'static) {
        // Whichever thread comes to it takes it.
        let work = Arc::new(Mutex::new(Some(work)));
        let taken = Arc::clone(&work);
        let do_it = move |shared: &Arc<Shared>| {
            if let Some(work) = taken.lock().take() {
                work(shared);
            }
        };
        if let Err(error) = self.start(name, do_it) {
            tracing::warn!("Can't start a thread ({name}): {}", strerror(&error));
            let (work, shared) = (work.lock().take(), self.0.upgrade());
            if let (Some(work), Some(shared)) = (work, shared) {
                work(&shared);
            }
        }
    }
}
