//! What code runs where: evidence of TEEs, its verification, and its appraisal.
//!
//! A node proves itself with [`Evidence`]: the TEE's signed statement of which code it runs, bound
//! to the node's key. Whoever receives it *verifies* that the statement is genuine, which gives
//! [`Claims`], and then *appraises* the claims against what the consortium trusts.
//!
//! ```text
//!  joining node                               node that admits it
//!  Tee::evidence(SHA-256 of node key) ─────▶  verify(evidence) ─▶ Claims ─▶ appraise(manifests, key)
//!                                             genuine?                      trusted? its own key?
//! ```
//!
//! There is one TEE so far, the software one for development. It protects **nothing** and says so in
//! its name: [`insecure`]. Real TEEs come as further implementations of [`Tee`] (on the node) and
//! [`EvidenceVerifier`] (anywhere; an auditor can use it alone).
//!
//! Invariants:
//! * evidence is bounded when it is read and nothing of it is used before a verifier passed it;
//! * appraisal is closed: what no manifest names is refused;
//! * evidence counts only for the key whose digest is in it.
//!
//! ```
//! use coco_attestation::insecure::{InsecureSeed, SoftwareTee, SoftwareVerifier};
//! use coco_attestation::{Tee, verify};
//! use coco_crypto::sha256;
//!
//! let tee = SoftwareTee::new(sha256(b"the program"), &InsecureSeed::new([7; 32]));
//! let evidence = tee.evidence(&sha256(b"a public key")).unwrap();
//! let claims = verify(&evidence, &[&SoftwareVerifier]).unwrap();
//! assert_eq!(claims.report_data, sha256(b"a public key"));
//! ```

mod appraisal;
mod evidence;
pub mod insecure;
mod tee;

pub use appraisal::{AppraisalError, Manifests, appraise};
pub use evidence::{
    Claims, ENDORSEMENTS_MAX_LEN_BYTES, Evidence, EvidenceError, EvidenceFormat, EvidenceVerifier,
    NodeEvidence, QUOTE_MAX_LEN_BYTES, verify,
};
pub use tee::{SEALED_MAX_LEN_BYTES, SealError, Tee, TeeError};
