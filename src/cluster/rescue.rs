//! Three ways in which a cluster would lose data that it still has, and what is done against them.
//!
//! A primary that starts *reborn*, without the data set that it had, would have its replicas copy nothing.
//! It takes no part until one of them has replaced it: it serves nobody, no replica copies it, and as soon as
//! one shows that it has data, all are told that this primary has failed, so that the election begins at
//! once.
//!
//! A replica that has come from another shard, to an orphan or by order, has that one's data until it has copied
//! its primary. It does not stand for election, however much it has; FAILOVER TAKEOVER alone overrules that.
//!
//! A slot that was just imported has its keys here and nowhere else. The shard that it came from may claim
//! it once more, under a newer epoch: it was electing another primary, or took an epoch for something else,
//! before it heard of the import. Such a claim is answered with a newer epoch of ours, until that shard has
//! shown that it knows.

use std::collections::BTreeSet;

use super::detect::WRITABLE_DELAY;
use super::machine::{Machine, Reborn};
use super::node::{Node, NodeIndex};
use super::slots::SlotSet;
use super::wire::{Body, Kind};

/// How long a reborn primary waits for a replica to replace it: this long, in milliseconds, ...
const PATIENCE: i64 = 10_000;
/// ... and so many node timeouts.
const PATIENCE_TIMEOUTS: i64 = 4;
/// How often a reborn primary says that it has failed, in milliseconds.
const RESIGN_EVERY: i64 = 500;

impl Machine {
    /// This primary has started without data. If its replicas may have them, it waits for one to take over.
    pub(super) fn start_empty(&mut self) {
        let me = self.view.me();
        if me.is_replica() || me.slots.is_empty() || self.view.count() == 1 {
            return;
        }
        self.reborn = Some(Reborn {
            since: self.facts.now,
            resigned: 0,
        });
        tracing::warn!(
            "This master has started without a data set: a replica that has it is to take over"
        );
    }

    /// This primary waits for a replica that has the data set which it has lost.
    pub fn is_reborn(&self) -> bool {
        self.reborn.is_some()
    }

    /// Replicas of ours that work, and of which it is not known that they have no data.
    fn replicas_with_data(&self) -> impl Iterator<Item = &Node> {
        let replicas = self.view.me().replicas.iter();
        let replicas = replicas.map(|index| self.view.node(*index));
        replicas.filter(|node| {
            let silent = node.data_received < self.awake_since;
            !node.has_failed() && (silent || node.offset > 0)
        })
    }

    /// Goes on with being replaced.
    pub(super) fn tend_reborn(&mut self) {
        let Some(reborn) = self.reborn else {
            return;
        };
        let now = self.facts.now;
        let age = now - reborn.since;
        let late = age >= PATIENCE + PATIENCE_TIMEOUTS * self.timeout();
        // Its file may not know of all; nor does a primary serve before.
        let early = age < WRITABLE_DELAY;
        let due = now - reborn.resigned >= RESIGN_EVERY;
        let me = self.view.me();
        if me.is_replica() || me.slots.is_empty() {
            self.reborn = None;
        } else if late || !early && self.replicas_with_data().next().is_none() {
            tracing::warn!("No replica has the data set: this master serves without it");
            self.reborn = None;
        } else if due && self.replicas_with_data().any(|node| node.offset > 0) {
            self.resign();
        } else {
            return;
        }
        self.todo.look = true;
    }

    /// Tells all that this node has failed.
    fn resign(&mut self) {
        if let Some(reborn) = &mut self.reborn {
            reborn.resigned = self.facts.now;
        }
        let message = self.message(Kind::Fail, Body::Fail(self.view.me().id));
        self.broadcast(&message, false, |_| true);
    }

    /// This node is about to copy `primary`: what it has is that shard's data if the other one was its sibling,
    /// or its replica, and has all the slots now. While the one before has slots of its own, the other one has
    /// become the primary of another shard.
    pub(super) fn note_shard(&mut self, primary: NodeIndex) {
        let me = self.view.me();
        let before = me.primary.unwrap_or(self.view.myself());
        let heir = self.view.node(primary).former == Some(before);
        let stays = before == primary || heir && self.view.node(before).slots.is_empty();
        self.view.is_foreign |= !stays;
    }

    /// A slot has come here, with its keys.
    pub(super) fn note_import(&mut self, slot: u16, from: NodeIndex) {
        let shard = self.view.primary_of(from).unwrap_or(from);
        let replicas = self.view.node(shard).replicas.iter().copied();
        let members = replicas.chain([from, shard]).collect();
        self.imported.insert(slot, members);
    }

    /// `claimant` claims a slot that has come here from its shard, and may not have heard of that.
    pub(super) fn keeps_import(&self, slot: u16, claimant: NodeIndex) -> bool {
        let mine = self.view.owner(slot) == Some(self.view.myself());
        let leaves = self.view.migrating.contains_key(&slot);
        let unaware = |members: &BTreeSet<NodeIndex>| members.contains(&claimant);
        mine && !leaves && self.imported.get(&slot).is_some_and(unaware)
    }

    /// A node shows which slots it or its primary has: what is not among them, it knows to be elsewhere.
    pub(super) fn settle_imports(&mut self, sender: NodeIndex, slots: &SlotSet) {
        let view = &self.view;
        self.imported.retain(|slot, unaware| {
            if !slots.has(*slot) {
                unaware.remove(&sender);
            }
            !unaware.is_empty() && view.owner(*slot) == Some(view.myself())
        });
    }

    /// A node is not known any more: nor has it anything to claim.
    pub(super) fn forget_imports(&mut self, gone: NodeIndex) {
        self.imported.retain(|_, unaware| {
            unaware.remove(&gone);
            !unaware.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::conf;
    use crate::cluster::id::NodeId;
    use crate::cluster::machine::Facts;
    use crate::config::Settings;

    const ME: &str = "1111111111111111111111111111111111111111";
    const SIBLING: &str = "2222222222222222222222222222222222222222";
    const PRIMARY: &str = "3333333333333333333333333333333333333333";

    /// What a replica becomes that is to copy its former sibling, which leads now.
    fn follows_sibling(slots_of_primary: &str) -> bool {
        let text = format!(
            "{PRIMARY} 10.0.0.1:1@2 master - 0 0 3 connected {slots_of_primary}\n\
             {ME} 10.0.0.2:1@2 myself,slave {PRIMARY} 0 0 3 connected\n\
             {SIBLING} 10.0.0.3:1@2 slave {PRIMARY} 0 0 3 connected\n\
             vars currentEpoch 7 lastVoteEpoch 6\n"
        );
        let view = conf::read(text.as_bytes(), 0).expect("it is well-formed");
        let settings = Arc::new(Settings::default());
        let (mut machine, _) = Machine::new(settings, Some(view), 0, Facts::default());
        let sibling = NodeId::parse(SIBLING.as_bytes()).and_then(|id| machine.view.find(id));
        let sibling = sibling.expect("it is known");
        machine.view.promote(sibling);
        machine.note_shard(sibling);
        machine.view.is_foreign
    }

    #[test]
    fn who_leads_another_shard_is_no_heir() {
        assert!(!follows_sibling(""));
        // It has left and leads elsewhere: what we have is not what it has.
        assert!(follows_sibling("0-4"));
    }
}
