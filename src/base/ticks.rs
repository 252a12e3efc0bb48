//! A cheap monotonic clock for measuring single commands.
//!
//! On x86-64 with an invariant time stamp counter a reading is one instruction (some 8 ns under
//! virtualisation, a third of the clock call), calibrated against the system's clock at start.
//! Elsewhere it is the system's monotonic clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

struct Scale {
    counter: bool,
    /// Nanoseconds per tick, times 2^32.
    factor: u64,
    origin: Instant,
}

static SCALE: OnceLock<Scale> = OnceLock::new();

/// A reading; only differences mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u64);

impl Ticks {
    /// The time now.
    #[inline(always)]
    pub fn now() -> Self {
        let scale = SCALE.get_or_init(calibrate);
        if scale.counter {
            Self(counter())
        } else {
            Self(scale.origin.elapsed().as_nanos() as u64)
        }
    }

    /// Nanoseconds since an earlier reading; 0 when that is later.
    #[inline]
    pub fn nanos_since(self, earlier: Self) -> u64 {
        let scale = SCALE.get_or_init(calibrate);
        let ticks = self.0.saturating_sub(earlier.0);
        ((u128::from(ticks) * u128::from(scale.factor)) >> 32) as u64
    }
}

/// True when readings come from the processor's counter.
pub fn is_counter() -> bool {
    SCALE.get_or_init(calibrate).counter
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: RDTSC has no preconditions and touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

#[cfg(target_arch = "x86_64")]
fn is_invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    // The function is unsafe on older compilers only; the instruction exists on every x86-64.
    #[allow(unused_unsafe)]
    // SAFETY: CPUID has no preconditions on x86-64.
    unsafe {
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn is_invariant() -> bool {
    false
}

fn calibrate() -> Scale {
    let origin = Instant::now();
    let one_to_one = Scale {
        counter: false,
        factor: 1 << 32,
        origin,
    };
    if !is_invariant() {
        return one_to_one;
    }
    let first = counter();
    std::thread::sleep(Duration::from_millis(2));
    let nanos = origin.elapsed().as_nanos();
    let ticks = u128::from(counter().saturating_sub(first));
    match (nanos << 32).checked_div(ticks).map(u64::try_from) {
        Some(Ok(factor @ 1..)) => Scale {
            counter: true,
            factor,
            origin,
        },
        _ => one_to_one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_what_the_system_clock_measures() {
        let (ticks, system) = (Ticks::now(), Instant::now());
        std::thread::sleep(Duration::from_millis(5));
        let (ours, theirs) = (
            Ticks::now().nanos_since(ticks),
            system.elapsed().as_nanos() as u64,
        );
        assert!(ours.abs_diff(theirs) < theirs / 5, "{ours} {theirs}");
        assert_eq!(ticks.nanos_since(Ticks::now()), 0);
    }
}
