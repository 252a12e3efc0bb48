//! Access control at work: whether a user may run a request, what is noted when it may not, and what
//! becomes of its clients when it changes.
//!
//! Requests of a user who may do everything do not come here, but for the first one after some user
//! changed ([`Identity::is_free`](crate::client::identity::Identity::is_free)). What is checked are the keys that a command is going to lock.

use std::sync::Arc;

use smallvec::SmallVec;

use super::args::Args;
use super::command::{Acl, Channels, Databases, Flags, KeyFlags, KeySpec, Scope};
use super::context::{ServerCtx, Shared, Worker};
use super::error::Error;
use super::keys::{self, Found};
use super::table::Known;
use crate::acl::log::{Context, Entry, Reason};
use crate::acl::selector::{Access, Selector};
use crate::acl::{Changed, Rules, User};
use crate::base::number;
use crate::client::session::Session;
use crate::pubsub::Kind;

/// Why a user may not run a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What is not allowed.
    pub reason: Reason,
    /// The argument that is, if it is a key or a channel.
    pub at: usize,
}

impl Denial {
    /// The error of a request that is not run.
    pub fn error(self, known: &Known) -> Error {
        let what = match self.reason {
            Reason::Command | Reason::Auth => {
                let name = &known.full_name;
                let text =
                    format!("NOPERM this user has no permissions to run the '{name}' command");
                return Error::Line(text.into());
            }
            Reason::Database => "NOPERM No permissions to access database",
            Reason::Key => {
                "NOPERM this user has no permissions to access one of the keys used as arguments"
            }
            Reason::Channel => {
                "NOPERM this user has no permissions to access one of the channels used as arguments"
            }
        };
        Error::line(what)
    }

    /// The error of a queued request that was allowed when it was queued.
    pub fn error_at_exec(self) -> Error {
        let reason = match self.reason {
            Reason::Command | Reason::Auth => "no permission to execute the command or subcommand",
            Reason::Database => "no permission to access database",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => {
                "no permission to access one of the channels used as arguments to the command"
            }
        };
        let before = "NOPERM ACLs rules changed between the moment the transaction was accumulated and \
                      the EXEC call. This command is no longer allowed for the following reason: ";
        Error::Line(format!("{before}{reason}").into())
    }

    /// What a script is told of a command of its own.
    pub fn for_script(self) -> &'static str {
        match self.reason {
            Reason::Command => "can't run this command or subcommand",
            Reason::Key => {
                "can't access at least one of the keys mentioned in the command arguments"
            }
            Reason::Channel => "can't publish to the channel mentioned in the command",
            Reason::Database => "No permissions to access database",
            Reason::Auth => "lacking the permissions for the command",
        }
    }

    /// Greater for what Redis tells rather, when no selector allows all.
    fn weight(self) -> (u8, usize) {
        let reason = match self.reason {
            Reason::Database => 0,
            Reason::Command => 1,
            Reason::Key => 2,
            Reason::Auth => 3,
            Reason::Channel => 4,
        };
        (reason, self.at)
    }
}

/// Where a request is run.
#[derive(Clone, Copy)]
pub struct Place {
    /// The selected database; within MULTI, as it will be when the request runs.
    db: usize,
    /// Number of databases.
    databases: i32,
}

impl Place {
    /// That of a session's next request.
    #[inline]
    pub fn of(worker: &Worker, session: &Session) -> Self {
        let queued = session.multi.as_ref().and_then(|multi| multi.db);
        Self {
            db: queued.unwrap_or(session.db),
            databases: worker.settings.databases,
        }
    }
}

/// Checks a request against what its client's user may do now. Whoever runs it afterwards sets
/// `reads_any_key` of the worker's environment back to true.
#[inline]
pub fn check(
    worker: &mut Worker,
    session: &mut Session,
    known: &Known,
    args: Args<'_>,
) -> Result<(), Denial> {
    let version = worker.users_version;
    if session.identity.is_free(version) {
        return Ok(());
    }
    let place = Place::of(worker, session);
    let Some(rules) = session.identity.rules(version) else {
        return Ok(());
    };
    check_rules(rules, known, args, place)?;
    if let Scope::AllIf(_) = known.row.scope {
        worker.env.reads_any_key = reads_any_key(rules, known, args, place);
    }
    Ok(())
}

/// True when it takes no more than a look at rules to know that a request is allowed.
#[inline(never)]
pub fn allows(worker: &Worker, session: &mut Session, known: &Known, args: Args<'_>) -> bool {
    let is_looked_after = session.identity.is_looked_after;
    let owes_password = session.identity.owes_password();
    if is_looked_after || owes_password || matches!(known.row.scope, Scope::AllIf(_)) {
        return false;
    }
    let place = Place::of(worker, session);
    let rules = session.identity.rules(worker.users_version);
    rules.is_none_or(|rules| check_rules(rules, known, args, place).is_ok())
}

/// Checks a request against rules.
pub fn check_rules(
    rules: &Rules,
    known: &Known,
    args: Args<'_>,
    place: Place,
) -> Result<(), Denial> {
    let mut worst = Denial {
        reason: Reason::Database,
        at: 0,
    };
    let mut keys = None;
    for selector in rules.selectors() {
        let request = (known, args, place);
        let Err(denial) = check_selector(selector, request, &mut keys) else {
            return Ok(());
        };
        if denial.weight() > worst.weight() {
            worst = denial;
        }
    }
    Err(worst)
}

/// The keys of a request, once they are looked for.
type LazyKeys = Option<SmallVec<[Found; 4]>>;

fn check_selector(
    selector: &Selector,
    (known, args, place): (&Known, Args<'_>, Place),
    keys: &mut LazyKeys,
) -> Result<(), Denial> {
    let denied = |reason, at| Err(Denial { reason, at });
    if !selector.allows_all_databases() {
        check_databases(selector, known, args, place)?;
    }
    let first = args.get(1);
    let is_open = known.flags.has(Flags::NO_AUTH);
    if !is_open && !selector.allows_command(known.id, first) {
        return denied(Reason::Command, 0);
    }
    if !selector.allows_all_keys() && !known.row.keys.0.is_empty() {
        let keys = keys.get_or_insert_with(|| keys_of(known, args));
        for (at, flags) in keys {
            // A script may ask about a command with too few arguments.
            let key = args.get(*at);
            if key.is_some_and(|key| !selector.allows_key(key, access_of(*flags))) {
                return denied(Reason::Key, *at);
            }
        }
    }
    if known.row.channels != Channels::None && !selector.allows_all_channels() {
        let (names, is_pattern) = match known.row.channels {
            Channels::None => (0, false),
            Channels::First => (1, false),
            Channels::All => (usize::MAX, false),
            Channels::Patterns => (usize::MAX, true),
        };
        for (i, name) in args.rest(1).iter().take(names).enumerate() {
            if !selector.allows_channel(name, is_pattern) {
                return denied(Reason::Channel, i + 1);
            }
        }
    }
    Ok(())
}

/// Checks the databases that a request reaches. What names none that there is fails in its own way.
#[cold]
fn check_databases(
    selector: &Selector,
    known: &Known,
    args: Args<'_>,
    place: Place,
) -> Result<(), Denial> {
    let denied = |at| {
        Err(Denial {
            reason: Reason::Database,
            at,
        })
    };
    let named = |at: usize| {
        let database = args.get(at).and_then(number::parse_i64);
        let database = database.filter(|n| (0..i64::from(place.databases)).contains(n));
        match database {
            Some(database) if !selector.allows_database(database) => denied(at),
            _ => Ok(()),
        }
    };
    let is_key = |spec: &KeySpec| !spec.flags.has(KeyFlags::NOT_KEY);
    let concerns_keys = known.flags.has(Flags::READONLY.or(Flags::WRITE))
        || known.acl.has(Acl::KEYSPACE)
        || known.row.keys.0.iter().any(is_key);
    let selected = || match concerns_keys && !selector.allows_database(place.db as i64) {
        true => denied(0),
        false => Ok(()),
    };
    match known.row.databases {
        Databases::Selected => selected(),
        Databases::AlsoNamed(find) => selected().and_then(|()| find(args).map_or(Ok(()), named)),
        Databases::Two => named(1).and_then(|()| named(2)),
        Databases::Selects => named(1),
        Databases::All => denied(0),
    }
}

/// The keys of a request as its specifications tell, and those that it is going to lock beyond them.
fn keys_of(known: &Known, args: Args<'_>) -> SmallVec<[Found; 4]> {
    let row = known.row;
    if let [spec] = row.keys.0
        && (1..args.len()).contains(&known.key)
    {
        let flags = spec.by_args.map_or(spec.flags, |by_args| by_args(args));
        let is_key = !flags.has(KeyFlags::NOT_KEY);
        return is_key.then_some((known.key, flags)).into_iter().collect();
    }
    let mut found = SmallVec::from_vec(keys::told(row, args));
    let mut locked = keys::collect(row, args);
    locked.retain(|(_, flags)| !flags.has(KeyFlags::NOT_KEY));
    if locked.len() != found.len() {
        found.extend(locked);
    }
    found
}

fn access_of(flags: KeyFlags) -> Access {
    const WRITES: KeyFlags = KeyFlags::INSERT.or(KeyFlags::DELETE).or(KeyFlags::UPDATE);
    let reads = match flags.has(KeyFlags::ACCESS) {
        true => Access::READ,
        false => Access::NONE,
    };
    match flags.has(WRITES) {
        true => reads.or(Access::WRITE),
        false => reads,
    }
}

/// True when one selector allows a request and whatever key it may read.
#[cold]
fn reads_any_key(rules: &Rules, known: &Known, args: Args<'_>, place: Place) -> bool {
    let mut keys = None;
    rules.selectors().iter().any(|selector| {
        check_selector(selector, (known, args, place), &mut keys).is_ok()
            && selector.allows_any_key(Access::READ)
    })
}

/// Where requests of a client are refused.
pub fn context_of(session: &Session) -> Context {
    match session.multi {
        Some(_) => Context::Multi,
        None => Context::TopLevel,
    }
}

/// Takes note of a request that was refused.
#[cold]
pub fn note(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    denial: Denial,
    context: Context,
    (known, args): (&Known, Args<'_>),
) {
    let object = match denial.reason {
        Reason::Command | Reason::Auth => known.full_name.as_bytes(),
        Reason::Key | Reason::Channel | Reason::Database => &args[denial.at],
    };
    let user = session.identity.user().map_or(&b""[..], |user| user.name());
    let told = (denial.reason, context);
    enter(shared, worker, session, told, object, user);
}

/// Takes note of a client that is not the user that it says it is.
#[cold]
pub fn note_failed_login(ctx: &ServerCtx<'_, '_>, user: &[u8]) {
    let context = match ctx.held.is_some() {
        true => Context::Multi,
        false => context_of(ctx.session),
    };
    let told = (Reason::Auth, context);
    enter(
        ctx.shared,
        ctx.worker,
        ctx.session,
        told,
        &ctx.args[0],
        user,
    );
}

fn enter(
    shared: &Shared,
    worker: &Worker,
    session: &Session,
    (reason, context): (Reason, Context),
    object: &[u8],
    user: &[u8],
) {
    session.publish();
    let name = |id: u32| shared.commands.get(id as usize).full_name.clone();
    let now_ms = crate::base::clock::unix_ms();
    let entry = Entry {
        count: 1,
        reason,
        context,
        object: object.into(),
        user: user.into(),
        last_ms: now_ms,
        client: session.handle.describe(now_ms, &name),
    };
    let max_len = worker.settings.acllog_max_len;
    let max_len = usize::try_from(max_len).unwrap_or(usize::MAX);
    shared.users.log.add(entry, max_len);
}

/// Closes the clients of a user that was removed; `caller`, if it is one, when it has its reply.
pub fn close_clients_of(shared: &Shared, user: &Arc<User>, caller: &mut Session) {
    for client in shared.clients.all() {
        if !client.is_of(user) {
            continue;
        }
        if client.id == caller.handle.id {
            caller.become_user(shared.users.default_user(), false);
            caller.identity.authenticated = false;
            caller.close_after_reply = true;
        } else {
            // Gone for everybody from now on; its worker closes the socket.
            shared.clients.remove(client.id);
            client.kill();
        }
    }
}

/// Closes the clients that are subscribed to channels which their user is no longer allowed.
pub fn close_lost_subscribers(shared: &Shared, changed: &Changed, caller: &mut Session) {
    let Changed { user, before, now } = changed;
    if now.keeps_channels_of(before) {
        return;
    }
    let mut lost = Vec::new();
    shared.pubsub.each(|kind, name, client| {
        if client.is_of(user) && !now.allows_channel(name, kind == Kind::Pattern) {
            lost.push(Arc::clone(client));
        }
    });
    for client in lost {
        if client.id == caller.handle.id {
            caller.close_now = true;
        } else {
            shared.clients.remove(client.id);
            client.kill();
        }
    }
}

/// Ends a client whose user lost a channel while it subscribed: who changed the user may have looked for
/// subscribers before this one was among them.
pub fn recheck_subscriptions(shared: &Shared, session: &mut Session) {
    let version = shared.users.version();
    if session.identity.is_current(version) {
        return;
    }
    let Some(rules) = session.identity.rules(version) else {
        return;
    };
    let names = session.channels.iter().chain(&session.shard_channels);
    let mut names = names.map(|name| (name, false));
    let mut patterns = session.patterns.iter().map(|name| (name, true));
    let allowed = |(name, is_pattern): (&Arc<[u8]>, bool)| rules.allows_channel(name, is_pattern);
    if !(names.all(allowed) && patterns.all(allowed)) {
        session.close_now = true;
    }
}
