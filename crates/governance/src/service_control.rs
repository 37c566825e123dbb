//! What governance needs of the node's keys.

use std::sync::Arc;

use coco_crypto::KeyPair;
use coco_kv::Seqno;
use coco_ledger::LedgerSecret;

/// The part of the node that holds the service's keys; implemented by the enclave. Everything else
/// that an action may want of the node goes through its transaction and its
/// [`Outcome`](coco_adapter::Outcome).
pub trait ServiceControl: Send + Sync {
    /// The key of the service's identity: endorses nodes and the previous identity.
    fn service_key(&self) -> Arc<KeyPair>;

    /// The ledger secret in use: members receive shares of it.
    fn ledger_secret(&self) -> LedgerPeriod;

    /// The one before it, which is recorded encrypted under the one in use.
    fn previous_ledger_secret(&self) -> Option<LedgerPeriod>;
}

/// A ledger secret with its place in the chain of secrets.
#[derive(Clone, Debug)]
pub struct LedgerPeriod {
    /// The secret is valid from here.
    pub valid_from: Seqno,
    /// The secret.
    pub secret: Arc<LedgerSecret>,
    /// Where the one before it was recorded in `historical_encrypted_ledger_secret`.
    pub previous_stored_at: Option<Seqno>,
}
