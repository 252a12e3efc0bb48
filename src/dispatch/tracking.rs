//! Copies that clients keep of keys (CLIENT TRACKING): which are entered, and who is told when they are old.
//!
//! What a command has read is entered under the locks under which it read it, and its reply is in the client's
//! output by then. Word of a change goes to the client's mailbox: so it never comes before the reply that it
//! belongs to, and no change behind that reply is missed. A client that keeps copies takes the long way, on
//! which it gets its mail before and after each command; others pay nothing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::command::Flags;
use super::context::Shared;
use super::error::Error;
use super::execute::Invocation;
use super::keys;
use crate::client::registry::{Handle, flag};
use crate::client::session::{Replies, Session};
use crate::client::tracking::{Changes, Tracking};
use crate::keyspace::outbox::Outgoing;
use crate::keyspace::shards::{Keyspace, LockSet, SHARDS};
use crate::keyspace::tracked::Stale;
use crate::resp::write::Output;

/// What is told in RESP2, and where.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// How many keys are forgotten at once, at most, when there are too many.
const FORGOTTEN_AT_ONCE: usize = 100;

/// Enters what a command has read, under the locks under which it read it.
#[cold]
pub(super) fn remember(
    keyspace: &Keyspace,
    session: &Session,
    invocation: Invocation<'_>,
    locks: &mut LockSet<'_>,
) {
    let Invocation { known, args, .. } = invocation;
    let reads = known.flags.has(Flags::READONLY) && !known.flags.has(Flags::PUBSUB);
    if !reads || !session.tracking.as_ref().is_some_and(|t| t.remembers()) {
        return;
    }
    let client = session.handle.id;
    let mut track = |index: usize| {
        let key = &args[index];
        let shard = Keyspace::shard_of(keyspace.hash(key));
        if locks.holds(shard) {
            locks.shard(shard).track(key, client);
        }
    };
    match known.key {
        0 => {
            let found = keys::told(known.row, args);
            found.iter().for_each(|(index, _)| track(*index));
        }
        key => track(key),
    }
}

/// Before a command of a client that keeps copies: the keys that are too many by now are forgotten.
#[cold]
pub(super) fn begin_command(shared: &Shared, session: &Session, out: &mut Output, max_keys: usize) {
    // While a script holds shards for long, nobody waits for one.
    if !shared.keyspace.is_any_overdue() {
        forget_surplus(shared, max_keys, FORGOTTEN_AT_ONCE);
    }
    take_mail(session, out);
}

/// Before and after such a command: what the client was told goes to its output.
pub(super) fn take_mail(session: &Session, out: &mut Output) {
    // While it is silenced, its worker does that at the end of the turn.
    if session.replies == Replies::On {
        for message in session.handle.mailbox.take() {
            out.append_bytes(message);
        }
    }
}

/// Forgets keys while there are more than `max_keys` (0: any number), `most` at most: whoever keeps copies
/// of them is told as if they had changed.
pub fn forget_surplus(shared: &Shared, max_keys: usize, most: usize) {
    let tracked = &shared.keyspace.tracked;
    if max_keys == 0 || tracked.keys() <= max_keys {
        return;
    }
    for _ in 0..most {
        let Some(shard) = tracked.random_shard().filter(|_| tracked.keys() > max_keys) else {
            break;
        };
        // Of a claimed shard, later.
        if let Some(mut guard) = shared.keyspace.lock_unclaimed(shard) {
            guard.forget_random_tracked();
        }
    }
    super::events::deliver(shared);
}

/// Has a session keep copies from now on, or otherwise than before. `held` are all shards, if any are.
///
/// # Errors
/// A shard is claimed that has to know; nothing is done.
pub fn begin(
    shared: &Shared,
    session: &mut Session,
    held: Option<&mut LockSet<'_>>,
    (tracking, redirect): (Tracking, u64),
) -> Result<(), Error> {
    let live = &session.handle.live;
    let mut set = flag::TRACKING;
    if tracking.noloop {
        set |= flag::TRACKING_NOLOOP;
    }
    if tracking.broadcast {
        set |= flag::TRACKING_BCAST;
        for prefix in &tracking.prefixes {
            shared.prefixes.add(prefix, session.handle.id);
        }
        // Whoever was first may not have told all shards yet.
        if !follow_prefixes(shared, held) {
            for prefix in &tracking.prefixes {
                shared.prefixes.remove(prefix, session.handle.id);
            }
            return Err(Error::Later);
        }
    }
    live.redirect.store(redirect, Relaxed);
    live.flags.fetch_and(!flag::OF_TRACKING | set, Relaxed);
    live.flags.fetch_or(set, Relaxed);
    if session.tracking.replace(Box::new(tracking)).is_none() {
        shared.keyspace.tracked.clients.fetch_add(1, Relaxed);
        session.identity.look_after(true);
    }
    Ok(())
}

/// Ends what [`begin`] began. What is known of the client's copies stays until the keys change.
pub fn end(shared: &Shared, session: &mut Session, held: Option<&mut LockSet<'_>>) {
    let Some(tracking) = session.tracking.take() else {
        return;
    };
    session.identity.look_after(false);
    let live = &session.handle.live;
    live.flags.fetch_and(!flag::OF_TRACKING, Relaxed);
    shared.keyspace.tracked.clients.fetch_sub(1, Relaxed);
    for prefix in &tracking.prefixes {
        shared.prefixes.remove(prefix, session.handle.id);
    }
    if tracking.broadcast && shared.prefixes.is_empty() {
        leave_prefixes(shared, held);
    }
}

/// Tells each shard whether anybody follows prefixes. Looked at under each lock, so that it is true at the end,
/// whoever else says so meanwhile. False when one is claimed: not all were told then.
fn follow_prefixes(shared: &Shared, mut held: Option<&mut LockSet<'_>>) -> bool {
    for shard in 0..SHARDS {
        match &mut held {
            Some(held) => held
                .shard(shard)
                .set_broadcasts(!shared.prefixes.is_empty()),
            None => {
                let Some(mut guard) = shared.keyspace.lock_unclaimed(shard) else {
                    return false;
                };
                guard.set_broadcasts(!shared.prefixes.is_empty());
            }
        }
    }
    true
}

/// As [`follow_prefixes`], for a client that goes: it waits for no shard that a script holds which runs for long,
/// perhaps on this very stack. There a change is then told to nobody.
fn leave_prefixes(shared: &Shared, held: Option<&mut LockSet<'_>>) {
    if held.is_some() {
        follow_prefixes(shared, held);
        return;
    }
    for shard in 0..SHARDS {
        if let Ok(mut guard) = shared.keyspace.lock_in_time(shard) {
            guard.set_broadcasts(!shared.prefixes.is_empty());
        }
    }
}

/// Tells of changes, each of which is [`Outgoing::Stale`] or [`Outgoing::AllStale`]; what concerns prefixes
/// goes to each follower in one message. Called without shard locks.
pub(super) fn tell(shared: &Shared, changes: &[Outgoing]) {
    let mut followed = Changes::new();
    for change in changes {
        match change {
            Outgoing::Stale(stale) => {
                tell_readers(shared, stale);
                if stale.broadcasts {
                    followed.insert(&stale.key, stale.cause);
                }
            }
            Outgoing::AllStale => tell_all(shared),
            Outgoing::Notice(_) | Outgoing::Message(_) => {}
        }
    }
    if !followed.is_empty() {
        shared.prefixes.each(&followed, |clients, keys| {
            tell_followers(shared, clients, keys);
        });
    }
}

/// What clients are told: of these keys, or of all. Encoded once for all of them.
struct Word<'a> {
    keys: Option<&'a [&'a [u8]]>,
    push: Option<Bytes>,
    message: Option<Bytes>,
}

impl<'a> Word<'a> {
    fn of(keys: Option<&'a [&'a [u8]]>) -> Self {
        Self {
            keys,
            push: None,
            message: None,
        }
    }

    fn push(&mut self) -> Bytes {
        let made = self.push.get_or_insert_with(|| push(self.keys));
        made.clone()
    }

    fn message(&mut self) -> Bytes {
        let made = self.message.get_or_insert_with(|| message(self.keys));
        made.clone()
    }
}

fn tell_readers(shared: &Shared, stale: &Stale) {
    let keys = [&stale.key[..]];
    let mut word = Word::of(Some(&keys));
    for id in &stale.trackers {
        let Some(client) = shared.clients.get(*id) else {
            continue;
        };
        let flags = client.live.flags.load(Relaxed);
        // Who follows prefixes now may have been entered before that.
        let is_told = flags & flag::TRACKING != 0 && flags & flag::TRACKING_BCAST == 0;
        if is_told && *id != stale.cause {
            send(shared, &client, &mut word);
        }
    }
}

fn tell_followers(shared: &Shared, clients: &BTreeSet<u64>, keys: &Changes<'_>) {
    let all: Vec<&[u8]> = keys.keys().copied().collect();
    let mut word = Word::of(Some(&all));
    for id in clients {
        let Some(client) = shared.clients.get(*id) else {
            continue;
        };
        if !keys.values().any(|cause| cause == id) {
            send(shared, &client, &mut word);
            continue;
        }
        // What it did itself it does not want to hear.
        let others = keys.iter().filter(|(_, cause)| *cause != id);
        let others: Vec<&[u8]> = others.map(|(key, _)| *key).collect();
        if !others.is_empty() {
            send(shared, &client, &mut Word::of(Some(&others)));
        }
    }
}

fn tell_all(shared: &Shared) {
    let mut word = Word::of(None);
    for client in shared.clients.all() {
        if client.live.flags.load(Relaxed) & flag::TRACKING != 0 {
            send(shared, &client, &mut word);
        }
    }
}

/// Tells a client, or who is to be told in its place.
fn send(shared: &Shared, client: &Handle, word: &mut Word<'_>) {
    let redirect = client.live.redirect.load(Relaxed);
    let resp3 = |client: &Handle| client.live.protocol.load(Relaxed) == 3;
    if redirect == 0 {
        // In RESP2 there is no place for it among replies.
        if resp3(client) {
            client.send(word.push());
        }
        return;
    }
    match shared.clients.get(redirect) {
        None => {
            client.live.flags.fetch_or(flag::TRACKING_BROKEN, Relaxed);
            if resp3(client) {
                client.send(broken(redirect));
            }
        }
        Some(target) if resp3(&target) => target.send(word.push()),
        Some(target) if target.live.flags.load(Relaxed) & flag::PUBSUB != 0 => {
            target.send(word.message());
        }
        Some(_) => {}
    }
}

fn push(keys: Option<&[&[u8]]>) -> Bytes {
    let mut out = Output::new();
    out.set_protocol(crate::resp::write::Protocol::Resp3);
    out.push(2);
    out.bulk(b"invalidate");
    names(&mut out, keys);
    out.to_vec().into()
}

fn message(keys: Option<&[&[u8]]>) -> Bytes {
    let mut out = Output::new();
    out.array(3);
    out.bulk(b"message");
    out.bulk(CHANNEL);
    names(&mut out, keys);
    out.to_vec().into()
}

fn names(out: &mut Output, keys: Option<&[&[u8]]>) {
    let Some(keys) = keys else {
        return out.null();
    };
    out.array(keys.len());
    keys.iter().for_each(|key| out.bulk(key));
}

fn broken(redirect: u64) -> Bytes {
    let mut out = Output::new();
    out.set_protocol(crate::resp::write::Protocol::Resp3);
    out.push(2);
    out.bulk(b"tracking-redir-broken");
    out.int(redirect as i64);
    out.to_vec().into()
}
