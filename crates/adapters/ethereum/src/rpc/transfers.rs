//! Logs of a simulated call, with transfers of ether shown as if they were logged.

use alloy_primitives::{Address, B256, Bytes, Log, LogData, U256, address, b256};
use revm::Inspector;
use revm::interpreter::{
    CallInputs, CallOutcome, CallScheme, CreateInputs, CreateOutcome, Interpreter, InterpreterTypes,
};

/// Who "logs" transfers of ether.
const ETHER: Address = address!("eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
/// `Transfer(address,address,uint256)`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Collects logs in order, without those of frames that reverted.
#[derive(Debug, Default)]
pub(super) struct TransferLogs {
    transfers: bool,
    logs: Vec<Log>,
    // How many logs there were when each open frame began.
    frames: Vec<usize>,
}

impl TransferLogs {
    pub(super) fn new(transfers: bool) -> Self {
        Self { transfers, ..Self::default() }
    }

    pub(super) fn into_logs(self) -> Vec<Log> {
        self.logs
    }

    fn transfer(&mut self, from: Address, to: Address, value: U256) {
        if self.transfers && !value.is_zero() {
            let topics = vec![TRANSFER, from.into_word(), to.into_word()];
            let data = Bytes::from(value.to_be_bytes::<32>());
            self.logs.push(Log { address: ETHER, data: LogData::new_unchecked(topics, data) });
        }
    }

    fn end(&mut self, success: bool) {
        let before = self.frames.pop().unwrap_or_default();
        if !success {
            self.logs.truncate(before);
        }
    }
}

impl<CTX, INTR: InterpreterTypes> Inspector<CTX, INTR> for TransferLogs {
    fn log(&mut self, _context: &mut CTX, log: Log) {
        self.logs.push(log);
    }

    fn log_full(&mut self, _interpreter: &mut Interpreter<INTR>, _context: &mut CTX, log: Log) {
        self.logs.push(log);
    }

    fn call(&mut self, _context: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.frames.push(self.logs.len());
        if matches!(inputs.scheme, CallScheme::Call | CallScheme::CallCode) {
            let value = inputs.transfer_value().unwrap_or_default();
            self.transfer(inputs.caller, inputs.target_address, value);
        }
        None
    }

    fn call_end(&mut self, _context: &mut CTX, _inputs: &CallInputs, outcome: &mut CallOutcome) {
        self.end(outcome.result.result.is_ok());
    }

    fn create(&mut self, _context: &mut CTX, _inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.frames.push(self.logs.len());
        None
    }

    fn create_end(
        &mut self,
        _context: &mut CTX,
        inputs: &CreateInputs,
        outcome: &mut CreateOutcome,
    ) {
        // The address is known only now; the transfer came before all that the code logged.
        let before = self.frames.last().copied().unwrap_or_default();
        self.end(outcome.result.result.is_ok());
        if let Some(address) = outcome.address.filter(|_| outcome.result.result.is_ok()) {
            let inner = self.logs.split_off(before.min(self.logs.len()));
            self.transfer(inputs.caller(), address, inputs.value());
            self.logs.extend(inner);
        }
    }

    fn selfdestruct(&mut self, contract: Address, target: Address, value: U256) {
        self.transfer(contract, target, value);
    }
}
