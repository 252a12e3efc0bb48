//! Walks over a database's keys: SCAN, KEYS, RANDOMKEY.
//!
//! A walk goes in hash order, shard by shard. Under a lock it only copies the keys of a bounded
//! slice of buckets; matching and formatting follow without the lock. A position counts as passed
//! with everything before it: however segments split and merge between two slices, a key that
//! stays is seen, and none is seen twice by one walk.

use super::db::Db;
use super::entry::Entry;
use super::shards::{Keyspace, SHARDS};
use super::table::{Position, position_of_shard, shard_of_position};
use crate::base::random;
use crate::types::Type;

/// Most buckets walked under one lock.
pub const SLICE: usize = 64;
/// Random places of a shard tried before its keys are counted through.
const TRIES: usize = 64;

/// The first position at or after `from` in a shard that has keys; `None` when there is none.
pub fn seek(keyspace: &Keyspace, db: usize, from: Position) -> Option<Position> {
    let first = shard_of_position(from);
    if first < SHARDS && keyspace.shard_len(db, first).0 > 0 {
        return Some(from);
    }
    let mut later = first.saturating_add(1)..SHARDS;
    later
        .find(|&shard| keyspace.shard_len(db, shard).0 > 0)
        .map(position_of_shard)
}

/// Keys copied from a slice, one after the other in one buffer.
#[derive(Default)]
pub struct Found {
    bytes: Vec<u8>,
    keys: Vec<Key>,
}

#[derive(Clone, Copy)]
struct Key {
    end: usize,
    kind: Type,
    expired: bool,
}

impl Found {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Forgets the keys, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.keys.clear();
    }

    /// Every key, with its type and whether its time was over.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Type, bool)> {
        let mut start = 0;
        self.keys.iter().map(move |key| {
            let bytes = &self.bytes[start..key.end];
            start = key.end;
            (bytes, key.kind, key.expired)
        })
    }

    fn add(&mut self, entry: &Entry, now_ms: i64) {
        self.bytes.extend_from_slice(entry.key());
        self.keys.push(Key {
            end: self.bytes.len(),
            kind: entry.kind(),
            expired: entry.expiry().is_some_and(|at| at < now_ms),
        });
    }
}

/// Adds the keys of some buckets from `at` on: at most `buckets`, no further than to the end of the
/// shard, and no further than until there are `enough`. Returns where to go on in this shard, if it
/// goes on, and the number of buckets.
pub fn slice(
    db: &Db<'_, '_>,
    at: Position,
    buckets: usize,
    enough: usize,
    found: &mut Found,
) -> (Option<Position>, usize) {
    let now_ms = db.now_ms();
    let keyspace = db.keyspace();
    let (mut position, mut steps) = (Some(at), 0);
    while let Some(here) = position
        && steps < buckets
        && found.len() < enough
    {
        // Buckets may have been cut differently since `at` was given: the first one may begin
        // before it, with keys that were seen.
        let partly = here == at && at != position_of_shard(shard_of_position(at));
        position = db.visit_bucket(here, |entry| {
            let is_new = !partly || keyspace.position_of(entry.key()) >= at;
            if is_new && !keyspace.arriving.hides(entry) {
                found.add(entry, now_ms);
            }
        });
        steps += 1;
    }
    (position, steps)
}

/// A shard, in proportion to its number of keys; `None` when the database is empty.
pub fn random_shard(keyspace: &Keyspace, db: usize) -> Option<usize> {
    let lens = || (0..SHARDS).map(|shard| keyspace.shard_len(db, shard).0);
    let mut rank = random::below(lens().sum());
    let mut last = None;
    for (shard, len) in lens().enumerate() {
        if len > 0 {
            last = Some(shard);
            if rank < len {
                return last;
            }
            rank -= len;
        }
    }
    last
}

/// A random key of a shard, expired or not, each equally likely; `None` when it is empty.
pub fn random_key(db: &Db<'_, '_>, shard: usize) -> Option<Box<[u8]>> {
    for _ in 0..TRIES {
        if let Some(entry) = db.random_entry(shard, random::bits(), random::bits()) {
            return Some(entry.key().into());
        }
    }
    let mut rank = random::below(db.keyspace().shard_len(db.index(), shard).0);
    let mut chosen: Option<Box<[u8]>> = None;
    let mut position = Some(position_of_shard(shard));
    while let Some(here) = position
        && chosen.is_none()
    {
        position = db.visit_bucket(here, |entry| {
            if rank == 0 {
                chosen = Some(entry.key().into());
            }
            rank = rank.wrapping_sub(1);
        });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::db::{Effects, Env, Ttl};
    use crate::keyspace::entry::NewValue;
    use crate::keyspace::shards::LockSet;
    use std::collections::{HashMap, HashSet};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    fn with_db<R>(
        keyspace: &Keyspace,
        locks: LockSet<'_>,
        work: impl FnOnce(&mut Db<'_, '_>) -> R,
    ) -> R {
        let (mut locks, mut effects) = (locks, Effects::default());
        let none = &[];
        work(&mut Db::new(
            keyspace,
            &mut locks,
            &Env::at(1000),
            &mut effects,
            0,
            none,
        ))
    }

    fn put(keyspace: &Keyspace, key: &[u8]) {
        with_db(keyspace, keyspace.lock_one(keyspace.hash(key)), |db| {
            db.put(key, NewValue::Int(1), Ttl::Clear)
        });
    }

    fn remove(keyspace: &Keyspace, key: &[u8]) {
        with_db(keyspace, keyspace.lock_one(keyspace.hash(key)), |db| {
            db.remove(key)
        });
    }

    fn walk(keyspace: &Keyspace, count: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut next = seek(keyspace, 0, 0);
        while let Some(at) = next {
            let mut found = Found::default();
            let shard = shard_of_position(at);
            let locks = LockSet::One(keyspace.lock(shard));
            let (position, _) = with_db(keyspace, locks, |db| {
                slice(db, at, SLICE, count, &mut found)
            });
            all.extend(found.iter().map(|(key, _, _)| key.to_vec()));
            let on = position.unwrap_or(position_of_shard(shard + 1));
            assert!(on > at && on < 1 << 53);
            next = seek(keyspace, 0, on);
        }
        all
    }

    #[test]
    fn walks_see_what_stays_once_while_others_write() {
        for by_slot in [false, true] {
            let keyspace = Keyspace::new(1, by_slot);
            // One hash slot gets most keys, so that its shard is deep.
            let name = |i: usize| {
                let tag = if i.is_multiple_of(4) { i } else { 7 };
                format!("{{{tag}}}key:{i}").into_bytes()
            };
            (0..3000).for_each(|i| put(&keyspace, &name(i)));
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let (keyspace, stop) = (&keyspace, &stop);
                for worker in 0..2 {
                    scope.spawn(move || {
                        let mut tidy = crate::keyspace::tidy::Tidy::default();
                        while !stop.load(Relaxed) {
                            let range = || (3000 + worker * 5000)..(8000 + worker * 5000);
                            range().for_each(|i| put(keyspace, &name(i)));
                            range().for_each(|i| remove(keyspace, &name(i)));
                            tidy.run(keyspace, 100_000);
                        }
                    });
                }
                for count in [1, 10, 100, 10, 1] {
                    let seen = walk(keyspace, count);
                    let mut times: HashMap<&[u8], usize> = HashMap::new();
                    seen.iter()
                        .for_each(|key| *times.entry(key).or_default() += 1);
                    for i in 0..3000 {
                        assert_eq!(times.get(&name(i)[..]), Some(&1), "{i}");
                    }
                }
                stop.store(true, Relaxed);
            });
        }
    }

    #[test]
    fn random_keys_are_fair_over_shards_of_unequal_size() {
        for by_slot in [false, true] {
            let keyspace = Keyspace::new(1, by_slot);
            let name = |i: usize| {
                let tag = if i.is_multiple_of(3) { i } else { 1 };
                format!("{{{tag}}}key:{i}").into_bytes()
            };
            let keys = 2000;
            (0..keys).for_each(|i| put(&keyspace, &name(i)));
            let mut times: HashMap<Box<[u8]>, f64> = HashMap::new();
            let draws = 100 * keys;
            for _ in 0..draws {
                let shard = random_shard(&keyspace, 0).expect("keys are there");
                let locks = LockSet::One(keyspace.lock(shard));
                let key = with_db(&keyspace, locks, |db| random_key(db, shard));
                *times.entry(key.expect("not empty")).or_default() += 1.0;
            }
            assert_eq!(times.len(), keys);
            let square = |n: &f64| (n - 100.0) * (n - 100.0) / 100.0;
            let chi: f64 = times.values().map(square).sum::<f64>() / keys as f64;
            // 1 for a fair choice, with a deviation of 0.03.
            println!("chi square by degree of freedom: {chi:.3}");
            assert!(chi < 1.6, "{chi}");
        }
    }

    #[test]
    fn empty_databases_have_nothing_to_walk() {
        let keyspace = Keyspace::new(1, false);
        assert_eq!(
            (seek(&keyspace, 0, 0), random_shard(&keyspace, 0)),
            (None, None)
        );
        put(&keyspace, b"k");
        let at = seek(&keyspace, 0, 0).expect("one key");
        assert_eq!(
            seek(&keyspace, 0, position_of_shard(shard_of_position(at) + 1)),
            None
        );
        assert_eq!(seek(&keyspace, 0, u64::MAX), None);
        let all: HashSet<Vec<u8>> = walk(&keyspace, 10).into_iter().collect();
        assert_eq!(all.len(), 1);
    }
}
