//! A snapshot: the data set as it was at one moment, written as a dump file while it changes.
//!
//! The [`Cut`] shows each entry once, under its shard's lock, to whichever thread meets it first;
//! there it is copied together into a [`Batch`]. The snapshot's own thread walks, and between two
//! slices completes, compresses, sums and writes what has gathered, without any lock. So a slow disk
//! holds back the walk, and what writers put in ahead of it is bounded by what they change.
//!
//! That thread may have a low priority: while it stands still it rarely holds a lock, and none that
//! more than one shard's clients wait for.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::gather::{Ahead, Batch, FULL};
use super::rdb::{self, file, opcode, write::Writer};
use crate::base::crc::crc64;
use crate::base::priority::Turns;
use crate::keyspace::cut::{Cut, Visitor};
use crate::keyspace::cut_walk::Walker;
use crate::keyspace::db::settle;
use crate::keyspace::entry::InPlace;
use crate::keyspace::shards::{Keyspace, LockSet};

pub use super::gather::Options;

/// Bytes gathered before they are completed, which is soon enough for them to be in the cache still.
const PIECE: usize = 16 * 1024;
/// Bytes completed before they are written.
const CHUNK: usize = 64 * 1024;

/// Longest wait for keys without a look at whether the snapshot is still wanted.
const NAP: Duration = Duration::from_millis(10);

/// What a snapshot counts while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Keys written so far.
    pub keys: AtomicU64,
    /// Keys there were at the cut.
    pub total: AtomicU64,
}

/// Says which keys belong to a snapshot.
pub type Wanted = dyn Fn(&[u8]) -> bool + Send + Sync;

/// Takes what writers are about to change.
struct Collector {
    /// Without one, all keys belong to it.
    wanted: Option<Box<Wanted>>,
    ahead: Mutex<Ahead>,
    options: Options,
    progress: Arc<Progress>,
}

impl Collector {
    #[inline]
    fn wants(&self, entry: &InPlace<'_>) -> bool {
        self.wanted
            .as_ref()
            .is_none_or(|wanted| wanted(entry.key()))
    }
}

impl Visitor for Collector {
    fn visit(&self, db: usize, entry: &mut InPlace<'_>) {
        if !self.wants(entry) {
            return;
        }
        self.progress.keys.fetch_add(1, Relaxed);
        self.ahead.lock().take(db, entry, &self.options);
    }
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

    /// Writes a part of what a cut holds, unless nobody wants it any more; true while somebody
    /// does. The cut is cancelled when writing fails.
    fn write_for(&mut self, cut: &Cut, bytes: &[u8]) -> bool {
        if !cut.is_cancelled() {
            self.write(bytes);
            if self.failed.is_some() {
                cut.cancel();
            }
        }
        !cut.is_cancelled()
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
    write_part(keyspace, options, progress, to, None, (at_cut, started))
}

/// As [`write()`], of the keys that are `wanted`, with what to do at the cut and once it has begun.
///
/// # Errors
/// As those of [`write()`].
pub fn write_part(
    keyspace: &Keyspace,
    options: Options,
    progress: &Arc<Progress>,
    to: &mut dyn Write,
    wanted: Option<Box<Wanted>>,
    (at_cut, started): (
        impl FnOnce(&mut LockSet<'_>) -> Vec<u8>,
        impl FnOnce(&Arc<Cut>),
    ),
) -> io::Result<()> {
    let collector = Arc::new(Collector {
        wanted,
        ahead: Mutex::default(),
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
    let mut walk = Walk {
        collector: &collector,
        cut: &cut,
        keyspace,
        sink,
        own: Batch::default(),
        ahead: Vec::new(),
        out: Vec::with_capacity(CHUNK + FULL),
        delayed: 0,
        turns: Turns::default(),
    };
    cut.walk(keyspace, &mut walk);
    let mut sink = walk.finish();
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

/// The snapshot's own thread at work.
struct Walk<'a> {
    collector: &'a Collector,
    cut: &'a Cut,
    keyspace: &'a Keyspace,
    sink: Sink<'a>,
    /// What the walk itself was shown.
    own: Batch,
    /// Batches of others that are being written, and then empty ones.
    ahead: Vec<Batch>,
    /// Complete, to be written.
    out: Vec<u8>,
    /// Keys for which it has waited.
    delayed: u64,
    turns: Turns,
}

impl Walker for Walk<'_> {
    fn visit(&mut self, db: usize, entry: &mut InPlace<'_>) -> usize {
        if !self.collector.wants(entry) {
            return 0;
        }
        self.collector.progress.keys.fetch_add(1, Relaxed);
        self.own.take(db, entry, &self.collector.options)
    }

    fn pause(&mut self) {
        self.turns.offer();
        if self.own.len() >= PIECE || self.own.is_full() {
            self.write_gathered(false);
        }
        let delay_us = self.collector.options.key_delay_us;
        if delay_us != 0 && !self.cut.is_cancelled() {
            self.write_gathered(false);
            let progress = &self.collector.progress;
            self.delayed = delay(delay_us, self.delayed, progress, self.cut);
        }
    }
}

impl<'a> Walk<'a> {
    /// Writes what has gathered but for what is on its way to a chunk; `all` of it, if so.
    fn write_gathered(&mut self, all: bool) {
        let mut ahead = std::mem::take(&mut self.ahead);
        {
            // Held for an instant: clients wait for it.
            let mut others = self.collector.ahead.lock();
            others.give_back(&mut ahead);
            let kept = std::mem::take(&mut ahead);
            others.hand_over(&mut ahead, all);
            drop(others);
            drop(kept);
        }
        let mut own = std::mem::take(&mut self.own);
        self.write_batch(&mut own);
        self.own = own;
        ahead.iter_mut().for_each(|batch| self.write_batch(batch));
        self.ahead = ahead;
        if all {
            self.write_out();
        }
    }

    fn write_batch(&mut self, batch: &mut Batch) {
        batch.complete(&mut self.out);
        if self.out.len() >= CHUNK {
            self.write_out();
        }
        for big in batch.take_big() {
            self.write_out();
            let (sink, cut, turns) = (&mut self.sink, self.cut, &mut self.turns);
            let mut write = |bytes: &[u8]| {
                turns.offer();
                sink.write_for(cut, bytes)
            };
            let changes = big.changes_aside();
            big.write(&self.collector.options, &mut self.out, &mut write);
            // What was changed meanwhile can go to its place, now that the string is its own again.
            while let Some((db, key)) = &changes
                && settle(self.keyspace, *db, key)
            {
                self.turns.offer();
            }
        }
    }

    fn write_out(&mut self) {
        self.sink.write_for(self.cut, &self.out);
        self.out.clear();
    }

    /// Writes the rest.
    fn finish(mut self) -> Sink<'a> {
        self.write_gathered(true);
        self.sink
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::random;
    use crate::keyspace::db::{Db, Effects, Env, Ttl};
    use crate::keyspace::entry::{Entry, NewValue, ValueRef};
    use crate::persistence::aof::rewrite;
    use crate::persistence::load::{self, Loading};
    use crate::persistence::rdb::decode::Layouts;
    use crate::types::collection::Collection;
    use crate::types::hash::Hash;
    use crate::types::list::{End, List};
    use crate::types::listpack::Element;
    use crate::types::object::ObjectRef;
    use crate::types::set::Set;
    use crate::types::stream::{Keep, Limits as BlockLimits, Stream, Trim};
    use crate::types::stream_group::{Group, Pending};
    use crate::types::stream_id::StreamId;
    use crate::types::zset::ZSet;
    use crate::types::{hash, list, set, zset};

    const SIZE: usize = 20_000;
    /// Bytes of a string that is too long to be copied as a whole.
    const HUGE: usize = 3 << 20;
    const BLOCKS: BlockLimits = BlockLimits {
        bytes: 4096,
        entries: 100,
    };
    const KEYS: [&[u8]; 7] = [
        b"list", b"set", b"hash", b"zset", b"stream", b"string", b"huge",
    ];

    fn layouts() -> Layouts {
        Layouts {
            list: list::Limits::new(-1, 0),
            set: set::Limits { intset_entries: 8 },
            hash: hash::Limits {
                pack_entries: 8,
                pack_value: 64,
            },
            zset: zset::Limits {
                entries: 8,
                value: 64,
            },
        }
    }

    fn with<R>(keyspace: &Keyspace, work: impl FnOnce(&mut Db<'_, '_>) -> R) -> R {
        let mut locks = keyspace.lock_all();
        let (env, mut effects) = (Env::at(1000), Effects::default());
        work(&mut Db::new(
            keyspace,
            &mut locks,
            &env,
            &mut effects,
            0,
            &[],
        ))
    }

    fn name(n: usize) -> Vec<u8> {
        let mut name = format!("element:{n}").into_bytes();
        // Some are longer than what lies in the table itself.
        name.resize(name.len() + 2000 * usize::from(n.is_multiple_of(997)), b'.');
        name
    }

    /// Changes every value somewhere.
    fn meddle(keyspace: &Keyspace) {
        let at = random::below(SIZE * 2);
        let (name, layouts) = (name(at), layouts());
        with(keyspace, |db| {
            let list = db.write_or_create(b"list", List::new).expect("a list");
            let end = [End::Head, End::Tail][at % 2];
            list.push(end, &name, &layouts.list);
            list.set(at % list.len(), b"changed", &layouts.list);
            if list.len() > SIZE / 2 {
                list.delete(random::below(list.len()), 1, &layouts.list);
            }

            let set = db.write_or_create(b"set", Set::new).expect("a set");
            if !set.remove(&name) {
                set.add(&name, layouts.set);
            }

            let hash = db.write_or_create(b"hash", Hash::new).expect("a hash");
            match at % 4 {
                0 => _ = hash.remove(&name),
                1 => hash.set_expiry(&name, Some(at as i64 + 5000)),
                _ => _ = hash.set(&name, at.to_string().as_bytes(), layouts.hash),
            }

            let new = || ZSet::new(layouts.zset, 0);
            let zset = db.write_or_create(b"zset", new).expect("a sorted set");
            if at.is_multiple_of(3) {
                zset.remove(&name);
            } else {
                zset.insert(random::below(SIZE) as f64, &name, layouts.zset);
            }

            let stream = db.write_or_create::<Box<Stream>>(b"stream", Box::default);
            let stream = stream.expect("a stream");
            let group = stream.groups.entry((*b"group").into());
            let group = group.or_insert_with(|| Group::new(StreamId::MIN, None));
            let (consumer, _) = group.find_or_create(b"consumer", 1);
            let (delivered_ms, count) = (at as i64, 1);
            let pending = Pending {
                consumer,
                delivered_ms,
                count,
            };
            group.assign(StreamId::new(at as u64, 1), pending);
            group.acknowledge(StreamId::new(random::below(SIZE) as u64, 1));

            let log = &mut stream.log;
            let id = log.choose_id(None, 1).expect("there is a next one");
            log.append(id, &[b"field", &name], &BLOCKS).expect("higher");
            log.delete(StreamId::new(at as u64 % 50, 1 + at as u64 % 300));
            if log.len() > SIZE as u64 {
                log.trim(&Trim {
                    keep: Keep::Newest(SIZE as u64),
                    whole_blocks: at.is_multiple_of(2),
                    limit: 0,
                });
            }

            if !db.exists(b"string") {
                db.put(b"string", NewValue::Bytes(&[7; 30_000]), Ttl::Clear);
            }
            let mut string = db.write(b"string").expect("there or just made");
            string.change(|string| string.bytes_mut()[at % 30_000] ^= 1);

            if !db.exists(b"huge") {
                let bytes = vec![7; HUGE];
                db.put(b"huge", NewValue::Shared(bytes.into()), Ttl::Clear);
            }
            let mut huge = db.write(b"huge").expect("there or just made");
            let place = at * 50..at * 50 + 2;
            let flip = |two: &mut [u8]| two.iter_mut().for_each(|byte| *byte ^= 1);
            huge.change(|huge| huge.padded_mut(0).edit(place, flip));
            if at.is_multiple_of(500) {
                huge.change(|huge| huge.append(b"longer"));
            }
        });
    }

    /// What is in each value, in an order that says nothing where there is none.
    fn contents(keyspace: &Keyspace) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
        with(keyspace, |db| {
            let content = |entry: &Entry| match entry.value() {
                ValueRef::String(string) => vec![string.to_vec()],
                ValueRef::Object(ObjectRef::Set(set)) => {
                    let mut all: Vec<_> = set.iter().map(Element::to_vec).collect();
                    all.sort();
                    all
                }
                ValueRef::Object(ObjectRef::Hash(hash)) => {
                    let text = |(field, value, at): (Element<'_>, Element<'_>, _)| {
                        format!("{:?} {:?} {at:?}", field.to_vec(), value.to_vec()).into_bytes()
                    };
                    let mut all: Vec<_> = hash.iter_timed().map(text).collect();
                    all.sort();
                    all
                }
                value => {
                    let mut bytes = Vec::new();
                    rewrite::key(&mut Writer::new(&mut bytes, false), b"key", value, None);
                    vec![bytes]
                }
            };
            let mut all = BTreeMap::new();
            for key in KEYS {
                if let Some(entry) = db.peek(key) {
                    all.insert(key.to_vec(), content(&entry));
                }
            }
            all
        })
    }

    /// A file whose data set changes with everything that is written to it.
    struct Meddled<'a> {
        keyspace: &'a Keyspace,
        bytes: Vec<u8>,
        writes: usize,
    }

    impl Write for Meddled<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Less than everything at once, so that there are many moments.
            let some = bytes.len().min(1 << 16);
            self.bytes.extend_from_slice(&bytes[..some]);
            self.writes += 1;
            for _ in 0..500 {
                meddle(self.keyspace);
            }
            if self.writes.is_multiple_of(4) {
                with(self.keyspace, |db| {
                    db.remove(KEYS[self.writes / 4 % KEYS.len()])
                });
            }
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn options(as_commands: bool) -> Options {
        Options {
            compress: true,
            checksum: true,
            access: None,
            as_commands,
            key_delay_us: 0,
        }
    }

    #[test]
    fn big_values_are_saved_as_they_were_while_they_change() {
        random::seed(7);
        let keyspace = Keyspace::new(1, false);
        for _ in 0..SIZE {
            meddle(&keyspace);
        }
        for _ in 0..3 {
            let before = contents(&keyspace);
            let mut file = Meddled {
                keyspace: &keyspace,
                bytes: Vec::new(),
                writes: 0,
            };
            let progress = Arc::default();
            write(
                &keyspace,
                options(false),
                &progress,
                &mut file,
                |_| Vec::new(),
                |_| (),
            )
            .expect("memory takes everything");
            assert_eq!(progress.keys.load(Relaxed), before.len() as u64);
            assert!(contents(&keyspace) != before, "it has changed meanwhile");

            let again = Keyspace::new(1, false);
            let options = load::Options {
                layouts: layouts(),
                env: Env::at(1000),
                drop_expired: false,
                tell_left_out: 0,
                beside: false,
                replace: false,
                checksum: true,
                key_delay_us: 0,
                threads: 2,
            };
            load::file(&again, &file.bytes[..], &options, &Loading::default())
                .expect("what was written can be read");
            let (after, keys) = (contents(&again), before.keys());
            let differ = keys.filter(|key| after.get(*key) != before.get(*key));
            assert_eq!(differ.collect::<Vec<_>>(), Vec::<&Vec<u8>>::new());
            assert_eq!(after.len(), before.len());
        }
    }

    /// A file during whose writing the snapshot is cancelled.
    struct Cancelled {
        cut: Arc<Mutex<Option<Arc<Cut>>>>,
        bytes: usize,
    }

    impl Write for Cancelled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes += bytes.len();
            if self.bytes > 1000
                && let Some(cut) = &*self.cut.lock()
            {
                cut.cancel();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_cancelled_snapshot_does_not_end_the_value_it_is_at() {
        let keyspace = Keyspace::new(1, false);
        let set = (0..200_000).fold(Set::new(), |mut set, n| {
            set.add(&name(n), layouts().set);
            set
        });
        with(&keyspace, |db| db.store(b"set", set));
        for as_commands in [false, true] {
            let cut = Arc::default();
            let mut file = Cancelled {
                cut: Arc::clone(&cut),
                bytes: 0,
            };
            let result = write(
                &keyspace,
                options(as_commands),
                &Arc::default(),
                &mut file,
                |_| Vec::new(),
                |begun| *cut.lock() = Some(Arc::clone(begun)),
            );
            let error = result.expect_err("it was cancelled");
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
            assert!(file.bytes < 200_000, "{} bytes were written", file.bytes);
        }
    }

    #[test]
    fn big_values_as_commands_stay_in_their_database() {
        let keyspace = Keyspace::new(1, false);
        let set = (0..SIZE).fold(Set::new(), |mut set, n| {
            set.add(&name(n), layouts().set);
            set
        });
        with(&keyspace, |db| {
            db.put(b"a", NewValue::Int(1), Ttl::Clear);
            db.store(b"set", set);
        });
        let mut bytes = Vec::new();
        write(
            &keyspace,
            options(true),
            &Arc::default(),
            &mut bytes,
            |_| Vec::new(),
            |_| (),
        )
        .expect("memory takes everything");
        let count = |what: &[u8]| bytes.windows(what.len()).filter(|w| *w == what).count();
        assert_eq!(
            (count(b"SELECT"), count(b"SADD"), count(b"SET\r\n")),
            (2, SIZE.div_ceil(64), 1)
        );
    }
}
