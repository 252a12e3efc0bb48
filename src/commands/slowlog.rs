//! SLOWLOG.

use super::help;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;

const ADMIN: Flags = Flags::ADMIN.or(Flags::LOADING).or(Flags::STALE);

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "slowlog",
    arity: -2,
    subcommands: &[
        Command {
            name: "get",
            arity: -2,
            flags: ADMIN,
            tips: &["request_policy:all_nodes", "nondeterministic_output"],
            handler: Handler::Server(get),
            ..ROW
        },
        super::help::row(Acl::NONE, help),
        Command {
            name: "len",
            arity: 2,
            flags: ADMIN,
            tips: &[
                "request_policy:all_nodes",
                "response_policy:agg_sum",
                "nondeterministic_output",
            ],
            handler: Handler::Server(len),
            ..ROW
        },
        Command {
            name: "reset",
            arity: 2,
            flags: ADMIN,
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            handler: Handler::Server(reset),
            ..ROW
        },
    ],
    ..ROW
}];

/// `SLOWLOG GET [count]`
fn get(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let count = match ctx.args.len() {
        2 => 10,
        3 => ctx.args.int_or(2, COUNT).and_then(|n| {
            if n < -1 {
                Err(Error::line(COUNT))
            } else {
                Ok(n)
            }
        })?,
        _ => return Err(Error::subcommand(ctx.args.all())),
    };
    let count = if count == -1 {
        usize::MAX
    } else {
        count as usize
    };
    let entries = ctx.shared.slowlog.newest(count);
    let out = &mut *ctx.out;
    out.array(entries.len());
    for entry in entries {
        out.array(6);
        out.int(entry.id as i64);
        out.int(entry.time);
        out.int(entry.micros as i64);
        out.array(entry.args.len());
        entry.args.iter().for_each(|arg| out.bulk(arg));
        out.bulk(entry.address.as_bytes());
        out.bulk(&entry.name);
    }
    Ok(())
}

const COUNT: &str = "ERR count should be greater than or equal to -1";

/// `SLOWLOG LEN`
fn len(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.int(ctx.shared.slowlog.len() as i64);
    Ok(())
}

/// `SLOWLOG RESET`
fn reset(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.shared.slowlog.reset();
    ctx.out.ok();
    Ok(())
}

/// `SLOWLOG HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "GET [<count>]",
            "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
            "    Entries are made of:",
            "    id, timestamp, time in microseconds, arguments array, client IP and port,",
            "    client name",
            "LEN",
            "    Return the length of the slowlog.",
            "RESET",
            "    Reset the slowlog.",
        ],
    );
    Ok(())
}
