//! Periodic work, on a thread of its own so that no command waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::base::alloc;
use crate::base::clock::unix_ms;
use crate::dispatch::context::Shared;
use crate::dispatch::upkeep::Upkeep;
use crate::observe::rates::Rate;

/// Runs until `stop` is raised, `hz` times a second.
pub fn run(shared: &Arc<Shared>, stop: &AtomicBool) {
    let mut upkeep = Upkeep::default();
    while !stop.load(Relaxed) {
        let hz = shared.config.settings().hz.clamp(1, 500) as u64;
        std::thread::sleep(Duration::from_millis(1000 / hz));
        shared.status.stall.wait();
        shared.status.peak_memory.fetch_max(alloc::used(), Relaxed);
        upkeep.slow(shared);
        let (now_ms, stats) = (unix_ms(), &shared.stats);
        shared
            .rates
            .sample(Rate::Commands, now_ms, stats.sum(|c| &c.commands));
        shared
            .rates
            .sample(Rate::Input, now_ms, stats.sum(|c| &c.input_bytes));
        shared
            .rates
            .sample(Rate::Output, now_ms, stats.sum(|c| &c.output_bytes));
    }
}
