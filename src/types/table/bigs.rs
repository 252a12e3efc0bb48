//! The records of a [`Table`](super::Table) that are too big for a segment's chunks: one allocation
//! each, found by number.
//!
//! Numbers of removed records are given to later ones; the chunks of slots are allocated one at a
//! time, so that no insert copies them all.

use std::sync::Arc;

use crate::base::alloc::size_class;
use crate::base::share::Share;

/// Slots of a chunk.
const CHUNK: usize = 256;
/// Bytes that a record's allocation has before it: who shares it is counted there.
const COUNTS: usize = 16;
/// The number that ends the list of free slots.
const NONE: u32 = u32::MAX;

#[derive(Clone)]
enum Slot {
    /// A record: the key's length, and key and value.
    Used(usize, Arc<[u8]>),
    /// None; the next free slot.
    Free(u32),
}

/// See the module.
#[derive(Clone)]
pub struct Bigs {
    chunks: Vec<Share<Vec<Slot>>>,
    free: u32,
    len: u32,
    /// Bytes of the records' allocations.
    bytes: usize,
}

impl Default for Bigs {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            free: NONE,
            len: 0,
            bytes: 0,
        }
    }
}

impl Bigs {
    /// The same records as they are now: they are copied when they change, not before.
    pub fn share(&mut self) -> Self {
        Self {
            chunks: self.chunks.iter_mut().map(Share::share).collect(),
            ..*self
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        let slots: usize = self.chunks.iter().map(|chunk| chunk.capacity()).sum();
        self.bytes + slots * size_of::<Slot>()
    }

    /// Key and value of a record.
    pub fn record(&self, number: u32) -> (&[u8], &[u8]) {
        match &self.chunks[number as usize / CHUNK][number as usize % CHUNK] {
            Slot::Used(key_len, bytes) => bytes.split_at(*key_len),
            Slot::Free(_) => unreachable!("records are asked for by those that refer to them"),
        }
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        &mut self.chunks[number as usize / CHUNK].to_mut()[number as usize % CHUNK]
    }

    /// The value of a record, to be changed in place.
    pub fn value_mut(&mut self, number: u32) -> &mut [u8] {
        match self.slot(number) {
            Slot::Used(key_len, bytes) => &mut Arc::make_mut(bytes)[*key_len..],
            Slot::Free(_) => unreachable!("records are asked for by those that refer to them"),
        }
    }

    /// Adds a record; its number.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let bytes = Arc::<[u8]>::from([key, value].concat());
        self.bytes += size_class(bytes.len() + COUNTS);
        self.len += 1;
        let slot = Slot::Used(key.len(), bytes);
        if self.free != NONE {
            let number = self.free;
            if let Slot::Free(next) = std::mem::replace(self.slot(number), slot) {
                self.free = next;
            }
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Share::default());
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].to_mut().push(slot);
        (last * CHUNK + self.chunks[last].len() - 1) as u32
    }

    /// Removes a record.
    pub fn remove(&mut self, number: u32) {
        let next = self.free;
        if let Slot::Used(_, bytes) = std::mem::replace(self.slot(number), Slot::Free(next)) {
            self.bytes -= size_class(bytes.len() + COUNTS);
            self.free = number;
            self.len -= 1;
        }
        if self.len == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut bigs = Bigs::default();
        let numbers: Vec<u32> = (0..600u32)
            .map(|i| bigs.add(&i.to_le_bytes(), b"value"))
            .collect();
        assert_eq!(numbers, (0..600).collect::<Vec<_>>());
        bigs.remove(7);
        bigs.remove(555);
        assert_eq!(bigs.add(b"key", b"1"), 555);
        assert_eq!(bigs.add(b"", b"2"), 7);
        assert_eq!(bigs.add(b"k", b""), 600);
        bigs.value_mut(555)[0] = b'3';
        assert_eq!(bigs.record(555), (&b"key"[..], &b"3"[..]));
        assert_eq!(bigs.record(7), (&b""[..], &b"2"[..]));
        assert_eq!(bigs.record(600), (&b"k"[..], &b""[..]));
        assert_eq!(
            (bigs.len(), bigs.record(9).0),
            (601, &9u32.to_le_bytes()[..])
        );
        (0..601).for_each(|number| bigs.remove(number));
        assert_eq!((bigs.len(), bigs.memory()), (0, 0));
    }
}
