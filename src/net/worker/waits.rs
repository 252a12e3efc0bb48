//! Requests that wait: for the end of a pause, for keys, for the disk, or for their next slice.
//!
//! What was parsed behind such a request waits with it, in order, and runs when it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::EventLoop;
use super::scripts::holds_script;
use crate::dispatch::args::Args;
use crate::dispatch::blocking::{self, Parked};
use crate::dispatch::context::{Shared, Worker};
use crate::dispatch::execute::{self, Flow, Prepared};
use crate::durability::append_only;

impl EventLoop {
    /// Runs parked requests again when the pause is over, or whatever else held them back.
    pub(super) fn retry_parked(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Notices the end of a pause whose time is over.
        shared.pause.at(self.worker.now.ms);
        if shared.pause.ends() == self.pauses_ended {
            return;
        }
        self.pauses_ended = shared.pause.ends();
        self.worker.follow_pause(&shared);
        for place in std::mem::take(&mut self.parked) {
            if !self.retry(&shared, place) {
                self.parked.push(place);
            }
            self.list(place);
        }
    }

    /// Gives each command that goes on in slices its next one, and runs what waited behind those
    /// that are done.
    pub(super) fn step_jobs(&mut self, shared: &Shared) {
        for place in std::mem::take(&mut self.jobs) {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            let connection = &mut **connection;
            let Some(mut running) = connection.job.take() else {
                continue;
            };
            let (session, out) = (&connection.session, &mut connection.out);
            if !execute::step(shared, &mut self.worker, session, out, &mut running) {
                connection.job = Some(running);
                self.jobs.push(place);
                continue;
            }
            self.go_on(shared, place);
        }
    }

    /// Runs what waited behind a request that has its reply.
    pub(super) fn go_on(&mut self, shared: &Shared, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        connection.parked = connection.backlog.pop();
        if connection.out.is_beyond_buffer() {
            self.limit_output(place);
        }
        if !self.retry(shared, place) {
            self.parked.push(place);
        }
        self.list(place);
    }

    /// Ends the waits for keys that have their reply or are over their time, and runs what waited
    /// behind them.
    pub(super) fn end_waits(&mut self, shared: &Shared) {
        let now_ms = self.worker.now.ms;
        while let Some(first) = self.deadlines.first_entry()
            && first.key().0 < now_ms
        {
            let place = first.remove();
            if let Some(connection) = &self.connections[place]
                && let Some(parked) = &connection.blocked
            {
                blocking::time_out(shared, &mut self.worker, parked);
                self.woken.push(place);
            }
        }
        for place in std::mem::take(&mut self.woken) {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            let Some(parked) = &connection.blocked else {
                continue;
            };
            let Some(reply) = parked.take_reply() else {
                blocking::look_again(shared, &mut self.worker, parked);
                continue;
            };
            blocking::count_failure(shared, &self.worker, parked, &reply);
            if let Some(deadline) = parked.deadline {
                self.deadlines.remove(&(deadline, parked.ticket()));
            }
            // Word of what the command itself changed comes behind its reply.
            if connection.session.tracking.is_some() {
                connection.out.raw(&reply.bytes);
                connection.take_mail();
            } else {
                connection.take_mail();
                connection.out.raw(&reply.bytes);
            }
            connection.session.tells = true;
            if reply.written != 0 {
                connection.session.written = reply.written;
            }
            connection.session.close_after_reply |= reply.closes;
            connection.blocked = None;
            self.go_on(shared, place);
        }
    }

    /// Runs a connection's parked request and those that were parsed behind it; false when it
    /// has to wait on.
    fn retry(&mut self, shared: &Shared, place: usize) -> bool {
        while let Some(connection) = &mut self.connections[place] {
            let connection = &mut **connection;
            let Some(parked) = connection.parked.take() else {
                return true;
            };
            if connection.session.is_closing() {
                connection.backlog.clear();
                return true;
            }
            connection.follow_limit(&self.worker.settings);
            let list: SmallVec<[&[u8]; 8]> = parked.iter().map(|a| &a[..]).collect();
            let (db, mut hints) = (connection.session.db, Vec::new());
            let known = execute::prepare(shared, db, list.len(), |i| list[i], &mut hints);
            let prepared = Prepared {
                known,
                hints: &hints,
            };
            let flow =
                if known.is_some_and(|known| holds_script(shared, &connection.session, known)) {
                    self.retry_script(shared, place, &list)
                } else {
                    execute::request(
                        shared,
                        &mut self.worker,
                        &mut connection.session,
                        &mut connection.out,
                        Args::new(&list),
                        prepared,
                    )
                };
            let Some(connection) = &mut self.connections[place] else {
                return true;
            };
            let connection = &mut **connection;
            if flow == Flow::Park {
                drop(list);
                connection.parked = Some(parked);
                return false;
            }
            connection.served += 1;
            let is_beyond_buffer = connection.out.is_beyond_buffer();
            if flow == Flow::Job {
                connection.job = self.worker.running.take();
                self.jobs.push(place);
                return true;
            }
            if flow == Flow::Block {
                block(
                    &mut connection.blocked,
                    &mut self.worker,
                    &mut self.deadlines,
                    place,
                );
                return true;
            }
            if is_beyond_buffer {
                self.limit_output(place);
            }
            let Some(connection) = &mut self.connections[place] else {
                return true;
            };
            if connection.session.sync.is_some() {
                return true;
            }
            connection.parked = connection.backlog.pop();
        }
        true
    }

    /// Nothing is answered that the append-only file does not hold, under `appendfsync always` on the
    /// disk: where the stream ends, if the file is behind and this worker cannot write it at once.
    pub(super) fn held_until(&self) -> Option<u64> {
        let log = &self.shared.append_only.log;
        if !log.is_open() {
            return None;
        }
        let end = self.shared.stream.position();
        let policy = || append_only::policy(&self.shared);
        (!log.clears(end, &self.link.bell, policy)).then_some(end)
    }

    /// Has the replies sent that the append-only file has caught up with, and their connections served
    /// again.
    pub(super) fn release_held(&mut self, shared: &Shared) {
        let held = std::mem::take(&mut self.held);
        let waits = |place: &usize| self.connections[*place].as_ref()?.held_until;
        let Some(last) = held.iter().filter_map(waits).max() else {
            return;
        };
        let log = &shared.append_only.log;
        let policy = || append_only::policy(shared);
        let cleared = match log.clears(last, &self.link.bell, policy) {
            true => u64::MAX,
            false => log.progress.cleared(),
        };
        for place in held {
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            match connection.held_until {
                Some(end) if end > cleared => {
                    self.held.push(place);
                    continue;
                }
                None => continue,
                Some(_) => {}
            }
            connection.held_until = None;
            self.settle(place);
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            if connection.parked.is_none()
                && connection.job.is_none()
                && connection.blocked.is_none()
            {
                connection.parked = connection.backlog.pop();
                if !self.retry(shared, place) {
                    self.parked.push(place);
                }
            }
            self.list(place);
        }
    }
}

/// Keeps the wait that the connection's command just began.
pub(super) fn block(
    blocked: &mut Option<Arc<Parked>>,
    worker: &mut Worker,
    deadlines: &mut BTreeMap<(i64, u64), usize>,
    place: usize,
) {
    *blocked = worker.parked.take();
    if let Some(parked) = blocked
        && let Some(deadline) = parked.deadline
    {
        deadlines.insert((deadline, parked.ticket()), place);
    }
}
