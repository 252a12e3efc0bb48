//! A segment of a [`Table`](super::Table): the records whose hashes begin with one prefix.
//!
//! ```text
//!  bucket, 64 bytes   | displaced | 21 tags, 0: free slot | 21 places in the chunks, 16 bits each |
//!  chunks, 2 KiB each | record | record | ... records that died lie between living ones
//!  record             | length | key | [length] value |     or     | 0xff | number among the bigs |
//!  length             0..=0xef: itself; 0xf0..=0xfe: 4 bits here, 8 bits in the next byte
//! ```
//!
//! Invariants:
//! 1. Buckets follow the order of hashes: the 24 hash bits after the prefix, scaled to the number
//!    of buckets, are a record's *home*.
//! 2. A record's slot is in its home or in one of the next [`REACH`] buckets (from the last on to
//!    the first). The home counts those that are elsewhere, so that most misses read one line.
//! 3. No record lies in two chunks. All but the last, which is being filled, are of one size, so
//!    that what one segment gives up fits the next, and growing moves nothing.
//! 4. No insert makes the chunks exceed [`MAX_BYTES`], and a quarter of them may be dead. (Records in
//!    another order may leave more over at the ends of chunks: a copy has at most a third more, which
//!    16 bits still reach.)
//!
//! What it never does: allocate for a single record, but for one of more than [`INLINE_MAX`]
//! bytes; split or merge, which is the table's business.

use std::ops::ControlFlow;

use super::bigs::Bigs;
use super::{Layout, hash};
use crate::base::alloc::size_class;

/// Slots of a bucket.
const SLOTS: usize = 21;
/// Buckets after the home that may hold a record's slot.
const REACH: usize = 5;
/// Living records for each bucket before a segment gets more of them.
const LOAD: usize = 17;
/// Living records for each bucket when a segment is built for a known number.
const COMFORT: usize = 15;
/// Living records for each bucket below which a segment gets fewer of them.
const SPARSE: usize = 7;
/// Buckets of a segment that splits when it needs more.
const MAX_BUCKETS: usize = 64;
/// Most slots of a segment.
pub const MAX_SLOTS: usize = MAX_BUCKETS * SLOTS;
/// Bytes of a chunk.
const CHUNK: usize = 2048;
/// Most bytes of all chunks.
const MAX_BYTES: usize = 32 << 10;
/// Most bytes of key and value together that lie in a chunk: four such records fill one.
pub const INLINE_MAX: usize = CHUNK / 4 - 4;
/// Fewer dead bytes than this are no reason to rebuild.
const DEAD_MIN: usize = 256;
/// Hash bits, after the prefix, that give the home.
pub const HOME_BITS: u32 = 24;
/// First byte of a record that lies in an allocation of its own; its number follows.
const BIG: u8 = 0xff;
/// Bytes of such a record.
const BIG_RECORD: usize = 5;
/// First byte of a length of two bytes.
const LONG: u8 = 0xf0;

#[derive(Clone, Copy)]
#[repr(C)]
struct Bucket {
    /// Records with this home whose slots are in other buckets.
    displaced: u8,
    tags: [u8; SLOTS],
    at: [u16; SLOTS],
}

const EMPTY: Bucket = Bucket {
    displaced: 0,
    tags: [0; SLOTS],
    at: [0; SLOTS],
};

impl Bucket {
    /// The slots whose tag is `tag`, as bits.
    #[inline]
    fn matching(&self, tag: u8) -> u32 {
        let word = |from: usize| {
            let bytes = self.tags[from..from + 8].try_into().expect("eight bytes");
            equal_bytes(u64::from_le_bytes(bytes), tag)
        };
        // The third word overlaps the second, whose last three bytes it repeats.
        word(0) | word(8) << 8 | (word(SLOTS - 8) >> 3) << 16
    }

    #[inline]
    fn occupied(&self) -> u32 {
        !self.matching(0) & ((1 << SLOTS) - 1)
    }
}

/// Which bytes of `word` are `byte`, as eight bits.
#[inline]
fn equal_bytes(word: u64, byte: u8) -> u32 {
    const LOWS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let differences = word ^ (u64::from(byte) * 0x0101_0101_0101_0101);
    let zeros = !(((differences & LOWS) + LOWS) | differences | LOWS);
    ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// The numbers of the bits that are set.
#[inline]
fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        next
    })
}

/// The tag of a hash: bits that choose neither segment nor home, and never 0.
#[inline]
fn tag_of(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// A slot in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    bucket: usize,
    index: usize,
}

/// Where the parts of a record are in it.
struct Parts {
    key: std::ops::Range<usize>,
    value: std::ops::Range<usize>,
}

/// The records of one half of a segment: hash, where it is, size.
struct Side {
    records: Vec<(u64, u16, u16)>,
    /// The sum of the sizes.
    bytes: usize,
}

impl Side {
    fn with_room(records: usize) -> Self {
        Self {
            records: Vec::with_capacity(records),
            bytes: 0,
        }
    }
}

/// A segment has no room for another record: it is to be split.
#[derive(Debug)]
pub struct Full;

/// See the module. Where records are read or written, `bigs` are those of the table.
#[derive(Clone)]
pub struct Segment {
    buckets: Box<[Bucket]>,
    // Each is an allocation of its own, so that none moves when there are more.
    #[allow(clippy::vec_box)]
    full: Vec<Box<[u8; CHUNK]>>,
    /// The chunk that is being filled.
    last: Vec<u8>,
    /// Bytes of records that no slot refers to.
    dead: u32,
    /// The leading `depth` bits of the hashes of all its records.
    pub prefix: u32,
    live: u16,
    /// Number of bits of the prefix.
    pub depth: u8,
}

impl Segment {
    /// An empty segment.
    pub fn new(depth: u8, prefix: u32) -> Self {
        Self::sized(depth, prefix, 1, 0)
    }

    /// An empty segment with so many buckets, and room for so many bytes, if they fit one chunk.
    fn sized(depth: u8, prefix: u32, buckets: usize, bytes: usize) -> Self {
        Self {
            buckets: vec![EMPTY; buckets].into_boxed_slice(),
            full: Vec::new(),
            last: Vec::with_capacity(capacity_for(bytes.min(CHUNK))),
            dead: 0,
            prefix,
            live: 0,
            depth,
        }
    }

    /// Number of records.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.live)
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// Bytes of the chunks in use.
    #[inline]
    fn bytes(&self) -> usize {
        self.full.len() * CHUNK + self.last.len()
    }

    /// Bytes of living records, about: what records left over at the ends of chunks is in it.
    fn live_bytes(&self) -> usize {
        self.bytes() - self.dead as usize
    }

    /// The bytes from a record on.
    #[inline]
    fn bytes_from(&self, at: usize) -> &[u8] {
        match self.full.get(at / CHUNK) {
            Some(chunk) => &chunk[at % CHUNK..],
            None => &self.last[at % CHUNK..],
        }
    }

    #[inline]
    fn bytes_from_mut(&mut self, at: usize) -> &mut [u8] {
        match self.full.get_mut(at / CHUNK) {
            Some(chunk) => &mut chunk[at % CHUNK..],
            None => &mut self.last[at % CHUNK..],
        }
    }

    /// Bytes allocated, beyond the segment itself.
    pub fn memory(&self) -> usize {
        size_class(self.buckets.len() * size_of::<Bucket>())
            + self.full.len() * CHUNK
            + capacity_for(self.full.capacity() * size_of::<usize>())
            + capacity_for(self.last.capacity())
    }

    /// Number of allocations.
    pub fn allocations(&self) -> usize {
        3 + self.full.len()
    }

    /// The home of a hash.
    #[inline]
    pub fn home(&self, hash: u64) -> usize {
        let bits = (hash << self.depth) >> (64 - HOME_BITS);
        (bits as usize * self.buckets.len()) >> HOME_BITS
    }

    /// The lowest hash whose home is `home` (which may be one past the last), less the prefix: the
    /// [`HOME_BITS`] after it.
    pub fn home_start(&self, home: usize) -> u64 {
        ((home as u64) << HOME_BITS).div_ceil(self.buckets.len() as u64)
    }

    #[inline]
    fn nth(&self, home: usize, distance: usize) -> usize {
        let at = home + distance;
        if at < self.buckets.len() {
            at
        } else {
            at - self.buckets.len()
        }
    }

    #[inline]
    fn reach(&self) -> usize {
        REACH.min(self.buckets.len() - 1)
    }

    /// The buckets that may hold records whose home is `home`.
    #[inline]
    fn reached_from(&self, home: usize) -> impl Iterator<Item = usize> {
        let reach = match self.buckets[home].displaced {
            0 => 0,
            _ => self.reach(),
        };
        (0..=reach).map(move |distance| self.nth(home, distance))
    }

    /// Where `key` is.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8], bigs: &Bigs) -> Option<Spot> {
        let tag = tag_of(hash);
        for number in self.reached_from(self.home(hash)) {
            let bucket = &self.buckets[number];
            for index in ones(bucket.matching(tag)) {
                if self.key_is(usize::from(bucket.at[index]), key, bigs) {
                    return Some(Spot {
                        bucket: number,
                        index,
                    });
                }
            }
        }
        None
    }

    /// Reads the line where the search for a hash begins. What comes of it says nothing.
    #[inline]
    pub fn touch_bucket(&self, hash: u64) -> usize {
        usize::from(self.buckets[self.home(hash)].displaced)
    }

    /// Reads the beginning of the record that the search for a hash will most likely compare.
    #[inline]
    pub fn touch_record(&self, hash: u64) -> usize {
        let bucket = &self.buckets[self.home(hash)];
        let found = bucket.matching(tag_of(hash));
        if found == 0 {
            return 0;
        }
        let at = usize::from(bucket.at[found.trailing_zeros() as usize]);
        usize::from(self.bytes_from(at)[0])
    }

    #[inline]
    fn key_is(&self, at: usize, key: &[u8], bigs: &Bigs) -> bool {
        let record = self.bytes_from(at);
        let first = record[0];
        if first < LONG {
            return usize::from(first) == key.len()
                && record.get(1..1 + key.len()).is_some_and(|k| k == key);
        }
        if first == BIG {
            return bigs.record(big_number(record)).0 == key;
        }
        let (len, header) = read_length(record);
        len == key.len() && &record[header..header + len] == key
    }

    /// Bytes that the record at `at` takes.
    fn size_at<L: Layout>(&self, at: usize) -> usize {
        let record = self.bytes_from(at);
        if record[0] == BIG {
            return BIG_RECORD;
        }
        parts::<L>(record).value.end
    }

    #[inline]
    fn at(&self, spot: Spot) -> usize {
        usize::from(self.buckets[spot.bucket].at[spot.index])
    }

    /// Key and value of the record at a spot.
    #[inline]
    pub fn record<'a, L: Layout>(&'a self, spot: Spot, bigs: &'a Bigs) -> (&'a [u8], &'a [u8]) {
        self.record_at::<L>(self.at(spot), bigs)
    }

    #[inline]
    fn record_at<'a, L: Layout>(&'a self, at: usize, bigs: &'a Bigs) -> (&'a [u8], &'a [u8]) {
        let record = self.bytes_from(at);
        if record[0] == BIG {
            return bigs.record(big_number(record));
        }
        let parts = parts::<L>(record);
        (&record[parts.key], &record[parts.value])
    }

    /// The value of the record at a spot, to be changed in place.
    #[inline]
    pub fn value_mut<'a, L: Layout>(&'a mut self, spot: Spot, bigs: &'a mut Bigs) -> &'a mut [u8] {
        let at = self.at(spot);
        let record = self.bytes_from_mut(at);
        if record[0] == BIG {
            return bigs.value_mut(big_number(record));
        }
        let parts = parts::<L>(record);
        &mut record[parts.value]
    }

    /// Adds a record whose key is not there.
    #[inline]
    pub fn insert<L: Layout>(
        &mut self,
        hash: u64,
        (key, value): (&[u8], &[u8]),
        bigs: &mut Bigs,
    ) -> Result<(), Full> {
        let size = record_size::<L>(key, value);
        if self.end_with(size) > MAX_BYTES {
            self.compact::<L>(size, bigs)?;
        }
        if self.len() >= LOAD * self.buckets.len() {
            self.grow::<L>(bigs)?;
        }
        loop {
            let at = self.make_room(size);
            if self.place(hash, at) {
                break;
            }
            self.grow::<L>(bigs)?;
        }
        if size == BIG_RECORD && key.len() + value.len() > INLINE_MAX {
            self.last.push(BIG);
            let number = bigs.add(key, value);
            self.last.extend_from_slice(&number.to_le_bytes());
        } else {
            write_length(&mut self.last, key.len());
            self.last.extend_from_slice(key);
            if L::VALUE.is_none() {
                write_length(&mut self.last, value.len());
            }
            self.last.extend_from_slice(value);
        }
        self.live += 1;
        Ok(())
    }

    /// Gives a free slot near the home of `hash` to the record at `at`; false when there is none.
    #[inline]
    fn place(&mut self, hash: u64, at: u16) -> bool {
        let home = self.home(hash);
        for distance in 0..=self.reach() {
            let number = self.nth(home, distance);
            let bucket = &mut self.buckets[number];
            let free = bucket.matching(0);
            if free != 0 {
                let index = free.trailing_zeros() as usize;
                bucket.tags[index] = tag_of(hash);
                bucket.at[index] = at;
                self.buckets[home].displaced += u8::from(distance > 0);
                return true;
            }
        }
        false
    }

    /// What [`Segment::bytes`] will be with another record of `size` bytes.
    #[inline]
    fn end_with(&self, size: usize) -> usize {
        match self.last.len() + size > CHUNK {
            true => (self.full.len() + 1) * CHUNK + size,
            false => self.bytes() + size,
        }
    }

    /// Makes room for a record of `size` bytes; where it will be.
    #[inline]
    fn make_room(&mut self, size: usize) -> u16 {
        if self.last.len() + size > self.last.capacity() {
            self.make_room_slowly(size);
        }
        self.bytes() as u16
    }

    #[cold]
    fn make_room_slowly(&mut self, size: usize) {
        if self.last.len() + size > CHUNK {
            let mut last = std::mem::take(&mut self.last);
            last.reserve_exact(CHUNK - last.len());
            last.resize(CHUNK, 0);
            let chunk = last.into_boxed_slice().try_into();
            self.full.push(chunk.expect("as long as a chunk"));
        }
        // The first chunk grows as far as it must, so that small tables are small.
        let capacity = match self.full.is_empty() {
            true => capacity_for(self.last.len() + size).min(CHUNK),
            false => CHUNK,
        };
        self.last.reserve_exact(capacity - self.last.len());
    }

    /// Drops dead bytes when they are what leaves no room for `size` more.
    #[cold]
    fn compact<L: Layout>(&mut self, size: usize, bigs: &Bigs) -> Result<(), Full> {
        if (self.dead as usize) < MAX_BYTES / 4 {
            return Err(Full);
        }
        self.rebuild::<L>(self.buckets.len(), bigs)?;
        match self.end_with(size) > MAX_BYTES {
            true => Err(Full),
            false => Ok(()),
        }
    }

    /// Takes more buckets.
    #[cold]
    fn grow<L: Layout>(&mut self, bigs: &Bigs) -> Result<(), Full> {
        self.rebuild::<L>(next_size(self.buckets.len()), bigs)
    }

    /// Removes the record at a spot, whose hash is `hash`.
    pub fn remove<L: Layout>(&mut self, spot: Spot, hash: u64, bigs: &mut Bigs) {
        let at = self.at(spot);
        self.dead += self.size_at::<L>(at) as u32;
        let record = self.bytes_from(at);
        if record[0] == BIG {
            bigs.remove(big_number(record));
        }
        self.buckets[spot.bucket].tags[spot.index] = 0;
        let home = self.home(hash);
        self.buckets[home].displaced -= u8::from(home != spot.bucket);
        self.live -= 1;
    }

    /// Gives back memory when much was removed. To be called after removals.
    #[inline]
    pub fn tidy<L: Layout>(&mut self, bigs: &Bigs) {
        let dead = self.dead as usize;
        let sparse = self.buckets.len() > 1 && self.len() < SPARSE * self.buckets.len();
        if sparse || (dead * 4 > self.bytes() && dead >= DEAD_MIN) {
            let buckets = match sparse {
                true => buckets_for(self.len()),
                false => self.buckets.len(),
            };
            // Where the records find no place in another order, all stays as it is.
            let _ = self.rebuild::<L>(buckets, bigs);
        }
    }

    /// Rewrites the segment with that many buckets, or a few more, and without dead bytes.
    fn rebuild<L: Layout>(&mut self, mut buckets: usize, bigs: &Bigs) -> Result<(), Full> {
        let room = self.live_bytes();
        while buckets <= MAX_BUCKETS {
            let mut new = Self::sized(self.depth, self.prefix, buckets, room);
            if self.copy_to::<L>(&mut new, bigs) {
                *self = new;
                return Ok(());
            }
            buckets = next_size(buckets);
        }
        Err(Full)
    }

    /// The two segments of the next depth.
    pub fn split<L: Layout>(&self, bigs: &Bigs) -> [Self; 2] {
        let mut sides = [false; 2].map(|_| Side::with_room(self.len()));
        for spot in self.spots() {
            let at = self.at(spot);
            let hash = hash(self.record_at::<L>(at, bigs).0);
            let side = &mut sides[(hash << self.depth >> 63) as usize];
            let size = self.size_at::<L>(at);
            side.records.push((hash, at as u16, size as u16));
            side.bytes += size;
        }
        [0, 1].map(|upper| {
            let side = &sides[upper as usize];
            let (depth, prefix) = (self.depth + 1, self.prefix << 1 | upper);
            let mut buckets = buckets_for(side.records.len());
            loop {
                let mut half = Self::sized(depth, prefix, buckets, side.bytes);
                let records = side.records.iter();
                if records.copied().all(|record| half.take(record, self)) {
                    return half;
                }
                buckets = next_size(buckets);
            }
        })
    }

    /// Adds a record of another segment: its hash, where it is, its size; false when there is no
    /// place.
    #[inline]
    fn take(&mut self, (hash, at, size): (u64, u16, u16), other: &Self) -> bool {
        let size = usize::from(size);
        let to = self.make_room(size);
        if !self.place(hash, to) {
            return false;
        }
        self.last
            .extend_from_slice(&other.bytes_from(usize::from(at))[..size]);
        self.live += 1;
        true
    }

    /// The segment of the previous depth that holds what both hold; `None` when they are not small
    /// enough for one.
    pub fn merged<L: Layout>(left: &Self, right: &Self, bigs: &Bigs) -> Option<Self> {
        let records = left.len() + right.len();
        let bytes = left.live_bytes() + right.live_bytes();
        if records > MAX_SLOTS / 3 || bytes > MAX_BYTES / 3 {
            return None;
        }
        let mut whole = Self::sized(
            left.depth - 1,
            left.prefix >> 1,
            buckets_for(records),
            bytes,
        );
        let both = left.copy_to::<L>(&mut whole, bigs) && right.copy_to::<L>(&mut whole, bigs);
        both.then_some(whole)
    }

    /// Copies the records; false when one finds no place.
    fn copy_to<L: Layout>(&self, to: &mut Self, bigs: &Bigs) -> bool {
        self.spots().all(|spot| {
            let at = self.at(spot);
            let hash = hash(self.record_at::<L>(at, bigs).0);
            to.take((hash, at as u16, self.size_at::<L>(at) as u16), self)
        })
    }

    /// The slots in use, bucket by bucket.
    pub fn spots(&self) -> impl Iterator<Item = Spot> {
        let buckets = self.buckets.iter().enumerate();
        buckets.flat_map(|(bucket, slots)| {
            ones(slots.occupied()).map(move |index| Spot { bucket, index })
        })
    }

    /// Shows key and value of every record until `visit` breaks.
    #[inline]
    pub fn try_for_each<'a, L: Layout, B>(
        &'a self,
        bigs: &'a Bigs,
        visit: &mut impl FnMut(&'a [u8], &'a [u8]) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for bucket in &self.buckets {
            for index in ones(bucket.occupied()) {
                let (key, value) = self.record_at::<L>(usize::from(bucket.at[index]), bigs);
                visit(key, value)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The slot of that number, when it is in use.
    pub fn spot(&self, slot: usize) -> Option<Spot> {
        let (bucket, index) = (slot / SLOTS, slot % SLOTS);
        let used = self.buckets.get(bucket)?.tags[index] != 0;
        used.then_some(Spot { bucket, index })
    }

    /// Shows the records whose home is `home`: hash, key, value.
    pub fn visit_home<'a, L: Layout>(
        &'a self,
        home: usize,
        bigs: &'a Bigs,
        mut visit: impl FnMut(u64, &'a [u8], &'a [u8]),
    ) {
        for number in self.reached_from(home) {
            let bucket = &self.buckets[number];
            for index in ones(bucket.occupied()) {
                let (key, value) = self.record_at::<L>(usize::from(bucket.at[index]), bigs);
                let hash = hash(key);
                if self.home(hash) == home {
                    visit(hash, key, value);
                }
            }
        }
    }
}

/// The number of buckets that comes after `buckets`: all are whole size classes of the allocator.
fn next_size(buckets: usize) -> usize {
    match buckets {
        0..4 => buckets + 1,
        // In turn three and two are the factors: 4, 6, 8, 12, 16 and so on.
        _ if buckets.is_power_of_two() => buckets + buckets / 2,
        _ => buckets + buckets / 3,
    }
}

/// The least number of buckets that are comfortable for so many records.
fn buckets_for(records: usize) -> usize {
    let mut buckets = 1;
    while buckets < MAX_BUCKETS && records > buckets * COMFORT {
        buckets = next_size(buckets);
    }
    buckets
}

/// What the allocator sets aside for `bytes`.
fn capacity_for(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        _ => size_class(bytes),
    }
}

/// The parts of a record that is not big.
#[inline]
fn parts<L: Layout>(record: &[u8]) -> Parts {
    let (len, header) = read_length(record);
    let key = header..header + len;
    let (len, header) = match L::VALUE {
        Some(len) => (len, 0),
        None => read_length(&record[key.end..]),
    };
    let start = key.end + header;
    Parts {
        key,
        value: start..start + len,
    }
}

/// Bytes that a record takes.
#[inline]
fn record_size<L: Layout>(key: &[u8], value: &[u8]) -> usize {
    let bytes = key.len() + value.len();
    if bytes > INLINE_MAX {
        return BIG_RECORD;
    }
    let header = |len: usize| 1 + usize::from(len >= usize::from(LONG));
    let headers = header(key.len()) + L::VALUE.map_or_else(|| header(value.len()), |_| 0);
    bytes + headers
}

/// A length and the number of bytes that it takes.
#[inline]
fn read_length(bytes: &[u8]) -> (usize, usize) {
    let first = bytes[0];
    if first < LONG {
        return (usize::from(first), 1);
    }
    (usize::from(first & 0xf) << 8 | usize::from(bytes[1]), 2)
}

#[inline]
fn write_length(bytes: &mut Vec<u8>, len: usize) {
    if len < usize::from(LONG) {
        bytes.push(len as u8);
    } else {
        bytes.extend_from_slice(&[LONG | (len >> 8) as u8, len as u8]);
    }
}

/// The number of a big record.
fn big_number(record: &[u8]) -> u32 {
    u32::from_le_bytes(record[1..BIG_RECORD].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_in_words() {
        let mut bucket = EMPTY;
        for (index, tag) in bucket.tags.iter_mut().enumerate() {
            *tag = [0, 1, 2, 1, 255, 254, 128][index % 7];
        }
        for tag in [0, 1, 2, 3, 127, 128, 254, 255] {
            let expected = (0..SLOTS).filter(|&i| bucket.tags[i] == tag);
            assert!(ones(bucket.matching(tag)).eq(expected), "tag {tag}");
        }
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(ones(EMPTY.occupied()).count(), 0);
    }

    #[test]
    fn homes_follow_the_order_of_hashes() {
        for buckets in [1, 3, 6, 16, 48, 64] {
            let segment = Segment::sized(3, 5, buckets, 0);
            for home in 0..buckets {
                let start = segment.home_start(home) << (64 - HOME_BITS) >> 3;
                assert_eq!(segment.home(5 << 61 | start), home);
                if home > 0 {
                    assert_eq!(segment.home((5 << 61 | start) - 1), home - 1);
                }
            }
            assert_eq!(segment.home_start(buckets), 1 << HOME_BITS);
        }
    }

    #[test]
    fn sizes_are_whole_size_classes() {
        let mut buckets = 1;
        while buckets < 100 {
            let bytes = buckets * size_of::<Bucket>();
            assert_eq!(size_class(bytes), bytes);
            buckets = next_size(buckets);
        }
    }
}
