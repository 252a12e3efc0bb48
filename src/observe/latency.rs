//! LATENCY: spikes of named events above `latency-monitor-threshold`.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Samples kept for one event.
const SAMPLES: usize = 160;

/// One event's spikes.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// (Unix time in seconds, milliseconds), oldest first; one each second, the worst.
    pub samples: Vec<(i64, u32)>,
    /// Worst ever, in milliseconds.
    pub max_ms: u32,
}

/// All events.
#[derive(Default)]
pub struct Latency {
    events: Mutex<BTreeMap<&'static str, Series>>,
}

impl Latency {
    /// Records a spike. Callers compare with the threshold first.
    pub fn record(&self, event: &'static str, time: i64, ms: u32) {
        let mut events = self.events.lock();
        let series = events.entry(event).or_default();
        series.max_ms = series.max_ms.max(ms);
        match series.samples.last_mut() {
            Some((last, worst)) if *last == time => *worst = ms.max(*worst),
            _ => {
                if series.samples.len() == SAMPLES {
                    series.samples.remove(0);
                }
                series.samples.push((time, ms));
            }
        }
    }

    /// All events with their spikes, by name.
    pub fn all(&self) -> Vec<(&'static str, Series)> {
        let events = self.events.lock();
        events.iter().map(|(name, s)| (*name, s.clone())).collect()
    }

    /// One event's spikes.
    pub fn get(&self, event: &[u8]) -> Option<(&'static str, Series)> {
        let events = self.events.lock();
        let mut found = events.iter().filter(|(name, _)| name.as_bytes() == event);
        found.next().map(|(name, s)| (*name, s.clone()))
    }

    /// Forgets events, all when none is named; returns how many were forgotten.
    pub fn reset(&self, events: &[&[u8]]) -> usize {
        let mut known = self.events.lock();
        let before = known.len();
        known.retain(|name, _| !events.is_empty() && !events.contains(&name.as_bytes()));
        before - known.len()
    }
}
