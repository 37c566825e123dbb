//! Errors as JSON-RPC tells them.

use alloy_primitives::{Bytes, hex};
use revm::context::result::{ExecutionResult, HaltReason, OutOfGasError};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{Refusal, StateError, TransactionSyntax};

/// The `error` object of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct RpcError {
    /// JSON-RPC's, Ethereum's or geth's code.
    pub code: i64,
    /// For people; geth's words where geth has any.
    pub message: String,
    /// The data of a revert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

impl RpcError {
    /// The code of what may be tried again as it is: nobody executes transactions just now.
    pub const UNAVAILABLE: i64 = -32002;

    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The request is not JSON.
    pub fn parse(message: impl Into<String>) -> Self {
        Self::new(-32700, message)
    }

    /// The JSON is not a request.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(-32600, message)
    }

    /// There is no such method.
    pub fn unknown_method(method: &str) -> Self {
        let message = format!("the method {method} does not exist/is not available");
        Self::new(-32601, message)
    }

    /// A parameter is wrong.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// The request is well formed but cannot be served.
    pub fn server(message: impl Into<String>) -> Self {
        Self::new(-32000, message)
    }

    /// Nobody executes transactions just now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Self::UNAVAILABLE, message)
    }

    /// A reply would be larger than allowed.
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(-32005, message)
    }

    /// The data that a contract reverted with, and the reason in it.
    pub fn reverted(output: &Bytes) -> Self {
        let reason = revert_reason(output);
        let message = match reason {
            Some(reason) => format!("execution reverted: {reason}"),
            None => "execution reverted".to_owned(),
        };
        Self { code: 3, message, data: Some(Json::String(hex::encode_prefixed(output))) }
    }

    /// What an execution that did not succeed is to its caller.
    pub fn of_result(result: &ExecutionResult) -> Option<Self> {
        match result {
            ExecutionResult::Success { .. } => None,
            ExecutionResult::Revert { output, .. } => Some(Self::reverted(output)),
            ExecutionResult::Halt { reason, .. } => Some(Self::server(halt_reason(reason))),
        }
    }
}

impl From<Refusal> for RpcError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::State(error) => error.into(),
            Refusal::Failed(message) => Self::new(-32603, message),
            Refusal::Unavailable => Self::unavailable(Refusal::Unavailable.to_string()),
            other => Self::server(other.to_string()),
        }
    }
}

impl From<TransactionSyntax> for RpcError {
    fn from(error: TransactionSyntax) -> Self {
        Self::server(error.to_string())
    }
}

impl From<StateError> for RpcError {
    fn from(error: StateError) -> Self {
        Self::new(-32603, error.to_string())
    }
}

/// A halt in geth's words.
pub(crate) fn halt_reason(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(OutOfGasError::Basic | OutOfGasError::Precompile) => {
            "out of gas".to_owned()
        }
        HaltReason::OutOfGas(_) => "out of gas".to_owned(),
        HaltReason::OpcodeNotFound => "invalid opcode".to_owned(),
        HaltReason::InvalidFEOpcode => "invalid opcode: INVALID".to_owned(),
        HaltReason::InvalidJump => "invalid jump destination".to_owned(),
        HaltReason::StackUnderflow => "stack underflow".to_owned(),
        HaltReason::StackOverflow => "stack limit reached 1024".to_owned(),
        HaltReason::OutOfOffset => "return data out of bounds".to_owned(),
        HaltReason::CreateCollision => "contract address collision".to_owned(),
        HaltReason::NonceOverflow => "nonce uint64 overflow".to_owned(),
        HaltReason::CreateContractSizeLimit => "max code size exceeded".to_owned(),
        HaltReason::CreateContractStartingWithEF => {
            "invalid code: must not begin with 0xef".to_owned()
        }
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded".to_owned(),
        HaltReason::StateChangeDuringStaticCall => "write protection".to_owned(),
        HaltReason::OutOfFunds => "insufficient balance for transfer".to_owned(),
        HaltReason::CallTooDeep => "max call depth exceeded".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The reason that Solidity packs into `Error(string)` or `Panic(uint256)`.
pub(crate) fn revert_reason(output: &[u8]) -> Option<String> {
    let (selector, body) = output.split_at_checked(4)?;
    let word = |at: usize| -> Option<usize> {
        let word = body.get(at..at.checked_add(32)?)?;
        let (high, low) = word.split_at(24);
        let low = u64::from_be_bytes(low.try_into().ok()?);
        high.iter().all(|byte| *byte == 0).then(|| usize::try_from(low).ok())?
    };
    match selector {
        [0x08, 0xc3, 0x79, 0xa0] => {
            let offset = word(0)?;
            let length = word(offset)?;
            let start = offset.checked_add(32)?;
            let text = body.get(start..start.checked_add(length)?)?;
            Some(String::from_utf8_lossy(text).into_owned())
        }
        [0x4e, 0x48, 0x7b, 0x71] => Some(match word(0)? {
            0x00 => "generic panic".to_owned(),
            0x01 => "assert(false)".to_owned(),
            0x11 => "arithmetic underflow or overflow".to_owned(),
            0x12 => "division or modulo by zero".to_owned(),
            0x21 => "enum overflow".to_owned(),
            0x22 => "invalid encoded storage byte array accessed".to_owned(),
            0x31 => "out-of-bounds array access; popping on an empty array".to_owned(),
            0x32 => "out-of-bounds access of an array or bytesN".to_owned(),
            0x41 => "out of memory".to_owned(),
            0x51 => "uninitialized function".to_owned(),
            code => format!("unknown panic code: {code:#x}"),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_from_what_solidity_packs() {
        let word = |value: u8| {
            let mut word = [0; 32];
            word[31] = value;
            word
        };
        let text = [&[0x08, 0xc3, 0x79, 0xa0][..], &word(32), &word(2), b"no"].concat();
        assert_eq!(revert_reason(&text).as_deref(), Some("no"));
        let panic = [&[0x4e, 0x48, 0x7b, 0x71][..], &word(1)].concat();
        assert_eq!(revert_reason(&panic).as_deref(), Some("assert(false)"));
        let cut = [&[0x08, 0xc3, 0x79, 0xa0][..], &[0xff; 64]].concat();
        assert_eq!(revert_reason(&cut), None);
        assert_eq!(revert_reason(&[]), None);
    }
}
