//! Random command sequences to our server and to a real Redis, replies, what is
//! propagated and the final state compared; the state again after both have run their logs.
//!
//! ```text
//! cargo test --test differential -- --ours PATH [--oracle PATH] [--seconds N] [--seed N]
//!                                   [--length N] [--groups string,keys,...,blocking] [--keep-going]
//!                                   [--args '--io-threads 2']
//! ```
//!
//! `--args` gives our server further arguments, separated by spaces.
//!
//! A sequence is a pure function of its seed (and of the day: absolute expiry times are built
//! around the hour it is). On a difference the sequence is shrunk and printed as `redis-cli` lines
//! with its seed, and the exit status is 1. A difference that does not show again when the same
//! sequence is played again is printed as unstable and does not fail the run.

mod blocking;
mod compare;
mod generator;
mod grammar;
mod log;
mod resp;
mod servers;
mod shrink;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use compare::KeyState;
use generator::{Generator, Grammar};
use resp::{Args, Reply};
use servers::{CONNECTIONS, Server, Step};

struct Options {
    ours: PathBuf,
    oracle: PathBuf,
    seconds: u64,
    seed: u64,
    length: usize,
    groups: Vec<String>,
    keep_going: bool,
    arguments: Vec<String>,
}

fn main() {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return,
        Err(text) => fail(2, &text),
    };
    match run(&options) {
        Ok(true) => {}
        Ok(false) => std::process::exit(1),
        Err(text) => fail(2, &text),
    }
}

fn fail(status: i32, text: &str) -> ! {
    eprintln!("differential: {text}");
    std::process::exit(status)
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options {
        ours: PathBuf::new(),
        oracle: PathBuf::from("redis-server"),
        seconds: 60,
        seed: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |d| d.as_secs())
            * 1000,
        length: 60,
        groups: Vec::new(),
        keep_going: false,
        arguments: Vec::new(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        let number = |text: String| text.parse().map_err(|_| format!("not a number: {text}"));
        match arg.as_str() {
            "--ours" => options.ours = value()?.into(),
            "--oracle" => options.oracle = value()?.into(),
            "--seconds" => options.seconds = number(value()?)?,
            "--seed" => options.seed = number(value()?)?,
            "--length" => options.length = number(value()?)? as usize,
            "--groups" => options.groups = value()?.split(',').map(str::to_string).collect(),
            "--args" => {
                options.arguments = value()?.split_whitespace().map(str::to_string).collect();
            }
            "--keep-going" => options.keep_going = true,
            // Asked by test runners for the tests inside: there are none.
            "--list" => return Ok(None),
            _ => return Err(format!("unknown argument {arg}")),
        }
    }
    if options.ours.as_os_str().is_empty() {
        return Err("give the server under test: --ours PATH".into());
    }
    Ok(Some(options))
}

/// What a server holds, or why that cannot be read.
type State = Result<Vec<KeyState>, String>;

/// The two servers and what both start every sequence from.
struct Pair {
    oracle: Server,
    ours: Server,
    settings: Vec<(&'static str, &'static str)>,
    /// Both run their logs again at the end of the sequence.
    replays: bool,
}

/// Where and how a sequence came apart.
struct Mismatch {
    step: usize,
    text: String,
}

impl Pair {
    /// Plays a sequence on both servers up to the first difference.
    fn play(
        &mut self,
        steps: &[Step],
        resp3: [bool; CONNECTIONS],
    ) -> Result<Option<Mismatch>, String> {
        for server in [&mut self.oracle, &mut self.ours] {
            server.reset(resp3, &self.settings, self.replays)?;
            server.propagated()?;
        }
        let mut queued: [Vec<Args>; CONNECTIONS] = Default::default();
        for (at, step) in steps.iter().enumerate() {
            if let Step::Scan { conn, .. } = step
                && !self.oracle.free(*conn)
            {
                continue;
            }
            let theirs = self.oracle.play(step, None);
            let mine = self.ours.play(step, Some(&theirs));
            if compare::parted(&mine) {
                return Ok(None);
            }
            let conn = step.conn();
            if let Some(mut text) = compare::difference(step, &queued[conn], &theirs, &mine) {
                if !self.ours.alive() {
                    text.push_str("\n  ours has ended; its log:\n");
                    text.push_str(&self.ours.log_tail());
                }
                return Ok(Some(Mismatch { step: at, text }));
            }
            let commands = step.commands();
            if commands.len() == theirs.replies.len() {
                for (args, reply) in commands.iter().zip(&theirs.replies) {
                    compare::track(Some(args), reply, &mut queued[conn]);
                }
            }
        }
        let by_chance = steps.iter().flat_map(Step::commands).any(|args| {
            let name = generator::name_of(args);
            name == b"SCAN" || name == b"RANDOMKEY"
        });
        Ok(self.aftermath(by_chance)?.map(|text| Mismatch {
            step: steps.len(),
            text,
        }))
    }

    /// The first difference in what the servers propagated and hold, or in what they hold once
    /// they have run their logs again.
    fn aftermath(&mut self, by_chance: bool) -> Result<Option<String>, String> {
        let theirs = self.oracle.propagated()?;
        let mine = match self.ours.propagated() {
            Ok(mine) => mine,
            Err(text) => return Ok(Some(text)),
        };
        if let Some(text) = log::difference(&theirs, &mine, by_chance) {
            return Ok(Some(text));
        }
        let (theirs, before) = match self.states()? {
            (theirs, Ok(mine)) => (theirs, mine),
            (_, Err(text)) => return Ok(Some(text)),
        };
        let difference = compare::state_difference(&theirs, &before);
        if difference.is_some() || !self.replays {
            return Ok(difference);
        }
        self.oracle.replay()?;
        if let Err(text) = self.ours.replay() {
            return Ok(Some(format!("ours cannot run its log again: {text}")));
        }
        let (theirs, mine) = match self.states()? {
            (theirs, Ok(mine)) => (theirs, mine),
            (_, Err(text)) => return Ok(Some(text)),
        };
        let (was, is) = (compare::positions(&before), compare::positions(&mine));
        if before.len() == mine.len() && was != is {
            return Ok(Some(format!(
                "after ours ran its log again, groups have read\n  {is:?}\n  and before that\n  {was:?}"
            )));
        }
        let [theirs, mine] = [theirs, mine].map(compare::without_positions);
        let text = compare::state_difference(&theirs, &mine);
        Ok(text.map(|text| format!("after both ran their logs again, {text}")))
    }

    /// What the oracle holds, and what ours does, or why that cannot be read.
    fn states(&self) -> Result<(Vec<KeyState>, State), String> {
        let read = |server: &Server| {
            let mut admin = server.admin().ok_or(())?;
            compare::state(&mut admin).map_err(|_| ())
        };
        let theirs = read(&self.oracle).map_err(|()| "the oracle's state cannot be read")?;
        let mine = read(&self.ours).map_err(|()| "the state of ours cannot be read".to_owned());
        Ok((theirs, mine))
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let mut pair = Pair {
        oracle: Server::start("oracle", &options.oracle, &[])?,
        ours: Server::start("ours", &options.ours, &options.arguments)?,
        settings: grammar::SETTINGS
            .iter()
            .filter(|(name, ..)| !matches!(*name, "port" | "databases" | "daemonize"))
            .map(|(name, start, _)| (*name, *start))
            .collect(),
        replays: false,
    };
    let unknown = unknown_commands(&pair.ours);
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(String::as_str).collect();
        println!(
            "not covered, unknown to the server under test: {}",
            names.join(" ")
        );
    }
    let wanted =
        |group: &str| options.groups.is_empty() || options.groups.iter().any(|g| g == group);
    let grammar = Grammar::new(|row| {
        wanted(row.group) && !(row.optional && unknown.contains(first_word(row.template)))
    });
    let blocks = wanted("blocking");
    if grammar.is_empty() && !blocks {
        return Err("no rows left: check --groups".into());
    }
    println!(
        "seed {}, {} s, {} steps a sequence",
        options.seed, options.seconds, options.length
    );
    let (mut sequences, mut steps_played, mut failed, mut unstable) =
        (0_u64, 0_usize, 0_u64, 0_u64);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        let seed = options.seed + sequences;
        sequences += 1;
        if blocks && (grammar.is_empty() || seed.is_multiple_of(BLOCKING)) {
            let acts = blocking::sequence(seed, options.length);
            steps_played += acts.len();
            match wait(&mut pair, seed, acts)? {
                Some(true) => failed += 1,
                Some(false) => unstable += 1,
                None => {}
            }
            if failed > 0 && (!options.keep_going || failed >= 20) {
                break;
            }
            continue;
        }
        let (steps, resp3) = sequence(&grammar, seed, options.length);
        steps_played += steps.len();
        pair.replays = seed.is_multiple_of(REPLAYED);
        let Some(mismatch) = pair.play(&steps, resp3)? else {
            continue;
        };
        if report(&mut pair, seed, steps, resp3, &mismatch)? {
            failed += 1;
            if !options.keep_going || failed >= 20 {
                break;
            }
        } else {
            unstable += 1;
        }
    }
    println!(
        "{steps_played} steps, {unstable} unstable; {} passed, {failed} failed",
        sequences - failed
    );
    Ok(failed == 0)
}

/// After one in so many sequences both servers run their logs again.
const REPLAYED: u64 = 3;

/// One in so many sequences is about clients that wait.
const BLOCKING: u64 = 4;

/// Plays a sequence of clients that wait. A difference is shrunk and printed; false when it does
/// not show again.
fn wait(pair: &mut Pair, seed: u64, mut acts: Vec<blocking::Act>) -> Result<Option<bool>, String> {
    let (oracle, ours) = (&mut pair.oracle, &mut pair.ours);
    let Some((at, first)) = blocking::play(oracle, ours, &acts)? else {
        return Ok(None);
    };
    acts.truncate(at + 1);
    let mut again = false;
    for _ in 0..3 {
        again |= blocking::play(oracle, ours, &acts)?.is_some();
    }
    if !again {
        let text = blocking::print(&acts);
        println!("UNSTABLE seed {seed}, did not show again:\n{text}{first}");
        return Ok(Some(false));
    }
    let mut fails =
        |fewer: &[blocking::Act]| matches!(blocking::play(oracle, ours, fewer), Ok(Some(_)));
    let small = shrink::drop_steps(acts, Duration::from_secs(60), &mut fails);
    let text = blocking::play(oracle, ours, &small)?.map_or(first, |(_, text)| text);
    println!("MISMATCH seed {seed}\n{}{text}\n", blocking::print(&small));
    Ok(Some(true))
}

/// The sequence of a seed. Absolute times count from the top of the hour.
fn sequence(grammar: &Grammar, seed: u64, length: usize) -> (Vec<Step>, [bool; CONNECTIONS]) {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64);
    let mut generator = Generator::new(grammar, seed, now_s - now_s % 3600 + 3600);
    let resp3 = generator.protocols();
    (generator.sequence(length), resp3)
}

/// Shrinks and prints. False when the difference does not show again.
fn report(
    pair: &mut Pair,
    seed: u64,
    mut steps: Vec<Step>,
    resp3: [bool; CONNECTIONS],
    first: &Mismatch,
) -> Result<bool, String> {
    steps.truncate(first.step + 1);
    let mut again = false;
    for _ in 0..3 {
        if pair.play(&steps, resp3)?.is_some() {
            again = true;
            break;
        }
    }
    if !again {
        println!(
            "UNSTABLE seed {seed}, did not show again:\n{}{}",
            shrink::print(&steps, &resp3),
            first.text
        );
        return Ok(false);
    }
    let small = shrink::shrink(steps, Duration::from_secs(20), |fewer| {
        matches!(pair.play(fewer, resp3), Ok(Some(_)))
    });
    let text = pair
        .play(&small, resp3)?
        .map_or_else(|| first.text.clone(), |m| m.text);
    println!(
        "MISMATCH seed {seed}\n{}{text}\n",
        shrink::print(&small, &resp3)
    );
    Ok(true)
}

fn first_word(template: &str) -> &str {
    template.split_whitespace().next().unwrap_or(template)
}

/// The names of optional rows that `COMMAND INFO` of the server under test does not know.
fn unknown_commands(server: &Server) -> BTreeSet<String> {
    let Some(mut conn) = server.admin() else {
        return BTreeSet::new();
    };
    let names = grammar::ROWS
        .iter()
        .filter(|row| row.optional)
        .map(|row| first_word(row.template));
    names
        .filter(|name| match conn.ask(&["COMMAND", "INFO", name]) {
            Ok(Reply::Array(items)) => !matches!(items.first(), Some(Reply::Array(_))),
            _ => true,
        })
        .map(str::to_string)
        .collect()
}
