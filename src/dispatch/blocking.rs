//! Commands that wait for keys: BLPOP and its kind.
//!
//! A handler that finds nothing asks to be parked ([`DataCtx::block`]). Still under the locks
//! under which it looked, the client is entered in the queue of each key it waits for, so no
//! push can slip between. Whoever makes such a key, or takes away a stream that a group's reader
//! waits for, finds the queue under the same locks and runs the parked command again, on behalf
//! of its client, before unlocking: first blocked, first served, and nobody else in between. A
//! command that also needs a shard which is not held (BLMOVE to elsewhere) is run right after
//! the locks are released, under its own.
//!
//! A ticket stands for one wait. Its [`State`] decides who ends it: the waker, the time, CLIENT
//! UNBLOCK or the end of the connection; exactly one of them does. Entries of an ended ticket
//! that are left in queues of other shards mean nothing and are removed without haste.
//!
//! WAIT is parked here too: it waits for no keys but until replicas have confirmed what its client
//! wrote; and SHUTDOWN, until the server ends or it turns out that it does not. So is who waits for
//! another thread to do a [`Chore`]; but to the outside that client is busy, not blocked: nothing but the
//! thread's answer or the end of the connection ends it.
//!
//! Lock order: shards, then a ticket's state. Replies are handed over when no shard is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::accounts;
use super::acks::Acks;
use super::args::Args;
use super::chore::Chore;
use super::command::{Flags, Handler};
use super::context::{DataCtx, ServerCtx, Shared, Worker};
use super::error::Error;
use super::execute::Invocation;
use super::later::{self, Later, Waited};
use super::locked::{self, Call};
use super::route;
use super::table::Known;
use crate::base::ticks::Ticks;
use crate::client::registry::{Handle, flag};
use crate::client::session::{Replies, Session};
use crate::keyspace::shards::{Keyspace, LockSet};
use crate::observe::stats::bump;
use crate::resp::write::{Output, Protocol};
use crate::types::Type;

/// What a handler asks for that found nothing.
#[derive(Debug)]
pub struct Block {
    /// The keys to wait for, in the order of the request.
    pub keys: Vec<Vec<u8>>,
    /// The type that one of them must get.
    pub on: Type,
    /// Until when, in Unix milliseconds; `None`: for ever.
    pub deadline: Option<i64>,
    /// A key beside the one that became ready that the command touches when it is run again.
    pub also: Option<Vec<u8>>,
    /// Run again also when a key of another type, or none, took the place of what it waits for.
    pub on_removal: bool,
    /// The request to be run again, when not as it came (`$` of XREAD means what it meant then).
    pub request: Option<Vec<Vec<u8>>>,
}

/// What a client waits for.
enum Awaited {
    /// One of its keys.
    Keys,
    /// Confirmations of replicas.
    Acks(Acks),
    /// The end of the server, or that it does not end.
    Shutdown,
    /// What another thread does.
    Chore,
}

/// How far a wait is.
enum State {
    Waiting,
    /// Ended; the reply is on its way.
    Ended,
    /// Ended with this reply, which the connection takes.
    Replied(Reply),
}

/// What a client gets that waited.
#[derive(Debug, Default)]
pub struct Reply {
    /// Written out.
    pub bytes: Vec<u8>,
    /// What another thread was to do failed, which is counted with [`count_failure`].
    pub failed: bool,
    /// The connection ends with it.
    pub closes: bool,
    /// Where the stream ended after what the command appended on another thread; 0 when it did not.
    pub written: u64,
}

impl From<Vec<u8>> for Reply {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

/// A client that waits, and its command.
pub struct Parked {
    ticket: u64,
    handle: Arc<Handle>,
    command: usize,
    db: usize,
    request: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    on: Type,
    also: Option<Vec<u8>>,
    on_removal: bool,
    awaited: Awaited,
    /// Until when, in Unix milliseconds.
    pub deadline: Option<i64>,
    protocol: Protocol,
    /// CLIENT REPLY OFF or SKIP.
    silent: bool,
    no_touch: bool,
    /// READONLY, and the command writes nothing.
    reads_replica: bool,
    /// Nanoseconds that the command took before it was parked.
    nanos: u64,
    state: Mutex<State>,
}

impl Parked {
    /// The reply, once the wait has ended; the connection goes on then.
    pub fn take_reply(&self) -> Option<Reply> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Replied(reply) => {
                let reply = std::mem::take(reply);
                *state = State::Ended;
                Some(reply)
            }
            _ => None,
        }
    }

    /// Its client is connected over TLS.
    pub fn is_tls(&self) -> bool {
        self.handle.is_tls()
    }

    /// The request that waits.
    pub fn request(&self) -> &[Vec<u8>] {
        &self.request
    }

    /// The keys that it waits for.
    pub(super) fn keys(&self) -> &[Vec<u8>] {
        &self.keys
    }

    /// A key beside the one that becomes ready that its command touches then.
    pub(super) fn other_key(&self) -> Option<&[u8]> {
        self.also.as_deref()
    }

    /// It only reads, and its client said READONLY.
    pub(super) fn reads_replica(&self) -> bool {
        self.reads_replica
    }

    /// Which wait this is.
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    fn reply(&self, reply: impl Into<Reply>) {
        let mut reply = reply.into();
        if self.silent {
            reply.bytes.clear();
        }
        *self.state.lock() = State::Replied(reply);
        self.handle.ring();
    }

    /// It waits for confirmations, and there are enough, or there never will be.
    fn is_confirmed(&self, shared: &Shared) -> bool {
        match self.awaited {
            Awaited::Acks(acks) => acks.are_here(shared) || acks.check(shared).is_err(),
            _ => false,
        }
    }

    /// It waits for another thread: what was answered before stays in the output, unsent, and the
    /// client need not be there to the end.
    pub fn is_for_chore(&self) -> bool {
        matches!(self.awaited, Awaited::Chore)
    }

    /// Ends the wait for another thread by its reply, unless the client is gone. Its worker counts an
    /// error: [`count_failure`].
    pub(super) fn answer(&self, reply: Vec<u8>) {
        self.answer_ran(reply, 0);
    }

    /// As [`Parked::answer`], for a command that another thread ran, where the stream ended after it.
    fn answer_ran(&self, reply: Vec<u8>, written: u64) {
        if self.end() {
            self.reply(Reply {
                failed: reply.first() == Some(&b'-'),
                written,
                ..Reply::from(reply)
            });
        }
    }

    /// Waits on this thread for the reply: for callers that serve nobody else.
    pub(super) fn await_reply(&self) -> Reply {
        loop {
            match self.take_reply() {
                Some(reply) => return reply,
                None => std::thread::yield_now(),
            }
        }
    }

    /// Ends the wait, if nobody else did.
    fn end(&self) -> bool {
        let mut state = self.state.lock();
        let waits = matches!(*state, State::Waiting);
        if waits {
            *state = State::Ended;
        }
        waits
    }
}

/// All clients that wait for keys.
#[derive(Default)]
pub struct Blocked {
    tickets: DashMap<u64, Arc<Parked>>,
    last_ticket: AtomicU64,
    /// How many of them have [`Block::on_removal`].
    on_removal: AtomicUsize,
    /// How many of them wait for replicas.
    on_acks: AtomicUsize,
    /// Keys whose clients are served when a script lets go.
    pub(super) later: Later,
}

impl Blocked {
    /// Number of waiting clients.
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Has clients looked at again.
    pub(super) fn ring_where(&self, wanted: impl Fn(&Parked) -> bool) {
        let waiting = self.tickets.iter().filter(|parked| wanted(parked));
        waiting.for_each(|parked| parked.handle.ring());
    }

    fn get(&self, ticket: u64) -> Option<Arc<Parked>> {
        self.tickets.get(&ticket).map(|p| Arc::clone(&p))
    }

    fn add(&self, keyspace: &Keyspace, parked: &Arc<Parked>) {
        if parked.on == Type::Stream {
            keyspace.awaited_streams.fetch_add(1, Relaxed);
        }
        if parked.on_removal {
            self.on_removal.fetch_add(1, Relaxed);
        }
        if matches!(parked.awaited, Awaited::Acks(_)) {
            self.on_acks.fetch_add(1, Relaxed);
        }
        self.tickets.insert(parked.ticket, Arc::clone(parked));
    }

    fn remove(&self, keyspace: &Keyspace, parked: &Parked) {
        if self.tickets.remove(&parked.ticket).is_none() {
            return;
        }
        if parked.on == Type::Stream {
            keyspace.awaited_streams.fetch_sub(1, Relaxed);
        }
        if parked.on_removal {
            self.on_removal.fetch_sub(1, Relaxed);
        }
        if matches!(parked.awaited, Awaited::Acks(_)) {
            self.on_acks.fetch_sub(1, Relaxed);
        }
    }
}

/// What serving waiting clients leaves to be done without locks.
#[derive(Default)]
pub struct Aftermath {
    /// Waits that ended, with their replies.
    ended: Vec<(Arc<Parked>, Vec<u8>)>,
    /// Keys that are ready for a command that needs a further shard.
    elsewhere: VecDeque<Waited>,
}

impl Aftermath {
    /// True when nothing is left to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.elsewhere.is_empty()
    }
}

/// Parks the client of a command that asked for it, under the locks of all its keys.
pub(super) fn park(
    shared: &Shared,
    worker: &mut Worker,
    session: &Session,
    out: &Output,
    locks: &mut LockSet<'_>,
    (known, args): (&Known, Args<'_>),
    block: Block,
) {
    let own = |args: Args<'_>| args.all().iter().map(|a| a.to_vec()).collect();
    let parked = Arc::new(Parked {
        ticket: shared.blocked.last_ticket.fetch_add(1, Relaxed) + 1,
        handle: Arc::clone(&session.handle),
        command: known.id,
        db: session.db,
        request: block.request.unwrap_or_else(|| own(args)),
        keys: block.keys,
        on: block.on,
        also: block.also,
        on_removal: block.on_removal,
        awaited: Awaited::Keys,
        deadline: block.deadline,
        protocol: out.protocol(),
        silent: session.replies != Replies::On,
        no_touch: session.no_touch,
        reads_replica: session.reads_replica && !known.flags.has(Flags::WRITE),
        nanos: Ticks::now().nanos_since(worker.ticks),
        state: Mutex::new(State::Waiting),
    });
    shared.blocked.add(&shared.keyspace, &parked);
    for key in &parked.keys {
        let shard = Keyspace::shard_of(shared.keyspace.hash(key));
        locks.shard(shard).wait(parked.db, key, parked.ticket);
    }
    worker.parked = Some(parked);
}

/// Parks the client of SHUTDOWN, until [`stay`] or the end of the process.
pub fn park_for_shutdown(ctx: &mut ServerCtx<'_, '_>) -> Arc<Parked> {
    let parked = without_keys(ctx, Awaited::Shutdown, None);
    ctx.shared.blocked.add(&ctx.shared.keyspace, &parked);
    ctx.worker.parked = Some(Arc::clone(&parked));
    parked
}

/// The server does not end: the client of SHUTDOWN hears of it. Called without locks.
pub fn stay(shared: &Shared, parked: &Parked) {
    shared.blocked.remove(&shared.keyspace, parked);
    parked.answer(b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n".to_vec());
}

/// Parks the client of WAIT or WAITAOF until what it wrote is confirmed.
pub fn park_for_acks(ctx: &mut ServerCtx<'_, '_>, acks: Acks, deadline: Option<i64>) {
    let parked = without_keys(ctx, Awaited::Acks(acks), deadline);
    ctx.shared.blocked.add(&ctx.shared.keyspace, &parked);
    ctx.worker.parked = Some(parked);
}

/// Has the client wait for `chore`, which another thread does. Within a transaction that begins when
/// EXEC has let the shards go, and EXEC's reply is what waits.
pub fn park_for_chore(ctx: &mut ServerCtx<'_, '_>, chore: &'static Chore) {
    if ctx.held.is_some() {
        ctx.worker.chore = Some(chore);
        return;
    }
    let parked = without_keys(ctx, Awaited::Chore, None);
    chore.ask(ctx.shared, &parked);
    ctx.worker.parked = Some(parked);
}

/// Has the client wait for an answer that another thread gives, by calling what is returned with the
/// encoded reply. `None` within a transaction, where nobody may wait.
pub fn park_for_answer(
    ctx: &mut ServerCtx<'_, '_>,
) -> Option<impl FnOnce(Vec<u8>) + Send + 'static> {
    if ctx.held.is_some() {
        return None;
    }
    let parked = without_keys(ctx, Awaited::Chore, None);
    ctx.worker.parked = Some(Arc::clone(&parked));
    Some(move |reply| parked.answer(reply))
}

/// As [`park_for_answer`], for a command that another thread runs: beside the reply it tells where the stream ended
/// after what it appended (0 when it did not).
pub fn park_for_errand(
    ctx: &mut ServerCtx<'_, '_>,
) -> Option<impl FnOnce(Vec<u8>, u64) + Send + 'static> {
    if ctx.denies_blocking() || ctx.session.is_script {
        return None;
    }
    let parked = without_keys(ctx, Awaited::Chore, None);
    ctx.worker.parked = Some(Arc::clone(&parked));
    Some(move |reply, written| parked.answer_ran(reply, written))
}

fn without_keys(ctx: &ServerCtx<'_, '_>, awaited: Awaited, deadline: Option<i64>) -> Arc<Parked> {
    let (blocked, session) = (&ctx.shared.blocked, &ctx.session);
    if !matches!(awaited, Awaited::Chore) {
        // Who asks next sees that it waits; what its worker tells at the end of the turn is the same.
        session.handle.live.flags.fetch_or(flag::BLOCKED, Relaxed);
    }
    let request: Vec<Vec<u8>> = ctx.args.all().iter().map(|a| a.to_vec()).collect();
    Arc::new(Parked {
        ticket: blocked.last_ticket.fetch_add(1, Relaxed) + 1,
        handle: Arc::clone(&session.handle),
        command: ctx.shared.commands.find(&request[0]).map_or(0, |k| k.id),
        db: session.db,
        request,
        keys: Vec::new(),
        on: Type::String,
        also: None,
        on_removal: false,
        awaited,
        deadline,
        protocol: ctx.out.protocol(),
        silent: session.replies != Replies::On,
        no_touch: session.no_touch,
        reads_replica: false,
        nanos: Ticks::now().nanos_since(ctx.worker.ticks),
        state: Mutex::new(State::Waiting),
    })
}

/// A replica confirmed something, or the append-only file is on the disk up to somewhere: has the clients
/// looked at that wait for it. Called without locks.
pub fn acknowledged(shared: &Shared) {
    if shared.blocked.on_acks.load(Relaxed) == 0 {
        return;
    }
    shared
        .blocked
        .ring_where(|parked| parked.is_confirmed(shared));
}

/// Serves those who wait for the keys that the last command made ready, in the order in which
/// these became so, under its locks.
#[cold]
pub(super) fn serve<'k>(shared: &'k Shared, worker: &mut Worker, locks: &mut LockSet<'k>) {
    let mut at = 0;
    while let Some((db, key)) = worker.effects.take_ready(at) {
        at += 1;
        serve_key(shared, worker, locks, db, &key);
    }
    worker.effects.forget_ready();
}

fn serve_key<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    locks: &mut LockSet<'k>,
    db: usize,
    key: &[u8],
) {
    let keyspace = &shared.keyspace;
    let shard = Keyspace::shard_of(keyspace.hash(key));
    if !locks.shard(shard).waiters(db, key).is_empty()
        && keyspace.is_expired(locks, db, key, worker.env.now_ms)
    {
        expire(shared, worker, locks, db, key);
    }
    for ticket in locks.shard(shard).waiters(db, key) {
        let Some(parked) = shared.blocked.get(ticket) else {
            continue;
        };
        let kind = keyspace.kind_of(locks, db, key, worker.env.now_ms);
        if kind != Some(parked.on) && !parked.on_removal {
            continue;
        }
        if let Some(also) = &parked.also
            && !locks.holds(Keyspace::shard_of(keyspace.hash(also)))
        {
            // Those behind it must not overtake it.
            let waited = Waited {
                db,
                key: key.into(),
                also: also.as_slice().into(),
            };
            worker.aftermath.elsewhere.push_back(waited);
            return;
        }
        let mut state = parked.state.lock();
        if !matches!(*state, State::Waiting) {
            continue;
        }
        let reply = match route::refusal_of_woken(shared, worker, &parked, locks) {
            Some(refusal) => Some(reply_to_failed(shared, worker, &parked, &refusal)),
            None => run_again(shared, worker, locks, &parked, key),
        };
        if let Some(reply) = reply {
            *state = State::Ended;
            drop(state);
            shared.blocked.remove(&shared.keyspace, &parked);
            locks.shard(shard).unwait(db, key, ticket);
            worker.aftermath.ended.push((parked, reply));
        }
    }
}

fn reply_to_failed(shared: &Shared, worker: &Worker, parked: &Parked, error: &Error) -> Vec<u8> {
    let known = shared.commands.get(parked.command);
    let mut out = Output::new();
    accounts::failed(shared, worker, known, &mut out, error);
    out.to_vec()
}

/// Removes a key that had expired when it came to those who wait for it, and tells.
fn expire<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    locks: &mut LockSet<'k>,
    db: usize,
    key: &[u8],
) {
    let call = Call {
        shared,
        worker,
        db,
        args: Args::new(&[]),
        hints: &[],
        no_touch: true,
    };
    call.under(locks, false, |mut view, _| view.expire_if_due(key));
}

/// Runs a parked command for the key that became ready; its reply, unless it waits on.
fn run_again<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    locks: &mut LockSet<'k>,
    parked: &Parked,
    key: &[u8],
) -> Option<Vec<u8>> {
    let known = shared.commands.get(parked.command);
    let Handler::Data(run) = known.row.handler else {
        unreachable!("only handlers of data can block");
    };
    let started = Ticks::now();
    let list: SmallVec<[&[u8]; 8]> = parked.request.iter().map(|a| &a[..]).collect();
    let args = Args::new(&list);
    let mut out = Output::new();
    out.set_protocol(parked.protocol);
    let mut block = None;
    // What wakes a client may be the primary's; what the client does is its own.
    let source = std::mem::take(&mut worker.source);
    let call = Call {
        shared,
        worker: &mut *worker,
        db: parked.db,
        args,
        hints: &[],
        no_touch: parked.no_touch,
    };
    let result = call.under(locks, false, |db, settings| {
        run(&mut DataCtx {
            of_script: false,
            args,
            db,
            out: &mut out,
            settings,
            woken: Some(key),
            may_block: true,
            parks: &mut block,
        })
    });
    worker.source = source;
    if block.is_some() {
        return None;
    }
    if let Err(error) = result {
        accounts::failed(shared, worker, known, &mut out, &error);
    }
    let nanos = (parked.nanos, Ticks::now().nanos_since(started));
    let invocation = Invocation::new(known, args);
    accounts::waited(shared, worker, &parked.handle, invocation, nanos);
    Some(out.to_vec())
}

/// Does what serving left to be done, without locks.
#[cold]
pub(super) fn settle(shared: &Shared, worker: &mut Worker) {
    loop {
        for (parked, reply) in std::mem::take(&mut worker.aftermath.ended) {
            forget(shared, &parked);
            parked.reply(reply);
        }
        let Some(waited) = worker.aftermath.elsewhere.pop_front() else {
            return;
        };
        if let Err(waited) = serve_elsewhere(shared, worker, waited) {
            later::serve(shared, waited);
        }
    }
}

/// Serves who waits for a key, with the shards of what they do with it. Called without locks.
///
/// # Errors
/// The same key, while a script holds one of the shards that runs for long, perhaps on this very stack.
pub(super) fn serve_elsewhere(
    shared: &Shared,
    worker: &mut Worker,
    waited: Waited,
) -> Result<(), Waited> {
    let keyspace = &shared.keyspace;
    let hashes = [&waited.key[..], &waited.also].map(|key| keyspace.hash(key));
    let Ok(mut locks) = keyspace.lock_many_in_time(hashes.into_iter()) else {
        return Err(waited);
    };
    serve_key(shared, worker, &mut locks, waited.db, &waited.key);
    serve(shared, worker, &mut locks);
    drop(locks);
    locked::release(shared, worker);
    Ok(())
}

/// Takes an ended wait out of all queues. Called without locks.
fn forget(shared: &Shared, parked: &Parked) {
    shared.blocked.remove(&shared.keyspace, parked);
    for key in &parked.keys {
        let hash = shared.keyspace.hash(key);
        // While a script holds the shard that runs for long, an entry that means nothing stays there.
        if let Ok(mut locks) = shared.keyspace.lock_one_in_time(hash) {
            let shard = locks.shard(Keyspace::shard_of(hash));
            shard.unwait(parked.db, key, parked.ticket);
        }
    }
}

/// The time is over: the client gets a null. Called without locks.
pub fn time_out(shared: &Shared, worker: &mut Worker, parked: &Parked) {
    if let Some(reply) = end_with(shared, worker, parked, Ok(())) {
        forget(shared, parked);
        parked.reply(reply);
    }
}

/// Ends a client's wait with a null, or with an error; false when it does not wait. Within a
/// transaction the client hears of it when the shards are let go.
pub fn unblock(ctx: &mut ServerCtx<'_, '_>, client: u64, with_error: bool) -> bool {
    let of_client =
        |p: &Arc<Parked>| p.handle.id == client && !matches!(p.awaited, Awaited::Shutdown);
    let tickets = &ctx.shared.blocked.tickets;
    let found = tickets
        .iter()
        .find(|p| of_client(p))
        .map(|p| Arc::clone(&p));
    let Some(parked) = found else { return false };
    let unblocked = Error::line("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    let result = if with_error { Err(unblocked) } else { Ok(()) };
    let Some(reply) = end_with(ctx.shared, ctx.worker, &parked, result) else {
        return false;
    };
    // Redis counts it as failed, whatever the client hears; an error counts itself. The slow log
    // would show a command without arguments, and does not show it here.
    let stats = &ctx.worker.stats.commands[parked.command];
    bump(&stats.failed, u64::from(!with_error));
    stats.record_more(parked.nanos, ctx.worker.settings.latency_tracking);
    ctx.worker.aftermath.ended.push((parked, reply));
    if ctx.held.is_none() {
        settle(ctx.shared, ctx.worker);
    }
    true
}

/// This server becomes a replica: nobody waits any more for what only a primary's clients may do.
/// Their connections end, so that they look for the primary. Called without locks.
pub fn release_all(shared: &Shared, worker: &mut Worker) {
    let tickets = shared.blocked.tickets.iter();
    let waiting: Vec<_> = tickets.map(|parked| Arc::clone(&parked)).collect();
    for parked in waiting {
        let error = Error::line(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> \
             replica?)",
        );
        if let Some(reply) = end_with(shared, worker, &parked, Err(error)) {
            forget(shared, &parked);
            parked.reply(Reply {
                closes: true,
                ..Reply::from(reply)
            });
        }
    }
}

/// Counts the failure of a wait for another thread, if this reply tells of one.
pub fn count_failure(shared: &Shared, worker: &Worker, parked: &Parked, reply: &Reply) {
    if reply.failed {
        let line = reply.bytes.get(1..).unwrap_or(b"ERR");
        shared.stats.count_error(line.trim_ascii_end());
        bump(&worker.stats.commands[parked.command].failed, 1);
    }
}

/// Ends a wait with a null, or with an error, and gives the reply; `None` when it had ended
/// already. It is still in the queues of its keys: see [`forget`].
fn end_with(
    shared: &Shared,
    worker: &mut Worker,
    parked: &Parked,
    result: Result<(), Error>,
) -> Option<Vec<u8>> {
    if !parked.end() {
        return None;
    }
    let mut out = Output::new();
    out.set_protocol(parked.protocol);
    match result {
        Ok(()) => match parked.awaited {
            Awaited::Acks(acks) => acks.tell(shared, &mut out),
            _ => out.null_array(),
        },
        Err(error) => return Some(reply_to_failed(shared, worker, parked, &error)),
    }
    Some(out.to_vec())
}

/// The client is gone. Called without locks.
pub fn abandon(shared: &Shared, parked: &Parked) {
    if parked.end() {
        forget(shared, parked);
    }
}

/// Has those looked at again who wait for a group of a stream that was removed by what is no
/// command (expiry, eviction). May be called under locks.
pub fn removed(shared: &Shared, db: usize, key: &[u8]) {
    if shared.blocked.on_removal.load(Relaxed) == 0 {
        return;
    }
    shared.blocked.ring_where(|parked| {
        parked.on_removal && parked.db == db && parked.keys.iter().any(|k| **k == *key)
    });
}

/// Looks whether what a client waits for was removed, after [`removed`] asked for it, or confirmed,
/// after [`acknowledged`] did, or is to be had elsewhere, after [`route::recheck_blocked`].
pub fn look_again(shared: &Shared, worker: &mut Worker, parked: &Parked) {
    if let Some(refusal) = route::refusal_of_wait(shared, parked) {
        if let Some(reply) = end_with(shared, worker, parked, Err(refusal)) {
            forget(shared, parked);
            parked.reply(reply);
        }
        return;
    }
    if let Awaited::Acks(acks) = parked.awaited {
        let result = acks.check(shared);
        if (result.is_err() || acks.are_here(shared))
            && let Some(reply) = end_with(shared, worker, parked, result)
        {
            forget(shared, parked);
            parked.reply(reply);
        }
        return;
    }
    if !parked.on_removal {
        return;
    }
    for key in &parked.keys {
        let keyspace = &shared.keyspace;
        let hash = keyspace.hash(key);
        let Ok(mut locks) = keyspace.lock_one_in_time(hash) else {
            let (key, also) = (key[..].into(), key[..].into());
            let db = parked.db;
            later::serve(shared, Waited { db, key, also });
            continue;
        };
        if keyspace.kind_of(&locks, parked.db, key, worker.env.now_ms) != Some(parked.on) {
            serve_key(shared, worker, &mut locks, parked.db, key);
        }
        locked::conclude(shared, worker, locks);
    }
}
