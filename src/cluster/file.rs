//! The node's file on the disk, and who may use it.
//!
//! A save writes a copy first and then the file itself, each replaced as a whole when it is on the disk:
//! whoever finds the file torn or empty (edited by hand, written by a Redis that was stopped) finds the
//! last good one beside it. Two processes never use one file: a lock is held on a file that is never
//! replaced, and, as Redis does, on the file itself, anew after each replacement.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::conf;
use super::view::View;
use crate::config::strerror;
use crate::persistence::replacement::Replacement;

/// A node's file, which this process has to itself.
pub struct NodeFile {
    path: PathBuf,
    /// It was there before.
    existed: bool,
    /// Held for as long as the process lives.
    _guard: File,
    /// The file as it is now, locked.
    locked: File,
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

impl NodeFile {
    /// Takes the file, which is made if it is not there.
    ///
    /// # Errors
    /// Somebody else has it, or it cannot be opened; why is logged.
    #[allow(clippy::result_unit_err, reason = "what is wrong is in the log")]
    pub fn lock(path: &Path) -> Result<Self, ()> {
        let guard = lock(&beside(path, ".lock"), path)?;
        let existed = path.exists();
        let locked = lock(path, path)?;
        Ok(Self {
            path: path.into(),
            existed,
            _guard: guard,
            locked,
        })
    }

    /// What the file holds; `None` for a node that starts for the first time.
    ///
    /// # Errors
    /// It cannot be read, nor can its last good copy; why is logged.
    #[allow(clippy::result_unit_err, reason = "what is wrong is in the log")]
    pub fn load(&self, now: i64) -> Result<Option<View>, ()> {
        if !self.existed {
            // Removed on purpose, maybe: the copy is not asked.
            return Ok(None);
        }
        let shown = self.path.display();
        let text = read(&self.path).map_err(|error| {
            tracing::warn!(
                "Loading the cluster node config from {shown}: {}",
                strerror(&error)
            );
        })?;
        let problem = match conf::read(&text, now) {
            Ok(view) if conf::is_whole(&text) => return Ok(Some(view)),
            // The last line is missing.
            Ok(_) => "its end is missing".to_owned(),
            Err(_) if text.is_empty() => "it is empty".to_owned(),
            Err(corrupt) => corrupt.to_string(),
        };
        let copy = beside(&self.path, ".bak");
        let good = read(&copy).ok().filter(|text| conf::is_whole(text));
        match good.and_then(|text| conf::read(&text, now).ok()) {
            Some(view) => {
                tracing::warn!(
                    "The cluster config file {shown} is damaged ({problem}): its last good copy is \
                     used."
                );
                Ok(Some(view))
            }
            None if text.is_empty() => Ok(None),
            None => match conf::read(&text, now) {
                // As Redis takes it.
                Ok(view) => Ok(Some(view)),
                Err(corrupt) => {
                    tracing::warn!(
                        "Unrecoverable error: corrupted cluster config file {shown}: {corrupt}"
                    );
                    Err(())
                }
            },
        }
    }

    /// Has the file hold `text`: `durable` for good, or for as long as the machine runs.
    ///
    /// # Errors
    /// It holds what it held before, or not for good, or cannot be locked any more.
    pub fn save(&mut self, text: &str, durable: bool) -> io::Result<()> {
        let temporary = beside(&self.path, ".tmp");
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.path)?;
        if durable {
            // What the file holds may be lost with the machine: then the copy has all that was promised. Its
            // last sync is that of the directory, and so of both names.
            replace(&beside(&self.path, ".bak"), text)?;
        }
        let locked = File::open(&self.path)?;
        flock(&locked, FlockOperation::NonBlockingLockExclusive)?;
        self.locked = locked;
        Ok(())
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = Replacement::create(&beside(path, ".tmp"), path, false)?;
    file.write_all(text.as_bytes())?;
    file.commit()
}

/// What a file holds; nothing if there is none.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        result => result,
    }
}

fn lock(path: &Path, of: &Path) -> Result<File, ()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| {
        tracing::warn!(
            "Can't open {} in order to acquire a lock: {}",
            path.display(),
            strerror(&error)
        );
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            tracing::warn!(
                "Sorry, the cluster configuration file {} is already used by a different Redis \
                 Cluster node. Please make sure that different nodes use different cluster \
                 configuration files.",
                of.display()
            );
            Err(())
        }
        Err(error) => {
            tracing::warn!(
                "Impossible to lock {}: {}",
                of.display(),
                strerror(&error.into())
            );
            Err(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "1111111111111111111111111111111111111111 10.0.0.1:6379@16379 myself,master - \
                        0 0 2 connected 0-4\nvars currentEpoch 7 lastVoteEpoch 6\n";

    #[test]
    fn a_file_is_taken_saved_and_mended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nodes.conf");
        let mut file = NodeFile::lock(&path).unwrap();
        assert!(file.load(1).unwrap().is_none());
        file.save(TEXT, true).unwrap();
        assert!(NodeFile::lock(&path).is_err(), "locked twice");
        let theirs = File::open(&path).unwrap();
        assert!(flock(&theirs, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(file);
        for damage in ["", &TEXT[..100], &TEXT[..TEXT.len() - 20], "nonsense\n"] {
            std::fs::write(&path, damage).unwrap();
            let file = NodeFile::lock(&path).unwrap();
            let view = file.load(1).unwrap().expect("the copy is good");
            assert_eq!(view.last_vote_epoch, 6, "{damage:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(NodeFile::lock(&path).unwrap().load(1).unwrap().is_none());
        std::fs::remove_file(beside(&path, ".bak")).unwrap();
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(NodeFile::lock(&path).unwrap().load(1).is_err());
    }
}
