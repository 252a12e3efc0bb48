//! Whose request this is: of this node, of another one that the client is sent to, or of nobody while
//! the cluster cannot serve it.
//!
//! The short way of a command asks [`is_here`], one bit of the slot that its key's hash begins with.
//! Whatever is not settled by that comes to [`admit()`], which knows all of Redis' rules, and so does what
//! EXEC is to run.
//!
//! A slot may change hands between this look and the locks, and while it migrates a key may go; so it is
//! asked again under the locks under which the command runs ([`refusal_under`]). Whoever changes a slot
//! and takes its shard then finds all that was done in it before; see [`crate::cluster::routes`].

use smallvec::SmallVec;

use super::admit;
use super::args::Args;
use super::blocking::Parked;
use super::command::Flags;
use super::context::{Shared, Worker};
use super::error::Error;
use super::execute::Invocation;
use super::keys;
use super::table::Known;
use crate::base::crc::key_slot;
use crate::client::session::{Multi, Session};
use crate::cluster::routes::{Node, Published, State};
use crate::config::Settings;
use crate::keyspace::db::Hint;
use crate::keyspace::shards::{GaveUp, Keyspace, LockSet};

/// The database of a cluster.
const DB: usize = 0;

/// True when a request is this node's without a further question: all its keys are in one slot, which is
/// served here and neither comes nor goes, and the client did not say ASKING. Of some commands, whose
/// keys are not those of the hints alone, that is not known here.
#[inline(always)]
pub fn is_here(shared: &Shared, session: &Session, known: &Known, hints: &[Hint]) -> bool {
    let slot = match hints {
        [one] if known.key != 0 => slot_of(one),
        _ => match common_slot(known, hints) {
            Ok(Some(slot)) => slot,
            Ok(None) => return !session.asking,
            Err(Unclear) => return false,
        },
    };
    !session.asking
        && (shared.routes.serves(slot)
            || (session.reads_replica
                && !known.flags.has(Flags::WRITE.or(Flags::SCRIPT))
                && shared.routes.may_read(slot)))
}

/// Whose keys are not in one slot, or not known.
struct Unclear;

/// The slot of all keys, if there are any.
fn common_slot(known: &Known, hints: &[Hint]) -> Result<Option<u16>, Unclear> {
    if !keys::is_plain(known.row) || known.row.find_keys.is_some() {
        return Err(Unclear);
    }
    let mut slots = hints.iter().map(slot_of);
    let Some(first) = slots.next() else {
        // A subcommand's keys are not among those that were looked at ahead.
        return match known.row.keys.0 {
            [] => Ok(None),
            _ => Err(Unclear),
        };
    };
    match slots.all(|slot| slot == first) {
        true => Ok(Some(first)),
        false => Err(Unclear),
    }
}

/// The slot of a key, with which its hash begins.
#[inline(always)]
fn slot_of(hint: &Hint) -> u16 {
    Keyspace::slot_of(hint.hash())
}

/// Refuses a request that is not this node's.
pub(super) fn admit(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    invocation: Invocation<'_>,
) -> Result<(), Error> {
    let Invocation { known, hints, .. } = invocation;
    let scene = Scene::new(shared, worker, None);
    let refusal = match &session.multi {
        Some(multi) if known.flags.has(Flags::EXEC) => scene.refusal_of_queue(session, multi),
        _ if known.flags.has(Flags::EXEC) || is_here(shared, session, known, hints) => None,
        _ => scene.refusal_of_one(session, invocation),
    };
    refusal.map_or(Ok(()), Err)
}

/// Why a request that was admitted is not this node's after all, now that its keys' shards are locked.
#[inline(always)]
pub(super) fn refusal_under(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    invocation: Invocation<'_>,
    locks: &LockSet<'_>,
) -> Option<Error> {
    let Invocation { known, hints, .. } = invocation;
    match is_here(shared, session, known, hints) {
        true => None,
        false => refusal_now(shared, worker, session, invocation, locks),
    }
}

#[cold]
fn refusal_now(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    invocation: Invocation<'_>,
    locks: &LockSet<'_>,
) -> Option<Error> {
    Scene::new(shared, worker, Some(locks)).refusal_of_one(session, invocation)
}

/// As [`refusal_under`], for all that EXEC is to run.
pub(super) fn refusal_of_transaction(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    multi: &Multi,
    locks: &LockSet<'_>,
) -> Option<Error> {
    Scene::new(shared, worker, Some(locks)).refusal_of_queue(session, multi)
}

type KeyList<'a> = SmallVec<[&'a [u8]; 8]>;

/// What requests are held against.
#[derive(Clone, Copy)]
struct Scene<'a, 'k> {
    shared: &'a Shared,
    settings: &'a Settings,
    now_ms: i64,
    /// The locks under which the request is about to run; without any, those of its keys are taken for
    /// the look.
    held: Option<&'a LockSet<'k>>,
}

impl<'a, 'k> Scene<'a, 'k> {
    fn new(shared: &'a Shared, worker: &'a Worker, held: Option<&'a LockSet<'k>>) -> Self {
        Self {
            shared,
            settings: &worker.settings,
            now_ms: worker.env.now_ms,
            held,
        }
    }

    fn refusal_of_one(self, session: &Session, invocation: Invocation<'_>) -> Option<Error> {
        let Invocation { known, args, hints } = invocation;
        let mut keys = KeyList::new();
        keys::routed(known.row, args, |index| keys.push(args.all()[index]));
        let slot = match hints {
            [one] if known.key != 0 => slot_of(one),
            _ => key_slot(keys.first()?),
        };
        self.refusal(Request {
            keys: &keys,
            slot,
            writes: admit::flags_of(self.shared, known, args).has(Flags::WRITE),
            asking: session.asking || known.flags.has(Flags::ASKING),
            reads_replica: session.reads_replica,
            is_shard_channel: keys::is_of_channels(known.row),
            moves_keys: known.flags.has(Flags::MOVES_KEYS),
            tls: session.is_tls(),
        })
    }

    /// Of EXEC. It writes if anything that it runs does; nothing else of what it runs counts but the keys,
    /// as which also shard channels are taken.
    fn refusal_of_queue(self, session: &Session, multi: &Multi) -> Option<Error> {
        let (mut keys, mut writes) = (KeyList::new(), false);
        for queued in &multi.queue {
            let known = self.shared.commands.get(queued.command);
            let list: SmallVec<[&[u8]; 8]> = queued.args.iter().map(|a| &a[..]).collect();
            let args = Args::new(&list);
            writes |= admit::flags_of(self.shared, known, args).has(Flags::WRITE);
            keys::routed(known.row, args, |index| {
                keys.push(&queued.args[index]);
            });
        }
        self.refusal(Request {
            slot: key_slot(keys.first()?),
            keys: &keys,
            writes,
            asking: session.asking,
            reads_replica: session.reads_replica,
            is_shard_channel: false,
            moves_keys: false,
            tls: session.is_tls(),
        })
    }

    /// Why a request is not to run here, by what is published now and, in a slot that comes or goes, by
    /// which keys are here.
    fn refusal(self, request: Request<'_>) -> Option<Error> {
        self.shared.routes.with(|view| {
            let answer = request.decide(self, view);
            answer.err().map(|refusal| {
                refusal.error(
                    self.shared,
                    view,
                    self.settings,
                    (request.slot, request.tls),
                )
            })
        })
    }

    /// Which of the keys are here. Those whose shard is not among the locks are not touched by what runs
    /// under these (Redis takes more for keys than a command does), and so do not count. A script that runs
    /// for long is not waited for: it may be this very thread's.
    fn presence(self, keys: &[&[u8]]) -> Result<Presence, GaveUp> {
        let keyspace = &self.shared.keyspace;
        let Some(locks) = self.held else {
            let hashes = keys.iter().map(|key| keyspace.hash(key));
            let locks = keyspace.lock_many_in_time(hashes)?;
            let held = Some(&locks);
            return Scene { held, ..self }.presence(keys);
        };
        let mut presence = Presence::default();
        let touched = |key: &&&[u8]| locks.holds(Keyspace::shard_of(keyspace.hash(key)));
        for key in keys.iter().filter(touched) {
            match keyspace.kind_of(locks, DB, key, self.now_ms) {
                Some(_) => presence.found = true,
                None => presence.missed = true,
            }
        }
        Ok(presence)
    }
}

/// Why a client does not wait any longer for the keys of its command: the cluster does not serve their
/// slot, or another node does.
pub(super) fn refusal_of_wait(shared: &Shared, parked: &Parked) -> Option<Error> {
    if !shared.routes.is_enabled() {
        return None;
    }
    // All are in one slot.
    let slot = key_slot(parked.keys().first()?);
    let settings = shared.config.settings();
    shared.routes.with(|view| {
        let is_importing = view.slot(slot).importing_from.is_some();
        let refusal = match view.slot(slot).owner {
            // Also where reads are served: what ends the wait is a write.
            _ if view.state != State::Ok => Refusal::Down,
            _ if is_importing || view.is_mine(slot) => return None,
            Some(_) if parked.reads_replica() && view.is_of_my_primary(slot) => return None,
            Some(owner) => Refusal::Moved(owner),
            None => Refusal::Unbound,
        };
        Some(refusal.error(shared, view, &settings, (slot, parked.is_tls())))
    })
}

/// Why a client whose key became ready cannot have it: its command touches another key, too, and that is
/// with the slot's next owner already, or would have to be.
pub(super) fn refusal_of_woken(
    shared: &Shared,
    worker: &Worker,
    parked: &Parked,
    locks: &LockSet<'_>,
) -> Option<Error> {
    let (other, slot) = match parked.other_key() {
        Some(other) if shared.routes.is_enabled() => (other, key_slot(other)),
        _ => return None,
    };
    let goes = |view: &Published| view.is_mine(slot) && view.slot(slot).migrating_to.is_some();
    if shared.routes.serves(slot) || !shared.routes.with(goes) {
        return None;
    }
    let scene = Scene::new(shared, worker, Some(locks));
    let missed = scene
        .presence(&[other])
        .is_ok_and(|presence| presence.missed);
    missed.then(|| {
        shared
            .routes
            .with(|view| Refusal::TryAgain.error(shared, view, scene.settings, (slot, false)))
    })
}

/// Has the clients redirected that wait for keys of slots which are not served here any longer. Called
/// when slots left or the cluster went down, by any thread that holds no shard; and now and then.
pub fn recheck_blocked(shared: &Shared) {
    if shared.routes.is_enabled() && !shared.blocked.is_empty() {
        shared
            .blocked
            .ring_where(|parked| refusal_of_wait(shared, parked).is_some());
    }
}

/// True while this node serves a shard channel.
pub fn serves_channel(shared: &Shared, worker: &Worker, channel: &[u8]) -> bool {
    let request = Request {
        keys: &[channel],
        slot: key_slot(channel),
        writes: false,
        asking: false,
        reads_replica: false,
        is_shard_channel: true,
        moves_keys: false,
        tls: false,
    };
    let scene = Scene::new(shared, worker, None);
    scene.refusal(request).is_none()
}

/// What decides about a request.
struct Request<'a> {
    /// All its keys, or shard channels; at least one.
    keys: &'a [&'a [u8]],
    /// The slot of the first.
    slot: u16,
    writes: bool,
    /// It is for a slot that this node takes over.
    asking: bool,
    /// READONLY.
    reads_replica: bool,
    /// Its keys are shard channels.
    is_shard_channel: bool,
    /// MIGRATE.
    moves_keys: bool,
    /// Its client is connected over TLS.
    tls: bool,
}

/// Whether any of a request's keys is here, and whether any is not.
#[derive(Clone, Copy, Default)]
struct Presence {
    found: bool,
    missed: bool,
}

impl Request<'_> {
    fn decide(&self, scene: Scene<'_, '_>, view: &Published) -> Result<(), Refusal> {
        let slot = view.slot(self.slot);
        let owner = slot.owner.ok_or(Refusal::Unbound)?;
        let is_mine = view.myself == Some(owner);
        let migrating_to = slot.migrating_to.filter(|_| is_mine);
        let is_importing = migrating_to.is_none() && slot.importing_from.is_some();
        let is_other = |key: &&&[u8]| ***key != *self.keys[0];
        let mut others = self.keys.iter().filter(is_other).peekable();
        let several = others.peek().is_some();
        if others.any(|key| key_slot(key) != self.slot) {
            return Err(Refusal::CrossSlot);
        }
        if view.state != State::Ok {
            self.decide_while_down(scene.settings)?;
        }
        let is_open = migrating_to.is_some() || is_importing;
        if is_open && self.moves_keys {
            return Ok(());
        }
        let presence = match is_open && !self.is_shard_channel {
            true => scene.presence(self.keys).map_err(Refusal::GaveUp)?,
            false => Presence::default(),
        };
        if let Some(to) = migrating_to
            && presence.missed
        {
            return Err(match presence.found {
                true => Refusal::TryAgain,
                false => Refusal::Ask(to),
            });
        }
        if is_importing && self.asking {
            return match several && presence.missed {
                true => Err(Refusal::TryAgain),
                false => Ok(()),
            };
        }
        let reads_here = (self.reads_replica || self.is_shard_channel)
            && !self.writes
            && view.primary == Some(owner);
        match is_mine || reads_here {
            true => Ok(()),
            false => Err(Refusal::Moved(owner)),
        }
    }

    fn decide_while_down(&self, settings: &Settings) -> Result<(), Refusal> {
        if self.is_shard_channel {
            return match settings.cluster_allow_pubsubshard_when_down {
                true => Ok(()),
                false => Err(Refusal::Down),
            };
        }
        match (settings.cluster_allow_reads_when_down, self.writes) {
            (false, _) => Err(Refusal::Down),
            (true, true) => Err(Refusal::DownForWrites),
            (true, false) => Ok(()),
        }
    }
}

/// Why a request does not run here.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// Its keys are in several slots.
    CrossSlot,
    /// Whether its keys are here is not known while a script that runs for long holds them.
    GaveUp(GaveUp),
    /// Some of its keys are here and some are not, while their slot moves.
    TryAgain,
    /// The cluster does not serve it.
    Down,
    /// The cluster serves reads only.
    DownForWrites,
    /// Nobody serves the slot.
    Unbound,
    /// The slot is another node's.
    Moved(Node),
    /// The keys may be at another node already.
    Ask(Node),
}

impl Refusal {
    /// What a client is told, who speaks TLS or not, of a slot.
    fn error(
        self,
        shared: &Shared,
        view: &Published,
        settings: &Settings,
        (slot, tls): (u16, bool),
    ) -> Error {
        let (word, node) = match self {
            Self::CrossSlot => {
                return Error::elsewhere("CROSSSLOT Keys in request don't hash to the same slot");
            }
            Self::TryAgain => {
                return Error::elsewhere("TRYAGAIN Multiple keys request during rehashing of slot");
            }
            Self::GaveUp(why) => return admit::gave_up(shared, why),
            Self::Down => return Error::elsewhere("CLUSTERDOWN The cluster is down"),
            Self::DownForWrites => {
                return Error::elsewhere(
                    "CLUSTERDOWN The cluster is down and only accepts read commands",
                );
            }
            Self::Unbound => return Error::elsewhere("CLUSTERDOWN Hash slot not served"),
            Self::Moved(node) => ("MOVED", node),
            Self::Ask(node) => ("ASK", node),
        };
        // A node that is not told of can serve nobody.
        let Some(endpoint) = view.endpoint(node) else {
            return Self::Unbound.error(shared, view, settings, (slot, tls));
        };
        let host = endpoint.preferred(settings.cluster_preferred_endpoint_type);
        let mut line = String::with_capacity(word.len() + host.len() + 16);
        let mut digits = itoa::Buffer::new();
        for part in [word, " ", digits.format(slot), " ", host, ":"] {
            line.push_str(part);
        }
        line.push_str(itoa::Buffer::new().format(endpoint.port_for(tls || !settings.tls_cluster)));
        Error::Elsewhere(line.into())
    }
}
