//! Sorted set commands that take members from an end.

use crate::dispatch::args::Args;
use crate::dispatch::blocking::Block;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event::{self, Event};
use crate::types::Type;
use crate::types::collection::Collection;
use crate::types::zset::ZSet;

use super::rows::{WRITE, WRITE_FAST};
use super::zsets;

const WAIT: Flags = Flags::WRITE.or(Flags::BLOCKING);
const TAKES: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);
const POP_KEY: &[KeySpec] = &[KeySpec::at(1, TAKES)];
const MPOP_KEYS: &[KeySpec] = &[KeySpec::counted(1, TAKES)];
const BMPOP_KEYS: &[KeySpec] = &[KeySpec::counted(2, TAKES)];
const WAIT_KEYS: &[KeySpec] = &[KeySpec::all_but_last(1, TAKES)];

data_rows!(Acl::SORTEDSET);

/// The rows.
pub const ROWS: &[Command] = &[
    row("zpopmin", -2, WRITE_FAST, POP_KEY, zpopmin),
    row("zpopmax", -2, WRITE_FAST, POP_KEY, zpopmax),
    row("zmpop", -4, WRITE, MPOP_KEYS, zmpop),
    row(
        "bzpopmin",
        -3,
        WAIT.or(Flags::FAST).or(Flags::NOSCRIPT),
        WAIT_KEYS,
        bzpopmin,
    ),
    row(
        "bzpopmax",
        -3,
        WAIT.or(Flags::FAST).or(Flags::NOSCRIPT),
        WAIT_KEYS,
        bzpopmax,
    ),
    row("bzmpop", -5, WAIT, BMPOP_KEYS, bzmpop),
];

/// The end from which members are taken.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Min,
    Max,
}

impl End {
    fn event(self) -> Event {
        match self {
            Self::Min => event::ON_ZPOPMIN,
            Self::Max => event::ON_ZPOPMAX,
        }
    }

    /// The command that takes from this end, which others are propagated as.
    fn command(self) -> &'static [u8] {
        match self {
            Self::Min => b"ZPOPMIN",
            Self::Max => b"ZPOPMAX",
        }
    }
}

/// How members that were taken are answered.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    /// One array of members and scores by turns.
    Flat,
    /// The same behind the key.
    FlatWithKey,
    /// Pairs.
    Pairs,
    /// The key, and pairs.
    PairsWithKey,
}

/// `ZPOPMIN key [count]`
fn zpopmin(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    zpop(ctx, End::Min)
}

/// `ZPOPMAX key [count]`
fn zpopmax(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    zpop(ctx, End::Max)
}

fn zpop(ctx: &mut DataCtx<'_, '_>, end: End) -> Result<(), Error> {
    if ctx.args.len() > 3 {
        return Err(Error::Syntax);
    }
    let given = ctx.args.len() == 3;
    let count = match given {
        true => {
            ctx.args
                .int_from(2, 0, "ERR value is out of range, must be positive")? as usize
        }
        false => 1,
    };
    let key = ctx.args.all()[1];
    if ctx.db.write_as::<ZSet>(key)?.is_none() || count == 0 {
        ctx.out.array(0);
        return Ok(());
    }
    let shape = if ctx.out.resp3() && given {
        Shape::Pairs
    } else {
        Shape::Flat
    };
    take(ctx, key, end, count, shape)?;
    Ok(())
}

/// Takes up to `count` members from the set at `key`, which there is, and answers them. How many.
fn take(
    ctx: &mut DataCtx<'_, '_>,
    key: &[u8],
    end: End,
    count: usize,
    shape: Shape,
) -> Result<usize, Error> {
    let Some(set) = ctx.db.write_as::<ZSet>(key)? else {
        return Ok(0);
    };
    let len = set.len();
    let count = count.min(len);
    let ranks = match end {
        End::Min => 0..count,
        End::Max => len - count..len,
    };
    let nested = matches!(shape, Shape::Pairs | Shape::PairsWithKey);
    match shape {
        Shape::Flat => ctx.out.array(2 * count),
        Shape::Pairs => ctx.out.array(count),
        Shape::FlatWithKey => {
            ctx.out.array(2 * count + 1);
            ctx.out.bulk(key);
        }
        Shape::PairsWithKey => {
            ctx.out.array(2);
            ctx.out.bulk(key);
            ctx.out.array(count);
        }
    }
    for (member, score) in set.iter(ranks.clone(), end == End::Max) {
        if nested {
            ctx.out.array(2);
        }
        zsets::reply_member(ctx.out, member);
        ctx.out.double(score);
    }
    let empty = count == len;
    if !empty {
        set.remove_ranks(ranks);
    }
    zsets::removed_members(ctx, key, end.event(), count as u64, empty);
    Ok(count)
}

/// As [`take`], for ZMPOP and BZMPOP: propagated with the number of members taken.
fn take_counted(
    ctx: &mut DataCtx<'_, '_>,
    key: &[u8],
    end: End,
    count: usize,
) -> Result<(), Error> {
    let taken = take(ctx, key, end, count, Shape::PairsWithKey)?;
    let mut digits = itoa::Buffer::new();
    let taken = digits.format(taken).as_bytes();
    ctx.db.rewrite(&[end.command(), key, taken]);
    Ok(())
}

/// The keys, the end and the count of ZMPOP and BZMPOP, whose number of keys is argument `at`.
struct Several<'a> {
    keys: &'a [&'a [u8]],
    end: End,
    count: usize,
}

impl<'a> Several<'a> {
    fn parse(args: Args<'a>, at: usize) -> Result<Self, Error> {
        let positive = |i, error| {
            let n = args.int_or(i, error)?;
            match usize::try_from(n) {
                Ok(n @ 1..) => Ok(n),
                _ => Err(Error::line(error)),
            }
        };
        let keys = positive(at, "ERR numkeys should be greater than 0")?;
        let place = keys.saturating_add(at + 1);
        let end = match () {
            () if args.is(place, "min") => End::Min,
            () if args.is(place, "max") => End::Max,
            () => return Err(Error::Syntax),
        };
        let mut count = None;
        let mut options = Cursor::new(args, place + 1);
        while options.step() {
            if count.is_some() || !options.is("count") {
                return Err(options.refuse());
            }
            let at = options.take()?;
            count = Some(positive(at, "ERR count should be greater than 0")?);
        }
        Ok(Self {
            keys: &args.all()[at + 1..place],
            end,
            count: count.unwrap_or(1),
        })
    }
}

/// `ZMPOP numkeys key [key ...] <MIN | MAX> [COUNT count]`
fn zmpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let Several { keys, end, count } = Several::parse(ctx.args, 1)?;
    for key in keys {
        if ctx.db.write_as::<ZSet>(key)?.is_some() {
            return take_counted(ctx, key, end, count);
        }
    }
    ctx.out.null_array();
    Ok(())
}

/// `BZPOPMIN key [key ...] timeout`
pub(super) fn bzpopmin(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    bzpop(ctx, End::Min)
}

/// `BZPOPMAX key [key ...] timeout`
pub(super) fn bzpopmax(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    bzpop(ctx, End::Max)
}

fn bzpop(ctx: &mut DataCtx<'_, '_>, end: End) -> Result<(), Error> {
    let last = ctx.args.len() - 1;
    let deadline = ctx.args.timeout_in_seconds(last, ctx.db.now_ms())?;
    let keys = &ctx.args.all()[1..last];
    let Some(key) = first_with_members(ctx, keys)? else {
        wait(ctx, keys, deadline);
        return Ok(());
    };
    take(ctx, &key, end, 1, Shape::FlatWithKey)?;
    ctx.db.rewrite(&[end.command(), &key]);
    Ok(())
}

/// `BZMPOP timeout numkeys key [key ...] <MIN | MAX> [COUNT count]`
fn bzmpop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let Several { keys, end, count } = Several::parse(ctx.args, 2)?;
    let deadline = ctx.args.timeout_in_seconds(1, ctx.db.now_ms())?;
    match first_with_members(ctx, keys)? {
        Some(key) => take_counted(ctx, &key, end, count)?,
        None => wait(ctx, keys, deadline),
    }
    Ok(())
}

/// The first of the keys that there is, which must be a sorted set; of a command that waited, the
/// one that became ready.
fn first_with_members(ctx: &mut DataCtx<'_, '_>, keys: &[&[u8]]) -> Result<Option<Vec<u8>>, Error> {
    let woken = ctx.woken;
    let mut keys = keys.iter().filter(|key| woken.is_none_or(|w| w == **key));
    let found = keys.find_map(|key| match ctx.db.write_as::<ZSet>(key) {
        Ok(None) => None,
        Ok(Some(_)) => Some(Ok(key.to_vec())),
        Err(wrong) => Some(Err(wrong.into())),
    });
    found.transpose()
}

fn wait(ctx: &mut DataCtx<'_, '_>, keys: &[&[u8]], deadline: Option<i64>) {
    ctx.block(Block {
        keys: keys.iter().map(|key| key.to_vec()).collect(),
        on: Type::ZSet,
        deadline,
        also: None,
        on_removal: false,
        request: None,
    });
}
