//! The connections of a node, and what it says on them: who it is, and gossip of some others.

use std::sync::Arc;

use super::machine::{Action, Facts, Link, Machine};
use super::node::{LinkId, Node, NodeIndex, flag};
use super::wire::{self, Body, Extensions, Gossip, Header, Kind, Message, message_flag};

impl Machine {
    /// Opens a connection to a node at its address.
    pub(super) fn connect(&mut self, index: NodeIndex) {
        let node = self.view.node(index);
        let (ip, port) = (node.ip.clone(), node.bus_port);
        self.dial(index, ip, port);
    }

    /// Opens a connection to a node at what may be its address.
    pub(super) fn dial(&mut self, index: NodeIndex, ip: String, port: u16) {
        let link = self.new_link();
        let now = self.facts.now;
        let node = self.view.node_mut(index);
        node.link = Some(link);
        if node.ping_sent == 0 {
            // An attempt that is not answered is a PING that is not answered.
            node.ping_sent = now;
        }
        let opened = Link {
            node: Some(index),
            inbound: false,
            since: now,
            connected: false,
            peer: ip.clone(),
            local: String::new(),
            knows_names: false,
            meter: Arc::default(),
        };
        opened.meter.introduce();
        self.links.insert(link, opened);
        self.act(Action::Connect { link, ip, port });
    }

    pub(super) fn connected(&mut self, id: LinkId, local: &str) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.connected = true;
        local.clone_into(&mut link.local);
        let Some(index) = link.node else {
            return;
        };
        let meets = self.view.node(index).is(flag::MEET);
        let pinged = self.view.node(index).ping_sent;
        let kind = if meets { Kind::Meet } else { Kind::Ping };
        self.send_ping(id, kind);
        let node = self.view.node_mut(index);
        if pinged != 0 {
            // It has been waited for since then.
            node.ping_sent = pinged;
        }
        node.set(flag::MEET, false);
    }

    pub(super) fn closed(&mut self, id: LinkId) {
        let now = self.facts.now;
        if let Some((index, inbound)) = self.drop_link(id)
            && !inbound
        {
            let node = self.view.node_mut(index);
            if node.ping_sent == 0 {
                // Who hung up, or refused us, owes an answer from now on.
                node.ping_sent = now;
            }
        }
    }

    /// Closes a connection.
    pub(super) fn close(&mut self, id: LinkId) {
        if self.links.contains_key(&id) {
            self.drop_link(id);
            self.act(Action::Close(id));
        }
    }

    /// Forgets a connection; with whom it was, and whether that opened it.
    fn drop_link(&mut self, id: LinkId) -> Option<(NodeIndex, bool)> {
        let link = self.links.remove(&id)?;
        let index = link.node?;
        let node = self.view.node_mut(index);
        if node.link == Some(id) {
            node.link = None;
        }
        if node.inbound == Some(id) {
            node.inbound = None;
        }
        Some((index, link.inbound))
    }

    /// Forgets a node, with its connections.
    pub(super) fn remove_node(&mut self, index: NodeIndex) {
        let node = self.view.node(index);
        for link in [node.link, node.inbound].into_iter().flatten() {
            self.close(link);
        }
        if self.manual.replica == Some(index) {
            self.end_manual();
        }
        self.election.votes.remove(&index);
        self.forget_imports(index);
        self.view.remove(index);
    }

    /// This node's address is that of the near end of a connection, unless it is announced.
    pub(super) fn learn_address(&mut self, local: &str) {
        let usable = !local.is_empty() && wire::is_address(local.as_bytes());
        if !usable || !self.settings.cluster_announce_ip.is_empty() {
            return;
        }
        self.knows_address = true;
        let me = self.view.me_mut();
        if me.ip != local {
            local.clone_into(&mut me.ip);
            tracing::warn!("IP address for this node updated to {local}");
            self.todo.save = true;
            self.todo.state = true;
        }
    }

    /// What messages tell of this node.
    fn header(&self) -> Header {
        let me = self.view.me();
        let told = self.view.node(self.view.my_primary());
        let (port, plain_port, bus_port) = (me.port, me.plain_port, me.bus_port);
        let paused = me.is_primary() && self.manual.end != 0 && self.manual.stopped;
        let primary = me.primary.map(|index| self.view.node(index).id);
        Header {
            sender: me.id,
            port,
            plain_port,
            bus_port,
            ip: self.settings.cluster_announce_ip.to_str().into_owned(),
            flags: me.flags,
            fails: self.fails,
            message_flags: message_flag::EXTENSIONS | if paused { message_flag::PAUSED } else { 0 },
            knows_names: true,
            current_epoch: self.view.current_epoch,
            config_epoch: told.config_epoch,
            offset: self.facts.offset,
            primary,
            slots: told.slots.clone(),
        }
    }

    /// A message of this node.
    pub(super) fn message(&self, kind: Kind, body: Body) -> Message {
        Message {
            kind,
            header: self.header(),
            body,
        }
    }

    /// Sends a message on a connection. One that `promises` waits for what this step saves.
    pub(super) fn send(&mut self, link: LinkId, message: &Message, promises: bool) {
        self.send_encoded(link, message.kind, wire::encode(message).into(), promises);
    }

    fn send_encoded(&mut self, link: LinkId, kind: Kind, bytes: Arc<[u8]>, promises: bool) {
        if self.links.get(&link).is_some_and(|link| link.connected) {
            self.traffic.sent[kind as usize] += 1;
            let after = u64::from(promises);
            self.act(Action::Send { link, bytes, after });
        }
    }

    /// Sends a message to all nodes that we are connected to and that `concerns` says.
    pub(super) fn broadcast(
        &mut self,
        message: &Message,
        promises: bool,
        concerns: impl Fn(&Node) -> bool,
    ) {
        let bytes: Arc<[u8]> = wire::encode(message).into();
        let others = self
            .view
            .iter()
            .filter(|(_, node)| !node.is(flag::MYSELF | flag::HANDSHAKE) && concerns(node));
        let links: Vec<LinkId> = others.filter_map(|(_, node)| node.link).collect();
        for link in links {
            self.send_encoded(link, message.kind, Arc::clone(&bytes), promises);
        }
    }

    /// Publishes a message: to all nodes, or to those of this shard.
    pub fn publish(
        &mut self,
        channel: &[u8],
        text: &[u8],
        shard: bool,
        facts: Facts,
    ) -> Vec<Action> {
        self.facts = facts;
        let kind = if shard {
            Kind::PublishShard
        } else {
            Kind::Publish
        };
        let body = Body::Publish {
            channel: channel.to_vec(),
            message: text.to_vec(),
        };
        let message = self.message(kind, body);
        let mine = self.view.my_primary();
        let primary = self.view.node(mine).id;
        self.broadcast(&message, false, |node| {
            !shard || node.id == primary || node.primary == Some(mine)
        });
        self.finish()
    }

    /// Sends a PING, PONG or MEET with gossip of some others.
    pub(super) fn send_ping(&mut self, link: LinkId, kind: Kind) {
        self.pings += 1;
        let Some(to) = self.links.get(&link) else {
            return;
        };
        let (to, inbound, knows_names) = (to.node, to.inbound, to.knows_names);
        if let Some(index) = to
            && !inbound
            && kind == Kind::Ping
        {
            self.view.node_mut(index).ping_sent = self.facts.now;
        }
        let gossip = self.gossip();
        let extensions = self.extensions(to.map(|index| self.view.node(index)), knows_names);
        let body = Body::Ping { gossip, extensions };
        let message = self.message(kind, body);
        self.send(link, &message, false);
    }

    fn extensions(&self, to: Option<&Node>, knows_names: bool) -> Extensions {
        let me = self.view.me();
        let reads_extensions = to.is_some_and(|node| node.reads_extensions);
        let knows_names = knows_names || to.is_some_and(|node| node.knows_names);
        let tells = knows_names && me.hostname.is_empty() && !me.name.is_empty();
        let now = self.facts.now;
        let forgetting = self.forgetting.iter();
        let forgotten = forgetting.filter(|(_, until)| reads_extensions && **until > now);
        Extensions {
            hostname: (!me.hostname.is_empty()).then(|| me.hostname.clone()),
            name: tells.then(|| me.name.clone()),
            forgotten: forgotten
                .map(|(id, until)| (*id, ((until - now) / 1000) as u64))
                .collect(),
        }
    }

    /// Some nodes, a tenth of all but at least three, and all that are suspected.
    fn gossip(&mut self) -> Vec<Gossip> {
        let mut fresh = self.view.count().saturating_sub(2);
        let wanted = (self.view.count() / 10).max(3).min(fresh);
        let mut chosen = Vec::with_capacity(wanted);
        let mut tries = wanted * 3;
        while fresh > 0 && chosen.len() < wanted && tries > 0 {
            tries -= 1;
            let Some(index) = self.random_node() else {
                continue;
            };
            let node = self.view.node(index);
            if index == self.view.myself() || node.is(flag::SUSPECTED) {
                continue;
            }
            let untold = node.is(flag::HANDSHAKE | flag::NO_ADDRESS)
                || (node.link.is_none() && node.slots.is_empty());
            if untold {
                fresh -= 1;
                continue;
            }
            if node.told_in == self.pings {
                continue;
            }
            chosen.push(index);
            self.view.node_mut(index).told_in = self.pings;
            fresh -= 1;
        }
        // Where somebody else answers by now is no reason not to tell that the node does not.
        let suspected = self
            .view
            .iter()
            .filter(|(_, node)| node.is(flag::SUSPECTED) && !node.is(flag::HANDSHAKE));
        chosen.extend(suspected.map(|(index, _)| index));
        let entry = |index: &NodeIndex| {
            let node = self.view.node(*index);
            Gossip {
                id: node.id,
                ping_sent: (node.ping_sent / 1000) as u32,
                pong_received: (node.pong_received / 1000) as u32,
                ip: node.ip.clone(),
                port: node.port,
                bus_port: node.bus_port,
                flags: node.flags,
                plain_port: node.plain_port,
            }
        };
        chosen.iter().map(entry).collect()
    }

    /// Any node; `None` sometimes.
    pub(super) fn random_node(&mut self) -> Option<NodeIndex> {
        use rand::Rng;
        let place = self.random.random_range(0..self.view.places());
        self.view.at(place).map(|(index, _)| index)
    }

    /// Tells nodes how things are, without being asked.
    pub(super) fn broadcast_pong(&mut self, concerns: impl Fn(&Self, NodeIndex) -> bool) {
        let others = self.view.iter().filter(|(index, node)| {
            !node.is(flag::MYSELF | flag::HANDSHAKE) && concerns(self, *index)
        });
        let links: Vec<LinkId> = others.filter_map(|(_, node)| node.link).collect();
        for link in links {
            self.send_ping(link, Kind::Pong);
        }
    }
}
