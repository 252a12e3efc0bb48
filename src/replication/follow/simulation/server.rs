//! A server of the simulation: its data set and history, and what drives its machine.

use super::super::tests::{Fault, is_broken};
use super::super::{Action, Event, Follower, History, Load, Settings, StreamName};

/// `repl-timeout`, in milliseconds.
pub(super) const TIMEOUT: i64 = 10_000;
/// `repl-backlog-size`.
const BACKLOG: usize = 120;
/// Longest time that a loader works on a dump that is there, and that the history is waited for.
pub(super) const SLOWEST: i64 = 3_000;

/// Where a data set is in the history of its stream.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) second: Option<(String, i64)>,
    pub(super) offset: i64,
}

/// What a server keeps over a restart.
#[derive(Clone)]
struct Saved {
    data: Vec<u8>,
    place: Option<Place>,
}

/// A dump that is received and loaded.
pub(super) struct Loader {
    attempt: u64,
    load: Load,
    bytes: Vec<u8>,
    /// When it is loaded, once all is there.
    pub(super) due: Option<i64>,
}

/// What a server wants of the world.
pub(super) enum Wish {
    Connect {
        attempt: u64,
        to: usize,
    },
    Send(Vec<u8>),
    Close,
    /// All replicas are to be disconnected: the history is another one. Until now it was this data, up
    /// to this offset.
    DropReplicas(Vec<u8>, i64),
    /// Bytes of the stream were applied.
    Applied,
    /// The stream goes on behind what is there.
    Continued,
}

pub(super) struct Server {
    pub(super) follower: Follower,
    pub(super) follows: Option<usize>,
    /// Everything ever written or received, as whole records.
    pub(super) data: Vec<u8>,
    /// What it answers PSYNC by, and asks by.
    pub(super) place: Place,
    /// The place is one that a primary may continue.
    pub(super) is_known: bool,
    /// Bytes of the end of the data that are kept as a backlog.
    pub(super) kept: usize,
    /// Of the stream, and no whole record yet.
    partial: Vec<u8>,
    /// Of the stream, and behind a dump that is not loaded yet.
    early: Vec<u8>,
    pub(super) loader: Option<Loader>,
    /// The attempt that waits for the history, and when it is told.
    pub(super) asks: Option<(u64, i64)>,
    saved: Option<Saved>,
    /// The clock of the server is ahead by that much.
    pub(super) skew: i64,
    /// When the machine wants its next tick.
    pub(super) wake: Option<i64>,
    /// When it is back after it was killed.
    pub(super) down_until: Option<i64>,
    /// It knows neither PSYNC nor offsets.
    pub(super) is_old: bool,
    /// Numbers for names.
    names: u64,
    number: usize,
}

pub(super) fn settings(load: Load) -> Settings {
    Settings {
        port: 1,
        ip: None,
        user: None,
        password: Some(b"pw".to_vec()),
        timeout: (TIMEOUT / 1000) as u32,
        load,
    }
}

impl Server {
    pub(super) fn new(number: usize) -> Self {
        let mut server = Self {
            follower: Follower::new(settings(Load::File)),
            follows: None,
            data: Vec::new(),
            place: Place {
                id: String::new(),
                second: None,
                offset: 0,
            },
            is_known: true,
            kept: 0,
            partial: Vec::new(),
            early: Vec::new(),
            loader: None,
            asks: None,
            saved: None,
            skew: 0,
            wake: None,
            down_until: None,
            is_old: false,
            names: 0,
            number,
        };
        server.place.id = server.name();
        server
    }

    /// A new name for a stream.
    fn name(&mut self) -> String {
        self.names += 1;
        format!("{:0>20}{:0>20}", self.number, self.names)
    }

    pub(super) fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    /// Clients are told -LOADING.
    pub(super) fn is_loading(&self) -> bool {
        let empties =
            |l: &Loader| l.load == Load::Direct || (l.load == Load::File && l.due.is_some());
        self.loader.as_ref().is_some_and(empties)
    }

    /// A client writes a record.
    pub(super) fn write(&mut self, payload: &[u8]) {
        let record = [&[payload.len() as u8], payload].concat();
        self.append(&record);
    }

    fn append(&mut self, record: &[u8]) {
        self.data.extend_from_slice(record);
        self.place.offset += record.len() as i64;
        self.kept = (self.kept + record.len()).min(BACKLOG);
    }

    pub(super) fn save(&mut self) {
        if self.is_loading() {
            return;
        }
        self.saved = Some(Saved {
            data: self.data.clone(),
            place: self.is_known.then(|| self.place.clone()),
        });
    }

    /// It is killed and comes back with what was saved.
    pub(super) fn restart(&mut self, now: i64) {
        let saved = self.saved.take();
        let old = std::mem::replace(self, Self::new(self.number));
        (self.names, self.is_old, self.follows) = (old.names, old.is_old, old.follows);
        (self.skew, self.down_until) = (old.skew, Some(now));
        self.saved.clone_from(&saved);
        self.place.id = self.name();
        if let Some(saved) = saved {
            self.data = saved.data;
            match (saved.place, self.follows) {
                // A replica asks to continue; a primary writes on under another name.
                (Some(place), Some(_)) => self.place = place,
                (Some(place), None) => {
                    self.place.second = Some((place.id, place.offset + 1));
                    self.place.offset = place.offset;
                }
                (None, _) => {}
            }
        }
    }

    /// It is a primary from now on: REPLICAOF NO ONE.
    pub(super) fn promote(&mut self, now: i64) -> Vec<Wish> {
        if self.is_loading() || self.follows.take().is_none() {
            return Vec::new();
        }
        let mut wishes = self.event(Event::Stop, now);
        let id = self.name();
        let old = std::mem::replace(&mut self.place.id, id);
        self.place.second = self.is_known.then_some((old, self.place.offset + 1));
        self.is_known = true;
        wishes.push(self.drop_replicas());
        wishes
    }

    pub(super) fn follow(&mut self, to: usize, starts: bool, now: i64) -> Vec<Wish> {
        if self.is_loading() || (self.follows == Some(to) && !starts) {
            return Vec::new();
        }
        self.follows = Some(to);
        let (host, port) = (to.to_string(), 1);
        let event = match starts {
            true => Event::Start { host, port },
            false => Event::Follow {
                host,
                port,
                failover: false,
            },
        };
        self.event(event, now)
    }

    pub(super) fn tick(&mut self, now: i64) -> Vec<Wish> {
        let actions = self.follower.tick(now + self.skew);
        self.perform(actions, &[], now)
    }

    pub(super) fn event(&mut self, event: Event<'_>, now: i64) -> Vec<Wish> {
        let bytes = match &event {
            Event::Bytes(bytes) => bytes,
            _ => &[][..],
        };
        let actions = self.follower.step(event, now + self.skew);
        self.perform(actions, bytes, now)
    }

    /// Does what the machine says.
    fn perform(&mut self, actions: Vec<Action>, bytes: &[u8], now: i64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for action in actions {
            match action {
                Action::Connect { attempt, host, .. } => wishes.push(Wish::Connect {
                    attempt,
                    to: host.parse().expect("a number"),
                }),
                Action::Send(bytes) => wishes.push(Wish::Send(bytes)),
                Action::Close => {
                    (self.asks, self.loader) = (None, None);
                    self.partial.clear();
                    self.early.clear();
                    wishes.push(Wish::Close);
                }
                Action::AskHistory { attempt } => self.asks = Some((attempt, now)),
                Action::BeginLoad { attempt, load, .. } => {
                    if load == Load::Direct {
                        wishes.push(self.drop_replicas());
                        self.flush();
                    }
                    self.loader = Some(Loader {
                        attempt,
                        load,
                        bytes: Vec::new(),
                        due: None,
                    });
                }
                Action::LoadBytes(range) => self.load(&bytes[range]),
                Action::LoadHeld(held) => self.load(held.bytes()),
                Action::EndLoad => {
                    let loader = self.loader.as_mut().expect("it was begun");
                    loader.due = Some(now + (loader.bytes.len() as i64 * 37) % SLOWEST);
                    if loader.load == Load::File {
                        wishes.push(self.drop_replicas());
                        self.flush();
                    }
                }
                Action::AbortLoad => self.loader = None,
                Action::Adopt(source) => {
                    wishes.push(self.drop_replicas());
                    self.adopt(source);
                    wishes.push(Wish::Continued);
                    let early = std::mem::take(&mut self.early);
                    if !is_broken(Fault::LosesEarly) {
                        self.apply(&early);
                    }
                    wishes.push(Wish::Applied);
                }
                Action::ContinueAs { id } => {
                    if let Some(id) = id {
                        let old = std::mem::replace(&mut self.place.id, id.to_string());
                        self.place.second = Some((old, self.place.offset + 1));
                        wishes.push(self.drop_replicas());
                    }
                    wishes.push(Wish::Continued);
                }
                Action::StreamBytes(range) if self.loader.is_some() => {
                    self.early.extend_from_slice(&bytes[range]);
                }
                Action::StreamBytes(range) => {
                    self.apply(&bytes[range]);
                    wishes.push(Wish::Applied);
                }
                Action::Acknowledge => {
                    let bytes = super::super::acknowledgement(self.place.offset, None);
                    wishes.push(Wish::Send(bytes));
                }
                Action::FailedOver(_) | Action::Log(..) => {}
            }
        }
        self.wake = self.follower.pause().map(|ms| now + ms.cast_signed());
        wishes
    }

    pub(super) fn drop_replicas(&self) -> Wish {
        Wish::DropReplicas(self.data.clone(), self.place.offset)
    }

    fn flush(&mut self) {
        self.data.clear();
        self.kept = 0;
        if !is_broken(Fault::KeepsHistory) {
            self.is_known = false;
        }
    }

    fn load(&mut self, bytes: &[u8]) {
        let loader = self.loader.as_mut().expect("it was begun");
        loader.bytes.extend_from_slice(bytes);
    }

    fn adopt(&mut self, source: Option<History>) {
        let loader = self.loader.take().expect("it was begun");
        self.data = loader.bytes;
        let (id, offset) = match source {
            Some(History { id, offset }) => (id.to_string(), offset),
            None => (self.name(), 0),
        };
        self.place = Place {
            id,
            second: None,
            offset,
        };
        (self.kept, self.is_known) = (0, source.is_some());
    }

    /// Applies whole records; the rest waits for more.
    fn apply(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let mut partial = std::mem::take(&mut self.partial);
        let mut at = 0;
        while let Some(&len) = partial.get(at)
            && let Some(record) = partial.get(at..at + 1 + usize::from(len))
        {
            self.append(record);
            at += record.len();
        }
        partial.drain(..at);
        self.partial = partial;
    }

    /// What waits for time: the loader, the history.
    pub(super) fn work(&mut self, fails: bool, now: i64) -> Vec<Wish> {
        if let Some(loader) = &self.loader
            && loader.due.is_some_and(|due| due <= now)
        {
            let attempt = loader.attempt;
            if !fails {
                return self.event(Event::Loaded { attempt }, now);
            }
            self.loader = None;
            let event = Event::LoadFailed {
                attempt,
                text: "short read".to_owned(),
                lasting: false,
            };
            return self.event(event, now);
        }
        if let Some((attempt, _)) = self.asks.take_if(|asks| asks.1 <= now) {
            let history = self.is_known.then(|| History {
                id: StreamName::parse(self.place.id.as_bytes()).expect("digits"),
                offset: self.place.offset,
            });
            return self.event(Event::History { attempt, history }, now);
        }
        Vec::new()
    }
}
