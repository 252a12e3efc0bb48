//! Commands of scripts: they take the way of all commands, under locks that the script holds.
//!
//! A script holds the shards of the keys that it declares, from its start to its end, as a transaction does; what
//! its commands do is propagated as one block. When it reaches for a key that it did not declare, it takes
//! that shard as well if it can be had at once. If not, what it wrote is taken back ([`super::undo`]) and it starts
//! over with all shards; unless it has done what cannot be taken back (a message was published), then it waits for
//! the shard (`keyspace::shards::stretch`). Either way it is remembered, and holds all shards from its next start
//! on.
//!
//! Within EXEC a script uses the transaction's locks, which are all.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use super::acl;
use super::admit;
use super::args::Args;
use super::command::Flags;
use super::context::{Shared, Worker};
use super::error::Error;
use super::execute::{self, Invocation};
use super::keys;
use super::locked;
use super::meanwhile::MEANWHILE;
use super::propagate;
use super::route;
use super::source::Source;
use super::table::Known;
use super::undo::Undo;
use crate::acl::log::Context;
use crate::client::session::Session;
use crate::keyspace::db::Hint;
use crate::keyspace::shards::{Keyspace, LockSet, Stretch};
use crate::propagation::Audience;
use crate::resp::write::{Output, Protocol};
use crate::scripts::OverdueScript;

/// Which shards a script begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of its keys.
    Declared,
    /// All.
    All,
}

/// What is said of a script before it runs.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// It must not write.
    pub read_only: bool,
    /// Its commands are not refused when memory is short.
    pub allow_oom: bool,
    /// In a cluster, its keys may be in several slots.
    pub many_slots: bool,
    /// Not a function.
    pub is_eval: bool,
    /// The digest of a script, the name of a function.
    pub name: &'a [u8],
}

/// The locks of a script.
enum Locks<'a, 'k> {
    Own(LockSet<'k>),
    /// Those of the transaction that it is part of.
    Lent(&'a mut LockSet<'k>),
}

impl<'k> Locks<'_, 'k> {
    fn set(&mut self) -> &mut LockSet<'k> {
        match self {
            Self::Own(locks) => locks,
            Self::Lent(locks) => locks,
        }
    }
}

/// A running script's side of the server.
pub struct Scripted<'a, 'k> {
    shared: &'k Shared,
    worker: &'a mut Worker,
    session: Session,
    out: Output,
    /// Let go before the locks.
    stretch: Option<Stretch<'k>>,
    locks: Locks<'a, 'k>,
    rules: Rules<'a>,
    request: Args<'a>,
    /// It has called a command that may write.
    wrote: bool,
    /// It has done something that cannot be taken back.
    acted: bool,
    /// What it wrote, where that may have to be taken back.
    undo: Option<Undo>,
    /// It has reached for what it did not declare.
    reached: bool,
    /// It is to start over with all shards.
    starts_over: bool,
    /// The slot of its keys, in a cluster.
    slot: Option<u64>,
    /// `redis.set_repl`
    audience: u8,
    began: Instant,
    overdue: Option<Arc<OverdueScript>>,
}

/// How a script ended.
pub struct Ended {
    /// It has to be run again, with all shards.
    pub starts_over: bool,
    /// It has reached for keys that it did not declare.
    pub reached: bool,
}

impl<'a, 'k> Scripted<'a, 'k> {
    /// Locks what a script begins with: `keys` are those that it declares. The caller is the client that runs
    /// it by a request, maybe in a transaction that holds shards.
    pub fn begin(
        shared: &'k Shared,
        worker: &'a mut Worker,
        (caller, request, held): (&Session, Args<'a>, Option<&'a mut LockSet<'k>>),
        rules: Rules<'a>,
        keys: &[&[u8]],
        reach: Reach,
    ) -> Result<Self, Error> {
        let user = caller.identity.user().cloned();
        let mut session = Session::new(Arc::clone(&caller.handle), user);
        session.identity.authenticated = true;
        session.asking = caller.asking;
        session.reads_replica = caller.reads_replica;
        // What the script reads, its client has a copy of.
        session.tracking = caller.tracking.clone();
        session.db = caller.db;
        session.is_script = true;
        session.no_touch = caller.no_touch;
        let locks = match held {
            Some(held) => Locks::Lent(held),
            None => Locks::Own(lock(shared, worker.source, keys, reach)?),
        };
        let may_undo = match &locks {
            Locks::Own(locks) => !locks.holds_all() || worker.settings.script_kill_rollback,
            Locks::Lent(_) => false,
        };
        if may_undo {
            worker.effects.hold_back();
        }
        Ok(Self {
            shared,
            worker,
            session,
            out: Output::new(),
            stretch: None,
            locks,
            rules,
            request,
            wrote: false,
            acted: false,
            undo: may_undo.then(Undo::default),
            reached: false,
            starts_over: false,
            slot: keys.first().map(|key| shared.keyspace.hash(key) >> 50),
            audience: 3,
            began: Instant::now(),
            overdue: None,
        })
    }

    /// Ends the script: its effects go to the stream, its locks are let go, clients that wait for what it made
    /// are served.
    pub fn end(mut self) -> Ended {
        if let Some(overdue) = &self.overdue {
            self.shared.scripts.overdue.remove(overdue);
            self.shared.keyspace.end_overdue();
        }
        let ended = Ended {
            starts_over: self.starts_over && !self.is_killed(),
            reached: self.reached,
        };
        drop(self.stretch.take());
        let takes_back = self.starts_over || (self.is_killed() && self.is_killable());
        if let Some(undo) = self.undo.take().filter(|_| takes_back) {
            undo.run(self.shared, self.worker, self.locks.set());
            self.worker.effects.forget_held();
        }
        let outbox = &self.shared.keyspace.outbox;
        self.worker.effects.release_held(outbox);
        if let Locks::Own(locks) = self.locks {
            let worker = self.worker;
            if worker.source == Source::Primary {
                if !ended.starts_over {
                    propagate::pass_on(self.shared, worker, self.session.db, self.request);
                }
            } else if !worker.pending.is_empty() {
                let pending = std::mem::take(&mut worker.pending);
                worker.appended = propagate::append(self.shared, &pending);
            }
            if worker.effects.is_any_ready() {
                worker.catch_up();
            }
            locked::conclude(self.shared, worker, locks);
        }
        ended
    }

    /// The protocol in which the script sees replies.
    pub fn protocol(&self) -> Protocol {
        self.out.protocol()
    }

    /// Changes the protocol in which the script sees replies.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.out.set_protocol(protocol);
    }

    /// Says who hears of what its commands do: bit 0 the append-only file, bit 1 replicas.
    pub fn set_audience(&mut self, audience: u8) {
        self.audience = audience;
    }

    /// True for a command that the script's user may call; `None` for one that there is not.
    pub fn may_call(&mut self, args: &[&[u8]]) -> Option<bool> {
        let args = Args::new(args);
        let shared = self.shared;
        let known = admit::named(shared, shared.commands.find(&args[0]), args)?;
        let checked = acl::check(self.worker, &mut self.session, known, args);
        self.worker.env.reads_any_key = true;
        Some(checked.is_ok())
    }

    /// Runs a command and shows its reply.
    pub fn call(&mut self, args: &[&[u8]], show: &mut dyn FnMut(&[u8])) -> Result<(), Vec<u8>> {
        let args = Args::new(args);
        let shared = self.shared;
        let known = admit::named(shared, shared.commands.find(&args[0]), args);
        if let Err(text) = self.admit(known, args) {
            self.refused(known, &text);
            return Err(text);
        }
        let Some(known) = known else {
            return Ok(());
        };
        if self.starts_over {
            return Err(b"ERR the script starts over".to_vec());
        }
        let before = self.worker.pending.len();
        if let Some(undo) = &mut self.undo {
            let command = (known, self.session.db, args);
            undo.keep(shared, self.worker, self.locks.set(), command);
        }
        execute::call(
            shared,
            self.worker,
            &mut self.session,
            &mut self.out,
            Invocation::new(known, args),
            Some(self.locks.set()),
        );
        self.worker.env.reads_any_key = true;
        if self.audience != 3 {
            self.narrow(before);
        }
        if let Some(undo) = &mut self.undo
            && known.flags.has(Flags::WRITE)
        {
            undo.note(before..self.worker.pending.len());
        }
        let mut pieces = [std::io::IoSlice::new(&[]); 2];
        match self.out.io_slices(&mut pieces) {
            0 => show(b""),
            1 => show(&pieces[0]),
            _ => show(&self.out.to_vec()),
        }
        let protocol = self.out.protocol();
        self.out.clear();
        self.out.set_protocol(protocol);
        Ok(())
    }

    /// Every refusal of a command of a script, in Redis' order; then its shards.
    fn admit(&mut self, known: Option<&Known>, args: Args<'_>) -> Result<(), Vec<u8>> {
        let err = |text: &str| Err([b"ERR ", text.as_bytes()].concat());
        let Some(known) = known else {
            return err("Unknown Redis command called from script");
        };
        let (arity, len) = (known.row.arity, args.len() as i32);
        if (arity > 0 && len != arity) || len < -arity {
            return err("Wrong number of args calling Redis command from script");
        }
        let flags = known.flags;
        if flags.has(Flags::NOSCRIPT) && !self.shared.scripts.denies_nothing.load(Relaxed) {
            return err("This Redis command is not allowed from script");
        }
        let upstream = &self.shared.replication.upstream;
        let settings = &self.worker.settings;
        let is_stale =
            upstream.follows() && !upstream.is_up() && !settings.replica_serve_stale_data;
        if is_stale && !flags.has(Flags::STALE) {
            return err("Can not execute the command on a stale replica");
        }
        let is_obeyed = self.worker.source.is_obeyed();
        if !is_obeyed && let Err(text) = self.admit_user(known, args) {
            return Err(text);
        }
        if self.rules.read_only && flags.has(Flags::WRITE.or(Flags::MAY_REPLICATE)) {
            return err("Write commands are not allowed from read-only scripts.");
        }
        if flags.has(Flags::WRITE) && !self.wrote {
            self.admit_write(known)?;
        }
        let is_short = settings_short(self.worker) && !is_obeyed && !self.wrote;
        if is_short && !self.rules.allow_oom && flags.has(Flags::DENYOOM) {
            return Err(Error::OutOfMemory.text().into_owned());
        }
        if self.worker.in_cluster && !is_obeyed {
            self.admit_slot(known, args)?;
        }
        if !self.hold(known, args) {
            if !self.may_start_over() {
                return err(
                    "The script reached for a key that it did not declare and that another \
                            script holds",
                );
            }
            self.starts_over = true;
            return Ok(());
        }
        let before = (self.wrote, self.acted);
        self.wrote |= flags.has(Flags::WRITE);
        // What is not a write of keys is told at once.
        self.acted |= flags.has(Flags::MAY_REPLICATE.or(Flags::PUBSUB));
        if let Some(overdue) = &self.overdue
            && !self.is_killable()
            && !self.shared.scripts.overdue.goes_on(overdue)
        {
            (self.wrote, self.acted) = before;
            return err("Script killed by user with SCRIPT KILL...");
        }
        Ok(())
    }

    /// What the script's user may not do.
    fn admit_user(&mut self, known: &Known, args: Args<'_>) -> Result<(), Vec<u8>> {
        let (worker, session) = (&mut *self.worker, &mut self.session);
        acl::check(worker, session, known, args).map_err(|denial| {
            let context = Context::Lua;
            acl::note(self.shared, worker, session, denial, context, (known, args));
            let reason = denial.for_script();
            format!("ERR The user executing the script {reason}").into_bytes()
        })
    }

    /// What the cluster has against a command: its keys are another node's, or in another slot than those
    /// before them.
    fn admit_slot(&mut self, known: &Known, args: Args<'_>) -> Result<(), Vec<u8>> {
        let keyspace = &self.shared.keyspace;
        let mut hints = Vec::new();
        keys::each(known.row, args, |index, _| {
            hints.push(Hint::new(keyspace, self.session.db, &args[index]));
        });
        let invocation = Invocation {
            known,
            args,
            hints: &hints,
        };
        if let Err(error) = route::admit(self.shared, self.worker, &self.session, invocation) {
            let is_down = error.text().starts_with(b"CLUSTERDOWN");
            return Err(match is_down {
                true => {
                    b"ERR Script attempted to execute a command while the cluster is down".to_vec()
                }
                false => {
                    b"ERR Script attempted to access a non local key in a cluster node".to_vec()
                }
            });
        }
        let Some(slot) = hints.first().map(|hint| hint.hash() >> 50) else {
            return Ok(());
        };
        if !self.rules.many_slots && *self.slot.get_or_insert(slot) != slot {
            return Err(
                b"ERR Script attempted to access keys that do not hash to the same slot".to_vec(),
            );
        }
        Ok(())
    }

    /// What stands against a script's first write.
    fn admit_write(&self, known: &Known) -> Result<(), Vec<u8>> {
        if self.worker.source.is_obeyed() {
            return Ok(());
        }
        admit::first_write(self.shared, self.worker, &self.session, known)
            .map_err(|error| error.text().into_owned())
    }

    fn refused(&self, known: Option<&Known>, text: &[u8]) {
        if let Some(known) = known {
            let rejected = &self.worker.stats.commands[known.id].rejected;
            rejected.store(rejected.load(Relaxed) + 1, Relaxed);
        }
        self.shared.stats.count_error(text);
    }

    /// Holds the shards that a command needs; false when the script has to start over for them.
    fn hold(&mut self, known: &Known, args: Args<'_>) -> bool {
        if self.locks.set().holds_all() {
            return true;
        }
        if known.row.scope.is_all(args) {
            return self.hold_all();
        }
        let keyspace: &'k Keyspace = &self.shared.keyspace;
        let mut wanted = smallvec::SmallVec::<[usize; 8]>::new();
        keys::each(known.row, args, |index, _| {
            wanted.push(Keyspace::shard_of(keyspace.hash(&args[index])));
        });
        for shard in wanted {
            if !self.hold_one(keyspace, shard) {
                return false;
            }
        }
        true
    }

    fn hold_one(&mut self, keyspace: &'k Keyspace, shard: usize) -> bool {
        let locks = self.locks.set();
        if locks.holds(shard) {
            return true;
        }
        self.reached = true;
        if locks.try_add(keyspace, shard) {
            return true;
        }
        !self.may_start_over() && self.stretch_to(keyspace, shard..shard + 1)
    }

    fn hold_all(&mut self) -> bool {
        self.reached = true;
        let keyspace = &self.shared.keyspace;
        !self.may_start_over() && self.stretch_to(keyspace, 0..crate::keyspace::shards::SHARDS)
    }

    /// All that it did can be taken back.
    fn may_start_over(&self) -> bool {
        let undo = self.undo.as_ref();
        !self.acted && (!self.wrote || undo.is_some_and(Undo::is_whole))
    }

    /// It may be ended from outside: it wrote nothing, or that is to be taken back, and can be.
    fn is_killable(&self) -> bool {
        !self.wrote || (self.worker.settings.script_kill_rollback && self.may_start_over())
    }

    /// Waits for shards while holding others. One script may do so at a time; false for another, which
    /// might hold what that one waits for.
    fn stretch_to(&mut self, keyspace: &'k Keyspace, shards: std::ops::Range<usize>) -> bool {
        if self.stretch.is_none() {
            self.stretch = keyspace.stretch();
        }
        let Some(stretch) = &self.stretch else {
            return false;
        };
        for shard in shards {
            self.locks.set().add_stretching(keyspace, shard, stretch);
        }
        true
    }

    /// Has what the last command did heard by those only that the script said.
    fn narrow(&mut self, from: usize) {
        let audience = match self.audience {
            0 => return self.worker.pending.truncate(from),
            1 => Audience::Files,
            _ => Audience::Replicas,
        };
        for command in &mut self.worker.pending[from..] {
            command.audience = audience;
        }
    }

    /// Called every so many instructions. True when the script is to end.
    pub fn look(&mut self) -> bool {
        if self.ends() {
            return true;
        }
        if self.overdue.is_none() && !self.becomes_overdue() {
            return false;
        }
        if MEANWHILE.is_set() {
            crate::keyspace::aside(|| MEANWHILE.with(|meanwhile| meanwhile.serve()));
        }
        self.ends()
    }

    fn becomes_overdue(&mut self) -> bool {
        let threshold = self.worker.settings.busy_reply_threshold;
        let elapsed = self.began.elapsed().as_millis();
        if threshold <= 0 || elapsed < threshold as u128 {
            return false;
        }
        let (kill, name) = (
            if self.rules.is_eval {
                "SCRIPT KILL"
            } else {
                "FUNCTION KILL"
            },
            String::from_utf8_lossy(self.rules.name),
        );
        tracing::warn!(
            "Slow script detected: still in execution after {elapsed} milliseconds. You can try killing \
             the script using the {kill} command. Script name is: {name}."
        );
        let overdue = Arc::new(OverdueScript {
            name: self.rules.name.to_vec(),
            is_eval: self.rules.is_eval,
            request: self.request.all().iter().map(|a| a.to_vec()).collect(),
            began: self.began,
            is_obeyed: self.worker.source.is_obeyed(),
            wrote: (!self.is_killable()).into(),
            killed: false.into(),
        });
        self.shared.scripts.overdue.add(&overdue);
        self.shared.keyspace.begin_overdue();
        self.overdue = Some(overdue);
        true
    }

    /// The script is to end, whatever it does.
    pub fn ends(&self) -> bool {
        self.starts_over || self.is_killed()
    }

    /// It was killed, perhaps when it was about to start over.
    pub fn is_killed(&self) -> bool {
        let killed = |overdue: &Arc<OverdueScript>| overdue.killed.load(SeqCst);
        self.overdue.as_ref().is_some_and(killed)
    }
}

fn settings_short(worker: &Worker) -> bool {
    worker.settings.maxmemory > 0 && worker.out_of_memory
}

fn lock<'k>(
    shared: &'k Shared,
    source: Source,
    keys: &[&[u8]],
    reach: Reach,
) -> Result<LockSet<'k>, Error> {
    let keyspace = &shared.keyspace;
    let hashes = keys.iter().map(|key| keyspace.hash(key));
    let locks = match (reach, source.is_obeyed()) {
        (Reach::All, true) => Ok(keyspace.lock_all()),
        (Reach::All, false) => keyspace.lock_all_in_time(),
        (Reach::Declared, true) => Ok(keyspace.lock_many(hashes)),
        (Reach::Declared, false) => keyspace.lock_many_in_time(hashes),
    };
    locks.map_err(|why| admit::gave_up(shared, why))
}
