//! The keys of hash slots: counted, listed, and removed when the slot has gone to another node.
//!
//! Counts include keys whose time is over and that are still there, as those of Redis do. All is done in
//! slices under the lock of the slot's shard, so a count of a slot that others write to is a recent one;
//! [`when_empty`] is exact.

use std::sync::atomic::Ordering::Relaxed;

use super::blocking;
use super::context::{ServerCtx, Shared, env_of};
use super::error::Error;
use super::propagate::{Propagated, append};
use crate::base::clock::Now;
use crate::base::crc::SLOTS;
use crate::keyspace::by_slot::Walk;
use crate::keyspace::db::{Db, Effects};
use crate::keyspace::event;
use crate::keyspace::shards::LockSet;

/// Most buckets that are looked at under one lock, and of which entries are counted.
const LOOKED_AT: usize = 64;
const COUNTED: usize = 4096;

/// Shows a database to some work, with the shard locked.
type WithShard<'a> = dyn FnMut(usize, &mut dyn FnMut(&mut Db<'_, '_>)) -> Result<(), Error> + 'a;

/// Number of keys of a slot, for a command, which within EXEC needs all shards
/// ([`Scope::All`](super::command::Scope::All)), as for all of these that take a context.
///
/// # Errors
/// Those of [`ServerCtx::await_shard`], as for all of these.
pub fn count(ctx: &mut ServerCtx<'_, '_>, slot: u16) -> Result<usize, Error> {
    count_with(slot, &mut |shard, work| {
        ctx.await_shard(shard, |db| work(db))
    })
}

/// Keys of a slot, at most so many.
pub fn first_keys(
    ctx: &mut ServerCtx<'_, '_>,
    slot: u16,
    most: usize,
) -> Result<Vec<Box<[u8]>>, Error> {
    first_with(slot, most, &mut |shard, work| {
        ctx.await_shard(shard, |db| work(db))
    })
}

/// Does `then` if there are no keys in a slot, before anybody can make one: under the slot's shard, so
/// `then` publishes what becomes of the slot and takes no further shard. Whether it was done.
pub fn when_empty(
    ctx: &mut ServerCtx<'_, '_>,
    slot: u16,
    then: impl FnOnce(),
) -> Result<bool, Error> {
    let begin = Walk::new(slot);
    ctx.await_shard(begin.shard(), |db| {
        let (mut walk, mut empty) = (Some(begin), true);
        while let Some(here) = walk
            && empty
        {
            walk = here.slice(db, COUNTED, |_| {
                empty = false;
                false
            });
        }
        if empty {
            then();
        }
        empty
    })
}

/// Deletes all keys of a slot, for a command, as DEL or UNLINK.
///
/// # Errors
/// Its shard is claimed, and the command begins again when it is not.
pub fn flush(ctx: &mut ServerCtx<'_, '_>, slot: u16, lazy: bool) -> Result<(), Error> {
    let mut walk = Some(Walk::new(slot));
    while let Some(here) = walk {
        ctx.await_shard(here.shard(), |db| {
            let mut keys: Vec<Box<[u8]>> = Vec::new();
            walk = here.slice(db, LOOKED_AT, |entry| {
                keys.push(entry.key().into());
                true
            });
            let word: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
            // Without keys nothing is done, and nothing told.
            db.rewrite_as(Vec::new());
            for key in &keys {
                if db.remove_freeing(key, lazy) {
                    db.changed(key, event::ON_DEL);
                    db.rewrite(&[word, key]);
                }
            }
        })?;
    }
    Ok(())
}

/// As [`count`], for threads that run no command and hold no shard.
pub fn count_of(shared: &Shared, slot: u16) -> usize {
    let counted = count_with(slot, &mut |shard, work| {
        with_shard(shared, shard, work);
        Ok(())
    });
    counted.unwrap_or(0)
}

/// True when a slot has keys, likewise.
pub fn has_keys(shared: &Shared, slot: u16) -> bool {
    let found = first_with(slot, 1, &mut |shard, work| {
        with_shard(shared, shard, work);
        Ok(())
    });
    found.is_ok_and(|keys| !keys.is_empty())
}

/// The slots that have keys, in order, likewise: what is to be held against the cluster's configuration
/// once the data set is loaded.
pub fn with_keys(shared: &Shared) -> Vec<u16> {
    (0..SLOTS).filter(|slot| has_keys(shared, *slot)).collect()
}

/// Removes all keys of a slot that has gone to another node, which the caller has published before; how
/// many they were. Replicas and files hear of it, and who watches or waits for a key. Subscribers do not:
/// nothing is deleted, it is only elsewhere. For threads that run no command and hold no shard.
///
/// Should the slot come back meanwhile, what is written to it then stays; so does what arrives in it.
pub fn delete(shared: &Shared, slot: u16) -> usize {
    delete_if(shared, slot, || {
        !is_kept(shared, slot) && !shared.keyspace.arriving.has(slot)
    })
}

/// As [`delete`], for who brings the slot's keys, which nobody else does meanwhile.
pub fn delete_arriving(shared: &Shared, slot: u16) -> usize {
    delete_if(shared, slot, || !is_kept(shared, slot))
}

fn delete_if(shared: &Shared, slot: u16, goes: impl Fn() -> bool) -> usize {
    let settings = shared.config.load();
    let env = env_of(&settings, Now::read());
    let (keyspace, lazy) = (&shared.keyspace, env.lazy_overwrite);
    let shard = Walk::new(slot).shard();
    let (mut walk, mut removed) = (Some(Walk::new(slot)), 0);
    while let Some(here) = walk {
        let mut effects = Effects::default();
        let mut locks = LockSet::One(keyspace.lock(shard));
        if !goes() {
            break;
        }
        let mut db = Db::new(keyspace, &mut locks, &env, &mut effects, 0, &[]);
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        walk = here.slice(&db, LOOKED_AT, |entry| {
            keys.push(entry.key().into());
            true
        });
        for key in &keys {
            db.remove_replaced(key);
            db.changed_silently(key);
            blocking::removed(shared, 0, key);
            if shared.stream.is_active() {
                let word = if lazy { "UNLINK" } else { "DEL" };
                let form = vec![word.into(), key.to_vec()];
                append(shared, &[Propagated::new(0, form)]);
            }
        }
        drop(locks);
        effects.free(&keyspace.lazyfree);
        removed += keys.len();
    }
    let changes = &shared.stats.applier().counters.changes;
    changes.fetch_add(removed as u64, Relaxed);
    removed
}

/// True for slots whose keys belong here: under the slot's shard that stays so.
fn is_kept(shared: &Shared, slot: u16) -> bool {
    shared.routes.with(|view| {
        let is_importing = view.slot(slot).importing_from.is_some();
        is_importing || view.is_mine(slot) || view.is_of_my_primary(slot)
    })
}

fn with_shard(shared: &Shared, shard: usize, work: &mut dyn FnMut(&mut Db<'_, '_>)) {
    let env = env_of(&shared.config.load(), Now::read());
    let mut effects = Effects::default();
    let mut locks = LockSet::One(shared.keyspace.lock(shard));
    work(&mut Db::new(
        &shared.keyspace,
        &mut locks,
        &env,
        &mut effects,
        0,
        &[],
    ));
}

fn count_with(slot: u16, with_shard: &mut WithShard<'_>) -> Result<usize, Error> {
    let (mut walk, mut count) = (Some(Walk::new(slot)), 0);
    while let Some(here) = walk {
        with_shard(here.shard(), &mut |db| {
            let (more, rest) = here.count(db, COUNTED);
            count += more;
            walk = rest;
        })?;
    }
    Ok(count)
}

fn first_with(
    slot: u16,
    most: usize,
    with_shard: &mut WithShard<'_>,
) -> Result<Vec<Box<[u8]>>, Error> {
    let (mut walk, mut keys) = (Some(Walk::new(slot)).filter(|_| most > 0), Vec::new());
    while let Some(here) = walk {
        with_shard(here.shard(), &mut |db| {
            walk = here.slice(db, LOOKED_AT, |entry| {
                keys.push(Box::from(entry.key()));
                keys.len() < most
            });
        })?;
    }
    Ok(keys)
}
