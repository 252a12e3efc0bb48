//! Commands on whole databases: SCAN, KEYS, DBSIZE, RANDOMKEY, FLUSHDB, FLUSHALL, SWAPDB, SELECT.

use crate::base::ticks::Ticks;
use crate::base::{glob, number};
use crate::client::session::{Replies, Session};
use crate::dispatch::command::{Acl, Command, Databases, Flags, Handler, ROW, Scope};
use crate::dispatch::context::{ServerCtx, Shared, Worker};
use crate::dispatch::error::Error;
use crate::dispatch::job::{Job, SLICE_NANOS, look_at_shard};
use crate::dispatch::slots;
use crate::durability::save;
use crate::keyspace::scan::{self, Found};
use crate::keyspace::shards::Keyspace;
use crate::keyspace::table::{Position, position_of_shard, shard_of_position};
use crate::resp::write::Output;

use super::scan_options::{ScanOptions, parse_cursor};

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "scan",
        arity: -2,
        flags: Flags::READONLY,
        acl: Acl::KEYSPACE,
        scope: Scope::All,
        handler: Handler::Server(scan),
        tips: &["nondeterministic_output", "request_policy:special"],
        ..ROW
    },
    Command {
        name: "keys",
        arity: 2,
        flags: Flags::READONLY,
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        scope: Scope::All,
        handler: Handler::Server(keys),
        tips: &["request_policy:all_shards", "nondeterministic_output_order"],
        ..ROW
    },
    Command {
        name: "dbsize",
        arity: 1,
        flags: Flags::READONLY.or(Flags::FAST),
        acl: Acl::KEYSPACE,
        scope: Scope::All,
        handler: Handler::Server(dbsize),
        tips: &["request_policy:all_shards", "response_policy:agg_sum"],
        ..ROW
    },
    Command {
        name: "randomkey",
        arity: 1,
        flags: Flags::READONLY,
        acl: Acl::KEYSPACE,
        scope: Scope::All,
        handler: Handler::Server(randomkey),
        tips: &["request_policy:all_shards", "nondeterministic_output"],
        ..ROW
    },
    Command {
        name: "flushdb",
        arity: -1,
        flags: Flags::WRITE,
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        scope: Scope::All,
        handler: Handler::Server(flushdb),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "flushall",
        arity: -1,
        databases: Databases::All,
        flags: Flags::WRITE,
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        scope: Scope::All,
        handler: Handler::Server(flushall),
        tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
        ..ROW
    },
    Command {
        name: "swapdb",
        arity: 3,
        databases: Databases::Two,
        flags: Flags::WRITE.or(Flags::FAST),
        acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
        scope: Scope::All,
        handler: Handler::Server(swapdb),
        ..ROW
    },
    Command {
        name: "select",
        arity: 2,
        databases: Databases::Selects,
        flags: Flags::LOADING.or(Flags::STALE).or(Flags::FAST),
        acl: Acl::CONNECTION,
        handler: Handler::Server(select),
        ..ROW
    },
];

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn scan(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let cursor = parse_cursor(&ctx.args[1])?;
    let options = ScanOptions::parse(ctx.args, 2, true)?;
    let mut found = Found::default();
    let next = scan_from(ctx, cursor, &options, &mut found)?;
    ctx.out.array(2);
    let mut digits = itoa::Buffer::new();
    ctx.out.bulk(digits.format(next).as_bytes());
    let reply = ctx.out.deferred();
    let mut len = 0;
    for (key, kind, expired) in found.iter() {
        let fits = options
            .kind
            .is_none_or(|k| k.eq_ignore_ascii_case(kind.name().as_bytes()));
        if !expired && fits && options.wants(key) {
            ctx.out.bulk(key);
            len += 1;
        }
    }
    ctx.out.end_array(reply, len);
    Ok(())
}

/// Collects keys from `cursor` on and returns the next cursor: 0 at the end. At most ten buckets
/// are walked for each key that was asked for.
fn scan_from(
    ctx: &mut ServerCtx<'_, '_>,
    cursor: u64,
    options: &ScanOptions<'_>,
    found: &mut Found,
) -> Result<Position, Error> {
    let (keyspace, db) = (&ctx.shared.keyspace, ctx.session.db);
    let mut budget = options.count.saturating_mul(10).saturating_add(1);
    let mut next = scan::seek(keyspace, db, cursor);
    while let Some(at) = next
        && budget > 0
        && found.len() < options.count
    {
        let shard = shard_of_position(at);
        let first = found.len();
        let (position, steps) = ctx.with_shard(shard, |db| {
            let most = budget.min(scan::SLICE);
            let result = scan::slice(db, at, most, options.count, found);
            // Expired keys that would have been answered are removed instead.
            // A look at the type counts as a lookup.
            let asked = found.iter().skip(first);
            for (key, _, expired) in asked.filter(|(key, _, _)| options.wants(key)) {
                match (expired, options.kind) {
                    (true, None) => _ = db.expire_if_due(key),
                    (true, Some(_)) => _ = db.view(key),
                    (false, Some(_)) => db.count_hit(),
                    (false, None) => {}
                }
            }
            result
        })?;
        budget -= steps;
        let on = position.unwrap_or(position_of_shard(shard + 1));
        next = scan::seek(keyspace, db, on);
    }
    Ok(next.unwrap_or(0))
}

/// Keys up to which KEYS answers at once: no walk over them takes longer than a slice.
const FEW_KEYS: usize = 1000;

/// A walk that looks for the keys of a pattern.
struct KeysWalk {
    db: usize,
    pattern: Vec<u8>,
    next: Option<Position>,
    found: Found,
    matches: Output,
    len: usize,
}

impl KeysWalk {
    /// Walks a slice. `slice` copies keys from a position on, and tells where to go on in the
    /// shard; nothing if that is not to be had now.
    fn advance(
        &mut self,
        keyspace: &Keyspace,
        slice: impl FnOnce(usize, Position, &mut Found) -> Option<Option<Position>>,
    ) {
        let Some(at) = self.next else { return };
        let shard = shard_of_position(at);
        self.found.clear();
        let Some(position) = slice(shard, at, &mut self.found) else {
            return;
        };
        let all = self.pattern == b"*";
        for (key, _, expired) in self.found.iter() {
            if !expired && (all || glob::matches(&self.pattern, key, false)) {
                self.matches.bulk(key);
                self.len += 1;
            }
        }
        let on = position.unwrap_or(position_of_shard(shard + 1));
        self.next = scan::seek(keyspace, self.db, on);
    }
}

impl Job for KeysWalk {
    fn step(&mut self, shared: &Shared, worker: &mut Worker, _: &Session) -> bool {
        let (keyspace, db, start) = (&shared.keyspace, self.db, Ticks::now());
        while self.next.is_some() && Ticks::now().nanos_since(start) < SLICE_NANOS {
            self.advance(keyspace, |shard, at, found| {
                look_at_shard(shared, worker, db, shard, |view| {
                    scan::slice(view, at, scan::SLICE, usize::MAX, found).0
                })
            });
        }
        self.next.is_none()
    }

    fn reply(&mut self, out: &mut Output) {
        out.array(self.len);
        out.append_bytes(std::mem::take(&mut self.matches).to_vec().into());
    }
}

/// `KEYS pattern`
fn keys(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (keyspace, db) = (&ctx.shared.keyspace, ctx.session.db);
    let mut walk = KeysWalk {
        db,
        pattern: ctx.args[1].to_vec(),
        next: scan::seek(keyspace, db, 0),
        found: Found::default(),
        matches: Output::new(),
        len: 0,
    };
    let alone = ctx.held.is_none() && ctx.session.replies == Replies::On;
    if alone && keyspace.len(db) > FEW_KEYS {
        ctx.worker.job = Some(Box::new(walk));
        return Ok(());
    }
    let mut result = Ok(());
    while walk.next.is_some() && result.is_ok() {
        walk.advance(keyspace, |shard, at, found| {
            let slice = ctx.await_shard(shard, |db| {
                scan::slice(db, at, scan::SLICE, usize::MAX, found).0
            });
            slice.map_err(|error| result = Err(error)).ok()
        });
    }
    result?;
    walk.reply(ctx.out);
    Ok(())
}

/// `DBSIZE`
fn dbsize(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let shared = ctx.shared;
    let len = shared.keyspace.len(ctx.session.db);
    let arriving = shared.keyspace.arriving.slots();
    let counts = arriving.map(|slot| slots::count(ctx, slot));
    let hidden: usize = counts.sum::<Result<usize, Error>>()?;
    ctx.out.int(len.saturating_sub(hidden) as i64);
    Ok(())
}

/// Keys that were expired, on a server that must not remove them, before one is answered anyway.
const EXPIRED_TRIES: usize = 100;

/// `RANDOMKEY`
fn randomkey(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (keyspace, index) = (&ctx.shared.keyspace, ctx.session.db);
    let mut tries = 0;
    while let Some(shard) = scan::random_shard(keyspace, index) {
        tries += 1;
        let key = ctx.with_shard(shard, |db| {
            let key = scan::random_key(db, shard)?;
            let stuck = tries >= EXPIRED_TRIES && !db.env().expires_keys;
            let shown = !db.keyspace().arriving.hides_key(&key);
            (shown && (db.exists(&key) || stuck)).then_some(key)
        })?;
        if key.is_none() && tries >= EXPIRED_TRIES && keyspace.arriving.is_any() {
            break;
        }
        if let Some(key) = key {
            ctx.out.bulk(&key);
            return Ok(());
        }
    }
    ctx.out.null();
    Ok(())
}

/// Whether the options of FLUSHDB or FLUSHALL ask for freeing in the background.
fn is_lazy_flush(ctx: &ServerCtx<'_, '_>) -> Result<bool, Error> {
    match ctx.args.len() {
        1 => Ok(ctx.worker.settings.lazyfree_lazy_user_flush),
        2 if ctx.args.is(1, "sync") => Ok(false),
        2 if ctx.args.is(1, "async") => Ok(true),
        _ => Err(Error::Syntax),
    }
}

/// `FLUSHDB [ASYNC | SYNC]`
fn flushdb(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let index = ctx.session.db;
    flush(ctx, index..index + 1, |_, _| {})
}

/// `FLUSHALL [ASYNC | SYNC]`
fn flushall(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let databases = ctx.shared.keyspace.databases();
    is_lazy_flush(ctx)?;
    // First, as a snapshot would be complete once every key is shown to it that goes.
    ctx.shared.durability.saves.cancel();
    flush(ctx, 0..databases, |shared, dirty| {
        let changes = shared.changes() + dirty;
        shared.durability.saves.flushed(changes);
    })?;
    save::reset_file(ctx);
    Ok(())
}

/// Empties databases, and calls `done` with how many keys went while all shards are still locked.
fn flush(
    ctx: &mut ServerCtx<'_, '_>,
    databases: std::ops::Range<usize>,
    done: impl FnOnce(&Shared, u64),
) -> Result<(), Error> {
    let lazy = is_lazy_flush(ctx)?;
    let shared = ctx.shared;
    ctx.with_all(|db| {
        for index in databases {
            if db.keyspace().is_used(index) {
                db.flush(index, lazy);
            }
        }
        // Replicas flush even when there is nothing here.
        db.propagate_anyway();
        if let Some(cluster) = &shared.cluster {
            cluster.moves.flushed();
        }
        done(shared, db.changes());
    })?;
    ctx.out.ok();
    Ok(())
}

/// An integer of 32 bits as Redis reads database numbers.
fn int32(ctx: &ServerCtx<'_, '_>, i: usize, error: Error) -> Result<i64, Error> {
    let parsed = number::parse_i64(&ctx.args[i]);
    let n = parsed.ok_or(error.clone())?;
    if i32::try_from(n).is_ok() {
        return Ok(n);
    }
    Err(match error {
        Error::NotInteger => Error::err(format_args!(
            "value is out of range, value must between {} and {}",
            i32::MIN,
            i32::MAX
        )),
        told => told,
    })
}

fn database(ctx: &ServerCtx<'_, '_>, n: i64) -> Result<usize, Error> {
    let databases = ctx.shared.keyspace.databases();
    usize::try_from(n)
        .ok()
        .filter(|&n| n < databases)
        .ok_or(Error::DbOutOfRange)
}

/// `SWAPDB index1 index2`
fn swapdb(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.worker.settings.cluster_enabled {
        return Err(Error::line("ERR SWAPDB is not allowed in cluster mode"));
    }
    let a = int32(ctx, 1, Error::line("ERR invalid first DB index"))?;
    let b = int32(ctx, 2, Error::line("ERR invalid second DB index"))?;
    let (a, b) = (database(ctx, a)?, database(ctx, b)?);
    ctx.with_all(|db| db.swap(a, b))?;
    ctx.out.ok();
    Ok(())
}

/// `SELECT index`
fn select(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let n = int32(ctx, 1, Error::NotInteger)?;
    if ctx.worker.settings.cluster_enabled && n != 0 {
        return Err(Error::line("ERR SELECT is not allowed in cluster mode"));
    }
    ctx.session.db = database(ctx, n)?;
    ctx.out.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_strtoul_does() {
        let parse = |text: &str| parse_cursor(text.as_bytes()).ok();
        assert_eq!(parse("0"), Some(0));
        assert_eq!(parse("18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse("18446744073709551616"), None);
        assert_eq!(parse("-1"), Some(u64::MAX));
        assert_eq!(parse("+7"), Some(7));
        assert_eq!(parse(""), Some(0));
        for wrong in ["-", " 1", "1 ", "a", "1a", "0x1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
