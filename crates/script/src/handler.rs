//! CCF's handler contract: what an endpoint's function is given, and what its reply means.

use bytes::Bytes;
use coco_adapter::{Call, Caller, Params, Request, Response, remove_framing};
use coco_quickjs::{keep, kept};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use rquickjs::{Ctx, Object, Result, String as JsString, Value};

use crate::access::Context;
use crate::call::{CallState, Lender, with_call};
use crate::global::{self, array_buffer, parse_json, to_json};
use crate::interpreter::Fault;
use crate::module::Modules;
use crate::timed::native;
use crate::{Limits, ModuleSource, Program, ScriptEngine, ScriptError};

/// An endpoint's function and how it runs.
pub struct Handler<'a> {
    /// The module that exports it, with what that imports.
    pub program: &'a Program,
    /// For modules that are imported while it runs.
    pub source: std::sync::Arc<dyn ModuleSource>,
    /// The function's name.
    pub function: &'a str,
    /// What it may access.
    pub context: Context,
    /// What it may use.
    pub limits: Limits,
    /// Run in a realm shared with earlier calls under this key, instead of a new one.
    pub reuse: Option<&'a str>,
    /// How many realms are kept for reuse.
    pub max_kept: usize,
}

impl ScriptEngine {
    /// Runs an endpoint's function. What the script decides beyond its reply goes to
    /// `call.outcome`.
    pub fn handle(
        &self,
        handler: &Handler<'_>,
        call: &mut Call<'_>,
    ) -> std::result::Result<Response, ScriptError> {
        let stamp = handler.program.stamp;
        let reuse = handler.reuse.filter(|_| handler.max_kept > 0);
        let kept = reuse.and_then(|key| self.take_kept(key, stamp));
        let mut interpreter = kept.map_or_else(|| self.take_idle(handler.context), Ok)?;
        interpreter.load(Modules {
            compiled: handler.program.modules.clone(),
            source: Some(handler.source.clone()),
            ..Modules::default()
        });
        let mut state = CallState::new(handler.context);
        state.historical = call.historical.cloned();
        state.body = call.request.body().clone();
        let (request, caller, params) = (call.request, call.caller, &call.matched.params);
        let template = &*call.matched.template;
        let used_before = interpreter.is_used();
        let lender = Lender {
            tx: &mut *call.tx,
            state: &mut state,
            environment: call.environment,
            natives: None,
        };
        let started_ms = call.environment.now_ms();
        let result = interpreter.run(handler.limits, lender, |running| {
            global::show_historical_state(&running.ctx, used_before)?;
            let function = running.exported(&handler.program.entry, handler.function)?;
            let argument = request_object(&running.ctx, request, caller, params, template)?;
            let returned = function.call((argument,))?;
            let reply = running.settle(returned, handler.function)?;
            response(reply)
        });
        if state.log_metrics {
            let heap_bytes = interpreter.heap_bytes();
            let ran_ms = call.environment.now_ms().saturating_sub(started_ms);
            let function = handler.function;
            tracing::info!(target: "coco::script", tag = "app", function, ran_ms, heap_bytes, reused = used_before, "interpreter metrics");
        }
        match reuse {
            Some(key) if result.is_ok() => {
                self.keep(key, stamp, interpreter, handler.max_kept);
            }
            _ => self.give_back(interpreter),
        }
        if result.is_ok() {
            call.outcome.apply_writes = state.outcome.apply_writes.or(call.outcome.apply_writes);
            call.outcome.claims = state.outcome.claims.or(call.outcome.claims);
        }
        result
    }
}

/// The argument of a handler.
fn request_object<'js>(
    ctx: &Ctx<'js>,
    request: &Request,
    caller: &Caller,
    params: &Params,
    template: &str,
) -> Result<Object<'js>> {
    let uri = request.uri();
    let object = Object::new(ctx.clone())?;
    object.set("headers", headers_object(ctx, request.headers())?)?;
    object.set("query", uri.query().unwrap_or(""))?;
    object.set("path", uri.path())?;
    object.set("url", uri.path_and_query().map_or(uri.path(), |url| url.as_str()))?;
    object.set("method", request.method().as_str())?;
    object.set("route", format!("/app{template}"))?;
    match request.headers().get(HOST).and_then(|host| host.to_str().ok()) {
        Some(host) => object.set("hostname", host)?,
        None => match uri.authority() {
            Some(authority) => object.set("hostname", authority.as_str())?,
            None => object.set("hostname", Value::new_null(ctx.clone()))?,
        },
    }
    let params_object = Object::new(ctx.clone())?;
    for (name, value) in params {
        params_object.set(name.as_str(), value.as_str())?;
    }
    object.set("params", params_object)?;
    object.set("body", body_object(ctx)?)?;
    if let Some(caller) = caller_object(ctx, caller)? {
        object.set("caller", caller)?;
    }
    Ok(object)
}

/// Header names are lower-case already; repeated headers are joined as HTTP allows.
fn headers_object<'js>(ctx: &Ctx<'js>, headers: &HeaderMap) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    for name in headers.keys() {
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = values.next().unwrap_or_default();
        let joined = values.fold(first.to_vec(), |mut joined, value| {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
            joined
        });
        object.set(name.as_str(), &*String::from_utf8_lossy(&joined))?;
    }
    Ok(object)
}

/// Makes the functions of `request.body`, which show the body of the call under way.
pub(crate) fn prepare<'js>(ctx: &Ctx<'js>) -> Result<()> {
    fn body(ctx: &Ctx<'_>) -> Result<Bytes> {
        with_call(ctx, |_, state| state.body.clone())
    }
    let body_object = Object::new(ctx.clone())?;
    let text =
        |ctx: Ctx<'js>| JsString::from_str(ctx.clone(), &String::from_utf8_lossy(&body(&ctx)?));
    body_object.set("text", native(ctx, "text", text)?)?;
    let json = |ctx: Ctx<'js>| parse_json(&ctx, &body(&ctx)?);
    body_object.set("json", native(ctx, "json", json)?)?;
    let buffer = |ctx: Ctx<'js>| array_buffer(&ctx, &body(&ctx)?);
    body_object.set("arrayBuffer", native(ctx, "arrayBuffer", buffer)?)?;
    keep(ctx, BODY, body_object.into_value())
}

/// Where the functions of bodies are kept.
const BODY: &str = "request.body";

/// A new object in every request, so that what a script does to it stays there.
fn body_object<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let (object, functions) = (Object::new(ctx.clone())?, kept::<Object<'js>>(ctx, BODY)?);
    for name in ["text", "json", "arrayBuffer"] {
        object.set(name, functions.get::<_, Value<'js>>(name)?)?;
    }
    Ok(object)
}

/// `request.caller`; `None` if the endpoint declares no policy.
fn caller_object<'js>(ctx: &Ctx<'js>, caller: &Caller) -> Result<Option<Object<'js>>> {
    let object = Object::new(ctx.clone())?;
    let json = |value: &serde_json::Value| parse_json(ctx, value.to_string().as_bytes());
    let with_certificate = |policy: &str, id, cert: &str, data| -> Result<()> {
        object.set("policy", policy)?;
        object.set("id", coco_crypto::Digest::to_string(id))?;
        object.set("cert", cert)?;
        object.set("data", json(data)?)
    };
    let with_content = |content: &[u8]| -> Result<()> {
        let cose = Object::new(ctx.clone())?;
        cose.set("content", array_buffer(ctx, content)?)?;
        object.set("cose", cose)
    };
    match caller {
        Caller::Unauthenticated => return Ok(None),
        Caller::NoAuth => object.set("policy", "no_auth")?,
        Caller::UserCert { id, cert, data } => with_certificate("user_cert", id, cert, data)?,
        Caller::MemberCert { id, cert, data } => with_certificate("member_cert", id, cert, data)?,
        Caller::AnyCert { cert } => {
            object.set("policy", "any_cert")?;
            object.set("cert", cert.as_str())?;
        }
        Caller::Jwt { key_issuer, header, payload } => {
            let jwt = Object::new(ctx.clone())?;
            jwt.set("keyIssuer", key_issuer.as_str())?;
            jwt.set("header", json(header)?)?;
            jwt.set("payload", json(payload)?)?;
            object.set("policy", "jwt")?;
            object.set("jwt", jwt)?;
        }
        Caller::UserCose { id, cert, data, envelope } => {
            with_certificate("user_cose_sign1", id, cert, data)?;
            with_content(&envelope.content)?;
        }
        Caller::MemberCose { id, cert, data, envelope } => {
            with_certificate("member_cose_sign1", id, cert, data)?;
            with_content(&envelope.content)?;
        }
        Caller::Node { id } => {
            object.set("policy", "node_cert")?;
            object.set("id", id.to_string())?;
        }
        Caller::AllOf(all) => {
            let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
            object.set("policy", names)?;
            for (name, caller) in all {
                if let Some(caller) = caller_object(ctx, caller)? {
                    object.set(*name, caller)?;
                }
            }
        }
    }
    Ok(Some(object))
}

/// The HTTP response that a handler's return value stands for.
fn response(reply: Value<'_>) -> std::result::Result<Response, Fault> {
    let reply = reply.into_object().ok_or_else(|| invalid("not an object"))?;
    let mut response = Response::default();
    let body: Value<'_> = reply.get("body")?;
    if let Some((content_type, bytes)) = body_bytes(body)? {
        *response.body_mut() = bytes;
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    let headers: Value<'_> = reply.get("headers")?;
    if let Some(headers) = headers.as_object() {
        for entry in headers.props::<String, Value<'_>>() {
            let (name, value) = entry?;
            let value = value.as_string().ok_or_else(|| invalid("header value type"))?;
            let value = value.to_string().map_err(|_| invalid("header value type"))?;
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("header name"))?;
            let value = HeaderValue::from_str(&value).map_err(|_| invalid("header value"))?;
            response.headers_mut().insert(name, value);
        }
        remove_framing(response.headers_mut());
    }
    let status: Value<'_> = reply.get("statusCode")?;
    if !status.is_undefined() && !status.is_null() {
        let code = status.as_int().and_then(|code| u16::try_from(code).ok());
        // The range of final responses: 1xx would leave the client waiting.
        let code = code.filter(|code| (200..=599).contains(code));
        let code = code.and_then(|code| StatusCode::from_u16(code).ok());
        *response.status_mut() = code.ok_or_else(|| invalid("status code type"))?;
    }
    Ok(response)
}

/// A body with its content type; `None` for `undefined`.
fn body_bytes(body: Value<'_>) -> std::result::Result<Option<(&'static str, Bytes)>, Fault> {
    if body.is_undefined() {
        return Ok(None);
    }
    if let Some(text) = body.as_string() {
        let text =
            text.to_string().map_err(|_| invalid("error during string conversion of body"))?;
        return Ok(Some(("text/plain", text.into())));
    }
    if let Some(bytes) = coco_quickjs::view_bytes(&body) {
        return Ok(Some(("application/octet-stream", bytes.into())));
    }
    match to_json(body) {
        Ok(Some(text)) => Ok(Some(("application/json", text.into()))),
        Ok(None) => Err(invalid("error during string conversion of body")),
        Err(error) => Err(Fault::Conversion(error)),
    }
}

fn invalid(what: &'static str) -> Fault {
    Fault::Script(ScriptError::InvalidReply { what, thrown: None })
}
