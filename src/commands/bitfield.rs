//! BITFIELD and BITFIELD_RO: a string as an array of integers of any width.

use smallvec::SmallVec;

use crate::base::number;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event;
use crate::types::bitmap::{Field, Overflow};

use super::bitmaps::bit_offset;
use super::rows::{GROW, READ_FAST, READ_KEY};
use super::string_edits::edit_padded;
use super::strings::of_string;

const BITFIELD_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::READ_UPDATE)
    .depending(key_flags)
    .note("This command allows both access and modification of the key")];

data_rows!(Acl::BITMAP);

/// The rows.
pub const ROWS: &[Command] = &[
    row("bitfield", -2, GROW, BITFIELD_KEY, bitfield),
    row("bitfield_ro", -2, READ_FAST, READ_KEY, bitfield_ro),
];

/// One subcommand.
struct Step {
    field: Field,
    action: Action,
}

#[derive(Clone, Copy)]
enum Action {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

/// What BITFIELD does with its key: a request of nothing but well-formed GETs only reads.
fn key_flags(args: Args<'_>) -> KeyFlags {
    let mut at = 2;
    while at < args.len() {
        let after = args.len() - at - 1;
        at += match () {
            () if args.is(at, "get") && after >= 2 => 3,
            () if args.is(at, "overflow") && after >= 1 => 2,
            () => return KeyFlags::READ_UPDATE,
        };
    }
    KeyFlags::READ
}

type Steps = SmallVec<[Step; 4]>;
/// A reply for each subcommand; `None` where the overflow rule forbade it.
type Results = SmallVec<[Option<i64>; 4]>;

/// `BITFIELD key [GET type offset | [OVERFLOW WRAP | SAT | FAIL] SET type offset value |
/// INCRBY type offset increment ...]`
fn bitfield(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let steps = parse(ctx)?;
    let writes = steps.iter().filter(|s| !matches!(s.action, Action::Get));
    match writes.map(|s| s.field.last()).max() {
        None => read(ctx, &steps),
        Some(last) => write(ctx, &steps, (last / 8) as usize + 1),
    }
}

/// `BITFIELD_RO key [GET type offset ...]`
fn bitfield_ro(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let steps = parse(ctx)?;
    if steps.iter().any(|s| !matches!(s.action, Action::Get)) {
        return Err(Error::line(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    read(ctx, &steps)
}

fn parse(ctx: &DataCtx<'_, '_>) -> Result<Steps, Error> {
    let mut steps = Steps::new();
    let mut rule = Overflow::Wrap;
    let mut options = Cursor::new(ctx.args, 2);
    while options.step() {
        let (takes_value, make): (bool, fn(i64, Overflow) -> Action) = match () {
            () if options.is("overflow") => {
                rule = overflow(options.value()?)?;
                continue;
            }
            () if options.has("get", 2) => (false, |_, _| Action::Get),
            () if options.has("set", 3) => (true, Action::Set),
            () if options.has("incrby", 3) => (true, Action::Add),
            () => return Err(options.refuse()),
        };
        let (signed, bits) = field_type(options.value()?)?;
        let offset = bit_offset(ctx, options.take()?, Some(bits))?;
        let value = if takes_value { options.int()? } else { 0 };
        steps.push(Step {
            field: Field {
                offset,
                bits,
                signed,
            },
            action: make(value, rule),
        });
    }
    Ok(steps)
}

fn overflow(word: &[u8]) -> Result<Overflow, Error> {
    match () {
        () if word.eq_ignore_ascii_case(b"wrap") => Ok(Overflow::Wrap),
        () if word.eq_ignore_ascii_case(b"sat") => Ok(Overflow::Saturate),
        () if word.eq_ignore_ascii_case(b"fail") => Ok(Overflow::Fail),
        () => Err(Error::line("ERR Invalid OVERFLOW type specified")),
    }
}

/// `i8`, `u63`: whether signed, and how many bits.
fn field_type(text: &[u8]) -> Result<(bool, u32), Error> {
    let (signed, digits) = match text {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => (false, &b""[..]),
    };
    let widest = if signed { 64 } else { 63 };
    number::parse_i64(digits)
        .filter(|bits| (1..=widest).contains(bits))
        .map(|bits| (signed, bits as u32))
        .ok_or(Error::line(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
             supported but i64 is.",
        ))
}

fn read(ctx: &mut DataCtx<'_, '_>, steps: &[Step]) -> Result<(), Error> {
    let results: Results = match ctx.db.read(&ctx.args[1]) {
        None => steps.iter().map(|_| Some(0)).collect(),
        Some(entry) => {
            let entry = of_string(entry)?;
            let string = entry.string();
            let value = |step: &Step| {
                let (field, place) = step.field.within();
                let place = place.start.min(string.len())..place.end.min(string.len());
                Some(field.get(&string.slice(place)))
            };
            steps.iter().map(value).collect()
        }
    };
    reply(ctx, &results);
    Ok(())
}

fn write(ctx: &mut DataCtx<'_, '_>, steps: &[Step], len: usize) -> Result<(), Error> {
    let mut written = 0;
    let mut differing = 0;
    let edited = edit_padded(ctx, len, |string| {
        let mut run = |step: &Step, field: Field, bytes: &mut [u8]| {
            let old = field.get(bytes);
            let (new, result) = match step.action {
                Action::Get => return Some(old),
                Action::Set(value, rule) => (field.add(value, 0, rule)?, old),
                Action::Add(by, rule) => field.add(old, by, rule).map(|new| (new, new))?,
            };
            field.set(bytes, new);
            written += 1;
            differing += u64::from(old != new);
            Some(result)
        };
        let step = |step: &Step| {
            let (field, place) = step.field.within();
            string.edit(place, |bytes| run(step, field, bytes))
        };
        steps.iter().map(step).collect::<Results>()
    })?;
    // A string that grew counts every write as a change, whatever was written.
    let grew = edited.old_len != Some(edited.len);
    let changes = if grew { written } else { differing };
    if changes > 0 {
        ctx.db.changed_by(&ctx.args[1], event::ON_SETBIT, changes);
    }
    reply(ctx, &edited.result);
    Ok(())
}

fn reply(ctx: &mut DataCtx<'_, '_>, results: &[Option<i64>]) {
    ctx.out.array(results.len());
    for result in results {
        match result {
            Some(value) => ctx.out.int(*value),
            None => ctx.out.null(),
        }
    }
}
