//! The dump of a full synchronization, from its first byte until it is the data set.

use super::Following;
use crate::base::clock;
use crate::dispatch::pause::{Paused, Purpose};
use crate::durability::{append_only, save};
use crate::propagation::Names;
use crate::replication::follow::{Event, History, Load};
use crate::replication::receive::{Dump, Failed};

/// How long clients wait before they are told that a dump is loaded, in milliseconds: of one so small
/// that Redis would look at nobody before its end, or that may be, and of others.
const SMALL_LOAD_MS: i64 = 1000;
const LARGE_LOAD_MS: i64 = 100;

impl Following<'_> {
    pub(super) fn begin_load(&mut self, source: Option<History>, len: Option<u64>, load: Load) {
        if load == Load::Direct {
            self.drop_data(len);
        }
        if load == Load::Swap {
            save::empty_beside(self.shared);
        }
        // What is there is an earlier state of what comes, and of use to clients until then.
        let is_earlier = source.is_some_and(|s| s.id.as_str() == self.shared.replication.id());
        let serves = load == Load::Swap && is_earlier;
        match Dump::begin(self.shared, load, (len, serves), &self.bell) {
            Ok(dump) => self.dump = Some(dump),
            Err(error) => self.fail_load(load, error.into()),
        }
    }

    pub(super) fn load(&mut self, bytes: &[u8]) {
        let (upstream, seen) = (&self.shared.replication.upstream, self.seen);
        let Some(dump) = &mut self.dump else {
            return;
        };
        let load = dump.load;
        if let Err(error) = dump.take(bytes, || upstream.given() == seen) {
            self.fail_load(load, error.into());
        }
    }

    pub(super) fn end_load(&mut self) {
        let Some(mut dump) = self.dump.take() else {
            return;
        };
        let load = dump.load;
        if load == Load::File {
            self.drop_data(None);
        }
        self.ending = true;
        let ended = dump.end(self.shared);
        self.dump = Some(dump);
        if let Err(error) = ended {
            self.fail_load(load, error.into());
        }
    }

    /// The old data set goes, and with it what it was.
    fn drop_data(&mut self, len: Option<u64>) {
        let shared = self.shared;
        self.set_known(false);
        let interval = shared
            .config
            .settings()
            .loading_process_events_interval_bytes;
        let wait = match len {
            Some(len) if len >= interval.unsigned_abs() => LARGE_LOAD_MS,
            _ => SMALL_LOAD_MS,
        };
        let until = clock::unix_ms() + wait;
        shared.pause.begin(Purpose::Load, until, Paused::All);
        shared.durability.loading.begin(len.unwrap_or(0));
        // Nobody acts on the old data set from here on.
        shared.pass_turns();
        self.part_with_replicas();
        shared.durability.saves.cancel();
        self.suspend_file();
        save::empty(shared, shared.config.settings().replica_lazy_flush);
    }

    pub(super) fn look_at_dump(&mut self) {
        let Some(dump) = &mut self.dump else {
            return;
        };
        let (load, attempt) = (dump.load, self.attempt);
        match dump.outcome() {
            None => return,
            Some(Ok(about)) => {
                self.about = about;
                self.step(Event::Loaded { attempt });
            }
            Some(Err(failed)) => self.fail_load(load, failed),
        }
        self.drain_events();
    }

    /// A dump could not be received or loaded: with [`Load::Swap`] the old data stays, otherwise none.
    fn fail_load(&mut self, load: Load, failed: Failed) {
        self.forget_load(load);
        let Failed { text, lasting } = failed;
        self.events.push_back(Event::LoadFailed {
            attempt: self.attempt,
            text,
            lasting,
        });
    }

    pub(super) fn abort_load(&mut self) {
        if let Some(dump) = &self.dump {
            self.forget_load(dump.load);
        }
    }

    /// Nothing of a dump stays.
    fn forget_load(&mut self, load: Load) {
        let shared = self.shared;
        if let Some(dump) = self.dump.take() {
            dump.give_up();
        }
        match load {
            Load::Swap => save::empty_beside(shared),
            Load::Direct => save::empty(shared, false),
            Load::File if self.ending => save::empty(shared, false),
            Load::File => {}
        }
        self.end_loading();
    }

    /// The append-only file, which is of another data set, is turned off until there is the new one.
    fn suspend_file(&mut self) {
        if append_only::is_on(self.shared) {
            self.resumes_file = true;
            append_only::turn_off(self.shared);
        }
    }

    fn end_loading(&mut self) {
        self.ending = false;
        self.shared.durability.loading.end();
        self.shared.pause.end(Purpose::Load);
    }

    /// There is a data set, which the append-only file is to hold again. Until then what was in it stays there.
    pub(super) fn resume_file(&mut self) {
        if std::mem::take(&mut self.resumes_file) && self.shared.config.load().appendonly {
            append_only::turn_on(self.shared);
        }
    }

    /// What was loaded is the data set, and this its history.
    pub(super) fn adopt(&mut self, history: Option<History>) {
        let shared = self.shared;
        let dump = self.dump.take();
        if dump.is_some_and(|dump| dump.load == Load::Swap) {
            // The place in the old stream is not that of the new data.
            self.set_known(false);
            self.exchange();
        }
        let size = shared.config.settings().repl_backlog_size.unsigned_abs();
        let about = std::mem::take(&mut self.about);
        let selected = about.selected.unwrap_or(0);
        let (id, offset) = match history {
            Some(History { id, offset }) => (id.to_string(), offset.unsigned_abs()),
            None => (crate::base::random::run_id(), 0),
        };
        let names = Names { id, second: None };
        let copied = (names, offset, selected);
        shared.replication.adopt(&shared.stream, copied, size);
        // Somebody may have turned it on meanwhile, for what is gone now.
        self.suspend_file();
        self.set_known(history.is_some());
        shared.durability.saves.loaded(shared.changes());
        self.end_loading();
        self.resume_file();
        self.begin_to_apply(selected);
    }

    /// The new data set takes the place of the old one, which clients were served from.
    fn exchange(&mut self) {
        let shared = self.shared;
        self.part_with_replicas();
        self.suspend_file();
        let _turn = shared.durability.saves.take_over();
        save::exchange_with_beside(shared);
    }
}
