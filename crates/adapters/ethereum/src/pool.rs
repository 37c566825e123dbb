//! Transactions that wait for earlier ones of their sender.
//!
//! A transaction whose turn it is never waits here: it is executed when it arrives, so the order is
//! that of arrival. What waits is in memory only: after a restart its sender sends it again, as
//! with every Ethereum node. Nothing waits for ever, and nothing disappears without a trace: what
//! is dropped leaves its [`Fate`] behind for a while.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use alloy_consensus::Transaction;
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256};
use parking_lot::Mutex;

use crate::{Refusal, SignedTransaction};

/// The transactions that wait, and what became of those that did lately.
#[derive(Debug, Default)]
pub struct Pool {
    waiting: Mutex<Waiting>,
}

/// Why a transaction waits no longer and was not executed either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It had its turn and was refused, for this reason.
    Refused(String),
    /// Its turn did not come in time.
    Expired,
    /// Another transaction of its sender took its nonce.
    Replaced(B256),
}

impl Pool {
    /// How far ahead of its sender's next nonce a transaction may be, and so how many of one
    /// sender wait at most. Clients send hundreds at once, over connections that overtake each
    /// other.
    pub const WINDOW: u64 = 1024;
    /// How many wait at most, of all senders.
    pub const LIMIT: usize = 16_384;
    /// How many bytes of envelopes wait at most.
    pub const LIMIT_BYTES: usize = 64 * 1024 * 1024;
    /// How long one waits at most.
    pub const EXPIRY_MS: u64 = 10 * 60 * 1000;
    /// By how many percent a replacement must pay more, where anybody pays.
    pub const PRICE_BUMP: u128 = 10;
    /// How many fates are remembered.
    pub const FATES: usize = 16_384;
    /// How often it is looked whether something waits too long.
    const SWEEP_MS: u64 = 10 * 1000;

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
        waiting.sweep_now_and_then(now_ms);
        waiting.expire(sender, nonce, now_ms);
        let (hash, old) = (transaction.hash(), waiting.at(sender, nonce));
        if let Some(Entry { transaction: old, .. }) = old {
            if old.hash() == hash {
                return Err(Refusal::AlreadyKnown);
            }
            if priced && !pays_more(&transaction, old) {
                return Err(Refusal::Underpriced);
            }
        }
        if !waiting.has_room(&transaction, old) {
            return Err(Refusal::PoolFull);
        }
        waiting.forget(sender, nonce, Fate::Replaced(hash));
        waiting.insert(transaction, now_ms);
        Ok(())
    }

    /// Puts back what was taken too early. If it is to have another turn without anybody asking
    /// for it, its sender is among [`ready`](Self::ready) from now on.
    pub fn put_back(&self, (transaction, since_ms): (SignedTransaction, u64), ready: bool) {
        let mut waiting = self.waiting.lock();
        let (sender, nonce, hash) =
            (transaction.sender(), transaction.envelope().nonce(), transaction.hash());
        match waiting.at(sender, nonce).map(|entry| entry.transaction.hash()) {
            Some(other) => waiting.remember(hash, Fate::Replaced(other)),
            // It had its place before, so that no limit is asked.
            None => waiting.insert(transaction, since_ms),
        }
        if ready {
            waiting.ready.insert(sender);
        }
    }

    /// A sender one of whose transactions was put back; each is told once.
    pub fn ready(&self) -> Option<Address> {
        self.waiting.lock().ready.pop_first()
    }

    /// Takes the sender's transaction with this nonce out, with the time since when it waits, and
    /// drops those before it, whose nonces are used. The clock is asked only if there is any.
    pub fn take(
        &self,
        sender: Address,
        nonce: u64,
        now_ms: impl FnOnce() -> u64,
    ) -> Option<(SignedTransaction, u64)> {
        let mut waiting = self.waiting.lock();
        waiting.first_nonce(sender).filter(|first| *first <= nonce)?;
        let now_ms = now_ms();
        while let Some(first) = waiting.first_nonce(sender).filter(|first| *first < nonce) {
            waiting.expire(sender, first, now_ms);
            let reason = format!("nonce too low: next nonce {nonce}, tx nonce {first}");
            waiting.forget(sender, first, Fate::Refused(reason));
        }
        waiting.expire(sender, nonce, now_ms);
        let entry = waiting.remove(sender, nonce)?;
        Some((entry.transaction, entry.since_ms))
    }

    /// Remembers why a transaction that was taken out is not executed.
    pub fn refused(&self, hash: B256, refusal: &Refusal) {
        self.waiting.lock().remember(hash, Fate::Refused(refusal.to_string()));
    }

    /// What became of a transaction that waited lately and was not executed then. It may have been
    /// sent again since.
    pub fn fate(&self, hash: &B256) -> Option<Fate> {
        self.waiting.lock().fates.get(hash).cloned()
    }

    /// Drops what has waited too long, if nobody has done so for a while. What has is never found
    /// or taken, so that this only makes room.
    pub fn sweep(&self, now_ms: u64) {
        self.waiting.lock().sweep_now_and_then(now_ms);
    }

    /// Takes all out, by sender and nonce.
    pub fn drain(&self, now_ms: u64) -> Vec<SignedTransaction> {
        let mut waiting = self.waiting.lock();
        waiting.sweep(now_ms);
        waiting.ready.clear();
        waiting.by_hash.clear();
        waiting.bytes = 0;
        let by_sender = std::mem::take(&mut waiting.by_sender);
        drop(waiting);
        let entries = by_sender.into_values().flat_map(BTreeMap::into_values);
        entries.map(|entry| entry.transaction).collect()
    }

    /// Whether a sender has transactions that wait.
    pub fn has_sender(&self, sender: Address) -> bool {
        self.waiting.lock().by_sender.contains_key(&sender)
    }

    /// A transaction that waits.
    pub fn find(&self, hash: &B256, now_ms: u64) -> Option<SignedTransaction> {
        let mut waiting = self.waiting.lock();
        let (sender, nonce) = *waiting.by_hash.get(hash)?;
        waiting.expire(sender, nonce, now_ms);
        waiting.at(sender, nonce).map(|entry| entry.transaction.clone())
    }

    /// All that wait, by sender and nonce.
    pub fn all(&self, now_ms: u64) -> Vec<SignedTransaction> {
        let mut waiting = self.waiting.lock();
        waiting.sweep(now_ms);
        let entries = waiting.by_sender.values().flat_map(BTreeMap::values);
        entries.map(|entry| entry.transaction.clone()).collect()
    }

    /// Those of one sender that wait, by nonce.
    pub fn of(&self, sender: Address, now_ms: u64) -> Vec<SignedTransaction> {
        let mut waiting = self.waiting.lock();
        waiting.sweep(now_ms);
        let entries = waiting.by_sender.get(&sender).into_iter().flat_map(BTreeMap::values);
        entries.map(|entry| entry.transaction.clone()).collect()
    }

    /// How many wait.
    pub fn count(&self, now_ms: u64) -> usize {
        let mut waiting = self.waiting.lock();
        waiting.sweep(now_ms);
        waiting.by_hash.len()
    }

    /// How many are in memory, those included that have waited too long and are not dropped yet.
    pub fn len(&self) -> usize {
        self.waiting.lock().by_hash.len()
    }

    /// Whether none is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug)]
struct Entry {
    transaction: SignedTransaction,
    since_ms: u64,
    size_bytes: usize,
}

impl Entry {
    fn is_late(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) >= Pool::EXPIRY_MS
    }
}

#[derive(Debug, Default)]
struct Waiting {
    by_sender: BTreeMap<Address, BTreeMap<u64, Entry>>,
    by_hash: HashMap<B256, (Address, u64)>,
    bytes: usize,
    ready: BTreeSet<Address>,
    swept_ms: u64,
    fates: HashMap<B256, Fate>,
    // In the order in which they were remembered.
    fated: VecDeque<B256>,
}

impl Waiting {
    fn at(&self, sender: Address, nonce: u64) -> Option<&Entry> {
        self.by_sender.get(&sender)?.get(&nonce)
    }

    fn first_nonce(&self, sender: Address) -> Option<u64> {
        self.by_sender.get(&sender)?.keys().next().copied()
    }

    /// Whether there is room for another one, in the place of `old` if that is there.
    fn has_room(&self, another: &SignedTransaction, old: Option<&Entry>) -> bool {
        let others = self.bytes.saturating_sub(old.map_or(0, |old| old.size_bytes));
        let bytes = others.saturating_add(another.envelope().encode_2718_len());
        (old.is_some() || self.by_hash.len() < Pool::LIMIT) && bytes <= Pool::LIMIT_BYTES
    }

    fn insert(&mut self, transaction: SignedTransaction, since_ms: u64) {
        let size_bytes = transaction.envelope().encode_2718_len();
        self.bytes = self.bytes.saturating_add(size_bytes);
        let (sender, nonce) = (transaction.sender(), transaction.envelope().nonce());
        self.by_hash.insert(transaction.hash(), (sender, nonce));
        let of_sender = self.by_sender.entry(sender).or_default();
        of_sender.insert(nonce, Entry { transaction, since_ms, size_bytes });
    }

    fn remove(&mut self, sender: Address, nonce: u64) -> Option<Entry> {
        let of_sender = self.by_sender.get_mut(&sender)?;
        let entry = of_sender.remove(&nonce)?;
        if of_sender.is_empty() {
            self.by_sender.remove(&sender);
        }
        self.by_hash.remove(&entry.transaction.hash());
        self.bytes = self.bytes.saturating_sub(entry.size_bytes);
        Some(entry)
    }

    fn forget(&mut self, sender: Address, nonce: u64, fate: Fate) {
        if let Some(entry) = self.remove(sender, nonce) {
            self.remember(entry.transaction.hash(), fate);
        }
    }

    fn remember(&mut self, hash: B256, fate: Fate) {
        if self.fates.insert(hash, fate).is_none() {
            self.fated.push_back(hash);
        }
        while self.fated.len() > Pool::FATES {
            if let Some(oldest) = self.fated.pop_front() {
                self.fates.remove(&oldest);
            }
        }
    }

    /// Drops one if it has waited too long.
    fn expire(&mut self, sender: Address, nonce: u64, now_ms: u64) {
        if self.at(sender, nonce).is_some_and(|entry| entry.is_late(now_ms)) {
            self.forget(sender, nonce, Fate::Expired);
        }
    }

    fn sweep_now_and_then(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) >= Pool::SWEEP_MS {
            self.sweep(now_ms);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.swept_ms = now_ms;
        let expired: Vec<_> = self
            .by_sender
            .iter()
            .flat_map(|(sender, of_sender)| of_sender.iter().map(move |at| (*sender, at)))
            .filter(|(_, (_, entry))| entry.is_late(now_ms))
            .map(|(sender, (nonce, _))| (sender, *nonce))
            .collect();
        for (sender, nonce) in expired {
            self.forget(sender, nonce, Fate::Expired);
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use alloy_consensus::crypto::secp256k1::sign_message;
    use alloy_consensus::{SignableTransaction, TxLegacy};
    use alloy_primitives::keccak256;
    use proptest::prelude::*;

    use super::*;

    const SENDERS: usize = 3;
    const NONCES: usize = 6;
    const PRICES: usize = 4;

    /// Signed once: by sender, nonce and price.
    static TRANSACTIONS: LazyLock<Vec<SignedTransaction>> = LazyLock::new(|| {
        let signed = |index: usize| {
            let transaction = TxLegacy {
                nonce: ((index / PRICES) % NONCES) as u64,
                gas_price: 100 + 6 * (index % PRICES) as u128,
                ..TxLegacy::default()
            };
            let secret = keccak256([(index / PRICES / NONCES) as u8]);
            let signature = sign_message(secret, transaction.signature_hash()).unwrap();
            SignedTransaction::new(transaction.into_signed(signature).into()).unwrap()
        };
        (0..SENDERS * NONCES * PRICES).map(signed).collect()
    });

    fn transaction(sender: usize, nonce: usize, price: usize) -> &'static SignedTransaction {
        &TRANSACTIONS[(sender * NONCES + nonce) * PRICES + price]
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add { sender: usize, nonce: usize, price: usize, priced: bool },
        Take { sender: usize, nonce: usize, put_back: bool },
        Pass { seconds: u64, asked: bool },
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..SENDERS, 0..NONCES, 0..PRICES, any::<bool>()).prop_map(
                |(sender, nonce, price, priced)| Step::Add { sender, nonce, price, priced }
            ),
            3 => (0..SENDERS, 0..NONCES, any::<bool>())
                .prop_map(|(sender, nonce, put_back)| Step::Take { sender, nonce, put_back }),
            1 => (0u64..400, any::<bool>())
                .prop_map(|(seconds, asked)| Step::Pass { seconds, asked }),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        /// The model: what waits as a list of (sender, nonce, price, since), and the last fate of
        /// everything that went another way than into execution.
        #[test]
        fn a_pool_behaves_like_a_list(steps in prop::collection::vec(step(), 0..120)) {
            let pool = Pool::default();
            let mut model: Vec<(usize, usize, usize, u64)> = Vec::new();
            let mut fates: HashMap<B256, Fate> = HashMap::new();
            let mut now_ms = 0;
            for step in steps {
                match step {
                    Step::Add { sender, nonce, price, priced } => {
                        let added = pool.add(transaction(sender, nonce, price).clone(), 0, now_ms, priced);
                        let at = model.iter().position(|(s, n, ..)| (*s, *n) == (sender, nonce));
                        let hash = transaction(sender, nonce, price).hash();
                        match at.and_then(|at| Some((at, model.get(at)?.2))) {
                            Some((_, old)) if old == price => {
                                prop_assert_eq!(added, Err(Refusal::AlreadyKnown));
                            }
                            // Steps of 6 %: two of them are the bump of 10 %.
                            Some((_, old)) if priced && price < old + 2 => {
                                prop_assert_eq!(added, Err(Refusal::Underpriced));
                            }
                            Some((at, old)) => {
                                prop_assert_eq!(added, Ok(()));
                                let replaced = transaction(sender, nonce, old).hash();
                                fates.insert(replaced, Fate::Replaced(hash));
                                model[at] = (sender, nonce, price, now_ms);
                            }
                            None => {
                                prop_assert_eq!(added, Ok(()));
                                model.push((sender, nonce, price, now_ms));
                            }
                        }
                    }
                    Step::Take { sender, nonce, put_back } => {
                        let address = transaction(sender, 0, 0).sender();
                        let taken = pool.take(address, nonce as u64, || now_ms);
                        let at = model.iter().position(|(s, n, ..)| (*s, *n) == (sender, nonce));
                        let expected = at.map(|at| model.remove(at));
                        prop_assert_eq!(
                            taken.as_ref().map(|(taken, since)| (taken.hash(), *since)),
                            expected.map(|(s, n, p, since)| (transaction(s, n, p).hash(), since))
                        );
                        model.retain(|(s, n, p, _)| {
                            let late = *s == sender && *n < nonce;
                            if late {
                                let reason = format!("nonce too low: next nonce {nonce}, tx nonce {n}");
                                fates.insert(transaction(*s, *n, *p).hash(), Fate::Refused(reason));
                            }
                            !late
                        });
                        if let (true, Some(taken), Some(expected)) = (put_back, taken, expected) {
                            pool.put_back(taken, true);
                            prop_assert_eq!(pool.ready(), Some(address));
                            model.push(expected);
                        }
                    }
                    Step::Drain => {
                        let drained = pool.drain(now_ms).into_iter().map(|it| it.hash());
                        let expected = model.drain(..).map(|(s, n, p, _)| transaction(s, n, p).hash());
                        prop_assert!(drained.eq(expected));
                    }
                    Step::Pass { seconds, asked } => {
                        now_ms += seconds * 1000;
                        // Nobody drops what is late: whoever asks for it finds it gone.
                        model.retain(|(s, n, p, since)| {
                            let hash = transaction(*s, *n, *p).hash();
                            let late = now_ms - since >= Pool::EXPIRY_MS;
                            if late {
                                fates.insert(hash, Fate::Expired);
                            }
                            !late
                        });
                        if !asked {
                            continue;
                        }
                    }
                }
                model.sort_by_key(|(s, n, ..)| (transaction(*s, 0, 0).sender(), *n));
                let all: Vec<_> = pool.all(now_ms).iter().map(SignedTransaction::hash).collect();
                let expected: Vec<_> =
                    model.iter().map(|(s, n, p, _)| transaction(*s, *n, *p).hash()).collect();
                prop_assert_eq!(&all, &expected);
                prop_assert_eq!(pool.count(now_ms), expected.len());
                prop_assert_eq!(pool.len(), expected.len());
                for hash in &all {
                    prop_assert_eq!(pool.find(hash, now_ms).map(|found| found.hash()), Some(*hash));
                }
                for (hash, fate) in &fates {
                    prop_assert_eq!(&pool.fate(hash), &Some(fate.clone()));
                }
                prop_assert_eq!(pool.ready(), None);
            }
        }
    }

    #[test]
    fn a_pool_has_bounds() {
        let pool = Pool::default();
        let far = TxLegacy { nonce: Pool::WINDOW + 1, ..TxLegacy::default() };
        let signature = sign_message(keccak256("far"), far.signature_hash()).unwrap();
        let far = SignedTransaction::new(far.into_signed(signature).into()).unwrap();
        let refused = pool.add(far.clone(), 0, 0, false);
        assert!(matches!(refused, Err(Refusal::GapTooWide { next: 0, .. })));
        assert_eq!(pool.add(far, 1, 0, false), Ok(()));
        // Long ones fill it by their bytes before they do by their number.
        let mut added = 0;
        loop {
            let nonce = added % Pool::WINDOW;
            let input = vec![1; 120 * 1024].into();
            let long = TxLegacy { nonce, input, ..TxLegacy::default() };
            let secret = keccak256((added / Pool::WINDOW).to_be_bytes());
            let signature = sign_message(secret, long.signature_hash()).unwrap();
            let long = SignedTransaction::new(long.into_signed(signature).into()).unwrap();
            match pool.add(long, 0, 0, false) {
                Ok(()) => added += 1,
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::PoolFull);
                    break;
                }
            }
        }
        assert_eq!(added as usize, Pool::LIMIT_BYTES / (120 * 1024 + 80));
    }

    #[test]
    fn replacements_take_no_more_room_than_there_is() {
        let pool = Pool::default();
        let add = |index: u64, bytes: usize| {
            let input = vec![1; bytes].into();
            let nonce = index % Pool::WINDOW;
            let transaction = TxLegacy { nonce, input, ..TxLegacy::default() };
            let secret = keccak256((index / Pool::WINDOW).to_be_bytes());
            let signature = sign_message(secret, transaction.signature_hash()).unwrap();
            let signed = SignedTransaction::new(transaction.into_signed(signature).into()).unwrap();
            pool.add(signed, 0, 0, false)
        };
        for index in 0..560 {
            assert_eq!(add(index, 1), Ok(()));
        }
        let replaced: Vec<_> = (0..560).map(|index| add(index, 130_000)).collect();
        assert!(pool.waiting.lock().bytes <= Pool::LIMIT_BYTES);
        let first = replaced.iter().position(|added| *added == Err(Refusal::PoolFull)).unwrap();
        assert!(first >= Pool::LIMIT_BYTES / 130_200, "{first}");
        // The one that was not replaced still waits, and a shorter one takes a long one's place.
        assert_eq!(pool.len(), 560);
        assert_eq!(add(0, 2), Ok(()));
        assert_eq!(add(first as u64, 100_000), Ok(()));
    }

    #[test]
    fn what_has_waited_too_long_has_no_turn_and_leaves_its_place() {
        let pool = Pool::default();
        let waits = transaction(0, 1, 3);
        let (sender, hash) = (waits.sender(), waits.hash());
        let add = |price, now_ms| pool.add(transaction(0, 1, price).clone(), 0, now_ms, true);
        add(3, 0).unwrap();
        let early = Pool::EXPIRY_MS - 1;
        let (taken, since_ms) = pool.take(sender, 1, || early).unwrap();
        pool.put_back((taken, since_ms), false);
        assert_eq!(pool.find(&hash, early).map(|found| found.hash()), Some(hash));
        assert_eq!(pool.take(sender, 1, || Pool::EXPIRY_MS), None);
        assert_eq!(pool.fate(&hash), Some(Fate::Expired));
        // One that pays less takes its place, though nobody has asked for it.
        add(3, 0).unwrap();
        pool.sweep(Pool::EXPIRY_MS - 1);
        assert_eq!(add(0, Pool::EXPIRY_MS), Ok(()));
    }
}
