//! Sets of hash slots, in the bits of the bus' messages.

use std::fmt;

use crate::base::crc;

/// Number of slots.
pub const SLOTS: usize = crc::SLOTS as usize;
/// Bytes of a set in a message.
pub const BYTES: usize = SLOTS / 8;

/// A set of slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    bits: Box<[u8; BYTES]>,
    len: u16,
}

impl Default for SlotSet {
    fn default() -> Self {
        Self {
            bits: Box::new([0; BYTES]),
            len: 0,
        }
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::default();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl SlotSet {
    /// The set of a message.
    pub fn from_bytes(bits: &[u8; BYTES]) -> Self {
        let len: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
        Self {
            bits: Box::new(*bits),
            len: len as u16,
        }
    }

    /// Its bits as a message holds them.
    pub fn as_bytes(&self) -> &[u8; BYTES] {
        &self.bits
    }

    /// Number of slots in it.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// True without slots.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when `slot` is in it.
    pub fn has(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        self.bits[slot / 8] & (1 << (slot % 8)) != 0
    }

    /// Puts `slot` into it; false when it was there.
    pub fn insert(&mut self, slot: u16) -> bool {
        let is_new = !self.has(slot);
        self.bits[usize::from(slot) / 8] |= 1 << (slot % 8);
        self.len += u16::from(is_new);
        is_new
    }

    /// Takes `slot` out of it; false when it was not there.
    pub fn remove(&mut self, slot: u16) -> bool {
        let was_there = self.has(slot);
        self.bits[usize::from(slot) / 8] &= !(1 << (slot % 8));
        self.len -= u16::from(was_there);
        was_there
    }

    /// Its slots, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let bytes = self.bits.iter().enumerate().filter(|(_, byte)| **byte != 0);
        bytes.flat_map(|(index, &byte)| {
            let bits = (0..8u16).filter(move |bit| byte & (1 << bit) != 0);
            bits.map(move |bit| index as u16 * 8 + bit)
        })
    }

    /// The set of these ranges, both ends included.
    pub fn of(ranges: &[(u16, u16)]) -> Self {
        ranges
            .iter()
            .flat_map(|(first, last)| *first..=*last)
            .collect()
    }

    /// True when a slot is in both.
    pub fn meets(&self, other: &Self) -> bool {
        let pairs = self.bits.iter().zip(other.bits.iter());
        pairs.into_iter().any(|(a, b)| a & b != 0)
    }

    /// Its ranges, as one word.
    pub fn text(&self) -> String {
        let ranges = self.ranges();
        let words = ranges.iter().map(|(first, last)| format!("{first}-{last}"));
        words.collect::<Vec<_>>().join(",")
    }

    /// What [`SlotSet::text`] gave; `None` for anything else.
    pub fn from_text(text: &str) -> Option<Self> {
        let slot = |text: &str| {
            let slot = text.parse::<u16>().ok();
            slot.filter(|slot| usize::from(*slot) < SLOTS)
        };
        let mut set = Self::default();
        for word in text.split(',') {
            let (first, last) = word.split_once('-')?;
            (slot(first)?..=slot(last)?).for_each(|slot| _ = set.insert(slot));
        }
        Some(set)
    }

    /// Its slots as ranges, both ends included.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_counts_and_shows_ranges() {
        let mut set: SlotSet = [0, 1, 2, 7, 8, 16383].into_iter().collect();
        assert!(!set.insert(7));
        assert_eq!(set.ranges(), [(0, 2), (7, 8), (16383, 16383)]);
        assert!(set.remove(1));
        assert!(!set.remove(1));
        assert_eq!(set.len(), 5);
        assert_eq!(SlotSet::from_bytes(set.as_bytes()), set);
    }

    #[test]
    fn all_slots_are_counted() {
        let all: SlotSet = (0..SLOTS as u16).collect();
        assert_eq!(all.len(), SLOTS);
        assert_eq!(all.ranges(), [(0, 16383)]);
    }
}
