//! Whole databases: walks, samples, and what empties or exchanges them.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Db, EntryRef, borrow};
use crate::keyspace::cut::Cut;
use crate::keyspace::entry::Entry;
use crate::keyspace::event;
use crate::keyspace::lazyfree::{Detached, Load};
use crate::keyspace::shards::{Keyspace, SHARDS};
use crate::keyspace::table::{Position, Slot, TableEntry, hash_of_shard, shard_of_position};

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
    let table = guard.table(db);
    let Some(slot) = table.find(hash, key) else {
        return false;
    };
    // SAFETY: found under the lock, which `guard` holds exclusively; never dropped, the slot keeps
    // its ownership. The entry stays where it is.
    ManuallyDrop::new(unsafe { Entry::from_raw(slot.pointer()) }).settle()
}

/// Walks and samples: for SCAN, expiry and eviction.
impl Db<'_, '_> {
    /// Shows every entry of a bucket, expired or not, and returns where the next one begins;
    /// `None` at the end of the shard. The guarantee of SCAN holds, see
    /// [`crate::keyspace::table::Locked::visit_bucket`].
    pub fn visit_bucket(
        &self,
        position: Position,
        mut visit: impl FnMut(&Entry),
    ) -> Option<Position> {
        let table = self
            .locks
            .table_ref(shard_of_position(position), self.index)?;
        table.visit_bucket(position, |raw, _| {
            // SAFETY: visited entries are alive; the shared borrow of `self` keeps changes out.
            visit(&*unsafe { borrow(raw) });
        })
    }

    /// As [`Db::visit_bucket`], for entries with an expiry only; others are not even read.
    pub fn visit_volatile(
        &self,
        position: Position,
        mut visit: impl FnMut(&Entry),
    ) -> Option<Position> {
        let table = self
            .locks
            .table_ref(shard_of_position(position), self.index)?;
        table.volatile_in_bucket(position, |slot| {
            // SAFETY: visited slots are in use; the shared borrow of `self` keeps changes out.
            visit(&*unsafe { borrow(slot.pointer()) });
        })
    }

    /// An entry of a shard by two random numbers, each equally likely; `None` when they hit none.
    pub fn random_entry(&self, shard: usize, random: u64, pick: u64) -> Option<EntryRef<'_>> {
        let table = self.locks.table_ref(shard, self.index)?;
        let raw = table.random_slot(random, pick)?;
        // SAFETY: the slot is in use; the shared borrow of `self` keeps changes out.
        Some(unsafe { borrow(raw) })
    }

    /// Removes the entries of a bucket whose time is over, as a lookup would, and returns where
    /// the next bucket begins.
    pub fn expire_bucket(&mut self, position: Position, met: &mut Met) -> Option<Position> {
        let shard = shard_of_position(position);
        let table = self.locks.table_ref(shard, self.index)?;
        let mut slots: SmallVec<[Slot; 32]> = SmallVec::new();
        let next = table.volatile_in_bucket(position, |slot| slots.push(slot));
        for slot in slots {
            met.sampled += 1;
            // SAFETY: the slots are in use: removing one moves no other.
            let expiry = unsafe { borrow(slot.pointer()) }.expiry();
            match expiry {
                Some(at) if at < self.env.now_ms => {
                    met.due += 1;
                    // Only the shard's bits of the hash are used to remove by slot.
                    self.expire_slot(hash_of_shard(shard), slot);
                }
                Some(at) => met.ttl_sum = met.ttl_sum.saturating_add(at - self.env.now_ms),
                None => {}
            }
        }
        next
    }

    /// Removes a key to make room, if it is still there and `wanted`: announces it and raises its
    /// watchers. True when it was removed.
    pub fn evict(&mut self, key: &[u8], lazy: bool, wanted: impl FnOnce(&Entry) -> bool) -> bool {
        let hash = self.hash(key);
        let Some(slot) = self.table(hash).find(hash, key) else {
            return false;
        };
        // SAFETY: found under the lock that `self` holds.
        if !wanted(&*unsafe { borrow(slot.pointer()) }) {
            return false;
        }
        let entry = self.take_slot(hash, slot);
        self.free(entry, lazy);
        self.touch(key);
        self.announce(key, event::ON_EVICTED);
        true
    }

    /// Empties a database of which all shards are held; returns the number of keys removed, which
    /// are freed after the locks, in the background when `lazy`.
    pub fn flush(&mut self, index: usize, lazy: bool) -> usize {
        let mut detached = Detached::default();
        for shard in 0..SHARDS {
            let guard = self.locks.shard(shard);
            guard.touch_replaced(index, None, self.env.now_ms);
            guard.detach(index, &mut detached);
            guard.signal_all(&[index], &mut self.effects.ready);
        }
        let keys = detached.keys();
        if let Some(cut) = self.cut() {
            // It has not seen all of them yet; it frees them when it has.
            cut.keep(index, detached);
        } else if lazy {
            self.effects.lazy.push(Load::Keys(detached));
        } else {
            self.effects.detached.push(detached);
        }
        self.keyspace.expiry.forget(index);
        keys
    }

    /// The cut in progress, while all shards are held.
    fn cut(&mut self) -> Option<Arc<Cut>> {
        (0..SHARDS).find_map(|shard| self.locks.shard(shard).cut().cloned())
    }

    /// Exchanges two databases of which all shards are held.
    pub fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let used = self.keyspace.is_used(a) || self.keyspace.is_used(b);
        if let Some(cut) = self.cut() {
            cut.swapped(a, b);
        }
        for shard in 0..SHARDS {
            let guard = self.locks.shard(shard);
            guard.touch_replaced(a, Some(b), self.env.now_ms);
            guard.touch_replaced(b, Some(a), self.env.now_ms);
            if used {
                guard.swap(a, b);
                guard.signal_all(&[a, b], &mut self.effects.ready);
            }
        }
        self.keyspace.expiry.swap(a, b);
    }

    /// The keyspace, for counts and positions.
    pub fn keyspace(&self) -> &Keyspace {
        self.keyspace
    }
}
