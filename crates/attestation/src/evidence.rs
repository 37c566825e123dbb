//! Evidence in CCF's `quote_info` form, and the claims that a verifier gets out of it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_crypto::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest quote that is read.
pub const QUOTE_MAX_LEN_BYTES: usize = 64 * 1024;
/// Longest endorsements that are read, of the platform or of the utility VM.
pub const ENDORSEMENTS_MAX_LEN_BYTES: usize = 1024 * 1024;
/// An endorsed TCB version is a hexadecimal number of 64 bits.
const ENDORSED_TCB_LEN: usize = 16;

/// The form of a quote, by its name in CCF's tables and APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EvidenceFormat {
    /// No protection at all, see [`crate::insecure`].
    #[serde(rename = "Insecure_Virtual")]
    InsecureVirtual,
    /// Intel SGX through Open Enclave; stands in ledgers of older services.
    #[serde(rename = "OE_SGX_v1")]
    OeSgxV1,
    /// AMD SEV-SNP.
    #[serde(rename = "AMD_SEV_SNP_v1")]
    AmdSevSnpV1,
}

impl fmt::Display for EvidenceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsecureVirtual => "Insecure_Virtual",
            Self::OeSgxV1 => "OE_SGX_v1",
            Self::AmdSevSnpV1 => "AMD_SEV_SNP_v1",
        })
    }
}

/// A TEE's statement about the code that runs in it; its JSON is `quote_info` of a join request and
/// of `nodes.info`. Nothing in it is to be believed before [`verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// SNP: the TCB version that the endorsements are for, in hex.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "read_endorsed_tcb"
    )]
    pub endorsed_tcb: Option<String>,
    /// What vouches for the platform, e.g. a certificate chain.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_endorsements")]
    pub endorsements: Vec<u8>,
    /// Which kind of TEE.
    pub format: EvidenceFormat,
    /// The signed statement.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_quote")]
    pub quote: Vec<u8>,
    /// SNP: what vouches for the utility VM.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_optional_base64",
        deserialize_with = "read_uvm_endorsements"
    )]
    pub uvm_endorsements: Option<Vec<u8>>,
}

/// What verified evidence says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The kind of TEE.
    pub format: EvidenceFormat,
    /// The code, as text: hex for hardware, free text for the software TEE.
    pub measurement: String,
    /// What the host bound to the TEE at launch: the digest of the policy or of the program.
    pub host_data: Digest,
    /// What the code inside asked to have signed: the digest of its public key.
    pub report_data: Digest,
}

/// Why evidence is not genuine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// No verifier for this kind of TEE.
    #[error("no verifier for evidence of format {format}")]
    NoVerifier {
        /// The kind.
        format: EvidenceFormat,
    },
    /// The quote cannot be read.
    #[error("malformed {format} quote: {reason}")]
    Malformed {
        /// The kind of TEE.
        format: EvidenceFormat,
        /// What is wrong.
        reason: String,
    },
    /// A part that this kind of evidence never has.
    #[error("{format} evidence has no {part}")]
    Unexpected {
        /// The kind of TEE.
        format: EvidenceFormat,
        /// The part.
        part: &'static str,
    },
}

/// Decides whether evidence of one kind is genuine.
pub trait EvidenceVerifier: Send + Sync {
    /// The kind it knows.
    fn format(&self) -> EvidenceFormat;

    /// The claims, if signatures and endorsements hold. Only called with evidence of its kind.
    fn verify(&self, evidence: &Evidence) -> Result<Claims, EvidenceError>;
}

/// Verifies evidence with the verifier of its kind.
pub fn verify(
    evidence: &Evidence,
    verifiers: &[&dyn EvidenceVerifier],
) -> Result<Claims, EvidenceError> {
    let format = evidence.format;
    let verifier = verifiers.iter().find(|verifier| verifier.format() == format);
    verifier.ok_or(EvidenceError::NoVerifier { format })?.verify(evidence)
}

/// The evidence of a node as `/node/quotes` and `/node/attestations` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeEvidence {
    #[serde(serialize_with = "write_base64")]
    endorsements: Vec<u8>,
    format: EvidenceFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    measurement: Option<String>,
    node_id: String,
    #[serde(serialize_with = "write_base64")]
    raw: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_optional_base64")]
    uvm_endorsements: Option<Vec<u8>>,
}

impl NodeEvidence {
    /// The evidence of this node, with the measurement if it verifies.
    pub fn new(node_id: &str, evidence: &Evidence, verifiers: &[&dyn EvidenceVerifier]) -> Self {
        Self {
            endorsements: evidence.endorsements.clone(),
            format: evidence.format,
            measurement: verify(evidence, verifiers).ok().map(|claims| claims.measurement),
            node_id: node_id.to_owned(),
            raw: evidence.quote.clone(),
            uvm_endorsements: evidence.uvm_endorsements.clone(),
        }
    }
}

fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn write_optional_base64<S: Serializer>(
    bytes: &Option<Vec<u8>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(serializer)
}

fn decode<E: serde::de::Error>(text: &str, limit_bytes: usize) -> Result<Vec<u8>, E> {
    if text.len() > limit_bytes.div_ceil(3) * 4 {
        return Err(E::custom(format_args!("longer than {limit_bytes} bytes")));
    }
    STANDARD.decode(text).map_err(|_| E::custom("not base64"))
}

fn read_quote<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    decode(&String::deserialize(deserializer)?, QUOTE_MAX_LEN_BYTES)
}

fn read_endorsements<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    decode(&String::deserialize(deserializer)?, ENDORSEMENTS_MAX_LEN_BYTES)
}

fn read_uvm_endorsements<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<u8>>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| decode(&text, ENDORSEMENTS_MAX_LEN_BYTES)).transpose()
}

fn read_endorsed_tcb<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    match text {
        Some(text) if text.len() > ENDORSED_TCB_LEN || !is_hex(&text) => {
            Err(serde::de::Error::custom("endorsed_tcb is not a 64-bit hexadecimal number"))
        }
        text => Ok(text),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_is_ccfs_quote_info() {
        let text = r#"{"endorsements":"","format":"Insecure_Virtual","quote":"e30="}"#;
        let evidence: Evidence = serde_json::from_str(text).unwrap();
        assert_eq!(evidence.quote, b"{}");
        assert_eq!(serde_json::to_string(&evidence).unwrap(), text);
        let text = concat!(
            r#"{"endorsed_tcb":"d315000000000004","endorsements":"AA==","format":"AMD_SEV_SNP_v1","#,
            r#""quote":"AQ==","uvm_endorsements":"Ag=="}"#
        );
        let evidence: Evidence = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&evidence).unwrap(), text);
    }

    #[test]
    fn bad_json_is_refused() {
        let long = "A".repeat(QUOTE_MAX_LEN_BYTES * 2);
        for (endorsements, format, quote, more) in [
            ("", "Insecure_Virtual", "?", ""),
            ("?", "Insecure_Virtual", "", ""),
            ("", "Secure_Virtual", "", ""),
            ("", "Insecure_Virtual", long.as_str(), ""),
            ("", "AMD_SEV_SNP_v1", "", r#","endorsed_tcb":"xyz""#),
            ("", "AMD_SEV_SNP_v1", "", r#","endorsed_tcb":"00112233445566778""#),
            ("", "AMD_SEV_SNP_v1", "", r#","uvm_endorsements":"?""#),
            ("", "AMD_SEV_SNP_v1", "", r#","quote":"""#),
        ] {
            let text = format!(
                r#"{{"endorsements":"{endorsements}","format":"{format}","quote":"{quote}"{more}}}"#
            );
            assert!(serde_json::from_str::<Evidence>(&text).is_err(), "{text:.100}");
        }
        assert!(serde_json::from_str::<Evidence>(r#"{"format":"Insecure_Virtual"}"#).is_err());
    }

    #[test]
    fn without_a_verifier_nothing_is_genuine() {
        let format = EvidenceFormat::OeSgxV1;
        let evidence = Evidence {
            endorsed_tcb: None,
            endorsements: vec![],
            format,
            quote: vec![1],
            uvm_endorsements: None,
        };
        assert_eq!(
            verify(&evidence, &[&crate::insecure::SoftwareVerifier]),
            Err(EvidenceError::NoVerifier { format })
        );
        let shown = NodeEvidence::new("ab", &evidence, &[]);
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            r#"{"endorsements":"","format":"OE_SGX_v1","node_id":"ab","raw":"AQ=="}"#
        );
    }

    proptest! {
        #[test]
        fn evidence_comes_back(
            quote: Vec<u8>, endorsements: Vec<u8>, uvm_endorsements: Option<Vec<u8>>,
            endorsed_tcb in proptest::option::of("[0-9a-f]{16}"), which in 0_usize..3,
        ) {
            use EvidenceFormat::{AmdSevSnpV1, InsecureVirtual, OeSgxV1};
            let format = [InsecureVirtual, OeSgxV1, AmdSevSnpV1][which];
            let evidence = Evidence { endorsed_tcb, endorsements, format, quote, uvm_endorsements };
            let text = serde_json::to_string(&evidence).unwrap();
            prop_assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
            let name = format!("\"{format}\"");
            prop_assert_eq!(serde_json::to_string(&format).unwrap(), name);
        }
    }
}
