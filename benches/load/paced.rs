//! Light, even loads whose every reply is timed from the moment its request was due.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::sets::{key, value};
use crate::{Options, Stream, lines, render};

/// Requests that become due one by one, at even distances, and what their replies took.
struct Pace {
    stream: Stream,
    rng: SmallRng,
    buffer: Vec<u8>,
    begun: Instant,
    gap: Duration,
    /// Requests in all.
    total: u32,
    times_us: Vec<u64>,
}

impl Pace {
    fn new(o: &Options) -> std::io::Result<Self> {
        let total = (o.rate * o.seconds) as u32;
        Ok(Self {
            stream: Stream::open(o)?,
            rng: SmallRng::seed_from_u64(o.seed),
            buffer: vec![0; 64 * 1024],
            begun: Instant::now(),
            gap: Duration::from_secs_f64(1.0 / o.rate),
            total,
            times_us: Vec::with_capacity(total as usize),
        })
    }

    fn due(&self, turn: u32) -> Instant {
        self.begun + self.gap * turn
    }

    /// Waits until request `turn` is due; the number of requests that are due by then.
    fn wait_for(&self, turn: u32) -> u32 {
        if let Some(wait) = self.due(turn).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let due = self.begun.elapsed().as_nanos() / self.gap.as_nanos().max(1);
        (due as u32 + 1).clamp(turn + 1, self.total)
    }

    /// A random key.
    fn key(&mut self, o: &Options) -> Vec<u8> {
        key(o, self.rng.random_range(0..o.keys))
    }

    /// Notes the replies to the requests from `from` to `to`, of so many lines each; none of a key
    /// that is missing.
    fn receive(&mut self, from: u32, to: u32, lines_each: usize) -> std::io::Result<()> {
        let (mut answered, mut seen) = (from, 0);
        while answered < to {
            let n = self.stream.read(&mut self.buffer)?;
            let replies = &self.buffer[..n];
            let missing = replies.starts_with(b"$-1");
            seen += if missing { lines_each } else { lines(replies) };
            let now = Instant::now();
            while seen >= lines_each && answered < to {
                let late = now.saturating_duration_since(self.due(answered));
                self.times_us.push(late.as_micros() as u64);
                seen -= lines_each;
                answered += 1;
            }
        }
        Ok(())
    }

    /// Prints the distribution of latencies.
    fn report(mut self) {
        let times = &mut self.times_us;
        times.sort_unstable();
        let at = |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize);
        let at = |share| at(share).copied().unwrap_or(0);
        println!(
            "ops={} seconds={:.3} p50_us={} p99_us={} p999_us={} max_us={}",
            times.len(),
            self.begun.elapsed().as_secs_f64(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
}

/// GETs of random keys, one at a time.
pub(crate) fn reads(o: &Options) -> std::io::Result<()> {
    let mut pace = Pace::new(o)?;
    for turn in 0..pace.total {
        pace.wait_for(turn);
        let mut request = Vec::new();
        render(&mut request, &[b"GET", &pace.key(o)]);
        pace.stream.write_all(&request)?;
        pace.receive(turn, turn + 1, 2)?;
    }
    pace.report();
    Ok(())
}

/// SETs of random keys, of which those that are due together are sent together.
pub(crate) fn writes(o: &Options) -> std::io::Result<()> {
    let mut pace = Pace::new(o)?;
    let value = value(o, 0);
    let mut sent = 0;
    while sent < pace.total {
        let due = pace.wait_for(sent);
        let mut batch = Vec::new();
        for _ in sent..due {
            render(&mut batch, &[b"SET", &pace.key(o), &value]);
        }
        pace.stream.write_all(&batch)?;
        pace.receive(sent, due, 1)?;
        sent = due;
    }
    pace.report();
    Ok(())
}
