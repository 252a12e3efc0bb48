//! Dump files on disk: written beside the old one, and put in its place when they are complete.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use super::snapshot::Progress;
use crate::base::clock::unix_ms;
use crate::keyspace::cut::Cut;

/// Bytes after which a growing file is written to the disk, so that the last sync is short.
const SYNC_EVERY: u64 = 4 << 20;

/// A file that replaces another one when it is complete.
pub struct Replacement {
    file: Option<BufWriter<Synced>>,
    temporary: PathBuf,
    target: PathBuf,
    done: bool,
}

/// A file that is synced now and then while it grows.
struct Synced {
    file: File,
    unsynced: u64,
    incremental: bool,
}

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.incremental && self.unsynced >= SYNC_EVERY {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Replacement {
    /// A new file `temporary` that shall become `target`; `incremental`: it is synced while it
    /// grows (`rdb-save-incremental-fsync`).
    pub fn create(temporary: &Path, target: &Path, incremental: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .open(temporary)?;
        let file = Synced {
            file,
            unsynced: 0,
            incremental,
        };
        Ok(Self {
            file: Some(BufWriter::with_capacity(1 << 16, file)),
            temporary: temporary.into(),
            target: target.into(),
            done: false,
        })
    }

    /// Syncs the file and puts it in its place, for good.
    pub fn commit(mut self) -> io::Result<()> {
        let writer = self.file.take().expect("taken only here");
        let synced = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        synced.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.target)?;
        self.done = true;
        sync_directory_of(&self.target)
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file
            .as_mut()
            .expect("open until committed")
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("open until committed").flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done {
            // Nobody needs what is incomplete; if it cannot be removed, the next one overwrites it.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Has a change of a directory's entries written to the disk.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let result = File::open(parent.unwrap_or(Path::new(".")))?.sync_all();
    match result {
        // Some file systems cannot, and need not.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// What is told of saving.
pub struct Saves {
    /// Held by whoever takes a snapshot: there is one cut at a time.
    turn: Mutex<()>,
    /// A save in the background was asked for and has not ended.
    pub running: AtomicBool,
    /// A save is to follow what is under way (BGSAVE SCHEDULE).
    pub scheduled: AtomicBool,
    /// The cut of the running save, to be cancelled.
    cut: Mutex<Option<Arc<Cut>>>,
    cancelled: AtomicBool,
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
            scheduled: AtomicBool::new(false),
            cut: Mutex::default(),
            cancelled: AtomicBool::new(false),
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

impl Saves {
    /// Waits for the turn to take a snapshot.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// True while any snapshot is taken.
    pub fn is_busy(&self) -> bool {
        self.turn.try_lock().is_none()
    }

    /// The running save's cut has begun.
    pub fn begun(&self, cut: &Arc<Cut>) {
        if self.cancelled.load(Relaxed) {
            cut.cancel();
        }
        *self.cut.lock() = Some(Arc::clone(cut));
    }

    /// The running snapshot is over.
    pub fn ended_cut(&self) {
        *self.cut.lock() = None;
        self.cancelled.store(false, Relaxed);
    }

    /// The running save is over.
    pub fn ended(&self) {
        self.ended_cut();
        self.started.store(-1, Relaxed);
        self.running.store(false, Relaxed);
    }

    /// True when the running save was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Cancels the running save, if there is one. It ends soon after.
    pub fn cancel(&self) {
        if self.running.load(Relaxed) {
            self.cancel_cut();
        }
    }

    /// Cancels the snapshot that is under way or about to begin, of whatever kind.
    pub fn cancel_cut(&self) {
        self.cancelled.store(true, Relaxed);
        if let Some(cut) = &*self.cut.lock() {
            cut.cancel();
        }
    }
}
