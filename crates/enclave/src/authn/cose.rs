//! Policies over a signed body: COSE_Sign1 whose key id is a member's or participant's id.

use bytes::Bytes;
use coco_adapter::{Caller, CoseEnvelope};
use coco_crypto::cbor::Value as Cbor;
use coco_crypto::{CoseSign1, Digest, HashAlgorithm, RsaPublicKey, x509};
use coco_governance::tables::{MEMBER_CERTS, MEMBERS, MemberStatus, Pem, Table, USER_CERTS, USERS};
use coco_kv::Tx;
use http::header;

use super::{Credentials, Refusal};

const MESSAGE_TYPE: &str = "ccf.gov.msg.type";
const CREATED_AT: &str = "ccf.gov.msg.created_at";
const PROPOSAL_ID: &str = "ccf.gov.msg.proposal_id";

/// COSE's identifier of RSA-PSS with SHA-256 (RFC 8230).
const PS256: i64 = -37;
const PS256_SALT_LEN_BYTES: usize = 32;

/// A parsed body with the certificate under which it has been verified.
pub(super) struct SignedBody {
    message: CoseSign1,
    signer: Digest,
    envelope: CoseEnvelope,
    verified_under: Option<Pem>,
}

/// A participant who signed the body.
pub(super) fn user(credentials: &mut Credentials<'_>, tx: &mut Tx) -> Result<Caller, Refusal> {
    let body = body(credentials)?;
    let cert = verify(body, tx, &USER_CERTS, "Signer is not a known user.")?;
    let data = USERS.get(tx, &body.signer)?.map(|info| info.user_data).unwrap_or_default();
    let envelope = body.envelope.clone();
    Ok(Caller::UserCose { id: body.signer, cert, data, envelope })
}

/// A member who signed the body as a governance message.
pub(super) fn member(
    credentials: &mut Credentials<'_>,
    tx: &mut Tx,
    must_be_active: bool,
) -> Result<Caller, Refusal> {
    let body = body(credentials)?;
    let cert = verify(body, tx, &MEMBER_CERTS, "Signer is not a known member.")?;
    if body.envelope.message_type.is_none() {
        return Err(Refusal::new(format!("Protected header has no {MESSAGE_TYPE}.")));
    }
    if body.envelope.created_at.is_none() {
        return Err(Refusal::new(format!("Protected header has no {CREATED_AT}.")));
    }
    let info = MEMBERS
        .get(tx, &body.signer)?
        .ok_or_else(|| Refusal::new("Signer is not a known member."))?;
    if must_be_active && info.status != MemberStatus::Active {
        return Err(Refusal::new("Signer is not an ACTIVE member."));
    }
    let envelope = body.envelope.clone();
    Ok(Caller::MemberCose { id: body.signer, cert, data: info.member_data, envelope })
}

fn body<'a>(credentials: &'a mut Credentials<'_>) -> Result<&'a mut SignedBody, Refusal> {
    let request = credentials.request;
    let parsed = credentials.body.get_or_insert_with(|| {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let essence = content_type.and_then(|value| value.to_str().ok()).map(essence);
        if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/cose")) {
            return Err(Refusal::new("Content type is not application/cose."));
        }
        SignedBody::parse(request.body())
    });
    parsed.as_mut().map_err(|refusal| refusal.clone())
}

/// A media type without its parameters.
fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Verifies the signature under the signer's registered certificate, which is returned.
fn verify(
    body: &mut SignedBody,
    tx: &mut Tx,
    certificates: &Table<Digest, Pem>,
    unknown: &str,
) -> Result<String, Refusal> {
    let cert = certificates.get(tx, &body.signer)?.ok_or_else(|| Refusal::new(unknown))?;
    if body.verified_under.as_ref() != Some(&cert) {
        let certificate = x509::Certificate::from_pem(&cert.0)
            .map_err(|_| Refusal::new("The signer's registered certificate cannot be read."))?;
        body.verify_under(&certificate)?;
        body.verified_under = Some(cert.clone());
    }
    Ok(cert.0)
}

impl SignedBody {
    fn parse(bytes: &Bytes) -> Result<Self, Refusal> {
        let malformed = |error| Refusal::new(format!("Body is not a COSE_Sign1 message: {error}."));
        let message = CoseSign1::parse(bytes).map_err(malformed)?;
        let signer = message
            .key_id()
            .and_then(|id| std::str::from_utf8(id).ok())
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| Refusal::new("Key id is not the hex id of a signer."))?;
        let payload = message.payload().ok_or_else(|| Refusal::new("Payload is detached."))?;
        let header = message.protected();
        let text = |label| match header.get(label) {
            None => Ok(None),
            Some(value) => value
                .as_text()
                .map(|text| Some(text.to_owned()))
                .ok_or_else(|| Refusal::new(format!("Protected header {label} is not a text."))),
        };
        let created_at = match header.get(CREATED_AT) {
            None => None,
            Some(value) => Some(Cbor::as_u64(value).ok_or_else(|| {
                Refusal::new(format!("Protected header {CREATED_AT} is not a time in seconds."))
            })?),
        };
        let envelope = CoseEnvelope {
            content: Bytes::copy_from_slice(payload),
            signature: Bytes::copy_from_slice(message.signature()),
            message_type: text(MESSAGE_TYPE)?,
            created_at,
            proposal_id: text(PROPOSAL_ID)?,
            message: bytes.clone(),
        };
        Ok(Self { message, signer, envelope, verified_under: None })
    }

    fn verify_under(&self, certificate: &x509::Certificate) -> Result<(), Refusal> {
        let wrong = |reason: String| Refusal::new(format!("Signature does not verify: {reason}."));
        if let Ok(key) = certificate.public_key() {
            return self.message.verify(&key, None).map_err(|error| wrong(error.to_string()));
        }
        let key = RsaPublicKey::from_spki_der(certificate.spki_der())
            .map_err(|_| wrong("the certificate's key is neither EC nor RSA".to_owned()))?;
        if self.message.algorithm() != Some(PS256) {
            return Err(wrong("an RSA key signs with PS256 only".to_owned()));
        }
        let signed = self.message.signed_bytes(None).map_err(|error| wrong(error.to_string()))?;
        let signature = self.message.signature();
        key.verify_pss(HashAlgorithm::Sha256, PS256_SALT_LEN_BYTES, &signed, signature)
            .map_err(|error| wrong(error.to_string()))
    }
}
