//! What commands are told of the cluster: [`Published`], drawn from what the node knows.

use crate::cluster::machine::Machine;
use crate::cluster::node::NodeIndex;
use crate::cluster::routes::{Endpoint, Node, Published, Slot, State};
use crate::cluster::slots::SLOTS;

/// The picture as of now, but that slots that are `leaving` are those of the places that get them.
pub fn draw(machine: &Machine, leaving: &[(u16, u16)]) -> Published {
    let view = machine.view();
    let place = |index: NodeIndex| Node::at(index.0.into());
    let mut nodes = vec![Endpoint::default(); view.places()];
    for (index, node) in view.iter() {
        nodes[usize::from(index.0)] = Endpoint {
            id: node.id.to_string(),
            ip: node.ip.clone(),
            hostname: node.hostname.clone(),
            port: node.port,
            plain_port: node.plain_port,
        };
    }
    let owners = view.owners().iter();
    let mut slots: Vec<Slot> = owners
        .map(|owner| Slot {
            owner: owner.and_then(place),
            ..Slot::default()
        })
        .collect();
    debug_assert_eq!(slots.len(), SLOTS);
    for (slot, to) in &view.migrating {
        slots[usize::from(*slot)].migrating_to = place(*to);
    }
    for (slot, from) in &view.importing {
        slots[usize::from(*slot)].importing_from = place(*from);
    }
    let doubtful = view.granted.iter().filter(|(_, grant)| grant.doubtful);
    for (slot, grant) in doubtful {
        slots[usize::from(*slot)].owner = place(grant.to);
    }
    for (slot, to) in leaving {
        slots[usize::from(*slot)] = Slot {
            owner: Node::at((*to).into()),
            ..Slot::default()
        };
    }
    let me = view.me();
    Published {
        nodes,
        myself: place(view.myself()),
        primary: me.primary.filter(|_| me.is_replica()).and_then(place),
        state: if machine.fails() {
            State::Fail
        } else {
            State::Ok
        },
        slots,
    }
}
