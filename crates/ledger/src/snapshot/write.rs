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

/// Serialises and encrypts a state. `leaf` is the Merkle leaf of its position, whose transaction is
/// a signature transaction; `secret` the one valid there. The SHA-256 of the result is what the
/// evidence transaction records.
///
/// # Errors
/// If the snapshot would be larger than readers accept.
pub fn encode_snapshot(
    state: &Snapshot,
    leaf: Digest,
    views: &ViewHistory,
    secret: &LedgerSecret,
) -> Result<Vec<u8>, SnapshotError> {
    let seqno = state.tx_id().seqno;
    let history_bytes = 8 * views.starts().len();
    let mut public_bytes = 1 + 8 + 8 + 8 + 32 + 8 + history_bytes as u64;
    let mut private_bytes = 0;
    for (name, map) in state.maps() {
        let bytes = if name.is_public() { &mut public_bytes } else { &mut private_bytes };
        *bytes += 8 + name.as_str().len() as u64 + 8 + 8 + state_bytes(map);
    }
    let size = (FIXED_BYTES - FRAME_HEADER_BYTES) as u64 + public_bytes + private_bytes;
    if size > MAX_ENTRY_BYTES {
        return Err(EntryError::Size(size).into());
    }

    let nonce = nonce(seqno.0, SNAPSHOT_BIT);
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + size as usize);
    out.extend_from_slice(&(size << 16 | u64::from(FRAME_VERSION)).to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&nonce);
    push_u64(&mut out, public_bytes);
    out.push(SNAPSHOT_TYPE);
    push_u64(&mut out, seqno.0);
    push_u64(&mut out, 0);
    push_bytes64(&mut out, &leaf.0);
    push_u64(&mut out, history_bytes as u64);
    views.starts().iter().for_each(|start| push_u64(&mut out, start.0));
    let write = |out: &mut Vec<u8>, public: bool| {
        for (name, map) in state.maps().filter(|(name, _)| name.is_public() == public) {
            push_map(out, name, map);
        }
    };
    write(&mut out, true);
    write(&mut out, false);
    assert_eq!(out.len() as u64, FRAME_HEADER_BYTES as u64 + size, "as long as computed");
    seal(&mut out, public_bytes as usize, nonce, secret);
    Ok(out)
}

/// Puts the receipt behind the state, when the evidence transaction is committed. The receipt is
/// JSON text or the bytes of a COSE receipt.
pub fn attach_receipt(snapshot: &mut Vec<u8>, receipt: &[u8]) {
    // A large state must not be doubled for a small receipt.
    snapshot.reserve_exact(receipt.len());
    snapshot.extend_from_slice(receipt);
}

fn push_map(out: &mut Vec<u8>, name: &MapName, map: &StateMap) {
    push_bytes64(out, name.as_str().as_bytes());
    let version = map.iter().map(|(_, entry)| entry.version).max();
    push_u64(out, version.unwrap_or(Seqno(0)).0);
    push_u64(out, state_bytes(map));
    for (key, entry) in map.iter() {
        push_bytes64(out, key);
        pad(out, key.len());
        push_u64(out, 8 + entry.value.len() as u64);
        push_u64(out, entry.version.0);
        out.extend_from_slice(&entry.value);
        pad(out, entry.value.len());
    }
}

/// Bytes that a map's state takes.
fn state_bytes(map: &StateMap) -> u64 {
    let padded = |bytes: &[u8]| bytes.len() as u64 + padding(bytes.len() as u64);
    map.iter().map(|(key, entry)| 8 + padded(key) + 8 + 8 + padded(&entry.value)).sum()
}

fn push_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn push_bytes64(out: &mut Vec<u8>, bytes: &[u8]) {
    push_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + padding(length as u64) as usize, 0);
}
