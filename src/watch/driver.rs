//! The sentinel's thread: see [`super`].

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::link::{Link, Way};
use super::{script, write_file};
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::pubsub::Nobody;
use crate::sentinel::handle::{Hears, Sentinel};
use crate::sentinel::machine::{Action, Event, Level, Machine};
use crate::sentinel::orders::{Answer, Order};
use crate::sentinel::state::ConnId;
use crate::wire::socket;

/// Things that may have happened and not been looked at: who reads a connection waits then.
const HAPPENED: usize = 128;
/// After a write that failed it is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);
/// Names that may be looked up at the same time. The system may take long over each, but no more wait.
const NAMES: usize = 128;
/// How long the outcome of that is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Exit code of a simulated crash.
const CRASH: i32 = 99;

struct Driver {
    shared: Arc<Shared>,
    sentinel: Arc<Sentinel>,
    tell: Sender<Event>,
    links: HashMap<ConnId, Link>,
    scripts: HashMap<u64, oneshot::Sender<()>>,
    /// Names that are looked up, and the orders that wait for that.
    names: HashMap<String, Vec<(Order, Hears)>>,
    lookups: Arc<Semaphore>,
    /// The file does not hold what is known; when it is tried again.
    unsaved: Option<Instant>,
}

/// Runs for as long as the process lives.
pub fn run(shared: &Arc<Shared>, sentinel: &Arc<Sentinel>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Who looks names up.
        .max_blocking_threads(4)
        .build();
    let driven = |runtime: tokio::runtime::Runtime| {
        runtime.block_on(drive(Arc::clone(shared), Arc::clone(sentinel)));
        Ok::<(), io::Error>(())
    };
    if let Err(error) = runtime.and_then(driven) {
        // A sentinel that sees nothing is worse than one that is gone.
        tracing::warn!("The sentinel cannot run: {}", strerror(&error));
        std::process::exit(1);
    }
}

async fn drive(shared: Arc<Shared>, sentinel: Arc<Sentinel>) {
    let (tell, happened) = channel(HAPPENED);
    let mut driver = Driver {
        shared,
        sentinel,
        tell,
        links: HashMap::new(),
        scripts: HashMap::new(),
        names: HashMap::new(),
        lookups: Arc::new(Semaphore::new(NAMES)),
        unsaved: None,
    };
    driver.with(Machine::begin);
    driver.run(happened).await;
}

/// The address of a name: the first that the system knows.
async fn look_up(host: &str) -> Option<String> {
    let mut found = tokio::net::lookup_host((host, 0)).await.ok()?;
    found.next().map(|address| socket::shown(address.ip()))
}

/// The same, as far as it is known in time. The system goes on looking, and has the place for so long.
async fn look_up_in_time(host: String, place: OwnedSemaphorePermit) -> Option<String> {
    let looking = tokio::spawn(async move {
        let ip = look_up(&host).await;
        drop(place);
        ip
    });
    tokio::time::timeout(PATIENCE, looking).await.ok()?.ok()?
}

impl Driver {
    async fn run(&mut self, mut happened: Receiver<Event>) {
        let sentinel = Arc::clone(&self.sentinel);
        loop {
            // DEBUG SLEEP is to look like a process that hangs.
            self.shared.status.stall.wait();
            let pause = Duration::from_millis(sentinel.machine().pause_ms());
            let tick = tokio::time::sleep(pause);
            tokio::pin!(tick);
            loop {
                tokio::select! {
                    biased;
                    () = &mut tick => break,
                    () = sentinel.wake.notified() => self.look_at_asked(),
                    Some(event) = happened.recv() => self.meet(event),
                }
            }
            self.with(Machine::tick);
        }
    }

    fn with(&mut self, work: impl FnOnce(&mut Machine, i64) -> Vec<Action>) {
        let now = self.sentinel.now();
        let actions = work(&mut self.sentinel.machine(), now);
        self.carry_out(actions);
    }

    fn meet(&mut self, event: Event) {
        let mut waited = (Vec::new(), false);
        match &event {
            Event::Resolved { host, ip } => {
                waited = (self.names.remove(host).unwrap_or_default(), ip.is_some());
            }
            Event::Closed { conn, .. } => {
                self.links.remove(conn);
            }
            Event::Ended { job, .. } => {
                self.scripts.remove(job);
            }
            _ => {}
        }
        self.with(|machine, now| machine.step(event, now));
        let (orders, found) = waited;
        for (order, hears) in orders {
            let order = if found { order } else { Order::Unresolved };
            self.obey(order, hears);
        }
    }

    fn look_at_asked(&mut self) {
        for (order, hears) in self.sentinel.take_asked() {
            let resolves = self.sentinel.machine().globals.resolve_hostnames;
            let name = match &order {
                Order::Monitor { host, .. }
                    if resolves && host.parse::<std::net::IpAddr>().is_err() =>
                {
                    Some(host.clone())
                }
                _ => None,
            };
            match name {
                // Carried out once it is known that the name leads somewhere.
                Some(name) => self.look_up(name, Some((order, hears))),
                None => self.obey(order, hears),
            }
        }
    }

    /// Has a name looked up, unless it is already; what comes of it is an event. Where too many are, it leads
    /// nowhere.
    fn look_up(&mut self, host: String, then: Option<(Order, Hears)>) {
        let is_under_way = self.names.contains_key(&host);
        self.names.entry(host.clone()).or_default().extend(then);
        if is_under_way {
            return;
        }
        let tell = self.tell.clone();
        let place = Arc::clone(&self.lookups).try_acquire_owned();
        tokio::spawn(async move {
            let ip = match place {
                Ok(place) => look_up_in_time(host.clone(), place).await,
                Err(_) => None,
            };
            // The driver may have ended.
            let _ = tell.send(Event::Resolved { host, ip }).await;
        });
    }

    fn obey(&mut self, order: Order, hears: Hears) {
        let now = self.sentinel.now();
        let (answer, actions) = self.sentinel.machine().order(order, now);
        if let (Answer::Saved, Some(again)) = (&answer, &mut self.unsaved) {
            // Who asks for it sees the file tried.
            *again = Instant::now();
        }
        self.carry_out(actions);
        let saved = self.unsaved.is_none();
        let answer = match answer {
            Answer::Saved if saved => Answer::Ok,
            Answer::Saved => {
                Answer::Error("ERR Failed to save config file. Check server logs.".to_owned())
            }
            // A vote that may be forgotten is none.
            Answer::Down { down, .. } if !saved => Answer::Down {
                down,
                leader: None,
                epoch: 0,
            },
            answer => answer,
        };
        hears(answer);
    }

    /// Writes the file if it has to know something; true if it did and could. After a write that failed it is
    /// tried again in a while, whatever else there is to be known.
    fn save(&mut self) -> bool {
        let dirty = self.sentinel.machine().take_dirty();
        let due = match self.unsaved {
            Some(again) => again <= Instant::now(),
            None => dirty,
        };
        if !due {
            return false;
        }
        let written = write_file(&self.shared, &self.sentinel);
        self.unsaved = written.is_err().then(|| Instant::now() + AGAIN);
        written.is_ok()
    }

    /// What leaves may be a promise: the file knows of it first. What follows from that comes behind what was
    /// to be done.
    fn carry_out(&mut self, actions: Vec<Action>) {
        let written = self.save();
        for action in actions {
            self.do_(action);
        }
        if written {
            self.with(Machine::saved);
        }
    }

    fn do_(&mut self, action: Action) {
        match action {
            Action::Connect { conn, ip, port } => {
                let settings = self.shared.config.load();
                let way = Way {
                    source: settings.bind_source_addr.to_str().into_owned(),
                    tls: settings.tls_replication.then(|| self.shared.tls.load()),
                };
                let link = Link::open(conn, (ip, port), way, self.tell.clone());
                self.links.insert(conn, link);
            }
            Action::Send {
                conn,
                bytes,
                promise,
            } => {
                if let Some(link) = self.links.get(&conn) {
                    match promise && self.unsaved.is_some() {
                        true => link.send(Machine::instead()),
                        false => link.send(bytes),
                    }
                }
            }
            Action::Close(conn) => {
                self.links.remove(&conn);
            }
            Action::Resolve(host) => self.look_up(host, None),
            Action::Event {
                level,
                channel,
                text,
            } => self.tell_event(level, channel, &text),
            Action::Log(line) => tracing::warn!("{line}"),
            Action::Run { job, argv } => {
                if let Some(kill) = script::start(job, &argv, &self.tell) {
                    self.scripts.insert(job, kill);
                }
            }
            Action::Kill(job) => {
                if let Some(kill) = self.scripts.remove(&job) {
                    // It may just have ended.
                    let _ = kill.send(());
                }
            }
            Action::Crash => {
                tracing::warn!("Sentinel CRASH because of SENTINEL simulate-failure");
                std::process::exit(CRASH);
            }
        }
    }

    fn tell_event(&self, level: Level, channel: &str, text: &str) {
        match level {
            Level::Debug => tracing::trace!("{channel} {text}"),
            Level::Verbose => tracing::debug!("{channel} {text}"),
            Level::Notice => tracing::info!("{channel} {text}"),
            Level::Warning => tracing::warn!("{channel} {text}"),
        }
        if level != Level::Debug {
            let hub = &self.shared.pubsub;
            hub.publish(channel.as_bytes(), text.as_bytes(), &mut Nobody);
        }
    }
}
