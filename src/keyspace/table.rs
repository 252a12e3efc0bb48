//! The hash table behind a shard's part of a database: extendible, ordered by hash, never
//! rehashed as a whole.
//!
//! ```text
//!  hash  | shard (skip) |  directory (depth bits)  | 16 bits: bucket ...        | ... 7 bits: tag |
//!
//!  directory word    48 bits segment address | 4 bits class | 16 bits local depth
//!  segment           1 to 64 buckets of one cache line each
//!  bucket   word 0   7 tags (0: empty) | meta byte (entries displaced from here)
//!           word 1-7 16 bits of hash | 47 bits entry address | bit 0: volatile
//! ```
//!
//! Buckets follow hash order: the 16 hash bits after the segment's local depth, scaled to its
//! number of buckets, give an entry's *home*. When the home is full the entry goes to one of the
//! next [`REACH`] buckets and the home counts it as displaced, so that a miss reads one line.
//! When all of those are full, the segment grows to the next size or, at 64 buckets, splits in
//! two. The slot's own 16 hash bits suffice to move it, so neither touches the entries, and no
//! insert ever costs more than the redistribution of 448 slots.
//!
//! Threads: mutation and lookup need the shard's lock ([`Table::assume_locked`]); only
//! [`Table::prefetch_directory`] and the steps from [`Ahead`] on may run at any time. They read
//! directory and buckets, which are atomics in memory that stays readable for ever
//! (`super::arena`), and use what they find, right or stale, for nothing but a prefetch.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::arena::{self, Block, CLASSES, Use};

mod ahead;
pub use ahead::{Ahead, AheadBucket};

/// What a table stores: an owning thin pointer, 8-byte aligned and below 2^48.
///
/// # Safety
/// `into_raw` must give such a pointer, `from_raw` must restore the value from it.
pub unsafe trait TableEntry {
    /// Gives up ownership to a raw pointer.
    fn into_raw(self) -> NonNull<u8>;
    /// Takes ownership back.
    ///
    /// # Safety
    /// `raw` came from [`TableEntry::into_raw`] and is not used afterwards.
    unsafe fn from_raw(raw: NonNull<u8>) -> Self;
    /// The key of the entry at `raw`.
    ///
    /// # Safety
    /// `raw` came from `into_raw` and the entry stays alive and unchanged for `'a`.
    unsafe fn key<'a>(raw: NonNull<u8>) -> &'a [u8];
    /// How many cache lines after the one at `raw` reading the entry is likely to touch.
    ///
    /// # Safety
    /// As for [`TableEntry::key`].
    unsafe fn further_lines(raw: NonNull<u8>) -> usize;
}

/// Buckets after the home that may hold a displaced entry.
const REACH: usize = 5;
const SLOTS: usize = 7;
const MAX_CLASS: usize = CLASSES.len() - 1;
/// The class each half of a split begins with: 448 slots' worth at 85 % in two times 336.
const SPLIT_CLASS: usize = MAX_CLASS - 2;
const POINTER: u64 = (1 << 48) - 8;
const VOLATILE: u64 = 1;
/// How many cache lines after its first an entry covers, up to 3: what is worth a prefetch.
const EXTENT: u64 = 6;
const ONES: u64 = 0x0001_0101_0101_0101;
const HIGHS: u64 = 0x0080_8080_8080_8080;
/// Bits at the top of a hash that the caller used up to choose the shard.
pub const SKIP: u32 = 10;
/// No segment is ever this deep: it would take 2^22 of them in one shard.
const MAX_DEPTH: u32 = 22;
/// Depth from which the slot's 16 hash bits no longer start right after the shard's bits.
const NEAR: u32 = 8;

/// A position in hash order, for SCAN and other walks: the top 48 bits of a hash.
pub type Position = u64;
const POSITION_BITS: u32 = 48;

/// Where a shard begins.
pub fn position_of_shard(shard: usize) -> Position {
    (shard as u64) << (POSITION_BITS - SKIP)
}

/// The shard of a position; beyond the last shard for numbers that are no position.
pub fn shard_of_position(position: Position) -> usize {
    (position >> (POSITION_BITS - SKIP)) as usize
}

/// A hash that belongs to a shard.
pub fn hash_of_shard(shard: usize) -> u64 {
    (shard as u64) << (64 - SKIP)
}

/// The position of a hash.
pub fn position_of_hash(hash: u64) -> Position {
    hash >> (64 - POSITION_BITS)
}

/// One table; see the module for who may call what.
pub struct Table<E> {
    /// Directory address | depth << 48; 0 while nothing is stored.
    directory: AtomicU64,
    len: AtomicU32,
    volatile: AtomicU32,
    owns: PhantomData<E>,
}

// SAFETY: a table owns its entries; all access to them needs the exclusive claim of
// `assume_locked`, whose caller holds the shard's lock.
unsafe impl<E: Send> Sync for Table<E> {}
// SAFETY: as above; nothing in a table is tied to a thread.
unsafe impl<E: Send> Send for Table<E> {}

/// A segment as its directory word describes it.
#[derive(Clone, Copy, PartialEq)]
struct Segment {
    base: Block,
    class: usize,
    local_depth: u32,
}

/// Where an entry belongs within one segment.
#[derive(Clone, Copy)]
struct Home {
    bucket: usize,
    /// The 16 hash bits that the slot keeps.
    bits: u64,
}

/// Place of an entry; valid until the table is changed otherwise than through it.
#[derive(Clone, Copy)]
pub struct Slot {
    bucket: Block,
    index: usize,
    home: Block,
}

impl Slot {
    /// The entry's address.
    #[inline]
    pub fn pointer(self) -> NonNull<u8> {
        pointer_of(slot_word(self.bucket, self.index))
    }

    /// Whether the entry is marked volatile.
    #[inline]
    pub fn is_volatile(self) -> bool {
        slot_word(self.bucket, self.index) & VOLATILE != 0
    }
}

impl Segment {
    fn decode(word: u64) -> Self {
        Self {
            base: NonNull::new((word & POINTER & !63) as *mut AtomicU64)
                .expect("directory words name segments"),
            class: (word & 15) as usize,
            local_depth: (word >> 48) as u32,
        }
    }

    fn encode(self) -> u64 {
        self.base.as_ptr() as u64 | self.class as u64 | u64::from(self.local_depth) << 48
    }

    fn new(class: usize, local_depth: u32) -> Self {
        Self {
            base: arena::allocate(class, Use::Segment),
            class,
            local_depth,
        }
    }

    fn buckets(self) -> usize {
        CLASSES[self.class]
    }

    fn bucket(self, index: usize) -> Block {
        debug_assert!(index < self.buckets());
        // SAFETY: the index is below the number of lines of the block.
        unsafe { self.base.add(index * 8) }
    }

    /// First hash bit (after the shard's) that slots of this segment keep.
    fn window(self) -> u32 {
        self.local_depth.saturating_sub(NEAR)
    }

    fn home(self, local: u64) -> Home {
        self.home_of_bits((local << self.window()) >> 48)
    }

    fn home_of_bits(self, bits: u64) -> Home {
        let fraction = (bits << (self.local_depth - self.window())) & 0xffff;
        Home {
            bucket: ((fraction * self.buckets() as u64) >> 16) as usize,
            bits,
        }
    }

    fn reach(self) -> usize {
        REACH.min(self.buckets() - 1)
    }

    fn nth(self, home: usize, distance: usize) -> Block {
        let index = home + distance;
        self.bucket(if index < self.buckets() {
            index
        } else {
            index - self.buckets()
        })
    }

    /// Puts a slot word into the first free place; false when the home's reach is full.
    fn place(self, home: Home, tag: u64, word: u64) -> bool {
        for distance in 0..=self.reach() {
            let bucket = self.nth(home.bucket, distance);
            if let Some(index) = free_slot(tags(bucket)) {
                set_slot(bucket, index, tag, word);
                if distance > 0 {
                    adjust_displaced(self.bucket(home.bucket), 1);
                }
                return true;
            }
        }
        false
    }

    /// Every slot in use: (tag, word).
    fn slots(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.buckets()).flat_map(move |b| {
            let bucket = self.bucket(b);
            let tags = tags(bucket);
            occupied(tags).map(move |i| (tag_at(tags, i), slot_word(bucket, i)))
        })
    }

    fn count(self) -> usize {
        (0..self.buckets())
            .map(|b| occupied_mask(tags(self.bucket(b))).count_ones() as usize)
            .sum()
    }
}

#[inline]
fn word(bucket: Block, index: usize) -> &'static AtomicU64 {
    // SAFETY: index is below 8, buckets are 8 words of memory that is never unmapped.
    unsafe { bucket.add(index).as_ref() }
}

#[inline]
fn tags(bucket: Block) -> u64 {
    word(bucket, 0).load(Relaxed)
}

#[inline]
fn slot_word(bucket: Block, index: usize) -> u64 {
    word(bucket, index + 1).load(Relaxed)
}

#[inline]
fn tag_at(tags: u64, index: usize) -> u64 {
    (tags >> (index * 8)) & 0xff
}

/// One bit (the byte's highest) for each slot in use: stored tags always have it set.
#[inline]
fn occupied_mask(tags: u64) -> u64 {
    tags & HIGHS
}

#[inline]
fn occupied(tags: u64) -> impl Iterator<Item = usize> {
    bits(occupied_mask(tags))
}

#[inline]
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let index = mask.trailing_zeros() as usize / 8;
        mask &= mask - 1;
        Some(index)
    })
}

#[inline]
fn free_slot(tags: u64) -> Option<usize> {
    let free = !tags & HIGHS;
    (free != 0).then(|| free.trailing_zeros() as usize / 8)
}

/// Slots whose tag may equal `tag` (a false positive is possible above a true one).
#[inline]
fn matching(tags: u64, tag: u64) -> impl Iterator<Item = usize> {
    let x = (tags ^ (ONES * tag)) & 0x00ff_ffff_ffff_ffff;
    bits(x.wrapping_sub(ONES) & !x & HIGHS)
}

fn set_slot(bucket: Block, index: usize, tag: u64, value: u64) {
    word(bucket, index + 1).store(value, Relaxed);
    let old = tags(bucket) & !(0xff << (index * 8));
    word(bucket, 0).store(old | tag << (index * 8), Relaxed);
}

fn clear_slot(bucket: Block, index: usize) {
    word(bucket, 0).store(tags(bucket) & !(0xff << (index * 8)), Relaxed);
    word(bucket, index + 1).store(0, Relaxed);
}

#[inline]
fn displaced(tags: u64) -> u64 {
    tags >> 56
}

fn adjust_displaced(home: Block, delta: i64) {
    let old = tags(home);
    let count = (displaced(old) as i64 + delta) as u64;
    debug_assert!(count <= (REACH * SLOTS) as u64);
    word(home, 0).store((old & ((1 << 56) - 1)) | count << 56, Relaxed);
}

#[inline]
fn tag_of(hash: u64) -> u64 {
    0x80 | hash & 0x7f
}

#[inline]
fn pointer_of(word: u64) -> NonNull<u8> {
    NonNull::new((word & POINTER) as *mut u8).expect("slots in use hold pointers")
}

/// The lower bits of the slot of an entry: address, extent, volatile.
///
/// # Safety
/// `raw` is a live entry, unchanged meanwhile.
#[inline]
unsafe fn reference<E: TableEntry>(raw: NonNull<u8>, volatile: bool) -> u64 {
    // SAFETY: as the caller promises.
    let lines = unsafe { E::further_lines(raw) }.min(3) as u64;
    raw.as_ptr() as u64 | lines << 1 | u64::from(volatile)
}

/// Equality of keys, most of which are short: a few words instead of a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(first), Some(other)) if a.len() <= 16 => {
            first == other && a.last_chunk::<8>() == b.last_chunk::<8>()
        }
        _ if (17..=32).contains(&a.len()) => {
            a.first_chunk::<16>() == b.first_chunk() && a.last_chunk::<16>() == b.last_chunk()
        }
        _ => a == b,
    }
}

#[inline]
fn directory_index(local: u64, depth: u32) -> usize {
    ((local >> 1) >> (63 - depth)) as usize
}

fn directory_allocate(depth: u32) -> Block {
    match arena::class_for((1usize << depth).div_ceil(8)) {
        Some(class) => arena::allocate(class, Use::Directory),
        None => arena::allocate_large(depth + 3),
    }
}

fn directory_free(block: Block, depth: u32) {
    match arena::class_for((1usize << depth).div_ceil(8)) {
        Some(class) => arena::free(block, class, Use::Directory),
        None => arena::free_large(block, depth + 3),
    }
}

/// Asks the processor for a cache line, without waiting for it.
#[inline]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is a hint without effect on memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

impl<E: TableEntry> Default for Table<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: TableEntry> Table<E> {
    /// An empty table, which owns no memory.
    pub const fn new() -> Self {
        Self {
            directory: AtomicU64::new(0),
            len: AtomicU32::new(0),
            volatile: AtomicU32::new(0),
            owns: PhantomData,
        }
    }

    /// Number of entries; exact under the lock, a recent value without it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed) as usize
    }

    /// True without entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of entries marked volatile (with an expiry).
    #[inline]
    pub fn volatile(&self) -> usize {
        self.volatile.load(Relaxed) as usize
    }

    /// True while the table holds memory, with entries or after them; a recent value without
    /// the lock.
    #[inline]
    pub fn owns_memory(&self) -> bool {
        self.directory.load(Relaxed) != 0
    }

    /// Exclusive access.
    ///
    /// # Safety
    /// The caller holds the lock that guards this table for as long as the result lives, and
    /// makes no second claim meanwhile.
    #[inline]
    pub unsafe fn assume_locked(&self) -> Locked<'_, E> {
        Locked { table: self }
    }

    fn directory(&self) -> Option<(Block, u32)> {
        let word = self.directory.load(Relaxed);
        Some((
            NonNull::new((word & POINTER) as *mut AtomicU64)?,
            (word >> 48) as u32,
        ))
    }

    /// The segment that `local` (a hash less the shard's bits) belongs to. Without the lock the
    /// answer may be stale, but always is an address and size that once were a segment's.
    #[inline]
    fn segment(&self, local: u64) -> Option<Segment> {
        let (base, depth) = self.directory()?;
        let word = directory_word(base, directory_index(local, depth)).load(Relaxed);
        (word != 0).then(|| Segment::decode(word))
    }

    /// Asks the processor for the directory's word for `hash`. Callable at any time by any thread.
    #[inline]
    pub fn prefetch_directory(&self, hash: u64) -> Ahead {
        let Some((base, depth)) = self.directory() else {
            return Ahead(None);
        };
        let word = directory_word(base, directory_index(hash << SKIP, depth));
        prefetch(std::ptr::from_ref(word).cast());
        Ahead(Some(word))
    }
}

#[inline]
fn directory_word(base: Block, index: usize) -> &'static AtomicU64 {
    // SAFETY: address and depth of a directory are one word, so the index is inside the block,
    // and directory blocks stay readable, with nothing but directory words in them, for ever.
    unsafe { base.add(index).as_ref() }
}

/// A table whose lock is held.
pub struct Locked<'t, E> {
    table: &'t Table<E>,
}

/// Computes a key's hash; asked only when a deep segment splits.
pub type Rehash<'a> = &'a dyn Fn(&[u8]) -> u64;

impl<'t, E: TableEntry> Locked<'t, E> {
    /// The table.
    pub fn table(&self) -> &'t Table<E> {
        self.table
    }

    /// Where `key` is stored.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let local = hash << SKIP;
        let segment = self.table.segment(local)?;
        let home = segment.home(local);
        let home_bucket = segment.bucket(home.bucket);
        let tag = tag_of(hash);
        let mut bucket = home_bucket;
        let mut bucket_tags = tags(bucket);
        let reach = if displaced(bucket_tags) == 0 {
            0
        } else {
            segment.reach()
        };
        let mut distance = 0;
        loop {
            for index in matching(bucket_tags, tag) {
                let word = slot_word(bucket, index);
                // SAFETY: slots in use hold live entries, unchanged while the lock is held.
                if word >> 48 == home.bits && is_same(unsafe { E::key(pointer_of(word)) }, key) {
                    return Some(Slot {
                        bucket,
                        index,
                        home: home_bucket,
                    });
                }
            }
            if distance == reach {
                return None;
            }
            distance += 1;
            bucket = segment.nth(home.bucket, distance);
            bucket_tags = tags(bucket);
        }
    }

    /// Stores an entry whose key is not in the table yet.
    pub fn insert(&mut self, hash: u64, entry: E, volatile: bool, rehash: Rehash<'_>) {
        let local = hash << SKIP;
        let raw = entry.into_raw();
        debug_assert_eq!(raw.as_ptr() as u64 & !POINTER, 0);
        // SAFETY: the table owns the entry now.
        let reference = unsafe { reference::<E>(raw, volatile) };
        if self.table.directory().is_none() {
            let base = directory_allocate(0);
            directory_word(base, 0).store(Segment::new(0, 0).encode(), Relaxed);
            self.table.directory.store(base.as_ptr() as u64, Relaxed);
        }
        let tag = tag_of(hash);
        loop {
            let segment = self
                .table
                .segment(local)
                .expect("a directory names segments");
            let home = segment.home(local);
            let word = reference | home.bits << 48;
            if segment.place(home, tag, word) {
                break;
            }
            self.grow(local, segment, rehash);
        }
        add(&self.table.len, 1);
        add(&self.table.volatile, i32::from(volatile));
    }

    /// Takes an entry out.
    pub fn remove(&mut self, slot: Slot) -> E {
        let word = slot_word(slot.bucket, slot.index);
        clear_slot(slot.bucket, slot.index);
        if slot.bucket != slot.home {
            adjust_displaced(slot.home, -1);
        }
        add(&self.table.len, -1);
        add(&self.table.volatile, -((word & VOLATILE) as i32));
        // SAFETY: the slot held a live entry and is cleared now.
        unsafe { E::from_raw(pointer_of(word)) }
    }

    /// Points a slot to another entry with the same key and marks it. The caller owns what was
    /// there before.
    #[inline]
    pub fn replace(&mut self, slot: Slot, raw: NonNull<u8>, volatile: bool) {
        let target = word(slot.bucket, slot.index + 1);
        let old = target.load(Relaxed);
        // SAFETY: the caller hands the entry to the table.
        let new = old & (u64::MAX << 48) | unsafe { reference::<E>(raw, volatile) };
        if new != old {
            target.store(new, Relaxed);
            add(
                &self.table.volatile,
                i32::from(volatile) - (old & VOLATILE) as i32,
            );
        }
    }

    /// Makes room in a full segment: the next size, or two segments in its place.
    #[cold]
    fn grow(&mut self, local: u64, segment: Segment, rehash: Rehash<'_>) {
        let entries: Vec<(u64, u64)> = segment.slots().collect();
        self.install(
            local,
            segment.local_depth,
            segment.class + 1,
            &entries,
            rehash,
        );
        arena::free(segment.base, segment.class, Use::Segment);
    }

    /// Builds the segment (or, where one does not hold them, the segments) of `entries` under
    /// the `depth` first bits of `local` and enters it in the directory.
    fn install(
        &mut self,
        local: u64,
        depth: u32,
        least_class: usize,
        entries: &[(u64, u64)],
        rehash: Rehash<'_>,
    ) {
        for class in least_class..=MAX_CLASS {
            let segment = Segment::new(class, depth);
            let fits = entries
                .iter()
                .all(|&(tag, word)| segment.place(segment.home_of_bits(word >> 48), tag, word));
            if fits {
                self.enter(local, segment);
                return;
            }
            arena::free(segment.base, class, Use::Segment);
        }
        assert!(depth < MAX_DEPTH, "hash bits of one shard exhausted");
        let (old_window, new_window) = (window(depth), window(depth + 1));
        let mut halves = [Vec::new(), Vec::new()];
        for &(tag, word) in entries {
            let bit = (word >> 48) >> (15 - (depth - old_window)) & 1;
            let word = if new_window == old_window {
                word
            } else {
                // SAFETY: the entry is alive and the lock is held.
                let key = unsafe { E::key(pointer_of(word)) };
                rebits(word, rehash(key), new_window)
            };
            halves[bit as usize].push((tag, word));
        }
        let prefix = local & !(u64::MAX.checked_shr(depth).unwrap_or(0));
        let half = 1u64 << (63 - depth);
        self.install(prefix, depth + 1, SPLIT_CLASS, &halves[0], rehash);
        self.install(prefix | half, depth + 1, SPLIT_CLASS, &halves[1], rehash);
    }

    /// Points every directory word under the segment's prefix to it.
    fn enter(&mut self, local: u64, segment: Segment) {
        loop {
            let (base, depth) = self.table.directory().expect("created before");
            if segment.local_depth > depth {
                self.double(base, depth);
                continue;
            }
            let first =
                directory_index(local, segment.local_depth) << (depth - segment.local_depth);
            for index in first..first + (1 << (depth - segment.local_depth)) {
                directory_word(base, index).store(segment.encode(), Relaxed);
            }
            return;
        }
    }

    fn double(&mut self, base: Block, depth: u32) {
        let wider = directory_allocate(depth + 1);
        for index in 0..1usize << depth {
            let value = directory_word(base, index).load(Relaxed);
            directory_word(wider, 2 * index).store(value, Relaxed);
            directory_word(wider, 2 * index + 1).store(value, Relaxed);
        }
        let word = wider.as_ptr() as u64 | u64::from(depth + 1) << 48;
        self.table.directory.store(word, Relaxed);
        directory_free(base, depth);
    }

    /// Shows every entry of the bucket at `position` to `visit` and returns the position of the
    /// next bucket, or `None` at the end of the shard.
    ///
    /// Positions are hash prefixes, not places: whatever splits or merges between two calls, a
    /// walk that passes on what it was given sees every entry that stays from its beginning to
    /// its end. `visit` gets the entry's address and whether it is volatile.
    pub fn visit_bucket(
        &self,
        position: Position,
        mut visit: impl FnMut(NonNull<u8>, bool),
    ) -> Option<Position> {
        let local = (position << (64 - POSITION_BITS)) << SKIP;
        let segment = self.table.segment(local)?;
        let home = segment.home(local).bucket;
        self.visit_home(segment, home, &mut visit);
        let next = segment.next_bucket(local, home)?;
        Some(in_shard_of(position, next))
    }

    /// As [`Locked::visit_bucket`], but shows the slots of volatile entries only, without reading
    /// any entry. The slots stay valid while the table is changed through them alone.
    pub fn volatile_in_bucket(
        &self,
        position: Position,
        mut visit: impl FnMut(Slot),
    ) -> Option<Position> {
        let local = (position << (64 - POSITION_BITS)) << SKIP;
        let segment = self.table.segment(local)?;
        let home = segment.home(local).bucket;
        for_each_at_home(segment, home, |bucket, index, word| {
            if word & VOLATILE != 0 && segment.home_of_bits(word >> 48).bucket == home {
                visit(Slot {
                    bucket,
                    index,
                    home: segment.bucket(home),
                });
            }
        });
        let next = segment.next_bucket(local, home)?;
        Some(in_shard_of(position, next))
    }

    fn visit_home(&self, segment: Segment, home: usize, visit: &mut impl FnMut(NonNull<u8>, bool)) {
        for_each_at_home(segment, home, |_, _, word| {
            if segment.home_of_bits(word >> 48).bucket == home {
                visit(pointer_of(word), word & VOLATILE != 0);
            }
        });
    }

    /// A slot in use, by two random numbers: the bucket by `random`, the slot in it by `pick`.
    /// Every entry is equally likely; `None` when the numbers hit none: try again with others.
    pub fn random_slot(&self, random: u64, pick: u64) -> Option<NonNull<u8>> {
        let (_, depth) = self.table.directory()?;
        let segment = self.table.segment(random << SKIP)?;
        // Segments are found by their share of the hash range, which says nothing of their number
        // of buckets: one with few must be hit less often.
        if depth > 0 {
            let weight = (segment.buckets() as u64) << segment.local_depth;
            let most = (CLASSES[MAX_CLASS] as u64) << depth;
            if (pick >> 32) * most >= weight << 32 {
                return None;
            }
        }
        let bucket = segment.bucket(segment.home(random << SKIP).bucket);
        let mask = occupied_mask(tags(bucket));
        // A pick beyond the slots in use is a miss, so that every entry is equally likely.
        let index = bits(mask).nth((pick & 0xffff_ffff) as usize % SLOTS)?;
        Some(pointer_of(slot_word(bucket, index)))
    }

    /// Gives memory back at `position`: shrinks or merges a sparse segment there, or drops
    /// everything when the table is empty. Returns the position of the next segment.
    pub fn tidy(&mut self, position: Position, rehash: Rehash<'_>) -> Option<Position> {
        if self.table.is_empty() {
            self.take_segments();
            return None;
        }
        let local = (position << (64 - POSITION_BITS)) << SKIP;
        let mut segment = self.table.segment(local)?;
        let mut joined = false;
        while let Some(merged) = self.merge(local, segment, rehash) {
            joined = true;
            // Where keys crowd, what was joined splits again at once.
            let shallower = merged.local_depth < segment.local_depth;
            segment = merged;
            if !shallower {
                break;
            }
        }
        if !joined && segment.class > 0 && is_sparse(segment.count(), segment.buckets()) {
            let entries: Vec<(u64, u64)> = segment.slots().collect();
            let class = comfortable_class(entries.len());
            self.install(local, segment.local_depth, class, &entries, rehash);
            arena::free(segment.base, segment.class, Use::Segment);
        }
        let next = segment.next_segment(local)?;
        Some(in_shard_of(position, next))
    }

    /// Joins a segment with its buddy when both together are sparse in one.
    fn merge(&mut self, local: u64, segment: Segment, rehash: Rehash<'_>) -> Option<Segment> {
        let depth = segment.local_depth.checked_sub(1)?;
        let buddy = self.table.segment(local ^ 1 << (63 - depth))?;
        let total = segment.count() + buddy.count();
        if buddy.local_depth != segment.local_depth || !is_sparse(total, CLASSES[MAX_CLASS]) {
            return None;
        }
        let (old, new) = (segment.window(), window(depth));
        let entries: Vec<(u64, u64)> = segment
            .slots()
            .chain(buddy.slots())
            .map(|(tag, word)| {
                // SAFETY: the entry is alive and the lock is held.
                let key = || unsafe { E::key(pointer_of(word)) };
                (
                    tag,
                    if old == new {
                        word
                    } else {
                        rebits(word, rehash(key()), new)
                    },
                )
            })
            .collect();
        self.install(local, depth, comfortable_class(total), &entries, rehash);
        arena::free(segment.base, segment.class, Use::Segment);
        arena::free(buddy.base, buddy.class, Use::Segment);
        self.halve();
        self.table.segment(local)
    }

    /// Halves the directory as long as no segment needs its last bit.
    fn halve(&mut self) {
        while let Some((base, depth @ 1..)) = self.table.directory() {
            let size = 1usize << (depth - 1);
            let pair = |i: usize| {
                let first = directory_word(base, 2 * i).load(Relaxed);
                (first == directory_word(base, 2 * i + 1).load(Relaxed)).then_some(first)
            };
            if (0..size).any(|i| pair(i).is_none()) {
                return;
            }
            let narrow = directory_allocate(depth - 1);
            for index in 0..size {
                directory_word(narrow, index).store(pair(index).expect("checked above"), Relaxed);
            }
            let word = narrow.as_ptr() as u64 | u64::from(depth - 1) << 48;
            self.table.directory.store(word, Relaxed);
            directory_free(base, depth);
        }
    }

    /// Moves everything out into a table of its own, for instance to free it elsewhere.
    pub fn take(&mut self) -> Table<E> {
        let t = self.table;
        let taken = Table {
            directory: AtomicU64::new(t.directory.load(Relaxed)),
            len: AtomicU32::new(t.len.load(Relaxed)),
            volatile: AtomicU32::new(t.volatile.load(Relaxed)),
            owns: PhantomData,
        };
        t.directory.store(0, Relaxed);
        t.len.store(0, Relaxed);
        t.volatile.store(0, Relaxed);
        taken
    }

    /// Exchanges the contents of two tables.
    pub fn swap(&mut self, other: &mut Locked<'_, E>) {
        let swap64 = |a: &AtomicU64, b: &AtomicU64| {
            let value = a.load(Relaxed);
            a.store(b.load(Relaxed), Relaxed);
            b.store(value, Relaxed);
        };
        let swap32 = |a: &AtomicU32, b: &AtomicU32| {
            let value = a.load(Relaxed);
            a.store(b.load(Relaxed), Relaxed);
            b.store(value, Relaxed);
        };
        swap64(&self.table.directory, &other.table.directory);
        swap32(&self.table.len, &other.table.len);
        swap32(&self.table.volatile, &other.table.volatile);
    }

    /// Every segment once, in hash order.
    fn segments(&self) -> Vec<Segment> {
        let mut all = Vec::new();
        let mut local = Some(0);
        while let Some(at) = local {
            let Some(segment) = self.table.segment(at) else {
                break;
            };
            all.push(segment);
            local = segment.next_segment(at);
        }
        all
    }

    /// Frees directory and segments, whose slots must not be used any more.
    fn take_segments(&mut self) {
        let Some((base, depth)) = self.table.directory() else {
            return;
        };
        let segments = self.segments();
        self.table.directory.store(0, Relaxed);
        for segment in segments {
            arena::free(segment.base, segment.class, Use::Segment);
        }
        directory_free(base, depth);
    }

    /// Buckets in all segments, and bytes of segments and directory: for statistics.
    pub fn footprint(&self) -> (usize, usize) {
        let buckets: usize = self.segments().iter().map(|s| s.buckets()).sum();
        let words = self
            .table
            .directory()
            .map_or(0, |(_, depth)| 1usize << depth);
        (buckets, buckets * arena::LINE + words * 8)
    }
}

impl<E> Drop for Table<E> {
    fn drop(&mut self) {
        debug_assert!(
            self.directory.load(Relaxed) == 0
                || !std::mem::needs_drop::<E>()
                || self.len.load(Relaxed) == 0,
            "tables with entries are ended with Table::destroy"
        );
    }
}

impl<E: TableEntry> Table<E> {
    /// Frees the table and all its entries.
    pub fn destroy(mut self) {
        // SAFETY: the table is owned, so nobody else has access.
        let mut locked = unsafe { (&raw mut self).as_ref().expect("not null").assume_locked() };
        for segment in locked.segments() {
            for (_, word) in segment.slots() {
                // SAFETY: the slot is never used again: its segment is freed below.
                drop(unsafe { E::from_raw(pointer_of(word)) });
            }
        }
        locked.take_segments();
        self.len.store(0, Relaxed);
    }
}

/// The position of a hash less its shard's bits, in the shard of another position.
fn in_shard_of(position: Position, local: u64) -> Position {
    position_of_shard(shard_of_position(position)) | local >> (64 - POSITION_BITS + SKIP)
}

/// Shows every slot in use that may hold an entry of the bucket `home`: (bucket, index, word).
#[inline]
fn for_each_at_home(segment: Segment, home: usize, mut show: impl FnMut(Block, usize, u64)) {
    let reach = if displaced(tags(segment.bucket(home))) == 0 {
        0
    } else {
        segment.reach()
    };
    for distance in 0..=reach {
        let bucket = segment.nth(home, distance);
        for index in occupied(tags(bucket)) {
            show(bucket, index, slot_word(bucket, index));
        }
    }
}

impl Segment {
    /// The hash (less the shard's bits) at which the bucket after `bucket` begins, or the next
    /// segment when this was the last one.
    fn next_bucket(self, local: u64, bucket: usize) -> Option<u64> {
        // Homes are computed from 16 bits of which the first `shared` are the segment's prefix,
        // so a bucket's bound is rounded up to what those bits can express.
        let shared = self.local_depth - self.window();
        let bound = ((bucket as u64 + 1) << 16).div_ceil(self.buckets() as u64);
        let bound = bound.div_ceil(1 << shared) << shared;
        if bound >= 1 << 16 {
            return self.next_segment(local);
        }
        Some(self.prefix(local) | (bound << 48) >> self.local_depth)
    }

    fn prefix(self, local: u64) -> u64 {
        local & !(u64::MAX.checked_shr(self.local_depth).unwrap_or(0))
    }

    fn next_segment(self, local: u64) -> Option<u64> {
        if self.local_depth == 0 {
            return None;
        }
        self.prefix(local).checked_add(1 << (64 - self.local_depth))
    }
}

fn window(depth: u32) -> u32 {
    depth.saturating_sub(NEAR)
}

/// A slot word with the hash bits of another window.
fn rebits(word: u64, hash: u64, window: u32) -> u64 {
    word & ((1 << 48) - 1) | ((hash << SKIP << window) >> 48) << 48
}

fn is_sparse(count: usize, buckets: usize) -> bool {
    count * 4 < buckets * SLOTS
}

/// The class that `count` entries fill to 60 % at most.
fn comfortable_class(count: usize) -> usize {
    arena::class_for((count * 5).div_ceil(SLOTS * 3).max(1)).unwrap_or(MAX_CLASS)
}

fn add(counter: &AtomicU32, delta: i32) {
    counter.store(counter.load(Relaxed).wrapping_add_signed(delta), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    // A thin pointer to a key of any length: what a table stores.
    #[allow(clippy::box_collection)]
    struct Owned(Box<Vec<u8>>);

    // SAFETY: a Box is a thin owning pointer, and user addresses are below 2^48.
    unsafe impl TableEntry for Owned {
        fn into_raw(self) -> NonNull<u8> {
            NonNull::from(Box::leak(self.0)).cast()
        }
        unsafe fn from_raw(raw: NonNull<u8>) -> Self {
            // SAFETY: by contract the pointer came from `into_raw`.
            Self(unsafe { Box::from_raw(raw.as_ptr().cast()) })
        }
        unsafe fn key<'a>(raw: NonNull<u8>) -> &'a [u8] {
            // SAFETY: by contract the entry is alive.
            unsafe { raw.cast::<Vec<u8>>().as_ref() }
        }
        unsafe fn further_lines(_: NonNull<u8>) -> usize {
            3
        }
    }

    /// A hash that keeps everything in shard 0 and, with `skew`, most bits equal.
    fn hash(key: &[u8], skew: u32) -> u64 {
        let n = key.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
        let mixed = (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 32) >> (SKIP + skew)
    }

    fn model_run(skew: u32, seed: u64, steps: usize, keys: u64) {
        let rehash = move |key: &[u8]| hash(key, skew);
        let table: Table<Owned> = Table::new();
        // SAFETY: the table is local to this thread, and this is the only claim.
        let mut t = unsafe { table.assume_locked() };
        let mut model: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        };
        for step in 0..steps {
            let key = format!("key:{}", next() % keys).into_bytes();
            let h = rehash(&key);
            let growing = (step / (keys as usize)) % 3 != 2;
            match t.find(h, &key) {
                None if growing => {
                    let volatile = next() % 4 == 0;
                    t.insert(h, Owned(Box::new(key.clone())), volatile, &rehash);
                    assert!(model.insert(key, volatile).is_none());
                }
                None => assert!(!model.contains_key(&key)),
                Some(slot) if !growing || next() % 8 == 0 => {
                    assert_eq!(*t.remove(slot).0, key);
                    assert!(model.remove(&key).is_some());
                }
                Some(slot) => {
                    let volatile = next() % 2 == 0;
                    t.replace(slot, slot.pointer(), volatile);
                    model.insert(key, volatile);
                }
            }
            if step % 97 == 0 {
                t.tidy(next() & ((1 << 38) - 1), &rehash);
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.volatile(), model.values().filter(|v| **v).count());
        let mut seen = BTreeMap::new();
        let mut position = Some(0);
        while let Some(at) = position {
            position = t.visit_bucket(at, |raw, volatile| {
                // SAFETY: visited entries are alive.
                let key = unsafe { Owned::key(raw) }.to_vec();
                assert!(seen.insert(key, volatile).is_none(), "visited twice");
            });
            assert!(position.is_none_or(|p| p > at), "walks go forward");
        }
        assert_eq!(seen, model);
        t.take().destroy();
        assert!(table.is_empty());
    }

    #[test]
    fn behaves_as_a_map_while_it_grows_and_shrinks() {
        model_run(0, 1, 60_000, 5_000);
        model_run(0, 2, 5_000, 20);
        model_run(12, 3, 40_000, 3_000);
        model_run(6, 4, 200_000, 60_000);
    }

    #[test]
    fn a_walk_sees_what_stays_while_segments_split_and_merge() {
        let rehash = |key: &[u8]| hash(key, 0);
        let table: Table<Owned> = Table::new();
        // SAFETY: the table is local to this thread, and this is the only claim.
        let mut t = unsafe { table.assume_locked() };
        let name = |i: usize| format!("k{i}").into_bytes();
        for i in 0..2000 {
            t.insert(rehash(&name(i)), Owned(Box::new(name(i))), false, &rehash);
        }
        let mut seen = HashSet::new();
        let (mut position, mut extra, mut calls) = (Some(0), 2000, 0);
        while let Some(at) = position {
            position = t.visit_bucket(at, |raw, _| {
                // SAFETY: visited entries are alive.
                seen.insert(unsafe { Owned::key(raw) }.to_vec());
            });
            calls += 1;
            if calls < 60 {
                for _ in 0..100 {
                    t.insert(
                        rehash(&name(extra)),
                        Owned(Box::new(name(extra))),
                        false,
                        &rehash,
                    );
                    extra += 1;
                }
            } else if extra > 2000 {
                for _ in 0..100.min(extra - 2000) {
                    extra -= 1;
                    let slot = t
                        .find(rehash(&name(extra)), &name(extra))
                        .expect("inserted");
                    drop(t.remove(slot));
                }
                t.tidy(at, &rehash);
            }
        }
        assert!((0..2000).all(|i| seen.contains(&name(i))));
        t.take().destroy();
    }

    #[test]
    fn tables_stay_well_filled() {
        let rehash = |key: &[u8]| hash(key, 0);
        let table: Table<Owned> = Table::new();
        // SAFETY: the table is local to this thread, and this is the only claim.
        let mut t = unsafe { table.assume_locked() };
        let mut worst: f64 = 0.0;
        for i in 0..20_000 {
            let key = format!("key:{i}").into_bytes();
            t.insert(rehash(&key), Owned(Box::new(key)), false, &rehash);
            if i > 500 && i % 50 == 0 {
                worst = worst.max(t.footprint().1 as f64 / f64::from(i));
            }
        }
        println!("worst bytes per key {worst:.1}");
        assert!(worst < 20.0, "{worst} bytes of table per key");
        for position in 0..20_000 {
            let key = format!("key:{position}").into_bytes();
            let slot = t.find(rehash(&key), &key).expect("inserted");
            drop(t.remove(slot));
        }
        t.tidy(0, &rehash);
        assert_eq!(t.footprint().1, 0);
    }
}
