//! A sentinel, as it sees the instances it watches: who is there, who is down, who takes over. A state
//! machine without I/O ([`machine::Machine`]) that speaks with Redis 7.0's sentinels and keeps what it
//! promised in their configuration file ([`conf`]).
//!
//! ```text
//! machine   replies, orders and time in; what is to be done out
//!   links     connections, what is asked on them       info    what INFO tells, and what follows from it
//!   hello     other sentinels, newer configurations    down    who is down, votes, who leads
//!   failover  the steps of a failover                  orders  what clients order
//!   jobs      the queue of scripts
//! state     instances, links, groups: plain data
//! ```
//!
//! Time is one that never jumps. What leaves as a promise (a vote, an epoch) is marked: it may leave only
//! when what the machine knows is on the disk. Names are looked up by whoever drives the machine.
//!
//! The thread, the sockets, the scripts and the file around it are in `watch`, above `dispatch`.

pub mod conf;
mod down;
mod failover;
pub mod handle;
mod hello;
mod info;
mod jobs;
mod links;
pub mod machine;
pub mod orders;
#[cfg(test)]
mod simulation;
pub mod state;
mod tending;
