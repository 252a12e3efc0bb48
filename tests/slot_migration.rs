//! Atomic migration of slots between real processes: under load, with every type, and whoever dies or is told to
//! stop meanwhile. What is shown is that every acknowledged write is there in the end, at one place.

mod redirected;
mod replicas;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use redirected::Redirected;
use replicas::Server;
use rustix::process::Signal;
use sockets::{Client, eventually, under_test};

const OPTIONS: &[&str] = &[
    "--bind",
    "127.0.0.1",
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "30000",
    "--repl-diskless-sync-delay",
    "0",
    "--appendonly",
    "yes",
];

const RANGES: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

fn ours() -> Server {
    Server::start(&under_test(), OPTIONS)
}

fn id(node: &Server) -> String {
    node.client().ask("CLUSTER MYID")
}

fn is_up(node: &Server) -> bool {
    node.client()
        .ask("CLUSTER INFO")
        .contains("cluster_state:ok")
}

/// A cluster of three primaries.
fn cluster() -> Vec<Server> {
    join(vec![ours(), ours(), ours()])
}

fn join(nodes: Vec<Server>) -> Vec<Server> {
    for (at, node) in nodes.iter().enumerate() {
        let (first, last) = RANGES[at];
        let mut client = node.client();
        client.ask(&format!("CLUSTER SET-CONFIG-EPOCH {}", at + 1));
        let added = client.ask(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        assert_eq!(added, "+OK");
    }
    for node in &nodes[1..] {
        nodes[0]
            .client()
            .ask(&format!("CLUSTER MEET 127.0.0.1 {}", node.port));
    }
    eventually(|| {
        let knows =
            |node: &Server| node.client().ask("CLUSTER NODES").lines().count() == nodes.len();
        nodes.iter().all(|node| is_up(node) && knows(node))
    });
    nodes
}

/// Who has which slots, as a node sees it.
fn owners(node: &Server) -> BTreeMap<String, Vec<String>> {
    let text = node.client().ask("CLUSTER NODES");
    let rows = text.lines().map(|line| line.split(' ').map(str::to_owned));
    rows.map(|row| {
        let row: Vec<String> = row.collect();
        (row[0].clone(), row[8..].to_vec())
    })
    .collect()
}

fn agree(nodes: &[Server]) -> bool {
    let first = owners(&nodes[0]);
    nodes[1..].iter().all(|node| owners(node) == first)
}

/// How the newest migration of a node stands.
fn state(node: &Server) -> String {
    // Whatever the shape of the reply, a state is one word.
    let told = node.client().ask("CLUSTER GETSLOTMIGRATIONS");
    let newest = told
        .split("remaining_repl_size")
        .next()
        .unwrap_or_default()
        .to_owned();
    for word in ["success", "failed", "cancelled"] {
        if newest
            .split_whitespace()
            .any(|w| w.trim_matches('"') == word)
        {
            return word.to_owned();
        }
    }
    "under way".to_owned()
}

/// Nothing moves from or to a node any more.
fn is_settled(node: &Server) -> bool {
    let told = node.client().ask("CLUSTER GETSLOTMIGRATIONS");
    let running = [
        "connecting",
        "reading",
        "waiting",
        "snapshotting",
        "replicating",
        "failover",
        "cleaning",
        "receiving",
    ];
    !running.iter().any(|word| told.contains(word))
}

fn migrate(from: &Server, to: &Server, (first, last): (u16, u16)) -> String {
    let to = id(to);
    let asked = format!("CLUSTER MIGRATESLOTS SLOTSRANGE {first} {last} NODE {to}");
    from.client().ask(&asked)
}

/// Has slots move; where a machine was too slow for its limits, once more.
fn move_slots(from: &Server, to: &Server, range: (u16, u16)) {
    eventually(|| {
        assert_eq!(migrate(from, to, range), "+OK");
        eventually(|| is_settled(from) && is_settled(to));
        state(from) == "success"
    });
    assert_eq!(state(to), "success");
}

/// What a writer has seen.
#[derive(Default)]
struct Written {
    acknowledged: AtomicU64,
    /// ASK, TRYAGAIN.
    halfway: AtomicU64,
}

/// Writes numbered keys through whoever has them, until told to stop.
fn write(ports: &[u16], writer: u64, stop: &AtomicBool, written: &Written) {
    let (mut client, mut n) = (Redirected::new(ports), 0);
    while !stop.load(Relaxed) {
        match client.set(&format!("w{writer}:{n}"), n) {
            Ok(()) => {
                n += 1;
                written.acknowledged.store(n, Relaxed);
            }
            Err(error) if matches!(error.code(), Some("ASK" | "TRYAGAIN")) => {
                written.halfway.fetch_add(1, Relaxed);
            }
            Err(_) => {}
        }
    }
}

/// Runs `during` while clients write; what each of them has seen.
fn under_load(
    nodes: &mut Vec<Server>,
    mut during: impl FnMut(&mut Vec<Server>, &dyn Fn() -> u64),
) -> Vec<Written> {
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    let (stop, written) = (
        AtomicBool::new(false),
        [Written::default(), Written::default()],
    );
    thread::scope(|scope| {
        for (writer, written) in written.iter().enumerate() {
            let (ports, stop) = (&ports, &stop);
            scope.spawn(move || write(ports, writer as u64, stop, written));
        }
        let total = || written.iter().map(|w| w.acknowledged.load(Relaxed)).sum();
        let guard = Stop(&stop);
        eventually(|| total() > 500);
        during(nodes, &total);
        let so_far = total();
        eventually(|| total() > so_far + 200);
        drop(guard);
    });
    written.into()
}

/// Ends the writers also when a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A reply that is an integer.
fn number(reply: &str) -> u64 {
    let digits = reply.strip_prefix(':').expect("an integer");
    digits.parse().expect("a number")
}

/// Everything acknowledged is there, once, and nothing else is.
fn check_keys(nodes: &[Server], written: &[Written]) {
    eventually(|| agree(nodes) && nodes.iter().all(is_up));
    let sizes = |client: &mut Client| number(&client.ask("DBSIZE"));
    let mut clients: Vec<Client> = nodes.iter().map(|node| node.client()).collect();
    let mut kept = 0;
    for (writer, written) in written.iter().enumerate() {
        let all = written.acknowledged.load(Relaxed);
        for n in 0..all {
            let request = format!("GET w{writer}:{n}");
            let found = clients
                .iter_mut()
                .any(|client| client.ask(&request) == n.to_string());
            assert!(found, "w{writer}:{n} of {all} is lost");
        }
        // The next one may have been written without an answer.
        let request = format!("EXISTS w{writer}:{all}");
        let unanswered = clients
            .iter_mut()
            .any(|client| client.ask(&request) == ":1");
        kept += all + u64::from(unanswered);
    }
    // What was left behind is removed in the background.
    let everything = |clients: &mut Vec<Client>| clients.iter_mut().map(sizes).sum::<u64>();
    eventually(|| everything(&mut clients) == kept);
}

fn check_by_redis_cli(node: &Server) {
    if !replicas::is_redis_installed() {
        return;
    }
    let place = format!("127.0.0.1:{}", node.port);
    let output = Command::new("redis-cli")
        .args(["--cluster", "check", &place])
        .output();
    let told = String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).into_owned();
    assert_eq!(told.matches("[OK]").count(), 3, "{told}");
}

#[test]
fn slots_move_to_and_fro_under_load() {
    let mut nodes = cluster();
    let written = under_load(&mut nodes, |nodes, total| {
        for round in 0..6 {
            let (from, to) = [(0, 1), (1, 2), (2, 0)][round % 3];
            let before = total();
            move_slots(&nodes[from], &nodes[to], (100, 3000));
            eventually(|| agree(nodes) && total() > before + 100);
        }
    });
    assert!(
        written.iter().all(|w| w.halfway.load(Relaxed) == 0),
        "clients saw ASK or TRYAGAIN"
    );
    check_keys(&nodes, &written);
    check_by_redis_cli(&nodes[0]);
}

/// Kills one of the two at some moment of migration after migration.
fn dies(who: usize) {
    let mut nodes = cluster();
    let written = under_load(&mut nodes, |nodes, total| {
        for round in 0..8 {
            // Whoever has them now gives them to the other one.
            let has = owners(&nodes[0])[&id(&nodes[0])]
                .iter()
                .any(|range| range.starts_with("0-"));
            let (from, to) = if has { (0, 1) } else { (1, 0) };
            let _ = migrate(&nodes[from], &nodes[to], (0, 3000));
            // Sooner or later in its course: after so many writes.
            let at = total() + round * 12;
            eventually(|| total() >= at || state(&nodes[from]) != "under way");
            let victim = [from, to][who];
            nodes[victim].kill();
            nodes[victim].restart(&[]);
            eventually(|| nodes.iter().all(is_up) && agree(nodes));
            eventually(|| nodes.iter().all(is_settled) && agree(nodes));
            let before = total();
            eventually(|| total() > before + 100);
        }
    });
    check_keys(&nodes, &written);
    check_by_redis_cli(&nodes[2]);
}

#[test]
fn nothing_is_lost_when_the_source_dies() {
    dies(0);
}

#[test]
fn nothing_is_lost_when_the_target_dies() {
    dies(1);
}

/// Makes a key of every kind in the slot of `{a}`.
fn fill(client: &mut Client) -> BTreeSet<String> {
    let far = 4_102_444_800_000_u64;
    let big = "x".repeat(3 << 20);
    let mut requests = vec![
        "SET {a}s v".to_owned(),
        format!("SET {{a}}huge {big}"),
        format!("SET {{a}}t v PXAT {far}"),
        "RPUSH {a}l a b c".to_owned(),
        "SADD {a}set 1 2 3".to_owned(),
        "SADD {a}words x y 1".to_owned(),
        "ZADD {a}z 1.5 a 2 b".to_owned(),
        "HSET {a}h f v g w".to_owned(),
        format!("HPEXPIREAT {{a}}h {far} FIELDS 1 f"),
        "XADD {a}x 1-1 f v".to_owned(),
        "XGROUP CREATE {a}x g 0".to_owned(),
        "XREADGROUP GROUP g c STREAMS {a}x >".to_owned(),
        "PFADD {a}p 1 2 3".to_owned(),
    ];
    for n in 0..200 {
        let members: Vec<String> = (0..50).map(|m| format!("{n}:{m} member{n}:{m}")).collect();
        requests.push(format!("HSET {{a}}bigh {}", members.join(" ")));
        requests.push(format!("RPUSH {{a}}bigl {}", members.join(" ")));
        requests.push(format!("SADD {{a}}bigs {}", members.join(" ")));
    }
    for request in &requests {
        client.send_args(&request.split(' ').collect::<Vec<_>>());
        let reply = client.read();
        assert!(!reply.starts_with('-'), "{reply}");
    }
    let keys = requests
        .iter()
        .filter_map(|r| r.split(' ').find(|word| word.starts_with("{a}")));
    keys.map(str::to_owned).collect()
}

fn digests(client: &mut Client, keys: &BTreeSet<String>) -> Vec<(String, String)> {
    let one = |client: &mut Client, key: &String| {
        let digest = client.ask(&format!("DEBUG DIGEST-VALUE {key}"));
        (digest, client.ask(&format!("PEXPIRETIME {key}")))
    };
    keys.iter().map(|key| one(client, key)).collect()
}

#[test]
fn every_type_arrives_as_it_was_also_at_a_replica_and_after_a_restart() {
    let mut nodes = cluster();
    let replica = ours();
    replica
        .client()
        .ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port));
    let primary = id(&nodes[0]);
    eventually(|| {
        replica
            .client()
            .ask(&format!("CLUSTER REPLICATE {primary}"))
            == "+OK"
    });
    eventually(|| {
        replica
            .client()
            .ask("INFO replication")
            .contains("master_link_status:up")
    });
    // `{a}` is in slot 15495, of the third.
    let mut source = nodes[2].client();
    let keys = fill(&mut source);
    let before = digests(&mut source, &keys);
    let field = source.ask("HPEXPIRETIME {a}h FIELDS 2 f g");
    eventually(|| owners(&nodes[2]).len() == 4);
    move_slots(&nodes[2], &nodes[0], (15000, 16000));
    let mut target = nodes[0].client();
    assert_eq!(digests(&mut target, &keys), before);
    assert_eq!(target.ask("HPEXPIRETIME {a}h FIELDS 2 f g"), field);
    assert!(source.ask("GET {a}s").starts_with("-MOVED 15495 "));
    eventually(|| source.ask("DBSIZE") == ":0");
    let size = format!(":{}", keys.len());
    eventually(|| replica.client().ask("DBSIZE") == size);
    let mut copy = replica.client();
    copy.ask("READONLY");
    // A big key comes in pieces.
    eventually(|| digests(&mut copy, &keys) == before);
    nodes[0].restart(&[]);
    eventually(|| is_up(&nodes[0]));
    assert_eq!(digests(&mut nodes[0].client(), &keys), before);
    nodes[2].restart(&[]);
    eventually(|| is_up(&nodes[2]));
    assert_eq!(nodes[2].client().ask("DBSIZE"), ":0");
}

#[test]
fn who_waits_and_who_is_subscribed_is_sent_on() {
    let nodes = cluster();
    let mut waiting = nodes[2].client();
    waiting.send("BLPOP {a}list 0");
    let mut subscriber = nodes[2].client();
    assert!(
        subscriber
            .ask("SSUBSCRIBE {a}channel")
            .contains("ssubscribe")
    );
    eventually(|| {
        nodes[2]
            .client()
            .ask("INFO clients")
            .contains("blocked_clients:1")
    });
    move_slots(&nodes[2], &nodes[0], (15000, 16000));
    assert!(waiting.read().starts_with("-MOVED 15495 "));
    assert!(subscriber.read().contains("sunsubscribe"));
}

/// Stops a server, or has it go on.
fn signal(node: &Server, signal: Signal) {
    rustix::process::kill_process(node.pid(), signal).expect("it is there");
}

#[test]
fn a_migration_is_cancelled_and_one_of_dropped_data_fails() {
    let nodes = cluster();
    let mut source = nodes[2].client();
    let keys = fill(&mut source);
    for end in ["CANCELSLOTMIGRATIONS", "FLUSHALL"] {
        signal(&nodes[0], Signal::STOP);
        let target = owners(&nodes[1]);
        let target = target
            .iter()
            .find(|(_, slots)| slots.contains(&"0-5460".to_owned()));
        let target = target.expect("it is known").0;
        let asked = format!("CLUSTER MIGRATESLOTS SLOTSRANGE 15000 16000 NODE {target}");
        assert_eq!(source.ask(&asked), "+OK");
        assert_eq!(
            source.ask(&asked),
            "-ERR I am already migrating slot 15000."
        );
        match end {
            "FLUSHALL" => {
                // The cut is on its way, or comes; what is dropped behind it ends it.
                signal(&nodes[0], Signal::CONT);
                eventually(|| {
                    source.ask("FLUSHALL");
                    source.ask("SET {a}after 1");
                    state(&nodes[2]) != "under way"
                });
            }
            _ => {
                assert_eq!(source.ask("CLUSTER CANCELSLOTMIGRATIONS"), "+OK");
                eventually(|| state(&nodes[2]) == "cancelled");
                signal(&nodes[0], Signal::CONT);
                assert_eq!(
                    source.ask("CLUSTER CANCELSLOTMIGRATIONS"),
                    "-ERR No migrations ongoing"
                );
                assert_eq!(source.ask("DBSIZE"), format!(":{}", keys.len()));
                eventually(|| nodes[0].client().ask("DBSIZE") == ":0");
                eventually(|| is_settled(&nodes[0]));
            }
        }
    }
}

#[test]
fn what_is_asked_wrongly_is_refused_as_by_valkey() {
    let nodes = cluster();
    let (me, other) = (id(&nodes[0]), id(&nodes[1]));
    let mut client = nodes[0].client();
    let nobody = "0".repeat(40);
    for (asked, told) in [
        (
            "".to_owned(),
            "wrong number of arguments for 'cluster|migrateslots' command",
        ),
        ("a b".to_owned(), "syntax error"),
        (
            "SLOTSRANGE 0".to_owned(),
            "No end slot for final slot range",
        ),
        ("SLOTSRANGE 0 1".to_owned(), "syntax error"),
        ("SLOTSRANGE 0 1 NODE".to_owned(), "syntax error"),
        (
            "SLOTSRANGE 0 1 NODE abc".to_owned(),
            "Invalid node name: abc",
        ),
        (
            format!("SLOTSRANGE 0 1 NODE {me}"),
            "Target node can not be this node.",
        ),
        (
            format!("SLOTSRANGE 0 1 NODE {nobody}"),
            &format!("Unknown node name: {nobody}"),
        ),
        (
            format!("SLOTSRANGE 1 0 NODE {other}"),
            "Start slot number 1 is greater than end slot number 0.",
        ),
        (
            format!("SLOTSRANGE 0 1 1 2 NODE {other}"),
            "Slot range 1-2 overlaps with previous range 0-1.",
        ),
        (
            format!("SLOTSRANGE 16384 1 NODE {other}"),
            "Invalid or out of range slot",
        ),
        (
            format!("SLOTSRANGE 5460 5461 NODE {other}"),
            "Requested slots span multiple shards",
        ),
        (
            format!("SLOTSRANGE 6000 6001 NODE {other}"),
            "Slots are not served by this node.",
        ),
        (
            format!("SLOTSRANGE NODE {other}"),
            "No slot ranges specified",
        ),
        (
            format!("SLOTSRANGE 0 1 NODE {other} SLOTSRANGE 1 2 NODE {other}"),
            "Slot ranges in migrations overlap",
        ),
    ] {
        let reply = client.ask(format!("CLUSTER MIGRATESLOTS {asked}").trim_end());
        assert_eq!(reply, format!("-ERR {told}"), "{asked}");
    }
    assert_eq!(
        client.ask("CLUSTER CANCELSLOTMIGRATIONS"),
        "-ERR No migrations ongoing"
    );
    assert_eq!(client.ask("CLUSTER FLUSHSLOT 5 x"), "-ERR syntax error");
    assert_eq!(
        client.ask("CLUSTER FLUSHSLOT a"),
        "-ERR Invalid or out of range slot"
    );
    assert_eq!(client.ask("SET {06S}k v"), "+OK");
    assert_eq!(client.ask("CLUSTER KEYSLOT {06S}k"), ":0");
    assert_eq!(client.ask("CLUSTER FLUSHSLOT 0 SYNC"), "+OK");
    assert_eq!(client.ask("DBSIZE"), ":0");
    client.ask(&format!("CLUSTER SETSLOT 7000 IMPORTING {other}"));
    let reply = client.ask(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE 0 1 NODE {other}"));
    assert_eq!(reply, "-ERR Slots are being manually imported");
    client.ask("CLUSTER SETSLOT 7000 STABLE");
    // Two at once, to different nodes.
    let third = id(&nodes[2]);
    let both =
        format!("CLUSTER MIGRATESLOTS SLOTSRANGE 0 9 NODE {other} SLOTSRANGE 20 29 NODE {third}");
    assert_eq!(client.ask(&both), "+OK");
    eventually(|| is_settled(&nodes[0]));
    let told = client.ask("CLUSTER GETSLOTMIGRATIONS");
    assert_eq!(told.matches("EXPORT").count(), 2, "{told}");
    eventually(|| agree(&nodes));
}

#[test]
fn a_real_redis_is_no_target() {
    if !replicas::is_redis_installed() {
        return;
    }
    let real = Server::start(OsStr::new("redis-server"), OPTIONS);
    let nodes = join(vec![ours(), ours(), real]);
    let mut source = nodes[0].client();
    assert_eq!(source.ask("SET {06S}k v"), "+OK");
    assert_eq!(migrate(&nodes[0], &nodes[2], (0, 10)), "+OK");
    eventually(|| state(&nodes[0]) == "failed");
    let told = source.ask("CLUSTER GETSLOTMIGRATIONS");
    assert!(
        told.contains("does not support this kind of slot migration"),
        "{told}"
    );
    assert_eq!(source.ask("GET {06S}k"), "v");
}

#[test]
fn slots_in_doubt_are_not_served_until_the_target_has_answered() {
    let mut nodes = cluster();
    let mut source = nodes[0].client();
    assert_eq!(source.ask("SET {06S}k v"), "+OK");
    let target = id(&nodes[1]);
    nodes[1].kill();
    nodes[0].kill();
    // As a source leaves it that dies when it has told the target to take the slots.
    let file = nodes[0].path("nodes.conf");
    let text = std::fs::read_to_string(&file).expect("the node's file");
    let granted = format!("vars granted-{target} 0-10\nvars currentEpoch");
    std::fs::write(&file, text.replace("vars currentEpoch", &granted)).expect("it is written");
    nodes[0].restart(&[]);
    let mut source = nodes[0].client();
    let sent_on = format!("-MOVED 0 127.0.0.1:{}", nodes[1].port);
    eventually(|| source.ask("GET {06S}k") == sent_on);
    assert_eq!(source.ask("SET {06S}k w"), sent_on);
    let reset = source.ask("CLUSTER DELSLOTS 5");
    assert_eq!(reset, "-ERR Slot 5 is being handed over to another node");
    nodes[1].restart(&[]);
    eventually(|| source.ask("GET {06S}k") == "v");
    let text = || std::fs::read_to_string(&file).expect("the node's file");
    eventually(|| !text().contains("granted-"));
    assert_eq!(source.ask("SET {06S}k w"), "+OK");
}
