//! Ledger secrets: what encrypts private data, and what makes commit evidence.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use coco_crypto::{AeadKey, Digest, Entropy, hmac_sha256, sha256};
use coco_kv::{Seqno, TxId};
use zeroize::Zeroizing;

/// The message from which a ledger secret makes its commit secret. Eight bytes of a longer label:
/// CCF hashes as many bytes as a pointer has, and every existing ledger agrees.
const COMMIT_SECRET_LABEL: &[u8] = b"Commit S";

/// `ce:`, two numbers of at most 20 digits with `.` and `:`, 64 hex digits.
const MAX_EVIDENCE_BYTES: usize = 3 + 20 + 1 + 20 + 1 + 64;

/// The key of one period of the ledger; zeroized on drop, never printed.
pub struct LedgerSecret {
    key: AeadKey,
    commit_secret: Zeroizing<[u8; 32]>,
}

impl LedgerSecret {
    /// The secret of these 32 bytes.
    pub fn new(raw: [u8; 32]) -> Self {
        Self::of_key(AeadKey::new(raw))
    }

    /// A fresh random secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self::of_key(AeadKey::generate(entropy))
    }

    fn of_key(key: AeadKey) -> Self {
        let commit_secret = Zeroizing::new(hmac_sha256(key.as_bytes(), COMMIT_SECRET_LABEL));
        Self { key, commit_secret }
    }

    /// The key that encrypts.
    pub fn key(&self) -> &AeadKey {
        &self.key
    }

    /// What proves, once revealed, that a transaction is committed.
    pub fn commit_evidence(&self, tx_id: TxId) -> CommitEvidence {
        let mut text = CommitEvidence::start();
        text.push_tx_id(tx_id);
        let nonce = hmac_sha256(&*self.commit_secret, text.as_str().as_bytes());
        text.finish(tx_id, &nonce)
    }
}

impl fmt::Debug for LedgerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerSecret(..)")
    }
}

/// `ce:<view>.<seqno>:<64 hex digits>`: secret until the transaction is committed, then part of its
/// receipt. Kept without an allocation, since one is made per transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CommitEvidence {
    length: u8,
    bytes: [u8; MAX_EVIDENCE_BYTES],
}

impl CommitEvidence {
    fn start() -> Self {
        Self { length: 0, bytes: [0; MAX_EVIDENCE_BYTES] }
    }

    fn finish(mut self, tx_id: TxId, nonce: &[u8; 32]) -> Self {
        self.length = 0;
        self.push(b"ce:");
        self.push_tx_id(tx_id);
        self.push(b":");
        let mut digits = [0; 64];
        // The buffer is twice as long as the nonce, so that this cannot fail.
        let _ = hex::encode_to_slice(nonce, &mut digits);
        self.push(&digits);
        self
    }

    fn push_tx_id(&mut self, tx_id: TxId) {
        self.push_number(tx_id.view.0);
        self.push(b".");
        self.push_number(tx_id.seqno.0);
    }

    fn push_number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (number % 10) as u8;
            first = at;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.push(digits.get(first..).unwrap_or_default());
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        if let Some(room) = self.bytes.get_mut(start..start + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len() as u8;
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// What the ledger stores of it.
    pub fn digest(&self) -> Digest {
        sha256(self.as_str().as_bytes())
    }
}

impl fmt::Display for CommitEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CommitEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommitEvidence(..)")
    }
}

/// The secrets of a ledger by the seqno from which each is valid.
#[derive(Clone, Debug, Default)]
pub struct LedgerSecrets {
    periods: BTreeMap<Seqno, Arc<LedgerSecret>>,
}

impl LedgerSecrets {
    /// No secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the secret that is valid from `valid_from` until the next one.
    pub fn insert(&mut self, valid_from: Seqno, secret: impl Into<Arc<LedgerSecret>>) {
        self.periods.insert(valid_from, secret.into());
    }

    /// The secret that is valid at `seqno`.
    pub fn secret_for(&self, seqno: Seqno) -> Option<&Arc<LedgerSecret>> {
        self.periods.range(..=seqno).next_back().map(|(_, secret)| secret)
    }

    /// The newest secret, and from when on it is valid.
    pub fn latest(&self) -> Option<(Seqno, &Arc<LedgerSecret>)> {
        self.periods.last_key_value().map(|(from, secret)| (*from, secret))
    }

    /// All secrets with the seqno from which each is valid, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Seqno, &Arc<LedgerSecret>)> {
        self.periods.iter().map(|(from, secret)| (*from, secret))
    }

    /// Whether there is no secret.
    pub fn is_empty(&self) -> bool {
        self.periods.is_empty()
    }

    /// Takes back secrets that became valid after `seqno`, when the ledger is rolled back to it.
    /// The secret of the next seqno stays.
    pub fn retract_to(&mut self, seqno: Seqno) {
        self.periods.retain(|from, _| *from <= seqno.next());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_evidence_fits_at_every_length() {
        let secret = LedgerSecret::new([7; 32]);
        for tx_id in [TxId::new(2, 0), TxId::new(2, 10), TxId::new(u64::MAX, u64::MAX)] {
            let evidence = secret.commit_evidence(tx_id);
            let commit_secret = hmac_sha256(&[7; 32], b"Commit S");
            let nonce = hmac_sha256(&commit_secret, tx_id.to_string().as_bytes());
            assert_eq!(evidence.as_str(), format!("ce:{tx_id}:{}", hex::encode(nonce)));
            assert_eq!(evidence.digest(), sha256(evidence.to_string().as_bytes()));
        }
    }

    #[test]
    fn a_secret_is_valid_until_the_next() {
        let mut secrets = LedgerSecrets::new();
        assert!(secrets.secret_for(Seqno(1)).is_none());
        secrets.insert(Seqno(1), LedgerSecret::new([1; 32]));
        secrets.insert(Seqno(10), LedgerSecret::new([2; 32]));
        let first = |seqno| {
            let secret: &Arc<LedgerSecret> = secrets.secret_for(Seqno(seqno)).unwrap();
            secret.key().as_bytes()[0]
        };
        assert_eq!([first(1), first(9), first(10), first(99)], [1, 1, 2, 2]);
        assert!(secrets.secret_for(Seqno(0)).is_none());
        secrets.retract_to(Seqno(9));
        assert_eq!(secrets.iter().count(), 2);
        secrets.retract_to(Seqno(8));
        assert_eq!(secrets.latest().map(|(from, _)| from), Some(Seqno(1)));
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = LedgerSecret::new([7; 32]);
        assert_eq!(format!("{secret:?}"), "LedgerSecret(..)");
        let evidence = secret.commit_evidence(TxId::new(2, 1));
        assert_eq!(format!("{evidence:?}"), "CommitEvidence(..)");
    }
}
