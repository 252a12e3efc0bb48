//! What is counted and told of commands: statistics, the slow log, the latency monitor, errors.

use super::command::Flags;
use super::context::{Shared, Worker};
use super::error::Error;
use super::execute::Invocation;
use super::table::Known;
use crate::client::registry::Handle;
use crate::observe::stats::bump;
use crate::resp::write::Output;

/// Counts a command that just ended.
#[inline(always)]
pub(super) fn ended(
    shared: &Shared,
    worker: &mut Worker,
    client: &Handle,
    invocation: Invocation<'_>,
    nanos: u64,
) {
    let known = invocation.known;
    let tracked = worker.settings.latency_tracking;
    worker.stats.commands[known.id].record(nanos, tracked);
    bump(&worker.stats.counters.commands, 1);
    bump(&worker.stats.counters.command_nanos, nanos);
    if nanos >= worker.notable_nanos {
        notable(shared, worker, client, invocation, nanos);
    }
}

/// Tells the slow log and the latency monitor of a command that one of them may want.
#[cold]
fn notable(
    shared: &Shared,
    worker: &Worker,
    client: &Handle,
    invocation: Invocation<'_>,
    nanos: u64,
) {
    let settings = &worker.settings;
    let (seconds, micros) = (worker.now.ms / 1000, nanos / 1000);
    slow(shared, worker, client, invocation, micros);
    let threshold = settings.latency_monitor_threshold;
    if threshold > 0 && micros / 1000 >= threshold as u64 {
        let event = if invocation.known.flags.has(Flags::FAST) {
            "fast-command"
        } else {
            "command"
        };
        let millis = (micros / 1000) as u32;
        shared.latency.record(event, seconds, millis);
    }
}

/// Counts a command that waits from now on: it is one call, whatever becomes of it.
#[cold]
pub(super) fn waits(worker: &Worker, known: &Known, nanos: u64) {
    worker.stats.commands[known.id].record(nanos, false);
    bump(&worker.stats.counters.commands, 1);
    bump(&worker.stats.counters.command_nanos, nanos);
}

/// Counts the end of a wait by a reply that is neither a timeout nor an acknowledgement. `nanos`:
/// what the command took before it waited, which Redis counts again here, and the reply.
#[cold]
pub(super) fn waited(
    shared: &Shared,
    worker: &Worker,
    client: &Handle,
    invocation: Invocation<'_>,
    nanos: (u64, u64),
) {
    let known = invocation.known;
    let (settings, total) = (&worker.settings, nanos.0 + nanos.1);
    worker.stats.commands[known.id].record_more(total, settings.latency_tracking);
    slow(shared, worker, client, invocation, total / 1000);
    let (threshold, millis) = (settings.latency_monitor_threshold, nanos.1 / 1_000_000);
    if threshold > 0 && millis >= threshold as u64 {
        let seconds = worker.now.ms / 1000;
        let latency = &shared.latency;
        latency.record("command-unblocking", seconds, millis as u32);
    }
}

/// Tells the slow log, if it wants to know of that.
fn slow(
    shared: &Shared,
    worker: &Worker,
    client: &Handle,
    invocation: Invocation<'_>,
    micros: u64,
) {
    let Invocation { known, args, .. } = invocation;
    let settings = &worker.settings;
    let slower_than = settings.slowlog_log_slower_than;
    if slower_than < 0 || micros < slower_than as u64 || known.flags.has(Flags::SKIP_SLOWLOG) {
        return;
    }
    let name = client.name.read().clone();
    let client = (&client.address[..], &name[..]);
    let (seconds, max_len) = (worker.now.ms / 1000, settings.slowlog_max_len as usize);
    let args = known.row.shown(args);
    shared
        .slowlog
        .record(seconds, micros, &args, client, max_len);
}

/// Counts and answers the error of a command.
#[cold]
pub fn failed(shared: &Shared, worker: &Worker, known: &Known, out: &mut Output, error: &Error) {
    let text = error.text();
    shared.stats.count_error(&text);
    bump(&worker.stats.commands[known.id].failed, 1);
    out.error_bytes(&text);
}
