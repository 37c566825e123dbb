//! Running JavaScript from within a native function.
//!
//! rquickjs's own calls tell the engine that the stack begins *here*. That is right at the outermost
//! call, which may be on any thread. Within a native function it would give scripts a new stack at
//! every level, and recursion through natives would overrun the thread's.

use std::ffi::CString;

use rquickjs::{Ctx, Error, Function, Result, Value, qjs};

/// Calls a function from within a native one, on what is left of the script's stack.
pub fn call_nested<'js>(
    function: &Function<'js>,
    this: &Value<'js>,
    arguments: &[Value<'js>],
) -> Result<Value<'js>> {
    let ctx = function.ctx();
    let mut raw: Vec<qjs::JSValue> = arguments.iter().map(Value::as_raw).collect();
    let count = raw.len().try_into().map_err(|_| Error::Unknown)?;
    #[expect(unsafe_code, reason = "rquickjs has no call without a new stack")]
    // SAFETY: all values live in the context's runtime, which is locked by whoever gave us `ctx`;
    // `JS_Call` borrows them and copies `raw`, which outlives it. The result is ours.
    let result = unsafe {
        let (this, function) = (this.as_raw(), function.as_value().as_raw());
        qjs::JS_Call(ctx.as_raw().as_ptr(), function, this, count, raw.as_mut_ptr())
    };
    owned(ctx, result)
}

/// Evaluates a global script from within a native function, on what is left of the script's stack.
pub fn eval_nested<'js>(ctx: &Ctx<'js>, script: &str, file: &str) -> Result<Value<'js>> {
    let (text, file) = (CString::new(script)?, CString::new(file)?);
    let len = script.len().try_into().map_err(|_| Error::Unknown)?;
    let flags = qjs::JS_EVAL_TYPE_GLOBAL | qjs::JS_EVAL_FLAG_STRICT;
    let flags = flags.try_into().map_err(|_| Error::Unknown)?;
    #[expect(unsafe_code, reason = "rquickjs has no evaluation without a new stack")]
    // SAFETY: the runtime is locked by whoever gave us `ctx`; both texts end in NUL, as `JS_Eval`
    // asks for, and outlive it. The result is ours.
    let result = unsafe {
        let ctx = ctx.as_raw().as_ptr();
        qjs::JS_Eval(ctx, text.as_ptr(), len, file.as_ptr(), flags)
    };
    owned(ctx, result)
}

/// Takes over a value that the engine returned.
fn owned<'js>(ctx: &Ctx<'js>, result: qjs::JSValue) -> Result<Value<'js>> {
    #[expect(unsafe_code, reason = "a raw value becomes an owned one")]
    // SAFETY: the first is a pure test of the tag. A value that the engine returns carries one
    // reference, which the new owner takes; an exception carries none.
    unsafe {
        if qjs::JS_IsException(result) {
            return Err(Error::Exception);
        }
        Ok(Value::from_raw(ctx.clone(), result))
    }
}

#[cfg(test)]
mod tests {
    use rquickjs::{Context, Runtime};

    use super::*;

    #[test]
    fn recursion_through_natives_meets_the_limit() {
        let runtime = Runtime::new().unwrap();
        runtime.set_max_stack_size(200_000);
        Context::full(&runtime).unwrap().with(|ctx| {
            let call = |function: Function<'_>| {
                let this = Value::new_undefined(function.ctx().clone());
                call_nested(&function, &this, &[]).map(|_| ())
            };
            #[expect(clippy::disallowed_methods, reason = "no realm is rewound here")]
            let call = Function::new(ctx.clone(), call).unwrap();
            ctx.globals().set("call", call).unwrap();
            let script = "let depth = 0; const f = () => { depth += 1; call(f); };
                try { f(); } catch (error) { [error.name, depth > 10].join() }";
            let result: String = eval_nested(&ctx, script, "test").unwrap().get().unwrap();
            assert_eq!(result, "RangeError,true");
        });
    }

    #[test]
    fn arguments_and_exceptions_arrive() {
        Context::full(&Runtime::new().unwrap()).unwrap().with(|ctx| {
            let add =
                eval_nested(&ctx, "(function (a, b) { return this + a + b; })", "test").unwrap();
            let add = add.into_function().unwrap();
            let number = |number| Value::new_int(ctx.clone(), number);
            let sum = call_nested(&add, &number(1), &[number(2), number(3)]).unwrap();
            assert_eq!(sum.as_int(), Some(6));
            assert!(eval_nested(&ctx, "throw 7", "test").is_err());
            assert_eq!(ctx.catch().as_int(), Some(7));
            assert!(eval_nested(&ctx, "nul \0", "test").is_err());
        });
    }
}
