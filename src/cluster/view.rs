//! What a node knows of the cluster: nodes, who has which slots, epochs. Plain data; what it means that a
//! message came or that time went by is the machine's.
//!
//! Invariants: a slot has one owner at most, and stands in the set of that node; `replicas` of a primary
//! and `primary` of its replicas say the same.

use std::collections::{BTreeMap, HashMap};

use super::id::NodeId;
use super::node::{Node, NodeIndex, Report, flag};
use super::slots::{SLOTS, SlotSet};

/// A slot that its owner has granted to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// To whom.
    pub to: NodeIndex,
    /// Nobody answers for it any more: clients are sent to that node.
    pub doubtful: bool,
}

/// The cluster as a node sees it.
#[derive(Clone, Debug)]
pub struct View {
    nodes: Vec<Option<Node>>,
    by_id: HashMap<NodeId, NodeIndex>,
    myself: NodeIndex,
    owners: Vec<Option<NodeIndex>>,
    /// Slots that we are giving away, and to whom.
    pub migrating: BTreeMap<u16, NodeIndex>,
    /// Slots that we are about to get, and from whom.
    pub importing: BTreeMap<u16, NodeIndex>,
    /// Slots of ours that another node may have taken, or may still take.
    pub granted: BTreeMap<u16, Grant>,
    /// Slots whose keys do not belong here unless the slot does.
    pub strays: SlotSet,
    /// Slots that their owner has stopped to claim: others are not told that it has them.
    pub unclaimed: SlotSet,
    /// The highest epoch known.
    pub current_epoch: u64,
    /// The epoch of our last vote.
    pub last_vote_epoch: u64,
    /// This replica came from another shard, or without data, and has not copied its primary since: it must
    /// not lead.
    pub is_foreign: bool,
    /// Slots that this shard no longer has, since that was looked at last.
    pub left: SlotSet,
    /// What primaries had that became replicas, as far as nobody has claimed it yet: somebody has, and votes.
    vacant: BTreeMap<NodeIndex, SlotSet>,
}

impl View {
    /// A node that knows only itself.
    pub fn new(myself: Node) -> Self {
        let mut view = Self {
            nodes: Vec::new(),
            by_id: HashMap::new(),
            myself: NodeIndex(0),
            owners: vec![None; SLOTS],
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            granted: BTreeMap::new(),
            strays: SlotSet::default(),
            unclaimed: SlotSet::default(),
            current_epoch: 0,
            last_vote_epoch: 0,
            is_foreign: false,
            left: SlotSet::default(),
            vacant: BTreeMap::new(),
        };
        view.myself = view.add(myself).expect("there is room for the first");
        view
    }

    /// The most nodes that are known at a time: a bound for what hostile gossip may add.
    const MOST: usize = 16_384;

    /// Adds a node; `None` when there are too many, or it is known.
    pub fn add(&mut self, node: Node) -> Option<NodeIndex> {
        if self.by_id.contains_key(&node.id) {
            return None;
        }
        let free = self.nodes.iter().position(Option::is_none);
        let index = free.unwrap_or(self.nodes.len());
        if index >= Self::MOST {
            return None;
        }
        if index == self.nodes.len() {
            self.nodes.push(None);
        }
        let place = NodeIndex(index as u16);
        self.by_id.insert(node.id, place);
        self.nodes[index] = Some(node);
        Some(place)
    }

    /// Forgets a node and all that was known by it.
    pub fn remove(&mut self, gone: NodeIndex) -> Option<Node> {
        if gone == self.myself {
            return None;
        }
        for slot in self.node(gone).slots.clone().iter() {
            self.unassign(slot);
        }
        self.migrating.retain(|_, to| *to != gone);
        self.importing.retain(|_, from| *from != gone);
        self.granted.retain(|_, grant| grant.to != gone);
        self.vacant.remove(&gone);
        for node in self.nodes.iter_mut().flatten() {
            node.reports.retain(|report| report.by != gone);
            if node.primary == Some(gone) {
                node.primary = None;
            }
            if node.former == Some(gone) {
                node.former = None;
            }
        }
        self.detach(gone);
        let node = self.nodes[usize::from(gone.0)].take()?;
        self.by_id.remove(&node.id);
        Some(node)
    }

    /// Gives a node its real name. False, and nothing done, if somebody else has it.
    pub fn rename(&mut self, index: NodeIndex, id: NodeId) -> bool {
        if self.by_id.contains_key(&id) {
            return false;
        }
        let old = std::mem::replace(&mut self.node_mut(index).id, id);
        self.by_id.remove(&old);
        self.by_id.insert(id, index);
        true
    }

    /// The node of a name.
    pub fn find(&self, id: NodeId) -> Option<NodeIndex> {
        self.by_id.get(&id).copied()
    }

    /// A node that is known.
    pub fn node(&self, index: NodeIndex) -> &Node {
        let node = self.nodes[usize::from(index.0)].as_ref();
        node.expect("an index is kept no longer than its node")
    }

    /// A node that is known.
    pub fn node_mut(&mut self, index: NodeIndex) -> &mut Node {
        let node = self.nodes[usize::from(index.0)].as_mut();
        node.expect("an index is kept no longer than its node")
    }

    /// This node's place.
    pub fn myself(&self) -> NodeIndex {
        self.myself
    }

    /// This node.
    pub fn me(&self) -> &Node {
        self.node(self.myself)
    }

    /// This node.
    pub fn me_mut(&mut self) -> &mut Node {
        self.node_mut(self.myself)
    }

    /// All nodes, this one among them.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(index, node)| Some((NodeIndex(index as u16), node.as_ref()?)))
    }

    /// Places of all nodes.
    pub fn indexes(&self) -> Vec<NodeIndex> {
        self.iter().map(|(index, _)| index).collect()
    }

    /// How many nodes are known, this one among them.
    pub fn count(&self) -> usize {
        self.by_id.len()
    }

    /// One past the highest place in use.
    pub fn places(&self) -> usize {
        self.nodes.len()
    }

    /// The node at a place, if there is one.
    pub fn at(&self, place: usize) -> Option<(NodeIndex, &Node)> {
        let node = self.nodes.get(place)?.as_ref()?;
        Some((NodeIndex(place as u16), node))
    }

    /// The node whose slots this one tells of: itself, or its primary.
    pub fn my_primary(&self) -> NodeIndex {
        self.me().primary.unwrap_or(self.myself)
    }

    /// The primary of a node's shard, if it is known: itself, or what it copies.
    pub fn primary_of(&self, index: NodeIndex) -> Option<NodeIndex> {
        let node = self.node(index);
        if node.is_primary() {
            Some(index)
        } else {
            node.primary
        }
    }

    /// Who has a slot.
    pub fn owner(&self, slot: u16) -> Option<NodeIndex> {
        self.owners[usize::from(slot)]
    }

    /// The owners of all slots.
    pub fn owners(&self) -> &[Option<NodeIndex>] {
        &self.owners
    }

    /// Nobody has the slot, or who has it says otherwise.
    pub fn is_unclaimed(&self, slot: u16) -> bool {
        self.owner(slot).is_none() || self.unclaimed.has(slot)
    }

    /// The epoch under which a slot is had.
    pub fn epoch_of(&self, slot: u16) -> Option<u64> {
        self.owner(slot).map(|owner| self.node(owner).config_epoch)
    }

    /// Gives a slot to a node, whoever had it.
    pub fn assign(&mut self, slot: u16, to: NodeIndex) {
        self.unassign(slot);
        let any_replicas = || {
            let mut nodes = self.iter().filter(|(_, node)| !node.is_replica());
            nodes.any(|(_, node)| !node.replicas.is_empty())
        };
        // A primary with its first slot is one that replicas may move to, if there are any.
        let eligible = self.node(to).slots.is_empty() && any_replicas();
        let node = self.node_mut(to);
        node.slots.insert(slot);
        if eligible {
            node.flags |= flag::MIGRATE_TO;
        }
        self.owners[usize::from(slot)] = Some(to);
        self.vacant.retain(|_, slots| {
            slots.remove(slot);
            !slots.is_empty()
        });
    }

    /// Takes a slot from whoever has it; false when nobody had.
    pub fn unassign(&mut self, slot: u16) -> bool {
        let Some(owner) = self.owners[usize::from(slot)].take() else {
            return false;
        };
        if owner == self.my_primary() {
            self.left.insert(slot);
        }
        self.unclaimed.remove(slot);
        self.granted.remove(&slot);
        self.node_mut(owner).slots.remove(slot);
        true
    }

    /// Makes a node somebody's replica.
    pub fn attach(&mut self, replica: NodeIndex, primary: NodeIndex) {
        self.detach(replica);
        self.node_mut(replica).primary = Some(primary);
        let primary = self.node_mut(primary);
        primary.replicas.push(replica);
        primary.flags |= flag::MIGRATE_TO;
    }

    /// Makes a node nobody's replica.
    pub fn detach(&mut self, replica: NodeIndex) {
        let Some(primary) = self.node_mut(replica).primary.take() else {
            return;
        };
        let primary = self.node_mut(primary);
        primary.replicas.retain(|other| *other != replica);
        if primary.replicas.is_empty() {
            primary.flags &= !flag::MIGRATE_TO;
        }
    }

    /// Makes a node a primary; false when it was one.
    pub fn promote(&mut self, index: NodeIndex) -> bool {
        if self.node(index).is_primary() {
            return false;
        }
        let former = self.node(index).primary;
        let had_primary = former.is_some();
        self.detach(index);
        let is_other = index != self.myself;
        let node = self.node_mut(index);
        node.set(
            flag::MIGRATE_TO,
            is_other && had_primary || node.is(flag::MIGRATE_TO),
        );
        node.former = former;
        node.set(flag::REPLICA, false);
        node.set(flag::PRIMARY, true);
        true
    }

    /// Makes another node a replica, of whom is not known yet.
    pub fn demote(&mut self, index: NodeIndex) {
        let slots = self.node(index).slots.clone();
        for slot in slots.iter() {
            self.unassign(slot);
        }
        if !slots.is_empty() {
            self.vacant.insert(index, slots);
        }
        let node = self.node_mut(index);
        node.set(flag::PRIMARY | flag::MIGRATE_TO, false);
        node.set(flag::REPLICA, true);
    }

    /// The highest epoch of anything known.
    pub fn highest_epoch(&self) -> u64 {
        let epochs = self.iter().map(|(_, node)| node.config_epoch);
        epochs.max().unwrap_or(0).max(self.current_epoch)
    }

    /// How many primaries have slots: of these more than half decide.
    pub fn size(&self) -> usize {
        self.voters().count()
    }

    /// Primaries that have slots.
    pub fn voters(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.iter()
            .filter(|(_, node)| node.is_primary() && !node.slots.is_empty())
    }

    /// How many are more than half of the primaries that have slots.
    pub fn quorum(&self) -> usize {
        // Who was replaced while we did not hear has somebody in its place.
        (self.size() + self.vacant.len()) / 2 + 1
    }

    /// A primary's replicas that have not failed.
    pub fn working_replicas(&self, primary: &Node) -> usize {
        let replicas = primary.replicas.iter().map(|index| self.node(*index));
        replicas.filter(|node| !node.has_failed()).count()
    }

    /// Notes that `by` finds a node failing; true when it had not said so before.
    pub fn report(&mut self, failing: NodeIndex, by: NodeIndex, at: i64) -> bool {
        let reports = &mut self.node_mut(failing).reports;
        match reports.iter_mut().find(|report| report.by == by) {
            Some(report) => {
                report.at = at;
                false
            }
            None => {
                reports.push(Report { by, at });
                true
            }
        }
    }

    /// Notes that `by` finds a node working; true when it had said otherwise.
    pub fn withdraw_report(&mut self, node: NodeIndex, by: NodeIndex) -> bool {
        let reports = &mut self.node_mut(node).reports;
        let before = reports.len();
        reports.retain(|report| report.by != by);
        reports.len() != before
    }

    /// How many others find a node failing, as of what they said after `since`.
    pub fn count_reports(&mut self, node: NodeIndex, since: i64) -> usize {
        let reports = &mut self.node_mut(node).reports;
        reports.retain(|report| report.at >= since);
        reports.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: u8) -> NodeId {
        NodeId::parse(&[letter; NodeId::LEN]).unwrap()
    }

    fn view() -> (View, NodeIndex, NodeIndex) {
        let me = Node::new(id(b'a'), flag::MYSELF | flag::PRIMARY, 0);
        let mut view = View::new(me);
        let other = view.add(Node::new(id(b'b'), flag::PRIMARY, 0)).unwrap();
        let third = view.add(Node::new(id(b'c'), flag::REPLICA, 0)).unwrap();
        (view, other, third)
    }

    #[test]
    fn a_slot_has_one_owner() {
        let (mut view, other, _) = view();
        view.assign(5, view.myself());
        view.assign(5, other);
        assert_eq!(view.owner(5), Some(other));
        assert!(view.me().slots.is_empty());
        assert!(view.left.has(5));
        assert_eq!(view.size(), 1);
    }

    #[test]
    fn who_goes_leaves_nothing() {
        let (mut view, other, third) = view();
        view.assign(5, other);
        view.attach(third, other);
        view.importing.insert(6, other);
        view.report(third, other, 1);
        view.remove(other);
        assert_eq!(view.owner(5), None);
        assert_eq!(view.node(third).primary, None);
        assert!(view.importing.is_empty());
        assert!(view.node(third).reports.is_empty());
        assert_eq!(view.find(id(b'b')), None);
        assert_eq!(view.count(), 2);
        // Its place is taken by the next.
        assert_eq!(view.add(Node::new(id(b'd'), 0, 0)), Some(other));
    }

    #[test]
    fn a_promoted_replica_is_nobodys() {
        let (mut view, other, third) = view();
        view.attach(third, other);
        assert!(view.node(other).is(flag::MIGRATE_TO));
        assert!(view.promote(third));
        assert!(!view.promote(third));
        assert!(view.node(other).replicas.is_empty());
        assert!(view.node(third).is_primary() && !view.node(third).is_replica());
        assert!(!view.node(other).is(flag::MIGRATE_TO));
    }
}
