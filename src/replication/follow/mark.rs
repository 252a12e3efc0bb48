//! Finds the mark that ends a dump of unknown length, wherever what comes from the socket is split,
//! without a copy of what lies before it.
//!
//! The end of a piece that may be the beginning of the mark is held back. Nothing needs to be kept for
//! that: what is held back is, by definition, the beginning of the mark.

use std::ops::Range;

use memchr::memmem;

use super::Held;

/// Bytes of a mark.
pub(super) const LEN: usize = 40;

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    finder: memmem::Finder<'static>,
    mark: [u8; LEN],
    /// That many bytes of the mark ended the pieces so far.
    held: usize,
}

/// What a piece came to: first `released`, then `data` belong to the dump.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) released: Held,
    pub(super) data: Range<usize>,
    /// Where the mark ends within the piece, if it does.
    pub(super) end: Option<usize>,
}

impl Search {
    pub(super) fn new(mark: [u8; LEN]) -> Self {
        Self {
            finder: memmem::Finder::new(&mark).into_owned(),
            mark,
            held: 0,
        }
    }

    /// Looks at the next piece, which is `bytes` from `from` on.
    pub(super) fn take(&mut self, bytes: &[u8], from: usize) -> Found {
        let piece = &bytes[from..];
        #[cfg(test)]
        if super::tests::is_broken(super::tests::Fault::SplitMark) {
            self.held = 0;
        }
        // Does the mark begin with the part that is held back, or with an end of that?
        for begin in 0..self.held {
            let before = self.held - begin;
            let now = piece.len().min(LEN - before);
            let fits = self.mark[begin..self.held] == self.mark[..before]
                && piece[..now] == self.mark[before..before + now];
            if fits {
                let released = self.release(begin);
                self.held = before + now;
                let end = (self.held == LEN).then_some(from + now);
                let data = from..from;
                return Found {
                    released,
                    data,
                    end,
                };
            }
        }
        let released = self.release(self.held);
        if let Some(at) = self.finder.find(piece) {
            let data = from..from + at;
            let end = Some(data.end + LEN);
            return Found {
                released,
                data,
                end,
            };
        }
        let longest = piece.len().min(LEN - 1);
        let ends_with = |&n: &usize| piece.ends_with(&self.mark[..n]);
        self.held = (1..=longest).rev().find(ends_with).unwrap_or(0);
        let data = from..bytes.len() - self.held;
        Found {
            released,
            data,
            end: None,
        }
    }

    /// The first `len` of the bytes held back, which are no part of the mark.
    fn release(&self, len: usize) -> Held {
        Held {
            mark: self.mark,
            len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search finds in pieces of these lengths, again and again: the data, and what follows it.
    fn search(mark: [u8; LEN], all: &[u8], lengths: &[usize]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut search, mut data, mut rest) = (Search::new(mark), Vec::new(), all);
        for &len in lengths.iter().cycle() {
            if rest.is_empty() {
                return None;
            }
            let (piece, after) = rest.split_at(len.min(rest.len()));
            let found = search.take(piece, 0);
            data.extend_from_slice(found.released.bytes());
            data.extend_from_slice(&piece[found.data]);
            if let Some(end) = found.end {
                return Some((data, [&piece[end..], after].concat()));
            }
            rest = after;
        }
        None
    }

    #[test]
    fn the_mark_is_found_wherever_it_is_split() {
        let mark: [u8; LEN] = std::array::from_fn(|i| b'a' + (i % 20) as u8);
        // It repeats itself, and the data ends with a part of it.
        let data = [&b"some"[..], &mark[..30], &mark[..39], b"x", &mark[..10]].concat();
        let all = [&data[..], &mark, b"stream"].concat();
        for first in 1..=all.len() {
            for second in [1, 7, 39, 40, 41, 200] {
                let found = search(mark, &all, &[first, second]);
                assert_eq!(found, Some((data.clone(), b"stream".to_vec())), "{first}");
            }
        }
    }

    #[test]
    fn marks_of_one_letter_are_found_as_early_as_they_end() {
        let mark = [b'a'; LEN];
        for step in 1..50 {
            let found = search(mark, &[b'a'; 100], &[step]);
            assert_eq!(found, Some((Vec::new(), vec![b'a'; 60])));
            assert_eq!(search(mark, &[b'a'; 39], &[step]), None);
        }
    }
}
