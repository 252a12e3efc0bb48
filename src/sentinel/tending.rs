//! Scripts: started when there is room, tried again when they ask for it, killed when they take too long.

use super::jobs::{AT_ONCE, ATTEMPTS};
use super::machine::{Action, Level, Machine};

impl Machine {
    pub(super) fn tend_jobs(&mut self) {
        for at in 0..self.jobs.queue.len() {
            if self.jobs.running() >= AT_ONCE {
                break;
            }
            let job = &self.jobs.queue[at];
            if job.run.is_some() || (job.start != 0 && job.start > self.now) {
                continue;
            }
            let (run, now) = (self.number(), self.now);
            let job = &mut self.jobs.queue[at];
            job.run = Some(run);
            job.start = now;
            job.attempts += 1;
            let argv = job.argv.clone();
            self.do_(Action::Run { job: run, argv });
        }
        self.kill_late_jobs();
    }

    fn kill_late_jobs(&mut self) {
        for at in 0..self.jobs.queue.len() {
            let job = &self.jobs.queue[at];
            let late = self.now - job.start > self.periods.script_runtime;
            if let Some(run) = job.run.filter(|_| late) {
                let text = format!("{} {}", job.argv[0], job.pid);
                self.plain_event(Level::Warning, "-script-timeout", text);
                self.do_(Action::Kill(run));
            }
        }
    }

    pub(super) fn job_started(&mut self, run: u64, pid: u32) {
        if let Some(at) = self.jobs.of_run(run) {
            self.jobs.queue[at].pid = pid;
            self.plain_event(Level::Debug, "+script-child", pid.to_string());
        }
    }

    pub(super) fn job_not_started(&mut self, run: u64) {
        if let Some(at) = self.jobs.of_run(run) {
            let now = self.now;
            let job = &mut self.jobs.queue[at];
            (job.run, job.pid, job.start) = (None, 0, now);
            let text = format!("{} 99 0", job.argv[0]);
            self.plain_event(Level::Warning, "-script-error", text);
        }
    }

    pub(super) fn job_ended(&mut self, run: u64, code: i32, signal: i32) {
        let Some(at) = self.jobs.of_run(run) else {
            return;
        };
        let (now, retry) = (self.now, self.periods.script_retry);
        let job = &mut self.jobs.queue[at];
        let text = format!("{} {code} {signal}", job.pid);
        let again = (signal != 0 || code == 1) && job.attempts < ATTEMPTS;
        let error = format!("{} {signal} {code}", job.argv[0]);
        if again {
            (job.run, job.pid) = (None, 0);
            job.start = now + (retry << (job.attempts - 1));
        } else {
            self.jobs.queue.remove(at);
        }
        self.plain_event(Level::Debug, "-script-child", text);
        if !again && (signal != 0 || code != 0) {
            self.plain_event(Level::Warning, "-script-error", error);
        }
    }

    /// Has clients of a group told of its new master.
    pub(super) fn tell_clients(
        &mut self,
        master: u64,
        leads: bool,
        from: (String, u16),
        to: (String, u16),
    ) {
        let Some(script) = self.group(master).reconfig_script.clone() else {
            return;
        };
        let role = if leads { "leader" } else { "observer" };
        self.jobs.add(vec![
            script,
            self.inst(master).name.clone(),
            role.to_owned(),
            "start".to_owned(),
            from.0,
            from.1.to_string(),
            to.0,
            to.1.to_string(),
        ]);
    }
}
