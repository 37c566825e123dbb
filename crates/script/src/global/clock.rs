//! Time and chance, both the node's.

use coco_quickjs::{call_nested, eval_nested};
use rquickjs::{Ctx, Function, Result, Value};

use crate::call::{self, with_environment};
use crate::timed::native;

/// `Math.random`, from the node's entropy: 53 random bits in [0, 1).
pub(super) fn random(ctx: Ctx<'_>) -> Result<f64> {
    const BITS: u32 = 53;
    let mut bytes = [0; 8];
    with_environment(&ctx, |environment| environment.entropy().fill(&mut bytes))?;
    let random = u64::from_le_bytes(bytes) >> (u64::BITS - BITS);
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
    let fraction = random as f64 / (1_u64 << BITS) as f64;
    Ok(fraction)
}

/// `Date` as the language has it, except that "now" comes from the node's clock.
pub(super) fn date<'js>(ctx: &Ctx<'js>, original: Value<'js>) -> Result<Value<'js>> {
    const REPLACEMENT: &str = "(function (Original, now) {
        function Date(...parts) {
            if (new.target === undefined) return new Original(now()).toString();
            return Reflect.construct(Original, parts.length ? parts : [now()], new.target);
        }
        Object.defineProperties(Date, Object.getOwnPropertyDescriptors(Original));
        Object.defineProperties(Date, {
            now: { value: now, writable: true, enumerable: false, configurable: true },
        });
        Object.defineProperty(Original.prototype, 'constructor',
            { value: Date, writable: true, enumerable: false, configurable: true });
        return Date;
    })";
    let replace: Function<'js> = eval_nested(ctx, REPLACEMENT, "date")?.get()?;
    let now = native(ctx, "now", now)?;
    call_nested(&replace, replace.as_value(), &[original, now.into_value()])
}

fn now() -> f64 {
    let now_ms = call::now_ms().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of this epoch are exact")]
    let now = now_ms as f64;
    now
}
