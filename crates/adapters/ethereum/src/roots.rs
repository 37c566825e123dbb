//! The state root of every recent block.
//!
//! The tries are not in the store: they follow from it. A node keeps the versions of the last
//! blocks, makes the next one from the last that it has and what the blocks since have changed, and
//! builds one from the whole state only when it starts.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use alloy_consensus::{EMPTY_ROOT_HASH, TrieAccount};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use coco_kv::Tx;
use parking_lot::Mutex;

use crate::block::merged;
use crate::maps::{ACCOUNTS, STORAGE, slot_of};
use crate::record::{self, Account, Change};
use crate::trie::Trie;
use crate::{Codes, StateError, World, block_hash, changes};

/// The tries of one state.
#[derive(Clone, Debug, Default)]
pub struct StateTrie {
    accounts: Trie,
    storages: imbl::HashMap<B256, Trie>,
}

impl StateTrie {
    /// The tries of the present state of a store transaction, from nothing.
    pub fn build(tx: &Tx) -> Result<Self, StateError> {
        let mut trie = Self::default();
        // On a state of its own, so that the whole world does not enter the read set.
        let seen = tx.snapshot().with_writes(tx.writes(), tx.read_tx_id());
        let mut tx = Tx::on(seen);
        let mut bad = None;
        tx.for_each(&STORAGE, |key, value| {
            let entry = (|| {
                let (address, slot) = slot_of(key)?;
                Some((keccak256(address), slot, U256::try_from_be_slice(value)?))
            })();
            let Some((address, slot, value)) = entry else {
                bad = Some(StateError::BadRecord { map: STORAGE.as_str() });
                return ControlFlow::Break(());
            };
            trie.put_slot(address, slot, value);
            ControlFlow::Continue(())
        });
        tx.for_each(&ACCOUNTS, |key, value| {
            let account = record::decode::<Account>(&ACCOUNTS, value);
            match (Address::try_from(key), account) {
                (Ok(address), Ok(account)) => {
                    trie.put_account(keccak256::<Address>(address), Some(account));
                }
                _ => bad = Some(StateError::BadRecord { map: ACCOUNTS.as_str() }),
            }
            if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bad.map_or(Ok(trie), Err)
    }

    /// Takes over the values that changed accounts and slots have in `world`.
    pub fn update(&mut self, world: &mut World<'_>, changes: &[Change]) -> Result<(), StateError> {
        self.put_all(Changed::all(world, changes)?);
        Ok(())
    }

    /// The state root.
    pub fn root(&self) -> B256 {
        self.accounts.root()
    }

    /// The storage root of an account.
    pub fn storage_root(&self, address: Address) -> B256 {
        self.storages.get(&keccak256(address)).map_or(EMPTY_ROOT_HASH, Trie::root)
    }

    /// The proof of an account, or of its absence.
    pub fn account_proof(&self, address: Address) -> Vec<Bytes> {
        self.accounts.proof(keccak256(address))
    }

    /// The proof of a slot, or of its being zero.
    pub fn storage_proof(&self, address: Address, slot: U256) -> Vec<Bytes> {
        let trie = self.storages.get(&keccak256(address));
        trie.map_or_else(Vec::new, |trie| trie.proof(keccak256(slot.to_be_bytes::<32>())))
    }

    fn put_all(&mut self, changed: Vec<Changed>) {
        for Changed { address, account, slots } in changed {
            let hashed = keccak256(address);
            for (slot, value) in slots {
                self.put_slot(hashed, slot, value);
            }
            self.put_account(hashed, account);
        }
    }

    fn put_slot(&mut self, address: B256, slot: U256, value: U256) {
        let slot = keccak256(slot.to_be_bytes::<32>());
        if !value.is_zero() {
            self.storages.entry(address).or_default().insert(slot, alloy_rlp::encode(value));
        } else if let Some(trie) = self.storages.get_mut(&address) {
            trie.remove(slot);
            if trie.is_empty() {
                self.storages.remove(&address);
            }
        }
    }

    fn put_account(&mut self, hashed: B256, account: Option<Account>) {
        let Some(Account { nonce, balance, code_hash }) = account else {
            self.storages.remove(&hashed);
            return self.accounts.remove(hashed);
        };
        let storage_root = self.storages.get(&hashed).map_or(EMPTY_ROOT_HASH, Trie::root);
        let account = TrieAccount { nonce, balance, storage_root, code_hash };
        self.accounts.insert(hashed, alloy_rlp::encode(account));
    }
}

/// The values of an account and of its slots that changed.
#[derive(Debug)]
struct Changed {
    address: Address,
    account: Option<Account>,
    slots: Vec<(U256, U256)>,
}

impl Changed {
    /// What accounts and slots have in `world`.
    fn all(world: &mut World<'_>, changes: &[Change]) -> Result<Vec<Self>, StateError> {
        let read = |Change { address, slots }: &Change| {
            let values = slots.iter().map(|slot| Ok((*slot, world.slot(*address, *slot)?)));
            let slots = values.collect::<Result<_, StateError>>()?;
            Ok(Self { address: *address, account: world.account(*address)?, slots })
        };
        changes.iter().map(read).collect()
    }
}

/// The tries after each of the last blocks.
#[derive(Debug, Default)]
pub struct RecentTries {
    kept: Mutex<Kept>,
    // Held by whoever builds one from nothing, so that nobody else does at the same time.
    pub(crate) building: Mutex<()>,
    /// Held by whoever makes tries of a block far back, which may take hundreds of megabytes.
    pub(crate) undoing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    by_block: BTreeMap<u64, Version>,
    changes: usize,
}

#[derive(Debug)]
struct Version {
    hash: B256,
    trie: StateTrie,
    // Accounts and slots that it does not share with the version before.
    changes: usize,
}

impl RecentTries {
    /// Blocks whose tries are kept. They share what did not change between them.
    pub const KEPT: usize = 256;
    /// Changed accounts and slots in all versions that are kept, beyond the last one. Each has the
    /// nodes on its path, up to some 3 kB, so that this bounds the memory to about 200 MB.
    pub const KEPT_CHANGES: usize = 65_536;

    /// The tries after a block, if they are still known.
    pub fn after(&self, number: u64, hash: B256) -> Option<StateTrie> {
        let kept = self.kept.lock();
        let version = kept.by_block.get(&number).filter(|version| version.hash == hash);
        version.map(|version| version.trie.clone())
    }

    /// The last block whose tries are known; 0 if none are.
    pub(crate) fn last(&self) -> u64 {
        self.kept.lock().by_block.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// The last tries at or before a block that are of the chain with these hashes.
    fn last_of(
        &self,
        number: u64,
        mut hash: impl FnMut(u64) -> Option<B256>,
    ) -> Option<(u64, StateTrie)> {
        let kept = self.kept.lock();
        let mut versions = kept.by_block.range(..=number).rev();
        let (number, version) = versions.find(|(at, known)| hash(**at) == Some(known.hash))?;
        Some((*number, version.trie.clone()))
    }

    /// Remembers the tries after a block that changed so many accounts and slots. A block of the
    /// same number, rolled back since, is forgotten.
    pub fn remember(&self, number: u64, hash: B256, trie: StateTrie, changes: usize) {
        let mut kept = self.kept.lock();
        let rolled_back = kept.by_block.insert(number, Version { hash, trie, changes });
        kept.changes += changes;
        kept.changes -= rolled_back.map_or(0, |version| version.changes);
        let mut dropped = Vec::new();
        while kept.by_block.len() > 1
            && (kept.by_block.len() > Self::KEPT || kept.changes > Self::KEPT_CHANGES)
        {
            let first = kept.by_block.pop_first();
            kept.changes -= first.as_ref().map_or(0, |(_, version)| version.changes);
            dropped.push(first);
        }
        // Their nodes are freed when nobody waits any more.
        drop(kept);
        drop(dropped);
    }
}

/// The tries of the present before they are made: the last ones that are known, and the values that
/// changed since. What is left to do needs no store.
#[derive(Debug)]
pub(crate) struct Successor {
    known: StateTrie,
    changed: Vec<Changed>,
}

impl Successor {
    /// The tries of the present, to be made with what changed in the blocks up to `parent`, the
    /// last sealed one, and `since`.
    pub fn of(
        tx: &mut Tx,
        codes: &Codes,
        tries: &RecentTries,
        parent: u64,
        since: &[Change],
    ) -> Result<Self, StateError> {
        let known = tries.last_of(parent, |number| block_hash(tx, number));
        let Some((number, known)) = known else {
            return Ok(Self { known: StateTrie::build(tx)?, changed: Vec::new() });
        };
        let mut all = since.to_vec();
        for missed in number.saturating_add(1)..=parent {
            all.extend(changes(tx, missed)?);
        }
        let changed = Changed::all(&mut World::scratch(tx, codes), &merged(all))?;
        Ok(Self { known, changed })
    }

    /// Makes them.
    pub fn make(self) -> StateTrie {
        let mut trie = self.known;
        trie.put_all(self.changed);
        trie
    }
}
