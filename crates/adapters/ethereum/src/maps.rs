//! Where everything lies in the store. All maps are private: the host sees ciphertext only.
//!
//! ```text
//!   ethereum.accounts      address                      account
//!   ethereum.code          code hash                    code
//!   ethereum.storage       address ‖ slot               value, without leading zeros
//!   ethereum.accounts_was  address ‖ block              account before that block; empty: none
//!   ethereum.storage_was   slot ‖ address ‖ block       value before that block; empty: zero
//!   ethereum.storage_only  address                      "": has storage, but neither nonce nor code
//!   ethereum.open          ""                           the block being filled
//!   ethereum.transactions  tx hash                      envelope, sender, block, what came of it
//!   ethereum.executed      tx hash                      what a transaction of the open block changed
//!   ethereum.positions     block                        where in it its transactions are, by tx hash
//!   ethereum.blocks        block                        header, ommers, withdrawals, tx hashes
//!   ethereum.hashes        block                        block hash
//!   ethereum.numbers       block hash                   block
//!   ethereum.changes       block                        accounts and slots that changed in it
//!   ethereum.logs          kind ‖ address or topic, folded ‖ block     ""
//!   ethereum.chain         "genesis" | "options" | "head"
//!   ethereum.keys          participant id               secret key of the account kept for it
//! ```
//!
//! Blocks and slots in keys are big-endian, so that a walk over a map is a walk in their order.

use std::sync::LazyLock;

use alloy_primitives::{Address, B256, U256};
use coco_kv::{Key, MapName};

macro_rules! maps {
    ($($constant:ident = $name:literal),+ $(,)?) => {
        $(pub(crate) static $constant: LazyLock<MapName> = LazyLock::new(|| MapName::new($name));)+
    };
}

maps! {
    ACCOUNTS = "ethereum.accounts",
    CODE = "ethereum.code",
    STORAGE = "ethereum.storage",
    ACCOUNTS_WAS = "ethereum.accounts_was",
    STORAGE_ONLY = "ethereum.storage_only",
    STORAGE_WAS = "ethereum.storage_was",
    OPEN = "ethereum.open",
    TRANSACTIONS = "ethereum.transactions",
    EXECUTED = "ethereum.executed",
    POSITIONS = "ethereum.positions",
    BLOCKS = "ethereum.blocks",
    HASHES = "ethereum.hashes",
    NUMBERS = "ethereum.numbers",
    CHANGES = "ethereum.changes",
    LOGS = "ethereum.logs",
    CHAIN = "ethereum.chain",
    KEYS = "ethereum.keys",
}

/// The key of a slot.
pub(crate) fn slot_key(address: Address, slot: U256) -> [u8; 52] {
    let mut key = [0; 52];
    let (head, tail) = key.split_at_mut(20);
    head.copy_from_slice(address.as_slice());
    tail.copy_from_slice(&slot.to_be_bytes::<32>());
    key
}

/// The key of what an account, or a slot by its [`slot_key`], was before a block. A slot comes before
/// its address: slots differ in their first bytes, by which the store finds keys sooner.
pub(crate) fn at_block(key: &[u8], block: u64) -> Vec<u8> {
    let (address, slot) = key.split_at_checked(20).unwrap_or((key, &[]));
    [slot, address, &block.to_be_bytes()].concat()
}

/// The last key that starts with `prefix` and is `length` bytes long.
pub(crate) fn last_with_prefix(prefix: &[u8], length: usize) -> Vec<u8> {
    let mut key = prefix.to_vec();
    key.resize(length, 0xff);
    key
}

/// The slot at the end of a [`slot_key`].
pub(crate) fn slot_of(key: &[u8]) -> Option<U256> {
    key.get(20..52).map(U256::from_be_slice)
}

/// A value of storage as it is kept: without leading zeros.
pub(crate) fn slot_value(value: U256) -> Vec<u8> {
    value.to_be_bytes_trimmed_vec()
}

/// The key of a hash.
pub(crate) fn hash_key(hash: &B256) -> Key {
    Key::from(hash.as_slice())
}
