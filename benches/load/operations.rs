//! The steady load: one operation, over and over, on every connection.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::event::epoll;

use crate::sets::{counter, element, key, number, scatter, value};
use crate::{Options, Stream, lines, refuse_errors, render};

/// Keys rendered ahead for each connection; their batches are sent in turn. Fifty connections
/// touch some 200,000 keys, more than any cache holds.
const RENDERED_KEYS: u64 = 4096;
/// Without an answer for so long, the load gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// An operation that is measured. What it works on is filled in before, see [`crate::sets`] and
/// `benches/run`.
pub(crate) struct Operation {
    name: &'static str,
    /// Lines of its reply.
    lines: usize,
    /// Keys or elements that one request names.
    width: u64,
    /// True when no two of `--requests` are the same: all are rendered ahead.
    distinct: bool,
    /// Renders request number `n`.
    render: fn(&Options, u64, &mut SmallRng, &mut Vec<u8>),
}

const fn row(
    name: &'static str,
    lines: usize,
    render: fn(&Options, u64, &mut SmallRng, &mut Vec<u8>),
) -> Operation {
    Operation {
        name,
        lines,
        width: 1,
        distinct: false,
        render,
    }
}

const fn distinct(operation: Operation) -> Operation {
    Operation {
        distinct: true,
        ..operation
    }
}

/// Lines of an array of so many bulk strings.
const fn array(len: usize) -> usize {
    1 + 2 * len
}

/// All operations. No reply's text may have lines of its own.
const ALL: &[Operation] = &[
    row("get", 2, |o, _, rng, out| {
        render(out, &[b"GET", &any_key(o, rng)])
    }),
    row("set", 1, |o, n, rng, out| {
        render(out, &[b"SET", &any_key(o, rng), &value(o, n)])
    }),
    row("incr", 1, |o, _, rng, out| {
        render(out, &[b"INCR", &counter(rng.random_range(0..o.keys))]);
    }),
    Operation {
        width: 10,
        ..row("mset", 1, mset)
    },
    row("lpush", 1, |o, n, _, out| {
        render(out, &[b"LPUSH", b"mylist", &value(o, n)])
    }),
    row("rpop", 2, |_, _, _, out| render(out, &[b"RPOP", b"mylist"])),
    distinct(row("sadd", 1, |o, n, _, out| {
        render(out, &[b"SADD", b"myset", &element(scatter(o, n))]);
    })),
    distinct(row("hset", 1, |o, n, _, out| {
        render(
            out,
            &[b"HSET", b"myhash", &element(scatter(o, n)), &value(o, n)],
        );
    })),
    distinct(row("hset_small", 1, |o, n, _, out| {
        let name = format!("hash:{:012}", scatter(o, n));
        render(out, &[b"HSET", name.as_bytes(), b"field", &value(o, n)]);
    })),
    distinct(row("zadd", 1, |o, n, rng, out| {
        let score = number(rng.random_range(0..o.keys));
        render(out, &[b"ZADD", b"myzset", &score, &element(scatter(o, n))]);
    })),
    row("xadd", 2, |o, n, _, out| {
        render(out, &[b"XADD", b"mystream", b"*", b"field", &value(o, n)]);
    }),
    row("lrange_100", array(100), |_, _, _, out| {
        render(out, &[b"LRANGE", b"mylist100", b"0", b"99"]);
    }),
    row("zrange_100", array(100), |_, _, _, out| {
        render(out, &[b"ZRANGE", b"myzset100", b"0", b"99"]);
    }),
    row("zrange_100_of_all", array(100), |o, _, rng, out| {
        let first = rng.random_range(0..o.keys.saturating_sub(100).max(1));
        render(
            out,
            &[b"ZRANGE", b"myzset", &number(first), &number(first + 99)],
        );
    }),
    row("sinter", array(500), |_, _, _, out| {
        render(out, &[b"SINTER", b"set1", b"set2"])
    }),
    row("sinter_ints", array(500), |_, _, _, out| {
        render(out, &[b"SINTER", b"ints1", b"ints2"])
    }),
];

fn any_key(o: &Options, rng: &mut SmallRng) -> Vec<u8> {
    key(o, rng.random_range(0..o.keys))
}

fn mset(o: &Options, n: u64, rng: &mut SmallRng, out: &mut Vec<u8>) {
    let pairs: Vec<Vec<u8>> = (0..10)
        .flat_map(|_| [any_key(o, rng), value(o, n)])
        .collect();
    let mut args: Vec<&[u8]> = vec![b"MSET"];
    args.extend(pairs.iter().map(Vec::as_slice));
    render(out, &args);
}

/// The operation of that name.
pub(crate) fn find(name: &str) -> Option<&'static Operation> {
    ALL.iter().find(|operation| operation.name == name)
}

/// One connection, with its batches and the lines still awaited.
struct Client {
    stream: Stream,
    batches: Vec<Vec<u8>>,
    next: usize,
    awaited: usize,
}

impl Client {
    fn start(&mut self, lines: usize) -> std::io::Result<()> {
        let batch = &self.batches[self.next % self.batches.len()];
        self.next += 1;
        self.awaited = lines;
        self.stream.write_all(batch)
    }
}

/// Connects, and renders what each connection is going to send.
fn clients(o: &Options, operation: &Operation, poll: &OwnedFd) -> std::io::Result<Vec<Client>> {
    let mut rng = SmallRng::seed_from_u64(o.seed);
    let (pipeline, connections) = (o.pipeline as u64, o.connections as u64);
    let rendered = match operation.distinct && o.requests > 0 {
        true => o.requests.div_ceil(pipeline * connections),
        false => (RENDERED_KEYS / (pipeline * operation.width)).max(4),
    };
    let mut clients = Vec::new();
    for index in 0..connections {
        let stream = Stream::open(o)?;
        let data = epoll::EventData::new_u64(index);
        epoll::add(poll, stream.fd(), data, epoll::EventFlags::IN)?;
        let batches = (0..rendered).map(|turn| {
            let mut batch = Vec::new();
            let first = (turn * connections + index) * pipeline;
            (first..first + pipeline).for_each(|n| (operation.render)(o, n, &mut rng, &mut batch));
            batch
        });
        clients.push(Client {
            stream,
            batches: batches.collect(),
            // Distinct requests are sent from the first on, others from anywhere.
            next: if operation.distinct {
                0
            } else {
                index as usize
            },
            awaited: 0,
        });
    }
    Ok(clients)
}

/// Keeps every connection busy with one batch at a time from a single thread, until the time is up
/// or, when `--requests` says how many, all are answered.
pub(crate) fn run(o: &Options, operation: &Operation) -> std::io::Result<()> {
    let poll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut clients = clients(o, operation, &poll)?;
    let lines_per_batch = operation.lines * o.pipeline;
    let batches = match o.requests {
        0 => u64::MAX,
        requests => requests / o.pipeline as u64,
    };
    let begun = Instant::now();
    let end = match o.requests {
        0 => Duration::from_secs_f64(o.seconds),
        _ => Duration::MAX,
    };
    let (mut started, mut done) = (0, 0);
    for client in clients
        .iter_mut()
        .take(batches.min(o.connections as u64) as usize)
    {
        client.start(lines_per_batch)?;
        started += 1;
    }
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Vec::with_capacity(o.connections.max(1));
    let patience = rustix::time::Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    // What was sent is answered: the server's time for it counts.
    while done < started {
        events.clear();
        epoll::wait(
            &poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        )?;
        if events.is_empty() {
            return Err(std::io::Error::other("replies are missing"));
        }
        for event in &events {
            let client = &mut clients[event.data.u64() as usize];
            let n = client.stream.read(&mut buffer)?;
            refuse_errors(&buffer[..n])?;
            client.awaited = client.awaited.saturating_sub(lines(&buffer[..n]));
            if client.awaited == 0 {
                done += 1;
                if started < batches && begun.elapsed() < end {
                    client.start(lines_per_batch)?;
                    started += 1;
                }
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("ops={} seconds={seconds:.3}", done * o.pipeline as u64);
    Ok(())
}
