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

use std::cmp::Ordering;
use std::ops::Range;

use smallvec::SmallVec;

use crate::base::number;
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

/// An element: what was stored, or is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element<'a> {
    /// Bytes that are no integer's text (though a foreign listpack may hold such too).
    Bytes(&'a [u8]),
    /// An integer, in place of its text.
    Int(i64),
}

impl<'a> From<&'a [u8]> for Element<'a> {
    /// How `text` is stored: as an integer if it is one.
    #[inline]
    fn from(text: &'a [u8]) -> Self {
        // The longest decimal text of an i64 has 20 bytes.
        match text.first() {
            Some(b'0'..=b'9' | b'-') if text.len() <= 20 => {
                number::parse_i64(text).map_or(Self::Bytes(text), Self::Int)
            }
            _ => Self::Bytes(text),
        }
    }
}

impl From<i64> for Element<'_> {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl<'a> Element<'a> {
    /// The element's text; that of an integer is written into `digits`.
    #[inline]
    pub fn text<'b>(self, digits: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Int(n) => digits.format(n).as_bytes(),
        }
    }

    /// The text as a new vector.
    pub fn to_vec(self) -> Vec<u8> {
        self.text(&mut itoa::Buffer::new()).to_vec()
    }

    /// Length of the text in bytes.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Int(n) => number::digits10(n),
        }
    }

    /// True for the empty string.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::Bytes([]))
    }

    /// The element as an integer, when its text is exactly one.
    pub fn integer(self) -> Option<i64> {
        match self {
            Self::Bytes(bytes) => number::parse_i64(bytes),
            Self::Int(n) => Some(n),
        }
    }

    /// True when both have the same text.
    #[inline]
    pub fn same(self, other: Element<'_>) -> bool {
        match (self, other) {
            (Self::Bytes(a), Element::Bytes(b)) => a == b,
            (Self::Int(a), Element::Int(b)) => a == b,
            (Self::Bytes(text), Element::Int(n)) => number::parse_i64(text) == Some(n),
            (Self::Int(n), Element::Bytes(text)) => number::parse_i64(text) == Some(n),
        }
    }

    /// How the texts compare, byte by byte.
    pub fn compare(self, other: Element<'_>) -> Ordering {
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.text(&mut a).cmp(other.text(&mut b))
    }

    /// Bytes that the element takes in a listpack.
    #[inline]
    pub fn packed_len(self) -> usize {
        let size = head(self).1 + self.payload().len();
        size + back_len(size)
    }

    /// What follows the head: integers are all head.
    #[inline]
    fn payload(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Int(_) => &[],
        }
    }

    /// Appends the packed element.
    #[inline]
    fn write<const N: usize>(self, out: &mut SmallVec<[u8; N]>) {
        let (head, head_len) = head(self);
        let payload = self.payload();
        out.extend_from_slice(&head[..head_len]);
        out.extend_from_slice(payload);
        let (back, back_len) = back(head_len + payload.len());
        out.extend_from_slice(&back[..back_len]);
    }
}

/// The bytes in front of an element's payload (for integers, all of it), and their number.
#[inline]
fn head(element: Element<'_>) -> ([u8; 9], usize) {
    let mut head = [0; 9];
    let mut put = |kind: u8, bytes: &[u8]| {
        head[0] = kind;
        head[1..=bytes.len()].copy_from_slice(bytes);
        bytes.len() + 1
    };
    let len = match element {
        Element::Bytes(bytes) => match bytes.len() {
            len @ ..64 => put(0x80 | len as u8, &[]),
            len @ ..4096 => put(0xe0 | (len >> 8) as u8, &[len as u8]),
            len => put(0xf0, &(len as u32).to_le_bytes()),
        },
        Element::Int(n) => match n {
            0..=127 => put(n as u8, &[]),
            -4096..=4095 => put(0xc0 | (n >> 8) as u8 & 0x1f, &[n as u8]),
            -0x8000..=0x7fff => put(0xf1, &(n as i16).to_le_bytes()),
            -0x80_0000..=0x7f_ffff => put(0xf2, &n.to_le_bytes()[..3]),
            -0x8000_0000..=0x7fff_ffff => put(0xf3, &(n as i32).to_le_bytes()),
            _ => put(0xf4, &n.to_le_bytes()),
        },
    };
    (head, len)
}

/// Bytes that the size behind an element takes. (From two bytes on, the largest size that they
/// could hold takes one more: so it has always been written, and so it must be read.)
#[inline]
fn back_len(size: usize) -> usize {
    match size {
        ..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    }
}

/// The bytes behind an element whose head and payload have `size` bytes, and their number: seven
/// bits each, of which all but the first are marked.
#[inline]
fn back(size: usize) -> ([u8; 5], usize) {
    let len = back_len(size);
    let mut back = [0; 5];
    for (place, byte) in back[..len].iter_mut().rev().enumerate() {
        let mark = if place + 1 == len { 0 } else { 0x80 };
        *byte = (size >> (7 * place)) as u8 & 0x7f | mark;
    }
    (back, len)
}

/// Reads the size that ends before `end`.
#[inline]
fn read_back(bytes: &[u8], end: usize) -> usize {
    let last = bytes[end - 1];
    if last < 0x80 {
        return usize::from(last);
    }
    let mut size = 0;
    for i in 0..5 {
        let byte = bytes[end - 1 - i];
        size |= usize::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            break;
        }
    }
    size
}

/// Reads the element at `at`: what it is, and the size of its head and payload.
#[inline]
fn read(bytes: &[u8], at: usize) -> (Element<'_>, usize) {
    let rest = &bytes[at..];
    let kind = rest[0];
    match kind {
        0..=0x7f => (Element::Int(kind.into()), 1),
        0x80..=0xbf => {
            let end = 1 + usize::from(kind & 0x3f);
            (Element::Bytes(&rest[1..end]), end)
        }
        0xc0..=0xdf => {
            let unsigned = i64::from(kind & 0x1f) << 8 | i64::from(rest[1]);
            (Element::Int(unsigned << 51 >> 51), 2)
        }
        0xe0..=0xef => {
            let end = 2 + (usize::from(kind & 0x0f) << 8 | usize::from(rest[1]));
            (Element::Bytes(&rest[2..end]), end)
        }
        0xf0 => {
            let len: [u8; 4] = rest[1..5].try_into().expect("four bytes");
            let end = 5 + u32::from_le_bytes(len) as usize;
            (Element::Bytes(&rest[5..end]), end)
        }
        0xf1 => (Element::Int(signed(&rest[1..3])), 3),
        0xf2 => (Element::Int(signed(&rest[1..4])), 4),
        0xf3 => (Element::Int(signed(&rest[1..5])), 5),
        0xf4 => (Element::Int(signed(&rest[1..9])), 9),
        _ => panic!("no listpack element begins with byte {kind:#x}"),
    }
}

/// A little-endian signed integer of up to eight bytes.
#[inline]
fn signed(bytes: &[u8]) -> i64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unused = 64 - 8 * bytes.len();
    i64::from_le_bytes(wide) << unused >> unused
}

/// Size of head and payload of the element that starts `rest`, if there is one in full.
fn checked_size(rest: &[u8]) -> Option<usize> {
    let size = match *rest.first()? {
        0..=0x7f => 1,
        kind @ 0x80..=0xbf => 1 + usize::from(kind & 0x3f),
        0xc0..=0xdf => 2,
        kind @ 0xe0..=0xef => 2 + (usize::from(kind & 0x0f) << 8 | usize::from(*rest.get(1)?)),
        0xf0 => {
            let len: [u8; 4] = rest.get(1..5)?.try_into().expect("four bytes");
            5 + u32::from_le_bytes(len) as usize
        }
        0xf1 => 3,
        0xf2 => 4,
        0xf3 => 5,
        0xf4 => 9,
        _ => return None,
    };
    (size <= rest.len()).then_some(size)
}

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
