//! The connection itself: greeting, authentication, and its end. CLIENT is in [`super::client`].

use std::sync::Arc;

use crate::config::REDIS_VERSION;
use crate::dispatch::acl;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::dispatch::{subscriptions, tracking, transaction};
use crate::resp::write::Protocol;

/// Flags of the commands that a client may call before it has authenticated.
const OPEN: Flags = Flags::NOSCRIPT
    .or(Flags::LOADING)
    .or(Flags::STALE)
    .or(Flags::FAST)
    .or(Flags::NO_AUTH)
    .or(Flags::ALLOW_BUSY);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "ping",
        arity: -1,
        flags: Flags::FAST.or(Flags::SUBSCRIBER).or(Flags::FOR_REPLICAS),
        acl: Acl::CONNECTION,
        handler: Handler::Server(ping),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "echo",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE).or(Flags::FAST),
        acl: Acl::CONNECTION,
        handler: Handler::Server(echo),
        ..ROW
    },
    Command {
        name: "quit",
        arity: -1,
        flags: OPEN.or(Flags::SUBSCRIBER).or(Flags::UNQUEUED),
        acl: Acl::CONNECTION,
        handler: Handler::Server(quit),
        ..ROW
    },
    Command {
        name: "reset",
        arity: 1,
        flags: OPEN.or(Flags::SUBSCRIBER).or(Flags::UNQUEUED),
        acl: Acl::CONNECTION,
        handler: Handler::Server(reset),
        ..ROW
    },
    Command {
        name: "auth",
        secrets: Some(auth_secrets),
        arity: -2,
        flags: OPEN,
        acl: Acl::CONNECTION,
        handler: Handler::Server(auth),
        ..ROW
    },
    Command {
        name: "hello",
        secrets: Some(hello_secrets),
        arity: -1,
        flags: OPEN,
        acl: Acl::CONNECTION,
        handler: Handler::Server(hello),
        ..ROW
    },
];

/// `PING [message]`
fn ping(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len() > 2 {
        return Err(Error::Arity("ping".into()));
    }
    let message = ctx.args.get(1);
    // To a RESP2 subscriber everything must look like a message.
    if ctx.session.is_subscriber() && ctx.out.protocol() == Protocol::Resp2 {
        ctx.out.array(2);
        ctx.out.bulk(b"pong");
        ctx.out.bulk(message.unwrap_or_default());
        return Ok(());
    }
    match message {
        Some(message) => ctx.out.bulk(message),
        None => ctx.out.simple("PONG"),
    }
    Ok(())
}

/// `ECHO message`
fn echo(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match ctx.args.shared(1) {
        Some(big) => ctx.out.bulk_shared(big),
        None => ctx.out.bulk(&ctx.args[1]),
    }
    Ok(())
}

/// `QUIT`
fn quit(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.ok();
    ctx.session.close_after_reply = true;
    Ok(())
}

/// `RESET`: as if the client had just connected.
fn reset(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let session = &mut *ctx.session;
    if session.monitor {
        session.monitor = false;
        ctx.shared.monitors.remove(session.handle.id);
    }
    transaction::discard(ctx.shared, session);
    tracking::end(ctx.shared, session, None);
    subscriptions::drop_all(ctx.shared, session);
    session.db = 0;
    session.become_user(ctx.shared.users.default_user(), false);
    session.no_touch = false;
    (session.asking, session.reads_replica) = (false, false);
    session.replies = crate::client::session::Replies::On;
    *session.handle.name.write() = Box::default();
    // What arrived until now was for the client as it was.
    ctx.take_mail();
    set_protocol(ctx, Protocol::Resp2);
    ctx.out.simple("RESET");
    Ok(())
}

/// The replies that follow, and what others send to this client, are in `protocol`.
fn set_protocol(ctx: &mut ServerCtx<'_, '_>, protocol: Protocol) {
    ctx.out.set_protocol(protocol);
    ctx.session.handle.set_protocol(protocol);
}

/// All that follows AUTH.
fn auth_secrets(args: Args<'_>) -> Vec<usize> {
    (1..args.len()).collect()
}

/// Users and passwords in HELLO.
fn hello_secrets(args: Args<'_>) -> Vec<usize> {
    let (mut secrets, mut i) = (Vec::new(), 2);
    while i < args.len() {
        if args.is(i, "auth") {
            secrets.extend(i + 1..args.len().min(i + 3));
            i += 2;
        } else if args.is(i, "setname") {
            i += 1;
        }
        i += 1;
    }
    secrets
}

/// `AUTH [username] password`
fn auth(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len() > 3 {
        return Err(Error::Syntax);
    }
    let args = ctx.args;
    let (user, password) = match args.get(2) {
        Some(password) => (&args[1], password),
        None if ctx.shared.users.default_user().rules().takes_any_password() => {
            return Err(Error::line(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ));
        }
        None => (&b"default"[..], &args[1]),
    };
    authenticate(ctx, user, password)?;
    ctx.out.ok();
    Ok(())
}

/// Makes the client one of a user, if that is the password.
fn authenticate(ctx: &mut ServerCtx<'_, '_>, user: &[u8], password: &[u8]) -> Result<(), Error> {
    if let Some(found) = ctx.shared.users.authenticate(user, password) {
        ctx.session.become_user(Arc::clone(&found), true);
        // Who removes a user closes the clients that it finds.
        if !found.is_gone() {
            return Ok(());
        }
        ctx.session
            .become_user(ctx.shared.users.default_user(), false);
    }
    acl::note_failed_login(ctx, user);
    Err(Error::line(
        "WRONGPASS invalid username-password pair or user is disabled.",
    ))
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
fn hello(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let protocol = match ctx.args.get(1).map(crate::base::number::parse_i64) {
        None => ctx.out.protocol(),
        Some(Some(2)) => Protocol::Resp2,
        Some(Some(3)) => Protocol::Resp3,
        Some(Some(_)) => return Err(Error::line("NOPROTO unsupported protocol version")),
        Some(None) => {
            return Err(Error::line(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    let args = ctx.args;
    let mut options = Cursor::new(args, 2);
    while options.step() {
        match () {
            () if options.has("auth", 2) => {
                authenticate(ctx, options.value()?, options.value()?)?;
            }
            () if options.has("setname", 1) => {
                super::client::set_name(ctx.session, options.value()?)?;
            }
            () => {
                let unknown = "Syntax error in HELLO option '";
                return Err(Error::quoting(unknown, options.word(), "'"));
            }
        }
    }
    if !ctx.session.identity.authenticated {
        return Err(Error::line(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and select \
             the RESP protocol version at the same time",
        ));
    }
    set_protocol(ctx, protocol);
    let id = ctx.session.handle.id as i64;
    let (mode, is_sentinel) = (ctx.shared.mode(), ctx.shared.sentinel.is_some());
    let role: &[u8] = match ctx.shared.replication.upstream.follows() {
        true => b"replica",
        false => b"master",
    };
    let out = &mut *ctx.out;
    out.map(if is_sentinel { 6 } else { 7 });
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk(REDIS_VERSION.as_bytes());
    out.bulk(b"proto");
    out.int(if protocol == Protocol::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.int(id);
    out.bulk(b"mode");
    out.bulk(mode.as_bytes());
    if !is_sentinel {
        out.bulk(b"role");
        out.bulk(role);
    }
    out.bulk(b"modules");
    out.array(0);
    Ok(())
}
