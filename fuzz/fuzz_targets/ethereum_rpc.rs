//! JSON-RPC: the body of an HTTP request, a message of a WebSocket, and what another node forwards.
#![no_main]

#[path = "../../crates/adapters/ethereum/tests/fixtures/mod.rs"]
mod fixtures;

use std::cell::RefCell;
use std::sync::Arc;

use alloy_primitives::{Address, U256};
use coco_ethereum::rpc::{Rpc, Session};
use coco_ethereum::trial::Trial;
use coco_ethereum::{ChainOptions, consortium_genesis};
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;

/// A chain; what inputs did to it stays for the next ones.
struct Played {
    trial: Arc<Trial>,
    rpc: Arc<Rpc>,
    session: Session,
    inputs: u32,
}

/// So often the chain begins anew.
const INPUTS: u32 = 5_000;

impl Played {
    fn begin() -> Self {
        let rich = (Address::with_last_byte(7), U256::from(u128::MAX));
        // Endless loops of contracts end early.
        let options =
            ChainOptions { transaction_gas_limit: Some(300_000), ..ChainOptions::default() };
        let mut genesis = consortium_genesis(1337, [rich]);
        genesis.gas_limit = 1_000_000;
        let (trial, rpc) = Trial::begin(&genesis, options).unwrap();
        let session = Session::new(&rpc);
        Self { trial, rpc: Arc::new(rpc), session, inputs: 0 }
    }
}

thread_local! {
    static PLAYED: RefCell<Played> = RefCell::new(Played::begin());
}

/// The recorded requests, and three of them in a batch.
fn seeds() -> Vec<String> {
    let files = fixtures::execution_apis().unwrap_or_default();
    let texts = files.iter().filter(|(name, _)| name.ends_with(".io"));
    let texts = texts.map(|(_, text)| String::from_utf8(text.clone()).unwrap());
    let requests = texts.flat_map(|text| {
        let requests = text.lines().filter_map(|line| line.strip_prefix(">> "));
        requests.map(str::to_owned).collect::<Vec<_>>()
    });
    let mut seeds: Vec<String> = requests.filter(|request| request.len() < 2_000).collect();
    for kind in [r#""newHeads""#, r#""logs",{"topics":[null]}"#, r#""newPendingTransactions",true"#]
    {
        seeds.push(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":[{kind}]}}"#
        ));
    }
    let forwarded = r#"{"method":"eth_getTransactionCount","params":["0x07","pending"]}"#;
    seeds.push(format!(r#"{{"participant":null,"calls":[{forwarded},{forwarded}]}}"#));
    seeds.push(format!("[{}]", seeds.iter().take(3).cloned().collect::<Vec<_>>().join(",")));
    seeds
}

async fn play(played: &mut Played, message: &[u8]) {
    let Played { trial, rpc, session, inputs } = played;
    *inputs += 1;
    for reply in [rpc.handle(message).await, session.handle(rpc, message).await] {
        let Some(reply) = reply else { continue };
        let reply: Json = serde_json::from_slice(&reply).unwrap();
        let replies = reply.as_array().map_or(std::slice::from_ref(&reply), Vec::as_slice);
        for reply in replies {
            let told = [reply.get("result"), reply.get("error")];
            assert_eq!(told.iter().flatten().count(), 1, "{reply}");
        }
    }
    if let Ok(answers) = rpc.answer_forwarded(message).await {
        let answers: Json = serde_json::from_slice(&answers).unwrap();
        assert!(answers["answers"].is_array(), "{answers}");
    }
    trial.seal(rpc).unwrap();
}

fuzz_target!(init: coco_fuzz::seed("ethereum_rpc", seeds()), |message: &[u8]| {
    PLAYED.with_borrow_mut(|played| {
        if played.inputs == INPUTS {
            *played = Played::begin();
        }
        coco_fuzz::in_virtual_time(play(played, message));
    });
});
