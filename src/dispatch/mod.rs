//! From a request to its effect: the command table, refusals, locks, execution, transactions.
//!
//! [`command`] says what a command is, [`table`] finds it, [`keys`] finds its keys, [`admit`]
//! holds every refusal in Redis' order, [`execute`] runs (under locks: `locked`), [`propagate`] tells the
//! stream, [`accounts`] counts,
//! [`transaction`] does so for MULTI, and [`context`] is what handlers see.

pub mod accounts;
pub mod acks;
pub mod acl;
pub mod admit;
pub mod args;
pub mod blocking;
pub mod chore;
pub mod client_eviction;
pub mod command;
pub mod context;
pub mod control;
pub mod errand;
pub mod error;
pub mod events;
pub mod execute;
pub mod job;
pub mod keys;
mod later;
mod locked;
pub mod meanwhile;
pub mod monitor;
pub mod options;
pub mod pause;
pub mod propagate;
pub mod route;
pub mod scripted;
pub mod slots;
pub mod source;
pub mod subscriptions;
pub mod table;
#[doc(hidden)]
pub mod testing;
pub mod threads;
pub mod tracking;
pub mod transaction;
pub mod turns;
mod undo;
pub mod upkeep;
pub mod wave;
