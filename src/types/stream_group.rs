//! Consumer groups of a stream: what was delivered to whom and is not acknowledged yet.
//!
//! Invariant: an ID is pending in a group exactly if it is pending for one of its consumers, the
//! one that its entry in `pending` names.

use std::collections::BTreeMap;

use super::parted::Parted;
use super::stream_id::StreamId;

/// Groups by name, in the order in which they are listed.
pub type Groups = BTreeMap<Box<[u8]>, Group>;

/// A consumer of a group, as long as it is not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerId(u32);

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// To whom.
    pub consumer: ConsumerId,
    /// When, in Unix milliseconds.
    pub delivered_ms: i64,
    /// How often.
    pub count: u64,
}

/// A consumer of a group.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name.
    pub name: Box<[u8]>,
    /// When it last asked for something, in Unix milliseconds.
    pub seen_ms: i64,
    pending: Parted<StreamId, ()>,
}

impl Consumer {
    /// The IDs of what it did not acknowledge.
    pub fn pending(&self) -> &Parted<StreamId, ()> {
        &self.pending
    }
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The last ID that was delivered.
    pub last_id: StreamId,
    /// How many of all entries ever added the group has read; `None`: not known.
    pub entries_read: Option<u64>,
    pending: Parted<StreamId, Pending>,
    /// By [`ConsumerId`]; a deleted one leaves its place to the next.
    consumers: Vec<Option<Consumer>>,
    by_name: BTreeMap<Box<[u8]>, u32>,
}

impl Group {
    /// A group that has read up to `last_id`.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self {
            last_id,
            entries_read,
            pending: Parted::default(),
            consumers: Vec::new(),
            by_name: BTreeMap::new(),
        }
    }

    /// The same group as it is now. What is pending is copied when it changes, not before.
    pub fn share(&mut self) -> Self {
        let consumer = |consumer: &mut Consumer| Consumer {
            name: consumer.name.clone(),
            pending: consumer.pending.share(),
            ..*consumer
        };
        let consumers = self.consumers.iter_mut();
        Self {
            pending: self.pending.share(),
            consumers: consumers.map(|c| c.as_mut().map(consumer)).collect(),
            by_name: self.by_name.clone(),
            ..*self
        }
    }

    /// Everything that is pending, by ID.
    pub fn pending(&self) -> &Parted<StreamId, Pending> {
        &self.pending
    }

    /// What is pending from an ID on.
    pub fn pending_from(&self, start: StreamId) -> impl Iterator<Item = (StreamId, Pending)> {
        let pending = self.pending.from(&start);
        pending.map(|(id, pending)| (*id, *pending))
    }

    /// The first pending ID after `id`.
    pub fn pending_after(&self, id: StreamId) -> Option<StreamId> {
        let mut from = self.pending.keys_from(&id);
        from.find(|other| **other != id).copied()
    }

    /// The consumers in the order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.by_name
            .values()
            .map(|place| self.of(ConsumerId(*place)))
    }

    /// A consumer.
    pub fn of(&self, id: ConsumerId) -> &Consumer {
        let consumer = self.consumers[id.0 as usize].as_ref();
        consumer.expect("nothing names a deleted consumer")
    }

    fn of_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        let consumer = self.consumers[id.0 as usize].as_mut();
        consumer.expect("nothing names a deleted consumer")
    }

    /// The consumer of this name.
    pub fn find(&self, name: &[u8]) -> Option<ConsumerId> {
        self.by_name.get(name).map(|place| ConsumerId(*place))
    }

    /// The consumer of this name, seen now; created if there is none (true then).
    pub fn find_or_create(&mut self, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
        if let Some(id) = self.find(name) {
            self.of_mut(id).seen_ms = now_ms;
            return (id, false);
        }
        let free = self.consumers.iter().position(Option::is_none);
        let place = free.unwrap_or(self.consumers.len());
        let consumer = Consumer {
            name: name.into(),
            seen_ms: now_ms,
            pending: Parted::default(),
        };
        match free {
            Some(place) => self.consumers[place] = Some(consumer),
            None => self.consumers.push(Some(consumer)),
        }
        self.by_name.insert(name.into(), place as u32);
        (ConsumerId(place as u32), true)
    }

    /// Deletes a consumer and all that is pending for it; how much that was. `None` without such.
    pub fn delete_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let place = self.by_name.remove(name)?;
        let consumer = self.consumers[place as usize].take()?;
        for id in consumer.pending.keys() {
            self.pending.remove(id);
        }
        Some(consumer.pending.len())
    }

    /// Notes an entry as delivered to a consumer, whoever had it before.
    pub fn assign(&mut self, id: StreamId, pending: Pending) {
        if let Some(before) = self.pending.insert(id, pending)
            && before.consumer != pending.consumer
        {
            self.of_mut(before.consumer).pending.remove(&id);
        }
        self.of_mut(pending.consumer).pending.insert(id, ());
    }

    /// Notes that a consumer got again what is pending for it.
    pub fn deliver_again(&mut self, id: StreamId, now_ms: i64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.delivered_ms = now_ms;
            pending.count = pending.count.wrapping_add(1);
        }
    }

    /// Ends the wait for an acknowledgement; what was waited for.
    pub fn acknowledge(&mut self, id: StreamId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.of_mut(pending.consumer).pending.remove(&id);
        Some(pending)
    }

    /// Bytes of its allocations, estimated.
    pub fn memory(&self) -> usize {
        let of = |c: &Consumer| 2 * c.name.len() + c.pending.memory();
        let consumers: usize = self.consumers().map(of).sum();
        // Nodes of B-trees are two thirds full on average.
        let tree = |len: usize, size: usize| len * size * 3 / 2;
        self.pending.memory()
            + tree(self.by_name.len(), size_of::<(Box<[u8]>, u32)>())
            + self.consumers.capacity() * size_of::<Option<Consumer>>()
            + consumers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> StreamId {
        StreamId::new(n, 0)
    }

    #[test]
    fn what_is_pending_has_one_owner() {
        let mut group = Group::new(StreamId::MIN, None);
        let (alice, created) = group.find_or_create(b"alice", 1);
        assert!(created && !group.find_or_create(b"alice", 2).1);
        let (bob, _) = group.find_or_create(b"bob", 3);
        let give = |group: &mut Group, n, consumer| {
            let (delivered_ms, count) = (5, 1);
            group.assign(
                id(n),
                Pending {
                    consumer,
                    delivered_ms,
                    count,
                },
            );
        };
        let sizes = |group: &Group| {
            group
                .consumers()
                .map(|c| c.pending.len())
                .collect::<Vec<_>>()
        };
        (1..4).for_each(|n| give(&mut group, n, alice));
        give(&mut group, 2, bob);
        assert_eq!((group.pending.len(), sizes(&group)), (3, vec![2, 1]));
        assert_eq!(group.pending_after(id(1)), Some(id(2)));
        assert!(group.acknowledge(id(1)).is_some() && group.acknowledge(id(1)).is_none());
        assert_eq!(group.delete_consumer(b"alice"), Some(1));
        assert_eq!(group.delete_consumer(b"alice"), None);
        assert_eq!((group.pending.len(), sizes(&group)), (1, vec![1]));
        // The place of the deleted one is taken again.
        let (carol, _) = group.find_or_create(b"carol", 4);
        assert_eq!((carol, group.of(carol).seen_ms), (alice, 4));
        let names: Vec<_> = group.consumers().map(|c| &c.name[..]).collect();
        assert_eq!(names, [b"bob", &b"carol"[..]]);
    }
}
