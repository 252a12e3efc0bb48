//! Fields of hashes whose time is over: how their removal by the cron is propagated.

use std::time::{Duration, Instant};

use tessera::commands;
use tessera::config::Settings;
use tessera::dispatch::table::Table;
use tessera::dispatch::testing::Harness;
use tessera::dispatch::upkeep::Upkeep;
use tessera::server::boot;

/// Longest wait for the fields' time to be over.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn fields_that_go_together_are_propagated_as_one_transaction() {
    let (shared, _requests) = boot::build(Settings::default(), None, Table::new(commands::all()));
    let (mut harness, mut upkeep) = (Harness::new(shared), Upkeep::default());
    let mut run = |line: &str, upkeep: &mut Upkeep| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        upkeep.slow(&harness.shared);
        harness.run(&words)
    };
    run("HSET h a 1 b 2 c 3", &mut upkeep);
    run("HPEXPIRE h 20 FIELDS 2 a b", &mut upkeep);
    let begin = Instant::now();
    let propagated = loop {
        let propagated = run("PING", &mut upkeep).propagated;
        if !propagated.is_empty() {
            break propagated;
        }
        assert!(begin.elapsed() < PATIENCE, "the fields stay");
    };
    let mut fields = propagated[1..3].to_vec();
    fields.sort();
    assert_eq!(fields, [r#"HDEL "h" "a""#, r#"HDEL "h" "b""#]);
    assert_eq!((&*propagated[0], &*propagated[3]), ("MULTI", "EXEC"));
    assert_eq!(propagated.len(), 4);
}
