//! Moves connections from a worker that has too much to do to one that has little.
//!
//! [`decide`] is the policy, a pure function of what was measured; [`Balancer`] measures, waits
//! until an imbalance lasts, and waits again after a move to see what it brought. A move that only
//! carried the load elsewhere (one heavy connection cannot be divided) makes the next wait longer,
//! so connections never go to and fro at a rate that anyone could notice.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::net::worker::Link;

/// What a worker did since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Share of the time it was not waiting for its sockets, 0 to 1.
    pub busy: f64,
    /// Share of the time it had a processor, 0 to 1.
    pub cpu: f64,
    /// Its connections.
    pub connections: usize,
}

/// Connections that shall change their worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The worker that gives.
    pub from: usize,
    /// The worker that takes.
    pub to: usize,
    /// How many connections.
    pub count: usize,
}

/// Busy from here on: more would wait.
const BUSY: f64 = 0.85;
/// Idle enough to take more.
const IDLE: f64 = 0.50;
/// A busy worker that has a processor less than this is short of processors, not of workers.
const HAS_PROCESSOR: f64 = 0.40;

/// Processors that must be idle for another worker to be worth waking: where all are taken, one
/// more thread makes smaller batches and no more throughput (measured: a third more CPU per
/// operation at pipeline 1).
const SPARE: f64 = 0.3;

/// The move that the loads ask for, `spare` being how many of the machine's processors are idle:
/// half of the surplus, from the busiest to the idlest.
pub fn decide(loads: &[Load], spare: f64) -> Option<Move> {
    if spare < SPARE {
        return None;
    }
    let by_busy = |a: &(usize, &Load), b: &(usize, &Load)| a.1.busy.total_cmp(&b.1.busy);
    let may_give = |load: &&Load| load.connections > 1 && load.cpu >= HAS_PROCESSOR;
    let (from, giver) = loads
        .iter()
        .enumerate()
        .filter(|(_, load)| may_give(load))
        .max_by(by_busy)?;
    let (to, taker) = loads.iter().enumerate().min_by(by_busy)?;
    if from == to || giver.busy <= BUSY || taker.busy >= IDLE {
        return None;
    }
    // As if every connection were as heavy as the others.
    let surplus = giver.connections as f64 * (giver.busy - taker.busy) / giver.busy;
    let count = ((surplus / 2.0) as usize).clamp(1, giver.connections - 1);
    Some(Move { from, to, count })
}

/// How often the loads are measured.
const INTERVAL: Duration = Duration::from_millis(100);
/// Measurements in a row that must ask for the same move.
const LASTING: u32 = 3;
/// Wait after a move.
const REST: Duration = Duration::from_millis(500);
/// Longest wait after moves that brought nothing.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Measures the workers and has them hand over connections.
pub struct Balancer {
    before: Vec<(u64, u64)>,
    /// Seconds that processors were idle, when it was measured last.
    idle_before: f64,
    measured: Instant,
    /// The pair that the last measurements asked for, and how often.
    streak: (usize, usize, u32),
    resting_until: Instant,
    rest: Duration,
    last: Option<Move>,
}

impl Balancer {
    /// A balancer that has seen nothing yet.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            before: Vec::new(),
            idle_before: idle_seconds().unwrap_or(0.0),
            measured: now,
            streak: (0, 0, 0),
            resting_until: now,
            rest: REST,
            last: None,
        }
    }

    /// To be called often; looks at the workers ten times a second.
    pub fn look(&mut self, links: &[Arc<Link>]) {
        let elapsed = self.measured.elapsed();
        if links.len() < 2 || elapsed < INTERVAL {
            return;
        }
        let now: Vec<(u64, u64)> = links.iter().map(|link| measure(link)).collect();
        let wall = elapsed.as_nanos() as f64;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / wall;
        let loads: Vec<Load> = now
            .iter()
            .zip(&self.before)
            .zip(links)
            .map(|((now, before), link)| Load {
                busy: share(now.0, before.0).min(1.0),
                cpu: share(now.1, before.1).min(1.0),
                connections: link.stats.connections.load(Relaxed),
            })
            .collect();
        self.before = now;
        self.measured = Instant::now();
        // A system that does not tell is taken to have room.
        let idle = idle_seconds().unwrap_or(f64::INFINITY);
        let spare = (idle - self.idle_before) / elapsed.as_secs_f64();
        self.idle_before = idle;
        if let Some(chosen) = self.choose(&loads, spare, self.measured) {
            tracing::debug!(
                "Moving {} connections from worker {} to worker {}",
                chosen.count,
                chosen.from,
                chosen.to
            );
            *links[chosen.from].give.lock() = Some((chosen.count, Arc::clone(&links[chosen.to])));
            links[chosen.from].bell.ring();
        }
    }

    /// The move to be made now, if the loads ask for it long enough.
    fn choose(&mut self, loads: &[Load], spare: f64, now: Instant) -> Option<Move> {
        if now < self.resting_until {
            return None;
        }
        let Some(wanted) = decide(loads, spare) else {
            self.streak.2 = 0;
            return None;
        };
        if (self.streak.0, self.streak.1) != (wanted.from, wanted.to) {
            self.streak = (wanted.from, wanted.to, 0);
        }
        self.streak.2 += 1;
        if self.streak.2 < LASTING {
            return None;
        }
        let undoes = self
            .last
            .is_some_and(|last| (last.from, last.to) == (wanted.to, wanted.from));
        self.rest = match undoes {
            true => (self.rest * 2).min(LONGEST_REST),
            false => REST,
        };
        self.last = Some(wanted);
        self.streak.2 = 0;
        self.resting_until = now + self.rest;
        Some(wanted)
    }
}

/// Seconds that all processors together were idle since the machine started.
fn idle_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    // cpu user nice system idle iowait ...
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields = line.split_ascii_whitespace().skip(3).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Nanoseconds of work and of processor time since the worker started.
fn measure(link: &Link) -> (u64, u64) {
    let thread = link.stats.thread.load(Relaxed);
    let schedstat = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"));
    let busy = link.busy_nanos.load(Relaxed);
    // A kernel that does not tell must not keep connections where they are.
    let cpu = schedstat
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(busy);
    (busy, cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: f64, connections: usize) -> Load {
        Load {
            busy,
            cpu: busy,
            connections,
        }
    }

    #[test]
    fn half_of_the_surplus_moves() {
        let found = decide(&[load(1.0, 16), load(0.0, 0)], 1.0);
        assert_eq!(
            found,
            Some(Move {
                from: 0,
                to: 1,
                count: 8
            })
        );
        let found = decide(&[load(0.2, 3), load(0.9, 9), load(0.45, 4)], 1.0);
        assert_eq!(
            found,
            Some(Move {
                from: 1,
                to: 0,
                count: 3
            })
        );
    }

    #[test]
    fn what_does_not_move() {
        assert_eq!(decide(&[load(1.0, 16), load(0.0, 0)], 0.1), None);
        // One connection, no imbalance, everybody busy, nobody there.
        assert_eq!(decide(&[load(1.0, 1), load(0.0, 0)], 1.0), None);
        assert_eq!(decide(&[load(0.8, 9), load(0.1, 1)], 1.0), None);
        assert_eq!(decide(&[load(1.0, 9), load(0.6, 9)], 1.0), None);
        assert_eq!(decide(&[load(1.0, 9)], 1.0), None);
        assert_eq!(decide(&[], 1.0), None);
        // Busy because others use the processors.
        let starved = Load {
            cpu: 0.3,
            ..load(1.0, 9)
        };
        assert_eq!(decide(&[starved, load(0.0, 0)], 1.0), None);
    }

    #[test]
    fn never_all_connections() {
        let found = decide(&[load(1.0, 2), load(0.0, 0)], 1.0);
        assert_eq!(found.map(|m| m.count), Some(1));
    }

    /// One heavy connection among light ones: wherever it goes the load follows.
    #[test]
    fn moves_that_bring_nothing_get_rare() {
        let mut balancer = Balancer::new();
        let start = Instant::now();
        let (mut heavy, mut counts, mut moves) = (0, [4, 4], 0);
        for step in 0..6000 {
            let mut loads = [load(0.0, counts[0]), load(0.0, counts[1])];
            (loads[heavy].busy, loads[heavy].cpu) = (1.0, 1.0);
            if let Some(chosen) = balancer.choose(&loads, 1.0, start + INTERVAL * step) {
                moves += 1;
                counts[chosen.from] -= chosen.count;
                counts[chosen.to] += chosen.count;
                heavy = chosen.to;
            }
        }
        // Ten minutes.
        assert!((2..25).contains(&moves), "{moves} moves");
    }
}
