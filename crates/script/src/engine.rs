//! The set of interpreters: who runs a script next, and which interpreters are kept.

use std::sync::Arc;

use coco_kv::Value as Bytes;
use parking_lot::Mutex;

use crate::access::Context;
use crate::call::Lender;
use crate::interpreter::{Fault, Interpreter, Running};
use crate::{Limits, ScriptError};

/// Runs scripts. One per node; calls from several threads run in parallel, each on an interpreter
/// of its own.
#[derive(Default)]
pub struct ScriptEngine {
    /// Interpreters without a realm: as good as new.
    idle: Mutex<Vec<Interpreter>>,
    /// Interpreters with a live realm, least recently used first.
    pub(crate) kept: Mutex<Vec<Kept>>,
}

/// An interpreter whose globals live on, for `interpreter_reuse`.
pub(crate) struct Kept {
    pub(crate) key: Arc<str>,
    /// What the realm was made for: another app, or other access rules, never sees it.
    pub(crate) stamp: u64,
    pub(crate) context: Context,
    pub(crate) interpreter: Interpreter,
}

/// Idle interpreters beyond this are dropped: about as many as threads run at once.
const IDLE_MAX: usize = 32;

impl ScriptEngine {
    /// An engine without interpreters; they are made when they are needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// An interpreter without a realm.
    pub(crate) fn take_idle(&self) -> Result<Interpreter, ScriptError> {
        let idle = self.idle.lock().pop();
        idle.map_or_else(Interpreter::new, Ok)
    }

    /// Takes an interpreter back, after its realm is gone.
    pub(crate) fn give_back(&self, mut interpreter: Interpreter) {
        if interpreter.reclaim() {
            let mut idle = self.idle.lock();
            if idle.len() < IDLE_MAX {
                idle.push(interpreter);
            }
        }
    }

    /// Runs `body` in a new realm, where `text` is the module `name` and there are no others.
    pub(crate) fn run_source<R>(
        &self,
        context: Context,
        limits: Limits,
        lender: Lender<'_>,
        name: &str,
        text: Bytes,
        body: impl for<'js> FnOnce(&Running<'_, 'js>) -> Result<R, Fault>,
    ) -> Result<R, ScriptError> {
        let mut interpreter = self.take_idle()?;
        interpreter.load_text(name, text);
        let result = interpreter.run(context, limits, lender, false, body);
        if result.is_ok() {
            self.give_back(interpreter);
        }
        result
    }
}
