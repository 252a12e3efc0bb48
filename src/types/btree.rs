//! Big sorted sets: members in order of score and of their bytes, found by rank, score or name.
//!
//! Three parts that know each other by 32-bit handles only:
//!
//! - [`records`]: score and member, once, in blocks without pointers;
//! - [`nodes`]: a counted B+tree whose slots carry the score and a handle, for order and rank;
//! - [`index`]: a hash table of handles, from the member to its record.
//!
//! A member of 15 bytes takes some 50 bytes in all: 24 of record, 17 of tree and 9 of index, each
//! at its usual fill. Every operation is logarithmic or better, and none stalls when the set
//! grows: blocks, leaves and segments of the index are made and split one at a time.
//!
//! All ranges are ranges of ranks: what lies between scores or members is found by two descents.

mod index;
mod nodes;
mod records;

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::LazyLock;

use index::Index;
use nodes::{Key, Tree};
use records::{Handle, Records};

/// A big sorted set; see the module.
#[derive(Clone, Debug, Default)]
pub struct BTree {
    records: Records,
    tree: Tree,
    index: Index,
}

/// Nobody outside knows which members share a bucket.
static SEED: LazyLock<foldhash::quality::FixedState> =
    LazyLock::new(|| foldhash::quality::FixedState::with_seed(rand::random()));

#[inline]
fn hash(member: &[u8]) -> u64 {
    let mut hasher = SEED.build_hasher();
    hasher.write(member);
    hasher.finish()
}

/// What [`BTree::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inserted {
    /// The member is new.
    New,
    /// The member was there with this score, which it no longer has.
    Was(f64),
}

impl BTree {
    /// Number of members.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// True without members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True unless the set holds as much as it can address (32 GiB).
    pub fn has_room(&self) -> bool {
        self.records.has_room()
    }

    /// The same set as it is now, to be read by rank only: its parts are copied when they change,
    /// not before.
    pub fn share(&mut self) -> Self {
        Self {
            records: self.records.share(),
            tree: self.tree.share(),
            index: Index::default(),
        }
    }

    #[inline]
    fn find(&self, hash: u64, member: &[u8]) -> Option<Handle> {
        self.index.find(hash, |h| self.records.member(h) == member)
    }

    /// A member's score.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        let handle = self.find(hash(member), member)?;
        Some(self.records.score(handle))
    }

    /// Adds a member or changes its score, which is not NaN.
    pub fn insert(&mut self, score: f64, member: &[u8]) -> Inserted {
        let mut was = Inserted::New;
        self.alter(member, |old| {
            was = old.map_or(Inserted::New, Inserted::Was);
            Some(score)
        });
        was
    }

    /// Shows the score of a member, if there is one, to `change`, and gives it the one that this
    /// returns, if it does.
    #[inline]
    pub fn alter(&mut self, member: &[u8], change: impl FnOnce(Option<f64>) -> Option<f64>) {
        let hash_of_member = hash(member);
        if let Some(handle) = self.find(hash_of_member, member) {
            let old = self.records.score(handle);
            if let Some(score) = change(Some(old)).filter(|&score| score != old) {
                self.rescore(handle, old, score);
            }
        } else if let Some(score) = change(None) {
            self.add(hash_of_member, score, member);
        }
    }

    fn add(&mut self, hash_of_member: u64, score: f64, member: &[u8]) {
        let handle = self.records.insert(score, member);
        let records = &self.records;
        self.tree.insert(Key { score, member }, handle, records);
        self.index
            .insert(hash_of_member, handle, |h| hash(records.member(h)));
    }

    fn rescore(&mut self, handle: Handle, old: f64, score: f64) {
        let records = &self.records;
        let member = records.member(handle);
        let key = |score| Key { score, member };
        if !self.tree.rescore(key(old), score, records) {
            let rank = self.tree.rank(key(old), records);
            self.tree.remove(rank, 1);
            self.tree.insert(key(score), handle, records);
        }
        self.records.set_score(handle, score);
    }

    /// Removes a member; its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let hash = hash(member);
        let handle = self.find(hash, member)?;
        let score = self.records.score(handle);
        let rank = self.tree.rank(Key { score, member }, &self.records);
        self.tree.remove(rank, 1);
        self.index.remove(hash, handle);
        self.records.remove(handle);
        Some(score)
    }

    /// Removes the members of a range of ranks, which lies within the length.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) {
        let mut left = ranks.len();
        while left > 0 {
            let taken = self.tree.remove(ranks.start, left);
            for handle in &taken {
                let hash = hash(self.records.member(*handle));
                self.index.remove(hash, *handle);
                self.records.remove(*handle);
            }
            left -= taken.len();
        }
    }

    /// A member's rank from the lowest score, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let score = self.score(member)?;
        let rank = self.tree.rank(Key { score, member }, &self.records);
        Some((rank, score))
    }

    /// The member at a rank, which is below the length.
    pub fn get(&self, rank: usize) -> (&[u8], f64) {
        let (score, handle) = self.tree.get(rank);
        (self.records.member(handle), score)
    }

    /// How many members come before the first whose score is not `before`; those that are come
    /// first in the order.
    pub fn before_score(&self, before: impl Fn(f64) -> bool) -> usize {
        self.tree.before(|score, _| before(score))
    }

    /// As [`BTree::before_score`], by the members, all of which have one score.
    pub fn before_member(&self, before: impl Fn(&[u8]) -> bool) -> usize {
        self.tree
            .before(|_, handle| before(self.records.member(handle)))
    }

    /// The members of a range of ranks within the length, ascending or from its end.
    pub fn iter(&self, ranks: Range<usize>, descending: bool) -> Iter<'_> {
        Iter {
            records: &self.records,
            slots: self.tree.iter(ranks, descending),
            batch: [(&[], 0.0); AHEAD],
            at: 0,
            filled: 0,
        }
    }

    /// Shows some members from `cursor` (0: the beginning) on, and returns where to go on; 0 at the
    /// end. A member that stays throughout a whole walk is shown, whatever else changes.
    pub fn scan(&self, cursor: u64, mut show: impl FnMut(&[u8], f64)) -> u64 {
        self.index.scan(cursor, |handle| {
            show(self.records.member(handle), self.records.score(handle));
        })
    }

    /// Bytes allocated, as the allocator counts them.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.records.memory() + self.tree.memory() + self.index.memory()
    }

    /// The hash table of members: its slots, and its bytes. For statistics.
    pub fn index_size(&self) -> (usize, usize) {
        (self.index.slots(), self.index.memory())
    }

    /// About how many allocations freeing it takes.
    pub fn effort(&self) -> usize {
        self.records.effort() + self.tree.effort() + self.index.effort()
    }
}

/// Records that [`Iter`] asks for at once.
const AHEAD: usize = 16;

/// Members with their scores. Records lie anywhere, so each is likely to miss the caches: they
/// are located some at a time, for the processor to fetch side by side.
pub struct Iter<'a> {
    records: &'a Records,
    slots: nodes::Slice<'a>,
    batch: [(&'a [u8], f64); AHEAD],
    at: usize,
    filled: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<(&'a [u8], f64)> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
            for (to, (score, handle)) in self.batch.iter_mut().zip(&mut self.slots) {
                *to = (self.records.member(handle), score);
                self.filled += 1;
            }
            if self.filled == 0 {
                return None;
            }
        }
        self.at += 1;
        Some(self.batch[self.at - 1])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.slots.size_hint().0 + self.filled - self.at;
        (left, Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random;
    use std::collections::BTreeMap;

    /// The set that a tree should be: members by (score, bytes).
    #[derive(Default)]
    struct Model(BTreeMap<Vec<u8>, f64>);

    impl Model {
        fn sorted(&self) -> Vec<(&[u8], f64)> {
            let mut all: Vec<_> = self.0.iter().map(|(m, s)| (&m[..], *s)).collect();
            all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(b.0)));
            all
        }
    }

    fn agrees(tree: &BTree, model: &Model) {
        tree.tree.check(&tree.records);
        let all = model.sorted();
        assert_eq!(tree.len(), all.len());
        assert!(tree.iter(0..all.len(), false).eq(all.iter().copied()));
        assert!(tree.iter(0..all.len(), true).eq(all.iter().rev().copied()));
        for (rank, (member, score)) in all.iter().enumerate() {
            assert_eq!(tree.rank(member), Some((rank, *score)));
            assert_eq!(tree.get(rank), (*member, *score));
        }
        if !all.is_empty() {
            let (from, to) = (all.len() / 3, all.len() / 2);
            assert!(tree.iter(from..to, false).eq(all[from..to].iter().copied()));
            assert!(
                tree.iter(from..to, true)
                    .eq(all[from..to].iter().rev().copied())
            );
        }
        for bound in [-1.0, 0.0, 3.0, 7.5, 1e9] {
            let less = all.iter().filter(|(_, s)| *s < bound).count();
            assert_eq!(tree.before_score(|s| s < bound), less);
        }
    }

    fn member(n: usize) -> Vec<u8> {
        format!("m{:0width$}", n, width = n % 23).into_bytes()
    }

    /// Grows and shrinks a set of up to `members` with scores below `scores`.
    fn random_walk(seed: u64, members: usize, scores: usize) {
        random::seed(seed);
        let (mut tree, mut model) = (BTree::default(), Model::default());
        for phase in 0..6 {
            let adding = if phase % 2 == 0 { 85 } else { 25 };
            let kept = tree.share();
            let as_it_was = Model(model.0.clone());
            for _ in 0..members * 2 {
                let member = member(random::below(members));
                if random::below(100) < adding {
                    let score = random::below(scores) as f64;
                    let was = model.0.insert(member.clone(), score);
                    let expected = was.map_or(Inserted::New, Inserted::Was);
                    assert_eq!(tree.insert(score, &member), expected);
                } else {
                    assert_eq!(tree.remove(&member), model.0.remove(&member));
                }
            }
            agrees(&tree, &model);
            for descending in [false, true] {
                let mut all = as_it_was.sorted();
                if descending {
                    all.reverse();
                }
                assert!(kept.iter(0..kept.len(), descending).eq(all));
            }
            let copy = tree.clone();
            agrees(&copy, &model);
            let len = tree.len();
            let from = random::below(len + 1);
            let to = from + random::below(len - from + 1);
            let gone: Vec<Vec<u8>> = tree
                .iter(from..to, false)
                .map(|(m, _)| m.to_vec())
                .collect();
            tree.remove_ranks(from..to);
            gone.iter()
                .for_each(|m| assert!(model.0.remove(m).is_some()));
            agrees(&tree, &model);
        }
        tree.remove_ranks(0..tree.len());
        agrees(&tree, &Model::default());
    }

    #[test]
    fn is_a_sorted_map() {
        random_walk(1, 20, 10);
        random_walk(2, 300, 1_000_000);
        random_walk(3, 3000, 1_000_000);
        random_walk(4, 3000, 1);
        random_walk(5, 6000, 12);
    }

    #[test]
    fn a_walk_shows_what_stays() {
        let mut tree = BTree::default();
        let name = |n: usize| format!("{n}").into_bytes();
        (0..20_000).for_each(|n| _ = tree.insert(n as f64, &name(n)));
        let (mut cursor, mut seen, mut step) = (0, vec![0; 60_000], 0);
        loop {
            cursor = tree.scan(cursor, |member, score| {
                assert_eq!(member, name(score as usize));
                seen[score as usize] += 1;
            });
            if cursor == 0 {
                break;
            }
            // The first half stays; the second goes, and others come.
            step += 7;
            (step..step + 7).for_each(|n| {
                tree.insert((20_000 + n) as f64, &name(20_000 + n));
                tree.remove(&name(10_000 + n % 10_000));
            });
        }
        assert!(seen[..10_000].iter().all(|&times| times >= 1));
        assert!(seen[..10_000].iter().filter(|&&times| times > 1).count() < 3000);
    }

    #[test]
    fn lexical_order_within_one_score() {
        let mut tree = BTree::default();
        for n in 0..5000 {
            tree.insert(0.0, format!("{:05}", n * 7919 % 5000).as_bytes());
        }
        assert_eq!(tree.before_member(|m| m < &b"02500"[..]), 2500);
        assert_eq!(tree.before_member(|m| m <= &b"02500"[..]), 2501);
        assert_eq!(tree.get(77).0, b"00077");
    }

    #[test]
    fn ascending_insertion_fills_leaves() {
        let (mut up, mut down) = (BTree::default(), BTree::default());
        for n in 0..64_000 {
            up.insert(f64::from(n), format!("{n}").as_bytes());
            down.insert(-f64::from(n), format!("{n}").as_bytes());
        }
        for tree in [up, down] {
            tree.tree.check(&tree.records);
            assert!(tree.tree.memory() < 64_000 * 14, "{}", tree.tree.memory());
        }
    }

    #[test]
    fn takes_few_bytes_a_member() {
        random::seed(1);
        let mut tree = BTree::default();
        for n in 0..300_000 {
            let score = random::bits() as u32;
            tree.insert(f64::from(score), format!("member:{n:08}").as_bytes());
        }
        let per = |bytes: usize| bytes / tree.len();
        assert!(per(tree.memory()) <= 55, "{}", per(tree.memory()));
    }
}
