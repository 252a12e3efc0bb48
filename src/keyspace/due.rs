//! What is known of expiries before anything expires: the figures that cycles learn, and which
//! hashes have fields that will.
//!
//! Plain data, kept by [`super::shards`]; what acts on it is [`super::expiry`] and
//! [`super::field_expiry`].

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What cycles found out, for INFO.
pub struct Figures {
    /// Estimated share of stale keys among those with an expiry: the bits of an `f64`.
    stale: AtomicU64,
    /// Average time to live by database, in milliseconds.
    average_ttl: Box<[AtomicI64]>,
}

impl Figures {
    pub(super) fn new(databases: usize) -> Self {
        Self {
            stale: AtomicU64::new(0),
            average_ttl: (0..databases).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    /// Estimated share, 0 to 1, of keys that are over but not removed (`expired_stale_perc` is
    /// this in percent).
    pub fn stale(&self) -> f64 {
        f64::from_bits(self.stale.load(Relaxed))
    }

    /// Average time to live of a database's keys in milliseconds; 0 when unknown.
    pub fn average_ttl(&self, db: usize) -> i64 {
        self.average_ttl[db].load(Relaxed)
    }

    pub(super) fn forget(&self, db: usize) {
        self.average_ttl[db].store(0, Relaxed);
    }

    pub(super) fn swap(&self, a: usize, b: usize) {
        let first = self.average_ttl[a].load(Relaxed);
        let second = self.average_ttl[b].swap(first, Relaxed);
        self.average_ttl[a].store(second, Relaxed);
    }

    pub(super) fn learn_ttl(&self, db: usize, sample: i64) {
        let old = match self.average_ttl[db].load(Relaxed) {
            0 => sample,
            known => known,
        };
        self.average_ttl[db].store(old / 50 * 49 + sample / 50, Relaxed);
    }

    pub(super) fn learn_stale(&self, sample: f64) {
        let mixed = sample * 0.05 + self.stale() * 0.95;
        self.stale.store(mixed.to_bits(), Relaxed);
    }
}

/// How many hashes have fields with an expiry, over all shards: readable without their locks.
pub struct TimedCounts {
    all: AtomicUsize,
    of: Box<[AtomicUsize]>,
}

impl TimedCounts {
    /// For so many databases.
    pub fn new(databases: usize) -> Self {
        Self {
            all: AtomicUsize::new(0),
            of: (0..databases).map(|_| AtomicUsize::new(0)).collect(),
        }
    }

    /// Of all databases; a recent value.
    #[inline]
    pub fn all(&self) -> usize {
        self.all.load(Relaxed)
    }

    /// Of one database; a recent value.
    pub fn of(&self, db: usize) -> usize {
        self.of[db].load(Relaxed)
    }

    /// In a shard's part of a database there were `before` and are `now`.
    pub fn count(&self, db: usize, before: usize, now: usize) {
        if now != before {
            self.all.fetch_add(now.wrapping_sub(before), Relaxed);
            self.of[db].fetch_add(now.wrapping_sub(before), Relaxed);
        }
    }
}

/// The hashes of a shard that have fields with an expiry.
#[derive(Default)]
pub struct TimedHashes {
    next: HashMap<(usize, Box<[u8]>), i64>,
    /// The same, in order.
    order: BTreeSet<(i64, usize, Box<[u8]>)>,
}

impl TimedHashes {
    /// Number of hashes.
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// Number of hashes of a database, by a walk over all.
    pub fn len_of(&self, db: usize) -> usize {
        self.next.keys().filter(|(of, _)| *of == db).count()
    }

    /// True without any.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Notes when the first field of a hash expires; `None` when no field does.
    pub fn note(&mut self, db: usize, key: &[u8], next: Option<i64>) {
        let place = (db, Box::from(key));
        let old = match next {
            Some(next) => self.next.insert(place, next),
            None => self.next.remove(&place),
        };
        if old == next {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, db, key.into()));
        }
        if let Some(next) = next {
            self.order.insert((next, db, key.into()));
        }
        debug_assert_eq!(self.next.len(), self.order.len(), "each hash once in order");
        if self.next.is_empty() {
            *self = Self::default();
        }
    }

    /// The first hash, if its time is over.
    pub fn due(&self, now_ms: i64) -> Option<(usize, Box<[u8]>)> {
        let (at, db, key) = self.order.first()?;
        (*at < now_ms).then(|| (*db, key.clone()))
    }

    /// Forgets the hashes of a database.
    pub fn forget_database(&mut self, db: usize) {
        self.next.retain(|(of, _), _| *of != db);
        self.order.retain(|(_, of, _)| *of != db);
    }

    /// Exchanges the hashes of two databases.
    pub fn swap(&mut self, a: usize, b: usize) {
        let other = |db: usize| match db {
            _ if db == a => b,
            _ if db == b => a,
            _ => db,
        };
        let next = std::mem::take(&mut self.next);
        self.order.clear();
        for ((db, key), at) in next {
            self.order.insert((at, other(db), key.clone()));
            self.next.insert((other(db), key), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_due_in_order() {
        let mut timed = TimedHashes::default();
        let due = |timed: &TimedHashes, now| timed.due(now).map(|(db, key)| (db, key.to_vec()));
        timed.note(0, b"a", Some(30));
        timed.note(1, b"a", Some(20));
        timed.note(0, b"b", Some(10));
        assert_eq!(due(&timed, 10), None);
        assert_eq!(due(&timed, 11), Some((0, b"b".to_vec())));
        timed.note(0, b"b", Some(40));
        timed.swap(0, 1);
        assert_eq!((timed.len_of(0), timed.len_of(1)), (1, 2));
        assert_eq!(due(&timed, 50), Some((0, b"a".to_vec())));
        timed.forget_database(0);
        assert_eq!(
            (due(&timed, 50), timed.len()),
            (Some((1, b"a".to_vec())), 2)
        );
        timed.note(1, b"a", None);
        timed.note(1, b"a", None);
        assert_eq!(due(&timed, 50), Some((1, b"b".to_vec())));
        timed.note(1, b"b", None);
        assert!(timed.is_empty() && timed.order.is_empty());
    }
}
