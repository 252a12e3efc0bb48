//! Counters, kept by each worker on lines of its own and summed when somebody asks.
//!
//! A worker is the only writer of its [`WorkerStats`], so counting is a load and a store.
//! Counters that several threads or rare paths share are in [`Global`], with locked additions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::histogram::{Histogram, Snapshot};

/// Adds to a counter of which the caller is the only writer.
#[inline]
pub fn bump(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Defines a struct of counters with sums over workers and a reset.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Default)]
        #[repr(align(128))]
        pub struct $name { $($(#[$doc])* pub $field: AtomicU64,)* }

        impl $name {
            /// Sets every counter to 0.
            pub fn reset(&self) { $(self.$field.store(0, Relaxed);)* }
        }
    };
}

counters! {
    /// Counters of one worker.
    Counters {
        /// Commands that ran.
        commands,
        /// Successful reads of keys.
        hits,
        /// Reads of keys that are not there.
        misses,
        /// Keys that were found expired.
        expired,
        /// Fields of hashes that were found expired.
        expired_fields,
        /// Bytes read from clients.
        input_bytes,
        /// Bytes written to clients.
        output_bytes,
        /// Read system calls that gave data.
        reads,
        /// Write system calls.
        writes,
        /// Changes to the data set since the server started.
        changes,
        /// Turns of the event loop.
        turns,
        /// Nanoseconds spent in commands.
        command_nanos,
    }
}

counters! {
    /// Counters that anyone adds to.
    Global {
        /// Connections accepted.
        connections,
        /// Connections refused because of `maxclients`.
        rejected_connections,
        /// Keys evicted for memory.
        evicted,
        /// Clients evicted for memory.
        evicted_clients,
        /// Keys removed by the active expiry.
        actively_expired,
        /// Fields of hashes removed by the active expiry.
        actively_expired_fields,
        /// Times the active expiry stopped because its time was over.
        expire_time_caps,
        /// Error replies.
        error_replies,
        /// Of them, answers to a log that was played back.
        unexpected_error_replies,
        /// Clients closed at `client-output-buffer-limit`.
        output_limit_disconnections,
        /// Reply buffers that were made smaller.
        reply_buffer_shrinks,
        /// Reply buffers that were made bigger.
        reply_buffer_expands,
        /// Clients closed at `client-query-buffer-limit`.
        query_limit_disconnections,
        /// Nanoseconds spent on active expiry.
        expire_nanos,
    }
}

/// Statistics of one command on one worker.
#[derive(Default)]
pub struct CommandStats {
    /// Executions.
    pub calls: AtomicU64,
    /// Nanoseconds in all.
    pub nanos: AtomicU64,
    /// Refusals before execution.
    pub rejected: AtomicU64,
    /// Executions that answered an error.
    pub failed: AtomicU64,
    latencies: OnceLock<Histogram>,
}

impl CommandStats {
    /// Counts an execution; `track` keeps its duration for percentiles.
    #[inline(always)]
    pub fn record(&self, nanos: u64, track: bool) {
        bump(&self.calls, 1);
        self.record_more(nanos, track);
    }

    /// As [`CommandStats::record`], for an execution that was counted before.
    #[inline(always)]
    pub fn record_more(&self, nanos: u64, track: bool) {
        bump(&self.nanos, nanos);
        if track {
            self.latencies.get_or_init(Histogram::default).record(nanos);
        }
    }
}

/// Statistics of one worker.
pub struct WorkerStats {
    /// Plain counters.
    pub counters: Counters,
    /// By command id.
    pub commands: Box<[CommandStats]>,
    /// Id of the command that runs, or ran last in this turn, plus 1; 0 between turns.
    pub running: AtomicU64,
    /// The kernel's number of its thread; 0 until it runs.
    pub thread: AtomicI32,
    /// Its connections, those on their way to it included.
    pub connections: AtomicUsize,
}

/// Statistics of one command over all workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandTotals {
    /// Executions.
    pub calls: u64,
    /// Nanoseconds in all.
    pub nanos: u64,
    /// Refusals.
    pub rejected: u64,
    /// Failures.
    pub failed: u64,
}

/// All statistics of the process.
pub struct Stats {
    workers: Vec<Arc<WorkerStats>>,
    /// Of the thread that applies what the primary sends.
    applier: Arc<WorkerStats>,
    /// Shared counters.
    pub global: Global,
    errors: Mutex<BTreeMap<Box<[u8]>, u64>>,
}

impl Stats {
    /// Statistics for `workers` writers and `commands` commands.
    pub fn new(workers: usize, commands: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| Self::detached(commands)).collect(),
            applier: Self::detached(commands),
            global: Global::default(),
            errors: Mutex::default(),
        }
    }

    /// Statistics that count for nobody: of commands played back from a log.
    pub fn detached(commands: usize) -> Arc<WorkerStats> {
        Arc::new(WorkerStats {
            counters: Counters::default(),
            commands: (0..commands).map(|_| CommandStats::default()).collect(),
            running: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            connections: AtomicUsize::new(0),
        })
    }

    /// The statistics that worker `index` writes.
    pub fn worker(&self, index: usize) -> Arc<WorkerStats> {
        Arc::clone(&self.workers[index])
    }

    /// The statistics of the thread that applies what the primary sends.
    pub fn applier(&self) -> Arc<WorkerStats> {
        Arc::clone(&self.applier)
    }

    /// The statistics of each thread that runs commands.
    fn all(&self) -> impl Iterator<Item = &Arc<WorkerStats>> {
        self.workers.iter().chain([&self.applier])
    }

    /// The statistics of each worker.
    pub fn workers(&self) -> &[Arc<WorkerStats>] {
        &self.workers
    }

    /// A counter's sum over all threads.
    pub fn sum(&self, pick: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        let values = self.all().map(|w| pick(&w.counters).load(Relaxed));
        values.fold(0, u64::wrapping_add)
    }

    /// A command's statistics over all workers.
    pub fn command(&self, id: usize) -> CommandTotals {
        let mut totals = CommandTotals::default();
        for stats in self.all().map(|w| &w.commands[id]) {
            totals.calls += stats.calls.load(Relaxed);
            totals.nanos += stats.nanos.load(Relaxed);
            totals.rejected += stats.rejected.load(Relaxed);
            totals.failed += stats.failed.load(Relaxed);
        }
        totals
    }

    /// A command's latencies over all workers; `None` when none were tracked.
    pub fn latencies(&self, id: usize) -> Option<Snapshot> {
        let mut all = Snapshot::default();
        let tracked = self
            .workers
            .iter()
            .filter_map(|w| w.commands[id].latencies.get());
        tracked.for_each(|h| all.add(h));
        (all.total() > 0).then_some(all)
    }

    /// Counts an error reply by its code, the first word of its line.
    pub fn count_error(&self, line: &[u8]) {
        self.global.error_replies.fetch_add(1, Relaxed);
        let end = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        let code = &line[..end];
        let mut errors = self.errors.lock();
        match errors.get_mut(code) {
            Some(count) => *count += 1,
            None => drop(errors.insert(code.into(), 1)),
        }
    }

    /// Error replies by code, sorted.
    pub fn errors(&self) -> Vec<(Box<[u8]>, u64)> {
        let errors = self.errors.lock();
        errors
            .iter()
            .map(|(code, count)| (code.clone(), *count))
            .collect()
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for worker in self.workers.iter().chain([&self.applier]) {
            // The changes counter is no statistic: saving compares it with what was saved.
            let changes = worker.counters.changes.load(Relaxed);
            worker.counters.reset();
            worker.counters.changes.store(changes, Relaxed);
            for stats in &worker.commands {
                for counter in [&stats.calls, &stats.nanos, &stats.rejected, &stats.failed] {
                    counter.store(0, Relaxed);
                }
                if let Some(latencies) = stats.latencies.get() {
                    latencies.reset();
                }
            }
        }
        self.global.reset();
        self.errors.lock().clear();
    }
}
