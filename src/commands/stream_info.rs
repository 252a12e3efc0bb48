//! What is told of streams, groups and consumers: XINFO and XPENDING.

use std::ops::ControlFlow;

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec, ROW};
use crate::dispatch::context::{DataCtx, ServerCtx};
use crate::dispatch::error::Error;
use crate::resp::write::Output;
use crate::types::stream::{Log, Stream};
use crate::types::stream_group::{Consumer, Group, Groups, Pending};
use crate::types::stream_id::StreamId;

use super::rows::{READ, READ_KEY};
use super::stream_groups::Place;
use super::streams::{Value, end_of, reply_entries, reply_id, start_of};

const VARYING: &[&str] = &["nondeterministic_output"];
const READ_SUBKEY: &[KeySpec] = &[KeySpec::at(2, KeyFlags::READ)];

data_rows!(Acl::STREAM);

/// The rows.
pub const ROWS: &[Command] = &[
    row("xpending", -3, READ, READ_KEY, xpending).tipped(VARYING),
    Command {
        name: "xinfo",
        arity: -2,
        subcommands: &[
            row("consumers", 4, READ, READ_SUBKEY, consumers).tipped(VARYING),
            row("groups", 3, READ, READ_SUBKEY, groups),
            row("stream", -3, READ, READ_SUBKEY, stream),
            super::help::row(Acl::STREAM, help),
        ],
        ..ROW
    },
];

/// Entries that XINFO STREAM FULL shows of each list when it is not told how many.
const SHOWN: u64 = 10;
const ALL: (StreamId, StreamId) = (StreamId::MIN, StreamId::MAX);

/// `XINFO HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "CONSUMERS <key> <groupname>",
            "    Show consumers of <groupname>.",
            "GROUPS <key>",
            "    Show the stream consumer groups.",
            "STREAM <key> [FULL [COUNT <count>]",
            "    Show information about the stream.",
        ],
    );
    Ok(())
}

/// A name and the number that follows it.
fn count(out: &mut Output, name: &str, value: u64) {
    out.bulk(name.as_bytes());
    out.int(value as i64);
}

/// A name and the ID that follows it.
fn named_id(out: &mut Output, name: &str, id: StreamId) {
    out.bulk(name.as_bytes());
    reply_id(out, id);
}

/// `XINFO STREAM key [FULL [COUNT count]]`
fn stream(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let stream = ctx.db.read_as::<Value>(&ctx.args[2])?;
    let Stream { log, groups } = &**stream.ok_or(Error::NoSuchKey)?;
    let full = full(ctx.args)?;
    let out = &mut *ctx.out;
    out.map(if full.is_some() { 9 } else { 10 });
    count(out, "length", log.len());
    count(out, "radix-tree-keys", log.block_count() as u64);
    count(out, "radix-tree-nodes", log.radix_nodes() as u64);
    named_id(out, "last-generated-id", log.last_id);
    named_id(out, "max-deleted-entry-id", log.max_deleted_id);
    count(out, "entries-added", log.entries_added);
    named_id(out, "recorded-first-entry-id", log.first_id());
    match full {
        Some(shown) => reply_full(out, log, groups, shown),
        None => {
            count(out, "groups", groups.len() as u64);
            for (name, backwards) in [("first-entry", false), ("last-entry", true)] {
                out.bulk(name.as_bytes());
                if reply_entries(out, log, ALL, backwards, 1) == 0 {
                    out.null();
                }
            }
        }
    }
    Ok(())
}

/// How many of each list XINFO STREAM shows when everything is to be told; 0: all.
fn full(args: Args<'_>) -> Result<Option<u64>, Error> {
    match args.len() {
        3 => Ok(None),
        4 if args.is(3, "full") => Ok(Some(SHOWN)),
        6 if args.is(3, "full") && args.is(4, "count") => {
            let shown = args.int(5)?;
            Ok(Some(u64::try_from(shown).unwrap_or(SHOWN)))
        }
        _ => Err(Error::subcommand(args.all())),
    }
}

fn reply_full(out: &mut Output, log: &Log, groups: &Groups, shown: u64) {
    out.bulk(b"entries");
    let deferred = out.deferred();
    let found = reply_entries(out, log, ALL, false, shown);
    out.end_array(deferred, found);
    out.bulk(b"groups");
    out.array(groups.len());
    let most = if shown == 0 {
        usize::MAX
    } else {
        shown as usize
    };
    for (name, group) in groups {
        out.map(7);
        out.bulk(b"name");
        out.bulk(name);
        reply_position(out, log, group);
        count(out, "pel-count", group.pending().len() as u64);
        out.bulk(b"pending");
        out.array(group.pending().len().min(most));
        for (id, pending) in group.pending().iter().take(most) {
            out.array(4);
            reply_id(out, *id);
            out.bulk(&group.of(pending.consumer).name);
            reply_delivery(out, pending);
        }
        out.bulk(b"consumers");
        out.array(group.consumers().len());
        for consumer in group.consumers() {
            reply_consumer(out, group, consumer, most);
        }
    }
}

/// How far a group has read: three pairs.
fn reply_position(out: &mut Output, log: &Log, group: &Group) {
    named_id(out, "last-delivered-id", group.last_id);
    let mut known = |name: &str, n: Option<i64>| {
        out.bulk(name.as_bytes());
        match n {
            Some(n) => out.int(n),
            None => out.null(),
        }
    };
    known("entries-read", group.entries_read.map(|read| read as i64));
    known("lag", log.lag(group));
}

fn reply_delivery(out: &mut Output, pending: &Pending) {
    out.int(pending.delivered_ms);
    out.int(pending.count as i64);
}

fn reply_consumer(out: &mut Output, group: &Group, consumer: &Consumer, most: usize) {
    let ids = consumer.pending();
    out.map(4);
    out.bulk(b"name");
    out.bulk(&consumer.name);
    out.bulk(b"seen-time");
    out.int(consumer.seen_ms);
    count(out, "pel-count", ids.len() as u64);
    out.bulk(b"pending");
    out.array(ids.len().min(most));
    for id in ids.keys().take(most) {
        out.array(3);
        reply_id(out, *id);
        reply_delivery(out, &group.pending()[id]);
    }
}

/// `XINFO GROUPS key`
fn groups(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let stream = ctx.db.read_as::<Value>(&ctx.args[2])?;
    let Stream { log, groups } = &**stream.ok_or(Error::NoSuchKey)?;
    let out = &mut *ctx.out;
    out.array(groups.len());
    for (name, group) in groups {
        out.map(6);
        out.bulk(b"name");
        out.bulk(name);
        count(out, "consumers", group.consumers().len() as u64);
        count(out, "pending", group.pending().len() as u64);
        reply_position(out, log, group);
    }
    Ok(())
}

/// `XINFO CONSUMERS key group`
fn consumers(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, now_ms) = (ctx.args, ctx.db.now_ms());
    let place = Place {
        key: args.all()[2],
        group: args.all()[3],
    };
    let stream = ctx.db.read_as::<Value>(place.key)?;
    let group = stream.ok_or(Error::NoSuchKey)?.groups.get(place.group);
    let group = group.ok_or_else(|| place.missing_group())?;
    let out = &mut *ctx.out;
    out.array(group.consumers().len());
    for consumer in group.consumers() {
        out.map(3);
        out.bulk(b"name");
        out.bulk(&consumer.name);
        count(out, "pending", consumer.pending().len() as u64);
        out.bulk(b"idle");
        out.int(now_ms.saturating_sub(consumer.seen_ms).max(0));
    }
    Ok(())
}

/// The pending entries that XPENDING lists.
struct Part<'a> {
    min_idle_ms: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Part<'a> {
    fn parse(args: Args<'a>) -> Result<Self, Error> {
        let (mut at, mut min_idle_ms) = (3, 0);
        if args.is(3, "idle") {
            min_idle_ms = args.int(4)?;
            at = 5;
            if args.len() < 8 {
                return Err(Error::Syntax);
            }
        }
        let count = args.int(at + 2)?.max(0) as usize;
        Ok(Self {
            min_idle_ms,
            start: start_of(args, at)?,
            end: end_of(args, at + 1)?,
            count,
            consumer: args.get(at + 3),
        })
    }
}

/// `XPENDING key group [[IDLE ms] start end count [consumer]]`
fn xpending(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, now_ms) = (ctx.args, ctx.db.now_ms());
    let part = match args.len() {
        3 => None,
        6..=9 => Some(Part::parse(args)?),
        _ => return Err(Error::Syntax),
    };
    let place = Place {
        key: args.all()[1],
        group: args.all()[2],
    };
    let stream = ctx.db.read_as::<Value>(place.key)?;
    let group = stream.and_then(|stream| stream.groups.get(place.group));
    let group = group.ok_or_else(|| place.missing())?;
    match part {
        Some(part) => reply_part(ctx.out, group, &part, now_ms),
        None => reply_summary(ctx.out, group),
    }
    Ok(())
}

fn reply_summary(out: &mut Output, group: &Group) {
    let pending = group.pending();
    out.array(4);
    out.int(pending.len() as i64);
    let (Some((first, _)), Some((last, _))) = (pending.first_key_value(), pending.last_key_value())
    else {
        out.null();
        out.null();
        out.null_array();
        return;
    };
    reply_id(out, *first);
    reply_id(out, *last);
    let (deferred, mut busy) = (out.deferred(), 0);
    for consumer in group.consumers() {
        let pending = consumer.pending().len();
        if pending > 0 {
            out.array(2);
            out.bulk(&consumer.name);
            out.bulk_int(pending as i64);
            busy += 1;
        }
    }
    out.end_array(deferred, busy);
}

fn reply_part(out: &mut Output, group: &Group, part: &Part<'_>, now_ms: i64) {
    let consumer = match part.consumer.map(|name| group.find(name)) {
        Some(None) => return out.array(0),
        Some(found) => found,
        None => None,
    };
    let (deferred, mut found) = (out.deferred(), 0);
    let mut show = |(id, pending): (StreamId, Pending)| {
        let idle = now_ms.wrapping_sub(pending.delivered_ms);
        if part.min_idle_ms == 0 || idle >= part.min_idle_ms {
            out.array(4);
            reply_id(out, id);
            out.bulk(&group.of(pending.consumer).name);
            out.int(idle.max(0));
            out.int(pending.count as i64);
            found += 1;
        }
        match found == part.count {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    // Whether all were shown or the count ended it is the same.
    let _ = match consumer {
        _ if part.count == 0 => ControlFlow::Continue(()),
        Some(consumer) => {
            let ids = group.of(consumer).pending().keys_from(&part.start);
            let ids = ids.take_while(|id| **id <= part.end);
            ids.map(|id| (*id, group.pending()[id]))
                .try_for_each(&mut show)
        }
        None => {
            let pending = group.pending_from(part.start);
            let mut pending = pending.take_while(|(id, _)| *id <= part.end);
            pending.try_for_each(&mut show)
        }
    };
    out.end_array(deferred, found);
}
