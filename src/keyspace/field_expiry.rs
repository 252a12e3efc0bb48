//! Expiry of the fields of hashes, as a lookup that meets a due field does it: the field goes, `HDEL`
//! is propagated, watchers and subscribers hear of it; with its last field the key goes too.
//!
//! Each shard notes which of its hashes have fields that will expire, by the time of the first, so
//! that [`slice()`] finds the due ones without a walk. A noted time may be too early (a field lost its
//! expiry since), never too late: who gives a field an expiry calls [`Db::note_fields`]; hashes that
//! come and go as a whole are noted by the doors through which they do.

use super::db::{Db, Effects, Env, ExpiredField};
use super::entry::WrongType;
use super::event;
use super::shards::{Keyspace, LockSet};
use crate::types::collection::Collection;
use crate::types::hash::Hash;

/// Most fields that a slice removes from one hash.
const FIELDS: usize = 64;
/// Most hashes that a slice looks at.
const HASHES: usize = 16;

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
        if keyspace.arriving.hides_key(&key) {
            // It waits until that slot is here, and so do those behind it.
            return false;
        }
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
        self.record_expired_fields(fields);
        self.touch(key);
        self.also(key, event::ON_HEXPIRED);
        if emptied {
            self.remove(key);
            self.also(key, event::ON_DEL);
        }
        count
    }
}
