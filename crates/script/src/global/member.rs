//! Objects from tables of members.

use rquickjs::{Ctx, Object, Result, Value};

/// A member: its name and how it is made.
pub(crate) type Member = (&'static str, for<'js> fn(&Ctx<'js>) -> Result<Value<'js>>);

/// Makes a [`Member`] that is a function.
macro_rules! function {
    ($name:literal, $function:expr) => {
        ($name, |ctx| Ok(crate::timed::native(ctx, $name, $function)?.into_value()))
    };
}
pub(crate) use function;

/// An object with these members.
pub(crate) fn object<'js>(ctx: &Ctx<'js>, members: &[&[Member]]) -> Result<Value<'js>> {
    let object = Object::new(ctx.clone())?;
    for (name, make) in members.iter().copied().flatten() {
        object.set(*name, make(ctx)?)?;
    }
    Ok(object.into_value())
}
