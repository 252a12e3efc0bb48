//! Commands about the expiry of the fields of hashes (Redis 7.4), and those that read or set fields
//! together with their expiry (Redis 8.0).

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event;
use crate::types::collection::Collection;
use crate::types::hash::{FieldTtl, Hash};

use super::hashes::{limits, reply_or_null};
use super::rows::{GROW_FAST, READ_FAST, READ_KEY, WRITE_FAST};
use super::strings::EXPIRE_OPTIONS;

const SET_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];

const TAKE_KEY: &[KeySpec] = &[KeySpec::at(
    1,
    KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE),
)];

const GETEX_KEY: &[KeySpec] =
    &[KeySpec::at(1, KeyFlags::READ_UPDATE).note("RW and UPDATE because it changes the TTL")];

const OUTPUT: &[&str] = &["nondeterministic_output"];

data_rows!(Acl::HASH);

/// The rows.
pub const ROWS: &[Command] = &[
    row("hexpire", -6, GROW_FAST, SET_KEY, hexpire),
    row("hpexpire", -6, GROW_FAST, SET_KEY, hpexpire),
    row("hexpireat", -6, GROW_FAST, SET_KEY, hexpireat),
    row("hpexpireat", -6, GROW_FAST, SET_KEY, hpexpireat),
    row("httl", -5, READ_FAST, READ_KEY, httl).tipped(OUTPUT),
    row("hpttl", -5, READ_FAST, READ_KEY, hpttl).tipped(OUTPUT),
    row("hexpiretime", -5, READ_FAST, READ_KEY, hexpiretime),
    row("hpexpiretime", -5, READ_FAST, READ_KEY, hpexpiretime),
    row("hpersist", -5, WRITE_FAST, SET_KEY, hpersist),
    row("hgetdel", -5, WRITE_FAST, TAKE_KEY, hgetdel),
    row("hgetex", -5, WRITE_FAST, GETEX_KEY, hgetex),
    row("hsetex", -6, GROW_FAST, SET_KEY, hsetex),
];

/// The latest time at which a field may expire, in Unix milliseconds.
const LATEST_MS: i64 = (1 << 46) - 1;
const POSITIVE: &str = "ERR Number of fields must be a positive integer";

/// Replies of the commands about expiry, for each field.
const NO_FIELD: i64 = -2;
const NO_EXPIRY: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const DELETED: i64 = 2;

/// How an expiry is given.
#[derive(Clone, Copy)]
struct Unit {
    /// Seconds rather than milliseconds.
    seconds: bool,
    /// From now on rather than a Unix time.
    relative: bool,
}

impl Unit {
    /// The option at argument `i`.
    fn option(args: Args<'_>, i: usize) -> Option<Self> {
        let mut options = EXPIRE_OPTIONS.iter();
        let &(_, (seconds, relative)) = options.find(|(name, _)| args.is(i, name))?;
        Some(Self { seconds, relative })
    }

    /// The Unix time in milliseconds that argument `i` means; `command` is named in the error.
    fn when(
        self,
        args: Args<'_>,
        i: usize,
        now_ms: i64,
        command: &'static str,
    ) -> Result<i64, Error> {
        let number = args.int(i)?;
        if number < 0 {
            return Err(Error::line("ERR invalid expire time, must be >= 0"));
        }
        let ms = number.checked_mul(if self.seconds { 1000 } else { 1 });
        let base = if self.relative { now_ms } else { 0 };
        ms.and_then(|ms| ms.checked_add(base))
            .filter(|ms| *ms <= LATEST_MS)
            .ok_or(Error::InvalidExpire(command))
    }
}

/// The fields behind `FIELDS numfields` at argument `at`; `positive` is said when there is no such
/// number.
fn fields<'a>(args: Args<'a>, at: usize, positive: &'static str) -> Result<&'a [&'a [u8]], Error> {
    if !args.is(at, "fields") || at + 1 >= args.len() {
        return Err(Error::line(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let count = args.int_or(at + 1, positive)?;
    if count < 1 {
        return Err(Error::line(positive));
    }
    let fields = args.rest(at + 2);
    if count != fields.len() as i64 {
        return Err(Error::line(
            "ERR The `numfields` parameter must match the number of arguments",
        ));
    }
    Ok(fields)
}

/// When an expiry may be set.
#[derive(Clone, Copy)]
enum Condition {
    /// NX: there is none yet.
    None,
    /// XX: there is one.
    Some,
    /// GT: it is later than the one there is; none is later than all.
    Later,
    /// LT: it is earlier than the one there is.
    Earlier,
}

impl Condition {
    fn parse(args: Args<'_>, i: usize) -> Option<Self> {
        let all = [
            ("nx", Self::None),
            ("xx", Self::Some),
            ("gt", Self::Later),
            ("lt", Self::Earlier),
        ];
        let found = all.into_iter().find(|(name, _)| args.is(i, name));
        found.map(|(_, condition)| condition)
    }

    fn is_met(self, old: Option<i64>, new: i64) -> bool {
        match self {
            Self::None => old.is_none(),
            Self::Some => old.is_some(),
            Self::Later => old.is_some_and(|old| new > old),
            Self::Earlier => old.is_none_or(|old| new < old),
        }
    }
}

/// Sets the expiry of a field, or removes the field when that time is over already.
fn set_expiry(
    hash: &mut Hash,
    field: &[u8],
    at: i64,
    now_ms: i64,
    condition: Option<Condition>,
) -> i64 {
    if hash.get_live(field, now_ms).is_none() {
        return NO_FIELD;
    }
    let old = hash.expiry(field);
    if condition.is_some_and(|condition| !condition.is_met(old, at)) {
        return NOT_MET;
    }
    if at <= now_ms {
        hash.remove(field);
        return DELETED;
    }
    hash.set_expiry(field, Some(at));
    DONE
}

/// HEXPIRE and its kin: `key time [NX | XX | GT | LT] FIELDS numfields field [field ...]`
fn expire(ctx: &mut DataCtx<'_, '_>, unit: Unit, command: &'static str) -> Result<(), Error> {
    const GREATER: &str = "ERR Parameter `numFields` should be greater than 0";
    let (args, now_ms) = (ctx.args, ctx.db.now_ms());
    let key = &args[1];
    ctx.db.write_as::<Hash>(key)?;
    let at = unit.when(args, 2, now_ms, command)?;
    let condition = Condition::parse(args, 3);
    let fields = fields(args, 3 + usize::from(condition.is_some()), GREATER)?;
    ctx.out.array(fields.len());
    let Some(hash) = ctx.db.write_as::<Hash>(key)? else {
        fields.iter().for_each(|_| ctx.out.int(NO_FIELD));
        return Ok(());
    };
    let (mut set, mut deleted) = (Vec::new(), Vec::new());
    for &field in fields {
        let result = set_expiry(hash, field, at, now_ms, condition);
        match result {
            DONE => set.push(field),
            DELETED => deleted.push(field),
            _ => {}
        }
        ctx.out.int(result);
    }
    let emptied = hash.is_empty();
    if set.is_empty() && deleted.is_empty() {
        return Ok(());
    }
    let event = match deleted.is_empty() {
        true => event::ON_HEXPIRE,
        false => event::ON_HDEL,
    };
    let count = set.len() + deleted.len();
    ctx.db.changed_by(key, event, count as u64);
    propagate_deleted(ctx, key, &deleted);
    if !set.is_empty() {
        let condition = condition.map(|_| &args[3]);
        ctx.db.note_fields(key);
        propagate_expiry(ctx, key, at, condition, &set);
    }
    remove_if(ctx, key, emptied);
    Ok(())
}

/// States that fields were deleted instead of what the client asked for.
fn propagate_deleted(ctx: &mut DataCtx<'_, '_>, key: &[u8], fields: &[&[u8]]) {
    for field in fields {
        ctx.db.rewrite(&[b"HDEL", key, field]);
    }
}

/// States that fields got an expiry.
fn propagate_expiry(
    ctx: &mut DataCtx<'_, '_>,
    key: &[u8],
    at: i64,
    condition: Option<&[u8]>,
    fields: &[&[u8]],
) {
    let (mut ms, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
    let ms = ms.format(at).as_bytes();
    let mut form: Vec<&[u8]> = vec![b"HPEXPIREAT", key, ms];
    form.extend(condition);
    form.extend([b"FIELDS", count.format(fields.len()).as_bytes()]);
    form.extend(fields);
    ctx.db.rewrite(&form);
}

/// Removes a key whose hash lost its last field.
fn remove_if(ctx: &mut DataCtx<'_, '_>, key: &[u8], emptied: bool) {
    if emptied {
        ctx.db.remove(key);
        ctx.db.also(key, event::ON_DEL);
    }
}

const fn unit(seconds: bool, relative: bool) -> Unit {
    Unit { seconds, relative }
}

/// `HEXPIRE key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
fn hexpire(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    expire(ctx, unit(true, true), "hexpire")
}

/// `HPEXPIRE key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
fn hpexpire(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    expire(ctx, unit(false, true), "hpexpire")
}

/// `HEXPIREAT key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]`
fn hexpireat(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    expire(ctx, unit(true, false), "hexpireat")
}

/// `HPEXPIREAT key unix-time-ms [NX | XX | GT | LT] FIELDS numfields field [field ...]`
fn hpexpireat(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    expire(ctx, unit(false, false), "hpexpireat")
}

/// HTTL and its kin: `key FIELDS numfields field [field ...]`
fn ttl(ctx: &mut DataCtx<'_, '_>, unit: Unit) -> Result<(), Error> {
    let (args, now_ms) = (ctx.args, ctx.db.now_ms());
    let hash = ctx.db.read_as::<Hash>(&args[1])?;
    let fields = fields(args, 2, POSITIVE)?;
    let base = if unit.relative { now_ms } else { 0 };
    ctx.out.array(fields.len());
    for field in fields {
        let hash = hash.filter(|hash| hash.get_live(field, now_ms).is_some());
        let at = hash.map(|hash| hash.expiry(field));
        ctx.out.int(match at {
            None => NO_FIELD,
            Some(None) => NO_EXPIRY,
            Some(Some(at)) if unit.seconds => (at - base + 999) / 1000,
            Some(Some(at)) => at - base,
        });
    }
    Ok(())
}

/// `HTTL key FIELDS numfields field [field ...]`
fn httl(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    ttl(ctx, unit(true, true))
}

/// `HPTTL key FIELDS numfields field [field ...]`
fn hpttl(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    ttl(ctx, unit(false, true))
}

/// `HEXPIRETIME key FIELDS numfields field [field ...]`
fn hexpiretime(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    ttl(ctx, unit(true, false))
}

/// `HPEXPIRETIME key FIELDS numfields field [field ...]`
pub(super) fn hpexpiretime(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    ttl(ctx, unit(false, false))
}

/// `HPERSIST key FIELDS numfields field [field ...]`
fn hpersist(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, now_ms) = (ctx.args, ctx.db.now_ms());
    let key = &args[1];
    let mut hash = ctx.db.write_as::<Hash>(key)?;
    let fields = fields(args, 2, POSITIVE)?;
    ctx.out.array(fields.len());
    let mut changed = false;
    for field in fields {
        let hash = hash.as_deref_mut();
        let hash = hash.filter(|hash| hash.get_live(field, now_ms).is_some());
        ctx.out.int(match hash {
            None => NO_FIELD,
            Some(hash) if hash.expiry(field).is_none() => NO_EXPIRY,
            Some(hash) => {
                hash.set_expiry(field, None);
                changed = true;
                DONE
            }
        });
    }
    if changed {
        ctx.db.note_fields(key);
        ctx.db.changed(key, event::ON_HPERSIST);
    }
    Ok(())
}

/// `HGETDEL key FIELDS numfields field [field ...]`
fn hgetdel(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let key = &args[1];
    ctx.db.write_as::<Hash>(key)?;
    let fields = fields(args, 2, POSITIVE)?;
    ctx.db.expire_fields(key, fields)?;
    let now_ms = ctx.db.now_ms();
    let mut hash = ctx.db.write_as::<Hash>(key)?;
    ctx.out.array(fields.len());
    let mut deleted = 0;
    for field in fields {
        let hash = hash.as_deref_mut();
        let value = hash.as_ref().and_then(|hash| hash.get_live(field, now_ms));
        reply_or_null(ctx.out, value);
        let exists = value.is_some();
        if let Some(hash) = hash.filter(|_| exists) {
            deleted += u64::from(hash.remove(field));
        }
    }
    let emptied = hash.is_some_and(|hash| hash.is_empty());
    if deleted > 0 {
        ctx.db.changed_by(key, event::ON_HDEL, deleted);
        let mut form: Vec<&[u8]> = vec![b"HDEL", key];
        form.extend(fields);
        ctx.db.rewrite(&form);
        remove_if(ctx, key, emptied);
    }
    Ok(())
}

/// `HGETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST] FIELDS numfields field [field ...]`
fn hgetex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, now_ms) = (ctx.args, ctx.db.now_ms());
    let key = &args[1];
    ctx.db.write_as::<Hash>(key)?;
    let (unit, persist) = (Unit::option(args, 2), args.is(2, "persist"));
    let at = match unit {
        Some(unit) => Some(unit.when(args, 3, now_ms, "hgetex")?),
        None => None,
    };
    let before = 2 * usize::from(unit.is_some()) + usize::from(persist);
    let fields = fields(args, 2 + before, POSITIVE)?;
    ctx.db.expire_fields(key, fields)?;
    let mut hash = ctx.db.write_as::<Hash>(key)?;
    ctx.out.array(fields.len());
    let (mut set, mut deleted) = (Vec::new(), Vec::new());
    for &field in fields {
        let hash = hash.as_deref_mut();
        let value = hash.as_ref().and_then(|hash| hash.get_live(field, now_ms));
        reply_or_null(ctx.out, value);
        let exists = value.is_some();
        let Some(hash) = hash.filter(|_| exists) else {
            continue;
        };
        match at {
            None if persist && hash.expiry(field).is_some() => {
                hash.set_expiry(field, None);
                set.push(field);
            }
            None => {}
            Some(at) => match set_expiry(hash, field, at, now_ms, None) {
                DELETED => deleted.push(field),
                _ => set.push(field),
            },
        }
    }
    let emptied = hash.is_some_and(|hash| hash.is_empty());
    let count = set.len() + deleted.len();
    if count == 0 {
        return Ok(());
    }
    let event = match at {
        None => event::ON_HPERSIST,
        Some(_) if set.is_empty() => event::ON_HDEL,
        Some(_) => event::ON_HEXPIRE,
    };
    ctx.db.changed_by(key, event, count as u64);
    propagate_deleted(ctx, key, &deleted);
    match at {
        None => {
            let mut digits = itoa::Buffer::new();
            let number = digits.format(set.len()).as_bytes();
            let mut form: Vec<&[u8]> = vec![b"HPERSIST", key, b"FIELDS", number];
            form.extend(set);
            ctx.db.note_fields(key);
            ctx.db.rewrite(&form);
        }
        Some(at) if !set.is_empty() => {
            ctx.db.note_fields(key);
            propagate_expiry(ctx, key, at, None, &set);
        }
        Some(_) => {}
    }
    remove_if(ctx, key, emptied);
    Ok(())
}

/// The options of HSETEX.
#[derive(Default)]
struct SetOptions {
    /// FNX (false: none of the fields may exist) or FXX (true: all must).
    must_exist: Option<bool>,
    /// The expiry, in Unix milliseconds.
    at: Option<i64>,
    /// KEEPTTL.
    keep: bool,
    /// The first field's argument.
    first: usize,
}

impl SetOptions {
    fn parse(args: Args<'_>, now_ms: i64) -> Result<Self, Error> {
        const CONDITIONS: &str = "ERR Only one of FXX or FNX arguments can be specified";
        const EXPIRIES: &str =
            "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified";
        let mut options = Self::default();
        let mut words = Cursor::new(args, 2);
        while words.step() {
            let must_exist = words.find(&[("fxx", true), ("fnx", false)]);
            let unit = Unit::option(args, words.index());
            if words.is("fields") {
                return options.end(args, words.index());
            }
            if must_exist.is_some() {
                if options.must_exist.is_some() {
                    return Err(Error::line(CONDITIONS));
                }
                options.must_exist = must_exist;
            } else if unit.is_some() || words.is("keepttl") {
                if options.at.is_some() || options.keep {
                    return Err(Error::line(EXPIRIES));
                }
                options.keep = unit.is_none();
                if let Some(unit) = unit {
                    let missing = |_| Error::line("ERR missing expire time");
                    let at = words.take().map_err(missing)?;
                    options.at = Some(unit.when(args, at, now_ms, "hsetex")?);
                }
            } else {
                return Err(Error::quoting("unknown argument: ", words.word(), ""));
            }
        }
        Err(Error::Arity("hsetex".into()))
    }

    /// Reads `FIELDS numfields` at argument `at`, which ends the options.
    fn end(mut self, args: Args<'_>, at: usize) -> Result<Self, Error> {
        const INVALID: &str = "ERR invalid number of fields";
        if at + 1 == args.len() {
            return Err(Error::Arity("hsetex".into()));
        }
        let count = args.int_or(at + 1, INVALID)?;
        if !(1..=i64::from(i32::MAX)).contains(&count) {
            return Err(Error::line(INVALID));
        }
        self.first = at + 2;
        if count * 2 != (args.len() - self.first) as i64 {
            return Err(Error::line("ERR wrong number of arguments"));
        }
        Ok(self)
    }
}

/// `HSETEX key [FNX | FXX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL] FIELDS numfields
/// field value [field value ...]`
fn hsetex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, now_ms, limits) = (ctx.args, ctx.db.now_ms(), limits(ctx.settings));
    let options = SetOptions::parse(args, now_ms)?;
    let key = &args[1];
    let pairs = args.rest(options.first).chunks_exact(2);
    if !is_allowed(ctx, key, options.must_exist, pairs.clone())? {
        ctx.out.int(0);
        return Ok(());
    }
    let hash = ctx.db.write_or_create(key, Hash::new)?;
    let ttl = match options.keep {
        true => FieldTtl::Keep,
        false => FieldTtl::Clear,
    };
    let (mut deleted, count) = (Vec::new(), pairs.len());
    for pair in pairs {
        hash.put(pair[0], pair[1], ttl, limits);
        if let Some(at) = options.at
            && set_expiry(hash, pair[0], at, now_ms, None) == DELETED
        {
            deleted.push(pair[0]);
        }
    }
    let emptied = hash.is_empty();
    ctx.db.changed_by(key, event::ON_HSET, count as u64);
    if let Some(at) = options.at {
        let event = match deleted.is_empty() {
            true => event::ON_HEXPIRE,
            false => event::ON_HDEL,
        };
        ctx.db.also(key, event);
        propagate_deleted(ctx, key, &deleted);
        if deleted.is_empty() {
            ctx.db.note_fields(key);
            propagate_set(ctx, at, &options);
        }
    }
    remove_if(ctx, key, emptied);
    ctx.out.int(1);
    Ok(())
}

/// True when the fields of `pairs` are there, or not, as FXX and FNX want it. Fields that are due
/// go, up to the first that decides.
fn is_allowed(
    ctx: &mut DataCtx<'_, '_>,
    key: &[u8],
    must_exist: Option<bool>,
    mut pairs: std::slice::ChunksExact<'_, &[u8]>,
) -> Result<bool, Error> {
    ctx.db.write_as::<Hash>(key)?;
    let Some(must_exist) = must_exist else {
        return Ok(true);
    };
    let now_ms = ctx.db.now_ms();
    for pair in pairs.by_ref() {
        ctx.db.expire_fields(key, &pair[..1])?;
        let hash = ctx.db.write_as::<Hash>(key)?;
        let exists = hash.is_some_and(|hash| hash.get_live(pair[0], now_ms).is_some());
        if exists != must_exist {
            return Ok(false);
        }
    }
    Ok(true)
}

/// States an HSETEX with its expiry as a Unix time.
fn propagate_set(ctx: &mut DataCtx<'_, '_>, at: i64, options: &SetOptions) {
    let mut ms = itoa::Buffer::new();
    let mut form: Vec<&[u8]> = vec![b"HSETEX", &ctx.args[1]];
    match options.must_exist {
        Some(true) => form.push(b"FXX"),
        Some(false) => form.push(b"FNX"),
        None => {}
    }
    form.extend([b"PXAT", ms.format(at).as_bytes()]);
    form.extend(ctx.args.rest(options.first - 2));
    ctx.db.rewrite(&form);
}
