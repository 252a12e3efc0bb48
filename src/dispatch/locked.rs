//! Work under the locks of shards: which are taken, and what follows when they are let go.
//!
//! What a command did is appended to the stream under the locks under which it did it, so that for each
//! key the order of the stream is the order of execution.

use super::admit;
use super::args::Args;
use super::blocking;
use super::command::{Command, Flags, OnData};
use super::context::{DataCtx, Shared, Worker};
use super::error::Error;
use super::execute::Invocation;
use super::keys;
use super::propagate::{append, pass_on, propagated};
use super::route;
use super::source::Source;
use super::table::Known;
use super::tracking;
use crate::client::session::Session;
use crate::config::Settings;
use crate::keyspace::db::{Db, Effects, Hint};
use crate::keyspace::shards::{GaveUp, Keyspace, LockSet};
use crate::observe::stats::bump;
use crate::resp::write::Output;

/// Runs a command on keys under their locks, or under those that a transaction holds.
#[inline(always)]
pub(super) fn run<'k>(
    shared: &'k Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    (invocation, handler): (Invocation<'_>, OnData),
    held: Option<&mut LockSet<'k>>,
) -> Result<(), Error> {
    let Invocation { known, args, hints } = invocation;
    if worker.is_writable_replica {
        // Reads leave what is the primary's to remove.
        worker.leave_expired_to_primary(shared, !known.flags.has(Flags::WRITE));
    }
    let (source, of_script) = (worker.source, session.is_script);
    let may_block = held.is_none() && !source.is_obeyed();
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
            of_script,
            args,
            db,
            out: &mut *out,
            settings,
            woken: None,
            may_block,
            parks: &mut parks,
        };
        handler(&mut ctx)
    };
    if let Some(held) = held {
        let result = call.under(held, true, work);
        note_volatile(shared, worker, session, invocation, held);
        if session.tracking.is_some() {
            tracking::remember(&shared.keyspace, session, invocation, held);
        }
        return result;
    }
    let mut locks = lock(shared, source, known, args, hints)?;
    if call.worker.in_cluster
        && let Some(refusal) =
            route::refusal_under(shared, call.worker, session, invocation, &locks)
    {
        return Err(refusal);
    }
    let result = call.under(&mut locks, false, work);
    note_volatile(shared, worker, session, invocation, &locks);
    if session.tracking.is_some() {
        tracking::remember(&shared.keyspace, session, invocation, &mut locks);
    }
    if let Some(block) = parks {
        let request = (known, args);
        blocking::park(shared, worker, session, out, &mut locks, request, *block);
    }
    conclude(shared, worker, locks);
    result
}

/// Takes note of what clients of a writable replica give an expiry: its primary does not remove it.
#[inline(always)]
fn note_volatile(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    invocation: Invocation<'_>,
    locks: &LockSet<'_>,
) {
    if worker.is_writable_replica && invocation.known.flags.has(Flags::WRITE) {
        note_volatile_keys(shared, session.db, invocation, locks);
    }
}

#[cold]
fn note_volatile_keys(shared: &Shared, db: usize, invocation: Invocation<'_>, locks: &LockSet<'_>) {
    let Invocation { known, args, .. } = invocation;
    keys::each(known.row, args, |index, _| {
        let key = &args[index];
        if shared.keyspace.expiry_of(locks, db, key).is_some() {
            shared.replication.upstream.note_volatile(db, key);
        }
    });
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

/// Locks the shards of a command's keys; not for a client while a script holds one of them that runs for
/// long.
#[inline(always)]
fn lock<'k>(
    shared: &'k Shared,
    source: Source,
    known: &Known,
    args: Args<'_>,
    hints: &[Hint],
) -> Result<LockSet<'k>, Error> {
    if source.is_obeyed() {
        return Ok(match hints {
            [one] if known.key != 0 => shared.keyspace.lock_one(one.hash()),
            _ => lock_several(shared, known.row, args, hints),
        });
    }
    let locks = match hints {
        [one] if known.key != 0 => shared.keyspace.lock_one_in_time(one.hash()),
        _ => lock_several_in_time(shared, known.row, args, hints),
    };
    locks.map_err(|why| admit::gave_up(shared, why))
}

fn lock_several_in_time<'k>(
    shared: &'k Shared,
    row: &Command,
    args: Args<'_>,
    hints: &[Hint],
) -> Result<LockSet<'k>, GaveUp> {
    let keyspace = &shared.keyspace;
    match hints {
        [_, ..] if keys::is_plain(row) => keyspace.lock_many_in_time(hints.iter().map(Hint::hash)),
        _ if row.scope.is_all(args) => keyspace.lock_all_in_time(),
        _ => {
            let found = keys::collect(row, args);
            keyspace.lock_many_in_time(found.iter().map(|(i, _)| keyspace.hash(&args[*i])))
        }
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
        super::events::deliver(shared);
    }
}
