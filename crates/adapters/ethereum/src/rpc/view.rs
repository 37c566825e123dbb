//! Which state a request is about.

use alloy_eips::{BlockId, BlockNumberOrTag};
use coco_kv::Tx;

use super::{Params, Rpc, RpcError};
use crate::{
    BlockRecord, Head, OpenBlock, Opening, StateError, Surroundings, World, block, block_hash,
    block_number,
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
    pub(super) fn head(&self, tx: &mut Tx) -> Result<Head, RpcError> {
        Ok(Head::read(tx)?.ok_or(StateError::NoGenesis)?)
    }

    /// The block that an id names, if there is one.
    pub(super) fn find_block(&self, tx: &mut Tx, id: BlockId) -> Result<Option<At>, RpcError> {
        let head = self.head(tx)?.number;
        Ok(match id {
            BlockId::Hash(hash) => block_number(tx, hash.block_hash).map(At::Block),
            BlockId::Number(BlockNumberOrTag::Number(number)) => {
                block_hash(tx, number).map(|_| At::Block(number))
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
            At::Block(number) if number == self.head(tx)?.number => {
                OpenBlock::read(tx)?.map(|_| number)
            }
            At::Block(number) => Some(number),
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
