//! Receipts, as an auditor gets and verifies them.

use std::collections::BTreeMap;

use coco_crypto::Digest;
use coco_ledger::{Entry, Leaf, SignatureTransaction, SignedProof, split_entry};

use crate::random::Random;
use crate::replica::Service;

/// Receipts of one ledger that are made and verified.
const RECEIPTS: u64 = 8;

/// Makes receipts of some transactions of a ledger and verifies them; returns how many. A receipt
/// whose leaf is changed must not verify.
pub fn check_receipts(
    mut ledger: &[u8],
    service: &Service,
    random: &mut Random,
) -> Result<u64, String> {
    let mut entries = BTreeMap::new();
    let mut signatures = BTreeMap::new();
    while !ledger.is_empty() {
        let (bytes, rest) = split_entry(ledger).map_err(|error| error.to_string())?;
        ledger = rest;
        let entry = Entry::parse(bytes).map_err(|error| error.to_string())?;
        let seqno = entry.tx_id().seqno;
        let writes = entry.public_writes().map_err(|error| error.to_string())?;
        let signature = SignatureTransaction::parse(&writes).map_err(|error| error.to_string())?;
        if let Some(node) = signature.and_then(|signature| signature.node) {
            signatures.insert(seqno, node);
        }
        entries.insert(seqno, entry);
    }
    let seqnos: Vec<_> = entries.keys().copied().collect();
    for _ in 0..RECEIPTS {
        let Some(seqno) = random.pick(&seqnos) else { return Ok(0) };
        let first = signatures.range(seqno..).next();
        let (signed_at, node) = first.ok_or(format!("nothing signs {seqno}"))?;
        let (Some(entry), Some(signature)) = (entries.get(&seqno), entries.get(signed_at)) else {
            return Err(format!("{seqno} is missing"));
        };
        let receipt = SignedProof::historical(entry, signature, &service.secrets);
        let mut proof = receipt.map_err(|error| format!("no receipt of {seqno}: {error}"))?.proof;
        let signer = node.node_id.parse().map(coco_consensus::NodeId);
        let key = signer.ok().and_then(|signer| service.keys.get(&signer));
        let key = key.ok_or(format!("nobody known signed {signed_at}"))?;
        let verifies = |root: Digest| key.public().verify_digest(&root, &node.signature).is_ok();
        if !verifies(proof.root()) {
            return Err(format!("the receipt of {seqno} does not verify"));
        }
        match &mut proof.leaf {
            Leaf::Components(components) => components.claims_digest = Some(components.digest()),
            Leaf::Digest(digest) => digest.0[0] ^= 1,
        }
        if verifies(proof.root()) {
            return Err(format!("the receipt of {seqno} verifies for another leaf"));
        }
    }
    Ok(RECEIPTS)
}
