//! Periodic work, on a thread of its own so that no command waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::balance::Balancer;
use crate::base::alloc;
use crate::base::clock::unix_ms;
use crate::dispatch::context::Shared;
use crate::dispatch::upkeep::Upkeep;
use crate::net::worker::Link;
use crate::observe::rates::Rate;

/// Runs until `stop` is raised, `hz` times a second.
pub fn run(shared: &Arc<Shared>, links: &[Arc<Link>], stop: &AtomicBool) {
    let mut upkeep = Upkeep::default();
    let mut balancer = Balancer::new();
    let mut heap = Heap::default();
    while !stop.load(Relaxed) {
        let hz = shared.config.settings().hz.clamp(1, 500) as u64;
        std::thread::sleep(Duration::from_millis(1000 / hz));
        shared.status.stall.wait();
        if shared.status.cron_paused.load(Relaxed) {
            continue;
        }
        balancer.look(links);
        heap.watch(shared);
        upkeep.slow(shared);
        sample_rates(shared);
    }
}

fn sample_rates(shared: &Shared) {
    let (now_ms, stats) = (unix_ms(), &shared.stats);
    let counts = [
        (Rate::Commands, stats.sum(|c| &c.commands)),
        (Rate::Input, stats.sum(|c| &c.input_bytes)),
        (Rate::Output, stats.sum(|c| &c.output_bytes)),
    ];
    for (rate, count) in counts {
        shared.rates.sample(rate, now_ms, count);
    }
}

/// Memory in use from which huge pages are worth their rounding, in bytes.
const BIG_HEAP: usize = 24 << 20;

/// What is known of the heap from the last look.
#[derive(Default)]
struct Heap {
    advised: usize,
}

impl Heap {
    /// Notes the peak, and has the kernel back a heap that grew with huge pages.
    fn watch(&mut self, shared: &Shared) {
        let used = alloc::used();
        shared.status.peak_memory.fetch_max(used, Relaxed);
        // jemalloc maps ever bigger pieces, so an eighth more is when there may be a new one.
        if used > BIG_HEAP && used > self.advised + self.advised / 8 {
            self.advised = used;
            alloc::advise_huge_pages();
        }
    }
}
