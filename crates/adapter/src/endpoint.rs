//! What an endpoint declares about itself: CCF's endpoint properties.

use serde::{Deserialize, Serialize};

/// How an endpoint uses the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// May write.
    #[default]
    ReadWrite,
    /// Only reads; runs on any node.
    ReadOnly,
    /// Reads the state of the past transaction named by `x-ms-ccf-transaction-id`.
    Historical,
}

/// When a backup passes a request on to the primary, on an interface that does not redirect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardingRequired {
    /// Always.
    #[default]
    Always,
    /// When the endpoint may write, the session was forwarded before, or the backup does not have
    /// what the session has seen.
    Sometimes,
    /// Never: every node answers by itself, and a backup refuses to write.
    Never,
}

/// Where a client is redirected on an interface that redirects instead of forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RedirectionStrategy {
    /// Not redirected.
    None,
    /// To the primary.
    #[default]
    ToPrimary,
    /// To a backup.
    ToBackup,
}

/// One way for a caller to authenticate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthnPolicy {
    /// A TLS client certificate of a registered participant.
    UserCert,
    /// A TLS client certificate of a member.
    MemberCert,
    /// Any TLS client certificate within its validity.
    AnyCert,
    /// A bearer token signed by a registered issuer.
    Jwt,
    /// A body signed by a participant.
    UserCoseSign1,
    /// A body signed by a member, for governance.
    MemberCoseSign1,
    /// A body signed by an active member, for governance.
    ActiveMemberCoseSign1,
    /// The TLS certificate of a trusted node.
    NodeCert,
    /// Nobody in particular, said explicitly.
    NoAuth,
    /// Every listed policy at once.
    AllOf(Vec<AuthnPolicy>),
}

impl AuthnPolicy {
    /// The policy's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UserCert => "user_cert",
            Self::MemberCert => "member_cert",
            Self::AnyCert => "any_cert",
            Self::Jwt => "jwt",
            Self::UserCoseSign1 => "user_cose_sign1",
            Self::MemberCoseSign1 => "member_cose_sign1",
            Self::ActiveMemberCoseSign1 => "active_member_cose_sign1",
            Self::NodeCert => "node_cert",
            Self::NoAuth => "no_auth",
            Self::AllOf(_) => "all_of",
        }
    }
}

/// What the enclave must know about an endpoint before it executes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointProperties {
    /// How it uses the store.
    pub mode: Mode,
    /// When a backup forwards it.
    pub forwarding_required: ForwardingRequired,
    /// Where it is redirected.
    pub redirection_strategy: RedirectionStrategy,
    /// The policies tried in order; the first that passes wins. Empty: everybody may call.
    pub authn_policies: Vec<AuthnPolicy>,
    /// The reply waits for commit even when the client did not ask (governance writes).
    pub waits_for_commit: bool,
    /// May run long (an interpreter): executed where it cannot hold up other sessions.
    pub long_running: bool,
}
