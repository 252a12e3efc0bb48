//! Libraries of functions: their code, what it registered, and how they are replaced.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{Engine, ScriptFlags};
use crate::base::text::{before_nul, split_args};

/// A function as its library registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is for.
    pub description: Option<Vec<u8>>,
    /// What it says of itself.
    pub flags: ScriptFlags,
}

/// A function.
#[derive(Debug)]
pub struct Function {
    /// As it was registered.
    pub registered: Registered,
    /// It has reached for keys that it did not declare: it holds all shards from its start.
    pub reaches: AtomicBool,
}

/// A library.
#[derive(Debug)]
pub struct Library {
    /// No other library, nor an earlier one of this name, has it.
    pub id: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// As it was sent.
    pub source: Vec<u8>,
    /// Where Lua's code begins, behind the first line.
    pub code: usize,
    /// Its functions, by name.
    pub functions: BTreeMap<Vec<u8>, Arc<Function>>,
}

/// All libraries, as of some moment.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// By name.
    pub libraries: BTreeMap<Vec<u8>, Arc<Library>>,
    /// Functions by name in lower case, with their libraries.
    pub functions: HashMap<Vec<u8>, (Arc<Library>, Arc<Function>)>,
}

/// The libraries that there are.
#[derive(Default)]
pub struct Libraries {
    now: ArcSwap<Registry>,
    /// Held by who changes them.
    change: Mutex<()>,
    last_id: AtomicU64,
}

/// What the first line of a library says.
#[derive(Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The language.
    pub engine: Vec<u8>,
    /// The library's name.
    pub name: Vec<u8>,
    /// Length of the line, without its end.
    pub len: usize,
}

const NAMES: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at \
                     least one character long";

/// True for what may be the name of a library or function.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

impl Metadata {
    /// Reads a library's first line.
    pub fn of(source: &[u8]) -> Result<Self, Vec<u8>> {
        if !source.starts_with(b"#!") {
            return Err(b"Missing library metadata".to_vec());
        }
        let invalid = || b"Invalid library metadata".to_vec();
        let len = memchr::memchr(b'\n', before_nul(source)).ok_or_else(invalid)?;
        let parts = split_args(&source[..len]).ok_or_else(invalid)?;
        let (engine, options) = parts.split_first().ok_or_else(invalid)?;
        let mut name = None;
        for option in options {
            let (head, value) = option.split_at(option.len().min(5));
            if !head.eq_ignore_ascii_case(b"name=") {
                return Err([b"Invalid metadata value given: ", &option[..]].concat());
            }
            if name.replace(value.to_vec()).is_some() {
                return Err(
                    b"Invalid metadata value, name argument was given multiple times".to_vec(),
                );
            }
        }
        Ok(Self {
            engine: engine.get(2..).unwrap_or_default().to_vec(),
            name: name.ok_or_else(|| b"Library name was not given".to_vec())?,
            len,
        })
    }
}

impl Registry {
    /// A function, by its name in any case, with its library.
    pub fn find(&self, name: &[u8]) -> Option<&(Arc<Library>, Arc<Function>)> {
        self.functions.get(&name.to_ascii_lowercase())
    }

    /// The library of a source, which may take the place of one of its name if `replace` says so. Its code is run
    /// within a time.
    pub fn read(
        &self,
        ids: &Libraries,
        engine: &dyn Engine,
        source: &[u8],
        (replace, within): (bool, Option<Duration>),
    ) -> Result<Library, Vec<u8>> {
        let Metadata {
            engine: language,
            name,
            len,
        } = Metadata::of(source)?;
        if !is_name(&name) {
            return Err(NAMES.into());
        }
        if !language.eq_ignore_ascii_case(b"lua") {
            return Err([b"Engine '", &language[..], b"' not found"].concat());
        }
        if self.libraries.contains_key(&name) && !replace {
            return Err([b"Library '", &name[..], b"' already exists"].concat());
        }
        let registered = engine.functions_of(&source[len..], within)?;
        if registered.is_empty() {
            return Err(b"No functions registered".to_vec());
        }
        let functions = registered.into_iter().map(|registered| {
            let name = registered.name.clone();
            let reaches = AtomicBool::new(false);
            let function = Function {
                registered,
                reaches,
            };
            (name, Arc::new(function))
        });
        Ok(Library {
            id: ids.last_id.fetch_add(1, Relaxed) + 1,
            name,
            source: source.to_vec(),
            code: len,
            functions: functions.collect(),
        })
    }

    /// Adds a library, in the place of one of its name if `replace` says so. The registry is as it was when
    /// something is wrong.
    pub fn add(&mut self, library: Library, replace: bool) -> Result<(), Vec<u8>> {
        let name = &library.name;
        if self.libraries.contains_key(name) && !replace {
            return Err([b"Library '", &name[..], b"' already exists"].concat());
        }
        let old = self.remove(name);
        self.link(Arc::new(library)).inspect_err(|_| {
            if let Some(old) = old {
                // What it had was free before, and is again.
                let _ = self.link(old);
            }
        })
    }

    fn link(&mut self, library: Arc<Library>) -> Result<(), Vec<u8>> {
        let mut names = library.functions.keys();
        let is_taken = |name: &&Vec<u8>| self.functions.contains_key(&name.to_ascii_lowercase());
        if let Some(taken) = names.find(is_taken) {
            return Err([b"Function ", &taken[..], b" already exists"].concat());
        }
        for (name, function) in &library.functions {
            let function = (Arc::clone(&library), Arc::clone(function));
            self.functions.insert(name.to_ascii_lowercase(), function);
        }
        self.libraries.insert(library.name.clone(), library);
        Ok(())
    }

    /// Removes a library.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Library>> {
        let library = self.libraries.remove(name)?;
        for name in library.functions.keys() {
            self.functions.remove(&name.to_ascii_lowercase());
        }
        Some(library)
    }

    /// Takes all libraries of another registry over, in the place of those of their names if `replace` says so.
    pub fn join(&mut self, other: Self, replace: bool) -> Result<(), Vec<u8>> {
        for name in other.libraries.keys() {
            if self.libraries.contains_key(name) {
                if !replace {
                    return Err([b"Library ", &name[..], b" already exists"].concat());
                }
                self.remove(name);
            }
        }
        other
            .libraries
            .into_values()
            .try_for_each(|library| self.link(library))
    }

    /// Sources, as files hold them.
    pub fn sources(&self) -> Vec<Vec<u8>> {
        let libraries = self.libraries.values();
        libraries.map(|library| library.source.clone()).collect()
    }

    /// Bytes that the libraries take.
    pub fn memory(&self) -> usize {
        let functions = self.functions.values().map(|(_, function)| {
            let registered = &function.registered;
            let description = registered.description.as_ref().map_or(0, Vec::len);
            size_of::<Function>() + 2 * registered.name.len() + description
        });
        let libraries = self
            .libraries
            .values()
            .map(|library| size_of::<Library>() + 2 * library.name.len() + library.source.len());
        functions.sum::<usize>() + libraries.sum::<usize>()
    }
}

impl Libraries {
    /// All libraries, as of now.
    pub fn now(&self) -> arc_swap::Guard<Arc<Registry>> {
        self.now.load()
    }

    /// Changes the libraries: all of what `work` does, or nothing if it fails.
    pub fn change<R>(
        &self,
        work: impl FnOnce(&mut Registry, &Self) -> Result<R, Vec<u8>>,
    ) -> Result<R, Vec<u8>> {
        let _change = self.change.lock();
        let mut registry = Registry::clone(&self.now.load());
        let result = work(&mut registry, self)?;
        self.now.store(Arc::new(registry));
        Ok(result)
    }

    /// Removes all libraries.
    pub fn clear(&self) {
        let _change = self.change.lock();
        self.now.store(Arc::default());
    }

    /// Takes the libraries of a file, whose code ran before wherever it was written, in the place of all or
    /// (`adds`) beside them, where they may `replace` others of their names.
    pub fn take(
        &self,
        engine: &dyn Engine,
        sources: &[Vec<u8>],
        (adds, replace): (bool, bool),
    ) -> Result<(), Vec<u8>> {
        self.change(|registry, ids| {
            if !adds {
                *registry = Registry::default();
            }
            for source in sources {
                let library = registry.read(ids, engine, source, (replace, None))?;
                registry.add(library, replace)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;

    impl Engine for Words {
        fn functions_of(
            &self,
            code: &[u8],
            _: Option<Duration>,
        ) -> Result<Vec<Registered>, Vec<u8>> {
            let words = code.split(|b| b.is_ascii_whitespace());
            let words = words.filter(|word| !word.is_empty());
            let function = |name: &[u8]| Registered {
                name: name.to_vec(),
                description: None,
                flags: ScriptFlags::default(),
            };
            Ok(words.map(function).collect())
        }
    }

    #[test]
    fn a_library_comes_as_a_whole_or_not_at_all() {
        let libraries = Libraries::default();
        let load = |source: &str, replace: bool| {
            let loaded = libraries.change(|registry, ids| {
                let library = registry.read(ids, &Words, source.as_bytes(), (replace, None))?;
                let name = library.name.clone();
                registry.add(library, replace).map(|()| name)
            });
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
            loaded.map(text).map_err(text)
        };
        let failed = |text: &str| Err(text.to_owned());
        assert_eq!(load("#!lua name=one\nf g", false), Ok("one".into()));
        assert_eq!(
            load("#!lua name=one\nh", false),
            failed("Library 'one' already exists")
        );
        assert_eq!(
            load("#!lua name=two\ng", false),
            failed("Function g already exists")
        );
        assert_eq!(load("#!lua name=two\nk", false), Ok("two".into()));
        assert_eq!(
            load("#!lua name=two\nf", true),
            failed("Function f already exists")
        );
        assert!(libraries.now().find(b"K").is_some());
        assert_eq!(load("#!lua name=one\nh", true), Ok("one".into()));
        assert!(libraries.now().find(b"f").is_none());
        assert_eq!(load("f", false), failed("Missing library metadata"));
        assert_eq!(load("#!lua name=a-b\nx", false), failed(NAMES));
        assert_eq!(
            load("#!js name=a\nx", false),
            failed("Engine 'js' not found")
        );
        assert_eq!(
            load("#!lua\nx", false),
            failed("Library name was not given")
        );
        assert_eq!(
            load("#!lua name=a\n", false),
            failed("No functions registered")
        );
    }
}
