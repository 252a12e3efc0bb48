//! Numbers as text, exactly as Redis reads and prints them.
//!
//! A string is an integer to Redis only when printing that integer gives the same bytes back: no
//! plus sign, no leading zeros, no spaces. Doubles are printed as C's `%.17g` in replies
//! ([`format_g17`]) and with integers written out where they are stored ([`format_double`]).

pub use super::strtod::{parse_f64, strtod};

/// Reads a decimal `i64` that is in canonical form: what `string2ll` accepts.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    match text {
        [b'-', b'1'..=b'9', ..] => {
            let magnitude = parse_u64(&text[1..])?;
            (magnitude <= 1 << 63).then(|| (magnitude as i64).wrapping_neg())
        }
        _ => i64::try_from(parse_u64(text)?).ok(),
    }
}

/// Reads a decimal `u64` in canonical form (no sign, no leading zeros).
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.len() > 20 || (text.len() > 1 && text[0] == b'0') {
        return None;
    }
    let (&first, rest) = text.split_first()?;
    if !first.is_ascii_digit() {
        return None;
    }
    let mut value = u64::from(first - b'0');
    // Nineteen digits cannot overflow 64 bits; only the twentieth needs care.
    let (safe, last) = rest.split_at(rest.len().min(18));
    for &byte in safe {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    for &byte in last {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// The number that `text` begins with, as C's `strtol` reads it: blanks before it are passed over, and
/// where none begins it is 0. `None` for one that is too great.
pub fn leading_i64(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii_start();
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let mut digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits.try_fold(0i64, |number, digit| {
        let digit = sign * i64::from(digit - b'0');
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Number of characters of `n` in decimal, its sign included.
pub fn digits10(n: i64) -> usize {
    let sign = usize::from(n < 0);
    sign + n.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1
}

/// Appends `value` as C's `%.17g` prints it.
pub fn format_g17(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 1e17;
    if value.is_nan() {
        // glibc prints the sign of a NaN too.
        out.extend_from_slice(if value.is_sign_negative() {
            b"-nan"
        } else {
            b"nan"
        });
    } else if value.is_infinite() {
        out.extend_from_slice(if value < 0.0 { b"-inf" } else { b"inf" });
    } else if value.abs() < EXACT && value.trunc() == value {
        if value == 0.0 && value.is_sign_negative() {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        format_g(out, value, 17);
    }
}

/// Appends a finite `value` as C's `%.*g` prints it, with `precision` (1 to 17) digits.
pub fn format_g(out: &mut Vec<u8>, value: f64, precision: usize) {
    // "d.dddddddddddddddde[-]xxx": correctly rounded digits and the decimal exponent.
    let text = format!("{:.*e}", precision.max(1) - 1, value.abs());
    let (mantissa, exponent) = text
        .split_once('e')
        .expect("{:e} always prints an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} prints a decimal exponent");
    let mut digits: Vec<u8> = mantissa.bytes().filter(|&b| b != b'.').collect();
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    match exponent {
        -4..=-1 => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
            out.extend_from_slice(&digits);
        }
        0.. if (exponent as usize) < precision => {
            let whole = exponent as usize + 1;
            if digits.len() < whole {
                digits.resize(whole, b'0');
            }
            out.extend_from_slice(&digits[..whole]);
            if digits.len() > whole {
                out.push(b'.');
                out.extend_from_slice(&digits[whole..]);
            }
        }
        _ => {
            out.push(digits[0]);
            if digits.len() > 1 {
                out.push(b'.');
                out.extend_from_slice(&digits[1..]);
            }
            let sign = if exponent < 0 { '-' } else { '+' };
            out.extend_from_slice(format!("e{sign}{:02}", exponent.abs()).as_bytes());
        }
    }
}

/// Appends `value` as Redis stores doubles as text: integers up to half the range of `i64` are
/// written out, the rest is C's `%.17g`; NaN has no sign.
pub fn format_double(out: &mut Vec<u8>, value: f64) {
    const LIMIT: f64 = (i64::MAX / 2) as f64;
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else if value != 0.0 && value.abs() <= LIMIT && value.trunc() == value {
        format_i64(out, value as i64);
    } else {
        format_g17(out, value);
    }
}

/// Appends `value` with exactly `decimals` (1 to 17) decimals as Redis prints distances: scaled to an
/// integer in double arithmetic, rounded to even, saturating to the least `i64`.
pub fn format_fixed(out: &mut Vec<u8>, value: f64, decimals: u32) {
    let decimals = decimals.clamp(1, 17);
    let scaled = (value * 10f64.powi(decimals as i32)).round_ties_even();
    let in_range = (i64::MIN as f64..-(i64::MIN as f64)).contains(&scaled);
    // The processor's conversion gives the least integer for everything it cannot represent.
    let scaled = if in_range { scaled as i64 } else { i64::MIN };
    if scaled < 0 {
        out.push(b'-');
    }
    let (scale, magnitude) = (10u64.pow(decimals), scaled.unsigned_abs());
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(magnitude / scale).as_bytes());
    out.push(b'.');
    // A leading one keeps the zeros that follow the point.
    out.extend_from_slice(&digits.format(magnitude % scale + scale).as_bytes()[1..]);
}

/// Appends the decimal text of `value`.
#[inline]
pub fn format_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_with_their_digits() {
        for (text, number) in [
            ("12", Some(12)),
            (" +012x3", Some(12)),
            ("-9223372036854775808,", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", Some(0)),
            ("-", Some(0)),
            ("- 1", Some(0)),
            ("x1", Some(0)),
        ] {
            assert_eq!(leading_i64(text.as_bytes()), number, "{text}");
        }
    }

    #[test]
    fn integers_are_canonical() {
        let ok = [
            ("0", 0),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in ok {
            assert_eq!(parse_i64(text.as_bytes()), Some(value));
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-01",
            " 1",
            "1 ",
            "1a",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "18446744073709551616",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"123456789012345678901"), None);
        assert_eq!(
            [0, 9, 10, -1, i64::MAX, i64::MIN].map(digits10),
            [1, 1, 2, 2, 19, 20]
        );
    }

    #[track_caller]
    fn check(value: f64, g17: &str, stored: &str) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        format_g17(&mut a, value);
        format_double(&mut b, value);
        assert_eq!(
            (str::from_utf8(&a), str::from_utf8(&b)),
            (Ok(g17), Ok(stored))
        );
    }

    #[test]
    fn doubles_print_as_c_prints_them() {
        check(0.0, "0", "0");
        check(-0.0, "-0", "-0");
        check(0.1, "0.10000000000000001", "0.10000000000000001");
        check(3.5, "3.5", "3.5");
        check(-1e16, "-10000000000000000", "-10000000000000000");
        check(1e17, "1e+17", "100000000000000000");
        check(1e19, "1e+19", "1e+19");
        check(
            1.5e300,
            "1.5000000000000001e+300",
            "1.5000000000000001e+300",
        );
        check(0.0001, "0.0001", "0.0001");
        check(0.00001, "1.0000000000000001e-05", "1.0000000000000001e-05");
        check(5e-324, "4.9406564584124654e-324", "4.9406564584124654e-324");
        check(123456.789, "123456.789", "123456.789");
        check(99999999999999999.0, "1e+17", "100000000000000000");
        check(f64::INFINITY, "inf", "inf");
        check(f64::NEG_INFINITY, "-inf", "-inf");
    }

    #[test]
    fn fixed_decimals() {
        for (value, expected) in [
            (0.0, "0.0000"),
            (166_274.151_569_6, "166274.1516"),
            (-0.7750, "-0.7750"),
            (0.00001, "0.0000"),
            (12.0, "12.0000"),
        ] {
            let mut out = Vec::new();
            format_fixed(&mut out, value, 4);
            assert_eq!(str::from_utf8(&out), Ok(expected));
        }
    }
}
