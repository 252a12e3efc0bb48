//! Libraries run once to learn their functions, in an interpreter of their own.

use std::time::Duration;

use super::sandbox::Purpose;
use super::vm::Vm;
use crate::scripts::{Engine, Registered};

/// What runs the sources of libraries.
pub struct Lua {
    /// `lua-enable-deprecated-api`
    pub deprecated: bool,
    /// Bytes that a library may take while it is loaded; 0: no limit.
    pub limit: usize,
}

impl Engine for Lua {
    fn functions_of(
        &self,
        code: &[u8],
        within: Option<Duration>,
    ) -> Result<Vec<Registered>, Vec<u8>> {
        let mut vm = Vm::new(Purpose::Functions, self.deprecated);
        vm.limit(self.limit);
        let functions = vm.load(code, within)?;
        Ok(functions
            .into_iter()
            .map(|(function, _)| function)
            .collect())
    }
}
