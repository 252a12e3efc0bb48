//! The log, in Redis' line format: `pid:role date level message`.
//!
//! `tracing` events are the lines. Levels: `trace` is Redis' debug (`.`), `debug` verbose (`-`),
//! `info` notice (`*`), `warn` and `error` warning (`#`). The file is opened for each line, as
//! Redis does, so that whoever rotates or appends to it needs no signal.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::config::{LogLevel, Settings, SyslogFacility};

/// Where lines go and which.
#[derive(Clone, Default)]
struct Target {
    /// Empty: standard output.
    file: Vec<u8>,
    syslog: Option<(Vec<u8>, u8)>,
}

static TARGET: OnceLock<ArcSwap<Target>> = OnceLock::new();
static ROLE: AtomicU32 = AtomicU32::new('C' as u32);
static LEVEL: AtomicU8 = AtomicU8::new(NOTICE);

const DEBUG: u8 = 0;
const VERBOSE: u8 = 1;
const NOTICE: u8 = 2;
const WARNING: u8 = 3;

fn target() -> &'static ArcSwap<Target> {
    TARGET.get_or_init(|| ArcSwap::from_pointee(Target::default()))
}

/// Installs the log as the process' `tracing` subscriber. Further calls do nothing.
pub fn install() {
    let _ = tracing::subscriber::set_global_default(Log);
}

/// Makes the log follow the parameters.
pub fn configure(settings: &Settings) {
    let level = match settings.loglevel {
        LogLevel::Debug => DEBUG,
        LogLevel::Verbose => VERBOSE,
        LogLevel::Notice => NOTICE,
        LogLevel::Warning => WARNING,
    };
    LEVEL.store(level, Relaxed);
    target().store(Arc::new(Target {
        file: settings.logfile.to_vec(),
        syslog: settings.syslog_enabled.then(|| {
            (
                settings.syslog_ident.to_vec(),
                facility(settings.syslog_facility),
            )
        }),
    }));
}

/// The letter of the process' role: `M` primary, `S` replica, `X` sentinel, `C` before that is
/// known.
pub fn set_role(role: char) {
    ROLE.store(role as u32, Relaxed);
}

/// Writes text without the usual head, as the logo is.
pub fn raw(text: &str) {
    write_line(&target().load(), text.as_bytes());
}

/// Logs that a signal came, in the form that Redis' signal handler gives its lines.
pub fn signal(text: &str) {
    let (pid, seconds) = (std::process::id(), crate::base::clock::unix_ms() / 1000);
    raw(&format!("{pid}:signal-handler ({seconds}) {text}\n"));
}

struct Log;

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

fn rank(level: &Level) -> u8 {
    match *level {
        Level::TRACE => DEBUG,
        Level::DEBUG => VERBOSE,
        Level::INFO => NOTICE,
        _ => WARNING,
    }
}

impl Subscriber for Log {
    /// The level changes at run time, so `tracing` must ask again each time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries speak through `tracing` too; the log is ours alone.
        rank(metadata.level()) >= LEVEL.load(Relaxed) && metadata.target().starts_with("tessera")
    }

    fn event(&self, event: &Event<'_>) {
        let rank = rank(event.metadata().level());
        let target = target().load();
        let mut message = Message(String::new());
        event.record(&mut message);
        let role = char::from_u32(ROLE.load(Relaxed)).unwrap_or('M');
        let mark = ['.', '-', '*', '#'][usize::from(rank)];
        let date = chrono::Local::now().format("%d %b %Y %H:%M:%S%.3f");
        let line = format!(
            "{}:{role} {date} {mark} {}\n",
            std::process::id(),
            message.0
        );
        write_line(&target, line.as_bytes());
        if let Some((ident, facility)) = &target.syslog {
            syslog(ident, *facility, rank, &message.0);
        }
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A log that cannot be written has nobody to tell, so errors end here.
fn write_line(target: &Target, line: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    if target.file.is_empty() {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(line).and_then(|()| out.flush());
        return;
    }
    let path = std::ffi::OsStr::from_bytes(&target.file);
    if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
        let _ = file.write_all(line);
    }
}

/// The number of a facility in RFC 3164.
fn facility(facility: SyslogFacility) -> u8 {
    match facility {
        SyslogFacility::User => 1,
        SyslogFacility::Local0 => 16,
        SyslogFacility::Local1 => 17,
        SyslogFacility::Local2 => 18,
        SyslogFacility::Local3 => 19,
        SyslogFacility::Local4 => 20,
        SyslogFacility::Local5 => 21,
        SyslogFacility::Local6 => 22,
        SyslogFacility::Local7 => 23,
    }
}

/// Sends a line to the local syslog socket (RFC 3164).
fn syslog(ident: &[u8], facility: u8, rank: u8, message: &str) {
    // debug, info, notice, warning
    let severity = [7, 6, 5, 4][usize::from(rank)];
    let mut packet = format!("<{}>", u32::from(facility) * 8 + severity).into_bytes();
    packet.extend_from_slice(
        chrono::Local::now()
            .format("%b %e %H:%M:%S ")
            .to_string()
            .as_bytes(),
    );
    packet.extend_from_slice(ident);
    packet.extend_from_slice(format!("[{}]: {message}", std::process::id()).as_bytes());
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.send_to(&packet, "/dev/log");
    }
}
