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
    /// Interpreters that are as good as new.
    idle: Mutex<Vec<Interpreter>>,
    /// Interpreters with a live realm, least recently used first.
    kept: Mutex<Vec<Kept>>,
}

/// An interpreter whose globals live on, for `interpreter_reuse`.
struct Kept {
    key: Arc<str>,
    /// The program that the realm was made for: another never sees it.
    stamp: u64,
    interpreter: Interpreter,
}

/// Idle interpreters beyond this are dropped: about as many as threads run at once.
const IDLE_MAX: usize = 32;

impl ScriptEngine {
    /// An engine without interpreters; they are made when they are needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// An interpreter that is as good as new.
    pub(crate) fn take_idle(&self, context: Context) -> Result<Interpreter, ScriptError> {
        let idle = {
            let mut idle = self.idle.lock();
            let found = idle.iter().rposition(|interpreter| interpreter.context() == context);
            found.map(|found| idle.remove(found))
        };
        idle.map_or_else(|| Interpreter::new(context), Ok)
    }

    /// Takes an interpreter back, whatever happened in it.
    pub(crate) fn give_back(&self, mut interpreter: Interpreter) {
        interpreter.reclaim();
        let mut idle = self.idle.lock();
        idle.push(interpreter);
        let dropped = (idle.len() > IDLE_MAX).then(|| idle.remove(0));
        drop(idle);
        drop(dropped);
    }

    /// The interpreter used last under a key for this program, if one is free.
    pub(crate) fn take_kept(&self, key: &str, stamp: u64) -> Option<Interpreter> {
        let mut kept = self.kept.lock();
        let found = kept.iter().rposition(|kept| *kept.key == *key && kept.stamp == stamp)?;
        Some(kept.remove(found).interpreter)
    }

    /// Keeps an interpreter with its realm; beyond `max`, those used least recently are dropped. One
    /// with a job left over, as a getter of the reply can leave it, is not kept: the job would run
    /// on the next request's transaction.
    pub(crate) fn keep(&self, key: &str, stamp: u64, interpreter: Interpreter, max: usize) {
        if interpreter.has_pending_jobs() {
            return self.give_back(interpreter);
        }
        let mut kept = self.kept.lock();
        kept.push(Kept { key: key.into(), stamp, interpreter });
        let excess = kept.len().saturating_sub(max);
        let dropped: Vec<Kept> = kept.drain(..excess).collect();
        drop(kept);
        drop(dropped);
    }

    /// Drops every kept interpreter: the application has changed.
    pub fn flush_kept(&self) {
        let flushed = std::mem::take(&mut *self.kept.lock());
        drop(flushed);
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
        let mut interpreter = self.take_idle(context)?;
        interpreter.load_text(name, text);
        let result = interpreter.run(limits, lender, body);
        self.give_back(interpreter);
        result
    }
}
