//! The end of the server, as far as replicas have to do with it: they get everything first, if they can
//! take it in time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::base::clock::unix_ms;
use crate::dispatch::blocking::{self, Parked};
use crate::dispatch::context::Shared;
use crate::dispatch::control::Shutdown;
use crate::dispatch::pause::{Paused, Purpose};
use crate::propagation::State;

/// How long replicas that read have for what was not written to them yet.
const LAST: Duration = Duration::from_millis(100);

/// A shutdown that waits for replicas.
pub struct Waiting {
    /// How it goes on.
    pub how: Shutdown,
    /// Clients that asked for it.
    pub clients: Vec<Arc<Parked>>,
    /// When it goes on in any case, in Unix milliseconds.
    until_ms: i64,
}

impl Waiting {
    /// Waits for replicas that lack something, if they are to be waited for: writes are paused then.
    pub fn begin(shared: &Shared, how: Shutdown) -> Option<Self> {
        let timeout = i64::from(shared.config.settings().shutdown_timeout);
        if how.now || timeout == 0 || is_everything_confirmed(shared) {
            return None;
        }
        let now_ms = unix_ms();
        let until_ms = now_ms + timeout * 1000;
        shared.status.shutdown_ms.store(until_ms, Relaxed);
        let may_ask = shared.pause.at(now_ms).is_none();
        shared
            .pause
            .begin(Purpose::Shutdown, i64::MAX, Paused::Writes);
        if may_ask {
            // Behind the last write; not on this thread, which those may wait for who write.
            shared.threads.start_or_do("shutdown", |shared| {
                shared.pass_turns();
                shared.replication.ask(&shared.stream);
            });
        }
        tracing::info!("Waiting for replicas before shutting down.");
        Some(Self {
            how,
            clients: Vec::new(),
            until_ms,
        })
    }

    /// True when it is to go on.
    pub fn is_over(&self, shared: &Shared) -> bool {
        unix_ms() >= self.until_ms || is_everything_confirmed(shared)
    }
}

/// The server goes on: whoever asked for its end is told so.
pub fn cancel(shared: &Shared, clients: &[Arc<Parked>]) {
    shared.status.shutdown_ms.store(0, Relaxed);
    for client in clients {
        blocking::stay(shared, client);
    }
    shared.pause.end(Purpose::Shutdown);
}

fn is_everything_confirmed(shared: &Shared) -> bool {
    let end = shared.stream.offset();
    let replicas = shared.replication.replicas();
    replicas.iter().all(|r| r.acknowledged() == end)
}

/// Tells which replicas lack something.
pub fn tell_of_replicas(shared: &Shared) {
    let (end, now) = (shared.stream.offset(), unix_ms() / 1000);
    let replicas = shared.replication.replicas();
    let mut lagging = 0;
    for replica in &replicas {
        let confirmed = replica.acknowledged();
        if confirmed != end {
            lagging += 1;
            tracing::warn!(
                "Lagging replica {} reported offset {} behind master, lag={}, state={}.",
                replica.name(),
                end.saturating_sub(confirmed),
                replica.lag(now),
                replica.state().name()
            );
        }
    }
    if !replicas.is_empty() {
        let all = replicas.len();
        tracing::info!(
            "{} of {all} replicas are in sync when shutting down.",
            all - lagging
        );
    }
}

/// How long the file of a cluster's node may take to be written.
const FILE: Duration = Duration::from_secs(2);

/// Has the file of a cluster's node say what this node knows. A primary that handed over comes back as a
/// replica then, and not as what it was.
pub fn save_cluster_file(shared: &Shared) {
    let saved = shared.cluster.as_ref().map(|cluster| cluster.save(FILE));
    if let Some(Err(reason)) = saved {
        tracing::warn!("The cluster config file may not be up to date: {reason}");
    }
}

/// Lets replicas have what their sockets take at once of what was not written to them yet.
pub fn write_the_rest(shared: &Shared) {
    let begun = Instant::now();
    let is_behind = || {
        let end = shared.stream.offset();
        let replicas = shared.replication.replicas();
        let waits = |r: &Arc<_>| {
            let r: &crate::propagation::Replica = r;
            r.state() == State::Online && r.behind(end) > 0
        };
        replicas.iter().any(waits)
    };
    while is_behind() && begun.elapsed() < LAST {
        std::thread::sleep(Duration::from_millis(1));
    }
}
