//! Appending the stream to a file: what was read and is not written yet, what is not synced yet, and
//! how far that is. Which thread does it and when: [`super::log`].
//!
//! A write that fails is taken back and tried again; nothing is skipped. Under `always` a sync serves
//! everything that was written before it began, and only then [`Progress::cleared`] tells that replies
//! may go out; under the other policies they may once it is written. Syncing is work that is handed
//! out ([`Writer::sync_work`]) and done without anybody having to wait for the writer.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use super::place;
use crate::base::clock::unix_ms;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use crate::client::mailbox::Bell;
use crate::config::strerror;
use crate::propagation::{Audience, Chunk, Reader};

/// Syncs after which it is seen anew whether there are many clients.
const CROWDED: u8 = 16;
/// Longest time to let more come before a sync.
const GATHER: Duration = Duration::from_millis(4);
/// Bytes written at once, up to the end of a chunk. One call for several chunks has the system
/// look after fewer pages that are filled in two steps, and after bigger ones; with still bigger
/// calls it would look for more memory in one piece than there usually is.
const BATCH: usize = 256 * 1024;
/// Most bytes of room that the writer's own buffer keeps.
const KEPT: usize = 256 * 1024;
/// Time between two syncs under `everysec`, and between two tries after a failure.
const SECOND: Duration = Duration::from_secs(1);
/// A sync that takes longer is told of when something is written meanwhile.
const SLOW_SYNC: Duration = Duration::from_secs(2);

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
    cleared: AtomicU64,
    /// Up to which replication offset what was appended is on the disk.
    synced: AtomicU64,
    /// Bytes of the file being written.
    pub size: AtomicU64,
    /// The last write failed; writes are refused until one succeeds.
    pub failing: AtomicBool,
    /// Microseconds to wait before each write, for tests.
    pub flush_sleep_us: AtomicU64,
    /// The system's number of the last failure.
    pub error: AtomicI32,
    /// A sync is under way.
    syncing: AtomicBool,
    /// Writes during a sync that takes long, counted once for each such sync.
    pub delayed: AtomicU64,
    /// Workers that hold replies back.
    holders: Mutex<Vec<Arc<Bell>>>,
}

impl Progress {
    /// Up to where in the stream everything was handed to the system.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Up to where in the stream replies may tell of what was appended.
    #[inline]
    pub fn cleared(&self) -> u64 {
        self.cleared.load(Ordering::Acquire)
    }

    /// Up to which replication offset what was appended is on the disk. Of use only while the files hold
    /// the data set.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// True while a sync is under way.
    #[inline]
    pub fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Acquire)
    }

    /// Has a bell rung by the next [`Progress::ring`]. Look at [`Progress::cleared`] again afterwards:
    /// it may have moved before.
    pub fn hold(&self, bell: &Arc<Bell>) {
        let mut holders = self.holders.lock();
        if !holders.iter().any(|b| Arc::ptr_eq(b, bell)) {
            holders.push(Arc::clone(bell));
        }
    }

    /// Replies that tell of the stream up to `offset` may leave; [`Progress::ring`] follows.
    pub(super) fn clear(&self, offset: u64) {
        self.cleared.store(offset, Ordering::Release);
    }

    /// Rings for those who hold replies back. Called by whoever had the writer, once it has let go.
    pub(super) fn ring(&self) {
        for bell in std::mem::take(&mut *self.holders.lock()) {
            bell.ring();
        }
    }
}

/// The file, and where in the stream it is.
pub struct Writer {
    /// Tells this writer from others: a sync may end when another one is in its place.
    id: Arc<()>,
    reader: Reader,
    file: Arc<File>,
    /// Files that the stream has left and that are not synced, oldest first.
    left: Vec<Arc<File>>,
    progress: Arc<Progress>,
    /// Taken from the stream and not written yet.
    pending: VecDeque<Chunk>,
    /// Takes turns with the stream's tail: what was appended since the last write.
    own: Vec<u8>,
    /// Where in the stream `pending` begins.
    at: u64,
    /// The replication offset up to which all is written: that of `at` whenever nothing is pending.
    offset: u64,
    /// Files to go on with, from an offset of the stream on.
    next: Arc<Mutex<VecDeque<(u64, File)>>>,
    size: u64,
    /// Something was written after the last sync began.
    unsynced: bool,
    /// A sync in the background.
    syncing: Option<JoinHandle<Synced>>,
    sync_began: Instant,
    /// It was told that the present sync takes long.
    told: bool,
    /// The last one did not succeed.
    sync_failed: bool,
    /// When the last sync ended, or began in the background.
    last_sync: Instant,
    /// How long the last sync took, under `always`.
    sync_took: Duration,
    /// For how many more syncs many clients are taken to be there.
    crowded: u8,
    /// When it last failed.
    last_try: Option<Instant>,
    last_stamp: i64,
    /// The rest of a line of ours that is in the file in part.
    owed: Vec<u8>,
    /// What is in the file does not tell that: something else was passed over or is in between.
    is_apart: bool,
}

/// The offset behind so many bytes of a chunk, and whether what is in the file tells it then.
fn after(chunk: &Chunk, bytes: usize, is_apart: bool) -> (u64, bool) {
    match chunk.audience {
        Audience::All => (chunk.offset + bytes as u64, is_apart),
        Audience::Replicas => (chunk.offset + bytes as u64, true),
        Audience::Files => (chunk.offset, true),
    }
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

/// Files to be synced, by whoever has time for that.
pub struct SyncWork {
    owner: Arc<()>,
    files: Vec<Arc<File>>,
    /// Where in the stream what is in them ends.
    at: u64,
    /// A replication offset up to which it is in them.
    offset: u64,
    policy: Policy,
}

/// A sync that has ended.
pub struct Synced {
    work: SyncWork,
    result: io::Result<()>,
    took: Duration,
}

impl SyncWork {
    /// Syncs, oldest first.
    pub fn run(self) -> Synced {
        let begun = Instant::now();
        let result = self.files.iter().try_for_each(|file| file.sync_data());
        Synced {
            work: self,
            result,
            took: begun.elapsed(),
        }
    }
}

impl Writer {
    /// Appends to `file`, which has `size` bytes, what `reader` gives.
    pub fn new(reader: Reader, file: File, size: u64, progress: Arc<Progress>) -> Self {
        let (at, offset) = (reader.position(), reader.offset());
        Self {
            id: Arc::default(),
            reader,
            file: Arc::new(file),
            left: Vec::new(),
            progress,
            pending: VecDeque::new(),
            own: Vec::new(),
            at,
            offset,
            next: Arc::default(),
            size,
            unsynced: false,
            syncing: None,
            sync_began: Instant::now(),
            told: false,
            sync_failed: false,
            last_sync: Instant::now(),
            sync_took: Duration::ZERO,
            crowded: 0,
            last_try: None,
            last_stamp: 0,
            owed: Vec::new(),
            is_apart: false,
        }
    }

    /// It is the one whose progress is told from here on.
    pub(super) fn begin(&self) {
        let progress = &self.progress;
        progress.written.store(self.at, Ordering::Release);
        progress.synced.store(self.offset, Ordering::Release);
        progress.clear(self.at);
        progress.size.store(self.size, Ordering::Relaxed);
        progress.failing.store(false, Ordering::Relaxed);
    }

    /// The way to switch files.
    pub fn rotation(&self) -> Rotation {
        Rotation(Arc::clone(&self.next))
    }

    /// Has the next write tried at once, whenever the last one failed.
    pub fn try_at_once(&mut self) {
        if let Some(last) = &mut self.last_try {
            *last = last.checked_sub(SECOND).unwrap_or(*last);
        }
    }

    /// False for a second after a failure.
    pub fn may_try(&self) -> bool {
        self.last_try.is_none_or(|last| last.elapsed() >= SECOND)
    }

    /// How long to let more come before what has come is written and synced.
    ///
    /// Under `always` that delays replies, so it pays only where there are so many clients that some
    /// always write while others wait for a sync: left alone they would be two groups that take
    /// turns at waiting, with twice as many syncs. A fraction of a sync lets both become one.
    pub fn gathering(&mut self, policy: Policy) -> Duration {
        if policy.sync != Sync::Always {
            return Duration::ZERO;
        }
        let crowded = self.crowded > 0;
        self.crowded = self.crowded.saturating_sub(1);
        match crowded {
            true => (self.sync_took / 4).min(GATHER),
            false => Duration::ZERO,
        }
    }

    /// Writes what there is. Unless replies wait for a sync they may go then, and also when it failed:
    /// that refuses what comes from now on.
    ///
    /// `policy` is read after the stream: whoever appended under a stricter one is seen to have it.
    ///
    /// # Errors
    /// Of writing; what was not written stays.
    pub fn write(&mut self, policy: &impl Fn() -> Policy) -> io::Result<()> {
        self.pending.extend(self.reader.take(&mut self.own));
        let policy = policy();
        if !self.may_try() {
            // Kept for the next try; who appended it is not made to wait for that.
            self.keep_own(0);
            self.clear(policy, self.reader.position());
            return Ok(());
        }
        let sleep = self.progress.flush_sleep_us.load(Ordering::Relaxed);
        if sleep != 0 && self.reader.position() > self.at {
            std::thread::sleep(Duration::from_micros(sleep));
        }
        if self.reader.position() > self.at {
            self.tell_of_slow_sync();
        }
        let result = self.write_own(policy);
        let result = result.and_then(|()| self.write_pending(policy));
        match &result {
            Ok(()) => {
                self.offset = self.reader.offset();
                self.tell_synced();
                if !self.sync_failed {
                    self.recovers();
                }
                self.clear(policy, self.at);
            }
            Err(error) => {
                self.fails(policy, "Error writing to the AOF file", error);
                self.clear(policy, self.reader.position());
            }
        }
        result
    }

    /// Where nothing waits for a sync, all that was appended is on the disk, or is not meant for it.
    fn tell_synced(&self) {
        if !self.unsynced && self.syncing.is_none() && !self.progress.is_syncing() {
            self.progress.synced.store(self.offset, Ordering::Release);
        }
    }

    fn clear(&self, policy: Policy, offset: u64) {
        if policy.sync != Sync::Always {
            self.progress.clear(offset);
        }
    }

    /// Writes are refused from now on; but where replies wait for a sync, the process is about to end,
    /// and says nothing more.
    fn fails(&mut self, policy: Policy, what: &str, error: &io::Error) {
        let first = self.last_try.replace(Instant::now()).is_none();
        if first {
            tracing::warn!("{what}: {}", strerror(error));
        }
        if policy.sync != Sync::Always {
            let number = error.raw_os_error().unwrap_or(0);
            self.progress.error.store(number, Ordering::Relaxed);
            self.progress.failing.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    fn recovers(&mut self) {
        if self.last_try.take().is_some() {
            self.progress.failing.store(false, Ordering::Relaxed);
            tracing::warn!("AOF write error looks solved. The server can write again.");
        }
    }

    #[inline]
    fn tell_of_slow_sync(&mut self) {
        let slow = self.syncing.is_some()
            && !self.told
            && self.progress.is_syncing()
            && self.sync_began.elapsed() >= SLOW_SYNC;
        if slow {
            self.told = true;
            self.progress.delayed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer \
                 without waiting for fsync to complete, this may slow down Redis."
            );
        }
    }

    /// The usual case: all that is to be written came in one piece, and goes to the file as it is.
    fn write_own(&mut self, policy: Policy) -> io::Result<()> {
        if self.own.is_empty() {
            return Ok(());
        }
        let plain = self.pending.is_empty()
            && self.owed.is_empty()
            && !policy.timestamps
            && self.next.lock().is_empty();
        if !plain {
            self.keep_own(0);
            return Ok(());
        }
        let own = std::mem::take(&mut self.own);
        let (written, result) = self.write_parts(&[&own]);
        self.own = own;
        self.at += written as u64;
        self.progress.written.store(self.at, Ordering::Release);
        if written < self.own.len() {
            self.keep_own(written);
        }
        self.own.clear();
        if self.own.capacity() > KEPT {
            self.own = Vec::new();
        }
        result
    }

    /// What is in the own buffer waits behind what is pending, less what was written of it.
    fn keep_own(&mut self, written: usize) {
        if !self.own.is_empty() {
            let mut bytes = Bytes::from(std::mem::take(&mut self.own));
            bytes.advance(written);
            let offset = self.reader.offset() - bytes.len() as u64;
            self.pending.push_back(Chunk {
                bytes,
                audience: Audience::All,
                offset,
            });
        }
    }

    fn write_pending(&mut self, policy: Policy) -> io::Result<()> {
        if self.pending.is_empty() {
            self.rotate();
            return Ok(());
        }
        let is_named = self.reader.is_named();
        while let Some(first) = self.pending.front() {
            if first.audience == Audience::Replicas {
                self.advance(first.bytes.len());
                continue;
            }
            self.rotate();
            self.stamp(policy)?;
            let batch = self.batch();
            let len: usize = batch.iter().map(Bytes::len).sum();
            let mark = match is_named && self.is_last(&batch) {
                true => self.mark_behind(len),
                false => Cow::Borrowed(&b""[..]),
            };
            let mut parts: SmallVec<[&[u8]; 8]> = batch.iter().map(|bytes| &bytes[..]).collect();
            parts.push(&mark);
            let (done, result) = self.write_parts(&parts);
            self.advance(done.min(len));
            if done > len {
                self.owed = mark[done - len..].to_vec();
                self.is_apart = false;
            }
            result?;
        }
        self.rotate();
        if is_named && self.is_apart && self.owed.is_empty() {
            self.owed = place::mark(Some(self.offset)).into_owned();
            self.is_apart = false;
            self.pay()?;
        }
        Ok(())
    }

    /// True when nothing for the file follows these parts.
    fn is_last(&self, batch: &[Bytes]) -> bool {
        let behind = self.pending.iter().skip(batch.len());
        let mut behind = behind.filter(|chunk| chunk.audience != Audience::Replicas);
        behind.next().is_none()
    }

    /// The line behind so many bytes of what is pending: what is in the file until there is all that
    /// there is of the stream.
    fn mark_behind(&self, mut len: usize) -> Cow<'static, [u8]> {
        let (mut offset, mut apart) = (self.offset, self.is_apart);
        for chunk in &self.pending {
            if len == 0 {
                break;
            }
            len -= chunk.bytes.len().min(len);
            (offset, apart) = after(chunk, chunk.bytes.len(), apart);
        }
        place::mark(apart.then_some(offset))
    }

    /// What is written next: one chunk at least, and nothing beyond where the next file begins.
    fn batch(&self) -> SmallVec<[Bytes; 8]> {
        let next = self.next.lock().front().map(|(at, _)| at - self.at);
        let mut room = next.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let mut taken = 0;
        let chunks = self
            .pending
            .iter()
            .take_while(|chunk| chunk.audience != Audience::Replicas);
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
            let passed = bytes.min(first.bytes.len());
            if passed > 0 {
                (self.offset, self.is_apart) = after(first, passed, self.is_apart);
            }
            if bytes < first.bytes.len() {
                first.bytes.advance(bytes);
                if first.audience != Audience::Files {
                    first.offset += bytes as u64;
                }
                break;
            }
            bytes -= first.bytes.len();
            self.pending.pop_front();
        }
        self.progress.written.store(self.at, Ordering::Release);
    }

    /// Goes on to the next file, if it begins here. The old one is synced with the next sync, before
    /// the new one.
    fn rotate(&mut self) {
        loop {
            let mut next = self.next.lock();
            if next.front().is_none_or(|(begins, _)| *begins > self.at) {
                return;
            }
            let Some((_, file)) = next.pop_front() else {
                return;
            };
            drop(next);
            let old = std::mem::replace(&mut self.file, Arc::new(file));
            self.left.push(old);
            self.unsynced = true;
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
        let owed = std::mem::take(&mut self.owed);
        let (written, result) = self.write_parts(&[&owed]);
        self.owed = owed[written..].to_vec();
        result
    }

    /// Writes all of it, or nothing; where what was written in part cannot be taken back, so many
    /// bytes remain.
    fn write_parts(&mut self, parts: &[&[u8]]) -> (usize, io::Result<()>) {
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

    /// The sync that is due by the policy, to be run without the writer. One in the background is
    /// begun here.
    ///
    /// # Errors
    /// The one in the background failed, or cannot be begun.
    pub fn sync_work(&mut self, policy: Policy) -> io::Result<Option<SyncWork>> {
        if self.syncing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.end_sync()?;
        }
        match policy.sync {
            Sync::Always if self.unsynced => {
                self.end_sync()?;
                return Ok(Some(self.begin_sync(policy)));
            }
            Sync::Always => self.progress.clear(self.at),
            // It is awaited: writes are refused until one succeeds, also where nothing is synced otherwise.
            _ if self.sync_failed && self.unsynced && self.syncing.is_none() => {
                return Ok(Some(self.begin_sync(policy)));
            }
            Sync::EverySecond
                if self.unsynced
                    && self.syncing.is_none()
                    && self.last_sync.elapsed() >= SECOND =>
            {
                self.sync_in_background(policy)?;
            }
            _ => {}
        }
        Ok(None)
    }

    fn begin_sync(&mut self, policy: Policy) -> SyncWork {
        self.unsynced = false;
        self.sync_began = Instant::now();
        self.told = false;
        self.progress.syncing.store(true, Ordering::Release);
        let mut files = std::mem::take(&mut self.left);
        files.push(Arc::clone(&self.file));
        SyncWork {
            owner: Arc::clone(&self.id),
            files,
            at: self.at,
            offset: self.offset,
            policy,
        }
    }

    fn sync_in_background(&mut self, policy: Policy) -> io::Result<()> {
        let work = self.begin_sync(policy);
        self.last_sync = Instant::now();
        let progress = Arc::clone(&self.progress);
        let thread = std::thread::Builder::new().name("aof-sync".to_owned());
        let begun = thread.spawn(move || {
            let synced = work.run();
            progress.syncing.store(false, Ordering::Release);
            synced
        });
        match begun {
            Ok(thread) => self.syncing = Some(thread),
            Err(error) => {
                self.progress.syncing.store(false, Ordering::Release);
                self.unsynced = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Awaits the sync in the background, if there is one.
    fn end_sync(&mut self) -> io::Result<()> {
        let Some(thread) = self.syncing.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(synced) => self.synced(synced),
            Err(_) => Err(io::ErrorKind::Other.into()),
        }
    }

    /// A sync has ended. That of another writer, which was closed meanwhile, counts for nothing.
    ///
    /// # Errors
    /// It failed; it is tried again.
    pub fn synced(&mut self, synced: Synced) -> io::Result<()> {
        let Synced { work, result, took } = synced;
        if !Arc::ptr_eq(&work.owner, &self.id) {
            return Ok(());
        }
        self.progress.syncing.store(false, Ordering::Release);
        self.sync_failed = result.is_err();
        if let Err(error) = &result {
            self.unsynced = true;
            let mut files = work.files;
            files.pop();
            files.append(&mut self.left);
            self.left = files;
            self.fails(work.policy, "Fail to fsync the AOF file", error);
            return result;
        }
        self.progress.synced.store(work.offset, Ordering::Release);
        self.last_sync = Instant::now();
        self.sync_took = took;
        self.recovers();
        // Under the other policies it has got further by writing.
        if self.progress.cleared() < work.at {
            self.progress.clear(work.at);
        }
        if self.reader.is_behind() {
            self.crowded = CROWDED;
        }
        Ok(())
    }

    /// Has everything written to the disk.
    ///
    /// # Errors
    /// Of syncing.
    pub fn sync_now(&mut self, policy: Policy) -> io::Result<()> {
        self.end_sync()?;
        let work = self.begin_sync(policy);
        self.synced(work.run())
    }
}

/// Writes all of it; else tells how much was written before it failed.
fn write_what_fits(mut file: &File, parts: &[&[u8]]) -> (usize, io::Result<()>) {
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
                writer
                    .rotation()
                    .switch(stream.position(), create("second"));
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
        let end = stream.position();
        writer.write(&|| POLICY).expect("written");
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
