//! CLUSTER SLOT-STATS of Redis 8.2 and Valkey 8: how many keys the slots of this node's shard have, as far
//! as both agree and it costs nothing while nobody asks.

use crate::base::crc::SLOTS;
use crate::base::ticks::Ticks;
use crate::client::session::{Replies, Session};
use crate::dispatch::args::Args;
use crate::dispatch::context::{ServerCtx, Shared, Worker};
use crate::dispatch::error::Error;
use crate::dispatch::job::{Job, SLICE_NANOS, look_at_shard};
use crate::keyspace::by_slot::Walk;
use crate::keyspace::db::Db;
use crate::resp::write::Output;

use super::cluster_keys::check_enabled;

/// Buckets that are counted under one lock.
const COUNTED: usize = 1024;

/// Which slots are told of, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// Those of a range.
    Range(u16, u16),
    /// So many, by their number of keys.
    ByKeys { limit: usize, descending: bool },
}

impl Filter {
    fn parse(args: Args<'_>) -> Result<Self, Error> {
        let slot = |i: usize| {
            let number = args.int_or(i, "ERR Invalid or out of range slot")?;
            let slot = u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
            slot.ok_or(Error::line("ERR Invalid or out of range slot"))
        };
        if args.is(2, "slotsrange") && args.len() == 5 {
            let (first, last) = (slot(3)?, slot(4)?);
            if first > last {
                return Err(Error::err(format_args!(
                    "Start slot number {first} is greater than end slot number {last}"
                )));
            }
            return Ok(Self::Range(first, last));
        }
        if !args.is(2, "orderby") {
            return Err(Error::subcommand(args.all()));
        }
        if !args.is(3, "key-count") {
            return Err(Error::line("ERR Unrecognized sort metric for ORDERBY."));
        }
        Self::parse_order(args)
    }

    fn parse_order(args: Args<'_>) -> Result<Self, Error> {
        const LIMIT: &str =
            "ERR Limit has to lie in between 1 and 16384 (maximum number of slots).";
        let (mut limit, mut descending) = (None, None);
        let mut i = 4;
        while i < args.len() {
            let twice = if args.is(i, "limit") && i + 1 < args.len() {
                let number = args.int_or(i + 1, LIMIT)?;
                let number = usize::try_from(number).ok();
                let number = number.filter(|n| (1..=usize::from(SLOTS)).contains(n));
                i += 1;
                limit.replace(number.ok_or(Error::line(LIMIT))?).is_some()
            } else if args.is(i, "asc") || args.is(i, "desc") {
                descending.replace(args.is(i, "desc")).is_some()
            } else {
                return Err(Error::Syntax);
            };
            if twice {
                return Err(Error::line(
                    "ERR Multiple filters of the same type are disallowed.",
                ));
            }
            i += 1;
        }
        Ok(Self::ByKeys {
            limit: limit.unwrap_or(SLOTS.into()),
            descending: descending.unwrap_or(true),
        })
    }

    fn is_in_range(self, slot: u16) -> bool {
        match self {
            Self::Range(first, last) => (first..=last).contains(&slot),
            Self::ByKeys { .. } => true,
        }
    }
}

/// Counts the keys of one slot after the other.
struct Counting {
    filter: Filter,
    /// Slots and their numbers of keys, as far as they were counted.
    counts: Vec<(u16, u64)>,
    /// Those still to be counted, the next one last.
    left: Vec<u16>,
    /// What is left of the slot that was counted last.
    walk: Option<Walk>,
}

impl Counting {
    /// Counts some more; false when there is nothing left to count.
    fn advance(&mut self, look: impl FnOnce(usize, &mut dyn FnMut(&Db<'_, '_>))) -> bool {
        let walk = match self.walk.take() {
            Some(walk) => walk,
            None => {
                let Some(slot) = self.left.pop() else {
                    return false;
                };
                self.counts.push((slot, 0));
                Walk::new(slot)
            }
        };
        let mut is_seen = false;
        look(walk.shard(), &mut |db| {
            let (more, rest) = walk.count(db, COUNTED);
            if let Some((_, count)) = self.counts.last_mut() {
                *count += more as u64;
            }
            self.walk = rest;
            is_seen = true;
        });
        if !is_seen {
            // It is not to be had now.
            self.walk = Some(walk);
        }
        true
    }
}

impl Job for Counting {
    fn step(&mut self, shared: &Shared, worker: &mut Worker, _: &Session) -> bool {
        let start = Ticks::now();
        while Ticks::now().nanos_since(start) < SLICE_NANOS {
            let look = |shard, count: &mut dyn FnMut(&Db<'_, '_>)| {
                look_at_shard(shared, worker, 0, shard, |db| count(db));
            };
            if !self.advance(look) {
                return true;
            }
        }
        false
    }

    fn reply(&mut self, out: &mut Output) {
        let mut told = self.counts.len();
        if let Filter::ByKeys { limit, descending } = self.filter {
            // Those with as many keys by their number.
            self.counts.sort_by_key(|(slot, count)| {
                let rank = if descending { u64::MAX - count } else { *count };
                (rank, *slot)
            });
            told = told.min(limit);
        }
        out.array(told);
        for (slot, count) in &self.counts[..told] {
            out.array(2);
            out.uint((*slot).into());
            out.map(1);
            out.bulk(b"key-count");
            out.uint(*count);
        }
    }
}

/// `CLUSTER SLOT-STATS SLOTSRANGE start-slot end-slot` and `CLUSTER SLOT-STATS ORDERBY key-count
/// [LIMIT limit] [ASC | DESC]`
pub fn slot_stats(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    let filter = Filter::parse(ctx.args)?;
    let view = ctx.shared.routes.view();
    let is_told = |slot: &u16| {
        filter.is_in_range(*slot) && (view.is_mine(*slot) || view.is_of_my_primary(*slot))
    };
    let mut counting = Counting {
        filter,
        counts: Vec::new(),
        left: (0..SLOTS).filter(is_told).rev().collect(),
        walk: None,
    };
    if ctx.held.is_none() && ctx.session.replies == Replies::On {
        ctx.worker.job = Some(Box::new(counting));
        return Ok(());
    }
    let mut result = Ok(());
    while result.is_ok()
        && counting.advance(|shard, count| result = ctx.await_shard(shard, |db| count(db)))
    {}
    result?;
    counting.reply(ctx.out);
    Ok(())
}
