//! The counted B+tree: handles of records ordered by score, then member.
//!
//! A leaf holds up to [`SLOTS`] scores and handles, side by side each, so that a search by score
//! reads scores only. An inner node holds for each child its first slot and how many slots lie
//! below it, so ranks are found on the way down. Children belong to their node: there are no
//! links between leaves, and a copy or a drop is the compiler's.
//!
//! Invariants: all leaves are equally deep; the slots of a node ascend; `firsts` of an inner node
//! are the first slots of its children, `counts` what they hold; no node but a lone leaf is
//! empty; equal scores are ordered by the members that the records hold.

use std::cmp::Ordering;
use std::ops::Range;

use std::sync::Arc;

use smallvec::SmallVec;

use super::records::{Handle, Records};
use crate::base::alloc::size_class;

/// Slots of a leaf, children of an inner node: a leaf fills an allocation of 1 KiB.
const SLOTS: usize = 84;
/// A node below this many is merged with a neighbour or filled up from it.
const FEW: usize = SLOTS / 4;
/// Neighbours with at most this many together become one.
const MERGED: usize = SLOTS * 3 / 4;

/// What is looked for: a score and a member.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// Not NaN.
    pub score: f64,
    /// The member.
    pub member: &'a [u8],
}

/// Scores and handles, ascending.
#[derive(Clone, Debug)]
struct Slots {
    scores: [f64; SLOTS],
    handles: [Handle; SLOTS],
    len: usize,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            scores: [0.0; SLOTS],
            handles: [0; SLOTS],
            len: 0,
        }
    }
}

#[derive(Debug)]
struct Inner {
    firsts: Slots,
    counts: [u32; SLOTS],
    kids: Vec<Node>,
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        let mut kids = Vec::with_capacity(SLOTS);
        kids.extend_from_slice(&self.kids);
        Self {
            firsts: self.firsts.clone(),
            counts: self.counts,
            kids,
        }
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            firsts: Slots::default(),
            counts: [0; SLOTS],
            kids: Vec::with_capacity(SLOTS),
        }
    }
}

#[derive(Clone, Debug)]
enum Node {
    Leaf(Box<Slots>),
    /// Shared with a snapshot for a while: whoever changes it then copies it, and the leaves
    /// that it has, first.
    Inner(Arc<Inner>),
}

/// The tree; see the module.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Node,
    len: usize,
    tally: Tally,
}

/// Nodes of each kind.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    leaves: usize,
    inners: usize,
}

impl Tally {
    fn made(&mut self, node: &Node) {
        match node {
            Node::Leaf(_) => self.leaves += 1,
            Node::Inner(_) => self.inners += 1,
        }
    }

    fn gone(&mut self, node: &Node) {
        match node {
            Node::Leaf(_) => self.leaves -= 1,
            Node::Inner(_) => self.inners -= 1,
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            root: Node::Leaf(Box::default()),
            len: 0,
            tally: Tally {
                leaves: 1,
                inners: 0,
            },
        }
    }
}

impl Slots {
    fn scores(&self) -> &[f64] {
        &self.scores[..self.len]
    }

    fn first(&self) -> (f64, Handle) {
        (self.scores[0], self.handles[0])
    }

    /// How many slots are less than `key`, or (`or_equal`) not greater.
    fn less(&self, key: Key<'_>, or_equal: bool, records: &Records) -> usize {
        let scores = self.scores();
        let from = scores.partition_point(|&s| s < key.score);
        if scores.get(from).is_none_or(|&s| s != key.score) {
            return from;
        }
        let same = scores[from..].partition_point(|&s| s == key.score);
        let handles = &self.handles[from..from + same];
        from + handles.partition_point(|&handle| match records.member(handle).cmp(key.member) {
            Ordering::Less => true,
            Ordering::Equal => or_equal,
            Ordering::Greater => false,
        })
    }

    /// How many slots come before the first that is not `before`.
    fn before(&self, before: &impl Fn(f64, Handle) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = (low + high) / 2;
            match before(self.scores[middle], self.handles[middle]) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    fn insert(&mut self, at: usize, (score, handle): (f64, Handle)) {
        self.scores.copy_within(at..self.len, at + 1);
        self.handles.copy_within(at..self.len, at + 1);
        (self.scores[at], self.handles[at]) = (score, handle);
        self.len += 1;
    }

    fn set(&mut self, at: usize, (score, handle): (f64, Handle)) {
        (self.scores[at], self.handles[at]) = (score, handle);
    }

    /// Takes `count` slots out.
    fn remove(&mut self, at: usize, count: usize) {
        self.scores.copy_within(at + count..self.len, at);
        self.handles.copy_within(at + count..self.len, at);
        self.len -= count;
    }

    /// Moves the slots from `at` on to the front of `to`.
    fn move_end(&mut self, at: usize, to: &mut Self) {
        let count = self.len - at;
        to.scores.copy_within(..to.len, count);
        to.handles.copy_within(..to.len, count);
        to.scores[..count].copy_from_slice(&self.scores[at..self.len]);
        to.handles[..count].copy_from_slice(&self.handles[at..self.len]);
        to.len += count;
        self.len = at;
    }

    /// Moves the first `count` slots of `from` to the end of these.
    fn append(&mut self, from: &mut Self, count: usize) {
        let end = self.len + count;
        self.scores[self.len..end].copy_from_slice(&from.scores[..count]);
        self.handles[self.len..end].copy_from_slice(&from.handles[..count]);
        self.len = end;
        from.remove(0, count);
    }
}

/// Which ends of the whole tree a node lies at. What is added there is likely to be followed by
/// more: a full node then stays full, so that ascending insertion leaves no gaps.
#[derive(Clone, Copy)]
struct Ends {
    first: bool,
    last: bool,
}

impl Ends {
    /// Where a full node of which place `at` is wanted is cut.
    fn cut(self, at: usize) -> usize {
        match at {
            SLOTS if self.last => SLOTS,
            0 if self.first => 0,
            _ => SLOTS / 2,
        }
    }
}

impl Node {
    fn width(&self) -> usize {
        match self {
            Self::Leaf(slots) => slots.len,
            Self::Inner(inner) => inner.kids.len(),
        }
    }

    fn count(&self) -> u32 {
        match self {
            Self::Leaf(slots) => slots.len as u32,
            Self::Inner(inner) => inner.counts[..inner.kids.len()].iter().sum(),
        }
    }

    fn first(&self) -> (f64, Handle) {
        match self {
            Self::Leaf(slots) => slots.first(),
            Self::Inner(inner) => inner.firsts.first(),
        }
    }

    /// Adds a slot; the right part of this node if it had to be split.
    fn insert(
        &mut self,
        key: Key<'_>,
        handle: Handle,
        (ends, records): (Ends, &Records),
        tally: &mut Tally,
    ) -> Option<Node> {
        let slots = match self {
            Self::Leaf(slots) => slots,
            Self::Inner(inner) => {
                let inner = Arc::make_mut(inner);
                return inner.insert(key, handle, (ends, records), tally);
            }
        };
        let at = slots.less(key, false, records);
        let slot = (key.score, handle);
        if slots.len < SLOTS {
            slots.insert(at, slot);
            return None;
        }
        let cut = ends.cut(at);
        let mut right = Box::<Slots>::default();
        slots.move_end(cut, &mut right);
        if at < cut || (cut == 0 && at == 0) {
            slots.insert(at, slot);
        } else {
            right.insert(at - cut, slot);
        }
        let right = Self::Leaf(right);
        tally.made(&right);
        Some(right)
    }

    /// Moves slots or children between neighbours until both have enough or one has all; true
    /// when this one has all.
    fn balance(&mut self, right: &mut Self) -> bool {
        let (own, other) = (self.width(), right.width());
        let target = if own + other <= MERGED {
            own + other
        } else {
            (own + other) / 2
        };
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) if target >= own => {
                left.append(right, target - own);
            }
            (Self::Leaf(left), Self::Leaf(right)) => left.move_end(target, right),
            (Self::Inner(left), Self::Inner(right)) => {
                let (left, right) = (Arc::make_mut(left), Arc::make_mut(right));
                if target >= own {
                    left.append(right, target - own);
                } else {
                    left.move_end(target, right);
                }
            }
            _ => unreachable!("neighbours are equally deep"),
        }
        target == own + other
    }
}

impl Inner {
    /// The child in which `key` is or would be.
    fn child(&self, key: Key<'_>, records: &Records) -> usize {
        self.firsts.less(key, true, records).saturating_sub(1)
    }

    /// The child in which the slot at `rank` is, and the rank within it.
    fn child_at(&self, mut rank: usize) -> (usize, usize) {
        for (i, &count) in self.counts[..self.kids.len()].iter().enumerate() {
            if rank < count as usize {
                return (i, rank);
            }
            rank -= count as usize;
        }
        let last = self.kids.len() - 1;
        (last, rank + self.counts[last] as usize)
    }

    fn before_child(&self, child: usize) -> usize {
        self.counts[..child]
            .iter()
            .map(|&count| count as usize)
            .sum()
    }

    /// Takes over what became of a child.
    fn refresh(&mut self, child: usize) {
        self.firsts.set(child, self.kids[child].first());
        self.counts[child] = self.kids[child].count();
    }

    fn insert(
        &mut self,
        key: Key<'_>,
        handle: Handle,
        (ends, records): (Ends, &Records),
        tally: &mut Tally,
    ) -> Option<Node> {
        let at = self.child(key, records);
        let below = Ends {
            first: ends.first && at == 0,
            last: ends.last && at + 1 == self.kids.len(),
        };
        let Some(new) = self.kids[at].insert(key, handle, (below, records), tally) else {
            self.firsts.set(at, self.kids[at].first());
            self.counts[at] += 1;
            return None;
        };
        self.refresh(at);
        let at = at + 1;
        if self.kids.len() < SLOTS {
            self.adopt(at, new);
            return None;
        }
        let cut = ends.cut(at);
        let mut right = Inner::default();
        self.move_end(cut, &mut right);
        if at <= cut && cut < SLOTS {
            self.adopt(at, new);
        } else {
            right.adopt(at - cut, new);
        }
        let right = Node::Inner(Arc::new(right));
        tally.made(&right);
        Some(right)
    }

    fn adopt(&mut self, at: usize, kid: Node) {
        let len = self.kids.len();
        self.counts.copy_within(at..len, at + 1);
        self.counts[at] = kid.count();
        self.firsts.insert(at, kid.first());
        self.kids.insert(at, kid);
    }

    fn disown(&mut self, at: usize) {
        self.counts.copy_within(at + 1..self.kids.len(), at);
        self.firsts.remove(at, 1);
        self.kids.remove(at);
    }

    fn move_end(&mut self, at: usize, to: &mut Self) {
        let count = self.kids.len() - at;
        to.counts.copy_within(..to.kids.len(), count);
        to.counts[..count].copy_from_slice(&self.counts[at..at + count]);
        to.kids.splice(..0, self.kids.drain(at..));
        self.firsts.move_end(at, &mut to.firsts);
    }

    fn append(&mut self, from: &mut Self, count: usize) {
        let len = self.kids.len();
        self.counts[len..len + count].copy_from_slice(&from.counts[..count]);
        from.counts.copy_within(count..from.kids.len(), 0);
        self.kids.extend(from.kids.drain(..count));
        self.firsts.append(&mut from.firsts, count);
    }

    /// Tidies up after slots were taken from a child.
    fn settle(&mut self, child: usize, tally: &mut Tally) {
        if self.kids[child].width() == 0 {
            tally.gone(&self.kids[child]);
            self.disown(child);
            return;
        }
        self.refresh(child);
        if self.kids[child].width() >= FEW || self.kids.len() == 1 {
            return;
        }
        let left = child.min(self.kids.len() - 2);
        let (kids, rest) = self.kids.split_at_mut(left + 1);
        if kids[left].balance(&mut rest[0]) {
            tally.gone(&self.kids[left + 1]);
            self.disown(left + 1);
        } else {
            self.refresh(left + 1);
        }
        self.refresh(left);
    }
}

/// Removes `count` slots from `rank` on, as far as the leaf of the first one goes; shows them.
fn remove_at(
    node: &mut Node,
    rank: usize,
    count: usize,
    tally: &mut Tally,
    taken: &mut SmallVec<[Handle; SLOTS]>,
) {
    match node {
        Node::Leaf(slots) => {
            let count = count.min(slots.len - rank);
            taken.extend_from_slice(&slots.handles[rank..rank + count]);
            slots.remove(rank, count);
        }
        Node::Inner(inner) => {
            let (child, rank) = inner.child_at(rank);
            let inner = Arc::make_mut(inner);
            remove_at(&mut inner.kids[child], rank, count, tally, taken);
            inner.settle(child, tally);
        }
    }
}

impl Tree {
    /// The same tree as it is now: nodes are copied when they change, not before.
    pub fn share(&mut self) -> Self {
        self.clone()
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds the record `handle`, which has `key` and is not there yet.
    pub fn insert(&mut self, key: Key<'_>, handle: Handle, records: &Records) {
        let ends = Ends {
            first: true,
            last: true,
        };
        let made = self
            .root
            .insert(key, handle, (ends, records), &mut self.tally);
        if let Some(right) = made {
            let left = std::mem::replace(&mut self.root, Node::Inner(Arc::default()));
            let Node::Inner(root) = &mut self.root else {
                unreachable!("just made");
            };
            let root = Arc::make_mut(root);
            root.adopt(0, left);
            root.adopt(1, right);
            self.tally.made(&self.root);
        }
        self.len += 1;
    }

    /// How many slots are less than `key`.
    pub fn rank(&self, key: Key<'_>, records: &Records) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(slots) => return rank + slots.less(key, false, records),
                Node::Inner(inner) => {
                    let child = inner.child(key, records);
                    rank += inner.before_child(child);
                    node = &inner.kids[child];
                }
            }
        }
    }

    /// How many slots come before the first one that is not `before`.
    pub fn before(&self, before: impl Fn(f64, Handle) -> bool) -> usize {
        let (mut node, mut rank) = (&self.root, 0);
        loop {
            match node {
                Node::Leaf(slots) => return rank + slots.before(&before),
                Node::Inner(inner) => {
                    let child = inner.firsts.before(&before).saturating_sub(1);
                    rank += inner.before_child(child);
                    node = &inner.kids[child];
                }
            }
        }
    }

    /// The slot at `rank`, which is below the length.
    pub fn get(&self, mut rank: usize) -> (f64, Handle) {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(slots) => return (slots.scores[rank], slots.handles[rank]),
                Node::Inner(inner) => {
                    let (child, within) = inner.child_at(rank);
                    (node, rank) = (&inner.kids[child], within);
                }
            }
        }
    }

    /// Removes up to `count` slots from `rank` on, at most those of one leaf, and tells which.
    /// `rank` is below the length.
    pub fn remove(&mut self, rank: usize, count: usize) -> SmallVec<[Handle; SLOTS]> {
        let mut taken = SmallVec::new();
        remove_at(&mut self.root, rank, count, &mut self.tally, &mut taken);
        while let Node::Inner(inner) = &mut self.root {
            if inner.kids.len() > 1 {
                break;
            }
            self.tally.inners -= 1;
            self.root = Arc::make_mut(inner).kids.pop().unwrap_or_else(|| {
                self.tally.leaves += 1;
                Node::Leaf(Box::default())
            });
        }
        self.len -= taken.len();
        taken
    }

    /// Changes a slot's score if it keeps its place between the slots beside it in its leaf.
    pub fn rescore(&mut self, old: Key<'_>, score: f64, records: &Records) -> bool {
        let mut node = &mut self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let child = inner.child(old, records);
                    node = &mut Arc::make_mut(inner).kids[child];
                }
                Node::Leaf(slots) => {
                    let at = slots.less(old, false, records);
                    let scores = slots.scores();
                    // The first slot of a leaf is known further up, the last one has its
                    // neighbour elsewhere.
                    let fits = at > 0
                        && scores[at - 1] < score
                        && scores.get(at + 1).is_some_and(|&next| score < next);
                    if fits {
                        slots.scores[at] = score;
                    }
                    return fits;
                }
            }
        }
    }

    /// The slots of a range of ranks within the length, ascending or from its end.
    pub fn iter(&self, ranks: Range<usize>, descending: bool) -> Slice<'_> {
        let mut slice = Slice {
            path: SmallVec::new(),
            leaf: &EMPTY,
            at: 0,
            left: ranks.len(),
            descending,
        };
        if slice.left > 0 {
            let first = if descending {
                ranks.end - 1
            } else {
                ranks.start
            };
            slice.descend(&self.root, Some(first));
        }
        slice
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        let kids = SLOTS * size_of::<Node>();
        self.tally.leaves * size_class(size_of::<Slots>())
            + self.tally.inners * (size_class(size_of::<Inner>()) + kids)
    }

    /// Allocations.
    pub fn effort(&self) -> usize {
        self.tally.leaves + 2 * self.tally.inners
    }
}

static EMPTY: Slots = Slots {
    scores: [0.0; SLOTS],
    handles: [0; SLOTS],
    len: 0,
};

/// Slots of a range, see [`Tree::iter`].
pub struct Slice<'a> {
    /// The inner nodes above the leaf, with the child taken.
    path: SmallVec<[(&'a Inner, usize); 6]>,
    leaf: &'a Slots,
    /// The next slot.
    at: usize,
    left: usize,
    descending: bool,
}

impl<'a> Slice<'a> {
    /// Goes down from `node` to the slot at `rank` below it, or to its nearest one.
    fn descend(&mut self, mut node: &'a Node, mut rank: Option<usize>) {
        loop {
            match node {
                Node::Leaf(slots) => {
                    self.leaf = slots;
                    let nearest = if self.descending { slots.len - 1 } else { 0 };
                    self.at = rank.unwrap_or(nearest);
                    return;
                }
                Node::Inner(inner) => {
                    let nearest = if self.descending {
                        inner.kids.len() - 1
                    } else {
                        0
                    };
                    let child = match rank {
                        None => nearest,
                        Some(at) => {
                            let (child, within) = inner.child_at(at);
                            rank = Some(within);
                            child
                        }
                    };
                    self.path.push((inner, child));
                    node = &inner.kids[child];
                }
            }
        }
    }

    /// Goes to the leaf beside this one, which there is.
    fn next_leaf(&mut self) {
        while let Some((inner, child)) = self.path.pop() {
            let next = if self.descending {
                child.checked_sub(1)
            } else {
                Some(child + 1).filter(|&next| next < inner.kids.len())
            };
            if let Some(next) = next {
                self.path.push((inner, next));
                return self.descend(&inner.kids[next], None);
            }
        }
    }
}

impl Iterator for Slice<'_> {
    type Item = (f64, Handle);

    #[inline]
    fn next(&mut self) -> Option<(f64, Handle)> {
        if self.left == 0 {
            return None;
        }
        let slot = (self.leaf.scores[self.at], self.leaf.handles[self.at]);
        self.left -= 1;
        let is_last = match self.descending {
            true => self.at == 0,
            false => self.at + 1 == self.leaf.len,
        };
        match self.descending {
            _ if self.left == 0 => {}
            _ if is_last => self.next_leaf(),
            true => self.at -= 1,
            false => self.at += 1,
        }
        Some(slot)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

#[cfg(test)]
impl Tree {
    /// Holds the module's invariants against the tree.
    pub fn check(&self, records: &Records) {
        fn walk(node: &Node, depth: usize, leaves: &mut Vec<usize>) -> usize {
            match node {
                Node::Leaf(slots) => {
                    leaves.push(depth);
                    slots.len
                }
                Node::Inner(inner) => {
                    assert_eq!(inner.firsts.len, inner.kids.len());
                    let mut all = 0;
                    for (i, kid) in inner.kids.iter().enumerate() {
                        let count = walk(kid, depth + 1, leaves);
                        assert!(count > 0);
                        assert_eq!(count, inner.counts[i] as usize);
                        assert_eq!(kid.first().1, inner.firsts.handles[i]);
                        assert_eq!(kid.first().0, inner.firsts.scores[i]);
                        all += count;
                    }
                    all
                }
            }
        }
        let mut leaves = Vec::new();
        assert_eq!(walk(&self.root, 0, &mut leaves), self.len);
        assert!(leaves.iter().all(|depth| *depth == leaves[0]));
        assert_eq!(leaves.len(), self.tally.leaves);
        let all: Vec<_> = self.iter(0..self.len, false).collect();
        let key = |(score, handle): (f64, Handle)| (score, records.member(handle));
        assert!(all.windows(2).all(|w| key(w[0]) < key(w[1])));
    }
}
