//! The target's thread.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::requests::Requests;
use super::{APPLIED, GO_ON, READY, TAKEN, TICK, end, order, unix_seconds};
use crate::base::alloc;
use crate::base::crc::key_slot;
use crate::client::registry::Handle;
use crate::client::session::{Session, SyncRequest};
use crate::cluster::handing::Hand;
use crate::cluster::handle::Cluster;
use crate::cluster::id::NodeId;
use crate::cluster::moving::import::{Action, Event, Import};
use crate::cluster::moving::list::Job;
use crate::cluster::slots::SlotSet;
use crate::config::strerror;
use crate::dispatch::args::Args;
use crate::dispatch::command::Flags;
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::execute::{self, Invocation};
use crate::dispatch::source::Source;
use crate::dispatch::{admit, keys, slots, transaction, upkeep};
use crate::keyspace::db::Hint;
use crate::resp::write::Output;
use crate::wire::{Duplex, Stream};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;
/// Bytes after which the append-only file is to be written.
const WRITE_AFTER: usize = 1 << 20;

/// How long a write of the node's file may take before it is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// Makes the target of a migration of a connection that asked for it and that its worker has let go.
pub fn begin(
    shared: &Shared,
    mut session: Session,
    stream: Stream,
    unsent: Vec<u8>,
    input: Vec<u8>,
) {
    let Some(SyncRequest::Slots {
        source,
        name,
        ranges,
    }) = session.sync.take()
    else {
        return;
    };
    execute::disconnect(shared, &mut session);
    let handle = Arc::clone(&session.handle);
    let client = handle.id;
    let Some(source) = NodeId::parse(&source) else {
        return shared.clients.remove(client);
    };
    let name = String::from_utf8_lossy(&name).into_owned();
    let work = move |shared: &Arc<Shared>| {
        if let Some(cluster) = shared.cluster.clone() {
            let me = cluster.machine().view().me().id;
            let job = Job::new(name, (source, me), ranges, false, unix_seconds());
            serve(
                shared,
                &cluster,
                Arc::new(job),
                (stream, handle),
                (unsent, input),
            );
        }
        shared.clients.remove(client);
    };
    if let Err(error) = shared.threads.start("slot-import", work) {
        tracing::warn!("Can't start a thread (slot-import): {}", strerror(&error));
        shared.clients.remove(client);
    }
}

fn serve(
    shared: &Arc<Shared>,
    cluster: &Cluster,
    job: Arc<Job>,
    (stream, handle): (Stream, Arc<Handle>),
    (unsent, input): (Vec<u8>, Vec<u8>),
) {
    let Ok(socket) = Duplex::new(stream, TICK) else {
        return;
    };
    let (machine, actions) = Import::begin();
    let mut target = Target {
        shared,
        cluster,
        job: &job,
        socket,
        handle: &handle,
        session: Session::new(Arc::clone(&handle), None),
        worker: Worker::for_source(shared, Source::Owner),
        out: Output::new(),
        hints: Vec::new(),
        requests: Requests::default(),
        piece: vec![0; PIECE],
        machine,
        todo: actions.into(),
        heard: Instant::now(),
        unwritten: 0,
        broken: false,
    };
    target.write(&unsent);
    if cluster.moves.begin(&[Arc::clone(&job)]).is_err() {
        return target
            .say("-ERR Slot is already being imported on the target by a different migration");
    }
    tracing::info!("New slot import job created: {}.", job.describe());
    target.requests.add(&input);
    target.run();
    transaction::discard(shared, &mut target.session);
}

struct Target<'a> {
    shared: &'a Arc<Shared>,
    cluster: &'a Cluster,
    job: &'a Job,
    socket: Duplex,
    handle: &'a Handle,
    session: Session,
    worker: Worker,
    out: Output,
    hints: Vec<Hint>,
    requests: Requests,
    /// What is being read.
    piece: Vec<u8>,
    machine: Import,
    todo: VecDeque<Action>,
    /// When the source was heard last.
    heard: Instant,
    /// Bytes that came since the append-only file was last asked to be written.
    unwritten: usize,
    broken: bool,
}

impl Target<'_> {
    fn run(&mut self) {
        loop {
            while let Some(action) = self.todo.pop_front() {
                if let Some(event) = self.act(action) {
                    self.step(event);
                }
            }
            if self.machine.phase().is_over() {
                return;
            }
            if let Err(why) = self.hear() {
                self.step(Event::Trouble(why));
            }
        }
    }

    fn step(&mut self, event: Event) {
        let actions = self.machine.step(event);
        self.todo.extend(actions);
        let phase = self.machine.phase();
        if !phase.is_over() {
            self.job.enter(phase, None, unix_seconds());
        }
    }

    fn act(&mut self, action: Action) -> Option<Event> {
        let slots = self.job.slots.clone();
        match action {
            Action::Expect => {
                let from = self.job.source;
                let expected = order(self.cluster, Hand::Expect { slots, from }, false);
                return Some(Event::Expected(expected.map(drop)));
            }
            Action::Clear => {
                // From here on nobody else removes keys of these slots, whatever is under way.
                slots
                    .iter()
                    .for_each(|slot| self.shared.keyspace.arriving.set(slot, true));
                self.remove();
                return Some(Event::Cleared);
            }
            Action::SayReadyForKeys => self.say(GO_ON),
            Action::Write => {
                return Some(match self.write_file() {
                    Ok(()) => Event::Written,
                    Err(why) => Event::Trouble(why),
                });
            }
            Action::SayReady => self.say(READY),
            Action::Take => return Some(self.take(slots)),
            Action::Show => {
                slots
                    .iter()
                    .for_each(|slot| self.shared.keyspace.arriving.set(slot, false));
            }
            Action::SayTaken => self.say(TAKEN),
            Action::SayRefused(why) => self.say(&format!("-ERR {why}")),
            Action::Remove => {
                self.remove();
                return Some(Event::Removed);
            }
            Action::Forget => _ = order(self.cluster, Hand::Clean(slots), true),
            Action::Close => self.socket.shutdown(),
            Action::End(phase, why) => end(self.shared, self.cluster, self.job, (phase, &why)),
        }
        None
    }

    fn take(&self, slots: SlotSet) -> Event {
        if let Err(why) = self.stopped() {
            return Event::Refused(why);
        }
        let from = self.job.source;
        match order(self.cluster, Hand::Take { slots, from }, false) {
            Ok(_) => Event::Taken,
            Err(why) => {
                // They may be ours, and the file could not be written: then it is tried again.
                while self.owns_slots() {
                    if self.cluster.save(SAVE_AGAIN).is_ok() {
                        return Event::Taken;
                    }
                }
                Event::Refused(why)
            }
        }
    }

    /// Why somebody here wants it to end.
    fn stopped(&self) -> Result<(), String> {
        let why = match self.job.flushed.load(Relaxed) {
            true => "Data was flushed",
            false => "The source node has given up",
        };
        match self.job.stop.load(Relaxed) {
            true => Err(why.to_owned()),
            false => Ok(()),
        }
    }

    fn owns_slots(&self) -> bool {
        let machine = self.cluster.machine();
        let view = machine.view();
        let me = view.myself();
        self.job
            .slots
            .iter()
            .all(|slot| view.owner(slot) == Some(me))
    }

    /// Removes what is in the slots. A replica has what its primary has.
    fn remove(&self) {
        if self.shared.replication.upstream.follows() {
            return;
        }
        for slot in self.job.slots.iter() {
            slots::delete_arriving(self.shared, slot);
        }
    }

    fn say(&mut self, line: &str) {
        self.write(format!("{line}\r\n").as_bytes());
    }

    /// Writes a short answer; that it does not arrive is found out when the next request is waited for.
    fn write(&mut self, mut bytes: &[u8]) {
        let begun = Instant::now();
        while !bytes.is_empty() && !self.broken {
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.broken = begun.elapsed() > self.patience();
                }
                Err(_) => self.broken = true,
            }
        }
        while !self.broken
            && let Err(error) = self.socket.flush()
        {
            let waits = error.kind() == ErrorKind::WouldBlock;
            self.broken = !waits || begun.elapsed() > self.patience();
        }
    }

    fn patience(&self) -> Duration {
        let seconds = self.shared.config.settings().repl_timeout.max(1);
        Duration::from_secs(seconds.unsigned_abs().into())
    }

    /// Waits until the append-only file holds what came.
    fn write_file(&self) -> Result<(), String> {
        let log = &self.shared.append_only.log;
        let position = self.shared.stream.position();
        while log.is_open() && log.progress.cleared() < position {
            if log.progress.failing.load(Relaxed) {
                return Err("The append-only file of the target node cannot be written".to_owned());
            }
            self.look()?;
            log.demand();
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Why it is to end.
    fn look(&self) -> Result<(), String> {
        let fail = |why: &str| Err(why.to_owned());
        self.stopped()?;
        if self.broken || self.handle.is_killed() {
            return fail(
                "Connection lost to source. Check CLUSTER GETSLOTMIGRATIONS on the source node for \
                 more information.",
            );
        }
        if self.heard.elapsed() > self.patience() {
            return fail("Timed out after too long with no interaction");
        }
        let machine = self.cluster.machine();
        let view = machine.view();
        let source = view.find(self.job.source);
        if view.me().is_replica() {
            return fail("A failover occurred during slot import");
        }
        let is_owner = |slot| source.is_some() && view.owner(slot) == source;
        match self.job.slots.iter().all(is_owner) {
            true => Ok(()),
            false => fail("Slots are no longer owned by source node"),
        }
    }

    /// Reads what there is, and does what it says.
    fn hear(&mut self) -> Result<(), String> {
        self.look()?;
        self.serve_requests()?;
        if !self.todo.is_empty() {
            return Ok(());
        }
        match self.socket.read(&mut self.piece) {
            Ok(0) => {
                self.broken = true;
                self.look()?;
            }
            Ok(count) => {
                self.heard = Instant::now();
                self.job.heard.store(unix_seconds(), Relaxed);
                self.requests.add(&self.piece[..count]);
                self.unwritten += count;
                if self.unwritten > WRITE_AFTER && self.shared.append_only.log.is_open() {
                    self.unwritten = 0;
                    self.shared.append_only.log.demand();
                }
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.broken = true,
        }
        self.serve_requests()
    }

    fn serve_requests(&mut self) -> Result<(), String> {
        self.worker.refresh(self.shared);
        self.make_room()?;
        // It lends what is run from it.
        let mut requests = std::mem::take(&mut self.requests);
        let mut served = Ok(());
        while served.is_ok() && self.todo.is_empty() {
            match requests.next() {
                Ok(Some((args, _))) => served = self.serve_one(&args),
                Ok(None) => break,
                Err(_) => served = Err("What came is no request".to_owned()),
            }
        }
        self.requests = requests;
        served
    }

    /// A migration ends before anything else is refused for lack of memory.
    fn make_room(&mut self) -> Result<(), String> {
        let settings = &self.worker.settings;
        let is_full = settings.maxmemory > 0 && alloc::used() as u64 > settings.maxmemory;
        if is_full && !upkeep::evict(self.shared, settings, self.worker.now) {
            return Err("Ran out of memory (OOM) during slot import".to_owned());
        }
        Ok(())
    }

    fn serve_one(&mut self, args: &[&[u8]]) -> Result<(), String> {
        let is =
            |at: usize, word: &[u8]| args.get(at).is_some_and(|a| a.eq_ignore_ascii_case(word));
        if is(0, b"cluster") && is(1, b"syncslots") {
            match args.get(2).copied().unwrap_or_default() {
                b"ACK" => self.say(APPLIED),
                b"SNAPSHOT-EOF" => self.step(Event::SnapshotEnd),
                b"PAUSED" => self.step(Event::Paused),
                b"FAILOVER-GRANTED" => self.step(Event::Granted),
                _ => return Err("Unexpected state machine transition".to_owned()),
            }
            return Ok(());
        }
        if !self.machine.takes_keys() {
            return Err("Unexpected state machine transition".to_owned());
        }
        self.apply(args)
    }

    /// Runs a command of the source, or keeps it for EXEC.
    fn apply(&mut self, list: &[&[u8]]) -> Result<(), String> {
        let failed = || {
            let why =
                "Failed to process command during slot migration. Check logs for more information";
            Err(why.to_owned())
        };
        let (shared, args) = (self.shared, Args::new(list));
        self.hints.clear();
        let arg = |index: usize| list[index];
        let found = execute::prepare(shared, 0, list.len(), arg, &mut self.hints);
        let Ok(known) = admit::resolve(shared, found, args) else {
            return failed();
        };
        let is_frame = matches!(known.row.name, "multi" | "exec") || known.row.name == "select";
        let (mut keys, mut ours) = (0, true);
        keys::routed(known.row, args, |index| {
            keys += 1;
            ours &= self.job.slots.has(key_slot(list[index]));
        });
        let writes = known.flags.has(Flags::WRITE) && !known.flags.has(Flags::ADMIN);
        let is_change = keys > 0 && ours && writes;
        if !is_frame && !is_change {
            tracing::warn!(
                "A source of slots sends {}, which is not let in",
                known.full_name
            );
            return failed();
        }
        let (worker, session, out) = (&mut self.worker, &mut self.session, &mut self.out);
        if session.multi.is_some() && !known.flags.has(Flags::UNQUEUED) {
            transaction::queue(session, known, args);
            return Ok(());
        }
        let invocation = Invocation {
            known,
            args,
            hints: &self.hints,
        };
        execute::call(shared, worker, session, out, invocation, None);
        execute::to_end(shared, worker, session, out);
        out.clear();
        match worker.owner_failed.take() || session.db != 0 {
            true => {
                tracing::warn!("A command of a source of slots fails: {}", known.full_name);
                failed()
            }
            false => Ok(()),
        }
    }
}
