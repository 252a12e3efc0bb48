//! The software watchdog (`watchdog-period`): tells of commands that do not end.
//!
//! A thread of its own looks at what each worker runs. One that is in the same command for longer
//! than the period is logged, once, with the command's function in Redis' form of the name and the
//! worker's stack. The thread exists only while the parameter is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::stack;
use crate::config::Settings;
use crate::dispatch::context::Shared;
use crate::net::worker::Link;

/// The watchdog, on or off.
pub struct Watchdog {
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
    /// Raised to end the present thread.
    stop: Arc<AtomicBool>,
}

impl Watchdog {
    /// A watchdog that is off.
    pub fn new(shared: Arc<Shared>, workers: Arc<[Arc<Link>]>) -> Self {
        Self {
            shared,
            workers,
            stop: Arc::default(),
        }
    }

    /// Starts, changes or stops it as the parameters say.
    pub fn follow(&mut self, settings: &Settings) {
        self.stop.store(true, Relaxed);
        self.stop = Arc::default();
        stack::watch_stacks(settings.watchdog_period > 0);
        if settings.watchdog_period <= 0 {
            return;
        }
        // A period below two rounds of cron would tell of every longer command.
        let least = 2000 / settings.hz.clamp(1, 500);
        let period = Duration::from_millis(settings.watchdog_period.max(least) as u64);
        let (shared, workers) = (Arc::clone(&self.shared), Arc::clone(&self.workers));
        let stop = Arc::clone(&self.stop);
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let started = thread.spawn(move || watch(&shared, &workers, &stop, period));
        if let Err(error) = started {
            tracing::warn!("Cannot start the watchdog: {error}");
        }
    }
}

/// What a worker did when it was last seen doing something new.
#[derive(Clone, Copy)]
struct Seen {
    running: u64,
    commands: u64,
    since: Instant,
    told: bool,
}

fn watch(shared: &Shared, workers: &[Arc<Link>], stop: &AtomicBool, period: Duration) {
    let nothing = Seen {
        running: 0,
        commands: 0,
        since: Instant::now(),
        told: false,
    };
    let mut seen = vec![nothing; workers.len()];
    while !stop.load(Relaxed) {
        std::thread::sleep((period / 8).max(Duration::from_millis(1)));
        for (index, seen) in seen.iter_mut().enumerate() {
            let stats = shared.stats.worker(index);
            let running = stats.running.load(Relaxed);
            let commands = stats.counters.commands.load(Relaxed);
            if (running, commands) != (seen.running, seen.commands) {
                *seen = Seen {
                    running,
                    commands,
                    since: Instant::now(),
                    told: false,
                };
            } else if running != 0 && !seen.told && seen.since.elapsed() >= period {
                seen.told = true;
                let name = &shared.commands.get(running as usize - 1).full_name;
                tell(index, name, workers[index].stats.thread.load(Relaxed));
            }
        }
    }
}

fn tell(worker: usize, command: &str, thread: i32) {
    tracing::warn!("\n--- WATCHDOG TIMER EXPIRED ---");
    crate::observe::log::raw(&format!(
        "\n------ STACK TRACE ------\nWorker {worker} is in:\n{}\n\nBacktrace:\n{}",
        function(command),
        stack::stack_of(thread)
    ));
    tracing::warn!("--------\n");
}

/// The function of a command as Redis calls it: `config|set` is `configSetCommand`.
fn function(command: &str) -> String {
    let mut name = String::new();
    for (i, word) in command.split(['|', '-']).enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if i > 0 => name.push(first.to_ascii_uppercase()),
            Some(first) => name.push(first),
            None => {}
        }
        name.push_str(letters.as_str());
    }
    name + "Command"
}

#[cfg(test)]
mod tests {
    use super::function;

    #[test]
    fn function_names() {
        assert_eq!(function("debug"), "debugCommand");
        assert_eq!(function("config|set"), "configSetCommand");
        assert_eq!(function("client|no-evict"), "clientNoEvictCommand");
    }
}
