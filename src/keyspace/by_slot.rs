//! The keys of one hash slot, of a keyspace that is ordered by slot: a range of hash order within one
//! shard.
//!
//! Walks go in slices, as those of [`super::scan`]. Keys whose time is over count until somebody removes
//! them, as all counts of keys have it.

use super::db::Db;
use super::entry::Entry;
use super::shards::Keyspace;
use super::table::{POSITION_BITS, Position};

/// Bits of a hash that are the slot.
const SLOT_BITS: u32 = 14;

/// A walk over a slot's keys.
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    slot: u16,
    at: Position,
    end: Position,
}

impl Walk {
    /// One that begins.
    pub fn new(slot: u16) -> Self {
        let at = |slot: u64| slot << (POSITION_BITS - SLOT_BITS);
        Self {
            slot,
            at: at(slot.into()),
            end: at(u64::from(slot) + 1),
        }
    }

    /// The shard that all keys of the slot are in.
    pub fn shard(&self) -> usize {
        Keyspace::shard_of(u64::from(self.slot) << (64 - SLOT_BITS))
    }

    /// Shows the keys of at most `buckets` buckets to `show`, until it has enough and says so by `false`.
    /// Returns the rest of the walk, if there is one. The shard is held.
    pub fn slice(
        self,
        db: &Db<'_, '_>,
        buckets: usize,
        mut show: impl FnMut(&Entry) -> bool,
    ) -> Option<Self> {
        let keyspace = db.keyspace();
        let (mut here, mut goes_on) = (self.at, true);
        for _ in 0..buckets {
            // Its first and its last bucket may hold keys of other slots, and the first one also some that
            // were shown before, if buckets were cut differently then.
            let next = db.visit_bucket(here, |entry| {
                let position = keyspace.position_of(entry.key());
                if goes_on && (self.at..self.end).contains(&position) {
                    goes_on = show(entry);
                }
            });
            match next {
                Some(next) if goes_on && next < self.end => here = next,
                _ => return None,
            }
        }
        Some(Self { at: here, ..self })
    }

    /// Counts the keys of at most `buckets` buckets, and returns with their number the rest of the walk, if
    /// there is one. The shard is held. Most of the keys are not even read.
    pub fn count(self, db: &Db<'_, '_>, buckets: usize) -> (usize, Option<Self>) {
        let keyspace = db.keyspace();
        let (mut here, mut count) = (self.at, 0);
        for _ in 0..buckets {
            let (all, next) = db.count_bucket(here);
            let is_whole = here != self.at && next.is_some_and(|next| next <= self.end);
            if is_whole || all == 0 {
                count += all;
            } else {
                db.visit_bucket(here, |entry| {
                    let position = keyspace.position_of(entry.key());
                    count += usize::from((self.at..self.end).contains(&position));
                });
            }
            match next {
                Some(next) if next < self.end => here = next,
                _ => return (count, None),
            }
        }
        (count, Some(Self { at: here, ..self }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::db::{Effects, Env, Ttl};
    use super::super::entry::NewValue;
    use super::super::shards::LockSet;
    use super::*;
    use crate::base::crc::{SLOTS, key_slot};

    fn with_db<T>(
        keyspace: &Keyspace,
        locks: LockSet<'_>,
        work: impl FnOnce(&mut Db<'_, '_>) -> T,
    ) -> T {
        let (mut locks, mut effects, env) = (locks, Effects::default(), Env::at(1));
        let mut db = Db::new(keyspace, &mut locks, &env, &mut effects, 0, &[]);
        work(&mut db)
    }

    fn keys_of(keyspace: &Keyspace, slot: u16, buckets: usize) -> Vec<Vec<u8>> {
        let (mut keys, mut walk) = (Vec::new(), Some(Walk::new(slot)));
        while let Some(at) = walk {
            let locks = LockSet::One(keyspace.lock(at.shard()));
            walk = with_db(keyspace, locks, |db| {
                at.slice(db, buckets, |entry| {
                    keys.push(entry.key().to_vec());
                    true
                })
            });
        }
        keys
    }

    fn count_of(keyspace: &Keyspace, slot: u16, buckets: usize) -> usize {
        let (mut count, mut walk) = (0, Some(Walk::new(slot)));
        while let Some(at) = walk {
            let locks = LockSet::One(keyspace.lock(at.shard()));
            let (more, rest) = with_db(keyspace, locks, |db| at.count(db, buckets));
            count += more;
            walk = rest;
        }
        count
    }

    #[test]
    fn each_slot_has_its_keys_and_no_others() {
        for keys in [10, 3_000, 100_000] {
            let keyspace = Keyspace::new(1, true);
            let mut expected: BTreeMap<u16, Vec<Vec<u8>>> = BTreeMap::new();
            // A third of them in one slot.
            for i in 0..keys {
                let key = match i % 3 {
                    0 => format!("{{tag}}{i}"),
                    _ => format!("key:{i}"),
                };
                let key = key.into_bytes();
                with_db(&keyspace, keyspace.lock_one(keyspace.hash(&key)), |db| {
                    db.put(&key, NewValue::Bytes(b"v"), Ttl::Clear);
                });
                expected.entry(key_slot(&key)).or_default().push(key);
            }
            for slot in 0..SLOTS {
                let mut wanted = expected.remove(&slot).unwrap_or_default();
                wanted.sort();
                for buckets in [1, 1000] {
                    let mut found = keys_of(&keyspace, slot, buckets);
                    found.sort();
                    assert_eq!(found, wanted, "slot {slot} of {keys} keys");
                    assert_eq!(count_of(&keyspace, slot, buckets), wanted.len());
                }
            }
        }
    }

    #[test]
    fn a_walk_ends_when_there_are_enough() {
        let keyspace = Keyspace::new(1, true);
        for i in 0..100 {
            let key = format!("{{tag}}{i}").into_bytes();
            with_db(&keyspace, keyspace.lock_one(keyspace.hash(&key)), |db| {
                db.put(&key, NewValue::Bytes(b"v"), Ttl::Clear);
            });
        }
        let (mut found, walk) = (0, Walk::new(key_slot(b"tag")));
        let rest = with_db(&keyspace, LockSet::One(keyspace.lock(walk.shard())), |db| {
            walk.slice(db, 1000, |_| {
                found += 1;
                found < 7
            })
        });
        assert!(rest.is_none());
        assert_eq!(found, 7);
    }
}
