//! Servers that others reach by a port, what is written to them, and how their data sets are compared.

#![allow(dead_code, reason = "no test needs all of it")]

use std::ffi::OsStr;
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::sockets::{self, Client, PATIENCE, under_test};

/// True where a Redis 7.0 can be started.
pub fn is_redis_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").output();
    version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("v=7.0."))
}

/// A port that was free a moment ago, of those that no connection is given by itself.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A server that others reach by its port.
pub struct Server {
    inner: sockets::Server,
    pub port: u16,
}

impl Deref for Server {
    type Target = sockets::Server;

    fn deref(&self) -> &sockets::Server {
        &self.inner
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut sockets::Server {
        &mut self.inner
    }
}

impl Server {
    /// Starts it, again on another port should somebody have taken the one that was free.
    pub fn start(program: &OsStr, options: &[&str]) -> Self {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let port = free_port();
            let text = port.to_string();
            let common = ["--port", &text, "--enable-debug-command", "yes"];
            let options = [&common, options].concat();
            if let Some(inner) = sockets::Server::try_start(program, &[], &options) {
                return Self { inner, port };
            }
        }
        panic!("no port was free for long enough");
    }

    /// The server under test.
    pub fn primary(options: &[&str]) -> Self {
        Self::start(&under_test(), options)
    }

    /// A real Redis that follows.
    pub fn replica_of(primary: &Self) -> Self {
        let place = ["127.0.0.1", &primary.port.to_string()].join(" ");
        Self::start("redis-server".as_ref(), &["--replicaof", &place])
    }
}

/// Requests of every type and of every way to be propagated, chosen by `n`.
pub fn request(n: u64) -> String {
    let (key, value) = (n * 7919 % 50, n % 23);
    match n % 40 {
        0 => format!("SELECT {}", n / 40 % 3),
        1 => format!("SET s{key} {value}"),
        2 => format!("SET s{key} {value} PX {}", 10 + value * 20),
        3 => format!("INCRBYFLOAT f{key} 0.1"),
        4 => format!("APPEND a{key} {n}"),
        5 => format!("GETEX s{key} EX 1000"),
        6 => format!("GETDEL s{key}"),
        7 => format!("RPUSH l{key} {n} {value} {n}"),
        8 => format!("LPOP l{key} 2"),
        9 => format!("LMOVE l{key} l{value} LEFT RIGHT"),
        10 => format!("LMPOP 2 l{key} l{value} LEFT COUNT 2"),
        11 => format!("SADD t{key} {n} {value} x{n}"),
        12 => format!("SPOP t{key}"),
        13 => format!("SPOP t{key} 2"),
        14 => format!("SINTERSTORE t{value} t{key} t{}", key + 1),
        15 => format!("HSET h{key} f{value} {n} g {value}"),
        16 => format!("HINCRBYFLOAT h{key} x 1.5"),
        17 => format!("HDEL h{key} f{value}"),
        18 => format!("ZADD z{key} {n} m{value} 1.5 m{key}"),
        19 => format!("ZINCRBY z{key} 0.3 m{value}"),
        20 => format!("ZPOPMIN z{key}"),
        21 => format!("ZUNIONSTORE z{value} 2 z{key} z{value}"),
        22 => format!("XADD x{key} MAXLEN ~ 50 * f {n}"),
        23 => format!("XGROUP CREATE x{key} g{value} 0 MKSTREAM"),
        24 => format!("XREADGROUP GROUP g{value} c{value} COUNT 3 STREAMS x{key} >"),
        25 => format!("XAUTOCLAIM x{key} g{value} d 0 0 COUNT 2"),
        26 => format!("XTRIM x{key} MAXLEN 20"),
        27 => format!("PFADD p{key} {n}"),
        28 => format!("PFMERGE p{value} p{key}"),
        29 => format!("SETBIT b{key} {n} 1"),
        30 => format!("BITFIELD b{key} SET u8 {value} {value}"),
        31 => format!("GEOADD geo{key} 13.361389 38.115556 m{n}"),
        32 => format!("EXPIRE h{key} 1000"),
        33 => format!("PEXPIRE z{key} {}", value * 10),
        34 => format!("RENAME t{key} t{value}"),
        35 => format!("COPY h{key} h{value} REPLACE"),
        36 => format!("SORT l{key} ALPHA STORE l{value}"),
        37 => format!("DEL a{key} l{value}"),
        38 => format!("SETRANGE a{key} {value} xyz"),
        _ => format!("MOVE s{key} {}", n % 3),
    }
}

/// Writes until told to stop; every tenth request or so within a transaction.
pub fn load(server: &Server, seed: u64, stop: &AtomicBool) {
    let mut client = server.client();
    let mut n = seed;
    while !stop.load(Relaxed) {
        if n.is_multiple_of(7) {
            client.ask("MULTI");
            for i in 0..5 {
                client.ask(&request(n + i * 3));
            }
            client.ask("EXEC");
        } else {
            client.ask(&request(n));
        }
        n += 3;
    }
}

/// Ends the load when its owner ends, even by a panic.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How many commands have been run.
pub fn written(client: &mut Client) -> u64 {
    info(client, "stats", "total_commands_processed")
}

/// What stands for the whole data set.
pub fn digest(server: &Server) -> String {
    server.client().ask("DEBUG DIGEST")
}

/// Both hold the same once what has expired is removed; else it says which keys differ.
pub fn assert_same(one: &Server, other: &Server) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE / 4 {
        if digest(one) == digest(other) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (mut a, mut b) = (one.client(), other.client());
    let mut differ = Vec::new();
    for db in 0..3 {
        let select = format!("SELECT {db}");
        a.ask(&select);
        b.ask(&select);
        let keys = [a.ask("KEYS *"), b.ask("KEYS *")].join(" ");
        let keys: std::collections::BTreeSet<_> = keys.split(' ').collect();
        for key in keys.into_iter().filter(|key| !key.is_empty()) {
            let ask = format!("DEBUG DIGEST-VALUE {key}");
            let (here, there) = (a.ask(&ask), b.ask(&ask));
            if here != there {
                let dump = format!("DUMP {key}");
                differ.push((db, key.to_owned(), a.ask(&dump), b.ask(&dump)));
            }
        }
    }
    panic!("they differ: {differ:#?}");
}

/// A number that INFO names.
pub fn info(client: &mut Client, section: &str, field: &str) -> u64 {
    let text = client.ask(&format!("INFO {section}"));
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.expect("a field").parse().expect("a number")
}
