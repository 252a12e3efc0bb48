//! String commands that change a value in place, count with it, or compare two of them.

use crate::base::long_double::LongDouble;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::db::Ttl;
use crate::keyspace::entry::{Entry, INLINE_MAX, NewValue};
use crate::keyspace::event;
use crate::types::lcs::{self, Lcs};
use crate::types::string::StringMut;

use super::rows::{GROW, GROW_FAST, READ, READ_UPDATE_KEY};
use super::strings::{of_string, value_of};

const SETRANGE_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];
const APPEND_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::INSERT))];
const LCS_KEYS: &[KeySpec] = &[KeySpec::two(1, KeyFlags::READ)];

data_rows!(Acl::STRING);

/// The rows.
pub const ROWS: &[Command] = &[
    row("setrange", 4, GROW, SETRANGE_KEY, setrange),
    row("append", 3, GROW_FAST, APPEND_KEY, append),
    row("incr", 2, GROW_FAST, READ_UPDATE_KEY, incr),
    row("decr", 2, GROW_FAST, READ_UPDATE_KEY, decr),
    row("incrby", 3, GROW_FAST, READ_UPDATE_KEY, incrby),
    row("decrby", 3, GROW_FAST, READ_UPDATE_KEY, decrby),
    row("incrbyfloat", 3, GROW_FAST, READ_UPDATE_KEY, incrbyfloat),
    row("lcs", -3, READ, LCS_KEYS, lcs),
];

/// Refuses a string that would be longer than `proto-max-bulk-len` (`max`).
fn check_length(max: i64, len: i64, more: usize) -> Result<(), Error> {
    match len.checked_add(more as i64) {
        Some(total) if total <= max => Ok(()),
        _ => Err(Error::StringTooLong),
    }
}

/// What [`edit_padded`] did.
pub(super) struct Edited<R> {
    /// Length before; `None`: there was no such key.
    pub old_len: Option<usize>,
    /// Length after.
    pub len: usize,
    /// What the edit returned.
    pub result: R,
}

/// Changes the string at argument 1 with `edit` once it has at least `len` bytes; a new one, of
/// zeros, is made if there is none.
pub(super) fn edit_padded<R>(
    ctx: &mut DataCtx<'_, '_>,
    len: usize,
    edit: impl FnOnce(&mut StringMut<'_>) -> R,
) -> Result<Edited<R>, Error> {
    let key = &ctx.args[1];
    if let Some(mut entry) = ctx.db.write(key) {
        let old_len = Some(of_string(entry.get())?.string().len());
        return Ok(entry.change(|entry| {
            let mut string = entry.padded_mut(len);
            Edited {
                old_len,
                len: string.len(),
                result: edit(&mut string),
            }
        }));
    }
    let mut bytes = vec![0; len];
    let result = edit(&mut StringMut::Bytes(&mut bytes));
    put_raw(ctx, 1, bytes);
    Ok(Edited {
        old_len: None,
        len,
        result,
    })
}

/// Sets argument `key` to a string that was computed; its encoding is raw. Tells nobody.
pub(super) fn put_raw(ctx: &mut DataCtx<'_, '_>, key: usize, bytes: Vec<u8>) {
    let value = if bytes.len() <= INLINE_MAX {
        NewValue::RawBytes(&bytes)
    } else {
        NewValue::Shared(bytes.into())
    };
    ctx.db.put(&ctx.args[key], value, Ttl::Clear);
}

/// `SETRANGE key offset value`
fn setrange(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (key, value) = (ctx.args.all()[1], ctx.args.all()[3]);
    let offset = ctx.args.int(2)?;
    if offset < 0 {
        return Err(Error::line("ERR offset is out of range"));
    }
    let old_len = match ctx.db.write(key) {
        None => 0,
        Some(entry) => of_string(entry.get())?.string().len(),
    };
    if value.is_empty() {
        ctx.out.int(old_len as i64);
        return Ok(());
    }
    check_length(ctx.max_string_len(), offset, value.len())?;
    let offset = offset as usize;
    let end = offset + value.len();
    let edited = edit_padded(ctx, end, |string| {
        string.edit(offset..end, |bytes| bytes.copy_from_slice(value))
    })?;
    ctx.db.changed(key, event::ON_SETRANGE);
    ctx.out.int(edited.len as i64);
    Ok(())
}

/// `APPEND key value`
fn append(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let (key, value, max) = (&ctx.args[1], ctx.args.all()[2], ctx.max_string_len());
    let len = if let Some(mut entry) = ctx.db.write(key) {
        let old_len = of_string(entry.get())?.string().len();
        check_length(max, old_len as i64, value.len())?;
        entry.change(|entry| entry.append(value));
        old_len + value.len()
    } else {
        ctx.db.put(key, value_of(ctx.args, 2), Ttl::Clear);
        value.len()
    };
    ctx.db.changed(key, event::ON_APPEND);
    ctx.out.int(len as i64);
    Ok(())
}

/// `INCR key`
fn incr(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    add(ctx, 1)
}

/// `DECR key`
fn decr(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    add(ctx, -1)
}

/// `INCRBY key increment`
fn incrby(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let by = ctx.args.int(2)?;
    add(ctx, by)
}

/// `DECRBY key decrement`
fn decrby(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let by = ctx.args.int(2)?;
    let negated = by
        .checked_neg()
        .ok_or(Error::line("ERR decrement would overflow"))?;
    add(ctx, negated)
}

#[inline]
fn add(ctx: &mut DataCtx<'_, '_>, by: i64) -> Result<(), Error> {
    let key = &ctx.args[1];
    let sum = if let Some(sum) = ctx.db.add_in_place(key, by) {
        sum
    } else if let Some(mut entry) = ctx.db.write(key) {
        let Some(old) = of_string(entry.get())?.string().integer() else {
            return Err(Error::NotInteger);
        };
        let Some(sum) = old.checked_add(by) else {
            return Err(Error::line("ERR increment or decrement would overflow"));
        };
        entry.change(|entry| entry.set_value(NewValue::Int(sum)));
        sum
    } else {
        let clock = ctx.db.env().access.initial();
        let entry = Entry::new(key, NewValue::Int(by), None, clock);
        ctx.db.insert(key, entry);
        by
    };
    ctx.db.changed(key, event::ON_INCRBY);
    ctx.out.int(sum);
    Ok(())
}

/// `INCRBYFLOAT key increment`
fn incrbyfloat(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let key = &ctx.args[1];
    let old = match ctx.db.write(key) {
        None => LongDouble::from_i64(0),
        Some(entry) => {
            let entry = of_string(entry.get())?;
            LongDouble::parse(entry.string().text().bytes()).ok_or(Error::NotFloat)?
        }
    };
    let by = LongDouble::parse(&ctx.args[2]).ok_or(Error::NotFloat)?;
    let sum = old + by;
    if sum.is_nan() || sum.is_infinite() {
        return Err(Error::line("ERR increment would produce NaN or Infinity"));
    }
    let text = sum.format();
    ctx.db.put(key, NewValue::Text(&text), Ttl::Keep);
    ctx.db.changed(key, event::ON_INCRBYFLOAT);
    ctx.db.rewrite(&[b"SET", key, &text, b"KEEPTTL"]);
    ctx.out.bulk(&text);
    Ok(())
}

/// What LCS is asked for.
#[derive(Default)]
struct Wanted {
    len: bool,
    idx: bool,
    with_match_len: bool,
    min_match_len: u64,
}

impl Wanted {
    fn parse(ctx: &DataCtx<'_, '_>) -> Result<Self, Error> {
        let mut wanted = Self::default();
        let mut options = Cursor::new(ctx.args, 3);
        while options.step() {
            match () {
                () if options.is("idx") => wanted.idx = true,
                () if options.is("len") => wanted.len = true,
                () if options.is("withmatchlen") => wanted.with_match_len = true,
                () if options.is("minmatchlen") => {
                    wanted.min_match_len = options.int()?.max(0) as u64;
                }
                () => return Err(options.refuse()),
            }
        }
        if wanted.len && wanted.idx {
            return Err(Error::line(
                "ERR If you want both the length and indexes, please just use IDX.",
            ));
        }
        Ok(wanted)
    }
}

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]`
fn lcs(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let a = text_to_compare(ctx, 1);
    let b = text_to_compare(ctx, 2);
    let (Ok(a), Ok(b)) = (a, b) else {
        return Err(Error::line(
            "ERR The specified keys must contain string values",
        ));
    };
    let wanted = Wanted::parse(ctx)?;
    let max_bytes = ctx.settings.proto_max_bulk_len as u64;
    let table = Lcs::new(&a, &b, max_bytes).map_err(|refusal| {
        Error::line(match refusal {
            lcs::Refusal::TooLong => "ERR String too long for LCS",
            lcs::Refusal::TooMuchMemory => {
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
            }
            lcs::Refusal::NoMemory => {
                "ERR Insufficient memory, failed allocating transient memory for LCS"
            }
        })
    })?;
    if wanted.idx {
        reply_matches(ctx, &table, &wanted);
    } else if wanted.len {
        ctx.out.int(i64::from(table.len()));
    } else {
        ctx.out.bulk(&table.subsequence());
    }
    Ok(())
}

/// A copy of a string for LCS: two keys may be one, and the work is far greater than the copy.
fn text_to_compare(ctx: &mut DataCtx<'_, '_>, i: usize) -> Result<Vec<u8>, Error> {
    match ctx.db.read(&ctx.args[i]) {
        None => Ok(Vec::new()),
        Some(entry) => Ok(of_string(entry)?.string().to_vec()),
    }
}

fn reply_matches(ctx: &mut DataCtx<'_, '_>, table: &Lcs<'_>, wanted: &Wanted) {
    let out = &mut *ctx.out;
    let mut shown = 0;
    out.map(2);
    out.bulk(b"matches");
    let matches = out.deferred();
    table.each_match(|a, b, len| {
        if u64::from(len) < wanted.min_match_len {
            return;
        }
        shown += 1;
        out.array(2 + usize::from(wanted.with_match_len));
        for start in [a, b] {
            out.array(2);
            out.int(i64::from(start));
            out.int(i64::from(start + len - 1));
        }
        if wanted.with_match_len {
            out.int(i64::from(len));
        }
    });
    out.end_array(matches, shown);
    out.bulk(b"len");
    out.int(i64::from(table.len()));
}
