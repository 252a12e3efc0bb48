//! CLIENT PAUSE: until when clients wait, and with which commands.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Which commands wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    /// Those that may be propagated.
    Writes,
    /// All.
    All,
}

/// The pause; see the module.
#[derive(Default)]
pub struct Pause {
    /// End of the pause as Unix milliseconds; 0 when there is none. Read before every command.
    until_ms: AtomicI64,
    kind: Mutex<Option<Paused>>,
}

impl Pause {
    /// True when a pause may be on: what the path of every command tests.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.until_ms.load(Relaxed) != 0
    }

    /// What waits at `now_ms`; an expired pause ends here.
    pub fn at(&self, now_ms: i64) -> Option<Paused> {
        let until = self.until_ms.load(Relaxed);
        if until == 0 {
            return None;
        }
        if until <= now_ms {
            self.end();
            return None;
        }
        *self.kind.lock()
    }

    /// End of the pause as Unix milliseconds, 0 when there is none.
    pub fn until_ms(&self) -> i64 {
        self.until_ms.load(Relaxed)
    }

    /// Begins a pause or extends it: of two, the later end and the stricter kind count.
    pub fn begin(&self, until_ms: i64, kind: Paused) {
        let mut current = self.kind.lock();
        *current = Some(current.map_or(kind, |c| c.max(kind)));
        let until = self.until_ms.load(Relaxed).max(until_ms);
        self.until_ms.store(until, Relaxed);
    }

    /// Ends the pause.
    pub fn end(&self) {
        *self.kind.lock() = None;
        self.until_ms.store(0, Relaxed);
    }
}
