//! Primitives, read from a slice. Nothing here trusts a length.

use std::borrow::Cow;

use crate::base::lzf;

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The bytes end too early.
    #[error("Unexpected EOF reading RDB file")]
    Short,
    /// The bytes mean nothing.
    #[error("{0}")]
    Invalid(&'static str),
    /// A type code that nobody defined, or that needs what is not there.
    #[error("{0}")]
    Unsupported(String),
    /// A collection without elements, which old versions could write; the key is skipped.
    #[error("empty key")]
    Empty,
}

/// A length, or how a string is encoded in place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Len {
    /// A length.
    Plain(u64),
    /// An integer of 1, 2 or 4 bytes, or compressed bytes: 0 to 3.
    Special(u8),
}

/// Reads primitives from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes as they are.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Corrupt::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let bytes = self.raw(N)?;
        Ok(bytes.try_into().expect("as many as asked for"))
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.array::<1>()?[0])
    }

    /// A length, or what stands in its place.
    pub fn len_or_special(&mut self) -> Result<Len, Corrupt> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Len::Plain(first.into()),
            (1, _) => Len::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            (3, _) => Len::Special(first & 0x3f),
            (_, 0x80) => Len::Plain(u32::from_be_bytes(self.array()?).into()),
            (_, 0x81) => Len::Plain(u64::from_be_bytes(self.array()?)),
            _ => return Err(Corrupt::Invalid("Unknown length encoding")),
        })
    }

    /// A length.
    pub fn length(&mut self) -> Result<u64, Corrupt> {
        match self.len_or_special()? {
            Len::Plain(len) => Ok(len),
            Len::Special(_) => Err(Corrupt::Invalid("Unexpected encoding of a length")),
        }
    }

    /// A number of things of which each takes at least one byte: never more than bytes are left,
    /// so that room can be made for them.
    pub fn count(&mut self) -> Result<usize, Corrupt> {
        let count = usize::try_from(self.length()?).map_err(|_| Corrupt::Short)?;
        if count > self.rest.len() {
            return Err(Corrupt::Short);
        }
        Ok(count)
    }

    /// A string.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>, Corrupt> {
        let text = |n: i64| Cow::Owned(n.to_string().into_bytes());
        match self.len_or_special()? {
            Len::Plain(len) => {
                let len = usize::try_from(len).map_err(|_| Corrupt::Short)?;
                Ok(Cow::Borrowed(self.raw(len)?))
            }
            Len::Special(0) => Ok(text(i8::from_le_bytes(self.array()?).into())),
            Len::Special(1) => Ok(text(i16::from_le_bytes(self.array()?).into())),
            Len::Special(2) => Ok(text(i32::from_le_bytes(self.array()?).into())),
            Len::Special(3) => self.compressed(),
            Len::Special(_) => Err(Corrupt::Invalid("Unknown RDB string encoding type")),
        }
    }

    /// Passes over a string.
    pub fn skip_string(&mut self) -> Result<(), Corrupt> {
        let len = match self.len_or_special()? {
            Len::Plain(len) => len,
            Len::Special(kind @ 0..=2) => 1 << kind,
            Len::Special(3) => {
                let packed = self.length()?;
                self.length()?;
                packed
            }
            Len::Special(_) => return Err(Corrupt::Invalid("Unknown RDB string encoding type")),
        };
        self.raw(usize::try_from(len).map_err(|_| Corrupt::Short)?)?;
        Ok(())
    }

    fn compressed(&mut self) -> Result<Cow<'a, [u8]>, Corrupt> {
        let packed = self.count()?;
        let len = usize::try_from(self.length()?).map_err(|_| Corrupt::Short)?;
        let bytes = self.raw(packed)?;
        lzf::decompress(bytes, len)
            .map(Cow::Owned)
            .ok_or(Corrupt::Invalid("Invalid LZF compressed string"))
    }

    /// A time in milliseconds.
    pub fn millis(&mut self) -> Result<i64, Corrupt> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A time in seconds.
    pub fn seconds(&mut self) -> Result<i64, Corrupt> {
        Ok(i32::from_le_bytes(self.array()?).into())
    }

    /// A floating-point number in 8 bytes.
    pub fn double(&mut self) -> Result<f64, Corrupt> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// A floating-point number as text, as it was before version 8.
    pub fn text_double(&mut self) -> Result<f64, Corrupt> {
        match self.byte()? {
            253 => Ok(f64::NAN),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            len => {
                let text = self.raw(len.into())?;
                crate::base::strtod::parse_f64(text)
                    .ok_or(Corrupt::Invalid("Invalid floating point number"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::write::Writer;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let lens = [
            0,
            63,
            64,
            16_383,
            16_384,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
        ];
        let mut strings: Vec<Vec<u8>> =
            [0i64, -1, 127, -128, 128, 32_767, -32_769, 1 << 31, i64::MIN]
                .iter()
                .map(|n| n.to_string().into_bytes())
                .collect();
        strings.extend([
            b"".to_vec(),
            b"01".to_vec(),
            vec![b'x'; 30_000],
            b"+1".to_vec(),
        ]);
        strings.push((0..300).map(|i| (i * 7919 % 256) as u8).collect());
        for compress in [false, true] {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, compress);
            lens.iter().for_each(|len| writer.len(*len));
            strings.iter().for_each(|text| writer.string(text));
            writer.int_string(1 << 40);
            writer.int_string(-5);
            assert_eq!(compress, bytes.len() < 10_000);
            let mut reader = Reader::new(&bytes);
            for len in lens {
                assert_eq!(reader.length(), Ok(len));
            }
            for text in &strings {
                assert_eq!(reader.string().as_deref(), Ok(&text[..]));
            }
            assert_eq!(reader.string().as_deref(), Ok(&b"1099511627776"[..]));
            assert_eq!(reader.string().as_deref(), Ok(&b"-5"[..]));
            assert_eq!(reader.byte(), Err(Corrupt::Short));
            for end in 0..bytes.len().min(2000) {
                let mut reader = Reader::new(&bytes[..end]);
                while reader.string().is_ok() {}
            }
        }
    }

    #[test]
    fn lies_about_lengths_are_found() {
        assert_eq!(
            Reader::new(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0]).string(),
            Err(Corrupt::Short)
        );
        let bomb = [0xc3, 4, 0x80, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        assert!(matches!(
            Reader::new(&bomb).string(),
            Err(Corrupt::Invalid(_))
        ));
        assert!(Reader::new(&[0xc4]).string().is_err());
        assert!(Reader::new(&[0x82]).length().is_err());
    }
}
