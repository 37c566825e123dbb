//! Whether a consortium trusts what verified evidence says.

use coco_crypto::{Digest, PublicKey};

use crate::{Claims, EvidenceFormat};

/// What the consortium trusts, as governance has it in its tables.
pub trait Manifests {
    /// Whether this code may join, in a TEE of this kind.
    fn trusts_measurement(&self, format: EvidenceFormat, measurement: &str) -> bool;

    /// Whether a TEE of this kind may be launched with this host data.
    fn trusts_host_data(&self, format: EvidenceFormat, host_data: &Digest) -> bool;
}

/// Why verified evidence is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppraisalError {
    /// No manifest names the host data.
    #[error("host data {host_data} is not trusted for {format}")]
    HostData {
        /// The kind of TEE.
        format: EvidenceFormat,
        /// What was found.
        host_data: Digest,
    },
    /// No manifest names the code.
    #[error("measurement {measurement:?} is not trusted for {format}")]
    Measurement {
        /// The kind of TEE.
        format: EvidenceFormat,
        /// What was found.
        measurement: String,
    },
    /// The evidence was made for another key.
    #[error("the evidence is for the key {found}, not for {expected}")]
    Key {
        /// The digest in the evidence.
        found: Digest,
        /// The digest of the key that was presented.
        expected: Digest,
    },
}

/// Accepts the claims if the consortium trusts code and host data, and if they were made for the
/// key that the peer proved to hold. The checks run in CCF's order.
pub fn appraise(
    claims: &Claims,
    manifests: &dyn Manifests,
    key: &PublicKey,
) -> Result<(), AppraisalError> {
    let Claims { format, measurement, host_data, report_data } = claims;
    let format = *format;
    if !manifests.trusts_host_data(format, host_data) {
        return Err(AppraisalError::HostData { format, host_data: *host_data });
    }
    if !manifests.trusts_measurement(format, measurement) {
        return Err(AppraisalError::Measurement { format, measurement: measurement.clone() });
    }
    if *report_data != key.id() {
        return Err(AppraisalError::Key { found: *report_data, expected: key.id() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coco_crypto::{Curve, Entropy, KeyPair, sha256};

    use super::*;

    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    struct Tables {
        measurements: Vec<&'static str>,
        host_data: Vec<Digest>,
    }

    impl Manifests for Tables {
        fn trusts_measurement(&self, format: EvidenceFormat, measurement: &str) -> bool {
            format == EvidenceFormat::InsecureVirtual && self.measurements.contains(&measurement)
        }

        fn trusts_host_data(&self, format: EvidenceFormat, host_data: &Digest) -> bool {
            format == EvidenceFormat::InsecureVirtual && self.host_data.contains(host_data)
        }
    }

    #[test]
    fn every_claim_must_be_trusted() {
        let key = KeyPair::generate(Curve::P256, &Fixed(1)).unwrap();
        let key = key.public();
        let good = Claims {
            format: EvidenceFormat::InsecureVirtual,
            measurement: "v1".to_owned(),
            host_data: sha256(b"program"),
            report_data: key.id(),
        };
        let tables = Tables { measurements: vec!["v1"], host_data: vec![sha256(b"program")] };
        assert_eq!(appraise(&good, &tables, key), Ok(()));

        let format = EvidenceFormat::InsecureVirtual;
        let host_data = sha256(b"another");
        let bad = Claims { host_data, ..good.clone() };
        assert_eq!(
            appraise(&bad, &tables, key),
            Err(AppraisalError::HostData { format, host_data })
        );
        let measurement = "v2".to_owned();
        let bad = Claims { measurement: measurement.clone(), ..good.clone() };
        assert_eq!(
            appraise(&bad, &tables, key),
            Err(AppraisalError::Measurement { format, measurement })
        );
        let found = sha256(b"another key");
        let bad = Claims { report_data: found, ..good.clone() };
        assert_eq!(
            appraise(&bad, &tables, key),
            Err(AppraisalError::Key { found, expected: key.id() })
        );
        let bad = Claims { format: EvidenceFormat::OeSgxV1, ..good.clone() };
        assert!(appraise(&bad, &tables, key).is_err());
        let empty = Tables { measurements: vec![], host_data: vec![] };
        assert!(appraise(&good, &empty, key).is_err());
    }
}
