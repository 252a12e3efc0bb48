//! LATENCY DOCTOR and MEMORY DOCTOR: what the numbers suggest, in words.

use std::fmt::Write as _;

use super::latency::{Latency, Series};
use crate::config::Settings;

/// The report about latency.
pub fn latency(latency: &Latency, settings: &Settings) -> String {
    let events = latency.all();
    if events.is_empty() && settings.latency_monitor_threshold == 0 {
        return "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis \
                instance. Enable it with \"CONFIG SET latency-monitor-threshold <milliseconds>\".\n"
            .to_owned();
    }
    if events.is_empty() {
        return "Dave, no latency spike was observed during the lifetime of this Redis instance, \
                not in the slightest bit. There is nothing to worry about.\n"
            .to_owned();
    }
    let mut report = "Dave, I have observed latency spikes in this Redis instance. You don't mind \
                      talking about it, do you Dave?\n\n"
        .to_owned();
    for (index, (name, series)) in events.iter().enumerate() {
        let (average, deviation, period) = analyse(series);
        // Writing to a String cannot fail.
        let _ = writeln!(
            report,
            "{}. {name}: {} latency spikes (average {average}ms, mean deviation {deviation}ms, \
             period {period:.2} sec). Worst all time event {}ms.",
            index + 1,
            series.samples.len(),
            series.max_ms
        );
    }
    report.push_str("\nI have a few advices for you:\n\n");
    let threshold_us = settings.latency_monitor_threshold * 1000;
    for (name, _) in &events {
        report.push_str(&advice(name, settings, threshold_us));
    }
    report
}

/// Average, mean absolute deviation (milliseconds) and seconds between spikes.
fn analyse(series: &Series) -> (u64, u64, f64) {
    let count = series.samples.len().max(1) as u64;
    let sum: u64 = series.samples.iter().map(|(_, ms)| u64::from(*ms)).sum();
    let average = sum / count;
    let deviation: u64 = series
        .samples
        .iter()
        .map(|(_, ms)| u64::from(*ms).abs_diff(average))
        .sum();
    let first = series.samples.first().map_or(0, |(time, _)| *time);
    let elapsed = (crate::base::clock::unix_ms() / 1000 - first).max(0);
    (average, deviation / count, elapsed as f64 / count as f64)
}

fn advice(event: &str, settings: &Settings, threshold_us: i64) -> String {
    match event {
        "command" if settings.slowlog_log_slower_than < 0 => format!(
            "- Some commands are slow, and the slow log is switched off. 'CONFIG SET \
             slowlog-log-slower-than {threshold_us}' makes it tell which.\n"
        ),
        "command" if settings.slowlog_log_slower_than > threshold_us => format!(
            "- The slow log only keeps what is slower than the latency threshold. 'CONFIG SET \
             slowlog-log-slower-than {threshold_us}' makes it keep all of them.\n"
        ),
        "command" => "- Look into the slow log for the commands that take so long.\n".to_owned(),
        "fast-command" => "- Commands that need next to no time were slow: the process does not \
             get the processor when it wants it. Look for other load on the machine, for a limit \
             on its processor time, and measure with 'redis-cli --intrinsic-latency 100'.\n"
            .to_owned(),
        "expire-cycle" => "- Removing expired keys takes long at a time. A higher 'hz' spreads \
             the work.\n"
            .to_owned(),
        "eviction-cycle" | "eviction-del" => "- Evicting keys takes long. Lower 'maxmemory' in \
             small steps, and split values that are very big.\n"
            .to_owned(),
        _ => String::new(),
    }
}

/// What MEMORY DOCTOR looks at, in bytes and ratios.
pub struct MemoryFigures {
    /// `used_memory`
    pub used: usize,
    /// `used_memory_peak`
    pub peak: usize,
    /// Resident memory over used memory.
    pub fragmentation: f64,
    /// Memory of clients, on average.
    pub per_client: usize,
}

/// The report about memory.
pub fn memory(figures: &MemoryFigures) -> String {
    if figures.used < 5 << 20 {
        return "Hi Sam, this instance is empty or is using very little memory, my issues detector \
                can't be used in these conditions. Please, fill it with some data first.\n"
            .to_owned();
    }
    let mut findings = String::new();
    if figures.peak as f64 / figures.used as f64 > 1.5 {
        findings.push_str(
            " * Peak memory: the instance once used more than 150% of what it uses now. Memory \
             that the allocator keeps since then makes the resident size look high; MEMORY PURGE \
             returns what can be returned.\n\n",
        );
    }
    if figures.fragmentation > 1.4 {
        findings.push_str(
            " * High total RSS: the process holds more than 1.4 times the memory that the data \
             needs. After a peak that is to be expected; otherwise the mix of value sizes \
             fragments the heap.\n\n",
        );
    }
    if figures.per_client > 200 << 10 {
        findings.push_str(
            " * Big client buffers: clients hold more than 200K each on average. CLIENT LIST \
             tells which do not read their replies or send huge pipelines.\n\n",
        );
    }
    if findings.is_empty() {
        return "Hi Sam, I can't find any memory issue in your instance. I can only account for \
                what occurs on this base.\n"
            .to_owned();
    }
    format!(
        "Sam, I detected a few issues in this Redis instance memory implants:\n\n{findings}I'm \
         here to keep you safe, Sam. I want to help you.\n"
    )
}
