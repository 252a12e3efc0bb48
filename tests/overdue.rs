//! Scripts that run for long: whoever else is served beside one, on its worker or on another, is served fully or
//! hears that the server is busy; nobody waits for its end without need.

mod sockets;

use std::io::Write;

use sockets::{Client, Server, eventually};

/// One worker, and a script is overdue at once.
const ONE: [&str; 4] = ["--io-threads", "1", "--busy-reply-threshold", "20"];
const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";

/// Runs a script without an end, with these keys; returns when it is overdue.
fn run_for_ever(server: &Server, keys: &[&str]) -> Client {
    let mut runs = server.client();
    let count = keys.len().to_string();
    let script = [&["EVAL", "while true do end", &count][..], keys].concat();
    runs.send_args(&script);
    let mut looks = server.client();
    eventually(|| looks.ask("DBSIZE").starts_with("-BUSY"));
    runs
}

fn kill(client: &mut Client, mut runs: Client) {
    assert_eq!(client.ask("SCRIPT KILL"), "+OK");
    let reply = runs.read();
    assert!(reply.contains("Script killed by user"), "{reply}");
}

#[test]
fn a_key_that_is_moved_to_one_that_a_script_holds_is_moved_when_it_ends() {
    for workers in ["1", "4"] {
        let options = ["--io-threads", workers, "--busy-reply-threshold", "20"];
        let server = Server::start(&options);
        let (mut waits, mut client) = (server.client(), server.client());
        waits.send("BLMOVE from to LEFT RIGHT 0");
        eventually(|| client.ask("INFO clients").contains("blocked_clients:1"));
        let runs = run_for_ever(&server, &["to"]);
        assert_eq!(client.ask("LPUSH from v"), ":1");
        assert_eq!(client.ask("LRANGE to 0 -1"), BUSY);
        kill(&mut client, runs);
        assert_eq!(waits.read(), "v");
        assert_eq!(client.ask("LRANGE to 0 -1"), "v");
    }
}

#[test]
fn all_that_came_behind_a_script_is_answered() {
    let server = Server::start(&ONE);
    let mut client = server.client();
    let script = b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n";
    let pings = "PING\r\n".repeat(500);
    let stream = client.0.get_mut();
    stream.write_all(script).expect("room");
    stream.write_all(pings.as_bytes()).expect("room");
    let mut other = server.client();
    eventually(|| other.ask("DBSIZE").starts_with("-BUSY"));
    assert_eq!(other.ask("SCRIPT KILL"), "+OK");
    assert!(client.read().contains("Script killed by user"));
    for n in 0..500 {
        assert_eq!(client.read(), "+PONG", "{n}");
    }
}

#[test]
fn what_came_with_a_script_has_the_time_of_now() {
    let options = ["--enable-debug-command", "yes"];
    let server = Server::start(&[&ONE[..], &options].concat());
    let (mut other, mut first, mut second) = (server.client(), server.client(), server.client());
    // The worker has had a script, some time ago.
    first.send_args(&["EVAL", "return 1", "0"]);
    assert_eq!(first.read(), ":1");
    let mut now = || {
        let time = other.ask("TIME");
        let (seconds, micros) = time.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse::<i64>().expect("a number");
        number(seconds) * 1000 + number(micros) / 1000
    };
    let begun = now();
    eventually(|| now() > begun + 100);
    let before = now();
    // What comes while all stands still is served in one turn, the second in the middle of the script.
    assert_eq!(second.ask("PING"), "+PONG");
    other.send("DEBUG SLEEP 0.1");
    first.send_args(&["EVAL", "while true do end", "1", "held"]);
    second.send("SET key v PX 60000");
    other.read();
    eventually(|| other.ask("DBSIZE").starts_with("-BUSY"));
    assert_eq!(second.read(), "+OK");
    let expires: i64 = second.ask("PEXPIRETIME key")[1..]
        .parse()
        .expect("a number");
    assert!(
        expires >= before + 60_000,
        "{expires} is before {before} + 60000"
    );
    kill(&mut other, first);
}

#[test]
fn replies_beside_a_script_wait_for_the_disk_only() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Server::start(&[&ONE[..], &options].concat());
    let mut client = server.client();
    eventually(|| {
        client
            .ask("INFO persistence")
            .contains("aof_rewrite_in_progress:0")
    });
    let runs = run_for_ever(&server, &["held"]);
    for n in 0..20 {
        assert_eq!(client.ask(&format!("SET other {n}")), "+OK");
    }
    kill(&mut client, runs);
}

#[test]
fn whoever_leaves_beside_a_script_waits_for_nothing() {
    let server = Server::start(&ONE);
    let (mut follows, mut client) = (server.client(), server.client());
    let id = client.ask("CLIENT ID").replace(':', "");
    let tracking = format!("CLIENT TRACKING ON REDIRECT {id} BCAST");
    assert_eq!(follows.ask(&tracking), "+OK");
    let runs = run_for_ever(&server, &["held"]);
    assert_eq!(follows.ask("RESET"), "+RESET");
    assert_eq!(client.ask("SET other 1"), "+OK");
    kill(&mut client, runs);
}

#[test]
fn a_transaction_with_a_script_that_waited_for_a_pause_makes_turns() {
    let server = Server::start(&ONE);
    let (mut client, mut other) = (server.client(), server.client());
    assert_eq!(client.ask("MULTI"), "+OK");
    client.send_args(&["EVAL", "while true do end", "0"]);
    assert_eq!(client.read(), "+QUEUED");
    assert_eq!(other.ask("CLIENT PAUSE 60000 WRITE"), "+OK");
    client.send("EXEC");
    eventually(|| other.ask("CLIENT LIST").contains("cmd=exec"));
    assert_eq!(other.ask("CLIENT UNPAUSE"), "+OK");
    eventually(|| other.ask("DBSIZE").starts_with("-BUSY"));
    assert_eq!(other.ask("SCRIPT KILL"), "+OK");
    assert!(client.read().contains("Script killed by user"));
}

#[test]
fn walks_on_other_workers_hear_that_a_script_runs() {
    let server = Server::start(&["--io-threads", "2", "--busy-reply-threshold", "1000"]);
    let mut clients = sockets::on_both_workers(&server);
    assert_eq!(clients[0].ask("SET held 1"), "+OK");
    let (mut hears, mut runs) = (server.client(), server.client());
    assert_eq!(hears.ask("SUBSCRIBE begun"), "subscribe begun :1");
    let script = "redis.call('publish', 'begun', '') while true do end";
    runs.send_args(&["EVAL", script, "1", "held"]);
    assert_eq!(hears.read(), "message begun ");
    let mut killer = clients.pop().expect("some");
    // They come before it is overdue, and would wait for its end.
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(["SCAN 0 COUNT 10000", "FLUSHALL", "RANDOMKEY", "SWAPDB 0 1"][n % 4]);
    }
    for client in &mut clients {
        assert_eq!(client.read(), BUSY);
    }
    kill(&mut killer, runs);
    assert_eq!(killer.ask("GET held"), "1");
}
