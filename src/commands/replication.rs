//! Replication, as the commands see it: replicas announce themselves (REPLCONF, SYNC, PSYNC),
//! clients ask who follows (ROLE) and choose whom to follow. The work is in [`crate::replication`].

use crate::base::text::split_args;
use crate::client::session::{ReplicaOptions, SyncRequest};
use crate::dispatch::blocking;
use crate::dispatch::chore::Chore;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::propagation::State;
use crate::replication::{following, primary};

/// Longest name of a host, with its end.
const HOST_LEN: usize = 256;

const SYNCING: Flags = Flags::NO_ASYNC_LOADING
    .or(Flags::ADMIN)
    .or(Flags::NO_MULTI)
    .or(Flags::NOSCRIPT);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "sync",
        arity: 1,
        flags: SYNCING,
        handler: Handler::Server(sync),
        ..ROW
    },
    Command {
        name: "psync",
        arity: -3,
        flags: SYNCING,
        handler: Handler::Server(psync),
        ..ROW
    },
    Command {
        name: "replconf",
        arity: -1,
        flags: Flags::ADMIN
            .or(Flags::NOSCRIPT)
            .or(Flags::LOADING)
            .or(Flags::STALE)
            .or(Flags::ALLOW_BUSY)
            .or(Flags::FOR_REPLICAS),
        handler: Handler::Server(replconf),
        ..ROW
    },
    Command {
        name: "role",
        arity: 1,
        flags: Flags::NOSCRIPT
            .or(Flags::LOADING)
            .or(Flags::STALE)
            .or(Flags::FAST),
        acl: Acl::ADMIN.or(Acl::DANGEROUS),
        handler: Handler::Server(role),
        ..ROW
    },
    replicaof_row("replicaof"),
    replicaof_row("slaveof"),
];

const fn replicaof_row(name: &'static str) -> Command {
    Command {
        name,
        arity: 3,
        flags: Flags::NO_ASYNC_LOADING
            .or(Flags::ADMIN)
            .or(Flags::NOSCRIPT)
            .or(Flags::STALE),
        handler: Handler::Server(replicaof),
        ..ROW
    }
}

/// `SYNC`
fn sync(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    may_begin(ctx, false)?;
    ctx.session.sync = Some(SyncRequest::Sync);
    Ok(())
}

/// `PSYNC replicationid offset`
fn psync(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let id = ctx.args[1].to_vec();
    let takes_over = ctx.args.len() > 3 && ctx.args.is(3, "failover");
    if takes_over {
        may_take_over(ctx, &id)?;
    }
    may_begin(ctx, takes_over)?;
    let mut request = SyncRequest::Psync {
        id,
        offset: ctx.args.int(2).inspect_err(|_| log_wrong_offset(ctx))?,
        order: None,
    };
    if let SyncRequest::Psync { order, .. } = &mut request
        && takes_over
    {
        let client = describe(ctx);
        tracing::info!("MASTER MODE enabled (failover request from '{client}')");
        *order = Some(following::order(ctx.shared, None, false));
    }
    ctx.session.sync = Some(request);
    Ok(())
}

fn log_wrong_offset(ctx: &ServerCtx<'_, '_>) {
    let options = ctx.session.replica.as_deref();
    let nothing = ReplicaOptions::default();
    let replica = primary::replica_of(&ctx.session.handle, options.unwrap_or(&nothing));
    tracing::warn!(
        "Replica {} asks for synchronization but with a wrong offset",
        replica.name()
    );
}

/// Whether this replica may become the primary of a client whose stream is called `id`.
fn may_take_over(ctx: &ServerCtx<'_, '_>, id: &[u8]) -> Result<(), Error> {
    let replication = &ctx.shared.replication;
    tracing::warn!(
        "Failover request received for replid {}.",
        String::from_utf8_lossy(id)
    );
    if !replication.upstream.follows() {
        return Err(Error::line("ERR PSYNC FAILOVER can't be sent to a master."));
    }
    if !id.eq_ignore_ascii_case(replication.id().as_bytes()) {
        return Err(Error::line(
            "ERR PSYNC FAILOVER replid must match my replid.",
        ));
    }
    Ok(())
}

/// Whether the worker may let the connection go, to become a replica: of this server as it is, or as the
/// primary that it is about to be.
fn may_begin(ctx: &mut ServerCtx<'_, '_>, takes_over: bool) -> Result<(), Error> {
    let replication = &ctx.shared.replication;
    if replication.failover.is_on() {
        return Err(Error::line("NOMASTERLINK Can't SYNC while failing over"));
    }
    if let Some(cluster) = &ctx.shared.cluster
        && cluster.machine().is_reborn()
    {
        return Err(Error::line(
            "NOMASTERLINK Can't SYNC before a replica has taken over or has no data",
        ));
    }
    let upstream = &replication.upstream;
    if !takes_over && upstream.follows() && !upstream.is_up() {
        return Err(Error::line(
            "NOMASTERLINK Can't SYNC while not connected with my master",
        ));
    }
    // A replica has to know which byte is the first of the answer.
    if !ctx.out.is_empty() {
        return Err(Error::line(
            "ERR SYNC and PSYNC are invalid with pending output",
        ));
    }
    let options = ctx.session.replica.get_or_insert_default();
    if options.is_filtered() && !options.eof {
        return Err(Error::line("ERR Filtered replica requires EOF capability"));
    }
    Ok(())
}

/// `REPLCONF option value [option value ...]`
fn replconf(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len().is_multiple_of(2) {
        return Err(Error::Syntax);
    }
    let args = ctx.args;
    let options = ctx.session.replica.get_or_insert_default();
    for at in (1..args.len()).step_by(2) {
        let value = args.all()[at + 1];
        match &args[at].to_ascii_lowercase()[..] {
            b"listening-port" => options.listening_port = args.int(at + 1)?,
            b"ip-address" if value.len() < HOST_LEN => options.address = Some(value.into()),
            b"ip-address" => {
                return Err(Error::err(format_args!(
                    "REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                )));
            }
            b"capa" if value.eq_ignore_ascii_case(b"eof") => options.eof = true,
            b"capa" if value.eq_ignore_ascii_case(b"psync2") => options.psync2 = true,
            // Capabilities of later versions.
            b"capa" => {}
            // Only a replica confirms, and those are not served here; nobody is answered.
            b"ack" | b"getack" => return Ok(()),
            b"rdb-only" => options.rdb_only = args.int_in(at + 1, 0, 1)? == 1,
            b"rdb-filter-only" => {
                let Some(parts) = split_args(value) else {
                    return Err(Error::line("ERR Missing rdb-filter-only values"));
                };
                options.without_data = true;
                options.without_functions = true;
                for part in parts {
                    if !part.eq_ignore_ascii_case(b"functions") {
                        let text = "Unsupported rdb-filter-only option: ";
                        return Err(Error::quoting(text, &part, ""));
                    }
                    options.without_functions = false;
                }
            }
            _ => {
                let text = "Unrecognized REPLCONF option: ";
                return Err(Error::quoting(text, &args[at], ""));
            }
        }
    }
    ctx.out.ok();
    Ok(())
}

/// `ROLE`
fn role(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let upstream = &ctx.shared.replication.upstream;
    if let Some(view) = upstream.outlook() {
        let (host, port) = view.primary.unwrap_or_default();
        ctx.out.array(5);
        ctx.out.bulk(b"slave");
        ctx.out.bulk(host.as_bytes());
        ctx.out.int(port.into());
        ctx.out.bulk(view.state.as_bytes());
        match view.is_up {
            true => ctx.out.uint(ctx.shared.stream.offset()),
            false => ctx.out.int(-1),
        }
        return Ok(());
    }
    let mut replicas = ctx.shared.replication.replicas();
    replicas.retain(|replica| replica.state() == State::Online);
    ctx.out.array(3);
    ctx.out.bulk(b"master");
    ctx.out.uint(ctx.shared.stream.offset());
    ctx.out.array(replicas.len());
    for replica in replicas {
        ctx.out.array(3);
        ctx.out.bulk(replica.ip.as_bytes());
        ctx.out.bulk(replica.port.to_string().as_bytes());
        ctx.out.bulk(replica.acknowledged().to_string().as_bytes());
    }
    Ok(())
}

/// The server's change to a primary or a replica, which REPLICAOF's clients wait for; they have their
/// reply in their output.
static REPLICAOF: Chore = Chore {
    name: "replicaof",
    queue: |shared| &shared.chores.replicaof,
    run: |shared| {
        following::await_orders(shared);
        Vec::new()
    },
};

/// `REPLICAOF host port` and `REPLICAOF NO ONE`
fn replicaof(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.shared.config.settings().cluster_enabled {
        return Err(Error::line("ERR REPLICAOF not allowed in cluster mode."));
    }
    let replication = &ctx.shared.replication;
    let upstream = &replication.upstream;
    let present = upstream.wanted().primary.or(upstream.view().primary);
    let refused = || Error::line("ERR REPLICAOF not allowed while failing over.");
    if replication.failover.is_on() {
        return Err(refused());
    }
    if ctx.args.is(1, "no") && ctx.args.is(2, "one") {
        if present.is_some() {
            order(ctx, None).ok_or_else(refused)?;
            let client = describe(ctx);
            tracing::info!("MASTER MODE enabled (user request from '{client}')");
        }
        ctx.out.ok();
        return Ok(());
    }
    if ctx.session.replica.is_some() && ctx.session.sync.is_some() {
        return Err(Error::line(
            "ERR Command is not valid when client is a replica.",
        ));
    }
    let port = ctx.args.int_or(2, "ERR Invalid master port")?;
    let Some(port) = u16::try_from(port).ok() else {
        return Err(Error::line("ERR Invalid master port"));
    };
    let host = String::from_utf8_lossy(&ctx.args[1]).into_owned();
    if let Some((now, at)) = &present
        && now.eq_ignore_ascii_case(&host)
        && *at == port
    {
        tracing::info!(
            "REPLICAOF would result into synchronization with the master we are already connected \
             with. No operation performed."
        );
        ctx.out.simple("OK Already connected to specified master");
        return Ok(());
    }
    let line = format!(
        "REPLICAOF {host}:{port} enabled (user request from '{}')",
        describe(ctx)
    );
    order(ctx, Some((host, port))).ok_or_else(refused)?;
    tracing::info!("{line}");
    ctx.out.ok();
    Ok(())
}

/// The client, for the log.
fn describe(ctx: &ServerCtx<'_, '_>) -> String {
    let handle = &ctx.session.handle;
    handle.describe(ctx.worker.now.ms, &|_| ctx.command.name.to_owned())
}

/// Has this server follow `primary`, or nobody; its client waits until it is so. `None` when a failover
/// decides whom it follows.
fn order(ctx: &mut ServerCtx<'_, '_>, primary: Option<(String, u16)>) -> Option<()> {
    let shared = ctx.shared;
    shared
        .replication
        .failover
        .without(|| following::order(shared, primary, false))?;
    blocking::park_for_chore(ctx, &REPLICAOF);
    Some(())
}
