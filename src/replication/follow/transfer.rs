//! A full sync on the replica's side: the header of the dump, its bytes, its end.

use super::line::{Line, Progress, shown};
use super::mark::{self, Search};
use super::{Action, History, Load, Out};

/// A full sync under way.
#[derive(Debug)]
pub(super) struct Transfer {
    /// What the dump will contain.
    pub(super) source: Option<History>,
    /// Our history could have been continued; it ends when the dump takes its place.
    had_history: bool,
    phase: Phase,
    /// Where the dump goes, once it began.
    pub(super) load: Load,
    /// Bytes of it so far, those of the mark included.
    pub(super) read: u64,
    /// Bytes of it in all; -1 before they are known, 0 with a mark.
    pub(super) total: i64,
    /// The connection ended while the dump was loaded: why.
    pub(super) closed: Option<String>,
}

#[derive(Debug)]
enum Phase {
    Header(Line),
    /// So many bytes are missing.
    Length(u64),
    Mark(Box<Search>),
    /// All bytes were handed over; the loader works on them.
    Loading {
        by_mark: bool,
    },
}

/// What bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// More has to come, or the rest is not for the dump.
    Stays,
    /// Another attempt is due later.
    Failed,
}

impl Transfer {
    pub(super) fn new(source: Option<History>, had_history: bool) -> Self {
        Self {
            source,
            had_history,
            phase: Phase::Header(Line::default()),
            load: Load::File,
            read: 0,
            total: -1,
            closed: None,
        }
    }

    /// True when a loader was begun and not answered yet.
    pub(super) fn is_begun(&self) -> bool {
        !matches!(self.phase, Phase::Header(_))
    }

    /// True when all bytes of the dump are handed over.
    pub(super) fn is_loading(&self) -> bool {
        matches!(self.phase, Phase::Loading { .. })
    }

    /// True while something is loaded, and clients wait.
    pub(super) fn loads(&self) -> bool {
        self.is_loading() || (self.is_begun() && self.load != Load::File)
    }

    /// True when the primary sends nothing more before it gets a confirmation.
    pub(super) fn awaits_confirmation(&self) -> bool {
        matches!(self.phase, Phase::Loading { by_mark: true })
    }

    /// Takes bytes, from `*at` on: some of them, which it says by `*at`.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        load: Load,
        attempt: u64,
        out: &mut Out,
    ) -> Outcome {
        match &mut self.phase {
            Phase::Header(line) => match line.take(bytes, at) {
                Progress::Complete(line) => self.header(&line, load, attempt, out),
                Progress::Incomplete => Outcome::Stays,
                Progress::TooLong => {
                    out.warn("The header of the dump from MASTER is too long");
                    Outcome::Failed
                }
            },
            Phase::Length(left) => {
                let count =
                    usize::try_from(*left).map_or(bytes.len() - *at, |n| n.min(bytes.len() - *at));
                let part = *at..*at + count;
                *left -= count as u64;
                self.read += count as u64;
                *at = part.end;
                let is_complete = *left == 0;
                out.push(Action::LoadBytes(part));
                if is_complete {
                    self.complete(false, out);
                }
                Outcome::Stays
            }
            Phase::Mark(search) => {
                let found = search.take(bytes, *at);
                if !found.released.bytes().is_empty() {
                    out.push(Action::LoadHeld(found.released));
                }
                if !found.data.is_empty() {
                    out.push(Action::LoadBytes(found.data));
                }
                let end = found.end.unwrap_or(bytes.len());
                self.read += (end - *at) as u64;
                *at = end;
                if found.end.is_some() {
                    self.complete(true, out);
                }
                Outcome::Stays
            }
            Phase::Loading { .. } => {
                out.push(Action::StreamBytes(*at..bytes.len()));
                *at = bytes.len();
                Outcome::Stays
            }
        }
    }

    /// The line before the dump.
    fn header(&mut self, line: &[u8], load: Load, attempt: u64, out: &mut Out) -> Outcome {
        match line.first() {
            // A sign of life.
            None => return Outcome::Stays,
            Some(b'-') => {
                out.warn(format!(
                    "MASTER aborted replication with an error: {}",
                    shown(&line[1..])
                ));
                return Outcome::Failed;
            }
            Some(b'$') => {}
            Some(_) => {
                out.warn(format!(
                    "Bad protocol from MASTER, the first byte is not '$' (we received '{}'), are \
                     you sure the host and port are right?",
                    shown(line)
                ));
                return Outcome::Failed;
            }
        }
        let to = match load {
            Load::File => "to disk",
            Load::Direct | Load::Swap => "to parser",
        };
        let mark = line[1..].strip_prefix(b"EOF:");
        let len = if let Some(mark) = mark.and_then(|text| text.first_chunk::<{ mark::LEN }>()) {
            out.notice(format!(
                "MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF {to}"
            ));
            self.phase = Phase::Mark(Box::new(Search::new(*mark)));
            self.total = 0;
            None
        } else {
            let digits = std::str::from_utf8(&line[1..]).ok();
            let digits = digits.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let Some(len) = digits.and_then(|text| text.parse::<i64>().ok()) else {
                out.warn(format!(
                    "Bad protocol from MASTER, the length of the dump is not valid (we received \
                     '{}')",
                    shown(line)
                ));
                return Outcome::Failed;
            };
            out.notice(format!(
                "MASTER <-> REPLICA sync: receiving {len} bytes from master {to}"
            ));
            self.phase = Phase::Length(len.unsigned_abs());
            self.total = len;
            Some(len.unsigned_abs())
        };
        self.load = load;
        match load {
            Load::File => {}
            Load::Direct => self.announce_loading(true, out),
            Load::Swap => self.announce_loading(false, out),
        }
        out.push(Action::BeginLoad {
            attempt,
            source: self.source,
            len,
            load,
        });
        if len == Some(0) {
            self.complete(false, out);
        }
        Outcome::Stays
    }

    /// All of it was handed over.
    fn complete(&mut self, by_mark: bool, out: &mut Out) {
        self.phase = Phase::Loading { by_mark };
        if self.load == Load::File {
            self.announce_loading(true, out);
        }
        out.push(Action::EndLoad);
    }

    fn announce_loading(&mut self, flushes: bool, out: &mut Out) {
        if flushes {
            self.discard_history(out);
            out.notice("MASTER <-> REPLICA sync: Flushing old data");
        }
        out.notice("MASTER <-> REPLICA sync: Loading DB in memory");
    }

    fn discard_history(&mut self, out: &mut Out) {
        if std::mem::take(&mut self.had_history) {
            out.notice("Discarding previously cached master state.");
        }
    }

    /// It is loaded.
    pub(super) fn adopt(&mut self, out: &mut Out) {
        let swaps = self.load == Load::Swap;
        if swaps {
            self.discard_history(out);
            out.notice("MASTER <-> REPLICA sync: Swapping active DB with loaded DB");
        }
        out.push(Action::Adopt(self.source));
        if swaps {
            out.notice("MASTER <-> REPLICA sync: Discarding old DB in background");
        }
        out.notice("MASTER <-> REPLICA sync: Finished with success");
    }

    /// It is not.
    pub(super) fn failed(&self, why: &str, out: &mut Out) {
        let from = match self.load {
            Load::File => "disk",
            Load::Direct | Load::Swap => "socket",
        };
        out.warn(format!(
            "Failed trying to load the MASTER synchronization DB from {from}: {why}"
        ));
        self.discarded(out);
    }

    /// The connection ended within it.
    pub(super) fn interrupted(&self, why: &str, out: &mut Out) {
        if !self.is_begun() {
            out.warn(format!("I/O error reading bulk count from MASTER: {why}"));
        } else if self.load == Load::File {
            out.warn(format!("I/O error trying to sync with MASTER: {why}"));
        } else {
            self.failed(why, out);
        }
    }

    fn discarded(&self, out: &mut Out) {
        if self.load == Load::Swap {
            out.notice("MASTER <-> REPLICA sync: Discarding temporary DB in background");
        }
    }
}
