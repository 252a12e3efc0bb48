//! Memory for hash table segments and directories that stays readable for ever.
//!
//! Workers prefetch through directories and segments without holding the shard's lock, so a
//! block that a table gave back may still be read, as stale words whose only use is to be
//! prefetched. Blocks therefore live in mappings that are never removed: freed pages are handed
//! back to the kernel with `MADV_DONTNEED`, after which they read as zeros.
//!
//! Directories and segments never share memory ([`Use`]): a stale directory then still holds
//! nothing but addresses of segments, and following one ends in a segment, old or new.
//!
//! Blocks are multiples of a cache line, in [`CLASSES`], cut from 64 KiB spans, each span for one
//! class; spans are cut from 2 MiB chunks, after the first few ([`SMALL_CHUNKS`]) on huge pages: the
//! next one is ordered ([`pages`]) while one is half used. Directories of more than 4 KiB are mapped
//! on their own and kept by size for the next one that needs it. The arena's lock is a leaf: it is
//! taken under shard locks, rarely (a table grows by a step), and nothing under it but that of the
//! orders.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

use crate::base::alloc;
use crate::base::pages::{self, HUGE};

/// Bytes in a cache line, the arena's unit.
pub const LINE: usize = 64;
/// Block sizes in lines. Steps of a quarter to a half keep tables well filled while they grow.
pub const CLASSES: [usize; 16] = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64];

const SPAN: usize = 64 << 10;
const CHUNK: usize = HUGE;
/// Chunks that begin on small pages, so that little data takes little memory; the kernel may join
/// their pages when they are full.
const SMALL_CHUNKS: usize = 3;
/// Spans without a block in use beyond this many give their pages back.
const WARM_SPANS: usize = 8;

/// A block's address: readable for the life of the process, writable by its owner.
pub type Block = NonNull<AtomicU64>;

/// What a block is for; blocks of one use never become blocks of the other.
#[derive(Clone, Copy)]
pub enum Use {
    /// Buckets: tags and entry addresses.
    Segment = 0,
    /// Addresses of segments.
    Directory = 1,
}

struct Span {
    class: usize,
    used: usize,
    free: Vec<u16>,
}

#[derive(Default)]
struct Arena {
    /// Spans in use, by address.
    spans: HashMap<usize, Span>,
    /// Addresses of spans of each class that have room.
    with_room: [Vec<usize>; CLASSES.len()],
    /// Empty spans, whether their pages are resident.
    idle: Vec<(usize, bool)>,
    /// What is left of the newest chunk.
    fresh: usize,
    fresh_end: usize,
    /// The chunk after it, whose page is being made ready.
    next: Option<usize>,
    /// Chunks that were begun.
    chunks: usize,
    /// Directories given back, by the base-two logarithm of their size.
    large: HashMap<u32, Vec<usize>>,
}

static ARENAS: [Mutex<Option<Arena>>; 2] = [const { Mutex::new(None) }; 2];

/// A zeroed block of `CLASSES[class]` lines.
pub fn allocate(class: usize, purpose: Use) -> Block {
    let mut guard = ARENAS[purpose as usize].lock();
    let arena = guard.get_or_insert_default();
    let address = arena.take(class);
    drop(guard);
    let bytes = CLASSES[class] * LINE;
    alloc::add_external(bytes as isize);
    zeroed(address, bytes)
}

/// Gives a block back; it stays readable.
pub fn free(block: Block, class: usize, purpose: Use) {
    alloc::add_external(-((CLASSES[class] * LINE) as isize));
    ARENAS[purpose as usize]
        .lock()
        .get_or_insert_default()
        .give(block.as_ptr() as usize, class);
}

/// A zeroed block of `1 << log2` bytes for a directory above the largest class.
pub fn allocate_large(log2: u32) -> Block {
    let size = 1usize << log2;
    alloc::add_external(size as isize);
    let kept = ARENAS[Use::Directory as usize]
        .lock()
        .get_or_insert_default()
        .large
        .get_mut(&log2)
        .and_then(Vec::pop);
    match kept {
        Some(address) => zeroed(address, size),
        None => zeroed(map(size), size),
    }
}

/// Gives a block of [`allocate_large`] back; it stays readable.
pub fn free_large(block: Block, log2: u32) {
    let size = 1usize << log2;
    alloc::add_external(-(size as isize));
    let address = block.as_ptr() as usize;
    release(address, size);
    let mut guard = ARENAS[Use::Directory as usize].lock();
    let arena = guard.get_or_insert_default();
    arena.large.entry(log2).or_default().push(address);
}

/// The smallest class of at least `lines` lines.
pub fn class_for(lines: usize) -> Option<usize> {
    CLASSES.iter().position(|&l| l >= lines)
}

impl Arena {
    fn take(&mut self, class: usize) -> usize {
        let address = match self.with_room[class].last() {
            Some(&address) => address,
            None => self.new_span(class),
        };
        let span = self.spans.get_mut(&address).expect("listed spans exist");
        let index = span.free.pop().expect("a span in with_room has room");
        span.used += 1;
        if span.free.is_empty() {
            self.with_room[class].pop();
        }
        address + usize::from(index) * CLASSES[class] * LINE
    }

    fn give(&mut self, address: usize, class: usize) {
        let base = address & !(SPAN - 1);
        let span = self.spans.get_mut(&base).expect("block of this arena");
        assert_eq!(span.class, class, "block freed as another class");
        let index = (address - base) / (CLASSES[class] * LINE);
        span.free.push(index as u16);
        span.used -= 1;
        if span.used == 0 {
            self.spans.remove(&base);
            self.with_room[class].retain(|&s| s != base);
            let resident = self.idle.len() < WARM_SPANS;
            if !resident {
                release(base, SPAN);
            }
            self.idle.push((base, resident));
        } else if span.free.len() == 1 {
            self.with_room[class].push(base);
        }
    }

    fn new_span(&mut self, class: usize) -> usize {
        let address = match self.idle.pop() {
            Some((address, _)) => address,
            None => self.cut_span(),
        };
        let blocks = SPAN / (CLASSES[class] * LINE);
        self.spans.insert(
            address,
            Span {
                class,
                used: 0,
                free: (0..blocks as u16).rev().collect(),
            },
        );
        self.with_room[class].push(address);
        address
    }

    fn cut_span(&mut self) -> usize {
        if self.fresh == self.fresh_end {
            if self.fresh_end != 0 {
                pages::become_huge(self.fresh_end - CHUNK, self.fresh_end);
            }
            self.fresh = self.next.take().unwrap_or_else(map_chunk);
            self.fresh_end = self.fresh + CHUNK;
            self.chunks += 1;
        }
        self.fresh += SPAN;
        if self.chunks >= SMALL_CHUNKS && self.fresh_end - self.fresh == CHUNK / 2 {
            let chunk = map_chunk();
            self.next = Some(chunk);
            pages::order(chunk);
        }
        self.fresh - SPAN
    }
}

/// A chunk of which no page is there yet.
fn map_chunk() -> usize {
    // Twice the size guarantees an aligned chunk inside; the rest is never touched.
    let raw = map(2 * CHUNK);
    (raw + CHUNK - 1) & !(CHUNK - 1)
}

fn map(size: usize) -> usize {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
    match unsafe { mmap_anonymous(std::ptr::null_mut(), size, prot, flags) } {
        Ok(address) => address as usize,
        Err(_) => std::alloc::handle_alloc_error(
            std::alloc::Layout::from_size_align(size, LINE).expect("sizes are small powers of two"),
        ),
    }
}

/// Returns the pages of a block to the kernel; they read as zeros from then on.
fn release(address: usize, size: usize) {
    if size < 4096 {
        return;
    }
    // SAFETY: the range is a page-aligned part of a mapping of ours whose content nobody needs.
    let released = unsafe { madvise(address as *mut c_void, size, Advice::LinuxDontNeed) };
    // A refusal only means that the pages stay resident.
    let _ = released;
}

fn zeroed(address: usize, bytes: usize) -> Block {
    let block = NonNull::new(address as *mut AtomicU64).expect("mappings are not at zero");
    for word in 0..bytes / 8 {
        // SAFETY: inside the block; all access to it is through atomics.
        unsafe { block.add(word).as_ref() }.store(0, Relaxed);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_distinct_and_reused() {
        let mut held = Vec::new();
        for round in 0..3000 {
            let class = round % CLASSES.len();
            let block = allocate(class, Use::Segment);
            assert_eq!(block.as_ptr() as usize % LINE, 0);
            // SAFETY: the block is ours.
            let first = unsafe { block.as_ref() };
            assert_eq!(first.load(Relaxed), 0, "zeroed");
            first.store(u64::MAX, Relaxed);
            held.push((block, class));
        }
        let mut ranges: Vec<_> = held
            .iter()
            .map(|(b, c)| (b.as_ptr() as usize, CLASSES[*c] * LINE))
            .collect();
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
        for (block, class) in held {
            free(block, class, Use::Segment);
            // SAFETY: freed blocks stay readable.
            unsafe { block.as_ref() }.load(Relaxed);
        }
    }

    #[test]
    fn large_blocks_come_back_zeroed() {
        let block = allocate_large(16);
        // SAFETY: the block is ours.
        unsafe { block.add(8191).as_ref() }.store(7, Relaxed);
        free_large(block, 16);
        let again = allocate_large(16);
        // SAFETY: the block is ours.
        assert_eq!(unsafe { again.add(8191).as_ref() }.load(Relaxed), 0);
        free_large(again, 16);
    }
}
