//! geth's `genesis.json`, and what the consortium chose beyond it.
#![no_main]

use alloy_genesis::Genesis;
use coco_ethereum::{Chain, ChainOptions, FeePolicy, Head, consortium_genesis};
use coco_kv::{Store, View};
use libfuzzer_sys::fuzz_target;

const SMALL: &str = r#"{"config": {"chainId": 7, "homesteadBlock": 0, "eip150Block": 0,
    "eip155Block": 0, "eip158Block": 0, "byzantiumBlock": 0, "berlinBlock": 0, "londonBlock": 0,
    "terminalTotalDifficulty": 0, "shanghaiTime": 10, "cancunTime": 20,
    "blobSchedule": {"cancun": {"target": 3, "max": 6, "baseFeeUpdateFraction": 3338477}}},
    "difficulty": "0x1", "gasLimit": "0x1000000", "nonce": "0x42", "timestamp": "0x5",
    "extraData": "0x00", "mixHash": "0x0000000000000000000000000000000000000000000000000000000000000000",
    "coinbase": "0x0000000000000000000000000000000000000000",
    "alloc": {"0000000000000000000000000000000000000001": {"balance": "1000", "nonce": "0x1",
        "code": "0x6001", "storage": {"0x00": "0x01"}}}}"#;
const OPTIONS: &str = r#"{"fees": {"fixed": 7}, "transaction_gas_limit": 1000000,
    "contract_code_limit": 49152, "unprotected_transactions": true}"#;

fn seeds() -> [Vec<u8>; 3] {
    let consortium = serde_json::to_vec(&consortium_genesis(1337, [])).unwrap();
    [SMALL.into(), OPTIONS.into(), consortium]
}

fuzz_target!(init: coco_fuzz::seed("ethereum_genesis", seeds()), |bytes: &[u8]| {
    let _ = serde_json::from_slice::<ChainOptions>(bytes);
    let Ok(genesis) = serde_json::from_slice::<Genesis>(bytes) else { return };
    let store = Store::new(View(2));
    let mut tx = store.begin();
    let Ok((_, hash)) = Chain::begin(&mut tx, &genesis, FeePolicy::Market) else { return };
    assert_eq!(Head::read(&mut tx).unwrap().unwrap().hash, hash);
    assert!(Chain::load(&mut tx).unwrap().is_some());
});
