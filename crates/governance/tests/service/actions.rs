//! The actions of the default constitution: what they refuse, and what they do.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use coco_crypto::sha256;
use coco_governance::tables::{
    JS_RUNTIME_OPTIONS, MEMBERS, MemberStatus, RECOVERY_SHARES, SNP_HOST_DATA, SNP_TCB_VERSIONS,
    SNP_UVM_ENDORSEMENTS,
};
use serde_json::{Value as Json, json};

use super::harness::{Member, Service, YES};

#[track_caller]
fn refused(service: &Service, action: &str, args: Json) -> String {
    let reply = service.propose(json!([{"name": action, "args": args}]));
    let why = reply.refused(400, "ProposalFailedToValidate");
    let start = format!("Proposal failed to validate: {action} at position 0 failed validation: ");
    why.strip_prefix(&start).unwrap_or_else(|| panic!("{why}")).to_owned()
}

#[test]
fn malformed_proposals_are_refused() {
    let service = Service::active();
    let member = &service.members[0];
    for (body, why) in [
        ("", "The proposal is not JSON"),
        ("null", "actions must be a list"),
        ("{}", "actions must be a list"),
        (r#"{"actions": 7}"#, "actions must be a list"),
        (r#"{"actions": []}"#, "actions must be a list with at least one element"),
        (r#"{"actions": [7]}"#, "The action must be an object"),
        (r#"{"actions": [{}]}"#, "name must be a string"),
        (r#"{"actions": [{"name": "x"}]}"#, "x at position 0 failed validation: no such action"),
        (r#"{"actions": [{"name": "toString"}]}"#, "no such action"),
        (r#"{"actions": [{"name": "\ud800"}]}"#, "The proposal must be well-formed Unicode"),
        (r#"{"actions": [{"name": "set_user", "args": {"\ud800": 1}}]}"#, "well-formed Unicode"),
        (&format!("{}{}", "[".repeat(102), "]".repeat(102)), "JSON of at most 100 levels"),
    ] {
        let path = "/members/proposals:create";
        let reply = service.post(member, "proposal", None, path, body.as_bytes());
        let message = reply.refused(400, "ProposalFailedToValidate");
        assert!(message.contains(why), "{body}: {message}");
    }
    let reply = service.post(member, "proposal", None, "/members/proposals:create", &[0xff]);
    reply.refused(400, "ProposalFailedToValidate");
}

#[test]
fn arguments_are_refused_by_name() {
    let service = Service::active();
    let cert = service.members[0].cert.to_pem();
    let id = "ab".repeat(32);
    let endpoint = json!({
        "js_module": "a.js", "js_function": "f", "mode": "readonly",
        "forwarding_required": "never", "authn_policies": [],
    });
    let app = |paths: Json| {
        json!({"bundle": {
            "metadata": {"endpoints": paths}, "modules": [{"name": "/a.js", "module": ""}],
        }})
    };
    let with = |field: &str, value: Json| {
        let mut changed = endpoint.clone();
        changed[field] = value;
        app(json!({"/x": {"get": changed}}))
    };
    for (action, args, why) in [
        ("set_user", json!({}), "args.cert must be a string"),
        ("set_user", json!(7), "args must be an object"),
        ("set_user", json!({"cert": "x"}), "args.cert must be PEM certificates"),
        ("set_user", json!({"cert": format!("{cert}{cert}")}), "args.cert must be a single PEM"),
        ("set_user", json!({"cert": cert, "user_dat": 1}), "args.user_dat is not an argument"),
        ("remove_user", json!({"user_id": "AB"}), "args.user_id must be 64 lower-case hex digits"),
        (
            "set_member",
            json!({"cert": cert, "encryption_pub_key": "x"}),
            "must be an RSA public key",
        ),
        (
            "set_member",
            json!({"cert": cert, "recovery_role": "Boss"}),
            "must be one of NonParticipant",
        ),
        (
            "set_member",
            json!({"cert": cert, "recovery_role": "Owner"}),
            "needs args.encryption_pub_key",
        ),
        ("set_recovery_threshold", json!({"recovery_threshold": 0}), "an integer from 1 to 254"),
        ("set_recovery_threshold", json!({"recovery_threshold": 255}), "an integer from 1 to 254"),
        ("set_recovery_threshold", json!({"recovery_threshold": 1.5}), "an integer from 1 to 254"),
        (
            "set_service_configuration",
            json!({"recent_cose_proposals_window_size": 0}),
            "1 to 10000",
        ),
        ("set_js_app", json!({}), "args.bundle must be an object"),
        (
            "set_js_app",
            app(json!({"/x": {"fetch": endpoint}})),
            "the verb \"fetch\" must be one of",
        ),
        ("set_js_app", app(json!({"/{x": {"get": endpoint}})), "at most one {parameter}"),
        (
            "set_js_app",
            app(json!({"/{x}/{x}": {"get": endpoint}})),
            "names the parameter {x} twice",
        ),
        (
            "set_js_app",
            app(json!({"/{x}": {"get": endpoint}, "/{y}": {"get": endpoint}})),
            "two paths",
        ),
        ("set_js_app", with("mode", json!("wild")), "mode must be one of"),
        (
            "set_js_app",
            with("forwarding_required", Json::Null),
            "forwarding_required must be one of",
        ),
        (
            "set_js_app",
            with("authn_policies", json!(["member_cose_sign1"])),
            "must be one of user_cert",
        ),
        ("set_js_app", with("authn_policies", json!([{"all_of": []}])), "at least one element"),
        ("set_js_app", with("js_module", json!("b.js")), "b.js is not in the bundle"),
        ("set_js_app", with("interpreter_reuse", json!({})), "key must be a string"),
        (
            "set_js_runtime_options",
            json!({"max_heap_bytes": -1}),
            "args.max_heap_bytes must be an integer",
        ),
        (
            "set_ca_cert_bundle",
            json!({"name": "a", "cert_bundle": "x"}),
            "args.cert_bundle must be PEM",
        ),
        (
            "set_jwt_issuer",
            json!({"issuer": "https://a", "auto_refresh": true}),
            "ca_cert_bundle_name must be",
        ),
        (
            "set_jwt_issuer",
            json!({"issuer": "http://a", "auto_refresh": true, "ca_cert_bundle_name": "b"}),
            "https URL",
        ),
        (
            "set_jwt_issuer",
            json!({"issuer": "https://a?b", "auto_refresh": true, "ca_cert_bundle_name": "b"}),
            "https URL",
        ),
        (
            "set_jwt_public_signing_keys",
            json!({"issuer": "a", "jwks": {"keys": []}}),
            "at least one element",
        ),
        (
            "set_jwt_public_signing_keys",
            json!({"issuer": "a", "jwks": {"keys": [{"kty": "oct", "kid": "k"}]}}),
            "must have x5c",
        ),
        (
            "assert_service_identity",
            json!({"service_identity": cert}),
            "not this service's certificate",
        ),
        ("transition_service_to_open", json!({}), "args.next_service_identity must be a string"),
        ("trigger_snapshot", json!({"now": true}), "args.now is not an argument"),
        ("add_node_code", json!({"code_id": "xyz"}), "hex digits"),
        ("add_snp_host_data", json!({"security_policy": "p", "host_data": id}), "not the SHA-256"),
        ("add_snp_uvm_endorsement", json!({"did": "x", "feed": "f", "svn": "1"}), "did:x509"),
        (
            "add_snp_uvm_endorsement",
            json!({"did": "did:x509:a", "feed": "f", "svn": 1}),
            "args.svn must be a string",
        ),
        (
            "set_snp_minimum_tcb_version",
            json!({"cpuid": "0", "tcb_version": {}}),
            "8 lower-case hex digits",
        ),
        ("trigger_ledger_rekey", json!({}), "does not offer the action yet"),
        ("remove_node", json!({"node_id": "x"}), "64 lower-case hex digits"),
        ("transition_node_to_trusted", json!({"node_id": id, "valid_from": "soon"}), "a date like"),
        (
            "set_all_nodes_certificate_validity",
            json!({"valid_from": "260131235959Z"}),
            "does not offer",
        ),
        (
            "set_service_certificate_validity",
            json!({"valid_from": "2026-01-31T23:59:59Z"}),
            "does not offer",
        ),
    ] {
        let message = refused(&service, action, args.clone());
        assert!(message.contains(why), "{action} {args}: {message}");
    }
}

#[test]
fn every_action_of_ccf_is_known() {
    let service = Service::active();
    for action in [
        "set_constitution",
        "set_member",
        "remove_member",
        "set_member_data",
        "set_user",
        "remove_user",
        "set_user_data",
        "set_recovery_threshold",
        "trigger_recovery_shares_refresh",
        "trigger_ledger_rekey",
        "transition_service_to_open",
        "set_js_app",
        "remove_js_app",
        "set_js_runtime_options",
        "refresh_js_app_bytecode_cache",
        "set_ca_cert_bundle",
        "remove_ca_cert_bundle",
        "set_jwt_issuer",
        "set_jwt_public_signing_keys",
        "remove_jwt_issuer",
        "add_node_code",
        "remove_node_code",
        "add_snp_measurement",
        "remove_snp_measurement",
        "add_snp_uvm_endorsement",
        "remove_snp_uvm_endorsement",
        "add_snp_host_data",
        "remove_snp_host_data",
        "set_snp_minimum_tcb_version",
        "set_snp_minimum_tcb_version_hex",
        "remove_snp_minimum_tcb_version",
        "set_node_data",
        "transition_node_to_trusted",
        "remove_node",
        "set_node_certificate_validity",
        "set_all_nodes_certificate_validity",
        "set_service_certificate_validity",
        "set_service_configuration",
        "trigger_ledger_chunk",
        "trigger_snapshot",
        "assert_service_identity",
        "add_virtual_measurement",
        "remove_virtual_measurement",
        "add_virtual_host_data",
        "remove_virtual_host_data",
    ] {
        let why = refused(&service, action, json!({"nonsense": true}));
        assert_eq!(why, "args.nonsense is not an argument", "{action}");
    }
}

#[test]
fn members_come_and_go_within_the_threshold() {
    let service = Service::open();
    let shares = || service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    let before = shares();
    let remove = |member: &Member| {
        service.decide("remove_member", json!({"member_id": member.id.to_string()}))
    };
    // Three recovery members, threshold two: one may go, and the others get new shares.
    remove(&service.members[2]).expect(200);
    assert_eq!(shares().encrypted_shares.len(), 2);
    assert_ne!(shares().wrapped_latest_ledger_secret, before.wrapped_latest_ledger_secret);
    let gone = format!("/service/members/{}", service.members[2].id);
    service.get(&gone).refused(404, "ResourceNotFound");
    let why = remove(&service.members[1]).refused(500, "InternalError");
    assert!(why.contains("would be less than recovery threshold (2)"), "{why}");
    let again = json!({"cert": service.members[1].cert.to_pem()});
    let why = service.decide("set_member", again).refused(500, "InternalError");
    assert!(why.contains("would be less than recovery threshold (2)"), "{why}");

    let newcomer = Member::new("newcomer", true, service.environment_entropy());
    let key = newcomer.encryption.as_ref().unwrap().public().to_pem();
    let args = json!({"cert": newcomer.cert.to_pem(), "encryption_pub_key": key,
        "recovery_role": "Owner", "member_data": {"org": 4}});
    service.pass("set_member", args);
    assert_eq!(shares().encrypted_shares.len(), 2);
    service.activate(&newcomer);
    assert_eq!(shares().encrypted_shares.len(), 3);
    let shown = service.get(&format!("/service/members/{}", newcomer.id)).expect(200).json();
    assert_eq!(
        (&shown["recoveryRole"], &shown["memberData"]),
        (&json!("Owner"), &json!({"org": 4}))
    );
    let args = json!({"member_id": newcomer.id.to_string(), "member_data": null});
    service.pass("set_member_data", args);
    let info = service.look(|tx| MEMBERS.get(tx, &newcomer.id)).unwrap().unwrap();
    assert_eq!((info.status, info.member_data), (MemberStatus::Active, Json::Null));

    let args = json!({"member_id": "00".repeat(32)});
    service.pass("remove_member", args);
}

#[test]
fn somebody_stays() {
    let service = Service::new();
    service.activate(&service.members[0]);
    let args = json!({"member_id": service.members[0].id.to_string()});
    let proposal = service.propose(json!([{"name": "remove_member", "args": args}]));
    let id = proposal.expect(200).json()["proposalId"].as_str().unwrap().to_owned();
    let why = service.vote(&service.members[0], &id, YES).refused(500, "InternalError");
    assert!(why.contains("There would be no active member left"), "{why}");
}

#[test]
fn the_threshold_follows_the_members() {
    let service = Service::open();
    let before = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    service.pass("set_recovery_threshold", json!({"recovery_threshold": 3}));
    let after = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    assert_ne!(before, after);
    let why = service.decide("set_recovery_threshold", json!({"recovery_threshold": 4}));
    let why = why.refused(500, "InternalError");
    assert!(why.contains("greater than the number of active recovery participants (3)"), "{why}");
    service.pass("trigger_recovery_shares_refresh", json!({}));
    assert_ne!(service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap(), after);
}

#[test]
fn a_service_opens_only_when_it_could_be_recovered() {
    let service = Service::new();
    service.activate(&service.members[0]);
    let args = json!({"next_service_identity": service.cert});
    let open = json!([{"name": "transition_service_to_open", "args": args}]);
    let id = service.propose(open).expect(200).json()["proposalId"].as_str().unwrap().to_owned();
    let why = service.vote(&service.members[0], &id, YES).refused(500, "InternalError");
    assert!(why.contains("fewer than the threshold of 2"), "{why}");
    service.activate(&service.members[1]);

    let other = service.members[0].cert.to_pem();
    let why = service.decide("transition_service_to_open", json!({"next_service_identity": other}));
    let why = why.refused(500, "InternalError");
    assert!(why.contains("does not match the service's certificate"), "{why}");
    let why = service.decide("trigger_recovery_shares_refresh", json!({}));
    let why = why.refused(500, "InternalError");
    assert!(why.contains("issued by an open service"), "{why}");
    service.pass("transition_service_to_open", json!({"next_service_identity": service.cert}));
    service.pass("transition_service_to_open", json!({"next_service_identity": service.cert}));
    service.pass("assert_service_identity", json!({"service_identity": service.cert}));
}

#[test]
fn triggers_reach_the_node() {
    let service = Service::active();
    let outcome = service.pass("trigger_ledger_chunk", json!({})).outcome;
    assert!(outcome.force_chunk && !outcome.force_snapshot);
    let outcome = service.pass("trigger_snapshot", Json::Null).outcome;
    assert!(!outcome.force_chunk && outcome.force_snapshot);
}

#[test]
fn token_issuers_are_governed() {
    let service = Service::active();
    let cert = service.members[0].cert.to_pem();
    let key = |kid: &str| json!({"kty": "RSA", "kid": kid, "n": URL_SAFE_NO_PAD.encode([0xc1; 256]), "e": "AQAB"});
    let x5c = STANDARD.encode(service.members[1].cert.der());
    let by_certificate = json!({"kty": "EC", "kid": "c", "x5c": [x5c], "issuer": "https://a.com"});
    let jwks = json!({"keys": [key("r"), by_certificate]});
    service.pass("set_jwt_issuer", json!({"issuer": "https://a.com", "jwks": jwks}));
    let shown = service.get("/service/jwk").expect(200).json();
    assert_eq!(shown["issuers"], json!({"https://a.com": {"autoRefresh": false}}));
    assert_eq!(shown["keys"]["r"][0]["issuer"], "https://a.com");
    let public = service.members[1].key.public().to_pem();
    let expected =
        json!([{"publicKey": public, "issuer": "https://a.com", "constraint": "https://a.com"}]);
    assert_eq!(shown["keys"]["c"], expected);

    let args = json!({"issuer": "https://b.com", "jwks": {"keys": [key("r")]}});
    let why = service.decide("set_jwt_public_signing_keys", args).refused(500, "InternalError");
    assert!(why.contains("Issuer https://b.com does not exist"), "{why}");
    let refreshed =
        json!({"issuer": "https://b.com", "auto_refresh": true, "ca_cert_bundle_name": "b"});
    let why = service.decide("set_jwt_issuer", refreshed.clone()).refused(500, "InternalError");
    assert!(why.contains("No CA cert bundle found with name 'b'"), "{why}");
    // Whoever does not refresh needs no bundle yet.
    let not_refreshed = json!({"issuer": "https://b.com", "ca_cert_bundle_name": "b"});
    service.pass("set_jwt_issuer", not_refreshed);
    service.pass("set_ca_cert_bundle", json!({"name": "b", "cert_bundle": cert}));
    service.pass("set_jwt_issuer", refreshed);
    let args = json!({"issuer": "https://b.com", "jwks": {"keys": [key("r")]}});
    service.pass("set_jwt_public_signing_keys", args);
    let shown = service.get("/service/jwk").expect(200).json();
    assert_eq!(shown["caCertBundles"], json!({"b": cert}));
    assert_eq!(shown["keys"]["r"].as_array().unwrap().len(), 2);
    let issuer = json!({"autoRefresh": true, "caCertBundleName": "b"});
    assert_eq!(shown["issuers"]["https://b.com"], issuer);

    service.pass("remove_jwt_issuer", json!({"issuer": "https://a.com"}));
    service.pass("remove_ca_cert_bundle", json!({"name": "b"}));
    let shown = service.get("/service/jwk").expect(200).json();
    assert_eq!(shown["keys"]["r"].as_array().unwrap().len(), 1);
    assert!(shown["keys"].get("c").is_none());
}

#[test]
fn certificates_of_token_keys_are_checked_when_they_are_proposed() {
    let service = Service::active();
    let der = STANDARD.encode(service.members[1].cert.der());
    let args = |chain: Json| json!({"issuer": "https://a.com", "jwks": {"keys": [{"kty": "EC", "kid": "c", "x5c": chain}]}});
    let why = |chain: Json| {
        let why = refused(&service, "set_jwt_issuer", args(chain.clone()));
        assert_eq!(refused(&service, "set_jwt_public_signing_keys", args(chain)), why);
        why
    };
    let two = format!("{der}\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n{der}");
    for wrong in [
        "",
        "AQAB",
        "not base64",
        &der[4..],
        &der[..der.len() - 4],
        &format!("{} {}", &der[..64], &der[64..]),
        &service.members[1].cert.to_pem(),
        &two,
    ] {
        let second = why(json!([der, wrong]));
        assert_eq!(second, "args.jwks.keys[0].x5c[1] must be a certificate (X.509, DER in base64)");
    }
    assert_eq!(why(json!([7])), "args.jwks.keys[0].x5c[0] must be a string");
    assert_eq!(why(json!(der)), "args.jwks.keys[0].x5c must be a list");
    service.pass("set_jwt_issuer", args(json!([der, der])));
}

#[test]
fn code_manifests_are_governed() {
    let service = Service::active();
    let policy = "package policy";
    let digest = sha256(policy.as_bytes()).to_string();
    service.pass("add_snp_host_data", json!({"security_policy": policy, "host_data": digest}));
    let feed = |feed: &str, svn: &str| json!({"did": "did:x509:a", "feed": feed, "svn": svn});
    service.pass("add_snp_uvm_endorsement", feed("one", "100"));
    service.pass("add_snp_uvm_endorsement", feed("two", "7"));
    let tcb = json!({"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219});
    service.pass("set_snp_minimum_tcb_version", json!({"cpuid": "00a00f11", "tcb_version": tcb}));
    let hex = json!({"cpuid": "00a00f12", "tcb_version": "db18000000000004"});
    service.pass("set_snp_minimum_tcb_version_hex", hex);
    service.pass("add_snp_measurement", json!({"measurement": "ab".repeat(48)}));
    service.pass("add_node_code", json!({"code_id": "cd".repeat(32)}));
    service.pass("add_virtual_measurement", json!({"measurement": "v2"}));
    service.look(|tx| {
        assert_eq!(SNP_HOST_DATA.get(tx, &digest).unwrap().as_deref(), Some(policy));
        let feeds = SNP_UVM_ENDORSEMENTS.get(tx, &"did:x509:a".to_owned()).unwrap().unwrap();
        assert_eq!(feeds["one"].svn, "100");
        let version = SNP_TCB_VERSIONS.get(tx, &"00a00f11".to_owned()).unwrap().unwrap();
        assert_eq!((version.snp, version.fmc), (Some(24), None));
    });
    let shown = service.get("/service/join-policy").expect(200).json();
    assert_eq!(shown["snp"]["tcbVersions"]["00a00f12"]["microcode"], 0xdb);
    assert_eq!(shown["snp"]["uvmEndorsements"]["did:x509:a"]["two"], json!({"svn": "7"}));
    assert_eq!(shown["snp"]["tcbVersions"]["00a00f11"]["microcode"], 219);
    assert_eq!(shown["sgx"]["measurements"], json!(["cd".repeat(32)]));

    service.pass("remove_snp_host_data", json!({"host_data": digest}));
    service.pass("remove_snp_uvm_endorsement", json!({"did": "did:x509:a", "feed": "one"}));
    service.pass("remove_snp_uvm_endorsement", json!({"did": "did:x509:a", "feed": "two"}));
    service.pass("remove_snp_minimum_tcb_version", json!({"cpuid": "00a00f11"}));
    service.pass("remove_snp_minimum_tcb_version", json!({"cpuid": "00a00f12"}));
    service.pass("remove_snp_measurement", json!({"measurement": "ab".repeat(48)}));
    service.pass("remove_node_code", json!({"code_id": "cd".repeat(32)}));
    service.pass("remove_virtual_measurement", json!({"measurement": "v2"}));
    service
        .pass("remove_virtual_host_data", json!({"host_data": sha256(b"the program").to_string()}));
    let shown = service.get("/service/join-policy").expect(200).json();
    let nothing =
        json!({"measurements": [], "hostData": {}, "uvmEndorsements": {}, "tcbVersions": {}});
    assert_eq!(shown["snp"], nothing);
    assert_eq!(shown["sgx"], json!({"measurements": []}));
    let args = json!({"node_id": service.node.to_string(), "node_data": {"rack": 3}});
    service.pass("set_node_data", args);
    let shown = service.get(&format!("/service/nodes/{}", service.node)).expect(200).json();
    assert_eq!(shown["nodeData"], json!({"rack": 3}));
}

#[test]
fn runtime_options_are_governed() {
    let service = Service::active();
    let args = json!({
        "max_heap_bytes": 200_000_000, "max_stack_bytes": 1_048_576,
        "max_execution_time_ms": 1000, "return_exception_details": true,
    });
    service.pass("set_js_runtime_options", args.clone());
    let options = || service.look(|tx| JS_RUNTIME_OPTIONS.expect(tx)).unwrap();
    let with = |option: &str, value: Json| {
        let mut args = args.clone();
        args[option] = value;
        args
    };
    for limit in ["max_heap_bytes", "max_stack_bytes", "max_execution_time_ms"] {
        for wrong in [json!(-1), json!(0.5), json!("1"), json!(null)] {
            let why = refused(&service, "set_js_runtime_options", with(limit, wrong));
            assert!(
                why.starts_with(&format!("args.{limit} must be an integer from 0 to")),
                "{why}"
            );
        }
        // Too little to run anything, as CCF lets members have it.
        service.pass("set_js_runtime_options", with(limit, json!(0)));
    }
    // A node shows what it keeps to, so it takes no more than it can keep to.
    let largest = coco_script::Limits::MAX_STACK_BYTES;
    service.pass("set_js_runtime_options", with("max_stack_bytes", json!(largest)));
    assert_eq!(options().max_stack_bytes, largest);
    refused(&service, "set_js_runtime_options", with("max_stack_bytes", json!(largest + 1)));

    let options = options();
    assert_eq!(options.max_heap_bytes, 200_000_000);
    assert!(options.return_exception_details && !options.log_exception_details);
    service.pass("refresh_js_app_bytecode_cache", json!({}));
}
