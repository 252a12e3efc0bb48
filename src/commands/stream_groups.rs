//! Commands that change consumer groups: XGROUP, XACK, XCLAIM, XAUTOCLAIM.
//!
//! Who gets what depends on the time and on what is pending, so claims are propagated one by one
//! in a form that leaves nothing open ([`Forms`]).

use crate::base::text::before_nul;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec, ROW};
use crate::dispatch::context::{DataCtx, ServerCtx};
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::db::Db;
use crate::keyspace::event;
use crate::resp::write::Output;
use crate::types::stream::{Log, Stream};
use crate::types::stream_group::{ConsumerId, Group, Pending};
use crate::types::stream_id::StreamId;

use super::rows::{GROW, WRITE};
use super::streams::{BAD_ID, Value, announce, id, ids, reply_entry, reply_id, start_of};

const FAST: Flags = Flags::FAST;
const VARYING: &[&str] = &["nondeterministic_output"];
const INSERT: KeyFlags = KeyFlags::RW.or(KeyFlags::INSERT);
const UPDATE: KeyFlags = KeyFlags::RW.or(KeyFlags::UPDATE);
const DELETE: KeyFlags = KeyFlags::RW.or(KeyFlags::DELETE);
const UPDATE_KEY: &[KeySpec] = &[KeySpec::at(1, UPDATE)];
const DELETE_KEY: &[KeySpec] = &[KeySpec::at(1, DELETE)];
const INSERT_SUBKEY: &[KeySpec] = &[KeySpec::at(2, INSERT)];
const UPDATE_SUBKEY: &[KeySpec] = &[KeySpec::at(2, UPDATE)];
const DELETE_SUBKEY: &[KeySpec] = &[KeySpec::at(2, DELETE)];

data_rows!(Acl::STREAM);

/// The rows.
pub const ROWS: &[Command] = &[
    row("xack", -4, WRITE.or(FAST), UPDATE_KEY, xack),
    row("xclaim", -6, WRITE.or(FAST), UPDATE_KEY, xclaim).tipped(VARYING),
    row("xautoclaim", -6, WRITE.or(FAST), DELETE_KEY, xautoclaim).tipped(VARYING),
    Command {
        name: "xgroup",
        arity: -2,
        subcommands: &[
            row("create", -5, GROW, INSERT_SUBKEY, create),
            row("setid", -5, WRITE, UPDATE_SUBKEY, setid),
            row("destroy", 4, WRITE, DELETE_SUBKEY, destroy),
            row("createconsumer", 5, GROW, INSERT_SUBKEY, create_consumer),
            row("delconsumer", 5, WRITE, DELETE_SUBKEY, delete_consumer),
            super::help::row(Acl::STREAM, help),
        ],
        ..ROW
    },
];

/// A group of a stream.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The stream's key.
    pub key: &'a [u8],
    /// The group's name.
    pub group: &'a [u8],
}

impl Place<'_> {
    /// There is no such key, or no such group in it.
    pub fn missing(self) -> Error {
        let quote = ["NOGROUP No such key '", "' or consumer group '", "'"];
        quoting(quote, [self.key, self.group])
    }

    /// There is no such group in the key.
    pub fn missing_group(self) -> Error {
        let quote = ["NOGROUP No such consumer group '", "' for key name '", "'"];
        quoting(quote, [self.group, self.key])
    }
}

fn quoting([before, between, after]: [&str; 3], [a, b]: [&[u8]; 2]) -> Error {
    let (a, b) = (before_nul(a), before_nul(b));
    Error::Bytes(
        [
            before.as_bytes(),
            a,
            between.as_bytes(),
            b,
            after.as_bytes(),
        ]
        .concat(),
    )
}

/// What a command is propagated as, and how many changes it made, collected while the stream is
/// borrowed.
pub(super) struct Forms {
    heard: bool,
    list: Vec<Vec<Vec<u8>>>,
    /// Changes.
    pub dirty: u64,
}

impl Forms {
    /// None yet.
    pub fn new(ctx: &DataCtx<'_, '_>) -> Self {
        Self {
            heard: ctx.db.is_heard(),
            list: Vec::new(),
            dirty: 0,
        }
    }

    fn push(&mut self, words: &[&[u8]]) {
        self.list
            .push(words.iter().map(|word| word.to_vec()).collect());
    }

    /// An entry is now pending (or was, and is about to be forgotten) as said.
    pub fn claim(&mut self, place: Place<'_>, group: &Group, id: &[u8], pending: &Pending) {
        if !self.heard {
            return;
        }
        let (mut time, mut count) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.push(&[
            b"XCLAIM",
            place.key,
            place.group,
            &group.of(pending.consumer).name,
            b"0",
            id,
            b"TIME",
            time.format(pending.delivered_ms).as_bytes(),
            b"RETRYCOUNT",
            count.format(pending.count as i64).as_bytes(),
            b"FORCE",
            b"JUSTID",
            b"LASTID",
            &group.last_id.text(),
        ]);
    }

    /// The group has read on.
    pub fn position(&mut self, place: Place<'_>, group: &Group) {
        if !self.heard {
            return;
        }
        let read = group.entries_read.map_or(-1, |read| read as i64);
        self.push(&[
            b"XGROUP",
            b"SETID",
            place.key,
            place.group,
            &group.last_id.text(),
            b"ENTRIESREAD",
            itoa::Buffer::new().format(read).as_bytes(),
        ]);
    }

    /// A consumer was created.
    pub fn consumer(&mut self, place: Place<'_>, name: &[u8]) {
        if self.heard {
            self.push(&[b"XGROUP", b"CREATECONSUMER", place.key, place.group, name]);
        }
    }

    /// Records the changes, which are propagated as these forms alone.
    pub fn finish(self, ctx: &mut DataCtx<'_, '_>) {
        ctx.db.count_changes(self.dirty);
        ctx.db.rewrite_as(self.list);
    }
}

/// `XGROUP HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create a new consumer group. Options are:",
            "    * MKSTREAM",
            "      Create the empty stream if it does not exist.",
            "    * ENTRIESREAD entries_read",
            "      Set the group's entries_read counter (internal use).",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a new consumer in the specified group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove the specified consumer.",
            "DESTROY <key> <groupname>",
            "    Remove the specified group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the current group ID and entries_read counter.",
        ],
    );
    Ok(())
}

/// The group that XGROUP's arguments name.
fn place<'a>(args: Args<'a>) -> Place<'a> {
    Place {
        key: args.all()[2],
        group: args.all()[3],
    }
}

/// The options of XGROUP CREATE and SETID: MKSTREAM, and ENTRIESREAD if it was given.
fn options(args: Args<'_>, of_create: bool) -> Result<(bool, Option<u64>), Error> {
    let (mut make, mut read) = (false, None);
    let mut options = Cursor::new(args, 5);
    while options.step() {
        if of_create && options.is("mkstream") {
            make = true;
        } else if options.has("entriesread", 1) {
            read = match options.int()? {
                -1 => None,
                ..0 => {
                    return Err(Error::line(
                        "ERR value for ENTRIESREAD must be positive or -1",
                    ));
                }
                read => Some(read as u64),
            };
        } else {
            return Err(Error::subcommand(args.all()));
        }
    }
    Ok((make, read))
}

/// The stream at argument 2, which must be there.
fn stream<'a>(ctx: &'a mut DataCtx<'_, '_>) -> Result<&'a mut Value, Error> {
    let stream = ctx.db.write_as::<Value>(&ctx.args[2])?;
    stream.ok_or(Error::line(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want \
         to use the MKSTREAM option to create an empty stream automatically.",
    ))
}

/// `XGROUP CREATE key group id | $ [MKSTREAM] [ENTRIESREAD entries]`
fn create(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    const EXISTS: Error = Error::line("BUSYGROUP Consumer Group name already exists");
    let (args, place) = (ctx.args, place(ctx.args));
    let (make, entries_read) = options(args, true)?;
    let found = ctx.db.write_as::<Value>(place.key)?;
    let (exists, top) = (
        found.is_some(),
        found.map_or(StreamId::MIN, |s| s.log.last_id),
    );
    if !exists && !make {
        stream(ctx)?;
    }
    if args.len() > 8 {
        return Err(Error::subcommand(args.all()));
    }
    let last_id = match &args[4] {
        b"$" => top,
        _ => id(args, 4)?,
    };
    let stream = ctx.db.write_or_create(place.key, Value::default)?;
    let is_new = !stream.groups.contains_key(place.group);
    if is_new {
        let group = Group::new(last_id, entries_read);
        stream.groups.insert(place.group.into(), group);
    }
    if !exists {
        ctx.db.changed(place.key, event::ON_XGROUP_CREATE);
    } else if is_new {
        announce(ctx, place.key, event::ON_XGROUP_CREATE);
    } else {
        return Err(EXISTS);
    }
    ctx.out.ok();
    Ok(())
}

/// `XGROUP SETID key group id | $ [ENTRIESREAD entries]`
fn setid(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, place) = (ctx.args, place(ctx.args));
    let (_, entries_read) = options(args, false)?;
    let Stream { log, groups } = &mut **stream(ctx)?;
    let group = groups.get_mut(place.group);
    let group = group.ok_or_else(|| place.missing_group())?;
    if !matches!(args.len(), 5 | 7) {
        return Err(Error::subcommand(args.all()));
    }
    group.last_id = match &args[4] {
        b"$" => log.last_id,
        text => StreamId::parse(text, 0).ok_or(BAD_ID)?,
    };
    group.entries_read = entries_read;
    ctx.out.ok();
    announce(ctx, place.key, event::ON_XGROUP_SETID);
    Ok(())
}

/// `XGROUP DESTROY key group`
fn destroy(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let place = place(ctx.args);
    let gone = stream(ctx)?.groups.remove(place.group).is_some();
    ctx.out.int(i64::from(gone));
    if gone {
        announce(ctx, place.key, event::ON_XGROUP_DESTROY);
        ctx.db.signal_ready(place.key);
    }
    Ok(())
}

/// `XGROUP CREATECONSUMER key group consumer`
pub(super) fn create_consumer(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (place, now_ms) = (place(ctx.args), ctx.db.now_ms());
    let name = ctx.args.all()[4];
    let group = stream(ctx)?.groups.get_mut(place.group);
    let group = group.ok_or_else(|| place.missing_group())?;
    let created = group.find(name).is_none() && group.find_or_create(name, now_ms).1;
    ctx.out.int(i64::from(created));
    if created {
        announce(ctx, place.key, event::ON_XGROUP_CREATECONSUMER);
    }
    Ok(())
}

/// `XGROUP DELCONSUMER key group consumer`
pub(super) fn delete_consumer(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let place = place(ctx.args);
    let name = ctx.args.all()[4];
    let group = stream(ctx)?.groups.get_mut(place.group);
    let group = group.ok_or_else(|| place.missing_group())?;
    let pending = group.delete_consumer(name);
    ctx.out.int(pending.unwrap_or(0) as i64);
    if pending.is_some() {
        announce(ctx, place.key, event::ON_XGROUP_DELCONSUMER);
    }
    Ok(())
}

/// `XACK key group id [id ...]`
fn xack(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let exists = ctx.db.read_as::<Value>(&args[1])?.is_some();
    let stream = if exists {
        ctx.db.write_as::<Value>(&args[1])?
    } else {
        None
    };
    let Some(group) = stream.and_then(|stream| stream.groups.get_mut(&args[2])) else {
        ctx.out.int(0);
        return Ok(());
    };
    let ids = ids(args, 3)?.into_iter();
    let acknowledged = ids.filter(|id| group.acknowledge(*id).is_some()).count();
    ctx.db.count_changes(acknowledged as u64);
    ctx.out.int(acknowledged as i64);
    Ok(())
}

/// The stream at argument 1 with the group at argument 2, which must be there.
fn claimed<'a>(
    db: &'a mut Db<'_, '_>,
    place: Place<'_>,
) -> Result<(&'a Log, &'a mut Group), Error> {
    let stream = db.write_as::<Value>(place.key)?;
    let Stream { log, groups } = &mut **stream.ok_or_else(|| place.missing())?;
    let group = groups.get_mut(place.group);
    Ok((log, group.ok_or_else(|| place.missing())?))
}

/// The options of XCLAIM.
struct Claim {
    min_idle_ms: i64,
    ids: Vec<StreamId>,
    delivered_ms: i64,
    retry_count: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: StreamId,
}

impl Claim {
    fn parse(args: Args<'_>, now_ms: i64) -> Result<Self, Error> {
        let idle = args.int_or(4, "ERR Invalid min-idle-time argument for XCLAIM")?;
        let ids = args
            .rest(5)
            .iter()
            .map_while(|arg| StreamId::parse_strict(arg, 0));
        let ids: Vec<_> = ids.collect();
        let mut options = Cursor::new(args, 5 + ids.len());
        let mut claim = Self {
            min_idle_ms: idle.max(0),
            ids,
            delivered_ms: -1,
            retry_count: None,
            force: false,
            just_id: false,
            last_id: StreamId::MIN,
        };
        while options.step() {
            match () {
                () if options.is("force") => claim.force = true,
                () if options.is("justid") => claim.just_id = true,
                () if options.has("idle", 1) => {
                    let idle = options.int_or("ERR Invalid IDLE option argument for XCLAIM")?;
                    claim.delivered_ms = now_ms.wrapping_sub(idle);
                }
                () if options.has("time", 1) => {
                    let error = "ERR Invalid TIME option argument for XCLAIM";
                    claim.delivered_ms = options.int_or(error)?;
                }
                () if options.has("retrycount", 1) => {
                    let error = "ERR Invalid RETRYCOUNT option argument for XCLAIM";
                    claim.retry_count = u64::try_from(options.int_or(error)?).ok();
                }
                () if options.has("lastid", 1) => claim.last_id = id(args, options.take()?)?,
                () => return Err(unknown_option(options.word())),
            }
        }
        if !(0..=now_ms).contains(&claim.delivered_ms) {
            claim.delivered_ms = now_ms;
        }
        Ok(claim)
    }

    /// Whether an entry is to be claimed: what it is pending as from now on, for nobody yet.
    fn take(&self, pending: Option<&Pending>, now_ms: i64) -> Option<(i64, u64)> {
        let count = match pending {
            None if !self.force => return None,
            None => 1,
            Some(pending) => {
                let idle = now_ms.wrapping_sub(pending.delivered_ms);
                if self.min_idle_ms > 0 && idle < self.min_idle_ms {
                    return None;
                }
                pending.count
            }
        };
        let count = match self.retry_count {
            Some(count) => count,
            None => count.wrapping_add(u64::from(!self.just_id)),
        };
        Some((self.delivered_ms, count))
    }
}

fn unknown_option(option: &[u8]) -> Error {
    Error::quoting("Unrecognized XCLAIM option '", option, "'")
}

/// `XCLAIM key group consumer min-idle id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT n] [FORCE] ...`
pub(super) fn xclaim(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, now_ms, mut forms) = (ctx.args, ctx.db.now_ms(), Forms::new(ctx));
    let place = Place {
        key: args.all()[1],
        group: args.all()[2],
    };
    ctx.db.read(place.key);
    let (log, group) = claimed(&mut ctx.db, place)?;
    let claim = Claim::parse(args, now_ms)?;
    let mut position_told = true;
    if claim.last_id > group.last_id {
        group.last_id = claim.last_id;
        position_told = false;
    }
    let mut consumer = Claimant::new(&args[3], now_ms);
    let (deferred, mut found) = (ctx.out.deferred(), 0);
    for (i, id) in claim.ids.iter().enumerate() {
        let (text, before) = (&args[5 + i], group.pending().get(id).copied());
        if !log.contains(*id) {
            if let Some(before) = before {
                // It is told as it was, and forgotten by everybody who looks for the entry.
                forms.claim(place, group, text, &before);
                forms.dirty += 1;
                position_told = true;
                group.acknowledge(*id);
            }
            continue;
        }
        let Some((delivered_ms, count)) = claim.take(before.as_ref(), now_ms) else {
            continue;
        };
        let pending = Pending {
            consumer: consumer.find(group, &mut forms),
            delivered_ms,
            count,
        };
        group.assign(*id, pending);
        reply_claimed(ctx.out, log, *id, claim.just_id);
        found += 1;
        forms.claim(place, group, text, &pending);
        forms.dirty += 1;
        position_told = true;
    }
    if !position_told {
        forms.position(place, group);
        forms.dirty += 1;
    }
    ctx.out.end_array(deferred, found);
    consumer.announce(ctx, place.key);
    forms.finish(ctx);
    Ok(())
}

/// Who claims: looked up, or created, with the first entry.
struct Claimant<'a> {
    name: &'a [u8],
    now_ms: i64,
    found: Option<ConsumerId>,
    created: bool,
}

impl<'a> Claimant<'a> {
    fn new(name: &'a [u8], now_ms: i64) -> Self {
        Self {
            name,
            now_ms,
            found: None,
            created: false,
        }
    }

    fn find(&mut self, group: &mut Group, forms: &mut Forms) -> ConsumerId {
        match self.found {
            Some(found) => found,
            None => {
                let (found, created) = group.find_or_create(self.name, self.now_ms);
                (self.found, self.created) = (Some(found), created);
                forms.dirty += u64::from(created);
                found
            }
        }
    }

    fn announce(&self, ctx: &mut DataCtx<'_, '_>, key: &[u8]) {
        if self.created {
            ctx.db.also(key, event::ON_XGROUP_CREATECONSUMER);
        }
    }
}

fn reply_claimed(out: &mut Output, log: &Log, id: StreamId, just_id: bool) {
    match just_id {
        true => reply_id(out, id),
        false => drop(log.with_entry(id, |entry| reply_entry(out, &entry))),
    }
}

/// The options of XAUTOCLAIM.
struct AutoClaim {
    min_idle_ms: i64,
    start: StreamId,
    count: usize,
    just_id: bool,
}

impl AutoClaim {
    fn parse(args: Args<'_>) -> Result<Self, Error> {
        // What the IDs of deleted entries take must be a size.
        const MOST: i64 = i64::MAX / 16;
        let idle = args.int_or(4, "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
        let mut claim = Self {
            min_idle_ms: idle.max(0),
            start: start_of(args, 5)?,
            count: 100,
            just_id: false,
        };
        let mut options = Cursor::new(args, 6);
        while options.step() {
            match () {
                () if options.is("count") => {
                    let count = options.int_from(1, "ERR COUNT must be > 0")?;
                    if count > MOST {
                        return Err(Error::line("ERR COUNT must be > 0"));
                    }
                    claim.count = count as usize;
                }
                () if options.is("justid") => claim.just_id = true,
                () => return Err(options.refuse()),
            }
        }
        Ok(claim)
    }
}

/// `XAUTOCLAIM key group consumer min-idle start [COUNT count] [JUSTID]`
pub(super) fn xautoclaim(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    /// Pending entries that are looked at for each that is asked for.
    const ATTEMPTS: usize = 10;
    /// Beyond this many IDs there is no memory anywhere.
    const TOO_MANY: usize = 1 << 43;
    let (args, now_ms, mut forms) = (ctx.args, ctx.db.now_ms(), Forms::new(ctx));
    let place = Place {
        key: args.all()[1],
        group: args.all()[2],
    };
    // Before anything can be wrong with the arguments: the key may be found expired.
    ctx.db.read(place.key);
    let request = AutoClaim::parse(args)?;
    let (log, group) = claimed(&mut ctx.db, place)?;
    if request.count >= TOO_MANY {
        return Err(Error::line(
            "ERR Insufficient memory, failed allocating transient memory, COUNT too high.",
        ));
    }
    let (mut claimed, mut deleted) = (Vec::new(), Vec::new());
    let mut consumer = Claimant::new(&args[3], now_ms);
    let mut next = group.pending_from(request.start).next().map(|(id, _)| id);
    for _ in 0..request.count.saturating_mul(ATTEMPTS) {
        let Some(id) = next.filter(|_| claimed.len() + deleted.len() < request.count) else {
            break;
        };
        next = group.pending_after(id);
        let before = group.pending()[&id];
        if !log.contains(id) {
            forms.claim(place, group, &id.text(), &before);
            forms.dirty += 1;
            group.acknowledge(id);
            deleted.push(id);
            continue;
        }
        let idle = now_ms.wrapping_sub(before.delivered_ms);
        if request.min_idle_ms > 0 && idle < request.min_idle_ms {
            continue;
        }
        let pending = Pending {
            consumer: consumer.find(group, &mut forms),
            delivered_ms: now_ms,
            count: before.count.wrapping_add(u64::from(!request.just_id)),
        };
        group.assign(id, pending);
        forms.claim(place, group, &id.text(), &pending);
        forms.dirty += 1;
        claimed.push(id);
    }
    ctx.out.array(3);
    reply_id(ctx.out, next.unwrap_or(StreamId::MIN));
    ctx.out.array(claimed.len());
    for id in claimed {
        reply_claimed(ctx.out, log, id, request.just_id);
    }
    ctx.out.array(deleted.len());
    for id in deleted {
        reply_id(ctx.out, id);
    }
    consumer.announce(ctx, place.key);
    forms.finish(ctx);
    Ok(())
}
