//! The thread that writes the node's file, so that nothing else waits for the disk.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::cluster::file::NodeFile;
use crate::config::strerror;

/// After a write that failed it is tried again so often.
const AGAIN: Duration = Duration::from_millis(500);

/// What the file is to hold, the number of that, and whether it has to be on the disk.
type Save = (u64, Arc<str>, bool);

/// The way to the thread.
pub struct Saver(Sender<Save>);

impl Saver {
    /// Starts the thread. `tell` hears of each write: the number of what the file holds, or why it does not
    /// hold it.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(
        file: NodeFile,
        tell: impl Fn(u64, io::Result<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, saves) = channel();
        let thread = std::thread::Builder::new().name("nodes-conf".to_owned());
        thread.spawn(move || run(file, &saves, &tell))?;
        Ok(Self(sender))
    }

    /// Has the file hold `text`. Of several that wait the last one is written.
    pub fn save(&self, number: u64, text: Arc<str>, durable: bool) {
        // Where the thread has ended, so has the process.
        let _ = self.0.send((number, text, durable));
    }
}

fn run(mut file: NodeFile, saves: &Receiver<Save>, tell: &dyn Fn(u64, io::Result<()>)) {
    let mut failed: Option<Save> = None;
    loop {
        let next = match &failed {
            None => saves.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => saves.recv_timeout(AGAIN),
        };
        let first = match (next, failed.take()) {
            (Ok((number, text, durable)), before) => {
                let owed = before.is_some_and(|(.., durable)| durable);
                (number, text, durable || owed)
            }
            (Err(RecvTimeoutError::Timeout), Some(save)) => save,
            _ => return,
        };
        let later =
            |(.., durable): Save, (number, text, also): Save| (number, text, durable || also);
        let (number, text, durable) = saves.try_iter().fold(first, later);
        let saved = file.save(&text, durable);
        if let Err(error) = &saved {
            tracing::warn!("Can't update cluster config file: {}", strerror(error));
            failed = Some((number, text, durable));
        }
        tell(number, saved);
    }
}
