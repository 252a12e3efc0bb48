//! The handshake: what a replica says to its primary from PING to PSYNC, and what the replies mean.

use super::line::{Line, shown};
use super::{Action, History, Out, Settings, StreamName, history};

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Handshake {
    waits: Waits,
    /// The line that is arriving.
    pub(super) line: Line,
    /// AUTH was sent.
    auth: bool,
    /// REPLCONF ip-address was sent.
    ip: bool,
    /// PSYNC asked to continue this.
    asked: Option<History>,
}

/// What has to come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    Ping,
    Auth,
    Port,
    Ip,
    Capa,
    /// Our own history.
    History,
    Psync,
}

/// Where a line leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// More has to come.
    Stays,
    /// Another attempt is due later.
    Failed,
    /// A dump follows, which will contain this if the primary says so.
    Full(Option<History>),
    /// As `Full(None)`, after the old SYNC.
    Old,
    /// The stream continues, under another name perhaps.
    Continues(Option<StreamName>),
}

impl Handshake {
    /// Greets a primary whose socket is connected.
    pub(super) fn begin(out: &mut Out) -> Self {
        out.request(&["PING"]);
        Self {
            waits: Waits::Ping,
            line: Line::default(),
            auth: false,
            ip: false,
            asked: None,
        }
    }

    /// What PSYNC asked to continue.
    pub(super) fn asked(&self) -> Option<History> {
        self.asked
    }

    /// True when PSYNC was sent.
    pub(super) fn has_asked(&self) -> bool {
        self.waits == Waits::Psync
    }

    /// True while a reply of the primary is due, not our own history.
    pub(super) fn waits_for_primary(&self) -> bool {
        self.waits != Waits::History
    }

    /// Takes a line of the primary.
    pub(super) fn take(
        &mut self,
        line: &[u8],
        settings: &Settings,
        attempt: u64,
        out: &mut Out,
    ) -> Outcome {
        if line.is_empty() {
            // A sign of life.
            return Outcome::Stays;
        }
        let is_error = line[0] == b'-';
        match self.waits {
            Waits::Ping => return self.greeted(line, settings, out),
            Waits::Auth if is_error => {
                out.warn(format!("Unable to AUTH to MASTER: {}", shown(line)));
                return Outcome::Failed;
            }
            Waits::Auth => self.waits = Waits::Port,
            Waits::Port => {
                not_critical(line, "listening-port", out);
                self.waits = if self.ip { Waits::Ip } else { Waits::Capa };
            }
            Waits::Ip => {
                not_critical(line, "ip-address", out);
                self.waits = Waits::Capa;
            }
            Waits::Capa => {
                not_critical(line, "capa", out);
                self.waits = Waits::History;
                out.push(Action::AskHistory { attempt });
            }
            Waits::History => {
                out.warn(format!("Unexpected reply from master: {}", shown(line)));
                return Outcome::Failed;
            }
            Waits::Psync => return self.answered(line, out),
        }
        Outcome::Stays
    }

    /// The reply to PING; then everything up to PSYNC is sent at once.
    fn greeted(&mut self, line: &[u8], settings: &Settings, out: &mut Out) -> Outcome {
        const ACCEPTED: [&[u8]; 4] = [
            b"+",
            b"-NOAUTH",
            b"-NOPERM",
            b"-ERR operation not permitted",
        ];
        if !ACCEPTED.iter().any(|text| line.starts_with(text)) {
            out.warn(format!(
                "Error reply to PING from master: '{}'",
                shown(line)
            ));
            return Outcome::Failed;
        }
        out.notice("Master replied to PING, replication can continue...");
        if let Some(password) = &settings.password {
            match &settings.user {
                Some(user) => out.request(&[b"AUTH", &user[..], password]),
                None => out.request(&[b"AUTH", &password[..]]),
            }
            self.auth = true;
        }
        out.request(&["REPLCONF", "listening-port", &settings.port.to_string()]);
        if let Some(ip) = &settings.ip {
            out.request(&["REPLCONF", "ip-address", ip]);
            self.ip = true;
        }
        out.request(&["REPLCONF", "capa", "eof", "capa", "psync2"]);
        self.waits = if self.auth { Waits::Auth } else { Waits::Port };
        Outcome::Stays
    }

    /// Our history is known: PSYNC is sent. False if nobody waits for it.
    pub(super) fn know(&mut self, history: Option<History>, failover: bool, out: &mut Out) -> bool {
        if self.waits != Waits::History {
            return false;
        }
        self.waits = Waits::Psync;
        self.asked = history;
        let (id, from) = match &history {
            Some(history) => {
                // The first byte that we do not have.
                let from = history.offset + 1;
                #[cfg(test)]
                let from = match super::tests::is_broken(super::tests::Fault::OffByOne) {
                    true => from + 1,
                    false => from,
                };
                out.notice(format!(
                    "Trying a partial resynchronization (request {}:{from}).",
                    history.id
                ));
                (history.id.as_str(), from)
            }
            None => {
                out.notice("Partial resynchronization not possible (no cached master)");
                ("?", -1)
            }
        };
        let from = from.to_string();
        match failover {
            true => out.request(&["PSYNC", id, &from, "FAILOVER"]),
            false => out.request(&["PSYNC", id, &from]),
        }
        true
    }

    /// The reply to PSYNC.
    fn answered(&self, line: &[u8], out: &mut Out) -> Outcome {
        let text = shown(line);
        let mut words = line.split(|b| *b == b' ');
        let first = words.next().unwrap_or_default();
        let mut word = || words.next().unwrap_or_default();
        if first == b"+FULLRESYNC" {
            let announced = history(word(), word());
            match &announced {
                Some(h) => out.notice(format!("Full resync from master: {}:{}", h.id, h.offset)),
                None => out.warn("Master replied with wrong +FULLRESYNC syntax."),
            }
            return Outcome::Full(announced);
        }
        if let (b"+CONTINUE", Some(asked)) = (first, self.asked) {
            let id = word();
            let name = StreamName::parse(id);
            if !id.is_empty() && name.is_none() {
                // A stream whose name is not known must not be taken for another one.
                out.warn(format!("Unexpected reply to PSYNC from master: {text}"));
                return Outcome::Failed;
            }
            out.notice("Successful partial resynchronization with master.");
            let new = name.filter(|name| *name != asked.id);
            #[cfg(test)]
            let new = new.filter(|_| !super::tests::is_broken(super::tests::Fault::KeepsName));
            if let Some(name) = &new {
                out.warn(format!("Master replication ID changed to {name}"));
            }
            out.notice("MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.");
            return Outcome::Continues(new);
        }
        if line.starts_with(b"-NOMASTERLINK") || line.starts_with(b"-LOADING") {
            out.notice(format!(
                "Master is currently unable to PSYNC but should be in the future: {text}"
            ));
            return Outcome::Failed;
        }
        if line[0] == b'+' {
            // It knows PSYNC. Whatever it sends next, SYNC would not be the answer to it.
            out.warn(format!("Unexpected reply to PSYNC from master: {text}"));
            return Outcome::Failed;
        }
        match line.starts_with(b"-ERR") {
            true => out.notice(format!(
                "Master does not support PSYNC or is in error state (reply: {text})"
            )),
            false => out.warn(format!("Unexpected reply to PSYNC from master: {text}")),
        }
        Outcome::Old
    }
}

fn not_critical(line: &[u8], option: &str, out: &mut Out) {
    if line[0] == b'-' {
        out.notice(format!(
            "(Non critical) Master does not understand REPLCONF {option}: {}",
            shown(line)
        ));
    }
}
