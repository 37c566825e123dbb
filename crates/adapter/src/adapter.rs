//! What a protocol implements to plug in.

use std::sync::Arc;

use coco_kv::{Tx, TxId};
use http::Method;

use crate::{Call, EndpointProperties, ErrorResponse, Params, Response};

/// A protocol plugged into the enclave.
pub trait Adapter: Send + Sync + 'static {
    /// A short name, for logs and metrics.
    fn name(&self) -> &'static str;

    /// The endpoint for a request line. `path` is percent-encoded and has no frontend prefix.
    /// Reads that decide are part of the transaction.
    fn find(&self, tx: &mut Tx, method: &Method, path: &str) -> Find;

    /// Runs an endpoint that [`find`](Self::find) returned. Runs again after a conflict.
    fn execute(&self, call: &mut Call<'_>) -> Result<Response, ErrorResponse>;

    /// Called once when a batch is cut, before its signature: the place for a protocol's own block
    /// record. Whether the batch holds anything of the adapter's is for the adapter to know.
    fn seal(&self, _tx: &mut Tx, _batch: Batch) {}

    /// Everything up to `last` is committed.
    fn committed(&self, _last: TxId) {}

    /// The OpenAPI `paths` object of the endpoints.
    fn openapi_paths(&self, tx: &mut Tx) -> serde_json::Map<String, serde_json::Value>;

    /// Title and description for the OpenAPI `info` object.
    fn openapi_info(&self) -> (String, String) {
        (self.name().to_owned(), String::new())
    }
}

/// The answer of [`Adapter::find`].
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

/// The entries executed since the last cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first transaction of the batch.
    pub first: TxId,
    /// The last one executed before the cut.
    pub last: TxId,
}
