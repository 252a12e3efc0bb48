//! Tessera: a drop-in `redis-server` that runs commands on every core.

pub mod acl;
pub mod base;
pub mod client;
pub mod commands;
pub mod config;
pub mod dispatch;
pub mod keyspace;
pub mod net;
pub mod observe;
pub mod propagation;
pub mod pubsub;
pub mod resp;
pub mod server;
pub mod types;
