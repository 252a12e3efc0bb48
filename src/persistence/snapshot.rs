//! A snapshot: the data set as it was at one moment, written as a dump file while it changes.
//!
//! The [`Cut`] shows each entry once, under its shard's lock, to whichever thread meets it first;
//! there it is encoded into a buffer, or, when its value is big, kept as it is ([`Entry::keep`]) to be
//! encoded without the lock. The snapshot's own thread walks, and between two slices writes what
//! has gathered. So a slow disk holds back the walk, and what writers put in ahead of
//! it is bounded by what they change. Big bursts of these are what the buffer is for.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::aof::rewrite;
use super::rdb::{self, encode, file, opcode, write::Writer};
use crate::base::crc::crc64;
use crate::keyspace::access::Access;
use crate::keyspace::cut::{Cut, Visitor};
use crate::keyspace::entry::{Entry, Kept, ValueRef};
use crate::keyspace::shards::{Keyspace, LockSet};
use crate::resp::write::request;

/// Bytes gathered before they are written.
const CHUNK: usize = 256 * 1024;

/// Longest wait for keys without a look at whether the snapshot is still wanted.
const NAP: Duration = Duration::from_millis(10);

/// How a snapshot is written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `rdbcompression`.
    pub compress: bool,
    /// `rdbchecksum`.
    pub checksum: bool,
    /// How accesses are recorded, and whether eviction uses them: then they are saved.
    pub access: Option<Access>,
    /// As commands instead of a dump (`aof-use-rdb-preamble no`).
    pub as_commands: bool,
    /// `rdb-key-save-delay`: microseconds to wait for each key; negative -n waits one microsecond
    /// for n keys.
    pub key_delay_us: i64,
}

/// What a snapshot counts while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Keys written so far.
    pub keys: AtomicU64,
    /// Keys there were at the cut.
    pub total: AtomicU64,
}

/// What was shown and is not written yet.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Database of the last record in `bytes`.
    db: Option<usize>,
    /// Entries whose values are too big to be encoded while others wait.
    big: Vec<Big>,
}

/// A big value and what belongs to it.
struct Big {
    db: usize,
    key: Box<[u8]>,
    about: About,
    value: Kept,
}

/// What is saved of an entry beside key and value.
#[derive(Clone, Copy)]
struct About {
    expiry: Option<i64>,
    clock: u32,
}

struct Collector {
    gathered: Mutex<Gathered>,
    options: Options,
    progress: Arc<Progress>,
}

impl Visitor for Collector {
    fn visit(&self, db: usize, entry: &mut Entry) -> usize {
        /// Bytes that are encoded in a hundred nanoseconds.
        const PACE: usize = 32;
        self.progress.keys.fetch_add(1, Relaxed);
        let about = About {
            expiry: entry.expiry(),
            clock: entry.clock(),
        };
        if let Some(value) = entry.keep() {
            let key = entry.key().into();
            let work = value.parts();
            self.gathered.lock().big.push(Big {
                db,
                key,
                about,
                value,
            });
            return work;
        }
        let mut gathered = self.gathered.lock();
        let Gathered {
            bytes, db: last, ..
        } = &mut *gathered;
        let before = bytes.len();
        if *last != Some(db) {
            self.options.select(bytes, db);
            *last = Some(db);
        }
        let mut writer = Writer::new(bytes, self.options.compress);
        record(
            entry.key(),
            entry.value(),
            about,
            &mut writer,
            &self.options,
        );
        1 + (bytes.len() - before) / PACE
    }
}

impl Options {
    /// Appends that what follows is in this database.
    fn select(&self, out: &mut Vec<u8>, db: usize) {
        if self.as_commands {
            request(out, &[b"SELECT", db.to_string().as_bytes()]);
        } else {
            file::select(out, db);
        }
    }
}

/// Writes what a file holds of an entry.
fn record(
    key: &[u8],
    value: ValueRef<'_>,
    about: About,
    writer: &mut Writer<'_>,
    options: &Options,
) {
    if options.as_commands {
        return rewrite::key(writer, key, value, about.expiry);
    }
    if let Some(at) = about.expiry {
        writer.byte(opcode::EXPIRETIME_MS);
        writer.millis(at);
    }
    match options.access {
        Some(access @ Access::Lru { .. }) => {
            writer.byte(opcode::IDLE);
            writer.len(access.idle_ms(about.clock) / 1000);
        }
        Some(access @ Access::Lfu { .. }) => {
            writer.raw(&[opcode::FREQ, access.frequency(about.clock) as u8]);
        }
        None => {}
    }
    writer.byte(encode::code(value));
    writer.string(key);
    encode::value(value, writer);
}

/// What stands before the keys: fields about the file, and libraries of functions.
pub fn head(fields: &[(&str, Vec<u8>)], functions: &[Vec<u8>]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in fields {
        file::aux(&mut head, name, value);
    }
    for source in functions {
        head.push(opcode::FUNCTION);
        Writer::new(&mut head, true).string(source);
    }
    head
}

/// Where a snapshot goes, with its checksum.
struct Sink<'a> {
    to: &'a mut dyn Write,
    sum: Option<u64>,
    failed: Option<io::Error>,
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if let Some(sum) = &mut self.sum {
            *sum = crc64(*sum, bytes);
        }
        self.failed = self.to.write_all(bytes).err();
    }
}

/// Writes a snapshot of `keyspace` to `to`. `at_cut` runs at the moment of the cut, while all
/// shards are locked, and returns what stands before the keys ([`head`]); `started` is told of the cut, which it
/// may cancel later. Only one snapshot at a time.
///
/// # Errors
/// Those of `to`; and `Interrupted` when the cut was cancelled. The cut is at its end in any case.
pub fn write(
    keyspace: &Keyspace,
    options: Options,
    progress: &Arc<Progress>,
    to: &mut dyn Write,
    at_cut: impl FnOnce(&mut LockSet<'_>) -> Vec<u8>,
    started: impl FnOnce(&Arc<Cut>),
) -> io::Result<()> {
    let collector = Arc::new(Collector {
        gathered: Mutex::default(),
        options,
        progress: Arc::clone(progress),
    });
    let mut locks = keyspace.lock_all();
    let head = at_cut(&mut locks);
    // Whatever is written then is encoded as it was at this moment.
    let version = match keyspace.has_timed_hashes() {
        true => rdb::TIMED_VERSION,
        false => rdb::VERSION,
    };
    let keys: usize = (0..keyspace.databases()).map(|db| keyspace.len(db)).sum();
    progress.keys.store(0, Relaxed);
    progress.total.store(keys as u64, Relaxed);
    let visitor = Arc::clone(&collector) as Arc<dyn Visitor>;
    let cut = Cut::begin(keyspace, &mut locks, visitor);
    drop(locks);
    started(&cut);

    let mut sink = Sink {
        to,
        sum: options.checksum.then_some(0),
        failed: None,
    };
    if !options.as_commands {
        sink.write(&file::magic(version));
    }
    sink.write(&head);
    let mut delayed = 0;
    cut.walk(keyspace, || {
        drain(&collector, &mut sink, CHUNK);
        if sink.failed.is_some() {
            cut.cancel();
        }
        if options.key_delay_us != 0 && !cut.is_cancelled() {
            delayed = delay(options.key_delay_us, delayed, progress, &cut);
        }
    });
    drain(&collector, &mut sink, 1);
    if !options.as_commands {
        sink.write(&[opcode::EOF]);
        let sum = sink.sum.take().unwrap_or(0);
        sink.write(&sum.to_le_bytes());
    }
    match sink.failed {
        Some(error) => Err(error),
        None if cut.is_cancelled() => Err(io::ErrorKind::Interrupted.into()),
        None => to.flush(),
    }
}

/// Writes a dump that ends after its [`head`].
///
/// # Errors
/// Those of `to`.
pub fn write_head(options: Options, to: &mut dyn Write, head: &[u8]) -> io::Result<()> {
    let mut sink = Sink {
        to,
        sum: options.checksum.then_some(0),
        failed: None,
    };
    sink.write(&file::magic(rdb::VERSION));
    sink.write(head);
    sink.write(&[opcode::EOF]);
    let sum = sink.sum.take().unwrap_or(0);
    sink.write(&sum.to_le_bytes());
    sink.failed.map_or(Ok(()), Err)?;
    to.flush()
}

/// Writes what has gathered, if it is at least so many bytes or a big value is among it.
fn drain(collector: &Collector, sink: &mut Sink<'_>, at_least: usize) {
    let gathered = {
        let mut gathered = collector.gathered.lock();
        if gathered.bytes.len() < at_least && gathered.big.is_empty() {
            return;
        }
        std::mem::take(&mut *gathered)
    };
    sink.write(&gathered.bytes);
    let mut bytes = gathered.bytes;
    for big in gathered.big {
        bytes.clear();
        let options = &collector.options;
        options.select(&mut bytes, big.db);
        let mut spill = |bytes: &mut Vec<u8>| {
            sink.write(bytes);
            bytes.clear();
        };
        let mut writer = Writer::spilling(&mut bytes, options.compress, &mut spill);
        record(&big.key, big.value.value(), big.about, &mut writer, options);
        sink.write(&bytes);
    }
}

/// Waits for the keys that came since `before`; the number of keys now.
fn delay(each_us: i64, before: u64, progress: &Progress, cut: &Cut) -> u64 {
    let keys = progress.keys.load(Relaxed);
    let new = keys - before;
    let micros = if each_us > 0 {
        new.saturating_mul(each_us.unsigned_abs())
    } else {
        new / each_us.unsigned_abs()
    };
    if micros == 0 && each_us < 0 {
        return before;
    }
    let end = Instant::now() + Duration::from_micros(micros);
    // A long wait ends with the snapshot.
    while let Some(left) = end.checked_duration_since(Instant::now())
        && !cut.is_cancelled()
    {
        std::thread::sleep(left.min(NAP));
    }
    keys
}
