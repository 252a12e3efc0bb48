//! Giving memory back after deletions, a little at a time.
//!
//! Tables grow as keys come but are not shrunk where keys go: a deletion touches one bucket. This
//! walk follows behind, looks at each shard's number of keys, and has sparse segments shrunk and
//! joined (`super::table::Locked::tidy`) where keys have gone since the last visit. Each step
//! holds one lock for one segment.

use std::collections::HashMap;

use super::shards::{Keyspace, SHARDS};
use super::table::position_of_shard;
use crate::base::clock;

/// The state between runs, owned by the thread that runs them.
#[derive(Default)]
pub struct Tidy {
    db: usize,
    shard: usize,
    /// Number of keys of each shard when it was last tidied or, if greater, seen.
    known: HashMap<usize, Box<[usize]>>,
}

impl Tidy {
    /// Tidies for `budget_us` microseconds at most, or until every shard of every database was
    /// looked at once. True when something is left to do.
    pub fn run(&mut self, keyspace: &Keyspace, budget_us: u64) -> bool {
        let deadline = clock::mono_us() + budget_us;
        for _ in 0..keyspace.databases() {
            if keyspace.is_used(self.db) {
                for _ in self.shard..SHARDS {
                    if self.visit(keyspace) && clock::mono_us() > deadline {
                        self.next_shard(keyspace);
                        return true;
                    }
                    self.next_shard(keyspace);
                }
            } else {
                self.next_db(keyspace);
            }
        }
        false
    }

    fn next_shard(&mut self, keyspace: &Keyspace) {
        self.shard += 1;
        if self.shard == SHARDS {
            self.next_db(keyspace);
        }
    }

    fn next_db(&mut self, keyspace: &Keyspace) {
        self.shard = 0;
        self.db = (self.db + 1) % keyspace.databases();
    }

    /// Tidies the shard at the cursor if keys have gone; true when it did.
    fn visit(&mut self, keyspace: &Keyspace) -> bool {
        let known = self
            .known
            .entry(self.db)
            .or_insert_with(|| vec![0; SHARDS].into());
        let len = keyspace.shard_len(self.db, self.shard).0;
        let before = known[self.shard].max(len);
        known[self.shard] = before;
        let emptied = len == 0 && keyspace.owns_memory(self.db, self.shard);
        if !emptied && len >= before - before / 8 {
            return false;
        }
        known[self.shard] = len;
        tidy_shard(keyspace, self.db, self.shard);
        true
    }
}

/// Tidies a shard's part of a database, locking it for one segment at a time.
pub(super) fn tidy_shard(keyspace: &Keyspace, db: usize, shard: usize) {
    let mut position = Some(position_of_shard(shard));
    while let Some(here) = position {
        let Some(mut guard) = keyspace.lock_unclaimed(shard) else {
            return;
        };
        position = guard.table(db).tidy(here, &|key| keyspace.hash(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::{Entry, NewValue};

    #[test]
    fn deletions_give_memory_back() {
        let keyspace = Keyspace::new(2, false);
        let key = |i: u32| format!("key:{i}").into_bytes();
        for i in 0..200_000 {
            let hash = keyspace.hash(&key(i));
            let entry = Entry::new(&key(i), NewValue::Int(0), None, 0);
            let mut guard = keyspace.lock(Keyspace::shard_of(hash));
            guard
                .table(1)
                .insert(hash, entry, &|key| keyspace.hash(key));
        }
        let footprint = || keyspace.footprint(1).1;
        let mut tidy = Tidy::default();
        assert!(!tidy.run(&keyspace, 1_000_000));
        let full = footprint();
        let remove = |range: std::ops::Range<u32>| {
            for i in range {
                let hash = keyspace.hash(&key(i));
                let mut guard = keyspace.lock(Keyspace::shard_of(hash));
                let mut table = guard.table(1);
                let slot = table.find(hash, &key(i)).expect("inserted");
                drop(slot.remove());
            }
        };
        remove(0..190_000);
        while tidy.run(&keyspace, 100) {}
        while tidy.run(&keyspace, 100) {}
        assert!(footprint() < full / 5, "{} of {full}", footprint());
        assert!((190_000..200_000).all(|i| {
            let hash = keyspace.hash(&key(i));
            let mut guard = keyspace.lock(Keyspace::shard_of(hash));
            guard.table(1).find(hash, &key(i)).is_some()
        }));
        remove(190_000..200_000);
        while tidy.run(&keyspace, 100) {}
        while tidy.run(&keyspace, 100) {}
        assert_eq!(footprint(), 0);
    }
}
