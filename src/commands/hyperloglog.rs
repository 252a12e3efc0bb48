//! HyperLogLog commands. The values are strings; what is in them is in [`crate::types::hyperloglog`].

use crate::dispatch::command::{Acl, Command, Flags, Handler, KeyFlags, KeySpec};
use crate::dispatch::context::{DataCtx, ServerCtx};
use crate::dispatch::error::Error;
use crate::keyspace::entry::EntryMut;
use crate::keyspace::event;
use crate::types::Type;
use crate::types::hyperloglog::{self as hll, Corrupt, Union};

use super::rows::GROW;
use super::string_edits;

const ADD_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::INSERT))];
const COUNT_KEYS: &[KeySpec] = &[KeySpec::from(1, 1, KeyFlags::RW.or(KeyFlags::ACCESS)).note(
    "RW because it may change the internal representation of the key, and propagate to replicas",
)];
const MERGE_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::RW.or(KeyFlags::ACCESS).or(KeyFlags::INSERT)),
    KeySpec::from(2, 1, KeyFlags::READ),
];
const DEBUG_KEY: &[KeySpec] = &[KeySpec::at(2, KeyFlags::RW.or(KeyFlags::ACCESS))];

data_rows!(Acl::HYPERLOGLOG);

/// The rows.
pub const ROWS: &[Command] = &[
    row("pfadd", -2, GROW.or(Flags::FAST), ADD_KEY, pfadd),
    row(
        "pfcount",
        -2,
        Flags::READONLY.or(Flags::MAY_REPLICATE),
        COUNT_KEYS,
        pfcount,
    ),
    row("pfmerge", -2, GROW, MERGE_KEYS, pfmerge),
    row("pfdebug", 3, GROW.or(Flags::ADMIN), DEBUG_KEY, pfdebug),
    Command {
        handler: Handler::Server(pfselftest),
        ..row("pfselftest", 1, Flags::ADMIN, &[], pfadd)
    },
];

const CORRUPT: Error = Error::line("INVALIDOBJ Corrupted HLL object detected");

impl From<Corrupt> for Error {
    fn from(_: Corrupt) -> Self {
        CORRUPT
    }
}

/// The string at `key`, if there is one, which must be a HyperLogLog.
fn look_up<'d>(ctx: &'d mut DataCtx<'_, '_>, key: &[u8]) -> Result<Option<EntryMut<'d>>, Error> {
    let Some(entry) = ctx.db.write(key) else {
        return Ok(None);
    };
    let read = entry.get();
    if read.kind() != Type::String {
        return Err(Error::WrongType);
    }
    if !hll::is_one(read.string().text().bytes()) {
        return Err(Error::line(
            "WRONGTYPE Key is not a valid HyperLogLog string value.",
        ));
    }
    Ok(Some(entry))
}

/// `PFADD key [element [element ...]]`
fn pfadd(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (key, elements) = (ctx.args.all()[1], ctx.args.rest(2));
    let sparse_max = ctx.settings.hll_sparse_max_bytes;
    let add = |bytes: &mut Vec<u8>| -> Result<u64, Corrupt> {
        let mut updated = 0;
        for element in elements {
            updated += u64::from(hll::add(bytes, element, sparse_max)?);
        }
        if updated > 0 {
            hll::forget_count(bytes);
        }
        Ok(updated)
    };
    let existing = match look_up(ctx, key)? {
        Some(mut entry) => Some(entry.change(|entry| add(entry.bytes_mut()))?),
        None => None,
    };
    let updated = match existing {
        Some(updated) => updated,
        None => {
            let mut new = hll::empty();
            let updated = add(&mut new)? + 1;
            hll::forget_count(&mut new);
            string_edits::put_raw(ctx, 1, new);
            updated
        }
    };
    if updated > 0 {
        ctx.db.changed_by(key, event::ON_PFADD, updated);
    }
    ctx.out.int(i64::from(updated > 0));
    Ok(())
}

/// `PFCOUNT key [key ...]`
fn pfcount(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let keys = ctx.args.rest(1);
    if let [key] = keys {
        // Counted as a read; it may yet keep the count in the value.
        if ctx.db.read(key).is_none() {
            ctx.out.int(0);
            return Ok(());
        }
        return count_one(ctx, key);
    }
    let union = union_of(ctx, keys)?.0;
    ctx.out.int(union.count() as i64);
    Ok(())
}

fn count_one(ctx: &mut DataCtx<'_, '_>, key: &[u8]) -> Result<(), Error> {
    let (mut count, mut counted) = (0, false);
    if let Some(mut entry) = look_up(ctx, key)? {
        (count, counted) = entry.change(|entry| -> Result<_, Corrupt> {
            let bytes = entry.bytes_mut();
            if let Some(count) = hll::last_count(bytes) {
                return Ok((count, false));
            }
            let count = hll::count(bytes)?;
            hll::keep_count(bytes, count);
            Ok((count, true))
        })?;
    }
    if counted {
        ctx.db.changed_silently(key);
    }
    ctx.out.int(count as i64);
    Ok(())
}

/// The union of what is at these keys, and whether any of them is dense.
fn union_of(ctx: &mut DataCtx<'_, '_>, keys: &[&[u8]]) -> Result<(Union, bool), Error> {
    let (mut union, mut dense) = (Union::default(), false);
    for key in keys {
        // Counted as a read.
        if ctx.db.read(key).is_none() {
            continue;
        }
        if let Some(entry) = look_up(ctx, key)? {
            let read = entry.get();
            let mut text = read.string().text();
            let bytes = text.bytes();
            dense |= hll::is_dense(bytes);
            union.add(bytes)?;
        }
    }
    Ok((union, dense))
}

/// `PFMERGE destkey [sourcekey [sourcekey ...]]`
fn pfmerge(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (key, keys) = (ctx.args.all()[1], ctx.args.rest(1));
    let sparse_max = ctx.settings.hll_sparse_max_bytes;
    let (union, dense) = union_of(ctx, keys)?;
    let merge = |bytes: &mut Vec<u8>| -> Result<(), Corrupt> {
        if dense {
            hll::make_dense(bytes)?;
        }
        union.write_to(bytes, sparse_max)
    };
    let exists = match look_up(ctx, key)? {
        Some(mut entry) => {
            entry.change(|entry| merge(entry.bytes_mut()))?;
            true
        }
        None => false,
    };
    if !exists {
        let mut new = hll::empty();
        merge(&mut new)?;
        string_edits::put_raw(ctx, 1, new);
    }
    ctx.db.changed(key, event::ON_PFADD);
    ctx.out.ok();
    Ok(())
}

/// What PFDEBUG answers.
enum Shown {
    Registers(Vec<u8>),
    Text(String),
    IsDense(bool),
    /// Whether it was converted.
    Converted,
}

/// `PFDEBUG GETREG | DECODE | ENCODING | TODENSE key`
fn pfdebug(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let Some(mut entry) = look_up(ctx, &args[2])? else {
        return Err(Error::line("ERR The specified key does not exist"));
    };
    let mut converted = false;
    let shown = entry.change(|entry| {
        let bytes = entry.bytes_mut();
        if args.is(1, "getreg") {
            converted = hll::make_dense(bytes)?;
            Ok(Shown::Registers(hll::dense_registers(bytes).collect()))
        } else if args.is(1, "decode") {
            if hll::is_dense(bytes) {
                return Err(Error::line("ERR HLL encoding is not sparse"));
            }
            Ok(Shown::Text(hll::opcodes(bytes)))
        } else if args.is(1, "encoding") {
            Ok(Shown::IsDense(hll::is_dense(bytes)))
        } else if args.is(1, "todense") {
            converted = hll::make_dense(bytes)?;
            Ok(Shown::Converted)
        } else {
            let unknown = "Unknown PFDEBUG subcommand '";
            Err(Error::quoting(unknown, &args[1], "'"))
        }
    })?;
    match shown {
        Shown::Registers(registers) => {
            ctx.out.array(registers.len());
            let registers = registers.into_iter();
            registers.for_each(|value| ctx.out.int(i64::from(value)));
        }
        Shown::Text(text) => ctx.out.bulk(text.as_bytes()),
        Shown::IsDense(dense) => ctx.out.simple(if dense { "dense" } else { "sparse" }),
        Shown::Converted => ctx.out.int(i64::from(converted)),
    }
    // Propagated, but neither announced nor a change to who watches.
    ctx.db.count_changes(u64::from(converted));
    Ok(())
}

/// `PFSELFTEST`
fn pfselftest(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let sparse_max = ctx.worker.settings.hll_sparse_max_bytes;
    match hll::self_test(sparse_max) {
        Ok(()) => ctx.out.ok(),
        Err(what) => return Err(Error::Line(format!("ERR TESTFAILED {what}").into())),
    }
    Ok(())
}
