//! XREAD and XREADGROUP: new entries of several streams, waited for if need be.
//!
//! Reading as a group changes what is pending, so XREADGROUP is propagated as that: an XCLAIM for
//! each entry delivered, unless nothing is to be acknowledged, and behind them the group's new position.
//! (7.0 tells the position with NOACK only; an XCLAIM does not say how many entries were read, which
//! copies then did not know.)

use std::ops::ControlFlow;

use crate::base::text::before_nul;
use crate::dispatch::args::Args;
use crate::dispatch::blocking::Block;
use crate::dispatch::command::{Acl, Begin, Command, Find, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event;
use crate::resp::write::{Output, Protocol};
use crate::types::Type;
use crate::types::stream::{Log, Stream};
use crate::types::stream_group::{ConsumerId, Group, Pending};
use crate::types::stream_id::StreamId;

use super::rows::{READ, WRITE};
use super::stream_groups::{Forms, Place};
use super::streams::{BAD_ID, Value, reply_entries, reply_entry, reply_id};

const XREAD_KEYS: &[KeySpec] = &[streams_from(1)];
const XREADGROUP_KEYS: &[KeySpec] = &[streams_from(4)];

/// The first half of what follows STREAMS, which is looked for from argument `from` on.
const fn streams_from(from: i32) -> KeySpec {
    KeySpec {
        begin: Begin::Keyword("STREAMS", from),
        find: Find::Range {
            last: -1,
            step: 1,
            limit: 2,
        },
        ..KeySpec::at(1, KeyFlags::READ)
    }
}

data_rows!(Acl::STREAM);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        find_keys: Some(find_keys),
        ..row("xread", -4, READ.or(Flags::BLOCKING), XREAD_KEYS, xread)
    },
    Command {
        find_keys: Some(find_keys),
        ..row(
            "xreadgroup",
            -7,
            WRITE.or(Flags::BLOCKING),
            XREADGROUP_KEYS,
            xreadgroup,
        )
    },
];

/// The keys that [`Request::parse`] comes to. The specifications say less: to them a group or consumer
/// that is called STREAMS is the option.
fn find_keys(args: Args<'_>, found: &mut dyn FnMut(usize, KeyFlags)) {
    let mut i = 1;
    while i < args.len() && !args.is(i, "streams") {
        i += match () {
            () if args.is(i, "block") || args.is(i, "count") => 2,
            () if args.is(i, "group") => 3,
            () if args.is(i, "noack") => 1,
            () => return,
        };
    }
    let rest = args.len().saturating_sub(i + 1);
    if rest.is_multiple_of(2) {
        (i + 1..i + 1 + rest / 2).for_each(|key| found(key, KeyFlags::NONE));
    }
}

/// Entries that a client gets at most that waited for them without COUNT.
const WAITED_COUNT: u64 = 1000;

/// `XREAD [COUNT count] [BLOCK ms] STREAMS key [key ...] id [id ...]`
pub(super) fn xread(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    run(ctx, false)
}

/// `XREADGROUP GROUP group consumer [COUNT count] [BLOCK ms] [NOACK] STREAMS key [key ...] id ...`
pub(super) fn xreadgroup(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    run(ctx, true)
}

/// A reader in the name of a group.
#[derive(Clone, Copy)]
struct Reader<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
}

/// What is asked for.
struct Request<'a> {
    /// BLOCK, and until when it waits.
    block: Option<Option<i64>>,
    /// 0: all.
    count: u64,
    reader: Option<Reader<'a>>,
    no_ack: bool,
    keys: &'a [&'a [u8]],
    /// As written, one for each key.
    ids: &'a [&'a [u8]],
}

impl<'a> Request<'a> {
    fn parse(
        args: Args<'a>,
        (of_group, of_script): (bool, bool),
        now_ms: i64,
    ) -> Result<Self, Error> {
        let mut request = Self {
            block: None,
            count: 0,
            reader: None,
            no_ack: false,
            keys: &[],
            ids: &[],
        };
        let mut options = Cursor::new(args, 1);
        while request.keys.is_empty() {
            // Without streams it is not complete.
            if !options.step() {
                return Err(options.refuse());
            }
            match () {
                () if options.is("block") && of_script => {
                    return Err(Error::err(format_args!(
                        "{} command is not allowed with BLOCK option from scripts",
                        String::from_utf8_lossy(&args[0]).to_ascii_lowercase()
                    )));
                }
                () if options.is("block") => {
                    request.block = Some(args.timeout_in_ms(options.take()?, now_ms)?);
                }
                () if options.is("count") => request.count = options.int()?.max(0) as u64,
                () if options.has("streams", 1) => {
                    request.set_streams(args.rest(options.next_index()))?;
                }
                () if options.has("group", 2) => {
                    refuse_without_group(of_group, "GROUP")?;
                    let (group, consumer) = (options.value()?, options.value()?);
                    request.reader = Some(Reader { group, consumer });
                }
                () if options.is("noack") => {
                    refuse_without_group(of_group, "NOACK")?;
                    request.no_ack = true;
                }
                () => return Err(options.refuse()),
            }
        }
        if of_group && request.reader.is_none() {
            return Err(Error::line("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    fn set_streams(&mut self, rest: &'a [&'a [u8]]) -> Result<(), Error> {
        if !rest.len().is_multiple_of(2) {
            return Err(Error::line(
                "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be \
                 specified.",
            ));
        }
        (self.keys, self.ids) = rest.split_at(rest.len() / 2);
        Ok(())
    }
}

fn refuse_without_group(of_group: bool, option: &str) -> Result<(), Error> {
    match of_group {
        true => Ok(()),
        false => Err(Error::err(format_args!(
            "The {option} option is only supported by XREADGROUP. You called XREAD instead."
        ))),
    }
}

fn run(ctx: &mut DataCtx<'_, '_>, of_group: bool) -> Result<(), Error> {
    let request = Request::parse(ctx.args, (of_group, ctx.of_script), ctx.db.now_ms())?;
    if let Some(key) = ctx.woken {
        return run_woken(ctx, &request, key);
    }
    let mut after = Vec::with_capacity(request.keys.len());
    for (key, id) in request.keys.iter().zip(request.ids) {
        after.push(resolve(ctx, &request, key, id)?);
    }
    let (mark, mut forms) = (ctx.out.mark(), Forms::new(ctx));
    let (deferred, mut served) = (ctx.out.deferred(), 0);
    for (key, after) in request.keys.iter().zip(&after) {
        served += usize::from(serve(ctx, &request, key, *after, &mut forms)?);
    }
    if served == 0 {
        ctx.out.truncate_to(mark);
        match request.block {
            Some(deadline) => wait(ctx, &request, &after, deadline),
            None => ctx.out.null_array(),
        }
        return Ok(());
    }
    match ctx.out.protocol() {
        Protocol::Resp2 => ctx.out.end_array(deferred, served),
        Protocol::Resp3 => ctx.out.end_map(deferred, served),
    }
    if of_group {
        forms.finish(ctx);
    }
    Ok(())
}

/// The ID after which a stream is read; the highest one stands for `>`.
fn resolve(
    ctx: &mut DataCtx<'_, '_>,
    request: &Request<'_>,
    key: &[u8],
    id: &[u8],
) -> Result<StreamId, Error> {
    let stream = ctx.db.read_as::<Value>(key)?;
    if let Some(reader) = request.reader
        && !stream.is_some_and(|stream| stream.groups.contains_key(reader.group))
    {
        return Err(no_group(key, reader.group));
    }
    match (id, request.reader) {
        (b"$", Some(_)) => Err(Error::line(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the \
             history of this consumer by specifying a proper ID, or use the > ID to get new \
             messages. The $ ID would just return an empty result set.",
        )),
        (b"$", None) => Ok(stream.map_or(StreamId::MIN, |stream| stream.log.last_id)),
        (b">", Some(_)) => Ok(StreamId::MAX),
        (b">", None) => Err(Error::line(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
             <consumer> option.",
        )),
        _ => StreamId::parse_strict(id, 0).ok_or(BAD_ID),
    }
}

fn no_group(key: &[u8], group: &[u8]) -> Error {
    let mut line = b"NOGROUP No such key '".to_vec();
    line.extend_from_slice(before_nul(key));
    line.extend_from_slice(b"' or consumer group '");
    line.extend_from_slice(before_nul(group));
    line.extend_from_slice(b"' in XREADGROUP with GROUP option");
    Error::Bytes(line)
}

/// Replies with what a stream has after `after`; false, and no reply, when it has nothing.
fn serve(
    ctx: &mut DataCtx<'_, '_>,
    request: &Request<'_>,
    key: &[u8],
    after: StreamId,
    forms: &mut Forms,
) -> Result<bool, Error> {
    // Looked up anew, for the statistics as Redis counts them.
    let Some(stream) = ctx.db.read_as::<Value>(key)? else {
        return Ok(false);
    };
    let top = stream.log.last_present();
    let Some(reader) = request.reader else {
        if top.is_none_or(|top| top <= after) {
            return Ok(false);
        }
        reply_key(ctx.out, key);
        let (deferred, range) = (ctx.out.deferred(), after_to_end(after));
        let found = reply_entries(ctx.out, &stream.log, range, false, request.count);
        ctx.out.end_array(deferred, found);
        return Ok(true);
    };
    let group = stream.groups.get(reader.group);
    let last = group.map_or(StreamId::MAX, |group| group.last_id);
    let history = (after != StreamId::MAX).then_some(after);
    if history.is_none() && top.is_none_or(|top| top <= last) {
        return Ok(false);
    }
    let place = Place {
        key,
        group: reader.group,
    };
    deliver(ctx, request, reader, place, history, forms)?;
    Ok(true)
}

/// The range behind an ID.
fn after_to_end(after: StreamId) -> (StreamId, StreamId) {
    (after.next().unwrap_or(StreamId::MIN), StreamId::MAX)
}

fn reply_key(out: &mut Output, key: &[u8]) {
    if out.protocol() == Protocol::Resp2 {
        out.array(2);
    }
    out.bulk(key);
}

/// Replies with what a consumer of a group gets: entries that are new to the group, or (`history`)
/// those it had already and did not acknowledge, after that ID.
fn deliver(
    ctx: &mut DataCtx<'_, '_>,
    request: &Request<'_>,
    reader: Reader<'_>,
    place: Place<'_>,
    history: Option<StreamId>,
    forms: &mut Forms,
) -> Result<(), Error> {
    let now_ms = ctx.db.now_ms();
    let Some(stream) = ctx.db.write_as::<Value>(place.key)? else {
        return Ok(());
    };
    let Stream { log, groups } = &mut **stream;
    let Some(group) = groups.get_mut(reader.group) else {
        return Ok(());
    };
    let (consumer, created) = group.find_or_create(reader.consumer, now_ms);
    if created {
        forms.dirty += 1;
        if request.no_ack {
            forms.consumer(place, reader.consumer);
        }
    }
    forms.dirty += 1;
    reply_key(ctx.out, place.key);
    let deferred = ctx.out.deferred();
    let found = match history {
        Some(after) => reply_history(
            ctx.out,
            log,
            group,
            consumer,
            (after, request.count),
            now_ms,
        ),
        None => {
            let request = (request.count, request.no_ack);
            reply_new(
                ctx.out,
                log,
                group,
                consumer,
                request,
                now_ms,
                (place, forms),
            )
        }
    };
    ctx.out.end_array(deferred, found);
    if created {
        ctx.db.also(place.key, event::ON_XGROUP_CREATECONSUMER);
    }
    Ok(())
}

/// Entries behind the group's position, which moves on; how many.
fn reply_new(
    out: &mut Output,
    log: &Log,
    group: &mut Group,
    consumer: ConsumerId,
    (count, no_ack): (u64, bool),
    now_ms: i64,
    (place, forms): (Place<'_>, &mut Forms),
) -> usize {
    let (mut found, mut moved) = (0, false);
    log.walk(after_to_end(group.last_id), false, |entry| {
        if entry.id > group.last_id {
            log.advance(group, entry.id);
            moved = true;
        }
        reply_entry(out, &entry);
        if !no_ack {
            let pending = Pending {
                consumer,
                delivered_ms: now_ms,
                count: 1,
            };
            group.assign(entry.id, pending);
            forms.claim(place, group, &entry.id.text(), &pending);
        }
        found += 1;
        match found as u64 == count {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if moved {
        forms.position(place, group);
    }
    found
}

/// Entries that the consumer has not acknowledged; how many.
fn reply_history(
    out: &mut Output,
    log: &Log,
    group: &mut Group,
    consumer: ConsumerId,
    (after, count): (StreamId, u64),
    now_ms: i64,
) -> usize {
    let most = if count == 0 {
        usize::MAX
    } else {
        count as usize
    };
    let pending = group.of(consumer).pending();
    let ids: Vec<_> = pending
        .keys_from(&after_to_end(after).0)
        .take(most)
        .copied()
        .collect();
    for id in &ids {
        if log.with_entry(*id, |entry| reply_entry(out, &entry)) {
            group.deliver_again(*id, now_ms);
        } else {
            out.array(2);
            reply_id(out, *id);
            out.null_array();
        }
    }
    ids.len()
}

fn wait(
    ctx: &mut DataCtx<'_, '_>,
    request: &Request<'_>,
    after: &[StreamId],
    deadline: Option<i64>,
) {
    // What `$` means is decided now, not when something arrives.
    let mut args: Vec<_> = ctx.args.all().iter().map(|arg| arg.to_vec()).collect();
    let first = args.len() - request.ids.len();
    for (i, id) in request.ids.iter().enumerate() {
        if *id == b"$" {
            args[first + i] = after[i].text().to_vec();
        }
    }
    ctx.block(Block {
        keys: request.keys.iter().map(|key| key.to_vec()).collect(),
        on: Type::Stream,
        deadline,
        also: None,
        on_removal: request.reader.is_some(),
        request: Some(args),
    });
}

/// The request waited, and something happened to `key`: a new entry as a rule, but the stream or
/// the group may also be gone.
fn run_woken(ctx: &mut DataCtx<'_, '_>, request: &Request<'_>, key: &[u8]) -> Result<(), Error> {
    let found = ctx.db.write_as::<Value>(key).ok().flatten();
    let last_id = found
        .as_ref()
        .map_or(StreamId::MIN, |stream| stream.log.last_id);
    let count = if request.count == 0 {
        WAITED_COUNT
    } else {
        request.count
    };
    let request_of_one = Request { count, ..*request };
    if let Some(reader) = request.reader {
        let stream = found.ok_or(Error::line("UNBLOCKED the stream key no longer exists"))?;
        let group = stream.groups.get(reader.group).ok_or(Error::line(
            "NOGROUP the consumer group this client was blocked on no longer exists",
        ))?;
        if last_id > group.last_id {
            let mut forms = Forms::new(ctx);
            let place = Place {
                key,
                group: reader.group,
            };
            reply_one_stream(ctx.out);
            deliver(ctx, &request_of_one, reader, place, None, &mut forms)?;
            forms.finish(ctx);
            return Ok(());
        }
    } else if let Some(i) = request.keys.iter().position(|k| *k == key) {
        let after = StreamId::parse_strict(request.ids[i], 0).ok_or(BAD_ID)?;
        if last_id > after
            && let Some(stream) = found
        {
            reply_one_stream(ctx.out);
            reply_key(ctx.out, key);
            let (deferred, range) = (ctx.out.deferred(), after_to_end(after));
            let found = reply_entries(ctx.out, &stream.log, range, false, count);
            ctx.out.end_array(deferred, found);
            return Ok(());
        }
    }
    wait(ctx, request, &[], None);
    Ok(())
}

/// What is around a reply of one stream.
fn reply_one_stream(out: &mut Output) {
    match out.protocol() {
        Protocol::Resp2 => out.array(1),
        Protocol::Resp3 => out.map(1),
    }
}
