//! What a replica does and refuses: the same of ours and of a real one.

use crate::replicas::{Stop, load, written};
use crate::sockets::{Client, eventually};
use crate::{
    Kind, Ours, Real, assert_in_step, await_link, digest_of, info, is_linked, kinds, offset, order,
    persist,
};
use std::sync::atomic::AtomicBool;

/// Port of nobody.
const NOBODY: &str = "REPLICAOF 127.0.0.1 1";

fn set(client: &mut Client, line: &str) {
    assert_eq!(client.ask(&format!("CONFIG SET {line}")), "+OK", "{line}");
}

#[test]
fn a_replica_refuses_writes() {
    let primary = Ours.start(&[]);
    for kind in kinds() {
        let replica = kind.follow(&primary, &[]);
        let mut client = replica.client();
        let refusal = "-READONLY You can't write against a read only replica.";
        for line in [
            "SET a 1",
            "DEL a",
            "FLUSHALL",
            "BLPOP l 1",
            "RESTORE k 0 x",
            "SORT l STORE m",
        ] {
            assert_eq!(client.ask(line), refusal, "{kind:?} {line}");
        }
        for line in ["GET a", "SORT_RO l", "EXISTS a"] {
            assert!(!client.ask(line).contains("READONLY"), "{kind:?} {line}");
        }
        assert_eq!(client.ask("MULTI"), "+OK");
        assert_eq!(client.ask("SET a 1"), refusal);
        assert!(client.ask("EXEC").starts_with("-EXECABORT"));
        set(&mut client, "replica-read-only no");
        assert_eq!(client.ask("SET own 1"), "+OK");
        assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        set(&mut client, "replica-read-only yes");
        assert_eq!(client.ask("SET own 2"), "+OK");
    }
}

#[test]
fn a_replica_whose_link_is_down_serves_what_it_is_configured_to() {
    let mut answers = Vec::new();
    for kind in kinds() {
        let mut primary = Ours.start(&[]);
        assert_eq!(primary.client().ask("SET k v"), "+OK");
        let replica = kind.follow(&primary, &[]);
        let mut client = replica.client();
        primary.kill();
        eventually(|| !is_linked(&mut client));
        assert_eq!(client.ask("GET k"), "v");
        set(&mut client, "replica-serve-stale-data no");
        let refusal =
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
        assert_eq!(client.ask("GET k"), refusal);
        let asked = [
            "PING",
            "ECHO a",
            "GET k",
            "EXISTS k",
            "DBSIZE",
            "SET a 1",
            "INFO server",
            "ROLE",
            "SELECT 0",
            "CONFIG GET maxmemory",
            "CLIENT ID",
            "COMMAND COUNT",
            "PUBLISH a b",
            "OBJECT HELP",
            "MULTI",
            "DISCARD",
            "WATCH k",
            "UNWATCH",
            "LASTSAVE",
            "TIME",
            "SLOWLOG LEN",
            "MEMORY USAGE k",
            "WAIT 1 1",
            "XREAD STREAMS x 0",
            "KEYS *",
            "HELLO",
            "DEBUG SLEEP 0",
            "LATENCY RESET",
        ];
        let refused: Vec<_> = asked
            .map(|line| {
                let reply = client.ask(line);
                (line, reply.starts_with('-').then_some(reply))
            })
            .into();
        answers.push((kind, refused));
        // It stays away as long as nothing else is ordered.
        assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        assert_eq!(client.ask("GET k"), "v");
    }
    for pair in answers.windows(2) {
        assert_eq!(pair[0].1, pair[1].1);
    }
}

#[test]
fn a_replica_expires_nothing_on_its_own() {
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let mut client = primary.client();
        let replica = kind.follow(&primary, &["--hz", "100"]);
        let mut follower = replica.client();
        assert_eq!(client.ask("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
        assert_eq!(client.ask("SET k v PX 1"), "+OK");
        assert_eq!(client.ask("HSET h f v"), ":1");
        assert_eq!(client.ask("PEXPIRE h 1"), ":1");
        eventually(|| offset(&mut client) == offset(&mut follower));
        eventually(|| follower.ask("PTTL k") == ":-2" && follower.ask("PTTL h") == ":-2");
        for (line, reply) in [
            ("GET k", "$-1"),
            ("EXISTS k h", ":0"),
            ("HGET h f", "$-1"),
            ("TYPE k", "+none"),
            ("KEYS *", ""),
            ("DBSIZE", ":2"),
        ] {
            assert_eq!(follower.ask(line), reply, "{kind:?} {line}");
        }
        // Its cycles of expiry, a hundred a second, pass them by.
        let uptime = info(&mut follower, "server", "uptime_in_seconds");
        eventually(|| info(&mut follower, "server", "uptime_in_seconds") > uptime + 1);
        assert_eq!(follower.ask("DBSIZE"), ":2", "{kind:?}");
        assert_eq!(client.ask("GET k"), "$-1");
        assert_eq!(client.ask("HLEN h"), ":0");
        eventually(|| follower.ask("DBSIZE") == ":0");
        assert_in_step(&primary, &replica);
    }
}

#[test]
fn a_replica_evicts_nothing_on_its_own() {
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let mut client = primary.client();
        assert_eq!(client.ask("DEBUG POPULATE 1000 a 100"), "+OK");
        let options = ["--maxmemory", "1mb", "--maxmemory-policy", "allkeys-lru"];
        let replica = kind.follow(&primary, &options);
        for n in 0..200 {
            assert_eq!(
                client.ask(&format!("SET k{n} {}", "v".repeat(10_000))),
                "+OK"
            );
        }
        assert_in_step(&primary, &replica);
        let mut follower = replica.client();
        assert_eq!(follower.ask("DBSIZE"), ":1200");
        assert_eq!(info(&mut follower, "stats", "evicted_keys"), 0);
        assert_eq!(follower.ask("STRLEN k199"), ":10000");
        // A primary may, and its replica with it.
        assert_eq!(client.ask("CONFIG SET maxmemory-policy allkeys-lru"), "+OK");
        assert_eq!(client.ask("CONFIG SET maxmemory 1500kb"), "+OK");
        client.ask("SET more 1");
        assert_in_step(&primary, &replica);
        assert_eq!(info(&mut follower, "stats", "evicted_keys"), 0);
    }
}

#[test]
fn who_waits_for_keys_is_released_when_a_server_becomes_a_replica() {
    let text = "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let server = kind.start(&[]);
        let lines = [
            "BLPOP q 0",
            "BZPOPMIN z 0",
            "BLMOVE q r LEFT RIGHT 0",
            "XREAD BLOCK 0 STREAMS x $",
            "WAIT 3 0",
        ];
        let mut waiting = lines.map(|line| {
            let mut client = server.client();
            client.send(line);
            client
        });
        let mut client = server.client();
        eventually(|| info(&mut client, "clients", "blocked_clients") == lines.len() as u64);
        order(&server, &primary);
        for (line, waiting) in lines.iter().zip(&mut waiting) {
            assert_eq!(waiting.read(), text, "{kind:?} {line}");
        }
        await_link(&server);
        let mut source = primary.client();
        assert_eq!(source.ask("RPUSH q 1 2"), ":2");
        assert_eq!(source.ask("ZADD z 1 a"), ":1");
        assert_in_step(&primary, &server);
        assert_eq!(client.ask("LRANGE q 0 -1"), "1 2");
        assert_eq!(client.ask("ZCARD z"), ":1");
        for waiting in &mut waiting {
            assert!(waiting.is_closed(), "{kind:?}");
        }
    }
}

#[test]
fn who_reads_a_stream_on_a_replica_is_woken_by_the_primary() {
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let replica = kind.follow(&primary, &[]);
        let mut waiting = replica.client();
        waiting.send("XREAD BLOCK 0 STREAMS x $");
        let mut client = replica.client();
        eventually(|| info(&mut client, "clients", "blocked_clients") == 1);
        assert_eq!(primary.client().ask("XADD x 1-1 f v"), "1-1");
        assert_eq!(waiting.read(), "x 1-1 f v", "{kind:?}");
    }
}

#[test]
fn a_transaction_may_change_the_role() {
    let mut answers = Vec::new();
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let mut server = kind.start(&[]);
        let mut client = server.client();
        let mut all = Vec::new();
        let place = format!("REPLICAOF 127.0.0.1 {}", primary.port);
        for line in ["MULTI", "SET k v", &place, "GET k", "SET k w", "EXEC"] {
            all.push(client.ask(line).replace(&place, ""));
        }
        await_link(&server);
        for line in [
            "MULTI",
            "REPLICAOF NO ONE",
            "GET k",
            "EXEC",
            "SET k x",
            "ROLE",
        ] {
            all.push(client.ask(line));
        }
        all.pop();
        answers.push(all);
        assert!(!server.has_ended());
    }
    for pair in answers.windows(2) {
        assert_eq!(pair[0], pair[1]);
    }
}

#[test]
fn messages_reach_subscribers_of_replicas_of_replicas() {
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let middle = kind.follow(&primary, &[]);
        let last = Ours.follow(&middle, &[]);
        let mut subscribers = [&primary, &middle, &last].map(|server| {
            let mut client = server.client();
            assert_eq!(client.ask("SUBSCRIBE news"), "subscribe news :1");
            assert_eq!(client.ask("PSUBSCRIBE n?ws"), "psubscribe n?ws :2");
            assert_eq!(client.ask("SSUBSCRIBE shard"), "ssubscribe shard :1");
            client
        });
        let mut client = primary.client();
        assert_eq!(client.ask("PUBLISH news hello"), ":2");
        assert_eq!(client.ask("SPUBLISH shard part"), ":1");
        assert_eq!(client.ask("MULTI"), "+OK");
        client.ask("PUBLISH news again");
        assert_eq!(client.ask("EXEC"), ":2");
        for subscriber in &mut subscribers {
            let read = [(); 5].map(|()| subscriber.read());
            let expected = [
                "message news hello",
                "pmessage n?ws news hello",
                "smessage shard part",
                "message news again",
                "pmessage n?ws news again",
            ];
            assert_eq!(read, expected, "{kind:?}");
        }
    }
}

fn await_base(client: &mut Client) {
    eventually(|| {
        let text = client.ask("INFO persistence");
        text.contains("aof_rewrite_in_progress:0") && text.contains("aof_rewrite_scheduled:0")
    });
}

#[test]
fn what_a_writable_replica_is_told_stays_with_it() {
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let options = ["--replica-read-only", "no", "--appendonly", "yes"];
        let mut middle = kind.follow(&primary, &options);
        let last = Ours.follow(&middle, &[]);
        let mut client = middle.client();
        await_base(&mut client);
        assert_eq!(client.ask("SET own 1"), "+OK");
        assert_eq!(client.ask("RPUSH list a b"), ":2");
        assert_eq!(primary.client().ask("SET k v"), "+OK");
        let mut below = last.client();
        eventually(|| below.ask("GET k") == "v");
        assert_in_step(&primary, &last);
        assert_eq!(below.ask("DBSIZE"), ":1");
        assert_eq!(offset(&mut client), offset(&mut below));
        let before = digest_of(&middle);
        middle.restart(&["--replicaof", "no", "one"]);
        let mut client = middle.client();
        // (A real one's file has it only if it was rewritten since.)
        if kind == Real {
            continue;
        }
        assert_eq!(client.ask("GET own"), "1");
        assert_eq!(client.ask("LRANGE list 0 -1"), "a b");
        assert_eq!(digest_of(&middle), before);
    }
}

/// The append-only file of a replica holds what it has, after a full sync and while it follows.
fn reloads(primary_kind: Kind, options: &[&str]) {
    let primary = primary_kind.start(&[]);
    let mut client = primary.client();
    let stop = AtomicBool::new(false);
    let mut replica = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for seed in 0..2 {
            let (primary, stop) = (&primary, &stop);
            scope.spawn(move || load(primary, seed, stop));
        }
        eventually(|| written(&mut client) > 1000);
        let options = [&["--appendonly", "yes"], options].concat();
        let replica = Ours.follow(&primary, &options);
        let mut follower = replica.client();
        await_base(&mut follower);
        for _ in 0..3 {
            let so_far = written(&mut client);
            eventually(|| written(&mut client) > so_far + 1000);
            follower.ask("CLIENT KILL TYPE master");
            await_link(&replica);
        }
        replica
    });
    persist(&mut client);
    assert_in_step(&primary, &replica);
    replica.restart(&["--replicaof", "no", "one"]);
    crate::replicas::assert_same(&primary, &replica);
    // And it comes into step again.
    order(&replica, &primary);
    assert_eq!(client.ask("SET last 1"), "+OK");
    assert_in_step(&primary, &replica);
}

#[test]
fn the_append_only_file_of_a_replica_holds_its_data_set() {
    for kind in kinds() {
        for way in ["disabled", "swapdb"] {
            reloads(kind, &["--repl-diskless-load", way]);
        }
    }
}

#[test]
fn a_replica_that_starts_in_an_outage_serves_what_it_has() {
    for kind in kinds() {
        let mut primary = Ours.start(&[]);
        let mut replica = kind.follow(&primary, &["--appendonly", "yes"]);
        let mut client = replica.client();
        await_base(&mut client);
        assert_eq!(primary.client().ask("SET k v"), "+OK");
        eventually(|| client.ask("GET k") == "v");
        primary.kill();
        replica.restart(&[]);
        let mut client = replica.client();
        assert_eq!(client.ask("GET k"), "v");
        assert!(!is_linked(&mut client));
        assert!(
            client.ask("ROLE").starts_with("slave 127.0.0.1"),
            "{kind:?}"
        );
        assert!(client.ask("SET k w").starts_with("-READONLY"));
        replica.restart(&["--replica-serve-stale-data", "no"]);
        let mut client = replica.client();
        assert!(client.ask("GET k").starts_with("-MASTERDOWN"), "{kind:?}");
        // It is there again, and empty.
        primary.restart(&[]);
        assert_in_step(&primary, &replica);
        assert_eq!(client.ask("GET k"), "$-1");
    }
}

#[test]
fn a_replica_does_not_end_for_what_a_name_leads_to() {
    for kind in kinds() {
        let mut server = kind.start(&[]);
        let mut client = server.client();
        assert_eq!(client.ask("SET k v"), "+OK");
        assert_eq!(client.ask("REPLICAOF does.not.exist.invalid 6379"), "+OK");
        assert_eq!(client.ask(NOBODY), "+OK");
        assert_eq!(
            client.ask(NOBODY),
            "+OK Already connected to specified master"
        );
        assert!(client.ask("REPLICAOF 127.0.0.1 x").starts_with("-ERR"));
        assert!(client.ask("REPLICAOF 127.0.0.1 70000").starts_with("-ERR"));
        assert_eq!(client.ask("GET k"), "v");
        assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        assert_eq!(client.ask("SET k w"), "+OK");
        assert!(!server.has_ended());
    }
}

/// Clients and transactions that are under way while the role changes get an answer each.
#[test]
fn clients_are_answered_while_the_role_changes() {
    let primary = Ours.start(&[]);
    let server = Ours.start(&[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for seed in 0..3 {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || load(server, seed, stop));
        }
        let mut client = server.client();
        for _ in 0..10 {
            let so_far = written(&mut client);
            eventually(|| written(&mut client) > so_far + 300);
            order(&server, &primary);
            await_link(&server);
            let so_far = written(&mut client);
            eventually(|| written(&mut client) > so_far + 100);
            assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
        }
    });
    order(&server, &primary);
    assert_in_step(&primary, &server);
}
