//! What a worker does for others while a script of its own runs for long: handed down to the script by its
//! thread, around all that lies between.

// The macro makes a type that cannot have a doc comment.
#![allow(missing_docs)]

/// Serves others in the middle of a script.
pub trait Meanwhile {
    /// Serves whoever can be served now, without waiting.
    fn serve(&mut self);
}

scoped_tls_hkt::scoped_thread_local! {
    /// Set while a worker runs a request that may run a script.
    pub static mut MEANWHILE: for<'a> &'a mut dyn Meanwhile
}
