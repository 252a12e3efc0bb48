//! Elements of listpacks, byte by byte: a head that says what it is and how long, a payload, and
//! behind both their size, so that it can be read from either end.
//!
//! ```text
//!  0nnnnnnn                 integer 0 to 127          10llllll             string of l bytes
//!  110nnnnn nnnnnnnn        13-bit integer            1110llll llllllll    string of l bytes
//!  11110001 to 11110100     integer of 2, 3, 4 or 8   11110000 u32         string of so many bytes
//!                           bytes, little endian
//! ```
//!
//! Reading trusts what it reads and panics on what is no element; only `checked_size` does not.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::base::number;

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
    pub(super) fn write<const N: usize>(self, out: &mut SmallVec<[u8; N]>) {
        let before = out.len();
        self.write_bare(out);
        let (back, back_len) = back(out.len() - before);
        out.extend_from_slice(&back[..back_len]);
    }

    /// Appends head and payload alone: what can be read from the front only.
    #[inline]
    pub(super) fn write_bare<const N: usize>(self, out: &mut SmallVec<[u8; N]>) {
        let (head, head_len) = head(self);
        out.extend_from_slice(&head[..head_len]);
        out.extend_from_slice(self.payload());
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
pub(super) fn back_len(size: usize) -> usize {
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
pub(super) fn back(size: usize) -> ([u8; 5], usize) {
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
pub(super) fn read_back(bytes: &[u8], end: usize) -> usize {
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
pub(super) fn read(bytes: &[u8], at: usize) -> (Element<'_>, usize) {
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

/// Reads the size of head and payload of the element at `at`, as [`read`] does, and no more.
#[inline]
pub(super) fn size(bytes: &[u8], at: usize) -> usize {
    let kind = bytes[at];
    match kind {
        0..=0x7f => 1,
        0x80..=0xbf => 1 + usize::from(kind & 0x3f),
        0xc0..=0xdf => 2,
        _ => long_size(&bytes[at..]),
    }
}

fn long_size(rest: &[u8]) -> usize {
    checked_size(rest).unwrap_or_else(|| panic!("no element begins with byte {:#x}", rest[0]))
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
pub(super) fn checked_size(rest: &[u8]) -> Option<usize> {
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
