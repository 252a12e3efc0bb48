//! Quoting: how Redis writes arbitrary bytes as text, and how it splits a line into arguments.
//!
//! The same rules serve inline commands, `redis.conf`, MONITOR, SLOWLOG and `CONFIG REWRITE`.

/// The bytes before the first zero byte. Redis reads some arguments as C strings, so that what
/// follows a zero neither counts nor is quoted.
pub fn before_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

/// Appends `bytes` in double quotes with the escapes that [`split_args`] reads back:
/// `\\ \" \n \r \t \a \b` and `\xHH` for everything that is not printable ASCII.
pub fn quote_into(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    out.push(b'"');
}

/// [`quote_into`] as a new buffer.
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 2);
    quote_into(&mut out, bytes);
    out
}

/// True when `bytes` would not survive [`split_args`] unquoted as one argument.
pub fn needs_quoting(bytes: &[u8]) -> bool {
    bytes.is_empty()
        || bytes.iter().any(|&b| {
            matches!(
                b,
                b'\\' | b'"' | b'\'' | b'\n' | b'\r' | b'\t' | 0x07 | 0x08 | b' ' | 0x80..
            ) || !(0x20..0x7f).contains(&b)
        })
}

/// Splits a line into arguments by the rules of `redis-cli`, inline commands and `redis.conf`.
///
/// Double quotes understand `\n \r \t \b \a \xHH` and `\` before any other byte; single quotes
/// only `\'`. `None` when a quote is left open or a closing quote is not followed by a space.
pub fn split_args(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest
            && is_space(*first)
        {
            rest = tail;
        }
        if rest.is_empty() || rest[0] == 0 {
            return Some(args);
        }
        let (arg, tail) = split_one(rest)?;
        args.push(arg);
        rest = tail;
    }
}

/// C's `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn split_one(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut arg = Vec::new();
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => return Some((arg, rest)),
            [b'"', tail @ ..] => rest = double_quoted(tail, &mut arg)?,
            [b'\'', tail @ ..] => rest = single_quoted(tail, &mut arg)?,
            [byte, tail @ ..] => {
                arg.push(*byte);
                rest = tail;
                continue;
            }
        }
        // A closing quote ends the argument: only a space or the end may follow.
        return match rest {
            [] => Some((arg, rest)),
            [byte, ..] if is_space(*byte) || *byte == 0 => Some((arg, rest)),
            _ => None,
        };
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'"', tail @ ..] => return Some(tail),
            [b'\\', b'x', hi, lo, tail @ ..]
                if hi.is_ascii_hexdigit() && lo.is_ascii_hexdigit() =>
            {
                arg.push(hex(*hi) << 4 | hex(*lo));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                rest = tail;
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                rest = tail;
            }
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return None,
            [b'\'', tail @ ..] => return Some(tail),
            [b'\\', b'\'', tail @ ..] => {
                arg.push(b'\'');
                rest = tail;
            }
            [byte, tail @ ..] => {
                arg.push(*byte);
                rest = tail;
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// A number of bytes as Redis writes it for people: `1.50M`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 5] = [(50, "P"), (40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = UNITS.iter().find(|(shift, _)| bytes >= 1 << shift);
    match unit {
        Some((shift, letter)) => format!("{:.2}{letter}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<&[&[u8]]>) {
        let got = split_args(line.as_bytes());
        let expected = expected.map(|args| args.iter().map(|a| a.to_vec()).collect::<Vec<_>>());
        assert_eq!(got, expected, "{line:?}");
    }

    #[test]
    fn splits_as_redis_does() {
        check("", Some(&[]));
        check("  a  b\tc\r\n", Some(&[b"a", b"b", b"c"]));
        check(r#"set "a b" 'it\'s'"#, Some(&[b"set", b"a b", b"it's"]));
        check(r#""\x41\n\q""#, Some(&[b"A\nq"]));
        check(r#"pre"quoted""#, Some(&[b"prequoted"]));
        check(r#""a"b"#, None);
        check(r#""open"#, None);
        check("'open", None);
        check(r#""""#, Some(&[b""]));
    }

    #[test]
    fn quoting_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(split_args(&quote(&all)), Some(vec![all]));
        assert_eq!(quote(b"a\"\x01\n"), b"\"a\\\"\\x01\\n\"");
        assert!(needs_quoting(b"") && needs_quoting(b"a b") && !needs_quoting(b"a:b"));
    }
}
