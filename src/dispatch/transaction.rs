//! MULTI, EXEC and WATCH.
//!
//! EXEC locks the union of the shards of all queued commands and watched keys, looks whether a
//! watched key changed, runs the commands, appends everything they did to the stream as one
//! block, and unlocks: nobody sees a part of it, and nothing can slip between check and run. In a
//! cluster it is looked under the same locks whether all of it is still this node's to run.

use std::sync::atomic::Ordering::Relaxed;

use super::acl;
use super::admit;
use super::args::Args;
use super::blocking;
use super::command::{Command, Databases};
use super::context::{ServerCtx, Shared};
use super::error::Error;
use super::execute::{self, Invocation};
use super::keys;
use super::route;
use super::source::Source;
use super::table::Known;
use super::{locked, propagate};
use crate::acl::log::Context;
use crate::base::number;
use crate::client::session::{Multi, Queued, Replies, Session};
use crate::keyspace::shards::{GaveUp, Keyspace, LockSet};
use crate::resp::write::Output;

/// Keeps a request for EXEC.
pub fn queue(session: &mut Session, known: &Known, args: Args<'_>) {
    let Some(multi) = &mut session.multi else {
        return;
    };
    // A transaction that will abort anyway need not grow.
    if multi.refused || session.handle.watch_flag.load(Relaxed) {
        return;
    }
    if let Databases::Selects = known.row.databases
        && let Some(db) = args.get(1).and_then(number::parse_i64)
    {
        multi.db = usize::try_from(db).ok();
    }
    let args: Vec<Vec<u8>> = args.all().iter().map(|a| a.to_vec()).collect();
    multi.push(Queued {
        command: known.id,
        args,
    });
}

/// EXEC was refused: the transaction ends with the reason. A redirection stays one.
pub fn abort(shared: &Shared, session: &mut Session, out: &mut Output, error: &Error) {
    discard(shared, session);
    let text = error.text();
    if matches!(error, Error::Elsewhere(_)) {
        return out.error_bytes(&text);
    }
    let reason = text.strip_prefix(b"ERR ").unwrap_or(&text);
    let mut line = b"EXECABORT Transaction discarded because of: ".to_vec();
    line.extend_from_slice(reason);
    out.error_bytes(&line);
}

/// Ends the transaction without running it, and forgets the watched keys.
pub fn discard(shared: &Shared, session: &mut Session) {
    session.multi = None;
    unwatch(shared, session);
}

/// Watches keys of the selected database. Whether one of them has expired already is looked at
/// under the lock under which it is watched: such a key stays, and does not spoil EXEC by being
/// expired or by being removed for it. An error while a script holds one of them that runs for long.
pub fn watch(
    shared: &Shared,
    session: &mut Session,
    keys: &[&[u8]],
    now_ms: i64,
) -> Result<(), Error> {
    // Nothing to gain: EXEC will fail.
    if session.handle.watch_flag.load(Relaxed) {
        return Ok(());
    }
    let keyspace = &shared.keyspace;
    let db = session.db;
    let locks = keyspace.lock_many_in_time(keys.iter().map(|key| keyspace.hash(key)));
    let mut locks = locks.map_err(|why| admit::gave_up(shared, why))?;
    for key in keys {
        if session
            .watched
            .iter()
            .any(|(d, k)| *d == db && **k == **key)
        {
            continue;
        }
        let expired = keyspace.is_expired(&locks, db, key, now_ms);
        let shard = Keyspace::shard_of(keyspace.hash(key));
        let flag = &session.handle.watch_flag;
        locks.shard(shard).watch(db, key, flag, expired);
        session.watched.push((db, (*key).into()));
    }
    Ok(())
}

/// Forgets all watched keys. Of one that a script holds which runs for long, the shard goes on knowing it
/// until the key changes.
pub fn unwatch(shared: &Shared, session: &mut Session) {
    for (db, key) in std::mem::take(&mut session.watched) {
        let hash = shared.keyspace.hash(&key);
        if let Ok(mut locks) = shared.keyspace.lock_one_in_time(hash) {
            let shard = locks.shard(Keyspace::shard_of(hash));
            shard.unwatch(db, &key, &session.handle.watch_flag);
        }
    }
    session.handle.watch_flag.store(false, Relaxed);
}

/// EXEC.
pub fn exec(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let Some(multi) = ctx.session.multi.take() else {
        return Err(Error::line("ERR EXEC without MULTI"));
    };
    if multi.refused {
        unwatch(ctx.shared, ctx.session);
        return Err(Error::line(
            "EXECABORT Transaction discarded because of previous errors.",
        ));
    }
    let shared = ctx.shared;
    let started = ctx.worker.ticks;
    let mut locks = match lock_union(shared, ctx.worker.source, ctx.session, &multi) {
        Ok(locks) => locks,
        Err(GaveUp::Claimed) => {
            ctx.session.multi = Some(multi);
            return Err(Error::Later);
        }
        Err(GaveUp::Overdue) => {
            unwatch(shared, ctx.session);
            let reason = String::from_utf8_lossy(&admit::busy(shared).text()).into_owned();
            return Err(Error::Line(
                format!("EXECABORT Transaction discarded because of: {reason}").into(),
            ));
        }
    };
    if ctx.worker.in_cluster
        && let Some(refusal) =
            route::refusal_of_transaction(shared, ctx.worker, ctx.session, &multi, &locks)
    {
        drop(locks);
        unwatch(shared, ctx.session);
        return Err(refusal);
    }
    if was_changed(ctx, &mut locks) {
        drop(locks);
        unwatch(shared, ctx.session);
        ctx.out.null_array();
        return Ok(());
    }
    unwatch_held(shared, ctx.session, &mut locks);
    run_queue(ctx, &multi, &mut locks);
    if ctx.worker.source == Source::Primary {
        propagate::pass_on(shared, ctx.worker, ctx.session.db, ctx.args);
    } else if !ctx.worker.pending.is_empty() {
        let pending = std::mem::take(&mut ctx.worker.pending);
        ctx.worker.appended = propagate::append(shared, &pending);
    }
    if ctx.worker.effects.is_any_ready() {
        // Who waits for a key sees it as of the end, when its time may be over.
        ctx.worker.catch_up();
    }
    locked::conclude(shared, ctx.worker, locks);
    if let Some(chore) = ctx.worker.chore.take() {
        blocking::park_for_chore(ctx, chore);
    }
    // EXEC's own time is that of everything it ran.
    ctx.worker.ticks = started;
    Ok(())
}

/// Runs the queued commands under `locks` and writes their replies as one array.
fn run_queue<'k>(ctx: &mut ServerCtx<'_, 'k>, multi: &Multi, locks: &mut LockSet<'k>) {
    ctx.out.array(multi.queue.len());
    for queued in &multi.queue {
        let known = ctx.shared.commands.get(queued.command);
        let list: Vec<&[u8]> = queued.args.iter().map(|a| &a[..]).collect();
        // CLIENT REPLY OFF among the commands silences those behind it; the header stays.
        let silent = ctx.session.replies == Replies::Off;
        let mark = ctx.out.mark();
        run_queued(ctx, known, Args::new(&list), locks);
        if silent && ctx.session.replies == Replies::Off {
            ctx.out.truncate_to(mark);
        }
    }
}

/// Runs one of them, if its user may still do that.
fn run_queued<'k>(
    ctx: &mut ServerCtx<'_, 'k>,
    known: &Known,
    args: Args<'_>,
    locks: &mut LockSet<'k>,
) {
    let (shared, worker, session) = (ctx.shared, &mut *ctx.worker, &mut *ctx.session);
    // What a log or the primary says was allowed.
    if !worker.source.is_obeyed()
        && let Err(denial) = acl::check(worker, session, known, args)
    {
        let context = Context::Multi;
        acl::note(shared, worker, session, denial, context, (known, args));
        let error = denial.error_at_exec();
        shared.stats.count_error(&error.text());
        ctx.out.error_bytes(&error.text());
        return;
    }
    let invocation = Invocation::new(known, args);
    execute::call(shared, worker, session, ctx.out, invocation, Some(locks));
    worker.env.reads_any_key = true;
}

/// The shards of all queued commands' keys and of the watched keys; all of them when a queued
/// command walks databases.
fn lock_union<'k>(
    shared: &'k Shared,
    source: Source,
    session: &Session,
    multi: &Multi,
) -> Result<LockSet<'k>, GaveUp> {
    let waits = source.is_obeyed();
    let row = |q: &Queued| -> &'static Command { shared.commands.get(q.command).row };
    let mut hashes: Vec<u64> = Vec::new();
    for queued in &multi.queue {
        let list: Vec<&[u8]> = queued.args.iter().map(|a| &a[..]).collect();
        let args = Args::new(&list);
        if row(queued).scope.is_all(args) {
            return match waits {
                true => Ok(shared.keyspace.lock_all()),
                false => shared.keyspace.lock_all_in_time(),
            };
        }
        keys::each(row(queued), args, |index, _| {
            hashes.push(shared.keyspace.hash(list[index]));
        });
    }
    hashes.extend(
        session
            .watched
            .iter()
            .map(|(_, key)| shared.keyspace.hash(key)),
    );
    match waits {
        true => Ok(shared.keyspace.lock_many(hashes.into_iter())),
        false => shared.keyspace.lock_many_in_time(hashes.into_iter()),
    }
}

/// True when a watched key changed, or expired since it was watched.
fn was_changed(ctx: &mut ServerCtx<'_, '_>, locks: &mut LockSet<'_>) -> bool {
    if ctx.session.handle.watch_flag.load(Relaxed) {
        return true;
    }
    let now_ms = ctx.worker.now.ms;
    let keyspace = &ctx.shared.keyspace;
    let session = &*ctx.session;
    let flag = &session.handle.watch_flag;
    session.watched.iter().any(|(db, key)| {
        keyspace.is_expired(locks, *db, key, now_ms) && {
            let shard = locks.shard(Keyspace::shard_of(keyspace.hash(key)));
            !shard.watched_as_expired(*db, key, flag)
        }
    })
}

/// Forgets the watched keys, whose shards are held.
fn unwatch_held(shared: &Shared, session: &mut Session, locks: &mut LockSet<'_>) {
    for (db, key) in std::mem::take(&mut session.watched) {
        let shard = Keyspace::shard_of(shared.keyspace.hash(&key));
        locks
            .shard(shard)
            .unwatch(db, &key, &session.handle.watch_flag);
    }
    session.handle.watch_flag.store(false, Relaxed);
}
