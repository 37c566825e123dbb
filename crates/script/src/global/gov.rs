//! `ccf.gov`.

use rquickjs::{Ctx, Exception, Function, Object, Result, Value};

use super::basic::string_argument;
use crate::constitution;

pub(super) fn gov<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    let gov = Object::new(ctx.clone())?;
    let validate = Function::new(ctx.clone(), validate_constitution)?;
    gov.set("validateConstitution", validate.with_name("validateConstitution")?)?;
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
