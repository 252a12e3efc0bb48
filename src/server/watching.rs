//! The start of a sentinel: what is different from that of other servers.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::frame::Doors;
use super::process;
use crate::base::text::before_nul;
use crate::config::{REDIS_VERSION, Settings};
use crate::dispatch::context::Shared;
use crate::sentinel::conf::Wrong;
use crate::sentinel::handle::Sentinel;
use crate::watch;

/// The port of sentinels.
const PORT: u16 = 26379;

/// What parameters begin with.
pub fn settings() -> Settings {
    let mut settings = Settings {
        port: PORT,
        // Other sentinels have to reach it.
        protected_mode: false,
        ..Settings::default()
    };
    settings.directives.sentinel_mode = true;
    settings
}

/// Takes what the configuration says. Why that cannot be is told.
pub fn prepare(settings: &Settings, file: Option<&[u8]>) -> Result<Sentinel, ()> {
    let prepared = watch::prepare(settings).map_err(|wrong: Wrong| {
        let line = String::from_utf8_lossy(before_nul(&wrong.line)).into_owned();
        eprintln!("\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***");
        eprintln!("Reading the configuration file, at line {}", wrong.number);
        eprintln!(">>> '{line}'\n{}", wrong.reason);
    });
    let sentinel = prepared?;
    let Some(file) = file else {
        tracing::warn!("Sentinel needs config file on disk to save state. Exiting...");
        return Err(());
    };
    let path = Path::new(OsStr::from_bytes(file));
    if let Err(error) = rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        tracing::warn!(
            "Sentinel config file {} is not writable: {}. Exiting...",
            path.display(),
            crate::config::strerror(&error.into())
        );
        return Err(());
    }
    Ok(sentinel)
}

/// It begins to watch, and clients are let in.
pub fn begin(shared: &Arc<Shared>, doors: &Doors) -> io::Result<()> {
    watch::start(shared)?;
    process::notify("STATUS=Ready to accept connections\n");
    process::notify("READY=1\n");
    doors.open();
    Ok(())
}
