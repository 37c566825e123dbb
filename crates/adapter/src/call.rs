//! One execution of an endpoint.

use bytes::Bytes;
use coco_crypto::Digest;
use coco_kv::Tx;
use http::header::{self, HeaderMap, HeaderName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Caller, Environment, ErrorCode, ErrorResponse, HistoricalState, Matched};

/// A whole HTTP request: the body has been read, within the interface's limit.
pub type Request = http::Request<Bytes>;

/// A whole HTTP response.
pub type Response = http::Response<Bytes>;

/// Everything an endpoint's execution may look at and change.
pub struct Call<'a> {
    /// The request.
    pub request: &'a Request,
    /// The endpoint that was found for it, with its path parameters.
    pub matched: &'a Matched,
    /// Who calls.
    pub caller: &'a Caller,
    /// The transaction. In `historical` mode it reads the present state.
    pub tx: &'a mut Tx,
    /// The past state that was asked for, in `historical` mode.
    pub historical: Option<&'a HistoricalState>,
    /// The node around the adapter.
    pub environment: &'a dyn Environment,
    /// What the execution decides beyond its reply.
    pub outcome: Outcome,
}

/// What an execution decides beyond its reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether to apply the writes; `None` applies them exactly when the status is 2xx.
    pub apply_writes: Option<bool>,
    /// The claims to bind to the transaction's leaf of the Merkle tree.
    pub claims: Option<Digest>,
    /// Complete the ledger chunk at the next signature.
    pub force_chunk: bool,
    /// Write a snapshot at the next signature.
    pub force_snapshot: bool,
}

impl<'a> Call<'a> {
    /// The value of a path parameter; empty if the template has no such parameter.
    pub fn param(&self, name: &str) -> &'a str {
        let mut params = self.matched.params.iter();
        params.find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The first value of a query parameter, as written.
    pub fn query(&self, name: &str) -> Option<&'a str> {
        let pairs = self.request.uri().query()?.split('&');
        pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The body read as JSON; otherwise 400 `InvalidInput`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ErrorResponse> {
        serde_json::from_slice(self.request.body()).map_err(|error| {
            ErrorResponse::bad_request(
                ErrorCode::InvalidInput,
                format!("Body is not valid: {error}."),
            )
        })
    }
}

/// Removes what frames a message on its connection, which is the node's to say: an application that
/// chose the length or the connection's end would break the reply, and those after it.
pub fn remove_framing(headers: &mut HeaderMap) {
    /// RFC 9110 sections 7.6.1 and 8.6, and two that some clients obey without a standard.
    const FRAMING: [HeaderName; 8] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    for name in &FRAMING {
        headers.remove(name);
    }
}

/// A 200 with a JSON body.
pub(crate) fn json_response<T: Serialize>(value: &T) -> Result<Response, ErrorResponse> {
    let text = serde_json::to_vec(value).map_err(|error| {
        ErrorResponse::internal(format!("Reply cannot be serialised: {error}."))
    })?;
    let mut response = Response::new(Bytes::from(text));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

impl Call<'_> {
    /// A 200 reply with a JSON body.
    pub fn reply<T: Serialize>(&self, value: &T) -> Result<Response, ErrorResponse> {
        json_response(value)
    }
}
