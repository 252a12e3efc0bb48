//! Who takes snapshots, in turn, and what is told of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::snapshot::Progress;
use crate::base::clock::unix_ms;
use crate::config::Settings;
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
    /// The last FLUSHALL.
    flushed: Mutex<Flushed>,
    /// How many FLUSHALLs the dump in its place knows of; held while one takes its place.
    in_place: Mutex<u64>,
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
            flushed: Mutex::default(),
            in_place: Mutex::new(0),
            saved_changes: AtomicU64::new(0),
        }
    }
}

/// What FLUSHALL left: a dump whose cut is older is out of date.
#[derive(Clone, Copy, Default)]
struct Flushed {
    /// How many there were.
    count: u64,
    /// The server's count of changes at the last one.
    changes: u64,
}

/// The snapshot that is under way, or about to begin.
#[derive(Default)]
struct Snapshot {
    cut: Option<Arc<Cut>>,
    /// Somebody has the turn.
    active: bool,
    /// It is a rewrite of the append-only file, not a save.
    rewrites: bool,
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

    /// As [`Saves::announced_turn`], for a rewrite of the append-only file.
    pub fn turn_to_rewrite(&self) -> Turn<'_> {
        let turn = self.announced_turn();
        self.snapshot.lock().rewrites = true;
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

    /// FLUSHALL emptied all databases, after `changes` changes. Called with all shards locked.
    pub fn flushed(&self, changes: u64) {
        let mut flushed = self.flushed.lock();
        flushed.count += 1;
        flushed.changes = changes;
    }

    /// How many FLUSHALLs there were; of a cut, asked while all shards are locked.
    pub fn flushes(&self) -> u64 {
        self.flushed.lock().count
    }

    /// Has `commit` put a dump in its place whose cut came after `flushes` FLUSHALLs and `changes`
    /// changes.
    ///
    /// # Errors
    /// Those of `commit`; `Interrupted`, with nothing done, when FLUSHALL came after the cut: keys
    /// that its client knows to be gone must not come back.
    pub fn put_in_place(
        &self,
        (flushes, changes): (u64, u64),
        commit: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut in_place = self.in_place.lock();
        if self.flushes() != flushes {
            return Err(io::ErrorKind::Interrupted.into());
        }
        commit()?;
        *in_place = flushes;
        self.succeeded(changes);
        Ok(())
    }

    /// Has `replace` put an empty dump in its place, unless the one there knows of the last FLUSHALL
    /// already; whether it did.
    ///
    /// # Errors
    /// Those of `replace`.
    pub fn replace_flushed(&self, replace: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let mut in_place = self.in_place.lock();
        let Flushed { count, changes } = *self.flushed.lock();
        if *in_place == count {
            return Ok(false);
        }
        replace()?;
        *in_place = count;
        self.succeeded(changes);
        Ok(true)
    }

    fn succeeded(&self, changes: u64) {
        self.saved_changes.store(changes, Relaxed);
        self.last_success.store(unix_ms() / 1000, Relaxed);
        self.last_ok.store(true, Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    /// The data set is what a dump holds, at this count of the server's changes.
    pub fn loaded(&self, changes: u64) {
        self.saved_changes.store(changes, Relaxed);
    }

    /// The save in the background is over.
    pub fn ended(&self) {
        self.started.store(-1, Relaxed);
        self.awaited.store(false, Release);
        self.running.store(false, Relaxed);
    }

    /// True when writes are refused because the last save failed, as the parameters have it.
    pub fn refuses_writes(&self, settings: &Settings) -> bool {
        settings.stop_writes_on_bgsave_error
            && !settings.save.is_empty()
            && !self.last_ok.load(Relaxed)
    }

    /// True when the snapshot was cancelled; asked by who has the turn.
    pub fn is_cancelled(&self) -> bool {
        self.snapshot.lock().cancelled
    }

    /// Cancels the save in the background, if there is one, under way or announced. It ends soon after.
    pub fn cancel(&self) {
        if !self.running.load(Relaxed) {
            return;
        }
        let mut snapshot = self.snapshot.lock();
        if snapshot.rewrites {
            snapshot.unwanted = true;
            return;
        }
        drop(snapshot);
        self.cancel_cut();
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
    fn no_dump_from_before_a_flush_takes_its_place_after_it() {
        let saves = Saves::default();
        let old = (saves.flushes(), 1);
        saves.flushed(7);
        let refused = saves.put_in_place(old, || unreachable!("it is out of date"));
        let kind = refused.expect_err("refused").kind();
        assert_eq!(kind, io::ErrorKind::Interrupted);
        let failed = saves.replace_flushed(|| Err(io::ErrorKind::StorageFull.into()));
        assert!(failed.is_err() && saves.count.load(Relaxed) == 0);
        assert!(saves.replace_flushed(|| Ok(())).expect("replaced"));
        assert_eq!(saves.saved_changes.load(Relaxed), 7);
        assert!(!saves.replace_flushed(|| unreachable!()).expect("done"));
        saves.flushed(8);
        let new = (saves.flushes(), 9);
        saves.put_in_place(new, || Ok(())).expect("it is of today");
        assert!(!saves.replace_flushed(|| unreachable!()).expect("done"));
        assert_eq!(saves.saved_changes.load(Relaxed), 9);
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
