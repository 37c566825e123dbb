//! From a state to a snapshot file.

use coco_crypto::Digest;
use coco_kv::{MapName, Seqno, Snapshot, StateMap};

use super::{SNAPSHOT_TYPE, SnapshotError, padding};
use crate::entry::{
    EntryError, FIXED_BYTES, FRAME_HEADER_BYTES, FRAME_VERSION, MAX_ENTRY_BYTES, SNAPSHOT_BIT,
    nonce, seal,
};
use crate::history::ViewHistory;
use crate::secret::LedgerSecret;

/// Room for the first guess at a snapshot's size; memory that is not written to costs nothing.
const USUAL_ENTRY_BYTES: usize = 128;

/// Serialises and encrypts a state, and lets go of it as soon as may be. `leaf` is the Merkle leaf
/// of its position, whose transaction is a signature transaction; `secret` the one valid there. The
/// SHA-256 of the result is what the evidence transaction records.
///
/// # Errors
/// If the snapshot would be larger than readers accept.
pub fn encode_snapshot(
    state: Snapshot,
    leaf: Digest,
    views: &ViewHistory,
    secret: &LedgerSecret,
) -> Result<Vec<u8>, SnapshotError> {
    let seqno = state.tx_id().seqno;
    let nonce = nonce(seqno.0, SNAPSHOT_BIT);
    let entries: usize = state.maps().map(|(_, map)| map.len()).sum();
    let mut out = Vec::with_capacity(FIXED_BYTES + entries.saturating_mul(USUAL_ENTRY_BYTES));
    out.resize(FIXED_BYTES - 8 - nonce.len(), 0);
    out.extend_from_slice(&nonce);
    push_u64(&mut out, 0);
    out.push(SNAPSHOT_TYPE);
    push_u64(&mut out, seqno.0);
    push_u64(&mut out, 0);
    push_bytes64(&mut out, &leaf.0);
    push_u64(&mut out, 8 * views.starts().len() as u64);
    views.starts().iter().for_each(|start| push_u64(&mut out, start.0));
    // While a state is held, every write elsewhere copies what it touches: it is walked once, and
    // not kept for what follows.
    let mut write = |public: bool| {
        for (name, map) in state.maps().filter(|(name, _)| name.is_public() == public) {
            push_map(&mut out, name, map)?;
        }
        Ok::<_, SnapshotError>(out.len() - FIXED_BYTES)
    };
    let public_bytes = write(true)?;
    write(false)?;
    drop(state);
    let size = (out.len() - FRAME_HEADER_BYTES) as u64;
    set_u64(&mut out, 0, size << 16 | u64::from(FRAME_VERSION));
    set_u64(&mut out, FIXED_BYTES - 8, public_bytes as u64);
    out.shrink_to_fit();
    seal(&mut out, public_bytes, nonce, secret);
    Ok(out)
}

/// Puts the receipt behind the state, when the evidence transaction is committed. The receipt is
/// JSON text or the bytes of a COSE receipt.
pub fn attach_receipt(snapshot: &mut Vec<u8>, receipt: &[u8]) {
    // A large state must not be doubled for a small receipt.
    snapshot.reserve_exact(receipt.len());
    snapshot.extend_from_slice(receipt);
}

fn push_map(out: &mut Vec<u8>, name: &MapName, map: &StateMap) -> Result<(), SnapshotError> {
    push_bytes64(out, name.as_str().as_bytes());
    let mut version = Seqno(0);
    let version_at = out.len();
    push_u64(out, 0);
    push_u64(out, 0);
    let start = out.len();
    for (key, entry) in map.iter() {
        version = version.max(entry.version);
        push_bytes64(out, key);
        pad(out, key.len());
        push_u64(out, 8 + entry.value.len() as u64);
        push_u64(out, entry.version.0);
        out.extend_from_slice(&entry.value);
        pad(out, entry.value.len());
        if out.len() as u64 > MAX_ENTRY_BYTES {
            return Err(EntryError::Size(out.len() as u64).into());
        }
    }
    let state_bytes = (out.len() - start) as u64;
    set_u64(out, version_at, version.0);
    set_u64(out, version_at + 8, state_bytes);
    Ok(())
}

fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Puts a number where room was left for it.
fn set_u64(out: &mut [u8], at: usize, number: u64) {
    if let Some(room) = out.get_mut(at..at + 8) {
        room.copy_from_slice(&number.to_le_bytes());
    }
}

fn push_bytes64(out: &mut Vec<u8>, bytes: &[u8]) {
    push_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + padding(length as u64) as usize, 0);
}
