//! Policies over the TLS client certificate.

use std::sync::Arc;

use coco_adapter::Caller;
use coco_governance::tables::{
    MEMBER_CERTS, MEMBERS, MemberInfo, NODES, NodeStatus, TableValue, USER_CERTS, USERS, UserInfo,
};
use coco_kv::{MapName, Tx, Value};
use serde_json::Value as Json;

use super::remembered::{KnownCaller, Remembered};
use super::{Credentials, Refusal};
use crate::session::PeerCertificate;

/// A registered participant, within the certificate's validity.
pub(super) fn user(
    credentials: &Credentials<'_>,
    remembered: &mut Remembered,
    tx: &mut Tx,
) -> Result<Arc<Caller>, Refusal> {
    let peer = presented(credentials, "No caller user certificate.")?;
    valid(peer, credentials.now_s)?;
    let (certificate, info) = rows(tx, peer, USER_CERTS.name(), USERS.name());
    let certificate =
        certificate.ok_or_else(|| Refusal::new("Could not find matching user certificate."))?;
    recall(&mut remembered.user, certificate, info, |info| {
        let data = info
            .map_or(Ok(Json::Null), |info| UserInfo::from_bytes(info).map(|info| info.user_data));
        let data = data.map_err(|_| Refusal::new("The caller's data cannot be read."))?;
        Ok(Caller::UserCert { id: peer.fingerprint, cert: peer.pem.clone(), data })
    })
}

/// A member; the certificate's validity does not matter, as in CCF.
pub(super) fn member(
    credentials: &Credentials<'_>,
    remembered: &mut Remembered,
    tx: &mut Tx,
) -> Result<Arc<Caller>, Refusal> {
    let peer = presented(credentials, "No caller member certificate.")?;
    let (certificate, info) = rows(tx, peer, MEMBER_CERTS.name(), MEMBERS.name());
    let certificate =
        certificate.ok_or_else(|| Refusal::new("Could not find matching member certificate."))?;
    recall(&mut remembered.member, certificate, info, |info| {
        let data = info.map_or(Ok(Json::Null), |info| {
            MemberInfo::from_bytes(info).map(|info| info.member_data)
        });
        let data = data.map_err(|_| Refusal::new("The caller's data cannot be read."))?;
        Ok(Caller::MemberCert { id: peer.fingerprint, cert: peer.pem.clone(), data })
    })
}

/// Anybody with a certificate within its validity.
pub(super) fn any(credentials: &Credentials<'_>) -> Result<Caller, Refusal> {
    let peer = presented(credentials, "No caller certificate.")?;
    valid(peer, credentials.now_s)?;
    Ok(Caller::AnyCert { cert: peer.pem.clone() })
}

/// A trusted node of this service.
pub(super) fn node(credentials: &Credentials<'_>, tx: &mut Tx) -> Result<Caller, Refusal> {
    let peer = presented(credentials, "No caller node certificate.")?;
    let id = peer.public_key_id;
    match NODES.get(tx, &id)? {
        Some(node) if node.status == NodeStatus::Trusted => Ok(Caller::Node { id }),
        _ => Err(Refusal::new("Caller is not a trusted node.")),
    }
}

fn presented<'a>(
    credentials: &Credentials<'a>,
    missing: &str,
) -> Result<&'a PeerCertificate, Refusal> {
    credentials.peer.ok_or_else(|| Refusal::new(missing))
}

fn valid(peer: &PeerCertificate, now_s: u64) -> Result<(), Refusal> {
    if peer.is_valid_at(now_s) {
        return Ok(());
    }
    Err(Refusal::new("The caller's certificate is not valid at this time."))
}

fn rows(
    tx: &mut Tx,
    peer: &PeerCertificate,
    certificates: &MapName,
    infos: &MapName,
) -> (Option<Value>, Option<Value>) {
    let key = peer.fingerprint_hex.as_bytes();
    (tx.get(certificates, key), tx.get(infos, key))
}

fn recall(
    known: &mut Option<KnownCaller>,
    certificate: Value,
    info: Option<Value>,
    read: impl FnOnce(Option<&Value>) -> Result<Caller, Refusal>,
) -> Result<Arc<Caller>, Refusal> {
    if let Some(known) = known.as_ref().filter(|known| known.still(&certificate, info.as_ref())) {
        return Ok(known.caller.clone());
    }
    let caller = Arc::new(read(info.as_ref())?);
    *known = Some(KnownCaller { certificate, info, caller: caller.clone() });
    Ok(caller)
}
