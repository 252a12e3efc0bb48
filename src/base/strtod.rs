//! Reading floating point numbers by the rules of C's `strtod` and `strtold`.
//!
//! [`scan`] finds the longest prefix that is a number: decimal or hexadecimal (`0x1.8p3`), `inf`,
//! `infinity`, `nan`, in any case, with a sign. What it finds is turned into a double here and into
//! an 80-bit long double by [`super::long_double`], both correctly rounded.
//!
//! [`parse_f64`] adds what Redis refuses: leading spaces, trailing bytes, NaN, and numbers too big or
//! too small for a double.

/// The value that [`scan`] found, without its sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scanned<'a> {
    /// `inf` or `infinity`.
    Infinity,
    /// `nan`.
    Nan,
    /// A decimal number: the text without sign, and the positions of its parts.
    Decimal {
        /// Digits with at most one `.`.
        mantissa: &'a [u8],
        /// The exponent of ten, saturated.
        exponent: i64,
    },
    /// `mantissa * 2^exponent`, and a little more when `sticky`.
    Hex {
        /// The leading 125 significant bits or more; all of them when there are fewer.
        mantissa: u128,
        /// The exponent of two, saturated.
        exponent: i64,
        /// Digits that are not zero were cut off.
        sticky: bool,
    },
}

/// Finds the number at the start of `text`: negative, value and length in bytes; length 0 when there
/// is none. Leading white space is skipped and counts.
pub fn scan(text: &[u8]) -> (bool, Scanned<'_>, usize) {
    let spaces = text
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'..=b'\r'))
        .count();
    let mut at = spaces;
    let negative = text.get(at) == Some(&b'-');
    if matches!(text.get(at), Some(b'-' | b'+')) {
        at += 1;
    }
    let rest = &text[at..];
    let word =
        |word: &[u8]| rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word);
    if word(b"infinity") {
        return (negative, Scanned::Infinity, at + 8);
    }
    if word(b"inf") {
        return (negative, Scanned::Infinity, at + 3);
    }
    if word(b"nan") {
        return (negative, Scanned::Nan, at + 3);
    }
    let (value, len) = if word(b"0x") {
        scan_hex(rest).unwrap_or_else(|| scan_decimal(rest))
    } else {
        scan_decimal(rest)
    };
    (negative, value, if len == 0 { 0 } else { at + len })
}

/// Counts the bytes of digits with at most one point; 0 when there is no digit.
fn mantissa_len(text: &[u8], is_digit: fn(&u8) -> bool) -> usize {
    let (mut len, mut digits, mut point) = (0, 0, false);
    for byte in text {
        if is_digit(byte) {
            digits += 1;
        } else if *byte == b'.' && !point {
            point = true;
        } else {
            break;
        }
        len += 1;
    }
    if digits == 0 { 0 } else { len }
}

/// Reads an exponent (`e+12`) whose letter is `letter`: its value, saturated, and length; 0 and 0
/// when there is none.
fn scan_exponent(text: &[u8], letter: u8) -> (i64, usize) {
    let [first, rest @ ..] = text else {
        return (0, 0);
    };
    if !first.eq_ignore_ascii_case(&letter) {
        return (0, 0);
    }
    let (negative, rest, mut len) = match rest {
        [b'-', rest @ ..] => (true, rest, 2),
        [b'+', rest @ ..] => (false, rest, 2),
        _ => (false, rest, 1),
    };
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return (0, 0);
    }
    len += digits;
    let value = rest[..digits].iter().fold(0i64, |value, byte| {
        (value * 10 + i64::from(byte - b'0')).min(1 << 40)
    });
    (if negative { -value } else { value }, len)
}

fn scan_decimal(text: &[u8]) -> (Scanned<'_>, usize) {
    let len = mantissa_len(text, u8::is_ascii_digit);
    let mantissa = &text[..len];
    let (exponent, more) = if len == 0 {
        (0, 0)
    } else {
        scan_exponent(&text[len..], b'e')
    };
    (Scanned::Decimal { mantissa, exponent }, len + more)
}

fn scan_hex(text: &[u8]) -> Option<(Scanned<'_>, usize)> {
    let digits = &text[2..];
    let len = mantissa_len(digits, u8::is_ascii_hexdigit);
    if len == 0 {
        return None;
    }
    let (mut mantissa, mut exponent, mut sticky, mut point) = (0u128, 0i64, false, false);
    for &byte in &digits[..len] {
        if byte == b'.' {
            point = true;
            continue;
        }
        let digit = char::from(byte).to_digit(16).unwrap_or(0);
        if mantissa >> 124 == 0 {
            mantissa = mantissa << 4 | u128::from(digit);
            exponent -= if point { 4 } else { 0 };
        } else {
            sticky |= digit != 0;
            exponent += if point { 0 } else { 4 };
        }
    }
    let (power, more) = scan_exponent(&digits[len..], b'p');
    let value = Scanned::Hex {
        mantissa,
        exponent: exponent + power,
        sticky,
    };
    Some((value, 2 + len + more))
}

/// C's `strtod`: the number at the start of `text` and its length in bytes, 0 when there is none.
///
/// Numbers too big become infinite and numbers too small zero.
pub fn strtod(text: &[u8]) -> (f64, usize) {
    let (negative, value, len) = scan(text);
    let magnitude = match value {
        _ if len == 0 => return (0.0, 0),
        Scanned::Infinity => f64::INFINITY,
        Scanned::Nan => f64::NAN,
        Scanned::Hex {
            mantissa,
            exponent,
            sticky,
        } => hex_to_f64(mantissa, exponent, sticky),
        Scanned::Decimal { .. } => {
            let start = text[..len]
                .iter()
                .position(|b| b.is_ascii_digit() || *b == b'.')
                .unwrap_or(0);
            // Rust reads every decimal text of this form, correctly rounded.
            str::from_utf8(&text[start..len])
                .ok()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0.0)
        }
    };
    (if negative { -magnitude } else { magnitude }, len)
}

/// Reads a double by Redis' rules: the whole text, no spaces, no NaN, and not beyond the range.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    if matches!(text.first(), None | Some(b' ' | b'\t'..=b'\r')) {
        return None;
    }
    let (value, len) = strtod(text);
    if len != text.len() || value.is_nan() {
        return None;
    }
    let (_, scanned, _) = scan(text);
    let out_of_range = match scanned {
        Scanned::Infinity | Scanned::Nan => false,
        _ if value.is_infinite() => true,
        Scanned::Decimal { mantissa, .. } => {
            value == 0.0 && mantissa.iter().any(|b| matches!(b, b'1'..=b'9'))
        }
        Scanned::Hex { mantissa, .. } => value == 0.0 && mantissa != 0,
    };
    (!out_of_range).then_some(value)
}

/// Rounds `mantissa * 2^exponent` (plus a little when `sticky`) to `precision` bits, ties to even,
/// with no exponent below `min_exponent`. A zero mantissa gives zero.
pub(super) fn round_bits(
    mantissa: u128,
    exponent: i64,
    sticky: bool,
    precision: u32,
    min_exponent: i64,
) -> (u64, i64) {
    if mantissa == 0 {
        return (0, min_exponent);
    }
    let zeros = mantissa.leading_zeros();
    let (mantissa, exponent) = (mantissa << zeros, exponent - i64::from(zeros));
    let shift = i64::from(128 - precision).max(min_exponent - exponent);
    if shift > 128 {
        return (0, min_exponent);
    }
    let shift = shift as u32;
    let kept = mantissa.checked_shr(shift).unwrap_or(0);
    let half = 1u128 << (shift - 1);
    let rest = mantissa & (half | (half - 1));
    let up = rest > half || (rest == half && (sticky || kept & 1 == 1));
    let kept = kept as u64;
    let exponent = exponent + i64::from(shift);
    if !up {
        return (kept, exponent);
    }
    let limit = 1u128 << precision;
    if u128::from(kept) + 1 == limit {
        ((limit >> 1) as u64, exponent + 1)
    } else {
        (kept + 1, exponent)
    }
}

fn hex_to_f64(mantissa: u128, exponent: i64, sticky: bool) -> f64 {
    const MIN_EXPONENT: i64 = -1074;
    let (mantissa, exponent) = round_bits(mantissa, exponent, sticky, 53, MIN_EXPONENT);
    if mantissa == 0 {
        0.0
    } else if exponent > 971 {
        f64::INFINITY
    } else if mantissa >> 52 == 0 {
        f64::from_bits(mantissa)
    } else {
        let biased = (exponent - MIN_EXPONENT + 1) as u64;
        f64::from_bits(biased << 52 | (mantissa & ((1 << 52) - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<f64>) {
        let got = parse_f64(text.as_bytes());
        assert_eq!(
            got.map(f64::to_bits),
            expected.map(f64::to_bits),
            "{text:?} {got:?}"
        );
    }

    #[test]
    fn parses_what_redis_parses() {
        check("1", Some(1.0));
        check("+1.5", Some(1.5));
        check("-.5e1", Some(-5.0));
        check("1.", Some(1.0));
        check("-0", Some(-0.0));
        check("0x10", Some(16.0));
        check("0x1.8p3", Some(12.0));
        check("-0X.8P1", Some(-1.0));
        check("0x1p-1074", Some(5e-324));
        check("0x1.fffffffffffff8p0", Some(2.0));
        check("0x1.fffffffffffff7p0", Some(1.9999999999999998));
        check("0x1p1024", None);
        check("0x1p-1075", None);
        check("0x1.1p-1075", Some(5e-324));
        check("inf", Some(f64::INFINITY));
        check("-Infinity", Some(f64::NEG_INFINITY));
        check("5e-324", Some(5e-324));
        check("0e99999999999999999999", Some(0.0));
        for text in [
            "", " 1", "1 ", "nan", "-nan", "1e400", "1e-400", "1e", "0x", "0x1p", ".", "e1",
        ] {
            check(text, None);
        }
        for text in [
            "--1",
            "1..2",
            "infi",
            "1,5",
            "1\0",
            "0x1.g",
            "+-1",
            "1e99999999999999999999",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn strtod_reads_a_prefix() {
        assert_eq!(strtod(b"  12abc"), (12.0, 4));
        assert_eq!(strtod(b"1e+"), (1.0, 1));
        assert_eq!(strtod(b"0xg"), (0.0, 1));
        assert_eq!(strtod(b"infinit"), (f64::INFINITY, 3));
        assert_eq!(strtod(b"-"), (0.0, 0));
        assert_eq!(strtod(b"1e999"), (f64::INFINITY, 5));
    }
}
