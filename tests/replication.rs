//! A real Redis follows this server: it begins with a snapshot taken under load, then gets the
//! stream, and ends with the same data set. Skipped where no Redis 7.0 is installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_redis_installed() -> bool {
    let version = Command::new("redis-server").arg("--version").output();
    version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("v=7.0."))
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

struct Server {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Starts it, again on another port should somebody have taken the one that was free.
    fn start(binary: &Path, options: &[&str]) -> Self {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let mut server = Self::spawn(binary, options);
            while server.child.try_wait().expect("a child").is_none() {
                if server.is_reached() {
                    return server;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("no port was free for long enough");
    }

    fn spawn(binary: &Path, options: &[&str]) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a directory"), free_port());
        let child = Command::new(binary)
            .args(["--port", &port.to_string(), "--save", ""])
            .args(["--enable-debug-command", "yes"])
            .args(options)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self {
            child,
            port,
            _dir: dir,
        }
    }

    /// True when it is this server that answers on its port.
    fn is_reached(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let info = Client(BufReader::new(stream)).ask("INFO server");
        let id = format!("process_id:{}\r\n", self.child.id());
        info.contains(&id)
    }

    fn primary(options: &[&str]) -> Self {
        Self::start(Path::new(env!("CARGO_BIN_EXE_redis-server")), options)
    }

    fn replica_of(primary: &Self) -> Self {
        let place = ["127.0.0.1", &primary.port.to_string()].join(" ");
        Self::start(Path::new("redis-server"), &["--replicaof", &place])
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client(BufReader::new(stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    /// A reply as text; an array as its elements, joined by spaces.
    fn read(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        assert!(!line.is_empty(), "the connection was closed");
        let line = line.trim_end().to_owned();
        let count = || line[1..].parse::<i64>().expect("a length");
        match line.as_bytes()[0] {
            b'$' if count() >= 0 => {
                let mut bulk = vec![0; count() as usize + 2];
                self.0.read_exact(&mut bulk).expect("a bulk string");
                String::from_utf8_lossy(&bulk[..bulk.len() - 2]).into_owned()
            }
            b'*' if count() >= 0 => {
                let parts: Vec<_> = (0..count()).map(|_| self.read()).collect();
                parts.join(" ")
            }
            _ => line,
        }
    }

    fn send(&mut self, line: &str) {
        let line = format!("{line}\r\n");
        self.0.get_mut().write_all(line.as_bytes()).expect("room");
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(line);
        self.read()
    }
}

/// Requests of every type and of every way to be propagated, chosen by `n`.
fn request(n: u64) -> String {
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
fn load(server: &Server, seed: u64, stop: &AtomicBool) {
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

fn digest(server: &Server) -> String {
    server.client().ask("DEBUG DIGEST")
}

/// Both hold the same once what has expired is removed; else it says which keys differ.
fn assert_same(one: &Server, other: &Server) {
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

/// A Redis that comes while clients write ends with what they wrote.
fn follows_under_load(options: &[&str]) {
    if !is_redis_installed() {
        return;
    }
    let primary = Server::primary(options);
    let mut client = primary.client();
    client.ask("DEBUG POPULATE 20000");
    let stop = AtomicBool::new(false);
    let replica = std::thread::scope(|scope| {
        for seed in 0..3 {
            let (primary, stop) = (&primary, &stop);
            scope.spawn(move || load(primary, seed, stop));
        }
        std::thread::sleep(Duration::from_millis(300));
        let replica = Server::replica_of(&primary);
        let mut follower = replica.client();
        let up = "master_link_status:up";
        eventually(|| follower.ask("INFO replication").contains(up));
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Relaxed);
        replica
    });
    // Nothing expires any more: what has, has been told.
    for db in 0..3 {
        client.ask(&format!("SELECT {db}"));
        for key in client.ask("KEYS *").split(' ') {
            client.ask(&format!("PERSIST {key}"));
        }
    }
    client.ask("SET last 1");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert_same(&primary, &replica);
    assert!(client.ask("INFO replication").contains("state=online"));
    assert!(client.ask("CLIENT LIST TYPE replica").contains("flags=S"));
}

#[test]
fn a_redis_follows_from_a_snapshot_sent_as_it_is_made() {
    follows_under_load(&["--repl-diskless-sync-delay", "0"]);
}

#[test]
fn a_redis_follows_from_a_snapshot_in_a_file() {
    follows_under_load(&["--repl-diskless-sync", "no", "--appendonly", "yes"]);
}

#[test]
fn a_redis_that_was_cut_off_goes_on_where_it_was() {
    if !is_redis_installed() {
        return;
    }
    let primary = Server::primary(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::replica_of(&primary);
    let mut client = primary.client();
    eventually(|| client.ask("INFO replication").contains("state=online"));
    client.ask("SET a 1");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert_eq!(client.ask("CLIENT KILL TYPE replica"), ":1");
    client.ask("SET b 2");
    eventually(|| client.ask("INFO stats").contains("sync_partial_ok:1"));
    client.ask("SET c 3");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert!(client.ask("INFO stats").contains("sync_full:1"));
    assert_eq!(digest(&primary), digest(&replica));
}

#[test]
fn waiting_for_replicas_that_are_not_there_ends_with_its_time() {
    let primary = Server::primary(&[]);
    let mut client = primary.client();
    assert_eq!(client.ask("WAIT 0 0"), ":0");
    assert_eq!(client.ask("WAIT 1 50"), ":0");
    client.ask("CONFIG SET min-replicas-to-write 1");
    assert!(client.ask("SET a 1").starts_with("-NOREPLICAS"));
    assert!(
        client
            .ask("REPLCONF nonsense 1")
            .starts_with("-ERR Unrecognized")
    );
    assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
}
