//! Names and addresses, by the system's resolver, which may take its time: it runs on threads of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, getaddrinfo};
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;

use super::happened::Happened;
use crate::cluster::id::NodeId;
use crate::cluster::wire::is_hostname;
use crate::wire::socket;

/// Lookups at a time: a resolver that hangs holds no more threads.
const AT_A_TIME: usize = 8;
/// Addresses of a name that are looked at.
const MOST_ADDRESSES: usize = 1024;
/// After how long a resolver that did not answer is asked again for our own name.
const AGAIN: Duration = Duration::from_secs(10);
/// Where the system keeps names beside its resolver.
const HOSTS: &str = "/etc/hosts";
/// That the resolver is to tell a name's full form.
const CANONICAL: i32 = libc::AI_CANONNAME;

/// The way to the resolver.
pub struct Names {
    tell: Sender<Happened>,
    turns: Arc<Semaphore>,
}

impl Names {
    /// Answers go to `tell`.
    pub fn new(tell: Sender<Happened>) -> Self {
        Self {
            tell,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Looks a node's name up; what is found is told, nothing included.
    pub fn look_up(&self, id: NodeId, name: String) {
        let (tell, turns) = (self.tell.clone(), Arc::clone(&self.turns));
        tokio::spawn(async move {
            let _turn = turns.acquire().await;
            let found = lookup_host((name.as_str(), 0)).await;
            let addresses = match found {
                Ok(found) => found.map(|found| socket::shown(found.ip())),
                Err(error) => {
                    tracing::debug!("The address of {name} is not to be found out: {error}");
                    return tell_of(&tell, id, Vec::new()).await;
                }
            };
            tell_of(&tell, id, addresses.take(MOST_ADDRESSES).collect()).await;
        });
    }
}

async fn tell_of(tell: &Sender<Happened>, id: NodeId, addresses: Vec<String>) {
    // The driver ends with the process.
    let _ = tell.send(Happened::LookedUp(id, addresses)).await;
}

/// Finds out by which name this server is found, and tells it. While no resolver answers, the name that was
/// known before stays, and it is asked again.
pub fn find_own(tell: Sender<Happened>) {
    tokio::spawn(async move {
        loop {
            // A lookup that panicked found nothing.
            let found = tokio::task::spawn_blocking(own_name).await;
            match found.unwrap_or(Ok(None)) {
                Ok(name) => {
                    let named = Happened::Named(name.unwrap_or_default());
                    // The driver ends with the process.
                    let _ = tell.send(named).await;
                    return;
                }
                Err(Silent) => tokio::time::sleep(AGAIN).await,
            }
        }
    });
}

/// No resolver answers.
struct Silent;

/// The full name of this host, if it has one that others could know.
fn own_name() -> Result<Option<String>, Silent> {
    let system = rustix::system::uname();
    let Ok(host) = system.nodename().to_str() else {
        return Ok(None);
    };
    let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
    if let Ok(name) = name_in(&hosts, host) {
        return Ok(name);
    }
    let hints = AddrInfoHints {
        flags: CANONICAL,
        ..AddrInfoHints::default()
    };
    match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(mut found) => {
            let canonical = found.find_map(|entry| entry.ok()?.canonname);
            Ok(canonical.filter(|name| is_full(name)))
        }
        Err(error) => match error.kind() {
            LookupErrorKind::Again | LookupErrorKind::Fail | LookupErrorKind::System => Err(Silent),
            _ => Ok(None),
        },
    }
}

/// The file says nothing of the host.
#[derive(Debug, PartialEq)]
struct Unlisted;

/// The full name of a host, as the text of a file of hosts has it. A host that is listed for loopback alone
/// has none.
fn name_in(hosts: &str, host: &str) -> Result<Option<String>, Unlisted> {
    let mut listed = false;
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut fields = line.split_ascii_whitespace();
        let Some(address) = fields.next().and_then(|ip| ip.parse::<IpAddr>().ok()) else {
            continue;
        };
        let mut names = fields.clone();
        if !names.any(|name| name == host) {
            continue;
        }
        listed = true;
        if let Some(full) = fields.find(|name| is_full(name))
            && !address.is_loopback()
        {
            return Ok(Some(full.to_owned()));
        }
    }
    if listed { Ok(None) } else { Err(Unlisted) }
}

/// A name that means the same everywhere: with a domain, and no address.
fn is_full(name: &str) -> bool {
    let local = name.starts_with("localhost") || name.parse::<IpAddr>().is_ok();
    name.contains('.') && !local && is_hostname(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_its_name() {
        let hosts = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                     ::1\tlocalhost ip6-localhost\n\
                     10.244.1.7\tredis-app-0.redis-service.default.svc.cluster.local\tredis-app-0\n";
        let full = "redis-app-0.redis-service.default.svc.cluster.local";
        assert_eq!(name_in(hosts, "redis-app-0"), Ok(Some(full.to_owned())));
        assert_eq!(name_in(hosts, full), Ok(Some(full.to_owned())));
        assert_eq!(name_in(hosts, "redis-app-1"), Err(Unlisted));
    }

    #[test]
    fn what_only_this_host_knows_is_no_name() {
        for hosts in [
            "127.0.1.1 vm.example.org vm\n",
            "172.17.0.2 vm\n",
            "10.0.0.1 1.2.3.4 vm\n",
            "10.0.0.1 a;b.c vm # vm.example\n",
        ] {
            assert_eq!(name_in(hosts, "vm"), Ok(None), "{hosts}");
        }
        assert_eq!(name_in("nonsense\n10.0.0.1\n", "vm"), Err(Unlisted));
    }
}
