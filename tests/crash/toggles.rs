//! Persistence turned on and off and over at random, on a disk that fails for a while, until the server is killed or
//! told to end: what was acknowledged is there, and once.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::server::{Client, Server, until};
use super::{EVERY_SECOND, Steps, Tally, compare, crash, models, random_wait, rounds, stalls};

/// Turns the file on and off, changes when it is synced, and asks for snapshots, at random.
const LINES: [&str; 9] = [
    "CONFIG SET appendonly yes",
    "CONFIG SET appendonly no",
    "CONFIG SET appendonly yes",
    "CONFIG SET appendfsync everysec",
    "CONFIG SET appendfsync no",
    "BGREWRITEAOF",
    "BGSAVE",
    "SHUTDOWN ABORT",
    // The last one: where the disk fails this ends the server.
    "CONFIG SET appendfsync always",
];
/// Ways to end.
const ENDS: [&str; 8] = [
    "SHUTDOWN",
    "SHUTDOWN NOW",
    "SHUTDOWN SAVE",
    "SHUTDOWN SAVE NOW",
    "SHUTDOWN NOSAVE",
    "SHUTDOWN NOSAVE NOW",
    "SIGTERM",
    "SIGKILL",
];
/// What fails while a file of this name is there.
const FAILURES: [&str; 3] = ["fail-write", "fail-sync", "fail-dump"];

fn any<'a>(of: &[&'a str]) -> &'a str {
    of[rand::random_range(0..of.len())]
}

fn toggle(client: &mut Client) {
    for _ in 0..rand::random_range(5..40) {
        // A snapshot may be under way.
        let _ = client.try_ask(any(&LINES)).expect("a reply");
        random_wait(rand::random_range(1..20));
    }
    turn_on(client);
    random_wait(100);
}

fn turn_on(client: &mut Client) {
    client.ask("CONFIG SET appendonly yes");
    until("the first base", || client.has_base());
    assert_eq!(client.info("aof_enabled"), "1");
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_however_the_file_is_turned_on_and_off() {
    let options = [&EVERY_SECOND[..], &["--enable-debug-command", "yes"]].concat();
    let during = |client: &mut Client, _| toggle(client);
    let run_for = Duration::from_millis(100);
    crash("toggled", &options, run_for, during, |steps, _| {
        steps.all_acknowledged()
    });
}

/// What a server begins with that has ended, so that it finds all that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    File,
    Dump,
}

impl Left {
    fn options(self) -> [&'static str; 4] {
        match self {
            Self::File => ["--appendonly", "yes", "--save", ""],
            Self::Dump => ["--appendonly", "no", "--save", ""],
        }
    }
}

/// A server on a disk that fails when it is told to.
struct Disk<'a> {
    dir: &'a Path,
    library: &'a Path,
    server: Server,
    /// It has failed since the server began. A failed sync may be noticed late, and who has to sync by then ends.
    failed: bool,
    ends: u64,
    refused: u64,
}

impl Disk<'_> {
    fn fail(&self, what: &str) {
        std::fs::write(self.dir.join(what), "").expect("a file");
    }

    /// All works again.
    fn recover(&self) {
        for what in FAILURES {
            let _ = std::fs::remove_file(self.dir.join(what));
        }
    }

    /// Has the disk fail for a while, during which anything may be asked for; what is left when the server
    /// has ended meanwhile.
    fn fails_for_a_while(&mut self, client: &mut Client) -> io::Result<Option<Left>> {
        // Else it ends by itself, as it has to.
        self.failed = true;
        let _ = client.try_ask(any(&LINES[3..5]))?;
        for _ in 0..rand::random_range(1..3) {
            self.fail(any(&FAILURES));
        }
        for _ in 0..rand::random_range(1..6) {
            random_wait(rand::random_range(1..80));
            if rand::random_bool(0.2)
                && let Some(left) = self.try_to_end(client, any(&ENDS[..6]))?
            {
                return Ok(Some(left));
            }
            let _ = client.try_ask(any(&LINES[..8]))?;
        }
        self.recover();
        until("recovery", || {
            client.info("aof_enabled") == "0" || client.info("aof_last_write_status") == "ok"
        });
        Ok(None)
    }

    /// Has the server end, where that leaves everything on the disk; nothing if it refuses to.
    fn try_to_end(&mut self, client: &mut Client, how: &str) -> io::Result<Option<Left>> {
        let has_file = client.info("aof_enabled") == "1";
        let saves = how.contains(" SAVE");
        let left = match (has_file, saves) {
            (true, _) => Left::File,
            (false, true) => Left::Dump,
            // Nothing is promised.
            (false, false) => return Ok(None),
        };
        if how.starts_with("SIG") {
            // It may have failed to write the first one, and does so again later.
            if !client.has_base() || client.info("aof_last_bgrewrite_status") != "ok" {
                return Ok(None);
            }
            self.server.signal(how == "SIGKILL");
        } else {
            client.send(&format!("{how}\r\n"))?;
            if let Ok(refusal) = client.read() {
                let refusal = refusal.expect_err("no other reply");
                assert!(
                    refusal.starts_with("ERR Errors trying to SHUTDOWN"),
                    "{refusal}"
                );
                self.refused += 1;
                return Ok(None);
            }
        }
        until("its end", || self.server.has_ended());
        self.ends += 1;
        Ok(Some(left))
    }

    /// What the server said at last.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Toggles until the server has ended.
    fn run(&mut self) -> Left {
        let mut client = Client::connect(self.dir).expect("a connection");
        let mut steps = rand::random_range(5..25);
        loop {
            steps -= 1;
            let left = match rand::random_range(0..10) {
                _ if steps <= 0 => {
                    client.ask("CONFIG SET appendonly yes");
                    // After failures it would be tried again in minutes.
                    until("a base", || {
                        let is_there = client.info("aof_last_bgrewrite_status") == "ok";
                        let begins = !is_there && client.try_ask("BGREWRITEAOF").is_ok();
                        !begins && client.has_base()
                    });
                    self.try_to_end(&mut client, any(&ENDS))
                }
                0 | 1 => self.fails_for_a_while(&mut client),
                2 => self.try_to_end(&mut client, any(&ENDS)),
                _ if self.failed => client.try_ask(any(&LINES[..8])).map(|_| None),
                _ => client.try_ask(any(&LINES)).map(|_| None),
            };
            if let Some(left) = left.unwrap_or_else(|error| panic!("{error}; {}", self.log())) {
                return left;
            }
            random_wait(rand::random_range(1..20));
        }
    }

    fn restart(&mut self, left: Left) {
        self.recover();
        self.failed = false;
        self.server = Server::start_preloaded(self.dir, &left.options(), Some(self.library));
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_however_the_server_ends_and_the_disk_fails() {
    let (dir, apart) = (tempfile::tempdir(), tempfile::tempdir());
    let (dir, apart) = (dir.expect("a directory"), apart.expect("a directory"));
    let Some(library) = stalls::library(apart.path()) else {
        println!("no C compiler: not run");
        return;
    };
    let dir = dir.path();
    let (mut models, mut tally) = (models(), Tally::default());
    let server = Server::start_preloaded(dir, &Left::File.options(), Some(&library));
    let mut disk = Disk {
        dir,
        library: &library,
        server,
        failed: false,
        ends: 0,
        refused: 0,
    };
    for _ in 0..3 * rounds() {
        let (ran, left) = super::with_writers(dir, &models, 1, |_| disk.run());
        tally.add(dir);
        disk.restart(left);
        compare(dir, &mut models, &ran, Steps::all_acknowledged);
    }
    let what = format!(
        "toggled on a failing disk: {} ended in order, {} were refused",
        disk.ends, disk.refused
    );
    tally.print(&what, &models);
}
