//! How smoothly one big set, hash and sorted set grow: ten million members are inserted one by one, each insert timed by
//! the thread's own processor time, so that a step that rewrites too much shows and a neighbour on
//! the machine does not. Before that, what an operation on a million members takes, and the bytes
//! that a member or a field takes.
//!
//!     cargo bench --bench table [-- MEMBERS]

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use tessera::base::{alloc, heap, random};
use tessera::types::table::{Keys, Pairs, Table};
use tessera::types::zset::{Limits, ZSet};

const MEMBERS: usize = 10_000_000;
const MILLION: usize = 1_000_000;
const LIMITS: Limits = Limits {
    entries: 128,
    value: 64,
};

/// Processor time of this thread in nanoseconds.
fn processor_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn per_operation(what: &str, mut operation: impl FnMut(usize)) {
    random::seed(1);
    let start = processor_nanos();
    (0..MILLION).for_each(|_| operation(random::below(MILLION)));
    let nanos = (processor_nanos() - start) as f64 / MILLION as f64;
    println!("{what}: {nanos:.0} ns");
}

fn member(n: usize, buffer: &mut Vec<u8>) -> &[u8] {
    use std::io::Write;
    buffer.clear();
    write!(buffer, "member:{n:08}").expect("vectors take all");
    buffer
}

fn million() {
    let mut key = Vec::new();
    let before = alloc::used();
    let mut set: Table<Keys> = Table::new();
    per_operation("format a member", |n| {
        std::hint::black_box(member(n, &mut key));
    });
    per_operation("add random members", |n| {
        set.insert(member(n, &mut key), b"");
    });
    (0..MILLION).for_each(|n| {
        set.insert(member(n, &mut key), b"");
    });
    let bytes = alloc::used() - before;
    println!("set: {:.1} bytes a member", bytes as f64 / set.len() as f64);
    per_operation("add members that are there", |n| {
        set.insert(member(n, &mut key), b"");
    });
    per_operation("draw a member", |_| {
        std::hint::black_box(set.random());
    });
    let start = processor_nanos();
    let (mut cursor, mut calls) = (0, 0);
    loop {
        cursor = set.scan(cursor, 10, |key, _| {
            std::hint::black_box(key);
        });
        calls += 1;
        if cursor == 0 {
            break;
        }
    }
    let nanos = processor_nanos() - start;
    println!("scan: {} ns a call of 10", nanos / calls);
    per_operation("remove random members", |n| {
        set.remove(member(n, &mut key));
    });
    drop(set);
    let before = alloc::used();
    let mut hash: Table<Pairs> = Table::new();
    per_operation("set random fields", |n| {
        hash.insert(member(n, &mut key), b"0123456789abcdef");
    });
    let bytes = alloc::used() - before;
    println!(
        "hash: {:.1} bytes a field",
        bytes as f64 / hash.len() as f64
    );
    per_operation("set fields that are there", |n| {
        hash.insert(member(n, &mut key), b"0123456789ABCDEF");
    });
}

/// Inserts members one by one and tells of the slowest.
fn grow(what: &str, members: usize, mut insert: impl FnMut(usize, &[u8])) {
    let (mut slowest, mut at, mut above) = (0, 0, 0);
    let mut key = Vec::new();
    let start = Instant::now();
    for n in 0..members {
        let key = member(n, &mut key);
        let before = processor_nanos();
        insert(n, key);
        let nanos = processor_nanos() - before;
        above += usize::from(nanos > 200_000);
        if nanos > slowest {
            (slowest, at) = (nanos, n);
        }
    }
    println!(
        "{what}: {members} inserts in {:.1} s, slowest {:.0} us (number {at}), {above} above 200 us",
        start.elapsed().as_secs_f64(),
        slowest as f64 / 1e3,
    );
}

fn main() {
    heap::use_huge_pages();
    // As the server does, or what one collection leaves would be given back in the midst of the next.
    let background = tikv_jemalloc_ctl::background_thread::write(true);
    if let Err(error) = background {
        eprintln!("the allocator has no background thread: {error}");
    }
    million();
    let members = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let members: usize = members.unwrap_or(MEMBERS);
    let mut set: Table<Keys> = Table::new();
    grow("set", members, |_, key| {
        set.insert(key, b"");
    });
    drop(set);
    let mut hash: Table<Pairs> = Table::new();
    grow("hash", members, |_, key| {
        hash.insert(key, b"0123456789abcdef");
    });
    drop(hash);
    let mut zset = ZSet::new(LIMITS, 0);
    // An odd factor scatters the scores: no two members come in order.
    grow("sorted set", members, |n, key| {
        let score = (n as u32).wrapping_mul(2_654_435_761);
        zset.insert(f64::from(score), key, LIMITS);
    });
}
