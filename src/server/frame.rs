//! The frame around the workers: listeners, signals, requests of commands, shutdown.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ports::Ports;
use super::shutdown::{How, Waiting};
use super::title::Title;
use super::watchdog::Watchdog;
use super::{crash, process, shutdown};
use crate::config::{Effect, Settings, ShutdownFlags, strerror};
use crate::dispatch::blocking::Parked;
use crate::dispatch::context::Shared;
use crate::dispatch::control::Request;
use crate::durability::{append_only, save};
use crate::net::listener::{self, Peer};
use crate::net::worker::Link;
use crate::observe::log;

/// How often a shutdown that waits for replicas looks at them.
const LOOK: Duration = Duration::from_millis(10);

/// What the frame holds.
pub struct Frame {
    shared: Arc<Shared>,
    workers: Arc<[Arc<Link>]>,
    tcp: Ports,
    unix: Option<JoinHandle<()>>,
    title: Option<Title>,
    watchdog: Watchdog,
    /// The shutdown that waits for replicas.
    waiting: Option<Waiting>,
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
        let serve = {
            let entrance = Entrance {
                doors: Arc::clone(doors),
                shared: Arc::clone(&shared),
                workers: Arc::clone(&workers),
            };
            move |listener| tokio::spawn(accept_tcp(listener, entrance.clone()))
        };
        let listen = |kind: SignalKind| {
            signal(kind).map_err(|error| tracing::warn!("Cannot listen to signals: {error}"))
        };
        let mut frame = Self {
            watchdog: Watchdog::new(Arc::clone(&shared), Arc::clone(&workers)),
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            shared,
            workers,
            tcp: Ports::new(Arc::new(serve)),
            unix: None,
            title,
            waiting: None,
        };
        let settings = frame.shared.config.load();
        frame.tcp.follow(&settings).await.map_err(|()| {
            tracing::warn!(
                "Failed listening on port {} (TCP), aborting.",
                settings.port
            );
        })?;
        if !settings.unixsocket.is_empty() {
            let path = settings.unixsocket.to_str().into_owned();
            let bound = listener::bind_unix(&settings).and_then(UnixListener::from_std);
            let listener = bound.map_err(|error| {
                tracing::warn!("Failed opening Unix socket: bind: {}", strerror(&error));
            })?;
            let entrance = Entrance {
                doors: Arc::clone(doors),
                shared: Arc::clone(&frame.shared),
                workers: Arc::clone(&frame.workers),
            };
            frame.unix = Some(tokio::spawn(accept_unix(listener, path, entrance)));
        }
        if frame.tcp.is_empty() && frame.unix.is_none() {
            tracing::warn!("Configured to not listen anywhere, exiting.");
            return Err(());
        }
        Ok(frame)
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
        let how = How {
            save: flags.save(),
            now: flags.has(ShutdownFlags::NOW),
            force: flags.has(ShutdownFlags::FORCE),
        };
        self.begin_shutdown(how, None)
    }

    /// Does what a command asks; the exit status when that ends the server.
    async fn answer(&mut self, request: Request) -> Option<i32> {
        match request {
            Request::Shutdown {
                save,
                now,
                force,
                client,
            } => return self.begin_shutdown(How { save, now, force }, Some(client)),
            Request::AbortShutdown(answer) => {
                let waiting = self.waiting.take();
                if let Some(waiting) = &waiting {
                    self.go_on(&waiting.clients);
                    tracing::info!("Shutdown manually aborted.");
                }
                // The client may be gone by now.
                let _ = answer.send(waiting.is_some());
            }
            Request::Listeners(answer) => {
                let settings = self.shared.config.load();
                let result = self.tcp.follow(&settings).await;
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
    fn begin_shutdown(&mut self, how: How, client: Option<Arc<Parked>>) -> Option<i32> {
        if let Some(waiting) = &mut self.waiting {
            waiting.clients.extend(client);
            return None;
        }
        tracing::warn!("User requested shutdown...");
        process::notify("STOPPING=1\n");
        if let Some(mut waiting) = Waiting::begin(&self.shared, how) {
            waiting.clients.extend(client);
            self.waiting = Some(waiting);
            return None;
        }
        self.shut_down(how, client.as_slice())
    }

    /// Goes on with the shutdown that waits, if replicas have everything or the time is over.
    fn look_at_replicas(&mut self) -> Option<i32> {
        let is_over = |waiting: &mut Waiting| waiting.is_over(&self.shared);
        let Waiting { how, clients, .. } = self.waiting.take_if(is_over)?;
        self.shut_down(how, &clients)
    }

    /// Ends the server in order: the exit status, or `None` when it has to go on, as `clients` are told
    /// then. No client gets a reply meanwhile, so whatever was acknowledged is saved.
    fn shut_down(&mut self, how: How, clients: &[Arc<Parked>]) -> Option<i32> {
        let shared = Arc::clone(&self.shared);
        let ended = shared.status.stall.during(|| self.shut_down_now(how));
        if ended.is_none() {
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

    fn shut_down_now(&mut self, How { save, force, .. }: How) -> Option<i32> {
        let settings = self.shared.config.load();
        shutdown::tell_of_replicas(&self.shared);
        if !append_only::may_close(&self.shared, force) {
            return None;
        }
        // What is loaded in part must not take the place of the file it comes from.
        let loading = self.shared.durability.loading.active.load(Relaxed);
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
}

impl Entrance {
    fn admit(&self, socket: OwnedFd, peer: Peer) {
        listener::admit(&self.shared, &self.workers, socket, peer);
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
