//! A node without ledger, network or clock, to try a chain out in tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{B256, keccak256};
use coco_crypto::Digest;
use coco_kv::{Conflict, Seqno, Store, Tx, TxId, View};
use parking_lot::Mutex;
use serde_json::json;

use crate::rpc::Rpc;
use crate::{Chain, ChainOptions, GenesisError, Node, Refusal, Sealed};

/// One chain on one store. Time stands still until it is moved; nothing is sealed until asked.
pub struct Trial {
    store: Store,
    now_ms: AtomicU64,
    drawn: AtomicU64,
    claims: Mutex<BTreeMap<Seqno, Digest>>,
}

impl Trial {
    /// A node that runs `genesis`, and the methods over it.
    pub fn begin(
        genesis: &alloy_genesis::Genesis,
        options: impl Into<ChainOptions>,
    ) -> Result<(Arc<Self>, Rpc), GenesisError> {
        let store = Store::new(View(2));
        let mut tx = store.begin();
        let (chain, _) = Chain::begin(&mut tx, genesis, options)?;
        // Nobody else has the store yet.
        let _ = store.commit(tx, |_, _| ());
        let (now_ms, drawn, claims) = Default::default();
        let trial = Arc::new(Self { store, now_ms, drawn, claims });
        let rpc = Rpc::new(Arc::new(chain), trial.clone());
        Ok((trial, rpc))
    }

    /// Moves the clock.
    pub fn pass_ms(&self, milliseconds: u64) {
        self.now_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// What a cut of a batch does: seals the open block, if there is one, and announces it.
    pub fn seal(&self, rpc: &Rpc) -> Result<Option<Sealed>, Refusal> {
        loop {
            let mut tx = self.store.begin();
            let sealed = rpc.chain().seal(&mut tx, self.store.head())?;
            if self.store.commit(tx, |_, _| ()).is_ok() {
                rpc.committed()?;
                return Ok(sealed);
            }
        }
    }
}

impl Node for Trial {
    fn begin(&self) -> Tx {
        self.store.begin()
    }

    fn read(&self) -> Tx {
        self.store.begin()
    }

    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, Conflict> {
        let keep = |tx_id: TxId, _| self.claims.lock().insert(tx_id.seqno, claims);
        self.store.commit(tx, keep).map(|committed| committed.tx_id())
    }

    /// There is no ledger to sign anything: what the receipt would claim, and nothing else.
    fn receipt(&self, position: Seqno) -> Option<serde_json::Value> {
        let claims = self.claims.lock().get(&position).copied()?;
        Some(json!({"claims_digest": alloy_primitives::hex::encode(claims.0)}))
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn randomness(&self) -> B256 {
        keccak256(self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes())
    }

    fn sleep(&self, _milliseconds: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}
