//! Endpoints by path and verb, as CCF's applications have them.

use std::sync::Arc;

use coco_kv::Tx;
use http::Method;

use crate::{Adapter, Call, EndpointProperties, ErrorResponse, Params, Response};

/// An adapter whose protocol is CCF's: endpoints under `/app`, one transaction a request, executed
/// and committed by the enclave.
pub trait Endpoints: Adapter {
    /// The endpoint for a request line. `path` is percent-encoded and has no frontend prefix.
    /// Reads that decide are part of the transaction.
    fn find(&self, tx: &mut Tx, method: &Method, path: &str) -> Find;

    /// Runs an endpoint that [`find`](Self::find) returned. Runs again after a conflict.
    fn execute(&self, call: &mut Call<'_>) -> Result<Response, ErrorResponse>;

    /// The OpenAPI `paths` object of the endpoints.
    fn openapi_paths(&self, tx: &mut Tx) -> serde_json::Map<String, serde_json::Value>;

    /// Title and description for the OpenAPI `info` object.
    fn openapi_info(&self) -> (String, String) {
        (self.name().to_owned(), String::new())
    }
}

/// The answer of [`Endpoints::find`].
pub enum Find {
    /// This endpoint.
    Endpoint(Matched),
    /// The path exists, for these verbs.
    WrongVerb(Vec<Method>),
    /// The path does not exist.
    UnknownPath,
    /// The table of endpoints itself is at fault (two templates match).
    Failed(ErrorResponse),
}

/// An endpoint found for a request.
#[derive(Clone, Debug)]
pub struct Matched {
    /// What it declares.
    pub properties: Arc<EndpointProperties>,
    /// The template it was registered under, for `request.route` and metrics.
    pub template: Arc<str>,
    /// What the template took from the path.
    pub params: Params,
    /// Which of the adapter's endpoints; only the adapter reads it.
    pub index: usize,
}
