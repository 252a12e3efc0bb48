//! Every refusal of a command, in Redis' order. Nothing has been done when one is given.

use std::sync::atomic::Ordering::Relaxed;

use super::acl;
use super::args::Args;
use super::command::{Flags, Handler};
use super::context::{Shared, Worker};
use super::error::{Error, quoted};
use super::execute::Invocation;
use super::pause::{Paused, Purpose};
use super::route;
use super::table::Known;
use crate::base::alloc;
use crate::client::session::Session;
use crate::config::Settings;
use crate::keyspace::shards::GaveUp;
use crate::resp::write::{Output, Protocol};
use crate::scripts::{self, ScriptFlags};

/// What becomes of a request.
pub enum Verdict<'t> {
    /// It runs now.
    Run(&'t Known),
    /// MULTI keeps it.
    Queue(&'t Known),
    /// It waits for the end of CLIENT PAUSE.
    Wait,
}

/// The command that a request names, whatever else may be wrong with it: of a container the
/// subcommand, where there is a word for one.
pub fn named<'t>(
    shared: &'t Shared,
    found: Option<&'t Known>,
    args: Args<'_>,
) -> Option<&'t Known> {
    let known = found?;
    if known.row.subcommands.is_empty() || args.len() == 1 {
        return Some(known);
    }
    // A container that also runs by itself (COMMAND) takes no other words.
    shared.commands.find_sub(known, &args[1])
}

/// Finds the command, or the subcommand, of a request.
pub fn resolve<'t>(
    shared: &'t Shared,
    found: Option<&'t Known>,
    args: Args<'_>,
) -> Result<&'t Known, Error> {
    if found.is_none() {
        return Err(unknown_command(args));
    }
    let Some(resolved) = named(shared, found, args) else {
        return Err(unknown_subcommand(args));
    };
    let arity = resolved.row.arity;
    let len = args.len() as i32;
    let wrong = (arity > 0 && len != arity) || len < -arity;
    if wrong || (args.len() == 1 && matches!(resolved.row.handler, Handler::Container)) {
        return Err(Error::Arity(resolved.full_name.clone().into()));
    }
    Ok(resolved)
}

fn unknown_command(args: Args<'_>) -> Error {
    let name = quoted(&args[0], 128);
    let mut line = b"ERR unknown command '".to_vec();
    line.extend_from_slice(name);
    line.extend_from_slice(b"', with args beginning with: ");
    let mut shown = 0;
    for arg in args.rest(1) {
        if shown >= 128 {
            break;
        }
        let part = quoted(arg, 128 - shown);
        line.push(b'\'');
        line.extend_from_slice(part);
        line.extend_from_slice(b"' ");
        shown += part.len() + 3;
    }
    Error::Bytes(line)
}

fn unknown_subcommand(args: Args<'_>) -> Error {
    let sub = quoted(&args[1], 128);
    let mut line = b"ERR unknown subcommand '".to_vec();
    line.extend_from_slice(sub);
    line.extend_from_slice(b"'. Try ");
    line.extend_from_slice(&args[0].to_ascii_uppercase());
    line.extend_from_slice(b" HELP.");
    Error::Bytes(line)
}

/// True when nothing that concerns the whole server stands against any command on keys: what
/// [`admit`] finds for a client that is [`Session::is_plain`] then is known.
pub fn is_calm(shared: &Shared, settings: &Settings) -> bool {
    (settings.maxmemory == 0 || alloc::used() as u64 + margin(settings) <= settings.maxmemory)
        && settings.min_replicas_to_write == 0
        && shared.durability.saves.last_ok.load(Relaxed)
        && !shared.append_only.log.progress.failing.load(Relaxed)
        && !shared.durability.loading.is_under_way()
        && !shared.pause.is_set()
        && !shared.scripts.overdue.is_any()
}

/// Which commands a replica refuses, but for those of its primary.
pub fn refused_as_replica(shared: &Shared, settings: &Settings) -> Flags {
    let upstream = &shared.replication.upstream;
    if !upstream.follows() {
        return Flags::NONE;
    }
    // With stale data that must not be told of, everything takes the way that knows what may be.
    if !settings.replica_serve_stale_data && !upstream.is_up() {
        return Flags::READONLY.or(Flags::WRITE);
    }
    match settings.replica_read_only {
        true => Flags::WRITE,
        false => Flags::NONE,
    }
}

/// Bytes below `maxmemory` down to which no command need look at memory.
fn margin(settings: &Settings) -> u64 {
    settings.maxmemory / 16
}

/// Up to which [`alloc::balance`] of its thread a worker that found things calm may count on the
/// margin: all workers together use half of it, the rest is for other threads.
pub fn calm_until(shared: &Shared, settings: &Settings) -> isize {
    if settings.maxmemory == 0 {
        return isize::MAX;
    }
    let share = margin(settings) / 2 / shared.status.workers.max(1) as u64;
    alloc::balance().saturating_add(share as isize)
}

/// The flags of a request: its command's, but where a script says what it does, those that follow from
/// that.
pub fn flags_of(shared: &Shared, known: &Known, args: Args<'_>) -> Flags {
    match known.flags.has(Flags::SCRIPT) {
        true => script_flags(shared, known, args),
        false => known.flags,
    }
}

#[cold]
fn script_flags(shared: &Shared, known: &Known, args: Args<'_>) -> Flags {
    let says = match known.row.name {
        "fcall" | "fcall_ro" => {
            let libraries = shared.scripts.libraries.now();
            libraries
                .find(&args[1])
                .map(|(_, function)| function.registered.flags)
        }
        "evalsha" | "evalsha_ro" => scripts::parse_digest(&args[1])
            .and_then(|digest| shared.scripts.sources.get(&digest))
            .map(|script| script.flags),
        _ => scripts::shebang(&args[1]).ok().map(|(flags, _)| flags),
    };
    let Some(says) = says.filter(|says| !says.has(ScriptFlags::SAYS_NOTHING)) else {
        return known.flags;
    };
    let decided = Flags::STALE
        .or(Flags::DENYOOM)
        .or(Flags::WRITE)
        .or(Flags::MAY_REPLICATE);
    let mut flags = known.flags.without(decided);
    if !says.has(ScriptFlags::ALLOW_OOM.or(ScriptFlags::NO_WRITES)) {
        flags = flags.or(Flags::DENYOOM);
    }
    if !says.has(ScriptFlags::NO_WRITES) {
        flags = flags.or(Flags::WRITE);
    }
    if says.has(ScriptFlags::ALLOW_STALE) {
        flags = flags.or(Flags::STALE);
    }
    flags
}

/// Why a client does not get the shards that its request needs.
#[cold]
pub fn gave_up(shared: &Shared, why: GaveUp) -> Error {
    match why {
        GaveUp::Overdue => busy(shared),
        GaveUp::Claimed => Error::Later,
    }
}

/// What stands against a write that was let in before, and begins now.
pub(super) fn write_begins(shared: &Shared, worker: &Worker) -> Result<(), Error> {
    if shared.replication.upstream.follows() && worker.settings.replica_read_only {
        return Err(Error::line(
            "READONLY You can't write against a read only replica.",
        ));
    }
    if shared.durability.loading.is_under_way() {
        return Err(Error::line(
            "LOADING Redis is loading the dataset in memory",
        ));
    }
    Ok(())
}

/// A script runs for longer than clients are made to wait.
pub fn busy(shared: &Shared) -> Error {
    let is_eval = shared.scripts.overdue.first().is_none_or(|s| s.is_eval);
    Error::line(match is_eval {
        true => {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        }
        false => {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        }
    })
}

/// What stands against a script that says that it may write. `reads`: by the command that runs it it may not.
pub fn script_that_writes(shared: &Shared, worker: &Worker, reads: bool) -> Result<(), Error> {
    let (settings, is_obeyed) = (&worker.settings, worker.source.is_obeyed());
    let follows = shared.replication.upstream.follows();
    if follows && settings.replica_read_only && !is_obeyed {
        return Err(Error::line(
            "READONLY Can not run script with write flag on readonly replica",
        ));
    }
    if !is_obeyed && shared.durability.saves.refuses_writes(settings) {
        return Err(Error::line(
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist \
             to disk. Writable scripts are blocked. Use 'no-writes' flag for read only scripts.",
        ));
    }
    let appended = &shared.append_only.log.progress;
    if !is_obeyed && appended.failing.load(Relaxed) {
        let error = std::io::Error::from_raw_os_error(appended.error.load(Relaxed));
        return Err(Error::Line(
            format!(
                "MISCONF Redis is configured to persist data to AOF, but it's currently unable to \
                 persist to disk. Writable scripts are blocked. Use 'no-writes' flag for read only \
                 scripts. AOF error: {}",
                crate::config::strerror(&error)
            )
            .into(),
        ));
    }
    if reads {
        return Err(Error::line(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    if settings.min_replicas_to_write > 0 && !follows {
        enough_replicas(shared, worker)?;
    }
    Ok(())
}

/// What stands against the first write of a script that says nothing of itself.
pub fn first_write(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    known: &Known,
) -> Result<(), Error> {
    let follows = shared.replication.upstream.follows();
    if follows && worker.settings.replica_read_only {
        return Err(Error::line(
            "READONLY You can't write against a read only replica.",
        ));
    }
    saved(shared, worker, session, known, known.flags)?;
    if worker.settings.min_replicas_to_write > 0 && !follows {
        enough_replicas(shared, worker)?;
    }
    Ok(())
}

/// True for a request that may run while some script is overdue, unless that holds its keys.
fn may_run_beside(session: &Session, known: &Known, flags: Flags) -> bool {
    let has_keys = !known.row.keys.0.is_empty() && matches!(known.row.handler, Handler::Data(_));
    flags.has(Flags::ALLOW_BUSY) || (has_keys && session.multi.is_none())
}

/// Decides about a resolved command with the flags of its request.
#[inline]
pub fn admit<'t>(
    shared: &Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &Output,
    invocation: Invocation<'t>,
) -> Result<Verdict<'t>, Error> {
    let known = invocation.known;
    let flags = flags_of(shared, known, invocation.args);
    if flags.has(Flags::PROTECTED) {
        protected(worker, session, known)?;
    }
    if !flags.has(Flags::NO_AUTH) && session.identity.owes_password() {
        return Err(Error::NoAuth);
    }
    if session.multi.is_some() && flags.has(Flags::NO_MULTI) {
        return Err(Error::line("ERR Command not allowed inside a transaction"));
    }
    let args = invocation.args;
    if let Err(denial) = acl::check(worker, session, known, args) {
        let context = acl::context_of(session);
        acl::note(shared, worker, session, denial, context, (known, args));
        return Err(denial.error(known));
    }
    if worker.in_cluster {
        route::admit(shared, worker, session, invocation)?;
    }
    worker.out_of_memory = false;
    if worker.settings.maxmemory > 0 && !shared.scripts.overdue.is_any() {
        memory(shared, worker, session, known, flags)?;
    }
    if !shared.durability.saves.last_ok.load(Relaxed)
        || shared.append_only.log.progress.failing.load(Relaxed)
    {
        saved(shared, worker, session, known, flags)?;
    }
    let follows = shared.replication.upstream.follows();
    if worker.settings.min_replicas_to_write > 0 && !follows {
        good_replicas(shared, worker, session, known, flags)?;
    }
    if follows
        && worker.settings.replica_read_only
        && effective_flags(session, shared, known, flags).has(Flags::WRITE)
    {
        return Err(Error::line(
            "READONLY You can't write against a read only replica.",
        ));
    }
    if !flags.has(Flags::SUBSCRIBER) && session.is_subscriber() && out.protocol() == Protocol::Resp2
    {
        return Err(Error::err(format_args!(
            "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
             allowed in this context",
            known.full_name
        )));
    }
    if follows
        && !worker.settings.replica_serve_stale_data
        && !shared.replication.upstream.is_up()
        && needs_fresh_data(session, shared, known, flags)
    {
        return Err(Error::line(
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        ));
    }
    let loading = &shared.durability.loading;
    let refuses = match loading.is_async() {
        // The old data set is served, and must stay what it is.
        true => effective_flags(session, shared, known, flags).has(Flags::NO_ASYNC_LOADING),
        false => loading.is_blocking() && !flags.has(Flags::LOADING),
    };
    if refuses {
        if shared.pause.is_set() && shared.pause.is_for(Purpose::Load, worker.now.ms) {
            return Ok(Verdict::Wait);
        }
        return Err(Error::line(
            "LOADING Redis is loading the dataset in memory",
        ));
    }
    if shared.scripts.overdue.is_any() && !may_run_beside(session, known, flags) {
        return Err(busy(shared));
    }
    if shared.pause.is_set() && waits(shared, worker, session, known, flags) {
        return Ok(Verdict::Wait);
    }
    if session.multi.is_some() && !flags.has(Flags::UNQUEUED) {
        return Ok(Verdict::Queue(known));
    }
    Ok(Verdict::Run(known))
}

/// True for commands that a replica without its primary does not run, if it does not serve stale data;
/// for EXEC if one of the queued commands is such a one.
#[cold]
fn needs_fresh_data(session: &Session, shared: &Shared, known: &Known, flags: Flags) -> bool {
    let queued = session.multi.iter().flat_map(|multi| &multi.queue);
    let mut queued = queued.map(|queued| shared.commands.get(queued.command));
    !flags.has(Flags::STALE)
        || (known.flags.has(Flags::EXEC) && queued.any(|known| !known.flags.has(Flags::STALE)))
}

#[cold]
fn protected(worker: &Worker, session: &Session, known: &Known) -> Result<(), Error> {
    let settings = &worker.settings;
    let (name, option, allowed) = if known.flags.has(Flags::MODULES) {
        let allowed = settings.enable_module_command;
        ("MODULE", "enable-module-command", allowed)
    } else {
        let allowed = settings.enable_debug_command;
        ("DEBUG", "enable-debug-command", allowed)
    };
    if allowed.allows(session.is_local()) {
        return Ok(());
    }
    Err(Error::err(format_args!(
        "{name} command not allowed. If the {option} option is set to \"local\", you can run it from \
         a local connection, otherwise you need to set this option in the configuration file, and \
         then restart the server."
    )))
}

/// Flags of a request; of EXEC, those of the queued commands with it.
fn effective_flags(session: &Session, shared: &Shared, known: &Known, flags: Flags) -> Flags {
    match &session.multi {
        Some(multi) if known.flags.has(Flags::EXEC) => {
            let queued = multi.queue.iter().map(|queued| {
                let known = shared.commands.get(queued.command);
                if !known.flags.has(Flags::SCRIPT) {
                    return known.flags;
                }
                let list: Vec<&[u8]> = queued.args.iter().map(|a| &a[..]).collect();
                script_flags(shared, known, Args::new(&list))
            });
            queued.fold(known.flags, Flags::or)
        }
        _ => flags,
    }
}

#[cold]
fn memory(
    shared: &Shared,
    worker: &mut Worker,
    session: &Session,
    known: &Known,
    flags: Flags,
) -> Result<(), Error> {
    // Eviction writes, which a pause holds back; then nothing is refused either.
    if alloc::used() <= worker.settings.maxmemory as usize
        || shared.pause.at(worker.now.ms).is_some()
    {
        return Ok(());
    }
    let settings = std::sync::Arc::clone(&worker.settings);
    let freed = super::upkeep::evict(shared, &settings, worker.now);
    worker.out_of_memory = !freed;
    let flags = effective_flags(session, shared, known, flags);
    let queues = session.multi.is_some()
        && !known.flags.has(Flags::EXEC)
        && !matches!(known.row.name, "discard" | "quit" | "reset");
    if !freed && (flags.has(Flags::DENYOOM) || queues) {
        return Err(Error::OutOfMemory);
    }
    Ok(())
}

/// Writes are refused while the data set cannot be saved, if the parameters say so. PING tells.
#[cold]
fn saved(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    known: &Known,
    flags: Flags,
) -> Result<(), Error> {
    let writes = effective_flags(session, shared, known, flags).has(Flags::WRITE);
    if (writes || known.row.name == "ping")
        && shared.durability.saves.refuses_writes(&worker.settings)
    {
        return Err(Error::line(
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to \
             persist to disk. Commands that may modify the data set are disabled, because this \
             instance is configured to report errors during writes if RDB snapshotting fails \
             (stop-writes-on-bgsave-error option). Please check the Redis logs for details about \
             the RDB error.",
        ));
    }
    let appended = &shared.append_only.log.progress;
    if (writes || known.row.name == "ping") && appended.failing.load(Relaxed) {
        let error = std::io::Error::from_raw_os_error(appended.error.load(Relaxed));
        return Err(Error::Line(
            format!(
                "MISCONF Errors writing to the AOF file: {}",
                crate::config::strerror(&error)
            )
            .into(),
        ));
    }
    Ok(())
}

/// Writes need as many replicas with little lag as the configuration says.
#[cold]
fn good_replicas(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    known: &Known,
    flags: Flags,
) -> Result<(), Error> {
    match effective_flags(session, shared, known, flags).has(Flags::WRITE) {
        true => enough_replicas(shared, worker),
        false => Ok(()),
    }
}

fn enough_replicas(shared: &Shared, worker: &Worker) -> Result<(), Error> {
    let (needed, max_lag) = (
        i64::from(worker.settings.min_replicas_to_write),
        i64::from(worker.settings.min_replicas_max_lag),
    );
    let good = || shared.replication.good(max_lag, worker.now.ms / 1000) as i64;
    if max_lag > 0 && good() < needed {
        return Err(Error::line("NOREPLICAS Not enough good replicas to write."));
    }
    Ok(())
}

#[cold]
fn waits(shared: &Shared, worker: &Worker, session: &Session, known: &Known, flags: Flags) -> bool {
    let flags = effective_flags(session, shared, known, flags);
    match shared.pause.at(worker.now.ms) {
        Some(Paused::All) => true,
        Some(Paused::Writes) => flags.has(Flags::WRITE.or(Flags::MAY_REPLICATE)),
        None => false,
    }
}

/// Accounts for a refusal: statistics, and the transaction that it spoils.
pub fn refused(
    shared: &Shared,
    worker: &Worker,
    session: &mut Session,
    known: Option<&Known>,
    error: &Error,
) {
    if let Some(known) = known {
        let rejected = &worker.stats.commands[known.id].rejected;
        rejected.store(rejected.load(Relaxed) + 1, Relaxed);
    }
    shared.stats.count_error(&error.text());
    if let Some(multi) = &mut session.multi {
        multi.refused = true;
    }
}
