//! The members of `ccf` that only applications see: consensus, history, and the reply itself.

use std::sync::atomic::{AtomicU32, Ordering};

use coco_adapter::HistoricalState;
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId};
use rquickjs::{Array, Ctx, Exception, Object, Result, Value};

use super::basic::{bytes_argument, parse_json};
use super::kv::{self, number};
use super::member::Member;
use crate::call::{CallState, with_call, with_environment};
use crate::timed::native;

pub(super) const MEMBERS: &[Member] =
    &[("consensus", consensus), ("historical", historical), ("rpc", rpc)];

/// The most states that one query may ask for.
const MAX_RANGE: u64 = 10_000;

/// An object whose members are these functions.
macro_rules! object {
    ($ctx:expr, $($name:literal: $function:expr),+ $(,)?) => {{
        let object = Object::new($ctx.clone())?;
        $(object.set($name, native($ctx, $name, $function)?)?;)+
        Ok(object.into_value())
    }};
}

fn consensus<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    object!(ctx,
        "getLastCommittedTxId": |ctx: Ctx<'js>| {
            let tx_id = with_environment(&ctx, |environment| environment.last_committed())?;
            let object = Object::new(ctx)?;
            object.set("view", number(tx_id.view.0))?;
            object.set("seqno", number(tx_id.seqno.0))?;
            Ok::<_, rquickjs::Error>(object)
        },
        "getStatusForTxId": |ctx: Ctx<'js>, view: Value<'js>, seqno: Value<'js>| {
            let view = count(&view, "view")?;
            let tx_id = TxId::new(view, count(&seqno, "seqno")?);
            let status = with_environment(&ctx, |environment| environment.status(tx_id))?;
            Ok::<_, rquickjs::Error>(format!("{status:?}"))
        },
        "getViewForSeqno": |ctx: Ctx<'js>, seqno: Value<'js>| {
            let seqno = Seqno(count(&seqno, "seqno")?);
            let view = with_environment(&ctx, |environment| environment.view_for_seqno(seqno))?;
            Ok::<_, rquickjs::Error>(match view {
                Some(view) => Value::new_number(ctx, number(view.0)),
                None => Value::new_null(ctx),
            })
        },
    )
}

fn rpc<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    object!(ctx,
        "setApplyWrites": |ctx: Ctx<'js>, apply: bool| {
            with_call(&ctx, |_, state| state.outcome.apply_writes = Some(apply))
        },
        "setClaimsDigest": |ctx: Ctx<'js>, digest: Value<'js>| {
            let bytes = bytes_argument(&digest, "digest")?;
            let Ok(digest) = <[u8; 32]>::try_from(bytes.as_slice()) else {
                let message = format!("Argument digest must have 32 bytes, not {}", bytes.len());
                return Err(Exception::throw_range(&ctx, &message));
            };
            with_call(&ctx, |_, state| state.outcome.claims = Some(Digest(digest)))
        },
    )
}

fn historical<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    object!(ctx,
        "getStateRange": state_range,
        "dropCachedStates": |ctx: Ctx<'js>, handle: Value<'js>| {
            let handle = count(&handle, "handle")?;
            with_environment(&ctx, |environment| environment.drop_cached_states(handle))
        },
    )
}

/// The committed states of a range, or null while they are being fetched.
fn state_range<'js>(
    ctx: Ctx<'js>,
    handle: Value<'js>,
    from: Value<'js>,
    to: Value<'js>,
    ttl_seconds: Value<'js>,
) -> Result<Value<'js>> {
    let (handle, ttl) = (count(&handle, "handle")?, count(&ttl_seconds, "secondsUntilExpiry")?);
    let (from, to) = (count(&from, "startSeqno")?, count(&to, "endSeqno")?);
    if from == 0 || to < from || to - from >= MAX_RANGE {
        let message = format!(
            "Invalid range {from}..={to}: it must start at 1 or later and have 1 to {MAX_RANGE} entries"
        );
        return Err(Exception::throw_range(&ctx, &message));
    }
    let states = with_environment(&ctx, |environment| {
        environment.state_range(handle, Seqno(from), Seqno(to), ttl)
    })?;
    let Some(states) = states else { return Ok(Value::new_null(ctx)) };
    let array = Array::new(ctx.clone())?;
    for (index, state) in states.into_iter().enumerate() {
        array.set(index, state_object(&ctx, state)?)?;
    }
    Ok(array.into_value())
}

/// Defines `ccf.historicalState` for this call; in a realm used before, forgets the last one.
pub(crate) fn show_historical_state(ctx: &Ctx<'_>, used_before: bool) -> Result<()> {
    let state = with_call(ctx, |_, state: &mut CallState| state.historical.take())?;
    let ccf = || ctx.globals().get::<_, Object<'_>>("ccf");
    match state {
        Some(state) => ccf()?.set("historicalState", state_object(ctx, state)?),
        None if used_before => ccf()?.remove("historicalState"),
        None => Ok(()),
    }
}

/// `{transactionId, receipt, kv}`
fn state_object<'js>(ctx: &Ctx<'js>, state: HistoricalState) -> Result<Object<'js>> {
    // Never used twice, so that a handle kept from an earlier call finds nothing.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let object = Object::new(ctx.clone())?;
    object.set("transactionId", state.tx_id.to_string())?;
    object.set("receipt", parse_json(ctx, state.receipt.to_json().as_bytes())?)?;
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    with_call(ctx, |_, call| call.states.insert(id, state))?;
    object.set("kv", kv::historical(ctx, id)?)?;
    Ok(object)
}

/// A whole number that a ledger can have.
fn count(value: &Value<'_>, name: &str) -> Result<u64> {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_991.0;
    let number = value.as_number().filter(|number| number.fract() == 0.0);
    let number = number.filter(|number| (0.0..=LARGEST_EXACT).contains(number));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    number.map(|number| number as u64).ok_or_else(|| {
        let message = format!("Argument {name} must be a non-negative integer");
        Exception::throw_range(value.ctx(), &message)
    })
}
