//! CLIENT: what clients are connected, and what one of them or all of them shall do.
//!
//! Other clients are seen through the registry, as their workers published them at the end of
//! their last turn; the caller itself is published before it is shown.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::client_tracking;
use crate::acl::{User, Users};
use crate::base::number::parse_i64;
use crate::client::registry::{Class, Handle};
use crate::client::session::{Replies, Session};
use crate::dispatch::args::Args;
use crate::dispatch::blocking;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW, Scope};
use crate::dispatch::context::{ServerCtx, Shared, Worker};
use crate::dispatch::error::Error;
use crate::dispatch::job::Job;
use crate::dispatch::options::Cursor;
use crate::dispatch::pause::{Paused, Purpose};
use crate::dispatch::turns::UnderWay;
use crate::replication::primary;
use crate::resp::write::Output;

/// How long a pause that waits lets its worker rest.
const LOOK: Duration = Duration::from_micros(50);

const COMMON: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE);
const FOR_ADMINS: Flags = COMMON.or(Flags::ADMIN);

const fn sub(
    name: &'static str,
    arity: i32,
    flags: Flags,
    run: fn(&mut ServerCtx<'_, '_>) -> Result<(), Error>,
) -> Command {
    Command {
        name,
        arity,
        flags,
        acl: Acl::CONNECTION,
        handler: Handler::Server(run),
        ..ROW
    }
}

/// The row.
pub const ROWS: &[Command] = &[Command {
    name: "client",
    arity: -2,
    subcommands: &[
        sub("caching", 3, COMMON, client_tracking::caching),
        sub("getname", 2, COMMON, getname),
        sub("getredir", 2, COMMON, client_tracking::getredir),
        sub("help", 2, Flags::LOADING.or(Flags::STALE), help),
        sub("id", 2, COMMON, id),
        Command {
            tips: &["nondeterministic_output"],
            ..sub("info", 2, COMMON, info)
        },
        sub("kill", -3, FOR_ADMINS, kill),
        Command {
            tips: &["nondeterministic_output"],
            ..sub("list", -2, FOR_ADMINS, list)
        },
        sub("no-evict", 3, FOR_ADMINS, no_evict),
        sub("no-touch", 3, COMMON, no_touch),
        sub("pause", -3, FOR_ADMINS, pause),
        sub("reply", 3, COMMON, reply),
        sub("setinfo", 4, COMMON, setinfo),
        sub("setname", 3, COMMON, setname),
        Command {
            // Who follows prefixes is known to each shard.
            scope: Scope::All,
            ..sub("tracking", -3, COMMON, client_tracking::tracking)
        },
        sub("trackinginfo", 2, COMMON, client_tracking::trackinginfo),
        sub("unblock", -3, FOR_ADMINS, unblock),
        sub("unpause", 2, FOR_ADMINS, unpause),
    ],
    ..ROW
}];

/// `CLIENT ID`
fn id(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.int(ctx.session.handle.id as i64);
    Ok(())
}

/// `CLIENT GETNAME`
fn getname(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let name = ctx.session.handle.name.read();
    if name.is_empty() {
        ctx.out.null();
    } else {
        ctx.out.bulk(&name);
    }
    Ok(())
}

/// `CLIENT SETNAME name`
fn setname(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    set_name(ctx.session, &ctx.args[2])?;
    ctx.out.ok();
    Ok(())
}

/// Names a client. What would break the lines of CLIENT LIST is refused; an empty name is none.
pub fn set_name(session: &Session, name: &[u8]) -> Result<(), Error> {
    if !is_plain(name) {
        return Err(Error::line(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    *session.handle.name.write() = name.into();
    Ok(())
}

fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// `CLIENT SETINFO LIB-NAME name` and `CLIENT SETINFO LIB-VER version`
fn setinfo(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (field, is_name) = match (ctx.args.is(2, "lib-name"), ctx.args.is(2, "lib-ver")) {
        (true, _) => ("lib-name", true),
        (_, true) => ("lib-ver", false),
        _ => return Err(Error::quoting("Unrecognized option '", &ctx.args[2], "'")),
    };
    let value = &ctx.args[3];
    if !is_plain(value) {
        return Err(Error::err(format_args!(
            "{field} cannot contain spaces, newlines or special characters."
        )));
    }
    let mut library = ctx.session.handle.library.write();
    if is_name {
        library.0 = value.into();
    } else {
        library.1 = value.into();
    }
    ctx.out.ok();
    Ok(())
}

/// Brings what is shown of the caller up to date.
fn publish_caller(ctx: &mut ServerCtx<'_, '_>) {
    ctx.session.publish();
    let bytes = ctx.args.all().iter().map(|arg| arg.len()).sum();
    let live = &ctx.session.handle.live;
    live.argv_memory.store(bytes, Relaxed);
}

/// `CLIENT INFO`
fn info(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    publish_caller(ctx);
    let mut text = Vec::new();
    describe_into(ctx, &ctx.session.handle, &mut text);
    ctx.out.verbatim("txt", text);
    Ok(())
}

fn describe_into(ctx: &ServerCtx<'_, '_>, client: &Handle, text: &mut Vec<u8>) {
    let commands = &ctx.shared.commands;
    let name = |id: u32| commands.get(id as usize).full_name.clone();
    text.extend_from_slice(client.describe(ctx.worker.now.ms, &name).as_bytes());
    text.push(b'\n');
}

/// `CLIENT LIST [TYPE normal|master|replica|pubsub] [ID client-id ...]`
fn list(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    publish_caller(ctx);
    let args = ctx.args;
    let clients: Vec<Arc<Handle>> = if args.len() == 2 {
        ctx.shared.clients.all()
    } else if args.len() == 4 && args.is(2, "type") {
        let class = class_of(&args[3])?;
        let mut all = ctx.shared.clients.all();
        all.retain(|client| client.class() == class);
        all
    } else if args.len() > 3 && args.is(2, "id") {
        let mut found = Vec::new();
        for i in 3..args.len() {
            let id = args.int_or(i, "ERR Invalid client ID")?;
            found.extend(
                u64::try_from(id)
                    .ok()
                    .and_then(|id| ctx.shared.clients.get(id)),
            );
        }
        found
    } else {
        return Err(Error::Syntax);
    };
    let mut text = Vec::new();
    for client in &clients {
        describe_into(ctx, client, &mut text);
    }
    ctx.out.verbatim("txt", text);
    Ok(())
}

fn class_of(name: &[u8]) -> Result<Class, Error> {
    match &name.to_ascii_lowercase()[..] {
        b"normal" => Ok(Class::Normal),
        b"slave" | b"replica" => Ok(Class::Replica),
        b"pubsub" => Ok(Class::PubSub),
        b"master" => Ok(Class::Primary),
        _ => Err(Error::quoting("Unknown client type '", name, "'")),
    }
}

/// Which clients CLIENT KILL ends.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    class: Option<Class>,
    user: Option<Arc<User>>,
    skip_caller: bool,
}

impl<'a> Filter<'a> {
    fn parse(users: &Users, args: Args<'a>) -> Result<Self, Error> {
        let mut filter = Filter {
            skip_caller: true,
            ..Filter::default()
        };
        let mut options = Cursor::new(args, 2);
        while options.step() {
            match () {
                () if options.is("id") => filter.id = Some(client_id(options.value()?)?),
                () if options.is("type") => filter.class = Some(class_of(options.value()?)?),
                () if options.is("addr") => filter.address = Some(options.value()?),
                () if options.is("laddr") => filter.local_address = Some(options.value()?),
                () if options.is("user") => {
                    let name = options.value()?;
                    let user = users.get(name);
                    let user = user.ok_or_else(|| Error::quoting("No such user '", name, "'"))?;
                    filter.user = Some(user);
                }
                () if options.is("skipme") => {
                    filter.skip_caller = options.one_of(&[("yes", true), ("no", false)])?;
                }
                () => return Err(options.refuse()),
            }
        }
        Ok(filter)
    }

    fn picks(&self, client: &Handle, caller: u64) -> bool {
        self.id.is_none_or(|id| id == client.id)
            && self.address.is_none_or(|a| a == client.address.as_bytes())
            && self
                .local_address
                .is_none_or(|a| a == client.local_address.as_bytes())
            && self.class.is_none_or(|class| class == client.class())
            && self.user.as_ref().is_none_or(|user| client.is_of(user))
            && !(self.skip_caller && client.id == caller)
    }
}

fn client_id(text: &[u8]) -> Result<u64, Error> {
    match parse_i64(text).map(u64::try_from) {
        Some(Ok(id)) if id > 0 => Ok(id),
        _ => Err(Error::line("ERR client-id should be greater than 0")),
    }
}

/// `CLIENT KILL ip:port` and `CLIENT KILL option value [option value ...]`
fn kill(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.session.publish();
    let by_address = ctx.args.len() == 3;
    let filter = if by_address {
        Filter {
            address: Some(&ctx.args[2]),
            ..Filter::default()
        }
    } else {
        Filter::parse(&ctx.shared.users, ctx.args)?
    };
    let caller = ctx.session.handle.id;
    let mut killed = 0;
    for client in ctx.shared.clients.all() {
        if !filter.picks(&client, caller) {
            continue;
        }
        killed += 1;
        if client.id == caller {
            ctx.session.close_after_reply = true;
        } else {
            // Gone for everybody from now on; its worker closes the socket.
            ctx.shared.clients.remove(client.id);
            client.kill();
        }
    }
    match (by_address, killed) {
        (true, 0) => return Err(Error::line("ERR No such client")),
        (true, _) => ctx.out.ok(),
        (false, _) => ctx.out.int(killed),
    }
    Ok(())
}

/// `CLIENT PAUSE timeout [WRITE | ALL]`
fn pause(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let kind = match ctx.args.len() {
        3 => Paused::All,
        4 if ctx.args.is(3, "all") => Paused::All,
        4 if ctx.args.is(3, "write") => Paused::Writes,
        4 => return Err(Error::line("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => return Err(Error::subcommand(ctx.args.all())),
    };
    let timeout = ctx
        .args
        .int_or(2, "ERR timeout is not an integer or out of range")?;
    if timeout < 0 {
        return Err(Error::line("ERR timeout is negative"));
    }
    if timeout > 0 {
        let until = crate::base::clock::unix_ms().saturating_add(timeout);
        ctx.shared.pause.begin(Purpose::Command, until, kind);
        ctx.worker.follow_pause(ctx.shared);
        // Nobody waits within a transaction.
        if ctx.held.is_none() && ctx.session.replies == Replies::On {
            let turns = ctx.shared.turns.under_way();
            ctx.worker.job = Some(Box::new(UntilQuiet(turns)));
            return Ok(());
        }
    }
    ctx.out.ok();
    Ok(())
}

/// A pause is answered when the turns are over that began before it: from then on nothing is written.
struct UntilQuiet(UnderWay);

impl Job for UntilQuiet {
    fn step(&mut self, shared: &Shared, _: &mut Worker, _: &Session) -> bool {
        let is_quiet = shared.turns.have_ended(&self.0);
        if !is_quiet {
            // Mostly microseconds, but a script may run for seconds.
            std::thread::sleep(LOOK);
        }
        is_quiet
    }

    fn reply(&mut self, out: &mut Output) {
        out.ok();
    }
}

/// `CLIENT UNPAUSE`
fn unpause(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.shared.pause.end(Purpose::Command);
    primary::ask_what_is_owed(ctx.shared);
    ctx.worker.follow_pause(ctx.shared);
    ctx.out.ok();
    Ok(())
}

/// `CLIENT REPLY ON|OFF|SKIP`
fn reply(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match &ctx.args[2].to_ascii_lowercase()[..] {
        b"on" => {
            ctx.session.replies = Replies::On;
            ctx.out.unmute();
            ctx.out.ok();
        }
        b"off" => ctx.session.replies = Replies::Off,
        b"skip" if ctx.session.replies == Replies::Off => {}
        b"skip" => ctx.session.replies = Replies::SkipNext,
        _ => return Err(Error::Syntax),
    }
    Ok(())
}

/// `on` or `off` as third argument.
fn switch(ctx: &ServerCtx<'_, '_>) -> Result<bool, Error> {
    match (ctx.args.is(2, "on"), ctx.args.is(2, "off")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Error::Syntax),
    }
}

/// `CLIENT NO-EVICT ON|OFF`
fn no_evict(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.session.no_evict = switch(ctx)?;
    ctx.out.ok();
    Ok(())
}

/// `CLIENT NO-TOUCH ON|OFF`
fn no_touch(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.session.no_touch = switch(ctx)?;
    ctx.out.ok();
    Ok(())
}

/// `CLIENT UNBLOCK client-id [TIMEOUT | ERROR]`
fn unblock(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match ctx.args.len() {
        3 => {}
        4 if ctx.args.is(3, "timeout") || ctx.args.is(3, "error") => {}
        4 => {
            return Err(Error::line(
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
        _ => return Err(Error::subcommand(ctx.args.all())),
    }
    let id = ctx.args.int(2)?;
    let ended =
        u64::try_from(id).is_ok_and(|id| blocking::unblock(ctx, id, ctx.args.is(3, "error")));
    ctx.out.int(i64::from(ended));
    Ok(())
}

/// `CLIENT HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    super::help::reply(
        ctx,
        &[
            "CACHING (YES|NO)",
            "    Say whether the keys of the next command are tracked (OPTIN, OPTOUT).",
            "GETREDIR",
            "    Show which client gets the invalidations of this one.",
            "GETNAME",
            "    Show the name of this connection.",
            "ID",
            "    Show the ID of this connection.",
            "INFO",
            "    Describe this connection.",
            "KILL <ip:port>",
            "    Close the connection from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Close all connections to which every option applies:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      They come from this address",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      They came to this local address",
            "    * ID <client-id>",
            "      They have this ID.",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      They are of this type.",
            "    * USER <username>",
            "      They authenticated as this user.",
            "    * SKIPME (YES|NO)",
            "      Spare the calling connection (default: yes).",
            "LIST [options ...]",
            "    Describe connections. Options:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Only those of this type.",
            "    * ID <client-id> [<client-id> ...]",
            "      Only those with these IDs.",
            "UNPAUSE",
            "    End a pause.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Let all clients, or those that write, wait for <timeout> milliseconds.",
            "REPLY (ON|OFF|SKIP)",
            "    Switch the replies to this connection.",
            "SETINFO (LIB-NAME|LIB-VER) <value>",
            "    Tell which client library this connection uses.",
            "SETNAME <name>",
            "    Name this connection.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    End the waiting of a blocked client.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
            "         [OPTIN] [OPTOUT] [NOLOOP]",
            "    Switch the tracking of keys for client side caching.",
            "TRACKINGINFO",
            "    Show how this connection tracks keys.",
            "NO-EVICT (ON|OFF)",
            "    Spare this connection when clients take too much memory.",
            "NO-TOUCH (ON|OFF)",
            "    Leave the access times of keys alone in commands of this connection.",
        ],
    );
    Ok(())
}
