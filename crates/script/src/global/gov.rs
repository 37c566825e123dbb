//! `ccf.gov`.

use rquickjs::{Ctx, Exception, Object, Result, Value};

use super::basic::string_argument;
use crate::constitution;
use crate::timed::native;

pub(super) fn gov<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    let gov = Object::new(ctx.clone())?;
    let name = "validateConstitution";
    gov.set(name, native(ctx, name, validate_constitution)?)?;
    Ok(gov.into_value())
}

/// Throws unless the text is a constitution.
fn validate_constitution<'js>(ctx: Ctx<'js>, source: Value<'js>) -> Result<bool> {
    let source = string_argument(&source, "constitution")?;
    constitution::check_nested(&source).map_err(|error| {
        Exception::throw_message(&ctx, &format!("Invalid constitution: {error}"))
    })?;
    Ok(true)
}
