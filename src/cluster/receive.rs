//! What a message means.

use super::id::NodeId;
use super::machine::{Action, Election, Machine};
use super::node::{LinkId, Node, NodeIndex, flag};
use super::slots::SlotSet;
use super::view::View;
use super::wire::{self, Body, Extensions, Gossip, Header, Kind, Malformed, Message, message_flag};

impl Machine {
    /// Takes a whole message.
    pub(super) fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        if !self.links.contains_key(&link) {
            return;
        }
        let kind = bytes
            .get(12..14)
            .map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
        if let Some(count) = kind.and_then(|kind| self.traffic.received.get_mut(usize::from(kind)))
        {
            *count += 1;
        }
        if self.drop_kind.is_some() && self.drop_kind == kind {
            tracing::warn!("Dropping packet that matches debug drop filter");
            return;
        }
        match wire::decode(bytes) {
            Ok(message) => self.take(link, message),
            Err(Malformed::Version) => {}
            Err(malformed) => tracing::warn!("{malformed}"),
        }
    }

    fn take(&mut self, link: LinkId, message: Message) {
        let Message { kind, header, body } = message;
        let sender = self.sender(link, &header);
        if let Some(link) = self.links.get_mut(&link) {
            link.knows_names = header.knows_names;
        }
        if let Some(index) = sender {
            self.view.node_mut(index).data_received = self.facts.now;
            if !self.view.node(index).is(flag::HANDSHAKE | flag::MYSELF) {
                self.hear(index, &header);
            }
        }
        match (kind, body) {
            (Kind::Ping | Kind::Pong | Kind::Meet, Body::Ping { gossip, extensions }) => {
                self.take_ping(link, kind, sender, &header, &gossip, extensions);
            }
            (Kind::Fail, Body::Fail(about)) => self.take_fail(sender, header.sender, about),
            (Kind::Publish | Kind::PublishShard, Body::Publish { channel, message })
                if sender.is_some() =>
            {
                let shard = kind == Kind::PublishShard;
                self.act(Action::Deliver {
                    channel,
                    message,
                    shard,
                });
            }
            (Kind::AuthRequest, _) => {
                if let Some(sender) = sender {
                    self.vote(sender, &header);
                }
            }
            (Kind::AuthAck, _) => {
                if let Some(sender) = sender {
                    self.take_vote(sender, &header);
                }
            }
            (Kind::MfStart, _) => {
                if let Some(sender) = sender {
                    self.take_manual_request(sender);
                }
            }
            (
                Kind::Update,
                Body::Update {
                    config_epoch,
                    id,
                    slots,
                },
            ) if sender.is_some() => self.take_update(config_epoch, id, &slots),
            _ => {}
        }
    }

    /// Who has sent a message: whom it names, if we know that one. Nobody, if somebody else answers where
    /// we expected a node: that may be one of another cluster.
    fn sender(&mut self, link: LinkId, header: &Header) -> Option<NodeIndex> {
        let found = self.links.get(&link)?;
        let (known, inbound) = (found.node, found.inbound);
        if let Some(index) = known
            && !self.view.node(index).is(flag::HANDSHAKE)
        {
            if self.view.node(index).id == header.sender {
                return Some(index);
            }
            if !inbound {
                return None;
            }
        }
        let sender = self.view.find(header.sender)?;
        if known.is_none() {
            self.adopt_inbound(link, sender);
        }
        Some(sender)
    }

    /// The connection is that which `index` has opened to us. Of two the newer is kept.
    fn adopt_inbound(&mut self, link: LinkId, index: NodeIndex) {
        if let Some(old) = self.view.node(index).inbound {
            self.close(old);
        }
        self.view.node_mut(index).inbound = Some(link);
        if let Some(link) = self.links.get_mut(&link) {
            link.node = Some(index);
            link.meter.introduce();
        }
    }

    /// What every message of a known node tells.
    fn hear(&mut self, index: NodeIndex, header: &Header) {
        self.view.current_epoch = self.view.current_epoch.max(header.current_epoch);
        let raised = header.config_epoch > self.view.node(index).config_epoch;
        if raised && let Some(successor) = header.primary {
            self.hear_of_successor(index, successor, header);
        }
        let node = self.view.node_mut(index);
        let available = (node.offset == 0) != (header.offset == 0);
        node.offset = header.offset;
        node.reads_extensions |= header.message_flags & message_flag::EXTENSIONS != 0;
        node.knows_names = header.knows_names;
        if raised {
            node.config_epoch = header.config_epoch;
            self.todo.save = true;
        }
        // It is there for clients while it has copied anything.
        self.todo.state |= available;
        // An election may have waited for what it has.
        let primary = self.view.node(index).primary;
        self.todo.failover |= primary.is_some() && primary == self.view.me().primary;
        let paused = header.message_flags & message_flag::PAUSED != 0;
        let is_my_primary = self.view.me().primary == Some(index);
        let waits = self.manual.end != 0 && self.manual.primary_offset.is_none();
        if waits && paused && is_my_primary {
            self.manual.primary_offset = Some(header.offset);
            self.todo.manual = true;
            tracing::warn!(
                "Received replication offset for paused master manual failover: {}",
                header.offset
            );
        }
    }

    fn take_ping(
        &mut self,
        link: LinkId,
        kind: Kind,
        sender: Option<NodeIndex>,
        header: &Header,
        gossip: &[Gossip],
        extensions: Extensions,
    ) {
        if kind != Kind::Pong {
            self.answer_ping(link, kind, sender, header, gossip);
        }
        let Some(found) = self.links.get(&link) else {
            return;
        };
        let (outbound, with) = (!found.inbound, found.node);
        if outbound && let Some(with) = with {
            let (is_new, probed) = (
                self.view.node(with).is(flag::HANDSHAKE),
                self.is_probe(with),
            );
            if probed && header.sender != self.view.me().id && !self.is_kin(&extensions) {
                return self.remove_node(with);
            }
            if !self.shake_hands(link, with, sender, header) {
                return;
            }
            if is_new {
                self.view.node_mut(with).knows_names = header.knows_names;
                self.take_name(with, &extensions, header.bus_port);
            }
            if probed {
                self.meet_probed(with, link);
            }
        }
        // Whoever has just got its name is known by it only from its next message on, as with Redis.
        if kind == Kind::Pong
            && outbound
            && let Some(with) = with
        {
            self.take_pong(with);
            self.is_where_we_asked(with, link, header);
        }
        let Some(sender) = sender.filter(|sender| *sender != self.view.myself()) else {
            return;
        };
        let no_failover = header.flags & flag::NO_FAILOVER != 0;
        let node = self.view.node_mut(sender);
        node.set(flag::NO_FAILOVER, no_failover);
        if kind == Kind::Ping
            && !self.view.node(sender).is(flag::HANDSHAKE)
            && self.update_address(sender, link, header)
        {
            self.todo.save = true;
            self.todo.state = true;
        }
        self.take_role(sender, header);
        self.take_slots(sender, header);
        let me = self.view.me();
        let collides = me.is_primary()
            && self.view.node(sender).is_primary()
            && header.config_epoch == me.config_epoch;
        if collides {
            self.resolve_collision(sender);
        }
        self.take_gossip(Some(sender), gossip);
        self.take_extensions(sender, extensions, header.bus_port);
    }

    /// Answers a PING or MEET; a MEET also makes us know who sends it.
    fn answer_ping(
        &mut self,
        link: LinkId,
        kind: Kind,
        sender: Option<NodeIndex>,
        header: &Header,
        gossip: &[Gossip],
    ) {
        let Some(found) = self.links.get(&link) else {
            return;
        };
        let (local, peer) = (found.local.clone(), found.peer.clone());
        let unknown = self.view.me().ip.is_empty() || (!self.knows_address && sender.is_some());
        if kind == Kind::Meet || unknown {
            self.learn_address(&local);
        }
        if sender.is_none() && kind == Kind::Meet {
            let ip = if header.ip.is_empty() {
                &peer
            } else {
                &header.ip
            };
            let id = NodeId::random(&mut self.random);
            let mut node = Node::new(id, flag::HANDSHAKE, self.facts.now);
            node.take_address(ip, header.port, header.plain_port, header.bus_port);
            if !self.is_meeting(&node) && self.view.add(node).is_some() {
                self.todo.save = true;
            }
            // Who introduces itself is trusted as to others.
            self.take_gossip(None, gossip);
        }
        self.send_ping(link, Kind::Pong);
    }

    /// The name at the other end of a connection that we opened. False when nothing more is to be read
    /// of its message.
    fn shake_hands(
        &mut self,
        link: LinkId,
        with: NodeIndex,
        sender: Option<NodeIndex>,
        header: &Header,
    ) -> bool {
        if self.view.node(with).is(flag::HANDSHAKE) {
            if let Some(sender) = sender {
                tracing::debug!(
                    "Handshake: we already know node {}, updating the address if needed.",
                    self.view.node(sender).id
                );
                if self.update_address(sender, link, header) {
                    self.todo.save = true;
                    self.todo.state = true;
                }
                self.remove_node(with);
                return false;
            }
            self.view.rename(with, header.sender);
            let node = self.view.node_mut(with);
            node.set(flag::HANDSHAKE, false);
            node.flags |= header.flags & (flag::PRIMARY | flag::REPLICA);
            tracing::debug!("Handshake with node {} completed.", node.id);
            self.todo.save = true;
            self.todo.state = true;
        } else if self.view.node(with).id != header.sender {
            // Somebody else lives there by now.
            let node = self.view.node(with);
            tracing::debug!(
                "PONG contains mismatching sender ID. About node {}",
                node.id
            );
            let found = self.links.get(&link);
            if found.is_some_and(|link| link.peer == node.ip) {
                self.view.node_mut(with).forget_address();
                self.todo.save = true;
            }
            self.close(link);
            return false;
        }
        true
    }

    fn take_pong(&mut self, from: NodeIndex) {
        let now = self.facts.now;
        let node = self.view.node_mut(from);
        node.pong_received = now;
        node.answered = now;
        node.ping_sent = 0;
        if node.is(flag::SUSPECTED) {
            node.set(flag::SUSPECTED, false);
            self.todo.save = true;
            self.todo.state = true;
        } else if node.has_failed() {
            self.forgive(from);
        }
    }

    /// A node that had failed answers: it has not, unless somebody is about to take its slots.
    fn forgive(&mut self, index: NodeIndex) {
        let undo = 2 * self.timeout();
        let now = self.facts.now;
        let node = self.view.node_mut(index);
        let reason = if node.is_replica() {
            "replica is reachable again."
        } else if node.slots.is_empty() {
            "master without slots is reachable again."
        } else if now - node.fail_time > undo {
            "is reachable again and nobody is serving its slots after some time."
        } else {
            return;
        };
        tracing::info!("Clear FAIL state for node {}: {reason}", node.id);
        node.set(flag::FAILED, false);
        self.todo.save = true;
        self.todo.state = true;
    }

    /// A node's address is where its PINGs come from, or what it announces. True when it changed.
    fn update_address(&mut self, index: NodeIndex, link: LinkId, header: &Header) -> bool {
        if self.view.node(index).link == Some(link) {
            // Not from where we reach it.
            return false;
        }
        let Some(found) = self.links.get(&link) else {
            return false;
        };
        let ip = if header.ip.is_empty() {
            found.peer.clone()
        } else {
            header.ip.clone()
        };
        if ip.is_empty() {
            return false;
        }
        let node = self.view.node_mut(index);
        if !node.take_address(&ip, header.port, header.plain_port, header.bus_port) {
            return false;
        }
        node.set(flag::NO_ADDRESS, false);
        tracing::warn!(
            "Address updated for node {}, now {}:{}",
            node.id,
            node.ip,
            node.port
        );
        if let Some(old) = node.link {
            self.close(old);
        }
        true
    }

    /// Whether the sender is a primary, or whose replica.
    fn take_role(&mut self, sender: NodeIndex, header: &Header) {
        let Some(primary) = header.primary else {
            if self.view.promote(sender) {
                self.todo.save = true;
                self.todo.state = true;
            }
            return;
        };
        if self.view.node(sender).is_primary() || !self.view.node(sender).is_replica() {
            self.view.demote(sender);
            self.todo.save = true;
            self.todo.state = true;
        }
        if let Some(primary) = self.view.find(primary)
            && primary != sender
            && self.view.node(sender).primary != Some(primary)
        {
            self.view.attach(sender, primary);
            // Slots on their way go on with who took the sender's place.
            let View {
                migrating,
                importing,
                ..
            } = &mut self.view;
            let ends = migrating.values_mut().chain(importing.values_mut());
            for end in ends.filter(|end| **end == sender) {
                *end = primary;
            }
            self.todo.save = true;
            self.todo.state = true;
        }
    }

    /// A primary says, under a newer epoch, that its replica has replaced it: that one has its slots then, even if
    /// it was not heard yet. Otherwise the slots would be nobody's until it is, and the cluster down.
    fn hear_of_successor(&mut self, sender: NodeIndex, successor: NodeId, header: &Header) {
        let Some(successor) = self.view.find(successor) else {
            return;
        };
        let (before, after) = (self.view.node(sender), self.view.node(successor));
        let replaces = before.is_primary() && after.primary == Some(sender);
        if !replaces || successor == self.view.myself() {
            return;
        }
        let has = |slot: &u16| header.slots.has(*slot);
        let slots: SlotSet = before.slots.iter().filter(has).collect();
        self.view.promote(successor);
        let after = self.view.node_mut(successor);
        after.config_epoch = after.config_epoch.max(header.config_epoch);
        self.update_slots(successor, header.config_epoch, &slots);
    }

    /// Compares the slots that the sender claims, or says that its primary has, with what we know.
    fn take_slots(&mut self, sender: NodeIndex, header: &Header) {
        self.settle_imports(sender, &header.slots);
        let differs = match self.view.primary_of(sender) {
            Some(primary) => self.view.node(primary).slots != header.slots,
            None => false,
        };
        if !differs {
            return;
        }
        if self.view.node(sender).is_primary() {
            self.update_slots(sender, header.config_epoch, &header.slots);
        }
        // Who claims what somebody else has under a newer epoch is told so.
        let newer = header.slots.iter().find_map(|slot| {
            let owner = self.view.owner(slot)?;
            let outdated = owner != sender
                && !self.view.is_unclaimed(slot)
                && self.view.node(owner).config_epoch > header.config_epoch;
            outdated.then_some(owner)
        });
        if let Some(owner) = newer {
            tracing::debug!(
                "Node {} has old slots configuration, sending an UPDATE message about {}",
                self.view.node(sender).id,
                self.view.node(owner).id
            );
            self.send_update(sender, owner);
        }
    }

    /// Tells `to` which slots `about` has.
    pub(super) fn send_update(&mut self, to: NodeIndex, about: NodeIndex) {
        let Some(link) = self.view.node(to).link else {
            return;
        };
        let node = self.view.node(about);
        let claimed = node
            .slots
            .iter()
            .filter(|slot| !self.view.unclaimed.has(*slot));
        let body = Body::Update {
            config_epoch: node.config_epoch,
            id: node.id,
            slots: claimed.collect(),
        };
        let message = self.message(Kind::Update, body);
        self.send(link, &message, false);
    }

    /// Takes over the slots that `owner` claims under an epoch, as far as it is newer than what is known.
    pub(super) fn update_slots(&mut self, owner: NodeIndex, epoch: u64, slots: &SlotSet) {
        if owner == self.view.myself() {
            tracing::warn!("Discarding UPDATE message about myself.");
            return;
        }
        let mine = self.view.my_primary();
        let (mut claimed, mut taken, mut claims_import) = (0, SlotSet::default(), false);
        for slot in slots.iter() {
            claimed += 1;
            if self.view.owner(slot) == Some(owner) {
                self.view.unclaimed.remove(slot);
                continue;
            }
            let outdated = self.view.epoch_of(slot).is_none_or(|known| known < epoch);
            if !outdated && !self.view.is_unclaimed(slot) {
                continue;
            }
            if self.keeps_import(slot, owner) {
                claims_import = true;
                continue;
            }
            if self.view.owner(slot) == Some(mine) {
                taken.insert(slot);
            }
            self.view.assign(slot, owner);
            self.view.migrating.remove(&slot);
            // What is being imported is closed by who began that, whoever has it by now.
            if let Some(from) = self.view.importing.get_mut(&slot) {
                *from = owner;
            }
            self.todo.save = true;
            self.todo.state = true;
        }
        let given_up: Vec<u16> = self.view.node(owner).slots.iter().collect();
        for slot in given_up.into_iter().filter(|slot| !slots.has(*slot)) {
            // Kept for now: who asks there is sent on, and nobody is told that there is no owner.
            self.view.unclaimed.insert(slot);
        }
        if claims_import && self.bump_epoch() {
            tracing::warn!(
                "Node {} claims slots that were imported from there: they are claimed anew",
                self.view.node(owner).id
            );
            self.broadcast_pong(|_, _| true);
        }
        self.follow_slots(mine, owner, claimed, taken);
    }

    /// What it means for this node that `owner` has taken slots of its shard, `taken` of `claimed`.
    pub(super) fn follow_slots(
        &mut self,
        mine: NodeIndex,
        owner: NodeIndex,
        claimed: usize,
        taken: SlotSet,
    ) {
        let all_gone = !taken.is_empty() && self.view.node(mine).slots.is_empty();
        let moves = self.settings.cluster_allow_replica_migration || claimed == taken.len();
        let grand = self
            .view
            .me()
            .primary
            .and_then(|p| self.view.node(p).primary);
        if all_gone && moves && mine != owner {
            tracing::warn!(
                "Configuration change detected. Reconfiguring myself as a replica of {}",
                self.view.node(owner).id
            );
            self.replicate(owner);
        } else if let Some(grand) = grand
            && grand != self.view.myself()
        {
            tracing::warn!(
                "I'm a sub-replica! Reconfiguring myself as a replica of grandmaster {}",
                self.view.node(grand).id
            );
            self.replicate(grand);
        } else if !taken.is_empty() && self.view.me().is_primary() {
            self.act(Action::DeleteKeys(taken));
        }
    }

    /// Makes this node a replica. It has no slots.
    pub(super) fn replicate(&mut self, primary: NodeIndex) {
        let me = self.view.myself();
        self.note_shard(primary);
        if self.view.me().is_primary() {
            let node = self.view.me_mut();
            node.set(flag::PRIMARY | flag::MIGRATE_TO, false);
            node.set(flag::REPLICA, true);
            self.view.migrating.clear();
            self.view.importing.clear();
            self.view.granted.clear();
        }
        self.view.attach(me, primary);
        self.end_manual();
        self.promise();
        self.todo.state = true;
        // Clients are sent here by others until they know.
        self.broadcast_pong(|_, _| true);
    }

    /// Two primaries have the same epoch: who has the smaller name takes a new one.
    fn resolve_collision(&mut self, other: NodeIndex) {
        let (other, me) = (self.view.node(other), self.view.me());
        if other.config_epoch != me.config_epoch || other.id <= me.id {
            return;
        }
        let id = other.id;
        self.view.current_epoch += 1;
        let epoch = self.view.current_epoch;
        self.view.me_mut().config_epoch = epoch;
        self.promise();
        tracing::debug!(
            "WARNING: configEpoch collision with node {id}. configEpoch set to {epoch}"
        );
    }

    /// What a node tells of others. A sender that we do not know is heard only when it introduces itself.
    fn take_gossip(&mut self, sender: Option<NodeIndex>, gossip: &[Gossip]) {
        for entry in gossip {
            match self.view.find(entry.id) {
                Some(index) => self.take_known(sender, index, entry),
                None if sender.is_some() => self.take_unknown(entry),
                None => {}
            }
        }
    }

    fn take_known(&mut self, sender: Option<NodeIndex>, index: NodeIndex, entry: &Gossip) {
        let ill = entry.flags & (flag::FAILED | flag::SUSPECTED) != 0;
        let is_me = index == self.view.myself();
        if let Some(sender) = sender
            && self.view.node(sender).is_primary()
            && !is_me
        {
            if ill {
                if self.view.report(index, sender, self.facts.now) {
                    tracing::debug!(
                        "Node {} reported node {} as not reachable.",
                        self.view.node(sender).id,
                        entry.id
                    );
                }
                self.judge(index);
            } else if self.view.withdraw_report(index, sender) {
                tracing::debug!(
                    "Node {} reported node {} is back online.",
                    self.view.node(sender).id,
                    entry.id
                );
            }
        }
        if is_me {
            return;
        }
        let now = self.facts.now;
        let validity = now - 2 * self.timeout();
        let unreported = self.view.count_reports(index, validity) == 0;
        let node = self.view.node_mut(index);
        let pong = i64::from(entry.pong_received) * 1000;
        if !ill
            && node.ping_sent == 0
            && unreported
            && (node.pong_received + 1..=now + 500).contains(&pong)
        {
            node.pong_received = pong;
        }
        // Who cannot be reached here may be somewhere else.
        let elsewhere = (node.is(flag::FAILED | flag::SUSPECTED) || node.is(flag::NO_ADDRESS))
            && !ill
            && entry.flags & flag::NO_ADDRESS == 0
            && !entry.ip.is_empty();
        if elsewhere && node.take_address(&entry.ip, entry.port, entry.plain_port, entry.bus_port) {
            node.set(flag::NO_ADDRESS, false);
            if let Some(link) = node.link {
                self.close(link);
            }
            self.todo.save = true;
            self.todo.state = true;
        }
    }

    fn take_unknown(&mut self, entry: &Gossip) {
        if entry.flags & flag::NO_ADDRESS != 0 || self.is_forgotten(entry.id) || entry.ip.is_empty()
        {
            return;
        }
        let kept = flag::PRIMARY | flag::REPLICA | flag::NO_FAILOVER;
        let mut node = Node::new(entry.id, entry.flags & kept, self.facts.now);
        node.take_address(&entry.ip, entry.port, entry.plain_port, entry.bus_port);
        if self.view.add(node).is_some() {
            self.todo.save = true;
        }
    }

    fn take_extensions(&mut self, sender: NodeIndex, extensions: Extensions, bus_port: u16) {
        self.take_name(sender, &extensions, bus_port);
        let hostname = extensions.hostname.unwrap_or_default();
        let node = self.view.node_mut(sender);
        if node.hostname != hostname {
            node.hostname = hostname;
            self.todo.save = true;
            self.todo.state = true;
        }
        for (id, seconds) in extensions.forgotten {
            self.forget_as_told(id, seconds);
        }
    }

    fn take_fail(&mut self, sender: Option<NodeIndex>, from: NodeId, about: NodeId) {
        if sender.is_none() {
            tracing::info!("Ignoring FAIL message from unknown node {from} about {about}");
            return;
        }
        let now = self.facts.now;
        let Some(index) = self.view.find(about) else {
            return;
        };
        let node = self.view.node_mut(index);
        if node.is(flag::FAILED | flag::MYSELF) {
            return;
        }
        tracing::info!("FAIL message received from {from} about {about}");
        node.set(flag::FAILED, true);
        node.set(flag::SUSPECTED, false);
        node.fail_time = now;
        self.todo.save = true;
        self.todo.state = true;
        // If that is our primary, the election need not wait for the next tick.
        self.todo.failover |= self.view.me().primary == Some(index);
    }

    fn take_update(&mut self, config_epoch: u64, id: NodeId, slots: &SlotSet) {
        let Some(index) = self.view.find(id) else {
            return;
        };
        if self.view.node(index).config_epoch >= config_epoch {
            return;
        }
        if index == self.view.myself() {
            tracing::warn!("Discarding UPDATE message about myself.");
            return;
        }
        self.view.promote(index);
        self.view.node_mut(index).config_epoch = config_epoch;
        self.todo.save = true;
        self.todo.state = true;
        self.update_slots(index, config_epoch, slots);
        if self.view.me().primary == Some(index) {
            // Who voted against us for our primary's old epoch would not do so again.
            self.election = Election::default();
        }
    }
}
