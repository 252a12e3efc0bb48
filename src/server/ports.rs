//! The TCP listeners and how they follow the parameters.
//!
//! A change binds the new addresses before it gives up an old one, and an address that stays keeps
//! its socket, so nobody who connects meanwhile is turned away and a change that fails leaves
//! everything as it was. Only when the old listeners themselves are in the way (`*` and
//! `127.0.0.1` on one port exclude each other) they are closed first, and bound again when the new
//! ones do not work.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::config::{Settings, strerror};
use crate::net::listener::{self, Bound};

/// An address of `bind` that is served.
struct Port {
    address: String,
    port: u16,
    task: JoinHandle<()>,
}

/// What serves the connections of a listener.
pub type Serve = Arc<dyn Fn(TcpListener) -> JoinHandle<()> + Send + Sync>;

/// Where the parameters say that is listened: a port, 0 for none, and addresses.
pub type Wanted = fn(&Settings) -> (u16, Vec<String>);

/// All TCP listeners for one purpose.
pub struct Ports {
    open: Vec<Port>,
    wanted: Wanted,
    serve: Serve,
}

impl Ports {
    /// No listener yet; `serve` starts the task that accepts.
    pub fn new(wanted: Wanted, serve: Serve) -> Self {
        Self {
            open: Vec::new(),
            wanted,
            serve,
        }
    }

    /// Whether nothing is listened on.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether `port` is listened on.
    pub fn has(&self, port: u16) -> bool {
        self.open.iter().any(|open| open.port == port)
    }

    /// Listens where the parameters say. An error is logged, and the old listeners stay.
    pub async fn follow(&mut self, settings: &Settings) -> Result<(), ()> {
        let (port, mut wanted) = (self.wanted)(settings);
        if port == 0 {
            wanted.clear();
        }
        let keeps = |p: &Port| p.port == port && wanted.contains(&p.address);
        let missing: Vec<&str> = wanted
            .iter()
            .filter(|a| !self.open.iter().any(|p| keeps(p) && p.address == **a))
            .map(String::as_str)
            .collect();
        let (stay, old): (Vec<Port>, Vec<Port>) = self.open.drain(..).partition(keeps);
        self.open = stay;
        let in_the_way = old.iter().any(|p| p.port == port);
        // The first try is not logged when there is a second one.
        match bind(&missing, port, settings, !in_the_way) {
            Ok(new) => {
                close(old).await;
                self.add(new);
                Ok(())
            }
            Err(error) if in_the_way && error.kind() == io::ErrorKind::AddrInUse => {
                self.replace(&missing, port, old, settings).await
            }
            Err(_) => {
                if in_the_way {
                    // Says which address it was.
                    let _ = bind(&missing, port, settings, true);
                }
                self.open.extend(old);
                Err(())
            }
        }
    }

    /// Closes `old` to bind `missing`, and takes it back when that does not work.
    async fn replace(
        &mut self,
        missing: &[&str],
        port: u16,
        old: Vec<Port>,
        settings: &Settings,
    ) -> Result<(), ()> {
        let before: Vec<(String, u16)> = old.iter().map(|p| (p.address.clone(), p.port)).collect();
        close(old).await;
        if let Ok(new) = bind(missing, port, settings, true) {
            self.add(new);
            return Ok(());
        }
        for (address, port) in before {
            if let Ok(new) = bind(&[&address], port, settings, true) {
                self.add(new);
            }
        }
        Err(())
    }

    fn add(&mut self, new: Vec<(String, u16, TcpListener)>) {
        for (address, port, listener) in new {
            self.open.push(Port {
                address,
                port,
                task: (self.serve)(listener),
            });
        }
    }

    /// Closes all listeners.
    pub fn close(&mut self) {
        for port in self.open.drain(..) {
            port.task.abort();
        }
    }
}

/// Closes listeners, and returns when their sockets are closed.
async fn close(ports: Vec<Port>) {
    for port in ports {
        port.task.abort();
        // Ends with the error of being aborted.
        let _ = port.task.await;
    }
}

/// Binds all addresses or none. Optional ones that this machine does not have are left out.
fn bind(
    addresses: &[&str],
    port: u16,
    settings: &Settings,
    logs: bool,
) -> io::Result<Vec<(String, u16, TcpListener)>> {
    let mut bound = Vec::new();
    for address in addresses {
        match listener::bind_tcp(address, port, settings) {
            Ok(Bound::Listening(socket)) => {
                bound.push(((*address).to_owned(), port, TcpListener::from_std(socket)?));
            }
            Ok(Bound::Absent(error)) => {
                if logs {
                    log_failure(address, port, &error);
                }
            }
            Err(error) => {
                if logs {
                    log_failure(address, port, &error);
                }
                return Err(error);
            }
        }
    }
    Ok(bound)
}

fn log_failure(address: &str, port: u16, error: &io::Error) {
    // A name that cannot be resolved is no error of the system call.
    let reason = match error.raw_os_error() {
        Some(_) => format!("bind: {}", strerror(error)),
        None => "Name or service not known".to_owned(),
    };
    tracing::warn!(
        "Warning: Could not create server TCP listening socket {}:{port}: {reason}",
        address.trim_start_matches('-'),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        let serve = |listener: TcpListener| {
            tokio::spawn(async move {
                while listener.accept().await.is_ok() {}
                drop(listener);
            })
        };
        let wanted = |settings: &Settings| (settings.port, settings.bind.clone());
        Ports::new(wanted, Arc::new(serve))
    }

    fn settings(bind: &[&str], port: u16) -> Settings {
        Settings {
            bind: bind.iter().map(|&a| a.to_owned()).collect(),
            port,
            ..Settings::default()
        }
    }

    fn reachable(port: u16) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    #[tokio::test]
    async fn old_listeners_stay_when_the_new_ones_fail() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let other = taken.local_addr().expect("an address").port();
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let mine = free.local_addr().expect("an address").port();
        drop(free);
        let mut ports = ports();
        assert!(ports.follow(&settings(&["127.0.0.1"], mine)).await.is_ok());
        assert!(reachable(mine));
        assert!(
            ports
                .follow(&settings(&["127.0.0.1"], other))
                .await
                .is_err()
        );
        assert!(reachable(mine));
        let broken = settings(&["999.999.999.999"], mine);
        assert!(ports.follow(&broken).await.is_err());
        assert!(reachable(mine));
        // The old address excludes the new one.
        assert!(ports.follow(&settings(&["*"], mine)).await.is_ok());
        assert!(reachable(mine));
        assert!(ports.follow(&settings(&[], mine)).await.is_ok());
        assert!(!reachable(mine) && ports.is_empty());
    }
}
