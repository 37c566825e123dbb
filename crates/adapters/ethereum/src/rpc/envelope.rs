//! The envelope that a request describes.

use std::convert::Infallible;

use alloy_consensus::transaction::RlpEcdsaEncodableTx;
use alloy_consensus::{
    SignableTransaction, Signed, TxEip1559, TxEip2930, TxEip4844, TxEip4844Variant, TxEip7702,
    TxEnvelope, TxLegacy,
};
use alloy_primitives::{B256, Bytes, Signature, TxKind, U256};
use alloy_rpc_types_eth::TransactionRequest;

use super::RpcError;
use crate::TransactionSyntax;

/// Refuses, in geth's words, what no transaction can be made of that the chain carries.
pub(super) fn check(request: &TransactionRequest) -> Result<(), RpcError> {
    if request.has_eip4844_blob_data() {
        return Err(TransactionSyntax::UnsupportedType.into());
    }
    let input = &request.input;
    if input.input.is_some() && input.data.is_some() && input.input != input.data {
        return Err(RpcError::server(
            "both \"data\" and \"input\" are set and not equal. Please use \"input\" to pass \
             transaction call data",
        ));
    }
    if request.to.and_then(TxKind::into_to).is_none() {
        if request.authorization_list.is_some() {
            return Err(RpcError::server("missing \"to\" in a transaction with authorizations"));
        }
        if input.input().is_none_or(|input| input.is_empty()) {
            return Err(RpcError::server("contract creation without any data provided"));
        }
    }
    check_fees(request)
}

/// Refuses fees that contradict each other.
pub(super) fn check_fees(request: &TransactionRequest) -> Result<(), RpcError> {
    let (most, tip) = (request.max_fee_per_gas, request.max_priority_fee_per_gas);
    if request.gas_price.is_some() && (most.is_some() || tip.is_some()) {
        let message = "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified";
        return Err(RpcError::invalid_params(message));
    }
    if let (Some(most), Some(tip)) = (most, tip)
        && most < tip
    {
        let message = format!("maxFeePerGas ({most:#x}) < maxPriorityFeePerGas ({tip:#x})");
        return Err(RpcError::server(message));
    }
    Ok(())
}

/// A legacy transaction that nobody has signed, in geth's way: with zeros for the signature, which
/// name no chain.
pub(super) fn unsigned_legacy(transaction: &TxLegacy) -> Bytes {
    let signature = [alloy_rlp::EMPTY_STRING_CODE; 3];
    let payload_length = transaction.rlp_encoded_fields_length() + signature.len();
    let mut raw = Vec::with_capacity(payload_length + 9);
    alloy_rlp::Header { list: true, payload_length }.encode(&mut raw);
    transaction.rlp_encode_fields(&mut raw);
    raw.extend(signature);
    raw.into()
}

/// The envelope with a signature of zeros.
pub(super) fn unsigned(
    request: &TransactionRequest,
    nonce: u64,
    gas_limit: u64,
    chain_id: u64,
) -> TxEnvelope {
    let nobody = |_| Ok::<_, Infallible>(Signature::new(U256::ZERO, U256::ZERO, false));
    let Ok(envelope) = signed(request, nonce, gas_limit, chain_id, nobody);
    envelope
}

/// The envelope, signed: of an EIP-1559 transaction unless the request says otherwise.
pub(super) fn signed<E>(
    request: &TransactionRequest,
    nonce: u64,
    gas_limit: u64,
    chain_id: u64,
    sign: impl FnOnce(B256) -> Result<Signature, E>,
) -> Result<TxEnvelope, E> {
    let to = request.to.unwrap_or(TxKind::Create);
    let value = request.value.unwrap_or_default();
    let input = request.input.input().cloned().unwrap_or_default();
    let access_list = request.access_list.clone().unwrap_or_default();
    let max_fee_per_gas = request.max_fee_per_gas.unwrap_or_default();
    let max_priority_fee_per_gas = request.max_priority_fee_per_gas.unwrap_or_default();
    let called = to.to().copied().unwrap_or_default();
    if let Some(authorization_list) = request.authorization_list.clone() {
        let transaction = TxEip7702 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: called,
            value,
            access_list,
            authorization_list,
            input,
        };
        return with_signature(transaction, sign);
    }
    if let Some(blob_versioned_hashes) = request.blob_versioned_hashes.clone() {
        let transaction: TxEip4844Variant = TxEip4844Variant::TxEip4844(TxEip4844 {
            chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: called,
            value,
            access_list,
            blob_versioned_hashes,
            max_fee_per_blob_gas: request.max_fee_per_blob_gas.unwrap_or_default(),
            input,
        });
        return with_signature(transaction, sign);
    }
    match request.gas_price {
        Some(gas_price) if request.access_list.is_some() => {
            let transaction =
                TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input };
            with_signature(transaction, sign)
        }
        Some(gas_price) => {
            let chain_id = Some(chain_id);
            let transaction = TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input };
            with_signature(transaction, sign)
        }
        None => {
            let transaction = TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to,
                value,
                access_list,
                input,
            };
            with_signature(transaction, sign)
        }
    }
}

fn with_signature<T, E>(
    transaction: T,
    sign: impl FnOnce(B256) -> Result<Signature, E>,
) -> Result<TxEnvelope, E>
where
    T: SignableTransaction<Signature>,
    TxEnvelope: From<Signed<T>>,
{
    let signature = sign(transaction.signature_hash())?;
    Ok(transaction.into_signed(signature).into())
}
