//! Migrations that are under way, and those that were: what CLUSTER GETSLOTMIGRATIONS tells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

use crate::cluster::id::NodeId;
use crate::cluster::slots::SlotSet;

/// How far a migration is, by Valkey's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Source: it looks for the target.
    Connecting,
    /// Source: it has said who it is.
    ReadingAuth,
    /// Source: it has said what is to move.
    ReadingEstablish,
    /// Source: other snapshots come first.
    WaitingToSnapshot,
    /// Source: the cut is sent.
    Snapshotting,
    /// Source: the stream is sent.
    Replicating,
    /// Source: writes are being held back.
    WaitingToPause,
    /// Source: the rest is sent while nobody writes.
    FailoverPaused,
    /// Source: the grant is written into its file.
    Granting,
    /// Source: the target is told to take the slots. Target: it takes them.
    FailoverGranted,
    /// Source: whether the target has taken them is to be found out.
    InDoubt,
    /// Target: it makes itself ready.
    WaitingForAck,
    /// Target: it gets the cut.
    ReceivingSnapshot,
    /// Target: it gets the stream.
    WaitingForPaused,
    /// Target: it has all.
    FailoverRequested,
    /// Target: it removes what it got.
    CleaningUp,
    /// The slots have moved.
    Success,
    /// They stay where they were.
    Failed,
    /// They stay, because an operator said so.
    Cancelled,
}

impl Phase {
    /// What clients are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::ReadingAuth => "reading-auth-response",
            Self::ReadingEstablish => "reading-establish-response",
            Self::WaitingToSnapshot => "waiting-to-snapshot",
            Self::Snapshotting => "snapshotting",
            Self::Replicating => "replicating",
            Self::WaitingToPause => "waiting-to-pause",
            Self::FailoverPaused | Self::Granting => "failover-paused",
            Self::FailoverGranted | Self::InDoubt => "failover-granted",
            Self::WaitingForAck => "waiting-for-ack",
            Self::ReceivingSnapshot => "receiving-snapshot",
            Self::WaitingForPaused => "waiting-for-paused",
            Self::FailoverRequested => "failover-requested",
            Self::CleaningUp => "cleaning-up",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Nothing follows.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Cancelled)
    }
}

/// A migration, on one of its sides.
pub struct Job {
    /// What both sides call it: 40 hexadecimal digits.
    pub name: String,
    /// This node is the source.
    pub exports: bool,
    /// The ranges of slots as they were given, both ends included.
    pub ranges: Vec<(u16, u16)>,
    /// The same as a set.
    pub slots: SlotSet,
    /// Who gets the slots.
    pub target: NodeId,
    /// Who gives them.
    pub source: NodeId,
    /// When it began, in Unix seconds.
    pub created: i64,
    /// It is to end.
    pub stop: AtomicBool,
    /// All keys were dropped, those that came included.
    pub flushed: AtomicBool,
    /// When the other side was heard last, in Unix seconds.
    pub heard: AtomicI64,
    /// Bytes of the stream that are to be sent.
    pub remaining: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

/// What of a migration changes.
#[derive(Clone, Debug)]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// Why it failed.
    pub message: String,
    /// When that changed, in Unix seconds.
    pub updated: i64,
}

impl Job {
    /// One that begins at `now`, in Unix seconds.
    pub fn new(
        name: String,
        (source, target): (NodeId, NodeId),
        ranges: Vec<(u16, u16)>,
        exports: bool,
        now: i64,
    ) -> Self {
        Self {
            name,
            exports,
            slots: SlotSet::of(&ranges),
            ranges,
            target,
            source,
            created: now,
            stop: AtomicBool::new(false),
            flushed: AtomicBool::new(false),
            heard: AtomicI64::new(now),
            remaining: AtomicU64::new(0),
            state: Mutex::new(State {
                phase: match exports {
                    true => Phase::Connecting,
                    false => Phase::WaitingForAck,
                },
                message: String::new(),
                updated: now,
            }),
            changed: Condvar::new(),
        }
    }

    /// What it is now.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Takes note of how far it is.
    pub fn enter(&self, phase: Phase, message: Option<&str>, now: i64) {
        let mut state = self.state.lock();
        if state.phase == phase && message.is_none() {
            return;
        }
        let (from, to) = (state.phase.name(), phase.name());
        tracing::info!(
            "Slot migration {} state transition: {from} -> {to}",
            self.describe()
        );
        state.phase = phase;
        state.updated = now;
        if let Some(message) = message {
            message.clone_into(&mut state.message);
        }
        self.changed.notify_all();
    }

    /// Has it end, and waits until it has.
    pub fn stop_and_wait(&self) {
        self.stop.store(true, Relaxed);
        let mut state = self.state.lock();
        while !state.phase.is_over() {
            self.changed.wait(&mut state);
        }
    }

    /// Nothing follows.
    pub fn is_over(&self) -> bool {
        self.state.lock().phase.is_over()
    }

    /// Its ranges as clients are told them.
    pub fn ranges_text(&self) -> String {
        let words = self
            .ranges
            .iter()
            .map(|(first, last)| format!("{first}-{last}"));
        words.collect::<Vec<_>>().join(" ")
    }

    /// What the log calls it.
    pub fn describe(&self) -> String {
        let (operation, role, other) = match self.exports {
            true => ("export", "target", self.target),
            false => ("import", "source", self.source),
        };
        format!(
            "{{name: {}, operation: {operation}, {role}_node_id: {other}, slots: {}}}",
            self.name,
            self.ranges_text()
        )
    }
}

/// All migrations, the newest first.
#[derive(Default)]
pub struct Moves {
    jobs: Mutex<VecDeque<Arc<Job>>>,
    /// Somebody holds writes back.
    pausing: AtomicBool,
}

/// Why a migration cannot begin.
#[derive(Debug, PartialEq)]
pub enum Overlap {
    /// This slot is leaving already.
    Leaving(u16),
    /// Slots are coming already.
    Coming,
}

impl Moves {
    /// Begins migrations, all or none.
    ///
    /// # Errors
    /// One meets another that is under way.
    pub fn begin(&self, new: &[Arc<Job>]) -> Result<(), Overlap> {
        let mut jobs = self.jobs.lock();
        for job in new {
            let mut others = jobs.iter().filter(|other| !other.is_over());
            if let Some(other) = others.find(|other| other.slots.meets(&job.slots)) {
                let first = job.slots.iter().find(|slot| other.slots.has(*slot));
                return Err(match first.filter(|_| other.exports) {
                    Some(slot) => Overlap::Leaving(slot),
                    None => Overlap::Coming,
                });
            }
        }
        new.iter().for_each(|job| jobs.push_front(Arc::clone(job)));
        Ok(())
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<Arc<Job>> {
        self.jobs.lock().iter().cloned().collect()
    }

    /// Those under way that begin here, or end here.
    pub fn under_way(&self, exports: bool) -> Vec<Arc<Job>> {
        let jobs = self.jobs.lock();
        let running = jobs
            .iter()
            .filter(|job| job.exports == exports && !job.is_over());
        running.cloned().collect()
    }

    /// The import of this name that is under way.
    pub fn import(&self, name: &str) -> Option<Arc<Job>> {
        self.under_way(false)
            .into_iter()
            .find(|job| job.name == name)
    }

    /// All keys are being dropped: what comes here does not come whole any more. Under all shards' locks.
    pub fn flushed(&self) {
        let jobs = self.jobs.lock();
        for job in jobs.iter().filter(|job| !job.exports) {
            job.flushed.store(true, Relaxed);
            job.stop.store(true, Relaxed);
        }
    }

    /// Forgets the oldest that are over, until there are no more than `most`.
    pub fn trim(&self, most: usize) {
        let mut jobs = self.jobs.lock();
        let mut spare = jobs.len().saturating_sub(most);
        let mut at = jobs.len();
        while spare > 0 && at > 0 {
            at -= 1;
            if jobs[at].is_over() {
                jobs.remove(at);
                spare -= 1;
            }
        }
    }

    /// Takes the turn to hold writes back; false while it is another migration's.
    pub fn begin_pause(&self) -> bool {
        !self.pausing.swap(true, Relaxed)
    }

    /// Gives it back.
    pub fn end_pause(&self) {
        self.pausing.store(false, Relaxed);
    }
}
