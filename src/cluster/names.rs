//! Names: a node that cannot be reached at its address is looked up by its name.
//!
//! An answer is no more than a hint where to try. The address is taken over once the node that answers there
//! says by its id that it is the one; whoever else lives there stays a stranger, and is told nothing but
//! that somebody looked for a node.

use rand::Rng;

use super::id::NodeId;
use super::machine::{Action, Machine};
use super::node::{LinkId, Node, NodeIndex, flag};
use super::wire::{self, Extensions, Header};

/// For how long a node has to be silent before it is looked up, in milliseconds.
const PATIENCE: i64 = 1000;
/// The pause after a first lookup, in milliseconds; each further one is twice as long.
const FIRST_PAUSE: i64 = 1000;
/// The longest pause in a small cluster, in milliseconds.
const LONGEST_PAUSE: i64 = 4000;
/// The longest pause for each node that there is, in milliseconds: all of them ask the same resolver.
const PAUSE_PER_NODE: i64 = 50;

impl Machine {
    /// Whether a node is not where we think it is.
    fn is_lost(&self, node: &Node) -> bool {
        if node.is(flag::MYSELF | flag::HANDSHAKE) || node.name.is_empty() {
            return false;
        }
        let now = self.facts.now;
        let silent = (now - node.ping_sent).min(now - node.data_received);
        let patience = PATIENCE.min(self.timeout() / 2);
        node.is(flag::NO_ADDRESS) || (node.ping_sent != 0 && silent > patience)
    }

    /// Has those looked up who cannot be reached.
    pub(super) fn look_up_lost(&mut self) {
        let now = self.facts.now;
        let lost = self
            .view
            .iter()
            .filter(|(_, node)| self.is_lost(node) && !node.looking && now >= node.lookup_due);
        let lost: Vec<NodeIndex> = lost.map(|(index, _)| index).collect();
        let longest = LONGEST_PAUSE.max(PAUSE_PER_NODE * self.view.count() as i64);
        for index in lost {
            let before = self.view.node(index).lookups;
            let pause = (FIRST_PAUSE << before.min(10)).min(longest);
            let due = now + pause + self.random.random_range(0..pause / 4);
            let node = self.view.node_mut(index);
            node.looking = true;
            node.lookups += 1;
            node.lookup_due = due;
            let (id, name) = (node.id, node.name.clone());
            self.act(Action::LookUp { id, name });
        }
    }

    /// A name has these addresses: if the node is still lost, and not said to be where it was, it is tried at
    /// one of them, each time at another one.
    pub(super) fn looked_up(&mut self, id: NodeId, addresses: &[String]) {
        let Some(index) = self.view.find(id) else {
            return;
        };
        if index == self.view.myself() {
            return self.found_peers(addresses);
        }
        self.view.node_mut(index).looking = false;
        let (node, me) = (self.view.node(index), self.view.me());
        if !self.is_lost(node) || addresses.contains(&node.ip) {
            return;
        }
        let usable = |ip: &&String| wire::is_address(ip.as_bytes()) && **ip != me.ip;
        let usable: Vec<&String> = addresses.iter().filter(usable).collect();
        let turn = node.lookups.saturating_sub(1) as usize;
        let Some(ip) = turn.checked_rem(usable.len()).map(|at| usable[at].clone()) else {
            return;
        };
        let port = match node.bus_port {
            0 => node.name_port,
            port => port,
        };
        tracing::debug!(
            "Node {id} is not reached: trying {ip}, where {} is",
            node.name
        );
        if let Some(old) = node.link {
            self.close(old);
        }
        self.dial(index, ip, port);
    }

    /// A node tells by what it is looked up.
    pub(super) fn take_name(&mut self, index: NodeIndex, extensions: &Extensions, bus_port: u16) {
        let node = self.view.node_mut(index);
        if let Some(name) = extensions.looked_up_by()
            && (node.name != *name || node.name_port != bus_port)
        {
            name.clone_into(&mut node.name);
            node.name_port = bus_port;
            self.todo.save = true;
        }
    }

    /// A node has answered on a connection that we opened: there it is, whatever we thought before, and the
    /// near end of it is where we are.
    pub(super) fn is_where_we_asked(&mut self, index: NodeIndex, link: LinkId, header: &Header) {
        let Some(found) = self.links.get(&link) else {
            return;
        };
        let (peer, local) = (found.peer.clone(), found.local.clone());
        if !self.knows_address {
            self.learn_address(&local);
        }
        let node = self.view.node_mut(index);
        node.lookups = 0;
        node.lookup_due = 0;
        if node.ip == peer || peer.is_empty() {
            return;
        }
        let ip = if header.ip.is_empty() {
            &peer
        } else {
            &header.ip
        };
        let (port, plain_port, bus_port) = (header.port, header.plain_port, header.bus_port);
        node.set(flag::NO_ADDRESS, false);
        if node.take_address(ip, port, plain_port, bus_port) {
            tracing::warn!("Address found for node {}, now {ip}:{port}", node.id);
        }
        self.todo.save = true;
        self.todo.state = true;
    }
}
