//! Custody of the ledger secret: who receives which share, and the identities that vouch for it.
//!
//! ```text
//! full key ──▶ wrapping key ──▶ wraps the latest ledger secret        recovery_shares
//!    │ split, threshold of n
//!    ├──▶ a share for each participant, under the member's RSA key     recovery_shares
//!    └──▶ the full key for each owner, under the member's RSA key      recovery_shares
//! latest ledger secret ──▶ encrypts the one before it                  historical_encrypted_...
//! ```

use std::collections::BTreeMap;

use coco_crypto::cose::{Header, label};
use coco_crypto::{
    CoseSign1, Digest, Entropy, GcmCipher, KeyError, PublicKey, RsaError, RsaPublicKey, Share,
    SharingError, cbor,
};
use coco_kv::{Tx, TxId};

use crate::ServiceControl;
use crate::tables::{
    Base64, HISTORICAL_ENCRYPTED_LEDGER_SECRET, HistoricalLedgerSecret, IdentityEndorsement,
    MEMBER_ENCRYPTION_KEYS, MEMBERS, MemberInfo, MemberStatus, PreviousLedgerSecret,
    RECOVERY_SHARES, RecoveryRole, RecoveryShares, SERVICE_CONFIG, SERVICE_INFO, ServiceInfo,
    ServiceStatus, TableError,
};

/// Why shares cannot be issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// Nobody could recover the service.
    #[error(
        "there are {members} active recovery participants, fewer than the threshold of {threshold}"
    )]
    TooFewMembers {
        /// How many there are.
        members: usize,
        /// How many are needed.
        threshold: u64,
    },
    /// There are more members than shares can be made.
    #[error("there are {members} active recovery participants, more than {limit}")]
    TooManyMembers {
        /// How many there are.
        members: usize,
        /// How many there may be.
        limit: u8,
    },
    /// A member's encryption key is no RSA key.
    #[error("the encryption key of member {member}: {error}")]
    MemberKey {
        /// The member.
        member: Digest,
        /// What is wrong with it.
        error: KeyError,
    },
    /// Encrypting a share failed.
    #[error("the share of member {member}: {error}")]
    Encrypt {
        /// The member.
        member: Digest,
        /// What went wrong.
        error: RsaError,
    },
    /// Splitting failed.
    #[error(transparent)]
    Sharing(#[from] SharingError),
    /// A governed table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Issues new shares of the latest ledger secret to the active recovery members, replacing the old
/// ones, and records the secret before it.
pub(crate) fn issue_recovery_shares(
    tx: &mut Tx,
    control: &dyn ServiceControl,
    entropy: &dyn Entropy,
) -> Result<(), CustodyError> {
    let threshold = SERVICE_CONFIG.expect(tx)?.recovery_threshold;
    let holders = Holders::of(tx)?;
    let members = holders.participants.len();
    let needed = usize::try_from(threshold.max(1)).unwrap_or(usize::MAX);
    // Shares are of no use unless they reach the threshold. Owners hold none: they recover alone,
    // and a service may have nobody else.
    if members < needed && (members > 0 || holders.owners.is_empty()) {
        return Err(CustodyError::TooFewMembers { members, threshold });
    }

    let full_key = Share::generate_secret(entropy)?;
    let latest = control.ledger_secret();
    // The wrapping key is used once, so that its nonce may be zero, as CCF has it.
    let key = latest.secret.key().as_bytes();
    let wrapped = GcmCipher::seal(&full_key.wrapping_key(), [0; 12], b"", key);
    let shares = RecoveryShares {
        wrapped_latest_ledger_secret: Base64(wrapped.encode()),
        encrypted_shares: holders.encrypt(&full_key, threshold, entropy)?,
        previous_secret_stored_version: latest.previous_stored_at.map(|seqno| seqno.0),
    };
    RECOVERY_SHARES.put(tx, &shares);
    record_previous_secret(tx, control, entropy);
    Ok(())
}

/// Gives a ledger secret that has just come into use into the members' custody: the one before it
/// is recorded, and if the service is open and shares can be issued, the members get new ones.
pub fn renew_custody(
    tx: &mut Tx,
    control: &dyn ServiceControl,
    entropy: &dyn Entropy,
) -> Result<(), CustodyError> {
    record_previous_secret(tx, control, entropy);
    if SERVICE_INFO.expect(tx)?.status != ServiceStatus::Open {
        return Ok(());
    }
    match issue_recovery_shares(tx, control, entropy) {
        Err(CustodyError::Table(error)) => Err(error.into()),
        // Whatever members' keys and numbers are by now, the service must run. The shares that
        // members hold still recover everything before this secret.
        Err(error) => {
            tracing::warn!(%error, "no recovery shares were issued");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Records the secret before the latest, encrypted under the latest.
fn record_previous_secret(tx: &mut Tx, control: &dyn ServiceControl, entropy: &dyn Entropy) {
    let latest = control.ledger_secret();
    let previous_ledger_secret = control.previous_ledger_secret().map(|previous| {
        let raw = previous.secret.key().as_bytes();
        let sealed = GcmCipher::seal_random(latest.secret.key(), entropy, b"", raw);
        PreviousLedgerSecret {
            encrypted_data: Base64(sealed.encode()),
            version: previous.valid_from.0,
            previous_secret_stored_version: previous.previous_stored_at.map(|seqno| seqno.0),
        }
    });
    let next_version = Some(latest.valid_from.0);
    let history = HistoricalLedgerSecret { previous_ledger_secret, next_version };
    HISTORICAL_ENCRYPTED_LEDGER_SECRET.put(tx, &history);
}

/// The epoch of a service identity, as its endorsement tells it.
pub(crate) struct Epoch {
    /// Its first transaction, `view.seqno`.
    pub begin: String,
    /// Its last signature, and the root that was signed; none while it goes on.
    pub end: Option<(TxId, Digest)>,
    /// Where the endorsement before this one was recorded.
    pub previous_version: Option<u64>,
}

/// The endorsement with which a service that has no predecessor starts its chain of identities: it
/// endorses itself, from its first transaction.
pub(crate) fn endorse_own_identity(
    control: &dyn ServiceControl,
    service: &ServiceInfo,
    issued_at_s: u64,
) -> IdentityEndorsement {
    let begin = service.current_service_create_txid.clone().unwrap_or_default();
    let epoch = Epoch { begin, end: None, previous_version: None };
    endorse_identity(control, control.service_key().public(), epoch, issued_at_s)
}

/// The service's endorsement of an identity.
pub(crate) fn endorse_identity(
    control: &dyn ServiceControl,
    endorsed: &PublicKey,
    epoch: Epoch,
    issued_at_s: u64,
) -> IdentityEndorsement {
    let key = control.service_key();
    let text = |text: &str| cbor::Value::Text(text.to_owned());
    let number = |number: u64| cbor::Value::Int(i128::from(number));
    let claims = cbor::Value::Map(vec![(number(6), number(issued_at_s))]);
    let mut described = vec![(text("epoch.start.txid"), text(&epoch.begin))];
    if let Some((end, root)) = &epoch.end {
        described.push((text("epoch.end.txid"), text(&end.to_string())));
        described.push((text("epoch.end.merkle.root"), cbor::Value::Bytes(root.0.to_vec())));
    }
    let protected = Header::for_key(key.public())
        .with(label::CWT_CLAIMS, claims)
        .with("ccf.v1", cbor::Value::Map(described));
    let endorsement = CoseSign1::sign(protected, endorsed.spki_der().to_vec(), &key);
    IdentityEndorsement {
        endorsement: Base64(endorsement.encode()),
        endorsing_key: Base64(key.public().spki_der().to_vec()),
        endorsement_epoch_begin: epoch.begin,
        endorsement_epoch_end: epoch.end.map(|(end, _)| end.to_string()),
        previous_version: epoch.previous_version,
    }
}

/// Whether a member holds something that recovers the service.
pub(crate) fn is_recovery_member(tx: &mut Tx, id: &Digest, info: &MemberInfo) -> bool {
    info.recovery_role != Some(RecoveryRole::NonParticipant) && MEMBER_ENCRYPTION_KEYS.has(tx, id)
}

/// The active recovery members with their keys.
struct Holders {
    participants: BTreeMap<Digest, RsaPublicKey>,
    owners: BTreeMap<Digest, RsaPublicKey>,
}

impl Holders {
    fn of(tx: &mut Tx) -> Result<Self, CustodyError> {
        let mut holders = Self { participants: BTreeMap::new(), owners: BTreeMap::new() };
        for (member, info) in MEMBERS.rows(tx)? {
            let Some(pem) = MEMBER_ENCRYPTION_KEYS.get(tx, &member)? else { continue };
            if info.status != MemberStatus::Active {
                continue;
            }
            let group = match info.recovery_role {
                Some(RecoveryRole::NonParticipant) => continue,
                Some(RecoveryRole::Owner) => &mut holders.owners,
                Some(RecoveryRole::Participant) | None => &mut holders.participants,
            };
            let key = RsaPublicKey::from_pem(&pem.0)
                .map_err(|error| CustodyError::MemberKey { member, error })?;
            group.insert(member, key);
        }
        Ok(holders)
    }

    fn encrypt(
        &self,
        full_key: &Share,
        threshold: u64,
        entropy: &dyn Entropy,
    ) -> Result<BTreeMap<String, Base64>, CustodyError> {
        let members = self.participants.len();
        let limit = coco_crypto::sharing::MAX_SHARES;
        let too_many = CustodyError::TooManyMembers { members, limit };
        let count = u8::try_from(members).map_err(|_| too_many)?;
        let shares = if count == 0 {
            Vec::new()
        } else {
            let threshold = u8::try_from(threshold.max(1)).unwrap_or(u8::MAX);
            full_key.split(threshold, count, entropy)?
        };
        let owned = self.owners.iter().map(|holder| (holder, full_key));
        let mut encrypted = BTreeMap::new();
        for ((member, key), share) in self.participants.iter().zip(&shares).chain(owned) {
            let text = key
                .encrypt_oaep(share.encode().as_slice(), b"")
                .map_err(|error| CustodyError::Encrypt { member: *member, error })?;
            encrypted.insert(member.to_string(), Base64(text));
        }
        Ok(encrypted)
    }
}
