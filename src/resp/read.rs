//! The reply reader: RESP2 and RESP3 replies from bytes, for links to other servers and for tests.
//!
//! [`Reader`] keeps the aggregates it is inside of on a stack of its own, so it resumes where the
//! bytes ended, and neither the depth nor the size of what a peer sends can exhaust memory or stack:
//! [`ReadLimits`] bounds both, and a length that is merely announced reserves nothing.
//!
//! What it never does: interpret a reply. Errors and pushed messages are values like others.

use std::fmt;

use crate::base::number::parse_i64;
use crate::base::strtod::scan;

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `+`: a status.
    Simple(Vec<u8>),
    /// `-` or `!`: an error, code included.
    Error(Vec<u8>),
    /// `:`: an integer.
    Int(i64),
    /// `$`: a string.
    Bulk(Vec<u8>),
    /// `$-1`: no string (RESP2).
    NullBulk,
    /// `*-1`: no array (RESP2).
    NullArray,
    /// `_`: nothing (RESP3).
    Null,
    /// `#`: a truth value.
    Bool(bool),
    /// `,`: a double, as its text.
    Double(Vec<u8>),
    /// `(`: an integer of any size, as its text.
    BigNumber(Vec<u8>),
    /// `=`: text with its format.
    Verbatim {
        /// Three characters: `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// `*`
    Array(Vec<Value>),
    /// `%`: keys and values in the order they came.
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`: a message out of turn.
    Push(Vec<Value>),
    /// `|`: attributes, and the reply they belong to.
    Attribute(Vec<(Value, Value)>, Box<Value>),
}

impl Value {
    /// The bytes of a string, status, error, or verbatim text.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(text) | Value::Error(text) | Value::Bulk(text) => Some(text),
            Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// What a peer may send.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Aggregates within aggregates.
    pub max_depth: usize,
    /// Bytes of one string or line.
    pub max_bulk: u64,
    /// Values in one whole reply, all levels counted.
    pub max_values: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        ReadLimits {
            max_depth: 64,
            max_bulk: 512 * 1024 * 1024,
            max_values: 1 << 28,
        }
    }
}

/// Why bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A type byte that is none.
    UnknownType(u8),
    /// A number, truth value or null that is none.
    Malformed,
    /// A string is not followed by a line end.
    MissingLineEnd,
    /// Beyond [`ReadLimits`].
    TooBig,
    /// Deeper than [`ReadLimits::max_depth`].
    TooDeep,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::UnknownType(byte) => write!(f, "unknown reply type {:?}", char::from(*byte)),
            ReadError::Malformed => f.write_str("malformed reply"),
            ReadError::MissingLineEnd => f.write_str("reply string without line end"),
            ReadError::TooBig => f.write_str("reply too big"),
            ReadError::TooDeep => f.write_str("reply nested too deeply"),
        }
    }
}

impl std::error::Error for ReadError {}

/// An aggregate that is being read.
#[derive(Debug)]
struct Frame {
    kind: u8,
    missing: u64,
    items: Vec<Value>,
}

/// A string whose header is read: its type and length.
#[derive(Clone, Copy, Debug)]
struct Text {
    kind: u8,
    len: usize,
}

/// Reads replies from a stream of bytes.
#[derive(Debug, Default)]
pub struct Reader {
    limits: ReadLimits,
    stack: Vec<Frame>,
    text: Option<Text>,
    /// Bytes from the current position on without a line end.
    scanned: usize,
    /// Values of the current reply.
    values: u64,
}

/// What the head of a value came to.
enum Step {
    Value(Value),
    /// An aggregate was opened, or a string's header read.
    Opened,
    Incomplete,
}

impl Reader {
    /// A reader at the start of a stream.
    pub fn new(limits: ReadLimits) -> Self {
        Reader {
            limits,
            ..Reader::default()
        }
    }

    /// True when nothing of a reply has been consumed.
    pub fn is_idle(&self) -> bool {
        self.stack.is_empty() && self.text.is_none()
    }

    /// Reads one reply from `input[*pos..]`, advancing `*pos` past what it consumed; `None` when more
    /// bytes are needed. Consumed bytes are not looked at again. After an error the stream cannot be
    /// resumed.
    pub fn read(&mut self, input: &[u8], pos: &mut usize) -> Result<Option<Value>, ReadError> {
        loop {
            let step = match self.text {
                Some(text) => self.read_text(text, input, pos)?,
                None => self.read_head(input, pos)?,
            };
            match step {
                Step::Incomplete => return Ok(None),
                Step::Opened => {}
                Step::Value(value) => {
                    if let Some(reply) = self.add(value) {
                        self.values = 0;
                        return Ok(Some(reply));
                    }
                }
            }
        }
    }

    /// Puts a value into the innermost open aggregate and closes what is complete by it; gives the
    /// value that stands on its own.
    fn add(&mut self, mut value: Value) -> Option<Value> {
        while let Some(frame) = self.stack.last_mut() {
            frame.items.push(value);
            frame.missing -= 1;
            if frame.missing > 0 {
                return None;
            }
            value = self.stack.pop().map(close)?;
        }
        Some(value)
    }

    fn read_head(&mut self, input: &[u8], pos: &mut usize) -> Result<Step, ReadError> {
        let rest = &input[*pos..];
        let Some(offset) = memchr::memchr(b'\r', &rest[self.scanned..]) else {
            self.scanned = rest.len();
            if rest.len() as u64 > self.limits.max_bulk.saturating_add(1) {
                return Err(ReadError::TooBig);
            }
            return Ok(Step::Incomplete);
        };
        let end = self.scanned + offset;
        if end + 1 >= rest.len() {
            self.scanned = end;
            return Ok(Step::Incomplete);
        }
        let (Some(&kind), b'\n') = (rest.first(), rest[end + 1]) else {
            return Err(ReadError::Malformed);
        };
        if end == 0 {
            return Err(ReadError::Malformed);
        }
        self.scanned = 0;
        *pos += end + 2;
        self.values += 1;
        if self.values > self.limits.max_values {
            return Err(ReadError::TooBig);
        }
        self.head(kind, &rest[1..end])
    }

    fn head(&mut self, kind: u8, line: &[u8]) -> Result<Step, ReadError> {
        let value = match (kind, line) {
            (b'+', _) => Value::Simple(line.to_vec()),
            (b'-', _) => Value::Error(line.to_vec()),
            (b':', _) => Value::Int(parse_i64(line).ok_or(ReadError::Malformed)?),
            (b'_', b"") => Value::Null,
            (b'#', b"t") => Value::Bool(true),
            (b'#', b"f") => Value::Bool(false),
            (b',', _) => {
                let (_, _, len) = scan(line);
                if len == 0 || len != line.len() {
                    return Err(ReadError::Malformed);
                }
                Value::Double(line.to_vec())
            }
            (b'(', _) => {
                let digits = line.strip_prefix(b"-").unwrap_or(line);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(ReadError::Malformed);
                }
                Value::BigNumber(line.to_vec())
            }
            (b'$', b"-1") => Value::NullBulk,
            (b'*', b"-1") => Value::NullArray,
            (b'$' | b'!' | b'=', _) => return self.open_text(kind, line),
            (b'*' | b'%' | b'~' | b'>' | b'|', _) => return self.open(kind, line),
            (b'_' | b'#', _) => return Err(ReadError::Malformed),
            _ => return Err(ReadError::UnknownType(kind)),
        };
        Ok(Step::Value(value))
    }

    fn open_text(&mut self, kind: u8, line: &[u8]) -> Result<Step, ReadError> {
        let len = length(line)?;
        if len > self.limits.max_bulk.min(isize::MAX as u64 - 2) {
            return Err(ReadError::TooBig);
        }
        self.text = Some(Text {
            kind,
            len: len as usize,
        });
        Ok(Step::Opened)
    }

    fn open(&mut self, kind: u8, line: &[u8]) -> Result<Step, ReadError> {
        let len = length(line)?;
        let missing = match kind {
            b'%' => len.checked_mul(2),
            // The reply that the attributes belong to comes last.
            b'|' => len.checked_mul(2).and_then(|len| len.checked_add(1)),
            _ => Some(len),
        };
        let missing = missing.ok_or(ReadError::TooBig)?;
        if missing > self.limits.max_values {
            return Err(ReadError::TooBig);
        }
        if self.stack.len() >= self.limits.max_depth {
            return Err(ReadError::TooDeep);
        }
        let frame = Frame {
            kind,
            missing,
            items: Vec::with_capacity(missing.min(64) as usize),
        };
        if missing == 0 {
            return Ok(Step::Value(close(frame)));
        }
        self.stack.push(frame);
        Ok(Step::Opened)
    }

    fn read_text(&mut self, text: Text, input: &[u8], pos: &mut usize) -> Result<Step, ReadError> {
        let rest = &input[*pos..];
        if rest.len() < text.len + 2 {
            return Ok(Step::Incomplete);
        }
        let (bytes, end) = rest[..text.len + 2].split_at(text.len);
        if end != b"\r\n" {
            return Err(ReadError::MissingLineEnd);
        }
        let value = match (text.kind, bytes) {
            (b'$', _) => Value::Bulk(bytes.to_vec()),
            (b'!', _) => Value::Error(bytes.to_vec()),
            (_, [a, b, c, b':', text @ ..]) => Value::Verbatim {
                format: [*a, *b, *c],
                text: text.to_vec(),
            },
            _ => return Err(ReadError::Malformed),
        };
        *pos += text.len + 2;
        self.text = None;
        Ok(Step::Value(value))
    }
}

fn length(line: &[u8]) -> Result<u64, ReadError> {
    parse_i64(line)
        .and_then(|len| u64::try_from(len).ok())
        .ok_or(ReadError::Malformed)
}

/// Makes the value of a complete aggregate.
fn close(mut frame: Frame) -> Value {
    match frame.kind {
        b'%' => Value::Map(pairs(frame.items)),
        b'~' => Value::Set(frame.items),
        b'>' => Value::Push(frame.items),
        b'|' => {
            let value = frame.items.pop().unwrap_or(Value::Null);
            Value::Attribute(pairs(frame.items), Box::new(value))
        }
        _ => Value::Array(frame.items),
    }
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::write::{Output, Protocol};
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<Value>, ReadError> {
        let (mut reader, mut pos, mut values) = (Reader::default(), 0, Vec::new());
        while let Some(value) = reader.read(bytes, &mut pos)? {
            values.push(value);
        }
        Ok(values)
    }

    #[test]
    fn reads_every_kind() {
        let bytes = b"+OK\r\n-ERR x\r\n!5\r\nERR y\r\n:-3\r\n_\r\n*-1\r\n$-1\r\n#t\r\n,1.5\r\n(12345678901234567890\r\n=6\r\ntxt:hi\r\n%1\r\n:1\r\n~1\r\n:2\r\n|1\r\n+k\r\n:1\r\n*0\r\n";
        let values = read_all(bytes).expect("all are well formed");
        assert_eq!(values.len(), 13);
        assert_eq!(values[2], Value::Error(b"ERR y".to_vec()));
        let inner = Value::Set(vec![Value::Int(2)]);
        assert_eq!(values[11], Value::Map(vec![(Value::Int(1), inner)]));
        let attributes = vec![(Value::Simple(b"k".to_vec()), Value::Int(1))];
        assert_eq!(
            values[12],
            Value::Attribute(attributes, Box::new(Value::Array(vec![])))
        );
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for bytes in [
            &b"x\r\n"[..],
            b":1a\r\n",
            b"$-2\r\n",
            b"$1\r\nabc",
            b"#x\r\n",
            b"\r\n",
            b",\r\n",
            b"+a\rb",
        ] {
            assert!(read_all(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(read_all(&b"*1\r\n".repeat(65)), Err(ReadError::TooDeep));
        assert_eq!(read_all(b"*9000000000\r\n"), Err(ReadError::TooBig));
        assert_eq!(read_all(b"$9000000000\r\n"), Err(ReadError::TooBig));
    }

    fn write(out: &mut Output, value: &Value) {
        match value {
            Value::Simple(text) => out.simple(&String::from_utf8_lossy(text)),
            Value::Error(text) => out.error_bytes(text),
            Value::Int(value) => out.int(*value),
            Value::Bulk(text) => out.bulk_shared(std::sync::Arc::new(text.clone())),
            Value::NullBulk | Value::Null => out.null(),
            Value::NullArray => out.null_array(),
            Value::Bool(value) => out.bool(*value),
            Value::Double(text) => out.number(text),
            Value::BigNumber(text) => out.big_number(text),
            Value::Verbatim { format, text } => {
                out.verbatim(str::from_utf8(format).expect("ASCII"), text.to_vec());
            }
            Value::Array(items) => {
                let deferred = out.deferred();
                items.iter().for_each(|item| write(out, item));
                out.end_array(deferred, items.len());
            }
            Value::Set(items) => {
                out.set(items.len());
                items.iter().for_each(|item| write(out, item));
            }
            Value::Push(items) => {
                let deferred = out.deferred();
                items.iter().for_each(|item| write(out, item));
                out.end_push(deferred, items.len());
            }
            Value::Map(items) => {
                let deferred = out.deferred();
                for (key, value) in items {
                    write(out, key);
                    write(out, value);
                }
                out.end_map(deferred, items.len());
            }
            Value::Attribute(..) => unreachable!("commands write none"),
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[a-z ]{0,12}".prop_map(|s| Value::Simple(s.into_bytes())),
            "[A-Z]{1,5} [a-z ]{0,12}".prop_map(|s| Value::Error(s.into_bytes())),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..120).prop_map(Value::Bulk),
            Just(Value::Bulk(vec![b'x'; 20_000])),
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(|n| Value::Double(format!("{n}.5").into_bytes())),
            any::<i128>().prop_map(|n| Value::BigNumber(n.to_string().into_bytes())),
            ".{0,9}".prop_map(|s| Value::Verbatim {
                format: *b"txt",
                text: s.into_bytes()
            }),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| {
            let items = || proptest::collection::vec(inner.clone(), 0..15);
            prop_oneof![
                items().prop_map(Value::Array),
                items().prop_map(Value::Set),
                items().prop_map(Value::Push),
                proptest::collection::vec((inner.clone(), inner.clone()), 0..12)
                    .prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_reads_back(value in values(), step in 1usize..5000) {
            let mut out = Output::new();
            out.set_protocol(Protocol::Resp3);
            write(&mut out, &value);
            let bytes = out.to_vec();
            let (mut reader, mut pos, mut upto) = (Reader::default(), 0, 0);
            let got = loop {
                if let Some(value) = reader.read(&bytes[..upto], &mut pos).expect("well formed") {
                    break value;
                }
                assert!(upto < bytes.len(), "the whole reply was given");
                upto = (upto + step).min(bytes.len());
            };
            prop_assert_eq!(got, value);
            prop_assert_eq!(pos, bytes.len());
        }
    }
}
