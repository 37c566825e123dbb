//! A service that goes on from the ledger of another, whose nodes are all gone.
//!
//! ```text
//!   recover_service          members approve both         the ledger secrets
//!   new identity, new node   identities by proposal       are at hand
//!         Recovering  ─────▶  WaitingForRecoveryShares ─────▶  Open
//! ```
//!
//! A host that brings back an old disk gets no further than the first arrow: what it starts has an
//! identity that nobody trusts, until members vote for exactly that identity as the successor of
//! the last one. They see on the ledger which root it goes on from.

use coco_adapter::Environment;
use coco_crypto::{Certificate, CertificateError, Digest};
use coco_kv::{Seqno, Tx, TxId, View};

use crate::custody::{self, CustodyError};
use crate::genesis::{NewNode, TrustedCode, trust_node};
use crate::tables::{
    CodeStatus, ENCRYPTED_SUBMITTED_SHARES, LAST_RECOVERY_TYPE, NODES, NodeStatus,
    PREVIOUS_SERVICE_IDENTITY, PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT,
    PREVIOUS_SERVICE_LAST_SIGNED_ROOT, Pem, RecoveryType, SERVICE_INFO, ServiceInfo, ServiceStatus,
    TableError, VIRTUAL_HOST_DATA, VIRTUAL_MEASUREMENTS,
};
use crate::{ServiceControl, renew_custody};

/// A recovery begins in a view that is this much later than the last one on the ledger, so that no
/// view is taken twice.
pub const RECOVERY_VIEW_STEP: u64 = 2;

/// A service that goes on from the ledger of another.
#[derive(Clone, Debug)]
pub struct RecoveredService {
    /// Its own, new, certificate.
    pub cert: Pem,
    /// The last Merkle root that the service before it signed.
    pub last_signed_root: Digest,
    /// Its first node.
    pub node: NewNode,
}

/// A service cannot go on from this ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// Its members have never opened it: there is nothing to recover.
    #[error("the service on the ledger is {}; only one that was opened is recovered", .0.as_str())]
    NotOpen(ServiceStatus),
    /// The members have removed this code, or have never trusted it.
    #[error(
        "the service on the ledger does not trust this code ({0}); its members must add it first"
    )]
    UntrustedCode(TrustedCode),
    /// A governed table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Writes the first transaction of a service that recovers another; `create_tx_id` is the id it
/// will have. Every other node is retired.
pub fn recover_service(
    tx: &mut Tx,
    service: &RecoveredService,
    create_tx_id: TxId,
) -> Result<(), RecoverError> {
    let previous = SERVICE_INFO.expect(tx)?;
    if previous.status != ServiceStatus::Open {
        return Err(RecoverError::NotOpen(previous.status));
    }
    require_trusted(tx, &service.node.code)?;
    PREVIOUS_SERVICE_IDENTITY.put(tx, &previous.cert.0);
    PREVIOUS_SERVICE_LAST_SIGNED_ROOT.put(tx, &service.last_signed_root);
    let info = ServiceInfo {
        cert: service.cert.clone(),
        status: ServiceStatus::Recovering,
        previous_service_identity_version: SERVICE_INFO.version(tx).map(|seqno| seqno.0),
        recovery_count: Some(previous.recovery_count.unwrap_or_default() + 1),
        service_data: previous.service_data,
        current_service_create_txid: Some(create_tx_id.to_string()),
    };
    SERVICE_INFO.put(tx, &info);
    retire_nodes(tx)?;
    trust_node(tx, &service.node);
    Ok(())
}

/// The code is still what members let join: a recovery gives no trust that they have taken away.
fn require_trusted(tx: &mut Tx, code: &TrustedCode) -> Result<(), RecoverError> {
    let TrustedCode::Virtual { measurement, host_data } = code;
    let is_measured = VIRTUAL_MEASUREMENTS.get(tx, measurement)? == Some(CodeStatus::AllowedToJoin);
    if is_measured && VIRTUAL_HOST_DATA.has(tx, host_data) {
        return Ok(());
    }
    Err(RecoverError::UntrustedCode(code.clone()))
}

fn retire_nodes(tx: &mut Tx) -> Result<(), TableError> {
    for (id, mut old) in NODES.rows(tx)? {
        match old.status {
            NodeStatus::Pending => {
                NODES.remove(tx, &id);
                continue;
            }
            NodeStatus::Trusted => old.status = NodeStatus::Retired,
            // What this transaction reads is committed, the retirement with it.
            NodeStatus::Retired => old.retired_committed = true,
        }
        NODES.put(tx, &id, &old);
    }
    Ok(())
}

/// The members have agreed to a recovery.
pub(crate) fn approve(
    tx: &mut Tx,
    mut service: ServiceInfo,
    previous_identity: Option<&[u8]>,
) -> Result<(), ApproveError> {
    let known = PREVIOUS_SERVICE_IDENTITY.get(tx)?.unwrap_or_default();
    match previous_identity {
        None => return Err(ApproveError::PreviousMissing),
        Some(given) if given != known.as_bytes() => return Err(ApproveError::PreviousOther),
        Some(_) => {}
    }
    service.status = ServiceStatus::WaitingForRecoveryShares;
    SERVICE_INFO.put(tx, &service);
    ENCRYPTED_SUBMITTED_SHARES.clear(tx);
    Ok(())
}

/// Members cannot agree to a recovery like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApproveError {
    #[error("opening a recovering service needs the previous service identity")]
    PreviousMissing,
    #[error("the previous service identity does not match the one that this service recovers")]
    PreviousOther,
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A recovery cannot be ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompleteError {
    /// Shares cannot be issued.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// The certificate of the service before is not one.
    #[error("the previous service's certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// A governed table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Writes the transaction that opens a recovered service whose members have agreed and whose ledger
/// secrets are at hand, unsealed by the TEE. Whether there was one to open.
pub fn complete_recovery(
    tx: &mut Tx,
    control: &dyn ServiceControl,
    environment: &dyn Environment,
) -> Result<bool, CompleteError> {
    let mut service = SERVICE_INFO.expect(tx)?;
    if service.status != ServiceStatus::WaitingForRecoveryShares {
        return Ok(false);
    }
    endorse_previous_identity(tx, control, environment, &service)?;
    ENCRYPTED_SUBMITTED_SHARES.clear(tx);
    LAST_RECOVERY_TYPE.put(tx, &RecoveryType::LocalUnsealing);
    service.status = ServiceStatus::Open;
    service.previous_service_identity_version = SERVICE_INFO.version(tx).map(|seqno| seqno.0);
    SERVICE_INFO.put(tx, &service);
    renew_custody(tx, control, environment.entropy())?;
    Ok(true)
}

/// Adds the service before this one to the chain of identities. Its epoch begins where that before
/// it ended, and ends with the last signature before this service's first transaction.
fn endorse_previous_identity(
    tx: &mut Tx,
    control: &dyn ServiceControl,
    environment: &dyn Environment,
    service: &ServiceInfo,
) -> Result<(), CompleteError> {
    let Some(latest) = PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.get(tx)? else {
        tracing::warn!("the previous service has no endorsement to go on from; none is recorded");
        return Ok(());
    };
    let created_at = service.current_service_create_txid.as_ref();
    let created_at = created_at.and_then(|text| text.parse::<TxId>().ok()).unwrap_or_default();
    let end = TxId {
        view: View(created_at.view.0.saturating_sub(RECOVERY_VIEW_STEP)),
        seqno: Seqno(created_at.seqno.0.saturating_sub(1)),
    };
    let begin = match latest.endorsement_epoch_end.as_ref().map(|end| end.parse::<TxId>()) {
        Some(Ok(end)) => {
            let view = View(end.view.0 + RECOVERY_VIEW_STEP);
            TxId { view, seqno: end.seqno.next() }.to_string()
        }
        _ => latest.endorsement_epoch_begin,
    };
    let previous = PREVIOUS_SERVICE_IDENTITY.expect(tx)?;
    let key = Certificate::from_pem(&previous)?.public_key()?;
    let epoch = custody::Epoch {
        begin,
        end: Some((end, PREVIOUS_SERVICE_LAST_SIGNED_ROOT.expect(tx)?)),
        previous_version: PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.version(tx).map(|seqno| seqno.0),
    };
    let now_s = environment.now_ms() / 1_000;
    let endorsement = custody::endorse_identity(control, &key, epoch, now_s);
    PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.put(tx, &endorsement);
    Ok(())
}
