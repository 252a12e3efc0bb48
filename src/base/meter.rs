//! Memory that many parties hold, counted as it grows: a [`Pool`] has the sum, and each party's
//! [`Meter`] its part of it.
//!
//! Only the thread that owns a party changes what it holds; any thread reads. Any thread may tell a
//! party to [`Meter::leave`]: what it held then is known to come back, and [`Pool::staying`] does not
//! have it any more, so that nobody has others leave for it too. Whoever owns the party sees
//! [`Meter::is_leaving`], gives back what it can, and ends the meter.

use std::sync::Arc;

use super::sync::Mutex;
use super::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};

/// What all parties hold together, in bytes.
#[derive(Default)]
pub struct Pool {
    held: AtomicUsize,
    leaving: AtomicUsize,
    asked_ms: AtomicI64,
}

impl Pool {
    /// Bytes that are held, those about to come back included.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Bytes that are about to come back.
    pub fn leaving(&self) -> usize {
        self.leaving.load(Relaxed)
    }

    /// When a party was last asked to leave, in Unix milliseconds.
    pub fn asked_ms(&self) -> i64 {
        self.asked_ms.load(Relaxed)
    }

    /// Bytes that are held by parties that are not leaving.
    pub fn staying(&self) -> usize {
        // Each changes for itself, so for a moment more may leave than is held.
        self.held().saturating_sub(self.leaving())
    }
}

/// One party's part of a [`Pool`].
#[derive(Default)]
pub struct Meter {
    pool: Arc<Pool>,
    held: AtomicUsize,
    /// What it holds is not in the pool's sum.
    exempt: AtomicBool,
    is_leaving: AtomicBool,
    /// Bytes of its own in [`Pool::leaving`].
    leaving: Mutex<Leaving>,
}

#[derive(Default)]
struct Leaving {
    bytes: usize,
    ended: bool,
}

impl Meter {
    /// A party that holds nothing.
    pub fn new(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Arc::clone(pool),
            ..Self::default()
        }
    }

    /// Bytes it holds.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// It holds so many bytes more. For the owner.
    pub fn grow(&self, bytes: usize) {
        self.held.store(self.held() + bytes, Relaxed);
        if !self.exempt.load(Relaxed) {
            self.pool.held.fetch_add(bytes, Relaxed);
        }
    }

    /// It gave so many bytes back. For the owner.
    pub fn shrink(&self, bytes: usize) {
        debug_assert!(bytes <= self.held(), "more given back than held");
        self.held.store(self.held().saturating_sub(bytes), Relaxed);
        if !self.exempt.load(Relaxed) {
            self.pool.held.fetch_sub(bytes, Relaxed);
        }
        if self.is_leaving() {
            let mut leaving = self.leaving.lock();
            let back = leaving.bytes.min(bytes);
            leaving.bytes -= back;
            self.pool.leaving.fetch_sub(back, Relaxed);
        }
    }

    /// Takes what it holds out of the pool's sum, or puts it back. For the owner.
    pub fn set_exempt(&self, exempt: bool) {
        match (self.exempt.load(Relaxed), exempt) {
            (false, true) => self.pool.held.fetch_sub(self.held(), Relaxed),
            (true, false) => self.pool.held.fetch_add(self.held(), Relaxed),
            _ => return,
        };
        self.exempt.store(exempt, Relaxed);
    }

    /// Asks the owner to end it, whose memory counts as about to come back from now on (Unix
    /// milliseconds); the number of bytes that is. 0 when it was asked before, or has ended.
    pub fn leave(&self, now_ms: i64) -> usize {
        let mut leaving = self.leaving.lock();
        if leaving.ended || self.is_leaving.swap(true, Relaxed) {
            return 0;
        }
        self.pool.asked_ms.store(now_ms, Relaxed);
        if !self.exempt.load(Relaxed) {
            leaving.bytes = self.held();
            self.pool.leaving.fetch_add(leaving.bytes, Relaxed);
        }
        self.held()
    }

    /// True once it was asked to leave.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving.load(Relaxed)
    }

    /// It holds nothing any more and never will. For the owner.
    pub fn end(&self) {
        let mut leaving = self.leaving.lock();
        leaving.ended = true;
        let left = std::mem::take(&mut leaving.bytes);
        self.pool.leaving.fetch_sub(left, Relaxed);
        drop(leaving);
        if !self.exempt.load(Relaxed) {
            self.pool.held.fetch_sub(self.held(), Relaxed);
        }
        self.held.store(0, Relaxed);
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_held_but_does_not_stay() {
        let pool = Arc::new(Pool::default());
        let (a, b) = (Meter::new(&pool), Meter::new(&pool));
        a.grow(100);
        b.grow(10);
        assert_eq!((pool.held(), pool.staying()), (110, 110));
        assert_eq!(a.leave(1), 100);
        assert_eq!(a.leave(1), 0, "once");
        assert_eq!(
            (pool.held(), pool.staying(), pool.leaving()),
            (110, 10, 100)
        );
        assert_eq!(pool.asked_ms(), 1);
        a.shrink(60);
        assert_eq!((pool.held(), pool.staying(), pool.leaving()), (50, 10, 40));
        // What it grows by meanwhile was not foreseen to come back.
        a.grow(5);
        assert_eq!(pool.staying(), 15);
        a.end();
        assert_eq!((pool.held(), pool.staying(), pool.leaving()), (10, 10, 0));
        assert_eq!(a.leave(1), 0, "it has ended");
        assert_eq!(pool.leaving(), 0);
    }

    #[test]
    fn an_exempt_party_is_not_in_the_sum() {
        let pool = Arc::new(Pool::default());
        let meter = Meter::new(&pool);
        meter.grow(7);
        meter.set_exempt(true);
        meter.set_exempt(true);
        meter.grow(3);
        assert_eq!((pool.held(), meter.held()), (0, 10));
        assert_eq!(meter.leave(1), 10);
        assert_eq!(pool.leaving(), 0);
        meter.set_exempt(false);
        assert_eq!(pool.held(), 10);
        meter.end();
        assert_eq!(pool.held(), 0);
    }
}
