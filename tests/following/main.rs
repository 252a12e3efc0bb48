//! The server follows a primary: ours, a real Redis 7.0 or a Valkey; is followed itself; and changes its role.
//!
//! Where it can be shown to a real Redis, the same is expected of it ([`kinds`]). What needs one is
//! skipped where none is installed.

mod conduct;
mod hostile;
mod interop;
#[path = "../replicas/mod.rs"]
mod replicas;
mod roles;
#[path = "../sockets/mod.rs"]
mod sockets;

use std::ffi::OsString;

use replicas::{Server, assert_same, info, is_redis_installed};
use sockets::{Client, eventually, under_test};

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Real,
}

use Kind::{Ours, Real};

/// All kinds that there are here.
fn kinds() -> Vec<Kind> {
    match is_redis_installed() {
        true => vec![Ours, Real],
        false => vec![Ours],
    }
}

/// What all are started with: nobody waits for others that might come, and the backlog holds what is
/// written while a link is cut.
const COMMON: [&str; 4] = [
    "--repl-diskless-sync-delay",
    "0",
    "--repl-backlog-size",
    "64mb",
];

impl Kind {
    fn program(self) -> OsString {
        match self {
            Ours => under_test(),
            Real => "redis-server".into(),
        }
    }

    /// A primary.
    fn start(self, options: &[&str]) -> Server {
        Server::start(&self.program(), &[&COMMON[..], options].concat())
    }

    /// One that follows, in step.
    fn follow(self, primary: &Server, options: &[&str]) -> Server {
        let place = format!("127.0.0.1 {}", primary.port);
        let replica = self.start(&[&["--replicaof", &place], options].concat());
        await_link(&replica);
        replica
    }
}

/// Orders `server` to follow `primary`, as soon as it is not loading.
fn order(server: &Server, primary: &Server) {
    let line = format!("REPLICAOF 127.0.0.1 {}", primary.port);
    let mut client = server.client();
    let mut reply = String::new();
    eventually(|| {
        reply = client.ask(&line);
        !reply.starts_with("-LOADING")
    });
    assert_eq!(reply, "+OK");
}

fn is_linked(client: &mut Client) -> bool {
    let text = client.ask("INFO replication");
    text.contains("master_link_status:up")
}

fn await_link(replica: &Server) {
    let mut client = replica.client();
    eventually(|| is_linked(&mut client));
}

fn offset(client: &mut Client) -> u64 {
    info(client, "replication", "master_repl_offset")
}

/// Awaits that both are at the same offset, and asserts that they hold the same.
fn assert_in_step(primary: &Server, replica: &Server) {
    let (mut here, mut there) = (primary.client(), replica.client());
    eventually(|| is_linked(&mut there));
    eventually(|| offset(&mut here) == offset(&mut there));
    assert_same(primary, replica);
    eventually(|| offset(&mut here) == offset(&mut there));
}

/// How many full syncs a server has served, and how many partial ones.
fn syncs(server: &Server) -> (u64, u64) {
    let mut client = server.client();
    let mut count = |field| info(&mut client, "stats", field);
    (count("sync_full"), count("sync_partial_ok"))
}

/// No key will expire any more.
fn persist(client: &mut Client) {
    for db in 0..3 {
        client.ask(&format!("SELECT {db}"));
        for key in client.ask("KEYS *").split(' ') {
            client.ask(&format!("PERSIST {key}"));
        }
    }
}

/// What a server of ours has logged that was started with `--logfile log`.
fn log(server: &Server) -> String {
    std::fs::read_to_string(server.path("log")).expect("a log")
}

/// What tells whether the data set is the same.
fn digest_of(server: &Server) -> String {
    replicas::digest(server)
}
