//! Expiry of the fields of hashes, as a lookup that meets a due field does it: the field goes, `HDEL`
//! is propagated, watchers and subscribers hear of it; with its last field the key goes too.
//!
//! Each shard notes which of its hashes have fields that will expire, by the time of the first, so
//! that [`slice()`] finds the due ones without a walk. A noted time may be too early (a field lost its
//! expiry since), never too late: who gives a field an expiry calls [`Db::note_fields`]; hashes that
//! come and go as a whole are noted by the doors through which they do.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;

use super::collections::WrongType;
use super::db::{Db, Effects, Env, ExpiredField};
use super::event;
use super::shards::{Keyspace, LockSet};
use crate::types::collection::Collection;
use crate::types::hash::Hash;

/// Most fields that a slice removes from one hash.
const FIELDS: usize = 64;
/// Most hashes that a slice looks at.
const HASHES: usize = 16;

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

impl Keyspace {
    /// True when some hash has a field with an expiry.
    pub fn has_timed_hashes(&self) -> bool {
        self.timed_hashes.load(Relaxed) > 0
    }
}

/// Removes due fields from some hashes of a held shard; what they were is left in `effects`. True
/// when there are more.
pub fn slice<'k>(
    keyspace: &'k Keyspace,
    shard: usize,
    locks: &mut LockSet<'k>,
    env: &Env,
    effects: &mut Effects,
) -> bool {
    for _ in 0..HASHES {
        let Some((db, key)) = locks.shard(shard).due_hash(env.now_ms) else {
            return false;
        };
        let mut view = Db::new(keyspace, locks, env, effects, db, &[]);
        view.expire_due_fields(&key, FIELDS);
        view.note_fields(&key);
    }
    true
}

impl Db<'_, '_> {
    /// Removes those of `fields` of the hash at `key` that are due. Where this server does not
    /// expire keys, they stay.
    #[inline]
    pub fn expire_fields(&mut self, key: &[u8], fields: &[&[u8]]) -> Result<(), WrongType> {
        let now_ms = self.now_ms();
        if let Some(hash) = self.write_as::<Hash>(key)?
            && hash.is_due(now_ms)
        {
            self.expire_fields_if(key, |hash, removed| {
                for field in fields {
                    if hash.is_field_due(field, now_ms) && hash.remove(field) {
                        removed(field);
                    }
                }
            });
        }
        Ok(())
    }

    /// Removes up to `limit` due fields of the hash at `key`; how many. None when the key is of
    /// another type or not there.
    pub fn expire_due_fields(&mut self, key: &[u8], limit: usize) -> usize {
        let now_ms = self.now_ms();
        self.expire_fields_if(key, |hash, removed| {
            hash.expire_due(now_ms, limit, removed);
        })
    }

    /// Notes when the first field of the hash at `key` expires. To be called when a field was given
    /// an expiry.
    pub fn note_fields(&mut self, key: &[u8]) {
        let next = self
            .get(key)
            .and_then(|entry| entry.get_as::<Hash>()?.next_expiry());
        self.note_timed(key, next);
    }

    #[cold]
    fn expire_fields_if(
        &mut self,
        key: &[u8],
        take: impl FnOnce(&mut Hash, &mut dyn FnMut(&[u8])),
    ) -> usize {
        if !self.env().expires_keys {
            return 0;
        }
        let Ok(Some(hash)) = self.write_as::<Hash>(key) else {
            return 0;
        };
        let mut fields: Vec<Box<[u8]>> = Vec::new();
        take(hash, &mut |field| fields.push(field.into()));
        let (emptied, count, db) = (hash.is_empty(), fields.len(), self.index());
        if count == 0 {
            return 0;
        }
        let fields = fields.into_iter().map(|field| ExpiredField {
            db,
            key: key.into(),
            field,
        });
        self.effects.expired_fields.extend(fields);
        self.touch(key);
        self.also(key, event::ON_HEXPIRED);
        if emptied {
            self.remove(key);
            self.also(key, event::ON_DEL);
        }
        count
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
