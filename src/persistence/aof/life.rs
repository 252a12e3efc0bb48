//! The life of the append-only file: on or off, what is being rewritten, which files there are.
//!
//! A state machine without input, output or threads. Whoever carries it does what it says and tells
//! it what came of that; everything that others ask (is it on, is a rewrite under way, which files are
//! named) is read from here, so there is one truth.
//!
//! ```text
//!            turn_on             committed (of the same generation)
//!     Off ───────────► Waiting ────────────────────────────────────► On
//!      ▲                  │  ▲                                       │ │▲
//!      │     turn_off     │  └─ a rewrite failed: the next begins anew│ ││ rewrites: the stream
//!      └──────────────────┴──────────────────────────────────────────┘ └┘ goes to a new increment
//! ```
//!
//! Invariants:
//! - While it is on, what the manifest on the disk names is the whole data set: a new increment is
//!   named before the stream goes there, a new base once it is complete.
//! - One rewrite or one cleaning at a time, and only they change the manifest. A rewrite began in a
//!   *generation*; turning the file on or off begins another one, and then nothing that the rewrite
//!   still does opens, switches or turns on anything.

use super::manifest::Manifest;

/// Failures of rewrites, one after the other, before there are pauses between them.
const FAILURES: u64 = 3;
/// Longest pause between two tries, in minutes.
const LONGEST_PAUSE: u64 = 60;

/// Whether commands are appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// No.
    #[default]
    Off,
    /// To a temporary file, until the first base is there.
    Waiting,
    /// Yes.
    On,
}

/// What is told of the file; times in Unix seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether commands are appended.
    pub mode: Mode,
    /// Since when a rewrite is under way.
    pub rewriting_since: Option<i64>,
    /// A rewrite is to begin when possible.
    pub scheduled: bool,
    /// The last rewrite failed.
    pub last_failed: bool,
    /// Rewrites begun.
    pub rewrites: u64,
    /// Rewrites that failed, one after the other.
    pub failures: u64,
    /// Seconds that the last rewrite took; -1 before the first.
    pub last_seconds: i64,
    /// Bytes of all files but the one that is appended to.
    pub older: u64,
    /// Bytes of all files after the last rewrite.
    pub base_size: u64,
}

/// The state; see the module.
#[derive(Debug)]
pub struct Life {
    status: Status,
    generation: u64,
    manifest: Manifest,
    pauses: Pauses,
    cleaning: bool,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            status: Status {
                last_seconds: -1,
                ..Status::default()
            },
            generation: 0,
            manifest: Manifest::default(),
            pauses: Pauses::default(),
            cleaning: false,
        }
    }
}

/// Pauses between rewrites that fail.
#[derive(Debug, Default)]
struct Pauses {
    minutes: u64,
    until: i64,
}

/// A rewrite under way: who makes it holds this until [`Life::ended`].
#[derive(Debug)]
pub struct Rewrite {
    generation: u64,
    mode: Mode,
    since: i64,
}

impl Rewrite {
    /// The mode in which it began.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// What is to be done at the cut of a rewrite, before anybody can change the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtCut {
    /// The stream is appended to the new increment from here on.
    Open,
    /// It goes on there.
    Switch,
    /// Nothing: only the base is written.
    Nothing,
    /// The rewrite is for nothing: end it.
    Stale,
}

/// How a rewrite ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Life::committed`] was told.
    Success,
    /// It was cancelled, or became stale.
    Cancelled,
    /// It could not be written.
    Failure,
}

/// Whether a rewrite may begin after those that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It may.
    None,
    /// It may not yet.
    On,
    /// It may not for so many minutes, from now on.
    Begun(u64),
}

impl Life {
    /// What is told of the file.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// The files that the manifest on the disk names.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest was read, or a rewrite that is committed deleted what was history.
    pub fn read(&mut self, manifest: Manifest) {
        self.manifest = manifest;
    }

    /// The data set is loaded and the file open: it is on from the start. `older` are the bytes of
    /// all files but the open one, `base_size` those of all files.
    pub fn opened(&mut self, manifest: Manifest, older: u64, base_size: u64) {
        assert_eq!(self.status.mode, Mode::Off, "it is opened once");
        self.generation += 1;
        self.manifest = manifest;
        self.status.mode = Mode::On;
        self.status.older = older;
        if self.status.base_size == 0 {
            self.status.base_size = base_size;
        }
    }

    /// Bytes of the base that was loaded.
    pub fn loaded_base(&mut self, bytes: u64) {
        self.status.base_size = bytes;
    }

    /// Turns it on; false when it is on already. A rewrite has to follow: the first base.
    pub fn turn_on(&mut self) -> bool {
        if self.status.mode != Mode::Off {
            return false;
        }
        self.generation += 1;
        self.status.mode = Mode::Waiting;
        true
    }

    /// Turns it off; false when it is off already. What is open is to be closed, and a rewrite that is
    /// under way is for nothing.
    pub fn turn_off(&mut self) -> bool {
        if self.status.mode == Mode::Off {
            return false;
        }
        self.generation += 1;
        self.status.mode = Mode::Off;
        self.status.scheduled = false;
        true
    }

    /// A rewrite is to begin when possible. Whoever asks for it does not wait for the end of a pause.
    pub fn schedule(&mut self) {
        self.status.scheduled = true;
        self.status.failures = 0;
    }

    /// As [`Life::schedule`], for the server itself: pauses go on.
    pub fn retry(&mut self) {
        self.status.scheduled = true;
    }

    /// Files that are history are to be deleted: the manifest that names them. Until
    /// [`Life::cleaned`] no rewrite begins. `None`, and nothing to do, when there are none, or when a
    /// rewrite is under way: they go with that one, or with the next.
    pub fn clean(&mut self) -> Option<Manifest> {
        let busy = self.cleaning || self.status.rewriting_since.is_some();
        if busy || self.manifest.history.is_empty() {
            return None;
        }
        self.cleaning = true;
        Some(self.manifest.clone())
    }

    /// What was history is gone; this manifest is on the disk.
    pub fn cleaned(&mut self, manifest: Manifest) {
        self.cleaning = false;
        self.manifest = manifest;
    }

    /// Begins a rewrite, unless one is under way, or a cleaning.
    pub fn begin(&mut self, now: i64) -> Option<Rewrite> {
        if self.cleaning || self.status.rewriting_since.is_some() {
            return None;
        }
        self.status.rewriting_since = Some(now);
        self.status.scheduled = false;
        self.status.rewrites += 1;
        Some(Rewrite {
            generation: self.generation,
            mode: self.status.mode,
            since: now,
        })
    }

    /// True while what a rewrite does is still wanted. Asked before it changes the manifest.
    pub fn wants(&self, rewrite: &Rewrite) -> bool {
        self.is_current(rewrite)
    }

    /// The manifest on the disk names the increment to which the stream will go.
    pub fn named(&mut self, _: &Rewrite, manifest: Manifest) {
        self.manifest = manifest;
    }

    /// What is to be done at the cut. It is to be done before anybody else asks the state machine.
    pub fn at_cut(&self, rewrite: &Rewrite) -> AtCut {
        match (self.is_current(rewrite), rewrite.mode) {
            (false, _) => AtCut::Stale,
            (true, Mode::Waiting) => AtCut::Open,
            (true, Mode::On) => AtCut::Switch,
            (true, Mode::Off) => AtCut::Nothing,
        }
    }

    /// The manifest on the disk names the new base, of so many bytes. Only now, and only if nobody
    /// turned it off meanwhile, a file that waited is on.
    pub fn committed(&mut self, rewrite: &Rewrite, manifest: Manifest, base: u64, open: u64) {
        self.manifest = manifest;
        self.status.older = base;
        self.status.base_size = base + open;
        if self.is_current(rewrite) && self.status.mode == Mode::Waiting {
            self.status.mode = Mode::On;
        }
    }

    /// A rewrite is over. True when what is open is to be closed and thrown away: without a first base
    /// there is nothing to append to, and the next try begins anew.
    pub fn ended(&mut self, rewrite: Rewrite, outcome: Outcome, now: i64) -> bool {
        assert!(self.status.rewriting_since.is_some(), "it was begun");
        let status = &mut self.status;
        match outcome {
            Outcome::Success => {
                status.last_failed = false;
                status.failures = 0;
            }
            Outcome::Cancelled => {}
            Outcome::Failure => {
                status.last_failed = true;
                status.failures += 1;
            }
        }
        status.rewriting_since = None;
        status.last_seconds = (now - rewrite.since).max(0);
        if status.mode != Mode::Waiting {
            return false;
        }
        // Whether it was this one's or that of a generation whose own has not begun yet.
        status.scheduled = true;
        self.generation == rewrite.generation
    }

    /// Whether a rewrite may begin by itself now.
    pub fn pause(&mut self, now: i64) -> Pause {
        if self.status.failures < FAILURES {
            self.pauses = Pauses::default();
            return Pause::None;
        }
        if self.pauses.until != 0 {
            if now < self.pauses.until {
                return Pause::On;
            }
            self.pauses.until = 0;
            return Pause::None;
        }
        self.pauses.minutes = (self.pauses.minutes * 2).clamp(1, LONGEST_PAUSE);
        self.pauses.until = now + self.pauses.minutes as i64 * 60;
        Pause::Begun(self.pauses.minutes)
    }

    fn is_current(&self, rewrite: &Rewrite) -> bool {
        #[cfg(test)]
        if tests::is_broken(tests::Fault::OldCopy) {
            return true;
        }
        self.generation == rewrite.generation
    }
}

#[cfg(test)]
#[path = "life/tests.rs"]
mod tests;
