//! Leaving well: a primary that is about to end has a replica take its place first, as by CLUSTER FAILOVER
//! on the replica, so that no write fails and none is lost. That is the rule here (`auto-failover-on-shutdown`);
//! by Valkey's names it can be asked for each time: SHUTDOWN FAILOVER, `shutdown-on-sigterm failover`.
//!
//! The replica is asked as a client would, so any node that knows CLUSTER FAILOVER will do. It takes over
//! only with all that this primary has; if it cannot, this server ends as it would without one.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::failover::MANUAL_TIMEOUT;
use crate::cluster::handle::Cluster;
use crate::cluster::node::flag;
use crate::config::Settings;
use crate::dispatch::context::Shared;
use crate::propagation::State;
use crate::resp::write::Output;
use crate::wire::Duplex;

/// How often it is looked whether the replica has taken over.
const LOOK: Duration = Duration::from_millis(5);

/// The replica that would take this server's place: the one that has most, among those that are in sync.
pub fn heir(shared: &Shared) -> Option<SocketAddr> {
    let settings = shared.config.settings();
    let cluster = shared.cluster.as_ref()?;
    if settings.shutdown_timeout == 0 {
        return None;
    }
    let in_sync: Vec<i64> = {
        let replicas = shared.replication.replicas();
        let online = replicas
            .iter()
            .filter(|replica| replica.state() == State::Online);
        online.map(|replica| replica.port).collect()
    };
    let machine = cluster.machine();
    let view = machine.view();
    let me = view.me();
    if !me.is_primary() || me.slots.is_empty() || machine.fails() {
        return None;
    }
    let able = me
        .replicas
        .iter()
        .map(|index| view.node(*index))
        .filter(|node| {
            let ill = flag::FAILED | flag::SUSPECTED | flag::NO_ADDRESS | flag::NO_FAILOVER;
            !node.is(ill)
                && node.link.is_some()
                && [node.port, node.plain_port]
                    .iter()
                    .any(|port| in_sync.contains(&(*port).into()))
        });
    let best = able.max_by_key(|node| node.offset)?;
    let ip: IpAddr = best.ip.parse().ok()?;
    Some(SocketAddr::new(ip, best.port))
}

/// Has `heir` take this server's place; waits until it has, or cannot. Not for a worker to call.
pub fn hand_over(shared: &Shared, heir: SocketAddr) {
    let settings = shared.config.load();
    let limit = Duration::from_secs(settings.shutdown_timeout.max(0).unsigned_abs().into())
        .min(Duration::from_millis(MANUAL_TIMEOUT.unsigned_abs()));
    tracing::info!("Handing over to replica {heir} before shutting down.");
    let begun = Instant::now();
    let asked = ask(shared, heir, &settings, limit);
    if let Err(error) = asked {
        tracing::warn!("Replica {heir} does not take over: {error}");
        return;
    }
    while begun.elapsed() < limit {
        let cluster = shared.cluster.as_ref();
        let is_replica = |cluster: &Arc<Cluster>| !cluster.machine().view().me().is_primary();
        // And nothing more is added to the stream that goes on there.
        if shared.replication.upstream.follows() && cluster.is_none_or(is_replica) {
            tracing::info!("Replica {heir} has taken over.");
            return;
        }
        std::thread::sleep(LOOK);
    }
    tracing::warn!("Replica {heir} has not taken over in time.");
}

/// Tells a replica to take over.
fn ask(shared: &Shared, heir: SocketAddr, settings: &Settings, limit: Duration) -> io::Result<()> {
    let socket = TcpStream::connect_timeout(&heir, limit)?;
    let mut socket = match settings.tls_cluster {
        true => {
            socket.set_nonblocking(true)?;
            let stream = shared.tls.connect(socket.into(), Instant::now() + limit)?;
            Duplex::new(stream, limit)?
        }
        false => Duplex::plain(socket, limit)?,
    };
    let mut requests = Output::new();
    let mut replies = 1;
    let request = |out: &mut Output, words: &[&[u8]]| {
        out.array(words.len());
        words.iter().for_each(|word| out.bulk(word));
    };
    if !settings.masterauth.is_empty() {
        match settings.masteruser.is_empty() {
            true => request(&mut requests, &[b"AUTH", &settings.masterauth]),
            false => request(
                &mut requests,
                &[b"AUTH", &settings.masteruser, &settings.masterauth],
            ),
        }
        replies += 1;
    }
    request(&mut requests, &[b"CLUSTER", b"FAILOVER"]);
    socket.write_all(&requests.to_vec())?;
    let mut lines = BufReader::new(socket);
    for _ in 0..replies {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        if !line.starts_with('+') {
            return Err(io::Error::other(line.trim_end().to_owned()));
        }
    }
    Ok(())
}
