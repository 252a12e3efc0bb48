//! String commands: setting, reading and deleting whole values, with their options.
//!
//! What changes a value in place is in [`super::string_edits`].

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::{Cursor, choose};
use crate::keyspace::db::Ttl;
use crate::keyspace::entry::{Entry, EntryRef, NewValue};
use crate::keyspace::event;
use crate::resp::write::Output;
use crate::types::Type;
use crate::types::string::{self, SharedBytes, StringRef};

use super::expire;
use super::rows::{GROW, GROW_FAST, READ, READ_FAST, READ_KEY, READ_UPDATE_KEY, WRITE_FAST};

data_rows!(Acl::STRING);

const OVERWRITES: &[KeySpec] = &[KeySpec::at(1, KeyFlags::OVERWRITE)];
const SET_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::READ_UPDATE)
    .depending(set_flags)
    .note("RW and ACCESS due to the optional `GET` argument")];

/// What SET does with its key: only with GET it reads.
fn set_flags(args: Args<'_>) -> KeyFlags {
    match (3..args.len()).any(|i| args.is(i, "get")) {
        true => KeyFlags::READ_UPDATE,
        false => KeyFlags::OVERWRITE,
    }
}

const GETEX_KEY: &[KeySpec] =
    &[KeySpec::at(1, KeyFlags::READ_UPDATE).note("RW and UPDATE because it changes the TTL")];
const GETDEL_KEY: &[KeySpec] = &[KeySpec::at(
    1,
    KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE),
)];
const SETNX_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::OW.or(KeyFlags::INSERT))];
const STRLEN_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const MGET_KEYS: &[KeySpec] = &[KeySpec::from(1, 1, KeyFlags::READ)];
const MSET_KEYS: &[KeySpec] = &[KeySpec::from(1, 2, KeyFlags::OVERWRITE)];
const MSETNX_KEYS: &[KeySpec] = &[KeySpec::from(1, 2, KeyFlags::OW.or(KeyFlags::INSERT))];

/// The rows.
pub const ROWS: &[Command] = &[
    row("get", 2, READ_FAST, READ_KEY, get),
    row("set", -3, GROW, SET_KEY, set),
    row("getset", 3, GROW_FAST, READ_UPDATE_KEY, getset),
    row("getex", -2, WRITE_FAST, GETEX_KEY, getex),
    row("getdel", 2, WRITE_FAST, GETDEL_KEY, getdel),
    row("getrange", 4, READ, READ_KEY, getrange),
    row("substr", 4, READ, READ_KEY, getrange),
    row("setnx", 3, GROW_FAST, SETNX_KEY, setnx),
    row("setex", 4, GROW, OVERWRITES, setex),
    row("psetex", 4, GROW, OVERWRITES, psetex),
    Command {
        tips: &["request_policy:multi_shard"],
        ..row("mget", -2, READ_FAST, MGET_KEYS, mget)
    },
    Command {
        tips: &[
            "request_policy:multi_shard",
            "response_policy:all_succeeded",
        ],
        ..row("mset", -3, GROW, MSET_KEYS, mset)
    },
    Command {
        tips: &["request_policy:multi_shard", "response_policy:agg_min"],
        ..row("msetnx", -3, GROW, MSETNX_KEYS, msetnx)
    },
    row("strlen", 2, READ_FAST, STRLEN_KEY, strlen),
];

/// When a value is to expire, as the arguments say it.
#[derive(Clone, Copy)]
struct Expire {
    /// Index of the argument with the number.
    at: usize,
    /// Seconds rather than milliseconds.
    seconds: bool,
    /// From now on rather than a Unix time.
    relative: bool,
}

impl Expire {
    /// The Unix time in milliseconds, or why there is none; `command` is named in the error.
    fn when(self, args: Args<'_>, now_ms: i64, command: &'static str) -> Result<i64, Error> {
        let number = args.int(self.at)?;
        let ms = number.checked_mul(if self.seconds { 1000 } else { 1 });
        let base = if self.relative { now_ms } else { 0 };
        ms.filter(|ms| *ms > 0)
            .and_then(|ms| ms.checked_add(base))
            .ok_or(Error::InvalidExpire(command))
    }
}

/// The options of SET and GETEX.
#[derive(Clone, Copy, Default)]
struct Options {
    expire: Option<Expire>,
    /// KEEPTTL of SET.
    keep_ttl: bool,
    /// PERSIST of GETEX.
    persist: bool,
    /// NX (false: the key must not exist) or XX (true: it must).
    must_exist: Option<bool>,
    /// GET of SET.
    get: bool,
}

impl Options {
    /// Reads the options from argument `from` on. One expiry option may be repeated, the last
    /// counts; different ones exclude each other.
    fn parse(args: Args<'_>, from: usize, of_set: bool) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut words = Cursor::new(args, from);
        // What becomes of the expiry.
        let mut fate = None;
        while words.step() {
            if let Some((seconds, relative)) = words.find(&EXPIRE_OPTIONS) {
                let at = words.take()?;
                choose(&mut fate, Fate::Set(seconds, relative))?;
                options.expire = Some(Expire {
                    at,
                    seconds,
                    relative,
                });
                continue;
            }
            match () {
                () if of_set && words.is("nx") => choose(&mut options.must_exist, false)?,
                () if of_set && words.is("xx") => choose(&mut options.must_exist, true)?,
                () if of_set && words.is("get") => options.get = true,
                () if of_set && words.is("keepttl") => choose(&mut fate, Fate::Keep)?,
                () if !of_set && words.is("persist") => choose(&mut fate, Fate::Clear)?,
                () => return Err(words.refuse()),
            }
        }
        options.keep_ttl = fate == Some(Fate::Keep);
        options.persist = fate == Some(Fate::Clear);
        Ok(options)
    }
}

/// What an option makes of the expiry; different ones exclude each other.
#[derive(PartialEq)]
enum Fate {
    /// In seconds, relative to now.
    Set(bool, bool),
    Keep,
    Clear,
}

/// The expiry options: whether in seconds, and relative to now.
pub(super) const EXPIRE_OPTIONS: [(&str, (bool, bool)); 4] = [
    ("ex", (true, true)),
    ("px", (false, true)),
    ("exat", (true, false)),
    ("pxat", (false, false)),
];

/// The entry if it is a string.
pub(super) fn of_string<'e>(entry: EntryRef<'e>) -> Result<EntryRef<'e>, Error> {
    if entry.kind() == Type::String {
        Ok(entry)
    } else {
        Err(Error::WrongType)
    }
}

#[inline]
fn reply_value(out: &mut Output, entry: &Entry) {
    match entry.string() {
        StringRef::Int(n) => out.bulk_int(n),
        StringRef::Inline(bytes) => out.bulk(bytes),
        StringRef::Shared(bytes) => out.bulk_shared(SharedBytes::clone(bytes)),
        StringRef::Patched(string) => out.bulk_shared(SharedBytes::clone(string.whole())),
    }
}

/// `GET key`
fn get(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    match ctx.db.read(&ctx.args[1]) {
        None => ctx.out.null(),
        Some(entry) if entry.kind() != Type::String => return Err(Error::WrongType),
        Some(entry) => reply_value(ctx.out, &entry),
    }
    Ok(())
}

/// Argument `i` as a value to be stored.
#[inline]
pub(super) fn value_of(args: Args<'_>, i: usize) -> NewValue<'_> {
    match args.shared(i) {
        Some(big) => NewValue::Shared(big),
        None => NewValue::Bytes(args.all()[i]),
    }
}

/// Sets argument `key` to argument `value`, and tells of it.
#[inline]
fn store(ctx: &mut DataCtx<'_, '_>, (key, value): (usize, usize), ttl: Ttl) {
    let name = &ctx.args[key];
    ctx.db.put(name, value_of(ctx.args, value), ttl);
    ctx.db.changed(name, event::ON_SET);
    if let Ttl::At(ms) = ttl {
        ctx.db.also(name, event::ON_EXPIRE);
        let mut digits = itoa::Buffer::new();
        let ms = digits.format(ms).as_bytes();
        let form: [&[u8]; 5] = [b"SET", name, &ctx.args[value], b"PXAT", ms];
        ctx.db.rewrite(&form);
    }
}

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
fn set(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len() == 3 {
        store(ctx, (1, 2), Ttl::Clear);
        ctx.out.ok();
        return Ok(());
    }
    let options = Options::parse(ctx.args, 3, true)?;
    let ttl = match options.expire {
        Some(expire) => Ttl::At(expire.when(ctx.args, ctx.db.now_ms(), "set")?),
        None if options.keep_ttl => Ttl::Keep,
        None => Ttl::Clear,
    };
    if options.get {
        get(ctx)?;
    }
    let key = &ctx.args[1];
    let allowed = options
        .must_exist
        .is_none_or(|must| ctx.db.write(key).is_some() == must);
    if allowed {
        store(ctx, (1, 2), ttl);
        if options.get && options.expire.is_none() {
            propagate_without_get(ctx);
        }
    }
    match (options.get, allowed) {
        (true, _) => {}
        (false, true) => ctx.out.ok(),
        (false, false) => ctx.out.null(),
    }
    Ok(())
}

fn propagate_without_get(ctx: &mut DataCtx<'_, '_>) {
    let args = ctx.args;
    let kept = (0..args.len()).filter(|&i| i < 3 || !args.is(i, "get"));
    let form: Vec<&[u8]> = kept.map(|i| args.all()[i]).collect();
    ctx.db.rewrite(&form);
}

/// `SETNX key value`
fn setnx(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let absent = ctx.db.write(&ctx.args[1]).is_none();
    if absent {
        store(ctx, (1, 2), Ttl::Clear);
    }
    ctx.out.int(i64::from(absent));
    Ok(())
}

/// `SETEX key seconds value`
fn setex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    set_expiring(ctx, true, "setex")
}

/// `PSETEX key milliseconds value`
fn psetex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    set_expiring(ctx, false, "psetex")
}

fn set_expiring(
    ctx: &mut DataCtx<'_, '_>,
    seconds: bool,
    command: &'static str,
) -> Result<(), Error> {
    let expire = Expire {
        at: 2,
        seconds,
        relative: true,
    };
    let when = expire.when(ctx.args, ctx.db.now_ms(), command)?;
    store(ctx, (1, 3), Ttl::At(when));
    ctx.out.ok();
    Ok(())
}

/// `GETSET key value`
fn getset(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    get(ctx)?;
    store(ctx, (1, 2), Ttl::Clear);
    let form: [&[u8]; 3] = [b"SET", &ctx.args[1], &ctx.args[2]];
    ctx.db.rewrite(&form);
    Ok(())
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`
fn getex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let key = ctx.args.all()[1];
    let options = Options::parse(ctx.args, 2, false)?;
    let now_ms = ctx.db.now_ms();
    let Some(entry) = ctx.db.read(key) else {
        ctx.out.null();
        return Ok(());
    };
    let entry = of_string(entry)?;
    let when = match options.expire {
        Some(expire) => Some(expire.when(ctx.args, now_ms, "getex")?),
        None => None,
    };
    reply_value(ctx.out, &entry);
    match when {
        Some(when) => {
            let absolute = options.expire.is_some_and(|e| !e.relative);
            if absolute && ctx.db.env().is_past(when) && ctx.db.env().expires_keys {
                expire::remove(ctx, ctx.settings.lazyfree_lazy_expire);
            } else {
                expire::set_expiry(ctx, when, &[]);
            }
        }
        None if options.persist && expire::clear_expiry(ctx) => {
            ctx.db.rewrite(&[b"PERSIST", key]);
        }
        None => {}
    }
    Ok(())
}

/// `GETDEL key`
fn getdel(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    get(ctx)?;
    expire::remove(ctx, ctx.settings.lazyfree_lazy_user_del);
    Ok(())
}

/// `GETRANGE key start end`, also as SUBSTR
fn getrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (start, end) = (ctx.args.int(2)?, ctx.args.int(3)?);
    match ctx.db.read(&ctx.args[1]) {
        None => ctx.out.bulk(b""),
        Some(entry) => {
            let entry = of_string(entry)?;
            let string = entry.string();
            let range = string::range(string.len(), start, end);
            ctx.out.bulk(&string.slice(range));
        }
    }
    Ok(())
}

/// `MGET key [key ...]`
fn mget(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let keys = ctx.args.rest(1);
    ctx.out.array(keys.len());
    for key in keys {
        match ctx.db.read(key) {
            Some(entry) if entry.kind() == Type::String => reply_value(ctx.out, &entry),
            _ => ctx.out.null(),
        }
    }
    Ok(())
}

/// `MSET key value [key value ...]`
fn mset(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    store_pairs(ctx, "mset")?;
    ctx.out.ok();
    Ok(())
}

/// `MSETNX key value [key value ...]`
fn msetnx(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let pairs = args.len() % 2 == 1;
    if pairs
        && (1..args.len())
            .step_by(2)
            .any(|i| ctx.db.write(&args[i]).is_some())
    {
        ctx.out.int(0);
        return Ok(());
    }
    store_pairs(ctx, "msetnx")?;
    ctx.out.int(1);
    Ok(())
}

fn store_pairs(ctx: &mut DataCtx<'_, '_>, command: &'static str) -> Result<(), Error> {
    if ctx.args.len().is_multiple_of(2) {
        return Err(Error::Arity(command.into()));
    }
    for i in (1..ctx.args.len()).step_by(2) {
        store(ctx, (i, i + 1), Ttl::Clear);
    }
    Ok(())
}

/// `STRLEN key`
fn strlen(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let len = match ctx.db.read(&ctx.args[1]) {
        None => 0,
        Some(entry) => of_string(entry)?.string().len(),
    };
    ctx.out.int(len as i64);
    Ok(())
}
