//! The replica's side of replication as a state machine without I/O.
//!
//! [`Follower`] is told what happens ([`Event`]: a primary is chosen, its socket is connected, bytes came,
//! the dump is loaded) and what time it is, and says what is to be done ([`Action`]), in this order.
//! Whoever drives it owns the socket, the loader and the applier; the machine sees every byte of the
//! primary once and copies none of the dump or the stream: what it returns are ranges of what it was
//! handed.
//!
//! ```text
//! off ─► connect ─► connecting ─► handshake ─► sync (receive, load) ─► connected
//!            ▲           │            │  └──── +CONTINUE ────────────────► │
//!            └───────────┴────────────┴───────────────┴────────────────────┘ errors, timeouts
//! ```
//!
//! Invariants:
//! - The driver is asked for its history when PSYNC is about to be sent, so that the offset is that of the
//!   last byte applied. The stream continues exactly behind it, or a dump replaces everything.
//! - Every state in which the primary has to do something ends by `repl-timeout`; only the loading of
//!   a dump that is there takes as long as it takes.
//! - What a primary sends never makes the machine panic, nor keep more of it than a line.
//!
//! The machine never reads the clock, resolves a name or touches a socket. It does not know what the
//! stream means: requests in it, `REPLCONF GETACK` among them, are the applier's.

use std::fmt;
use std::ops::Range;

use crate::base::number;
use crate::resp::write;

mod handshake;
mod line;
mod machine;
mod mark;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod transfer;

pub use machine::Follower;

/// Parameters that the machine needs. They may change at any time and count from the next use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port that the primary tells others: `replica-announce-port`, or that on which we listen.
    pub port: u16,
    /// `replica-announce-ip`.
    pub ip: Option<String>,
    /// `masteruser`.
    pub user: Option<Vec<u8>>,
    /// `masterauth`.
    pub password: Option<Vec<u8>>,
    /// `repl-timeout`, in seconds.
    pub timeout: u32,
    /// Where a dump goes, if it began now.
    pub load: Load,
}

/// Where a dump goes: `repl-diskless-load`, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// To a file; once that is complete, the old data is dropped and the file is loaded.
    File,
    /// To the loader as it comes. The old data is dropped first.
    Direct,
    /// To the loader as it comes, beside the old data, which it replaces at its end.
    Swap,
}

/// The identity of a stream: 40 letters and digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StreamName([u8; 40]);

impl StreamName {
    /// The name that `text` is; `None` unless it has 40 bytes, all letters or digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let name: [u8; 40] = text.try_into().ok()?;
        name.iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters and digits")
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a data set contains: the stream `id` up to and including byte `offset`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Which stream.
    pub id: StreamName,
    /// Never negative.
    pub offset: i64,
}

/// What happened.
///
/// `attempt` is the number that [`Action::Connect`] came with; what belongs to an earlier one is ignored.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// From now on that primary is followed (REPLICAOF, FAILOVER), whatever was before.
    Follow {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
        /// FAILOVER: the other side is told to become a primary.
        failover: bool,
    },
    /// As `Follow`, at the start of the server: it was no primary before.
    Start {
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// No primary is followed any more.
    Stop,
    /// The socket is connected.
    Connected {
        /// Which one.
        attempt: u64,
    },
    /// The name could not be resolved, or no socket could be made.
    Unreachable {
        /// Which attempt.
        attempt: u64,
        /// Why.
        text: String,
    },
    /// The socket could not be connected.
    ConnectFailed {
        /// Which attempt.
        attempt: u64,
        /// Why.
        text: String,
    },
    /// The answer to [`Action::AskHistory`].
    History {
        /// Which attempt.
        attempt: u64,
        /// What the data set contains; `None` if nothing that a primary could continue.
        history: Option<History>,
    },
    /// Bytes that the socket of the present attempt gave, in their order and without a gap.
    Bytes(&'a [u8]),
    /// The driver does not read the socket because it works on what it has read, or the loader does.
    /// Counts as a sign of life of the primary.
    Busy,
    /// The other side, or an error, ended the connection.
    Closed {
        /// Why.
        text: String,
    },
    /// The dump, all of which was handed over, is loaded.
    Loaded {
        /// Which attempt.
        attempt: u64,
    },
    /// The dump could not be stored or loaded. Nobody waits for [`Action::AbortLoad`] then.
    LoadFailed {
        /// Which attempt.
        attempt: u64,
        /// Why.
        text: String,
        /// The next one will fail as well (a version that is not known, an invalid value): it is asked for
        /// later and later, up to once a minute.
        lasting: bool,
    },
    /// The primary asked in its stream for a confirmation (REPLCONF GETACK).
    GetAck,
    /// The stream is no sequence of requests. The driver has forgotten its history.
    Corrupt,
}

/// What is to be done. All of a list is done in its order, before the next event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look up the name, every time anew, and connect. Answered by [`Event::Connected`],
    /// [`Event::ConnectFailed`] or [`Event::Unreachable`].
    Connect {
        /// Number of the attempt, which belongs to the connection and all that comes of it.
        attempt: u64,
        /// A name or an address.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Write to the socket, when there is room.
    Send(Vec<u8>),
    /// Close the socket, or give up connecting it. Unread and unapplied bytes of the stream are dropped;
    /// applied ones count.
    Close,
    /// Report the history with [`Event::History`], once all that was streamed before is applied or
    /// dropped. The data set must not change until the next of `Close`, `ContinueAs` or `BeginLoad`.
    AskHistory {
        /// Of this attempt.
        attempt: u64,
    },
    /// A dump begins. Where it goes says `load`; with [`Load::Direct`] the old data is dropped now, and
    /// the history with it.
    BeginLoad {
        /// Of this attempt.
        attempt: u64,
        /// What it will contain; `None` when the primary did not say, for it is an old one.
        source: Option<History>,
        /// Its length in bytes, if that is known.
        len: Option<u64>,
        /// Where it goes.
        load: Load,
    },
    /// These of the bytes handed in are the next ones of the dump.
    LoadBytes(Range<usize>),
    /// The next bytes of the dump are these; they were taken for the beginning of its end.
    LoadHeld(Held),
    /// The dump is complete. With [`Load::File`] the old data is dropped now, and the history with it. To be
    /// answered by [`Event::Loaded`] or [`Event::LoadFailed`].
    EndLoad,
    /// The load is given up; nothing of it stays. With [`Load::Direct`], or past [`Action::EndLoad`]
    /// with [`Load::File`], the data set is empty then; otherwise it is the old one.
    AbortLoad,
    /// What was loaded is the data set from now on (with [`Load::Swap`] it takes the place of the old one):
    /// with this history, and no older one; with an own new one for `None`. Replicas of ours must begin
    /// anew.
    Adopt(Option<History>),
    /// The stream continues behind what was reported as the history.
    ContinueAs {
        /// The stream is now called so; what it was called is the second name, up to this offset.
        id: Option<StreamName>,
    },
    /// These of the bytes handed in are the next ones of the stream. They may come before `Adopt`: then
    /// they belong behind the dump and wait. The driver need not read on meanwhile.
    StreamBytes(Range<usize>),
    /// Send [`acknowledgement`] of what is applied.
    Acknowledge,
    /// What became of FAILOVER: the other side took over, or it refused. Then no primary is followed
    /// any more.
    FailedOver(bool),
    /// A line for the log.
    Log(Level, String),
}

/// The severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `notice`.
    Notice,
    /// `warning`.
    Warning,
}

/// Up to 39 bytes of a dump that came with earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    mark: [u8; mark::LEN],
    len: usize,
}

impl Held {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.mark[..self.len]
    }
}

/// The confirmation of the stream up to `applied`, and, where that is known, of what of it is
/// synchronized to the disk, up to `durable`.
pub fn acknowledgement(applied: i64, durable: Option<i64>) -> Vec<u8> {
    let mut out = Vec::new();
    let applied = applied.to_string();
    match durable.map(|offset| offset.to_string()) {
        Some(durable) => write::request(&mut out, &["REPLCONF", "ACK", &applied, "FACK", &durable]),
        None => write::request(&mut out, &["REPLCONF", "ACK", &applied]),
    }
    out
}

/// Most that an offset may be, so that what follows can be counted.
const GREATEST_OFFSET: i64 = i64::MAX / 2;

/// The history that a primary announces.
fn history(id: &[u8], offset: &[u8]) -> Option<History> {
    let offset = number::parse_i64(offset)?;
    let id = StreamName::parse(id)?;
    (0..=GREATEST_OFFSET)
        .contains(&offset)
        .then_some(History { id, offset })
}

/// What is to be done, as it gathers within a step.
#[derive(Debug, Default)]
struct Out(Vec<Action>);

impl Out {
    fn push(&mut self, action: Action) {
        self.0.push(action);
    }

    fn notice(&mut self, text: impl Into<String>) {
        self.push(Action::Log(Level::Notice, text.into()));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.push(Action::Log(Level::Warning, text.into()));
    }

    fn request<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut bytes = Vec::new();
        write::request(&mut bytes, args);
        self.push(Action::Send(bytes));
    }
}
