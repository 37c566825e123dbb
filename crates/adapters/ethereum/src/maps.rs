//! Where everything lies in the store. All maps are private: the host sees ciphertext only.
//!
//! ```text
//!   ethereum.accounts      address                      account
//!   ethereum.code          code hash                    code
//!   ethereum.storage       slot of an address           value, without leading zeros
//!   ethereum.accounts_was  address ‖ block              account before that block; empty: none
//!   ethereum.storage_was   slot of an address ‖ block   value before that block; empty: zero
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
//! Blocks in keys are big-endian, so that a walk over a map is a walk in their order. How the slot of
//! an address is written, [`slot_key`] says.

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

/// Where the slot begins in its key.
const SLOT_AT: usize = 4;

/// The key of a slot: its number, lowest byte first, within the address. Slots of one contract so
/// differ in their first bytes, by which the store finds keys sooner, and are still together.
pub(crate) fn slot_key(address: Address, slot: U256) -> [u8; 52] {
    let (head, tail) = address.split_at(SLOT_AT);
    let mut key = [0; 52];
    key[..SLOT_AT].copy_from_slice(head);
    key[SLOT_AT..SLOT_AT + 32].copy_from_slice(&slot.to_le_bytes::<32>());
    key[SLOT_AT + 32..].copy_from_slice(tail);
    key
}

/// What a [`slot_key`] is made of.
pub(crate) fn slot_of(key: &[u8]) -> Option<(Address, U256)> {
    let (head, rest) = key.split_at_checked(SLOT_AT)?;
    let (slot, tail) = rest.split_at_checked(32)?;
    let address = [head, tail].concat();
    Some((Address::try_from(address.as_slice()).ok()?, U256::try_from_le_slice(slot)?))
}

/// The first and the last key that a slot of an address can have. Between them may be slots of others
/// whose address begins alike.
pub(crate) fn slot_keys(address: Address) -> ([u8; 52], [u8; 52]) {
    let (mut first, mut last) = ([0; 52], [0xff; 52]);
    let (head, _) = address.split_at(SLOT_AT);
    first[..SLOT_AT].copy_from_slice(head);
    last[..SLOT_AT].copy_from_slice(head);
    (first, last)
}

/// The key of what an account, or a slot by its [`slot_key`], was before a block.
pub(crate) fn at_block(key: &[u8], block: u64) -> Vec<u8> {
    [key, &block.to_be_bytes()].concat()
}

/// A value of storage as it is kept: without leading zeros.
pub(crate) fn slot_value(value: U256) -> Vec<u8> {
    value.to_be_bytes_trimmed_vec()
}

/// The key of a hash.
pub(crate) fn hash_key(hash: &B256) -> Key {
    Key::from(hash.as_slice())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_is_found_in_its_key_and_among_its_address(address: [u8; 20], slot: [u8; 32]) {
            let (address, slot) = (Address::from(address), U256::from_be_bytes(slot));
            let key = slot_key(address, slot);
            prop_assert_eq!(slot_of(&key), Some((address, slot)));
            let (first, last) = slot_keys(address);
            prop_assert!((first..=last).contains(&key));
        }

        #[test]
        fn other_bytes_are_no_key_of_a_slot(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            prop_assert_eq!(slot_of(&bytes).is_some(), bytes.len() == 52);
        }
    }
}
