//! The world in which scripts run: what they find under which name, and that they cannot change it.
//!
//! Tables that all scripts share (`redis`, `string`, the globals) must not change. Lua 5.1 has no such
//! tables; Redis patches it. Here scripts get objects in their place, which read like those tables
//! and refuse to be written, and the few functions that would tell the difference (`type`, `pairs`, `rawget`,
//! `rawset`, `getmetatable`, `setmetatable`) know them. The tables themselves are out of reach.
//!
//! Globals of what is compiled are an empty table, whose metatable leads reads to the real one and
//! refuses writes.

use super::args::{bad_argument, bad_kind, fail, integer_or, raise, string};
use super::lua::{Body, Kind, Library, Outcome, Stack};
use super::world::World;
use super::{api, bit, json, msgpack, pack, patterns};

/// For which kind of sources an interpreter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Scripts.
    Eval,
    /// Libraries of functions.
    Functions,
}

/// Functions of Lua's that stay under their names.
const KEPT: &[&str] = &[
    "xpcall",
    "tostring",
    "next",
    "assert",
    "tonumber",
    "rawequal",
    "coroutine",
    "_VERSION",
    "select",
    "ipairs",
    "error",
];

/// Functions that Redis removed, which `lua-enable-deprecated-api` brings back. (`newproxy` is ours.)
const DEPRECATED: &[&str] = &["setfenv", "getfenv"];

/// Functions of ours in the place of Lua's.
const REPLACED: &[(&str, Body)] = &[
    ("type", type_of),
    ("pcall", protected_call),
    ("rawget", raw_get),
    ("rawset", raw_set),
    ("getmetatable", get_metatable),
    ("setmetatable", set_metatable),
    ("loadstring", load_string),
    ("load", load),
    ("unpack", unpack),
    ("collectgarbage", collect_garbage),
    ("gcinfo", |stack| {
        push_kilobytes(stack);
        Ok(1)
    }),
];

/// Tables that are reached by name: the interpreter's registry holds them for its owner.
pub struct Globals {
    /// The real table of globals.
    pub table: i32,
    /// The function that sees errors where they happen.
    pub handler: i32,
    /// The metatable of the globals that scripts see.
    view: i32,
    /// What libraries find in the place of the globals while they are loaded.
    loading: Option<i32>,
}

const READ_ONLY: &str = "Attempt to modify a readonly table";

impl Globals {
    /// Fills a fresh interpreter.
    pub fn fill(stack: &mut Stack, purpose: Purpose, deprecated: bool) -> Self {
        stack.reserve(20);
        let libraries = [
            Library::Base,
            Library::Table,
            Library::String,
            Library::Math,
        ];
        libraries
            .into_iter()
            .for_each(|library| stack.open(library));
        stack.push_globals();
        let lua = stack.top();
        stack.push_table(0, 64);
        let globals = stack.top();
        for name in KEPT.iter().chain(DEPRECATED.iter().filter(|_| deprecated)) {
            stack.get_field(lua, name);
            stack.set_field(globals, name);
        }
        for (name, body) in REPLACED {
            stack.push_body(*body);
            stack.set_field(globals, name);
        }
        // What Lua's own `pairs` returns first.
        stack.get_field(lua, "next");
        stack.push_closure(pairs, 1);
        stack.set_field(globals, "pairs");
        if deprecated {
            stack.push_body(new_proxy);
            stack.set_field(globals, "newproxy");
        }
        stack.get_field(lua, "coroutine");
        set_shown(stack, globals, "coroutine");
        stack.get_field(lua, "table");
        set_shown(stack, globals, "table");
        stack.get_field(lua, "string");
        set_functions(stack, patterns::FUNCTIONS);
        set_shown(stack, globals, "string");
        stack.get_field(lua, "math");
        set_functions(stack, api::MATH);
        set_shown(stack, globals, "math");
        for (name, functions) in [
            ("bit", bit::FUNCTIONS),
            ("struct", pack::FUNCTIONS),
            ("cmsgpack", msgpack::FUNCTIONS),
        ] {
            stack.push_table(0, functions.len());
            set_functions(stack, functions);
            if name == "cmsgpack" {
                for (name, text) in msgpack::TEXTS {
                    stack.push(text.as_bytes());
                    stack.set_field(-2, name);
                }
            }
            set_shown(stack, globals, name);
        }
        // It cannot fail: it only makes tables.
        let _ = json::new(stack);
        set_shown(stack, globals, "cjson");
        push_redis(stack, purpose);
        set_shown(stack, globals, "redis");
        let filled = Self::close(stack, globals, purpose);
        stack.set_top(0);
        filled
    }

    /// Puts the globals out of reach, and what stands for them in their place.
    fn close(stack: &mut Stack, globals: i32, purpose: Purpose) -> Self {
        if purpose == Purpose::Eval {
            stack.push_body(error_handler);
            stack.set_field(globals, "__redis__err__handler");
        }
        stack.push_copy(globals);
        show(stack);
        stack.set_field(globals, "_G");
        refuse_others(stack, globals);
        let loading = (purpose == Purpose::Functions).then(|| loading(stack));
        // The globals of what is compiled.
        stack.push_table(0, 0);
        stack.push_table(0, 2);
        stack.push_copy(globals);
        stack.set_field(-2, "__index");
        stack.push_body(read_only);
        stack.set_field(-2, "__newindex");
        stack.push_copy(-1);
        let view = stack.keep();
        stack.set_metatable(-2);
        stack.set_globals();
        stack.push_copy(globals);
        let table = stack.keep();
        stack.push_body(error_handler);
        let handler = stack.keep();
        Self {
            table,
            handler,
            view,
            loading,
        }
    }

    /// Has libraries find what they may use while they are loaded, or no longer.
    pub fn set_loading(&self, stack: &mut Stack, loads: bool) {
        let Some(loading) = self.loading else {
            return;
        };
        stack.push_kept(self.view);
        stack.push_kept(if loads { loading } else { self.table });
        stack.set_field(-2, "__index");
        stack.pop(1);
    }
}

/// What libraries find while they are loaded: a `redis` of their own, and nothing else.
fn loading(stack: &mut Stack) -> i32 {
    stack.push_table(0, 1);
    let table = stack.top();
    stack.push_table(0, 8);
    set_functions(stack, api::LOAD_FUNCTIONS);
    set_numbers(stack, api::NUMBERS);
    set_version(stack);
    let redis = stack.top();
    refuse_others(stack, redis);
    set_shown(stack, table, "redis");
    refuse_others(stack, table);
    stack.keep()
}

fn push_redis(stack: &mut Stack, purpose: Purpose) {
    stack.push_table(0, 32);
    set_functions(stack, api::FUNCTIONS);
    set_numbers(stack, api::NUMBERS);
    set_numbers(stack, api::AUDIENCES);
    set_version(stack);
    if purpose == Purpose::Eval {
        set_functions(stack, api::EVAL_FUNCTIONS);
    }
}

fn set_version(stack: &mut Stack) {
    set_numbers(stack, &[("REDIS_VERSION_NUM", api::version_number())]);
    stack.push(crate::config::REDIS_VERSION.as_bytes());
    stack.set_field(-2, "REDIS_VERSION");
}

fn set_functions(stack: &mut Stack, functions: &[(&str, Body)]) {
    for (name, body) in functions {
        stack.push_body(*body);
        stack.set_field(-2, name);
    }
}

fn set_numbers(stack: &mut Stack, numbers: &[(&str, f64)]) {
    for (name, number) in numbers {
        stack.push_number(*number);
        stack.set_field(-2, name);
    }
}

/// Has reads of names that a table does not have fail.
fn refuse_others(stack: &mut Stack, table: i32) {
    stack.push_table(0, 1);
    stack.push_body(no_such_global);
    stack.set_field(-2, "__index");
    stack.set_metatable(table);
}

/// Takes the table on top, as scripts may see it, into a field.
fn set_shown(stack: &mut Stack, globals: i32, name: &str) {
    show(stack);
    stack.set_field(globals, name);
}

/// Replaces the table on top by an object that reads like it.
fn show(stack: &mut Stack) {
    stack.push_object();
    stack.push_table(0, 3);
    stack.push_copy(-3);
    stack.set_field(-2, "__index");
    stack.push_body(read_only);
    stack.set_field(-2, "__newindex");
    stack.push_body(describe);
    stack.set_field(-2, "__tostring");
    stack.set_metatable(-2);
    stack.remove(-2);
}

/// Pushes the table that an object on the stack stands for; false when it stands for none.
fn push_real(stack: &mut Stack, index: i32) -> bool {
    stack.reserve(4);
    if stack.kind(index) != Kind::Userdata || !stack.push_metatable(index) {
        return false;
    }
    stack.get_field(-1, "__index");
    stack.remove(-2);
    if stack.kind(-1) == Kind::Table {
        return true;
    }
    stack.pop(1);
    false
}

fn describe(stack: &mut Stack) -> Outcome {
    let address = stack.address(1);
    stack.push(format!("table: {address:#x}").as_bytes());
    Ok(1)
}

fn read_only(stack: &mut Stack) -> Outcome {
    Err(fail(stack, READ_ONLY))
}

fn no_such_global(stack: &mut Stack) -> Outcome {
    if stack.top() != 2 {
        return Err(fail(
            stack,
            "Wrong number of arguments to luaProtectedTableError",
        ));
    }
    if !stack.coerce(2) {
        return Err(fail(
            stack,
            "Second argument to luaProtectedTableError must be a string or number",
        ));
    }
    let name = crate::base::text::before_nul(stack.string(2).unwrap_or_default());
    let text = [
        b"Script attempted to access nonexistent global variable '",
        name,
        b"'",
    ]
    .concat();
    Err(fail(stack, text))
}

/// Sees an error where it happened, and notes the place.
fn error_handler(stack: &mut Stack) -> Outcome {
    stack.set_top(1);
    stack.reserve(6);
    let mut frame = stack.frame(1);
    if frame.as_ref().is_some_and(|frame| frame.is_c) {
        frame = stack.frame(2);
    }
    if stack.kind(1) != Kind::Table {
        let text = match stack.kind(1) {
            Kind::Nil => b"nil".to_vec(),
            Kind::Boolean => stack.truth(1).to_string().into_bytes(),
            _ if stack.coerce(1) => stack.string(1).unwrap_or_default().to_vec(),
            _ => format!("{}: {:#x}", stack.kind_name(1), stack.address(1)).into_bytes(),
        };
        stack.push_table(0, 3);
        stack.push(&[b"ERR ", &text[..]].concat());
        stack.set_field(-2, "err");
    }
    if let Some(frame) = frame {
        stack.push(&frame.source);
        stack.set_field(-2, "source");
        stack.push_number(f64::from(frame.line));
        stack.set_field(-2, "line");
    }
    Ok(1)
}

fn type_of(stack: &mut Stack) -> Outcome {
    if stack.kind(1) == Kind::None {
        return Err(bad_argument(stack, 1, "value expected"));
    }
    let name = match push_real(stack, 1) {
        true => "table",
        false => stack.kind_name(1),
    };
    stack.push(name.as_bytes());
    Ok(1)
}

/// As Lua's `pcall`; of an error that is a table with a text, the text.
fn protected_call(stack: &mut Stack) -> Outcome {
    let arguments = stack.top() - 1;
    if arguments < 0 {
        return Err(bad_argument(stack, 1, "value expected"));
    }
    stack.reserve(4);
    stack.push_bool(true);
    stack.insert(1);
    if !stack.call(arguments, -1, 0) {
        stack.reserve(4);
        stack.remove(1);
        if stack.kind(-1) == Kind::Table {
            stack.get_field(-1, "err");
            if matches!(stack.kind(-1), Kind::String | Kind::Number) {
                stack.remove(-2);
            }
        }
        if stack.with_own(|world: &mut World, _| world.ends()) {
            return Err(super::lua::Raise);
        }
        stack.push_bool(false);
        stack.insert(1);
    }
    Ok(stack.top())
}

/// Of a table that scripts may not change, a copy.
fn pairs(stack: &mut Stack) -> Outcome {
    stack.reserve(8);
    if push_real(stack, 1) {
        let real = stack.top();
        stack.push_table(0, 0);
        stack.push_nil();
        while stack.next(real) {
            stack.push_copy(-2);
            stack.insert(-2);
            stack.set(real + 1);
        }
        stack.push_upvalue(1);
        stack.insert(real + 1);
        stack.push_nil();
        return Ok(3);
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_kind(stack, 1, "table"));
    }
    stack.push_upvalue(1);
    stack.push_copy(1);
    stack.push_nil();
    Ok(3)
}

fn raw_get(stack: &mut Stack) -> Outcome {
    stack.set_top(stack.top().clamp(2, 2));
    let is_real = push_real(stack, 1);
    if is_real {
        stack.push_copy(2);
        stack.get(-2);
        return Ok(1);
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_kind(stack, 1, "table"));
    }
    stack.get(1);
    Ok(1)
}

fn raw_set(stack: &mut Stack) -> Outcome {
    if push_real(stack, 1) {
        return Err(raise(stack, READ_ONLY.as_bytes()));
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_kind(stack, 1, "table"));
    }
    for argument in [2, 3] {
        if stack.kind(argument) == Kind::None {
            return Err(bad_argument(stack, argument, "value expected"));
        }
    }
    stack.set_top(3);
    let is_nil = stack.kind(2) == Kind::Nil;
    if !stack.set(1) {
        let text = if is_nil {
            "table index is nil"
        } else {
            "table index is NaN"
        };
        return Err(raise(stack, text.as_bytes()));
    }
    Ok(1)
}

fn get_metatable(stack: &mut Stack) -> Outcome {
    stack.reserve(8);
    match stack.kind(1) {
        Kind::None => return Err(bad_argument(stack, 1, "value expected")),
        // What methods of strings are looked up in; and of our objects what their tables have.
        Kind::String => {}
        Kind::Userdata if push_real(stack, 1) => {
            if !stack.push_metatable(-1) {
                stack.push_nil();
                return Ok(1);
            }
            show(stack);
            return Ok(1);
        }
        _ => {
            if !stack.push_metatable(1) {
                stack.push_nil();
                return Ok(1);
            }
            stack.get_field(-1, "__metatable");
            if stack.kind(-1) == Kind::Nil {
                stack.pop(1);
            }
            return Ok(1);
        }
    }
    // A table whose only field is the library as scripts see it.
    stack.push_table(0, 1);
    stack.push_globals();
    if stack.push_metatable(-1) {
        stack.get_field(-1, "__index");
        stack.get_field(-1, "string");
        stack.set_field(2, "__index");
    }
    stack.set_top(2);
    show(stack);
    Ok(1)
}

fn set_metatable(stack: &mut Stack) -> Outcome {
    stack.reserve(4);
    if push_real(stack, 1) {
        return Err(raise(stack, READ_ONLY.as_bytes()));
    }
    if stack.kind(1) != Kind::Table {
        return Err(bad_kind(stack, 1, "table"));
    }
    let is_view = stack.kind(2) == Kind::Userdata && push_real(stack, 2);
    if is_view {
        // An object cannot be one; what it stands for must not be reached. A copy of it will do.
        let real = stack.top();
        stack.push_table(0, 4);
        stack.push_nil();
        while stack.next(real) {
            stack.push_copy(-2);
            stack.insert(-2);
            stack.set(real + 1);
        }
        stack.set_metatable(1);
        stack.set_top(1);
        return Ok(1);
    }
    if !matches!(stack.kind(2), Kind::Nil | Kind::Table) {
        return Err(bad_argument(stack, 2, "nil or table expected"));
    }
    if stack.push_metatable(1) {
        stack.get_field(-1, "__metatable");
        if stack.kind(-1) != Kind::Nil {
            return Err(fail(stack, "cannot change a protected metatable"));
        }
    }
    stack.set_top(2);
    stack.set_metatable(1);
    Ok(1)
}

fn compile(stack: &mut Stack, source: &[u8], name: &[u8]) -> Outcome {
    let name = std::ffi::CString::new(crate::base::text::before_nul(name)).unwrap_or_default();
    stack.reserve(3);
    if stack.compile(source, &name) {
        return Ok(1);
    }
    stack.push_nil();
    stack.insert(-2);
    Ok(2)
}

fn load_string(stack: &mut Stack) -> Outcome {
    let source = string(stack, 1)?.to_vec();
    let name = match stack.kind(2) {
        Kind::None | Kind::Nil => source.clone(),
        _ => string(stack, 2)?.to_vec(),
    };
    compile(stack, &source, &name)
}

fn load(stack: &mut Stack) -> Outcome {
    let name = match stack.kind(2) {
        Kind::None | Kind::Nil => b"=(load)".to_vec(),
        _ => string(stack, 2)?.to_vec(),
    };
    if stack.kind(1) != Kind::Function {
        return Err(bad_kind(stack, 1, "function"));
    }
    let mut source = Vec::new();
    loop {
        stack.set_top(1);
        stack.reserve(4);
        stack.push_copy(1);
        if !stack.call(0, 1, 0) {
            stack.push_nil();
            stack.insert(-2);
            return Ok(2);
        }
        match stack.kind(-1) {
            Kind::Nil => break,
            Kind::String | Kind::Number => {
                stack.coerce(-1);
                let piece = stack.string(-1).unwrap_or_default();
                if piece.is_empty() {
                    break;
                }
                source.extend_from_slice(piece);
            }
            _ => {
                stack.push_nil();
                stack.push(b"reader function must return a string");
                return Ok(2);
            }
        }
        // A source is an argument of a request, or was made of some.
        if source.len() > 1 << 29 {
            stack.push_nil();
            stack.push(b"not enough memory");
            return Ok(2);
        }
    }
    compile(stack, &source, &name)
}

fn push_kilobytes(stack: &mut Stack) {
    let bytes = stack.allocated();
    stack.push_number(bytes as f64 / 1024.0);
}

/// As Lua's, but that the collector is not turned off or tuned for others.
fn collect_garbage(stack: &mut Stack) -> Outcome {
    let option = match stack.kind(1) {
        Kind::None | Kind::Nil => b"collect".to_vec(),
        _ => string(stack, 1)?.to_vec(),
    };
    let amount = integer_or(stack, 2, 0)?;
    stack.reserve(2);
    match &option[..] {
        b"collect" => {
            stack.collect_all();
            stack.push_number(0.0);
        }
        b"step" => {
            stack.collect(amount.clamp(0, 1 << 20) as i32);
            stack.push_bool(false);
        }
        b"count" => push_kilobytes(stack),
        b"stop" | b"restart" => stack.push_number(0.0),
        b"setpause" | b"setstepmul" => stack.push_number(200.0),
        other => {
            let reason = format!("invalid option '{}'", String::from_utf8_lossy(other));
            return Err(bad_argument(stack, 1, &reason));
        }
    }
    Ok(1)
}

/// As Lua's, whose own arithmetic overflows.
fn unpack(stack: &mut Stack) -> Outcome {
    if stack.kind(1) != Kind::Table {
        return Err(bad_kind(stack, 1, "table"));
    }
    let first = integer_or(stack, 2, 1)? as i32;
    let len = stack.len(1) as i64;
    let last = integer_or(stack, 3, len)? as i32;
    if first > last {
        return Ok(0);
    }
    let count = i64::from(last) - i64::from(first) + 1;
    let has_room = i32::try_from(count).is_ok_and(|count| stack.reserve(count));
    if !has_room {
        return Err(fail(stack, "too many results to unpack"));
    }
    for index in first..=last {
        stack.get_index(1, index);
    }
    Ok(count as i32)
}

/// An object, with `true` one that has a metatable: what scripts get of it is another table, so that
/// nothing they write there is a finalizer.
fn new_proxy(stack: &mut Stack) -> Outcome {
    let with_metatable = stack.truth(1);
    stack.set_top(0);
    stack.push_object();
    if with_metatable {
        stack.push_table(0, 1);
        stack.push_table(0, 0);
        stack.set_field(-2, "__metatable");
        stack.set_metatable(1);
    }
    Ok(1)
}
