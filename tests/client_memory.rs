//! What clients hold, in every state: as CLIENT LIST shows it, beside a real Redis 7.0; and that it is
//! given back, and costs no keys.
//!
//! Both servers play the same bytes on a connection by name, and another one asks for its line. The
//! sizes of reply buffers are kept from changing, so that nothing depends on the moment.

mod sockets;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Command;

use sockets::{Client, Server, eventually, request};

/// Bytes by which the memory of a client may differ beside what it sent and gets: ours reads into buffers
/// of 32 KiB, or 64 KiB for big arguments.
const SLACK: u64 = 68 * 1024;

/// A real Redis 7.0, if there is one.
fn oracle(options: &[&str]) -> Option<Server> {
    let version = Command::new("redis-server")
        .arg("--version")
        .output()
        .ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains("v=7.0.") {
        println!("no redis-server 7.0 here: not compared");
        return None;
    }
    Server::try_start("redis-server".as_ref(), &[], options)
}

/// The fields of a client's line of CLIENT LIST.
fn line_of(control: &mut Client, name: &str) -> BTreeMap<String, String> {
    let list = control.ask("CLIENT LIST");
    let word = format!(" name={name} ");
    let line = list.lines().find(|line| line.contains(&word));
    let fields = line.unwrap_or_default().split(' ');
    let pairs = fields.filter_map(|field| field.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn number(line: &BTreeMap<String, String>, field: &str) -> u64 {
    line.get(field).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// A field of INFO.
fn info(control: &mut Client, field: &str) -> u64 {
    let text = control.ask("INFO everything");
    let prefix = format!("{field}:");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    value.and_then(|v| v.parse().ok()).expect("a number")
}

/// A client in a state.
struct State {
    name: String,
    /// What it sends.
    sends: Vec<u8>,
    /// Number of replies it reads.
    reads: usize,
    /// How far fields may differ from a real Redis', in bytes; those that are not named: not at all.
    tolerances: Vec<(&'static str, u64)>,
}

/// The fields that are compared, beside `tot-mem`.
const FIELDS: &[&str] = &[
    "flags",
    "sub",
    "psub",
    "multi",
    "qbuf",
    "argv-mem",
    "multi-mem",
    "rbs",
    "rbp",
    "obl",
    "oll",
    "omem",
    "cmd",
];

fn state(name: &str, sends: impl Into<Vec<u8>>, reads: usize) -> State {
    State {
        name: name.replace(' ', "-"),
        sends: sends.into(),
        reads,
        tolerances: Vec::new(),
    }
}

/// Every state, in several sizes.
fn states() -> Vec<State> {
    let mut states = vec![
        state("idle", "", 0),
        state("queued", "MULTI\r\nSET a b\r\n", 2),
        state("watching", "WATCH a b c d e f g\r\n", 1),
        state("refused", "GET\r\n", 1),
        state("refused in MULTI", "MULTI\r\nGET\r\n", 2),
        state("unknown", "NONSENSE a\r\n", 1),
        state("unknown subcommand", "CLIENT NONSENSE\r\n", 1),
        state("container", "CLIENT\r\n", 1),
        state("subcommand", "CLIENT GETNAME\r\n", 1),
        state("after EXEC", "MULTI\r\nSET a b\r\nEXEC\r\n", 3),
        state("monitor", "MONITOR\r\n", 1),
        state("blocked", "BLPOP q 0\r\n", 0),
    ];
    for size in [100, 10_000, 30_000] {
        let whole = request::<&[u8]>(&[b"SET", b"key", &vec![b'x'; size]]);
        let half = &whole[..whole.len() - size / 2];
        states.push(state(&format!("half a request of {size}"), half, 0));
    }
    for size in [100_000, 1_000_000] {
        let whole = request::<&[u8]>(&[b"SET", b"key", &vec![b'x'; size]]);
        let header = &whole[..whole.len() - size - 2];
        states.push(state(&format!("announced {size}"), header, 0));
        let half = &whole[..whole.len() - size / 2];
        states.push(state(&format!("half of a big {size}"), half, 0));
        let two = request::<&[u8]>(&[b"MSET", b"key", &vec![b'x'; size], b"b", b"xx"]);
        states.push(state(
            &format!("all but the last after {size}"),
            &two[..two.len() - 2],
            0,
        ));
    }
    for size in [10, 1000, 100_000, 800_000] {
        let mut sends = request::<&[u8]>(&[b"BLPOP", b"q", b"0"]);
        sends.extend(request::<&[u8]>(&[b"GET", &vec![b'k'; size]]));
        sends.extend(request::<&[u8]>(&[b"GET", b"small"]));
        states.push(state(&format!("behind a wait {size}"), sends, 0));
        let mut sends = b"MULTI\r\n".to_vec();
        sends.extend(request::<&[u8]>(&[b"SET", b"k", &vec![b'v'; size]]));
        sends.extend(request::<&[u8]>(&[b"SET", b"k", &vec![b'v'; size]]));
        states.push(state(&format!("in MULTI {size}"), sends, 3));
    }
    for count in [10, 1000] {
        let names: Vec<String> = (0..count).map(|i| format!("channel{i:04}")).collect();
        let sends = format!("SUBSCRIBE {}\r\n", names.join(" "));
        states.push(state(&format!("subscriber to {count}"), sends, count));
    }
    for (key, ask) in [
        ("string", "GET string\r\n"),
        ("list", "LRANGE list 0 -1\r\n"),
    ] {
        states.push(state(&format!("read all of a {key}"), ask, 1));
        let mut unread = state(&format!("reads nothing of a {key}"), ask, 0);
        // What the kernel's buffers take is not the same.
        unread.tolerances = vec![("omem", 500_000), ("oll", 25)];
        states.push(unread);
    }
    states
}

/// Plays a state on a server; what its line is in the end, and the client, to be kept.
fn play(server: &Server, state: &State) -> Client {
    let mut client = server.client();
    client.ask(&format!("CLIENT SETNAME {}", state.name));
    client.0.get_mut().write_all(&state.sends).expect("room");
    (0..state.reads).for_each(|_| drop(client.read()));
    client
}

/// What differs too much.
fn differences(
    state: &State,
    theirs: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut found = Vec::new();
    let empty = String::new();
    for field in FIELDS {
        let pair = [theirs, ours].map(|line| line.get(*field).unwrap_or(&empty));
        let tolerance = state.tolerances.iter().find(|(name, _)| name == field);
        let near = tolerance.is_some_and(|(_, bytes)| {
            number(theirs, field).abs_diff(number(ours, field)) <= *bytes
        });
        if pair[0] != pair[1] && !near {
            found.push(format!("{field}: {} there, {} here", pair[0], pair[1]));
        }
    }
    let [there, here] = [theirs, ours].map(|line| number(line, "tot-mem"));
    let beside: u64 = state
        .tolerances
        .iter()
        .map(|(_, bytes)| bytes)
        .max()
        .copied()
        .unwrap_or(0);
    // Redis has room in its query buffer for up to as much again as it holds.
    let room = number(theirs, "qbuf-free").saturating_sub(number(ours, "qbuf-free"));
    if here > there + SLACK + beside || here + SLACK + room + beside < there {
        found.push(format!("tot-mem: {there} there, {here} here"));
    }
    found
}

#[test]
fn clients_hold_in_every_state_what_they_hold_in_redis() {
    let options = ["--enable-debug-command", "yes", "--save", ""];
    let Some(oracle) = oracle(&options) else {
        return;
    };
    let servers = [oracle, Server::start(&options)];
    let mut controls = servers.each_ref().map(Server::client);
    for control in &mut controls {
        assert_eq!(control.ask("DEBUG REPLYBUFFER RESIZING 0"), "+OK");
        control.send_args(&["SET", "string", &"x".repeat(10_000_000)]);
        assert_eq!(control.read(), "+OK");
        fill_list(control, 10_000);
    }
    let mut kept = Vec::new();
    let mut failures = Vec::new();
    for state in states() {
        kept.extend(servers.each_ref().map(|server| play(server, &state)));
        let mut found = Vec::new();
        // Until both have received and sent what they can.
        let agree = sockets::soon(|| {
            let lines = controls
                .each_mut()
                .map(|control| line_of(control, &state.name));
            found = differences(&state, &lines[0], &lines[1]);
            found.is_empty()
        });
        if !agree {
            failures.push(format!("{}: {}", state.name, found.join("; ")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // INFO has the sum of the lines.
    let [_, control] = &mut controls;
    let list = control.ask("CLIENT LIST");
    let fields = list
        .split_whitespace()
        .filter_map(|f| f.strip_prefix("tot-mem="));
    let sum: u64 = fields.map(|v| v.parse::<u64>().expect("a number")).sum();
    let normal = info(control, "mem_clients_normal");
    assert!(normal.abs_diff(sum) <= sum / 10, "{normal} of {sum}");
}

/// Sends a request without reading its reply, for which the socket's buffers have no room.
fn ask_and_leave(server: &Server, line: &str) -> Client {
    let mut client = server.client();
    client.send(line);
    client
}

/// A list of so many elements of 1000 bytes.
fn fill_list(control: &mut Client, elements: usize) {
    const AT_ONCE: usize = 100;
    let text = [b'x'; 1000];
    let mut args: Vec<&[u8]> = vec![b"RPUSH", b"list"];
    args.resize(2 + AT_ONCE, &text);
    for _ in 0..elements / AT_ONCE {
        control.send_args(&args);
        control.read();
    }
}

#[test]
fn a_reply_that_nobody_reads_takes_no_more_than_it_is() {
    let server = Server::start(&[]);
    let mut control = server.client();
    fill_list(&mut control, 22_000);
    control.ask("CLIENT LIST");
    let before = info(&mut control, "used_memory");
    let _reader = ask_and_leave(&server, "LRANGE list 0 -1");
    let mut omem = 0;
    eventually(|| {
        let list = control.ask("CLIENT LIST");
        let waits = list
            .split_whitespace()
            .filter_map(|f| f.strip_prefix("omem="));
        omem = waits
            .filter_map(|v| v.parse::<u64>().ok())
            .max()
            .unwrap_or(0);
        omem > 20_000_000
    });
    let taken = info(&mut control, "used_memory") - before;
    assert!(taken < 24_000_000, "{taken}");
    let peak = info(&mut control, "used_memory_peak") - before;
    assert!(peak < 24_000_000, "{peak}");
}

#[test]
fn clients_that_read_all_keep_nothing() {
    let server = Server::start(&[]);
    let mut control = server.client();
    fill_list(&mut control, 5_000);
    let before = info(&mut control, "used_memory");
    let mut readers: Vec<_> = (0..20).map(|_| server.client()).collect();
    for reader in &mut readers {
        reader.send("LRANGE list 0 -1");
        let mut reply = vec![0; 7 + 5_000 * 1009];
        reader.0.read_exact(&mut reply).expect("the reply");
    }
    let kept = |control: &mut Client| info(control, "used_memory").saturating_sub(before);
    // Each may keep a buffer for input and one for replies.
    assert!(
        sockets::soon(|| kept(&mut control) < 20 * 60_000),
        "{} kept",
        kept(&mut control)
    );
}

/// Readers that read nothing fill memory: clients go, and no key for them.
fn readers_cost_no_keys(threads: &str) {
    let server = Server::start(&[
        "--maxmemory",
        "60mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--maxmemory-clients",
        "10mb",
        "--enable-debug-command",
        "yes",
        "--io-threads",
        threads,
    ]);
    let mut control = server.client();
    assert_eq!(control.ask("CLIENT NO-EVICT on"), "+OK");
    assert_eq!(control.ask("DEBUG POPULATE 3000 key 5000"), "+OK");
    fill_list(&mut control, 2_000);
    let keys = control.ask("DBSIZE");
    let readers: Vec<_> = (0..60)
        .map(|_| ask_and_leave(&server, "LRANGE list 0 -1"))
        .collect();
    eventually(|| info(&mut control, "evicted_clients") >= 50);
    // A write has memory looked at.
    assert_eq!(control.ask("SET key:1 x"), "+OK");
    assert_eq!(info(&mut control, "evicted_keys"), 0);
    assert_eq!(control.ask("DBSIZE"), keys);
    drop(readers);
}

#[test]
fn readers_of_one_worker_cost_no_keys() {
    readers_cost_no_keys("1");
}

#[test]
fn readers_of_two_workers_cost_no_keys() {
    readers_cost_no_keys("2");
}

#[test]
fn a_transaction_that_replies_much_costs_no_keys() {
    let server = Server::start(&[
        "--maxmemory",
        "60mb",
        "--maxmemory-policy",
        "allkeys-lru",
        "--maxmemory-clients",
        "10mb",
        "--enable-debug-command",
        "yes",
        "--io-threads",
        "2",
    ]);
    let mut clients = sockets::on_both_workers(&server);
    assert_eq!(clients[0].ask("DEBUG POPULATE 3000 key 5000"), "+OK");
    fill_list(&mut clients[0], 2_000);
    let keys = clients[0].ask("DBSIZE");
    let mut greedy = server.client();
    let mut all = String::from("MULTI\r\n");
    (0..100).for_each(|_| all.push_str("LRANGE list 0 -1\r\n"));
    all.push_str("SET done 1\r\nEXEC");
    greedy.send(&all);
    // Others write meanwhile, which has memory looked at.
    eventually(|| {
        for (i, client) in clients.iter_mut().enumerate() {
            client.ask(&format!("SET key:{i} x"));
        }
        info(&mut clients[0], "evicted_clients") > 0
    });
    eventually(|| clients[0].ask("GET done") == "1");
    assert_eq!(info(&mut clients[0], "evicted_keys"), 0);
    let [before, now] = [keys, clients[0].ask("DBSIZE")].map(|n| n[1..].parse().unwrap_or(0));
    assert_eq!(now, before + 1);
}

#[test]
fn requests_behind_a_blocked_one_are_evicted_for() {
    let server = Server::start(&["--maxmemory-clients", "2mb"]);
    let mut control = server.client();
    assert_eq!(control.ask("CLIENT NO-EVICT on"), "+OK");
    let mut sends = request::<&[u8]>(&[b"BLPOP", b"q", b"0"]);
    sends.extend(request::<&[u8]>(&[b"GET", &vec![b'k'; 800_000]]));
    let _blocked: Vec<_> = (0..6)
        .map(|_| {
            let mut client = server.client();
            // It may be closed while it sends.
            let _ = client.0.get_mut().write_all(&sends);
            client
        })
        .collect();
    eventually(|| info(&mut control, "evicted_clients") >= 4);
    assert_eq!(info(&mut control, "evicted_clients"), 4);
}

#[test]
fn what_comes_behind_a_big_argument_of_a_blocked_client_waits_with_it() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let big = request::<&[u8]>(&[b"SET", b"k", &vec![b'x'; 500_000]]);
    let mut first = request::<&[u8]>(&[b"BLPOP", b"q", b"0"]);
    first.extend(&big[..1000]);
    client.0.get_mut().write_all(&first).expect("room");
    let mut control = server.client();
    eventually(|| control.ask("INFO clients").contains("blocked_clients:1"));
    client.0.get_mut().write_all(&big[1000..]).expect("room");
    let mut waits = |bytes: usize| {
        let field = format!(" qbuf={bytes} ");
        eventually(|| control.ask("CLIENT LIST").contains(&field));
    };
    waits(big.len());
    client.send("GET k");
    waits(big.len() + "GET k\r\n".len());
    assert_eq!(control.ask("RPUSH q 1"), ":1");
    assert_eq!(client.read(), "q 1");
    assert_eq!(client.read(), "+OK");
    assert_eq!(client.read().len(), 500_000);
}

#[test]
fn only_what_is_not_parsed_counts_for_the_query_limit() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut client = server.client();
    let value = vec![b'x'; 200_000];
    for count in [20, 3] {
        let mut args: Vec<&[u8]> = vec![b"RPUSH", b"list"];
        args.resize(2 + count, &value);
        client.send_args(&args);
        assert!(client.read().starts_with(':'));
    }
    let mut greedy = server.client();
    // What is on its way when the connection is closed is lost.
    let _ = greedy
        .0
        .get_mut()
        .write_all(&request::<&[u8]>(&[b"SET", b"k", &[b'x'; 2 << 20]]));
    assert!(greedy.is_closed());
}

#[test]
fn room_for_a_big_argument_is_given_back_when_it_does_not_come() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.ask("CLIENT SETNAME slow");
    client.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000");
    let mut control = server.client();
    let mut look = || {
        let line = line_of(&mut control, "slow");
        (number(&line, "qbuf-free"), number(&line, "tot-mem"))
    };
    eventually(|| {
        let (free, all) = look();
        free >= 1_000_000 && all >= 1_000_000
    });
    eventually(|| {
        let (free, all) = look();
        free < 1000 && all < 100_000
    });
}

#[test]
fn reply_buffers_follow_what_they_are_used_for() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut control = server.client();
    assert_eq!(control.ask("DEBUG REPLYBUFFER PEAK-RESET-TIME 100"), "+OK");
    let mut client = server.client();
    client.ask("CLIENT SETNAME reader");
    control.ask(&format!("SET k {}", "x".repeat(32 * 1024)));
    let size = |control: &mut Client| number(&line_of(control, "reader"), "rbs");
    eventually(|| size(&mut control) == 1024);
    assert_eq!(
        control.ask("DEBUG REPLYBUFFER PEAK-RESET-TIME never"),
        "+OK"
    );
    eventually(|| {
        client.ask("GET k");
        size(&mut control) == 16 * 1024
    });
    assert!(info(&mut control, "reply_buffer_shrinks") > 0);
    assert!(info(&mut control, "reply_buffer_expands") >= 4);
    client.ask("GET k");
    eventually(|| number(&line_of(&mut control, "reader"), "rbp") == 16 * 1024);
    // Nothing changes them while that is off.
    assert_eq!(control.ask("DEBUG REPLYBUFFER RESIZING 0"), "+OK");
    assert_eq!(control.ask("DEBUG REPLYBUFFER PEAK-RESET-TIME 0"), "+OK");
    let fresh = server.client();
    assert!(!sockets::soon(|| size(&mut control) != 16 * 1024));
    drop(fresh);
}
