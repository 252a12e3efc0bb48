//! Unions, intersections and differences of sorted sets and sets; in plain sets each member has
//! the score 1.

use std::collections::HashMap;

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::db::Db;
use crate::keyspace::event::{self, Event};
use crate::types::Type;
use crate::types::collection::Collection;
use crate::types::listpack::Element;
use crate::types::set::Set;
use crate::types::zset::ZSet;

use super::rows::{GROW, READ};
use super::zsets;

const READ_KEYS: &[KeySpec] = &[KeySpec::counted(1, KeyFlags::READ)];

const STORE_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::OVERWRITE),
    KeySpec::counted(2, KeyFlags::READ),
];

data_rows!(Acl::SORTEDSET);

/// The rows.
pub const ROWS: &[Command] = &[
    row("zunion", -3, READ, READ_KEYS, zunion),
    row("zinter", -3, READ, READ_KEYS, zinter),
    row("zdiff", -3, READ, READ_KEYS, zdiff),
    row("zintercard", -3, READ, READ_KEYS, zintercard),
    row("zunionstore", -4, GROW, STORE_KEYS, zunionstore),
    row("zinterstore", -4, GROW, STORE_KEYS, zinterstore),
    row("zdiffstore", -4, GROW, STORE_KEYS, zdiffstore),
];

/// Which of them.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Union,
    Intersection,
    Difference,
    /// How many the intersection has.
    Cardinality,
}

/// How the scores that a member has in several sets become one.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn join(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Sum => number_or_zero(a + b),
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            Self::Min | Self::Max => a,
        }
    }
}

/// Infinities of both signs together, or one times zero, count as nothing.
fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// A member in one form whatever it was stored as, to be found in a map.
type Name<'a> = Element<'a>;

fn name(member: Element<'_>) -> Name<'_> {
    match member {
        Element::Bytes(bytes) => Element::from(bytes),
        Element::Int(_) => member,
    }
}

/// A set to compute with.
#[derive(Clone, Copy)]
struct Source<'a> {
    key: &'a [u8],
    weight: f64,
    set: Members<'a>,
}

#[derive(Clone, Copy)]
enum Members<'a> {
    None,
    ZSet(&'a ZSet),
    Set(&'a Set),
}

impl<'a> Source<'a> {
    fn len(&self) -> usize {
        match self.set {
            Members::None => 0,
            Members::ZSet(set) => set.len(),
            Members::Set(set) => set.len(),
        }
    }

    fn score(&self, member: Name<'_>) -> Option<f64> {
        let mut digits = itoa::Buffer::new();
        match self.set {
            Members::None => None,
            Members::ZSet(set) => set.score(member.text(&mut digits)),
            Members::Set(set) => set.contains_element(member).then_some(1.0),
        }
    }

    /// Shows each member until `visit` says that it is enough.
    fn each(&self, mut visit: impl FnMut(Name<'a>, f64) -> bool) {
        match self.set {
            Members::None => {}
            Members::ZSet(set) => {
                _ = set.all().all(|(member, score)| visit(name(member), score));
            }
            Members::Set(set) => _ = set.iter().all(|member| visit(name(member), 1.0)),
        }
    }
}

/// A request, read.
struct Request<'a> {
    sources: Vec<Source<'a>>,
    aggregate: Aggregate,
    scores: bool,
    /// Where counting ends; 0: nowhere.
    limit: usize,
}

/// `ZUNION numkeys key [key ...] [WEIGHTS ...] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
fn zunion(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    answer(ctx, Operation::Union, "zunion")
}

/// `ZINTER numkeys key [key ...] [WEIGHTS ...] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
fn zinter(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    answer(ctx, Operation::Intersection, "zinter")
}

/// `ZDIFF numkeys key [key ...] [WITHSCORES]`
fn zdiff(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    answer(ctx, Operation::Difference, "zdiff")
}

/// `ZINTERCARD numkeys key [key ...] [LIMIT limit]`
fn zintercard(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let keys = source_keys(ctx, 1, "zintercard")?;
    let sources = sources(&ctx.db, keys)?;
    let request = Request::parse(ctx.args, Operation::Cardinality, false, sources, 2)?;
    let mut count = 0;
    request.intersection(|_, _| {
        count += 1;
        request.limit == 0 || count < request.limit
    });
    ctx.out.uint(count as u64);
    Ok(())
}

/// `ZUNIONSTORE destination numkeys key [key ...] [WEIGHTS ...] [AGGREGATE SUM | MIN | MAX]`
fn zunionstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    store(ctx, Operation::Union, "zunionstore", event::ON_ZUNIONSTORE)
}

/// `ZINTERSTORE destination numkeys key [key ...] [WEIGHTS ...] [AGGREGATE SUM | MIN | MAX]`
fn zinterstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let event = event::ON_ZINTERSTORE;
    store(ctx, Operation::Intersection, "zinterstore", event)
}

/// `ZDIFFSTORE destination numkeys key [key ...]`
fn zdiffstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let event = event::ON_ZDIFFSTORE;
    store(ctx, Operation::Difference, "zdiffstore", event)
}

fn answer(
    ctx: &mut DataCtx<'_, '_>,
    operation: Operation,
    command: &'static str,
) -> Result<(), Error> {
    let keys = source_keys(ctx, 1, command)?;
    let sources = sources(&ctx.db, keys)?;
    let request = Request::parse(ctx.args, operation, false, sources, 2)?;
    let result = request.result(operation);
    zsets::open_members(ctx.out, result.len(), request.scores);
    for (score, member) in result {
        zsets::put_member(ctx.out, (member, score), request.scores);
    }
    Ok(())
}

fn store(
    ctx: &mut DataCtx<'_, '_>,
    operation: Operation,
    command: &'static str,
    event: Event,
) -> Result<(), Error> {
    let keys = source_keys(ctx, 2, command)?;
    let sources = sources(&ctx.db, keys)?;
    let request = Request::parse(ctx.args, operation, true, sources, 3)?;
    let result = request.result(operation);
    let set = ZSet::of(&result, zsets::limits(ctx.settings));
    zsets::store_result(ctx, ctx.args.all()[1], set, event);
    Ok(())
}

/// The keys behind their number, which is argument `at`. Each is looked up once for the
/// statistics, and must hold what has members.
fn source_keys<'a>(
    ctx: &mut DataCtx<'a, '_>,
    at: usize,
    command: &'static str,
) -> Result<&'a [&'a [u8]], Error> {
    let count = ctx.args.int(at)?;
    if count < 1 {
        return Err(Error::err(format_args!(
            "at least 1 input key is needed for '{command}' command"
        )));
    }
    let rest = ctx.args.rest(at + 1);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let keys = rest.get(..count).ok_or(Error::Syntax)?;
    for key in keys {
        let kind = ctx.db.read(key).map(|entry| entry.kind());
        if !matches!(kind, None | Some(Type::ZSet | Type::Set)) {
            return Err(Error::WrongType);
        }
    }
    Ok(keys)
}

fn sources<'a>(db: &'a Db<'_, '_>, keys: &'a [&'a [u8]]) -> Result<Vec<Source<'a>>, Error> {
    let source = |key: &&'a [u8]| {
        let set = match db.get(key) {
            None => Members::None,
            Some(entry) if entry.kind() == Type::Set => Members::Set(entry.into_collection()?),
            Some(entry) => Members::ZSet(entry.into_collection()?),
        };
        Ok(Source {
            key,
            weight: 1.0,
            set,
        })
    };
    keys.iter().map(source).collect()
}

impl<'a> Request<'a> {
    /// Reads the options behind the keys, the first of which is argument `first`.
    fn parse(
        args: Args<'_>,
        operation: Operation,
        stores: bool,
        sources: Vec<Source<'a>>,
        first: usize,
    ) -> Result<Self, Error> {
        let mut request = Self {
            sources,
            aggregate: Aggregate::Sum,
            scores: false,
            limit: 0,
        };
        let joins = matches!(operation, Operation::Union | Operation::Intersection);
        let counts = operation == Operation::Cardinality;
        let keys = request.sources.len();
        let mut options = Cursor::new(args, first + keys);
        while options.step() {
            match () {
                () if joins && options.has("weights", keys) => {
                    for source in &mut request.sources {
                        source.weight = options.float_or("ERR weight value is not a float")?;
                    }
                }
                () if joins && options.is("aggregate") => {
                    request.aggregate = options.one_of(&[
                        ("sum", Aggregate::Sum),
                        ("min", Aggregate::Min),
                        ("max", Aggregate::Max),
                    ])?;
                }
                () if !stores && !counts && options.is("withscores") => request.scores = true,
                () if counts && options.is("limit") => {
                    let error = "ERR LIMIT can't be negative";
                    let limit = options.int_or(error)?;
                    request.limit = usize::try_from(limit).map_err(|_| Error::line(error))?;
                }
                () => return Err(options.refuse()),
            }
        }
        if operation != Operation::Difference {
            // The smallest first: fewest to look for. Sums of fractions depend on this order.
            request.sources.sort_by_key(Source::len);
        }
        Ok(request)
    }

    /// The members with their scores, ascending.
    fn result(&self, operation: Operation) -> Vec<(f64, Name<'a>)> {
        let mut result = match operation {
            Operation::Union => self.union(),
            Operation::Difference => self.difference(),
            Operation::Intersection | Operation::Cardinality => {
                let mut result = Vec::new();
                self.intersection(|member, score| {
                    result.push((score, member));
                    true
                });
                result
            }
        };
        let by_score = |a: f64, b: f64| a.partial_cmp(&b).expect("scores are numbers");
        result.sort_unstable_by(|a, b| by_score(a.0, b.0).then_with(|| a.1.compare(b.1)));
        result
    }

    fn union(&self) -> Vec<(f64, Name<'a>)> {
        let largest = self.sources.last().map_or(0, Source::len);
        let mut result: HashMap<Name<'a>, f64, foldhash::fast::RandomState> =
            HashMap::with_capacity_and_hasher(largest, foldhash::fast::RandomState::default());
        for source in &self.sources {
            source.each(|member, score| {
                let score = number_or_zero(source.weight * score);
                let joined = result.entry(member);
                joined
                    .and_modify(|sum| *sum = self.aggregate.join(*sum, score))
                    .or_insert(score);
                true
            });
        }
        result
            .into_iter()
            .map(|(member, score)| (score, member))
            .collect()
    }

    /// Shows the members that all sets have, until `visit` says that it is enough.
    fn intersection(&self, mut visit: impl FnMut(Name<'a>, f64) -> bool) {
        let [first, others @ ..] = &self.sources[..] else {
            return;
        };
        first.each(|member, score| {
            let mut joined = number_or_zero(first.weight * score);
            for other in others {
                let Some(score) = other.score(member) else {
                    return true;
                };
                joined = self.aggregate.join(joined, other.weight * score);
            }
            visit(member, joined)
        });
    }

    fn difference(&self) -> Vec<(f64, Name<'a>)> {
        let [first, others @ ..] = &self.sources[..] else {
            return Vec::new();
        };
        let mut result = Vec::new();
        if others.iter().any(|other| other.key == first.key) {
            return result;
        }
        first.each(|member, score| {
            if others.iter().all(|other| other.score(member).is_none()) {
                result.push((score, member));
            }
            true
        });
        result
    }
}
