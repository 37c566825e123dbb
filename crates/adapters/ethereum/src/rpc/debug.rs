//! Traces: blocks executed again under geth's tracers.

use std::cell::RefCell;

use alloy_primitives::{Address, B256, U256};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_trace::geth::{GethDebugTracingCallOptions, GethDebugTracingOptions};
use coco_kv::Tx;
use revm::context::TxEnv;
use revm::state::{AccountInfo, Bytecode};
use revm::{Database, DatabaseRef};
use revm_inspectors::tracing::{
    DebugInspector, TraceLimitBehavior, TraceLimits, TransactionContext,
};
use serde_json::{Value as Json, json};

use super::call::{override_state, refused};
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::block::begin_block;
use crate::transaction::to_evm;
use crate::{
    BlockRecord, IncludedTransaction, StateError, Surroundings, World, block_hash, transaction,
};

impl Rpc {
    /// Gas of the transactions of a block that is traced as a whole.
    const MAX_TRACED_GAS: u64 = 200_000_000;
    /// Gas of the transactions before the one that is traced.
    const MAX_REPLAYED_GAS: u64 = 1_000_000_000;
    /// Steps of single instructions in one reply.
    const MAX_STEPS: u64 = 200_000;
    /// Bytes of inputs and memory that one trace may copy.
    const MAX_RECORDED_BYTES: usize = 32 * 1024 * 1024;
    /// Bytes of traces in one reply.
    const MAX_TRACE_BYTES: usize = 128 * 1024 * 1024;

    pub(super) fn trace_transaction(&self, params: &Params) -> Answer {
        let hash: B256 = params.required(0)?;
        let options = options(params.optional(1)?)?;
        let tx = &mut self.node.begin();
        let included =
            self.included(tx, hash)?.ok_or_else(|| RpcError::server("transaction not found"))?;
        if included.position.cumulative_gas_used > Self::MAX_REPLAYED_GAS {
            let message = "the transactions before it in its block are too long to be repeated";
            return Err(RpcError::limit(message));
        }
        let number = included.record.block;
        let block = self.sealed(tx, number)?;
        let block_hash = block_hash(tx, number).ok_or(StateError::NoBlock(number))?;
        let mut traces = self.replay(tx, block_hash, &block, &options, Some(hash))?;
        traces
            .pop()
            .map(|(_, trace)| trace)
            .ok_or_else(|| RpcError::server("transaction not found"))
    }

    pub(super) fn trace_block(&self, params: &Params) -> Answer {
        let tx = &mut self.node.begin();
        let (hash, block) = self.block_or_error(tx, params)?;
        let options = options(params.optional(1)?)?;
        if block.header.gas_used > Self::MAX_TRACED_GAS {
            return Err(RpcError::limit("the block is too large to be traced as a whole"));
        }
        let traces = self.replay(tx, hash, &block, &options, None)?;
        let shown = |(hash, trace): (B256, Json)| json!({"txHash": hash, "result": trace});
        Ok(Json::Array(traces.into_iter().map(shown).collect()))
    }

    pub(super) fn trace_call(&self, params: &Params) -> Answer {
        let request: TransactionRequest = params.required(0)?;
        let mut tx = self.node.begin();
        let at = self.state_at(&mut tx, params, 1)?;
        let options: GethDebugTracingCallOptions = params.optional(2)?.unwrap_or_default();
        let mut surroundings =
            self.call_surroundings(&mut tx, at, options.block_overrides.clone())?;
        let mut world = self.world(&mut tx, at)?;
        override_state(&mut world, options.state_overrides.clone())?;
        let call = self.call_of(&mut world, &mut surroundings, &request)?;
        let mut inspector = inspector(&self::options(Some(options.tracing_options))?)?;
        let context = TransactionContext::default();
        traced(&surroundings, &mut world, call, &mut inspector, context).map(|(trace, _)| trace)
    }

    /// Executes a block's transactions again, up to and including `only` if it is given, and
    /// returns their traces, or the one of `only`.
    fn replay(
        &self,
        tx: &mut Tx,
        block_hash: B256,
        block: &BlockRecord,
        options: &GethDebugTracingOptions,
        only: Option<B256>,
    ) -> Result<Vec<(B256, Json)>, RpcError> {
        let header = &block.header;
        let Some(parent) = header.number.checked_sub(1) else {
            return Err(RpcError::server("genesis is not traceable"));
        };
        let mut included: Vec<IncludedTransaction> = Vec::with_capacity(block.transactions.len());
        for hash in &block.transactions {
            included.push(transaction(tx, *hash)?.ok_or(StateError::NoTransaction(*hash))?);
        }
        let surroundings = self.chain.surroundings_of(header);
        let mut world = World::past(tx, self.chain.codes(), parent);
        let beacon_root = header.parent_beacon_block_root;
        begin_block(&surroundings, &mut world, header.parent_hash, beacon_root)?;
        let (mut traces, mut bytes, mut options) = (Vec::new(), 0, options.clone());
        for (hash, included) in block.transactions.iter().zip(included) {
            let call = self.chain.priced(to_evm(&included.envelope, included.sender));
            let state = if only.is_none_or(|only| only == *hash) {
                let mut inspector = inspector(&options)?;
                let context = TransactionContext {
                    block_hash: Some(block_hash),
                    tx_index: usize::try_from(included.position.index).ok(),
                    tx_hash: Some(*hash),
                };
                let (trace, state) =
                    traced(&surroundings, &mut world, call, &mut inspector, context)?;
                options.config.limit = options.config.limit.map(|left| left - steps(&trace));
                bytes += trace.to_string().len();
                if bytes > Self::MAX_TRACE_BYTES || options.config.limit == Some(0) {
                    return Err(RpcError::limit("the traces are too large, set a limit"));
                }
                traces.push((*hash, trace));
                state
            } else {
                let executed = surroundings
                    .execute(&mut world, call.clone())
                    .map_err(|e| refused(e, &call))?;
                executed.state
            };
            if only == Some(*hash) {
                break;
            }
            world.apply(state, surroundings.spec())?;
        }
        Ok(traces)
    }
}

/// The options of a trace. One that sets no limit to its steps gets ours, see [`within_limit`].
fn options(options: Option<GethDebugTracingOptions>) -> Result<GethDebugTracingOptions, RpcError> {
    let mut options = options.unwrap_or_default();
    let asked = options.config.limit.filter(|limit| *limit > 0);
    if asked.is_some_and(|asked| asked > Rpc::MAX_STEPS) {
        let message = format!("limit is at most {}", Rpc::MAX_STEPS);
        return Err(RpcError::invalid_params(message));
    }
    options.config.limit = asked.or(Some(Rpc::MAX_STEPS));
    Ok(options)
}

fn inspector(options: &GethDebugTracingOptions) -> Result<DebugInspector, RpcError> {
    let inspector = DebugInspector::new(options.clone());
    let limits = TraceLimits::default()
        .set_max_recorded_bytes(Some(Rpc::MAX_RECORDED_BYTES))
        .set_behavior(TraceLimitBehavior::Halt);
    Ok(match inspector.map_err(|error| RpcError::server(error.to_string()))? {
        DebugInspector::Default(tracer, config) => {
            DebugInspector::Default(tracer.with_limits(limits), config)
        }
        DebugInspector::CallTracer(tracer, config) => {
            DebugInspector::CallTracer(tracer.with_limits(limits), config)
        }
        DebugInspector::PreStateTracer(tracer, config) => {
            DebugInspector::PreStateTracer(tracer.with_limits(limits), config)
        }
        DebugInspector::FlatCallTracer(tracer) => {
            DebugInspector::FlatCallTracer(tracer.with_limits(limits))
        }
        DebugInspector::Erc7562Tracer(tracer, config) => {
            DebugInspector::Erc7562Tracer(tracer.with_limits(limits), config)
        }
        other => other,
    })
}

/// Instructions in a trace.
fn steps(trace: &Json) -> u64 {
    trace.get("structLogs").and_then(Json::as_array).map_or(0, Vec::len) as u64
}

/// Refuses a trace that was cut off by our own limit.
fn within_limit(trace: Json) -> Answer {
    if steps(&trace) >= Rpc::MAX_STEPS {
        let message = format!("the trace has more than {} steps, set a limit", Rpc::MAX_STEPS);
        return Err(RpcError::limit(message));
    }
    Ok(trace)
}

/// Executes under a tracer; returns the trace and the state after it, which is not applied.
fn traced(
    surroundings: &Surroundings,
    world: &mut World<'_>,
    call: TxEnv,
    inspector: &mut DebugInspector,
    context: TransactionContext,
) -> Result<(Json, revm::state::EvmState), RpcError> {
    let executed = surroundings
        .inspect(world, call.clone(), &mut *inspector)
        .map_err(|error| refused(error, &call))?;
    let mut before = Before(RefCell::new(world));
    let trace = inspector
        .get_result(Some(context), &call, &surroundings.block, &executed, &mut before)
        .map_err(|error| RpcError::server(error.to_string()))?;
    Ok((within_limit(to_json(&trace)?)?, executed.state))
}

/// The state before the traced transaction, as tracers read it.
struct Before<'a, 'b>(RefCell<&'a mut World<'b>>);

impl DatabaseRef for Before<'_, '_> {
    type Error = StateError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, StateError> {
        self.0.borrow_mut().basic(address)
    }

    fn code_by_hash_ref(&self, code_hash: B256) -> Result<Bytecode, StateError> {
        self.0.borrow_mut().code_by_hash(code_hash)
    }

    fn storage_ref(&self, address: Address, index: U256) -> Result<U256, StateError> {
        self.0.borrow_mut().storage(address, index)
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, StateError> {
        self.0.borrow_mut().block_hash(number)
    }
}
