//! Signatures on certificates and requests, whoever made them.

use super::CertificateError;
use crate::der::{self, NotDer, Reader};
use crate::{BadSignature, HashAlgorithm, KeyError, PublicKey, RsaPublicKey};

const ECDSA_SHA256: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x03";
const ECDSA_SHA512: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03\x04";
const RSA_SHA256: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b";
const RSA_SHA384: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c";
const RSA_SHA512: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d";
const ED25519: &[u8] = b"\x2b\x65\x70";

/// Something that was signed: the outermost SEQUENCE of a certificate or request.
pub(super) struct Signed<'a> {
    /// The encoding that the signature covers.
    pub(super) content: &'a [u8],
    /// The AlgorithmIdentifier's encoding without its outer tag.
    pub(super) algorithm: &'a [u8],
    pub(super) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        fn parts(der: &[u8]) -> Result<Signed<'_>, NotDer> {
            let mut whole = Reader::new(der);
            let mut outer = whole.enter(der::SEQUENCE)?;
            whole.finish()?;
            let from = outer.rest();
            outer.read(der::SEQUENCE)?;
            let content = from.get(..from.len() - outer.rest().len()).ok_or(NotDer)?;
            let algorithm = outer.read(der::SEQUENCE)?;
            let signature = outer.read_bit_string()?;
            outer.finish()?;
            Ok(Signed { content, algorithm, signature })
        }
        parts(der).map_err(|_| CertificateError::Malformed { part: "signed structure" })
    }

    /// Verifies under the key of a SubjectPublicKeyInfo.
    pub(super) fn verify(&self, spki_der: &[u8]) -> Result<(), CertificateError> {
        let oid = Reader::new(self.algorithm)
            .read(der::OBJECT_IDENTIFIER)
            .map_err(|_| CertificateError::Malformed { part: "signature algorithm" })?;
        let ecdsa = |hash: HashAlgorithm| {
            let key = PublicKey::from_spki_der(spki_der)?;
            Ok(key.verify_prehash(&hash.digest(self.content), self.signature)?)
        };
        let rsa = |hash| {
            let key = RsaPublicKey::from_spki_der(spki_der)?;
            Ok(key.verify_pkcs1(hash, self.content, self.signature)?)
        };
        match oid {
            ECDSA_SHA256 => ecdsa(HashAlgorithm::Sha256),
            ECDSA_SHA384 => ecdsa(HashAlgorithm::Sha384),
            ECDSA_SHA512 => ecdsa(HashAlgorithm::Sha512),
            RSA_SHA256 => rsa(HashAlgorithm::Sha256),
            RSA_SHA384 => rsa(HashAlgorithm::Sha384),
            RSA_SHA512 => rsa(HashAlgorithm::Sha512),
            ED25519 => self.verify_ed25519(spki_der),
            _ => Err(CertificateError::Algorithm { oid: dotted(oid) }),
        }
    }

    fn verify_ed25519(&self, spki_der: &[u8]) -> Result<(), CertificateError> {
        let point = spki_der
            .strip_prefix(b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00")
            .ok_or(KeyError::PublicKey { expected: "Ed25519" })?;
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, point)
            .verify(self.content, self.signature)
            .map_err(|_| BadSignature.into())
    }
}

/// The AlgorithmIdentifier of what our own keys sign: ECDSA with the curve's hash.
pub(super) fn algorithm_der(curve: crate::Curve) -> Vec<u8> {
    let oid = match curve {
        crate::Curve::P256 => ECDSA_SHA256,
        crate::Curve::P384 => ECDSA_SHA384,
    };
    der::sequence(&[&der::element(der::OBJECT_IDENTIFIER, &[oid])])
}

/// An object identifier in its usual notation, for error messages.
fn dotted(oid: &[u8]) -> String {
    let mut arcs = Vec::new();
    let mut arc = 0_u64;
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.push(first.to_string());
                arc -= first * 40;
            }
            arcs.push(arc.to_string());
            arc = 0;
        }
    }
    arcs.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_are_shown() {
        assert_eq!(dotted(ECDSA_SHA384), "1.2.840.10045.4.3.3");
        assert_eq!(dotted(b"\x55\x1d\x0f"), "2.5.29.15");
        assert_eq!(dotted(&[0xff; 40]), "");
    }
}
