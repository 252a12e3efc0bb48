//! Command scripts: what a client writes, and all that follows from it, as text.
//!
//! Each file below `tests/scripts/` runs against a fresh server in this process:
//!
//! ```text
//! # A comment.
//! % advance 1500          the clock moves by 1500 ms
//! % db 1                  the client's database
//! % notify KEA            notify-keyspace-events of this file (KEA if it does not say)
//! > SET "a b" \x00        a request; quotes as in redis-cli
//! < +OK                   the reply, on one line
//! ! set "a b"             an event of a key
//! ~ SET "a b" "\x00"      a command that is propagated
//! ```
//!
//! The expectations were written by a Redis 7.0.15 that ran the same lines, but for files that say
//! otherwise: commands of later versions, and what these corrected (`as_in_7_2.txt`; XREADGROUP tells
//! the group's position as in 7.2 in all of them). Unix times in
//! milliseconds stand as `<ms>`, those in seconds as `<s>`.

use std::fs;
use std::path::{Path, PathBuf};

use tessera::base::text::split_args;
use tessera::commands;
use tessera::config::{NotifyFlags, Settings};
use tessera::dispatch::table::Table;
use tessera::dispatch::testing::{Harness, Outcome};
use tessera::server::boot;

#[test]
fn scripts_do_what_redis_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(!files.is_empty());
    let failures: Vec<String> = files.iter().flat_map(|file| check(file)).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable directory") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Runs one script; a description of each request that went otherwise.
fn check(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("readable script");
    let notify = text.lines().find_map(|line| line.strip_prefix("% notify "));
    let notify = NotifyFlags::parse(notify.unwrap_or("KEA").as_bytes());
    let settings = Settings {
        io_threads: 1,
        notify_keyspace_events: notify.expect("known classes"),
        ..Settings::default()
    };
    let (shared, _requests) = boot::build(settings, None, Table::new(commands::all()), None);
    let mut harness = Harness::new(shared);
    let mut failures = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        match line.as_bytes().first() {
            None | Some(b'#') => {}
            Some(b'%') => direct(&mut harness, &line[1..]),
            Some(b'>') => {
                let args = split_args(&line.as_bytes()[1..]).expect("balanced quotes");
                let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                let got = describe(&harness.run(&args));
                let mut expected = Vec::new();
                while let Some((_, line)) =
                    lines.next_if(|(_, line)| line.starts_with(['<', '!', '~']))
                {
                    expected.push(line.to_owned());
                }
                if got != expected {
                    let place = format!("{}:{}: {line}", file.display(), number + 1);
                    let (expected, got) = (expected.join("\n  "), got.join("\n  "));
                    failures.push(format!("{place}\n expected\n  {expected}\n got\n  {got}"));
                }
            }
            Some(_) => panic!("{}:{}: what is this?", file.display(), number + 1),
        }
    }
    failures
}

fn direct(harness: &mut Harness, directive: &str) {
    let words: Vec<&str> = directive.split_whitespace().collect();
    match words[..] {
        ["advance", ms] => harness.advance_ms(ms.parse().expect("milliseconds")),
        ["db", index] => harness.session.db = index.parse().expect("a number"),
        ["notify", _] => {}
        _ => panic!("unknown directive {directive}"),
    }
}

fn describe(outcome: &Outcome) -> Vec<String> {
    let mut lines = vec![format!("< {}", timeless(&outcome.reply))];
    lines.extend(outcome.events.iter().map(|e| format!("! {}", timeless(e))));
    lines.extend(
        outcome
            .propagated
            .iter()
            .map(|c| format!("~ {}", timeless(c))),
    );
    lines
}

/// The text with Unix times of our days replaced: 13 or 10 digits that begin with 1.
fn timeless(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let len = from
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(from.len());
        let (digits, after) = from.split_at(len);
        result.push_str(before);
        result.push_str(match (len, digits.starts_with('1')) {
            (13, true) => "<ms>",
            (10, true) => "<s>",
            _ => digits,
        });
        rest = after;
    }
    result + rest
}
