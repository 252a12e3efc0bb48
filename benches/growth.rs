//! How smoothly the keyspace grows and shrinks: ten million keys are inserted one by one, each
//! insert timed by the thread's own processor time, so that a table that rehashes in one go shows
//! and a neighbour on the machine does not. Then all are deleted, and the resident memory tells
//! what came back to the system.
//!
//!     cargo bench --bench growth [-- KEYS]

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tessera::base::alloc;
use tessera::base::clock::Now;
use tessera::base::heap;
use tessera::config::Settings;
use tessera::dispatch::context::env_of;
use tessera::keyspace::db::{Db, Effects, Env, Ttl};
use tessera::keyspace::entry::NewValue;
use tessera::keyspace::shards::Keyspace;
use tessera::observe::process::resident_bytes;

const KEYS: usize = 10_000_000;
/// Bytes of a value.
const VALUE: &[u8] = b"0123456789abcdef";
/// Durations in nanoseconds from which an insert counts as slow.
const SLOW: u64 = 200_000;
const VERY_SLOW: u64 = 1_000_000;

/// What a series of operations took, by processor time.
#[derive(Default)]
struct Durations {
    slowest_nanos: u64,
    /// Number of the slowest.
    slowest: usize,
    slow: usize,
    very_slow: usize,
}

impl Durations {
    fn note(&mut self, index: usize, nanos: u64) {
        if nanos > self.slowest_nanos {
            (self.slowest_nanos, self.slowest) = (nanos, index);
        }
        self.slow += usize::from(nanos > SLOW);
        self.very_slow += usize::from(nanos > VERY_SLOW);
    }

    fn print(&self, what: &str, count: usize, elapsed: Duration) {
        println!(
            "{what}: {count} in {:.1} s, slowest {:.1} us (number {}), {} above {} us, {} above {} us",
            elapsed.as_secs_f64(),
            self.slowest_nanos as f64 / 1e3,
            self.slowest,
            self.slow,
            SLOW / 1000,
            self.very_slow,
            VERY_SLOW / 1000,
        );
    }
}

/// Processor time of this thread in nanoseconds.
fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Runs `work` on each key as a command would: lock, change, unlock, free. Keys come in no order.
fn each_key(
    keyspace: &Keyspace,
    env: &Env,
    count: usize,
    mut work: impl FnMut(&mut Db<'_, '_>, &[u8]),
) -> Durations {
    let (mut effects, mut durations) = (Effects::default(), Durations::default());
    for index in 0..count {
        // An odd factor modulo a power of two visits every number once.
        let key = format!(
            "key:{:016x}",
            (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        );
        let key = key.as_bytes();
        let begin = cpu_nanos();
        let mut locks = keyspace.lock_one(keyspace.hash(key));
        work(
            &mut Db::new(keyspace, &mut locks, env, &mut effects, 0, &[]),
            key,
        );
        drop(locks);
        effects.free(&keyspace.lazyfree);
        effects.clear();
        durations.note(index, cpu_nanos() - begin);
    }
    durations
}

fn main() {
    // `cargo bench` adds words of its own.
    let keys = std::env::args().find_map(|word| word.parse().ok());
    let count: usize = keys.unwrap_or(KEYS);
    // As the server does (`jemalloc-bg-thread`), or nothing would come back to an idle process.
    let background = tikv_jemalloc_ctl::background_thread::write(true);
    if let Err(error) = background {
        eprintln!("the allocator has no background thread: {error}");
    }
    heap::use_huge_pages();
    let keyspace = Keyspace::new(1, false);
    let env = env_of(&Settings::default(), Now::read());
    let (used_before, resident_before) = (alloc::used(), resident_bytes());

    let begin = Instant::now();
    let inserts = each_key(&keyspace, &env, count, |db, key| {
        db.put(key, NewValue::Bytes(VALUE), Ttl::Clear);
    });
    inserts.print("inserts", count, begin.elapsed());
    let (used_full, resident_full) = (alloc::used(), resident_bytes());
    println!(
        "full: {} keys, {:.1} MB allocated, {:.1} MB resident, {:.1} bytes allocated per key",
        keyspace.len(0),
        megabytes(used_full - used_before),
        megabytes(resident_full.saturating_sub(resident_before)),
        (used_full - used_before) as f64 / count.max(1) as f64,
    );

    let begin = Instant::now();
    let deletes = each_key(&keyspace, &env, count, |db, key| {
        db.remove(key);
    });
    deletes.print("deletes", count, begin.elapsed());
    println!(
        "empty: {} keys, {:.1} MB allocated",
        keyspace.len(0),
        megabytes(alloc::used().saturating_sub(used_before)),
    );
    // The allocator gives pages back over some seconds, so that reuse costs nothing.
    for seconds in [0, 2, 10] {
        std::thread::sleep(Duration::from_secs(seconds));
        let now = resident_bytes();
        println!(
            "{seconds:>3} s later: {:.1} MB resident, {:.0} % of the growth came back",
            megabytes(now.saturating_sub(resident_before)),
            100.0 * resident_full.saturating_sub(now) as f64
                / resident_full.saturating_sub(resident_before).max(1) as f64,
        );
    }
}
