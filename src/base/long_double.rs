//! The 80-bit floating point numbers of x86, in software.
//!
//! INCRBYFLOAT and HINCRBYFLOAT of Redis on x86-64 compute in C's `long double`: 64 bits of mantissa,
//! 15 of exponent. Clients see the difference to a double (`0.1 + 0.2` gives `0.3`), so the same
//! arithmetic is done here, with results that do not depend on the machine: parsing, addition and
//! printing are correctly rounded, ties to even, as glibc and the processor do.

use super::number::parse_i64;
use super::strtod::{Scanned, round_bits, scan};

/// Exponent of the last mantissa bit of the smallest numbers.
const MIN_EXPONENT: i64 = -16445;
/// Exponent of the last mantissa bit of the greatest numbers.
const MAX_EXPONENT: i64 = 16320;
/// Redis' buffer for such a number: longer texts are refused.
const MAX_CHARS: usize = 5 * 1024;
/// Decimals that Redis prints at most.
const DECIMALS: u32 = 17;
const TEN_TO_DECIMALS: u64 = 10u64.pow(DECIMALS);

/// A long double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `mantissa * 2^exponent`; the mantissa's top bit is set unless the exponent is the smallest.
    Finite {
        mantissa: u64,
        exponent: i64,
    },
    Infinite,
    Nan,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: LongDouble = LongDouble {
        negative: false,
        kind: Kind::Finite {
            mantissa: 0,
            exponent: MIN_EXPONENT,
        },
    };

    fn new(negative: bool, mantissa: u128, exponent: i64, sticky: bool) -> Self {
        let (mantissa, exponent) = round_bits(mantissa, exponent, sticky, 64, MIN_EXPONENT);
        let kind = if exponent > MAX_EXPONENT {
            Kind::Infinite
        } else {
            Kind::Finite { mantissa, exponent }
        };
        LongDouble { negative, kind }
    }

    /// The exact value of an integer.
    pub fn from_i64(value: i64) -> Self {
        LongDouble::new(value < 0, u128::from(value.unsigned_abs()), 0, false)
    }

    /// The exact value of a double.
    pub fn from_f64(value: f64) -> Self {
        let bits = value.to_bits();
        let fraction = bits & ((1 << 52) - 1);
        let negative = value.is_sign_negative();
        match (bits >> 52 & 0x7ff) as i64 {
            0x7ff => LongDouble {
                negative,
                kind: if fraction == 0 {
                    Kind::Infinite
                } else {
                    Kind::Nan
                },
            },
            0 => LongDouble::new(negative, u128::from(fraction), -1074, false),
            biased => LongDouble::new(
                negative,
                u128::from(fraction | 1 << 52),
                biased - 1075,
                false,
            ),
        }
    }

    /// Reads a number by Redis' rules: the whole text, shorter than 5 KiB, no leading space, no NaN,
    /// not beyond the range; `inf` is read.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if matches!(text.first(), None | Some(b' ' | b'\t'..=b'\r')) || text.len() >= MAX_CHARS {
            return None;
        }
        if let Some(integer) = parse_i64(text) {
            return Some(LongDouble::from_i64(integer));
        }
        let (negative, scanned, len) = scan(text);
        if len != text.len() {
            return None;
        }
        let (value, is_zero) = match scanned {
            Scanned::Nan => return None,
            Scanned::Infinity => {
                let kind = Kind::Infinite;
                return Some(LongDouble { negative, kind });
            }
            Scanned::Hex {
                mantissa,
                exponent,
                sticky,
            } => (
                LongDouble::new(negative, mantissa, exponent, sticky),
                mantissa == 0,
            ),
            Scanned::Decimal { mantissa, exponent } => from_decimal(negative, mantissa, exponent),
        };
        match value.kind {
            Kind::Finite { mantissa, .. } if mantissa != 0 || is_zero => Some(value),
            _ => None,
        }
    }

    /// True for NaN.
    pub fn is_nan(self) -> bool {
        self.kind == Kind::Nan
    }

    /// True for both infinities.
    pub fn is_infinite(self) -> bool {
        self.kind == Kind::Infinite
    }

    fn add_finite(self, other: Self, (a, ea): (u64, i64), (b, eb): (u64, i64)) -> Self {
        // The greater magnitude comes first. One spare bit above takes the carry.
        if (eb, b) > (ea, a) {
            return other.add_finite(self, (b, eb), (a, ea));
        }
        let distance = ea - eb;
        let exponent = ea - 63;
        let high = u128::from(a) << 63;
        let low = u128::from(b) << 63;
        let (low, lost) = match u32::try_from(distance) {
            Ok(by @ 0..=127) => (low >> by, low & ((1 << by) - 1) != 0),
            _ => (0, b != 0),
        };
        if self.negative == other.negative {
            return LongDouble::new(self.negative, high + low, exponent, lost);
        }
        // What was lost of the subtrahend makes the difference smaller than the kept bits say.
        let difference = high - low - u128::from(lost);
        // An exact zero is positive.
        let negative = self.negative && difference != 0;
        LongDouble::new(negative, difference, exponent, lost)
    }

    /// Appends the number as Redis prints it for people: at most 17 decimals, no exponent, no
    /// trailing zeros, no negative zero.
    pub fn format_into(self, out: &mut Vec<u8>) {
        let (mantissa, exponent) = match self.kind {
            Kind::Finite { mantissa, exponent } => (mantissa, exponent),
            Kind::Infinite => {
                return out.extend_from_slice(if self.negative { b"-inf" } else { b"inf" });
            }
            Kind::Nan => {
                return out.extend_from_slice(if self.negative { b"-nan" } else { b"nan" });
            }
        };
        let start = out.len();
        if self.negative {
            out.push(b'-');
        }
        if exponent >= 0 {
            let mut number = BigNumber::from(u128::from(mantissa));
            number.shift_left(exponent as usize);
            number.format_into(out);
        } else {
            format_fraction(mantissa, -exponent, out);
        }
        if &out[start..] == b"-0" {
            out.remove(start);
        }
    }

    /// [`LongDouble::format_into`] as a new buffer.
    pub fn format(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        self.format_into(&mut out);
        out
    }
}

impl std::ops::Add for LongDouble {
    type Output = LongDouble;

    fn add(self, other: Self) -> Self {
        match (self.kind, other.kind) {
            (
                Kind::Finite {
                    mantissa: a,
                    exponent: ea,
                },
                Kind::Finite {
                    mantissa: b,
                    exponent: eb,
                },
            ) if a != 0 || b != 0 => self.add_finite(other, (a, ea), (b, eb)),
            (Kind::Finite { .. }, Kind::Finite { .. }) => LongDouble {
                negative: self.negative && other.negative,
                ..LongDouble::ZERO
            },
            (Kind::Nan, _) => self,
            (_, Kind::Nan) => other,
            (Kind::Infinite, Kind::Infinite) if self.negative != other.negative => LongDouble {
                negative: true,
                kind: Kind::Nan,
            },
            (Kind::Infinite, _) => self,
            (_, Kind::Infinite) => other,
        }
    }
}

/// Prints `mantissa / 2^bits` with `bits` above zero.
fn format_fraction(mantissa: u64, bits: i64, out: &mut Vec<u8>) {
    let whole = if bits < 64 { mantissa >> bits } else { 0 };
    let fraction = if bits < 64 {
        mantissa & ((1 << bits) - 1)
    } else {
        mantissa
    };
    // 64 bits times 57 bits fit in 121: beyond a shift of 127 all of it is less than half a unit.
    let scaled = u128::from(fraction) * u128::from(TEN_TO_DECIMALS);
    let mut decimals = 0;
    if bits < 128 {
        let (kept, rest) = (scaled >> bits, scaled & ((1 << bits) - 1));
        let half = 1u128 << (bits - 1);
        let up = rest > half || (rest == half && kept & 1 == 1);
        decimals = kept as u64 + u64::from(up);
    }
    let carry = decimals == TEN_TO_DECIMALS;
    let whole = u128::from(whole) + u128::from(carry);
    out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    if decimals == 0 || carry {
        return;
    }
    out.push(b'.');
    let mut digits = itoa::Buffer::new();
    // A leading one keeps the zeros that follow the point.
    let digits = digits.format(decimals + TEN_TO_DECIMALS);
    out.extend_from_slice(digits[1..].trim_end_matches('0').as_bytes());
}

/// The value of a decimal text, and whether all its digits are zeros.
fn from_decimal(negative: bool, text: &[u8], exponent: i64) -> (LongDouble, bool) {
    let point = text.iter().position(|&b| b == b'.');
    let decimals = point.map_or(0, |at| text.len() - at - 1) as i64;
    let mut exponent = exponent - decimals;
    let digits = text.iter().filter(|&&b| b != b'.').map(|b| b - b'0');
    let mut digits: Vec<u8> = digits.skip_while(|&d| d == 0).collect();
    while digits.last() == Some(&0) {
        digits.pop();
        exponent += 1;
    }
    let zero = LongDouble {
        negative,
        ..LongDouble::ZERO
    };
    if digits.is_empty() {
        return (zero, true);
    }
    let magnitude = exponent + digits.len() as i64;
    if magnitude > 4940 {
        let kind = Kind::Infinite;
        return (LongDouble { negative, kind }, false);
    }
    if magnitude < -4960 {
        return (zero, false);
    }
    (exact_decimal(negative, &digits, exponent), false)
}

fn exact_decimal(negative: bool, digits: &[u8], exponent: i64) -> LongDouble {
    const SMALL_POWER: i64 = 19;
    if digits.len() <= 19 && exponent.abs() <= SMALL_POWER {
        let number = digits.iter().fold(0u64, |n, &d| n * 10 + u64::from(d));
        let power = u128::from(10u64.pow(exponent.unsigned_abs() as u32));
        if exponent >= 0 {
            return LongDouble::new(negative, u128::from(number) * power, 0, false);
        }
        // The quotient keeps at least 64 bits, by halves of 64 bits: the top one, then the rest.
        let zeros = number.leading_zeros();
        let dividend = u128::from(number) << 64 << zeros;
        let (quotient, rest) = (dividend / power, dividend % power);
        if quotient >> 66 != 0 {
            let exponent = -64 - i64::from(zeros);
            return LongDouble::new(negative, quotient, exponent, rest != 0);
        }
    }
    let mut number = BigNumber::from(0);
    for digit in digits {
        number.multiply_add(10, u32::from(*digit));
    }
    let (mut shift, mut sticky) = (0, false);
    if exponent >= 0 {
        for _ in 0..exponent {
            number.multiply_add(10, 0);
        }
    } else {
        // Dividing by 10^n leaves 128 bits or more: the shift adds more than the division takes.
        shift = 160 + exponent.unsigned_abs() as usize * 10 / 3;
        number.shift_left(shift);
        let mut left = exponent.unsigned_abs();
        while left > 0 {
            let step = left.min(9) as u32;
            sticky |= number.divide(10u32.pow(step)) != 0;
            left -= u64::from(step);
        }
    }
    let (top, exponent, lost) = number.top_bits();
    LongDouble::new(negative, top, exponent - shift as i64, sticky || lost)
}

/// A natural number of any size: 32-bit limbs, the least significant first, no zero limb on top.
struct BigNumber {
    limbs: Vec<u32>,
}

impl BigNumber {
    fn from(mut value: u128) -> Self {
        let mut limbs = Vec::new();
        while value != 0 {
            limbs.push(value as u32);
            value >>= 32;
        }
        BigNumber { limbs }
    }

    fn multiply_add(&mut self, factor: u32, add: u32) {
        let mut carry = u64::from(add);
        for limb in &mut self.limbs {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            self.limbs.push(carry as u32);
        }
    }

    /// Divides in place and gives the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut rest = 0u64;
        for limb in self.limbs.iter_mut().rev() {
            let part = rest << 32 | u64::from(*limb);
            *limb = (part / u64::from(divisor)) as u32;
            rest = part % u64::from(divisor);
        }
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
        rest as u32
    }

    fn shift_left(&mut self, bits: usize) {
        if self.limbs.is_empty() {
            return;
        }
        self.multiply_add(1 << (bits % 32), 0);
        self.limbs.splice(0..0, std::iter::repeat_n(0, bits / 32));
    }

    /// The four highest limbs, the exponent of their last bit, and whether a lower bit is set.
    fn top_bits(&self) -> (u128, i64, bool) {
        let below = self.limbs.len().saturating_sub(4);
        let (low, high) = self.limbs.split_at(below);
        let top = high
            .iter()
            .rev()
            .fold(0, |top, &limb| top << 32 | u128::from(limb));
        (top, below as i64 * 32, low.iter().any(|&limb| limb != 0))
    }

    fn format_into(mut self, out: &mut Vec<u8>) {
        if self.limbs.is_empty() {
            return out.push(b'0');
        }
        let mut parts = Vec::new();
        while !self.limbs.is_empty() {
            parts.push(self.divide(1_000_000_000));
        }
        let mut buffer = itoa::Buffer::new();
        let first = parts.pop().unwrap_or(0);
        out.extend_from_slice(buffer.format(first).as_bytes());
        for part in parts.iter().rev() {
            out.extend_from_slice(&buffer.format(part + 1_000_000_000).as_bytes()[1..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, expected: &str) {
        let sum =
            LongDouble::parse(a.as_bytes()).expect(a) + LongDouble::parse(b.as_bytes()).expect(b);
        assert_eq!(
            String::from_utf8(sum.format()).unwrap(),
            expected,
            "{a} + {b}"
        );
    }

    #[test]
    fn adds_as_the_processor_does() {
        check("0.1", "0.2", "0.3");
        check("10.50", "0.1", "10.6");
        check("5.0e3", "2.0e2", "5200");
        check("1", "-1", "0");
        check("-0.5", "0.5", "0");
        check("3", "1.5e-30", "3");
        check("-1e-30", "0", "0");
        check("1e20", "0.5", "100000000000000000000");
        check("0x1p-18", "0", "0.00000381469726562");
        check("0x3p-18", "0", "0.00001144409179688");
        check("0.99999999999999999", "0.00000000000000001", "1");
        check("18446744073709551615", "0", "18446744073709551615");
        check("18446744073709551617", "0", "18446744073709551616");
    }

    /// What a Redis 7.0.15 on x86-64 answers: the value of a key, the increment, and the sum; `!`
    /// for an error.
    #[test]
    fn agrees_with_redis() {
        for case in include_str!("long_double_cases.txt").lines() {
            let parts: Vec<&str> = case.split('|').collect();
            let [a, b, expected] = parts[..] else {
                panic!("not a case: {case}");
            };
            let sum = LongDouble::parse(a.as_bytes())
                .zip(LongDouble::parse(b.as_bytes()))
                .map(|(a, b)| a + b)
                .filter(|sum| !sum.is_nan() && !sum.is_infinite());
            let got = sum.map_or(b"!".to_vec(), LongDouble::format);
            assert_eq!(String::from_utf8_lossy(&got), expected, "{case}");
        }
    }

    #[test]
    fn refuses_what_redis_refuses() {
        for text in [
            "",
            " 1",
            "1 ",
            "nan",
            "1e5000",
            "-1e5000",
            "1e-5000",
            "abc",
            "1e",
            "0x1p-16446",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(LongDouble::parse(&[b'1'; MAX_CHARS]), None);
        let infinity = LongDouble::parse(b"inf").expect("inf is read");
        let minus = LongDouble::parse(b"-inf").expect("-inf is read");
        assert!((infinity + infinity).is_infinite() && (infinity + minus).is_nan());
        let greatest = LongDouble::parse(b"1.18973149535723176502e4932").expect("in range");
        assert!((greatest + greatest).is_infinite());
        assert_eq!(
            LongDouble::parse(b"1.18973149535723176508575932662800702e4932"),
            None
        );
        assert!(LongDouble::parse(b"3.6e-4951").is_some());
    }
}
