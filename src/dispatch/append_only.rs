//! The append-only file, seen by the whole server: when it is on, who writes, how it is renewed.
//!
//! It is *off*, *waiting* (its first base is being written, commands go to a temporary increment)
//! or *on*. A renewal writes a new base from a cut; the stream goes to a new increment from the
//! cut on. The manifest names the new increment before the cut and the new base after it, so that
//! what it names is the whole data set at every moment.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::context::Shared;
use super::control::Request;
use super::durability::{snapshot_head, snapshot_options};
use crate::base::clock::{mono_us, unix_ms};
use crate::base::priority;
use crate::config::{AppendFsync, Settings, strerror};
use crate::keyspace::shards::LockSet;
use crate::persistence::aof::manifest::{Manifest, Place};
use crate::persistence::aof::writer::{Policy, Progress, Rotation, Sync, Writer};
use crate::persistence::replacement::Replacement;
use crate::persistence::snapshot;

/// Renewals by themselves that may fail one after the other before there are pauses between them.
const FAILURES: u64 = 3;
/// Longest pause between two tries, in minutes.
const LONGEST_PAUSE: u64 = 60;

/// The server must not go on: why is in the log.
#[derive(Debug)]
pub struct Fatal;

/// What logged it says no more.
impl From<()> for Fatal {
    fn from((): ()) -> Self {
        Self
    }
}

/// Whether commands are appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// No.
    #[default]
    Off,
    /// To a temporary file, until the first base is there.
    Waiting,
    /// Yes.
    On,
}

/// The state of the append-only file.
#[derive(Default)]
pub struct AppendOnly {
    mode: Mutex<Mode>,
    /// How far the writer is.
    pub progress: Arc<Progress>,
    pub(super) manifest: Mutex<Manifest>,
    writing: Mutex<Option<Writing>>,
    /// Replies wait for the disk: it is on, and `appendfsync` is `always`.
    holds: AtomicBool,
    /// A renewal is under way.
    pub rewriting: AtomicBool,
    /// A renewal is to begin when possible.
    pub scheduled: AtomicBool,
    /// The last renewal failed.
    pub last_failed: AtomicBool,
    /// Renewals so far.
    pub rewrites: AtomicU64,
    /// Renewals that failed one after the other.
    pub failures: AtomicU64,
    /// Unix seconds at which the present renewal began, plus 1; 0 without one.
    started: AtomicI64,
    /// Seconds that the last renewal took, plus 1; 0 before the first.
    last_seconds: AtomicI64,
    /// Bytes of all files but the one being written.
    older: AtomicU64,
    /// Bytes of all files after the last renewal.
    pub base_size: AtomicU64,
    pauses: Mutex<Pauses>,
}

/// The thread that writes.
struct Writing {
    rotation: Rotation,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Pauses between renewals that fail.
#[derive(Default)]
struct Pauses {
    minutes: u64,
    until: i64,
}

impl AppendOnly {
    /// Whether commands are appended.
    pub fn mode(&self) -> Mode {
        *self.mode.lock()
    }

    /// True when replies wait until what they tell of is on the disk.
    #[inline]
    pub fn holds(&self) -> bool {
        self.holds.load(Relaxed)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.older.load(Relaxed) + self.progress.size.load(Relaxed)
    }

    /// Seconds since the present renewal began; -1 without one.
    pub fn rewriting_seconds(&self) -> i64 {
        match self.started.load(Relaxed) {
            0 => -1,
            started => (unix_ms() / 1000 - (started - 1)).max(0),
        }
    }

    /// Seconds that the last renewal took; -1 before the first.
    pub fn last_rewrite_seconds(&self) -> i64 {
        self.last_seconds.load(Relaxed) - 1
    }

    fn set_mode(&self, mode: Mode, settings: &Settings) {
        *self.mode.lock() = mode;
        self.follow(settings);
    }

    /// Follows `appendfsync`.
    pub fn follow(&self, settings: &Settings) {
        let always = settings.appendfsync == AppendFsync::Always;
        self.holds.store(always && self.mode() == Mode::On, Relaxed);
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
fn policy(shared: &Shared) -> Policy {
    let settings = shared.config.settings();
    let busy =
        shared.append_only.rewriting.load(Relaxed) || shared.durability.saves.running.load(Relaxed);
    let sync = match settings.appendfsync {
        _ if busy && settings.no_appendfsync_on_rewrite => Sync::Never,
        AppendFsync::Always => Sync::Always,
        AppendFsync::Everysec => Sync::EverySecond,
        AppendFsync::No => Sync::Never,
    };
    Policy {
        sync,
        timestamps: settings.aof_timestamp_enabled,
    }
}

/// The thread that writes, until it is told to stop.
fn run_writer(shared: &Shared, mut writer: Writer, stop: &AtomicBool) {
    let mut failing = false;
    while !stop.load(Relaxed) {
        match writer.step(|| policy(shared)) {
            Ok(()) if failing => {
                failing = false;
                tracing::warn!("AOF write error looks solved. The server can write again.");
            }
            Ok(()) => {}
            Err(error) => {
                if !failing {
                    tracing::warn!("Error writing to the AOF file: {}", strerror(&error));
                }
                failing = true;
                exit_if_always(shared);
            }
        }
    }
    let last = writer
        .flush(policy(shared))
        .and_then(|()| writer.sync_now());
    if let Err(error) = last {
        tracing::warn!("Fail to fsync the AOF file: {}", strerror(&error));
        exit_if_always(shared);
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

/// A thread that will write, once it is told what. It ends when that never comes.
struct Prepared {
    start: mpsc::Sender<Writer>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Prepared {
    /// Starts the thread, with the priority of the calling one.
    fn new(shared: &Arc<Shared>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (start, begun) = mpsc::channel();
        let (thread_shared, thread_stop) = (Arc::clone(shared), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("aof".to_owned());
        let thread = thread.spawn(move || {
            if let Ok(writer) = begun.recv() {
                run_writer(&thread_shared, writer, &thread_stop);
            }
        })?;
        Ok(Self {
            start,
            stop,
            thread,
        })
    }

    /// Has the thread write.
    fn start(self, shared: &Shared, writer: Writer) {
        let rotation = writer.rotation();
        // It waits for nothing else.
        let _ = self.start.send(writer);
        *shared.append_only.writing.lock() = Some(Writing {
            rotation,
            stop: self.stop,
            thread: self.thread,
        });
    }
}

/// Has everything written and synced, and the thread that does it end.
fn stop_writer(shared: &Shared) {
    let writing = shared.append_only.writing.lock().take();
    if let Some(Writing { stop, thread, .. }) = writing {
        stop.store(true, Relaxed);
        if thread.join().is_err() {
            tracing::warn!("The thread that writes the AOF ended in a panic");
        }
        // Nobody writes any more, so nobody can fail.
        shared.append_only.progress.failing.store(false, Relaxed);
    }
}

/// Opens the file when the server starts, once the data set is loaded. An error is a reason not to
/// start, already logged.
pub fn open(shared: &Arc<Shared>) -> Result<(), Fatal> {
    let settings = shared.config.load();
    let place = place(&settings);
    let this = &shared.append_only;
    let result = (|| -> io::Result<()> {
        create_directory(&place)?;
        let mut manifest = this.manifest.lock().clone();
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
        if *this.manifest.lock() != manifest {
            // Not otherwise: a full disk is no reason not to start.
            place.store(&manifest)?;
        }
        let verb = if created { "Creating" } else { "Opening" };
        tracing::info!("{verb} AOF incr file {name} on server start");
        this.older.store(place.size(&manifest) - size, Relaxed);
        *this.manifest.lock() = manifest;
        let reader = shared.stream.file_reader();
        let writer = Writer::new(reader, file, size, Arc::clone(&this.progress));
        Prepared::new(shared)?.start(shared, writer);
        Ok(())
    })();
    this.set_mode(Mode::On, &settings);
    if this.base_size.load(Relaxed) == 0 {
        this.base_size.store(this.size(), Relaxed);
    }
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
        ..snapshot_options(settings)
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
            match (options.as_commands, settings.aof_timestamp_enabled) {
                (false, _) => snapshot_head(shared, true),
                (true, true) => format!("#TS:{}\r\n", unix_ms() / 1000).into_bytes(),
                (true, false) => Vec::new(),
            }
        },
        |cut| saves.begun(cut),
    )?;
    switched?;
    tracing::info!(
        "Successfully created the temporary AOF base file {}",
        temporary.display()
    );
    if shared.append_only.rewriting.load(Relaxed) {
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

/// Has a new base written in the background; false when one is being written, or another snapshot.
pub fn begin_rewrite(shared: &Shared) -> bool {
    let this = &shared.append_only;
    let busy = shared.durability.saves.running.load(Relaxed) || shared.durability.saves.is_busy();
    if busy || this.rewriting.swap(true, Relaxed) {
        return false;
    }
    shared.durability.saves.announce();
    this.scheduled.store(false, Relaxed);
    this.rewrites.fetch_add(1, Relaxed);
    this.started.store(unix_ms() / 1000 + 1, Relaxed);
    tracing::info!(
        "Background append only file rewriting started by pid {}",
        std::process::id()
    );
    shared.control.send(Request::Rewrite);
    true
}

/// The renewal that [`begin_rewrite`] announced, on a thread of its own.
pub fn run_rewrite(shared: &Arc<Shared>) {
    let this = &shared.append_only;
    let started = mono_us();
    let turn = shared.durability.saves.announced_turn();
    let result = rewrite(shared);
    let cancelled = shared.durability.saves.is_cancelled();
    drop(turn);
    match result {
        Ok(()) => {
            this.last_failed.store(false, Relaxed);
            this.failures.store(0, Relaxed);
            tracing::info!("Background AOF rewrite finished successfully");
        }
        Err(_) if cancelled => {
            tracing::warn!("Background AOF rewrite terminated by signal 10");
        }
        Err(error) => {
            this.last_failed.store(true, Relaxed);
            this.failures.fetch_add(1, Relaxed);
            tracing::warn!(
                "Background AOF rewrite terminated with error: {}",
                strerror(&error)
            );
        }
    }
    if this.mode() == Mode::Waiting {
        // Without a first base there is nothing to append to: the next try begins anew.
        stop_writer(shared);
        let place = place(&shared.config.load());
        let _ = std::fs::remove_file(place.path(&place.temporary_incr()));
        this.scheduled.store(true, Relaxed);
    }
    let seconds = (mono_us() - started) / 1_000_000;
    this.last_seconds.store(seconds as i64 + 1, Relaxed);
    this.started.store(0, Relaxed);
    this.rewriting.store(false, Relaxed);
}

fn rewrite(shared: &Arc<Shared>) -> io::Result<()> {
    let this = &shared.append_only;
    let settings = shared.config.load();
    let place = place(&settings);
    create_directory(&place)?;
    let mode = this.mode();
    let mut manifest = this.manifest.lock().clone();
    let incr = match mode {
        Mode::Waiting => Some(place.temporary_incr()),
        Mode::On => Some(manifest.new_incr(&place.name)),
        Mode::Off => None,
    };
    let mut file = None;
    if let Some(name) = &incr {
        file = Some(open_for_append(&place, name, true)?.0);
        if mode == Mode::On {
            place.store(&manifest)?;
            *this.manifest.lock() = manifest.clone();
        }
        tracing::info!("Creating AOF incr file {name} on background rewrite");
    }
    let base = manifest.new_base(&place.name, settings.aof_use_rdb_preamble);
    // Who writes the stream must not give way, so it is not started by a thread that does.
    let mut prepared = match mode {
        Mode::Waiting => Some(Prepared::new(shared)?),
        Mode::On | Mode::Off => None,
    };
    priority::give_way();
    write_base(shared, &settings, &place.path(&base), |_| {
        let Some(file) = file.take() else {
            return Ok(());
        };
        if mode == Mode::On {
            if let Some(writing) = &*this.writing.lock() {
                writing.rotation.switch(shared.stream.divide(), file);
            }
            return Ok(());
        }
        if let Some(prepared) = prepared.take() {
            let reader = shared.stream.file_reader();
            let writer = Writer::new(reader, file, 0, Arc::clone(&this.progress));
            prepared.start(shared, writer);
        }
        Ok(())
    })?;
    if mode == Mode::Waiting {
        let name = manifest.new_incr(&place.name);
        let temporary = place.temporary_incr();
        std::fs::rename(place.path(&temporary), place.path(&name))?;
        tracing::info!("Successfully renamed the temporary AOF incr file {temporary} into {name}");
    }
    manifest.retire_incr(usize::from(mode != Mode::Off));
    place.store(&manifest)?;
    if !settings.aof_disable_auto_gc
        && let Err(error) = place.delete_history(&mut manifest)
    {
        tracing::warn!("Cannot delete history files: {}", strerror(&error));
    }
    this.older.store(place.size_of(&base), Relaxed);
    this.base_size.store(this.size(), Relaxed);
    *this.manifest.lock() = manifest;
    if mode == Mode::Waiting {
        this.set_mode(Mode::On, &settings);
    }
    Ok(())
}

/// CONFIG SET aof-disable-auto-gc: files that were kept go when they are not to be kept any more.
/// While a base is written, they go with the next one.
pub fn follow_gc(shared: &Shared, settings: &Settings) {
    let this = &shared.append_only;
    // A renewal that begins now waits for the manifest.
    let mut manifest = this.manifest.lock();
    if settings.aof_disable_auto_gc || this.rewriting.load(Relaxed) {
        return;
    }
    if let Err(error) = place(settings).delete_history(&mut manifest) {
        tracing::warn!("Cannot delete history files: {}", strerror(&error));
    }
}

/// CONFIG SET appendonly yes.
pub fn turn_on(shared: &Shared, settings: &Settings) {
    let this = &shared.append_only;
    if this.mode() != Mode::Off {
        return;
    }
    this.set_mode(Mode::Waiting, settings);
    if !begin_rewrite(shared) {
        this.scheduled.store(true, Relaxed);
        tracing::warn!(
            "AOF was enabled but there is already another background operation. An AOF background \
             was scheduled to start when possible."
        );
    }
}

/// CONFIG SET appendonly no: what was appended stays, and is on the disk when this returns.
pub fn turn_off(shared: &Shared, settings: &Settings) {
    let this = &shared.append_only;
    if this.mode() == Mode::Off {
        return;
    }
    this.scheduled.store(false, Relaxed);
    if this.rewriting.load(Relaxed) {
        tracing::info!("Killing running AOF rewrite child: {}", std::process::id());
        shared.durability.saves.cancel_cut();
    }
    this.set_mode(Mode::Off, settings);
    stop_writer(shared);
}

/// The server is about to end: no renewal is to go on. False when that is not possible yet.
pub fn may_close(shared: &Shared, force: bool) -> bool {
    let this = &shared.append_only;
    if this.mode() == Mode::Off {
        return true;
    }
    if this.rewriting.load(Relaxed) {
        if this.mode() == Mode::Waiting {
            if !force {
                tracing::warn!("Writing initial AOF, can't exit");
                return false;
            }
            tracing::warn!("Writing initial AOF. Exit anyway.");
        }
        tracing::warn!("There is a child rewriting the AOF. Killing it!");
        shared.durability.saves.cancel_cut();
    }
    true
}

/// Ends the file in order when the server ends.
pub fn close(shared: &Shared) {
    if shared.append_only.mode() != Mode::Off {
        tracing::info!("Calling fsync() on the AOF file.");
        stop_writer(shared);
    }
}

/// Renews the file by itself when it has grown enough, or when that was asked for before.
pub fn rewrite_if_due(shared: &Shared) {
    let (this, settings) = (&shared.append_only, shared.config.settings());
    if this.rewriting.load(Relaxed)
        || shared.durability.saves.running.load(Relaxed)
        || shared.durability.loading.active.load(Relaxed)
    {
        return;
    }
    if this.scheduled.load(Relaxed) {
        if !is_limited(shared) {
            begin_rewrite(shared);
        }
        return;
    }
    let percentage = settings.auto_aof_rewrite_percentage as u64;
    let size = this.size();
    if this.mode() != Mode::On
        || percentage == 0
        || size <= settings.auto_aof_rewrite_min_size as u64
    {
        return;
    }
    let base = this.base_size.load(Relaxed).max(1);
    let growth = (size * 100 / base).saturating_sub(100);
    if growth >= percentage && !is_limited(shared) {
        tracing::info!("Starting automatic rewriting of AOF on {growth}% growth");
        begin_rewrite(shared);
    }
}

/// True while renewals that failed too often pause.
fn is_limited(shared: &Shared) -> bool {
    let mut pauses = shared.append_only.pauses.lock();
    if shared.append_only.failures.load(Relaxed) < FAILURES {
        *pauses = Pauses::default();
        return false;
    }
    let now = unix_ms() / 1000;
    if pauses.until != 0 {
        if now < pauses.until {
            return true;
        }
        pauses.until = 0;
        return false;
    }
    pauses.minutes = (pauses.minutes * 2).clamp(1, LONGEST_PAUSE);
    pauses.until = now + pauses.minutes as i64 * 60;
    tracing::warn!(
        "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {} \
         minutes",
        pauses.minutes
    );
    true
}
