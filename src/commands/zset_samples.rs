//! Random members of a sorted set, and walks through one.

use std::collections::HashSet;

use crate::base::{number, random};
use crate::dispatch::command::{Acl, Command};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::types::collection::Collection;
use crate::types::zset::ZSet;

use super::rows::{READ, READ_KEY};
use super::scan_options::{self, ScanOptions};
use super::zsets;

const RANDOM: &[&str] = &["nondeterministic_output"];

data_rows!(Acl::SORTEDSET);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        tips: RANDOM,
        ..row("zrandmember", -2, READ, READ_KEY, zrandmember)
    },
    Command {
        tips: RANDOM,
        ..row("zscan", -3, READ, READ_KEY, zscan)
    },
];

/// `ZRANDMEMBER key [count [WITHSCORES]]`
fn zrandmember(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    if args.len() == 2 {
        match ctx.db.read_as::<ZSet>(&args[1])? {
            Some(set) => zsets::reply_member(ctx.out, set.get(random::below(set.len())).0),
            None => ctx.out.null(),
        }
        return Ok(());
    }
    let count = args.int_in(2, -i64::MAX, i64::MAX)?;
    let scores = args.len() > 3;
    if args.len() > 4 || (scores && !args.is(3, "withscores")) {
        return Err(Error::Syntax);
    }
    if scores && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(Error::OutOfRange);
    }
    let set = ctx.db.read_as::<ZSet>(&args[1])?;
    let Some(set) = set.filter(|_| count != 0) else {
        ctx.out.array(0);
        return Ok(());
    };
    let wanted = count.unsigned_abs() as usize;
    if count < 0 {
        // One after the other, each any of them.
        zsets::open_members(ctx.out, wanted, scores);
        for _ in 0..wanted {
            let member = set.get(random::below(set.len()));
            zsets::put_member(ctx.out, member, scores);
            if ctx.out.has_overflowed() {
                break;
            }
        }
        return Ok(());
    }
    let wanted = wanted.min(set.len());
    zsets::open_members(ctx.out, wanted, scores);
    if wanted == set.len() {
        // All of them; Redis shows the greatest first.
        let all = set.iter(0..wanted, true);
        all.for_each(|member| zsets::put_member(ctx.out, member, scores));
    } else if wanted * 3 > set.len() {
        // Each member in turn is chosen with the chance that leaves the others theirs.
        let (mut left, mut wanted) = (set.len(), wanted);
        for member in set.all() {
            if random::below(left) < wanted {
                zsets::put_member(ctx.out, member, scores);
                wanted -= 1;
            }
            left -= 1;
        }
    } else {
        let mut chosen = HashSet::with_capacity(wanted);
        while chosen.len() < wanted {
            let rank = random::below(set.len());
            if chosen.insert(rank) {
                zsets::put_member(ctx.out, set.get(rank), scores);
            }
        }
    }
    Ok(())
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count]`
fn zscan(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let mut cursor = scan_options::parse_cursor(&ctx.args[2])?;
    let Some(set) = ctx.db.read_as::<ZSet>(&ctx.args[1])? else {
        ctx.out.array(2);
        ctx.out.bulk(b"0");
        ctx.out.array(0);
        return Ok(());
    };
    let options = ScanOptions::parse(ctx.args, 3, false)?;
    let packed = matches!(set, ZSet::Run(_));
    let mut found: Vec<(Vec<u8>, f64)> = Vec::new();
    let (mut seen, mut steps) = (0, 0);
    loop {
        cursor = set.scan(cursor, |member, score| {
            seen += 1;
            if options.wants(member) {
                found.push((member.to_vec(), score));
            }
        });
        steps += 1;
        // Steps show nothing only where few members are left of many.
        if cursor == 0 || seen >= options.count || steps / 10 >= options.count {
            break;
        }
    }
    ctx.out.array(2);
    ctx.out.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    ctx.out.array(2 * found.len());
    let mut text = Vec::new();
    for (member, score) in found {
        ctx.out.bulk(&member);
        text.clear();
        // As they are stored: a listpack's integers are written out.
        match packed {
            true => number::format_double(&mut text, score),
            false => number::format_g17(&mut text, score),
        }
        ctx.out.bulk(&text);
    }
    Ok(())
}
