//! The process: daemon, pid file, supervisor.

use std::io;
use std::os::unix::net::UnixDatagram;

use crate::config::{Settings, Supervised};

/// Goes to the background: forks, ends the parent, and leaves terminal and session. Must be
/// called before any thread is started.
pub fn daemonize() -> io::Result<()> {
    // SAFETY: the process has one thread, so the child is as whole as the parent.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => std::process::exit(0),
    }
    rustix::process::setsid()?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Writes the pid file. Failing is logged and no more, as in Redis.
pub fn write_pid_file(settings: &Settings) {
    let path = settings.pidfile.as_path();
    if let Err(error) = std::fs::write(path, format!("{}\n", std::process::id())) {
        tracing::warn!(
            "Failed to write PID file: {}",
            crate::config::strerror(&error)
        );
    }
}

/// How the process is supervised, with `auto` looked up in the environment.
pub fn supervised(settings: &Settings) -> bool {
    let systemd = std::env::var_os("NOTIFY_SOCKET").is_some();
    match settings.supervised {
        Supervised::Systemd => {
            if !systemd {
                tracing::warn!(
                    "WARNING supervised by systemd - you MUST set appropriate values for TimeoutStartSec \
                     and TimeoutStopSec in your service unit."
                );
            }
            true
        }
        Supervised::Auto => systemd,
        // Upstart waits for the process to stop itself; it exists on no current system.
        Supervised::Upstart | Supervised::No => false,
    }
}

/// Tells systemd about the state of the service. Without a supervisor it does nothing.
pub fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let Ok(socket) = UnixDatagram::unbound() else {
        return;
    };
    let path = path.to_string_lossy().into_owned();
    // A supervisor that does not listen is its own problem.
    let _ = match path.strip_prefix('@') {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)
            .and_then(|address| socket.send_to_addr(state.as_bytes(), &address)),
        None => socket.send_to(state.as_bytes(), path),
    };
}
