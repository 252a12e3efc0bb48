//! One replica: what the thread that serves it tells the others.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed};

/// How far a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits until a snapshot begins.
    WaitStart,
    /// The snapshot is being written.
    WaitEnd,
    /// The snapshot's file is being sent.
    SendBulk,
    /// It follows the stream.
    Online,
}

impl State {
    /// As INFO shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WaitStart | Self::WaitEnd => "wait_bgsave",
            Self::SendBulk => "send_bulk",
            Self::Online => "online",
        }
    }
}

/// A client that follows the stream.
#[derive(Debug)]
pub struct Replica {
    /// Its client's id.
    pub client: u64,
    /// Where it says it is, else where it comes from.
    pub ip: String,
    /// The port on which it says it listens; 0 when it does not say.
    pub port: i64,
    /// Unix seconds at which it came.
    pub since: i64,
    state: AtomicU8,
    /// Highest offset that it confirmed.
    acknowledged: AtomicU64,
    /// Highest offset that it has on its disk, and one; 0 when it does not say.
    durable: AtomicU64,
    /// Unix seconds of its last confirmation.
    heard: AtomicI64,
    /// It confirmed something.
    spoke: AtomicBool,
    /// Up to where the stream was written to its socket; [`u64::MAX`] before it begins.
    pub sent: AtomicU64,
}

impl Replica {
    /// A replica that waits for a snapshot.
    pub fn new(client: u64, ip: String, port: i64, now: i64) -> Self {
        Self {
            client,
            ip,
            port,
            since: now,
            state: AtomicU8::new(State::WaitStart as u8),
            acknowledged: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            heard: AtomicI64::new(now),
            spoke: AtomicBool::new(false),
            sent: AtomicU64::new(u64::MAX),
        }
    }

    /// How it is named in the log.
    pub fn name(&self) -> String {
        match self.port {
            0 => format!("{}:<unknown-replica-port>", self.ip),
            port if self.ip.contains(':') => format!("[{}]:{port}", self.ip),
            port => format!("{}:{port}", self.ip),
        }
    }

    /// How far it is.
    pub fn state(&self) -> State {
        let states = [
            State::WaitStart,
            State::WaitEnd,
            State::SendBulk,
            State::Online,
        ];
        let state = self.state.load(Relaxed);
        states[usize::from(state).min(states.len() - 1)]
    }

    /// It is further.
    pub fn enter(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// It was heard of; `now` in Unix seconds.
    pub fn hear(&self, now: i64) {
        self.heard.store(now, Relaxed);
    }

    /// It has the stream up to `offset`, on its disk up to `durable`; `now` in Unix seconds.
    pub fn acknowledge(&self, offset: u64, durable: Option<u64>, now: i64) {
        self.acknowledged.fetch_max(offset, Relaxed);
        if let Some(durable) = durable {
            self.durable.fetch_max(durable.saturating_add(1), Relaxed);
        }
        self.hear(now);
        self.spoke.store(true, Relaxed);
    }

    /// Up to where it has the stream, as it says.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Up to where it has the stream on its disk, as it says; `None` when it does not say.
    pub fn durable(&self) -> Option<u64> {
        self.durable.load(Relaxed).checked_sub(1)
    }

    /// It has confirmed something since [`Replica::listen`].
    pub fn spoke(&self) -> bool {
        self.spoke.load(Relaxed)
    }

    /// Forgets that it spoke.
    pub fn listen(&self) {
        self.spoke.store(false, Relaxed);
    }

    /// Seconds since it was heard of while in step; 0 before. `now` in Unix seconds.
    pub fn lag(&self, now: i64) -> i64 {
        match self.state() {
            State::Online => now - self.heard.load(Relaxed),
            _ => 0,
        }
    }

    /// Bytes of a stream that ends at `offset` that were not written to it yet.
    pub fn behind(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.sent.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_states() {
        let replica = |ip: &str, port| Replica::new(1, ip.into(), port, 0);
        assert_eq!(replica("10.0.0.1", 7).name(), "10.0.0.1:7");
        assert_eq!(replica("::1", 7).name(), "[::1]:7");
        assert_eq!(replica("h", 0).name(), "h:<unknown-replica-port>");
        let replica = replica("h", 0);
        for state in [State::WaitEnd, State::SendBulk, State::Online] {
            replica.enter(state);
            assert_eq!(replica.state(), state);
        }
        assert_eq!(replica.behind(1000), 0);
        replica.sent.store(400, Relaxed);
        assert_eq!(replica.behind(1000), 600);
    }
}
