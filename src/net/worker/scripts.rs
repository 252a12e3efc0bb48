//! Requests that run scripts: their worker serves others when they run for long.
//!
//! Such a request runs with its connection taken out of the loop, and with a context of its own, so that in the
//! middle of it the loop is whole and can make a turn: read, parse, run what may be run beside a script,
//! and reply. Requests of the wave behind it wait in their connections' backlogs from then on. In that turn nothing
//! is done that would wait for shards, which the script may hold.

use std::time::Duration;

use super::waits::block;
use super::{BELL, EventLoop};
use crate::client::session::Session;
use crate::dispatch::args::{Args, Origin};
use crate::dispatch::command::Flags;
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::execute::{self, Flow, Prepared};
use crate::dispatch::meanwhile::{MEANWHILE, Meanwhile};
use crate::dispatch::table::Known;
use crate::dispatch::wave::{self, Wave};
use crate::net::connection::{Backlog, Connection};

/// The loop while a script runs in it.
struct Others<'l> {
    event_loop: &'l mut EventLoop,
    shared: &'l Shared,
    /// The wave of the script's request, and where that is.
    wave: Option<(&'l mut Wave, usize)>,
    /// The connection of the script: its place, what it sent, and where its further requests wait.
    place: usize,
    input: &'l [u8],
    backlog: &'l mut Backlog,
    /// A turn was made.
    served: bool,
}

impl Meanwhile for Others<'_> {
    fn serve(&mut self) {
        self.served = true;
        // It was another script's, some time ago.
        self.event_loop.worker.refresh(self.shared);
        if let Some((wave, index)) = self.wave.take() {
            self.give_up(wave, index + 1);
        }
        self.event_loop.turn_beside(self.shared);
    }
}

impl Others<'_> {
    /// Has the rest of the wave wait, and then what of it is others' go on.
    fn give_up(&mut self, wave: &mut Wave, from: usize) {
        let mut places = Vec::new();
        let connections = &mut self.event_loop.connections;
        wave.give_up(from, |place, request| {
            if place == self.place {
                return self.backlog.push(wave::owned(request, self.input));
            }
            if let Some(connection) = &mut connections[place] {
                let owned = wave::owned(request, &connection.input);
                connection.backlog.push(owned);
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        });
        for place in places {
            let connection = self.event_loop.connections[place].as_ref();
            if connection.is_some_and(|connection| !connection.is_occupied()) {
                self.event_loop.go_on(self.shared, place);
            }
        }
    }
}

/// True when a command runs a script, by itself or as the end of a session's transaction.
pub(super) fn holds_script(shared: &Shared, session: &Session, known: &Known) -> bool {
    if known.flags.has(Flags::SCRIPT) {
        return true;
    }
    let is_script = |id: usize| shared.commands.get(id).flags.has(Flags::SCRIPT);
    let multi = session.multi.as_ref();
    known.flags.has(Flags::EXEC)
        && multi.is_some_and(|multi| multi.queue.iter().any(|q| is_script(q.command)))
}

impl EventLoop {
    /// True when a request runs a script, by itself or in a transaction.
    pub(super) fn runs_script(&self, shared: &Shared, wave: &Wave, index: usize) -> bool {
        let planned = &wave.planned()[index];
        let known = planned.known.map(|id| shared.commands.get(id));
        let connection = self.connections[planned.connection].as_ref();
        known
            .zip(connection)
            .is_some_and(|(known, connection)| holds_script(shared, &connection.session, known))
    }

    /// Runs a request of a wave that runs a script; true when output waits beyond the reply buffer.
    pub(super) fn run_script(&mut self, shared: &Shared, wave: &mut Wave, index: usize) -> bool {
        let (place, known, mut request) = wave.take_out(index);
        let Some(mut connection) = self.connections[place].take() else {
            return false;
        };
        if connection.is_occupied() {
            let owned = wave::owned(&request, &connection.input);
            connection.backlog.push(owned);
            self.connections[place] = Some(connection);
            return false;
        }
        if connection.session.is_closing() {
            self.connections[place] = Some(connection);
            return false;
        }
        let big = wave::take_big(&mut request);
        connection.bulky |= !big.is_empty();
        let Connection {
            session,
            out,
            input,
            backlog,
            ..
        } = &mut *connection;
        let many = wave::list(&request, input, &big);
        let origin = Origin {
            whole: &input[request.whole.clone()],
            big: &big,
        };
        let args = Args::received(&many, &origin);
        let prepared = Prepared {
            known: known.map(|id| shared.commands.get(id)),
            hints: &[],
        };
        let mut context = self.lend_context(shared);
        let mut others = Others {
            event_loop: self,
            shared,
            wave: Some((wave, index)),
            place,
            input,
            backlog,
            served: false,
        };
        let flow = MEANWHILE.set(&mut others, || {
            execute::request(shared, &mut context, session, out, args, prepared)
        });
        let served = others.served;
        self.take_context(context);
        let parked = (flow == Flow::Park).then(|| args.all().iter().map(|a| a.to_vec()).collect());
        drop(many);
        wave.give_back(index, request);
        connection.served += 1;
        self.connections[place] = Some(connection);
        self.follow(place, flow, parked);
        if served {
            self.relist(shared, place);
        }
        let connection = self.connections[place].as_ref();
        connection.is_some_and(|connection| connection.out.is_beyond_buffer())
    }

    /// As [`EventLoop::run_script`], for a request that waited in its connection.
    pub(super) fn retry_script(&mut self, shared: &Shared, place: usize, list: &[&[u8]]) -> Flow {
        let Some(mut connection) = self.connections[place].take() else {
            return Flow::Next;
        };
        let Connection {
            session,
            out,
            input,
            backlog,
            ..
        } = &mut *connection;
        let prepared = Prepared {
            known: shared.commands.find(list[0]),
            hints: &[],
        };
        let mut context = self.lend_context(shared);
        let mut others = Others {
            event_loop: self,
            shared,
            wave: None,
            place,
            input,
            backlog,
            served: false,
        };
        let flow = MEANWHILE.set(&mut others, || {
            execute::request(
                shared,
                &mut context,
                session,
                out,
                Args::new(list),
                prepared,
            )
        });
        let served = others.served;
        self.take_context(context);
        self.connections[place] = Some(connection);
        if served {
            self.list_anew(place);
        }
        flow
    }

    /// Takes the loop's context for a script, and leaves another one in its place.
    fn lend_context(&mut self, shared: &Shared) -> Box<Worker> {
        let index = self.worker.index;
        let spare = self.spare.take();
        let mut spare = spare.unwrap_or_else(|| Box::new(Worker::new(shared, index)));
        std::mem::swap(&mut self.worker, &mut spare);
        spare
    }

    fn take_context(&mut self, mut context: Box<Worker>) {
        std::mem::swap(&mut self.worker, &mut context);
        self.worker.asks_replicas |= std::mem::take(&mut context.asks_replicas);
        // What comes behind the script begins when that has ended.
        self.worker.catch_up();
        self.spare = Some(context);
    }

    /// Does with a connection what its request asks for.
    fn follow(&mut self, place: usize, flow: Flow, parked: Option<Vec<Vec<u8>>>) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        match flow {
            Flow::Park => {
                connection.parked = parked;
                self.parked.push(place);
            }
            Flow::Job => {
                connection.job = self.worker.running.take();
                self.jobs.push(place);
            }
            Flow::Block => block(
                &mut connection.blocked,
                &mut self.worker,
                &mut self.deadlines,
                place,
            ),
            Flow::Next if connection.session.is_closing() => connection.backlog.clear(),
            Flow::Next => {}
        }
    }

    /// Has a connection looked at that was not there while turns were made.
    fn list_anew(&mut self, place: usize) {
        if let Some(connection) = &mut self.connections[place] {
            connection.listed = false;
        }
        self.list(place);
    }

    /// As [`EventLoop::list_anew`], and runs what waited behind its script.
    fn relist(&mut self, shared: &Shared, place: usize) {
        self.list_anew(place);
        let connection = self.connections[place].as_ref();
        if connection.is_some_and(|connection| !connection.is_occupied()) {
            self.go_on(shared, place);
            // What it sent and nobody has parsed: it was not there when that was looked at.
            self.queue.push_back(place);
        }
    }

    /// A turn in the middle of a script, which waits for nothing.
    fn turn_beside(&mut self, shared: &Shared) {
        let mut ready = Vec::new();
        if self.driver.wait(&mut ready, Some(Duration::ZERO)).is_err() {
            return;
        }
        self.worker.refresh(shared);
        for event in &ready {
            if event.token == BELL {
                self.answer_bell();
            } else {
                self.socket_ready(event);
            }
        }
        self.read_buffered();
        self.release_held(shared);
        self.serve(shared);
        self.finish();
    }
}
