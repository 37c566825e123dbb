//! Modules: where they come from, how their names resolve, how they are compiled once.

use std::sync::Arc;

use coco_kv::{MapName, Value};
use coco_quickjs::Bytecode;
use parking_lot::Mutex;
use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::Declared;
use rquickjs::{Ctx, Error, Module};

use crate::call;

/// How deep imports may nest. The engine has no limit of its own: each level takes native stack.
const MAX_IMPORT_DEPTH: usize = 64;

/// Where the text of modules comes from.
pub trait ModuleSource: Send + Sync {
    /// The text of a module by its full name, `/dir/file.js`; `None` if there is no such module.
    fn module(&self, name: &str) -> Option<Value>;
}

/// Modules in memory, by name.
impl ModuleSource for std::collections::HashMap<String, Value> {
    fn module(&self, name: &str) -> Option<Value> {
        self.get(name).cloned()
    }
}

/// Modules in a table of the store, keyed by name: read through the transaction of the call under
/// way, so that a change of the application conflicts with it.
#[derive(Clone, Debug)]
pub struct ModuleTable(pub MapName);

impl ModuleSource for ModuleTable {
    fn module(&self, name: &str) -> Option<Value> {
        call::with_tx(|tx| tx.get(&self.0, name.as_bytes())).flatten()
    }
}

/// A compiled module.
#[derive(Clone, Debug)]
pub(crate) struct CompiledModule {
    pub(crate) name: Arc<str>,
    pub(crate) bytecode: Bytecode,
}

/// What the engine loads modules from at the moment: set before a script runs.
#[derive(Default)]
pub(crate) struct Modules {
    /// Modules that were compiled before; looked at first.
    pub(crate) compiled: Arc<[CompiledModule]>,
    /// Everything else is compiled from here.
    pub(crate) source: Option<Arc<dyn ModuleSource>>,
    /// Keeps what is compiled from source, if asked to.
    pub(crate) recorded: Option<Vec<CompiledModule>>,
    /// Modules that are being compiled, each because the one before imports it.
    pub(crate) depth: usize,
}

/// Shared between an engine and its loader.
pub(crate) type SharedModules = Arc<Mutex<Modules>>;

/// The engine's way to modules.
#[derive(Clone)]
pub(crate) struct ModuleLoader(pub(crate) SharedModules);

impl Resolver for ModuleLoader {
    fn resolve<'js>(
        &mut self,
        _ctx: &Ctx<'js>,
        base: &str,
        name: &str,
        _attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<String> {
        Ok(resolve(base, name))
    }
}

impl Loader for ModuleLoader {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<Module<'js, Declared>> {
        if attributes.is_some() {
            return Err(Error::new_loading_message(name, "import attributes are not supported"));
        }
        // Declaring a module loads what it imports, through this very loader: hold no lock.
        let (compiled, source) = {
            let modules = self.0.lock();
            let compiled = modules.compiled.iter().find(|module| &*module.name == name);
            (compiled.map(|module| module.bytecode.clone()), modules.source.clone())
        };
        if let Some(bytecode) = compiled {
            return bytecode.load(ctx);
        }
        let text = source.and_then(|source| source.module(name));
        let text = text.ok_or_else(|| Error::new_loading_message(name, "no such module"))?;
        let depth = self.0.lock().depth;
        if depth >= MAX_IMPORT_DEPTH {
            let message = format!("imports nest deeper than {MAX_IMPORT_DEPTH}");
            return Err(Error::new_loading_message(name, message));
        }
        self.0.lock().depth = depth + 1;
        let declared = Module::declare(ctx.clone(), name, text.to_vec());
        self.0.lock().depth = depth;
        let module = declared?;
        if self.0.lock().recorded.is_some() {
            let bytecode = Bytecode::compile(&module)?;
            let compiled = CompiledModule { name: name.into(), bytecode };
            if let Some(recorded) = &mut self.0.lock().recorded {
                recorded.push(compiled);
            }
        }
        Ok(module)
    }
}

/// The full name of an imported module: relative to the importing one when it starts with a dot,
/// else from the root. Never leaves the root.
pub(crate) fn resolve(base: &str, name: &str) -> String {
    let relative = name.starts_with("./") || name.starts_with("../");
    let folder = if relative { base.rsplit_once('/').map_or("", |(folder, _)| folder) } else { "" };
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve_relative_to_the_importer() {
        for (base, name, expected) in [
            ("/a/b.js", "./c.js", "/a/c.js"),
            ("/a/b.js", "../c.js", "/c.js"),
            ("/a/b/c.js", "../../d/e.js", "/d/e.js"),
            ("/a/b.js", "/c.js", "/c.js"),
            ("/a/b.js", "c.js", "/c.js"),
            ("/b.js", "../../../c.js", "/c.js"),
            ("", "/c.js", "/c.js"),
            ("/a/b.js", "./x//./y.js", "/a/x/y.js"),
        ] {
            assert_eq!(resolve(base, name), expected, "{base} imports {name}");
        }
    }
}
