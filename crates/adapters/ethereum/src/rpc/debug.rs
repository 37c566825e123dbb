//! Traces: blocks executed again under geth's tracers.

use std::cell::RefCell;

use alloy_primitives::{Address, B256, U256};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_trace::geth::{
    GethDebugBuiltInTracerType, GethDebugTracingCallOptions, GethDebugTracingOptions,
};
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
        override_state(&mut world, &mut surroundings, options.state_overrides.clone())?;
        let call = self.call_of(&mut world, &mut surroundings, &request)?;
        let tracing = self::options(Some(options.tracing_options))?;
        let (mut room, context) = (Room::NEW, TransactionContext::default());
        let traced = traced(&surroundings, &mut world, call, &tracing, &mut room, context);
        traced.map(|(trace, _)| trace)
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
        let (mut traces, mut room) = (Vec::new(), Room::NEW);
        for (hash, included) in block.transactions.iter().zip(included) {
            let call = self.chain.priced(to_evm(&included.envelope, included.sender));
            let state = if only.is_none_or(|only| only == *hash) {
                let context = TransactionContext {
                    block_hash: Some(block_hash),
                    tx_index: usize::try_from(included.position.index).ok(),
                    tx_hash: Some(*hash),
                };
                let (trace, state) =
                    traced(&surroundings, &mut world, call, options, &mut room, context)?;
                traces.push((*hash, trace));
                state
            } else {
                let executed = surroundings
                    .execute(&mut world, call.clone())
                    .map_err(|error| refused(error, &call, &surroundings))?;
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

/// The options of a trace, as the tracers take them.
fn options(options: Option<GethDebugTracingOptions>) -> Result<GethDebugTracingOptions, RpcError> {
    let mut options = options.unwrap_or_default();
    if options.config.limit.is_some_and(|asked| asked > Rpc::MAX_STEPS) {
        let message = format!("limit is at most {}", Rpc::MAX_STEPS);
        return Err(RpcError::invalid_params(message));
    }
    if options.tracer == Some(GethDebugBuiltInTracerType::MuxTracer.into()) {
        configure_each(&mut options.tracer_config.0);
    }
    Ok(options)
}

/// geth takes any configuration of each tracer of a `muxTracer`, and none; ours insist on one, or
/// on none.
fn configure_each(tracers: &mut Json) {
    for (tracer, config) in tracers.as_object_mut().into_iter().flatten() {
        if matches!(tracer.as_str(), "4byteTracer" | "noopTracer") {
            *config = Json::Null;
        } else if config.is_null() {
            *config = json!({});
        }
    }
}

/// What the traces of one reply may still hold.
struct Room {
    steps: u64,
    bytes: usize,
}

impl Room {
    const NEW: Self = Self { steps: Rpc::MAX_STEPS, bytes: Rpc::MAX_TRACE_BYTES };

    /// The options of the next trace: of one that has no room it records a step too many, to tell
    /// it from one that its own limit cuts.
    fn bound(&self, options: &GethDebugTracingOptions) -> GethDebugTracingOptions {
        let mut options = options.clone();
        let asked = options.config.limit.filter(|limit| *limit > 0).unwrap_or(u64::MAX);
        options.config.limit = Some(asked.min(self.steps.saturating_add(1)));
        options
    }

    fn take(&mut self, trace: &Json) -> Result<(), RpcError> {
        let steps = trace.get("structLogs").and_then(Json::as_array).map_or(0, Vec::len) as u64;
        let left = (self.steps.checked_sub(steps), self.bytes.checked_sub(trace.to_string().len()));
        let (Some(steps), Some(bytes)) = left else {
            let message = format!(
                "the traces have more than {} steps or {} bytes, set a limit",
                Rpc::MAX_STEPS,
                Rpc::MAX_TRACE_BYTES
            );
            return Err(RpcError::limit(message));
        };
        *self = Self { steps, bytes };
        Ok(())
    }
}

fn inspector(options: GethDebugTracingOptions) -> Result<DebugInspector, RpcError> {
    let inspector = DebugInspector::new(options);
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

/// Executes under a tracer; returns the trace and the state after it, which is not applied.
fn traced(
    surroundings: &Surroundings,
    world: &mut World<'_>,
    call: TxEnv,
    options: &GethDebugTracingOptions,
    room: &mut Room,
    context: TransactionContext,
) -> Result<(Json, revm::state::EvmState), RpcError> {
    let mut inspector = inspector(room.bound(options))?;
    let executed = surroundings
        .inspect(world, call.clone(), &mut inspector)
        .map_err(|error| refused(error, &call, surroundings))?;
    let mut before = Before(RefCell::new(world));
    let trace = inspector
        .get_result(Some(context), &call, &surroundings.block, &executed, &mut before)
        .map_err(|error| RpcError::server(error.to_string()))?;
    let trace = to_json(&trace)?;
    room.take(&trace)?;
    Ok((trace, executed.state))
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
