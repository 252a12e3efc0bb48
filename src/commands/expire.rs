//! Expiry of keys: EXPIRE and its relatives, TTL and its relatives, PERSIST.

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event;

use super::rows::READ_KEY;

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    keys: &'static [KeySpec],
    run: fn(&mut DataCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags: flags.or(Flags::FAST),
        keys: Keys(keys),
        acl: Acl::KEYSPACE,
        handler: Handler::Data(run),
        ..ROW
    }
}

const UPDATES: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];
const CHANGING: &[&str] = &["nondeterministic_output"];

/// The rows.
pub const ROWS: &[Command] = &[
    row("expire", -3, Flags::WRITE, UPDATES, expire),
    row("pexpire", -3, Flags::WRITE, UPDATES, pexpire),
    row("expireat", -3, Flags::WRITE, UPDATES, expireat),
    row("pexpireat", -3, Flags::WRITE, UPDATES, pexpireat),
    row("persist", 2, Flags::WRITE, UPDATES, persist),
    Command {
        tips: CHANGING,
        ..row("ttl", 2, Flags::READONLY, READ_KEY, ttl)
    },
    Command {
        tips: CHANGING,
        ..row("pttl", 2, Flags::READONLY, READ_KEY, pttl)
    },
    row("expiretime", 2, Flags::READONLY, READ_KEY, expiretime),
    row("pexpiretime", 2, Flags::READONLY, READ_KEY, pexpiretime),
];

/// When EXPIRE and its relatives do nothing.
#[derive(Clone, Copy, Default)]
struct Conditions {
    /// Only without an expiry.
    nx: bool,
    /// Only with one.
    xx: bool,
    /// Only to a later time; no expiry is later than any.
    gt: bool,
    /// Only to an earlier time.
    lt: bool,
}

impl Conditions {
    /// The options from argument `from` on.
    fn parse(args: Args<'_>, from: usize) -> Result<Self, Error> {
        let mut conditions = Self::default();
        let mut options = Cursor::new(args, from);
        while options.step() {
            match () {
                () if options.is("nx") => conditions.nx = true,
                () if options.is("xx") => conditions.xx = true,
                () if options.is("gt") => conditions.gt = true,
                () if options.is("lt") => conditions.lt = true,
                () => return Err(Error::quoting("Unsupported option ", options.word(), "")),
            }
        }
        let Self { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Error::line(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if gt && lt {
            return Err(Error::line(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// Whether a key that expires at `current` may be set to expire at `when`.
    fn allow(self, current: Option<i64>, when: i64) -> bool {
        match current {
            Some(current) => {
                let refused = self.nx || self.gt && when <= current || self.lt && when >= current;
                !refused
            }
            None => !self.xx && !self.gt,
        }
    }
}

/// Sets the expiry of the key at argument 1, and tells of it: as PEXPIREAT, `rest` included.
pub(super) fn set_expiry(ctx: &mut DataCtx<'_, '_>, when: i64, rest: &[&[u8]]) {
    let key = ctx.args.all()[1];
    if let Some(mut entry) = ctx.db.write(key) {
        entry.change(|entry| entry.set_expiry(Some(when)));
    }
    ctx.db.changed(key, event::ON_EXPIRE);
    if ctx.args.is(0, "pexpireat") || !ctx.db.is_heard() {
        return;
    }
    let mut digits = itoa::Buffer::new();
    let mut form = vec![b"PEXPIREAT", key, digits.format(when).as_bytes()];
    form.extend_from_slice(rest);
    ctx.db.rewrite(&form);
}

/// Removes the key at argument 1, propagated as what Redis would remove it with.
pub(super) fn remove(ctx: &mut DataCtx<'_, '_>, lazily: bool) {
    let key = &ctx.args[1];
    if ctx.db.remove_freeing(key, lazily) {
        ctx.db.changed(key, event::ON_DEL);
        let word: &[u8] = if lazily { b"UNLINK" } else { b"DEL" };
        ctx.db.rewrite(&[word, key]);
    }
}

/// Removes the expiry of the key at argument 1, and tells of it; false when it had none.
pub(super) fn clear_expiry(ctx: &mut DataCtx<'_, '_>) -> bool {
    let key = &ctx.args[1];
    let Some(mut entry) = ctx.db.write(key) else {
        return false;
    };
    if entry.get().expiry().is_none() {
        return false;
    }
    entry.change(|entry| entry.set_expiry(None));
    ctx.db.changed(key, event::ON_PERSIST);
    true
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`
fn expire(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let now_ms = ctx.db.now_ms();
    expire_at(ctx, 1000, now_ms, "expire")
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
fn pexpire(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let now_ms = ctx.db.now_ms();
    expire_at(ctx, 1, now_ms, "pexpire")
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`
fn expireat(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    expire_at(ctx, 1000, 0, "expireat")
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`
fn pexpireat(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    expire_at(ctx, 1, 0, "pexpireat")
}

/// Expires the key at argument 1, argument 2 times `unit` milliseconds after `base_ms`.
fn expire_at(
    ctx: &mut DataCtx<'_, '_>,
    unit: i64,
    base_ms: i64,
    command: &'static str,
) -> Result<(), Error> {
    let key = &ctx.args[1];
    let rest = ctx.args.rest(3);
    let conditions = Conditions::parse(ctx.args, 3)?;
    let scaled = ctx.args.int(2)?.checked_mul(unit);
    let when = scaled
        .and_then(|ms| ms.checked_add(base_ms))
        .ok_or(Error::InvalidExpire(command))?;
    let allowed = ctx
        .db
        .write(key)
        .is_some_and(|entry| conditions.allow(entry.get().expiry(), when));
    if allowed && ctx.db.env().is_past(when) && ctx.db.env().expires_keys {
        remove(ctx, ctx.settings.lazyfree_lazy_expire);
    } else if allowed {
        set_expiry(ctx, when, rest);
    }
    ctx.out.int(i64::from(allowed));
    Ok(())
}

/// `PERSIST key`
fn persist(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let cleared = clear_expiry(ctx);
    ctx.out.int(i64::from(cleared));
    Ok(())
}

/// Milliseconds as the nearest number of seconds; none below zero.
fn seconds(ms: i64) -> i64 {
    ((ms.max(0) as u64 + 500) / 1000) as i64
}

/// `TTL key`
fn ttl(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let now_ms = ctx.db.now_ms();
    reply_expiry(ctx, |at| seconds(at.saturating_sub(now_ms)))
}

/// `PTTL key`
fn pttl(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let now_ms = ctx.db.now_ms();
    reply_expiry(ctx, |at| at.saturating_sub(now_ms).max(0))
}

/// `EXPIRETIME key`
fn expiretime(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    reply_expiry(ctx, seconds)
}

/// `PEXPIRETIME key`
fn pexpiretime(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    reply_expiry(ctx, |at| at.max(0))
}

/// Replies a key's expiry as `shown`, -1 without one, -2 without the key.
fn reply_expiry(ctx: &mut DataCtx<'_, '_>, shown: impl Fn(i64) -> i64) -> Result<(), Error> {
    let reply = match ctx.db.view(&ctx.args[1]) {
        None => -2,
        Some(entry) => entry.expiry().map_or(-1, shown),
    };
    ctx.out.int(reply);
    Ok(())
}
