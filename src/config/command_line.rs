//! The arguments of `redis-server`, turned into lines of a configuration file.
//!
//! `redis-server [file] [-] [--name value ...] [-]`: what is not the file or standard input is
//! appended to them as text, so one reader and one set of messages serve all three. Nothing here
//! opens a file or knows a parameter, but for the two options whose value may be missing.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use crate::base::text::{quote_into, split_args};

/// What the arguments ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// The configuration file, as it was written. See [`absolute_path`].
    pub config_file: Option<Vec<u8>>,
    /// Read more configuration from standard input.
    pub from_stdin: bool,
    /// Lines to read after both.
    pub text: Vec<u8>,
    /// Run as a sentinel.
    pub sentinel: bool,
    /// Something else than serving.
    pub special: Special,
    /// There were arguments; without any, not even an empty configuration is read.
    pub has_arguments: bool,
}

/// What to do instead of serving.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub enum Special {
    /// Nothing: serve.
    #[default]
    None,
    /// `-v`, `--version`.
    Version,
    /// `-h`, `--help`.
    Help,
    /// `--test-memory MEGABYTES`; `None` when the number is missing, which is an error of use.
    TestMemory(Option<u64>),
    /// `--check-system`.
    CheckSystem,
}

/// Reads the arguments, the program's own name (which may make it a sentinel) first.
pub fn options_to_text(args: &[OsString]) -> CommandLine {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    let Some((program, args)) = args.split_first() else {
        return CommandLine::default();
    };
    let program = program.rsplit(|&b| b == b'/').next().unwrap_or(program);
    let mut line = CommandLine {
        sentinel: memchr::memmem::find(program, b"redis-sentinel").is_some()
            || args.contains(&b"--sentinel".as_slice()),
        special: special(args),
        has_arguments: !args.is_empty(),
        ..CommandLine::default()
    };
    if line.special != Special::None {
        return line;
    }
    match args {
        [file, rest @ ..] if file.first() != Some(&b'-') => {
            line.config_file = Some(file.to_vec());
            read_options(&mut line, rest, false);
        }
        args => read_options(&mut line, args, true),
    }
    line
}

fn special(args: &[&[u8]]) -> Special {
    match args {
        [b"-v" | b"--version", ..] => Special::Version,
        [b"-h" | b"--help", ..] => Special::Help,
        [b"--test-memory", megabytes] => {
            let digits = megabytes.iter().take_while(|b| b.is_ascii_digit());
            let number = digits.fold(0u64, |n, d| {
                n.saturating_mul(10).saturating_add(u64::from(d - b'0'))
            });
            Special::TestMemory(Some(number))
        }
        [b"--test-memory", ..] => Special::TestMemory(None),
        [b"--check-system", ..] => Special::CheckSystem,
        _ => Special::None,
    }
}

/// Appends options. `-` is standard input where it stands first of all arguments or last.
fn read_options(line: &mut CommandLine, args: &[&[u8]], at_start: bool) {
    // A name is only a name once the option before it has its value; so values may begin with `--`.
    let mut has_value = true;
    for (index, &arg) in args.iter().enumerate() {
        let next = args.get(index + 1);
        if arg == b"-" && ((at_start && index == 0) || next.is_none()) {
            line.from_stdin = true;
        } else if has_value && let Some(name) = arg.strip_prefix(b"--") {
            if !line.text.is_empty() {
                line.text.push(b'\n');
            }
            line.text.extend_from_slice(name);
            line.text.push(b' ');
            has_value = name_has_value(line, arg, next.copied());
        } else {
            quote_into(&mut line.text, arg);
            line.text.push(b' ');
            has_value = true;
        }
    }
}

/// Whether the option `arg` needs nothing more: it holds its value (`"--port 6379"`), or it is one
/// that may stand alone and is followed by another name.
fn name_has_value(line: &mut CommandLine, arg: &[u8], next: Option<&[u8]>) -> bool {
    if split_args(arg).is_none_or(|words| words.len() != 1) {
        return true;
    }
    let alone = next.is_none_or(|next| next.starts_with(b"--"));
    if alone && arg.eq_ignore_ascii_case(b"--save") {
        line.text.extend_from_slice(b"\"\"");
        return next.is_some();
    }
    alone && next.is_some() && arg.eq_ignore_ascii_case(b"--sentinel")
}

/// `path` from the root, as the server reports its configuration file: spaces at the ends cut off,
/// and `../` at the start resolved. `directory` is the working directory.
pub fn absolute_path(path: &[u8], directory: &[u8]) -> Vec<u8> {
    let mut path = path.trim_ascii();
    if path.starts_with(b"/") {
        return path.to_vec();
    }
    let mut out = directory.to_vec();
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
    while let Some(rest) = path.strip_prefix(b"../") {
        path = rest;
        if out.len() > 1 {
            out.pop();
            let keep = out
                .iter()
                .rposition(|&b| b == b'/')
                .map_or(0, |slash| slash + 1);
            out.truncate(keep);
        }
    }
    out.extend_from_slice(path);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> CommandLine {
        let mut all = vec![OsString::from("/usr/bin/redis-server")];
        all.extend(args.iter().map(OsString::from));
        options_to_text(&all)
    }

    #[track_caller]
    fn check(args: &[&str], file: Option<&str>, from_stdin: bool, text: &str) {
        let line = parse(args);
        assert_eq!(
            line.config_file.as_deref(),
            file.map(str::as_bytes),
            "{args:?}"
        );
        assert_eq!(line.from_stdin, from_stdin, "{args:?}");
        assert_eq!(String::from_utf8_lossy(&line.text), text, "{args:?}");
    }

    #[test]
    fn options_become_lines() {
        check(&[], None, false, "");
        check(&["a.conf"], Some("a.conf"), false, "");
        check(&["-"], None, true, "");
        check(
            &["a.conf", "--port", "1", "-"],
            Some("a.conf"),
            true,
            "port \"1\" ",
        );
        check(
            &["a.conf", "-", "--port", "1"],
            Some("a.conf"),
            false,
            "\"-\" \nport \"1\" ",
        );
        check(
            &["--port", "1", "--hz", "2"],
            None,
            false,
            "port \"1\" \nhz \"2\" ",
        );
        check(&["--port 1", "--hz 2"], None, false, "port 1 \nhz 2 ");
        check(
            &["--bind", "a", "b", "--port", "1"],
            None,
            false,
            "bind \"a\" \"b\" \nport \"1\" ",
        );
        check(
            &["--masterauth", "--x", "--port", "1"],
            None,
            false,
            "masterauth \"--x\" \nport \"1\" ",
        );
    }

    #[test]
    fn options_that_may_stand_alone() {
        check(
            &["--save", "--port", "1"],
            None,
            false,
            "save \"\"\nport \"1\" ",
        );
        check(&["--save"], None, false, "save \"\"");
        check(&["--save", ""], None, false, "save \"\" ");
        check(&["--save", "900", "1"], None, false, "save \"900\" \"1\" ");
        check(
            &["--sentinel", "--port", "1"],
            None,
            false,
            "sentinel \nport \"1\" ",
        );
        assert!(parse(&["a.conf", "--sentinel"]).sentinel);
        assert!(!parse(&["a.conf"]).sentinel);
        assert!(options_to_text(&[OsString::from("/x/redis-sentinel")]).sentinel);
    }

    #[test]
    fn other_duties() {
        assert_eq!(parse(&["-v"]).special, Special::Version);
        assert_eq!(parse(&["--help"]).special, Special::Help);
        assert_eq!(
            parse(&["--test-memory", "12x"]).special,
            Special::TestMemory(Some(12))
        );
        assert_eq!(parse(&["--test-memory"]).special, Special::TestMemory(None));
        assert_eq!(parse(&["--check-system"]).special, Special::CheckSystem);
        assert_eq!(parse(&["--port", "-v"]).special, Special::None);
    }

    #[test]
    fn paths_from_the_root() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            (" b \n", "/x/y/b"),
            ("../b", "/x/b"),
            ("../../../b", "/b"),
            ("./b", "/x/y/./b"),
        ] {
            let got = absolute_path(path.as_bytes(), b"/x/y");
            assert_eq!(String::from_utf8_lossy(&got), expected);
        }
    }
}
