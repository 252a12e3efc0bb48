//! Entries lent by the table that owns them: to be read, to be changed where they lie, or to be
//! changed as they need.
//!
//! A loan frees nothing, and none gives out `&mut Entry` without the slot learning afterwards where
//! the entry is: code that holds one cannot leave an address behind that is freed.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;

use super::{Entry, Kept};
use crate::keyspace::arena::LINE;
use crate::keyspace::table::{Slot, TableEntry};
use crate::types::collection::Collection;

/// The key holds another type than the command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// An entry to be read.
pub struct EntryRef<'a> {
    entry: ManuallyDrop<Entry>,
    lives: PhantomData<&'a Entry>,
}

impl Deref for EntryRef<'_> {
    type Target = Entry;
    #[inline]
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl<'a> EntryRef<'a> {
    /// The collection, if it is of the type asked for.
    #[inline]
    pub fn into_collection<C: Collection>(self) -> Result<&'a C, WrongType> {
        let collection: *const C = self.entry.get_as().ok_or(WrongType)?;
        // SAFETY: it lies in the entry, which is borrowed for 'a, not in this guard.
        Ok(unsafe { &*collection })
    }
}

/// An entry to be changed where it lies, in what its slot need not know: it keeps its address, its
/// key and its expiry.
pub struct InPlace<'a> {
    entry: ManuallyDrop<Entry>,
    lives: PhantomData<&'a mut Entry>,
}

impl Deref for InPlace<'_> {
    type Target = Entry;
    #[inline]
    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl<'a> InPlace<'a> {
    /// The collection, if it is of the type asked for.
    #[inline]
    pub fn into_collection<C: Collection>(mut self) -> Result<&'a mut C, WrongType> {
        let collection: *mut C = self.entry.get_as_mut().ok_or(WrongType)?;
        // SAFETY: it lies in the entry, which is borrowed for 'a, not in this guard, which ends here.
        Ok(unsafe { &mut *collection })
    }

    /// As [`Entry::keep`].
    pub fn keep(&mut self) -> Option<Kept> {
        self.entry.keep()
    }

    /// As [`Entry::settle`].
    pub fn settle(&mut self) -> bool {
        self.entry.settle()
    }

    /// As [`Entry::add_in_place`].
    #[inline]
    pub fn add(&mut self, by: i64) -> Option<i64> {
        self.entry.add_in_place(by)
    }
}

impl Entry {
    /// Lends an entry of one's own as a table would.
    pub fn in_place(&mut self) -> InPlace<'_> {
        // SAFETY: alive and exclusively borrowed for as long as the loan lives.
        unsafe { Self::lend_mut(self.raw) }
    }
}

/// An entry to be changed as it needs; its slot learns of a new address and expiry at once.
pub struct EntryMut<'a> {
    slot: Slot<'a, Entry>,
}

impl<'a> EntryMut<'a> {
    #[inline]
    pub(in crate::keyspace) fn new(slot: Slot<'a, Entry>) -> Self {
        Self { slot }
    }

    /// The entry as it is now.
    #[inline]
    pub fn get(&self) -> EntryRef<'_> {
        self.slot.get()
    }

    /// Changes the entry, which keeps its key.
    #[inline]
    pub fn change<R>(&mut self, work: impl FnOnce(&mut Entry) -> R) -> R {
        #[cfg(debug_assertions)]
        let key = self.get().key().to_vec();
        let result = self.slot.change(work);
        #[cfg(debug_assertions)]
        assert_eq!(self.get().key(), key, "an entry keeps its key");
        result
    }
}

// SAFETY: entries are 8-byte aligned heap addresses, which user space keeps below 2^48. `Mut` is
// [`InPlace`], whose methods change neither the address nor the expiry.
unsafe impl TableEntry for Entry {
    type Ref<'a> = EntryRef<'a>;
    type Mut<'a> = InPlace<'a>;

    #[inline]
    fn is_volatile(&self) -> bool {
        self.expiry().is_some()
    }

    #[inline]
    unsafe fn lend<'a>(raw: NonNull<u8>) -> EntryRef<'a> {
        EntryRef {
            entry: ManuallyDrop::new(Self { raw }),
            lives: PhantomData,
        }
    }

    #[inline]
    unsafe fn lend_mut<'a>(raw: NonNull<u8>) -> InPlace<'a> {
        InPlace {
            entry: ManuallyDrop::new(Self { raw }),
            lives: PhantomData,
        }
    }

    #[inline]
    fn into_raw(self) -> NonNull<u8> {
        ManuallyDrop::new(self).raw
    }

    #[inline]
    unsafe fn from_raw(raw: NonNull<u8>) -> Self {
        Self { raw }
    }

    #[inline]
    unsafe fn key<'a>(raw: NonNull<u8>) -> &'a [u8] {
        // SAFETY: by contract the entry is alive for 'a.
        unsafe { &*std::ptr::from_ref(ManuallyDrop::new(Self { raw }).key()) }
    }

    #[inline]
    unsafe fn further_lines(raw: NonNull<u8>) -> usize {
        let size = ManuallyDrop::new(Self { raw }).content_size();
        (raw.as_ptr() as usize % LINE + size - 1) / LINE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::entry::NewValue;
    use crate::keyspace::table::Table;

    #[test]
    fn a_slot_knows_where_its_entry_went() {
        let mut table: Table<Entry> = Table::new();
        let (hash, rehash) = (7, |_: &[u8]| 7);
        let entry = Entry::new(b"key", NewValue::Int(1), None, 0);
        table.own().insert(hash, entry, &rehash);
        let mut own = table.own();
        let mut entry = EntryMut::new(own.find(hash, b"key").expect("inserted"));
        // Each time it moves, the slot learns of it.
        entry.change(|entry| entry.append(&[b'x'; 500]));
        entry.change(|entry| entry.set_expiry(Some(9)));
        assert_eq!(table.volatile(), 1);
        let mut own = table.own();
        let slot = own.find(hash, b"key").expect("still there");
        assert_eq!((slot.get().string().len(), slot.is_volatile()), (501, true));
        assert_eq!(slot.remove().expiry(), Some(9));
        assert!(table.is_empty() && table.volatile() == 0);
        table.destroy();
    }

    #[test]
    fn a_change_that_panics_leaves_the_entry_in_its_slot() {
        let mut table: Table<Entry> = Table::new();
        let entry = Entry::new(b"key", NewValue::Int(1), None, 0);
        table.own().insert(7, entry, &|_| 7);
        let change = || {
            let mut own = table.own();
            let mut entry = EntryMut::new(own.find(7, b"key").expect("inserted"));
            entry.change(|entry| {
                entry.append(&[b'x'; 500]);
                panic!("in the middle of it");
            })
        };
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
        assert!(panicked.is_err());
        let read = table.own();
        let entry = read.view().find(7, b"key").expect("still there");
        assert_eq!(entry.string().len(), 501);
        table.destroy();
    }
}
