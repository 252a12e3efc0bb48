//! Reading `redis.conf`: lines of a name and arguments, from a file, standard input and options.
//!
//! Later lines win, except that lines of `save` add up. Included files are read where their
//! `include` stands. The texts of errors are Redis' own, since people and tools look for them;
//! nothing is printed here. Invariant: after an error nobody uses the settings.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::command_line::CommandLine;
use super::special::strerror;
use super::{Flags, Origin, Param, SentinelLine, Settings, UserRow, clamp, include, lookup};
use crate::base::text::split_args;

/// Directives that are accepted with one argument and do nothing any more.
const DEPRECATED: [&[u8]; 3] = [
    b"list-max-ziplist-entries",
    b"list-max-ziplist-value",
    b"lua-replicate-commands",
];

/// Files included in files included in files: more than this is taken for a cycle.
const MAX_INCLUDE_DEPTH: usize = 64;

/// Why the configuration could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LoadError {
    /// The text for standard error, its line breaks included: two lines and the line it is about.
    #[error("{0}")]
    Fatal(String),
    /// A line for the log: a file could not be opened.
    #[error("{0}")]
    Open(String),
}

/// Checks that other modules make while a file is read, so that the message can name the line.
pub trait Checks {
    /// `rename-command old new`; an error is the reason.
    fn rename_command(&mut self, old: &[u8], new: &[u8]) -> Result<(), String>;
    /// `user name rule...`, under the settings so far; an error is the whole message.
    fn user(&mut self, row: &UserRow, settings: &Settings) -> Result<(), String>;
}

/// Checks nothing: every command and rule is taken to exist.
pub struct Unchecked;

impl Checks for Unchecked {
    fn rename_command(&mut self, _: &[u8], _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn user(&mut self, _: &UserRow, _: &Settings) -> Result<(), String> {
        Ok(())
    }
}

/// Reads what a command line names into `settings`: file, then `stdin` if asked for, then options.
pub fn load(
    settings: &mut Settings,
    line: &CommandLine,
    stdin: &mut dyn Read,
    checks: &mut dyn Checks,
) -> Result<(), LoadError> {
    let mut text = match &line.config_file {
        Some(path) => read_files(path)?,
        None => Vec::new(),
    };
    if line.from_stdin {
        // An error ends the text as the end of the input does.
        let _ = stdin.read_to_end(&mut text);
    }
    text.push(b'\n');
    text.extend_from_slice(&line.text);
    load_text(settings, &text, checks)
}

/// Reads the lines of `text` into `settings`.
pub fn load_text(
    settings: &mut Settings,
    text: &[u8],
    checks: &mut dyn Checks,
) -> Result<(), LoadError> {
    let mut loader = Loader {
        settings,
        checks,
        origin: Origin::default(),
        depth: 0,
    };
    loader.text(text)
}

struct Loader<'a> {
    settings: &'a mut Settings,
    checks: &'a mut dyn Checks,
    origin: Origin,
    depth: usize,
}

/// Why a line was refused: a reason to wrap, or an error from an included file.
enum LineError {
    Reason(String),
    Included(LoadError),
}

impl From<&str> for LineError {
    fn from(reason: &str) -> Self {
        LineError::Reason(reason.to_owned())
    }
}

impl From<String> for LineError {
    fn from(reason: String) -> Self {
        LineError::Reason(reason)
    }
}

impl Loader<'_> {
    fn text(&mut self, text: &[u8]) -> Result<(), LoadError> {
        self.origin.reading_file = true;
        for (index, line) in text.split(|&b| b == b'\n').enumerate() {
            let line = trim(line);
            match self.line(line, index + 1) {
                Ok(()) => {}
                Err(LineError::Included(error)) => return Err(error),
                Err(LineError::Reason(reason)) => {
                    return Err(fatal(Some((index + 1, line)), &reason));
                }
            }
        }
        self.check_as_a_whole()?;
        clamp(self.settings);
        // As in Redis, the end of an included file ends the adding up of `save` for its includer.
        self.origin.reading_file = false;
        Ok(())
    }

    fn line(&mut self, line: &[u8], number: usize) -> Result<(), LineError> {
        if line.is_empty() || line[0] == b'#' {
            return Ok(());
        }
        let mut args = split_args(line).ok_or("Unbalanced quotes in configuration line")?;
        let Some(name) = args.first_mut() else {
            return Ok(());
        };
        name.make_ascii_lowercase();
        match lookup(name) {
            Some((param, _)) => Ok(self.param(param, &args[1..])?),
            None => self.directive(args, line, number),
        }
    }

    fn param(&mut self, param: &Param, args: &[Vec<u8>]) -> Result<(), String> {
        let multi = param.flags.has(Flags::MULTI_ARG);
        if !multi && args.len() != 1 {
            return Err("wrong number of arguments".to_owned());
        }
        let split = match args {
            [arg] if multi && !arg.is_empty() => Some(split_args(arg).unwrap_or_default()),
            _ => None,
        };
        let args = split.as_deref().unwrap_or(args);
        param.set(self.settings, args, &mut self.origin)?;
        Ok(())
    }

    fn directive(
        &mut self,
        args: Vec<Vec<u8>>,
        line: &[u8],
        number: usize,
    ) -> Result<(), LineError> {
        let directives = &mut self.settings.directives;
        match args.as_slice() {
            [name, _] if DEPRECATED.contains(&name.as_slice()) => {}
            [name, path] if name == b"include" => self.include(path)?,
            [name, old, new] if name == b"rename-command" => {
                self.checks.rename_command(old, new)?;
                directives.rename_commands.push((old.clone(), new.clone()));
            }
            [name, _, ..] if name == b"user" => {
                let row = UserRow {
                    words: args,
                    is_included: self.depth > 0,
                };
                self.checks.user(&row, self.settings)?;
                self.settings.directives.users.push(row);
            }
            [name, rest @ ..] if name == b"loadmodule" && !rest.is_empty() => {
                directives.load_modules.push(rest.to_vec());
            }
            [name, value @ ..] if name.contains(&b'.') => {
                if value.is_empty() {
                    return Err("Module config specified without value".into());
                }
                directives.module_configs.retain(|(known, _)| known != name);
                directives
                    .module_configs
                    .push((name.clone(), value.join(&b' ')));
            }
            // Without arguments it is the option that makes the server a sentinel.
            [name] if name == b"sentinel" => {}
            [name, rest @ ..] if name == b"sentinel" => {
                if !directives.sentinel_mode {
                    return Err("sentinel directive while not in sentinel mode".into());
                }
                let (args, line) = (rest.to_vec(), line.to_vec());
                directives
                    .sentinel
                    .push(SentinelLine { args, number, line });
            }
            _ => return Err("Bad directive or wrong number of arguments".into()),
        }
        Ok(())
    }

    fn include(&mut self, path: &[u8]) -> Result<(), LineError> {
        if self.depth == MAX_INCLUDE_DEPTH {
            return Err("Too many nested includes".into());
        }
        self.depth += 1;
        let text = read_files(path).map_err(LineError::Included)?;
        self.text(&text).map_err(LineError::Included)?;
        self.depth -= 1;
        Ok(())
    }

    /// What is wrong only with all lines together.
    fn check_as_a_whole(&self) -> Result<(), LoadError> {
        let logfile = &self.settings.logfile;
        if !logfile.is_empty() {
            let open = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(logfile.as_path());
            open.map_err(|error| {
                fatal(
                    None,
                    &format!("Can't open the log file: {}", strerror(&error)),
                )
            })?;
        }
        if self.settings.cluster_enabled && self.settings.replicaof.is_some() {
            return Err(fatal(
                None,
                "replicaof directive not allowed in cluster mode",
            ));
        }
        Ok(())
    }
}

/// The text of one file, or of all that a pattern matches; a pattern may match none.
fn read_files(path: &[u8]) -> Result<Vec<u8>, LoadError> {
    if !include::has_wildcard(path) {
        return read_file(Path::new(OsStr::from_bytes(path)));
    }
    let mut text = Vec::new();
    for path in include::expand(path) {
        text.extend(read_file(&path)?);
    }
    Ok(text)
}

fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let mut text = Vec::new();
    let mut file = std::fs::File::open(path).map_err(|error| {
        let (path, reason) = (path.display(), strerror(&error));
        LoadError::Open(format!(
            "Fatal error, can't open config file '{path}': {reason}"
        ))
    })?;
    // As with `fgets`: what cannot be read, a directory for one, counts as the end.
    let _ = file.read_to_end(&mut text);
    Ok(text)
}

fn trim(line: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
    let start = line.iter().position(|b| !blank(b)).unwrap_or(line.len());
    let end = line
        .iter()
        .rposition(|b| !blank(b))
        .map_or(start, |last| last + 1);
    &line[start..end]
}

fn fatal(line: Option<(usize, &[u8])>, reason: &str) -> LoadError {
    let mut text = "\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\n".to_owned();
    if let Some((number, line)) = line {
        let line = String::from_utf8_lossy(line);
        text += &format!("Reading the configuration file, at line {number}\n>>> '{line}'\n");
    }
    text += reason;
    text.push('\n');
    LoadError::Fatal(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SavePoint;

    fn read(text: &str) -> Result<Settings, LoadError> {
        let mut settings = Settings::default();
        load_text(&mut settings, text.as_bytes(), &mut Unchecked).map(|()| settings)
    }

    #[track_caller]
    fn check(text: &str, name: &str, expected: &str) {
        let settings = read(text).unwrap_or_else(|error| panic!("{error}"));
        let (param, _) = lookup(name.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&param.print(&settings)),
            expected,
            "{text:?}"
        );
    }

    #[track_caller]
    fn check_error(text: &str, number: usize, line: &str, reason: &str) {
        let expected = format!(
            "\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\n\
             Reading the configuration file, at line {number}\n>>> '{line}'\n{reason}\n"
        );
        assert_eq!(read(text).err(), Some(LoadError::Fatal(expected)));
    }

    #[test]
    fn lines() {
        check("# a comment\n\n  PORT\t 7000 \r\n", "port", "7000");
        check("port 1\nport 2", "port", "2");
        check("slave-priority 7", "replica-priority", "7");
        check("requirepass \"a \\x41\"", "requirepass", "a A");
        check("maxmemory 1kb", "maxmemory", "1024");
        check("maxmemory-clients 5%", "maxmemory-clients", "5%");
        check("unixsocketperm 770", "unixsocketperm", "770");
        check("hz 0", "hz", "1");
        check("hz 1000", "hz", "500");
        check("bind", "bind", "");
        check("bind \"\"", "bind", "");
        check("bind \"a b\"", "bind", "a b");
        check("replicaof localhost 6379", "slaveof", "localhost 6379");
        check("replicaof a 1\nslaveof no one", "replicaof", "");
        check(
            "shutdown-on-sigterm now save",
            "shutdown-on-sigterm",
            "save now",
        );
        check("list-max-ziplist-entries 512", "port", "6379");
        check(
            "client-output-buffer-limit replica 1mb 2kb 3",
            "client-output-buffer-limit",
            "normal 0 0 0 slave 1048576 2048 3 pubsub 33554432 8388608 60",
        );
    }

    #[test]
    fn save_lines_add_up() {
        check("port 1", "save", "3600 1 300 100 60 10000");
        check("save 900 1\nsave 300 10", "save", "900 1 300 10");
        check("save 900 1 300 10", "save", "900 1 300 10");
        check("save \"900 1 300 10\"", "save", "900 1 300 10");
        check("save 900 1\nsave \"\"", "save", "");
        check("save \"\"\nsave 900 1", "save", "900 1");
        check("save", "save", "");
    }

    #[test]
    fn errors_name_the_line() {
        let bad = "Bad directive or wrong number of arguments";
        check_error("\nnonsense 1", 2, "nonsense 1", bad);
        check_error("user", 1, "user", bad);
        check_error(
            "  port \"1",
            1,
            "port \"1",
            "Unbalanced quotes in configuration line",
        );
        check_error("port 1 2", 1, "port 1 2", "wrong number of arguments");
        check_error("port", 1, "port", "wrong number of arguments");
        check_error(
            "port x",
            1,
            "port x",
            "argument couldn't be parsed into an integer",
        );
        check_error("save 900", 1, "save 900", "Invalid save parameters");
        check_error("a.b", 1, "a.b", "Module config specified without value");
        check_error(
            "replicaof a 70000",
            1,
            "replicaof a 70000",
            "Invalid master port",
        );
        let reason = "sentinel directive while not in sentinel mode";
        check_error("sentinel myid 1", 1, "sentinel myid 1", reason);
        let whole = read("cluster-enabled yes\nreplicaof a 1")
            .err()
            .unwrap()
            .to_string();
        assert!(
            whole.ends_with("***\nreplicaof directive not allowed in cluster mode\n"),
            "{whole}"
        );
    }

    #[test]
    fn directives_are_kept() {
        let settings =
            read("rename-command GET \"\"\nuser a on >p\na.b 1 2\nloadmodule /x.so y").unwrap();
        let kept = &settings.directives;
        assert_eq!(kept.rename_commands, [(b"GET".to_vec(), Vec::new())]);
        assert_eq!(kept.users.len(), 1);
        assert_eq!(kept.module_configs, [(b"a.b".to_vec(), b"1 2".to_vec())]);
        assert_eq!(
            kept.refusal().unwrap()[1],
            "Can't load module from /x.so: server aborting"
        );
    }

    #[test]
    fn includes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("{}/{name}", dir.path().display());
        std::fs::write(path("a.conf"), "port 7\nsave 1 1").unwrap();
        std::fs::write(path("loop.conf"), format!("include {}", path("loop.conf"))).unwrap();
        check(
            &format!("port 1\ninclude {}\n", path("*.c?nf").replace('*', "a")),
            "port",
            "7",
        );
        check(&format!("include {}\n", path("none*")), "port", "6379");
        let error = read(&format!("include {}", path("none")))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with("Fatal error, can't open config file '"),
            "{error}"
        );
        assert!(error.ends_with("': No such file or directory"), "{error}");
        let error = read(&format!("include {}", path("loop.conf")))
            .err()
            .unwrap()
            .to_string();
        assert!(error.ends_with("Too many nested includes\n"), "{error}");
        let settings = read(&format!("save 2 2\ninclude {}\nsave 3 3", path("a.conf"))).unwrap();
        assert_eq!(settings.save, [SavePoint::new(3, 3)]);
    }

    #[test]
    fn a_command_line_comes_last() {
        let args = ["redis-server", "-", "--port", "3"].map(Into::into);
        let line = crate::config::command_line::options_to_text(&args);
        let mut settings = Settings::default();
        let mut stdin: &[u8] = b"port 1\nhz 20";
        load(&mut settings, &line, &mut stdin, &mut Unchecked).unwrap();
        assert_eq!((settings.port, settings.hz), (3, 20));
    }
}
