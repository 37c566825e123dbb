//! A module with everything it imports, compiled once and run often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coco_kv::Value;
use rquickjs::loader::Loader;

use crate::access::Context;
use crate::call::{CallState, Lender};
use crate::interpreter::Running;
use crate::module::{CompiledModule, ModuleLoader, Modules, SharedModules};
use crate::{Limits, ModuleSource, ScriptEngine, ScriptError};

/// A module with everything it imports, compiled.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) entry: Arc<str>,
    pub(crate) modules: Arc<[CompiledModule]>,
    /// Tells this program from every other of the process.
    pub(crate) stamp: u64,
}

impl Program {
    /// Whether each module still has the text that it was compiled from. `current` is asked for
    /// all of them, so that a transaction depends on what it runs.
    pub fn is_current(&self, mut current: impl FnMut(&str) -> Option<Value>) -> bool {
        let mut unchanged = true;
        for module in self.modules.iter() {
            unchanged &= current(&module.name).is_some_and(|text| same(&text, &module.text));
        }
        unchanged
    }

    /// Which program this is: equal programs were compiled together.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }
}

/// Whether two values hold the same bytes; at once if they share them, as two readings of one write
/// do.
fn same(left: &[u8], right: &[u8]) -> bool {
    std::ptr::eq(left, right) || left == right
}

impl ScriptEngine {
    /// Compiles a module with everything it imports. Nothing of it is evaluated.
    pub fn compile(
        &self,
        tx: &mut coco_kv::Tx,
        environment: &dyn coco_adapter::Environment,
        source: Arc<dyn ModuleSource>,
        entry: &str,
        limits: Limits,
    ) -> Result<Program, ScriptError> {
        static STAMPS: AtomicU64 = AtomicU64::new(1);
        let mut interpreter = self.take_idle()?;
        interpreter.load(Modules {
            source: Some(source),
            recorded: Some(Vec::new()),
            ..Modules::default()
        });
        let mut state = CallState::new(Context::AppReadOnly);
        let lender = Lender { tx, state: &mut state, environment, natives: None };
        let shared = interpreter.shared_modules();
        interpreter.run(Context::AppReadOnly, limits, lender, false, |running| {
            declare(running, &shared, entry).map_err(Into::into)
        })?;
        let modules = interpreter.unload().recorded.unwrap_or_default().into();
        self.give_back(interpreter);
        let stamp = STAMPS.fetch_add(1, Ordering::Relaxed);
        Ok(Program { entry: entry.into(), modules, stamp })
    }
}

fn declare(
    running: &Running<'_, '_>,
    modules: &SharedModules,
    entry: &str,
) -> rquickjs::Result<()> {
    match ModuleLoader(modules.clone()).load(&running.ctx, entry, None) {
        Ok(_) => Ok(()),
        // What a loader says directly has no exception yet.
        Err(error @ rquickjs::Error::Exception) => Err(error),
        Err(error) => Err(rquickjs::Exception::throw_reference(&running.ctx, &error.to_string())),
    }
}
