//! Walks in hash order, and samples.

use super::segment::{
    Segment, bits, displaced, occupied, occupied_mask, pointer_of, slot_word, tags,
};
use super::slot::Place;
use super::{
    Locked, MAX_CLASS, POSITION_BITS, Position, SKIP, SLOTS, Slot, Table, TableEntry, VOLATILE,
    View, position_of_shard, prefetch, shard_of_position,
};
use crate::keyspace::arena::CLASSES;

impl<E: TableEntry> Table<E> {
    /// Shows the place of every entry of the bucket at `position`, with its word, and returns the
    /// position of the next bucket, or `None` at the end of the shard. The table's lock is held, as
    /// views and claims on it prove; entries that were shown may go meanwhile.
    #[inline]
    fn visit(&self, position: Position, mut show: impl FnMut(Place, u64)) -> Option<Position> {
        let local = (position << (64 - POSITION_BITS)) << SKIP;
        let segment = self.segment(local)?;
        let home = segment.home(local).bucket;
        for_each_at_home(segment, home, |place, word| {
            if segment.home_of_bits(word >> 48).bucket == home {
                show(place, word);
            }
        });
        let next = in_shard_of(position, segment.next_bucket(local, home)?);
        debug_assert!(next > position, "walks go forward");
        Some(next)
    }
}

impl<'t, E: TableEntry> View<'t, E> {
    /// Shows every entry of the bucket at `position` to `visit` and returns the position of the
    /// next bucket, or `None` at the end of the shard.
    ///
    /// Positions are hash prefixes, not places: whatever splits or merges between two calls, a
    /// walk that passes on what it was given sees every entry that stays from its beginning to
    /// its end.
    pub fn visit_bucket(
        self,
        position: Position,
        mut visit: impl FnMut(E::Ref<'t>),
    ) -> Option<Position>
    where
        E: 't,
    {
        self.table.visit(position, |place, _| {
            // SAFETY: visited slots hold live entries, which nobody changes while the view lives.
            visit(unsafe { E::lend(place.pointer()) });
        })
    }

    /// As [`View::visit_bucket`], for volatile entries only; others are not read.
    pub fn visit_volatile(
        self,
        position: Position,
        mut visit: impl FnMut(E::Ref<'t>),
    ) -> Option<Position>
    where
        E: 't,
    {
        self.table.visit(position, |place, word| {
            if word & VOLATILE != 0 {
                // SAFETY: as in `visit_bucket`.
                visit(unsafe { E::lend(place.pointer()) });
            }
        })
    }

    /// How many entries the bucket at `position` has, none of which is read, and where the next one
    /// begins.
    pub fn count_bucket(self, position: Position) -> (usize, Option<Position>) {
        let mut count = 0;
        let next = self.table.visit(position, |_, _| count += 1);
        (count, next)
    }

    /// Asks the processor for the entries of the bucket at `position`; where the next one begins.
    pub fn prefetch_bucket(self, position: Position) -> Option<Position> {
        self.table.visit(position, |_, word| {
            let entry = pointer_of(word).as_ptr();
            prefetch(entry);
            prefetch(entry.wrapping_add(64));
        })
    }

    /// An entry by two random numbers: the bucket by `random`, the slot in it by `pick`. Every entry
    /// is equally likely; `None` when the numbers hit none: try again with others.
    pub fn random(self, random: u64, pick: u64) -> Option<E::Ref<'t>>
    where
        E: 't,
    {
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
        // SAFETY: the slot is in use, its entry changed by nobody while the view lives.
        Some(unsafe { E::lend(pointer_of(slot_word(bucket, index))) })
    }
}

impl<E: TableEntry> Locked<'_, E> {
    /// As [`View::visit_bucket`], with the entries to be changed where they lie.
    pub fn visit_mut(
        &mut self,
        position: Position,
        mut visit: impl FnMut(E::Mut<'_>),
    ) -> Option<Position> {
        let table = self.table;
        table.visit(position, |place, _| {
            // SAFETY: the place is in use; `&mut self` is the claim, which `visit` does not have.
            visit(unsafe { Slot::new(table, place) }.get_mut());
        })
    }

    /// As [`View::visit_volatile`], with the slots, whose entries may be taken out.
    pub fn visit_volatile_slots(
        &mut self,
        position: Position,
        mut visit: impl FnMut(Slot<'_, E>),
    ) -> Option<Position> {
        let table = self.table;
        table.visit(position, |place, word| {
            if word & VOLATILE != 0 {
                // SAFETY: as above. No place is shown twice, so none whose entry was taken out.
                visit(unsafe { Slot::new(table, place) });
            }
        })
    }
}

/// The position of a hash less its shard's bits, in the shard of another position.
pub(super) fn in_shard_of(position: Position, local: u64) -> Position {
    position_of_shard(shard_of_position(position)) | local >> (64 - POSITION_BITS + SKIP)
}

/// Shows every slot in use that may hold an entry of the bucket `home`, each once, with its word.
#[inline]
fn for_each_at_home(segment: Segment, home: usize, mut show: impl FnMut(Place, u64)) {
    let home_bucket = segment.bucket(home);
    let reach = if displaced(tags(home_bucket)) == 0 {
        0
    } else {
        segment.reach()
    };
    for distance in 0..=reach {
        let bucket = segment.nth(home, distance);
        for index in occupied(tags(bucket)) {
            let place = Place {
                bucket,
                index,
                home: home_bucket,
            };
            show(place, slot_word(bucket, index));
        }
    }
}
