//! FAILOVER: writes are paused, a replica that has everything is waited for, and then this server follows
//! it and tells it to take over.
//!
//! A thread of its own waits for the replica and gives the order; how far it is is told below
//! ([`crate::propagation::Failover`]). What the replica answers to that order comes to the thread that
//! follows ([`super::following`]), which ends the failover. Writes that were paused run then, and find a
//! replica.

use std::sync::Arc;
use std::time::Duration;

use super::following;
use crate::base::clock::unix_ms;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::dispatch::pause::{Paused, Purpose};
use crate::propagation::{Abort, Decision, Plan, State};

/// Longest time without a look.
const LOOK: Duration = Duration::from_millis(100);

/// Begins a failover; false when there is one, or this server follows somebody.
///
/// # Errors
/// There can be no further thread.
pub fn begin(shared: &Shared, plan: Plan) -> std::io::Result<bool> {
    let replication = &shared.replication;
    let upstream = &replication.upstream;
    let named = plan.target.clone();
    let is_primary = || !upstream.follows() && upstream.wanted().primary.is_none();
    if !replication.failover.begin(plan, is_primary) {
        return Ok(false);
    }
    match named {
        Some((host, port)) => tracing::info!("FAILOVER requested to {host}:{port}."),
        None => tracing::info!("FAILOVER requested to any replica."),
    }
    shared
        .pause
        .begin(Purpose::Failover, i64::MAX, Paused::Writes);
    let started = shared.threads.start("failover", run);
    if let Err(error) = &started {
        abort(shared, &format!("No thread for it: {}", strerror(error)));
    }
    started.map(|()| true)
}

/// Ends the failover under way for this reason. [`Abort::GivesUp`]: it is over when [`give_up`] returns,
/// which is not for a worker to call.
pub fn abort(shared: &Shared, reason: &str) -> Abort {
    let ended = shared.replication.failover.abort();
    if let Abort::Ended(plan) | Abort::GivesUp(Some(plan)) = &ended {
        tracing::info!("{} aborted: {reason}", plan.name());
    }
    if let Abort::Ended(_) = ended {
        shared.pause.end(Purpose::Failover);
    }
    ended
}

/// Has this server be a primary again, and waits until it is.
pub fn give_up(shared: &Shared) {
    following::order(shared, None, false);
    following::await_orders(shared);
    if shared.replication.failover.gave_up() {
        shared.pause.end(Purpose::Failover);
    }
}

/// Waits for a replica that has everything, and has it followed.
fn run(shared: &Arc<Shared>) {
    let replication = &shared.replication;
    // No write is under way any more: the stream has the end that a replica is to have.
    shared.pass_turns();
    if synced(shared, None).is_none() {
        replication.ask(&shared.stream);
    }
    loop {
        let now = unix_ms();
        match replication.failover.decide(now, |to| synced(shared, to)) {
            Decision::Wait => replication.failover.wait(LOOK),
            Decision::Ended => return,
            Decision::TimedOut(plan) => {
                let name = plan.name();
                tracing::info!("{name} aborted: Replica never caught up before timeout");
                shared.pause.end(Purpose::Failover);
                return;
            }
            Decision::Follow {
                target: (host, port),
                forced,
            } => {
                match forced {
                    true => {
                        tracing::info!("FAILOVER to {host}:{port} time out exceeded, failing over.")
                    }
                    false => {
                        tracing::info!("Failover target {host}:{port} is synced, failing over.")
                    }
                }
                let port = u16::try_from(port).unwrap_or(0);
                // Unless it was aborted since: that order is the newer one.
                let order = || following::order(shared, Some((host, port)), true);
                replication.failover.in_progress(order);
                return;
            }
        }
    }
}

/// A replica, this one if one is given, that has all of the stream.
fn synced(shared: &Shared, target: Option<&(String, i64)>) -> Option<(String, i64)> {
    let end = shared.stream.offset();
    let replicas = shared.replication.replicas();
    let is_meant = |host: &str, port: i64| {
        target.is_none_or(|(h, p)| h.eq_ignore_ascii_case(host) && *p == port)
    };
    let found = replicas
        .iter()
        .find(|r| r.state() == State::Online && r.acknowledged() == end && is_meant(&r.ip, r.port));
    found.map(|r| match target {
        Some(target) => target.clone(),
        None => (r.ip.clone(), r.port),
    })
}
