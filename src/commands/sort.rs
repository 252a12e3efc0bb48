//! SORT and SORT_RO: the elements of a list, set or sorted set in another order, or what other keys
//! hold for them.
//!
//! BY and GET name keys by a pattern in which each element takes the place of `*`. Nobody can know
//! these keys beforehand, so a request with such a pattern holds all shards; others hold those of
//! their source and destination.

use std::cmp::Ordering;

use crate::base::number;
use crate::base::text::before_nul;
use crate::dispatch::args::Args;
use crate::dispatch::command::{
    Acl, Begin, Command, Find, Flags, Handler, KeyFlags, KeySpec, Keys, ROW, Scope,
};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::db::Db;
use crate::keyspace::event;
use crate::types::Type;
use crate::types::collection::Collection;
use crate::types::hash::Hash;
use crate::types::list::{End, List};
use crate::types::set::Set;
use crate::types::zset::ZSet;

use super::lists;

const fn unknown(flags: KeyFlags, notes: &'static str) -> KeySpec {
    KeySpec {
        begin: Begin::Unknown,
        find: Find::Unknown,
        ..KeySpec::at(1, flags).note(notes)
    }
}

const PATTERNS: KeySpec = unknown(
    KeyFlags::READ,
    "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from \
     the content of the key we sort",
);
const SORT_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::READ),
    PATTERNS,
    unknown(
        KeyFlags::OVERWRITE,
        "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear \
         anywhere in the argument array",
    ),
];
const SORT_RO_KEYS: &[KeySpec] = &[KeySpec::at(1, KeyFlags::READ), PATTERNS];

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        name: "sort",
        arity: -2,
        flags: Flags::WRITE.or(Flags::DENYOOM),
        acl: ACL,
        keys: Keys(SORT_KEYS),
        find_keys: Some(find_keys),
        scope: Scope::AllIf(reads_other_keys),
        handler: Handler::Data(sort),
        ..ROW
    },
    Command {
        name: "sort_ro",
        arity: -2,
        flags: Flags::READONLY,
        acl: ACL,
        keys: Keys(SORT_RO_KEYS),
        find_keys: Some(find_key),
        scope: Scope::AllIf(reads_other_keys),
        handler: Handler::Data(sort_ro),
        ..ROW
    },
];

const ACL: Acl = Acl::SET.or(Acl::SORTEDSET).or(Acl::LIST).or(Acl::DANGEROUS);

fn find_key(_: Args<'_>, found: &mut dyn FnMut(usize, KeyFlags)) {
    found(1, KeyFlags::READ);
}

fn find_keys(args: Args<'_>, found: &mut dyn FnMut(usize, KeyFlags)) {
    found(1, KeyFlags::READ);
    let mut store = None;
    let mut i = 2;
    while i < args.len() {
        let option = Word::at(args, i);
        if option == Some(Word::Store) {
            store = Some(i + 1);
        }
        i += 1 + option.map_or(0, Word::values);
    }
    if let Some(store) = store {
        found(store, KeyFlags::OVERWRITE);
    }
}

/// True when a pattern leads to keys that are no arguments.
fn reads_other_keys(args: Args<'_>) -> bool {
    let mut i = 2;
    while i < args.len() {
        let option = Word::at(args, i);
        if matches!(option, Some(Word::By | Word::Get)) && has_place(&args[i + 1]) {
            return true;
        }
        i += 1 + option.map_or(0, Word::values);
    }
    false
}

/// True for a pattern with a place for the element.
fn has_place(pattern: &[u8]) -> bool {
    before_nul(pattern).contains(&b'*')
}

/// An option's word.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    Asc,
    Desc,
    Alpha,
    Limit,
    Store,
    By,
    Get,
}

impl Word {
    /// The option at argument `i`, if it is one and its values follow.
    fn at(args: Args<'_>, i: usize) -> Option<Self> {
        let word = match () {
            () if args.is(i, "asc") => Self::Asc,
            () if args.is(i, "desc") => Self::Desc,
            () if args.is(i, "alpha") => Self::Alpha,
            () if args.is(i, "limit") => Self::Limit,
            () if args.is(i, "store") => Self::Store,
            () if args.is(i, "by") => Self::By,
            () if args.is(i, "get") => Self::Get,
            () => return None,
        };
        (i + word.values() < args.len()).then_some(word)
    }

    /// How many arguments follow the word.
    fn values(self) -> usize {
        match self {
            Self::Asc | Self::Desc | Self::Alpha => 0,
            Self::Store | Self::By | Self::Get => 1,
            Self::Limit => 2,
        }
    }
}

/// What is asked for.
#[derive(Default)]
struct Request<'a> {
    descending: bool,
    alpha: bool,
    /// First element and number of elements; negative: all.
    limit: Option<(i64, i64)>,
    store: Option<&'a [u8]>,
    /// The pattern of what to sort by.
    by: Option<&'a [u8]>,
    /// By something constant: left in the order that there is.
    unsorted: bool,
    gets: Vec<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Unless the user `reads_any_key`, values may not lead to keys.
    fn parse(
        args: Args<'a>,
        read_only: bool,
        in_cluster: bool,
        reads_any_key: bool,
    ) -> Result<Self, Error> {
        let mut request = Self::default();
        let denied = |option: &str| {
            Error::err(format_args!(
                "{option} option of SORT denied due to insufficient ACL permissions."
            ))
        };
        let mut words = Cursor::new(args, 2);
        while words.step() {
            match Word::at(args, words.index()).ok_or(words.refuse())? {
                Word::Asc => request.descending = false,
                Word::Desc => request.descending = true,
                Word::Alpha => request.alpha = true,
                Word::Limit => request.limit = Some((words.int()?, words.int()?)),
                Word::Store if read_only => return Err(words.refuse()),
                Word::Store => request.store = Some(words.value()?),
                Word::By => {
                    let pattern = words.value()?;
                    request.by = Some(pattern);
                    if !has_place(pattern) {
                        request.unsorted = true;
                    } else if in_cluster {
                        return Err(Error::line("ERR BY option of SORT denied in Cluster mode."));
                    } else if !reads_any_key {
                        return Err(denied("BY"));
                    }
                }
                Word::Get if in_cluster => {
                    return Err(Error::line(
                        "ERR GET option of SORT denied in Cluster mode.",
                    ));
                }
                Word::Get if !reads_any_key => return Err(denied("GET")),
                Word::Get => request.gets.push(words.value()?),
            }
        }
        Ok(request)
    }

    /// The part of `len` elements that is wanted.
    fn part(&self, len: usize) -> std::ops::Range<usize> {
        let Some((start, count)) = self.limit else {
            return 0..len;
        };
        let start = usize::try_from(start).unwrap_or(0).min(len);
        let count = usize::try_from(count).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]
/// [STORE destination]`
fn sort(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    run(ctx, false)
}

/// `SORT_RO key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA]`
fn sort_ro(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    run(ctx, true)
}

fn run(ctx: &mut DataCtx<'_, '_>, read_only: bool) -> Result<(), Error> {
    let cluster = ctx.settings.cluster_enabled;
    let reads_any_key = ctx.db.env().reads_any_key;
    let mut request = Request::parse(ctx.args, read_only, cluster, reads_any_key)?;
    let (kind, mut elements) = source(&mut ctx.db, &ctx.args[1])?;
    if request.unsorted && kind == Some(Type::Set) && (request.store.is_some() || ctx.of_script) {
        // A set has no order of its own; what is stored must be the same everywhere.
        (request.unsorted, request.alpha, request.by) = (false, true, None);
    }
    if !request.unsorted {
        order(&mut ctx.db, &request, &mut elements)?;
    } else if request.descending && kind != Some(Type::Set) {
        elements.reverse();
    }
    let part = request.part(elements.len());
    let elements = &elements[part];
    match request.store {
        None => reply(ctx, &request, elements),
        Some(key) => store(ctx, &request, elements, key),
    }
    Ok(())
}

/// The elements of the key to be sorted, and its type.
fn source(db: &mut Db<'_, '_>, key: &[u8]) -> Result<(Option<Type>, Vec<Vec<u8>>), Error> {
    let kind = db.read(key).map(|entry| entry.kind());
    let mut elements = Vec::new();
    match kind {
        None => {}
        Some(Type::List) => {
            if let Some(list) = db.get_as::<List>(key)? {
                elements.reserve(list.len());
                list.range(0, list.len(), |element| elements.push(element.to_vec()));
            }
        }
        Some(Type::Set) => {
            if let Some(set) = db.get_as::<Set>(key)? {
                elements.extend(set.iter().map(|member| member.to_vec()));
            }
        }
        Some(Type::ZSet) => {
            if let Some(set) = db.write_as::<ZSet>(key)? {
                // Redis sorts trees only, and leaves one behind.
                set.make_tree();
                elements.extend(set.all().map(|(member, _)| member.to_vec()));
            }
        }
        Some(_) => return Err(Error::WrongType),
    }
    Ok((kind, elements))
}

/// What an element is compared by.
enum Weight {
    Number(f64),
    /// Of what BY leads to, if to anything.
    Text(Option<Vec<u8>>),
    /// The element itself.
    Own,
}

/// Puts the elements in order.
fn order(
    db: &mut Db<'_, '_>,
    request: &Request<'_>,
    elements: &mut Vec<Vec<u8>>,
) -> Result<(), Error> {
    let mut weighted = Vec::with_capacity(elements.len());
    let mut all_numbers = true;
    for element in elements.drain(..) {
        let weight = match request.by {
            None if request.alpha => Weight::Own,
            None => number_of(&element).map_or_else(
                || {
                    all_numbers = false;
                    Weight::Own
                },
                Weight::Number,
            ),
            Some(pattern) => {
                let value = look_up(db, pattern, &element);
                if request.alpha {
                    Weight::Text(value)
                } else {
                    let number = value.map_or(Some(0.0), |value| number_of(&value));
                    all_numbers &= number.is_some();
                    Weight::Number(number.unwrap_or(0.0))
                }
            }
        };
        weighted.push((weight, element));
    }
    if !all_numbers {
        return Err(Error::line(
            "ERR One or more scores can't be converted into double",
        ));
    }
    // What is stored is the same whatever the locale; what is answered ends, as C's strings do, at
    // the first NUL.
    let texts = |a: &[u8], b: &[u8]| match request.store {
        Some(_) => a.cmp(b),
        None => before_nul(a).cmp(before_nul(b)),
    };
    weighted.sort_by(|(a, a_element), (b, b_element)| {
        let ordering = match (a, b) {
            (Weight::Number(a), Weight::Number(b)) => {
                let by_number = a.partial_cmp(b).unwrap_or(Ordering::Equal);
                by_number.then_with(|| a_element.cmp(b_element))
            }
            (Weight::Text(Some(a)), Weight::Text(Some(b))) => texts(a, b),
            (Weight::Text(a), Weight::Text(b)) => a.is_some().cmp(&b.is_some()),
            _ => texts(a_element, b_element),
        };
        if request.descending {
            ordering.reverse()
        } else {
            ordering
        }
    });
    elements.extend(weighted.into_iter().map(|(_, element)| element));
    Ok(())
}

/// A number as C's `strtod` reads it, the whole text up to the first NUL; nothing at all is 0. What
/// is too near to 0 for all of its digits is out of range to it.
fn number_of(text: &[u8]) -> Option<f64> {
    let text = before_nul(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let spaces = text
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'..=b'\r'));
    let spaces = spaces.count();
    number::parse_f64(&text[spaces..]).filter(|number| !number.is_subnormal())
}

/// What `pattern` leads to for an element: itself for `#`, a string, or the field of a hash.
fn look_up(db: &mut Db<'_, '_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    let text = before_nul(pattern);
    if text == b"#" {
        return Some(element.to_vec());
    }
    let star = text.iter().position(|b| *b == b'*')?;
    let behind = &text[star + 1..];
    let arrow = behind.windows(2).position(|two| two == b"->");
    // An arrow with nothing behind it is part of the name.
    let arrow = arrow
        .map(|at| star + 1 + at)
        .filter(|at| at + 2 < text.len());
    let rest = &pattern[star + 1..arrow.unwrap_or(pattern.len())];
    let key = [&pattern[..star], element, rest].concat();
    let entry = db.read(&key)?;
    match arrow {
        None if entry.kind() == Type::String => Some(entry.string().to_vec()),
        None => None,
        Some(at) => {
            let hash: &Hash = entry.into_collection().ok()?;
            hash.get(&pattern[at + 2..]).map(|value| value.to_vec())
        }
    }
}

fn reply(ctx: &mut DataCtx<'_, '_>, request: &Request<'_>, elements: &[Vec<u8>]) {
    if request.gets.is_empty() {
        ctx.out.array(elements.len());
        elements.iter().for_each(|element| ctx.out.bulk(element));
        return;
    }
    ctx.out.array(elements.len() * request.gets.len());
    for element in elements {
        for pattern in &request.gets {
            match look_up(&mut ctx.db, pattern, element) {
                Some(value) => ctx.out.bulk(&value),
                None => ctx.out.null(),
            }
        }
    }
}

fn store(ctx: &mut DataCtx<'_, '_>, request: &Request<'_>, elements: &[Vec<u8>], key: &[u8]) {
    let limits = lists::limits(ctx.settings);
    let mut list = List::new();
    for element in elements {
        if request.gets.is_empty() {
            list.push(End::Tail, element, &limits);
        }
        for pattern in &request.gets {
            let value = look_up(&mut ctx.db, pattern, element).unwrap_or_default();
            list.push(End::Tail, &value, &limits);
        }
    }
    let count = list.len() as u64;
    if count > 0 {
        ctx.db.store(key, list);
        ctx.db.changed_by(key, event::ON_SORTSTORE, count);
    } else if ctx.db.remove_replaced(key) {
        ctx.db.changed(key, event::ON_DEL);
    }
    ctx.out.uint(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        let check = |text: &[u8], expected| assert_eq!(number_of(text), expected, "{text:?}");
        check(b"", Some(0.0));
        check(b" 1.5", Some(1.5));
        check(b"1\0x", Some(1.0));
        check(b"0x10", Some(16.0));
        check(b"inf", Some(f64::INFINITY));
        check(b"1 ", None);
        check(b" ", None);
        check(b"nan", None);
        check(b"1e999", None);
        check(b"5e-324", None);
    }

    #[test]
    fn parts_lie_within() {
        let part = |start, count, len| {
            let request = Request {
                limit: Some((start, count)),
                ..Request::default()
            };
            request.part(len)
        };
        assert_eq!(part(0, -1, 5), 0..5);
        assert_eq!(part(-3, 2, 5), 0..2);
        assert_eq!(part(3, 10, 5), 3..5);
        assert_eq!(part(9, 1, 5), 5..5);
        assert_eq!(part(i64::MAX, i64::MIN, 0), 0..0);
    }
}
