//! Chunks, their one appender and any number of readers, each at its own pace.
//!
//! ```text
//!   first kept                     filled up to here: offset()
//!   v                              v
//!   [ chunk ][ chunk ][ chunk ][ chu|    ]
//!        ^ reader          ^ reader
//! ```
//!
//! Chunks are sealed when full and shared with readers by reference count: a reader copies
//! nothing and holds no lock while it writes them out. Chunks that all readers have passed are
//! dropped, except for the tail that is kept as backlog.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{Condvar, Mutex};
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
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Default)]
struct Log {
    sealed: VecDeque<Sealed>,
    tail: Vec<u8>,
    /// About the length of the longest of the last chunks.
    likely: usize,
    tail_start: u64,
    /// Database of the last command; `None` makes the next one begin with SELECT.
    selected: Option<usize>,
    positions: Vec<Position>,
    backlog: u64,
}

struct Sealed {
    start: u64,
    chunk: Chunk,
}

/// Where a reader is.
struct Position {
    reader: u64,
    offset: u64,
    /// It skips what is for replicas only.
    skips: bool,
}

/// A part of the log that was read.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What was appended.
    pub bytes: Bytes,
    /// It means nothing to a file: messages, pings. Marked only while somebody skips such parts.
    pub for_replicas: bool,
}

/// One command's or transaction's part of the log, while it is appended.
pub struct Block<'a> {
    log: &'a mut Log,
}

/// Reads the log from where it was opened.
pub struct Reader {
    stream: Arc<Stream>,
    id: u64,
    offset: u64,
}

impl Stream {
    /// True while somebody reads: the one branch that a command pays otherwise.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Bytes appended so far: the replication offset.
    #[inline]
    pub fn offset(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Appends one block, which readers see as a whole; returns the offset after it. Called
    /// under the locks of the shards concerned.
    pub fn append(&self, write: impl FnOnce(&mut Block<'_>)) -> u64 {
        let mut log = self.log.lock();
        write(&mut Block { log: &mut log });
        let offset = log.end();
        self.end.store(offset, Ordering::Release);
        if log.tail.len() >= CHUNK {
            log.seal();
            log.drop_passed();
        }
        drop(log);
        self.grown.notify_all();
        offset
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

    /// Has the next command begin with SELECT: for a file that begins at a cut, while all shards
    /// are locked. Returns where that is.
    pub fn divide(&self) -> u64 {
        let mut log = self.log.lock();
        log.selected = None;
        log.end()
    }

    /// A reader from the present end. To start at a cut, open it while all shards are locked.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut log = self.log.lock();
        log.selected = None;
        let offset = log.end();
        self.open(&mut log, offset, false)
    }

    /// As [`Stream::reader`], for a file: what only replicas need is marked as such from here on.
    pub fn file_reader(self: &Arc<Self>) -> Reader {
        let mut log = self.log.lock();
        log.selected = None;
        let offset = log.end();
        self.open(&mut log, offset, true)
    }

    /// A reader that goes on at `offset`, where another one was left; `None` when the log does
    /// not reach back so far, or not so far ahead.
    pub fn reader_at(self: &Arc<Self>, offset: u64) -> Option<Reader> {
        let mut log = self.log.lock();
        (log.start() <= offset && offset <= log.end()).then(|| self.open(&mut log, offset, false))
    }

    fn open(self: &Arc<Self>, log: &mut Log, offset: u64, skips: bool) -> Reader {
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        log.positions.push(Position {
            reader: id,
            offset,
            skips,
        });
        self.readers.fetch_add(1, Ordering::Relaxed);
        self.active.store(true, Ordering::Relaxed);
        Reader {
            stream: Arc::clone(self),
            id,
            offset,
        }
    }
}

impl Log {
    /// Offset of the oldest byte that is kept.
    fn start(&self) -> u64 {
        self.sealed.front().map_or(self.tail_start, |s| s.start)
    }

    fn end(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }

    fn seal(&mut self) {
        self.seal_as(false);
    }

    fn seal_as(&mut self, for_replicas: bool) {
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
            let bytes = Bytes::from(tail);
            let start = self.tail_start;
            self.tail_start += bytes.len() as u64;
            let chunk = Chunk {
                bytes,
                for_replicas,
            };
            self.sealed.push_back(Sealed { start, chunk });
        }
    }

    fn drop_passed(&mut self) {
        let end = self.end();
        let slowest = self.positions.iter().map(|p| p.offset).min();
        let needed = slowest.unwrap_or(end).min(end.saturating_sub(self.backlog));
        while let Some(Sealed { start, chunk }) = self.sealed.front()
            && start + chunk.bytes.len() as u64 <= needed
        {
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
        let marks = self.log.positions.iter().any(|p| p.skips);
        if marks {
            self.log.seal();
        }
        self.encode(args);
        if marks {
            self.log.seal_as(true);
        }
    }

    fn encode<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        write::request(&mut self.log.tail, args);
    }
}

impl Reader {
    /// Where this reader is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True when something follows already.
    pub fn is_behind(&self) -> bool {
        self.stream.log.lock().end() > self.offset
    }

    /// What follows, without waiting; empty at the end of the log.
    pub fn read(&mut self) -> Vec<Chunk> {
        let mut log = self.stream.log.lock();
        log.seal();
        let from = self.offset;
        let newest = log.sealed.iter().rev();
        let ahead = newest.take_while(|s| s.start + s.chunk.bytes.len() as u64 > from);
        let mut chunks: Vec<Chunk> = ahead
            .map(|Sealed { start, chunk }| Chunk {
                bytes: chunk.bytes.slice(from.saturating_sub(*start) as usize..),
                for_replicas: chunk.for_replicas,
            })
            .collect();
        chunks.reverse();
        self.offset = log.tail_start;
        if let Some(position) = log.positions.iter_mut().find(|p| p.reader == self.id) {
            position.offset = self.offset;
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
        if !alone || self.offset != log.tail_start {
            drop(log);
            return self.read();
        }
        std::mem::swap(&mut log.tail, own);
        log.tail_start += own.len() as u64;
        self.offset = log.tail_start;
        log.positions[0].offset = self.offset;
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
        while log.end() == self.offset {
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
mod tests {
    use super::*;

    fn bytes(chunks: Vec<Chunk>) -> Vec<u8> {
        chunks.iter().flat_map(|c| c.bytes.to_vec()).collect()
    }

    fn text(chunks: Vec<Chunk>) -> String {
        text_of(&bytes(chunks))
    }

    fn text_of(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("ASCII")
    }

    #[test]
    fn readers_get_everything_after_they_came_and_databases_are_selected() {
        let stream = Arc::new(Stream::default());
        assert!(!stream.is_active());
        let mut first = stream.reader();
        stream.append(|b| b.command(3, &["SET", "k", "v"]));
        let mut second = stream.reader();
        let end = stream.append(|b| b.command(3, &["DEL", "k"]));
        let all = text(first.read());
        assert!(all.starts_with("*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*3\r\n$3\r\nSET\r\n"));
        assert_eq!(all.matches("SELECT").count(), 2);
        assert_eq!(
            text(second.read()),
            "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n"
        );
        assert_eq!((first.offset(), second.offset()), (end, end));
        drop((first, second));
        assert!(!stream.is_active());
    }

    #[test]
    fn a_slow_reader_keeps_what_it_needs_and_no_more() {
        let stream = Arc::new(Stream::default());
        let mut slow = stream.reader();
        let mut fast = stream.reader();
        let value = vec![b'x'; 10_000];
        for _ in 0..100 {
            stream.append(|b| b.command(0, &[&b"SET"[..], b"k", &value]));
            fast.read();
        }
        assert!(bytes(slow.read()).len() > 1_000_000);
        assert!(stream.log.lock().sealed.is_empty());
    }

    #[test]
    fn who_reads_alone_takes_turns_with_the_log_and_copies_nothing() {
        let stream = Arc::new(Stream::default());
        let (mut reader, mut own) = (stream.file_reader(), Vec::new());
        let set = |value: &str| stream.append(|b| b.command(0, &["SET", "k", value]));
        set("1");
        assert!(reader.take(&mut own).is_empty());
        assert!(text_of(&own).ends_with("$1\r\n1\r\n"));
        assert_eq!((reader.offset(), stream.kept()), (stream.offset(), 0));
        own.clear();
        // Another reader shares what it has not seen yet.
        let mut other = stream.reader();
        set("2");
        assert_eq!(text(reader.take(&mut own)), text(other.read()));
        assert!(own.is_empty());
        drop(other);
        set("3");
        assert!(reader.take(&mut own).is_empty());
        assert!(text_of(&own).ends_with("$1\r\n3\r\n"));
    }

    #[test]
    fn a_reader_goes_on_where_another_was_left_as_far_as_the_backlog_reaches() {
        let stream = Arc::new(Stream::default());
        stream.set_backlog(1000);
        let first = stream.append(|b| b.command(0, &["SET", "k", "v"]));
        let end = stream.append(|b| b.command(0, &["SET", "k", "w"]));
        let mut reader = stream.reader_at(first).expect("kept");
        assert_eq!(
            text(reader.read()),
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n"
        );
        assert!(stream.reader_at(end).is_some() && stream.reader_at(end + 1).is_none());
        drop(reader);
        let value = vec![b'x'; 2 * CHUNK];
        stream.append(|b| b.command(0, &[&b"SET"[..], b"k", &value]));
        stream.append(|b| b.command(0, &[&b"SET"[..], b"k", &value]));
        assert!(stream.reader_at(first).is_none());
    }

    #[test]
    fn what_is_for_replicas_is_marked_for_files() {
        let stream = Arc::new(Stream::default());
        let (mut file, mut replica) = (stream.file_reader(), stream.reader());
        let end = stream.append(|b| {
            b.select(0);
            b.bare(&["MULTI"]);
            b.for_replicas(&["PUBLISH", "c", "m"]);
            b.bare(&["EXEC"]);
        });
        let kinds: Vec<bool> = file.read().iter().map(|c| c.for_replicas).collect();
        assert_eq!(kinds, [false, true, false]);
        assert_eq!((file.offset(), replica.offset()), (end, 0));
        assert!(text(replica.read()).contains("PUBLISH"));
    }

    #[test]
    fn blocks_of_several_threads_are_whole_and_in_one_order_for_all_readers() {
        let stream = Arc::new(Stream::default());
        let (mut one, mut two) = (stream.reader(), stream.reader());
        std::thread::scope(|scope| {
            for t in 0..3 {
                let stream = &stream;
                scope.spawn(move || {
                    for i in 0..500 {
                        let n = format!("{t}:{i}");
                        stream.append(|b| {
                            b.bare(&["MULTI"]);
                            b.command(0, &["SET", &n, "1"]);
                            b.bare(&["EXEC"]);
                        });
                    }
                });
            }
        });
        let (a, b) = (text(one.read()), text(two.read()));
        assert_eq!(a, b);
        let parts: Vec<&str> = a.split("*1\r\n$5\r\nMULTI\r\n").skip(1).collect();
        assert_eq!(parts.len(), 1500);
        assert!(
            parts
                .iter()
                .all(|p| p.ends_with("*1\r\n$4\r\nEXEC\r\n") && p.matches("SET").count() == 1)
        );
    }
}
