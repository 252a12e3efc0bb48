//! Files that replace others: written beside the old one, and put in its place when they are complete.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_stays_until_the_new_one_is_complete() {
        let folder = tempfile::tempdir().expect("there is room");
        let (temporary, target) = (folder.path().join("temp"), folder.path().join("dump"));
        std::fs::write(&target, "old").expect("there is room");
        let mut given_up = Replacement::create(&temporary, &target, false).expect("there is room");
        given_up.write_all(b"half").expect("there is room");
        drop(given_up);
        assert!(!temporary.exists());
        assert_eq!(std::fs::read(&target).expect("as it was"), b"old");
        let mut new = Replacement::create(&temporary, &target, true).expect("there is room");
        new.write_all(b"new").expect("there is room");
        new.commit().expect("there is room");
        assert!(!temporary.exists());
        assert_eq!(std::fs::read(&target).expect("replaced"), b"new");
    }
}
