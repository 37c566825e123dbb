//! Functions of the node for scripts, whose time counts as the script's own.

use coco_quickjs::eval_nested;
use rquickjs::function::{IntoJsFunc, ParamRequirement, Params};
use rquickjs::{Ctx, Error, Function, Result, Value};

use crate::call;

/// A function of Rust for scripts, as [`coco_quickjs::native`] makes it. The engine asks for the
/// time every 10,000 of its own steps, of which a few may call many slow functions: so the time is
/// looked at whenever one of them returns.
pub(crate) fn native<'js, P, F>(ctx: &Ctx<'js>, name: &str, function: F) -> Result<Function<'js>>
where
    F: IntoJsFunc<'js, P> + Send + 'static,
{
    coco_quickjs::native(ctx, name, Timed(function))
}

struct Timed<F>(F);

impl<'js, P, F: IntoJsFunc<'js, P>> IntoJsFunc<'js, P> for Timed<F> {
    fn param_requirements() -> ParamRequirement {
        F::param_requirements()
    }

    fn call(&self, params: Params<'_, 'js>) -> Result<Value<'js>> {
        let ctx = params.ctx().clone();
        let result = self.0.call(params);
        if call::is_time_up() { Err(interruption(&ctx)) } else { result }
    }
}

/// What the engine throws when it is told to stop, which no script can catch. Only the engine can
/// make it, so it is given something to stop.
fn interruption(ctx: &Ctx<'_>) -> Error {
    drop(ctx.catch());
    eval_nested(ctx, "for (;;);", "endless").err().unwrap_or(Error::Exception)
}
