//! What a running script may reach of the node, for the length of one call.
//!
//! The functions that JS sees outlive any call, a transaction does not. So a call *lends* the
//! transaction to them: it is reachable through a scoped thread-local while the script runs, on the
//! thread that runs it, and nowhere else.

use std::collections::HashMap;

use bytes::Bytes;
use coco_adapter::{Environment, HistoricalState, Outcome};
use coco_kv::Tx;
use rquickjs::{Ctx, Exception};
use scoped_tls_hkt::scoped_thread_local;

use crate::access::Context;
use crate::limits::Budget;
use crate::natives::ApplyNatives;

scoped_thread_local!(static mut CALL: for<'a> (&'a mut Tx, &'a mut CallState));
scoped_thread_local!(static ENVIRONMENT: for<'a> &'a dyn Environment);
scoped_thread_local!(static NATIVES: for<'a> &'a dyn ApplyNatives);
scoped_thread_local!(static BUDGET: Budget);

/// What a call carries besides its transaction.
pub(crate) struct CallState {
    /// Why the script runs.
    pub(crate) context: Context,
    /// What `request.body` shows.
    pub(crate) body: Bytes,
    /// The state that `ccf.historicalState` shows.
    pub(crate) historical: Option<HistoricalState>,
    /// States that were handed to the script, by the number in their handles.
    pub(crate) states: HashMap<u32, HistoricalState>,
    /// What the script decides beyond its reply.
    pub(crate) outcome: Outcome,
    /// What `ccf.enableUntrustedDateTime` was last told; it changes nothing.
    pub(crate) untrusted_date_time: bool,
    /// Whether to log what the call used.
    pub(crate) log_metrics: bool,
}

impl CallState {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            body: Bytes::new(),
            historical: None,
            states: HashMap::new(),
            outcome: Outcome::default(),
            untrusted_date_time: true,
            log_metrics: false,
        }
    }
}

/// Who lends what to a call.
pub(crate) struct Lender<'a> {
    pub(crate) tx: &'a mut Tx,
    pub(crate) state: &'a mut CallState,
    pub(crate) environment: &'a dyn Environment,
    pub(crate) natives: Option<&'a dyn ApplyNatives>,
}

impl Lender<'_> {
    /// Lends everything to the scripts that `run` runs.
    pub(crate) fn lend<R>(self, run: impl FnOnce() -> R) -> R {
        let with_call = || match self.natives {
            Some(natives) => NATIVES.set(natives, run),
            None => run(),
        };
        ENVIRONMENT.set(self.environment, || CALL.set((self.tx, self.state), with_call))
    }
}

/// The transaction and the state of the call under way. `look` must not run JavaScript.
pub(crate) fn with_call<R>(
    ctx: &Ctx<'_>,
    look: impl FnOnce(&mut Tx, &mut CallState) -> R,
) -> rquickjs::Result<R> {
    if !CALL.is_set() {
        return Err(outside(ctx));
    }
    Ok(CALL.with(|(tx, state)| look(tx, state)))
}

/// The transaction of the call under way, if there is one. `look` must not run JavaScript.
pub(crate) fn with_tx<R>(look: impl FnOnce(&mut Tx) -> R) -> Option<R> {
    CALL.is_set().then(|| CALL.with(|(tx, _)| look(tx)))
}

/// Changes what the call under way may access; what it was, if there is a call.
pub(crate) fn replace_context(context: Context) -> Option<Context> {
    let replace = |state: &mut CallState| std::mem::replace(&mut state.context, context);
    CALL.is_set().then(|| CALL.with(|(_, state)| replace(state)))
}

/// The node around the call under way.
pub(crate) fn with_environment<R>(
    ctx: &Ctx<'_>,
    look: impl FnOnce(&dyn Environment) -> R,
) -> rquickjs::Result<R> {
    if !ENVIRONMENT.is_set() {
        return Err(outside(ctx));
    }
    Ok(ENVIRONMENT.with(look))
}

/// The natives of `apply`, with the transaction.
pub(crate) fn with_natives<R>(
    ctx: &Ctx<'_>,
    look: impl FnOnce(&dyn ApplyNatives, &mut Tx) -> R,
) -> rquickjs::Result<R> {
    if !NATIVES.is_set() {
        return Err(outside(ctx));
    }
    NATIVES.with(|natives| with_call(ctx, |tx, _| look(natives, tx)))
}

/// The node's clock, if a call is under way.
pub(crate) fn now_ms() -> Option<u64> {
    ENVIRONMENT.is_set().then(|| ENVIRONMENT.with(|environment| environment.now_ms()))
}

/// Bounds the time of the scripts that `run` runs.
pub(crate) fn within_budget<R>(budget: &Budget, run: impl FnOnce() -> R) -> R {
    BUDGET.set(budget, run)
}

/// Whether the script that runs must stop for the time it took.
pub(crate) fn is_time_up() -> bool {
    BUDGET.is_set() && BUDGET.with(Budget::is_time_up)
}

fn outside(ctx: &Ctx<'_>) -> rquickjs::Error {
    Exception::throw_internal(ctx, "This function works only while a request is executed")
}
