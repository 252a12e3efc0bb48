//! What commands say to the stream: as they came, as something else, or as the primary sent it.

use super::args::Args;
use super::command::Flags;
use super::context::{ServerCtx, Shared, Worker};
use crate::keyspace::db::{Effects, Rewrite};
use crate::propagation::Audience;

/// Appends what the primary sent to the stream, byte by byte, under the locks under which it was done.
/// `db` is selected afterwards.
#[inline(never)]
pub fn pass_on(shared: &Shared, worker: &mut Worker, db: usize, args: Args<'_>) {
    let for_replicas = worker
        .obeyed
        .is_some_and(|id| shared.commands.get(id).flags.has(Flags::FOR_REPLICAS));
    if let Some(request) = args.whole() {
        worker.appended = shared.stream.append_raw(request, db, for_replicas);
    }
}

/// What a command that just ran propagates: removals of keys and fields that it found expired, then
/// itself.
#[cold]
pub(super) fn propagated(worker: &mut Worker, db: usize, args: Args<'_>) -> Vec<Propagated> {
    let effects = &mut worker.effects;
    let removal = if worker.env.lazy_expire {
        &b"UNLINK"[..]
    } else {
        b"DEL"
    };
    let expired = effects.expired().iter();
    let mut commands: Vec<_> = expired
        .map(|(db, key)| Propagated::new(*db, vec![removal.to_vec(), key.to_vec()]))
        .collect();
    commands.extend(removals_of_fields(effects));
    if effects.propagate() {
        match effects.take_rewrite() {
            Rewrite::Verbatim => commands.push(Propagated::new(db, owned(args))),
            Rewrite::As(forms) => {
                commands.extend(forms.into_iter().map(|form| Propagated::new(db, form)));
            }
        }
    }
    commands
}

/// How removals of expired fields of hashes are propagated.
pub(super) fn removals_of_fields(effects: &Effects) -> Vec<Propagated> {
    let fields = effects.expired_fields().iter();
    let removals = fields.map(|gone| {
        let command = vec![b"HDEL".to_vec(), gone.key.to_vec(), gone.field.to_vec()];
        Propagated::new(gone.db, command)
    });
    removals.collect()
}

/// A command for the stream.
#[derive(Debug)]
pub struct Propagated {
    /// The database on which it runs.
    pub db: usize,
    /// Its name and arguments.
    pub args: Vec<Vec<u8>>,
    /// Who reads it.
    pub audience: Audience,
}

impl Propagated {
    /// A command for files and replicas.
    pub fn new(db: usize, args: Vec<Vec<u8>>) -> Self {
        Self {
            db,
            args,
            audience: Audience::All,
        }
    }
}

fn owned(args: Args<'_>) -> Vec<Vec<u8>> {
    args.all().iter().map(|a| a.to_vec()).collect()
}

/// Appends commands to the stream as one block, a transaction if there are several; returns the
/// offset after it, 0 for no commands.
pub fn append(shared: &Shared, commands: &[Propagated]) -> u64 {
    if commands.is_empty() {
        return 0;
    }
    shared.stream.append(|block| {
        // The database is chosen before, not within.
        block.select(commands[0].db);
        if commands.len() > 1 {
            block.bare(&["MULTI"]);
        }
        for command in commands {
            block.select(command.db);
            match command.audience {
                Audience::All => block.bare(&command.args),
                Audience::Replicas => block.for_replicas(&command.args),
                Audience::Files => block.for_files(&command.args),
            }
        }
        if commands.len() > 1 {
            block.bare(&["EXEC"]);
        }
    })
}

/// Propagates the running command, which changes no keys, to replicas: theirs are told by their primary.
pub fn tell_replicas(ctx: &mut ServerCtx<'_, '_>) {
    let replication = &ctx.shared.replication;
    if !ctx.worker.source.is_heard() || !replication.is_fed() || replication.upstream.follows() {
        return;
    }
    let command = Propagated {
        audience: Audience::Replicas,
        ..Propagated::new(ctx.session.db, owned(ctx.args))
    };
    match ctx.held {
        Some(_) => ctx.worker.pending.push(command),
        None => ctx.worker.appended = append(ctx.shared, &[command]),
    }
}
