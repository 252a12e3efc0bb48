//! Loading a dump file: one thread finds the records, all others build and insert them.

use std::io::Read;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::rdb::decode::{self, Layouts};
use super::rdb::file::{Failure, FileReader, Item, Meta, Record, Sum};
use super::rdb::read::Corrupt;
use crate::base::clock::unix_ms;
use crate::base::text::human_bytes;
use crate::keyspace::db::{Db, Effects, Env};
use crate::keyspace::shards::Keyspace;

/// Bytes of records handed over at once.
const BATCH: usize = 128 * 1024;
/// How many keys without elements are named in the log.
const NAMED_EMPTY: u64 = 10;

/// How a file is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How values are laid out.
    pub layouts: Layouts,
    /// What commands see beside keys.
    pub env: Env,
    /// Keys that have expired are left out.
    pub drop_expired: bool,
    /// Which they are is told ([`Loaded::left_out`]) if the commands that remove them have at most so many bytes.
    pub tell_left_out: usize,
    /// Keys that are there are replaced; otherwise a key that comes twice is an error.
    pub replace: bool,
    /// Into databases that no client sees ([`Keyspace::beside`]).
    pub beside: bool,
    /// `rdbchecksum`.
    pub checksum: bool,
    /// `key-load-delay`: microseconds to wait for each key; negative -n waits one microsecond for n
    /// keys.
    pub key_delay_us: i64,
    /// Threads that build values.
    pub threads: usize,
}

/// Whether a data set is being loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// None is.
    Idle,
    /// One is, and none is served.
    Blocking,
    /// One is, beside the old one, which is served.
    Async,
}

/// What is told of loading while it goes on, and afterwards.
#[derive(Debug, Default)]
pub struct Loading {
    /// A [`Phase`].
    phase: AtomicU8,
    /// Unix seconds of its begin.
    pub started: AtomicI64,
    /// Bytes of the file, and how many of them were read.
    pub total_bytes: AtomicU64,
    /// See `total_bytes`.
    pub loaded_bytes: AtomicU64,
    /// `used-mem` of the file being loaded.
    pub memory: AtomicU64,
    /// Keys loaded last time.
    pub keys_loaded: AtomicU64,
    /// Keys left out last time, as they had expired.
    pub keys_expired: AtomicU64,
    keys_empty: AtomicU64,
}

impl Loading {
    /// Begins to load a file of so many bytes.
    pub fn begin(&self, total_bytes: u64) {
        self.total_bytes.store(total_bytes, Relaxed);
        self.loaded_bytes.store(0, Relaxed);
        self.memory.store(0, Relaxed);
        self.started.store(unix_ms() / 1000, Relaxed);
        self.enter(Phase::Blocking);
    }

    /// As [`Loading::begin`], beside the old data set, which is served meanwhile.
    pub fn begin_async(&self, total_bytes: u64) {
        self.begin(total_bytes);
        self.enter(Phase::Async);
    }

    /// The data set is there.
    pub fn end(&self) {
        self.enter(Phase::Idle);
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Relaxed) == phase as u8
    }

    /// A data set is being loaded, and none is served: `loading`.
    #[inline]
    pub fn is_blocking(&self) -> bool {
        self.is_in(Phase::Blocking)
    }

    /// One is being loaded beside the old one, which is served: `async_loading`.
    pub fn is_async(&self) -> bool {
        self.is_in(Phase::Async)
    }

    /// A data set is being loaded, in whatever way.
    pub fn is_under_way(&self) -> bool {
        !self.is_in(Phase::Idle)
    }

    /// How much of the file was read: 0 to 1.
    pub fn share(&self) -> f64 {
        let loaded = self.loaded_bytes.load(Relaxed);
        loaded as f64 / self.total_bytes.load(Relaxed).max(1) as f64
    }

    /// Seconds until the end, at the speed so far; 1 as long as nothing was read. `now` is Unix
    /// time in seconds.
    pub fn seconds_left(&self, now: i64) -> i64 {
        let elapsed = self.elapsed(now);
        match self.share() {
            0.0 => 1,
            share => (elapsed as f64 / share) as i64 - elapsed,
        }
    }

    fn elapsed(&self, now: i64) -> i64 {
        (now - self.started.load(Relaxed)).max(0)
    }

    /// How far it is, for the log, when there are `keys` keys by now.
    pub fn describe(&self, keys: usize, now: i64) -> String {
        let loaded = self.loaded_bytes.load(Relaxed);
        let speed = loaded / self.elapsed(now).max(1).unsigned_abs();
        format!(
            "Loading: {:.0}% of {}, {keys} keys, {}/s, about {} seconds left",
            self.share() * 100.0,
            human_bytes(self.total_bytes.load(Relaxed)),
            human_bytes(speed),
            self.seconds_left(now)
        )
    }
}

/// Records on their way to those who build values.
struct Batch {
    bytes: Vec<u8>,
    /// What is known of each, and where it ends.
    records: Vec<(Meta, usize)>,
}

/// What a file says of the stream that goes on behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The name of the stream (`repl-id`).
    pub id: Option<String>,
    /// How much of it the file contains (`repl-offset`).
    pub offset: Option<i64>,
    /// The database that it has selected there (`repl-stream-db`).
    pub selected: Option<usize>,
}

/// Keys that were left out as they had expired: database and name.
#[derive(Debug, Default)]
pub struct LeftOut {
    keys: Vec<(usize, Vec<u8>)>,
    bytes: usize,
    /// There were more.
    is_short: bool,
}

impl LeftOut {
    fn note(&mut self, db: usize, key: &[u8], most: usize) {
        /// Bytes of `DEL`, less those of the key.
        const FRAME: usize = 24;
        self.bytes = self.bytes.saturating_add(key.len() + FRAME);
        self.is_short |= self.bytes > most;
        match self.is_short {
            true => self.keys = Vec::new(),
            false => self.keys.push((db, key.to_owned())),
        }
    }

    /// All of them; `None` if there were more than are told.
    pub fn all(self) -> Option<Vec<(usize, Vec<u8>)>> {
        (!self.is_short).then_some(self.keys)
    }
}

/// A file that was loaded to its end.
pub struct Loaded<R> {
    /// Where in which stream it is.
    pub about: About,
    /// The sources of function libraries.
    pub functions: Vec<Vec<u8>>,
    /// Keys that are not in the data set any more: whoever goes on with the stream has to be told.
    pub left_out: LeftOut,
    /// Bytes after the end that were read already, for files that go on as commands.
    pub rest: Vec<u8>,
    /// Where what follows them is read.
    pub input: R,
}

/// Loads a whole file into `keyspace`.
///
/// # Errors
/// The first failure met. What was loaded until then stays.
pub fn file<R: Read>(
    keyspace: &Keyspace,
    input: R,
    options: &Options,
    loading: &Loading,
) -> Result<Loaded<R>, Failure> {
    for count in [
        &loading.keys_loaded,
        &loading.keys_expired,
        &loading.keys_empty,
    ] {
        count.store(0, Relaxed);
    }
    let mut reader = FileReader::new(input, options.checksum)?;
    let (mut functions, mut about) = (Vec::new(), About::default());
    let failed: Mutex<Option<Corrupt>> = Mutex::default();
    let left_out: Mutex<LeftOut> = Mutex::default();
    let (sender, receiver) = sync_channel(2 * options.threads);
    let receiver = Mutex::new(receiver);
    let read = std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            let outcome = (&failed, &left_out);
            let receiver = &receiver;
            scope.spawn(move || build(keyspace, receiver, options, loading, outcome));
        }
        read(
            keyspace,
            &mut reader,
            sender,
            (&mut functions, &mut about),
            loading,
            &failed,
        )
    });
    if let Some(error) = failed.into_inner() {
        return Err(error.into());
    }
    read?;
    if reader.sum() == Sum::Absent {
        tracing::warn!("RDB file was saved with checksum disabled: no check performed.");
    }
    report(loading);
    let (rest, input) = reader.into_rest();
    Ok(Loaded {
        about,
        functions,
        left_out: left_out.into_inner(),
        rest,
        input,
    })
}

fn report(loading: &Loading) {
    let get = |count: &AtomicU64| count.load(Relaxed);
    let (loaded, expired) = (get(&loading.keys_loaded), get(&loading.keys_expired));
    match get(&loading.keys_empty) {
        0 => tracing::info!("Done loading RDB, keys loaded: {loaded}, keys expired: {expired}."),
        empty => tracing::warn!(
            "Done loading RDB, keys loaded: {loaded}, keys expired: {expired}, empty keys skipped: \
             {empty}."
        ),
    }
}

/// Finds the records and hands them over in batches.
fn read<R: Read>(
    keyspace: &Keyspace,
    reader: &mut FileReader<R>,
    sender: SyncSender<Batch>,
    (functions, about): (&mut Vec<Vec<u8>>, &mut About),
    loading: &Loading,
    failed: &Mutex<Option<Corrupt>>,
) -> Result<(), Failure> {
    let new = || Batch {
        bytes: Vec::with_capacity(BATCH),
        records: Vec::new(),
    };
    let mut batch = new();
    loop {
        let item = reader.next_item()?;
        loading.loaded_bytes.store(reader.offset(), Relaxed);
        let ended = matches!(item, Item::End);
        match item {
            Item::Record(meta) => {
                if meta.db >= keyspace.databases() {
                    return Err(too_many_databases(keyspace.databases()));
                }
                batch.bytes.extend_from_slice(reader.record());
                batch.records.push((meta, batch.bytes.len()));
            }
            Item::Aux(name, value) => aux(&name, &value, loading, about),
            Item::Function(source) => functions.push(source),
            Item::ModuleAux(name) => {
                tracing::warn!(
                    "Skipping AUX data of the module type '{name}': no module is loaded"
                );
            }
            Item::Select(_) | Item::End => {}
        }
        if ended || batch.bytes.len() >= BATCH {
            // It fails only when all builders have stopped, with an error of their own.
            let sent = sender.send(std::mem::replace(&mut batch, new()));
            if sent.is_err() || failed.lock().is_some() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
    }
}

fn too_many_databases(databases: usize) -> Failure {
    Failure::Corrupt(Corrupt::Unsupported(format!(
        "FATAL: Data file was created with a Redis server configured to handle more than \
         {databases} databases. Exiting"
    )))
}

/// Takes in a field about the file, and logs what people look for.
fn aux(name: &[u8], value: &[u8], loading: &Loading, about: &mut About) {
    let text = String::from_utf8_lossy(value);
    let number = || text.parse::<i64>().unwrap_or(0);
    match name {
        [b'%', ..] => tracing::info!("RDB '{}': {text}", String::from_utf8_lossy(name)),
        b"redis-ver" => tracing::info!("Loading RDB produced by version {text}"),
        b"ctime" => {
            let age = (unix_ms() / 1000 - number()).max(0);
            tracing::info!("RDB age {age} seconds");
        }
        b"used-mem" => {
            let bytes = number();
            let mb = bytes as f64 / (1024.0 * 1024.0);
            tracing::info!("RDB memory usage when created {mb:.2} Mb");
            loading.memory.store(bytes.max(0) as u64, Relaxed);
        }
        b"aof-preamble" if number() != 0 => tracing::info!("RDB has an AOF tail"),
        b"aof-base" if number() != 0 => tracing::info!("RDB is base AOF"),
        b"aof-preamble" | b"aof-base" | b"redis-bits" | b"lua" => {}
        b"repl-stream-db" => about.selected = text.parse().ok(),
        b"repl-id" => about.id = Some(text.into_owned()),
        b"repl-offset" => about.offset = text.parse().ok(),
        _ => {
            let name = String::from_utf8_lossy(name);
            tracing::debug!("Unrecognized RDB AUX field: '{name}'");
        }
    }
}

/// Builds values from batches until there are no more.
fn build(
    keyspace: &Keyspace,
    batches: &Mutex<Receiver<Batch>>,
    options: &Options,
    loading: &Loading,
    (failed, left_out): (&Mutex<Option<Corrupt>>, &Mutex<LeftOut>),
) {
    let mut delayed = 0;
    loop {
        let next = batches.lock().recv();
        let Ok(batch) = next else { return };
        let mut start = 0;
        for (meta, end) in &batch.records {
            let bytes = &batch.bytes[start..*end];
            let result = insert(keyspace, bytes, meta, options, (loading, left_out));
            start = *end;
            if let Err(error) = result {
                failed.lock().get_or_insert(error);
            }
            if options.key_delay_us != 0 {
                delayed = delay(options.key_delay_us, delayed);
            }
            if failed.lock().is_some() {
                break;
            }
        }
    }
}

/// Waits for one key; how many keys were not waited for yet.
fn delay(each_us: i64, delayed: u64) -> u64 {
    if each_us > 0 {
        std::thread::sleep(Duration::from_micros(each_us.unsigned_abs()));
        return 0;
    }
    if delayed + 1 < each_us.unsigned_abs() {
        return delayed + 1;
    }
    std::thread::sleep(Duration::from_micros(1));
    0
}

fn insert(
    keyspace: &Keyspace,
    bytes: &[u8],
    meta: &Meta,
    options: &Options,
    (loading, left_out): (&Loading, &Mutex<LeftOut>),
) -> Result<(), Corrupt> {
    let mut record = Record::parse(bytes)?;
    let key = &record.key[..];
    let value = match decode::value(record.code, &mut record.value, &options.layouts) {
        Ok(value) => value,
        Err(Corrupt::Empty) => {
            if loading.keys_empty.fetch_add(1, Relaxed) < NAMED_EMPTY {
                let key = String::from_utf8_lossy(key);
                tracing::warn!("rdbLoadObject skipping empty key: {key}");
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if options.drop_expired && meta.expiry.is_some_and(|at| at < options.env.now_ms) {
        loading.keys_expired.fetch_add(1, Relaxed);
        left_out.lock().note(meta.db, key, options.tell_left_out);
        return Ok(());
    }
    let clock = options
        .env
        .access
        .restored(meta.idle_seconds, meta.frequency);
    let entry = value.into_entry(key, meta.expiry, clock);
    let mut locks = keyspace.lock_one(keyspace.hash(key));
    let mut effects = Effects::default();
    let index = match options.beside {
        true => keyspace.beside(meta.db),
        false => meta.db,
    };
    let env = &options.env;
    let mut db = Db::new(keyspace, &mut locks, env, &mut effects, index, &[]);
    if db.remove_replaced(key) && !options.replace {
        let key = String::from_utf8_lossy(key);
        tracing::warn!("RDB has duplicated key '{key}' in DB {}", meta.db);
        return Err(Corrupt::Invalid("Duplicated key found in RDB file"));
    }
    db.insert(key, entry);
    loading.keys_loaded.fetch_add(1, Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_share_keys_speed_and_what_is_left() {
        let loading = Loading::default();
        loading.begin(4 << 30);
        loading.started.store(1000, Relaxed);
        assert_eq!(
            loading.describe(0, 1000),
            "Loading: 0% of 4.00G, 0 keys, 0B/s, about 1 seconds left"
        );
        loading.loaded_bytes.store(1 << 30, Relaxed);
        assert_eq!(
            loading.describe(7_000_000, 1008),
            "Loading: 25% of 4.00G, 7000000 keys, 128.00M/s, about 24 seconds left"
        );
    }
}
