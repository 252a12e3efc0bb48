//! The hash table behind a shard's part of a database: extendible, ordered by hash, never
//! rehashed as a whole.
//!
//! ```text
//!  hash  | shard (skip) |  directory (depth bits)  | 16 bits: bucket ...        | ... 7 bits: tag |
//!
//!  directory word    48 bits segment address | 4 bits class | 16 bits local depth
//!  segment           1 to 64 buckets of one cache line each
//!  bucket   word 0   7 tags (0: empty) | meta byte (entries displaced from here)
//!           word 1-7 16 bits of hash | 45 bits entry address | 2 bits: further lines | 1 bit: volatile
//! ```
//!
//! Buckets follow hash order: the 16 hash bits after the segment's local depth, scaled to its
//! number of buckets, give an entry's *home*. When the home is full the entry goes to one of the
//! next [`REACH`] buckets and the home counts it as displaced, so that a miss reads one line.
//! When all of those are full, the segment grows to the next size or, at 64 buckets, splits in
//! two. The slot's own 16 hash bits suffice to move it, so neither touches the entries, and no
//! insert ever costs more than the redistribution of 448 slots.
//!
//! Threads: mutation and lookup need the shard's lock, to which the two doors of a shared table
//! bear witness ([`Table::assume_locked`], [`Table::assume_read`]); only
//! [`Table::prefetch_directory`] and the steps from [`Ahead`] on may run at any time. They read
//! directory and buckets, which are atomics in memory that stays readable for ever
//! (`super::arena`), and use what they find, right or stale, for nothing but a prefetch.
//!
//! Behind the doors borrows hold: a [`View`] reads and may be copied; a [`Locked`] is the only way to
//! a table that changes, and lends one [`Slot`] at a time, which owns its entry's place: taking the
//! entry out ends the slot. So an entry is neither freed twice nor read after it.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::arena::{self, Block, CLASSES, Use};

mod ahead;
#[allow(unsafe_code)]
mod segment;
#[allow(unsafe_code)]
mod shape;
#[allow(unsafe_code)]
mod slot;
#[allow(unsafe_code)]
mod walk;
pub use ahead::{Ahead, AheadBucket};
use segment::{Segment, pointer_of, tag_of};
pub use slot::Slot;

/// What a table stores: an owning thin pointer, 8-byte aligned and below 2^48.
///
/// # Safety
/// `into_raw` must give such a pointer, `from_raw` must restore the value from it. Loans free nothing,
/// and what safe code can do with a [`TableEntry::Mut`] leaves the entry at its address and
/// [`TableEntry::is_volatile`] as it was.
pub unsafe trait TableEntry: Sized {
    /// An entry lent to be read.
    type Ref<'a>
    where
        Self: 'a;
    /// An entry lent to be changed where it lies.
    type Mut<'a>
    where
        Self: 'a;
    /// True when the entry has an expiry, which its slot tells of too.
    fn is_volatile(&self) -> bool;
    /// Lends the entry at `raw`.
    ///
    /// # Safety
    /// `raw` came from [`TableEntry::into_raw`]; for `'a` the entry stays alive, and nobody changes it
    /// but through this loan's like.
    unsafe fn lend<'a>(raw: NonNull<u8>) -> Self::Ref<'a>
    where
        Self: 'a;
    /// Lends the entry at `raw` to be changed.
    ///
    /// # Safety
    /// As for [`TableEntry::lend`], and for `'a` nobody else has access to the entry.
    unsafe fn lend_mut<'a>(raw: NonNull<u8>) -> Self::Mut<'a>
    where
        Self: 'a;
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
/// Places for entries in a bucket.
pub const SLOTS: usize = 7;
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
/// How many bits those are.
pub const POSITION_BITS: u32 = 48;

/// Where a shard begins.
pub fn position_of_shard(shard: usize) -> Position {
    (shard as u64) << (POSITION_BITS - SKIP)
}

/// The shard of a position; beyond the last shard for numbers that are no position.
pub fn shard_of_position(position: Position) -> usize {
    (position >> (POSITION_BITS - SKIP)) as usize
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

    /// Exclusive access to a shared table.
    ///
    /// # Safety
    /// The caller holds the lock that guards this table for as long as the result lives, and
    /// nobody makes another claim on it meanwhile, to read or to change.
    #[inline]
    pub unsafe fn assume_locked(&self) -> Locked<'_, E> {
        Locked {
            table: self,
            lends: PhantomData,
        }
    }

    /// Access to a shared table, to read.
    ///
    /// # Safety
    /// The caller holds the lock that guards this table for as long as the result lives, and
    /// nobody makes an exclusive claim meanwhile.
    #[inline]
    pub unsafe fn assume_read(&self) -> View<'_, E> {
        View {
            table: self,
            lends: PhantomData,
        }
    }

    /// Exclusive access to a table of one's own.
    #[inline]
    pub fn own(&mut self) -> Locked<'_, E> {
        Locked {
            table: self,
            lends: PhantomData,
        }
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

    /// Buckets in all segments, and bytes of segments and directory: exact under the lock, a recent
    /// value without it, of which a part may be older than another.
    pub fn footprint(&self) -> (usize, usize) {
        let Some((base, depth)) = self.directory() else {
            return (0, 0);
        };
        let (mut buckets, mut index) = (0, 0);
        while index < 1 << depth {
            let word = directory_word(base, index).load(Relaxed);
            let mut span = 1;
            if word != 0 {
                let segment = Segment::decode(word);
                buckets += segment.buckets();
                // As many words as name the segment, were it stale or not.
                span <<= depth.saturating_sub(segment.local_depth);
            }
            index = (index / span + 1) * span;
        }
        (buckets, buckets * arena::LINE + (8 << depth))
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

/// A table whose lock is held, to be read by who may see others read it.
///
/// Bound to its thread: entries are changed a little (their access clocks) by who reads them.
pub struct View<'t, E> {
    table: &'t Table<E>,
    lends: PhantomData<NonNull<E>>,
}

impl<E> Clone for View<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for View<'_, E> {}

/// A table whose lock is held, to be changed: the only access to it.
pub struct Locked<'t, E> {
    table: &'t Table<E>,
    lends: PhantomData<NonNull<E>>,
}

/// Computes a key's hash; asked only when a deep segment splits.
pub type Rehash<'a> = &'a dyn Fn(&[u8]) -> u64;

impl<'t, E: TableEntry> View<'t, E> {
    /// The entry of `key`.
    #[inline]
    pub fn find(self, hash: u64, key: &[u8]) -> Option<E::Ref<'t>>
    where
        E: 't,
    {
        // SAFETY: the view proves the lock.
        let place = unsafe { self.table.locate(hash, key) }?;
        // SAFETY: slots in use hold live entries, which nobody changes while the view lives.
        Some(unsafe { E::lend(place.pointer()) })
    }
}

impl<'t, E: TableEntry> Locked<'t, E> {
    /// The table to be read, while this is not used.
    #[inline]
    pub fn view(&self) -> View<'_, E> {
        View {
            table: self.table,
            lends: PhantomData,
        }
    }

    /// Where `key` is stored.
    #[inline]
    pub fn find(&mut self, hash: u64, key: &[u8]) -> Option<Slot<'_, E>> {
        // SAFETY: this is the only claim on the table, and lent to the slot.
        unsafe { Some(Slot::new(self.table, self.table.locate(hash, key)?)) }
    }

    /// As [`Locked::find`], for as long as the table may be changed.
    #[inline(always)]
    pub fn into_found(self, hash: u64, key: &[u8]) -> Option<Slot<'t, E>> {
        // SAFETY: this is the only claim on the table, and lent to the slot.
        unsafe { Some(Slot::new(self.table, self.table.locate(hash, key)?)) }
    }

    /// Stores an entry whose key is not in the table yet.
    pub fn insert(&mut self, hash: u64, entry: E, rehash: Rehash<'_>) {
        let local = hash << SKIP;
        let volatile = entry.is_volatile();
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
        let mut locked = self.own();
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

fn add(counter: &AtomicU32, delta: i32) {
    counter.store(counter.load(Relaxed).wrapping_add_signed(delta), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashSet};

    // A thin pointer to a key of any length, and whether it is volatile: what a table stores.
    struct Owned(Box<(Vec<u8>, bool)>);

    impl Owned {
        fn new(key: &[u8], volatile: bool) -> Self {
            Self(Box::new((key.to_vec(), volatile)))
        }
    }

    // SAFETY: a Box is a thin owning pointer, and user addresses are below 2^48.
    unsafe impl TableEntry for Owned {
        type Ref<'a> = &'a (Vec<u8>, bool);
        type Mut<'a> = &'a [u8];
        fn is_volatile(&self) -> bool {
            self.0.1
        }
        unsafe fn lend<'a>(raw: NonNull<u8>) -> Self::Ref<'a> {
            // SAFETY: by contract the entry is alive and unchanged.
            unsafe { raw.cast().as_ref() }
        }
        unsafe fn lend_mut<'a>(raw: NonNull<u8>) -> Self::Mut<'a> {
            // SAFETY: by contract the entry is alive and unchanged.
            unsafe { Self::key(raw) }
        }
        fn into_raw(self) -> NonNull<u8> {
            NonNull::from(Box::leak(self.0)).cast()
        }
        unsafe fn from_raw(raw: NonNull<u8>) -> Self {
            // SAFETY: by contract the pointer came from `into_raw`.
            Self(unsafe { Box::from_raw(raw.as_ptr().cast()) })
        }
        unsafe fn key<'a>(raw: NonNull<u8>) -> &'a [u8] {
            // SAFETY: by contract the entry is alive.
            unsafe { &raw.cast::<(Vec<u8>, bool)>().as_ref().0 }
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
        let mut table: Table<Owned> = Table::new();
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
            match table.own().find(h, &key) {
                None if growing => {
                    let volatile = next() % 4 == 0;
                    table.own().insert(h, Owned::new(&key, volatile), &rehash);
                    assert!(model.insert(key, volatile).is_none());
                }
                None => assert!(!model.contains_key(&key)),
                Some(slot) if !growing || next() % 8 == 0 => {
                    assert_eq!(slot.remove().0.0, key);
                    assert!(model.remove(&key).is_some());
                }
                Some(mut slot) => {
                    let volatile = next() % 2 == 0;
                    slot.change(|entry| entry.0.1 = volatile);
                    model.insert(key, volatile);
                }
            }
            if step % 97 == 0 {
                table.own().tidy(next() & ((1 << 38) - 1), &rehash);
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.volatile(), model.values().filter(|v| **v).count());
        let mut seen = BTreeMap::new();
        let mut position = Some(0);
        while let Some(at) = position {
            position = table.own().view().visit_bucket(at, |(key, volatile)| {
                assert!(
                    seen.insert(key.clone(), *volatile).is_none(),
                    "visited twice"
                );
            });
            assert!(position.is_none_or(|p| p > at), "walks go forward");
        }
        assert_eq!(seen, model);
        let mut volatile = 0;
        let mut position = Some(0);
        while let Some(at) = position {
            position = table.own().visit_volatile_slots(at, |slot| {
                assert!(slot.get().1);
                volatile += 1;
                drop(slot.remove());
            });
        }
        assert_eq!(volatile, model.values().filter(|v| **v).count());
        assert_eq!((table.len(), table.volatile()), (model.len() - volatile, 0));
        table.own().take().destroy();
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
        let mut table: Table<Owned> = Table::new();
        let name = |i: usize| format!("k{i}").into_bytes();
        for i in 0..2000 {
            table
                .own()
                .insert(rehash(&name(i)), Owned::new(&name(i), false), &rehash);
        }
        let mut seen = HashSet::new();
        let (mut position, mut extra, mut calls) = (Some(0), 2000, 0);
        while let Some(at) = position {
            position = table.own().view().visit_bucket(at, |(key, _)| {
                seen.insert(key.clone());
            });
            calls += 1;
            if calls < 60 {
                for _ in 0..100 {
                    table.own().insert(
                        rehash(&name(extra)),
                        Owned::new(&name(extra), false),
                        &rehash,
                    );
                    extra += 1;
                }
            } else if extra > 2000 {
                for _ in 0..100.min(extra - 2000) {
                    extra -= 1;
                    let mut own = table.own();
                    let slot = own.find(rehash(&name(extra)), &name(extra));
                    drop(slot.expect("inserted").remove());
                }
                table.own().tidy(at, &rehash);
            }
        }
        assert!((0..2000).all(|i| seen.contains(&name(i))));
        table.own().take().destroy();
    }

    #[test]
    fn tables_stay_well_filled() {
        let rehash = |key: &[u8]| hash(key, 0);
        let mut table: Table<Owned> = Table::new();
        let mut worst: f64 = 0.0;
        for i in 0..20_000 {
            let key = format!("key:{i}").into_bytes();
            table
                .own()
                .insert(rehash(&key), Owned::new(&key, false), &rehash);
            if i > 500 && i % 50 == 0 {
                worst = worst.max(table.footprint().1 as f64 / f64::from(i));
            }
        }
        println!("worst bytes per key {worst:.1}");
        assert!(worst < 20.0, "{worst} bytes of table per key");
        for position in 0..20_000 {
            let key = format!("key:{position}").into_bytes();
            let mut own = table.own();
            let slot = own.find(rehash(&key), &key).expect("inserted");
            drop(slot.remove());
        }
        table.own().tidy(0, &rehash);
        assert_eq!(table.footprint().1, 0);
    }
}
