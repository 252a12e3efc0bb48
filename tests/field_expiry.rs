//! Fields of hashes with times: how their removal by the cron is propagated, and how INFO counts them.

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
    let (shared, _requests) =
        boot::build(Settings::default(), None, Table::new(commands::all()), None);
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

#[test]
fn info_counts_hashes_with_fields_that_expire_where_there_are_any() {
    let (shared, _requests) =
        boot::build(Settings::default(), None, Table::new(commands::all()), None);
    let mut harness = Harness::new(shared);
    let mut run = |line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        harness.run(&words).reply
    };
    let has = |info: &str, db: usize, timed: usize| {
        info.contains(&format!(
            "db{db}:keys=1,expires=0,avg_ttl=0,subexpiry={timed}"
        ))
    };
    run("HSET h a 1 b 2");
    // A line of 7.0.
    let info = run("INFO keyspace");
    assert!(info.contains("db0:keys=1,expires=0,avg_ttl=0"), "{info}");
    assert!(!info.contains("subexpiry"), "{info}");
    run("HPEXPIRE h 1000000 FIELDS 2 a b");
    assert!(has(&run("INFO keyspace"), 0, 1));
    run("HSET i a 1");
    run("HPEXPIRE i 1000000 FIELDS 1 a");
    run("MOVE i 1");
    run("SWAPDB 0 2");
    let info = run("INFO keyspace");
    assert!(has(&info, 1, 1) && has(&info, 2, 1), "{info}");
    assert!(!info.contains("db0"), "{info}");
    run("SELECT 2");
    run("HPERSIST h FIELDS 2 a b");
    run("SELECT 1");
    run("FLUSHDB");
    run("SET k v");
    let info = run("INFO keyspace");
    assert!(info.contains("db1:") && info.contains("db2:"), "{info}");
    assert!(!info.contains("subexpiry"), "{info}");
}
