//! Intersection, union and difference of sets.

use std::ops::ControlFlow;

use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::db::Db;
use crate::keyspace::event::{self, Event};
use crate::types::collection::Collection;
use crate::types::listpack::Element;
use crate::types::set::{Limits, Set};

use super::lists::reply;
use super::rows::{GROW, READ};
use super::sets::limits;

const READ_KEYS: &[KeySpec] = &[KeySpec::from(1, 1, KeyFlags::READ)];

const SINTERSTORE_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE)),
    KeySpec::from(2, 1, KeyFlags::READ),
];

const STORE_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::OVERWRITE),
    KeySpec::from(2, 1, KeyFlags::READ),
];

const SINTERCARD_KEYS: &[KeySpec] = &[KeySpec::counted(1, KeyFlags::READ)];
const ORDER: &[&str] = &["nondeterministic_output_order"];

data_rows!(Acl::SET);

/// The rows.
pub const ROWS: &[Command] = &[
    row("sinter", -2, READ, READ_KEYS, sinter).tipped(ORDER),
    row("sunion", -2, READ, READ_KEYS, sunion).tipped(ORDER),
    row("sdiff", -2, READ, READ_KEYS, sdiff).tipped(ORDER),
    row("sinterstore", -3, GROW, SINTERSTORE_KEYS, sinterstore),
    row("sunionstore", -3, GROW, STORE_KEYS, sunionstore),
    row("sdiffstore", -3, GROW, STORE_KEYS, sdiffstore),
    row("sintercard", -3, READ, SINTERCARD_KEYS, sintercard),
];

/// The sets at some keys; `None` where there is no key. Each counts as read.
fn sets<'d>(db: &'d mut Db<'_, '_>, keys: &[&[u8]]) -> Result<Vec<Option<&'d Set>>, Error> {
    for key in keys {
        db.read_as::<Set>(key)?;
    }
    let all = keys.iter().map(|key| Ok(db.get_as::<Set>(key)?));
    all.collect()
}

/// Shows the members that all sets have; nothing when one is missing.
fn intersect<'a>(sets: &[Option<&'a Set>], mut show: impl FnMut(Element<'a>) -> ControlFlow<()>) {
    let mut present: Vec<&Set> = sets.iter().copied().flatten().collect();
    if present.len() < sets.len() {
        return;
    }
    present.sort_by_key(|set| set.len());
    let Some((smallest, others)) = present.split_first() else {
        return;
    };
    let is_same = |other: &&&Set| !std::ptr::eq(**other, *smallest);
    let others: Vec<&Set> = others.iter().filter(is_same).copied().collect();
    let _ = smallest.try_for_each(|member| {
        match others.iter().all(|set| set.contains_element(member)) {
            true => show(member),
            false => ControlFlow::Continue(()),
        }
    });
}

fn union(sets: &[Option<&Set>], limits: Limits) -> Set {
    let mut result = Set::new();
    for member in sets.iter().flatten().flat_map(|set| set.iter()) {
        result.add_element(member, limits);
    }
    result
}

/// The members of the first set that no other has.
fn difference(sets: &[Option<&Set>], limits: Limits) -> Set {
    let mut result = Set::new();
    let Some((Some(first), others)) = sets.split_first() else {
        return result;
    };
    let mut others: Vec<&Set> = others.iter().copied().flatten().collect();
    if others.iter().any(|set| std::ptr::eq(*set, *first)) {
        return result;
    }
    let lookups = first.len() * (others.len() + 1) / 2;
    let members = first.len() + others.iter().map(|set| set.len()).sum::<usize>();
    if lookups <= members {
        // The biggest is the likeliest to have a member.
        others.sort_by_key(|set| std::cmp::Reverse(set.len()));
        for member in first.iter() {
            if !others.iter().any(|set| set.contains_element(member)) {
                result.add_element(member, limits);
            }
        }
        return result;
    }
    for member in first.iter() {
        result.add_element(member, limits);
    }
    for member in others.iter().flat_map(|set| set.iter()) {
        result.remove(member.text(&mut itoa::Buffer::new()));
        if result.is_empty() {
            break;
        }
    }
    result
}

/// Replies with a set that is nobody's.
fn answer(ctx: &mut DataCtx<'_, '_>, result: Set) {
    ctx.out.set(result.len());
    result.iter().for_each(|member| reply(ctx.out, member));
    ctx.db.discard_object(result);
}

/// Stores a result at argument 1, or removes what is there when it is empty.
fn store(ctx: &mut DataCtx<'_, '_>, result: Set, event: Event) {
    let key = &ctx.args[1];
    ctx.out.int(result.len() as i64);
    if result.is_empty() {
        if ctx.db.remove_replaced(key) {
            ctx.db.changed(key, event::ON_DEL);
        }
    } else {
        ctx.db.store(key, result);
        ctx.db.changed(key, event);
    }
}

/// `SINTER key [key ...]`
fn sinter(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let sets = sets(&mut ctx.db, ctx.args.rest(1))?;
    let reply_set = ctx.out.deferred();
    let mut len = 0;
    intersect(&sets, |member| {
        reply(ctx.out, member);
        len += 1;
        ControlFlow::Continue(())
    });
    ctx.out.end_set(reply_set, len);
    Ok(())
}

/// `SINTERSTORE destination key [key ...]`
pub(super) fn sinterstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let limits = limits(ctx.settings);
    let sets = sets(&mut ctx.db, ctx.args.rest(2))?;
    let mut result = Set::new();
    intersect(&sets, |member| {
        result.add_element(member, limits);
        ControlFlow::Continue(())
    });
    store(ctx, result, event::ON_SINTERSTORE);
    Ok(())
}

/// `SINTERCARD numkeys key [key ...] [LIMIT limit]`
fn sintercard(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    const NUMKEYS: &str = "ERR numkeys should be greater than 0";
    const LIMIT: &str = "ERR LIMIT can't be negative";
    let args = ctx.args;
    let count = args.int_or(1, NUMKEYS)?;
    if count < 1 {
        return Err(Error::line(NUMKEYS));
    }
    if count > args.len() as i64 - 2 {
        return Err(Error::line(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    let end = 2 + count as usize;
    let (mut limit, mut options) = (0, Cursor::new(args, end));
    while options.step() {
        if !options.is("limit") {
            return Err(options.refuse());
        }
        limit = options.int_from(0, LIMIT)?;
    }
    let sets = sets(&mut ctx.db, &args.all()[2..end])?;
    let mut found = 0;
    intersect(&sets, |_| {
        found += 1;
        match found == limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    ctx.out.int(found);
    Ok(())
}

/// `SUNION key [key ...]`
fn sunion(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let limits = limits(ctx.settings);
    let result = union(&sets(&mut ctx.db, ctx.args.rest(1))?, limits);
    answer(ctx, result);
    Ok(())
}

/// `SUNIONSTORE destination key [key ...]`
fn sunionstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let limits = limits(ctx.settings);
    let result = union(&sets(&mut ctx.db, ctx.args.rest(2))?, limits);
    store(ctx, result, event::ON_SUNIONSTORE);
    Ok(())
}

/// `SDIFF key [key ...]`
fn sdiff(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let limits = limits(ctx.settings);
    let result = difference(&sets(&mut ctx.db, ctx.args.rest(1))?, limits);
    answer(ctx, result);
    Ok(())
}

/// `SDIFFSTORE destination key [key ...]`
fn sdiffstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let limits = limits(ctx.settings);
    let result = difference(&sets(&mut ctx.db, ctx.args.rest(2))?, limits);
    store(ctx, result, event::ON_SDIFFSTORE);
    Ok(())
}
