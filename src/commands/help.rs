//! `<container> HELP`: its row, and what every one prints.

use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;

/// The row of a container whose subcommands are of category `acl`.
pub const fn row(acl: Acl, run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>) -> Command {
    Command {
        name: "help",
        arity: 2,
        flags: Flags::LOADING.or(Flags::STALE),
        acl,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// Replies the help of a container: a header, its `lines` (subcommands, and indented what they
/// do), and the entry of HELP itself.
pub fn reply(ctx: &mut ServerCtx<'_, '_>, lines: &[&str]) {
    let name = ctx.args[0].to_ascii_uppercase();
    let name = String::from_utf8_lossy(&name);
    let out = &mut *ctx.out;
    out.array(lines.len() + 3);
    out.simple(&format!(
        "{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for line in lines {
        out.simple(line);
    }
    out.simple("HELP");
    out.simple("    Prints this help.");
}
