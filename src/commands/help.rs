//! HELP of containers.

use crate::resp::write::Output;

/// Answers HELP of `container` (in upper case): a head line, the subcommands' lines, and HELP itself.
pub fn reply(out: &mut Output, container: &str, lines: &[&str]) {
    out.array(lines.len() + 3);
    out.simple(&format!(
        "{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    ));
    lines.iter().for_each(|line| out.simple(line));
    out.simple("HELP");
    out.simple("    Prints this help.");
}
