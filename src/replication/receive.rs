//! A primary's dump on its way into the keyspace: to a file first, or to the loader as it comes.
//!
//! The loader is a thread of its own, which reads from a pipe of bounded length or from the file. It
//! rings when it is done. Who gives a load up drops the pipe, and the loader ends at its next read.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::follow::Load;
use crate::client::mailbox::Bell;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::durability::save;
use crate::persistence::load::{self, About};
use crate::persistence::rdb::file::Failure;

/// Pieces that wait for the loader at most.
const PIECES: usize = 16;
/// How long to wait for the loader before something else is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// Bytes after which what was written to a file is handed to the disk.
const SYNCED: u64 = 8 << 20;

/// Why a dump was not loaded.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// For the log.
    pub(super) text: String,
    /// The next one will fail as well.
    pub(super) lasting: bool,
}

/// What came of loading.
pub(super) type Outcome = Result<About, Failed>;

/// What a loader and who feeds it share.
#[derive(Default)]
struct Common {
    given_up: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
}

/// A dump that is being received or loaded.
pub(super) struct Dump {
    to: To,
    common: Arc<Common>,
    bell: Arc<Bell>,
    /// Its length, where that is known.
    len: Option<u64>,
    /// A loader was started, whose outcome was not taken.
    loads: bool,
    /// Clients are served from the old data meanwhile.
    serves: bool,
}

enum To {
    File(Temporary),
    Loader(SyncSender<Vec<u8>>),
    /// All of it is handed over.
    Nowhere,
}

/// A file that goes with its owner, unless it was put in its place.
struct Temporary {
    file: Option<File>,
    path: PathBuf,
    unsynced: u64,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.file.is_some() {
            // It may be gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Dump {
    /// Begins to receive; for [`Load::Direct`] the loader is started, into what is empty by now. Whether
    /// `serves` clients meanwhile, from the old data.
    pub(super) fn begin(
        shared: &Shared,
        load: Load,
        (len, serves): (Option<u64>, bool),
        bell: &Arc<Bell>,
    ) -> io::Result<Self> {
        let mut dump = Self {
            to: To::Nowhere,
            common: Arc::default(),
            bell: Arc::clone(bell),
            len,
            loads: false,
            serves,
        };
        dump.to = match load {
            Load::File => To::File(create()?),
            Load::Direct | Load::Swap => {
                let (sender, receiver) = sync_channel(PIECES);
                let common = Arc::clone(&dump.common);
                let pipe = Pipe {
                    receiver,
                    piece: Vec::new(),
                    at: 0,
                    common,
                };
                dump.start(shared, load, pipe)?;
                To::Loader(sender)
            }
        };
        Ok(dump)
    }

    /// One that is loaded, and nothing more is to be done for.
    pub(super) fn loaded(bell: &Arc<Bell>) -> Self {
        let common = Arc::<Common>::default();
        Self {
            to: To::Nowhere,
            common,
            bell: Arc::clone(bell),
            len: None,
            loads: false,
            serves: false,
        }
    }

    /// Takes the next bytes. `goes_on` is asked while the loader is behind: false gives up.
    ///
    /// # Errors
    /// Of the file. What the loader meets is its outcome.
    pub(super) fn take(&mut self, bytes: &[u8], goes_on: impl Fn() -> bool) -> io::Result<()> {
        match &mut self.to {
            To::File(temporary) => temporary.write(bytes),
            To::Loader(sender) => {
                let mut piece = bytes.to_vec();
                while let Err(TrySendError::Full(back)) = sender.try_send(piece) {
                    if !goes_on() {
                        break;
                    }
                    piece = back;
                    std::thread::sleep(LOOK);
                }
                Ok(())
            }
            To::Nowhere => Ok(()),
        }
    }

    /// All of it has come: a file takes the place of the dump on disk and is loaded, into what is empty
    /// by now.
    pub(super) fn end(&mut self, shared: &Shared) -> io::Result<()> {
        if let To::File(mut temporary) = std::mem::replace(&mut self.to, To::Nowhere) {
            let file = temporary.put_in_place(shared)?;
            self.len = Some(file.metadata()?.len());
            self.start(shared, Load::File, file)?;
        }
        Ok(())
    }

    /// What came of loading, once that is over.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let outcome = self.common.outcome.lock().take();
        self.loads &= outcome.is_none();
        outcome
    }

    /// Gives up, and waits until the loader has let the keyspace go.
    pub(super) fn give_up(self) {
        self.common.given_up.store(true, Relaxed);
        drop(self.to);
        while self.loads && self.common.outcome.lock().is_none() {
            std::thread::sleep(LOOK);
        }
    }

    fn start(
        &mut self,
        shared: &Shared,
        load: Load,
        input: impl Read + Send + 'static,
    ) -> io::Result<()> {
        let (common, bell, len) = (Arc::clone(&self.common), Arc::clone(&self.bell), self.len);
        let watched = Watched {
            input,
            common: Arc::clone(&common),
        };
        let (swaps, serves) = (load == Load::Swap, self.serves);
        let started = shared.threads.start("load", move |shared| {
            let outcome = run(shared, watched, len.unwrap_or(0), (swaps, serves));
            *common.outcome.lock() = Some(outcome);
            bell.ring();
        });
        self.loads = started.is_ok();
        started
    }
}

/// Loads a dump into an empty keyspace, or beside what is there, which clients may be served from.
fn run(shared: &Shared, input: impl Read, len: u64, (beside, serves): (bool, bool)) -> Outcome {
    let settings = shared.config.load();
    let mut options = save::load_options(&settings, false, false);
    options.beside = beside;
    let loading = &shared.durability.loading;
    loading.begin_as(len, serves);
    match load::file(&shared.keyspace, input, &options, loading) {
        Ok(loaded) => {
            *shared.durability.functions.lock() = loaded.functions;
            Ok(loaded.about)
        }
        Err(failure) => Err(Failed {
            text: describe(&failure),
            lasting: !matches!(failure, Failure::Io(_)),
        }),
    }
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Io(error) => strerror(error),
        other => other.to_string(),
    }
}

fn create() -> io::Result<Temporary> {
    let path = PathBuf::from(format!("temp-{}.rdb", temporary_name()));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    Ok(Temporary {
        file: Some(file),
        path,
        unsynced: 0,
    })
}

fn temporary_name() -> String {
    let (now, pid) = (crate::base::clock::unix_ms(), std::process::id());
    format!("{now}.{pid}")
}

impl Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().expect("it is open until its end");
        file.write_all(bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNCED {
            self.unsynced = 0;
            file.sync_data()?;
        }
        Ok(())
    }

    /// It is the dump file from now on. Gives it, to be read from its start.
    fn put_in_place(&mut self, shared: &Shared) -> io::Result<File> {
        use std::io::Seek;
        let mut file = self.file.take().expect("it is open until its end");
        let settings = shared.config.load();
        file.sync_data()?;
        // No snapshot of the old data takes its place.
        let _turn = shared.durability.saves.take_over();
        std::fs::rename(&self.path, settings.dbfilename.as_path())?;
        file.rewind()?;
        Ok(file)
    }
}

/// The loader's end of the pipe.
struct Pipe {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    common: Arc<Common>,
}

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.common.given_up.load(Relaxed) {
                return Err(ErrorKind::Interrupted.into());
            }
            match self.receiver.recv() {
                Ok(piece) => (self.piece, self.at) = (piece, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = to.len().min(self.piece.len() - self.at);
        to[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Ends the reading when the load is given up.
struct Watched<R> {
    input: R,
    common: Arc<Common>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.common.given_up.load(Relaxed) {
            return Err(io::Error::other("given up"));
        }
        self.input.read(to)
    }
}
