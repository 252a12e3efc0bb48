//! Dump files: SAVE, BGSAVE, LASTSAVE.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use crate::client::session::{Replies, Session};
use crate::dispatch::blocking;
use crate::dispatch::command::{Acl, Command, Flags, Handler, ROW};
use crate::dispatch::context::{ServerCtx, Shared, Worker};
use crate::dispatch::error::Error;
use crate::dispatch::job::Job;
use crate::durability::{append_only, save};
use crate::resp::write::Output;

const FOR_ADMINS: Flags = Flags::NO_ASYNC_LOADING.or(Flags::ADMIN).or(Flags::NOSCRIPT);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "save",
        arity: 1,
        flags: FOR_ADMINS.or(Flags::NO_MULTI),
        handler: Handler::Server(save),
        ..ROW
    },
    Command {
        name: "bgsave",
        arity: -1,
        flags: FOR_ADMINS,
        handler: Handler::Server(bgsave),
        ..ROW
    },
    Command {
        name: "bgrewriteaof",
        arity: 1,
        flags: FOR_ADMINS,
        handler: Handler::Server(bgrewriteaof),
        ..ROW
    },
    Command {
        name: "lastsave",
        arity: 1,
        flags: Flags::LOADING.or(Flags::STALE).or(Flags::FAST),
        acl: Acl::ADMIN.or(Acl::DANGEROUS),
        tips: &["nondeterministic_output"],
        handler: Handler::Server(lastsave),
        ..ROW
    },
];

const IN_PROGRESS: Error = Error::line("ERR Background save already in progress");

/// `SAVE`
fn save(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let state = &ctx.shared.durability;
    // A rewrite of the append-only file, and another one's SAVE, are waited for.
    let waits = ctx.shared.append_only.is_rewriting() || ctx.shared.chores.save.is_active();
    if state.saves.running.load(Relaxed) || (state.saves.is_busy() && !waits) {
        return Err(IN_PROGRESS);
    }
    blocking::park_for_chore(ctx, &save::SAVE);
    Ok(())
}

/// `BGSAVE [SCHEDULE]`
fn bgsave(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let schedule = match ctx.args.len() {
        1 => false,
        2 if ctx.args.is(1, "schedule") => true,
        _ => return Err(Error::Syntax),
    };
    let saves = &ctx.shared.durability.saves;
    if saves.running.load(Relaxed) {
        return Err(IN_PROGRESS);
    }
    // A rewrite that was begun may not have its turn yet.
    let is_busy = saves.is_busy() || ctx.shared.append_only.is_rewriting();
    // Within a transaction it waits for its end, as everything that looks at all keys.
    if ctx.held.is_some() || (schedule && is_busy) {
        saves.scheduled.store(true, Relaxed);
        ctx.out.simple("Background saving scheduled");
    } else if is_busy {
        return Err(Error::line(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE \
             SCHEDULE in order to schedule a BGSAVE whenever possible.",
        ));
    } else if save::begin_save(ctx.shared) {
        if ctx.session.replies == Replies::On {
            ctx.worker.job = Some(Box::new(UntilCut));
        } else {
            UntilCut.reply(ctx.out);
        }
    } else {
        return Err(IN_PROGRESS);
    }
    Ok(())
}

/// Waits for the cut of the save in the background: it does not hold what its client does after the
/// reply.
struct UntilCut;

impl Job for UntilCut {
    fn step(&mut self, shared: &Shared, _: &mut Worker, _: &Session) -> bool {
        let awaited = shared.durability.saves.awaited.load(Acquire);
        if awaited {
            // It takes a moment, and a processor.
            std::thread::yield_now();
        }
        !awaited
    }

    fn reply(&mut self, out: &mut Output) {
        out.simple("Background saving started");
    }
}

/// `BGREWRITEAOF`
fn bgrewriteaof(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let aof = &ctx.shared.append_only;
    if aof.is_rewriting() {
        return Err(Error::line(
            "ERR Background append only file rewriting already in progress",
        ));
    }
    // Within a transaction it waits for its end, as everything that looks at all keys.
    if ctx.held.is_none() && append_only::begin_rewrite(ctx.shared) {
        ctx.out
            .simple("Background append only file rewriting started");
    } else {
        aof.schedule();
        ctx.out
            .simple("Background append only file rewriting scheduled");
    }
    Ok(())
}

/// `LASTSAVE`
fn lastsave(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let seconds = ctx.shared.durability.saves.last_success.load(Relaxed);
    ctx.out.int(seconds);
    Ok(())
}
