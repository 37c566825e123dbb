//! `coco receipt`: checks a proof that a transaction is on a ledger, offline.

use std::path::{Path, PathBuf};

use alloy_primitives::{B256, Bytes, keccak256};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use coco_crypto::{Certificate, Digest, PublicKey, sha256};
use coco_ledger::{
    CoseReceipt, InclusionProof, Leaf, MAX_RECEIPT_BYTES, Receipt, ReceiptError, Subject,
};
use serde::Serialize;
use serde_json::Value;

use crate::advice::advised;
use crate::output::Output;
use crate::service::read;

/// The first byte of a COSE receipt.
const COSE_SIGN1_TAG: u8 = 0xd2;

#[derive(Subcommand, Debug)]
pub(crate) enum ReceiptCommand {
    /// Check a receipt against a service certificate
    #[command(after_help = "\
The receipt is JSON (GET /node/receipt) or COSE (GET /node/receipt/cose). What the application
claims about the transaction is checked with --claims-digest: SHA-256 of the claims, in hex.
With the hash of an Ethereum transaction, or the signed transaction itself, it is checked that the
receipt is of its execution: the claims of an Ethereum transaction are its hash.

Examples:
  coco receipt verify receipt.json --service-cert service_cert.pem
  coco receipt verify receipt.cose --service-cert service_cert.pem --claims-digest 9f86d0...
  cast rpc coco_getReceipt 0x5f.. > r.json
  coco receipt verify r.json --service-cert service_cert.pem --ethereum-transaction 0x5f..")]
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// File with the receipt
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// File with the service's certificate
    #[arg(long, value_name = "FILE")]
    service_cert: PathBuf,
    /// What the receipt must claim
    #[arg(long, value_name = "HEX")]
    claims_digest: Option<Digest>,
    /// Hash of the Ethereum transaction that the receipt must be of
    #[arg(long, value_name = "HASH", conflicts_with = "claims_digest")]
    ethereum_transaction: Option<B256>,
    /// The signed Ethereum transaction itself, as it was sent: 0x and hex
    #[arg(long, value_name = "HEX", conflicts_with_all = ["claims_digest", "ethereum_transaction"])]
    ethereum_raw_transaction: Option<Bytes>,
}

impl VerifyArgs {
    /// The hash of the Ethereum transaction that is asked about.
    fn ethereum_hash(&self) -> Option<B256> {
        let raw = self.ethereum_raw_transaction.as_ref();
        raw.map(keccak256).or(self.ethereum_transaction)
    }

    /// What the receipt must claim. For an Ethereum transaction the claims are its hash.
    fn claims(&self) -> Option<Digest> {
        self.ethereum_hash().map(|hash| sha256(hash.as_slice())).or(self.claims_digest)
    }
}

pub(crate) fn run(command: &ReceiptCommand, output: Output) -> Result<()> {
    match command {
        ReceiptCommand::Verify(arguments) => verify(arguments, output),
    }
}

/// What a receipt proves.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Proven {
    valid: bool,
    kind: &'static str,
    /// Absent in receipts of signature transactions.
    transaction_id: Option<String>,
    claims_digest: Option<String>,
    /// The Ethereum transaction that was executed in it, if that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    ethereum_transaction: Option<String>,
    root: String,
}

fn verify(arguments: &VerifyArgs, output: Output) -> Result<()> {
    let certificate = Certificate::from_pem(&read(&arguments.service_cert)?)
        .and_then(|certificate| certificate.public_key())
        .with_context(|| format!("{} is not usable", arguments.service_cert.display()))?;
    let receipt = receipt_in(read_receipt(&arguments.file)?);
    let proven = prove(&receipt, &certificate, arguments.claims()).map_err(|error| {
        let advice = advice(&error, || prove(&receipt, &certificate, None).is_ok());
        let error = error.context(format!("{} proves nothing", arguments.file.display()));
        match advice {
            Some(advice) => advised(error, advice),
            None => error,
        }
    })?;
    let ethereum_transaction = arguments.ethereum_hash().map(|hash| hash.to_string());
    let proven = Proven { ethereum_transaction, ..proven };
    output.print(&proven, || {
        let tx = proven.transaction_id.as_deref().unwrap_or("a signature");
        let claims = proven.claims_digest.as_ref();
        let claims = claims.map(|claims| format!("\n  claims {claims}")).unwrap_or_default();
        let hash = proven.ethereum_transaction.as_ref();
        let what = hash.map(|hash| format!("Ethereum transaction {hash}, executed in {tx},"));
        format!(
            "{} is on the ledger\n  root {}{claims}",
            what.as_deref().unwrap_or(tx),
            proven.root
        )
    })?;
    Ok(())
}

/// Whose fault it is that a receipt proves nothing: what was asked, or the certificate. A receipt
/// `holds` that proves something else.
fn advice(error: &anyhow::Error, holds: impl FnOnce() -> bool) -> Option<&'static str> {
    match error.downcast_ref::<ReceiptError>()? {
        ReceiptError::Claims if holds() => Some(
            "the receipt is one of this service, of another transaction or with other claims: get \
             the receipt of the one that you ask about",
        ),
        ReceiptError::Claims
        | ReceiptError::Cose(_)
        | ReceiptError::Signature(_)
        | ReceiptError::Root(_)
        | ReceiptError::Certificate(_) => Some(
            "a service that was recovered has a new certificate: a JSON receipt takes the present \
                 one, a COSE receipt that of the time it was signed",
        ),
        _ => None,
    }
}

fn read_receipt(file: &Path) -> Result<Vec<u8>> {
    let bytes =
        std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    if bytes.len() > MAX_RECEIPT_BYTES {
        bail!("{} is too long for a receipt", file.display());
    }
    Ok(bytes)
}

/// The receipt in the answer of `coco_getReceipt`, or what was given if it is no such answer.
fn receipt_in(given: Vec<u8>) -> Vec<u8> {
    let answer: Option<Value> = serde_json::from_slice(&given).ok();
    let inner = answer.as_ref().and_then(|answer| {
        let result = answer.get("result").unwrap_or(answer);
        result.get("transactionHash").and_then(|_| result.get("receipt"))
    });
    inner.map_or(given, |receipt| receipt.to_string().into_bytes())
}

fn prove(receipt: &[u8], service: &PublicKey, claims: Option<Digest>) -> Result<Proven> {
    match receipt.trim_ascii_start().first() {
        Some(&b'{') => prove_json(receipt, service, claims),
        Some(&COSE_SIGN1_TAG) => prove_cose(receipt, service, claims),
        _ => bail!("it is no receipt: a node that answered 202 has none yet, ask it again"),
    }
}

fn prove_json(receipt: &[u8], service: &PublicKey, claims: Option<Digest>) -> Result<Proven> {
    let mut receipt = Receipt::from_json(receipt)?;
    if let (Some(claims), Leaf::Components(leaf)) = (claims, &mut receipt.proof.leaf) {
        // An application may leave the digest out, for the client to fill in.
        leaf.claims_digest.get_or_insert(claims);
    }
    let root = match claims {
        Some(claims) => receipt.verify_claims(service, claims)?,
        None => receipt.verify(service)?,
    };
    Proven::of("json", &receipt.proof, root)
}

fn prove_cose(receipt: &[u8], service: &PublicKey, claims: Option<Digest>) -> Result<Proven> {
    let receipt = CoseReceipt::parse(receipt)?;
    match claims {
        Some(claims) => receipt.verify_claims(service, claims)?,
        None => receipt.verify(service)?,
    }
    let proof = receipt.proofs().first().context("the receipt holds no proof")?;
    Proven::of("cose", proof, proof.root())
}

impl Proven {
    fn of(kind: &'static str, proof: &InclusionProof, root: Digest) -> Result<Self> {
        let transaction_id = match proof.subject()? {
            Subject::Transaction(tx_id) => Some(tx_id.to_string()),
            Subject::Signature => None,
        };
        let claims = match &proof.leaf {
            Leaf::Components(components) => components.claims_digest,
            Leaf::Digest(_) => None,
        };
        Ok(Self {
            valid: true,
            kind,
            transaction_id,
            claims_digest: claims.filter(|it| *it != Digest::ZERO).map(|it| it.to_string()),
            ethereum_transaction: None,
            root: root.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use coco_ledger::{LeafComponents, Path, PathStep, Side};

    use super::*;

    #[test]
    fn only_commit_evidence_says_that_a_leaf_is_a_transaction() {
        let (root, path) =
            (Digest::ZERO, Path(vec![PathStep { side: Side::Left, sibling: Digest::ZERO }]));
        let proven = |leaf, path| Proven::of("json", &InclusionProof { leaf, path }, root);
        let components = |evidence: Option<&str>| {
            Leaf::Components(LeafComponents {
                write_set_digest: Digest::ZERO,
                commit_evidence: evidence.map(str::to_owned),
                claims_digest: Some(sha256(b"claims")),
            })
        };
        let transaction = proven(components(Some("ce:2.7:00")), path.clone()).unwrap();
        assert_eq!(transaction.transaction_id.as_deref(), Some("2.7"));
        let signature = proven(Leaf::Digest(root), Path::default()).unwrap();
        assert_eq!(signature.transaction_id, None);
        for leaf in [components(None), components(Some("ce")), Leaf::Digest(root)] {
            proven(leaf, path.clone()).unwrap_err();
        }
    }
}
