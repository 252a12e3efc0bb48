//! Stream commands on entries: adding, reading ranges, deleting, trimming. What reads
//! several streams or waits is in [`super::stream_reads`], groups are in [`super::stream_groups`],
//! XINFO is in [`super::stream_info`].

use std::ops::ControlFlow;

use crate::config::Settings;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event::{self, Event};
use crate::resp::write::Output;
use crate::types::listpack::Element;
use crate::types::stream::{AddError, Keep, Limits, Log, Stream, Trim};
use crate::types::stream_block::Entry;
use crate::types::stream_id::{StreamId, WrittenId};

use super::rows::{GROW, READ, READ_KEY, WRITE};

/// A stream as a value.
pub(super) type Value = Box<Stream>;

const FAST: Flags = Flags::FAST;

data_rows!(Acl::STREAM);

const VARYING: &[&str] = &["nondeterministic_output"];

const UPDATE: KeyFlags = KeyFlags::RW.or(KeyFlags::UPDATE);
const DELETE: KeyFlags = KeyFlags::RW.or(KeyFlags::DELETE);

const XADD_KEY: &[KeySpec] = &[KeySpec::at(1, UPDATE)
    .note("UPDATE instead of INSERT because of the optional trimming feature")];
const XLEN_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const UPDATE_KEY: &[KeySpec] = &[KeySpec::at(1, UPDATE)];
const DELETE_KEY: &[KeySpec] = &[KeySpec::at(1, DELETE)];

/// The rows.
pub const ROWS: &[Command] = &[
    row("xadd", -5, GROW.or(FAST), XADD_KEY, xadd).tipped(VARYING),
    row("xlen", 2, READ.or(FAST), XLEN_KEY, xlen),
    row("xrange", -4, READ, READ_KEY, xrange),
    row("xrevrange", -4, READ, READ_KEY, xrevrange),
    row("xdel", -3, WRITE.or(FAST), DELETE_KEY, xdel),
    row("xtrim", -4, WRITE, DELETE_KEY, xtrim).tipped(VARYING),
    row("xsetid", -3, GROW.or(FAST), UPDATE_KEY, xsetid),
];

/// An argument that should be an ID is none.
pub(super) const BAD_ID: Error =
    Error::line("ERR Invalid stream ID specified as stream command argument");

/// Argument `i` as an ID.
pub(super) fn id(args: Args<'_>, i: usize) -> Result<StreamId, Error> {
    StreamId::parse_strict(args.all()[i], 0).ok_or(BAD_ID)
}

/// Arguments from `from` on as IDs.
pub(super) fn ids(args: Args<'_>, from: usize) -> Result<Vec<StreamId>, Error> {
    (from..args.len()).map(|i| id(args, i)).collect()
}

/// Argument `i` as the first ID of an interval.
pub(super) fn start_of(args: Args<'_>, i: usize) -> Result<StreamId, Error> {
    match edge(args.all()[i], 0)? {
        (id, false) => Ok(id),
        (id, true) => {
            const NONE: Error = Error::line("ERR invalid start ID for the interval");
            id.next().ok_or(NONE)
        }
    }
}

/// Argument `i` as the last ID of an interval.
pub(super) fn end_of(args: Args<'_>, i: usize) -> Result<StreamId, Error> {
    match edge(args.all()[i], u64::MAX)? {
        (id, false) => Ok(id),
        (id, true) => {
            const NONE: Error = Error::line("ERR invalid end ID for the interval");
            id.prev().ok_or(NONE)
        }
    }
}

/// An ID and whether it is itself outside of the interval.
fn edge(text: &[u8], missing_seq: u64) -> Result<(StreamId, bool), Error> {
    let (id, excluded) = match text {
        [b'(', rest @ ..] if !rest.is_empty() => (StreamId::parse_strict(rest, missing_seq), true),
        _ => (StreamId::parse(text, missing_seq), false),
    };
    Ok((id.ok_or(BAD_ID)?, excluded))
}

/// An ID as a bulk string.
pub(super) fn reply_id(out: &mut Output, id: StreamId) {
    out.bulk(&id.text());
}

/// A field or value as a bulk string.
fn reply_part(out: &mut Output, element: Element<'_>) {
    match element {
        Element::Bytes(bytes) => out.bulk(bytes),
        Element::Int(n) => out.bulk_int(n),
    }
}

/// An entry: its ID and an array of its fields and values.
pub(super) fn reply_entry(out: &mut Output, entry: &Entry<'_>) {
    out.array(2);
    reply_id(out, entry.id);
    out.array(2 * entry.fields);
    for (name, value) in entry.iter() {
        reply_part(out, name);
        reply_part(out, value);
    }
}

/// The entries of a range, at most `count` (0: all) of them, without an array around; how many.
pub(super) fn reply_entries(
    out: &mut Output,
    log: &Log,
    range: (StreamId, StreamId),
    backwards: bool,
    count: u64,
) -> usize {
    let mut found = 0;
    log.walk(range, backwards, |entry| {
        reply_entry(out, &entry);
        found += 1;
        match found as u64 == count {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    found
}

/// Counts a change and announces it, but does not touch the key for WATCH.
pub(super) fn announce(ctx: &mut DataCtx<'_, '_>, key: &[u8], event: Event) {
    ctx.db.count_changes(1);
    ctx.db.also(key, event);
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        bytes: settings.stream_node_max_bytes,
        entries: settings.stream_node_max_entries,
    }
}

/// The options of XADD and XTRIM.
#[derive(Default)]
struct Options {
    /// The ID of XADD; `None`: `*`.
    id: Option<WrittenId>,
    /// Where that is.
    id_at: usize,
    no_mkstream: bool,
    keep: Option<Keep>,
    /// Where what to keep is.
    keep_at: usize,
    approximately: bool,
    limit: Option<i64>,
}

impl Options {
    fn parse(ctx: &DataCtx<'_, '_>, of_xadd: bool) -> Result<Self, Error> {
        let args = ctx.args;
        let mut options = Self::default();
        let mut words = Cursor::new(args, 2);
        while words.step() {
            match () {
                () if of_xadd && *words.word() == *b"*" => break,
                () if words.has("maxlen", 1) || words.has("minid", 1) => {
                    options.parse_keep(args, &mut words)?;
                }
                () if words.has("limit", 1) => {
                    let limit = words.int()?;
                    if limit < 0 {
                        return Err(Error::line("ERR The LIMIT argument must be >= 0."));
                    }
                    options.limit = Some(limit);
                }
                () if of_xadd && words.is("nomkstream") => options.no_mkstream = true,
                () if of_xadd => {
                    let id = StreamId::parse_new(words.word());
                    options.id = Some(id.ok_or(BAD_ID)?);
                    break;
                }
                () => return Err(words.refuse()),
            }
        }
        options.id_at = words.index();
        options.check(of_xadd)?;
        options.settle_limit(ctx)?;
        Ok(options)
    }

    /// The value of MAXLEN or MINID, which is at hand and has one.
    fn parse_keep(&mut self, args: Args<'_>, words: &mut Cursor<'_>) -> Result<(), Error> {
        if self.keep.is_some() {
            return Err(Error::line(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let sign = &args[words.next_index()];
        self.approximately = false;
        if words.left() >= 2 && matches!(sign, b"~" | b"=") {
            self.approximately = *sign == *b"~";
            words.take()?;
        }
        let at = words.take()?;
        self.keep = Some(if words.is("maxlen") {
            match args.int(at)? {
                ..0 => return Err(Error::line("ERR The MAXLEN argument must be >= 0.")),
                most => Keep::Newest(most as u64),
            }
        } else {
            Keep::From(id(args, at)?)
        });
        self.keep_at = at;
        Ok(())
    }

    fn check(&self, of_xadd: bool) -> Result<(), Error> {
        let error = |line| Err(Error::line(line));
        if self.limit.is_some_and(|limit| limit > 0) && self.keep.is_none() {
            return error(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            );
        }
        if !of_xadd && self.keep.is_none() {
            return error("ERR syntax error, XTRIM must be called with a trimming strategy");
        }
        Ok(())
    }

    /// How many entries may go at once.
    fn settle_limit(&mut self, ctx: &DataCtx<'_, '_>) -> Result<(), Error> {
        if ctx.db.env().obeys {
            // What is propagated says exactly what was kept, with the limit still beside it.
            self.limit = None;
        } else if self.limit.is_some() && !self.approximately {
            return Err(Error::line(
                "ERR syntax error, LIMIT cannot be used without the special ~ option",
            ));
        } else if self.limit.is_none() && self.approximately {
            let entries = ctx.settings.stream_node_max_entries.saturating_mul(100);
            let limit = if entries <= 0 { 10_000 } else { entries };
            self.limit = Some(limit.min(1_000_000));
        }
        Ok(())
    }

    /// Trims as asked for; how many entries went.
    fn trim(&self, log: &mut Log) -> u64 {
        self.keep.map_or(0, |keep| {
            log.trim(&Trim {
                keep,
                whole_blocks: self.approximately,
                limit: self.limit.unwrap_or(0) as u64,
            })
        })
    }

    /// What is propagated in the place of the amount to keep: what was kept.
    fn kept(&self, log: &Log) -> Vec<u8> {
        match self.keep {
            Some(Keep::From(_)) => log.first_stored().text().to_vec(),
            _ => log.len().to_string().into_bytes(),
        }
    }
}

/// `XADD key [NOMKSTREAM] [MAXLEN | MINID [= | ~] threshold [LIMIT count]] * | id field value ...`
fn xadd(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits, now_ms) = (ctx.args, limits(ctx.settings), ctx.db.now_ms());
    let options = Options::parse(ctx, true)?;
    let pairs = args.rest(options.id_at + 1);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Error::Arity("xadd".into()));
    }
    let zero = |written: WrittenId| written.seq_given && written.id.is_zero();
    if options.id.is_some_and(zero) {
        return Err(Error::line(
            "ERR The ID specified in XADD must be greater than 0-0",
        ));
    }
    let key = &args[1];
    if options.no_mkstream && ctx.db.write_as::<Value>(key)?.is_none() {
        ctx.out.null();
        return Ok(());
    }
    let stream = ctx.db.write_or_create(key, Value::default)?;
    let (id, trimmed) = add(&mut stream.log, &options, pairs, &limits, now_ms)?;
    let kept = options.approximately.then(|| options.kept(&stream.log));
    let id = id.text();
    ctx.out.bulk(&id);
    ctx.db.changed(key, event::ON_XADD);
    if trimmed > 0 {
        ctx.db.also(key, event::ON_XTRIM);
    }
    let id_is_chosen = !options.id.is_some_and(|id| id.seq_given);
    if (id_is_chosen || kept.is_some()) && ctx.db.is_heard() {
        let mut form = args.all().to_vec();
        if id_is_chosen {
            form[options.id_at] = &id;
        }
        if let Some(kept) = &kept {
            form[options.keep_at - 1] = b"=";
            form[options.keep_at] = kept;
        }
        ctx.db.rewrite(&form);
    }
    ctx.db.signal_ready(key);
    Ok(())
}

/// Adds an entry and trims; its ID, and how many others went.
fn add(
    log: &mut Log,
    options: &Options,
    pairs: &[&[u8]],
    limits: &Limits,
    now_ms: i64,
) -> Result<(StreamId, u64), Error> {
    const NOT_HIGHER: Error = Error::line(
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    );
    if log.last_id == StreamId::MAX {
        return Err(Error::line(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let id = log.choose_id(options.id, now_ms).ok_or(NOT_HIGHER)?;
    log.append(id, pairs, limits).map_err(|error| match error {
        AddError::NotHigher => NOT_HIGHER,
        AddError::TooBig => Error::line("ERR Elements are too large to be stored"),
    })?;
    Ok((id, options.trim(log)))
}

/// `XTRIM key MAXLEN | MINID [= | ~] threshold [LIMIT count]`
fn xtrim(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let options = Options::parse(ctx, false)?;
    let Some(stream) = ctx.db.write_as::<Value>(&args[1])? else {
        ctx.out.int(0);
        return Ok(());
    };
    let deleted = options.trim(&mut stream.log);
    ctx.out.int(deleted as i64);
    if deleted == 0 {
        return Ok(());
    }
    let kept = options.approximately.then(|| options.kept(&stream.log));
    ctx.db.changed_by(&args[1], event::ON_XTRIM, deleted);
    if let Some(kept) = &kept {
        let mut form = args.all().to_vec();
        form[options.keep_at - 1] = b"=";
        form[options.keep_at] = kept;
        ctx.db.rewrite(&form);
    }
    Ok(())
}

/// `XLEN key`
fn xlen(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let stream = ctx.db.read_as::<Value>(&ctx.args[1])?;
    ctx.out
        .int(stream.map_or(0, |stream| stream.log.len() as i64));
    Ok(())
}

/// `XRANGE key start end [COUNT count]`
fn xrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    range(ctx, false)
}

/// `XREVRANGE key end start [COUNT count]`
fn xrevrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    range(ctx, true)
}

fn range(ctx: &mut DataCtx<'_, '_>, backwards: bool) -> Result<(), Error> {
    let args = ctx.args;
    let (start_at, end_at) = if backwards { (3, 2) } else { (2, 3) };
    let range = (start_of(args, start_at)?, end_of(args, end_at)?);
    let mut count = None;
    let mut options = Cursor::new(args, 4);
    while options.step() {
        if !options.is("count") {
            return Err(options.refuse());
        }
        count = Some(options.int()?.max(0) as u64);
    }
    let Some(stream) = ctx.db.read_as::<Value>(&args[1])? else {
        ctx.out.array(0);
        return Ok(());
    };
    if count == Some(0) {
        ctx.out.null_array();
        return Ok(());
    }
    let deferred = ctx.out.deferred();
    let found = reply_entries(ctx.out, &stream.log, range, backwards, count.unwrap_or(0));
    ctx.out.end_array(deferred, found);
    Ok(())
}

/// `XDEL key id [id ...]`
fn xdel(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let Some(stream) = ctx.db.write_as::<Value>(&args[1])? else {
        ctx.out.int(0);
        return Ok(());
    };
    let ids = ids(args, 2)?;
    let deleted = ids.into_iter().filter(|id| stream.log.delete(*id)).count();
    if deleted > 0 {
        let event = event::ON_XDEL;
        ctx.db.changed_by(&args[1], event, deleted as u64);
    }
    ctx.out.int(deleted as i64);
    Ok(())
}

/// `XSETID key last-id [ENTRIESADDED entries] [MAXDELETEDID id]`
fn xsetid(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let error = |line| Err(Error::line(line));
    let last_id = id(args, 2)?;
    let (mut added, mut deleted) = (None, StreamId::MIN);
    let mut options = Cursor::new(args, 3);
    while options.step() {
        match () {
            () if options.is("entriesadded") => match options.int()? {
                ..0 => return error("ERR entries_added must be positive"),
                n => added = Some(n as u64),
            },
            () if options.is("maxdeletedid") => {
                deleted = id(args, options.take()?)?;
                if last_id < deleted {
                    return error(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    );
                }
            }
            () => return Err(options.refuse()),
        }
    }
    let obeys = ctx.db.env().obeys;
    let stream = ctx.db.write_as::<Value>(&args[1])?;
    let log = &mut stream.ok_or(Error::NoSuchKey)?.log;
    // A check of 7.2. A log that a 7.0 wrote may hold what it let through.
    if !obeys && last_id < log.max_deleted_id {
        return error(
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        );
    }
    if log.last_present().is_some_and(|top| last_id < top) {
        return error("ERR The ID specified in XSETID is smaller than the target stream top item");
    }
    if !log.is_empty() && added.is_some_and(|added| log.len() > added) {
        return error(
            "ERR The entries_added specified in XSETID is smaller than the target stream length",
        );
    }
    log.last_id = last_id;
    log.entries_added = added.unwrap_or(log.entries_added);
    if !deleted.is_zero() {
        log.max_deleted_id = deleted;
    }
    ctx.out.ok();
    announce(ctx, &args[1], event::ON_XSETID);
    Ok(())
}
