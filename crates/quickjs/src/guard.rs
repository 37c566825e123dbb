//! Rust that the engine calls, whose panics end here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rquickjs::function::{IntoJsFunc, ParamRequirement, Params};
use rquickjs::loader::{ImportAttributes, Loader, Resolver};
use rquickjs::module::Declared;
use rquickjs::{Ctx, Error, Exception, Module, Result, Value};

const FAILED: &str = "A function of the node failed";

/// Calls what is inside; a panic of it, which is a bug and has been told by the panic hook, fails
/// the script that led to it.
#[derive(Clone)]
pub(crate) struct Guarded<T>(pub(crate) T);

/// What is inside is used again after a panic, as it was left: so are the states behind the locks
/// of this workspace, which know no poison.
fn guarded<R>(call: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

impl<'js, P, F: IntoJsFunc<'js, P>> IntoJsFunc<'js, P> for Guarded<F> {
    fn param_requirements() -> ParamRequirement {
        F::param_requirements()
    }

    fn call(&self, params: Params<'_, 'js>) -> Result<Value<'js>> {
        let ctx = params.ctx().clone();
        guarded(|| self.0.call(params))
            .unwrap_or_else(|| Err(Exception::throw_internal(&ctx, FAILED)))
    }
}

impl<F: FnMut() -> bool> Guarded<F> {
    /// Whether to stop: at a panic, yes.
    pub(crate) fn call(&mut self) -> bool {
        guarded(&mut self.0).unwrap_or(true)
    }
}

impl<R: Resolver> Resolver for Guarded<R> {
    fn resolve<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        base: &str,
        name: &str,
        attributes: Option<ImportAttributes<'js>>,
    ) -> Result<String> {
        guarded(|| self.0.resolve(ctx, base, name, attributes))
            .unwrap_or_else(|| Err(Error::new_resolving_message(base, name, FAILED)))
    }
}

impl<L: Loader> Loader for Guarded<L> {
    fn load<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        name: &str,
        attributes: Option<ImportAttributes<'js>>,
    ) -> Result<Module<'js, Declared>> {
        guarded(|| self.0.load(ctx, name, attributes))
            .unwrap_or_else(|| Err(Error::new_loading_message(name, FAILED)))
    }
}
