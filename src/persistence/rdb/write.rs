//! Primitives, written: lengths, strings, numbers.

use crate::base::{lzf, number};
use crate::resp::write::request;

/// Bytes from which on strings are compressed.
const COMPRESS_FROM: usize = 21;

/// Bytes gathered before a writer that spills does so.
const SPILL: usize = 256 << 10;

/// Takes what was gathered away, and leaves the vector empty.
pub type Spill<'a> = &'a mut dyn FnMut(&mut Vec<u8>);

/// Writes primitives to the end of a vector.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    compress: bool,
    spill: Option<Spill<'a>>,
}

impl<'a> Writer<'a> {
    /// Writes to `out`, long strings compressed where that saves anything and `compress` is set
    /// (`rdbcompression`).
    pub fn new(out: &'a mut Vec<u8>, compress: bool) -> Self {
        Self {
            out,
            compress,
            spill: None,
        }
    }

    /// As [`Writer::new`], for what is long: now and then what was written is given to `spill`.
    pub fn spilling(out: &'a mut Vec<u8>, compress: bool, spill: Spill<'a>) -> Self {
        Self {
            out,
            compress,
            spill: Some(spill),
        }
    }

    /// A place between two elements, where what was written may be taken away.
    #[inline]
    pub fn pause(&mut self) {
        if self.out.len() >= SPILL
            && let Some(spill) = &mut self.spill
        {
            spill(self.out);
        }
    }

    /// A command in the protocol of clients.
    pub fn command(&mut self, args: &[&[u8]]) {
        request(self.out, args);
        self.pause();
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A length in 1, 2, 5 or 9 bytes.
    pub fn len(&mut self, len: u64) {
        match len {
            0..64 => self.byte(len as u8),
            64..16_384 => {
                self.byte((len >> 8) as u8 | 0x40);
                self.byte(len as u8);
            }
            16_384..=0xffff_ffff => {
                self.byte(0x80);
                self.raw(&(len as u32).to_be_bytes());
            }
            _ => {
                self.byte(0x81);
                self.raw(&len.to_be_bytes());
            }
        }
    }

    /// A string: as an integer if it is the text of one of 32 bits, compressed if that is shorter.
    pub fn string(&mut self, bytes: &[u8]) {
        if bytes.len() <= 11
            && let Some(n) = number::parse_i64(bytes)
            && self.small_int(n)
        {
            return;
        }
        if self.compress && bytes.len() >= COMPRESS_FROM {
            let shorter = lzf::compressed(bytes, bytes.len() - 4, |packed| {
                self.byte(0xc3);
                self.len(packed.len() as u64);
                self.len(bytes.len() as u64);
                self.raw(packed);
            });
            if shorter.is_some() {
                return;
            }
        }
        self.len(bytes.len() as u64);
        self.raw(bytes);
    }

    /// A string that is the text of an integer.
    pub fn int_string(&mut self, n: i64) {
        if !self.small_int(n) {
            let mut digits = itoa::Buffer::new();
            let text = digits.format(n).as_bytes();
            self.len(text.len() as u64);
            self.raw(text);
        }
    }

    /// An integer of up to 32 bits; false, with nothing written, when it has more.
    fn small_int(&mut self, n: i64) -> bool {
        if let Ok(n) = i8::try_from(n) {
            self.raw(&[0xc0, n as u8]);
        } else if let Ok(n) = i16::try_from(n) {
            self.byte(0xc1);
            self.raw(&n.to_le_bytes());
        } else if let Ok(n) = i32::try_from(n) {
            self.byte(0xc2);
            self.raw(&n.to_le_bytes());
        } else {
            return false;
        }
        true
    }

    /// A time in Unix milliseconds.
    pub fn millis(&mut self, ms: i64) {
        self.raw(&ms.to_le_bytes());
    }

    /// A floating-point number in 8 bytes.
    pub fn double(&mut self, value: f64) {
        self.raw(&value.to_le_bytes());
    }
}
