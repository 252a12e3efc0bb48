//! WAIT and WAITAOF: clients that wait until replicas have what they wrote, or until disks have it.

use crate::dispatch::acks::Acks;
use crate::dispatch::blocking;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "wait",
        arity: 3,
        flags: Flags::NOSCRIPT,
        acl: Acl::CONNECTION,
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        handler: Handler::Server(wait),
        ..ROW
    },
    Command {
        name: "waitaof",
        arity: 4,
        flags: Flags::NOSCRIPT,
        acl: Acl::CONNECTION,
        tips: &["request_policy:all_shards", "response_policy:agg_min"],
        handler: Handler::Server(waitaof),
        ..ROW
    },
];

/// `WAIT numreplicas timeout`
fn wait(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.shared.replication.upstream.follows() {
        return Err(Error::line(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a \
             replica is configured to be writable (which is not the default) writes to replicas are \
             just local and are not propagated.",
        ));
    }
    let replicas = ctx.args.int(1)?;
    let deadline = ctx.args.timeout_in_ms(2, ctx.worker.now.ms)?;
    let acks = Acks {
        offset: ctx.session.written,
        replicas: replicas.max(0).unsigned_abs() as usize,
        local: None,
    };
    let asks = !ctx.shared.replication.has_asked(acks.offset);
    wait_for(ctx, acks, deadline, asks);
    Ok(())
}

/// `WAITAOF numlocal numreplicas timeout`
fn waitaof(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let local = ctx.args.int_in(1, 0, 1)? == 1;
    let replicas = ctx.args.int_in(2, 0, i64::MAX)?.unsigned_abs() as usize;
    let deadline = ctx.args.timeout_in_ms(3, ctx.worker.now.ms)?;
    if ctx.shared.replication.upstream.follows() {
        return Err(Error::line(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to \
             replicas are just local and are not propagated.",
        ));
    }
    let acks = Acks {
        offset: ctx.session.written,
        replicas,
        local: Some(local),
    };
    acks.check(ctx.shared)?;
    // What is on a disk is news even where it is known who has it.
    wait_for(ctx, acks, deadline, replicas > 0);
    Ok(())
}

/// Waits for confirmations until `deadline`, if there is one; asks replicas for them if `asks`.
fn wait_for(ctx: &mut ServerCtx<'_, '_>, acks: Acks, deadline: Option<i64>, asks: bool) {
    if acks.are_here(ctx.shared) || ctx.denies_blocking() {
        return acks.tell(ctx.shared, ctx.out);
    }
    blocking::park_for_acks(ctx, acks, deadline);
    ctx.worker.asks_replicas |= asks;
}
