//! Where the keys of a request are, by the key specifications of its command.

use super::args::Args;
use super::command::{Begin, Command, Find, KeyFlags, KeySpec};
use crate::base::number;

/// A key's argument index and what is done with it.
pub type Found = (usize, KeyFlags);

/// Calls `found` for each key of the request, in the order of the specifications. Arguments that
/// do not make sense (a count that is no number, or too great) have no keys.
pub fn each(command: &Command, args: Args<'_>, mut found: impl FnMut(usize, KeyFlags)) {
    if let Some(find) = command.find_keys {
        return find(args, &mut found);
    }
    for spec in command.keys.0 {
        each_of(spec, args, &mut found);
    }
}

/// Calls `found` with the index of each key of a request with `len` arguments, as far as they are
/// plain from the row.
#[inline]
pub fn each_plain(command: &Command, len: usize, mut found: impl FnMut(usize)) {
    for spec in command.keys.0 {
        let KeySpec {
            begin: Begin::Index(first),
            find:
                Find::Range {
                    last,
                    step,
                    limit: 0 | 1,
                },
            ..
        } = *spec
        else {
            continue;
        };
        let end = if last >= 0 {
            (first + last as usize).min(len.wrapping_sub(1))
        } else {
            len.saturating_sub(last.unsigned_abs() as usize)
        };
        let mut index = first;
        while index <= end && index < len {
            found(index);
            index += step.max(1);
        }
    }
}

/// The argument that is the command's only key, when it has exactly one, at a fixed place.
pub fn single(command: &Command) -> Option<usize> {
    match command.keys.0 {
        [
            KeySpec {
                begin: Begin::Index(index),
                find: Find::Range { last: 0, .. },
                ..
            },
        ] if command.find_keys.is_none() => Some(*index),
        _ => None,
    }
}

/// True when [`each_plain`] finds every key.
#[inline]
pub fn is_plain(command: &Command) -> bool {
    let all = command.keys.0;
    all.iter().all(|spec| {
        matches!(spec.begin, Begin::Index(_))
            && matches!(spec.find, Find::Range { limit: 0 | 1, .. })
    })
}

/// True when a request with `len` arguments reaches to where each specification begins.
pub fn are_reached(command: &Command, len: usize) -> bool {
    let reached = |spec: &KeySpec| !matches!(spec.begin, Begin::Index(index) if index >= len);
    command.find_keys.is_some() || command.keys.0.iter().all(reached)
}

/// All keys of the request, with the flags that its arguments give them.
pub fn collect(command: &Command, args: Args<'_>) -> Vec<Found> {
    let mut all = Vec::new();
    if let Some(find) = command.find_keys {
        find(args, &mut |index, flags| all.push((index, flags)));
        return all;
    }
    for spec in command.keys.0 {
        let settled = spec.by_args.map(|by_args| by_args(args));
        each_of(spec, args, &mut |index, flags| {
            all.push((index, settled.unwrap_or(flags)))
        });
    }
    all
}

fn each_of(spec: &KeySpec, args: Args<'_>, found: &mut impl FnMut(usize, KeyFlags)) {
    let Some(begin) = beginning(spec.begin, args) else {
        return;
    };
    match spec.find {
        Find::Range { last, step, limit } => {
            let end = match (last, limit) {
                (0.., _) => begin + last as usize,
                (_, 0 | 1) => (args.len() as i64 + i64::from(last)).max(0) as usize,
                (_, limit) => begin + (args.len() - begin) / limit - 1,
            };
            let mut index = begin;
            while index <= end && index < args.len() {
                found(index, spec.flags);
                index += step.max(1);
            }
        }
        Find::Count { at, first, step } => {
            let Some(count) = args.get(begin + at).and_then(number::parse_i64) else {
                return;
            };
            let room = (args.len() - begin)
                .saturating_sub(first)
                .div_ceil(step.max(1));
            if (0..=room as i64).contains(&count) {
                (0..count as usize).for_each(|i| found(begin + first + i * step, spec.flags));
            }
        }
        Find::Unknown => {}
    }
}

fn beginning(begin: Begin, args: Args<'_>) -> Option<usize> {
    match begin {
        Begin::Index(index) => (index < args.len()).then_some(index),
        Begin::Keyword(word, from @ 0..) => {
            let at = (from as usize..args.len()).find(|&i| args.is(i, word))?;
            (at + 1 < args.len()).then_some(at + 1)
        }
        Begin::Keyword(word, from) => {
            let start = (args.len() as i64 + i64::from(from)).max(1) as usize;
            let at = (1..=start.min(args.len() - 1))
                .rev()
                .find(|&i| args.is(i, word))?;
            (at + 1 < args.len()).then_some(at + 1)
        }
        Begin::Unknown => None,
    }
}
