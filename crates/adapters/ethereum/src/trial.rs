//! A node without ledger, network or clock, to try a chain out in tests.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloy_primitives::{B256, keccak256};
use bytes::Bytes;
use coco_crypto::Digest;
use coco_kv::{Seqno, Store, Tx, TxId, View};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;

use crate::rpc::Rpc;
use crate::{
    Chain, ChainOptions, CommitRefusal, ForwardRefusal, GenesisError, Node, Refusal, Sealed,
};

/// One chain on one store. Time stands still until it is moved; nothing is sealed until asked.
pub struct Trial {
    store: Store,
    now_ms: AtomicU64,
    drawn: AtomicU64,
    claims: Mutex<BTreeMap<Seqno, Digest>>,
    committed: AtomicU64,
    // Commits for which there is room.
    room: AtomicU64,
    // Whether whoever waits does; how many blocks were sealed, for those who wait for one.
    patient: AtomicBool,
    sealed: watch::Sender<u64>,
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
        let (committed, room) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        let (patient, sealed) = (AtomicBool::new(false), watch::Sender::new(0));
        let trial =
            Arc::new(Self { store, now_ms, drawn, claims, committed, room, patient, sealed });
        let rpc = Rpc::new(Arc::new(chain), trial.clone());
        Ok((trial, rpc))
    }

    /// Moves the clock.
    pub fn pass_ms(&self, milliseconds: u64) {
        self.now_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Lets nothing after the head be committed, until [`commit_all`](Self::commit_all).
    pub fn commit_no_more(&self) {
        self.committed.store(self.store.head().seqno.0, Ordering::Relaxed);
    }

    /// Commits everything, now and later.
    pub fn commit_all(&self, rpc: &Rpc) -> Result<(), Refusal> {
        self.committed.store(u64::MAX, Ordering::Relaxed);
        Ok(rpc.committed()?)
    }

    /// Says whether there is no room for more uncommitted transactions.
    pub fn set_busy(&self, busy: bool) {
        self.set_busy_after(if busy { 0 } else { u64::MAX });
    }

    /// Leaves room for so many uncommitted transactions more.
    pub fn set_busy_after(&self, transactions: u64) {
        self.room.store(transactions, Ordering::Relaxed);
    }

    /// From here on whoever waits for a block waits until one is sealed, and no sleep ends; before,
    /// nobody waits at all.
    pub fn let_wait(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    /// Takes back everything after `to`, as a node does whose primary is of a later view.
    pub fn take_back(&self, rpc: &Rpc, to: Seqno, view: View) -> Result<(), Refusal> {
        rpc.taken_back(&mut self.store.begin(), to)?;
        let taken_back = self.store.rollback(to, view);
        assert!(taken_back.is_ok(), "nothing is ever final here");
        Ok(())
    }

    /// What a cut of a batch does: seals the open block, if there is one, and announces it.
    pub fn seal(&self, rpc: &Rpc) -> Result<Option<Sealed>, Refusal> {
        let held = rpc.chain().hold();
        let mut tx = self.store.begin();
        let sealed = rpc.chain().seal(&mut tx, self.store.head())?;
        let committed = self.store.commit(tx, |_, _| ());
        assert!(committed.is_ok(), "nobody else commits meanwhile");
        drop(held);
        rpc.committed()?;
        self.sealed.send_modify(|sealed| *sealed += 1);
        Ok(sealed)
    }
}

impl Node for Trial {
    fn begin(&self) -> Tx {
        self.store.begin()
    }

    fn commit(&self, tx: Tx, claims: Digest) -> Result<TxId, CommitRefusal> {
        let take = |room: u64| if room == u64::MAX { Some(room) } else { room.checked_sub(1) };
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(CommitRefusal::Busy);
        }
        let keep = |tx_id: TxId, _| self.claims.lock().insert(tx_id.seqno, claims);
        let committed = self.store.commit(tx, keep);
        committed.map(|committed| committed.tx_id()).map_err(|_| CommitRefusal::Conflict)
    }

    fn is_primary(&self) -> bool {
        true
    }

    fn forward(
        &self,
        _message: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, ForwardRefusal>> + Send + 'static>> {
        Box::pin(std::future::ready(Err(ForwardRefusal::NotNow)))
    }

    fn last_committed(&self) -> TxId {
        let seqno = Seqno(self.committed.load(Ordering::Relaxed));
        TxId { view: self.store.view(), seqno }
    }

    /// Nobody cuts batches here but whoever calls [`seal`](Trial::seal).
    fn wait_committed(
        &self,
        _position: Seqno,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        if !self.patient.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(()));
        }
        let mut sealed = self.sealed.subscribe();
        Box::pin(async move {
            let _ = sealed.changed().await;
        })
    }

    fn wait_for(&self, tx_id: TxId) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.wait_committed(tx_id.seqno)
    }

    /// There is no ledger to sign anything: what the receipt would claim, and nothing else.
    fn receipt(
        &self,
        position: Seqno,
    ) -> Pin<Box<dyn Future<Output = Option<serde_json::Value>> + Send + '_>> {
        let claims = self.claims.lock().get(&position).copied();
        let shown =
            |claims: Digest| json!({"claims_digest": alloy_primitives::hex::encode(claims.0)});
        Box::pin(std::future::ready(claims.map(shown)))
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn randomness(&self) -> B256 {
        keccak256(self.drawn.fetch_add(1, Ordering::Relaxed).to_be_bytes())
    }

    fn sleep(&self, _milliseconds: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        if self.patient.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(()))
    }
}
