//! The thread that follows a primary: its socket, and what the state machine ([`super::follow`]) asks
//! for.
//!
//! It is the only one that changes whether this server is a primary or a replica. Commands order it
//! ([`crate::propagation::Upstream`]) and wait until it is so. It reads the primary's bytes, has dumps
//! loaded (`dumps`, [`super::receive`]) and applies the stream itself ([`super::apply`]).

mod dumps;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::apply::Applier;
use super::dial::{self, Dialled};
use super::follow::{
    Action, Event, Follower, History, Level, Load, Settings, StreamName, acknowledgement,
};
use super::receive::Dump;
use crate::base::clock::unix_ms;
use crate::client::mailbox::Bell;
use crate::client::registry::Arrival;
use crate::config::choices::ReplDisklessLoad;
use crate::config::strerror;
use crate::dispatch::blocking;
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::pause::Purpose;
use crate::observe::{log, process};
use crate::persistence::load::About;
use crate::propagation::{Address, View, Wanted};
use crate::wire::Stream;

/// Bytes read from the primary at once.
const PIECE: usize = 64 * 1024;
/// Longest sleep: parameters and killed clients are looked at as often.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that wait for the end of a pause, after which no more are read.
const HELD: usize = 1 << 20;
/// Bytes of the stream that are applied and not written to the append-only file, after which no more are
/// read: more than a disk that does not hang leaves behind.
const UNWRITTEN: u64 = 16 << 20;
/// How long it may take that nobody follows us any more.
const PARTING: Duration = Duration::from_secs(5);

/// Has the thread follow what was ordered; it is started when it is needed first.
pub fn serve(shared: &Shared) {
    let upstream = &shared.replication.upstream;
    if !upstream.claim_service() {
        return;
    }
    let started = Bell::new().and_then(|bell| {
        let bell = Arc::new(bell);
        upstream.ring(Arc::clone(&bell));
        let run = move |shared: &Arc<Shared>| Following::new(shared, bell).run();
        shared.threads.start("primary", run)
    });
    if let Err(error) = started {
        tracing::warn!(
            "Cannot start the thread of the primary: {}",
            strerror(&error)
        );
        upstream.give_up_service();
    }
}

/// Has this server follow `primary`, or nobody; a `failover` tells the other side to take over. Returns
/// the number of the order. Who has to know when it is carried out calls [`await_orders`].
pub fn order(shared: &Shared, primary: Option<Address>, failover: bool) -> u64 {
    shared
        .config
        .update(|settings| settings.replicaof.clone_from(&primary));
    let order = shared.replication.upstream.want(Wanted {
        primary,
        failover,
        at_start: false,
    });
    serve(shared);
    order
}

/// Waits until what was ordered until now is carried out. Not for a worker to call.
pub fn await_orders(shared: &Shared) {
    let upstream = &shared.replication.upstream;
    let order = upstream.given();
    while !upstream.await_done(order, Duration::from_secs(1)) {
        // There may have been no thread to be had.
        serve(shared);
    }
}

/// The server starts as a replica: it is one before anybody is served.
pub fn begin_as_replica(shared: &Shared) {
    let Some(primary) = shared.config.load().replicaof.clone() else {
        return;
    };
    let upstream = &shared.replication.upstream;
    upstream.set_follows(true);
    show_role(true, &shared.config.load());
    shared.stream.follow();
    // Unless what is loaded tells it.
    shared.replication.set_known(&shared.stream, false);
    upstream.show(View {
        primary: Some(primary),
        state: "connect",
        ..Default::default()
    });
}

/// The data set is loaded: the primary of the configuration is followed.
pub fn follow_from_start(shared: &Shared) {
    let primary = shared.config.load().replicaof.clone();
    if primary.is_none() {
        return;
    }
    let wanted = Wanted {
        primary,
        failover: false,
        at_start: true,
    };
    // Somebody may have ordered something else by now.
    if shared.replication.upstream.want_first(wanted) {
        serve(shared);
    }
}

/// Shows to the log's readers and to the system whether this is a replica.
fn show_role(follows: bool, settings: &crate::config::Settings) {
    log::set_role(if follows { 'S' } else { 'M' });
    // A comfort: where it is not to be had, the server serves all the same.
    let _ = process::write_oom_score(settings);
}

/// The connection to the primary.
struct Link {
    stream: Stream,
    /// What the stream had no room for.
    unsent: Vec<u8>,
}

/// What is applied and not in the append-only file.
struct Unwritten {
    /// Where the stream ends with it.
    position: u64,
    /// What the primary is told.
    applied: i64,
    /// More is to be told by now.
    is_old: bool,
}

/// The thread's state.
struct Following<'a> {
    shared: &'a Arc<Shared>,
    bell: Arc<Bell>,
    machine: Follower,
    /// [`crate::config::Config::version`] of the parameters that it has.
    settings_version: u64,
    link: Option<Link>,
    dialled: Arc<Mutex<Option<Dialled>>>,
    /// The attempt that the link belongs to, or the one being made.
    attempt: u64,
    /// The dump that comes or is there, until it is adopted.
    dump: Option<Dump>,
    /// All of the dump is handed over: what comes of it is awaited, and nothing read meanwhile.
    ending: bool,
    /// What the dump says of itself, once loaded.
    about: About,
    applier: Option<Applier>,
    /// Bytes of the stream that came before the dump was there, or while clients are paused.
    early: Vec<u8>,
    /// The append-only file is to be turned on when the data set is there.
    resumes_file: bool,
    /// Orders carried out.
    seen: u64,
    /// The offset that the primary was told last; on this connection.
    told_applied: Option<i64>,
    /// What the primary is told when the append-only file holds it.
    unwritten: Option<Unwritten>,
    /// What the primary was told last of what is on the disk.
    told_durable: Option<i64>,
    /// The primary asked, and not everything was on the disk.
    owes_durable: bool,
    /// What is to be told to the state machine next.
    events: VecDeque<Event<'static>>,
    shown_ms: i64,
}

impl<'a> Following<'a> {
    fn new(shared: &'a Arc<Shared>, bell: Arc<Bell>) -> Self {
        Self {
            shared,
            bell,
            machine: Follower::new(settings(shared)),
            settings_version: shared.config.version(),
            link: None,
            dialled: Arc::default(),
            attempt: 0,
            dump: None,
            ending: false,
            about: About::default(),
            applier: None,
            early: Vec::new(),
            resumes_file: false,
            seen: 0,
            told_applied: None,
            unwritten: None,
            told_durable: None,
            owes_durable: false,
            events: VecDeque::new(),
            shown_ms: 0,
        }
    }

    /// Follows for as long as the process lives.
    fn run(&mut self) {
        let mut input = Vec::with_capacity(PIECE);
        loop {
            self.obey();
            self.follow_settings();
            self.wait();
            self.bell.answer();
            self.look_at_dial();
            self.look_at_dump();
            self.flush();
            self.apply_held();
            self.read(&mut input);
            let actions = self.machine.tick(unix_ms());
            self.carry_out(actions, &[]);
            self.drain_events();
            self.tell_what_is_written();
            self.tell_what_is_durable();
            self.end_if_killed();
            self.show(false);
        }
    }

    /// Takes over changed parameters; and, before a dump can come, where it would go.
    fn follow_settings(&mut self) {
        let version = self.shared.config.version();
        if self.applier.is_none() || version != self.settings_version {
            self.settings_version = version;
            self.machine.set_settings(settings(self.shared));
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) {
        let pause = self.machine.pause().map_or(LOOK, Duration::from_millis);
        let is_unread = |link: &Link| link.stream.has_unread() && self.may_read();
        let pause = match self.link.as_ref().is_some_and(is_unread) {
            true => Duration::ZERO,
            false => pause.min(LOOK),
        };
        let timeout = Timespec {
            tv_sec: pause.as_secs() as i64,
            tv_nsec: pause.subsec_nanos().into(),
        };
        let mut fds = vec![PollFd::new(self.bell.fd(), PollFlags::IN)];
        if let Some(link) = &self.link {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.may_read());
            let waits = !link.unsent.is_empty() || link.stream.has_unsent();
            flags.set(PollFlags::OUT, waits);
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(link.stream.fd(), flags));
            }
        }
        // Interrupted or not: what there is to do is looked at.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn step(&mut self, event: Event<'_>) {
        let actions = self.machine.step(event, unix_ms());
        self.carry_out(actions, &[]);
    }

    /// Events that carrying out actions led to.
    fn drain_events(&mut self) {
        while let Some(event) = self.events.pop_front() {
            self.step(event);
        }
    }

    /// Shows how things are, if that was not done a moment ago.
    fn show(&mut self, at_once: bool) {
        let now = unix_ms();
        if at_once || now - self.shown_ms >= 20 {
            self.shown_ms = now;
            let waits = |applier: &Applier| applier.waiting() + self.early.len();
            let unapplied = self.applier.as_ref().map_or(0, waits);
            let upstream = &self.shared.replication.upstream;
            upstream.unapplied.store(unapplied as u64, Relaxed);
            let view = self.machine.view(now);
            self.shared.replication.upstream.show(view);
        }
    }
}

/// Orders.
impl Following<'_> {
    /// Carries out what was ordered last.
    fn obey(&mut self) {
        let upstream = &self.shared.replication.upstream;
        let Some((wanted, number)) = upstream.order_after(self.seen) else {
            return;
        };
        self.seen = number;
        match wanted.primary {
            Some((host, port)) => {
                self.become_replica();
                self.step(match wanted.at_start {
                    true => Event::Start { host, port },
                    false => Event::Follow {
                        host,
                        port,
                        failover: wanted.failover,
                    },
                });
            }
            None => {
                self.step(Event::Stop);
                self.become_primary();
            }
        }
        self.drain_events();
        self.show(true);
        self.shared.replication.upstream.has_done(number);
    }

    /// From here on the stream is somebody else's.
    fn become_replica(&mut self) {
        let shared = self.shared;
        let upstream = &shared.replication.upstream;
        if !upstream.follows() {
            upstream.set_follows(true);
            show_role(true, &shared.config.load());
            // What clients do from now on goes to files only; what they did until now is in the
            // stream, which can be gone on with.
            shared.pass_turns();
            shared.stream.follow();
            let mut worker = Worker::for_source(shared, Default::default());
            blocking::release_all(shared, &mut worker);
        }
        // Those who follow us stay: they may be able to go on as we do.
    }

    /// The stream is this server's own.
    fn become_primary(&mut self) {
        let shared = self.shared;
        if !shared.replication.upstream.follows() {
            return;
        }
        match shared.replication.is_known() {
            true => shared.replication.promote(&shared.stream),
            // What it was is gone: nobody goes on in that.
            false => shared.replication.change_id(&shared.stream),
        }
        self.set_known(true);
        self.part_with_replicas();
        let names = shared.replication.names();
        if let Some((second, end)) = names.second {
            tracing::warn!(
                "Setting secondary replication ID to {second}, valid up to offset: {end}. New \
                 replication ID is {}",
                names.id
            );
        }
        shared.stream.disown();
        shared.replication.begin_to_wait(unix_ms() / 1000);
        shared.replication.upstream.set_follows(false);
        shared.replication.upstream.forget_volatile();
        show_role(false, &shared.config.load());
        self.resume_file();
    }

    /// The replica that we were to hand over to took over, or it refused: then we follow nobody, and are
    /// what we were.
    fn failed_over(&mut self, took_over: bool) {
        let shared = self.shared;
        if !took_over {
            if shared.replication.upstream.withdraw(self.seen) {
                shared.config.update(|settings| settings.replicaof = None);
            }
            self.become_primary();
        }
        // Unless ABORT came first, which sees to the rest.
        let Some(plan) = shared.replication.failover.answered() else {
            return;
        };
        if !took_over {
            let name = plan.name();
            tracing::info!("{name} aborted: Failover target rejected psync request");
        }
        self.show(true);
        shared.pause.end(Purpose::Failover);
    }

    /// Ends the connections of all replicas: they come back, and learn what the stream is called now.
    fn part_with_replicas(&self) {
        let replication = &self.shared.replication;
        for replica in replication.replicas() {
            if let Some(handle) = self.shared.clients.get(replica.client) {
                handle.kill();
            }
        }
        let begun = std::time::Instant::now();
        while !replication.is_empty() && begun.elapsed() < PARTING {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The socket.
impl Following<'_> {
    /// Looks the name up and connects, on a thread of its own: either may take long.
    fn dial(&mut self, attempt: u64, host: String, port: u16) {
        self.attempt = attempt;
        let (dialled, bell) = (Arc::clone(&self.dialled), Arc::clone(&self.bell));
        if let Err(error) = dial::begin(self.shared, (attempt, host, port), dialled, bell) {
            self.events.push_back(Event::Unreachable {
                attempt,
                text: strerror(&error),
            });
        }
    }

    fn look_at_dial(&mut self) {
        let Some(dialled) = self.dialled.lock().take() else {
            return;
        };
        if dialled.attempt != self.attempt {
            return;
        }
        match dialled.result {
            Ok(stream) => {
                self.link = Some(Link {
                    stream,
                    unsent: Vec::new(),
                });
                self.step(Event::Connected {
                    attempt: dialled.attempt,
                });
            }
            Err(event) => self.step(event),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(link) = &mut self.link {
            link.unsent.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Writes what the socket takes.
    fn flush(&mut self) {
        let Some(link) = &mut self.link else { return };
        // A broken connection is met by the next read.
        let _ = link.stream.flush();
        while !link.unsent.is_empty() {
            match link.stream.write(&[IoSlice::new(&link.unsent)]) {
                Ok(count) => _ = link.unsent.drain(..count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A broken connection is met by the next read.
                Err(_) => return,
            }
        }
    }

    fn may_read(&self) -> bool {
        let is_full = || self.early.len() >= HELD || self.file_is_behind();
        !(self.ending || self.applier.is_some() && is_full())
    }

    /// So much is applied and not written to the append-only file that a write must be hanging: the primary
    /// is to keep the rest until it ends, which the bell tells.
    fn file_is_behind(&self) -> bool {
        let log = &self.shared.append_only.log;
        let is_behind = || {
            let end = self.shared.stream.position();
            let unwritten = end.saturating_sub(log.progress.written());
            // Where it cannot be written, the replica goes on without.
            log.is_open() && !log.progress.failing.load(Relaxed) && unwritten > UNWRITTEN
        };
        if !is_behind() {
            return false;
        }
        log.progress.hold(&self.bell);
        is_behind()
    }

    fn read(&mut self, input: &mut Vec<u8>) {
        if !self.may_read() {
            if !self.ending {
                self.step(Event::Busy);
            }
            return;
        }
        let Some(link) = &mut self.link else { return };
        input.clear();
        let text = match link.stream.read(input) {
            Ok(0) => "connection lost".to_owned(),
            Ok(count) => {
                let counter = &self.shared.stats.applier().counters.input_bytes;
                crate::observe::stats::bump(counter, count as u64);
                let bytes = &input[..count];
                let actions = self.machine.step(Event::Bytes(bytes), unix_ms());
                self.carry_out(actions, bytes);
                return;
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return,
                _ => strerror(&error),
            },
        };
        self.step(Event::Closed { text });
    }

    /// CLIENT KILL ended the connection to the primary.
    fn end_if_killed(&mut self) {
        let is_killed = |applier: &Applier| applier.handle().is_killed();
        if self.applier.as_ref().is_some_and(is_killed) {
            self.step(Event::Closed {
                text: "killed".to_owned(),
            });
        }
    }
}

/// What the state machine asks for.
impl Following<'_> {
    /// Carries out actions, some of which speak of `bytes`.
    fn carry_out(&mut self, actions: Vec<Action>, bytes: &[u8]) {
        for action in actions {
            match action {
                Action::Connect {
                    attempt,
                    host,
                    port,
                } => self.dial(attempt, host, port),
                Action::Send(bytes) => self.send(&bytes),
                Action::Close => self.close(),
                Action::AskHistory { attempt } => {
                    let history = self.history();
                    self.events.push_back(Event::History { attempt, history });
                }
                Action::BeginLoad {
                    source, len, load, ..
                } => self.begin_load(source, len, load),
                Action::LoadBytes(Range { start, end }) => self.load(&bytes[start..end]),
                Action::LoadHeld(held) => self.load(held.bytes()),
                Action::EndLoad => self.end_load(),
                Action::AbortLoad => self.abort_load(),
                Action::Adopt(history) => self.adopt(history),
                Action::ContinueAs { id } => self.go_on_as(id),
                Action::StreamBytes(Range { start, end }) => self.apply(&bytes[start..end]),
                Action::Acknowledge => self.acknowledge(),
                Action::FailedOver(took_over) => self.failed_over(took_over),
                Action::Log(Level::Notice, text) => tracing::info!("{text}"),
                Action::Log(Level::Warning, text) => tracing::warn!("{text}"),
            }
        }
    }

    /// Tells the primary what is applied, once the append-only file holds it: whoever has waited for this
    /// replica finds it again should its process end. Until then it is told again what it knows, so that
    /// it does not take this side for dead.
    fn acknowledge(&mut self) {
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.is_old = true;
            if let Some(applied) = self.told_applied {
                self.tell(applied);
            }
            return;
        }
        let applied = self.shared.stream.offset().cast_signed();
        let position = self.shared.stream.position();
        if self.is_written(position) {
            return self.tell(applied);
        }
        self.unwritten = Some(Unwritten {
            position,
            applied,
            is_old: false,
        });
        self.shared.append_only.log.demand();
        self.tell_what_is_written();
    }

    /// Tells the primary what has waited for the append-only file.
    fn tell_what_is_written(&mut self) {
        let Some(position) = self.unwritten.as_ref().map(|unwritten| unwritten.position) else {
            return;
        };
        self.shared.append_only.log.progress.hold(&self.bell);
        if !self.is_written(position) {
            return;
        }
        let Some(unwritten) = self.unwritten.take() else {
            return;
        };
        self.tell(unwritten.applied);
        if unwritten.is_old {
            self.acknowledge();
        }
    }

    /// The append-only file holds the stream up to `position`, or there is none that could.
    fn is_written(&self, position: u64) -> bool {
        let log = &self.shared.append_only.log;
        let progress = &log.progress;
        !log.is_open() || progress.failing.load(Relaxed) || progress.cleared() >= position
    }

    /// Tells the primary that so much is applied, and what of it is on the disk.
    fn tell(&mut self, applied: i64) {
        // At the server's end the file may be closed already: then nothing more is confirmed.
        self.shared.status.stall.wait();
        let durable = self.shared.append_only.durable();
        let durable = durable.map(|offset| offset.cast_signed().min(applied));
        self.told_applied = Some(applied);
        self.told_durable = durable;
        self.send(&acknowledgement(applied, durable));
    }

    /// The primary asked what is on the disk, when less of it was than by now.
    fn tell_what_is_durable(&mut self) {
        if !self.owes_durable || self.applier.is_none() {
            return;
        }
        let durable = self.shared.append_only.durable();
        if durable.map(u64::cast_signed) <= self.told_durable {
            return;
        }
        self.owes_durable = durable.is_none_or(|offset| offset < self.shared.stream.offset());
        self.acknowledge();
    }

    fn close(&mut self) {
        self.link = None;
        // That it is lost is to be seen by who has just ended it.
        self.shown_ms = 0;
        self.attempt = 0;
        self.early = Vec::new();
        (self.told_applied, self.unwritten) = (None, None);
        if let Some(applier) = self.applier.take() {
            applier.end(self.shared);
        }
    }

    /// What the data set contains, if a primary could continue it.
    fn history(&self) -> Option<History> {
        let replication = &self.shared.replication;
        let names = replication.names();
        let id = StreamName::parse(names.id.as_bytes())?;
        let offset = self.shared.stream.offset().cast_signed();
        replication.is_known().then_some(History { id, offset })
    }

    fn go_on_as(&mut self, id: Option<StreamName>) {
        let shared = self.shared;
        if let Some(id) = id {
            shared.replication.rename(&shared.stream, id.to_string());
            // Whoever was told the old name has to know the new one.
            self.part_with_replicas();
        }
        let size = shared.config.settings().repl_backlog_size.unsigned_abs();
        shared.replication.keep_backlog(&shared.stream, size);
        self.begin_to_apply(shared.stream.selected());
    }

    fn set_known(&self, known: bool) {
        let shared = self.shared;
        if !known {
            shared.replication.upstream.forget_volatile();
        }
        shared.replication.set_known(&shared.stream, known);
    }

    fn begin_to_apply(&mut self, db: usize) {
        let Some(link) = &self.link else { return };
        let address = |address: io::Result<SocketAddr>| {
            address.map_or_else(|_| String::new(), |a| a.to_string())
        };
        let handle = self.shared.clients.add(Arrival {
            address: address(link.stream.peer_addr()),
            local_address: address(link.stream.local_addr()),
            fd: link.stream.fd().as_raw_fd(),
            now_ms: unix_ms(),
            bell: Arc::clone(&self.bell),
        });
        self.applier = Some(Applier::new(self.shared, handle, db));
        let early = std::mem::take(&mut self.early);
        self.apply(&early);
    }

    /// A pause holds the primary's writes back as it does those of clients.
    fn is_paused(&self) -> bool {
        let pause = &self.shared.pause;
        pause.is_set() && pause.at(unix_ms()).is_some()
    }

    /// Applies what a pause held back, when it is over.
    fn apply_held(&mut self) {
        if self.applier.is_some() && !self.early.is_empty() && !self.is_paused() {
            let held = std::mem::take(&mut self.early);
            self.apply(&held);
            self.drain_events();
        }
    }

    fn apply(&mut self, bytes: &[u8]) {
        let waits = !self.early.is_empty() || self.is_paused();
        let Some(applier) = self.applier.as_mut().filter(|_| !waits) else {
            self.early.extend_from_slice(bytes);
            return;
        };
        if bytes.is_empty() {
            return;
        }
        let fed = applier.feed(self.shared, bytes);
        if std::mem::take(&mut applier.asked) {
            self.owes_durable = true;
            self.shared.append_only.log.demand();
            self.events.push_back(Event::GetAck);
        }
        if fed.is_err() {
            self.set_known(false);
            self.events.push_back(Event::Corrupt);
        }
    }
}

/// The parameters that the state machine needs.
fn settings(shared: &Shared) -> Settings {
    let settings = shared.config.settings();
    let some = |text: &crate::config::Text| (!text.is_empty()).then(|| text.to_str().into_owned());
    let secret = |bytes: &[u8]| (!bytes.is_empty()).then(|| bytes.to_vec());
    let is_empty = || {
        let keyspace = &shared.keyspace;
        (0..keyspace.databases()).all(|db| keyspace.len(db) == 0)
    };
    Settings {
        port: match settings.replica_announce_port {
            0 if settings.tls_replication && settings.tls_port != 0 => settings.tls_port,
            0 => settings.port,
            port => port,
        },
        ip: some(&settings.replica_announce_ip),
        user: some(&settings.masteruser).map(String::into_bytes),
        password: secret(&settings.masterauth),
        timeout: settings.repl_timeout.unsigned_abs(),
        load: match settings.repl_diskless_load {
            ReplDisklessLoad::Disabled => Load::File,
            ReplDisklessLoad::OnEmptyDb if is_empty() => Load::Direct,
            ReplDisklessLoad::OnEmptyDb => Load::File,
            ReplDisklessLoad::Swapdb => Load::Swap,
        },
    }
}
