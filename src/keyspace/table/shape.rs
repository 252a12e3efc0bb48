//! Growing, splitting, joining and shrinking: what keeps segments well filled.

use std::sync::atomic::Ordering::Relaxed;

use super::directory_index;
use super::segment::{Segment, pointer_of, window};
use super::walk::in_shard_of;
use super::{
    Locked, MAX_CLASS, MAX_DEPTH, POSITION_BITS, Position, Rehash, SKIP, SLOTS, SPLIT_CLASS,
    TableEntry, directory_allocate, directory_free, directory_word,
};
use crate::keyspace::arena::{self, Block, CLASSES, Use};

impl<E: TableEntry> Locked<'_, E> {
    /// Makes room in a full segment: the next size, or two segments in its place.
    #[cold]
    pub(super) fn grow(&mut self, local: u64, segment: Segment, rehash: Rehash<'_>) {
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
