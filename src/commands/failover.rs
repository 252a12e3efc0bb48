//! FAILOVER: a primary hands its role to one of its replicas. The work is in
//! [`crate::replication::failover`].

use crate::config::strerror;
use crate::dispatch::blocking;
use crate::dispatch::chore::Chore;
use crate::dispatch::command::{Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::propagation::{Abort, Plan, State};
use crate::replication::failover;

/// The row.
pub const ROWS: &[Command] = &[Command {
    name: "failover",
    arity: -1,
    flags: Flags::ADMIN.or(Flags::NOSCRIPT).or(Flags::STALE),
    handler: Handler::Server(run),
    ..ROW
}];

/// The end of a failover that has begun to follow the replica, which ABORT's client waits for.
static ABORT: Chore = Chore {
    name: "failover-abort",
    queue: |shared| &shared.chores.failover_abort,
    run: |shared| {
        failover::give_up(shared);
        Vec::new()
    },
};

/// What was asked for.
#[derive(Default)]
struct Asked {
    target: Option<(String, i64)>,
    timeout_ms: Option<i64>,
    force: bool,
}

/// `FAILOVER [TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]`
fn run(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.shared.config.settings().cluster_enabled {
        return Err(Error::line(
            "ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead.",
        ));
    }
    if ctx.args.len() == 2 && ctx.args.is(1, "abort") {
        return abort(ctx);
    }
    let asked = parse(ctx)?;
    let already = || Error::line("ERR FAILOVER already in progress.");
    let replication = &ctx.shared.replication;
    if replication.failover.is_on() {
        return Err(already());
    }
    if replication.upstream.follows() {
        return Err(Error::line(
            "ERR FAILOVER is not valid when server is a replica.",
        ));
    }
    if replication.is_empty() {
        return Err(Error::line("ERR FAILOVER requires connected replicas."));
    }
    if asked.force && (asked.timeout_ms.is_none() || asked.target.is_none()) {
        return Err(Error::line(
            "ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        ));
    }
    if let Some((host, port)) = &asked.target {
        check_target(ctx, host, *port)?;
    }
    let now_ms = ctx.worker.now.ms;
    let plan = Plan {
        target: asked.target,
        until_ms: asked.timeout_ms.map(|ms| now_ms.saturating_add(ms)),
        force: asked.force,
    };
    match failover::begin(ctx.shared, plan) {
        Ok(true) => {}
        Ok(false) => return Err(already()),
        Err(error) => {
            let error = strerror(&error);
            return Err(Error::err(format_args!("FAILOVER cannot begin: {error}")));
        }
    }
    ctx.worker.follow_pause(ctx.shared);
    ctx.out.ok();
    Ok(())
}

fn parse(ctx: &ServerCtx<'_, '_>) -> Result<Asked, Error> {
    let mut asked = Asked::default();
    let mut options = Cursor::new(ctx.args, 1);
    while options.step() {
        match () {
            () if options.has("timeout", 1) && asked.timeout_ms.is_none() => {
                let error = "ERR FAILOVER timeout must be greater than 0";
                match options.int()? {
                    ms @ 1.. => asked.timeout_ms = Some(ms),
                    _ => return Err(Error::line(error)),
                }
            }
            () if options.has("to", 2) && asked.target.is_none() => {
                let host = String::from_utf8_lossy(options.value()?).into_owned();
                asked.target = Some((host, options.int()?));
            }
            () if options.is("force") && !asked.force => asked.force = true,
            () => return Err(options.refuse()),
        }
    }
    Ok(asked)
}

/// Whether there is such a replica.
fn check_target(ctx: &ServerCtx<'_, '_>, host: &str, port: i64) -> Result<(), Error> {
    let replicas = ctx.shared.replication.replicas();
    let mut meant = replicas
        .iter()
        .filter(|r| r.ip.eq_ignore_ascii_case(host) && r.port == port);
    let Some(target) = meant.next() else {
        return Err(Error::line(
            "ERR FAILOVER target HOST and PORT is not a replica.",
        ));
    };
    if target.state() != State::Online {
        return Err(Error::line("ERR FAILOVER target replica is not online."));
    }
    Ok(())
}

fn abort(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match failover::abort(ctx.shared, "Failover manually aborted") {
        Abort::None => return Err(Error::line("ERR No failover in progress.")),
        Abort::Ended(_) => ctx.worker.follow_pause(ctx.shared),
        Abort::GivesUp(_) => blocking::park_for_chore(ctx, &ABORT),
    }
    ctx.out.ok();
    Ok(())
}
