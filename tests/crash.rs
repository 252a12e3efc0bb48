//! The server killed in the middle of writes, and what is left: nothing that was acknowledged is
//! lost beyond what the parameters allow, and nothing is there in part.
//!
//! Each connection takes numbered steps on keys of its own, whose effect depends on the number
//! alone. So what a connection finds after a restart must be what a model holds after some number
//! of steps: at least those that had to be on disk, at most those that were sent. Transfers
//! between accounts that all share show that transactions are whole across connections.
//!
//! `TESSERA_CRASH_ROUNDS` sets how often each server is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 8;
/// Steps on their way at once.
const PIPELINE: u64 = 4;
const ACCOUNTS: u64 = 5;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// What `everysec` may lose.
const MAY_LOSE: Duration = Duration::from_secs(2);

/// How often each server is killed.
fn rounds() -> u64 {
    let rounds = std::env::var("TESSERA_CRASH_ROUNDS").ok();
    rounds.map_or(3, |n| n.parse().expect("TESSERA_CRASH_ROUNDS is a number"))
}

struct Server(Child);

impl Server {
    fn start(dir: &Path, options: &[&str]) -> Self {
        let mut log = std::fs::File::options();
        let log = log.append(true).create(true).open(dir.join("log"));
        let log = log.expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_redis-server"))
            .args(["--port", "0", "--unixsocket", "s"])
            .args(options)
            .current_dir(dir)
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let server = Self(child);
        let begin = Instant::now();
        while !answers(dir) {
            let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "no answer; log:\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ran");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is gone already where a test has come to its end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers(dir: &Path) -> bool {
    let Ok(mut client) = Client::connect(dir) else {
        return false;
    };
    client.ask("PING").is_ok_and(|reply| reply == "PONG")
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(dir: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(dir.join("s"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, lines: &str) -> io::Result<()> {
        self.0.get_mut().write_all(lines.as_bytes())
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.send(&format!("{line}\r\n"))?;
        self.read()
    }

    /// A reply; of an array the elements, with spaces between.
    fn read(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let count = || line[1..].parse::<i64>().expect("a length");
        match line.as_bytes()[0] {
            b'$' if count() >= 0 => {
                let mut bulk = vec![0; count() as usize + 2];
                self.0.read_exact(&mut bulk)?;
                Ok(String::from_utf8_lossy(&bulk[..bulk.len() - 2]).into_owned())
            }
            b'*' if count() >= 0 => {
                let parts: io::Result<Vec<_>> = (0..count()).map(|_| self.read()).collect();
                Ok(parts?.join(" "))
            }
            b'$' | b'*' => Ok("nil".to_owned()),
            b'-' if line.starts_with("-LOADING") => Ok(line.to_owned()),
            b'-' => panic!("{line}"),
            _ => Ok(line[1..].to_owned()),
        }
    }
}

/// The requests of a step, and how many replies they get.
fn step(own: usize, i: u64) -> (String, usize) {
    let (a, b) = (i % ACCOUNTS, (i / 7 + 1) % ACCOUNTS);
    let line = match i % 9 {
        0 => format!("INCR {own}:n"),
        1 => format!("RPUSH {own}:l {i} {i}"),
        2 => format!("HSET {own}:h f{} {i}", i % 50),
        3 => format!("SADD {own}:s {}", i % 400),
        4 => format!("ZADD {own}:z {i} m{}", i % 300),
        5 => format!("XADD {own}:x MAXLEN = 20 {}-1 f v", i + 1),
        6 => format!("SETEX {own}:t 100000 {i}"),
        7 => format!("LTRIM {own}:l -20 -1"),
        _ => {
            let lines = format!(
                "MULTI\r\nINCR {own}:p\r\nDECRBY account:{a} {i}\r\nINCRBY account:{b} {i}\r\n\
                 SREM {own}:s {}\r\nINCR {own}:q\r\nEXEC\r\n",
                i % 200
            );
            return (lines, 7);
        }
    };
    (line + "\r\n", 1)
}

/// What a connection's keys hold after a number of steps.
#[derive(Default)]
struct Model {
    steps: u64,
    number: u64,
    list: Vec<u64>,
    hash: BTreeMap<String, u64>,
    set: BTreeSet<u64>,
    zset: BTreeMap<String, u64>,
    stream: Vec<u64>,
    text: Option<u64>,
    pair: u64,
}

impl Model {
    fn advance(&mut self) {
        let i = self.steps;
        self.steps += 1;
        match i % 9 {
            0 => self.number += 1,
            1 => self.list.extend([i, i]),
            2 => drop(self.hash.insert(format!("f{}", i % 50), i)),
            3 => drop(self.set.insert(i % 400)),
            4 => drop(self.zset.insert(format!("m{}", i % 300), i)),
            5 => {
                self.stream.push(i + 1);
                let extra = self.stream.len().saturating_sub(20);
                self.stream.drain(..extra);
            }
            6 => self.text = Some(i),
            7 => drop(self.list.drain(..self.list.len().saturating_sub(20))),
            _ => {
                self.pair += 1;
                self.set.remove(&(i % 200));
            }
        }
    }

    fn number_line(&self) -> String {
        match self.number {
            0 => "n nil\n".to_owned(),
            number => format!("n {number}\n"),
        }
    }

    /// As [`found`] gives it.
    fn text(&self) -> String {
        let mut out = String::new();
        let number = |n: u64| {
            if n == 0 {
                "nil".to_owned()
            } else {
                n.to_string()
            }
        };
        let joined = |words: Vec<String>| words.join(" ");
        out += &self.number_line();
        let list = self.list.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "l {}", joined(list));
        let hash = self.hash.iter().map(|(f, v)| format!("{f} {v}")).collect();
        let _ = writeln!(out, "h {}", sorted_pairs(&joined(hash)));
        let set = self.set.iter().map(u64::to_string).collect();
        let _ = writeln!(out, "s {}", sorted(&joined(set)));
        let zset = self.zset.iter().map(|(m, s)| format!("{m} {s}")).collect();
        let _ = writeln!(out, "z {}", sorted_pairs(&joined(zset)));
        let stream = self.stream.iter().map(|id| format!("{id}-1 f v")).collect();
        let _ = writeln!(out, "x {}", joined(stream));
        let text = self.text.map_or("nil".to_owned(), |n| n.to_string());
        let _ = writeln!(out, "t {text}");
        let pair = number(self.pair);
        let _ = writeln!(out, "pq {pair} {pair}");
        out
    }
}

fn sorted(words: &str) -> String {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.sort_unstable();
    words.join(" ")
}

fn sorted_pairs(words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    let mut pairs: Vec<String> = words.chunks(2).map(|pair| pair.join(" ")).collect();
    pairs.sort_unstable();
    pairs.join(" ")
}

/// What the server holds of a connection's keys.
fn found(client: &mut Client, own: usize) -> String {
    let mut ask = |line: String| client.ask(&line).expect("a reply");
    let mut out = String::new();
    let _ = writeln!(out, "n {}", ask(format!("GET {own}:n")));
    let _ = writeln!(out, "l {}", ask(format!("LRANGE {own}:l 0 -1")));
    let _ = writeln!(out, "h {}", sorted_pairs(&ask(format!("HGETALL {own}:h"))));
    let _ = writeln!(out, "s {}", sorted(&ask(format!("SMEMBERS {own}:s"))));
    let zset = ask(format!("ZRANGE {own}:z 0 -1 WITHSCORES"));
    let _ = writeln!(out, "z {}", sorted_pairs(&zset));
    let _ = writeln!(out, "x {}", ask(format!("XRANGE {own}:x - +")));
    let _ = writeln!(out, "t {}", ask(format!("GET {own}:t")));
    let _ = writeln!(out, "pq {}", ask(format!("MGET {own}:p {own}:q")));
    out
}

/// What a connection did until it broke.
struct Steps {
    sent: u64,
    /// When each step was acknowledged, from that on with which the connection began.
    acknowledged: Vec<Instant>,
}

/// Takes steps from `first` on until the server is gone.
fn run(dir: &Path, own: usize, first: u64) -> Steps {
    let mut steps = Steps {
        sent: first,
        acknowledged: Vec::new(),
    };
    let Ok(mut client) = Client::connect(dir) else {
        return steps;
    };
    loop {
        let batch: Vec<_> = (steps.sent..steps.sent + PIPELINE)
            .map(|i| step(own, i))
            .collect();
        let text: String = batch.iter().map(|(text, _)| &text[..]).collect();
        steps.sent += PIPELINE;
        if client.send(&text).is_err() {
            return steps;
        }
        for (_, replies) in batch {
            for _ in 0..replies {
                if client.read().is_err() {
                    return steps;
                }
            }
            steps.acknowledged.push(Instant::now());
        }
    }
}

/// Finds how many steps each connection's keys hold: between `least` and what was sent.
fn compare(dir: &Path, ran: &[(u64, Steps)], least: impl Fn(u64, &Steps) -> u64) -> Vec<u64> {
    let mut client = Client::connect(dir).expect("a connection");
    let mut taken = Vec::new();
    for (own, (first, steps)) in ran.iter().enumerate() {
        let least = least(*first, steps);
        let found = found(&mut client, own);
        let mut model = Model::default();
        while model.steps < least {
            model.advance();
        }
        let at_least = model.text();
        // The first line tells most differences apart, at less cost than the whole text.
        while !found.starts_with(&model.number_line()) || model.text() != found {
            assert!(
                model.steps < steps.sent,
                "connection {own} began with step {first}, sent {}, of which {least} must be there:\n\
                 {at_least}\nBut there is:\n{found}\nand the model ends with:\n{}",
                steps.sent,
                model.text()
            );
            model.advance();
        }
        taken.push(model.steps);
    }
    let accounts: Vec<String> = (0..ACCOUNTS).map(|a| format!("account:{a}")).collect();
    let sums = client.ask(&format!("MGET {}", accounts.join(" ")));
    let sums = sums.expect("a reply");
    let sum: i64 = sums.split(' ').map(|n| n.parse().unwrap_or(0)).sum();
    assert_eq!(sum, 0, "a transfer is there in part: {sums}");
    taken
}

/// Starts a server again and again, has `during` do something while connections write, and kills
/// it. `least`: how many steps must be there, of a connection, when it was killed at a moment.
fn crash(
    options: &[&str],
    run_for: Duration,
    during: impl Fn(&mut Client, u64),
    least: impl Fn(u64, &Steps, Instant) -> u64,
) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let mut taken = vec![0; CONNECTIONS];
    let mut server = Server::start(dir, options);
    for round in 0..rounds() {
        let (ran, killed) = std::thread::scope(|scope| {
            let writers: Vec<_> = taken
                .iter()
                .enumerate()
                .map(|(own, &first)| scope.spawn(move || (first, run(dir, own, first))))
                .collect();
            let mut client = Client::connect(dir).expect("a connection");
            let early = run_for.mul_f64(rand::random_range(0.3..0.7));
            std::thread::sleep(early);
            during(&mut client, round);
            std::thread::sleep(run_for.mul_f64(rand::random_range(0.0..0.3)));
            let killed = Instant::now();
            server.kill();
            let ran = writers.into_iter().map(|w| w.join().expect("no errors"));
            (ran.collect::<Vec<_>>(), killed)
        });
        server = Server::start(dir, options);
        let before: u64 = taken.iter().sum();
        taken = compare(dir, &ran, |first, steps| least(first, steps, killed));
        let after: u64 = taken.iter().sum();
        let sent: u64 = ran.iter().map(|(_, steps)| steps.sent).sum();
        println!("round {round}: from {before} steps to {after} of {sent}");
    }
}

/// Has the base written anew, or a dump, or nothing.
fn renew(client: &mut Client, round: u64) {
    match round % 3 {
        0 => drop(client.ask("BGREWRITEAOF").expect("a reply")),
        1 => drop(client.ask("BGSAVE").expect("a reply")),
        _ => {}
    }
}

fn all(first: u64, steps: &Steps) -> u64 {
    first + steps.acknowledged.len() as u64
}

#[test]
fn nothing_acknowledged_is_lost_when_every_write_is_synced() {
    let options = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
    ];
    let run_for = Duration::from_millis(600);
    crash(&options, run_for, renew, |first, steps, _| {
        all(first, steps)
    });
}

#[test]
fn at_most_two_seconds_are_lost_when_it_is_synced_every_second() {
    let options = [
        "--appendonly",
        "yes",
        "--save",
        "",
        "--aof-use-rdb-preamble",
        "no",
    ];
    let run_for = Duration::from_millis(2600);
    crash(&options, run_for, renew, |first, steps, killed| {
        let old = |at: &&Instant| **at + MAY_LOSE <= killed;
        first + steps.acknowledged.iter().filter(old).count() as u64
    });
}

#[test]
fn a_dump_is_the_data_set_of_one_moment() {
    let options = ["--save", ""];
    let saved = std::sync::Mutex::new(None);
    let during = |client: &mut Client, round: u64| {
        let begin = Instant::now();
        if round.is_multiple_of(2) {
            client.ask("SAVE").expect("a reply");
            *saved.lock().expect("no panic") = Some(begin);
        } else {
            client.ask("BGSAVE").expect("a reply");
        }
    };
    crash(
        &options,
        Duration::from_millis(700),
        during,
        |first, steps, _| {
            // The last round's dump is what later ones begin with, so `first` is never lost.
            let saved = *saved.lock().expect("no panic");
            let held = |at: &&Instant| saved.is_some_and(|saved| **at < saved);
            first + steps.acknowledged.iter().filter(held).count() as u64
        },
    );
}
