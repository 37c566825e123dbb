//! A node without ledger, network or clock, to try a chain out in tests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{B256, keccak256};
use coco_kv::{Conflict, Store, Tx, TxId, View};

use crate::rpc::Rpc;
use crate::{Chain, ChainOptions, GenesisError, Node, Refusal, Sealed};

/// One chain on one store. Time stands still until it is moved; nothing is sealed until asked.
pub struct Trial {
    store: Store,
    now_ms: AtomicU64,
    drawn: AtomicU64,
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
        let trial = Arc::new(Self { store, now_ms: AtomicU64::new(0), drawn: AtomicU64::new(0) });
        // Nobody else has the store yet.
        let _ = trial.commit(tx);
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
            if self.commit(tx).is_ok() {
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

    fn commit(&self, tx: Tx) -> Result<TxId, Conflict> {
        self.store.commit(tx, |_, _| ()).map(|committed| committed.tx_id())
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
