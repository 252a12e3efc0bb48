//! What the rows of many families say: the usual flags, and the usual ways to name one key.

use crate::dispatch::command::{Command, Flags, Handler, KeyFlags, KeySpec, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;

/// Reads keys.
pub const READ: Flags = Flags::READONLY;
/// Reads keys, in constant time or nearly so.
pub const READ_FAST: Flags = READ.or(Flags::FAST);
/// Changes keys and needs no memory for that.
pub const WRITE: Flags = Flags::WRITE;
/// The same, in constant time or nearly so.
pub const WRITE_FAST: Flags = WRITE.or(Flags::FAST);
/// Changes keys and may need memory: refused when that is short.
pub const GROW: Flags = WRITE.or(Flags::DENYOOM);
/// The same, in constant time or nearly so.
pub const GROW_FAST: Flags = GROW.or(Flags::FAST);

/// The first argument is a key whose value is read.
pub const READ_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::READ)];
/// The first argument is a key whose value is read and changed.
pub const READ_UPDATE_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::READ_UPDATE)];

/// What runs a command that reaches the session and the server.
pub type OnServer = fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>;

/// The row of a command, or subcommand, that reaches the session and the server and names no keys.
pub const fn on_server(name: &'static str, arity: i32, flags: Flags, run: OnServer) -> Command {
    Command {
        name,
        arity,
        flags,
        handler: Handler::Server(run),
        ..ROW
    }
}
