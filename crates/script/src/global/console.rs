//! `console`: lines in the node's log.

use rquickjs::function::Rest;
use rquickjs::{Ctx, Object, Result, Value};

use super::basic::to_json;
use crate::call::with_call;
use crate::timed::native;

/// The longest line that is logged, bytes.
const MAX_LINE_BYTES: usize = 16 << 10;

#[derive(Clone, Copy)]
enum Level {
    Info,
    Warn,
    Error,
}

pub(super) fn console<'js>(ctx: &Ctx<'js>) -> Result<Value<'js>> {
    let console = Object::new(ctx.clone())?;
    for (name, level) in [
        ("log", Level::Info),
        ("info", Level::Info),
        ("debug", Level::Info),
        ("warn", Level::Warn),
        ("error", Level::Error),
    ] {
        let write = move |ctx: Ctx<'js>, parts: Rest<Value<'js>>| write(&ctx, level, parts.0);
        console.set(name, native(ctx, name, write)?)?;
    }
    Ok(console.into_value())
}

fn write<'js>(ctx: &Ctx<'js>, level: Level, parts: Vec<Value<'js>>) -> Result<()> {
    let mut line = String::new();
    for part in parts {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&readable(part)?);
        if line.len() > MAX_LINE_BYTES {
            let mut end = MAX_LINE_BYTES;
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            line.truncate(end);
            line.push('…');
            break;
        }
    }
    let tag = with_call(ctx, |_, state| if state.context.is_app() { "app" } else { "gov" })?;
    match level {
        Level::Info => tracing::info!(target: "coco::script", tag, "{line}"),
        Level::Warn => tracing::warn!(target: "coco::script", tag, "{line}"),
        Level::Error => tracing::error!(target: "coco::script", tag, "{line}"),
    }
    Ok(())
}

/// Text as it is, errors with their stack, everything else as JSON.
fn readable(value: Value<'_>) -> Result<String> {
    if let Some(text) = value.as_string() {
        return Ok(text.to_string().unwrap_or_else(|_| "(not Unicode)".to_owned()));
    }
    if let Some(exception) = value.as_exception() {
        return Ok(exception.to_string());
    }
    let kind = value.type_name();
    // A value without JSON (a cycle, a BigInt) is no reason to fail the request.
    match to_json(value.clone()) {
        Ok(text) => Ok(text.unwrap_or_else(|| kind.to_owned())),
        Err(rquickjs::Error::Exception) if !value.ctx().catch().is_uncatchable_error() => {
            Ok(format!("({kind})"))
        }
        Err(error) => Err(error),
    }
}
