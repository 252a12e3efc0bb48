//! DUMP and RESTORE: one value in the format of dump files, as text for another server.

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::access::Access;
use crate::keyspace::event;
use crate::persistence::layouts;
use crate::persistence::rdb::payload;

use super::rows::{GROW, READ_KEY};

const WRITE_KEY: Keys = Keys(&[KeySpec::at(1, KeyFlags::OVERWRITE)]);

/// A row of RESTORE.
const RESTORE: Command = Command {
    arity: -4,
    flags: GROW,
    acl: Acl::KEYSPACE.or(Acl::DANGEROUS),
    keys: WRITE_KEY,
    handler: Handler::Data(restore),
    ..ROW
};

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "dump",
        arity: 2,
        flags: Flags::READONLY,
        acl: Acl::KEYSPACE,
        tips: &["nondeterministic_output"],
        keys: Keys(READ_KEY),
        handler: Handler::Data(dump),
        ..ROW
    },
    Command {
        name: "restore",
        ..RESTORE
    },
    Command {
        name: "restore-asking",
        flags: GROW.or(Flags::ASKING),
        ..RESTORE
    },
];

/// `DUMP key`
fn dump(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    match ctx.db.read(&ctx.args[1]) {
        Some(entry) => {
            let payload = payload::of(&entry, ctx.settings.rdbcompression);
            ctx.out.bulk_shared(payload.into());
        }
        None => ctx.out.null(),
    }
    Ok(())
}

/// The options of RESTORE.
#[derive(Default)]
struct Options {
    replace: bool,
    absolute: bool,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
}

impl Options {
    fn parse(args: Args<'_>) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut words = Cursor::new(args, 4);
        while words.step() {
            match () {
                () if words.is("replace") => options.replace = true,
                () if words.is("absttl") => options.absolute = true,
                () if words.is("idletime") && options.frequency.is_none() => {
                    let seconds = u64::try_from(words.int()?)
                        .map_err(|_| Error::line("ERR Invalid IDLETIME value, must be >= 0"))?;
                    options.idle_seconds = Some(seconds);
                }
                () if words.is("freq") && options.idle_seconds.is_none() => {
                    let frequency = u8::try_from(words.int()?).map_err(|_| {
                        Error::line("ERR Invalid FREQ value, must be >= 0 and <= 255")
                    })?;
                    options.frequency = Some(frequency);
                }
                () => return Err(words.refuse()),
            }
        }
        Ok(options)
    }

    /// The access clock of the new entry.
    fn clock(&self, access: Access) -> u32 {
        access.restored(self.idle_seconds, self.frequency)
    }
}

/// `RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`
fn restore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let options = Options::parse(ctx.args)?;
    let key = &ctx.args[1];
    if !options.replace && ctx.db.write(key).is_some() {
        return Err(Error::line("BUSYKEY Target key name already exists."));
    }
    let ttl = ctx.args.int(2)?;
    if ttl < 0 {
        return Err(Error::line("ERR Invalid TTL value, must be >= 0"));
    }
    if !payload::is_sound(&ctx.args[3]) {
        return Err(Error::line(
            "ERR DUMP payload version or checksum are wrong",
        ));
    }
    let value = payload::value(&ctx.args[3], &layouts::all(ctx.settings)).map_err(|corrupt| {
        tracing::debug!("Internal error in RDB reading offset 0, function at rdb -> {corrupt}");
        Error::line("ERR Bad data format")
    })?;
    let replaced = options.replace && ctx.db.remove_replaced(key);
    let base = if options.absolute { 0 } else { ctx.db.now_ms() };
    let expiry = (ttl > 0).then(|| base.saturating_add(ttl));
    ctx.out.ok();
    if expiry.is_some_and(|at| ctx.db.env().is_past(at)) {
        if replaced {
            ctx.db.changed(key, event::ON_DEL);
            ctx.db.rewrite(&[b"DEL", key]);
        }
        return Ok(());
    }
    let clock = options.clock(ctx.db.env().access);
    ctx.db.insert(key, value.into_entry(key, expiry, clock));
    ctx.db.changed(key, event::ON_RESTORE);
    if let Some(at) = expiry
        && !options.absolute
    {
        let mut digits = itoa::Buffer::new();
        let mut form: Vec<&[u8]> = ctx.args.all().to_vec();
        form[2] = digits.format(at).as_bytes();
        form.push(b"ABSTTL");
        ctx.db.rewrite(&form);
    }
    Ok(())
}
