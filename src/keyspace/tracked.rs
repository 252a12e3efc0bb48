//! Keys that clients keep copies of, and who is to be told when one changes.
//!
//! Each shard holds, under its lock, which clients have read which of its keys, by names that are the same
//! in all databases. A change takes the key out and leaves word in the outbox: whoever reads the key again
//! is entered again. Clients stand here by id; one that went is found out when it is to be told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use smallvec::SmallVec;

use crate::base::random;

/// Clients by id.
pub type Trackers = SmallVec<[u64; 2]>;

/// A key that changed, and who had read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Stale {
    /// The key.
    pub key: Box<[u8]>,
    /// Who is to be told.
    pub trackers: Trackers,
    /// Those are to be told as well who follow prefixes.
    pub broadcasts: bool,
    /// A client that changed it and does not want to hear of that; 0: none.
    pub cause: u64,
}

type Keys = HashMap<Box<[u8]>, Trackers, foldhash::fast::RandomState>;

/// What a shard knew before all copies were said to be old: to be freed without its lock.
pub(super) struct Forgotten(#[allow(dead_code, reason = "it is there to be freed")] Keys);

/// What a shard knows.
#[derive(Default)]
pub(super) struct TrackedKeys {
    keys: Keys,
    /// Somebody follows prefixes, and is to be told of each change.
    broadcasts: bool,
}

/// How many keys and clients all shards hold.
pub struct TrackedCounts {
    /// Clients that keep copies of anything.
    pub clients: AtomicUsize,
    keys: AtomicUsize,
    items: AtomicUsize,
    /// Keys, by shard.
    by_shard: Box<[AtomicU32]>,
}

impl TrackedCounts {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            clients: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            by_shard: (0..shards).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Number of keys.
    pub fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    /// Number of clients of all keys.
    pub fn items(&self) -> usize {
        self.items.load(Relaxed)
    }

    /// A random shard, or one close behind it, that holds keys.
    pub fn random_shard(&self) -> Option<usize> {
        let start = random::below(self.by_shard.len());
        let from = (start..self.by_shard.len()).chain(0..start);
        from.into_iter()
            .find(|shard| self.by_shard[*shard].load(Relaxed) > 0)
    }

    fn left(&self, shard: usize, keys: usize, items: usize) {
        self.keys.fetch_sub(keys, Relaxed);
        self.items.fetch_sub(items, Relaxed);
        self.by_shard[shard].fetch_sub(keys as u32, Relaxed);
    }
}

impl TrackedKeys {
    /// True when a change may concern anybody.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        self.broadcasts || !self.keys.is_empty()
    }

    pub(super) fn set_broadcasts(&mut self, broadcasts: bool) {
        self.broadcasts = broadcasts;
    }

    /// Enters a client for a key.
    pub(super) fn add(&mut self, counts: &TrackedCounts, shard: usize, key: &[u8], client: u64) {
        if let Some(trackers) = self.keys.get_mut(key) {
            if !trackers.contains(&client) {
                trackers.push(client);
                counts.items.fetch_add(1, Relaxed);
            }
            return;
        }
        self.keys
            .insert(key.into(), Trackers::from_slice(&[client]));
        counts.keys.fetch_add(1, Relaxed);
        counts.items.fetch_add(1, Relaxed);
        counts.by_shard[shard].fetch_add(1, Relaxed);
    }

    /// A key changes: who is to be told, if anybody is.
    pub(super) fn take(
        &mut self,
        counts: &TrackedCounts,
        shard: usize,
        key: &[u8],
        cause: u64,
    ) -> Option<Stale> {
        let known = self.keys.remove_entry(key);
        if let Some((_, trackers)) = &known {
            counts.left(shard, 1, trackers.len());
        }
        let broadcasts = self.broadcasts;
        (broadcasts || known.is_some()).then(|| {
            let (key, trackers) = known.unwrap_or_else(|| (key.into(), Trackers::new()));
            Stale {
                key,
                trackers,
                broadcasts,
                cause,
            }
        })
    }

    /// A random key to be forgotten: who has read it is told as if it had changed.
    pub(super) fn take_random(&mut self, counts: &TrackedCounts, shard: usize) -> Option<Stale> {
        let skip = random::below(self.keys.len());
        let key = self.keys.keys().nth(skip)?.clone();
        let stale = self.take(counts, shard, &key, 0)?;
        Some(Stale {
            broadcasts: false,
            ..stale
        })
    }

    /// All keys go at once: their clients are told otherwise.
    pub(super) fn forget(&mut self, counts: &TrackedCounts, shard: usize) -> Forgotten {
        let items = self.keys.values().map(|trackers| trackers.len()).sum();
        counts.left(shard, self.keys.len(), items);
        Forgotten(std::mem::take(&mut self.keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_once_for_each_time_they_read() {
        let (counts, mut tracked) = (TrackedCounts::new(1), TrackedKeys::default());
        assert!(!tracked.is_any() && tracked.take(&counts, 0, b"a", 0).is_none());
        for (key, client) in [(b"a", 1), (b"a", 2), (b"a", 1), (b"b", 1)] {
            tracked.add(&counts, 0, key, client);
        }
        assert_eq!((counts.keys(), counts.items()), (2, 3));
        assert_eq!(counts.random_shard(), Some(0));
        let stale = tracked.take(&counts, 0, b"a", 7).expect("two read it");
        assert_eq!((&stale.trackers[..], stale.cause), (&[1, 2][..], 7));
        assert!(tracked.take(&counts, 0, b"a", 0).is_none());
        let evicted = tracked.take_random(&counts, 0).expect("one is left");
        assert_eq!(
            (&*evicted.key, &evicted.trackers[..]),
            (&b"b"[..], &[1][..])
        );
        assert_eq!(
            (counts.keys(), counts.items(), tracked.is_any()),
            (0, 0, false)
        );
        tracked.set_broadcasts(true);
        let stale = tracked
            .take(&counts, 0, b"c", 0)
            .expect("prefixes are followed");
        assert!(stale.broadcasts && stale.trackers.is_empty());
        tracked.add(&counts, 0, b"d", 1);
        tracked.forget(&counts, 0);
        assert_eq!((counts.keys(), counts.random_shard()), (0, None));
    }
}
