//! Ethereum on the ledger: accounts, contracts, blocks and tools of Ethereum, executed once on the
//! primary and kept in private maps of the one store.
//!
//! ```text
//!   raw bytes ──▶ SignedTransaction ──▶ Chain::execute ──▶ commit point      one transaction
//!                 (sender recovered,     on a kv::Tx,                        of the store each
//!                  before any lock)      in the open block
//!
//!   cut of a batch ──▶ Chain::seal ──▶ header with real roots, indexes       one block a batch
//! ```
//!
//! The crate knows the store and the EVM (`revm`), neither sockets nor clocks: time and randomness
//! come with the transaction that opens a block. It does not decide what is committed when; what it
//! needs of whoever does is the trait [`Node`]. [`rpc`] answers JSON-RPC over it, bytes in and
//! bytes out; [`Pool`] keeps transactions that wait for earlier ones.
//!
//! Invariants:
//! * every change of state is a write of one store transaction, and reads enter its read set key by
//!   key: executions that share no account or slot do not conflict;
//! * a block holds the transactions of one batch in the order of the ledger; no batch without
//!   transactions has one;
//! * headers are Ethereum's: roots, bloom and hashes are those that any client computes;
//! * the state before every block stays readable;
//! * what is in memory besides the store (analysed code, tries) is a cache of it.
//!
//! ```
//! use alloy_primitives::{Address, B256, U256};
//! use coco_ethereum::{Chain, FeePolicy, Head, World, consortium_genesis};
//! use coco_kv::{Store, View};
//!
//! let (store, rich) = (Store::new(View(2)), Address::with_last_byte(7));
//! let mut tx = store.begin();
//! let genesis = consortium_genesis(1337, [(rich, U256::from(1000))]);
//! let (chain, hash) = Chain::begin(&mut tx, &genesis, FeePolicy::Free).unwrap();
//! store.commit(tx, |_, _| ()).unwrap();
//!
//! let mut tx = store.begin();
//! assert_eq!(Head::read(&mut tx).unwrap().unwrap().hash, hash);
//! let account = World::past(&mut tx, chain.codes(), 0).account(rich).unwrap().unwrap();
//! assert_eq!(account.balance, U256::from(1000));
//! ```

mod adapter;
mod archive;
mod beside;
mod block;
mod chain;
mod error;
mod evm;
mod genesis;
mod import;
mod maps;
mod node;
mod outbox;
mod pool;
mod record;
mod refusal;
mod roots;
pub mod rpc;
mod rules;
mod transaction;
pub mod trial;
mod trie;
mod world;

pub use adapter::{Ethereum, Setup};
pub(crate) use block::log_key;
pub use block::{
    Executed, Head, IncludedTransaction, Opening, Sealed, block, block_hash, block_number, changes,
    ledger_position, transaction,
};
pub use chain::{Chain, Hold, Pass};
pub use error::StateError;
pub use evm::{EvmContext, ExecutionError, Surroundings};
pub use genesis::{ChainTerms, GenesisError, consortium_genesis, parse_genesis};
pub use import::{ImportError, ImportedBlock, blocks_of};
pub use node::{CommitRefusal, ForwardRefusal, Node};
pub use outbox::{Outbox, Place};
pub use pool::{Fate, Pool};
pub use record::{Account, BlockRecord, Change, OpenBlock, Position, TransactionRecord};
pub use refusal::{Invalid, Refusal};
pub use roots::{RecentTries, StateTrie};
pub use rules::{ChainOptions, ChainRules, FeePolicy};
pub use transaction::{SignedTransaction, TransactionSyntax};
pub use trie::Trie;
pub use world::{Codes, World};
