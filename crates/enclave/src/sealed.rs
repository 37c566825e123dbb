//! The service's secrets, sealed by the TEE, so that a node on the same machine with the same code
//! can take the service over after a restart.
//!
//! One file, `service_<generation>.sealed`, holds everything; a new generation is written, and is
//! on the disk, before anything is encrypted with what it adds.

use std::io;
use std::sync::Arc;

use coco_attestation::insecure::InsecureSeed;
use coco_attestation::{SEALED_MAX_LEN_BYTES, SealError, Tee};
use coco_crypto::{Certificate, CertificateError, Entropy};
use coco_governance::LedgerPeriod;
use coco_kv::Seqno;
use coco_ledger::LedgerSecret;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::disk::{read_file, submit};
use crate::host::{Area, DiskOp, Host};
use crate::identities::{Identities, Identity};

const PREFIX: &str = "service_";
const SUFFIX: &str = ".sealed";
/// What the blob says it is, in clear.
const CONTEXT: &str = "coco service secrets, version 2";
/// Where the software TEE keeps what stands for the platform's secret.
const SEED_FILE: &str = "insecure_software_tee_seed";

/// The sealed secrets cannot be written or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The disk failed.
    #[error("the directory of sealed secrets: {0}")]
    Io(#[from] io::Error),
    /// There are none.
    #[error("there are no sealed secrets")]
    Absent,
    /// There are some of another service.
    #[error("there are sealed secrets already ({0}); a new service must not replace them")]
    Present(String),
    /// The TEE refuses.
    #[error("{file}: {error}")]
    Seal {
        /// The file.
        file: String,
        /// Why.
        error: SealError,
    },
    /// The content is not what this version writes.
    #[error("{file}: {reason}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The software TEE's seed is not 32 bytes.
    #[error("{SEED_FILE} has {0} bytes instead of 32")]
    Seed(usize),
}

/// What a service is recovered from. The key of its identity is not here: what is recovered gets a
/// new one, so that nothing sealed makes a second service of the same identity.
pub(crate) struct ServiceSecrets {
    pub identities: Identities,
    pub issuer: String,
    pub subject: String,
    /// Oldest first; at least one.
    pub periods: Vec<LedgerPeriod>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Content {
    identities: Vec<IdentityContent>,
    issuer: String,
    subject: String,
    ledger_secrets: Vec<PeriodContent>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct IdentityContent {
    from: u64,
    certificate: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct PeriodContent {
    valid_from: u64,
    raw_key: String,
    previous_stored_at: Option<u64>,
}

/// Seals the secrets as a new generation and waits until it is on the disk. Older ones stay until
/// [`forget_older`].
pub(crate) async fn seal(
    host: &dyn Host,
    tee: &dyn Tee,
    secrets: &ServiceSecrets,
) -> Result<(), SealedError> {
    let newest = generations(host).await?.last().copied().unwrap_or(0);
    let file = file_name(newest + 1);
    let failed = |error| SealedError::Seal { file: file.clone(), error };
    let content = secrets.to_bytes()?;
    let blob = tee.seal(CONTEXT, &content, host.entropy()).map_err(failed)?;
    let operations = vec![
        DiskOp::Create { name: file.clone() },
        DiskOp::Write { name: file.clone(), offset: 0, bytes: blob.into() },
    ];
    Ok(submit(host, Area::Sealed, operations).await?)
}

/// Opens the newest generation that opens.
pub(crate) async fn unseal(host: &dyn Host, tee: &dyn Tee) -> Result<ServiceSecrets, SealedError> {
    let mut fault = SealedError::Absent;
    for generation in generations(host).await?.into_iter().rev() {
        let file = file_name(generation);
        match open(host, tee, &file).await {
            Ok(secrets) => return Ok(secrets),
            // A crash may have torn the newest before it was used.
            Err(error) => {
                tracing::warn!(%error, "sealed secrets do not open");
                if matches!(fault, SealedError::Absent) {
                    fault = error;
                }
            }
        }
    }
    Err(fault)
}

/// Removes all generations but the newest, once the ledger goes on with that.
pub(crate) async fn forget_older(host: &dyn Host) -> Result<(), SealedError> {
    let mut older = generations(host).await?;
    older.pop();
    let operations =
        older.into_iter().map(|generation| DiskOp::Remove { name: file_name(generation) });
    Ok(submit(host, Area::Sealed, operations.collect()).await?)
}

/// A new service must find no secrets of another.
pub(crate) async fn require_none(host: &dyn Host) -> Result<(), SealedError> {
    match generations(host).await?.last() {
        Some(generation) => Err(SealedError::Present(file_name(*generation))),
        None => Ok(()),
    }
}

/// The software TEE's seed: read from its file, or made and written there.
pub(crate) async fn software_seed(host: &dyn Host) -> Result<InsecureSeed, SealedError> {
    let files = host.disk().list(Area::Sealed).await?;
    if files.iter().any(|file| file.name == SEED_FILE) {
        let bytes = host.disk().read(Area::Sealed, SEED_FILE, 0, 33).await?;
        let bytes = Zeroizing::new(bytes);
        let seed = <[u8; 32]>::try_from(bytes.as_slice());
        return seed.map(InsecureSeed::new).map_err(|_| SealedError::Seed(bytes.len()));
    }
    let seed = fresh_seed(host.entropy());
    let operations = vec![
        DiskOp::Create { name: SEED_FILE.to_owned() },
        DiskOp::Write {
            name: SEED_FILE.to_owned(),
            offset: 0,
            bytes: seed.as_bytes().to_vec().into(),
        },
    ];
    submit(host, Area::Sealed, operations).await?;
    Ok(seed)
}

/// A seed that dies with the process, when nothing is to be sealed.
pub(crate) fn fresh_seed(entropy: &dyn Entropy) -> InsecureSeed {
    InsecureSeed::generate(entropy)
}

fn file_name(generation: u64) -> String {
    format!("{PREFIX}{generation}{SUFFIX}")
}

async fn generations(host: &dyn Host) -> Result<Vec<u64>, SealedError> {
    let files = host.disk().list(Area::Sealed).await?;
    let number = |name: &str| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok();
    let mut generations: Vec<u64> = files.iter().filter_map(|file| number(&file.name)).collect();
    generations.sort_unstable();
    Ok(generations)
}

async fn open(host: &dyn Host, tee: &dyn Tee, file: &str) -> Result<ServiceSecrets, SealedError> {
    let blob = read_file(host, Area::Sealed, file, SEALED_MAX_LEN_BYTES as u64).await?;
    let failed = |error| SealedError::Seal { file: file.to_owned(), error };
    let too_long = SealError::TooLong { len_bytes: SEALED_MAX_LEN_BYTES + 1 };
    let blob = blob.ok_or(too_long).map_err(failed)?;
    let plain = tee.unseal(CONTEXT, &blob).map_err(failed)?;
    let malformed = |reason: String| SealedError::Content { file: file.to_owned(), reason };
    ServiceSecrets::from_bytes(&plain).map_err(malformed)
}

/// A secret as JSON. Its length is counted first: a buffer that grows leaves parts behind uncleared.
pub(crate) fn secret_json<T: Serialize>(secret: &T) -> serde_json::Result<Zeroizing<Vec<u8>>> {
    struct Length(usize);

    impl io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut length = Length(0);
    serde_json::to_writer(&mut length, secret)?;
    let mut json = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *json, secret)?;
    Ok(json)
}

impl ServiceSecrets {
    /// The secrets as JSON, in clear.
    pub(crate) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let period = |period: &LedgerPeriod| PeriodContent {
            valid_from: period.valid_from.0,
            raw_key: hex::encode(period.secret.key().as_bytes()),
            previous_stored_at: period.previous_stored_at.map(|seqno| seqno.0),
        };
        let identity = |identity: &Identity| IdentityContent {
            from: identity.from.0,
            certificate: identity.certificate.to_pem(),
        };
        let content = Content {
            identities: self.identities.iter().map(identity).collect(),
            issuer: self.issuer.clone(),
            subject: self.subject.clone(),
            ledger_secrets: self.periods.iter().map(period).collect(),
        };
        let failed = |error: serde_json::Error| SealedError::Content {
            file: PREFIX.to_owned(),
            reason: error.to_string(),
        };
        secret_json(&content).map_err(failed)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) writes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let content: Content = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Self::of_content(&content)
    }

    fn of_content(content: &Content) -> Result<Self, String> {
        let certificate = |identity: &IdentityContent| {
            let certificate = Certificate::from_pem(&identity.certificate)?;
            Ok((Seqno(identity.from), certificate))
        };
        let identities = content.identities.iter().map(certificate).collect::<Result<_, _>>();
        let identities = identities
            .and_then(Identities::of)
            .map_err(|error: CertificateError| error.to_string())?
            .ok_or("the identities are not in order")?;
        let mut periods = Vec::new();
        for period in &content.ledger_secrets {
            let mut raw = Zeroizing::new([0; 32]);
            hex::decode_to_slice(&period.raw_key, &mut *raw).map_err(|error| error.to_string())?;
            periods.push(LedgerPeriod {
                valid_from: Seqno(period.valid_from),
                secret: Arc::new(LedgerSecret::new(*raw)),
                previous_stored_at: period.previous_stored_at.map(Seqno),
            });
        }
        if periods.is_empty() || !periods.is_sorted_by_key(|period| period.valid_from) {
            return Err("the ledger secrets are not in order".to_owned());
        }
        Ok(Self {
            identities,
            issuer: content.issuer.clone(),
            subject: content.subject.clone(),
            periods,
        })
    }
}
