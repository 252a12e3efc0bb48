//! Tessera: a drop-in `redis-server` that runs commands on every core.
//!
//! # Layers
//!
//! Each top module is a layer or shares one. Dependencies point one way; modules of one layer do
//! not know each other. `tests/layers.rs` holds this order against the source:
//!
//! ```text
//! base < resp types config acl scripts < observe wire < keyspace client < propagation pubsub < persistence
//!      < cluster sentinel < dispatch < durability < replication < bus scripting watch < commands < net < server < bin
//! ```
//!
//! (Layers that have no module yet keep their place.) Where a lower layer needs a higher one it is
//! handed a value, a closure or a small trait.
//!
//! | module | what it is |
//! |---|---|
//! | [`base`] | clock, numbers as text, glob, checksums, randomness, the allocator |
//! | [`resp`] | the protocol: parse requests, write replies, read replies; bytes only |
//! | [`types`] | values and their encodings; no keys, clients, replies, locks, clock |
//! | [`config`] | one row per parameter; `redis.conf` in and out; a snapshot for every thread |
//! | [`acl`] | users, their rules, what was refused them |
//! | [`scripts`] | what workers share of scripts: sources, libraries, which run for long |
//! | [`observe`] | log, counters, slow log, latency |
//! | [`wire`] | byte streams: TCP, Unix sockets, TLS |
//! | [`keyspace`] | shards and their locks, entries, lookup, expiry, eviction, SCAN, cuts, lazy free |
//! | [`client`] | session, registry of all clients, mailbox for bytes from other threads |
//! | [`propagation`] | the one ordered stream of effects: its identity, and how far each replica is |
//! | [`persistence`] | the dump format, snapshots, the append-only file |
//! | [`pubsub`] | channels, patterns, shard channels |
//! | [`cluster`] | the cluster as a node sees it: messages, nodes, slots, elections |
//! | [`sentinel`] | a sentinel: who is down, elections, failovers |
//! | [`dispatch`] | command rows, the table, refusals, execution, transactions |
//! | [`durability`] | when and how to save and load; playing the append-only file back |
//! | [`replication`] | serving replicas: their threads, full syncs |
//! | [`scripting`] | Lua: interpreters, the world inside them, EVAL and FCALL |
//! | [`watch`] | the thread that drives a sentinel |
//! | [`commands`] | one file per family: rows and handlers |
//! | [`net`] | workers, connections, listeners |
//! | [`server`] | builds and joins the parts: start, frame, cron, shutdown |
//!
//! # Life of a command
//!
//! A worker's turn ([`net::worker`]) begins with the sockets that are ready. All of them are read.
//! Then waves: [`resp::parse`] finds requests in the input buffers without copying them;
//! [`dispatch::execute::prepare`] looks the command up and hashes its keys. When the wave is parsed
//! the processor is asked for all keys' buckets, then, some requests ahead, for their entries, and
//! the requests run, one by one:
//!
//! 1. [`dispatch::admit`] holds every refusal, in Redis' order; or queues for MULTI, or parks.
//! 2. [`dispatch::execute`] locks the shards of the command's keys, lowest first.
//! 3. The handler in [`commands`] reads arguments, calls [`keyspace::db::Db`] and [`types`], and
//!    writes its reply into the connection's output. [`keyspace::db::Db::changed`] is the only
//!    place where dirty count, WATCH and notification come from.
//! 4. What it did is appended to the [`propagation`] stream, still under the locks, so for each key
//!    the order of the log is the order of execution.
//! 5. The locks are released. Then what was replaced is freed, events are delivered, statistics are
//!    counted.
//!
//! When nothing parsed is left all replies are written, one system call for each connection.
//!
//! # Lock order
//!
//! 1. DEBUG SLEEP's gate, at the start of a turn, before anything else.
//! 2. Shards of the keyspace, ascending ([`keyspace::shards`]). Whoever needs all takes all.
//! 3. Leaves, one at a time, under which nothing else is locked: the outbox's queue, the stream's
//!    log, the arena of the tables, the allocator.
//!
//! Without any shard lock: the outbox's turn of delivery, then the hub's maps or who follows prefixes, then a client's
//! mailbox, then its worker's bell; the pool of eviction candidates; a change of configuration.
//!
//! # Invariants
//!
//! - Nothing is freed that is big, sent or awaited under a shard lock, and nothing is formatted there
//!   for others than the command's own client, but for: the entries of a cut, replies of clients
//!   that a write wakes (they take what it left before anybody else can), and MIGRATE, whose keys
//!   must stand still until the other server has them.
//! - A handler of [`dispatch::command::Handler::Data`] touches its own keys and nothing else.
//! - A [`client::session::Session`] is touched by its connection's worker only; others use the
//!   client's [`client::registry::Handle`].
//! - A mailbox never blocks its sender; a client past its output limit is closed instead.
//! - Bytes from a socket or a file never lead to a panic; every queue and buffer has a bound.
//! - Time comes from [`base::clock`], once a turn, and stands still within a transaction.
//!
//! # Unsafe code
//!
//! Denied in the crate, allowed at the `mod` line of these modules, each block with its proof. Their
//! tests run under AddressSanitizer (`scripts/test asan`), but for these: jemalloc in `base::alloc` and
//! `base::heap`, which the sanitizer's own allocator replaces, and `base::fault`, whose purpose is to crash.
//!
//! | module | why |
//! |---|---|
//! | `base::alloc` | the global allocator: jemalloc with a running count of what is allocated |
//! | `base::heap` | the allocator's hooks: huge pages for a heap that is big |
//! | `base::pages` | asks the kernel for huge pages before somebody needs them |
//! | `base::ticks` | one instruction instead of a clock call around each command |
//! | `base::thin` | owned bytes of one word, with no capacity to remember: small collections are many |
//! | `keyspace::arena` | memory that can be prefetched through while another thread changes it |
//! | `keyspace::table`, `keyspace::table::segment`, `keyspace::table::shape`, `keyspace::table::slot`, `keyspace::table::walk` | 64-byte buckets of tagged pointers, read ahead without the lock |
//! | `keyspace::entry`, `keyspace::entry::edit`, `keyspace::entry::lent` | key and value in one allocation, and lent by the table that owns it |
//! | `types::object` | collections moved in and out of the entry's bytes |
//! | `keyspace::shards` | lends tables for as long as their lock is held |
//! | `scripting::lua`, `scripting::memory` | the C interface of the interpreter, which raises errors by jumping, and its allocator |
//! | `scripting::world` | the server lent to an interpreter while a script runs |
//! | `base::fault` | DEBUG SEGFAULT, a write that the processor refuses |
//! | `server::process` | `fork(2)` for `daemonize`, before any thread exists |
//! | `server::title` | the process title, over the memory of the arguments |
//! | `server::crash` | handlers of signals: the report of a crash |
//! | `server::stack` | walks stacks and reads registers in handlers of signals |

pub mod acl;
pub mod base;
pub mod bus;
pub mod client;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod dispatch;
pub mod durability;
pub mod keyspace;
pub mod net;
pub mod observe;
pub mod persistence;
pub mod propagation;
pub mod pubsub;
pub mod replication;
pub mod resp;
pub mod scripting;
pub mod scripts;
pub mod sentinel;
pub mod server;
pub mod types;
pub mod watch;
pub mod wire;
