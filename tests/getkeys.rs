//! COMMAND GETKEYS and GETKEYSANDFLAGS tell what a real Redis tells, of requests that are malformed
//! as well. Skipped where no Redis 7.0 is installed.

mod sockets;

use std::ffi::OsStr;
use std::process::Command;

use sockets::Server;

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

#[test]
fn keys_are_told_as_by_redis() {
    if !is_redis_installed() {
        println!("no Redis 7.0: not run");
        return;
    }
    let ours = Server::start(&[]);
    let theirs = Server::try_start(OsStr::new("redis-server"), &[], &[]).expect("it starts");
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
        for ask in ["GETKEYS", "GETKEYSANDFLAGS"] {
            let line = format!("COMMAND {ask} {line}");
            let (ours, theirs) = (one.ask(&line), other.ask(&line));
            if ours != theirs {
                wrong.push(format!("{line}\n  Redis: {theirs}\n  ours:  {ours}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
