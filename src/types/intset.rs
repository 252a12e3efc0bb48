//! A set of integers as one sorted array, in Redis' own byte format.
//!
//! ```text
//!  0          4             8          12
//!  +----------+-------------+----------+---------+---------+ - - -
//!  | bytes in | bytes of an | number   | integer | integer |
//!  | all, LE  | integer, LE | of, LE   | LE      | LE      |
//!  +----------+-------------+----------+---------+---------+ - - -
//!             |<- what is saved, and what [`IntSet::as_bytes`] gives
//! ```
//!
//! All integers are as wide as the widest needs: 2, 4 or 8 bytes. A set that was widened once stays
//! so. The integers ascend, each once.

use crate::base::thin::{PREFIX, ThinBytes};

/// Bytes in front of the first integer, without the length of all.
const HEADER: usize = 8;
/// Where the first integer lies.
const FIRST: usize = PREFIX + HEADER;

/// See the module.
#[derive(Clone, Debug)]
pub struct IntSet {
    bytes: ThinBytes,
}

impl Default for IntSet {
    fn default() -> Self {
        Self::new()
    }
}

impl IntSet {
    /// An empty set.
    pub fn new() -> Self {
        let mut bytes = [0; FIRST];
        bytes[PREFIX] = 2;
        Self {
            bytes: ThinBytes::from_slice(&bytes),
        }
    }

    /// The set that `bytes` hold, if they are well formed throughout: for bytes from outside.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (header, integers) = bytes.split_at_checked(HEADER)?;
        let width = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        let len = u32::from_le_bytes(header[4..].try_into().expect("four bytes"));
        let size = (len as usize).checked_mul(width as usize)?;
        let too_long = u32::try_from(size + FIRST).is_err();
        if !matches!(width, 2 | 4 | 8) || integers.len() != size || too_long {
            return None;
        }
        let set = Self {
            bytes: ThinBytes::from_slice(&[&[0; PREFIX], bytes].concat()),
        };
        set.iter().is_sorted_by(|a, b| a < b).then_some(set)
    }

    /// The bytes, as they are saved.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes.as_slice()[PREFIX..]
    }

    /// Bytes of the allocation, as the allocator counts them.
    pub fn memory(&self) -> usize {
        self.bytes.memory()
    }

    /// Number of integers.
    #[inline]
    pub fn len(&self) -> usize {
        (self.bytes.len() - FIRST) / self.width()
    }

    /// True without integers.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == FIRST
    }

    #[inline]
    fn width(&self) -> usize {
        usize::from(self.bytes.as_slice()[PREFIX])
    }

    /// The integer of that rank, which is below the length.
    ///
    /// # Panics
    /// When it is not.
    #[inline]
    pub fn get(&self, rank: usize) -> i64 {
        let width = self.width();
        let at = FIRST + rank * width;
        read(&self.bytes.as_slice()[at..at + width])
    }

    /// The integers, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + '_ {
        let integers = self.bytes.as_slice()[FIRST..].chunks_exact(self.width());
        integers.map(read)
    }

    /// The rank of `n`, or the one that it would have.
    #[inline]
    pub fn search(&self, n: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        // Integers that are added often come in order.
        if high > 0 && n > self.get(high - 1) {
            return Err(high);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(&n) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// True when `n` is in the set.
    #[inline]
    pub fn contains(&self, n: i64) -> bool {
        width_of(n) <= self.width() && self.search(n).is_ok()
    }

    /// Adds `n`; true when it is new.
    pub fn insert(&mut self, n: i64) -> bool {
        if width_of(n) > self.width() {
            self.widen(width_of(n));
        }
        let Err(rank) = self.search(n) else {
            return false;
        };
        let width = self.width();
        let at = FIRST + rank * width;
        self.bytes.splice(at..at, &n.to_le_bytes()[..width]);
        self.write_len();
        true
    }

    /// Removes `n`; true when it was there.
    pub fn remove(&mut self, n: i64) -> bool {
        if width_of(n) > self.width() {
            return false;
        }
        let Ok(rank) = self.search(n) else {
            return false;
        };
        let width = self.width();
        let at = FIRST + rank * width;
        self.bytes.splice(at..at + width, &[]);
        self.write_len();
        true
    }

    fn write_len(&mut self) {
        let len = self.len() as u32;
        self.bytes.content_mut()[4..HEADER].copy_from_slice(&len.to_le_bytes());
    }

    fn widen(&mut self, width: usize) {
        let mut bytes = Vec::with_capacity(FIRST + (self.len() + 1) * width);
        bytes.extend_from_slice(&[0; PREFIX]);
        bytes.extend_from_slice(&(width as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.len() as u32).to_le_bytes());
        self.iter()
            .for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()[..width]));
        self.bytes = ThinBytes::from_slice(&bytes);
    }
}

/// Bytes that `n` needs.
#[inline]
fn width_of(n: i64) -> usize {
    match n {
        _ if i16::try_from(n).is_ok() => 2,
        _ if i32::try_from(n).is_ok() => 4,
        _ => 8,
    }
}

/// The integer of 2, 4 or 8 bytes.
#[inline]
fn read(bytes: &[u8]) -> i64 {
    match *bytes {
        [a, b] => i64::from(i16::from_le_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => unreachable!("integers are 2, 4 or 8 bytes wide"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn integers() -> impl Strategy<Value = i64> {
        prop_oneof![
            -20..20i64,
            -40_000..40_000i64,
            any::<i32>().prop_map(i64::from),
            any::<i64>()
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_set(steps in prop::collection::vec((any::<bool>(), integers()), 0..200)) {
            let (mut set, mut model) = (IntSet::new(), BTreeSet::new());
            for (add, n) in steps {
                if add {
                    prop_assert_eq!(set.insert(n), model.insert(n));
                } else {
                    prop_assert_eq!(set.remove(n), model.remove(&n));
                }
                prop_assert_eq!(set.contains(n), model.contains(&n));
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
            let copy = IntSet::from_bytes(set.as_bytes()).expect("well formed");
            prop_assert_eq!(copy.as_bytes(), set.as_bytes());
        }

        #[test]
        fn bytes_from_outside_are_sets_or_nothing(bytes in prop::collection::vec(0..4u8, 0..40)) {
            if let Some(set) = IntSet::from_bytes(&bytes) {
                prop_assert_eq!(set.as_bytes(), &bytes[..]);
                prop_assert!(set.iter().all(|n| set.contains(n)));
            }
        }
    }

    #[test]
    fn bytes_are_those_of_redis() {
        let mut set = IntSet::new();
        for n in [5, -1, 300] {
            assert!(set.insert(n));
        }
        let two: &[u8] = &[2, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 5, 0, 44, 1];
        assert_eq!(set.as_bytes(), two);
        assert!(set.insert(70_000) && set.remove(300) && set.remove(5));
        let four: &[u8] = &[4, 0, 0, 0, 2, 0, 0, 0, 255, 255, 255, 255, 0x70, 0x11, 1, 0];
        assert_eq!(set.as_bytes(), four);
        assert!(!set.contains(1 << 40) && !set.remove(1 << 40));
        assert_eq!(set.len(), 2);
    }
}
