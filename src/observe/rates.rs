//! Rates per second, averaged over the last samples of counters.

use parking_lot::Mutex;

/// Samples that are averaged.
const SAMPLES: usize = 16;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum Rate {
    /// Commands.
    Commands = 0,
    /// Bytes from clients.
    Input = 1,
    /// Bytes to clients.
    Output = 2,
}

#[derive(Clone, Copy, Default)]
struct Track {
    last_ms: i64,
    last_count: u64,
    rates: [u64; SAMPLES],
    next: usize,
}

/// The rates of all that is measured.
#[derive(Default)]
pub struct Rates {
    tracks: Mutex<[Track; 3]>,
}

impl Rates {
    /// Takes a sample of a counter.
    pub fn sample(&self, rate: Rate, now_ms: i64, count: u64) {
        let track = &mut self.tracks.lock()[rate as usize];
        let elapsed = now_ms - track.last_ms;
        if track.last_ms > 0 && elapsed > 0 {
            let gained = count.saturating_sub(track.last_count);
            track.rates[track.next] = gained * 1000 / elapsed as u64;
            track.next = (track.next + 1) % SAMPLES;
        }
        track.last_ms = now_ms;
        track.last_count = count;
    }

    /// The average per second.
    pub fn per_second(&self, rate: Rate) -> u64 {
        let track = &self.tracks.lock()[rate as usize];
        track.rates.iter().sum::<u64>() / SAMPLES as u64
    }
}
