//! Which state a request is about.

use alloy_eips::{BlockId, BlockNumberOrTag};
use alloy_primitives::B256;
use coco_kv::Tx;

use super::{Params, Rpc, RpcError};
use crate::{
    BlockRecord, Head, IncludedTransaction, OpenBlock, Opening, StateError, Surroundings, World,
    block, block_hash, block_number, transaction,
};

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// After all that was executed.
    Pending,
    /// At the end of a sealed block.
    Block(u64),
}

impl Rpc {
    /// The last block that clients see: what is not committed may still be taken back.
    pub(super) fn head(&self, tx: &mut Tx) -> Result<Head, RpcError> {
        Ok(self.last_committed(tx)?.ok_or(StateError::NoGenesis)?)
    }

    pub(super) fn last_committed(&self, tx: &mut Tx) -> Result<Option<Head>, StateError> {
        Head::at(tx, self.node.committed())
    }

    /// A transaction in a block that clients see.
    pub(super) fn included(
        &self,
        tx: &mut Tx,
        hash: B256,
    ) -> Result<Option<IncludedTransaction>, RpcError> {
        let head = self.head(tx)?.number;
        let included = transaction(tx, hash)?;
        Ok(included.filter(|included| included.record.block <= head))
    }

    /// The block that an id names, if there is one.
    pub(super) fn find_block(&self, tx: &mut Tx, id: BlockId) -> Result<Option<At>, RpcError> {
        let head = self.head(tx)?.number;
        Ok(match id {
            BlockId::Hash(hash) => {
                block_number(tx, hash.block_hash).filter(|number| *number <= head).map(At::Block)
            }
            BlockId::Number(BlockNumberOrTag::Number(number)) => {
                (number <= head && block_hash(tx, number).is_some()).then_some(At::Block(number))
            }
            BlockId::Number(BlockNumberOrTag::Earliest) => Some(At::Block(0)),
            BlockId::Number(BlockNumberOrTag::Pending) => Some(At::Pending),
            BlockId::Number(_) => Some(At::Block(head)),
        })
    }

    /// The state that the parameter at `index` names; that of the last block if it is left out.
    pub(super) fn state_at(
        &self,
        tx: &mut Tx,
        params: &Params,
        index: usize,
    ) -> Result<At, RpcError> {
        let id = params.optional(index)?.unwrap_or_else(BlockId::latest);
        self.find_block(tx, id)?.ok_or_else(|| match id {
            BlockId::Hash(hash) => {
                RpcError::server(format!("header for hash {} not found", hash.block_hash))
            }
            BlockId::Number(_) => RpcError::server("header not found"),
        })
    }

    pub(super) fn world<'a>(&'a self, tx: &'a mut Tx, at: At) -> Result<World<'a>, RpcError> {
        let past = match at {
            At::Pending => None,
            // Nothing has happened since the last block, as long as none is open.
            At::Block(number) => {
                let is_last = Head::read(tx)?.is_some_and(|head| head.number == number);
                (!is_last || OpenBlock::read(tx)?.is_some()).then_some(number)
            }
        };
        Ok(match past {
            Some(number) => World::past(tx, self.chain.codes(), number),
            None => World::scratch(tx, self.chain.codes()),
        })
    }

    /// A sealed block that is known to exist.
    pub(super) fn sealed(&self, tx: &mut Tx, number: u64) -> Result<BlockRecord, RpcError> {
        Ok(block(tx, number)?.ok_or(StateError::NoBlock(number))?)
    }

    /// The rules and environment in which a call on a state is executed.
    pub(super) fn surroundings(&self, tx: &mut Tx, at: At) -> Result<Surroundings, RpcError> {
        match at {
            At::Block(number) => Ok(self.chain.surroundings_of(&self.sealed(tx, number)?.header)),
            At::Pending => {
                let open = match OpenBlock::read(tx)? {
                    Some(open) => open,
                    None => self.chain.next_block(tx, &self.opening())?,
                };
                Ok(self.chain.surroundings(&open))
            }
        }
    }

    pub(super) fn opening(&self) -> Opening {
        Opening { now_ms: self.node.now_ms(), randomness: self.node.randomness() }
    }
}
