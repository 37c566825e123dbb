//! Transactions that wait for earlier ones of their sender.
//!
//! A transaction whose turn it is never waits: it is executed when it arrives, so the order is
//! that of arrival. What waits is in memory only: after a restart its sender sends it again, as
//! with every Ethereum node. Nothing waits for ever: what is not reached within
//! [`Pool::EXPIRY_MS`] is dropped.

use std::collections::BTreeMap;

use alloy_consensus::Transaction;
use alloy_primitives::{Address, B256};
use parking_lot::Mutex;

use crate::{Refusal, SignedTransaction};

/// The transactions that wait.
#[derive(Debug, Default)]
pub struct Pool {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_sender: BTreeMap<Address, BTreeMap<u64, Entry>>,
    count: usize,
}

#[derive(Debug)]
struct Entry {
    transaction: SignedTransaction,
    since_ms: u64,
}

impl Pool {
    /// How far ahead of its sender's next nonce a transaction may be, and so how many of one
    /// sender wait at most.
    pub const WINDOW: u64 = 64;
    /// How many wait at most, of all senders. At 128 KiB each they take 512 MiB.
    pub const LIMIT: usize = 4096;
    /// How long one waits at most.
    pub const EXPIRY_MS: u64 = 10 * 60 * 1000;
    /// By how many percent a replacement must pay more, where anybody pays.
    pub const PRICE_BUMP: u128 = 10;

    /// Keeps a transaction whose sender's next nonce is `next`. One that has the nonce of another
    /// replaces it, if it pays enough more or nobody pays.
    pub fn add(
        &self,
        transaction: SignedTransaction,
        next: u64,
        now_ms: u64,
        priced: bool,
    ) -> Result<(), Refusal> {
        let (sender, nonce) = (transaction.sender(), transaction.envelope().nonce());
        if nonce.saturating_sub(next) > Self::WINDOW {
            return Err(Refusal::GapTooWide { sender, nonce, next });
        }
        let mut waiting = self.waiting.lock();
        waiting.expire(now_ms);
        let room = waiting.count < Self::LIMIT;
        let of_sender = waiting.by_sender.entry(sender).or_default();
        let entry = Entry { transaction, since_ms: now_ms };
        match of_sender.get_mut(&nonce) {
            Some(old) if old.transaction.hash() == entry.transaction.hash() => {
                Err(Refusal::AlreadyKnown)
            }
            Some(old) if priced && !pays_more(&entry.transaction, &old.transaction) => {
                Err(Refusal::Underpriced)
            }
            Some(old) => {
                *old = entry;
                Ok(())
            }
            None if !room => {
                waiting.tidy(sender);
                Err(Refusal::PoolFull)
            }
            None => {
                of_sender.insert(nonce, entry);
                waiting.count += 1;
                Ok(())
            }
        }
    }

    /// Takes the sender's transaction with this nonce out, and drops those before it.
    pub fn take(&self, sender: Address, nonce: u64) -> Option<SignedTransaction> {
        let mut waiting = self.waiting.lock();
        let of_sender = waiting.by_sender.get_mut(&sender)?;
        let later = of_sender.split_off(&nonce);
        let mut removed = std::mem::replace(of_sender, later).len();
        let taken = of_sender.remove(&nonce);
        removed += usize::from(taken.is_some());
        waiting.count = waiting.count.saturating_sub(removed);
        waiting.tidy(sender);
        taken.map(|entry| entry.transaction)
    }

    /// Drops what has waited too long.
    pub fn expire(&self, now_ms: u64) {
        self.waiting.lock().expire(now_ms);
    }

    /// A transaction that waits.
    pub fn find(&self, hash: B256) -> Option<SignedTransaction> {
        self.all().into_iter().find(|transaction| transaction.hash() == hash)
    }

    /// All that wait, by sender and nonce.
    pub fn all(&self) -> Vec<SignedTransaction> {
        let waiting = self.waiting.lock();
        let entries = waiting.by_sender.values().flat_map(BTreeMap::values);
        entries.map(|entry| entry.transaction.clone()).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().count
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Waiting {
    fn expire(&mut self, now_ms: u64) {
        let fresh = |entry: &Entry| now_ms.saturating_sub(entry.since_ms) < Pool::EXPIRY_MS;
        self.by_sender.retain(|_, of_sender| {
            of_sender.retain(|_, entry| fresh(entry));
            !of_sender.is_empty()
        });
        self.count = self.by_sender.values().map(BTreeMap::len).sum();
    }

    fn tidy(&mut self, sender: Address) {
        if self.by_sender.get(&sender).is_some_and(BTreeMap::is_empty) {
            self.by_sender.remove(&sender);
        }
    }
}

/// geth's rule: both the fee and the tip are higher by the bump.
fn pays_more(new: &SignedTransaction, old: &SignedTransaction) -> bool {
    let prices = |transaction: &SignedTransaction| {
        let envelope = transaction.envelope();
        let tip = envelope.max_priority_fee_per_gas().unwrap_or(envelope.max_fee_per_gas());
        [envelope.max_fee_per_gas(), tip]
    };
    prices(new).into_iter().zip(prices(old)).all(|(new, old)| {
        let enough = old.saturating_add(old.saturating_mul(Pool::PRICE_BUMP) / 100);
        new > old && new >= enough
    })
}
