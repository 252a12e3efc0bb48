//! The start: arguments, parameters, log, threads; and the way out.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::frame::{Doors, Frame};
use super::title::Title;
use super::{
    check_aof, check_rdb, crash, cron, limits, memory_test, process, stack, system_check, users,
    watching,
};
use crate::acl::Users;
use crate::base::{alloc, clock, heap, random};
use crate::bus::{self, Bus};
use crate::cluster::handle::Cluster;
use crate::cluster::machine;
use crate::cluster::routes::Routes;
use crate::commands;
use crate::config::REDIS_VERSION;
use crate::config::command_line::{CommandLine, Special, absolute_path, options_to_text};
use crate::config::file::{self, Checks, LoadError};
use crate::config::{Config, Effect, Settings, UserRow};
use crate::dispatch::blocking::Blocked;
use crate::dispatch::context::{REPLY_PEAK_RESET_MS, Shared, Stall, Status};
use crate::dispatch::control::{Control, Request};
use crate::dispatch::table::Table;
use crate::dispatch::threads::{STACK, Threads};
use crate::dispatch::turns::Turns;
use crate::durability::append_only_load;
use crate::keyspace::shards::Keyspace;
use crate::net::listener::{self, Bound};
use crate::net::worker::{EventLoop, Link};
use crate::observe::log;
use crate::observe::stats::Stats;
use crate::replication::{FullSyncs, following};
use crate::scripting::Lua;
use crate::scripts::Scripts;
use crate::sentinel::handle::Sentinel;
use crate::wire::Contexts;

/// Runs the program with its arguments, its own name first.
pub fn main(args: &[OsString]) -> ExitCode {
    if let Some(code) = check_aof::run_as(args).or_else(|| check_rdb::run_as(args)) {
        return code;
    }
    log::install();
    crash::ignore_hangups();
    let line = options_to_text(args);
    match line.special {
        Special::None => serve(args, &line),
        special => answer(special),
    }
}

fn answer(special: Special) -> ExitCode {
    match special {
        Special::Version => {
            println!(
                "Redis server v={REDIS_VERSION} sha=00000000:0 malloc=jemalloc-5.3.0 bits={} build={:x}",
                usize::BITS,
                Table::new(commands::all()).fingerprint()
            );
            ExitCode::SUCCESS
        }
        Special::Help => {
            eprint!("{USAGE}");
            ExitCode::FAILURE
        }
        Special::TestMemory(Some(megabytes)) => memory_test::run(megabytes),
        Special::TestMemory(None) => {
            eprintln!("Please specify the amount of memory to test in megabytes.");
            eprintln!("Example: ./redis-server --test-memory 4096\n");
            ExitCode::FAILURE
        }
        Special::CheckSystem | Special::None => system_check::run(),
    }
}

const USAGE: &str = "\
Usage: ./redis-server [/path/to/redis.conf] [options] [-]
       ./redis-server - (read config from stdin)
       ./redis-server -v or --version
       ./redis-server -h or --help
       ./redis-server --test-memory <megabytes>
       ./redis-server --check-system

Examples:
       ./redis-server (run the server with default conf)
       echo 'maxmemory 128mb' | ./redis-server -
       ./redis-server /etc/redis/6379.conf
       ./redis-server --port 7777
       ./redis-server --port 7777 --replicaof 127.0.0.1 8888
       ./redis-server /etc/myredis.conf --loglevel verbose -
       ./redis-server /etc/myredis.conf --loglevel verbose

Sentinel mode:
       ./redis-server /etc/sentinel.conf --sentinel
";

/// Does what the rows of a configuration ask for beyond parameters: `rename-command`, `user`.
struct Rows<'a> {
    table: &'a mut Table,
    users: users::Rows,
}

impl<'a> Rows<'a> {
    fn new(table: &'a mut Table) -> Self {
        let users = users::Rows::new(table.catalog());
        Self { table, users }
    }
}

impl Checks for Rows<'_> {
    fn rename_command(&mut self, old: &[u8], new: &[u8]) -> Result<(), String> {
        self.table.rename(old, new).map_err(str::to_owned)
    }

    fn user(&mut self, row: &UserRow, settings: &Settings) -> Result<(), String> {
        self.users.check(row, settings)
    }
}

fn serve(args: &[OsString], line: &CommandLine) -> ExitCode {
    let (mut table, mut settings) = match line.sentinel {
        true => (commands::of_sentinel(), watching::settings()),
        false => (Table::new(commands::all()), Settings::default()),
    };
    let here = std::env::current_dir().map(|d| d.into_os_string().into_encoded_bytes());
    let file = line
        .config_file
        .as_ref()
        .map(|f| absolute_path(f, &here.unwrap_or_default()));
    if line.has_arguments {
        if line.from_stdin {
            tracing::warn!("Reading config from stdin");
        }
        let mut stdin = std::io::stdin();
        let line = &CommandLine {
            config_file: file.clone(),
            ..line.clone()
        };
        let mut rows = Rows::new(&mut table);
        let loaded = file::load(&mut settings, line, &mut stdin, &mut rows);
        match loaded {
            Ok(()) => {}
            Err(LoadError::Fatal(text)) => {
                eprint!("{text}");
                return ExitCode::FAILURE;
            }
            Err(LoadError::Open(text)) => {
                tracing::warn!("{text}");
                return ExitCode::FAILURE;
            }
        }
    }
    let sentinel = match line
        .sentinel
        .then(|| watching::prepare(&settings, file.as_deref()))
    {
        Some(Ok(sentinel)) => Some(sentinel),
        Some(Err(())) => return ExitCode::FAILURE,
        None => None,
    };
    log::configure(&settings);
    let supervised = process::supervise(&settings);
    let background = settings.daemonize && !supervised;
    if background {
        if let Err(error) = process::daemonize() {
            tracing::warn!("Cannot go to the background: {error}");
            return ExitCode::FAILURE;
        }
        if settings.pidfile.is_empty() {
            settings.pidfile = "/var/run/redis.pid".into();
        }
    }
    if !line.sentinel {
        heap::use_huge_pages();
    }
    greet(args, line);
    let program = args.first().map(|a| a.as_encoded_bytes().to_vec());
    let title = Title::capture(program.unwrap_or_default());
    match start(settings, file, table, sentinel, title) {
        Ok(status) => ExitCode::from(status as u8),
        Err(()) => ExitCode::FAILURE,
    }
}

fn greet(args: &[OsString], line: &CommandLine) {
    tracing::warn!("oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo");
    tracing::warn!(
        "Redis version={REDIS_VERSION}, bits=64, commit=00000000, modified=0, pid={}, just started",
        std::process::id()
    );
    if line.has_arguments {
        tracing::warn!("Configuration loaded");
    } else {
        let program = args
            .first()
            .map(|a| a.to_string_lossy())
            .unwrap_or_default();
        tracing::warn!(
            "Warning: no config file specified, using the default config. In order to specify a \
             config file use {program} /path/to/redis.conf"
        );
    }
}

/// What cannot be done yet is refused at the start rather than ignored.
fn refuse_unsupported(settings: &Settings) -> Result<(), ()> {
    let refusal = if let Some(lines) = settings.directives.refusal() {
        lines
    } else {
        return Ok(());
    };
    for line in refusal {
        tracing::warn!("{line}");
    }
    Err(())
}

/// Builds the server's shared state.
pub fn build(
    settings: Settings,
    file: Option<Vec<u8>>,
    commands: Table,
    cluster: Option<Cluster>,
) -> (Arc<Shared>, tokio::sync::mpsc::UnboundedReceiver<Request>) {
    build_as(settings, file, commands, cluster, None)
}

/// As [`build`], of a sentinel if there is one.
fn build_as(
    settings: Settings,
    file: Option<Vec<u8>>,
    commands: Table,
    cluster: Option<Cluster>,
    sentinel: Option<Sentinel>,
) -> (Arc<Shared>, tokio::sync::mpsc::UnboundedReceiver<Request>) {
    let (control, requests) = Control::new();
    let workers = match sentinel {
        Some(_) => 1,
        None => settings.io_threads.max(1) as usize,
    };
    let keyspace = Keyspace::new(settings.databases as usize, settings.cluster_enabled);
    let shared = Arc::new_cyclic(|server| Shared {
        threads: Threads::of(server),
        append_only: Default::default(),
        blocked: Blocked::default(),
        turns: Turns::new(workers),
        routes: Routes::new(settings.cluster_enabled),
        cluster: cluster.map(Arc::new),
        sentinel: sentinel.map(Arc::new),
        chores: Default::default(),
        errands: Default::default(),
        durability: Default::default(),
        scripts: Scripts::new(workers),
        stats: Stats::new(workers, commands.len()),
        keyspace,
        clients: Default::default(),
        users: Users::new(commands.catalog()),
        prefixes: Default::default(),
        pubsub: Default::default(),
        replication: Default::default(),
        stream: Default::default(),
        commands,
        slowlog: Default::default(),
        latency: Default::default(),
        monitors: Default::default(),
        pause: Default::default(),
        rates: Default::default(),
        evictor: Default::default(),
        control,
        status: Status {
            run_id: random::run_id(),
            started_ms: clock::unix_ms(),
            workers,
            active_expire: AtomicBool::new(true),
            cron_paused: AtomicBool::new(false),
            reply_peak_reset_ms: AtomicI64::new(REPLY_PEAK_RESET_MS),
            reply_resizing: AtomicBool::new(true),
            stall: Stall::default(),
            shutdown_ms: AtomicI64::new(0),
            peak_memory: AtomicUsize::new(0),
            startup_memory: AtomicUsize::new(0),
        },
        config: Config::new(settings, file),
        tls: Contexts::default(),
    });
    let settings = shared.config.settings();
    shared.scripts.set_engine(Box::new(Lua {
        deprecated: settings.lua_enable_deprecated_api,
        limit: settings.lua_memory_limit as usize,
    }));
    (shared, requests)
}

fn start(
    mut settings: Settings,
    file: Option<Vec<u8>>,
    commands: Table,
    sentinel: Option<Sentinel>,
    title: Option<Title>,
) -> Result<i32, ()> {
    refuse_unsupported(&settings)?;
    let watches = sentinel.is_some();
    log::set_role(if watches { 'X' } else { 'M' });
    let (cluster, mut bus) = match settings.cluster_enabled && !watches {
        true => {
            let (cluster, bus, primary) = bus::prepare(&Arc::new(settings.clone()))?;
            settings.replicaof = primary;
            (Some(cluster), Some(bus))
        }
        false => (None, None),
    };
    let (shared, requests) = build_as(settings, file, commands, cluster, sentinel);
    limits::open_files(&shared.config)?;
    let settings = shared.config.load();
    shared.tls.follow(&settings).map_err(|reason| {
        tracing::warn!("{reason}");
        tracing::warn!("Failed to configure TLS. Check logs for more info.");
    })?;
    if !watches {
        limits::warn_about_system(&settings);
    }
    let failed = |error: std::io::Error| tracing::warn!("Cannot start: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let links: Vec<Arc<Link>> = (0..shared.status.workers)
        .map(|index| Link::new(shared.stats.worker(index)))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    crash::install(&shared);
    let doors = Arc::new(Doors::default());
    let frame = Frame::new(Arc::clone(&shared), links.clone(), title, &doors);
    let mut frame = runtime.block_on(frame)?;
    if let Some(bus) = &mut bus {
        bus.listen(bus_listeners(&settings)?);
    }
    if !settings.pidfile.is_empty() {
        process::write_pid_file(&settings);
    }
    frame.follow(Effect::ProcTitle);
    if settings.watchdog_period > 0 {
        frame.follow(Effect::WatchdogPeriod);
    }
    logo(&settings);
    if !watches {
        tracing::warn!("Server initialized");
    }
    users::load(&shared)?;
    let stop = Arc::new(AtomicBool::new(false));
    if !watches {
        following::begin_as_replica(&shared);
    }
    let threads = spawn_threads(&shared, &links, &stop).map_err(failed)?;
    shared.status.startup_memory.store(alloc::used(), Relaxed);
    if watches {
        watching::begin(&shared, &doors).map_err(failed)?;
    } else {
        append_only_load::read_manifest(&shared).map_err(|_| ())?;
    }
    if shared.replication.upstream.follows()
        && let Some(bus) = bus.take()
    {
        bus.start(&shared)?;
    }
    if !watches {
        begin_loading(&shared, &runtime, &doors, bus).map_err(failed)?;
    }
    if (1..1 << 20).contains(&settings.maxmemory) {
        tracing::warn!(
            "WARNING: You specified a maxmemory value that is less than 1MB (current value is {} \
             bytes). Are you sure this is what you really want?",
            settings.maxmemory
        );
    }
    // Comforts: when one of them is not to be had, the server serves all the same.
    let _ = tikv_jemalloc_ctl::background_thread::write(settings.jemalloc_bg_thread);
    let _ = crate::observe::process::write_oom_score(&settings);
    let status = runtime.block_on(frame.run(requests)).map_err(failed);
    links.iter().for_each(|link| link.stop());
    stop.store(true, Relaxed);
    for thread in threads {
        // A worker that is stuck in a long command is not waited for.
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
    status
}

/// The sockets of the cluster's bus.
fn bus_listeners(settings: &Settings) -> Result<Vec<std::net::TcpListener>, ()> {
    let port = machine::bus_port(settings);
    let bind = |address: &String| match listener::bind_tcp(address, port, settings) {
        Ok(Bound::Listening(socket)) => Ok(Some(socket)),
        Ok(Bound::Absent(_)) => Ok(None),
        Err(error) => {
            tracing::warn!(
                "Could not create server TCP listening socket {address}:{port}: {}",
                crate::config::strerror(&error)
            );
            Err(())
        }
    };
    let sockets: Result<Vec<_>, ()> = settings.bind.iter().map(bind).collect();
    let sockets: Vec<_> = sockets.unwrap_or_default().into_iter().flatten().collect();
    if sockets.is_empty() {
        tracing::warn!("Failed listening on port {port} (cluster), aborting.");
        return Err(());
    }
    Ok(sockets)
}

/// How long clients that come while a big data set is loaded wait before they are told so.
const SHORT_LOAD: Duration = Duration::from_millis(100);

/// Loads the data set; the server is ready when that is done. Of files so small that Redis would
/// not look at its clients before their end (`loading-process-events-interval-bytes`), nobody
/// hears: clients wait to be accepted. While bigger ones are loaded they do so for a moment, then
/// they are, and told why they are not served.
fn begin_loading(
    shared: &Arc<Shared>,
    runtime: &tokio::runtime::Runtime,
    doors: &Arc<Doors>,
    bus: Option<Bus>,
) -> std::io::Result<()> {
    let bytes = append_only_load::bytes_to_load(shared);
    let settings = shared.config.load();
    if bytes
        >= settings
            .loading_process_events_interval_bytes
            .unsigned_abs()
    {
        let doors = Arc::clone(doors);
        runtime.spawn(async move {
            tokio::time::sleep(SHORT_LOAD).await;
            doors.open();
        });
    }
    shared.durability.loading.begin(bytes);
    let (shared, doors) = (Arc::clone(shared), Arc::clone(doors));
    let thread = std::thread::Builder::new()
        .name("load".to_owned())
        .stack_size(STACK);
    thread.spawn(move || {
        append_only_load::load_or_exit(&shared);
        // What the node finds out about the data set holds before anybody can ask for a copy of it.
        if let Some(bus) = bus
            && bus.start(&shared).is_err()
        {
            std::process::exit(1);
        }
        shared.durability.loading.end();
        if let Some(cluster) = &shared.cluster {
            cluster.is_loaded.store(true, Relaxed);
        }
        ready(&shared.config.load());
        doors.open();
        following::follow_from_start(&shared);
    })?;
    Ok(())
}

fn spawn_threads(
    shared: &Arc<Shared>,
    links: &[Arc<Link>],
    stop: &Arc<AtomicBool>,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    let mut threads = Vec::new();
    let full_syncs = Arc::new(FullSyncs::default());
    for (index, link) in links.iter().enumerate() {
        let (shared, link) = (Arc::clone(shared), Arc::clone(link));
        let full_syncs = Arc::clone(&full_syncs);
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(STACK);
        threads.push(thread.spawn(move || {
            link.stats.thread.store(stack::thread_id(), Relaxed);
            let served = EventLoop::new(shared, full_syncs, link, index).and_then(|mut l| l.run());
            if let Err(error) = served {
                // Without its poll a worker can serve nobody; better to end than to hang.
                tracing::warn!("Worker cannot wait for its sockets: {error}");
                std::process::exit(1);
            }
        })?);
    }
    let (shared, stop, links) = (Arc::clone(shared), Arc::clone(stop), links.to_vec());
    let thread = std::thread::Builder::new().name("cron".to_owned());
    threads.push(thread.spawn(move || cron::run(&shared, &links, &stop))?);
    Ok(threads)
}

fn ready(settings: &Settings) {
    if settings.port != 0 || settings.tls_port != 0 {
        tracing::info!("Ready to accept connections");
    }
    if !settings.unixsocket.is_empty() {
        tracing::info!(
            "The server is now ready to accept connections at {}",
            settings.unixsocket.to_str()
        );
    }
    process::notify("STATUS=Ready to accept connections\n");
    process::notify("READY=1\n");
}

/// Mode, port and pid, drawn or in one line; tools look for ` PID: `.
fn logo(settings: &Settings) {
    let terminal = settings.logfile.is_empty() && rustix::termios::isatty(std::io::stdout());
    if !(settings.always_show_logo || terminal && !settings.syslog_enabled) {
        let mode = if settings.directives.sentinel_mode {
            "sentinel"
        } else if settings.cluster_enabled {
            "cluster"
        } else {
            "standalone"
        };
        tracing::info!("Running mode={mode}, port={}.", settings.any_port());
        return;
    }
    let version = env!("CARGO_PKG_VERSION");
    log::raw(&format!(
        "\n   +---+---+---+\n   | T | E | S |     Tessera {version} (Redis {REDIS_VERSION}) 64 bit\n   \
         +---+---+---+\n   | S | E | R |     Running in standalone mode\n   +---+---+---+     Port: {}\n   \
         | A | . | . |     PID: {}\n   +---+---+---+\n\n",
        settings.any_port(),
        std::process::id()
    ));
}
