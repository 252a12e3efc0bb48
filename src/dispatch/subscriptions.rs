//! A session's subscriptions, kept in step with the hub's.

use std::sync::Arc;

use super::context::{ServerCtx, Shared};
use crate::base::crc::key_slot;
use crate::client::session::Session;
use crate::pubsub::{Kind, confirmation};
use crate::resp::write::Output;

type Names = std::collections::BTreeSet<Arc<[u8]>>;

/// A session's subscriptions of one kind.
pub fn of(session: &mut Session, kind: Kind) -> &mut Names {
    match kind {
        Kind::Channel => &mut session.channels,
        Kind::Pattern => &mut session.patterns,
        Kind::Shard => &mut session.shard_channels,
    }
}

/// Number of subscriptions that a confirmation tells: channels and patterns together, shard
/// channels by themselves.
pub fn count(session: &Session, kind: Kind) -> usize {
    match kind {
        Kind::Shard => session.shard_channels.len(),
        _ => session.channels.len() + session.patterns.len(),
    }
}

/// Subscribes; false when the session was subscribed already.
pub fn add(shared: &Shared, session: &mut Session, kind: Kind, name: &[u8]) -> bool {
    let name: Arc<[u8]> = name.into();
    if !of(session, kind).insert(Arc::clone(&name)) {
        return false;
    }
    shared.pubsub.subscribe(kind, &name, &session.handle);
    true
}

/// Ends a subscription; false when there was none.
pub fn remove(shared: &Shared, session: &mut Session, kind: Kind, name: &[u8]) -> bool {
    if !of(session, kind).remove(name) {
        return false;
    }
    shared.pubsub.unsubscribe(kind, name, session.handle.id);
    true
}

/// Slots left this node: subscriptions to their shard channels end, of which their clients hear. Called
/// when the slots are published as another's, by any thread that holds no shard.
pub fn leave_slots(shared: &Shared, left: impl Fn(u16) -> bool) {
    let left = |channel: &[u8]| left(key_slot(channel));
    for (channel, subscribers) in shared.pubsub.take_shard_channels(left) {
        for client in subscribers {
            client.leave_channel(&channel);
        }
    }
}

/// Tells the client that runs a command which of its subscriptions [`leave_slots`] has ended, behind
/// what was published until then.
pub fn end_left(ctx: &mut ServerCtx<'_, '_>) {
    if ctx.session.handle.has_left_channels() {
        ctx.take_mail();
        let mut end = Output::new();
        end.set_protocol(ctx.out.protocol());
        confirm_left(ctx.session, &mut end);
        ctx.push(|out| out.raw(&end.to_vec()));
    }
}

/// As [`end_left`], for a client that runs none and whose mail was taken.
pub fn confirm_left(session: &mut Session, out: &mut Output) {
    for channel in session.handle.take_left_channels() {
        if session.shard_channels.remove(&channel) {
            let rest = count(session, Kind::Shard);
            confirmation(out, Kind::Shard, false, Some(&channel), rest);
        }
    }
}

/// Ends all subscriptions without a word.
pub fn drop_all(shared: &Shared, session: &mut Session) {
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        for name in std::mem::take(of(session, kind)) {
            shared.pubsub.unsubscribe(kind, &name, session.handle.id);
        }
    }
}
