//! The service as this node embodies it: its keys, its clock, and what it offers to adapters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use coco_adapter::{Environment, HistoricalState, TxStatus};
use coco_crypto::{Digest, Entropy, KeyPair};
use coco_governance::{LedgerPeriod, ServiceControl};
use coco_kv::{Seqno, TxId, View};
use coco_ledger::{LedgerSecrets, Signer};

use crate::host::Host;
use crate::pipeline::Pipeline;

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

/// The secrets of the service that this node holds: its identity key and its ledger secrets.
pub struct ServiceKeys {
    signer: ArcSwap<Signer>,
    periods: Vec<LedgerPeriod>,
    secrets: Arc<LedgerSecrets>,
}

impl ServiceKeys {
    /// The keys of a service with these ledger secrets, oldest first.
    pub(crate) fn new(signer: Signer, periods: Vec<LedgerPeriod>) -> Self {
        let mut secrets = LedgerSecrets::new();
        for period in &periods {
            secrets.insert(period.valid_from, Arc::clone(&period.secret));
        }
        Self { signer: ArcSwap::from_pointee(signer), periods, secrets: Arc::new(secrets) }
    }

    pub(crate) fn signer(&self) -> Arc<Signer> {
        self.signer.load_full()
    }

    pub(crate) fn secrets(&self) -> Arc<LedgerSecrets> {
        Arc::clone(&self.secrets)
    }
}

impl ServiceControl for ServiceKeys {
    fn service_key(&self) -> Arc<KeyPair> {
        Arc::clone(&self.signer.load().service_key)
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
}

impl NodeEnvironment {
    pub(crate) fn new(host: Arc<dyn Host>, clock: Arc<Clock>, pipeline: Pipeline) -> Self {
        Self { host, clock, pipeline }
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
