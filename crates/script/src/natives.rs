//! What `apply` may ask of the node.

use coco_kv::{Seqno, Tx};

/// The natives that only the constitution's `apply` sees, supplied by governance.
///
/// Every effect goes through the transaction; the text of an error becomes the message of the
/// exception that the script sees.
#[allow(unused_variables, reason = "the defaults refuse whatever they are given")]
pub trait ApplyNatives {
    /// `ccf.node.triggerLedgerRekey()`
    fn trigger_ledger_rekey(&self, tx: &mut Tx) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.node.triggerLedgerRekey"))
    }

    /// `ccf.node.transitionServiceToOpen(previousIdentity?, nextIdentity)`; both PEM.
    fn transition_service_to_open(
        &self,
        tx: &mut Tx,
        previous_identity: Option<&[u8]>,
        next_identity: &[u8],
    ) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.node.transitionServiceToOpen"))
    }

    /// `ccf.node.triggerRecoverySharesRefresh()`
    fn trigger_recovery_shares_refresh(&self, tx: &mut Tx) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.node.triggerRecoverySharesRefresh"))
    }

    /// `ccf.node.triggerLedgerChunk()`
    fn trigger_ledger_chunk(&self, tx: &mut Tx) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.node.triggerLedgerChunk"))
    }

    /// `ccf.node.triggerSnapshot()`
    fn trigger_snapshot(&self, tx: &mut Tx) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.node.triggerSnapshot"))
    }

    /// `ccf.network.getLatestLedgerSecretSeqno()`
    fn latest_ledger_secret_seqno(&self, tx: &mut Tx) -> Result<Seqno, NativeError> {
        Err(NativeError::unsupported("ccf.network.getLatestLedgerSecretSeqno"))
    }

    /// `ccf.network.generateEndorsedCertificate(csrPem, validFrom, days)`: a PEM certificate.
    fn generate_endorsed_certificate(
        &self,
        tx: &mut Tx,
        csr_pem: &str,
        valid_from: &str,
        validity_days: u32,
    ) -> Result<String, NativeError> {
        Err(NativeError::unsupported("ccf.network.generateEndorsedCertificate"))
    }

    /// `ccf.network.generateNetworkCertificate(validFrom, days)`: a PEM certificate.
    fn generate_network_certificate(
        &self,
        tx: &mut Tx,
        valid_from: &str,
        validity_days: u32,
    ) -> Result<String, NativeError> {
        Err(NativeError::unsupported("ccf.network.generateNetworkCertificate"))
    }

    /// `ccf.refreshAppBytecodeCache()`
    fn refresh_app_bytecode_cache(&self, tx: &mut Tx) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.refreshAppBytecodeCache"))
    }

    /// `ccf.setJwtPublicSigningKeys(issuer, metadata, jwks)`; `metadata` and `jwks` as JSON.
    fn set_jwt_public_signing_keys(
        &self,
        tx: &mut Tx,
        issuer: &str,
        metadata: &serde_json::Value,
        jwks: &serde_json::Value,
    ) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.setJwtPublicSigningKeys"))
    }

    /// `ccf.removeJwtPublicSigningKeys(issuer)`
    fn remove_jwt_public_signing_keys(&self, tx: &mut Tx, issuer: &str) -> Result<(), NativeError> {
        Err(NativeError::unsupported("ccf.removeJwtPublicSigningKeys"))
    }
}

/// A native refused. The script sees the text as an exception's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NativeError(pub String);

impl NativeError {
    /// A refusal with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn unsupported(native: &str) -> Self {
        Self(format!("{native} is not supported by this node"))
    }
}
