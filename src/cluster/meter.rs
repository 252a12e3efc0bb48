//! What the machine and whoever serves its links tell each other of a link, while it lives.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A link's meter.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes that wait to be sent, counted by who sends them.
    pub held: AtomicUsize,
    known: AtomicBool,
}

impl Meter {
    /// The other end is a node that we know.
    pub fn introduce(&self) {
        self.known.store(true, Relaxed);
    }

    /// The other end is a node that we know: it may send what is long.
    pub fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }
}
