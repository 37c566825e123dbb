//! Accounts that the node keeps for participants: whoever has a certificate needs no wallet.
//!
//! A participant has one account. Its key is made in the enclave when it is first asked for, lies
//! in a private map and is never shown; the node signs with it for the participant alone, whom the
//! interface has authenticated. Nobody else's account is known here.

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::{SignableTransaction, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, eip191_hash_message};
use alloy_rpc_types_eth::TransactionRequest;
use coco_crypto::Digest;
use serde_json::json;

use super::send::Sent;
use super::{Answer, Params, Rpc, RpcError, to_json};
use crate::maps::KEYS;
use crate::{CommitRefusal, Refusal, SignedTransaction};

/// The account of a participant.
struct Kept {
    secret: B256,
    address: Address,
}

impl Kept {
    fn new(secret: B256) -> Result<Self, RpcError> {
        // What a signature recovers to is the address.
        let probe = TxLegacy::default();
        let signature = sign(secret, probe.signature_hash())?;
        let signed = SignedTransaction::new(probe.into_signed(signature).into());
        let address = signed.map_err(|error| RpcError::new(-32603, error.to_string()))?.sender();
        Ok(Self { secret, address })
    }

    /// Refuses to sign for another address, in geth's words.
    fn check(&self, address: Option<Address>) -> Result<(), RpcError> {
        let own = address.is_none_or(|address| address == self.address);
        if own { Ok(()) } else { Err(unknown_account()) }
    }
}

impl Rpc {
    /// Sends that may find their nonce taken by another one of the same participant.
    const MAX_NONCES: usize = 8;

    /// A method about the participant's own account.
    pub(super) async fn for_participant(
        &self,
        participant: Option<Digest>,
        method: &str,
        params: &Params,
    ) -> Answer {
        let Some(participant) = participant else {
            return if method == "eth_accounts" { Ok(json!([])) } else { Err(unknown_account()) };
        };
        let account = self.account_of(participant)?;
        match method {
            "eth_accounts" => Ok(json!([account.address])),
            "eth_sendTransaction" => to_json(&self.send_transaction(&account, params).await?.hash),
            "eth_signTransaction" => {
                let signed = self.sign_transaction(&account, params.required(0)?)?;
                let raw = Bytes::from(signed.envelope().encoded_2718());
                Ok(json!({"raw": raw, "tx": to_json(signed.envelope())?}))
            }
            "eth_sign" => {
                account.check(Some(params.required(0)?))?;
                let message: Bytes = params.required(1)?;
                let signature = sign(account.secret, eip191_hash_message(&message))?;
                to_json(&Bytes::from(signature.as_bytes().to_vec()))
            }
            _ => Err(RpcError::unknown_method(method)),
        }
    }

    /// Signs and sends for a participant.
    pub(super) async fn send_for(
        &self,
        participant: Option<Digest>,
        params: &Params,
    ) -> Result<Sent, RpcError> {
        let account = self.account_of(participant.ok_or_else(unknown_account)?)?;
        self.send_transaction(&account, params).await
    }

    async fn send_transaction(&self, account: &Kept, params: &Params) -> Result<Sent, RpcError> {
        let request: TransactionRequest = params.required(0)?;
        let mut refusal = Refusal::Contended;
        for _ in 0..Self::MAX_NONCES {
            let signed = self.sign_transaction(account, request.clone())?;
            let (hash, raw) = (signed.hash(), Some(signed.to_bytes()));
            match self.submit_with_patience(signed).await {
                Ok(executed) => return Ok(Sent { hash, raw, executed }),
                Err(used) if request.nonce.is_none() && used.is_used_nonce() => refusal = used,
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(refusal.into())
    }

    fn sign_transaction(
        &self,
        account: &Kept,
        mut request: TransactionRequest,
    ) -> Result<SignedTransaction, RpcError> {
        account.check(request.from)?;
        request.from = Some(account.address);
        let envelope = self.filled(request, |hash| sign(account.secret, hash))?;
        // As if it had come signed: what is refused there is refused here.
        SignedTransaction::from_wire(&envelope.encoded_2718()).map_err(RpcError::from)
    }

    fn account_of(&self, participant: Digest) -> Result<Kept, RpcError> {
        loop {
            let mut tx = self.node.begin();
            if let Some(secret) = tx.get(&KEYS, &participant.0) {
                let bad = || RpcError::new(-32603, "the key of the account is not readable");
                return Kept::new(B256::try_from(&*secret).map_err(|_| bad())?);
            }
            let secret = self.node.randomness();
            let account = Kept::new(secret)?;
            tx.put(&KEYS, participant.0, secret.0);
            match self.node.commit(tx, Digest::ZERO) {
                Ok(_) => return Ok(account),
                // It was asked for twice at once.
                Err(CommitRefusal::Conflict) => {}
                Err(CommitRefusal::Unavailable) => return Err(Refusal::Unavailable.into()),
                Err(refusal) => return Err(RpcError::server(refusal.to_string())),
            }
        }
    }
}

fn sign(secret: B256, hash: B256) -> Result<Signature, RpcError> {
    sign_message(secret, hash).map_err(|error| RpcError::new(-32603, error.to_string()))
}

fn unknown_account() -> RpcError {
    RpcError::server("unknown account")
}
