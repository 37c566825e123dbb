//! Applications written in Rust and compiled into a node: typed maps, endpoints, generated
//! OpenAPI.
//!
//! ```text
//!   Application ── GET /accounts/{owner} ── Endpoint ── handler(call, input) -> reply
//!        │                                     │                 │
//!        │ is Endpoints of the enclave         │ policies, mode  │ TypedMap: through call.tx
//!        ▼                                     ▼                 ▼
//!   OpenAPI from the types of inputs and replies      one transaction, run again on conflict
//! ```
//!
//! The crate is the comfortable side of [`coco_adapter`]; it decides nothing about authentication,
//! commit or the ledger. Invariants:
//! * a handler has no effect but on its call: on the transaction, the outcome and the reply;
//! * an endpoint that does not say who may call is for participants with a certificate;
//! * an entry that cannot be read as its type is refused with a 500 that tells nothing of it.
//!
//! ```
//! use coco_native::trial::{Trial, participant};
//! use coco_native::{
//!     Application, Call, Endpoint, ErrorCode, ErrorResponse, Json, Method, Text, TypedMap,
//! };
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct Account {
//!     balance: u64,
//! }
//!
//! static ACCOUNTS: TypedMap<Text, Json<Account>> = TypedMap::new("accounts");
//!
//! fn open(call: &mut Call<'_>, account: Json<Account>) -> Result<(), ErrorResponse> {
//!     let owner = call.param("owner");
//!     Ok(ACCOUNTS.put(call.tx, owner, &account.0)?)
//! }
//!
//! fn read(call: &mut Call<'_>, _: ()) -> Result<Json<Account>, ErrorResponse> {
//!     let owner = call.param("owner");
//!     let account = ACCOUNTS.get(call.tx, owner)?;
//!     let unknown = || ErrorResponse::not_found(ErrorCode::KeyNotFound, "No such account.");
//!     account.map(Json).ok_or_else(unknown)
//! }
//!
//! let bank = Application::new("bank", "Bank", "Accounts by owner.")
//!     .put("/accounts/{owner}", Endpoint::new(open))
//!     .get("/accounts/{owner}", Endpoint::new(read).read_only());
//!
//! let (bank, ada) = (Trial::new(bank), participant("ada"));
//! assert_eq!(bank.call(Method::PUT, "/accounts/ada", &ada, r#"{"balance":7}"#).status(), 204);
//! assert_eq!(bank.call(Method::GET, "/accounts/ada", &ada, "").body(), r#"{"balance":7}"#);
//! assert_eq!(bank.call(Method::GET, "/accounts/bob", &ada, "").status(), 404);
//! ```

mod application;
mod body;
mod codec;
mod endpoint;
mod map;
mod schema;
pub mod trial;

pub use application::{Application, BadEndpoint};
pub use body::{Input, PlainText, Reply};
pub use codec::{Codec, CodecError, Json, LittleEndian, Raw, Text};
pub use endpoint::Endpoint;
pub use map::{MapError, TypedMap, TypedSet, TypedValue};

pub use bytes::Bytes;
pub use coco_adapter::{
    Adapter, AuthnPolicy, Call, Caller, CoseEnvelope, Endpoints, Environment, ErrorCode,
    ErrorDetail, ErrorResponse, ForwardingRequired, HistoricalState, Mode, Outcome,
    RedirectionStrategy, Request, Response, TxStatus,
};
pub use coco_kv::{MapName, Seqno, Tx, TxId, Value, View};
pub use http::{Method, StatusCode};
