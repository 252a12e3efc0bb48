//! Segments, their buckets, and the words that both are made of.
//!
//! All of it is reading and writing of atomics in memory that is never unmapped; who may do it when
//! is said in the table's own head.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{HIGHS, NEAR, ONES, POINTER, REACH, SLOTS};
use crate::keyspace::arena::{self, Block, CLASSES, Use};

/// A segment as its directory word describes it.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Segment {
    pub(super) base: Block,
    pub(super) class: usize,
    pub(super) local_depth: u32,
}

/// Where an entry belongs within one segment.
#[derive(Clone, Copy)]
pub(super) struct Home {
    pub(super) bucket: usize,
    /// The 16 hash bits that the slot keeps.
    pub(super) bits: u64,
}

impl Segment {
    pub(super) fn decode(word: u64) -> Self {
        Self {
            base: NonNull::new((word & POINTER & !63) as *mut AtomicU64)
                .expect("directory words name segments"),
            class: (word & 15) as usize,
            local_depth: (word >> 48) as u32,
        }
    }

    pub(super) fn encode(self) -> u64 {
        self.base.as_ptr() as u64 | self.class as u64 | u64::from(self.local_depth) << 48
    }

    pub(super) fn new(class: usize, local_depth: u32) -> Self {
        Self {
            base: arena::allocate(class, Use::Segment),
            class,
            local_depth,
        }
    }

    pub(super) fn buckets(self) -> usize {
        CLASSES[self.class]
    }

    pub(super) fn bucket(self, index: usize) -> Block {
        debug_assert!(index < self.buckets());
        // SAFETY: the index is below the number of lines of the block.
        unsafe { self.base.add(index * 8) }
    }

    /// First hash bit (after the shard's) that slots of this segment keep.
    pub(super) fn window(self) -> u32 {
        self.local_depth.saturating_sub(NEAR)
    }

    pub(super) fn home(self, local: u64) -> Home {
        self.home_of_bits((local << self.window()) >> 48)
    }

    pub(super) fn home_of_bits(self, bits: u64) -> Home {
        let fraction = (bits << (self.local_depth - self.window())) & 0xffff;
        Home {
            bucket: ((fraction * self.buckets() as u64) >> 16) as usize,
            bits,
        }
    }

    pub(super) fn reach(self) -> usize {
        REACH.min(self.buckets() - 1)
    }

    pub(super) fn nth(self, home: usize, distance: usize) -> Block {
        let index = home + distance;
        self.bucket(if index < self.buckets() {
            index
        } else {
            index - self.buckets()
        })
    }

    /// Puts a slot word into the first free place; false when the home's reach is full.
    pub(super) fn place(self, home: Home, tag: u64, word: u64) -> bool {
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
    pub(super) fn slots(self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.buckets()).flat_map(move |b| {
            let bucket = self.bucket(b);
            let tags = tags(bucket);
            occupied(tags).map(move |i| (tag_at(tags, i), slot_word(bucket, i)))
        })
    }

    pub(super) fn count(self) -> usize {
        (0..self.buckets())
            .map(|b| occupied_mask(tags(self.bucket(b))).count_ones() as usize)
            .sum()
    }
}

impl Segment {
    /// The hash (less the shard's bits) at which the bucket after `bucket` begins, or the next
    /// segment when this was the last one.
    pub(super) fn next_bucket(self, local: u64, bucket: usize) -> Option<u64> {
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

    pub(super) fn prefix(self, local: u64) -> u64 {
        local & !(u64::MAX.checked_shr(self.local_depth).unwrap_or(0))
    }

    pub(super) fn next_segment(self, local: u64) -> Option<u64> {
        if self.local_depth == 0 {
            return None;
        }
        self.prefix(local).checked_add(1 << (64 - self.local_depth))
    }
}

#[inline]
pub(super) fn word(bucket: Block, index: usize) -> &'static AtomicU64 {
    // SAFETY: index is below 8, buckets are 8 words of memory that is never unmapped.
    unsafe { bucket.add(index).as_ref() }
}

#[inline]
pub(super) fn tags(bucket: Block) -> u64 {
    word(bucket, 0).load(Relaxed)
}

#[inline]
pub(super) fn slot_word(bucket: Block, index: usize) -> u64 {
    word(bucket, index + 1).load(Relaxed)
}

#[inline]
pub(super) fn tag_at(tags: u64, index: usize) -> u64 {
    (tags >> (index * 8)) & 0xff
}

/// One bit (the byte's highest) for each slot in use: stored tags always have it set.
#[inline]
pub(super) fn occupied_mask(tags: u64) -> u64 {
    tags & HIGHS
}

#[inline]
pub(super) fn occupied(tags: u64) -> impl Iterator<Item = usize> {
    bits(occupied_mask(tags))
}

#[inline]
pub(super) fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
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
pub(super) fn free_slot(tags: u64) -> Option<usize> {
    let free = !tags & HIGHS;
    (free != 0).then(|| free.trailing_zeros() as usize / 8)
}

/// Slots whose tag may equal `tag` (a false positive is possible above a true one).
#[inline]
pub(super) fn matching(tags: u64, tag: u64) -> impl Iterator<Item = usize> {
    let x = (tags ^ (ONES * tag)) & 0x00ff_ffff_ffff_ffff;
    bits(x.wrapping_sub(ONES) & !x & HIGHS)
}

pub(super) fn set_slot(bucket: Block, index: usize, tag: u64, value: u64) {
    word(bucket, index + 1).store(value, Relaxed);
    let old = tags(bucket) & !(0xff << (index * 8));
    word(bucket, 0).store(old | tag << (index * 8), Relaxed);
}

pub(super) fn clear_slot(bucket: Block, index: usize) {
    word(bucket, 0).store(tags(bucket) & !(0xff << (index * 8)), Relaxed);
    word(bucket, index + 1).store(0, Relaxed);
}

#[inline]
pub(super) fn displaced(tags: u64) -> u64 {
    tags >> 56
}

pub(super) fn adjust_displaced(home: Block, delta: i64) {
    let old = tags(home);
    let count = (displaced(old) as i64 + delta) as u64;
    debug_assert!(count <= (REACH * SLOTS) as u64);
    word(home, 0).store((old & ((1 << 56) - 1)) | count << 56, Relaxed);
}

#[inline]
pub(super) fn tag_of(hash: u64) -> u64 {
    0x80 | hash & 0x7f
}

#[inline]
pub(super) fn pointer_of(word: u64) -> NonNull<u8> {
    NonNull::new((word & POINTER) as *mut u8).expect("slots in use hold pointers")
}

pub(super) fn window(depth: u32) -> u32 {
    depth.saturating_sub(NEAR)
}
