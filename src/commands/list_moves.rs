//! List commands that take several keys, move elements between lists or wait for some.
//!
//! A command that waits is propagated as what it did in the end: BLPOP as LPOP, BLMOVE as LMOVE.

use crate::dispatch::args::Args;
use crate::dispatch::blocking::Block;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::types::Type;
use crate::types::collection::Collection;
use crate::types::list::{End, List};

use super::lists::{after_pop, limits, pop_range, popped, pushed, reply};
use crate::keyspace::event;

use super::rows::{GROW, WRITE};

const WAIT: Flags = Flags::WRITE.or(Flags::NOSCRIPT).or(Flags::BLOCKING);
const INSERT: KeyFlags = KeyFlags::RW.or(KeyFlags::INSERT);
const POP: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);
const MOVE_KEYS: &[KeySpec] = &[KeySpec::at(1, POP), KeySpec::at(2, INSERT)];
const BPOP_KEYS: &[KeySpec] = &[KeySpec::all_but_last(1, POP)];
const LMPOP_KEYS: &[KeySpec] = &[KeySpec::counted(1, POP)];
const BLMPOP_KEYS: &[KeySpec] = &[KeySpec::counted(2, POP)];

data_rows!(Acl::LIST);

/// The rows.
pub const ROWS: &[Command] = &[
    row("lmove", 5, GROW, MOVE_KEYS, lmove),
    row("rpoplpush", 3, GROW, MOVE_KEYS, rpoplpush),
    row("lmpop", -4, WRITE, LMPOP_KEYS, lmpop),
    row("blpop", -3, WAIT, BPOP_KEYS, blpop),
    row("brpop", -3, WAIT, BPOP_KEYS, brpop),
    row("blmove", 6, WAIT.or(Flags::DENYOOM), MOVE_KEYS, blmove),
    row(
        "brpoplpush",
        4,
        WAIT.or(Flags::DENYOOM),
        MOVE_KEYS,
        brpoplpush,
    ),
    row("blmpop", -5, WRITE.or(Flags::BLOCKING), BLMPOP_KEYS, blmpop),
];

/// An end as LMOVE and LMPOP name it.
fn end(args: Args<'_>, i: usize) -> Result<End, Error> {
    match () {
        () if args.is(i, "left") => Ok(End::Head),
        () if args.is(i, "right") => Ok(End::Tail),
        () => Err(Error::Syntax),
    }
}

/// The command that takes an element from an end.
fn pop_name(end: End) -> &'static [u8] {
    match end {
        End::Head => b"LPOP",
        End::Tail => b"RPOP",
    }
}

/// `LMOVE source destination LEFT | RIGHT LEFT | RIGHT`
fn lmove(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (from, to) = (end(ctx.args, 3)?, end(ctx.args, 4)?);
    if !move_element(ctx, from, to)? {
        ctx.out.null();
    }
    Ok(())
}

/// `RPOPLPUSH source destination`
fn rpoplpush(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    if !move_element(ctx, End::Tail, End::Head)? {
        ctx.out.null();
    }
    Ok(())
}

/// Moves an element from the list at argument 1 to that at argument 2, and replies with it. False
/// without such a list.
fn move_element(ctx: &mut DataCtx<'_, '_>, from: End, to: End) -> Result<bool, Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let (source, destination) = (&args[1], &args[2]);
    if ctx.db.write_as::<List>(source)?.is_none() {
        return Ok(false);
    }
    ctx.db.write_as::<List>(destination)?;
    let list = ctx.db.write_as::<List>(source)?;
    let list = list.expect("it was there, and the lock is held");
    let Some(value) = list.peek(from).map(|element| element.to_vec()) else {
        return Ok(false);
    };
    list.drop_end(from, &limits);
    let target = ctx.db.write_or_create(destination, List::new)?;
    target.push(to, &value, &limits);
    ctx.db.changed_too(destination, pushed(to));
    ctx.out.bulk(&value);
    ctx.db.changed(source, popped(from));
    // The source may be the destination: only now it is known whether it is empty.
    if ctx
        .db
        .write_as::<List>(source)?
        .is_some_and(|list| list.is_empty())
    {
        ctx.db.remove(source);
        ctx.db.also(source, event::ON_DEL);
    }
    Ok(true)
}

/// `BLMOVE source destination LEFT | RIGHT LEFT | RIGHT timeout`
pub(super) fn blmove(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (from, to) = (end(ctx.args, 3)?, end(ctx.args, 4)?);
    let deadline = ctx.args.timeout_in_seconds(5, ctx.db.now_ms())?;
    if !move_element(ctx, from, to)? {
        wait_to_move(ctx, deadline);
        return Ok(());
    }
    let args = ctx.args.all();
    let word = |end: End| match end {
        End::Head => &b"left"[..],
        End::Tail => b"right",
    };
    let (from, to) = match ctx.woken {
        Some(_) => (word(from), word(to)),
        None => (args[3], args[4]),
    };
    let form = [b"LMOVE", args[1], args[2], from, to];
    ctx.db.rewrite(&form);
    Ok(())
}

/// `BRPOPLPUSH source destination timeout`
pub(super) fn brpoplpush(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let deadline = ctx.args.timeout_in_seconds(3, ctx.db.now_ms())?;
    if !move_element(ctx, End::Tail, End::Head)? {
        wait_to_move(ctx, deadline);
        return Ok(());
    }
    let form: [&[u8]; 3] = [b"RPOPLPUSH", &ctx.args[1], &ctx.args[2]];
    ctx.db.rewrite(&form);
    Ok(())
}

fn wait_to_move(ctx: &mut DataCtx<'_, '_>, deadline: Option<i64>) {
    if !ctx.may_block {
        ctx.out.null();
        return;
    }
    ctx.block(Block {
        keys: vec![ctx.args[1].to_vec()],
        on: Type::List,
        deadline,
        also: Some(ctx.args[2].to_vec()),
        on_removal: false,
        request: None,
    });
}

/// `BLPOP key [key ...] timeout`
fn blpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    blocking_pop(ctx, End::Head)
}

/// `BRPOP key [key ...] timeout`
fn brpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    blocking_pop(ctx, End::Tail)
}

fn blocking_pop(ctx: &mut DataCtx<'_, '_>, end: End) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let last = args.len() - 1;
    let deadline = args.timeout_in_seconds(last, ctx.db.now_ms())?;
    let keys = &args.all()[1..last];
    let woken = ctx.woken;
    for &key in woken
        .as_slice()
        .iter()
        .chain(keys)
        .take(candidates(woken, keys))
    {
        let Some(list) = ctx.db.write_as::<List>(key)? else {
            continue;
        };
        let Some(element) = list.peek(end) else {
            continue;
        };
        ctx.out.array(2);
        ctx.out.bulk(key);
        reply(ctx.out, element);
        list.drop_end(end, &limits);
        let empty = list.is_empty();
        after_pop(ctx, key, end, 1, empty);
        ctx.db.rewrite(&[pop_name(end), key]);
        return Ok(());
    }
    wait(ctx, keys, deadline);
    Ok(())
}

/// How many keys are looked at: all, or the one that became ready, which is put before them.
fn candidates(woken: Option<&[u8]>, keys: &[&[u8]]) -> usize {
    match woken {
        Some(_) => 1,
        None => keys.len(),
    }
}

fn wait(ctx: &mut DataCtx<'_, '_>, keys: &[&[u8]], deadline: Option<i64>) {
    ctx.block(Block {
        keys: keys.iter().map(|key| key.to_vec()).collect(),
        on: Type::List,
        deadline,
        also: None,
        on_removal: false,
        request: None,
    });
}

/// `LMPOP numkeys key [key ...] LEFT | RIGHT [COUNT count]`
fn lmpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let request = PopSeveral::parse(ctx.args, 1)?;
    if !request.run(ctx)? {
        ctx.out.null_array();
    }
    Ok(())
}

/// `BLMPOP timeout numkeys key [key ...] LEFT | RIGHT [COUNT count]`
pub(super) fn blmpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let request = PopSeveral::parse(ctx.args, 2)?;
    let deadline = ctx.args.timeout_in_seconds(1, ctx.db.now_ms())?;
    if !request.run(ctx)? {
        wait(ctx, request.keys, deadline);
    }
    Ok(())
}

/// What LMPOP is asked for.
struct PopSeveral<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    /// At least 1.
    count: i64,
}

impl<'a> PopSeveral<'a> {
    /// Reads the arguments from the number of keys at `at` on.
    fn parse(args: Args<'a>, at: usize) -> Result<Self, Error> {
        let keys = args.int_from(at, 1, "ERR numkeys should be greater than 0")?;
        let rest = args.rest(at + 1);
        let keys = usize::try_from(keys).unwrap_or(usize::MAX);
        if keys >= rest.len() {
            return Err(Error::Syntax);
        }
        let end = end(args, at + 1 + keys)?;
        let mut count = None;
        let mut options = Cursor::new(args, at + 2 + keys);
        while options.step() {
            if count.is_some() || !options.is("count") {
                return Err(options.refuse());
            }
            count = Some(options.int_from(1, "ERR count should be greater than 0")?);
        }
        Ok(Self {
            keys: &rest[..keys],
            end,
            count: count.unwrap_or(1),
        })
    }

    /// Pops from the first list there is, and replies; false when there is none.
    fn run(&self, ctx: &mut DataCtx<'_, '_>) -> Result<bool, Error> {
        let (woken, limits) = (ctx.woken, limits(ctx.settings));
        let keys = woken.as_slice().iter().chain(self.keys);
        for &key in keys.take(candidates(woken, self.keys)) {
            let Some(list) = ctx.db.write_as::<List>(key)? else {
                continue;
            };
            let count = list.len().min(self.count as usize);
            if count == 0 {
                continue;
            }
            ctx.out.array(2);
            ctx.out.bulk(key);
            let empty = pop_range(ctx.out, list, self.end, count, &limits);
            after_pop(ctx, key, self.end, count, empty);
            let mut digits = itoa::Buffer::new();
            let count = digits.format(count).as_bytes();
            ctx.db.rewrite(&[pop_name(self.end), key, count]);
            return Ok(true);
        }
        Ok(false)
    }
}
