//! Where an entry lies, and what may be done with it there.

use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use super::segment::{
    adjust_displaced, clear_slot, displaced, matching, pointer_of, slot_word, tag_of, tags, word,
};
use super::{SKIP, Table, TableEntry, VOLATILE, add, reference};
use crate::keyspace::arena::Block;

/// The place of an entry in the buckets: where to find it, no right to it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) bucket: Block,
    pub(super) index: usize,
    pub(super) home: Block,
}

impl Place {
    #[inline]
    pub(super) fn pointer(self) -> NonNull<u8> {
        pointer_of(slot_word(self.bucket, self.index))
    }
}

/// The slot of an entry, held exclusively. There is one at a time, and what takes the entry out
/// consumes it.
pub struct Slot<'t, E> {
    table: &'t Table<E>,
    place: Place,
    lends: PhantomData<NonNull<E>>,
}

/// Equality of keys, most of which are short: a few words instead of a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(first), Some(other)) if a.len() <= 16 => {
            first == other && a.last_chunk::<8>() == b.last_chunk::<8>()
        }
        _ if (17..=32).contains(&a.len()) => {
            a.first_chunk::<16>() == b.first_chunk() && a.last_chunk::<16>() == b.last_chunk()
        }
        _ => a == b,
    }
}

impl<E: TableEntry> Table<E> {
    /// Where `key` is stored.
    ///
    /// # Safety
    /// The table's lock is held, as views and claims on it prove, and nobody changes it meanwhile.
    #[inline(always)]
    pub(super) unsafe fn locate(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let local = hash << SKIP;
        let segment = self.segment(local)?;
        let home = segment.home(local);
        let home_bucket = segment.bucket(home.bucket);
        let tag = tag_of(hash);
        let mut bucket = home_bucket;
        let mut bucket_tags = tags(bucket);
        let reach = if displaced(bucket_tags) == 0 {
            0
        } else {
            segment.reach()
        };
        let mut distance = 0;
        loop {
            for index in matching(bucket_tags, tag) {
                let word = slot_word(bucket, index);
                // SAFETY: slots in use hold live entries, unchanged while the lock is held.
                if word >> 48 == home.bits && is_same(unsafe { E::key(pointer_of(word)) }, key) {
                    return Some(Place {
                        bucket,
                        index,
                        home: home_bucket,
                    });
                }
            }
            if distance == reach {
                return None;
            }
            distance += 1;
            bucket = segment.nth(home.bucket, distance);
            bucket_tags = tags(bucket);
        }
    }
}

impl<'t, E: TableEntry> Slot<'t, E> {
    /// The slot at a place that is in use.
    ///
    /// # Safety
    /// Who calls holds the only claim on the table, and makes no use of it while the slot lives.
    #[inline(always)]
    pub(super) unsafe fn new(table: &'t Table<E>, place: Place) -> Self {
        Self {
            table,
            place,
            lends: PhantomData,
        }
    }

    /// Whether the entry has an expiry, as the bucket tells: the entry is not read.
    #[inline]
    pub fn is_volatile(&self) -> bool {
        slot_word(self.place.bucket, self.place.index) & VOLATILE != 0
    }

    /// The entry, to be read.
    #[inline]
    pub fn get(&self) -> E::Ref<'_> {
        // SAFETY: the slot is in use; to change the entry takes `&mut self`.
        unsafe { E::lend(self.place.pointer()) }
    }

    /// As [`Slot::get`], for as long as the table may be changed.
    #[inline(always)]
    pub fn into_ref(self) -> E::Ref<'t>
    where
        E: 't,
    {
        // SAFETY: the slot is in use, and the claim on it ends in the loan.
        unsafe { E::lend(self.place.pointer()) }
    }

    /// The entry, to be changed where it lies.
    #[inline]
    pub fn get_mut(&mut self) -> E::Mut<'_> {
        // SAFETY: the slot is in use; `&mut self` makes this the only access.
        unsafe { E::lend_mut(self.place.pointer()) }
    }

    /// As [`Slot::get_mut`], for as long as the table may be changed.
    #[inline(always)]
    pub fn into_mut(self) -> E::Mut<'t>
    where
        E: 't,
    {
        // SAFETY: the slot is in use, and the claim on it, the only one, ends in the loan.
        unsafe { E::lend_mut(self.place.pointer()) }
    }

    /// Changes the entry, which may move by it or become another of the same key. The slot names
    /// what is there afterwards, also if `work` panics.
    #[inline(always)]
    pub fn change<R>(&mut self, work: impl FnOnce(&mut E) -> R) -> R {
        // SAFETY: the slot is in use and `&mut self` makes this the only access. Ownership comes
        // back to the slot when `out` is dropped, which nobody else can prevent.
        let entry = ManuallyDrop::new(unsafe { E::from_raw(self.place.pointer()) });
        let mut out = Out { slot: self, entry };
        work(&mut out.entry)
    }

    /// Takes the entry out.
    #[inline]
    pub fn remove(self) -> E {
        let Place {
            bucket,
            index,
            home,
        } = self.place;
        let word = slot_word(bucket, index);
        clear_slot(bucket, index);
        if bucket != home {
            adjust_displaced(home, -1);
        }
        add(&self.table.len, -1);
        add(&self.table.volatile, -((word & VOLATILE) as i32));
        // SAFETY: the slot held a live entry and is cleared now.
        unsafe { E::from_raw(pointer_of(word)) }
    }
}

/// An entry that is being changed, on its way back into its slot.
struct Out<'s, 't, E: TableEntry> {
    slot: &'s Slot<'t, E>,
    entry: ManuallyDrop<E>,
}

impl<E: TableEntry> Drop for Out<'_, '_, E> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the entry is taken once, here.
        let entry = unsafe { ManuallyDrop::take(&mut self.entry) };
        let (place, table) = (&self.slot.place, self.slot.table);
        let volatile = entry.is_volatile();
        let raw = entry.into_raw();
        let target = word(place.bucket, place.index + 1);
        let old = target.load(Relaxed);
        // SAFETY: the entry is alive; from here on the table owns it.
        let new = old & (u64::MAX << 48) | unsafe { reference::<E>(raw, volatile) };
        if new != old {
            target.store(new, Relaxed);
            let mark = i32::from(volatile) - (old & VOLATILE) as i32;
            add(&table.volatile, mark);
        }
    }
}
