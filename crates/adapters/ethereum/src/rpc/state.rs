//! Balances, nonces, code, storage and their proofs.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use coco_kv::Tx;
use serde_json::json;

use super::params::{is_whole_slot, slot};
use super::view::At;
use super::{Answer, Params, Rpc, RpcError, quantity, to_json};
use crate::archive::changes_after;
use crate::block::{ExecutedHere, executed, merged, weight};
use crate::roots::Successor;
use crate::{Account, Change, Head, StateError, StateTrie, World, block_hash, changes};

impl Rpc {
    /// Slots that one request may ask for.
    const MAX_SLOTS: usize = 1024;
    /// Blocks of others after which the tries follow them.
    const FOLLOWED_AFTER: u64 = 64;
    /// Accounts and slots that blocks say they have changed, before the archive is asked instead.
    const MAX_TOLD: usize = 100_000;
    /// Accounts and slots that have changed between a proof's block and the last one, each counted
    /// once. The nodes on their paths take up to 3 kB each, and mostly a tenth of that.
    const MAX_UNDONE: usize = 500_000;

    pub(super) fn balance(&self, params: &Params) -> Answer {
        let account = self.account_at(params)?;
        to_json(&account.balance)
    }

    pub(super) fn transaction_count(&self, params: &Params) -> Answer {
        Ok(quantity(self.account_at(params)?.nonce))
    }

    fn account_at(&self, params: &Params) -> Result<Account, RpcError> {
        let address: Address = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        Ok(self.world(&mut tx, at)?.account(address)?.unwrap_or_default())
    }

    pub(super) fn code(&self, params: &Params) -> Answer {
        let address: Address = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let mut world = self.world(&mut tx, at)?;
        let account = world.account(address)?.unwrap_or_default();
        to_json(&world.code(account.code_hash)?)
    }

    pub(super) fn account_info(&self, params: &Params) -> Answer {
        let address: Address = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let mut world = self.world(&mut tx, at)?;
        let account = world.account(address)?.unwrap_or_default();
        let code = world.code(account.code_hash)?;
        Ok(json!({
            "balance": account.balance,
            "nonce": quantity(account.nonce),
            "code": code,
        }))
    }

    pub(super) fn storage_at(&self, params: &Params) -> Answer {
        let address: Address = params.required(0)?;
        let slot = slot(&params.required::<String>(1)?)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 2)?;
        let value = self.world(&mut tx, at)?.slot(address, slot)?;
        to_json(&B256::from(value))
    }

    pub(super) fn storage_values(&self, params: &Params) -> Answer {
        let asked: BTreeMap<Address, Vec<String>> = params.required(0)?;
        let count: usize = asked.values().map(Vec::len).sum();
        if count == 0 {
            return Err(RpcError::invalid_params("empty request"));
        }
        if count > Self::MAX_SLOTS {
            let message = format!("too many slots (max {})", Self::MAX_SLOTS);
            return Err(RpcError::invalid_params(message));
        }
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let mut world = self.world(&mut tx, at)?;
        let mut values = BTreeMap::new();
        for (address, slots) in asked {
            let mut of_account = Vec::with_capacity(slots.len());
            for text in slots {
                of_account.push(B256::from(world.slot(address, slot(&text)?)?));
            }
            values.insert(address, of_account);
        }
        to_json(&values)
    }

    pub(super) fn proof(&self, params: &Params) -> Answer {
        let address: Address = params.required(0)?;
        let asked: Vec<String> = params.optional(1)?.unwrap_or_default();
        if asked.len() > Self::MAX_SLOTS {
            let message = format!("too many slots (max {})", Self::MAX_SLOTS);
            return Err(RpcError::invalid_params(message));
        }
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 2)?;
        let number = match at {
            At::Block(number) => number,
            At::Pending => self.head(&mut tx)?.number,
        };
        let trie = self.trie_at(&mut tx, number)?;
        let mut world = self.world(&mut tx, At::Block(number))?;
        let account = world.account(address)?.unwrap_or_default();
        let mut proofs = Vec::with_capacity(asked.len());
        for text in &asked {
            let key = slot(text)?;
            let value = world.slot(address, key)?;
            let proof = trie.storage_proof(address, key);
            // As geth shows it: a quantity, unless it was asked for as 32 bytes.
            let key = if is_whole_slot(text) { B256::from(key).into() } else { key.into() };
            proofs.push(EIP1186StorageProof { key, value, proof });
        }
        let response = EIP1186AccountProofResponse {
            address,
            balance: account.balance,
            code_hash: account.code_hash,
            nonce: account.nonce,
            storage_hash: trie.storage_root(address),
            account_proof: trie.account_proof(address),
            storage_proof: proofs,
        };
        to_json(&response)
    }

    /// The tries after a sealed block: known, or made from those of the last block by undoing what
    /// changed since.
    pub(super) fn trie_at(&self, tx: &mut Tx, number: u64) -> Result<StateTrie, RpcError> {
        let hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        if let Some(trie) = self.chain.tries().after(number, hash) {
            return Ok(trie);
        }
        let head = Head::read(tx)?.ok_or(StateError::NoGenesis)?;
        let told = changes_between(tx, number, head.number, Self::MAX_TOLD)?;
        let _undoing = told.is_none().then(|| self.chain.tries().undoing.lock());
        let changes = told.or_else(|| changes_after(tx, number, Self::MAX_UNDONE));
        let changes = changes.ok_or_else(|| {
            RpcError::server("distance to target block exceeds maximum proof window")
        })?;
        let mut trie = self.last_trie(tx, &head)?;
        trie.update(&mut World::past(tx, self.chain.codes(), number), &changes)?;
        Ok(trie)
    }

    /// The tries after the last sealed block. What it takes to make them from nothing, after a
    /// start, is done once.
    fn last_trie(&self, tx: &mut Tx, head: &Head) -> Result<StateTrie, RpcError> {
        let tries = self.chain.tries();
        if let Some(trie) = tries.after(head.number, head.hash) {
            return Ok(trie);
        }
        let _building = tries.building.lock();
        if let Some(trie) = tries.after(head.number, head.hash) {
            return Ok(trie);
        }
        let open = executed(tx, ExecutedHere::default())?.changes;
        let successor = Successor::of(tx, self.chain.codes(), tries, head.number, &open)?;
        let mut trie = successor.make();
        trie.update(&mut World::past(tx, self.chain.codes(), head.number), &open)?;
        tries.remember(head.number, head.hash, trie.clone(), 0);
        Ok(trie)
    }

    /// Lets the tries of a node that seals nothing, a backup, follow what is committed, so that
    /// they are near when it has to.
    pub(super) fn follow(&self, tx: &mut Tx, committed: u64) -> Result<(), RpcError> {
        let behind = committed.saturating_sub(self.chain.tries().last());
        if behind >= Self::FOLLOWED_AFTER {
            let head = Head::read(tx)?.ok_or(StateError::NoGenesis)?;
            self.last_trie(tx, &head)?;
        }
        Ok(())
    }
}

/// What the blocks after one say that they have changed, up to another; none if it is more than
/// `most`, counted each time.
fn changes_between(
    tx: &mut Tx,
    after: u64,
    last: u64,
    most: usize,
) -> Result<Option<Vec<Change>>, StateError> {
    let (mut all, mut count) = (Vec::new(), 0);
    for number in after.saturating_add(1)..=last {
        let changes = changes(tx, number)?;
        count += weight(&changes);
        if count > most {
            return Ok(None);
        }
        all.extend(changes);
    }
    Ok(Some(merged(all)))
}
