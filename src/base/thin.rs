//! Bytes behind one pointer, without a capacity that somebody has to remember: it is the
//! allocator's size class of the length. Bytes that grow within their class stay where they are.
//!
//! A vector takes three words beside its allocation. Small collections are many, so both count.
//! [`ThinBytes`] is an owner of one word; the length lies in front, where a listpack has it anyway:
//!
//! ```text
//!  0                  4
//!  +------------------+-------------------+ - - - - - - +
//!  | length, LE,      | content           | unused, up  |
//!  | counts itself    |                   | to the class|
//!  +------------------+-------------------+ - - - - - - +
//! ```
//!
//! [`LeanBytes`] is for an owner that has two words to spend: its length, and four bytes of whatever
//! else has to be known, lie beside the pointer, and the allocation is content alone.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

use super::alloc::size_class;

/// Bytes at the front that hold the length.
pub const PREFIX: usize = 4;

/// Owned bytes of which the first four are their number, little endian, themselves included.
pub struct ThinBytes {
    raw: NonNull<u8>,
}

// SAFETY: it owns its allocation, as a vector does, and has no interior mutability.
unsafe impl Send for ThinBytes {}
// SAFETY: as above.
unsafe impl Sync for ThinBytes {}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(size_class(len), 8).expect("lengths are below 4 GiB")
}

impl ThinBytes {
    /// A copy of `bytes`, whose first four are replaced by the length.
    ///
    /// # Panics
    /// With less than four bytes, or 4 GiB and more.
    pub fn from_slice(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= PREFIX, "no room for the length");
        let mut new = Self::with_len(bytes.len());
        new.as_mut_slice()[PREFIX..].copy_from_slice(&bytes[PREFIX..]);
        new
    }

    /// An allocation of `len` zeros behind their length.
    fn with_len(len: usize) -> Self {
        assert!(u32::try_from(len).is_ok(), "longer than 4 GiB");
        let layout = layout(len);
        // SAFETY: the layout is not empty: `len` is at least PREFIX.
        let Some(raw) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let mut new = Self { raw };
        new.set_len(len);
        new
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        // SAFETY: every allocation holds at least the prefix; aligned to 8.
        unsafe { self.raw.cast::<u32>().write((len as u32).to_le()) };
    }

    /// Number of bytes, prefix included.
    #[inline]
    pub fn len(&self) -> usize {
        // SAFETY: the prefix is always initialised; aligned to 8.
        u32::from_le(unsafe { self.raw.cast::<u32>().read() }) as usize
    }

    /// True when there is nothing behind the prefix.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == PREFIX
    }

    /// All bytes, prefix included.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and initialised, and borrowed through `self`.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr(), self.len()) }
    }

    /// The bytes behind the prefix, to be changed in place. (The prefix is not lent: whoever
    /// wrote it wrong would free another size than was allocated.)
    #[inline]
    pub fn content_mut(&mut self) -> &mut [u8] {
        &mut self.as_mut_slice()[PREFIX..]
    }

    #[inline]
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as `as_slice`, exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.raw.as_ptr(), self.len()) }
    }

    /// Replaces the bytes of `range` (which counts from the prefix' start and does not touch it)
    /// by `with`. Moves the allocation only when its size class changes.
    ///
    /// # Panics
    /// When the range is out of bounds or touches the prefix, or the result is 4 GiB or more.
    #[inline]
    pub fn splice(&mut self, range: Range<usize>, with: &[u8]) {
        self.make_gap(range.clone(), with.len());
        self.as_mut_slice()[range.start..range.start + with.len()].copy_from_slice(with);
    }

    /// As [`ThinBytes::splice`] with `len` bytes that the caller writes next: returns them, their
    /// content is whatever was there.
    pub fn open(&mut self, range: Range<usize>, len: usize) -> &mut [u8] {
        let start = range.start;
        self.make_gap(range, len);
        &mut self.as_mut_slice()[start..start + len]
    }

    fn make_gap(&mut self, range: Range<usize>, gap: usize) {
        let old_len = self.len();
        assert!(PREFIX <= range.start && range.start <= range.end && range.end <= old_len);
        let tail = old_len - range.end;
        let new_len = range.start + gap + tail;
        assert!(u32::try_from(new_len).is_ok(), "longer than 4 GiB");
        if new_len > old_len {
            self.resize_allocation(old_len, new_len);
            // SAFETY: bytes that are lent must have been written.
            unsafe {
                let added = self.raw.as_ptr().add(old_len);
                std::ptr::write_bytes(added, 0, new_len - old_len);
            }
            self.set_len(new_len);
            self.as_mut_slice()
                .copy_within(range.end..old_len, range.start + gap);
        } else if new_len < old_len {
            self.as_mut_slice()
                .copy_within(range.end..old_len, range.start + gap);
            self.resize_allocation(old_len, new_len);
            self.set_len(new_len);
        }
    }

    fn resize_allocation(&mut self, old_len: usize, new_len: usize) {
        let (old, new) = (layout(old_len), layout(new_len));
        if old.size() == new.size() {
            return;
        }
        // SAFETY: allocated with the layout of `old_len`; the new size is not zero.
        let raw = unsafe { realloc(self.raw.as_ptr(), old, new.size()) };
        self.raw = NonNull::new(raw).unwrap_or_else(|| handle_alloc_error(new));
    }

    /// Bytes of the allocation, as the allocator counts them.
    pub fn memory(&self) -> usize {
        size_class(self.len())
    }
}

impl Clone for ThinBytes {
    fn clone(&self) -> Self {
        let layout = layout(self.len());
        // SAFETY: the layout is not empty.
        let Some(raw) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: both allocations hold `len` bytes, and the new one is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(self.raw.as_ptr(), raw.as_ptr(), self.len()) };
        Self { raw }
    }
}

impl Drop for ThinBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with the layout of the length, which is kept in step.
        unsafe { dealloc(self.raw.as_ptr(), layout(self.len())) }
    }
}

impl fmt::Debug for ThinBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl PartialEq for ThinBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

/// Owned bytes with their length and a small note beside the pointer. Without bytes there is no
/// allocation.
pub struct LeanBytes<T> {
    raw: NonNull<u8>,
    len: u32,
    /// What the owner wants to know of the bytes.
    pub note: T,
}

// SAFETY: it owns its allocation, as a vector does, and has no interior mutability.
unsafe impl<T: Send> Send for LeanBytes<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for LeanBytes<T> {}

impl<T> LeanBytes<T> {
    /// No bytes.
    pub const fn new(note: T) -> Self {
        Self {
            raw: NonNull::dangling(),
            len: 0,
            note,
        }
    }

    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True without bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and initialised, and borrowed through `self`; without
        // any the pointer is only not null.
        unsafe { std::slice::from_raw_parts(self.raw.as_ptr(), self.len()) }
    }

    /// Bytes of the allocation, as the allocator counts them.
    pub fn memory(&self) -> usize {
        match self.len() {
            0 => 0,
            len => size_class(len),
        }
    }

    /// Replaces the bytes of `range` by `with`. Moves the allocation only when its size class
    /// changes.
    ///
    /// # Panics
    /// When the range is out of bounds, or the result is 4 GiB or more.
    #[inline]
    pub fn splice(&mut self, range: Range<usize>, with: &[u8]) {
        let old_len = self.len();
        assert!(range.start <= range.end && range.end <= old_len);
        let new_len = old_len - range.len() + with.len();
        let stored = u32::try_from(new_len).expect("shorter than 4 GiB");
        if new_len > old_len {
            self.resize(new_len);
        }
        // SAFETY: the allocation holds the longer of both lengths. What lies behind the range moves
        // to where it will lie, within the new length; `with` is no part of it, because `self` is
        // borrowed exclusively. Then the first `new_len` bytes are all initialised.
        unsafe {
            let at = self.raw.as_ptr().add(range.start);
            std::ptr::copy(
                self.raw.as_ptr().add(range.end),
                at.add(with.len()),
                old_len - range.end,
            );
            std::ptr::copy_nonoverlapping(with.as_ptr(), at, with.len());
        }
        if new_len < old_len {
            self.resize(new_len);
        }
        self.len = stored;
    }

    /// Has the allocation hold `new_len` bytes, of which it keeps what it had.
    fn resize(&mut self, new_len: usize) {
        let (old_len, new) = (self.len(), layout(new_len));
        let raw = match (old_len, new_len) {
            (0, 0) => return,
            // SAFETY: the size is not 0.
            (0, _) => unsafe { alloc(new) },
            (_, 0) => {
                // SAFETY: allocated with the layout of the length, and not used after.
                unsafe { dealloc(self.raw.as_ptr(), layout(old_len)) }
                self.raw = NonNull::dangling();
                return;
            }
            _ if layout(old_len).size() == new.size() => return,
            // SAFETY: allocated with the layout of the length; the new size is not 0.
            _ => unsafe { realloc(self.raw.as_ptr(), layout(old_len), new.size()) },
        };
        self.raw = NonNull::new(raw).unwrap_or_else(|| handle_alloc_error(new));
    }
}

impl<T: Clone> Clone for LeanBytes<T> {
    fn clone(&self) -> Self {
        let mut new = Self::new(self.note.clone());
        new.splice(0..0, self.as_slice());
        new
    }
}

impl<T> Drop for LeanBytes<T> {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated with the layout of the length, which is kept in step.
            unsafe { dealloc(self.raw.as_ptr(), layout(self.len())) }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for LeanBytes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.note, self.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn owners_are_small() {
        assert_eq!(size_of::<Option<ThinBytes>>(), 8);
        assert_eq!(size_of::<LeanBytes<u32>>(), 16);
    }

    #[test]
    fn the_prefix_is_the_length() {
        let bytes = ThinBytes::from_slice(b"....abc");
        assert_eq!(bytes.as_slice(), b"\x07\0\0\0abc");
        assert!(!bytes.is_empty() && ThinBytes::from_slice(b"....").is_empty());
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector(
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..300, any::<u8>()), 1..60)
        ) {
            let mut bytes = ThinBytes::from_slice(&[0; PREFIX]);
            let (mut lean, mut model) = (LeanBytes::new(7u32), Vec::new());
            for (a, b, len, fill) in steps {
                let (a, b) = (a.index(model.len() + 1), b.index(model.len() + 1));
                let (start, end) = (a.min(b), a.max(b).min(a.min(b) + 40));
                let with = vec![fill; len];
                bytes.splice(start + PREFIX..end + PREFIX, &with);
                lean.splice(start..end, &with);
                model.splice(start..end, with);
                prop_assert_eq!(&bytes.as_slice()[PREFIX..], &model[..]);
                prop_assert_eq!(bytes.len(), model.len() + PREFIX);
                let copy = bytes.clone();
                prop_assert!(copy == bytes && copy.memory() >= copy.len());
                let copy = lean.clone();
                prop_assert_eq!((lean.as_slice(), copy.as_slice()), (&model[..], &model[..]));
                prop_assert!(copy.note == 7 && copy.memory() >= copy.len());
            }
            lean.splice(0..model.len(), &[]);
            prop_assert!(lean.is_empty() && lean.memory() == 0);
        }
    }
}
