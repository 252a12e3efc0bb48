//! The bus' thread: see [`super`].

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::MissedTickBehavior;

use super::happened::Happened;
use super::link::{self, Link};
use super::names::{self, Names};
use super::picture;
use super::saver::Saver;
use crate::cluster::file::NodeFile;
use crate::cluster::handing::Hand;
use crate::cluster::handle::{Asked, Cluster};
use crate::cluster::machine::{Action, Event, Facts, Machine};
use crate::cluster::node::LinkId;
use crate::cluster::orders::{Order, Outcome};
use crate::cluster::slots::SlotSet;
use crate::config::strerror;
use crate::dispatch::context::Shared;
use crate::dispatch::pause::{Paused, Purpose};
use crate::dispatch::{route, slots, subscriptions};
use crate::durability::save;
use crate::pubsub::Nobody;
use crate::replication::following;
use crate::wire::{Side, Socket, socket};

/// How often time passes for the machine.
const TICK: Duration = Duration::from_millis(100);
/// How often a failover that waits for nothing but this server's offset is gone on with.
const HURRY: Duration = Duration::from_millis(1);
/// Things that may have happened and not been looked at: who reads a link waits then.
const HAPPENED: usize = 128;
/// Messages that may wait for a write of the file.
const HELD: usize = 4096;
/// Handshakes of nodes that connect, at a time; and how long one may take.
const HANDSHAKES: usize = 256;
const PATIENCE: Duration = Duration::from_secs(5);
/// Memory of a link beside what waits to be sent, in bytes: its buffers.
const LINK_SIZE: usize = 8192;

/// A client that waits for its order's effects.
struct Waiting {
    /// What has to be on the disk.
    saved: u64,
    outcome: Outcome,
    answer: Box<dyn FnOnce(Outcome) + Send>,
}

struct Driver {
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    tell: Sender<Happened>,
    saver: Saver,
    names: Names,
    links: HashMap<LinkId, Link>,
    /// The last write of the file that ended well.
    saved: u64,
    /// The last that was handed to the saver.
    handed: u64,
    /// Messages that wait for a write.
    held: Vec<(u64, LinkId, Arc<[u8]>)>,
    waiting: Vec<Waiting>,
    /// Data sets that are being dropped.
    emptying: usize,
    /// The order to lead that is being carried out: until then clients are not told of new slots.
    leading: Option<u64>,
    /// A change of role that waits until what the server loads at its start is there.
    role: Option<Action>,
    /// Slots that were taken, and the place of who had them: until this save they are shown to be that one's.
    taking: Option<(u64, Vec<(u16, u16)>)>,
    /// [`Machine::version`] of what was published.
    published: u64,
    fails: bool,
}

/// What the thread begins with.
pub struct Beginning {
    /// The node's file.
    pub file: NodeFile,
    /// What the machine wanted done first.
    pub first: Vec<Action>,
    /// Sockets that listen on the bus' port.
    pub listeners: Vec<std::net::TcpListener>,
}

/// Runs for as long as the process lives.
pub fn run(shared: Arc<Shared>, beginning: Beginning) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime.and_then(|runtime| runtime.block_on(drive(shared, beginning)));
    if let Err(error) = result {
        // A node that cannot be heard is worse than one that is gone.
        tracing::warn!("The cluster bus cannot run: {}", strerror(&error));
        std::process::exit(1);
    }
}

async fn drive(shared: Arc<Shared>, beginning: Beginning) -> io::Result<()> {
    let Some(cluster) = shared.cluster.clone() else {
        return Ok(());
    };
    let (tell, mut happened) = channel(HAPPENED);
    let saves = tell.clone();
    let saver = Saver::start(beginning.file, move |number, saved| {
        let saved = saved.map_err(|error| strerror(&error));
        // The driver ends with the process.
        let _ = saves.blocking_send(Happened::Saved(number, saved));
    })?;
    for listener in beginning.listeners {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tokio::spawn(accept(Arc::clone(&shared), listener, tell.clone()));
    }
    let mut driver = Driver {
        shared,
        cluster,
        names: Names::new(tell.clone()),
        tell,
        saver,
        links: HashMap::new(),
        saved: 0,
        handed: 0,
        held: Vec::new(),
        waiting: Vec::new(),
        emptying: 0,
        leading: None,
        role: None,
        taking: None,
        published: 0,
        fails: true,
    };
    driver.carry_out(beginning.first);
    names::find_own(driver.tell.clone());
    driver.run(&mut happened).await;
    Ok(())
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, tell: Sender<Happened>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, _)) if shared.config.settings().tls_cluster => {
                let (shared, tell) = (Arc::clone(&shared), tell.clone());
                tokio::spawn(async move {
                    let context = shared.tls.load();
                    let secured = Socket::secure(socket, Side::Accepting, context, PATIENCE).await;
                    drop(place);
                    match secured {
                        // The driver ends with the process.
                        Ok(socket) => _ = tell.send(Happened::Accepted(socket)).await,
                        Err(error) => tracing::debug!(
                            "Error accepting cluster node connection: {}",
                            strerror(&error)
                        ),
                    }
                });
            }
            Ok((socket, _)) => {
                let socket = Socket::Plain(socket);
                if tell.send(Happened::Accepted(socket)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!("Error accepting cluster node: {}", strerror(&error));
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

impl Driver {
    async fn run(&mut self, happened: &mut Receiver<Happened>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cluster = Arc::clone(&self.cluster);
        loop {
            let hurries = self.cluster.machine().is_in_a_hurry();
            // DEBUG SLEEP is to look like a process that hangs.
            self.shared.status.stall.wait();
            tokio::select! {
                biased;
                _ = ticks.tick() => self.tick(),
                () = cluster.wake.notified() => self.look_at_asked(),
                Some(what) = happened.recv() => self.meet(what),
                () = tokio::time::sleep(HURRY), if hurries => {
                    let facts = self.facts();
                    let actions = self.cluster.machine().tick_failover(facts);
                    self.carry_out(actions);
                }
            }
        }
    }

    fn facts(&self) -> Facts {
        let replication = &self.shared.replication;
        let follows = replication.upstream.follows();
        // What was never copied from anybody is nothing that a replica has.
        let loads = self.shared.durability.loading.is_blocking();
        let offset = match follows && (loads || !replication.is_known()) {
            true => 0,
            false => self.shared.stream.offset().cast_signed(),
        };
        let mut copies = false;
        let silence_ms = match follows {
            true => {
                let view = replication.upstream.view();
                let place = view.primary.as_ref();
                copies = view.was_up && self.cluster.machine().followed() == place;
                let seconds = if view.is_up {
                    view.last_io_seconds
                } else {
                    view.down_seconds
                };
                // One that was never connected has been down for ever.
                let seconds = if seconds < 0 {
                    i64::MAX / 4000
                } else {
                    seconds
                };
                seconds * 1000
            }
            false => 0,
        };
        Facts {
            now: self.cluster.now(),
            offset,
            silence_ms,
            copies,
        }
    }

    fn step(&mut self, event: Event<'_>) {
        let facts = self.facts();
        let actions = self.cluster.machine().step(event, facts);
        self.carry_out(actions);
    }

    fn with_machine(&mut self, work: impl FnOnce(&mut Machine, Facts) -> Vec<Action>) {
        let facts = self.facts();
        let actions = work(&mut self.cluster.machine(), facts);
        self.carry_out(actions);
    }

    fn tick(&mut self) {
        self.with_machine(Machine::tick);
        if self.is_loaded()
            && let Some(role) = self.role.take()
        {
            self.carry_out(vec![role]);
        }
        self.follow_again();
        self.look_at_links();
    }

    /// Counts what waits on the links, and closes those with too much.
    fn look_at_links(&mut self) {
        let limit = self.shared.config.settings().cluster_link_sendbuf_limit;
        let held: Vec<(LinkId, usize)> = {
            let machine = self.cluster.machine();
            let links = machine.links().iter();
            links
                .map(|(id, link)| (*id, link.meter.held.load(Relaxed)))
                .collect()
        };
        let memory = held.iter().map(|(_, held)| held + LINK_SIZE).sum();
        self.cluster.link_memory.store(memory, Relaxed);
        for (link, held) in held {
            if limit != 0 && held as u64 > limit {
                self.with_machine(|machine, facts| machine.overflow(link, held, facts));
            }
        }
    }

    fn meet(&mut self, happened: Happened) {
        match happened {
            Happened::Accepted(socket) => self.accepted(socket),
            Happened::Connected(id, Ok(socket)) => {
                let local = link::shown(socket.tcp().local_addr());
                if self.serve(id, socket) {
                    self.step(Event::Connected {
                        link: id,
                        local: &local,
                    });
                }
            }
            Happened::Connected(id, Err(error)) => {
                tracing::debug!(
                    "Connection with a cluster node failed: {}",
                    strerror(&error)
                );
                self.step(Event::Closed(id));
            }
            Happened::Message(link, bytes) => {
                if self.links.contains_key(&link) {
                    self.step(Event::Message {
                        link,
                        bytes: &bytes,
                    });
                }
            }
            Happened::Ended(id) => {
                if self.links.remove(&id).is_some() {
                    self.step(Event::Closed(id));
                }
            }
            Happened::LookedUp(id, addresses) => self.step(Event::LookedUp {
                id,
                addresses: &addresses,
            }),
            Happened::Named(name) => self.step(Event::Named(&name)),
            Happened::Saved(number, saved) => self.saved(number, saved),
            Happened::Paused => self.with_machine(Machine::has_paused),
            Happened::Leads(order) => {
                if self.leading == Some(order) {
                    self.leading = None;
                    self.publish();
                }
            }
            Happened::Emptied => {
                self.emptying -= 1;
                self.answer();
            }
        }
    }

    fn accepted(&mut self, socket: Socket) {
        let (peer, local) = (socket.tcp().peer_addr(), socket.tcp().local_addr());
        let facts = self.facts();
        let id = {
            let mut machine = self.cluster.machine();
            machine.accept(link::shown(peer), link::shown(local), facts)
        };
        self.serve(id, socket);
    }

    /// Serves a connection that the machine knows; false when it does not want it any more.
    fn serve(&mut self, id: LinkId, socket: Socket) -> bool {
        let meter = {
            let machine = self.cluster.machine();
            machine.links().get(&id).map(|link| Arc::clone(&link.meter))
        };
        let Some(meter) = meter else {
            return false;
        };
        let link = Link::serve(id, socket, meter, &self.tell);
        self.links.insert(id, link);
        true
    }

    fn look_at_asked(&mut self) {
        for asked in self.cluster.take_asked() {
            match asked {
                Asked::Order {
                    order,
                    at_once,
                    answer,
                } => {
                    let facts = self.facts();
                    if let Order::SetSlot { slot, .. } = &order {
                        self.cluster.has_left_slot(*slot);
                    }
                    let taken = self.owners_before(&order);
                    let (outcome, actions) = self.cluster.machine().order(order, facts);
                    self.await_save_of(taken, outcome.is_ok(), &actions);
                    self.carry_out(actions);
                    if outcome.is_err() {
                        // What was published ahead of the order is not so.
                        self.publish();
                    }
                    if at_once {
                        answer(outcome);
                        continue;
                    }
                    self.waiting.push(Waiting {
                        saved: self.handed,
                        outcome,
                        answer,
                    });
                    self.answer();
                }
                Asked::Publish {
                    channel,
                    message,
                    shard,
                } => self.with_machine(|machine, facts| {
                    machine.publish(&channel, &message, shard, facts)
                }),
                Asked::Settings(done) => {
                    let settings = self.shared.config.load();
                    let dropped = self.cluster.dropped_kind.load(Relaxed);
                    self.with_machine(|machine, facts| {
                        machine.drop_kind = u16::try_from(dropped).ok();
                        machine.set_settings(settings, facts)
                    });
                    // Whoever changed them may have gone.
                    let _ = done.send(());
                }
            }
        }
    }

    /// Of slots that an order takes over: who has them.
    fn owners_before(&self, order: &Order) -> Vec<(u16, u16)> {
        let Order::Hand(Hand::Take { slots, .. }) = order else {
            return Vec::new();
        };
        let machine = self.cluster.machine();
        let place = |slot| machine.view().owner(slot).map(|owner| (slot, owner.0));
        slots.iter().filter_map(place).collect()
    }

    /// What was taken is served once it is in the file: what is written then is not forgotten with it.
    fn await_save_of(&mut self, taken: Vec<(u16, u16)>, is_so: bool, actions: &[Action]) {
        let save = actions.iter().find_map(|action| match action {
            Action::Save { number, .. } => Some(*number),
            _ => None,
        });
        if let Some(save) = save.filter(|_| is_so && !taken.is_empty()) {
            let mut all = taken;
            all.extend(self.taking.take().into_iter().flat_map(|(_, slots)| slots));
            self.taking = Some((save, all));
        }
    }

    /// Answers those whose orders have had their effect.
    fn answer(&mut self) {
        let (saved, busy) = (self.saved, self.emptying > 0);
        let done =
            |waiting: &Waiting| waiting.outcome.is_err() || (waiting.saved <= saved && !busy);
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(done);
        self.waiting = waiting;
        let done: Vec<Waiting> = done;
        for waiting in done {
            (waiting.answer)(waiting.outcome);
        }
    }

    fn saved(&mut self, number: u64, saved: Result<(), String>) {
        match saved {
            Ok(()) => {
                self.saved = number;
                if self.taking.take_if(|(save, _)| *save <= number).is_some() {
                    self.publish();
                }
                let ready = |(after, ..): &mut (u64, LinkId, Arc<[u8]>)| *after <= number;
                let ready: Vec<_> = self.held.extract_if(.., ready).collect();
                for (_, link, bytes) in ready {
                    self.send(link, bytes);
                }
            }
            Err(reason) => {
                // Whatever they asked for stands, but may not outlive this process.
                for waiting in &mut self.waiting {
                    if waiting.saved <= number {
                        waiting.outcome =
                            Err(format!("error saving the cluster node config: {reason}"));
                    }
                }
            }
        }
        self.answer();
    }

    fn send(&self, link: LinkId, bytes: Arc<[u8]>) {
        if let Some(link) = self.links.get(&link) {
            link.send(bytes);
        }
    }

    /// Tells commands what has changed.
    fn publish(&mut self) {
        if self.leading.is_some() {
            return;
        }
        let (version, fails, picture) = {
            let machine = self.cluster.machine();
            let mut leaving = self.cluster.leaving();
            leaving.extend(self.taking.iter().flat_map(|(_, slots)| slots));
            let picture = picture::draw(&machine, &leaving);
            (machine.version(), machine.fails(), picture)
        };
        self.shared.routes.publish(picture);
        self.published = version;
        if fails != self.fails {
            self.fails = fails;
            route::recheck_blocked(&self.shared);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        // A primary is told to lead before clients are sent to it; who no longer is one sends them on at once.
        if actions.contains(&Action::Lead) {
            self.change_role(Action::Lead);
        }
        if actions
            .iter()
            .any(|action| matches!(action, Action::Follow { .. }))
        {
            // Whatever it was to lead before.
            self.leading = None;
        }
        if self.cluster.machine().version() != self.published {
            self.publish();
        }
        for action in actions {
            self.act(action);
        }
    }

    fn is_loaded(&self) -> bool {
        self.cluster.is_loaded.load(Relaxed)
    }

    /// Has the server follow, or lead, once it is loaded: the last of these counts.
    fn change_role(&mut self, role: Action) {
        self.role = None;
        match role {
            role if !self.is_loaded() => self.role = Some(role),
            Action::Follow { ip, port } => {
                following::order(&self.shared, Some((ip, port)), false);
            }
            _ => self.lead(),
        }
    }

    /// Whatever overtook the last order, the server copies whom its node copies.
    fn follow_again(&self) {
        let upstream = &self.shared.replication.upstream;
        let is_settled = self.is_loaded() && self.role.is_none() && self.leading.is_none();
        if !is_settled || upstream.given() == 0 {
            return;
        }
        let followed = self.cluster.machine().followed().cloned();
        if followed.is_some() && upstream.wanted().primary != followed {
            tracing::warn!("This replica followed somebody else than its primary: that is mended.");
            following::order(&self.shared, followed, false);
        }
    }

    fn lead(&mut self) {
        let order = following::order(&self.shared, None, false);
        self.leading = Some(order);
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::task::spawn_blocking(move || {
            following::await_orders(&shared);
            // The driver ends with the process.
            let _ = tell.blocking_send(Happened::Leads(order));
        });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Save {
                number,
                text,
                durable,
            } => {
                self.handed = number;
                self.saver.save(number, text, durable);
            }
            Action::Connect { link, ip, port } => self.connect(link, ip, port),
            Action::LookUp { id, name } => self.names.look_up(id, name),
            Action::Close(link) => drop(self.links.remove(&link)),
            Action::Send { link, bytes, after } if after > self.saved => {
                // While the disk hangs, what is lost is heartbeats that promise what is not on it.
                if self.held.len() < HELD {
                    self.held.push((after, link, bytes));
                }
            }
            Action::Send { link, bytes, .. } => self.send(link, bytes),
            Action::Follow { .. } => self.change_role(action),
            // See `carry_out`.
            Action::Lead => {}
            Action::Pause { until } => self.pause(until),
            Action::Resume => self.shared.pause.end(Purpose::Failover),
            Action::Leave(left) => {
                subscriptions::leave_slots(&self.shared, |slot| left.has(slot));
                route::recheck_blocked(&self.shared);
            }
            Action::DeleteKeys(gone) => self.delete_keys(gone),
            Action::Empty => {
                self.emptying += 1;
                let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
                tokio::task::spawn_blocking(move || {
                    following::await_orders(&shared);
                    save::empty(&shared, true);
                    // The driver ends with the process.
                    let _ = tell.blocking_send(Happened::Emptied);
                });
            }
            Action::Deliver {
                channel,
                message,
                shard,
            } => {
                let hub = &self.shared.pubsub;
                match shard {
                    true => hub.publish_shard(&channel, &message, &mut Nobody),
                    false => hub.publish(&channel, &message, &mut Nobody),
                };
            }
        }
    }

    fn connect(&self, link: LinkId, ip: String, port: u16) {
        let settings = self.shared.config.load();
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::spawn(async move {
            let source = settings.bind_source_addr.to_str();
            let socket = socket::connect(&ip, port, &source).await;
            let limit = settings.cluster_node_timeout.max(1).unsigned_abs();
            let socket = match socket {
                Ok(socket) if settings.tls_cluster => {
                    let (context, limit) = (shared.tls.load(), Duration::from_millis(limit));
                    Socket::secure(socket, Side::Connecting, context, limit).await
                }
                socket => socket.map(Socket::Plain),
            };
            // The driver ends with the process.
            let _ = tell.send(Happened::Connected(link, socket)).await;
        });
    }

    /// Has clients' writes wait; the machine is told once none is under way.
    fn pause(&self, until: i64) {
        let until = crate::base::clock::unix_ms() + (until - self.cluster.now()).max(0);
        self.shared
            .pause
            .begin(Purpose::Failover, until, Paused::Writes);
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::task::spawn_blocking(move || {
            shared.pass_turns();
            // The driver ends with the process.
            let _ = tell.blocking_send(Happened::Paused);
        });
    }

    fn delete_keys(&self, gone: SlotSet) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            for slot in gone.iter() {
                // It may have come back meanwhile.
                let keeps = shared
                    .routes
                    .with(|view| view.is_mine(slot) || view.slot(slot).importing_from.is_some());
                if !keeps {
                    slots::delete(&shared, slot);
                }
            }
            if let Some(cluster) = &shared.cluster {
                cluster.order(Order::Hand(Hand::Clean(gone)), true, |_| {});
            }
        });
    }
}
