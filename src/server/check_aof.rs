//! `redis-check-aof`: tells how far append-only files are sound, and cuts off what is not.
//!
//! It takes a manifest, whose files are checked in order, or a single file of an old server, of
//! commands or a dump that commands follow. Only the last file may be cut: what later files hold
//! builds on all of the earlier ones. Commands are read, not run. Without an option that asks for
//! it nothing is changed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};

use super::check_rdb::{self, Bar, is_called, say};
use crate::config::strerror;
use crate::persistence::aof::manifest::{Invalid, Manifest};
use crate::persistence::aof::reader::{Failure, Item, Reader};

/// The check ends here; why was printed.
struct Stop;

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Sound,
    Empty,
    Cut,
    CutToTime,
}

/// What is to be done beside reading.
#[derive(Clone, Copy, Default)]
struct Task {
    /// Cut off what is not sound, once that is confirmed.
    fix: bool,
    /// Cut off what was appended after this time, in Unix seconds; 0: nothing.
    until: i64,
}

/// Runs the check if the program was called for it.
pub(super) fn run_as(args: &[OsString]) -> Option<ExitCode> {
    if !is_called(args, "redis-check-aof") {
        return None;
    }
    Some(match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop) => ExitCode::FAILURE,
    })
}

/// What the command line may say.
fn command() -> Command {
    Command::new("redis-check-aof")
        .arg(Arg::new("fix").long("fix").action(ArgAction::SetTrue))
        .arg(
            Arg::new("time")
                .long("truncate-to-timestamp")
                .conflicts_with("fix"),
        )
        .arg(
            Arg::new("file")
                .required(true)
                .value_parser(value_parser!(OsString)),
        )
        .disable_help_flag(true)
}

/// Reads the command line: the file, and what is to be done with it.
fn read(args: &[OsString]) -> Result<(OsString, Task), Stop> {
    let matches = command().try_get_matches_from(args).map_err(|_| {
        let program = args.first().map(|p| p.to_string_lossy());
        say!(
            "Usage: {} [--fix|--truncate-to-timestamp $timestamp] <file.manifest|file.aof>",
            program.unwrap_or_default()
        );
        Stop
    })?;
    let until = match matches.get_one::<String>("time").map(|time| time.parse()) {
        None => 0,
        Some(Ok(time)) => time,
        Some(Err(_)) => {
            say!("Invalid timestamp, aborting...");
            return Err(Stop);
        }
    };
    let task = Task {
        fix: matches.get_flag("fix"),
        until,
    };
    let file = matches.get_one::<OsString>("file");
    Ok((file.expect("it is required").clone(), task))
}

fn run(args: &[OsString]) -> Result<(), Stop> {
    let (file, task) = read(args)?;
    let path = Path::new(&file);
    if is_manifest(path)? {
        return multi_part(path, task);
    }
    let preamble = is_dump(path)?;
    say!("Start checking Old-Style AOF");
    let name = path.display().to_string();
    match single(&name, path, true, preamble, task)? {
        Outcome::Sound => say!("AOF {name} is valid"),
        Outcome::Empty => say!("AOF {name} is empty"),
        Outcome::CutToTime => {
            say!(
                "Successfully truncated AOF {name} to timestamp {}",
                task.until
            );
        }
        Outcome::Cut => say!("Successfully truncated AOF {name}"),
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Stop> {
    File::open(path).map_err(|error| {
        say!("Cannot open file {}: {}", path.display(), strerror(&error));
        Stop
    })
}

/// A manifest has a line that begins with `file`.
fn is_manifest(path: &Path) -> Result<bool, Stop> {
    use std::io::BufRead;
    let mut file = BufReader::new(open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        // Lines of manifests are short; of what is none, pieces do as well.
        match (&mut file).take(1024).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(false),
            Ok(_) if line.starts_with(b"file") => return Ok(true),
            Ok(_) => {}
            Err(_) => {
                say!("Cannot read file: {}", path.display());
                return Err(Stop);
            }
        }
    }
}

fn is_dump(path: &Path) -> Result<bool, Stop> {
    let mut start = [0; 8];
    let whole = open(path)?.read_exact(&mut start).is_ok();
    Ok(whole && start.starts_with(b"REDIS"))
}

fn multi_part(path: &Path, task: Task) -> Result<(), Stop> {
    say!("Start checking Multi Part AOF");
    let bytes = std::fs::read(path).map_err(Invalid::from);
    let manifest = bytes
        .and_then(|bytes| Manifest::parse(&bytes))
        .map_err(|error| explain(path, &error))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let total = usize::from(manifest.base.is_some()) + manifest.incr.len();
    let mut number = 0;
    let mut part = |kind: &str, name: &str, preamble: bool| {
        number += 1;
        let path = directory.join(name);
        let outcome = single(name, &path, number == total, preamble, task)?;
        match outcome {
            Outcome::Sound => say!("{kind} AOF {name} is valid"),
            Outcome::Empty => say!("{kind} AOF {name} is empty"),
            Outcome::CutToTime => {
                say!(
                    "Successfully truncated AOF {name} to timestamp {}",
                    task.until
                );
            }
            Outcome::Cut => say!("Successfully truncated AOF {name}"),
        }
        Ok(())
    };
    if let Some(base) = &manifest.base {
        let dump = is_dump(&directory.join(&base.name))?;
        let format = if dump { "RDB" } else { "RESP" };
        say!("Start to check BASE AOF ({format} format).");
        part("BASE", &base.name, dump)?;
    }
    if !manifest.incr.is_empty() {
        say!("Start to check INCR files.");
    }
    for incr in &manifest.incr {
        part("INCR", &incr.name, false)?;
    }
    say!("All AOF files and manifest are valid");
    Ok(())
}

fn explain(path: &Path, error: &Invalid) -> Stop {
    say!("\n*** FATAL AOF MANIFEST FILE ERROR ***\n");
    match error {
        Invalid::Io(error) => {
            say!(
                "Fatal error: can't open the AOF manifest file {} for reading: {}",
                path.display(),
                strerror(error)
            );
        }
        Invalid::Content { reason, line } => {
            if let Some((number, text)) = line {
                say!("Reading the manifest file, at line {number}\n");
                say!(">>> '{text}'\n");
            }
            say!("{reason}\n");
        }
    }
    Stop
}

/// Checks one file. `is_last`: it may be cut.
fn single(
    name: &str,
    path: &Path,
    is_last: bool,
    preamble: bool,
    task: Task,
) -> Result<Outcome, Stop> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let file = opened.map_err(|error| {
        let error = strerror(&error);
        say!("Cannot open file {}: {error}, aborting...", path.display());
        Stop
    })?;
    let Ok(size) = file.metadata().map(|m| m.len()) else {
        say!("Cannot stat file: {name}, aborting...");
        return Err(Stop);
    };
    if size == 0 {
        return Ok(Outcome::Empty);
    }
    let mut start = 0;
    if preamble {
        start = check_rdb::check(name, &file).ok_or_else(|| {
            say!("RDB preamble of AOF file is not sane, aborting.");
            Stop
        })?;
        say!("RDB preamble is OK, proceeding with AOF tail...");
    }
    let mut scan = Scan::new(name, path, &file, start, size)?;
    if let Some(offset) = scan.run(task.until)? {
        return cut_to_time(path, &file, offset, is_last, task.until);
    }
    let (sound, line) = (scan.sound, scan.reader.lines() + 1);
    let diff = size.saturating_sub(sound);
    if diff == 0 && task.until != 0 {
        say!("Truncate nothing in AOF {name} to timestamp {}", task.until);
        return Ok(Outcome::Sound);
    }
    say!(
        "AOF analyzed: filename={name}, size={size}, ok_up_to={sound}, ok_up_to_line={line}, diff={diff}"
    );
    match diff {
        0 => Ok(Outcome::Sound),
        _ if task.fix => fix(name, &file, size, sound, is_last),
        _ => {
            say!("AOF {name} is not valid. Use the --fix option to try fixing it.");
            Err(Stop)
        }
    }
}

fn fix(name: &str, file: &File, size: u64, sound: u64, is_last: bool) -> Result<Outcome, Stop> {
    if !is_last {
        say!("Failed to truncate AOF {name} because it is not the last file");
        return Err(Stop);
    }
    let diff = size - sound;
    say!("This will shrink the AOF {name} from {size} bytes, with {diff} bytes, to {sound} bytes");
    let _ = write!(io::stdout(), "Continue? [y/N]: ");
    let _ = io::stdout().flush();
    let mut answer = [0];
    let read = io::stdin().read(&mut answer);
    if !read.is_ok_and(|n| n == 1) || !answer[0].eq_ignore_ascii_case(&b'y') {
        say!("Aborting...");
        return Err(Stop);
    }
    cut(file, sound).map_err(|_| {
        say!("Failed to truncate AOF {name}");
        Stop
    })?;
    Ok(Outcome::Cut)
}

fn cut(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    file.sync_all()
}

fn cut_to_time(
    path: &Path,
    file: &File,
    offset: u64,
    is_last: bool,
    until: i64,
) -> Result<Outcome, Stop> {
    let name = path.display();
    if offset == 0 {
        say!("AOF {name} has nothing before timestamp {until}, aborting...");
        return Err(Stop);
    }
    if !is_last {
        say!(
            "Failed to truncate AOF {name} to timestamp {until} to offset {offset} because it is not the last file."
        );
        say!(
            "If you insist, please delete all files after this file according to the manifest \
             file and delete the corresponding records in manifest file manually. Then re-run redis-check-aof."
        );
        return Err(Stop);
    }
    cut(file, offset).map_err(|_| {
        say!("Failed to truncate AOF {name} to timestamp {until}");
        Stop
    })?;
    Ok(Outcome::CutToTime)
}

/// A pass over the commands of a file.
struct Scan<'a> {
    name: &'a str,
    path: &'a Path,
    reader: Reader<BufReader<&'a File>>,
    bar: Bar,
    /// Where the last command or transaction ends that is whole.
    sound: u64,
    in_transaction: bool,
}

impl<'a> Scan<'a> {
    fn new(
        name: &'a str,
        path: &'a Path,
        file: &'a File,
        start: u64,
        size: u64,
    ) -> Result<Self, Stop> {
        let mut input = file;
        input.seek(SeekFrom::Start(start)).map_err(|error| {
            say!("Failed to fseek in AOF {name}: {}", strerror(&error));
            Stop
        })?;
        Ok(Self {
            name,
            path,
            reader: Reader::new(BufReader::with_capacity(1 << 20, file), start),
            bar: Bar::new(size),
            sound: start,
            in_transaction: false,
        })
    }

    /// Reads on until the end or a fault, which is printed. Where the first part begins that is
    /// later than `until`, if there is one.
    fn run(&mut self, until: i64) -> Result<Option<u64>, Stop> {
        let result = self.parts(until);
        self.bar.clear();
        match result {
            Ok(found) => Ok(found),
            Err(Failure::Io(_)) => {
                say!("Failed to read from AOF {}, aborting...", self.name);
                Err(Stop)
            }
            Err(Failure::Format(text)) => {
                self.fault(&text);
                Ok(None)
            }
            Err(Failure::Truncated(Some((wanted, got)))) => {
                self.fault(&format!("Expected to read {wanted} bytes, got {got} bytes"));
                Ok(None)
            }
            Err(Failure::Truncated(None)) => {
                if self.in_transaction {
                    self.fault("Reached EOF before reading EXEC for MULTI");
                }
                Ok(None)
            }
        }
    }

    fn fault(&self, text: &str) {
        say!("0x{:16x}: {text}", self.reader.fault());
    }

    fn parts(&mut self, until: i64) -> Result<Option<u64>, Failure> {
        loop {
            let start = self.reader.offset();
            if !self.in_transaction {
                self.sound = start;
            }
            self.bar.show(start);
            if !matches!(self.reader.peek()?, None | Some(b'#' | b'*')) {
                say!("AOF {} format error", self.name);
                return Ok(None);
            }
            match self.reader.next_item()? {
                None if self.in_transaction => return Err(Failure::Truncated(None)),
                None => return Ok(None),
                Some(Item::Annotation(line)) if until != 0 => {
                    if time_of(&line)?.is_some_and(|time| time > until) {
                        // A transaction is kept as a whole or not at all.
                        return Ok(Some(self.sound));
                    }
                }
                Some(Item::Annotation(_)) => {}
                Some(Item::Command(args)) => self.command(&args[0])?,
            }
        }
    }

    fn command(&mut self, name: &[u8]) -> Result<(), Failure> {
        let path = self.path.display();
        if name.eq_ignore_ascii_case(b"multi") {
            if self.in_transaction {
                return Err(Failure::Format(format!("Unexpected MULTI in AOF {path}")));
            }
            self.in_transaction = true;
        } else if name.eq_ignore_ascii_case(b"exec") {
            if !self.in_transaction {
                return Err(Failure::Format(format!("Unexpected EXEC in AOF {path}")));
            }
            self.in_transaction = false;
        }
        Ok(())
    }
}

/// The time of an annotation, in Unix seconds; `None` when it is another.
fn time_of(line: &[u8]) -> Result<Option<i64>, Failure> {
    let Some(digits) = line.strip_prefix(b"#TS:") else {
        return Ok(None);
    };
    let time = crate::base::number::parse_i64(digits);
    time.map(Some)
        .ok_or_else(|| Failure::Format("Invalid timestamp annotation".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"#TS:10\r\n*1\r\n$4\r\nPING\r\n#TS:20\r\n*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nEXEC\r\n";

    fn checked(bytes: &[u8], is_last: bool, until: i64) -> (Option<Outcome>, Vec<u8>) {
        let folder = tempfile::tempdir().expect("room for a folder");
        let path = folder.path().join("a.aof");
        std::fs::write(&path, bytes).expect("room for a file");
        let task = Task { fix: false, until };
        let outcome = single("a.aof", &path, is_last, false, task);
        (outcome.ok(), std::fs::read(&path).expect("it is there"))
    }

    #[test]
    fn only_whole_commands_and_transactions_are_sound() {
        let ends = [0, 8, 22, 30, TEXT.len()];
        for end in 1..=TEXT.len() {
            let sound = ends.contains(&end).then_some(Outcome::Sound);
            assert_eq!(checked(&TEXT[..end], true, 0).0, sound, "{end}");
        }
        assert_eq!(checked(b"", true, 0).0, Some(Outcome::Empty));
        assert_eq!(checked(b"*1\r\n$4\r\nEXEC\r\n", true, 0).0, None);
    }

    #[test]
    fn what_is_later_is_cut_off_the_last_file() {
        let (outcome, rest) = checked(TEXT, true, 15);
        assert_eq!(
            (outcome, &rest[..]),
            (Some(Outcome::CutToTime), &TEXT[..22])
        );
        assert_eq!(checked(TEXT, true, 20).0, Some(Outcome::Sound));
        for (is_last, until) in [(false, 15), (true, 5)] {
            let (outcome, rest) = checked(TEXT, is_last, until);
            assert_eq!((outcome, &rest[..]), (None, TEXT));
        }
    }
}
