//! The end of a turn: replies are written, what changed of a connection is published, and those
//! that are done, broken, too slow or idle are closed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{EventLoop, KEPT_BUFFERS, TICKED};
use crate::bus::moving;
use crate::client::session::{Replies, SyncRequest};
use crate::dispatch::{blocking, client_eviction, execute};
use crate::net::connection::Connection;
use crate::observe::stats::bump;
use crate::replication::primary;
use crate::resp::write::give_back_spare;

impl EventLoop {
    /// Writes replies and settles every connection that this turn touched.
    pub(super) fn finish(&mut self) {
        // Messages that commands of this turn pushed to connections of this worker ring the
        // bell, and so are written in the next turn.
        let held_until = self.held_until();
        for place in std::mem::take(&mut self.active) {
            match (held_until, &mut self.connections[place]) {
                (_, Some(connection)) if connection.held_until.is_some() => {
                    connection.listed = false;
                }
                (Some(offset), Some(connection)) if connection.tells() => {
                    connection.listed = false;
                    connection.held_until = Some(offset);
                    self.held.push(place);
                }
                _ => self.settle(place),
            }
        }
    }

    pub(super) fn settle(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let connection = &mut **connection;
        connection.listed = false;
        if connection.session.sync.is_some() && !connection.session.is_closing() {
            self.hand_over(place);
            return;
        }
        connection.take_mail();
        // A broken stream is told of when everything before it has its reply.
        if !connection.is_occupied()
            && !connection.session.is_closing()
            && let Some(error) = connection.broken.take()
        {
            self.protocol_error(place, error);
        }
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let connection = &mut **connection;
        let now_ms = self.worker.now.ms;
        let session = &connection.session;
        // A request that waits for the end of a pause, or for keys, dies with its client.
        let awaits_chore = connection.awaits_chore();
        let waits = connection.parked.is_some() || connection.blocked.is_some() && !awaits_chore;
        let gone = connection.ended && waits;
        if session.handle.is_killed() || session.close_now || gone {
            self.close(place);
            return;
        }
        // Flags decide which limit applies.
        connection.session.publish();
        // All that waits may leave.
        connection.session.tells = false;
        let settings = Arc::clone(&self.worker.settings);
        if connection.over_output_limit(&settings, now_ms) {
            self.log_output_limit(place, "scheduled to be closed ASAP");
            self.close(place);
            return;
        }
        if self.write(place).is_err() {
            self.close(place);
            return;
        }
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        // A peer that closed its sending half still gets its replies.
        let last = connection.session.close_after_reply || connection.ended;
        if last && connection.has_sent_all() && connection.job.is_none() && !awaits_chore {
            self.close(place);
            return;
        }
        let keep = self.places.len() <= KEPT_BUFFERS;
        connection.release_input(&mut self.buffers, keep);
        let served = std::mem::take(&mut connection.served);
        connection.publish(now_ms, served);
        self.evict_clients();
        self.watch(place);
    }

    /// Writes what the socket takes of a connection's replies, unless another thread is to answer first.
    pub(super) fn write(&mut self, place: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[place] else {
            return Ok(());
        };
        if connection.awaits_chore() {
            return Ok(());
        }
        let written = connection.flush()?;
        if written > 0 {
            bump(&self.worker.stats.counters.output_bytes, written as u64);
            bump(&self.worker.stats.counters.writes, 1);
        }
        Ok(())
    }

    /// Lets a connection go that becomes a replica, or brings slots.
    fn hand_over(&mut self, place: usize) {
        if let Some(connection) = self.detach(place) {
            let (session, stream, unsent, input) = connection.into_parts();
            if matches!(session.sync, Some(SyncRequest::Slots { .. })) {
                return moving::import::begin(&self.shared, session, stream, unsent, input);
            }
            primary::hand_over(
                &self.shared,
                &self.full_syncs,
                session,
                stream,
                unsent,
                input,
            );
        }
    }

    /// Keeps what clients hold below `maxmemory-clients`. What victims of this worker would have been
    /// sent is freed at once, the rest of them when they are settled.
    pub(super) fn evict_clients(&mut self) {
        let settings = &self.worker.settings;
        if settings.maxmemory_clients == 0 {
            return;
        }
        for id in client_eviction::evict(&self.shared, settings, self.worker.now.ms) {
            if let Some(&place) = self.places.get(&id)
                && let Some(connection) = &mut self.connections[place]
            {
                connection.out.clear();
            }
        }
    }

    /// Tells the driver what this connection waits for, when that changed.
    fn watch(&mut self, place: usize) {
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        let wants_write = !connection.has_sent_all() && !connection.awaits_chore();
        let reads = !connection.ended;
        if !connection.is_watched {
            connection.is_watched = true;
            (connection.wants_write, connection.reads) = (false, true);
            if self.driver.add(connection.fd(), place as u64).is_err() {
                return self.close(place);
            }
            self.note_buffered(place);
        }
        let Some(connection) = &mut self.connections[place] else {
            return;
        };
        if (wants_write, reads) != (connection.wants_write, connection.reads) {
            connection.wants_write = wants_write;
            connection.reads = reads;
            let watched = self
                .driver
                .watch(connection.fd(), place as u64, reads, wants_write);
            if watched.is_err() {
                self.close(place);
            }
        }
    }

    #[cold]
    pub(super) fn log_output_limit(&mut self, place: usize, end: &str) {
        self.shared
            .stats
            .global
            .output_limit_disconnections
            .fetch_add(1, Relaxed);
        if let Some(connection) = &mut self.connections[place] {
            connection.publish(self.worker.now.ms, 0);
        }
        if let Some(connection) = &self.connections[place] {
            tracing::warn!(
                "Client {} {end} for overcoming of output buffer limits.",
                self.describe(connection),
            );
        }
    }

    /// A client as CLIENT LIST shows it, for the log.
    pub(super) fn describe(&self, connection: &Connection) -> String {
        let name = |id: u32| self.shared.commands.get(id as usize).full_name.clone();
        let handle = &connection.session.handle;
        handle.describe(self.worker.now.ms, &|id| name(id).to_string())
    }

    /// Ends a connection and everything it had in the server.
    pub(super) fn close(&mut self, place: usize) {
        let Some(mut connection) = self.detach(place) else {
            return;
        };
        if connection.ended {
            tracing::debug!("Client closed connection {}", self.describe(&connection));
        }
        let session = &mut connection.session;
        // Nothing more is answered, whatever cleaning up would say.
        session.replies = Replies::Off;
        if let Some(parked) = connection.blocked.take() {
            if let Some(deadline) = parked.deadline {
                self.deadlines.remove(&(deadline, parked.ticket()));
            }
            blocking::abandon(&self.shared, &parked);
        }
        execute::disconnect(&self.shared, session);
        self.shared.clients.remove(session.handle.id);
        connection.end_memory();
    }

    /// What is looked at now and then: idle clients, output limits, shrinking buffers. Of many
    /// connections a tenth each time, so that many idle ones cost next to nothing.
    pub(super) fn tick(&mut self) {
        let settings = Arc::clone(&self.worker.settings);
        let timeout_ms = i64::from(settings.timeout) * 1000;
        let now_ms = self.worker.now.ms;
        let share = self.connections.len().div_ceil(10).max(TICKED);
        for _ in 0..share.min(self.connections.len()) {
            let place = self.tick_at % self.connections.len();
            self.tick_at = place + 1;
            let Some(connection) = &mut self.connections[place] else {
                continue;
            };
            let idle = now_ms - connection.session.handle.live.last_ms.load(Relaxed);
            let exempt = connection.is_occupied() || connection.session.is_subscriber();
            if timeout_ms > 0 && idle > timeout_ms && !exempt {
                tracing::debug!("Closing idle client");
                self.close(place);
            } else if connection.over_output_limit(&settings, now_ms) {
                self.log_output_limit(place, "closed");
                self.close(place);
            } else {
                connection.tidy(&self.shared.status, &self.shared.stats.global, now_ms);
                connection.publish(now_ms, 0);
                self.evict_clients();
            }
        }
        give_back_spare();
        if self.buffers.len() > 8 {
            self.buffers.truncate(8);
        }
    }
}
