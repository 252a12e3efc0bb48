//! MONITOR: every command, as text, to the clients that asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::base::text::quote_into;
use crate::client::registry::Handle;

/// The clients in MONITOR.
#[derive(Default)]
pub struct Monitors {
    clients: RwLock<Vec<Arc<Handle>>>,
    count: AtomicUsize,
}

impl Monitors {
    /// True when nobody watches: what the path of every command tests.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// Number of clients in MONITOR.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Adds a client.
    pub fn add(&self, client: &Arc<Handle>) {
        let mut clients = self.clients.write();
        clients.push(Arc::clone(client));
        self.count.store(clients.len(), Relaxed);
    }

    /// Removes a client.
    pub fn remove(&self, id: u64) {
        let mut clients = self.clients.write();
        clients.retain(|c| c.id != id);
        self.count.store(clients.len(), Relaxed);
    }

    /// Shows a command of a client at `address` on database `db`.
    pub fn feed(&self, now_us: i64, db: usize, address: &str, args: &[&[u8]]) {
        let mut line = format!(
            "+{}.{:06} [{db} {address}] ",
            now_us / 1_000_000,
            now_us % 1_000_000
        )
        .into_bytes();
        for (i, arg) in args.iter().enumerate() {
            if i > 0 {
                line.push(b' ');
            }
            quote_into(&mut line, arg);
        }
        line.extend_from_slice(b"\r\n");
        let line = Bytes::from(line);
        for client in self.clients.read().iter() {
            client.send(line.clone());
        }
    }
}
