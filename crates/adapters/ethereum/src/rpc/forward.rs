//! What only the primary can answer: asked for there, in one message for many requests.
//!
//! ```text
//!   backup    request ─▶ is it the primary's? ─▶ Question ─▶ ─ ─ ─▶ answer_forwarded    primary
//!             reply ◀─ outbox, until committed ◀─ Answers ◀─ ─ ─ ─┘
//! ```
//!
//! Blocks, receipts, logs and states are read on every node. What sends, signs, or is about the
//! state after all that was executed, and about transactions that wait, is the primary's. While
//! there is none, requests wait for one for a while, and are then refused in a way that tells that
//! they may be tried again.

use std::collections::HashMap;
use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use coco_crypto::Digest;
use coco_kv::{Tx, TxId, TxIdSyntax, View};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::offload::timed_out;
use super::recover::{Ahead, Recovered};
use super::send::{Sent, executed_after};
use super::{Answer, Asked, Params, Rpc, RpcError, to_json, too_large};
use crate::{ForwardRefusal, Head, Place, Refusal, SignedTransaction, StateError, block};

/// A call of a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    pub method: String,
    pub params: Params,
}

/// Calls of one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// Whom the interface of the node that asks has authenticated.
    participant: Option<B256>,
    calls: Vec<Call>,
}

/// One answer for each call, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answers {
    /// What was committed at the primary by then.
    committed: Position,
    answers: Vec<Answered>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answered {
    Result(Json),
    Error(RpcError),
    /// A transaction was taken: the signed one, unless it came with the call, and where it was
    /// executed, unless it waits.
    Sent {
        hash: B256,
        raw: Option<Bytes>,
        executed: Option<Position>,
    },
}

impl Answered {
    fn is_unavailable(&self) -> bool {
        matches!(self, Self::Error(error) if error.code == RpcError::UNAVAILABLE)
    }

    fn of_sent(Sent { hash, raw, executed }: Sent) -> Self {
        Self::Sent { hash, raw, executed: executed.map(Position) }
    }
}

/// A transaction of the ledger as text: `2.17`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Position(TxId);

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.0.to_string()
    }
}

impl TryFrom<String> for Position {
    type Error = TxIdSyntax;

    fn try_from(text: String) -> Result<Self, TxIdSyntax> {
        text.parse().map(Self)
    }
}

/// The states of accounts and calls, by the index of the parameter that names the block.
const OF_A_STATE: [(&str, usize); 11] = [
    ("eth_getBalance", 1),
    ("eth_getTransactionCount", 1),
    ("eth_getCode", 1),
    ("eth_getStorageAt", 2),
    ("eth_getStorageValues", 1),
    ("eth_getAccountInfo", 1),
    ("eth_call", 1),
    ("eth_estimateGas", 1),
    ("eth_createAccessList", 1),
    ("eth_simulateV1", 1),
    ("debug_traceCall", 1),
];

impl Rpc {
    /// How long a request waits for a primary.
    const PRIMARY_WAIT_MS: u64 = 2_000;
    /// Pause before the primary is asked again.
    const PRIMARY_PAUSE_MS: u64 = 25;
    /// How long this node waits for what the primary has told of to come here.
    const CATCH_UP_MS: u64 = 2_000;
    /// Calls in one message, and about how many bytes of them.
    const MAX_CALLS: usize = 256;
    const MAX_CALLS_BYTES: usize = 4 * 1024 * 1024;
    /// Bytes of results in one answer.
    const MAX_ANSWERS_BYTES: usize = 8 * 1024 * 1024;

    /// Whether a backup has to ask the primary.
    fn is_for_primary(&self, call: &Call, participant: Option<Digest>) -> bool {
        match call.method.as_str() {
            "eth_sendRawTransaction"
            | "eth_sendTransaction"
            | "eth_signTransaction"
            | "eth_sign"
            | "eth_fillTransaction"
            | "txpool_status"
            | "txpool_content"
            | "txpool_contentFrom"
            | "txpool_inspect" => true,
            "eth_accounts" => participant.is_some(),
            // What is in a block is the same everywhere.
            "coco_transactionStatus"
            | "eth_getTransactionByHash"
            | "eth_getRawTransactionByHash" => {
                let hash = call.params.required(0);
                hash.is_ok_and(|hash| !self.is_included(&mut self.node.begin(), hash))
            }
            method => {
                let mut known = OF_A_STATE.iter();
                let block = known.find(|(name, _)| *name == method).map(|(_, index)| *index);
                block.and_then(|index| call.params.raw(index)).is_some_and(|tag| tag == "pending")
            }
        }
    }

    /// Whether this node is a backup that has to ask the primary.
    pub(super) fn has_to_forward(&self, call: &Call, participant: Option<Digest>) -> bool {
        !self.node.is_primary() && self.is_for_primary(call, participant)
    }

    fn is_included(&self, tx: &mut Tx, hash: B256) -> bool {
        self.included(tx, hash).is_ok_and(|included| included.is_some())
    }

    /// The primary's answers to those requests of a batch that need it, by their index; none on the
    /// primary itself.
    pub(super) async fn answered_by_primary(
        &self,
        requests: &[Asked],
        participant: Option<Digest>,
    ) -> HashMap<usize, Answer> {
        if self.node.is_primary() {
            return HashMap::new();
        }
        let calls = requests.iter().map(|asked| asked.call.as_ref().ok()).enumerate();
        let (indexes, calls): (Vec<_>, Vec<_>) = calls
            .filter_map(|(index, call)| Some((index, call?)))
            .filter(|(_, call)| self.is_for_primary(call, participant))
            .map(|(index, call)| (index, call.clone()))
            .unzip();
        let answers = self.ask_primary_all(calls, participant).await;
        indexes.into_iter().zip(answers).collect()
    }

    pub(super) async fn ask_primary(&self, call: Call, participant: Option<Digest>) -> Answer {
        let answers = self.ask_primary_all(vec![call], participant).await;
        answers.into_iter().next().unwrap_or_else(|| Err(unreadable()))
    }

    /// One answer for each call.
    async fn ask_primary_all(&self, calls: Vec<Call>, participant: Option<Digest>) -> Vec<Answer> {
        let participant = participant.map(|id| B256::from(id.0));
        let mut answers = Vec::with_capacity(calls.len());
        for calls in portions(calls) {
            let question = Question { participant, calls };
            let calls = question.calls.iter();
            match self.ask(&question).await {
                Ok((answered, again)) => {
                    let answered = calls.zip(answered);
                    answers.extend(answered.map(|(call, it)| self.settle(call, it, again)));
                }
                Err(error) => answers.extend(calls.map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    /// The primary's answers, and whether it was asked before without answering. Tries until there
    /// is a primary, within limits.
    async fn ask(&self, question: &Question) -> Result<(Vec<Answered>, bool), RpcError> {
        let Question { participant, calls } = question;
        let message = bytes::Bytes::from(to_vec(question)?);
        // What the node signs itself is another transaction each time.
        let may_repeat = calls.iter().all(|call| call.method != "eth_sendTransaction");
        let deadline = self.node.sleep(Self::PRIMARY_WAIT_MS);
        tokio::pin!(deadline);
        let mut again = false;
        loop {
            if self.node.is_primary() {
                return Ok((self.answer_calls(calls, *participant, None).await, again));
            }
            let refusal = match self.node.forward(message.clone()).await {
                Ok(answers) => {
                    let answers = self.read_answers(calls, &answers).await?;
                    // It was the primary until just now.
                    if !answers.iter().all(Answered::is_unavailable) {
                        return Ok((answers, again));
                    }
                    ForwardRefusal::NotNow
                }
                Err(refusal @ ForwardRefusal::TooLarge { .. }) => {
                    return Err(RpcError::limit(refusal.to_string()));
                }
                Err(ForwardRefusal::Unknown) if !may_repeat => {
                    let message = "the primary was lost before it answered: \
                                   the transaction may have been executed";
                    return Err(RpcError::unavailable(message));
                }
                Err(refusal) => refusal,
            };
            again |= refusal == ForwardRefusal::Unknown;
            tokio::select! {
                () = self.node.sleep(Self::PRIMARY_PAUSE_MS) => {}
                () = &mut deadline => {
                    let text = if again { &ForwardRefusal::Unknown } else { &refusal };
                    return Err(RpcError::unavailable(format!("{text}: send it again")));
                }
            }
        }
    }

    /// Reads the primary's answers, once this node has what they tell of.
    async fn read_answers(&self, calls: &[Call], bytes: &[u8]) -> Result<Vec<Answered>, RpcError> {
        let Answers { committed, answers } =
            serde_json::from_slice(bytes).map_err(|_| unreadable())?;
        if answers.len() != calls.len() {
            return Err(unreadable());
        }
        // A client that sends does not read yet.
        let tells = answers.iter().any(|answered| matches!(answered, Answered::Result(_)));
        if tells && committed.0 > self.node.last_committed() {
            tokio::select! {
                () = self.node.wait_for(committed.0) => {}
                () = self.node.sleep(Self::CATCH_UP_MS) => {}
            }
        }
        Ok(answers)
    }

    /// What the primary's answer is to the client. `again`: it was asked before, too.
    fn settle(&self, call: &Call, answered: Answered, again: bool) -> Answer {
        match answered {
            Answered::Result(result) => Ok(result),
            Answered::Sent { hash, raw, executed } => {
                if let Some(raw) = raw.or_else(|| call.params.required(0).ok()) {
                    self.remember(hash, raw, executed.map(|executed| executed.0));
                }
                to_json(&hash)
            }
            // It was taken when it was sent the first time.
            Answered::Error(error)
                if again && error.message == Refusal::AlreadyKnown.to_string() =>
            {
                let sent = call.params.required::<Bytes>(0);
                let signed = sent.map(|raw| SignedTransaction::from_wire(&raw));
                match signed {
                    Ok(Ok(signed)) => {
                        self.remember(signed.hash(), signed.to_bytes(), None);
                        to_json(&signed.hash())
                    }
                    _ => Err(error),
                }
            }
            Answered::Error(error) => Err(error),
        }
    }

    /// Remembers a transaction until it is in a committed block.
    fn remember(&self, hash: B256, raw: Bytes, executed: Option<TxId>) {
        let place = match executed {
            Some(tx_id) => Place::Executed(tx_id),
            None => Place::Waiting(self.node.last_committed().view),
        };
        self.outbox.add(hash, raw, place, self.node.now_ms());
        // Its block may have come before the answer.
        if self.is_included(&mut self.node.begin(), hash) {
            self.outbox.included(&[hash]);
        }
    }

    /// Sends a transaction, here or to the primary.
    pub(super) async fn send_wherever(&self, raw: Bytes) -> Result<(), RpcError> {
        let params = Params::new(Some(json!([raw])))?;
        if self.node.is_primary() {
            match self.send_raw_transaction(&params, None).await {
                Err(error) if error.code == RpcError::UNAVAILABLE && !self.node.is_primary() => {}
                sent => return sent.map(drop),
            }
        }
        let call = Call { method: "eth_sendRawTransaction".to_owned(), params };
        self.ask_primary(call, None).await.map(drop)
    }

    /// Why the primary has refused a transaction that it had taken, if it has.
    pub(super) async fn refused_by_primary(&self, hash: B256) -> Option<String> {
        if self.node.is_primary() {
            return None;
        }
        let method = "coco_transactionStatus".to_owned();
        let call = Call { method, params: Params::new(Some(json!([hash]))).ok()? };
        let status = self.ask_primary(call, None).await.ok()?;
        let is_refused = status.get("status").is_some_and(|status| status == "refused");
        is_refused.then(|| status.get("reason")?.as_str().map(str::to_owned))?
    }

    /// Answers what another node's [`Rpc`] has forwarded to this one; `Err` says that nothing was
    /// done, and why. That node has authenticated the participant; everything else is as from any
    /// client.
    pub async fn answer_forwarded(self: &Arc<Self>, message: &[u8]) -> Result<Vec<u8>, String> {
        let Question { participant, calls } =
            serde_json::from_slice(message).map_err(|error| error.to_string())?;
        if calls.len() > Self::MAX_CALLS {
            return Err(format!("{} calls are more than {}", calls.len(), Self::MAX_CALLS));
        }
        if !self.node.is_primary() {
            return Err("this node is not the primary".to_owned());
        }
        let answers = self.answer_calls(&calls, participant, Some(self)).await;
        let committed = Position(self.node.last_committed());
        to_vec(&Answers { committed, answers }).map_err(|error| error.to_string())
    }

    /// Answers calls in their order; with `shared`, other threads answer those that may take long.
    async fn answer_calls(
        &self,
        calls: &[Call],
        participant: Option<B256>,
        shared: Option<&Arc<Self>>,
    ) -> Vec<Answered> {
        let participant = participant.map(|id| Digest(id.0));
        let mut ahead = Ahead::of(calls.iter().map(Some), &self.recoveries);
        let mut answers = Vec::with_capacity(calls.len());
        let mut room = Self::MAX_ANSWERS_BYTES;
        let mut turn_ms = self.node.now_ms();
        let deadline_ms = turn_ms.saturating_add(Self::MESSAGE_MS);
        for (index, call) in calls.iter().enumerate() {
            let now_ms = self.take_turns(&mut turn_ms).await;
            let recovered = ahead.next(index).await;
            // There is always room to say that a transaction was taken.
            let sends = ["eth_sendRawTransaction", "eth_sendTransaction"];
            if room == 0 && !sends.contains(&call.method.as_str()) {
                answers.push(Answered::Error(too_large()));
                continue;
            }
            // Nobody waits for it any more.
            if now_ms >= deadline_ms && !sends.contains(&call.method.as_str()) {
                answers.push(Answered::Error(timed_out()));
                continue;
            }
            let long = shared.filter(|_| self.is_long(call, participant)).cloned();
            let (answer, bytes) = match long {
                Some(rpc) => {
                    let call = call.clone();
                    let work = async move { rpc.answer_call(&call, participant, recovered).await };
                    let failed = || (Answered::Error(RpcError::new(-32603, "internal error")), 0);
                    self.offloaded(work).await.unwrap_or_else(failed)
                }
                None => self.answer_call(call, participant, recovered).await,
            };
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            answers.push(if fits { answer } else { Answered::Error(too_large()) });
        }
        answers
    }

    /// The answer to a call, and about how many bytes it has.
    async fn answer_call(
        &self,
        call: &Call,
        participant: Option<Digest>,
        recovered: Option<Recovered>,
    ) -> (Answered, usize) {
        let Call { method, params } = call;
        let answer = match method.as_str() {
            "eth_sendRawTransaction" => {
                self.send_raw_transaction(params, recovered).await.map(Answered::of_sent)
            }
            "eth_sendTransaction" => {
                self.send_for(participant, params).await.map(Answered::of_sent)
            }
            "eth_accounts" | "eth_signTransaction" | "eth_sign" => {
                self.for_participant(participant, method, params).await.map(Answered::Result)
            }
            _ => self.answer(method, params).map(Answered::Result),
        };
        let answer = answer.unwrap_or_else(Answered::Error);
        let bytes = match &answer {
            Answered::Result(result) => result.to_string().len(),
            Answered::Error(_) | Answered::Sent { .. } => 0,
        };
        (answer, bytes)
    }

    /// Remembers what is taken back: the transactions after `to`.
    pub fn taken_back(&self, tx: &mut Tx, to: coco_kv::Seqno) -> Result<(), StateError> {
        // What is remembered is of the tail that is no more.
        self.chain.take_executed();
        let view = tx.read_tx_id().view;
        let kept = Head::at(tx, to)?.map_or(0, |head| head.number);
        for record in executed_after(tx, kept)? {
            let Ok(envelope) = record.transaction() else { continue };
            let hash = *envelope.tx_hash();
            self.outbox.add(hash, record.envelope, Place::Waiting(view), self.node.now_ms());
        }
        Ok(())
    }

    /// Those who were told a hash here, and whose transactions an earlier primary had: what is to
    /// be [sent again](Self::send_again), in its order.
    pub fn overtaken(&self) -> Vec<Bytes> {
        let view = self.node.last_committed().view;
        if !self.node.is_primary() && !self.pool.is_empty() {
            // They were waiting when this node was the primary.
            for signed in self.pool.drain(self.node.now_ms()) {
                let (hash, raw) = (signed.hash(), signed.to_bytes());
                self.outbox.add(hash, raw, Place::Waiting(View(0)), self.node.now_ms());
            }
        }
        self.outbox.overtaken(view, self.node.now_ms())
    }

    /// Sends transactions again, here or to the primary. What is refused now is not heard of again:
    /// its nonce is used, or whoever sent it sees that it does not come.
    pub async fn send_again(&self, transactions: Vec<Bytes>) {
        let call = |raw: Bytes| {
            let method = "eth_sendRawTransaction".to_owned();
            Some(Call { method, params: Params::new(Some(json!([raw]))).ok()? })
        };
        let calls = transactions.into_iter().filter_map(call).collect();
        self.ask_primary_all(calls, None).await;
    }

    /// Tells of the transactions in the blocks after `told`, up to `head`, which this node has not
    /// executed itself, and forgets those that were sent from here.
    pub(super) fn tell_included(
        &self,
        tx: &mut Tx,
        told: u64,
        head: u64,
    ) -> Result<(), StateError> {
        let is_primary = self.node.is_primary();
        if is_primary && self.outbox.is_empty() {
            return Ok(());
        }
        for number in told.saturating_add(1)..=head {
            let block = block(tx, number)?.ok_or(StateError::NoBlock(number))?;
            self.outbox.included(&block.transactions);
            if !is_primary {
                block.transactions.into_iter().for_each(|hash| self.news.tell_executed(hash));
            }
        }
        Ok(())
    }
}

/// The calls in messages of bounded size.
fn portions(calls: Vec<Call>) -> Vec<Vec<Call>> {
    let mut portions: Vec<Vec<Call>> = Vec::new();
    let mut room = 0;
    for call in calls {
        let bytes = to_vec(&call).map_or(usize::MAX, |text| text.len());
        let is_full = portions.last().is_none_or(|portion| portion.len() >= Rpc::MAX_CALLS);
        if is_full || bytes > room {
            portions.push(Vec::new());
            room = Rpc::MAX_CALLS_BYTES;
        }
        room = room.saturating_sub(bytes);
        if let Some(portion) = portions.last_mut() {
            portion.push(call);
        }
    }
    portions
}

fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, RpcError> {
    serde_json::to_vec(value).map_err(|error| RpcError::new(-32603, error.to_string()))
}

/// Nodes of one service speak alike: this is a fault.
fn unreadable() -> RpcError {
    RpcError::new(-32603, "the primary's answer is not readable")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json_value() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            ".{0,12}".prop_map(Json::from),
        ];
        leaf.prop_recursive(2, 12, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(Json::from)
        })
    }

    fn call() -> impl Strategy<Value = Call> {
        let params = prop::collection::vec(json_value(), 0..3);
        ("[a-zA-Z_]{0,20}", params).prop_map(|(method, params)| Call {
            method,
            params: Params::new(Some(params.into())).unwrap(),
        })
    }

    fn answered() -> impl Strategy<Value = Answered> {
        let raw = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        let executed = prop::option::of((any::<u64>(), any::<u64>()));
        prop_oneof![
            json_value().prop_map(Answered::Result),
            (any::<i64>(), ".{0,20}", prop::option::of(any::<u64>())).prop_map(
                |(code, text, data)| {
                    let mut error = RpcError::new(code, text);
                    error.data = data.map(Json::from);
                    Answered::Error(error)
                }
            ),
            (any::<[u8; 32]>(), raw, executed).prop_map(|(hash, raw, executed)| Answered::Sent {
                hash: hash.into(),
                raw: raw.map(Bytes::from),
                executed: executed.map(|(view, seqno)| Position(TxId::new(view, seqno))),
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_nodes_tell_each_other_reads_back(
            participant: Option<[u8; 32]>,
            calls in prop::collection::vec(call(), 0..5),
            committed: (u64, u64),
            answers in prop::collection::vec(answered(), 0..5),
        ) {
            let question = Question { participant: participant.map(B256::from), calls };
            let bytes = serde_json::to_vec(&question).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Question>(&bytes).unwrap(), question);
            let committed = Position(TxId::new(committed.0, committed.1));
            let answers = Answers { committed, answers };
            let bytes = serde_json::to_vec(&answers).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Answers>(&bytes).unwrap(), answers);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = serde_json::from_slice::<Question>(&bytes);
            let _ = serde_json::from_slice::<Answers>(&bytes);
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn portions_hold_all_calls_in_order(sizes in prop::collection::vec(0..3_000_000_usize, 0..8)) {
            let calls: Vec<_> = sizes
                .iter()
                .map(|size| Call {
                    method: "x".repeat(*size),
                    params: Params::default(),
                })
                .collect();
            let portions = portions(calls.clone());
            for portion in &portions {
                let bytes: usize = portion.iter().map(|call| call.method.len()).sum();
                prop_assert!(!portion.is_empty() && bytes <= Rpc::MAX_CALLS_BYTES);
            }
            prop_assert_eq!(portions.concat(), calls);
        }
    }

    #[test]
    fn a_message_holds_a_bounded_number_of_calls() {
        let call = Call { method: "eth_chainId".to_owned(), params: Params::default() };
        let portions = portions(vec![call; 2 * Rpc::MAX_CALLS + 1]);
        let lengths: Vec<_> = portions.iter().map(Vec::len).collect();
        assert_eq!(lengths, [Rpc::MAX_CALLS, Rpc::MAX_CALLS, 1]);
    }
}
