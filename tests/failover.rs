//! A primary and its replicas: who takes over, what WAIT and WAITAOF tell, and that a primary does not
//! end before its replicas have everything.

mod sockets;

use std::net::TcpListener;
use std::time::Instant;

use sockets::{Client, PATIENCE, Server, eventually, under_test};

/// A server that others reach by its port.
struct Node {
    server: Server,
    port: u16,
}

impl Node {
    /// Starts it, again on another port should somebody have taken the one that was free.
    fn start(options: &[&str]) -> Self {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("it is bound").port();
            drop(listener);
            let text = port.to_string();
            let common = ["--port", &text, "--repl-diskless-sync-delay", "0"];
            let options = [&common, options].concat();
            if let Some(server) = Server::try_start(&under_test(), &[], &options) {
                return Self { server, port };
            }
        }
        panic!("no port was free for long enough");
    }

    /// A replica in step.
    fn replica_of(primary: &Self, options: &[&str]) -> Self {
        let replica = Self::start(options);
        let mut client = replica.server.client();
        let port = primary.port;
        assert_eq!(client.ask(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK");
        eventually(|| is_up(&mut client));
        let place = format!("port={},state=online", replica.port);
        let mut client = primary.server.client();
        eventually(|| client.ask("INFO replication").contains(&place));
        replica
    }
}

fn field(client: &mut Client, section: &str, name: &str) -> String {
    let text = client.ask(&format!("INFO {section}"));
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_default().to_owned()
}

fn is_up(client: &mut Client) -> bool {
    field(client, "replication", "master_link_status") == "up"
}

fn failover_state(client: &mut Client) -> String {
    field(client, "replication", "master_failover_state")
}

#[test]
fn a_failover_needs_a_replica_and_knows_its_words() {
    let node = Node::start(&[]);
    let mut client = node.server.client();
    for (request, reply) in [
        ("FAILOVER", "-ERR FAILOVER requires connected replicas."),
        ("FAILOVER ABORT", "-ERR No failover in progress."),
        ("FAILOVER ABORT NOW", "-ERR syntax error"),
        ("FAILOVER TO h", "-ERR syntax error"),
        (
            "FAILOVER TO h x",
            "-ERR value is not an integer or out of range",
        ),
        (
            "FAILOVER TIMEOUT 0",
            "-ERR FAILOVER timeout must be greater than 0",
        ),
        ("FAILOVER TIMEOUT 1 TIMEOUT 2", "-ERR syntax error"),
        (
            "PSYNC x 1 FAILOVER",
            "-ERR PSYNC FAILOVER can't be sent to a master.",
        ),
    ] {
        assert_eq!(client.ask(request), reply, "{request}");
    }
    let replica = Node::replica_of(&node, &[]);
    for (request, reply) in [
        (
            "FAILOVER FORCE TIMEOUT 1",
            "-ERR FAILOVER with force option requires both a timeout and target HOST and IP.",
        ),
        (
            "FAILOVER TO 127.0.0.1 1",
            "-ERR FAILOVER target HOST and PORT is not a replica.",
        ),
    ] {
        assert_eq!(client.ask(request), reply, "{request}");
    }
    let mut client = replica.server.client();
    let reply = "-ERR FAILOVER is not valid when server is a replica.";
    assert_eq!(client.ask("FAILOVER"), reply);
    let reply = "-ERR PSYNC FAILOVER replid must match my replid.";
    assert_eq!(client.ask("PSYNC x 1 FAILOVER"), reply);
}

#[test]
fn a_replica_takes_over_with_everything_and_nobody_needs_a_full_sync() {
    let old = Node::start(&[]);
    let new = Node::replica_of(&old, &[]);
    let (mut at_old, mut at_new) = (old.server.client(), new.server.client());
    for n in 0..100 {
        assert_eq!(at_old.ask(&format!("SET k{n} {n}")), "+OK");
    }
    assert_eq!(at_old.ask("FAILOVER"), "+OK");
    // It was paused, or came when the replica had taken over.
    let mut late = old.server.client();
    assert!(late.ask("SET late 1").starts_with("-READONLY"));
    eventually(|| failover_state(&mut at_old) == "no-failover" && is_up(&mut at_old));
    assert!(at_new.ask("ROLE").starts_with("master"));
    assert!(at_old.ask("ROLE").starts_with("slave"));
    assert_eq!(at_new.ask("DBSIZE"), ":100");
    assert_eq!(field(&mut at_new, "stats", "sync_partial_ok"), "1");
    assert_eq!(field(&mut at_new, "stats", "sync_full"), "0");
    assert_eq!(at_new.ask("SET after 1"), "+OK");
    assert_eq!(at_new.ask("WAIT 1 30000"), ":1");
    assert_eq!(at_old.ask("GET after"), "1");
}

#[test]
fn writes_wait_for_a_failover_that_ends_with_its_time_or_by_abort() {
    let primary = Node::start(&["--repl-timeout", "3600"]);
    // It is in step, and never confirms anything.
    let mut silent = primary.server.client();
    assert_eq!(silent.ask("REPLCONF listening-port 1 ip-address h"), "+OK");
    silent.send("SYNC");
    let mut client = primary.server.client();
    eventually(|| client.ask("INFO replication").contains("state=online"));
    assert_eq!(client.ask("SET a 1"), "+OK");
    let mut writer = primary.server.client();

    assert_eq!(client.ask("FAILOVER TO h 1 TIMEOUT 300"), "+OK");
    assert_eq!(failover_state(&mut client), "waiting-for-sync");
    let refused = "-ERR REPLICAOF not allowed while failing over.";
    assert_eq!(client.ask("REPLICAOF 127.0.0.1 1"), refused);
    let refused = "-NOMASTERLINK Can't SYNC while failing over";
    assert_eq!(primary.server.client().ask("SYNC"), refused);
    assert_eq!(client.ask("FAILOVER"), "-ERR FAILOVER already in progress.");
    assert_eq!(client.ask("GET a"), "1");
    assert_eq!(writer.ask("SET b 1"), "+OK", "when the time is over");
    assert_eq!(failover_state(&mut client), "no-failover");

    assert_eq!(client.ask("FAILOVER"), "+OK");
    writer.send("SET b 2");
    assert_eq!(client.ask("CLIENT UNPAUSE"), "+OK");
    assert_eq!(client.ask("GET b"), "1", "that pause is another one");
    assert_eq!(client.ask("FAILOVER ABORT"), "+OK");
    assert_eq!(writer.read(), "+OK");

    // Nobody listens where it says that it does.
    assert_eq!(client.ask("FAILOVER TO h 1 TIMEOUT 1 FORCE"), "+OK");
    eventually(|| failover_state(&mut client) == "failover-in-progress");
    assert!(client.ask("ROLE").starts_with("slave"));
    assert_eq!(client.ask("FAILOVER ABORT"), "+OK");
    assert_eq!(failover_state(&mut client), "no-failover");
    assert!(client.ask("ROLE").starts_with("master"));
    assert_eq!(writer.ask("SET b 3"), "+OK");
}

#[test]
fn disks_here_and_at_replicas_are_waited_for() {
    let primary = Node::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut client = primary.server.client();
    assert_eq!(client.ask("WAITAOF 1 0 0"), ":1 :0");
    assert_eq!(client.ask("SET a 1"), "+OK");
    assert_eq!(client.ask("WAITAOF 1 0 30000"), ":1 :0");
    assert_eq!(client.ask("WAITAOF 1 1 50"), ":1 :0");
    let replica = Node::replica_of(&primary, &["--appendonly", "yes"]);
    let mut at_replica = replica.server.client();
    assert_eq!(client.ask("SET a 2"), "+OK");
    assert_eq!(client.ask("WAITAOF 1 1 30000"), ":1 :1");
    // From here on the replica has no file.
    assert_eq!(at_replica.ask("CONFIG SET appendonly no"), "+OK");
    assert_eq!(client.ask("SET a 3"), "+OK");
    assert_eq!(client.ask("WAIT 1 30000"), ":1");
    assert_eq!(client.ask("WAITAOF 1 1 50"), ":1 :0");
    let refused = "-ERR WAITAOF cannot be used with replica instances. Please also note that writes to \
                   replicas are just local and are not propagated.";
    assert_eq!(at_replica.ask("WAITAOF 0 0 0"), refused);
    // Who waits for a file that is turned off hears of it.
    assert_eq!(client.ask("CONFIG SET appendfsync no"), "+OK");
    let mut waits = primary.server.client();
    assert_eq!(waits.ask("SET a 4"), "+OK");
    waits.send("WAITAOF 1 0 0");
    eventually(|| field(&mut client, "clients", "blocked_clients") == "1");
    assert_eq!(client.ask("CONFIG SET appendonly no"), "+OK");
    let refused = "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";
    assert_eq!(waits.read(), refused);
    assert_eq!(client.ask("WAITAOF 1 0 0"), refused);
    for (request, reply) in [
        (
            "WAITAOF 2 0 0",
            "-ERR value is out of range, value must between 0 and 1",
        ),
        (
            "WAITAOF 0 -1 0",
            "-ERR value is out of range, must be positive",
        ),
        ("WAITAOF 0 0 -1", "-ERR timeout is negative"),
    ] {
        assert_eq!(client.ask(request), reply, "{request}");
    }
}

#[test]
fn a_primary_ends_when_its_replicas_have_everything() {
    let mut primary = Node::start(&[
        "--shutdown-timeout",
        "3600",
        "--repl-timeout",
        "3600",
        "--repl-ping-replica-period",
        "3600",
    ]);
    let mut client = primary.server.client();
    // The only ping there is has come and gone.
    let uptime = |client: &mut Client| field(client, "server", "uptime_in_seconds").parse::<u64>();
    eventually(|| uptime(&mut client).is_ok_and(|seconds| seconds >= 2));
    let mut silent = primary.server.client();
    silent.send("SYNC");
    eventually(|| client.ask("INFO replication").contains("state=online"));
    assert_eq!(client.ask("SET a 1"), "+OK");
    assert_eq!(
        client.ask("SHUTDOWN ABORT"),
        "-ERR No shutdown in progress."
    );
    assert_eq!(client.ask("SHUTDOWN FAILOVER ABORT"), "-ERR syntax error");
    assert_eq!(
        client.ask("SHUTDOWN NOW FAILOVER"),
        "-ERR SHUTDOWN FAILOVER is only supported in cluster mode."
    );
    let mut waits = [primary.server.client(), primary.server.client()];
    for client in &mut waits {
        client.send("SHUTDOWN NOSAVE");
    }
    eventually(|| field(&mut client, "clients", "blocked_clients") == "2");
    let mut left = String::new();
    eventually(|| {
        // Whoever waits is blocked before the shutdown has begun.
        left = field(&mut client, "server", "shutdown_in_milliseconds");
        !left.is_empty()
    });
    assert!(left.parse::<i64>().is_ok_and(|ms| ms > 3_000_000), "{left}");
    assert_eq!(client.ask("SHUTDOWN ABORT"), "+OK");
    for client in &mut waits {
        assert_eq!(client.read(), "-ERR Errors trying to SHUTDOWN. Check logs.");
    }
    assert_eq!(client.ask("SET a 2"), "+OK", "the pause is over");
    let mut other = primary.server.client();
    let before = field(&mut other, "replication", "master_repl_offset");
    client.send("SHUTDOWN NOSAVE");
    // Its replicas are asked for what they have, and nothing follows.
    let mut end = String::new();
    eventually(|| {
        end = field(&mut other, "replication", "master_repl_offset");
        end != before
    });
    assert!(!primary.server.has_ended());
    silent.send(&format!("REPLCONF ACK {end}"));
    eventually(|| primary.server.has_ended());
}
