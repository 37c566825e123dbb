//! The global objects that scripts see besides the language: `ccf`, `console`, the node's clock in
//! `Date` and its randomness in `Math.random`.
//!
//! A realm is made for nearly every request and few touch more than two members, so members are
//! made when they are first looked at.

mod app;
mod apply;
mod basic;
mod clock;
mod console;
mod crypto;
mod gov;
mod kv;
mod lazy;
mod tcb;

use rquickjs::function::FuncArg;
use rquickjs::object::Property;
use rquickjs::{Ctx, Function, Object, Result, Value};

use crate::access::Context;
pub(crate) use app::show_historical_state;
pub(crate) use basic::{array_buffer, parse_json, to_json};
use lazy::{Member, lazy_object};

/// Puts the global objects into a new realm.
pub(crate) fn install(ctx: &Ctx<'_>, context: Context) -> Result<()> {
    let globals = ctx.globals();
    globals.set("ccf", ccf(ctx, context)?)?;
    define_late(&globals, "console", console::console)?;
    define_late(&globals, "Date", clock::date)?;
    let math: Object<'_> = globals.get("Math")?;
    math.set("random", Function::new(ctx.clone(), clock::random)?)
}

fn ccf<'js>(ctx: &Ctx<'js>, context: Context) -> Result<Value<'js>> {
    let members: &'static [&'static [Member]] = match context {
        Context::AppReadWrite | Context::AppReadOnly => &[basic::MEMBERS, app::MEMBERS],
        Context::GovernanceReadOnly => &[basic::MEMBERS],
        Context::GovernanceReadWrite => &[basic::MEMBERS, apply::MEMBERS],
    };
    lazy_object(ctx, members)
}

/// How a global is made; the second argument is what the language has under its name.
type Late = for<'js> fn(&Ctx<'js>, Value<'js>) -> Result<Value<'js>>;

/// Defines a global that is made when it is first read; otherwise one like any other.
fn define_late<'js>(globals: &Object<'js>, name: &'static str, make: Late) -> Result<()> {
    let ctx = globals.ctx();
    let get = move |ctx: Ctx<'js>, getter: FuncArg<Object<'js>>| -> Result<Value<'js>> {
        let value = make(&ctx, getter.0.get(ORIGINAL)?)?;
        define(&ctx, name, value.clone())?;
        Ok(value)
    };
    let set = move |ctx: Ctx<'js>, value: Value<'js>| define(&ctx, name, value);
    let getter = Function::new(ctx.clone(), get)?;
    // Rust closures must not hold JS values: the collector does not see them there.
    getter.set(ORIGINAL, globals.get::<_, Value<'js>>(name)?)?;
    let descriptor = Object::new(ctx.clone())?;
    descriptor.set("get", getter)?;
    descriptor.set("set", Function::new(ctx.clone(), set)?)?;
    descriptor.set("configurable", true)?;
    let object: Object<'js> = globals.get("Object")?;
    let define_property: Function<'js> = object.get("defineProperty")?;
    define_property.call((globals.clone(), name, descriptor))
}

/// Where a getter keeps what the language has under its name.
const ORIGINAL: &str = "original";

fn define<'js>(ctx: &Ctx<'js>, name: &str, value: Value<'js>) -> Result<()> {
    ctx.globals().prop(name, Property::from(value).writable().configurable())
}
