//! The source's thread.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::conn::{Broken, Conn, place_of};
use super::filter::{Filter, Unfit};
use super::{APPLIED, DROPPED, GO_ON, PROTOCOL, READY, TAKEN, TICK, end, order, unix_seconds};
use crate::base::{clock, random};
use crate::cluster::failover::MANUAL_TIMEOUT;
use crate::cluster::handing::Hand;
use crate::cluster::handle::Cluster;
use crate::cluster::id::NodeId;
use crate::cluster::moving::export::{Action, Event, Export};
use crate::cluster::moving::list::{Job, Phase};
use crate::cluster::slots::SlotSet;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::dispatch::pause::{Paused, Purpose};
use crate::keyspace::shards::LockSet;
use crate::persistence::snapshot::{self, Options, Progress};
use crate::propagation::Reader;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A target that answers so soon has little to do: the pause is short.
const SOON: Duration = Duration::from_millis(5);
/// How often it is asked until it does.
const ROUNDS: u32 = 200;
/// Longest wait before it is asked again what it has done.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Starts the thread of a migration that begins.
pub fn begin(shared: &Shared, job: &Arc<Job>) {
    let own = Arc::clone(job);
    let started = shared.threads.start("slot-export", move |shared| {
        run(shared, &own, Export::default(), Vec::new());
    });
    if let Err(error) = started {
        let why = format!("Can't start a thread: {}", strerror(&error));
        job.enter(Phase::Failed, Some(&why), unix_seconds());
    }
}

/// Goes on with what a process before this one had granted, of which it is not known what became.
pub fn resume(shared: &Shared, cluster: &Cluster) {
    let mut granted: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
    let me = {
        let machine = cluster.machine();
        let view = machine.view();
        for (slot, grant) in &view.granted {
            let slots = granted.entry(view.node(grant.to).id).or_default();
            slots.insert(*slot);
        }
        view.me().id
    };
    for (target, slots) in granted {
        let name = String::from_utf8_lossy(&random::hex::<40>()).into_owned();
        let job = Job::new(name, (me, target), slots.ranges(), true, unix_seconds());
        let job = Arc::new(job);
        if cluster.moves.begin(&[Arc::clone(&job)]).is_err() {
            continue;
        }
        let started = shared.threads.start("slot-export", move |shared| {
            let (machine, actions) = Export::in_doubt();
            run(shared, &job, machine, actions);
        });
        if let Err(error) = started {
            // They stay in doubt until the other node is heard of, or this one starts again.
            tracing::warn!("Can't start a thread (slot-export): {}", strerror(&error));
        }
    }
}

fn run(shared: &Arc<Shared>, job: &Arc<Job>, machine: Export, actions: Vec<Action>) {
    let Some(cluster) = shared.cluster.clone() else {
        return;
    };
    let mut source = Source {
        watch: Watch {
            shared,
            cluster: &cluster,
            job,
            bound: machine.is_bound(),
            granted: machine.is_granted(),
            deadline: None,
            read_to: None,
            cancel_told: false,
        },
        machine,
        todo: actions.into(),
        conn: None,
        reader: None,
        filter: Filter::default(),
        asked: 0,
    };
    if source.todo.is_empty() {
        let event = source.connect();
        source.step(event);
    }
    loop {
        while let Some(action) = source.todo.pop_front() {
            if let Some(event) = source.act(action) {
                source.step(event);
            }
        }
        if source.machine.phase().is_over() {
            return;
        }
        // What happened made no sense.
        source.step(Event::Lost(
            "Unexpected state machine transition".to_owned(),
        ));
    }
}

/// What ends a wait.
struct Watch<'a> {
    shared: &'a Arc<Shared>,
    cluster: &'a Cluster,
    job: &'a Job,
    /// The target may have the slots.
    bound: bool,
    /// There is a grant.
    granted: bool,
    /// When writes have been held back for long enough.
    deadline: Option<Instant>,
    /// Up to which offset the stream was read.
    read_to: Option<u64>,
    cancel_told: bool,
}

impl Watch<'_> {
    fn look(&mut self) -> Option<Event> {
        if self.job.stop.load(Relaxed) && !self.bound && !self.cancel_told {
            self.cancel_told = true;
            return Some(Event::Cancelled);
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() > deadline)
        {
            return Some(Event::Late);
        }
        if self.is_too_far_behind() {
            return Some(Event::Lost("Output buffer limit exceeded".to_owned()));
        }
        self.owner()
    }

    /// Whether the slots are not this node's any more.
    fn owner(&self) -> Option<Event> {
        let machine = self.cluster.machine();
        let view = machine.view();
        let me = view.myself();
        let target = view.find(self.job.target);
        let slots = &self.job.slots;
        if view.me().is_primary() && slots.iter().all(|slot| view.owner(slot) == Some(me)) {
            let overruled =
                self.granted && !slots.iter().any(|slot| view.granted.contains_key(&slot));
            return overruled.then_some(Event::Overruled);
        }
        let by_target = target.is_some() && slots.iter().all(|slot| view.owner(slot) == target);
        Some(Event::Unowned { by_target })
    }

    fn is_too_far_behind(&self) -> bool {
        let Some(read_to) = self.read_to else {
            return false;
        };
        let settings = self.shared.config.settings();
        let hard = settings.client_output_buffer_limit[1].hard_bytes;
        let most = hard.max(settings.repl_backlog_size.unsigned_abs());
        hard != 0 && self.shared.stream.offset().saturating_sub(read_to) > most
    }
}

struct Source<'a> {
    watch: Watch<'a>,
    machine: Export,
    todo: VecDeque<Action>,
    conn: Option<Conn>,
    reader: Option<Reader>,
    filter: Filter,
    /// How often the target was asked what it has done.
    asked: u32,
}

/// What the target says when it goes away.
fn lost(why: String) -> Event {
    Event::Lost(match why.is_empty() {
        true => {
            "Connection lost to target. Check CLUSTER GETSLOTMIGRATIONS on the target node for \
                 more information."
                .to_owned()
        }
        false => why,
    })
}

impl From<Broken<Event>> for Event {
    fn from(broken: Broken<Event>) -> Self {
        match broken {
            Broken::Interrupted(event) => event,
            Broken::Lost(why) => lost(why),
        }
    }
}

impl Source<'_> {
    fn step(&mut self, event: Event) {
        let actions = self.machine.step(event);
        self.watch.bound = self.machine.is_bound();
        self.watch.granted = self.machine.is_granted();
        self.todo.extend(actions);
        if !self.machine.phase().is_over() {
            self.watch
                .job
                .enter(self.machine.phase(), None, unix_seconds());
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        let done = match action {
            Action::Authenticate => self.authenticate(),
            Action::Establish => self.establish(),
            Action::Cut => self.cut(),
            Action::Follow => self.follow(),
            Action::Pause => self.pause(),
            Action::SendRest => self.send_rest(),
            Action::Grant => self.grant(),
            Action::SayGranted => self.say_granted(),
            Action::Ask => Ok(self.ask()),
            other => {
                self.finish(other);
                return None;
            }
        };
        Some(done.unwrap_or_else(|event| event))
    }

    /// What has no outcome.
    fn finish(&mut self, action: Action) {
        let (shared, cluster, job) = (self.watch.shared, self.watch.cluster, self.watch.job);
        let slots = job.slots.clone();
        match action {
            Action::Doubt => _ = order(cluster, Hand::Doubt(slots), true),
            Action::Revoke => _ = order(cluster, Hand::Revoke(slots), true),
            Action::Give => {
                let to = job.target;
                _ = order(cluster, Hand::Give { slots, to }, true);
            }
            Action::Resume => {
                self.watch.deadline = None;
                shared.pause.end(Purpose::Slots);
                cluster.moves.end_pause();
            }
            Action::Close => {
                self.conn = None;
                self.reader = None;
                self.watch.read_to = None;
            }
            Action::End(phase, why) => {
                job.remaining.store(0, Relaxed);
                end(shared, cluster, job, (phase, &why));
            }
            _ => {}
        }
    }

    fn connect(&mut self) -> Event {
        let shared = self.watch.shared;
        let place = {
            let machine = self.watch.cluster.machine();
            place_of(&machine, &shared.config.settings(), self.watch.job.target)
        };
        let reached = match place {
            Some(place) => Conn::open(shared, &place, CONNECT),
            None => Err("target node not found".to_owned()),
        };
        match reached {
            Ok(conn) => {
                self.conn = Some(conn);
                Event::Connected
            }
            Err(why) => Event::Lost(format!("Unable to connect to target node: {why}")),
        }
    }

    fn conn(conn: &mut Option<Conn>) -> Result<&mut Conn, Event> {
        conn.as_mut().ok_or_else(|| lost(String::new()))
    }

    fn say(&mut self, words: &[&[u8]]) -> Result<(), Event> {
        let watch = &mut self.watch;
        Ok(Self::conn(&mut self.conn)?.say(words, &mut || watch.look())?)
    }

    fn reply(&mut self) -> Result<String, Event> {
        let watch = &mut self.watch;
        let line = Self::conn(&mut self.conn)?.line(&mut || watch.look())?;
        watch.job.heard.store(unix_seconds(), Relaxed);
        Ok(line)
    }

    fn authenticate(&mut self) -> Result<Event, Event> {
        let settings = self.watch.shared.config.load();
        let watch = &mut self.watch;
        let mut look = || watch.look();
        Self::conn(&mut self.conn)?.authenticate(&settings, &mut look)?;
        Ok(Event::Authenticated)
    }

    fn establish(&mut self) -> Result<Event, Event> {
        let job = self.watch.job;
        let mut words: Vec<Vec<u8>> = ["CLUSTER", "SYNCSLOTS", "IMPORT", PROTOCOL]
            .map(|word| word.as_bytes().to_vec())
            .into();
        words.push(job.source.as_bytes().to_vec());
        words.push(job.name.clone().into_bytes());
        for (first, last) in &job.ranges {
            words.extend([first, last].map(|slot| slot.to_string().into_bytes()));
        }
        let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
        self.say(&words)?;
        let reply = self.reply()?;
        match reply.strip_prefix('-') {
            None if reply == GO_ON => Ok(Event::Established),
            Some(why) if why.starts_with("ERR unknown subcommand") || why.contains("syntax") => {
                Err(Event::Lost(format!(
                    "Target node does not support this kind of slot migration: {why}"
                )))
            }
            Some(why) => {
                let why = why.strip_prefix("ERR ").unwrap_or(why);
                Err(Event::Lost(format!("Target node refuses: {why}")))
            }
            None => Err(Event::Lost(format!(
                "Unexpected reply of the target node: {reply}"
            ))),
        }
    }

    /// Waits for what `is_so` to become true.
    fn await_that(&mut self, mut is_so: impl FnMut() -> bool) -> Result<(), Event> {
        while !is_so() {
            if let Some(event) = self.watch.look() {
                return Err(event);
            }
            std::thread::sleep(TICK / 4);
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<Event, Event> {
        let (shared, job) = (self.watch.shared, self.watch.job);
        let saves = &shared.durability.saves;
        self.await_that(|| !saves.is_busy())?;
        let turn = saves.turn();
        let options = Options {
            as_commands: true,
            compress: false,
            checksum: false,
            key_delay_us: 0,
            ..Options::of(&shared.config.load())
        };
        let slots = job.slots.clone();
        let wanted = Box::new(move |key: &[u8]| slots.has(crate::base::crc::key_slot(key)));
        let mut reader = None;
        let at_cut = |_: &mut LockSet<'_>| {
            reader = Some(shared.stream.reader());
            Vec::new()
        };
        self.step(Event::CutBegun);
        let mut sink = Sink {
            conn: Self::conn(&mut self.conn)?,
            watch: &mut self.watch,
            event: None,
        };
        let progress = Arc::new(Progress::default());
        let written = snapshot::write_part(
            &shared.keyspace,
            options,
            &progress,
            &mut sink,
            Some(wanted),
            (at_cut, |cut| saves.begun(cut)),
        );
        let event = sink.event.take();
        drop(turn);
        self.reader = reader;
        match (written, event) {
            (Ok(()), _) => {}
            (Err(_), Some(event)) => return Err(event),
            (Err(error), None) => {
                return Err(Event::Lost(format!(
                    "Failed to snapshot: {}",
                    strerror(&error)
                )));
            }
        }
        self.watch.read_to = self.reader.as_ref().map(Reader::offset);
        self.say(&[b"CLUSTER", b"SYNCSLOTS", b"SNAPSHOT-EOF"])?;
        Ok(Event::CutSent)
    }

    /// Sends what the stream holds now; how many bytes that were.
    fn send_stream(&mut self) -> Result<usize, Event> {
        let (shared, job) = (self.watch.shared, self.watch.job);
        let Some(reader) = &mut self.reader else {
            return Err(lost(String::new()));
        };
        let (mut out, mut sent) = (Vec::new(), 0);
        for chunk in reader.read() {
            let passed = self.filter.pass(shared, &job.slots, &chunk.bytes, &mut out);
            passed.map_err(|unfit| {
                Event::Lost(match unfit {
                    Unfit::Flushed => "Data was flushed".to_owned(),
                    Unfit::Corrupt => "The stream of changes makes no sense".to_owned(),
                })
            })?;
            let watch = &mut self.watch;
            Self::conn(&mut self.conn)?.write(&out, &mut || watch.look())?;
            sent += out.len();
            out.clear();
        }
        if reader.is_lost() {
            return Err(Event::Unowned { by_target: false });
        }
        self.watch.read_to = Some(reader.offset());
        Ok(sent)
    }

    fn follow(&mut self) -> Result<Event, Event> {
        let job = self.watch.job;
        for round in 1.. {
            let sent = self.send_stream()?;
            let begun = Instant::now();
            self.say(&[b"CLUSTER", b"SYNCSLOTS", b"ACK"])?;
            if self.reply()? != APPLIED {
                return Err(lost("Unexpected reply of the target node".to_owned()));
            }
            // What comes meanwhile is what the pause will be about.
            let waits = self.send_stream()?;
            job.remaining.store((sent + waits) as u64, Relaxed);
            if let Some(event) = self.watch.look() {
                return Err(event);
            }
            let settings = self.watch.shared.config.settings();
            let most = settings.slot_migration_max_failover_repl_bytes;
            let is_little = most < 0 || waits as u64 <= most.unsigned_abs();
            let is_soon = begun.elapsed() < SOON || round > ROUNDS;
            if is_little && is_soon && round > 1 {
                break;
            }
        }
        Ok(Event::Near)
    }

    fn pause(&mut self) -> Result<Event, Event> {
        let (shared, cluster) = (self.watch.shared, self.watch.cluster);
        // One after the other; the stream goes on meanwhile.
        loop {
            self.send_stream().map_err(|event| self.unpaused(event))?;
            if let Some(event) = self.watch.look() {
                return Err(self.unpaused(event));
            }
            if cluster.moves.begin_pause() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It has no end of its own, so that nobody writes before it is known what clients are told.
        shared.pause.begin(Purpose::Slots, i64::MAX, Paused::Writes);
        let limit = Duration::from_millis(MANUAL_TIMEOUT.unsigned_abs());
        self.watch.deadline = Some(Instant::now() + limit);
        shared.pass_turns();
        Ok(Event::Still)
    }

    /// It never came to a pause: there is none to be ended.
    fn unpaused(&mut self, event: Event) -> Event {
        self.machine.never_paused();
        event
    }

    fn send_rest(&mut self) -> Result<Event, Event> {
        let end = self.watch.shared.stream.offset();
        while self.watch.read_to.is_some_and(|read_to| read_to < end) {
            self.send_stream()?;
        }
        self.watch.read_to = None;
        self.watch.job.remaining.store(0, Relaxed);
        self.say(&[b"CLUSTER", b"SYNCSLOTS", b"PAUSED"])?;
        match self.reply()? {
            reply if reply == READY => Ok(Event::Ready),
            reply => Err(lost(format!(
                "Unexpected reply of the target node: {reply}"
            ))),
        }
    }

    fn grant(&mut self) -> Result<Event, Event> {
        let job = self.watch.job;
        let (slots, to) = (job.slots.clone(), job.target);
        Ok(
            match order(self.watch.cluster, Hand::Grant { slots, to }, false) {
                Ok(_) => Event::Granted,
                Err(why) => Event::Ungranted(why),
            },
        )
    }

    /// From here on only the target knows.
    fn say_granted(&mut self) -> Result<Event, Event> {
        self.say(&[b"CLUSTER", b"SYNCSLOTS", b"FAILOVER-GRANTED"])?;
        let reply = self.reply()?;
        Ok(match reply.strip_prefix('-') {
            None if reply == TAKEN => Event::Taken,
            Some(why) => Event::Dropped(why.strip_prefix("ERR ").unwrap_or(why).to_owned()),
            None => lost(String::new()),
        })
    }

    fn ask(&mut self) -> Event {
        if self.asked > 0 {
            let pause = (TICK * self.asked).min(ASK_AGAIN);
            let until = Instant::now() + pause;
            if let Err(event) = self.await_that(|| Instant::now() > until) {
                return event;
            }
        }
        self.asked += 1;
        if let Some(event) = self.watch.look() {
            return event;
        }
        self.try_ask().unwrap_or_else(|event| match event {
            Event::Lost(_) => Event::Unknown,
            event => event,
        })
    }

    fn try_ask(&mut self) -> Result<Event, Event> {
        let job = self.watch.job;
        match self.connect() {
            Event::Connected => {}
            event => return Err(event),
        }
        self.authenticate()?;
        let slots = job.slots.text();
        self.say(&[
            b"CLUSTER",
            b"SYNCSLOTS",
            b"OUTCOME",
            job.source.as_bytes(),
            slots.as_bytes(),
        ])?;
        let reply = self.reply()?;
        self.conn = None;
        Ok(match reply {
            reply if reply == TAKEN => Event::Taken,
            reply if reply == DROPPED => {
                Event::Dropped("The target node has not taken the slots".to_owned())
            }
            _ => Event::Unknown,
        })
    }
}

/// Where a cut goes.
struct Sink<'a, 'w> {
    conn: &'a mut Conn,
    watch: &'a mut Watch<'w>,
    /// Why it does not go there any more.
    event: Option<Event>,
}

impl Write for Sink<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let watch = &mut *self.watch;
        watch.job.heard.store(clock::unix_ms() / 1000, Relaxed);
        let interrupted = watch.look();
        let written = match interrupted {
            Some(event) => Err(event),
            None => self
                .conn
                .write(bytes, &mut || watch.look())
                .map_err(Event::from),
        };
        match written {
            Ok(()) => Ok(bytes.len()),
            Err(event) => {
                self.event = Some(event);
                Err(ErrorKind::ConnectionAborted.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
