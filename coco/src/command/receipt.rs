//! `coco receipt`: checks a proof that a transaction is on a ledger, offline.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use coco_crypto::{Certificate, Digest, PublicKey};
use coco_ledger::{CoseReceipt, InclusionProof, Leaf, MAX_RECEIPT_BYTES, Receipt};
use serde::Serialize;

use crate::advice::Advise;
use crate::output::Output;
use crate::service::read;

#[derive(Subcommand, Debug)]
pub(crate) enum ReceiptCommand {
    /// Check a receipt against a service certificate
    #[command(after_help = "\
The receipt is JSON (GET /node/receipt) or COSE (GET /node/receipt/cose). What the application
claims about the transaction is checked with --claims-digest: SHA-256 of the claims, in hex.

Examples:
  coco receipt verify receipt.json --service-cert service_cert.pem
  coco receipt verify receipt.cose --service-cert service_cert.pem --claims-digest 9f86d0...")]
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
    /// Absent in receipts of signature transactions and of ledgers older than CCF 2.0.
    transaction_id: Option<String>,
    claims_digest: Option<String>,
    root: String,
}

fn verify(arguments: &VerifyArgs, output: Output) -> Result<()> {
    let certificate = Certificate::from_pem(&read(&arguments.service_cert)?)
        .and_then(|certificate| certificate.public_key())
        .with_context(|| format!("{} is not usable", arguments.service_cert.display()))?;
    let receipt = read_receipt(&arguments.file)?;
    let proven = prove(&receipt, &certificate, arguments.claims_digest)
        .with_context(|| format!("{} proves nothing", arguments.file.display()))
        .advise(|| "a service that was recovered has a new certificate: use its own".to_owned())?;
    output.print(&proven, || {
        let tx = proven.transaction_id.as_deref().unwrap_or("a signature");
        let claims = proven.claims_digest.as_ref();
        let claims = claims.map(|claims| format!("\n  claims {claims}")).unwrap_or_default();
        format!("{tx} is on the ledger\n  root {}{claims}", proven.root)
    })?;
    Ok(())
}

fn read_receipt(file: &Path) -> Result<Vec<u8>> {
    let bytes =
        std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    if bytes.len() > MAX_RECEIPT_BYTES {
        bail!("{} is too long for a receipt", file.display());
    }
    Ok(bytes)
}

fn prove(receipt: &[u8], service: &PublicKey, claims: Option<Digest>) -> Result<Proven> {
    if receipt.trim_ascii_start().first() == Some(&b'{') {
        prove_json(receipt, service, claims)
    } else {
        prove_cose(receipt, service, claims)
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
    Ok(Proven::of("json", &receipt.proof, root))
}

fn prove_cose(receipt: &[u8], service: &PublicKey, claims: Option<Digest>) -> Result<Proven> {
    let receipt = CoseReceipt::parse(receipt)?;
    match claims {
        Some(claims) => receipt.verify_claims(service, claims)?,
        None => receipt.verify(service)?,
    }
    let proof = receipt.proofs().first().context("the receipt holds no proof")?;
    Ok(Proven::of("cose", proof, proof.root()))
}

impl Proven {
    fn of(kind: &'static str, proof: &InclusionProof, root: Digest) -> Self {
        let components = match &proof.leaf {
            Leaf::Components(components) => Some(components),
            Leaf::Digest(_) => None,
        };
        let claims = components.and_then(|leaf| leaf.claims_digest);
        Self {
            valid: true,
            kind,
            transaction_id: components.and_then(|leaf| leaf.tx_id()).map(|id| id.to_string()),
            claims_digest: claims.filter(|it| *it != Digest::ZERO).map(|it| it.to_string()),
            root: root.to_string(),
        }
    }
}
