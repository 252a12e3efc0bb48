//! Threads that let others go first.
//!
//! Two things, because neither is enough on every system. A lower priority has the scheduler prefer
//! others; but it may look at that no more often than its clock ticks, every few milliseconds, while a
//! thread computes. So such a thread also asks, every some ten microseconds and at a moment when it
//! holds no lock, whether somebody waits for its processor ([`Turns::offer`]).

use std::time::{Duration, Instant};

/// How long a processor is kept for which others may be waiting.
const TURN: Duration = Duration::from_micros(50);

/// Has the calling thread, and threads that it starts, give way to all others where processors are
/// few. Nobody is worse off when that is not allowed. It cannot be taken back.
pub fn give_way() {
    const NICE: i32 = 10;
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// The turns of a thread that computes for long.
pub struct Turns(Instant);

impl Default for Turns {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Turns {
    /// Lets who waits for this processor have it, when this thread has had it long enough. To be
    /// called often, holding no lock.
    #[inline]
    pub fn offer(&mut self) {
        if self.0.elapsed() >= TURN {
            std::thread::yield_now();
            self.0 = Instant::now();
        }
    }
}
