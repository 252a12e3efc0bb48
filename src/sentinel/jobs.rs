//! The queue of scripts: plain data. Who fills, runs and empties it is in [`super::tending`].

/// Scripts in the queue, at most.
pub const LONGEST: usize = 256;
/// Scripts that run at once, at most.
pub const AT_ONCE: usize = 16;
/// How often a script is tried.
pub const ATTEMPTS: u32 = 10;

/// A script that runs or is to.
#[derive(Debug)]
pub struct Job {
    /// Its path and arguments.
    pub argv: Vec<String>,
    /// The run under way.
    pub run: Option<u64>,
    /// Its process, once that is known.
    pub pid: u32,
    /// When that began; of one that waits when it may, 0: at once.
    pub start: i64,
    /// How often it was tried.
    pub attempts: u32,
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub struct Jobs {
    /// In order.
    pub queue: Vec<Job>,
}

impl Jobs {
    /// Adds a script. When there are too many the oldest that does not run goes.
    pub fn add(&mut self, argv: Vec<String>) {
        self.queue.push(Job {
            argv,
            run: None,
            pid: 0,
            start: 0,
            attempts: 0,
        });
        if self.queue.len() > LONGEST
            && let Some(oldest) = self.queue.iter().position(|job| job.run.is_none())
        {
            self.queue.remove(oldest);
        }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.queue.iter().filter(|job| job.run.is_some()).count()
    }

    /// Where a run is in the queue.
    pub fn of_run(&self, run: u64) -> Option<usize> {
        self.queue.iter().position(|job| job.run == Some(run))
    }
}
