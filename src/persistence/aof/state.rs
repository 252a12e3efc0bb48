//! What the append-only file is doing, as all threads see it: one state machine behind one lock, and
//! the open file. What acts on both and on the server is [`crate::durability`].
//!
//! Lock order: shards, then the state, then the open file.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use super::life::{Life, Mode, Outcome, Rewrite, Status};
use super::log::{Closing, Log};
use super::writer::Policy;
use crate::base::clock::unix_ms;

/// The state of the append-only file.
#[derive(Default)]
pub struct AppendOnly {
    life: Mutex<Life>,
    /// The open file.
    pub log: Log,
    /// A rewrite is under way: what `no-appendfsync-on-rewrite` asks at each write, where the state is
    /// not to be locked. It changes with the state, under its lock.
    rewriting: AtomicBool,
    /// The thread that serves the open file runs.
    served: AtomicBool,
}

impl AppendOnly {
    /// What is told of it.
    pub fn status(&self) -> Status {
        self.life.lock().status().clone()
    }

    /// Whether commands are appended.
    pub fn mode(&self) -> Mode {
        self.life.lock().status().mode
    }

    /// True while a rewrite is under way.
    pub fn is_rewriting(&self) -> bool {
        self.rewriting.load(Relaxed)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.life.lock().status().older + self.open_size()
    }

    /// Seconds since the present rewrite began; -1 without one.
    pub fn rewriting_seconds(&self) -> i64 {
        let since = self.life.lock().status().rewriting_since;
        since.map_or(-1, |since| (now() - since).max(0))
    }

    /// A rewrite is to begin when possible, as somebody asked for it.
    pub fn schedule(&self) {
        self.life.lock().schedule();
    }

    /// The state, for who reads the files.
    pub fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock()
    }

    /// Up to which replication offset what is appended is on the disk; `None` where the files do not hold
    /// the data set.
    pub fn durable(&self) -> Option<u64> {
        (self.mode() == Mode::On).then(|| self.log.progress.synced())
    }

    /// Bytes of the open file.
    pub fn open_size(&self) -> u64 {
        self.log.progress.size.load(Relaxed)
    }

    /// Begins a rewrite, if none is under way and the state of the file allows it.
    pub fn begin(&self) -> Option<Rewrite> {
        let rewrite = self.life.lock().begin(now())?;
        self.rewriting.store(true, Relaxed);
        Some(rewrite)
    }

    /// A rewrite is over. What is open for a first base that did not come is closed before another
    /// rewrite can begin.
    pub fn end(
        &self,
        rewrite: Rewrite,
        outcome: Outcome,
        policy: impl Fn() -> Policy,
    ) -> Option<Closing> {
        let mut life = self.life.lock();
        self.rewriting.store(false, Relaxed);
        let is_useless = life.ended(rewrite, outcome, now());
        is_useless.then(|| self.log.close(policy)).flatten()
    }

    /// True for whoever asks first: it starts the thread that serves the open file.
    pub fn claim_service(&self) -> bool {
        !self.served.swap(true, Relaxed)
    }

    /// That thread could not be started.
    pub fn give_up_service(&self) {
        self.served.store(false, Relaxed);
    }
}

fn now() -> i64 {
    unix_ms() / 1000
}
