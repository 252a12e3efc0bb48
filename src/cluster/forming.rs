//! Forming: the pods of a StatefulSet become a cluster by themselves, if they are told to.
//!
//! Nobody leads. Pods find each other under the name of their Service, and ask each other for their names
//! before they meet: only pods of one StatefulSet do. Its first pods by number are the founders, each of a part of the
//! slots that follows from its number alone. A founder takes its part once it knows all founders and
//! nobody who has slots otherwise; so of two groups that do not see each other one at most can begin, and
//! whoever knows of a cluster keeps all from founding another one. Everybody else copies the primary
//! with the fewest replicas, once all slots have an owner.
//!
//! A pod that has lost its volume has a new id under its old name: it waits until its slots are somebody
//! else's, and takes the place that became free. Its old id is forgotten by all once it has failed.

use super::id::NodeId;
use super::machine::{Action, Machine, Unformed, bus_port};
use super::node::{LinkId, Node, NodeIndex, flag};
use super::slots::SLOTS;
use super::wire::{self, Extensions, Kind};

/// The pause between two looks for other pods, in milliseconds.
const PAUSE: i64 = 500;
/// The pause once many looks have changed nothing.
const LONG_PAUSE: i64 = 5000;
/// How many are many.
const MANY: u32 = 60;
/// How long founders wait for somebody who has an address and does not answer, in milliseconds.
const PATIENCE: i64 = 10_000;

/// Strange addresses for which that begins anew at most: a resolver may have ever new ones.
const STRANGERS: usize = 64;

/// Marks of a node that is not there for others.
const ILL: u16 = flag::FAILED | flag::SUSPECTED | flag::NO_ADDRESS | flag::HANDSHAKE;

/// A pod's name: of which StatefulSet, and the how manieth.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Pod<'a> {
    set: &'a str,
    domain: &'a str,
    number: usize,
}

/// A name as that of a pod: `SET-NUMBER.DOMAIN`.
fn pod(name: &str) -> Option<Pod<'_>> {
    let (first, domain) = name.split_once('.').unwrap_or((name, ""));
    let (set, number) = first.rsplit_once('-')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number
        .parse()
        .ok()
        .filter(|_| is_number && !set.is_empty())?;
    Some(Pod {
        set,
        domain,
        number,
    })
}

/// It knows us, and we have heard it since this process started.
fn is_mutual(node: &Node) -> bool {
    node.answered != 0 && node.link.is_some() && node.inbound.is_some()
}

/// The slots of a founder.
fn part(number: usize, of: usize) -> std::ops::Range<u16> {
    (number * SLOTS / of) as u16..((number + 1) * SLOTS / of) as u16
}

impl Machine {
    /// The number of a pod of our own StatefulSet.
    fn number(&self, name: &str) -> Option<usize> {
        let (mine, other) = (pod(&self.view.me().name)?, pod(name)?);
        ((mine.set, mine.domain) == (other.set, other.domain)).then_some(other.number)
    }

    /// Who says these is a pod of our own StatefulSet.
    pub(super) fn is_kin(&self, extensions: &Extensions) -> bool {
        let name = extensions.looked_up_by();
        name.is_some_and(|name| self.number(name).is_some())
    }

    /// The node is only asked for its name so far.
    pub(super) fn is_probe(&self, index: NodeIndex) -> bool {
        self.view.node(index).probed
    }

    /// Who was asked for its name is one of ours: it is to know us, too.
    pub(super) fn meet_probed(&mut self, index: NodeIndex, link: LinkId) {
        self.view.node_mut(index).probed = false;
        self.send_ping(link, Kind::Meet);
    }

    /// Goes on with forming; to be called as time goes by.
    pub(super) fn form(&mut self) {
        if self.settings.cluster_form_service.is_empty() {
            return;
        }
        self.forget_replaced();
        if !self.has_no_place() {
            self.forming.told = None;
            return;
        }
        self.look_for_peers();
        match self.may_found() {
            Ok(part) => self.found(part),
            Err(reason) => {
                if !self.take_place() {
                    self.tell_why_unformed(reason);
                }
            }
        }
    }

    fn tell_why_unformed(&mut self, reason: Unformed) {
        if self.forming.told.replace(reason) == Some(reason) {
            return;
        }
        let (service, name) = (&self.settings.cluster_form_service, &self.view.me().name);
        match reason {
            Unformed::NoPod if name.is_empty() => {
                tracing::warn!("No cluster is formed: this server's own name is not known yet");
            }
            Unformed::NoPod => tracing::warn!(
                "No cluster is formed: '{name}' is not the name of a pod of a StatefulSet"
            ),
            Unformed::NoAnswer => {
                tracing::info!("Forming waits: {} leads nowhere yet", service.to_str());
            }
            Unformed::Strangers => tracing::info!(
                "Forming waits: nobody answers yet at {}",
                self.forming.strangers.join(", ")
            ),
            Unformed::Founders => tracing::info!(
                "Forming waits: not all of the first {} pods are there and know each other",
                self.settings.cluster_form_primaries.max(1)
            ),
            Unformed::Slots => tracing::info!(
                "Forming waits: not all slots are served by nodes that answer this one"
            ),
        }
    }

    /// This node is nothing in a cluster yet.
    fn has_no_place(&self) -> bool {
        let me = self.view.me();
        let moves = !self.view.importing.is_empty() || !self.view.migrating.is_empty();
        me.is_primary() && me.slots.is_empty() && !moves
    }

    fn look_for_peers(&mut self) {
        let now = self.facts.now;
        if self.forming.looking || now < self.forming.due {
            return;
        }
        let pause = if self.forming.looks < MANY {
            PAUSE
        } else {
            LONG_PAUSE
        };
        self.forming.due = now + pause;
        self.forming.looks += 1;
        self.forming.looking = true;
        let id = self.view.me().id;
        let name = self.settings.cluster_form_service.to_str().into_owned();
        self.act(Action::LookUp { id, name });
    }

    /// These are the addresses of the Service: whoever is not known is asked for its name.
    pub(super) fn found_peers(&mut self, addresses: &[String]) {
        self.forming.looking = false;
        if self.settings.cluster_form_service.is_empty() || !self.has_no_place() {
            return;
        }
        let now = self.facts.now;
        // No address is no answer: this pod has one itself.
        self.forming.answered |= !addresses.is_empty();
        // Pods are asked at their own addresses, whatever is announced to others.
        let (port, bus_port) = (self.view.me().port, bus_port(&self.settings));
        let is_known = |ip: &str| {
            let mut nodes = self.view.iter();
            nodes.any(|(_, node)| node.ip == ip && !node.is(flag::HANDSHAKE))
        };
        let strange = addresses
            .iter()
            .filter(|ip| wire::is_address(ip.as_bytes()) && !is_known(ip));
        let strange: Vec<String> = strange.cloned().collect();
        if strange.is_empty() {
            self.forming.strangers.clear();
        }
        for ip in &strange {
            let strangers = &mut self.forming.strangers;
            if strangers.len() < STRANGERS && !strangers.contains(ip) {
                strangers.push(ip.clone());
                self.forming.strange_since = now;
            }
        }
        // Whoever has not called back does not know this pod: its greeting was lost.
        let silent = self.view.iter().filter(|(_, node)| {
            !node.is(flag::MYSELF | flag::HANDSHAKE) && node.inbound.is_none() && node.answered != 0
        });
        let silent: Vec<LinkId> = silent.filter_map(|(_, node)| node.link).collect();
        for link in silent {
            self.send_ping(link, Kind::Meet);
        }
        for ip in strange {
            let id = NodeId::random(&mut self.random);
            let mut node = Node::new(id, flag::HANDSHAKE, now);
            node.take_address(&ip, port, 0, bus_port);
            node.probed = true;
            if !self.is_meeting(&node) {
                self.view.add(node);
            }
        }
    }

    /// The slots of this founder, if it may take them; else why not.
    fn may_found(&self) -> Result<std::ops::Range<u16>, Unformed> {
        let founders = self.settings.cluster_form_primaries.max(1) as usize;
        let mine = self.number(&self.view.me().name).ok_or(Unformed::NoPod)?;
        let forming = &self.forming;
        if !forming.answered {
            return Err(Unformed::NoAnswer);
        }
        if mine >= founders {
            return Err(Unformed::Slots);
        }
        if !forming.strangers.is_empty() && self.facts.now - forming.strange_since < PATIENCE {
            return Err(Unformed::Strangers);
        }
        let mut seen = vec![0; founders];
        for (_, node) in self.view.iter() {
            if node.is(flag::HANDSHAKE) {
                continue;
            }
            let number = self.number(&node.name).filter(|number| *number < founders);
            let own = number.map_or(0..0, |number| part(number, founders));
            let strays = node.slots.iter().any(|slot| !own.contains(&slot));
            if strays || node.is_replica() {
                // There is a cluster.
                return Err(Unformed::Slots);
            }
            let Some(number) = number else {
                continue;
            };
            let heard = node.is(flag::MYSELF) || is_mutual(node);
            seen[number] += usize::from(heard && !node.is(ILL));
        }
        // Two of one name are a pod and what it was before: then there was a cluster.
        match seen.iter().all(|count| *count == 1) {
            true => Ok(part(mine, founders)),
            false => Err(Unformed::Founders),
        }
    }

    fn found(&mut self, part: std::ops::Range<u16>) {
        tracing::info!(
            "Founding a cluster: taking slots {} to {}",
            part.start,
            part.end - 1
        );
        let me = self.view.myself();
        for slot in part {
            self.view.assign(slot, me);
        }
        self.bump_epoch();
        self.promise();
        self.changed();
        self.broadcast_pong(|_, _| true);
    }

    /// Becomes a replica where there are fewest, if the cluster is whole; true if it did.
    fn take_place(&mut self) -> bool {
        let me = self.view.me();
        let served = |owner: &Option<NodeIndex>| {
            owner.is_some_and(|owner| {
                let owner = self.view.node(owner);
                // What this pod was before is on its way out.
                !owner.is(ILL) && is_mutual(owner) && owner.name != me.name
            })
        };
        if !self.view.owners().iter().all(served) {
            return false;
        }
        let mut primaries: Vec<(NodeIndex, &Node)> = self.view.voters().collect();
        primaries.sort_by_key(|(_, node)| (self.number(&node.name), &node.name, node.id));
        let first = self.number(&me.name).unwrap_or(0) % primaries.len().max(1);
        primaries.rotate_left(first);
        let working = |node: &Node| {
            let replicas = node.replicas.iter().map(|index| self.view.node(*index));
            let ill = flag::FAILED | flag::SUSPECTED;
            replicas
                .filter(|other| !other.is(ill) && other.name != me.name)
                .count()
        };
        let best = primaries.iter().min_by_key(|(_, node)| working(node));
        let Some((index, id)) = best.map(|(index, node)| (*index, node.id)) else {
            return false;
        };
        tracing::info!("Joining the cluster as a replica of {id}");
        self.replicate(index);
        true
    }

    /// Forgets what pods were before they lost their volumes: who has their name by now came after they were
    /// heard last. Names are claimed, not proven: another one of the name that was there beside it is no heir.
    fn forget_replaced(&mut self) {
        let is_heir = |heir: &Node, node: &Node| {
            let came_later = match heir.is(flag::MYSELF) {
                true => node.answered == 0,
                // Who has not heard both cannot tell.
                false => {
                    node.answered != 0 && heir.answered != 0 && heir.known_since > node.answered
                }
            };
            heir.name == node.name && !heir.is(ILL) && came_later
        };
        let replaced = self.view.iter().filter(|(index, node)| {
            let gone = node.has_failed() && node.slots.is_empty() && node.replicas.is_empty();
            gone && self.number(&node.name).is_some()
                && self
                    .view
                    .iter()
                    .any(|(other, heir)| other != *index && is_heir(heir, node))
        });
        let replaced: Vec<NodeIndex> = replaced.map(|(index, _)| index).collect();
        for index in replaced {
            let node = self.view.node(index);
            let (id, name) = (node.id, &node.name);
            tracing::info!("Forgetting node {id}: {name} is another node by now");
            // Who knows it by hearsay does not know its name.
            self.forget_for_all(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_numbers() {
        let name = "redis-app-12.redis-service.default.svc.cluster.local";
        let found = pod(name).unwrap();
        assert_eq!((found.set, found.number), ("redis-app", 12));
        assert_eq!(found.domain, "redis-service.default.svc.cluster.local");
        assert_eq!(pod("a-0").map(|pod| pod.number), Some(0));
        for name in [
            "redis",
            "redis-",
            "redis-x",
            "-1",
            "redis-+1.a",
            "redis.a-1",
            "a-99999999999999999999",
        ] {
            assert_eq!(pod(name), None, "{name}");
        }
    }

    #[test]
    fn parts_are_the_whole() {
        for founders in [1, 2, 3, 5, 7, 1000] {
            let parts = (0..founders).flat_map(|number| part(number, founders));
            assert!(parts.eq(0..SLOTS as u16));
        }
    }
}
