//! Numbers as text, exactly as Redis reads and prints them.
//!
//! A string is an integer to Redis only when printing that integer gives the same bytes back: no
//! plus sign, no leading zeros, no spaces. Doubles are printed as C's `%.17g`.

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
        format_g17_slow(out, value);
    }
}

fn format_g17_slow(out: &mut Vec<u8>, value: f64) {
    // "d.dddddddddddddddde[-]xxx": seventeen correctly rounded digits and the decimal exponent.
    let text = format!("{:.16e}", value.abs());
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
        0..=16 => {
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
