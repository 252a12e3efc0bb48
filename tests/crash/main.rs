//! The server killed in the middle of writes, and what is left: nothing that was acknowledged is
//! lost beyond what the parameters allow, and nothing is there in part. The same when writes fail,
//! because a file may not grow or the disk is full: see `faults`.
//!
//! Each connection takes numbered steps on keys of its own, whose effect depends on the number
//! alone. So what a connection finds after a restart must be what a model holds after some number
//! of steps: at least those that had to be on disk, at most those that were sent. Transfers
//! between accounts that all share show that transactions are whole across connections.
//!
//! `TESSERA_CRASH_ROUNDS` sets how often each server is killed.

mod faults;
mod model;
mod server;
mod stalls;
mod toggles;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use model::{ACCOUNTS, Model, found, step};
use server::{Client, Server, until};

/// The parameters of a server that syncs its append-only file every second,
const EVERY_SECOND: [&str; 4] = ["--appendonly", "yes", "--save", ""];
/// and of one that does before it answers.
const ALWAYS: [&str; 6] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--save",
    "",
];
const CONNECTIONS: usize = 8;
/// Steps on their way at once.
const PIPELINE: u64 = 4;
/// What is lost of what was acknowledged while a write failed and the server had not noticed.
const MAY_LOSE: Duration = Duration::from_millis(1500);

/// How often each server is killed.
fn rounds() -> u64 {
    let rounds = std::env::var("TESSERA_CRASH_ROUNDS").ok();
    rounds.map_or(3, |n| n.parse().expect("TESSERA_CRASH_ROUNDS is a number"))
}

/// What a connection did until it broke.
struct Steps {
    /// Steps of earlier rounds.
    first: u64,
    sent: u64,
    /// When each step was acknowledged, from that on with which the connection began.
    acknowledged: Vec<Instant>,
}

impl Steps {
    /// Those that were acknowledged at a moment, and those of earlier rounds.
    fn acknowledged_at(&self, moment: Instant) -> u64 {
        self.first + self.acknowledged.iter().filter(|at| **at <= moment).count() as u64
    }

    fn all_acknowledged(&self) -> u64 {
        self.first + self.acknowledged.len() as u64
    }
}

/// What the connections that write tell, and are told.
#[derive(Default)]
struct Traffic {
    /// Steps that were acknowledged, by connection.
    acknowledged: [AtomicU64; CONNECTIONS],
    /// Steps that were refused with MISCONF, by connection.
    refused: [AtomicU64; CONNECTIONS],
    stop: AtomicBool,
}

/// Takes steps from `first` on until the server is gone or `traffic` stops. A step that is refused
/// is taken again; that only goes with a `pipeline` of 1.
fn run(dir: &Path, own: usize, first: u64, pipeline: u64, traffic: &Traffic) -> Steps {
    let mut steps = Steps {
        first,
        sent: first,
        acknowledged: Vec::new(),
    };
    let Ok(mut client) = Client::connect(dir) else {
        return steps;
    };
    while !traffic.stop.load(Relaxed) {
        let batch: Vec<_> = (steps.sent..steps.sent + pipeline)
            .map(|i| step(own, i))
            .collect();
        let text: String = batch.iter().map(|(text, _)| &text[..]).collect();
        steps.sent += pipeline;
        if client.send(&text).is_err() {
            return steps;
        }
        for (text, replies) in batch {
            let mut refused = false;
            for _ in 0..replies {
                match client.read() {
                    Ok(Ok(_)) => {}
                    Ok(Err(e)) if e.starts_with("MISCONF") || e.starts_with("EXECABORT") => {
                        refused = true;
                    }
                    Ok(Err(error)) => panic!("{text}: {error}"),
                    Err(_) => return steps,
                }
            }
            if refused {
                assert_eq!(pipeline, 1, "what follows must not overtake it");
                steps.sent -= 1;
                traffic.refused[own].fetch_add(1, Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            } else {
                steps.acknowledged.push(Instant::now());
                traffic.acknowledged[own].fetch_add(1, Relaxed);
            }
        }
    }
    steps
}

/// Has all connections write while `during` runs.
fn with_writers<T>(
    dir: &Path,
    models: &[Model],
    pipeline: u64,
    during: impl FnOnce(&Traffic) -> T,
) -> (Vec<Steps>, T) {
    let traffic = &Traffic::default();
    std::thread::scope(|scope| {
        let writers: Vec<_> = models
            .iter()
            .enumerate()
            .map(|(own, model)| {
                let first = model.steps;
                scope.spawn(move || run(dir, own, first, pipeline, traffic))
            })
            .collect();
        let result = during(traffic);
        let ran = writers.into_iter().map(|w| w.join().expect("no errors"));
        (ran.collect(), result)
    })
}

fn models() -> Vec<Model> {
    (0..CONNECTIONS).map(|_| Model::default()).collect()
}

/// Has the models take as many steps as each connection's keys hold: between `least` and what was
/// sent.
fn compare(dir: &Path, models: &mut [Model], ran: &[Steps], least: impl Fn(&Steps) -> u64) {
    let mut client = Client::connect(dir).expect("a connection");
    for (own, (model, steps)) in models.iter_mut().zip(ran).enumerate() {
        let least = least(steps);
        let found = found(&mut client, own);
        while model.steps < least {
            model.advance();
        }
        let at_least = model.text();
        // The first line tells most differences apart, at less cost than the whole text.
        while !found.starts_with(&model.number_line()) || model.text() != found {
            assert!(
                model.steps < steps.sent,
                "connection {own} began with step {}, sent {}, of which {least} must be there:\n\
                 {at_least}\nBut there is:\n{found}\nand the model ends with:\n{}",
                steps.first,
                steps.sent,
                model.text()
            );
            model.advance();
        }
    }
    let accounts: Vec<String> = (0..ACCOUNTS).map(|a| format!("account:{a}")).collect();
    let sums = client.ask(&format!("MGET {}", accounts.join(" ")));
    let sum: i64 = sums.split(' ').map(|n| n.parse().unwrap_or(0)).sum();
    assert_eq!(sum, 0, "a transfer is there in part: {sums}");
}

/// In the middle of what a server was killed, as its files tell.
fn stage(dir: &Path) -> Vec<&'static str> {
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.collect::<Vec<String>>()
    };
    let appended = dir.join("appendonlydir");
    let manifest = appended.join("appendonly.aof.manifest");
    let manifest = std::fs::read_to_string(manifest).unwrap_or_default();
    let bases = names(&appended);
    let bases = bases.iter().filter(|n| n.contains(".base.")).count();
    let here = names(dir);
    let has = |prefix: &str, suffix: &str| {
        here.iter()
            .any(|n| n.starts_with(prefix) && n.ends_with(suffix))
    };
    let mut stages = Vec::new();
    let mut add = |is: bool, name| stages.extend(is.then_some(name));
    add(has("temp-rewriteaof", ""), "a base being written");
    add(has("temp-", ".rdb"), "a dump being written");
    add(
        manifest.matches("type i").count() > 1,
        "two increments in the manifest",
    );
    add(manifest.contains("type h"), "history in the manifest");
    add(bases > 1, "two bases in the directory");
    add(
        names(&appended).iter().any(|n| n.starts_with("temp-")),
        "a manifest being written",
    );
    stages
}

/// Counts in the middle of what servers were killed.
#[derive(Default)]
struct Tally {
    rounds: u64,
    stages: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, dir: &Path) {
        self.rounds += 1;
        for stage in stage(dir) {
            *self.stages.entry(stage).or_default() += 1;
        }
        // Nobody else removes what was left incomplete, and the next round shall not count it.
        for dir in [dir, &dir.join("appendonlydir")] {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(b"temp-") {
                    std::fs::remove_file(entry.path()).expect("it is there");
                }
            }
        }
    }

    fn print(&self, what: &str, models: &[Model]) {
        let steps: u64 = models.iter().map(|m| m.steps).sum();
        println!(
            "crash: {} rounds, {what}; {steps} steps; ended in the middle of: {:?}",
            self.rounds, self.stages
        );
    }
}

/// Starts a server again and again, has `during` do something while connections write, and kills
/// it. `least`: how many steps must be there, of a connection, when it was killed at a moment.
fn crash(
    what: &str,
    options: &[&str],
    run_for: Duration,
    during: impl Fn(&mut Client, u64),
    least: impl Fn(&Steps, Instant) -> u64,
) {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let mut models = models();
    let mut tally = Tally::default();
    let mut server = Server::start(dir, options);
    for round in 0..rounds() {
        let (ran, killed) = with_writers(dir, &models, PIPELINE, |_| {
            let mut client = Client::connect(dir).expect("a connection");
            std::thread::sleep(run_for.mul_f64(rand::random_range(0.3..1.0)));
            during(&mut client, round);
            let killed = Instant::now();
            server.kill();
            killed
        });
        tally.add(dir);
        server = Server::start(dir, options);
        compare(dir, &mut models, &ran, |steps| least(steps, killed));
    }
    tally.print(what, &models);
}

fn random_wait(at_most_ms: u64) {
    std::thread::sleep(Duration::from_micros(rand::random_range(
        0..at_most_ms * 1000,
    )));
}

/// Has one begun. Another, by itself, may be under way.
fn snapshot(client: &mut Client, line: &str) {
    until("a snapshot", || {
        client.try_ask(line).expect("a reply").is_ok()
    });
}

/// Has the base written anew, quickly or slowly, once or all the time, or a dump, or nothing; and
/// waits for a random moment of that.
fn renew(client: &mut Client, round: u64) {
    match round % 5 {
        0 => {
            snapshot(client, "BGREWRITEAOF");
            random_wait(30);
        }
        1 => {
            let end = Instant::now() + Duration::from_millis(rand::random_range(50..150));
            while Instant::now() < end {
                // It may still be under way.
                let _ = client.try_ask("BGREWRITEAOF").expect("a reply");
                random_wait(2);
            }
        }
        2 | 3 => {
            client.ask("CONFIG SET rdb-key-save-delay 1000");
            let save = if round % 5 == 2 {
                "BGREWRITEAOF"
            } else {
                "BGSAVE"
            };
            snapshot(client, save);
            random_wait(60);
        }
        _ => {}
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_every_write_is_synced() {
    let run_for = Duration::from_millis(600);
    crash("appendfsync always", &ALWAYS, run_for, renew, |steps, _| {
        steps.all_acknowledged()
    });
}

#[test]
fn nothing_acknowledged_is_lost_with_the_process_when_it_is_synced_every_second() {
    let options = [&EVERY_SECOND[..], &["--aof-use-rdb-preamble", "no"]].concat();
    let run_for = Duration::from_millis(1200);
    crash(
        "appendfsync everysec",
        &options,
        run_for,
        renew,
        |steps, _| steps.all_acknowledged(),
    );
}

#[test]
fn nothing_acknowledged_is_lost_with_the_process_when_it_is_never_synced() {
    let options = [
        &EVERY_SECOND[..],
        &["--appendfsync", "no", "--io-threads", "4"],
    ]
    .concat();
    let run_for = Duration::from_millis(600);
    crash("appendfsync no", &options, run_for, renew, |steps, _| {
        steps.all_acknowledged()
    });
}

#[test]
fn a_dump_is_the_data_set_of_one_moment() {
    let options = ["--save", ""];
    let saved = std::sync::Mutex::new(None);
    let during = |client: &mut Client, round: u64| {
        let begin = Instant::now();
        if round.is_multiple_of(2) {
            client.ask("SAVE");
            *saved.lock().expect("no panic") = Some(begin);
        } else {
            client.ask("CONFIG SET rdb-key-save-delay 500");
            client.ask("BGSAVE");
        }
        random_wait(60);
    };
    let run_for = Duration::from_millis(600);
    crash("dumps", &options, run_for, during, |steps, _| {
        // The last round's dump is what later ones begin with, so its first step is never lost.
        let saved = *saved.lock().expect("no panic");
        saved.map_or(steps.first, |saved| steps.acknowledged_at(saved))
    });
}
