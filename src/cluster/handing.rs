//! Slots that change hands as one, by atomic migration: what of it this node has promised and must not
//! forget. What goes on between the two servers meanwhile is in [`super::moving`].
//!
//! The target *takes* the slots with a new epoch, which nobody is asked for. Before it is told to, their owner
//! *grants* them: from then on, and across restarts, it does not serve them again unless it knows that the
//! target has not taken them, and never will. It knows that only from the target, which drops what it got before it
//! says so. That the target has taken them it hears from that one or over the bus, from whoever knows.
//! While it knows neither, the slots are *in doubt*: their clients are sent to the target. Who says
//! otherwise is an operator: CLUSTER SETSLOT STABLE takes a grant back, and so does CLUSTER FORGET of the target.
//!
//! *Strays* are slots whose keys are here for a migration, or were left by one: if such a slot is another's
//! when this node starts, its keys are deleted, where Redis would take them for those of an import by hand.
//!
//! Grants and strays stand in nodes.conf as variables, which Redis passes over.

use super::id::NodeId;
use super::machine::{Action, Machine};
use super::node::{NodeIndex, flag};
use super::slots::SlotSet;
use super::view::Grant;

/// A step of a migration.
#[derive(Clone, Debug, PartialEq)]
pub enum Hand {
    /// Target: keys of these slots are about to come.
    Expect {
        /// The slots.
        slots: SlotSet,
        /// Their owner.
        from: NodeId,
    },
    /// Target: the slots are ours, if they are still those of who granted them.
    Take {
        /// The slots.
        slots: SlotSet,
        /// Who granted them.
        from: NodeId,
    },
    /// Either: no keys are here of those of these slots that are not ours.
    Clean(SlotSet),
    /// Source: the target may take the slots.
    Grant {
        /// The slots.
        slots: SlotSet,
        /// The target.
        to: NodeId,
    },
    /// Source: it is not to be found out for now whether it has.
    Doubt(SlotSet),
    /// Source: it has not, and never will.
    Revoke(SlotSet),
    /// Source: it has.
    Give {
        /// The slots.
        slots: SlotSet,
        /// The target.
        to: NodeId,
    },
}

impl Machine {
    pub(super) fn hand(&mut self, hand: Hand) -> Result<(), String> {
        match hand {
            Hand::Expect { slots, from } => self.expect_slots(&slots, from),
            Hand::Take { slots, from } => self.take_granted(&slots, from),
            Hand::Clean(slots) => {
                let removed = slots.iter().filter(|slot| self.view.strays.remove(*slot));
                if removed.count() > 0 {
                    self.todo.save = true;
                }
                Ok(())
            }
            Hand::Grant { slots, to } => self.grant(&slots, to),
            Hand::Doubt(slots) => {
                for slot in slots.iter() {
                    if let Some(grant) = self.view.granted.get_mut(&slot) {
                        grant.doubtful = true;
                    }
                }
                self.todo.state = true;
                Ok(())
            }
            Hand::Revoke(slots) => {
                for slot in slots.iter() {
                    if self.view.granted.remove(&slot).is_some() {
                        self.view.strays.remove(slot);
                    }
                }
                self.changed();
                Ok(())
            }
            Hand::Give { slots, to } => {
                self.give_granted(&slots, to);
                Ok(())
            }
        }
    }

    /// The target of a migration can take `slots` from `from`.
    fn may_take(&self, slots: &SlotSet, from: NodeId) -> Result<NodeIndex, String> {
        if self.view.me().is_replica() {
            return Err("Slot migration can only be used on primary nodes.".to_owned());
        }
        let Some(source) = self.view.find(from) else {
            return Err("Target node does not know the source node".to_owned());
        };
        if source == self.view.myself() {
            return Err("Source node is target node itself".to_owned());
        }
        if slots
            .iter()
            .any(|slot| self.view.owner(slot) != Some(source))
        {
            return Err("Target node does not agree about current slot ownership".to_owned());
        }
        if !self.view.importing.is_empty() {
            return Err("Slots are being manually imported".to_owned());
        }
        if self.fails || self.reborn.is_some() {
            return Err("The cluster is down on the target node".to_owned());
        }
        if self.manual.end != 0 {
            return Err("A manual failover is under way on the target node".to_owned());
        }
        Ok(source)
    }

    fn expect_slots(&mut self, slots: &SlotSet, from: NodeId) -> Result<(), String> {
        self.may_take(slots, from)?;
        slots
            .iter()
            .for_each(|slot| _ = self.view.strays.insert(slot));
        self.promise();
        Ok(())
    }

    fn take_granted(&mut self, slots: &SlotSet, from: NodeId) -> Result<(), String> {
        let source = self.may_take(slots, from)?;
        let me = self.view.myself();
        for slot in slots.iter() {
            self.view.assign(slot, me);
            self.view.strays.remove(slot);
            self.note_import(slot, source);
        }
        // Also where ours is the newest already: somebody may have the same.
        self.view.current_epoch = self.view.highest_epoch() + 1;
        let epoch = self.view.current_epoch;
        self.view.me_mut().config_epoch = epoch;
        tracing::warn!("New configEpoch set to {epoch} for slots that came from {from}");
        self.changed();
        self.promise();
        self.broadcast_pong(|_, _| true);
        Ok(())
    }

    fn grant(&mut self, slots: &SlotSet, to: NodeId) -> Result<(), String> {
        let me = self.view.myself();
        if slots.iter().any(|slot| self.view.owner(slot) != Some(me)) {
            return Err("Slots are no longer owned by myself".to_owned());
        }
        if self.manual.end != 0 {
            return Err("A manual failover is under way".to_owned());
        }
        let target = self.view.find(to).filter(|target| {
            let node = self.view.node(*target);
            !node.is_replica() && !node.is(flag::HANDSHAKE)
        });
        let Some(to) = target.filter(|target| *target != me) else {
            return Err("Target node is not a primary any more".to_owned());
        };
        for slot in slots.iter() {
            let grant = Grant {
                to,
                doubtful: false,
            };
            self.view.granted.insert(slot, grant);
            self.view.strays.insert(slot);
        }
        self.promise();
        Ok(())
    }

    fn give_granted(&mut self, slots: &SlotSet, to: NodeId) {
        let me = self.view.myself();
        let Some(target) = self.view.find(to) else {
            return;
        };
        let granted = |slot: &u16| self.view.granted.get(slot).is_some_and(|g| g.to == target);
        let given: SlotSet = slots.iter().filter(granted).collect();
        given.iter().for_each(|slot| self.view.assign(slot, target));
        self.changed();
        let claimed = self.view.node(target).slots.len();
        self.follow_slots(me, target, claimed, given);
    }

    /// Slots are granted: nothing else may come between.
    pub(super) fn hands_over(&self) -> bool {
        !self.view.granted.is_empty()
    }

    /// An order is about slots that are granted to another node.
    pub(super) fn check_not_granted(
        &self,
        mut slots: impl Iterator<Item = u16>,
    ) -> Result<(), String> {
        match slots.find(|slot| self.view.granted.contains_key(slot)) {
            Some(slot) => Err(format!("Slot {slot} is being handed over to another node")),
            None => Ok(()),
        }
    }

    /// At the start: keys of a slot that is not ours are what a migration left.
    pub(super) fn drop_strays(&mut self, slots: &SlotSet) -> SlotSet {
        let me = self.view.myself();
        let (view, importing) = (&self.view, &self.view.importing);
        let is_stray = |slot: &u16| {
            view.strays.has(*slot) && view.owner(*slot) != Some(me) && !importing.contains_key(slot)
        };
        let strays: SlotSet = slots.iter().filter(is_stray).collect();
        if !strays.is_empty() {
            tracing::warn!(
                "I have keys for slots that a migration did not give me. Deleting keys in {strays:?}"
            );
            self.act(Action::DeleteKeys(strays.clone()));
        }
        strays
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::conf;
    use crate::cluster::machine::Facts;
    use crate::cluster::orders::{Order, Outcome, SlotState};
    use crate::config::Settings;

    const ME: &str = "1111111111111111111111111111111111111111";
    const OTHER: &str = "2222222222222222222222222222222222222222";

    fn id(text: &str) -> NodeId {
        NodeId::parse(text.as_bytes()).unwrap()
    }

    /// A node with slots 0 to 9, beside one with 10 to 19 and the newest epoch.
    fn machine() -> Machine {
        let text = format!(
            "{ME} 10.0.0.1:6379@16379 myself,master - 0 0 2 connected 0-9\n\
             {OTHER} 10.0.0.2:6379@16379 master - 0 1 3 connected 10-19\n\
             vars currentEpoch 3 lastVoteEpoch 0\n"
        );
        let view = conf::read(text.as_bytes(), 1).unwrap();
        let settings = Arc::new(Settings::default());
        let (mut machine, _) = Machine::new(settings, Some(view), 1, Facts::default());
        machine.fails = false;
        machine
    }

    fn order(machine: &mut Machine, order: Order) -> (Outcome, Vec<Action>) {
        machine.order(order, Facts::default())
    }

    fn hand(machine: &mut Machine, hand: Hand) -> Outcome {
        order(machine, Order::Hand(hand)).0
    }

    fn slots(range: std::ops::Range<u16>) -> SlotSet {
        range.collect()
    }

    #[test]
    fn what_is_granted_is_given_or_kept() {
        let mut source = machine();
        let (granted, to) = (slots(2..5), id(OTHER));
        let grant = |slots: &SlotSet| Hand::Grant {
            slots: slots.clone(),
            to,
        };
        assert!(hand(&mut source, grant(&slots(8..12))).is_err());
        let (outcome, actions) = order(&mut source, Order::Hand(grant(&granted)));
        assert!(outcome.is_ok());
        let saved = actions.iter().any(|action| {
            matches!(action, Action::Save { text, durable: true, .. } if text.contains("granted-2222"))
        });
        assert!(saved, "{actions:?}");
        // Nothing else comes between.
        assert!(order(&mut source, Order::DelSlots(vec![3])).0.is_err());
        assert!(order(&mut source, Order::FlushSlots).0.is_err());
        assert!(order(&mut source, Order::Forget(to)).0.is_err());
        let stable = Order::SetSlot {
            slot: 3,
            state: SlotState::Stable,
            keys: 0,
        };
        assert!(order(&mut source, stable.clone()).0.is_ok());
        assert_eq!(source.view().granted.len(), 3);
        hand(&mut source, Hand::Doubt(granted.clone())).unwrap();
        // An operator answers for one of them.
        assert!(order(&mut source, stable).0.is_ok());
        assert!(!source.view().granted.contains_key(&3));
        hand(&mut source, Hand::Revoke(slots(2..3))).unwrap();
        let give = Hand::Give { slots: granted, to };
        let (_, actions) = order(&mut source, Order::Hand(give));
        assert!(
            actions.contains(&Action::DeleteKeys(slots(4..5))),
            "{actions:?}"
        );
        let other = source.view().find(to);
        assert_eq!(source.view().owner(4), other);
        assert!(source.view().granted.is_empty());
        assert_eq!(source.view().owner(2), Some(source.view().myself()));
    }

    #[test]
    fn what_is_taken_has_the_newest_epoch_and_what_is_not_is_dropped_at_the_start() {
        let mut target = machine();
        let from = id(OTHER);
        let expect = |slots: SlotSet| Hand::Expect { slots, from };
        assert!(hand(&mut target, expect(slots(9..12))).is_err());
        hand(&mut target, expect(slots(10..14))).unwrap();
        let taken = Hand::Take {
            slots: slots(10..12),
            from,
        };
        hand(&mut target, taken.clone()).unwrap();
        assert_eq!(target.view().me().config_epoch, 4);
        assert!(hand(&mut target, taken).is_err());
        // It starts again with keys of all of them, and of one that was imported by hand.
        let (_, actions) = order(&mut target, Order::Claim(slots(10..15)));
        assert!(
            actions.contains(&Action::DeleteKeys(slots(12..14))),
            "{actions:?}"
        );
        let importing: Vec<u16> = target.view().importing.keys().copied().collect();
        assert_eq!(importing, [14]);
        hand(&mut target, Hand::Clean(slots(12..14))).unwrap();
        assert!(target.view().strays.is_empty());
    }
}
