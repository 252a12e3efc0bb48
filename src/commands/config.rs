//! CONFIG.

use super::help;
use crate::base::alloc;
use crate::config::rewrite::Rewrite;
use crate::config::{Caller, Effect, Param, SetError, Settings, is_sensitive, strerror};
use crate::dispatch::args::Args;
use crate::dispatch::blocking;
use crate::dispatch::chore::Chore;
use crate::dispatch::command::{Command, Flags, Handler, ROW};
use crate::dispatch::context::{ServerCtx, Shared};
use crate::dispatch::error::Error;
use crate::durability::append_only;

const ADMIN: Flags = Flags::ADMIN
    .or(Flags::NOSCRIPT)
    .or(Flags::LOADING)
    .or(Flags::STALE);

const fn sub(
    name: &'static str,
    arity: i32,
    run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags: ADMIN,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "config",
    arity: -2,
    subcommands: &[
        sub("get", -3, get),
        Command {
            flags: Flags::LOADING.or(Flags::STALE),
            ..sub("help", 2, help)
        },
        sub("resetstat", 2, resetstat),
        sub("rewrite", 2, rewrite),
        Command {
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            secrets: Some(secrets),
            ..sub("set", -4, set)
        },
    ],
    ..ROW
}];

/// The values of parameters that are secrets, in CONFIG SET.
fn secrets(args: Args<'_>) -> Vec<usize> {
    let names = (2..args.len()).step_by(2);
    let secret = names.filter(|&i| is_sensitive(&args[i]));
    secret.map(|i| i + 1).filter(|&i| i < args.len()).collect()
}

/// `CONFIG GET pattern ...`
fn get(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let found = ctx.shared.config.get(ctx.args.rest(2));
    ctx.out.map(found.len());
    for (name, value) in found {
        ctx.out.bulk(name.as_bytes());
        ctx.out.bulk(&value);
    }
    Ok(())
}

/// `CONFIG SET name value ...`
fn set(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let words = ctx.args.rest(2);
    if !words.len().is_multiple_of(2) {
        return Err(Error::line("ERR syntax error"));
    }
    let pairs: Vec<(&[u8], &[u8])> = words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    let caller = Caller {
        local: ctx.session.is_local(),
        loading: ctx.shared.durability.loading.is_under_way(),
    };
    let shared = ctx.shared;
    let result = shared.config.set(&pairs, caller, &mut |param, settings| {
        apply(shared, param, settings)
    });
    // The batch goes on under the new parameters, as it would on one thread.
    ctx.worker.refresh_settings(shared);
    result.map_err(|error| refused(&error))?;
    shared
        .slowlog
        .truncate(ctx.worker.settings.slowlog_max_len as usize);
    // A transaction holds locks that eviction would wait for; there the cron does it.
    if ctx.held.is_none()
        && pairs
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(b"maxmemory"))
    {
        let settings = ctx.settings();
        crate::dispatch::upkeep::evict(shared, &settings, ctx.worker.now);
    }
    if let Some(cluster) = &shared.cluster {
        cluster.settings_changed();
    }
    ctx.out.ok();
    Ok(())
}

fn refused(error: &SetError) -> Error {
    if let Some(line) = error.log_line() {
        tracing::warn!("{line}");
    }
    Error::Bytes(error.reply())
}

/// Does what a changed parameter demands beyond being read. An error takes the change back.
fn apply(shared: &Shared, param: &'static Param, settings: &Settings) -> Result<(), String> {
    match param.effect {
        Effect::Port => shared
            .control
            .listeners()
            .map_err(|()| "Unable to listen on this port. Check server logs.".to_owned()),
        Effect::Bind => shared
            .control
            .listeners()
            .map_err(|()| "Failed to bind to specified addresses.".to_owned()),
        Effect::ProcTitle | Effect::SignalHandlers | Effect::WatchdogPeriod => {
            shared.control.follow(param.effect);
            Ok(())
        }
        Effect::LogLevel => {
            crate::observe::log::configure(settings);
            Ok(())
        }
        Effect::Maxmemory => {
            if settings.maxmemory > 0 && alloc::used() > settings.maxmemory as usize {
                tracing::warn!(
                    "WARNING: the new maxmemory value set via CONFIG SET ({}) is smaller than the \
                     current memory usage ({}). This will result in key eviction and/or the \
                     inability to accept new write commands depending on the maxmemory-policy.",
                    settings.maxmemory,
                    alloc::used()
                );
            }
            Ok(())
        }
        Effect::Maxclients => crate::observe::process::raise_open_files(settings.maxclients),
        Effect::JemallocBgThread => {
            tikv_jemalloc_ctl::background_thread::write(settings.jemalloc_bg_thread)
                .map_err(|error| error.to_string())
        }
        Effect::OomScoreAdj => crate::observe::process::write_oom_score(settings),
        Effect::Appendonly if settings.appendonly => {
            append_only::turn_on(shared);
            Ok(())
        }
        Effect::Appendonly => {
            append_only::turn_off(shared);
            Ok(())
        }
        Effect::AppendFsync => {
            append_only::follow_policy(shared);
            Ok(())
        }
        Effect::ReplBacklogSize => {
            let size = settings.repl_backlog_size.unsigned_abs();
            shared.replication.resize_backlog(&shared.stream, size);
            Ok(())
        }
        Effect::Requirepass => {
            shared.users.set_default_password(&settings.requirepass);
            Ok(())
        }
        Effect::AofAutoGc => {
            append_only::follow_gc(shared, settings);
            Ok(())
        }
        Effect::Tls => follow_tls(shared, settings),
        Effect::TlsPort => {
            follow_tls(shared, settings)?;
            shared
                .control
                .listeners()
                .map_err(|()| "Unable to listen on this port. Check server logs.".to_owned())
        }
        _ => Ok(()),
    }
}

/// Has handshakes from now on follow the parameters.
fn follow_tls(shared: &Shared, settings: &Settings) -> Result<(), String> {
    shared.tls.follow(settings).map_err(|reason| {
        tracing::warn!("{reason}");
        "Unable to update TLS configuration. Check server logs.".to_owned()
    })
}

/// Writes the configuration file, for all who asked when it began.
static REWRITE: Chore = Chore {
    name: "config-rewrite",
    queue: |shared| &shared.chores.config_rewrite,
    run: |shared| match write_file(shared, false) {
        Ok(()) => b"+OK\r\n".to_vec(),
        Err(error) => [b"-", &error.text()[..], b"\r\n"].concat(),
    },
};

/// `CONFIG REWRITE`
fn rewrite(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    file_to_write(ctx.shared)?;
    if ctx.held.is_some() {
        // Within a transaction nobody waits, and its reply stands among others.
        write_file(ctx.shared, false)?;
        ctx.out.ok();
        return Ok(());
    }
    blocking::park_for_chore(ctx, &REWRITE);
    Ok(())
}

fn file_to_write(shared: &Shared) -> Result<(), Error> {
    match shared.config.config_file() {
        Some(_) => Ok(()),
        None => Err(Error::line(
            "ERR The server is running without a config file",
        )),
    }
}

/// Writes the configuration file; with `force_all` every parameter.
pub fn write_file(shared: &Shared, force_all: bool) -> Result<(), Error> {
    file_to_write(shared)?;
    let mut nothing_more = |_: &mut Rewrite| {};
    let users = shared.users.lines_of_configuration();
    match shared.config.rewrite(&users, force_all, &mut nothing_more) {
        Ok(()) => {
            tracing::warn!("CONFIG REWRITE executed with success.");
            Ok(())
        }
        Err(error) => {
            let reason = strerror(&error);
            tracing::warn!("CONFIG REWRITE failed: {reason}");
            Err(Error::err(format_args!("Rewriting config file: {reason}")))
        }
    }
}

/// `CONFIG RESETSTAT`
fn resetstat(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.shared.stats.reset();
    ctx.shared.replication.reset_stats();
    ctx.shared.evictor.reset_exceeded();
    ctx.shared.keyspace.lazyfree.reset_freed();
    ctx.shared
        .status
        .peak_memory
        .store(alloc::used(), std::sync::atomic::Ordering::Relaxed);
    ctx.out.ok();
    Ok(())
}

/// `CONFIG HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "GET <pattern>",
            "    Return parameters matching the glob-like <pattern> and their values.",
            "SET <directive> <value>",
            "    Set the configuration <directive> to <value>.",
            "RESETSTAT",
            "    Reset statistics reported by the INFO command.",
            "REWRITE",
            "    Rewrite the configuration file.",
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown_whatever_else_is_set() {
        let set = ROWS[0].subcommands.iter().find(|row| row.name == "set");
        let request = b"config set requirepass x maxmemory 1 MASTERAUTH y masteruser";
        let words: Vec<&[u8]> = request.split(|b| *b == b' ').collect();
        let shown = set.expect("a row").shown(Args::new(&words)).join(&b' ');
        let expected =
            "config set requirepass (redacted) maxmemory 1 MASTERAUTH (redacted) masteruser";
        assert_eq!(String::from_utf8_lossy(&shown), expected);
    }
}
