//! Turns of the threads that run commands or remove keys, so that somebody else can wait until none of
//! them acts on what was true before.
//!
//! A thread looks at what stands for all (is this server a replica? are writes paused?) when its turn
//! has begun, and acts on it without a lock until the turn ends. Whoever changes that changes it first
//! and then waits for [`Turns::pass`]: after it, nobody acts on the old value any more.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst, fence};
use std::time::Duration;

/// Most threads that do errands at once.
pub const ERRANDS: usize = 16;
/// How often [`Turns::pass`] looks.
const LOOK: Duration = Duration::from_micros(50);

/// Alone in its cache lines, since its thread writes it in each turn.
#[repr(align(128))]
#[derive(Default)]
struct Count(AtomicU64);

/// How many turns each thread has begun or ended: odd within one.
pub struct Turns(Box<[Count]>);

/// A turn; it ends when this is dropped.
pub struct InTurn<'a>(&'a Count);

impl Turns {
    /// For the workers, the threads of errands, and the cron.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers + ERRANDS).map(|_| Count::default()).collect())
    }

    /// Begins a turn of a worker.
    #[inline]
    pub fn enter(&self, worker: usize) -> InTurn<'_> {
        let count = &self.0[worker];
        debug_assert!(
            count.0.load(SeqCst).is_multiple_of(2),
            "a turn within a turn"
        );
        count.0.fetch_add(1, SeqCst);
        // What is looked at from here on is as it was told before `pass` looked.
        fence(SeqCst);
        InTurn(count)
    }

    /// Begins a turn of a thread that does errands, which has this number.
    pub fn enter_errand(&self, number: usize) -> InTurn<'_> {
        debug_assert!(number < ERRANDS, "so many threads do errands");
        self.enter(self.0.len() - 2 - number)
    }

    /// Begins a turn of the cron.
    pub fn enter_cron(&self) -> InTurn<'_> {
        self.enter(self.0.len() - 1)
    }

    /// Waits until every thread has ended the turn that it is in. Not to be called within one.
    pub fn pass(&self) {
        fence(SeqCst);
        for count in &self.0 {
            let begun = count.0.load(SeqCst);
            while begun % 2 == 1 && count.0.load(SeqCst) == begun {
                std::thread::sleep(LOOK);
            }
        }
    }
}

/// The turns of a moment.
pub struct UnderWay(Box<[u64]>);

impl Turns {
    /// The turns that are under way, for who cannot wait as [`Turns::pass`] does.
    pub fn under_way(&self) -> UnderWay {
        fence(SeqCst);
        UnderWay(self.0.iter().map(|count| count.0.load(SeqCst)).collect())
    }

    /// True when turns that were under way have all ended.
    pub fn have_ended(&self, turns: &UnderWay) -> bool {
        let mut counts = self.0.iter().zip(&turns.0);
        counts.all(|(count, begun)| begun.is_multiple_of(2) || count.0.load(SeqCst) != *begun)
    }
}

impl Drop for InTurn<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn after_pass_nobody_acts_on_the_old_value() {
        let (turns, open) = (Turns::new(2), AtomicBool::new(true));
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (turns, open, stop, done) = (&turns, &open, &stop, &done);
                scope.spawn(move || {
                    while !stop.load(SeqCst) {
                        let _turn = turns.enter(worker);
                        if open.load(SeqCst) {
                            std::thread::yield_now();
                            done.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
            while done.load(SeqCst) < 1000 {
                std::thread::yield_now();
            }
            open.store(false, SeqCst);
            turns.pass();
            let after = done.load(SeqCst);
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            stop.store(true, SeqCst);
            assert_eq!(done.load(SeqCst), after);
        });
    }

    #[test]
    fn turns_of_a_moment_end_and_later_ones_do_not_count() {
        let turns = Turns::new(2);
        let nobody = turns.under_way();
        let first = turns.enter(0);
        assert!(turns.have_ended(&nobody));
        let one = turns.under_way();
        assert!(!turns.have_ended(&one));
        drop(first);
        assert!(turns.have_ended(&one));
        let _second = turns.enter(0);
        assert!(turns.have_ended(&one));
        assert!(!turns.have_ended(&turns.under_way()));
    }
}
