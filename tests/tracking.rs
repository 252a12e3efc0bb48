//! Client-side caching over sockets: clients of several workers that keep copies of keys, and word of what
//! changed, which comes behind the reply that it belongs to and is never missed.

mod sockets;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use sockets::{Client, Server, eventually, on_both_workers};

const WORKERS: [&str; 2] = ["--io-threads", "4"];

/// Reads one reply to `line`; keys that are said to have changed before it are dropped from `cache`.
fn ask(client: &mut Client, cache: &mut HashMap<String, u64>, line: &str) -> String {
    client.send(line);
    read(client, cache)
}

fn read(client: &mut Client, cache: &mut HashMap<String, u64>) -> String {
    loop {
        let reply = client.read();
        match reply.strip_prefix("invalidate ") {
            Some("_") => cache.clear(),
            Some(keys) => keys.split(' ').for_each(|key| _ = cache.remove(key)),
            None => return reply,
        }
    }
}

/// A caching client beside writers that count keys up: what it has cached when a round trip begins, and has
/// not been told of when that ends, is no older than what was acknowledged to a writer before the round trip.
fn check_cache(
    mut client: Client,
    mode: &str,
    (acknowledged, stop): (Arc<Vec<AtomicU64>>, Arc<AtomicBool>),
) -> u64 {
    let mut cache = HashMap::new();
    client.send("HELLO 3");
    // A map: a line for its length, and a name and a value for each entry.
    assert_eq!(client.read(), "%7");
    (0..14).for_each(|_| _ = client.read());
    assert_eq!(ask(&mut client, &mut cache, mode), "+OK");
    let (mut checked, mut round) = (0, 0);
    while !stop.load(SeqCst) {
        round += 1;
        let key = (round * 7) % acknowledged.len();
        let name = format!("key:{key}");
        if !cache.contains_key(&name) {
            // Two at once: between them something may be said of the first.
            client.send(&format!("GET {name}\r\nPING"));
            let value = read(&mut client, &mut cache);
            // "_" is the null of RESP3.
            cache.insert(name.clone(), value.parse().unwrap_or(0));
            assert_eq!(read(&mut client, &mut cache), "+PONG");
        }
        let before: Vec<u64> = acknowledged.iter().map(|n| n.load(SeqCst)).collect();
        assert_eq!(ask(&mut client, &mut cache, "PING"), "+PONG");
        for (name, value) in &cache {
            let key: usize = name[4..].parse().expect("a number");
            let least = before[key];
            assert!(*value >= least, "{mode}: {name} is {value}, was {least}");
            checked += 1;
        }
    }
    checked
}

#[test]
fn no_copy_is_older_than_what_was_acknowledged() {
    const KEYS: usize = 12;
    let server = Server::start(&WORKERS);
    let counters = || (0..KEYS).map(|_| AtomicU64::new(0)).collect();
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new(counters());
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = on_both_workers(&server).into_iter().step_by(7);
    let modes = [
        "CLIENT TRACKING ON",
        "CLIENT TRACKING ON NOLOOP",
        "CLIENT TRACKING ON BCAST",
        "CLIENT TRACKING ON BCAST PREFIX key:",
    ];
    let readers: Vec<_> = modes
        .into_iter()
        .map(|mode| {
            let (client, shared) = (clients.next(), (acknowledged.clone(), stop.clone()));
            let client = client.expect("enough clients");
            std::thread::spawn(move || check_cache(client, mode, shared))
        })
        .collect();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let mut client = clients.next().expect("enough clients");
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || {
                for round in 1..=1500_u64 {
                    // Each key has one writer.
                    let key = (round as usize * 3 + writer) % KEYS;
                    let value = match round % 5 {
                        0 => client.ask(&format!("INCRBY key:{key} 2")),
                        1 => {
                            client.send(&format!("MULTI\r\nINCR key:{key}\r\nEXEC"));
                            (0..3).map(|_| client.read()).last().expect("three replies")
                        }
                        _ => client.ask(&format!("INCR key:{key}")),
                    };
                    let value = value.trim_start_matches(':').parse().expect("a number");
                    acknowledged[key].fetch_max(value, SeqCst);
                }
            })
        })
        .collect();
    writers
        .into_iter()
        .for_each(|w| w.join().expect("a writer"));
    stop.store(true, SeqCst);
    for reader in readers {
        assert!(reader.join().expect("no stale copy") > 0);
    }
    eventually(|| {
        server
            .client()
            .ask("INFO clients")
            .contains("tracking_clients:0\r\n")
    });
    let stats = server.client().ask("INFO stats");
    assert!(stats.contains("tracking_total_prefixes:0\r\n"), "{stats}");
}

/// A client that speaks RESP3 and keeps copies.
fn caching(server: &Server, options: &str) -> Client {
    let mut client = server.client();
    client.send("HELLO 3");
    (0..15).for_each(|_| _ = client.read());
    assert_eq!(client.ask(&format!("CLIENT TRACKING ON {options}")), "+OK");
    client
}

#[test]
fn whatever_changes_a_key_is_told() {
    let server = Server::start(&["--io-threads", "4", "--enable-debug-command", "yes"]);
    let (mut client, mut other) = (caching(&server, ""), server.client());
    for (make, change) in [
        ("SET k 1", "SET k 2"),
        ("SET k 1", "DEL k"),
        ("SET k 1", "UNLINK k"),
        ("SET k 1", "APPEND k 2"),
        ("SET k 1", "EXPIRE k 100"),
        ("SET k 1 EX 100", "PERSIST k"),
        ("SET k 1", "PEXPIREAT k 1"),
        ("SET k 1", "RENAME k l"),
        ("SET l 1", "RENAME l k"),
        ("SET k 1", "MOVE k 1"),
        ("SET l 1", "COPY l k REPLACE"),
        ("SET k 1", "GETDEL k"),
        ("SET k 1", "MSET l 1 k 2"),
        ("SET k 1", "SETRANGE k 0 x"),
        ("SET k 1", "BITOP NOT k k"),
    ] {
        other.ask("DEL k l");
        other.ask("SELECT 1");
        other.ask("DEL k");
        other.ask("SELECT 0");
        other.ask(make);
        client.ask("GET k");
        other.ask(change);
        assert_eq!(client.read(), "invalidate k", "{change}");
    }
    other.ask("DEL k");
    for (make, look, change) in [
        ("RPUSH k a b", "LRANGE k 0 -1", "LPOP k"),
        ("RPUSH k a b", "LLEN k", "LMOVE k l LEFT LEFT"),
        ("SADD k a b", "SMEMBERS k", "SREM k a"),
        ("SADD k a b", "SCARD k", "SMOVE k l2 a"),
        ("ZADD k 1 a", "ZCARD k", "ZINCRBY k 1 a"),
        ("HSET k f 1 g 2", "HGET k f", "HDEL k f"),
        ("HSET k f 1 g 2", "HGETALL k", "HPEXPIREAT k 1 FIELDS 1 f"),
        ("XADD k 1-1 f 1", "XLEN k", "XADD k 2-1 f 1"),
        ("PFADD k a", "PFCOUNT k", "PFADD k b"),
        ("GEOADD k 1 1 a", "GEOPOS k a", "GEOADD k 2 2 a"),
        (
            "SET k 1",
            "STRLEN k",
            "RESTORE k 0 \"\\x00\\xc0\\x01\\x0a\\x00\\x6e\\x9c\\x5c\\xd2\\x48\\x4c\\xb7\\x4b\" REPLACE",
        ),
    ] {
        other.ask("DEL k");
        other.ask(make);
        client.send(look);
        client.send("PING");
        while client.read() != "+PONG" {}
        let reply = other.ask(change);
        if !reply.starts_with("-ERR DUMP") {
            assert_eq!(client.read(), "invalidate k", "{change}: {reply}");
        }
    }
}

#[test]
fn keys_that_go_by_themselves_are_told() {
    let server = Server::start(&["--io-threads", "4", "--enable-debug-command", "yes"]);
    let (mut client, mut other) = (caching(&server, ""), server.client());
    // By the active expiry, and by who meets them.
    other.ask("SET k 1 PX 30");
    client.ask("GET k");
    assert_eq!(client.read(), "invalidate k");
    other.ask("DEBUG SET-ACTIVE-EXPIRE 0");
    other.ask("SET k 1 PX 1");
    client.ask("GET k");
    eventually(|| other.ask("GET k") == "$-1");
    assert_eq!(client.read(), "invalidate k");
    // By eviction.
    other.ask("SET k 1");
    client.ask("GET k");
    other.ask("CONFIG SET maxmemory-policy allkeys-random");
    other.ask("CONFIG SET maxmemory 1");
    assert_eq!(client.read(), "invalidate k");
    other.ask("CONFIG SET maxmemory 0");
    // All at once.
    for flush in ["FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1", "DEBUG RELOAD"] {
        other.ask("SET k 1");
        client.ask("GET k");
        assert_eq!(other.ask(flush), "+OK", "{flush}");
        assert_eq!(client.read(), "invalidate _", "{flush}");
        let stats = other.ask("INFO stats");
        assert!(
            stats.contains("tracking_total_keys:0\r\n"),
            "{flush}: {stats}"
        );
    }
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn word_of_own_changes_comes_behind_the_reply() {
    let server = Server::start(&WORKERS);
    let mut client = caching(&server, "");
    client.ask("SET k 1");
    client.send("GET k\r\nSET k 2\r\nGET k\r\nMULTI\r\nSET k 3\r\nPING\r\nEXEC\r\nPING");
    let replies: Vec<String> = (0..10).map(|_| client.read()).collect();
    let expected = [
        "1",
        "+OK",
        "invalidate k",
        "2",
        "+OK",
        "+QUEUED",
        "+QUEUED",
        "+OK +PONG",
        "invalidate k",
        "+PONG",
    ];
    assert_eq!(replies, expected);
    let mut quiet = caching(&server, "NOLOOP");
    quiet.send("GET k\r\nSET k 2\r\nGET k\r\nPING");
    let replies: Vec<String> = (0..4).map(|_| quiet.read()).collect();
    assert_eq!(replies, ["3", "+OK", "2", "+PONG"]);
    client.ask("SET k 4");
    assert_eq!(quiet.read(), "invalidate k");
}

#[test]
fn who_is_told_in_anothers_place_may_go() {
    let server = Server::start(&WORKERS);
    let mut target = server.client();
    let id = target.ask("CLIENT ID").replace(':', "");
    assert!(
        target
            .ask("SUBSCRIBE __redis__:invalidate")
            .starts_with("subscribe")
    );
    let mut client = caching(&server, &format!("REDIRECT {id}"));
    assert_eq!(client.ask("CLIENT GETREDIR"), format!(":{id}"));
    let mut other = server.client();
    other.ask("SET k 1");
    client.ask("GET k");
    other.ask("SET k 2");
    assert_eq!(target.read(), "message __redis__:invalidate k");
    let list = other.ask("CLIENT LIST");
    assert!(
        list.contains(&format!("redir={id} ")) && list.contains("flags=tU "),
        "{list}"
    );
    client.ask("GET k");
    drop(target);
    eventually(|| !other.ask("CLIENT LIST").contains(&format!("id={id} ")));
    other.ask("SET k 3");
    assert_eq!(client.read(), format!("tracking-redir-broken :{id}"));
    assert!(other.ask("CLIENT LIST").contains("flags=tRU "));
    // A plain one, RESET and its like.
    assert_eq!(client.ask("CLIENT TRACKING ON"), "+OK");
    client.ask("GET k");
    other.ask("SET k 4");
    assert_eq!(client.read(), "invalidate k");
    client.ask("GET k");
    assert_eq!(client.ask("RESET"), "+RESET");
    other.ask("SET k 5");
    assert_eq!(client.ask("PING"), "+PONG");
    assert_eq!(client.ask("CLIENT GETREDIR"), ":-1");
}

/// Forgets keys when there are too many: whoever has read one is told.
#[test]
fn forgotten_keys_are_told() {
    let server = Server::start(&WORKERS);
    let (mut client, mut other) = (caching(&server, ""), server.client());
    for i in 0..500 {
        client.ask(&format!("GET k:{i}"));
    }
    assert!(
        other
            .ask("INFO stats")
            .contains("tracking_total_keys:500\r\n")
    );
    assert_eq!(other.ask("CONFIG SET tracking-table-max-keys 7"), "+OK");
    let mut told: Vec<String> = (0..493).map(|_| client.read()).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 493);
    assert!(
        other
            .ask("INFO stats")
            .contains("tracking_total_keys:7\r\n")
    );
    // Under the limit nothing is told; beyond it, one for one.
    client.ask("GET fresh");
    client.send("PING");
    assert!(client.read().starts_with("invalidate "));
    assert_eq!(client.read(), "+PONG");
}

/// What a replica is sent changes its keys, and a new data set all of them.
#[test]
fn a_replicas_clients_are_told_too() {
    let primary = Server::start(&["--repl-diskless-sync-delay", "0"]);
    let mut admin = primary.client();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("an address").port().to_string();
    drop(socket);
    assert_eq!(admin.ask(&format!("CONFIG SET port {port}")), "+OK");
    let replica = Server::start(&WORKERS);
    let mut client = caching(&replica, "");
    client.ask("SET k 1");
    client.ask("GET k");
    assert_eq!(client.ask(&format!("REPLICAOF 127.0.0.1 {port}")), "+OK");
    assert_eq!(client.read(), "invalidate _");
    eventually(|| {
        replica
            .client()
            .ask("INFO replication")
            .contains("master_link_status:up")
    });
    client.ask("GET k");
    admin.ask("SET k 2");
    assert_eq!(client.read(), "invalidate k");
    assert_eq!(client.ask("GET k"), "2");
}
