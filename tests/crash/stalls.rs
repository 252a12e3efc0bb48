//! A disk that hangs: syncs or writes of the append-only file take until the test lets them go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::server::{Client, Server, until};
use super::{ALWAYS, EVERY_SECOND, Steps, compare, models, with_writers};

/// Builds the library that makes calls hang; nothing where there is no C compiler.
pub fn library(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/stalls.c");
    let target = dir.join("stalls.so");
    let mut compiler = Command::new("cc");
    let built = compiler
        .args(["-shared", "-fPIC", "-o"])
        .arg(&target)
        .arg(source)
        .arg("-ldl")
        .status();
    match built {
        Ok(status) => {
            assert!(status.success(), "it is compiled");
            Some(target)
        }
        Err(_) => None,
    }
}

/// A server whose calls hang while a file is there.
struct Stalling {
    dir: tempfile::TempDir,
    _library: tempfile::TempDir,
    server: Option<Server>,
}

impl Stalling {
    fn start(options: &[&str]) -> Option<Self> {
        let (dir, apart) = (tempfile::tempdir(), tempfile::tempdir());
        let (dir, apart) = (dir.expect("a directory"), apart.expect("a directory"));
        let Some(library) = library(apart.path()) else {
            println!("no C compiler: not run");
            return None;
        };
        std::fs::write(dir.path().join("redis.conf"), "").expect("a file");
        let server = Server::start_preloaded(dir.path(), options, Some(&library));
        Some(Self {
            dir,
            _library: apart,
            server: Some(server),
        })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn client(&self) -> Client {
        Client::connect(self.path()).expect("a connection")
    }

    fn stall(&self, what: &str) {
        std::fs::write(self.path().join(what), "").expect("a file");
    }

    fn go_on(&self, what: &str) {
        std::fs::remove_file(self.path().join(what)).expect("it is there");
    }

    /// Kills the server and starts another one on its files.
    fn restart(&mut self, options: &[&str]) {
        self.server.take().expect("it ran").kill();
        self.server = Some(Server::start(self.path(), options));
    }
}

/// Awaits that every connection got some more replies.
fn await_steps(counts: &[AtomicU64]) {
    let now = || counts.iter().map(|n| n.load(Relaxed));
    let before: Vec<u64> = now().collect();
    until("steps", || now().zip(&before).all(|(n, b)| n > *b + 10));
}

#[test]
fn a_sync_that_hangs_stops_nobody_and_costs_nothing() {
    let Some(mut stalling) = Stalling::start(&EVERY_SECOND) else {
        return;
    };
    let mut models = models();
    let dir = stalling.path().to_owned();
    let (ran, ()) = with_writers(&dir, &models, 1, |traffic| {
        stalling.stall("stall-sync");
        let mut client = stalling.client();
        until("a sync", || client.info("aof_pending_bio_fsync") == "1");
        await_steps(&traffic.acknowledged);
        until("a delayed sync", || client.info("aof_delayed_fsync") == "1");
        await_steps(&traffic.acknowledged);
        // What waits for the disk is not on a worker, and so nobody waits for this.
        client.ask("CONFIG SET appendonly no");
        client.ask("CONFIG SET appendonly yes");
        until("the first base", || client.has_base());
        await_steps(&traffic.acknowledged);
        stalling.restart(&EVERY_SECOND);
    });
    compare(&dir, &mut models, &ran, Steps::all_acknowledged);
}

/// One of `clients` that is served although a worker hangs.
fn served(clients: Vec<Client>) -> Client {
    let mut clients = clients;
    let mut found = None;
    for client in &mut clients {
        client.send("ECHO served\r\n").expect("room");
    }
    until("a worker that serves", || {
        found = clients.iter_mut().position(Client::has_reply);
        found.is_some()
    });
    let mut client = clients.swap_remove(found.expect("awaited"));
    assert_eq!(client.read().expect("a reply").expect("no error"), "served");
    client
}

#[test]
fn a_write_that_hangs_holds_writers_back_and_nothing_grows() {
    let options = [&EVERY_SECOND[..], &["--io-threads", "4"]].concat();
    let Some(stalling) = Stalling::start(&options) else {
        return;
    };
    // Enough that all workers have some.
    let mut clients: Vec<Client> = (0..200).map(|_| stalling.client()).collect();
    let before: u64 = clients[0].info("used_memory").parse().expect("a number");
    let mut writers = clients.split_off(100);
    stalling.stall("stall-write");
    let set = format!("SET key {}\r\n", "x".repeat(10_000));
    for writer in &mut writers {
        writer.send_what_fits(&set, 200);
    }
    let mut watcher = served(clients);
    until("the stall", || {
        let stalled: i64 = watcher
            .info("aof_write_stalled_ms")
            .parse()
            .expect("a number");
        stalled > 200
    });
    // A reply that tells of data waits for the file; others do not.
    assert_eq!(watcher.ask("PING"), "PONG");
    let during: u64 = watcher.info("used_memory").parse().expect("a number");
    assert!(during < before + (64 << 20), "{before} grew to {during}");
    assert!(writers.iter_mut().all(|writer| !writer.has_reply()));
    stalling.go_on("stall-write");
    for writer in &mut writers {
        assert_eq!(writer.read().expect("a reply").expect("no error"), "OK");
    }
    until("everything written", || {
        watcher.info("aof_buffer_length") == "0"
    });
}

#[test]
fn a_replica_whose_write_hangs_holds_its_primary_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = port.expect("a port").port().to_string();
    let options = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"];
    let _primary = Server::start(dir.path(), &[&options[..], &["--port", &port]].concat());
    let primary = format!("127.0.0.1 {port}");
    let options = [&EVERY_SECOND[..], &["--replicaof", &primary]].concat();
    let Some(stalling) = Stalling::start(&options) else {
        return;
    };
    let (mut client, mut replica) = (
        Client::connect(dir.path()).expect("a connection"),
        stalling.client(),
    );
    until("in step", || replica.info("master_link_status") == "up");
    until("its file", || {
        replica.info("aof_rewrite_in_progress") == "0"
    });
    let number = |text: String| text.parse::<u64>().expect("a number");
    let before = number(replica.info("used_memory"));
    stalling.stall("stall-write");
    // What the file does not hold is not confirmed. (And it is the log's own thread that hangs: clients of
    // the replica are served.)
    assert_eq!(client.ask("SET first 1"), "OK");
    assert_eq!(client.ask("WAIT 1 1000"), "0");
    // As long as a request on a line may be, and some room.
    let set = format!("SET key {}", "x".repeat(50_000));
    for _ in 0..2000 {
        assert_eq!(client.ask(&set), "OK");
    }
    // No more is applied, as nothing is written.
    let (mut applied, mut same) = (0, 0);
    until("the replica reads no more", || {
        let now = number(replica.info("slave_repl_offset"));
        same = if now == applied && now > 16 << 20 {
            same + 1
        } else {
            0
        };
        applied = now;
        same > 100
    });
    let during = number(replica.info("used_memory"));
    assert!(during < before + (48 << 20), "{before} grew to {during}");
    stalling.go_on("stall-write");
    assert_eq!(client.ask("WAIT 1 0"), "1");
    let end = client.info("master_repl_offset");
    until("all of it", || {
        replica.info("slave_repl_offset") == end && replica.info("aof_buffer_length") == "0"
    });
    assert_eq!(replica.info("sync_full"), "0");
}

#[test]
fn while_syncs_fail_writes_are_refused_and_what_was_acknowledged_is_kept() {
    let Some(mut stalling) = Stalling::start(&EVERY_SECOND) else {
        return;
    };
    let mut client = stalling.client();
    assert_eq!(client.ask("SET before 1"), "OK");
    stalling.stall("fail-sync");
    let refused = |reply: Result<String, String>| reply.is_err_and(|e| e.starts_with("MISCONF"));
    let mut acknowledged = 0;
    until("a refusal", || {
        let reply = client.try_ask("INCR counter").expect("a reply");
        acknowledged += u64::from(reply.is_ok());
        refused(reply)
    });
    assert_eq!(client.info("aof_last_write_status"), "err");
    assert_eq!(client.ask("GET before"), "1");
    stalling.go_on("fail-sync");
    until("writes again", || {
        let reply = client.try_ask("INCR counter").expect("a reply");
        acknowledged += u64::from(reply.is_ok());
        reply.is_ok()
    });
    stalling.restart(&EVERY_SECOND);
    let mut client = stalling.client();
    assert_eq!(client.ask("GET counter"), acknowledged.to_string());
}

#[test]
fn writes_go_on_after_a_sync_that_failed_also_when_nothing_is_synced_any_more() {
    let Some(stalling) = Stalling::start(&EVERY_SECOND) else {
        return;
    };
    let mut client = stalling.client();
    stalling.stall("fail-sync");
    until("a refusal", || {
        client.try_ask("INCR counter").expect("a reply").is_err()
    });
    assert_eq!(client.ask("CONFIG SET appendfsync no"), "OK");
    stalling.go_on("fail-sync");
    until("writes again", || {
        client.try_ask("INCR counter").expect("a reply").is_ok()
    });
    assert_eq!(client.info("aof_last_write_status"), "ok");
}

#[test]
fn the_server_does_not_end_while_what_was_acknowledged_cannot_be_written() {
    let Some(mut stalling) = Stalling::start(&EVERY_SECOND) else {
        return;
    };
    let mut client = stalling.client();
    stalling.stall("fail-write");
    let mut acknowledged = 0;
    until("a refusal", || {
        let reply = client.try_ask("INCR counter").expect("a reply");
        acknowledged += u64::from(reply.is_ok());
        reply.is_err()
    });
    assert!(acknowledged > 0, "the first one is kept, and answered");
    let refused = "ERR Errors trying to SHUTDOWN. Check logs.";
    let reply = client.try_ask("SHUTDOWN NOSAVE").expect("it goes on");
    assert_eq!(reply, Err(refused.to_owned()));
    stalling.go_on("fail-write");
    // It does not wait for the next try, a second after the one before.
    assert!(client.try_ask("SHUTDOWN NOSAVE").is_err(), "it ends");
    stalling.restart(&EVERY_SECOND);
    let mut client = stalling.client();
    assert_eq!(client.ask("GET counter"), acknowledged.to_string());
}

#[test]
fn the_server_does_not_end_before_the_first_base_is_there() {
    let options = ["--appendonly", "no", "--save", ""];
    let Some(mut stalling) = Stalling::start(&options) else {
        return;
    };
    let mut client = stalling.client();
    assert_eq!(client.ask("SET key value"), "OK");
    stalling.stall("fail-dump");
    assert_eq!(client.ask("CONFIG SET appendonly yes"), "OK");
    until("the failure", || {
        client.info("aof_last_bgrewrite_status") == "err"
    });
    let reply = client.try_ask("SHUTDOWN").expect("it goes on");
    assert!(reply.is_err());
    stalling.go_on("fail-dump");
    until("the first base", || {
        let _ = client.try_ask("BGREWRITEAOF").expect("a reply");
        client.info("aof_last_bgrewrite_status") == "ok" && client.has_base()
    });
    assert!(client.try_ask("SHUTDOWN").is_err(), "it ends");
    stalling.restart(&EVERY_SECOND);
    assert_eq!(stalling.client().ask("GET key"), "value");
}

#[test]
fn a_server_that_has_to_sync_and_cannot_ends() {
    let Some(mut stalling) = Stalling::start(&ALWAYS) else {
        return;
    };
    let mut client = stalling.client();
    assert_eq!(client.ask("SET key acknowledged"), "OK");
    stalling.stall("fail-sync");
    client.send("SET key lost\r\n").expect("room");
    assert!(
        client.read().is_err(),
        "no reply to what is not on the disk"
    );
    let status = stalling.server.take().expect("it ran").wait();
    assert_eq!(status.code(), Some(1));
    stalling.go_on("fail-sync");
    stalling.server = Some(Server::start(stalling.path(), &ALWAYS));
    // What was written and never acknowledged may be there.
    assert_ne!(stalling.client().ask("GET key"), "");
}

#[test]
fn clients_that_do_not_wait_for_replies_fill_no_memory_while_a_sync_hangs() {
    let options = [&ALWAYS[..], &["--io-threads", "2"]].concat();
    let Some(stalling) = Stalling::start(&options) else {
        return;
    };
    let mut watcher = stalling.client();
    let mut writers: Vec<Client> = (0..8).map(|_| stalling.client()).collect();
    writers[7].send("CLIENT REPLY OFF\r\n").expect("room");
    let before: u64 = watcher.info("used_memory").parse().expect("a number");
    stalling.stall("stall-sync");
    let set = format!("SET key {}\r\n", "x".repeat(10_000));
    let mut sent = 0;
    // Until nobody's socket takes more, as nobody is read from.
    until("sockets that are full", || {
        let more: usize = writers
            .iter_mut()
            .map(|w| w.send_what_fits(&set, 100))
            .sum();
        sent += more;
        assert!(sent < 256 << 20, "the server goes on reading");
        watcher.ask("PING");
        more == 0
    });
    let during: u64 = watcher.info("used_memory").parse().expect("a number");
    assert!(during < before + (32 << 20), "{before} grew to {during}");
    stalling.go_on("stall-sync");
    // They are read from again.
    assert_eq!(writers[0].read().expect("a reply").expect("no error"), "OK");
    until("room", || writers[7].send_what_fits("\r\n", 1) > 0);
    assert_eq!(watcher.ask("SET other value"), "OK");
}

#[test]
fn replies_wait_for_the_disk_from_the_moment_that_is_asked_for() {
    let options = ["--appendonly", "no", "--save", "", "--io-threads", "2"];
    let Some(stalling) = Stalling::start(&options) else {
        return;
    };
    let mut client = stalling.client();
    for i in 0..1000 {
        client.ask(&format!("SET {i} {i}"));
    }
    // A base that takes a second, during which the policy changes.
    client.ask("CONFIG SET rdb-key-save-delay 1000");
    client.ask("CONFIG SET appendonly yes");
    client.ask("CONFIG SET appendfsync always");
    until("the first base", || {
        client.info("aof_rewrite_in_progress") == "0"
    });
    stalling.stall("stall-sync");
    client.send("SET a b\r\n").expect("room");
    let mut other = stalling.client();
    until("a sync that replies wait for", || {
        other.info("aof_pending_bio_fsync") == "1"
    });
    assert!(!client.has_reply());
    stalling.go_on("stall-sync");
    assert_eq!(client.read().expect("a reply").expect("no error"), "OK");
    // And no longer than it is asked for.
    assert_eq!(other.ask("CONFIG SET appendfsync everysec"), "OK");
    stalling.stall("stall-sync");
    assert_eq!(client.ask("SET a c"), "OK");
    stalling.go_on("stall-sync");
}

#[test]
fn nobody_else_waits_for_the_configuration_file() {
    let Some(stalling) = Stalling::start(&["redis.conf", "--io-threads", "1"]) else {
        return;
    };
    let (mut one, mut other) = (stalling.client(), stalling.client());
    stalling.stall("stall-settings");
    one.send("CONFIG REWRITE\r\n").expect("room");
    until("a file beside it", || {
        let files = std::fs::read_dir(stalling.path()).expect("a directory");
        let mut names = files.map(|file| file.expect("a file").file_name());
        names.any(|name| name.to_string_lossy().starts_with("redis.conf."))
    });
    // Of the same worker, and what changes settings.
    assert_eq!(other.ask("CONFIG SET maxmemory-samples 7"), "OK");
    assert_eq!(other.ask("REPLICAOF NO ONE"), "OK");
    assert!(!one.has_reply());
    stalling.go_on("stall-settings");
    assert_eq!(other.ask("CONFIG REWRITE"), "OK");
    let file = std::fs::read_to_string(stalling.path().join("redis.conf"));
    assert!(file.expect("a file").contains("maxmemory-samples 7"));
}
