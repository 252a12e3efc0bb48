//! When and how the data set is saved and loaded: dump files, the append-only file, playing it back.
//!
//! The state is below ([`crate::persistence`]): here is what acts on it and on the whole server.
//! [`save`] writes and reads dump files, [`append_only`] turns the append-only file on and off and
//! rewrites it, [`append_only_load`] reads it, with [`playback`].

pub mod append_only;
pub mod append_only_load;
pub mod playback;
pub mod save;
