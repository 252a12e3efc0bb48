//! The cluster's bus: the thread that drives a node's machine ([`crate::cluster`]), its sockets and its
//! file.
//!
//! One thread with a runtime of its own reads all links, tells the machine what came and what time it is, and
//! carries out what it says. Nothing that blocks is done there: the file is written, clients' turns are
//! awaited and keys are removed on other threads. So no slow command, save or disk delays a heartbeat; but
//! what promises something waits for the file.

mod driver;
pub mod handover;
mod happened;
mod link;
pub mod moving;
mod names;
mod picture;
mod saver;

use std::net::TcpListener;
use std::sync::Arc;

use self::driver::Beginning;
use crate::base::clock::Steady;
use crate::cluster::conf;
use crate::cluster::file::NodeFile;
use crate::cluster::handle::{Cluster, PATIENCE};
use crate::cluster::machine::{Action, Facts, Machine};
use crate::cluster::orders::{Order, Outcome};
use crate::config::{Settings, strerror};
use crate::dispatch::context::Shared;
use crate::propagation::Address;

/// What is needed to start the bus once the data set is loaded.
pub struct Bus(Beginning);

/// Takes the node's file, and makes the node what it was. The primary that it copies, if it does.
///
/// # Errors
/// The file is somebody else's, or damaged, or cannot be written; why is logged.
#[allow(clippy::result_unit_err, reason = "what is wrong is in the log")]
pub fn prepare(settings: &Arc<Settings>) -> Result<(Cluster, Bus, Option<Address>), ()> {
    check_ports(settings)?;
    let mut file = NodeFile::lock(settings.cluster_config_file.as_path())?;
    let clock = Steady::start();
    let loaded = file.load(clock.now())?;
    let is_new = loaded.is_none();
    let facts = Facts {
        now: clock.now(),
        ..Facts::default()
    };
    let seed = crate::base::random::bits();
    let (machine, mut first) = Machine::new(Arc::clone(settings), loaded, seed, facts);
    let id = machine.view().me().id;
    match is_new {
        true => tracing::info!("No cluster configuration found, I'm {id}"),
        false => tracing::info!("Node configuration loaded, I'm {id}"),
    }
    // That the file can be written is found out now.
    file.save(&conf::write(machine.view()), true)
        .map_err(|error| {
            tracing::warn!(
                "Fatal: can't update cluster config file: {}",
                strerror(&error)
            );
        })?;
    let follow = first
        .iter()
        .position(|action| matches!(action, Action::Follow { .. }));
    let primary = follow.map(|at| match first.remove(at) {
        Action::Follow { ip, port } => (ip, port),
        _ => unreachable!("that is what was looked for"),
    });
    let bus = Bus(Beginning {
        file,
        first,
        listeners: Vec::new(),
    });
    Ok((Cluster::new(machine, clock), bus, primary))
}

fn check_ports(settings: &Settings) -> Result<(), ()> {
    let port = if settings.tls_cluster {
        settings.tls_port
    } else {
        settings.port
    };
    if settings.cluster_port == 0 && port > 55_535 {
        tracing::warn!(
            "Redis port number too high. Cluster communication port is 10,000 port numbers higher \
             than your Redis port. Your Redis port number must be 55535 or less."
        );
        return Err(());
    }
    if settings.bind.is_empty() {
        tracing::warn!("No bind address is configured, but it is required for the Cluster bus.");
        return Err(());
    }
    Ok(())
}

impl Bus {
    /// The sockets that listen on the bus' port.
    pub fn listen(&mut self, listeners: Vec<TcpListener>) {
        self.0.listeners = listeners;
    }

    /// Holds data and slots against each other, and starts the thread. The data set is loaded, but for a
    /// replica's: that is its primary's affair.
    ///
    /// # Errors
    /// There are keys in other databases than 0: a cluster's node has none.
    #[allow(clippy::result_unit_err, reason = "what is wrong is in the log")]
    pub fn start(mut self, shared: &Arc<Shared>) -> Result<(), ()> {
        let keyspace = &shared.keyspace;
        let replica = shared.replication.upstream.follows();
        if !replica && (1..keyspace.databases()).any(|db| keyspace.len(db) > 0) {
            tracing::warn!(
                "You can't have keys in a DB different than DB 0 when in Cluster mode. Exiting."
            );
            return Err(());
        }
        let Some(cluster) = &shared.cluster else {
            return Ok(());
        };
        let empty = keyspace.len(0) == 0 && shared.stream.offset() == 0;
        if !replica && empty {
            // Nobody else changes the machine yet, and no replica is let in before the server is ready.
            let facts = Facts {
                now: cluster.now(),
                ..Facts::default()
            };
            let (_, actions) = cluster.machine().order(Order::StartEmpty, facts);
            self.0.first.extend(actions);
        }
        if !replica {
            let slots = crate::dispatch::slots::with_keys(shared);
            cluster.order(Order::Claim(slots.into_iter().collect()), false, |_| {});
        }
        self::moving::export::resume(shared, cluster);
        let server = Arc::clone(shared);
        let started = std::thread::Builder::new()
            .name("cluster-bus".to_owned())
            .spawn(move || driver::run(server, self.0));
        if let Err(error) = started {
            tracing::warn!(
                "Can't start the thread of the cluster bus: {}",
                strerror(&error)
            );
            return Err(());
        }
        Ok(())
    }
}

/// Has an order carried out, and waits for its outcome but not for the disk: for who cannot wait for
/// that, within a transaction.
pub fn order_at_once(cluster: &Cluster, order: Order) -> Outcome {
    let (tell, outcome) = std::sync::mpsc::channel();
    cluster.order(order, true, move |outcome| {
        // Whoever asked is waiting.
        let _ = tell.send(outcome);
    });
    // It waits for nobody but a server that stands still, at whose end it does not come back.
    let silent = || Err("The cluster bus does not answer".to_owned());
    outcome.recv_timeout(PATIENCE).unwrap_or_else(|_| silent())
}
