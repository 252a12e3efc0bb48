//! Time. Everything that needs the time takes it from here, so that there is one place to look.
//!
//! Unix time decides when keys expire and is what clients see; it may jump. Monotonic time measures
//! how long something took; its zero is the first use in the process. Reading either is a vDSO call
//! of some 25 ns, too much to do per key: a worker reads [`Now`] once per batch of commands and
//! hands it down.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment that was read once and holds for a whole batch of commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Unix time in milliseconds.
    pub ms: i64,
    /// Unix time in microseconds.
    pub us: i64,
}

impl Now {
    /// Reads the clock.
    pub fn read() -> Self {
        Now::from_us(unix_us())
    }

    /// The moment of a Unix time in microseconds.
    pub const fn from_us(us: i64) -> Self {
        Now {
            ms: us.div_euclid(1000),
            us,
        }
    }

    /// The moment of a Unix time in milliseconds.
    pub const fn from_ms(ms: i64) -> Self {
        Now {
            ms,
            us: ms.saturating_mul(1000),
        }
    }
}

/// Milliseconds that never jump, and agreed with Unix time when they were started.
#[derive(Clone, Copy)]
pub struct Steady {
    started: Instant,
    unix_ms: i64,
}

impl Steady {
    /// From now on.
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            unix_ms: unix_ms(),
        }
    }

    /// Milliseconds.
    pub fn now(&self) -> i64 {
        self.unix_ms + self.started.elapsed().as_millis() as i64
    }
}

/// Unix time in microseconds; negative before 1970.
pub fn unix_us() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

/// Unix time in milliseconds.
pub fn unix_ms() -> i64 {
    unix_us().div_euclid(1000)
}

/// Monotonic time in nanoseconds since its first use in this process.
pub fn mono_ns() -> u64 {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    let since = ZERO.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Monotonic time in microseconds since its first use in this process.
pub fn mono_us() -> u64 {
    mono_ns() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_and_go_forward() {
        let (first, now) = (mono_ns(), Now::read());
        assert!((unix_ms() - now.ms).abs() < 10_000);
        assert!(mono_ns() >= first && mono_us() <= mono_ns());
        assert_eq!(Now::from_us(-1).ms, -1);
        assert_eq!(Now::from_ms(1999).us, 1_999_000);
    }
}
