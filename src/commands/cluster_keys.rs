//! What of CLUSTER is about keys and their slots, and the commands by which a client says how it means
//! its requests to a node of a cluster.

use crate::base::crc::{SLOTS, key_slot};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::slots;

/// Without a cluster each of its commands is known, and says so.
pub fn check_enabled(ctx: &ServerCtx<'_, '_>) -> Result<(), Error> {
    match ctx.shared.routes.is_enabled() {
        true => Ok(()),
        false => Err(Error::line(
            "ERR This instance has cluster support disabled",
        )),
    }
}

/// `CLUSTER KEYSLOT key`
pub fn keyslot(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    ctx.out.uint(key_slot(&ctx.args[2]).into());
    Ok(())
}

/// `CLUSTER COUNTKEYSINSLOT slot`
pub fn countkeysinslot(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    let slot = slot_in_range(ctx.args.int(2)?).ok_or(Error::line("ERR Invalid slot"))?;
    let count = match ctx.shared.keyspace.arriving.has(slot) {
        true => 0,
        false => slots::count(ctx, slot)?,
    };
    ctx.out.uint(count as u64);
    Ok(())
}

/// `CLUSTER GETKEYSINSLOT slot count`
pub fn getkeysinslot(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    let (slot, most) = (ctx.args.int(2)?, ctx.args.int(3)?);
    let (Some(slot), Ok(most)) = (slot_in_range(slot), usize::try_from(most)) else {
        return Err(Error::line("ERR Invalid slot or number of keys"));
    };
    let most = match ctx.shared.keyspace.arriving.has(slot) {
        true => 0,
        false => most,
    };
    let keys = slots::first_keys(ctx, slot, most)?;
    ctx.out.array(keys.len());
    for key in keys {
        ctx.out.bulk(&key);
    }
    Ok(())
}

fn slot_in_range(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|slot| *slot < SLOTS)
}

/// `ASKING`
pub fn asking(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    ctx.session.asking = true;
    ctx.out.ok();
    Ok(())
}

/// `READONLY`
pub fn readonly(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    ctx.session.reads_replica = true;
    ctx.out.ok();
    Ok(())
}

/// `READWRITE`
pub fn readwrite(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    check_enabled(ctx)?;
    ctx.session.reads_replica = false;
    ctx.out.ok();
    Ok(())
}
