//! FCALL and FUNCTION: libraries loaded, listed, moved and removed. Running functions is in
//! [`crate::scripting`].

use std::time::Duration;

use super::scripting::{ALL_SHARDS, NOTED, NOTED_RO, ONE_SHARD, is_async, kill, row, sub};
use crate::base::glob;
use crate::dispatch::admit;
use crate::dispatch::command::{Acl, Command, Flags, ROW, Scope};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::persistence::rdb::payload;
use crate::scripting::run;
use crate::scripts::{Engine, Registry, ScriptFlags};

/// How long a library may take while it is loaded.
const LOAD_TIME: Duration = Duration::from_millis(500);

const WRITES: Flags = Flags::WRITE;
const GROWS: Flags = Flags::WRITE.or(Flags::DENYOOM);

const fn changes(command: Command) -> Command {
    Command {
        scope: Scope::All,
        ..command.tipped(ALL_SHARDS)
    }
}

/// The rows.
pub const ROWS: &[Command] = &[
    row("fcall", NOTED, false, |ctx| run::fcall(ctx, false)),
    row("fcall_ro", NOTED_RO, true, |ctx| run::fcall(ctx, true)),
    Command {
        name: "function",
        arity: -2,
        subcommands: &[
            changes(sub("delete", 3, WRITES, delete)),
            sub("dump", 2, Flags::NONE, dump),
            changes(sub("flush", -2, WRITES, flush)),
            super::help::row(Acl::SCRIPTING, help),
            sub("kill", 2, Flags::ALLOW_BUSY, |ctx| kill(ctx, false)).tipped(ONE_SHARD),
            sub("list", -2, Flags::NONE, list).tipped(&["nondeterministic_output_order"]),
            changes(sub("load", -3, GROWS, load)),
            changes(sub("restore", -3, GROWS, restore)),
            sub("stats", 2, Flags::ALLOW_BUSY, stats).tipped(&[
                "nondeterministic_output",
                "request_policy:all_shards",
                "response_policy:special",
            ]),
        ],
        ..ROW
    },
];

fn engine<'s>(ctx: &ServerCtx<'_, 's>) -> Result<&'s dyn Engine, Error> {
    let engine = ctx.shared.scripts.engine();
    engine.ok_or(Error::line("ERR No engine runs functions"))
}

fn wrong(text: Vec<u8>) -> Error {
    Error::Bytes([b"ERR ", &text[..]].concat())
}

/// Changes the libraries and propagates the command, as one step.
fn change<R>(
    ctx: &mut ServerCtx<'_, '_>,
    work: impl FnOnce(&mut Registry) -> Result<R, Vec<u8>>,
) -> Result<R, Error> {
    let libraries = &ctx.shared.scripts.libraries;
    let changed = ctx.with_all(|db| {
        let result = libraries.change(|registry, _| work(registry))?;
        db.count_changes(1);
        Ok(result)
    })?;
    changed.map_err(wrong)
}

/// `FUNCTION LOAD [REPLACE] code`
fn load(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let last = ctx.args.len() - 1;
    let mut replace = false;
    for index in 2..last {
        if !ctx.args.is(index, "replace") {
            let option = &ctx.args[index];
            return Err(Error::quoting("Unknown option given: ", option, ""));
        }
        replace = true;
    }
    let source = ctx.args.rest(last)[0];
    let within = (!ctx.worker.source.is_obeyed()).then_some(LOAD_TIME);
    let libraries = &ctx.shared.scripts.libraries;
    let engine = engine(ctx)?;
    // Read before anything is locked: it runs code.
    let library = libraries
        .now()
        .read(libraries, engine, source, (replace, within));
    let library = library.map_err(wrong)?;
    let name = library.name.clone();
    change(ctx, |registry| registry.add(library, replace))?;
    ctx.out.bulk(&name);
    Ok(())
}

/// `FUNCTION DELETE library`
fn delete(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let name = ctx.args.rest(2)[0];
    change(ctx, |registry| {
        let library = registry.remove(name);
        library
            .map(drop)
            .ok_or_else(|| b"Library not found".to_vec())
    })?;
    ctx.out.ok();
    Ok(())
}

/// `FUNCTION FLUSH [ASYNC | SYNC]`: what is gone is freed when the last worker has let go of it.
fn flush(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len() > 3 {
        return Err(Error::subcommand(ctx.args.all()));
    }
    is_async(ctx, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option")?;
    change(ctx, |registry| {
        *registry = Registry::default();
        Ok(())
    })?;
    ctx.out.ok();
    Ok(())
}

/// `FUNCTION DUMP`
fn dump(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let sources = ctx.shared.scripts.libraries.now().sources();
    let compress = ctx.worker.settings.rdbcompression;
    ctx.out.bulk(&payload::of_functions(&sources, compress));
    Ok(())
}

/// `FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]`
fn restore(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len() > 4 {
        return Err(Error::subcommand(ctx.args.all()));
    }
    let policy = match ctx.args.get(3).map(<[u8]>::to_ascii_lowercase).as_deref() {
        None | Some(b"append") => Policy::Append,
        Some(b"replace") => Policy::Replace,
        Some(b"flush") => Policy::Flush,
        Some(_) => {
            return Err(Error::line(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let data = &ctx.args[2];
    if !payload::is_sound(data) {
        return Err(Error::line(
            "ERR DUMP payload version or checksum are wrong",
        ));
    }
    let sources = payload::functions(data).map_err(|text| wrong(text.into()))?;
    let (libraries, engine) = (&ctx.shared.scripts.libraries, engine(ctx)?);
    let mut restored = Registry::default();
    for source in &sources {
        let library = restored.read(libraries, engine, source, (false, None));
        let added = library.and_then(|library| restored.add(library, false));
        added.map_err(wrong)?;
    }
    change(ctx, |registry| match policy {
        Policy::Flush => {
            *registry = restored;
            Ok(())
        }
        other => registry.join(restored, other == Policy::Replace),
    })?;
    ctx.out.ok();
    Ok(())
}

/// What becomes of libraries that are there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Flush,
    Append,
    Replace,
}

/// `FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]`
fn list(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (mut pattern, mut with_code) = (None, false);
    let mut index = 2;
    while index < ctx.args.len() {
        if !with_code && ctx.args.is(index, "withcode") {
            with_code = true;
        } else if pattern.is_none() && ctx.args.is(index, "libraryname") {
            index += 1;
            let given = ctx.args.get(index);
            pattern = Some(given.ok_or(Error::line("ERR library name argument was not given"))?);
        } else {
            return Err(Error::quoting("Unknown argument ", &ctx.args[index], ""));
        }
        index += 1;
    }
    let registry = ctx.shared.scripts.libraries.now();
    let libraries = registry.libraries.values();
    let is_wanted = |name: &[u8]| pattern.is_none_or(|p| glob::matches(p, name, true));
    let wanted: Vec<_> = libraries.filter(|l| is_wanted(&l.name)).collect();
    let out = &mut *ctx.out;
    out.array(wanted.len());
    for library in wanted {
        out.map(if with_code { 4 } else { 3 });
        out.bulk(b"library_name");
        out.bulk(&library.name);
        out.bulk(b"engine");
        out.bulk(b"LUA");
        out.bulk(b"functions");
        out.array(library.functions.len());
        for function in library.functions.values() {
            let registered = &function.registered;
            out.map(3);
            out.bulk(b"name");
            out.bulk(&registered.name);
            out.bulk(b"description");
            match &registered.description {
                Some(text) => out.bulk(text),
                None => out.null(),
            }
            out.bulk(b"flags");
            let flags = ScriptFlags::NAMES.iter();
            let flags: Vec<_> = flags
                .filter(|(_, flag)| registered.flags.has(*flag))
                .collect();
            out.set(flags.len());
            flags.iter().for_each(|(name, _)| out.simple(name));
        }
        if with_code {
            out.bulk(b"library_code");
            out.bulk(&library.source);
        }
    }
    Ok(())
}

/// `FUNCTION STATS`
fn stats(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let running = ctx.shared.scripts.overdue.first();
    if running.as_ref().is_some_and(|script| script.is_eval) {
        return Err(admit::busy(ctx.shared));
    }
    let out = &mut *ctx.out;
    out.map(2);
    out.bulk(b"running_script");
    match running {
        None => out.null(),
        Some(script) => {
            out.map(3);
            out.bulk(b"name");
            out.bulk(&script.name);
            out.bulk(b"command");
            out.array(script.request.len());
            script.request.iter().for_each(|arg| out.bulk(arg));
            out.bulk(b"duration_ms");
            out.int(script.began.elapsed().as_millis() as i64);
        }
    }
    let registry = ctx.shared.scripts.libraries.now();
    out.bulk(b"engines");
    out.map(1);
    out.bulk(b"LUA");
    out.map(2);
    out.bulk(b"libraries_count");
    out.int(registry.libraries.len() as i64);
    out.bulk(b"functions_count");
    out.int(registry.functions.len() as i64);
    Ok(())
}

/// `FUNCTION HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "LOAD [REPLACE] <FUNCTION CODE>",
            "    Create a new library with the given library name and code.",
            "DELETE <LIBRARY NAME>",
            "    Delete the given library.",
            "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
            "    Return general information on all the libraries:",
            "    * Library name",
            "    * The engine used to run the Library",
            "    * Library description",
            "    * Functions list",
            "    * Library code (if WITHCODE is given)",
            "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
            "STATS",
            "    Return information about the current function running:",
            "    * Function name",
            "    * Command used to run the function",
            "    * Duration in MS that the function is running",
            "    If no function is running, return nil",
            "    In addition, returns a list of available engines.",
            "KILL",
            "    Kill the current running function.",
            "FLUSH [ASYNC|SYNC]",
            "    Delete all the libraries.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the libraries.",
            "    * SYNC: Synchronously flush the libraries.",
            "DUMP",
            "    Return a serialized payload representing the current libraries, can be restored using \
             FUNCTION RESTORE command",
            "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
            "    Restore the libraries represented by the given payload, it is possible to give a restore \
             policy to",
            "    control how to handle existing libraries (default APPEND):",
            "    * FLUSH: delete all existing libraries.",
            "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
            "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace \
             the old",
            "      libraries with the new libraries (notice that even on this option there is a chance of \
             failure",
            "      in case of functions name collision with another library).",
        ],
    );
    Ok(())
}
