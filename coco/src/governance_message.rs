//! Governance messages as members sign them: COSE_Sign1 with CCF's header parameters.

use anyhow::{Context, Result};
use coco_crypto::cbor::Value;
use coco_crypto::cose::{CoseSign1, Header, label};
use coco_crypto::{Digest, KeyPair};

/// Who signs: a member's key, and the id of its certificate.
pub(crate) struct Signer {
    pub(crate) key: KeyPair,
    pub(crate) id: Digest,
}

/// What a message says, beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    Proposal,
    Ballot { proposal_id: &'a str },
    Withdrawal { proposal_id: &'a str },
    StateDigest,
    Ack,
}

impl<'a> Kind<'a> {
    fn name(self) -> &'static str {
        match self {
            Self::Proposal => "proposal",
            Self::Ballot { .. } => "ballot",
            Self::Withdrawal { .. } => "withdrawal",
            Self::StateDigest => "state_digest",
            Self::Ack => "ack",
        }
    }

    fn proposal_id(self) -> Option<&'a str> {
        match self {
            Self::Ballot { proposal_id } | Self::Withdrawal { proposal_id } => Some(proposal_id),
            _ => None,
        }
    }
}

impl Signer {
    /// A signer from PEM texts.
    pub(crate) fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let certificate = coco_crypto::Certificate::from_pem(certificate)
            .context("the member's certificate cannot be read")?;
        let key = KeyPair::from_pem(key).context("the member's key cannot be read")?;
        let certified = certificate.public_key().context("the certificate's key is not usable")?;
        anyhow::ensure!(certified == *key.public(), "the key is not the certificate's");
        Ok(Self { id: certificate.fingerprint(), key })
    }

    /// The member id as the API writes it.
    pub(crate) fn id(&self) -> String {
        self.id.to_string()
    }

    /// A message of this kind, signed. `created_at` is in seconds since 1970: a service refuses a
    /// proposal that it saw before or that is much older than others.
    pub(crate) fn sign(&self, kind: Kind<'_>, created_at: u64, payload: &[u8]) -> Vec<u8> {
        let mut header = Header::for_key(self.key.public())
            .with(label::KEY_ID, self.id().into_bytes())
            .with("ccf.gov.msg.type", kind.name())
            .with("ccf.gov.msg.created_at", Value::Int(created_at.into()));
        if let Some(proposal_id) = kind.proposal_id() {
            header = header.with("ccf.gov.msg.proposal_id", proposal_id);
        }
        CoseSign1::sign(header, payload.to_vec(), &self.key).encode()
    }
}

/// Now, as messages carry it.
pub(crate) fn now_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.map_or(0, |elapsed| elapsed.as_secs())
}
