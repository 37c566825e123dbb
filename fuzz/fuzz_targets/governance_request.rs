//! What a member signs: the header and the body of a COSE message to `/gov`, which get past the
//! signature because it is a real member's.
#![no_main]

#[path = "../../crates/governance/tests/service/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::cell::RefCell;

use harness::{Message, NOW_S, Service, YES};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value as Json, json};

/// So often the service begins anew: proposals that are taken stay in it.
const INPUTS: u32 = 2_000;

struct Played {
    service: Service,
    proposal: String,
    inputs: u32,
}

impl Played {
    fn begin() -> Self {
        let service = Service::active();
        let actions = json!([{"name": "set_js_runtime_options", "args": {
            "max_heap_bytes": 10_485_760, "max_stack_bytes": 1_048_576,
            "max_execution_time_ms": 1000}}]);
        let proposed = service.propose(actions).expect(200).json();
        let proposal = proposed["proposalId"].as_str().unwrap().to_owned();
        Self { service, proposal, inputs: 0 }
    }

    /// One body as a proposal, as a ballot and as an acknowledged digest; and as header.
    fn play(&mut self, body: &[u8]) {
        self.inputs += 1;
        let create = "/members/proposals:create";
        let proposed = self.post(0, "proposal", None, create, body);
        if let Some(id) = proposed["proposalId"].as_str() {
            let yes = json!({"ballot": YES}).to_string();
            for member in [0, 1] {
                let path = self.ballot_path(member, id);
                self.post(member, "ballot", Some(id), &path, yes.as_bytes());
            }
        }
        let proposal = self.proposal.clone();
        let path = self.ballot_path(0, &proposal);
        self.post(0, "ballot", Some(&proposal), &path, body);
        let path = format!("/members/state-digests/{}:ack", self.service.members[1].id);
        self.post(1, "ack", None, &path, body);
        if let Ok(text) = std::str::from_utf8(body) {
            self.post(0, text, Some(text), create, b"{}");
        }
    }

    fn ballot_path(&self, member: usize, proposal: &str) -> String {
        let id = self.service.members[member].id;
        format!("/members/proposals/{proposal}/ballots/{id}:submit")
    }

    /// All at the same second, so that the clock never runs ahead of the node's.
    fn post(&self, who: usize, kind: &str, of: Option<&str>, path: &str, body: &[u8]) -> Json {
        let message = Message {
            message_type: Some(kind),
            created_at_s: Some(NOW_S as u64 + 60),
            proposal: of.map(str::to_owned),
            body: body.to_vec(),
        };
        self.service.post_signed(path, &self.service.members[who].sign(&message)).json()
    }
}

thread_local! {
    static PLAYED: RefCell<Played> = RefCell::new(Played::begin());
}

/// One proposal for each action of a member, and a ballot.
fn seeds() -> Vec<String> {
    let pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let endpoint = json!({"js_module": "a.js", "js_function": "f", "mode": "readonly",
        "forwarding_required": "never", "authn_policies": ["no_auth"], "openapi": {}});
    let bundle = json!({"metadata": {"endpoints": {"/a": {"get": endpoint}}},
        "modules": [{"name": "a.js", "module": "export function f() { return {body: 1}; }"}]});
    let jwks = json!({"keys": [{"kid": "a", "kty": "RSA", "n": "AQAB", "e": "AQAB",
        "x5c": ["MIIB"]}]});
    let actions: [(&str, Json); 16] = [
        ("set_member", json!({"cert": pem, "encryption_pub_key": pem, "member_data": {"a": 1}})),
        ("remove_member", json!({"member_id": "ab"})),
        ("set_member_data", json!({"member_id": "ab", "member_data": null})),
        ("set_user", json!({"cert": pem, "user_data": [1]})),
        ("remove_user", json!({"user_id": "ab"})),
        ("set_user_data", json!({"user_id": "ab", "user_data": "x"})),
        ("set_recovery_threshold", json!({"recovery_threshold": 1})),
        ("set_constitution", json!({"constitution": "export function validate() {}"})),
        ("set_js_app", json!({"bundle": bundle, "disable_bytecode_cache": true})),
        ("remove_js_app", Json::Null),
        ("set_jwt_issuer", json!({"issuer": "https://a", "auto_refresh": false, "jwks": jwks})),
        ("set_jwt_public_signing_keys", json!({"issuer": "https://a", "jwks": jwks})),
        ("set_ca_cert_bundle", json!({"name": "a", "cert_bundle": pem})),
        ("transition_service_to_open", json!({"next_service_identity": pem})),
        ("set_service_configuration", json!({"recent_cose_proposals_window_size": 10})),
        ("add_snp_measurement", json!({"measurement": "ab"})),
    ];
    let proposal = |(name, args): (&str, Json)| {
        json!({"actions": [{"name": name, "args": args}]}).to_string()
    };
    let mut seeds: Vec<String> = actions.into_iter().map(proposal).collect();
    seeds.push(json!({"ballot": YES}).to_string());
    seeds.push(json!({"stateDigest": "ab"}).to_string());
    seeds
}

fuzz_target!(init: coco_fuzz::seed("governance_request", seeds()), |body: &[u8]| {
    PLAYED.with_borrow_mut(|played| {
        if played.inputs == INPUTS {
            *played = Played::begin();
        }
        played.play(body);
    });
});
