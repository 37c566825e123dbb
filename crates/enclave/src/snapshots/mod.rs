//! Snapshots: written in the background, while transactions go on; and read back (`load`), also
//! those of other nodes (`fetch`).
//!
//! ```text
//! signature at s ─▶ state of s ─▶ snapshot_s.writing, piece by piece
//!                                   └─▶ read back, authenticated: its digest
//!                                         └─▶ evidence transaction at e ─▶ committed
//!                                               └─▶ + receipt ─▶ snapshot_s_e.committed
//! ```
//!
//! A signature makes one due when enough transactions were executed since the last, or when it was
//! asked for: by members, by an operator, or because time has passed.

mod fetch;
mod load;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::{Outcome, TxStatus};
use coco_governance::tables::{SERVICE_INFO, ServiceStatus};
use coco_kv::{MapName, Seqno, Tx};
use coco_ledger::tables::{SINGLE_KEY, SNAPSHOT_CREATE};
use coco_ledger::{SnapshotEncoder, SnapshotError, SnapshotName, StateWanted, snapshot_evidence};

use crate::config;
use crate::disk::submit;
use crate::ease::Rests;
use crate::host::{Area, DiskOp, Host};
use crate::offload::offload;
use crate::pipeline::{CommitError, Pipeline, ReceiptError, SnapshotDue};
use crate::service::ServiceKeys;
pub(crate) use fetch::{FetchRules, Search};
use load::read_back;
pub(crate) use load::{LoadError, LoadedSnapshot, VerifiedSnapshot, committed, load};

/// What the name of a snapshot ends with that is not written to its end.
const UNFINISHED: &str = ".writing";
/// After a request for a snapshot that could not be recorded.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Nobody waits for a snapshot but who joins.
const EASE: u32 = 3;
/// A state that is held makes each write elsewhere copy what it touches. Only up to so many
/// transactions does its encoding leave room to others.
const MAX_EASED: u64 = 10_000;
/// Bytes sent at a time, and written and synced at a time: a large file does not keep the ledger
/// from the network or the disk for long.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// A snapshot was not written. The ledger is complete without it.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Encode(#[from] SnapshotError),
    #[error("no ledger secret is valid at {0}")]
    NoSecret(Seqno),
    #[error("the evidence was not recorded: {0}")]
    Evidence(#[from] CommitError),
    #[error("the node stopped first")]
    Stopped,
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("the file could not be written: {0}")]
    Io(#[from] io::Error),
    #[error("the file is not what was written: {0}")]
    ReadBack(#[from] LoadError),
}

/// Writes the snapshots that become due, one at a time; of several that wait only the newest.
pub(crate) async fn run(
    host: Arc<dyn Host>,
    pipeline: Pipeline,
    keys: Arc<ServiceKeys>,
    config: config::Snapshots,
) {
    // Those of a process that ended meanwhile.
    remove_unfinished(&*host).await;
    let mut last = host.uptime();
    loop {
        let due = tokio::select! {
            () = pipeline.snapshot_due() => pipeline.take_snapshot_due(),
            () = overdue(&*host, &pipeline, &config, last) => {
                let mut tx = pipeline.store().begin();
                let outcome = ask(&mut tx);
                match pipeline.commit(tx, &outcome) {
                    // On a backup it is not for this node to ask.
                    Ok(_) | Err(CommitError::NotPrimary) => last = host.uptime(),
                    Err(error) => {
                        tracing::warn!(%error, "snapshot not asked for");
                        host.sleep(ASK_AGAIN).await;
                    }
                }
                continue;
            }
        };
        let Some(due) = due else { continue };
        last = host.uptime();
        let seqno = due.state.tx_id().seqno;
        // What a recovery has written is not a part of the ledger yet, and may never be.
        if !is_recovering(&due.state) {
            match write(&*host, &pipeline, &keys, due).await {
                Ok(name) => tracing::info!(%name, "snapshot written"),
                Err(error) => tracing::warn!(%seqno, %error, "snapshot not written"),
            }
        }
        pipeline.snapshot_done(seqno);
    }
}

async fn remove_unfinished(host: &dyn Host) {
    let removed = async {
        let files = host.disk().list(Area::Snapshots).await?.into_iter();
        let unfinished = files.filter(|file| file.name.ends_with(UNFINISHED) && !file.read_only);
        let removals: Vec<_> = unfinished.map(|it| DiskOp::Remove { name: it.name }).collect();
        match removals.is_empty() {
            true => Ok(()),
            false => submit(host, Area::Snapshots, removals).await,
        }
    };
    if let Err(error) = removed.await {
        tracing::warn!(%error, "unfinished snapshots are not removed");
    }
}

/// Asks for a snapshot at the next signature, in a transaction of its own: as CCF records it, so
/// that there is a signature to come even when nothing else happens.
pub(crate) fn ask(tx: &mut Tx) -> Outcome {
    let read = tx.read_tx_id().seqno.to_string();
    tx.put(&MapName::new(SNAPSHOT_CREATE), SINGLE_KEY, read);
    Outcome { force_snapshot: true, ..Outcome::default() }
}

/// Resolves when `snapshots.time_interval` has passed since the last snapshot and
/// `snapshots.min_tx_count` transactions, of which signatures are some, were executed since.
async fn overdue(host: &dyn Host, pipeline: &Pipeline, config: &config::Snapshots, last: Duration) {
    let interval = config.time_interval.0;
    if interval.is_zero() {
        return std::future::pending().await;
    }
    host.sleep(last.saturating_add(interval).saturating_sub(host.uptime())).await;
    pipeline.recovered().await;
    while pipeline.since_snapshot() < config.min_tx_count.max(1) {
        pipeline.more_committed().await;
    }
}

/// Whether the members have yet to agree to the service that this is the state of.
fn is_recovering(state: &coco_kv::Snapshot) -> bool {
    let status = SERVICE_INFO.of_state(state).map(|info| info.status);
    matches!(status, Some(ServiceStatus::Recovering | ServiceStatus::WaitingForRecoveryShares))
}

async fn write(
    host: &dyn Host,
    pipeline: &Pipeline,
    keys: &ServiceKeys,
    due: SnapshotDue,
) -> Result<SnapshotName, WriteError> {
    let tx_id = due.state.tx_id();
    let seqno = tx_id.seqno;
    // Only what is committed may be written: another history at the same position would be
    // encrypted under the same nonce.
    if pipeline.wait_committed(tx_id).await != TxStatus::Committed {
        return Err(WriteError::Stopped);
    }
    pipeline.recovered().await;
    let file = format!("snapshot_{seqno}{UNFINISHED}");
    submit(host, Area::Snapshots, vec![DiskOp::Create { name: file.clone() }]).await?;
    let written = write_as(host, pipeline, keys, due, &file).await;
    if written.is_err() {
        remove_unfinished(host).await;
    }
    written
}

/// Writes to a file of this name, which exists, and gives it its own in the end.
async fn write_as(
    host: &dyn Host,
    pipeline: &Pipeline,
    keys: &ServiceKeys,
    due: SnapshotDue,
    file: &str,
) -> Result<SnapshotName, WriteError> {
    let seqno = due.state.tx_id().seqno;
    let (secrets, views) = (keys.secrets(), pipeline.views_to(seqno));
    let secret = secrets.secret_for(seqno).ok_or(WriteError::NoSecret(seqno))?;
    let encoder = SnapshotEncoder::new(due.state, due.leaf, &views, secret);
    write_state(host, pipeline, file, encoder, seqno).await?;
    // What is recorded is the digest of what the disk has, once that is authenticated.
    let wanted = StateWanted::Authentic((*secrets).clone());
    let written = read_back(host, file, wanted, &mut Rests::new(EASE)).await?;
    if written.tx_id().seqno != seqno {
        return Err(SnapshotError::Iv(written.tx_id().seqno).into());
    }
    let (digest, len_bytes) = (written.digest(), written.state_bytes());

    let mut tx = pipeline.store().begin();
    put_all(&mut tx, &snapshot_evidence(digest, seqno));
    let outcome = Outcome { claims: Some(digest), ..Outcome::default() };
    let (evidence, committed) = pipeline.commit_and_wait(tx, &outcome)?;
    if committed.await != TxStatus::Committed {
        return Err(WriteError::Stopped);
    }
    // Evidence and its signature do not bring the next snapshot nearer.
    pipeline.note_snapshot(evidence.tx_id.seqno.next(), len_bytes);
    let receipt = pipeline.receipt(evidence.tx_id).await?;
    write_piece(host, file, len_bytes, receipt.to_json().into()).await?;
    // The name says that the content is whole: it comes only after the content is safe.
    let name = SnapshotName { seqno, evidence: evidence.tx_id.seqno, is_committed: true };
    let rename = DiskOp::Rename { from: file.to_owned(), to: name.to_string() };
    submit(host, Area::Snapshots, vec![rename]).await?;
    Ok(name)
}

/// Writes all but the receipt of the state at `seqno`, one piece while the next is encoded.
async fn write_state(
    host: &dyn Host,
    pipeline: &Pipeline,
    file: &str,
    mut encoder: SnapshotEncoder,
    seqno: Seqno,
) -> Result<(), WriteError> {
    let mut rests = Rests::new(EASE);
    let mut offset = encoder.front_bytes();
    let mut ready = Bytes::new();
    loop {
        let begun = host.uptime();
        let encoding = offload(move || {
            let piece = encoder.piece()?;
            Ok::<_, SnapshotError>((encoder, piece))
        });
        let len_bytes = ready.len() as u64;
        let (encoded, written) = tokio::join!(encoding, write_piece(host, file, offset, ready));
        written?;
        offset += len_bytes;
        let next;
        (encoder, next) = encoded??;
        match next {
            Some(piece) => ready = piece.into(),
            None => return Ok(write_piece(host, file, 0, encoder.front().into()).await?),
        }
        if pipeline.store().head().seqno.0.saturating_sub(seqno.0) < MAX_EASED {
            rests.after(host, begun).await;
        }
    }
}

async fn write_piece(host: &dyn Host, name: &str, offset: u64, bytes: Bytes) -> io::Result<()> {
    let write = DiskOp::Write { name: name.to_owned(), offset, bytes };
    submit(host, Area::Snapshots, vec![write]).await
}

/// Writes a part of a file in pieces, with rests.
async fn write_gently(
    host: &dyn Host,
    name: &str,
    mut offset: u64,
    mut rest: Bytes,
    rests: &mut Rests,
) -> io::Result<()> {
    while !rest.is_empty() {
        let begun = host.uptime();
        let bytes = rest.split_to(rest.len().min(PIECE_BYTES));
        let end = offset + bytes.len() as u64;
        write_piece(host, name, offset, bytes).await?;
        rests.after(host, begun).await;
        offset = end;
    }
    Ok(())
}

fn put_all(tx: &mut Tx, writes: &coco_kv::WriteSet) {
    for map in writes.maps() {
        map.puts().for_each(|(key, value)| tx.put(map.name(), key, value));
    }
}
