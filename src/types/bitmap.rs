//! Strings as bitmaps: bit 0 is the most significant bit of the first byte.
//!
//! Counting, searching and combining work by whole words; fields of up to 64 bits are read and
//! written at any bit, with Redis' rules for values that do not fit.

/// The value of a bit; beyond the end all are zero.
pub fn get(bytes: &[u8], offset: u64) -> bool {
    let byte = bytes.get((offset / 8) as usize);
    byte.is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

/// Sets a bit within the string; returns what it was.
pub fn set(bytes: &mut [u8], offset: u64, on: bool) -> bool {
    let byte = &mut bytes[(offset / 8) as usize];
    let mask = 0x80 >> (offset % 8);
    let old = *byte & mask != 0;
    *byte = if on { *byte | mask } else { *byte & !mask };
    old
}

/// Number of bits set.
pub fn count(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let in_words = words
        .iter()
        .map(|w| u64::from(u64::from_ne_bytes(*w).count_ones()));
    let in_rest = rest.iter().map(|b| u64::from(b.count_ones()));
    in_words.sum::<u64>() + in_rest.sum::<u64>()
}

/// Number of bits set from bit `first` to bit `last`, both included and within the string.
pub fn count_between(bytes: &[u8], first: u64, last: u64) -> u64 {
    let (start, end) = ((first / 8) as usize, (last / 8) as usize);
    let before = bytes[start] & !(0xff >> (first % 8));
    let after = bytes[end] & !(0xff << (7 - last % 8)) as u8;
    let outside = u64::from(before.count_ones() + after.count_ones());
    count(&bytes[start..=end]) - outside
}

/// Position of the first bit that is `bit`, from bit `first` to bit `last`, both included and
/// within the string.
pub fn find(bytes: &[u8], bit: bool, first: u64, last: u64) -> Option<u64> {
    let skip = if bit { 0 } else { 0xff };
    let end = (last / 8) as usize;
    let mut at = (first / 8) as usize;
    let mut byte = (bytes[at] ^ skip) & 0xff >> (first % 8);
    while byte == 0 {
        at += 1;
        let (words, _) = bytes.get(at..=end)?.as_chunks::<8>();
        at += 8 * words.iter().take_while(|w| **w == [skip; 8]).count();
        byte = bytes[..=end].get(at)? ^ skip;
    }
    let position = at as u64 * 8 + u64::from(byte.leading_zeros());
    (position <= last).then_some(position)
}

/// How BITOP combines strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bits set in all.
    And,
    /// Bits set in any.
    Or,
    /// Bits set in an odd number.
    Xor,
}

/// Combines `source` into `result`; the shorter one counts as if it went on with zeros.
pub fn combine(result: &mut Vec<u8>, operation: Operation, source: &[u8]) {
    if result.len() < source.len() {
        result.resize(source.len(), 0);
    }
    let (common, beyond) = result.split_at_mut(source.len());
    let pairs = common.iter_mut().zip(source);
    match operation {
        Operation::And => {
            pairs.for_each(|(r, s)| *r &= s);
            beyond.fill(0);
        }
        Operation::Or => pairs.for_each(|(r, s)| *r |= s),
        Operation::Xor => pairs.for_each(|(r, s)| *r ^= s),
    }
}

/// An integer of some bits at some bit of a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its first bit.
    pub offset: u64,
    /// Its width: 1 to 64, unsigned ones to 63.
    pub bits: u32,
    /// Two's complement.
    pub signed: bool,
}

/// What happens to a value that does not fit its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The upper bits are dropped.
    Wrap,
    /// The nearest value that fits is taken.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl Field {
    /// Its last bit.
    pub fn last(self) -> u64 {
        self.offset + u64::from(self.bits) - 1
    }

    /// The bytes of a string that the field lies in, as far as there are such, and the field as one
    /// of these.
    pub fn within(self) -> (Self, std::ops::Range<usize>) {
        let start = usize::try_from(self.offset / 8).unwrap_or(usize::MAX);
        let field = Self {
            offset: self.offset % 8,
            ..self
        };
        (field, start..start.saturating_add(9))
    }

    fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }

    /// How far the field's last bit is from the right end of the 9 bytes it begins in.
    fn shift(self) -> u32 {
        72 - (self.offset % 8) as u32 - self.bits
    }

    fn window(self, bytes: &[u8]) -> u128 {
        let start = usize::try_from(self.offset / 8).unwrap_or(usize::MAX);
        let found = bytes.get(start..).unwrap_or_default();
        let found = &found[..found.len().min(9)];
        let mut window = [0; 16];
        window[7..7 + found.len()].copy_from_slice(found);
        u128::from_be_bytes(window)
    }

    fn extend(self, bits: u64) -> i64 {
        let value = (bits & self.mask()) as i64;
        if self.signed {
            let unused = 64 - self.bits;
            value << unused >> unused
        } else {
            value
        }
    }

    /// The field's value; beyond the end all bits are zero.
    pub fn get(self, bytes: &[u8]) -> i64 {
        self.extend((self.window(bytes) >> self.shift()) as u64)
    }

    /// Writes the field, which lies within the string, with the low bits of `value`.
    pub fn set(self, bytes: &mut [u8], value: i64) {
        let mask = u128::from(self.mask()) << self.shift();
        let value = u128::from(value as u64 & self.mask()) << self.shift();
        let window = (self.window(bytes) & !mask | value).to_be_bytes();
        let start = (self.offset / 8) as usize;
        let len = (bytes.len() - start).min(9);
        bytes[start..start + len].copy_from_slice(&window[7..7 + len]);
    }

    /// `value + by` as the field can hold it; `None` when it cannot and the rule is to fail.
    ///
    /// The comparisons are Redis' own, so that values far outside of the field saturate to the
    /// same end as there.
    pub fn add(self, value: i64, by: i64, rule: Overflow) -> Option<i64> {
        let sum = value.wrapping_add(by);
        let (above, below, min, max) = if self.signed {
            let max = (self.mask() >> 1) as i64;
            let min = -max - 1;
            let room_up = (max as u64).wrapping_sub(value as u64) as i64;
            let room_down = min.wrapping_sub(value);
            let narrow = self.bits != 64;
            let above = value > max || by > room_up && (narrow || value >= 0 && by > 0);
            let below = value < min || by < room_down && (narrow || value < 0 && by < 0);
            (above, below, min, max)
        } else {
            let max = self.mask();
            let room_up = max.wrapping_sub(value as u64) as i64;
            let above = value as u64 > max || by > 0 && by > room_up;
            let below = by < 0 && by < value.wrapping_neg();
            (above, below, 0, max as i64)
        };
        match rule {
            _ if !above && !below => Some(sum),
            Overflow::Wrap => Some(self.extend(sum as u64)),
            Overflow::Saturate => Some(if above { max } else { min }),
            Overflow::Fail => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 37 % 251) as u8).collect()
    }

    #[test]
    fn counting_and_searching_agree_with_single_bits() {
        for bytes in [
            sample(1),
            sample(9),
            sample(40),
            vec![0; 30],
            vec![0xff; 30],
        ] {
            let bits = bytes.len() as u64 * 8;
            for first in 0..bits {
                for last in (first..bits).step_by(3) {
                    let range = first..=last;
                    let expected = range.clone().filter(|i| get(&bytes, *i)).count();
                    assert_eq!(count_between(&bytes, first, last), expected as u64);
                    for bit in [true, false] {
                        let expected = range.clone().find(|i| get(&bytes, *i) == bit);
                        assert_eq!(find(&bytes, bit, first, last), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn combining_pads_with_zeros() {
        let check = |operation, expected: &[u8]| {
            let mut result = vec![0xff, 0x0f];
            combine(&mut result, operation, &[0x3c, 0x3c, 0x3c]);
            combine(&mut result, operation, &[0x01]);
            assert_eq!(result, expected, "{operation:?}");
        };
        check(Operation::And, &[0, 0, 0]);
        check(Operation::Or, &[0xff, 0x3f, 0x3c]);
        check(Operation::Xor, &[0xc2, 0x33, 0x3c]);
    }

    #[test]
    fn fields_read_back_what_was_written_and_touch_nothing_else() {
        for bits in 1..=64 {
            for offset in 0..20 {
                for signed in [bits == 64, true] {
                    let field = Field {
                        offset,
                        bits,
                        signed,
                    };
                    let mut bytes = vec![0xa5; 12];
                    let value = field.extend(0x9e37_79b9_7f4a_7c15);
                    field.set(&mut bytes, value);
                    assert_eq!(field.get(&bytes), value);
                    for bit in (0..offset).chain(field.last() + 1..96) {
                        assert_eq!(get(&bytes, bit), get(&[0xa5], bit % 8));
                    }
                }
            }
        }
        let beyond = Field {
            offset: u64::MAX - 70,
            bits: 64,
            signed: true,
        };
        assert_eq!(beyond.get(&[1, 2, 3]), 0);
    }

    #[test]
    fn overflow_follows_the_rule() {
        let check = |signed, bits, value, by, [wrap, saturate]: [i64; 2]| {
            let field = Field {
                offset: 0,
                bits,
                signed,
            };
            assert_eq!(field.add(value, by, Overflow::Wrap), Some(wrap));
            assert_eq!(field.add(value, by, Overflow::Saturate), Some(saturate));
            let fits = wrap == saturate;
            assert_eq!(field.add(value, by, Overflow::Fail).is_some(), fits);
        };
        check(true, 8, 100, 27, [127, 127]);
        check(true, 8, 100, 28, [-128, 127]);
        check(true, 8, -100, -100, [56, -128]);
        check(true, 64, i64::MAX, 1, [i64::MIN, i64::MAX]);
        check(true, 64, i64::MIN, -1, [i64::MAX, i64::MIN]);
        check(false, 8, 250, 10, [4, 255]);
        check(false, 8, 5, -10, [251, 0]);
        check(false, 63, i64::MAX, 1, [0, i64::MAX]);
    }
}
