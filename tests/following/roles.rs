//! Promotions and demotions, and what INFO and ROLE tell.

use crate::replicas::{Server, is_redis_installed};
use crate::sockets::{Client, eventually};
use crate::{Kind, Ours, Real, assert_in_step, await_link, info, is_linked, offset, order, syncs};

/// Nothing is in the stream but what the test has written.
const QUIET: [&str; 2] = ["--repl-ping-replica-period", "3600"];

/// All that there are here of combinations of three.
fn triples() -> Vec<[Kind; 3]> {
    match is_redis_installed() {
        true => vec![
            [Ours, Ours, Ours],
            [Ours, Real, Ours],
            [Ours, Ours, Real],
            [Real, Ours, Ours],
            [Real, Ours, Real],
            [Real, Real, Ours],
        ],
        false => vec![[Ours; 3]],
    }
}

fn promote(server: &Server) {
    assert_eq!(server.client().ask("REPLICAOF NO ONE"), "+OK");
}

fn await_same_offset(servers: &[&Server]) {
    eventually(|| {
        let mut offsets = servers.iter().map(|server| offset(&mut server.client()));
        let first = offsets.next();
        offsets.all(|offset| Some(offset) == first)
    });
}

#[test]
fn a_promoted_replica_is_followed_by_its_sibling_and_its_primary_without_a_full_sync() {
    for [first, second, third] in triples() {
        let what = format!("{first:?} {second:?} {third:?}");
        let old = first.start(&QUIET);
        let new = second.follow(&old, &QUIET);
        let sibling = third.follow(&old, &QUIET);
        let mut client = old.client();
        for i in 0..100 {
            assert_eq!(client.ask(&format!("SELECT {}", i % 3)), "+OK");
            assert_eq!(client.ask(&format!("SET k{i} {i}")), "+OK");
        }
        await_same_offset(&[&old, &new, &sibling]);
        promote(&new);
        assert_eq!(new.client().ask("SET of-the-new 1"), "+OK");
        order(&sibling, &new);
        assert_in_step(&new, &sibling);
        assert_eq!(syncs(&new), (0, 1), "{what}: the sibling");
        order(&old, &new);
        assert_in_step(&new, &old);
        assert_eq!(syncs(&new), (0, 2), "{what}: the old primary");
        assert_eq!(client.ask("SELECT 0"), "+OK");
        assert_eq!(client.ask("GET of-the-new"), "1");
        // And back again.
        await_same_offset(&[&old, &new, &sibling]);
        let before = syncs(&old);
        promote(&old);
        assert_eq!(client.ask("SET of-the-old 1"), "+OK");
        order(&new, &old);
        assert_in_step(&old, &new);
        order(&sibling, &old);
        assert_in_step(&old, &sibling);
        assert_eq!(syncs(&old), (before.0, before.1 + 2), "{what}: back");
    }
}

#[test]
fn a_demoted_primary_that_went_on_writing_begins_anew() {
    for [first, second, _] in triples() {
        let old = first.start(&QUIET);
        let new = second.follow(&old, &QUIET);
        let mut client = old.client();
        assert_eq!(client.ask("SET both 1"), "+OK");
        await_same_offset(&[&old, &new]);
        promote(&new);
        assert_eq!(client.ask("SET lost 1"), "+OK");
        order(&old, &new);
        assert_in_step(&new, &old);
        assert_eq!(syncs(&new), (1, 0), "{first:?} {second:?}");
        assert_eq!(client.ask("GET lost"), "$-1");
        assert_eq!(client.ask("GET both"), "1");
    }
}

#[test]
fn replicas_of_a_promoted_one_go_on() {
    for [first, second, third] in triples() {
        let head = first.start(&QUIET);
        let middle = second.follow(&head, &QUIET);
        let last = third.follow(&middle, &QUIET);
        let mut client = head.client();
        assert_eq!(client.ask("SET k v"), "+OK");
        await_same_offset(&[&head, &middle, &last]);
        promote(&middle);
        assert_eq!(middle.client().ask("SET k w"), "+OK");
        assert_in_step(&middle, &last);
        assert_eq!(syncs(&middle).0, 1, "{first:?} {second:?} {third:?}");
        // The last one may follow the head, too, whose history has ended where the middle's went on.
        order(&last, &head);
        assert_in_step(&head, &last);
        assert_eq!(last.client().ask("GET k"), "v");
    }
}

/// INFO's section, with what differs between two servers that are in the same state made equal.
fn section(client: &mut Client) -> Vec<String> {
    const THEIR_OWN: [&str; 8] = [
        "master_last_io_seconds_ago",
        "master_link_down_since_seconds",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
        "master_replid",
        "master_port",
        "slave0",
        "repl_backlog_size",
    ];
    let text = client.ask("INFO replication");
    let line = |line: &str| match line.split_once(':') {
        Some((field, value)) if THEIR_OWN.contains(&field) => {
            let is_number = value.bytes().all(|b| b.is_ascii_digit() || b == b'-');
            let kind = if is_number { "number" } else { "text" };
            let words: Vec<_> = value
                .split(',')
                .map(|part| part.split('=').next())
                .collect();
            match field {
                "slave0" => format!("{field}:{words:?}"),
                _ => format!("{field}:{kind}"),
            }
        }
        _ => line.to_owned(),
    };
    text.lines().map(line).collect()
}

/// ROLE, without ports.
fn role(client: &mut Client, ports: &[u16]) -> String {
    let mut text = client.ask("ROLE");
    for port in ports {
        text = text.replace(&port.to_string(), "PORT");
    }
    text
}

#[test]
fn info_and_role_say_what_a_real_replica_says() {
    if !is_redis_installed() {
        return;
    }
    let mut primary = Ours.start(&QUIET);
    let replicas = [Ours, Real].map(|kind| kind.follow(&primary, &QUIET));
    let below = replicas
        .each_ref()
        .map(|replica| Ours.follow(replica, &QUIET));
    let ports = [
        primary.port,
        replicas[0].port,
        replicas[1].port,
        below[0].port,
        below[1].port,
    ];
    let mut clients = replicas.each_ref().map(|replica| replica.client());
    let mut compare = |state: &str| {
        // Confirmations of those below may be under way.
        let mut both = [Vec::new(), Vec::new()];
        let begin = std::time::Instant::now();
        while begin.elapsed() < std::time::Duration::from_secs(5) {
            both = clients.each_mut().map(|client| {
                let mut all = section(client);
                all.push(role(client, &ports));
                all
            });
            if both[0] == both[1] {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(both[0], both[1], "ours and theirs, {state}");
    };
    assert_eq!(primary.client().ask("SET k v"), "+OK");
    await_same_offset(&[&primary, &replicas[0], &replicas[1], &below[0], &below[1]]);
    compare("up");
    for replica in &replicas {
        let mut client = replica.client();
        assert_eq!(client.ask("CONFIG SET replica-priority 7"), "+OK");
        assert_eq!(client.ask("CONFIG SET replica-announced no"), "+OK");
        assert_eq!(client.ask("CONFIG SET replica-read-only no"), "+OK");
    }
    compare("with other parameters");
    primary.kill();
    for replica in &replicas {
        let mut client = replica.client();
        eventually(|| !is_linked(&mut client));
        assert_eq!(client.ask("REPLICAOF 127.0.0.1 1"), "+OK");
        let state = "connect";
        eventually(|| client.ask("ROLE").contains(state));
    }
    compare("down");
    for (replica, below) in replicas.iter().zip(&below) {
        promote(replica);
        assert_in_step(replica, below);
        // It was cut off, to hear of the new name.
        let mut client = replica.client();
        let linked = |client: &mut Client| info(client, "replication", "connected_slaves");
        eventually(|| linked(&mut client) == 1);
    }
    compare_promoted(&replicas);
}

/// Both are primaries now, of one replica, with a second name.
fn compare_promoted(replicas: &[Server; 2]) {
    let [ours, theirs] = replicas.each_ref().map(|replica| {
        let mut client = replica.client();
        let text = client.ask("INFO replication");
        let fields = text
            .lines()
            .map(|line| line.split(':').next().unwrap_or_default().to_owned());
        let second = info(&mut client, "replication", "second_repl_offset");
        let shown = |field: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(field));
            found.expect("a field").to_owned()
        };
        let second_name = shown("master_replid2:");
        assert_ne!(second_name, shown("master_replid:"));
        (fields.collect::<Vec<_>>(), second, second_name)
    });
    assert_eq!(ours, theirs);
}

/// A server that never was in step says so.
#[test]
fn info_and_role_of_one_that_never_was_in_step() {
    if !is_redis_installed() {
        return;
    }
    let [ours, theirs] = [Ours, Real].map(|kind| {
        let server = kind.start(&["--replicaof", "127.0.0.1 1"]);
        let mut client = server.client();
        eventually(|| client.ask("ROLE").contains(" connect "));
        let mut all = section(&mut client);
        all.push(role(&mut client, &[server.port]));
        all
    });
    assert_eq!(ours, theirs);
}

#[test]
fn keys_that_expired_while_their_primary_was_down_are_removed_from_its_replicas() {
    let mut primary = Ours.start(&QUIET);
    let replica = Ours.follow(&primary, &QUIET);
    let mut client = primary.client();
    assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
    assert_eq!(client.ask("SET stays 1"), "+OK");
    assert_eq!(client.ask("SELECT 3"), "+OK");
    for i in 0..50 {
        assert_eq!(client.ask(&format!("SET goes{i} 1 PX 1")), "+OK");
    }
    await_same_offset(&[&primary, &replica]);
    client.send("SHUTDOWN SAVE");
    eventually(|| primary.has_ended());
    primary.restart(&QUIET);
    eventually(|| syncs(&primary) == (0, 1));
    await_same_offset(&[&primary, &replica]);
    let mut client = replica.client();
    assert_eq!(client.ask("DBSIZE"), ":1");
    assert_eq!(client.ask("SELECT 3"), "+OK");
    assert_eq!(client.ask("DBSIZE"), ":0");
}

#[test]
fn a_replica_keeps_expired_keys_of_its_dump_that_its_primary_may_have_kept() {
    let primary = Ours.start(&QUIET);
    let mut replica = Ours.follow(&primary, &QUIET);
    let mut client = primary.client();
    assert_eq!(client.ask("SET k 5 PX 300"), "+OK");
    await_same_offset(&[&primary, &replica]);
    replica.client().send("SHUTDOWN SAVE");
    eventually(|| replica.has_ended());
    assert_eq!(client.ask("PERSIST k"), ":1");
    let begun = std::time::Instant::now();
    eventually(|| begun.elapsed().as_millis() > 400);
    assert_eq!(client.ask("INCR k"), ":6");
    replica.restart(&QUIET);
    await_link(&replica);
    await_same_offset(&[&primary, &replica]);
    assert_eq!(replica.client().ask("GET k"), "6");
    assert_eq!(syncs(&primary), (1, 1));
}

#[test]
fn who_goes_back_to_its_primary_goes_on_in_the_database_that_the_stream_has_selected() {
    let primary = Ours.start(&QUIET);
    let replica = Ours.follow(&primary, &QUIET);
    let mut client = primary.client();
    assert_eq!(client.ask("SELECT 9"), "+OK");
    assert_eq!(client.ask("SET a 1"), "+OK");
    await_same_offset(&[&primary, &replica]);
    promote(&replica);
    assert_eq!(client.ask("SET b 2"), "+OK");
    order(&replica, &primary);
    assert_eq!(client.ask("SET c 3"), "+OK");
    assert_in_step(&primary, &replica);
    let mut copy = replica.client();
    assert_eq!(copy.ask("SELECT 9"), "+OK");
    assert_eq!(copy.ask("DBSIZE"), ":3");
}
