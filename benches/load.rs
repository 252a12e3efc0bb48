//! A load generator that is lighter than any server it is pointed at.
//!
//! ```text
//! load --socket PATH | --port N  --op get|set|incr|mset|fill|count|hit|paced|writes
//!      [--keys N] [--value BYTES|int] [--key-bytes N] [--connections N] [--pipeline N] [--seconds S]
//!      [--rate N] [--skew S] [--seed N]
//! ```
//!
//! Requests are rendered before the clock starts; replies are counted by their length, never
//! parsed. The last line is `name=value` pairs for `benches/run` and its kin:
//! `ops=` operations, `seconds=`, and for some operations `hits=`, `p50_us=`, `p99_us=`, `p999_us=`,
//! `max_us=`.
//!
//! `fill` writes every key once and `count` every counter of `incr`, `hit` is a cache trace with Zipf-distributed keys (GET, and SET
//! on a miss), `paced` sends `--rate` GETs a second over one connection and measures each from
//! the moment it was due, so that a server that stalls does not hide what had to wait; `writes` does
//! so with SETs of random keys, of which those that are due together are sent together.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::event::epoll;

/// Keys rendered ahead for each connection; their batches are sent in turn. Fifty connections
/// touch some 200,000 keys, more than any cache holds.
const RENDERED_KEYS: usize = 4096;

struct Options {
    socket: Option<String>,
    port: u16,
    op: String,
    keys: u64,
    value: String,
    key_bytes: usize,
    connections: usize,
    pipeline: usize,
    seconds: f64,
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
        "fill" | "count" => fill(&options),
        "hit" => hit(&options),
        "paced" => paced(&options),
        "writes" => paced_writes(&options),
        "get" | "set" | "incr" | "mset" => steady(&options),
        other => Err(std::io::Error::other(format!("unknown operation {other}"))),
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
        keys: 1_000_000,
        value: "64".into(),
        key_bytes: 0,
        connections: 50,
        pipeline: 1,
        seconds: 3.0,
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
            "--value" => o.value = text,
            "--port" => o.port = text.parse().map_err(bad)?,
            "--keys" => o.keys = text.parse().map_err(bad)?,
            "--key-bytes" => o.key_bytes = text.parse().map_err(bad)?,
            "--connections" => o.connections = text.parse().map_err(bad)?,
            "--pipeline" => o.pipeline = text.parse().map_err(bad)?,
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

/// `key:0000000042`, or as many bytes as asked for.
fn key(o: &Options, number: u64) -> Vec<u8> {
    match o.key_bytes {
        0 => format!("key:{number:010}").into_bytes(),
        bytes => format!("k{number:0width$}", width = bytes - 1).into_bytes(),
    }
}

fn counter(number: u64) -> Vec<u8> {
    format!("counter:{number:010}").into_bytes()
}

fn value(o: &Options, number: u64) -> Vec<u8> {
    match o.value.parse::<usize>() {
        Ok(bytes) => vec![b'v'; bytes],
        Err(_) => (number % 100_000).to_string().into_bytes(),
    }
}

fn render(out: &mut Vec<u8>, args: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Renders one operation of the steady load, with keys of its own.
fn render_operation(o: &Options, rng: &mut SmallRng, out: &mut Vec<u8>) {
    let number = rng.random_range(0..o.keys);
    match o.op.as_str() {
        "get" => render(out, &[b"GET", &key(o, number)]),
        "set" => render(out, &[b"SET", &key(o, number), &value(o, number)]),
        "incr" => render(out, &[b"INCR", &counter(number)]),
        _ => {
            let pairs: Vec<Vec<u8>> = (0..10)
                .flat_map(|_| {
                    let number = rng.random_range(0..o.keys);
                    [key(o, number), value(o, number)]
                })
                .collect();
            let mut args: Vec<&[u8]> = vec![b"MSET"];
            args.extend(pairs.iter().map(Vec::as_slice));
            render(out, &args);
        }
    }
}

/// Lines in a reply: a bulk string is two of them, everything else we ask for is one.
fn lines_per_reply(op: &str) -> usize {
    if op == "get" { 2 } else { 1 }
}

/// One connection of the steady load, with its batches and the lines still awaited.
struct Client {
    stream: Stream,
    batches: Vec<Vec<u8>>,
    next: usize,
    awaited: usize,
}

/// Keeps every connection busy with one batch at a time from a single thread.
fn steady(o: &Options) -> std::io::Result<()> {
    let mut rng = SmallRng::seed_from_u64(o.seed);
    let poll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = Vec::new();
    let keys_per_batch = o.pipeline * if o.op == "mset" { 10 } else { 1 };
    let rendered = (RENDERED_KEYS / keys_per_batch).max(4);
    for index in 0..o.connections {
        let stream = Stream::open(o)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, stream.fd(), data, epoll::EventFlags::IN)?;
        let batches = (0..rendered)
            .map(|_| {
                let mut batch = Vec::new();
                (0..o.pipeline).for_each(|_| render_operation(o, &mut rng, &mut batch));
                batch
            })
            .collect();
        clients.push(Client {
            stream,
            batches,
            next: index,
            awaited: 0,
        });
    }
    let lines = lines_per_reply(&o.op) * o.pipeline;
    let begun = Instant::now();
    let end = Duration::from_secs_f64(o.seconds);
    for client in &mut clients {
        client.start(lines)?;
    }
    let mut batches_done = 0_u64;
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Vec::with_capacity(o.connections.max(1));
    while begun.elapsed() < end {
        events.clear();
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let client = &mut clients[event.data.u64() as usize];
            let n = client.stream.read(&mut buffer)?;
            if buffer[0] == b'-' {
                let text = String::from_utf8_lossy(&buffer[..n.min(200)]).into_owned();
                return Err(std::io::Error::other(text));
            }
            let got = memchr::memchr_iter(b'\n', &buffer[..n]).count();
            client.awaited = client.awaited.saturating_sub(got);
            if client.awaited == 0 {
                batches_done += 1;
                client.start(lines)?;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let ops = batches_done * o.pipeline as u64;
    println!("ops={ops} seconds={seconds:.3}");
    Ok(())
}

impl Client {
    fn start(&mut self, lines: usize) -> std::io::Result<()> {
        let batch = &self.batches[self.next % self.batches.len()];
        self.next += 1;
        self.awaited = lines;
        self.stream.write_all(batch)
    }
}

/// Writes every key once, in batches of a thousand; each SET answers with five bytes.
fn fill(o: &Options) -> std::io::Result<()> {
    let mut stream = Stream::open(o)?;
    let begun = Instant::now();
    let mut buffer = vec![0; 64 * 1024];
    let mut number = 0;
    while number < o.keys {
        let mut batch = Vec::new();
        let count = (o.keys - number).min(1000);
        for n in number..number + count {
            let (key, value) = match o.op.as_str() {
                "count" => (counter(n), b"1".to_vec()),
                _ => (key(o, n), value(o, n)),
            };
            render(&mut batch, &[b"SET", &key, &value]);
        }
        stream.write_all(&batch)?;
        stream.read_exactly(count as usize * b"+OK\r\n".len(), &mut buffer)?;
        number += count;
    }
    println!(
        "ops={} seconds={:.3}",
        o.keys,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Draws from a Zipf distribution over `0..n` by binary search in its cumulative weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: u64, skew: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=n).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Zipf(weights.collect())
    }

    fn draw(&self, rng: &mut SmallRng) -> u64 {
        let total = self.0.last().copied().unwrap_or(1.0);
        let at = rng.random_range(0.0..total);
        self.0.partition_point(|&w| w < at) as u64
    }
}

/// A cache in front of something: GET, and SET what was missing. The second half is counted.
fn hit(o: &Options) -> std::io::Result<()> {
    let mut stream = Stream::open(o)?;
    let zipf = Zipf::new(o.keys, o.skew);
    let mut rng = SmallRng::seed_from_u64(o.seed);
    let requests = (o.rate * o.seconds) as u64;
    let (mut hits, mut counted) = (0_u64, 0_u64);
    let mut buffer = vec![0; 64 * 1024];
    let begun = Instant::now();
    for turn in 0..requests.div_ceil(64) {
        let numbers: Vec<u64> = (0..64).map(|_| zipf.draw(&mut rng)).collect();
        let mut batch = Vec::new();
        for n in &numbers {
            render(&mut batch, &[b"GET", &key(o, *n)]);
        }
        stream.write_all(&batch)?;
        let missing = read_hits(&mut stream, &numbers, &value(o, 0), &mut buffer)?;
        if turn * 128 >= requests {
            counted += numbers.len() as u64;
            hits += (numbers.len() - missing.len()) as u64;
        }
        batch.clear();
        for n in &missing {
            render(&mut batch, &[b"SET", &key(o, *n), &value(o, 0)]);
        }
        stream.write_all(&batch)?;
        stream.read_exactly(missing.len() * b"+OK\r\n".len(), &mut buffer)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("ops={counted} seconds={seconds:.3} hits={hits}");
    Ok(())
}

/// Reads one GET reply per number; returns the numbers that were missing.
fn read_hits(
    stream: &mut Stream,
    numbers: &[u64],
    value: &[u8],
    buffer: &mut [u8],
) -> std::io::Result<Vec<u64>> {
    let found = format!("${}\r\n", value.len()).len() + value.len() + 2;
    let mut missing = Vec::new();
    let mut text = Vec::new();
    let mut at = 0;
    for number in numbers {
        loop {
            let rest = &text[at..];
            if rest.starts_with(b"$-1\r\n") {
                missing.push(*number);
                at += 5;
                break;
            }
            if rest.first().is_some_and(|b| *b != b'$') {
                return Err(std::io::Error::other(
                    String::from_utf8_lossy(rest).into_owned(),
                ));
            }
            if rest.len() >= found && !rest.starts_with(b"$-") {
                at += found;
                break;
            }
            let n = stream.read(buffer)?;
            text.extend_from_slice(&buffer[..n]);
        }
    }
    Ok(missing)
}

/// A light, even load whose every reply is timed from when the request was due.
fn paced(o: &Options) -> std::io::Result<()> {
    let mut stream = Stream::open(o)?;
    let mut rng = SmallRng::seed_from_u64(o.seed);
    let gap = Duration::from_secs_f64(1.0 / o.rate);
    let total = (o.rate * o.seconds) as u32;
    let mut times_us = Vec::with_capacity(total as usize);
    let mut buffer = vec![0; 64 * 1024];
    let begun = Instant::now();
    for turn in 0..total {
        let due = begun + gap * turn;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let mut request = Vec::new();
        render(
            &mut request,
            &[b"GET", &key(o, rng.random_range(0..o.keys))],
        );
        stream.write_all(&request)?;
        let mut lines = 2;
        while lines > 0 {
            let n = stream.read(&mut buffer)?;
            if buffer.starts_with(b"$-1") {
                break;
            }
            lines -= memchr::memchr_iter(b'\n', &buffer[..n]).count().min(lines);
        }
        times_us.push(due.elapsed().as_micros() as u64);
    }
    report(begun, times_us);
    Ok(())
}

/// A light, even load of writes, which are sent when they are due, whatever is still to be answered.
fn paced_writes(o: &Options) -> std::io::Result<()> {
    let mut stream = Stream::open(o)?;
    let mut rng = SmallRng::seed_from_u64(o.seed);
    let gap = Duration::from_secs_f64(1.0 / o.rate);
    let total = (o.rate * o.seconds) as u32;
    let mut times_us = Vec::with_capacity(total as usize);
    let mut buffer = vec![0; 64 * 1024];
    let value = value(o, 0);
    let mut sent = 0;
    let begun = Instant::now();
    while sent < total {
        let next = begun + gap * sent;
        if let Some(wait) = next.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let due = (begun.elapsed().as_secs_f64() * o.rate) as u32 + 1;
        let (mut batch, first) = (Vec::new(), sent);
        while sent < due.min(total) {
            let number = rng.random_range(0..o.keys);
            render(&mut batch, &[b"SET", &key(o, number), &value]);
            sent += 1;
        }
        stream.write_all(&batch)?;
        let mut answered = first;
        while answered < sent {
            let n = stream.read(&mut buffer)?;
            let lines = memchr::memchr_iter(b'\n', &buffer[..n]).count() as u32;
            let now = Instant::now();
            for turn in answered..(answered + lines).min(sent) {
                times_us.push((now - (begun + gap * turn)).as_micros() as u64);
            }
            answered += lines;
        }
    }
    report(begun, times_us);
    Ok(())
}

/// Prints the distribution of latencies.
fn report(begun: Instant, mut times_us: Vec<u64>) {
    times_us.sort_unstable();
    let at = |share: f64| times_us[((times_us.len() - 1) as f64 * share) as usize];
    println!(
        "ops={} seconds={:.3} p50_us={} p99_us={} p999_us={} max_us={}",
        times_us.len(),
        begun.elapsed().as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}
