//! What the tests of this crate share.

mod disk;
mod own;
mod recorded;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use disk::Disk;
pub(crate) use own::OwnLedger;
pub(crate) use recorded::{Recorded, recorded};

/// A reproducible stream of bytes: SHA-256 of a counter.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed << 32))
    }
}

impl coco_crypto::Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let block = self.0.fetch_add(1, Ordering::Relaxed);
            let digest = coco_crypto::sha256(&block.to_le_bytes());
            chunk.copy_from_slice(&digest.0[..chunk.len()]);
        }
    }
}
