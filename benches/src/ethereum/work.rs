//! The transactions of one run, what must be there before, and what must be true afterwards.

use std::thread;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, TxKind, U256};
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::Kind;
use super::contract::{self, Token};
use super::rpc::{Call, Rpc, quantity};
use super::wallet::{Order, Wallet};

/// Accounts that receive, so that transactions seldom touch the same one at the same time.
const RECEIVERS: usize = 1024;
const TRANSFER_GAS: u64 = 21_000;
const TOKEN_GAS: u64 = 80_000;
const DEPLOY_GAS: u64 = 3_000_000;
/// What a sender is given: wei for gas and transfers, and units of the token.
const ENDOWMENT: u128 = 10_u128.pow(18);
/// How long a chain may take for the preparations, or without any progress.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one run sends.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kind: Kind,
    pub transactions: usize,
    pub senders: usize,
}

/// Signed transactions.
pub struct Work {
    kind: Kind,
    token: Address,
    pub senders: Vec<Sender>,
    receivers: Vec<Address>,
}

/// One sender's transactions, in order of nonces from 0.
pub struct Sender {
    pub address: Address,
    pub raw: Vec<String>,
}

impl Work {
    /// Signs; everybody's keys follow from the name.
    pub fn sign(name: &str, shape: Shape, chain_id: u64, token: Address) -> Result<Self> {
        let receiver = |number| Wallet::named(&format!("{name} receiver {number}"));
        let receivers = (0..RECEIVERS).map(|number| Ok(receiver(number)?.address));
        let receivers: Vec<Address> = receivers.collect::<Result<_>>()?;
        let sender = |number: usize| {
            let wallet = Wallet::named(&format!("{name} sender {number}"))?;
            let mut raw = Vec::new();
            for serial in (number..shape.transactions).step_by(shape.senders) {
                let to = receivers.get(serial % RECEIVERS).copied().unwrap_or_default();
                let order = order(shape.kind, raw.len() as u64, to, token);
                raw.push(wallet.sign(chain_id, order)?);
            }
            Ok(Sender { address: wallet.address, raw })
        };
        let half = shape.senders / 2;
        let senders: Result<Vec<Sender>> = thread::scope(|scope| {
            let other = scope.spawn(|| (half..shape.senders).map(sender).collect::<Vec<_>>());
            let mut senders: Vec<_> = (0..half).map(sender).collect();
            senders.extend(other.join().map_err(|_| anyhow::anyhow!("signing failed"))?);
            senders.into_iter().collect()
        });
        Ok(Self { kind: shape.kind, token, senders: senders?, receivers })
    }

    /// How many transactions there are.
    pub fn count(&self) -> usize {
        self.senders.iter().map(|sender| sender.raw.len()).sum()
    }

    /// Waits until the latest state has every transaction.
    pub fn wait_committed(&self, rpc: &mut Rpc) -> Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let done = self.committed(rpc)?;
            if done == self.count() {
                return Ok(());
            }
            if done > last {
                (last, since) = (done, Instant::now());
            }
            ensure!(since.elapsed() < PATIENCE, "stuck at {done} of {} transactions", self.count());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn committed(&self, rpc: &mut Rpc) -> Result<usize> {
        let count =
            |sender: &Sender| ("eth_getTransactionCount", json!([sender.address, "latest"]));
        let calls: Vec<Call> = self.senders.iter().map(count).collect();
        let counts = rpc.calls(&calls)?;
        counts.iter().try_fold(0, |sum, count| Ok(sum + quantity(count)? as usize))
    }

    /// Whether every transaction did what it should: the receivers have one unit for each.
    pub fn check(&self, rpc: &mut Rpc) -> Result<()> {
        let balance = |receiver: &Address| match self.kind {
            Kind::Transfer => ("eth_getBalance", json!([receiver, "latest"])),
            Kind::Erc20 => {
                let input = contract::balance_of(*receiver);
                ("eth_call", json!([{"to": self.token, "data": input}, "latest"]))
            }
        };
        let calls: Vec<Call> = self.receivers.iter().map(balance).collect();
        let mut received = 0;
        for balance in rpc.calls(&calls)? {
            received += quantity(&balance)? as usize;
        }
        ensure!(received == self.count(), "{received} of {} transfers arrived", self.count());
        Ok(())
    }
}

fn order(kind: Kind, nonce: u64, receiver: Address, token: Address) -> Order {
    let one = U256::from(1);
    match kind {
        Kind::Transfer => {
            let to = TxKind::Call(receiver);
            Order { nonce, to, value: one, gas: TRANSFER_GAS, input: Default::default() }
        }
        Kind::Erc20 => {
            let input = contract::transfer(receiver, one);
            Order { nonce, to: TxKind::Call(token), value: U256::ZERO, gas: TOKEN_GAS, input }
        }
    }
}

/// The rich account, who has deployed the token and owns it.
pub struct Funder {
    wallet: Wallet,
    nonce: u64,
    pub chain_id: u64,
    pub token: Address,
}

impl Funder {
    /// Deploys a token.
    pub fn open(rpc: &mut Rpc, key: &str, token: &Token) -> Result<Self> {
        let wallet = Wallet::from_hex(key)?;
        let chain_id = quantity(&rpc.call("eth_chainId", json!([]))?)? as u64;
        let nonce = rpc.call("eth_getTransactionCount", json!([wallet.address, "pending"]))?;
        let nonce = quantity(&nonce)? as u64;
        let mut this = Self { wallet, nonce, chain_id, token: wallet.address.create(nonce) };
        let input = token.deployment()?;
        let (to, value) = (TxKind::Create, U256::ZERO);
        let deployment = this.sign(to, value, DEPLOY_GAS, input)?;
        this.send(rpc, &[deployment])?;
        Ok(this)
    }

    /// Gives every sender wei and units of the token.
    pub fn fund(&mut self, rpc: &mut Rpc, works: &[&Work]) -> Result<()> {
        let mut raw = Vec::new();
        for sender in works.iter().flat_map(|work| &work.senders) {
            let (amount, to) = (U256::from(ENDOWMENT), TxKind::Call(sender.address));
            raw.push(self.sign(to, amount, TRANSFER_GAS, Default::default())?);
            let (input, to) = (contract::mint(sender.address, amount), TxKind::Call(self.token));
            raw.push(self.sign(to, U256::ZERO, TOKEN_GAS, input)?);
        }
        self.send(rpc, &raw)
    }

    fn sign(
        &mut self,
        to: TxKind,
        value: U256,
        gas: u64,
        input: alloy_primitives::Bytes,
    ) -> Result<String> {
        let nonce = self.nonce;
        self.nonce += 1;
        self.wallet.sign(self.chain_id, Order { nonce, to, value, gas, input })
    }

    /// One after the other; waits for the last, which must have succeeded.
    fn send(&self, rpc: &mut Rpc, raw: &[String]) -> Result<()> {
        let mut hash = Value::Null;
        for raw in raw {
            hash = rpc.call("eth_sendRawTransaction", json!([raw]))?;
        }
        let started = Instant::now();
        loop {
            let receipt = rpc.call("eth_getTransactionReceipt", json!([hash]))?;
            match receipt.get("status").and_then(Value::as_str) {
                Some("0x1") => return Ok(()),
                Some(_) => bail!("a preparation reverted: {receipt}"),
                None => ensure!(started.elapsed() < PATIENCE, "no receipt of {hash}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
