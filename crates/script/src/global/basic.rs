//! The members of `ccf` that every script sees: text, JSON and bytes, the store.

use coco_quickjs::array_buffer_bytes;
use rquickjs::{ArrayBuffer, Ctx, Exception, Result, String as JsString, Value};

use super::member::{Member, function};
use super::{crypto, gov, kv, tcb};
use crate::call::with_call;

pub(super) const MEMBERS: &[Member] = &[
    ("kv", kv::live),
    function!("strToBuf", str_to_buf),
    function!("bufToStr", buf_to_str),
    function!("jsonCompatibleToBuf", json_compatible_to_buf),
    function!("bufToJsonCompatible", buf_to_json_compatible),
    function!("enableUntrustedDateTime", enable_untrusted_date_time),
    function!("enableMetricsLogging", enable_metrics_logging),
    function!("pemToId", crypto::pem_to_id),
    function!("tcbHexToPolicy", tcb::hex_to_policy),
    ("crypto", crypto::crypto),
    ("gov", gov::gov),
    // Older applications find these here.
    function!("generateAesKey", crypto::generate_aes_key),
    function!("generateRsaKeyPair", crypto::generate_rsa_key_pair),
    function!("generateEcdsaKeyPair", crypto::generate_ecdsa_key_pair),
    function!("generateEddsaKeyPair", crypto::generate_eddsa_key_pair),
    function!("wrapKey", crypto::wrap_key),
    function!("digest", crypto::digest),
    function!("isValidX509CertBundle", crypto::is_valid_bundle),
    function!("isValidX509CertChain", crypto::is_valid_chain),
];

/// An `ArrayBuffer` that holds a copy of `bytes`, on the script's own heap.
pub(crate) fn array_buffer<'js>(ctx: &Ctx<'js>, bytes: &[u8]) -> Result<Value<'js>> {
    Ok(ArrayBuffer::new_copy(ctx.clone(), bytes)?.into_value())
}

/// The bytes of an argument that must be an `ArrayBuffer`.
pub(super) fn bytes_argument(value: &Value<'_>, name: &str) -> Result<Vec<u8>> {
    array_buffer_bytes(value).ok_or_else(|| {
        let message = format!("Argument {name} must be an ArrayBuffer");
        Exception::throw_type(value.ctx(), &message)
    })
}

/// The text of an argument that must be a string.
pub(super) fn string_argument(value: &Value<'_>, name: &str) -> Result<String> {
    match value.as_string() {
        Some(text) => unicode(text),
        None => {
            let message = format!("Argument {name} must be a string");
            Err(Exception::throw_type(value.ctx(), &message))
        }
    }
}

/// Strings may hold halves of surrogate pairs, which have no UTF-8.
fn unicode(text: &JsString<'_>) -> Result<String> {
    text.to_string().map_err(|error| match error {
        rquickjs::Error::Utf8(_) => {
            Exception::throw_type(text.ctx(), "The string is not well-formed Unicode")
        }
        other => other,
    })
}

/// JSON text as a value; a `SyntaxError` otherwise.
pub(crate) fn parse_json<'js>(ctx: &Ctx<'js>, text: &[u8]) -> Result<Value<'js>> {
    let text = std::str::from_utf8(text)
        .map_err(|_| Exception::throw_syntax(ctx, "JSON text is not UTF-8"))?;
    if text.contains('\0') {
        return Err(Exception::throw_syntax(ctx, "JSON text contains a NUL character"));
    }
    ctx.json_parse(text)
}

/// A value as JSON text; `None` if it has none (`undefined`, functions).
pub(crate) fn to_json(value: Value<'_>) -> Result<Option<String>> {
    let ctx = value.ctx().clone();
    ctx.json_stringify(value)?.map(|text| unicode(&text)).transpose()
}

/// An argument by way of its JSON text; what has none is null.
pub(super) fn json_argument(value: Value<'_>) -> Result<serde_json::Value> {
    let ctx = value.ctx().clone();
    let text = to_json(value)?.unwrap_or_else(|| "null".to_owned());
    serde_json::from_str(&text).map_err(|error| {
        // Deeper than the reader's limit of nesting.
        Exception::throw_type(&ctx, &format!("The argument is not plain JSON: {error}"))
    })
}

/// A failure becomes an `Error` with its text.
pub(super) fn or_throw<T, E: std::fmt::Display>(
    ctx: &Ctx<'_>,
    result: std::result::Result<T, E>,
) -> Result<T> {
    result.map_err(|error| Exception::throw_message(ctx, &error.to_string()))
}

fn str_to_buf<'js>(ctx: Ctx<'js>, text: Value<'js>) -> Result<Value<'js>> {
    array_buffer(&ctx, string_argument(&text, "s")?.as_bytes())
}

fn buf_to_str<'js>(ctx: Ctx<'js>, buffer: Value<'js>) -> Result<JsString<'js>> {
    let bytes = bytes_argument(&buffer, "buffer")?;
    JsString::from_str(ctx, &String::from_utf8_lossy(&bytes))
}

fn json_compatible_to_buf<'js>(ctx: Ctx<'js>, value: Value<'js>) -> Result<Value<'js>> {
    let text = to_json(value)?
        .ok_or_else(|| Exception::throw_type(&ctx, "The value has no JSON representation"))?;
    array_buffer(&ctx, text.as_bytes())
}

fn buf_to_json_compatible<'js>(ctx: Ctx<'js>, buffer: Value<'js>) -> Result<Value<'js>> {
    parse_json(&ctx, &bytes_argument(&buffer, "buffer")?)
}

/// Has had no effect since CCF 7: time is always the node's. Returns what was set before.
fn enable_untrusted_date_time(ctx: Ctx<'_>, enable: bool) -> Result<bool> {
    with_call(&ctx, |_, state| std::mem::replace(&mut state.untrusted_date_time, enable))
}

/// Returns what was set before.
fn enable_metrics_logging(ctx: Ctx<'_>, enable: bool) -> Result<bool> {
    with_call(&ctx, |_, state| std::mem::replace(&mut state.log_metrics, enable))
}
