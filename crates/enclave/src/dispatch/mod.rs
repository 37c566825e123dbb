//! From a request to an executed transaction and its reply.
//!
//! ```text
//!   accepted here? ▶ frontend ▶ open? ▶ ┌ begin ▶ find ▶ authenticate ▶ execute ▶ commit ┐ ▶ wait? ▶ reply
//!                                       └──────────── again on a conflict ───────────────┘
//! ```
//!
//! Everything runs on the session's task. Only what truly waits is put off: commitment, when the
//! caller or the endpoint asks for it, history that is no longer in memory, and room for another
//! uncommitted transaction: a client that is faster than the disk is slowed down, not refused.
//!
//! Headers beyond CCF's:
//! * `x-coco-wait: committed`: the reply is given when the transaction is committed; if it became
//!   invalid, the reply is 503 `TransactionInvalid` instead;
//! * `x-coco-receipt: true`: the same, and the reply carries the transaction's receipt, as base64
//!   of its JSON, in the header `x-coco-receipt`;
//! * `x-coco-read: linearizable`: what is read holds everything that was committed when the request
//!   came, at whatever node, which a quorum confirms first; and is committed itself when the reply
//!   is given.

mod elsewhere;
mod frontend;
mod history;
mod protocol;
mod recent;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coco_adapter::{
    Call, Caller, EndpointProperties, Endpoints, ErrorCode, ErrorResponse, Find, Matched, Mode,
    Outcome, Request, Response,
};
use coco_governance::tables::{SERVICE_INFO, ServiceStatus};
use coco_kv::{Tx, TxId};
use http::{HeaderValue, Method, StatusCode, header};

use self::frontend::Frontend;
use self::wait::{Placed, Wishes};
use crate::authn::{Authenticator, Credentials, Remembered};
use crate::endpoints::{Files, FrontendEndpoint, is_closed};
use crate::node::Node;
use crate::pipeline::CommitError;
use crate::session::{Dispatch, Reply, Session};

use history::RETRY_AFTER;
pub(crate) use history::fetch;
pub use protocol::ProtocolDispatcher;

/// How often an execution is tried again after a conflict before the caller has to.
const MAX_ATTEMPTS: usize = 30;

/// How long a request waits for room among the uncommitted transactions before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// CCF's header with the id of the transaction that a reply belongs to.
pub(crate) const TRANSACTION_ID: &str = "x-ms-ccf-transaction-id";

/// Dispatches the requests of all sessions of a node.
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    node: Node,
    /// CCF's `/node` endpoints.
    node_frontend: Arc<dyn Endpoints>,
    authenticator: Authenticator,
    /// Whether the app frontend is known to be open; it never closes again.
    app_is_open: AtomicBool,
}

/// What a session's requests leave for those after them.
#[derive(Default)]
pub struct Memory {
    /// The newest transaction the session has been told of.
    last: Option<TxId>,
    /// A request of the session was forwarded to the primary: those after it may be, too.
    was_forwarded: bool,
    remembered: Remembered,
}

impl Memory {
    /// The session is told of a transaction.
    fn note(&mut self, tx_id: TxId) {
        self.last = self.last.max(Some(tx_id));
    }
}

impl Dispatcher {
    /// A dispatcher over a node's adapters and `node_frontend`, CCF's `/node` endpoints.
    pub fn new(node: Node, node_frontend: Arc<dyn Endpoints>) -> Self {
        let authenticator = Authenticator::default();
        let app_is_open = AtomicBool::new(false);
        Self { shared: Arc::new(Shared { node, node_frontend, authenticator, app_is_open }) }
    }

    /// Whether participants are served.
    pub(crate) fn is_app_open(&self) -> bool {
        self.shared.is_app_open()
    }
}

impl Dispatch for Dispatcher {
    fn dispatch(&self, session: &Arc<Session>, request: Request) -> Reply {
        let path = request.uri().path();
        if !session.interface.accepts(path) {
            let mut refused = Response::default();
            *refused.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Reply::Now(refused);
        }
        let (frontend, local) = Frontend::of(path);
        let target = Target { frontend, prefix_len: path.len() - local.len() };
        if let Err(refusal) = self.shared.check_open(frontend) {
            return Reply::Now(refusal.to_response());
        }
        let wishes = match Wishes::of(request.headers()) {
            Ok(wishes) => wishes,
            Err(refusal) => return Reply::Now(refusal.to_response()),
        };
        if let Some(common) = FrontendEndpoint::of(local) {
            return self.shared.when_known(session, wishes, move |shared| {
                let adapter = shared.adapter(frontend);
                common.answer(&shared.node, adapter, frontend.prefix(), request)
            });
        }
        if frontend == Frontend::Node
            && let Some((files, rest)) = Files::of(local, &session.interface)
        {
            let rest = rest.to_owned();
            return files.answer(&self.shared.node, &session.interface, request, &rest);
        }
        if frontend == Frontend::Node && is_closed(local, &session.interface) {
            return Reply::Now(unknown_path(&request));
        }
        self.shared.dispatch(session, request, target, wishes)
    }
}

/// Where a request is going.
#[derive(Clone, Copy)]
struct Target {
    frontend: Frontend,
    prefix_len: usize,
}

impl Target {
    /// The path as the frontend's adapter knows it.
    fn path<'a>(&self, request: &'a Request) -> &'a str {
        request.uri().path().get(self.prefix_len..).unwrap_or_default()
    }
}

/// How one execution ended.
enum Ran {
    /// Not executed, or without effect.
    Refused(Response),
    /// Executed: the reply with its transaction.
    Done(Response, Placed),
    /// To be executed on a past state.
    Historical,
    /// To be executed again.
    Conflict,
    /// To be executed again when more is committed.
    Full,
    /// To be executed by the primary.
    Forward,
    /// To be executed again on a state that is known to be recent.
    Behind,
}

/// How the executions of one request ended.
enum Attempt {
    Answered(Reply),
    /// There was no room for it.
    Full(Request),
    /// The state here has to be known to be recent first.
    Behind(Request),
}

impl From<ErrorResponse> for Ran {
    fn from(error: ErrorResponse) -> Self {
        Self::Refused(error.to_response())
    }
}

impl Shared {
    fn dispatch(
        self: &Arc<Self>,
        session: &Arc<Session>,
        request: Request,
        target: Target,
        wishes: Wishes,
    ) -> Reply {
        match self.attempt(session, request, target, wishes) {
            Attempt::Answered(reply) => reply,
            Attempt::Full(request) => {
                self.when_there_is_room(session.clone(), request, target, wishes)
            }
            Attempt::Behind(request) => {
                self.when_caught_up(session.clone(), request, target, wishes)
            }
        }
    }

    /// Executes until there is no conflict; gives the request back if there is no room for it.
    fn attempt(
        self: &Arc<Self>,
        session: &Arc<Session>,
        request: Request,
        target: Target,
        wishes: Wishes,
    ) -> Attempt {
        let mut credentials = self.credentials(session, &request);
        for _ in 0..MAX_ATTEMPTS {
            match self.run(session, &request, target, &mut credentials, wishes) {
                Ran::Conflict => {}
                Ran::Full => return Attempt::Full(request),
                Ran::Behind => return Attempt::Behind(request),
                Ran::Forward => return Attempt::Answered(self.forward(session, request)),
                Ran::Refused(response) => return Attempt::Answered(Reply::Now(response)),
                Ran::Historical => {
                    let session = session.clone();
                    let reply = self.when_known(&session.clone(), wishes, move |shared| {
                        shared.historical(&session, request, target)
                    });
                    return Attempt::Answered(reply);
                }
                Ran::Done(response, placed) => {
                    let pipeline = self.node.pipeline();
                    return Attempt::Answered(wait::reply(pipeline, wishes, response, placed));
                }
            }
        }
        Attempt::Answered(Reply::Now(too_many_conflicts()))
    }

    fn when_there_is_room(
        self: &Arc<Self>,
        session: Arc<Session>,
        mut request: Request,
        target: Target,
        wishes: Wishes,
    ) -> Reply {
        let this = self.clone();
        Reply::Later(Box::pin(async move {
            let mut patience = this.node.host().sleep(PATIENCE);
            loop {
                tokio::select! {
                    () = this.node.pipeline().more_committed() => {}
                    () = &mut patience => return try_again(&not_committed(CommitError::TooManyPending)),
                }
                match this.attempt(&session, request, target, wishes) {
                    Attempt::Answered(reply) => return reply.given().await,
                    Attempt::Full(again) | Attempt::Behind(again) => request = again,
                }
            }
        }))
    }

    /// One execution, from a new snapshot to the commit point.
    fn run(
        &self,
        session: &Session,
        request: &Request,
        target: Target,
        credentials: &mut Credentials<'_>,
        wishes: Wishes,
    ) -> Ran {
        let mut tx = self.node.pipeline().store().begin();
        let lags = match self.lags(session, &tx) {
            Ok(lags) => lags,
            Err(refusal) => return refusal.into(),
        };
        let adapter = self.adapter(target.frontend);
        let matched = match find(adapter, &mut tx, request, target) {
            Ok(matched) => matched,
            // The session may know of an endpoint that is not here yet.
            Err(response) if lags => {
                let unknown = EndpointProperties::default();
                let elsewhere = self.sent_elsewhere(session, request, &unknown, lags);
                return elsewhere.unwrap_or(Ran::Refused(*response));
            }
            Err(response) => return Ran::Refused(*response),
        };
        let properties = matched.properties.clone();
        if let Some(elsewhere) = self.sent_elsewhere(session, request, &properties, lags) {
            return elsewhere;
        }
        if properties.mode == Mode::Historical {
            return Ran::Historical;
        }
        if wishes.lag() {
            return Ran::Behind;
        }
        let caller = match self.authenticate(session, &matched, credentials, &mut tx) {
            Ok(caller) => caller,
            Err(response) => return Ran::Refused(*response),
        };
        let mut call = Call {
            request,
            matched: &matched,
            caller: &caller,
            tx: &mut tx,
            historical: None,
            environment: self.node.environment(),
            outcome: Outcome::default(),
        };
        let response = execute(adapter.as_ref(), &mut call);
        let outcome = call.outcome;
        let mut response = acceptable(target.frontend, request, response);
        let applies = outcome.apply_writes.unwrap_or(response.status().is_success());
        if !applies {
            tx.discard_writes();
        }
        if properties.mode == Mode::ReadOnly && tx.has_writes() {
            return ErrorResponse::internal("The endpoint is read-only, but it has written.")
                .into();
        }
        let waits = wishes.committed || properties.waits_for_commit;
        let placed = match Placed::commit(self.node.pipeline(), tx, &outcome, waits) {
            Ok(placed) => placed,
            Err(CommitError::Conflict) => return Ran::Conflict,
            Err(CommitError::TooManyPending) => return Ran::Full,
            Err(CommitError::NotPrimary) => {
                return self.not_written(session, request, &properties);
            }
            Err(error) => return not_committed(error).into(),
        };
        session.memory.lock().note(placed.tx_id);
        name_transaction(&mut response, placed.tx_id);
        Ran::Done(response, placed)
    }

    fn credentials<'a>(&self, session: &'a Session, request: &'a Request) -> Credentials<'a> {
        let now_ms = self.node.environment().now_ms();
        Credentials::new(request, session.peer.as_ref(), now_ms)
    }

    fn authenticate(
        &self,
        session: &Session,
        matched: &Matched,
        credentials: &mut Credentials<'_>,
        tx: &mut Tx,
    ) -> Result<Arc<Caller>, Box<Response>> {
        let remembered = &mut session.memory.lock().remembered;
        let policies = &matched.properties.authn_policies;
        self.authenticator.authenticate(policies, credentials, remembered, tx)
    }

    fn adapter(&self, frontend: Frontend) -> &Arc<dyn Endpoints> {
        match frontend {
            Frontend::Node => &self.node_frontend,
            Frontend::Governance => self.node.governance(),
            Frontend::App => self.node.app(),
        }
    }

    fn check_open(&self, frontend: Frontend) -> Result<(), ErrorResponse> {
        // A node that is up is part of the network, so that governance is open as well.
        if frontend != Frontend::App || self.is_app_open() {
            return Ok(());
        }
        Err(ErrorResponse::not_found(ErrorCode::FrontendNotOpen, "Frontend is not open."))
    }

    /// The app frontend opens when the members' decision to open the service is committed.
    fn is_app_open(&self) -> bool {
        if self.app_is_open.load(Ordering::Acquire) {
            return true;
        }
        let open = is_app_open(&self.node);
        self.app_is_open.fetch_or(open, Ordering::AcqRel);
        open
    }
}

/// The service's status, once it is committed.
pub(crate) fn committed_status(node: &Node) -> Option<ServiceStatus> {
    let pipeline = node.pipeline();
    let committed = pipeline.last_committed().seqno;
    let mut tx = pipeline.store().begin();
    let info = SERVICE_INFO.get(&mut tx).ok()??;
    (SERVICE_INFO.version(&mut tx)? <= committed).then_some(info.status)
}

/// Whether the service is open, and that is committed.
pub(crate) fn is_app_open(node: &Node) -> bool {
    // What is answered before a recovery is complete may be lost with it.
    !node.pipeline().is_recovering() && committed_status(node) == Some(ServiceStatus::Open)
}

fn find(
    adapter: &Arc<dyn Endpoints>,
    tx: &mut Tx,
    request: &Request,
    target: Target,
) -> Result<Matched, Box<Response>> {
    let (method, path) = (request.method(), target.path(request));
    match adapter.find(tx, method, path) {
        Find::Endpoint(matched) => Ok(matched),
        Find::Failed(error) => Err(Box::new(error.to_response())),
        Find::UnknownPath => Err(Box::new(unknown_path(request))),
        Find::WrongVerb(verbs) => Err(Box::new(wrong_verb(request, &verbs))),
    }
}

/// 404 for a path that nobody serves.
pub(crate) fn unknown_path(request: &Request) -> Response {
    let message = format!("Unknown path: {}.", request.uri().path());
    ErrorResponse::not_found(ErrorCode::ResourceNotFound, message).to_response()
}

/// 405, or the answer to OPTIONS: which verbs a path has.
pub(crate) fn wrong_verb(request: &Request, verbs: &[Method]) -> Response {
    let mut allowed: Vec<&str> = verbs.iter().map(Method::as_str).collect();
    allowed.push(Method::OPTIONS.as_str());
    allowed.sort_unstable();
    allowed.dedup();
    let allowed = allowed.join(", ");
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        let (verb, path) = (request.method(), request.uri().path());
        let message = format!("Verb {verb} is not supported for {path}: {allowed} are.");
        let status = StatusCode::METHOD_NOT_ALLOWED;
        ErrorResponse::new(status, ErrorCode::UnsupportedHttpVerb, message).to_response()
    };
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// Executes; what may run long moves out of the way of other sessions, if the runtime can.
fn execute(adapter: &dyn Endpoints, call: &mut Call<'_>) -> Response {
    let multi_threaded = || {
        tokio::runtime::Handle::try_current().is_ok_and(|runtime| {
            runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread
        })
    };
    let result = if call.matched.properties.long_running && multi_threaded() {
        tokio::task::block_in_place(|| adapter.execute(call))
    } else {
        adapter.execute(call)
    };
    result.unwrap_or_else(|error| error.to_response())
}

/// CCF's own JSON endpoints refuse to answer a client that does not want JSON.
fn acceptable(frontend: Frontend, request: &Request, response: Response) -> Response {
    if frontend == Frontend::App || !response.status().is_success() || accepts_json(request) {
        return response;
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if content_type.is_none_or(|value| value != "application/json") {
        return response;
    }
    not_acceptable()
}

/// 406.
pub(crate) fn not_acceptable() -> Response {
    let message = "No supported MIME type in the accept header: only application/json is.";
    let status = StatusCode::NOT_ACCEPTABLE;
    ErrorResponse::new(status, ErrorCode::UnsupportedContentType, message).to_response()
}

/// Whether the accept header admits JSON.
pub(crate) fn accepts_json(request: &Request) -> bool {
    let mut values = request.headers().get_all(header::ACCEPT).iter().peekable();
    values.peek().is_none()
        || values.filter_map(|value| value.to_str().ok()).any(|value| {
            value.split(',').any(|range| {
                let range = range.split(';').next().unwrap_or_default().trim();
                matches!(range, "*/*" | "application/*" | "application/json")
            })
        })
}

fn name_transaction(response: &mut Response, tx_id: TxId) {
    if let Ok(value) = HeaderValue::try_from(tx_id.to_string()) {
        response.headers_mut().insert(TRANSACTION_ID, value);
    }
}

/// A refusal that says when to come back.
fn try_again(refusal: &ErrorResponse) -> Response {
    let mut response = refusal.to_response();
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

fn too_many_conflicts() -> Response {
    let message = format!("Transaction continued to conflict after {MAX_ATTEMPTS} attempts.");
    let code = ErrorCode::TransactionCommitAttemptsExceedLimit;
    try_again(&ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, code, message))
}

fn not_committed(error: CommitError) -> ErrorResponse {
    let code = match error {
        CommitError::TooManyPending => ErrorCode::TooManyPendingTransactions,
        CommitError::Conflict => ErrorCode::TransactionCommitAttemptsExceedLimit,
        CommitError::NotPrimary | CommitError::Stopped => ErrorCode::TransactionReplicationFailed,
        CommitError::TooLarge { .. } | CommitError::Detached => {
            return ErrorResponse::internal(format!("{error}."));
        }
    };
    ErrorResponse::new(StatusCode::SERVICE_UNAVAILABLE, code, format!("{error}."))
}
