//! What an audit found.

use std::collections::BTreeMap;

use coco_kv::TxId;

use super::service::ServiceIdentity;
use crate::history::ViewHistory;

/// What was counted on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditStats {
    /// Files read.
    pub chunks: u64,
    /// Entries read.
    pub entries: u64,
    /// Bytes of entries read.
    pub bytes: u64,
    /// Entries with encrypted writes.
    pub private_entries: u64,
    /// Entries that were decrypted and whose commit evidence was made again.
    pub decrypted: u64,
    /// Signature transactions verified.
    pub signatures: u64,
    /// Signatures by nodes among them.
    pub node_signatures: u64,
    /// Signatures by the service among them.
    pub service_signatures: u64,
    /// Writes by map; private maps only if secrets were given.
    pub maps: BTreeMap<String, MapCounts>,
}

impl AuditStats {
    pub(super) fn count(&mut self, map: &str, puts: usize, removals: usize) {
        if !self.maps.contains_key(map) {
            self.maps.insert(map.to_owned(), MapCounts::default());
        }
        if let Some(counts) = self.maps.get_mut(map) {
            counts.puts += puts as u64;
            counts.removals += removals as u64;
        }
    }
}

/// Writes to one map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapCounts {
    /// Keys put.
    pub puts: u64,
    /// Keys removed.
    pub removals: u64,
}

/// A ledger that passed.
#[derive(Clone, Debug)]
pub struct AuditReport {
    /// The last signature transaction: everything before it is authentic.
    pub last_signed: TxId,
    /// The last entry.
    pub last: TxId,
    /// Where each view begins.
    pub views: ViewHistory,
    /// The service's identities up to the one that vouches for the last signature transaction.
    pub identities: Vec<ServiceIdentity>,
    /// File and offset from which the end of the ledger was left out, if it is torn and that was
    /// accepted.
    pub torn_tail: Option<(String, u64)>,
    /// What was counted.
    pub stats: AuditStats,
}

impl AuditReport {
    /// Entries behind the last signature transaction, which nobody vouches for.
    pub fn unsigned(&self) -> u64 {
        self.last.seqno.0 - self.last_signed.seqno.0
    }
}
