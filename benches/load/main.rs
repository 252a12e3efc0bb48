//! A load generator that is lighter than any server it is pointed at.
//!
//! `load --help` tells its arguments.
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

use clap::Parser;

mod cache;
mod operations;
mod paced;
mod sets;

/// What the command line says.
#[derive(Parser)]
#[command(name = "load")]
struct Options {
    /// Unix socket of the server.
    #[arg(long)]
    socket: Option<String>,
    /// Port of the server, where no socket is given.
    #[arg(long, default_value_t = 6379)]
    port: u16,
    /// What is measured; without it there is nothing to do.
    #[arg(long, default_value = "")]
    op: String,
    /// The data set of `fill`.
    #[arg(long, default_value = "keys")]
    of: String,
    /// Keys of the data set.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of a value, or `int`.
    #[arg(long, default_value = "64")]
    value: String,
    /// Bytes of a key; 0 as short as it can be.
    #[arg(long, default_value_t = 0)]
    key_bytes: usize,
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Requests that a connection sends at once.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Requests to be answered, for operations that need a number.
    #[arg(long, default_value_t = 0)]
    requests: u64,
    /// Requests a second of `paced` and `writes`.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Exponent of the distribution of `hit`.
    #[arg(long, default_value_t = 0.99)]
    skew: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Said by cargo to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    /// Said by test runners.
    #[arg(long, hide = true)]
    test: bool,
    /// Said by test runners.
    #[arg(long, hide = true)]
    list: bool,
}

fn main() {
    let options = Options::parse();
    if options.list {
        return;
    }
    // Run by `cargo bench` without a word: there is no server to measure.
    if options.op.is_empty() {
        println!("load: see benches/README.md; nothing to do without --op");
        return;
    }
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
