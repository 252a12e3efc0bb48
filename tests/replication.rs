//! A real Redis follows this server: it begins with a snapshot taken under load, then gets the
//! stream, and ends with the same data set. Several that wait share a snapshot. Skipped where no Redis 7.0 is installed.

mod replicas;
mod sockets;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use replicas::{Server, assert_same, digest, info, is_redis_installed, load, written};
use sockets::{Client, eventually};

/// A Redis that comes while clients write ends with what they wrote.
fn follows_under_load(options: &[&str]) {
    if !is_redis_installed() {
        return;
    }
    let primary = Server::primary(options);
    let mut client = primary.client();
    client.ask("DEBUG POPULATE 20000");
    let stop = AtomicBool::new(false);
    let replica = std::thread::scope(|scope| {
        for seed in 0..3 {
            let (primary, stop) = (&primary, &stop);
            scope.spawn(move || load(primary, seed, stop));
        }
        // Some is written before it comes, and more while it follows.
        eventually(|| written(&mut client) > 1000);
        let replica = Server::replica_of(&primary);
        let mut follower = replica.client();
        let up = "master_link_status:up";
        eventually(|| follower.ask("INFO replication").contains(up));
        let so_far = written(&mut client);
        eventually(|| written(&mut client) > so_far + 20_000);
        stop.store(true, Relaxed);
        replica
    });
    // Nothing expires any more: what has, has been told.
    for db in 0..3 {
        client.ask(&format!("SELECT {db}"));
        for key in client.ask("KEYS *").split(' ') {
            client.ask(&format!("PERSIST {key}"));
        }
    }
    client.ask("SET last 1");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert_same(&primary, &replica);
    assert!(client.ask("INFO replication").contains("state=online"));
    assert!(client.ask("CLIENT LIST TYPE replica").contains("flags=S"));
}

#[test]
fn a_redis_follows_from_a_snapshot_sent_as_it_is_made() {
    follows_under_load(&["--repl-diskless-sync-delay", "0"]);
}

#[test]
fn a_redis_follows_from_a_snapshot_in_a_file() {
    follows_under_load(&["--repl-diskless-sync", "no", "--appendonly", "yes"]);
}

#[test]
fn a_redis_that_was_cut_off_goes_on_where_it_was() {
    if !is_redis_installed() {
        return;
    }
    let primary = Server::primary(&["--repl-diskless-sync-delay", "0"]);
    let replica = Server::replica_of(&primary);
    let mut client = primary.client();
    eventually(|| client.ask("INFO replication").contains("state=online"));
    client.ask("SET a 1");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert_eq!(client.ask("CLIENT KILL TYPE replica"), ":1");
    client.ask("SET b 2");
    eventually(|| client.ask("INFO stats").contains("sync_partial_ok:1"));
    client.ask("SET c 3");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert!(client.ask("INFO stats").contains("sync_full:1"));
    assert_eq!(digest(&primary), digest(&replica));
    assert_eq!(client.ask("CONFIG RESETSTAT"), "+OK");
    for counter in ["sync_full", "sync_partial_ok", "sync_partial_err"] {
        assert_eq!(info(&mut client, "stats", counter), 0, "{counter}");
    }
}

#[test]
fn the_log_tells_why_an_older_redis_does_not_come_into_step() {
    if !is_redis_installed() {
        return;
    }
    for diskless in ["yes", "no"] {
        let delay = ["--repl-diskless-sync-delay", "0"];
        let (primary, log) =
            logging_primary(&[&delay[..], &["--repl-diskless-sync", diskless]].concat());
        let mut client = primary.client();
        client.ask("HSET h f v g w");
        assert_eq!(client.ask("HPEXPIRE h 100000000 FIELDS 1 f"), ":1");
        let replica = Server::replica_of(&primary);
        let mut follower = replica.client();
        let why = "a replica of a version before 7.4 cannot read it and will not come into step";
        eventually(|| count(&log, why) > 0);
        // It tries again and again, and is told so each time; nobody else is in its way.
        eventually(|| count(&log, why) > 1);
        let down = "master_link_status:down";
        assert!(
            follower.ask("INFO replication").contains(down),
            "{diskless}"
        );
        assert_eq!(client.ask("SET k v"), "+OK");
        // Without times it can be helped.
        assert_eq!(client.ask("HPERSIST h FIELDS 1 f"), ":1");
        eventually(|| !follower.ask("INFO replication").contains(down));
        let told = count(&log, why);
        client.ask("SET last 1");
        assert_eq!(client.ask("WAIT 1 30000"), ":1");
        assert_same(&primary, &replica);
        assert_eq!(count(&log, why), told);
    }
}

#[test]
fn a_killed_replica_is_none_any_more() {
    let primary = Server::primary(&["--repl-diskless-sync-delay", "0"]);
    let mut client = primary.client();
    for _ in 0..10 {
        let mut replica = primary.client();
        replica.send("SYNC");
        eventually(|| client.ask("INFO replication").contains("state=online"));
        assert_eq!(client.ask("CLIENT KILL TYPE replica"), ":1");
        let replicas = client.ask("INFO replication");
        assert!(replicas.contains("connected_slaves:0"), "{replicas}");
    }
}

#[test]
fn waiting_for_replicas_that_are_not_there_ends_with_its_time() {
    let primary = Server::primary(&[]);
    let mut client = primary.client();
    assert_eq!(client.ask("WAIT 0 0"), ":0");
    assert_eq!(client.ask("WAIT 1 50"), ":0");
    client.ask("CONFIG SET min-replicas-to-write 1");
    assert!(client.ask("SET a 1").starts_with("-NOREPLICAS"));
    assert!(
        client
            .ask("REPLCONF nonsense 1")
            .starts_with("-ERR Unrecognized")
    );
    assert_eq!(client.ask("REPLICAOF NO ONE"), "+OK");
}

/// A primary that logs to a file, and the file.
fn logging_primary(options: &[&str]) -> (Server, tempfile::NamedTempFile) {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let path = log.path().to_str().expect("a path of text").to_owned();
    let primary = Server::primary(&[options, &["--logfile", &path]].concat());
    (primary, log)
}

fn count(log: &tempfile::NamedTempFile, line: &str) -> usize {
    let text = std::fs::read_to_string(log.path()).expect("a log");
    text.matches(line).count()
}

/// Three that came were served by one snapshot, and follow.
fn assert_one_for_all(primary: &Server, replicas: &[Server], log: &tempfile::NamedTempFile) {
    let mut client = primary.client();
    eventually(|| {
        client
            .ask("INFO replication")
            .matches("state=online")
            .count()
            == 3
    });
    assert_eq!(count(log, "Starting BGSAVE for SYNC"), 1);
    assert!(client.ask("INFO stats").contains("sync_full:3"));
    client.ask("SET last 1");
    assert_eq!(client.ask("WAIT 3 30000"), ":3");
    for replica in replicas {
        assert_same(primary, replica);
    }
}

#[test]
fn replicas_that_wait_together_get_one_snapshot_through_their_sockets() {
    if !is_redis_installed() {
        return;
    }
    // It begins when three wait, and not before.
    let gather = ["--repl-diskless-sync-delay", "1000"];
    let options = [&gather[..], &["--repl-diskless-sync-max-replicas", "3"]].concat();
    let (primary, log) = logging_primary(&options);
    primary.client().ask("DEBUG POPULATE 20000");
    let replicas = [0; 3].map(|_| Server::replica_of(&primary));
    assert_one_for_all(&primary, &replicas, &log);
    assert_eq!(count(&log, "3 replicas still up"), 1);
}

/// As many as may share a snapshot come at the same time, over and over: who comes last makes it begin,
/// and has its part of it.
#[test]
fn who_comes_last_is_served_with_the_others() {
    let gather = ["--repl-diskless-sync-delay", "1000"];
    let options = [&gather[..], &["--repl-diskless-sync-max-replicas", "3"]].concat();
    let (primary, log) = logging_primary(&options);
    let mut client = primary.client();
    const ROUNDS: usize = 100;
    for round in 1..=ROUNDS {
        let mut replicas = [(); 3].map(|()| primary.client());
        for replica in &mut replicas {
            assert_eq!(replica.ask("REPLCONF capa eof capa psync2"), "+OK");
        }
        for replica in &mut replicas {
            replica.send("PSYNC ? -1");
        }
        eventually(|| count(&log, "3 replicas still up") == round);
        drop(replicas);
        eventually(|| info(&mut client, "replication", "connected_slaves") == 0);
    }
    assert_eq!(count(&log, "Starting BGSAVE for SYNC"), ROUNDS);
}

#[test]
fn replicas_that_wait_for_another_save_get_one_snapshot_in_a_file() {
    if !is_redis_installed() {
        return;
    }
    let (primary, log) = logging_primary(&["--repl-diskless-sync", "no"]);
    let mut client = primary.client();
    client.ask("DEBUG POPULATE 1000");
    client.ask("CONFIG SET rdb-key-save-delay 1000000");
    client.ask("BGSAVE");
    let replicas = [0; 3].map(|_| Server::replica_of(&primary));
    eventually(|| {
        client
            .ask("INFO replication")
            .matches("wait_bgsave")
            .count()
            == 3
    });
    eventually(|| count(&log, "Can't attach the replica") == 3);
    client.ask("CONFIG SET rdb-key-save-delay 0");
    // Ends the save that is under way.
    client.ask("FLUSHALL");
    client.ask("DEBUG POPULATE 1000");
    assert_one_for_all(&primary, &replicas, &log);
}

#[test]
fn a_replica_joins_a_snapshot_that_is_written_to_a_file() {
    if !is_redis_installed() {
        return;
    }
    let (primary, log) = logging_primary(&["--repl-diskless-sync", "no"]);
    let mut client = primary.client();
    client.ask("DEBUG POPULATE 8");
    client.ask("CONFIG SET rdb-key-save-delay 1000000");
    let first = Server::replica_of(&primary);
    eventually(|| client.ask("INFO replication").contains("wait_bgsave"));
    eventually(|| {
        client
            .ask("INFO persistence")
            .contains("rdb_bgsave_in_progress:1")
    });
    let second = Server::replica_of(&primary);
    eventually(|| count(&log, "Waiting for end of BGSAVE for SYNC") > 0);
    client.ask("SET after 1");
    client.ask("CONFIG SET rdb-key-save-delay 0");
    eventually(|| {
        client
            .ask("INFO replication")
            .matches("state=online")
            .count()
            == 2
    });
    client.ask("SET last 1");
    assert_eq!(client.ask("WAIT 2 30000"), ":2");
    assert_same(&primary, &first);
    assert_same(&primary, &second);
}

#[test]
fn a_replica_that_hangs_costs_no_keys() {
    let options = [
        "--client-output-buffer-limit",
        "replica 0 0 0",
        "--repl-diskless-sync-delay",
        "0",
        "--maxmemory-policy",
        "allkeys-lru",
    ];
    let server = Server::primary(&options);
    let mut client = server.client();
    assert_eq!(client.ask("DEBUG POPULATE 1000"), "+OK");
    // It gets the snapshot, and is not heard of again.
    let mut replica = server.client();
    replica.send("SYNC");
    eventually(|| client.ask("INFO replication").contains("state=online"));
    let used = info(&mut client, "memory", "used_memory");
    let limit = used + (8 << 20);
    assert_eq!(client.ask(&format!("CONFIG SET maxmemory {limit}")), "+OK");
    let set = format!("SET key {}", "x".repeat(60_000));
    for _ in 0..500 {
        assert_eq!(client.ask(&set), "+OK");
    }
    assert!(info(&mut client, "memory", "used_memory") > limit);
    assert!(info(&mut client, "memory", "mem_not_counted_for_evict") > 8 << 20);
    assert_eq!(info(&mut client, "stats", "evicted_keys"), 0);
}

/// How many replicas wait for a snapshot.
fn waiting(client: &mut Client) -> usize {
    client
        .ask("INFO replication")
        .matches("state=wait_bgsave")
        .count()
}

#[test]
fn the_end_of_the_server_does_not_wait_for_a_replica_that_hangs() {
    for kind in ["SAVE", "NOSAVE"] {
        let options = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "3600"];
        let mut server = Server::primary(&options);
        let mut client = server.client();
        assert_eq!(client.ask("DEBUG POPULATE 200000 key 100"), "+OK");
        // Two that read nothing: the second waits for the first's snapshot to end, and must not
        // begin another one then.
        let hanging = [(); 2].map(|()| {
            let mut replica = server.client();
            assert_eq!(replica.ask("REPLCONF capa eof capa psync2"), "+OK");
            let before = waiting(&mut client);
            replica.send("PSYNC ? -1");
            eventually(|| waiting(&mut client) > before);
            replica
        });
        eventually(|| info(&mut client, "persistence", "rdb_bgsave_in_progress") == 1);
        client.send(&format!("SHUTDOWN {kind} NOW"));
        eventually(|| server.has_ended());
        drop(hanging);
    }
}
