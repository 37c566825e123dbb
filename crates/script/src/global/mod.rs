//! The global objects that scripts see besides the language: `ccf`, `console`, the node's clock in
//! `Date` and its randomness in `Math.random`.
//!
//! Everything is made when a realm is prepared, which happens once; every use of the realm finds it
//! untouched.

mod app;
mod apply;
mod basic;
mod clock;
mod console;
mod crypto;
mod gov;
mod kv;
mod member;
mod tcb;

use rquickjs::object::Property;
use rquickjs::{Ctx, Object, Result, Value};

use crate::access::Context;
use crate::timed::native;
pub(crate) use app::show_historical_state;
pub(crate) use basic::{array_buffer, parse_json, to_json};
use member::{Member, object};

/// Puts the global objects into a realm that is being prepared.
pub(crate) fn install(ctx: &Ctx<'_>, context: Context) -> Result<()> {
    kv::prepare(ctx)?;
    crate::handler::prepare(ctx)?;
    let globals = ctx.globals();
    globals.set("ccf", ccf(ctx, context)?)?;
    define(&globals, "console", console::console(ctx)?)?;
    define(&globals, "Date", clock::date(ctx, globals.get("Date")?)?)?;
    let math: Object<'_> = globals.get("Math")?;
    math.set("random", native(ctx, "random", clock::random)?)
}

fn ccf<'js>(ctx: &Ctx<'js>, context: Context) -> Result<Value<'js>> {
    let members: &[&[Member]] = match context {
        Context::AppReadWrite | Context::AppReadOnly => &[basic::MEMBERS, app::MEMBERS],
        Context::GovernanceReadOnly => &[basic::MEMBERS],
        Context::GovernanceReadWrite => &[basic::MEMBERS, apply::MEMBERS],
    };
    object(ctx, members)
}

/// Defines a global as the language defines its own.
fn define<'js>(globals: &Object<'js>, name: &str, value: Value<'js>) -> Result<()> {
    globals.prop(name, Property::from(value).writable().configurable())
}
