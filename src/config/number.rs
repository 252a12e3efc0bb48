//! Numbers as `redis.conf` writes them: memory sizes with units, octal, decimals. Plain integers are
//! in [`crate::base::number`].
//!
//! The readers accept exactly what the C functions behind Redis' configuration accept, quirks
//! included (a memory size wraps on overflow, an octal number may have a sign), because a file that
//! starts a Redis has to start this server with the same values. Nothing here knows a parameter.

/// A memory size in bytes: digits and one of the units `b k kb m mb g gb` in any case, where `k` is
/// 1000 and `kb` is 1024. No digits mean 0; digits beyond 64 bits saturate; the unit wraps.
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    let text = c_string(text);
    let split = text
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    if text.first() == Some(&b'-') || digits.len() >= 128 {
        return None;
    }
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let value = digits.iter().fold(0u64, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Some(value.wrapping_mul(factor))
}

/// Writes `bytes` with the largest of the units `gb mb kb` that divides it, as CONFIG REWRITE does.
pub fn format_memory(bytes: u64) -> String {
    for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// C's `strtoll` followed by the check that nothing is left: leading white space and a sign are
/// accepted, no digits at all only as the empty text. `None` when something is left over or the
/// text overflows and `saturate` is false.
pub fn parse_c_integer(text: &[u8], radix: u32, saturate: bool) -> Option<i64> {
    let text = c_string(text);
    if text.is_empty() {
        return Some(0);
    }
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i128 = 0;
    for &digit in digits {
        let digit = char::from(digit).to_digit(radix)?;
        value = (value * i128::from(radix) + i128::from(digit)).min(1 << 65);
    }
    let value = if negative { -value } else { value };
    match i64::try_from(value) {
        Ok(value) => Some(value),
        Err(_) if !saturate => None,
        Err(_) if negative => Some(i64::MIN),
        Err(_) => Some(i64::MAX),
    }
}

/// A decimal number; `None` for anything else, NaN included.
pub fn parse_decimal(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// Six decimals without the zeros at the end: `99.9`, `50`.
pub fn format_decimal(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0');
    text.trim_end_matches('.').to_owned()
}

/// The part of `text` that a C string would hold: everything before the first zero byte.
pub fn c_string(text: &[u8]) -> &[u8] {
    text.split(|&b| b == 0).next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory() {
        for (text, expected) in [
            ("1", Some(1)),
            ("1b", Some(1)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("2m", Some(2_000_000)),
            ("2mb", Some(2 << 20)),
            ("3G", Some(3_000_000_000)),
            ("3gB", Some(3 << 30)),
            ("", Some(0)),
            ("kb", Some(0)),
            ("99999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("5%", None),
            ("1tb", None),
            ("1 kb", None),
            (" 1", None),
        ] {
            assert_eq!(parse_memory(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(parse_memory(&[b'1'; 128]), None);
        assert_eq!(format_memory(0), "0");
        assert_eq!(format_memory(1 << 20), "1mb");
        assert_eq!(format_memory(3 << 30), "3gb");
        assert_eq!(format_memory(1025), "1025");
    }

    #[test]
    fn c_integers() {
        assert_eq!(parse_c_integer(b" 12", 10, true), Some(12));
        assert_eq!(parse_c_integer(b"12 ", 10, true), None);
        assert_eq!(parse_c_integer(b"", 10, true), Some(0));
        assert_eq!(parse_c_integer(b"-", 10, true), None);
        assert_eq!(parse_c_integer(b"770", 8, false), Some(0o770));
        assert_eq!(parse_c_integer(b"8", 8, false), None);
        let huge = b"99999999999999999999999999999999999999999999999999";
        assert_eq!(parse_c_integer(huge, 10, false), None);
        assert_eq!(parse_c_integer(huge, 10, true), Some(i64::MAX));
    }

    #[test]
    fn decimals() {
        assert_eq!(format_decimal(99.9), "99.9");
        assert_eq!(format_decimal(100.0), "100");
        assert_eq!(parse_decimal(b"nan"), None);
        assert_eq!(parse_decimal(b"12.5"), Some(12.5));
        assert_eq!(parse_decimal(b" 1"), None);
    }
}
