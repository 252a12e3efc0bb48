//! Commands on the server as a whole: TIME, LOLWUT, MONITOR, SHUTDOWN.

use crate::base::{clock, random};
use crate::config::REDIS_VERSION;
use crate::dispatch::blocking;
use crate::dispatch::command::{Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::control::{Request, Shutdown};
use crate::dispatch::error::Error;
use crate::dispatch::options::{Cursor, choose};

const ADMIN: Flags = Flags::ADMIN
    .or(Flags::NOSCRIPT)
    .or(Flags::LOADING)
    .or(Flags::STALE);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "lolwut",
        arity: -1,
        flags: Flags::READONLY.or(Flags::FAST),
        handler: Handler::Server(lolwut),
        ..ROW
    },
    Command {
        name: "monitor",
        arity: 1,
        flags: ADMIN,
        handler: Handler::Server(monitor),
        ..ROW
    },
    Command {
        name: "shutdown",
        arity: -1,
        flags: ADMIN.or(Flags::NO_MULTI).or(Flags::ALLOW_BUSY),
        handler: Handler::Server(shutdown),
        ..ROW
    },
    Command {
        name: "time",
        arity: 1,
        flags: Flags::LOADING.or(Flags::STALE).or(Flags::FAST),
        tips: &["nondeterministic_output"],
        handler: Handler::Server(time),
        ..ROW
    },
];

/// `TIME`
fn time(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let micros = clock::unix_us();
    ctx.out.array(2);
    ctx.out.bulk_int(micros / 1_000_000);
    ctx.out.bulk_int(micros % 1_000_000);
    Ok(())
}

/// `MONITOR`
fn monitor(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    // Within a transaction each command has one reply, and no lines may follow it.
    if ctx.denies_blocking() {
        return Err(Error::line(
            "ERR MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    // A second MONITOR is no other state, and answers nothing.
    if ctx.session.monitor {
        return Ok(());
    }
    ctx.session.monitor = true;
    ctx.shared.monitors.add(&ctx.session.handle);
    ctx.out.ok();
    Ok(())
}

/// `SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] [FAILOVER] [ABORT]`
fn shutdown(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (mut save, mut now, mut force, mut abort, mut failover) =
        (None, false, false, false, false);
    let mut options = Cursor::new(ctx.args, 1);
    while options.step() {
        match () {
            () if options.is("nosave") => choose(&mut save, false)?,
            () if options.is("save") => choose(&mut save, true)?,
            () if options.is("now") => now = true,
            () if options.is("force") => force = true,
            () if options.is("abort") => abort = true,
            () if options.is("failover") => failover = true,
            () => return Err(options.refuse()),
        }
    }
    if abort {
        if save.is_some() || now || force || failover {
            return Err(Error::Syntax);
        }
        if !ctx.shared.control.abort_shutdown() {
            return Err(Error::line("ERR No shutdown in progress."));
        }
        ctx.worker.follow_pause(ctx.shared);
        ctx.out.ok();
        return Ok(());
    }
    if failover && ctx.shared.cluster.is_none() {
        let text = "ERR SHUTDOWN FAILOVER is only supported in cluster mode.";
        return Err(Error::line(text));
    }
    // No answer comes when the process ends: the client sees its connection close.
    let client = blocking::park_for_shutdown(ctx);
    let how = Shutdown {
        save,
        now,
        force,
        failover,
    };
    ctx.shared.control.send(Request::Shutdown { how, client });
    Ok(())
}

/// `LOLWUT [VERSION version [argument ...]]`
fn lolwut(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let mut text = String::new();
    if ctx.args.len() >= 3 && ctx.args.is(1, "version") {
        let version = ctx.args.int(2)?;
        if version == 5 || version == 6 {
            let size = |i: usize, default: i64| match ctx.args.get(i) {
                Some(_) => ctx.args.int(i),
                None => Ok(default),
            };
            let (columns, rows) = (size(3, 33)?.clamp(1, 200), size(4, 11)?.clamp(1, 100));
            text = mosaic(columns as usize, rows as usize);
        }
    }
    text.push_str(&format!("Redis ver. {REDIS_VERSION}\n"));
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

/// A floor of random tiles that meet at their edges.
fn mosaic(columns: usize, rows: usize) -> String {
    let mut picture = String::new();
    for _ in 0..rows {
        for _ in 0..columns {
            picture.push(if random::below(2) == 0 { '╱' } else { '╲' });
        }
        picture.push('\n');
    }
    picture.push('\n');
    picture
}
