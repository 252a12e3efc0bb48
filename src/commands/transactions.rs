//! MULTI, EXEC, DISCARD, WATCH and UNWATCH: the rows and what they check; the work itself is in
//! [`crate::dispatch::transaction`].

use crate::client::session::Multi;
use crate::dispatch::command::{Acl, Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::transaction;

/// Flags that all of the family have.
const COMMON: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE);
const QUICK: Flags = COMMON.or(Flags::FAST).or(Flags::ALLOW_BUSY);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "multi",
        flags: QUICK.or(Flags::UNQUEUED),
        acl: Acl::TRANSACTION,
        handler: Handler::Server(multi),
        ..ROW
    },
    Command {
        name: "exec",
        flags: COMMON
            .or(Flags::SKIP_SLOWLOG)
            .or(Flags::UNQUEUED)
            .or(Flags::EXEC),
        acl: Acl::TRANSACTION,
        handler: Handler::Server(transaction::exec),
        ..ROW
    },
    Command {
        name: "discard",
        flags: QUICK.or(Flags::UNQUEUED),
        acl: Acl::TRANSACTION,
        handler: Handler::Server(discard),
        ..ROW
    },
    Command {
        name: "watch",
        arity: -2,
        flags: QUICK.or(Flags::UNQUEUED),
        keys: Keys(&[KeySpec::from(1, 1, KeyFlags::RO)]),
        acl: Acl::TRANSACTION,
        handler: Handler::Server(watch),
        ..ROW
    },
    Command {
        name: "unwatch",
        flags: QUICK,
        acl: Acl::TRANSACTION,
        handler: Handler::Server(unwatch),
        ..ROW
    },
];

/// `MULTI`
fn multi(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.session.multi.is_some() {
        return Err(Error::line("ERR MULTI calls can not be nested"));
    }
    ctx.session.multi = Some(Multi::default());
    ctx.out.ok();
    Ok(())
}

/// `DISCARD`
fn discard(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.session.multi.is_none() {
        return Err(Error::line("ERR DISCARD without MULTI"));
    }
    transaction::discard(ctx.shared, ctx.session);
    ctx.out.ok();
    Ok(())
}

/// `WATCH key [key ...]`
fn watch(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.session.multi.is_some() {
        return Err(Error::line("ERR WATCH inside MULTI is not allowed"));
    }
    transaction::watch(ctx.shared, ctx.session, ctx.args.rest(1), ctx.worker.now.ms)?;
    ctx.out.ok();
    Ok(())
}

/// `UNWATCH`
fn unwatch(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    // Within EXEC nothing is watched any more: EXEC itself forgot the keys, whose shards it holds.
    if ctx.held.is_none() {
        transaction::unwatch(ctx.shared, ctx.session);
    }
    ctx.out.ok();
    Ok(())
}
