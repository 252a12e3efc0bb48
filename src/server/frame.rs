//! The frame around the workers: listeners, signals, requests of commands, shutdown.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::config::{Settings, strerror};
use crate::dispatch::context::Shared;
use crate::dispatch::control::{Refused, Request};
use crate::net::listener::{self, Peer};
use crate::net::worker::Link;

/// Port and addresses of listeners, as the parameters name them.
type Bound = (u16, Vec<String>);

/// What the frame holds.
pub struct Frame {
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
    tcp: Vec<JoinHandle<()>>,
    /// Port and addresses that `tcp` listens on.
    bound: Option<Bound>,
    unix: Option<JoinHandle<()>>,
}

impl Frame {
    /// Binds what the parameters say. An error is a reason not to start, already logged.
    pub fn new(shared: Arc<Shared>, workers: Vec<Arc<Link>>) -> Result<Self, ()> {
        let mut frame = Self {
            shared,
            workers: workers.into(),
            tcp: Vec::new(),
            bound: None,
            unix: None,
        };
        let settings = frame.shared.config.load();
        if settings.port != 0 {
            let listeners = bind_all(&settings).map_err(|_| {
                tracing::warn!(
                    "Failed listening on port {} (TCP), aborting.",
                    settings.port
                );
            })?;
            frame.serve_tcp(listeners);
            frame.bound = Some(bound_by(&settings));
        }
        if !settings.unixsocket.is_empty() {
            let path = settings.unixsocket.to_str().into_owned();
            let bound = listener::bind_unix(&settings).and_then(UnixListener::from_std);
            let listener = bound.map_err(|error| {
                tracing::warn!("Failed opening Unix socket: bind: {}", strerror(&error));
            })?;
            frame.unix = Some(tokio::spawn(accept_unix(
                listener,
                path,
                Arc::clone(&frame.shared),
                Arc::clone(&frame.workers),
            )));
        }
        if frame.tcp.is_empty() && frame.unix.is_none() {
            tracing::warn!("Configured to not listen anywhere, exiting.");
            return Err(());
        }
        Ok(frame)
    }

    fn serve_tcp(&mut self, listeners: Vec<TcpListener>) {
        for listener in listeners {
            let (shared, workers) = (Arc::clone(&self.shared), Arc::clone(&self.workers));
            self.tcp
                .push(tokio::spawn(accept_tcp(listener, shared, workers)));
        }
    }

    /// Runs until the server shall end; the result is the exit status.
    pub async fn run(mut self, mut requests: UnboundedReceiver<Request>) -> io::Result<i32> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Hang-ups and broken pipes are no reason to end.
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    tracing::warn!("Received SIGTERM scheduling shutdown...");
                    return Ok(self.shut_down());
                }
                _ = interrupt.recv() => {
                    tracing::warn!("Received SIGINT scheduling shutdown...");
                    return Ok(self.shut_down());
                }
                _ = hangup.recv() => {}
                request = requests.recv() => match request {
                    Some(Request::Shutdown { save: Some(true), force: false, failed, .. }) => {
                        tracing::warn!("User requested shutdown...");
                        tracing::warn!("Error trying to save the DB, can't exit: persistence is not available");
                        let _ = failed.send(());
                    }
                    Some(Request::Shutdown { .. }) => return Ok(self.shut_down()),
                    Some(Request::Listeners(answer)) => {
                        let _ = answer.send(self.rebind().await);
                    }
                    None => return Ok(0),
                },
            }
        }
    }

    /// Listens where the parameters say now. When that fails and the port was to change, the old
    /// listeners stay; other addresses on the same port may overlap with the old ones, which
    /// therefore go first, and come back when the caller restores the parameters and asks again.
    async fn rebind(&mut self) -> Result<(), Refused> {
        let settings = self.shared.config.load();
        let wanted = (settings.port != 0).then(|| bound_by(&settings));
        if wanted == self.bound {
            return Ok(());
        }
        let same_port = matches!((&wanted, &self.bound), (Some(new), Some(old)) if new.0 == old.0);
        if same_port {
            self.close_tcp().await;
        }
        let listeners = match &wanted {
            Some(_) => bind_all(&settings).map_err(|_| Refused)?,
            None => Vec::new(),
        };
        self.close_tcp().await;
        self.serve_tcp(listeners);
        self.bound = wanted;
        Ok(())
    }

    /// Closes the listeners; their addresses are free when this returns.
    async fn close_tcp(&mut self) {
        for task in std::mem::take(&mut self.tcp) {
            task.abort();
            let _ = task.await;
        }
        self.bound = None;
    }

    fn shut_down(self) -> i32 {
        tracing::warn!("User requested shutdown...");
        let settings = self.shared.config.load();
        for task in self.tcp.iter().chain(&self.unix) {
            task.abort();
        }
        if settings.daemonize || !settings.pidfile.is_empty() {
            tracing::info!("Removing the pid file.");
            // It may have been removed by whoever stops us.
            let _ = std::fs::remove_file(settings.pidfile.as_path());
        }
        for worker in self.workers.iter() {
            worker.stop();
        }
        if !settings.unixsocket.is_empty() {
            tracing::info!("Removing the unix socket file.");
            let _ = std::fs::remove_file(settings.unixsocket.as_path());
        }
        tracing::warn!("Redis is now ready to exit, bye bye...");
        0
    }
}

fn bound_by(settings: &Settings) -> Bound {
    let addresses = settings.bind.iter().map(|address| address.to_string());
    (settings.port, addresses.collect())
}

fn bind_all(settings: &Settings) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in &settings.bind {
        match listener::bind_tcp(address, settings.port, settings.tcp_backlog) {
            Ok(Some(bound)) => listeners.push(TcpListener::from_std(bound)?),
            Ok(None) => {}
            Err(error) => {
                let reason = strerror(&error);
                tracing::warn!(
                    "Warning: Could not create server TCP listening socket {}:{}: bind: {reason}",
                    address.trim_start_matches('-'),
                    settings.port
                );
                return Err(error);
            }
        }
    }
    Ok(listeners)
}

async fn accept_tcp(listener: TcpListener, shared: Arc<Shared>, workers: Arc<[Arc<Link>]>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                let local = stream.local_addr().unwrap_or(address);
                listener::admit(&shared, &workers, stream.into(), Peer::Tcp(address, local));
            }
            Err(error) => accept_failed(&shared, &error).await,
        }
    }
}

async fn accept_unix(
    listener: UnixListener,
    path: String,
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                listener::admit(&shared, &workers, stream.into(), Peer::Unix(path.clone()));
            }
            Err(error) => accept_failed(&shared, &error).await,
        }
    }
}

/// Out of files, most likely: log it, and try again when some may have been closed.
async fn accept_failed(shared: &Shared, error: &io::Error) {
    tracing::warn!("Accepting client connection: {}", strerror(error));
    shared
        .stats
        .global
        .rejected_connections
        .fetch_add(1, Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}
