//! A host in memory: virtual time, seeded randomness, and a disk that loses what was not synced.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "this is the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helper may fail the test"
)]

pub mod disk;
pub mod node;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coco_crypto::{Entropy, sha256_concat};
use coco_enclave::host::{Accepted, BoxFuture, Disk, Host};
use tokio::time::Instant;

pub use disk::SimulatedDisk;

/// 2026-01-01, in milliseconds.
const START_MS: u64 = 1_767_225_600_000;

/// A reproducible stream of random bytes.
pub struct SeededEntropy {
    seed: u64,
    blocks: AtomicU64,
}

impl SeededEntropy {
    pub fn new(seed: u64) -> Self {
        Self { seed, blocks: AtomicU64::new(0) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let block = self.blocks.fetch_add(1, Ordering::Relaxed);
            let bytes = sha256_concat(&[&self.seed.to_le_bytes(), &block.to_le_bytes()]);
            chunk.copy_from_slice(&bytes.0[..chunk.len()]);
        }
    }
}

/// Small numbers for tests: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// The host. Must be made and used on a tokio runtime whose clock is paused.
pub struct SimulatedHost {
    entropy: SeededEntropy,
    pub disk: Arc<SimulatedDisk>,
    started: Instant,
}

impl SimulatedHost {
    pub fn new(seed: u64, disk: Arc<SimulatedDisk>) -> Self {
        disk.attach();
        Self { entropy: SeededEntropy::new(seed), disk, started: Instant::now() }
    }
}

impl Host for SimulatedHost {
    fn entropy(&self) -> &dyn Entropy {
        &self.entropy
    }

    fn now_ms(&self) -> u64 {
        START_MS + self.started.elapsed().as_millis() as u64
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn accept<'a>(&'a self, _interface: &'a str) -> BoxFuture<'a, io::Result<Accepted>> {
        Box::pin(pending())
    }

    fn disk(&self) -> &dyn Disk {
        &*self.disk
    }
}

/// Runs a test on one thread in virtual time.
pub fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(test)
}
