//! A session's subscriptions, kept in step with the hub's.

use std::sync::Arc;

use super::context::Shared;
use crate::client::session::Session;
use crate::pubsub::Kind;

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

/// Ends all subscriptions without a word.
pub fn drop_all(shared: &Shared, session: &mut Session) {
    for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
        for name in std::mem::take(of(session, kind)) {
            shared.pubsub.unsubscribe(kind, &name, session.handle.id);
        }
    }
}
