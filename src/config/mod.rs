//! Configuration: one row per parameter, files in and out, a snapshot that every thread can read.
//!
//! - [`params`] is the table; [`Settings`], one typed field per row, is made from it.
//! - [`Config`] holds the current [`Settings`] behind one pointer. Reading is one atomic load;
//!   a change makes a new snapshot, so a reader never sees half of a CONFIG SET.
//! - [`file`](mod@file) reads `redis.conf`, [`command_line`] turns arguments into the same syntax,
//!   [`rewrite`] writes the file back.
//!
//! This module never acts on a parameter (the exception is `dir`, see [`special`]): what a change
//! sets in motion is named by the row's [`Effect`] and done by the caller of [`Config::set`].

pub mod choices;
pub mod command_line;
pub mod file;
mod include;
pub mod number;
pub mod params;
pub mod proc_title;
pub mod rewrite;
pub mod special;
pub mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::base::glob;
use crate::base::text::before_nul;

pub use choices::*;
pub use params::{PARAMS, Settings, lookup};
pub use special::{Dir, NotifyFlags, OutputLimit, SavePoint, strerror};
pub use value::{Effect, Flags, Kind, Origin, Param, Text};

/// The version of Redis whose behaviour is ours.
pub const REDIS_VERSION: &str = "7.0.15";

/// Directives of the file that are no parameters, and how the server was called. Other modules own
/// what they mean.
#[derive(Clone, Default)]
pub struct Directives {
    /// `rename-command`: old name, new name; an empty new name removes the command.
    pub rename_commands: Vec<(Vec<u8>, Vec<u8>)>,
    /// `user`: rows of users.
    pub users: Vec<UserRow>,
    /// `loadmodule`: path and arguments. See [`Directives::refusal`].
    pub load_modules: Vec<Vec<Vec<u8>>>,
    /// `module.name value`: parameters of modules.
    pub module_configs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `sentinel ...` lines, in order.
    pub sentinel: Vec<SentinelLine>,
    /// The server runs as a sentinel.
    pub sentinel_mode: bool,
}

/// A `user` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// Its words, `user` included.
    pub words: Vec<Vec<u8>>,
    /// It stands in a file that the configuration file includes.
    pub is_included: bool,
}

impl UserRow {
    fn is_of_same_user(&self, other: &Self) -> bool {
        self.words.get(1) == other.words.get(1)
    }

    /// True when both cannot be: they define the same user, and neither file includes the other.
    pub fn clashes_with(&self, other: &Self) -> bool {
        self.is_of_same_user(other) && self.is_included == other.is_included
    }

    /// True when one of `rows` counts instead: that of the file which includes this one's.
    pub fn is_overruled(&self, rows: &[Self]) -> bool {
        let overrules = |row: &Self| !row.is_included && self.is_of_same_user(row);
        self.is_included && rows.iter().any(overrules)
    }
}

/// A `sentinel` directive and where it stood, for the sentinel's own error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelLine {
    /// The arguments without the word `sentinel`.
    pub args: Vec<Vec<u8>>,
    /// Line number, from 1.
    pub number: usize,
    /// The whole line.
    pub line: Vec<u8>,
}

impl Directives {
    /// Why the server cannot start with these directives, as lines for the log: modules in C are
    /// not supported, so nothing can load them or take their parameters.
    pub fn refusal(&self) -> Option<Vec<String>> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some([path, ..]) = self.load_modules.first().map(Vec::as_slice) {
            let path = lossy(path);
            return Some(vec![
                format!(
                    "Module {path} failed to load: modules in C are not supported by this server"
                ),
                format!("Can't load module from {path}: server aborting"),
            ]);
        }
        if self.module_configs.is_empty() {
            return None;
        }
        let mut lines = vec!["Unresolved Configuration(s) Detected:".to_owned()];
        let configs = self.module_configs.iter();
        lines
            .extend(configs.map(|(name, value)| format!(">>> '{} {}'", lossy(name), lossy(value))));
        lines.push(
            "Module Configuration detected without loadmodule directive or no ApplyConfig call: aborting"
                .to_owned(),
        );
        Some(lines)
    }
}

/// The number of workers when `io-threads` is not given: the processors that the affinity mask and
/// the cgroup's quota leave to this process, within the parameter's range.
pub fn default_workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    processors.clamp(1, 128)
}

/// The configuration that all threads share.
pub struct Config {
    current: ArcSwap<Settings>,
    version: AtomicU64,
    /// Held while a change is made, its effects included; so effects never change settings.
    changing: Mutex<()>,
    /// Held while the file is written. Whoever changes settings meanwhile does not wait for the disk.
    writing: Mutex<()>,
    file: Option<Vec<u8>>,
}

/// Who calls CONFIG SET, as far as it decides what is allowed.
#[derive(Clone, Copy, Default)]
pub struct Caller {
    /// The connection comes from this machine.
    pub local: bool,
    /// The server is loading its data set.
    pub loading: bool,
}

impl Config {
    /// Shares `settings`. `file` is the absolute path of the configuration file, if there is one.
    pub fn new(settings: Settings, file: Option<Vec<u8>>) -> Config {
        Config {
            current: ArcSwap::from_pointee(settings),
            version: AtomicU64::new(0),
            changing: Mutex::new(()),
            writing: Mutex::new(()),
            file,
        }
    }

    /// The settings now, for a short look.
    pub fn settings(&self) -> Guard<Arc<Settings>> {
        self.current.load()
    }

    /// The settings now, to keep.
    pub fn load(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Grows with every change: a cheap way to see that a kept snapshot is old.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Absolute path of the configuration file; `None` when the server was started without.
    pub fn config_file(&self) -> Option<&[u8]> {
        self.file.as_deref()
    }

    /// Changes settings from inside the server (REPLICAOF, a limit corrected at start). Must not be
    /// called from an effect of [`Config::set`].
    pub fn update(&self, change: impl FnOnce(&mut Settings)) {
        let _changing = self.changing.lock();
        let mut settings = Settings::clone(&self.current.load());
        change(&mut settings);
        self.publish(Arc::new(settings));
    }

    fn publish(&self, settings: Arc<Settings>) {
        self.current.store(settings);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// CONFIG GET: names and values that match any of `patterns`, each name once.
    ///
    /// A name without `*`, `?` and `[` finds its parameter even when hidden, and comes back as it
    /// was written; an alias is a name of its own.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let settings = self.settings();
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |name: String, param: &Param| {
            if !found
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(&name))
            {
                found.push((name, param.print(&settings)));
            }
        };
        for pattern in patterns {
            if !pattern.iter().any(|b| matches!(b, b'[' | b'*' | b'?')) {
                if let Some((param, _)) = lookup(pattern) {
                    add(String::from_utf8_lossy(pattern).into_owned(), param);
                }
                continue;
            }
            for param in PARAMS
                .iter()
                .filter(|param| !param.flags.has(Flags::HIDDEN))
            {
                for name in std::iter::once(param.name).chain(param.alias) {
                    if glob::matches(pattern, name.as_bytes(), true) {
                        add(name.to_owned(), param);
                    }
                }
            }
        }
        found
    }

    /// CONFIG SET: all of `pairs` (name, value) or none.
    ///
    /// The new settings are published, then `apply` is called once for each [`Effect`] that is due,
    /// with the row that caused it. When one fails, the old settings come back and `apply` is called
    /// with them for all of these effects. `apply` must not change settings itself.
    pub fn set(
        &self,
        pairs: &[(&[u8], &[u8])],
        caller: Caller,
        apply: &mut dyn FnMut(&'static Param, &Settings) -> Result<(), String>,
    ) -> Result<(), SetError> {
        let _changing = self.changing.lock();
        let old = self.load();
        let targets = admit(pairs, caller, &old)?;
        let mut new = Settings::clone(&old);
        let mut effects: Vec<(&'static Param, &'static str)> = Vec::new();
        for ((param, name), (_, value)) in targets.iter().zip(pairs) {
            let args = split_value(param, value);
            match param.set(&mut new, &args, &mut Origin::default()) {
                Ok(true) if param.effect != Effect::None => {
                    if !effects
                        .iter()
                        .any(|(known, _)| known.effect == param.effect)
                    {
                        effects.push((param, name));
                    }
                }
                Ok(_) => {}
                Err(reason) => {
                    restore_dir(&old, &new);
                    return Err(SetError::failed(name.as_bytes(), reason));
                }
            }
        }
        clamp(&mut new);
        if new.repl_backlog_size != old.repl_backlog_size {
            new.repl_backlog_size = new.repl_backlog_size.max(params::MIN_BACKLOG_BYTES);
        }
        let new = Arc::new(new);
        self.publish(new.clone());
        for (param, name) in &effects {
            if let Err(reason) = apply(param, &new) {
                restore_dir(&old, &new);
                self.publish(old.clone());
                for (param, _) in &effects {
                    // The error that counts is the first one; restoring does what it can.
                    let _ = apply(param, &old);
                }
                return Err(SetError::NotApplied { name, reason });
            }
        }
        Ok(())
    }

    /// CONFIG REWRITE: writes the settings into the configuration file, see [`rewrite`].
    ///
    /// `users` are the lines of users to keep (`user name rules...`), unless an ACL file has them.
    /// `more` adds lines that other modules own (the sentinel's).
    pub fn rewrite(
        &self,
        users: &[Vec<u8>],
        force_all: bool,
        more: &mut dyn FnMut(&mut rewrite::Rewrite),
    ) -> std::io::Result<()> {
        let Some(file) = &self.file else {
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        };
        let _writing = self.writing.lock();
        rewrite::rewrite_file(file, &self.settings(), users, force_all, more)
    }
}

impl Settings {
    /// The port of clients: that without TLS, if there is one.
    pub fn any_port(&self) -> u16 {
        match self.port {
            0 => self.tls_port,
            port => port,
        }
    }
}

/// The checks of CONFIG SET that come before any value is looked at, in Redis' order.
fn admit(
    pairs: &[(&[u8], &[u8])],
    caller: Caller,
    settings: &Settings,
) -> Result<Vec<(&'static Param, &'static str)>, SetError> {
    let mut targets: Vec<(&'static Param, &'static str)> = Vec::with_capacity(pairs.len());
    for (given, _) in pairs {
        let Some((param, name)) = lookup(given) else {
            return Err(SetError::Unknown(given.to_vec()));
        };
        if param.flags.has(Flags::IMMUTABLE) {
            return Err(SetError::failed(
                given,
                "can't set immutable config".to_owned(),
            ));
        }
        if param.flags.has(Flags::PROTECTED)
            && !settings.enable_protected_configs.allows(caller.local)
        {
            return Err(SetError::failed(
                given,
                "can't set protected config".to_owned(),
            ));
        }
        if param.flags.has(Flags::DENY_LOADING) && caller.loading {
            return Err(SetError::Loading);
        }
        // A parameter and its alias are two names, and the later one wins.
        if targets.iter().any(|(_, known)| *known == name) {
            return Err(SetError::failed(given, "duplicate parameter".to_owned()));
        }
        targets.push((param, name));
    }
    Ok(targets)
}

/// The arguments in the one value that CONFIG SET gets: separated by single spaces where the
/// parameter takes several, so two spaces make an empty argument.
fn split_value(param: &Param, value: &[u8]) -> Vec<Vec<u8>> {
    if !param.flags.has(Flags::MULTI_ARG) {
        return vec![value.to_vec()];
    }
    if value.is_empty() {
        return Vec::new();
    }
    value.split(|&b| b == b' ').map(<[u8]>::to_vec).collect()
}

/// Moves values that are hints rather than orders into the range that can be obeyed.
fn clamp(settings: &mut Settings) {
    settings.hz = settings
        .hz
        .clamp(*params::HZ_RANGE.start(), *params::HZ_RANGE.end());
}

/// Goes back to the directory that `old` names, since reading `dir` has left it.
fn restore_dir(old: &Settings, new: &Settings) {
    if old.dir != new.dir {
        // A directory that is gone by now cannot be gone back to.
        let _ = std::env::set_current_dir(old.dir.as_path());
    }
}

/// True when the value of the parameter called `name` must not be shown in logs.
pub fn is_sensitive(name: &[u8]) -> bool {
    lookup(name).is_some_and(|(param, _)| param.flags.has(Flags::SENSITIVE))
}

/// Why a CONFIG SET changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// The data set is being loaded, and the parameter has to wait.
    Loading,
    /// No parameter has this name.
    Unknown(Vec<u8>),
    /// The parameter cannot be set, or not to this value.
    Failed {
        /// Name of the parameter.
        name: Vec<u8>,
        /// Why.
        reason: String,
    },
    /// The value was good but its effect failed. Worth a log line, see [`SetError::log_line`].
    NotApplied {
        /// Name of the parameter.
        name: &'static str,
        /// Why; may be empty.
        reason: String,
    },
}

impl SetError {
    fn failed(name: &[u8], reason: String) -> SetError {
        SetError::Failed {
            name: name.to_vec(),
            reason,
        }
    }

    /// The error reply without `-` and line break; has no line breaks inside.
    pub fn reply(&self) -> Vec<u8> {
        let (name, reason): (&[u8], &str) = match self {
            SetError::Loading => return b"LOADING Redis is loading the dataset in memory".to_vec(),
            SetError::Unknown(name) => (name, ""),
            SetError::Failed { name, reason } => (name, reason),
            SetError::NotApplied { name, reason } => (name.as_bytes(), reason),
        };
        let mut text = match self {
            SetError::Unknown(_) => {
                b"ERR Unknown option or number of arguments for CONFIG SET - '".to_vec()
            }
            _ => b"ERR CONFIG SET failed (possibly related to argument '".to_vec(),
        };
        text.extend_from_slice(before_nul(name));
        text.push(b'\'');
        if !matches!(self, SetError::Unknown(_)) {
            text.push(b')');
        }
        if !reason.is_empty() {
            text.extend_from_slice(b" - ");
            text.extend_from_slice(reason.as_bytes());
        }
        for byte in &mut text {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        text
    }

    /// What Redis logs as a warning besides the reply.
    pub fn log_line(&self) -> Option<String> {
        match self {
            SetError::NotApplied { name, .. } => Some(format!(
                "Failed applying new configuration. Possibly related to new {name} setting. \
                 Restoring previous settings."
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
