//! Receipts in COSE: the ledger's own signature by the service, with inclusion proofs in the
//! unprotected header (draft-ietf-cose-merkle-tree-proofs, CCF profile).
//!
//! ```text
//! 396 (vdp): { -1: [ bstr { 1: [write set digest, commit evidence, claims digest],
//!                           2: [ [is left, sibling], ... ] }, ... ] }
//! ```

use coco_crypto::cbor::Value as Cbor;
use coco_crypto::cose::{Header, label};
use coco_crypto::{CoseSign1, Digest, PublicKey};

use super::{
    InclusionProof, Leaf, LeafComponents, MAX_PATH_STEPS, MAX_RECEIPT_BYTES, ReceiptError,
};
use crate::merkle::{Path, PathStep, Side};
use crate::signature::ServiceSignature;

const INCLUSION: i64 = -1;
const LEAF: i64 = 1;
const PATH: i64 = 2;
/// Proofs in one receipt; CCF writes one.
const MAX_PROOFS: usize = 64;

/// A COSE receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoseReceipt {
    signature: ServiceSignature,
    proofs: Vec<InclusionProof>,
}

impl CoseReceipt {
    /// A receipt of the service's signature and proofs that lead to the root it signs.
    ///
    /// # Errors
    /// If there is no proof, or a leaf that is not made of all three components.
    pub fn new(
        signature: ServiceSignature,
        proofs: Vec<InclusionProof>,
    ) -> Result<Self, ReceiptError> {
        let encoded = proofs.iter().map(encode_proof).collect::<Option<Vec<_>>>();
        let encoded = encoded.ok_or(ReceiptError::Missing("leaf components"))?;
        if encoded.is_empty() {
            return Err(ReceiptError::Missing("inclusion proof"));
        }
        let inclusion = Cbor::Map(vec![(INCLUSION.into(), Cbor::Array(encoded))]);
        let ServiceSignature { message, tx_id } = signature;
        let message = message.with_unprotected(Header::new().with(label::VDP, inclusion));
        Ok(Self { signature: ServiceSignature { message, tx_id }, proofs })
    }

    /// The receipt's bytes, `application/cose`.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.signature.message.encode()
    }

    /// Reads a receipt. Nothing is verified yet.
    ///
    /// # Errors
    /// If it is malformed or too long.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::TooLong(bytes.len()));
        }
        let message = CoseSign1::parse(bytes)?;
        let proofs = message.unprotected().get(label::VDP);
        let proofs = proofs.and_then(|proofs| proofs.entry(INCLUSION)).and_then(Cbor::as_array);
        let proofs = proofs
            .filter(|proofs| (1..=MAX_PROOFS).contains(&proofs.len()))
            .ok_or(ReceiptError::Missing("inclusion proof"))?
            .iter()
            .map(parse_proof)
            .collect::<Result<_, _>>()?;
        Ok(Self { signature: ServiceSignature::of_message(message)?, proofs })
    }

    /// The service's signature, with the position of the signature transaction.
    pub fn signature(&self) -> &ServiceSignature {
        &self.signature
    }

    /// What the receipt proves; at least one.
    pub fn proofs(&self) -> &[InclusionProof] {
        &self.proofs
    }

    /// Verifies that each proof leads to the root that `service` signed.
    ///
    /// # Errors
    /// If one does not.
    pub fn verify(&self, service: &PublicKey) -> Result<(), ReceiptError> {
        for proof in &self.proofs {
            self.signature.verify(service, proof.root())?;
        }
        Ok(())
    }

    /// As [`CoseReceipt::verify`], and that each proof covers these claims of the application.
    ///
    /// # Errors
    /// If one does not.
    pub fn verify_claims(&self, service: &PublicKey, claims: Digest) -> Result<(), ReceiptError> {
        let covered = self.proofs.iter().all(|proof| match &proof.leaf {
            Leaf::Components(components) => components.claims_digest == Some(claims),
            Leaf::Digest(_) => false,
        });
        if covered { self.verify(service) } else { Err(ReceiptError::Claims) }
    }
}

/// `None` if the leaf has not all components.
fn encode_proof(proof: &InclusionProof) -> Option<Cbor> {
    let Leaf::Components(components) = &proof.leaf else { return None };
    let leaf = vec![
        Cbor::from(&components.write_set_digest.0[..]),
        Cbor::from(components.commit_evidence.as_deref()?),
        Cbor::from(&components.claims_digest.as_ref()?.0[..]),
    ];
    let path = proof.path.0.iter().map(|step| {
        Cbor::Array(vec![(step.side == Side::Left).into(), Cbor::from(&step.sibling.0[..])])
    });
    let map = Cbor::Map(vec![
        (LEAF.into(), Cbor::Array(leaf)),
        (PATH.into(), Cbor::Array(path.collect())),
    ]);
    Some(Cbor::Bytes(map.encode()))
}

fn parse_proof(proof: &Cbor) -> Result<InclusionProof, ReceiptError> {
    let map = Cbor::parse(proof.as_bytes().ok_or(ReceiptError::Missing("inclusion proof"))?)?;
    let leaf = map.entry(LEAF).and_then(Cbor::as_array);
    let Some([write_set_digest, commit_evidence, claims_digest]) = leaf else {
        return Err(ReceiptError::Missing("leaf"));
    };
    let evidence = commit_evidence.as_text().ok_or(ReceiptError::Missing("commit evidence"))?;
    let components = LeafComponents {
        write_set_digest: digest(write_set_digest)?,
        commit_evidence: Some(evidence.to_owned()),
        claims_digest: Some(digest(claims_digest)?),
    };
    let path = map.entry(PATH).and_then(Cbor::as_array);
    let path = path.filter(|path| path.len() <= MAX_PATH_STEPS);
    let steps = path.ok_or(ReceiptError::Missing("path"))?.iter().map(|step| {
        let Some([is_left, sibling]) = step.as_array() else {
            return Err(ReceiptError::Missing("path"));
        };
        let side = match is_left.as_bool().ok_or(ReceiptError::Missing("path"))? {
            true => Side::Left,
            false => Side::Right,
        };
        Ok(PathStep { side, sibling: digest(sibling)? })
    });
    let path = Path(steps.collect::<Result<_, _>>()?);
    Ok(InclusionProof { leaf: Leaf::Components(components), path })
}

fn digest(value: &Cbor) -> Result<Digest, ReceiptError> {
    let bytes = value.as_bytes().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Digest).ok_or(ReceiptError::Missing("digest"))
}
