//! List commands on one key. Those that take several keys, move elements or wait for some are in
//! [`super::list_moves`].

use std::ops::ControlFlow;

use crate::config::Settings;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event::{self, Event};
use crate::persistence::layouts;
use crate::resp::write::Output;
use crate::types::collection::Collection;
use crate::types::list::{End, Limits, List};
use crate::types::listpack::Element;

use super::rows::{GROW, READ, READ_KEY, WRITE};

data_rows!(Acl::LIST);

const INSERT: KeyFlags = KeyFlags::RW.or(KeyFlags::INSERT);
const DELETE: KeyFlags = KeyFlags::RW.or(KeyFlags::DELETE);
const POP: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);

const LLEN_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const INSERT_KEY: &[KeySpec] = &[KeySpec::at(1, INSERT)];
const UPDATE_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];
const DELETE_KEY: &[KeySpec] = &[KeySpec::at(1, DELETE)];
const POP_KEY: &[KeySpec] = &[KeySpec::at(1, POP)];

/// The rows.
pub const ROWS: &[Command] = &[
    row("lpush", -3, GROW.or(Flags::FAST), INSERT_KEY, lpush),
    row("rpush", -3, GROW.or(Flags::FAST), INSERT_KEY, rpush),
    row("lpushx", -3, GROW.or(Flags::FAST), INSERT_KEY, lpushx),
    row("rpushx", -3, GROW.or(Flags::FAST), INSERT_KEY, rpushx),
    row("lpop", -2, WRITE.or(Flags::FAST), POP_KEY, lpop),
    row("rpop", -2, WRITE.or(Flags::FAST), POP_KEY, rpop),
    row("llen", 2, READ.or(Flags::FAST), LLEN_KEY, llen),
    row("lrange", 4, READ, READ_KEY, lrange),
    row("lindex", 3, READ, READ_KEY, lindex),
    row("lpos", -3, READ, READ_KEY, lpos),
    row("lset", 4, GROW, UPDATE_KEY, lset),
    row("linsert", 5, GROW, INSERT_KEY, linsert),
    row("lrem", 4, WRITE, DELETE_KEY, lrem),
    row("ltrim", 4, WRITE, DELETE_KEY, ltrim),
];

/// How lists are laid out.
#[inline]
pub(super) fn limits(settings: &Settings) -> Limits {
    layouts::list(settings)
}

/// What is announced of an element that was taken from an end.
pub(super) fn popped(end: End) -> Event {
    match end {
        End::Head => event::ON_LPOP,
        End::Tail => event::ON_RPOP,
    }
}

/// What is announced of an element that was added at an end.
pub(super) fn pushed(end: End) -> Event {
    match end {
        End::Head => event::ON_LPUSH,
        End::Tail => event::ON_RPUSH,
    }
}

/// An element as a bulk string.
#[inline]
pub(super) fn reply(out: &mut Output, element: Element<'_>) {
    match element {
        Element::Bytes(bytes) => out.bulk(bytes),
        Element::Int(n) => out.bulk_int(n),
    }
}

/// The part of a list from `start` to `end`, both included and negative from the tail: its first
/// index and its length.
fn clip(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = len as i64;
    let place = |at: i64| if at < 0 { len.saturating_add(at) } else { at };
    let (start, end) = (place(start).max(0), place(end).min(len - 1));
    (start <= end).then(|| (start as usize, (end - start + 1) as usize))
}

/// Replies with up to `count` elements from an end and takes them off the list; true when the list
/// is empty now. (All of them are left to go with the key.)
pub(super) fn pop_range(
    out: &mut Output,
    list: &mut List,
    end: End,
    count: usize,
    limits: &Limits,
) -> bool {
    let len = list.len();
    out.array(count);
    match end {
        End::Head => list.range(0, count, |element| reply(out, element)),
        End::Tail => {
            let mut left = count;
            list.walk(len - 1, true, |element| {
                reply(out, element);
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            });
        }
    }
    if count == len {
        return true;
    }
    let from = match end {
        End::Head => 0,
        End::Tail => len - count,
    };
    list.delete(from, count, limits);
    false
}

/// Tells that `count` elements were taken from an end of a list, and removes it if it is `empty`.
#[inline]
pub(super) fn after_pop(
    ctx: &mut DataCtx<'_, '_>,
    key: &[u8],
    end: End,
    count: usize,
    empty: bool,
) {
    ctx.db.changed_by(key, popped(end), count as u64);
    if empty {
        drop_empty(ctx, key);
    }
}

fn drop_empty(ctx: &mut DataCtx<'_, '_>, key: &[u8]) {
    ctx.db.remove(key);
    ctx.db.also(key, event::ON_DEL);
}

/// `LPUSH key element [element ...]`
fn lpush(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    push(ctx, End::Head, false)
}

/// `RPUSH key element [element ...]`
fn rpush(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    push(ctx, End::Tail, false)
}

/// `LPUSHX key element [element ...]`
fn lpushx(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    push(ctx, End::Head, true)
}

/// `RPUSHX key element [element ...]`
fn rpushx(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    push(ctx, End::Tail, true)
}

fn push(ctx: &mut DataCtx<'_, '_>, end: End, must_exist: bool) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let (key, values) = (&args[1], args.rest(2));
    let add = |list: &mut List| {
        for value in values {
            list.push(end, value, &limits);
        }
        list.len()
    };
    let len = match ctx.db.write_as::<List>(key)?.map(add) {
        Some(len) => len,
        None if must_exist => {
            ctx.out.int(0);
            return Ok(());
        }
        None => add(ctx.db.write_or_create(key, List::new)?),
    };
    ctx.db.changed_by(key, pushed(end), values.len() as u64);
    ctx.out.int(len as i64);
    Ok(())
}

/// `LPOP key [count]`
fn lpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    pop(ctx, End::Head, "lpop")
}

/// `RPOP key [count]`
fn rpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    pop(ctx, End::Tail, "rpop")
}

fn pop(ctx: &mut DataCtx<'_, '_>, end: End, name: &'static str) -> Result<(), Error> {
    if ctx.args.len() > 2 {
        return pop_several(ctx, end, name);
    }
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let Some(list) = ctx.db.write_as::<List>(&args[1])? else {
        ctx.out.null();
        return Ok(());
    };
    match list.peek(end) {
        Some(element) => reply(ctx.out, element),
        None => ctx.out.null(),
    }
    list.drop_end(end, &limits);
    let empty = list.is_empty();
    after_pop(ctx, &args[1], end, 1, empty);
    Ok(())
}

fn pop_several(ctx: &mut DataCtx<'_, '_>, end: End, name: &'static str) -> Result<(), Error> {
    if ctx.args.len() > 3 {
        return Err(Error::Arity(name.into()));
    }
    const OUT_OF_RANGE: &str = "ERR value is out of range, must be positive";
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let count = args.int_from(2, 0, OUT_OF_RANGE)?;
    let Some(list) = ctx.db.write_as::<List>(&args[1])? else {
        ctx.out.null_array();
        return Ok(());
    };
    if count == 0 {
        ctx.out.array(0);
        return Ok(());
    }
    let count = list.len().min(count as usize);
    let empty = pop_range(ctx.out, list, end, count, &limits);
    after_pop(ctx, &args[1], end, count, empty);
    Ok(())
}

/// `LLEN key`
fn llen(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let list = ctx.db.read_as::<List>(&ctx.args[1])?;
    ctx.out.int(list.map_or(0, |list| list.len() as i64));
    Ok(())
}

/// `LRANGE key start stop`
fn lrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (start, end) = (ctx.args.int(2)?, ctx.args.int(3)?);
    let list = ctx.db.read_as::<List>(&ctx.args[1])?;
    let part = list.and_then(|list| Some((list, clip(start, end, list.len())?)));
    match part {
        None => ctx.out.array(0),
        Some((list, (from, count))) => {
            ctx.out.array(count);
            list.range(from, count, |element| reply(ctx.out, element));
        }
    }
    Ok(())
}

/// `LINDEX key index`
fn lindex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let Some(list) = ctx.db.read_as::<List>(&ctx.args[1])? else {
        ctx.out.null();
        return Ok(());
    };
    match list.index(ctx.args.int(2)?) {
        Some(index) => list.range(index, 1, |element| reply(ctx.out, element)),
        None => ctx.out.null(),
    }
    Ok(())
}

/// `LSET key index element`
fn lset(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let list = ctx.db.write_as::<List>(&args[1])?;
    let list = list.ok_or(Error::NoSuchKey)?;
    let index = list.index(args.int(2)?).ok_or(Error::IndexOutOfRange)?;
    list.set(index, &args[3], &limits);
    ctx.db.changed(&args[1], event::ON_LSET);
    ctx.out.ok();
    Ok(())
}

/// `LINSERT key BEFORE | AFTER pivot element`
fn linsert(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let after = match () {
        () if args.is(2, "after") => true,
        () if args.is(2, "before") => false,
        () => return Err(Error::Syntax),
    };
    let Some(list) = ctx.db.write_as::<List>(&args[1])? else {
        ctx.out.int(0);
        return Ok(());
    };
    if !list.insert(args.all()[3].into(), after, &args[4], &limits) {
        ctx.out.int(-1);
        return Ok(());
    }
    ctx.out.int(list.len() as i64);
    ctx.db.changed(&args[1], event::ON_LINSERT);
    Ok(())
}

/// `LREM key count element`
fn lrem(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let count = args.int(2)?;
    let Some(list) = ctx.db.write_as::<List>(&args[1])? else {
        ctx.out.int(0);
        return Ok(());
    };
    let most = match count {
        0 => usize::MAX,
        _ => count.unsigned_abs() as usize,
    };
    let removed = list.remove(args.all()[3].into(), most, count < 0, &limits);
    let empty = list.is_empty();
    if removed > 0 {
        let event = event::ON_LREM;
        ctx.db.changed_by(&args[1], event, removed as u64);
    }
    if empty {
        drop_empty(ctx, &args[1]);
    }
    ctx.out.int(removed as i64);
    Ok(())
}

/// `LTRIM key start stop`
fn ltrim(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let (start, end) = (args.int(2)?, args.int(3)?);
    let Some(list) = ctx.db.write_as::<List>(&args[1])? else {
        ctx.out.ok();
        return Ok(());
    };
    let len = list.len();
    let kept = clip(start, end, len);
    if let Some((from, count)) = kept {
        list.delete(from + count, len, &limits);
        list.delete(0, from, &limits);
    }
    let removed = len - kept.map_or(0, |(_, count)| count);
    match removed {
        // It is announced even so.
        0 => ctx.db.changed_too(&args[1], event::ON_LTRIM),
        _ => {
            let event = event::ON_LTRIM;
            ctx.db.changed_by(&args[1], event, removed as u64);
        }
    }
    if kept.is_none() {
        drop_empty(ctx, &args[1]);
    }
    ctx.out.ok();
    Ok(())
}

/// The options of LPOS.
struct Search {
    /// Which match is the first one wanted; negative: from the tail.
    rank: i64,
    /// How many are wanted; 0: all. None: one, and not as an array.
    count: Option<i64>,
    /// How many elements are looked at; 0: all.
    max_len: i64,
}

impl Search {
    fn parse(args: Args<'_>) -> Result<Self, Error> {
        const OUT_OF_RANGE: &str = "ERR value is out of range, value must between \
                                    -9223372036854775807 and 9223372036854775807";
        const ZERO: &str = "ERR RANK can't be zero: use 1 to start from the first match, 2 from \
             the second ... or use negative to start from the end of the list";
        let mut search = Self {
            rank: 1,
            count: None,
            max_len: 0,
        };
        let mut options = Cursor::new(args, 3);
        while options.step() {
            match () {
                () if options.is("rank") => match options.int()? {
                    // It has no opposite.
                    i64::MIN => return Err(Error::line(OUT_OF_RANGE)),
                    0 => return Err(Error::line(ZERO)),
                    rank => search.rank = rank,
                },
                () if options.is("count") => {
                    let count = options.int_from(0, "ERR COUNT can't be negative")?;
                    search.count = Some(count);
                }
                () if options.is("maxlen") => {
                    search.max_len = options.int_from(0, "ERR MAXLEN can't be negative")?;
                }
                () => return Err(options.refuse()),
            }
        }
        Ok(search)
    }

    /// Tells `found` the indices of the wanted matches, in the order of the search.
    fn run(&self, list: &List, wanted: Element<'_>, mut found: impl FnMut(usize)) {
        let (len, backwards) = (list.len(), self.rank < 0);
        let rank = self.rank.unsigned_abs();
        let most = match self.count {
            None => 1,
            Some(0) => u64::MAX,
            Some(count) => count as u64,
        };
        let (mut seen, mut matches) = (0usize, 0u64);
        let start = if backwards { len.saturating_sub(1) } else { 0 };
        list.walk(start, backwards, |element| {
            if self.max_len != 0 && seen as i64 >= self.max_len {
                return ControlFlow::Break(());
            }
            if element.same(wanted) {
                matches += 1;
                if matches >= rank {
                    found(if backwards { len - 1 - seen } else { seen });
                    if matches - rank + 1 >= most {
                        return ControlFlow::Break(());
                    }
                }
            }
            seen += 1;
            ControlFlow::Continue(())
        });
    }
}

/// `LPOS key element [RANK rank] [COUNT count] [MAXLEN len]`
fn lpos(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let search = Search::parse(ctx.args)?;
    let list = ctx.db.read_as::<List>(&ctx.args[1])?;
    let wanted = Element::from(ctx.args.all()[2]);
    if search.count.is_none() {
        let mut first = None;
        if let Some(list) = list {
            search.run(list, wanted, |index| first = Some(index));
        }
        match first {
            Some(index) => ctx.out.int(index as i64),
            None => ctx.out.null(),
        }
        return Ok(());
    }
    let (deferred, mut found) = (ctx.out.deferred(), 0);
    if let Some(list) = list {
        search.run(list, wanted, |index| {
            ctx.out.int(index as i64);
            found += 1;
        });
    }
    ctx.out.end_array(deferred, found);
    Ok(())
}
