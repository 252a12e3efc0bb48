//! Appending the stream to the file, on a thread of its own.
//!
//! The writer follows the stream at its own pace: what it has not taken yet waits in the stream's
//! chunks. It writes whatever there is, some milliseconds' worth at once unless replies wait for it,
//! then syncs by the policy. Under `always` one sync serves
//! everything that was appended before it began, and only then [`Progress::durable`] tells that
//! replies may go out. Under `everysec` a thread of its own syncs, so that also while a disk takes
//! seconds for that, what comes is handed to the system. A write that fails is taken back and
//! tried again; nothing is skipped.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::base::clock::unix_ms;
use crate::client::mailbox::Bell;
use crate::propagation::{Chunk, Reader};

/// Longest wait for something to write.
const TICK: Duration = Duration::from_millis(100);
/// Writes after which it is seen anew whether there are many clients.
const CROWDED: u8 = 16;
/// After a write to the file what comes within this time goes there at once, unless somebody waits
/// for it: a worker that appends meanwhile finds nobody to wake.
const GATHER: Duration = Duration::from_millis(4);
/// Bytes written at once, up to the end of a chunk. One call for several chunks has the system
/// look after fewer pages that are filled in two steps, and after bigger ones; with still bigger
/// calls it would look for more memory in one piece than there usually is.
const BATCH: usize = 256 * 1024;
/// Time between two syncs under `everysec`, and between two tries after a failure.
const SECOND: Duration = Duration::from_secs(1);

/// When to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// After each write, before anybody is told.
    Always,
    /// Every second.
    EverySecond,
    /// Never: the system does it some time.
    Never,
}

/// How to write, by the parameters.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `appendfsync`, less what `no-appendfsync-on-rewrite` suspends.
    pub sync: Sync,
    /// `aof-timestamp-enabled`.
    pub timestamps: bool,
}

/// What others see of the writer.
#[derive(Default)]
pub struct Progress {
    written: AtomicU64,
    durable: AtomicU64,
    /// Bytes of the file being written.
    pub size: AtomicU64,
    /// The last write failed; writes are refused until one succeeds.
    pub failing: AtomicBool,
    /// Microseconds to wait before each write, for tests.
    pub flush_sleep_us: AtomicU64,
    /// The system's number of the last failure.
    pub error: AtomicI32,
    /// Workers that hold replies back.
    holders: Mutex<Vec<Arc<Bell>>>,
}

impl Progress {
    /// Up to where in the stream everything was handed to the system.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Up to where in the stream everything is on the disk.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Has a bell rung when [`Progress::durable`] has moved. Look at that again afterwards: it may
    /// have moved before.
    pub fn hold(&self, bell: &Arc<Bell>) {
        let mut holders = self.holders.lock();
        if !holders.iter().any(|b| Arc::ptr_eq(b, bell)) {
            holders.push(Arc::clone(bell));
        }
    }

    fn release(&self, offset: u64) {
        self.durable.store(offset, Ordering::Release);
        for bell in std::mem::take(&mut *self.holders.lock()) {
            bell.ring();
        }
    }
}

/// The file, and where in the stream it is.
pub struct Writer {
    reader: Reader,
    file: File,
    progress: Arc<Progress>,
    /// Taken from the stream and not written yet.
    pending: VecDeque<Chunk>,
    /// Where in the stream `pending` begins.
    at: u64,
    /// Files to go on with, from an offset of the stream on.
    next: Arc<Mutex<VecDeque<(u64, File)>>>,
    size: u64,
    /// Something was written after the last sync began.
    unsynced: bool,
    /// A sync in the background.
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// The last one did not succeed.
    sync_failed: bool,
    /// When the last sync ended, or began in the background.
    last_sync: Instant,
    /// How long the last sync took, under `always`.
    sync_took: Duration,
    /// For how many more writes many clients are taken to be there.
    crowded: u8,
    last_try: Option<Instant>,
    last_write: Instant,
    last_stamp: i64,
    /// The rest of a stamp that is in the file in part.
    owed: Vec<u8>,
}

/// Hands new files to a writer.
#[derive(Clone)]
pub struct Rotation(Arc<Mutex<VecDeque<(u64, File)>>>);

impl Rotation {
    /// The stream goes to `file` from `offset` on. Called at a cut, when `offset` is the end.
    pub fn switch(&self, offset: u64, file: File) {
        self.0.lock().push_back((offset, file));
    }
}

impl Writer {
    /// Appends to `file`, which has `size` bytes, what `reader` gives.
    pub fn new(reader: Reader, file: File, size: u64, progress: Arc<Progress>) -> Self {
        let at = reader.offset();
        progress.written.store(at, Ordering::Release);
        progress.release(at);
        progress.size.store(size, Ordering::Relaxed);
        Self {
            reader,
            file,
            progress,
            pending: VecDeque::new(),
            at,
            next: Arc::default(),
            size,
            unsynced: false,
            syncing: None,
            sync_failed: false,
            last_sync: Instant::now(),
            sync_took: Duration::ZERO,
            crowded: 0,
            last_try: None,
            last_write: Instant::now(),
            last_stamp: 0,
            owed: Vec::new(),
        }
    }

    /// The way to switch files.
    pub fn rotation(&self) -> Rotation {
        Rotation(Arc::clone(&self.next))
    }

    /// Waits for something to do and does it.
    ///
    /// # Errors
    /// Of writing or syncing. What was not written stays and is tried again by a later step.
    pub fn step(&mut self, policy: impl Fn() -> Policy) -> io::Result<()> {
        if self.pending.is_empty() {
            if self.reader.wait(TICK) {
                let time = self.gathering(policy());
                if !time.is_zero() {
                    std::thread::sleep(time);
                }
            }
        } else if let Some(last) = self.last_try
            && last.elapsed() < SECOND
        {
            std::thread::sleep(TICK);
            return Ok(());
        }
        self.flush(policy())
    }

    /// How long to let more come before what has come is written.
    ///
    /// Under `always` that delays replies, so it pays only where there are so many clients that some
    /// always write while others wait for a sync: left alone they would be two groups that take
    /// turns at waiting, with twice as many syncs. A fraction of a sync lets both become one.
    fn gathering(&mut self, policy: Policy) -> Duration {
        if policy.sync != Sync::Always {
            return GATHER.saturating_sub(self.last_write.elapsed());
        }
        let crowded = self.crowded > 0;
        self.crowded = self.crowded.saturating_sub(1);
        match crowded {
            true => (self.sync_took / 4).min(GATHER),
            false => Duration::ZERO,
        }
    }

    /// Writes what there is, and syncs by the policy.
    ///
    /// # Errors
    /// As [`Writer::step`].
    pub fn flush(&mut self, policy: Policy) -> io::Result<()> {
        self.pending.extend(self.reader.read());
        if !self.pending.is_empty() {
            self.last_write = Instant::now();
        }
        let sleep = self.progress.flush_sleep_us.load(Ordering::Relaxed);
        if sleep != 0 && !self.pending.is_empty() {
            std::thread::sleep(Duration::from_micros(sleep));
        }
        let result = self.write_pending(policy).and_then(|()| self.sync(policy));
        match &result {
            Ok(()) => {
                self.last_try = None;
                // Also when only the disk refused, and nothing new was to be written since.
                self.progress.failing.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                self.last_try = Some(Instant::now());
                let number = error.raw_os_error().unwrap_or(0);
                self.progress.error.store(number, Ordering::Relaxed);
                self.progress.failing.store(true, Ordering::Relaxed);
            }
        }
        result
    }

    fn write_pending(&mut self, policy: Policy) -> io::Result<()> {
        while let Some(first) = self.pending.front() {
            if first.for_replicas {
                self.advance(first.bytes.len());
                continue;
            }
            self.rotate()?;
            self.stamp(policy)?;
            let (done, result) = self.write(&self.batch());
            self.advance(done);
            result?;
            self.progress.failing.store(false, Ordering::Relaxed);
        }
        self.rotate()
    }

    /// What is written next: one chunk at least, and nothing beyond where the next file begins.
    fn batch(&self) -> SmallVec<[Bytes; 8]> {
        let next = self.next.lock().front().map(|(at, _)| at - self.at);
        let mut room = next.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let mut taken = 0;
        let chunks = self.pending.iter().take_while(|chunk| !chunk.for_replicas);
        let parts = chunks.map_while(|chunk| {
            let len = chunk.bytes.len().min(room);
            if len == 0 || taken >= BATCH {
                return None;
            }
            taken += len;
            room -= len;
            Some(chunk.bytes.slice(..len))
        });
        parts.collect()
    }

    /// So many bytes of what is pending are in the file, or need not be.
    fn advance(&mut self, mut bytes: usize) {
        self.at += bytes as u64;
        while let Some(first) = self.pending.front_mut() {
            if bytes < first.bytes.len() {
                first.bytes.advance(bytes);
                break;
            }
            bytes -= first.bytes.len();
            self.pending.pop_front();
        }
        self.progress.written.store(self.at, Ordering::Release);
    }

    /// Goes on to the next file, if it begins here.
    fn rotate(&mut self) -> io::Result<()> {
        loop {
            let due = |next: &VecDeque<(u64, File)>| next.front().is_some_and(|n| n.0 <= self.at);
            if !due(&self.next.lock()) {
                return Ok(());
            }
            // The next file stays in line until all of this one is on the disk.
            if self.unsynced || self.syncing.is_some() {
                self.sync_now()?;
            }
            let Some((_, file)) = self.next.lock().pop_front() else {
                return Ok(());
            };
            self.file = file;
            self.size = 0;
            self.last_stamp = 0;
            self.progress.size.store(0, Ordering::Relaxed);
        }
    }

    /// Tells the time, once a second. The stream is read at ends of commands only, so this does
    /// not come between the parts of one.
    fn stamp(&mut self, policy: Policy) -> io::Result<()> {
        let now = unix_ms() / 1000;
        if !self.owed.is_empty() {
            return self.pay();
        }
        if !policy.timestamps || now == self.last_stamp {
            return Ok(());
        }
        self.owed = format!("#TS:{now}\r\n").into_bytes();
        self.last_stamp = now;
        self.pay()
    }

    /// Writes what has to come before anything else does.
    fn pay(&mut self) -> io::Result<()> {
        let owed = Bytes::from(std::mem::take(&mut self.owed));
        let (written, result) = self.write(std::slice::from_ref(&owed));
        self.owed = owed[written..].to_vec();
        result
    }

    /// Writes all of it, or nothing; where what was written in part cannot be taken back, so many
    /// bytes remain.
    fn write(&mut self, parts: &[Bytes]) -> (usize, io::Result<()>) {
        self.unsynced = true;
        let (mut written, result) = write_what_fits(&self.file, parts);
        if result.is_err() && written > 0 {
            match self.file.set_len(self.size) {
                Ok(()) => written = 0,
                Err(error) => tracing::warn!(
                    "Could not remove short write from the append-only file. Redis may refuse to \
                     load the AOF the next time it starts. ftruncate: {error}"
                ),
            }
        }
        self.size += written as u64;
        self.progress.size.store(self.size, Ordering::Relaxed);
        (written, result)
    }

    fn sync(&mut self, policy: Policy) -> io::Result<()> {
        if self.syncing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end_sync()?;
        }
        match policy.sync {
            Sync::Always if self.unsynced => self.sync_for_all()?,
            Sync::EverySecond
                if self.unsynced && (self.sync_failed || self.last_sync.elapsed() >= SECOND) =>
            {
                self.sync_in_background()?;
            }
            _ => {}
        }
        self.progress.release(self.at);
        Ok(())
    }

    /// The sync that replies wait for.
    fn sync_for_all(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        self.sync_now()?;
        self.sync_took = begun.elapsed();
        if self.reader.is_behind() {
            self.crowded = CROWDED;
        }
        Ok(())
    }

    /// Begins a sync unless one is under way. After a failure it is awaited: writes are refused
    /// until one succeeds.
    fn sync_in_background(&mut self) -> io::Result<()> {
        if self.syncing.is_some() {
            return Ok(());
        }
        if self.sync_failed {
            return self.sync_now();
        }
        let file = self.file.try_clone()?;
        let thread = std::thread::Builder::new().name("aof-sync".to_owned());
        self.syncing = Some(thread.spawn(move || file.sync_data())?);
        self.unsynced = false;
        self.last_sync = Instant::now();
        Ok(())
    }

    /// Awaits the sync in the background, if there is one.
    fn end_sync(&mut self) -> io::Result<()> {
        let Some(thread) = self.syncing.take() else {
            return Ok(());
        };
        let ended = thread.join();
        let result = ended.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        self.sync_failed = result.is_err();
        self.unsynced |= self.sync_failed;
        result
    }

    /// Has everything written to the disk.
    pub fn sync_now(&mut self) -> io::Result<()> {
        self.end_sync()?;
        let result = self.file.sync_data();
        self.sync_failed = result.is_err();
        result?;
        self.unsynced = false;
        self.last_sync = Instant::now();
        Ok(())
    }
}

/// Writes all of it; else tells how much was written before it failed.
fn write_what_fits(mut file: &File, parts: &[Bytes]) -> (usize, io::Result<()>) {
    let mut slices: SmallVec<[IoSlice<'_>; 8]> = parts.iter().map(|p| IoSlice::new(p)).collect();
    let (mut rest, mut written) = (&mut slices[..], 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::Stream;

    const POLICY: Policy = Policy {
        sync: Sync::Never,
        timestamps: false,
    };

    #[test]
    fn all_chunks_but_those_for_replicas_go_to_the_file_that_is_theirs() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let create = |name: &str| File::create(path(name)).expect("a file");
        let stream = Arc::new(Stream::default());
        let progress = Arc::new(Progress::default());
        let reader = stream.file_reader();
        let mut writer = Writer::new(reader, create("first"), 0, Arc::clone(&progress));
        let mut expected = Vec::new();
        let value = vec![b'v'; 30_000];
        for i in 0..40 {
            // Several calls of many chunks each, and one within which the next file begins.
            if i == 25 {
                writer.rotation().switch(stream.offset(), create("second"));
            }
            let key = format!("k{i}");
            stream.append(|block| {
                block.select(0);
                block.bare(&[b"SET", key.as_bytes(), &value]);
                if i % 7 == 0 {
                    block.for_replicas(&["PUBLISH", "c", "m"]);
                }
            });
            expected.push(format!("${}\r\n{key}\r\n", key.len()));
        }
        let end = stream.offset();
        writer.flush(POLICY).expect("written");
        assert_eq!(progress.written(), end);
        let read = |name| std::fs::read(path(name)).expect("a file");
        let (first, second) = (read("first"), read("second"));
        assert_eq!(progress.size.load(Ordering::Relaxed), second.len() as u64);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
        let all = text(&first) + &text(&second);
        assert!(!all.contains("PUBLISH"));
        let places: Vec<_> = expected.iter().map(|e| all.find(e)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some));
        assert!(places[24] < Some(first.len()) && places[25] >= Some(first.len()));
    }
}
