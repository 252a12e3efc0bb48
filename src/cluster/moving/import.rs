//! The target of a migration.

use super::list::Phase;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Our file says whose keys these are; or why it does not.
    Expected(Result<(), String>),
    /// No old keys are left in the slots.
    Cleared,
    /// The source says that the cut is here.
    SnapshotEnd,
    /// The source says that it writes nothing any more, and that this was all.
    Paused,
    /// What came is in the append-only file.
    Written,
    /// The source says that it has granted the slots.
    Granted,
    /// The slots are ours in our file.
    Taken,
    /// They are not, and nothing was changed: why.
    Refused(String),
    /// Somebody asks what became of it, and closes it with that; or the connection is over, or what came makes
    /// no sense: why.
    Trouble(String),
    /// The keys are gone again.
    Removed,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Have our file say whose keys these are.
    Expect,
    /// Remove what is in the slots.
    Clear,
    /// Say that keys may come.
    SayReadyForKeys,
    /// Wait until what came is in the append-only file.
    Write,
    /// Say that all is here.
    SayReady,
    /// Take the slots, durably.
    Take,
    /// Show the slots' keys from now on.
    Show,
    /// Say that the slots are ours.
    SayTaken,
    /// Say that they are not, and never will be: why.
    SayRefused(String),
    /// Remove what came.
    Remove,
    /// Have our file forget about it.
    Forget,
    /// The connection is of no use any more.
    Close,
    /// It is over.
    End(Phase, String),
}

/// A target's machine.
#[derive(Debug)]
pub struct Import {
    phase: Phase,
    why: String,
}

impl Import {
    /// One that was asked for.
    pub fn begin() -> (Self, Vec<Action>) {
        let import = Self {
            phase: Phase::WaitingForAck,
            why: String::new(),
        };
        (import, vec![Action::Expect])
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Keys may come.
    pub fn takes_keys(&self) -> bool {
        matches!(
            self.phase,
            Phase::ReceivingSnapshot | Phase::WaitingForPaused
        )
    }

    /// Says what is to be done.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match (self.phase, event) {
            (phase, _) if phase.is_over() => Vec::new(),
            (Phase::WaitingForAck, Event::Expected(Ok(()))) => vec![Action::Clear],
            (Phase::WaitingForAck, Event::Expected(Err(why))) => {
                self.phase = Phase::Failed;
                let told = Action::SayRefused(why.clone());
                vec![told, Action::Close, Action::End(Phase::Failed, why)]
            }
            (Phase::WaitingForAck, Event::Cleared) => {
                self.phase = Phase::ReceivingSnapshot;
                vec![Action::SayReadyForKeys]
            }
            (Phase::ReceivingSnapshot, Event::SnapshotEnd) => {
                self.phase = Phase::WaitingForPaused;
                Vec::new()
            }
            (Phase::WaitingForPaused, Event::Paused) => {
                self.phase = Phase::FailoverRequested;
                vec![Action::Write]
            }
            (Phase::FailoverRequested, Event::Written) => vec![Action::SayReady],
            (Phase::FailoverRequested, Event::Granted) => {
                self.phase = Phase::FailoverGranted;
                vec![Action::Take]
            }
            (Phase::FailoverGranted, Event::Taken) => {
                self.phase = Phase::Success;
                let end = Action::End(Phase::Success, String::new());
                vec![Action::Show, Action::SayTaken, Action::Close, end]
            }
            (Phase::FailoverGranted, Event::Refused(why)) => {
                // It is closed before that is said.
                let mut actions = self.drop_all(why.clone());
                actions.push(Action::SayRefused(why));
                actions
            }
            // While they are being taken it is too late to stop that.
            (Phase::FailoverGranted, _) => Vec::new(),
            (Phase::CleaningUp, Event::Removed) => {
                self.phase = Phase::Failed;
                let why = std::mem::take(&mut self.why);
                vec![
                    Action::Show,
                    Action::Forget,
                    Action::Close,
                    Action::End(Phase::Failed, why),
                ]
            }
            (Phase::CleaningUp, _) => Vec::new(),
            (_, Event::Trouble(why)) => self.drop_all(why),
            _ => self.drop_all("Unexpected state machine transition".to_owned()),
        }
    }

    fn drop_all(&mut self, why: String) -> Vec<Action> {
        self.phase = Phase::CleaningUp;
        self.why = why;
        vec![Action::Remove]
    }
}
