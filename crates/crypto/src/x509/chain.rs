//! Path validation, as much of RFC 5280 section 6 as CCF's applications rely on.

use super::{Certificate, CertificateError};

/// Longest chain that is followed.
const MAX_CHAIN: usize = 16;

/// Whether a PEM text holds one or more certificates, all well formed (`isValidX509CertBundle`).
pub fn is_valid_bundle(text: &str) -> bool {
    Certificate::bundle_from_pem(text).is_ok()
}

/// Whether a chain, end entity first, leads to one of the trusted certificates at a point in time
/// (`isValidX509CertChain`). Both texts are PEM.
///
/// Any trusted certificate ends the path, a root or not. Each certificate on the path is valid at
/// `at_unix_s` and signed by the next, issuers are authorities that may sign certificates within
/// their path length, and no critical extension is unknown.
pub fn is_valid_chain(
    chain: &str,
    trusted: &str,
    at_unix_s: i64,
) -> Result<bool, CertificateError> {
    let chain = Certificate::bundle_from_pem(chain)?;
    let trusted = Certificate::bundle_from_pem(trusted)?;
    let Some((mut current, intermediates)) = chain.split_first() else { return Ok(false) };
    if !usable(current, at_unix_s) {
        return Ok(false);
    }
    let mut intermediates = intermediates.iter();
    for below in 0..MAX_CHAIN {
        if trusted.contains(current) {
            return Ok(true);
        }
        let issued_current = |issuer: &&Certificate| {
            may_issue(issuer, below, at_unix_s) && current.verify_signed_by(issuer).is_ok()
        };
        if trusted.iter().any(|anchor| issued_current(&anchor)) {
            return Ok(true);
        }
        match intermediates.next().filter(issued_current) {
            Some(issuer) => current = issuer,
            None => return Ok(false),
        }
    }
    Ok(false)
}

fn usable(certificate: &Certificate, at_unix_s: i64) -> bool {
    certificate.is_valid_at(at_unix_s) && !certificate.extensions.unknown_critical
}

/// `below` is the number of intermediate certificates between the issuer and the end entity.
fn may_issue(issuer: &Certificate, below: usize, at_unix_s: i64) -> bool {
    let extensions = &issuer.extensions;
    usable(issuer, at_unix_s)
        && extensions.is_authority
        && extensions.signs_certificates != Some(false)
        && extensions.path_len.is_none_or(|limit| below <= limit as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Counter;
    use crate::x509::{
        AlternativeName, BUNDLE_MAX_CERTIFICATES, DistinguishedName, SigningRequest, Validity,
    };
    use crate::{Curve, KeyPair};

    const NOW: i64 = 1_763_000_000;

    fn service(seed: u64) -> (KeyPair, Certificate) {
        let entropy = Counter::new(seed);
        let key = KeyPair::generate(Curve::P384, &entropy).unwrap();
        let name = DistinguishedName::common_name("CCF Service");
        let validity = Validity::days(NOW, 10);
        let certificate = Certificate::for_service(&key, &name, validity, &entropy).unwrap();
        (key, certificate)
    }

    fn node(service: &(KeyPair, Certificate), days: u32) -> Certificate {
        let entropy = Counter::new(77);
        let key = KeyPair::generate(Curve::P384, &entropy).unwrap();
        let name = DistinguishedName::common_name("CCF Node");
        let names = [AlternativeName::of_host("localhost").unwrap()];
        SigningRequest::create(&key, &name, &names)
            .unwrap()
            .endorse(&service.1, &service.0, Validity::days(NOW, days), &entropy)
            .unwrap()
    }

    #[test]
    fn bundles() {
        let (_, certificate) = service(1);
        let pem = certificate.to_pem();
        assert!(is_valid_bundle(&pem));
        assert!(is_valid_bundle(&format!("{pem}{pem}")));
        assert!(!is_valid_bundle(""));
        assert!(!is_valid_bundle("CERTIFICATE"));
        assert!(!is_valid_bundle(&format!("{pem}{}", pem.replace("MII", "MIA"))));
        assert!(is_valid_bundle(&pem.repeat(BUNDLE_MAX_CERTIFICATES)));
        assert_eq!(
            Certificate::bundle_from_pem(&pem.repeat(BUNDLE_MAX_CERTIFICATES + 1)),
            Err(CertificateError::TooMany { count: BUNDLE_MAX_CERTIFICATES + 1 })
        );
    }

    #[test]
    fn issuers_keep_their_path_length_and_validity() {
        let service = service(1);
        assert!(may_issue(&service.1, 0, NOW) && may_issue(&service.1, 1, NOW));
        assert!(!may_issue(&service.1, 2, NOW), "path length 1");
        assert!(!may_issue(&service.1, 0, NOW - 1));
        assert!(!may_issue(&node(&service, 1), 0, NOW), "not an authority");
    }

    #[test]
    fn chains_lead_to_a_trusted_certificate() {
        let service = service(1);
        let node = node(&service, 5);
        let (node, root) = (node.to_pem(), service.1.to_pem());
        let day = 86_400;
        assert_eq!(is_valid_chain(&node, &root, NOW), Ok(true));
        assert_eq!(is_valid_chain(&format!("{node}{root}"), &root, NOW), Ok(true));
        assert_eq!(is_valid_chain(&node, &node, NOW), Ok(true), "any trusted one ends the path");
        assert_eq!(is_valid_chain(&root, &root, NOW), Ok(true));
        assert_eq!(is_valid_chain(&node, &root, NOW - 1), Ok(false), "not yet");
        assert_eq!(is_valid_chain(&node, &root, NOW + 5 * day - 1), Ok(true));
        assert_eq!(is_valid_chain(&node, &root, NOW + 5 * day), Ok(false), "expired");
        assert!(is_valid_chain("", &root, NOW).is_err());
        assert!(is_valid_chain(&node, "", NOW).is_err());
    }

    #[test]
    fn other_services_and_nodes_issue_nothing() {
        let first = service(1);
        let other = service(2);
        let node_certificate = node(&first, 5);
        assert_eq!(
            is_valid_chain(&node_certificate.to_pem(), &other.1.to_pem(), NOW),
            Ok(false),
            "the same name, another key"
        );
        // A node that signs for another one.
        let entropy = Counter::new(77);
        let node_key = KeyPair::generate(Curve::P384, &entropy).unwrap();
        let leaf = node(&(node_key, node_certificate.clone()), 5);
        assert_eq!(leaf.verify_signed_by(&node_certificate), Ok(()));
        let chain = format!("{}{}", leaf.to_pem(), node_certificate.to_pem());
        assert_eq!(is_valid_chain(&chain, &first.1.to_pem(), NOW), Ok(false));
    }
}
