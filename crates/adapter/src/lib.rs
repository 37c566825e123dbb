//! The seam between the enclave and the protocols plugged into it.
//!
//! An [`Adapter`] turns requests of one protocol into transactions on the one store. The enclave
//! does everything around it: TLS, HTTP, authentication, the commit point, the ledger, receipts.
//! CCF's own frontends (`/node`, `/gov`), JS applications, native Rust applications and the
//! blockchain protocols all plug in here and nowhere else.
//!
//! ```text
//!   request ──▶ find endpoint ──▶ authenticate ──▶ execute on a Tx ──▶ commit point ──▶ reply
//!               Adapter::find     enclave           Adapter::execute    enclave
//!                                                        │
//!                                                        └─ Call: request, params, caller, tx,
//!                                                           history, environment, outcome
//! ```
//!
//! Invariants:
//! * `execute` has no effect outside its transaction: a conflicting execution is thrown away and
//!   run again.
//! * An adapter sees the clock, randomness, history and commit status only through its
//!   [`Environment`].
//! * A refusal is an [`ErrorResponse`] with the protocol's own code; it is never a panic.

mod adapter;
mod call;
mod caller;
mod endpoint;
mod environment;
mod error;
mod registry;
mod route;

pub use adapter::{Adapter, Batch, Find, Matched};
pub use call::{Call, Outcome, Request, Response};
pub use caller::{Caller, CoseEnvelope};
pub use endpoint::{
    AuthnPolicy, EndpointProperties, ForwardingRequired, Mode, RedirectionStrategy,
};
pub use environment::{Environment, HistoricalState, TxStatus};
pub use error::{ErrorCode, ErrorDetail, ErrorResponse};
pub use registry::{Handler, Registry};
pub use route::{Params, RouteSyntax, Template};
