//! Confirmations of replicas and of the disk: what WAIT and WAITAOF wait for.

use super::context::Shared;
use super::error::Error;
use crate::resp::write::Output;

/// What WAIT and WAITAOF wait for, instead of keys.
#[derive(Clone, Copy, Debug)]
pub struct Acks {
    /// Offset of the stream that is to be confirmed.
    pub offset: u64,
    /// By so many replicas.
    pub replicas: usize,
    /// WAITAOF: on their disks, and on ours if so said.
    pub local: Option<bool>,
}

impl Acks {
    /// Whether our append-only file holds what is to be confirmed, on the disk; and how many replicas
    /// have confirmed it.
    fn count(&self, shared: &Shared) -> (bool, usize) {
        match self.local {
            None => (false, shared.replication.acknowledged(self.offset)),
            Some(_) => {
                let durable = shared.append_only.durable();
                let local = durable.is_some_and(|durable| durable >= self.offset);
                (local, shared.replication.durable(self.offset))
            }
        }
    }

    /// True when enough have confirmed.
    pub fn are_here(&self, shared: &Shared) -> bool {
        let (local, replicas) = self.count(shared);
        replicas >= self.replicas && (local || self.local != Some(true))
    }

    /// The reply: who has confirmed by now.
    pub fn tell(&self, shared: &Shared, out: &mut Output) {
        let (local, replicas) = self.count(shared);
        if self.local.is_some() {
            out.array(2);
            out.uint(local.into());
        }
        out.uint(replicas as u64);
    }

    /// Our append-only file is waited for, and there is none.
    pub fn check(&self, shared: &Shared) -> Result<(), Error> {
        if self.local == Some(true) && !shared.config.settings().appendonly {
            return Err(Error::line(
                "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
            ));
        }
        Ok(())
    }
}
