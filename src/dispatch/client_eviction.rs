//! `maxmemory-clients`: when all clients together take too much memory, the largest are closed.
//!
//! Workers count what their clients take, replies as they grow. Whoever finds the sum over the limit
//! picks the victims among all workers' clients; a victim's worker closes it. Victims that are still
//! on their way out do not count any more, so that nobody is closed for them; neither do they for
//! `maxmemory`, so that no key is evicted for them. Their workers free what they hold as soon as they come
//! by: at the next chunk of a reply, at the latest at the end of the turn.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::context::Shared;
use crate::base::clock;
use crate::client::registry::{Class, Handle, flag};
use crate::config::Settings;

/// No limit is lower, in bytes: below it nobody could connect any more to raise it again.
const LOWEST_LIMIT: usize = 128 * 1024;

/// How long a worker may take to free what a client held, in milliseconds.
const LEAVING_MS: i64 = 1000;

/// The limit in bytes, 0 for none. A negative parameter is a percentage of `maxmemory`.
fn limit(settings: &Settings) -> usize {
    let value = settings.maxmemory_clients;
    let bytes = match value {
        0 => return 0,
        1.. => value as usize,
        _ if settings.maxmemory == 0 => return 0,
        _ => (u128::from(settings.maxmemory) * u128::from(value.unsigned_abs()) / 100) as usize,
    };
    bytes.max(LOWEST_LIMIT)
}

/// Evicts the largest clients until the rest is below the limit; their ids.
pub fn evict(shared: &Shared, settings: &Settings, now_ms: i64) -> Vec<u64> {
    let limit = limit(settings);
    let memory = &shared.clients.memory;
    if limit == 0 || memory.staying() < limit {
        return Vec::new();
    }
    let mut candidates = shared.clients.all();
    candidates.retain(|client| {
        let exempt = client.live.flags.load(Relaxed) & flag::NO_EVICT != 0;
        !exempt && !client.is_killed() && matches!(client.class(), Class::Normal | Class::PubSub)
    });
    candidates.sort_by_cached_key(|client| client.memory.held());
    let mut evicted = Vec::new();
    while memory.staying() >= limit {
        let Some(victim) = candidates.pop() else {
            tracing::warn!("Over client maxmemory after evicting all evictable clients");
            break;
        };
        // Another thread may have been faster.
        if victim.memory.leave(clock::unix_ms()) > 0 {
            expel(shared, &victim, now_ms);
            evicted.push(victim.id);
        }
    }
    evicted
}

fn expel(shared: &Shared, victim: &Arc<Handle>, now_ms: i64) {
    let name = |id: u32| shared.commands.get(id as usize).full_name.clone();
    let text = victim.describe(now_ms, &name);
    tracing::info!("Evicting client: {text}");
    shared.clients.remove(victim.id);
    victim.kill();
    shared.stats.global.evicted_clients.fetch_add(1, Relaxed);
}

/// Bytes that do not count for `maxmemory`, because clients that are on their way out hold them. Some time
/// after the last was sent off a worker must hang that has not freed them: then not more than clients may
/// hold at all.
pub fn leaving(shared: &Shared, settings: &Settings) -> usize {
    let memory = &shared.clients.memory;
    match memory.leaving() {
        0 => 0,
        bytes if clock::unix_ms() - memory.asked_ms() < LEAVING_MS => bytes,
        bytes => bytes.min(limit(settings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_keeps_everybody_out() {
        let limit = |maxmemory_clients, maxmemory| {
            limit(&Settings {
                maxmemory_clients,
                maxmemory,
                ..Settings::default()
            })
        };
        assert_eq!(limit(0, 1 << 30), 0);
        assert_eq!(limit(1, 0), 128 * 1024);
        assert_eq!(limit(1 << 20, 0), 1 << 20);
        assert_eq!(limit(-5, 0), 0);
        assert_eq!(limit(-5, 1000), 128 * 1024);
        assert_eq!(limit(-50, 1 << 30), 1 << 29);
    }
}
