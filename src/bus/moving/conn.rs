//! The source's connection to the target, or to who is to be asked.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::TICK;
use crate::cluster::id::NodeId;
use crate::cluster::machine::Machine;
use crate::config::Settings;
use crate::dispatch::context::Shared;
use crate::replication::dial;
use crate::resp::write::request;
use crate::wire::Duplex;

/// Longest line that is waited for, in bytes.
const LONGEST_LINE: usize = 4096;

/// Why a connection is of no use any more.
pub enum Broken<E> {
    /// What the caller looked for has happened.
    Interrupted(E),
    /// It has ended, or does not move.
    Lost(String),
}

/// A connection whose reads and writes look up every now and then.
pub struct Conn {
    socket: Duplex,
    input: Vec<u8>,
    /// How long nothing may move.
    limit: Duration,
}

/// Where a node is to be reached by servers.
pub fn place_of(machine: &Machine, settings: &Settings, id: NodeId) -> Option<(String, u16)> {
    let view = machine.view();
    let node = view.node(view.find(id)?);
    let port = match settings.tls_cluster && !settings.tls_replication {
        true if node.plain_port != 0 => node.plain_port,
        _ => node.port,
    };
    (!node.ip.is_empty()).then(|| (node.ip.clone(), port))
}

impl Conn {
    /// Connects, for no longer than `limit`.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn open(shared: &Shared, place: &(String, u16), limit: Duration) -> Result<Self, String> {
        let stream = dial::reach(shared, place, limit)?;
        let socket = Duplex::new(stream, TICK).map_err(|error| error.to_string())?;
        let seconds = shared.config.settings().repl_timeout.max(1).unsigned_abs();
        Ok(Self {
            socket,
            input: Vec::new(),
            limit: Duration::from_secs(seconds.into()),
        })
    }

    /// Writes a request; see [`Conn::write`].
    pub fn say<E>(
        &mut self,
        words: &[&[u8]],
        look: &mut dyn FnMut() -> Option<E>,
    ) -> Result<(), Broken<E>> {
        let mut bytes = Vec::new();
        request(&mut bytes, words);
        self.write(&bytes, look)
    }

    /// Writes; `look` is asked while there is no room, and may end that.
    ///
    /// # Errors
    /// A part may have been written.
    pub fn write<E>(
        &mut self,
        mut bytes: &[u8],
        look: &mut dyn FnMut() -> Option<E>,
    ) -> Result<(), Broken<E>> {
        let mut begun = Instant::now();
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(count) => {
                    bytes = &bytes[count..];
                    begun = Instant::now();
                }
                Err(error) => self.stalled(&error, begun, look)?,
            }
        }
        loop {
            match self.socket.flush() {
                Ok(()) => return Ok(()),
                Err(error) => self.stalled(&error, begun, look)?,
            }
        }
    }

    /// The next line, without its end; `look` is asked while it is not there.
    pub fn line<E>(&mut self, look: &mut dyn FnMut() -> Option<E>) -> Result<String, Broken<E>> {
        let (begun, mut piece) = (Instant::now(), [0; 1024]);
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input) {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.input.len() > LONGEST_LINE {
                return Err(Broken::Lost("no reply".to_owned()));
            }
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(Broken::Lost(String::new())),
                Ok(count) => self.input.extend_from_slice(&piece[..count]),
                Err(error) => self.stalled(&error, begun, look)?,
            }
        }
    }

    fn stalled<E>(
        &self,
        error: &io::Error,
        begun: Instant,
        look: &mut dyn FnMut() -> Option<E>,
    ) -> Result<(), Broken<E>> {
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            return Err(Broken::Lost(String::new()));
        }
        if let Some(what) = look() {
            return Err(Broken::Interrupted(what));
        }
        match begun.elapsed() > self.limit {
            true => Err(Broken::Lost(
                "Timed out after too long with no interaction".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Says who this server is, if it has to, as to a primary.
    pub fn authenticate<E>(
        &mut self,
        settings: &Settings,
        look: &mut dyn FnMut() -> Option<E>,
    ) -> Result<(), Broken<E>> {
        if settings.masterauth.is_empty() {
            return Ok(());
        }
        match settings.masteruser.is_empty() {
            true => self.say(&[b"AUTH", &settings.masterauth], look)?,
            false => self.say(&[b"AUTH", &settings.masteruser, &settings.masterauth], look)?,
        }
        let reply = self.line(look)?;
        match reply.strip_prefix('-') {
            Some(why) => Err(Broken::Lost(format!(
                "Failed to AUTH to target node: {why}"
            ))),
            None => Ok(()),
        }
    }
}
