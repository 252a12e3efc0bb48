//! Compact encodings of old versions: ziplist (before 7.0) and zipmap (before 2.6), read only.
//!
//! A ziplist is total bytes (4), offset of the last entry (4), number of entries (2), entries,
//! 0xff. An entry is the length of the one before it (1 byte, or 0xfe and 4), an encoding, and
//! its bytes. A zipmap is the number of pairs (1), then length, key, length, unused bytes (1),
//! value, unused; 0xff.

use super::read::Corrupt;
use crate::types::listpack::{Element, Listpack};

const BAD_ZIPLIST: Corrupt = Corrupt::Invalid("Ziplist integrity check failed.");
const BAD_ZIPMAP: Corrupt = Corrupt::Invalid("Zipmap integrity check failed.");

/// Shows the elements of a ziplist, which is checked on the way.
pub fn each_of_ziplist<'a>(
    bytes: &'a [u8],
    mut show: impl FnMut(Element<'a>),
) -> Result<(), Corrupt> {
    let header: &[u8; 10] = bytes.first_chunk().ok_or(BAD_ZIPLIST)?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (total, tail) = (word(0) as usize, word(4) as usize);
    let announced = u16::from_le_bytes([header[8], header[9]]);
    if total != bytes.len() || bytes.last() != Some(&0xff) || tail >= total {
        return Err(BAD_ZIPLIST);
    }
    let (mut at, mut before, mut last, mut count) = (10, 0, 10, 0usize);
    while at + 1 < total {
        last = at;
        let mut entry = Entry { bytes, at };
        if entry.length_before()? != before {
            return Err(BAD_ZIPLIST);
        }
        show(entry.element()?);
        before = entry.at - at;
        at = entry.at;
        count += 1;
    }
    let counted = announced == u16::MAX || usize::from(announced) == count;
    if at + 1 != total || tail != last || !counted {
        return Err(BAD_ZIPLIST);
    }
    Ok(())
}

struct Entry<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entry<'a> {
    /// The next bytes, of which the last of all is not one.
    fn take(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let end = self.at.checked_add(len).ok_or(BAD_ZIPLIST)?;
        let bytes = self.bytes[..self.bytes.len() - 1].get(self.at..end);
        self.at = end;
        bytes.ok_or(BAD_ZIPLIST)
    }

    fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian integer with sign.
    fn int(&mut self, len: usize) -> Result<Element<'a>, Corrupt> {
        let bytes = self.take(len)?;
        let mut full = [if bytes[len - 1] & 0x80 != 0 { 0xff } else { 0 }; 8];
        full[..len].copy_from_slice(bytes);
        Ok(Element::Int(i64::from_le_bytes(full)))
    }

    fn length_before(&mut self) -> Result<usize, Corrupt> {
        match self.byte()? {
            0xfe => {
                let bytes = self.take(4)?.try_into().expect("four");
                Ok(u32::from_le_bytes(bytes) as usize)
            }
            0xff => Err(BAD_ZIPLIST),
            len => Ok(len.into()),
        }
    }

    fn element(&mut self) -> Result<Element<'a>, Corrupt> {
        let first = self.byte()?;
        let len = match first {
            0..0x40 => usize::from(first),
            0x40..0x80 => usize::from(first & 0x3f) << 8 | usize::from(self.byte()?),
            0x80 => u32::from_be_bytes(self.take(4)?.try_into().expect("four")) as usize,
            0xc0 => return self.int(2),
            0xd0 => return self.int(4),
            0xe0 => return self.int(8),
            0xf0 => return self.int(3),
            0xfe => return self.int(1),
            0xf1..=0xfd => return Ok(Element::Int(i64::from(first & 15) - 1)),
            _ => return Err(BAD_ZIPLIST),
        };
        Ok(Element::Bytes(self.take(len)?))
    }
}

/// A ziplist as a listpack.
pub fn listpack_of_ziplist(bytes: &[u8]) -> Result<Listpack, Corrupt> {
    let mut elements = Vec::new();
    each_of_ziplist(bytes, |element| elements.push(element))?;
    Ok(Listpack::of(elements))
}

/// Keys and values of a zipmap by turns, as a listpack.
pub fn listpack_of_zipmap(bytes: &[u8]) -> Result<Listpack, Corrupt> {
    let mut elements = Vec::new();
    let mut at = 1;
    loop {
        let (len, next) = match zipmap_len(bytes, at)? {
            None => break,
            Some(found) => found,
        };
        let key = bytes
            .get(next..)
            .and_then(|b| b.get(..len))
            .ok_or(BAD_ZIPMAP)?;
        let Some((len, next)) = zipmap_len(bytes, next + len)? else {
            return Err(BAD_ZIPMAP);
        };
        let unused = usize::from(*bytes.get(next).ok_or(BAD_ZIPMAP)?);
        let value = bytes
            .get(next + 1..)
            .and_then(|b| b.get(..len))
            .ok_or(BAD_ZIPMAP)?;
        elements.extend([Element::Bytes(key), Element::Bytes(value)]);
        at = next + 1 + len + unused;
    }
    let counted = match bytes.first() {
        Some(254..) => true,
        Some(&count) => usize::from(count) == elements.len() / 2,
        None => false,
    };
    if !counted || at + 1 != bytes.len() || elements.is_empty() {
        return Err(BAD_ZIPMAP);
    }
    Ok(Listpack::of(elements))
}

/// The length at an offset and where its bytes begin; `None` at the end mark. Short lengths have
/// one form only.
fn zipmap_len(bytes: &[u8], at: usize) -> Result<Option<(usize, usize)>, Corrupt> {
    match bytes.get(at).ok_or(BAD_ZIPMAP)? {
        255 => Ok(None),
        254 => {
            let word = bytes.get(at + 1..at + 5).ok_or(BAD_ZIPMAP)?;
            let word = u32::from_le_bytes(word.try_into().expect("four"));
            if word < 254 {
                return Err(BAD_ZIPMAP);
            }
            Ok(Some((word as usize, at + 5)))
        }
        &len => Ok(Some((len.into(), at + 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ziplist of these encoded elements, each without the length before it.
    fn ziplist(encoded: &[&[u8]]) -> Vec<u8> {
        let (mut body, mut before, mut last) = (Vec::new(), 0, 10);
        for element in encoded {
            last = 10 + body.len();
            body.push(before as u8);
            body.extend_from_slice(element);
            before = element.len() + 1;
        }
        let total = 11 + body.len() as u32;
        let mut bytes = [&total.to_le_bytes()[..], &(last as u32).to_le_bytes()].concat();
        bytes.extend((encoded.len() as u16).to_le_bytes());
        bytes.extend(body);
        bytes.push(0xff);
        bytes
    }

    #[test]
    fn ziplists_are_read_and_broken_ones_refused() {
        let bytes = ziplist(&[
            b"\x03abc",
            &[0xfd],
            &[0xf1],
            &[0xfe, 0x80],
            &[0xc0, 0, 1],
            &[0xf0, 255, 255, 255],
            b"\x40\x01z",
        ]);
        let pack = listpack_of_ziplist(&bytes).expect("sound");
        let texts: Vec<Vec<u8>> = pack.iter().map(Element::to_vec).collect();
        assert_eq!(
            texts,
            [&b"abc"[..], b"12", b"0", b"-128", b"256", b"-1", b"z"]
        );
        for end in 0..bytes.len() {
            assert!(listpack_of_ziplist(&bytes[..end]).is_err());
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[at] ^= 1 << bit;
                let _ = listpack_of_ziplist(&broken);
            }
        }
    }

    #[test]
    fn zipmaps_are_read_and_broken_ones_refused() {
        let bytes = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world..\xff";
        let pack = listpack_of_zipmap(bytes).expect("sound");
        let texts: Vec<Vec<u8>> = pack.iter().map(Element::to_vec).collect();
        assert_eq!(texts, [&b"foo"[..], b"bar", b"hello", b"world"]);
        for end in 0..bytes.len() {
            assert!(listpack_of_zipmap(&bytes[..end]).is_err());
        }
    }
}
