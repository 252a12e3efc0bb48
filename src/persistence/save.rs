//! Who takes snapshots, in turn, and what is told of them.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::snapshot::Progress;
use crate::base::clock::unix_ms;
use crate::keyspace::cut::Cut;

/// How often whoever takes the turn over cancels the snapshot of who has it.
const TAKE_OVER: Duration = Duration::from_millis(5);

/// What is told of saving.
pub struct Saves {
    /// Held by whoever takes a snapshot: there is one cut at a time.
    turn: Mutex<()>,
    /// A save in the background was asked for and has not ended.
    pub running: AtomicBool,
    /// The one in the background has not taken its cut: who asked for it waits for that, because what
    /// it does next must not be in there.
    pub awaited: AtomicBool,
    /// A save is to follow what is under way (BGSAVE SCHEDULE).
    pub scheduled: AtomicBool,
    /// The snapshot of who has the turn, to be cancelled.
    snapshot: Mutex<Snapshot>,
    /// What the running snapshot has done.
    pub progress: Arc<Progress>,
    /// Unix seconds of the last success.
    pub last_success: AtomicI64,
    /// Unix seconds of the last attempt in the background; 0 before the first.
    pub last_attempt: AtomicI64,
    /// The last save in the background succeeded.
    pub last_ok: AtomicBool,
    /// How long the last one in the background took, in seconds; -1 before the first.
    pub last_seconds: AtomicI64,
    /// Unix seconds of the begin of the running one; -1 when none runs.
    pub started: AtomicI64,
    /// Saves so far.
    pub count: AtomicU64,
    /// The server's count of changes that the last success holds.
    pub saved_changes: AtomicU64,
}

impl Default for Saves {
    fn default() -> Self {
        Self {
            turn: Mutex::default(),
            running: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            scheduled: AtomicBool::new(false),
            snapshot: Mutex::default(),
            progress: Arc::default(),
            last_success: AtomicI64::new(unix_ms() / 1000),
            last_attempt: AtomicI64::new(0),
            last_ok: AtomicBool::new(true),
            last_seconds: AtomicI64::new(-1),
            started: AtomicI64::new(-1),
            count: AtomicU64::new(0),
            saved_changes: AtomicU64::new(0),
        }
    }
}

/// The snapshot that is under way, or about to begin.
#[derive(Default)]
struct Snapshot {
    cut: Option<Arc<Cut>>,
    /// Somebody has the turn.
    active: bool,
    cancelled: bool,
    /// Cancelled before it got its turn.
    unwanted: bool,
}

/// The turn to take a snapshot: others wait while it lives.
pub struct Turn<'a> {
    saves: &'a Saves,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Before the next one gets its turn, which a cancellation of this one must not hit.
        let mut snapshot = self.saves.snapshot.lock();
        *snapshot = Snapshot {
            unwanted: snapshot.unwanted,
            ..Snapshot::default()
        };
    }
}

impl Saves {
    /// Waits for the turn to take a snapshot.
    pub fn turn(&self) -> Turn<'_> {
        self.begin(self.turn.lock())
    }

    /// The turn to take a snapshot, unless another one is under way.
    pub fn try_turn(&self) -> Option<Turn<'_>> {
        self.turn.try_lock().map(|guard| self.begin(guard))
    }

    /// The turn to take a snapshot, taken from others: whatever is under way, or begins meanwhile,
    /// is cancelled. For the server's end, which waits for nobody who may hang.
    pub fn take_over(&self) -> Turn<'_> {
        loop {
            self.cancel_cut();
            if let Some(guard) = self.turn.try_lock_for(TAKE_OVER) {
                return self.begin(guard);
            }
        }
    }

    fn begin<'a>(&'a self, guard: MutexGuard<'a, ()>) -> Turn<'a> {
        self.snapshot.lock().active = true;
        Turn {
            saves: self,
            _guard: guard,
        }
    }

    /// The turn of a snapshot that was announced before; it may have been cancelled since.
    pub fn announced_turn(&self) -> Turn<'_> {
        let turn = self.turn();
        let mut snapshot = self.snapshot.lock();
        snapshot.cancelled |= std::mem::take(&mut snapshot.unwanted);
        turn
    }

    /// A snapshot is announced: [`Saves::announced_turn`] follows.
    pub fn announce(&self) {
        self.snapshot.lock().unwanted = false;
    }

    /// True while any snapshot is taken.
    pub fn is_busy(&self) -> bool {
        self.turn.try_lock().is_none()
    }

    /// The cut of who has the turn has begun.
    pub fn begun(&self, cut: &Arc<Cut>) {
        let mut snapshot = self.snapshot.lock();
        if snapshot.cancelled {
            cut.cancel();
        }
        snapshot.cut = Some(Arc::clone(cut));
    }

    /// The save in the background is over.
    pub fn ended(&self) {
        self.started.store(-1, Relaxed);
        self.awaited.store(false, Release);
        self.running.store(false, Relaxed);
    }

    /// True when the snapshot was cancelled; asked by who has the turn.
    pub fn is_cancelled(&self) -> bool {
        self.snapshot.lock().cancelled
    }

    /// Cancels the save in the background, if there is one. It ends soon after.
    pub fn cancel(&self) {
        if self.running.load(Relaxed) {
            self.cancel_cut();
        }
    }

    /// Cancels the snapshot that is under way or announced, of whatever kind.
    pub fn cancel_cut(&self) {
        let mut snapshot = self.snapshot.lock();
        if !snapshot.active {
            snapshot.unwanted = true;
            return;
        }
        snapshot.cancelled = true;
        if let Some(cut) = &snapshot.cut {
            cut.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_hits_one_snapshot_only() {
        let saves = Saves::default();
        saves.announce();
        saves.cancel_cut();
        let turn = saves.turn();
        assert!(!saves.is_cancelled(), "it is another that is unwanted");
        drop(turn);
        let turn = saves.announced_turn();
        assert!(saves.is_cancelled());
        drop(turn);
        let turn = saves.announced_turn();
        assert!(!saves.is_cancelled());
        saves.cancel_cut();
        assert!(saves.is_cancelled());
        drop(turn);
        let _turn = saves.turn();
        assert!(!saves.is_cancelled());
    }

    #[test]
    fn who_takes_the_turn_over_cancels_who_has_it() {
        let saves = Saves::default();
        let turn = saves.turn();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let _turn = saves.take_over();
                saves.is_cancelled()
            });
            while !saves.is_cancelled() {
                std::thread::yield_now();
            }
            drop(turn);
            assert!(!taken.join().expect("it has its turn"));
        });
    }
}
