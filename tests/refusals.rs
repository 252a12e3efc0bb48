//! The short way of a request and the long one are of one mind: whatever the state of the server and the
//! client, a command that is run without being asked for is one that would be admitted.

use std::sync::atomic::Ordering::Relaxed;

use tessera::client::session::{Multi, Replies};
use tessera::commands;
use tessera::config::Settings;
use tessera::dispatch::admit::{self, Verdict};
use tessera::dispatch::execute;
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
    ("loading", |h| {
        h.shared.durability.loading.active.store(true, Relaxed);
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
        h.session.authenticated = false;
    }),
    ("within MULTI", |h| h.session.multi = Some(Multi::default())),
    ("subscribed", |h| ask(h, "SUBSCRIBE c")),
    ("not answered", |h| h.session.replies = Replies::Off),
];

/// How many commands take the short way, of which each would be admitted.
fn walk(states: &[&State]) -> usize {
    let (shared, _requests) = boot::build(Settings::default(), None, Table::new(commands::all()));
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
    for known in shared.commands.all() {
        let len = known.row.arity.unsigned_abs() as usize;
        if !execute::takes_short_way(worker, session, known, len) {
            continue;
        }
        short += 1;
        let admitted = admit::admit(shared, worker, session, &out, known);
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
    let calm = walk(&[]);
    assert!(calm > 100, "most commands on keys take the short way");
    for (at, one) in STATES.iter().enumerate() {
        walk(&[one]);
        for other in &STATES[at + 1..] {
            walk(&[one, other]);
        }
    }
    // Reads of a replica take it too.
    assert!(walk(&[&STATES[7]]) > 50);
}
