//! `redis`: what scripts ask of the server.

use smallvec::SmallVec;

use super::args::{fail, integer};
use super::lua::{Body, Kind, Outcome, Raise, Stack};
use super::random::Random;
use super::replies;
use super::world::World;
use crate::base::number::format_g17;
use crate::config::REDIS_VERSION;
use crate::resp::write::Protocol;
use crate::scripts::{Registered, ScriptFlags, digest_of, hex};

/// What scripts and functions call.
pub const FUNCTIONS: &[(&str, Body)] = &[
    ("call", |stack| command(stack, true)),
    ("pcall", |stack| command(stack, false)),
    ("log", log),
    ("setresp", set_resp),
    ("sha1hex", sha1hex),
    ("error_reply", error_reply),
    ("status_reply", status_reply),
    ("set_repl", set_repl),
    ("acl_check_cmd", acl_check_cmd),
];

/// What only scripts call.
pub const EVAL_FUNCTIONS: &[(&str, Body)] = &[
    ("breakpoint", |stack| {
        stack.push_bool(false);
        Ok(1)
    }),
    ("debug", |_| Ok(0)),
    ("replicate_commands", |stack| {
        stack.push_bool(true);
        Ok(1)
    }),
];

/// What libraries call while they are loaded.
pub const LOAD_FUNCTIONS: &[(&str, Body)] =
    &[("register_function", register_function), ("log", log)];

/// Numbers that all of them find.
pub const NUMBERS: &[(&str, f64)] = &[
    ("LOG_DEBUG", 0.0),
    ("LOG_VERBOSE", 1.0),
    ("LOG_NOTICE", 2.0),
    ("LOG_WARNING", 3.0),
];

/// Numbers that only running scripts find.
pub const AUDIENCES: &[(&str, f64)] = &[
    ("REPL_NONE", 0.0),
    ("REPL_AOF", 1.0),
    ("REPL_SLAVE", 2.0),
    ("REPL_REPLICA", 2.0),
    ("REPL_ALL", 3.0),
];

/// `math.random` and `math.randomseed`.
pub const MATH: &[(&str, Body)] = &[("random", random), ("randomseed", random_seed)];

/// The server's version as a number: a byte for each part.
pub fn version_number() -> f64 {
    let parts = REDIS_VERSION
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    f64::from(parts.fold(0u32, |number, part: u32| number << 8 | part))
}

/// Raises an error as Redis' own functions do: a table.
fn refuse(stack: &mut Stack, text: &str) -> Raise {
    stack.reserve(5);
    stack.push_error(text.as_bytes());
    Raise
}

/// Copies the arguments of a command to the world.
fn gather(world: &mut World, stack: &mut Stack) -> Result<(), &'static str> {
    world.arguments.clear();
    world.ends.clear();
    let count = stack.top();
    if count == 0 {
        return Err("Please specify at least one argument for this redis lib call");
    }
    for index in 1..=count {
        match stack.kind(index) {
            Kind::Number => format_g17(&mut world.arguments, stack.number(index)),
            Kind::String => {
                let text = stack.string(index).unwrap_or_default();
                world.arguments.extend_from_slice(text);
            }
            _ => return Err("Lua redis lib command arguments must be strings or integers"),
        }
        world.ends.push(world.arguments.len());
    }
    Ok(())
}

/// Parts of a buffer, each from the end of the one before.
fn parts<'a>(buffer: &'a [u8], ends: &[usize]) -> SmallVec<[&'a [u8]; 8]> {
    let mut begin = 0;
    let part = |end: &usize| {
        let part = &buffer[begin..*end];
        begin = *end;
        part
    };
    ends.iter().map(part).collect()
}

/// `redis.call` and `redis.pcall`
fn command(stack: &mut Stack, raises: bool) -> Outcome {
    let failed = stack.with_own(|world: &mut World, stack| {
        if world.host().is_none() {
            let text = "redis.call/pcall can only be called inside a script invocation";
            return Err(refuse(stack, text));
        }
        if let Err(text) = gather(world, stack) {
            refuse(stack, text);
            return Ok(true);
        }
        stack.set_top(0);
        let (buffer, ends) = (
            std::mem::take(&mut world.arguments),
            std::mem::take(&mut world.ends),
        );
        let args = parts(&buffer, &ends);
        let mut failed = false;
        let mut show = |reply: &[u8]| {
            failed = reply.first() == Some(&b'-');
            replies::push(stack, reply);
        };
        let Some(host) = world.host() else {
            return Err(Raise);
        };
        let refused = host.call(&args, &mut show);
        let ends_now = host.ends();
        drop(args);
        (world.arguments, world.ends) = (buffer, ends);
        if let Err(text) = refused {
            replies::push_error(stack, text.strip_prefix(b"-").unwrap_or(&text));
            failed = true;
        }
        if ends_now {
            stack.watch_lines();
            return Err(Raise);
        }
        Ok(failed)
    })?;
    match failed && raises {
        true => Err(Raise),
        false => Ok(1),
    }
}

fn acl_check_cmd(stack: &mut Stack) -> Outcome {
    stack.with_own(|world: &mut World, stack| {
        if world.host().is_none() {
            let text = "redis.acl_check_cmd can only be called inside a script invocation";
            return Err(refuse(stack, text));
        }
        if let Err(text) = gather(world, stack) {
            return Err(refuse(stack, text));
        }
        stack.set_top(0);
        let buffer = world.arguments.clone();
        let args = parts(&buffer, &world.ends.clone());
        match world.host().and_then(|host| host.may_call(&args)) {
            Some(may) => {
                stack.push_bool(may);
                Ok(1)
            }
            None => Err(refuse(
                stack,
                "Invalid command passed to redis.acl_check_cmd()",
            )),
        }
    })
}

fn set_resp(stack: &mut Stack) -> Outcome {
    stack.with_own(|world: &mut World, stack| {
        let Some(host) = world.host() else {
            let text = "redis.setresp can only be called inside a script invocation";
            return Err(refuse(stack, text));
        };
        if stack.top() != 1 {
            return Err(refuse(stack, "redis.setresp() requires one argument."));
        }
        host.set_protocol(match stack.number(1) as i32 {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(refuse(stack, "RESP version must be 2 or 3.")),
        });
        Ok(0)
    })
}

fn set_repl(stack: &mut Stack) -> Outcome {
    stack.with_own(|world: &mut World, stack| {
        let Some(host) = world.host() else {
            let text = "redis.set_repl can only be called inside a script invocation";
            return Err(refuse(stack, text));
        };
        if stack.top() != 1 {
            return Err(refuse(stack, "redis.set_repl() requires two arguments."));
        }
        match stack.number(1) as i32 {
            audience @ 0..=3 => host.set_audience(audience as u8),
            _ => {
                return Err(refuse(
                    stack,
                    "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
                ));
            }
        }
        Ok(0)
    })
}

fn sha1hex(stack: &mut Stack) -> Outcome {
    if stack.top() != 1 {
        return Err(refuse(stack, "wrong number of arguments"));
    }
    stack.coerce(1);
    let digest = digest_of(stack.string(1).unwrap_or_default());
    stack.push(&hex(&digest));
    Ok(1)
}

/// The only argument, if it is a string, as C reads it.
fn only_text(stack: &mut Stack) -> Option<Vec<u8>> {
    let text = stack.string(1).filter(|_| stack.top() == 1)?;
    Some(text.to_vec())
}

fn error_reply(stack: &mut Stack) -> Outcome {
    match only_text(stack) {
        Some(text) if text.first() == Some(&b'-') => stack.push_error(&text),
        Some(text) => stack.push_error(&[b"-", &text[..]].concat()),
        None => stack.push_error(b"wrong number or type of arguments"),
    }
    Ok(1)
}

fn status_reply(stack: &mut Stack) -> Outcome {
    match only_text(stack) {
        Some(text) => {
            stack.push_table(0, 1);
            stack.push(&text);
            stack.set_field(-2, "ok");
        }
        None => stack.push_error(b"wrong number or type of arguments"),
    }
    Ok(1)
}

fn log(stack: &mut Stack) -> Outcome {
    let count = stack.top();
    if count < 2 {
        let text = "redis.log() requires two arguments or more.";
        return Err(refuse(stack, text));
    }
    if !stack.is_number(1) {
        let text = "First argument must be a number (log level).";
        return Err(refuse(stack, text));
    }
    let level = stack.number(1) as i32;
    if !(0..=3).contains(&level) {
        return Err(refuse(stack, "Invalid debug level."));
    }
    let mut line = Vec::new();
    for index in 2..=count {
        if stack.coerce(index) {
            if index != 2 {
                line.push(b' ');
            }
            line.extend_from_slice(stack.string(index).unwrap_or_default());
        }
    }
    let line = String::from_utf8_lossy(crate::base::text::before_nul(&line)).into_owned();
    match level {
        0 => tracing::trace!("{line}"),
        1 => tracing::debug!("{line}"),
        2 => tracing::info!("{line}"),
        _ => tracing::warn!("{line}"),
    }
    Ok(0)
}

fn random(stack: &mut Stack) -> Outcome {
    let number = stack.with_own(|world: &mut World, _| {
        world.host().is_some().then_some(())?;
        Some(world.random.next())
    });
    let Some(number) = number else {
        let text = "math.random can only be called inside a script invocation";
        return Err(fail(stack, text));
    };
    let empty = |stack: &mut Stack, argument| {
        Err(super::args::bad_argument(
            stack,
            argument,
            "interval is empty",
        ))
    };
    let value = match stack.top() {
        0 => number,
        1 => {
            let most = integer(stack, 1)? as i32;
            if most < 1 {
                return empty(stack, 1);
            }
            (number * f64::from(most)).floor() + 1.0
        }
        2 => {
            let least = integer(stack, 1)? as i32;
            let most = integer(stack, 2)? as i32;
            if least > most {
                return empty(stack, 2);
            }
            let span = most.wrapping_sub(least).wrapping_add(1);
            (number * f64::from(span)).floor() + f64::from(least)
        }
        _ => return Err(fail(stack, "wrong number of arguments")),
    };
    stack.push_number(value);
    Ok(1)
}

fn random_seed(stack: &mut Stack) -> Outcome {
    let runs = stack.with_own(|world: &mut World, _| world.host().is_some());
    if !runs {
        let text = "math.randomseed can only be called inside a script invocation";
        return Err(fail(stack, text));
    }
    let seed = integer(stack, 1)? as i32;
    stack.with_own(|world: &mut World, _| world.random = Random::seeded(seed));
    Ok(0)
}

/// `redis.register_function`, with a name and a function or with a table of named arguments.
fn register_function(stack: &mut Stack) -> Outcome {
    let loads = stack.with_own(|world: &mut World, _| world.load.is_some());
    if !loads {
        let text = "redis.register_function can only be called on FUNCTION LOAD command";
        return Err(refuse(stack, text));
    }
    let read = match stack.top() {
        1 => by_name(stack),
        2 => by_place(stack),
        _ => Err("wrong number of arguments to redis.register_function"),
    };
    let registered = read.map_err(|text| refuse(stack, text))?;
    // The function is on top.
    let kept = stack.keep();
    let entered = stack.with_own(|world: &mut World, _| {
        let Some(load) = &mut world.load else {
            return Ok(());
        };
        let name = &registered.name;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if name.is_empty() || !name.iter().all(is_name) {
            return Err(
                "Library names can only contain letters, numbers, or underscores(_) and must \
                        be at least one character long",
            );
        }
        if load.functions.iter().any(|(other, _)| other.name == *name) {
            return Err("Function already exists in the library");
        }
        load.functions.push((registered, kept));
        Ok(())
    });
    if let Err(text) = entered {
        stack.forget(kept);
        return Err(refuse(stack, text));
    }
    Ok(0)
}

/// A string; of a number, its text.
fn text_of(stack: &mut Stack, index: i32) -> Option<Vec<u8>> {
    match stack.kind(index) {
        Kind::Number => {
            stack.push_copy(index);
            stack.coerce(-1);
            let text = stack.string(-1).map(<[u8]>::to_vec);
            stack.pop(1);
            text
        }
        _ => stack.string(index).map(<[u8]>::to_vec),
    }
}

fn by_place(stack: &mut Stack) -> Result<Registered, &'static str> {
    let name =
        text_of(stack, 1).ok_or("first argument to redis.register_function must be a string")?;
    if stack.kind(2) != Kind::Function {
        return Err("second argument to redis.register_function must be a function");
    }
    Ok(Registered {
        name,
        description: None,
        flags: ScriptFlags::default(),
    })
}

fn by_name(stack: &mut Stack) -> Result<Registered, &'static str> {
    if stack.kind(1) != Kind::Table {
        return Err(
            "calling redis.register_function with a single argument is only applicable to Lua table \
             (representing named arguments).",
        );
    }
    let (mut name, mut description, mut flags) = (None, None, ScriptFlags::default());
    let mut has_callback = false;
    stack.reserve(8);
    // Where the function goes.
    stack.push_nil();
    stack.push_nil();
    while stack.next(1) {
        let Some(key) = text_of(stack, -2) else {
            return Err("named argument key given to redis.register_function is not a string");
        };
        match &key.to_ascii_lowercase()[..] {
            b"function_name" => {
                name = Some(text_of(stack, -1).ok_or(
                    "function_name argument given to redis.register_function must be a string",
                )?);
            }
            b"description" => {
                description = Some(text_of(stack, -1).ok_or(
                    "description argument given to redis.register_function must be a string",
                )?);
            }
            b"callback" => {
                if stack.kind(-1) != Kind::Function {
                    return Err(
                        "callback argument given to redis.register_function must be a function",
                    );
                }
                has_callback = true;
            }
            b"flags" => {
                if stack.kind(-1) != Kind::Table {
                    return Err(
                        "flags argument to redis.register_function must be a table representing \
                         function flags",
                    );
                }
                flags = flags_on_top(stack).ok_or("unknown flag given")?;
            }
            _ => return Err("unknown argument given to redis.register_function"),
        }
        stack.pop(1);
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    if !has_callback {
        return Err("redis.register_function must get a callback argument");
    }
    // Found again under the name in which it was written.
    stack.push_nil();
    while stack.next(1) {
        let is_it = stack
            .string(-2)
            .is_some_and(|key| key.eq_ignore_ascii_case(b"callback"));
        if is_it {
            break;
        }
        stack.pop(1);
    }
    Ok(Registered {
        name,
        description,
        flags,
    })
}

/// The flags that a table on top lists.
fn flags_on_top(stack: &mut Stack) -> Option<ScriptFlags> {
    let table = stack.top();
    let (mut flags, mut index) = (ScriptFlags::default(), 1);
    loop {
        stack.get_index(table, index);
        if stack.kind(-1) == Kind::Nil {
            stack.pop(1);
            return Some(flags);
        }
        let word = stack.string(-1)?.to_ascii_lowercase();
        let known = ScriptFlags::NAMES.iter();
        let (_, flag) = known.clone().find(|(name, _)| name.as_bytes() == word)?;
        flags = flags.or(*flag);
        stack.pop(1);
        index += 1;
    }
}
