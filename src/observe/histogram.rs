//! Histograms of durations: logarithmic, with 32 steps to each doubling (3 % precision).
//!
//! One writer (a worker) adds with plain loads and stores; readers sum the histograms of all
//! workers into a [`Snapshot`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Steps within a doubling, as a power of two.
const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;
/// Durations above 2^34 ns (17 s) count as that.
const DOUBLINGS: usize = 34 - STEP_BITS as usize + 1;
const BUCKETS: usize = STEPS * (DOUBLINGS + 1);

/// Counts of durations in nanoseconds.
pub struct Histogram {
    counts: Box<[AtomicU64]>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

#[inline]
fn bucket(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let doubling = 63 - nanos.leading_zeros() - STEP_BITS;
    let step = (nanos >> doubling) as usize - STEPS;
    ((doubling as usize + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The greatest duration that falls into a bucket.
fn upper_bound(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let doubling = bucket / STEPS - 1;
    ((((bucket % STEPS) + STEPS + 1) as u64) << doubling) - 1
}

impl Histogram {
    /// Counts one duration. For the histogram's only writer.
    #[inline]
    pub fn record(&self, nanos: u64) {
        let count = &self.counts[bucket(nanos)];
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.counts.iter().for_each(|c| c.store(0, Relaxed));
    }
}

/// Counts of one or more histograms at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Snapshot {
    /// Adds the counts of a histogram.
    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
            let count = count.load(Relaxed);
            *sum += count;
            self.total += count;
        }
    }

    /// Number of durations.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The duration in nanoseconds that `percent` of all do not exceed.
    pub fn percentile(&self, percent: f64) -> u64 {
        let wanted =
            ((percent / 100.0 * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(bucket);
            }
        }
        0
    }

    /// Cumulative counts at powers of two microseconds, from the first that is not 0 to the
    /// first that holds all: (microseconds, durations up to that).
    pub fn by_microseconds(&self) -> Vec<(u64, u64)> {
        let mut result = Vec::new();
        let (mut seen, mut bucket) = (0, 0);
        for power in 0..=34 {
            let limit = (1000u64 << power) + 24;
            while bucket < BUCKETS && upper_bound(bucket) <= limit {
                seen += self.counts[bucket];
                bucket += 1;
            }
            let previous = result.last().map_or(0, |&(_, count)| count);
            if seen > previous {
                result.push((1 << power, seen));
            }
            if seen == self.total {
                break;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_their_bounds_say() {
        for nanos in (0..5000).chain([1 << 20, (1 << 33) + 12345, u64::MAX]) {
            let b = bucket(nanos);
            assert!(b == BUCKETS - 1 || nanos <= upper_bound(b), "{nanos}");
            assert!(b == 0 || nanos > upper_bound(b - 1), "{nanos}");
        }
    }

    #[test]
    fn percentiles_and_cumulative_counts() {
        let h = Histogram::default();
        (1..=1000).for_each(|us| h.record(us * 1000));
        let mut s = Snapshot::default();
        s.add(&h);
        let p50 = s.percentile(50.0);
        assert!((480_000..520_000).contains(&p50), "{p50}");
        let all = s.by_microseconds();
        assert_eq!(all.last(), Some(&(1024, 1000)));
        assert!(all.windows(2).all(|w| w[0].1 < w[1].1));
    }
}
