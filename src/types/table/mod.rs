//! The hash table of big hashes and sets: extendible, in the order of hashes, without an allocation
//! for each element and without a rehash of the whole.
//!
//! ```text
//!  hash         | directory (depth bits) ............ | home in the segment | ...... | tag |
//!  directory    numbers of segments; one with a shorter prefix stands in several places
//!  segment      up to a thousand records, see [`segment`]
//! ```
//!
//! A segment that is full splits in two; two that became small are merged. So the slowest insert
//! rewrites one segment of at most 32 KiB, and now and then the directory is doubled: four bytes for
//! each segment or so. Positions in hash order mean the same however segments are cut: that is what
//! [`Table::scan`] gives and takes as a cursor.
//!
//! Invariants:
//! 1. The directory has 2^depth numbers; a segment of depth d stands in 2^(depth - d) of them, side
//!    by side, and its prefix is their common beginning.
//! 2. `deepest` is the number of segments whose depth is the directory's.
//!
//! What it never does: read a clock, or keep an order that was asked for: elements come in that of
//! their hashes, whose seed is drawn when the process starts.

use std::hash::{BuildHasher, Hasher};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use smallvec::SmallVec;

use crate::base::random;
use crate::base::share::Share;

mod bigs;
mod segment;

use bigs::Bigs;
use segment::{HOME_BITS, MAX_SLOTS, Segment, Spot};

/// What the records of a table hold beside their keys.
pub trait Layout {
    /// Bytes of every value; `None` when each value has a length of its own.
    const VALUE: Option<usize>;
}

/// Keys alone: the members of a set.
#[derive(Clone, Copy, Debug)]
pub enum Keys {}
/// Keys with values of any length: the fields of a hash.
#[derive(Clone, Copy, Debug)]
pub enum Pairs {}
/// Keys with values of `N` bytes each.
#[derive(Clone, Copy, Debug)]
pub enum Fixed<const N: usize> {}

impl Layout for Keys {
    const VALUE: Option<usize> = Some(0);
}
impl Layout for Pairs {
    const VALUE: Option<usize> = None;
}
impl<const N: usize> Layout for Fixed<N> {
    const VALUE: Option<usize> = Some(N);
}

/// Bits of a cursor: clients may keep it in a double.
const CURSOR_BITS: u32 = 53;
/// No segment is ever this deep: homes must follow from a cursor's bits.
const MAX_DEPTH: u8 = (CURSOR_BITS - HOME_BITS) as u8;
/// Segments of a chunk: what is copied when one of them changes while a snapshot shares them.
const CHUNK: usize = 4;
/// Elements from which a table is taken not to fit the caches.
const WARM_MIN: usize = 4096;
/// Darts thrown at the slots before the elements are counted through.
const DARTS: usize = 48;

/// The 64 bits that place a key. Seeded, so that clients cannot choose collisions.
#[inline]
fn hash(key: &[u8]) -> u64 {
    static SEED: LazyLock<foldhash::quality::FixedState> =
        LazyLock::new(|| foldhash::quality::FixedState::with_seed(rand::random()));
    let mut hasher = SEED.build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// Keys with what `L` says beside them; see the module.
pub struct Table<L: Layout> {
    directory: Vec<u32>,
    /// In chunks, so that no insert copies them all.
    segments: Vec<Share<Vec<Segment>>>,
    len: usize,
    /// Number of the directory's bits.
    depth: u8,
    deepest: usize,
    /// No segment has or had more slots than this.
    widest: usize,
    bigs: Bigs,
    layout: PhantomData<L>,
}

/// Where a record is, until the table changes.
#[derive(Clone, Copy)]
struct Place {
    segment: usize,
    spot: Spot,
}

impl<L: Layout> Default for Table<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: Layout> Clone for Table<L> {
    fn clone(&self) -> Self {
        Self {
            directory: self.directory.clone(),
            segments: self.segments.clone(),
            len: self.len,
            depth: self.depth,
            deepest: self.deepest,
            widest: self.widest,
            bigs: self.bigs.clone(),
            layout: PhantomData,
        }
    }
}

impl<L: Layout> std::fmt::Debug for Table<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<L: Layout> Table<L> {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            directory: vec![0],
            segments: vec![Share::Own(vec![Segment::new(0, 0)])],
            len: 0,
            depth: 0,
            deepest: 1,
            widest: Segment::new(0, 0).slots(),
            bigs: Bigs::default(),
            layout: PhantomData,
        }
    }

    /// The same table as it is now: segments are copied when they change, not before.
    pub fn share(&mut self) -> Self {
        Self {
            directory: self.directory.clone(),
            segments: self.segments.iter_mut().map(Share::share).collect(),
            bigs: self.bigs.share(),
            ..*self
        }
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when `key` is there.
    #[inline]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.find(hash(key), key).is_some()
    }

    /// The value of `key`.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let place = self.find(hash(key), key)?;
        Some(self.record(place).1)
    }

    /// The value of `key`, to be changed in place.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut [u8]> {
        let Place { segment, spot } = self.find(hash(key), key)?;
        let segment = &mut self.segments[segment / CHUNK].to_mut()[segment % CHUNK];
        Some(segment.value_mut::<L>(spot, &mut self.bigs))
    }

    /// Sets the value of `key`, which has as many bytes as the layout says; true when the key is
    /// new.
    #[inline]
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> bool {
        debug_assert!(L::VALUE.is_none_or(|len| len == value.len()));
        let hash = hash(key);
        let at = self.directory[self.slot_of(hash)] as usize;
        let segment = &mut self.segments[at / CHUNK].to_mut()[at % CHUNK];
        let found = segment.find(hash, key, &self.bigs);
        if let Some(spot) = found {
            if L::VALUE == Some(0) {
                return false;
            }
            let old = segment.value_mut::<L>(spot, &mut self.bigs);
            if old.len() == value.len() {
                old.copy_from_slice(value);
                return false;
            }
            segment.remove::<L>(spot, hash, &mut self.bigs);
            segment.tidy::<L>(&self.bigs);
        }
        if segment
            .insert::<L>(hash, (key, value), &mut self.bigs)
            .is_err()
        {
            self.insert_splitting(hash, key, value);
        } else {
            self.widest = self.widest.max(segment.slots());
        }
        self.len += usize::from(found.is_none());
        found.is_none()
    }

    #[cold]
    fn insert_splitting(&mut self, hash: u64, key: &[u8], value: &[u8]) {
        loop {
            let at = self.directory[self.slot_of(hash)] as usize;
            self.split(at);
            let at = self.directory[self.slot_of(hash)] as usize;
            let segment = &mut self.segments[at / CHUNK].to_mut()[at % CHUNK];
            if segment
                .insert::<L>(hash, (key, value), &mut self.bigs)
                .is_ok()
            {
                self.widest = self.widest.max(segment.slots());
                return;
            }
        }
    }

    /// Reads what lookups of these keys are going to read, one step of all of them after the other,
    /// so that the processor waits for memory once for many and not for each. Worth its time only
    /// for a table that does not fit the caches.
    pub fn warm<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        const BATCH: usize = 64;
        if self.len < WARM_MIN {
            return;
        }
        let mut touched = 0;
        let mut places: SmallVec<[(u64, u32); BATCH]> = SmallVec::new();
        for key in keys.take(BATCH) {
            let hash = hash(key);
            let at = self.directory[self.slot_of(hash)];
            touched += self.segment(at as usize).touch_bucket(hash);
            places.push((hash, at));
        }
        for (hash, at) in places {
            touched += self.segment(at as usize).touch_record(hash);
        }
        std::hint::black_box(touched);
    }

    /// Removes `key`; true when it was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let hash = hash(key);
        let Some(place) = self.find(hash, key) else {
            return false;
        };
        self.remove_at(place, hash);
        true
    }

    /// Removes a random element; its key.
    pub fn pop_random(&mut self) -> Option<Vec<u8>> {
        let place = self.random_place()?;
        let key = self.record(place).0.to_vec();
        self.remove_at(place, hash(&key));
        Some(key)
    }

    /// An element, each with the same probability.
    pub fn random(&self) -> Option<(&[u8], &[u8])> {
        Some(self.record(self.random_place()?))
    }

    /// Every element once, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.all_segments().flat_map(|segment| {
            let spots = segment.spots();
            spots.map(|spot| segment.record::<L>(spot, &self.bigs))
        })
    }

    /// Shows every element once, as [`Table::iter`] does but faster, until `visit` breaks.
    #[inline]
    pub fn try_for_each<'a, B>(
        &'a self,
        mut visit: impl FnMut(&'a [u8], &'a [u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for segment in self.all_segments() {
            segment.try_for_each::<L, B>(&self.bigs, &mut visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Shows elements from a cursor on, in the order of hashes: at least `count` if there are so
    /// many nearby. The next cursor, below 2^53; 0 at the end.
    ///
    /// What is in the table from the first call (with 0) to the last is shown exactly once, however
    /// the table grows and shrinks between calls.
    pub fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(&'a [u8], &'a [u8]),
    ) -> u64 {
        if cursor >> CURSOR_BITS != 0 {
            return 0;
        }
        let (mut shown, mut steps) = (0, 0);
        let mut position = cursor;
        while shown < count && steps < count.saturating_mul(10) {
            let from = position << (64 - CURSOR_BITS);
            let segment = self.segment(self.directory[self.slot_of(from)] as usize);
            let home = segment.home(from);
            segment.visit_home::<L>(home, &self.bigs, |hash, key, value| {
                // Homes may have been cut differently when the cursor was given.
                if hash >= from {
                    visit(key, value);
                    shown += 1;
                }
            });
            steps += 1;
            let next = (u64::from(segment.prefix) << HOME_BITS) + segment.home_start(home + 1);
            position = next << (CURSOR_BITS - HOME_BITS - u32::from(segment.depth));
            if position >> CURSOR_BITS != 0 {
                return 0;
            }
        }
        position
    }

    /// Bytes allocated beyond the table itself; of a big table an estimate.
    pub fn memory(&self) -> usize {
        // Segments are much alike: some of the chunks tell of all.
        let step = (self.segments.len() / 16).max(1);
        let chunks = || self.segments.iter().step_by(step);
        let seen: usize = chunks().map(|chunk| chunk.len()).sum();
        let bytes: usize = chunks()
            .flat_map(|chunk| chunk.iter())
            .map(Segment::memory)
            .sum();
        let headers = seen * self.segments.len() / chunks().len().max(1) * size_of::<Segment>()
            + self.segments.capacity() * size_of::<Share<Vec<Segment>>>();
        self.directory.capacity() * size_of::<u32>()
            + headers
            + self.bigs.memory()
            + (bytes as f64 * self.segment_count() as f64 / seen.max(1) as f64) as usize
    }

    /// Number of slots, counted: for statistics.
    pub fn slots(&self) -> usize {
        self.all_segments().map(Segment::slots).sum()
    }

    /// As [`Table::try_for_each`]; segments that nobody else has are freed once they were shown.
    pub fn consume<B>(
        self,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for chunk in self.segments {
            for segment in chunk.iter() {
                segment.try_for_each::<L, B>(&self.bigs, &mut visit)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// About how many allocations freeing takes: segments are much alike.
    pub fn effort(&self) -> usize {
        3 + self.segment_count() * self.segment(0).allocations() + self.bigs.len()
    }

    fn all_segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().flat_map(|chunk| chunk.iter())
    }

    fn segment_count(&self) -> usize {
        self.segments.len().saturating_sub(1) * CHUNK
            + self.segments.last().map_or(0, |chunk| chunk.len())
    }

    /// Where the directory has the segment of a hash.
    #[inline]
    fn slot_of(&self, hash: u64) -> usize {
        (hash >> 1 >> (63 - self.depth)) as usize
    }

    #[inline]
    fn segment(&self, at: usize) -> &Segment {
        &self.segments[at / CHUNK][at % CHUNK]
    }

    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let segment = self.directory[self.slot_of(hash)] as usize;
        let spot = self.segment(segment).find(hash, key, &self.bigs)?;
        Some(Place { segment, spot })
    }

    #[inline]
    fn record(&self, place: Place) -> (&[u8], &[u8]) {
        self.segment(place.segment)
            .record::<L>(place.spot, &self.bigs)
    }

    /// The numbers of the directory that a segment stands in.
    fn range_of(&self, segment: &Segment) -> std::ops::Range<usize> {
        let span = self.depth - segment.depth;
        let prefix = segment.prefix as usize;
        prefix << span..(prefix + 1) << span
    }

    /// Splits the segment `at`.
    fn split(&mut self, at: usize) {
        let segment = self.segment(at);
        assert!(segment.depth < MAX_DEPTH, "seeded hashes are spread evenly");
        if segment.depth == self.depth {
            let directory = self.directory.iter().flat_map(|&number| [number; 2]);
            self.directory = directory.collect();
            self.depth += 1;
            self.deepest = 0;
        }
        let [lower, upper] = self.segment(at).split::<L>(&self.bigs);
        self.widest = self.widest.max(lower.slots()).max(upper.slots());
        if lower.depth == self.depth {
            self.deepest += 2;
        }
        let new = self.segment_count();
        let range = self.range_of(&upper);
        self.directory[range].fill(new as u32);
        self.segments[at / CHUNK].to_mut()[at % CHUNK] = lower;
        if new.is_multiple_of(CHUNK) {
            self.segments.push(Share::default());
        }
        self.segments[new / CHUNK].to_mut().push(upper);
    }

    fn remove_at(&mut self, place: Place, hash: u64) {
        let at = place.segment;
        let segment = &mut self.segments[at / CHUNK].to_mut()[at % CHUNK];
        segment.remove::<L>(place.spot, hash, &mut self.bigs);
        segment.tidy::<L>(&self.bigs);
        let small = segment.len() <= MAX_SLOTS / 6 && segment.depth > 0;
        self.len -= 1;
        if small {
            self.merge(at);
        }
    }

    /// Merges the segment `at` with its other half, if both are small.
    fn merge(&mut self, at: usize) {
        let segment = self.segment(at);
        let depth = segment.depth;
        let sibling = (segment.prefix as usize ^ 1) << (self.depth - depth);
        let other = self.directory[sibling] as usize;
        if self.segment(other).depth != depth {
            return;
        }
        let Some(whole) = Segment::merged::<L>(segment, self.segment(other), &self.bigs) else {
            return;
        };
        self.widest = self.widest.max(whole.slots());
        let range = self.range_of(&whole);
        self.directory[range].fill(at as u32);
        self.segments[at / CHUNK].to_mut()[at % CHUNK] = whole;
        self.forget(other);
        if depth == self.depth {
            self.deepest -= 2;
            if self.deepest == 0 {
                self.halve();
            }
        }
    }

    /// Takes out the segment `at`, which the directory does not have any more.
    fn forget(&mut self, at: usize) {
        let chunk = self.segments.last_mut().expect("a segment is there");
        let chunk = chunk.to_mut();
        let last = chunk.pop().expect("no chunk is empty");
        if chunk.is_empty() {
            self.segments.pop();
        } else if chunk.len() == CHUNK / 2 {
            chunk.shrink_to_fit();
        }
        if at < self.segment_count() {
            let range = self.range_of(&last);
            self.directory[range].fill(at as u32);
            self.segments[at / CHUNK].to_mut()[at % CHUNK] = last;
        }
    }

    /// Halves the directory, of which every number stands in two places at least.
    fn halve(&mut self) {
        self.directory = self.directory.iter().copied().step_by(2).collect();
        self.depth -= 1;
        let pairs = self.directory.chunks_exact(2);
        self.deepest = match self.depth {
            0 => 1,
            _ => pairs.filter(|pair| pair[0] != pair[1]).count() * 2,
        };
    }

    /// A place, each with the same probability.
    fn random_place(&self) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        // A dart hits each slot that a segment of full depth could have with the same probability;
        // segments that stand in several places have that much more room for misses.
        for _ in 0..DARTS {
            let bits = random::bits();
            let segment = self.directory[self.slot_of(bits)] as usize;
            let target = self.segment(segment);
            let most = match self.depth {
                0 => target.slots(),
                _ => self.widest << (self.depth - target.depth),
            };
            let slot = ((bits & 0xffff_ffff) as usize * most) >> 32;
            if let Some(spot) = target.spot(slot) {
                return Some(Place { segment, spot });
            }
        }
        self.place_of_rank(random::below(self.len))
    }

    /// The place of an element by its rank in the order of segments.
    fn place_of_rank(&self, mut rank: usize) -> Option<Place> {
        for (number, segment) in self.all_segments().enumerate() {
            if rank < segment.len() {
                let spot = segment.spots().nth(rank)?;
                return Some(Place {
                    segment: number,
                    spot,
                });
            }
            rank -= segment.len();
        }
        None
    }
}

#[cfg(test)]
mod tests;
