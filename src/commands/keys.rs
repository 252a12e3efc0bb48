//! Commands on keys whatever they hold: DEL, EXISTS, RENAME, COPY, MOVE, OBJECT and the like.

use crate::config::MaxmemoryPolicy;
use crate::dispatch::command::{Acl, Command, Databases, Flags, KeyFlags, KeySpec, ROW};
use crate::dispatch::context::{DataCtx, ServerCtx};
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::entry::Entry;
use crate::keyspace::event;
use crate::types::Type;
use crate::types::string::StringRef;

use super::rows::{GROW, READ_FAST, WRITE_FAST};

data_rows!(Acl::KEYSPACE);

/// A row whose keys are all its arguments and whose replies a cluster client adds up.
const fn summed(
    name: &'static str,
    flags: Flags,
    keys: &'static [KeySpec],
    run: fn(&mut DataCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        tips: &["request_policy:multi_shard", "response_policy:agg_sum"],
        ..row(name, -2, flags, keys, run)
    }
}

const fn object_row(
    name: &'static str,
    run: fn(&mut DataCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        tips: &["nondeterministic_output"],
        ..row(name, 3, Flags::READONLY, OBJECT_KEY, run)
    }
}

const DELETES: &[KeySpec] = &[KeySpec::from(1, 1, KeyFlags::RM.or(KeyFlags::DELETE))];
const LOOKS: &[KeySpec] = &[KeySpec::from(1, 1, KeyFlags::RO)];
const TYPE_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const OBJECT_KEY: &[KeySpec] = &[KeySpec::at(2, KeyFlags::RO)];
const RENAMED: KeySpec = KeySpec::at(1, KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE));
const RENAME_KEYS: &[KeySpec] = &[RENAMED, KeySpec::at(2, KeyFlags::OVERWRITE)];
const RENAMENX_KEYS: &[KeySpec] = &[RENAMED, KeySpec::at(2, KeyFlags::OW.or(KeyFlags::INSERT))];
const COPY_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::READ),
    KeySpec::at(2, KeyFlags::OVERWRITE),
];
const MOVE_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::READ_UPDATE)];

/// The rows.
pub const ROWS: &[Command] = &[
    summed("del", Flags::WRITE, DELETES, del),
    summed("unlink", WRITE_FAST, DELETES, unlink),
    summed("exists", READ_FAST, LOOKS, exists),
    summed("touch", READ_FAST, LOOKS, touch),
    row("type", 2, READ_FAST, TYPE_KEY, type_of),
    row("rename", 3, Flags::WRITE, RENAME_KEYS, rename),
    row("renamenx", 3, WRITE_FAST, RENAMENX_KEYS, renamenx),
    Command {
        databases: Databases::AlsoNamed(|args| {
            (3..args.len().saturating_sub(1))
                .find(|&i| args.is(i, "db"))
                .map(|i| i + 1)
        }),
        ..row("copy", -3, GROW, COPY_KEYS, copy)
    },
    Command {
        databases: Databases::AlsoNamed(|_| Some(2)),
        ..row("move", 3, WRITE_FAST, MOVE_KEY, move_key)
    },
    Command {
        name: "object",
        arity: -2,
        subcommands: &[
            object_row("encoding", object_encoding),
            object_row("freq", object_freq),
            object_row("idletime", object_idletime),
            object_row("refcount", object_refcount),
            super::help::row(Acl::KEYSPACE, object_help),
        ],
        ..ROW
    },
];

/// `DEL key [key ...]`
fn del(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    remove_all(ctx, ctx.settings.lazyfree_lazy_user_del)
}

/// `UNLINK key [key ...]`
fn unlink(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    remove_all(ctx, true)
}

/// Removes all keys; big values are freed after the locks, `lazily` in the background.
fn remove_all(ctx: &mut DataCtx<'_, '_>, lazily: bool) -> Result<(), Error> {
    let mut removed = 0;
    for key in ctx.args.rest(1) {
        if ctx.db.remove_freeing(key, lazily) {
            ctx.db.changed(key, event::ON_DEL);
            removed += 1;
        }
    }
    ctx.out.int(removed);
    Ok(())
}

/// `EXISTS key [key ...]`
fn exists(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let keys = ctx.args.rest(1).iter();
    let found = keys.filter(|key| ctx.db.view(key).is_some()).count();
    ctx.out.int(found as i64);
    Ok(())
}

/// `TOUCH key [key ...]`
fn touch(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let keys = ctx.args.rest(1).iter();
    let found = keys.filter(|key| ctx.db.read(key).is_some()).count();
    ctx.out.int(found as i64);
    Ok(())
}

/// `TYPE key`
fn type_of(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let entry = ctx.db.view(&ctx.args[1]);
    ctx.out.simple(entry.map_or("none", |e| e.kind().name()));
    Ok(())
}

/// `RENAME key newkey`
fn rename(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    rename_unless(ctx, false)?;
    ctx.out.ok();
    Ok(())
}

/// `RENAMENX key newkey`
fn renamenx(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let renamed = rename_unless(ctx, true)?;
    ctx.out.int(i64::from(renamed));
    Ok(())
}

/// Renames argument 1 to argument 2; `nx`: unless that exists. A key is never renamed to itself.
fn rename_unless(ctx: &mut DataCtx<'_, '_>, nx: bool) -> Result<bool, Error> {
    let (from, to) = (&ctx.args[1], &ctx.args[2]);
    let db = &mut ctx.db;
    if db.write(from).is_none() {
        return Err(Error::NoSuchKey);
    }
    if from == to || (db.write(to).is_some() && nx) {
        return Ok(false);
    }
    db.remove(to);
    if let Some(entry) = db.take(from) {
        db.insert(to, entry.renamed(to));
    }
    db.changed(from, event::ON_RENAME_FROM);
    db.changed_too(to, event::ON_RENAME_TO);
    Ok(true)
}

/// Argument `i` as the number of a database.
fn database(ctx: &DataCtx<'_, '_>, i: usize) -> Result<usize, Error> {
    let index = ctx.args.int_in(i, i32::MIN.into(), i32::MAX.into())?;
    let index = usize::try_from(index).ok();
    index
        .filter(|index| *index < ctx.db.databases())
        .ok_or(Error::DbOutOfRange)
}

/// `COPY source destination [DB destination-db] [REPLACE]`
fn copy(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (from, to) = (&ctx.args[1], &ctx.args[2]);
    let source_db = ctx.db.index();
    let (mut target_db, mut replace) = (source_db, false);
    let mut options = Cursor::new(ctx.args, 3);
    while options.step() {
        match () {
            () if options.is("replace") => replace = true,
            () if options.is("db") => target_db = database(ctx, options.take()?)?,
            () => return Err(options.refuse()),
        }
    }
    if ctx.settings.cluster_enabled && (source_db, target_db) != (0, 0) {
        return Err(Error::line(
            "ERR Copying to another database is not allowed in cluster mode",
        ));
    }
    if source_db == target_db && from == to {
        return Err(Error::SameObject);
    }
    let copied = copy_to(ctx, target_db, replace);
    ctx.out.int(i64::from(copied));
    Ok(())
}

fn copy_to(ctx: &mut DataCtx<'_, '_>, target_db: usize, replace: bool) -> bool {
    let (from, to) = (&ctx.args[1], &ctx.args[2]);
    let clock = ctx.db.env().access.initial();
    if ctx.db.read(from).is_none() || (ctx.db.other(target_db).write(to).is_some() && !replace) {
        return false;
    }
    let Some(copy) = ctx.db.peek(from).map(|entry| entry.copied(to, clock)) else {
        return false;
    };
    let mut target = ctx.db.other(target_db);
    target.remove(to);
    target.insert(to, copy);
    target.changed(to, event::ON_COPY_TO);
    true
}

/// `MOVE key db`
fn move_key(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    if ctx.settings.cluster_enabled {
        return Err(Error::line("ERR MOVE is not allowed in cluster mode"));
    }
    let target = database(ctx, 2)?;
    if target == ctx.db.index() {
        return Err(Error::SameObject);
    }
    let key = &ctx.args[1];
    let movable = ctx.db.write(key).is_some() && ctx.db.other(target).write(key).is_none();
    if movable && let Some(entry) = ctx.db.take(key) {
        ctx.db.other(target).insert(key, entry);
        ctx.db.changed(key, event::ON_MOVE_FROM);
        ctx.db.other(target).changed_too(key, event::ON_MOVE_TO);
    }
    ctx.out.int(i64::from(movable));
    Ok(())
}

/// `OBJECT ENCODING key`
fn object_encoding(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    match ctx.db.inspect(&ctx.args[2]) {
        None => ctx.out.null(),
        Some(entry) => ctx.out.bulk(entry.encoding().name().as_bytes()),
    }
    Ok(())
}

fn counts_frequency(ctx: &DataCtx<'_, '_>) -> bool {
    matches!(
        ctx.settings.maxmemory_policy,
        MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu
    )
}

/// `OBJECT FREQ key`
fn object_freq(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let access = ctx.db.env().access;
    let counts_frequency = counts_frequency(ctx);
    match ctx.db.inspect(&ctx.args[2]) {
        None => ctx.out.null(),
        Some(_) if !counts_frequency => {
            return Err(Error::line(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
                 Please note that when switching between policies at runtime LRU and LFU data \
                 will take some time to adjust.",
            ));
        }
        Some(entry) => ctx.out.int(access.frequency(entry.clock()).into()),
    }
    Ok(())
}

/// `OBJECT IDLETIME key`
fn object_idletime(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let access = ctx.db.env().access;
    let counts_frequency = counts_frequency(ctx);
    match ctx.db.inspect(&ctx.args[2]) {
        None => ctx.out.null(),
        Some(_) if counts_frequency => {
            return Err(Error::line(
                "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note \
                 that when switching between policies at runtime LRU and LFU data will take \
                 some time to adjust.",
            ));
        }
        Some(entry) => ctx.out.uint(access.idle_ms(entry.clock()) / 1000),
    }
    Ok(())
}

/// `OBJECT REFCOUNT key`
fn object_refcount(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    // Redis keeps one object for each small integer, unless eviction needs a clock per key.
    let shares_integers = ctx.settings.maxmemory == 0
        || matches!(
            ctx.settings.maxmemory_policy,
            MaxmemoryPolicy::NoEviction
                | MaxmemoryPolicy::AllkeysRandom
                | MaxmemoryPolicy::VolatileRandom
                | MaxmemoryPolicy::VolatileTtl
        );
    match ctx.db.inspect(&ctx.args[2]) {
        None => ctx.out.null(),
        Some(entry) if shares_integers && is_small_integer(&entry) => {
            ctx.out.int(i32::MAX.into());
        }
        Some(_) => ctx.out.int(1),
    }
    Ok(())
}

fn is_small_integer(entry: &Entry) -> bool {
    entry.kind() == Type::String && matches!(entry.string(), StringRef::Int(0..=9999))
}

/// `OBJECT HELP`
fn object_help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    );
    Ok(())
}
