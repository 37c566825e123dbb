//! Modules that are parsed once and instantiated often.

use std::sync::Arc;

use rquickjs::module::Declared;
use rquickjs::{Ctx, Module, Result, WriteOptions};

/// The compiled form of one module. Holds line numbers for stack traces, not the source.
#[derive(Clone)]
pub struct Bytecode(Arc<[u8]>);

impl Bytecode {
    /// The compiled form of a declared module.
    pub fn compile(module: &Module<'_, Declared>) -> Result<Self> {
        let options = WriteOptions { strip_source: true, ..WriteOptions::default() };
        Ok(Self(module.write(options)?.into()))
    }

    /// Declares the module in a context. Its imports are resolved when it is imported itself.
    pub fn load<'js>(&self, ctx: &Ctx<'js>) -> Result<Module<'js, Declared>> {
        #[expect(unsafe_code, reason = "rquickjs cannot know where bytecode comes from")]
        // SAFETY: `Module::load` asks for valid bytecode. These bytes were written by `compile`,
        // their only source, hence by the engine that is linked into this process, and are
        // immutable since.
        unsafe {
            Module::load(ctx.clone(), &self.0)
        }
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

impl std::fmt::Debug for Bytecode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bytecode({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use rquickjs::{Context, Runtime};

    use super::*;

    #[test]
    fn bytecode_moves_between_runtimes_and_keeps_lines() {
        let source = "\n\nexport function fail() { throw new Error('here'); }";
        let compile = |ctx: Ctx<'_>| Bytecode::compile(&Module::declare(ctx, "/m.js", source)?);
        let bytecode = Context::full(&Runtime::new().unwrap()).unwrap().with(compile).unwrap();
        assert!(bytecode.len_bytes() > 0);
        Context::full(&Runtime::new().unwrap()).unwrap().with(|ctx| {
            let (module, done) = bytecode.load(&ctx).unwrap().eval().unwrap();
            done.finish::<()>().unwrap();
            let fail: rquickjs::Function<'_> = module.get("fail").unwrap();
            fail.call::<_, ()>(()).unwrap_err();
            let stack = ctx.catch().into_exception().unwrap().stack().unwrap();
            assert!(stack.contains("/m.js:3"), "{stack}");
        });
    }
}
