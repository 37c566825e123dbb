//! Ethereum's JSON-RPC: bytes in, bytes out.
//!
//! [`Rpc::handle`] answers a request or a batch as it came from HTTP; a [`Session`] does the same
//! for a WebSocket and carries its subscriptions. Both know nothing of transports.

mod about;
mod accounts;
mod blocks;
mod call;
mod debug;
mod envelope;
mod error;
mod fees;
mod filters;
mod forward;
mod logs;
mod news;
mod offload;
mod params;
mod portions;
mod recover;
mod send;
mod simulate;
mod state;
mod subscribe;
mod transfers;
mod view;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use coco_adapter::Limits;
use coco_crypto::Digest;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::runtime::Handle;

use crate::{Chain, Head, Node, Outbox, Pool};

pub use error::RpcError;
pub use params::Params;
pub use subscribe::Session;

use filters::Filters;
use forward::Call;
use news::News;
use offload::timed_out;
use recover::{Ahead, Recovered, Recoveries};

/// A result of a method.
pub type Answer = Result<Json, RpcError>;

/// The methods over one chain of one node.
pub struct Rpc {
    chain: Arc<Chain>,
    node: Arc<dyn Node>,
    pool: Pool,
    outbox: Outbox,
    filters: Filters,
    news: News,
    /// Threads that find out who signed what is sent.
    recoveries: Arc<Recoveries>,
}

/// Who asks, over what, and what is left of time and room for an answer.
#[derive(Clone, Copy)]
struct Asker<'a> {
    session: Option<&'a Session>,
    /// For other threads, which answer what may take long; without it, this one does.
    shared: Option<&'a Arc<Rpc>>,
    participant: Option<Digest>,
    limits: Limits,
    /// Whether what does not come may still be waited for: once for all requests of a message.
    waits: &'a Arc<AtomicBool>,
    deadline_ms: u64,
    /// Bytes of the reply, or of what a method answers.
    room: usize,
}

/// A request, or why it is none.
struct Asked {
    /// For a reply; none to a notification.
    id: Option<Json>,
    call: Result<Call, RpcError>,
}

impl Asked {
    fn of(request: Json) -> Self {
        let id = request.get("id").cloned().unwrap_or_default();
        let invalid =
            |id| Self { id: Some(id), call: Err(RpcError::invalid_request("invalid request")) };
        let Ok(request) = Request::deserialize(request) else { return invalid(id) };
        if request.jsonrpc.as_deref() != Some("2.0") {
            return invalid(id);
        }
        let method = request.method;
        let call = Params::new(request.params).map(|params| Call { method, params });
        Self { id: request.id, call }
    }
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    jsonrpc: Option<String>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Json>,
    method: String,
    #[serde(default)]
    params: Option<Json>,
}

/// An `id` of null is an id; one that is missing makes a notification.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

impl Rpc {
    /// What a request may hold and ask for where no interface says otherwise.
    pub const LIMITS: Limits = Limits {
        max_message_bytes: 5 * 1024 * 1024,
        max_batch_requests: 1000,
        max_reply_bytes: 32 * 1024 * 1024,
    };

    /// How long the requests of a message may take together; geth's time.
    const MESSAGE_MS: u64 = 30_000;

    /// The methods over `chain`.
    pub fn new(chain: Arc<Chain>, node: Arc<dyn Node>) -> Self {
        let head = Head::at(&mut node.begin(), node.committed()).ok().flatten();
        let news = News::new(head.map_or(0, |head| head.number));
        let (pool, outbox, filters) = Default::default();
        // As many as the node's own.
        let workers = Handle::try_current().map_or(0, |runtime| runtime.metrics().num_workers());
        let recoveries = Arc::new(Recoveries::new(workers));
        Self { chain, node, pool, outbox, filters, news, recoveries }
    }

    /// The chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The transactions that wait.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The transactions that were sent here and are in no committed block yet, on a backup.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Answers a request or a batch. `None` if nothing in it wants an answer.
    pub async fn handle(&self, body: &[u8]) -> Option<Vec<u8>> {
        self.handle_for(None, Self::LIMITS, body).await
    }

    /// [`handle`](Self::handle) for a participant whom the interface has authenticated.
    pub async fn handle_for(
        &self,
        participant: Option<Digest>,
        limits: Limits,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        self.handle_with(body, None, None, participant, limits).await
    }

    /// The same for one client of many: what may take long is answered where it holds up no other.
    pub async fn serve(
        self: &Arc<Self>,
        participant: Option<Digest>,
        limits: Limits,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        self.handle_with(body, None, Some(self), participant, limits).await
    }

    async fn handle_with(
        &self,
        body: &[u8],
        session: Option<&Session>,
        shared: Option<&Arc<Self>>,
        participant: Option<Digest>,
        limits: Limits,
    ) -> Option<Vec<u8>> {
        let refuse = |error: RpcError| refusal(Some(Json::Null), &error);
        if body.len() > limits.max_message_bytes {
            return refuse(RpcError::invalid_request("request too large"));
        }
        let waits = &Arc::new(AtomicBool::new(true));
        let deadline_ms = self.node.now_ms().saturating_add(Self::MESSAGE_MS);
        let room = limits.max_reply_bytes;
        let asker = Asker { session, shared, participant, limits, waits, deadline_ms, room };
        match serde_json::from_slice(body) {
            Err(error) => refuse(RpcError::parse(format!("parse error: {error}"))),
            Ok(Json::Array(requests)) if requests.is_empty() => {
                refuse(RpcError::invalid_request("empty batch"))
            }
            Ok(Json::Array(requests)) if requests.len() > limits.max_batch_requests => {
                refuse(RpcError::invalid_request("batch too large"))
            }
            // What is seldom awaited is in boxes, or its room would be moved with every request.
            Ok(Json::Array(requests)) => Box::pin(self.handle_batch(requests, asker)).await,
            Ok(request) => {
                let asked = Asked::of(request);
                let id = asked.id.clone();
                let recovered = self.recover_ahead(std::slice::from_ref(&asked)).next(0).await;
                let reply = self.reply_to(asked, asker, recovered).await?;
                if reply.len() <= room { Some(reply) } else { refusal(id, &too_large()) }
            }
        }
    }

    /// Answers the requests of a batch in their order. When the time is over, or a reply does not
    /// fit, the rest is refused, as by geth.
    async fn handle_batch(&self, requests: Vec<Json>, asker: Asker<'_>) -> Option<Vec<u8>> {
        let requests: Vec<Asked> = requests.into_iter().map(Asked::of).collect();
        let mut answered = self.answered_by_primary(&requests, asker.participant).await;
        let mut ahead = self.recover_ahead(&requests);
        let mut replies = Vec::new();
        let mut refused: Option<RpcError> = None;
        let mut turn_ms = self.node.now_ms();
        for (index, asked) in requests.into_iter().enumerate() {
            let now_ms = self.take_turns(&mut turn_ms).await;
            if refused.is_none() && now_ms >= asker.deadline_ms {
                refused = Some(timed_out());
            }
            let id = asked.id.clone();
            // What the primary has executed is said, however late it is.
            let known = answered.remove(&index);
            let reply = if let Some(error) = refused.as_ref().filter(|_| known.is_none()) {
                refusal(id, error)
            } else {
                // Beside the comma and the bracket.
                let room = asker.room.saturating_sub(replies.len() + 2);
                let recovered = ahead.next(index).await;
                let reply = match known {
                    Some(answer) => asked.id.map(|id| to_bytes(&reply(id, answer))),
                    None => self.reply_to(asked, Asker { room, ..asker }, recovered).await,
                };
                if reply.as_ref().is_none_or(|reply| reply.len() <= room) {
                    reply
                } else {
                    refusal(id, refused.insert(too_large()))
                }
            };
            if let Some(reply) = reply {
                replies.push(if replies.is_empty() { b'[' } else { b',' });
                replies.extend_from_slice(&reply);
            }
        }
        if replies.is_empty() {
            return None;
        }
        replies.push(b']');
        Some(replies)
    }

    /// Recovers the senders of the transactions among these on other threads, if they are to be
    /// executed here.
    fn recover_ahead(&self, requests: &[Asked]) -> Ahead {
        if !self.node.is_primary() {
            return Ahead::default();
        }
        Ahead::of(requests.iter().map(|asked| asked.call.as_ref().ok()), &self.recoveries)
    }

    /// The reply to a request, by this thread or another; none to a notification.
    async fn reply_to(
        &self,
        asked: Asked,
        asker: Asker<'_>,
        recovered: Option<Recovered>,
    ) -> Option<Vec<u8>> {
        let is_long = |call: &Call| self.is_long(call, asker.participant);
        match asker.shared {
            Some(shared) if asked.call.as_ref().is_ok_and(is_long) => {
                Box::pin(shared.reply_offloaded(asked, asker)).await
            }
            _ => self.reply_here(asked, asker, recovered).await,
        }
    }

    async fn reply_here(
        &self,
        asked: Asked,
        asker: Asker<'_>,
        recovered: Option<Recovered>,
    ) -> Option<Vec<u8>> {
        let room = asker.room.saturating_sub(bytes_around(asked.id.as_ref()));
        let answer = match asked.call {
            Ok(call) => self.call(&call, Asker { room, ..asker }, recovered).await,
            Err(error) => Err(error),
        };
        asked.id.map(|id| to_bytes(&reply(id, answer)))
    }

    /// Answers here, or has the primary answer what only that can.
    async fn call(&self, call: &Call, asker: Asker<'_>, recovered: Option<Recovered>) -> Answer {
        if self.has_to_forward(call, asker.participant) {
            return Box::pin(self.ask_primary(call.clone(), asker.participant)).await;
        }
        match self.call_here(call, asker, recovered).await {
            // It was the primary until just now.
            Err(error) if error.code == RpcError::UNAVAILABLE && !self.node.is_primary() => {
                Box::pin(self.ask_primary(call.clone(), asker.participant)).await
            }
            answer => answer,
        }
    }

    async fn call_here(
        &self,
        call: &Call,
        asker: Asker<'_>,
        recovered: Option<Recovered>,
    ) -> Answer {
        let Call { method, params } = call;
        let method = method.as_str();
        match (method, asker.session) {
            ("eth_sendRawTransaction", _) => {
                to_json(&self.send_raw_transaction(params, recovered).await?.hash)
            }
            ("eth_getTransactionReceipt", _) => {
                Box::pin(self.transaction_receipt(params, asker.waits)).await
            }
            ("coco_getReceipt", _) => Box::pin(self.ledger_receipt(params)).await,
            ("eth_sendRawTransactionSync", _) => {
                Box::pin(self.send_raw_transaction_sync(params)).await
            }
            ("eth_accounts" | "eth_sendTransaction" | "eth_signTransaction" | "eth_sign", _) => {
                Box::pin(self.for_participant(asker.participant, method, params)).await
            }
            ("eth_getLogs", _) => self.logs(params, asker.room),
            ("eth_getFilterChanges", _) => self.filter_changes(params, asker.room),
            ("eth_getFilterLogs", _) => self.filter_logs(params, asker.room),
            ("eth_subscribe", Some(session)) => session.subscribe(self, params),
            ("eth_unsubscribe", Some(session)) => session.unsubscribe(params),
            ("eth_subscribe" | "eth_unsubscribe", None) => {
                Err(RpcError::new(-32601, "notifications not supported"))
            }
            _ => self.answer(method, params),
        }
    }

    /// Runs a method that needs neither time nor a session, within [`LIMITS`](Self::LIMITS).
    pub fn answer(&self, method: &str, params: &Params) -> Answer {
        match method {
            "web3_clientVersion" => Ok(json!(concat!("coco/v", env!("CARGO_PKG_VERSION")))),
            "web3_sha3" => self.sha3(params),
            "net_version" => Ok(json!(self.chain.rules().chain_id().to_string())),
            "net_listening" => Ok(json!(true)),
            "net_peerCount" => Ok(json!("0x0")),
            "rpc_modules" => Ok(json!({
                "eth": "1.0", "net": "1.0", "web3": "1.0", "txpool": "1.0", "debug": "1.0",
                "coco": "1.0", "rpc": "1.0"
            })),
            "eth_chainId" => Ok(quantity(self.chain.rules().chain_id())),
            "eth_protocolVersion" => Ok(json!("0x44")),
            "eth_syncing" | "eth_mining" => Ok(json!(false)),
            "eth_hashrate" => Ok(json!("0x0")),
            "eth_coinbase" => Ok(json!(alloy_primitives::Address::ZERO)),
            "eth_config" => self.config(),
            "eth_capabilities" => self.capabilities(),

            "eth_blockNumber" => self.block_number(),
            "eth_getBlockByNumber" => self.block_by_number(params),
            "eth_getBlockByHash" => self.block_by_hash(params),
            "eth_getHeaderByNumber" => self.header_by_number(params),
            "eth_getHeaderByHash" => self.header_by_hash(params),
            "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
                self.block_transaction_count(params)
            }
            "eth_getUncleCountByBlockNumber" | "eth_getUncleCountByBlockHash" => {
                self.ommer_count(params)
            }
            "eth_getUncleByBlockNumberAndIndex" | "eth_getUncleByBlockHashAndIndex" => {
                self.ommer(params)
            }
            "eth_getBlockReceipts" => self.block_receipts(params),
            "eth_getTransactionByHash" => self.transaction_by_hash(params),
            "eth_getTransactionByBlockHashAndIndex" | "eth_getTransactionByBlockNumberAndIndex" => {
                self.transaction_by_index(params)
            }
            "eth_getRawTransactionByHash" => self.raw_transaction(params),

            "coco_transactionStatus" => self.transaction_status(params),

            "eth_getBalance" => self.balance(params),
            "eth_getTransactionCount" => self.transaction_count(params),
            "eth_getCode" => self.code(params),
            "eth_getStorageAt" => self.storage_at(params),
            "eth_getStorageValues" => self.storage_values(params),
            "eth_getProof" => self.proof(params),
            "eth_getAccountInfo" => self.account_info(params),

            "eth_call" => self.eth_call(params),
            "eth_estimateGas" => self.estimate_gas(params),
            "eth_createAccessList" => self.create_access_list(params),
            "eth_simulateV1" => self.simulate(params),

            "eth_gasPrice" => self.gas_price(),
            "eth_maxPriorityFeePerGas" => self.max_priority_fee(),
            "eth_feeHistory" => self.fee_history(params),
            "eth_baseFee" => self.base_fee(),
            "eth_blobBaseFee" => self.blob_base_fee(),

            "eth_fillTransaction" => self.fill_transaction(params),
            "txpool_status" => self.txpool_status(),
            "txpool_content" => self.txpool_content(None),
            "txpool_contentFrom" => self.txpool_content(Some(params.required(0)?)),
            "txpool_inspect" => self.txpool_inspect(),

            "eth_getLogs" => self.logs(params, Self::LIMITS.max_reply_bytes),
            "eth_getFilterChanges" => self.filter_changes(params, Self::LIMITS.max_reply_bytes),
            "eth_getFilterLogs" => self.filter_logs(params, Self::LIMITS.max_reply_bytes),
            "eth_newFilter" => self.new_filter(params),
            "eth_newBlockFilter" => self.new_block_filter(),
            "eth_newPendingTransactionFilter" => self.new_pending_filter(params),
            "eth_uninstallFilter" => self.uninstall_filter(params),

            "debug_getRawHeader" => self.raw_header(params),
            "debug_getRawBlock" => self.raw_block(params),
            "debug_getRawReceipts" => self.raw_receipts(params),
            "debug_getRawTransaction" => self.raw_transaction(params),
            "debug_getBadBlocks" => Ok(json!([])),
            "debug_traceTransaction" => self.trace_transaction(params),
            "debug_traceCall" => self.trace_call(params),
            "debug_traceBlockByNumber" | "debug_traceBlockByHash" => self.trace_block(params),
            _ => Err(RpcError::unknown_method(method)),
        }
    }
}

fn reply(id: Json, answer: Answer) -> Json {
    match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    }
}

/// At most so many bytes of a reply are not what the method answers.
fn bytes_around(id: Option<&Json>) -> usize {
    const EMPTY: &str = r#"{"id":,"jsonrpc":"2.0","result":}"#;
    let id = match id {
        None | Some(Json::Null | Json::Bool(_) | Json::Number(_)) => 32,
        // Each byte may be written as an escape.
        Some(Json::String(text)) => 2 + 6 * text.len(),
        Some(other) => other.to_string().len(),
    };
    EMPTY.len() + id
}

/// The reply to a request that is not answered; none to a notification.
fn refusal(id: Option<Json>, error: &RpcError) -> Option<Vec<u8>> {
    id.map(|id| to_bytes(&reply(id, Err(error.clone()))))
}

/// The answer is larger than the interface allows.
fn too_large() -> RpcError {
    RpcError::new(-32003, "response too large")
}

fn to_bytes(reply: &Json) -> Vec<u8> {
    // A value of JSON always has a text.
    serde_json::to_vec(reply).unwrap_or_default()
}

/// A number as Ethereum writes it.
fn quantity(number: u64) -> Json {
    Json::String(format!("{number:#x}"))
}

/// A result as JSON.
fn to_json(value: &impl serde::Serialize) -> Answer {
    serde_json::to_value(value).map_err(|error| RpcError::new(-32603, error.to_string()))
}
