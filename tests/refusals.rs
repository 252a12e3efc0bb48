//! The short way of a request and the long one are of one mind: whatever the state of the server and the
//! client, a command that is run without being asked for is one that would be admitted.

use std::sync::atomic::Ordering::Relaxed;

use tessera::client::session::{Multi, Replies};
use tessera::cluster::routes::{self, Endpoint, Node, Published, Slot};
use tessera::commands;
use tessera::config::Settings;
use tessera::dispatch::admit::{self, Verdict};
use tessera::dispatch::args::Args;
use tessera::dispatch::execute::{self, Invocation};
use tessera::dispatch::table::Table;
use tessera::dispatch::testing::Harness;
use tessera::resp::write::Output;
use tessera::server::boot;

/// A state of the server or the client, and how it comes about.
type State = (&'static str, fn(&mut Harness));

fn ask(harness: &mut Harness, line: &str) {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    harness.request(&words);
}

const STATES: &[State] = &[
    ("loading", |h| h.shared.durability.loading.begin(0)),
    ("loading beside the data set", |h| {
        h.shared.durability.loading.begin_async(0)
    }),
    ("a save has failed", |h| {
        ask(h, "CONFIG SET save 3600 1 stop-writes-on-bgsave-error yes");
        h.shared.durability.saves.last_ok.store(false, Relaxed);
    }),
    ("the append-only file fails", |h| {
        let progress = &h.shared.append_only.log.progress;
        progress.failing.store(true, Relaxed);
    }),
    ("all paused", |h| ask(h, "CLIENT PAUSE 1000000 ALL")),
    ("writes paused", |h| ask(h, "CLIENT PAUSE 1000000 WRITE")),
    ("too few replicas", |h| {
        ask(h, "CONFIG SET min-replicas-to-write 1")
    }),
    ("out of memory", |h| ask(h, "CONFIG SET maxmemory 1")),
    ("a replica", |h| {
        h.shared.replication.upstream.set_follows(true)
    }),
    ("replicas are writable", |h| {
        ask(h, "CONFIG SET replica-read-only no")
    }),
    ("stale data is not served", |h| {
        ask(h, "CONFIG SET replica-serve-stale-data no")
    }),
    ("not authenticated", |h| {
        ask(h, "CONFIG SET requirepass x");
        h.session.identity.authenticated = false;
    }),
    ("of a user who may read some keys", |h| {
        ask(h, "ACL SETUSER reader on nopass +@read ~a*");
        ask(h, "AUTH reader x");
    }),
    ("of a user with selectors", |h| {
        ask(
            h,
            "ACL SETUSER parts on nopass (+@write ~w*) (+get allkeys)",
        );
        ask(h, "AUTH parts x");
    }),
    ("of a user who lost everything", |h| {
        ask(h, "ACL SETUSER default -@all resetkeys resetchannels")
    }),
    ("within MULTI", |h| h.session.multi = Some(Multi::default())),
    ("subscribed", |h| ask(h, "SUBSCRIBE c")),
    ("not answered", |h| h.session.replies = Replies::Off),
];

/// States of a node of a cluster: what is known of slot 5061, of the key `bar`, and of 866, of `hello`.
const IN_CLUSTER: &[State] = &[
    ("serves the slots", |h| {
        h.shared.routes.publish(cluster(0, None))
    }),
    ("one of the slots goes", |h| {
        let mut slots = cluster(0, None);
        slots.slots[5061].migrating_to = Node::at(1);
        h.shared.routes.publish(slots);
    }),
    ("one of the slots comes, and is asked for", |h| {
        let mut slots = cluster(1, None);
        slots.slots[5061].importing_from = Node::at(1);
        h.shared.routes.publish(slots);
        h.session.asking = true;
    }),
    ("asked for what does not come", |h| h.session.asking = true),
    ("nobody serves the slots", |h| {
        let mut slots = cluster(0, None);
        slots.slots.clear();
        h.shared.routes.publish(slots);
    }),
    ("another node serves the slots", |h| {
        h.shared.routes.publish(cluster(1, None))
    }),
    ("a replica of who serves the slots", |h| {
        h.shared.routes.publish(cluster(1, Node::at(1)));
        h.shared.replication.upstream.set_follows(true);
    }),
    ("the same for reads", |h| {
        h.shared.routes.publish(cluster(1, Node::at(1)));
        h.shared.replication.upstream.set_follows(true);
        h.session.reads_replica = true;
    }),
    ("the cluster is down", |h| {
        h.shared.routes.publish(cluster(0, None));
        h.shared.routes.set_state(routes::State::Fail);
    }),
    ("reads are allowed when it is down", |h| {
        h.shared.routes.publish(cluster(0, None));
        h.shared.routes.set_state(routes::State::Fail);
        ask(h, "CONFIG SET cluster-allow-reads-when-down yes");
    }),
];

/// Two nodes, of which one owns all slots; this is the first.
fn cluster(owner: usize, primary: Option<Node>) -> Published {
    let slot = Slot {
        owner: Node::at(owner),
        ..Slot::default()
    };
    Published {
        nodes: vec![Endpoint::default(); 2],
        myself: Node::at(0),
        primary,
        state: routes::State::Ok,
        slots: vec![slot; routes::SLOTS],
    }
}

/// How many commands take the short way, of which each would be admitted. Their keys are all of one slot,
/// or of two.
fn walk(states: &[&State], cluster_enabled: bool) -> usize {
    let settings = Settings {
        cluster_enabled,
        ..Settings::default()
    };
    let (shared, _requests) = boot::build(settings, None, Table::new(commands::all()), None);
    let mut harness = Harness::new(shared);
    for (_, enter) in states {
        enter(&mut harness);
    }
    let Harness {
        shared,
        worker,
        session,
        ..
    } = &mut harness;
    worker.refresh_settings(shared);
    worker.look_around(shared);
    let names: Vec<&str> = states.iter().map(|(name, _)| *name).collect();
    let (out, mut short) = (Output::new(), 0);
    let all = shared.commands.all();
    for (known, last) in all.flat_map(|known| [(known, "bar"), (known, "hello")]) {
        let len = known.row.arity.unsigned_abs() as usize;
        let mut args: Vec<&[u8]> = vec![b"bar"; len];
        args[len - 1] = last.as_bytes();
        args[0] = known.row.name.as_bytes();
        let mut hints = Vec::new();
        execute::prepare(shared, 0, len, |i| args[i], &mut hints);
        if !execute::takes_short_way(shared, worker, session, (known, Args::new(&args), &hints)) {
            continue;
        }
        short += 1;
        let invocation = Invocation {
            hints: &hints,
            ..Invocation::new(known, Args::new(&args))
        };
        let admitted = admit::admit(shared, worker, session, &out, invocation);
        assert!(
            matches!(admitted, Ok(Verdict::Run(_))),
            "{names:?}: {} is run unasked",
            known.full_name
        );
    }
    short
}

#[test]
fn what_is_run_unasked_would_be_admitted_in_any_state() {
    let calm = walk(&[], false);
    assert!(calm > 200, "most commands on keys take the short way");
    for (at, one) in STATES.iter().enumerate() {
        walk(&[one], false);
        for other in &STATES[at + 1..] {
            walk(&[one, other], false);
        }
    }
    // Reads of a replica take it too.
    assert!(walk(&[&STATES[8]], false) > 100);
}

#[test]
fn nor_does_a_node_of_a_cluster_run_unasked_what_it_would_refuse() {
    assert_eq!(walk(&[], true), 0, "no slot is served yet");
    for one in IN_CLUSTER {
        walk(&[one], true);
        for other in STATES {
            walk(&[one, other], true);
        }
    }
    let short = |name: &str| {
        let state = IN_CLUSTER.iter().find(|(n, _)| *n == name);
        walk(&[state.expect("it is there")], true)
    };
    assert!(short("serves the slots") > 200);
    assert!(short("the same for reads") > 100);
    for name in ["another node serves the slots", "the cluster is down"] {
        assert_eq!(short(name), 0, "{name}");
    }
}
