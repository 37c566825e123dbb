//! The software TEE for development. **It protects nothing**: anybody can make its evidence, and
//! whoever reads the seed opens what it sealed. It exists so that a node runs the same way, through
//! the same checks, on any machine.
//!
//! Its evidence is CCF's `Insecure_Virtual`; the quote is compact JSON without any signature:
//!
//! ```text
//! {"host_data":   hex SHA-256 of the program,
//!  "measurement": text,
//!  "report_data": base64 SHA-256 of the node's public key}
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_crypto::{AeadKey, Digest, Entropy, GcmCipher, hkdf_sha256};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    Claims, Evidence, EvidenceError, EvidenceFormat, EvidenceVerifier, SEALED_MAX_LEN_BYTES,
    SealError, Tee, TeeError,
};

/// The measurement of every software TEE, CCF's as well as ours.
pub const INSECURE_MEASUREMENT: &str = "Insecure hard-coded virtual measurement v1";
const MEASUREMENT_MAX_LEN_BYTES: usize = 1024;
const SEALING_LABEL: &[u8] = b"Coco insecure software TEE: sealing key";

/// What stands in for the platform's secret: 32 bytes that the host keeps in a file.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct InsecureSeed([u8; 32]);

impl InsecureSeed {
    /// The seed of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh seed.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut seed = Self([0; 32]);
        entropy.fill(&mut seed.0);
        seed
    }

    /// The bytes, for the host to keep.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for InsecureSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InsecureSeed(..)")
    }
}

/// The software TEE. Insecure by definition.
#[derive(Debug)]
pub struct SoftwareTee {
    measurement: String,
    host_data: Digest,
    sealing_key: AeadKey,
}

impl SoftwareTee {
    /// The TEE of a program with the digest `host_data`, on a "platform" with this seed, under
    /// [`INSECURE_MEASUREMENT`].
    pub fn new(host_data: Digest, seed: &InsecureSeed) -> Self {
        Self::with_measurement(INSECURE_MEASUREMENT, host_data, seed)
    }

    /// The same under another measurement, to rehearse code updates.
    pub fn with_measurement(measurement: &str, host_data: Digest, seed: &InsecureSeed) -> Self {
        // The code identity: fixed length first, so that no two identities have the same bytes.
        let identity = [SEALING_LABEL, &host_data.0, measurement.as_bytes()].concat();
        #[expect(clippy::expect_used, reason = "32 bytes are below HKDF's limit")]
        let derived = hkdf_sha256(&seed.0, b"", &identity, 32).expect("32 bytes are always given");
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&derived);
        let sealing_key = AeadKey::new(*key);
        Self { measurement: measurement.to_owned(), host_data, sealing_key }
    }
}

impl Tee for SoftwareTee {
    fn evidence(&self, report_data: &Digest) -> Result<Evidence, TeeError> {
        let quote = Quote {
            host_data: self.host_data.to_string(),
            measurement: self.measurement.clone(),
            report_data: STANDARD.encode(report_data.0),
        };
        let quote =
            serde_json::to_vec(&quote).map_err(|error| TeeError { reason: error.to_string() })?;
        Ok(Evidence {
            endorsed_tcb: None,
            endorsements: Vec::new(),
            format: EvidenceFormat::InsecureVirtual,
            quote,
            uvm_endorsements: None,
        })
    }

    fn seal(
        &self,
        context: &str,
        secret: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        let sealed = GcmCipher::seal_random(&self.sealing_key, entropy, context.as_bytes(), secret);
        let blob = SealedBlob {
            aad_text: context.to_owned(),
            ciphertext: STANDARD.encode(sealed.encode()),
        };
        let blob = serde_json::to_vec(&blob)
            .map_err(|error| SealError::Malformed { reason: error.to_string() })?;
        if blob.len() > SEALED_MAX_LEN_BYTES {
            return Err(SealError::TooLong { len_bytes: blob.len() });
        }
        Ok(blob)
    }

    fn unseal(&self, context: &str, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if blob.len() > SEALED_MAX_LEN_BYTES {
            return Err(SealError::TooLong { len_bytes: blob.len() });
        }
        let malformed = |reason: &dyn ToString| SealError::Malformed { reason: reason.to_string() };
        let blob: SealedBlob = serde_json::from_slice(blob).map_err(|error| malformed(&error))?;
        if blob.aad_text != context {
            return Err(SealError::Context { found: blob.aad_text, expected: context.to_owned() });
        }
        let bytes = STANDARD.decode(&blob.ciphertext).map_err(|error| malformed(&error))?;
        GcmCipher::parse(&bytes)
            .map_err(|error| malformed(&error))?
            .open(&self.sealing_key, context.as_bytes())
            .map_err(|_| SealError::NotAuthentic)
    }
}

/// Reads the software TEE's evidence. Anybody can have made it: what it gives is well-formed, not
/// true.
#[derive(Clone, Copy, Debug)]
pub struct SoftwareVerifier;

impl EvidenceVerifier for SoftwareVerifier {
    fn format(&self) -> EvidenceFormat {
        EvidenceFormat::InsecureVirtual
    }

    fn verify(&self, evidence: &Evidence) -> Result<Claims, EvidenceError> {
        let format = self.format();
        let malformed = |reason: String| EvidenceError::Malformed { format, reason };
        for (part, is_there) in [
            ("endorsements", !evidence.endorsements.is_empty()),
            ("utility VM endorsements", evidence.uvm_endorsements.is_some()),
            ("endorsed TCB", evidence.endorsed_tcb.is_some()),
        ] {
            if is_there {
                return Err(EvidenceError::Unexpected { format, part });
            }
        }
        let quote: Quote = serde_json::from_slice(&evidence.quote)
            .map_err(|error| malformed(error.to_string()))?;
        if quote.measurement.is_empty() || quote.measurement.len() > MEASUREMENT_MAX_LEN_BYTES {
            return Err(malformed(format!("measurement of {} bytes", quote.measurement.len())));
        }
        let host_data =
            quote.host_data.parse().map_err(|_| malformed("host_data is no digest".to_owned()))?;
        let report_data = STANDARD
            .decode(&quote.report_data)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Digest)
            .ok_or_else(|| malformed("report_data is no digest in base64".to_owned()))?;
        Ok(Claims { format, measurement: quote.measurement, host_data, report_data })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Quote {
    host_data: String,
    measurement: String,
    report_data: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedBlob {
    aad_text: String,
    ciphertext: String,
}

#[cfg(test)]
mod tests {
    use coco_crypto::sha256;
    use proptest::prelude::*;

    use super::*;
    use crate::verify;

    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }

    fn tee(program: &[u8], seed: u8) -> SoftwareTee {
        SoftwareTee::new(sha256(program), &InsecureSeed::new([seed; 32]))
    }

    fn evidence(quote: &[u8]) -> Evidence {
        let evidence = tee(b"", 0).evidence(&Digest::ZERO).unwrap();
        Evidence { quote: quote.to_vec(), ..evidence }
    }

    /// From the first node of a recorded CCF service (`cose_flipflop_service`).
    const RECORDED: &str = concat!(
        r#"{"host_data":"26ae68eb22da9d0580a463dcf8f86d8942d8cbd77d8e11da832906797479fbdc","#,
        r#""measurement":"Insecure hard-coded virtual measurement v1","#,
        r#""report_data":"+3B6FWuClFY5XTLKEzTC8NkOhbPu3DwWJznEglzJ1j8="}"#
    );

    #[test]
    fn recorded_evidence_is_read_and_written_alike() {
        let claims = verify(&evidence(RECORDED.as_bytes()), &[&SoftwareVerifier]).unwrap();
        assert_eq!(claims.measurement, INSECURE_MEASUREMENT);
        let tee = SoftwareTee::new(claims.host_data, &InsecureSeed::new([0; 32]));
        let again = tee.evidence(&claims.report_data).unwrap();
        assert_eq!(String::from_utf8(again.quote).unwrap(), RECORDED);
    }

    #[test]
    fn malformed_quotes_are_refused() {
        let long = RECORDED.replace("v1", &"v".repeat(1024));
        for bad in [
            String::new(),
            "{}".to_owned(),
            "null".to_owned(),
            RECORDED.replace("26ae", "26a"),
            RECORDED.replace("26ae", "xyz0"),
            RECORDED.replace("+3B6", "+3B"),
            RECORDED.replace("+3B6", "????"),
            RECORDED.replace(INSECURE_MEASUREMENT, ""),
            RECORDED.replace('}', ",\"more\":1}"),
            RECORDED.replace('}', ",\"measurement\":\"twice\"}"),
            format!("{RECORDED}{RECORDED}"),
            long,
        ] {
            assert!(
                matches!(
                    SoftwareVerifier.verify(&evidence(bad.as_bytes())),
                    Err(EvidenceError::Malformed { .. })
                ),
                "{bad:.80}"
            );
        }
        let mut with_more = evidence(RECORDED.as_bytes());
        with_more.endorsements = vec![1];
        assert!(matches!(
            SoftwareVerifier.verify(&with_more),
            Err(EvidenceError::Unexpected { part: "endorsements", .. })
        ));
    }

    #[test]
    fn only_the_same_code_and_seed_open_a_sealed_secret() {
        let blob = tee(b"program", 1).seal("ledger secret 1", b"secret", &Fixed(9)).unwrap();
        let unseal = |tee: SoftwareTee| tee.unseal("ledger secret 1", &blob);
        assert_eq!(&**unseal(tee(b"program", 1)).unwrap(), b"secret");
        assert_eq!(unseal(tee(b"another", 1)), Err(SealError::NotAuthentic));
        assert_eq!(unseal(tee(b"program", 2)), Err(SealError::NotAuthentic));
        let other = InsecureSeed::new([1; 32]);
        let other = SoftwareTee::with_measurement("v2", sha256(b"program"), &other);
        assert_eq!(unseal(other), Err(SealError::NotAuthentic));
        assert_eq!(
            tee(b"program", 1).unseal("ledger secret 2", &blob),
            Err(SealError::Context {
                found: "ledger secret 1".to_owned(),
                expected: "ledger secret 2".to_owned(),
            })
        );
        // The context in clear is changed along: the tag still covers it.
        let forged = String::from_utf8(blob.clone()).unwrap().replace("secret 1", "secret 2");
        assert_eq!(
            tee(b"program", 1).unseal("ledger secret 2", forged.as_bytes()),
            Err(SealError::NotAuthentic)
        );
    }

    #[test]
    fn malformed_blobs_are_refused() {
        let tee = tee(b"", 0);
        for bad in [
            "",
            "{}",
            r#"{"aad_text":"c"}"#,
            r#"{"aad_text":"c","ciphertext":"?"}"#,
            r#"{"aad_text":"c","ciphertext":"AAAA"}"#,
            r#"{"aad_text":"c","ciphertext":"AAAA","more":1}"#,
        ] {
            let got = tee.unseal("c", bad.as_bytes());
            assert!(matches!(got, Err(SealError::Malformed { .. })), "{bad}: {got:?}");
        }
        let long = vec![b' '; SEALED_MAX_LEN_BYTES + 1];
        let too_long = SealError::TooLong { len_bytes: long.len() };
        assert_eq!(tee.unseal("c", &long), Err(too_long));
        assert!(matches!(
            tee.seal("c", &[0; SEALED_MAX_LEN_BYTES], &Fixed(0)),
            Err(SealError::TooLong { .. })
        ));
    }

    #[test]
    fn secrets_do_not_print() {
        let shown = format!("{:?} {:?}", tee(b"", 77), InsecureSeed::generate(&Fixed(77)));
        assert!(!shown.contains("77, 77"), "{shown}");
    }

    proptest! {
        #[test]
        fn evidence_says_what_was_put_in(host_data: [u8; 32], report_data: [u8; 32], text in "\\PC{1,200}") {
            let seed = InsecureSeed::new([0; 32]);
            let tee = SoftwareTee::with_measurement(&text, Digest(host_data), &seed);
            let claims = verify(&tee.evidence(&Digest(report_data)).unwrap(), &[&SoftwareVerifier]);
            let claims = claims.unwrap();
            prop_assert_eq!(claims.measurement, text);
            prop_assert_eq!((claims.host_data.0, claims.report_data.0), (host_data, report_data));
        }

        #[test]
        fn sealed_secrets_come_back(context in "\\PC*", secret: Vec<u8>, flip in any::<prop::sample::Index>()) {
            let tee = tee(b"program", 3);
            let mut blob = tee.seal(&context, &secret, &Fixed(4)).unwrap();
            prop_assert_eq!(&*tee.unseal(&context, &blob).unwrap(), &secret);
            let at = flip.index(blob.len());
            blob[at] ^= 1;
            if let Ok(opened) = tee.unseal(&context, &blob) {
                // A changed escape in the context can mean the same text.
                prop_assert_eq!(&*opened, &secret);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = SoftwareVerifier.verify(&evidence(&bytes));
            let _ = tee(b"", 0).unseal("", &bytes);
        }
    }
}
