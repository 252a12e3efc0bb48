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

/// Chunks are sealed at this size, in bytes, at the next end of a block.
const CHUNK: usize = 64 * 1024;

/// The log; see the module.
#[derive(Default)]
pub struct Stream {
    active: AtomicBool,
    readers: AtomicUsize,
    next_reader: AtomicU64,
    log: Mutex<Log>,
    grown: Condvar,
}

#[derive(Default)]
struct Log {
    sealed: VecDeque<(u64, Bytes)>,
    tail: Vec<u8>,
    tail_start: u64,
    /// Database of the last command; `None` makes the next one begin with SELECT.
    selected: Option<usize>,
    positions: Vec<(u64, u64)>,
    backlog: u64,
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
    pub fn offset(&self) -> u64 {
        let log = self.log.lock();
        log.tail_start + log.tail.len() as u64
    }

    /// Appends one block, which readers see as a whole; returns the offset after it. Called
    /// under the locks of the shards concerned.
    pub fn append(&self, write: impl FnOnce(&mut Block<'_>)) -> u64 {
        let mut log = self.log.lock();
        write(&mut Block { log: &mut log });
        let offset = log.tail_start + log.tail.len() as u64;
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

    /// Has the next command begin with SELECT: for a file that begins at a cut, while all shards
    /// are locked. Returns where that is.
    pub fn divide(&self) -> u64 {
        let mut log = self.log.lock();
        log.selected = None;
        log.tail_start + log.tail.len() as u64
    }

    /// A reader from the present end. To start at a cut, open it while all shards are locked.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let mut log = self.log.lock();
        log.selected = None;
        let id = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let offset = log.tail_start + log.tail.len() as u64;
        log.positions.push((id, offset));
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
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let chunk = Bytes::from(std::mem::take(&mut self.tail));
            let start = self.tail_start;
            self.tail_start += chunk.len() as u64;
            self.sealed.push_back((start, chunk));
        }
    }

    fn drop_passed(&mut self) {
        let end = self.tail_start + self.tail.len() as u64;
        let slowest = self.positions.iter().map(|(_, offset)| *offset).min();
        let needed = slowest.unwrap_or(end).min(end.saturating_sub(self.backlog));
        while let Some((start, chunk)) = self.sealed.front()
            && start + chunk.len() as u64 <= needed
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

    fn encode<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut digits = itoa::Buffer::new();
        let tail = &mut self.log.tail;
        let mut header = |tail: &mut Vec<u8>, kind: u8, n: usize| {
            tail.push(kind);
            tail.extend_from_slice(digits.format(n).as_bytes());
            tail.extend_from_slice(b"\r\n");
        };
        header(tail, b'*', args.len());
        for arg in args {
            header(tail, b'$', arg.as_ref().len());
            tail.extend_from_slice(arg.as_ref());
            tail.extend_from_slice(b"\r\n");
        }
    }
}

impl Reader {
    /// Where this reader is.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What follows, without waiting; empty at the end of the log.
    pub fn read(&mut self) -> Vec<Bytes> {
        let mut log = self.stream.log.lock();
        log.seal();
        let from = self.offset;
        let ahead = log
            .sealed
            .iter()
            .filter(|(start, chunk)| start + chunk.len() as u64 > from);
        let chunks: Vec<Bytes> = ahead
            .map(|(start, chunk)| chunk.slice(from.saturating_sub(*start) as usize..))
            .collect();
        self.offset = log.tail_start;
        if let Some(position) = log.positions.iter_mut().find(|(id, _)| *id == self.id) {
            position.1 = self.offset;
        }
        log.drop_passed();
        chunks
    }

    /// Waits until something follows, at most `limit`; false when nothing did.
    pub fn wait(&self, limit: std::time::Duration) -> bool {
        let mut log = self.stream.log.lock();
        let deadline = std::time::Instant::now() + limit;
        while log.tail_start + log.tail.len() as u64 == self.offset {
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
        log.positions.retain(|(id, _)| *id != self.id);
        log.drop_passed();
        let left = self.stream.readers.fetch_sub(1, Ordering::Relaxed) - 1;
        let active = left > 0 || log.backlog > 0;
        self.stream.active.store(active, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(chunks: Vec<Bytes>) -> String {
        String::from_utf8(chunks.concat()).expect("ASCII")
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
        assert!(slow.read().concat().len() > 1_000_000);
        assert!(stream.log.lock().sealed.is_empty());
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
