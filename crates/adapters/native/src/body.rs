//! What a handler takes from the request's body, and what it replies.

use bytes::Bytes;
use coco_adapter::{Call, ErrorCode, ErrorResponse, Response};
use coco_kv::Value;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as JsonValue, json};

use crate::Json;
use crate::schema::{Direction, schema_of};

/// What a handler takes from the body of a request.
pub trait Input: Sized {
    /// The input of a call, or a refusal.
    fn from_call(call: &Call<'_>) -> Result<Self, ErrorResponse>;

    /// Its OpenAPI Request Body Object, if there is a body.
    fn request_body() -> Option<JsonValue>;
}

/// No input: a body is ignored.
impl Input for () {
    fn from_call(_call: &Call<'_>) -> Result<Self, ErrorResponse> {
        Ok(())
    }

    fn request_body() -> Option<JsonValue> {
        None
    }
}

/// The body as it is.
impl Input for Bytes {
    fn from_call(call: &Call<'_>) -> Result<Self, ErrorResponse> {
        Ok(call.request.body().clone())
    }

    fn request_body() -> Option<JsonValue> {
        let content = content("application/octet-stream", binary());
        Some(json!({"required": true, "content": content}))
    }
}

/// UTF-8 text; otherwise 400 `InvalidInput`.
impl Input for String {
    fn from_call(call: &Call<'_>) -> Result<Self, ErrorResponse> {
        String::from_utf8(call.request.body().to_vec()).map_err(|_| {
            ErrorResponse::bad_request(ErrorCode::InvalidInput, "Body is not valid UTF-8.")
        })
    }

    fn request_body() -> Option<JsonValue> {
        Some(json!({"required": true, "content": content("text/plain", json!({"type": "string"}))}))
    }
}

/// JSON of this type; otherwise 400 `InvalidInput`.
impl<T: DeserializeOwned + JsonSchema> Input for Json<T> {
    fn from_call(call: &Call<'_>) -> Result<Self, ErrorResponse> {
        call.json().map(Json)
    }

    fn request_body() -> Option<JsonValue> {
        let schema = schema_of::<T>(Direction::Request);
        Some(json!({"required": true, "content": content("application/json", schema)}))
    }
}

/// What a handler replies.
pub trait Reply {
    /// The reply as an HTTP response.
    fn into_response(self) -> Result<Response, ErrorResponse>;

    /// Its status and OpenAPI Response Object; the status is `None` if it varies.
    fn response() -> (Option<StatusCode>, JsonValue);
}

/// 204 without a body.
impl Reply for () {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        (Some(StatusCode::NO_CONTENT), json!({"description": "Done"}))
    }
}

/// 200 with JSON.
impl<T: Serialize + JsonSchema> Reply for Json<T> {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        let text = serde_json::to_vec(&self.0).map_err(|error| {
            ErrorResponse::internal(format!("Reply cannot be serialised: {error}."))
        })?;
        Ok(ok("application/json", text.into()))
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        described("application/json", schema_of::<T>(Direction::Reply))
    }
}

/// 200 with text.
impl Reply for String {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        Ok(ok("text/plain", self.into()))
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        described("text/plain", json!({"type": "string"}))
    }
}

/// 200 with bytes.
impl Reply for Bytes {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        Ok(ok("application/octet-stream", self))
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        described("application/octet-stream", binary())
    }
}

/// 200 with the bytes of a stored value.
impl Reply for Value {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        Bytes::from_owner(self).into_response()
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        Bytes::response()
    }
}

/// 200 with bytes that are said to be text, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainText(pub Bytes);

impl Reply for PlainText {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        Ok(ok("text/plain", self.0))
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        String::response()
    }
}

/// Any response, as it is.
impl Reply for Response {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        Ok(self)
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        (None, json!({"description": "Reply"}))
    }
}

/// A reply with a status of its own, such as 201.
impl<R: Reply> Reply for (StatusCode, R) {
    fn into_response(self) -> Result<Response, ErrorResponse> {
        let mut response = self.1.into_response()?;
        *response.status_mut() = self.0;
        Ok(response)
    }

    fn response() -> (Option<StatusCode>, JsonValue) {
        (None, R::response().1)
    }
}

fn ok(content_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn described(content_type: &str, schema: JsonValue) -> (Option<StatusCode>, JsonValue) {
    let response = json!({"description": "OK", "content": content(content_type, schema)});
    (Some(StatusCode::OK), response)
}

fn content(content_type: &str, schema: JsonValue) -> JsonValue {
    json!({content_type: {"schema": schema}})
}

fn binary() -> JsonValue {
    json!({"type": "string", "format": "binary"})
}
