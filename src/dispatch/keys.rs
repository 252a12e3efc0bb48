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

/// The keys of a request as COMMAND GETKEYS tells them, none where Redis finds fault with the arguments.
///
/// Redis follows the specifications to the first that does not fit or is incomplete, and then looks
/// in a second way that knows less: for that, see [`KeyFlags::INCOMPLETE`], [`counted_loosely`].
pub fn told(command: &Command, args: Args<'_>) -> Vec<Found> {
    let specs = command.keys.0.iter();
    let specs = specs.filter(|spec| !spec.flags.has(KeyFlags::NOT_KEY));
    let mut all = Vec::new();
    for spec in specs {
        let flags = spec.by_args.map_or(spec.flags, |by_args| by_args(args));
        let Ok(found) = strictly(spec, args) else {
            return loosely(command, args);
        };
        all.extend(found.map(|index| (index, flags)));
    }
    all
}

/// The arguments do not fit a specification, or it does not say all.
struct Unfit;

/// Shows the keys of a request, and the shard channels, by which a cluster's node tells whether it is its
/// own: as Redis finds them also in arguments that do not make sense.
pub fn routed(command: &Command, args: Args<'_>, mut found: impl FnMut(usize)) {
    let counts = |spec: &KeySpec| matches!(spec.find, Find::Count { .. });
    if command.find_keys.is_some() || command.keys.0.iter().any(counts) {
        loosely(command, args)
            .iter()
            .for_each(|(index, _)| found(*index));
    } else {
        each_plain(command, args.len(), found);
    }
}

/// True for commands whose keys are shard channels.
pub fn is_of_channels(command: &Command) -> bool {
    let all = command.keys.0;
    !all.is_empty() && all.iter().all(|spec| spec.flags.has(KeyFlags::NOT_KEY))
}

/// Where the keys of a specification are, none when its keyword is missing.
fn strictly(
    spec: &KeySpec,
    args: Args<'_>,
) -> Result<std::iter::StepBy<std::ops::Range<usize>>, Unfit> {
    let begin = match spec.begin {
        Begin::Index(index) => index,
        Begin::Unknown => return Err(Unfit),
        Begin::Keyword(..) => match beginning(spec.begin, args) {
            Some(begin) => begin,
            None => return Ok((0..0).step_by(1)),
        },
    };
    let len = args.len() as i64;
    let (first, last, step) = match spec.find {
        Find::Unknown => return Err(Unfit),
        Find::Range { last, step, limit } => {
            let first = begin as i64;
            let end = match (last, limit) {
                (0.., _) => first + i64::from(last),
                (_, 0) => len + i64::from(last),
                (_, limit) => first + (len - first) / limit as i64 + i64::from(last),
            };
            (first, end, step)
        }
        Find::Count { at, first, step } => {
            let count = args.get(begin + at).and_then(number::parse_i64);
            let count = count.filter(|count| *count >= 0).ok_or(Unfit)?;
            let first = (begin + first) as i64;
            // Redis counts keys by 32 bits.
            (first, first + i64::from(count as i32) - 1, step)
        }
    };
    if last >= len || last < first || first >= len || spec.flags.has(KeyFlags::INCOMPLETE) {
        return Err(Unfit);
    }
    Ok((first as usize..last as usize + 1).step_by(step.max(1)))
}

/// The keys of a request that does not fit its specifications.
fn loosely(command: &Command, args: Args<'_>) -> Vec<Found> {
    let mut all = Vec::new();
    if let Some(find) = command.find_keys {
        find(args, &mut |index, flags| all.push((index, flags)));
        return all;
    }
    let counted = command.keys.0.iter().find_map(|spec| match spec.find {
        Find::Count { at, first, step } => Some((beginning(spec.begin, args)?, at, first, step)),
        _ => None,
    });
    if let Some((begin, at, first, step)) = counted {
        counted_loosely(args, begin + at, (begin + first, step.max(1)), &mut all);
        if all.is_empty() {
            return all;
        }
        each_plain(command, args.len(), |index| {
            all.push((index, KeyFlags::NONE))
        });
    }
    all
}

/// Keys from `first` on, as many as the number says that argument `at` begins with: nothing is known
/// of what is done with them.
fn counted_loosely(args: Args<'_>, at: usize, (first, step): (usize, usize), all: &mut Vec<Found>) {
    let count = args.get(at).and_then(number::leading_i64).unwrap_or(0);
    let room = args.len().saturating_sub(first) / step;
    let count = i64::from(count as i32);
    if (1..=room as i64).contains(&count) {
        all.extend((0..count as usize).map(|i| (first + i * step, KeyFlags::NONE)));
    }
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
            let at = (2..=start.min(args.len() - 1))
                .rev()
                .find(|&i| args.is(i, word))?;
            (at + 1 < args.len()).then_some(at + 1)
        }
        Begin::Unknown => None,
    }
}
