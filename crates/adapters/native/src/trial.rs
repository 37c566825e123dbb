//! An application on trial: called without a node around it, for its own tests.

use bytes::Bytes;
use coco_adapter::{
    AuthnPolicy, Call, Caller, Endpoints, Environment, ErrorCode, ErrorResponse, Find,
    HistoricalState, Matched, Mode, Outcome, Request, Response, TxStatus,
};
use coco_crypto::{Digest, Entropy, sha256};
use coco_kv::{Committed, MapName, Seqno, Store, TxId, View};
use http::{Method, StatusCode};
use std::sync::Mutex;

/// A store and an application, nothing else: no sockets, no ledger, no authentication beyond that
/// the caller's kind must be one that the endpoint asks for. Transactions are committed at once.
/// Time stands still, and randomness is the same in every run. History is not kept.
pub struct Trial<A> {
    application: A,
    store: Store,
    surroundings: Surroundings,
}

impl<A: Endpoints> Trial<A> {
    /// An application on an empty store.
    pub fn new(application: A) -> Self {
        let surroundings =
            Surroundings { committed: Mutex::default(), entropy: Counter::default() };
        Self { application, store: Store::new(View(2)), surroundings }
    }

    /// The store that the application works on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Calls the application as a node would. `target` is path and query, without `/app`.
    pub fn call(
        &self,
        method: Method,
        target: &str,
        caller: &Caller,
        body: impl Into<Bytes>,
    ) -> Response {
        let request = http::Request::builder().method(method).uri(target).body(body.into());
        let answer = match request {
            Ok(request) => self.answer(&request, caller),
            Err(error) => Err(refusal(StatusCode::BAD_REQUEST, error.to_string())),
        };
        answer.unwrap_or_else(|refusal| refusal.to_response())
    }

    fn answer(&self, request: &Request, caller: &Caller) -> Result<Response, ErrorResponse> {
        let mut tx = self.store.begin();
        let found = self.application.find(&mut tx, request.method(), request.uri().path());
        let matched = match found {
            Find::Endpoint(matched) => matched,
            Find::WrongVerb(_) => {
                return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "wrong verb"));
            }
            Find::UnknownPath => return Err(refusal(StatusCode::NOT_FOUND, "unknown path")),
            Find::Failed(refusal) => return Err(refusal),
        };
        authenticate(&matched, caller)?;
        let mut call = Call {
            request,
            matched: &matched,
            caller,
            tx: &mut tx,
            historical: None,
            environment: &self.surroundings,
            outcome: Outcome::default(),
        };
        let response = match matched.properties.mode {
            Mode::Historical => Err(refusal(StatusCode::NOT_IMPLEMENTED, "there is no history")),
            Mode::ReadOnly | Mode::ReadWrite => self.application.execute(&mut call),
        };
        let well = response.as_ref().is_ok_and(|response| response.status().is_success());
        let applied = call.outcome.apply_writes.unwrap_or(well);
        if applied && matched.properties.mode == Mode::ReadWrite {
            match self.store.commit(tx, |tx_id, _| tx_id) {
                Ok(Committed::Written(tx_id, _)) => self.surroundings.commit(tx_id),
                Ok(Committed::ReadOnly(_)) => {}
                Err(conflict) => {
                    return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, conflict.to_string()));
                }
            }
        }
        response
    }
}

/// A caller with the certificate of a participant; the id is made from `name`.
pub fn participant(name: &str) -> Caller {
    let (id, cert) = (sha256(name.as_bytes()), String::new());
    Caller::UserCert { id, cert, data: serde_json::Value::Null }
}

fn authenticate(matched: &Matched, caller: &Caller) -> Result<(), ErrorResponse> {
    let policies = &matched.properties.authn_policies;
    let passes = policies.is_empty() || policies.iter().any(|policy| accepts(policy, caller));
    passes.then_some(()).ok_or_else(|| {
        let code = ErrorCode::InvalidAuthenticationInfo;
        ErrorResponse::new(StatusCode::UNAUTHORIZED, code, "Invalid info")
    })
}

fn accepts(policy: &AuthnPolicy, caller: &Caller) -> bool {
    match (policy, caller) {
        (AuthnPolicy::NoAuth, _)
        | (AuthnPolicy::UserCert, Caller::UserCert { .. })
        | (AuthnPolicy::MemberCert, Caller::MemberCert { .. })
        | (AuthnPolicy::AnyCert, Caller::AnyCert { .. })
        | (AuthnPolicy::Jwt, Caller::Jwt { .. })
        | (AuthnPolicy::UserCoseSign1, Caller::UserCose { .. })
        | (AuthnPolicy::MemberCoseSign1, Caller::MemberCose { .. })
        | (AuthnPolicy::ActiveMemberCoseSign1, Caller::MemberCose { .. })
        | (AuthnPolicy::NodeCert, Caller::Node { .. }) => true,
        (AuthnPolicy::AllOf(policies), Caller::AllOf(callers)) => {
            policies.iter().all(|policy| callers.iter().any(|(_, caller)| accepts(policy, caller)))
        }
        _ => false,
    }
}

fn refusal(status: StatusCode, message: impl Into<String>) -> ErrorResponse {
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::ResourceNotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::UnsupportedHttpVerb,
        StatusCode::NOT_IMPLEMENTED => ErrorCode::NotImplemented,
        StatusCode::SERVICE_UNAVAILABLE => ErrorCode::TransactionCommitAttemptsExceedLimit,
        _ => ErrorCode::InvalidInput,
    };
    ErrorResponse::new(status, code, message)
}

struct Surroundings {
    committed: Mutex<TxId>,
    entropy: Counter,
}

impl Surroundings {
    fn commit(&self, tx_id: TxId) {
        *self.committed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = tx_id;
    }
}

impl Environment for Surroundings {
    fn entropy(&self) -> &dyn Entropy {
        &self.entropy
    }

    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn last_committed(&self) -> TxId {
        *self.committed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn status(&self, tx_id: TxId) -> TxStatus {
        let last = self.last_committed();
        match tx_id.seqno {
            seqno if seqno > last.seqno => TxStatus::Unknown,
            _ if tx_id.view == last.view => TxStatus::Committed,
            _ => TxStatus::Invalid,
        }
    }

    fn view_for_seqno(&self, seqno: Seqno) -> Option<View> {
        let last = self.last_committed();
        (seqno <= last.seqno).then_some(last.view)
    }

    fn root_at(&self, _seqno: Seqno) -> Option<Digest> {
        None
    }

    fn state_range(
        &self,
        _handle: u64,
        _from: Seqno,
        _to: Seqno,
        _ttl_seconds: u64,
    ) -> Option<Vec<HistoricalState>> {
        None
    }

    fn drop_cached_states(&self, _handle: u64) -> bool {
        false
    }
}

/// Bytes that look random and are the same in every run.
#[derive(Default)]
struct Counter(Mutex<u64>);

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        let mut count = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for chunk in out.chunks_mut(32) {
            *count += 1;
            let block = sha256(&count.to_le_bytes());
            chunk.iter_mut().zip(block.0).for_each(|(byte, random)| *byte = random);
        }
    }
}

/// The stored value of a key, for a test to look at.
pub fn stored(store: &Store, map: &str, key: &[u8]) -> Option<Vec<u8>> {
    store.begin().get(&MapName::new(map), key).map(|value| value.to_vec())
}
