//! The ERC-20 token of `tests/ethereum`, as `npm run build` there compiles it.

use std::path::Path;

use alloy_primitives::{Address, Bytes, U256, hex, keccak256};
use anyhow::{Context, Result};
use serde::Deserialize;

/// Where it is compiled to.
pub const ARTIFACT: &str = "tests/ethereum/dist/Token.json";

/// What a new token's owner has at first: none, since the owner mints for every sender.
const SUPPLY: U256 = U256::ZERO;

/// A compiled contract.
#[derive(Deserialize)]
pub struct Token {
    bytecode: String,
}

impl Token {
    /// Reads what the compiler wrote.
    pub fn read(artifact: &Path) -> Result<Self> {
        let text = std::fs::read(artifact).with_context(|| {
            let file = artifact.display();
            format!("{file} is missing: run `npm ci && npm run build` in tests/ethereum")
        })?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The input of the transaction that deploys it.
    pub fn deployment(&self) -> Result<Bytes> {
        let mut input = hex::decode(&self.bytecode)?;
        // Two strings and a number: the heads, then each string's length and its bytes.
        let words =
            [U256::from(0x60), U256::from(0xa0), SUPPLY].map(|word| word.to_be_bytes::<32>());
        input.extend(words.concat());
        for text in ["Bench", "BNC"] {
            input.extend(U256::from(text.len()).to_be_bytes::<32>());
            input.extend(text.as_bytes());
            input.resize(input.len() + 32 - text.len(), 0);
        }
        Ok(input.into())
    }
}

/// The input of `transfer(to, value)`.
pub fn transfer(to: Address, value: U256) -> Bytes {
    call("transfer(address,uint256)", to, Some(value))
}

/// The input of `mint(to, value)`.
pub fn mint(to: Address, value: U256) -> Bytes {
    call("mint(address,uint256)", to, Some(value))
}

/// The input of `balanceOf(account)`.
pub fn balance_of(account: Address) -> Bytes {
    call("balanceOf(address)", account, None)
}

fn call(signature: &str, account: Address, value: Option<U256>) -> Bytes {
    let mut input = keccak256(signature).get(..4).unwrap_or_default().to_vec();
    input.extend(account.into_word());
    input.extend(value.into_iter().flat_map(|value| value.to_be_bytes::<32>()));
    input.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_encoded() {
        let to = Address::with_last_byte(7);
        assert_eq!(&transfer(to, U256::from(1))[..4], &hex!("a9059cbb"));
        assert_eq!(transfer(to, U256::from(1)).len(), 68);
        assert_eq!(&balance_of(to)[..4], &hex!("70a08231"));
        let token = Token { bytecode: "0x6001".to_owned() };
        let input = token.deployment().unwrap();
        assert_eq!(input.len(), 2 + 7 * 32);
        assert_eq!(&input[2 + 4 * 32..2 + 4 * 32 + 5], b"Bench");
    }
}
