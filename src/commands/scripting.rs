//! EVAL, EVALSHA and SCRIPT: rows and what is asked of the cache of scripts. Running them is in
//! [`crate::scripting`].

use std::sync::Arc;

use crate::dispatch::command::{Acl, Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW, Scope};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::scripting::run;
use crate::scripts::{Kill, hex, parse_digest};

/// Flags of what runs a script.
pub(super) const RUNS: Flags = Flags::NOSCRIPT
    .or(Flags::SKIP_MONITOR)
    .or(Flags::NO_MANDATORY_KEYS)
    .or(Flags::STALE)
    .or(Flags::SCRIPT);

const NOTE: &str = "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE";
const NOTE_RO: &str =
    "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS";

/// The keys of a script that may write, and of one that may not; with the remark that some rows have.
pub(super) const WRITES: KeySpec = KeySpec::counted(2, KeyFlags::READ_UPDATE);
pub(super) const READS: KeySpec = KeySpec::counted(2, KeyFlags::READ);
pub(super) const NOTED: &[KeySpec] = &[WRITES.note(NOTE)];
pub(super) const NOTED_RO: &[KeySpec] = &[READS.note(NOTE_RO)];

type Run = fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>;

/// A row of what runs a script; within a transaction it may reach for any key.
pub(super) const fn row(
    name: &'static str,
    keys: &'static [KeySpec],
    reads: bool,
    run: Run,
) -> Command {
    Command {
        name,
        arity: -3,
        flags: RUNS.or(if reads {
            Flags::READONLY
        } else {
            Flags::MAY_REPLICATE
        }),
        acl: Acl::SCRIPTING,
        keys: Keys(keys),
        scope: Scope::All,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// A subcommand of SCRIPT or FUNCTION.
pub(super) const fn sub(name: &'static str, arity: i32, flags: Flags, run: Run) -> Command {
    Command {
        name,
        arity,
        flags: flags.or(Flags::NOSCRIPT),
        acl: Acl::SCRIPTING,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// Tips of subcommands that all nodes are asked.
pub(super) const ALL_SHARDS: &[&str] =
    &["request_policy:all_shards", "response_policy:all_succeeded"];
pub(super) const ONE_SHARD: &[&str] =
    &["request_policy:all_shards", "response_policy:one_succeeded"];
const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

/// The rows.
pub const ROWS: &[Command] = &[
    row("eval", NOTED, false, |ctx| run::eval(ctx, false, false)),
    row("eval_ro", NOTED_RO, true, |ctx| run::eval(ctx, false, true)),
    row("evalsha", &[WRITES], false, |ctx| {
        run::eval(ctx, true, false)
    }),
    row("evalsha_ro", &[READS], true, |ctx| {
        run::eval(ctx, true, true)
    }),
    Command {
        name: "script",
        arity: -2,
        subcommands: &[
            sub("debug", 3, Flags::NONE, debug),
            sub("exists", -3, Flags::NONE, exists).tipped(&[
                "request_policy:all_shards",
                "response_policy:agg_logical_and",
            ]),
            sub("flush", -2, Flags::NONE, flush).tipped(ALL_NODES),
            super::help::row(Acl::SCRIPTING, help),
            sub("kill", 2, Flags::ALLOW_BUSY, |ctx| kill(ctx, true)).tipped(ONE_SHARD),
            sub("load", 3, Flags::STALE, load).tipped(ALL_NODES),
        ],
        ..ROW
    },
];

/// `SCRIPT LOAD script`
fn load(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let source = ctx.args.rest(2)[0];
    let digest = run::load(ctx, source)?;
    ctx.out.bulk(&hex(&digest));
    Ok(())
}

/// `SCRIPT EXISTS sha1 [sha1 ...]`
fn exists(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let sources = &ctx.shared.scripts.sources;
    let digests = ctx.args.rest(2);
    ctx.out.array(digests.len());
    for text in digests {
        let script = parse_digest(text).and_then(|digest| sources.get(&digest));
        ctx.out.int(script.is_some().into());
    }
    Ok(())
}

/// Whether an argument asks for the background; without one, whether the parameter does.
pub(super) fn is_async(ctx: &ServerCtx<'_, '_>, refusal: &'static str) -> Result<bool, Error> {
    match ctx.args.len() {
        2 => Ok(ctx.worker.settings.lazyfree_lazy_user_flush),
        3 if ctx.args.is(2, "sync") => Ok(false),
        3 if ctx.args.is(2, "async") => Ok(true),
        _ => Err(Error::line(refusal)),
    }
}

/// `SCRIPT FLUSH [ASYNC | SYNC]`
fn flush(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let lazily = is_async(ctx, "ERR SCRIPT FLUSH only support SYNC|ASYNC option")?;
    let gone = ctx.shared.scripts.sources.flush();
    if lazily {
        // Sources are freed by a thread of their own; if there can be none, here.
        let gone = Arc::new(parking_lot::Mutex::new(Some(gone)));
        let freed = Arc::clone(&gone);
        let started = ctx
            .shared
            .threads
            .start("free-scripts", move |_| drop(freed.lock().take()));
        if started.is_err() {
            drop(gone.lock().take());
        }
    }
    ctx.out.ok();
    Ok(())
}

/// `SCRIPT KILL`, `FUNCTION KILL`
pub(super) fn kill(ctx: &mut ServerCtx<'_, '_>, eval: bool) -> Result<(), Error> {
    Err(Error::line(match ctx.shared.scripts.overdue.kill(eval) {
        Kill::Done => {
            ctx.out.ok();
            return Ok(());
        }
        Kill::None => "NOTBUSY No scripts in execution right now.",
        Kill::Obeyed => {
            "UNKILLABLE The busy script was sent by a master instance in the context of replication \
             and cannot be killed."
        }
        Kill::Wrote => {
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can \
             either wait the script termination or kill the server in a hard way using the SHUTDOWN \
             NOSAVE command."
        }
        Kill::OtherKind if eval => {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
        Kill::OtherKind => {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
    }))
}

/// `SCRIPT DEBUG YES | SYNC | NO`: there is no debugger, which is off.
fn debug(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match ctx.args[2].to_ascii_lowercase().as_slice() {
        b"no" => {
            ctx.out.ok();
            Ok(())
        }
        b"yes" | b"sync" => Err(Error::line(
            "ERR The debugger of scripts is not available in this server",
        )),
        _ => Err(Error::line("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
}

/// `SCRIPT HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "DEBUG (YES|SYNC|NO)",
            "    Set the debug mode for subsequent scripts executed.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Return information about the existence of the scripts in the script cache.",
            "FLUSH [ASYNC|SYNC]",
            "    Flush the Lua scripts cache. Very dangerous on replicas.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the scripts cache.",
            "    * SYNC: Synchronously flush the scripts cache.",
            "KILL",
            "    Kill the currently executing Lua script.",
            "LOAD <script>",
            "    Load a script into the scripts cache without executing it.",
        ],
    );
    Ok(())
}
