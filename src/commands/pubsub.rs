//! Publish and subscribe: the commands.
//!
//! Confirmations and messages reach a client in the order in which things happened: before a
//! subscription's end is confirmed, whatever was published to it is moved to the output.

use crate::dispatch::acl;
use crate::dispatch::command::{
    Acl, Channels, Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW,
};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::subscriptions as session;
use crate::dispatch::{propagate, route};
use crate::keyspace::outbox::Message;
use crate::pubsub::{Kind, confirmation};

const SUBSCRIBING: Flags = Flags::PUBSUB
    .or(Flags::NOSCRIPT)
    .or(Flags::LOADING)
    .or(Flags::STALE)
    .or(Flags::SUBSCRIBER);
const PUBLISHING: Flags = Flags::PUBSUB
    .or(Flags::LOADING)
    .or(Flags::STALE)
    .or(Flags::FAST)
    .or(Flags::FOR_REPLICAS)
    .or(Flags::MAY_REPLICATE);
const LOOKING: Flags = Flags::PUBSUB.or(Flags::LOADING).or(Flags::STALE);

/// A row of a command that subscribes or unsubscribes.
const fn row(
    name: &'static str,
    arity: i32,
    run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags: SUBSCRIBING,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// A row of a subcommand of PUBSUB.
const fn sub(
    name: &'static str,
    arity: i32,
    run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags: LOOKING,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        channels: Channels::All,
        ..row("subscribe", -2, |ctx| subscribe(ctx, Kind::Channel))
    },
    row("unsubscribe", -1, |ctx| unsubscribe(ctx, Kind::Channel)),
    Command {
        channels: Channels::Patterns,
        ..row("psubscribe", -2, |ctx| subscribe(ctx, Kind::Pattern))
    },
    row("punsubscribe", -1, |ctx| unsubscribe(ctx, Kind::Pattern)),
    Command {
        keys: Keys(&[KeySpec::from(1, 1, KeyFlags::NOT_KEY)]),
        channels: Channels::All,
        ..row("ssubscribe", -2, |ctx| subscribe(ctx, Kind::Shard))
    },
    Command {
        keys: Keys(&[KeySpec::from(1, 1, KeyFlags::NOT_KEY)]),
        ..row("sunsubscribe", -1, |ctx| unsubscribe(ctx, Kind::Shard))
    },
    Command {
        name: "publish",
        arity: 3,
        flags: PUBLISHING,
        channels: Channels::First,
        handler: Handler::Server(publish),
        ..ROW
    },
    Command {
        name: "spublish",
        arity: 3,
        flags: PUBLISHING,
        keys: Keys(&[KeySpec::at(1, KeyFlags::NOT_KEY)]),
        channels: Channels::First,
        handler: Handler::Server(spublish),
        ..ROW
    },
    Command {
        name: "pubsub",
        arity: -2,
        subcommands: &[
            sub("channels", -2, |ctx| channels(ctx, Kind::Channel)),
            sub("numpat", 2, numpat),
            sub("numsub", -2, |ctx| numsub(ctx, Kind::Channel)),
            sub("shardchannels", -2, |ctx| channels(ctx, Kind::Shard)),
            sub("shardnumsub", -2, |ctx| numsub(ctx, Kind::Shard)),
            super::help::row(Acl::NONE, help),
        ],
        ..ROW
    },
];

/// `SUBSCRIBE channel [channel ...]` and its kin.
fn subscribe(ctx: &mut ServerCtx<'_, '_>, kind: Kind) -> Result<(), Error> {
    // The other two are let through for compatibility, although EXEC has one reply for each.
    let (in_transaction, in_playback) = (ctx.held.is_some(), !ctx.worker.source.is_heard());
    if in_playback || (in_transaction && kind == Kind::Shard) {
        let name = ctx.command.name.to_ascii_uppercase();
        return Err(Error::err(format_args!(
            "{name} isn't allowed for a DENY BLOCKING client"
        )));
    }
    if kind == Kind::Shard {
        session::end_left(ctx);
    }
    for &name in ctx.args.rest(1) {
        session::add(ctx.shared, ctx.session, kind, name);
        confirm(ctx, kind, true, Some(name));
    }
    if kind == Kind::Shard && ctx.shared.routes.is_enabled() {
        leave_again(ctx);
    }
    acl::recheck_subscriptions(ctx.shared, ctx.session);
    Ok(())
}

/// Ends the subscriptions to shard channels whose slot left between the look at the request and the
/// subscription: who ended those of all clients may not have seen it.
fn leave_again(ctx: &mut ServerCtx<'_, '_>) {
    for &name in ctx.args.rest(1) {
        if !route::serves_channel(ctx.shared, ctx.worker, name)
            && session::remove(ctx.shared, ctx.session, Kind::Shard, name)
        {
            confirm(ctx, Kind::Shard, false, Some(name));
        }
    }
}

/// `UNSUBSCRIBE [channel ...]` and its kin: without names, all of them.
fn unsubscribe(ctx: &mut ServerCtx<'_, '_>, kind: Kind) -> Result<(), Error> {
    if kind == Kind::Shard {
        session::end_left(ctx);
    }
    if ctx.args.len() > 1 {
        for &name in ctx.args.rest(1) {
            end(ctx, kind, name);
        }
        return Ok(());
    }
    let names: Vec<_> = session::of(ctx.session, kind).iter().cloned().collect();
    for name in &names {
        end(ctx, kind, name);
    }
    if names.is_empty() {
        confirm(ctx, kind, false, None);
    }
    Ok(())
}

fn end(ctx: &mut ServerCtx<'_, '_>, kind: Kind, name: &[u8]) {
    if session::remove(ctx.shared, ctx.session, kind, name)
        && ctx.session.replies == crate::client::session::Replies::On
    {
        ctx.take_mail();
    }
    confirm(ctx, kind, false, Some(name));
}

fn confirm(ctx: &mut ServerCtx<'_, '_>, kind: Kind, subscribed: bool, name: Option<&[u8]>) {
    let count = session::count(ctx.session, kind);
    ctx.push(|out| confirmation(out, kind, subscribed, name, count));
}

/// `PUBLISH channel message`
fn publish(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (args, hub) = (ctx.args, &ctx.shared.pubsub);
    let receivers = match behind_events(ctx, false) {
        true => hub.receivers(&args[1]),
        false => hub.publish(&args[1], &args[2], &mut *ctx),
    };
    tell_others(ctx, false);
    ctx.out.int(receivers as i64);
    Ok(())
}

/// `SPUBLISH shardchannel message`
fn spublish(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (args, hub) = (ctx.args, &ctx.shared.pubsub);
    let receivers = match behind_events(ctx, true) {
        true => hub.subscribers(Kind::Shard, &args[1]),
        false => hub.publish_shard(&args[1], &args[2], &mut *ctx),
    };
    tell_others(ctx, true);
    ctx.out.int(receivers as i64);
    Ok(())
}

/// Has a message published on other servers: in a cluster by its bus, else along the stream.
fn tell_others(ctx: &mut ServerCtx<'_, '_>, to_shard: bool) {
    match &ctx.shared.cluster {
        Some(cluster) => cluster.publish(&ctx.args[1], &ctx.args[2], to_shard),
        None => propagate::tell_replicas(ctx),
    }
}

/// Within a transaction that has caused events, which are told when it ends: leaves the message
/// behind them. True when it did.
fn behind_events(ctx: &mut ServerCtx<'_, '_>, to_shard: bool) -> bool {
    let waits = ctx.held.is_some() && ctx.worker.effects.has_notices();
    if waits {
        let outbox = &ctx.shared.keyspace.outbox;
        let message = Message {
            to_shard,
            channel: ctx.args[1].into(),
            payload: ctx.args[2].into(),
        };
        ctx.worker.effects.tell(outbox, message);
    }
    waits
}

/// `PUBSUB CHANNELS [pattern]` and `PUBSUB SHARDCHANNELS [pattern]`
fn channels(ctx: &mut ServerCtx<'_, '_>, kind: Kind) -> Result<(), Error> {
    if ctx.args.len() > 3 {
        return Err(Error::subcommand(ctx.args.all()));
    }
    let names = ctx.shared.pubsub.names(kind, ctx.args.get(2));
    ctx.out.array(names.len());
    for name in names {
        ctx.out.bulk(&name);
    }
    Ok(())
}

/// `PUBSUB NUMSUB [channel ...]` and `PUBSUB SHARDNUMSUB [shardchannel ...]`
fn numsub(ctx: &mut ServerCtx<'_, '_>, kind: Kind) -> Result<(), Error> {
    let names = ctx.args.rest(2);
    ctx.out.array(names.len() * 2);
    for name in names {
        ctx.out.bulk(name);
        ctx.out
            .int(ctx.shared.pubsub.subscribers(kind, name) as i64);
    }
    Ok(())
}

/// `PUBSUB NUMPAT`
fn numpat(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.int(ctx.shared.pubsub.count(Kind::Pattern) as i64);
    Ok(())
}

/// `PUBSUB HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "CHANNELS [<pattern>]",
            "    List the channels that have subscribers, or those of them that match a pattern.",
            "NUMPAT",
            "    Count the patterns that have subscribers.",
            "NUMSUB [<channel> ...]",
            "    Count the subscribers of each channel; those by pattern are left out.",
            "SHARDCHANNELS [<pattern>]",
            "    List the shard channels that have subscribers, or those that match a pattern.",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Count the subscribers of each shard channel.",
        ],
    );
    Ok(())
}
