//! What a server propagates, read from its append-only file.
//!
//! A sequence lies between two marks: a key of the harness that is written before it and after it.
//! What the two servers propagated for the same requests must be the same commands, but for times
//! that each took from its own clock.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::resp::{Args, Conn, quoted};

/// The key of the marks.
const MARK: &str = "differential:mark";
/// How long a command may take to the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// How far apart the clocks of the two servers may be when they run the same request.
const NEAR_MS: u64 = 10_000;
/// From here on a number is a time in milliseconds.
const TIMES: i64 = 1_000_000_000_000;

/// A propagated command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Propagated {
    db: usize,
    args: Args,
}

/// The file of one server, and how far it was read.
#[derive(Debug, Default)]
pub struct Log {
    path: PathBuf,
    at: usize,
    marks: u64,
}

impl Log {
    /// The file of a server that just started in `dir`.
    pub fn of(dir: &Path) -> Log {
        Log {
            path: dir.join("appendonlydir/appendonly.aof.1.incr.aof"),
            ..Log::default()
        }
    }

    /// What was propagated since the last time this was asked.
    pub fn read(&mut self, admin: &mut Conn) -> Result<Vec<Propagated>, String> {
        self.marks += 1;
        let mark = format!("{MARK}:{}", self.marks);
        let lost = |_| "the mark cannot be written".to_string();
        admin.ask(&["SELECT", "0"]).map_err(lost)?;
        admin.ask(&["SET", &mark, "1"]).map_err(lost)?;
        admin.ask(&["DEL", &mark]).map_err(lost)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let bytes = std::fs::read(&self.path).map_err(|e| e.to_string())?;
            let news = &bytes[self.at.min(bytes.len())..];
            let end = [b"DEL".to_vec(), mark.clone().into_bytes()];
            if let Some((mut all, len)) = commands(news)
                && all.last().is_some_and(|last| last.args == end)
            {
                self.at += len;
                all.truncate(all.len() - 2);
                return Ok(all);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("what was propagated does not come to the file".into())
    }
}

/// The commands of a log, each with its database, and where the last one ends; nothing if it ends
/// within one.
fn commands(bytes: &[u8]) -> Option<(Vec<Propagated>, usize)> {
    let (mut all, mut at, mut db) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let (line, next) = line(bytes, at)?;
        at = next;
        let Some(count) = line.strip_prefix(b"*") else {
            continue; // An annotation.
        };
        let mut args = Vec::new();
        for _ in 0..number(count)? {
            let (head, from) = self::line(bytes, at)?;
            let to = from + number(head.strip_prefix(b"$")?)?;
            args.push(bytes.get(from..to)?.to_vec());
            at = to + 2;
        }
        bytes.get(at - 1)?;
        if args[0].eq_ignore_ascii_case(b"select") {
            db = number(&args[1])?;
        } else {
            all.push(Propagated { db, args });
        }
    }
    Some((all, at))
}

fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let len = bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
    Some((&bytes[at..at + len], at + len + 2))
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Sorts deletions that follow one another: what a walk over the table finds expired goes in the
/// order of the table, and deletions commute. Where a request comes upon some keys by chance,
/// what expired goes at any time: then the deletions of single keys are left out.
fn ordered(all: &[Propagated], by_chance: bool) -> Vec<Propagated> {
    let deletes = |p: &Propagated| p.args[0] == b"DEL" || p.args[0] == b"UNLINK";
    let mut all = all.to_vec();
    all.retain(|p| !(by_chance && deletes(p) && p.args.len() == 2));
    for run in all.chunk_by_mut(|a, b| deletes(a) && deletes(b)) {
        if deletes(&run[0]) {
            run.sort();
        }
    }
    all
}

/// What was propagated as 7.0 would tell it: XREADGROUP tells the group's position only where nothing is
/// to be acknowledged. As from 7.2 on ours tells it behind the claims as well, because copies learn only
/// from it how many entries were read; and two commands need MULTI around them where one does not.
fn as_in_7_0(all: Vec<Propagated>) -> Vec<Propagated> {
    let is = |p: &Propagated, name: &[u8]| p.args[0] == name;
    let mut kept: Vec<Propagated> = Vec::with_capacity(all.len());
    for one in all {
        let told = kept.last().is_some_and(|last| {
            let position = [&b"XGROUP"[..], b"SETID"];
            is(last, b"XCLAIM")
                && one.args.len() == 7
                && one.args[..2] == position
                && last.db == one.db
                && last.args[1..3] == one.args[2..4]
                && last.args.last() == Some(&one.args[4])
        });
        if told {
            continue;
        }
        let single = match &kept[..] {
            [.., multi, claim] => is(&one, b"EXEC") && is(multi, b"MULTI") && is(claim, b"XCLAIM"),
            _ => false,
        };
        if single {
            kept.remove(kept.len() - 2);
        } else {
            kept.push(one);
        }
    }
    kept
}

/// Says the first difference of what was propagated for a sequence, in which there may be requests
/// that come upon some keys `by_chance`.
pub fn difference(oracle: &[Propagated], ours: &[Propagated], by_chance: bool) -> Option<String> {
    let read = |all| as_in_7_0(ordered(all, by_chance));
    let (oracle, ours) = (read(oracle), read(ours));
    let same = |(a, b): (&Propagated, &Propagated)| {
        a.db == b.db
            && a.args.len() == b.args.len()
            && a.args.iter().zip(&b.args).all(|(a, b)| near(a, b))
    };
    let at = oracle
        .iter()
        .zip(&ours)
        .take_while(|pair| same(*pair))
        .count();
    if at == oracle.len() && at == ours.len() {
        return None;
    }
    let shown = |all: &[Propagated]| match all.get(at) {
        Some(p) => {
            let args: Vec<String> = p.args.iter().map(|a| quoted(a)).collect();
            format!("db {}: {}", p.db, args.join(" "))
        }
        None => "nothing more".into(),
    };
    Some(format!(
        "propagated, command {at}:\n  oracle: {}\n  ours:   {}",
        shown(&oracle),
        shown(&ours)
    ))
}

/// Equal, or both a time or the ID of an entry of a stream and little apart.
fn near(a: &[u8], b: &[u8]) -> bool {
    let time = |text: &[u8]| {
        let text = std::str::from_utf8(text).ok()?;
        let ms = text.split_once('-').map_or(text, |(ms, _)| ms);
        ms.parse::<i64>().ok().filter(|ms| *ms >= TIMES)
    };
    a == b || matches!((time(a), time(b)), (Some(a), Some(b)) if a.abs_diff(b) <= NEAR_MS)
}
