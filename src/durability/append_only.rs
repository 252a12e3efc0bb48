//! The append-only file, seen by the whole server: what turns it on and off, who writes, how it is
//! rewritten.
//!
//! What it is doing is one state machine and one open file ([`crate::persistence::aof::AppendOnly`]); here
//! is what acts on both and on the server. A rewrite writes a new base from a cut; the stream goes
//! to a new increment from the cut on. The manifest names the new increment before the cut and the
//! new base after it, so that what it names is the whole data set at every moment.
//!
//! Lock order: shards, then the state, then the open file. Nothing is read, written or
//! synced while the state is locked, but for what a file that is turned off has not written yet.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use crate::base::clock::unix_ms;
use crate::base::priority;
use crate::config::{AppendFsync, Settings, strerror};
use crate::dispatch::blocking;
use crate::dispatch::context::Shared;
use crate::keyspace::shards::LockSet;
use crate::persistence::aof::life::{AtCut, Mode, Outcome, Pause, Rewrite};
use crate::persistence::aof::log::Closing;
use crate::persistence::aof::manifest::{Manifest, Place};
use crate::persistence::aof::writer::{Policy, Sync, Writer};
use crate::persistence::replacement::Replacement;
use crate::persistence::snapshot;

/// The server must not go on: why is in the log.
#[derive(Debug)]
pub struct Fatal;

/// What logged it says no more.
impl From<()> for Fatal {
    fn from((): ()) -> Self {
        Self
    }
}

pub(super) fn place(settings: &Settings) -> Place {
    Place {
        directory: PathBuf::from(settings.appenddirname.as_path()),
        name: settings.appendfilename.to_str().into_owned(),
    }
}

pub(super) fn create_directory(place: &Place) -> io::Result<()> {
    match std::fs::create_dir(&place.directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let directory = place.directory.display();
            let error_text = strerror(&error);
            tracing::warn!("Can't open or create append-only dir {directory}: {error_text}");
            Err(error)
        }
        _ => Ok(()),
    }
}

fn open_for_append(place: &Place, name: &str, truncate: bool) -> io::Result<(File, u64)> {
    // What is taken back after a write that failed in part must not leave a hole: always appended.
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(place.path(name))
        .inspect_err(|error| {
            tracing::warn!(
                "Can't open the append-only file {name}: {}",
                strerror(error)
            );
        })?;
    if truncate {
        file.set_len(0)?;
    }
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// How to write, by the parameters of the moment.
pub fn policy(shared: &Shared) -> Policy {
    let settings = shared.config.settings();
    let suspends = settings.no_appendfsync_on_rewrite
        && (shared.append_only.is_rewriting() || shared.durability.saves.running.load(Relaxed));
    let sync = match settings.appendfsync {
        _ if suspends => Sync::Never,
        AppendFsync::Always => Sync::Always,
        AppendFsync::Everysec => Sync::EverySecond,
        AppendFsync::No => Sync::Never,
    };
    Policy {
        sync,
        timestamps: settings.aof_timestamp_enabled,
    }
}

/// Starts the thread that serves the open file, once. It never ends: without a file it waits for one.
/// Not started by who writes a base: that one gives way to others.
fn start_serving(shared: &Shared) -> io::Result<()> {
    if !shared.append_only.claim_service() {
        return Ok(());
    }
    let serve = |shared: &Arc<Shared>| {
        let mut told = None;
        loop {
            let served = shared.append_only.log.serve(|| policy(shared));
            let durable = shared.append_only.durable();
            if durable != told {
                told = durable;
                tell_of_sync(shared);
            }
            if served.is_err() {
                exit_if_always(shared);
            }
        }
    };
    shared
        .threads
        .start("aof", serve)
        .inspect_err(|_| shared.append_only.give_up_service())
}

/// More is on the disk, or nothing is appended any more: WAITAOF waits for that, here or at our primary.
fn tell_of_sync(shared: &Shared) {
    blocking::acknowledged(shared);
    if shared.replication.upstream.follows() {
        shared.replication.upstream.ring_thread();
    }
}

/// After an error, where replies wait for the disk: they must never be sent.
fn exit_if_always(shared: &Shared) {
    if policy(shared).sync == Sync::Always {
        tracing::warn!(
            "Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting..."
        );
        std::process::exit(1);
    }
}

/// The policy changed: replies wait from now on, or do not wait any more.
pub fn follow_policy(shared: &Shared) {
    shared.append_only.log.demand();
}

/// Opens the file when the server starts, once the data set is loaded. An error is a reason not to
/// start, already logged.
pub fn open(shared: &Arc<Shared>) -> Result<(), Fatal> {
    let settings = shared.config.load();
    let place = place(&settings);
    let this = &shared.append_only;
    let result = (|| -> io::Result<()> {
        create_directory(&place)?;
        let named = this.life().manifest().clone();
        let mut manifest = named.clone();
        if manifest.is_empty() {
            let name = manifest.new_base(&place.name, settings.aof_use_rdb_preamble);
            tracing::info!("Creating AOF base file {name} on server start");
            let _turn = shared.durability.saves.turn();
            write_base(shared, &settings, &place.path(&name), |_| Ok(()))?;
        }
        let (name, created) = match manifest.incr.last() {
            Some(part) => (part.name.clone(), false),
            None => (manifest.new_incr(&place.name), true),
        };
        let (file, size) = open_for_append(&place, &name, false)?;
        if named != manifest {
            // Not otherwise: a full disk is no reason not to start.
            place.store(&manifest)?;
        }
        let verb = if created { "Creating" } else { "Opening" };
        tracing::info!("{verb} AOF incr file {name} on server start");
        let total = place.size(&manifest);
        let reader = shared.stream.file_reader();
        let writer = Writer::new(reader, file, size, Arc::clone(&this.log.progress));
        this.log.open(writer);
        this.life().opened(manifest, total - size, total);
        start_serving(shared)
    })();
    result.map_err(|error| {
        tracing::warn!("Cannot open the append-only file: {}", strerror(&error));
        Fatal
    })
}

/// Writes a base from a cut; `at_cut` runs under all locks.
fn write_base(
    shared: &Shared,
    settings: &Settings,
    target: &std::path::Path,
    at_cut: impl FnOnce(&mut LockSet<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = PathBuf::from(format!("temp-rewriteaof-bg-{}.aof", std::process::id()));
    let incremental = settings.aof_rewrite_incremental_fsync;
    let mut file = Replacement::create(&temporary, target, incremental)?;
    let options = snapshot::Options {
        as_commands: !settings.aof_use_rdb_preamble,
        ..snapshot::Options::of(settings)
    };
    let mut switched = Ok(());
    let saves = &shared.durability.saves;
    snapshot::write(
        &shared.keyspace,
        options,
        &saves.progress,
        &mut file,
        |locks| {
            switched = at_cut(locks);
            let functions = shared.scripts.libraries.now().sources();
            match options.as_commands {
                false => shared.durability.head(&functions, true),
                true => head_as_commands(&functions, settings.aof_timestamp_enabled),
            }
        },
        |cut| saves.begun(cut),
    )?;
    switched?;
    tracing::info!(
        "Successfully created the temporary AOF base file {}",
        temporary.display()
    );
    if shared.append_only.is_rewriting() {
        tracing::info!("Background AOF rewrite terminated with success");
    }
    file.commit()?;
    tracing::info!(
        "Successfully renamed the temporary AOF base file {} into {}",
        temporary.display(),
        target.file_name().unwrap_or_default().display()
    );
    Ok(())
}

/// What stands before the keys of a base that is written as commands.
fn head_as_commands(functions: &[Vec<u8>], with_time: bool) -> Vec<u8> {
    let mut head = match with_time {
        true => format!("#TS:{}\r\n", unix_ms() / 1000).into_bytes(),
        false => Vec::new(),
    };
    for source in functions {
        crate::resp::write::request(&mut head, &[b"FUNCTION", &b"LOAD"[..], source]);
    }
    head
}

/// Has a new base written in the background; false when one is being written, or another snapshot.
pub fn begin_rewrite(shared: &Shared) -> bool {
    let saves = &shared.durability.saves;
    if saves.running.load(Relaxed) || saves.is_busy() {
        return false;
    }
    let Some(rewrite) = shared.append_only.begin() else {
        return false;
    };
    saves.announce();
    tracing::info!(
        "Background append only file rewriting started by pid {}",
        std::process::id()
    );
    // Given back by whichever comes to run: the thread, or who could not start it.
    let rewrite = Arc::new(Mutex::new(Some(rewrite)));
    let taken = Arc::clone(&rewrite);
    let started = shared.threads.start("aof-rewrite", move |shared| {
        if let Some(rewrite) = taken.lock().take() {
            run_rewrite(shared, rewrite);
        }
    });
    if let Err(error) = started {
        let error = strerror(&error);
        tracing::warn!("Can't rewrite append only file in background: {error}");
        if let Some(rewrite) = rewrite.lock().take() {
            // Nothing was opened for it.
            let policy = || policy(shared);
            let _ = shared.append_only.end(rewrite, Outcome::Failure, policy);
        }
        return false;
    }
    true
}

/// A rewrite, on a thread of its own.
fn run_rewrite(shared: &Shared, rewrite: Rewrite) {
    let turn = shared.durability.saves.turn_to_rewrite();
    let result = write_anew(shared, &rewrite);
    let cancelled = shared.durability.saves.is_cancelled();
    drop(turn);
    let outcome = match result {
        Ok(()) => {
            tracing::info!("Background AOF rewrite finished successfully");
            Outcome::Success
        }
        Err(error) if cancelled || error.kind() == io::ErrorKind::Interrupted => {
            tracing::warn!("Background AOF rewrite terminated by signal 10");
            Outcome::Cancelled
        }
        Err(error) => {
            tracing::warn!(
                "Background AOF rewrite terminated with error: {}",
                strerror(&error)
            );
            Outcome::Failure
        }
    };
    if outcome != Outcome::Success && rewrite.mode() == Mode::Waiting {
        // There is no first base to append to. It may not have come to this file.
        let place = place(&shared.config.load());
        let _ = std::fs::remove_file(place.path(&place.temporary_incr()));
    }
    let closing = shared.append_only.end(rewrite, outcome, || policy(shared));
    if let Some(closing) = closing {
        finish(shared, closing);
    }
}

/// Syncs a file that was taken out of use.
fn finish(shared: &Shared, closing: Closing) {
    if let Err(error) = shared.append_only.log.finish(closing) {
        tracing::warn!("Fail to fsync the AOF file: {}", strerror(&error));
    }
}

fn stale() -> io::Error {
    io::ErrorKind::Interrupted.into()
}

fn write_anew(shared: &Shared, rewrite: &Rewrite) -> io::Result<()> {
    let this = &shared.append_only;
    let settings = shared.config.load();
    let place = place(&settings);
    create_directory(&place)?;
    let mut manifest = this.life().manifest().clone();
    let incr = match rewrite.mode() {
        Mode::Waiting => Some(place.temporary_incr()),
        Mode::On => Some(manifest.new_incr(&place.name)),
        Mode::Off => None,
    };
    let mut file = None;
    if let Some(name) = &incr {
        file = Some(open_for_append(&place, name, true)?.0);
        if rewrite.mode() == Mode::On {
            place.store(&manifest)?;
            this.life().named(rewrite, manifest.clone());
        }
        tracing::info!("Creating AOF incr file {name} on background rewrite");
    }
    let base = manifest.new_base(&place.name, settings.aof_use_rdb_preamble);
    priority::give_way();
    write_base(shared, &settings, &place.path(&base), |_| {
        at_cut(shared, rewrite, &mut file)
    })?;
    if !this.life().wants(rewrite) {
        // The base is of no use, nor is what was appended since.
        let _ = std::fs::remove_file(place.path(&base));
        return Err(stale());
    }
    if rewrite.mode() == Mode::Waiting {
        let name = manifest.new_incr(&place.name);
        let temporary = place.temporary_incr();
        std::fs::rename(place.path(&temporary), place.path(&name))?;
        tracing::info!("Successfully renamed the temporary AOF incr file {temporary} into {name}");
    }
    manifest.retire_incr(usize::from(rewrite.mode() != Mode::Off));
    place.store(&manifest)?;
    let history = manifest.clone();
    let size = place.size_of(&base);
    this.life()
        .committed(rewrite, manifest, size, this.open_size());
    // As it is set by now.
    if !shared.config.settings().aof_disable_auto_gc {
        // Before the lock: the disk may take its time.
        let cleaned = delete_history(&place, history);
        this.life().read(cleaned);
    }
    Ok(())
}

/// What happens with the stream at the cut of a rewrite, under the locks of all shards.
fn at_cut(shared: &Shared, rewrite: &Rewrite, file: &mut Option<File>) -> io::Result<()> {
    let this = &shared.append_only;
    // Until it is done nobody turns the file on or off.
    let life = this.life();
    let step = life.at_cut(rewrite);
    match (step, file.take()) {
        (AtCut::Stale, _) => return Err(stale()),
        (AtCut::Open, Some(file)) => {
            let reader = shared.stream.file_reader();
            let progress = Arc::clone(&this.log.progress);
            this.log.open(Writer::new(reader, file, 0, progress));
        }
        (AtCut::Switch, Some(file)) => this.log.switch(file, shared.stream.divide()),
        _ => {}
    }
    Ok(())
}

/// Deletes files that are history; the manifest without those that are gone.
fn delete_history(place: &Place, mut manifest: Manifest) -> Manifest {
    if let Err(error) = place.delete_history(&mut manifest) {
        tracing::warn!("Cannot delete history files: {}", strerror(&error));
    }
    manifest
}

/// CONFIG SET aof-disable-auto-gc: files that were kept go when they are not to be kept any more, on a
/// thread of its own. While a base is written, they go with the next one.
pub fn follow_gc(shared: &Shared, settings: &Settings) {
    if settings.aof_disable_auto_gc {
        return;
    }
    let Some(manifest) = shared.append_only.life().clean() else {
        return;
    };
    let place = place(settings);
    shared.threads.start_or_do("aof-clean", move |shared| {
        let cleaned = delete_history(&place, manifest);
        shared.append_only.life().cleaned(cleaned);
    });
}

/// CONFIG SET appendonly yes.
pub fn turn_on(shared: &Shared) {
    if !shared.append_only.life().turn_on() {
        return;
    }
    if let Err(error) = start_serving(shared) {
        tracing::warn!("Cannot start the thread of the AOF: {}", strerror(&error));
    }
    if !begin_rewrite(shared) {
        shared.append_only.life().retry();
        tracing::warn!(
            "AOF was enabled but there is already another background operation. An AOF background \
             was scheduled to start when possible."
        );
    }
}

/// CONFIG SET appendonly no: what was appended stays. It is handed to the system when this returns;
/// the disk is not waited for.
pub fn turn_off(shared: &Shared) {
    let this = &shared.append_only;
    let mut life = this.life();
    let rewriting = life.status().rewriting_since.is_some();
    if !life.turn_off() {
        return;
    }
    // Before anybody can turn it on again.
    let closing = this.log.close(|| policy(shared));
    drop(life);
    if rewriting {
        tracing::info!("Killing running AOF rewrite child: {}", std::process::id());
        shared.durability.saves.cancel_cut();
    }
    if let Some(closing) = closing {
        shared
            .threads
            .start_or_do("aof-close", move |shared| finish(shared, closing));
    }
    // Who waits for what is on the disk waits in vain.
    blocking::acknowledged(shared);
}

/// The server is about to end: no rewrite is to go on. False when that is not possible yet: what was
/// acknowledged would be lost, as there is no file that has a base (Redis ends there if the base has failed and is
/// to be written again), or as it cannot be written (there Redis ends too).
pub fn may_close(shared: &Shared, force: bool) -> bool {
    let status = shared.append_only.status();
    if status.mode == Mode::Off {
        return true;
    }
    if status.mode == Mode::Waiting {
        if !force {
            tracing::warn!("Writing initial AOF, can't exit");
            return false;
        }
        tracing::warn!("Writing initial AOF. Exit anyway.");
    }
    if let Err(error) = shared.append_only.log.flush(|| policy(shared)) {
        tracing::warn!("Error writing to the AOF file: {}", strerror(&error));
        if !force {
            tracing::warn!("Error trying to write the AOF file, can't exit.");
            return false;
        }
    }
    if status.rewriting_since.is_some() {
        tracing::warn!("There is a child rewriting the AOF. Killing it!");
        shared.durability.saves.cancel_cut();
    }
    true
}

/// Ends the file in order when the server ends.
pub fn close(shared: &Shared) {
    let log = &shared.append_only.log;
    if shared.append_only.mode() == Mode::Off {
        return;
    }
    tracing::info!("Calling fsync() on the AOF file.");
    if let Some(closing) = log.close(|| policy(shared))
        && let Err(error) = log.finish(closing)
    {
        tracing::warn!("Fail to fsync the AOF file: {}", strerror(&error));
        exit_if_always(shared);
    }
}

/// A write of the file that takes this long, in milliseconds, is told of in the log.
const LONG_WRITE_MS: i64 = 2000;

/// Tells of a write that hangs, and with it everybody whose reply waits for the file.
pub fn tell_of_stall(shared: &Shared) {
    let ms = shared.append_only.log.writing_ms();
    if ms >= LONG_WRITE_MS {
        tracing::warn!(
            "Writing the AOF file is taking too long (disk is busy?): clients wait for their \
             replies since {} seconds",
            ms / 1000
        );
    }
}

/// Rewrites the file by itself when it has grown enough, or when that was asked for before.
pub fn rewrite_if_due(shared: &Shared) {
    let (this, settings) = (&shared.append_only, shared.config.settings());
    let status = this.status();
    if status.rewriting_since.is_some()
        || shared.durability.saves.running.load(Relaxed)
        || shared.durability.loading.is_under_way()
    {
        return;
    }
    if status.scheduled {
        if !is_paused(shared) {
            begin_rewrite(shared);
        }
        return;
    }
    let percentage = settings.auto_aof_rewrite_percentage as u64;
    let size = this.size();
    if status.mode != Mode::On
        || percentage == 0
        || size <= settings.auto_aof_rewrite_min_size as u64
    {
        return;
    }
    let growth = (size * 100 / status.base_size.max(1)).saturating_sub(100);
    if growth >= percentage && !is_paused(shared) {
        tracing::info!("Starting automatic rewriting of AOF on {growth}% growth");
        begin_rewrite(shared);
    }
}

/// True while rewrites that failed too often pause.
fn is_paused(shared: &Shared) -> bool {
    match shared.append_only.life().pause(unix_ms() / 1000) {
        Pause::None => false,
        Pause::On => true,
        Pause::Begun(minutes) => {
            tracing::warn!(
                "Background AOF rewrite has repeatedly failed and triggered the limit, will retry \
                 in {minutes} minutes"
            );
            true
        }
    }
}

/// True when commands are appended, or are to be.
pub fn is_on(shared: &Shared) -> bool {
    shared.append_only.mode() != Mode::Off
}
