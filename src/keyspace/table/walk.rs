//! Walks in hash order, and samples.

use std::ptr::NonNull;

use super::segment::{
    Segment, bits, displaced, occupied, occupied_mask, pointer_of, slot_word, tags,
};
use super::{
    Locked, MAX_CLASS, POSITION_BITS, Position, SKIP, SLOTS, Slot, TableEntry, VOLATILE,
    position_of_shard, shard_of_position,
};
use crate::keyspace::arena::{Block, CLASSES};

impl<E: TableEntry> Locked<'_, E> {
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
}

/// The position of a hash less its shard's bits, in the shard of another position.
pub(super) fn in_shard_of(position: Position, local: u64) -> Position {
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
