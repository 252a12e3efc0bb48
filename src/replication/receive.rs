//! A primary's dump on its way into the keyspace: to a file first, or to the loader as it comes.
//!
//! The loader is a thread of its own, which reads from a pipe of bounded length or from the file. It
//! rings when it is done. Who gives a load up drops the pipe, and the loader ends at its next read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::follow::Load;
use crate::base::clock;
use crate::client::mailbox::Bell;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::durability::save;
use crate::persistence::load::{self, About};
use crate::persistence::rdb::file::Failure;
use crate::persistence::replacement::Replacement;

/// Pieces that wait for the loader at most.
const PIECES: usize = 16;
/// How long to wait for the loader before something else is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// Why a dump was not loaded.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// For the log.
    pub(super) text: String,
    /// The next one will fail as well.
    pub(super) lasting: bool,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            text: strerror(&error),
            lasting: false,
        }
    }
}

/// What came of loading.
pub(super) type Outcome = Result<About, Failed>;

/// What a loader and who feeds it share.
#[derive(Default)]
struct Common {
    given_up: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
}

/// A dump that is being received or loaded, or is loaded and waits to be adopted.
pub(super) struct Dump {
    /// Where it goes.
    pub(super) load: Load,
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
    File(Replacement),
    Loader(SyncSender<Vec<u8>>),
    /// All of it is handed over.
    Nowhere,
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
            load,
            to: To::Nowhere,
            common: Arc::default(),
            bell: Arc::clone(bell),
            len,
            loads: false,
            serves,
        };
        dump.to = match load {
            Load::File => To::File(create(shared)?),
            Load::Direct | Load::Swap => {
                let (sender, receiver) = sync_channel(PIECES);
                let pipe = Pipe {
                    receiver,
                    piece: Vec::new(),
                    at: 0,
                };
                dump.start(shared, pipe)?;
                To::Loader(sender)
            }
        };
        Ok(dump)
    }

    /// Takes the next bytes. `goes_on` is asked while the loader is behind: false gives up.
    ///
    /// # Errors
    /// Of the file. What the loader meets is its outcome.
    pub(super) fn take(&mut self, bytes: &[u8], goes_on: impl Fn() -> bool) -> io::Result<()> {
        match &mut self.to {
            To::File(replacement) => replacement.write_all(bytes),
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
        let To::File(replacement) = std::mem::replace(&mut self.to, To::Nowhere) else {
            return Ok(());
        };
        // No snapshot of the old data takes its place.
        let turn = shared.durability.saves.take_over();
        replacement.commit()?;
        let file = File::open(shared.config.load().dbfilename.as_path())?;
        drop(turn);
        self.len = Some(file.metadata()?.len());
        self.start(shared, file)
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

    fn start(&mut self, shared: &Shared, input: impl Read + Send + 'static) -> io::Result<()> {
        let (common, bell, len) = (Arc::clone(&self.common), Arc::clone(&self.bell), self.len);
        let watched = Watched {
            input,
            common: Arc::clone(&common),
        };
        let (swaps, serves) = (self.load == Load::Swap, self.serves);
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
    match serves {
        true => loading.begin_async(len),
        false => loading.begin(len),
    }
    match load::file(&shared.keyspace, input, &options, loading) {
        Ok(loaded) => {
            save::take_functions(shared, &loaded.functions, save::Taking::InPlace)?;
            Ok(loaded.about)
        }
        Err(Failure::Io(error)) => Err(error.into()),
        Err(other) => Err(Failed {
            text: other.to_string(),
            lasting: true,
        }),
    }
}

/// The file that becomes the dump when all of it has come.
fn create(shared: &Shared) -> io::Result<Replacement> {
    let (seconds, pid) = (clock::unix_ms() / 1000, std::process::id());
    let temporary = PathBuf::from(format!("temp-{seconds}.{pid}.rdb"));
    let target = shared.config.load();
    Replacement::create(&temporary, target.dbfilename.as_path(), true)
}

/// The loader's end of the pipe.
struct Pipe {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Pipe {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receiver.recv() {
                Ok(piece) => (self.piece, self.at) = (piece, 0),
                // All of it has come, or it was given up.
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
