//! The state machine driven by a seed: a server is toggled, rewritten and killed at random, and what
//! its files hold is compared with what it had acknowledged. The driver does what the server does,
//! step by step, on a disk that is a map; the state machine is the real one.

use std::cell::Cell;
use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// What is broken on purpose, to show that the checker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// What a rewrite does counts although the file was turned on or off since it began.
    OldCopy,
    /// The stream goes to a new increment before the manifest names it.
    LateManifest,
    /// A file that is turned off stays open.
    NeverClosed,
    /// The new base is named before it is complete.
    EarlyBase,
}

thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
}

pub(super) fn is_broken(fault: Fault) -> bool {
    FAULT.get() == Some(fault)
}

/// Names of the files.
const FILE: &str = "a";
const TEMPORARY: &str = "temp";

/// What the disk holds, the page cache included: it survives the process.
#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Vec<u32>>,
    manifest: Manifest,
}

/// A file that is appended to, as the real log: where it goes on, and to which file from where.
struct Open {
    name: String,
    next: Vec<(usize, String)>,
}

/// Where the thread of a rewrite is.
enum Step {
    Name,
    Cut,
    Base,
    Ask,
    Rename,
    Store,
    Commit,
}

struct Thread {
    rewrite: Rewrite,
    step: Step,
    manifest: Manifest,
    incr: Option<String>,
    base: String,
    snapshot: Vec<u32>,
}

struct World {
    random: SmallRng,
    now: i64,
    life: Life,
    disk: Disk,
    open: Vec<Open>,
    thread: Option<Thread>,
    /// Effects so far, each acknowledged.
    history: Vec<u32>,
    last: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            now: 0,
            life: Life::default(),
            disk: Disk::default(),
            open: Vec::new(),
            thread: None,
            history: Vec::new(),
            last: 0,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1;
        match self.random.random_range(0..100) {
            0..40 => self.append()?,
            40..45 => self.turn_on(),
            45..50 => self.turn_off(),
            50..55 => self.begin(),
            55..60 if self.life.status().scheduled => self.cron(),
            60..98 => self.work()?,
            _ => {
                self.check()?;
                self.restart();
            }
        }
        self.check()
    }

    /// A write is executed, appended and acknowledged.
    fn append(&mut self) -> Result<(), String> {
        self.last += 1;
        let at = self.history.len();
        self.history.push(self.last);
        if self.open.len() > 1 {
            return Err("two writers".to_owned());
        }
        for open in &mut self.open {
            while open.next.first().is_some_and(|(from, _)| *from <= at) {
                open.name = open.next.remove(0).1;
            }
            // A file that was renamed is the same file.
            let file = self.disk.files.entry(open.name.clone()).or_default();
            file.push(self.last);
        }
        Ok(())
    }

    fn turn_on(&mut self) {
        if self.life.turn_on() {
            self.begin();
            if self
                .thread
                .as_ref()
                .is_none_or(|t| !self.life.wants(&t.rewrite))
            {
                self.life.retry();
            }
        }
    }

    fn turn_off(&mut self) {
        if self.life.turn_off() && !is_broken(Fault::NeverClosed) {
            self.open.clear();
        }
    }

    fn cron(&mut self) {
        if self.life.pause(self.now * 10) == Pause::None {
            self.begin();
        }
    }

    fn begin(&mut self) {
        let Some(rewrite) = self.life.begin(self.now) else {
            return;
        };
        self.thread = Some(Thread {
            rewrite,
            step: Step::Name,
            manifest: self.life.manifest().clone(),
            incr: None,
            base: String::new(),
            snapshot: Vec::new(),
        });
    }

    /// The thread of the rewrite does its next step; sometimes the disk refuses.
    fn work(&mut self) -> Result<(), String> {
        let Some(mut thread) = self.thread.take() else {
            return Ok(());
        };
        let fails = self.random.random_range(0..12) == 0;
        match self.advance(&mut thread, fails)? {
            None => self.thread = Some(thread),
            Some(outcome) => {
                if self.life.ended(thread.rewrite, outcome, self.now) {
                    self.open.clear();
                    self.disk.files.remove(TEMPORARY);
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, t: &mut Thread, fails: bool) -> Result<Option<Outcome>, String> {
        match t.step {
            _ if fails && !matches!(t.step, Step::Commit | Step::Cut) => {
                return Ok(Some(Outcome::Failure));
            }
            Step::Name => {
                t.incr = match t.rewrite.mode() {
                    Mode::Waiting => Some(TEMPORARY.to_owned()),
                    Mode::On => Some(t.manifest.new_incr(FILE)),
                    Mode::Off => None,
                };
                if let Some(incr) = &t.incr {
                    self.disk.files.insert(incr.clone(), Vec::new());
                }
                if t.rewrite.mode() == Mode::On && !is_broken(Fault::LateManifest) {
                    self.disk.manifest = t.manifest.clone();
                    self.life.named(&t.rewrite, t.manifest.clone());
                }
                t.base = t.manifest.new_base(FILE, true);
                t.step = Step::Cut;
            }
            Step::Cut => {
                match self.life.at_cut(&t.rewrite) {
                    AtCut::Stale => return Ok(Some(Outcome::Cancelled)),
                    AtCut::Nothing => {}
                    AtCut::Open => self.open.push(Open {
                        name: t.incr.clone().expect("it waits for its first"),
                        next: Vec::new(),
                    }),
                    AtCut::Switch => {
                        let open = self.open.first_mut().ok_or("on, and nobody writes")?;
                        let incr = t.incr.clone().expect("it is on");
                        open.next.push((self.history.len(), incr));
                    }
                }
                t.snapshot = self.history.clone();
                t.step = Step::Base;
            }
            Step::Base => {
                let written = match is_broken(Fault::EarlyBase) {
                    true => t.snapshot.len() / 2,
                    false => t.snapshot.len(),
                };
                let base = t.snapshot[..written].to_vec();
                self.disk.files.insert(t.base.clone(), base);
                t.step = Step::Ask;
            }
            Step::Ask if !self.life.wants(&t.rewrite) => return Ok(Some(Outcome::Cancelled)),
            Step::Ask => t.step = Step::Rename,
            Step::Rename => {
                if t.rewrite.mode() == Mode::Waiting {
                    let name = t.manifest.new_incr(FILE);
                    let content = self.disk.files.remove(TEMPORARY).unwrap_or_default();
                    self.disk.files.insert(name.clone(), content);
                    for open in &mut self.open {
                        if open.name == TEMPORARY {
                            open.name = name.clone();
                        }
                    }
                }
                t.step = Step::Store;
            }
            Step::Store => {
                let kept = usize::from(t.rewrite.mode() != Mode::Off);
                t.manifest.retire_incr(kept);
                self.disk.manifest = t.manifest.clone();
                t.step = Step::Commit;
            }
            Step::Commit => {
                let manifest = t.manifest.clone();
                self.life.committed(&t.rewrite, manifest, 1, 0);
                return Ok(Some(Outcome::Success));
            }
        }
        Ok(None)
    }

    /// What a server that is started now would load.
    fn loaded(&self) -> Vec<u32> {
        let manifest = &self.disk.manifest;
        let parts = manifest.base.iter().chain(&manifest.incr);
        let files = parts.map(|part| self.disk.files.get(&part.name));
        files.flatten().flatten().copied().collect()
    }

    /// Were the process killed now: while the file is on nothing may be lost, and never is anything
    /// there twice or out of order.
    fn check(&self) -> Result<(), String> {
        let (mode, loaded) = (self.life.status().mode, self.loaded());
        if mode == Mode::On && loaded != self.history {
            return Err(format!("on: {loaded:?} instead of {:?}", self.history));
        }
        if mode == Mode::Off && !self.open.is_empty() {
            return Err("off, and somebody writes".to_owned());
        }
        match self.history.starts_with(&loaded) {
            true => Ok(()),
            false => Err(format!("{mode:?}: {loaded:?} of {:?}", self.history)),
        }
    }

    /// The process is killed and starts again, with the file on if it was.
    fn restart(&mut self) {
        let was_on = self.life.status().mode == Mode::On;
        (self.life, self.thread) = (Life::default(), None);
        self.open.clear();
        self.life.read(self.disk.manifest.clone());
        if !was_on {
            // It begins anew: what the files hold is history of another data set.
            self.history.clear();
            self.disk = Disk::default();
            self.life.read(Manifest::default());
            return;
        }
        self.history = self.loaded();
        let mut manifest = self.disk.manifest.clone();
        let name = match manifest.incr.last() {
            Some(part) => part.name.clone(),
            None => manifest.new_incr(FILE),
        };
        self.disk.manifest = manifest.clone();
        self.life.opened(manifest, 0, 0);
        self.open.push(Open {
            name,
            next: Vec::new(),
        });
    }
}

fn run(seed: u64, steps: usize) -> Result<Vec<Mode>, String> {
    let mut world = World::new(seed);
    let mut modes = Vec::new();
    for _ in 0..steps {
        world
            .step()
            .map_err(|error| format!("seed {seed}: {error}"))?;
        modes.push(world.life.status().mode);
    }
    Ok(modes)
}

/// For a long run; in the gate a second or two.
fn seeds() -> u64 {
    let seeds = std::env::var("TESSERA_SEEDS");
    seeds.ok().and_then(|n| n.parse().ok()).unwrap_or(3000)
}

#[test]
fn whatever_is_acknowledged_while_it_is_on_is_in_the_files_once() {
    let mut counts = [0; 3];
    for seed in 0..seeds() {
        for mode in run(seed, 300).expect("the files hold what was acknowledged") {
            counts[mode as usize] += 1;
        }
    }
    let least = counts.iter().min().expect("three modes");
    assert!(
        least * 20 > counts.iter().sum::<usize>(),
        "all modes are reached: {counts:?}"
    );
}

#[test]
fn the_checker_sees_what_is_broken() {
    for fault in [
        Fault::OldCopy,
        Fault::LateManifest,
        Fault::NeverClosed,
        Fault::EarlyBase,
    ] {
        FAULT.set(Some(fault));
        let seen = (0..200).find_map(|seed| run(seed, 300).err());
        FAULT.set(None);
        assert!(seen.is_some(), "{fault:?} is not seen");
    }
}

#[test]
fn a_cleaning_and_a_rewrite_exclude_each_other() {
    let mut life = Life::default();
    assert!(life.clean().is_none(), "nothing is history");
    let mut manifest = Manifest::default();
    manifest.new_incr(FILE);
    manifest.retire_incr(0);
    life.read(manifest.clone());
    assert_eq!(life.clean().expect("there is history").history.len(), 1);
    assert!(life.clean().is_none() && life.begin(0).is_none());
    manifest.history.clear();
    life.cleaned(manifest.clone());
    assert!(life.clean().is_none(), "it is gone");
    let rewrite = life.begin(0).expect("nothing is under way");
    manifest.new_incr(FILE);
    manifest.retire_incr(0);
    life.named(&rewrite, manifest);
    assert!(life.clean().is_none(), "the rewrite does it itself");
    assert!(!life.ended(rewrite, Outcome::Success, 1));
    assert!(life.clean().is_some());
}

#[test]
fn rewrites_that_fail_pause_longer_each_time() {
    let mut life = Life::default();
    let mut now = 0;
    let fail = |life: &mut Life, now| {
        let rewrite = life.begin(now).expect("none is under way");
        assert!(!life.ended(rewrite, Outcome::Failure, now));
    };
    for _ in 0..3 {
        assert_eq!(life.pause(now), Pause::None);
        fail(&mut life, now);
    }
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(life.pause(now), Pause::Begun(minutes));
        assert_eq!(life.pause(now + 1), Pause::On);
        now += minutes as i64 * 60;
        assert_eq!(life.pause(now), Pause::None);
        fail(&mut life, now);
    }
    life.schedule();
    assert_eq!(life.pause(now), Pause::None);
}
