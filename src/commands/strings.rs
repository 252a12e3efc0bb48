//! String commands.

use crate::dispatch::command::{Acl, Command, Flags, Handler, KeyFlags, KeySpec, Keys, ROW};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::keyspace::db::Ttl;
use crate::keyspace::entry::NewValue;
use crate::keyspace::event;
use crate::types::Type;
use crate::types::string::{SharedBytes, StringRef};

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "get",
        arity: 2,
        flags: Flags::READONLY.or(Flags::FAST),
        keys: Keys(&[KeySpec::at(1, KeyFlags::READ)]),
        acl: Acl::STRING,
        handler: Handler::Data(get),
        ..ROW
    },
    Command {
        name: "set",
        arity: -3,
        flags: Flags::WRITE.or(Flags::DENYOOM),
        keys: Keys(&[KeySpec::at(
            1,
            KeyFlags::RW
                .or(KeyFlags::ACCESS)
                .or(KeyFlags::UPDATE)
                .or(KeyFlags::VARIABLE_FLAGS),
        )
        .note("RW and ACCESS due to the optional `GET` argument")]),
        acl: Acl::STRING,
        handler: Handler::Data(set),
        ..ROW
    },
];

/// `GET key`
fn get(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    match ctx.db.read(&ctx.args[1]) {
        None => ctx.out.null(),
        Some(entry) if entry.kind() != Type::String => return Err(Error::WrongType),
        Some(entry) => match entry.string() {
            StringRef::Int(n) => ctx.out.bulk_int(n),
            StringRef::Inline(bytes) => ctx.out.bulk(bytes),
            StringRef::Shared(bytes) => ctx.out.bulk_shared(SharedBytes::clone(bytes)),
        },
    }
    Ok(())
}

/// `SET key value`
fn set(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let key = &ctx.args[1];
    let value = match ctx.args.shared(2) {
        Some(big) => NewValue::Shared(big),
        None => NewValue::Bytes(&ctx.args[2]),
    };
    ctx.db.put(key, value, Ttl::Clear);
    ctx.db.changed(key, event::ON_SET);
    ctx.out.ok();
    Ok(())
}
