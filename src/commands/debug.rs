//! DEBUG: what suites and developers use to look inside and to provoke trouble.

use std::time::Duration;

use super::config::write_file;
use super::{cluster_orders, debug_inside as inside, digest, help};
use crate::base::{alloc, number, strtod};
use crate::config::{Settings, strerror};
use crate::dispatch::command::{Command, Flags, Handler, ROW, Scope};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::durability::{append_only_load, save};
use crate::keyspace::db::Ttl;
use crate::keyspace::entry::NewValue;
use crate::keyspace::shards::SHARDS;
use crate::persistence::rdb::{encode, payload};
use crate::resp::write::Protocol;
use crate::types::Type;
use crate::types::list::List;
use crate::types::list_layout;
use crate::types::object::ObjectRef;
use crate::types::string::StringRef;
use crate::types::zset::ZSet;
use std::sync::atomic::Ordering::Relaxed;

/// The rows.
pub const ROWS: &[Command] = &[Command {
    name: "debug",
    arity: -2,
    flags: Flags::ADMIN
        .or(Flags::NOSCRIPT)
        .or(Flags::LOADING)
        .or(Flags::STALE)
        .or(Flags::PROTECTED),
    // Which keys it looks at depends on words that no key specification describes.
    scope: Scope::All,
    handler: Handler::Server(debug),
    ..ROW
}];

type Sub = fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>;

/// Subcommands: name, least and greatest number of arguments, function.
const SUBS: &[(&str, usize, usize, Sub)] = &[
    ("help", 2, 2, help),
    ("segfault", 2, 2, segfault),
    ("panic", 2, 2, panic),
    ("assert", 2, 2, assert),
    ("oom", 2, 2, oom),
    ("log", 3, 3, log),
    ("leak", 3, 3, leak),
    ("object", 3, 3, object),
    ("reload", 2, usize::MAX, reload),
    ("loadaof", 2, 2, load_aof),
    ("aof-flush-sleep", 3, 3, aof_flush_sleep),
    ("set-skip-checksum-validation", 3, 3, skip_checksums),
    ("quicklist-packed-threshold", 3, 3, packed_threshold),
    ("sdslen", 3, 3, sdslen),
    ("populate", 3, 5, populate),
    ("digest", 2, 2, dataset_digest),
    ("digest-value", 2, usize::MAX, value_digests),
    ("protocol", 3, 3, protocol),
    ("sleep", 3, 3, sleep),
    ("set-active-expire", 3, 3, set_active_expire),
    ("set-disable-deny-scripts", 3, 3, set_disable_deny_scripts),
    ("pause-cron", 3, 3, pause_cron),
    ("error", 3, 3, error),
    ("structsize", 2, 2, structsize),
    ("htstats", 3, 3, htstats),
    ("htstats-key", 3, 3, htstats_key),
    ("config-rewrite-force-all", 2, 2, config_rewrite_force_all),
    ("mallctl", 3, 4, mallctl),
    ("mallctl-str", 3, 4, mallctl_str),
    ("replybuffer", 4, 4, replybuffer),
    ("stringmatch-test", 2, 2, stringmatch_test),
    ("listpack", 3, 3, inside::listpack),
    ("quicklist", 3, 4, inside::quicklist),
    ("client-eviction", 2, 2, inside::client_eviction),
    ("replicate", 3, usize::MAX, inside::replicate),
    ("change-repl-id", 2, 2, inside::change_replication_id),
    (
        "drop-cluster-packet-filter",
        3,
        3,
        cluster_orders::drop_packets,
    ),
    ("clusterlink", 5, 5, cluster_orders::kill_link),
];

fn debug(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let found = SUBS.iter().find(|(name, min, max, _)| {
        ctx.args.is(1, name) && (*min..=*max).contains(&ctx.args.len())
    });
    match found {
        Some((.., run)) => run(ctx),
        None => Err(Error::subcommand(ctx.args.all())),
    }
}

/// `DEBUG RELOAD [MERGE] [NOFLUSH] [NOSAVE]`
fn reload(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (mut flush, mut save, mut merge) = (true, true, false);
    for i in 2..ctx.args.len() {
        match &ctx.args[i].to_ascii_lowercase()[..] {
            b"merge" => merge = true,
            b"noflush" => flush = false,
            b"nosave" => save = false,
            _ => {
                return Err(Error::line(
                    "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    if ctx.held.is_some() {
        return Err(Error::line(
            "ERR DEBUG RELOAD is not possible within a transaction",
        ));
    }
    if save && !save::save(ctx.shared) {
        return Err(Error::line("ERR"));
    }
    if !save::reload(ctx.shared, flush, merge) {
        return Err(Error::line("ERR Error trying to load the RDB dump"));
    }
    tracing::warn!("DB reloaded by DEBUG RELOAD");
    ctx.out.ok();
    Ok(())
}

/// `DEBUG LOADAOF`
fn load_aof(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.held.is_some() {
        return Err(Error::line(
            "ERR DEBUG LOADAOF is not possible within a transaction",
        ));
    }
    if !append_only_load::reload(ctx.shared) {
        std::process::exit(1);
    }
    tracing::warn!("Append Only File loaded by DEBUG LOADAOF");
    ctx.out.ok();
    Ok(())
}

/// `DEBUG AOF-FLUSH-SLEEP <microsec>`
fn aof_flush_sleep(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let wait = number::parse_i64(&ctx.args[2]).unwrap_or(0);
    let progress = &ctx.shared.append_only.log.progress;
    let wait = u64::try_from(wait).unwrap_or(0);
    progress.flush_sleep_us.store(wait, Relaxed);
    ctx.out.ok();
    Ok(())
}

/// `DEBUG SET-SKIP-CHECKSUM-VALIDATION <0|1>`
fn skip_checksums(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    payload::skip_checksums(number::parse_i64(&ctx.args[2]).unwrap_or(0) != 0);
    ctx.out.ok();
    Ok(())
}

/// `DEBUG QUICKLIST-PACKED-THRESHOLD <size>`
fn packed_threshold(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let bytes = crate::config::number::parse_memory(&ctx.args[2]);
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    if !bytes.is_some_and(list_layout::set_plain_from) {
        return Err(Error::line(
            "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
        ));
    }
    ctx.out.ok();
    Ok(())
}

/// Writes to a page that may only be read.
fn segfault(_: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    crate::base::fault::segfault().map_err(Error::err)
}

fn panic(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    panic!(
        "DEBUG PANIC called at Unix time {}",
        ctx.worker.now.ms / 1000
    )
}

fn assert(_: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    panic!("assertion failed: 1 == 2")
}

/// Asks for more memory than any machine has, and does with the refusal what an allocation that
/// cannot be refused does.
fn oom(_: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let bytes = isize::MAX as usize;
    if Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
        tracing::warn!("Out Of Memory allocating {bytes} bytes!");
        panic!("Redis aborting for OUT OF MEMORY. Allocating {bytes} bytes!")
    }
    Ok(())
}

fn log(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    tracing::warn!("DEBUG LOG: {}", String::from_utf8_lossy(&ctx.args[2]));
    ctx.out.ok();
    Ok(())
}

fn leak(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    std::mem::forget(ctx.args[2].to_vec());
    ctx.out.ok();
    Ok(())
}

fn object(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (key, settings) = (ctx.args.all()[2], ctx.settings());
    let line = ctx.with_keys(&[key], |db| {
        let access = db.env().access;
        let entry = db.get_what_is_there(key)?;
        let mut saved = Vec::new();
        encode::coded_value(&entry, &mut saved, settings.rdbcompression);
        let nodes = entry.get_as::<List>().map(|list| nodes(list, &settings));
        Some(format!(
            "Value at:{:p} refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}{}",
            std::ptr::from_ref(entry.key().first().unwrap_or(&0)),
            entry.encoding().name(),
            // The type code is not part of it.
            saved.len() - 1,
            entry.clock(),
            access.idle_ms(entry.clock()) / 1000,
            nodes.unwrap_or_default()
        ))
    })?;
    ctx.out.simple(&line.ok_or(Error::NoSuchKey)?);
    Ok(())
}

/// What DEBUG OBJECT adds for a list.
fn nodes(list: &List, settings: &Settings) -> String {
    let shape = list.shape();
    format!(
        " ql_nodes:{} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} \
         ql_uncompressed_size:{}",
        shape.nodes,
        shape.len as f64 / shape.nodes as f64,
        super::lists::limits(settings).fill,
        i32::from(settings.list_compress_depth != 0),
        shape.bytes
    )
}

fn sdslen(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let key = ctx.args.all()[2];
    let line = ctx.with_keys(&[key], |db| {
        let entry = db.peek(key).ok_or(Error::NoSuchKey)?;
        if entry.kind() != Type::String || matches!(entry.string(), StringRef::Int(_)) {
            return Err(Error::line("ERR Not an sds encoded string."));
        }
        let (key_len, len) = (entry.key().len(), entry.string().len());
        // Key and value share one allocation; each is told as if it had its own.
        Ok(format!(
            "key_sds_len:{key_len}, key_sds_avail:0, key_zmalloc: {}, val_sds_len:{len}, \
             val_sds_avail:0, val_zmalloc: {}",
            alloc::size_class(key_len),
            alloc::size_class(len)
        ))
    })??;
    ctx.out.simple(&line);
    Ok(())
}

/// `DEBUG POPULATE count [prefix] [size]`
fn populate(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let count = ctx.args.int_in(2, 0, i64::MAX)?;
    let prefix = ctx.args.get(3).unwrap_or(b"key").to_vec();
    let size = if ctx.args.len() == 5 {
        ctx.args.int_in(4, 0, i64::MAX)? as usize
    } else {
        0
    };
    if size as i64 > ctx.worker.settings.proto_max_bulk_len {
        return Err(Error::StringTooLong);
    }
    for number in 0..count {
        let mut key = prefix.clone();
        key.push(b':');
        key.extend_from_slice(number.to_string().as_bytes());
        let mut value = format!("value:{number}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        ctx.with_keys(&[&key], |db| {
            if !db.exists(&key) {
                db.put(&key, NewValue::Bytes(&value), Ttl::Clear);
            }
        })?;
    }
    ctx.out.ok();
    Ok(())
}

fn dataset_digest(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let databases = ctx.shared.keyspace.databases();
    let mut digest = digest::Digest::default();
    for index in 0..databases {
        if ctx.shared.keyspace.len(index) == 0 {
            continue;
        }
        digest.add_database(index);
        for shard in 0..SHARDS {
            ctx.with_shard(shard, |db| {
                db.other(index)
                    .each_in_shard(shard, |entry| digest.add_key(entry));
            })?;
        }
    }
    ctx.out.simple(&digest.hex());
    Ok(())
}

fn value_digests(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let mut digests = Vec::new();
    for key in ctx.args.rest(2) {
        let mut digest = digest::Digest::default();
        ctx.with_keys(&[key], |db| {
            if let Some(entry) = db.peek(key) {
                digest.add_value(&entry);
            }
        })?;
        digests.push(digest.hex());
    }
    ctx.out.array(digests.len());
    for digest in digests {
        ctx.out.simple(&digest);
    }
    Ok(())
}

/// `DEBUG PROTOCOL type`: a reply of each kind.
fn protocol(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let resp3 = ctx.out.protocol() == Protocol::Resp3;
    let out = &mut *ctx.out;
    match &ctx.args[2].to_ascii_lowercase()[..] {
        b"string" => out.bulk(b"Hello World"),
        b"integer" => out.int(12345),
        // The number that Redis answers; it only looks like a rounded pi.
        #[allow(clippy::approx_constant)]
        b"double" => out.double(3.141),
        b"bignum" => out.big_number(b"1234567999999999999999999999999999999"),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            (0..3).for_each(|n| out.int(n));
        }
        b"set" => {
            out.set(3);
            (0..3).for_each(|n| out.int(n));
        }
        b"map" => {
            out.map(3);
            (0..3).for_each(|n| {
                out.int(n);
                out.bool(n == 1);
            });
        }
        b"attrib" => {
            if resp3 {
                out.raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            out.bulk(b"Some real reply following the attribute");
        }
        b"push" if !resp3 => {
            return Err(Error::line("ERR RESP2 is not supported by this command"));
        }
        b"push" => {
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.int(42);
            out.bulk(b"Some real reply following the push reply");
        }
        b"true" => out.bool(true),
        b"false" => out.bool(false),
        b"verbatim" => out.verbatim("txt", b"This is a verbatim\nstring".to_vec()),
        _ => {
            return Err(Error::line(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

/// `DEBUG SLEEP seconds`: nothing runs on any worker meanwhile.
fn sleep(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let seconds = strtod::strtod(&ctx.args[2]).0;
    // A century is as good as for ever, and still a duration.
    let seconds = if seconds.is_finite() {
        seconds.clamp(0.0, 3.2e9)
    } else {
        0.0
    };
    let nap = || std::thread::sleep(Duration::from_secs_f64(seconds));
    match ctx.held {
        // The gate comes before shards, all of which EXEC holds: the server's end closes the gate,
        // then waits for them.
        Some(_) => nap(),
        None => ctx.shared.status.stall.during(nap),
    }
    ctx.out.ok();
    Ok(())
}

/// C's `atoi` is what these switches are read with: what is no number is 0.
fn switch(ctx: &ServerCtx<'_, '_>, index: usize) -> bool {
    number::parse_i64(&ctx.args[index]).unwrap_or(0) != 0
}

fn set_active_expire(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.shared
        .status
        .active_expire
        .store(switch(ctx, 2), Relaxed);
    ctx.out.ok();
    Ok(())
}

fn set_disable_deny_scripts(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let denies_nothing = &ctx.shared.scripts.denies_nothing;
    denies_nothing.store(switch(ctx, 2), Relaxed);
    ctx.out.ok();
    Ok(())
}

fn pause_cron(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.shared.status.cron_paused.store(switch(ctx, 2), Relaxed);
    ctx.out.ok();
    Ok(())
}

fn error(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.error_bytes(&ctx.args[2]);
    Ok(())
}

fn structsize(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let text = format!(
        "bits:{} entry-header:8 bucket:64 session:{} ",
        usize::BITS,
        size_of::<crate::client::session::Session>()
    );
    ctx.out.bulk(text.as_bytes());
    Ok(())
}

/// `DEBUG HTSTATS db`
fn htstats(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let db = ctx.args.int(2)?;
    if db < 0 || db as usize >= ctx.shared.keyspace.databases() {
        return Err(Error::line("ERR Out of range database"));
    }
    let db = db as usize;
    let (places, bytes) = ctx.shared.keyspace.footprint(db);
    let keys = ctx.shared.keyspace.len(db);
    let volatile = ctx.shared.keyspace.volatile(db);
    let text = format!(
        "[Dictionary HT]\nHash table 0 stats (main hash table):\n table size: {places}\n number of \
         elements: {keys}\n bytes: {bytes}\n[Expires HT]\nHash table 0 stats (main hash table):\n \
         number of elements: {volatile}\n"
    );
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

fn htstats_key(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let key = ctx.args.all()[2];
    let sizes = ctx.with_keys(&[key], |db| {
        let entry = db.peek(key).ok_or(Error::NoSuchKey)?;
        table_sizes(entry.object()).ok_or(Error::line(
            "ERR The value stored at the specified key is not represented using an hash table",
        ))
    })?;
    let (slots, elements, bytes) = sizes?;
    // An element never stands behind another one in its slot.
    let text = format!(
        "Hash table 0 stats (main hash table):\n table size: {slots}\n number of elements: \
         {elements}\n different slots: {elements}\n max chain length: 1\n bytes: {bytes}\n"
    );
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

/// Slots, elements and bytes of the hash table in a value, if there is one.
fn table_sizes(object: Option<ObjectRef<'_>>) -> Option<(usize, usize, usize)> {
    match object? {
        ObjectRef::Hash(hash) => {
            let table = hash.table()?;
            Some((table.slots(), table.len(), table.memory()))
        }
        ObjectRef::Set(set) => {
            let table = set.table()?;
            Some((table.slots(), table.len(), table.memory()))
        }
        ObjectRef::ZSet(ZSet::Tree(tree)) => {
            let (slots, bytes) = tree.index_size();
            Some((slots, tree.len(), bytes))
        }
        _ => None,
    }
}

fn config_rewrite_force_all(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    write_file(ctx.shared, true)?;
    ctx.out.ok();
    Ok(())
}

/// `DEBUG MALLCTL name [value]`: a number of the allocator's.
fn mallctl(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let new = if ctx.args.len() == 4 {
        Some(ctx.args.int(3)?)
    } else {
        None
    };
    let name = std::ffi::CString::new(&ctx.args[2]).map_err(|_| Error::Syntax)?;
    match alloc::control_number(&name, new) {
        Ok(value) => ctx.out.int(value),
        Err(code) => return Err(allocator_error(code)),
    }
    Ok(())
}

fn allocator_error(code: i32) -> Error {
    Error::err(strerror(&std::io::Error::from_raw_os_error(code)))
}

/// `DEBUG MALLCTL-STR name`: a text of the allocator's.
fn mallctl_str(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let name = std::ffi::CString::new(&ctx.args[2]).map_err(|_| Error::Syntax)?;
    match alloc::control_text(&name) {
        Ok(text) => ctx.out.bulk(text.as_bytes()),
        Err(code) => return Err(allocator_error(code)),
    }
    Ok(())
}

/// `DEBUG REPLYBUFFER PEAK-RESET-TIME NEVER|RESET|ms` and `DEBUG REPLYBUFFER RESIZING 0|1`
fn replybuffer(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let status = &ctx.shared.status;
    if ctx.args.is(2, "peak-reset-time") {
        let ms = if ctx.args.is(3, "never") {
            -1
        } else if ctx.args.is(3, "reset") {
            crate::dispatch::context::REPLY_PEAK_RESET_MS
        } else {
            ctx.args.int(3)?
        };
        status.reply_peak_reset_ms.store(ms, Relaxed);
    } else if ctx.args.is(2, "resizing") {
        status.reply_resizing.store(switch(ctx, 3), Relaxed);
    } else {
        return Err(Error::subcommand(ctx.args.all()));
    }
    ctx.out.ok();
    Ok(())
}

/// Matches random patterns against random texts: the matcher must end, and not fall over.
fn stringmatch_test(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    for _ in 0..1_000 {
        let mut bytes = [0; 64];
        crate::base::random::fill(&mut bytes);
        let (pattern, text) = bytes.split_at(32);
        std::hint::black_box(crate::base::glob::matches(pattern, text, false));
    }
    ctx.out
        .simple("Apparently Redis did not crash: test passed");
    Ok(())
}

/// `DEBUG HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "AOF-FLUSH-SLEEP <microsec>",
            "    Server will sleep before flushing the AOF, this is used for testing.",
            "ASSERT",
            "    Crash by assertion failed.",
            "CHANGE-REPL-ID",
            "    Give the stream of replication another ID. For tests of replication only.",
            "CLIENT-EVICTION",
            "    Show the memory of clients by size (maxmemory-clients).",
            "CLUSTERLINK KILL <to|from|all> <node-id>",
            "    Close connections of the cluster bus with a node.",
            "CONFIG-REWRITE-FORCE-ALL",
            "    Like CONFIG REWRITE but writes all configuration options, including",
            "    keywords not listed in original configuration file or default values.",
            "DIGEST",
            "    Output a hex signature representing the current DB content.",
            "DIGEST-VALUE <key> [<key> ...]",
            "    Output a hex signature of the values of all the specified keys.",
            "DROP-CLUSTER-PACKET-FILTER <packet-type>",
            "    Drop all packets that match the filtered type. Set to -1 allow all packets.",
            "ERROR <string>",
            "    Return a Redis protocol error with <string> as message. Useful for clients",
            "    unit tests to simulate Redis errors.",
            "LEAK <string>",
            "    Create a memory leak of the input string.",
            "LISTPACK <key>",
            "    Print the listpack that is the value of <key>.",
            "LOADAOF",
            "    Write out what the AOF waits for, and load it again.",
            "LOG <message>",
            "    Write <message> to the server log.",
            "HTSTATS <dbid>",
            "    Return hash table statistics of the specified Redis database.",
            "HTSTATS-KEY <key>",
            "    Like HTSTATS but for the hash table stored at <key>'s value.",
            "MALLCTL <key> [<val>]",
            "    Get or set a malloc tuning integer.",
            "MALLCTL-STR <key> [<val>]",
            "    Get or set a malloc tuning string.",
            "OBJECT <key>",
            "    Show low level info about `key` and associated value.",
            "OOM",
            "    Crash the server simulating an out-of-memory error.",
            "PANIC",
            "    Crash the server simulating a panic.",
            "PAUSE-CRON <0|1>",
            "    Stop periodic cron job processing.",
            "POPULATE <count> [<prefix>] [<size>]",
            "    Create <count> string keys named key:<num>. If <prefix> is specified then",
            "    it is used instead of the 'key' prefix. These are not propagated to",
            "    replicas. Cluster slots are not respected so keys not belonging to the",
            "    current node can be created in cluster mode.",
            "PROTOCOL <type>",
            "    Reply with a test value of the specified type. <type> can be: string,",
            "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
            "    true, false.",
            "QUICKLIST <key> [<0|1>]",
            "    Print the shape of the list that is the value of <key>.",
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Sets the threshold for elements to be inserted as plain vs packed nodes",
            "    Default value is 1GB, allows values up to 4GB. Setting to 0 restores to default.",
            "RELOAD [option ...]",
            "    Save the RDB, empty the server, and load the RDB. Options:",
            "    * MERGE: keys of the RDB take the place of those that are there.",
            "    * NOFLUSH: the server is not emptied before; a key that is there is an error.",
            "    * NOSAVE: the RDB that is there is loaded.",
            "REPLICATE <string> [<string> ...]",
            "    Send replicas a command that is not run here.",
            "REPLYBUFFER PEAK-RESET-TIME <NEVER||RESET|time>",
            "    Sets the time (in milliseconds) to wait between client reply buffer peak resets.",
            "    In case NEVER is provided the last observed peak will never be reset",
            "    In case RESET is provided the peak reset time will be restored to the default value",
            "REPLYBUFFER RESIZING <0|1>",
            "    Enable or disable the reply buffer resize cron job",
            "SDSLEN <key>",
            "    Show low level SDS string info representing `key` and value.",
            "SEGFAULT",
            "    Crash the server with sigsegv.",
            "SET-ACTIVE-EXPIRE <0|1>",
            "    Setting it to 0 disables expiring keys in background when they are not",
            "    accessed (otherwise the Redis behavior). Setting it to 1 reenables back the",
            "    default.",
            "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
            "    Switch the checksums of RDB files and of RESTORE's payloads off or on.",
            "SLEEP <seconds>",
            "    Stop the server for <seconds>. Decimals allowed.",
            "STRINGMATCH-TEST",
            "    Run a fuzz tester against the stringmatchlen() function.",
            "STRUCTSIZE",
            "    Return the size of different Redis core C structures.",
        ],
    );
    Ok(())
}
