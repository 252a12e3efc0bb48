//! Of the stream of effects, what concerns some slots.

use super::requests::Requests;
use crate::base::crc::key_slot;
use crate::cluster::slots::SlotSet;
use crate::dispatch::args::Args;
use crate::dispatch::command::Flags;
use crate::dispatch::context::Shared;
use crate::dispatch::{admit, keys};

/// What goes through the filter, in order.
#[derive(Default)]
pub struct Filter {
    requests: Requests,
    /// Within a transaction: what of it was let through.
    transaction: Option<Vec<u8>>,
}

/// Why the stream cannot be followed.
#[derive(Debug, PartialEq)]
pub enum Unfit {
    /// All data was dropped.
    Flushed,
    /// It holds something that is no command.
    Corrupt,
}

impl Filter {
    /// Takes the next bytes, and appends to `out` what concerns `slots`.
    ///
    /// # Errors
    /// Nothing that follows makes sense.
    pub fn pass(
        &mut self,
        shared: &Shared,
        slots: &SlotSet,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        self.requests.add(bytes);
        let transaction = &mut self.transaction;
        while let Some((args, whole)) = self.requests.next().map_err(|_| Unfit::Corrupt)? {
            let list = Args::new(&args);
            let found = shared.commands.find(args[0]);
            let Some(known) = admit::named(shared, found, list) else {
                continue;
            };
            match known.row.name {
                "multi" => *transaction = Some(Vec::new()),
                "exec" => {
                    let some = transaction.take().filter(|some| !some.is_empty());
                    if let Some(some) = some {
                        out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
                        out.extend_from_slice(&some);
                        out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
                    }
                }
                "flushall" | "flushdb" => return Err(Unfit::Flushed),
                _ => {
                    // All its keys are in one slot.
                    let mut slot = None;
                    keys::routed(known.row, list, |index| {
                        slot = slot.or_else(|| Some(key_slot(args[index])));
                    });
                    let concerned = slot.is_some_and(|slot| slots.has(slot));
                    if concerned && known.flags.has(Flags::WRITE) {
                        transaction.as_mut().unwrap_or(out).extend_from_slice(whole);
                    }
                }
            }
        }
        Ok(())
    }
}
