//! A sorted map in parts that can be kept as it is at a moment without copying it: what is pending
//! in a group of a stream, of which there may be millions.
//!
//! The parts are sorted runs of up to [`PART`] pairs. [`Parted::share`] shares them; a part that is
//! changed while the other map still has it is copied first. Keys mostly come in order and go in
//! order, so parts are full where nothing was inserted in between.
//!
//! Invariant: no part is empty; all keys of a part are below those of the next; `len` is the sum of
//! the parts' lengths.

use std::collections::VecDeque;
use std::ops::Index;

use crate::base::share::Share;

/// Most pairs of a part.
const PART: usize = 256;

type Part<K, V> = Share<VecDeque<(K, V)>>;

/// See the module.
#[derive(Clone, Debug)]
pub struct Parted<K, V> {
    parts: VecDeque<Part<K, V>>,
    len: usize,
}

impl<K, V> Default for Parted<K, V> {
    fn default() -> Self {
        Self {
            parts: VecDeque::new(),
            len: 0,
        }
    }
}

impl<K: Ord, V> Parted<K, V> {
    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without pairs.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where a key is, or belongs: the part and the place there. There is no such part when the
    /// key is greater than all.
    #[inline]
    fn place(&self, key: &K) -> (usize, Result<usize, usize>) {
        let below = |part: &Part<K, V>| part.back().is_some_and(|(last, _)| last < key);
        let at = self.parts.partition_point(below);
        let within = self
            .parts
            .get(at)
            .map_or(Err(0), |part| part.binary_search_by(|(k, _)| k.cmp(key)));
        (at, within)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (part, within) = self.place(key);
        let within = within.ok()?;
        Some(&self.parts[part][within].1)
    }

    /// True if the key is there.
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).1.is_ok()
    }

    /// The pair with the least key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        self.parts.front()?.front().map(|(k, v)| (k, v))
    }

    /// The pair with the greatest key.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        self.parts.back()?.back().map(|(k, v)| (k, v))
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let pairs = self.parts.iter().flat_map(|part| part.iter());
        pairs.map(|(k, v)| (k, v))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The pairs from a key on.
    pub fn from<'a>(&'a self, key: &K) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let (part, within) = self.place(key);
        let within = within.unwrap_or_else(|place| place);
        let pairs = self.parts.range(part..).flat_map(|part| part.iter());
        pairs.skip(within).map(|(k, v)| (k, v))
    }

    /// The keys from one on.
    pub fn keys_from<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a K> + use<'a, K, V> {
        self.from(key).map(|(key, _)| key)
    }

    /// Bytes of its allocations, estimated.
    pub fn memory(&self) -> usize {
        // Parts that were filled in order are full, others half full at least.
        self.parts.capacity() * size_of::<Part<K, V>>() + self.len * size_of::<(K, V)>() * 5 / 4
    }
}

impl<K: Ord + Clone, V: Clone> Parted<K, V> {
    /// The same map, as it is now.
    pub fn share(&mut self) -> Self {
        Self {
            parts: self.parts.iter_mut().map(Share::share).collect(),
            len: self.len,
        }
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (part, within) = self.place(key);
        let within = within.ok()?;
        Some(&mut self.parts[part].to_mut()[within].1)
    }

    /// Puts a pair in; the value that the key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (mut part, within) = self.place(&key);
        let mut within = match within {
            Ok(within) => {
                let slot = &mut self.parts[part].to_mut()[within].1;
                return Some(std::mem::replace(slot, value));
            }
            Err(within) => within,
        };
        self.len += 1;
        if part == self.parts.len() {
            // Behind all others: the last part is filled up before there is another.
            match self.parts.back_mut() {
                Some(last) if last.len() < PART => last.to_mut().push_back((key, value)),
                _ => self.parts.push_back(Share::Own([(key, value)].into())),
            }
            return None;
        }
        if self.parts[part].len() == PART {
            let upper = self.parts[part].to_mut().split_off(PART / 2);
            self.parts.insert(part + 1, Share::Own(upper));
            if within > PART / 2 {
                (part, within) = (part + 1, within - PART / 2);
            }
        }
        self.parts[part].to_mut().insert(within, (key, value));
        None
    }

    /// Takes a pair out; its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (part, within) = self.place(key);
        let within = within.ok()?;
        let (_, value) = self.parts[part].to_mut().remove(within)?;
        self.len -= 1;
        let left = self.parts[part].len();
        if left == 0 {
            self.parts.remove(part);
        } else if let Some(next) = self.parts.get(part + 1)
            && left + next.len() <= PART / 2
        {
            let next = self.parts.remove(part + 1).map(Share::into_inner);
            let pairs = next.into_iter().flatten();
            self.parts[part].to_mut().extend(pairs);
        }
        Some(value)
    }
}

impl<K: Ord, V> Index<&K> for Parted<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the caller knows the key")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    fn agrees(map: &Parted<u32, u64>, model: &BTreeMap<u32, u64>) {
        assert_eq!(map.len(), model.len());
        let is_sound = |part: &Part<u32, u64>| !part.is_empty() && part.len() <= PART;
        assert!(map.parts.iter().all(is_sound));
        assert!(map.iter().eq(model));
        assert_eq!(map.first_key_value(), model.first_key_value());
        assert_eq!(map.last_key_value(), model.last_key_value());
        for key in [0, 7, 500, 1999, u32::MAX] {
            assert_eq!(map.get(&key), model.get(&key));
            assert_eq!(map.contains_key(&key), model.contains_key(&key));
            assert!(map.from(&key).eq(model.range(key..)));
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(
            steps in prop::collection::vec((0..8u8, 0..2000u32, any::<u64>()), 0..3000)
        ) {
            let (mut map, mut model) = (Parted::default(), BTreeMap::new());
            let mut kept: Option<(Parted<u32, u64>, BTreeMap<u32, u64>)> = None;
            let mut last = 2000;
            for (step, key, value) in steps {
                match step {
                    0..3 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    3 => {
                        last += 1;
                        prop_assert_eq!(map.insert(last, value), model.insert(last, value));
                    }
                    4 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    5 => {
                        if let Some((first, _)) = model.pop_first() {
                            prop_assert!(map.remove(&first).is_some());
                        }
                    }
                    6 => prop_assert_eq!(
                        map.get_mut(&key).map(|v| std::mem::replace(v, value)),
                        model.get_mut(&key).map(|v| std::mem::replace(v, value))
                    ),
                    _ if key % 50 == 0 => {
                        if let Some((map, model)) = kept.take() {
                            agrees(&map, &model);
                        }
                        kept = Some((map.share(), model.clone()));
                    }
                    _ => {}
                }
            }
            agrees(&map, &model);
            if let Some((map, model)) = kept {
                agrees(&map, &model);
            }
            while let Some((key, _)) = model.pop_last() {
                prop_assert!(map.remove(&key).is_some());
            }
            prop_assert!(map.is_empty() && map.parts.is_empty());
        }
    }
}
