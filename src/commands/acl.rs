//! ACL: users, what they may do, and what was refused them.

use std::io::Write;
use std::path::PathBuf;

use super::help;
use super::rows::on_server as sub;
use crate::acl::log::Entry;
use crate::acl::selector::Selector;
use crate::acl::{Categories, file, has_spaces};
use crate::base::clock::unix_ms;
use crate::base::random;
use crate::config::{AclPubsubDefault, strerror};
use crate::dispatch::acl::{self, Denial, Place};
use crate::dispatch::admit;
use crate::dispatch::args::Args;
use crate::dispatch::blocking;
use crate::dispatch::chore::Chore;
use crate::dispatch::command::{Acl, Command, Flags, ROW};
use crate::dispatch::context::{ServerCtx, Shared};
use crate::dispatch::error::{Error, quoted};
use crate::persistence::replacement::Replacement;

const OPEN: Flags = Flags::NOSCRIPT.or(Flags::LOADING).or(Flags::STALE);
const FOR_ADMINS: Flags = OPEN.or(Flags::ADMIN);

/// The row.
pub const ROWS: &[Command] = &[Command {
    name: "acl",
    arity: -2,
    subcommands: &[
        sub("cat", -2, OPEN, cat),
        sub("deluser", -3, FOR_ADMINS, deluser),
        sub("dryrun", -4, FOR_ADMINS, dryrun),
        sub("genpass", -2, OPEN, genpass),
        sub("getuser", 3, FOR_ADMINS, getuser),
        help::row(Acl::NONE, help),
        sub("list", 2, FOR_ADMINS, list),
        sub("load", 2, FOR_ADMINS, load),
        sub("log", -2, FOR_ADMINS, log),
        sub("save", 2, FOR_ADMINS, save),
        Command {
            secrets: Some(secrets),
            ..sub("setuser", -3, FOR_ADMINS, setuser)
        },
        sub("users", 2, FOR_ADMINS, users),
        sub("whoami", 2, OPEN, whoami),
    ],
    ..ROW
}];

/// All that SETUSER says.
fn secrets(args: Args<'_>) -> Vec<usize> {
    (2..args.len()).collect()
}

/// The error of a subcommand that takes fewer arguments, if there are too many.
fn at_most(ctx: &ServerCtx<'_, '_>, len: usize) -> Result<(), Error> {
    match ctx.args.len() <= len {
        true => Ok(()),
        false => Err(Error::subcommand(ctx.args.all())),
    }
}

/// True when new users may use all channels.
fn all_channels(ctx: &ServerCtx<'_, '_>) -> bool {
    ctx.worker.settings.acl_pubsub_default == AclPubsubDefault::Allchannels
}

/// `ACL SETUSER username [rule ...]`
fn setuser(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (name, rules) = (&ctx.args[2], ctx.args.rest(3));
    if has_spaces(name) {
        return Err(Error::line(
            "ERR Usernames can't contain spaces or null characters",
        ));
    }
    let shared = ctx.shared;
    let changed = shared.users.set(name, rules, all_channels(ctx));
    let changed = changed.map_err(|text| Error::Bytes([b"ERR ", &text[..]].concat()))?;
    acl::close_lost_subscribers(shared, &changed, ctx.session);
    ctx.out.ok();
    Ok(())
}

/// `ACL DELUSER username [username ...]`
fn deluser(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let names = ctx.args.rest(2);
    if names.contains(&&b"default"[..]) {
        return Err(Error::line("ERR The 'default' user cannot be removed"));
    }
    let mut removed = 0;
    for user in names
        .iter()
        .filter_map(|name| ctx.shared.users.remove(name))
    {
        acl::close_clients_of(ctx.shared, &user, ctx.session);
        removed += 1;
    }
    ctx.out.int(removed);
    Ok(())
}

/// `ACL GETUSER username`
fn getuser(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let Some(user) = ctx.shared.users.get(&ctx.args[2]) else {
        ctx.out.null();
        return Ok(());
    };
    let rules = user.rules();
    let flags = rules.flags();
    let [root, others @ ..] = rules.selectors() else {
        unreachable!("a user has a selector without parentheses");
    };
    ctx.out.map(6 + usize::from(!root.allows_all_databases()));
    ctx.out.bulk(b"flags");
    ctx.out.set(flags.len());
    flags.iter().for_each(|flag| ctx.out.bulk(flag.as_bytes()));
    ctx.out.bulk(b"passwords");
    ctx.out.array(rules.passwords().len());
    for hash in rules.passwords() {
        ctx.out.bulk(hash.as_bytes());
    }
    describe_selector(ctx, root);
    ctx.out.bulk(b"selectors");
    ctx.out.array(others.len());
    for selector in others {
        ctx.out
            .map(3 + usize::from(!selector.allows_all_databases()));
        describe_selector(ctx, selector);
    }
    Ok(())
}

fn describe_selector(ctx: &mut ServerCtx<'_, '_>, selector: &Selector) {
    let commands = selector.describe_commands(ctx.shared.users.catalog());
    ctx.out.bulk(b"commands");
    ctx.out.bulk(&commands);
    ctx.out.bulk(b"keys");
    ctx.out.bulk(&selector.describe_keys());
    ctx.out.bulk(b"channels");
    ctx.out.bulk(&selector.describe_channels());
    // Only where there is such a rule, so that others show as they always did.
    if let Some(databases) = selector.describe_databases() {
        ctx.out.bulk(b"databases");
        ctx.out.bulk(databases.as_bytes());
    }
}

/// `ACL LIST`
fn list(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let lines = ctx.shared.users.lines();
    ctx.out.array(lines.len());
    lines.iter().for_each(|line| ctx.out.bulk(line));
    Ok(())
}

/// `ACL USERS`
fn users(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let all = ctx.shared.users.all();
    ctx.out.array(all.len());
    all.iter().for_each(|user| ctx.out.bulk(user.name()));
    Ok(())
}

/// `ACL WHOAMI`
fn whoami(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    match ctx.session.identity.user() {
        Some(user) => ctx.out.bulk(user.name()),
        None => ctx.out.null(),
    }
    Ok(())
}

/// `ACL CAT [category]`
fn cat(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    at_most(ctx, 3)?;
    let Some(name) = ctx.args.get(2) else {
        ctx.out.array(Categories::ALL.len());
        for (_, name) in Categories::ALL {
            ctx.out.bulk(name.as_bytes());
        }
        return Ok(());
    };
    let category = Categories::by_name(name)
        .ok_or_else(|| Error::quoting("Unknown category '", quoted(name, 128), "'"))?;
    let all = ctx.shared.users.catalog().all();
    let of_it = all.filter(|(_, entry)| entry.categories.has(category));
    let names: Vec<&str> = of_it.map(|(_, entry)| &entry.name[..]).collect();
    ctx.out.array(names.len());
    names.iter().for_each(|name| ctx.out.bulk(name.as_bytes()));
    Ok(())
}

/// `ACL GENPASS [bits]`
fn genpass(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    const MAX_BITS: i64 = 4096;
    at_most(ctx, 3)?;
    let bits = match ctx.args.get(2) {
        Some(_) => ctx.args.int(2)?,
        None => 256,
    };
    if !(1..=MAX_BITS).contains(&bits) {
        return Err(Error::err(format_args!(
            "ACL GENPASS argument must be the number of bits for the output password, a positive \
             number up to {MAX_BITS}"
        )));
    }
    let digits = random::hex::<{ MAX_BITS as usize / 4 }>();
    ctx.out.bulk(&digits[..(bits as usize).div_ceil(4)]);
    Ok(())
}

/// `ACL LOG [count | RESET]`
fn log(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    at_most(ctx, 3)?;
    let count = match ctx.args.get(2) {
        None => 10,
        Some(_) if ctx.args.is(2, "reset") => {
            ctx.shared.users.log.reset();
            ctx.out.ok();
            return Ok(());
        }
        Some(_) => ctx.args.int(2)?,
    };
    let entries = ctx.shared.users.log.latest(count.max(0) as usize);
    let now_ms = unix_ms();
    ctx.out.array(entries.len());
    for entry in &entries {
        describe_entry(ctx, entry, now_ms);
    }
    Ok(())
}

fn describe_entry(ctx: &mut ServerCtx<'_, '_>, entry: &Entry, now_ms: i64) {
    let out = &mut *ctx.out;
    out.map(7);
    out.bulk(b"count");
    out.int(entry.count as i64);
    out.bulk(b"reason");
    out.bulk(entry.reason.text().as_bytes());
    out.bulk(b"context");
    out.bulk(entry.context.text().as_bytes());
    out.bulk(b"object");
    out.bulk(&entry.object);
    out.bulk(b"username");
    out.bulk(&entry.user);
    out.bulk(b"age-seconds");
    out.double((now_ms - entry.last_ms) as f64 / 1000.0);
    out.bulk(b"client-info");
    out.bulk(entry.client.as_bytes());
}

/// `ACL DRYRUN username command [arg ...]`
fn dryrun(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (shared, name) = (ctx.shared, &ctx.args[2]);
    let user = shared.users.get(name);
    let user = user.ok_or_else(|| Error::quoting("User '", name, "' not found"))?;
    let args = Args::new(ctx.args.rest(3));
    let found = shared.commands.find(&args[0]);
    let named = admit::named(shared, found, args);
    if named.is_none() {
        return Err(Error::quoting("Command '", &args[0], "' not found"));
    }
    let known = admit::resolve(shared, found, args)?;
    let place = Place::of(ctx.worker, ctx.session);
    match acl::check_rules(&user.rules(), known, args, place) {
        Ok(()) => ctx.out.ok(),
        Err(denial) => {
            let text = would_be_denied(denial, name, &known.full_name, args);
            ctx.out.bulk(&text);
        }
    }
    Ok(())
}

fn would_be_denied(denial: Denial, user: &[u8], command: &str, args: Args<'_>) -> Vec<u8> {
    use crate::acl::log::Reason;
    use crate::base::text::before_nul;
    if denial.reason == Reason::Database {
        let middle = b" has no permissions to access database ";
        let database = before_nul(&args[denial.at]);
        return [b"User ", before_nul(user), middle, database].concat();
    }
    let (what, name, end) = match denial.reason {
        Reason::Command | Reason::Auth | Reason::Database => {
            ("run the '", command.as_bytes(), "' command")
        }
        Reason::Key => ("access the '", &args[denial.at], "' key"),
        Reason::Channel => ("access the '", &args[denial.at], "' channel"),
    };
    let mut text = format!("This user has no permissions to {what}").into_bytes();
    text.extend_from_slice(before_nul(name));
    text.extend_from_slice(end.as_bytes());
    text
}

/// The path of the file of users.
fn file_of_users(ctx: &ServerCtx<'_, '_>) -> Result<PathBuf, Error> {
    let path = &ctx.worker.settings.aclfile;
    if path.is_empty() {
        return Err(Error::line(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify \
             users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a \
             Redis configuration file set) in order to store users in the Redis configuration.",
        ));
    }
    Ok(path.as_path().to_owned())
}

/// `ACL LOAD`
fn load(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (shared, path) = (ctx.shared, file_of_users(ctx)?);
    let name = path.display().to_string();
    let text = std::fs::read(&path).map_err(|error| {
        let reason = strerror(&error);
        Error::err(format_args!(
            "Error loading ACLs, opening file '{name}': {reason}"
        ))
    })?;
    let grammar = shared.users.grammar(all_channels(ctx));
    let declared = file::read(grammar, &name, &text)
        .map_err(|errors| Error::Bytes([b"ERR ", &errors[..]].concat()))?;
    let (removed, default) = shared.users.replace(declared);
    for user in &removed {
        acl::close_clients_of(shared, user, ctx.session);
    }
    acl::close_lost_subscribers(shared, &default, ctx.session);
    ctx.out.ok();
    Ok(())
}

/// Writes the file of users, for all who asked when it began.
static SAVE: Chore = Chore {
    name: "acl-save",
    queue: |shared| &shared.chores.acl_save,
    run: |shared| match write_users(shared) {
        Ok(()) => b"+OK\r\n".to_vec(),
        Err(error) => [b"-", &error.text()[..], b"\r\n"].concat(),
    },
};

/// `ACL SAVE`
fn save(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    file_of_users(ctx)?;
    if ctx.held.is_some() {
        // Within a transaction nobody waits, and its reply stands among others.
        write_users(ctx.shared)?;
        ctx.out.ok();
        return Ok(());
    }
    blocking::park_for_chore(ctx, &SAVE);
    Ok(())
}

/// Has the file of users hold them, for good.
fn write_users(shared: &Shared) -> Result<(), Error> {
    let settings = shared.config.load();
    let path = settings.aclfile.as_path();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}-{}", std::process::id(), unix_ms()));
    let written = Replacement::create(temporary.as_ref(), path, false).and_then(|mut file| {
        file.write_all(&shared.users.file_text())?;
        file.commit()
    });
    written.map_err(|error| {
        let reason = strerror(&error);
        tracing::warn!("Writing ACL file for ACL SAVE: {reason}");
        Error::line(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more \
             information",
        )
    })
}

/// `ACL HELP`
fn help(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    help::reply(
        ctx,
        &[
            "CAT [<category>]",
            "    List all commands that belong to <category>, or all command categories",
            "    when no category is specified.",
            "DELUSER <username> [<username> ...]",
            "    Delete a list of users.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Returns whether the user can execute the given command without executing the command.",
            "GETUSER <username>",
            "    Get the user's details.",
            "GENPASS [<bits>]",
            "    Generate a secure 256-bit user password. The optional `bits` argument can",
            "    be used to specify a different size.",
            "LIST",
            "    Show users details in config file format.",
            "LOAD",
            "    Reload users from the ACL file.",
            "LOG [<count> | RESET]",
            "    Show the ACL log entries.",
            "SAVE",
            "    Save the current config to the ACL file.",
            "SETUSER <username> <attribute> [<attribute> ...]",
            "    Create or modify a user with the specified attributes.",
            "USERS",
            "    List all the registered usernames.",
            "WHOAMI",
            "    Return the current connection username.",
        ],
    );
    Ok(())
}
