//! The frame around the workers: listeners, signals, requests of commands, shutdown.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinHandle;

use super::ports::Ports;
use super::shutdown::Waiting;
use super::title::Title;
use super::watchdog::Watchdog;
use super::{admin, crash, process, shutdown};
use crate::bus::handover;
use crate::config::{Effect, Settings, ShutdownFlags, strerror};
use crate::dispatch::blocking::Parked;
use crate::dispatch::context::Shared;
use crate::dispatch::control::{Request, Shutdown};
use crate::durability::{append_only, save};
use crate::net::handshake::Handshakes;
use crate::net::listener::{self, Peer};
use crate::net::worker::Link;
use crate::observe::log;
use crate::wire::Stream;

/// How often a shutdown that waits for replicas looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// What the frame holds.
pub struct Frame {
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
    tcp: Ports,
    admin: Ports,
    tls: Ports,
    unix: Option<JoinHandle<()>>,
    title: Option<Title>,
    watchdog: Watchdog,
    /// The shutdown that waits for replicas.
    waiting: Option<Waiting>,
    /// A replica is taking over.
    hands_over: bool,
    terminate: Signal,
    interrupt: Signal,
}

impl Frame {
    /// Binds what the parameters say, and listens to signals. An error is a reason not to start,
    /// already logged.
    pub async fn new(
        shared: Arc<Shared>,
        workers: Vec<Arc<Link>>,
        title: Option<Title>,
        doors: &Arc<Doors>,
    ) -> Result<Self, ()> {
        let workers: Arc<[Arc<Link>]> = workers.into();
        let entrance = Entrance {
            doors: Arc::clone(doors),
            shared: Arc::clone(&shared),
            workers: Arc::clone(&workers),
            handshakes: Arc::default(),
        };
        let (plain, secure) = (entrance.clone(), entrance.clone());
        let plain = move |listener| tokio::spawn(accept_tcp(listener, plain.clone()));
        let secure = move |listener| tokio::spawn(accept_tls(listener, secure.clone()));
        let listen = |kind: SignalKind| {
            signal(kind).map_err(|error| tracing::warn!("Cannot listen to signals: {error}"))
        };
        let admin = admin::ports(&shared);
        let mut frame = Self {
            watchdog: Watchdog::new(Arc::clone(&shared), Arc::clone(&workers)),
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            shared,
            workers,
            tcp: Ports::new(|at| (at.port, at.bind.clone()), Arc::new(plain)),
            tls: Ports::new(|at| (at.tls_port, at.bind.clone()), Arc::new(secure)),
            admin,
            unix: None,
            title,
            waiting: None,
            hands_over: false,
        };
        let settings = frame.shared.config.load();
        frame.tcp.follow(&settings).await.map_err(|()| {
            tracing::warn!(
                "Failed listening on port {} (TCP), aborting.",
                settings.port
            );
        })?;
        frame.tls.follow(&settings).await.map_err(|()| {
            tracing::warn!(
                "Failed listening on port {} (TLS), aborting.",
                settings.tls_port
            );
        })?;
        frame.admin.follow(&settings).await.map_err(|()| {
            let port = settings.admin_port;
            tracing::warn!("Failed listening on port {port} (admin), aborting.");
        })?;
        if !settings.unixsocket.is_empty() {
            let path = settings.unixsocket.to_str().into_owned();
            let bound = listener::bind_unix(&settings).and_then(UnixListener::from_std);
            let listener = bound.map_err(|error| {
                tracing::warn!("Failed opening Unix socket: bind: {}", strerror(&error));
            })?;
            frame.unix = Some(tokio::spawn(accept_unix(listener, path, entrance)));
        }
        if frame.tcp.is_empty() && frame.tls.is_empty() && frame.unix.is_none() {
            tracing::warn!("Configured to not listen anywhere, exiting.");
            return Err(());
        }
        Ok(frame)
    }

    /// Has the listeners follow the parameters. A port may go from one kind to the other.
    async fn listen(&mut self, settings: &Settings) -> Result<(), ()> {
        let tls_first = self.tls.has(settings.port) && settings.tls_port != settings.port;
        let (first, second) = match tls_first {
            true => (&mut self.tls, &mut self.tcp),
            false => (&mut self.tcp, &mut self.tls),
        };
        first.follow(settings).await?;
        second.follow(settings).await
    }

    /// Has the process as a whole follow a parameter.
    pub fn follow(&mut self, effect: Effect) {
        let settings = self.shared.config.load();
        match effect {
            Effect::SignalHandlers => crash::handle_signals(settings.crash_log_enabled),
            Effect::WatchdogPeriod => self.watchdog.follow(&settings),
            // Everything else that comes here shows in the title.
            _ => {
                let file = self.shared.config.config_file().unwrap_or_default();
                if let Some(title) = &mut self.title {
                    title.set(&settings, file);
                }
            }
        }
    }

    /// Runs until the server shall end; the result is the exit status.
    pub async fn run(mut self, mut requests: UnboundedReceiver<Request>) -> io::Result<i32> {
        loop {
            let ended = tokio::select! {
                _ = self.terminate.recv() => {
                    log::signal("Received SIGTERM scheduling shutdown...");
                    self.signalled(|settings| settings.shutdown_on_sigterm)
                }
                _ = self.interrupt.recv() => {
                    log::signal("Received SIGINT scheduling shutdown...");
                    self.signalled(|settings| settings.shutdown_on_sigint)
                }
                request = requests.recv() => match request {
                    Some(request) => self.answer(request).await,
                    None => return Ok(0),
                },
                () = tokio::time::sleep(LOOK), if self.waiting.is_some() => self.look_at_replicas(),
            };
            if let Some(status) = ended {
                return Ok(status);
            }
        }
    }

    fn signalled(&mut self, flags: fn(&Settings) -> ShutdownFlags) -> Option<i32> {
        exit_on_another_interrupt();
        let flags = flags(&self.shared.config.settings());
        let how = Shutdown {
            save: flags.save(),
            now: flags.has(ShutdownFlags::NOW),
            force: flags.has(ShutdownFlags::FORCE),
            failover: flags.has(ShutdownFlags::FAILOVER),
        };
        self.begin_shutdown(how, None)
    }

    /// Does what a command asks; the exit status when that ends the server.
    async fn answer(&mut self, request: Request) -> Option<i32> {
        match request {
            Request::Shutdown { how, client } => return self.begin_shutdown(how, Some(client)),
            Request::HandedOver { how, clients } => {
                let goes_on = std::mem::take(&mut self.hands_over);
                match &mut self.waiting {
                    // Somebody insisted meanwhile.
                    Some(waiting) => waiting.clients.extend(clients),
                    None if goes_on => {
                        // Whoever took over has everything: there is nobody else to be waited for.
                        let now = how.now || self.shared.replication.upstream.follows();
                        return self.begin_to_end(Shutdown { now, ..how }, clients);
                    }
                    None => self.go_on(&clients),
                }
            }
            Request::AbortShutdown(answer) => {
                let waiting = self.waiting.take();
                let handing = std::mem::take(&mut self.hands_over);
                if let Some(waiting) = &waiting {
                    self.go_on(&waiting.clients);
                    tracing::info!("Shutdown manually aborted.");
                }
                // The client may be gone by now.
                let _ = answer.send(waiting.is_some() || handing);
            }
            Request::Listeners(answer) => {
                let settings = self.shared.config.load();
                let mut result = self.listen(&settings).await;
                if result.is_ok() {
                    result = self.admin.follow(&settings).await;
                }
                if result.is_err() {
                    tracing::warn!("Failed to bind");
                }
                self.follow(Effect::ProcTitle);
                let _ = answer.send(result);
            }
            Request::Follow(effect, answer) => {
                self.follow(effect);
                let _ = answer.send(());
            }
        }
        None
    }

    /// Ends the server, when its replicas have everything: the exit status, or `None` when it is to wait
    /// for them, or has to go on. Who asks while it waits already waits with it.
    fn begin_shutdown(&mut self, how: Shutdown, client: Option<Arc<Parked>>) -> Option<i32> {
        let how = match self.shared.sentinel {
            // A sentinel has nothing to save.
            Some(_) => Shutdown {
                save: Some(false),
                ..how
            },
            None => how,
        };
        if let Some(waiting) = &mut self.waiting {
            waiting.clients.extend(client);
            return None;
        }
        if self.hands_over {
            // Whoever insists does not want to wait.
            self.hands_over = false;
            return self.begin_to_end(how, client.into_iter().collect());
        }
        tracing::warn!("User requested shutdown...");
        process::notify("STOPPING=1\n");
        let clients: Vec<_> = client.into_iter().collect();
        let is_rule = || self.shared.config.settings().auto_failover_on_shutdown;
        let hands_over = how.failover || (!how.now && is_rule());
        match handover::heir(&self.shared).filter(|_| hands_over) {
            Some(heir) => self.hand_over(heir, how, clients),
            None => {
                if how.failover {
                    tracing::info!(
                        "Nobody takes over: this node has no slots, or no replica that is in sync."
                    );
                }
                self.begin_to_end(how, clients)
            }
        }
    }

    /// Has a replica take this primary's place first, on a thread of its own.
    fn hand_over(
        &mut self,
        heir: SocketAddr,
        how: Shutdown,
        clients: Vec<Arc<Parked>>,
    ) -> Option<i32> {
        self.hands_over = true;
        self.shared.threads.start_or_do("handover", move |shared| {
            handover::hand_over(shared, heir);
            shared.control.send(Request::HandedOver { how, clients });
        });
        None
    }

    /// Ends the server once its replicas have everything.
    fn begin_to_end(&mut self, how: Shutdown, clients: Vec<Arc<Parked>>) -> Option<i32> {
        if let Some(waiting) = &mut self.waiting {
            waiting.clients.extend(clients);
            return None;
        }
        if let Some(mut waiting) = Waiting::begin(&self.shared, how) {
            waiting.clients.extend(clients);
            self.waiting = Some(waiting);
            return None;
        }
        self.shut_down(how, &clients)
    }

    /// Goes on with the shutdown that waits, if replicas have everything or the time is over.
    fn look_at_replicas(&mut self) -> Option<i32> {
        let is_over = |waiting: &mut Waiting| waiting.is_over(&self.shared);
        let Waiting { how, clients, .. } = self.waiting.take_if(is_over)?;
        self.shut_down(how, &clients)
    }

    /// Ends the server in order: the exit status, or `None` when it has to go on, as `clients` are told
    /// then. No client gets a reply meanwhile, so whatever was acknowledged is saved.
    fn shut_down(&mut self, how: Shutdown, clients: &[Arc<Parked>]) -> Option<i32> {
        let shared = Arc::clone(&self.shared);
        // While everything stands still, so does who saves it.
        shutdown::save_cluster_file(&shared);
        // Nothing is given to other servers any more: it would be in the files all the same.
        let claims = shared.keyspace.close_claims();
        let ended = shared.status.stall.during(|| self.shut_down_now(how));
        if ended.is_some() {
            // For good.
            std::mem::forget(claims);
        } else {
            drop(claims);
            tracing::warn!(
                "Errors trying to shut down the server. Check the logs for more information."
            );
            self.go_on(clients);
        }
        ended
    }

    /// The server does not end.
    fn go_on(&self, clients: &[Arc<Parked>]) {
        CUT_SHORT.store(0, Relaxed);
        shutdown::cancel(&self.shared, clients);
    }

    fn shut_down_now(&mut self, Shutdown { save, force, .. }: Shutdown) -> Option<i32> {
        let settings = self.shared.config.load();
        shutdown::tell_of_replicas(&self.shared);
        if !append_only::may_close(&self.shared, force) {
            return None;
        }
        // What is loaded in part must not take the place of the file it comes from.
        let loading = self.shared.durability.loading.is_blocking();
        let save = if loading { Some(false) } else { save };
        let points = !settings.save.is_empty();
        self.shared.durability.saves.cancel();
        if save.unwrap_or(points) {
            tracing::info!("Saving the final RDB snapshot before exiting.");
            process::notify("STATUS=Saving the final RDB snapshot\n");
            let saved = save::save_at_end(&self.shared);
            if !saved && !force {
                tracing::warn!("Error trying to save the DB, can't exit.");
                process::notify("STATUS=Error trying to save the DB, can't exit.\n");
                return None;
            }
            if !saved {
                tracing::warn!("Error trying to save the DB. Exit anyway.");
            }
        }
        // Last, as it goes on if the data cannot be saved.
        append_only::close(&self.shared);
        shutdown::write_the_rest(&self.shared);
        if settings.daemonize || !settings.pidfile.is_empty() {
            tracing::info!("Removing the pid file.");
            // It may have been removed by whoever stops us.
            let _ = std::fs::remove_file(settings.pidfile.as_path());
        }
        self.tcp.close();
        self.admin.close();
        self.tls.close();
        if let Some(task) = self.unix.take() {
            task.abort();
        }
        for worker in self.workers.iter() {
            worker.stop();
        }
        if !settings.unixsocket.is_empty() {
            tracing::info!("Removing the unix socket file.");
            let _ = std::fs::remove_file(settings.unixsocket.as_path());
        }
        let role = if settings.directives.sentinel_mode {
            "Sentinel"
        } else {
            "Redis"
        };
        tracing::warn!("{role} is now ready to exit, bye bye...");
        Some(0)
    }
}

/// The shutdown that an interrupt cuts short; 0 when none is under way.
static CUT_SHORT: AtomicU64 = AtomicU64::new(0);

/// From here on an interrupt ends the process at once, unless the shutdown fails: who presses the
/// keys twice does not want to wait for the data to be saved. On a thread of its own, because the
/// shutdown may be busy.
fn exit_on_another_interrupt() {
    static SHUTDOWNS: AtomicU64 = AtomicU64::new(0);
    let this = SHUTDOWNS.fetch_add(1, Relaxed) + 1;
    CUT_SHORT.store(this, Relaxed);
    let wait = move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        runtime.block_on(async {
            signal(SignalKind::interrupt())?.recv().await;
            if CUT_SHORT.load(Relaxed) == this {
                log::signal("You insist... exiting now.");
                save::remove_temporary();
                std::process::exit(1)
            }
            Ok(())
        })
    };
    let thread = std::thread::Builder::new().name("interrupt".to_owned());
    // Without the thread there is only the orderly way out.
    let _ = thread.spawn(wait);
}

/// Whether clients are let in. Until then they are connected, and wait.
pub struct Doors(watch::Sender<bool>);

impl Default for Doors {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Doors {
    /// Lets clients in, from any thread.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        // It fails only when the sender is gone, which is `self`.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// What a listener needs to let clients in.
#[derive(Clone)]
struct Entrance {
    doors: Arc<Doors>,
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
    /// Started when the first client comes over TLS.
    handshakes: Arc<OnceCell<Arc<Handshakes>>>,
}

impl Entrance {
    fn admit(&self, socket: OwnedFd, peer: Peer) {
        listener::admit(&self.shared, &self.workers, Stream::Plain(socket), peer);
    }

    async fn handshakes(&self) -> io::Result<&Arc<Handshakes>> {
        let start = || async { Handshakes::start(&self.shared, &self.workers) };
        self.handshakes.get_or_try_init(start).await
    }
}

async fn accept_tls(listener: TcpListener, entrance: Entrance) {
    entrance.doors.opened().await;
    loop {
        let handshakes = match entrance.handshakes().await {
            Ok(handshakes) => handshakes,
            Err(error) => {
                accept_failed(&entrance.shared, &error).await;
                continue;
            }
        };
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                let shared = &entrance.shared;
                if !handshakes.begin(shared, stream, address).await {
                    let global = &shared.stats.global;
                    global.connections.fetch_add(1, Relaxed);
                    global.rejected_connections.fetch_add(1, Relaxed);
                }
            }
            Err(error) => accept_failed(&entrance.shared, &error).await,
        }
    }
}

async fn accept_tcp(listener: TcpListener, entrance: Entrance) {
    entrance.doors.opened().await;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                let local = stream.local_addr().unwrap_or(address);
                entrance.admit(stream.into(), Peer::Tcp(address, local));
            }
            Err(error) => accept_failed(&entrance.shared, &error).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, path: String, entrance: Entrance) {
    entrance.doors.opened().await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(stream) = stream.into_std() else {
                    continue;
                };
                entrance.admit(stream.into(), Peer::Unix(path.clone()));
            }
            Err(error) => accept_failed(&entrance.shared, &error).await,
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
    tokio::time::sleep(Duration::from_millis(100)).await;
}
