//! Tables of the node itself that governance writes: key custody and the chain of identities.

use std::collections::BTreeMap;

use coco_crypto::Digest;
use serde::{Deserialize, Serialize};

use super::codec::json_values;
use super::{Base64, Cell, Table, tables};

tables! {
    /// The latest ledger secret, wrapped, and the members' shares of the wrapping key.
    RECOVERY_SHARES: Cell<RecoveryShares> = "public:ccf.internal.recovery_shares";
    /// The previous ledger secret, encrypted under the latest one.
    HISTORICAL_ENCRYPTED_LEDGER_SECRET: Cell<HistoricalLedgerSecret> =
        "public:ccf.internal.historical_encrypted_ledger_secret";
    /// Node id -> ledger secrets encrypted to the node.
    ENCRYPTED_LEDGER_SECRETS: Cell<BTreeMap<String, Vec<EncryptedLedgerSecret>>> =
        "public:ccf.internal.encrypted_ledger_secrets";
    /// Member id -> the share the member submitted, encrypted under the latest ledger secret.
    ENCRYPTED_SUBMITTED_SHARES: Table<Digest, Base64> =
        "public:ccf.internal.encrypted_submitted_shares";
    /// The previous service's identity, endorsed by the present one.
    PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT: Cell<IdentityEndorsement> =
        "public:ccf.internal.previous_service_identity_endorsement";
    /// The last Merkle root that the previous service signed, 64 hex digits.
    PREVIOUS_SERVICE_LAST_SIGNED_ROOT: Cell<Digest> =
        "public:ccf.internal.previous_service_last_signed_root";
    /// How the last recovery got its secrets.
    LAST_RECOVERY_TYPE: Cell<RecoveryType> = "public:ccf.internal.last_recovery_type";
}

/// Shares of the latest ledger secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryShares {
    /// The latest ledger secret under the wrapping key: tag 16, IV 12, ciphertext 32.
    pub wrapped_latest_ledger_secret: Base64,
    /// Member id -> share, RSA-OAEP under the member's encryption key.
    pub encrypted_shares: BTreeMap<String, Base64>,
    /// Where the previous secret was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_stored_version: Option<u64>,
}

/// A past ledger secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousLedgerSecret {
    /// The secret under the latest one: tag 16, IV 12, ciphertext 32.
    pub encrypted_data: Base64,
    /// It is valid from here.
    pub version: u64,
    /// Where the one before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_stored_version: Option<u64>,
}

/// One link of the chain of ledger secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoricalLedgerSecret {
    /// The previous secret; none at the first issue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_ledger_secret: Option<PreviousLedgerSecret>,
    /// The latest secret is valid from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_version: Option<u64>,
}

/// A ledger secret for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptedLedgerSecret {
    /// RSA-OAEP under the node's encryption key.
    pub encrypted_secret: Base64,
    /// It is valid from here; absent after a rekey: from the next transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Where the one before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_stored_version: Option<u64>,
}

/// One link of the chain of service identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityEndorsement {
    /// COSE_Sign1 over the endorsed public key (DER SPKI).
    pub endorsement: Base64,
    /// The key that signed it, DER SPKI.
    pub endorsing_key: Base64,
    /// The endorsed identity's first transaction, `view.seqno`.
    pub endorsement_epoch_begin: String,
    /// Its last signed transaction; absent while it is the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsement_epoch_end: Option<String>,
    /// Where the link before this one was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<u64>,
}

/// How a recovery got its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryType {
    /// No recovery so far.
    #[serde(rename = "NONE")]
    None,
    /// From members' shares.
    #[serde(rename = "RECOVERY_SHARES")]
    RecoveryShares,
    /// From secrets sealed by the TEE.
    #[serde(rename = "LOCAL_UNSEALING")]
    LocalUnsealing,
}

json_values!(
    RecoveryShares,
    HistoricalLedgerSecret,
    BTreeMap<String, Vec<EncryptedLedgerSecret>>,
    IdentityEndorsement,
    RecoveryType,
);
