//! CONFIG GET, CONFIG SET and CONFIG REWRITE as a client sees them.

use super::*;

fn config() -> Config {
    Config::new(Settings::default(), None)
}

fn get(config: &Config, name: &str) -> String {
    let found = config.get(&[name.as_bytes()]);
    assert_eq!(found.len(), 1, "{name}");
    String::from_utf8(found[0].1.clone()).unwrap()
}

fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<(), SetError> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
        .collect();
    config.set(&pairs, Caller::default(), &mut |_, _| Ok(()))
}

#[track_caller]
fn check(name: &str, value: &str, expected: &str) {
    let config = config();
    set(&config, &[(name, value)]).unwrap_or_else(|error| panic!("{name} {value:?}: {error:?}"));
    assert_eq!(get(&config, name), expected, "{name} {value:?}");
}

#[track_caller]
fn check_error(pairs: &[(&str, &str)], expected: &str) {
    let config = config();
    let error = set(&config, pairs).expect_err("must be refused");
    assert_eq!(
        String::from_utf8(error.reply()).unwrap(),
        expected,
        "{pairs:?}"
    );
    assert_eq!(config.version(), 0, "{pairs:?}");
}

/// `pairs` fail because of the parameter `name`.
#[track_caller]
fn check_reason(name: &str, value: &str, reason: &str) {
    let expected =
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}");
    check_error(&[(name, value)], &expected);
}
