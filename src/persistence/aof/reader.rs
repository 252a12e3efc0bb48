//! Finding the commands of a file, and where each ends.
//!
//! A file holds requests as clients send them, `*3\r\n$3\r\nSET\r\n...`, and lines that begin with
//! `#` and tell of times. How far it is sound is always known, so that a torn end can be cut.
//!
//! A check of a file takes nothing but what a server writes. Loading takes what Redis takes: any
//! two bytes end an argument, and a number ends with its digits.

use std::io::{self, BufRead, Read as _};

/// Longest line, in bytes.
const MAX_LINE: usize = 1024;
/// Most bytes for which room is made before they have come.
const AHEAD: usize = 1 << 20;

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The arguments of a command.
    Command(Vec<Vec<u8>>),
    /// A line that begins with `#`, without its end.
    Annotation(Vec<u8>),
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file ends within a command: how many bytes an argument should have and how many there
    /// are, its end of line included, if it is an argument that is cut.
    #[error("Unexpected end of file")]
    Truncated(Option<(u64, u64)>),
    /// This is no command. The text says what was expected.
    #[error("{0}")]
    Format(String),
}

/// Reads a file command by command.
pub struct Reader<R> {
    input: R,
    offset: u64,
    /// Where the line or argument begins that was read last.
    piece: u64,
    /// Ends of lines passed in commands.
    lines: u64,
    /// Takes nothing but what a server writes.
    strict: bool,
}

impl<R: BufRead> Reader<R> {
    /// Checks `input`, which begins at `offset` of its file.
    pub fn new(input: R, offset: u64) -> Self {
        Self {
            input,
            offset,
            piece: offset,
            lines: 0,
            strict: true,
        }
    }

    /// Loads `input`, which begins at `offset` of its file.
    pub fn lenient(input: R, offset: u64) -> Self {
        Self {
            strict: false,
            ..Self::new(input, offset)
        }
    }

    /// The byte with which the next part begins; `None` at the end of the file.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.input.fill_buf()?.first().copied())
    }

    /// After a failure: where the line or argument begins that is at fault.
    pub fn fault(&self) -> u64 {
        self.piece
    }

    /// Lines of commands that were read, an argument with its end of line counting as one.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Where in the file the next part begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next part; `None` at the end of a sound file.
    pub fn next_item(&mut self) -> Result<Option<Item>, Failure> {
        let mut passed = 0;
        let mut line = Vec::new();
        if !self.line(&mut line, &mut passed)? {
            return Ok(None);
        }
        let item = match line.first() {
            Some(b'#') => Item::Annotation(line),
            _ => {
                self.lines += 1;
                Item::Command(self.command(&line, &mut passed)?)
            }
        };
        self.offset += passed;
        Ok(Some(item))
    }

    fn command(&mut self, line: &[u8], passed: &mut u64) -> Result<Vec<Vec<u8>>, Failure> {
        let count = self.number(line, b'*')?;
        if count < 1 {
            return Err(Failure::Format(format!(
                "Expected at least one argument, got {count}"
            )));
        }
        let mut args = Vec::new();
        let mut line = Vec::new();
        for _ in 0..count {
            if !self.line(&mut line, passed)? {
                return Err(Failure::Truncated(None));
            }
            let len = self.number(&line, b'$')?;
            let len = u64::try_from(len)
                .map_err(|_| Failure::Format(format!("Expected a length, got {len}")))?;
            self.lines += 1;
            self.piece = self.offset + *passed;
            args.push(self.argument(len)?);
            self.lines += 1;
            *passed += len + 2;
        }
        Ok(args)
    }

    /// Reads a line without its end; false at the end of the file.
    fn line(&mut self, line: &mut Vec<u8>, passed: &mut u64) -> Result<bool, Failure> {
        line.clear();
        self.piece = self.offset + *passed;
        let limit = MAX_LINE as u64;
        let read = (&mut self.input).take(limit).read_until(b'\n', line)?;
        *passed += read as u64;
        if read == 0 {
            return Ok(false);
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(match read < MAX_LINE {
                true => Failure::Truncated(None),
                false => Failure::Format("Expected a shorter line".into()),
            });
        }
        line.pop_if(|last| *last == b'\r');
        Ok(true)
    }

    fn argument(&mut self, len: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity((len as usize).min(AHEAD));
        let read = (&mut self.input).take(len).read_to_end(&mut bytes)?;
        let mut end = Vec::with_capacity(2);
        if read as u64 == len {
            (&mut self.input).take(2).read_to_end(&mut end)?;
        }
        match end[..] {
            [b'\r', b'\n'] => Ok(bytes),
            [_, _] if !self.strict => Ok(bytes),
            [a, b] => Err(Failure::Format(format!(
                "Expected \\r\\n, got: {a:02x}{b:02x}"
            ))),
            _ => Err(Failure::Truncated(Some((
                len.saturating_add(2),
                (read + end.len()) as u64,
            )))),
        }
    }

    /// The number of a line that begins with `prefix`.
    fn number(&self, line: &[u8], prefix: u8) -> Result<i64, Failure> {
        let first = line.first().copied().unwrap_or(b'\n');
        if first != prefix {
            let (prefix, first) = (char::from(prefix), char::from(first));
            return Err(Failure::Format(format!(
                "Expected prefix '{prefix}', got: '{}'",
                first.escape_default()
            )));
        }
        let text = &line[1..];
        let number = if self.strict {
            crate::base::number::parse_i64(text)
        } else {
            crate::base::number::leading_i64(text)
        };
        number.ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            Failure::Format(format!("Expected a number, got {text}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_is_noticed_and_the_sound_part_known() {
        let whole = b"*1\r\n$4\r\nPING\r\n#TS:1700000000\r\n*2\r\n$3\r\nDEL\r\n$0\r\n\r\n";
        let ends = [0, 14, 30, whole.len() as u64];
        for cut in 0..=whole.len() {
            let mut reader = Reader::new(&whole[..cut], 0);
            let result = loop {
                match reader.next_item() {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            let sound = ends.iter().rev().find(|end| **end <= cut as u64);
            assert_eq!(reader.offset(), *sound.expect("0 is one"));
            let clean = ends.contains(&(cut as u64));
            assert_eq!(clean, matches!(result, Ok(None)), "{cut}");
            assert!(
                clean || matches!(result, Err(Failure::Truncated(_))),
                "{cut}"
            );
        }
    }

    #[test]
    fn what_is_no_command_is_refused_without_room_for_it() {
        for bad in [
            "PING\r\n",
            "*0\r\n",
            "*x\r\n",
            "*1\r\n*1\r\n",
            "*1\r\n$-1\r\n",
            "*1\r\n$1\r\nabc\r\n",
        ] {
            let result = Reader::new(bad.as_bytes(), 0).next_item();
            assert!(matches!(result, Err(Failure::Format(_))), "{bad:?}");
        }
        let huge = b"*1\r\n$999999999999\r\nabc";
        assert!(matches!(
            Reader::new(&huge[..], 0).next_item(),
            Err(Failure::Truncated(Some((1_000_000_000_001, 3))))
        ));
    }

    #[test]
    fn loading_takes_what_redis_takes() {
        let set = [b"SET".to_vec(), b"c".to_vec(), b"3".to_vec()];
        for (file, strict) in [
            ("*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$1\r\n3\r\n", true),
            ("*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$1\r\n3XX", false),
            ("*3x\r\n$3 y\r\nSET\r\n$1\r\nc\r\n$1\r\n3\r\n", false),
            ("* 3\r\n$ 3\r\nSET\r\n$+1\r\nc\r\n$1\r\n3\r\n", false),
        ] {
            let item = Reader::lenient(file.as_bytes(), 0).next_item();
            let Ok(Some(Item::Command(args))) = item else {
                panic!("{file:?}: {item:?}");
            };
            assert_eq!(args, set, "{file:?}");
            let checked = Reader::new(file.as_bytes(), 0).next_item();
            assert_eq!(checked.is_ok(), strict, "{file:?}");
        }
        for bad in ["*\r\n", "*x\r\n", "PING\r\n", "*1\r\n$-1\r\nPING\r\n"] {
            let result = Reader::lenient(bad.as_bytes(), 0).next_item();
            assert!(matches!(result, Err(Failure::Format(_))), "{bad:?}");
        }
        let short = Reader::lenient(&b"*1\r\n$4\r\nPINGX"[..], 0).next_item();
        assert!(matches!(short, Err(Failure::Truncated(_))));
    }
}
