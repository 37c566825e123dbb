//! A module with everything it imports, compiled once and run often.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::ops::ControlFlow;

use coco_adapter::Environment;
use coco_kv::{MapName, Tx, Value};
use rquickjs::loader::Loader;

use crate::access::Context;
use crate::call::{CallState, Lender};
use crate::interpreter::{Interpreter, Running};
use crate::module::{CompiledModule, ModuleLoader, ModuleTable, Modules, SharedModules, resolve};
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
    /// Which program this is: equal programs were compiled together.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }
}

impl ScriptEngine {
    /// Compiles a module with everything it imports. Nothing of it is evaluated.
    pub fn compile(
        &self,
        tx: &mut Tx,
        environment: &dyn Environment,
        source: Arc<dyn ModuleSource>,
        entry: &str,
        limits: Limits,
    ) -> Result<Program, ScriptError> {
        static STAMPS: AtomicU64 = AtomicU64::new(1);
        let entry: Arc<str> = resolve("", entry).into();
        let entries = std::slice::from_ref(&entry);
        let modules = self.compile_all(tx, environment, source, entries, limits)?.into();
        let stamp = STAMPS.fetch_add(1, Ordering::Relaxed);
        Ok(Program { entry, modules, stamp })
    }

    /// Whether every module of a table compiles with what it imports. Usable from an
    /// [`ApplyNatives`](crate::ApplyNatives), while another script runs.
    pub fn check_modules(
        &self,
        tx: &mut Tx,
        environment: &dyn Environment,
        table: &MapName,
    ) -> Result<(), ScriptError> {
        let mut names: Vec<Arc<str>> = Vec::new();
        tx.for_each(table, |name, _| {
            names.push(String::from_utf8_lossy(name).into());
            ControlFlow::Continue(())
        });
        let source = Arc::new(ModuleTable(table.clone()));
        self.compile_all(tx, environment, source, &names, Limits::nested()).map(drop)
    }

    fn compile_all(
        &self,
        tx: &mut Tx,
        environment: &dyn Environment,
        source: Arc<dyn ModuleSource>,
        names: &[Arc<str>],
        limits: Limits,
    ) -> Result<Vec<CompiledModule>, ScriptError> {
        let mut interpreter = self.take_idle(Context::AppReadOnly)?;
        interpreter.load(Modules {
            source: Some(source),
            recorded: Some(Vec::new()),
            ..Modules::default()
        });
        let mut state = CallState::new(Context::AppReadOnly);
        let lender = Lender { tx, state: &mut state, environment, natives: None };
        let modules = interpreter.shared_modules();
        let result = interpreter.run(limits, lender, |running| {
            names.iter().try_for_each(|name| declare(running, &modules, name)).map_err(Into::into)
        });
        let compiled = interpreter.unload().recorded.unwrap_or_default();
        self.give_back(interpreter);
        result.map(|()| compiled)
    }
}

/// Whether every one of these modules, name and text, compiles with what it imports, as it would in
/// [`ScriptEngine::check_modules`]. Needs no store and no running script.
pub fn check_sources(modules: &[(&str, &str)]) -> Result<(), ScriptError> {
    let text = |text: &str| Value::from(text.as_bytes());
    let source: HashMap<String, Value> =
        modules.iter().map(|(name, module)| (resolve("", name), text(module))).collect();
    let mut names: Vec<String> = source.keys().cloned().collect();
    names.sort();
    let mut interpreter = Interpreter::new(Context::AppReadOnly)?;
    interpreter.load(Modules {
        source: Some(Arc::new(source)),
        recorded: Some(Vec::new()),
        ..Modules::default()
    });
    let modules = interpreter.shared_modules();
    interpreter.run_borrowed(Limits::nested(), |running| {
        names.iter().try_for_each(|name| declare(running, &modules, name)).map_err(Into::into)
    })
}

fn declare(running: &Running<'_, '_>, modules: &SharedModules, name: &str) -> rquickjs::Result<()> {
    let recorded =
        |modules: &Modules| modules.recorded.iter().flatten().any(|module| &*module.name == name);
    if recorded(&modules.lock()) {
        return Ok(());
    }
    match ModuleLoader(modules.clone()).load(&running.ctx, name, None) {
        Ok(_) => Ok(()),
        // What a loader says directly has no exception yet.
        Err(error @ rquickjs::Error::Exception) => Err(error),
        Err(error) => Err(rquickjs::Exception::throw_reference(&running.ctx, &error.to_string())),
    }
}
