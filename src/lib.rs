//! Tessera: a drop-in `redis-server` that runs commands on every core.

pub mod base;
pub mod resp;
pub mod types;
pub mod config;
pub mod observe;
pub mod acl;
pub mod keyspace;
pub mod client;
pub mod propagation;
pub mod pubsub;
pub mod dispatch;
pub mod commands;
pub mod net;
pub mod server;
