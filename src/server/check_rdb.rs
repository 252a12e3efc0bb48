//! `redis-check-rdb`: reads a dump file as the server would and tells whether it can.
//!
//! Every value is built and dropped again, so what passes here loads. Nothing is changed. The
//! same check serves files of commands that begin with a dump ([`super::check_aof`]).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::base::clock::unix_ms;
use crate::config::{REDIS_VERSION, Settings, strerror};
use crate::persistence::layouts;
use crate::persistence::rdb::code;
use crate::persistence::rdb::decode::{self, Layouts};
use crate::persistence::rdb::file::{Failure, FileReader, Item, Record, Stage, Sum};
use crate::persistence::rdb::read::Corrupt;

/// Files smaller than this, in bytes, are read before a bar could be seen.
const WORTH_A_BAR: u64 = 64 << 20;
/// Width of the bar, in characters.
const BAR: u64 = 40;

/// Prints a line. Where nobody listens any more, nothing is lost.
pub(super) fn print_line(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line, as `println!` would if that could not panic.
macro_rules! say {
    ($($arg:tt)*) => { $crate::server::check_rdb::print_line(format_args!($($arg)*)) };
}
pub(super) use say;

/// True when the program was called by this name, or by one that contains it.
pub(super) fn is_called(args: &[OsString], name: &str) -> bool {
    let program = args.first().map(std::path::Path::new);
    let program = program
        .and_then(|path| path.file_name())
        .map(OsStr::to_string_lossy);
    program.is_some_and(|program| program.contains(name))
}

/// Runs the check if the program was called for it.
pub(super) fn run_as(args: &[OsString]) -> Option<ExitCode> {
    if !is_called(args, "redis-check-rdb") {
        return None;
    }
    let command = Command::new("redis-check-rdb")
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::SetTrue),
        )
        .arg(
            Arg::new("file")
                .required_unless_present("version")
                .value_parser(value_parser!(OsString)),
        )
        .disable_help_flag(true);
    let Ok(matches) = command.try_get_matches_from(args) else {
        let program = args.first().map(|p| p.to_string_lossy());
        eprintln!("Usage: {} <rdb-file-name>", program.unwrap_or_default());
        return Some(ExitCode::FAILURE);
    };
    let Some(file) = matches.get_one::<OsString>("file") else {
        say!("redis-check-rdb {REDIS_VERSION}");
        return Some(ExitCode::SUCCESS);
    };
    let input = match File::open(file) {
        Ok(input) => input,
        Err(error) => {
            say!("[offset 0] Checking RDB file {}", file.display());
            eprintln!("Cannot open file {}: {}", file.display(), strerror(&error));
            return Some(ExitCode::FAILURE);
        }
    };
    Some(match check(&file.to_string_lossy(), &input) {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

/// Checks a file that holds a dump, or begins with one; prints what it finds. Where the dump ends,
/// or `None` when it is not sound.
pub(super) fn check(name: &str, input: &File) -> Option<u64> {
    say!("[offset 0] Checking RDB file {name}");
    let total = input.metadata().map_or(0, |m| m.len());
    let mut check = Check {
        layouts: layouts::all(&Settings::default()),
        bar: Bar::new(total),
        counts: Counts::default(),
        now_ms: unix_ms(),
    };
    let end = check.file(input);
    check.bar.clear();
    if let Some(end) = end {
        say!("[offset {end}] \\o/ RDB looks OK! \\o/");
        check.counts.tell();
    }
    end
}

/// What was met so far.
#[derive(Default)]
struct Counts {
    keys: u64,
    expires: u64,
    expired: u64,
}

impl Counts {
    fn tell(&self) {
        say!("[info] {} keys read", self.keys);
        say!("[info] {} expires", self.expires);
        say!("[info] {} already expired", self.expired);
    }
}

struct Check {
    layouts: Layouts,
    bar: Bar,
    counts: Counts,
    now_ms: i64,
}

impl Check {
    fn file(&mut self, input: &File) -> Option<u64> {
        let mut reader = match FileReader::new(input, true) {
            Ok(reader) => reader,
            Err(failure) => {
                self.tell(0, &failure.to_string(), Stage::Start, None);
                return None;
            }
        };
        loop {
            let item = match reader.next_item() {
                Ok(item) => item,
                Err(failure) => {
                    self.failed(&reader, &failure);
                    return None;
                }
            };
            let at = reader.offset();
            self.bar.show(at);
            match item {
                Item::Record(meta) => {
                    self.counts.keys += 1;
                    self.record(&reader)?;
                    self.counts.expires += u64::from(meta.expiry.is_some());
                    let expired = meta.expiry.is_some_and(|at| at < self.now_ms);
                    self.counts.expired += u64::from(expired);
                }
                Item::Select(db) => say!("[offset {at}] Selecting DB ID {db}"),
                Item::Aux(name, value) => say!(
                    "[offset {at}] AUX FIELD {} = '{}'",
                    String::from_utf8_lossy(&name),
                    String::from_utf8_lossy(&value)
                ),
                Item::Function(_) => {}
                Item::ModuleAux(name) => say!("[offset {at}] MODULE AUX for: {name}"),
                Item::End => {
                    match reader.sum() {
                        Sum::Ignored => {}
                        Sum::Absent => say!(
                            "[offset {at}] RDB file was saved with checksum disabled: no check performed."
                        ),
                        Sum::Right => say!("[offset {at}] Checksum OK"),
                    }
                    return Some(at);
                }
            }
        }
    }

    /// Builds a value; `None` when that cannot be.
    fn record<R: Read>(&self, reader: &FileReader<R>) -> Option<()> {
        let build = |mut record: Record<'_>| match record.code {
            // Only its module could tell more than that it ends where it should.
            code::MODULE => Ok(()),
            code => decode::value(code, &mut record.value, &self.layouts).map(drop),
        };
        let built = Record::parse(reader.record()).and_then(build);
        match built {
            // What has no elements is left out when the file is loaded.
            Ok(_) | Err(Corrupt::Empty) => Some(()),
            Err(error) => {
                self.failed(reader, &Failure::Corrupt(error));
                None
            }
        }
    }

    fn failed<R: Read>(&self, reader: &FileReader<R>, failure: &Failure) {
        let text = match (failure, reader.stage()) {
            (Failure::Checksum(..), _) => "RDB CRC error".to_owned(),
            (Failure::Corrupt(Corrupt::Unsupported(_)), Stage::Key(code) | Stage::Value(code)) => {
                format!("Invalid object type: {code}")
            }
            (failure, _) => failure.to_string(),
        };
        let key = match reader.stage() {
            Stage::Value(_) => reader.failed_key(),
            _ => None,
        };
        self.tell(reader.offset(), &text, reader.stage(), key.as_deref());
    }

    fn tell(&self, offset: u64, text: &str, stage: Stage, key: Option<&[u8]>) {
        self.bar.clear();
        say!("--- RDB ERROR DETECTED ---");
        say!("[offset {offset}] {text}");
        say!("[additional info] While doing: {}", doing(stage));
        if let Some(key) = key {
            let key = String::from_utf8_lossy(key);
            say!("[additional info] Reading key '{key}'");
        }
        if let Stage::Key(code) | Stage::Value(code) = stage {
            let name = TYPES.get(usize::from(code)).unwrap_or(&"unknown");
            say!("[additional info] Reading type {code} ({name})");
        }
        self.counts.tell();
    }
}

/// Names of the type codes.
const TYPES: [&str; 19] = [
    "string",
    "list-linked",
    "set-hashtable",
    "zset-v1",
    "hash-hashtable",
    "zset-v2",
    "module-value",
    "",
    "",
    "hash-zipmap",
    "list-ziplist",
    "set-intset",
    "zset-ziplist",
    "hash-ziplist",
    "quicklist",
    "stream",
    "hash-listpack",
    "zset-listpack",
    "quicklist-v2",
];

fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Start => "start",
        Stage::Code => "read-type",
        Stage::Expiry => "read-expire",
        Stage::Length => "read-len",
        Stage::Aux => "read-aux",
        Stage::Module => "read-module-aux",
        Stage::Function => "read-functions",
        Stage::Key(_) => "read-key",
        Stage::Value(_) => "read-object-value",
        Stage::Sum => "check-sum",
    }
}

/// How far a big file is read, for who waits at a terminal; elsewhere nothing is shown.
pub(super) struct Bar {
    total: u64,
    shown: Option<u64>,
}

impl Bar {
    /// For a file of `total` bytes.
    pub(super) fn new(total: u64) -> Self {
        let wanted = total >= WORTH_A_BAR && io::stderr().is_terminal();
        Self {
            total,
            shown: wanted.then_some(u64::MAX),
        }
    }

    /// So many bytes were read.
    pub(super) fn show(&mut self, done: u64) {
        let Some(shown) = &mut self.shown else { return };
        let percent = done.saturating_mul(100) / self.total.max(1);
        if percent != *shown {
            *shown = percent;
            let full = (percent.min(100) * BAR / 100) as usize;
            let bar = format!("{}{}", "#".repeat(full), " ".repeat(BAR as usize - full));
            let _ = write!(io::stderr(), "\r[{bar}] {percent:3}%");
        }
    }

    /// Makes room for what is printed.
    pub(super) fn clear(&self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r{}\r", " ".repeat(BAR as usize + 7));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("room for a file");
        file.write_all(bytes).expect("room for bytes");
        file.seek(SeekFrom::Start(0)).expect("a file");
        file
    }

    #[test]
    fn what_loads_passes_and_what_does_not_is_told() {
        let sound = b"REDIS0010\xfe\x00\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0tail";
        assert_eq!(check("sound", &file(sound)), Some(sound.len() as u64 - 4));
        let mut other = sound.to_vec();
        other[24] = 1;
        assert_eq!(check("checksum", &file(&other)), None);
        for end in 0..sound.len() - 4 {
            assert_eq!(check("short", &file(&sound[..end])), None);
        }
        assert_eq!(check("type", &file(b"REDIS0010\x63\x01k\x01v\xff")), None);
    }

    #[test]
    fn the_name_of_the_program_decides() {
        let args = |name: &str| vec![OsString::from(name)];
        assert!(is_called(&args("src/redis-check-rdb"), "redis-check-rdb"));
        assert!(!is_called(
            &args("redis-check-rdb/redis-server"),
            "redis-check-rdb"
        ));
        assert!(!is_called(&[], "redis-check-rdb"));
    }
}
