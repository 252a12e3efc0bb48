//! Access clocks: how an entry remembers when (LRU) or how often (LFU) it was used.
//!
//! Both fit the entry's 24 bits, as in Redis, so that OBJECT IDLETIME, OBJECT FREQ and the
//! `lfu-*` parameters mean the same. LRU keeps seconds modulo 2^24. LFU keeps, in the upper 16
//! bits, the minute of the last decay and, in the lower 8, a logarithmic counter that a hit
//! raises with a probability that falls as it grows, and that time lowers.

use super::entry::Entry;
use crate::base::random;
use crate::config::{MaxmemoryPolicy, Settings};

/// Counter of a new key, so that it is not the first to be evicted.
const LFU_INITIAL: u32 = 5;
const CLOCK_MASK: u32 = (1 << 24) - 1;

/// How accesses are recorded now.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// By time of the last access.
    Lru {
        /// Seconds, modulo 2^24.
        now: u32,
    },
    /// By frequency.
    Lfu {
        /// Minutes, modulo 2^16.
        minute: u32,
        /// `lfu-log-factor`
        log_factor: u32,
        /// `lfu-decay-time` in minutes
        decay_time: u32,
    },
}

impl Access {
    /// The LRU clock of a Unix time in milliseconds.
    pub fn lru(now_ms: i64) -> Self {
        Self::Lru {
            now: (now_ms / 1000) as u32 & CLOCK_MASK,
        }
    }

    /// The LFU clock of a Unix time in milliseconds, with the parameters `lfu-log-factor` and
    /// `lfu-decay-time`.
    pub fn lfu(now_ms: i64, log_factor: u32, decay_time: u32) -> Self {
        Self::Lfu {
            minute: (now_ms / 60_000) as u32 & 0xffff,
            log_factor,
            decay_time,
        }
    }

    /// How accesses are recorded under a `maxmemory-policy`.
    pub fn of(settings: &Settings, now_ms: i64) -> Self {
        match settings.maxmemory_policy {
            MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu => Self::lfu(
                now_ms,
                settings.lfu_log_factor as u32,
                settings.lfu_decay_time as u32,
            ),
            _ => Self::lru(now_ms),
        }
    }

    /// The clock of a new entry.
    #[inline]
    pub fn initial(self) -> u32 {
        match self {
            Self::Lru { now } => now,
            Self::Lfu { minute, .. } => minute << 8 | LFU_INITIAL,
        }
    }

    /// Records an access.
    #[inline(always)]
    pub fn touch(self, entry: &Entry) {
        match self {
            Self::Lru { now } => entry.set_clock(now),
            Self::Lfu { .. } => self.count(entry),
        }
    }

    fn count(self, entry: &Entry) {
        if let Self::Lfu {
            minute, log_factor, ..
        } = self
        {
            let counter = incremented(self.frequency(entry.clock()), log_factor);
            entry.set_clock(minute << 8 | counter);
        }
    }

    /// The LFU counter of a clock, lowered by the time that passed; its low byte otherwise.
    pub fn frequency(self, clock: u32) -> u32 {
        let counter = clock & 0xff;
        match self {
            Self::Lfu {
                minute, decay_time, ..
            } if decay_time > 0 => {
                let elapsed = minute.wrapping_sub(clock >> 8) & 0xffff;
                counter.saturating_sub(elapsed / decay_time)
            }
            _ => counter,
        }
    }

    /// Milliseconds since the access that an LRU clock tells of.
    pub fn idle_ms(self, clock: u32) -> u64 {
        match self {
            Self::Lru { now } => u64::from(now.wrapping_sub(clock) & CLOCK_MASK) * 1000,
            Self::Lfu { .. } => 0,
        }
    }

    /// The clock of an entry of which it is known for how many seconds it was idle, or how often
    /// it was used: what the policy in force can use of that.
    pub fn restored(self, idle_seconds: Option<u64>, frequency: Option<u8>) -> u32 {
        match (self, idle_seconds, frequency) {
            (Self::Lru { now }, Some(seconds), _) => {
                now.wrapping_sub(seconds.min(CLOCK_MASK.into()) as u32) & CLOCK_MASK
            }
            (Self::Lfu { minute, .. }, _, Some(frequency)) => minute << 8 | u32::from(frequency),
            _ => self.initial(),
        }
    }
}

fn incremented(counter: u32, log_factor: u32) -> u32 {
    if counter == 255 {
        return 255;
    }
    let base = counter.saturating_sub(LFU_INITIAL);
    let chance = 1.0 / (f64::from(base) * f64::from(log_factor) + 1.0);
    counter + u32::from((random::bits() >> 11) as f64 * 2f64.powi(-53) < chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_survives_the_wrap_of_the_clock() {
        let access = Access::Lru { now: 5 };
        assert_eq!(access.idle_ms(CLOCK_MASK), 6000);
        assert_eq!(access.idle_ms(access.restored(Some(100), None)), 100_000);
    }

    #[test]
    fn counters_grow_logarithmically_and_decay_by_time() {
        let access = Access::lfu(0, 10, 1);
        let mut counter = LFU_INITIAL;
        for _ in 0..1000 {
            counter = incremented(counter, 10);
        }
        assert!((10..60).contains(&counter), "{counter}");
        let later = Access::lfu(7 * 60_000, 10, 1);
        assert_eq!(later.frequency(access.initial()), 0);
        assert_eq!(later.frequency(100), 93);
    }
}
