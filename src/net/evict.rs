//! `maxmemory-clients`: when all clients together take too much memory, the largest are closed.
//!
//! Workers keep the sum; whoever finds it over the limit picks the victims among all workers'
//! clients by the memory that they published. A victim's worker closes it. Victims that are still
//! on their way out do not count any more, so that nobody is closed for them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::client::registry::{Class, Handle, flag};
use crate::config::Settings;
use crate::dispatch::context::{Shared, Worker};

/// No limit is lower, in bytes: below it nobody could connect any more to raise it again.
const LOWEST_LIMIT: usize = 128 * 1024;

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

/// Evicts the largest clients until the rest is below the limit.
pub fn clients(shared: &Shared, worker: &Worker) {
    let limit = limit(&worker.settings);
    if limit == 0 || shared.status.client_memory.load(Relaxed) < limit {
        return;
    }
    let size = |client: &Arc<Handle>| client.live.total_memory.load(Relaxed);
    let mut candidates = shared.clients.all();
    candidates.retain(|client| {
        let exempt = client.live.flags.load(Relaxed) & flag::NO_EVICT != 0;
        !exempt && !client.is_killed() && matches!(client.class(), Class::Normal | Class::PubSub)
    });
    let mut sum: usize = candidates.iter().map(size).sum();
    candidates.sort_by_cached_key(size);
    while sum >= limit {
        let Some(victim) = candidates.pop() else {
            tracing::warn!("Over client maxmemory after evicting all evictable clients");
            return;
        };
        sum = sum.saturating_sub(size(&victim));
        let name = |id: u32| shared.commands.get(id as usize).full_name.clone();
        let text = victim.describe(worker.now.ms, &name);
        tracing::info!("Evicting client: {text}");
        shared.clients.remove(victim.id);
        victim.kill();
        let evicted = &shared.stats.global.evicted_clients;
        evicted.fetch_add(1, Relaxed);
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
