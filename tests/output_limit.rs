//! Replies that may be of any length end at the client's output limit, and the client with them.

mod sockets;

use sockets::{PATIENCE, Server};

#[test]
fn endless_samples_stop_at_the_limit() {
    let limit = "normal 1000000 0 0";
    let server = Server::start(&["--client-output-buffer-limit", limit]);
    let mut client = server.client();
    client.ask("SADD set a b");
    client.ask("HSET hash a b");
    client.ask("ZADD zset 1 a 2 b");
    for request in [
        "SRANDMEMBER set -999999999",
        "HRANDFIELD hash -999999999",
        "HRANDFIELD hash -999999999 WITHVALUES",
        "ZRANDMEMBER zset -999999999 WITHSCORES",
    ] {
        let mut greedy = server.client();
        greedy.send(request);
        assert!(greedy.is_closed(), "{request} within {PATIENCE:?}");
    }
    let memory = client.ask("INFO memory");
    let peak = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_peak:"))
        .and_then(|bytes| bytes.parse::<u64>().ok());
    assert!(peak.is_some_and(|bytes| bytes < 64 << 20), "{memory}");
}
