//! Whole databases: walks, samples, and what empties or exchanges them.

use std::sync::Arc;

use super::{Db, EntryRef};
use crate::keyspace::cut::Cut;
use crate::keyspace::entry::Entry;
use crate::keyspace::event;
use crate::keyspace::lazyfree::{Detached, Load};
use crate::keyspace::shards::{Found, Keyspace, SHARDS};
use crate::keyspace::table::{Position, shard_of_position};

/// What [`Db::expire_bucket`] met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Met {
    /// Keys with an expiry.
    pub sampled: usize,
    /// Of them, those whose time was over.
    pub due: usize,
    /// Of the others, the time to live in milliseconds, in all.
    pub ttl_sum: i64,
}

/// Does a piece of [`Entry::settle`] for the key, whether or not its time is over, if it is there;
/// true while there is more to be done.
pub fn settle(keyspace: &Keyspace, db: usize, key: &[u8]) -> bool {
    let hash = keyspace.hash(key);
    let mut guard = keyspace.lock(Keyspace::shard_of(hash));
    let mut table = guard.table(db);
    let slot = table.find(hash, key);
    slot.is_some_and(|mut slot| slot.get_mut().settle())
}

/// Walks and samples: for SCAN, expiry and eviction.
impl Db<'_, '_> {
    /// Shows every entry of a bucket, expired or not, and returns where the next one begins;
    /// `None` at the end of the shard. The guarantee of SCAN holds, see
    /// [`crate::keyspace::table::View::visit_bucket`].
    pub fn visit_bucket(
        &self,
        position: Position,
        mut visit: impl FnMut(&Entry),
    ) -> Option<Position> {
        let shard = shard_of_position(position);
        let table = self.locks.view(shard, self.run.index)?;
        table.visit_bucket(position, |entry| visit(&entry))
    }

    /// How many entries a bucket has, expired or not, none of which is read; and where the next one begins.
    pub fn count_bucket(&self, position: Position) -> (usize, Option<Position>) {
        let shard = shard_of_position(position);
        match self.locks.view(shard, self.run.index) {
            Some(table) => table.count_bucket(position),
            None => (0, None),
        }
    }

    /// As [`Db::visit_bucket`], for entries with an expiry only; others are not even read.
    pub fn visit_volatile(
        &self,
        position: Position,
        mut visit: impl FnMut(&Entry),
    ) -> Option<Position> {
        let shard = shard_of_position(position);
        let table = self.locks.view(shard, self.run.index)?;
        table.visit_volatile(position, |entry| visit(&entry))
    }

    /// An entry of a shard by two random numbers, each equally likely; `None` when they hit none.
    pub fn random_entry(&self, shard: usize, random: u64, pick: u64) -> Option<EntryRef<'_>> {
        self.locks.view(shard, self.run.index)?.random(random, pick)
    }

    /// Removes the entries of a bucket whose time is over, as a lookup would, and returns where
    /// the next bucket begins.
    pub fn expire_bucket(&mut self, position: Position, met: &mut Met) -> Option<Position> {
        let shard = shard_of_position(position);
        let now_ms = self.run.env.now_ms;
        let arriving = &self.run.keyspace.arriving;
        let mut part = self.locks.shard(shard).part(self.run.index);
        part.table.visit_volatile_slots(position, |slot| {
            if arriving.hides(&slot.get()) {
                return;
            }
            met.sampled += 1;
            let expiry = slot.get().expiry();
            match expiry {
                Some(at) if at < now_ms => {
                    met.due += 1;
                    let state = &mut *part.state;
                    self.run.expire(Found { slot, state });
                }
                Some(at) => met.ttl_sum = met.ttl_sum.saturating_add(at - now_ms),
                None => {}
            }
        })
    }

    /// Removes a key to make room, if it is still there and `wanted`: announces it and raises its
    /// watchers. True when it was removed.
    pub fn evict(&mut self, key: &[u8], lazy: bool, wanted: impl FnOnce(&Entry) -> bool) -> bool {
        let hash = self.hash(key);
        let shard = self.locks.shard(Keyspace::shard_of(hash));
        let Some(found) = shard.part(self.run.index).find(hash, key) else {
            return false;
        };
        if !wanted(&found.slot.get()) {
            return false;
        }
        let entry = self.run.take(found);
        self.run.free(entry, lazy);
        self.touch(key);
        self.run.announce(key, event::ON_EVICTED);
        true
    }

    /// Empties a database of which all shards are held; each key counts as a change. They are freed
    /// after the locks, in the background when `lazy`.
    pub fn flush(&mut self, index: usize, lazy: bool) {
        let mut detached = Detached::default();
        let is_seen = index < self.run.keyspace.databases();
        for shard in 0..SHARDS {
            let guard = self.locks.shard(shard);
            guard.touch_replaced(index, None, self.run.env.now_ms);
            if is_seen {
                self.run.effects.forgotten.extend(guard.forget_tracked());
            }
            guard.detach(index, &mut detached);
            guard.signal_all(&[index], &mut self.run.effects.ready);
        }
        self.run.effects.dirty += detached.keys() as u64;
        if let Some(cut) = self.cut() {
            // It has not seen all of them yet; it frees them when it has.
            cut.keep(index, detached);
        } else if lazy {
            self.run.effects.lazy.push(Load::Keys(detached));
        } else {
            self.run.effects.detached.push(detached);
        }
        self.run.keyspace.expiry.forget(index);
        self.run.outdate_all(index);
    }

    /// The cut in progress, while all shards are held.
    fn cut(&mut self) -> Option<Arc<Cut>> {
        (0..SHARDS).find_map(|shard| self.locks.shard(shard).cut().cloned())
    }

    /// Exchanges two databases of which all shards are held, which counts as one change.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.run.effects.dirty += 1;
        if a == b {
            return;
        }
        let used = self.run.keyspace.is_used(a) || self.run.keyspace.is_used(b);
        if let Some(cut) = self.cut() {
            cut.swapped(a, b);
        }
        for shard in 0..SHARDS {
            let guard = self.locks.shard(shard);
            guard.touch_replaced(a, Some(b), self.run.env.now_ms);
            guard.touch_replaced(b, Some(a), self.run.env.now_ms);
            self.run.effects.forgotten.extend(guard.forget_tracked());
            if used {
                guard.swap(a, b);
                guard.signal_all(&[a, b], &mut self.run.effects.ready);
            }
        }
        self.run.keyspace.expiry.swap(a, b);
        self.run.outdate_all(a.min(b));
    }
}
