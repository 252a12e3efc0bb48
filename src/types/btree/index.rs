//! Finds the record of a member: an extendible hash table of record handles.
//!
//! The top bits of a member's hash choose a segment through the directory, the low 16 bits a
//! bucket of the segment and, kept beside the handle, tell records apart without touching them.
//! A bucket is one cache line. What does not fit its bucket goes to the next one, and each full
//! bucket that it passes counts it, so that a search knows where to stop.
//!
//! A segment grows by a quarter, up to [`MOST_BUCKETS`], from the 16 bits alone; then it splits,
//! which reads its records again for their hashes. No step touches more than one segment, so
//! none takes long however big the table is; only the directory is copied as a whole.

use super::records::Handle;

const SLOTS: usize = 10;
/// Buckets of a segment that splits rather than grow: 4 KiB.
const MOST_BUCKETS: usize = 64;
/// Fill, in percent of its slots, at which a segment grows, and what it then has.
const FULL: usize = 85;
const RELAXED: usize = 68;
/// Fill in percent below which a segment shrinks.
const SPARSE: usize = 25;
/// Bits of the directory at most; hashes that agree in more share a segment of any size.
const DEEPEST: u32 = 32;

#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    tags: [u16; SLOTS],
    handles: [Handle; SLOTS],
    len: u8,
    /// How many records passed this bucket because it was full; 255 stays for good.
    passed: u8,
}

#[derive(Clone, Debug, Default)]
struct Segment {
    buckets: Vec<Bucket>,
    len: u32,
    /// Bits of the hash that all its members share.
    depth: u32,
}

/// The table; see the module.
#[derive(Clone, Debug)]
pub struct Index {
    directory: Vec<u32>,
    segments: Vec<Segment>,
    /// Bits of the hash that choose from the directory.
    depth: u32,
    /// Buckets of all segments.
    buckets: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            directory: vec![0],
            segments: vec![Segment::default()],
            depth: 0,
            buckets: 0,
        }
    }
}

impl Bucket {
    #[inline]
    fn find(&self, tag: u16, mut is_it: impl FnMut(Handle) -> bool) -> Option<usize> {
        let used = self.tags.iter().take(usize::from(self.len)).enumerate();
        let mut same = used.filter(|(_, t)| **t == tag);
        same.find(|(i, _)| is_it(self.handles[*i])).map(|(i, _)| i)
    }
}

impl Segment {
    fn with_room_for(len: usize, depth: u32) -> Self {
        let buckets = (len * 100).div_ceil(SLOTS * RELAXED).max(1);
        Self {
            buckets: vec![Bucket::default(); buckets],
            len: 0,
            depth,
        }
    }

    fn home(&self, tag: u16) -> usize {
        (usize::from(tag) * self.buckets.len()) >> 16
    }

    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() {
            0
        } else {
            bucket + 1
        }
    }

    /// Bucket and slot of a record.
    #[inline]
    fn find(&self, tag: u16, mut is_it: impl FnMut(Handle) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(tag);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            if let Some(slot) = bucket.find(tag, &mut is_it) {
                return Some((at, slot));
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Adds a record where there is room, which there is.
    fn place(&mut self, tag: u16, handle: Handle) {
        let mut at = self.home(tag);
        while usize::from(self.buckets[at].len) == SLOTS {
            let bucket = &mut self.buckets[at];
            bucket.passed = bucket.passed.saturating_add(1);
            at = self.next(at);
        }
        let bucket = &mut self.buckets[at];
        let slot = usize::from(bucket.len);
        (bucket.tags[slot], bucket.handles[slot]) = (tag, handle);
        bucket.len += 1;
        self.len += 1;
    }

    fn take(&mut self, tag: u16, (place, slot): (usize, usize)) {
        let mut at = self.home(tag);
        while at != place {
            let bucket = &mut self.buckets[at];
            bucket.passed -= u8::from(bucket.passed < u8::MAX);
            at = self.next(at);
        }
        let bucket = &mut self.buckets[place];
        bucket.len -= 1;
        let last = usize::from(bucket.len);
        bucket.tags[slot] = bucket.tags[last];
        bucket.handles[slot] = bucket.handles[last];
        self.len -= 1;
    }

    /// Shows the records that belong to a bucket, wherever they are.
    fn each_of(&self, home: usize, mut show: impl FnMut(u16, Handle)) {
        let mut at = home;
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let used = usize::from(bucket.len);
            let records = bucket.tags[..used].iter().zip(&bucket.handles[..used]);
            let own = records.filter(|(tag, _)| self.home(**tag) == home);
            own.for_each(|(tag, handle)| show(*tag, *handle));
            if bucket.passed == 0 {
                return;
            }
            at = self.next(at);
        }
    }

    fn records(&self) -> impl Iterator<Item = (u16, Handle)> {
        self.buckets.iter().flat_map(|bucket| {
            let len = usize::from(bucket.len);
            let tags = bucket.tags[..len].iter().copied();
            tags.zip(bucket.handles[..len].iter().copied())
        })
    }

    /// As many buckets as its records and some more want.
    fn resized(&self) -> Self {
        let mut new = Self::with_room_for(self.len as usize + 1, self.depth);
        self.records()
            .for_each(|(tag, handle)| new.place(tag, handle));
        new
    }
}

fn tag_of(hash: u64) -> u16 {
    hash as u16
}

impl Index {
    #[inline]
    fn place_of(&self, hash: u64) -> usize {
        // A shift by all 64 bits is none; the directory has one entry then.
        (hash >> 1 >> (63 - self.depth)) as usize
    }

    #[inline]
    fn segment(&self, hash: u64) -> usize {
        self.directory[self.place_of(hash)] as usize
    }

    /// The record with `hash` that `is_it` accepts.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(Handle) -> bool) -> Option<Handle> {
        let segment = &self.segments[self.segment(hash)];
        let (bucket, slot) = segment.find(tag_of(hash), is_it)?;
        Some(segment.buckets[bucket].handles[slot])
    }

    /// Adds a record that is not there yet. `hash_of` gives the hashes of others.
    pub fn insert(&mut self, hash: u64, handle: Handle, hash_of: impl Fn(Handle) -> u64) {
        loop {
            let id = self.segment(hash);
            let segment = &mut self.segments[id];
            let buckets = segment.buckets.len();
            if (segment.len as usize + 1) * 100 <= buckets * SLOTS * FULL {
                return segment.place(tag_of(hash), handle);
            }
            if buckets >= MOST_BUCKETS && segment.depth < DEEPEST {
                self.split(id, hash, &hash_of);
            } else {
                *segment = segment.resized();
                self.buckets += segment.buckets.len() - buckets;
            }
        }
    }

    /// Parts the members of a segment, to which `hash` belongs, by one more bit.
    fn split(&mut self, id: usize, hash: u64, hash_of: &impl Fn(Handle) -> u64) {
        let old = &self.segments[id];
        let depth = old.depth + 1;
        let hashed: Vec<(u64, Handle)> = old.records().map(|(_, h)| (hash_of(h), h)).collect();
        let bit = |hash: u64| (hash >> (64 - depth)) & 1 == 1;
        let ones = hashed.iter().filter(|(hash, _)| bit(*hash)).count();
        let before = old.buckets.len();
        let mut halves = [hashed.len() - ones, ones].map(|len| Segment::with_room_for(len, depth));
        for (hash, handle) in hashed {
            halves[usize::from(bit(hash))].place(tag_of(hash), handle);
        }
        self.buckets += halves[0].buckets.len() + halves[1].buckets.len() - before;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|&id| [id, id]).collect();
            self.depth += 1;
        }
        let [zero, one] = halves;
        self.segments[id] = zero;
        let new = self.segments.len() as u32;
        self.segments.push(one);
        // The directory's entries for the old segment lie side by side; the second half is new.
        let run = 1 << (self.depth - depth);
        let prefix = (hash >> (64 - depth) | 1) as usize;
        self.directory[prefix * run..(prefix + 1) * run].fill(new);
    }

    /// Removes a record.
    pub fn remove(&mut self, hash: u64, handle: Handle) {
        let id = self.segment(hash);
        let segment = &mut self.segments[id];
        let Some(place) = segment.find(tag_of(hash), |h| h == handle) else {
            debug_assert!(false, "a record without its entry in the index");
            return;
        };
        segment.take(tag_of(hash), place);
        let buckets = segment.buckets.len();
        if buckets > 2 && segment.len as usize * 100 < buckets * SLOTS * SPARSE {
            *segment = segment.resized();
            self.buckets -= buckets - segment.buckets.len();
        }
    }

    /// Shows the records of one bucket, from `cursor` (0: the beginning) on, and returns where to
    /// go on; 0 at the end. A cursor is a place in the order of the segments' bits of the hash,
    /// then of the low 16: growth and splits move no record behind a cursor that has not passed it.
    pub fn scan(&self, cursor: u64, mut show: impl FnMut(Handle)) -> u64 {
        let (prefix, tag) = (cursor >> 16 & 0xffff_ffff, cursor & 0xffff);
        let segment = &self.segments[self.segment(prefix << 32)];
        if segment.len > 0 {
            let home = segment.home(tag as u16);
            segment.each_of(home, |t, handle| {
                if u64::from(t) >= tag {
                    show(handle);
                }
            });
            // The least tag that belongs to the next bucket.
            let next = ((home as u64 + 1) << 16).div_ceil(segment.buckets.len() as u64);
            if next < 1 << 16 {
                return prefix << 16 | next;
            }
        }
        let step = 1 << (32 - segment.depth);
        let next = (prefix & !(step - 1)) + step;
        if next < 1 << 32 { next << 16 } else { 0 }
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        self.buckets * size_of::<Bucket>()
            + self.segments.capacity() * size_of::<Segment>()
            + self.directory.capacity() * size_of::<u32>()
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.buckets * SLOTS
    }

    /// Allocations.
    pub fn effort(&self) -> usize {
        self.segments.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mixing of bits that never meets itself again.
    fn hash(handle: Handle) -> u64 {
        let mut x = u64::from(handle).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 29;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ x >> 32
    }

    fn has(index: &Index, handle: Handle, hash: impl Fn(Handle) -> u64) -> bool {
        index.find(hash(handle), |h| h == handle) == Some(handle)
    }

    fn fills_and_empties(n: Handle, hash: impl Fn(Handle) -> u64 + Copy) {
        let mut index = Index::default();
        for handle in 0..n {
            assert!(!has(&index, handle, hash));
            index.insert(hash(handle), handle, hash);
        }
        assert!((0..n).all(|handle| has(&index, handle, hash)));
        (0..n)
            .filter(|h| h % 8 != 0)
            .for_each(|h| index.remove(hash(h), h));
        assert!((0..n).all(|h| has(&index, h, hash) == (h % 8 == 0)));
        let counted: usize = index.segments.iter().map(|s| s.buckets.len()).sum();
        assert_eq!(counted, index.buckets);
    }

    #[test]
    fn finds_what_is_there_through_splits_and_removals() {
        fills_and_empties(100_000, hash);
        fills_and_empties(50, hash);
        // Hashes that hardly differ: no bit of the directory, few tags.
        fills_and_empties(3000, |h| u64::from(h) % 7);
        fills_and_empties(3000, |h| u64::from(h) << 20);
    }

    #[test]
    fn is_small() {
        let mut index = Index::default();
        for handle in 0..1_000_000 {
            index.insert(hash(handle), handle, hash);
        }
        assert!(index.memory() < 10_500_000, "{}", index.memory());
    }
}
