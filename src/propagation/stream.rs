//! Chunks, their one appender and any number of readers, each at its own pace.
//!
//! ```text
//!   first kept                     filled up to here: position()
//!   v                              v
//!   [ chunk ][ chunk ][ chunk ][ chu|    ]
//!        ^ reader          ^ reader
//! ```
//!
//! Chunks are sealed when full and shared with readers by reference count: a reader copies
//! nothing and holds no lock while it writes them out. Chunks that all readers have passed are
//! dropped, except for the tail that is kept as backlog.
//!
//! # Positions and offsets
//!
//! A *position* counts what was ever appended here; it only grows, and the append-only file goes by it.
//! An *offset* is the replication offset: what a primary and all its replicas call the same byte. They
//! differ by an origin, which changes when the stream becomes the copy of a primary's
//! ([`Stream::adopt`]) and with each part that is for files only.
//!
//! A stream that was adopted gets the primary's bytes as they are ([`Stream::append_raw`]). What
//! clients of a writable replica do is for files only, in between: it selects its own database, and
//! then again the one that the primary's bytes had selected.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::alloc;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{Condvar, Mutex, MutexGuard};
use crate::resp::write;

/// Chunks are sealed at this size, in bytes, at the next end of a block.
const CHUNK: usize = 64 * 1024;

/// The log; see the module.
#[derive(Default)]
pub struct Stream {
    active: AtomicBool,
    readers: AtomicUsize,
    next_reader: AtomicU64,
    /// [`Log::end`], to be read without the lock.
    end: AtomicU64,
    /// [`Log::offset`], to be read without the lock.
    offset: AtomicU64,
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Default)]
struct Log {
    sealed: VecDeque<Sealed>,
    tail: Vec<u8>,
    /// Memory of what is sealed, in bytes.
    memory: usize,
    /// About the length of the longest of the last chunks.
    likely: usize,
    tail_start: u64,
    /// Offset of the first byte of the tail.
    tail_offset: u64,
    /// The bytes are those of a primary.
    adopted: bool,
    /// How often the stream became the copy of another one.
    era: u64,
    /// What it is called, where somebody may go on in it: told to files.
    name: Option<Box<str>>,
    /// Database of the last command; `None` makes the next one begin with SELECT.
    selected: Option<usize>,
    positions: Vec<Position>,
    backlog: u64,
}

struct Sealed {
    start: u64,
    /// Bytes of memory that it takes.
    memory: usize,
    chunk: Chunk,
}

impl Sealed {
    fn end(&self) -> u64 {
        self.start + self.chunk.bytes.len() as u64
    }

    /// Offset of what follows.
    fn end_offset(&self) -> u64 {
        match self.chunk.audience {
            Audience::Files => self.chunk.offset,
            _ => self.chunk.offset + self.chunk.bytes.len() as u64,
        }
    }
}

/// Who reads a part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody.
    All,
    /// Replicas: messages, pings. Marked only while a file is written.
    Replicas,
    /// Files: what clients of a replica did, and what scripts keep from replicas.
    Files,
}

/// Where a reader is.
struct Position {
    reader: u64,
    at: u64,
    is_file: bool,
}

/// A part of the log that was read.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What was appended.
    pub bytes: Bytes,
    /// Who reads it.
    pub audience: Audience,
    /// The replication offset of its first byte; of a part that is for files, of what follows.
    pub offset: u64,
}

/// One command's or transaction's part of the log, while it is appended.
pub struct Block<'a> {
    log: &'a mut Log,
}

/// Reads the log from where it was opened.
pub struct Reader {
    stream: Arc<Stream>,
    id: u64,
    /// Up to where it has read.
    at: u64,
    /// The same as an offset.
    offset: u64,
    /// [`Log::era`] when it was opened.
    era: u64,
    is_file: bool,
}

impl Stream {
    /// True while somebody reads: the one branch that a command pays otherwise.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Bytes appended so far.
    #[inline]
    pub fn position(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The replication offset of the end.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Appends one block of what clients do, which readers see as a whole; returns the offset after
    /// it. Called under the locks of the shards concerned. In an adopted stream it is for files only.
    pub fn append(&self, write: impl FnOnce(&mut Block<'_>)) -> u64 {
        let mut log = self.log.lock();
        if log.adopted {
            log.append_for_files(write);
        } else {
            write(&mut Block { log: &mut log });
        }
        self.publish(log)
    }

    /// Appends what the primary sent, as it came; `selected` is the database that it has selected
    /// afterwards. `for_replicas` of what means nothing to a file.
    pub fn append_raw(&self, bytes: &[u8], selected: usize, for_replicas: bool) -> u64 {
        let mut log = self.log.lock();
        debug_assert!(log.adopted, "only a primary's bytes come as they are");
        let apart = for_replicas && log.has_file();
        if apart {
            log.seal();
        }
        log.tail.extend_from_slice(bytes);
        if apart {
            log.seal_as(Audience::Replicas);
        }
        log.selected = Some(selected);
        self.publish(log)
    }

    fn publish(&self, mut log: MutexGuard<'_, Log>) -> u64 {
        let offset = log.offset();
        self.end.store(log.end(), Ordering::Release);
        self.offset.store(offset, Ordering::Release);
        if log.tail.len() >= CHUNK {
            log.seal();
            log.drop_passed();
        }
        drop(log);
        self.grown.notify_all();
        offset
    }

    /// The stream goes on as the copy of a primary's, where it is.
    pub fn follow(&self) {
        let mut log = self.log.lock();
        let selected = log.selected.unwrap_or(0);
        log.selected = Some(selected);
        log.adopted = true;
    }

    /// The stream goes on as the copy of another one, at `offset`, where that has database `selected`.
    /// Nobody can go on in what it was before: readers for replicas are lost ([`Reader::is_lost`]).
    pub fn adopt(&self, offset: u64, selected: usize) {
        let mut log = self.log.lock();
        log.seal();
        log.leave_to_files();
        log.era += 1;
        log.tail_offset = offset;
        log.selected = Some(selected);
        log.adopted = true;
        // A file is in another database.
        log.select_for_files();
        self.publish(log);
    }

    /// The stream is this server's own again; the next command begins with SELECT.
    pub fn disown(&self) {
        let mut log = self.log.lock();
        log.adopted = false;
        log.selected = None;
    }

    /// The stream is called so from here on, or nobody can go on in it (`None`). Files are told, in
    /// a line that other servers skip: see [`crate::persistence::aof::place`].
    pub fn set_name(&self, name: Option<&str>) {
        let mut log = self.log.lock();
        log.name = name.map(Into::into);
        log.identify(name.is_none());
        self.publish(log);
    }

    /// True while the stream has a name.
    pub fn is_named(&self) -> bool {
        self.log.lock().name.is_some()
    }

    /// Database that what was appended last runs on: 0 where the next command selects its own.
    pub fn selected(&self) -> usize {
        self.log.lock().selected.unwrap_or(0)
    }

    /// How much of the log stays readable behind the slowest reader, in bytes. With a backlog
    /// the log is written even while nobody reads.
    pub fn set_backlog(&self, bytes: u64) {
        let mut log = self.log.lock();
        log.backlog = bytes;
        log.drop_passed();
        let active = bytes > 0 || self.readers.load(Ordering::Relaxed) > 0;
        self.active.store(active, Ordering::Relaxed);
    }

    /// Bytes that are kept: for readers that are behind, and as a backlog.
    pub fn kept(&self) -> usize {
        let log = self.log.lock();
        (log.end() - log.start()) as usize
    }

    /// Memory of that, in bytes.
    pub fn memory(&self) -> usize {
        let log = self.log.lock();
        log.memory + alloc::taken(log.tail.capacity())
    }

    /// The replication offset of the first byte that is kept for replicas.
    pub fn first_offset(&self) -> u64 {
        let log = self.log.lock();
        let mut kept = log.sealed.iter();
        let first = kept.find(|sealed| sealed.chunk.audience != Audience::Files);
        first.map_or(log.tail_offset, |sealed| sealed.chunk.offset)
    }

    /// Has the next command begin with SELECT: for a file that begins at a cut, while all shards
    /// are locked. Returns where that is.
    pub fn divide(&self) -> u64 {
        let mut log = self.log.lock();
        let end = log.end();
        log.select_anew();
        log.identify(false);
        self.publish(log);
        end
    }

    /// A reader from the present end. To start at a cut, open it while all shards are locked.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut log = self.log.lock();
        if !log.adopted {
            log.selected = None;
        }
        let (at, offset) = (log.end(), log.offset());
        self.open(&mut log, (at, offset), false)
    }

    /// As [`Stream::reader`], for a file: what only replicas need is marked as such from here on.
    pub fn file_reader(self: &Arc<Self>) -> Reader {
        let mut log = self.log.lock();
        let (at, offset) = (log.end(), log.offset());
        let reader = self.open(&mut log, (at, offset), true);
        log.select_anew();
        log.identify(false);
        self.publish(log);
        reader
    }

    /// A reader for a replica that goes on at `offset`, where another one was left; `None` when the
    /// log does not reach back so far, or not so far ahead.
    pub fn reader_at(self: &Arc<Self>, offset: u64) -> Option<Reader> {
        let mut log = self.log.lock();
        log.seal();
        let at = log.position_of(offset)?;
        Some(self.open(&mut log, (at, offset), false))
    }

    fn open(self: &Arc<Self>, log: &mut Log, (at, offset): (u64, u64), is_file: bool) -> Reader {
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        log.positions.push(Position {
            reader: id,
            at,
            is_file,
        });
        self.readers.fetch_add(1, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
        Reader {
            stream: Arc::clone(self),
            id,
            at,
            offset,
            era: log.era,
            is_file,
        }
    }
}

impl Log {
    /// Position of the oldest byte that is kept.
    fn start(&self) -> u64 {
        self.sealed.front().map_or(self.tail_start, |s| s.start)
    }

    fn end(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }

    fn offset(&self) -> u64 {
        self.tail_offset + self.tail.len() as u64
    }

    /// A file is being written.
    fn has_file(&self) -> bool {
        self.positions.iter().any(|p| p.is_file)
    }

    /// Where `offset` is, if that is kept. Nothing is in the tail.
    fn position_of(&self, offset: u64) -> Option<u64> {
        debug_assert!(self.tail.is_empty());
        if offset == self.tail_offset {
            return Some(self.tail_start);
        }
        let holds = |s: &&Sealed| {
            s.chunk.audience != Audience::Files
                && s.chunk.offset <= offset
                && offset < s.end_offset()
        };
        let sealed = self.sealed.iter().rev().find(holds)?;
        Some(sealed.start + (offset - sealed.chunk.offset))
    }

    /// What is kept is not of the stream that goes on: no replica may have it.
    fn leave_to_files(&mut self) {
        for sealed in &mut self.sealed {
            if sealed.chunk.audience != Audience::Replicas {
                sealed.chunk.audience = Audience::Files;
            }
            sealed.chunk.offset = 0;
        }
    }

    /// Has a file that begins here know the database of what follows.
    fn select_anew(&mut self) {
        match self.selected {
            Some(db) if self.adopted && db != 0 => self.select_for_files(),
            _ if self.adopted => {}
            _ => self.selected = None,
        }
    }

    /// Tells files what the stream is called and where in it they are; or that it is nameless.
    fn identify(&mut self, nameless: bool) {
        if !self.has_file() || (self.name.is_none() && !nameless) {
            return;
        }
        self.seal();
        let line = match &self.name {
            Some(name) => format!("#R:{}:{name}\r\n", self.tail_offset),
            None => "#R:-\r\n".to_owned(),
        };
        self.tail.extend_from_slice(line.as_bytes());
        self.seal_as(Audience::Files);
    }

    /// Appends a block for files, if there are any, within the bytes of a primary.
    fn append_for_files(&mut self, write: impl FnOnce(&mut Block<'_>)) {
        if !self.has_file() {
            return;
        }
        self.seal();
        let selected = self.selected.take();
        write(&mut Block { log: self });
        if self.tail.is_empty() {
            // It was for replicas alone.
            self.selected = selected;
            return;
        }
        if let Some(db) = selected {
            Block { log: self }.select(db);
        }
        self.seal_as(Audience::Files);
    }

    /// Has files, if there are any, select the database that the bytes of a primary have selected.
    fn select_for_files(&mut self) {
        if !self.has_file() {
            return;
        }
        self.seal();
        if let Some(db) = self.selected.take() {
            Block { log: self }.select(db);
        }
        self.seal_as(Audience::Files);
    }

    fn seal(&mut self) {
        self.seal_as(Audience::All);
    }

    fn seal_as(&mut self, audience: Audience) {
        if !self.tail.is_empty() {
            // The next chunk is likely to be as long as one of the last, and grows without being
            // copied then.
            let len = self.tail.len();
            self.likely = len
                .max(self.likely - self.likely / 8)
                .min(CHUNK + CHUNK / 16);
            let mut tail = std::mem::replace(&mut self.tail, Vec::with_capacity(self.likely));
            if tail.capacity() > len + len / 8 {
                tail.shrink_to_fit();
            }
            let memory = alloc::taken(tail.capacity());
            self.memory += memory;
            let bytes = Bytes::from(tail);
            let sealed = Sealed {
                start: self.tail_start,
                memory,
                chunk: Chunk {
                    bytes,
                    audience,
                    offset: self.tail_offset,
                },
            };
            self.tail_start = sealed.end();
            self.tail_offset = sealed.end_offset();
            self.sealed.push_back(sealed);
        }
    }

    fn drop_passed(&mut self) {
        let end = self.end();
        let slowest = self.positions.iter().map(|p| p.at).min();
        let needed = slowest.unwrap_or(end).min(end.saturating_sub(self.backlog));
        while let Some(sealed) = self.sealed.front()
            && sealed.end() <= needed
        {
            self.memory -= sealed.memory;
            self.sealed.pop_front();
        }
    }
}

impl Block<'_> {
    /// Adds a command that runs on database `db`.
    pub fn command<A: AsRef<[u8]>>(&mut self, db: usize, args: &[A]) {
        self.select(db);
        self.encode(args);
    }

    /// Adds a command that runs on database `db` and is written out already.
    pub fn request(&mut self, db: usize, request: &[u8]) {
        self.select(db);
        self.log.tail.extend_from_slice(request);
    }

    /// Chooses the database of what follows.
    pub fn select(&mut self, db: usize) {
        if self.log.selected != Some(db) {
            self.log.selected = Some(db);
            let mut digits = itoa::Buffer::new();
            self.encode(&[&b"SELECT"[..], digits.format(db).as_bytes()]);
        }
    }

    /// Adds a command that runs on no database (MULTI, EXEC).
    pub fn bare<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.encode(args);
    }

    /// Adds a command that means nothing to a file. One that runs on a database follows its
    /// [`Block::select`].
    pub fn for_replicas<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        if self.log.adopted {
            // Only the primary tells replicas.
            return;
        }
        let apart = self.log.has_file();
        if apart {
            self.log.seal();
        }
        self.encode(args);
        if apart {
            self.log.seal_as(Audience::Replicas);
        }
    }

    /// Adds a command that means nothing to a replica. It follows its [`Block::select`].
    pub fn for_files<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        if self.log.adopted {
            // The whole block is for files.
            return self.encode(args);
        }
        if self.log.has_file() {
            self.log.seal();
            self.encode(args);
            self.log.seal_as(Audience::Files);
        }
    }

    fn encode<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        write::request(&mut self.log.tail, args);
    }
}

impl Reader {
    /// Position up to which it has read.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The same as a replication offset: of readers for replicas.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True when what it read is no part of the stream any more: its replica cannot go on.
    pub fn is_lost(&self) -> bool {
        self.stream.log.lock().era != self.era
    }

    /// True while the stream has a name: see [`Stream::set_name`].
    pub fn is_named(&self) -> bool {
        self.stream.is_named()
    }

    /// True when something follows already.
    pub fn is_behind(&self) -> bool {
        self.stream.log.lock().end() > self.at
    }

    /// What follows, without waiting; empty at the end of the log. Readers for replicas get what is
    /// for them, a file's all, to be passed over.
    pub fn read(&mut self) -> Vec<Chunk> {
        let mut log = self.stream.log.lock();
        if !self.is_file && log.era != self.era {
            return Vec::new();
        }
        log.seal();
        let (from, is_file) = (self.at, self.is_file);
        let newest = log.sealed.iter().rev();
        let ahead = newest.take_while(|s| s.end() > from);
        let concerned = ahead.filter(|s| is_file || s.chunk.audience != Audience::Files);
        let mut chunks: Vec<Chunk> = concerned
            .map(|Sealed { start, chunk, .. }| {
                let skipped = from.saturating_sub(*start);
                Chunk {
                    bytes: chunk.bytes.slice(skipped as usize..),
                    audience: chunk.audience,
                    offset: match chunk.audience {
                        Audience::Files => chunk.offset,
                        _ => chunk.offset + skipped,
                    },
                }
            })
            .collect();
        chunks.reverse();
        self.at = log.tail_start;
        self.offset = log.tail_offset;
        if let Some(position) = log.positions.iter_mut().find(|p| p.reader == self.id) {
            position.at = self.at;
        }
        log.drop_passed();
        chunks
    }

    /// As [`Reader::read`]; but where nobody else needs what follows, it is put into `own`, an empty
    /// buffer, which the log goes on with, and nothing is returned.
    pub fn take(&mut self, own: &mut Vec<u8>) -> Vec<Chunk> {
        debug_assert!(own.is_empty());
        let mut log = self.stream.log.lock();
        let alone = log.positions.len() == 1 && log.backlog == 0 && log.sealed.is_empty();
        if !alone || self.at != log.tail_start {
            drop(log);
            return self.read();
        }
        std::mem::swap(&mut log.tail, own);
        log.tail_start += own.len() as u64;
        log.tail_offset += own.len() as u64;
        (self.at, self.offset) = (log.tail_start, log.tail_offset);
        log.positions[0].at = self.at;
        Vec::new()
    }

    /// As [`Reader::read`], in one piece: for callers that read little.
    pub fn read_bytes(&mut self) -> Vec<u8> {
        let chunks = self.read();
        chunks
            .iter()
            .flat_map(|c| c.bytes.iter().copied())
            .collect()
    }

    /// Waits until something follows, at most `limit`; false when nothing did.
    pub fn wait(&self, limit: std::time::Duration) -> bool {
        let mut log = self.stream.log.lock();
        let deadline = std::time::Instant::now() + limit;
        while log.end() == self.at {
            if self.stream.grown.wait_until(&mut log, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut log = self.stream.log.lock();
        log.positions.retain(|p| p.reader != self.id);
        log.drop_passed();
        let left = self.stream.readers.fetch_sub(1, Ordering::Relaxed) - 1;
        let active = left > 0 || log.backlog > 0;
        self.stream.active.store(active, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
