//! A row of parts in order, long or short, that can be kept as it is at a moment without copying
//! it: the nodes of a list, the blocks of a stream.
//!
//! The parts lie in chunks of up to [`CHUNK`]. [`Row::share`] shares the chunks; a chunk that is
//! changed while the other row still has it is copied first. What is done at the ends costs the
//! same for every length; a place in the middle is found by walking over the chunks.
//!
//! Invariant: no chunk is empty; `len` is the sum of the chunks' lengths.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Index, IndexMut};

use crate::base::share::Share;

/// Most parts of a chunk.
const CHUNK: usize = 16;

type Chunk<T> = Share<VecDeque<T>>;

/// See the module.
#[derive(Clone, Debug)]
pub struct Row<T> {
    chunks: VecDeque<Chunk<T>>,
    len: usize,
}

impl<T> Default for Row<T> {
    fn default() -> Self {
        Self {
            chunks: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Row<T> {
    /// Number of parts.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without parts.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first part.
    #[inline]
    pub fn front(&self) -> Option<&T> {
        self.chunks.front()?.front()
    }

    /// The last part.
    #[inline]
    pub fn back(&self) -> Option<&T> {
        self.chunks.back()?.back()
    }

    /// The part at a place.
    pub fn get(&self, at: usize) -> Option<&T> {
        let (chunk, within) = self.locate(at)?;
        self.chunks[chunk].get(within)
    }

    /// The chunk that holds the part at a place, and its place there. From the nearer end.
    #[inline]
    fn locate(&self, at: usize) -> Option<(usize, usize)> {
        if at >= self.len {
            return None;
        }
        if at < self.len / 2 {
            let mut within = at;
            for (chunk, parts) in self.chunks.iter().enumerate() {
                if within < parts.len() {
                    return Some((chunk, within));
                }
                within -= parts.len();
            }
        } else {
            let mut end = self.len;
            for (chunk, parts) in self.chunks.iter().enumerate().rev() {
                end -= parts.len();
                if at >= end {
                    return Some((chunk, at - end));
                }
            }
        }
        unreachable!("`len` is the sum of the chunks' lengths")
    }

    /// The parts in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The parts from a place on.
    pub fn from(&self, at: usize) -> impl Iterator<Item = &T> {
        let (chunk, within) = self.locate(at).unwrap_or((self.chunks.len(), 0));
        let chunks = self.chunks.range(chunk..);
        chunks.flat_map(|chunk| chunk.iter()).skip(within)
    }

    /// The part at a place, which there is, and those before it, backwards.
    pub fn back_from(&self, at: usize) -> impl Iterator<Item = &T> {
        let (chunk, within) = self.locate(at).expect("the caller knows the place");
        let after = self.chunks[chunk].len() - 1 - within;
        let chunks = self.chunks.range(..=chunk).rev();
        chunks.flat_map(|chunk| chunk.iter().rev()).skip(after)
    }

    /// Shows the parts in order, until `visit` breaks; chunks that nobody else has are freed once
    /// they were shown.
    pub fn consume<B>(self, mut visit: impl FnMut(&T) -> ControlFlow<B>) -> ControlFlow<B> {
        for chunk in self.chunks {
            chunk.iter().try_for_each(&mut visit)?;
        }
        ControlFlow::Continue(())
    }

    /// How many parts come before the first that is not `before`; those that are come first.
    pub fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        let chunks = self
            .chunks
            .partition_point(|chunk| chunk.back().is_some_and(&mut before));
        let whole: usize = self.chunks.range(..chunks).map(|chunk| chunk.len()).sum();
        let rest = self.chunks.get(chunks);
        whole + rest.map_or(0, |chunk| chunk.partition_point(before))
    }

    /// Bytes allocated for the places of parts.
    pub fn memory(&self) -> usize {
        let chunk = |chunk: &Chunk<T>| chunk.capacity() * size_of::<T>();
        // All but those at the ends are much alike.
        let ends = self
            .chunks
            .iter()
            .take(2)
            .chain(self.chunks.iter().rev().take(2));
        let (count, bytes) = ends.fold((0, 0), |(count, sum), c| (count + 1, sum + chunk(c)));
        self.chunks.capacity() * size_of::<Chunk<T>>()
            + bytes * self.chunks.len() / usize::max(count, 1)
    }
}

impl<T: Clone> Row<T> {
    /// The same row, as it is now.
    pub fn share(&mut self) -> Self {
        Self {
            chunks: self.chunks.iter_mut().map(Share::share).collect(),
            len: self.len,
        }
    }

    /// The first part, to be changed.
    #[inline]
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.chunks.front_mut()?.to_mut().front_mut()
    }

    /// The last part, to be changed.
    #[inline]
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.chunks.back_mut()?.to_mut().back_mut()
    }

    /// Adds a part at the end.
    pub fn push_back(&mut self, part: T) {
        self.len += 1;
        if let Some(last) = self.chunks.back_mut()
            && last.len() < CHUNK
        {
            return last.to_mut().push_back(part);
        }
        self.chunks.push_back(Share::Own([part].into()));
    }

    /// Adds a part at the beginning.
    pub fn push_front(&mut self, part: T) {
        self.len += 1;
        if let Some(first) = self.chunks.front_mut()
            && first.len() < CHUNK
        {
            return first.to_mut().push_front(part);
        }
        self.chunks.push_front(Share::Own([part].into()));
    }

    /// Inserts a part before the one at a place, or at the end.
    pub fn insert(&mut self, at: usize, part: T) {
        if at == 0 {
            return self.push_front(part);
        }
        let Some((mut chunk, mut within)) = self.locate(at) else {
            return self.push_back(part);
        };
        if self.chunks[chunk].len() == CHUNK {
            let upper = self.chunks[chunk].to_mut().split_off(CHUNK / 2);
            self.chunks.insert(chunk + 1, Share::Own(upper));
            if within > CHUNK / 2 {
                (chunk, within) = (chunk + 1, within - CHUNK / 2);
            }
        }
        self.chunks[chunk].to_mut().insert(within, part);
        self.len += 1;
    }

    /// Takes the part at a place out.
    pub fn remove(&mut self, at: usize) -> Option<T> {
        let (chunk, within) = self.locate(at)?;
        let part = self.chunks[chunk].to_mut().remove(within);
        self.len -= 1;
        self.tidy(chunk);
        part
    }

    /// After parts of a chunk went: it goes as well when it is empty, and joins the next one when
    /// both are small.
    fn tidy(&mut self, chunk: usize) {
        let len = self.chunks[chunk].len();
        if len == 0 {
            self.chunks.remove(chunk);
        } else if let Some(next) = self.chunks.get(chunk + 1)
            && len + next.len() <= CHUNK / 2
        {
            let next = self.chunks.remove(chunk + 1).map(Share::into_inner);
            self.chunks[chunk]
                .to_mut()
                .extend(next.into_iter().flatten());
        }
    }

    /// Takes the first part out.
    pub fn pop_front(&mut self) -> Option<T> {
        self.remove(0)
    }

    /// Removes the parts of a range of places.
    pub fn remove_range(&mut self, range: std::ops::Range<usize>) {
        let mut left = range.len();
        while left > 0 {
            let Some((chunk, within)) = self.locate(range.start) else {
                return;
            };
            let here = left.min(self.chunks[chunk].len() - within);
            if here == self.chunks[chunk].len() {
                // Whole chunks go without being looked at.
                self.chunks.remove(chunk);
            } else {
                self.chunks[chunk].to_mut().drain(within..within + here);
                self.tidy(chunk);
            }
            self.len -= here;
            left -= here;
        }
    }

    /// Shows the parts of a range of places, to be changed.
    pub fn each_mut(&mut self, range: std::ops::Range<usize>, mut change: impl FnMut(&mut T)) {
        let mut start = 0;
        for chunk in &mut self.chunks {
            let end = start + chunk.len();
            let here = range.start.clamp(start, end)..range.end.clamp(start, end);
            if !here.is_empty() {
                let parts = chunk.to_mut();
                parts
                    .range_mut(here.start - start..here.end - start)
                    .for_each(&mut change);
            }
            start = end;
        }
    }

    /// Removes the parts that are not to be kept.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for chunk in &mut self.chunks {
            if !chunk.iter().all(&mut keep) {
                chunk.to_mut().retain(&mut keep);
            }
        }
        self.chunks.retain(|chunk| !chunk.is_empty());
        self.len = self.chunks.iter().map(|chunk| chunk.len()).sum();
    }
}

impl<T> Index<usize> for Row<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        self.get(at).expect("the caller knows the place")
    }
}

impl<T: Clone> IndexMut<usize> for Row<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        let (chunk, within) = self.locate(at).expect("the caller knows the place");
        &mut self.chunks[chunk].to_mut()[within]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_consumed_is_freed_as_it_is_shown() {
        use std::sync::Arc;
        let part = Arc::new(());
        let mut row = Row::default();
        (0..10 * CHUNK).for_each(|_| row.push_back(Arc::clone(&part)));
        let (kept, mut shown) = (row.share(), 0);
        drop(row);
        let end: ControlFlow<()> = kept.consume(|_| {
            shown += 1;
            assert!(Arc::strong_count(&part) <= 1 + 10 * CHUNK - (shown - 1) / CHUNK * CHUNK);
            ControlFlow::Continue(())
        });
        assert_eq!((end, shown), (ControlFlow::Continue(()), 10 * CHUNK));
    }

    fn agrees(row: &Row<u32>, model: &VecDeque<u32>) {
        assert_eq!(row.len(), model.len());
        assert!(
            row.chunks
                .iter()
                .all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK)
        );
        assert!(row.iter().eq(model));
        assert!(row.iter().rev().eq(model.iter().rev()));
        assert_eq!((row.front(), row.back()), (model.front(), model.back()));
        for at in (0..model.len()).step_by(7) {
            assert_eq!(row.get(at), model.get(at));
            assert!(row.from(at).eq(model.range(at..)));
            assert!(row.back_from(at).eq(model.range(..=at).rev()));
        }
        assert_eq!(
            (row.get(model.len()), row.from(model.len()).next()),
            (None, None)
        );
    }

    proptest! {
        #[test]
        fn behaves_as_a_deque(steps in prop::collection::vec((0..10u8, any::<u32>()), 0..400)) {
            let (mut row, mut model) = (Row::default(), VecDeque::new());
            let mut kept: Option<(Row<u32>, VecDeque<u32>)> = None;
            for (step, value) in steps {
                let place = |len: usize| value as usize % (len + 1);
                let at = place(model.len());
                match step {
                    0 | 1 => {
                        row.push_back(value);
                        model.push_back(value);
                    }
                    2 | 3 => {
                        row.push_front(value);
                        model.push_front(value);
                    }
                    4 | 5 => {
                        row.insert(at, value);
                        model.insert(at, value);
                    }
                    6 => prop_assert_eq!(row.remove(at), model.remove(at)),
                    7 if at < model.len() => {
                        row[at] = value;
                        model[at] = value;
                    }
                    7 => {
                        if let Some((row, model)) = kept.take() {
                            agrees(&row, &model);
                        }
                        kept = Some((row.share(), model.clone()));
                    }
                    8 => {
                        let end = model.len().min(at + value as usize % 40);
                        row.remove_range(at..end);
                        model.drain(at..end);
                    }
                    _ => {
                        row.retain(|n| n % 5 > 0);
                        model.retain(|n| n % 5 > 0);
                    }
                }
                agrees(&row, &model);
            }
            if let Some((row, model)) = kept {
                agrees(&row, &model);
            }
            let sorted: Row<u32> = (0..100).fold(Row::default(), |mut row, n| {
                row.push_back(n * 2);
                row
            });
            for bound in 0..205 {
                prop_assert_eq!(sorted.partition_point(|n| *n < bound), bound.div_ceil(2).min(100) as usize);
            }
        }
    }
}
