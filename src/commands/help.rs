//! The answer to HELP of a container.

use crate::dispatch::context::ServerCtx;

/// Answers a heading with the container's name as it was called, `lines`, and what HELP does.
pub fn reply(ctx: &mut ServerCtx<'_, '_>, lines: &[&str]) {
    let name = String::from_utf8_lossy(&ctx.args[0]).to_ascii_uppercase();
    // A line end within the name cannot get here: the table knows no such command.
    ctx.out.array(lines.len() + 3);
    ctx.out.simple(&format!(
        "{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    for line in lines {
        ctx.out.simple(line);
    }
    ctx.out.simple("HELP");
    ctx.out.simple("    Prints this help.");
}
