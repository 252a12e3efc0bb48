//! The machine itself: connections and when the next one is due, signs of life, and the states that
//! handshakes and dumps lead to and fall back to.

use super::handshake::{self, Handshake};
use super::line::Progress;
use super::transfer::{self, Transfer};
use super::{Action, Event, History, Out, Settings};
use crate::propagation::{FullSync, View};

/// From attempt to attempt where one failed, in milliseconds.
const RETRY: i64 = 1000;
/// From attempt to attempt where a connection was lost: another one is due at once, but no faster.
const SOONEST: i64 = 100;
/// From confirmation to confirmation, and from empty line to empty line while a dump is loaded.
const BEAT: i64 = 1000;
/// Longest time between ticks: what passes between two is lost when the clock is put back meanwhile.
const LONGEST_WAIT: i64 = 1000;
/// Longest pause between full syncs that cannot be loaded.
const LONGEST_PAUSE: i64 = 60_000;

/// The replica's side of replication. See the module.
#[derive(Debug)]
pub struct Follower {
    settings: Settings,
    primary: Option<Primary>,
    state: State,
    clock: Clock,
    /// Number of the last connection.
    attempt: u64,
    /// When it began. This and what follows is time of the clock.
    attempted: i64,
    /// When the primary gave a sign of life, or the present state began.
    heard: i64,
    /// When the next confirmation or empty line is due.
    beat: i64,
    /// When the next attempt is due.
    retry: i64,
    /// Since when the link, which was up, is down.
    down_since: Option<i64>,
    /// The link with this primary was up.
    was_up: bool,
    /// Full syncs in a row that could not be loaded.
    refused: u32,
    /// The next PSYNC hands the role of the primary over.
    failover: bool,
}

#[derive(Clone, Debug)]
struct Primary {
    host: String,
    port: u16,
}

#[derive(Debug)]
enum State {
    Off,
    /// An attempt is due.
    Connect,
    Connecting,
    Handshake(Handshake),
    Transfer(Box<Transfer>),
    Connected {
        /// The primary knows offsets.
        confirms: bool,
    },
}

/// Milliseconds that never go back, whatever the clock of the caller does.
#[derive(Debug, Default)]
struct Clock {
    at: i64,
    seen: Option<i64>,
}

impl Clock {
    fn advance(&mut self, now: i64) -> i64 {
        self.at = self.peek(now);
        self.seen = Some(now);
        self.at
    }

    fn peek(&self, now: i64) -> i64 {
        let seen = self.seen.unwrap_or(now);
        self.at.saturating_add(now.saturating_sub(seen).max(0))
    }
}

/// How a connection that ends is followed by another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// At once.
    AtOnce { after_failure: bool },
    /// In a second.
    Later,
}

impl Follower {
    /// One that follows nobody.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            primary: None,
            state: State::Off,
            clock: Clock::default(),
            attempt: 0,
            attempted: 0,
            heard: 0,
            beat: 0,
            retry: 0,
            down_since: None,
            was_up: false,
            refused: 0,
            failover: false,
        }
    }

    /// Parameters changed.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Something happened, at `now` (milliseconds of any clock; one that jumps does no harm).
    pub fn step(&mut self, event: Event<'_>, now: i64) -> Vec<Action> {
        self.clock.advance(now);
        let mut out = Out::default();
        match event {
            Event::Follow {
                host,
                port,
                failover,
            } => self.follow(Primary { host, port }, failover, &mut out),
            Event::Start { host, port } => {
                self.leave(&mut out);
                self.primary = Some(Primary { host, port });
                self.dial(&mut out);
            }
            Event::Stop => self.stop(&mut out),
            Event::Connected { attempt } if self.is_connecting(attempt) => {
                out.notice("Non blocking connect for SYNC fired the event.");
                self.heard = self.clock.at;
                self.state = State::Handshake(Handshake::begin(&mut out));
            }
            Event::Unreachable { attempt, text } if self.is_connecting(attempt) => {
                out.warn(format!("Unable to connect to MASTER: {text}"));
                self.reconnect(Next::Later, &mut out);
            }
            Event::ConnectFailed { attempt, text } if self.is_connecting(attempt) => {
                out.warn(format!("Error condition on socket for SYNC: {text}"));
                self.reconnect(Next::Later, &mut out);
            }
            Event::History { attempt, history } if attempt == self.attempt => {
                if let State::Handshake(handshake) = &mut self.state
                    && handshake.know(history, self.failover, &mut out)
                {
                    self.heard = self.clock.at;
                }
            }
            Event::Bytes(bytes) => self.receive(bytes, &mut out),
            Event::Busy if matches!(self.state, State::Transfer(_) | State::Connected { .. }) => {
                self.heard = self.clock.at;
            }
            Event::Closed { text } => self.closed(text, &mut out),
            Event::Loaded { attempt } if attempt == self.attempt => self.loaded(&mut out),
            Event::LoadFailed {
                attempt,
                text,
                lasting,
            } if attempt == self.attempt => self.load_failed(&text, lasting, &mut out),
            Event::GetAck if matches!(self.state, State::Connected { .. }) => {
                out.push(Action::Acknowledge);
            }
            Event::Corrupt if matches!(self.state, State::Connected { .. }) => {
                out.warn("Connection with master lost.");
                self.down_since = Some(self.clock.at);
                self.reconnect(Next::Later, &mut out);
            }
            // It belongs to what is over.
            _ => {}
        }
        out.0
    }

    /// Time passed. To be called once [`Follower::pause`] is over; more often does no harm.
    pub fn tick(&mut self, now: i64) -> Vec<Action> {
        self.clock.advance(now);
        let mut out = Out::default();
        if self.is_silent() {
            self.timed_out(&mut out);
        }
        let at = self.clock.at;
        match &self.state {
            State::Connect if at >= self.retry => self.dial(&mut out),
            State::Transfer(transfer) if transfer.loads() && at >= self.beat => {
                self.beat = at.saturating_add(BEAT);
                if transfer.closed.is_none() {
                    out.push(Action::Send(b"\n".to_vec()));
                }
            }
            State::Connected { confirms } if at >= self.beat => {
                self.beat = at.saturating_add(BEAT);
                if *confirms {
                    out.push(Action::Acknowledge);
                }
            }
            _ => {}
        }
        out.0
    }

    /// Milliseconds from the last step or tick until the next tick is due, a second at most; `None` when
    /// only an event leads on.
    pub fn pause(&self) -> Option<u64> {
        let limit = self.heard.saturating_add(self.limit() + 1);
        let due = match &self.state {
            State::Off => return None,
            State::Connect => self.retry,
            State::Handshake(handshake) if !handshake.waits_for_primary() => return None,
            State::Connecting | State::Handshake(_) => limit,
            State::Transfer(transfer) if transfer.is_loading() => self.beat,
            State::Transfer(transfer) if transfer.loads() => limit.min(self.beat),
            State::Transfer(_) => limit,
            State::Connected { .. } => limit.min(self.beat),
        };
        let pause = due.saturating_sub(self.clock.at);
        Some(pause.clamp(0, LONGEST_WAIT).unsigned_abs())
    }

    /// What INFO and ROLE tell, at `now`.
    pub fn view(&self, now: i64) -> View {
        let at = self.clock.peek(now);
        let seconds = |since: i64| (at - since) / 1000;
        let is_up = matches!(self.state, State::Connected { .. });
        let sync = match &self.state {
            State::Transfer(transfer) => Some(FullSync {
                total: transfer.total,
                read: transfer.read.cast_signed(),
                last_io_seconds: seconds(self.heard),
            }),
            _ => None,
        };
        View {
            primary: self.primary.as_ref().map(|p| (p.host.clone(), p.port)),
            state: self.name(),
            is_up,
            last_io_seconds: if is_up { seconds(self.heard) } else { -1 },
            was_up: self.was_up,
            down_seconds: self.down_since.map_or(-1, seconds),
            sync,
        }
    }

    fn name(&self) -> &'static str {
        match self.state {
            State::Off => "none",
            State::Connect => "connect",
            State::Connecting => "connecting",
            State::Handshake(_) => "handshake",
            State::Transfer(_) => "sync",
            State::Connected { .. } => "connected",
        }
    }

    fn is_connecting(&self, attempt: u64) -> bool {
        matches!(self.state, State::Connecting) && attempt == self.attempt
    }
}

/// Who is followed.
impl Follower {
    fn follow(&mut self, primary: Primary, failover: bool, out: &mut Out) {
        let was_primary = self.primary.is_none();
        self.leave(out);
        if was_primary {
            out.notice(
                "Before turning into a replica, using my own master parameters to synthesize a \
                 cached master: I may be able to synchronize with the new master with just a \
                 partial transfer.",
            );
        }
        self.was_up = false;
        self.primary = Some(primary);
        self.failover = failover;
        self.dial(out);
    }

    fn stop(&mut self, out: &mut Out) {
        self.leave(out);
        self.primary = None;
        self.state = State::Off;
        self.down_since = None;
    }

    /// Ends what is under way, to begin with another primary, or none.
    fn leave(&mut self, out: &mut Out) {
        if let State::Connected { .. } = self.state {
            lose(out);
            self.down_since = Some(self.clock.at);
        }
        self.hang_up(out);
        self.state = State::Connect;
        self.refused = 0;
        self.failover = false;
    }

    /// Closes the connection and drops what it brought.
    fn hang_up(&mut self, out: &mut Out) {
        match &self.state {
            State::Off | State::Connect => return,
            State::Transfer(transfer) if transfer.is_begun() => out.push(Action::AbortLoad),
            _ => {}
        }
        out.push(Action::Close);
    }

    fn dial(&mut self, out: &mut Out) {
        if let Some(Primary { host, port }) = &self.primary {
            out.notice(format!("Connecting to MASTER {host}:{port}"));
            self.connect(out);
        }
    }

    fn connect(&mut self, out: &mut Out) {
        let Some(Primary { host, port }) = self.primary.clone() else {
            return;
        };
        self.attempt += 1;
        (self.attempted, self.heard) = (self.clock.at, self.clock.at);
        self.state = State::Connecting;
        out.push(Action::Connect {
            attempt: self.attempt,
            host,
            port,
        });
        out.notice("MASTER <-> REPLICA sync started");
    }

    /// Ends the connection; another one follows.
    fn reconnect(&mut self, next: Next, out: &mut Out) {
        self.hang_up(out);
        self.state = State::Connect;
        let at = self.clock.at;
        let after_failure = match next {
            Next::Later => {
                self.retry = (self.attempted.saturating_add(RETRY)).max(at.saturating_add(SOONEST));
                return;
            }
            Next::AtOnce { .. } if at.saturating_sub(self.attempted) < SOONEST => {
                self.retry = self.attempted.saturating_add(SOONEST);
                return;
            }
            Next::AtOnce { after_failure } => after_failure,
        };
        if let Some(Primary { host, port }) = &self.primary {
            let after = if after_failure { " after failure" } else { "" };
            out.notice(format!("Reconnecting to MASTER {host}:{port}{after}"));
            self.connect(out);
        }
    }
}

/// What comes from the primary.
impl Follower {
    fn receive(&mut self, bytes: &[u8], out: &mut Out) {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Off | State::Connect | State::Connecting => return,
                State::Handshake(_) => self.greet(bytes, &mut at, out),
                State::Transfer(transfer) => {
                    self.heard = self.clock.at;
                    let (load, attempt) = (self.settings.load, self.attempt);
                    let begun = transfer.loads();
                    let outcome = transfer.take(bytes, &mut at, load, attempt, out);
                    if !begun && transfer.loads() {
                        self.beat = self.clock.at.saturating_add(BEAT);
                    }
                    if outcome == transfer::Outcome::Failed {
                        self.reconnect(Next::Later, out);
                    }
                }
                State::Connected { .. } => {
                    self.heard = self.clock.at;
                    out.push(Action::StreamBytes(at..bytes.len()));
                    return;
                }
            }
        }
    }

    /// Reads a line of the handshake.
    fn greet(&mut self, bytes: &[u8], at: &mut usize, out: &mut Out) {
        let State::Handshake(handshake) = &mut self.state else {
            return;
        };
        let line = match handshake.line.take(bytes, at) {
            Progress::Complete(line) => line,
            Progress::Incomplete => return,
            Progress::TooLong => {
                out.warn("Failed to read response from the server: the line is too long");
                return self.unanswered(out);
            }
        };
        self.heard = self.clock.at;
        let outcome = handshake.take(&line, &self.settings, self.attempt, out);
        let asked = handshake.asked();
        if outcome != handshake::Outcome::Stays && handshake.has_asked() && self.failover {
            self.failover = false;
            if matches!(
                outcome,
                handshake::Outcome::Failed | handshake::Outcome::Old
            ) {
                return self.refuse_failover(out);
            }
            out.push(Action::FailedOver(true));
        }
        match outcome {
            handshake::Outcome::Stays => {}
            handshake::Outcome::Failed => self.reconnect(Next::Later, out),
            handshake::Outcome::Full(source) => self.transfer(source, asked),
            handshake::Outcome::Old => {
                out.notice("Retrying with SYNC...");
                out.push(Action::Send(b"SYNC\r\n".to_vec()));
                self.transfer(None, asked);
            }
            handshake::Outcome::Continues(id) => {
                out.push(Action::ContinueAs { id });
                self.up(true);
            }
        }
    }

    /// The other side did not take over. We follow nobody then.
    fn refuse_failover(&mut self, out: &mut Out) {
        self.stop(out);
        out.push(Action::FailedOver(false));
    }

    fn transfer(&mut self, source: Option<History>, asked: Option<History>) {
        self.state = State::Transfer(Box::new(Transfer::new(source, asked.is_some())));
    }

    /// The link is up.
    fn up(&mut self, confirms: bool) {
        self.state = State::Connected { confirms };
        self.heard = self.clock.at;
        self.beat = self.clock.at.saturating_add(BEAT);
        self.down_since = None;
        self.was_up = true;
        self.refused = 0;
    }

    fn closed(&mut self, text: String, out: &mut Out) {
        match &mut self.state {
            State::Off | State::Connect => {}
            State::Connecting => {
                out.warn(format!("Error condition on socket for SYNC: {text}"));
                self.reconnect(Next::Later, out);
            }
            State::Handshake(_) => {
                out.warn(format!("Failed to read response from the server: {text}"));
                self.unanswered(out);
            }
            // What is there is loaded all the same, and continued from there.
            State::Transfer(transfer) if transfer.is_loading() => transfer.closed = Some(text),
            State::Transfer(transfer) => {
                transfer.interrupted(&text, out);
                self.reconnect(AFTER_FAILURE, out);
            }
            State::Connected { .. } => self.lost(out),
        }
    }

    /// The handshake ends without a reply.
    fn unanswered(&mut self, out: &mut Out) {
        let asked = matches!(&self.state, State::Handshake(h) if h.has_asked());
        out.warn(match asked {
            true => "Master did not reply to PSYNC, will try later",
            false => "Master did not respond to command during SYNC handshake",
        });
        if asked && self.failover {
            return self.refuse_failover(out);
        }
        self.reconnect(Next::Later, out);
    }

    /// The link, which was up, is lost.
    fn lost(&mut self, out: &mut Out) {
        lose(out);
        self.down_since = Some(self.clock.at);
        let next = Next::AtOnce {
            after_failure: false,
        };
        self.reconnect(next, out);
    }

    fn loaded(&mut self, out: &mut Out) {
        let State::Transfer(transfer) = &mut self.state else {
            return;
        };
        if !transfer.is_begun() {
            return;
        }
        if !transfer.is_loading() {
            // The dump says that it ends where it does not.
            out.warn("Replication stream EOF marker is broken");
            return self.reconnect(AFTER_FAILURE, out);
        }
        transfer.adopt(out);
        let (confirms, closed) = (transfer.source.is_some(), transfer.closed.take());
        let confirms_now = confirms || transfer.awaits_confirmation();
        self.up(confirms);
        if closed.is_some() {
            return self.lost(out);
        }
        if confirms_now {
            out.push(Action::Acknowledge);
        }
    }

    fn load_failed(&mut self, text: &str, lasting: bool, out: &mut Out) {
        let State::Transfer(transfer) = &self.state else {
            return;
        };
        if !transfer.is_begun() {
            return;
        }
        transfer.failed(text, out);
        // The loader is done.
        out.push(Action::Close);
        self.state = State::Connect;
        self.refused = if lasting { self.refused + 1 } else { 0 };
        if self.refused < 2 {
            return self.reconnect(AFTER_FAILURE, out);
        }
        let pause = (RETRY << (self.refused - 2).min(6)).min(LONGEST_PAUSE);
        self.retry = self.clock.at.saturating_add(pause);
    }
}

const AFTER_FAILURE: Next = Next::AtOnce {
    after_failure: true,
};

/// Time.
impl Follower {
    fn limit(&self) -> i64 {
        i64::from(self.settings.timeout.max(1)) * 1000
    }

    /// True when the other side had to do something and did not for too long.
    fn is_silent(&self) -> bool {
        #[cfg(test)]
        if super::tests::forgives(self.name()) {
            return false;
        }
        let waits = match &self.state {
            State::Off | State::Connect => false,
            State::Connecting | State::Connected { .. } => true,
            State::Handshake(handshake) => handshake.waits_for_primary(),
            State::Transfer(transfer) => !transfer.is_loading(),
        };
        waits && self.clock.at - self.heard > self.limit()
    }

    fn timed_out(&mut self, out: &mut Out) {
        match &self.state {
            State::Connected { .. } => {
                out.warn("MASTER timeout: no data nor PING received...");
                self.lost(out);
            }
            State::Transfer(_) => {
                out.warn(
                    "Timeout receiving bulk data from MASTER... If the problem persists try to \
                     set the 'repl-timeout' parameter in redis.conf to a larger value.",
                );
                self.reconnect(AFTER_FAILURE, out);
            }
            _ => {
                out.warn("Timeout connecting to the MASTER...");
                self.reconnect(AFTER_FAILURE, out);
            }
        }
    }
}

fn lose(out: &mut Out) {
    out.warn("Connection with master lost.");
    out.notice("Caching the disconnected master state.");
}
