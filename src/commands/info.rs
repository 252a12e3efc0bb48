//! INFO: the server's numbers as text, section by section.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::clock;
use crate::base::text::human_bytes;
use crate::client::registry::flag;
use crate::config::MaxmemoryPolicy;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::{ServerCtx, Shared};
use crate::dispatch::error::Error;
use crate::keyspace::access::Access;
use crate::observe::process::{self, Allocator, CpuTime};
use crate::observe::rates::Rate;
use crate::persistence::aof::life::Mode;
use crate::propagation::{Names, View};
use crate::pubsub::Kind;

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "info",
    arity: -1,
    flags: Flags::LOADING.or(Flags::STALE),
    acl: Acl::DANGEROUS,
    tips: &[
        "nondeterministic_output",
        "request_policy:all_shards",
        "response_policy:special",
    ],
    handler: Handler::Server(info),
    ..ROW
}];

/// Writes a section's fields.
type Section = fn(&Shared, &mut String);

/// When a section is shown, beside when it is asked for by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    /// By INFO alone too.
    Default,
    /// By INFO ALL.
    All,
    /// By INFO EVERYTHING only: Redis has no such section, and who asks for all of them may know each.
    Everything,
}

/// Every section: name, when it is shown, and what writes it.
const SECTIONS: &[(&str, Shown, Section)] = &[
    ("Server", Shown::Default, server),
    ("Clients", Shown::Default, clients),
    ("Memory", Shown::Default, memory),
    ("Persistence", Shown::Default, persistence),
    ("Stats", Shown::Default, stats),
    ("Replication", Shown::Default, replication),
    ("CPU", Shown::Default, cpu),
    ("Modules", Shown::Default, modules),
    ("Commandstats", Shown::All, commandstats),
    ("Errorstats", Shown::Default, errorstats),
    ("Latencystats", Shown::All, latencystats),
    ("Cluster", Shown::Default, cluster),
    ("Keyspace", Shown::Default, keyspace),
    ("Workers", Shown::Everything, workers),
];

/// Every section: for crash reports.
pub fn report(shared: &Shared) -> String {
    sections(shared, |_, _| true)
}

/// The sections of a sentinel that other servers have too, those that are picked by name.
pub fn of_sentinel(shared: &Shared, picks: impl Fn(&str) -> bool) -> String {
    const ALSO: [&str; 4] = ["Server", "Clients", "Stats", "CPU"];
    sections(shared, |name, _| ALSO.contains(&name) && picks(name))
}

/// `INFO [section ...]`
fn info(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let wanted = ctx.args.rest(1);
    let named = |name: &str| {
        wanted
            .iter()
            .any(|w| w.eq_ignore_ascii_case(name.as_bytes()))
    };
    let most = match (named("everything"), named("all")) {
        (true, _) => Some(Shown::Everything),
        (_, true) => Some(Shown::All),
        _ if wanted.is_empty() || named("default") => Some(Shown::Default),
        _ => None,
    };
    let text = sections(ctx.shared, |name, shown| {
        most.is_some_and(|most| shown <= most) || named(name)
    });
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

/// The sections that are picked, by name and when they are shown.
fn sections(shared: &Shared, picks: impl Fn(&str, Shown) -> bool) -> String {
    let mut text = String::new();
    for (name, shown, write) in SECTIONS {
        if picks(name, *shown) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            let _ = write!(text, "# {name}\r\n");
            write(shared, &mut text);
        }
    }
    text
}

/// Appends `name:value` lines. Writing to a String cannot fail.
macro_rules! fields {
    ($text:expr; $($name:literal: $value:expr),* $(,)?) => {
        $(let _ = write!($text, concat!($name, ":{}\r\n"), $value);)*
    };
}

fn server(shared: &Shared, text: &mut String) {
    let settings = shared.config.load();
    let now = clock::Now::read();
    let uptime = (now.ms - shared.status.started_ms) / 1000;
    let uname = rustix::system::uname();
    let lossy = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let Access::Lru { now: lru_clock } = Access::lru(now.ms) else {
        return;
    };
    fields!(text;
        "redis_version": crate::config::REDIS_VERSION,
        "redis_git_sha1": "00000000",
        "redis_git_dirty": 0,
        "redis_build_id": format_args!("{:016x}", shared.commands.fingerprint()),
        "redis_mode": shared.mode(),
        "tessera_version": env!("CARGO_PKG_VERSION"),
        "os": format_args!("{} {} {}", lossy(uname.sysname()), lossy(uname.release()), lossy(uname.machine())),
        "arch_bits": usize::BITS,
        "monotonic_clock": if crate::base::ticks::is_counter() { "X86 TSC" } else { "POSIX clock_gettime" },
        "multiplexing_api": "epoll",
        "atomicvar_api": "rust-atomics",
        "gcc_version": "0.0.0",
        "process_id": std::process::id(),
        "process_supervised": supervised(&settings),
        "run_id": shared.status.run_id,
        "tcp_port": settings.any_port(),
        "server_time_usec": now.us,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime / 86_400,
        "hz": settings.hz,
        "configured_hz": settings.hz,
        "lru_clock": lru_clock,
        "executable": std::env::current_exe().unwrap_or_default().display(),
        "config_file": String::from_utf8_lossy(shared.config.config_file().unwrap_or_default()),
        "io_threads_active": u8::from(shared.status.workers > 1),
    );
    let shutdown_ms = shared.status.shutdown_ms.load(Relaxed);
    if shutdown_ms != 0 {
        fields!(text; "shutdown_in_milliseconds": shutdown_ms - now.ms);
    }
}

fn supervised(settings: &crate::config::Settings) -> &'static str {
    use crate::config::Supervised;
    match settings.supervised {
        Supervised::Systemd => "systemd",
        Supervised::Upstart => "upstart",
        Supervised::Auto if std::env::var_os("NOTIFY_SOCKET").is_some() => "systemd",
        Supervised::Auto | Supervised::No => "no",
    }
}

fn clients(shared: &Shared, text: &mut String) {
    let all = shared.clients.all();
    let max = |value: fn(&crate::client::registry::Live) -> usize| {
        all.iter().map(|c| value(&c.live)).max().unwrap_or(0)
    };
    let blocked = all
        .iter()
        .filter(|c| c.live.flags.load(Relaxed) & flag::BLOCKED != 0)
        .count();
    fields!(text;
        "connected_clients": all.len().saturating_sub(shared.replication.len()),
        "cluster_connections": shared.cluster.as_ref().map_or(0, |c| c.connections()),
        "maxclients": shared.config.settings().maxclients,
        "client_recent_max_input_buffer":
            max(|l| {
                let query = l.query_len.load(Relaxed) + l.query_free.load(Relaxed);
                query + l.argv_memory.load(Relaxed) + l.multi_memory.load(Relaxed)
            }),
        "client_recent_max_output_buffer": max(|l| l.output_memory.load(Relaxed)),
        "blocked_clients": blocked,
        "tracking_clients": shared.keyspace.tracked.clients.load(Relaxed),
        "clients_in_timeout_table": 0,
    );
}

fn ratio(a: usize, b: usize) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn memory(shared: &Shared, text: &mut String) {
    let settings = shared.config.load();
    let m = super::memory::Overview::new(shared);
    fields!(text;
        "used_memory": m.used,
        "used_memory_human": human_bytes(m.used as u64),
        "used_memory_rss": m.resident,
        "used_memory_rss_human": human_bytes(m.resident as u64),
        "used_memory_peak": m.peak,
        "used_memory_peak_human": human_bytes(m.peak as u64),
        "used_memory_peak_perc": format_args!("{:.2}%", ratio(m.used, m.peak) * 100.0),
        "used_memory_overhead": m.overhead,
        "used_memory_startup": m.startup,
        "used_memory_dataset": m.dataset(),
        "used_memory_dataset_perc": format_args!("{:.2}%", m.dataset_percent()),
    );
    let Allocator {
        allocated,
        active,
        resident,
    } = m.allocator;
    let policy: MaxmemoryPolicy = settings.maxmemory_policy;
    let total = process::total_memory_bytes();
    let scripts = &shared.scripts;
    let (vm_eval, vm_functions) = scripts.memory();
    let (sources, registry) = (scripts.sources.bytes(), scripts.libraries.now());
    let functions = registry.memory();
    fields!(text;
        "allocator_allocated": allocated,
        "allocator_active": active,
        "allocator_resident": resident,
        "total_system_memory": total,
        "total_system_memory_human": human_bytes(total),
        "used_memory_lua": vm_eval,
        "used_memory_vm_eval": vm_eval,
        "used_memory_lua_human": human_bytes(vm_eval as u64),
        "used_memory_scripts_eval": sources,
        "number_of_cached_scripts": scripts.sources.len(),
        "number_of_functions": registry.functions.len(),
        "number_of_libraries": registry.libraries.len(),
        "used_memory_vm_functions": vm_functions,
        "used_memory_vm_total": vm_eval + vm_functions,
        "used_memory_vm_total_human": human_bytes((vm_eval + vm_functions) as u64),
        "used_memory_functions": functions,
        "used_memory_scripts": sources + functions,
        "used_memory_scripts_human": human_bytes((sources + functions) as u64),
        "maxmemory": settings.maxmemory,
        "maxmemory_human": human_bytes(settings.maxmemory),
        "maxmemory_policy": policy.name(),
        "allocator_frag_ratio": format_args!("{:.2}", ratio(active, allocated)),
        "allocator_frag_bytes": active as i64 - allocated as i64,
        "allocator_rss_ratio": format_args!("{:.2}", ratio(resident, active)),
        "allocator_rss_bytes": resident as i64 - active as i64,
        "rss_overhead_ratio": format_args!("{:.2}", ratio(m.resident, resident)),
        "rss_overhead_bytes": m.resident as i64 - resident as i64,
        "mem_fragmentation_ratio": format_args!("{:.2}", ratio(m.resident, m.used)),
        "mem_fragmentation_bytes": m.resident as i64 - m.used as i64,
        "mem_not_counted_for_evict": m.replicas + m.append_only,
        "mem_replication_backlog": m.backlog,
        "mem_total_replication_buffers": m.backlog + m.replicas,
        "mem_clients_slaves": m.replicas,
        "mem_clients_normal": m.clients,
        "mem_cluster_links": shared.cluster.as_ref().map_or(0, |c| c.link_memory.load(Relaxed)),
        "mem_aof_buffer": m.append_only,
        "mem_allocator": "jemalloc-5.3.0",
        "active_defrag_running": 0,
        "lazyfree_pending_objects": shared.lazyfree_pending(),
        "lazyfreed_objects": shared.lazyfreed(),
    );
}

fn persistence(shared: &Shared, text: &mut String) {
    let (aof, status) = (&shared.append_only, shared.append_only.status());
    let (saves, loading) = (&shared.durability.saves, &shared.durability.loading);
    let since = |started: i64| match started {
        0.. => (clock::unix_ms() / 1000 - started).max(0),
        _ => -1,
    };
    let done = saves.progress.keys.load(Relaxed);
    let running = saves.running.load(Relaxed);
    let ok = |ok: bool| if ok { "ok" } else { "err" };
    fields!(text;
        "loading": u8::from(loading.is_blocking()),
        "async_loading": u8::from(loading.is_async()),
        "current_cow_peak": 0,
        "current_cow_size": 0,
        "current_cow_size_age": 0,
        "current_fork_perc": "0.00",
        "current_save_keys_processed": if running { done } else { 0 },
        "current_save_keys_total":
            if running { saves.progress.total.load(Relaxed) } else { 0 },
        "rdb_changes_since_last_save": shared.unsaved_changes(),
        "rdb_bgsave_in_progress": u8::from(running),
        "rdb_last_save_time": saves.last_success.load(Relaxed),
        "rdb_last_bgsave_status": ok(saves.last_ok.load(Relaxed)),
        "rdb_last_bgsave_time_sec": saves.last_seconds.load(Relaxed),
        "rdb_current_bgsave_time_sec": since(saves.started.load(Relaxed)),
        "rdb_saves": saves.count.load(Relaxed),
        "rdb_last_cow_size": 0,
        "rdb_last_load_keys_expired": loading.keys_expired.load(Relaxed),
        "rdb_last_load_keys_loaded": loading.keys_loaded.load(Relaxed),
        "aof_enabled": u8::from(status.mode != Mode::Off),
        "aof_rewrite_in_progress": u8::from(status.rewriting_since.is_some()),
        "aof_rewrite_scheduled": u8::from(status.scheduled),
        "aof_last_rewrite_time_sec": status.last_seconds,
        "aof_current_rewrite_time_sec": aof.rewriting_seconds(),
        "aof_last_bgrewrite_status": ok(!status.last_failed),
        "aof_rewrites": status.rewrites,
        "aof_rewrites_consecutive_failures": status.failures,
        "aof_last_write_status": ok(!aof.log.progress.failing.load(Relaxed)),
        "aof_last_cow_size": 0,
        "module_fork_in_progress": 0,
        "module_fork_last_cow_size": 0,
    );
    if status.mode != Mode::Off {
        let behind = shared
            .stream
            .offset()
            .saturating_sub(aof.log.progress.written());
        fields!(text;
            "aof_current_size": aof.size(),
            "aof_base_size": status.base_size,
            "aof_pending_rewrite": u8::from(status.scheduled),
            "aof_buffer_length": behind,
            "aof_pending_bio_fsync": u8::from(aof.log.progress.is_syncing()),
            "aof_delayed_fsync": aof.log.progress.delayed.load(Relaxed),
            "aof_write_stalled_ms": aof.log.writing_ms(),
        );
    }
    if loading.is_under_way() {
        fields!(text;
            "loading_start_time": loading.started.load(Relaxed),
            "loading_total_bytes": loading.total_bytes.load(Relaxed),
            "loading_rdb_used_mem": loading.memory.load(Relaxed),
            "loading_loaded_bytes": loading.loaded_bytes.load(Relaxed),
            "loading_loaded_perc": format_args!("{:.2}", loading.share() * 100.0),
            "loading_eta_seconds": loading.seconds_left(clock::unix_ms() / 1000),
        );
    }
}

fn stats(shared: &Shared, text: &mut String) {
    let stats = &shared.stats;
    let global = &stats.global;
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    let rate = |rate: Rate| shared.rates.per_second(rate);
    let kbps = |rate: Rate| format!("{:.2}", shared.rates.per_second(rate) as f64 / 1024.0);
    fields!(text;
        "total_connections_received": get(&global.connections),
        "total_commands_processed": stats.sum(|c| &c.commands),
        "instantaneous_ops_per_sec": rate(Rate::Commands),
        "total_net_input_bytes": stats.sum(|c| &c.input_bytes),
        "total_net_output_bytes": stats.sum(|c| &c.output_bytes),
        "total_net_repl_input_bytes": 0,
        "total_net_repl_output_bytes": get(&shared.replication.output_bytes),
        "instantaneous_input_kbps": kbps(Rate::Input),
        "instantaneous_output_kbps": kbps(Rate::Output),
        "instantaneous_input_repl_kbps": "0.00",
        "instantaneous_output_repl_kbps": "0.00",
        "rejected_connections": get(&global.rejected_connections),
        "sync_full": get(&shared.replication.full),
        "sync_partial_ok": get(&shared.replication.partial_ok),
        "sync_partial_err": get(&shared.replication.partial_err),
        "expired_keys": stats.sum(|c| &c.expired) + get(&global.actively_expired),
        "expired_subkeys": stats.sum(|c| &c.expired_fields) + get(&global.actively_expired_fields),
        "expired_stale_perc": format_args!("{:.2}", shared.expired_stale_percent()),
        "expired_time_cap_reached_count": get(&global.expire_time_caps),
        "expire_cycle_cpu_milliseconds": get(&global.expire_nanos) / 1_000_000,
        "evicted_keys": get(&global.evicted),
        "evicted_clients": get(&global.evicted_clients),
        "total_eviction_exceeded_time": shared.evictor.exceeded_us().0 / 1000,
        "current_eviction_exceeded_time": shared.evictor.exceeded_us().1 / 1000,
        "keyspace_hits": stats.sum(|c| &c.hits),
        "keyspace_misses": stats.sum(|c| &c.misses),
        "pubsub_channels": shared.pubsub.count(Kind::Channel),
        "pubsub_patterns": shared.pubsub.count(Kind::Pattern),
        "pubsubshard_channels": shared.pubsub.count(Kind::Shard),
        "latest_fork_usec": 0,
        "total_forks": 0,
        "migrate_cached_sockets": super::migrate::links(),
        "slave_expires_tracked_keys": shared.replication.upstream.own_volatile(),
        "active_defrag_hits": 0,
        "active_defrag_misses": 0,
        "active_defrag_key_hits": 0,
        "active_defrag_key_misses": 0,
        "total_active_defrag_time": 0,
        "current_active_defrag_time": 0,
        "tracking_total_keys": shared.keyspace.tracked.keys(),
        "tracking_total_items": shared.keyspace.tracked.items(),
        "tracking_total_prefixes": shared.prefixes.len(),
        "unexpected_error_replies": get(&global.unexpected_error_replies),
        "total_error_replies": get(&global.error_replies),
        "dump_payload_sanitizations": 0,
        "total_reads_processed": stats.sum(|c| &c.reads),
        "total_writes_processed": stats.sum(|c| &c.writes),
        "io_threaded_reads_processed": 0,
        "io_threaded_writes_processed": 0,
        "reply_buffer_shrinks": get(&global.reply_buffer_shrinks),
        "reply_buffer_expands": get(&global.reply_buffer_expands),
    );
}

fn replication(shared: &Shared, text: &mut String) {
    let (replication, settings) = (&shared.replication, shared.config.load());
    let (offset, now) = (shared.stream.offset(), crate::base::clock::unix_ms() / 1000);
    let replicas = replication.replicas();
    if let Some(view) = replication.upstream.outlook() {
        follows(shared, view, text);
    } else {
        fields!(text; "role": "master");
    }
    fields!(text; "connected_slaves": replicas.len());
    let max_lag = settings.min_replicas_max_lag.into();
    if settings.min_replicas_to_write > 0 && max_lag > 0 {
        fields!(text; "min_slaves_good_slaves": replication.good(max_lag, now));
    }
    for (index, replica) in replicas.iter().enumerate() {
        let _ = write!(
            text,
            "slave{index}:ip={},port={},state={},offset={},lag={}\r\n",
            replica.ip,
            replica.port,
            replica.state().name(),
            replica.acknowledged(),
            replica.lag(now),
        );
    }
    let backlog = replication.backlog(&shared.stream);
    let (first, len) = backlog.unwrap_or_default();
    let (Names { id, second }, nobody) = (replication.names(), "0".repeat(40));
    fields!(text;
        "master_failover_state": replication.failover.name(replication.upstream.follows()),
        "master_replid": id,
        "master_replid2": second.as_ref().map_or(&*nobody, |(id, _)| id),
        "master_repl_offset": offset,
        "second_repl_offset": second.as_ref().map_or(-1, |(_, end)| end.cast_signed()),
        "repl_backlog_active": u8::from(backlog.is_some()),
        "repl_backlog_size": settings.repl_backlog_size,
        "repl_backlog_first_byte_offset": first,
        "repl_backlog_histlen": len,
    );
}

/// What a replica tells of its primary.
fn follows(shared: &Shared, view: View, text: &mut String) {
    let settings = shared.config.load();
    let (host, port) = view.primary.unwrap_or_default();
    let offset = shared.stream.offset().max(1);
    let unapplied = shared.replication.upstream.unapplied.load(Relaxed);
    fields!(text;
        "role": "slave",
        "master_host": host,
        "master_port": port,
        "master_link_status": if view.is_up { "up" } else { "down" },
        "master_last_io_seconds_ago": view.last_io_seconds,
        "master_sync_in_progress": u8::from(view.sync.is_some()),
        "slave_read_repl_offset": offset + unapplied,
        "slave_repl_offset": offset,
    );
    if let Some(sync) = view.sync {
        fields!(text;
            "master_sync_total_bytes": sync.total,
            "master_sync_read_bytes": sync.read,
            "master_sync_left_bytes": sync.left(),
            "master_sync_perc": format_args!("{:.2}", sync.percent()),
            "master_sync_last_io_seconds_ago": sync.last_io_seconds,
        );
    }
    if !view.is_up {
        fields!(text; "master_link_down_since_seconds": view.down_seconds);
    }
    fields!(text;
        "slave_priority": settings.replica_priority,
        "slave_read_only": u8::from(settings.replica_read_only),
        "replica_announced": u8::from(settings.replica_announced),
    );
}

/// The workers do together what Redis' main thread does.
fn cpu(shared: &Shared, text: &mut String) {
    let all = CpuTime::of_process();
    let threads = shared.stats.workers().iter();
    let workers: CpuTime = threads
        .map(|w| CpuTime::of_thread(w.thread.load(Relaxed)))
        .sum();
    fields!(text;
        "used_cpu_sys": format_args!("{:.6}", all.system),
        "used_cpu_user": format_args!("{:.6}", all.user),
        "used_cpu_sys_children": "0.000000",
        "used_cpu_user_children": "0.000000",
        "used_cpu_sys_main_thread": format_args!("{:.6}", workers.system),
        "used_cpu_user_main_thread": format_args!("{:.6}", workers.user),
    );
}

fn workers(shared: &Shared, text: &mut String) {
    for (index, worker) in shared.stats.workers().iter().enumerate() {
        let CpuTime { user, system } = CpuTime::of_thread(worker.thread.load(Relaxed));
        let counters = &worker.counters;
        let _ = write!(
            text,
            "worker{index}:cpu_sys={system:.6},cpu_user={user:.6},clients={},commands={},turns={}\r\n",
            worker.connections.load(Relaxed),
            counters.commands.load(Relaxed),
            counters.turns.load(Relaxed),
        );
    }
}

fn modules(_: &Shared, _: &mut String) {}

fn commandstats(shared: &Shared, text: &mut String) {
    for known in shared.commands.all() {
        let totals = shared.stats.command(known.id);
        if totals.calls == 0 && totals.rejected == 0 && totals.failed == 0 {
            continue;
        }
        let micros = totals.nanos / 1000;
        let per_call = if totals.calls == 0 {
            0.0
        } else {
            micros as f64 / totals.calls as f64
        };
        let _ = write!(
            text,
            "cmdstat_{}:calls={},usec={micros},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}\r\n",
            known.full_name, totals.calls, totals.rejected, totals.failed
        );
    }
}

fn errorstats(shared: &Shared, text: &mut String) {
    for (code, count) in shared.stats.errors() {
        let code = String::from_utf8_lossy(&code);
        let _ = write!(text, "errorstat_{code}:count={count}\r\n");
    }
}

fn latencystats(shared: &Shared, text: &mut String) {
    let settings = shared.config.load();
    for known in shared.commands.all() {
        let Some(latencies) = shared.stats.latencies(known.id) else {
            continue;
        };
        let _ = write!(text, "latency_percentiles_usec_{}:", known.full_name);
        let percentiles = &settings.latency_tracking_info_percentiles;
        for (i, percent) in percentiles.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let micros = latencies.percentile(*percent) as f64 / 1000.0;
            let _ = write!(text, "{comma}p{percent}={micros:.3}");
        }
        text.push_str("\r\n");
    }
}

fn cluster(shared: &Shared, text: &mut String) {
    fields!(text; "cluster_enabled": u8::from(shared.config.settings().cluster_enabled));
}

fn keyspace(shared: &Shared, text: &mut String) {
    for db in 0..shared.keyspace.databases() {
        let keys = shared.keyspace.len(db);
        if keys > 0 {
            let (volatile, ttl) = (shared.keyspace.volatile(db), shared.average_ttl(db));
            let _ = write!(text, "db{db}:keys={keys},expires={volatile},avg_ttl={ttl}");
            // The field of 7.4, which readers of 7.0 that count the fields of a line do not expect: so
            // only where there is what 7.0 cannot have.
            let timed = shared.keyspace.timed_hashes(db);
            if timed > 0 {
                let _ = write!(text, ",subexpiry={timed}");
            }
            text.push_str("\r\n");
        }
    }
}
