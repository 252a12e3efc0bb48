//! Reading ahead: the steps from a hash to an entry, asked of the processor before they are needed.
//!
//! The directory's word, the bucket, the entry: each step reads what the one before asked for, so
//! it should follow when that has had the time to arrive. The same step for many keys in a row
//! overlaps. All of it may run at any time, without the shard's lock: what is read may be stale, but
//! stays readable, and is used for nothing but a prefetch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::arena::Block;
use super::segment::{Segment, displaced, matching, slot_word, tag_of, tags};
use super::{EXTENT, POINTER, SKIP, prefetch};

/// The directory's word on the way to a key, asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ahead(pub(super) Option<&'static AtomicU64>);

/// The bucket in which a key is expected, asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct AheadBucket {
    /// Its address; 0: none.
    bucket: usize,
    /// The hash bits in the key's slot.
    bits: u64,
}

impl Ahead {
    #[inline]
    fn segment(self) -> Option<Segment> {
        let word = self.0?.load(Relaxed);
        (word != 0).then(|| Segment::decode(word))
    }

    /// Asks the processor for the bucket of `hash`. Callable at any time by any thread.
    #[inline]
    pub fn prefetch_bucket(self, hash: u64) -> AheadBucket {
        let Some(segment) = self.segment() else {
            return AheadBucket::default();
        };
        let home = segment.home(hash << SKIP);
        let bucket = segment.bucket(home.bucket);
        prefetch(bucket.as_ptr().cast());
        AheadBucket {
            bucket: bucket.as_ptr() as usize,
            bits: home.bits,
        }
    }

    /// Asks the processor for the entry of `hash` that its home was too full for. Callable at any
    /// time by any thread.
    pub fn prefetch_displaced(self, hash: u64) {
        let Some(segment) = self.segment() else {
            return;
        };
        let home = segment.home(hash << SKIP);
        for distance in 1..=segment.reach() {
            if ask_entry(segment.nth(home.bucket, distance), hash, home.bits) {
                return;
            }
        }
    }
}

impl AheadBucket {
    /// Asks the processor for the entry of `hash`; false when it is to be looked for elsewhere, with
    /// [`Ahead::prefetch_displaced`]. Callable at any time by any thread.
    #[inline]
    pub fn prefetch_entry(self, hash: u64) -> bool {
        let Some(bucket) = Block::new(self.bucket as *mut AtomicU64) else {
            return true;
        };
        ask_entry(bucket, hash, self.bits) || displaced(tags(bucket)) == 0
    }
}

/// Asks the processor for the entry of `hash`, if it is in the bucket.
#[inline]
fn ask_entry(bucket: Block, hash: u64, bits: u64) -> bool {
    for index in matching(tags(bucket), tag_of(hash)) {
        let word = slot_word(bucket, index);
        if word >> 48 == bits {
            let address = (word & POINTER) as *const u8;
            let lines = ((word & EXTENT) >> 1) as usize;
            // Asking twice for a line costs less than a branch that is hard to predict.
            prefetch(address);
            prefetch(address.wrapping_add(lines.min(1) * 64));
            prefetch(address.wrapping_add(lines * 64));
            return true;
        }
    }
    false
}
