//! Randomness: a fast generator per thread for sampling, and the system's for identifiers.
//!
//! The fast generator is predictable for who sees enough of its output: it picks random elements
//! and eviction candidates. Run ids and replication ids come from the system's generator.

use std::cell::RefCell;

use rand::rngs::{OsRng, SmallRng};
use rand::{Rng, RngCore, SeedableRng, TryRngCore};

thread_local! {
    static FAST: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
}

/// A random number in `0..n`; 0 when `n` is 0.
pub fn below(n: usize) -> usize {
    if n < 2 {
        return 0;
    }
    FAST.with_borrow_mut(|rng| rng.random_range(0..n))
}

/// 64 random bits.
pub fn bits() -> u64 {
    FAST.with_borrow_mut(|rng| rng.next_u64())
}

/// Fills `bytes` from the fast generator.
pub fn fill(bytes: &mut [u8]) {
    FAST.with_borrow_mut(|rng| rng.fill_bytes(bytes));
}

/// Makes this thread's fast generator repeat the sequence that belongs to `seed`, for tests.
pub fn seed(seed: u64) {
    FAST.set(SmallRng::seed_from_u64(seed));
}

/// Fills `bytes` from the system's generator: nobody can guess them.
pub fn fill_secret(bytes: &mut [u8]) {
    if OsRng.try_fill_bytes(bytes).is_err() {
        // A system without a source of randomness still gets distinct identifiers.
        fill(bytes);
    }
}

/// `N` random characters of `0-9a-f`.
pub fn hex<const N: usize>() -> [u8; N] {
    let mut text = [0; N];
    fill_secret(&mut text);
    text.map(|byte| b"0123456789abcdef"[usize::from(byte & 15)])
}

/// A run id or replication id: 40 hexadecimal characters.
pub fn run_id() -> String {
    hex::<40>().iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_range_and_repeats_from_a_seed() {
        seed(7);
        let first: Vec<usize> = (0..100).map(|_| below(10)).collect();
        assert!(first.iter().all(|&n| n < 10) && first.contains(&0) && first.contains(&9));
        seed(7);
        assert_eq!(first, (0..100).map(|_| below(10)).collect::<Vec<_>>());
        assert_eq!((below(0), below(1)), (0, 0));
    }

    #[test]
    fn ids_differ() {
        let (one, two) = (run_id(), run_id());
        assert_eq!(one.len(), 40);
        assert!(one.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        assert_ne!(one, two);
    }
}
