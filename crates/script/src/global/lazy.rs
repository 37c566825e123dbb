//! Objects whose members are made when they are first looked at.

use coco_quickjs::call_nested;
use rquickjs::function::Opt;
use rquickjs::proxy::ProxyHandler;
use rquickjs::{Ctx, Function, Object, Proxy, Result, Value};

/// A member: its name and how it is made.
pub(crate) type Member = (&'static str, for<'js> fn(&Ctx<'js>) -> Result<Value<'js>>);

/// Makes a [`Member`] that is a function.
macro_rules! function {
    ($name:literal, $function:expr) => {
        ($name, |ctx| {
            Ok(rquickjs::Function::new(ctx.clone(), $function)?.with_name($name)?.into_value())
        })
    };
}
pub(crate) use function;

/// An object that scripts can list, read and write like any other.
pub(crate) fn lazy_object<'js>(
    ctx: &Ctx<'js>,
    members: &'static [&'static [Member]],
) -> Result<Value<'js>> {
    let handler = Object::new(ctx.clone())?;
    let get = move |ctx: Ctx<'js>, target: Object<'js>, key: Value<'js>| {
        if let Some(name) = key.as_string() {
            make_one(&ctx, members, &target, &name.to_string()?)?;
        }
        target.get::<_, Value<'js>>(key)
    };
    handler.set("get", Function::new(ctx.clone(), get)?)?;
    // To be listed, the object must be complete.
    for trap in ["has", "ownKeys", "getOwnPropertyDescriptor"] {
        let look = move |ctx: Ctx<'js>, target: Object<'js>, key: Opt<Value<'js>>| {
            for (name, _) in members.iter().copied().flatten() {
                make_one(&ctx, members, &target, name)?;
            }
            let reflect: Object<'js> = ctx.globals().get("Reflect")?;
            let default: Function<'js> = reflect.get(trap)?;
            let arguments: Vec<Value<'js>> =
                std::iter::once(target.into_value()).chain(key.0).collect();
            call_nested(&default, reflect.as_value(), &arguments)
        };
        handler.set(trap, Function::new(ctx.clone(), look)?)?;
    }
    let target = Object::new(ctx.clone())?;
    let proxy = Proxy::new(ctx.clone(), target, ProxyHandler::from_object(handler)?)?;
    Ok(proxy.into_value())
}

/// Makes one member, unless it is there or unknown.
fn make_one<'js>(
    ctx: &Ctx<'js>,
    members: &[&[Member]],
    target: &Object<'js>,
    name: &str,
) -> Result<()> {
    let mut all = members.iter().copied().flatten();
    let Some((name, make)) = all.find(|(known, _)| *known == name) else { return Ok(()) };
    if target.contains_key(*name)? {
        return Ok(());
    }
    target.set(*name, make(ctx)?)
}
