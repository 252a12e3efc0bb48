//! One key and its value in one allocation.
//!
//! ```text
//!  0        1       2            5        6           8
//!  +--------+-------+------------+--------+-----------+------------+----------+-----+-------+
//!  | type,  | flags | access     | key    | value     | expiry     | address  | long key | key | value |
//!  | encod. |       | clock (24) | length | length    | (8, if)    | or object| length   |     | bytes |
//!  +--------+-------+------------+--------+-----------+------------+----------+-----+-------+
//!                                                       EXPIRY  POINTER, OBJECT  LONG_KEY    inline
//! ```
//!
//! Strings up to [`INLINE_MAX`] bytes and integers (in as few of 1, 2, 4 or 8 bytes as hold them)
//! lie inside; longer strings are behind an address; collections lie inside with their own
//! [`OBJECT_SIZE`] bytes, and change there in place. The allocation's size follows from the
//! header alone, rounded to the allocator's class, so an overwrite that stays in the class needs
//! no allocation. The entry never changes its key.
//!
//! An entry has no lock of its own: it belongs to a table slot, and what guards that guards it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::base::alloc::size_class;
use crate::types::collection::Collection;
use crate::types::object::{OBJECT_SIZE, Object, ObjectRef};
use crate::types::patched::Patched;
use crate::types::string::{SharedBytes, StringRef};
use crate::types::{Encoding, Type};

#[allow(unsafe_code)]
mod edit;
#[allow(unsafe_code)]
mod lent;
mod value;

pub use lent::{EntryMut, EntryRef, InPlace, WrongType};
use value::{Body, Plan};
pub use value::{Garbage, Kept, NewValue, ValueRef};

/// Strings of at least so many bytes are kept as they are, not copied, for who reads them later.
const KEPT_BYTES: usize = 16 << 10;
/// Collections of more effort than this as well.
const KEPT_EFFORT: usize = 8;
/// Longest string kept inside the entry, in bytes.
pub const INLINE_MAX: usize = 1024;

const HEADER: usize = 8;
/// The entry has room for an expiry; [`NO_EXPIRY`] there means none is set.
const EXPIRY: u8 = 1;
/// The value is behind an address.
const POINTER: u8 = 2;
/// The key's length does not fit one byte and stands before the key.
const LONG_KEY: u8 = 4;
/// The value is a collection, in [`OBJECT_SIZE`] bytes of the entry.
const OBJECT: u8 = 8;
/// Which cut saw the entry last, see [`super::cut`].
const EPOCH: u8 = 16;
/// With [`POINTER`]: behind the address is a [`Patched`] string.
const PATCHED: u8 = 32;
/// In place of type and encoding: the collection was taken out.
const HOLLOW: u8 = 0xff;
const NO_EXPIRY: i64 = i64::MIN;

/// An owned entry.
pub struct Entry {
    raw: NonNull<u8>,
}

impl Entry {
    /// A new entry. `expiry` is a Unix time in milliseconds.
    pub fn new(key: &[u8], value: NewValue<'_>, expiry: Option<i64>, clock: u32) -> Self {
        let plan = Plan::new(value);
        Self::build(key, plan, expiry, clock)
    }

    fn build(key: &[u8], plan: Plan<'_>, expiry: Option<i64>, clock: u32) -> Self {
        let mut flags = plan.flags();
        if expiry.is_some() {
            flags |= EXPIRY;
        }
        if key.len() > 255 {
            flags |= LONG_KEY;
        }
        let size = key_offset(flags) + key.len() + plan.inline_len();
        let layout = layout(size);
        // SAFETY: the layout's size is at least the header's.
        let Some(raw) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let entry = ManuallyDrop::new(Self { raw });
        // SAFETY: all offsets follow from the flags that `size` was computed from, so every
        // write lies within the allocation; 8-byte fields are at multiples of 8.
        unsafe {
            entry.put(1, flags);
            entry.set_clock(clock);
            entry.put(5, key.len() as u8);
            if let Some(at) = expiry {
                raw.add(HEADER).cast::<i64>().write(at);
            }
            if flags & LONG_KEY != 0 {
                let at = raw.add(key_offset(flags) - 4);
                at.cast::<u32>().write_unaligned(key.len() as u32);
            }
            std::ptr::copy_nonoverlapping(
                key.as_ptr(),
                raw.add(key_offset(flags)).as_ptr(),
                key.len(),
            );
            entry.write_value(plan);
        }
        ManuallyDrop::into_inner(entry)
    }

    /// Writes type, encoding, length and value into an entry laid out for them.
    ///
    /// # Safety
    /// Flags and key are set and the allocation has room for the value. What an address there
    /// pointed to before was taken.
    unsafe fn write_value(&self, plan: Plan<'_>) {
        // SAFETY: the caller guarantees the room.
        unsafe {
            self.put(0, (plan.kind() as u8) << 4 | plan.encoding as u8);
            self.put_len(plan.inline_len());
            match plan.body {
                Body::Inline(bytes) => std::ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    self.inline_address(),
                    bytes.len(),
                ),
                Body::Int(n, width) => std::ptr::copy_nonoverlapping(
                    n.to_le_bytes().as_ptr(),
                    self.inline_address(),
                    width,
                ),
                Body::Pointer(shared) => self.address_slot().write(Some(shared)),
                Body::Patched(string) => self.patched_slot().write(Some(string)),
                Body::Object(object) => object.write_to(self.object_slot()),
            }
        }
    }

    #[inline]
    fn get(&self, offset: usize) -> u8 {
        // SAFETY: only called with offsets inside the header.
        unsafe { self.raw.add(offset).read() }
    }

    #[inline]
    fn put(&self, offset: usize, value: u8) {
        // SAFETY: only called with offsets inside the header.
        unsafe { self.raw.add(offset).write(value) }
    }

    fn put_len(&self, len: usize) {
        // SAFETY: inside the header; aligned.
        unsafe { self.raw.add(6).cast::<u16>().write(len as u16) }
    }

    #[inline]
    fn inline_len(&self) -> usize {
        // SAFETY: inside the header; aligned.
        usize::from(unsafe { self.raw.add(6).cast::<u16>().read() })
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.get(1)
    }

    #[inline]
    fn key_len(&self) -> usize {
        let flags = self.flags();
        if flags & LONG_KEY == 0 {
            usize::from(self.get(5))
        } else {
            // SAFETY: LONG_KEY means the length stands before the key.
            let at = unsafe { self.raw.add(key_offset(flags) - 4) };
            // SAFETY: as above.
            unsafe { at.cast::<u32>().read_unaligned() as usize }
        }
    }

    #[inline]
    fn inline_address(&self) -> *mut u8 {
        let offset = key_offset(self.flags()) + self.key_len();
        // SAFETY: the value begins after the key, inside the allocation or one past its end.
        unsafe { self.raw.add(offset).as_ptr() }
    }

    /// Bytes in use, before rounding to the allocator's class.
    #[inline]
    fn content_size(&self) -> usize {
        key_offset(self.flags()) + self.key_len() + self.inline_len()
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        let (offset, len) = (key_offset(self.flags()), self.key_len());
        // SAFETY: the key lies at this offset for the entry's life.
        unsafe { std::slice::from_raw_parts(self.raw.add(offset).as_ptr(), len) }
    }

    /// The value's type.
    #[inline]
    pub fn kind(&self) -> Type {
        Type::ALL[usize::from(self.get(0) >> 4)]
    }

    /// The value's encoding.
    pub fn encoding(&self) -> Encoding {
        if let Some(object) = self.object() {
            return object.encoding();
        }
        self.string_encoding()
    }

    fn string_encoding(&self) -> Encoding {
        match self.get(0) & 15 {
            1 => Encoding::Int,
            2 => Encoding::EmbStr,
            _ => Encoding::Raw,
        }
    }

    /// The value of a string, which it is.
    #[inline]
    pub fn string(&self) -> StringRef<'_> {
        if self.flags() & POINTER != 0 {
            return match self.patched() {
                Some(string) => StringRef::Patched(string),
                None => StringRef::Shared(self.shared()),
            };
        }
        let len = self.inline_len();
        // SAFETY: the value's bytes lie there until the entry is changed, which needs `&mut`.
        let bytes = unsafe { std::slice::from_raw_parts(self.inline_address(), len) };
        if self.get(0) & 15 == Encoding::Int as u8 {
            StringRef::Int(match *bytes {
                [a] => i64::from(a as i8),
                [a, b] => i64::from(i16::from_le_bytes([a, b])),
                [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => unreachable!("integers are 1, 2, 4 or 8 bytes wide"),
            })
        } else {
            StringRef::Inline(bytes)
        }
    }

    /// Where the address stands, if POINTER is set and PATCHED is not: `None` is null there.
    fn address_slot(&self) -> *mut Option<SharedBytes> {
        let at = pointer_offset(self.flags());
        self.raw.as_ptr().wrapping_add(at).cast()
    }

    /// Where the address stands, if PATCHED is set: `None` is null there.
    fn patched_slot(&self) -> *mut Option<Box<Patched>> {
        self.address_slot().cast()
    }

    #[inline]
    fn patched(&self) -> Option<&Patched> {
        if self.flags() & PATCHED == 0 {
            return None;
        }
        // SAFETY: PATCHED is set, so an initialised slot stands there; aligned.
        let slot = unsafe { &*self.patched_slot() };
        slot.as_deref()
    }

    /// Where the collection lies, if OBJECT is set.
    #[inline]
    fn object_slot(&self) -> *mut u8 {
        let at = pointer_offset(self.flags());
        self.raw.as_ptr().wrapping_add(at)
    }

    /// The value, when it is a collection.
    pub fn object(&self) -> Option<ObjectRef<'_>> {
        if self.flags() & OBJECT == 0 {
            return None;
        }
        // SAFETY: OBJECT is set, so a collection of the header's type lies there (it is taken only
        // by what replaces the value), until it is changed, which needs `&mut`.
        Some(unsafe { ObjectRef::borrow_from(self.kind(), self.object_slot()) })
    }

    /// The value.
    pub fn value(&self) -> ValueRef<'_> {
        match self.object() {
            Some(object) => ValueRef::Object(object),
            None => ValueRef::String(self.string()),
        }
    }

    /// The value as it is now, to be read when it may have changed, if it is so big that reading it
    /// takes a while. Takes little time itself.
    pub fn keep(&mut self) -> Option<Kept> {
        if let Some(object) = self.object() {
            if object.effort() <= KEPT_EFFORT {
                return None;
            }
            // SAFETY: OBJECT is set, so a collection of the header's type lies there; `&mut self`
            // makes this the only access.
            let kept = unsafe { Object::share_at(self.kind(), self.object_slot()) };
            return Some(Kept::Object(kept));
        }
        match self.string() {
            StringRef::Shared(bytes) if bytes.len() >= KEPT_BYTES => {
                Some(Kept::Bytes(Arc::clone(bytes)))
            }
            StringRef::Patched(string) => Some(Kept::Patched(Box::new(string.clone()))),
            _ => None,
        }
    }

    /// The value, when it is a collection of the type asked for.
    #[inline]
    pub fn get_as<C: Collection>(&self) -> Option<&C> {
        if self.get(0) >> 4 != C::KIND as u8 || self.flags() & OBJECT == 0 {
            return None;
        }
        // SAFETY: OBJECT is set and the header names this type, so its collection lies there.
        Some(unsafe { &*self.object_slot().cast::<C>() })
    }

    /// As [`Entry::get_as`], to be changed.
    #[inline]
    pub fn get_as_mut<C: Collection>(&mut self) -> Option<&mut C> {
        if self.get(0) >> 4 != C::KIND as u8 || self.flags() & OBJECT == 0 {
            return None;
        }
        // SAFETY: as in `get_as`; `&mut self` makes this the only access.
        Some(unsafe { &mut *self.object_slot().cast::<C>() })
    }

    fn shared(&self) -> &SharedBytes {
        // SAFETY: POINTER is set, so an initialised slot stands there; aligned.
        let slot = unsafe { &*self.address_slot() };
        slot.as_ref()
            .expect("only taken by what replaces the value")
    }

    /// Expiry as a Unix time in milliseconds.
    #[inline]
    pub fn expiry(&self) -> Option<i64> {
        if self.flags() & EXPIRY == 0 {
            return None;
        }
        // SAFETY: EXPIRY means the field is there; aligned.
        let at = unsafe { self.raw.add(HEADER).cast::<i64>().read() };
        (at != NO_EXPIRY).then_some(at)
    }

    /// The 24-bit access clock: seconds for LRU, minutes and a counter for LFU.
    #[inline]
    pub fn clock(&self) -> u32 {
        u32::from(self.get(2)) | u32::from(self.get(3)) << 8 | u32::from(self.get(4)) << 16
    }

    /// Sets the access clock, if it differs (an unchanged cache line is not written).
    #[inline]
    pub fn set_clock(&self, clock: u32) {
        if self.clock() != clock {
            self.put(2, clock as u8);
            self.put(3, (clock >> 8) as u8);
            self.put(4, (clock >> 16) as u8);
        }
    }

    /// The bit by which a cut knows what it has seen.
    #[inline]
    pub(super) fn epoch(&self) -> bool {
        self.flags() & EPOCH != 0
    }

    /// Sets the bit of [`Entry::epoch`].
    #[inline]
    pub(super) fn set_epoch(&self, epoch: bool) {
        self.put(1, self.flags() & !EPOCH | if epoch { EPOCH } else { 0 });
    }

    /// Consumes the entry; what is big comes back to be freed later.
    pub fn into_garbage(mut self) -> Option<Garbage> {
        self.take_big()
    }

    /// Bytes that key and value occupy, as the allocator counts them.
    pub fn memory(&self) -> usize {
        let own = size_class(self.content_size());
        if let Some(object) = self.object() {
            return own + object.memory();
        }
        match self.string() {
            StringRef::Shared(bytes) => own + size_class(40) + size_class(bytes.capacity()),
            StringRef::Patched(string) => own + size_class(size_of::<Patched>()) + string.memory(),
            _ => own,
        }
    }
}

#[inline]
fn pointer_offset(flags: u8) -> usize {
    HEADER + usize::from(flags & EXPIRY) * 8
}

#[inline]
fn key_offset(flags: u8) -> usize {
    let pointer = usize::from(flags & POINTER != 0) * 8;
    let object = usize::from(flags & OBJECT != 0) * OBJECT_SIZE;
    let long = usize::from(flags & LONG_KEY != 0) * 4;
    pointer_offset(flags) + pointer + object + long
}

fn layout(content: usize) -> Layout {
    Layout::from_size_align(size_class(content), 8).expect("entries are far below isize::MAX")
}

impl Drop for Entry {
    fn drop(&mut self) {
        drop(self.take_big());
        // SAFETY: allocated with this layout: it follows from header and key length only.
        unsafe { dealloc(self.raw.as_ptr(), layout(self.content_size())) }
    }
}

// SAFETY: an entry owns all it points to.
unsafe impl Send for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(entry: &Entry) -> Vec<u8> {
        entry.string().to_vec()
    }

    #[test]
    fn entries_are_small() {
        let integer = Entry::new(b"key:1234567", NewValue::Int(1_000_000), None, 0);
        assert_eq!(integer.memory(), 24);
        let short = Entry::new(
            b"key:1234567",
            NewValue::Bytes(b"sixteen bytes..x"),
            None,
            0,
        );
        assert_eq!(short.memory(), 40);
    }

    #[test]
    fn every_change_keeps_the_rest() {
        let values: Vec<Vec<u8>> = [
            0,
            1,
            7,
            44,
            45,
            255,
            256,
            INLINE_MAX,
            INLINE_MAX + 1,
            70_000,
        ]
        .into_iter()
        .map(|n| (0..n).map(|i| (i * 7 + n) as u8 | 0x80).collect())
        .chain([
            b"0".to_vec(),
            b"-1".to_vec(),
            b"32768".to_vec(),
            b"-2147483649".to_vec(),
        ])
        .chain([
            i64::MIN.to_string().into_bytes(),
            i64::MAX.to_string().into_bytes(),
        ])
        .collect();
        for key_len in [0, 1, 11, 255, 256, 70_000] {
            let key: Vec<u8> = (0..key_len).map(|i| i as u8).collect();
            for first in &values {
                for second in &values {
                    let mut e = Entry::new(&key, NewValue::Bytes(first), None, 0x00ab_cdef);
                    assert_eq!(text(&e), *first);
                    e.set_expiry(Some(77));
                    assert_eq!((text(&e), e.expiry()), (first.clone(), Some(77)));
                    drop(e.set_value(NewValue::Bytes(second)));
                    assert_eq!((text(&e), e.expiry()), (second.clone(), Some(77)));
                    e.set_expiry(None);
                    e.bytes_mut().push(b'!');
                    let mut longer = second.clone();
                    longer.push(b'!');
                    assert_eq!((text(&e), e.expiry()), (longer, None));
                    assert_eq!((e.key(), e.clock()), (&key[..], 0x00ab_cdef));
                }
            }
        }
    }

    #[test]
    fn counters_change_in_place_and_encodings_follow_redis() {
        let mut e = Entry::new(b"n", NewValue::Bytes(b"-5"), Some(1), 0);
        for n in [3, 127, -128, 128, 40_000, -1, i64::MAX, i64::MIN, 0] {
            drop(e.set_value(NewValue::Int(n)));
            assert_eq!(
                (text(&e), e.encoding()),
                (n.to_string().into_bytes(), Encoding::Int)
            );
        }
        drop(e.set_value(NewValue::Bytes(b"012")));
        assert_eq!(e.encoding(), Encoding::EmbStr);
        drop(e.set_value(NewValue::Bytes(&[b'x'; 45])));
        assert_eq!(e.encoding(), Encoding::Raw);
        e.inline_mut().expect("inline")[0] = b'y';
        assert_eq!(text(&e)[..2], *b"yx");
    }

    #[test]
    fn sums_stay_in_place_or_change_nothing() {
        let mut e = Entry::new(b"n", NewValue::Int(120), Some(1), 0);
        assert_eq!(e.add_in_place(7), Some(127));
        assert_eq!(e.add_in_place(1), None, "one byte holds no more");
        assert_eq!((text(&e), e.expiry()), (b"127".to_vec(), Some(1)));
        drop(e.set_value(NewValue::Int(i64::MAX - 1)));
        assert_eq!(e.add_in_place(1), Some(i64::MAX));
        assert_eq!(
            e.add_in_place(1),
            None,
            "an overflow is for others to refuse"
        );
        assert_eq!(e.add_in_place(-1), Some(i64::MAX - 1));
        for other in [&b"12a"[..], b"", &[b'1'; 2000]] {
            drop(e.set_value(NewValue::Bytes(other)));
            assert_eq!(e.add_in_place(1), None);
            assert_eq!(text(&e), other);
        }
    }

    #[test]
    fn a_string_is_written_over_one_of_its_length() {
        let mut e = Entry::new(b"n", NewValue::Bytes(&[b'a'; 30]), Some(1), 7);
        let digits = "1234567890".repeat(3);
        for new in [&[b'b'; 30][..], digits.as_bytes()] {
            let before = e.raw;
            assert!(e.set_value(NewValue::Bytes(new)).is_none());
            assert_eq!((text(&e), e.encoding()), (new.to_vec(), Encoding::EmbStr));
            assert_eq!((e.raw, e.expiry(), e.clock()), (before, Some(1), 7));
        }
        e.inline_mut().expect("inline")[0] = b'c';
        assert_eq!(e.encoding(), Encoding::Raw);
        drop(e.set_value(NewValue::Bytes(&[b'd'; 30])));
        assert_eq!((text(&e), e.encoding()), (vec![b'd'; 30], Encoding::EmbStr));
        drop(e.set_value(NewValue::Bytes(&[b'e'; 50])));
        drop(e.set_value(NewValue::Bytes(&[b'f'; 50])));
        assert_eq!((text(&e), e.encoding()), (vec![b'f'; 50], Encoding::Raw));
    }

    #[test]
    fn strings_grow_in_place_and_move_to_other_keys() {
        for start in [0, 5, 300, 1023, 1024, 3000] {
            let mut model = vec![b'v'; start];
            let mut e = Entry::new(b"k", NewValue::Bytes(&model), Some(9), 7);
            for add in [0, 1, 40, 900, 200] {
                e.append(&vec![b'a'; add]);
                model.extend(vec![b'a'; add]);
                assert_eq!((text(&e), e.encoding()), (model.clone(), Encoding::Raw));
                let len = model.len() + add;
                model.resize(len, 0);
                let mut padded = e.padded_mut(len);
                assert_eq!(padded.len(), len);
                padded.edit(0..1, |first| first.fill(b'!'));
                model.iter_mut().take(1).for_each(|first| *first = b'!');
                assert_eq!(text(&e), model);
            }
            let copy = e.copied(b"other", 8);
            e.padded_mut(0).edit(0..1, |first| first.fill(b'?'));
            assert_eq!((text(&copy), copy.expiry()), (model.clone(), Some(9)));
            model.iter_mut().take(1).for_each(|first| *first = b'?');
            let moved = e.renamed(b"third");
            assert_eq!((text(&moved), moved.key()), (model, &b"third"[..]));
            assert_eq!((moved.expiry(), moved.clock()), (Some(9), 7));
        }
        let mut e = Entry::new(b"k", NewValue::Int(12), None, 0);
        e.padded_mut(0).edit(0..1, |first| first.fill(b'9'));
        assert_eq!((text(&e), e.encoding()), (b"92".to_vec(), Encoding::Raw));
    }

    #[test]
    fn long_strings_that_others_have_change_beside_what_they_were() {
        let mut model: Vec<u8> = (0..3 << 20).map(|n: u32| (n >> 9) as u8).collect();
        let before = model.clone();
        for expiry in [None, Some(9)] {
            model.clone_from(&before);
            let value = NewValue::Shared(Arc::new(model.clone()));
            let mut e = Entry::new(b"key", value, expiry, 7);
            let kept = e.keep().expect("it is long");
            e.padded_mut(0).edit(100..102, |two| two.fill(b'!'));
            model[100..102].fill(b'!');
            e.append(b"tail");
            model.extend(b"tail");
            let StringRef::Patched(string) = e.string() else {
                panic!("not copied as a whole")
            };
            assert!(string.effort() < 4 && !e.settle());
            // Kept once more as it is now, and changed again.
            let again = e.keep().expect("it is long");
            let later = model.clone();
            let len = model.len() + 100_000;
            e.padded_mut(len).edit(101..200, |some| some.fill(b'?'));
            model.resize(len, 0);
            model[101..200].fill(b'?');
            assert_eq!(e.string().len(), len);
            // Elsewhere, as whatever the commands make of it.
            let (copy, mut moved) = (e.copied(b"copy", 8), e.renamed(b"moved"));
            moved.set_expiry(Some(10));
            assert!(text(&copy) == model && text(&moved) == model);
            assert_eq!(
                (moved.expiry(), moved.encoding()),
                (Some(10), Encoding::Raw)
            );
            for (kept, content) in [(kept, &before), (again, &later)] {
                let ValueRef::String(string) = kept.value() else {
                    unreachable!("it was one")
                };
                assert!(string.text().bytes() == content);
            }
            drop(copy);
            moved.append(b"!");
            model.push(b'!');
            while moved.settle() {}
            assert!(matches!(moved.string(), StringRef::Shared(_)) && text(&moved) == model);
            let kept = moved.keep();
            moved.append(b"?");
            assert!(matches!(
                moved.set_value(NewValue::Int(5)),
                Some(Garbage::Patched(_))
            ));
            assert_eq!((moved.string().integer(), kept.is_some()), (Some(5), true));
        }
    }

    #[test]
    fn collections_lie_in_the_entry_and_move_with_it() {
        use crate::types::collection::Collection;
        use crate::types::list::{End, Limits, List};
        let limits = Limits::new(1, 0);
        let probe = |n: usize| {
            let mut list = List::new();
            (0..n).for_each(|_| list.push(End::Tail, b"x", &limits));
            NewValue::Object(list.into())
        };
        let len = |e: &Entry| e.get_as::<List>().map(Collection::len);
        for key in [&b"k"[..], &[7; 300]] {
            let mut e = Entry::new(key, probe(3), None, 5);
            assert_eq!((e.kind(), e.encoding()), (Type::List, Encoding::Quicklist));
            let push = |e: &mut Entry| {
                let list = e.get_as_mut::<List>().expect("a list");
                list.push(End::Tail, b"y", &limits);
            };
            push(&mut e);
            e.set_expiry(Some(77));
            let copy = e.copied(b"copy", 1);
            push(&mut e);
            assert_eq!((len(&copy), len(&e)), (Some(4), Some(5)));
            let Some(Garbage::Object(old)) = e.set_value(NewValue::Bytes(b"text")) else {
                panic!("the collection comes back")
            };
            assert_eq!((old.effort(), text(&e)), (7, b"text".to_vec()));
            assert_eq!((e.expiry(), len(&e)), (Some(77), None));
            assert!(e.set_value(NewValue::Bytes(&[b'x'; 5000])).is_none());
            assert!(e.set_value(probe(4)).is_some());
            assert!(e.set_value(NewValue::Int(3)).is_some());
            assert!(e.set_value(probe(2)).is_none());
            let e = e.renamed(b"other");
            assert_eq!(
                (e.key(), e.clock(), e.expiry()),
                (&b"other"[..], 5, Some(77))
            );
            assert!(e.into_garbage().is_some());
        }
    }

    #[test]
    fn replies_keep_the_bytes_they_hold() {
        let mut e = Entry::new(b"k", NewValue::Bytes(&[1; 5000]), None, 0);
        let StringRef::Shared(held) = e.string() else {
            panic!("big strings are shared")
        };
        let held = Arc::clone(held);
        e.bytes_mut()[0] = 9;
        assert_eq!((held[0], text(&e)[0]), (1, 9));
    }
}
