//! What the server knows of scripts: sources by their digest, libraries of functions, and which scripts run
//! for long.
//!
//! Plain data that all workers share. What runs scripts stands above ([`crate::scripting`]); what of it
//! is needed below (a library's functions are known only once it has run) is handed in at the start as an
//! [`Engine`].

mod libraries;
mod overdue;
mod sources;

pub use libraries::{Function, Libraries, Library, Metadata, Registered, Registry};
pub use overdue::{Kill, Overdue, OverdueScript};
pub use sources::{Digest, Script, Sources, digest_of, hex, parse_digest, shebang};

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What a script says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptFlags(pub u8);

impl ScriptFlags {
    /// It does not write.
    pub const NO_WRITES: Self = Self(1);
    /// It may run when memory is short.
    pub const ALLOW_OOM: Self = Self(2);
    /// It may run on a replica with stale data.
    pub const ALLOW_STALE: Self = Self(4);
    /// It does not run in a cluster.
    pub const NO_CLUSTER: Self = Self(8);
    /// It says nothing: a script of old, of which each command is looked at.
    pub const SAYS_NOTHING: Self = Self(16);
    /// It may use keys of several slots.
    pub const ALLOW_CROSS_SLOT: Self = Self(32);

    /// Flags by the names that scripts use, in the order in which they are listed.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("no-writes", Self::NO_WRITES),
        ("allow-oom", Self::ALLOW_OOM),
        ("allow-stale", Self::ALLOW_STALE),
        ("no-cluster", Self::NO_CLUSTER),
        ("allow-cross-slot-keys", Self::ALLOW_CROSS_SLOT),
    ];

    /// True when any flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Runs the source of a library to learn its functions.
pub trait Engine: Send + Sync {
    /// The functions that a library's code registers, within a time; or what is wrong with it.
    fn functions_of(
        &self,
        code: &[u8],
        within: Option<Duration>,
    ) -> Result<Vec<Registered>, Vec<u8>>;
}

/// What the workers share of scripts.
#[derive(Default)]
pub struct Scripts {
    /// Sources of EVAL and SCRIPT LOAD.
    pub sources: Sources,
    /// Functions.
    pub libraries: Libraries,
    /// Scripts that run for longer than clients are made to wait.
    pub overdue: Overdue,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS: scripts may call what they must not.
    pub denies_nothing: AtomicBool,
    /// Bytes that interpreters of scripts have allocated, by worker.
    vm_eval: Vec<AtomicUsize>,
    /// Bytes that interpreters of functions have allocated, by worker.
    vm_functions: Vec<AtomicUsize>,
    engine: OnceLock<Box<dyn Engine>>,
}

impl Scripts {
    /// For so many workers, and the threads that play logs.
    pub fn new(workers: usize) -> Self {
        let counters = || (0..=workers).map(|_| AtomicUsize::new(0)).collect();
        Self {
            vm_eval: counters(),
            vm_functions: counters(),
            ..Self::default()
        }
    }

    /// Hands in what runs sources; once, at the start.
    pub fn set_engine(&self, engine: Box<dyn Engine>) {
        let _ = self.engine.set(engine);
    }

    /// What runs sources.
    pub fn engine(&self) -> Option<&dyn Engine> {
        self.engine.get().map(|engine| &**engine)
    }

    /// Notes what a worker's interpreters have allocated.
    pub fn note_memory(&self, worker: usize, eval: Option<usize>, functions: Option<usize>) {
        let note = |to: &[AtomicUsize], bytes: Option<usize>| {
            if let (Some(to), Some(bytes)) = (to.get(worker), bytes) {
                to.store(bytes, Relaxed);
            }
        };
        note(&self.vm_eval, eval);
        note(&self.vm_functions, functions);
    }

    /// Bytes that all interpreters of scripts have allocated, and those of functions.
    pub fn memory(&self) -> (usize, usize) {
        let sum = |all: &[AtomicUsize]| all.iter().map(|bytes| bytes.load(Relaxed)).sum();
        (sum(&self.vm_eval), sum(&self.vm_functions))
    }
}
