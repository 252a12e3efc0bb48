//! Snapshots for replicas: one for all that wait for the same.
//!
//! A replica's thread waits here until somebody has a snapshot for it. When one is due, the first
//! that finds that no other save is under way makes it, on a thread that gives way to clients, for
//! all that wait at this moment and want the same. It goes to their sockets as it is made
//! (`repl-diskless-sync`, for replicas that can tell its end), as fast as the slowest of them takes it,
//! or to a file first, which nobody else sees; while that is written others may still join. Each has
//! a reader of its own of the stream, from the cut on.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use super::peer::{Peer, Pipe};
use crate::base::{clock, priority, random};
use crate::config::{Settings, strerror};
use crate::dispatch::context::Shared;
use crate::keyspace::shards::LockSet;
use crate::persistence::snapshot;
use crate::propagation::{Place, Reader, State};

/// How often a replica looks whether its snapshot may begin.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes written to a file at once.
const PIECE: usize = 64 * 1024;

/// What a replica goes on with: the stream from the cut on, and the snapshot, unless it was sent.
pub(super) type Given = (Reader, Option<Arc<File>>);

/// What kind of snapshot it has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// To the socket.
    streams: bool,
    without_data: bool,
    without_functions: bool,
}

/// A replica that waits.
struct Ticket {
    peer: Arc<Peer>,
    kind: Kind,
    thread: Thread,
    outcome: Mutex<Option<io::Result<Given>>>,
}

impl Ticket {
    fn give(&self, outcome: io::Result<Given>) {
        *self.outcome.lock() = Some(outcome);
        self.thread.unpark();
    }
}

/// Who waits for snapshots, and for what.
#[derive(Default)]
pub struct FullSyncs(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// For a snapshot that begins.
    tickets: Vec<Arc<Ticket>>,
    /// A snapshot is on its way to sockets.
    streams: bool,
    /// The snapshot that is being written to a file.
    on_disk: Option<OnDisk>,
}

/// A snapshot that others may join.
struct OnDisk {
    kind: Kind,
    /// Where in the stream it is.
    offset: u64,
    joined: Vec<(Arc<Ticket>, Reader)>,
}

/// Waits until there is a snapshot for a replica, or makes it.
///
/// # Errors
/// Why the replica cannot have one; it is to be closed.
pub(super) fn obtain(
    shared: &Shared,
    full_syncs: &FullSyncs,
    peer: &Arc<Peer>,
) -> io::Result<Given> {
    let options = &peer.options;
    let diskless = shared.config.settings().repl_diskless_sync;
    let ticket = Arc::new(Ticket {
        peer: Arc::clone(peer),
        kind: Kind {
            streams: options.eof && (diskless || options.is_filtered()),
            without_data: options.without_data,
            without_functions: options.without_functions,
        },
        thread: thread::current(),
        outcome: Mutex::default(),
    });
    if let Some(offset) = enter(shared, full_syncs, &ticket) {
        peer.announce(shared, offset)?;
    }
    loop {
        if let Some(outcome) = ticket.outcome.lock().take() {
            return outcome;
        }
        if peer.is_closed() {
            let mut waiting = full_syncs.0.lock();
            waiting.tickets.retain(|t| !Arc::ptr_eq(t, &ticket));
            return Err(ErrorKind::ConnectionAborted.into());
        }
        match gather(shared, full_syncs, &ticket) {
            Some(tickets) => make(shared, full_syncs, &tickets),
            None => thread::park_timeout(LOOK),
        }
    }
}

/// Puts a replica in line; where in the stream the snapshot is that it joined, if it could.
fn enter(shared: &Shared, full_syncs: &FullSyncs, ticket: &Arc<Ticket>) -> Option<u64> {
    let mut waiting = full_syncs.0.lock();
    if let Some(snapshot) = &mut waiting.on_disk
        && snapshot.kind == ticket.kind
        && let Some(reader) = shared.stream.reader_at(snapshot.offset)
    {
        tracing::info!("Waiting for end of BGSAVE for SYNC");
        let replica = &ticket.peer.replica;
        replica.sent.store(snapshot.offset, Relaxed);
        replica.enter(State::WaitEnd);
        snapshot.joined.push((Arc::clone(ticket), reader));
        return Some(snapshot.offset);
    }
    let settings = shared.config.settings();
    if waiting.streams {
        tracing::info!("Current BGSAVE has socket target. Waiting for next BGSAVE for SYNC");
    } else if shared.durability.saves.running.load(Relaxed) {
        tracing::info!(
            "Can't attach the replica to the current BGSAVE. Waiting for next BGSAVE for SYNC"
        );
    } else if ticket.kind.streams && settings.repl_diskless_sync_delay > 0 {
        tracing::info!("Delay next BGSAVE for diskless SYNC");
    } else if shared.durability.saves.is_busy() {
        tracing::info!(
            "No BGSAVE in progress, but another BG operation is active. BGSAVE for replication \
             delayed"
        );
    }
    waiting.tickets.push(Arc::clone(ticket));
    None
}

impl Waiting {
    /// The time is over in which others may join `own`, or as many as there may be have come.
    ///
    /// Only who stands in line counts: who was heard of but has not come here yet would be left out of
    /// the snapshot that it made begin, and wait for others in vain.
    fn is_due(&self, own: &Ticket, settings: &Settings, now: i64) -> bool {
        let enough = settings.repl_diskless_sync_max_replicas;
        let alike = self.tickets.iter().filter(|t| t.kind == own.kind);
        let (count, longest) = alike.fold((0_i32, 0_i64), |(count, longest), ticket| {
            (count + 1, (now - ticket.peer.replica.since).max(longest))
        });
        !own.kind.streams
            || longest >= i64::from(settings.repl_diskless_sync_delay)
            || (enough > 0 && count >= enough)
    }
}

/// All that wait for the same as `own`, which is among them, if a snapshot for them may begin: no
/// other is under way, and for one that streams the time is over in which others may come. Then
/// the save in the background is theirs.
fn gather(shared: &Shared, full_syncs: &FullSyncs, own: &Arc<Ticket>) -> Option<Vec<Arc<Ticket>>> {
    let settings = shared.config.settings();
    let mut waiting = full_syncs.0.lock();
    let waits = waiting.tickets.iter().any(|t| Arc::ptr_eq(t, own));
    let begins = waits && waiting.is_due(own, &settings, now());
    let saves = &shared.durability.saves;
    if !begins || saves.running.swap(true, Relaxed) {
        return None;
    }
    saves.announce();
    let all = std::mem::take(&mut waiting.tickets);
    let (taken, others) = all.into_iter().partition(|t| t.kind == own.kind);
    waiting.tickets = others;
    waiting.streams = own.kind.streams;
    Some(taken)
}

fn now() -> i64 {
    clock::unix_ms() / 1000
}

/// Makes a snapshot for `tickets`, on a thread that gives way; each gets an outcome.
fn make(shared: &Shared, full_syncs: &FullSyncs, tickets: &[Arc<Ticket>]) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("bgsave".to_owned());
        let work = || {
            priority::give_way();
            make_here(shared, full_syncs, tickets, &over);
        };
        match thread.spawn_scoped(scope, work) {
            Ok(made) => {
                while !made.is_finished() {
                    cancel_if_useless(shared, full_syncs, tickets, &over);
                    thread::park_timeout(LOOK);
                }
            }
            Err(error) => {
                tracing::warn!("Can't save in background: {}", strerror(&error));
                shared.durability.saves.ended();
                fail(tickets, error.kind());
            }
        }
    });
}

/// Gives a snapshot up that all have left who wanted it. With save points one to a file goes on, as with
/// Redis, whose dump it would be. Once it is `over`, which it is under the lock, the next one may be under way.
fn cancel_if_useless(
    shared: &Shared,
    full_syncs: &FullSyncs,
    tickets: &[Arc<Ticket>],
    over: &AtomicBool,
) {
    let waiting = full_syncs.0.lock();
    if over.load(Relaxed) {
        return;
    }
    let joined = waiting.on_disk.iter().flat_map(|snapshot| &snapshot.joined);
    let mut all = tickets.iter().chain(joined.map(|(ticket, _)| ticket));
    if !all.all(|ticket| ticket.peer.is_closed()) {
        // It goes on; but of this server's replicas are those that left none any more.
        for ticket in tickets.iter().filter(|ticket| ticket.peer.is_closed()) {
            shared.replication.remove(ticket.peer.replica.client, now());
        }
    } else if waiting.streams || shared.config.load().save.is_empty() {
        shared.durability.saves.cancel();
    }
}

fn fail<'a>(tickets: impl IntoIterator<Item = &'a Arc<Ticket>>, kind: ErrorKind) {
    for ticket in tickets {
        ticket.give(Err(kind.into()));
    }
}

fn make_here(shared: &Shared, full_syncs: &FullSyncs, tickets: &[Arc<Ticket>], over: &AtomicBool) {
    let saves = &shared.durability.saves;
    let turn = saves.announced_turn();
    saves.started.store(now(), Relaxed);
    let streams = tickets.iter().any(|t| t.kind.streams);
    let (target, what) = match streams {
        true => ("replicas sockets", "transfer"),
        false => ("disk", "saving"),
    };
    tracing::info!("Starting BGSAVE for SYNC with target: {target}");
    for ticket in tickets {
        ticket.peer.replica.enter(State::WaitEnd);
    }
    let result = match streams {
        true => stream_to(shared, tickets),
        false => save_for(shared, full_syncs, tickets),
    };
    let cancelled = saves.is_cancelled();
    let joined = {
        let mut waiting = full_syncs.0.lock();
        over.store(true, Relaxed);
        waiting.streams = false;
        waiting.on_disk.take().map(|snapshot| snapshot.joined)
    };
    saves.ended();
    drop(turn);
    match result {
        Ok((file, given)) => {
            for (ticket, reader) in given.into_iter().chain(joined.into_iter().flatten()) {
                ticket.give(Ok((reader, file.clone())));
            }
        }
        Err(error) => {
            match cancelled {
                true => tracing::warn!("Background {what} terminated by signal 10"),
                false => tracing::warn!("Background {what} error: {}", strerror(&error)),
            }
            let joined: Vec<_> = joined.into_iter().flatten().map(|(t, _)| t).collect();
            fail(tickets.iter().chain(&joined), error.kind());
        }
    }
}

/// Who gets the snapshot that was made, each with a reader; and its file, if it is not sent yet.
type Made = (Option<Arc<File>>, Vec<(Arc<Ticket>, Reader)>);

/// Writes a snapshot for `tickets` to `to`; `begin` is told where in the stream it is, once it is
/// taken. A reader from there for each.
fn snapshot(
    shared: &Shared,
    tickets: &[Arc<Ticket>],
    to: &mut dyn Write,
    begin: impl FnOnce(u64) -> io::Result<()>,
) -> io::Result<Vec<Reader>> {
    if shared.keyspace.has_timed_hashes() {
        tracing::warn!(
            "The dump for replicas holds hashes whose fields expire: a replica of a version before \
             7.4 cannot read it and will not come into step"
        );
    }
    let settings = shared.config.load();
    let saves = &shared.durability.saves;
    let opened: RefCell<Vec<Reader>> = RefCell::default();
    let kind = tickets[0].kind;
    let at_cut = |_: &mut LockSet<'_>| {
        let mut readers = opened.borrow_mut();
        for ticket in tickets {
            let reader = shared.stream.reader();
            ticket.peer.replica.sent.store(reader.offset(), Relaxed);
            readers.push(reader);
        }
        let offset = readers.first().map_or(0, Reader::offset);
        let place = Place {
            id: shared.replication.id(),
            offset,
            selected: shared.stream.selected(),
        };
        let functions = match kind.without_functions {
            true => Vec::new(),
            false => shared.scripts.libraries.now().sources(),
        };
        shared.durability.head_at(Some(&place), &functions)
    };
    let mut begun = Ok(());
    let at = || opened.borrow().first().map_or(0, Reader::offset);
    let options = snapshot::Options::of(&settings);
    let written = if kind.without_data {
        let mut locks = shared.keyspace.lock_all();
        let head = at_cut(&mut locks);
        drop(locks);
        begun = begin(at());
        snapshot::write_head(options, to, &head)
    } else {
        let progress = &saves.progress;
        snapshot::write(&shared.keyspace, options, progress, to, at_cut, |cut| {
            saves.begun(cut);
            begun = begin(at());
            if begun.is_err() {
                cut.cancel();
            }
        })
    };
    begun.and(written)?;
    Ok(opened.into_inner())
}

/// The sockets of replicas, written to together; those that fail are left out from then on.
struct Sockets<'a> {
    shared: &'a Shared,
    /// With places in the list of tickets.
    alive: RefCell<Vec<(usize, &'a Peer)>>,
}

impl Sockets<'_> {
    fn each(&self, mut write: impl FnMut(&Peer) -> io::Result<()>) -> io::Result<()> {
        let mut alive = self.alive.borrow_mut();
        alive.retain(|(_, peer)| match write(peer) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    "Diskless rdb transfer, write error sending DB to replica: {}",
                    strerror(&error)
                );
                peer.close();
                false
            }
        });
        if alive.is_empty() {
            tracing::warn!("Diskless rdb transfer, last replica dropped, killing fork child.");
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl Write for &Sockets<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.each(|peer| Pipe(self.shared, peer).write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn stream_to(shared: &Shared, tickets: &[Arc<Ticket>]) -> io::Result<Made> {
    let mark = random::hex::<40>();
    let pid = std::process::id();
    tracing::info!("Background RDB transfer started by pid {pid}");
    let peers = tickets.iter().map(|t| &*t.peer).enumerate().collect();
    let sockets = Sockets {
        shared,
        alive: RefCell::new(peers),
    };
    let begin = |offset| {
        sockets.each(|peer| {
            peer.announce(shared, offset)?;
            peer.prepared();
            Pipe(shared, peer).write_all(&[b"$EOF:", &mark[..], b"\r\n"].concat())
        })
    };
    let readers = snapshot(shared, tickets, &mut &sockets, begin)?;
    sockets.each(|peer| {
        peer.replica.listen();
        let mut pipe = Pipe(shared, peer);
        pipe.write_all(&mark)?;
        pipe.flush()
    })?;
    let alive = sockets.alive.into_inner();
    tracing::warn!(
        "Diskless rdb transfer, done reading from pipe, {} replicas still up.",
        alive.len()
    );
    tracing::info!("Background RDB transfer terminated with success");
    let is_alive = |at: usize| alive.iter().any(|(place, _)| *place == at);
    let mut given = Vec::new();
    for (at, (ticket, reader)) in tickets.iter().zip(readers).enumerate() {
        match is_alive(at) {
            true => given.push((Arc::clone(ticket), reader)),
            false => fail([ticket], ErrorKind::ConnectionAborted),
        }
    }
    Ok((None, given))
}

fn save_for(shared: &Shared, full_syncs: &FullSyncs, tickets: &[Arc<Ticket>]) -> io::Result<Made> {
    let (pid, client) = (std::process::id(), tickets[0].peer.replica.client);
    tracing::info!("Background saving started by pid {pid}");
    let path = format!("temp-{pid}-replica-{client}.rdb");
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path)?;
    // It lives as long as it is open.
    std::fs::remove_file(&path)?;
    let mut file = BufWriter::with_capacity(PIECE, file);
    let begin = |offset| {
        full_syncs.0.lock().on_disk = Some(OnDisk {
            kind: tickets[0].kind,
            offset,
            joined: Vec::new(),
        });
        for ticket in tickets {
            if ticket.peer.announce(shared, offset).is_err() {
                // It finds out itself; the others go on.
                ticket.peer.close();
            }
        }
        Ok(())
    };
    let readers = snapshot(shared, tickets, &mut file, begin)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    tracing::info!("Background saving terminated with success");
    let tickets = tickets.iter().map(Arc::clone);
    Ok((Some(Arc::new(file)), tickets.zip(readers).collect()))
}
