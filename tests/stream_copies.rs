//! What copies of a stream know of its groups, in a log that is played back, in one that was rewritten,
//! and on a replica: how much was read, who reads. The replica is a Redis 7.0, where one is installed.

mod sockets;

use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::Command;

use sockets::{Client, Server, eventually};

const COMMANDS_IN_FILES: &[&str] = &[
    "--appendonly",
    "yes",
    "--aof-use-rdb-preamble",
    "no",
    "--enable-debug-command",
    "yes",
];

/// A stream that was read by groups in different ways.
fn read_in_groups(client: &mut Client) {
    for id in 1..=6 {
        client.ask(&format!("XADD x {id}-0 f v"));
    }
    for group in ["acks", "noack", "all", "part"] {
        assert_eq!(client.ask(&format!("XGROUP CREATE x {group} 0")), "+OK");
    }
    client.ask("XREADGROUP GROUP acks c COUNT 1 STREAMS x >");
    client.ask("XREADGROUP GROUP acks c COUNT 2 STREAMS x >");
    client.ask("XREADGROUP GROUP noack c COUNT 4 NOACK STREAMS x >");
    client.ask("XREADGROUP GROUP all c STREAMS x >");
    client.ask("MULTI");
    client.ask("XREADGROUP GROUP part c COUNT 1 STREAMS x >");
    client.ask("EXEC");
    client.ask("XGROUP CREATECONSUMER x part idle");
}

const READ: &str = "name acks consumers :1 pending :3 last-delivered-id 3-0 entries-read :3 lag :3 \
                    name all consumers :1 pending :6 last-delivered-id 6-0 entries-read :6 lag :0 \
                    name noack consumers :1 pending :0 last-delivered-id 4-0 entries-read :4 lag :2 \
                    name part consumers :2 pending :1 last-delivered-id 1-0 entries-read :1 lag :5";

#[test]
fn how_much_was_read_is_known_after_the_log_was_played_back() {
    let server = Server::start(COMMANDS_IN_FILES);
    let mut client = server.client();
    read_in_groups(&mut client);
    assert_eq!(client.ask("XINFO GROUPS x"), READ);
    assert_eq!(client.ask("DEBUG LOADAOF"), "+OK");
    assert_eq!(client.ask("XINFO GROUPS x"), READ);
    rewrite(&mut client);
    assert_eq!(client.ask("DEBUG LOADAOF"), "+OK");
    assert_eq!(client.ask("XINFO GROUPS x"), READ);
}

fn rewrite(client: &mut Client) {
    assert!(client.ask("BGREWRITEAOF").starts_with("+Background"));
    eventually(|| {
        let info = client.ask("INFO persistence");
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    });
}

#[test]
fn consumers_that_have_nothing_pending_survive_a_rewrite() {
    let server = Server::start(COMMANDS_IN_FILES);
    let mut client = server.client();
    for id in 1..=3 {
        client.ask(&format!("XADD x {id}-0 f v"));
    }
    client.ask("XGROUP CREATE x g 0");
    client.ask("XGROUP CREATECONSUMER x g never");
    client.ask("XREADGROUP GROUP g done COUNT 1 STREAMS x >");
    client.ask("XACK x g 1-0");
    client.ask("XREADGROUP GROUP g deleted COUNT 1 STREAMS x >");
    client.ask("XREADGROUP GROUP g holds COUNT 1 STREAMS x >");
    client.ask("XDEL x 2-0");
    rewrite(&mut client);
    assert_eq!(client.ask("DEBUG LOADAOF"), "+OK");
    let consumers = client.ask("XINFO CONSUMERS x g");
    let names: Vec<&str> = consumers.split(' ').skip(1).step_by(6).collect();
    assert_eq!(names, ["deleted", "done", "holds", "never"], "{consumers}");
    let group = client.ask("XINFO GROUPS x");
    assert!(group.contains("pending :1"), "{group}");
}

/// A server on a port of its own, and the port.
fn on_a_port(program: &OsStr, options: &[&str]) -> (Server, u16) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let text = port.to_string();
        let options = [&["--port", &text], options].concat();
        // Somebody else may have taken it.
        if let Some(server) = Server::try_start(program, &[], &options) {
            return (server, port);
        }
    }
}

#[test]
fn a_redis_that_follows_knows_how_much_was_read() {
    let version = Command::new("redis-server").arg("--version").output();
    if !version.is_ok_and(|v| String::from_utf8_lossy(&v.stdout).contains("v=7.0.")) {
        println!("no Redis 7.0: not run");
        return;
    }
    let options = ["--repl-diskless-sync-delay", "0"];
    let (primary, port) = on_a_port(&sockets::under_test(), &options);
    let place = format!("127.0.0.1 {port}");
    let (replica, _) = on_a_port(OsStr::new("redis-server"), &["--replicaof", &place]);
    let (mut client, mut follower) = (primary.client(), replica.client());
    eventually(|| {
        follower
            .ask("INFO replication")
            .contains("master_link_status:up")
    });
    read_in_groups(&mut client);
    assert_eq!(client.ask("WAIT 1 60000"), ":1");
    assert_eq!(follower.ask("XINFO GROUPS x"), READ);
}
