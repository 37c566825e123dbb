//! Where random bytes come from.

/// A source of cryptographically strong random bytes, given by the host interface.
///
/// Enclave code owns no generator: keys, nonces, serial numbers and share polynomials are made from
/// these bytes, so that a simulated node is reproducible from its seed.
///
/// Two exceptions, where aws-lc offers no other way: the nonce of an ECDSA signature and RSA key
/// generation, OAEP and PSS salts are drawn from aws-lc's own generator (seeded by the CPU and the
/// operating system).
pub trait Entropy: Send + Sync {
    /// Fills all of `out`; a source that cannot must stop the process rather than return.
    fn fill(&self, out: &mut [u8]);
}

impl<T: Entropy + ?Sized> Entropy for &T {
    fn fill(&self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

impl<T: Entropy + ?Sized> Entropy for std::sync::Arc<T> {
    fn fill(&self, out: &mut [u8]) {
        (**self).fill(out);
    }
}

/// `N` fresh random bytes, for nonces and serial numbers (secrets go to a zeroizing buffer).
pub(crate) fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Entropy;
    use crate::sha256_concat;

    /// A reproducible stream: SHA-256 of a counter.
    pub(crate) struct Counter(AtomicU64);

    impl Counter {
        pub(crate) fn new(seed: u64) -> Self {
            Self(AtomicU64::new(seed << 32))
        }
    }

    impl Entropy for Counter {
        fn fill(&self, out: &mut [u8]) {
            for chunk in out.chunks_mut(32) {
                let block = self.0.fetch_add(1, Ordering::Relaxed);
                let digest = sha256_concat(&[b"test entropy", &block.to_le_bytes()]);
                chunk.copy_from_slice(&digest.0[..chunk.len()]);
            }
        }
    }

    /// A broken source that always gives the same byte.
    pub(crate) struct Stuck(pub(crate) u8);

    impl Entropy for Stuck {
        fn fill(&self, out: &mut [u8]) {
            out.fill(self.0);
        }
    }
}
