//! SENTINEL, and the other commands of a sentinel: the rows, and those that change something. The
//! sentinel's thread does it; its client waits until that is on the disk.

use super::rows::{OnServer, on_server as row};
use super::sentinel_view::{self as view, text};
use crate::dispatch::args::Args;
use crate::dispatch::blocking;
use crate::dispatch::command::{Acl, Channels, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::sentinel::orders::{Answer, Order};
use crate::watch;

type Done = Result<(), Error>;

const ADMIN: Flags = Flags::ADMIN;
const OPEN: Flags = Flags::LOADING.or(Flags::STALE);

/// Commands of every server that a sentinel has as they are.
const ALSO: [&str; 12] = [
    "acl",
    "auth",
    "client",
    "command",
    "hello",
    "ping",
    "psubscribe",
    "punsubscribe",
    "quit",
    "shutdown",
    "subscribe",
    "unsubscribe",
];

/// What a sentinel has beyond Redis 7.0's: later versions' names for the same, and what clients of today send
/// first. Whoever counts a sentinel's commands finds 7.0's.
pub const BEYOND: [&str; 7] = [
    "client|no-touch",
    "client|setinfo",
    "quit",
    "sentinel|get-primary-addr-by-name",
    "sentinel|is-primary-down-by-addr",
    "sentinel|primaries",
    "sentinel|primary",
];

/// Every command of a sentinel; `all` are those of other servers.
pub fn of_sentinel(
    all: impl Iterator<Item = &'static Command>,
) -> impl Iterator<Item = &'static Command> {
    let also = |row: &&Command| ALSO.contains(&row.name);
    all.filter(also).chain(ROWS)
}

const fn admin(name: &'static str, arity: i32, run: OnServer) -> Command {
    row(name, arity, ADMIN, run)
}

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "sentinel",
        arity: -2,
        flags: ADMIN,
        subcommands: &[
            admin("ckquorum", 3, view::ckquorum),
            Command {
                secrets: Some(config_secrets),
                ..admin("config", -3, config)
            },
            admin("debug", -2, debug),
            admin("failover", 3, failover),
            admin("flushconfig", 2, |ctx| give(ctx, Order::Flush)),
            admin("get-master-addr-by-name", 3, view::master_addr),
            admin("get-primary-addr-by-name", 3, view::master_addr),
            row("help", 2, OPEN, view::help),
            admin("info-cache", -3, view::info_cache),
            admin("is-master-down-by-addr", 6, is_master_down),
            admin("is-primary-down-by-addr", 6, is_master_down),
            admin("master", 3, view::master),
            admin("masters", 2, view::masters),
            admin("monitor", 6, monitor),
            admin("myid", 2, view::myid),
            admin("pending-scripts", 2, view::pending_scripts),
            admin("primaries", 2, view::masters),
            admin("primary", 3, view::master),
            admin("remove", 3, remove),
            admin("replicas", 3, view::replicas),
            admin("reset", 3, reset),
            admin("sentinels", 3, view::sentinels),
            Command {
                secrets: Some(set_secrets),
                ..admin("set", -5, set)
            },
            admin("simulate-failure", -3, simulate_failure),
            admin("slaves", 3, view::replicas),
        ],
        ..ROW
    },
    Command {
        name: "info",
        arity: -1,
        flags: OPEN,
        acl: Acl::DANGEROUS,
        tips: &[
            "nondeterministic_output",
            "request_policy:all_shards",
            "response_policy:special",
        ],
        handler: Handler::Server(view::info),
        ..ROW
    },
    Command {
        name: "role",
        arity: 1,
        flags: OPEN.or(Flags::FAST).or(Flags::NOSCRIPT),
        acl: Acl::ADMIN.or(Acl::DANGEROUS),
        handler: Handler::Server(view::role),
        ..ROW
    },
    Command {
        name: "publish",
        arity: 3,
        flags: OPEN.or(Flags::PUBSUB).or(Flags::FAST),
        channels: Channels::First,
        handler: Handler::Server(publish),
        ..ROW
    },
];

/// The passwords in SENTINEL SET.
fn set_secrets(args: Args<'_>) -> Vec<usize> {
    let names = 3..args.len();
    let secret = names
        .filter(|&at| args.is(at, "auth-pass"))
        .map(|at| at + 1);
    secret.filter(|&at| at < args.len()).collect()
}

/// The password in SENTINEL CONFIG SET.
fn config_secrets(args: Args<'_>) -> Vec<usize> {
    match args.len() == 5 && args.is(2, "set") && args.is(3, "sentinel-pass") {
        true => vec![4],
        false => Vec::new(),
    }
}

/// Has an order carried out.
fn give(ctx: &mut ServerCtx<'_, '_>, order: Order) -> Done {
    let sentinel = view::sentinel(ctx)?;
    match blocking::park_for_answer(ctx) {
        Some(answer) => sentinel.order(order, move |outcome| answer(encoded(&outcome))),
        // There is no MULTI here.
        None => return Err(Error::line("ERR SENTINEL can't wait within a transaction")),
    }
    Ok(())
}

fn encoded(answer: &Answer) -> Vec<u8> {
    let text = match answer {
        Answer::Ok | Answer::Saved => "+OK\r\n".to_owned(),
        Answer::Int(number) => format!(":{number}\r\n"),
        Answer::Error(line) => {
            let line: String = line
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            format!("-{line}\r\n")
        }
        Answer::Down {
            down,
            leader,
            epoch,
        } => {
            let leader = leader.as_deref().unwrap_or("*");
            let down = u8::from(*down);
            format!(
                "*3\r\n:{down}\r\n${}\r\n{leader}\r\n:{epoch}\r\n",
                leader.len()
            )
        }
    };
    text.into_bytes()
}

fn words(ctx: &ServerCtx<'_, '_>, from: usize) -> Vec<String> {
    (from..ctx.args.len()).map(|at| text(ctx, at)).collect()
}

/// `PUBLISH __sentinel__:hello hello`
fn publish(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let (channel, text) = (text(ctx, 1), text(ctx, 2));
    give(ctx, Order::Hello { channel, text })
}

/// `SENTINEL IS-MASTER-DOWN-BY-ADDR ip port epoch id`
fn is_master_down(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let (port, epoch) = (ctx.args.int(3)?, ctx.args.int(4)?);
    let (host, candidate) = (text(ctx, 2), text(ctx, 5));
    let epoch = epoch.cast_unsigned();
    give(
        ctx,
        Order::IsMasterDown {
            host,
            port,
            epoch,
            candidate,
        },
    )
}

/// `SENTINEL RESET pattern`
fn reset(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let pattern = ctx.args[2].to_vec();
    give(ctx, Order::Reset(pattern))
}

/// `SENTINEL FAILOVER name`
fn failover(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let name = text(ctx, 2);
    give(ctx, Order::Failover(name))
}

/// `SENTINEL REMOVE name`
fn remove(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let name = text(ctx, 2);
    give(ctx, Order::Remove(name))
}

/// `SENTINEL MONITOR name host port quorum`
fn monitor(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let quorum = ctx
        .args
        .int(5)
        .map_err(|_| Error::line("ERR Invalid quorum"))?;
    let port = ctx
        .args
        .int(4)
        .map_err(|_| Error::line("ERR Invalid port"))?;
    let (name, host) = (text(ctx, 2), text(ctx, 3));
    give(
        ctx,
        Order::Monitor {
            name,
            host,
            port,
            quorum,
        },
    )
}

/// `SENTINEL SET name option value [option value ...]`
fn set(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let (name, words) = (text(ctx, 2), words(ctx, 3));
    let is_script = |word: &&[String]| {
        let word = word[0].to_ascii_lowercase();
        matches!(
            word.as_str(),
            "notification-script" | "client-reconfig-script"
        )
    };
    let scripts = words.windows(2).filter(is_script).map(|pair| &pair[1]);
    let not_runnable = scripts.filter(|path| !path.is_empty() && !watch::is_runnable(path));
    let not_runnable = not_runnable.cloned().collect();
    give(
        ctx,
        Order::Set {
            name,
            words,
            not_runnable,
        },
    )
}

/// `SENTINEL CONFIG GET option`, `SENTINEL CONFIG SET option value`
fn config(ctx: &mut ServerCtx<'_, '_>) -> Done {
    match ctx.args.len() {
        5 if ctx.args.is(2, "set") => {
            let (option, value) = (text(ctx, 3), text(ctx, 4));
            give(ctx, Order::Config { option, value })
        }
        4 if ctx.args.is(2, "get") => view::config(ctx),
        _ => Err(Error::line(
            "ERR Only SENTINEL CONFIG GET <option> / SET <option> <value> are supported.",
        )),
    }
}

/// `SENTINEL DEBUG [option value ...]`
fn debug(ctx: &mut ServerCtx<'_, '_>) -> Done {
    match words(ctx, 2) {
        words if words.is_empty() => view::periods(ctx),
        words => give(ctx, Order::Debug(words)),
    }
}

/// `SENTINEL SIMULATE-FAILURE [CRASH-AFTER-ELECTION] [CRASH-AFTER-PROMOTION] [HELP]`
fn simulate_failure(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let mut flags = 0;
    for word in words(ctx, 2) {
        match word.to_ascii_lowercase().as_str() {
            "crash-after-election" => {
                tracing::warn!(
                    "Failure simulation: this Sentinel will crash after being successfully elected as \
                     failover leader"
                );
                flags |= 1;
            }
            "crash-after-promotion" => {
                tracing::warn!(
                    "Failure simulation: this Sentinel will crash after promoting the selected replica to \
                     master"
                );
                flags |= 2;
            }
            "help" => {
                ctx.out.array(2);
                ctx.out.bulk(b"crash-after-election");
                ctx.out.bulk(b"crash-after-promotion");
                return Ok(());
            }
            _ => return Err(Error::line("ERR Unknown failure simulation specified")),
        }
    }
    give(ctx, Order::Simulate(flags))
}
