//! Clusters of real processes: formed by redis-cli, ours alone and together with nodes of a real Redis.
//! What is shown is that every acknowledged write is there in the end, whoever fails or moves.

mod redirected;
mod replicas;
mod sockets;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use redirected::Redirected;
use replicas::Server;
use sockets::{Client, eventually, soon, under_test};

const OPTIONS: &[&str] = &[
    "--bind",
    "127.0.0.1",
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "1500",
    "--repl-diskless-sync-delay",
    "0",
    "--appendonly",
    "yes",
];

/// A node of ours.
fn ours() -> Server {
    Server::start(&under_test(), OPTIONS)
}

/// A node of a real Redis.
fn real() -> Server {
    Server::start(OsStr::new("redis-server"), OPTIONS)
}

fn cli(args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(args).output();
    let output = output.expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn place(node: &Server) -> String {
    format!("127.0.0.1:{}", node.port)
}

/// Forms a cluster, with as many replicas of each primary as there are left.
fn create(nodes: &[&Server], replicas: usize) {
    let places: Vec<String> = nodes.iter().map(|node| place(node)).collect();
    let replicas = replicas.to_string();
    let mut args = vec!["--cluster", "create"];
    args.extend(places.iter().map(String::as_str));
    args.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
    let told = cli(&args);
    assert!(told.contains("[OK] All 16384 slots covered."), "{told}");
    eventually(|| nodes.iter().all(|node| serves(node)) && agree(nodes));
}

/// Every node has heard who copies whom. A Redis that has just become a replica tells it with its
/// next ping; until then nobody would elect it, and its primary would not hand over to it.
fn agree(nodes: &[&Server]) -> bool {
    let view = |node: &&Server| -> BTreeSet<(String, String)> {
        let text = node.client().ask("CLUSTER NODES");
        let fields = text.lines().map(|line| line.split(' '));
        let pairs = fields.filter_map(|mut f| Some((f.next()?.to_owned(), f.nth(2)?.to_owned())));
        pairs.collect()
    };
    let first = view(&nodes[0]);
    nodes[1..].iter().all(|node| view(node) == first)
}

fn serves(node: &Server) -> bool {
    let mut client = node.client();
    let up = |client: &mut Client| {
        let replication = client.ask("INFO replication");
        replication.contains("role:master") || replication.contains("master_link_status:up")
    };
    client.ask("CLUSTER INFO").contains("cluster_state:ok") && up(&mut client)
}

fn id(node: &Server) -> String {
    node.client().ask("CLUSTER MYID")
}

fn is_primary(node: &Server) -> bool {
    node.client().ask("ROLE").starts_with("master")
}

/// The replica of a primary among `nodes`.
fn replica_of<'a>(primary: &Server, nodes: &[&'a Server]) -> &'a Server {
    let id = id(primary);
    let copies = |node: &Server| {
        let text = node.client().ask("CLUSTER NODES");
        let mine = text.lines().find(|line| line.contains("myself"));
        mine.is_some_and(|line| line.contains(&format!("slave {id}")))
    };
    let found = nodes.iter().find(|node| copies(node));
    found.expect("every primary has a replica")
}

/// Writes numbered keys through whatever node has them, until told to stop; what was acknowledged.
fn write(nodes: &[u16], stop: &AtomicBool, done: &Mutex<u64>) {
    let (mut client, mut n) = (Redirected::new(nodes), 0);
    while !stop.load(Relaxed) {
        if client.set(&format!("k{n}"), n).is_ok() {
            n += 1;
            *done.lock().unwrap() = n;
        }
    }
}

/// Every key up to `n` has its value, wherever it is.
fn has_all(nodes: &[&Server], n: u64) {
    for node in nodes {
        eventually(|| serves(node));
    }
    let mut clients: Vec<Client> = nodes.iter().map(|node| node.client()).collect();
    for key in 0..n {
        let found = clients
            .iter_mut()
            .any(|client| client.ask(&format!("GET k{key}")) == key.to_string());
        assert!(found, "k{key} of {n} is lost");
    }
}

/// Runs `during` while a client writes, and counts what was acknowledged.
fn under_load(nodes: &[&Server], during: impl FnOnce()) -> u64 {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
    let ports: Vec<u16> = nodes.iter().map(|node| node.port).collect();
    let writer = {
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        std::thread::spawn(move || write(&ports, &stop, &done))
    };
    let written = |least: u64| soon(|| *done.lock().unwrap() >= least);
    assert!(written(200));
    during();
    let so_far = *done.lock().unwrap();
    assert!(written(so_far + 200), "nothing is written any more");
    stop.store(true, Relaxed);
    writer.join().expect("the writer ends");
    *done.lock().unwrap()
}

#[test]
fn a_cluster_forms_serves_and_fails_over() {
    let mut nodes: Vec<Server> = (0..6).map(|_| ours()).collect();
    create(&nodes.iter().collect::<Vec<_>>(), 1);
    let dead = {
        let all: Vec<&Server> = nodes.iter().collect();
        let at = all
            .iter()
            .position(|node| is_primary(node))
            .expect("there are three");
        let heir = replica_of(all[at], &all).port;
        assert_ne!(heir, all[at].port);
        (at, heir)
    };
    nodes[dead.0].kill();
    let heir = nodes
        .iter()
        .position(|node| node.port == dead.1)
        .expect("it is one of them");
    eventually(|| is_primary(&nodes[heir]));
    let mut client = nodes[heir].client();
    eventually(|| client.ask("CLUSTER INFO").contains("cluster_state:ok"));
    // Back, it copies who has taken its place.
    nodes[dead.0].restart(&[]);
    eventually(|| !is_primary(&nodes[dead.0]) && serves(&nodes[dead.0]));
    let all: Vec<&Server> = nodes.iter().collect();
    assert_eq!(replica_of(&nodes[heir], &all).port, nodes[dead.0].port);
}

#[test]
fn a_manual_failover_and_a_reshard_lose_nothing() {
    let nodes: Vec<Server> = (0..6).map(|_| ours()).collect();
    let all: Vec<&Server> = nodes.iter().collect();
    create(&all, 1);
    let first = all
        .iter()
        .find(|node| is_primary(node))
        .expect("there are three");
    let heir = replica_of(first, &all);
    let other = all
        .iter()
        .find(|node| is_primary(node) && node.port != first.port)
        .expect("there are three");
    let written = under_load(&all, || {
        assert_eq!(heir.client().ask("CLUSTER FAILOVER"), "+OK");
        eventually(|| is_primary(heir) && !is_primary(first));
        let told = cli(&[
            "--cluster",
            "reshard",
            &place(heir),
            "--cluster-from",
            &id(heir),
            "--cluster-to",
            &id(other),
            "--cluster-slots",
            "60",
            "--cluster-yes",
        ]);
        assert!(told.contains("Moving slot"), "{told}");
    });
    has_all(&all, written);
    let told = cli(&["--cluster", "check", &place(heir)]);
    assert_eq!(told.matches("[OK]").count(), 3, "{told}");
}

#[test]
fn nodes_of_a_real_redis_are_nodes_like_others() {
    if !replicas::is_redis_installed() {
        return;
    }
    let nodes: Vec<Server> = (0..6)
        .map(|n| if n % 2 == 0 { ours() } else { real() })
        .collect();
    let all: Vec<&Server> = nodes.iter().collect();
    create(&all, 1);
    // Each replica takes over from its primary, theirs from ours and ours from theirs.
    let primaries: Vec<&Server> = all
        .iter()
        .filter(|node| is_primary(node))
        .copied()
        .collect();
    let written = under_load(&all, || {
        for primary in &primaries {
            let heir = replica_of(primary, &all);
            assert_eq!(heir.client().ask("CLUSTER FAILOVER"), "+OK");
            eventually(|| is_primary(heir) && !is_primary(primary));
            eventually(|| serves(primary));
        }
    });
    has_all(&all, written);
}

#[test]
fn a_cluster_that_starts_again_is_what_it_was() {
    let mut nodes: Vec<Server> = (0..3).map(|_| ours()).collect();
    create(&nodes.iter().collect::<Vec<_>>(), 0);
    let written = under_load(&nodes.iter().collect::<Vec<_>>(), || {});
    let ids: Vec<String> = nodes.iter().map(id).collect();
    nodes.iter_mut().for_each(|node| node.kill());
    for node in &mut nodes {
        node.restart(&[]);
    }
    assert_eq!(nodes.iter().map(id).collect::<Vec<_>>(), ids);
    has_all(&nodes.iter().collect::<Vec<_>>(), written);
}
