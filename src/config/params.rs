//! The table: one row per parameter of Redis 7.0.15, grouped by subject.
//!
//! A row reads `field: Type = default, "name" | "alias", kind, flags, effect, check;` and everything
//! about the parameter follows from it: the field of [`Settings`], the entry in [`PARAMS`], how the
//! value is read, checked, printed and written back. Behaviour that a parameter controls is not
//! here but where it is used; `redis.conf.example` explains each row to operators, and a test keeps
//! the two in step.
//!
//! The default of `io-threads` is the one that differs from Redis: it is the number of workers, and
//! by default there is one for each processor this process may use.

use std::sync::LazyLock;

use super::choices::*;
use super::proc_title;
use super::special::*;
use super::value::*;
use super::{Directives, default_workers};

const INT_MAX: i64 = i32::MAX as i64;
const INT_MIN: i64 = i32::MIN as i64;
const LONG_MAX: i64 = i64::MAX;
const SIZE_MAX: u64 = i64::MAX as u64;

/// Inside a container every client comes from elsewhere, and what is published decides who can connect:
/// for the image it is built to be off, as in the official one, however the server is called there.
const PROTECTED_MODE: bool = option_env!("TESSERA_FOR_IMAGE").is_none();

const BOOL: Kind = Kind::Bool;
const ENUM: Kind = Kind::Enum;
const TEXT: Kind = Kind::Text {
    empty_is_unset: false,
};
const UNSET_TEXT: Kind = Kind::Text {
    empty_is_unset: true,
};
const SPECIAL: Kind = Kind::Special;

const IMMUTABLE: Flags = Flags::IMMUTABLE;
const SENSITIVE: Flags = Flags::SENSITIVE;
const DEBUG: Flags = Flags::DEBUG;
const MULTI_ARG: Flags = Flags::MULTI_ARG;
const HIDDEN: Flags = Flags::HIDDEN;
const PROTECTED: Flags = Flags::PROTECTED;
const DENY_LOADING: Flags = Flags::DENY_LOADING;
const VOLATILE: Flags = Flags::VOLATILE;

macro_rules! params {
    ($($(#[$doc:meta])* $field:ident: $ty:ty = $default:expr, $name:literal $(| $alias:literal)?,
        $kind:expr $(, flags $flags:expr)? $(, effect $effect:ident)? $(, check $check:path)?;)*) => {
        /// The value of every parameter. A snapshot: [`super::Config`] replaces it as a whole.
        #[derive(Clone)]
        pub struct Settings {
            $($(#[$doc])* pub $field: $ty,)*
            /// Directives of the file that are not parameters, with how the server was called.
            pub directives: Directives,
        }

        impl Default for Settings {
            fn default() -> Self {
                Settings { $($field: $default,)* directives: Directives::default() }
            }
        }

        /// All rows, in the order of the table.
        pub static PARAMS: &[Param] = &[$(
            Param {
                name: $name,
                alias: params!(@alias $($alias)?),
                kind: $kind,
                flags: params!(@flags $($flags)?),
                effect: params!(@effect $($effect)?),
                set: |settings, param, args, origin| {
                    let new = Value::parse(&settings.$field, param, args, origin)?;
                    $($check(settings, &new)?;)?
                    let changed = new != settings.$field || param.flags.has(VOLATILE);
                    settings.$field = new;
                    Ok(changed)
                },
                get: |settings, param| Value::print(&settings.$field, param),
                lines: |settings, defaults, param| {
                    Value::lines(&settings.$field, &defaults.$field, param)
                },
            },
        )*];
    };
    (@alias) => { None };
    (@alias $alias:literal) => { Some($alias) };
    (@flags) => { Flags::NONE };
    (@flags $flags:expr) => { $flags };
    (@effect) => { Effect::None };
    (@effect $effect:ident) => { Effect::$effect };
}

params! {
    // Network.
    /// Addresses to listen on; a leading `-` marks one that may be missing.
    bind: Vec<String> = vec!["*".to_owned(), "-::*".to_owned()], "bind", SPECIAL, flags MULTI_ARG, effect Bind;
    /// Local address of outgoing connections; empty lets the kernel choose.
    bind_source_addr: Text = Text::default(), "bind-source-addr", UNSET_TEXT;
    /// TCP port; 0 does not listen.
    port: u16 = 6379, "port", int(0, 65535), effect Port;
    /// Length of the kernel's queue of connections to accept.
    tcp_backlog: i32 = 511, "tcp-backlog", int(0, INT_MAX), flags IMMUTABLE;
    /// Path of the Unix socket; empty does not listen.
    unixsocket: Text = Text::default(), "unixsocket", UNSET_TEXT, flags IMMUTABLE;
    /// Permissions of the Unix socket; 0 leaves them to the umask.
    unixsocketperm: u32 = 0, "unixsocketperm", octal(0o777), flags IMMUTABLE;
    /// Mark (SO_MARK) of listening sockets; 0 sets none.
    socket_mark_id: u32 = 0, "socket-mark-id", uint(0, u32::MAX as u64), flags IMMUTABLE;
    /// HTTP port for probes and metrics; 0 does not listen.
    admin_port: u16 = 0, "admin-port", int(0, 65535), effect Port;
    /// Addresses that it listens on.
    admin_bind: Text = Text::from("127.0.0.1"), "admin-bind", TEXT, effect Port;
    /// Seconds after which an idle client is closed; 0 is never.
    timeout: i32 = 0, "timeout", int(0, INT_MAX);
    /// Seconds between TCP keepalive probes; 0 sends none.
    tcp_keepalive: i32 = 300, "tcp-keepalive", int(0, INT_MAX);
    /// Refuse clients of other machines while there is no password.
    protected_mode: bool = PROTECTED_MODE, "protected-mode", BOOL;
    /// Most clients at a time.
    maxclients: u32 = 10000, "maxclients", uint(1, u32::MAX as u64), effect Maxclients;
    /// Most memory of all clients in bytes, or minus a percentage of `maxmemory`; 0 is no limit.
    maxmemory_clients: i64 = 0, "maxmemory-clients", memory_or_percent(100), effect MaxmemoryClients;
    /// Most bytes of unexecuted input of one client.
    client_query_buffer_limit: usize = 1 << 30, "client-query-buffer-limit", umemory(1 << 20, SIZE_MAX), flags DEBUG;
    /// Limits of unsent output by class of client; see [`OutputLimit`] for the indices.
    client_output_buffer_limit: [OutputLimit; 3] = [
        OutputLimit::new(0, 0, 0),
        OutputLimit::new(256 << 20, 64 << 20, 60),
        OutputLimit::new(32 << 20, 8 << 20, 60),
    ], "client-output-buffer-limit", SPECIAL, flags MULTI_ARG;
    /// Longest argument of a command in bytes.
    proto_max_bulk_len: i64 = 512 << 20, "proto-max-bulk-len", memory(1 << 20, LONG_MAX), flags DEBUG;
    /// Number of workers, that is threads that run commands.
    io_threads: i32 = default_workers() as i32, "io-threads", int(1, 128), flags DEBUG.or(IMMUTABLE);
    /// Of no effect: workers always read and parse what they serve.
    io_threads_do_reads: bool = false, "io-threads-do-reads", BOOL, flags DEBUG.or(IMMUTABLE);

    // TLS.
    /// TLS port; 0 does not listen.
    tls_port: u16 = 0, "tls-port", int(0, 65535), effect TlsPort;
    /// Certificate of the server, PEM.
    tls_cert_file: Text = Text::default(), "tls-cert-file", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Key of the server's certificate, PEM.
    tls_key_file: Text = Text::default(), "tls-key-file", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Pass phrase of the server's key.
    tls_key_file_pass: Text = Text::default(), "tls-key-file-pass", UNSET_TEXT, effect Tls;
    /// Certificate for outgoing connections; empty uses the server's.
    tls_client_cert_file: Text = Text::default(), "tls-client-cert-file", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Key of the certificate for outgoing connections.
    tls_client_key_file: Text = Text::default(), "tls-client-key-file", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Pass phrase of that key.
    tls_client_key_file_pass: Text = Text::default(), "tls-client-key-file-pass", UNSET_TEXT, effect Tls;
    /// Diffie-Hellman parameters, PEM: of no effect, keys are exchanged by elliptic curves.
    tls_dh_params_file: Text = Text::default(), "tls-dh-params-file", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Certificates of trusted authorities, PEM.
    tls_ca_cert_file: Text = Text::default(), "tls-ca-cert-file", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Directory of certificates of trusted authorities, in files named as `openssl rehash` does.
    tls_ca_cert_dir: Text = Text::default(), "tls-ca-cert-dir", UNSET_TEXT, flags VOLATILE, effect Tls;
    /// Whether clients must show a certificate.
    tls_auth_clients: TlsAuthClients = TlsAuthClients::Yes, "tls-auth-clients", ENUM, effect Tls;
    /// Replication links, and those of a sentinel, use TLS.
    tls_replication: bool = false, "tls-replication", BOOL, effect Tls;
    /// The cluster bus and MIGRATE use TLS, and redirections name TLS ports.
    tls_cluster: bool = false, "tls-cluster", BOOL, effect Tls;
    /// Protocol versions allowed, of TLSv1.2 and TLSv1.3; empty is both.
    tls_protocols: Text = Text::default(), "tls-protocols", UNSET_TEXT, effect Tls;
    /// Ciphers allowed in TLS 1.2, as OpenSSL names them; those that are not ECDHE with AES-GCM or ChaCha20 stay off.
    tls_ciphers: Text = Text::default(), "tls-ciphers", UNSET_TEXT, effect Tls;
    /// Cipher suites allowed in TLS 1.3.
    tls_ciphersuites: Text = Text::default(), "tls-ciphersuites", UNSET_TEXT, effect Tls;
    /// The server's order of ciphers wins.
    tls_prefer_server_ciphers: bool = false, "tls-prefer-server-ciphers", BOOL, effect Tls;
    /// Sessions can be resumed.
    tls_session_caching: bool = true, "tls-session-caching", BOOL, effect Tls;
    /// Number of sessions kept; 0 is no limit.
    tls_session_cache_size: i32 = 20 * 1024, "tls-session-cache-size", int(0, INT_MAX), effect Tls;
    /// Seconds that a session is kept.
    tls_session_cache_timeout: i32 = 300, "tls-session-cache-timeout", int(0, INT_MAX), effect Tls;

    // General.
    /// Run in the background.
    daemonize: bool = false, "daemonize", BOOL, flags IMMUTABLE;
    /// Which supervisor to notify.
    supervised: Supervised = Supervised::No, "supervised", ENUM, flags IMMUTABLE;
    /// File that holds the process id.
    pidfile: Text = Text::default(), "pidfile", UNSET_TEXT, flags IMMUTABLE;
    /// Least important lines to log.
    loglevel: LogLevel = LogLevel::Notice, "loglevel", ENUM, effect LogLevel;
    /// Log file; empty is standard output.
    logfile: Text = Text::default(), "logfile", TEXT, flags IMMUTABLE;
    /// Log to syslog too.
    syslog_enabled: bool = false, "syslog-enabled", BOOL, flags IMMUTABLE;
    /// Name in syslog.
    syslog_ident: Text = Text::from("redis"), "syslog-ident", TEXT, flags IMMUTABLE;
    /// Facility of syslog.
    syslog_facility: SyslogFacility = SyslogFacility::Local0, "syslog-facility", ENUM, flags IMMUTABLE;
    /// Log a report when the server crashes.
    crash_log_enabled: bool = true, "crash-log-enabled", BOOL, effect SignalHandlers;
    /// Test memory after a crash.
    crash_memcheck_enabled: bool = true, "crash-memcheck-enabled", BOOL;
    /// Exit instead of aborting on a panic.
    use_exit_on_panic: bool = false, "use-exit-on-panic", BOOL, flags HIDDEN;
    /// Number of databases.
    databases: i32 = 16, "databases", int(1, INT_MAX), flags IMMUTABLE;
    /// Draw the logo even into a log file.
    always_show_logo: bool = false, "always-show-logo", BOOL, flags IMMUTABLE;
    /// Change the process title.
    set_proc_title: bool = true, "set-proc-title", BOOL, flags IMMUTABLE;
    /// Template of the process title, see [`proc_title::expand`].
    proc_title_template: Text = Text::from("{title} {listen-addr} {server-mode}"), "proc-title-template", TEXT, effect ProcTitle, check proc_title::check;
    /// Names of start checks whose warning is wanted silent.
    ignore_warnings: Text = Text::default(), "ignore-warnings", TEXT;
    /// Who may use DEBUG.
    enable_debug_command: ProtectedAction = ProtectedAction::No, "enable-debug-command", ENUM, flags IMMUTABLE;
    /// Who may use MODULE.
    enable_module_command: ProtectedAction = ProtectedAction::No, "enable-module-command", ENUM, flags IMMUTABLE;
    /// Who may set protected parameters.
    enable_protected_configs: ProtectedAction = ProtectedAction::No, "enable-protected-configs", ENUM, flags IMMUTABLE;
    /// Options of the shutdown that SIGINT starts.
    shutdown_on_sigint: ShutdownFlags = ShutdownFlags(0), "shutdown-on-sigint", Kind::EnumSet, flags MULTI_ARG;
    /// Options of the shutdown that SIGTERM starts.
    shutdown_on_sigterm: ShutdownFlags = ShutdownFlags(0), "shutdown-on-sigterm", Kind::EnumSet, flags MULTI_ARG;
    /// Seconds that a shutdown waits for replicas.
    shutdown_timeout: i32 = 10, "shutdown-timeout", int(0, INT_MAX);
    /// Runs of periodic work per second.
    hz: i32 = 10, "hz", int(0, INT_MAX), effect Hz;
    /// Raise `hz` with the number of clients.
    dynamic_hz: bool = true, "dynamic-hz", BOOL;
    /// Processors of the workers, as a list like `0-3,6`.
    server_cpulist: Text = Text::default(), "server_cpulist", UNSET_TEXT, flags IMMUTABLE;
    /// Processors of background threads.
    bio_cpulist: Text = Text::default(), "bio_cpulist", UNSET_TEXT, flags IMMUTABLE;
    /// Processors of the thread that rewrites the append only file.
    aof_rewrite_cpulist: Text = Text::default(), "aof_rewrite_cpulist", UNSET_TEXT, flags IMMUTABLE;
    /// Processors of the thread that saves.
    bgsave_cpulist: Text = Text::default(), "bgsave_cpulist", UNSET_TEXT, flags IMMUTABLE;
    /// Write the process' OOM score.
    oom_score_adj: OomScoreAdj = OomScoreAdj::No, "oom-score-adj", ENUM, effect OomScoreAdj;
    /// OOM scores of a primary, a replica, a process that saves.
    oom_score_adj_values: [i32; 3] = [0, 200, 800], "oom-score-adj-values", SPECIAL, flags MULTI_ARG, effect OomScoreAdj;
    /// Ask the kernel for no transparent huge pages.
    disable_thp: bool = true, "disable-thp", BOOL, flags IMMUTABLE;
    /// Milliseconds of silence after which the software watchdog reports; 0 is off.
    watchdog_period: i32 = 0, "watchdog-period", int(0, INT_MAX), flags HIDDEN, effect WatchdogPeriod;
    /// What a failing command of the replication stream or AOF does.
    propagation_error_behavior: PropagationErrorBehavior = PropagationErrorBehavior::Ignore, "propagation-error-behavior", ENUM;

    // Snapshots.
    /// When to save by itself.
    save: Vec<SavePoint> = vec![SavePoint::new(3600, 1), SavePoint::new(300, 100), SavePoint::new(60, 10000)], "save", SPECIAL, flags MULTI_ARG;
    /// Refuse writes while the last snapshot failed.
    stop_writes_on_bgsave_error: bool = true, "stop-writes-on-bgsave-error", BOOL;
    /// Compress long strings in RDB files.
    rdbcompression: bool = true, "rdbcompression", BOOL;
    /// Write and verify the checksum of RDB files.
    rdbchecksum: bool = true, "rdbchecksum", BOOL, flags IMMUTABLE;
    /// How far to distrust RDB and RESTORE payloads.
    sanitize_dump_payload: SanitizeDumpPayload = SanitizeDumpPayload::No, "sanitize-dump-payload", ENUM, flags DEBUG;
    /// Name of the RDB file in `dir`.
    dbfilename: Text = Text::from("dump.rdb"), "dbfilename", TEXT, flags PROTECTED, check check_dbfilename;
    /// Delete RDB files of a full sync when nothing is persisted.
    rdb_del_sync_files: bool = false, "rdb-del-sync-files", BOOL;
    /// Flush RDB files to disk while they are written.
    rdb_save_incremental_fsync: bool = true, "rdb-save-incremental-fsync", BOOL;
    /// The working directory.
    dir: Dir = Dir::current(), "dir", SPECIAL, flags PROTECTED.or(DENY_LOADING);
    /// Microseconds to wait per key saved, for tests; negative ones are fractions.
    rdb_key_save_delay: i32 = 0, "rdb-key-save-delay", int(INT_MIN, INT_MAX), flags HIDDEN;
    /// Microseconds to wait per key loaded, for tests; negative ones are fractions.
    key_load_delay: i32 = 0, "key-load-delay", int(INT_MIN, INT_MAX), flags HIDDEN;
    /// Bytes loaded between two looks at the clients.
    loading_process_events_interval_bytes: i64 = 2 << 20, "loading-process-events-interval-bytes", int(1024, INT_MAX), flags HIDDEN;

    // Append only file.
    /// Keep an append only file.
    appendonly: bool = false, "appendonly", BOOL, flags DENY_LOADING, effect Appendonly;
    /// First part of the names of its files.
    appendfilename: Text = Text::from("appendonly.aof"), "appendfilename", TEXT, flags IMMUTABLE, check check_appendfilename;
    /// Directory of its files, in `dir`.
    appenddirname: Text = Text::from("appendonlydir"), "appenddirname", TEXT, flags IMMUTABLE, check check_appenddirname;
    /// When it is flushed to disk.
    appendfsync: AppendFsync = AppendFsync::Everysec, "appendfsync", ENUM, effect AppendFsync;
    /// Do not flush it while it is rewritten or a snapshot is taken.
    no_appendfsync_on_rewrite: bool = false, "no-appendfsync-on-rewrite", BOOL;
    /// Rewrite it when it grew by this many percent; 0 is never.
    auto_aof_rewrite_percentage: i32 = 100, "auto-aof-rewrite-percentage", int(0, INT_MAX);
    /// But not below this many bytes.
    auto_aof_rewrite_min_size: i64 = 64 << 20, "auto-aof-rewrite-min-size", memory(0, i64::MAX);
    /// Start although its end is cut off.
    aof_load_truncated: bool = true, "aof-load-truncated", BOOL;
    /// Its base file is an RDB file.
    aof_use_rdb_preamble: bool = true, "aof-use-rdb-preamble", BOOL;
    /// Write the time into it.
    aof_timestamp_enabled: bool = false, "aof-timestamp-enabled", BOOL;
    /// Flush it to disk while it is rewritten.
    aof_rewrite_incremental_fsync: bool = true, "aof-rewrite-incremental-fsync", BOOL;
    /// Keep its old files.
    aof_disable_auto_gc: bool = false, "aof-disable-auto-gc", BOOL, effect AofAutoGc;

    // Replication.
    /// The primary to follow.
    replicaof: Option<(String, u16)> = None, "replicaof" | "slaveof", SPECIAL, flags IMMUTABLE.or(MULTI_ARG);
    /// Password at the primary.
    masterauth: Vec<u8> = Vec::new(), "masterauth", UNSET_TEXT, flags SENSITIVE;
    /// User at the primary; empty is the default user.
    masteruser: Text = Text::default(), "masteruser", UNSET_TEXT, flags SENSITIVE;
    /// Answer reads while the primary is away.
    replica_serve_stale_data: bool = true, "replica-serve-stale-data" | "slave-serve-stale-data", BOOL;
    /// Refuse writes as a replica.
    replica_read_only: bool = true, "replica-read-only" | "slave-read-only", BOOL, flags DEBUG;
    /// Send full syncs without a file.
    repl_diskless_sync: bool = true, "repl-diskless-sync", BOOL, flags DEBUG;
    /// Seconds to wait for more replicas before such a sync.
    repl_diskless_sync_delay: i32 = 5, "repl-diskless-sync-delay", int(0, INT_MAX);
    /// Number of waiting replicas that ends the delay; 0 is no such number.
    repl_diskless_sync_max_replicas: i32 = 0, "repl-diskless-sync-max-replicas", int(0, INT_MAX);
    /// How a full sync is received.
    repl_diskless_load: ReplDisklessLoad = ReplDisklessLoad::Disabled, "repl-diskless-load", ENUM, flags DEBUG.or(DENY_LOADING);
    /// Seconds between pings to replicas.
    repl_ping_replica_period: i32 = 10, "repl-ping-replica-period" | "repl-ping-slave-period", int(1, INT_MAX);
    /// Seconds of silence after which a link is given up.
    repl_timeout: i32 = 60, "repl-timeout", int(1, INT_MAX);
    /// Let TCP gather packets to replicas.
    repl_disable_tcp_nodelay: bool = false, "repl-disable-tcp-nodelay", BOOL;
    /// Bytes of the stream kept for partial syncs.
    repl_backlog_size: i64 = 1 << 20, "repl-backlog-size", memory(1, i64::MAX), effect ReplBacklogSize;
    /// Seconds without replicas after which the backlog is freed; 0 is never.
    repl_backlog_ttl: i64 = 3600, "repl-backlog-ttl", int(0, LONG_MAX);
    /// Rank for promotion, lower first; 0 is never.
    replica_priority: i32 = 100, "replica-priority" | "slave-priority", int(0, INT_MAX);
    /// Listed by sentinels.
    replica_announced: bool = true, "replica-announced", BOOL;
    /// Address told to the primary; empty is the one it sees.
    replica_announce_ip: Text = Text::default(), "replica-announce-ip" | "slave-announce-ip", UNSET_TEXT;
    /// Port told to the primary; 0 is the one listened on.
    replica_announce_port: u16 = 0, "replica-announce-port" | "slave-announce-port", int(0, 65535);
    /// Replicas without which writes are refused; 0 asks for none.
    min_replicas_to_write: i32 = 0, "min-replicas-to-write" | "min-slaves-to-write", int(0, INT_MAX), effect GoodReplicas;
    /// Seconds within which such a replica was heard of.
    min_replicas_max_lag: i32 = 10, "min-replicas-max-lag" | "min-slaves-max-lag", int(0, INT_MAX), effect GoodReplicas;
    /// Leave eviction to the primary.
    replica_ignore_maxmemory: bool = true, "replica-ignore-maxmemory" | "slave-ignore-maxmemory", BOOL;
    /// Free the old data set in the background on a full sync.
    replica_lazy_flush: bool = false, "replica-lazy-flush" | "slave-lazy-flush", BOOL;
    /// Go on as a replica when the disk fails.
    replica_ignore_disk_write_errors: bool = false, "replica-ignore-disk-write-errors", BOOL;

    // Users.
    /// Password of the default user.
    requirepass: Vec<u8> = Vec::new(), "requirepass", UNSET_TEXT, flags SENSITIVE, effect Requirepass;
    /// File of users.
    aclfile: Text = Text::default(), "aclfile", TEXT, flags IMMUTABLE;
    /// Entries of the log of refusals.
    acllog_max_len: u64 = 128, "acllog-max-len", int(0, LONG_MAX);
    /// Channels of a new user.
    acl_pubsub_default: AclPubsubDefault = AclPubsubDefault::Resetchannels, "acl-pubsub-default", ENUM;

    // Memory.
    /// Most bytes of data; 0 is no limit.
    maxmemory: u64 = 0, "maxmemory", umemory(0, u64::MAX), effect Maxmemory;
    /// What to evict.
    maxmemory_policy: MaxmemoryPolicy = MaxmemoryPolicy::NoEviction, "maxmemory-policy", ENUM;
    /// Keys looked at for one eviction.
    maxmemory_samples: i32 = 5, "maxmemory-samples", int(1, INT_MAX);
    /// Effort of eviction per command, 0 to 100.
    maxmemory_eviction_tenacity: i32 = 10, "maxmemory-eviction-tenacity", int(0, 100);
    /// Growth of LFU counters, higher is slower.
    lfu_log_factor: i32 = 10, "lfu-log-factor", int(0, INT_MAX);
    /// Minutes after which an LFU counter loses one; 0 is never.
    lfu_decay_time: i32 = 1, "lfu-decay-time", int(0, INT_MAX);
    /// Effort of active expiry, 1 to 10.
    active_expire_effort: i32 = 1, "active-expire-effort", int(1, 10);
    /// Free evicted values in the background.
    lazyfree_lazy_eviction: bool = false, "lazyfree-lazy-eviction", BOOL, flags DEBUG;
    /// Free expired values in the background.
    lazyfree_lazy_expire: bool = false, "lazyfree-lazy-expire", BOOL, flags DEBUG;
    /// Free overwritten values in the background.
    lazyfree_lazy_server_del: bool = false, "lazyfree-lazy-server-del", BOOL, flags DEBUG;
    /// DEL is UNLINK.
    lazyfree_lazy_user_del: bool = false, "lazyfree-lazy-user-del", BOOL, flags DEBUG;
    /// FLUSHALL and FLUSHDB are ASYNC by default.
    lazyfree_lazy_user_flush: bool = false, "lazyfree-lazy-user-flush", BOOL, flags DEBUG;
    /// Most keys in the table of tracked reads; 0 is no limit.
    tracking_table_max_keys: usize = 1_000_000, "tracking-table-max-keys", uint(0, SIZE_MAX);
    /// Move values to close gaps in memory.
    activedefrag: bool = false, "activedefrag", BOOL, flags DEBUG, check check_activedefrag;
    /// Wasted bytes below which nothing is moved.
    active_defrag_ignore_bytes: usize = 100 << 20, "active-defrag-ignore-bytes", umemory(1, SIZE_MAX);
    /// Percentage of waste from which values are moved.
    active_defrag_threshold_lower: i32 = 10, "active-defrag-threshold-lower", int(0, 1000);
    /// Percentage of waste from which the greatest effort is made.
    active_defrag_threshold_upper: i32 = 100, "active-defrag-threshold-upper", int(0, 1000);
    /// Percentage of time spent at the lower threshold.
    active_defrag_cycle_min: i32 = 1, "active-defrag-cycle-min", int(1, 99);
    /// Percentage of time spent at the upper threshold.
    active_defrag_cycle_max: i32 = 25, "active-defrag-cycle-max", int(1, 99);
    /// Elements above which a collection is moved in steps.
    active_defrag_max_scan_fields: u64 = 1000, "active-defrag-max-scan-fields", int(1, LONG_MAX);
    /// jemalloc gives memory back in a thread of its own.
    jemalloc_bg_thread: bool = true, "jemalloc-bg-thread", BOOL, effect JemallocBgThread;
    /// Of no effect: the table grows without a rehash.
    activerehashing: bool = true, "activerehashing", BOOL;

    // Encodings.
    /// Fields up to which a hash is a listpack.
    hash_max_listpack_entries: usize = 512, "hash-max-listpack-entries" | "hash-max-ziplist-entries", uint(0, SIZE_MAX);
    /// Bytes of its longest field or value.
    hash_max_listpack_value: usize = 64, "hash-max-listpack-value" | "hash-max-ziplist-value", umemory(0, SIZE_MAX);
    /// Elements of a list's node, or as a negative number its size class.
    list_max_listpack_size: i32 = -2, "list-max-listpack-size" | "list-max-ziplist-size", int(INT_MIN, INT_MAX);
    /// Nodes at both ends of a list that stay uncompressed; 0 compresses none.
    list_compress_depth: i32 = 0, "list-compress-depth", int(0, INT_MAX), flags DEBUG;
    /// Elements up to which a set of integers is an intset.
    set_max_intset_entries: usize = 512, "set-max-intset-entries", uint(0, SIZE_MAX);
    /// Elements up to which a sorted set is a listpack.
    zset_max_listpack_entries: usize = 128, "zset-max-listpack-entries" | "zset-max-ziplist-entries", uint(0, SIZE_MAX);
    /// Bytes of its longest element.
    zset_max_listpack_value: usize = 64, "zset-max-listpack-value" | "zset-max-ziplist-value", umemory(0, SIZE_MAX);
    /// Bytes up to which a HyperLogLog is sparse.
    hll_sparse_max_bytes: usize = 3000, "hll-sparse-max-bytes", umemory(0, SIZE_MAX);
    /// Bytes of a stream's node; 0 is no limit.
    stream_node_max_bytes: usize = 4096, "stream-node-max-bytes", umemory(0, SIZE_MAX);
    /// Entries of a stream's node; 0 is no limit.
    stream_node_max_entries: i64 = 100, "stream-node-max-entries", int(0, i64::MAX);

    // Scripts, slow commands, events.
    /// Milliseconds after which a script answers others with BUSY; 0 is never.
    busy_reply_threshold: i64 = 5000, "busy-reply-threshold" | "lua-time-limit", int(0, LONG_MAX);
    /// Bytes that the interpreters of scripts, and those of functions, may take on each worker; 0: no limit.
    lua_memory_limit: u64 = 1 << 30, "lua-memory-limit", umemory(0, u64::MAX);
    /// A script that is killed leaves nothing of what it wrote.
    script_kill_rollback: bool = false, "script-kill-rollback", BOOL;
    /// Offer Lua functions that Redis removed.
    lua_enable_deprecated_api: bool = false, "lua-enable-deprecated-api", BOOL, flags IMMUTABLE.or(HIDDEN);
    /// Microseconds from which a command is in SLOWLOG; negative is never.
    slowlog_log_slower_than: i64 = 10000, "slowlog-log-slower-than", int(-1, i64::MAX);
    /// Entries of SLOWLOG.
    slowlog_max_len: u64 = 128, "slowlog-max-len", int(0, LONG_MAX);
    /// Milliseconds from which an event is recorded for LATENCY; 0 records none.
    latency_monitor_threshold: i64 = 0, "latency-monitor-threshold", int(0, i64::MAX);
    /// Keep a histogram of each command's time.
    latency_tracking: bool = true, "latency-tracking", BOOL;
    /// Percentiles of it in INFO.
    latency_tracking_info_percentiles: Vec<f64> = vec![50.0, 99.0, 99.9], "latency-tracking-info-percentiles", SPECIAL, flags MULTI_ARG;
    /// Events that are published.
    notify_keyspace_events: NotifyFlags = NotifyFlags(0), "notify-keyspace-events", SPECIAL;

    // Cluster.
    /// Be a node of a cluster.
    cluster_enabled: bool = false, "cluster-enabled", BOOL, flags IMMUTABLE;
    /// File of the node's view of the cluster, in `dir`.
    cluster_config_file: Text = Text::from("nodes.conf"), "cluster-config-file", TEXT, flags IMMUTABLE;
    /// Port of the bus; 0 is `port` plus 10000.
    cluster_port: u16 = 0, "cluster-port", int(0, 65535), flags IMMUTABLE;
    /// A primary that is told to end has a replica take over first.
    auto_failover_on_shutdown: bool = true, "auto-failover-on-shutdown", BOOL;
    /// Milliseconds of silence after which a node may have failed.
    cluster_node_timeout: i64 = 15000, "cluster-node-timeout", int(0, i64::MAX);
    /// Timeouts without its primary after which a replica is too old to replace it; 0 is never.
    cluster_replica_validity_factor: i32 = 10, "cluster-replica-validity-factor" | "cluster-slave-validity-factor", int(0, INT_MAX);
    /// Replicas that a primary keeps when one moves to an orphan.
    cluster_migration_barrier: i32 = 1, "cluster-migration-barrier", int(0, INT_MAX);
    /// Let replicas move to orphans.
    cluster_allow_replica_migration: bool = true, "cluster-allow-replica-migration", BOOL;
    /// Refuse all keys while some slot has no node.
    cluster_require_full_coverage: bool = true, "cluster-require-full-coverage", BOOL;
    /// Do not fail over by itself.
    cluster_replica_no_failover: bool = false, "cluster-replica-no-failover" | "cluster-slave-no-failover", BOOL, effect ClusterFlags;
    /// Answer reads while the cluster is down.
    cluster_allow_reads_when_down: bool = false, "cluster-allow-reads-when-down", BOOL;
    /// Serve shard channels while the cluster is down.
    cluster_allow_pubsubshard_when_down: bool = true, "cluster-allow-pubsubshard-when-down", BOOL;
    /// Name that has the addresses of all nodes: those without a cluster form one. Empty is by hand.
    cluster_form_service: Text = Text::default(), "cluster-form-service", UNSET_TEXT, check check_hostname;
    /// Primaries of a cluster that forms by itself.
    cluster_form_primaries: i32 = 3, "cluster-form-primaries", int(1, 1000);
    /// Most unsent bytes of one link of the bus; 0 is no limit.
    cluster_link_sendbuf_limit: u64 = 0, "cluster-link-sendbuf-limit", umemory(0, u64::MAX);
    /// Atomic migrations of slots that are remembered.
    cluster_slot_migration_log_max_len: i64 = 1000, "cluster-slot-migration-log-max-len", int(0, i64::MAX);
    /// Most bytes of changes that may be left when a migration of slots holds writes back; -1 is no limit.
    slot_migration_max_failover_repl_bytes: i64 = -1, "slot-migration-max-failover-repl-bytes", int(-1, i64::MAX);
    /// Address announced; empty is the one others see.
    cluster_announce_ip: Text = Text::default(), "cluster-announce-ip", UNSET_TEXT, effect ClusterIp;
    /// Host name announced.
    cluster_announce_hostname: Text = Text::default(), "cluster-announce-hostname", UNSET_TEXT, effect ClusterHostname, check check_hostname;
    /// How nodes are named in redirections.
    cluster_preferred_endpoint_type: ClusterEndpointType = ClusterEndpointType::Ip, "cluster-preferred-endpoint-type", ENUM;
    /// Port announced; 0 is `port`.
    cluster_announce_port: u16 = 0, "cluster-announce-port", int(0, 65535), effect ClusterPorts;
    /// TLS port announced; 0 is `tls-port`.
    cluster_announce_tls_port: u16 = 0, "cluster-announce-tls-port", int(0, 65535), effect ClusterPorts;
    /// Port of the bus announced; 0 is the one listened on.
    cluster_announce_bus_port: u16 = 0, "cluster-announce-bus-port", int(0, 65535), effect ClusterPorts;
}

/// The values of a server that was told nothing.
pub fn defaults() -> &'static Settings {
    static DEFAULTS: LazyLock<Settings> = LazyLock::new(Settings::default);
    &DEFAULTS
}

/// Finds a row by its name or alias in any case. With it comes the name as the table spells it.
pub fn lookup(name: &[u8]) -> Option<(&'static Param, &'static str)> {
    PARAMS.iter().find_map(|param| {
        let mut names = std::iter::once(param.name).chain(param.alias);
        let found = names.find(|known| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some((param, found))
    })
}

/// Least and most runs of periodic work per second; values of `hz` beyond are moved to them.
pub const HZ_RANGE: std::ops::RangeInclusive<i32> = 1..=500;

/// Least size of the replication backlog; CONFIG SET raises smaller ones to it.
pub const MIN_BACKLOG_BYTES: i64 = 16 * 1024;

/// Longest host name, its zero byte included.
const HOST_LEN: usize = 256;

fn is_base_name(path: &[u8]) -> bool {
    !path.iter().any(|b| matches!(b, b'/' | b'\\'))
}

fn refuse(allowed: bool, reason: &str) -> Result<(), String> {
    if allowed {
        Ok(())
    } else {
        Err(reason.to_owned())
    }
}

fn check_dbfilename(_: &Settings, name: &Text) -> Result<(), String> {
    refuse(
        is_base_name(name),
        "dbfilename can't be a path, just a filename",
    )
}

fn check_appendfilename(_: &Settings, name: &Text) -> Result<(), String> {
    refuse(!name.is_empty(), "appendfilename can't be empty")?;
    refuse(
        is_base_name(name),
        "appendfilename can't be a path, just a filename",
    )
}

fn check_appenddirname(_: &Settings, name: &Text) -> Result<(), String> {
    refuse(!name.is_empty(), "appenddirname can't be empty")?;
    refuse(
        is_base_name(name),
        "appenddirname can't be a path, just a dirname",
    )
}

fn check_hostname(_: &Settings, name: &Text) -> Result<(), String> {
    refuse(
        name.len() < HOST_LEN,
        "Hostnames must be less than 256 characters",
    )?;
    refuse(
        name.iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')),
        "Hostnames may only contain alphanumeric characters, hyphens or dots",
    )
}

/// Debian's Redis is built without defragmentation and says so; this server has none yet.
fn check_activedefrag(_: &Settings, on: &bool) -> Result<(), String> {
    refuse(
        !on,
        "Active defragmentation cannot be enabled: it requires a Redis server compiled with a \
         modified Jemalloc like the one shipped by default with the Redis source distribution",
    )
}
