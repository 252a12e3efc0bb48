//! EVAL, EVALSHA, FCALL: finding what is to run, what stands against it, running it, and its reply.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::replies::Failure;
use super::sandbox::Purpose;
use super::vm::{Ran, Vm};
use super::world::Host;
use crate::base::number::parse_i64;
use crate::dispatch::admit;
use crate::dispatch::context::{ServerCtx, Shared, Worker};
use crate::dispatch::error::Error;
use crate::dispatch::scripted::{Reach, Rules, Scripted};
use crate::dispatch::source;
use crate::observe::stats::bump;
use crate::resp::write::Protocol;
use crate::scripts::{Digest, Script, ScriptFlags, digest_of, hex, parse_digest};

/// A thread's interpreters.
#[derive(Default)]
struct Vms {
    eval: Option<Box<EvalVm>>,
    functions: Option<Box<Vm>>,
}

/// The interpreter of scripts, and what it has compiled.
struct EvalVm {
    vm: Vm,
    scripts: HashMap<Digest, (Arc<Script>, i32)>,
    /// How often all scripts had been forgotten when it was made.
    flushes: u64,
}

thread_local! {
    static VMS: RefCell<Vms> = RefCell::default();
}

const NO_SCRIPT: Error = Error::line("NOSCRIPT No matching script. Please use EVAL.");

/// How many arguments are keys.
fn number_of_keys(ctx: &ServerCtx<'_, '_>, not_a_number: Error) -> Result<usize, Error> {
    let count = parse_i64(&ctx.args[2]).ok_or(not_a_number)?;
    if count > ctx.args.len() as i64 - 3 {
        return Err(Error::line(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    usize::try_from(count).map_err(|_| Error::line("ERR Number of keys can't be negative"))
}

/// Where a thread's memory is counted.
fn counted_as(shared: &Shared, worker: &Worker) -> usize {
    match worker.source.is_obeyed() {
        true => shared.status.workers,
        false => worker.index,
    }
}

fn fresh(worker: &Worker, purpose: Purpose) -> Vm {
    Vm::new(purpose, worker.settings.lua_enable_deprecated_api)
}

/// `EVAL` and its kind.
pub fn eval(ctx: &mut ServerCtx<'_, '_>, by_digest: bool, read_only: bool) -> Result<(), Error> {
    ctx.feed_monitors();
    if by_digest && ctx.args[1].len() != 40 {
        return Err(NO_SCRIPT);
    }
    let keys = number_of_keys(ctx, Error::NotInteger)?;
    let shared = ctx.shared;
    let flushes = shared.scripts.sources.flushes();
    let kept = VMS.with_borrow_mut(|vms| vms.eval.take());
    let kept = kept.filter(|kept| kept.flushes == flushes);
    let mut eval_vm = kept.unwrap_or_else(|| {
        Box::new(EvalVm {
            vm: fresh(ctx.worker, Purpose::Eval),
            scripts: HashMap::new(),
            flushes,
        })
    });
    let result = eval_in(ctx, &mut eval_vm, by_digest, read_only, keys);
    let memory = eval_vm.vm.memory();
    let index = counted_as(shared, ctx.worker);
    shared.scripts.note_memory(index, Some(memory), None);
    VMS.with_borrow_mut(|vms| vms.eval = Some(eval_vm));
    result
}

fn eval_in(
    ctx: &mut ServerCtx<'_, '_>,
    eval_vm: &mut EvalVm,
    by_digest: bool,
    read_only: bool,
    keys: usize,
) -> Result<(), Error> {
    let digest = match by_digest {
        true => parse_digest(&ctx.args[1]).ok_or(NO_SCRIPT)?,
        false => digest_of(&ctx.args[1]),
    };
    if !eval_vm.scripts.contains_key(&digest) {
        let source = (!by_digest).then_some(&ctx.args[1]);
        let entry = compile(ctx.shared, eval_vm, &digest, source)?;
        eval_vm.scripts.insert(digest, entry);
    }
    let Some((script, function)) = eval_vm.scripts.get(&digest) else {
        return Err(NO_SCRIPT);
    };
    let (script, function) = (Arc::clone(script), *function);
    prepare(ctx, script.flags, read_only)?;
    let rules = Rules {
        name: &hex(&digest),
        is_eval: true,
        ..rules(script.flags, read_only)
    };
    let vm = &mut eval_vm.vm;
    run(
        ctx,
        rules,
        &script.reaches,
        keys,
        vm,
        |vm, lists, host, out| vm.run_script(function, lists, host, out),
    )
}

/// Compiles a script that is new to this thread, and keeps its source for all.
fn compile(
    shared: &Shared,
    eval_vm: &mut EvalVm,
    digest: &Digest,
    source: Option<&[u8]>,
) -> Result<(Arc<Script>, i32), Error> {
    let sources = &shared.scripts.sources;
    let script = match (sources.get(digest), source) {
        (Some(script), _) => script,
        (None, Some(source)) => Arc::new(Script::new(source).map_err(Error::Bytes)?),
        (None, None) => return Err(NO_SCRIPT),
    };
    let function = eval_vm.vm.compile(&script).map_err(|text| {
        let head = b"ERR Error compiling script (new function): ";
        Error::Bytes([&head[..], &text].concat())
    })?;
    Ok((sources.add(script), function))
}

/// `SCRIPT LOAD`: compiles a source and keeps it; its digest.
pub fn load(ctx: &mut ServerCtx<'_, '_>, source: &[u8]) -> Result<Digest, Error> {
    let digest = digest_of(source);
    let sources = &ctx.shared.scripts.sources;
    if sources.get(&digest).is_none() {
        let mut eval_vm = EvalVm {
            vm: fresh(ctx.worker, Purpose::Eval),
            scripts: HashMap::new(),
            flushes: 0,
        };
        compile(ctx.shared, &mut eval_vm, &digest, Some(source))?;
    }
    Ok(digest)
}

/// `FCALL` and its kind.
pub fn fcall(ctx: &mut ServerCtx<'_, '_>, read_only: bool) -> Result<(), Error> {
    ctx.feed_monitors();
    let shared = ctx.shared;
    let registry = shared.scripts.libraries.now();
    let Some((library, function)) = registry.find(&ctx.args[1]) else {
        return Err(Error::line("ERR Function not found"));
    };
    let keys = number_of_keys(ctx, Error::line("ERR Bad number of keys provided"))?;
    let registered = &function.registered;
    prepare(ctx, registered.flags, read_only)?;
    let kept = VMS.with_borrow_mut(|vms| vms.functions.take());
    let mut vm = kept.unwrap_or_else(|| Box::new(fresh(ctx.worker, Purpose::Functions)));
    if vm.libraries() > registry.libraries.len() {
        let ids: Vec<u64> = registry.libraries.values().map(|l| l.id).collect();
        vm.keep_libraries(|id| ids.contains(&id));
    }
    vm.limit(ctx.worker.settings.lua_memory_limit as usize);
    let result = match vm.function(library, &registered.name) {
        Err(text) => Err(Error::Bytes([b"ERR ", &text[..]].concat())),
        Ok(kept) => {
            let rules = Rules {
                name: &registered.name,
                is_eval: false,
                ..rules(registered.flags, read_only)
            };
            let reaches = &function.reaches;
            run(
                ctx,
                rules,
                reaches,
                keys,
                &mut vm,
                |vm, lists, host, out| vm.run_function(kept, lists, host, out),
            )
        }
    };
    let index = counted_as(shared, ctx.worker);
    shared.scripts.note_memory(index, None, Some(vm.memory()));
    VMS.with_borrow_mut(|vms| vms.functions = Some(vm));
    result
}

fn rules(flags: ScriptFlags, read_only: bool) -> Rules<'static> {
    let speaks = !flags.has(ScriptFlags::SAYS_NOTHING);
    Rules {
        read_only: read_only || (speaks && flags.has(ScriptFlags::NO_WRITES)),
        allow_oom: speaks && flags.has(ScriptFlags::ALLOW_OOM),
        many_slots: !speaks || flags.has(ScriptFlags::ALLOW_CROSS_SLOT),
        is_eval: false,
        name: b"",
    }
}

/// What stands against a script as a whole.
fn prepare(ctx: &ServerCtx<'_, '_>, flags: ScriptFlags, read_only: bool) -> Result<(), Error> {
    let (shared, worker) = (ctx.shared, &*ctx.worker);
    let (settings, upstream) = (&worker.settings, &shared.replication.upstream);
    let is_stale = upstream.follows() && !upstream.is_up() && !settings.replica_serve_stale_data;
    if flags.has(ScriptFlags::SAYS_NOTHING) {
        return match is_stale {
            true => Err(Error::line(
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            )),
            false => Ok(()),
        };
    }
    if flags.has(ScriptFlags::NO_CLUSTER) && settings.cluster_enabled {
        return Err(Error::line(
            "ERR Can not run script on cluster, 'no-cluster' flag is set.",
        ));
    }
    if is_stale && !flags.has(ScriptFlags::ALLOW_STALE) {
        return Err(Error::line(
            "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and \
             'allow-stale' flag is not set on the script.",
        ));
    }
    if !flags.has(ScriptFlags::NO_WRITES) {
        admit::script_that_writes(shared, worker, read_only)?;
    }
    let may_grow = flags.has(ScriptFlags::ALLOW_OOM.or(ScriptFlags::NO_WRITES));
    if settings.maxmemory > 0 && worker.out_of_memory && !may_grow {
        return Err(Error::line(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > \
             'maxmemory'",
        ));
    }
    Ok(())
}

/// The server as a running script sees it.
struct Running<'s, 'a, 'k>(&'s mut Scripted<'a, 'k>);

impl Host for Running<'_, '_, '_> {
    fn call(&mut self, args: &[&[u8]], reply: &mut dyn FnMut(&[u8])) -> Result<(), Vec<u8>> {
        self.0.call(args, reply)
    }

    fn protocol(&self) -> Protocol {
        self.0.protocol()
    }

    fn set_protocol(&mut self, protocol: Protocol) {
        self.0.set_protocol(protocol);
    }

    fn set_audience(&mut self, audience: u8) {
        self.0.set_audience(audience);
    }

    fn may_call(&mut self, args: &[&[u8]]) -> Option<bool> {
        self.0.may_call(args)
    }

    fn look(&mut self) -> bool {
        self.0.look()
    }

    fn ends(&self) -> bool {
        self.0.ends()
    }
}

/// Keys and other arguments of a script.
type Lists<'a> = (&'a [&'a [u8]], &'a [&'a [u8]]);

/// Runs a script, again with all shards when it has to start over, and answers.
fn run(
    ctx: &mut ServerCtx<'_, '_>,
    rules: Rules<'_>,
    reaches: &AtomicBool,
    keys: usize,
    vm: &mut Vm,
    call: impl Fn(&mut Vm, Lists<'_>, &mut dyn Host, &mut crate::resp::write::Output) -> Ran,
) -> Result<(), Error> {
    vm.limit(ctx.worker.settings.lua_memory_limit as usize);
    let lists = ctx.args.rest(3).split_at(keys);
    let mut reach = match reaches.load(Relaxed) {
        true => Reach::All,
        false => Reach::Declared,
    };
    let mark = ctx.out.mark();
    let ran = loop {
        let ServerCtx {
            shared,
            worker,
            session,
            args,
            out,
            held,
            ..
        } = &mut *ctx;
        let held = held.as_deref_mut();
        let caller = (&**session, *args, held);
        let mut scripted = Scripted::begin(shared, worker, caller, rules, lists.0, reach)?;
        let ran = call(vm, lists, &mut Running(&mut scripted), out);
        if scripted.is_killed() {
            tracing::warn!("Lua script killed by user with SCRIPT KILL.");
        }
        let ended = scripted.end();
        if ended.reached {
            reaches.store(true, Relaxed);
        }
        if !ended.starts_over {
            break ran;
        }
        ctx.out.truncate_to(mark);
        reach = Reach::All;
    };
    answer(ctx, rules.name, ran)
}

/// Counts the errors that a script replied, or answers with the one that it raised.
fn answer(ctx: &mut ServerCtx<'_, '_>, name: &[u8], ran: Ran) -> Result<(), Error> {
    let errors = match ran {
        Ran::Returned(errors) => errors,
        Ran::Raised(failure) => return raised(ctx, name, failure),
    };
    if errors.is_empty() {
        return Ok(());
    }
    for error in &errors {
        if !error.counted {
            ctx.shared.stats.count_error(&error.text);
        }
        if ctx.worker.source.is_obeyed() {
            source::failed(ctx.shared, ctx.worker, &error.text);
        }
    }
    count_failure(ctx);
    Ok(())
}

/// Counts the command that runs the script as failed.
fn count_failure(ctx: &ServerCtx<'_, '_>) {
    if let Some(known) = ctx.shared.commands.find(&ctx.args[0]) {
        bump(&ctx.worker.stats.commands[known.id].failed, 1);
    }
}

fn raised(ctx: &mut ServerCtx<'_, '_>, name: &[u8], failure: Failure) -> Result<(), Error> {
    let Failure {
        text,
        counted,
        place,
        is_bare,
    } = failure;
    let text = match place {
        Some((source, line)) => [
            &text[..],
            b" script: ",
            name,
            b", on ",
            &source,
            b":",
            &line,
            b".",
        ]
        .concat(),
        None if is_bare => [b"ERR Error running script ", name, b", ", &text].concat(),
        None => text,
    };
    if counted {
        ctx.out.error_bytes(&text);
        count_failure(ctx);
        return Ok(());
    }
    Err(Error::Bytes(text))
}
