//! The EVM over a [`World`].

use alloy_primitives::{Address, Bytes};
use revm::context::result::{EVMError, ResultAndState};
use revm::context::{BlockEnv, CfgEnv, Evm, TxEnv};
use revm::context_interface::FrameStack;
use revm::handler::instructions::EthInstructions;
use revm::handler::{EthPrecompiles, MainnetEvm, PrecompileProvider};
use revm::interpreter::{CallInputs, InterpreterResult};
use revm::primitives::hardfork::SpecId;
use revm::primitives::{AddressMap, AddressSet};
use revm::{Context, ExecuteEvm, InspectEvm, Inspector, MainBuilder, MainContext, SystemCallEvm};

use crate::{StateError, World};

/// Why an execution has no result. A revert or running out of gas is a result.
pub type ExecutionError = EVMError<StateError>;

/// What the EVM calls while it runs, over a world: the type that inspectors see.
pub type EvmContext<'a, 'b> =
    Context<BlockEnv, TxEnv, CfgEnv, &'a mut World<'b>, revm::Journal<&'a mut World<'b>>, ()>;

/// The rules and the block that an execution runs under.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Fork, chain id, what is checked.
    pub rules: CfgEnv,
    /// Number, time, fees.
    pub block: BlockEnv,
    /// Those of the fork where they belong, if none.
    pub(crate) precompiles: Option<MovedPrecompiles>,
}

impl Surroundings {
    /// With the precompiled contracts of the fork.
    pub fn new(rules: CfgEnv, block: BlockEnv) -> Self {
        Self { rules, block, precompiles: None }
    }

    /// The fork.
    pub fn spec(&self) -> SpecId {
        self.rules.spec
    }

    /// Executes a transaction; nothing is written.
    pub fn execute(
        &self,
        world: &mut World<'_>,
        transaction: TxEnv,
    ) -> Result<ResultAndState, ExecutionError> {
        world.set_sender(transaction.caller);
        match &self.precompiles {
            None => self.evm(world).transact(transaction),
            Some(moved) => self.evm(world).with_precompiles(moved.clone()).transact(transaction),
        }
    }

    /// Executes a transaction under the eyes of an inspector; nothing is written.
    pub fn inspect<'a, 'b, I>(
        &self,
        world: &'a mut World<'b>,
        transaction: TxEnv,
        inspector: I,
    ) -> Result<ResultAndState, ExecutionError>
    where
        I: Inspector<EvmContext<'a, 'b>>,
    {
        world.set_sender(transaction.caller);
        let mut evm = self.context(world).build_mainnet_with_inspector(inspector);
        match &self.precompiles {
            None => evm.inspect_tx(transaction),
            Some(moved) => evm.with_precompiles(moved.clone()).inspect_tx(transaction),
        }
    }

    /// Calls a system contract as the system; nothing is written.
    pub fn call_as_system(
        &self,
        world: &mut World<'_>,
        contract: Address,
        data: Bytes,
    ) -> Result<ResultAndState, ExecutionError> {
        let mut call = self.clone();
        call.block.beneficiary = Address::ZERO;
        call.block.basefee = 0;
        call.block.gas_limit = u64::MAX;
        call.rules.tx_gas_limit_cap = Some(u64::MAX);
        call.evm(world).system_call(contract, data)
    }

    /// The number of the block.
    pub fn number(&self) -> u64 {
        self.block.number.saturating_to()
    }

    /// The time of the block, seconds since 1970.
    pub fn timestamp(&self) -> u64 {
        self.block.timestamp.saturating_to()
    }

    /// As `build_mainnet` makes it, but with the frames of calls made when they are called: each
    /// takes 32 KiB.
    fn evm<'a, 'b>(&self, world: &'a mut World<'b>) -> MainnetEvm<EvmContext<'a, 'b>> {
        Evm {
            ctx: self.context(world),
            inspector: (),
            instruction: EthInstructions::new_mainnet_with_spec(self.spec()),
            precompiles: EthPrecompiles::new(self.spec()),
            frame_stack: FrameStack::new(),
        }
    }

    fn context<'a, 'b>(&self, world: &'a mut World<'b>) -> EvmContext<'a, 'b> {
        Context::mainnet()
            .with_db(world)
            .with_cfg(self.rules.clone())
            .with_block(self.block.clone())
    }
}

/// The precompiled contracts of a fork, some at other addresses than their own or at none.
#[derive(Clone, Debug)]
pub(crate) struct MovedPrecompiles {
    all: EthPrecompiles,
    own_address: AddressMap<Address>,
}

impl MovedPrecompiles {
    /// All of a fork, each at its own address.
    pub(crate) fn new(spec: SpecId) -> Self {
        let all = EthPrecompiles::new(spec);
        let addresses = all.warm_addresses().iter();
        let own_address = addresses.map(|address| (*address, *address)).collect();
        Self { all, own_address }
    }

    /// Takes the one at an address away; it may be put elsewhere.
    pub(crate) fn take(&mut self, address: Address) -> Option<Address> {
        self.own_address.remove(&address)
    }

    /// Puts one that was taken to an address.
    pub(crate) fn put(&mut self, address: Address, taken: Address) {
        self.own_address.insert(address, taken);
    }
}

impl<'a, 'b> PrecompileProvider<EvmContext<'a, 'b>> for MovedPrecompiles {
    type Output = InterpreterResult;

    fn set_spec(&mut self, _spec: SpecId) -> bool {
        false
    }

    fn run(
        &mut self,
        context: &mut EvmContext<'a, 'b>,
        inputs: &CallInputs,
    ) -> Result<Option<InterpreterResult>, String> {
        let Some(own_address) = self.own_address.get(&inputs.bytecode_address) else {
            return Ok(None);
        };
        let inputs = CallInputs { bytecode_address: *own_address, ..inputs.clone() };
        self.all.run(context, &inputs)
    }

    /// Those of the fork, wherever they are: moving changes no prices.
    fn warm_addresses(&self) -> &AddressSet {
        self.all.warm_addresses()
    }

    fn contains(&self, address: &Address) -> bool {
        self.own_address.contains_key(address)
    }
}
