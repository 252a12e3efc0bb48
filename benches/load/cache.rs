//! A cache in front of something slower: GET with Zipf-distributed keys, and SET on a miss.

use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::sets::{key, value};
use crate::{Options, Stream, render};

/// Draws from a Zipf distribution over `0..n` by binary search in its cumulative weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: u64, skew: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=n).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Zipf(weights.collect())
    }

    fn draw(&self, rng: &mut SmallRng) -> u64 {
        let total = self.0.last().copied().unwrap_or(1.0);
        let at = rng.random_range(0.0..total);
        self.0.partition_point(|&w| w < at) as u64
    }
}

/// A cache in front of something: GET, and SET what was missing. The second half is counted.
pub(crate) fn hit(o: &Options) -> std::io::Result<()> {
    let mut stream = Stream::open(o)?;
    let zipf = Zipf::new(o.keys, o.skew);
    let mut rng = SmallRng::seed_from_u64(o.seed);
    let requests = (o.rate * o.seconds) as u64;
    let (mut hits, mut counted) = (0_u64, 0_u64);
    let mut buffer = vec![0; 64 * 1024];
    let begun = Instant::now();
    for turn in 0..requests.div_ceil(64) {
        let numbers: Vec<u64> = (0..64).map(|_| zipf.draw(&mut rng)).collect();
        let mut batch = Vec::new();
        for n in &numbers {
            render(&mut batch, &[b"GET", &key(o, *n)]);
        }
        stream.write_all(&batch)?;
        let missing = read_hits(&mut stream, &numbers, &value(o, 0), &mut buffer)?;
        if turn * 128 >= requests {
            counted += numbers.len() as u64;
            hits += (numbers.len() - missing.len()) as u64;
        }
        batch.clear();
        for n in &missing {
            render(&mut batch, &[b"SET", &key(o, *n), &value(o, 0)]);
        }
        stream.write_all(&batch)?;
        stream.read_exactly(missing.len() * b"+OK\r\n".len(), &mut buffer)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("ops={counted} seconds={seconds:.3} hits={hits}");
    Ok(())
}

/// Reads one GET reply per number; returns the numbers that were missing.
fn read_hits(
    stream: &mut Stream,
    numbers: &[u64],
    value: &[u8],
    buffer: &mut [u8],
) -> std::io::Result<Vec<u64>> {
    let found = format!("${}\r\n", value.len()).len() + value.len() + 2;
    let mut missing = Vec::new();
    let mut text = Vec::new();
    let mut at = 0;
    for number in numbers {
        loop {
            let rest = &text[at..];
            if rest.starts_with(b"$-1\r\n") {
                missing.push(*number);
                at += 5;
                break;
            }
            if rest.first().is_some_and(|b| *b != b'$') {
                return Err(std::io::Error::other(
                    String::from_utf8_lossy(rest).into_owned(),
                ));
            }
            if rest.len() >= found && !rest.starts_with(b"$-") {
                at += found;
                break;
            }
            let n = stream.read(buffer)?;
            text.extend_from_slice(&buffer[..n]);
        }
    }
    Ok(missing)
}
