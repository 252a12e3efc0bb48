//! Both sides together, in one thread, from a seed: messages come late or never, either server dies between any
//! two actions and comes back, the operator cancels, and a client writes all the time. What is held against
//! every state: never do both servers write; who serves has all that was acknowledged. And in the end: one has
//! the slots and the keys, the other neither.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::export::{self, Export};
use super::import::{self, Import};
use super::list::Phase;

type Keys = BTreeMap<u8, u64>;

/// What goes over the connection.
#[derive(Debug)]
enum Message {
    Establish,
    Ready,
    Cut(Keys),
    CutEnd,
    Change(u8, u64),
    Paused,
    All,
    Granted,
    Taken,
    Refused(String),
}

/// The server that has the slots at first.
#[derive(Default)]
struct Source {
    up: bool,
    keys: Keys,
    /// Its file: the slots are its own.
    owns: bool,
    /// Its file: it has granted them.
    grant: bool,
    /// What clients are told.
    doubtful: bool,
    paused: bool,
    thread: Option<Export>,
    todo: VecDeque<export::Action>,
    /// Of the stream, what is not sent.
    stream: Option<VecDeque<(u8, u64)>>,
}

/// The other one.
#[derive(Default)]
struct Target {
    up: bool,
    keys: Keys,
    /// Its file.
    owns: bool,
    strays: bool,
    serves: bool,
    /// Taken, but not in the file.
    taking: bool,
    thread: Option<Import>,
    todo: VecDeque<import::Action>,
}

#[derive(Default)]
struct Counts {
    successes: u32,
    failures: u32,
    doubts: u32,
    deaths: u32,
}

struct World {
    random: SmallRng,
    source: Source,
    target: Target,
    /// Messages there and back, while there is a connection.
    link: Option<(VecDeque<Message>, VecDeque<Message>)>,
    /// The source's question, while it waits for an answer.
    asks: bool,
    acknowledged: Keys,
    last: u64,
    calm: bool,
    counts: Counts,
}

impl World {
    fn new(seed: u64) -> Self {
        let (source, target) = (
            Source {
                up: true,
                owns: true,
                ..Source::default()
            },
            Target {
                up: true,
                ..Target::default()
            },
        );
        Self {
            random: SmallRng::seed_from_u64(seed),
            source,
            target,
            link: None,
            asks: false,
            acknowledged: Keys::new(),
            last: 0,
            calm: false,
            counts: Counts::default(),
        }
    }

    fn source_writes(&self) -> bool {
        let source = &self.source;
        source.up && source.owns && !source.doubtful && !source.paused
    }

    fn check(&self) {
        let target_writes = self.target.up && self.target.serves;
        assert!(!(self.source_writes() && target_writes), "both write");
        if self.source_writes() {
            assert_eq!(
                self.source.keys, self.acknowledged,
                "the source lacks something"
            );
        }
        if target_writes {
            assert_eq!(
                self.target.keys, self.acknowledged,
                "the target lacks something"
            );
        }
    }

    /// A client writes to who serves it.
    fn write(&mut self) {
        let (key, value) = (self.random.random_range(0..20), self.last + 1);
        if self.source_writes() {
            self.source.keys.insert(key, value);
            if let Some(stream) = &mut self.source.stream {
                stream.push_back((key, value));
            }
        } else if self.target.up && self.target.serves {
            self.target.keys.insert(key, value);
        } else {
            return;
        }
        self.last = value;
        self.acknowledged.insert(key, value);
    }

    fn tell_source(&mut self, event: export::Event) {
        if let Some(thread) = &mut self.source.thread {
            let actions = thread.step(event);
            self.source.todo.extend(actions);
        }
    }

    fn tell_target(&mut self, event: import::Event) {
        if let Some(thread) = &mut self.target.thread {
            let actions = thread.step(event);
            self.target.todo.extend(actions);
        }
    }

    fn say(&mut self, message: Message) {
        if let Some((there, _)) = &mut self.link {
            there.push_back(message);
        }
    }

    fn answer(&mut self, message: Message) {
        if let Some((_, back)) = &mut self.link {
            back.push_back(message);
        }
    }

    fn begin(&mut self) {
        let source = &mut self.source;
        if !source.up || !source.owns || source.thread.is_some() || !self.target.up {
            return;
        }
        if source.grant {
            let (thread, actions) = Export::in_doubt();
            source.thread = Some(thread);
            source.todo.extend(actions);
            return;
        }
        if self.calm {
            return;
        }
        source.thread = Some(Export::default());
        self.link = Some(Default::default());
        self.tell_source(export::Event::Connected);
    }

    /// The source does the next thing that it is to do.
    fn run_source(&mut self) {
        use export::{Action, Event};
        let Some(action) = self.source.todo.pop_front() else {
            return;
        };
        match action {
            Action::Authenticate => self.tell_source(Event::Authenticated),
            Action::Establish => self.say(Message::Establish),
            Action::Cut => {
                self.source.stream = Some(VecDeque::new());
                let cut = self.source.keys.clone();
                self.say(Message::Cut(cut));
                self.say(Message::CutEnd);
                self.tell_source(Event::CutBegun);
                self.tell_source(Event::CutSent);
            }
            Action::Follow => {
                self.send_stream();
                self.tell_source(Event::Near);
            }
            Action::Pause => {
                self.source.paused = true;
                self.tell_source(Event::Still);
            }
            Action::SendRest => {
                self.send_stream();
                self.say(Message::Paused);
            }
            Action::Grant => {
                self.source.grant = true;
                self.tell_source(Event::Granted);
            }
            Action::SayGranted => self.say(Message::Granted),
            Action::Doubt => {
                self.source.doubtful = true;
                self.counts.doubts += 1;
            }
            Action::Ask => self.asks = true,
            Action::Revoke => {
                self.source.grant = false;
                self.source.doubtful = false;
            }
            Action::Give => self.give(),
            Action::Resume => self.source.paused = false,
            Action::Close => self.cut(),
            Action::End(phase, _) => {
                match phase {
                    Phase::Success => self.counts.successes += 1,
                    _ => self.counts.failures += 1,
                }
                self.source.thread = None;
                self.source.stream = None;
                self.source.todo.clear();
            }
        }
    }

    fn give(&mut self) {
        self.source.owns = false;
        self.source.grant = false;
        self.source.keys.clear();
    }

    fn send_stream(&mut self) {
        let waiting = self.source.stream.as_mut().map(std::mem::take);
        for (key, value) in waiting.into_iter().flatten() {
            self.say(Message::Change(key, value));
        }
    }

    /// So does the target.
    fn run_target(&mut self) {
        use import::{Action, Event};
        let Some(action) = self.target.todo.pop_front() else {
            return;
        };
        match action {
            Action::Expect => {
                self.target.strays = true;
                self.tell_target(Event::Expected(Ok(())));
            }
            Action::Clear => {
                self.target.keys.clear();
                self.tell_target(Event::Cleared);
            }
            Action::SayReadyForKeys => self.answer(Message::Ready),
            Action::Write => self.tell_target(Event::Written),
            Action::SayReady => self.answer(Message::All),
            Action::Take if self.random.random_ratio(1, 8) => {
                self.tell_target(Event::Refused("no".to_owned()));
            }
            // It is in the file a while later.
            Action::Take if !self.target.taking => {
                self.target.taking = true;
                self.target.todo.push_front(Action::Take);
            }
            Action::Take => {
                self.target.taking = false;
                self.target.owns = true;
                self.tell_target(Event::Taken);
            }
            Action::Show => self.target.serves = self.target.owns,
            Action::SayTaken => self.answer(Message::Taken),
            Action::SayRefused(why) => self.answer(Message::Refused(why)),
            Action::Remove => {
                self.target.keys.clear();
                self.tell_target(Event::Removed);
            }
            Action::Forget => self.target.strays = false,
            Action::Close => {}
            Action::End(..) => {
                self.target.thread = None;
                self.target.todo.clear();
            }
        }
    }

    fn deliver_to_target(&mut self) {
        use import::Event;
        let Some(message) = self.link.as_mut().and_then(|(there, _)| there.pop_front()) else {
            return;
        };
        let takes = self.target.thread.as_ref().is_some_and(Import::takes_keys);
        match message {
            Message::Establish if self.target.thread.is_none() && !self.target.owns => {
                let (thread, actions) = Import::begin();
                self.target.thread = Some(thread);
                self.target.todo.extend(actions);
            }
            Message::Cut(keys) if takes => self.target.keys.extend(keys),
            Message::Change(key, value) if takes => _ = self.target.keys.insert(key, value),
            Message::CutEnd => self.tell_target(Event::SnapshotEnd),
            Message::Paused => self.tell_target(Event::Paused),
            Message::Granted => self.tell_target(Event::Granted),
            _ => self.cut(),
        }
    }

    fn deliver_to_source(&mut self) {
        use export::Event;
        let Some(message) = self.link.as_mut().and_then(|(_, back)| back.pop_front()) else {
            return;
        };
        self.tell_source(match message {
            Message::Ready => Event::Established,
            Message::All => Event::Ready,
            Message::Taken => Event::Taken,
            Message::Refused(why) => Event::Dropped(why),
            other => Event::Lost(format!("{other:?}")),
        });
    }

    /// The connection ends; each side hears of it, the target also if it never does anything else.
    fn cut(&mut self) {
        if self.link.take().is_some() {
            self.tell_source(export::Event::Lost("cut".to_owned()));
            self.tell_target(import::Event::Trouble("cut".to_owned()));
        }
    }

    /// The question and its answer, or nothing.
    fn ask(&mut self) {
        if !self.asks || !self.source.up {
            return;
        }
        if !self.target.up || (!self.calm && self.random.random_ratio(1, 3)) {
            self.asks = false;
            return self.tell_source(export::Event::Unknown);
        }
        self.tell_target(import::Event::Trouble("asked".to_owned()));
        if self.target.thread.is_some() {
            // It waits until that one is over.
            return;
        }
        self.asks = false;
        self.tell_source(match self.target.owns {
            true => export::Event::Taken,
            false => export::Event::Dropped("asked".to_owned()),
        });
    }

    fn kill_source(&mut self) {
        self.counts.deaths += 1;
        self.cut();
        self.asks = false;
        self.source = Source {
            keys: std::mem::take(&mut self.source.keys),
            owns: self.source.owns,
            grant: self.source.grant,
            ..Source::default()
        };
    }

    fn kill_target(&mut self) {
        self.counts.deaths += 1;
        self.cut();
        self.target = Target {
            keys: std::mem::take(&mut self.target.keys),
            owns: self.target.owns,
            strays: self.target.strays,
            ..Target::default()
        };
    }

    fn start(&mut self) {
        let (source, target) = (&mut self.source, &mut self.target);
        if !source.up {
            source.up = true;
            source.doubtful = source.grant;
        }
        if !target.up {
            target.up = true;
            target.serves = target.owns;
            if target.strays && !target.owns {
                target.keys.clear();
                target.strays = false;
            }
        }
    }

    /// The source hears over the bus who has the slots.
    fn gossip(&mut self) {
        if self.source.up && self.target.up && self.target.owns && self.source.owns {
            self.give();
            self.tell_source(export::Event::Unowned { by_target: true });
        }
    }

    fn trouble(&mut self) {
        let is_down = !self.source.up || !self.target.up;
        if is_down && self.random.random_ratio(1, 20) {
            self.start();
        }
        // The most where it matters most.
        let thread = self.source.thread.as_ref();
        let matters = thread.is_some_and(|t| t.is_granted() || t.phase() == Phase::Granting);
        match self.random.random_range(0..if matters { 80 } else { 800 }) {
            0 => self.kill_source(),
            1 => self.kill_target(),
            2 => self.cut(),
            3 => self.tell_source(export::Event::Cancelled),
            4 => self.tell_source(export::Event::Late),
            5 => self.gossip(),
            _ => {}
        }
    }

    fn turn(&mut self) {
        if !self.calm {
            self.trouble();
        }
        self.begin();
        match self.random.random_range(0..6) {
            0 => self.write(),
            1 if self.source.up => self.run_source(),
            2 if self.target.up => self.run_target(),
            3 if self.target.up => self.deliver_to_target(),
            4 if self.source.up => self.deliver_to_source(),
            5 => self.ask(),
            _ => {}
        }
        self.check();
    }

    fn live(&mut self) {
        for _ in 0..1500 {
            self.turn();
        }
        self.calm = true;
        self.start();
        for _ in 0..3000 {
            self.turn();
        }
        self.gossip();
        let (source, target) = (&self.source, &self.target);
        assert!(
            source.owns != target.owns,
            "the slots are nobody's, or two have them"
        );
        assert!(!source.paused && !source.grant && target.owns == target.serves);
        let (has, has_not) = match source.owns {
            true => (&source.keys, &target.keys),
            false => (&target.keys, &source.keys),
        };
        assert_eq!(*has, self.acknowledged);
        assert!(has_not.is_empty(), "keys are left behind");
    }
}

#[test]
fn whatever_dies_a_slot_has_one_owner_with_all_that_was_acknowledged() {
    let number = std::env::var("TESSERA_SEEDS");
    let seeds: u64 = number.ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let mut total = Counts::default();
    for seed in 0..seeds {
        let lived = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.live();
            world.counts
        });
        let Ok(counts) = lived else {
            panic!("seed {seed}");
        };
        total.successes += counts.successes;
        total.failures += counts.failures;
        total.doubts += counts.doubts;
        total.deaths += counts.deaths;
    }
    let least = [total.successes, total.failures, total.doubts, total.deaths];
    assert!(
        seeds < 1000 || least.iter().all(|count| *count > 20),
        "something hardly ever happened: {least:?}"
    );
}
