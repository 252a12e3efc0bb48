//! A load generator that is lighter than any server it is pointed at.
//!
//! ```text
//! load --socket PATH | --port N  --op OPERATION | fill | hit | paced | writes
//!      [--of SET] [--keys N] [--value BYTES|int] [--key-bytes N] [--connections N] [--pipeline N]
//!      [--seconds S] [--requests N] [--rate N] [--skew S] [--seed N]
//! ```
//!
//! Requests are rendered before the clock starts; replies are counted by their length, never
//! parsed. The last line is `name=value` pairs for `benches/run` and its kin:
//! `ops=` operations, `seconds=`, and for some operations `hits=`, `elements=`, `p50_us=`,
//! `p99_us=`, `p999_us=`, `max_us=`.
//!
//! - An operation of [`operations::ALL`] is repeated over all connections, for `--seconds` or, for
//!   those that need it, until `--requests` are answered.
//! - `fill` writes a data set of [`sets::ALL`] once, by default every key that `get` reads.
//! - `hit` is a cache trace with Zipf-distributed keys (GET, and SET on a miss).
//! - `paced` sends `--rate` GETs a second over one connection and measures each from the moment it
//!   was due, so that a server that stalls does not hide what had to wait; `writes` does so with
//!   SETs of random keys, of which those that are due together are sent together.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

mod cache;
mod operations;
mod paced;
mod sets;

/// What the command line says.
struct Options {
    socket: Option<String>,
    port: u16,
    op: String,
    of: String,
    keys: u64,
    value: String,
    key_bytes: usize,
    connections: usize,
    pipeline: usize,
    seconds: f64,
    requests: u64,
    rate: f64,
    skew: f64,
    seed: u64,
}

fn main() {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return,
        Err(text) => {
            eprintln!("load: {text}");
            std::process::exit(2);
        }
    };
    let result = match options.op.as_str() {
        "fill" => sets::fill(&options),
        "hit" => cache::hit(&options),
        "paced" => paced::reads(&options),
        "writes" => paced::writes(&options),
        name => match operations::find(name) {
            Some(operation) => operations::run(&options, operation),
            None => Err(std::io::Error::other(format!("unknown operation {name}"))),
        },
    };
    if let Err(error) = result {
        eprintln!("load: {error}");
        std::process::exit(1);
    }
}

fn options() -> Result<Option<Options>, String> {
    let mut o = Options {
        socket: None,
        port: 6379,
        op: String::new(),
        of: "keys".into(),
        keys: 1_000_000,
        value: "64".into(),
        key_bytes: 0,
        connections: 50,
        pipeline: 1,
        seconds: 3.0,
        requests: 0,
        rate: 2000.0,
        skew: 0.99,
        seed: 1,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        // What cargo says to every benchmark and test: not meant for us.
        if matches!(arg.as_str(), "--bench" | "--test") {
            continue;
        }
        if arg == "--list" {
            return Ok(None);
        }
        let text = args.next().ok_or(format!("{arg} needs a value"))?;
        let bad = |_| format!("{arg}: not a number: {text}");
        let bad_float = |_| format!("{arg}: not a number: {text}");
        match arg.as_str() {
            "--socket" => o.socket = Some(text),
            "--op" => o.op = text,
            "--of" => o.of = text,
            "--value" => o.value = text,
            "--port" => o.port = text.parse().map_err(bad)?,
            "--keys" => o.keys = text.parse().map_err(bad)?,
            "--key-bytes" => o.key_bytes = text.parse().map_err(bad)?,
            "--connections" => o.connections = text.parse().map_err(bad)?,
            "--pipeline" => o.pipeline = text.parse().map_err(bad)?,
            "--requests" => o.requests = text.parse().map_err(bad)?,
            "--seed" => o.seed = text.parse().map_err(bad)?,
            "--seconds" => o.seconds = text.parse().map_err(bad_float)?,
            "--rate" => o.rate = text.parse().map_err(bad_float)?,
            "--skew" => o.skew = text.parse().map_err(bad_float)?,
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    // Run by `cargo bench` without a word: there is no server to measure.
    if o.op.is_empty() {
        println!("load: see benches/README.md; nothing to do without --op");
        return Ok(None);
    }
    Ok(Some(o))
}

/// A TCP or unix stream.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn open(o: &Options) -> std::io::Result<Stream> {
        match &o.socket {
            Some(path) => UnixStream::connect(path).map(Stream::Unix),
            None => {
                let stream = TcpStream::connect(("127.0.0.1", o.port))?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Tcp(s) => s.write_all(bytes),
            Stream::Unix(s) => s.write_all(bytes),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = match self {
            Stream::Tcp(s) => s.read(into)?,
            Stream::Unix(s) => s.read(into)?,
        };
        if n == 0 {
            return Err(std::io::Error::other("the server closed the connection"));
        }
        Ok(n)
    }

    fn read_exactly(&mut self, count: usize, buffer: &mut [u8]) -> std::io::Result<()> {
        let mut left = count;
        while left > 0 {
            let room = left.min(buffer.len());
            left -= self.read(&mut buffer[..room])?;
        }
        Ok(())
    }

    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Stream::Tcp(s) => s.as_fd(),
            Stream::Unix(s) => s.as_fd(),
        }
    }
}

/// Appends a request.
fn render(out: &mut Vec<u8>, args: &[&[u8]]) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "*{}\r\n", args.len());
    for arg in args {
        let _ = write!(out, "${}\r\n", arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// The replies' first error, if that is how they begin.
fn refuse_errors(replies: &[u8]) -> std::io::Result<()> {
    match replies.first() {
        Some(b'-') => {
            let shown = &replies[..replies.len().min(200)];
            Err(std::io::Error::other(
                String::from_utf8_lossy(shown).into_owned(),
            ))
        }
        _ => Ok(()),
    }
}

/// Number of lines that end in `replies`.
fn lines(replies: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', replies).count()
}
