//! X.509 certificates in the profile of CCF: reading, checking, issuing.
//!
//! ```text
//! service   self-signed, CA, path length 1, key usage: signs and certifies
//!    └─ node      end entity, alternative names; first self-signed, then endorsed from its request
//! member, user    self-signed, end entity
//! ```

mod certificate;
mod chain;
mod issue;
mod name;
mod signature;

pub use certificate::{BUNDLE_MAX_CERTIFICATES, CERTIFICATE_MAX_LEN_BYTES, Certificate};
pub use chain::{is_valid_bundle, is_valid_chain};
pub use issue::SigningRequest;
pub use name::{AlternativeName, DistinguishedName, NameError, Validity};

use crate::{BadSignature, KeyError, PemError};

/// Why a certificate or a request is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The PEM around it is faulty.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Longer than [`CERTIFICATE_MAX_LEN_BYTES`].
    #[error("a certificate of {len_bytes} bytes is too long (limit {CERTIFICATE_MAX_LEN_BYTES})")]
    TooLong {
        /// Its length.
        len_bytes: usize,
    },
    /// A bundle of more than [`BUNDLE_MAX_CERTIFICATES`].
    #[error("a bundle of {count} certificates is too long (limit {BUNDLE_MAX_CERTIFICATES})")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// Not the DER of an X.509 version 3 certificate or of a PKCS#10 request.
    #[error("malformed X.509: {part}")]
    Malformed {
        /// The part at fault.
        part: &'static str,
    },
    /// The public key is of another kind than is needed here.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The signature algorithm is not one of ECDSA or RSA PKCS#1 with SHA-2, or Ed25519.
    #[error("unsupported signature algorithm {oid}")]
    Algorithm {
        /// Its object identifier.
        oid: String,
    },
    /// The issuer named in the certificate is not the one that was given.
    #[error("issued by {named:?}, not by {given:?}")]
    Issuer {
        /// The issuer in the certificate.
        named: String,
        /// The subject of the one that was given.
        given: String,
    },
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] BadSignature),
    /// A name cannot be written or read.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The validity does not start before it ends, or is outside the years 1950 to 9999.
    #[error("impossible validity: {not_before_unix_s} to {not_after_unix_s} (Unix seconds)")]
    Validity {
        /// Start.
        not_before_unix_s: i64,
        /// End, inclusive.
        not_after_unix_s: i64,
    },
    /// The key that was given to sign is not the issuer's.
    #[error("the signing key is not that of the issuer certificate")]
    IssuerKey,
}
