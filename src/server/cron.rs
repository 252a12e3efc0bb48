//! Periodic work, on a thread of its own so that no command waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::base::alloc;
use crate::dispatch::context::Shared;

/// Runs until `stop` is raised, `hz` times a second.
pub fn run(shared: &Arc<Shared>, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        let hz = shared.config.settings().hz.clamp(1, 500) as u64;
        std::thread::sleep(Duration::from_millis(1000 / hz));
        shared.status.stall.wait();
        shared.status.peak_memory.fetch_max(alloc::used(), Relaxed);
    }
}
