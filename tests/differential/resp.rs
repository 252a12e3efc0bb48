//! The smallest RESP2/RESP3 reader and writer a comparison needs.
//!
//! It is deliberately not the project's own codec: a fault there must not hide itself here.
//! Every RESP type keeps its identity, so `$1\r\n1` and `:1` are different replies.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// One request: the command name and its arguments.
pub type Args = Vec<Vec<u8>>;

/// One reply, with the type that was on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    /// `+text`
    Simple(Vec<u8>),
    /// `-text`
    Error(Vec<u8>),
    /// `:n`
    Int(i64),
    /// `$len`
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    /// `#t` or `#f`
    Bool(bool),
    /// `,text`: kept as text, because the digits are part of the contract.
    Double(Vec<u8>),
    /// `(digits`
    Big(Vec<u8>),
    /// `=len`, with its three letters of format in front.
    Verbatim(Vec<u8>),
    /// `!len`
    BulkError(Vec<u8>),
    /// `*n`
    Array(Vec<Reply>),
    /// `~n`
    Set(Vec<Reply>),
    /// `%n`
    Map(Vec<(Reply, Reply)>),
    /// `>n`
    Push(Vec<Reply>),
    /// Not on the wire: the harness notes that no reply came in time, or that the peer closed.
    Missing(&'static str),
}

/// Why no reply could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed the connection or reset it.
    Closed,
    /// Nothing arrived before the deadline.
    Late,
    /// What arrived is not RESP.
    Garbage,
}

/// A blocking connection over a unix socket.
pub struct Conn {
    socket: UnixStream,
    buffer: Vec<u8>,
    at: usize,
    deadline: Instant,
    /// Pushes met while reading something else, in order.
    pub pushes: Vec<Reply>,
}

impl Conn {
    /// Connects to the unix socket at `path`.
    pub fn open(path: &Path) -> std::io::Result<Conn> {
        let socket = UnixStream::connect(path)?;
        Ok(Conn {
            socket,
            buffer: Vec::new(),
            at: 0,
            deadline: Instant::now(),
            pushes: Vec::new(),
        })
    }

    /// Sends requests in one write. A peer that has gone is noticed by the next read.
    pub fn send(&mut self, commands: &[&Args]) {
        let mut out = Vec::new();
        for args in commands {
            encode(&mut out, args);
        }
        let _ = self.socket.set_write_timeout(Some(Duration::from_secs(10)));
        let _ = self.socket.write_all(&out);
    }

    /// Sends one request and reads its reply; for the harness' own questions.
    pub fn ask(&mut self, words: &[&str]) -> Result<Reply, Ended> {
        let args: Args = words.iter().map(|w| w.as_bytes().to_vec()).collect();
        self.send(&[&args]);
        self.read(Duration::from_secs(10))
    }

    /// Reads the next reply that is not a push; pushes on the way go to [`Conn::pushes`].
    pub fn read(&mut self, patience: Duration) -> Result<Reply, Ended> {
        self.deadline = Instant::now() + patience;
        loop {
            match self.value()? {
                push @ Reply::Push(_) => self.pushes.push(push),
                reply => return Ok(reply),
            }
        }
    }

    /// Reads a reply that is here already, whole; else it is late.
    pub fn read_now(&mut self) -> Result<Reply, Ended> {
        let _ = self.socket.set_nonblocking(true);
        let result = self.read(Duration::from_secs(1));
        let _ = self.socket.set_nonblocking(false);
        result
    }

    /// Reads whatever comes next, push or reply.
    pub fn read_any(&mut self, patience: Duration) -> Result<Reply, Ended> {
        self.deadline = Instant::now() + patience;
        self.value()
    }

    fn value(&mut self) -> Result<Reply, Ended> {
        let line = self.line()?;
        let (&kind, rest) = line.split_first().ok_or(Ended::Garbage)?;
        Ok(match kind {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(rest.to_vec()),
            b':' => Reply::Int(number(rest)?),
            b'_' => Reply::Null,
            b'#' => Reply::Bool(rest == b"t"),
            b',' => Reply::Double(rest.to_vec()),
            b'(' => Reply::Big(rest.to_vec()),
            b'$' if rest == b"-1" => Reply::NullBulk,
            b'*' if rest == b"-1" => Reply::NullArray,
            b'$' => Reply::Bulk(self.bytes(number(rest)?)?),
            b'=' => Reply::Verbatim(self.bytes(number(rest)?)?),
            b'!' => Reply::BulkError(self.bytes(number(rest)?)?),
            b'*' => Reply::Array(self.items(number(rest)?)?),
            b'~' => Reply::Set(self.items(number(rest)?)?),
            b'>' => Reply::Push(self.items(number(rest)?)?),
            b'%' => {
                let flat = self.items(number(rest)?.checked_mul(2).ok_or(Ended::Garbage)?)?;
                let mut flat = flat.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                    pairs.push((key, value));
                }
                Reply::Map(pairs)
            }
            _ => return Err(Ended::Garbage),
        })
    }

    /// The items of an aggregate. A push in between is out of band and not one of them.
    fn items(&mut self, count: i64) -> Result<Vec<Reply>, Ended> {
        let mut items = Vec::new();
        while (items.len() as i64) < count {
            match self.value()? {
                push @ Reply::Push(_) => self.pushes.push(push),
                item => items.push(item),
            }
        }
        Ok(items)
    }

    fn line(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            let unread = &self.buffer[self.at..];
            if let Some(end) = unread.windows(2).position(|w| w == b"\r\n") {
                let line = unread[..end].to_vec();
                self.at += end + 2;
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn bytes(&mut self, len: i64) -> Result<Vec<u8>, Ended> {
        let len = usize::try_from(len).map_err(|_| Ended::Garbage)?;
        while self.buffer.len() - self.at < len + 2 {
            self.more()?;
        }
        let bytes = self.buffer[self.at..self.at + len].to_vec();
        self.at += len + 2;
        Ok(bytes)
    }

    fn more(&mut self) -> Result<(), Ended> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ended::Late);
        }
        let _ = self.socket.set_read_timeout(Some(left));
        let mut chunk = [0; 16 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => Err(Ended::Closed),
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Ended::Late)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Ended::Closed),
        }
    }
}

fn number(digits: &[u8]) -> Result<i64, Ended> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Ended::Garbage)
}

/// Appends a request as an array of bulk strings.
pub fn encode(out: &mut Vec<u8>, args: &Args) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Bytes as `redis-cli` reads them back from a line: bare if harmless, else quoted.
pub fn quoted(bytes: &[u8]) -> String {
    let harmless = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\');
    if !bytes.is_empty() && bytes.iter().all(harmless) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
    text
}

/// A request as one line for `redis-cli`.
pub fn line(args: &Args) -> String {
    let words: Vec<String> = args.iter().map(|a| quoted(a)).collect();
    words.join(" ")
}

/// A reply on one line, for people; long strings are cut.
pub fn show(reply: &Reply) -> String {
    let cut = |b: &[u8]| {
        if b.len() <= 400 {
            quoted(b)
        } else {
            format!("{}...({} bytes)", quoted(&b[..300]), b.len())
        }
    };
    let list = |items: &[Reply]| items.iter().map(show).collect::<Vec<_>>().join(", ");
    match reply {
        Reply::Simple(b) => format!("+{}", cut(b)),
        Reply::Error(b) => format!("-{}", String::from_utf8_lossy(b)),
        Reply::Int(n) => format!(":{n}"),
        Reply::Bulk(b) => format!("${}", cut(b)),
        Reply::NullBulk => "$-1".into(),
        Reply::NullArray => "*-1".into(),
        Reply::Null => "_".into(),
        Reply::Bool(b) => format!("#{b}"),
        Reply::Double(b) => format!(",{}", cut(b)),
        Reply::Big(b) => format!("({}", cut(b)),
        Reply::Verbatim(b) => format!("={}", cut(b)),
        Reply::BulkError(b) => format!("!{}", cut(b)),
        Reply::Array(items) => format!("*[{}]", list(items)),
        Reply::Set(items) => format!("~[{}]", list(items)),
        Reply::Push(items) => format!(">[{}]", list(items)),
        Reply::Map(pairs) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(k, v)| format!("{}: {}", show(k), show(v)))
                .collect();
            format!("%[{}]", pairs.join(", "))
        }
        Reply::Missing(why) => format!("<{why}>"),
    }
}
