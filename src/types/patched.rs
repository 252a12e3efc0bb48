//! Long strings that change while somebody else still has the bytes they had: a snapshot, or a
//! reply that is on its way.
//!
//! Copying hundreds of megabytes for one changed byte would hold up everybody who waits for the lock
//! under which that happens. So the bytes stay where they are, for both, and what changes lies beside
//! them, in slices of [`SLICE`] bytes that are copied when they are first touched. Once nobody else
//! has the bytes any more the slices go back into them, a few at a time ([`Patched::settle`]).
//!
//! Who wants the whole content in one piece has it put together, once, until the next change.
//!
//! Invariant: strings do not become shorter in place, so `len` is at least the length of `base`.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that several owners may hold: a value in the keyspace and replies still to be written.
/// Whoever changes it makes it his own first (`Arc::make_mut`).
pub type SharedBytes = Arc<Vec<u8>>;

/// Strings of at least so many bytes are worth it.
pub const FROM: usize = 1 << 20;
/// Bytes of a slice.
const SLICE: usize = 64 << 10;
/// Slices that go back at once at most: some hundred microseconds.
const AT_ONCE: usize = 16;

/// See the module.
#[derive(Clone, Debug)]
pub struct Patched {
    /// What somebody else has as well, or had. Zeros follow, where no slice says otherwise.
    base: SharedBytes,
    /// Full slices by their number. A snapshot of this string may share them too.
    slices: BTreeMap<usize, Arc<Vec<u8>>>,
    len: usize,
    /// All of it, while somebody has asked for that and nothing has changed since.
    whole: OnceCell<SharedBytes>,
}

impl Patched {
    /// The string of these bytes, with nothing changed so far.
    pub fn new(base: SharedBytes) -> Self {
        Self {
            len: base.len(),
            base,
            slices: BTreeMap::new(),
            whole: OnceCell::new(),
        }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of its allocations; an estimate.
    pub fn memory(&self) -> usize {
        let whole = self.whole.get().map_or(0, |whole| whole.capacity());
        self.base.capacity() + whole + self.slices.len() * SLICE
    }

    /// About the number of allocations.
    pub fn effort(&self) -> usize {
        self.slices.len() + 1
    }

    /// The whole content in one piece.
    pub fn whole(&self) -> &SharedBytes {
        self.whole.get_or_init(|| {
            let mut whole = Vec::with_capacity(self.len);
            whole.extend_from_slice(&self.base);
            whole.resize(self.len, 0);
            for (&number, slice) in &self.slices {
                put_back(&mut whole, number, slice);
            }
            Arc::new(whole)
        })
    }

    /// The bytes of a range, which lies within the length.
    pub fn range(&self, range: Range<usize>) -> Cow<'_, [u8]> {
        if let Some(whole) = self.whole.get() {
            return Cow::Borrowed(&whole[range]);
        }
        let touched = range.start / SLICE..range.end.div_ceil(SLICE);
        if range.end <= self.base.len() && self.slices.range(touched).next().is_none() {
            return Cow::Borrowed(&self.base[range]);
        }
        let mut bytes = Vec::with_capacity(range.len());
        for (number, within) in parts(range) {
            match self.slices.get(&number) {
                Some(slice) => bytes.extend_from_slice(&slice[within]),
                None => extend_from_base(&mut bytes, &self.base, number, within),
            }
        }
        Cow::Owned(bytes)
    }

    /// Adds zeros up to `len` bytes if it is shorter.
    pub fn pad(&mut self, len: usize) {
        if len > self.len {
            self.forget_whole();
            self.len = len;
        }
    }

    /// Shows the bytes of a range within the length, to be changed.
    pub fn edit<R>(&mut self, range: Range<usize>, edit: impl FnOnce(&mut [u8]) -> R) -> R {
        self.forget_whole();
        let mut parts = parts(range.clone());
        if let (Some((number, within)), None) = (parts.next(), parts.next()) {
            return edit(&mut self.slice(number)[within]);
        }
        let mut bytes = self.range(range.clone()).into_owned();
        let result = edit(&mut bytes);
        self.write(range.start, &bytes);
        result
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, tail: &[u8]) {
        let at = self.len;
        self.pad(at + tail.len());
        self.write(at, tail);
    }

    fn write(&mut self, at: usize, mut bytes: &[u8]) {
        for (number, within) in parts(at..at + bytes.len()) {
            let (here, rest) = bytes.split_at(within.len());
            self.slice(number)[within].copy_from_slice(here);
            bytes = rest;
        }
    }

    /// A slice, to be changed.
    fn slice(&mut self, number: usize) -> &mut Vec<u8> {
        let base = &self.base;
        let slice = self.slices.entry(number).or_insert_with(|| {
            let mut slice = Vec::with_capacity(SLICE);
            extend_from_base(&mut slice, base, number, 0..SLICE);
            Arc::new(slice)
        });
        Arc::make_mut(slice)
    }

    /// Before a change: a content in one piece that was put together serves as the base.
    fn forget_whole(&mut self) {
        if let Some(whole) = self.whole.take() {
            self.base = whole;
            self.slices.clear();
        }
    }

    /// If nobody else has the bytes any more, writes some of what has changed into them.
    pub fn settle(&mut self) -> Settled {
        self.forget_whole();
        let Some(base) = Arc::get_mut(&mut self.base) else {
            return Settled::Shared;
        };
        base.resize(self.len, 0);
        for _ in 0..AT_ONCE {
            match self.slices.pop_first() {
                Some((number, slice)) => put_back(base, number, &slice),
                None => return Settled::Plain(Arc::clone(&self.base)),
            }
        }
        Settled::More
    }
}

/// What [`Patched::settle`] came to.
#[derive(Debug)]
pub enum Settled {
    /// Somebody else still has the bytes.
    Shared,
    /// There is more to do.
    More,
    /// The string is these bytes, and they are all its own.
    Plain(SharedBytes),
}

/// The slices that a range touches, and what of them.
fn parts(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let numbers = range.start / SLICE..range.end.div_ceil(SLICE).max(range.start / SLICE);
    numbers.map(move |number| {
        let start = number * SLICE;
        let within = range.start.max(start) - start..range.end.min(start + SLICE) - start;
        (number, within)
    })
}

/// Appends a part of a slice as it is in `base`.
fn extend_from_base(bytes: &mut Vec<u8>, base: &[u8], number: usize, within: Range<usize>) {
    let wanted = number * SLICE + within.start..number * SLICE + within.end;
    let there = wanted.start.min(base.len())..wanted.end.min(base.len());
    let zeros = wanted.len() - there.len();
    bytes.extend_from_slice(&base[there]);
    bytes.resize(bytes.len() + zeros, 0);
}

/// Writes a slice to its place, as far as there is such.
fn put_back(whole: &mut [u8], number: usize, slice: &[u8]) {
    let start = number * SLICE;
    let here = slice.len().min(whole.len().saturating_sub(start));
    if here > 0 {
        whole[start..start + here].copy_from_slice(&slice[..here]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Edit(usize, usize, u8),
        Append(usize, u8),
        Pad(usize),
        Whole,
        Keep,
        Settle,
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..400_000usize, 0..200_000usize, any::<u8>()).prop_map(|(at, len, b)| Step::Edit(at, len, b)),
            4 => (0..400_000usize, 0..9usize, any::<u8>()).prop_map(|(at, len, b)| Step::Edit(at, len, b)),
            2 => (0..70_000usize, any::<u8>()).prop_map(|(len, b)| Step::Append(len, b)),
            1 => (0..500_000usize).prop_map(Step::Pad),
            1 => Just(Step::Whole),
            1 => Just(Step::Keep),
            1 => Just(Step::Settle),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_vector_and_leaves_what_others_have(
            len in 0..300_000usize,
            steps in prop::collection::vec(steps(), 1..30),
        ) {
            let mut model: Vec<u8> = (0..len).map(|n| (n / 7) as u8).collect();
            let first = Arc::new(model.clone());
            let mut kept = Vec::new();
            let mut string = Patched::new(Arc::clone(&first));
            for step in steps {
                match step {
                    Step::Edit(at, len, byte) => {
                        let range = at.min(model.len())..(at + len).min(model.len());
                        model[range.clone()].fill(byte);
                        string.edit(range.clone(), |bytes| bytes.fill(byte));
                        prop_assert!(*string.range(range.clone()) == model[range]);
                    }
                    Step::Append(len, byte) => {
                        model.resize(model.len() + len, byte);
                        string.append(&vec![byte; len]);
                    }
                    Step::Pad(len) => {
                        model.resize(len.max(model.len()), 0);
                        string.pad(len);
                    }
                    Step::Whole => prop_assert!(**string.whole() == model),
                    Step::Keep => kept.push((string.clone(), model.clone())),
                    Step::Settle => _ = string.settle(),
                }
                prop_assert_eq!(string.len(), model.len());
                let (a, b) = (model.len() / 3, model.len() / 2);
                prop_assert!(*string.range(a..b) == model[a..b]);
            }
            prop_assert!(*string.clone().range(0..model.len()) == model);
            for (string, model) in &kept {
                prop_assert!(**string.whole() == *model);
            }
            prop_assert!(first.iter().enumerate().all(|(n, &byte)| byte == (n / 7) as u8));
            drop((first, kept));
            loop {
                match string.settle() {
                    Settled::More => {}
                    Settled::Plain(bytes) => break prop_assert!(*bytes == model),
                    Settled::Shared => prop_assert!(false, "nobody else has it"),
                }
            }
        }
    }
}
