//! A sentinel's thread: it drives the machine ([`crate::sentinel`]), its links, its scripts and its file.
//!
//! One thread with a runtime of its own reads all links, tells the machine what came and what time it is, and
//! carries out what it says. Names are looked up on threads beside it. The file is written by itself, before
//! anything leaves that the file has to know: while a disk hangs it promises nothing, and finds afterwards
//! that time has passed (tilt), as a sentinel does that was stopped.

mod driver;
mod link;
mod script;

use std::io;
use std::sync::Arc;

use crate::base::clock::Steady;
use crate::base::random;
use crate::config::Settings;
use crate::dispatch::context::Shared;
use crate::sentinel::conf::{self, Wrong};
use crate::sentinel::handle::Sentinel;

/// A script that can be run.
pub fn is_runnable(path: &str) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The sentinel that the configuration describes. A new one gets an id.
///
/// # Errors
/// A line of the file cannot be.
pub fn prepare(settings: &Settings) -> Result<Sentinel, Wrong> {
    let clock = Steady::start();
    let lines = &settings.directives.sentinel;
    let mut machine = conf::read(lines, &is_runnable, random::bits(), clock.now())?;
    machine.globals.port = match settings.tls_replication && settings.tls_port != 0 {
        true => settings.tls_port,
        false => settings.port,
    };
    machine.globals.requirepass = password(settings);
    Ok(Sentinel::new(machine, clock))
}

/// Our own password, as text.
pub fn password(settings: &Settings) -> Option<String> {
    let pass = String::from_utf8_lossy(&settings.requirepass).into_owned();
    (!pass.is_empty()).then_some(pass)
}

/// Writes the file, which is durable then.
///
/// # Errors
/// It cannot be written.
pub fn write_file(shared: &Shared, sentinel: &Sentinel) -> io::Result<()> {
    let users = shared.users.lines_of_configuration();
    let written = shared.config.rewrite(&users, false, &mut |rewrite| {
        sentinel.machine().write(rewrite);
    });
    match &written {
        Ok(()) => tracing::info!("Sentinel new configuration saved on disk"),
        Err(error) => tracing::warn!(
            "WARNING: Sentinel was not able to save the new configuration on disk!!!: {}",
            crate::config::strerror(error)
        ),
    }
    written
}

/// Gives a new sentinel its id, and starts the thread.
///
/// # Errors
/// There can be no more threads.
pub fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let Some(sentinel) = shared.sentinel.clone() else {
        return Ok(());
    };
    let is_new = sentinel.machine().globals.myid.is_empty();
    if is_new {
        sentinel.machine().globals.myid = random::run_id();
        // Why it could not be is in the log; it is tried again with the next change.
        let _ = write_file(shared, &sentinel);
    }
    let id = sentinel.machine().globals.myid.clone();
    tracing::warn!("Sentinel ID is {id}");
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("sentinel".to_owned());
    thread
        .spawn(move || driver::run(&shared, &sentinel))
        .map(drop)
}
