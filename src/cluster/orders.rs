//! What clients order: the subcommands of CLUSTER that change something.

use std::net::IpAddr;

use super::failover::MANUAL_TIMEOUT;
use super::handing::Hand;
use super::id::NodeId;
use super::machine::{Action, Election, Facts, Forming, Machine, Manual};
use super::node::{Node, NodeIndex, flag};
use super::slots::{SLOTS, SlotSet};
use super::wire::{Body, Kind};

/// How long a forgotten node is not met again by gossip, in milliseconds.
const FORGOTTEN_FOR: i64 = 60_000;

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// It is being given to this node.
    Migrating(NodeId),
    /// It is being taken from this node.
    Importing(NodeId),
    /// Neither.
    Stable,
    /// This node has it.
    Node(NodeId),
}

/// How a replica replaces its primary when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// With its primary's help, losing nothing.
    Together,
    /// Without its help.
    Force,
    /// Without anybody's vote.
    Takeover,
}

/// An order.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// MEET.
    Meet {
        /// The address.
        ip: String,
        /// The port for clients.
        port: i64,
        /// The port of the bus.
        bus_port: i64,
    },
    /// ADDSLOTS and ADDSLOTSRANGE. What is named twice is refused.
    AddSlots(Vec<u16>),
    /// DELSLOTS and DELSLOTSRANGE.
    DelSlots(Vec<u16>),
    /// FLUSHSLOTS.
    FlushSlots,
    /// SETSLOT.
    SetSlot {
        /// The slot.
        slot: u16,
        /// What becomes of it.
        state: SlotState,
        /// How many keys it has here.
        keys: u64,
    },
    /// BUMPEPOCH.
    BumpEpoch,
    /// SET-CONFIG-EPOCH.
    SetConfigEpoch(i64),
    /// FORGET.
    Forget(NodeId),
    /// REPLICATE.
    Replicate {
        /// Whom.
        primary: NodeId,
        /// There are no keys here.
        empty: bool,
    },
    /// FAILOVER.
    Failover(Takeover),
    /// RESET.
    Reset {
        /// With a new name and without epochs.
        hard: bool,
        /// There are no keys here.
        empty: bool,
    },
    /// SAVECONFIG.
    SaveConfig,
    /// DEBUG: closes connections with a node.
    KillLinks {
        /// With whom.
        id: NodeId,
        /// That which we opened.
        to: bool,
        /// That which it opened.
        from: bool,
    },
    /// A step of an atomic migration of slots.
    Hand(Hand),
    /// At the start: these slots have keys here.
    Claim(SlotSet),
    /// At the start: nothing was loaded, nor is it known where in the stream of replication this server was.
    StartEmpty,
}

/// What a client is told: a simple string.
pub type Outcome = Result<String, String>;

impl Machine {
    /// Carries out an order.
    pub fn order(&mut self, order: Order, facts: Facts) -> (Outcome, Vec<Action>) {
        self.within(facts, |machine| machine.carry_out(order))
    }

    fn carry_out(&mut self, order: Order) -> Outcome {
        let done = match order {
            Order::Meet { ip, port, bus_port } => self.meet(&ip, port, bus_port),
            Order::AddSlots(slots) => self.add_slots(&slots),
            Order::DelSlots(slots) => self.del_slots(&slots),
            Order::FlushSlots => {
                let mine: Vec<u16> = self.view.me().slots.iter().collect();
                self.check_not_granted(mine.iter().copied())?;
                for slot in mine {
                    self.view.unassign(slot);
                }
                self.changed();
                Ok(())
            }
            Order::SetSlot { slot, state, keys } => self.set_slot(slot, state, keys),
            Order::BumpEpoch => {
                let word = if self.bump_epoch() { "BUMPED" } else { "STILL" };
                return Ok(format!("{word} {}", self.view.me().config_epoch));
            }
            Order::SetConfigEpoch(epoch) => self.set_config_epoch(epoch),
            Order::Forget(id) => self.forget(id),
            Order::Replicate { primary, empty } => self.order_replicate(primary, empty),
            Order::Failover(how) => self.order_failover(how),
            Order::Reset { hard, empty } => self.reset(hard, empty),
            Order::SaveConfig => {
                self.todo.save = true;
                self.todo.durable = true;
                Ok(())
            }
            Order::KillLinks { id, to, from } => {
                let Some(index) = self.view.find(id) else {
                    return Err(format!("Unknown node {id}"));
                };
                let node = self.view.node(index);
                let links = [(to, node.link), (from, node.inbound)];
                for (_, link) in links.into_iter().filter(|(wanted, _)| *wanted) {
                    if let Some(link) = link {
                        self.close(link);
                    }
                }
                Ok(())
            }
            Order::Hand(hand) => self.hand(hand),
            Order::StartEmpty => {
                self.start_empty();
                Ok(())
            }
            Order::Claim(slots) => {
                self.claim(&slots);
                Ok(())
            }
        };
        done.map(|()| "OK".to_owned())
    }

    pub(super) fn changed(&mut self) {
        self.todo.save = true;
        self.todo.state = true;
    }

    /// A handshake with this address is under way.
    pub(super) fn is_meeting(&self, node: &Node) -> bool {
        let mut meeting = self
            .view
            .iter()
            .filter(|(_, other)| other.is(flag::HANDSHAKE));
        meeting.any(|(_, other)| {
            other.ip == node.ip && (other.port, other.bus_port) == (node.port, node.bus_port)
        })
    }

    fn meet(&mut self, ip: &str, port: i64, bus_port: i64) -> Result<(), String> {
        let valid = |port: i64| u16::try_from(port).ok().filter(|port| *port > 0);
        let (Ok(address), Some(port_), Some(bus_port)) =
            (ip.parse::<IpAddr>(), valid(port), valid(bus_port))
        else {
            return Err(format!("Invalid node address specified: {ip}:{port}"));
        };
        let id = NodeId::random(&mut self.random);
        let mut node = Node::new(id, flag::HANDSHAKE | flag::MEET, self.facts.now);
        node.take_address(&address.to_string(), port_, 0, bus_port);
        if !self.is_meeting(&node) {
            self.view.add(node);
        }
        Ok(())
    }

    /// Checks that all slots are busy or free, and none is named twice.
    fn check_slots(&self, slots: &[u16], busy: bool) -> Result<(), String> {
        let mut seen = SlotSet::default();
        for &slot in slots {
            match self.view.owner(slot) {
                None if busy => return Err(format!("Slot {slot} is already unassigned")),
                Some(_) if !busy => return Err(format!("Slot {slot} is already busy")),
                _ => {}
            }
            if !seen.insert(slot) {
                return Err(format!("Slot {slot} specified multiple times"));
            }
        }
        Ok(())
    }

    fn add_slots(&mut self, slots: &[u16]) -> Result<(), String> {
        self.check_slots(slots, false)?;
        let me = self.view.myself();
        for &slot in slots {
            self.view.importing.remove(&slot);
            self.view.assign(slot, me);
        }
        self.changed();
        Ok(())
    }

    fn del_slots(&mut self, slots: &[u16]) -> Result<(), String> {
        self.check_slots(slots, true)?;
        self.check_not_granted(slots.iter().copied())?;
        for &slot in slots {
            self.view.importing.remove(&slot);
            self.view.unassign(slot);
        }
        self.changed();
        Ok(())
    }

    fn set_slot(&mut self, slot: u16, state: SlotState, keys: u64) -> Result<(), String> {
        if self.view.me().is_replica() {
            return Err("Please use SETSLOT only with masters.".to_owned());
        }
        let me = self.view.myself();
        let mine = self.view.owner(slot) == Some(me);
        // Who is asked to leave things as they are answers for a slot in doubt.
        if state != SlotState::Stable {
            self.check_not_granted([slot].into_iter())?;
        }
        match state {
            SlotState::Migrating(_) if !mine => {
                return Err(format!("I'm not the owner of hash slot {slot}"));
            }
            SlotState::Importing(_) if mine => {
                return Err(format!("I'm already the owner of hash slot {slot}"));
            }
            SlotState::Migrating(id) => {
                let to = self.primary_for(id, "I don't know about node")?;
                self.view.migrating.insert(slot, to);
            }
            SlotState::Importing(id) => {
                let from = self.primary_for(id, "I don't know about node")?;
                self.view.importing.insert(slot, from);
            }
            SlotState::Stable => {
                if self.view.granted.get(&slot).is_some_and(|g| g.doubtful) {
                    self.view.granted.remove(&slot);
                    self.view.strays.remove(slot);
                }
                self.view.migrating.remove(&slot);
                self.view.importing.remove(&slot);
            }
            SlotState::Node(id) => {
                let to = self.primary_for(id, "Unknown node")?;
                self.give_slot(slot, to, mine, keys)?;
            }
        }
        self.changed();
        Ok(())
    }

    fn primary_for(&self, id: NodeId, unknown: &str) -> Result<NodeIndex, String> {
        let Some(index) = self.view.find(id) else {
            return Err(format!("{unknown} {id}"));
        };
        match self.view.node(index).is_replica() {
            true => Err("Target node is not a master".to_owned()),
            false => Ok(index),
        }
    }

    fn give_slot(&mut self, slot: u16, to: NodeIndex, mine: bool, keys: u64) -> Result<(), String> {
        let me = self.view.myself();
        if mine && to != me && keys != 0 {
            return Err(format!(
                "Can't assign hashslot {slot} to a different node while I still hold keys for this \
                 hash slot."
            ));
        }
        if keys == 0 {
            self.view.migrating.remove(&slot);
        }
        self.view.assign(slot, to);
        let left_without = mine
            && to != me
            && self.view.me().slots.is_empty()
            && self.settings.cluster_allow_replica_migration;
        if left_without {
            tracing::warn!(
                "Configuration change detected. Reconfiguring myself as a replica of {}",
                self.view.node(to).id
            );
            self.replicate(to);
        }
        if to == me
            && let Some(from) = self.view.importing.remove(&slot)
        {
            self.note_import(slot, from);
            if self.bump_epoch() {
                tracing::warn!("configEpoch updated after importing slot {slot}");
            }
            self.promise();
            self.broadcast_pong(|_, _| true);
        }
        Ok(())
    }

    /// Takes an epoch of our own without asking anybody; false when ours is the newest already.
    pub(super) fn bump_epoch(&mut self) -> bool {
        let highest = self.view.highest_epoch();
        let mine = self.view.me().config_epoch;
        if mine != 0 && mine == highest {
            return false;
        }
        self.view.current_epoch += 1;
        let epoch = self.view.current_epoch;
        self.view.me_mut().config_epoch = epoch;
        tracing::warn!("New configEpoch set to {epoch}");
        self.promise();
        true
    }

    fn set_config_epoch(&mut self, epoch: i64) -> Result<(), String> {
        let Ok(number) = u64::try_from(epoch) else {
            return Err(format!("Invalid config epoch specified: {epoch}"));
        };
        if self.view.count() > 1 {
            return Err(
                "The user can assign a config epoch only when the node does not know any other \
                 node."
                    .to_owned(),
            );
        }
        if self.view.me().config_epoch != 0 {
            return Err("Node config epoch is already non-zero".to_owned());
        }
        self.view.me_mut().config_epoch = number;
        tracing::warn!("configEpoch set to {number} via CLUSTER SET-CONFIG-EPOCH");
        self.view.current_epoch = self.view.current_epoch.max(number);
        self.changed();
        self.promise();
        Ok(())
    }

    fn forget(&mut self, id: NodeId) -> Result<(), String> {
        let Some(index) = self.view.find(id) else {
            // Others may have told us already, as from 7.2 on.
            return match self.is_forgotten(id) {
                true => Ok(()),
                false => Err(format!("Unknown node {id}")),
            };
        };
        if index == self.view.myself() {
            return Err("I tried hard but I can't forget myself...".to_owned());
        }
        if self.view.me().primary == Some(index) {
            return Err("Can't forget my master!".to_owned());
        }
        let granted = self.view.granted.values();
        if granted
            .filter(|grant| !grant.doubtful)
            .any(|grant| grant.to == index)
        {
            return Err("Slots are being handed over to that node".to_owned());
        }
        self.forget_for_all(index);
        self.broadcast_pong(|machine, index| machine.view.node(index).reads_extensions);
        Ok(())
    }

    /// Forgets a node, and has those do so who understand it: they need not be told by hand.
    pub(super) fn forget_for_all(&mut self, index: NodeIndex) {
        let (id, until) = (self.view.node(index).id, self.facts.now + FORGOTTEN_FOR);
        self.forgotten.insert(id, until);
        self.forgetting.insert(id, until);
        self.remove_node(index);
        self.changed();
    }

    /// Somebody was told to forget a node, and tells us.
    pub(super) fn forget_as_told(&mut self, id: NodeId, seconds: u64) {
        let Some(index) = self.view.find(id) else {
            return;
        };
        let mine = index == self.view.myself() || self.view.me().primary == Some(index);
        if mine || seconds == 0 {
            return;
        }
        let for_ms = i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1000);
        let now = self.facts.now;
        let until = now + for_ms.min(FORGOTTEN_FOR);
        // It was met again after that. (The order was given up to a second later than it looks.)
        if self.view.node(index).known_since > until - FORGOTTEN_FOR + 1000 {
            return;
        }
        self.forgotten.insert(id, until);
        self.remove_node(index);
        self.todo.save = true;
        self.todo.state = true;
    }

    /// The node is not to be met by gossip for now.
    pub(super) fn is_forgotten(&self, id: NodeId) -> bool {
        self.forgotten
            .get(&id)
            .is_some_and(|until| *until > self.facts.now)
    }

    pub(super) fn forget_old(&mut self) {
        let now = self.facts.now;
        self.forgotten.retain(|_, until| *until > now);
        self.forgetting.retain(|_, until| *until > now);
    }

    fn order_replicate(&mut self, primary: NodeId, empty: bool) -> Result<(), String> {
        let Some(index) = self.view.find(primary) else {
            return Err(format!("Unknown node {primary}"));
        };
        if index == self.view.myself() {
            return Err("Can't replicate myself".to_owned());
        }
        if self.view.node(index).is_replica() {
            return Err("I can only replicate a master, not a replica.".to_owned());
        }
        let me = self.view.me();
        if me.is_primary() && (!me.slots.is_empty() || !empty) {
            return Err(
                "To set a master the node must be empty and without assigned slots.".to_owned(),
            );
        }
        self.replicate(index);
        Ok(())
    }

    fn order_failover(&mut self, how: Takeover) -> Result<(), String> {
        let me = self.view.me();
        if me.is_primary() {
            return Err("You should send CLUSTER FAILOVER to a replica".to_owned());
        }
        let Some(index) = me.primary else {
            return Err("I'm a replica but my master is unknown to me".to_owned());
        };
        let primary = self.view.node(index);
        let link = primary.link.filter(|link| self.links.contains_key(link));
        if how == Takeover::Together && (primary.has_failed() || link.is_none()) {
            return Err("Master is down or failed, please use CLUSTER FAILOVER FORCE".to_owned());
        }
        self.end_manual();
        self.election = Election::default();
        self.manual = Manual {
            end: self.facts.now + MANUAL_TIMEOUT,
            ..Manual::default()
        };
        match how {
            Takeover::Takeover => {
                tracing::warn!("Taking over the master (user request).");
                self.bump_epoch();
                self.replace_primary();
            }
            Takeover::Force => {
                tracing::warn!("Forced failover user request accepted.");
                self.manual.may_start = true;
                self.todo.failover = true;
            }
            Takeover::Together => {
                tracing::warn!("Manual failover user request accepted.");
                let message = self.message(Kind::MfStart, Body::Nothing);
                if let Some(link) = link {
                    self.send(link, &message, false);
                }
            }
        }
        Ok(())
    }

    fn reset(&mut self, hard: bool, empty: bool) -> Result<(), String> {
        self.check_not_granted(self.view.me().slots.iter())?;
        if self.view.me().is_primary() && !empty {
            return Err(
                "CLUSTER RESET can't be called with master nodes containing keys".to_owned(),
            );
        }
        let me = self.view.myself();
        if self.view.promote(me) {
            self.act(Action::Lead);
            self.act(Action::Empty);
        }
        self.view.migrating.clear();
        self.view.importing.clear();
        self.end_manual();
        self.election = Election::default();
        for slot in 0..SLOTS as u16 {
            self.view.unassign(slot);
        }
        for index in self.view.indexes() {
            if index != me {
                self.remove_node(index);
            }
        }
        if hard {
            self.view.current_epoch = 0;
            self.view.last_vote_epoch = 0;
            self.view.me_mut().config_epoch = 0;
            tracing::warn!("configEpoch set to 0 via CLUSTER RESET HARD");
            let id = NodeId::random(&mut self.random);
            self.view.rename(me, id);
            tracing::info!("Node hard reset, now I'm {id}");
        }
        // What was being looked up was for who this node was.
        self.forming = Forming::default();
        self.changed();
        self.promise();
        Ok(())
    }

    /// Makes slots and keys agree: this node has keys in `slots`.
    fn claim(&mut self, slots: &SlotSet) {
        if self.view.me().is_replica() {
            return;
        }
        let me = self.view.myself();
        let strays = self.drop_strays(slots);
        for slot in slots.iter().filter(|slot| !strays.has(*slot)) {
            match self.view.owner(slot) {
                Some(owner) if owner == me => {}
                _ if self.view.importing.contains_key(&slot) => {}
                None => {
                    tracing::warn!(
                        "I have keys for unassigned slot {slot}. Taking responsibility for it."
                    );
                    self.view.assign(slot, me);
                    self.changed();
                }
                Some(owner) => {
                    tracing::warn!(
                        "I have keys for slot {slot}, but the slot is assigned to another node. \
                         Setting it to importing state."
                    );
                    self.view.importing.insert(slot, owner);
                    self.changed();
                }
            }
        }
    }
}
