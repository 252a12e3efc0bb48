//! Collections through the door: lookups that name the type they want.
//!
//! A collection changes inside its entry, which neither moves nor changes its size by that. So
//! it is lent directly; nothing has to be put back.

use super::db::{Db, Ttl};
use super::entry::{Entry, Garbage, NewValue, WrongType};
use crate::types::collection::Collection;
use crate::types::object::Object;

impl Db<'_, '_> {
    /// Looks a collection up to read it: counts the hit or miss, and records the access.
    #[inline]
    pub fn read_as<C: Collection>(&mut self, key: &[u8]) -> Result<Option<&C>, WrongType> {
        match self.read(key) {
            Some(entry) => entry.into_collection().map(Some),
            None => Ok(None),
        }
    }

    /// Looks a collection up without a trace and by shared borrow, so that several can be read at
    /// once; [`Db::read_as`] each first, to have it counted, and removed if it has expired.
    #[inline]
    pub fn get_as<C: Collection>(&self, key: &[u8]) -> Result<Option<&C>, WrongType> {
        match self.get(key) {
            Some(entry) => entry.into_collection().map(Some),
            None => Ok(None),
        }
    }

    /// As [`Db::write_as`], with a new collection where there is no key.
    #[inline]
    pub fn write_or_create<C: Collection + Into<Object>>(
        &mut self,
        key: &[u8],
        new: impl FnOnce() -> C,
    ) -> Result<&mut C, WrongType> {
        if !self.exists(key) {
            let clock = self.env().access.initial();
            let value = NewValue::Object(new().into());
            self.insert(key, Entry::new(key, value, None, clock));
        }
        let found = self.write_as(key)?;
        Ok(found.expect("it was there or was inserted"))
    }

    /// Sets a key to a collection, whatever it was, without expiry. True when the key is new.
    pub fn store(&mut self, key: &[u8], object: impl Into<Object>) -> bool {
        self.put(key, NewValue::Object(object.into()), Ttl::Clear)
    }

    /// Has a collection that is nobody's value any more freed once the locks are released.
    pub fn discard_object(&mut self, object: impl Into<Object>) {
        self.discard(Garbage::Object(object.into()), self.env().lazy_overwrite);
    }
}
