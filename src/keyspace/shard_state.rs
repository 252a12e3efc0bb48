//! What a shard's lock guards beside its tables: who watches its keys, who waits for them, the cut
//! that has still to pass, and which hashes have fields that will expire.
//!
//! Plain data. It knows keys by name and sees no entry; [`super::shards`] locks it, lends it with the
//! guard, and says what became of a key.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cut::Cut;
use super::due::{TimedCounts, TimedHashes};
use super::tracked::{Forgotten, Stale, TrackedCounts, TrackedKeys};

/// What WATCH leaves with a key: raised when the key changes.
pub type WatchFlag = Arc<AtomicBool>;

/// One client that watches a key.
struct Watcher {
    flag: WatchFlag,
    /// The key had expired already, so that its removal is no change to the client.
    expired: bool,
}

/// What a shard's lock guards beside its tables.
///
/// In this order, so that what every command reads lies beside the lock.
#[derive(Default)]
#[repr(C)]
pub struct ShardState {
    /// Somebody watches or waits for a key, or a cut has not passed: a change concerns others.
    observed: bool,
    /// The epoch of the shard's entries: those of the other one were not seen by the cut.
    epoch: bool,
    /// Who watches which key of which database.
    watched: HashMap<(usize, Box<[u8]>), Vec<Watcher>>,
    /// The cut in progress that has not passed the shard.
    cut: Option<Arc<Cut>>,
    /// Who waits for which key of which database: tickets, the oldest first.
    waiting: HashMap<(usize, Box<[u8]>), VecDeque<u64>>,
    /// Which hashes have fields that will expire.
    timed: TimedHashes,
    /// Who keeps copies of which key.
    tracked: TrackedKeys,
}

impl ShardState {
    /// To be called after each change of what `observed` tells of.
    fn renew_observed(&mut self) {
        self.observed = self.cut.is_some()
            || !self.watched.is_empty()
            || !self.waiting.is_empty()
            || self.tracked.is_any();
    }

    /// Notes when the first field of a hash expires; `None` when no field does, or the hash is gone.
    /// `counts` are of all shards.
    pub(super) fn note_timed(
        &mut self,
        counts: &TimedCounts,
        db: usize,
        key: &[u8],
        next: Option<i64>,
    ) {
        if next.is_some() || !self.timed.is_empty() {
            let before = self.timed.len();
            self.timed.note(db, key, next);
            counts.count(db, before, self.timed.len());
        }
    }

    /// Tells those who watch a key that it went. That is no change to who met it expired already;
    /// from now on it is absent to them as well.
    pub(super) fn touch_gone(&mut self, db: usize, key: &[u8]) {
        if !self.watched.is_empty() {
            self.raise(db, key, true);
        }
    }

    pub(super) fn raise(&mut self, db: usize, key: &[u8], gone: bool) {
        // A change while keys are watched is rare enough for the copy that the lookup needs.
        for watcher in self
            .watched
            .get_mut(&(db, key.into()))
            .into_iter()
            .flatten()
        {
            match watcher.expired {
                true => watcher.expired = !gone,
                false => watcher.flag.store(true, Ordering::Relaxed),
            }
        }
    }

    /// The epoch of entries that the cut has seen or that came after it.
    #[inline]
    pub(super) fn epoch(&self) -> bool {
        self.epoch
    }

    /// The cut that has not passed the shard yet.
    #[inline]
    pub(super) fn cut(&self) -> Option<&Arc<Cut>> {
        self.cut.as_ref()
    }

    /// True when anybody waits for a key of the shard.
    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// True when anybody waits for a key.
    pub(super) fn is_awaited(&self, place: &(usize, Box<[u8]>)) -> bool {
        self.waiting.contains_key(place)
    }

    /// A hash (database, key) of which a field is due, as far as is noted.
    pub(super) fn due_hash(&self, now_ms: i64) -> Option<(usize, Box<[u8]>)> {
        self.timed.due(now_ms)
    }

    /// Forgets the hashes of a database that is emptied.
    pub(super) fn forget_timed(&mut self, counts: &TimedCounts, db: usize) {
        let before = self.timed.len();
        self.timed.forget_database(db);
        counts.count(db, before, self.timed.len());
    }

    /// Exchanges what is noted of the hashes of two databases.
    pub(super) fn swap_timed(&mut self, counts: &TimedCounts, a: usize, b: usize) {
        if self.timed.is_empty() {
            return;
        }
        let (of_a, of_b) = (self.timed.len_of(a), self.timed.len_of(b));
        self.timed.swap(a, b);
        counts.count(a, of_a, of_b);
        counts.count(b, of_b, of_a);
    }

    /// True when a change in the shard concerns others than who makes it.
    #[inline]
    pub(super) fn is_observed(&self) -> bool {
        self.observed
    }

    /// True when anybody watches a key of the shard.
    #[inline]
    pub(super) fn has_watchers(&self) -> bool {
        !self.watched.is_empty()
    }

    /// Raises the flags of those who watch a key of database `emptied` that is there now or will
    /// be once another database's contents stand in its place. A key whose time is over counts as
    /// absent to those who met it so. `look` tells of a key whether it is there `before` and `after`,
    /// and whether its time is over.
    pub(super) fn raise_replaced(
        &mut self,
        emptied: usize,
        mut look: impl FnMut(&[u8]) -> (Option<bool>, Option<bool>),
    ) {
        for ((db, key), watchers) in &mut self.watched {
            if *db != emptied {
                continue;
            }
            let (before, after) = look(key);
            if before.is_none() && after.is_none() {
                continue;
            }
            for watcher in watchers {
                match (watcher.expired, after) {
                    (true, None) => watcher.expired = false,
                    (true, Some(true)) => {}
                    (false, Some(true)) if before.is_none() => watcher.expired = true,
                    _ => watcher.flag.store(true, Ordering::Relaxed),
                }
            }
        }
    }

    /// Adds a watcher of a key, of which it says whether it has `expired` already.
    pub fn watch(&mut self, db: usize, key: &[u8], flag: &WatchFlag, expired: bool) {
        let watchers = self.watched.entry((db, key.into())).or_default();
        if !watchers.iter().any(|w| Arc::ptr_eq(&w.flag, flag)) {
            watchers.push(Watcher {
                flag: Arc::clone(flag),
                expired,
            });
        }
        self.renew_observed();
    }

    /// True when a watcher of a key knows it as expired.
    pub fn watched_as_expired(&self, db: usize, key: &[u8], flag: &WatchFlag) -> bool {
        let watchers = self.watched.get(&(db, key.into()));
        watchers
            .into_iter()
            .flatten()
            .any(|w| w.expired && Arc::ptr_eq(&w.flag, flag))
    }

    /// Removes a watcher of a key.
    pub fn unwatch(&mut self, db: usize, key: &[u8], flag: &WatchFlag) {
        let place = (db, Box::from(key));
        if let Some(flags) = self.watched.get_mut(&place) {
            flags.retain(|w| !Arc::ptr_eq(&w.flag, flag));
            if flags.is_empty() {
                self.watched.remove(&place);
            }
        }
        if self.watched.is_empty() {
            self.watched.shrink_to_fit();
        }
        self.renew_observed();
    }
}

/// Those who keep copies of keys.
impl ShardState {
    /// True when a change may concern anybody who keeps copies.
    #[inline]
    pub(super) fn has_trackers(&self) -> bool {
        self.tracked.is_any()
    }

    pub(super) fn track(&mut self, counts: &TrackedCounts, shard: usize, key: &[u8], client: u64) {
        self.tracked.add(counts, shard, key, client);
        self.observed = true;
    }

    pub(super) fn take_stale(
        &mut self,
        counts: &TrackedCounts,
        shard: usize,
        key: &[u8],
        cause: u64,
    ) -> Option<Stale> {
        let stale = self.tracked.take(counts, shard, key, cause);
        self.renew_observed();
        stale
    }

    pub(super) fn take_random_stale(
        &mut self,
        counts: &TrackedCounts,
        shard: usize,
    ) -> Option<Stale> {
        let stale = self.tracked.take_random(counts, shard);
        self.renew_observed();
        stale
    }

    pub(super) fn forget_tracked(&mut self, counts: &TrackedCounts, shard: usize) -> Forgotten {
        let forgotten = self.tracked.forget(counts, shard);
        self.renew_observed();
        forgotten
    }

    /// Somebody follows prefixes of keys, or nobody does any more.
    pub fn set_broadcasts(&mut self, broadcasts: bool) {
        self.tracked.set_broadcasts(broadcasts);
        self.renew_observed();
    }
}

/// What a cut needs of a shard.
impl ShardState {
    pub(super) fn begin_cut(&mut self, cut: Arc<Cut>) {
        debug_assert!(self.cut.is_none(), "one cut at a time");
        self.epoch = !self.epoch;
        self.cut = Some(cut);
        self.renew_observed();
    }

    pub(super) fn end_cut(&mut self) {
        debug_assert!(self.cut.is_some(), "ended once, after it began");
        self.cut = None;
        self.renew_observed();
    }
}

/// Those who wait for keys.
impl ShardState {
    /// Enters a ticket in the queue of a key, once.
    pub fn wait(&mut self, db: usize, key: &[u8], ticket: u64) {
        let queue = self.waiting.entry((db, key.into())).or_default();
        if queue.back() != Some(&ticket) {
            queue.push_back(ticket);
        }
        self.renew_observed();
    }

    /// Takes a ticket out of the queue of a key, if it is there.
    pub fn unwait(&mut self, db: usize, key: &[u8], ticket: u64) {
        let place = (db, Box::from(key));
        if let Some(queue) = self.waiting.get_mut(&place) {
            if let Some(at) = queue.iter().position(|t| *t == ticket) {
                queue.remove(at);
            }
            if queue.is_empty() {
                self.waiting.remove(&place);
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        self.renew_observed();
    }

    /// The tickets that wait for a key, the oldest first.
    pub fn waiters(&self, db: usize, key: &[u8]) -> Vec<u64> {
        let queue = self.waiting.get(&(db, key.into()));
        queue.into_iter().flatten().copied().collect()
    }

    /// Adds every awaited key of some databases to `ready`.
    pub fn signal_all(&self, dbs: &[usize], ready: &mut Vec<(usize, Box<[u8]>)>) {
        let places = self.waiting.keys();
        ready.extend(places.filter(|(db, _)| dbs.contains(db)).cloned());
    }
}
