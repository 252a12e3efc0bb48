//! What a running script finds around it: the server, through [`Host`]; and what its interpreter keeps from
//! script to script, the [`World`].

use std::ptr::NonNull;
use std::time::Instant;

use super::lua::Watch;
use super::random::Random;
use crate::resp::write::Protocol;
use crate::scripts::Registered;

/// The server as a running script sees it.
pub trait Host {
    /// Runs a command and shows its reply; or why it was not run.
    fn call(&mut self, args: &[&[u8]], reply: &mut dyn FnMut(&[u8])) -> Result<(), Vec<u8>>;
    /// The protocol in which the script sees replies.
    fn protocol(&self) -> Protocol;
    /// `redis.setresp`
    fn set_protocol(&mut self, protocol: Protocol);
    /// `redis.set_repl`: bit 0 the append-only file, bit 1 replicas.
    fn set_audience(&mut self, audience: u8);
    /// `redis.acl_check_cmd`; `None`: there is no such command.
    fn may_call(&mut self, args: &[&[u8]]) -> Option<bool>;
    /// Called every so many instructions. True when the script is to end.
    fn look(&mut self) -> bool;
    /// The script is to end, whatever it does.
    fn ends(&self) -> bool;
}

/// The library that is being loaded.
#[derive(Default)]
pub struct Load {
    /// What it registered, with the functions in the interpreter's registry.
    pub functions: Vec<(Registered, i32)>,
    /// When it has taken too long.
    pub until: Option<Instant>,
    /// It has taken too long.
    pub is_late: bool,
}

/// What belongs to an interpreter.
#[derive(Default)]
pub struct World {
    host: Option<NonNull<dyn Host>>,
    /// A library is being loaded.
    pub load: Option<Load>,
    /// `math.random`
    pub random: Random,
    /// The arguments of a command, one behind the other.
    pub arguments: Vec<u8>,
    /// Where each of them ends.
    pub ends: Vec<usize>,
}

/// What a script is told that is killed, whatever kind it is of.
pub const KILLED: &str = "Script killed by user with SCRIPT KILL...";

impl World {
    /// Has the host there while `work` runs.
    ///
    /// `world` gives the same world again, which `work` holds in its own way.
    pub fn lend<T, R>(
        holder: &mut T,
        host: &mut dyn Host,
        world: impl Fn(&mut T) -> &mut World,
        work: impl FnOnce(&mut T) -> R,
    ) -> R {
        let host: NonNull<dyn Host + '_> = NonNull::from(host);
        // SAFETY: the pointer is forgotten below, before the borrow of the host that it stands for ends;
        // only its lifetime changes.
        let host =
            unsafe { std::mem::transmute::<NonNull<dyn Host + '_>, NonNull<dyn Host>>(host) };
        world(holder).host = Some(host);
        let result = work(holder);
        world(holder).host = None;
        result
    }

    /// The server, while a script runs.
    pub fn host(&mut self) -> Option<&mut (dyn Host + 'static)> {
        // SAFETY: `lend` put it there and is still running, with the only borrow of it; the world's own
        // borrow allows one use at a time.
        self.host.map(|mut host| unsafe { host.as_mut() })
    }

    /// The running script is to end, whatever it does.
    pub fn ends(&mut self) -> bool {
        let late = self.load.as_ref().is_some_and(|load| load.is_late);
        late || self.host().is_some_and(|host| host.ends())
    }
}

impl Watch for World {
    fn look(&mut self) -> Option<&'static str> {
        if let Some(load) = &mut self.load {
            load.is_late |= load.until.is_some_and(|until| Instant::now() > until);
            return load.is_late.then_some("FUNCTION LOAD timeout");
        }
        self.host()?.look().then_some(KILLED)
    }
}
