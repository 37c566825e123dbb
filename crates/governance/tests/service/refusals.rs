//! What members may not do: each row of the table of errors.

use coco_adapter::Caller;
use coco_governance::default_constitution;
use coco_governance::tables::{SERVICE_INFO, ServiceInfo, ServiceStatus};
use http::Method;
use serde_json::json;

use super::harness::{Member, Message, NOW_S, Service, YES};

const CREATE: &str = "/members/proposals:create";

fn proposal(created_at_s: u64) -> Message<'static> {
    Message {
        message_type: Some("proposal"),
        created_at_s: Some(created_at_s),
        proposal: None,
        body: br#"{"actions":[{"name":"trigger_snapshot"}]}"#.to_vec(),
    }
}

#[test]
fn a_version_is_required() {
    let service = Service::new();
    let get = |path: &str| service.send(Method::GET, path, Caller::Unauthenticated);
    get("/service/info").refused(400, "MissingApiVersionParameter");
    get("/service/info?other=1").refused(400, "MissingApiVersionParameter");
    get("/service/info?api-version=2020-01-01").refused(400, "UnsupportedApiVersionValue");
    get("/service/info?api-version=2023-06-01-preview").expect(200);
    get("/service/info?api-version=2024-07-01").expect(200);
    for path in ["javascript-app", "javascript-modules", "javascript-modules/x"] {
        let path = format!("/service/{path}?api-version=2023-06-01-preview");
        get(&path).refused(400, "UnsupportedApiVersionValue");
    }
    let caller = service.authenticate(&service.members[0].sign(&proposal(service.tick())));
    service.send(Method::POST, CREATE, caller).refused(400, "MissingApiVersionParameter");
}

#[test]
fn ids_are_64_hex_digits() {
    let service = Service::active();
    for path in [
        "/members/proposals/xyz",
        "/members/proposals/xyz/actions",
        "/members/proposals/xyz/ballots/xyz",
        "/members/state-digests/xyz",
        "/recovery/encrypted-shares/xyz",
        "/service/members/xyz",
        "/service/users/xyz",
        "/service/nodes/xyz",
        "/service/transactions/xyz",
    ] {
        service.get(path).refused(400, "InvalidResourceName");
    }
    let unknown = "00".repeat(32);
    for (path, code) in [
        ("/members/proposals/{}", "ProposalNotFound"),
        ("/members/proposals/{}/actions", "ProposalNotFound"),
        ("/members/state-digests/{}", "ResourceNotFound"),
        ("/recovery/encrypted-shares/{}", "ResourceNotFound"),
        ("/service/members/{}", "ResourceNotFound"),
        ("/service/users/{}", "ResourceNotFound"),
        ("/service/nodes/{}", "ResourceNotFound"),
        ("/service/javascript-modules/{}", "ResourceNotFound"),
    ] {
        service.get(&path.replace("{}", &unknown)).refused(404, code);
    }
    let ballot = format!("/members/proposals/{unknown}/ballots/{unknown}");
    service.get(&ballot).refused(404, "ProposalNotFound");
    let reply = service.propose(json!([{"name": "trigger_snapshot"}])).expect(200).json();
    let id = reply["proposalId"].as_str().unwrap();
    let ballot = format!("/members/proposals/{id}/ballots/{unknown}");
    service.get(&ballot).refused(404, "VoteNotFound");
    service.get("/service/javascript-app?case=upper").refused(400, "InvalidQueryParameterValue");
}

#[test]
fn only_active_members_propose() {
    let service = Service::new();
    let code = "InvalidAuthenticationInfo";
    let message = proposal(service.tick());
    service.post_signed(CREATE, &service.members[0].sign(&message)).refused(401, code);
    service.activate(&service.members[0]);
    service.post_signed(CREATE, &service.members[0].sign(&message)).expect(200);

    let stranger = Member::new("stranger", false, service.environment_entropy());
    service.post_signed(CREATE, &stranger.sign(&message)).refused(401, code);
    let wrong_type = Message { message_type: Some("ballot"), ..message.clone() };
    service.post_signed(CREATE, &service.members[0].sign(&wrong_type)).refused(401, code);
    let no_type = Message { message_type: None, ..message.clone() };
    service.post_signed(CREATE, &service.members[0].sign(&no_type)).refused(401, code);
    let no_date = Message { created_at_s: None, ..message };
    service.post_signed(CREATE, &service.members[0].sign(&no_date)).refused(401, code);
}

#[test]
fn replayed_and_old_proposals_are_refused() {
    let service = Service::active();
    let member = &service.members[0];
    let message = member.sign(&proposal(1000));
    let first = service.post_signed(CREATE, &message).expect(200).json();
    let why = service.post_signed(CREATE, &message).refused(400, "ProposalReplay");
    assert!(why.contains(first["proposalId"].as_str().unwrap()), "{why}");
    service.post_signed(CREATE, &member.sign(&proposal(1000))).expect(200);
    let old = member.sign(&proposal(999));
    service.post_signed(CREATE, &old).refused(400, "ProposalCreatedTooLongAgo");
    let far = member.sign(&proposal(10_000_000_000));
    service.post_signed(CREATE, &far).refused(400, "InvalidCreatedAt");
    // One from the future in the window would lock out everybody's honest clock.
    let tomorrow = NOW_S as u64 + 24 * 60 * 60;
    let ahead = member.sign(&proposal(tomorrow + 1));
    service.post_signed(CREATE, &ahead).refused(400, "InvalidCreatedAt");
    service.post_signed(CREATE, &member.sign(&proposal(tomorrow))).expect(200);

    service.pass("set_service_configuration", json!({"recent_cose_proposals_window_size": 1}));
    let shown = service.get("/service/info").json();
    assert_eq!(shown["configuration"]["recentCoseProposalsWindowSize"], 1);
}

#[test]
fn ballots_are_checked() {
    let service = Service::active();
    let [first, second] = [0, 1].map(|index: usize| &service.members[index]);
    let reply = service.propose(json!([{"name": "trigger_snapshot"}])).expect(200).json();
    let id = reply["proposalId"].as_str().unwrap();
    let path = format!("/members/proposals/{id}/ballots/{}:submit", second.id);
    let ballot = json!({"ballot": YES}).to_string();
    let mismatch = "InvalidAuthenticationInfo";
    service.post(second, "ballot", None, &path, ballot.as_bytes()).refused(400, mismatch);
    let other = "11".repeat(32);
    service.post(second, "ballot", Some(&other), &path, ballot.as_bytes()).refused(400, mismatch);
    service.post(first, "ballot", Some(id), &path, ballot.as_bytes()).refused(400, mismatch);
    for body in ["", "{}", "[]", r#"{"ballot": 7}"#, r#"{"ballot": null}"#] {
        let reply = service.post(second, "ballot", Some(id), &path, body.as_bytes());
        reply.refused(400, "InvalidInput");
    }
    service.vote(second, &other, YES).refused(404, "ProposalNotFound");
    let withdraw = format!("/members/proposals/{id}:withdraw");
    service.post(first, "withdrawal", Some(&other), &withdraw, b"").refused(400, mismatch);
}

#[test]
fn acknowledgements_are_checked() {
    let service = Service::new();
    let [first, second] = [0, 1].map(|index: usize| &service.members[index]);
    let path = format!("/members/state-digests/{}", first.id);
    let (update, ack) = (format!("{path}:update"), format!("{path}:ack"));
    let empty = json!({"stateDigest": ""}).to_string();
    let reply = service.post(first, "ack", None, &ack, empty.as_bytes());
    reply.refused(400, "StateDigestMismatch");
    let digest = service.post(first, "state_digest", None, &update, b"").expect(200);
    assert_eq!(service.get(&path).expect(200).json(), digest.json());
    let wrong = json!({"stateDigest": "00".repeat(32)}).to_string();
    let reply = service.post(first, "ack", None, &ack, wrong.as_bytes());
    reply.refused(400, "StateDigestMismatch");
    service.post(first, "ack", None, &ack, b"{}").refused(400, "InvalidInput");
    let code = "InvalidAuthenticationInfo";
    service.post(second, "ack", None, &ack, &digest.body).refused(400, code);
    service.post(first, "proposal", None, &ack, &digest.body).refused(401, code);
    service.post(first, "ack", None, &ack, &digest.body).expect(204);
    // Again is harmless.
    service.post(first, "ack", None, &ack, &digest.body).expect(204);
}

#[test]
fn recovery_is_refused_while_there_is_nothing_to_recover() {
    let service = Service::active();
    let member = &service.members[0];
    let path = format!("/recovery/members/{}:recover", member.id);
    let body = br#"{"share": "AA=="}"#;
    let reply = service.post(member, "recovery_share", None, &path, body);
    reply.refused(403, "ServiceNotWaitingForRecoveryShares");
    let other = format!("/recovery/members/{}:recover", service.members[1].id);
    let reply = service.post(member, "recovery_share", None, &other, body);
    reply.refused(400, "InvalidAuthenticationInfo");
}

/// A service that another implementation left in the middle of a recovery.
#[test]
fn recovery_from_shares_is_refused_plainly() {
    let service = Service::active();
    let put_status = |status| {
        let mut tx = service.store.begin();
        let info = SERVICE_INFO.expect(&mut tx).unwrap();
        SERVICE_INFO.put(&mut tx, &ServiceInfo { status, ..info });
        service.store.commit(tx, |_, _| ()).unwrap();
    };
    put_status(ServiceStatus::WaitingForRecoveryShares);
    let member = &service.members[0];
    let path = format!("/recovery/members/{}:recover", member.id);
    let body = br#"{"share": "AA=="}"#;
    let reply = service.post(member, "recovery_share", None, &path, body);
    reply.refused(501, "NotImplemented");
    let why = service.decide("set_recovery_threshold", json!({"recovery_threshold": 1}));
    let why = why.refused(500, "InternalError");
    assert!(why.contains("if service is WaitingForRecoveryShares"), "{why}");

    put_status(ServiceStatus::Recovering);
    let args = json!({"next_service_identity": service.cert});
    let why = service.decide("transition_service_to_open", args).refused(500, "InternalError");
    assert!(why.contains("needs args.previous_service_identity too"), "{why}");
}

#[test]
fn a_constitution_that_fails_changes_nothing() {
    let parts = |validate: &str, resolve: &str, apply: &str| {
        format!(
            "export function validate(input) {{ {validate} }}
             export function resolve(proposal, proposerId, votes, proposalId) {{ {resolve} }}
             export function apply(proposal, proposalId) {{ {apply} }}",
        )
    };
    let (valid, open) = ("return {valid: true, description: ''};", "return 'Open';");
    for (constitution, start) in [
        (parts("throw new Error('x');", open, ""), "Failed to execute validation: "),
        (parts("return 7;", open, ""), "Failed to execute validation: "),
        (parts(valid, "throw new Error('x');", ""), "Failed to resolve(): "),
        (parts(valid, "return 7;", ""), "Failed to resolve(): "),
        (parts(valid, "return 'Sure';", ""), "Failed to resolve(): "),
        (parts(valid, "return 'Failed';", ""), "Failed to resolve(): "),
        (parts(valid, "return 'Accepted';", "throw new Error('x');"), "Failed to apply(): "),
    ] {
        let service = Service::with_constitution(constitution);
        service.activate(&service.members[0]);
        let head = service.store.head();
        let why = service.propose(json!([])).refused(500, "InternalError");
        assert!(why.starts_with(start), "{why}");
        assert_eq!(service.store.head(), head);
    }
    let refusing = parts("return {valid: false, description: 'not today'};", open, "");
    let service = Service::with_constitution(refusing);
    service.activate(&service.members[0]);
    let why = service.propose(json!([])).refused(400, "ProposalFailedToValidate");
    assert_eq!(why, "Proposal failed to validate: not today");
}

#[test]
fn an_action_that_fails_undoes_those_before_it() {
    let service = Service::open();
    let actions = json!([
        {"name": "set_recovery_threshold", "args": {"recovery_threshold": 1}},
        {"name": "set_member_data", "args": {"member_id": "00".repeat(32), "member_data": 1}},
    ]);
    let reply = service.propose(actions).expect(200).json();
    let id = reply["proposalId"].as_str().unwrap();
    service.vote(&service.members[0], id, YES).expect(200);
    let why = service.vote(&service.members[1], id, YES).refused(500, "InternalError");
    assert!(why.starts_with("Failed to apply(): ") && why.contains("does not exist"), "{why}");
    let shown = service.get("/service/info").json();
    assert_eq!(shown["configuration"]["recoveryThreshold"], 2);
    // The failing ballot was not recorded either.
    let shown = service.get(&format!("/members/proposals/{id}")).json();
    assert_eq!((&shown["proposalState"], &shown["ballotCount"]), (&json!("Open"), &json!(1)));
}

#[test]
fn the_default_constitution_is_one() {
    let service = Service::active();
    let whole = default_constitution();
    service.pass("set_constitution", json!({"constitution": whole}));
    assert_eq!(service.get("/service/constitution").expect(200).text(), whole);
    let args = json!({"constitution": "export function validate(input) {}"});
    let reply = service.propose(json!([{"name": "set_constitution", "args": args}]));
    let why = reply.refused(400, "ProposalFailedToValidate");
    assert!(why.contains("set_constitution at position 0"), "{why}");
}
