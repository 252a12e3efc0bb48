//! Running a command: locks, handler, propagation, statistics. One path for every command.

use std::sync::atomic::Ordering::Relaxed;

use super::admit::{self, Verdict};
use super::args::Args;
use super::blocking;
use super::command::{Command, Flags, Handler};
use super::context::{DataCtx, ServerCtx, Shared, Worker};
use super::error::Error;
use super::job::Running;
use super::source::Source;
use super::table::Known;
use super::{keys, source, transaction};
use crate::base::ticks::Ticks;
use crate::client::registry::Handle;
use crate::client::session::{Replies, Session};
use crate::config::Settings;
use crate::keyspace::db::{Db, Effects, Hint, Rewrite};
use crate::keyspace::outbox::{Notice, Outgoing};
use crate::keyspace::shards::{Keyspace, LockSet};
use crate::observe::stats::bump;
use crate::pubsub::Nobody;
use crate::resp::write::Output;

/// What the connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Goes on with the next one.
    Next,
    /// Keeps the request and tries it again when the pause is over.
    Park,
    /// Keeps the wait in [`Worker::parked`] until it has its reply.
    Block,
    /// Keeps the job in [`Worker::running`] and has it stepped until it has its reply.
    Job,
}

/// A request looked at ahead of its turn, so that its keys can be prefetched.
#[derive(Clone, Copy)]
pub struct Prepared<'a> {
    /// The command or container, if the name is known.
    pub known: Option<&'a Known>,
    /// Its keys, as far as they are plain.
    pub hints: &'a [Hint],
}

/// Finds a request's command by the name, hashes its keys into `hints`, and asks the processor
/// for their buckets. `arg` gives the request's arguments, of which there are `len`.
#[inline]
pub fn prepare<'t, 'a>(
    shared: &'t Shared,
    db: usize,
    len: usize,
    arg: impl Fn(usize) -> &'a [u8],
    hints: &mut Vec<Hint>,
) -> Option<&'t Known> {
    let known = shared.commands.find(arg(0))?;
    let hint = |index| Hint::new(&shared.keyspace, db, arg(index));
    match known.key {
        0 => keys::each_plain(known.row, len, |index| hints.push(hint(index))),
        key if key < len => hints.push(hint(key)),
        _ => {}
    }
    Some(known)
}

/// Reads ahead what requests for some elements of the collection at `key` are going to read.
pub fn warm(
    shared: &Shared,
    worker: &mut Worker,
    db: usize,
    (key, hint): (&[u8], &Hint),
    elements: &[&[u8]],
) {
    let keyspace = &shared.keyspace;
    let (mut locks, hints) = (keyspace.lock_one(hint.hash()), std::slice::from_ref(hint));
    let effects = &mut worker.effects;
    let view = Db::new(keyspace, &mut locks, &worker.env, effects, db, hints);
    if let Some(entry) = view.get(key)
        && let Some(object) = entry.object()
    {
        object.warm(elements);
    }
}

/// Serves one request.
#[inline(always)]
pub fn request(
    shared: &Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    args: Args<'_>,
    prepared: Prepared<'_>,
) -> Flow {
    // Most are commands on keys while nothing stands against them: no more to be asked.
    if let Some(known) = prepared.known
        && takes_short_way(worker, session, known, args.len())
    {
        session.handle.live.set_last_command(Some(known.id));
        let hints = prepared.hints;
        perform(shared, worker, session, out, known, args, hints, None);
        return flow_after(worker);
    }
    request_of_state(shared, worker, session, out, args, prepared)
}

/// True when nothing can stand against a request of `len` arguments, as of the worker's last look
/// around: [`admit::admit`] would have it run.
#[inline(always)]
pub fn takes_short_way(worker: &Worker, session: &Session, known: &Known, len: usize) -> bool {
    worker.is_calm_for(known) && known.is_plain(len) && session.is_plain()
}

/// Serves a request that something may stand against, or that is to be kept or not answered.
#[inline(never)]
fn request_of_state(
    shared: &Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    args: Args<'_>,
    prepared: Prepared<'_>,
) -> Flow {
    let silent = session.replies != Replies::On;
    if silent {
        out.mute();
    }
    let flow = answer(shared, worker, session, out, args, prepared);
    out.unmute();
    // CLIENT REPLY SKIP, which answers nothing, silences the next command, also from within one that
    // it silenced itself.
    session.replies = match session.replies {
        Replies::SkipNext if flow != Flow::Park => Replies::Skip,
        Replies::Skip if silent && flow != Flow::Park => Replies::On,
        as_before => as_before,
    };
    flow
}

/// Where the connection goes on after a command that ran.
#[inline]
fn flow_after(worker: &Worker) -> Flow {
    if worker.running.is_some() {
        Flow::Job
    } else if worker.parked.is_some() {
        Flow::Block
    } else {
        Flow::Next
    }
}

fn answer(
    shared: &Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    args: Args<'_>,
    prepared: Prepared<'_>,
) -> Flow {
    let mut known = prepared.known;
    let resolved = admit::resolve(shared, known, args);
    let named = admit::named(shared, known, args);
    session.handle.live.set_last_command(named.map(|k| k.id));
    let admitted = resolved.and_then(|resolved| {
        known = Some(resolved);
        admit::admit(shared, worker, session, out, resolved)
    });
    match admitted {
        Ok(Verdict::Run(known)) => {
            call(
                shared,
                worker,
                session,
                out,
                known,
                args,
                prepared.hints,
                None,
            );
            return flow_after(worker);
        }
        Ok(Verdict::Queue(known)) => {
            transaction::queue(session, known, args);
            out.simple("QUEUED");
        }
        Ok(Verdict::Wait) => return Flow::Park,
        Err(_) if known.is_none() && is_foreign(&args[0]) => return security_warning(session),
        Err(error) => {
            admit::refused(shared, worker, session, known, &error);
            if known.is_some_and(|k| k.flags.has(Flags::EXEC)) {
                transaction::abort(shared, session, out, &error);
            } else {
                out.error_bytes(&error.text());
            }
        }
    }
    Flow::Next
}

fn is_foreign(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// A browser was tricked into talking to us: hang up.
#[cold]
fn security_warning(session: &mut Session) -> Flow {
    tracing::warn!(
        "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: \
         commands to Redis. This is likely due to an attacker attempting to use Cross Protocol \
         Scripting to compromise your Redis instance. Connection from {} aborted.",
        session.handle.address
    );
    session.close_now = true;
    Flow::Next
}

/// Runs a command, alone or (with `held`) within a transaction, and accounts for it.
#[allow(clippy::too_many_arguments)]
pub fn call<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    known: &Known,
    args: Args<'_>,
    hints: &[Hint],
    held: Option<&mut LockSet<'k>>,
) {
    perform(shared, worker, session, out, known, args, hints, held);
}

/// [`call`], written out where most requests come by.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn perform<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    known: &Known,
    args: Args<'_>,
    hints: &[Hint],
    held: Option<&mut LockSet<'k>>,
) {
    worker.stats.running.store(known.id as u64 + 1, Relaxed);
    session.tells |= known.flags.has(Flags::TELLS);
    let start = worker.ticks;
    let row = known.row;
    let result = match row.handler {
        Handler::Data(run) => data(shared, worker, session, out, known, run, args, hints, held),
        Handler::Server(run) => {
            let mut ctx = ServerCtx {
                shared,
                worker,
                session,
                command: row,
                args,
                out,
                held,
            };
            let result = run(&mut ctx);
            // It may have changed what stands against commands.
            worker.look_around(shared);
            result
        }
        Handler::Container => Err(Error::Arity(known.full_name.clone().into())),
    };
    if let Err(error) = result {
        failed(shared, worker, known, out, &error);
        if worker.source.is_obeyed() {
            source::failed(shared, worker, &error.text());
        }
    }
    if worker.appended != 0 {
        session.written = std::mem::take(&mut worker.appended);
    }
    let end = Ticks::now();
    let nanos = end.nanos_since(start);
    worker.ticks = end;
    match worker.job.take() {
        Some(job) => {
            worker.running = Some(Running {
                job,
                command: known.id,
                args: args.all().iter().map(|a| a.to_vec()).collect(),
                nanos,
            });
        }
        None if worker.parked.as_ref().is_some_and(|p| !p.is_for_chore()) => {
            account_wait(worker, known, nanos);
        }
        None => account(shared, worker, &session.handle, known, args, nanos),
    }
    // Afterwards, so that EXEC is shown behind what it ran and SELECT with its new database.
    if !shared.monitors.is_empty() && !known.flags.has(Flags::SKIP_MONITOR.or(Flags::ADMIN)) {
        let (now_us, address) = (crate::base::clock::unix_us(), session.monitor_address());
        shared
            .monitors
            .feed(now_us, session.db, address, &row.shown(args));
    }
}

/// Counts and answers the error of a command.
#[cold]
pub fn failed(shared: &Shared, worker: &Worker, known: &Known, out: &mut Output, error: &Error) {
    let text = error.text();
    shared.stats.count_error(&text);
    bump(&worker.stats.commands[known.id].failed, 1);
    out.error_bytes(&text);
}

/// Gives a command that goes on in slices its next one; true when it has its reply.
pub fn step(
    shared: &Shared,
    worker: &mut Worker,
    session: &Session,
    out: &mut Output,
    running: &mut Running,
) -> bool {
    let start = Ticks::now();
    let done = running.job.step(shared, worker, session);
    if done {
        running.job.reply(out);
    }
    worker.ticks = Ticks::now();
    running.nanos += worker.ticks.nanos_since(start);
    if done {
        let list: Vec<&[u8]> = running.args.iter().map(|a| &a[..]).collect();
        let known = shared.commands.get(running.command);
        let args = Args::new(&list);
        account(shared, worker, &session.handle, known, args, running.nanos);
    }
    done
}

/// Brings the command that just ran to its end, if it goes on in slices or another thread does: for
/// callers that serve nobody else.
pub fn to_end(shared: &Shared, worker: &mut Worker, session: &Session, out: &mut Output) {
    if let Some(mut running) = worker.running.take() {
        while !step(shared, worker, session, out, &mut running) {}
    }
    if let Some(parked) = worker.parked.take_if(|parked| parked.is_for_chore()) {
        out.raw(&parked.await_reply());
        super::blocking::count_failure(shared, worker, &parked);
    }
}

/// Counts a command that just ended.
#[inline(always)]
pub(super) fn account(
    shared: &Shared,
    worker: &mut Worker,
    client: &Handle,
    known: &Known,
    args: Args<'_>,
    nanos: u64,
) {
    let tracked = worker.settings.latency_tracking;
    worker.stats.commands[known.id].record(nanos, tracked);
    bump(&worker.stats.counters.commands, 1);
    bump(&worker.stats.counters.command_nanos, nanos);
    if nanos >= worker.notable_nanos {
        notable(shared, worker, client, known, args, nanos);
    }
}

/// Tells the slow log and the latency monitor of a command that one of them may want.
#[cold]
fn notable(
    shared: &Shared,
    worker: &Worker,
    client: &Handle,
    known: &Known,
    args: Args<'_>,
    nanos: u64,
) {
    let settings = &worker.settings;
    let (seconds, micros) = (worker.now.ms / 1000, nanos / 1000);
    slow(shared, worker, client, known, args, micros);
    let threshold = settings.latency_monitor_threshold;
    if threshold > 0 && micros / 1000 >= threshold as u64 {
        let event = if known.flags.has(Flags::FAST) {
            "fast-command"
        } else {
            "command"
        };
        let millis = (micros / 1000) as u32;
        shared.latency.record(event, seconds, millis);
    }
}

/// Counts a command that waits from now on: it is one call, whatever becomes of it.
#[cold]
fn account_wait(worker: &Worker, known: &Known, nanos: u64) {
    worker.stats.commands[known.id].record(nanos, false);
    bump(&worker.stats.counters.commands, 1);
    bump(&worker.stats.counters.command_nanos, nanos);
}

/// Counts the end of a wait by a reply that is neither a timeout nor an acknowledgement. `nanos`:
/// what the command took before it waited, which Redis counts again here, and the reply.
#[cold]
pub(super) fn account_waited(
    shared: &Shared,
    worker: &Worker,
    client: &Handle,
    known: &Known,
    args: Args<'_>,
    nanos: (u64, u64),
) {
    let (settings, total) = (&worker.settings, nanos.0 + nanos.1);
    worker.stats.commands[known.id].record_more(total, settings.latency_tracking);
    slow(shared, worker, client, known, args, total / 1000);
    let (threshold, millis) = (settings.latency_monitor_threshold, nanos.1 / 1_000_000);
    if threshold > 0 && millis >= threshold as u64 {
        let seconds = worker.now.ms / 1000;
        let latency = &shared.latency;
        latency.record("command-unblocking", seconds, millis as u32);
    }
}

/// Tells the slow log, if it wants to know of that.
fn slow(
    shared: &Shared,
    worker: &Worker,
    client: &Handle,
    known: &Known,
    args: Args<'_>,
    micros: u64,
) {
    let settings = &worker.settings;
    let slower_than = settings.slowlog_log_slower_than;
    if slower_than < 0 || micros < slower_than as u64 || known.flags.has(Flags::SKIP_SLOWLOG) {
        return;
    }
    let name = client.name.read().clone();
    let client = (&client.address[..], &name[..]);
    let (seconds, max_len) = (worker.now.ms / 1000, settings.slowlog_max_len as usize);
    let args = known.row.shown(args);
    shared
        .slowlog
        .record(seconds, micros, &args, client, max_len);
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn data<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    known: &Known,
    run: fn(&mut DataCtx<'_, '_>) -> Result<(), Error>,
    args: Args<'_>,
    hints: &[Hint],
    held: Option<&mut LockSet<'k>>,
) -> Result<(), Error> {
    let may_block = held.is_none() && !worker.source.is_obeyed();
    let call = Call {
        shared,
        worker: &mut *worker,
        db: session.db,
        args,
        hints,
        no_touch: session.no_touch,
    };
    let mut parks = None;
    let work = |db: Db<'_, 'k>, settings: &Settings| {
        let mut ctx = DataCtx {
            args,
            db,
            out: &mut *out,
            settings,
            woken: None,
            may_block,
            parks: &mut parks,
        };
        run(&mut ctx)
    };
    if let Some(held) = held {
        return call.under(held, true, work);
    }
    let mut locks = lock(shared, known, args, hints);
    let result = call.under(&mut locks, false, work);
    if let Some(block) = parks {
        let request = (known, args);
        blocking::park(shared, worker, session, out, &mut locks, request, *block);
    }
    conclude(shared, worker, locks);
    result
}

/// Ends the work under `locks`: serves who waits for what it made, unlocks, and does the rest.
#[inline(always)]
pub(super) fn conclude<'k>(shared: &'k Shared, worker: &mut Worker, mut locks: LockSet<'k>) {
    if worker.effects.is_any_ready() {
        blocking::serve(shared, worker, &mut locks);
    }
    match locks {
        LockSet::One(guard) => drop(guard),
        several => drop(several),
    }
    release(shared, worker);
    if !worker.aftermath.is_empty() {
        blocking::settle(shared, worker);
    }
}

/// Locks the shards of a command's keys.
#[inline(always)]
fn lock<'k>(shared: &'k Shared, known: &Known, args: Args<'_>, hints: &[Hint]) -> LockSet<'k> {
    match hints {
        [one] if known.key != 0 => shared.keyspace.lock_one(one.hash()),
        _ => lock_several(shared, known.row, args, hints),
    }
}

fn lock_several<'k>(
    shared: &'k Shared,
    row: &Command,
    args: Args<'_>,
    hints: &[Hint],
) -> LockSet<'k> {
    match hints {
        [_, ..] if keys::is_plain(row) => shared.keyspace.lock_many(hints.iter().map(Hint::hash)),
        _ if row.scope.is_all(args) => shared.keyspace.lock_all(),
        _ => {
            let found = keys::collect(row, args);
            let hashes = found.iter().map(|(i, _)| shared.keyspace.hash(&args[*i]));
            shared.keyspace.lock_many(hashes)
        }
    }
}

/// One command's work under locks.
pub(super) struct Call<'a, 'k> {
    pub shared: &'k Shared,
    pub worker: &'a mut Worker,
    pub db: usize,
    pub args: Args<'a>,
    pub hints: &'a [Hint],
    pub no_touch: bool,
}

impl<'k> Call<'_, 'k> {
    /// Runs `work` under `locks` and propagates what it did, at once or (`within` a transaction)
    /// with the rest of it.
    #[inline(always)]
    pub fn under<R>(
        self,
        locks: &mut LockSet<'k>,
        within: bool,
        work: impl FnOnce(Db<'_, 'k>, &Settings) -> R,
    ) -> R {
        let Self {
            shared,
            worker,
            db,
            args,
            hints,
            no_touch,
        } = self;
        worker.env.touches = !no_touch;
        let heard = shared.stream.is_active() && worker.source.is_heard();
        worker.effects.set_heard(heard);
        let keyspace: &'k Keyspace = &shared.keyspace;
        let view = Db::new(keyspace, locks, &worker.env, &mut worker.effects, db, hints);
        let result = work(view, &worker.settings);
        let effects = &mut worker.effects;
        let met_expired = effects.met_expired();
        if effects.propagate() || met_expired {
            bump(&worker.stats.counters.changes, effects.changes());
            if heard && !within && !met_expired && effects.is_verbatim() {
                // As it came: straight from the input buffer to the log.
                worker.appended = shared.stream.append(|block| match args.whole() {
                    Some(request) => block.request(db, request),
                    None => block.command(db, args.all()),
                });
            } else if heard {
                let commands = propagated(worker, db, args);
                if within {
                    worker.pending.extend(commands);
                } else {
                    worker.appended = append(shared, &commands);
                }
            }
        }
        if worker.source == Source::Primary && !within && worker.appended == 0 {
            pass_on(shared, worker, db, args);
        }
        worker.effects.end_command();
        if met_expired {
            worker.count_expired();
        }
        result
    }
}

/// Appends what the primary sent to the stream, byte by byte, under the locks under which it was done.
/// `db` is selected afterwards.
#[inline(never)]
pub fn pass_on(shared: &Shared, worker: &mut Worker, db: usize, args: Args<'_>) {
    let for_replicas = worker
        .obeyed
        .is_some_and(|id| shared.commands.get(id).flags.has(Flags::FOR_REPLICAS));
    if let Some(request) = args.whole() {
        worker.appended = shared.stream.append_raw(request, db, for_replicas);
    }
}

/// What a command that just ran propagates: removals of keys and fields that it found expired, then
/// itself.
#[cold]
fn propagated(worker: &mut Worker, db: usize, args: Args<'_>) -> Vec<Propagated> {
    let effects = &mut worker.effects;
    let removal = if worker.env.lazy_expire {
        &b"UNLINK"[..]
    } else {
        b"DEL"
    };
    let expired = effects.expired().iter();
    let mut commands: Vec<_> = expired
        .map(|(db, key)| Propagated::new(*db, vec![removal.to_vec(), key.to_vec()]))
        .collect();
    commands.extend(removals_of_fields(effects));
    if effects.propagate() {
        match effects.take_rewrite() {
            Rewrite::Verbatim => commands.push(Propagated::new(db, owned(args))),
            Rewrite::As(forms) => {
                commands.extend(forms.into_iter().map(|form| Propagated::new(db, form)));
            }
        }
    }
    commands
}

/// How removals of expired fields of hashes are propagated.
pub(super) fn removals_of_fields(effects: &Effects) -> Vec<Propagated> {
    let fields = effects.expired_fields().iter();
    let removals = fields.map(|gone| {
        let command = vec![b"HDEL".to_vec(), gone.key.to_vec(), gone.field.to_vec()];
        Propagated::new(gone.db, command)
    });
    removals.collect()
}

/// A command for the stream.
#[derive(Debug)]
pub struct Propagated {
    /// The database on which it runs.
    pub db: usize,
    /// Its name and arguments.
    pub args: Vec<Vec<u8>>,
    /// It means nothing to a file.
    pub for_replicas: bool,
}

impl Propagated {
    /// A command for files and replicas.
    pub fn new(db: usize, args: Vec<Vec<u8>>) -> Self {
        Self {
            db,
            args,
            for_replicas: false,
        }
    }
}

fn owned(args: Args<'_>) -> Vec<Vec<u8>> {
    args.all().iter().map(|a| a.to_vec()).collect()
}

/// Appends commands to the stream as one block, a transaction if there are several; returns the
/// offset after it, 0 for no commands.
pub fn append(shared: &Shared, commands: &[Propagated]) -> u64 {
    if commands.is_empty() {
        return 0;
    }
    shared.stream.append(|block| {
        // The database is chosen before, not within.
        block.select(commands[0].db);
        if commands.len() > 1 {
            block.bare(&["MULTI"]);
        }
        for command in commands {
            if command.for_replicas {
                block.select(command.db);
                block.for_replicas(&command.args);
            } else {
                block.command(command.db, &command.args);
            }
        }
        if commands.len() > 1 {
            block.bare(&["EXEC"]);
        }
    })
}

/// Propagates the running command, which changes no keys, to replicas.
pub fn tell_replicas(ctx: &mut ServerCtx<'_, '_>) {
    if !ctx.worker.source.is_heard() || !ctx.shared.replication.is_fed() {
        return;
    }
    let command = Propagated {
        for_replicas: true,
        ..Propagated::new(ctx.session.db, owned(ctx.args))
    };
    match ctx.held {
        Some(_) => ctx.worker.pending.push(command),
        None => ctx.worker.appended = append(ctx.shared, &[command]),
    }
}

/// What follows a command once its locks are released: freeing, statistics, notifications.
#[inline(always)]
pub(super) fn release(shared: &Shared, worker: &mut Worker) {
    let effects = &mut worker.effects;
    if effects.leave_work() {
        free_and_tell(shared, effects);
    }
    let (hits, misses) = effects.take_lookups();
    if hits > 0 {
        bump(&worker.stats.counters.hits, hits);
    }
    if misses > 0 {
        bump(&worker.stats.counters.misses, misses);
    }
}

fn free_and_tell(shared: &Shared, effects: &mut Effects) {
    effects.free(&shared.keyspace.lazyfree);
    if effects.take_notices() {
        deliver(shared);
    }
}

/// Publishes the events that keys left in the outbox, and what transactions put behind them.
pub fn deliver(shared: &Shared) {
    shared.keyspace.outbox.deliver(|outgoing| match outgoing {
        Outgoing::Notice(notice) => publish(shared, &notice),
        Outgoing::Message(m) if m.to_shard => {
            shared
                .pubsub
                .publish_shard(&m.channel, &m.payload, &mut Nobody);
        }
        Outgoing::Message(m) => {
            shared.pubsub.publish(&m.channel, &m.payload, &mut Nobody);
        }
    });
}

fn publish(shared: &Shared, notice: &Notice) {
    use crate::config::NotifyFlags;
    let flags = NotifyFlags(notice.notify);
    let name = notice.event.name.as_bytes();
    if flags.has(NotifyFlags::KEYSPACE) {
        let mut channel = format!("__keyspace@{}__:", notice.db).into_bytes();
        channel.extend_from_slice(&notice.key);
        shared.pubsub.publish(&channel, name, &mut Nobody);
    }
    if flags.has(NotifyFlags::KEYEVENT) {
        let mut channel = format!("__keyevent@{}__:", notice.db).into_bytes();
        channel.extend_from_slice(name);
        shared.pubsub.publish(&channel, &notice.key, &mut Nobody);
    }
}

/// Frees memory until it is below `maxmemory`; false when commands that need memory must be
/// refused. Called without locks.
pub fn evict(shared: &Shared, worker: &mut Worker) -> bool {
    let settings = std::sync::Arc::clone(&worker.settings);
    super::upkeep::evict(shared, &settings, worker.now)
}

/// Ends what a closed connection had in the server: subscriptions, watched keys, MONITOR.
pub fn disconnect(shared: &Shared, session: &mut Session) {
    transaction::discard(shared, session);
    crate::dispatch::subscriptions::drop_all(shared, session);
    if session.monitor {
        session.monitor = false;
        shared.monitors.remove(session.handle.id);
    }
}
