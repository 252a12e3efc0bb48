//! Events of keys on their way to subscribers.

use super::context::Shared;
use super::tracking;
use crate::keyspace::outbox::{Notice, Outgoing};
use crate::pubsub::Nobody;

/// Publishes the events that keys left in the outbox, and what transactions put behind them, and tells of
/// changes those who keep copies.
pub fn deliver(shared: &Shared) {
    shared.keyspace.outbox.deliver(|batch| {
        let mut changes = Vec::new();
        for outgoing in batch {
            match outgoing {
                Outgoing::Notice(notice) => publish(shared, &notice),
                Outgoing::Message(m) if m.to_shard => {
                    let hub = &shared.pubsub;
                    hub.publish_shard(&m.channel, &m.payload, &mut Nobody);
                }
                Outgoing::Message(m) => {
                    shared.pubsub.publish(&m.channel, &m.payload, &mut Nobody);
                }
                // Several databases that are emptied at once are told of once.
                Outgoing::AllStale if changes.last() == Some(&Outgoing::AllStale) => {}
                change => changes.push(change),
            }
        }
        if !changes.is_empty() {
            tracking::tell(shared, &changes);
        }
    });
}

fn publish(shared: &Shared, notice: &Notice) {
    use crate::config::NotifyFlags;
    let flags = NotifyFlags(notice.notify);
    let name = notice.event.name.as_bytes();
    if flags.has(NotifyFlags::KEYSPACE) {
        let mut channel = format!("__keyspace@{}__:", notice.db).into_bytes();
        channel.extend_from_slice(&notice.key);
        shared.pubsub.publish(&channel, name, &mut Nobody);
    }
    if flags.has(NotifyFlags::KEYEVENT) {
        let mut channel = format!("__keyevent@{}__:", notice.db).into_bytes();
        channel.extend_from_slice(name);
        shared.pubsub.publish(&channel, &notice.key, &mut Nobody);
    }
}
