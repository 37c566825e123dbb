//! Ethereum as the enclave sees it: an adapter over the seam (`coco_adapter`), with JSON-RPC on its
//! interface and a block in each batch.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use alloy_genesis::Genesis;
use alloy_primitives::B256;
use bytes::Bytes;
use coco_adapter::{
    Adapter, AdapterError, Batch, BoxFuture, Caller, Client, CommitError, Conversation,
    ForwardError, Held, Outcome, Protocol, Request, Response,
};
use coco_crypto::{Digest, sha256};
use coco_kv::{Seqno, Tx, TxId};
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::rpc::{Rpc, Session};
use crate::{
    Chain, ChainOptions, ChainTerms, CommitRefusal, ForwardRefusal, ImportError, ImportedBlock,
    Node, StateError,
};

/// A batch with an Ethereum transaction is cut this long after it at the latest, for those who wait
/// for blocks; at once for whoever asks for a receipt.
const CUT_WITHIN: Duration = Duration::from_millis(5);

/// What a new chain begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The first block.
    pub genesis: Genesis,
    /// What the consortium chose.
    pub options: ChainOptions,
}

/// How long the primary has for an answer.
const FORWARD_PATIENCE: Duration = Duration::from_secs(30);

/// The adapter: one chain of one node.
pub struct Ethereum {
    origin: Origin,
    /// Since the node has started.
    running: OnceLock<Running>,
}

/// Where the chain comes from.
enum Origin {
    /// It begins with the service.
    Begun(Setup),
    /// It is on the ledger.
    Ledger,
    /// The service that the node joins may have it, and must if the node is to serve it. It is to be
    /// what the configuration says, if that says anything.
    Joined { setup: Option<Setup>, is_served: bool },
}

struct Running {
    rpc: Arc<Rpc>,
    node: Arc<dyn coco_adapter::Node>,
}

impl Ethereum {
    /// The adapter's name.
    pub const NAME: &'static str = "ethereum";

    /// An adapter that begins a chain as `setup` says, or without it goes on with the ledger's.
    pub fn new(setup: Option<Setup>) -> Self {
        Self::of(setup.map_or(Origin::Ledger, Origin::Begun))
    }

    /// An adapter of a node that joins a service: it takes up the service's chain, if there is one,
    /// as there must be if an interface of the node serves it. `setup` is what the node's
    /// configuration says of the chain: any other is refused.
    pub fn joining(setup: Option<Setup>, is_served: bool) -> Self {
        Self::of(Origin::Joined { setup, is_served })
    }

    fn of(origin: Origin) -> Self {
        Self { origin, running: OnceLock::new() }
    }

    /// The methods, once the node has started.
    pub fn rpc(&self) -> Option<&Arc<Rpc>> {
        self.running.get().map(|running| &running.rpc)
    }

    /// What the chain's own transactions need of the node, once it has started.
    pub fn node(&self) -> Option<&Arc<dyn coco_adapter::Node>> {
        self.running.get().map(|running| &running.node)
    }

    /// Takes over a block that was made elsewhere and follows the head, in a transaction of its own
    /// whose claims are SHA-256 of the block's hash. Returns its position once it is executed.
    pub async fn import(&self, block: &ImportedBlock) -> Result<TxId, ImportError> {
        let Some(Running { rpc, node }) = self.running.get() else {
            return Err(ImportError::State(StateError::NoGenesis));
        };
        loop {
            let mut tx = node.begin();
            let hash = rpc.chain().import(&mut tx, block)?;
            let claims = Some(sha256(hash.as_slice()));
            match node.commit(tx, &Outcome { claims, ..Outcome::default() }) {
                Ok(tx_id) => return Ok(tx_id),
                // Somebody else was faster, and the block may no longer follow.
                Err(CommitError::Conflict) => {}
                Err(CommitError::TooManyPending) => node.more_committed().await,
                Err(error) => return Err(ImportError::NotCommitted(error)),
            }
        }
    }

    /// The chain of the ledger: begun by now, or found there. None if it has none and need not.
    fn chain(&self, tx: &mut Tx) -> Result<Option<Chain>, AdapterError> {
        let broken = |error: crate::GenesisError| AdapterError(error.to_string());
        match (&self.origin, Chain::load(tx).map_err(broken)?) {
            (Origin::Begun(Setup { genesis, options }), None) => {
                let begun = Chain::begin(tx, genesis, options.clone()).map_err(broken);
                begun.map(|(chain, _)| Some(chain))
            }
            (Origin::Begun(_), Some(_)) => {
                Err(AdapterError("this service has a chain already".to_owned()))
            }
            (Origin::Joined { setup: Some(Setup { genesis, options }), .. }, Some(chain)) => {
                let terms = ChainTerms::new(genesis, options).map_err(broken)?;
                chain.check(tx, &terms).map_err(broken)?;
                Ok(Some(chain))
            }
            (Origin::Ledger | Origin::Joined { .. }, Some(chain)) => Ok(Some(chain)),
            (Origin::Joined { setup: None, is_served: false }, None) => Ok(None),
            (Origin::Ledger | Origin::Joined { .. }, None) => Err(no_chain()),
        }
    }
}

impl Adapter for Ethereum {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn committed(&self, _last: TxId) {
        let Some(rpc) = self.rpc() else { return };
        // What cannot be read is not announced; whoever asks for it gets the error.
        let _ = rpc.committed();
        let again = rpc.overtaken();
        if !again.is_empty() {
            let rpc = Arc::clone(rpc);
            tokio::spawn(async move { rpc.send_again(again).await });
        }
    }
}

impl Protocol for Ethereum {
    fn start(&self, tx: &mut Tx, node: Arc<dyn coco_adapter::Node>) -> Result<(), AdapterError> {
        let Some(chain) = self.chain(tx)? else { return Ok(()) };
        let chain = Arc::new(chain);
        let local = Local(Arc::clone(&node));
        let rpc = Arc::new(Rpc::new(chain, Arc::new(local)));
        let twice = || AdapterError("started twice".to_owned());
        self.running.set(Running { rpc, node }).map_err(|_| twice())
    }

    fn demands(&self) -> Option<Json> {
        let Origin::Joined { setup, is_served } = &self.origin else { return None };
        let terms = setup.as_ref().and_then(|Setup { genesis, options }| {
            // A genesis that cannot be written is found out when it is compared.
            ChainTerms::new(genesis, options).ok()
        });
        let demands = (*is_served || terms.is_some()).then_some(Demands { terms })?;
        serde_json::to_value(demands).ok()
    }

    fn admit(&self, tx: &mut Tx, demands: &Json) -> Result<(), AdapterError> {
        let Demands { terms } = Demands::deserialize(demands)
            .map_err(|error| AdapterError(format!("what is demanded is not readable: {error}")))?;
        let rpc = self.rpc().ok_or_else(no_chain)?;
        match terms {
            Some(terms) => {
                let checked = rpc.chain().check(tx, &terms);
                checked.map_err(|error| AdapterError(error.to_string()))
            }
            None => Ok(()),
        }
    }

    fn hold(&self) -> Box<dyn Held + '_> {
        match self.rpc() {
            Some(rpc) => Box::new(rpc.chain().hold()),
            None => Box::new(()),
        }
    }

    fn seal(&self, tx: &mut Tx, batch: Batch) -> Result<(), AdapterError> {
        let Some(rpc) = self.rpc() else { return Ok(()) };
        let sealed = rpc.chain().seal(tx, batch.last);
        sealed.map(drop).map_err(|error| AdapterError(error.to_string()))
    }

    fn taken_back(&self, tx: &mut Tx, to: Seqno) {
        // What cannot be read cannot be sent again: as if the node had died.
        let _ = self.rpc().map(|rpc| rpc.taken_back(tx, to));
    }

    fn answer_forwarded(&self, message: Bytes) -> BoxFuture<'static, Result<Bytes, AdapterError>> {
        let Some(rpc) = self.rpc().cloned() else {
            let refusal = AdapterError("the chain is not here yet".to_owned());
            return Box::pin(std::future::ready(Err(refusal)));
        };
        Box::pin(async move {
            let answer = rpc.answer_forwarded(&message).await;
            answer.map(Bytes::from).map_err(AdapterError)
        })
    }

    fn handle(&self, client: &Client, request: Request) -> BoxFuture<'static, Response> {
        let rpc = match (self.rpc(), not_json_rpc(&request)) {
            (Some(rpc), None) => Arc::clone(rpc),
            (_, Some(response)) => return Box::pin(std::future::ready(response)),
            (None, None) => {
                return Box::pin(std::future::ready(empty(StatusCode::SERVICE_UNAVAILABLE)));
            }
        };
        let (participant, limits) = (participant(&client.caller), client.limits);
        let body = request.into_body();
        Box::pin(async move { to_response(rpc.serve(participant, limits, &body).await) })
    }

    fn converse(&self, client: &Client) -> Option<Arc<dyn Conversation>> {
        let rpc = Arc::clone(self.rpc()?);
        let session = Session::new(&rpc);
        let session = Arc::new(match participant(&client.caller) {
            Some(participant) => session.of_participant(participant),
            None => session,
        });
        Some(Arc::new(Subscriber { rpc, session }))
    }
}

/// What a node that joins wants of the service's chain.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Demands {
    /// It is this one; any, if the node's configuration does not say.
    terms: Option<ChainTerms>,
}

fn no_chain() -> AdapterError {
    let text = "this service has no chain: one begins with command.type Start only";
    AdapterError(text.to_owned())
}

fn to_response(reply: Option<Vec<u8>>) -> Response {
    let mut response = Response::new(reply.unwrap_or_default().into());
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The participant that calls, for whom the node keeps an account.
fn participant(caller: &Caller) -> Option<Digest> {
    match caller {
        Caller::UserCert { id, .. } | Caller::UserCose { id, .. } => Some(*id),
        _ => None,
    }
}

/// The answer to an HTTP request that carries no JSON-RPC, in geth's way.
fn not_json_rpc(request: &Request) -> Option<Response> {
    match *request.method() {
        Method::POST if has_json(request) => None,
        Method::POST => Some(empty(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
        // Whether anybody is there, as load balancers ask.
        Method::GET | Method::HEAD if request.body().is_empty() => Some(empty(StatusCode::OK)),
        _ => {
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            Some(response)
        }
    }
}

/// Web pages can send other types without being let in first.
fn has_json(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ["application/json", "application/json-rpc", "application/jsonrequest"]
        .contains(&essence.as_str())
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// A WebSocket with its subscriptions.
struct Subscriber {
    rpc: Arc<Rpc>,
    session: Arc<Session>,
}

impl Conversation for Subscriber {
    fn receive(&self, client: &Client, message: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        let (rpc, session) = (Arc::clone(&self.rpc), Arc::clone(&self.session));
        let limits = client.limits;
        Box::pin(async move { session.serve(&rpc, limits, &message).await.map(Bytes::from) })
    }

    fn next(&self) -> BoxFuture<'static, Option<Vec<Bytes>>> {
        let (rpc, session) = (Arc::clone(&self.rpc), Arc::clone(&self.session));
        Box::pin(async move {
            let messages = session.serve_next(&rpc).await?;
            Some(messages.into_iter().map(Bytes::from).collect())
        })
    }
}

/// The seam as the methods use it.
struct Local(Arc<dyn coco_adapter::Node>);

impl Node for Local {
    fn begin(&self) -> Tx {
        self.0.begin()
    }

    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, CommitRefusal> {
        let outcome = Outcome { claims: Some(claims), ..Outcome::default() };
        let committed = self.0.commit(tx, &outcome).map_err(|error| match error {
            CommitError::Conflict => CommitRefusal::Conflict,
            CommitError::TooManyPending => CommitRefusal::Busy,
            CommitError::TooLarge { bytes, .. } => CommitRefusal::TooLarge { bytes },
            CommitError::NotPrimary | CommitError::Stopped | CommitError::Detached => {
                CommitRefusal::Unavailable
            }
        })?;
        self.0.cut_within(CUT_WITHIN);
        Ok(committed)
    }

    fn is_primary(&self) -> bool {
        self.0.is_primary()
    }

    fn forward(&self, message: Bytes) -> BoxFuture<'static, Result<Bytes, ForwardRefusal>> {
        let answer = self.0.forward(Ethereum::NAME, message, FORWARD_PATIENCE);
        Box::pin(async move {
            answer.await.map_err(|error| match error {
                ForwardError::NoPrimary | ForwardError::TooMany => ForwardRefusal::NotNow,
                ForwardError::TooLarge { bytes, .. } => ForwardRefusal::TooLarge { bytes },
                ForwardError::Refused(reason) => ForwardRefusal::Refused(reason),
                ForwardError::Unknown => ForwardRefusal::Unknown,
            })
        })
    }

    fn last_committed(&self) -> TxId {
        self.0.last_committed()
    }

    fn wait_committed(&self, position: Seqno) -> BoxFuture<'static, ()> {
        let Some(view) = self.0.view_for_seqno(position) else {
            return Box::pin(std::future::ready(()));
        };
        self.wait_for(TxId { view, seqno: position })
    }

    fn wait_for(&self, tx_id: TxId) -> BoxFuture<'static, ()> {
        let committed = self.0.wait_committed(tx_id);
        Box::pin(async move {
            committed.await;
        })
    }

    fn receipt(
        &self,
        position: Seqno,
    ) -> Pin<Box<dyn Future<Output = Option<serde_json::Value>> + Send + '_>> {
        Box::pin(async move {
            let view = self.0.view_for_seqno(position)?;
            let receipt = self.0.receipt(TxId { view, seqno: position }).await.ok()?;
            serde_json::from_str(&receipt.to_json()).ok()
        })
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn randomness(&self) -> B256 {
        let mut random = B256::ZERO;
        self.0.entropy().fill(&mut random.0);
        random
    }

    fn sleep(&self, milliseconds: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.sleep(Duration::from_millis(milliseconds))
    }

    fn offload(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        self.0.offload(work)
    }
}
