//! The seam between the enclave and the protocols plugged into it.
//!
//! An [`Adapter`] turns requests of one protocol into transactions on the one store. The enclave
//! does everything around it: TLS, HTTP, WebSockets, authentication, the commit point, the ledger,
//! receipts. CCF's own frontends (`/node`, `/gov`), JS applications, native Rust applications and
//! the blockchain protocols all plug in here and nowhere else, in one of two ways:
//!
//! ```text
//!   Endpoints   request ─▶ find ─▶ authenticate ─▶ execute on a Tx ─▶ commit point ─▶ reply
//!                          adapter  enclave         adapter             enclave
//!                                                      └─ Call: request, params, caller, tx,
//!                                                         history, environment, outcome
//!
//!   Protocol    request, message ─▶ handle, receive ─▶ Node: begin, commit, wait, receipt ─▶ reply
//!               with its Client      adapter             enclave, for the adapter's transactions
//!               cut of a batch   ─▶ hold, seal            the adapter's record of the batch
//! ```
//!
//! Both learn of commitment by [`Adapter::committed`].
//!
//! Invariants:
//! * [`Endpoints::execute`] has no effect outside its transaction: a conflicting execution is
//!   thrown away and run again. A protocol does the same by itself.
//! * An adapter sees the clock, randomness, history and commit status only through its
//!   [`Environment`].
//! * A batch is signed only with the records that its protocols have of it.
//! * A refusal is the protocol's own kind of error; it is never a panic.

mod adapter;
mod call;
mod caller;
mod endpoint;
mod endpoints;
mod environment;
mod error;
mod node;
mod protocol;
mod registry;
mod route;

pub use adapter::Adapter;
pub use call::{Call, Outcome, Request, Response, remove_framing};
pub use caller::{Caller, CoseEnvelope};
pub use endpoint::{
    AuthnPolicy, EndpointProperties, ForwardingRequired, Mode, RedirectionStrategy,
};
pub use endpoints::{Endpoints, Find, Matched};
pub use environment::{Environment, HistoricalState, TxStatus};
pub use error::{ErrorCode, ErrorDetail, ErrorResponse};
pub use node::{CommitError, ForwardError, Node, ReceiptError};
pub use protocol::{AdapterError, Batch, BoxFuture, Client, Conversation, Held, Limits, Protocol};
pub use registry::{Handler, Registry};
pub use route::{Params, RouteSyntax, Template};
