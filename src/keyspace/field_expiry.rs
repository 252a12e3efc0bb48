//! Expiry of the fields of hashes, as a lookup that meets a due field does it: the field goes, `HDEL`
//! is propagated, watchers and subscribers hear of it; with its last field the key goes too.

use super::collections::WrongType;
use super::db::{Db, ExpiredField};
use super::event;
use crate::types::hash::Hash;
use crate::types::object::Collection;

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
