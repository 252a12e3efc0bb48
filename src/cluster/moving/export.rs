//! The source of a migration.

use super::list::Phase;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The target listens.
    Connected,
    /// It knows who we are.
    Authenticated,
    /// It is ready for keys.
    Established,
    /// The cut begins.
    CutBegun,
    /// The cut is sent.
    CutSent,
    /// Little of the stream is left.
    Near,
    /// Nobody writes any more.
    Still,
    /// The target has all there is.
    Ready,
    /// The grant is in our file.
    Granted,
    /// There is no grant: why.
    Ungranted(String),
    /// The target has the slots.
    Taken,
    /// It has not, and never will: why.
    Dropped(String),
    /// The target cannot say, or not now.
    Unknown,
    /// The connection is over, or the target refused something: why.
    Lost(String),
    /// Writes were held back for as long as they may be.
    Late,
    /// An operator has had enough.
    Cancelled,
    /// This node does not own the slots any more, or was told that nobody else takes them; whether the target
    /// owns them.
    Unowned {
        /// It does.
        by_target: bool,
    },
    /// The grant was taken back by an operator.
    Overruled,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Say who we are.
    Authenticate,
    /// Ask the target to be ready.
    Establish,
    /// Wait for the turn to take a cut, and send it.
    Cut,
    /// Send the stream until little is left.
    Follow,
    /// Hold writes back, however long, and wait until none is under way.
    Pause,
    /// Send the rest of the stream, and ask whether it is there.
    SendRest,
    /// Put the grant into our file.
    Grant,
    /// Tell the target of it.
    SayGranted,
    /// Send clients of the slots to the target: nothing is known of it.
    Doubt,
    /// Ask the target what it has done, over a new connection.
    Ask,
    /// The slots are ours as before.
    Revoke,
    /// The slots are the target's.
    Give,
    /// Clients' writes go on.
    Resume,
    /// The connection is of no use any more.
    Close,
    /// It is over.
    End(Phase, String),
}

/// A source's machine.
#[derive(Debug)]
pub struct Export {
    phase: Phase,
    /// Our file may say that the slots are granted.
    granted: bool,
    paused: bool,
    cancelled: bool,
}

impl Default for Export {
    fn default() -> Self {
        Self {
            phase: Phase::Connecting,
            granted: false,
            paused: false,
            cancelled: false,
        }
    }
}

impl Export {
    /// One that goes on where a process was before that had granted slots.
    pub fn in_doubt() -> (Self, Vec<Action>) {
        let export = Self {
            phase: Phase::InDoubt,
            granted: true,
            ..Self::default()
        };
        (export, vec![Action::Ask])
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// There has to be a grant.
    pub fn is_granted(&self) -> bool {
        self.granted && self.phase != Phase::Granting
    }

    /// The target was told, and may have the slots.
    pub fn is_bound(&self) -> bool {
        matches!(self.phase, Phase::FailoverGranted | Phase::InDoubt)
    }

    /// Writes were not held back after all: there is nothing to be ended.
    pub fn never_paused(&mut self) {
        self.paused = false;
    }

    /// Says what is to be done.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match (self.phase, event) {
            (phase, _) if phase.is_over() => Vec::new(),
            (Phase::Connecting, Event::Connected) => {
                self.enter(Phase::ReadingAuth, vec![Action::Authenticate])
            }
            (Phase::ReadingAuth, Event::Authenticated) => {
                self.enter(Phase::ReadingEstablish, vec![Action::Establish])
            }
            (Phase::ReadingEstablish, Event::Established) => {
                self.enter(Phase::WaitingToSnapshot, vec![Action::Cut])
            }
            (Phase::WaitingToSnapshot, Event::CutBegun) => self.enter(Phase::Snapshotting, vec![]),
            (Phase::Snapshotting, Event::CutSent) => {
                self.enter(Phase::Replicating, vec![Action::Follow])
            }
            // Before anybody waits, as the disk takes its time.
            (Phase::Replicating, Event::Near) => {
                self.granted = true;
                self.enter(Phase::Granting, vec![Action::Grant])
            }
            (Phase::Granting, Event::Granted) => {
                self.paused = true;
                self.enter(Phase::WaitingToPause, vec![Action::Pause])
            }
            (Phase::Granting, Event::Ungranted(why)) => self.give_up(why),
            (Phase::WaitingToPause, Event::Still) => {
                self.enter(Phase::FailoverPaused, vec![Action::SendRest])
            }
            (Phase::FailoverPaused, Event::Ready) => {
                self.enter(Phase::FailoverGranted, vec![Action::SayGranted])
            }
            (Phase::FailoverGranted | Phase::InDoubt, event) => self.outcome(event),
            (_, Event::Cancelled) => {
                self.cancelled = true;
                self.give_up(String::new())
            }
            (_, Event::Unowned { .. } | Event::Overruled) => {
                self.give_up("Slots are no longer owned by myself".to_owned())
            }
            (_, Event::Late) => self.give_up("Timed out before streaming completed".to_owned()),
            (_, Event::Lost(why) | Event::Dropped(why)) => self.give_up(why),
            // What has no meaning here is an answer that came too late.
            _ => Vec::new(),
        }
    }

    fn enter(&mut self, phase: Phase, actions: Vec<Action>) -> Vec<Action> {
        self.phase = phase;
        actions
    }

    /// The target may have the slots.
    fn outcome(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Taken => self.end(Phase::Success, String::new(), vec![Action::Give]),
            Event::Unowned { by_target: true } => self.end(Phase::Success, String::new(), vec![]),
            Event::Unowned { by_target: false } => {
                let why = "Slots are no longer owned by myself".to_owned();
                self.end(Phase::Failed, why, vec![])
            }
            Event::Dropped(why) => self.give_up(why),
            Event::Overruled => {
                let why = "The slots were taken back by an operator".to_owned();
                self.end(Phase::Failed, why, vec![])
            }
            Event::Lost(_) | Event::Late if self.phase == Phase::FailoverGranted => {
                let mut actions = vec![Action::Doubt];
                actions.extend(std::mem::take(&mut self.paused).then_some(Action::Resume));
                actions.extend([Action::Close, Action::Ask]);
                self.enter(Phase::InDoubt, actions)
            }
            Event::Lost(_) | Event::Unknown if self.phase == Phase::InDoubt => vec![Action::Ask],
            // It is told when it is known whether there was anything to cancel.
            Event::Cancelled => {
                self.cancelled = true;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn give_up(&mut self, why: String) -> Vec<Action> {
        let before = match std::mem::take(&mut self.granted) {
            true => vec![Action::Revoke],
            false => Vec::new(),
        };
        match self.cancelled {
            true => self.end(Phase::Cancelled, String::new(), before),
            false => self.end(Phase::Failed, why, before),
        }
    }

    /// What it does last; what clients are told comes before their writes go on.
    fn end(&mut self, phase: Phase, why: String, mut actions: Vec<Action>) -> Vec<Action> {
        actions.extend(std::mem::take(&mut self.paused).then_some(Action::Resume));
        actions.extend([Action::Close, Action::End(phase, why)]);
        self.enter(phase, actions)
    }
}
