//! Positional parameters.

use alloy_primitives::U256;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::RpcError;

/// The parameters of a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(Vec<Json>);

impl Params {
    /// Takes over the `params` member of a request.
    pub fn new(params: Option<Json>) -> Result<Self, RpcError> {
        match params {
            None | Some(Json::Null) => Ok(Self::default()),
            Some(Json::Array(values)) => Ok(Self(values)),
            Some(_) => Err(RpcError::invalid_params("non-array args")),
        }
    }

    /// A parameter that must be there.
    pub fn required<T: DeserializeOwned>(&self, index: usize) -> Result<T, RpcError> {
        self.optional(index)?.ok_or_else(|| {
            RpcError::invalid_params(format!("missing value for required argument {index}"))
        })
    }

    /// A parameter that may be left out, or be null.
    pub fn optional<T: DeserializeOwned>(&self, index: usize) -> Result<Option<T>, RpcError> {
        match self.0.get(index) {
            None | Some(Json::Null) => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|error| {
                RpcError::invalid_params(format!("invalid argument {index}: {error}"))
            }),
        }
    }

    /// A parameter as it was written.
    pub fn raw(&self, index: usize) -> Option<&Json> {
        self.0.get(index).filter(|value| !value.is_null())
    }
}

/// The key of a slot: up to 32 bytes of hex, of any length, as tools send it.
pub(crate) fn slot(text: &str) -> Result<U256, RpcError> {
    let digits = digits(text);
    if digits.len() > 64 {
        let message = format!("storage key too long (want at most 32 bytes): {text:?}");
        return Err(RpcError::invalid_params(message));
    }
    let digits = if digits.is_empty() { "0" } else { digits };
    U256::from_str_radix(digits, 16)
        .map_err(|_| RpcError::invalid_params(format!("invalid hex in storage key: {text:?}")))
}

/// Whether the key of a slot is written as 32 bytes.
pub(crate) fn is_whole_slot(text: &str) -> bool {
    digits(text).len() > 62
}

fn digits(text: &str) -> &str {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}
