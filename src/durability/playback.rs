//! Playing a log of commands back: what was appended is run again, as by one client that gets no
//! replies.
//!
//! A file holds what somebody wrote to it. What could end the server, have it wait, or change anything
//! but its data does not belong there: such a command is refused, which is logged, and what follows
//! it is played. No command of a file waits, within a transaction or without.

use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::clock::unix_ms;
use crate::client::mailbox::Bell;
use crate::client::registry::Arrival;
use crate::client::session::Session;
use crate::dispatch::args::Args;
use crate::dispatch::command::Flags;
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::execute::Invocation;
use crate::dispatch::source::{self, Source};
use crate::dispatch::{accounts, admit, execute, transaction};
use crate::persistence::aof::place::Tracker;
use crate::persistence::aof::reader::{Failure, Item, Reader};
use crate::propagation::Place;
use crate::resp::write::Output;

/// How far a log was played.
#[derive(Debug)]
pub enum Played {
    /// To its end.
    All,
    /// It ends within a command, which, with the transaction it may be in, begins here.
    Truncated(u64),
    /// It ends within a transaction, which begins here; what there is of it was taken back.
    Reverted(u64),
    /// It holds something that is no command.
    Bad,
    /// It names a command that there is not.
    Unknown(String),
    /// It cannot be read.
    Unreadable(io::Error),
}

/// Runs the commands of `input`, which begins at `offset` of its file; and where in which replication
/// stream that ends, if it tells.
pub fn play(shared: &Shared, input: impl BufRead, offset: u64) -> (Played, Option<Place>) {
    let bell = match Bell::new() {
        Ok(bell) => Arc::new(bell),
        Err(error) => return (Played::Unreadable(error), None),
    };
    let handle = shared.clients.add(Arrival {
        address: String::new(),
        local_address: String::new(),
        fd: -1,
        now_ms: unix_ms(),
        bell,
    });
    // It is nobody's connection: not listed, and not to be killed.
    shared.clients.remove(handle.id);
    let mut session = Session::new(handle, None);
    let mut tracker = Tracker::default();
    let played = play_as(shared, &mut session, &mut tracker, input, offset);
    execute::disconnect(shared, &mut session);
    (played, tracker.place())
}

fn play_as(
    shared: &Shared,
    session: &mut Session,
    tracker: &mut Tracker,
    input: impl BufRead,
    offset: u64,
) -> Played {
    let mut worker = Worker::for_source(shared, Source::Log);
    let mut reader = Reader::lenient(input, offset);
    let mut out = Output::new();
    let mut sound = offset;
    loop {
        let begin = reader.offset();
        let args = match reader.next_item() {
            Ok(Some(Item::Command(args))) => args,
            Ok(Some(Item::Annotation(line))) => {
                tracker.line(&line, session.multi.is_some());
                continue;
            }
            Ok(None) if session.multi.is_none() => return Played::All,
            Ok(None) => return Played::Reverted(sound),
            Err(Failure::Truncated(_)) => return Played::Truncated(sound),
            Err(Failure::Io(error)) => return Played::Unreadable(error),
            Err(Failure::Format(_)) => return Played::Bad,
        };
        if let Err(name) = run(shared, &mut worker, session, &mut out, &args) {
            return Played::Unknown(name);
        }
        out.clear();
        tracker.command(reader.offset() - begin, session.db);
        if session.multi.is_none() {
            sound = reader.offset();
        }
        shared
            .durability
            .loading
            .loaded_bytes
            .store(reader.offset(), Relaxed);
    }
}

/// Runs a command, or keeps it for EXEC; the name of one that there is not.
fn run(
    shared: &Shared,
    worker: &mut Worker,
    session: &mut Session,
    out: &mut Output,
    args: &[Vec<u8>],
) -> Result<(), String> {
    let list: Vec<&[u8]> = args.iter().map(|a| &a[..]).collect();
    let args = Args::new(&list);
    let known = admit::resolve(shared, shared.commands.find(list[0]), args)
        .map_err(|_| String::from_utf8_lossy(list[0]).into_owned())?;
    worker.obeyed = Some(known.id);
    if let Some(error) = source::refusal(Source::Log, known) {
        accounts::failed(shared, worker, known, out, &error);
        source::failed(shared, worker, &error.text());
        return Ok(());
    }
    if session.multi.is_some() && !known.flags.has(Flags::UNQUEUED) {
        transaction::queue(session, known, args);
        return Ok(());
    }
    execute::call(
        shared,
        worker,
        session,
        out,
        Invocation::new(known, args),
        None,
    );
    execute::to_end(shared, worker, session, out);
    Ok(())
}
