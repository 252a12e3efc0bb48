//! CLIENT PAUSE: until when clients wait, and with which commands.

use std::sync::Arc;

use crate::base::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use crate::base::sync::{Mutex, RwLock};
use crate::client::mailbox::Bell;

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
    /// Last millisecond of the pause as Unix time; 0 when there is none. Read before every command.
    until_ms: AtomicI64,
    kind: Mutex<Option<Paused>>,
    /// Counts ends.
    ends: AtomicU64,
    /// Those who hold clients back.
    waiting: RwLock<Vec<Arc<Bell>>>,
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
        if until < now_ms {
            self.end_at(now_ms);
            return None;
        }
        *self.kind.lock()
    }

    /// Last millisecond of the pause as Unix time, 0 when there is none.
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

    /// Ends the pause and wakes those who hold clients back.
    pub fn end(&self) {
        self.end_if(|_| true);
    }

    /// Ends the pause if its time is over at `now_ms`: somebody may just have extended it.
    fn end_at(&self, now_ms: i64) {
        self.end_if(|until_ms| until_ms < now_ms);
    }

    fn end_if(&self, is_over: impl FnOnce(i64) -> bool) {
        {
            let mut kind = self.kind.lock();
            if kind.is_none() || !is_over(self.until_ms.load(Relaxed)) {
                return;
            }
            *kind = None;
            self.until_ms.store(0, Relaxed);
            self.ends.fetch_add(1, Relaxed);
        }
        for bell in self.waiting.read().iter() {
            bell.ring();
        }
    }

    /// Number of pauses that ended: what waits is tried again when it changes.
    pub fn ends(&self) -> u64 {
        self.ends.load(Relaxed)
    }

    /// Rings `bell` whenever a pause ends.
    pub fn wake(&self, bell: &Arc<Bell>) {
        self.waiting.write().push(Arc::clone(bell));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_pauses_the_later_end_and_the_stricter_kind_count() {
        let pause = Pause::default();
        assert_eq!((pause.at(0), pause.is_set()), (None, false));
        pause.begin(100, Paused::All);
        pause.begin(50, Paused::Writes);
        // Its last millisecond belongs to it, as with Redis: a key that expires then is gone after it.
        assert_eq!(pause.at(100), Some(Paused::All));
        assert_eq!(pause.ends(), 0);
        assert_eq!(pause.at(101), None);
        assert_eq!((pause.ends(), pause.is_set()), (1, false));
        pause.end();
        assert_eq!(pause.ends(), 1);
    }

    #[test]
    fn the_end_rings_the_bells() {
        let pause = Pause::default();
        let bell = Arc::new(Bell::new().expect("an eventfd"));
        pause.wake(&bell);
        pause.begin(i64::MAX, Paused::Writes);
        pause.end();
        let mut counter = [0; 8];
        assert_eq!(rustix::io::read(bell.fd(), &mut counter), Ok(8));
    }
}
