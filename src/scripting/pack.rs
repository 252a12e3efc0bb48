//! `struct`: values as packed bytes, by a format of one letter each.

use super::args::{bad_argument, fail, integer_or, number, string, to_i64};
use super::lua::{Body, Kind, Outcome, Raise, Stack};

/// The functions of the library.
pub const FUNCTIONS: &[(&str, Body)] = &[("pack", pack), ("unpack", unpack), ("size", size)];

/// Most bytes of an integer.
const MOST: usize = 32;
/// The alignment of `!` without a number.
const NATURAL: usize = 8;

/// A format that is being read: it ends at its first zero byte.
struct Format {
    text: Vec<u8>,
    at: usize,
    big_endian: bool,
    align: usize,
}

impl Format {
    fn of(stack: &mut Stack) -> Result<Self, Raise> {
        let text = crate::base::text::before_nul(string(stack, 1)?).to_vec();
        Ok(Self {
            text,
            at: 0,
            big_endian: false,
            align: 1,
        })
    }

    fn next(&mut self) -> Option<u8> {
        let option = self.text.get(self.at).copied();
        self.at += 1;
        option
    }

    fn count(&mut self, stack: &mut Stack, default: usize) -> Result<usize, Raise> {
        let digit = |byte: &u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
        let Some(mut count) = self.text.get(self.at).and_then(digit) else {
            return Ok(default);
        };
        self.at += 1;
        while let Some(digit) = self.text.get(self.at).and_then(digit) {
            let more = count.checked_mul(10).and_then(|n| n.checked_add(digit));
            count = more.ok_or_else(|| fail(stack, "integral size overflow"))?;
            self.at += 1;
        }
        Ok(count as usize)
    }

    fn size(&mut self, stack: &mut Stack, option: u8) -> Result<usize, Raise> {
        Ok(match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.count(stack, 1)?,
            b'i' | b'I' => {
                let size = self.count(stack, 4)?;
                if size > MOST {
                    return Err(fail(
                        stack,
                        format!("integral size {size} is larger than limit of {MOST}"),
                    ));
                }
                size
            }
            _ => 0,
        })
    }

    /// Bytes that are skipped at `position` before an element of a size.
    fn padding(&self, position: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = size.min(self.align);
        size.wrapping_sub(position & size.wrapping_sub(1)) & size.wrapping_sub(1)
    }

    /// What is no element: byte order, alignment, blanks.
    fn control(&mut self, stack: &mut Stack, option: u8) -> Result<(), Raise> {
        match option {
            b' ' => {}
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let align = self.count(stack, NATURAL)?;
                if !align.is_power_of_two() {
                    return Err(fail(
                        stack,
                        format!("alignment {align} is not a power of 2"),
                    ));
                }
                self.align = align;
            }
            other => {
                let reason = [&b"invalid format option '"[..], &[other], b"'"].concat();
                let reason = String::from_utf8_lossy(&reason).into_owned();
                return Err(bad_argument(stack, 1, &reason));
            }
        }
        Ok(())
    }

    fn ordered(&self, mut little: Vec<u8>) -> Vec<u8> {
        if self.big_endian {
            little.reverse();
        }
        little
    }
}

/// The bytes of an integer, lowest first, as C makes it of a number.
fn integer_bytes(value: f64, size: usize) -> Vec<u8> {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    let value = match value {
        negative if negative < 0.0 => to_i64(negative) as u64,
        // Beyond the range the processor's conversion gives the highest bit, or for infinity nothing.
        big if big >= LIMIT => 0,
        nan if nan.is_nan() => 1 << 63,
        value => value as u64,
    };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.resize(size, 0);
    bytes
}

fn pack(stack: &mut Stack) -> Outcome {
    let mut format = Format::of(stack)?;
    let (mut out, mut total, mut argument) = (Vec::new(), 0usize, 1);
    // A separator that scripts can tell by its kind stands behind the arguments.
    stack.push_nil();
    while let Some(option) = format.next() {
        let mut size = format.size(stack, option)?;
        let padding = format.padding(total, option, size);
        total += padding;
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                argument += 1;
                let value = number(stack, argument)?;
                let bytes = format.ordered(integer_bytes(value, size));
                out.extend_from_slice(&bytes);
            }
            b'x' => out.push(0),
            b'f' => {
                argument += 1;
                let value = number(stack, argument)? as f32;
                out.extend_from_slice(&format.ordered(value.to_le_bytes().to_vec()));
            }
            b'd' => {
                argument += 1;
                let value = number(stack, argument)?;
                out.extend_from_slice(&format.ordered(value.to_le_bytes().to_vec()));
            }
            b'c' | b's' => {
                argument += 1;
                let text = string(stack, argument)?;
                if size == 0 {
                    size = text.len();
                }
                match text.get(..size) {
                    Some(part) => out.extend_from_slice(part),
                    None => return Err(bad_argument(stack, argument + 1, "string too short")),
                }
                if option == b's' {
                    out.push(0);
                    size += 1;
                }
            }
            other => format.control(stack, other)?,
        }
        total += size;
    }
    stack.push(&out);
    Ok(1)
}

/// The number that bytes are, lowest first.
fn integer_of(bytes: &[u8], is_signed: bool) -> f64 {
    let mut value = 0u64;
    for byte in bytes.iter().rev() {
        value = value << 8 | u64::from(*byte);
    }
    if !is_signed {
        return value as f64;
    }
    // The shift counts modulo 64, as the processor does it.
    let mask = u64::MAX.wrapping_shl((bytes.len() as u32 * 8).wrapping_sub(1));
    if value & mask != 0 {
        value |= mask;
    }
    value as i64 as f64
}

fn unpack(stack: &mut Stack) -> Outcome {
    let mut format = Format::of(stack)?;
    let data = string(stack, 2)?.to_vec();
    let position = integer_or(stack, 3, 1)? as usize;
    if position == 0 {
        return Err(bad_argument(stack, 3, "offset must be 1 or greater"));
    }
    let (mut position, mut results) = (position - 1, 0);
    let short = |stack: &mut Stack| bad_argument(stack, 2, "data string too short");
    let part = |position: usize, size: usize| -> Option<&[u8]> {
        data.get(position..position.checked_add(size)?)
    };
    while let Some(option) = format.next() {
        let mut size = format.size(stack, option)?;
        position = position.wrapping_add(format.padding(position, option, size));
        let Some(bytes) = part(position, size) else {
            return Err(short(stack));
        };
        if !stack.reserve(4) {
            return Err(fail(stack, "stack overflow (too many results)"));
        }
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let bytes = format.ordered(bytes.to_vec());
                stack.push_number(integer_of(&bytes, option.is_ascii_lowercase()));
                results += 1;
            }
            b'x' => {}
            b'f' => {
                let bytes = format.ordered(bytes.to_vec());
                let value = f32::from_le_bytes(bytes.try_into().unwrap_or_default());
                stack.push_number(value.into());
                results += 1;
            }
            b'd' => {
                let bytes = format.ordered(bytes.to_vec());
                stack.push_number(f64::from_le_bytes(bytes.try_into().unwrap_or_default()));
                results += 1;
            }
            b'c' => {
                if size == 0 {
                    if results == 0 || !stack.is_number(-1) {
                        return Err(fail(stack, "format 'c0' needs a previous size"));
                    }
                    size = to_i64(stack.number(-1)) as usize;
                    stack.pop(1);
                    results -= 1;
                }
                let Some(bytes) = part(position, size) else {
                    return Err(short(stack));
                };
                stack.push(bytes);
                results += 1;
            }
            b's' => {
                let rest = &data[position..];
                let Some(end) = memchr::memchr(0, rest) else {
                    return Err(fail(stack, "unfinished string in data"));
                };
                size = end + 1;
                stack.push(&rest[..end]);
                results += 1;
            }
            other => format.control(stack, other)?,
        }
        position += size;
    }
    stack.push_number((position + 1) as f64);
    Ok(results + 1)
}

fn size(stack: &mut Stack) -> Outcome {
    let mut format = Format::of(stack)?;
    let mut position = 0usize;
    while let Some(option) = format.next() {
        let size = format.size(stack, option)?;
        position += format.padding(position, option, size);
        if option == b's' {
            return Err(bad_argument(stack, 1, "option 's' has no fixed size"));
        } else if option == b'c' && size == 0 {
            return Err(bad_argument(stack, 1, "option 'c0' has no fixed size"));
        }
        if !option.is_ascii_alphanumeric() {
            format.control(stack, option)?;
        }
        position += size;
    }
    debug_assert_ne!(stack.kind(1), Kind::None, "a format was read");
    stack.push_number(position as i32 as f64);
    Ok(1)
}
