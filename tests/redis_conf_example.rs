//! `redis.conf.example` and the table of parameters say the same.

use std::collections::BTreeSet;
use std::path::Path;

use tessera::base::text::split_args;
use tessera::config::file::{Unchecked, load_text};
use tessera::config::{Flags, PARAMS, Settings, lookup, params};

/// The number of workers depends on the machine, so its line is only an example.
const PER_MACHINE: &str = "io-threads";

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis.conf.example");
    std::fs::read_to_string(path).expect("redis.conf.example is part of the tree")
}

/// Lines that set something, those that are switched off with a `#` included.
fn settings(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn load(text: &str) -> Settings {
    let mut settings = Settings::default();
    load_text(&mut settings, text.as_bytes(), &mut Unchecked)
        .unwrap_or_else(|error| panic!("{error}"));
    settings
}

#[test]
fn every_parameter_is_shown_once() {
    let text = text();
    let mut shown = BTreeSet::new();
    let mut previous = String::new();
    for line in settings(&text) {
        let args = split_args(line.as_bytes()).expect("quotes are closed");
        let name = String::from_utf8(args[0].clone()).expect("names are ASCII");
        assert!(lookup(name.as_bytes()).is_some(), "no parameter {name:?}");
        assert!(
            shown.insert(name.clone()) || previous == name,
            "{name} is shown twice"
        );
        previous = name;
    }
    let public = PARAMS
        .iter()
        .filter(|param| !param.flags.has(Flags::HIDDEN));
    let expected: BTreeSet<_> = public.map(|param| param.name.to_owned()).collect();
    assert_eq!(shown, expected);
}

#[test]
fn every_value_is_the_default() {
    let text = text();
    let all: Vec<_> = settings(&text)
        .filter(|line| !line.starts_with(PER_MACHINE))
        .collect();
    for settings in [load(&text), load(&all.join("\n"))] {
        for param in PARAMS {
            let shown = String::from_utf8_lossy(&param.print(&settings)).into_owned();
            let default = String::from_utf8_lossy(&param.print(params::defaults())).into_owned();
            assert_eq!(shown, default, "{}", param.name);
        }
    }
}

#[test]
fn every_setting_is_explained() {
    let text = text();
    let lines: Vec<_> = text.lines().collect();
    for pair in lines.windows(2) {
        let is_setting = settings(pair[1]).next().is_some();
        let explained = pair[0].starts_with("# ") || settings(pair[0]).next().is_some();
        assert!(!is_setting || explained, "{:?} has no explanation", pair[1]);
    }
}
