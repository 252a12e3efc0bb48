//! Commands of several clients at once, each on a thread with a worker of its own: what one
//! command or transaction does is seen as a whole or not at all, and nothing waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use tessera::client::mailbox::Bell;
use tessera::client::registry::Arrival;
use tessera::client::session::Session;
use tessera::commands;
use tessera::config::Settings;
use tessera::dispatch::args::Args;
use tessera::dispatch::context::{Shared, Worker};
use tessera::dispatch::execute::{self, Prepared};
use tessera::dispatch::table::Table;
use tessera::dispatch::upkeep::Upkeep;
use tessera::resp::write::Output;
use tessera::server::boot;

const THREADS: usize = 4;
const ROUNDS: usize = 4000;
const ACCOUNTS: usize = 20;

/// A client without a socket.
struct Client<'s> {
    shared: &'s Shared,
    worker: Worker,
    session: Session,
}

impl<'s> Client<'s> {
    fn new(shared: &'s Shared, index: usize) -> Self {
        let handle = shared.clients.add(Arrival {
            address: "127.0.0.1:1".into(),
            local_address: "127.0.0.1:2".into(),
            fd: -1,
            now_ms: 0,
            bell: Arc::new(Bell::new().expect("eventfd")),
        });
        Self {
            shared,
            worker: Worker::new(shared, index),
            session: Session::new(handle, Some(shared.users.default_user())),
        }
    }

    /// Runs a request of words and returns the encoded reply.
    fn run(&mut self, line: &str) -> String {
        self.worker.refresh(self.shared);
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Output::new();
        let mut hints = Vec::new();
        let db = self.session.db;
        let known = execute::prepare(self.shared, db, words.len(), |i| words[i], &mut hints);
        let prepared = Prepared {
            known,
            hints: &hints,
        };
        let args = Args::new(&words);
        execute::request(
            self.shared,
            &mut self.worker,
            &mut self.session,
            &mut out,
            args,
            prepared,
        );
        execute::to_end(self.shared, &mut self.worker, &self.session, &mut out);
        let reply = String::from_utf8(out.to_vec()).expect("tests write text");
        assert!(!reply.starts_with('-'), "{line}: {reply}");
        reply
    }

    fn int(&mut self, line: &str) -> i64 {
        let reply = self.run(line);
        reply[1..].trim().parse().expect("an integer reply")
    }
}

/// The bulk strings of a reply, in order, whatever is around them.
fn strings(reply: &str) -> Vec<&str> {
    let mut lines = reply.split("\r\n");
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') && line != "$-1" {
            found.extend(lines.next());
        }
    }
    found
}

fn server() -> Arc<Shared> {
    let settings = Settings {
        io_threads: THREADS as i32,
        ..Settings::default()
    };
    boot::build(settings, None, Table::new(commands::all()), None).0
}

/// Runs `work` and fails if it takes longer than a minute.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, finished) = channel();
    let worker = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match finished.recv_timeout(Duration::from_secs(60)) {
        Err(RecvTimeoutError::Timeout) => panic!("clients wait for each other"),
        // The thread panicked, or is done: joining tells.
        _ => worker.join().expect("the clients' checks hold"),
    }
}

fn transfers(client: &mut Client<'_>, seed: usize) {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|i| format!("account:{i}")).collect();
    for round in 0..ROUNDS {
        let (from, to) = ((seed * 7 + round) % ACCOUNTS, (seed + round * 3) % ACCOUNTS);
        client.run("MULTI");
        client.run(&format!("DECRBY account:{from} 5"));
        client.run(&format!("INCRBY account:{to} 5"));
        client.run("EXEC");
        let reply = client.run(&format!("MGET {}", accounts.join(" ")));
        let sum: i64 = strings(&reply)
            .iter()
            .map(|n| n.parse::<i64>().expect("a number"))
            .sum();
        assert_eq!(sum, 1000 * ACCOUNTS as i64, "money came or went");
    }
}

/// Moves money by a script that declares both accounts, one, or none.
const TRANSFER: &str = "local\tfrom=ARGV[1]\tlocal\tto=ARGV[2]\t\
    redis.call('decrby',from,5)\tredis.call('incrby',to,5)\t\
    if\tARGV[3]\tthen\tredis.call('publish','moved',to)\tend\treturn\t1";

/// Transfers by scripts. What differs between rounds makes each script a new one, which nobody knows yet to
/// reach for keys that it does not declare.
fn scripted_transfers(client: &mut Client<'_>, seed: usize) {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|i| format!("account:{i}")).collect();
    for round in 0..ROUNDS / 8 {
        let (from, to) = ((seed * 7 + round) % ACCOUNTS, (seed + round * 3) % ACCOUNTS);
        let script = format!("{TRANSFER}--{seed}:{}", round / 2);
        let keys = match (seed + round) % 4 {
            0 => format!("2 account:{from} account:{to}"),
            1 => format!("1 account:{from}"),
            2 => format!("1 account:{to}"),
            _ => "0".to_owned(),
        };
        let tells = if round % 5 == 0 { " x" } else { "" };
        client.run(&format!(
            "EVAL {script} {keys} account:{from} account:{to}{tells}"
        ));
        let reply = client.run(&format!("MGET {}", accounts.join(" ")));
        let sum: i64 = strings(&reply)
            .iter()
            .map(|n| n.parse::<i64>().expect("a number"))
            .sum();
        assert_eq!(sum, 1000 * ACCOUNTS as i64, "half of a script was seen");
    }
}

fn pairs(client: &mut Client<'_>, seed: usize) {
    for round in 0..ROUNDS {
        client.run(&format!("MSET left {seed}:{round} right {seed}:{round}"));
        let reply = client.run("MGET right left");
        let both = strings(&reply);
        assert_eq!(both[0], both[1], "half of an MSET was seen");
    }
}

fn counters(client: &mut Client<'_>, watched: &AtomicU64) {
    let mut last = 0;
    for _ in 0..ROUNDS {
        let n = client.int("INCR counter");
        assert!(n > last, "a counter went back");
        last = n;
        client.run("WATCH guarded");
        let seen = client.run("GET guarded");
        let n: u64 = strings(&seen)[0].parse().expect("a number");
        client.run("MULTI");
        client.run(&format!("SET guarded {}", n + 1));
        if client.run("EXEC").starts_with("*1") {
            watched.fetch_add(1, Relaxed);
        }
    }
}

fn upheaval(client: &mut Client<'_>, seed: usize) {
    for round in 0..ROUNDS / 4 {
        client.run(&format!("SELECT {}", 1 + (seed + round) % 2));
        for i in 0..20 {
            client.run(&format!("SET brief:{i} v PX 1"));
            client.run(&format!("SET lasting:{seed}:{i} v"));
        }
        match round % 6 {
            0 => client.run("FLUSHDB"),
            1 => client.run("SWAPDB 1 2"),
            2 => client.run("KEYS *"),
            3 => client.run("SCAN 0 COUNT 100"),
            4 => client.run("RANDOMKEY"),
            _ => {
                client.run("MULTI");
                client.run("FLUSHDB ASYNC");
                client.run("SET only one");
                client.run("DBSIZE");
                client.run("SWAPDB 1 2");
                client.run("SWAPDB 1 2");
                client.run("KEYS *");
                let reply = client.run("EXEC");
                assert!(
                    reply.ends_with(":1\r\n+OK\r\n+OK\r\n*1\r\n$4\r\nonly\r\n"),
                    "{reply}"
                );
                reply
            }
        };
    }
    client.run("SELECT 0");
}

#[test]
fn commands_and_transactions_are_atomic() {
    in_time(|| {
        let shared = server();
        let mut first = Client::new(&shared, 0);
        for i in 0..ACCOUNTS {
            first.run(&format!("SET account:{i} 1000"));
        }
        first.run("SET guarded 0");
        let (watched, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (shared, watched, stop) = (&shared, &watched, &stop);
            scope.spawn(move || {
                let mut upkeep = Upkeep::default();
                while !stop.load(Relaxed) {
                    upkeep.slow(shared);
                    upkeep.fast(shared);
                }
            });
            let clients: Vec<_> = (0..THREADS)
                .map(|index| {
                    scope.spawn(move || {
                        let mut client = Client::new(shared, index);
                        transfers(&mut client, index);
                        pairs(&mut client, index);
                        counters(&mut client, watched);
                        upheaval(&mut client, index);
                    })
                })
                .collect();
            let results: Vec<_> = clients.into_iter().map(|c| c.join()).collect();
            stop.store(true, Relaxed);
            assert!(results.iter().all(Result::is_ok), "a client's check failed");
        });
        let counted = first.run("GET counter");
        assert_eq!(strings(&counted), [(THREADS * ROUNDS).to_string()]);
        let guarded = first.run("GET guarded");
        assert_eq!(strings(&guarded), [watched.load(Relaxed).to_string()]);
    });
}

#[test]
fn scripts_are_atomic_whatever_keys_they_declare() {
    in_time(|| {
        let shared = server();
        let mut first = Client::new(&shared, 0);
        for i in 0..ACCOUNTS {
            first.run(&format!("SET account:{i} 1000"));
        }
        std::thread::scope(|scope| {
            let shared = &shared;
            let clients: Vec<_> = (0..THREADS)
                .map(|index| {
                    scope.spawn(move || {
                        let mut client = Client::new(shared, index);
                        scripted_transfers(&mut client, index);
                    })
                })
                .collect();
            let results: Vec<_> = clients.into_iter().map(|c| c.join()).collect();
            assert!(results.iter().all(Result::is_ok), "a client's check failed");
        });
    });
}

#[test]
fn walks_complete_while_others_write() {
    in_time(|| {
        let shared = server();
        let mut walker = Client::new(&shared, 0);
        for i in 0..2000 {
            walker.run(&format!("SET stays:{i} v"));
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (shared, stop) = (&shared, &stop);
            for index in 1..THREADS {
                scope.spawn(move || {
                    let mut client = Client::new(shared, index);
                    while !stop.load(Relaxed) {
                        let name = |i: usize| format!("goes:{index}:{i}");
                        (0..3000).for_each(|i| drop(client.run(&format!("SET {} v", name(i)))));
                        (0..3000).for_each(|i| drop(client.run(&format!("DEL {}", name(i)))));
                    }
                });
            }
            for count in [10, 100, 1000] {
                let mut seen = std::collections::HashSet::new();
                let mut cursor = "0".to_owned();
                loop {
                    let line = format!("SCAN {cursor} MATCH stays:* COUNT {count}");
                    let reply = walker.run(&line);
                    let parts = strings(&reply);
                    cursor = parts[0].to_owned();
                    seen.extend(parts[1..].iter().map(|key| (*key).to_owned()));
                    if cursor == "0" {
                        break;
                    }
                }
                assert_eq!(seen.len(), 2000);
                let reply = walker.run("KEYS stays:*");
                assert_eq!(strings(&reply).len(), 2000);
            }
            stop.store(true, Relaxed);
        });
    });
}

#[test]
fn flushing_and_swapping_spoil_transactions_on_keys_they_change() {
    let shared = server();
    let (mut one, mut two) = (Client::new(&shared, 0), Client::new(&shared, 1));
    let mut spoiled = |before: &[&str], key: &str, meanwhile: &str| {
        two.run("FLUSHALL");
        two.run("SELECT 0");
        before.iter().for_each(|line| drop(two.run(line)));
        one.run(&format!("WATCH {key}"));
        two.run(meanwhile);
        one.run("MULTI");
        one.run("DBSIZE");
        one.run("EXEC") == "*-1\r\n"
    };
    assert!(spoiled(&["SET k v"], "k", "FLUSHDB"));
    assert!(spoiled(&["SET k v"], "k", "FLUSHALL ASYNC"));
    assert!(!spoiled(&["SET other v"], "k", "FLUSHDB"));
    assert!(spoiled(&["SET k v"], "k", "SWAPDB 0 1"));
    assert!(spoiled(&["SELECT 1", "SET k v"], "k", "SWAPDB 0 1"));
    assert!(!spoiled(&["SET other v"], "k", "SWAPDB 0 1"));
    assert!(!spoiled(&["SET k v"], "k", "SWAPDB 2 1"));
}
