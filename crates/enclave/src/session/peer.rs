//! The client's certificate, read once per session.

use coco_crypto::{Digest, sha256, x509};

/// A certificate whose key the client proved to hold in the handshake. Nothing else about it has
/// been checked.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// SHA-256 of the DER certificate: the id of a member or participant.
    pub fingerprint: Digest,
    /// The same as text, the key of the governance tables.
    pub fingerprint_hex: String,
    /// SHA-256 of the DER public key: the id of a node.
    pub public_key_id: Digest,
    /// The certificate as PEM.
    pub pem: String,
    certificate: x509::Certificate,
}

impl PeerCertificate {
    /// Reads a DER certificate; `None` when it is not one.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = x509::Certificate::from_der(der).ok()?;
        let fingerprint = certificate.fingerprint();
        Some(Self {
            fingerprint,
            fingerprint_hex: fingerprint.to_string(),
            public_key_id: sha256(certificate.spki_der()),
            pem: certificate.to_pem(),
            certificate,
        })
    }

    /// The certificate as DER.
    pub fn der(&self) -> &[u8] {
        self.certificate.der()
    }

    /// Whether a moment (seconds since 1970) lies within the certificate's validity.
    pub fn is_valid_at(&self, unix_s: u64) -> bool {
        i64::try_from(unix_s).is_ok_and(|unix_s| self.certificate.is_valid_at(unix_s))
    }
}
