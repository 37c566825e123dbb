//! The service as this node embodies it: its keys, its clock, and what it offers to adapters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{
    BoxFuture, CommitError, Environment, ForwardError, HistoricalState, Outcome, ReceiptError,
    TxStatus,
};
use coco_crypto::{CertificateError, Digest, Entropy, KeyPair, PublicKey};
use coco_governance::{LedgerPeriod, ServiceControl};
use coco_kv::{Seqno, Tx, TxId, View};
use coco_ledger::{
    LedgerSecrets, Receipt, ReceiptError as LedgerReceiptError, ServiceSignature, SignatureError,
    SignedProof, Signer,
};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::forward::Forwarder;
use crate::host::Host;
use crate::identities::Identities;
use crate::offload::offload;
use crate::pipeline::Pipeline;
use crate::sealed::ServiceSecrets;

/// The host's clock, made monotone.
pub struct Clock {
    host: Arc<dyn Host>,
    latest_ms: AtomicU64,
}

impl Clock {
    /// A clock that never shows less than it has shown.
    pub fn new(host: Arc<dyn Host>) -> Self {
        Self { host, latest_ms: AtomicU64::new(0) }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let now = self.host.now_ms();
        self.latest_ms.fetch_max(now, Ordering::AcqRel).max(now)
    }
}

/// The secrets of the service that this node holds: its identity key and its ledger secrets; and
/// what it knows of the identities before.
pub struct ServiceKeys {
    signer: Signer,
    /// The last root that this node signed for receipts: those of a batch share it.
    signed_root: Mutex<Option<(Digest, Vec<u8>)>>,
    identities: Identities,
    /// The endorsements of the earlier ones, PEM.
    endorsements: Vec<Arc<str>>,
    periods: Vec<LedgerPeriod>,
    secrets: Arc<LedgerSecrets>,
}

impl ServiceKeys {
    /// The keys of a service with these ledger secrets, oldest first. The signer has the key of the
    /// latest identity.
    pub(crate) fn new(
        signer: Signer,
        periods: Vec<LedgerPeriod>,
        identities: Identities,
        entropy: &dyn Entropy,
    ) -> Result<Self, CertificateError> {
        let endorsements = identities.endorse(&signer.service_key, entropy)?;
        let mut secrets = LedgerSecrets::new();
        for period in &periods {
            secrets.insert(period.valid_from, Arc::clone(&period.secret));
        }
        let (secrets, signed_root) = (Arc::new(secrets), Mutex::new(None));
        Ok(Self { signer, signed_root, identities, endorsements, periods, secrets })
    }

    /// The key under which the service signed at a position.
    pub(crate) fn identity_key(&self, seqno: Seqno) -> &PublicKey {
        &self.identities.at(seqno).key
    }

    /// Verifies a root that the service is said to have signed.
    pub(crate) fn verify(
        &self,
        signature: &ServiceSignature,
        root: Digest,
    ) -> Result<(), SignatureError> {
        let key = self.identity_key(signature.tx_id.seqno);
        match *key == *self.signer.service_key.public() {
            true => signature.verify_own(&self.signer.service_key, root),
            false => signature.verify(key, root),
        }
    }

    /// The certificates, PEM, that lead from the identity of a position to the present one; none if
    /// it is the present one.
    pub(crate) fn endorsements(&self, seqno: Seqno) -> Vec<String> {
        let endorsement = self.identities.earlier_at(seqno);
        let endorsement = endorsement.and_then(|earlier| self.endorsements.get(earlier));
        endorsement.map(|pem| pem.to_string()).into_iter().collect()
    }

    /// The receipt of the committed transaction at `seqno`. Where no node signed the root on the
    /// ledger, this node does.
    pub(crate) fn receipt(
        &self,
        proof: &SignedProof,
        seqno: Seqno,
    ) -> Result<Receipt, LedgerReceiptError> {
        match proof.signature.node {
            Some(_) => proof.receipt(None, self.endorsements(seqno)),
            None => {
                let signature = self.sign_root(proof.proof.root());
                Ok(proof.receipt_by(&self.signer, signature))
            }
        }
    }

    fn sign_root(&self, root: Digest) -> Vec<u8> {
        let mut last = self.signed_root.lock();
        if let Some((signed, signature)) = &*last
            && *signed == root
        {
            return signature.clone();
        }
        let signature = self.signer.node_key.sign_digest(&root);
        *last = Some((root, signature.clone()));
        signature
    }

    /// What another node must hold to take part, next to the service's key.
    pub(crate) fn to_share(&self) -> ServiceSecrets {
        ServiceSecrets {
            identities: self.identities.clone(),
            issuer: self.signer.issuer.clone(),
            subject: self.signer.subject.clone(),
            periods: self.periods.clone(),
        }
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    pub(crate) fn secrets(&self) -> Arc<LedgerSecrets> {
        Arc::clone(&self.secrets)
    }
}

impl ServiceControl for ServiceKeys {
    fn service_key(&self) -> Arc<KeyPair> {
        Arc::clone(&self.signer.service_key)
    }

    #[expect(clippy::expect_used, reason = "a service is made with at least one ledger secret")]
    fn ledger_secret(&self) -> LedgerPeriod {
        self.periods.last().expect("a service has a ledger secret").clone()
    }

    fn previous_ledger_secret(&self) -> Option<LedgerPeriod> {
        self.periods.iter().rev().nth(1).cloned()
    }
}

/// What the node offers to adapters.
pub struct NodeEnvironment {
    host: Arc<dyn Host>,
    clock: Arc<Clock>,
    pipeline: Pipeline,
    forwarder: Option<Arc<Forwarder>>,
    /// Places for work that takes long.
    offloaded: Arc<Semaphore>,
}

impl NodeEnvironment {
    /// Must be called on the node's runtime.
    pub(crate) fn new(
        host: Arc<dyn Host>,
        clock: Arc<Clock>,
        pipeline: Pipeline,
        forwarder: Option<Arc<Forwarder>>,
    ) -> Self {
        // Twice the cores, of which the node leaves one to others: enough that none idles, few
        // enough that memory is bounded.
        let cores = Handle::current().metrics().num_workers().saturating_add(1);
        let places = cores.saturating_mul(2);
        let offloaded = Arc::new(Semaphore::new(places));
        Self { host, clock, pipeline, forwarder, offloaded }
    }
}

impl Environment for NodeEnvironment {
    fn entropy(&self) -> &dyn Entropy {
        self.host.entropy()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn last_committed(&self) -> TxId {
        self.pipeline.last_committed()
    }

    fn status(&self, tx_id: TxId) -> TxStatus {
        self.pipeline.status(tx_id)
    }

    fn view_for_seqno(&self, seqno: Seqno) -> Option<View> {
        self.pipeline.view_for_seqno(seqno)
    }

    fn root_at(&self, seqno: Seqno) -> Option<Digest> {
        self.pipeline.root_at(seqno)
    }

    fn state_range(
        &self,
        handle: u64,
        from: Seqno,
        to: Seqno,
        ttl_seconds: u64,
    ) -> Option<Vec<HistoricalState>> {
        self.pipeline.state_range(handle, from, to, ttl_seconds)
    }

    fn drop_cached_states(&self, handle: u64) -> bool {
        self.pipeline.drop_cached_states(handle)
    }
}

impl coco_adapter::Node for NodeEnvironment {
    fn begin(&self) -> Tx {
        self.pipeline.store().begin()
    }

    fn commit(&self, tx: Tx, outcome: &Outcome) -> Result<TxId, CommitError> {
        self.pipeline.commit(tx, outcome).map(|executed| executed.tx_id)
    }

    fn cut_within(&self, pause: Duration) {
        self.pipeline.cut_within(pause);
    }

    fn wait_committed(&self, tx_id: TxId) -> BoxFuture<'static, TxStatus> {
        Box::pin(self.pipeline.wait_committed(tx_id))
    }

    fn more_committed(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.pipeline.more_committed())
    }

    fn receipt(&self, tx_id: TxId) -> BoxFuture<'static, Result<Arc<Receipt>, ReceiptError>> {
        let pipeline = self.pipeline.clone();
        Box::pin(async move { pipeline.receipt(tx_id).await })
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.host.sleep(pause)
    }

    fn offload(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let places = Arc::clone(&self.offloaded);
        Box::pin(async move {
            let Ok(place) = places.acquire_owned().await else { return };
            // The place is taken until the work is done, even if nobody waits for it any more.
            let work = move || {
                work();
                drop(place);
            };
            if let Err(error) = offload(work).await {
                tracing::error!(%error, "work of an adapter ended before its time");
            }
        })
    }
    fn is_primary(&self) -> bool {
        self.pipeline.leads()
    }

    fn forward(
        &self,
        protocol: &str,
        message: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Bytes, ForwardError>> {
        let Some(forwarder) = self.forwarder.clone() else {
            return Box::pin(std::future::ready(Err(ForwardError::NoPrimary)));
        };
        let protocol = protocol.to_owned();
        Box::pin(async move { forwarder.message(protocol, message, patience).await })
    }
}
