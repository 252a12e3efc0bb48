//! The stream: one ordered log of the effects of all commands.
//!
//! A command appends what it did while it still holds the locks of its shards, and a transaction
//! appends all of it as one block; so for each key the order in the log is the order of
//! execution, and a reader that applies the log gets the same data. Its bytes are counted by the
//! replication offset.
//!
//! The log is a plain mutex around chunked buffers (measured cheaper than lock-free reservation,
//! and it gives one global order). While nobody reads it, a command pays one relaxed load.
//! The mutex is a leaf: it is taken under shard locks, and nothing is taken under it.
//!
//! Beside it stands what makes it a replication stream: its id and backlog, and how far each replica
//! is. Who serves replicas ([`crate::replication`]) reports here; nothing here touches a socket.

mod failover;
mod identity;
mod lineage;
mod place;
mod replica;
mod stream;
mod upstream;

pub use failover::{Abort, Decision, Failover, Plan};
pub use identity::{Names, Replication, Resumed};
pub use lineage::{Lineage, Refusal};
pub use place::Place;
pub use replica::{Replica, State};
pub use stream::{Audience, Block, Chunk, Reader, Stream};
pub use upstream::{Address, FullSync, Upstream, View, Wanted};
