//! COMMAND: the table of commands, told to clients.

use super::{docs, help};
use crate::base::glob;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Begin, Command, Find, Flags, Handler, KeyFlags, KeySpec, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::keys;
use crate::dispatch::table::{Known, Table, legacy_range};
use crate::resp::write::Output;

const OPEN: Flags = Flags::LOADING.or(Flags::STALE);
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

const fn sub(
    name: &'static str,
    arity: i32,
    run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags: OPEN,
        acl: Acl::CONNECTION,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "command",
    arity: -1,
    flags: OPEN,
    acl: Acl::CONNECTION,
    tips: UNORDERED,
    handler: Handler::Server(all),
    subcommands: &[
        sub("count", 2, count),
        Command {
            tips: UNORDERED,
            ..sub("docs", -2, docs)
        },
        sub("getkeys", -4, getkeys),
        sub("getkeysandflags", -4, getkeysandflags),
        sub("help", 2, help),
        Command {
            tips: UNORDERED,
            ..sub("info", -2, info)
        },
        Command {
            tips: UNORDERED,
            ..sub("list", -2, list)
        },
    ],
    ..ROW
}];

/// Top-level commands, under the names by which they can be called.
fn callable(table: &Table) -> Vec<&Known> {
    let mut all: Vec<&Known> = table
        .named()
        .map(|(_, known)| known)
        .filter(|known| known.listed)
        .collect();
    all.sort_unstable_by_key(|known| known.id);
    all
}

/// `COMMAND`
fn all(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let table = &ctx.shared.commands;
    let all = callable(table);
    ctx.out.array(all.len());
    all.iter().for_each(|known| describe(ctx.out, table, known));
    Ok(())
}

/// `COMMAND COUNT`
fn count(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.int(callable(&ctx.shared.commands).len() as i64);
    Ok(())
}

/// `COMMAND INFO [name ...]`
fn info(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.args.len() == 2 {
        return all(ctx);
    }
    let table = &ctx.shared.commands;
    ctx.out.array(ctx.args.len() - 2);
    for name in ctx.args.rest(2) {
        match table.find_full(name) {
            Some(known) => describe(ctx.out, table, known),
            None => ctx.out.null(),
        }
    }
    Ok(())
}

fn describe(out: &mut Output, table: &Table, known: &Known) {
    let (first, last, step) = legacy_range(known.row);
    out.array(10);
    out.bulk(known.full_name.as_bytes());
    out.int(i64::from(known.row.arity));
    statuses(out, known.flags.names().map(str::to_owned));
    out.int(first);
    out.int(last);
    out.int(step);
    statuses(out, known.acl.names().map(|name| format!("@{name}")));
    out.set(known.row.tips.len());
    known
        .row
        .tips
        .iter()
        .for_each(|tip| out.bulk(tip.as_bytes()));
    out.set(known.row.keys.0.len());
    known
        .row
        .keys
        .0
        .iter()
        .for_each(|spec| describe_keys(out, spec));
    if known.subcommands.is_empty() {
        out.set(0);
    } else {
        out.array(known.subcommands.len());
        known
            .subcommands
            .iter()
            .for_each(|id| describe(out, table, table.get(*id)));
    }
}

fn statuses(out: &mut Output, names: impl Iterator<Item = String>) {
    let names: Vec<String> = names.collect();
    out.set(names.len());
    names.iter().for_each(|name| out.simple(name));
}

fn key_flags(out: &mut Output, flags: KeyFlags) {
    statuses(out, flags.names().map(str::to_owned));
}

fn describe_keys(out: &mut Output, spec: &KeySpec) {
    out.map(if spec.notes.is_empty() { 3 } else { 4 });
    if !spec.notes.is_empty() {
        out.bulk(b"notes");
        out.bulk(spec.notes.as_bytes());
    }
    out.bulk(b"flags");
    key_flags(out, spec.flags);
    out.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => typed(out, b"index", &[(b"index", index as i64)]),
        Begin::Keyword(word, from) => {
            out.map(2);
            out.bulk(b"type");
            out.bulk(b"keyword");
            out.bulk(b"spec");
            out.map(2);
            out.bulk(b"keyword");
            out.bulk(word.as_bytes());
            out.bulk(b"startfrom");
            out.int(i64::from(from));
        }
        Begin::Unknown => typed(out, b"unknown", &[]),
    }
    out.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => typed(
            out,
            b"range",
            &[
                (b"lastkey", i64::from(last)),
                (b"keystep", step as i64),
                (b"limit", limit as i64),
            ],
        ),
        Find::Count { at, first, step } => typed(
            out,
            b"keynum",
            &[
                (b"keynumidx", at as i64),
                (b"firstkey", first as i64),
                (b"keystep", step as i64),
            ],
        ),
        Find::Unknown => typed(out, b"unknown", &[]),
    }
}

/// A map of a type and its numbers.
fn typed(out: &mut Output, kind: &[u8], numbers: &[(&[u8], i64)]) {
    out.map(2);
    out.bulk(b"type");
    out.bulk(kind);
    out.bulk(b"spec");
    out.map(numbers.len());
    for (name, number) in numbers {
        out.bulk(name);
        out.int(*number);
    }
}

/// `COMMAND DOCS [name ...]`
fn docs(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let table = &ctx.shared.commands;
    let wanted: Vec<&Known> = if ctx.args.len() == 2 {
        callable(table)
    } else {
        ctx.args
            .rest(2)
            .iter()
            .filter_map(|name| table.find_full(name))
            .collect()
    };
    ctx.out.map(wanted.len());
    for known in wanted {
        ctx.out.bulk(known.full_name.as_bytes());
        docs::write(ctx.out, table, known);
    }
    Ok(())
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`
fn list(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let filter = match args.len() {
        2 => None,
        5 if args.is(2, "filterby") => Some(&args[4]),
        _ => return Err(Error::Syntax),
    };
    let wanted = |known: &Known| match filter {
        None => true,
        // There are no modules, so no command is of one.
        Some(_) if args.is(3, "module") => false,
        Some(name) if args.is(3, "aclcat") => {
            Acl::by_name(name).is_some_and(|category| known.acl.has(category))
        }
        Some(pattern) => glob::matches(pattern, known.full_name.as_bytes(), true),
    };
    if filter.is_some()
        && !["module", "aclcat", "pattern"]
            .iter()
            .any(|kind| args.is(3, kind))
    {
        return Err(Error::Syntax);
    }
    let table = &ctx.shared.commands;
    let names: Vec<&str> = table
        .all()
        .filter(|known| known.listed)
        .filter(|known| wanted(known))
        .map(|known| known.full_name.as_str())
        .collect();
    ctx.out.array(names.len());
    names.iter().for_each(|name| ctx.out.bulk(name.as_bytes()));
    Ok(())
}

/// `COMMAND GETKEYS command [arg ...]`
fn getkeys(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let found = keys_of(ctx)?;
    ctx.out.array(found.len());
    found
        .iter()
        .for_each(|(index, _)| ctx.out.bulk(&ctx.args[index + 2]));
    Ok(())
}

/// `COMMAND GETKEYSANDFLAGS command [arg ...]`
fn getkeysandflags(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let found = keys_of(ctx)?;
    ctx.out.array(found.len());
    for (index, flags) in found {
        ctx.out.array(2);
        ctx.out.bulk(&ctx.args[index + 2]);
        key_flags(ctx.out, flags);
    }
    Ok(())
}

fn keys_of(ctx: &ServerCtx<'_, '_>) -> Result<Vec<keys::Found>, Error> {
    let table = &ctx.shared.commands;
    let inner = Args::new(ctx.args.rest(2));
    let mut known = table
        .find(&inner[0])
        .ok_or(Error::line("ERR Invalid command specified"))?;
    if !known.subcommands.is_empty() && inner.len() > 1 {
        known = table
            .find_sub(known, &inner[1])
            .ok_or(Error::line("ERR Invalid command specified"))?;
    }
    // A shard channel is routed as a key and is none.
    let is_key = |flags: KeyFlags| !flags.has(KeyFlags::NOT_KEY);
    if !known.row.keys.0.iter().any(|spec| is_key(spec.flags)) {
        return Err(Error::line("ERR The command has no key arguments"));
    }
    let (arity, len) = (known.row.arity, inner.len() as i32);
    if (arity > 0 && len != arity) || len < -arity {
        return Err(Error::line(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let found = keys::told(known.row, inner);
    if found.is_empty() && !known.flags.has(Flags::NO_MANDATORY_KEYS) {
        return Err(Error::line("ERR Invalid arguments specified for command"));
    }
    Ok(found)
}

/// `COMMAND HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "(no subcommand)",
            "    Return details about all Redis commands.",
            "COUNT",
            "    Return the total number of commands in this Redis server.",
            "LIST",
            "    Return a list of all commands in this Redis server.",
            "INFO [<command-name> ...]",
            "    Return details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "DOCS [<command-name> ...]",
            "    Return documentation details about multiple Redis commands.",
            "    If no command names are given, documentation details for all",
            "    commands are returned.",
            "GETKEYS <full-command>",
            "    Return the keys from a full Redis command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys and the access flags from a full Redis command.",
        ],
    );
    Ok(())
}
