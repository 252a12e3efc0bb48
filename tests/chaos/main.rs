//! A primary and two replicas over bad connections: links that are cut, stalled and trickle, servers that
//! are stopped, killed and started again, and promotions, at random. What WAIT acknowledged for all
//! replicas is never lost, as long as one that had it lives on as the primary, and in the end all
//! servers hold the same.
//!
//! `TESSERA_CHAOS_ROUNDS` sets how many faults there are, `TESSERA_CHAOS_SEED` which ones: what is done, and
//! when, follows from the seed; what the processes make of it is up to them.

mod cluster;
mod proxy;
#[path = "../replicas/mod.rs"]
mod replicas;
#[path = "../sockets/mod.rs"]
mod sockets;
mod writers;

use rand::SeedableRng;
use rand::rngs::StdRng;

use cluster::Cluster;
use writers::{Target, Writer};

/// How many replicas there are.
const REPLICAS: usize = 2;
const WRITERS: usize = 3;
/// Faults between two comparisons.
const BETWEEN: u64 = 10;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

#[test]
fn what_all_replicas_had_is_never_lost() {
    let seed = number("TESSERA_CHAOS_SEED").unwrap_or_else(rand::random);
    let rounds = number("TESSERA_CHAOS_ROUNDS").unwrap_or(20);
    println!("chaos: TESSERA_CHAOS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let target = Target::default();
    let mut cluster = Cluster::start(&mut random, &target);
    let mut writers: Vec<_> = (0..WRITERS).map(Writer::new).collect();
    let mut done = 0;
    while done < rounds {
        target
            .stop
            .store(false, std::sync::atomic::Ordering::SeqCst);
        std::thread::scope(|scope| {
            // Writers end, whatever becomes of this thread.
            let _stop = Stop(&target);
            for writer in &mut writers {
                let target = &target;
                scope.spawn(move || writer.run(target));
            }
            for _ in 0..BETWEEN.min(rounds - done) {
                cluster.fault(&mut random);
                done += 1;
            }
            cluster.heal();
        });
        cluster.compare();
        let mut client = cluster.client_of_primary();
        for writer in &writers {
            writer.check(&mut client);
        }
    }
    let kept: usize = writers.iter().map(Writer::kept).sum();
    assert!(kept > 0, "nothing was acknowledged by all");
    println!(
        "chaos: {done} rounds, {kept} writes that all had; {}",
        cluster.tally()
    );
}

struct Stop<'a>(&'a Target);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
