//! Slots whose keys are on their way here from another node, and nobody's here yet.
//!
//! Nobody but who brings them changes these keys: they do not expire, as what comes later may give them more
//! time, and they are not evicted, as what comes later may be a part of a value. Walks do not show them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::entry::Entry;
use crate::base::crc::{self, key_slot};

/// Number of words of a bit for each slot.
const WORDS: usize = crc::SLOTS as usize / 64;

/// See the module. Empty unless a keyspace is ordered by slot.
pub struct Arriving {
    /// How many slots there are: what walks test first.
    count: AtomicUsize,
    bits: Box<[AtomicU64]>,
}

impl Default for Arriving {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            bits: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Arriving {
    /// True while there is any.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.count.load(Ordering::Acquire) != 0
    }

    /// True for a slot that is arriving.
    pub fn has(&self, slot: u16) -> bool {
        let word = &self.bits[usize::from(slot) / 64];
        word.load(Ordering::Acquire) >> (slot % 64) & 1 != 0
    }

    /// True for an entry of such a slot.
    #[inline]
    pub fn hides(&self, entry: &Entry) -> bool {
        self.hides_key(entry.key())
    }

    /// True for a key of such a slot.
    #[inline]
    pub fn hides_key(&self, key: &[u8]) -> bool {
        self.is_any() && self.has(key_slot(key))
    }

    /// All of them, in order.
    pub fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        let any = self.is_any();
        (0..crc::SLOTS).filter(move |slot| any && self.has(*slot))
    }

    /// Keys of a slot are to come, or are here as others are.
    pub fn set(&self, slot: u16, arrives: bool) {
        let (word, bit) = (&self.bits[usize::from(slot) / 64], 1 << (slot % 64));
        let before = match arrives {
            true => word.fetch_or(bit, Ordering::AcqRel),
            false => word.fetch_and(!bit, Ordering::AcqRel),
        };
        match (arrives, before & bit != 0) {
            (true, false) => _ = self.count.fetch_add(1, Ordering::AcqRel),
            (false, true) => _ = self.count.fetch_sub(1, Ordering::AcqRel),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_and_are_there() {
        let arriving = Arriving::default();
        assert!(!arriving.is_any() && !arriving.hides_key(b"a"));
        let slot = key_slot(b"a");
        arriving.set(slot, true);
        arriving.set(slot, true);
        assert!(arriving.is_any() && arriving.hides_key(b"a"));
        assert_eq!(arriving.slots().collect::<Vec<_>>(), [slot]);
        arriving.set(slot, false);
        assert!(!arriving.is_any() && !arriving.has(slot));
    }
}
