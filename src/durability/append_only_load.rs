//! What the append-only file holds becomes the data set: when the server starts, and when it is told
//! to load again. Every file of the manifest in turn, a dump or commands; what is torn, missing or
//! not understood is named in the log, and nothing is written over it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::append_only::{Fatal, create_directory, open, place};
use super::playback::{self, Played};
use super::save;
use crate::base::clock::mono_us;
use crate::config::{Settings, strerror};
use crate::dispatch::context::Shared;
use crate::persistence::aof::manifest::{self, Invalid, Manifest};
use crate::persistence::load;
use crate::propagation::Place;

/// Reads the manifest when the server starts, and takes over the single file of an old server. An
/// error is a reason not to start, already logged.
pub fn read_manifest(shared: &Shared) -> Result<(), Fatal> {
    let settings = shared.config.load();
    let place = place(&settings);
    let mut manifest = match place.load() {
        // What stands in the way of the directory matters when it is to be written.
        Err(Invalid::Io(error)) if error.kind() == io::ErrorKind::NotADirectory => {
            Manifest::default()
        }
        loaded => loaded.map_err(|error| explain(&error))?,
    };
    let old = PathBuf::from(&place.name);
    let base_is_old = manifest.base.as_ref().is_none_or(|b| b.name == place.name);
    let fresh = manifest.is_empty() || (base_is_old && manifest.incr.is_empty());
    if settings.appendonly && old.is_file() && fresh && !place.path(&place.name).exists() {
        adopt(&place, &mut manifest, &old).map_err(|error| {
            tracing::warn!(
                "Error trying to move the old AOF file {} into dir {}: {}",
                place.name,
                place.directory.display(),
                strerror(&error)
            );
        })?;
    }
    shared.append_only.life().read(manifest);
    Ok(())
}

fn adopt(place: &manifest::Place, manifest: &mut Manifest, old: &Path) -> io::Result<()> {
    create_directory(place)?;
    manifest.adopt(&place.name);
    place.store(manifest)?;
    std::fs::rename(old, place.path(&place.name))?;
    tracing::info!(
        "Successfully migrated an old-style AOF file ({}) into the AOF directory ({}).",
        place.name,
        place.directory.display()
    );
    Ok(())
}

fn explain(error: &Invalid) {
    tracing::warn!("\n*** FATAL AOF MANIFEST FILE ERROR ***\n");
    match error {
        Invalid::Io(error) => {
            tracing::warn!(
                "Fatal error: can't open the AOF manifest: {}",
                strerror(error)
            );
        }
        Invalid::Content { reason, line } => {
            if let Some((number, text)) = line {
                tracing::warn!("Reading the manifest file, at line {number}\n");
                tracing::warn!(">>> '{text}'\n");
            }
            tracing::warn!("{reason}\n");
        }
    }
}

/// Bytes of the files that [`load_or_exit`] will read; 0 when there are none.
pub fn bytes_to_load(shared: &Shared) -> u64 {
    let settings = shared.config.load();
    if settings.appendonly {
        let manifest = shared.append_only.life().manifest().clone();
        return place(&settings).size(&manifest);
    }
    std::fs::metadata(settings.dbfilename.as_path()).map_or(0, |file| file.len())
}

/// Loads the data set when the server starts, from whichever files it is in, and opens the
/// append-only file. The process ends when that fails: it must not write over files that it could
/// not read.
pub fn load_or_exit(shared: &Arc<Shared>) {
    if !shared.config.load().appendonly {
        save::load_at_start(shared);
        go_on_in_stream(shared);
        return;
    }
    let started = mono_us();
    let Ok(found) = load(shared) else {
        std::process::exit(1);
    };
    if found {
        let seconds = (mono_us() - started) as f64 / 1e6;
        tracing::info!("DB loaded from append only file: {seconds:.3} seconds");
    }
    shared
        .durability
        .saves
        .saved_changes
        .store(shared.changes(), Relaxed);
    go_on_in_stream(shared);
    if open(shared).is_err() {
        std::process::exit(1);
    }
}

/// What was loaded tells where in which replication stream it is: whoever has the same, or less, may go
/// on there, and so may this server where it follows a primary.
fn go_on_in_stream(shared: &Shared) {
    let left_out = std::mem::take(&mut *shared.durability.left_out.lock());
    let Some(place) = shared.durability.place.lock().take() else {
        return;
    };
    let size = shared.config.settings().repl_backlog_size.unsigned_abs();
    let names = shared.replication.go_on(&shared.stream, &place, size);
    tracing::info!(
        "The data set is that of replication ID {} at offset {}{}",
        place.id,
        place.offset,
        match names.second {
            Some(_) => format!(". New replication ID is {}", names.id),
            None => String::new(),
        }
    );
    if !shared.replication.upstream.follows() {
        // Replicas that go on in the stream still have them. Nobody else changes keys before the loading ends, so
        // no locks are taken.
        for (db, key) in left_out {
            let removal = [&b"DEL"[..], &key];
            shared.stream.append(|block| block.command(db, &removal));
        }
    }
}

/// Replaces the data set by what the files hold; false when that fails, which is in the log. Called
/// without locks.
pub fn reload(shared: &Shared) -> bool {
    let loading = &shared.durability.loading;
    loading.begin(0);
    let end = shared.stream.position();
    let log = &shared.append_only.log;
    while log.is_open() && log.progress.written() < end {
        log.demand();
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    save::empty(shared, false);
    let loaded = read_manifest(shared).and_then(|()| load(shared));
    loading.end();
    // The stream goes on, wherever that was.
    *shared.durability.place.lock() = None;
    loaded.is_ok()
}

/// Loads the data set from the files of the manifest. False when there are none; an error is a
/// reason not to start, already logged.
pub fn load(shared: &Shared) -> Result<bool, Fatal> {
    let settings = shared.config.load();
    let place = place(&settings);
    let manifest = shared.append_only.life().manifest().clone();
    if manifest.is_empty() {
        return Ok(false);
    }
    let parts: Vec<_> = manifest.base.iter().chain(&manifest.incr).collect();
    for part in &parts {
        if !place.path(&part.name).exists() {
            tracing::warn!(
                "Unable to obtain the AOF file {} length. stat: No such file or directory",
                part.name
            );
            return Err(Fatal);
        }
    }
    let loading = &shared.durability.loading;
    loading.begin(place.size(&manifest));
    let mut found = None;
    for (index, part) in parts.iter().enumerate() {
        let started = mono_us();
        // Increments that hold nothing yet do not count: the server was killed before it went on
        // to them, perhaps in the middle of a write to this one.
        let later = &parts[index + 1..];
        let is_last = later.iter().all(|part| place.size_of(&part.name) == 0);
        let is_base = manifest.base.as_ref() == Some(*part);
        found = load_part(shared, &settings, &place, &part.name, is_last)?;
        let kind = if is_base { "base" } else { "incr" };
        let seconds = (mono_us() - started) as f64 / 1e6;
        tracing::info!(
            "DB loaded from {kind} file {}: {seconds:.3} seconds",
            part.name
        );
        if is_base {
            let size = place.size_of(&part.name);
            shared.append_only.life().loaded_base(size);
        }
    }
    let mut manifest = manifest;
    if !settings.aof_disable_auto_gc
        && let Err(error) = place.delete_history(&mut manifest)
    {
        tracing::warn!("Cannot delete history files: {}", strerror(&error));
    }
    shared.append_only.life().read(manifest);
    *shared.durability.place.lock() = found;
    Ok(true)
}

/// Loads one file: a dump, commands, or a dump that commands follow.
fn load_part(
    shared: &Shared,
    settings: &Settings,
    place: &manifest::Place,
    name: &str,
    is_last: bool,
) -> Result<Option<Place>, Fatal> {
    let failed = |error: io::Error| {
        let error = strerror(&error);
        tracing::warn!("Fatal error: can't open the append log file {name} for reading: {error}");
    };
    let path = place.path(name);
    let mut file = File::open(&path).map_err(failed)?;
    let mut signature = [0; 5];
    let is_dump = file.read_exact(&mut signature).is_ok() && signature == *b"REDIS";
    file.rewind().map_err(failed)?;
    let old_style = name == place.name;
    if !is_dump {
        let input = BufReader::with_capacity(1 << 20, file);
        let (played, place) = playback::play(shared, input, 0);
        finish(settings, name, &path, played, is_last)?;
        return Ok(place);
    }
    tracing::info!(
        "Reading RDB {} AOF {}...",
        if old_style {
            "preamble from"
        } else {
            "base file on"
        },
        if old_style { "file" } else { "loading" }
    );
    let options = save::load_options(settings, false, false);
    let loading = &shared.durability.loading;
    let loaded = load::file(&shared.keyspace, file, &options, loading);
    let loaded = loaded.map_err(|failure| {
        save::explain(shared, &failure);
        let what = if old_style {
            "preamble of the AOF"
        } else {
            "base"
        };
        tracing::warn!("Error reading the RDB {what} file {name}, AOF loading aborted");
    })?;
    let beside = save::Taking::Beside { replace: false };
    save::take_functions(shared, &loaded.functions, beside).map_err(failed)?;
    let offset = loading.loaded_bytes.load(Relaxed);
    if old_style {
        tracing::info!("Reading the remaining AOF tail...");
    }
    let input = BufReader::with_capacity(1 << 20, io::Cursor::new(loaded.rest).chain(loaded.input));
    let (played, place) = playback::play(shared, input, offset);
    finish(settings, name, &path, played, is_last)?;
    Ok(place)
}

/// What becomes of a file that was played back as far as it is sound.
fn finish(
    settings: &Settings,
    name: &str,
    path: &Path,
    played: Played,
    is_last: bool,
) -> Result<(), Fatal> {
    if let Played::Reverted(_) = played {
        tracing::warn!("Revert incomplete MULTI/EXEC transaction in AOF file {name}");
    }
    match played {
        Played::All => Ok(()),
        Played::Truncated(offset) | Played::Reverted(offset)
            if settings.aof_load_truncated && is_last =>
        {
            tracing::warn!("!!! Warning: short read while loading the AOF file {name}!!!");
            tracing::warn!("!!! Truncating the AOF {name} at offset {offset} !!!");
            let cut = OpenOptions::new().write(true).open(path);
            cut.and_then(|file| file.set_len(offset)).map_err(|error| {
                tracing::warn!("Error truncating the AOF file {name}: {}", strerror(&error));
                Fatal
            })?;
            tracing::warn!("AOF {name} loaded anyway because aof-load-truncated is enabled");
            Ok(())
        }
        Played::Truncated(_) | Played::Reverted(_) => {
            tracing::warn!(
                "Unexpected end of file reading the append only file {name}. You can: 1) Make a \
                 backup of your AOF file, then use ./redis-check-aof --fix <filename.manifest>. 2) \
                 Alternatively you can set the 'aof-load-truncated' configuration option to yes \
                 and restart the server."
            );
            if !is_last {
                tracing::warn!("Fatal error: the truncated file is not the last file");
            }
            Err(Fatal)
        }
        Played::Unknown(command) => {
            tracing::warn!("Unknown command '{command}' reading the append only file {name}");
            Err(Fatal)
        }
        Played::Bad => {
            tracing::warn!(
                "Bad file format reading the append only file {name}: make a backup of your AOF \
                 file, then use ./redis-check-aof --fix <filename.manifest>"
            );
            Err(Fatal)
        }
        Played::Unreadable(error) => {
            tracing::warn!(
                "Unrecoverable error reading the append only file {name}: {}",
                strerror(&error)
            );
            Err(Fatal)
        }
    }
}
