//! Atomic migration of slots: the threads around the two machines of [`crate::cluster::moving`].
//!
//! Each migration has a thread on either side, which owns the connection between the two and carries out what
//! its machine says, one thing after the other. What changes the node is an order to the bus' thread.
//!
//! The connection begins as one of a client: AUTH, then CLUSTER SYNCSLOTS IMPORT. From its answer on it carries
//! commands from the source to the target, without replies but to those of CLUSTER SYNCSLOTS.

pub mod ask;
mod conn;
pub mod export;
mod filter;
pub mod import;
mod requests;

use std::sync::mpsc::channel;
use std::time::Duration;

use crate::base::clock;
use crate::cluster::handing::Hand;
use crate::cluster::handle::Cluster;
use crate::cluster::moving::list::{Job, Phase};
use crate::cluster::orders::{Order, Outcome};
use crate::dispatch::context::Shared;

/// How often a thread that waits for something looks up.
const TICK: Duration = Duration::from_millis(20);

/// The version of what the two sides say to each other: others are refused.
pub const PROTOCOL: &str = "tessera-1";

/// What the target says when keys may come.
const GO_ON: &str = "+OK";
/// When it has applied what came before the question.
const APPLIED: &str = "+APPLIED";
/// When it has all.
const READY: &str = "+READY";
/// When the slots are its own.
pub const TAKEN: &str = "+TAKEN";
/// When they are not, and will not be.
pub const DROPPED: &str = "+DROPPED";

fn unix_seconds() -> i64 {
    clock::unix_ms() / 1000
}

/// Enters how a migration ended, and forgets those that are too old to be told of.
fn end(shared: &Shared, cluster: &Cluster, job: &Job, (phase, why): (Phase, &str)) {
    job.enter(phase, Some(why), unix_seconds());
    tracing::info!(
        "Slot migration {} finished. State: {}, Message: {why}",
        job.describe(),
        phase.name()
    );
    let most = shared.config.settings().cluster_slot_migration_log_max_len;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    cluster.moves.trim(most);
}

/// Has a step carried out and waits, however long, for its outcome: until it is in the node's file, or only
/// until it is done and published (`at_once`).
fn order(cluster: &Cluster, hand: Hand, at_once: bool) -> Outcome {
    let (tell, told) = channel();
    cluster.order(Order::Hand(hand), at_once, move |outcome| {
        // Whoever asked is waiting.
        let _ = tell.send(outcome);
    });
    // The bus' thread ends with the process.
    told.recv()
        .unwrap_or_else(|_| Err("The cluster bus does not answer".to_owned()))
}
