//! The primitives of what threads share beside the shards: a name for each, so that a test can put
//! a model in its place.
//!
//! Normally these are parking_lot's locks, the standard library's atomics and the kernel's event
//! counter. With the feature `model` they are loom's, which runs a test through every order in
//! which threads can interleave (`tests/loom.rs`). A server built with that feature does not work.
//! What is not here is not modelled: the shards' own locks, for one, guard plain data.

#[cfg(not(feature = "model"))]
pub use normal::*;

#[cfg(feature = "model")]
pub use model::*;

#[cfg(not(feature = "model"))]
mod normal {
    use std::os::fd::OwnedFd;

    pub use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
    use rustix::event::{EventfdFlags, eventfd};
    pub use std::sync::atomic;

    /// A counter in the kernel that a poll can wait for.
    pub struct EventFd(OwnedFd);

    impl EventFd {
        /// At zero, or the error of `eventfd(2)`.
        pub fn new() -> std::io::Result<Self> {
            let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
            Ok(Self(fd))
        }

        /// What to poll for reading.
        pub fn fd(&self) -> &OwnedFd {
            &self.0
        }

        /// Wakes whoever polls.
        pub fn signal(&self) {
            // A full counter is readable already; nothing else can fail here.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        /// Takes all signals back.
        pub fn drain(&self) {
            let mut counter = [0; 8];
            // Without a signal there is nothing to read, which is as good.
            let _ = rustix::io::read(&self.0, &mut counter);
        }
    }
}

#[cfg(feature = "model")]
#[allow(missing_docs)]
mod model {
    use std::ops::{Deref, DerefMut};
    use std::os::fd::OwnedFd;
    use std::time::Instant;

    pub use loom::sync::atomic;

    const POISON: &str = "a model ends with its first panic";

    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    /// Optional because loom's condition variable takes the guard away while it waits.
    pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().expect(POISON)))
        }

        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok().map(|guard| MutexGuard(Some(guard)))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            self.0.as_ref().expect("held unless waiting")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("held unless waiting")
        }
    }

    #[derive(Default)]
    pub struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            self.0.read().expect(POISON)
        }

        pub fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            self.0.write().expect(POISON)
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar(loom::sync::Condvar);

    /// There is no time in a model, so no wait ends by it: one that is never woken is a deadlock,
    /// which loom reports.
    pub struct Woken;

    impl Woken {
        pub fn timed_out(&self) -> bool {
            false
        }
    }

    impl Condvar {
        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let inner = guard.0.take().expect("held unless waiting");
            guard.0 = Some(self.0.wait(inner).expect(POISON));
        }

        pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> Woken {
            self.wait(guard);
            Woken
        }
    }

    /// The kernel's counter, without the kernel.
    #[derive(Default)]
    pub struct EventFd {
        counter: Mutex<u64>,
        signalled: Condvar,
    }

    impl EventFd {
        pub fn new() -> std::io::Result<Self> {
            Ok(Self::default())
        }

        pub fn fd(&self) -> &OwnedFd {
            unreachable!("nothing is polled in a model")
        }

        pub fn signal(&self) {
            *self.counter.lock() += 1;
            self.signalled.notify_all();
        }

        pub fn drain(&self) {
            *self.counter.lock() = 0;
        }

        /// What a poll does: waits until there is a signal, and leaves it there.
        pub fn wait(&self) {
            let mut counter = self.counter.lock();
            while *counter == 0 {
                self.signalled.wait(&mut counter);
            }
        }
    }
}
