//! What every `<container> HELP` prints.

use crate::dispatch::context::ServerCtx;

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
