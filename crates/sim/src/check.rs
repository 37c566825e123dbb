//! What must hold in every run, noted while it goes on.

use std::collections::{BTreeMap, BTreeSet};

use coco_consensus::NodeId;
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, View};

use crate::node::{Commit, Outcome};

/// The service's one history, as far as any node has it committed.
#[derive(Default)]
pub struct Checker {
    /// Committed batches, by their last position, with the root there.
    committed: BTreeMap<Seqno, (TxId, Digest)>,
    /// How far each node has it.
    by_node: BTreeMap<NodeId, Seqno>,
    /// Clients' writes in it, by key.
    writes: BTreeMap<u64, Vec<(Seqno, u64)>>,
    written: BTreeSet<u64>,
    /// Values whose write was called void.
    invalid: BTreeSet<u64>,
    /// Who led each view.
    primaries: BTreeMap<View, NodeId>,
    /// What was encrypted at each position.
    encrypted: BTreeMap<TxId, Digest>,
    /// The furthest position that any client was told of.
    told: Seqno,
}

impl Checker {
    /// The last committed position.
    pub fn committed(&self) -> Seqno {
        self.committed.last_key_value().map_or(Seqno(0), |(seqno, _)| *seqno)
    }

    /// How many batches are committed.
    pub fn batches(&self) -> usize {
        self.committed.len()
    }

    /// How many views had a primary.
    pub fn views(&self) -> usize {
        self.primaries.len()
    }

    /// The furthest position that any client was told of: what begins now must see it.
    pub fn told(&self) -> Seqno {
        self.told
    }

    /// The committed batch that ends at a position.
    pub fn batch_at(&self, seqno: Seqno) -> Option<TxId> {
        self.committed.get(&seqno).map(|(tx_id, _)| *tx_id)
    }

    /// Whether a transaction is committed; `None` as long as nothing at its position is.
    pub fn is_committed(&self, tx_id: TxId) -> Option<bool> {
        let batch = self.committed.range(tx_id.seqno..).next();
        batch.map(|(_, (last, _))| last.view == tx_id.view)
    }

    /// A node has a position committed. `is_durable` says whether enough disks hold it, `is_counted`
    /// whether enough logs go on to an entry of the committing primary's view, `misleading`
    /// whose disk could lead a recovery past it.
    pub fn commit(
        &mut self,
        node: NodeId,
        commit: &Commit,
        is_durable: impl FnOnce() -> bool,
        is_counted: impl FnOnce() -> bool,
        misleading: impl FnOnce() -> Option<NodeId>,
    ) -> Result<(), String> {
        let Commit { tx_id, root, writes, .. } = commit;
        let before = self.by_node.insert(node, tx_id.seqno).unwrap_or_default();
        if before > tx_id.seqno {
            return Err(format!("{node:?} goes back from {before} to {}", tx_id.seqno));
        }
        match self.committed.get(&tx_id.seqno) {
            Some(known) if *known == (*tx_id, *root) => return Ok(()),
            Some((known, _)) => {
                return Err(format!("{node:?} has {tx_id} committed, others {known}"));
            }
            None => {}
        }
        if tx_id.seqno < self.committed() {
            // A node may learn of several batches at once; each is checked when it ends one.
            return Err(format!(
                "{node:?} has {tx_id} committed, where others have no batch's end"
            ));
        }
        if !is_durable() {
            return Err(format!("{tx_id} is committed and not on the disks of a quorum"));
        }
        if !is_counted() {
            return Err(format!("{tx_id} is committed by counting entries of a former view"));
        }
        if let Some(other) = misleading() {
            return Err(format!("{tx_id} is committed, and the disk of {other:?} could lose it"));
        }
        self.committed.insert(tx_id.seqno, (*tx_id, *root));
        for (seqno, key, value) in writes {
            if self.invalid.contains(value) {
                return Err(format!("the write at {seqno} was called void and is committed"));
            }
            self.written.insert(*value);
            self.writes.entry(*key).or_default().push((*seqno, *value));
        }
        Ok(())
    }

    /// A node's identity begins anew.
    pub fn forget(&mut self, node: NodeId) {
        self.by_node.remove(&node);
    }

    /// A node took back a batch.
    pub fn take_back(&self, node: NodeId, last: TxId) -> Result<(), String> {
        match self.batch_at(last.seqno) {
            Some(committed) if committed == last => {
                Err(format!("{node:?} takes back {last}, which is committed"))
            }
            _ => Ok(()),
        }
    }

    /// A node begins to lead.
    pub fn lead(&mut self, node: NodeId, view: View) -> Result<(), String> {
        match self.primaries.insert(view, node) {
            Some(other) if other != node => {
                Err(format!("{other:?} and {node:?} both lead view {view}"))
            }
            _ => Ok(()),
        }
    }

    /// A node encrypted an entry.
    pub fn encrypt(&mut self, node: NodeId, tx_id: TxId, entry: Digest) -> Result<(), String> {
        match self.encrypted.insert(tx_id, entry) {
            Some(_) => Err(format!("{node:?} encrypts twice under the nonce of {tx_id}")),
            None => Ok(()),
        }
    }

    /// A client has an answer. `told` is what [`told`](Self::told) was when it asked.
    pub fn answer(
        &mut self,
        key: u64,
        value: u64,
        told: Seqno,
        outcome: Outcome,
    ) -> Result<(), String> {
        match outcome {
            Outcome::Committed(tx_id) => {
                if tx_id.seqno <= told {
                    return Err(format!("a write at {tx_id} began after {told} was answered"));
                }
                if tx_id.seqno > self.committed() || !self.written.contains(&value) {
                    return Err(format!(
                        "a write is answered with {tx_id}, which is not committed"
                    ));
                }
                self.told = self.told.max(tx_id.seqno);
            }
            Outcome::Invalid => {
                if self.written.contains(&value) {
                    return Err("a committed write is called void".into());
                }
                self.invalid.insert(value);
            }
            Outcome::Read(read, at) => {
                if at < told {
                    return Err(format!("a read at {at} began after {told} was answered"));
                }
                let writes = self.writes.get(&key).map_or(&[][..], Vec::as_slice);
                let until = writes.partition_point(|(seqno, _)| *seqno <= at);
                let last = writes.get(..until).and_then(<[_]>::last).map(|(_, value)| *value);
                if read != last {
                    return Err(format!("a read at {at} saw {read:?} instead of {last:?}"));
                }
                self.told = self.told.max(at);
            }
        }
        Ok(())
    }
}
