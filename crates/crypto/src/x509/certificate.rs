//! A parsed certificate.

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::signature::Signed;
use super::{AlternativeName, CertificateError, Validity};
use crate::{Digest, PemError, PublicKey, pem, sha256};

/// Longest certificate or request that is parsed.
pub const CERTIFICATE_MAX_LEN_BYTES: usize = 64 * 1024;
/// Most certificates in one PEM text: the public authorities of a browser fit.
pub const BUNDLE_MAX_CERTIFICATES: usize = 256;
const LABEL: &str = "CERTIFICATE";

/// An X.509 version 3 certificate. Parsed, its signature not yet checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    spki_der: Vec<u8>,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
    subject: String,
    issuer: String,
    serial: Vec<u8>,
    validity: Validity,
    pub(super) extensions: Extensions,
}

/// The extensions that path validation and CCF's profile know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) is_authority: bool,
    pub(super) path_len: Option<u32>,
    /// `None`: no key usage extension, anything goes.
    pub(super) signs_certificates: Option<bool>,
    pub(super) subject_key_id: Option<Vec<u8>>,
    pub(super) alternative_names: Vec<AlternativeName>,
    /// A critical extension that path validation here does not know.
    pub(super) unknown_critical: bool,
}

impl Certificate {
    /// Reads one DER certificate and nothing after it.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_MAX_LEN_BYTES {
            return Err(CertificateError::TooLong { len_bytes: der.len() });
        }
        let malformed = |part| CertificateError::Malformed { part };
        let signed = Signed::parse(der)?;
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|_| malformed("certificate"))?;
        if !rest.is_empty() || parsed.version.0 != 2 {
            return Err(malformed("certificate"));
        }
        if parsed.tbs_certificate.signature != parsed.signature_algorithm
            || signed.content != parsed.tbs_certificate.as_ref()
        {
            return Err(malformed("signature algorithm"));
        }
        let not_before_unix_s = parsed.validity().not_before.timestamp();
        let not_after_unix_s = parsed.validity().not_after.timestamp();
        Ok(Self {
            spki_der: parsed.public_key().raw.to_vec(),
            subject_der: parsed.subject().as_raw().to_vec(),
            issuer_der: parsed.issuer().as_raw().to_vec(),
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: parsed.tbs_certificate.raw_serial().to_vec(),
            validity: Validity { not_before_unix_s, not_after_unix_s },
            extensions: Extensions::read(&parsed)?,
            der: der.to_vec(),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&pem::decode(text, LABEL)?)
    }

    /// Reads every certificate of a PEM text; there must be at least one.
    pub fn bundle_from_pem(text: &str) -> Result<Vec<Self>, CertificateError> {
        let mut blocks = pem::blocks(text)?;
        blocks.retain(|block| block.label == LABEL);
        match blocks.len() {
            0 => Err(PemError::Missing { expected: LABEL }.into()),
            1..=BUNDLE_MAX_CERTIFICATES => {
                blocks.iter().map(|block| Self::from_der(&block.der)).collect()
            }
            count => Err(CertificateError::TooMany { count }),
        }
    }

    /// The certificate's bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// `CERTIFICATE` PEM.
    pub fn to_pem(&self) -> String {
        pem::encode(LABEL, &self.der)
    }

    /// SHA-256 of the DER: its hex is the id of a member or user.
    pub fn fingerprint(&self) -> Digest {
        sha256(&self.der)
    }

    /// The SubjectPublicKeyInfo, of whatever kind of key.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The public key; an error if it is not on P-256 or P-384.
    pub fn public_key(&self) -> Result<PublicKey, CertificateError> {
        Ok(PublicKey::from_spki_der(&self.spki_der)?)
    }

    /// The subject for display, e.g. `CN=CCF Service`.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The issuer for display.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether it is valid at this second.
    pub fn is_valid_at(&self, unix_s: i64) -> bool {
        self.validity.contains(unix_s)
    }

    /// The DNS names and addresses it stands for.
    pub fn alternative_names(&self) -> &[AlternativeName] {
        &self.extensions.alternative_names
    }

    /// Whether it may issue others (basic constraints).
    pub fn is_authority(&self) -> bool {
        self.extensions.is_authority
    }

    /// Checks that `issuer` issued this: its name stands here and its key signed. Neither validity
    /// nor constraints are looked at, see [`super::is_valid_chain`].
    pub fn verify_signed_by(&self, issuer: &Self) -> Result<(), CertificateError> {
        if self.issuer_der != issuer.subject_der {
            let (named, given) = (self.issuer.clone(), issuer.subject.clone());
            return Err(CertificateError::Issuer { named, given });
        }
        self.verify_signature(&issuer.spki_der)
    }

    /// Checks that this key signed it.
    pub fn verify_signed_by_key(&self, key: &PublicKey) -> Result<(), CertificateError> {
        self.verify_signature(key.spki_der())
    }

    fn verify_signature(&self, spki_der: &[u8]) -> Result<(), CertificateError> {
        Signed::parse(&self.der)?.verify(spki_der)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {})", self.subject, self.fingerprint())
    }
}

impl Extensions {
    fn read(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let malformed = CertificateError::Malformed { part: "extension" };
        // Fails if one stands twice.
        certificate.extensions_map().map_err(|_| malformed.clone())?;
        let mut out = Self::default();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    out.is_authority = constraints.ca;
                    out.path_len = constraints.path_len_constraint;
                }
                ParsedExtension::KeyUsage(usage) => {
                    out.signs_certificates = Some(usage.key_cert_sign());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    out.subject_key_id = Some(id.0.to_vec());
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    out.alternative_names =
                        names.general_names.iter().filter_map(alternative_name).collect();
                }
                ParsedExtension::ParseError { .. } => return Err(malformed),
                ParsedExtension::AuthorityKeyIdentifier(_)
                | ParsedExtension::ExtendedKeyUsage(_) => {}
                _ => out.unknown_critical |= extension.critical,
            }
        }
        Ok(out)
    }
}

/// The kinds of names that are of use here; others (mail, URI) are not looked at.
pub(super) fn alternative_name(name: &GeneralName<'_>) -> Option<AlternativeName> {
    match name {
        GeneralName::DNSName(name) => AlternativeName::dns(name),
        GeneralName::IPAddress(octets) => AlternativeName::ip(octets),
        _ => None,
    }
}
