//! Runs: few short elements one behind the other, read from the front only.
//!
//! What small hashes, sets and sorted sets are kept as. A run is a listpack less all that can be done
//! without: there is no header, no terminator, and no size behind each element; the number of bytes
//! and of records lie beside the pointer ([`LeanBytes`]), and an owner of 16 bytes is all that comes
//! to the elements' own. A file holds listpacks: a run is written as one and made of one.
//!
//! A *record* is so many elements that belong together as its [`Step`] says: a member; a field and
//! its value; these and an expiry. Records are addressed by their offset in bytes; [`Run::end`] is
//! behind the last. Offsets are those of this moment: a change moves what lies behind it.

use std::ops::Range;

use smallvec::SmallVec;

use super::element::{Element, back, read, size};
use super::listpack::{self, MAX_BYTES, Pack};
use crate::base::thin::LeanBytes;

/// Elements of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A member.
    One = 1,
    /// A field and its value, a member and its score.
    Two = 2,
    /// A field, its value and its expiry.
    Three = 3,
}

/// A number of records that has to be found by counting.
const MANY: u16 = u16::MAX;
/// Bytes that the elements of one change are likely to take at most.
const LIKELY: usize = 128;

#[derive(Clone, Copy, Debug)]
struct Note {
    records: u16,
    step: Step,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Run {
    bytes: LeanBytes<Note>,
}

impl Run {
    /// An empty one.
    pub const fn new(step: Step) -> Self {
        Self {
            bytes: LeanBytes::new(Note { records: 0, step }),
        }
    }

    /// A run of these elements, which make up whole records.
    pub fn of<'a>(step: Step, elements: impl IntoIterator<Item = Element<'a>>) -> Self {
        let mut new = Self::new(step);
        new.push(elements);
        new
    }

    /// The elements of a listpack, which make up whole records.
    pub fn of_pack(step: Step, pack: Pack<'_>) -> Self {
        Self::of(step, pack.iter())
    }

    /// The bytes of the listpack of the same elements.
    pub fn to_listpack(&self) -> SmallVec<[u8; 512]> {
        let (bytes, mut packed) = (self.bytes.as_slice(), SmallVec::new());
        packed.extend_from_slice(&[0; listpack::HEADER]);
        let mut at = 0;
        while at < bytes.len() {
            let size = size(bytes, at);
            packed.extend_from_slice(&bytes[at..at + size]);
            let (back, back_len) = back(size);
            packed.extend_from_slice(&back[..back_len]);
            at += size;
        }
        let elements = self.len() * self.step();
        listpack::finish(&mut packed, elements);
        packed
    }

    /// Elements of each record.
    #[inline]
    pub fn step(&self) -> usize {
        self.bytes.note.step as usize
    }

    /// Number of records; from 65,535 on they are counted, which takes as long as reading them.
    #[inline]
    pub fn len(&self) -> usize {
        match self.bytes.note.records {
            MANY => self.count(),
            records => records.into(),
        }
    }

    #[cold]
    fn count(&self) -> usize {
        self.iter().count() / self.step()
    }

    /// True without records.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of the allocation, as the allocator counts them.
    pub fn memory(&self) -> usize {
        self.bytes.memory()
    }

    /// True when another `bytes` bytes of elements keep the run so short that it can be saved.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes.len() + bytes <= MAX_BYTES / 2
    }

    /// The offset behind the last record.
    #[inline]
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// The element at an offset.
    #[inline]
    pub fn at(&self, at: usize) -> Element<'_> {
        read(self.bytes.as_slice(), at).0
    }

    /// The offset behind the element at an offset.
    #[inline]
    pub fn skip(&self, at: usize) -> usize {
        at + size(self.bytes.as_slice(), at)
    }

    /// The element behind the one at an offset: of a pair, the value of the field there.
    #[inline]
    pub fn second(&self, at: usize) -> Element<'_> {
        self.at(self.skip(at))
    }

    /// The offset behind `elements` elements from the one at `at` on, or the end if that is sooner.
    #[inline]
    fn advance(&self, at: usize, elements: usize) -> usize {
        let (bytes, mut at) = (self.bytes.as_slice(), at);
        for _ in 0..elements {
            if at >= bytes.len() {
                break;
            }
            at += size(bytes, at);
        }
        at
    }

    /// The offset of the record with this rank, or the end without such a one.
    pub fn seek(&self, rank: usize) -> usize {
        self.advance(0, rank * self.step())
    }

    /// The offset of the record whose first element equals `wanted`.
    #[inline]
    pub fn find(&self, wanted: Element<'_>) -> Option<usize> {
        let bytes = self.bytes.as_slice();
        let (mut at, others) = (0, self.step() - 1);
        while at < bytes.len() {
            let (element, first) = read(bytes, at);
            if element.same(wanted) {
                return Some(at);
            }
            at += first;
            for _ in 0..others {
                at += size(bytes, at);
            }
        }
        None
    }

    /// The elements in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// The elements from an offset on.
    #[inline]
    pub fn iter_from(&self, at: usize) -> Iter<'_> {
        Iter {
            bytes: self.bytes.as_slice(),
            at,
        }
    }

    /// Inserts records before the one at an offset, which may be the end.
    #[inline]
    pub fn insert<'a>(&mut self, at: usize, elements: impl IntoIterator<Item = Element<'a>>) {
        self.put(at..at, 0, elements);
    }

    /// Appends records.
    #[inline]
    pub fn push<'a>(&mut self, elements: impl IntoIterator<Item = Element<'a>>) {
        self.insert(self.end(), elements);
    }

    /// Replaces the element at an offset.
    #[inline]
    pub fn replace(&mut self, at: usize, element: Element<'_>) {
        let mut packed: SmallVec<[u8; LIKELY]> = SmallVec::new();
        element.write_bare(&mut packed);
        self.bytes.splice(at..self.skip(at), &packed);
    }

    /// Removes up to `records` records from the one at an offset on.
    pub fn remove(&mut self, at: usize, records: usize) {
        let end = self.advance(at, records.saturating_mul(self.step()));
        let removed = match end == self.end() {
            true => self.iter_from(at).count() / self.step(),
            false => records,
        };
        self.put(at..end, removed, []);
    }

    /// Puts `elements` in the place of the bytes `range`, which hold `removed` records.
    #[inline]
    fn put<'a>(
        &mut self,
        range: Range<usize>,
        removed: usize,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) {
        let mut packed: SmallVec<[u8; LIKELY]> = SmallVec::new();
        let mut added = 0;
        for element in elements {
            element.write_bare(&mut packed);
            added += 1;
        }
        self.bytes.splice(range, &packed);
        let records = match self.bytes.note.records {
            // What cannot be that many any more is counted.
            MANY if self.end() < usize::from(MANY) * self.step() => self.count(),
            MANY => return,
            records => usize::from(records) + added / self.step() - removed,
        };
        self.bytes.note.records = u16::try_from(records).unwrap_or(MANY);
    }
}

/// Elements of a run, in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iter<'_> {
    /// The offset of the element that `next` would give.
    #[inline]
    pub fn offset(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let (element, size) = read(self.bytes, self.at);
        self.at += size;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::listpack::Listpack;

    #[test]
    fn an_owner_is_two_words_and_leaves_room_for_a_choice() {
        enum Either {
            _Run(Run),
            _Other(Box<u8>),
        }
        assert_eq!((size_of::<Run>(), size_of::<Either>()), (16, 16));
    }

    #[test]
    fn elements_take_what_they_need() {
        let mut run = Run::new(Step::Two);
        assert_eq!(run.memory(), 0);
        run.push([b"field"[..].into(), b"12"[..].into()]);
        assert_eq!((run.end(), run.len(), run.memory()), (7, 1, 8));
    }

    #[test]
    fn more_records_than_can_be_noted_are_counted() {
        let mut run = Run::of(Step::One, (0..70_000).map(|n| Element::Int(n % 100)));
        assert_eq!(run.len(), 70_000);
        assert_eq!(run.to_listpack()[4..6], [0xff, 0xff]);
        run.remove(run.seek(10), 69_000);
        assert_eq!((run.len(), run.bytes.note.records), (1000, 1000));
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (0..200i64).prop_map(|n| n.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(b'x'..b'z', 4090..4100),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector(
            step in prop_oneof![Just(Step::One), Just(Step::Two), Just(Step::Three)],
            steps in prop::collection::vec((0..4u8, any::<prop::sample::Index>(), texts(), 0..4usize), 1..40),
        ) {
            let mut run = Run::new(step);
            let mut model: Vec<Vec<Vec<u8>>> = Vec::new();
            for (what, place, text, count) in steps {
                let place = place.index(model.len() + 1);
                let at = run.seek(place);
                match what {
                    0 | 1 => {
                        let record: Vec<_> = (0..step as u8).map(|n| [&text[..], &[n]].concat()).collect();
                        run.insert(at, record.iter().map(|text| text[..].into()));
                        model.insert(place, record);
                    }
                    2 => {
                        run.remove(at, count);
                        model.drain(place..(place + count).min(model.len()));
                    }
                    _ => if let Some(record) = model.get_mut(place) {
                        run.replace(at, text[..].into());
                        record[0] = text;
                    }
                }
                let all: Vec<_> = run.iter().map(Element::to_vec).collect();
                prop_assert_eq!(&all, &model.concat());
                prop_assert_eq!(run.len(), model.len());
                let packed = run.to_listpack();
                let pack = Pack::validate(&packed).expect("a sound listpack");
                prop_assert!(pack.bytes() == Listpack::of(run.iter()).as_bytes());
                let again = Run::of_pack(step, pack);
                prop_assert_eq!((again.len(), again.bytes.as_slice()), (run.len(), run.bytes.as_slice()));
                for (place, record) in model.iter().enumerate() {
                    let first = model.iter().position(|other| other[0] == record[0]);
                    let at = run.find(record[0][..].into());
                    prop_assert_eq!(at, first.map(|first| run.seek(first)));
                    prop_assert_eq!(run.at(run.seek(place)).to_vec(), record[0].clone());
                }
            }
        }
    }
}
