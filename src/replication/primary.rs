//! Serving replicas: each one by two threads of its own, which have its socket from its worker.
//!
//! One thread writes: what the replica needs to begin (a snapshot from a cut, or nothing when it
//! can go on where it was), then the stream from there. The other reads confirmations and looks
//! every now and then whether the replica is to be closed: killed, silent, or too far behind. What
//! a slow replica has not been sent waits in the stream, which is bounded by
//! `client-output-buffer-limit`; no worker ever waits for a replica.
//!
//! Snapshots, and which replicas share one: [`super::full_sync`].

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::full_sync::{self, FullSyncs};
use super::peer::{Peer, Pipe};
use crate::base::{clock, number};
use crate::client::registry::{Handle, flag};
use crate::client::session::{ReplicaOptions, Session, SyncRequest};
use crate::config::strerror;
use crate::dispatch::args::Args;
use crate::dispatch::command::Flags;
use crate::dispatch::context::Shared;
use crate::dispatch::pause::Purpose;
use crate::dispatch::{admit, blocking, execute};
use crate::propagation::{Lineage, Reader, Refusal, Replica, Resumed, State};
use crate::resp::parse::{self, Limits, Parser};
use crate::wire::{Duplex, Stream};

/// How often a thread that waits looks up, at least.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Bytes read from a socket or file at once.
const PIECE: usize = 64 * 1024;
/// Most bytes of an incomplete request: confirmations are short.
const LONGEST_REQUEST: usize = 1 << 20;

/// A replica on its way from its worker to its threads.
struct Attachment {
    stream: Stream,
    /// Replies that its worker has not written.
    unsent: Vec<u8>,
    /// What it sent behind its request.
    input: Vec<u8>,
    handle: Arc<Handle>,
    replica: Arc<Replica>,
    options: Box<ReplicaOptions>,
    request: SyncRequest,
}

fn now() -> i64 {
    clock::unix_ms() / 1000
}

/// Makes a replica of a connection that asked for it and that its worker has let go.
pub fn hand_over(
    shared: &Shared,
    full_syncs: &Arc<FullSyncs>,
    mut session: Session,
    stream: Stream,
    unsent: Vec<u8>,
    input: Vec<u8>,
) {
    let Some(request) = session.sync.take() else {
        return;
    };
    execute::disconnect(shared, &mut session);
    let options = session.replica.take().unwrap_or_default();
    let handle = Arc::clone(&session.handle);
    let replica = Arc::new(replica_of(&handle, &options));
    tracing::info!("Replica {} asks for synchronization", replica.name());
    let settings = shared.config.load();
    if settings.repl_disable_tcp_nodelay {
        // A matter of taste; the sockets of other families have no such option.
        let _ = rustix::net::sockopt::set_tcp_nodelay(stream.fd(), false);
    }
    handle.live.flags.fetch_or(flag::REPLICA, Relaxed);
    if request.order().is_none() {
        welcome(shared, &replica);
    }
    let client = handle.id;
    let attachment = Attachment {
        stream,
        unsent,
        input,
        handle,
        replica,
        options,
        request,
    };
    let full_syncs = Arc::clone(full_syncs);
    let serve = move |shared: &Arc<Shared>| run(shared, &full_syncs, attachment);
    if let Err(error) = shared.threads.start("replica", serve) {
        tracing::warn!("Cannot serve a replica: {}", strerror(&error));
        forget(shared, client);
    }
}

/// The replica that a client is, or wants to be.
pub fn replica_of(handle: &Handle, options: &ReplicaOptions) -> Replica {
    let ip = match &options.address {
        Some(address) => String::from_utf8_lossy(address).into_owned(),
        None => host_of(&handle.address),
    };
    Replica::new(handle.id, ip, options.listening_port, now())
}

/// From here on it is a replica: one of those that are told when the stream becomes another one.
fn welcome(shared: &Shared, replica: &Arc<Replica>) {
    let replication = &shared.replication;
    replication.add(replica);
    let size = shared.config.settings().repl_backlog_size.unsigned_abs();
    if replication.begin_backlog(&shared.stream, size) {
        tracing::info!(
            "Replication backlog created, my new replication IDs are '{}' and '{}'",
            replication.id(),
            "0".repeat(40)
        );
    }
}

/// Waits until this server is the primary that it was told to become; false when who told it is gone.
fn take_over(shared: &Shared, handle: &Handle, order: u64) -> bool {
    while !shared.replication.upstream.await_done(order, TICK) {
        if handle.is_killed() {
            return false;
        }
    }
    true
}

fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

/// A replica is gone.
fn forget(shared: &Shared, client: u64) {
    shared.replication.remove(client, now());
    shared.clients.remove(client);
}

/// Serves a replica until one side has enough.
fn run(shared: &Arc<Shared>, full_syncs: &FullSyncs, attachment: Attachment) {
    let Attachment {
        stream,
        unsent,
        input,
        handle,
        replica,
        options,
        request,
    } = attachment;
    if let Some(order) = request.order() {
        if !take_over(shared, &handle, order) {
            shared.clients.remove(handle.id);
            return;
        }
        welcome(shared, &replica);
    }
    let socket = match Duplex::new(stream, TICK) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!("Cannot serve a replica: {}", strerror(&error));
            return forget(shared, handle.id);
        }
    };
    let peer = Arc::new(Peer {
        socket,
        handle,
        replica,
        options,
        replies: request != SyncRequest::Sync,
        closed: AtomicBool::new(false),
        preparing: Mutex::new(false),
    });
    let (server, killed) = (Arc::downgrade(shared), Arc::downgrade(&peer));
    peer.handle.set_hang_up(move || {
        if let (Some(shared), Some(peer)) = (server.upgrade(), killed.upgrade()) {
            // Whoever sees that the connection has ended finds it gone from the replicas.
            shared.replication.remove(peer.handle.id, now());
            peer.close();
        }
    });
    let link = Link {
        shared,
        full_syncs,
        peer,
    };
    let writer = thread::current();
    let served = thread::scope(|scope| {
        let listener = thread::Builder::new().name("replica-acks".to_owned());
        listener.spawn_scoped(scope, || link.listen(input, &writer))?;
        let served = link.serve(&unsent, &request);
        link.close();
        served
    });
    if let Err(error) = served {
        tracing::debug!("Replica {}: {error}", link.replica.name());
    }
    forget(shared, link.handle.id);
    tracing::info!("Connection with replica {} lost.", link.replica.name());
}

/// A replica as its two threads see it.
struct Link<'a> {
    shared: &'a Shared,
    full_syncs: &'a FullSyncs,
    peer: Arc<Peer>,
}

impl Deref for Link<'_> {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl Link<'_> {
    fn pipe(&self) -> Pipe<'_> {
        Pipe(self.shared, &self.peer)
    }
}

/// The writing side.
impl Link<'_> {
    fn serve(&self, unsent: &[u8], request: &SyncRequest) -> io::Result<()> {
        self.pipe().write_all(unsent)?;
        if let SyncRequest::Psync { id, offset, .. } = request {
            if let Some(reader) = self.resume(id, *offset)? {
                return self.follow(reader);
            }
            if id.first() != Some(&b'?') {
                self.shared.replication.partial_err.fetch_add(1, Relaxed);
            }
        }
        self.shared.replication.full.fetch_add(1, Relaxed);
        *self.preparing.lock() = true;
        let reader = self.synchronize()?;
        if self.options.rdb_only {
            tracing::info!(
                "Close the connection with replica {} as RDB transfer is complete",
                self.replica.name()
            );
            return Ok(());
        }
        tracing::info!(
            "Synchronization with replica {} succeeded",
            self.replica.name()
        );
        self.follow(reader)
    }

    /// Has the replica go on where it was, at `offset` (counted from 1) of the stream `id`; `None`
    /// when it cannot.
    fn resume(&self, id: &[u8], offset: i64) -> io::Result<Option<Reader>> {
        let replication = &self.shared.replication;
        let Resumed { names, end, reader } = replication.resume(&self.shared.stream, id, offset);
        let lineage = names.lineage();
        let reader = match reader {
            Ok(reader) => reader,
            Err(refusal) => {
                self.log_refusal(refusal, &lineage, id, offset, end);
                return Ok(None);
            }
        };
        self.replica.hear(now());
        self.replica.enter(State::Online);
        let answer = lineage.answer(self.options.psync2);
        self.pipe().write_all(answer.as_bytes())?;
        replication.partial_ok.fetch_add(1, Relaxed);
        tracing::info!(
            "Partial resynchronization request from {} accepted. Sending {} bytes of backlog \
             starting from offset {offset}.",
            self.replica.name(),
            end.saturating_sub(reader.offset())
        );
        Ok(Some(reader))
    }

    /// Says why a replica that asked for `offset` of `id` gets everything, of a stream that ends at
    /// `end`.
    fn log_refusal(
        &self,
        refusal: Refusal,
        lineage: &Lineage<'_>,
        id: &[u8],
        offset: i64,
        end: u64,
    ) {
        let name = self.replica.name();
        match refusal {
            Refusal::Unasked => tracing::info!("Full resync requested by replica {name}"),
            Refusal::OtherStream => {
                let (asked, zeros) = (String::from_utf8_lossy(id), "0".repeat(40));
                let (own, second) = (lineage.id, lineage.second.map_or(&*zeros, |(id, _)| id));
                tracing::info!(
                    "Partial resynchronization not accepted: Replication ID mismatch (Replica \
                     asked for '{asked}', my replication IDs are '{own}' and '{second}')"
                );
            }
            Refusal::BeyondSecond(limit) => tracing::info!(
                "Partial resynchronization not accepted: Requested offset for second ID was \
                 {offset}, but I can reply up to {limit}"
            ),
            Refusal::NotKept => {
                tracing::info!(
                    "Unable to partial resync with replica {name} for lack of backlog (Replica \
                     request was: {offset})."
                );
                if offset > end.cast_signed() {
                    tracing::warn!(
                        "Warning: replica {name} tried to PSYNC with an offset that is greater \
                         than the master replication offset."
                    );
                }
            }
        }
    }

    /// Sends a snapshot, when it is this replica's turn; then the replica is in step with what
    /// the reader gives.
    fn synchronize(&self) -> io::Result<Reader> {
        let (reader, file) = full_sync::obtain(self.shared, self.full_syncs, &self.peer)?;
        match file {
            Some(file) => self.send_file(&file)?,
            None => self.await_confirmation()?,
        }
        Ok(reader)
    }

    fn send_file(&self, file: &File) -> io::Result<()> {
        self.replica.enter(State::SendBulk);
        let len = file.metadata()?.len();
        self.prepared();
        let (mut pipe, mut piece) = (self.pipe(), vec![0; PIECE]);
        pipe.write_all(format!("${len}\r\n").as_bytes())?;
        let mut sent = 0;
        while sent < len {
            // Others may be reading it as well.
            let count = file.read_at(&mut piece, sent)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            pipe.write_all(&piece[..count])?;
            sent += count as u64;
        }
        pipe.flush()?;
        self.replica.hear(now());
        self.replica.enter(State::Online);
        Ok(())
    }

    /// A replica that finds the end of a snapshot by a mark must not get more behind it before it
    /// has found it.
    fn await_confirmation(&self) -> io::Result<()> {
        self.replica.hear(now());
        self.replica.enter(State::Online);
        if self.options.rdb_only {
            return Ok(());
        }
        tracing::info!(
            "Streamed replication with replica {} succeeded (socket). Waiting for REPLCONF ACK \
             from replica to enable streaming",
            self.replica.name()
        );
        while !self.replica.spoke() {
            if self.closed.load(Relaxed) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            thread::park_timeout(TICK);
        }
        Ok(())
    }

    /// Sends the stream for as long as the replica is there.
    fn follow(&self, mut reader: Reader) -> io::Result<()> {
        let sent = &self.replica.sent;
        sent.store(reader.offset(), Relaxed);
        while !self.closed.load(Relaxed) {
            // Nothing more may come for long.
            self.pipe().flush()?;
            if !reader.wait(TICK) {
                continue;
            }
            let chunks = reader.read();
            if chunks.is_empty() && reader.is_lost() {
                return Err(ErrorKind::ConnectionAborted.into());
            }
            for chunk in chunks {
                self.pipe().write_all(&chunk.bytes)?;
                sent.fetch_add(chunk.bytes.len() as u64, Relaxed);
            }
        }
        Ok(())
    }
}

/// The listening side.
impl Link<'_> {
    fn listen(&self, mut input: Vec<u8>, writer: &Thread) {
        let (mut parser, mut request) = (Parser::new(), parse::Request::default());
        let (mut position, mut piece) = (0, vec![0; 4096]);
        let mut watch = Watch::default();
        while !self.closed.load(Relaxed) {
            let limits = Limits::default();
            match parser.parse(&input, &mut position, &limits, &mut request) {
                Ok(parse::Progress::Complete) => {
                    if !self.hears(&request, &input) {
                        break;
                    }
                    writer.unpark();
                    request.clear();
                    continue;
                }
                Ok(parse::Progress::Empty) => continue,
                Ok(parse::Progress::Incomplete) if input.len() < LONGEST_REQUEST => {}
                _ => break,
            }
            if parser.is_idle() && position == input.len() {
                input.clear();
                position = 0;
            }
            match (&self.socket).read(&mut piece) {
                Ok(0) => break,
                Ok(count) => input.extend_from_slice(&piece[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                    _ => break,
                },
            }
            if !self.may_stay(&mut watch) {
                break;
            }
        }
        self.close();
        writer.unpark();
    }

    /// Takes note of what the replica says; false when it says what no replica does.
    fn hears(&self, request: &parse::Request, input: &[u8]) -> bool {
        let words: Vec<&[u8]> = (0..request.len()).map(|i| request.arg(input, i)).collect();
        let is = |i: usize, word: &[u8]| words.get(i).is_some_and(|w| w.eq_ignore_ascii_case(word));
        if is(0, b"replconf") && is(1, b"ack") {
            let offset = |i: usize| {
                let number = words.get(i).and_then(|w| number::parse_i64(w))?;
                u64::try_from(number).ok()
            };
            let durable = is(3, b"fack").then(|| offset(4)).flatten();
            self.replica
                .acknowledge(offset(2).unwrap_or(0), durable, now());
            self.handle.live.last_ms.store(clock::unix_ms(), Relaxed);
            blocking::acknowledged(self.shared);
            self.shared.replication.failover.heard();
            return true;
        }
        if is(0, b"replconf") && is(1, b"getack") {
            return true;
        }
        self.log_reply(&words);
        false
    }

    /// The replica sent a command that has a reply, for which there is no way.
    fn log_reply(&self, words: &[&[u8]]) {
        let commands = &self.shared.commands;
        let found = words.first().and_then(|name| commands.find(name));
        let known = admit::named(self.shared, found, Args::new(words));
        let name = known.map_or("<unknown>", |known| &known.full_name);
        let touches = Flags::WRITE.or(Flags::READONLY).or(Flags::MAY_REPLICATE);
        if known.is_some_and(|known| known.flags.has(touches)) {
            tracing::warn!(
                "== CRITICAL == This master is sending an error to its replica: 'Replica can't \
                 interact with the keyspace' after processing the command '{name}'"
            );
            let errors = &self.shared.stats.global.unexpected_error_replies;
            errors.fetch_add(1, Relaxed);
        }
        let client = self.handle.describe(clock::unix_ms(), &|_| name.to_owned());
        tracing::warn!("Replica generated a reply to command '{name}', disconnecting it: {client}");
    }

    /// False when the replica is to be closed. Sends signs of life meanwhile.
    fn may_stay(&self, watch: &mut Watch) -> bool {
        if self.handle.is_killed() {
            return false;
        }
        let at = now();
        if watch.second == at {
            return !self.is_too_far_behind(watch);
        }
        watch.second = at;
        // No sign of life of a server that hangs.
        self.shared.status.stall.wait();
        let preparing = self.preparing.lock();
        if *preparing && self.pipe().write_all(b"\n").is_err() {
            return false;
        }
        drop(preparing);
        let limit = i64::from(self.shared.config.settings().repl_timeout);
        if self.replies && self.replica.lag(at) > limit {
            tracing::warn!(
                "Disconnecting timedout replica (streaming sync): {}",
                self.replica.name()
            );
            return false;
        }
        !self.is_too_far_behind(watch)
    }

    /// Looks at `client-output-buffer-limit replica`: what waits in the stream counts.
    fn is_too_far_behind(&self, watch: &mut Watch) -> bool {
        let waits = self.replica.behind(self.shared.stream.offset());
        self.handle
            .live
            .output_memory
            .store(waits as usize, Relaxed);
        let settings = self.shared.config.settings();
        let limit = settings.client_output_buffer_limit[1];
        // What the backlog keeps anyway is no reason to close anybody.
        let backlog = settings.repl_backlog_size.unsigned_abs();
        let is_over = limit.hard_bytes > 0 && waits > limit.hard_bytes.max(backlog);
        let is_over_soft = limit.soft_bytes > 0 && waits > limit.soft_bytes.max(backlog);
        let since = is_over_soft.then(|| watch.over_since.unwrap_or_else(Instant::now));
        watch.over_since = since;
        let lasts = |since: Instant| since.elapsed().as_secs() >= u64::from(limit.soft_seconds);
        if !is_over && !since.is_some_and(lasts) {
            return false;
        }
        let counters = &self.shared.stats.global;
        counters.output_limit_disconnections.fetch_add(1, Relaxed);
        tracing::warn!(
            "Client {} scheduled to be closed ASAP for overcoming of output buffer limits.",
            self.handle
                .describe(clock::unix_ms(), &|_| "psync".to_owned())
        );
        true
    }
}

/// What the listening side remembers from look to look.
#[derive(Default)]
struct Watch {
    second: i64,
    /// Since when the soft limit is passed.
    over_since: Option<Instant>,
}

/// What is done once a second for all replicas together; `seconds` counts these calls.
pub fn cron(shared: &Shared, seconds: u64) {
    let (settings, replication) = (shared.config.load(), &shared.replication);
    let period = settings.repl_ping_replica_period.max(1).unsigned_abs();
    // A replica that is to take over waits for the end that its primary has told it.
    let hands_over =
        shared.cluster.is_some() && shared.pause.is_for(Purpose::Failover, clock::unix_ms());
    if seconds.is_multiple_of(period.into()) && !replication.is_empty() && !hands_over {
        let ping = || _ = shared.stream.append(|block| block.for_replicas(&["PING"]));
        replication.failover.unless_awaited(ping);
    }
    let ttl = settings.repl_backlog_ttl;
    if replication.end_backlog_if_idle(&shared.stream, ttl, now()) {
        tracing::info!("Replication backlog freed after {ttl} seconds without connected replicas.");
    }
}

/// Asks all replicas to confirm what they have; while clients are paused, so that the stream has an end,
/// not before the pause is over.
pub fn ask_for_confirmation(shared: &Shared) {
    let owes = &shared.replication.owes_question;
    owes.store(!shared.replication.is_empty(), SeqCst);
    if shared.pause.at(clock::unix_ms()).is_none() && owes.swap(false, SeqCst) {
        shared.replication.ask(&shared.stream);
    }
}

/// Asks what could not be asked during a pause, if it is over.
pub fn ask_what_is_owed(shared: &Shared) {
    if shared.replication.owes_question.load(Relaxed) {
        ask_for_confirmation(shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        assert_eq!(host_of("127.0.0.1:6379"), "127.0.0.1");
        assert_eq!(host_of("[::1]:6379"), "::1");
    }
}
