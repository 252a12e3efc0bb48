//! Hash commands. Those about the expiry of fields are in [`super::hash_expiry`].
//!
//! A command that asks for a field whose time is over removes it, as one does that asks for a key
//! whose time is over; commands that show all fields only leave it out.

use std::collections::HashSet;

use crate::base::long_double::LongDouble;
use crate::base::random;
use crate::config::Settings;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::keyspace::db::Db;
use crate::keyspace::event;
use crate::persistence::layouts;
use crate::resp::write::{Output, Protocol};
use crate::types::collection::Collection;
use crate::types::hash::{FieldTtl, Hash, Limits, Pair};
use crate::types::listpack::Element;

use super::lists::reply;
use super::rows::{GROW_FAST, READ, READ_FAST, READ_KEY, READ_UPDATE_KEY, WRITE_FAST};
use super::scan_options::{self, ScanOptions};

const ASK_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const SET_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];
const SETNX_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::INSERT))];
const DEL_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::DELETE))];

data_rows!(Acl::HASH);

const ORDER: &[&str] = &["nondeterministic_output_order"];
const OUTPUT: &[&str] = &["nondeterministic_output"];

/// The rows.
pub const ROWS: &[Command] = &[
    row("hset", -4, GROW_FAST, SET_KEY, hset).of_element(2),
    row("hmset", -4, GROW_FAST, SET_KEY, hmset).of_element(2),
    row("hsetnx", 4, GROW_FAST, SETNX_KEY, hsetnx).of_element(2),
    row("hget", 3, READ_FAST, READ_KEY, hget).of_element(2),
    row("hmget", -3, READ_FAST, READ_KEY, hmget).of_element(2),
    row("hgetall", 2, READ, READ_KEY, hgetall).tipped(ORDER),
    row("hkeys", 2, READ, READ_KEY, hkeys).tipped(ORDER),
    row("hvals", 2, READ, READ_KEY, hvals).tipped(ORDER),
    row("hdel", -3, WRITE_FAST, DEL_KEY, hdel).of_element(2),
    row("hexists", 3, READ_FAST, ASK_KEY, hexists).of_element(2),
    row("hlen", 2, READ_FAST, ASK_KEY, hlen),
    row("hstrlen", 3, READ_FAST, ASK_KEY, hstrlen).of_element(2),
    row("hincrby", 4, GROW_FAST, READ_UPDATE_KEY, hincrby).of_element(2),
    row("hincrbyfloat", 4, GROW_FAST, READ_UPDATE_KEY, hincrbyfloat).of_element(2),
    row("hrandfield", -2, READ, READ_KEY, hrandfield).tipped(OUTPUT),
    row("hscan", -3, READ, READ_KEY, hscan).tipped(OUTPUT),
];

/// Which representation hashes get.
#[inline]
pub(super) fn limits(settings: &Settings) -> Limits {
    layouts::hash(settings)
}

/// Sets the fields of the arguments; how many were new.
fn set_fields(ctx: &mut DataCtx<'_, '_>, command: &'static str) -> Result<i64, Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    if args.len() % 2 == 1 {
        return Err(Error::Arity(command.into()));
    }
    let key = &args[1];
    let hash = ctx.db.write_or_create(key, Hash::new)?;
    let pairs = args.rest(2).chunks_exact(2);
    let count = pairs.len();
    let added = pairs
        .filter(|pair| hash.set(pair[0], pair[1], limits))
        .count();
    ctx.db.changed_by(key, event::ON_HSET, count as u64);
    Ok(added as i64)
}

/// `HSET key field value [field value ...]`
fn hset(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let added = set_fields(ctx, "hset")?;
    ctx.out.int(added);
    Ok(())
}

/// `HMSET key field value [field value ...]`
fn hmset(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    set_fields(ctx, "hmset")?;
    ctx.out.ok();
    Ok(())
}

/// `HSETNX key field value`
fn hsetnx(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let key = &args[1];
    ctx.db.expire_fields(key, &args.all()[2..3])?;
    let hash = ctx.db.write_or_create(key, Hash::new)?;
    let new = hash.get(&args[2]).is_none();
    if new {
        hash.set(&args[2], &args[3], limits);
        ctx.db.changed(key, event::ON_HSET);
    }
    ctx.out.int(new.into());
    Ok(())
}

/// A value as a bulk string, or nothing.
pub(super) fn reply_or_null(out: &mut Output, value: Option<Element<'_>>) {
    match value {
        Some(value) => reply(out, value),
        None => out.null(),
    }
}

/// Looks a hash up to read some fields, and shows it without those of them that were due.
#[inline]
fn read_fields(
    ctx: &mut DataCtx<'_, '_>,
    fields: &[&[u8]],
    show: impl Fn(&mut Output, Option<Live<'_>>),
) -> Result<(), Error> {
    let (key, now_ms) = (&ctx.args[1], ctx.db.now_ms());
    let hash = ctx.db.read_as::<Hash>(key)?;
    if !hash.is_some_and(|hash| hash.is_due(now_ms)) {
        show(ctx.out, hash.map(|hash| Live { hash, now_ms }));
        return Ok(());
    }
    ctx.db.expire_fields(key, fields)?;
    let hash = ctx.db.get_as::<Hash>(key)?;
    show(ctx.out, hash.map(|hash| Live { hash, now_ms }));
    Ok(())
}

/// A hash as it is now: where fields that are due stay, they are not seen.
#[derive(Clone, Copy)]
struct Live<'a> {
    hash: &'a Hash,
    now_ms: i64,
}

impl<'a> Live<'a> {
    #[inline]
    fn get(self, field: &[u8]) -> Option<Element<'a>> {
        self.hash.get_live(field, self.now_ms)
    }
}

/// `HGET key field`
fn hget(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let fields = &ctx.args.all()[2..];
    read_fields(ctx, fields, |out, hash| {
        reply_or_null(out, hash.and_then(|hash| hash.get(fields[0])));
    })
}

/// `HMGET key field [field ...]`
fn hmget(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let fields = &ctx.args.all()[2..];
    read_fields(ctx, fields, |out, hash| {
        out.array(fields.len());
        for field in fields {
            reply_or_null(out, hash.and_then(|hash| hash.get(field)));
        }
    })
}

/// The hash at argument 1 with the number of its fields that are not due, and the time.
fn read_all<'d>(
    db: &'d mut Db<'_, '_>,
    key: &[u8],
) -> Result<(Option<&'d Hash>, usize, i64), Error> {
    let now_ms = db.now_ms();
    let hash = db.read_as::<Hash>(key)?;
    let len = hash.map_or(0, |hash| hash.len() - hash.count_due(now_ms));
    Ok((hash, len, now_ms))
}

/// `HGETALL key`
fn hgetall(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (hash, len, now_ms) = read_all(&mut ctx.db, &ctx.args[1])?;
    ctx.out.map(len);
    for (field, value) in hash.into_iter().flat_map(|hash| hash.iter_live(now_ms)) {
        reply(ctx.out, field);
        reply(ctx.out, value);
    }
    Ok(())
}

/// Replies with one part of each pair.
fn reply_parts(
    ctx: &mut DataCtx<'_, '_>,
    part: impl for<'a> Fn(Pair<'a>) -> Element<'a>,
) -> Result<(), Error> {
    let (hash, len, now_ms) = read_all(&mut ctx.db, &ctx.args[1])?;
    ctx.out.array(len);
    for pair in hash.into_iter().flat_map(|hash| hash.iter_live(now_ms)) {
        reply(ctx.out, part(pair));
    }
    Ok(())
}

/// `HKEYS key`
fn hkeys(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    reply_parts(ctx, |(field, _)| field)
}

/// `HVALS key`
fn hvals(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    reply_parts(ctx, |(_, value)| value)
}

/// `HDEL key field [field ...]`
fn hdel(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let key = &ctx.args[1];
    let Some(hash) = ctx.db.write_as::<Hash>(key)? else {
        ctx.out.int(0);
        return Ok(());
    };
    let mut removed = 0;
    for field in ctx.args.rest(2) {
        removed += u64::from(hash.remove(field));
        if hash.is_empty() {
            break;
        }
    }
    let emptied = hash.is_empty();
    if removed > 0 {
        ctx.db.changed_by(key, event::ON_HDEL, removed);
    }
    if emptied {
        ctx.db.remove(key);
        ctx.db.also(key, event::ON_DEL);
    }
    ctx.out.uint(removed);
    Ok(())
}

/// `HEXISTS key field`
fn hexists(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let fields = &ctx.args.all()[2..];
    read_fields(ctx, fields, |out, hash| {
        let found = hash.is_some_and(|hash| hash.get(fields[0]).is_some());
        out.int(found.into());
    })
}

/// `HLEN key`
fn hlen(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let hash = ctx.db.read_as::<Hash>(&ctx.args[1])?;
    ctx.out.int(hash.map_or(0, Hash::len) as i64);
    Ok(())
}

/// `HSTRLEN key field`
fn hstrlen(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let fields = &ctx.args.all()[2..];
    read_fields(ctx, fields, |out, hash| {
        let value = hash.and_then(|hash| hash.get(fields[0]));
        out.int(value.map_or(0, Element::len) as i64);
    })
}

/// `HINCRBY key field increment`
fn hincrby(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let (key, field) = (&args[1], &args[2]);
    let by = args.int(3)?;
    ctx.db.expire_fields(key, &args.all()[2..3])?;
    let hash = ctx.db.write_or_create(key, Hash::new)?;
    let old = match hash.get(field).map(Element::integer) {
        None => 0,
        Some(Some(old)) => old,
        Some(None) => return Err(Error::line("ERR hash value is not an integer")),
    };
    let overflow = Error::line("ERR increment or decrement would overflow");
    let new = old.checked_add(by).ok_or(overflow)?;
    let mut digits = itoa::Buffer::new();
    let text = digits.format(new).as_bytes();
    hash.put(field, text, FieldTtl::Keep, limits);
    ctx.db.changed(key, event::ON_HINCRBY);
    ctx.out.int(new);
    Ok(())
}

/// `HINCRBYFLOAT key field increment`
fn hincrbyfloat(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let (key, field) = (&args[1], &args[2]);
    let by = LongDouble::parse(&args[3]).ok_or(Error::NotFloat)?;
    if by.is_nan() || by.is_infinite() {
        return Err(Error::line("ERR value is NaN or Infinity"));
    }
    ctx.db.expire_fields(key, &args.all()[2..3])?;
    let hash = ctx.db.write_or_create(key, Hash::new)?;
    let old = match hash.get(field) {
        None => LongDouble::from_i64(0),
        Some(Element::Int(n)) => LongDouble::from_i64(n),
        Some(Element::Bytes(text)) => {
            LongDouble::parse(text).ok_or(Error::line("ERR hash value is not a float"))?
        }
    };
    let new = old + by;
    if new.is_nan() || new.is_infinite() {
        return Err(Error::line("ERR increment would produce NaN or Infinity"));
    }
    let text = new.format();
    hash.put(field, &text, FieldTtl::Keep, limits);
    let timed = hash.expiry(field).is_some();
    ctx.db.changed(key, event::ON_HINCRBYFLOAT);
    // HSET would remove the expiry.
    let forms: [&[&[u8]]; 2] = [
        &[b"HSET", key, field, &text],
        &[b"HSETEX", key, b"KEEPTTL", b"FIELDS", b"1", field, &text],
    ];
    ctx.db.rewrite(forms[usize::from(timed)]);
    ctx.out.bulk(&text);
    Ok(())
}

/// `HRANDFIELD key [count [WITHVALUES]]`
fn hrandfield(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    if args.len() == 2 {
        let now_ms = read_without_due(ctx)?;
        let hash = ctx.db.get_as::<Hash>(&args[1])?;
        let pair = hash.and_then(|hash| random_live(hash, now_ms));
        reply_or_null(ctx.out, pair.map(|(field, _)| field));
        return Ok(());
    }
    let count = args.int_in(2, -i64::MAX, i64::MAX)?;
    let values = args.len() > 3;
    if args.len() > 4 || (values && !args.is(3, "withvalues")) {
        return Err(Error::Syntax);
    }
    if values && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(Error::OutOfRange);
    }
    let now_ms = read_without_due(ctx)?;
    let hash = ctx.db.get_as::<Hash>(&args[1])?;
    let len = hash.map_or(0, |hash| hash.len() - hash.count_due(now_ms));
    let Some(hash) = hash.filter(|_| count != 0 && len != 0) else {
        ctx.out.array(0);
        return Ok(());
    };
    let wanted = count.unsigned_abs() as usize;
    if count < 0 {
        // One after the other, each any of them.
        open_pairs(ctx.out, wanted, values);
        for pair in (0..wanted).map_while(|_| random_live(hash, now_ms)) {
            put_pair(ctx.out, pair, values);
            if ctx.out.has_overflowed() {
                break;
            }
        }
        return Ok(());
    }
    let wanted = wanted.min(len);
    open_pairs(ctx.out, wanted, values);
    sample(hash, (wanted, len), now_ms, |pair| {
        put_pair(ctx.out, pair, values);
    });
    Ok(())
}

/// Removes what is due from the hash at argument 1, which counts as read; the time.
fn read_without_due(ctx: &mut DataCtx<'_, '_>) -> Result<i64, Error> {
    let (key, now_ms) = (&ctx.args[1], ctx.db.now_ms());
    let hash = ctx.db.read_as::<Hash>(key)?;
    if hash.is_some_and(|hash| hash.is_due(now_ms)) {
        ctx.db.expire_due_fields(key, usize::MAX);
    }
    Ok(now_ms)
}

/// A field with its value that is not due, each with the same probability.
fn random_live(hash: &Hash, now_ms: i64) -> Option<Pair<'_>> {
    if !hash.is_due(now_ms) {
        return hash.random();
    }
    let len = hash.len() - hash.count_due(now_ms);
    hash.iter_live(now_ms).nth(random::below(len))
}

/// The head of fields, or of fields with values: pairs in RESP3, a flat list in RESP2.
fn open_pairs(out: &mut Output, len: usize, values: bool) {
    let flat = values && out.protocol() == Protocol::Resp2;
    out.array(if flat { 2 * len } else { len });
}

fn put_pair(out: &mut Output, (field, value): Pair<'_>, values: bool) {
    if values && out.protocol() == Protocol::Resp3 {
        out.array(2);
    }
    reply(out, field);
    if values {
        reply(out, value);
    }
}

/// Shows `wanted` different fields of the `len` that are not due, each choice of them with the same
/// probability.
fn sample<'a>(
    hash: &'a Hash,
    (mut wanted, len): (usize, usize),
    now_ms: i64,
    mut show: impl FnMut(Pair<'a>),
) {
    if wanted * 3 > len || hash.table().is_none() || hash.is_due(now_ms) {
        // Each field in turn is chosen with the chance that leaves the others theirs.
        for (passed, pair) in hash.iter_live(now_ms).enumerate() {
            if random::below(len - passed) < wanted {
                show(pair);
                wanted -= 1;
            }
        }
        return;
    }
    let mut chosen = HashSet::with_capacity(wanted);
    while chosen.len() < wanted {
        let Some(pair) = hash.random() else { return };
        if chosen.insert(pair.0) {
            show(pair);
        }
    }
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count]`
fn hscan(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (cursor, now_ms) = (scan_options::parse_cursor(&ctx.args[2])?, ctx.db.now_ms());
    let hash = ctx.db.read_as::<Hash>(&ctx.args[1])?;
    let mut found = Vec::new();
    let mut next = 0;
    if let Some(hash) = hash {
        let options = ScanOptions::parse(ctx.args, 3, false)?;
        let due = hash.is_due(now_ms);
        next = hash.scan(cursor, options.count, |pair| {
            let mut digits = itoa::Buffer::new();
            let field = pair.0.text(&mut digits);
            if options.wants(field) && !(due && hash.is_field_due(field, now_ms)) {
                found.push(pair);
            }
        });
    }
    ctx.out.array(2);
    ctx.out.bulk(itoa::Buffer::new().format(next).as_bytes());
    ctx.out.array(2 * found.len());
    for (field, value) in found {
        reply(ctx.out, field);
        reply(ctx.out, value);
    }
    Ok(())
}
