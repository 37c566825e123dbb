//! The accounts that the development chain starts with: those that every Ethereum tool derives from
//! its test mnemonic (BIP-39, BIP-32, path m/44'/60'/0'/0/n), so that tools know them by themselves.

use alloy_genesis::Genesis;
use alloy_primitives::{Address, U256, hex, keccak256};
use anyhow::Result;
use coins_bip32::path::DerivationPath;
use coins_bip39::{English, Mnemonic};
use serde::{Deserialize, Serialize};

/// Known to everybody: whoever uses it on a chain of value loses what is there.
const MNEMONIC: &str = "test test test test test test test test test test test junk";
const COUNT: u32 = 10;
/// What each has, in wei: 10,000 ether.
const BALANCE: u128 = 10_000 * 1_000_000_000_000_000_000;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Its address, with the checksum of EIP-55.
    pub(crate) address: String,
    /// Its key, 32 bytes in hex.
    pub(crate) private_key: String,
}

/// All of them.
pub(crate) fn accounts() -> Result<Vec<Account>> {
    let master = Mnemonic::<English>::new_from_phrase(MNEMONIC)?.master_key(None)?;
    let parent = master.derive_path("m/44'/60'/0'/0".parse::<DerivationPath>()?)?;
    let account = |index: u32| {
        let child = parent.derive_path(format!("m/{index}").parse::<DerivationPath>()?)?;
        let key: &coins_bip32::ecdsa::SigningKey = child.as_ref();
        let point = key.verifying_key().to_sec1_point(false);
        let hash = keccak256(point.as_bytes().get(1..).unwrap_or_default());
        let address = Address::from_word(hash).to_checksum(None);
        Ok(Account { address, private_key: hex::encode_prefixed(key.to_bytes()) })
    };
    (0..COUNT).map(account).collect()
}

/// Those that a genesis gives something.
pub(crate) fn funded(genesis: &Genesis) -> Result<Vec<Account>> {
    let has_money = |account: &Account| {
        let address: Option<Address> = account.address.parse().ok();
        let entry = address.and_then(|address| genesis.alloc.get(&address));
        entry.is_some_and(|entry| !entry.balance.is_zero())
    };
    Ok(accounts()?.into_iter().filter(has_money).collect())
}

/// What each has on the chain of a new service.
pub(crate) fn balances(accounts: &[Account]) -> Result<Vec<(Address, U256)>> {
    let funded = |account: &Account| Ok((account.address.parse()?, U256::from(BALANCE)));
    accounts.iter().map(funded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_are_those_that_tools_know() {
        let accounts = accounts().unwrap();
        assert_eq!(accounts.len(), 10);
        let Account { address, private_key } = &accounts[0];
        assert_eq!(address, "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        let known = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        assert_eq!(private_key, known);
        assert_eq!(accounts[9].address, "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720");
        assert_eq!(balances(&accounts).unwrap().len(), 10);
    }
}
