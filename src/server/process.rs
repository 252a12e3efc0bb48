//! The process: daemon, pid file, supervisor.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

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

/// Writes the pid file. Failing is no reason not to start, nor worth a line, as in Redis.
pub fn write_pid_file(settings: &Settings) {
    let path = settings.pidfile.as_path();
    let _ = std::fs::write(path, format!("{}\n", std::process::id()));
}

static SUPERVISED: AtomicU8 = AtomicU8::new(NOBODY);
const NOBODY: u8 = 0;
const UPSTART: u8 = 1;
const SYSTEMD: u8 = 2;

/// Finds the supervisor that the parameters name, and tells it that the server starts. True when
/// there is one, so that the process must stay in the foreground. Must be called before any
/// thread is started.
pub fn supervise(settings: &Settings) -> bool {
    let has = |name| std::env::var_os(name).is_some();
    let mode = match settings.supervised {
        Supervised::Auto if has("UPSTART_JOB") => {
            tracing::debug!("Upstart supervision detected.");
            Supervised::Upstart
        }
        Supervised::Auto if has("NOTIFY_SOCKET") => {
            tracing::debug!("Systemd supervision detected.");
            Supervised::Systemd
        }
        mode => mode,
    };
    let found = match mode {
        Supervised::Systemd if has("NOTIFY_SOCKET") => {
            SUPERVISED.store(SYSTEMD, Relaxed);
            notify("STATUS=Redis is loading...\n");
            tracing::info!(
                "Supervised by systemd. Please make sure you set appropriate values for \
                 TimeoutStartSec and TimeoutStopSec in your service unit."
            );
            SYSTEMD
        }
        Supervised::Systemd => {
            tracing::warn!("systemd supervision error: NOTIFY_SOCKET not found!");
            NOBODY
        }
        Supervised::Upstart if has("UPSTART_JOB") => {
            tracing::info!("supervised by upstart, will stop to signal readiness.");
            let me = rustix::process::getpid();
            // Stopping ourselves needs no privilege, so it does not fail.
            let _ = rustix::process::kill_process(me, rustix::process::Signal::STOP);
            // SAFETY: the process has one thread, so nobody reads the environment meanwhile.
            unsafe { std::env::remove_var("UPSTART_JOB") };
            UPSTART
        }
        Supervised::Upstart => {
            tracing::warn!("upstart supervision requested, but UPSTART_JOB not found!");
            NOBODY
        }
        Supervised::Auto | Supervised::No => NOBODY,
    };
    SUPERVISED.store(found, Relaxed);
    found != NOBODY
}

/// Whether a supervisor keeps the process in the foreground.
pub fn supervised() -> bool {
    SUPERVISED.load(Relaxed) != NOBODY
}

/// Tells systemd about the state of the service. Without that supervisor it does nothing.
pub fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    if SUPERVISED.load(Relaxed) != SYSTEMD {
        return;
    }
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
