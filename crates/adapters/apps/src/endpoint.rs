//! What an application declares of an endpoint, as `app.json` and the store have it.

use coco_adapter::{
    AuthnPolicy, EndpointProperties, ForwardingRequired, Mode, RedirectionStrategy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// An endpoint's properties. Fields of newer versions are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The module that exports the function; with or without a leading slash.
    pub js_module: String,
    /// The exported function.
    pub js_function: String,
    /// How it uses the store.
    #[serde(default)]
    pub mode: Mode,
    /// When a backup forwards it.
    pub forwarding_required: ForwardingRequired,
    /// Where it is redirected.
    #[serde(default)]
    pub redirection_strategy: RedirectionStrategy,
    /// The policies tried in order.
    #[serde(default)]
    pub authn_policies: Vec<AuthnPolicy>,
    /// Its Operation Object.
    #[serde(default, skip_serializing_if = "Json::is_null")]
    pub openapi: Json,
    /// Leaves it out of the OpenAPI document.
    #[serde(default)]
    pub openapi_hidden: bool,
    /// Requests with equal keys may share a live interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter_reuse: Option<InterpreterReuse>,
}

/// Which interpreter a request may share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterReuse {
    /// Chosen by the application.
    pub key: String,
}

/// An endpoint's properties are unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not JSON, or not of the right form.
    #[error("{0}")]
    Syntax(String),
    /// Applications may not use this policy.
    #[error("authentication policy {0:?} is not available to applications")]
    Policy(&'static str),
    /// No module or function is named.
    #[error("js_module and js_function must not be empty")]
    NoFunction,
}

impl Endpoint {
    /// Reads an endpoint's properties.
    pub fn parse(json: &[u8]) -> Result<Self, EndpointError> {
        let parsed: serde_json::Result<Self> = serde_json::from_slice(json);
        let endpoint = parsed.map_err(|error| EndpointError::Syntax(error.to_string()))?;
        if endpoint.js_module.is_empty() || endpoint.js_function.is_empty() {
            return Err(EndpointError::NoFunction);
        }
        endpoint.authn_policies.iter().try_for_each(|policy| check_policy(policy, false))?;
        Ok(endpoint)
    }

    /// What the enclave must know of it.
    pub(crate) fn properties(&self) -> EndpointProperties {
        EndpointProperties {
            mode: self.mode,
            forwarding_required: self.forwarding_required,
            redirection_strategy: self.redirection_strategy,
            authn_policies: self.authn_policies.clone(),
            waits_for_commit: false,
            long_running: true,
        }
    }
}

fn check_policy(policy: &AuthnPolicy, nested: bool) -> Result<(), EndpointError> {
    match policy {
        AuthnPolicy::UserCert
        | AuthnPolicy::MemberCert
        | AuthnPolicy::AnyCert
        | AuthnPolicy::Jwt
        | AuthnPolicy::UserCoseSign1
        | AuthnPolicy::NoAuth => Ok(()),
        AuthnPolicy::AllOf(all) if !nested && !all.is_empty() => {
            all.iter().try_for_each(|policy| check_policy(policy, true))
        }
        other => Err(EndpointError::Policy(other.name())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(field: &str, value: Json) -> Result<Endpoint, EndpointError> {
        let mut json = json!({
            "js_module": "a.js", "js_function": "f", "forwarding_required": "never",
        });
        json[field] = value;
        Endpoint::parse(json.to_string().as_bytes())
    }

    #[test]
    fn properties_have_ccfs_names_and_defaults() {
        let endpoint = with("mode", json!("readonly")).unwrap();
        assert_eq!(endpoint.mode, Mode::ReadOnly);
        assert_eq!(endpoint.redirection_strategy, RedirectionStrategy::ToPrimary);
        assert!(endpoint.properties().long_running);
        let policies = json!(["user_cert", {"all_of": ["jwt", "member_cert"]}, "no_auth"]);
        let all = AuthnPolicy::AllOf(vec![AuthnPolicy::Jwt, AuthnPolicy::MemberCert]);
        assert_eq!(
            with("authn_policies", policies).unwrap().authn_policies,
            [AuthnPolicy::UserCert, all, AuthnPolicy::NoAuth],
        );
        let reuse = with("interpreter_reuse", json!({"key": "k"})).unwrap().interpreter_reuse;
        assert_eq!(reuse.unwrap().key, "k");
    }

    #[test]
    fn malformed_properties_are_refused() {
        assert!(matches!(with("mode", json!("sometimes")), Err(EndpointError::Syntax(_))));
        assert!(matches!(with("forwarding_required", json!(null)), Err(EndpointError::Syntax(_))));
        assert_eq!(with("js_function", json!("")), Err(EndpointError::NoFunction));
        assert!(matches!(with("authn_policies", json!(["magic"])), Err(EndpointError::Syntax(_))));
        for policy in ["member_cose_sign1", "node_cert"] {
            let refused = with("authn_policies", json!([policy]));
            assert_eq!(refused, Err(EndpointError::Policy(policy)));
        }
        let nested = json!([{"all_of": [{"all_of": ["jwt"]}]}]);
        assert_eq!(with("authn_policies", nested), Err(EndpointError::Policy("all_of")));
        assert!(Endpoint::parse(b"{").is_err());
    }
}
