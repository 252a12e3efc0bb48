//! COMMAND GETKEYS and GETKEYSANDFLAGS tell what a real Redis tells, of requests that are malformed
//! as well. Skipped where no Redis 7.0 is installed.

mod sockets;

use std::ffi::OsStr;
use std::process::Command;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sockets::{Client, Server};
use tessera::commands;
use tessera::dispatch::table::Table;

fn is_redis_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").output();
    version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("v=7.0."))
}

/// Commands whose keys are counted by an argument, with what stands before that argument.
const COUNTED: &[&str] = &[
    "ZUNIONSTORE d",
    "ZINTERSTORE d",
    "ZDIFFSTORE d",
    "ZUNION",
    "ZINTER",
    "ZDIFF",
    "ZINTERCARD",
    "SINTERCARD",
    "LMPOP",
    "ZMPOP",
    "BLMPOP 0",
    "BZMPOP 0",
];

/// Counts, good and bad, and keys behind them.
const COUNTS: &[&str] = &[
    "1",
    "2",
    "3",
    "0",
    "-1",
    "abc",
    "2x",
    "99999999999",
    "4294967297",
];

/// Requests of other shapes.
const REQUESTS: &[&str] = &[
    "GET k",
    "MGET a b c",
    "MSET a 1 b 2",
    "MSET a 1 b",
    "SET k v GET",
    "BITOP AND d a b",
    "OBJECT ENCODING k",
    "SORT l STORE d",
    "SORT l BY p GET q STORE d STORE e",
    "SORT l STORE",
    "SORT_RO l BY p",
    "GEORADIUS g 1 1 1 km",
    "GEORADIUS g 1 1 1 km STORE d",
    "GEORADIUS g 1 1 1 km STORE x STOREDIST y",
    "GEORADIUSBYMEMBER g m 1 km STOREDIST y",
    "GEOSEARCHSTORE d g FROMMEMBER m BYRADIUS 1 km",
    "MIGRATE h 1 k 0 10",
    "MIGRATE h 1 k 0 10 COPY KEYS a b",
    "MIGRATE h 1 \"\" 0 10 KEYS a b",
    "MIGRATE h 1 \"\" 0 10 REPLACE KEYS a",
    "MIGRATE h 1 \"\" 0 10 AUTH keys KEYS a",
    "MIGRATE h 1 \"\" 0 10 KEYS",
    "MIGRATE h 1 \"\" 0 10",
    "XREAD COUNT 1 STREAMS a b 0 0",
    "XREAD STREAMS a b 0",
    "XREAD STREAMS",
    "XREADGROUP GROUP g c STREAMS a b > >",
    "XREADGROUP GROUP streams c STREAMS a >",
    "XREADGROUP NOACK GROUP g STREAMS STREAMS a >",
    "XREADGROUP NOACK GROUP STREAMS STREAMS STREAMS a b > >",
    "XREADGROUP STREAMS a b c d",
    "XREAD BLOCK STREAMS STREAMS a 0",
    "XGROUP CREATE k g $",
    "XINFO STREAM k",
    "MEMORY USAGE k",
    "RENAME a b",
    "COPY a b",
    "LMOVE a b LEFT RIGHT",
    "PFCOUNT a b",
    "PFMERGE d a b",
    "SPUBLISH c m",
    "BLPOP a b 0",
    "BLPOP a",
    "PING",
    "CONFIG GET x",
    "NOSUCH a",
    "GET",
    "SET k",
];

/// Our server and a Redis 7.0, if there is one.
fn start_both() -> Option<[Server; 2]> {
    if !is_redis_installed() {
        println!("no Redis 7.0: not run");
        return None;
    }
    let theirs = Server::try_start(OsStr::new("redis-server"), &[], &[]).expect("it starts");
    Some([Server::start(&[]), theirs])
}

#[test]
fn keys_are_told_as_by_redis() {
    let Some([ours, theirs]) = start_both() else {
        return;
    };
    let (mut one, mut other) = (ours.client(), theirs.client());
    let counted = COUNTED.iter().flat_map(|before| {
        let lines = COUNTS
            .iter()
            .map(move |count| format!("{before} {count} a b"));
        lines.chain([format!("{before} 1"), (*before).to_owned()])
    });
    let requests = REQUESTS.iter().map(|line| (*line).to_owned());
    let mut wrong = Vec::new();
    for line in counted.chain(requests) {
        compare(&mut one, &mut other, &line, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What both tell of a request; another line of `wrong` where that differs.
fn compare(one: &mut Client, other: &mut Client, line: &str, wrong: &mut Vec<String>) {
    for ask in ["GETKEYS", "GETKEYSANDFLAGS"] {
        let line = format!("COMMAND {ask} {line}");
        let (ours, theirs) = (one.ask(&line), other.ask(&line));
        if ours != theirs {
            wrong.push(format!("{line}\n  Redis: {theirs}\n  ours:  {ours}"));
        }
    }
}

/// Words that mean something to the key specifications of some command, and some that do not.
const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "STREAMS",
    "STORE",
    "STOREDIST",
    "KEYS",
    "GET",
    "SET",
    "INCRBY",
    "BY",
    "AUTH",
    "AUTH2",
    "GROUP",
    "COUNT",
];

/// Commands with options of later versions, which take more arguments than Redis 7.0 allows.
const LATER_OPTIONS: &[&str] = &["zrank", "zrevrank"];

/// Requests of each length that a command takes, up to some more than it needs at least.
const MORE: usize = 4;
const OF_EACH_LENGTH: usize = 12;

#[test]
fn keys_of_every_command_are_told_as_by_redis() {
    let Some([ours, theirs]) = start_both() else {
        return;
    };
    let (mut one, mut other) = (ours.client(), theirs.client());
    let mut random = SmallRng::seed_from_u64(1);
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for known in Table::new(commands::all()).all() {
        // Commands of later versions are none to the other.
        let info = other.ask(&format!("COMMAND INFO {}", known.full_name));
        if ["*-1", "$-1"].contains(&info.as_str()) || LATER_OPTIONS.contains(&&*known.full_name) {
            continue;
        }
        compared += 1;
        let name = known.full_name.replace('|', " ");
        let named = name.split(' ').count();
        let fewest = (known.row.arity.unsigned_abs() as usize).saturating_sub(named);
        for len in fewest.saturating_sub(1)..=fewest + MORE {
            for _ in 0..OF_EACH_LENGTH {
                let words = (0..len).map(|_| WORDS[random.random_range(0..WORDS.len())]);
                let words: Vec<&str> = words.collect();
                let line = format!("{name} {}", words.join(" "));
                compare(&mut one, &mut other, line.trim_end(), &mut wrong);
            }
        }
    }
    assert!(compared > 200, "{compared} commands");
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
