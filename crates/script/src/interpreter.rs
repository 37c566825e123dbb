//! One JS heap: its limits, its realm, and what its failures mean.

use std::collections::HashMap;
use std::sync::Arc;

use coco_kv::Value as Bytes;
use coco_quickjs::Realm;
use rquickjs::context::intrinsic;
use rquickjs::{Ctx, Function, Module, Object, Value};

use crate::access::Context;
use crate::call::{self, Lender};
use crate::error::Thrown;
use crate::limits::Budget;
use crate::module::{ModuleLoader, Modules, SharedModules};
use crate::{Limits, ScriptError, global};

/// What every script finds besides the language itself. Not among it: `performance`, which would
/// read a clock behind the node's back, and `DOMException`.
type Intrinsics = (
    intrinsic::Date,
    intrinsic::Eval,
    intrinsic::RegExpCompiler,
    intrinsic::RegExp,
    intrinsic::Json,
    intrinsic::Proxy,
    intrinsic::MapSet,
    intrinsic::TypedArrays,
    intrinsic::Promise,
    intrinsic::WeakRef,
);

/// A JS heap with its realm, which is as good as new after every [`Interpreter::reclaim`]. Used by
/// one thread at a time.
pub(crate) struct Interpreter {
    realm: Realm,
    /// What the realm was prepared for.
    context: Context,
    /// Whether a script ran since it was as good as new.
    used: bool,
    modules: SharedModules,
    budget: Arc<Budget>,
}

/// Why a step inside the interpreter failed.
pub(crate) enum Fault {
    /// The engine says so; an exception may be pending.
    Engine(rquickjs::Error),
    /// The same, while a handler's reply was converted.
    Conversion(rquickjs::Error),
    /// We say so.
    Script(ScriptError),
}

impl From<rquickjs::Error> for Fault {
    fn from(error: rquickjs::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<ScriptError> for Fault {
    fn from(error: ScriptError) -> Self {
        Self::Script(error)
    }
}

/// What a failed script may still use so that its exception can be described.
const HEAP_FOR_EXCEPTION_BYTES: usize = 1 << 20;

impl Interpreter {
    pub(crate) fn new(context: Context) -> Result<Self, ScriptError> {
        let modules = SharedModules::default();
        let budget = Arc::new(Budget::default());
        // Our own code needs no limit.
        budget.start(u64::MAX, None);
        let (loader, polled) = (ModuleLoader(modules.clone()), budget.clone());
        let prepare = |ctx: &Ctx<'_>| {
            let installed = global::install(ctx, context);
            installed.map_err(|error| {
                let thrown = Thrown::of(&ctx.catch());
                Fault::Script(ScriptError::Engine(format!("{error}: {thrown}")))
            })
        };
        let realm = Realm::new::<Intrinsics, Fault>(loader, move || polled.poll(), prepare);
        let realm = realm.map_err(|fault| match fault {
            Fault::Script(error) => error,
            Fault::Engine(error) | Fault::Conversion(error) => {
                ScriptError::Engine(error.to_string())
            }
        })?;
        Ok(Self { realm, context, used: false, modules, budget })
    }

    /// What the realm was prepared for.
    pub(crate) fn context(&self) -> Context {
        self.context
    }

    /// Where the next call loads modules from.
    pub(crate) fn load(&self, modules: Modules) {
        *self.modules.lock() = modules;
    }

    /// Takes away what modules are loaded from.
    pub(crate) fn unload(&self) -> Modules {
        std::mem::take(&mut *self.modules.lock())
    }

    /// The state shared with the loader.
    pub(crate) fn shared_modules(&self) -> SharedModules {
        self.modules.clone()
    }

    /// Makes `text` the only module of the next call.
    pub(crate) fn load_text(&self, name: &str, text: Bytes) {
        let source = HashMap::from([(name.to_owned(), text)]);
        self.load(Modules { source: Some(Arc::new(source)), ..Modules::default() });
    }

    /// Runs `body` in the realm, as the last call left it.
    pub(crate) fn run<R>(
        &mut self,
        limits: Limits,
        lender: Lender<'_>,
        body: impl for<'js> FnOnce(&Running<'_, 'js>) -> Result<R, Fault>,
    ) -> Result<R, ScriptError> {
        self.used = true;
        lender.lend(|| self.run_in(limits, body))
    }

    /// Whether an earlier call left its traces in the realm.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// Whether a call left a job behind, which would run within the next call.
    pub(crate) fn has_pending_jobs(&self) -> bool {
        self.realm.has_pending_jobs()
    }

    /// Bytes of heap in use.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.realm.heap_bytes()
    }

    /// Runs `body` from within the call of another interpreter, with what that one was lent but at
    /// most this one's access.
    pub(crate) fn run_borrowed<R>(
        &mut self,
        limits: Limits,
        body: impl for<'js> FnOnce(&Running<'_, 'js>) -> Result<R, Fault>,
    ) -> Result<R, ScriptError> {
        self.used = true;
        let outer = call::replace_context(self.context);
        let result = self.run_in(limits, body);
        outer.map(call::replace_context);
        result
    }

    fn run_in<R>(
        &self,
        limits: Limits,
        body: impl for<'js> FnOnce(&Running<'_, 'js>) -> Result<R, Fault>,
    ) -> Result<R, ScriptError> {
        self.budget.start(limits.execution_ms, call::now_ms());
        call::within_budget(&self.budget, || self.run_limited(limits, body))
    }

    fn run_limited<R>(
        &self,
        limits: Limits,
        body: impl for<'js> FnOnce(&Running<'_, 'js>) -> Result<R, Fault>,
    ) -> Result<R, ScriptError> {
        // The engine first asks after a while, which is too late if there is no time at all.
        if self.budget.is_time_up() {
            return Err(ScriptError::Timeout { limit_ms: limits.execution_ms });
        }
        let heap_bytes = usize::try_from(limits.heap_bytes).unwrap_or(usize::MAX).max(1);
        let stack_bytes = limits.stack_bytes.clamp(1, Limits::MAX_STACK_BYTES);
        self.realm.set_memory_limit(heap_bytes);
        self.realm.set_max_stack_size(usize::try_from(stack_bytes).unwrap_or(usize::MAX));
        let result = self.realm.with(|ctx| body(&Running { ctx, budget: &self.budget }));
        self.realm.set_memory_limit(heap_bytes.saturating_add(HEAP_FOR_EXCEPTION_BYTES));
        result.map_err(|fault| match fault {
            // Without room for a job, the engine forgets it.
            Fault::Script(ScriptError::NeverSettles { .. }) if self.is_nearly_full(limits) => {
                ScriptError::OutOfMemory { limit_bytes: limits.heap_bytes }
            }
            Fault::Script(error) => error,
            Fault::Engine(error) => self.explain(&error, limits),
            Fault::Conversion(error) => match self.explain(&error, limits) {
                ScriptError::Thrown(thrown) => {
                    let what = "error during JSON conversion of body";
                    ScriptError::InvalidReply { what, thrown: Some(thrown) }
                }
                limit => limit,
            },
        })
    }

    /// Takes back everything that calls did: the interpreter is as good as new.
    pub(crate) fn reclaim(&mut self) {
        drop(self.unload());
        self.realm.rewind();
        self.used = false;
    }

    fn explain(&self, error: &rquickjs::Error, limits: Limits) -> ScriptError {
        let out_of_memory = ScriptError::OutOfMemory { limit_bytes: limits.heap_bytes };
        if self.budget.is_spent() {
            return ScriptError::Timeout { limit_ms: limits.execution_ms };
        }
        match error {
            rquickjs::Error::Exception => {}
            rquickjs::Error::Allocation => return out_of_memory,
            other => {
                let thrown = Thrown { message: other.to_string(), ..Thrown::default() };
                return ScriptError::Thrown(thrown);
            }
        }
        let (is_null, thrown) = self.realm.with(|ctx| {
            let value = ctx.catch();
            (value.is_null(), Thrown::of(&value))
        });
        if self.budget.is_spent() {
            return ScriptError::Timeout { limit_ms: limits.execution_ms };
        }
        // The engine throws null when there is no room left even for an exception.
        if thrown.message == OUT_OF_MEMORY || (is_null && self.is_nearly_full(limits)) {
            return out_of_memory;
        }
        ScriptError::Thrown(thrown)
    }

    fn is_nearly_full(&self, limits: Limits) -> bool {
        self.heap_bytes() >= limits.heap_bytes / 2
    }
}

const OUT_OF_MEMORY: &str = "InternalError: out of memory";

/// A realm in which a script is running.
pub(crate) struct Running<'a, 'js> {
    pub(crate) ctx: Ctx<'js>,
    budget: &'a Budget,
}

impl<'js> Running<'_, 'js> {
    /// A function exported by a module, which is evaluated unless it was before.
    pub(crate) fn exported(&self, module: &str, function: &str) -> Result<Function<'js>, Fault> {
        let imported = Module::import(&self.ctx, module)?.into_value();
        let exports = self.settle(imported, module)?;
        let export = exports.as_object().map(|exports: &Object<'js>| exports.get(function));
        let export: Value<'js> = export.transpose()?.unwrap_or_else(|| self.undefined());
        export.into_function().ok_or_else(|| {
            let (module, function) = (module.to_owned(), function.to_owned());
            Fault::Script(ScriptError::NoSuchFunction { module, function })
        })
    }

    /// The value of a promise; any other value as it is. All pending jobs have run afterwards.
    pub(crate) fn settle(&self, value: Value<'js>, function: &str) -> Result<Value<'js>, Fault> {
        while self.ctx.execute_pending_job() {
            if self.budget.is_spent() {
                return Err(Fault::Engine(rquickjs::Error::Exception));
            }
        }
        let Some(promise) = value.as_promise() else { return Ok(value) };
        match promise.result::<Value<'js>>() {
            Some(result) => Ok(result?),
            None => Err(Fault::Script(ScriptError::NeverSettles { function: function.to_owned() })),
        }
    }

    fn undefined(&self) -> Value<'js> {
        Value::new_undefined(self.ctx.clone())
    }
}
