//! FAILOVER, as all threads see it: whether one is under way, to which replica, and how far it is.
//!
//! ```text
//! none ─► waits for a replica ─► in progress: we follow it ─► none
//!                │  time, ABORT         │ ABORT
//!                ▼                      ▼
//!               none                 giving up ─► none
//! ```
//!
//! What has to hold together is decided under one lock: no failover begins while this server is told to
//! follow somebody, and nothing is appended to the stream between the decision that a replica has all
//! of it and the moment from which on this server follows that replica. Who acts on it:
//! [`crate::replication`].

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// What FAILOVER is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Host and port of the replica that is to take over; any that has everything if not given.
    pub target: Option<(String, i64)>,
    /// Until when to wait for it, in Unix milliseconds; for ever if not given.
    pub until_ms: Option<i64>,
    /// When that time is over, it takes over all the same.
    pub force: bool,
}

impl Plan {
    /// As the log names what ended.
    pub fn name(&self) -> String {
        match &self.target {
            Some((host, port)) => format!("FAILOVER to {host}:{port}"),
            None => "FAILOVER to any replica".to_owned(),
        }
    }
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    None,
    /// Writes are paused, and a replica that has everything is waited for.
    Waits(Plan),
    /// It is followed, and told to take over.
    InProgress(Plan),
    /// This server is about to follow nobody again.
    GivesUp,
}

/// What to do next while a replica is waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look again when something changed.
    Wait,
    /// This one is to be followed now, though it lacks something if `forced`.
    Follow {
        /// Its host and port.
        target: (String, i64),
        /// The time was over.
        forced: bool,
    },
    /// The time is over, and the failover with it.
    TimedOut(Plan),
    /// Somebody ended it.
    Ended,
}

/// What became of an attempt to end a failover.
#[derive(Debug, PartialEq, Eq)]
pub enum Abort {
    /// There is none.
    None,
    /// It is over: nobody was followed yet.
    Ended(Plan),
    /// This server has to stop following first, and [`Failover::gave_up`] is to be told then. The plan is
    /// given to whoever asked first.
    GivesUp(Option<Plan>),
}

/// The state; see the module.
#[derive(Default)]
pub struct Failover {
    phase: Mutex<Phase>,
    /// A replica confirmed something, or the phase changed.
    changed: Condvar,
    /// There is one: to be read without the lock.
    on: AtomicBool,
}

impl Failover {
    /// True while there is one.
    pub fn is_on(&self) -> bool {
        self.on.load(SeqCst)
    }

    /// `master_failover_state`, of a server that follows somebody or not: it is in progress once this
    /// server is a replica.
    pub fn name(&self, follows: bool) -> &'static str {
        match *self.phase.lock() {
            Phase::None => "no-failover",
            Phase::Waits(_) => "waiting-for-sync",
            Phase::InProgress(_) if !follows => "waiting-for-sync",
            Phase::InProgress(_) | Phase::GivesUp => "failover-in-progress",
        }
    }

    fn enter(&self, phase: &mut Phase, next: Phase) -> Phase {
        self.on.store(!matches!(next, Phase::None), SeqCst);
        self.changed.notify_all();
        std::mem::replace(phase, next)
    }

    /// Begins one, if `may` says so, which is asked when there is none; false if it did not.
    pub fn begin(&self, plan: Plan, may: impl FnOnce() -> bool) -> bool {
        let mut phase = self.phase.lock();
        let begins = matches!(*phase, Phase::None) && may();
        if begins {
            self.enter(&mut phase, Phase::Waits(plan));
        }
        begins
    }

    /// Runs `act` while no failover can begin; `None` when there is one.
    pub fn without<R>(&self, act: impl FnOnce() -> R) -> Option<R> {
        let phase = self.phase.lock();
        matches!(*phase, Phase::None).then(act)
    }

    /// Runs `append`, which makes the stream longer without need, unless a replica is to have all of it
    /// within a time.
    pub fn unless_awaited(&self, append: impl FnOnce()) {
        let phase = self.phase.lock();
        match &*phase {
            Phase::None => append(),
            Phase::Waits(plan) if plan.until_ms.is_none() => append(),
            _ => {}
        }
    }

    /// What to do next at `now_ms`. `synced` finds a replica, the given one if there is one, that has all
    /// of the stream.
    pub fn decide(
        &self,
        now_ms: i64,
        synced: impl FnOnce(Option<&(String, i64)>) -> Option<(String, i64)>,
    ) -> Decision {
        let mut phase = self.phase.lock();
        let Phase::Waits(plan) = &*phase else {
            return Decision::Ended;
        };
        let is_over = plan.until_ms.is_some_and(|until| until <= now_ms);
        let (target, forced) = match (&plan.target, is_over) {
            (Some(target), true) if plan.force => (Some(target.clone()), true),
            (_, true) => {
                let plan = plan.clone();
                self.enter(&mut phase, Phase::None);
                return Decision::TimedOut(plan);
            }
            (target, false) => (synced(target.as_ref()), false),
        };
        let Some(target) = target else {
            return Decision::Wait;
        };
        let plan = Plan {
            target: Some(target.clone()),
            ..plan.clone()
        };
        self.enter(&mut phase, Phase::InProgress(plan));
        Decision::Follow { target, forced }
    }

    /// Runs `act` while the failover is in progress and nobody can abort it; `None` when somebody has.
    pub fn in_progress<R>(&self, act: impl FnOnce() -> R) -> Option<R> {
        let phase = self.phase.lock();
        matches!(*phase, Phase::InProgress(_)).then(act)
    }

    /// Waits until something changed while a replica is waited for, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        let mut phase = self.phase.lock();
        if matches!(*phase, Phase::Waits(_)) {
            self.changed.wait_for(&mut phase, limit);
        }
    }

    /// A replica confirmed something.
    pub fn heard(&self) {
        if self.is_on() {
            let _phase = self.phase.lock();
            self.changed.notify_all();
        }
    }

    /// FAILOVER ABORT.
    pub fn abort(&self) -> Abort {
        let mut phase = self.phase.lock();
        let next = match *phase {
            Phase::None => return Abort::None,
            Phase::Waits(_) => Phase::None,
            Phase::InProgress(_) | Phase::GivesUp => Phase::GivesUp,
        };
        match self.enter(&mut phase, next) {
            Phase::Waits(plan) => Abort::Ended(plan),
            Phase::InProgress(plan) => Abort::GivesUp(Some(plan)),
            Phase::None | Phase::GivesUp => Abort::GivesUp(None),
        }
    }

    /// This server follows nobody any more, after [`Abort::GivesUp`]; false when somebody told that.
    pub fn gave_up(&self) -> bool {
        let mut phase = self.phase.lock();
        let ends = matches!(*phase, Phase::GivesUp);
        if ends {
            self.enter(&mut phase, Phase::None);
        }
        ends
    }

    /// The replica took over, or refused; its plan, unless the failover was aborted meanwhile.
    pub fn answered(&self) -> Option<Plan> {
        let mut phase = self.phase.lock();
        if !matches!(*phase, Phase::InProgress(_)) {
            return None;
        }
        match self.enter(&mut phase, Phase::None) {
            Phase::InProgress(plan) => Some(plan),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(plan: Plan) -> Failover {
        let failover = Failover::default();
        assert!(failover.begin(plan, || true));
        failover
    }

    fn target() -> Option<(String, i64)> {
        Some(("h".to_owned(), 1))
    }

    #[test]
    fn any_replica_that_has_everything_takes_over() {
        let failover = begun(Plan::default());
        assert!(!failover.begin(Plan::default(), || true));
        assert_eq!(failover.name(true), "waiting-for-sync");
        assert_eq!(failover.without(|| ()), None);
        assert_eq!(failover.decide(0, |_| None), Decision::Wait);
        let follow = Decision::Follow {
            target: ("h".to_owned(), 1),
            forced: false,
        };
        assert_eq!(failover.decide(0, |_| target()), follow);
        assert_eq!(failover.name(true), "failover-in-progress");
        failover.unless_awaited(|| unreachable!("the stream has its end"));
        assert_eq!(failover.answered().and_then(|plan| plan.target), target());
        assert_eq!(
            (failover.name(true), failover.is_on()),
            ("no-failover", false)
        );
        assert_eq!(failover.answered(), None);
        assert_eq!(failover.abort(), Abort::None);
    }

    #[test]
    fn when_the_time_is_over_it_ends_or_is_forced() {
        let plan = |force| Plan {
            target: target(),
            until_ms: Some(100),
            force,
        };
        let failover = begun(plan(false));
        assert_eq!(failover.decide(99, |_| None), Decision::Wait);
        assert_eq!(
            failover.decide(100, |_| target()),
            Decision::TimedOut(plan(false))
        );
        assert_eq!(failover.decide(100, |_| target()), Decision::Ended);
        let failover = begun(plan(true));
        let forced = Decision::Follow {
            target: ("h".to_owned(), 1),
            forced: true,
        };
        assert_eq!(failover.decide(100, |_| None), forced);
    }

    #[test]
    fn one_abort_ends_it_whatever_the_replica_answers_then() {
        let failover = begun(Plan::default());
        assert_eq!(failover.abort(), Abort::Ended(Plan::default()));
        assert_eq!(failover.name(true), "no-failover");
        let failover = begun(Plan::default());
        failover.decide(0, |_| target());
        assert!(matches!(failover.abort(), Abort::GivesUp(Some(_))));
        assert_eq!(failover.abort(), Abort::GivesUp(None));
        assert_eq!(failover.answered(), None);
        assert_eq!(failover.name(true), "failover-in-progress");
        assert!(failover.gave_up() && !failover.gave_up());
        assert_eq!(failover.name(true), "no-failover");
    }
}
