//! Issuing certificates, in the profile that CCF's tools expect.

use std::fmt;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer as _;

use super::certificate::alternative_name;
use super::signature::{Signed, algorithm_der};
use super::{
    AlternativeName, CERTIFICATE_MAX_LEN_BYTES, Certificate, CertificateError, DistinguishedName,
    Validity,
};
use crate::der::{self, element, sequence};
use crate::{Entropy, KeyPair, PublicKey, pem, sha256};

const LABEL: &str = "CERTIFICATE REQUEST";
/// Most alternative names a request may ask for.
const MAX_ALTERNATIVE_NAMES: usize = 256;

const SUBJECT_KEY_ID: &[u8] = b"\x55\x1d\x0e";
const KEY_USAGE: &[u8] = b"\x55\x1d\x0f";
const ALTERNATIVE_NAMES: &[u8] = b"\x55\x1d\x11";
const BASIC_CONSTRAINTS: &[u8] = b"\x55\x1d\x13";
const AUTHORITY_KEY_ID: &[u8] = b"\x55\x1d\x23";
/// PKCS#9 extensionRequest.
const EXTENSION_REQUEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";

impl Certificate {
    /// The self-signed certificate of a service: an authority with path length 1 that may sign and
    /// certify.
    pub fn for_service(
        key: &KeyPair,
        subject: &DistinguishedName,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, CertificateError> {
        self_signed(key, &subject.der(), validity, &authority(1), entropy)
    }

    /// The self-signed certificate of a service that goes on from the ledger of another: under the
    /// same name, with its own key.
    pub fn succeeding(
        previous: &Self,
        key: &KeyPair,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, CertificateError> {
        self_signed(key, previous.subject_der(), validity, &authority(1), entropy)
    }

    /// The endorsement of an earlier identity of the service by the present one: with it, what the
    /// earlier one endorsed is trusted by whoever trusts the present one.
    pub fn endorsing_identity(
        earlier: &Self,
        issuer: &Self,
        issuer_key: &KeyPair,
        entropy: &dyn Entropy,
    ) -> Result<Self, CertificateError> {
        let template = Template {
            issuer_der: issuer.subject_der(),
            issuer_key_id: &key_id_of(issuer, issuer_key)?,
            subject_der: earlier.subject_der(),
            public: &earlier.public_key()?,
            validity: issuer.validity(),
            extensions: &authority(0),
        };
        template.issue(issuer_key, entropy)
    }

    /// The self-signed certificate with which a node starts, before the service endorses it.
    pub fn for_node(
        key: &KeyPair,
        subject: &DistinguishedName,
        names: &[AlternativeName],
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, CertificateError> {
        self_signed(key, &subject.der(), validity, &end_entity(names), entropy)
    }

    /// The self-signed certificate of a member or user.
    pub fn for_member(
        key: &KeyPair,
        subject: &DistinguishedName,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Self, CertificateError> {
        self_signed(key, &subject.der(), validity, &end_entity(&[]), entropy)
    }
}

/// A PKCS#10 request whose signature was verified: its maker holds the key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningRequest {
    der: Vec<u8>,
    subject_der: Vec<u8>,
    public: PublicKey,
    names: Vec<AlternativeName>,
}

impl SigningRequest {
    /// Asks for a certificate of this key under these names.
    pub fn create(
        key: &KeyPair,
        subject: &DistinguishedName,
        names: &[AlternativeName],
    ) -> Result<Self, CertificateError> {
        let attributes = match alternative_names(names) {
            None => Vec::new(),
            Some(extension) => sequence(&[
                &element(der::OBJECT_IDENTIFIER, &[EXTENSION_REQUEST]),
                &element(der::SET, &[&sequence(&[&extension])]),
            ]),
        };
        let content = sequence(&[
            &der::unsigned(&[0]),
            &subject.der(),
            key.public().spki_der(),
            &element(0xa0, &[&attributes]),
        ]);
        Self::from_der(&sign(&content, key))
    }

    /// Reads a DER request and verifies that it is signed by the key it is about.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_MAX_LEN_BYTES {
            return Err(CertificateError::TooLong { len_bytes: der.len() });
        }
        let malformed = CertificateError::Malformed { part: "certificate request" };
        let signed = Signed::parse(der)?;
        let (rest, parsed) =
            X509CertificationRequest::from_der(der).map_err(|_| malformed.clone())?;
        let info = &parsed.certification_request_info;
        if !rest.is_empty() || info.raw != signed.content {
            return Err(malformed);
        }
        let public = PublicKey::from_spki_der(info.subject_pki.raw)?;
        signed.verify(public.spki_der())?;
        let mut names = Vec::new();
        for extension in parsed.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(wanted) => {
                    for name in &wanted.general_names {
                        names.push(alternative_name(name).ok_or(malformed.clone())?);
                    }
                }
                ParsedExtension::ParseError { .. } => return Err(malformed),
                // Whatever else is asked for is not granted.
                _ => {}
            }
        }
        if names.len() > MAX_ALTERNATIVE_NAMES {
            return Err(malformed);
        }
        let subject_der = info.subject.as_raw().to_vec();
        Ok(Self { der: der.to_vec(), subject_der, public, names })
    }

    /// Reads `CERTIFICATE REQUEST` PEM, see [`SigningRequest::from_der`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&pem::decode(text, LABEL)?)
    }

    /// `CERTIFICATE REQUEST` PEM.
    pub fn to_pem(&self) -> String {
        pem::encode(LABEL, &self.der)
    }

    /// The request's bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The key that signed it and wants a certificate.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The names it asks for.
    pub fn alternative_names(&self) -> &[AlternativeName] {
        &self.names
    }

    /// Issues what was asked for: an end entity with the request's subject and names, under the
    /// service's certificate and key. Extensions other than names are not taken from the request.
    pub fn endorse(
        &self,
        issuer: &Certificate,
        issuer_key: &KeyPair,
        validity: Validity,
        entropy: &dyn Entropy,
    ) -> Result<Certificate, CertificateError> {
        let template = Template {
            issuer_der: issuer.subject_der(),
            issuer_key_id: &key_id_of(issuer, issuer_key)?,
            subject_der: &self.subject_der,
            public: &self.public,
            validity,
            extensions: &end_entity(&self.names),
        };
        template.issue(issuer_key, entropy)
    }
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningRequest({:?}, {:?})", self.public, self.names)
    }
}

/// The key identifier of an issuer, whose key this must be.
fn key_id_of(issuer: &Certificate, key: &KeyPair) -> Result<Vec<u8>, CertificateError> {
    if issuer.spki_der() != key.public().spki_der() {
        return Err(CertificateError::IssuerKey);
    }
    let named = issuer.extensions.subject_key_id.clone();
    Ok(named.unwrap_or_else(|| key_id(key.public())))
}

fn self_signed(
    key: &KeyPair,
    subject_der: &[u8],
    validity: Validity,
    extensions: &[Vec<u8>],
    entropy: &dyn Entropy,
) -> Result<Certificate, CertificateError> {
    let template = Template {
        issuer_der: subject_der,
        issuer_key_id: &key_id(key.public()),
        subject_der,
        public: key.public(),
        validity,
        extensions,
    };
    template.issue(key, entropy)
}

/// What goes into a certificate, RFC 5280 section 4.1.
struct Template<'a> {
    issuer_der: &'a [u8],
    issuer_key_id: &'a [u8],
    subject_der: &'a [u8],
    public: &'a PublicKey,
    validity: Validity,
    /// Beside the two key identifiers, which every certificate has.
    extensions: &'a [Vec<u8>],
}

impl Template<'_> {
    fn issue(&self, key: &KeyPair, entropy: &dyn Entropy) -> Result<Certificate, CertificateError> {
        // 16 random bytes; a set low bit in the first keeps the number positive and of full length.
        let mut serial: [u8; 16] = crate::entropy::random(entropy);
        serial[0] = serial[0] & 0x7f | 1;
        let subject_key_id = element(der::OCTET_STRING, &[&key_id(self.public)]);
        let authority_key_id = sequence(&[&element(0x80, &[self.issuer_key_id])]);
        let extensions = [
            self.extensions.concat(),
            extension(SUBJECT_KEY_ID, false, &subject_key_id),
            extension(AUTHORITY_KEY_ID, false, &authority_key_id),
        ];
        let content = sequence(&[
            &element(0xa0, &[&der::unsigned(&[2])]),
            &der::unsigned(&serial),
            &algorithm_der(key.curve()),
            self.issuer_der,
            &self.validity.der()?,
            self.subject_der,
            self.public.spki_der(),
            &element(0xa3, &[&sequence(&[&extensions.concat()])]),
        ]);
        Certificate::from_der(&sign(&content, key))
    }
}

/// The content with its signature.
fn sign(content: &[u8], key: &KeyPair) -> Vec<u8> {
    sequence(&[content, &algorithm_der(key.curve()), &der::bit_string(&key.sign(content))])
}

/// What services have: authorities that may sign and certify, with this many more authorities below
/// them.
fn authority(path_length: u8) -> Vec<Vec<u8>> {
    let constraints =
        sequence(&[&element(der::BOOLEAN, &[&[0xff]]), &der::unsigned(&[path_length])]);
    // Bits 0 (digitalSignature) and 5 (keyCertSign), two unused.
    let usage = element(der::BIT_STRING, &[&[2, 0b1000_0100]]);
    vec![extension(BASIC_CONSTRAINTS, true, &constraints), extension(KEY_USAGE, true, &usage)]
}

/// What nodes, members and users have: not an authority, perhaps with names.
fn end_entity(names: &[AlternativeName]) -> Vec<Vec<u8>> {
    let mut extensions = vec![extension(BASIC_CONSTRAINTS, true, &sequence(&[]))];
    extensions.extend(alternative_names(names));
    extensions
}

fn alternative_names(names: &[AlternativeName]) -> Option<Vec<u8>> {
    if names.is_empty() {
        return None;
    }
    let names: Vec<Vec<u8>> = names.iter().map(AlternativeName::der).collect();
    Some(extension(ALTERNATIVE_NAMES, false, &sequence(&[&names.concat()])))
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { element(der::BOOLEAN, &[&[0xff]]) } else { Vec::new() };
    sequence(&[
        &element(der::OBJECT_IDENTIFIER, &[oid]),
        &critical,
        &element(der::OCTET_STRING, &[value]),
    ])
}

/// The leftmost 160 bits of SHA-256 of the public key's bits (RFC 7093 section 2, method 1).
fn key_id(key: &PublicKey) -> Vec<u8> {
    let digest = sha256(key.point());
    digest.0.first_chunk::<20>().map_or_else(Vec::new, |id| id.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entropy::testing::Counter;
    use crate::{Curve, Digest, KeyError, testing};

    const NOW: i64 = 1_763_000_000;

    fn key(curve: Curve, seed: u64) -> KeyPair {
        KeyPair::generate(curve, &Counter::new(seed)).unwrap()
    }

    fn service(curve: Curve) -> (KeyPair, Certificate) {
        let key = key(curve, 1);
        let name = "CN=CCF Service,O=Contoso".parse().unwrap();
        let entropy = Counter::new(2);
        let made = Certificate::for_service(&key, &name, Validity::days(NOW, 365), &entropy);
        (key, made.unwrap())
    }

    fn names() -> Vec<AlternativeName> {
        ["localhost", "127.0.0.1", "::1"]
            .iter()
            .map(|host| AlternativeName::of_host(host).unwrap())
            .collect()
    }

    fn request(curve: Curve) -> SigningRequest {
        let name = DistinguishedName::common_name("CCF Node");
        SigningRequest::create(&key(curve, 3), &name, &names()).unwrap()
    }

    #[test]
    fn a_service_certificate_has_the_profile() {
        for curve in [Curve::P256, Curve::P384] {
            let (key, certificate) = service(curve);
            assert_eq!(&certificate.public_key().unwrap(), key.public());
            assert_eq!(certificate.subject(), "CN=CCF Service, O=Contoso");
            assert_eq!(certificate.validity(), Validity::days(NOW, 365));
            assert_eq!(certificate.serial().len(), 16);
            assert!(certificate.is_authority());
            assert_eq!(certificate.extensions.path_len, Some(1));
            assert_eq!(certificate.extensions.signs_certificates, Some(true));
            assert!(!certificate.extensions.unknown_critical);
            assert_eq!(certificate.verify_signed_by(&certificate), Ok(()));
            assert_eq!(certificate.verify_signed_by_key(key.public()), Ok(()));
            assert_eq!(Certificate::from_pem(&certificate.to_pem()), Ok(certificate));
        }
    }

    #[test]
    fn a_node_is_endorsed_from_its_request() {
        let (service_key, service) = service(Curve::P384);
        let request = SigningRequest::from_pem(&request(Curve::P256).to_pem()).unwrap();
        assert_eq!(request.alternative_names(), names());
        let entropy = Counter::new(4);
        let validity = Validity::days(NOW, 30);
        let node = request.endorse(&service, &service_key, validity, &entropy).unwrap();
        assert_eq!(&node.public_key().unwrap(), request.public_key());
        assert_eq!(node.alternative_names(), names());
        assert_eq!((node.subject(), node.issuer()), ("CN=CCF Node", service.subject()));
        assert!(!node.is_authority());
        assert_eq!(node.extensions.signs_certificates, None);
        assert_eq!(node.verify_signed_by(&service), Ok(()));
        assert_eq!(
            service.verify_signed_by(&node).unwrap_err(),
            CertificateError::Issuer {
                named: service.subject().to_owned(),
                given: "CN=CCF Node".to_owned(),
            }
        );
        assert_eq!(
            request.endorse(&service, &key(Curve::P384, 9), validity, &entropy),
            Err(CertificateError::IssuerKey)
        );
    }

    #[test]
    fn members_and_new_nodes_sign_themselves() {
        let (key, entropy) = (key(Curve::P384, 5), Counter::new(6));
        let name = DistinguishedName::common_name("member0");
        let validity = Validity::days(NOW, 365);
        let member = Certificate::for_member(&key, &name, validity, &entropy).unwrap();
        let node = Certificate::for_node(&key, &name, &names(), validity, &entropy).unwrap();
        assert_eq!(member.verify_signed_by(&member), Ok(()));
        assert_eq!(node.verify_signed_by(&node), Ok(()));
        assert_eq!(node.alternative_names(), names());
        assert_eq!(member.fingerprint(), sha256(member.der()));
        assert_ne!(member.serial(), node.serial());
    }

    #[test]
    fn a_request_must_be_signed_by_its_key() {
        let good = request(Curve::P256);
        let other = request(Curve::P256);
        assert_eq!(good.public_key(), other.public_key());
        let mut forged = good.der().to_vec();
        let at = forged.windows(8).position(|window| window == b"CCF Node").unwrap();
        forged[at] = b'X';
        assert!(matches!(SigningRequest::from_der(&forged), Err(CertificateError::Signature(_))));
        assert!(matches!(SigningRequest::from_pem(""), Err(CertificateError::Pem(_))));
        let trailing = [good.der(), &[0]].concat();
        assert!(SigningRequest::from_der(&trailing).is_err());
        let long = vec![0x30; CERTIFICATE_MAX_LEN_BYTES + 1];
        assert_eq!(
            SigningRequest::from_der(&long),
            Err(CertificateError::TooLong { len_bytes: CERTIFICATE_MAX_LEN_BYTES + 1 })
        );
    }

    #[test]
    fn impossible_validity_is_refused() {
        let (key, _) = service(Curve::P256);
        let name = DistinguishedName::common_name("x");
        let validity = Validity { not_before_unix_s: 5, not_after_unix_s: 4 };
        assert!(matches!(
            Certificate::for_member(&key, &name, validity, &Counter::new(0)),
            Err(CertificateError::Validity { .. })
        ));
        // Far in the future the other time format is used.
        let validity = Validity { not_before_unix_s: NOW, not_after_unix_s: 253_402_300_799 };
        let member = Certificate::for_member(&key, &name, validity, &Counter::new(0)).unwrap();
        assert_eq!(member.validity(), validity);
    }

    #[test]
    fn an_earlier_identity_is_endorsed_by_the_present_one() {
        let (old_key, old) = service(Curve::P256);
        let key = KeyPair::generate(Curve::P384, &Counter::new(9)).unwrap();
        let validity = old.validity();
        let new = Certificate::succeeding(&old, &key, validity, &Counter::new(3)).unwrap();
        assert_eq!((new.subject(), new.is_authority()), (old.subject(), true));
        assert_eq!(new.verify_signed_by(&new), Ok(()));
        let endorsement =
            Certificate::endorsing_identity(&old, &new, &key, &Counter::new(4)).unwrap();
        assert_eq!(endorsement.spki_der(), old_key.public().spki_der());
        assert_eq!(endorsement.verify_signed_by(&new), Ok(()));
        let node =
            request(Curve::P256).endorse(&old, &old_key, validity, &Counter::new(5)).unwrap();
        assert_eq!(node.verify_signed_by(&endorsement), Ok(()));
        let chain = [node.to_pem(), endorsement.to_pem()].concat();
        assert_eq!(super::super::is_valid_chain(&chain, &new.to_pem(), NOW), Ok(true));
        // Only the holder of the present key endorses.
        let other = Certificate::endorsing_identity(&old, &new, &old_key, &Counter::new(6));
        assert!(matches!(other, Err(CertificateError::IssuerKey)));
    }

    #[test]
    fn recorded_certificates_are_read() {
        for (file, text) in testing::vectors("ccf", "_cert.pem") {
            let text = String::from_utf8(text).unwrap();
            let certificate = Certificate::from_pem(&text).unwrap();
            assert_eq!(certificate.to_pem().trim(), text.trim());
            certificate.public_key().unwrap();
            assert_eq!(certificate.verify_signed_by(&certificate), Ok(()), "{file:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_changed_certificate_does_not_verify(
            flip in any::<prop::sample::Index>(), bit in 0_u32..8, cut in any::<prop::sample::Index>(),
        ) {
            let (key, certificate) = service(Curve::P256);
            let mut der = certificate.der().to_vec();
            prop_assert!(Certificate::from_der(&der[..cut.index(der.len())]).is_err());
            der[flip.index(certificate.der().len())] ^= 1_u8 << bit;
            if let Ok(changed) = Certificate::from_der(&der) {
                prop_assert!(changed.verify_signed_by_key(key.public()).is_err());
            }
            let mut der = request(Curve::P256).der().to_vec();
            let at = flip.index(der.len());
            der[at] ^= 1_u8 << bit;
            prop_assert!(SigningRequest::from_der(&der).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, text in "\\PC*") {
            let _ = Certificate::from_der(&bytes);
            let _ = SigningRequest::from_der(&bytes);
            let _ = Certificate::bundle_from_pem(&text);
            let _ = Certificate::from_der(&der::sequence(&[&bytes]));
        }
    }

    #[test]
    fn an_rsa_certificate_has_no_ec_key() {
        // Only the key of a CSR and of identities must be EC; see `Certificate::public_key`.
        let spki = crate::rsa::tests::key().public().spki_der();
        assert!(matches!(PublicKey::from_spki_der(&spki), Err(KeyError::PublicKey { .. })));
        assert_ne!(sha256(&spki), Digest::ZERO);
    }
}
