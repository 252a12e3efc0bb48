//! Replies that may be of any length end at the client's output limit, and the client with them.

mod sockets;

use sockets::{PATIENCE, Server};

#[test]
fn endless_samples_stop_at_the_limit() {
    let limit = "normal 1000000 0 0";
    let server = Server::start(&["--client-output-buffer-limit", limit]);
    let mut client = server.client();
    client.ask("SADD set a b");
    client.ask("HSET hash a b");
    client.ask("ZADD zset 1 a 2 b");
    for request in [
        "SRANDMEMBER set -999999999",
        "HRANDFIELD hash -999999999",
        "HRANDFIELD hash -999999999 WITHVALUES",
        "ZRANDMEMBER zset -999999999 WITHSCORES",
    ] {
        let mut greedy = server.client();
        greedy.send(request);
        assert!(greedy.is_closed(), "{request} within {PATIENCE:?}");
    }
    let memory = client.ask("INFO memory");
    let peak = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_peak:"))
        .and_then(|bytes| bytes.parse::<u64>().ok());
    assert!(peak.is_some_and(|bytes| bytes < 64 << 20), "{memory}");
}

/// A server with a list of a megabyte and a limit of eight, and a client of it.
fn server_with_a_list() -> (Server, sockets::Client) {
    let limit = "normal 8000000 0 0";
    let debug = ["--enable-debug-command", "yes"];
    let server = Server::start(&[&["--client-output-buffer-limit", limit][..], &debug].concat());
    let mut client = server.client();
    let element = "x".repeat(1000);
    let mut push = vec!["RPUSH", "list"];
    push.resize(1002, &element);
    client.send_args(&push);
    assert_eq!(client.read(), ":1000");
    (server, client)
}

fn peak(client: &mut sockets::Client) -> u64 {
    let memory = client.ask("INFO memory");
    let peak = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_peak:"));
    peak.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

#[test]
fn a_transaction_stops_replying_at_the_limit_and_runs_to_its_end() {
    let (server, mut client) = server_with_a_list();
    let before = peak(&mut client);
    let mut greedy = server.client();
    let reads = "LRANGE list 0 -1\r\n".repeat(100);
    greedy.send(&format!("MULTI\r\n{reads}SET done 1\r\nEXEC"));
    assert!(greedy.is_closed());
    assert_eq!(client.ask("GET done"), "1");
    let grown = peak(&mut client) - before;
    assert!(grown < 16 << 20, "{grown}");
}

#[test]
fn requests_behind_a_wait_stop_at_the_limit() {
    let (server, mut client) = server_with_a_list();
    let before = peak(&mut client);
    let mut greedy = server.client();
    let reads = "LRANGE list 0 -1\r\n".repeat(100);
    greedy.send(&format!("BLPOP q 0\r\n{reads}SET done 1"));
    sockets::eventually(|| client.ask("INFO clients").contains("blocked_clients:1"));
    assert_eq!(client.ask("RPUSH q 1"), ":1");
    assert!(greedy.is_closed());
    // What follows is not run: the client was to be closed.
    assert_eq!(client.ask("GET done"), "$-1");
    let grown = peak(&mut client) - before;
    assert!(grown < 16 << 20, "{grown}");
}

#[test]
fn what_the_reply_buffer_has_room_for_does_not_count() {
    let (server, mut control) = server_with_a_list();
    assert_eq!(control.ask("DEBUG REPLYBUFFER RESIZING 0"), "+OK");
    let mut client = server.client();
    control.ask("CONFIG SET client-output-buffer-limit 'normal 1000 0 0'");
    for _ in 0..3 {
        assert_eq!(client.ask("LRANGE list 0 14").len(), 15 * 1001 - 1);
    }
    client.send("LRANGE list 0 16");
    assert!(client.is_closed());
}

#[test]
fn replies_that_nobody_gets_reach_no_limit() {
    let (server, mut control) = server_with_a_list();
    let before = peak(&mut control);
    let mut client = server.client();
    let reads = "LRANGE list 0 -1\r\n".repeat(20);
    client.send(&format!(
        "CLIENT REPLY OFF\r\n{reads}MULTI\r\n{reads}EXEC\r\nCLIENT REPLY ON"
    ));
    assert_eq!(client.read(), "+OK");
    assert_eq!(client.ask("PING"), "+PONG");
    let grown = peak(&mut control) - before;
    assert!(grown < 4 << 20, "{grown}");
}

#[test]
fn a_client_at_its_limit_is_logged_as_redis_does() {
    let limit = "normal 1000000 0 0";
    let options = ["--client-output-buffer-limit", limit, "--logfile", "log"];
    let server = Server::start(&options);
    let mut client = server.client();
    client.ask("SADD set a");
    let mut greedy = server.client();
    greedy.send("SRANDMEMBER set -999999");
    assert!(greedy.is_closed());
    let log = std::fs::read_to_string(server.path("log")).expect("a log");
    let line = log.lines().find(|line| {
        line.contains(" scheduled to be closed ASAP for overcoming of output buffer limits.")
    });
    let line = line.expect("the line");
    let omem = line
        .split(' ')
        .find_map(|field| field.strip_prefix("omem="));
    let omem = omem.and_then(|bytes| bytes.parse::<u64>().ok());
    assert!(omem.is_some_and(|bytes| bytes >= 1_000_000), "{line}");
}
