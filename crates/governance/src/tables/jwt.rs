//! Token issuers and their keys.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::codec::{is_default, json_values};
use super::{Base64, Table, tables};

tables! {
    /// Name -> bundle of CA certificates, PEM.
    CA_CERT_BUNDLES: Table<String, String> = "public:ccf.gov.tls.ca_cert_bundles";
    /// Issuer -> how its keys are refreshed.
    JWT_ISSUERS: Table<String, JwtIssuer> = "public:ccf.gov.jwt.issuers";
    /// Key id -> the keys that issuers registered under it.
    JWT_PUBLIC_SIGNING_KEYS: Table<String, Vec<JwtKey>> =
        "public:ccf.gov.jwt.public_signing_keys_metadata_v2";
}

/// An issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JwtIssuer {
    /// Keys are fetched regularly from the issuer.
    #[serde(default)]
    pub auto_refresh: bool,
    /// The CA bundle that authenticates the issuer when they are fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_cert_bundle_name: Option<String>,
    /// Fields of older versions (`issuer`, `key_filter`).
    #[serde(flatten, skip_serializing_if = "is_default")]
    pub other: std::collections::BTreeMap<String, Json>,
}

/// A key that verifies tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwtKey {
    /// Public key, DER SubjectPublicKeyInfo.
    pub public_key: Base64,
    /// Who registered it.
    pub issuer: String,
    /// What a token's `iss` must match; absent means any issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
}

json_values!(JwtIssuer, Vec<JwtKey>);
