//! Why a transaction is not executed, in geth's words.

use std::fmt;

use alloy_primitives::Address;
use revm::context::TxEnv;
use revm::context::result::{EVMError, InvalidTransaction};

use crate::{ExecutionError, StateError};

/// A transaction that leaves no trace on the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was executed before, or waits already.
    #[error("already known")]
    AlreadyKnown,
    /// It is signed for another chain.
    #[error("invalid sender: invalid chain id for signer: have {have} want {want}")]
    WrongChain {
        /// The chain it names.
        have: u64,
        /// This one.
        want: u64,
    },
    /// It names no chain.
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// Another transaction with its nonce waits and pays as much or nearly.
    #[error("replacement transaction underpriced")]
    Underpriced,
    /// Its nonce leaves a gap, and so many of its sender's transactions wait already, or its nonce
    /// is too far away, that it is not kept.
    #[error("nonce too high: address {sender}, tx: {nonce} state: {next}")]
    GapTooWide {
        /// The sender.
        sender: Address,
        /// The transaction's.
        nonce: u64,
        /// The sender's next.
        next: u64,
    },
    /// Too many transactions of all senders wait for earlier ones.
    #[error("txpool is full")]
    PoolFull,
    /// Others changed what it reads, again and again, before it could be committed.
    #[error("transaction could not be committed among conflicting ones, send it again")]
    Contended,
    /// More transactions wait for the disk than this node keeps.
    #[error("txpool is full: too many transactions wait to be committed, send it again")]
    Busy,
    /// It changes more than one transaction may.
    #[error("the transaction writes {bytes} bytes, more than the ledger takes in one transaction")]
    TooLarge {
        /// What it writes.
        bytes: u64,
    },
    /// This node stops, or is not the primary.
    #[error("this node takes no transactions now")]
    Unavailable,
    /// The EVM's own rules.
    #[error("{0}")]
    Invalid(Box<Invalid>),
    /// The fault is not the transaction's.
    #[error(transparent)]
    State(#[from] StateError),
    /// The EVM reports what it never should.
    #[error("execution failed: {0}")]
    Failed(String),
}

/// A transaction that breaks a rule, with what geth tells about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The rule.
    pub rule: InvalidTransaction,
    sender: Address,
    max_fee: u128,
    priority_fee: u128,
    base_fee: u64,
    data_bytes: usize,
    nonce: u64,
}

impl Refusal {
    /// What an execution that has no result says of its transaction.
    pub(crate) fn of(error: ExecutionError, transaction: &TxEnv, base_fee: u64) -> Self {
        match error {
            EVMError::Transaction(rule) => Self::Invalid(Box::new(Invalid {
                rule,
                sender: transaction.caller,
                max_fee: transaction.gas_price,
                priority_fee: transaction.gas_priority_fee.unwrap_or_default(),
                base_fee,
                data_bytes: transaction.data.len(),
                nonce: transaction.nonce,
            })),
            EVMError::Database(error) => Self::State(error),
            other => Self::Failed(other.to_string()),
        }
    }

    /// Whether its sender has used its nonce before, perhaps for this very transaction.
    pub(crate) fn is_used_nonce(&self) -> bool {
        let Self::Invalid(invalid) = self else { return false };
        matches!(invalid.rule, InvalidTransaction::NonceTooLow { .. })
    }

    /// Whether the same transaction may well be executed a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Contended | Self::Unavailable | Self::State(_))
    }

    /// The nonce the sender should have used, if the one used is too high.
    pub fn gap(&self) -> Option<u64> {
        let Self::Invalid(invalid) = self else { return None };
        match invalid.rule {
            InvalidTransaction::NonceTooHigh { state, .. } => Some(state),
            _ => None,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use InvalidTransaction as Rule;
        let Self { sender, max_fee, priority_fee, base_fee, nonce, .. } = self;
        match &self.rule {
            Rule::PriorityFeeGreaterThanMaxFee => write!(
                f,
                "max priority fee per gas higher than max fee per gas: address {sender}, \
                 maxPriorityFeePerGas: {priority_fee}, maxFeePerGas: {max_fee}"
            ),
            Rule::GasPriceLessThanBasefee => write!(
                f,
                "max fee per gas less than block base fee: address {sender}, \
                 maxFeePerGas: {max_fee}, baseFee: {base_fee}"
            ),
            Rule::CallerGasLimitMoreThanBlock => write!(f, "exceeds block gas limit"),
            Rule::CallGasCostMoreThanGasLimit { initial_gas, gas_limit } => {
                write!(f, "intrinsic gas too low: gas {gas_limit}, minimum needed {initial_gas}")
            }
            Rule::GasFloorMoreThanGasLimit { gas_floor, gas_limit } => write!(
                f,
                "insufficient gas for floor data gas cost: gas {gas_limit}, \
                 minimum needed {gas_floor}"
            ),
            Rule::RejectCallerWithCode => write!(f, "sender not an eoa: address {sender}"),
            Rule::LackOfFundForMaxFee { fee, balance } => write!(
                f,
                "insufficient funds for gas * price + value: balance {balance}, tx cost {fee}, \
                 overshot {}",
                fee.saturating_sub(**balance)
            ),
            Rule::OverflowPaymentInTransaction => {
                write!(f, "max fee per gas higher than 2^256-1: address {sender}")
            }
            Rule::NonceOverflowInTransaction => {
                write!(f, "nonce has max value: address {sender}, nonce: {nonce}")
            }
            Rule::NonceTooHigh { tx, state } => {
                write!(f, "nonce too high: address {sender}, tx: {tx} state: {state}")
            }
            Rule::NonceTooLow { tx, state } => {
                write!(f, "nonce too low: next nonce {state}, tx nonce {tx}")
            }
            Rule::CreateInitCodeSizeLimit => {
                write!(f, "max initcode size exceeded: code size {}", self.data_bytes)
            }
            Rule::TxGasLimitGreaterThanCap { gas_limit, cap } => {
                write!(f, "transaction gas limit too high (cap: {cap}, tx: {gas_limit})")
            }
            Rule::AccessListNotSupported
            | Rule::MaxFeePerBlobGasNotSupported
            | Rule::BlobVersionedHashesNotSupported
            | Rule::AuthorizationListNotSupported
            | Rule::Eip2930NotSupported
            | Rule::Eip1559NotSupported
            | Rule::Eip4844NotSupported
            | Rule::Eip7702NotSupported
            | Rule::Eip7873NotSupported => write!(f, "transaction type not supported"),
            Rule::EmptyAuthorizationList => {
                write!(f, "EIP-7702 transaction with empty auth list (sender {sender})")
            }
            other => write!(f, "{other}"),
        }
    }
}
