//! What of a sentinel's commands only tells.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::base::glob;
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::resp::write::Output;
use crate::sentinel::handle::Sentinel;
use crate::sentinel::machine::Machine;
use crate::sentinel::state::{Id, Instance, Kind, Reconf, Role};

type Done = Result<(), Error>;

/// The sentinel that this server is.
pub fn sentinel(ctx: &ServerCtx<'_, '_>) -> Result<Arc<Sentinel>, Error> {
    let sentinel = ctx.shared.sentinel.clone();
    sentinel.ok_or(Error::line("ERR This instance is no sentinel"))
}

/// An argument as text.
pub fn text(ctx: &ServerCtx<'_, '_>, at: usize) -> String {
    String::from_utf8_lossy(&ctx.args[at]).into_owned()
}

fn named(ctx: &ServerCtx<'_, '_>, machine: &Machine) -> Result<Id, Error> {
    let name = text(ctx, 2);
    machine
        .master(&name)
        .ok_or(Error::line("ERR No such master with that name"))
}

/// Counted pairs of a map, which are written one by one.
struct Fields<'a>(Vec<(&'a str, Vec<u8>)>);

impl<'a> Fields<'a> {
    fn text(&mut self, name: &'a str, value: &str) {
        self.0.push((name, value.as_bytes().to_vec()));
    }

    fn number(&mut self, name: &'a str, value: impl Into<i128>) {
        self.0.push((name, value.into().to_string().into_bytes()));
    }

    fn write(self, out: &mut Output) {
        out.map(self.0.len());
        for (name, value) in self.0 {
            out.bulk(name.as_bytes());
            out.bulk(&value);
        }
    }
}

fn flags(machine: &Machine, id: Id) -> String {
    let about = machine.inst(id);
    let fails_over = about.kind == Kind::Master && machine.group(id).fails_over;
    let forced = about.kind == Kind::Master && machine.group(id).forced;
    let all = [
        (about.s_down, "s_down"),
        (about.o_down, "o_down"),
        (true, about.kind.word()),
        (machine.disconnected(id), "disconnected"),
        (about.master_down, "master_down"),
        (fails_over, "failover_in_progress"),
        (about.promoted, "promoted"),
        (about.reconf == Reconf::Sent, "reconf_sent"),
        (about.reconf == Reconf::InProgress, "reconf_inprog"),
        (about.reconf == Reconf::Done, "reconf_done"),
        (forced, "force_failover"),
        (about.script_kill_sent, "script_kill_sent"),
    ];
    let set: Vec<&str> = all
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, word)| *word)
        .collect();
    set.join(",")
}

fn instance(machine: &Machine, id: Id, now: i64, out: &mut Output) {
    let (about, link) = (machine.inst(id), machine.link(id));
    let group = machine.group(about.master);
    let since = |time: i64| if time == 0 { 0 } else { now - time };
    let mut fields = Fields(Vec::with_capacity(32));
    fields.text("name", &about.name);
    fields.text("ip", machine.announced(&about.addr));
    fields.number("port", about.addr.port);
    fields.text("runid", about.runid.as_deref().unwrap_or_default());
    fields.text("flags", &flags(machine, id));
    fields.number("link-pending-commands", link.pending.len() as i64);
    fields.number("link-refcount", link.users as i64);
    if about.kind == Kind::Master && group.fails_over {
        fields.text("failover-state", group.step.word());
    }
    fields.number("last-ping-sent", since(link.ping_since));
    fields.number("last-ok-ping-reply", now - link.last_ok);
    fields.number("last-ping-reply", now - link.last_pong);
    if about.s_down {
        fields.number("s-down-time", now - about.s_down_since);
    }
    if about.o_down {
        fields.number("o-down-time", now - about.o_down_since);
    }
    fields.number("down-after-milliseconds", group.down_after);
    if about.kind != Kind::Sentinel {
        let role = if about.role == Role::Master {
            "master"
        } else {
            "slave"
        };
        fields.number("info-refresh", since(about.info_refresh));
        fields.text("role-reported", role);
        fields.number("role-reported-time", now - about.role_since);
    }
    match about.kind {
        Kind::Master => {
            fields.number("config-epoch", group.config_epoch);
            fields.number("num-slaves", group.replicas.len() as i64);
            fields.number("num-other-sentinels", group.sentinels.len() as i64);
            fields.number("quorum", group.quorum);
            fields.number("failover-timeout", group.failover_timeout);
            fields.number("parallel-syncs", group.parallel_syncs);
            if let Some(script) = &group.notification_script {
                fields.text("notification-script", script);
            }
            if let Some(script) = &group.reconfig_script {
                fields.text("client-reconfig-script", script);
            }
        }
        Kind::Replica => replica(about, &mut fields),
        Kind::Sentinel => {
            fields.number("last-hello-message", now - about.last_hello);
            fields.text("voted-leader", about.leader.as_deref().unwrap_or("?"));
            fields.number("voted-leader-epoch", about.leader_epoch);
        }
    }
    fields.write(out);
}

fn replica(about: &Instance, fields: &mut Fields<'_>) {
    fields.number("master-link-down-time", about.link_down_ms);
    fields.text(
        "master-link-status",
        if about.link_up { "ok" } else { "err" },
    );
    fields.text("master-host", about.master_host.as_deref().unwrap_or("?"));
    fields.number("master-port", about.master_port);
    fields.number("slave-priority", about.priority);
    fields.number("slave-repl-offset", about.offset);
    fields.number("replica-announced", i64::from(about.announced));
}

fn instances(machine: &Machine, ids: &[Id], now: i64, out: &mut Output) {
    let shown = |id: &&Id| machine.inst(**id).announced || machine.inst(**id).kind != Kind::Replica;
    let ids: Vec<&Id> = ids.iter().filter(shown).collect();
    out.array(ids.len());
    for id in ids {
        instance(machine, *id, now, out);
    }
}

/// `SENTINEL MASTERS`
pub fn masters(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let ids: Vec<Id> = machine.masters.values().copied().collect();
    instances(&machine, &ids, sentinel.now(), ctx.out);
    Ok(())
}

/// `SENTINEL MASTER name`
pub fn master(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let id = named(ctx, &machine)?;
    instance(&machine, id, sentinel.now(), ctx.out);
    Ok(())
}

/// `SENTINEL REPLICAS name`
pub fn replicas(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let id = named(ctx, &machine)?;
    instances(
        &machine,
        &machine.group(id).replicas,
        sentinel.now(),
        ctx.out,
    );
    Ok(())
}

/// `SENTINEL SENTINELS name`
pub fn sentinels(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let id = named(ctx, &machine)?;
    instances(
        &machine,
        &machine.group(id).sentinels,
        sentinel.now(),
        ctx.out,
    );
    Ok(())
}

/// `SENTINEL GET-MASTER-ADDR-BY-NAME name`
pub fn master_addr(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let Ok(id) = named(ctx, &machine) else {
        ctx.out.null_array();
        return Ok(());
    };
    let addr = machine.current_addr(id);
    ctx.out.array(2);
    ctx.out.bulk(machine.announced(addr).as_bytes());
    ctx.out.bulk_int(addr.port.into());
    Ok(())
}

/// `SENTINEL MYID`
pub fn myid(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    ctx.out.bulk(machine.globals.myid.as_bytes());
    Ok(())
}

/// `SENTINEL CKQUORUM name`
pub fn ckquorum(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let id = named(ctx, &machine)?;
    let (usable, quorum, most) = machine.usable(id);
    if quorum && most {
        ctx.out.simple(&format!(
            "OK {usable} usable Sentinels. Quorum and failover authorization can be reached"
        ));
        return Ok(());
    }
    let missing = [
        (
            quorum,
            "Not enough available Sentinels to reach the specified quorum for this master",
        ),
        (
            most,
            "Not enough available Sentinels to reach the majority and authorize a failover",
        ),
    ];
    let missing: Vec<&str> = missing
        .iter()
        .filter(|(has, _)| !has)
        .map(|(_, text)| *text)
        .collect();
    let line = format!("NOQUORUM {usable} usable Sentinels. {}", missing.join(". "));
    Err(Error::Bytes(line.into_bytes()))
}

/// `SENTINEL INFO-CACHE name [name ...]`
pub fn info_cache(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let now = sentinel.now();
    let mut ids: Vec<Id> = Vec::new();
    for at in 2..ctx.args.len() {
        let name = text(ctx, at);
        ids.extend(machine.master(&name).filter(|id| !ids.contains(id)));
    }
    ctx.out.array(ids.len() * 2);
    for id in ids {
        ctx.out.bulk(machine.inst(id).name.as_bytes());
        let replicas = &machine.group(id).replicas;
        ctx.out.array(1 + replicas.len());
        for member in [id].iter().chain(replicas) {
            let about = machine.inst(*member);
            ctx.out.array(2);
            ctx.out.int(match about.info_refresh {
                0 => 0,
                time => now - time,
            });
            match &about.info {
                Some(info) => ctx.out.bulk(info),
                None => ctx.out.null(),
            }
        }
    }
    Ok(())
}

/// `SENTINEL PENDING-SCRIPTS`
pub fn pending_scripts(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    let now = sentinel.now();
    let out = &mut *ctx.out;
    out.array(machine.jobs.queue.len());
    for job in &machine.jobs.queue {
        out.map(5);
        out.bulk(b"argv");
        out.array(job.argv.len());
        for word in &job.argv {
            out.bulk(word.as_bytes());
        }
        let (flags, name, time) = match job.run {
            Some(_) => ("running", "run-time", now - job.start),
            None => ("scheduled", "run-delay", (job.start - now).max(0)),
        };
        out.bulk(b"flags");
        out.bulk(flags.as_bytes());
        out.bulk(b"pid");
        out.bulk_int(job.pid.into());
        out.bulk(name.as_bytes());
        out.bulk_int(time);
        out.bulk(b"retry-num");
        out.bulk_int(job.attempts.into());
    }
    Ok(())
}

/// `SENTINEL CONFIG GET pattern`
pub fn config(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let globals = sentinel.machine().globals.clone();
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let all = [
        ("resolve-hostnames", yes(globals.resolve_hostnames)),
        ("announce-hostnames", yes(globals.announce_hostnames)),
        ("announce-ip", globals.announce_ip.unwrap_or_default()),
        ("announce-port", globals.announce_port.to_string()),
        ("sentinel-user", globals.sentinel_user.unwrap_or_default()),
        ("sentinel-pass", globals.sentinel_pass.unwrap_or_default()),
    ];
    let mut fields = Fields(Vec::new());
    for (name, value) in &all {
        if glob::matches(&ctx.args[3], name.as_bytes(), true) {
            fields.text(name, value);
        }
    }
    fields.write(ctx.out);
    Ok(())
}

/// `SENTINEL DEBUG`
pub fn periods(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let mut periods = sentinel.machine().periods.clone();
    let mut fields = Fields(Vec::new());
    for (name, value) in periods.named() {
        fields.number(name, *value);
    }
    fields.write(ctx.out);
    Ok(())
}

/// `ROLE`
pub fn role(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let machine = sentinel.machine();
    ctx.out.array(2);
    ctx.out.bulk(b"sentinel");
    ctx.out.array(machine.masters.len());
    for name in machine.masters.keys() {
        ctx.out.bulk(name.as_bytes());
    }
    Ok(())
}

/// `INFO [section ...]`
pub fn info(ctx: &mut ServerCtx<'_, '_>) -> Done {
    let sentinel = sentinel(ctx)?;
    let wanted = ctx.args.rest(1);
    let named = |name: &str| {
        wanted
            .iter()
            .any(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    let all = wanted.is_empty() || named("all") || named("default") || named("everything");
    let mut text = super::info::of_sentinel(ctx.shared, |name| all || named(name));
    if all || named("sentinel") {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        section(&sentinel.machine(), sentinel.now(), &mut text);
    }
    ctx.out.bulk(text.as_bytes());
    Ok(())
}

fn section(machine: &Machine, now: i64, text: &mut String) {
    let tilt_since = if machine.tilt {
        (now - machine.tilt_since) / 1000
    } else {
        -1
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:{}\r\nsentinel_tilt_since_seconds:{}\r\n\
         sentinel_running_scripts:{}\r\nsentinel_scripts_queue_length:{}\r\n\
         sentinel_simulate_failure_flags:{}\r\n",
        machine.masters.len(),
        u8::from(machine.tilt),
        tilt_since,
        machine.jobs.running(),
        machine.jobs.queue.len(),
        machine.globals.simulate,
    );
    for (number, (name, id)) in machine.masters.iter().enumerate() {
        let (about, group) = (machine.inst(*id), machine.group(*id));
        let status = match (about.o_down, about.s_down) {
            (true, _) => "odown",
            (_, true) => "sdown",
            _ => "ok",
        };
        let _ = write!(
            text,
            "master{number}:name={name},status={status},address={}:{},slaves={},sentinels={}\r\n",
            machine.announced(&about.addr),
            about.addr.port,
            group.replicas.len(),
            group.sentinels.len() + 1
        );
    }
}

/// `SENTINEL HELP`
pub fn help(ctx: &mut ServerCtx<'_, '_>) -> Done {
    super::help::reply(
        ctx,
        &[
            "CKQUORUM <master-name>",
            "    Tell whether enough Sentinels are up for the quorum, and for the majority that a",
            "    failover needs.",
            "CONFIG SET <param> <value>",
            "    Set a parameter that concerns all masters.",
            "CONFIG GET <param>",
            "    Get parameters that concern all masters.",
            "DEBUG [<param> <value> ...]",
            "    Show the times that can be changed, in milliseconds, or change them.",
            "GET-MASTER-ADDR-BY-NAME <master-name>",
            "    Return the ip and port of a master.",
            "FAILOVER <master-name>",
            "    Promote a replica without asking other Sentinels.",
            "FLUSHCONFIG",
            "    Write the configuration file, with what is known of masters.",
            "INFO-CACHE <master-name>",
            "    Return what a master and its replicas last replied to INFO.",
            "IS-MASTER-DOWN-BY-ADDR <ip> <port> <current-epoch> <runid>",
            "    Tell whether this Sentinel thinks a master down, and vote.",
            "MASTER <master-name>",
            "    Show what is known of a master.",
            "MASTERS",
            "    Show what is known of all masters.",
            "MONITOR <name> <ip> <port> <quorum>",
            "    Watch a master from now on.",
            "MYID",
            "    Return the id of this Sentinel.",
            "PENDING-SCRIPTS",
            "    Show scripts that run or wait.",
            "REMOVE <master-name>",
            "    Watch a master no more.",
            "REPLICAS <master-name>",
            "    Show what is known of a master's replicas.",
            "RESET <pattern>",
            "    Forget replicas and Sentinels of the masters whose name matches.",
            "SENTINELS <master-name>",
            "    Show what is known of other Sentinels that watch a master.",
            "SET <master-name> <option> <value> [<option> <value> ...]",
            "    Set parameters of a master.",
            "SIMULATE-FAILURE [CRASH-AFTER-ELECTION] [CRASH-AFTER-PROMOTION] [HELP]",
            "    Have this Sentinel crash at a moment of a failover.",
        ],
    );
    Ok(())
}
