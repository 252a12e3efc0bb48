//! An interpreter of one worker: compiled scripts, loaded libraries, and the running of both.

use std::collections::HashMap;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use super::lua::{Interpreter, Kind, Stack};
use super::replies;
use super::sandbox::{Globals, Purpose};
use super::world::{Host, Load, World};
use crate::resp::write::Output;
use crate::scripts::{Digest, Library, Registered, Script};

/// Instructions between two looks at a running script.
const INSTRUCTIONS: i32 = 10_000;
/// Scripts between two steps of garbage collection.
const COLLECT_EVERY: u32 = 50;

/// What a run came to.
pub enum Ran {
    /// It returned something: the reply is written, and these errors are among it.
    Returned(Vec<replies::ErrorReply>),
    /// It raised an error.
    Raised(replies::Failure),
}

/// An interpreter.
pub struct Vm {
    lua: Interpreter<World>,
    globals: Globals,
    compiled: HashMap<Digest, i32>,
    /// Functions of libraries, by the library's id.
    loaded: HashMap<u64, HashMap<Vec<u8>, i32>>,
    runs: u32,
}

impl Vm {
    /// A fresh interpreter, which may allocate so many bytes (0: without a limit).
    pub fn new(purpose: Purpose, deprecated: bool) -> Self {
        let mut lua = Interpreter::new(World::default());
        let globals = Globals::fill(&mut lua.stack(), purpose, deprecated);
        lua.stack().watch(INSTRUCTIONS);
        Self {
            lua,
            globals,
            compiled: HashMap::new(),
            loaded: HashMap::new(),
            runs: 0,
        }
    }

    /// Bytes that it has allocated.
    pub fn memory(&mut self) -> usize {
        self.lua.used()
    }

    /// Limits what it may allocate while scripts run; 0: not at all.
    pub fn limit(&mut self, bytes: usize) {
        self.lua.limit(bytes);
    }

    /// The compiled script of a digest.
    #[inline]
    pub fn compiled(&self, digest: &Digest) -> Option<i32> {
        self.compiled.get(digest).copied()
    }

    /// Compiles a script, and keeps it; or what the compiler says.
    pub fn compile(&mut self, script: &Script) -> Result<i32, Vec<u8>> {
        if let Some(kept) = self.compiled(&script.digest) {
            return Ok(kept);
        }
        let mut stack = self.lua.stack();
        let kept = compile(&mut stack, &script.source[script.code..], c"@user_script")?;
        self.compiled.insert(script.digest, kept);
        Ok(kept)
    }

    /// Runs a script that was compiled, and writes its reply.
    pub fn run_script(
        &mut self,
        function: i32,
        (keys, args): (&[&[u8]], &[&[u8]]),
        host: &mut dyn Host,
        out: &mut Output,
    ) -> Ran {
        let mut stack = self.lua.stack();
        stack.set_top(0);
        stack.reserve(8);
        stack.push_kept(self.globals.table);
        for (name, values) in [("KEYS", keys), ("ARGV", args)] {
            push_list(&mut stack, values);
            stack.set_field(1, name);
        }
        stack.pop(1);
        stack.push_kept(self.globals.handler);
        stack.push_kept(function);
        self.run(0, host, out)
    }

    /// Runs a function of a library that was loaded, and writes its reply.
    pub fn run_function(
        &mut self,
        function: i32,
        (keys, args): (&[&[u8]], &[&[u8]]),
        host: &mut dyn Host,
        out: &mut Output,
    ) -> Ran {
        let mut stack = self.lua.stack();
        stack.set_top(0);
        stack.reserve(8);
        stack.push_kept(self.globals.handler);
        stack.push_kept(function);
        push_list(&mut stack, keys);
        push_list(&mut stack, args);
        self.run(2, host, out)
    }

    /// Calls the function above the handler.
    fn run(&mut self, args: i32, host: &mut dyn Host, out: &mut Output) -> Ran {
        let lent = |vm: &mut Self| -> bool { vm.lua.stack().call(args, 1, 1) };
        let (succeeded, ended, protocol) = World::lend(
            self,
            host,
            |vm| vm.lua.own(),
            |vm| {
                let succeeded = lent(vm);
                let world = vm.lua.own();
                let protocol = world.host().map(|host| host.protocol());
                (succeeded, world.ends(), protocol.unwrap_or_default())
            },
        );
        let mut stack = self.lua.stack();
        if ended {
            // Every line was watched, so that it ended.
            stack.watch(INSTRUCTIONS);
        }
        let ran = if succeeded {
            let mut writer = replies::Writer {
                out,
                protocol,
                errors: Vec::new(),
            };
            writer.write(&mut stack);
            Ran::Returned(writer.errors)
        } else if stack.kind(-1) == Kind::Table {
            Ran::Raised(replies::failure(&mut stack))
        } else {
            stack.coerce(-1);
            let text = stack.string(-1).unwrap_or(b"execution failure");
            Ran::Raised(replies::Failure {
                text: text[..text.len().min(100)].to_vec(),
                is_bare: true,
                ..replies::Failure::default()
            })
        };
        stack.set_top(0);
        if matches!(&ran, Ran::Raised(failure) if failure.is_bare) {
            // Lua does not collect when it is refused memory; the next script is to find some.
            stack.collect_all();
        }
        self.runs += 1;
        if self.runs == COLLECT_EVERY {
            self.runs = 0;
            stack.collect(COLLECT_EVERY as i32);
        }
        ran
    }

    /// A function of a library; loads that where it is new here. An error when that fails.
    pub fn function(&mut self, library: &Library, name: &[u8]) -> Result<i32, Vec<u8>> {
        if !self.loaded.contains_key(&library.id) {
            let functions = self.load(&library.source[library.code..], None)?;
            let by_name = functions.into_iter().map(|(f, kept)| (f.name, kept));
            self.loaded.insert(library.id, by_name.collect());
        }
        let functions = self.loaded.get(&library.id);
        let found = functions.and_then(|functions| functions.get(name)).copied();
        found.ok_or_else(|| b"Function not found".to_vec())
    }

    /// Forgets libraries that there are no more.
    pub fn keep_libraries(&mut self, is_there: impl Fn(u64) -> bool) {
        let mut stack = self.lua.stack();
        self.loaded.retain(|id, functions| {
            let stays = is_there(*id);
            if !stays {
                functions.values().for_each(|kept| stack.forget(*kept));
            }
            stays
        });
    }

    /// Number of libraries that are loaded here.
    pub fn libraries(&self) -> usize {
        self.loaded.len()
    }

    /// Runs the code of a library; what it registered, with where the functions are kept.
    pub fn load(
        &mut self,
        code: &[u8],
        within: Option<Duration>,
    ) -> Result<Vec<(Registered, i32)>, Vec<u8>> {
        let mut stack = self.lua.stack();
        stack.set_top(0);
        self.globals.set_loading(&mut stack, true);
        let compiled = compile(&mut stack, code, c"@user_function");
        let ran = match compiled {
            Err(text) => Err([b"Error compiling function: ", &text[..]].concat()),
            Ok(kept) => {
                self.lua.own().load = Some(Load {
                    until: within.map(|within| Instant::now() + within),
                    ..Load::default()
                });
                let mut stack = self.lua.stack();
                stack.push_kept(kept);
                stack.forget(kept);
                match stack.call(0, 0, 0) {
                    true => Ok(()),
                    false => {
                        Err([b"Error registering functions: ", &said(&mut stack)[..]].concat())
                    }
                }
            }
        };
        let load = self.lua.own().load.take().unwrap_or_default();
        let mut stack = self.lua.stack();
        if load.is_late {
            stack.watch(INSTRUCTIONS);
        }
        stack.set_top(0);
        self.globals.set_loading(&mut stack, false);
        ran.map(|()| load.functions)
    }
}

/// What an error on top says.
fn said(stack: &mut Stack) -> Vec<u8> {
    match stack.kind(-1) {
        Kind::Table => replies::failure(stack).text,
        _ if stack.coerce(-1) => [b"ERR ", stack.string(-1).unwrap_or_default()].concat(),
        _ => b"(null)".to_vec(),
    }
}

fn compile(stack: &mut Stack, source: &[u8], name: &CStr) -> Result<i32, Vec<u8>> {
    stack.reserve(4);
    if stack.compile(source, name) {
        return Ok(stack.keep());
    }
    let text = stack.string(-1).unwrap_or_default().to_vec();
    stack.pop(1);
    Err(text)
}

fn push_list(stack: &mut Stack, values: &[&[u8]]) {
    stack.push_table(values.len(), 0);
    for (index, value) in values.iter().enumerate() {
        stack.push(value);
        stack.set_index(-2, index as i32 + 1);
    }
}
