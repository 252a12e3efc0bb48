//! Pauses: until when clients wait, and with which commands. CLIENT PAUSE begins one, and so do a
//! shutdown and a FAILOVER that wait for replicas; each has its own end.

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

/// Who began a pause, and ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// CLIENT PAUSE.
    Command,
    /// The server ends.
    Shutdown,
    /// FAILOVER.
    Failover,
    /// A primary's dump is loaded: nobody is told so if that is over in a moment.
    Load,
    /// Slots change hands.
    Slots,
}

/// How many purposes there are.
const PURPOSES: usize = 5;

/// A pause for one purpose.
#[derive(Clone, Copy)]
struct Part {
    /// Its last millisecond, as Unix time.
    until_ms: i64,
    kind: Paused,
}

/// All pauses; see the module.
#[derive(Default)]
pub struct Pause {
    /// The last millisecond of the part that ends first, as Unix time; 0 when there is none. Read before
    /// every command.
    until_ms: AtomicI64,
    parts: Mutex<[Option<Part>; PURPOSES]>,
    /// Counts ends, of pauses and of whatever else holds requests back.
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

    /// What waits at `now_ms`; what is over ends here.
    pub fn at(&self, now_ms: i64) -> Option<Paused> {
        let until = self.until_ms.load(Relaxed);
        if until == 0 {
            return None;
        }
        if until < now_ms {
            self.end_where(|_, part| part.until_ms < now_ms);
        }
        let parts = self.parts.lock();
        parts.iter().flatten().map(|part| part.kind).max()
    }

    /// True while there is a pause for a purpose at `now_ms`.
    pub fn is_for(&self, purpose: Purpose, now_ms: i64) -> bool {
        let part = self.parts.lock()[purpose as usize];
        part.is_some_and(|part| part.until_ms >= now_ms)
    }

    /// Last millisecond of what ends first, as Unix time; 0 when there is no pause.
    pub fn until_ms(&self) -> i64 {
        self.until_ms.load(Relaxed)
    }

    /// Begins a pause or extends it: of two for the same purpose, the later end and the stricter kind
    /// count.
    pub fn begin(&self, purpose: Purpose, until_ms: i64, kind: Paused) {
        let mut parts = self.parts.lock();
        let part = &mut parts[purpose as usize];
        *part = Some(match *part {
            Some(part) => Part {
                until_ms: part.until_ms.max(until_ms),
                kind: part.kind.max(kind),
            },
            None => Part { until_ms, kind },
        });
        self.follow(&parts);
    }

    /// Ends the pause for a purpose and wakes those who hold clients back.
    pub fn end(&self, purpose: Purpose) {
        self.end_where(|index, _| index == purpose as usize);
    }

    /// Ends what is over: somebody may just have extended it.
    fn end_where(&self, is_over: impl Fn(usize, &Part) -> bool) {
        {
            let mut parts = self.parts.lock();
            let mut ended = false;
            for (index, part) in parts.iter_mut().enumerate() {
                if part.as_ref().is_some_and(|part| is_over(index, part)) {
                    *part = None;
                    ended = true;
                }
            }
            if !ended {
                return;
            }
            self.follow(&parts);
            self.ends.fetch_add(1, Relaxed);
        }
        for bell in self.waiting.read().iter() {
            bell.ring();
        }
    }

    fn follow(&self, parts: &[Option<Part>; PURPOSES]) {
        let first = parts.iter().flatten().map(|part| part.until_ms).min();
        self.until_ms.store(first.unwrap_or(0), Relaxed);
    }

    /// Something else is over that held requests back: all that waits is tried again.
    pub fn try_again(&self) {
        self.ends.fetch_add(1, Relaxed);
        for bell in self.waiting.read().iter() {
            bell.ring();
        }
    }

    /// Number of ends so far: what waits is tried again when it changes.
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
        pause.begin(Purpose::Command, 100, Paused::All);
        pause.begin(Purpose::Command, 50, Paused::Writes);
        // Its last millisecond belongs to it, as with Redis: a key that expires then is gone after it.
        assert_eq!(pause.at(100), Some(Paused::All));
        assert_eq!(pause.ends(), 0);
        assert_eq!(pause.at(101), None);
        assert_eq!((pause.ends(), pause.is_set()), (1, false));
        pause.end(Purpose::Command);
        assert_eq!(pause.ends(), 1);
    }

    #[test]
    fn each_purpose_has_its_own_end() {
        let pause = Pause::default();
        pause.begin(Purpose::Failover, i64::MAX, Paused::Writes);
        pause.begin(Purpose::Command, 100, Paused::All);
        assert_eq!((pause.at(100), pause.until_ms()), (Some(Paused::All), 100));
        // Who waits for what is allowed again is tried again.
        assert_eq!((pause.at(101), pause.ends()), (Some(Paused::Writes), 1));
        assert_eq!(pause.until_ms(), i64::MAX);
        pause.end(Purpose::Command);
        assert_eq!((pause.at(101), pause.ends()), (Some(Paused::Writes), 1));
        pause.end(Purpose::Failover);
        assert_eq!((pause.is_set(), pause.ends()), (false, 2));
    }

    #[test]
    fn the_end_rings_the_bells() {
        let pause = Pause::default();
        let bell = Arc::new(Bell::new().expect("an eventfd"));
        pause.wake(&bell);
        pause.begin(Purpose::Shutdown, i64::MAX, Paused::Writes);
        pause.end(Purpose::Shutdown);
        let mut counter = [0; 8];
        assert_eq!(rustix::io::read(bell.fd(), &mut counter), Ok(8));
    }
}
