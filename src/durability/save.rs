//! Saving and loading, seen by the whole server: what is written when, and who is told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::base::{clock, priority};
use crate::config::{Settings, strerror};
use crate::dispatch::blocking;
use crate::dispatch::chore::Chore;
use crate::dispatch::context::{ServerCtx, Shared, env_of};
use crate::keyspace::db::{Db, Effects};
use crate::keyspace::shards::LockSet;
use crate::persistence::layouts;
use crate::persistence::load::{self, About};
use crate::persistence::rdb::file::Failure;
use crate::persistence::rdb::read::Corrupt;
use crate::persistence::replacement::Replacement;
use crate::persistence::snapshot;
use crate::propagation::Place;

/// Seconds between two attempts to save by itself after one that failed.
const RETRY_SECONDS: i64 = 5;

/// Writes the dump file and waits for it; false when that failed, which is in the log. It waits for
/// a snapshot that is under way, too: for callers that serve nobody.
pub fn save(shared: &Shared) -> bool {
    let _turn = shared.durability.saves.turn();
    save_in_turn(shared, || {})
}

/// As [`save`], for the server's end: a snapshot that is under way is cancelled, not waited for.
pub fn save_at_end(shared: &Shared) -> bool {
    let _turn = shared.durability.saves.take_over();
    save_in_turn(shared, || {})
}

/// The file that SAVE's clients wait for.
pub static SAVE: Chore = Chore {
    name: "save",
    queue: |shared| &shared.chores.save,
    run: |shared| match save(shared) {
        true => b"+OK\r\n".to_vec(),
        false => b"-ERR\r\n".to_vec(),
    },
};

/// The file that FLUSHALL's clients wait for, which have their reply in their output.
pub static REPLACE_FLUSHED: Chore = Chore {
    name: "flush-save",
    queue: |shared| &shared.chores.flush_save,
    run: |shared| {
        replace_flushed(shared);
        Vec::new()
    },
};

/// Where a dump file is written before it is complete: a snapshot, and an empty one for FLUSHALL.
fn temporaries() -> [PathBuf; 2] {
    ["temp-", "temp-flushed-"].map(|name| format!("{name}{}.rdb", std::process::id()).into())
}

/// Removes a dump file that is not complete, when the process is about to end at once.
pub fn remove_temporary() {
    for file in temporaries() {
        // There is none unless a save was under way.
        let _ = std::fs::remove_file(file);
    }
}

/// `at_cut` runs once a cut is taken, if it comes to that.
fn save_in_turn(shared: &Shared, at_cut: impl Fn()) -> bool {
    let saves = &shared.durability.saves;
    let result = loop {
        match write_file(shared, &shared.config.load(), &at_cut) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => break Err(error),
            Err(_) if saves.is_cancelled() => return false,
            // FLUSHALL came between its cut and its end.
            Err(_) => {}
            Ok(()) => break Ok(()),
        }
    };
    tell_saved(&result);
    result.is_ok()
}

fn tell_saved(result: &io::Result<()>) {
    match result {
        Ok(()) => tracing::info!("DB saved on disk"),
        Err(error) => tracing::warn!("Write error saving DB on disk: {}", strerror(error)),
    }
}

/// Puts a dump without keys in the place of one from before the last FLUSHALL. That is the data set
/// as of then: it takes neither a cut nor the turn of those who take one, who may be long at it.
fn replace_flushed(shared: &Shared) {
    let settings = shared.config.load();
    let [_, temporary] = temporaries();
    let replaced = shared.durability.saves.replace_flushed(|| {
        let mut file = create(&settings, &temporary)?;
        let head = shared
            .durability
            .head(&shared.scripts.libraries.now().sources(), false);
        snapshot::write_head(snapshot::Options::of(&settings), &mut file, &head)?;
        file.commit()
    });
    match replaced {
        Ok(false) => {}
        done => tell_saved(&done.map(drop)),
    }
}

/// A new dump file, to be put in its place when it is complete.
fn create(settings: &Settings, temporary: &Path) -> io::Result<Replacement> {
    let target = settings.dbfilename.as_path();
    let incremental = settings.rdb_save_incremental_fsync;
    Replacement::create(temporary, target, incremental).inspect_err(|error| {
        let directory = std::env::current_dir().unwrap_or_default();
        tracing::warn!(
            "Failed opening the temp RDB file {} (in server root dir {}) for saving: {}",
            temporary.display(),
            directory.display(),
            strerror(error)
        );
    })
}

/// Where in which replication stream the data set is, if anybody may go on there. Under the locks of
/// all shards.
fn place(shared: &Shared) -> Option<Place> {
    let replication = &shared.replication;
    (replication.is_fed() && replication.is_known()).then(|| Place {
        id: replication.id(),
        offset: shared.stream.offset(),
        selected: shared.stream.selected(),
    })
}

fn write_file(shared: &Shared, settings: &Settings, taken: &impl Fn()) -> io::Result<()> {
    let saves = &shared.durability.saves;
    let [temporary, _] = temporaries();
    let mut file = create(settings, &temporary)?;
    let mut moment = (0, 0);
    let at_cut = |_: &mut LockSet<'_>| {
        moment = (saves.flushes(), shared.changes());
        let place = place(shared);
        let functions = shared.scripts.libraries.now().sources();
        shared.durability.head_at(place.as_ref(), &functions)
    };
    let options = snapshot::Options::of(settings);
    snapshot::write(
        &shared.keyspace,
        options,
        &saves.progress,
        &mut file,
        at_cut,
        |cut| {
            saves.begun(cut);
            taken();
        },
    )?;
    saves.put_in_place(moment, || file.commit())
}

/// Has a dump file written in the background; false when one is being written.
pub fn begin_save(shared: &Shared) -> bool {
    let saves = &shared.durability.saves;
    if saves.running.swap(true, Relaxed) {
        return false;
    }
    saves.announce();
    saves.awaited.store(true, Relaxed);
    let now = clock::unix_ms() / 1000;
    saves.scheduled.store(false, Relaxed);
    saves.last_attempt.store(now, Relaxed);
    saves.started.store(now, Relaxed);
    tracing::info!("Background saving started by pid {}", std::process::id());
    let started = shared.threads.start("bgsave", |shared| {
        priority::give_way();
        run_save(shared);
    });
    if let Err(error) = started {
        tracing::warn!("Can't save in background: {}", strerror(&error));
        saves.last_ok.store(false, Relaxed);
        saves.ended();
    }
    true
}

/// The save that [`begin_save`] announced, on a thread of its own.
fn run_save(shared: &Shared) {
    let saves = &shared.durability.saves;
    let started = clock::mono_us();
    let turn = saves.announced_turn();
    let ok = save_in_turn(shared, || saves.awaited.store(false, Release));
    let cancelled = saves.is_cancelled();
    drop(turn);
    if ok {
        tracing::info!("Background saving terminated with success");
    } else if cancelled {
        tracing::warn!("Background saving terminated by signal 10");
    } else {
        tracing::warn!("Background saving error");
    }
    // Who cancelled it did not fail.
    if !cancelled {
        saves.last_ok.store(ok, Relaxed);
    }
    let seconds = (clock::mono_us() - started) / 1_000_000;
    saves.last_seconds.store(seconds as i64, Relaxed);
    saves.ended();
}

/// Saves by itself when a save point is reached, or when a save was scheduled.
pub fn save_if_due(shared: &Shared) {
    let (saves, settings) = (&shared.durability.saves, shared.config.settings());
    if saves.running.load(Relaxed) || shared.durability.loading.is_under_way() {
        return;
    }
    let now = clock::unix_ms() / 1000;
    let may_try =
        saves.last_ok.load(Relaxed) || now - saves.last_attempt.load(Relaxed) > RETRY_SECONDS;
    let (changes, age) = (
        shared.unsaved_changes(),
        now - saves.last_success.load(Relaxed),
    );
    let due = settings
        .save
        .iter()
        .find(|point| changes >= u64::from(point.changes) && age > point.seconds as i64 && may_try);
    if let Some(point) = due {
        tracing::info!(
            "{} changes in {} seconds. Saving...",
            point.changes,
            point.seconds
        );
        begin_save(shared);
    } else if saves.scheduled.load(Relaxed) && may_try {
        begin_save(shared);
    }
}

/// Loads the dump file into the keyspace; false when there is no file. Whoever calls it ends the loading,
/// once all that comes with the data is there.
///
/// # Errors
/// Why the file cannot be loaded; nothing is logged yet.
pub fn load_file(shared: &Shared, replace: bool) -> Result<bool, Failure> {
    let settings = shared.config.load();
    let file = match std::fs::File::open(settings.dbfilename.as_path()) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let loading = &shared.durability.loading;
    loading.begin(file.metadata().map_or(0, |m| m.len()));
    // A replica's primary removes them, or gives them more time further on in the stream.
    let drop_expired = !shared.replication.upstream.follows();
    let mut options = load_options(&settings, replace, drop_expired);
    let backlog = settings.repl_backlog_size.unsigned_abs();
    options.tell_left_out = usize::try_from(backlog).unwrap_or(usize::MAX);
    let loaded = load::file(&shared.keyspace, file, &options, loading)?;
    take_functions(shared, &loaded.functions, Taking::Beside { replace })?;
    let About {
        id,
        offset,
        selected,
    } = loaded.about;
    let left_out = loaded.left_out.all();
    // More than the backlog has room for: nobody could go on behind them.
    let history = id.zip(offset).filter(|_| left_out.is_some());
    *shared.durability.left_out.lock() = left_out.unwrap_or_default();
    *shared.durability.place.lock() = history.and_then(|(id, offset)| {
        Some(Place {
            id,
            offset: u64::try_from(offset).ok()?,
            selected: selected.unwrap_or(0),
        })
    });
    shared
        .durability
        .saves
        .saved_changes
        .store(shared.changes(), Relaxed);
    Ok(true)
}

/// What becomes of the libraries of functions that are there when a file is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// They go.
    InPlace,
    /// They stay, but for those that a library of the file is to `replace`.
    Beside {
        /// The file's take the place of others of their names; else it cannot be loaded.
        replace: bool,
    },
}

/// Takes over the libraries of functions that a file held.
pub fn take_functions(shared: &Shared, sources: &[Vec<u8>], taking: Taking) -> io::Result<()> {
    let failed = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        tracing::warn!("Failed loading a library of functions: {text}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    match shared.scripts.engine() {
        Some(engine) => {
            let (adds, replace) = match taking {
                Taking::InPlace => (false, false),
                Taking::Beside { replace } => (true, replace),
            };
            let taken = shared
                .scripts
                .libraries
                .take(engine, sources, (adds, replace));
            taken.map_err(|text| failed(&text))
        }
        None if sources.is_empty() => Ok(()),
        None => Err(failed(b"no engine runs functions")),
    }
}

/// Loads the data set when the server starts. The process ends when that fails: it must not write
/// over files that it could not read.
pub fn load_at_start(shared: &Shared) {
    let started = clock::mono_us();
    match load_file(shared, false) {
        Ok(true) => tracing::info!(
            "DB loaded from disk: {:.3} seconds",
            (clock::mono_us() - started) as f64 / 1e6
        ),
        Ok(false) => {}
        Err(failure) => {
            explain(shared, &failure);
            if !matches!(failure, Failure::Corrupt(_) | Failure::Checksum(..)) {
                let reason = match failure {
                    Failure::Io(error) => strerror(&error),
                    _ => strerror(&rustix::io::Errno::INVAL.into()),
                };
                tracing::warn!("Fatal error loading the DB: {reason}. Exiting.");
            }
            std::process::exit(1);
        }
    }
}

/// Logs why a file could not be loaded.
pub fn explain(shared: &Shared, failure: &Failure) {
    let offset = shared.durability.loading.loaded_bytes.load(Relaxed);
    let corrupt = match failure {
        Failure::Corrupt(corrupt) => corrupt,
        Failure::Checksum(..) => {
            tracing::warn!("{failure}");
            tracing::warn!(
                "Internal error in RDB reading offset {offset}, function at rdb -> RDB CRC error"
            );
            return tracing::warn!("Terminating server after rdb file reading failure.");
        }
        Failure::Io(error) => return tracing::warn!("{}", strerror(error)),
        other => return tracing::warn!("{other}"),
    };
    if let Corrupt::Unsupported(text) = corrupt
        && text.starts_with("FATAL")
    {
        return tracing::warn!("{text}");
    }
    if let Corrupt::Short = corrupt {
        tracing::warn!("Short read or OOM loading DB. Unrecoverable error, aborting now.");
    }
    tracing::warn!("Internal error in RDB reading offset {offset}, function at rdb -> {corrupt}");
    // What redis-check-rdb would say of the file.
    tracing::warn!("--- RDB ERROR DETECTED ---");
    tracing::warn!("[offset {offset}] {corrupt}");
    tracing::warn!("Terminating server after rdb file reading failure.");
}

/// Replaces the data set by what a dump file holds, or (`merge`) adds that; false when that
/// failed. Called without locks.
pub fn reload(shared: &Shared, flush: bool, merge: bool) -> bool {
    let loading = &shared.durability.loading;
    loading.begin(0);
    if flush {
        empty(shared, false);
    }
    let result = load_file(shared, merge);
    loading.end();
    // The stream goes on, wherever that was.
    *shared.durability.place.lock() = None;
    shared.durability.left_out.lock().clear();
    if let Err(failure) = &result {
        explain(shared, failure);
    }
    result.is_ok()
}

/// Removes all keys and libraries of functions, telling nobody but those who wait and watch; keys are freed in
/// the background when `lazy`.
pub fn empty(shared: &Shared, lazy: bool) {
    shared.scripts.libraries.clear();
    with_all_shards(shared, |db| {
        for index in 0..shared.keyspace.databases() {
            if shared.keyspace.is_used(index) {
                db.flush(index, lazy);
            }
        }
    });
}

/// Does what no command does on all databases. Whoever waits for keys is served by the next command
/// that touches them.
fn with_all_shards(shared: &Shared, work: impl FnOnce(&mut Db<'_, '_>)) {
    let settings = shared.config.load();
    let mut env = env_of(&settings, clock::Now::read());
    env.notify = 0;
    let mut effects = Effects::default();
    let mut locks = shared.keyspace.lock_all();
    work(&mut Db::new(
        &shared.keyspace,
        &mut locks,
        &env,
        &mut effects,
        0,
        &[],
    ));
    drop(locks);
    effects.free(&shared.keyspace.lazyfree);
    if effects.take_notices() {
        crate::dispatch::events::deliver(shared);
    }
}

/// The file is out of date at once: FLUSHALL, which has told
/// [`crate::persistence::save::Saves::flushed`]. If there are save
/// points, its client has its reply when another file is in place, as Redis writes one in between.
pub fn reset_file(ctx: &mut ServerCtx<'_, '_>) {
    if ctx.shared.config.settings().save.is_empty() {
        return;
    }
    if ctx.worker.source.is_obeyed() {
        // There is nothing to lose: the log has it.
        ctx.shared.durability.saves.scheduled.store(true, Relaxed);
    } else {
        blocking::park_for_chore(ctx, &REPLACE_FLUSHED);
    }
}

/// How files are loaded, by the parameters.
pub fn load_options(settings: &Settings, replace: bool, drop_expired: bool) -> load::Options {
    let mut env = env_of(settings, clock::Now::read());
    // Nobody is told of keys that were there before.
    env.notify = 0;
    load::Options {
        layouts: layouts::all(settings),
        env,
        drop_expired,
        tell_left_out: 0,
        replace,
        checksum: settings.rdbchecksum,
        beside: false,
        key_delay_us: settings.key_load_delay.into(),
        threads: settings.io_threads.max(1) as usize,
    }
}

/// Puts what was loaded beside the data set in its place; the old one is freed in the background.
pub fn exchange_with_beside(shared: &Shared) {
    with_all_shards(shared, |db| {
        for index in 0..shared.keyspace.databases() {
            let beside = shared.keyspace.beside(index);
            if shared.keyspace.is_used(index) || shared.keyspace.is_used(beside) {
                db.swap(index, beside);
            }
        }
    });
    empty_beside(shared);
}

/// Drops what was loaded beside the data set.
pub fn empty_beside(shared: &Shared) {
    with_all_shards(shared, |db| {
        for index in 0..shared.keyspace.databases() {
            let beside = shared.keyspace.beside(index);
            if shared.keyspace.is_used(beside) {
                db.flush(beside, true);
            }
        }
    });
}
