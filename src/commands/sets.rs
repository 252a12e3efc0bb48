//! Set commands on one set. What combines several is in [`super::set_algebra`].

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::base::random;
use crate::config::Settings;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::keyspace::db::Db;
use crate::keyspace::event;
use crate::persistence::layouts;
use crate::types::collection::Collection;
use crate::types::listpack::Element;
use crate::types::set::{Limits, Set};

use super::lists::reply;
use super::rows::{GROW, READ, READ_FAST, READ_KEY, WRITE_FAST};
use super::scan_options::{self, ScanOptions};

const INSERT: KeyFlags = KeyFlags::RW.or(KeyFlags::INSERT);
const POP: KeyFlags = KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::DELETE);

const ASK_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RO)];
const SADD_KEY: &[KeySpec] = &[KeySpec::at(1, INSERT)];
const SREM_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::DELETE))];
const SPOP_KEY: &[KeySpec] = &[KeySpec::at(1, POP)];
const SMOVE_KEYS: &[KeySpec] = &[KeySpec::at(1, POP), KeySpec::at(2, INSERT)];

data_rows!(Acl::SET);

const ORDER: &[&str] = &["nondeterministic_output_order"];
const OUTPUT: &[&str] = &["nondeterministic_output"];

/// Members of one request from which it pays to read ahead.
const WARM: usize = 4;

/// The rows.
pub const ROWS: &[Command] = &[
    row("sadd", -3, GROW.or(Flags::FAST), SADD_KEY, sadd).of_element(2),
    row("srem", -3, WRITE_FAST, SREM_KEY, srem).of_element(2),
    row("sismember", 3, READ_FAST, ASK_KEY, sismember).of_element(2),
    row("smismember", -3, READ_FAST, READ_KEY, smismember).of_element(2),
    row("scard", 2, READ_FAST, ASK_KEY, scard),
    row("smembers", 2, READ, READ_KEY, smembers).tipped(ORDER),
    row("smove", 4, WRITE_FAST, SMOVE_KEYS, smove),
    row("spop", -2, WRITE_FAST, SPOP_KEY, spop).tipped(OUTPUT),
    row("srandmember", -2, READ, READ_KEY, srandmember).tipped(OUTPUT),
    row("sscan", -3, READ, READ_KEY, sscan).tipped(OUTPUT),
];

/// Which representation sets get.
#[inline]
pub(super) fn limits(settings: &Settings) -> Limits {
    layouts::set(settings)
}

/// `SADD key member [member ...]`
fn sadd(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (args, limits) = (ctx.args, limits(ctx.settings));
    let key = &args[1];
    let set = ctx.db.write_or_create(key, || Set::for_member(&args[2]))?;
    if args.len() > WARM {
        set.warm(args.rest(2));
    }
    let members = args.rest(2).iter();
    let added = members.filter(|member| set.add(member, limits)).count();
    if added > 0 {
        ctx.db.changed_by(key, event::ON_SADD, added as u64);
    }
    ctx.out.int(added as i64);
    Ok(())
}

/// `SREM key member [member ...]`
fn srem(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let key = &ctx.args[1];
    let Some(set) = ctx.db.write_as::<Set>(key)? else {
        ctx.out.int(0);
        return Ok(());
    };
    let mut removed = 0;
    for member in ctx.args.rest(2) {
        removed += u64::from(set.remove(member));
        if set.is_empty() {
            break;
        }
    }
    let emptied = set.is_empty();
    if removed > 0 {
        ctx.db.changed_by(key, event::ON_SREM, removed);
        remove_if(&mut ctx.db, key, emptied);
    }
    ctx.out.uint(removed);
    Ok(())
}

/// Removes a key whose set lost its last member.
fn remove_if(db: &mut Db<'_, '_>, key: &[u8], emptied: bool) {
    if emptied {
        db.remove(key);
        db.also(key, event::ON_DEL);
    }
}

/// `SISMEMBER key member`
fn sismember(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    let found = set.is_some_and(|set| set.contains(&ctx.args[2]));
    ctx.out.int(found.into());
    Ok(())
}

/// `SMISMEMBER key member [member ...]`
fn smismember(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    let members = ctx.args.rest(2);
    if let Some(set) = set.filter(|_| members.len() > WARM) {
        set.warm(members);
    }
    ctx.out.array(members.len());
    for member in members {
        let found = set.is_some_and(|set| set.contains(member));
        ctx.out.int(found.into());
    }
    Ok(())
}

/// `SCARD key`
fn scard(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    ctx.out.int(set.map_or(0, Set::len) as i64);
    Ok(())
}

/// `SMEMBERS key`
fn smembers(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    ctx.out.set(set.map_or(0, Set::len));
    if let Some(set) = set {
        let _ = set.try_for_each(|member| {
            reply(ctx.out, member);
            ControlFlow::Continue(())
        });
    }
    Ok(())
}

/// `SMOVE source destination member`
fn smove(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (from, to, member) = (&ctx.args[1], &ctx.args[2], &ctx.args[3]);
    let is_there = ctx.db.write_as::<Set>(from).map(|source| source.is_some());
    // If the target has expired it goes, whatever is with the source.
    ctx.db.write(to);
    if !is_there? {
        ctx.out.int(0);
        return Ok(());
    }
    ctx.db.write_as::<Set>(to)?;
    let source = ctx.db.write_as::<Set>(from)?;
    let source = source.expect("it was there a moment ago");
    if from == to {
        ctx.out.int(source.contains(member).into());
        return Ok(());
    }
    if !source.remove(member) {
        ctx.out.int(0);
        return Ok(());
    }
    let emptied = source.is_empty();
    ctx.db.changed(from, event::ON_SREM);
    remove_if(&mut ctx.db, from, emptied);
    let limits = limits(ctx.settings);
    let target = ctx.db.write_or_create(to, || Set::for_member(member))?;
    if target.add(member, limits) {
        ctx.db.changed(to, event::ON_SADD);
    }
    ctx.out.int(1);
    Ok(())
}

/// `SPOP key [count]`
fn spop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    match ctx.args.len() {
        2 => {}
        3 => return spop_count(ctx),
        _ => return Err(Error::Syntax),
    }
    let key = &ctx.args[1];
    let set = ctx.db.write_as::<Set>(key)?;
    let Some((member, emptied)) = set.and_then(|set| Some((set.pop()?, set.is_empty()))) else {
        ctx.out.null();
        return Ok(());
    };
    ctx.db.changed(key, event::ON_SPOP);
    ctx.db.rewrite(&[b"SREM", key, &member]);
    remove_if(&mut ctx.db, key, emptied);
    ctx.out.bulk(&member);
    Ok(())
}

/// `SPOP key count`
fn spop_count(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    const POSITIVE: &str = "ERR value is out of range, must be positive";
    let count = ctx.args.int_or(2, POSITIVE)?;
    let count = usize::try_from(count).map_err(|_| Error::line(POSITIVE))?;
    let key = &ctx.args[1];
    let set = ctx.db.write_as::<Set>(key)?;
    let Some(set) = set.filter(|_| count > 0) else {
        ctx.out.set(0);
        return Ok(());
    };
    let taken = count.min(set.len());
    ctx.out.set(taken);
    let emptied = taken == set.len();
    if emptied {
        set.iter().for_each(|member| reply(ctx.out, member));
        ctx.db.changed_by(key, event::ON_SPOP, taken as u64);
        ctx.db.rewrite(&[b"DEL", key]);
        remove_if(&mut ctx.db, key, true);
        return Ok(());
    }
    let members: Vec<Vec<u8>> = (0..taken).map_while(|_| set.pop()).collect();
    ctx.db.changed_by(key, event::ON_SPOP, taken as u64);
    for member in members {
        ctx.out.bulk(&member);
        ctx.db.rewrite(&[b"SREM", key, &member]);
    }
    Ok(())
}

/// `SRANDMEMBER key [count]`
fn srandmember(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    match ctx.args.len() {
        2 => {}
        3 => return srandmember_count(ctx),
        _ => return Err(Error::Syntax),
    }
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    match set.and_then(Set::random) {
        Some(member) => reply(ctx.out, member),
        None => ctx.out.null(),
    }
    Ok(())
}

/// `SRANDMEMBER key count`
fn srandmember_count(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let count = ctx.args.int_in(2, -i64::MAX, i64::MAX)?;
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    let Some(set) = set.filter(|_| count != 0) else {
        ctx.out.array(0);
        return Ok(());
    };
    let wanted = count.unsigned_abs() as usize;
    if count < 0 {
        // One after the other, each any of them.
        ctx.out.array(wanted);
        for member in (0..wanted).map_while(|_| set.random()) {
            reply(ctx.out, member);
            if ctx.out.has_overflowed() {
                break;
            }
        }
        return Ok(());
    }
    let wanted = wanted.min(set.len());
    ctx.out.array(wanted);
    sample(set, wanted, |member| reply(ctx.out, member));
    Ok(())
}

/// Shows `wanted` different members, each choice of them with the same probability.
fn sample<'a>(set: &'a Set, mut wanted: usize, mut show: impl FnMut(Element<'a>)) {
    if wanted * 3 > set.len() {
        // Each member in turn is chosen with the chance that leaves the others theirs.
        for (passed, member) in set.iter().enumerate() {
            if random::below(set.len() - passed) < wanted {
                show(member);
                wanted -= 1;
            }
        }
        return;
    }
    let mut chosen = HashSet::with_capacity(wanted);
    while chosen.len() < wanted {
        let Some(member) = set.random() else { return };
        if chosen.insert(member) {
            show(member);
        }
    }
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`
fn sscan(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let cursor = scan_options::parse_cursor(&ctx.args[2])?;
    let set = ctx.db.read_as::<Set>(&ctx.args[1])?;
    let mut found = Vec::new();
    let mut next = 0;
    if let Some(set) = set {
        let options = ScanOptions::parse(ctx.args, 3, false)?;
        next = set.scan(cursor, options.count, |member| {
            if options.wants(member.text(&mut itoa::Buffer::new())) {
                found.push(member);
            }
        });
    }
    ctx.out.array(2);
    ctx.out.bulk(itoa::Buffer::new().format(next).as_bytes());
    ctx.out.array(found.len());
    found.into_iter().for_each(|member| reply(ctx.out, member));
    Ok(())
}
