//! Limits of the system that the server depends on, checked at start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, Settings, strerror};
use crate::observe::process::RESERVED_FILES;

/// Raises the limit of open files to what `maxclients` needs, or lowers `maxclients` to what the
/// limit allows. An error is a reason not to start, already logged.
pub fn open_files(config: &Config) -> Result<(), ()> {
    let maxclients = config.settings().maxclients;
    let needed = u64::from(maxclients) + RESERVED_FILES;
    let old = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if old >= needed {
        return Ok(());
    }
    let (best, error) = raise(needed, old);
    if best >= needed {
        tracing::info!(
            "Increased maximum number of open files to {needed} (it was originally set to {old})."
        );
        return Ok(());
    }
    if best <= RESERVED_FILES {
        tracing::warn!(
            "Your current 'ulimit -n' of {old} is not enough for the server to start. Please \
             increase your open file limit to at least {needed}. Exiting."
        );
        return Err(());
    }
    let reduced = (best - RESERVED_FILES) as u32;
    config.update(|settings| settings.maxclients = reduced);
    tracing::warn!(
        "You requested maxclients of {maxclients} requiring at least {needed} max file descriptors."
    );
    tracing::warn!(
        "Server can't set maximum open files to {needed} because of OS error: {}.",
        error.map_or_else(String::new, |e| strerror(&e))
    );
    tracing::warn!(
        "Current maximum open files is {best}. maxclients has been reduced to {reduced} to \
         compensate for low ulimit. If you need higher maxclients increase 'ulimit -n'."
    );
    Ok(())
}

/// The highest limit up to `wanted` that can be had, and why not more.
fn raise(wanted: u64, old: u64) -> (u64, Option<std::io::Error>) {
    let mut error = None;
    let mut best = wanted;
    while best > old {
        let limit = Rlimit {
            current: Some(best),
            maximum: Some(best),
        };
        match setrlimit(Resource::Nofile, limit) {
            Ok(()) => return (best, error),
            Err(reason) => error = Some(reason.into()),
        }
        best = best.saturating_sub(16).max(old);
    }
    (old, error)
}

/// Warns of settings of the system that make the server worse.
pub fn warn_about_system(settings: &Settings) {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<i32>()
            .ok()
    };
    if let Some(somaxconn) = read("/proc/sys/net/core/somaxconn")
        && somaxconn > 0
        && somaxconn < settings.tcp_backlog
    {
        tracing::warn!(
            "WARNING: The TCP backlog setting of {} cannot be enforced because \
             /proc/sys/net/core/somaxconn is set to the lower value of {somaxconn}.",
            settings.tcp_backlog
        );
    }
}
