//! Finds where requests end in the bytes that another server sends, without copying them: what is passed on
//! must lie in one piece.
//!
//! Resumable: of a request of a million arguments that trickles in, each byte is looked at once.

use std::ops::Range;

use crate::base::number;

/// Longest line of a header, or request without a header, in bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// The stream is no sequence of requests.
#[derive(Debug, PartialEq, Eq)]
pub struct Corrupt;

/// Where in a request that is not there as a whole the search goes on; counted from its first byte.
#[derive(Debug, Default)]
pub struct Frame {
    at: usize,
    /// Arguments that are to come; `None` before the header.
    missing: Option<u64>,
}

impl Frame {
    /// True at the start of a request.
    pub fn is_idle(&self) -> bool {
        self.at == 0
    }

    /// The end of the request at the start of `input`; `None` while it is not there. The same bytes, and
    /// more, are to be shown again then.
    ///
    /// # Errors
    /// The bytes are no requests.
    pub fn end(&mut self, input: &[u8]) -> Result<Option<usize>, Corrupt> {
        loop {
            if self.missing == Some(0) {
                let end = self.at;
                *self = Self::default();
                return Ok(Some(end));
            }
            let Some(line) = line(input, self.at)? else {
                return Ok(None);
            };
            let next = line.end + 1;
            let text = input[line].strip_suffix(b"\r").ok_or(Corrupt);
            match self.missing {
                None if input[self.at] != b'*' => {
                    // A request without a header: words on a line, or an empty one.
                    self.at = next;
                    self.missing = Some(0);
                }
                None => {
                    self.missing = Some(count(text?, b'*')?);
                    self.at = next;
                }
                Some(missing) => {
                    let end = (next as u64).checked_add(count(text?, b'$')? + 2);
                    let end = end
                        .and_then(|end| usize::try_from(end).ok())
                        .ok_or(Corrupt)?;
                    if input.len() < end {
                        return Ok(None);
                    }
                    self.at = end;
                    self.missing = Some(missing - 1);
                }
            }
        }
    }
}

/// The line from `at` on, without the byte that ends it.
fn line(input: &[u8], at: usize) -> Result<Option<Range<usize>>, Corrupt> {
    let rest = &input[at..];
    match memchr::memchr(b'\n', &rest[..rest.len().min(LONGEST_LINE)]) {
        Some(end) => Ok(Some(at..at + end)),
        None if rest.len() >= LONGEST_LINE => Err(Corrupt),
        None => Ok(None),
    }
}

/// The number of a header, which is never negative but for an empty request.
fn count(text: &[u8], kind: u8) -> Result<u64, Corrupt> {
    let digits = text.strip_prefix(&[kind]).ok_or(Corrupt)?;
    let number = number::parse_i64(digits).ok_or(Corrupt)?;
    match number {
        ..0 if kind == b'*' => Ok(0),
        0..=0xffff_ffff => Ok(number.unsigned_abs()),
        _ => Err(Corrupt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_found_wherever_the_bytes_are_cut() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\nPING\r\n\r\n*0\r\n*-1\r\n$";
        let ends = [20, 34, 40, 42, 46, 51];
        for step in 1..8 {
            let (mut frame, mut start, mut found, mut shown) = (Frame::default(), 0, vec![], 0);
            while shown < input.len() {
                shown = (shown + step).min(input.len());
                while start < shown
                    && let Some(end) = frame.end(&input[start..shown]).expect("sound")
                {
                    start += end;
                    found.push(start);
                }
            }
            assert_eq!(found, ends, "step {step}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for input in [
            &b"*x\r\n"[..],
            b"*1\n",
            b"*1\r\n:3\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$99999999999\r\n",
            b"*99999999999999999999\r\n",
        ] {
            assert_eq!(Frame::default().end(input), Err(Corrupt), "{input:?}");
        }
        let endless = vec![b'*'; LONGEST_LINE];
        assert_eq!(Frame::default().end(&endless), Err(Corrupt));
        assert_eq!(Frame::default().end(&endless[1..]), Ok(None));
    }
}
