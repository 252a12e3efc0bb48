//! DEBUG's views of values and of clients' memory, and what it does to the stream of effects.

use std::io::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use crate::client::registry::{Class, flag};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::persistence::rdb::encode;
use crate::persistence::rdb::read::Reader;
use crate::types::Encoding;
use crate::types::list::List;
use crate::types::listpack::{Element, Listpack};

/// Writes a text to standard output, where developers look for it. One that is closed is no error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// `DEBUG LISTPACK key`
pub fn listpack(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let key = ctx.args.all()[2];
    let saved = ctx.with_keys(&[key], |db| {
        let entry = db.peek(key).ok_or(Error::NoSuchKey)?;
        if !matches!(entry.encoding(), Encoding::Listpack | Encoding::ListpackEx) {
            return Err(Error::line("ERR Not a listpack encoded object."));
        }
        let mut saved = Vec::new();
        encode::coded_value(&entry, &mut saved, false);
        Ok(saved)
    })??;
    // As a file has it: a code, then the bytes of the listpack as one string.
    // A hash with times has the first of them in between.
    let pack = [1, 9].into_iter().find_map(|at| {
        let bytes = Reader::new(saved.get(at..)?).string().ok()?.into_owned();
        Listpack::from_bytes(&bytes)
    });
    let pack = pack.ok_or(Error::line("ERR Not a listpack encoded object."))?;
    let mut text = format!(
        "{{total bytes {}}} {{num entries {}}}\n",
        pack.as_bytes().len(),
        pack.iter().count()
    );
    for (index, element) in pack.iter().enumerate() {
        let element = match element {
            Element::Int(number) => format!("[int]{number}"),
            Element::Bytes(bytes) => format!("[str]{}", bytes.escape_ascii()),
        };
        text.push_str(&format!("{{\n\tindex {index:2},\n\t{element}\n}}\n"));
    }
    text.push_str("{end}\n\n");
    print(&text);
    ctx.out.simple("Listpack structure printed on stdout");
    Ok(())
}

/// `DEBUG QUICKLIST key [0|1]`
pub fn quicklist(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let key = ctx.args.all()[2];
    let shape = ctx.with_keys(&[key], |db| {
        let entry = db.peek(key).ok_or(Error::NoSuchKey)?;
        let list = entry.get_as::<List>();
        list.map(List::shape)
            .ok_or(Error::line("ERR Not a quicklist encoded object."))
    })??;
    print(&format!(
        "{{count : {}}}\n{{len : {}}}\n{{compressed : {}}}\n{{bytes : {}}}\n",
        shape.len, shape.nodes, shape.compressed, shape.bytes
    ));
    ctx.out.simple("Quicklist structure printed on stdout");
    Ok(())
}

/// Clients are counted by the powers of two between these exponents.
const SMALLEST: u32 = 15;
const LARGEST: u32 = 33;

/// `DEBUG CLIENT-EVICTION`: the memory of clients that may be evicted, by size.
pub fn client_eviction(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    if ctx.worker.settings.maxmemory_clients == 0 {
        return Err(Error::line("ERR maxmemory-clients is disabled."));
    }
    let mut sizes: Vec<usize> = Vec::new();
    for client in ctx.shared.clients.all() {
        let exempt = client.live.flags.load(Relaxed) & flag::NO_EVICT != 0;
        if !exempt && matches!(client.class(), Class::Normal | Class::PubSub) {
            sizes.push(client.memory.held());
        }
    }
    let mut text = String::new();
    for exponent in SMALLEST..=LARGEST {
        let low = if exponent == SMALLEST {
            0
        } else {
            1 << (exponent - 1)
        };
        let high = if exponent == LARGEST {
            usize::MAX
        } else {
            (1 << exponent) - 1
        };
        let within: Vec<usize> = sizes
            .iter()
            .copied()
            .filter(|s| (low..=high).contains(s))
            .collect();
        let range = match exponent {
            LARGEST => format!("bucket {low:10}+            : "),
            _ => format!("bucket {low:10} - {high:10}: "),
        };
        let sum: usize = within.iter().sum();
        text.push_str(&format!(
            "{range}tot-mem: {sum:10}, clients: {}\n",
            within.len()
        ));
    }
    ctx.out.verbatim("txt", text.into_bytes());
    Ok(())
}

/// `DEBUG REPLICATE word ...`: sends replicas a command that is not run here.
pub fn replicate(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let words = ctx.args.rest(2);
    if ctx.shared.replication.is_fed() {
        ctx.shared.stream.append(|block| block.for_replicas(words));
    }
    ctx.out.ok();
    Ok(())
}

/// `DEBUG CHANGE-REPL-ID`
pub fn change_replication_id(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    tracing::warn!("Changing replication IDs after receiving change-repl-id");
    ctx.shared.replication.change_id(&ctx.shared.stream);
    ctx.out.ok();
    Ok(())
}
