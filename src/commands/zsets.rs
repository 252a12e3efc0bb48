//! Sorted set commands on single members.
//!
//! Ranges are in [`super::zset_ranges`], pops in [`super::zset_pops`], unions and the like in
//! [`super::zset_algebra`], random members and walks in [`super::zset_samples`].

use crate::config::Settings;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event;
use crate::persistence::layouts;
use crate::resp::write::Output;
use crate::types::collection::Collection;
use crate::types::listpack::Element;
use crate::types::zset::{Limits, ZSet};

use super::rows::{GROW_FAST, READ_FAST, READ_KEY, READ_UPDATE_KEY, WRITE_FAST};

const CARD_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const ADD_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];
const REM_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::DELETE))];

data_rows!(Acl::SORTEDSET);

/// The rows.
pub const ROWS: &[Command] = &[
    row("zadd", -4, GROW_FAST, ADD_KEY, zadd),
    row("zincrby", 4, GROW_FAST, READ_UPDATE_KEY, zincrby),
    row("zrem", -3, WRITE_FAST, REM_KEY, zrem),
    row("zcard", 2, READ_FAST, CARD_KEY, zcard),
    row("zscore", 3, READ_FAST, READ_KEY, zscore),
    row("zmscore", -3, READ_FAST, READ_KEY, zmscore),
    row("zrank", -3, READ_FAST, READ_KEY, zrank),
    row("zrevrank", -3, READ_FAST, READ_KEY, zrevrank),
];

/// Up to what a sorted set is a listpack.
pub(super) fn limits(settings: &Settings) -> Limits {
    layouts::zset(settings)
}

/// Writes a member.
#[inline]
pub(super) fn reply_member(out: &mut Output, member: Element<'_>) {
    match member {
        Element::Bytes(bytes) => out.bulk(bytes),
        Element::Int(n) => out.bulk_int(n),
    }
}

/// Opens an array of `len` members, each with its score if `scores`: flat in RESP2, pairs in RESP3.
pub(super) fn open_members(out: &mut Output, len: usize, scores: bool) {
    out.array(if scores && !out.resp3() { 2 * len } else { len });
}

/// Writes a member into an array that [`open_members`] opened.
#[inline]
pub(super) fn put_member(out: &mut Output, (member, score): (Element<'_>, f64), scores: bool) {
    if scores && out.resp3() {
        out.array(2);
    }
    reply_member(out, member);
    if scores {
        out.double(score);
    }
}

/// The options of ZADD, which ZINCRBY has none of.
#[derive(Clone, Copy, Default)]
pub(super) struct AddOptions {
    /// Only new members.
    pub nx: bool,
    /// Only members that are there.
    pub xx: bool,
    /// Only to a greater score.
    pub gt: bool,
    /// Only to a lesser score.
    pub lt: bool,
    /// Count changed members too.
    pub ch: bool,
    /// Add to the score; answer the new one.
    pub incr: bool,
}

impl AddOptions {
    /// The options from argument 2 on, and where they end.
    fn parse(args: Args<'_>) -> (Self, usize) {
        let mut options = Self::default();
        let mut words = Cursor::new(args, 2);
        while words.step() {
            match () {
                () if words.is("nx") => options.nx = true,
                () if words.is("xx") => options.xx = true,
                () if words.is("gt") => options.gt = true,
                () if words.is("lt") => options.lt = true,
                () if words.is("ch") => options.ch = true,
                () if words.is("incr") => options.incr = true,
                () => break,
            }
        }
        (options, words.index())
    }

    fn check(self, pairs: usize) -> Result<(), Error> {
        if self.nx && self.xx {
            return Err(Error::line(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if (self.nx && (self.gt || self.lt)) || (self.gt && self.lt) {
            return Err(Error::line(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if self.incr && pairs > 1 {
            return Err(Error::line(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok(())
    }
}

/// What adding members did.
#[derive(Clone, Copy, Default)]
struct Added {
    new: u64,
    updated: u64,
    /// The score that the last member has now, unless an option kept it as it was.
    score: Option<f64>,
    /// An increment led to what is no number.
    nan: bool,
}

impl Added {
    /// The score that a member gets, if any, for the one it has and the one that is given.
    fn decide(&mut self, options: AddOptions, old: Option<f64>, score: f64) -> Option<f64> {
        self.score = None;
        let Some(old) = old else {
            if options.xx {
                return None;
            }
            self.new += 1;
            self.score = Some(score);
            return Some(score);
        };
        if options.nx {
            return None;
        }
        let score = if options.incr { old + score } else { score };
        if score.is_nan() {
            self.nan = true;
            return None;
        }
        if (options.lt && score >= old) || (options.gt && score <= old) {
            return None;
        }
        self.score = Some(score);
        self.updated += u64::from(score != old);
        (score != old).then_some(score)
    }
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]`
fn zadd(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (options, from) = AddOptions::parse(ctx.args);
    let pairs = ctx.args.rest(from).len();
    if pairs == 0 || !pairs.is_multiple_of(2) {
        return Err(Error::Syntax);
    }
    options.check(pairs / 2)?;
    let given = ctx.args.rest(from).chunks_exact(2);
    // All scores must be right before the first is used; one is read just once.
    let mut scores = smallvec::SmallVec::<[(f64, &[u8]); 8]>::new();
    for (i, pair) in given.enumerate() {
        scores.push((ctx.args.float(from + 2 * i)?, pair[1]));
    }
    add(ctx, options, &scores)
}

/// `ZINCRBY key increment member`
fn zincrby(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let options = AddOptions {
        incr: true,
        ..AddOptions::default()
    };
    // An option of ZADD in the place of the score leaves a score without its member.
    let is_option = |word: &&str| ctx.args.is(2, word);
    if ["nx", "xx", "ch", "incr", "gt", "lt"].iter().any(is_option) {
        return Err(Error::Syntax);
    }
    let score = ctx.args.float(2)?;
    add(ctx, options, &[(score, ctx.args.all()[3])])
}

/// Adds members to the sorted set at argument 1, and answers.
pub(super) fn add(
    ctx: &mut DataCtx<'_, '_>,
    options: AddOptions,
    members: &[(f64, &[u8])],
) -> Result<(), Error> {
    let key = ctx.args.all()[1];
    let limits = limits(ctx.settings);
    let mut added = Added::default();
    if !options.xx || ctx.db.write_as::<ZSet>(key)?.is_some() {
        let first = members[0].1.len();
        let set = ctx.db.write_or_create(key, || ZSet::new(limits, first))?;
        if !set.has_room() {
            return Err(Error::OutOfMemory);
        }
        for &(score, member) in members {
            set.alter(member, limits, |old| added.decide(options, old, score));
        }
    }
    if added.nan {
        return Err(Error::line("ERR resulting score is not a number (NaN)"));
    }
    match added.score {
        _ if !options.incr && options.ch => ctx.out.uint(added.new + added.updated),
        _ if !options.incr => ctx.out.uint(added.new),
        Some(score) => ctx.out.double(score),
        None => ctx.out.null(),
    }
    if added.new + added.updated > 0 {
        let event = if options.incr {
            event::ON_ZINCR
        } else {
            event::ON_ZADD
        };
        ctx.db.changed_by(key, event, added.new + added.updated);
    }
    Ok(())
}

/// `ZREM key member [member ...]`
fn zrem(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let key = ctx.args.all()[1];
    let mut removed = 0;
    if let Some(set) = ctx.db.write_as::<ZSet>(key)? {
        for member in ctx.args.rest(2) {
            removed += u64::from(set.remove(member).is_some());
            if set.is_empty() {
                break;
            }
        }
        let empty = set.is_empty();
        removed_members(ctx, key, event::ON_ZREM, removed, empty);
    }
    ctx.out.uint(removed);
    Ok(())
}

/// Tells that `count` members were removed from a sorted set, and removes it if that left it
/// `empty`.
pub(super) fn removed_members(
    ctx: &mut DataCtx<'_, '_>,
    key: &[u8],
    event: event::Event,
    count: u64,
    empty: bool,
) {
    if count == 0 {
        return;
    }
    if empty {
        ctx.db.remove(key);
    }
    ctx.db.changed_by(key, event, count);
    if empty {
        ctx.db.also(key, event::ON_DEL);
    }
}

/// Stores the result of a command in `key`, or removes what is there when the result is empty.
pub(super) fn store_result(ctx: &mut DataCtx<'_, '_>, key: &[u8], set: ZSet, event: event::Event) {
    if !set.is_empty() {
        ctx.out.uint(set.len() as u64);
        ctx.db.store(key, set);
        ctx.db.changed(key, event);
        return;
    }
    ctx.out.int(0);
    if ctx.db.remove_replaced(key) {
        ctx.db.changed(key, event::ON_DEL);
    }
}

/// `ZCARD key`
fn zcard(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    ctx.out.uint(set.map_or(0, ZSet::len) as u64);
    Ok(())
}

fn reply_score(out: &mut Output, score: Option<f64>) {
    match score {
        Some(score) => out.double(score),
        None => out.null(),
    }
}

/// `ZSCORE key member`
fn zscore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    reply_score(ctx.out, set.and_then(|set| set.score(&ctx.args[2])));
    Ok(())
}

/// `ZMSCORE key member [member ...]`
fn zmscore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    let members = ctx.args.rest(2);
    ctx.out.array(members.len());
    for member in members {
        reply_score(ctx.out, set.and_then(|set| set.score(member)));
    }
    Ok(())
}

/// `ZRANK key member [WITHSCORE]`
fn zrank(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    reply_rank(ctx, false, "zrank")
}

/// `ZREVRANK key member [WITHSCORE]`
fn zrevrank(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    reply_rank(ctx, true, "zrevrank")
}

fn reply_rank(
    ctx: &mut DataCtx<'_, '_>,
    from_greatest: bool,
    command: &'static str,
) -> Result<(), Error> {
    // Redis 7.0 knows no option here, and says so of all words but the one of 7.2.
    let with_score = ctx.args.len() == 4 && ctx.args.is(3, "withscore");
    if ctx.args.len() > 3 && !with_score {
        return Err(Error::Arity(command.into()));
    }
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    let found = set.and_then(|set| {
        let (rank, score) = set.rank(&ctx.args[2])?;
        let rank = if from_greatest {
            set.len() - 1 - rank
        } else {
            rank
        };
        Some((rank, score))
    });
    match found {
        None if with_score => ctx.out.null_array(),
        None => ctx.out.null(),
        Some((rank, score)) => {
            if with_score {
                ctx.out.array(2);
            }
            ctx.out.uint(rank as u64);
            if with_score {
                ctx.out.double(score);
            }
        }
    }
    Ok(())
}
