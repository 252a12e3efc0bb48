//! A node of a cluster as clients see it, without a cluster: what would come of the bus and of CLUSTER's
//! commands is published by hand.
//!
//! `tests/cluster/requests.txt` holds requests and their replies, as `tests/scripts` does, and says what
//! the node knows of the cluster:
//!
//! ```text
//! % slot 5061 migrating   to the other node; or importing from it, stable, or none: nobody serves it
//! % state fail            the cluster is down; or ok
//! % node replica          from here on this is a replica of the other node
//! % advance 10            the clock moves by 10 ms
//! ```
//!
//! `<this>` and `<other>` are the addresses of the two primaries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use tessera::base::clock::{Now, Steady};
use tessera::base::crc::key_slot;
use tessera::base::text::split_args;
use tessera::cluster::handle::{Asked, Cluster};
use tessera::cluster::machine::{Facts, Machine};
use tessera::cluster::routes::{Endpoint, Node, Published, SLOTS, Slot, State};
use tessera::commands;
use tessera::config::Settings;
use tessera::dispatch::context::{Shared, env_of};
use tessera::dispatch::table::Table;
use tessera::dispatch::testing::Harness;
use tessera::dispatch::{blocking, route, slots, subscriptions};
use tessera::keyspace::db::{Db, Effects};
use tessera::server::boot;

const THIS: &str = "127.0.0.1:21001";
const OTHER: &str = "127.0.0.1:21002";

fn node(index: usize) -> Option<Node> {
    Node::at(index)
}

/// This node with the first half of the slots, another one with the rest, and a third.
fn two_primaries() -> Published {
    let slot = |at| Slot {
        owner: node(usize::from(at > 8191)),
        ..Slot::default()
    };
    let nodes = (0..3).map(|index| Endpoint {
        id: format!("{index:040}"),
        ip: "127.0.0.1".into(),
        port: 21001 + index,
        ..Endpoint::default()
    });
    Published {
        nodes: nodes.collect(),
        myself: node(0),
        primary: None,
        state: State::Ok,
        slots: (0..SLOTS).map(slot).collect(),
    }
}

fn server() -> Arc<Shared> {
    with_cluster(None)
}

/// A node of a cluster whose bus has not started.
fn with_cluster(cluster: Option<Cluster>) -> Arc<Shared> {
    let settings = Settings {
        io_threads: 2,
        cluster_enabled: true,
        ..Settings::default()
    };
    let (shared, _requests) = boot::build(settings, None, Table::new(commands::all()), cluster);
    shared.routes.publish(two_primaries());
    shared
}

/// A reply as text; of a command that waits, the one that it has when its time is over.
fn ask(harness: &mut Harness, args: &[&[u8]]) -> String {
    harness.worker.refresh_settings(&harness.shared);
    harness.worker.look_around(&harness.shared);
    let outcome = harness.run(args);
    let Some(parked) = harness.worker.parked.take() else {
        return outcome.reply;
    };
    blocking::time_out(&harness.shared, &mut harness.worker, &parked);
    ended(&parked)
}

/// What a client hears whose wait has ended.
fn ended(parked: &blocking::Parked) -> String {
    let reply = parked.take_reply().expect("it has ended").bytes;
    match &reply[..] {
        b"*-1\r\n" => "(nil array)".into(),
        other => String::from_utf8_lossy(other).trim_end().into(),
    }
}

fn words(harness: &mut Harness, line: &str) -> String {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    ask(harness, &words)
}

fn direct(harness: &mut Harness, directive: &str) {
    let routes = &harness.shared.routes;
    let words: Vec<&str> = directive.split_whitespace().collect();
    match words[..] {
        ["slot", slot, what] => {
            let slot = slot.parse().expect("a slot");
            let (before, other) = (routes.view().slot(slot), node(1));
            let to = match what {
                "migrating" => Slot {
                    migrating_to: other,
                    ..before
                },
                "importing" => Slot {
                    importing_from: other,
                    ..before
                },
                "stable" => Slot {
                    owner: before.owner,
                    ..Slot::default()
                },
                "none" => Slot::default(),
                _ => panic!("unknown state {what}"),
            };
            routes.set_slot(slot, to);
        }
        ["state", "ok"] => routes.set_state(State::Ok),
        ["state", "fail"] => routes.set_state(State::Fail),
        ["node", "replica"] => {
            harness.shared.replication.upstream.set_follows(true);
            routes.publish(Published {
                myself: node(2),
                primary: node(1),
                ..Published::clone(&routes.view())
            });
        }
        ["advance", ms] => harness.advance_ms(ms.parse().expect("milliseconds")),
        _ => panic!("unknown directive {directive}"),
    }
}

#[test]
fn requests_are_answered_as_by_a_node_of_redis() {
    let mut harness = Harness::new(server());
    let text = include_str!("cluster/requests.txt");
    let mut wrong = Vec::new();
    let (mut asked, mut got) = ("", String::new());
    for (number, line) in text.lines().enumerate() {
        match line.as_bytes().first() {
            None | Some(b'#') => {}
            Some(b'%') => direct(&mut harness, &line[1..]),
            Some(b'>') => {
                let args = split_args(&line.as_bytes()[1..]).expect("balanced quotes");
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                asked = line;
                got = ask(&mut harness, &args);
            }
            Some(b'<') => {
                let expected = line[2..].replace("<this>", THIS).replace("<other>", OTHER);
                if got != expected {
                    let place = format!("{}: {asked}", number + 1);
                    wrong.push(format!("{place}\n expected {expected}\n got      {got}"));
                }
            }
            Some(_) => panic!("{}: what is this?", number + 1),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn who_waits_for_a_key_is_sent_to_its_new_owner() {
    let shared = server();
    let mut harness = Harness::new(Arc::clone(&shared));
    let wait = |harness: &mut Harness, line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        harness.request(&words);
        let parked = harness.worker.parked.take().expect("it waits");
        // The client is asked to look by its bell; this is its look.
        route::recheck_blocked(&shared);
        blocking::look_again(&shared, &mut harness.worker, &parked);
        assert!(parked.take_reply().is_none(), "nothing has changed");
        parked
    };
    let look = |harness: &mut Harness, parked: &blocking::Parked| {
        route::recheck_blocked(&shared);
        blocking::look_again(&shared, &mut harness.worker, parked);
        ended(parked)
    };
    let bar = key_slot(b"bar");
    let mine = shared.routes.view().slot(bar);
    let theirs = Slot {
        owner: node(1),
        ..Slot::default()
    };
    let parked = wait(&mut harness, "BLPOP bar 0");
    // While keys come or go the client waits on.
    for open in [(node(1), None), (None, node(1))] {
        let (migrating_to, importing_from) = open;
        shared.routes.set_slot(
            bar,
            Slot {
                migrating_to,
                importing_from,
                ..mine
            },
        );
        blocking::look_again(&shared, &mut harness.worker, &parked);
        assert!(parked.take_reply().is_none());
    }
    shared.routes.set_slot(bar, theirs);
    let moved = format!("-MOVED {bar} {OTHER}");
    assert_eq!(look(&mut harness, &parked), moved);
    assert!(shared.blocked.is_empty());
    shared.routes.set_slot(bar, mine);
    for (line, to, state, expected) in [
        (
            "BZPOPMIN bar 0",
            Slot::default(),
            State::Ok,
            "-CLUSTERDOWN Hash slot not served",
        ),
        (
            "XREAD BLOCK 0 STREAMS bar $",
            mine,
            State::Fail,
            "-CLUSTERDOWN The cluster is down",
        ),
        ("BLMOVE bar {bar}1 LEFT LEFT 0", theirs, State::Ok, &moved),
    ] {
        let parked = wait(&mut harness, line);
        shared.routes.set_slot(bar, to);
        shared.routes.set_state(state);
        assert_eq!(look(&mut harness, &parked), expected, "{line}");
        shared.routes.set_slot(bar, mine);
        shared.routes.set_state(State::Ok);
    }
    // Reads that wait at a replica stay while it follows the owner.
    let as_replica = |primary| Published {
        myself: node(2),
        primary,
        ..two_primaries()
    };
    shared.routes.publish(as_replica(node(1)));
    words(&mut harness, "READONLY");
    let parked = wait(&mut harness, "XREAD BLOCK 0 STREAMS foo $");
    shared.routes.publish(as_replica(node(0)));
    let moved = format!("-MOVED {} {OTHER}", key_slot(b"foo"));
    assert_eq!(look(&mut harness, &parked), moved);
    let stats = shared.stats.errors();
    let count = |code: &[u8]| stats.iter().find(|(c, _)| **c == *code).map(|(_, n)| *n);
    assert_eq!((count(b"MOVED"), count(b"CLUSTERDOWN")), (Some(3), Some(2)));
}

/// A list takes the place of a string that is still here, and wakes who would make another key that may
/// be at the next owner already.
#[test]
fn a_woken_client_makes_no_key_in_a_slot_that_goes() {
    let shared = server();
    let mut waiting = Harness::new(Arc::clone(&shared));
    let mut writer = Harness::new(Arc::clone(&shared));
    let bar = key_slot(b"bar");
    let mine = shared.routes.view().slot(bar);
    let going = Slot {
        migrating_to: node(1),
        ..mine
    };
    for (slot, expected) in [
        (
            going,
            "-TRYAGAIN Multiple keys request during rehashing of slot",
        ),
        (mine, "$1\r\nx"),
    ] {
        waiting.request(&[b"BLMOVE", b"bar", b"{bar}1", b"LEFT", b"LEFT", b"0"]);
        let parked = waiting.worker.parked.take().expect("it waits");
        words(&mut writer, "SET bar string");
        shared.routes.set_slot(bar, slot);
        for line in ["MULTI", "DEL bar", "RPUSH bar x", "EXEC"] {
            let reply = words(&mut writer, line);
            assert!(!reply.starts_with('-'), "{line}: {reply}");
        }
        assert_eq!(ended(&parked), expected);
        shared.routes.set_slot(bar, mine);
        words(&mut writer, "DEL bar");
    }
    assert_eq!(words(&mut writer, "EXISTS {bar}1"), ":1");
    assert!(shared.blocked.is_empty());
}

#[test]
fn subscriptions_end_with_the_slots_of_their_channels() {
    let shared = server();
    let (mut one, mut other) = (
        Harness::new(Arc::clone(&shared)),
        Harness::new(Arc::clone(&shared)),
    );
    for channel in ["bar", "{bar}1", "hello"] {
        words(&mut one, &format!("SSUBSCRIBE {channel}"));
    }
    words(&mut one, "SUBSCRIBE bar");
    words(&mut other, "SSUBSCRIBE bar");
    let bar = key_slot(b"bar");
    shared.routes.set_slot(
        bar,
        Slot {
            owner: node(1),
            ..Slot::default()
        },
    );
    let told = |harness: &mut Harness| {
        let mut out = tessera::resp::write::Output::new();
        subscriptions::confirm_left(&mut harness.session, &mut out);
        let text = String::from_utf8(out.to_vec()).expect("text");
        let mut words: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        words.retain(|word| !word.starts_with(['*', '$']) && !word.is_empty());
        words
    };
    assert!(told(&mut one).is_empty());
    subscriptions::leave_slots(&shared, |slot| slot == bar);
    assert!(one.session.handle.has_left_channels());
    let words_of_one = told(&mut one);
    let (first, second) = words_of_one.split_at(3);
    assert_eq!(
        (first[0].as_str(), first[2].as_str()),
        ("sunsubscribe", ":2")
    );
    assert_eq!(
        (second[0].as_str(), second[2].as_str()),
        ("sunsubscribe", ":1")
    );
    let mut channels = [first[1].as_str(), second[1].as_str()];
    channels.sort_unstable();
    assert_eq!(channels, ["bar", "{bar}1"]);
    assert_eq!(one.session.shard_channels.len(), 1);
    assert_eq!(one.session.channels.len(), 1, "other channels stay");
    // Who runs a command first hears of it before that command's reply.
    let mut reply = words(&mut other, "SUNSUBSCRIBE");
    assert_eq!(
        reply,
        "[\"sunsubscribe\" \"bar\" :0][\"sunsubscribe\" (nil) :0]"
    );
    reply = words(&mut other, "SSUBSCRIBE bar");
    assert_eq!(reply, format!("-MOVED {bar} {OTHER}"));
    reply = words(&mut one, "PUBSUB SHARDCHANNELS");
    assert!(reply.starts_with("-ERR Can't execute"), "{reply}");
    assert_eq!(words(&mut other, "PUBSUB SHARDCHANNELS"), "[\"hello\"]");
}

#[test]
fn messages_go_to_the_bus_instead_of_the_stream() {
    let (machine, _) = Machine::new(Default::default(), None, 1, Facts::default());
    let shared = with_cluster(Some(Cluster::new(machine, Steady::start())));
    let mut harness = Harness::new(Arc::clone(&shared));
    let outcome = harness.run(&[b"PUBLISH", b"foo", b"m"]);
    assert_eq!(
        (outcome.reply.as_str(), outcome.propagated.len()),
        (":0", 0)
    );
    let outcome = harness.run(&[b"SPUBLISH", b"bar", b"n"]);
    assert_eq!(
        (outcome.reply.as_str(), outcome.propagated.len()),
        (":0", 0)
    );
    assert_eq!(
        words(&mut harness, "SPUBLISH foo n"),
        format!("-MOVED 12182 {OTHER}")
    );
    let cluster = shared.cluster.as_ref().expect("it was made so");
    let sent = cluster.take_asked().into_iter().map(|asked| match asked {
        Asked::Publish {
            channel,
            message,
            shard,
        } => format!(
            "{} {} {shard}",
            channel.escape_ascii(),
            message.escape_ascii()
        ),
        _ => "something else".to_owned(),
    });
    assert!(sent.eq(["foo m false", "bar n true"]));
}

#[test]
fn keys_of_a_slot_that_left_go_for_replicas_and_watchers_too() {
    let shared = server();
    let (mut harness, mut watcher) = (
        Harness::new(Arc::clone(&shared)),
        Harness::new(Arc::clone(&shared)),
    );
    for i in 0..1000 {
        words(&mut harness, &format!("SET {{bar}}{i} x"));
        words(&mut harness, &format!("SET {{hello}}{i} x"));
    }
    words(&mut watcher, "WATCH {bar}7");
    words(&mut watcher, "MULTI");
    words(&mut watcher, "PING");
    let bar = key_slot(b"bar");
    assert_eq!(slots::count_of(&shared, bar), 1000);
    assert_eq!(slots::with_keys(&shared), [key_slot(b"hello"), bar]);
    let before = shared.changes();
    assert_eq!(slots::delete(&shared, bar), 0, "they belong here");
    shared.routes.set_slot(
        bar,
        Slot {
            owner: node(1),
            ..Slot::default()
        },
    );
    assert_eq!(slots::delete(&shared, bar), 1000);
    assert_eq!(shared.changes() - before, 1000);
    let outcome = harness.run(&[b"DBSIZE"]);
    assert_eq!(outcome.reply, ":1000");
    assert_eq!(outcome.propagated.len(), 1000);
    assert!(
        outcome
            .propagated
            .iter()
            .all(|c| c.starts_with("DEL \"{bar}"))
    );
    assert!(outcome.events.is_empty(), "they are elsewhere, not deleted");
    assert!(!slots::has_keys(&shared, bar));
    assert_eq!(words(&mut watcher, "EXEC"), "(nil array)");
    assert_eq!(slots::delete(&shared, bar), 0);
}

/// Written by a Valkey 9.1.
#[test]
fn slots_tell_how_many_keys_they_have() {
    let shared = server();
    let mut harness = Harness::new(Arc::clone(&shared));
    for line in ["SET bar 1", "SET {bar}1 2", "SET hello 1"] {
        words(&mut harness, line);
    }
    let slot = |slot: u16, keys: usize| format!("[:{slot} [\"key-count\" :{keys}]]");
    let limit = "-ERR Limit has to lie in between 1 and 16384 (maximum number of slots).";
    for (line, expected) in [
        (
            "SLOTSRANGE 866 867",
            format!("[{} {}]", slot(866, 1), slot(867, 0)),
        ),
        ("SLOTSRANGE 8191 8192", format!("[{}]", slot(8191, 0))),
        ("slotsrange 9000 9001", "[]".into()),
        (
            "SLOTSRANGE 10 3",
            "-ERR Start slot number 10 is greater than end slot number 3".into(),
        ),
        ("SLOTSRANGE x 3", "-ERR Invalid or out of range slot".into()),
        (
            "SLOTSRANGE 0 16384",
            "-ERR Invalid or out of range slot".into(),
        ),
        (
            "SLOTSRANGE 0",
            "-ERR unknown subcommand or wrong number of arguments for 'SLOT-STATS'. Try CLUSTER \
             HELP."
                .into(),
        ),
        (
            "ORDERBY x",
            "-ERR Unrecognized sort metric for ORDERBY.".into(),
        ),
        (
            "ORDERBY key-count LIMIT 3",
            format!("[{} {} {}]", slot(5061, 2), slot(866, 1), slot(0, 0)),
        ),
        (
            "ORDERBY key-count LIMIT 2 ASC",
            format!("[{} {}]", slot(0, 0), slot(1, 0)),
        ),
        ("ORDERBY key-count LIMIT", "-ERR syntax error".into()),
        ("ORDERBY key-count LIMIT 0", limit.into()),
        ("ORDERBY key-count LIMIT x", limit.into()),
        (
            "ORDERBY key-count ASC DESC",
            "-ERR Multiple filters of the same type are disallowed.".into(),
        ),
    ] {
        let line = format!("CLUSTER SLOT-STATS {line}");
        assert_eq!(words(&mut harness, &line), expected, "{line}");
        // The same at once, within a transaction.
        words(&mut harness, "MULTI");
        words(&mut harness, &line);
        assert_eq!(
            words(&mut harness, "EXEC"),
            format!("[{expected}]"),
            "{line}"
        );
    }
}

#[test]
fn refusals_are_counted_as_such() {
    let shared = server();
    let mut harness = Harness::new(Arc::clone(&shared));
    for line in [
        "GET foo",
        "GET bar",
        "MULTI",
        "GET bar",
        "GET hello",
        "EXEC",
    ] {
        words(&mut harness, line);
    }
    let counts = |name: &[u8]| {
        let known = shared.commands.find(name).expect("it is there");
        let of = &harness.worker.stats.commands[known.id];
        let (calls, refused) = (of.calls.load(Relaxed), of.rejected.load(Relaxed));
        (calls, refused, of.failed.load(Relaxed))
    };
    assert_eq!(counts(b"GET"), (1, 1, 0));
    assert_eq!(counts(b"EXEC"), (0, 1, 0));
}

/// Has clients send their requests over and over, each on a thread of its own, while `work` runs. It gets
/// a look at how often a reply of each was of the kind that `counts` picks.
fn among_writers(
    shared: &Arc<Shared>,
    clients: &[&[&str]],
    counts: fn(&[u8]) -> bool,
    work: impl FnOnce(&dyn Fn() -> Vec<usize>),
) {
    /// Ends the others however the work ends.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let counters: Vec<AtomicUsize> = clients.iter().map(|_| AtomicUsize::new(0)).collect();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for (lines, counter) in clients.iter().zip(&counters) {
            let (stop, mut harness) = (&stop, Harness::new(Arc::clone(shared)));
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    for line in *lines {
                        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
                        let reply = harness.request(&words);
                        let expected = ["-MOVED 5061 ", "-ASK 5061 ", "-EXECABORT "];
                        let is_expected = expected
                            .iter()
                            .any(|begin| reply.starts_with(begin.as_bytes()));
                        assert!(
                            is_expected || reply[0] != b'-',
                            "{line}: {}",
                            reply.escape_ascii()
                        );
                        counter.fetch_add(usize::from(counts(&reply)), Relaxed);
                    }
                }
            });
        }
        work(&|| {
            counters
                .iter()
                .map(|counter| counter.load(Relaxed))
                .collect()
        });
    });
}

/// Waits until each of them has counted on.
fn await_all(counted: &dyn Fn() -> Vec<usize>) {
    let before = counted();
    while counted().iter().zip(&before).any(|(now, then)| now == then) {
        std::thread::yield_now();
    }
}

/// Removes keys as MIGRATE does, under their shard's lock.
fn take_away(shared: &Shared, keys: &[&str]) {
    let keyspace = &shared.keyspace;
    let (env, mut effects) = (
        env_of(&shared.config.settings(), Now::read()),
        Effects::default(),
    );
    let hashes = keys.iter().map(|key| keyspace.hash(key.as_bytes()));
    let mut locks = keyspace.lock_many(hashes);
    let mut db = Db::new(keyspace, &mut locks, &env, &mut effects, 0, &[]);
    for key in keys {
        db.remove(key.as_bytes());
    }
}

const ROUNDS: usize = 50;

/// Clients write to a slot that comes and goes. Whenever it is gone, and what was in it removed, nothing
/// comes into it any more, though nobody waits for the writers: not by commands that had been admitted
/// before, nor by transactions.
#[test]
fn nothing_is_written_to_a_slot_behind_its_leaving() {
    let shared = server();
    let bar = key_slot(b"bar");
    let mine = shared.routes.view().slot(bar);
    let theirs = Slot {
        owner: node(1),
        ..Slot::default()
    };
    let clients: [&[&str]; 2] = [
        &["SET {bar}1 x", "MSET {bar}2 x {bar}3 x", "APPEND {bar}4 x"],
        &["MULTI", "SET {bar}5 x", "APPEND {bar}6 x", "EXEC"],
    ];
    // Of a transaction only EXEC answers by an array.
    let wrote = |reply: &[u8]| reply.starts_with(b"*") || reply.starts_with(b":");
    among_writers(&shared, &clients, wrote, |written| {
        for _ in 0..ROUNDS {
            shared.routes.set_slot(bar, mine);
            await_all(written);
            shared.routes.set_slot(bar, theirs);
            slots::delete(&shared, bar);
            for _ in 0..20 {
                assert_eq!(slots::count_of(&shared, bar), 0);
            }
        }
    });
}

/// A key that goes to the other node while commands want it: they find it here or are sent there, and
/// none makes it anew behind its leaving.
#[test]
fn a_key_of_a_slot_that_goes_is_here_or_there() {
    let shared = server();
    let bar = key_slot(b"bar");
    let mine = shared.routes.view().slot(bar);
    let going = Slot {
        migrating_to: node(1),
        ..mine
    };
    let clients: [&[&str]; 2] = [
        &["APPEND bar x", "INCR {bar}n"],
        &["MULTI", "APPEND {bar}1 x", "EXEC"],
    ];
    let sent_there = |reply: &[u8]| reply.starts_with(b"-ASK");
    among_writers(&shared, &clients, sent_there, |sent| {
        for _ in 0..ROUNDS {
            shared.routes.set_slot(bar, mine);
            while slots::count_of(&shared, bar) < 3 {
                std::thread::yield_now();
            }
            shared.routes.set_slot(bar, going);
            take_away(&shared, &["bar", "{bar}n", "{bar}1"]);
            for _ in 0..20 {
                assert_eq!(slots::count_of(&shared, bar), 0);
            }
            await_all(sent);
        }
    });
}
