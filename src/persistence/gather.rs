//! What a snapshot has been shown and has not written yet.
//!
//! Entries are shown under their shards' locks, for which clients wait. So there a record is only
//! copied together ([`Batch`]): long strings as they are, to be compressed later by the thread that
//! writes, and big values not at all, but kept ([`InPlace::keep`]). What clients put in before they
//! change it ([`Ahead`]) is behind a lock that the writing thread holds for no longer than it takes
//! to exchange a few pointers.

use super::aof::rewrite;
use super::rdb::write::{Plain, Writer, complete};
use super::rdb::{encode, file, opcode};
use crate::base::clock;
use crate::config::{MaxmemoryPolicy, Settings};
use crate::keyspace::access::Access;
use crate::keyspace::entry::{InPlace, Kept, ValueRef};
use crate::resp::write::request;
use crate::types::patched;

/// Bytes of records after which a batch is full.
pub const FULL: usize = 64 * 1024;
/// Room of a batch: most records that make it full are not much longer.
const ROOM: usize = FULL + FULL / 4;
/// Batches that are kept for what comes next.
const SPARES: usize = 4;

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

impl Options {
    /// How snapshots are written, by the parameters of this moment.
    pub fn of(settings: &Settings) -> Self {
        let access = match settings.maxmemory_policy {
            MaxmemoryPolicy::NoEviction
            | MaxmemoryPolicy::AllkeysRandom
            | MaxmemoryPolicy::VolatileRandom
            | MaxmemoryPolicy::VolatileTtl => None,
            _ => Some(Access::of(settings, clock::unix_ms())),
        };
        Self {
            compress: settings.rdbcompression,
            checksum: settings.rdbchecksum,
            access,
            as_commands: false,
            key_delay_us: settings.rdb_key_save_delay.into(),
        }
    }

    /// Appends that what follows is in this database.
    fn select(&self, out: &mut Vec<u8>, db: usize) {
        if self.as_commands {
            request(out, &[b"SELECT", db.to_string().as_bytes()]);
        } else {
            file::select(out, db);
        }
    }
}

/// What is saved of an entry beside key and value.
#[derive(Clone, Copy)]
struct About {
    expiry: Option<i64>,
    clock: u32,
}

/// A value that is too big to be copied while others wait, and what belongs to it.
pub struct Big {
    db: usize,
    key: Box<[u8]>,
    about: About,
    value: Kept,
}

impl Big {
    /// Database and key, if changes may be put aside for as long as the value is kept
    /// ([`InPlace::settle`]).
    pub fn changes_aside(&self) -> Option<(usize, Box<[u8]>)> {
        let ValueRef::String(string) = self.value.value() else {
            return None;
        };
        (string.len() >= patched::FROM).then(|| (self.db, self.key.clone()))
    }

    /// Writes its record. `bytes` is empty and serves as a buffer; `write` takes what is in there
    /// and tells whether more is wanted.
    pub fn write(
        self,
        options: &Options,
        bytes: &mut Vec<u8>,
        write: &mut dyn FnMut(&[u8]) -> bool,
    ) {
        options.select(bytes, self.db);
        let mut spill = |bytes: &mut Vec<u8>| {
            let goes_on = write(bytes);
            bytes.clear();
            goes_on
        };
        let mut writer = Writer::spilling(bytes, options.compress, &mut spill);
        let (key, about) = (&self.key, self.about);
        if options.as_commands {
            record(key, self.value.value(), about, &mut writer, options);
        } else {
            head(key, self.value.value(), about, &mut writer, options);
            encode::kept(self.value, &mut writer);
        }
        write(bytes);
        bytes.clear();
    }
}

/// Records of entries, one after the other; and big values. Nothing in it depends on what is
/// written before it.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// The strings in `bytes` that are still to be compressed.
    plain: Vec<Plain>,
    /// Database of the last record in `bytes`.
    db: Option<usize>,
    big: Vec<Big>,
}

impl Batch {
    /// Takes an entry in; about how much work that was, in some hundred nanoseconds.
    pub fn take(&mut self, db: usize, entry: &mut InPlace<'_>, options: &Options) -> usize {
        /// Bytes that are copied together in a hundred nanoseconds.
        const PACE: usize = 256;
        let about = About {
            expiry: entry.expiry(),
            clock: entry.clock(),
        };
        if let Some(value) = entry.keep() {
            let key = entry.key().into();
            let work = value.parts();
            self.big.push(Big {
                db,
                key,
                about,
                value,
            });
            return work;
        }
        let before = self.bytes.len();
        if self.db != Some(db) {
            options.select(&mut self.bytes, db);
            self.db = Some(db);
        }
        let mut writer = match options.compress {
            true => Writer::deferring(&mut self.bytes, &mut self.plain),
            false => Writer::new(&mut self.bytes, false),
        };
        record(entry.key(), entry.value(), about, &mut writer, options);
        1 + (self.bytes.len() - before) / PACE
    }

    /// Bytes of records, before any compression.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.big.is_empty()
    }

    /// True when it holds as much as it should.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || !self.big.is_empty()
    }

    /// Appends its records to `out`, as they are to be written, and empties it but for the big
    /// values.
    pub fn complete(&mut self, out: &mut Vec<u8>) {
        complete(&self.bytes, &self.plain, out);
        self.bytes.clear();
        self.bytes.shrink_to(2 * ROOM);
        self.plain.clear();
        self.db = None;
    }

    /// Takes the big values out.
    pub fn take_big(&mut self) -> Vec<Big> {
        std::mem::take(&mut self.big)
    }
}

/// What was put in ahead of the walk.
#[derive(Default)]
pub struct Ahead {
    filling: Batch,
    full: Vec<Batch>,
    spares: Vec<Batch>,
}

impl Ahead {
    /// Takes an entry in.
    pub fn take(&mut self, db: usize, entry: &mut InPlace<'_>, options: &Options) {
        self.filling.take(db, entry, options);
        if self.filling.is_full() {
            self.next();
        }
    }

    fn next(&mut self) {
        let fresh = self.spares.pop().unwrap_or_else(|| Batch {
            bytes: Vec::with_capacity(ROOM),
            ..Batch::default()
        });
        self.full.push(std::mem::replace(&mut self.filling, fresh));
    }

    /// Moves what is complete to the end of `into`, and the rest as well, if `all`.
    pub fn hand_over(&mut self, into: &mut Vec<Batch>, all: bool) {
        if all && !self.filling.is_empty() {
            self.next();
        }
        into.append(&mut self.full);
    }

    /// Takes back batches that are empty now, as far as they will be needed.
    pub fn give_back(&mut self, empty: &mut Vec<Batch>) {
        let some = SPARES.saturating_sub(self.spares.len()).min(empty.len());
        self.spares.extend(empty.drain(..some));
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
    head(key, value, about, writer, options);
    encode::value(value, writer);
}

/// What stands before a value in a dump.
fn head(key: &[u8], value: ValueRef<'_>, about: About, writer: &mut Writer<'_>, options: &Options) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::{Entry, NewValue};

    const OPTIONS: Options = Options {
        compress: true,
        checksum: true,
        access: None,
        as_commands: false,
        key_delay_us: 0,
    };

    fn entry(key: &[u8], value: &[u8]) -> Entry {
        Entry::new(key, NewValue::Bytes(value), Some(77), 0)
    }

    /// What a batch should come to.
    fn at_once(db: usize, entry: &Entry) -> Vec<u8> {
        let mut bytes = Vec::new();
        file::select(&mut bytes, db);
        let about = About {
            expiry: entry.expiry(),
            clock: 0,
        };
        let mut writer = Writer::new(&mut bytes, true);
        record(entry.key(), entry.value(), about, &mut writer, &OPTIONS);
        bytes
    }

    #[test]
    fn strings_are_compressed_later_to_the_same() {
        let values: [&[u8]; 4] = [b"short", &[b'x'; 300], b"12345", &[7; 21]];
        let key = [b'k'; 40];
        let (mut batch, mut expected, mut out) = (Batch::default(), Vec::new(), Vec::new());
        for (db, value) in values.iter().enumerate() {
            let mut entry = entry(&key, value);
            expected.extend(at_once(db, &entry));
            assert!(batch.take(db, &mut entry.in_place(), &OPTIONS) > 0);
        }
        batch.complete(&mut out);
        assert_eq!(out, expected);
        assert!(batch.is_empty() && out.len() < 300);
    }

    #[test]
    fn what_was_put_in_ahead_comes_once_and_in_whole_batches() {
        /// Somewhat more than a batch.
        const COUNT: usize = FULL / 1000 + 10;
        let (mut ahead, mut batches) = (Ahead::default(), Vec::new());
        let mut one = entry(b"key", &[b'y'; 1000]);
        for _ in 0..COUNT {
            ahead.take(3, &mut one.in_place(), &OPTIONS);
        }
        ahead.hand_over(&mut batches, false);
        assert!(batches.len() == 1 && batches[0].is_full());
        ahead.hand_over(&mut batches, true);
        ahead.hand_over(&mut batches, true);
        assert_eq!(batches.len(), 2);
        let records = |batch: &mut Batch| {
            let mut out = Vec::new();
            batch.complete(&mut out);
            assert_eq!(&out[..2], [opcode::SELECTDB, 3]);
            (out.len() - 2) / (at_once(3, &one).len() - 2)
        };
        let count: usize = batches.iter_mut().map(records).sum();
        assert_eq!(count, COUNT);
        ahead.give_back(&mut batches);
        assert!(batches.is_empty());
    }
}
