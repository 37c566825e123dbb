//! How long batches take from their proposal to commitment.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of all buckets but the last, which has none; in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000,
];
const BUCKETS: usize = LATENCY_BOUNDS_US.len() + 1;

/// Counts batches by how long they took.
#[derive(Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// How long the batches that this node has made took from their proposal to commitment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Batches that took at most as long as the bound of the same index, and longer than the one
    /// before it. The last took longer than all bounds.
    pub buckets: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn read(&self) -> Latencies {
        let mut buckets = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        Latencies {
            buckets: array::from_fn(|_| buckets.next().unwrap_or_default()),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 1_000, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let Latencies { buckets, sum_us } = histogram.read();
        assert_eq!(sum_us, 10_001_202);
        assert_eq!((buckets[0], buckets[1], buckets[3]), (2, 1, 1));
        assert_eq!((buckets[13], buckets[14]), (1, 1));
        assert_eq!(buckets.iter().sum::<u64>(), 6);
    }
}
