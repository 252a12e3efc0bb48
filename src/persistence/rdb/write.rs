//! Primitives, written: lengths, strings, numbers.

use std::ops::ControlFlow;

use crate::base::{lzf, number};
use crate::resp::write::request;

/// Bytes from which on strings are compressed.
const COMPRESS_FROM: usize = 21;

/// Bytes gathered before a writer that spills does so.
const SPILL: usize = 32 << 10;

/// Takes what was gathered away, and leaves the vector empty; false when no more is wanted.
pub type Spill<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> bool;

/// A string that lies in a vector as it is, and has still to be written as one.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    at: usize,
    len: usize,
}

/// What is done about long strings.
enum Compression<'a> {
    Never,
    AtOnce,
    /// They are put down as they are, and noted.
    Later(&'a mut Vec<Plain>),
}

/// Appends to `out` what [`Writer::deferring`] put into `bytes`, with its strings compressed.
pub fn complete(bytes: &[u8], plain: &[Plain], out: &mut Vec<u8>) {
    let mut done = 0;
    for string in plain {
        out.extend_from_slice(&bytes[done..string.at]);
        done = string.at + string.len;
        Writer::new(out, true).string(&bytes[string.at..done]);
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Writes primitives to the end of a vector.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    compression: Compression<'a>,
    spill: Option<Spill<'a>>,
    stopped: bool,
}

impl<'a> Writer<'a> {
    /// Writes to `out`, long strings compressed where that saves anything and `compress` is set
    /// (`rdbcompression`).
    pub fn new(out: &'a mut Vec<u8>, compress: bool) -> Self {
        Self {
            out,
            compression: match compress {
                true => Compression::AtOnce,
                false => Compression::Never,
            },
            spill: None,
            stopped: false,
        }
    }

    /// As [`Writer::new`] with compression, but leaves that to [`complete`]: for who has no time.
    pub fn deferring(out: &'a mut Vec<u8>, plain: &'a mut Vec<Plain>) -> Self {
        Self {
            out,
            compression: Compression::Later(plain),
            spill: None,
            stopped: false,
        }
    }

    /// As [`Writer::new`], for what is long: now and then what was written is given to `spill`.
    pub fn spilling(out: &'a mut Vec<u8>, compress: bool, spill: Spill<'a>) -> Self {
        Self {
            spill: Some(spill),
            ..Self::new(out, compress)
        }
    }

    /// A place between two elements, where what was written may be taken away. False when nobody
    /// wants the rest, so that there is no use in going on.
    #[inline]
    pub fn pause(&mut self) -> bool {
        if self.out.len() >= SPILL
            && let Some(spill) = &mut self.spill
        {
            self.stopped |= !spill(self.out);
        }
        !self.stopped
    }

    /// As [`Writer::pause`], for who goes on until it is broken.
    #[inline]
    pub fn flow(&mut self) -> ControlFlow<()> {
        match self.pause() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// A command in the protocol of clients; as [`Writer::pause`].
    pub fn command(&mut self, args: &[&[u8]]) -> bool {
        request(self.out, args);
        self.pause()
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
        if bytes.len() >= COMPRESS_FROM {
            if let Compression::Later(plain) = &mut self.compression {
                plain.push(Plain {
                    at: self.out.len(),
                    len: bytes.len(),
                });
                return self.raw(bytes);
            }
            if matches!(self.compression, Compression::AtOnce) && self.compressed(bytes) {
                return;
            }
        }
        self.len(bytes.len() as u64);
        self.long(bytes);
    }

    /// Bytes as they are, of which what is gathered is taken away now and then.
    fn long(&mut self, bytes: &[u8]) {
        if bytes.len() <= SPILL {
            return self.raw(bytes);
        }
        for piece in bytes.chunks(SPILL) {
            self.raw(piece);
            if !self.pause() {
                return;
            }
        }
    }

    /// A long string, if it is shorter compressed; false, with nothing written, otherwise.
    fn compressed(&mut self, bytes: &[u8]) -> bool {
        let shorter = lzf::compressed(bytes, bytes.len() - 4, |packed| {
            self.byte(0xc3);
            self.len(packed.len() as u64);
            self.len(bytes.len() as u64);
            self.long(packed);
        });
        shorter.is_some()
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
