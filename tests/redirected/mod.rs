//! A client of a cluster that goes where it is sent.

use std::collections::HashMap;

use redis::{Connection, RedisResult};

/// Connections to the nodes of a cluster, and who is asked next.
pub struct Redirected {
    ports: Vec<u16>,
    at: u16,
    connections: HashMap<u16, Option<Connection>>,
}

impl Redirected {
    pub fn new(ports: &[u16]) -> Self {
        Self {
            ports: ports.to_vec(),
            at: ports[0],
            connections: HashMap::new(),
        }
    }

    /// Tries to set a key where it was sent last. After an error it is to be tried again: another node is
    /// asked then, the one that was named or the next.
    pub fn set(&mut self, key: &str, value: u64) -> RedisResult<()> {
        let at = self.at;
        let connection = self.connections.entry(at).or_insert_with(|| {
            redis::Client::open(format!("redis://127.0.0.1:{at}"))
                .and_then(|client| client.get_connection())
                .ok()
        });
        let result = match connection {
            Some(connection) => redis::cmd("SET").arg(key).arg(value).query(connection),
            None => Err((redis::ErrorKind::Io, "no connection").into()),
        };
        if let Err(error) = &result {
            let moved = error.redirect_node().map(|(address, _)| address.to_owned());
            match moved.and_then(|address| address.rsplit(':').next()?.parse().ok()) {
                Some(port) => self.at = port,
                None => {
                    // Whoever it was is gone, or does not serve for now.
                    self.connections.remove(&at);
                    let here = self.ports.iter().position(|port| *port == at);
                    self.at = self.ports[(here.unwrap_or(0) + 1) % self.ports.len()];
                }
            }
        }
        result
    }
}
