//! Running a command: locks, handler, propagation, statistics. One path for every command.

use std::sync::atomic::Ordering::Relaxed;

use super::acl;
use super::admit::{self, Verdict};
use super::args::Args;
use super::command::{Flags, Handler};
use super::context::{ServerCtx, Shared, Worker};
use super::error::Error;
use super::job::Running;
use super::table::Known;
use super::{accounts, keys, locked, route, source, tracking, transaction};
use crate::base::ticks::Ticks;
use crate::client::registry::flag;
use crate::client::session::{Replies, Session};
use crate::keyspace::db::{Db, Hint};
use crate::keyspace::shards::LockSet;
use crate::resp::write::Output;

/// Nanoseconds of a command after which the clock is read before the next one.
const LONG_NANOS: u64 = 1_000_000;

/// What the connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Goes on with the next one.
    Next,
    /// Keeps the request and tries it again when the pause is over, or another server that is waited for
    /// has answered.
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

/// A command and how it is asked for.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    /// The command, or the subcommand.
    pub known: &'a Known,
    /// The arguments, its name first.
    pub args: Args<'a>,
    /// What is known of its keys, where that was looked at ahead.
    pub hints: &'a [Hint],
}

impl<'a> Invocation<'a> {
    /// One that nothing was looked at ahead for.
    pub fn new(known: &'a Known, args: Args<'a>) -> Self {
        Self {
            known,
            args,
            hints: &[],
        }
    }
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
    // While a script holds the shard that runs for long, nothing is read ahead.
    let Ok(mut locks) = keyspace.lock_one_in_time(hint.hash()) else {
        return;
    };
    let hints = std::slice::from_ref(hint);
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
        && takes_short_way(shared, worker, session, (known, args, prepared.hints))
    {
        session.handle.live.set_last_command(Some(known.id));
        let invocation = Invocation {
            known,
            args,
            hints: prepared.hints,
        };
        perform(shared, worker, session, out, invocation, None);
        return flow_after(worker);
    }
    request_of_state(shared, worker, session, out, args, prepared)
}

/// True when nothing can stand against a request, as of the worker's last look around:
/// [`admit::admit`] would have it run.
#[inline(always)]
pub fn takes_short_way(
    shared: &Shared,
    worker: &Worker,
    session: &mut Session,
    (known, args, hints): (&Known, Args<'_>, &[Hint]),
) -> bool {
    worker.is_calm_for(known)
        && known.is_plain(args.len())
        && session.is_plain()
        && (!worker.in_cluster || route::is_here(shared, session, known, hints))
        && (session.identity.is_free(worker.users_version)
            || acl::allows(worker, session, known, args))
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
    if session.asking && flow != Flow::Park && session.multi.is_none() {
        // ASKING is for one command, or one transaction.
        session.asking = prepared.known.is_some_and(|k| k.flags.has(Flags::ASKS));
    }
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
fn flow_after(worker: &mut Worker) -> Flow {
    if worker.postponed {
        worker.postponed = false;
        Flow::Park
    } else if worker.running.is_some() {
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
        let invocation = Invocation {
            known: resolved,
            args,
            hints: prepared.hints,
        };
        admit::admit(shared, worker, session, out, invocation)
    });
    if session.tracking.is_some() {
        let max_keys = worker.settings.tracking_table_max_keys;
        tracking::begin_command(shared, session, out, max_keys);
    }
    match admitted {
        Ok(Verdict::Run(known)) => {
            let invocation = Invocation {
                known,
                args,
                hints: prepared.hints,
            };
            if session.tracking.is_some() {
                call_looked_after(shared, worker, session, out, invocation);
            } else {
                call(shared, worker, session, out, invocation, None);
            }
            worker.env.reads_any_key = true;
            return flow_after(worker);
        }
        Ok(Verdict::Queue(known)) => {
            transaction::queue(session, known, args);
            out.simple("QUEUED");
        }
        Ok(Verdict::Wait) => {
            worker.env.reads_any_key = true;
            return Flow::Park;
        }
        // Its keys have to be looked at for where they are.
        Err(Error::Later) => {
            worker.env.reads_any_key = true;
            return Flow::Park;
        }
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
    // What this client's rules say of it holds for no other.
    worker.env.reads_any_key = true;
    Flow::Next
}

/// Runs a command of a client that keeps copies of keys.
#[cold]
fn call_looked_after(
    shared: &Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    invocation: Invocation<'_>,
) {
    let live = &session.handle.live;
    if live.flags.load(Relaxed) & flag::TRACKING_NOLOOP != 0 {
        worker.env.quiet_client = session.handle.id;
    }
    call(shared, worker, session, out, invocation, None);
    worker.env.quiet_client = 0;
    // CLIENT CACHING holds for the next command, or the next transaction.
    let known = invocation.known;
    let is_about_client = known
        .container
        .is_some_and(|id| shared.commands.get(id).row.name == "client");
    if !worker.postponed
        && session.multi.is_none()
        && !is_about_client
        && let Some(tracking) = &mut session.tracking
    {
        tracking.caching = false;
    }
    tracking::take_mail(session, out);
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
pub fn call<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    invocation: Invocation<'_>,
    held: Option<&mut LockSet<'k>>,
) {
    perform(shared, worker, session, out, invocation, held);
}

/// [`call`], written out where most requests come by.
#[inline(always)]
fn perform<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    invocation: Invocation<'_>,
    held: Option<&mut LockSet<'k>>,
) {
    let Invocation { known, args, .. } = invocation;
    worker.stats.running.store(known.id as u64 + 1, Relaxed);
    session.tells |= known.flags.has(Flags::TELLS);
    let (start, is_alone) = (worker.ticks, held.is_none());
    let row = known.row;
    let result = match row.handler {
        Handler::Data(run) => locked::run(shared, worker, session, out, (invocation, run), held),
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
        if matches!(error, Error::Later) && is_alone && !session.is_script {
            worker.postponed = true;
            return;
        }
        if matches!(error, Error::Elsewhere(_)) {
            return refused_late(shared, worker, session, out, (known, &error));
        }
        accounts::failed(shared, worker, known, out, &error);
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
    if nanos > LONG_NANOS && is_alone {
        // What comes behind it in this turn begins now.
        worker.catch_up();
    }
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
            accounts::waits(worker, known, nanos);
        }
        None => accounts::ended(shared, worker, &session.handle, invocation, nanos),
    }
    // Afterwards, so that EXEC is shown behind what it ran and SELECT with its new database.
    if !shared.monitors.is_empty() && !known.flags.has(Flags::SKIP_MONITOR.or(Flags::ADMIN)) {
        let (now_us, address) = (crate::base::clock::unix_us(), session.monitor_address());
        shared
            .monitors
            .feed(now_us, session.db, address, &row.shown(args));
    }
}

/// The cluster changed between the look at a request and its locks: it counts as refused, not as run.
#[cold]
fn refused_late(
    shared: &Shared,
    worker: &Worker,
    session: &mut Session,
    out: &mut Output,
    (known, error): (&Known, &Error),
) {
    admit::refused(shared, worker, session, Some(known), error);
    out.error_bytes(&error.text());
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
        let invocation = Invocation::new(known, Args::new(&list));
        accounts::ended(shared, worker, &session.handle, invocation, running.nanos);
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
        let reply = parked.await_reply();
        out.raw(&reply.bytes);
        super::blocking::count_failure(shared, worker, &parked, &reply);
    }
}

/// Ends what a closed connection had in the server: subscriptions, watched keys, MONITOR.
pub fn disconnect(shared: &Shared, session: &mut Session) {
    transaction::discard(shared, session);
    tracking::end(shared, session, None);
    crate::dispatch::subscriptions::drop_all(shared, session);
    if session.monitor {
        session.monitor = false;
        shared.monitors.remove(session.handle.id);
    }
}
