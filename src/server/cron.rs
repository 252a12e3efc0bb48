//! Periodic work, on a thread of its own so that no command waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::balance::Balancer;
use crate::base::alloc;
use crate::base::clock::unix_ms;
use crate::dispatch::context::Shared;
use crate::dispatch::route;
use crate::dispatch::tracking;
use crate::dispatch::upkeep::Upkeep;
use crate::durability::{append_only, save};
use crate::net::worker::Link;
use crate::observe::rates::Rate;
use crate::replication::primary;

/// How many keys of which clients keep copies are forgotten in a run, at most, when there are too many.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// Runs until `stop` is raised, `hz` times a second.
pub fn run(shared: &Arc<Shared>, links: &[Arc<Link>], stop: &AtomicBool) {
    let mut upkeep = Upkeep::default();
    let mut balancer = Balancer::new();
    let mut behind = false;
    let (mut seconds, mut last_second) = (0_u64, unix_ms() / 1000);
    while !stop.load(Relaxed) {
        let hz = shared.config.settings().hz.clamp(1, 500) as u64;
        // Eviction that ran out of its time goes on almost at once, as Redis' timer for it does.
        let pause_ms = if behind { 1 } else { 1000 / hz };
        std::thread::sleep(Duration::from_millis(pause_ms));
        shared.status.stall.wait();
        if shared.status.cron_paused.load(Relaxed) {
            continue;
        }
        let _turn = shared.turns.enter_cron();
        shared.status.peak_memory.fetch_max(alloc::used(), Relaxed);
        balancer.look(links);
        crate::commands::migrate::close_idle();
        save::save_if_due(shared);
        primary::ask_what_is_owed(shared);
        append_only::rewrite_if_due(shared);
        if unix_ms() / 1000 != last_second {
            last_second = unix_ms() / 1000;
            // From 1 on: what is due every so many seconds is not due at the start.
            seconds += 1;
            primary::cron(shared, seconds);
            route::recheck_blocked(shared);
            if seconds.is_multiple_of(5) {
                append_only::tell_of_stall(shared);
                log_sizes(shared);
                log_loading(shared);
            }
        }
        let max_keys = shared.config.settings().tracking_table_max_keys;
        tracking::forget_surplus(shared, max_keys, FORGOTTEN_AT_ONCE);
        behind = upkeep.slow(shared);
        sample_rates(shared);
    }
}

/// How far loading is, if it takes that long.
fn log_loading(shared: &Shared) {
    let loading = &shared.durability.loading;
    if loading.is_under_way() {
        let databases = 0..shared.keyspace.databases();
        let keys = databases.map(|db| shared.keyspace.len(db)).sum();
        tracing::info!("{}", loading.describe(keys, unix_ms() / 1000));
    }
}

/// How much there is in each database, and how many clients: lines that only a log at a low level
/// shows.
fn log_sizes(shared: &Shared) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for db in 0..shared.keyspace.databases() {
        let keys = shared.keyspace.len(db);
        if keys > 0 {
            let (volatile, slots) = (
                shared.keyspace.volatile(db),
                shared.keyspace.footprint(db).0,
            );
            tracing::debug!("DB {db}: {keys} keys ({volatile} volatile) in {slots} slots HT.");
        }
    }
    tracing::trace!(
        "{} clients connected ({} replicas), {} bytes in use",
        shared.clients.len(),
        shared.replication.len(),
        alloc::used()
    );
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
