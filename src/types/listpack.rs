//! Listpacks: many short elements in one run of bytes, exactly as Redis lays them out.
//!
//! ```text
//!  +-------------+-------------+---------+ - - - +---------+------+
//!  | bytes, u32  | count, u16  | element |       | element | 0xff |
//!  +-------------+-------------+---------+ - - - +---------+------+
//!   element: | head: kind, length | payload | back: size of head and payload |
//! ```
//!
//! Both header fields are little endian; a count of 0xffff says that somebody has to count. An
//! element is an integer when its text is one, and else a string. The size behind each element is
//! written so that it can be read from its end, which is what lets a listpack be walked backwards.
//!
//! [`Pack`] reads a listpack wherever its bytes lie, [`Listpack`] owns and changes one. Elements are
//! addressed by their offset in bytes; the offset of the terminator is [`Pack::end`], where
//! appending inserts. Offsets are those of this moment: a change moves what lies behind it.
//!
//! Bytes from outside must pass [`Pack::validate`] first: on others, reading panics or gives nonsense.

use std::ops::Range;

use smallvec::SmallVec;

pub use super::element::Element;
use super::element::{back, back_len, checked_size, read, read_back};
use crate::base::thin::ThinBytes;

/// Bytes in front of the first element.
pub const HEADER: usize = 6;
/// Bytes of an empty listpack: its header and its terminator.
pub const EMPTY: usize = HEADER + 1;
/// Bytes that a listpack must not exceed: those of Redis refuse to grow further.
pub const MAX_BYTES: usize = 1 << 30;

const TERMINATOR: u8 = 0xff;
/// A count that has to be found by counting.
const UNKNOWN: u16 = 0xffff;
/// Bytes of the shortest element.
const SHORTEST: usize = 2;

/// A listpack that lies somewhere, to be read.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    bytes: &'a [u8],
}

impl<'a> Pack<'a> {
    /// The listpack `bytes`, which is known to be well formed.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The listpack `bytes` if it is well formed throughout: header, every element, both sizes of
    /// each, terminator and count. For bytes from outside; never panics.
    pub fn validate(bytes: &'a [u8]) -> Option<Self> {
        let (header, elements) = bytes.split_at_checked(HEADER)?;
        let (&last, mut rest) = elements.split_last()?;
        let total = u32::from_le_bytes(header[..4].try_into().expect("four bytes"));
        let count = u16::from_le_bytes(header[4..].try_into().expect("two bytes"));
        if total as usize != bytes.len() || last != TERMINATOR {
            return None;
        }
        let mut found = 0usize;
        while !rest.is_empty() {
            let size = checked_size(rest)?;
            let (back, back_len) = back(size);
            rest = rest[size..].strip_prefix(&back[..back_len])?;
            found += 1;
        }
        (count == UNKNOWN || usize::from(count) == found).then_some(Self { bytes })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Number of elements; from 65,535 on they are counted, which takes as long as reading them.
    #[inline]
    pub fn len(self) -> usize {
        match self.count() {
            UNKNOWN => self.iter().count(),
            count => count.into(),
        }
    }

    /// True without elements.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.bytes.len() == EMPTY
    }

    #[inline]
    fn count(self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    /// The offset of the terminator: behind the last element.
    #[inline]
    pub fn end(self) -> usize {
        self.bytes.len() - 1
    }

    /// The offset of the first element.
    #[inline]
    pub fn first(self) -> Option<usize> {
        (!self.is_empty()).then_some(HEADER)
    }

    /// The offset of the last element.
    #[inline]
    pub fn last(self) -> Option<usize> {
        self.prev(self.end())
    }

    /// The offset of the element after the one at `at`.
    #[inline]
    pub fn next(self, at: usize) -> Option<usize> {
        let next = self.skip(at);
        (next < self.end()).then_some(next)
    }

    /// The offset of the element before `at`, which may be the end.
    #[inline]
    pub fn prev(self, at: usize) -> Option<usize> {
        if at == HEADER {
            return None;
        }
        let size = read_back(self.bytes, at);
        Some(at - size - back_len(size))
    }

    /// The offset behind the element at `at`: that of the next one, or the end.
    #[inline]
    pub fn skip(self, at: usize) -> usize {
        let size = read(self.bytes, at).1;
        at + size + back_len(size)
    }

    /// The element at offset `at`.
    #[inline]
    pub fn at(self, at: usize) -> Element<'a> {
        read(self.bytes, at).0
    }

    /// The offset of the element with this index, from the nearer end; negative indices count from
    /// the last element, which is -1.
    pub fn seek(self, index: i64) -> Option<usize> {
        let count = self.count();
        if count == UNKNOWN {
            return if index < 0 {
                self.walk_back(-(index + 1))
            } else {
                self.walk(index)
            };
        }
        let len = i64::from(count);
        if index >= len || index < -len {
            return None;
        }
        let index = if index < 0 { index + len } else { index };
        if index > len / 2 {
            self.walk_back(len - 1 - index)
        } else {
            self.walk(index)
        }
    }

    fn walk(self, steps: i64) -> Option<usize> {
        (0..steps).try_fold(self.first()?, |at, _| self.next(at))
    }

    fn walk_back(self, steps: i64) -> Option<usize> {
        (0..steps).try_fold(self.last()?, |at, _| self.prev(at))
    }

    /// The element with this index; negative ones count from the last, which is -1.
    pub fn get(self, index: i64) -> Option<Element<'a>> {
        self.seek(index).map(|at| self.at(at))
    }

    /// The elements in order, from either end.
    #[inline]
    pub fn iter(self) -> Iter<'a> {
        self.range(HEADER, self.end())
    }

    /// The elements from offset `from` up to, but without, the one at offset `to`.
    #[inline]
    pub fn range(self, from: usize, to: usize) -> Iter<'a> {
        Iter {
            bytes: self.bytes,
            from,
            to,
        }
    }

    /// The offset of the first element from offset `from` on that equals `wanted`, looking only at
    /// every `skip + 1`th (in a listpack of pairs, a skip of 1 looks at the keys alone).
    pub fn find(self, from: usize, wanted: Element<'_>, skip: usize) -> Option<usize> {
        let (mut at, end) = (from, self.end());
        let mut skipped = 0;
        while at < end {
            let (element, size) = read(self.bytes, at);
            if skipped > 0 {
                skipped -= 1;
            } else if element.same(wanted) {
                return Some(at);
            } else {
                skipped = skip;
            }
            at += size + back_len(size);
        }
        None
    }
}

impl<'a> IntoIterator for Pack<'a> {
    type Item = Element<'a>;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The elements of a listpack or of a part of it, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    from: usize,
    to: usize,
}

impl Iter<'_> {
    /// The offset of the element that `next` would give.
    #[inline]
    pub fn offset(&self) -> usize {
        self.from
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Element<'a>;
    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.from >= self.to {
            return None;
        }
        let (element, size) = read(self.bytes, self.from);
        self.from += size + back_len(size);
        Some(element)
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.from >= self.to {
            return None;
        }
        let size = read_back(self.bytes, self.to);
        self.to -= size + back_len(size);
        Some(read(self.bytes, self.to).0)
    }
}

/// A listpack in an allocation of its own, behind one word.
#[derive(Clone, Debug, PartialEq)]
pub struct Listpack {
    bytes: ThinBytes,
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// An empty one.
    pub fn new() -> Self {
        Self::copy_of(&[EMPTY as u8, 0, 0, 0, 0, 0, TERMINATOR])
    }

    /// A copy of `bytes` if they are a listpack, which is checked throughout.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Pack::validate(bytes).map(|pack| Self::copy_of(pack.bytes))
    }

    /// A copy of bytes that are known to be a listpack.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self {
            bytes: ThinBytes::from_slice(bytes),
        }
    }

    /// A listpack of these elements.
    pub fn of<'a>(elements: impl IntoIterator<Item = Element<'a>>) -> Self {
        let mut new = Self::new();
        new.extend(elements);
        new
    }

    /// The listpack for reading: all ways of looking at it are there.
    #[inline]
    pub fn pack(&self) -> Pack<'_> {
        Pack::new(self.bytes.as_slice())
    }

    /// The bytes, as they are saved.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Number of bytes.
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of the allocation, as the allocator counts them.
    pub fn memory(&self) -> usize {
        self.bytes.memory()
    }

    /// Number of elements; see [`Pack::len`].
    #[inline]
    pub fn len(&self) -> usize {
        self.pack().len()
    }

    /// True without elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pack().is_empty()
    }

    /// The elements in order, from either end.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        self.pack().iter()
    }

    /// The element with this index; negative ones count from the last, which is -1.
    pub fn get(&self, index: i64) -> Option<Element<'_>> {
        self.pack().get(index)
    }

    /// True when another `bytes` bytes of elements keep the listpack within [`MAX_BYTES`].
    pub fn has_room(&self, bytes: usize) -> bool {
        self.byte_len() + bytes <= MAX_BYTES
    }

    /// Inserts an element before the first.
    #[inline]
    pub fn push_front<'a>(&mut self, element: impl Into<Element<'a>>) {
        self.insert(HEADER, element);
    }

    /// Appends an element.
    #[inline]
    pub fn push_back<'a>(&mut self, element: impl Into<Element<'a>>) {
        self.insert(self.pack().end(), element);
    }

    /// Inserts an element before the one at offset `at`, which may be the end. (To insert after an
    /// element, `at` is its [`Pack::skip`].)
    #[inline]
    pub fn insert<'a>(&mut self, at: usize, element: impl Into<Element<'a>>) {
        self.put(at..at, 0, [element.into()]);
    }

    /// Inserts elements before the one at offset `at`, which may be the end, in one move.
    pub fn insert_all<'a>(&mut self, at: usize, elements: impl IntoIterator<Item = Element<'a>>) {
        self.put(at..at, 0, elements);
    }

    /// Appends elements in one move.
    pub fn extend<'a>(&mut self, elements: impl IntoIterator<Item = Element<'a>>) {
        self.insert_all(self.pack().end(), elements);
    }

    /// Replaces the element at offset `at`, which is then the offset of the new one.
    pub fn replace<'a>(&mut self, at: usize, element: impl Into<Element<'a>>) {
        let end = self.pack().skip(at);
        self.put(at..end, 1, [element.into()]);
    }

    /// Deletes up to `count` elements from the one at offset `at` on; how many there were. What
    /// followed them is then at `at`.
    pub fn delete(&mut self, at: usize, count: usize) -> usize {
        let (pack, mut end, mut deleted) = (self.pack(), at, 0);
        while deleted < count && end < pack.end() {
            end = pack.skip(end);
            deleted += 1;
        }
        self.put_packed(at..end, deleted, (&[], 0));
        deleted
    }

    /// Deletes up to `count` elements from index `index` on (negative: from the last); how many.
    pub fn delete_range(&mut self, index: i64, count: usize) -> usize {
        match self.pack().seek(index) {
            Some(at) => self.delete(at, count),
            None => 0,
        }
    }

    /// Divides the listpack: keeps what lies before offset `at` and gives the rest.
    pub fn split_off(&mut self, at: usize) -> Self {
        let (pack, mut tail) = (self.pack(), Self::new());
        let range = at..pack.end();
        let count = pack.range(range.start, range.end).count();
        tail.put_packed(HEADER..HEADER, 0, (&pack.bytes[range.clone()], count));
        self.put_packed(range, count, (&[], 0));
        tail
    }

    /// Appends the elements of `other`.
    pub fn append(&mut self, other: Pack<'_>) {
        let end = self.pack().end();
        let body = &other.bytes[HEADER..other.end()];
        self.put_packed(end..end, 0, (body, other.len()));
    }

    /// Inserts the elements of `other` before the first.
    pub fn prepend(&mut self, other: Pack<'_>) {
        let body = &other.bytes[HEADER..other.end()];
        self.put_packed(HEADER..HEADER, 0, (body, other.len()));
    }

    /// Puts `elements` in the place of the bytes `range`, which hold `removed` elements.
    #[inline]
    fn put<'a>(
        &mut self,
        range: Range<usize>,
        removed: usize,
        elements: impl IntoIterator<Item = Element<'a>>,
    ) {
        let mut packed: SmallVec<[u8; 128]> = SmallVec::new();
        let mut added = 0;
        for element in elements {
            element.write(&mut packed);
            added += 1;
        }
        self.put_packed(range, removed, (&packed, added));
    }

    /// As [`Listpack::put`] with elements that are packed already, and their number.
    #[inline]
    fn put_packed(&mut self, range: Range<usize>, removed: usize, (packed, added): (&[u8], usize)) {
        self.bytes.splice(range, packed);
        let count = self.pack().count();
        if count != UNKNOWN {
            self.set_count((usize::from(count) + added).saturating_sub(removed));
        } else if self.byte_len() < SHORTEST * usize::from(UNKNOWN) {
            // There are no longer too many to be counted in the header.
            self.set_count(self.pack().iter().count());
        }
    }

    #[inline]
    fn set_count(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(UNKNOWN);
        self.bytes.content_mut()[..2].copy_from_slice(&count.to_le_bytes());
    }
}

/// Completes the bytes of a listpack that were put together element by element behind room for a
/// header: writes that, and the terminator.
pub(super) fn finish<const N: usize>(packed: &mut SmallVec<[u8; N]>, elements: usize) {
    packed.push(TERMINATOR);
    let total = u32::try_from(packed.len()).expect("who builds it keeps below MAX_BYTES");
    packed[..4].copy_from_slice(&total.to_le_bytes());
    let count = u16::try_from(elements).unwrap_or(UNKNOWN);
    packed[4..HEADER].copy_from_slice(&count.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(text: &[u8]) -> Element<'_> {
        Element::from(text)
    }

    #[track_caller]
    fn check(text: &[u8], packed: &[u8]) {
        let mut lp = Listpack::new();
        lp.push_back(text);
        assert_eq!(&lp.as_bytes()[HEADER..lp.pack().end()], packed);
        assert_eq!(element(text).packed_len(), packed.len());
        assert_eq!(lp.get(0).map(Element::to_vec).as_deref(), Some(text));
        assert!(Pack::validate(lp.as_bytes()).is_some());
    }

    #[test]
    fn elements_are_laid_out_as_redis_lays_them_out() {
        check(b"", b"\x80\x01");
        check(b"abc", b"\x83abc\x04");
        check(b"0", b"\x00\x01");
        check(b"127", b"\x7f\x01");
        check(b"128", b"\xc0\x80\x02");
        check(b"-1", b"\xdf\xff\x02");
        check(b"-4096", b"\xd0\x00\x02");
        check(b"4095", b"\xcf\xff\x02");
        check(b"4096", b"\xf1\x00\x10\x03");
        check(b"-32768", b"\xf1\x00\x80\x03");
        check(b"32768", b"\xf2\x00\x80\x00\x04");
        check(b"-8388608", b"\xf2\x00\x00\x80\x04");
        check(b"8388608", b"\xf3\x00\x00\x80\x00\x05");
        check(b"-2147483648", b"\xf3\x00\x00\x00\x80\x05");
        check(b"2147483648", b"\xf4\x00\x00\x00\x80\0\0\0\0\x09");
        check(b"-9223372036854775808", b"\xf4\0\0\0\0\0\0\0\x80\x09");
        check(b"01", b"\x8201\x03");
        let long = [b'x'; 64];
        check(&long, &[b"\xe0\x40", &long[..], b"\x42"].concat());
        let longer = [b'x'; 4096];
        let packed = [b"\xf0\x00\x10\0\0", &longer[..], b"\x20\x85"].concat();
        check(&longer, &packed);
    }

    #[test]
    fn sizes_behind_elements_of_any_length() {
        for len in [
            125, 126, 127, 128, 4095, 16_377, 16_378, 16_379, 16_380, 2_097_146, 2_097_147,
        ] {
            let mut lp = Listpack::new();
            lp.push_back(&vec![b'x'; len][..]);
            lp.push_front(&b"y"[..]);
            assert!(Pack::validate(lp.as_bytes()).is_some(), "{len}");
            assert_eq!(lp.pack().last(), lp.pack().seek(1));
            assert_eq!(lp.iter().next_back().map(Element::len), Some(len));
        }
    }

    #[test]
    fn more_elements_than_the_header_counts() {
        let mut lp = Listpack::of((0..70_000).map(|n| Element::Int(n % 100)));
        assert_eq!((lp.pack().count(), lp.len()), (UNKNOWN, 70_000));
        assert_eq!(lp.get(69_999), Some(Element::Int(99)));
        assert_eq!(lp.get(-70_000), Some(Element::Int(0)));
        assert_eq!(lp.get(70_000), None);
        assert!(Pack::validate(lp.as_bytes()).is_some());
        assert_eq!(lp.delete_range(10, 10_000), 10_000);
        assert_eq!((lp.pack().count(), lp.len()), (60_000, 60_000));
    }

    #[test]
    fn finds_at_every_other_place() {
        let lp = Listpack::of([&b"1"[..], b"a", b"a", b"b"].map(element));
        let find = |wanted: &[u8], skip| {
            let at = lp.pack().find(HEADER, element(wanted), skip)?;
            Some(lp.pack().range(HEADER, at).count())
        };
        assert_eq!(find(b"a", 0), Some(1));
        assert_eq!(find(b"a", 1), Some(2));
        assert_eq!(find(b"b", 1), None);
        assert_eq!(find(b"1", 1), Some(0));
    }

    #[test]
    fn bytes_from_outside_are_checked() {
        let good = Listpack::of([&b"abc"[..], b"12345"].map(element));
        let good = good.as_bytes();
        assert!(Listpack::from_bytes(good).is_some());
        for len in 0..good.len() {
            assert!(Listpack::from_bytes(&good[..len]).is_none());
        }
        let with = |at: usize, byte: u8| {
            let mut bad = good.to_vec();
            bad[at] = byte;
            Listpack::from_bytes(&bad).is_some()
        };
        assert!(!with(0, 99) && !with(4, 3) && with(4, 2));
        assert!(!with(6, 0x84) && !with(6, 0xf0) && !with(6, 0xff) && !with(10, 5));
        // An integer that somebody stored as text is the same element.
        let foreign = b"\x0b\0\0\0\x01\0\x8212\x03\xff";
        let pack = Pack::validate(foreign).expect("well formed");
        assert_eq!(pack.find(HEADER, element(b"12"), 0), Some(HEADER));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(usize, Vec<u8>),
        Replace(usize, Vec<u8>),
        Delete(usize, usize),
        Halve(usize),
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            (-10_000i64..10_000).prop_map(|n| n.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..80),
            prop::collection::vec(any::<u8>(), 120..140),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<usize>(), text()).prop_map(|(at, text)| Step::Insert(at, text)),
            2 => (any::<usize>(), text()).prop_map(|(at, text)| Step::Replace(at, text)),
            1 => (any::<usize>(), 0usize..4).prop_map(|(at, n)| Step::Delete(at, n)),
            1 => any::<usize>().prop_map(Step::Halve),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_vector_of_texts(steps in prop::collection::vec(step(), 1..60)) {
            let (mut lp, mut model) = (Listpack::new(), Vec::<Vec<u8>>::new());
            for step in steps {
                let at = |index: usize| index % model.len().max(1);
                match step {
                    Step::Insert(index, text) => {
                        let index = index % (model.len() + 1);
                        let offset = lp.pack().seek(index as i64).unwrap_or(lp.pack().end());
                        lp.insert(offset, &text[..]);
                        model.insert(index, text);
                    }
                    Step::Replace(index, text) if !model.is_empty() => {
                        let index = at(index);
                        let from_end = index as i64 - model.len() as i64;
                        let offset = lp.pack().seek(from_end).expect("there");
                        lp.replace(offset, &text[..]);
                        model[index] = text;
                    }
                    Step::Delete(index, count) => {
                        let index = at(index);
                        let count = count.min(model.len() - index.min(model.len()));
                        prop_assert_eq!(lp.delete_range(index as i64, count), count);
                        model.drain(index..index + count);
                    }
                    Step::Halve(index) if !model.is_empty() => {
                        let offset = lp.pack().seek(at(index) as i64).expect("there");
                        let mut tail = lp.split_off(offset);
                        tail.prepend(lp.pack());
                        lp = Listpack::new();
                        lp.append(tail.pack());
                    }
                    _ => {}
                }
                prop_assert!(Pack::validate(lp.as_bytes()).is_some());
                prop_assert_eq!(lp.len(), model.len());
                let texts: Vec<_> = lp.iter().map(Element::to_vec).collect();
                prop_assert_eq!(&texts, &model);
                let mut backwards: Vec<_> = lp.iter().rev().map(Element::to_vec).collect();
                backwards.reverse();
                prop_assert_eq!(&backwards, &model);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_readable(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut framed = bytes;
            let len = framed.len().max(EMPTY) as u32;
            framed.resize(len as usize, TERMINATOR);
            framed[..4].copy_from_slice(&len.to_le_bytes());
            framed[4..6].copy_from_slice(&UNKNOWN.to_le_bytes());
            if let Some(pack) = Pack::validate(&framed) {
                prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
            }
        }
    }
}
