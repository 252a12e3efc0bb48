//! MODULE: there are no modules, and none can be loaded.

use super::help;
use super::rows::on_server as sub;
use crate::dispatch::command::{Acl, Command, Flags, ROW};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;

const ADMIN: Flags = Flags::ADMIN.or(Flags::NOSCRIPT);
/// Only where `enable-module-command` allows it.
const LOADING_CODE: Flags = ADMIN
    .or(Flags::NO_ASYNC_LOADING)
    .or(Flags::PROTECTED)
    .or(Flags::MODULES);

/// The row.
pub const ROWS: &[Command] = &[Command {
    name: "module",
    arity: -2,
    subcommands: &[
        help::row(Acl::NONE, help),
        sub("list", 2, ADMIN, list).tipped(&["nondeterministic_output_order"]),
        sub("load", -3, LOADING_CODE, load),
        sub("loadex", -3, LOADING_CODE, loadex),
        sub("unload", 3, LOADING_CODE, unload),
    ],
    ..ROW
}];

/// `MODULE LIST`
fn list(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.array(0);
    Ok(())
}

const NOT_LOADED: Error =
    Error::line("ERR Error loading the extension. Please check the server logs.");

/// `MODULE LOAD path [arg ...]`
fn load(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let path = String::from_utf8_lossy(&ctx.args[2]);
    tracing::warn!("Module {path} failed to load: modules are not supported");
    Err(NOT_LOADED)
}

/// `MODULE LOADEX path [CONFIG name value ...] [ARGS arg ...]`
fn loadex(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (args, mut i) = (ctx.args, 3);
    while i < args.len() && !args.is(i, "args") {
        if !args.is(i, "config") {
            let word = String::from_utf8_lossy(&args[i]);
            tracing::info!("Syntax Error from arguments to loadex around {word}.");
            return Err(NOT_LOADED);
        }
        if i + 2 >= args.len() {
            tracing::info!("CONFIG specified without name value pair");
            return Err(NOT_LOADED);
        }
        i += 3;
    }
    load(ctx)
}

/// `MODULE UNLOAD name`
fn unload(_: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    Err(Error::line(
        "ERR Error unloading module: no such module with that name",
    ))
}

/// `MODULE HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "LIST",
            "    List the modules that are loaded.",
            "LOAD <path> [<arg> ...]",
            "    Load a module from a file, handing it the arguments.",
            "LOADEX <path> [[CONFIG NAME VALUE] ...] [ARGS ...]",
            "    Load a module from a file, with values of its parameters and arguments.",
            "UNLOAD <name>",
            "    Unload a module.",
        ],
    );
    Ok(())
}
