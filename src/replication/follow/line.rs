//! Lines of a primary: replies of the handshake and the header of a dump. They may come in pieces and
//! are bounded.

/// Longest line, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;
/// Most of a line that is shown.
const SHOWN: usize = 256;

/// A line that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct Line(Vec<u8>);

/// What reading a line came to.
pub(super) enum Progress {
    /// A line, without its end.
    Complete(Vec<u8>),
    /// All bytes are taken and more are needed.
    Incomplete,
    /// It is longer than [`LONGEST`].
    TooLong,
}

impl Line {
    /// Takes bytes up to the end of the line, from `*at` on.
    pub(super) fn take(&mut self, bytes: &[u8], at: &mut usize) -> Progress {
        let rest = &bytes[*at..];
        let end = memchr::memchr(b'\n', rest);
        let piece = &rest[..end.unwrap_or(rest.len())];
        if self.0.len() + piece.len() > LONGEST {
            return Progress::TooLong;
        }
        *at += piece.len();
        self.0.extend_from_slice(piece);
        if end.is_none() {
            return Progress::Incomplete;
        }
        *at += 1;
        let mut line = std::mem::take(&mut self.0);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Progress::Complete(line)
    }
}

/// What a primary sent, for the log: its beginning, without control characters.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut line, mut found) = (Line::default(), Vec::new());
        for piece in pieces {
            let mut at = 0;
            while at < piece.len() {
                match line.take(piece, &mut at) {
                    Progress::Complete(line) => found.push(shown(&line)),
                    Progress::Incomplete => assert_eq!(at, piece.len()),
                    Progress::TooLong => return vec!["too long".to_owned()],
                }
            }
        }
        found
    }

    #[test]
    fn lines_end_with_a_newline_wherever_they_are_split() {
        assert_eq!(
            lines(&[b"+OK\r", b"\n\n+", b"A\x07B\nrest"]),
            ["+OK", "", "+A?B"]
        );
    }

    #[test]
    fn lines_are_bounded_in_one_piece_and_in_many() {
        let long = vec![b'x'; LONGEST + 1];
        assert_eq!(lines(&[&long]), ["too long"]);
        let (half, end) = (vec![b'x'; LONGEST / 2], b"y\n");
        assert_eq!(lines(&[&half, &half, end]), ["too long"]);
        assert_eq!(lines(&[&half, end]), ["x".repeat(SHOWN)]);
    }
}
