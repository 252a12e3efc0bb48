//! The cluster, as one of its nodes knows it: who there is, who has which of the 16384 hash slots, who has
//! failed and who takes over. A state machine without I/O ([`machine::Machine`]) that speaks Redis 7.0's bus
//! ([`wire`]) and keeps what it promised in Redis' nodes.conf ([`conf`]).
//!
//! ```text
//! machine   events, orders and time in; what is to be done out
//!   receive   what a message means          detect    connections, suspicion, whether the cluster works
//!   failover  elections, votes, manual      orders    what clients order
//!   links     connections, what is said on them    rescue   a primary without its data, slots just imported
//!   names     who has moved is looked up            forming  pods become a cluster by themselves
//!   handing   slots that change hands as one
//! view      nodes, slots, epochs: plain data
//! ```
//!
//! The sockets, the file and the thread around it are in `bus`, above `dispatch`; what commands read of
//! the cluster is [`routes`].

pub mod conf;
mod detect;
pub mod failover;
pub mod file;
mod forming;
pub mod handing;
pub mod handle;
pub mod id;
mod links;
pub mod machine;
pub mod meter;
pub mod moving;
mod names;
pub mod node;
pub mod orders;
mod receive;
mod rescue;
pub mod routes;
#[cfg(test)]
mod simulation;
pub mod slots;
pub mod view;
pub mod wire;
