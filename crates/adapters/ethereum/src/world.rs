//! Accounts, code and storage in the store, as the EVM sees and changes them.

use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};

use alloy_primitives::map::HashSet;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use coco_kv::{MapName, Seqno, Tx, Value};
use parking_lot::Mutex;
use revm::Database;
use revm::primitives::hardfork::SpecId;
use revm::state::{AccountInfo, Bytecode, EvmState};

use crate::StateError;
use crate::archive::each_written;
use crate::maps::{
    ACCOUNTS, ACCOUNTS_WAS, CODE, HASHES, OPEN, STORAGE, STORAGE_ONLY, STORAGE_WAS, at_block,
    hash_key, slot_key, slot_keys, slot_of, slot_value,
};
use crate::record::{self, Account, Change};

/// The world state inside one store transaction: of now, or of the end of a past block.
///
/// Reads enter the transaction's read set key by key; writes go to its write set. A world of the
/// past is for reading and for trying things out: what is written to it lies over the past state
/// and must never be committed.
pub struct World<'a> {
    tx: &'a mut Tx,
    codes: &'a Codes,
    when: When,
    // Accounts shown with a nonce of 1 instead of 0, see `basic`.
    raised: HashSet<Address>,
    sender: Option<Address>,
    // Where on the ledger the block was opened; none if all of it is this transaction.
    opened_at: Option<Seqno>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Now; what is overwritten is kept as the state before this block.
    Block(u64),
    /// Now; nothing of what is overwritten is kept.
    Scratch,
    /// At the end of this block.
    Past(u64),
}

impl<'a> World<'a> {
    /// The present, inside `block`: values it had before the block stay readable.
    pub fn in_block(tx: &'a mut Tx, codes: &'a Codes, block: u64) -> Self {
        let opened_at = tx.version_of_previous_write(&OPEN, &[]);
        Self { opened_at, ..Self::new(tx, codes, When::Block(block)) }
    }

    /// The present, for trying things out, or before there is any history.
    pub fn scratch(tx: &'a mut Tx, codes: &'a Codes) -> Self {
        Self::new(tx, codes, When::Scratch)
    }

    /// The state at the end of `block`.
    pub fn past(tx: &'a mut Tx, codes: &'a Codes, block: u64) -> Self {
        Self::new(tx, codes, When::Past(block))
    }

    fn new(tx: &'a mut Tx, codes: &'a Codes, when: When) -> Self {
        Self { tx, codes, when, raised: HashSet::default(), sender: None, opened_at: None }
    }

    /// Says who sends the transaction that is executed next.
    pub(crate) fn set_sender(&mut self, sender: Address) {
        self.sender = Some(sender);
    }

    /// The transaction beneath.
    pub fn tx(&mut self) -> &mut Tx {
        self.tx
    }

    /// An account, if it exists.
    pub fn account(&mut self, address: Address) -> Result<Option<Account>, StateError> {
        let value = self.value(&ACCOUNTS, &ACCOUNTS_WAS, address.as_slice());
        value.map(|value| record::decode(&ACCOUNTS, &value)).transpose()
    }

    /// The value of a slot.
    pub fn slot(&mut self, address: Address, slot: U256) -> Result<U256, StateError> {
        let key = slot_key(address, slot);
        let value = self.value(&STORAGE, &STORAGE_WAS, &key).unwrap_or_default();
        U256::try_from_be_slice(&value).ok_or(StateError::BadRecord { map: STORAGE.as_str() })
    }

    /// Code by its hash.
    pub fn code(&mut self, hash: B256) -> Result<Bytes, StateError> {
        Ok(self.bytecode(hash)?.original_bytes())
    }

    /// Writes an account; `None` removes it, its storage is cleared by
    /// [`clear_storage`](Self::clear_storage).
    pub fn put_account(&mut self, address: Address, account: Option<Account>) {
        let before = self.before(&ACCOUNTS, address.as_slice());
        let value = account.map(|account| record::encode(&account));
        self.write(&ACCOUNTS, &ACCOUNTS_WAS, address.as_slice(), || before, value);
    }

    /// Writes a slot.
    pub fn put_slot(&mut self, address: Address, slot: U256, value: U256) {
        let key = slot_key(address, slot);
        let before = self.before(&STORAGE, &key);
        self.write(&STORAGE, &STORAGE_WAS, &key, || before, slot_entry(value));
    }

    /// Keeps code; returns its hash.
    pub fn put_code(&mut self, code: &[u8]) -> B256 {
        let hash = keccak256(code);
        if !code.is_empty() && !self.tx.has(&CODE, hash.as_slice()) {
            self.tx.put(&CODE, hash_key(&hash), code);
        }
        hash
    }

    /// Sets every slot of an account to zero; returns those that were not.
    pub fn clear_storage(&mut self, address: Address) -> Vec<U256> {
        let slots = self.slots(address);
        for slot in &slots {
            self.put_slot(address, *slot, U256::ZERO);
        }
        slots
    }

    /// The slots of an account that are not zero.
    fn slots(&mut self, address: Address) -> Vec<U256> {
        let mut slots = Vec::new();
        let (first, last) = slot_keys(address);
        let mut keep = |key: &[u8]| {
            slots.extend(slot_of(key).filter(|(owner, _)| *owner == address).map(|(_, slot)| slot));
            ControlFlow::Continue(())
        };
        let bounds = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        self.tx.range(&STORAGE, bounds, |key, _| keep(key));
        if let When::Past(block) = self.when {
            // Some have become zero since, and some were zero then.
            let _ = each_written(self.tx, &STORAGE_WAS, [&first, &last], block, |key, is_later| {
                if is_later { keep(key) } else { ControlFlow::Continue(()) }
            });
            slots.sort_unstable();
            slots.dedup();
            slots.retain(|slot| {
                self.value(&STORAGE, &STORAGE_WAS, &slot_key(address, *slot)).is_some()
            });
        }
        slots
    }

    /// Writes an account as a genesis gives it.
    pub fn put_whole_account(
        &mut self,
        address: Address,
        (nonce, balance, code): (u64, U256, &[u8]),
        storage: impl IntoIterator<Item = (U256, U256)>,
    ) {
        let code_hash = self.put_code(code);
        let mut has_storage = false;
        for (slot, value) in storage {
            has_storage |= !value.is_zero();
            self.put_slot(address, slot, value);
        }
        if nonce == 0 && code.is_empty() && has_storage {
            self.tx.put(&STORAGE_ONLY, address.as_slice(), []);
        }
        self.put_account(address, Some(Account { nonce, balance, code_hash }));
    }

    /// Writes what an execution under the rules of `spec` has changed; returns what that is.
    pub fn apply(&mut self, state: EvmState, spec: SpecId) -> Result<Vec<Change>, StateError> {
        let mut changes = Vec::new();
        for (address, after) in state {
            if !after.is_touched() {
                continue;
            }
            let mut change = Change { address, slots: Vec::new() };
            let before = self.account(address)?;
            if after.is_selfdestructed() || after.is_created() {
                change.slots = self.clear_storage(address);
            }
            let cleared_empty = after.is_empty() && spec.is_enabled_in(SpecId::SPURIOUS_DRAGON);
            let account = if after.is_selfdestructed() || cleared_empty {
                None
            } else {
                for (slot, value) in &after.storage {
                    if value.is_changed() {
                        let key = slot_key(address, *slot);
                        let before = || slot_entry(value.original_value).unwrap_or_default();
                        let present = slot_entry(value.present_value);
                        self.write(&STORAGE, &STORAGE_WAS, &key, before, present);
                        change.slots.push(*slot);
                    }
                }
                let code_hash = match &after.info.code {
                    Some(code) if before.is_none_or(|b| b.code_hash != after.info.code_hash) => {
                        self.put_code(code.original_byte_slice())
                    }
                    _ if after.info.code_hash.is_zero() => KECCAK256_EMPTY,
                    _ => after.info.code_hash,
                };
                let raised = u64::from(self.raised.contains(&address));
                let nonce = after.info.nonce.saturating_sub(raised);
                if nonce == 0 && code_hash == KECCAK256_EMPTY && !change.slots.is_empty() {
                    self.tx.put(&STORAGE_ONLY, address.as_slice(), []);
                }
                Some(Account { nonce, balance: after.info.balance, code_hash })
            };
            if account != before {
                self.put_account(address, account);
            } else if change.slots.is_empty() {
                continue;
            }
            changes.push(change);
        }
        Ok(changes)
    }

    fn value(&mut self, now: &MapName, was: &MapName, key: &[u8]) -> Option<Value> {
        let When::Past(block) = self.when else { return self.tx.get(now, key) };
        if let Some(own) = own_write(self.tx, now, key) {
            return own;
        }
        // The first value kept after the block is the one at its end; if there is none, nothing
        // has changed since.
        let (from, to) = (at_block(key, block.saturating_add(1)), at_block(key, u64::MAX));
        let bounds = (Bound::Included(from.as_slice()), Bound::Included(to.as_slice()));
        let mut kept = None;
        self.tx.range(was, bounds, |_, value| {
            kept = Some(value.clone());
            ControlFlow::Break(())
        });
        match kept {
            Some(value) => (!value.is_empty()).then_some(value),
            None => self.tx.get(now, key),
        }
    }

    /// What is kept of a key that is overwritten in a block; empty if it was absent.
    fn before(&mut self, now: &MapName, key: &[u8]) -> Value {
        match self.when {
            When::Block(_) => self.tx.get(now, key).unwrap_or_default(),
            When::Scratch | When::Past(_) => Value::default(),
        }
    }

    fn write(
        &mut self,
        now: &MapName,
        was: &MapName,
        key: &[u8],
        before: impl FnOnce() -> Value,
        value: Option<Value>,
    ) {
        if let When::Block(block) = self.when {
            let kept = at_block(key, block);
            if !self.is_kept(now, was, key, &kept) {
                self.tx.put(was, kept, before());
            }
        }
        match value {
            Some(value) => self.tx.put(now, key, value),
            None => self.tx.remove(now, key),
        }
    }

    /// Whether the value before the block is kept already. What was written since the block was
    /// opened has its old value kept; so only of an absent key it must be looked up.
    fn is_kept(&mut self, now: &MapName, was: &MapName, key: &[u8], kept: &[u8]) -> bool {
        if own_write(self.tx, now, key).is_some() {
            return true;
        }
        let Some(opened_at) = self.opened_at else { return false };
        match self.tx.version_of_previous_write(now, key) {
            Some(written_at) => written_at >= opened_at,
            None => self.tx.has(was, kept),
        }
    }

    fn bytecode(&mut self, hash: B256) -> Result<Bytecode, StateError> {
        if hash == KECCAK256_EMPTY || hash.is_zero() {
            return Ok(Bytecode::new());
        }
        if let Some(code) = self.codes.find(&hash) {
            return Ok(code);
        }
        let code = self.tx.get(&CODE, hash.as_slice()).ok_or(StateError::NoCode(hash))?;
        let code = Bytecode::new_raw_checked(Bytes::copy_from_slice(&code))
            .unwrap_or_else(|_| Bytecode::new_legacy(Bytes::copy_from_slice(&code)));
        self.codes.keep(hash, code.clone());
        Ok(code)
    }
}

fn slot_entry(value: U256) -> Option<Value> {
    (!value.is_zero()).then(|| Value::from(slot_value(value)))
}

fn own_write(tx: &Tx, map: &MapName, key: &[u8]) -> Option<Option<Value>> {
    Some(tx.writes().map(map)?.get(key)?.cloned())
}

impl Database for World<'_> {
    type Error = StateError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        let Some(Account { mut nonce, balance, code_hash }) = self.account(address)? else {
            return Ok(None);
        };
        // No contract is created over storage (EIP-7610), which the EVM cannot ask for. A nonce
        // prevents it, too, and nobody sees the nonce of an account that never sent anything.
        let fresh = nonce == 0 && code_hash == KECCAK256_EMPTY && self.sender != Some(address);
        if fresh && self.tx.has(&STORAGE_ONLY, address.as_slice()) {
            nonce = 1;
            self.raised.insert(address);
        }
        Ok(Some(AccountInfo { nonce, balance, code_hash, ..AccountInfo::default().without_code() }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, StateError> {
        self.bytecode(code_hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, StateError> {
        self.slot(address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, StateError> {
        let hash = self.tx.get(&HASHES, &number.to_be_bytes());
        Ok(hash.and_then(|hash| B256::try_from(&*hash).ok()).unwrap_or_default())
    }
}

/// Code that was analysed lately, by its hash. It never goes stale, for a hash has one code.
#[derive(Debug, Default)]
pub struct Codes {
    recent: Mutex<HashMap<B256, Bytecode>>,
}

impl Codes {
    /// With at most 24 KiB each (EIP-170) this bounds the memory to some 100 MiB.
    const LIMIT: usize = 4096;

    fn find(&self, hash: &B256) -> Option<Bytecode> {
        self.recent.lock().get(hash).cloned()
    }

    fn keep(&self, hash: B256, code: Bytecode) {
        let mut recent = self.recent.lock();
        if recent.len() >= Self::LIMIT {
            recent.clear();
        }
        recent.insert(hash, code);
    }
}

#[cfg(test)]
mod tests {
    use coco_kv::{Store, View};

    use super::*;

    #[test]
    fn slots_of_an_address_that_begins_alike_are_not_cleared() {
        let (store, codes) = (Store::new(View(2)), Codes::default());
        let mut tx = store.begin();
        let mut world = World::scratch(&mut tx, &codes);
        let mut neighbour = [7; 20];
        neighbour[19] = 8;
        let (address, neighbour) = (Address::repeat_byte(7), Address::from(neighbour));
        let slots = [U256::ZERO, U256::from(0x0102), U256::MAX];
        for owner in [address, neighbour] {
            slots.iter().for_each(|slot| world.put_slot(owner, *slot, U256::from(5)));
        }
        let mut cleared = world.clear_storage(address);
        cleared.sort_unstable();
        assert_eq!(cleared, slots);
        for slot in slots {
            assert_eq!(world.slot(address, slot), Ok(U256::ZERO));
            assert_eq!(world.slot(neighbour, slot), Ok(U256::from(5)));
        }
    }
}
