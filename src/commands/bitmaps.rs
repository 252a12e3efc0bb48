//! Commands on strings as bitmaps; fields of several bits are in [`super::bitfield`].

use crate::base::number;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::keyspace::event;
use crate::types::bitmap::{self, Operation};

use super::rows::{GROW, READ_FAST, READ_KEY, READ_UPDATE_KEY};
use super::string_edits::{edit_padded, put_raw};
use super::strings::of_string;

data_rows!(Acl::BITMAP);

const BITOP_KEYS: &[KeySpec] = &[
    KeySpec::at(2, KeyFlags::OVERWRITE),
    KeySpec::from(3, 1, KeyFlags::READ),
];

/// The rows.
pub const ROWS: &[Command] = &[
    row("setbit", 4, GROW, READ_UPDATE_KEY, setbit),
    row("getbit", 3, READ_FAST, READ_KEY, getbit),
    row("bitcount", -2, Flags::READONLY, READ_KEY, bitcount),
    row("bitpos", -3, Flags::READONLY, READ_KEY, bitpos),
    row("bitop", -4, GROW, BITOP_KEYS, bitop),
];

/// The offset of a bit. `#n`, where `width` allows it, counts in fields of that width.
pub(super) fn bit_offset(
    ctx: &DataCtx<'_, '_>,
    i: usize,
    width: Option<u32>,
) -> Result<u64, Error> {
    let text = ctx.args.all()[i];
    let (digits, scale) = match (text, width) {
        ([b'#', digits @ ..], Some(width)) => (digits, i64::from(width)),
        _ => (text, 1),
    };
    // A product beyond 64 bits wraps, as in Redis, and is most likely refused.
    number::parse_i64(digits)
        .map(|n| n.wrapping_mul(scale))
        .filter(|offset| *offset >= 0 && offset >> 3 < ctx.max_string_len())
        .map(|offset| offset as u64)
        .ok_or(Error::line(
            "ERR bit offset is not an integer or out of range",
        ))
}

/// `SETBIT key offset value`
fn setbit(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    const NOT_A_BIT: &str = "ERR bit is not an integer or out of range";
    let offset = bit_offset(ctx, 2, None)?;
    let on = match ctx.args.int_or(3, NOT_A_BIT)? {
        0 => false,
        1 => true,
        _ => return Err(Error::line(NOT_A_BIT)),
    };
    let len = (offset / 8) as usize + 1;
    let edited = edit_padded(ctx, len, |string| {
        string.edit(len - 1..len, |byte| bitmap::set(byte, offset % 8, on))
    })?;
    if edited.old_len != Some(edited.len) || edited.result != on {
        ctx.db.changed(&ctx.args[1], event::ON_SETBIT);
    }
    ctx.out.int(i64::from(edited.result));
    Ok(())
}

/// `GETBIT key offset`
fn getbit(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let offset = bit_offset(ctx, 2, None)?;
    let bit = match ctx.db.read(&ctx.args[1]) {
        None => false,
        Some(entry) => {
            let entry = of_string(entry)?;
            let (string, byte) = (entry.string(), (offset / 8) as usize);
            byte < string.len() && bitmap::get(&string.slice(byte..byte + 1), offset % 8)
        }
    };
    ctx.out.int(i64::from(bit));
    Ok(())
}

/// The unit of a range, at argument `i`: true for BIT, false for BYTE.
fn in_bits(args: Args<'_>, i: usize) -> Result<bool, Error> {
    match () {
        () if i >= args.len() || args.is(i, "byte") => Ok(false),
        () if args.is(i, "bit") => Ok(true),
        () => Err(Error::Syntax),
    }
}

/// First and last bit of a range from `start` to `end` in a string of `len` bytes; `None` when
/// the range is empty. Negative indexes count from the end.
fn bit_range(len: usize, start: i64, end: i64, bits: bool) -> Option<(u64, u64)> {
    let unit = if bits { 1 } else { 8 };
    let total = len as i64 * 8 / unit;
    let from_end = |at: i64| if at < 0 { (total + at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    (start <= end).then(|| {
        let (first, last) = (start * unit, end * unit + unit - 1);
        (first as u64, last as u64)
    })
}

/// `BITCOUNT key [start end [BYTE | BIT]]`
fn bitcount(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let Some(entry) = ctx.db.read(&args[1]) else {
        // As from 7.2 on: what is wrong with the arguments is said of a missing key too.
        match args.len() {
            2 => {}
            4 | 5 => drop((args.int(2)?, args.int(3)?, in_bits(args, 4)?)),
            _ => return Err(Error::Syntax),
        }
        ctx.out.int(0);
        return Ok(());
    };
    let entry = of_string(entry)?;
    let mut text = entry.string().text();
    let bytes = text.bytes();
    let count = match args.len() {
        2 => bitmap::count(bytes),
        4 | 5 => {
            let (start, end) = (args.int(2)?, args.int(3)?);
            if start < 0 && end < 0 && start > end {
                // Said before the unit is looked at.
                0
            } else {
                let range = bit_range(bytes.len(), start, end, in_bits(args, 4)?);
                range.map_or(0, |(first, last)| bitmap::count_between(bytes, first, last))
            }
        }
        _ => return Err(Error::Syntax),
    };
    ctx.out.uint(count);
    Ok(())
}

/// The range of BITPOS: start, end, whether they count bits.
fn position_range(args: Args<'_>) -> Result<(i64, i64, bool), Error> {
    if args.len() > 6 {
        return Err(Error::Syntax);
    }
    let start = if args.len() > 3 { args.int(3)? } else { 0 };
    let bits = in_bits(args, 5)?;
    let end = if args.len() > 4 { args.int(4)? } else { -1 };
    Ok((start, end, bits))
}

/// `BITPOS key bit [start [end [BYTE | BIT]]]`
fn bitpos(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let bit = match args.int(2)? {
        0 => false,
        1 => true,
        _ => return Err(Error::line("ERR The bit argument must be 1 or 0.")),
    };
    let Some(entry) = ctx.db.read(&args[1]) else {
        // As from 7.2 on: what is wrong with the arguments is said of a missing key too.
        position_range(args)?;
        // A key that is not there is zeros without end.
        ctx.out.int(if bit { -1 } else { 0 });
        return Ok(());
    };
    let entry = of_string(entry)?;
    let mut text = entry.string().text();
    let bytes = text.bytes();
    let (start, end, bits) = position_range(args)?;
    let position = match bit_range(bytes.len(), start, end, bits) {
        None => -1,
        Some((first, last)) => match bitmap::find(bytes, bit, first, last) {
            Some(position) => position as i64,
            // Without an end, the zeros go on after the string.
            None if !bit && args.len() <= 4 => last as i64 + 1,
            None => -1,
        },
    };
    ctx.out.int(position);
    Ok(())
}

/// `BITOP AND | OR | XOR | NOT destkey key [key ...]`
fn bitop(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let operation = match () {
        () if args.is(1, "and") => Some(Operation::And),
        () if args.is(1, "or") => Some(Operation::Or),
        () if args.is(1, "xor") => Some(Operation::Xor),
        () if args.is(1, "not") => None,
        () => return Err(Error::Syntax),
    };
    if operation.is_none() && args.len() != 4 {
        return Err(Error::line(
            "ERR BITOP NOT must be called with a single source key.",
        ));
    }
    let result = match operation {
        Some(operation) => combined(ctx, operation)?,
        None => {
            let mut result = source(ctx, 3)?.unwrap_or_default();
            result.iter_mut().for_each(|byte| *byte = !*byte);
            result
        }
    };
    let len = result.len();
    let target = &args[2];
    if len > 0 {
        put_raw(ctx, 2, result);
        ctx.db.changed(target, event::ON_SET);
    } else if ctx.db.remove_replaced(target) {
        ctx.db.changed(target, event::ON_DEL);
    }
    ctx.out.int(len as i64);
    Ok(())
}

/// A copy of the string at argument `i`.
fn source(ctx: &mut DataCtx<'_, '_>, i: usize) -> Result<Option<Vec<u8>>, Error> {
    match ctx.db.read(&ctx.args[i]) {
        None => Ok(None),
        Some(entry) => Ok(Some(of_string(entry)?.string().to_vec())),
    }
}

fn combined(ctx: &mut DataCtx<'_, '_>, operation: Operation) -> Result<Vec<u8>, Error> {
    let mut result = source(ctx, 3)?.unwrap_or_default();
    for key in ctx.args.rest(4) {
        match ctx.db.read(key) {
            None => bitmap::combine(&mut result, operation, b""),
            Some(entry) => {
                let entry = of_string(entry)?;
                let mut text = entry.string().text();
                bitmap::combine(&mut result, operation, text.bytes());
            }
        }
    }
    Ok(result)
}
