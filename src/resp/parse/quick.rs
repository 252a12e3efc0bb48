//! The common forms of requests and their headers, each read at one go: the very bytes that
//! [`crate::resp::write::request`] writes.
//!
//! What is not in such a form, errors included, or not there as a whole, is left to the general way
//! by `None`, with nothing consumed.

use super::{Arg, Limits};

/// Most arguments of a request that is read in one go.
const QUICK_ARGS: i64 = 1024;

/// Reads a request that lies in the input as a whole and in its common form. Gives the index past
/// it; `None` leaves all else, errors included, to the general way, with `args` empty.
#[inline(always)]
pub(super) fn quick_request(
    input: &[u8],
    start: usize,
    limits: &Limits,
    args: &mut Vec<Arg>,
) -> Option<usize> {
    if !limits.authenticated {
        return None;
    }
    let (count, mut at) = match short_line(input, start, b'*') {
        Some(read) => read,
        None if *input.get(start)? != b'*' => return None,
        None => quick_number(input, start + 1)?,
    };
    if !(1..=QUICK_ARGS).contains(&count) {
        return None;
    }
    args.reserve(count as usize);
    for _ in 0..count {
        let bulk = quick_bulk(input, at, limits);
        let Some((start, end)) = bulk else {
            args.clear();
            return None;
        };
        args.push(Arg::Range { start, end });
        at = end + 2;
    }
    Some(at)
}

/// The range of a bulk whose header stands at `at`, if all of it is there.
#[inline(always)]
fn quick_bulk(input: &[u8], at: usize, limits: &Limits) -> Option<(usize, usize)> {
    let (len, start) = match short_line(input, at, b'$') {
        Some(read) => read,
        None if *input.get(at)? != b'$' => return None,
        None => quick_number(input, at + 1)?,
    };
    let end = start + len as usize;
    let ends = input.get(end..)?.first_chunk() == Some(b"\r\n");
    (ends && len as u64 <= limits.max_bulk_len).then_some((start, end))
}

/// Reads a header line of one or two digits, as nearly all are, at one go: the number and the index
/// past the line. `None` leaves all else to [`quick_number`], the last few bytes of the input
/// included.
#[inline(always)]
fn short_line(input: &[u8], at: usize, mark: u8) -> Option<(i64, usize)> {
    let word = u64::from_le_bytes(*input.get(at..)?.first_chunk()?);
    let (first, second) = ((word >> 8) as u8, (word >> 16) as u8);
    let (first, second) = (first.wrapping_sub(b'0'), second.wrapping_sub(b'0'));
    // Mark, a digit, CR, LF; or one more digit.
    if word & 0xffff_00ff == 0x0a0d_0000 | u64::from(mark) && first <= 9 {
        return Some((i64::from(first), at + 4));
    }
    let two = word & 0xff_ff00_00ff == 0x0a_0d00_0000 | u64::from(mark);
    (two && (1..=9).contains(&first) && second <= 9)
        .then(|| (i64::from(first) * 10 + i64::from(second), at + 5))
}

/// Reads the number of a header line in its common form: digits in canonical form, then `\r\n`.
/// Gives the number and the index past the line; `None` leaves all else, errors included, to the
/// general way.
pub(super) fn quick_number(input: &[u8], at: usize) -> Option<(i64, usize)> {
    let rest = input.get(at..)?;
    let mut number: i64 = 0;
    for (i, &byte) in rest.iter().enumerate().take(18) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let canonical = i == 1 || (i > 1 && rest[0] != b'0');
            return (byte == b'\r' && canonical && rest.get(i + 1) == Some(&b'\n'))
                .then_some((number, at + i + 2));
        }
        number = number * 10 + i64::from(digit);
    }
    None
}

/// Splits an inline request without quotes; the same as [`crate::base::text::split_args`], but without copies.
pub(super) fn split_plain(line: &[u8], offset: usize, args: &mut Vec<Arg>) {
    let mut at = 0;
    while at < line.len() {
        if matches!(line[at], b' ' | b'\t'..=b'\r') {
            at += 1;
            continue;
        }
        // Vertical tab and form feed are skipped before an argument but do not end one.
        let len = line[at..]
            .iter()
            .position(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t'))
            .unwrap_or(line.len() - at);
        args.push(Arg::Range {
            start: offset + at,
            end: offset + at + len,
        });
        at += len;
    }
}
