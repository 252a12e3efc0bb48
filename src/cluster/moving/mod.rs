//! Atomic migration of slots: the two sides as state machines without I/O, and the list of what is moved and
//! was moved.
//!
//! The source connects to the target's port for clients and sends, in the form of commands, a cut of the
//! slots, then what changes in them. When little is left it *grants* the slots ([`super::handing`]), durably, but
//! for itself. Then it holds writes back, sends the rest, and the target confirms that it has all. Up to here
//! either side may give up by itself: the target removes what it got, the source goes on to serve. Then the
//! source says that the slots are granted; from this moment it does not serve them unless the target has said
//! that it will never take them. The target takes them, durably, and says so; everybody hears it over the bus.
//!
//! Why nothing is lost or doubled. The target takes only when it is told that there is a grant. From before
//! that is said until the outcome is known the source writes nothing into the slots, whatever becomes of it:
//! a pause without an end holds its clients back, before that ends the slots are given to the target for all that
//! clients are told, and a process that finds a grant in its file begins in that state. The outcome is decided in one place, the target: *taken* is an epoch
//! in its file, and it serves only once that is there; *dropped* is that the import is closed for good, which it
//! is as well when the target has started anew. Whoever asks closes what was open before the answer leaves. So
//! no answer is given that the other one could follow. If the target never answers, the slots stay in doubt: who
//! can tell that it is gone for ever is an operator.
//!
//! ```text
//! list     migrations, for commands      export   the source      import   the target
//! ```

pub mod export;
pub mod import;
pub mod list;
#[cfg(test)]
mod simulation;
