//! What became of slots that were granted to this node: asked over a connection of its own, by who granted them.

use std::time::Duration;

use super::{DROPPED, TAKEN};
use crate::cluster::handle::Cluster;
use crate::cluster::id::NodeId;
use crate::cluster::slots::SlotSet;

/// How long the disk may take before the answer is that it is not known.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer, encoded. What was under way about these slots is over when it is given, so that it stays true.
/// Not for a worker to call.
pub fn answer(cluster: &Cluster, source: NodeId, slots: &SlotSet) -> Vec<u8> {
    let imports = cluster.moves.under_way(false);
    for job in imports.iter().filter(|job| job.slots.meets(slots)) {
        job.stop_and_wait();
    }
    // What is told has to outlive this process.
    let saved = cluster.save(PATIENCE);
    let machine = cluster.machine();
    let view = machine.view();
    let all_are = |id: Option<NodeId>| {
        slots.iter().all(|slot| {
            let owner = view.owner(slot).map(|owner| view.node(owner).id);
            owner.is_some() && owner == id
        })
    };
    let word = match saved {
        Err(_) => "-TRYAGAIN the node's configuration cannot be saved",
        Ok(_) if all_are(Some(view.me().id)) => TAKEN,
        Ok(_) if all_are(Some(source)) => DROPPED,
        Ok(_) => "-TRYAGAIN the slots are elsewhere",
    };
    format!("{word}\r\n").into_bytes()
}
