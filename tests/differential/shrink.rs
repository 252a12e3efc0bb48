//! From a sequence that shows a difference to the shortest one that still does.

use std::time::{Duration, Instant};

use crate::resp::line;
use crate::servers::Step;

/// Drops steps, halves first, then single ones, then commands inside a step, as long as `fails`
/// still says so. Stops after `limit`: a shorter sequence is a comfort, not a duty.
pub fn shrink(
    steps: Vec<Step>,
    limit: Duration,
    mut fails: impl FnMut(&[Step]) -> bool,
) -> Vec<Step> {
    let begun = Instant::now();
    let best = drop_steps(steps, limit, &mut fails);
    drop_commands(best, begun, limit, &mut fails)
}

/// As [`shrink`], for steps of any kind, which stay whole.
pub fn drop_steps<S: Clone>(
    steps: Vec<S>,
    limit: Duration,
    fails: &mut impl FnMut(&[S]) -> bool,
) -> Vec<S> {
    let begun = Instant::now();
    let mut best = steps;
    let mut chunk = best.len().div_ceil(2);
    while chunk > 0 && begun.elapsed() < limit {
        let mut at = 0;
        let mut dropped = false;
        while at < best.len() && begun.elapsed() < limit {
            let end = (at + chunk).min(best.len());
            let mut fewer = best.clone();
            fewer.drain(at..end);
            if !fewer.is_empty() && fails(&fewer) {
                best = fewer;
                dropped = true;
            } else {
                at = end;
            }
        }
        if !(chunk == 1 && dropped) {
            chunk /= 2;
        }
    }
    best
}

fn drop_commands(
    mut best: Vec<Step>,
    begun: Instant,
    limit: Duration,
    fails: &mut impl FnMut(&[Step]) -> bool,
) -> Vec<Step> {
    for at in 0..best.len() {
        let mut inner = 0;
        while let Step::Commands { commands, .. } = &best[at] {
            if inner >= commands.len() || commands.len() < 2 || begun.elapsed() > limit {
                break;
            }
            let mut fewer = best.clone();
            if let Step::Commands { commands, .. } = &mut fewer[at] {
                commands.remove(inner);
            }
            if fails(&fewer) {
                best = fewer;
            } else {
                inner += 1;
            }
        }
    }
    best
}

/// The steps as lines for `redis-cli`, each with its connection.
pub fn print(steps: &[Step], resp3: &[bool]) -> String {
    let mut text = String::new();
    for (conn, resp3) in resp3.iter().enumerate() {
        let kind = if *resp3 { "HELLO 3" } else { "RESP2" };
        text.push_str(&format!("  # connection {conn}: {kind}\n"));
    }
    for step in steps {
        match step {
            Step::Expire { conn, args } => {
                text.push_str(&format!(
                    "  {conn}> {}  # and wait 4 ms
",
                    line(args)
                ));
            }
            Step::Scan { conn, options } => {
                text.push_str(&format!("  {conn}> SCAN (all, sorted) {}\n", line(options)));
            }
            Step::Commands { conn, commands } => {
                let joined = if commands.len() > 1 {
                    "  # one write with the next"
                } else {
                    ""
                };
                for (at, args) in commands.iter().enumerate() {
                    let note = if at + 1 < commands.len() { joined } else { "" };
                    text.push_str(&format!("  {conn}> {}{note}\n", line(args)));
                }
            }
        }
    }
    text
}
