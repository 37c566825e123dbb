//! The `/gov` frontend: CCF's versioned governance API.

mod apps;
mod members;
mod nodes;
mod proposals;
mod recovery;
mod request;
mod service;
mod state_digests;
mod transactions;

use std::sync::Arc;

use coco_adapter::{
    AuthnPolicy, Call, EndpointProperties, ErrorResponse, ForwardingRequired, Mode,
    RedirectionStrategy, Registry, Response,
};
use coco_script::ScriptEngine;
use http::Method;
use serde_json::json;

use self::request::{ApiVersion, require_version};
use crate::ServiceControl;

/// What the endpoints share.
struct Governance {
    control: Arc<dyn ServiceControl>,
    engine: Arc<ScriptEngine>,
}

/// The `/gov` frontend as a table of endpoints; paths have no `/gov` prefix. `engine` runs the
/// constitution and ballots.
pub fn governance_api(control: Arc<dyn ServiceControl>, engine: Arc<ScriptEngine>) -> Registry {
    let title = "CCF Governance API";
    let description = "Proposals and ballots of the members, and the governed state.";
    let mut endpoints = Endpoints {
        registry: Registry::new("gov", title, description),
        governance: Arc::new(Governance { control, engine }),
    };
    proposals::add_to(&mut endpoints);
    state_digests::add_to(&mut endpoints);
    recovery::add_to(&mut endpoints);
    service::add_to(&mut endpoints);
    members::add_to(&mut endpoints);
    nodes::add_to(&mut endpoints);
    apps::add_to(&mut endpoints);
    transactions::add_to(&mut endpoints);
    endpoints.registry
}

/// The table under construction.
struct Endpoints {
    registry: Registry,
    governance: Arc<Governance>,
}

type GovernanceHandler = fn(&Governance, &mut Call<'_>) -> Result<Response, ErrorResponse>;

impl Endpoints {
    /// A read that anybody may make, on any node.
    fn get(&mut self, path: &str, since: ApiVersion, summary: &str, handler: GovernanceHandler) {
        let properties = EndpointProperties {
            mode: Mode::ReadOnly,
            forwarding_required: ForwardingRequired::Sometimes,
            redirection_strategy: RedirectionStrategy::None,
            ..EndpointProperties::default()
        };
        self.add(Method::GET, path, since, properties, summary, handler);
    }

    /// A write signed by a member of any status.
    fn post(&mut self, path: &str, summary: &str, handler: GovernanceHandler) {
        self.signed(path, AuthnPolicy::MemberCoseSign1, false, summary, handler);
    }

    /// A write signed by an active member, which runs scripts.
    fn post_active(&mut self, path: &str, summary: &str, handler: GovernanceHandler) {
        self.signed(path, AuthnPolicy::ActiveMemberCoseSign1, true, summary, handler);
    }

    fn signed(
        &mut self,
        path: &str,
        policy: AuthnPolicy,
        long_running: bool,
        summary: &str,
        handler: GovernanceHandler,
    ) {
        let properties = EndpointProperties {
            authn_policies: vec![policy],
            waits_for_commit: true,
            long_running,
            ..EndpointProperties::default()
        };
        self.add(Method::POST, path, ApiVersion::Preview, properties, summary, handler);
    }

    fn add(
        &mut self,
        method: Method,
        path: &str,
        since: ApiVersion,
        properties: EndpointProperties,
        summary: &str,
        handler: GovernanceHandler,
    ) {
        let versions: Vec<_> =
            ApiVersion::ALL.iter().filter(|version| **version >= since).collect();
        let versions: Vec<_> = versions.into_iter().map(|version| version.as_str()).collect();
        let parameter = json!({
            "name": "api-version", "in": "query", "required": true,
            "schema": {"type": "string", "enum": versions},
        });
        let openapi = json!({"summary": summary, "parameters": [parameter]});
        let governance = self.governance.clone();
        let run = move |call: &mut Call<'_>| {
            require_version(call, since)?;
            handler(&governance, call)
        };
        #[expect(clippy::expect_used, reason = "the paths are literals of this crate")]
        self.registry
            .add(method, path, properties, openapi, run)
            .expect("every path of the frontend is a well-formed template");
    }
}
