//! INFO's numbers in Prometheus' text, under the names that `redis_exporter` gives them, so that what was
//! drawn for Redis is drawn for this server.

use std::collections::HashMap;
use std::fmt::Write;

use crate::commands::{cluster_view, info};
use crate::dispatch::context::Shared;

/// Fields whose name there is another one.
const RENAMED: &[(&str, &str)] = &[
    ("maxclients", "max_clients"),
    (
        "client_recent_max_output_buffer",
        "client_recent_max_output_buffer_bytes",
    ),
    (
        "client_recent_max_input_buffer",
        "client_recent_max_input_buffer_bytes",
    ),
    ("allocator_active", "allocator_active_bytes"),
    ("allocator_allocated", "allocator_allocated_bytes"),
    ("allocator_resident", "allocator_resident_bytes"),
    ("used_memory", "memory_used_bytes"),
    ("used_memory_rss", "memory_used_rss_bytes"),
    ("used_memory_peak", "memory_used_peak_bytes"),
    ("used_memory_lua", "memory_used_lua_bytes"),
    ("used_memory_overhead", "memory_used_overhead_bytes"),
    ("used_memory_startup", "memory_used_startup_bytes"),
    ("used_memory_dataset", "memory_used_dataset_bytes"),
    ("used_memory_scripts", "memory_used_scripts_bytes"),
    ("maxmemory", "memory_max_bytes"),
    ("expired_stale_perc", "expired_stale_percentage"),
    (
        "expired_time_cap_reached_count",
        "expired_time_cap_reached_total",
    ),
    (
        "mem_not_counted_for_evict",
        "mem_not_counted_for_eviction_bytes",
    ),
    ("migrate_cached_sockets", "migrate_cached_sockets_total"),
    ("active_defrag_hits", "defrag_hits"),
    ("active_defrag_misses", "defrag_misses"),
    ("active_defrag_key_hits", "defrag_key_hits"),
    ("active_defrag_key_misses", "defrag_key_misses"),
    ("loading", "loading_dump_file"),
    ("rdb_last_save_time", "rdb_last_save_timestamp_seconds"),
    ("rdb_last_bgsave_time_sec", "rdb_last_bgsave_duration_sec"),
    (
        "rdb_current_bgsave_time_sec",
        "rdb_current_bgsave_duration_sec",
    ),
    ("rdb_last_cow_size", "rdb_last_cow_size_bytes"),
    ("aof_last_rewrite_time_sec", "aof_last_rewrite_duration_sec"),
    (
        "aof_current_rewrite_time_sec",
        "aof_current_rewrite_duration_sec",
    ),
    ("aof_last_cow_size", "aof_last_cow_size_bytes"),
    ("aof_current_size", "aof_current_size_bytes"),
    ("aof_base_size", "aof_base_size_bytes"),
    ("repl_backlog_size", "replication_backlog_bytes"),
    ("repl_backlog_active", "repl_backlog_is_active"),
    ("repl_backlog_histlen", "repl_backlog_history_bytes"),
    ("sync_full", "replica_resyncs_full"),
    ("sync_partial_ok", "replica_partial_resync_accepted"),
    ("sync_partial_err", "replica_partial_resync_denied"),
    ("cluster_stats_messages_sent", "cluster_messages_sent_total"),
    (
        "cluster_stats_messages_received",
        "cluster_messages_received_total",
    ),
];

/// Fields that only grow, with their name there.
const COUNTERS: &[(&str, &str)] = &[
    ("total_connections_received", "connections_received_total"),
    ("total_commands_processed", "commands_processed_total"),
    ("rejected_connections", "rejected_connections_total"),
    ("total_net_input_bytes", "net_input_bytes_total"),
    ("total_net_output_bytes", "net_output_bytes_total"),
    ("expired_keys", "expired_keys_total"),
    ("evicted_keys", "evicted_keys_total"),
    ("keyspace_hits", "keyspace_hits_total"),
    ("keyspace_misses", "keyspace_misses_total"),
    ("used_cpu_sys", "cpu_sys_seconds_total"),
    ("used_cpu_user", "cpu_user_seconds_total"),
    ("used_cpu_sys_children", "cpu_sys_children_seconds_total"),
    ("used_cpu_user_children", "cpu_user_children_seconds_total"),
];

/// Fields that have the same name there.
const SAME: &[&str] = &[
    "active_defrag_running",
    "allocator_frag_bytes",
    "allocator_frag_ratio",
    "allocator_rss_bytes",
    "allocator_rss_ratio",
    "aof_buffer_length",
    "aof_delayed_fsync",
    "aof_enabled",
    "aof_last_bgrewrite_status",
    "aof_last_write_status",
    "aof_pending_bio_fsync",
    "aof_pending_rewrite",
    "aof_rewrite_in_progress",
    "aof_rewrite_scheduled",
    "blocked_clients",
    "cluster_connections",
    "cluster_current_epoch",
    "cluster_enabled",
    "cluster_known_nodes",
    "cluster_my_epoch",
    "cluster_size",
    "cluster_slots_assigned",
    "cluster_slots_fail",
    "cluster_slots_ok",
    "cluster_slots_pfail",
    "cluster_state",
    "configured_hz",
    "connected_clients",
    "connected_slaves",
    "hz",
    "io_threads_active",
    "latest_fork_usec",
    "lazyfree_pending_objects",
    "master_repl_offset",
    "mem_clients_normal",
    "mem_clients_slaves",
    "mem_fragmentation_bytes",
    "mem_fragmentation_ratio",
    "module_fork_in_progress",
    "module_fork_last_cow_size",
    "process_id",
    "pubsub_channels",
    "pubsub_patterns",
    "rdb_bgsave_in_progress",
    "rdb_changes_since_last_save",
    "rdb_last_bgsave_status",
    "repl_backlog_first_byte_offset",
    "second_repl_offset",
    "slave_expires_tracked_keys",
    "slave_priority",
    "slave_repl_offset",
    "tracking_clients",
    "uptime_in_seconds",
];

/// What the labels of `redis_instance_info` are taken from.
const INSTANCE: &[&str] = &[
    "role",
    "redis_version",
    "redis_build_id",
    "redis_mode",
    "os",
    "maxmemory_policy",
    "tcp_port",
    "run_id",
    "process_id",
    "master_replid",
];

/// A family of samples: its type, and its lines in the order in which they came.
struct Family {
    name: String,
    kind: &'static str,
    samples: Vec<String>,
}

/// Samples by family: the text has those of one family together.
#[derive(Default)]
struct Samples {
    families: Vec<Family>,
    places: HashMap<String, usize>,
}

impl Samples {
    fn add(&mut self, name: &str, kind: &'static str, labels: &[(&str, &str)], value: f64) {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.families.push(Family {
                name: name.to_owned(),
                kind,
                samples: Vec::new(),
            });
            self.families.len() - 1
        });
        let mut sample = String::new();
        for (label, text) in labels {
            let before = if sample.is_empty() { '{' } else { ',' };
            let _ = write!(sample, "{before}{label}=\"{}\"", escaped(text));
        }
        if !sample.is_empty() {
            sample.push('}');
        }
        let _ = write!(sample, " {value}");
        self.families[place].samples.push(sample);
    }

    fn gauge(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, "gauge", labels, value);
    }

    fn counter(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, "counter", labels, value);
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for family in &self.families {
            let name = &family.name;
            let _ = writeln!(text, "# TYPE redis_{name} {}", family.kind);
            for sample in &family.samples {
                let _ = writeln!(text, "redis_{name}{sample}");
            }
        }
        text
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}

/// A field's number: states are 1 when all is well.
fn number(value: &str) -> Option<f64> {
    match value {
        "ok" => Some(1.0),
        "fail" | "err" => Some(0.0),
        _ => value.parse().ok().filter(|number: &f64| number.is_finite()),
    }
}

/// A part `name=value` of a field.
fn part<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let mut parts = value.split(',').filter_map(|part| part.split_once('='));
    parts
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// All metrics of the server.
pub fn text(shared: &Shared) -> String {
    let info = info::report(shared);
    let cluster = shared.cluster.as_ref();
    let cluster = cluster.map(|cluster| cluster_view::info_text(&cluster.machine()));
    from_info(&info, &cluster.unwrap_or_default())
}

/// The metrics that the texts of INFO and CLUSTER INFO tell.
fn from_info(info: &str, cluster: &str) -> String {
    let mut samples = Samples::default();
    samples.gauge("up", &[], 1.0);
    let lines = info.lines().chain(cluster.lines());
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let all: HashMap<&str, &str> = fields.iter().copied().collect();
    let of = |name: &str| all.get(name).copied().unwrap_or_default();
    let primary = [
        ("master_host", of("master_host")),
        ("master_port", of("master_port")),
    ];
    for (name, value) in &fields {
        if let Some((_, metric)) = COUNTERS.iter().find(|(field, _)| field == name) {
            if let Some(value) = number(value) {
                samples.counter(metric, &[], value);
            }
            continue;
        }
        let renamed = RENAMED.iter().find(|(field, _)| field == name);
        let same = SAME.iter().find(|field| *field == name);
        if let Some(metric) = renamed.map(|(_, metric)| metric).or(same) {
            if let Some(value) = number(value) {
                samples.gauge(metric, &[], value);
            }
            continue;
        }
        match *name {
            "master_link_status" => {
                samples.gauge("master_link_up", &primary, f64::from(*value == "up"));
            }
            "master_last_io_seconds_ago" | "master_sync_in_progress" => {
                samples.gauge(name, &primary, number(value).unwrap_or(0.0));
            }
            _ => composed(&mut samples, name, value),
        }
    }
    let instance: Vec<(&str, &str)> = INSTANCE.iter().map(|name| (*name, of(name))).collect();
    samples.gauge("instance_info", &instance, 1.0);
    if of("role") == "slave" {
        let read_only = ("slave_read_only", of("slave_read_only"));
        samples.gauge("slave_info", &[primary[0], primary[1], read_only], 1.0);
    }
    samples.text()
}

/// What a field of several parts tells.
fn composed(samples: &mut Samples, name: &str, value: &str) {
    let number_of = |wanted| part(value, wanted).and_then(number);
    if let Some(command) = name.strip_prefix("cmdstat_") {
        let labels = [("cmd", command)];
        let counted = [
            ("calls", "commands_total", 1.0),
            ("usec", "commands_duration_seconds_total", 1e-6),
            ("rejected_calls", "commands_rejected_calls_total", 1.0),
            ("failed_calls", "commands_failed_calls_total", 1.0),
        ];
        for (field, metric, scale) in counted {
            if let Some(count) = number_of(field) {
                samples.counter(metric, &labels, count * scale);
            }
        }
    } else if let Some(error) = name.strip_prefix("errorstat_") {
        if let Some(count) = number_of("count") {
            samples.counter("errors_total", &[("err", error)], count);
        }
    } else if name.starts_with("db") && part(value, "keys").is_some() {
        let labels = [("db", name)];
        let shown = [
            ("keys", "db_keys", 1.0),
            ("expires", "db_keys_expiring", 1.0),
            ("avg_ttl", "db_avg_ttl_seconds", 1e-3),
        ];
        for (field, metric, scale) in shown {
            if let Some(count) = number_of(field) {
                samples.gauge(metric, &labels, count * scale);
            }
        }
    } else if name.starts_with("slave") && part(value, "offset").is_some() {
        let text = |wanted| part(value, wanted).unwrap_or_default();
        let labels = [
            ("slave_ip", text("ip")),
            ("slave_port", text("port")),
            ("slave_state", text("state")),
        ];
        if let Some(offset) = number_of("offset") {
            samples.gauge("connected_slave_offset_bytes", &labels, offset);
        }
        if let Some(lag) = number_of("lag") {
            samples.gauge("connected_slave_lag_seconds", &labels, lag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_samples() {
        let info = "# Server\r\nredis_version:7.0.15\r\nos:a \"b\\c\r\n# Memory\r\nused_memory:5\r\n\
                    mem_fragmentation_ratio:1.50\r\ntotal_commands_processed:7\r\nrole:slave\r\n\
                    master_host:h\r\nmaster_port:1\r\nmaster_link_status:up\r\naof_last_write_status:ok\r\n\
                    cmdstat_get:calls=2,usec=3000,usec_per_call=1.5,rejected_calls=0,failed_calls=1\r\n\
                    db0:keys=4,expires=1,avg_ttl=1500\r\n\
                    slave0:ip=10.0.0.1,port=2,state=online,offset=9,lag=1\r\n\
                    db1:keys=6,expires=0,avg_ttl=0\r\nnonsense\r\nused_memory_human:5B\r\n";
        let text = from_info(info, "cluster_state:fail\r\ncluster_size:3\r\n");
        for line in [
            "redis_up 1",
            "redis_memory_used_bytes 5",
            "redis_mem_fragmentation_ratio 1.5",
            "# TYPE redis_commands_processed_total counter",
            "redis_commands_processed_total 7",
            "redis_master_link_up{master_host=\"h\",master_port=\"1\"} 1",
            "redis_aof_last_write_status 1",
            "redis_commands_total{cmd=\"get\"} 2",
            "redis_commands_duration_seconds_total{cmd=\"get\"} 0.003",
            "redis_db_keys{db=\"db0\"} 4",
            "redis_db_avg_ttl_seconds{db=\"db0\"} 1.5",
            "redis_connected_slave_offset_bytes{slave_ip=\"10.0.0.1\",slave_port=\"2\",slave_state=\"online\"} 9",
            "redis_cluster_state 0",
            "redis_cluster_size 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("os=\"a \\\"b\\\\c\""), "{text}");
        // Those of one family stand together, under one head.
        assert!(text.contains("redis_db_keys{db=\"db0\"} 4\nredis_db_keys{db=\"db1\"} 6\n"));
        assert_eq!(text.matches("# TYPE redis_db_keys gauge").count(), 1);
        assert!(!text.contains("human") && !text.contains("nonsense"));
    }
}
