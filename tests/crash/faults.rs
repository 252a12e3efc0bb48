//! Writes that fail: clients are told, what was acknowledged is not lost, and all goes on when
//! there is room again.
//!
//! There are two obstacles. A limit on the size of the server's files needs no privileges. A disk
//! of its own that fills up is a `tmpfs` in a mount namespace of its own, in which the test runs
//! itself again; where the system allows no such namespace, that is said and the test ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::server::{Client, Server, until};
use crate::{
    ALWAYS, CONNECTIONS, EVERY_SECOND, MAY_LOSE, Tally, Traffic, compare, models, random_wait,
    rounds,
};

/// Set within the namespace: the mount point.
const DISK: &str = "TESSERA_CRASH_DISK";

/// What keeps a server from writing.
#[derive(Clone, Copy)]
enum Obstacle {
    /// No file may be longer than the increment is, and some bytes.
    Limit,
    /// The disk is full but for some bytes.
    FullDisk,
}

impl Obstacle {
    fn set(self, server: &Server, dir: &Path) {
        let spare = rand::random_range(0..8192);
        match self {
            Self::Limit => server.limit_files(Some(increment_len(dir) + spare)),
            Self::FullDisk => fill(dir, spare),
        }
    }

    fn lift(self, server: &Server, dir: &Path) {
        match self {
            Self::Limit => server.limit_files(None),
            Self::FullDisk => self.clear(dir),
        }
    }

    /// What is left of it when the server is gone goes.
    fn clear(self, dir: &Path) {
        if matches!(self, Self::FullDisk) {
            std::fs::remove_file(dir.join("fill")).expect("it was filled");
        }
    }
}

/// Fills the disk up to some bytes.
fn fill(dir: &Path, spare: u64) {
    let mut file = std::fs::File::create(dir.join("fill")).expect("a file");
    let mut block = vec![0; 1 << 20];
    let mut len = 0_u64;
    while !block.is_empty() {
        match file.write(&block) {
            Ok(written) => len += written as u64,
            Err(_) => block.truncate(block.len() / 2),
        }
    }
    file.set_len(len.saturating_sub(spare)).expect("shorter");
}

/// Bytes of the file that is being appended to.
fn increment_len(dir: &Path) -> u64 {
    let dir = dir.join("appendonlydir");
    let text = std::fs::read_to_string(dir.join("appendonly.aof.manifest")).expect("a manifest");
    let mut lines = text.lines().rev();
    let last = lines.find(|line| line.ends_with("type i"));
    let name = last.expect("an increment").split(' ').nth(1);
    let metadata = std::fs::metadata(dir.join(name.expect("a name")));
    metadata.map_or(0, |m| m.len())
}

/// Has every count grow.
fn await_growth(what: &str, counts: &[AtomicU64; CONNECTIONS]) {
    let before: Vec<u64> = counts.iter().map(|n| n.load(Relaxed)).collect();
    until(what, || {
        let mut both = counts.iter().zip(&before);
        both.all(|(now, before)| now.load(Relaxed) > *before)
    });
}

fn is_misconf(client: &mut Client, line: &str) -> bool {
    let reply = client.try_ask(line).expect("a reply");
    reply.is_err_and(|error| error.starts_with("MISCONF Errors writing to the AOF file: "))
}

/// So that the next round begins with a short file.
fn shorten(client: &mut Client) {
    client.ask("BGREWRITEAOF");
    until("the file's renewal", || {
        client.info("aof_rewrite_in_progress") == "0"
    });
    assert_eq!(client.info("aof_last_bgrewrite_status"), "ok");
}

/// While writers write: the obstacle comes, all of them are refused, other things go on.
fn meet(obstacle: Obstacle, server: &Server, dir: &Path, traffic: &Traffic, round: u64) -> Client {
    let mut client = Client::connect(dir).expect("a connection");
    await_growth("steps", &traffic.acknowledged);
    random_wait(100);
    obstacle.set(server, dir);
    until("the failure", || {
        client.info("aof_last_write_status") == "err"
    });
    await_growth("refusals", &traffic.refused);
    assert!(is_misconf(&mut client, "PING"));
    assert!(is_misconf(&mut client, "SET x y"));
    client.ask("GET 0:n");
    match round % 3 {
        0 => drop(client.try_ask("BGREWRITEAOF").expect("a reply")),
        1 => drop(client.try_ask("BGSAVE").expect("a reply")),
        _ => {}
    }
    await_growth("further refusals", &traffic.refused);
    client
}

/// The server stays up, refuses writes, goes on when it can; then it ends in order or is killed.
/// Now and then it is killed before it can go on.
fn every_second(obstacle: Obstacle, dir: &Path) {
    let (mut models, mut tally) = (models(), Tally::default());
    let mut server = Server::start(dir, &EVERY_SECOND);
    for round in 0..rounds() {
        let mut before = Instant::now();
        let (ran, (killed, is_whole)) = crate::with_writers(dir, &models, 1, |traffic| {
            before = Instant::now();
            let mut client = meet(obstacle, &server, dir, traffic, round);
            if round % 4 == 3 {
                server.kill();
                obstacle.clear(dir);
                return (before, false);
            }
            obstacle.lift(&server, dir);
            until("recovery", || client.info("aof_last_write_status") == "ok");
            await_growth("steps after recovery", &traffic.acknowledged);
            random_wait(50);
            if round % 4 == 2 {
                // What could not be written when it was acknowledged is there by now.
                server.kill();
                return (Instant::now(), true);
            }
            traffic.stop.store(true, Relaxed);
            server.terminate();
            (Instant::now(), true)
        });
        tally.add(dir);
        server = Server::start(dir, &EVERY_SECOND);
        compare(dir, &mut models, &ran, |steps| match is_whole {
            true => steps.all_acknowledged(),
            false => steps.acknowledged_at(killed - MAY_LOSE),
        });
        shorten(&mut Client::connect(dir).expect("a connection"));
    }
    tally.print(obstacle.name("everysec"), &models);
}

/// The server ends by itself rather than acknowledge what it could not write.
fn always(obstacle: Obstacle, dir: &Path) {
    let (mut models, mut tally) = (models(), Tally::default());
    let mut server = Server::start(dir, &ALWAYS);
    for round in 0..rounds() {
        let (ran, status) = crate::with_writers(dir, &models, 1 + 3 * (round % 2), |traffic| {
            await_growth("steps", &traffic.acknowledged);
            random_wait(100);
            obstacle.set(&server, dir);
            server.wait()
        });
        assert_eq!(status.code(), Some(1));
        obstacle.clear(dir);
        tally.add(dir);
        server = Server::start(dir, &ALWAYS);
        compare(dir, &mut models, &ran, crate::Steps::all_acknowledged);
        shorten(&mut Client::connect(dir).expect("a connection"));
    }
    tally.print(obstacle.name("always"), &models);
}

impl Obstacle {
    fn name(self, policy: &str) -> &'static str {
        match (self, policy) {
            (Self::Limit, "always") => "a file that may not grow, always",
            (Self::Limit, _) => "a file that may not grow, everysec",
            (Self::FullDisk, "always") => "a full disk, always",
            (Self::FullDisk, _) => "a full disk, everysec",
        }
    }
}

#[test]
fn clients_are_refused_while_a_file_cannot_grow_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    every_second(Obstacle::Limit, dir.path());
}

#[test]
fn a_file_that_was_turned_on_is_written_again_when_it_can_grow() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path(), &["--appendonly", "no", "--save", ""]);
    let mut client = Client::connect(dir.path()).expect("a connection");
    client.ask("CONFIG SET appendonly yes");
    until("the first base", || client.has_base());
    assert_eq!(client.ask("SET a 1"), "OK");
    server.limit_files(Some(increment_len(dir.path())));
    // What fails first is kept and answered, as with Redis.
    assert_eq!(client.ask("SET a 2"), "OK");
    until("a refusal", || is_misconf(&mut client, "SET a 3"));
    server.limit_files(None);
    // Nobody asks for it.
    until("a write that succeeds", || {
        client.info("aof_last_write_status") == "ok"
    });
    assert_eq!(client.ask("SET a 4"), "OK");
    server.kill();
    let _server = Server::start(dir.path(), &EVERY_SECOND);
    let mut client = Client::connect(dir.path()).expect("a connection");
    assert_eq!(client.ask("GET a"), "4");
}

#[test]
fn nothing_is_acknowledged_that_a_file_could_not_take() {
    let dir = tempfile::tempdir().expect("a directory");
    always(Obstacle::Limit, dir.path());
}

/// Runs a test of this file again where it can mount; within, gives the disk.
fn own_disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        let disk = PathBuf::from(disk);
        assert!(mount(&disk).status().expect("mount runs").success());
        return Some(disk);
    }
    let dir = tempfile::tempdir().expect("a directory");
    let Some(flags) = ["-Urm", "-m"].into_iter().find(|flags| {
        let mut probe = Command::new("unshare");
        let (mount, probe) = (mount(dir.path()), probe.arg(flags));
        let probe = probe.arg(mount.get_program()).args(mount.get_args());
        let probe = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    }) else {
        println!("crash: skipped {test}: no mount namespace (unshare -Urm, unshare -m)");
        return None;
    };
    let status = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("faults::{test}"), "--nocapture"])
        .env(DISK, dir.path())
        .status();
    assert!(status.expect("it runs").success(), "see above");
    None
}

fn mount(at: &Path) -> Command {
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"])
        .arg(at);
    mount
}

#[test]
fn clients_are_refused_while_the_disk_is_full_and_nothing_is_lost() {
    let test = "clients_are_refused_while_the_disk_is_full_and_nothing_is_lost";
    if let Some(disk) = own_disk(test) {
        every_second(Obstacle::FullDisk, &disk);
    }
}

#[test]
fn nothing_is_acknowledged_that_a_full_disk_could_not_take() {
    let test = "nothing_is_acknowledged_that_a_full_disk_could_not_take";
    if let Some(disk) = own_disk(test) {
        always(Obstacle::FullDisk, &disk);
    }
}

/// A dump that does not fit: writes are refused until one does; the one before stays whole.
#[test]
fn a_dump_that_does_not_fit_leaves_the_one_before() {
    let test = "a_dump_that_does_not_fit_leaves_the_one_before";
    let Some(disk) = own_disk(test) else { return };
    let options = ["--save", "3600 1000000"];
    let save = |client: &mut Client, expected: &str| {
        client.ask("BGSAVE");
        until("the dump's end", || {
            client.info("rdb_bgsave_in_progress") == "0"
        });
        assert_eq!(client.info("rdb_last_bgsave_status"), expected);
    };
    let mut server = Server::start(&disk, &options);
    let mut tally = Tally::default();
    for round in 0..rounds() {
        let mut client = Client::connect(&disk).expect("a connection");
        client.ask(&format!("SET round {round}"));
        save(&mut client, "ok");
        client.ask("CONFIG SET rdbcompression no");
        client.ask("SETRANGE long 199999 x");
        fill(&disk, rand::random_range(0..150_000));
        save(&mut client, "err");
        for refused in ["SET round no", "PING"] {
            let reply = client.try_ask(refused).expect("a reply");
            let error = reply.expect_err("refused");
            assert!(error.starts_with("MISCONF Redis is configured to save RDB"));
        }
        assert_eq!(client.ask("GET round"), round.to_string());
        if round % 2 == 0 {
            server.kill();
            Obstacle::FullDisk.clear(&disk);
            tally.add(&disk);
            server = Server::start(&disk, &options);
            let mut client = Client::connect(&disk).expect("a connection");
            assert_eq!(client.ask("GET round"), round.to_string());
            assert_eq!(client.ask("EXISTS long"), "0");
            continue;
        }
        Obstacle::FullDisk.clear(&disk);
        save(&mut client, "ok");
        client.ask("SET later x");
        server.kill();
        tally.add(&disk);
        server = Server::start(&disk, &options);
        let mut client = Client::connect(&disk).expect("a connection");
        assert_eq!(client.ask("STRLEN long"), "200000");
        client.ask("DEL long");
    }
    tally.print("a dump on a full disk", &[]);
}
