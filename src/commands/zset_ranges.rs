//! Sorted set commands on ranges: by rank, by score, by text; reading, counting, storing, removing.

use std::ops::Range;

use crate::base::number;
use crate::base::text::before_nul;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event::{self, Event};
use crate::types::collection::Collection;
use crate::types::listpack::Element;
use crate::types::zset::{LexBound, LexRange, ScoreRange, ZSet};

use super::rows::{GROW, READ, READ_FAST, READ_KEY, WRITE};
use super::zsets;

const REM_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::DELETE))];

const RANGE_STORE_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::OVERWRITE),
    KeySpec::at(2, KeyFlags::READ),
];

data_rows!(Acl::SORTEDSET);

/// The rows.
pub const ROWS: &[Command] = &[
    row("zcount", 4, READ_FAST, READ_KEY, zcount),
    row("zlexcount", 4, READ_FAST, READ_KEY, zlexcount),
    row("zrange", -4, READ, READ_KEY, zrange),
    row("zrangestore", -5, GROW, RANGE_STORE_KEYS, zrangestore),
    row("zrevrange", -4, READ, READ_KEY, zrevrange),
    row("zrangebyscore", -4, READ, READ_KEY, zrangebyscore),
    row("zrevrangebyscore", -4, READ, READ_KEY, zrevrangebyscore),
    row("zrangebylex", -4, READ, READ_KEY, zrangebylex),
    row("zrevrangebylex", -4, READ, READ_KEY, zrevrangebylex),
    row("zremrangebyrank", 4, WRITE, REM_KEY, zremrangebyrank),
    row("zremrangebyscore", 4, WRITE, REM_KEY, zremrangebyscore),
    row("zremrangebylex", 4, WRITE, REM_KEY, zremrangebylex),
];

/// What a range is given by.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// A range as the arguments say it.
enum Bounds<'a> {
    Rank(i64, i64),
    Score(ScoreRange),
    Lex(LexRange<'a>),
}

/// A bound of scores: its value, and whether it is left out.
fn score_bound(text: &[u8]) -> Option<(f64, bool)> {
    let (text, excluded) = match text {
        [b'(', rest @ ..] => (rest, true),
        all => (all, false),
    };
    // As C reads it: to the first NUL, and nothing at all is 0.
    let text = before_nul(text);
    let (value, len) = number::strtod(text);
    (len == text.len() && !value.is_nan()).then_some((value, excluded))
}

/// The range of scores from argument `min` to argument `max`.
fn score_range(args: Args<'_>, min: usize, max: usize) -> Result<ScoreRange, Error> {
    let bounds = score_bound(&args[min]).zip(score_bound(&args[max]));
    let Some(((min, above_min), (max, below_max))) = bounds else {
        return Err(Error::line("ERR min or max is not a float"));
    };
    Ok(ScoreRange {
        min,
        max,
        above_min,
        below_max,
    })
}

fn lex_bound(text: &[u8]) -> Option<LexBound<'_>> {
    match text {
        [b'+'] | [b'+', 0, ..] => Some(LexBound::Highest),
        [b'-'] | [b'-', 0, ..] => Some(LexBound::Lowest),
        [b'(', rest @ ..] => Some(LexBound::Without(rest)),
        [b'[', rest @ ..] => Some(LexBound::With(rest)),
        _ => None,
    }
}

/// The range of texts from argument `min` to argument `max`.
fn lex_range<'a>(args: Args<'a>, min: usize, max: usize) -> Result<LexRange<'a>, Error> {
    let bounds = lex_bound(args.all()[min]).zip(lex_bound(args.all()[max]));
    let Some((min, max)) = bounds else {
        return Err(Error::line("ERR min or max not valid string range item"));
    };
    Ok(LexRange { min, max })
}

impl<'a> Bounds<'a> {
    fn parse(by: By, args: Args<'a>, min: usize, max: usize) -> Result<Self, Error> {
        Ok(match by {
            By::Rank => Self::Rank(args.int(min)?, args.int(max)?),
            By::Score => Self::Score(score_range(args, min, max)?),
            By::Lex => Self::Lex(lex_range(args, min, max)?),
        })
    }

    /// The ranks that the range has in a set; those of [`Bounds::Rank`] count from the end that
    /// `descending` says.
    fn ranks(&self, set: &ZSet, descending: bool) -> Range<usize> {
        match self {
            Self::Score(range) => set.ranks_by_score(range),
            Self::Lex(range) => set.ranks_by_lex(range),
            Self::Rank(start, end) => {
                let len = set.len();
                let ranks = within(*start, *end, len);
                match descending {
                    true => len - ranks.end..len - ranks.start,
                    false => ranks,
                }
            }
        }
    }
}

/// The indices from `start` to `end`, both included, negative from the end, of `len` ones.
fn within(start: i64, end: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let from_end = |at: i64| if at < 0 { len + at } else { at };
    let (start, end) = (from_end(start).max(0), from_end(end).min(len - 1));
    if start > end {
        return 0..0;
    }
    start as usize..end as usize + 1
}

/// What a command on ranges leaves open to its options.
#[derive(Clone, Copy)]
struct Form {
    /// Where the key stands; the bounds and the options follow.
    key: usize,
    by: Option<By>,
    descending: Option<bool>,
    /// The result is stored in argument 1.
    store: bool,
}

const ZRANGE: Form = Form {
    key: 1,
    by: None,
    descending: None,
    store: false,
};

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
fn zrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    range(ctx, ZRANGE)
}

/// `ZRANGESTORE dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]`
pub(super) fn zrangestore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    range(
        ctx,
        Form {
            key: 2,
            store: true,
            ..ZRANGE
        },
    )
}

fn fixed(ctx: &mut DataCtx<'_, '_>, by: By, descending: bool) -> Result<(), Error> {
    range(
        ctx,
        Form {
            by: Some(by),
            descending: Some(descending),
            ..ZRANGE
        },
    )
}

/// `ZREVRANGE key start stop [WITHSCORES]`
fn zrevrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    fixed(ctx, By::Rank, true)
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
fn zrangebyscore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    fixed(ctx, By::Score, false)
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub(super) fn zrevrangebyscore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    fixed(ctx, By::Score, true)
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
fn zrangebylex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    fixed(ctx, By::Lex, false)
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
fn zrevrangebylex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    fixed(ctx, By::Lex, true)
}

/// What was asked for, once the options are read.
struct Request<'a> {
    key: &'a [u8],
    bounds: Bounds<'a>,
    descending: bool,
    offset: i64,
    limit: i64,
    scores: bool,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>, form: Form) -> Result<Self, Error> {
        let (mut by, mut descending, mut scores) = (form.by, form.descending, false);
        let (mut offset, mut limit) = (0, -1);
        let mut options = Cursor::new(args, form.key + 3);
        while options.step() {
            match () {
                () if !form.store && options.is("withscores") => scores = true,
                () if options.has("limit", 2) => (offset, limit) = (options.int()?, options.int()?),
                () if descending.is_none() && options.is("rev") => descending = Some(true),
                () if by.is_none() && options.is("bylex") => by = Some(By::Lex),
                () if by.is_none() && options.is("byscore") => by = Some(By::Score),
                () => return Err(options.refuse()),
            }
        }
        let (by, descending) = (by.unwrap_or(By::Rank), descending.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(Error::line(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX",
            ));
        }
        if scores && by == By::Lex {
            return Err(Error::line(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // From the end, a range by value is given greatest first.
        let (min, max) = match descending && by != By::Rank {
            true => (form.key + 2, form.key + 1),
            false => (form.key + 1, form.key + 2),
        };
        Ok(Self {
            key: args.all()[form.key],
            bounds: Bounds::parse(by, args, min, max)?,
            descending,
            offset,
            limit,
            scores,
        })
    }

    /// The ranks asked for, options included.
    fn ranks(&self, set: &ZSet) -> Range<usize> {
        let ranks = self.bounds.ranks(set, self.descending);
        if matches!(self.bounds, Bounds::Rank(..)) {
            return ranks;
        }
        let skip = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let skip = skip.min(ranks.len());
        let count = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let count = count.min(ranks.len() - skip);
        match self.descending {
            true => ranks.end - skip - count..ranks.end - skip,
            false => ranks.start + skip..ranks.start + skip + count,
        }
    }
}

fn range(ctx: &mut DataCtx<'_, '_>, form: Form) -> Result<(), Error> {
    let request = Request::parse(ctx.args, form)?;
    let found = ctx.db.read_as::<ZSet>(request.key)?;
    if form.store {
        let limits = zsets::limits(ctx.settings);
        let set = match found {
            Some(set) => part(set, request.ranks(set), limits),
            None => ZSet::new(limits, 0),
        };
        zsets::store_result(ctx, ctx.args.all()[1], set, event::ON_ZRANGESTORE);
        return Ok(());
    }
    let Some(set) = found else {
        ctx.out.array(0);
        return Ok(());
    };
    let ranks = request.ranks(set);
    zsets::open_members(ctx.out, ranks.len(), request.scores);
    for member in set.iter(ranks, request.descending) {
        zsets::put_member(ctx.out, member, request.scores);
    }
    Ok(())
}

/// A set of the members of `set` that have these ranks.
fn part(set: &ZSet, ranks: Range<usize>, limits: crate::types::zset::Limits) -> ZSet {
    // What has more members than a listpack may is a tree from the start.
    let first = if ranks.len() > limits.entries {
        usize::MAX
    } else {
        0
    };
    let mut part = ZSet::new(limits, first);
    let mut digits = itoa::Buffer::new();
    for (member, score) in set.iter(ranks, false) {
        part.insert(score, Element::text(member, &mut digits), limits);
    }
    part
}

/// `ZCOUNT key min max`
fn zcount(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    count(ctx, By::Score)
}

/// `ZLEXCOUNT key min max`
fn zlexcount(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    count(ctx, By::Lex)
}

fn count(ctx: &mut DataCtx<'_, '_>, by: By) -> Result<(), Error> {
    let bounds = Bounds::parse(by, ctx.args, 2, 3)?;
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    let count = set.map_or(0, |set| bounds.ranks(set, false).len());
    ctx.out.uint(count as u64);
    Ok(())
}

/// `ZREMRANGEBYRANK key start stop`
pub(super) fn zremrangebyrank(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    remove(ctx, By::Rank, event::ON_ZREMRANGEBYRANK)
}

/// `ZREMRANGEBYSCORE key min max`
pub(super) fn zremrangebyscore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    remove(ctx, By::Score, event::ON_ZREMRANGEBYSCORE)
}

/// `ZREMRANGEBYLEX key min max`
fn zremrangebylex(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    remove(ctx, By::Lex, event::ON_ZREMRANGEBYLEX)
}

fn remove(ctx: &mut DataCtx<'_, '_>, by: By, event: Event) -> Result<(), Error> {
    let bounds = Bounds::parse(by, ctx.args, 2, 3)?;
    let key = ctx.args.all()[1];
    let Some(set) = ctx.db.write_as::<ZSet>(key)? else {
        ctx.out.int(0);
        return Ok(());
    };
    let ranks = bounds.ranks(set, false);
    let count = ranks.len() as u64;
    // A set that loses all of its members is freed as a whole, outside the lock.
    let empty = ranks.len() == set.len();
    if !empty {
        set.remove_ranks(ranks);
    }
    zsets::removed_members(ctx, key, event, count, empty);
    ctx.out.uint(count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_c_reads_numbers() {
        let check = |text: &[u8], expected| assert_eq!(score_bound(text), expected, "{text:?}");
        check(b"1.5", Some((1.5, false)));
        check(b"(1", Some((1.0, true)));
        check(b"(-inf", Some((f64::NEG_INFINITY, true)));
        check(b"+inf", Some((f64::INFINITY, false)));
        check(b" 3", Some((3.0, false)));
        check(b"", Some((0.0, false)));
        check(b"(", Some((0.0, true)));
        check(b"1\0x", Some((1.0, false)));
        check(b"1x", None);
        check(b"nan", None);
        check(b"((1", None);
        assert_eq!(lex_bound(b"+\0x"), Some(LexBound::Highest));
        assert_eq!(lex_bound(b"-x"), None);
        assert_eq!(lex_bound(b""), None);
        assert_eq!(lex_bound(b"(+"), Some(LexBound::Without(b"+")));
    }

    #[test]
    fn indices_are_kept_within() {
        let check = |start, end, expected| assert_eq!(within(start, end, 5), expected);
        check(0, -1, 0..5);
        check(-2, 100, 3..5);
        check(3, 1, 0..0);
        check(5, 9, 0..0);
        check(i64::MIN, i64::MAX, 0..5);
        check(i64::MAX, i64::MIN, 0..0);
        assert_eq!(within(0, -1, 0), 0..0);
    }
}
