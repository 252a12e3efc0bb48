//! What the system and the allocator say about this process, and what it asks of them.

/// Files that the server needs beside its clients.
pub const RESERVED_FILES: u64 = 32;

/// Resident memory in bytes; 0 when the system does not tell.
pub fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size()
}

/// Memory of the machine in bytes.
pub fn total_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit.max(1))
}

/// jemalloc's own statistics, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator {
    /// Allocated by the program.
    pub allocated: usize,
    /// In pages with at least one allocation.
    pub active: usize,
    /// In resident pages.
    pub resident: usize,
}

impl Allocator {
    /// The statistics now.
    pub fn read() -> Self {
        use tikv_jemalloc_ctl::{epoch, stats};
        // The allocator publishes its statistics when the epoch advances.
        let advanced = epoch::advance().is_ok();
        if !advanced {
            return Self::default();
        }
        Self {
            allocated: stats::allocated::read().unwrap_or(0),
            active: stats::active::read().unwrap_or(0),
            resident: stats::resident::read().unwrap_or(0),
        }
    }
}

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// Of its own.
    pub user: f64,
    /// Of the kernel for it.
    pub system: f64,
}

impl std::iter::Sum for CpuTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, time| Self {
            user: sum.user + time.user,
            system: sum.system + time.system,
        })
    }
}

impl CpuTime {
    /// Of the process.
    pub fn of_process() -> Self {
        Self::read("/proc/self/stat")
    }

    /// Of a thread, by the kernel's number; none when it does not run.
    pub fn of_thread(thread: i32) -> Self {
        Self::read(&format!("/proc/self/task/{thread}/stat"))
    }

    fn read(path: &str) -> Self {
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // The name in parentheses may hold spaces; what follows it does not.
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let seconds = |i: usize| {
            let field = rest.split(' ').nth(i).and_then(|n| n.parse::<f64>().ok());
            field.unwrap_or(0.0) / ticks
        };
        Self {
            user: seconds(11),
            system: seconds(12),
        }
    }
}

/// Raises the limit of open files for more clients; an error text when it cannot be.
pub fn raise_open_files(maxclients: u32) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = u64::from(maxclients) + RESERVED_FILES;
    let old = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|n| n >= needed);
    if enough(old.current) {
        return Ok(());
    }
    let maximum = if enough(old.maximum) {
        old.maximum
    } else {
        Some(needed)
    };
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|_| {
        format!(
            "The operating system is not able to handle the specified number of clients, try with {}",
            old.current.unwrap_or(needed).saturating_sub(RESERVED_FILES)
        )
    })
}

/// Writes this process' OOM score as the parameters say; an error text when it cannot be. While
/// they say nothing the score is left as it is, except that what was set before is taken back.
pub fn write_oom_score(settings: &crate::config::Settings) -> Result<(), String> {
    use crate::config::OomScoreAdj;
    /// The score before the server changed it, while it does.
    static ORIGINAL: parking_lot::Mutex<Option<i32>> = parking_lot::Mutex::new(None);
    const PATH: &str = "/proc/self/oom_score_adj";
    let mut original = ORIGINAL.lock();
    let value = if settings.oom_score_adj == OomScoreAdj::No {
        let Some(value) = original.take() else {
            return Ok(());
        };
        value
    } else {
        let base = *original.get_or_insert_with(|| {
            let text = std::fs::read_to_string(PATH).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        });
        let configured = settings.oom_score_adj_values[usize::from(settings.replicaof.is_some())];
        match settings.oom_score_adj {
            OomScoreAdj::Relative => base + configured,
            _ => configured,
        }
    };
    let value = value.clamp(-1000, 1000);
    std::fs::write(PATH, value.to_string()).map_err(|error| {
        tracing::warn!(
            "Unable to write oom_score_adj: {}",
            crate::config::strerror(&error)
        );
        "Failed to apply new oom_score_adj configuration, check server logs.".to_owned()
    })
}
