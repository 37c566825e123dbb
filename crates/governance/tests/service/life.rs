//! The life of a service, as its members live it.

use std::sync::Arc;

use coco_crypto::cose::CoseSign1;
use coco_crypto::{Curve, Digest, GcmCipher, KeyPair, PublicKey, Share, sha256, sha256_concat};
use coco_governance::genesis::{GenesisError, NewService, TrustedCode};
use coco_governance::recovery::{
    RECOVERY_VIEW_STEP, RecoverError, RecoveredService, complete_recovery, recover_service,
};
use coco_governance::tables::{
    COSE_HISTORY, ENDPOINTS, HISTORICAL_ENCRYPTED_LEDGER_SECRET, MEMBER_ENCRYPTION_KEYS, MEMBERS,
    MODULES, MemberStatus, NODES, NodeStatus, PREVIOUS_SERVICE_IDENTITY,
    PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT, PROPOSALS, Pem, RECOVERY_SHARES, SERVICE_INFO,
    ServiceConfig, ServiceStatus, USER_CERTS, USERS,
};
use coco_governance::{
    CustodyError, LedgerPeriod, ServiceControl, create_service, default_constitution, renew_custody,
};
use coco_kv::{Seqno, Store, Tx, TxId, View};
use coco_ledger::LedgerSecret;
use serde_json::{Value as Json, json};

use super::harness::{Keys, Member, NO, Service, YES, founding, new_node};

#[test]
fn a_service_is_born_activated_and_opened() {
    let service = Service::new();
    let status = |service: &Service| service.get("/service/info").json()["status"].clone();
    assert_eq!(status(&service), "Opening");
    for member in &service.members {
        let shown = service.get(&format!("/service/members/{}", member.id)).json();
        assert_eq!(shown["status"], "Accepted");
        service.activate(member);
        let shown = service.get(&format!("/service/members/{}", member.id)).json();
        assert_eq!(shown["status"], "Active");
    }
    let args = json!({"next_service_identity": service.cert});
    let reply = service.pass("transition_service_to_open", args);
    assert_eq!(status(&service), "Open");
    assert!(reply.outcome.force_chunk && reply.outcome.force_snapshot);

    let info = service.look(|tx| SERVICE_INFO.expect(tx)).unwrap();
    assert_eq!(info.previous_service_identity_version, Some(1));
    shares_give_the_secret_back(&service);
    the_identity_endorses_itself(&service);
}

/// Any two members recover the ledger secret.
fn shares_give_the_secret_back(service: &Service) {
    let shares = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    for pair in [[0, 1], [1, 2], [2, 0]] {
        let points = pair.map(|index| {
            let member = &service.members[index];
            let path = format!("/recovery/encrypted-shares/{}", member.id);
            let shown = service.get(&path).expect(200).json();
            let encrypted = &shares.encrypted_shares[&member.id.to_string()];
            assert_eq!(shown["encryptedShare"], json!(encrypted));
            let key = member.encryption.as_ref().unwrap();
            Share::parse(&key.decrypt_oaep(&encrypted.0, b"").unwrap()).unwrap()
        });
        let full = Share::combine(&points, 2).unwrap();
        let wrapped = GcmCipher::parse(&shares.wrapped_latest_ledger_secret.0).unwrap();
        let secret = wrapped.open(&full.wrapping_key(), b"").unwrap();
        assert_eq!(secret.as_slice(), service.keys.secret.key().as_bytes());
    }
    let history = service.look(|tx| HISTORICAL_ENCRYPTED_LEDGER_SECRET.expect(tx)).unwrap();
    assert_eq!((history.next_version, history.previous_ledger_secret), (Some(1), None));
}

fn the_identity_endorses_itself(service: &Service) {
    let link = service.look(|tx| PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.expect(tx)).unwrap();
    assert_eq!(link.endorsement_epoch_begin, "2.1");
    let cose = CoseSign1::parse(&link.endorsement.0).unwrap();
    let key = PublicKey::from_spki_der(&link.endorsing_key.0).unwrap();
    cose.verify(&key, None).unwrap();
    assert_eq!(cose.payload(), Some(key.spki_der()));
    assert_eq!(key.spki_der(), service.keys.key.public().spki_der());
}

#[test]
fn members_vote_a_participant_in() {
    let service = Service::open();
    let user = Member::new("user0", false, service.environment_entropy());
    let args = json!({"cert": user.cert.to_pem(), "user_data": {"role": "auditor"}});
    let read = service.store.head().seqno;
    let reply = service.propose(json!([{"name": "set_user", "args": args}])).expect(200);
    let proposal = reply.json();
    let id = proposal["proposalId"].as_str().unwrap().to_owned();
    let expected = json!({
        "proposalId": id, "proposerId": service.members[0].id.to_string(),
        "proposalState": "Open", "ballotCount": 0,
    });
    assert_eq!(proposal, expected);

    // The id binds the proposal to the state it was made in.
    let history = service.look(|tx| COSE_HISTORY.get(tx, &service.members[0].id));
    let signature = sha256(CoseSign1::parse(&history.unwrap().unwrap().0).unwrap().signature());
    let root = sha256(&read.0.to_le_bytes());
    assert_eq!(id, sha256_concat(&[root.as_ref(), signature.as_ref()]).to_string());

    let reply = service.vote(&service.members[1], &id, YES).expect(200).json();
    assert_eq!((&reply["proposalState"], &reply["ballotCount"]), (&json!("Open"), &json!(1)));
    assert!(reply.get("finalVotes").is_none());
    let failing = "export function vote(proposal, proposerId) { throw new Error('no idea'); }";
    let reply = service.vote(&service.members[0], &id, failing).expect(200).json();
    assert_eq!(reply["proposalState"], "Open");
    let reply = service.vote(&service.members[2], &id, YES).expect(200).json();
    assert_eq!(reply["proposalState"], "Accepted");
    let [first, second, third] =
        [0, 1, 2].map(|index: usize| service.members[index].id.to_string());
    assert_eq!(reply["finalVotes"], json!({second: true, third: true}));
    let why = reply["voteFailures"][first]["reason"].as_str().unwrap();
    assert!(why.contains("no idea"), "{why}");

    service.look(|tx| {
        assert_eq!(USER_CERTS.get(tx, &user.id).unwrap(), Some(Pem(user.cert.to_pem())));
        assert_eq!(USERS.get(tx, &user.id).unwrap().unwrap().user_data, json!({"role": "auditor"}));
    });
    service.pass("set_user_data", json!({"user_id": user.id.to_string(), "user_data": 7}));
    let shown = service.get(&format!("/service/users/{}", user.id)).expect(200).json();
    assert_eq!(shown["userData"], json!({"user_data": 7}));
    service.pass("remove_user", json!({"user_id": user.id.to_string()}));
    service.get(&format!("/service/users/{}", user.id)).refused(404, "ResourceNotFound");

    // Data is no certificate: it makes nobody a participant.
    service.pass("set_user_data", json!({"user_id": user.id.to_string(), "user_data": 8}));
    service.get(&format!("/service/users/{}", user.id)).refused(404, "ResourceNotFound");
    let data = || service.look(|tx| USERS.get(tx, &user.id)).unwrap().map(|info| info.user_data);
    assert_eq!(data(), Some(json!(8)));
    service.pass("set_user_data", json!({"user_id": user.id.to_string()}));
    assert_eq!(data(), None);
}

#[test]
fn an_application_is_deployed_and_removed() {
    let service = Service::open();
    let endpoint = json!({
        "js_module": "src/app.js", "js_function": "hello", "mode": "readonly",
        "forwarding_required": "never", "authn_policies": ["user_cert", {"all_of": ["jwt", "any_cert"]}],
        "openapi": {},
    });
    let bundle = json!({
        "metadata": {"endpoints": {"/hello/{name}": {"get": endpoint}}},
        "modules": [{"name": "src/app.js", "module": "export function hello() {}"}],
    });
    service.pass("set_js_app", json!({"bundle": bundle}));
    service.look(|tx| {
        let source = MODULES.get(tx, &"/src/app.js".to_owned()).unwrap().unwrap();
        assert_eq!(source.0, "export function hello() {}");
        assert!(ENDPOINTS.has(tx, &"GET /hello/{name}".to_owned()));
    });

    let shown = service.get("/service/javascript-app").expect(200).json();
    let shown = &shown["endpoints"]["/hello/{name}"]["GET"];
    assert_eq!(shown["jsModule"], "/src/app.js");
    assert_eq!(shown["openApi"], json!({}));
    let stored = service.get("/service/javascript-app?case=original").expect(200).json();
    assert_eq!(stored["endpoints"]["/hello/{name}"]["GET"]["js_module"], "/src/app.js");
    let names = service.get("/service/javascript-modules").expect(200).json();
    assert_eq!(names, json!({"value": [{"moduleName": "/src/app.js"}]}));
    let source = service.get("/service/javascript-modules/%2Fsrc%2Fapp.js").expect(200);
    assert_eq!(
        (source.text(), source.content_type.as_str()),
        ("export function hello() {}".to_owned(), "text/javascript")
    );

    service.pass("remove_js_app", Json::Null);
    let shown = service.get("/service/javascript-app").expect(200).json();
    assert_eq!(shown, json!({"endpoints": {}}));
}

#[test]
fn proposals_are_withdrawn_rejected_and_cleared_away() {
    let service = Service::active();
    let [first, second, third] = [0, 1, 2].map(|index: usize| &service.members[index]);
    let noop = json!([{"name": "trigger_ledger_chunk"}]);
    let propose = || {
        let reply = service.propose(noop.clone()).expect(200).json();
        reply["proposalId"].as_str().unwrap().to_owned()
    };
    let withdraw = |member: &Member, id: &str| {
        let path = format!("/members/proposals/{id}:withdraw");
        service.post(member, "withdrawal", Some(id), &path, b"")
    };
    let id = propose();
    withdraw(second, &id).refused(403, "AuthorizationFailed");
    assert_eq!(withdraw(first, &id).expect(200).json()["proposalState"], "Withdrawn");
    withdraw(first, &id).refused(400, "ProposalNotOpen");
    service.vote(second, &id, YES).refused(400, "ProposalNotOpen");

    // The next proposal that closes takes the place of the last one that did.
    let rejected = propose();
    service.vote(second, &rejected, NO).expect(200);
    let reply = service.vote(third, &rejected, NO).expect(200).json();
    assert_eq!(reply["proposalState"], "Rejected");
    assert_eq!(
        reply["finalVotes"],
        json!({second.id.to_string(): false, third.id.to_string(): false})
    );
    service.get(&format!("/members/proposals/{id}")).refused(404, "ProposalNotFound");
    withdraw(first, &id).expect(204);
    assert_eq!(service.look(|tx| PROPOSALS.rows(tx)).unwrap().len(), 1);
    let all = service.get("/members/proposals").expect(200).json();
    assert_eq!(all["value"].as_array().unwrap().len(), 1);
}

#[test]
fn an_identical_ballot_counts_once() {
    let service = Service::active();
    let reply = service.propose(json!([{"name": "trigger_snapshot"}])).expect(200).json();
    let id = reply["proposalId"].as_str().unwrap();
    service.vote(&service.members[1], id, YES).expect(200);
    let again = service.vote(&service.members[1], id, YES).expect(200);
    assert_eq!((again.tx_id, &again.json()["ballotCount"]), (None, &json!(1)));
    service.vote(&service.members[1], id, NO).refused(400, "VoteAlreadyExists");
    let ballot = format!("/members/proposals/{id}/ballots/{}", service.members[1].id);
    let shown = service.get(&ballot).expect(200);
    assert_eq!((shown.text().as_str(), shown.content_type.as_str()), (YES, "text/javascript"));
    let actions = service.get(&format!("/members/proposals/{id}/actions")).expect(200);
    assert_eq!(actions.text(), r#"{"actions":[{"name":"trigger_snapshot"}]}"#);
}

#[test]
fn more_trust_makes_other_open_proposals_void() {
    let service = Service::active();
    let reply = service.propose(json!([{"name": "trigger_snapshot"}])).expect(200).json();
    let other = reply["proposalId"].as_str().unwrap();
    service.pass("add_virtual_host_data", json!({"host_data": "ab".repeat(32)}));
    let shown = service.get(&format!("/members/proposals/{other}")).expect(200).json();
    assert_eq!(shown["proposalState"], "Dropped");
    service.vote(&service.members[1], other, YES).refused(400, "ProposalNotOpen");
    let policy = service.get("/service/join-policy").expect(200).json();
    assert!(policy["virtual"]["hostData"].as_array().unwrap().contains(&json!("ab".repeat(32))));
}

/// A service that goes on from the ledger of `service`, up to its first transaction.
struct Recovered<'a> {
    service: &'a Service,
    cert: coco_crypto::x509::Certificate,
    keys: Keys,
}

impl<'a> Recovered<'a> {
    fn new(service: &'a Service) -> Self {
        let entropy = service.environment_entropy();
        let key = Arc::new(KeyPair::generate(Curve::P256, entropy).unwrap());
        let previous = service.look(|tx| SERVICE_INFO.expect(tx)).unwrap().cert;
        let previous = coco_crypto::x509::Certificate::from_pem(&previous.0).unwrap();
        let validity = previous.validity();
        let cert =
            coco_crypto::x509::Certificate::succeeding(&previous, &key, validity, entropy).unwrap();
        Self { service, cert, keys: Keys { key, secret: Arc::new(LedgerSecret::new([9; 32])) } }
    }

    fn record(&self) -> RecoveredService {
        let entropy = self.service.environment_entropy();
        RecoveredService {
            cert: Pem(self.cert.to_pem()),
            last_signed_root: coco_crypto::sha256(b"the last root"),
            node: new_node(&self.cert, &self.keys.key, entropy),
        }
    }

    /// The first transaction, in the view after next.
    fn begin(&self) -> Digest {
        let record = self.record();
        let head = self.service.look(|tx| tx.read_tx_id());
        let view = View(head.view.0 + RECOVERY_VIEW_STEP);
        self.service.store.rollback(head.seqno, view).unwrap();
        let mut tx = self.service.store.begin();
        let create = TxId { view, seqno: head.seqno.next() };
        recover_service(&mut tx, &record, create).unwrap();
        self.service.store.commit(tx, |_, _| ()).unwrap();
        record.node.id
    }

    fn complete(&self) -> bool {
        let mut tx = self.service.store.begin();
        let completed = complete_recovery(&mut tx, &self.keys, &self.service.environment).unwrap();
        self.service.store.commit(tx, |_, _| ()).unwrap();
        completed
    }

    fn status(&self) -> ServiceStatus {
        self.service.look(|tx| SERVICE_INFO.expect(tx)).unwrap().status
    }
}

#[test]
fn a_recovered_service_waits_for_members_to_name_both_identities() {
    let service = Service::open();
    let before = service.look(|tx| SERVICE_INFO.expect(tx)).unwrap();
    let recovered = Recovered::new(&service);
    let node = recovered.begin();
    let status = |id| service.look(|tx| NODES.get(tx, &id)).unwrap().unwrap().status;
    assert_eq!(status(service.node), NodeStatus::Retired);
    assert_eq!(status(node), NodeStatus::Trusted);
    let info = service.look(|tx| SERVICE_INFO.expect(tx)).unwrap();
    assert_eq!((info.status, info.recovery_count), (ServiceStatus::Recovering, Some(1)));
    assert_eq!(info.cert.0, recovered.cert.to_pem());
    let previous = service.look(|tx| PREVIOUS_SERVICE_IDENTITY.expect(tx)).unwrap();
    assert_eq!(previous, before.cert.0);
    // Nobody but the members brings it further.
    assert!(!recovered.complete());

    let (next, previous) = (recovered.cert.to_pem(), before.cert.0);
    for (args, why) in [
        (json!({"next_service_identity": next}), "needs args.previous_service_identity"),
        (
            json!({"next_service_identity": previous, "previous_service_identity": previous}),
            "next service identity does not match",
        ),
        (
            json!({"next_service_identity": next, "previous_service_identity": next}),
            "previous service identity does not match",
        ),
    ] {
        let reply = service.decide("transition_service_to_open", args);
        assert!(reply.refused(500, "InternalError").contains(why), "{why}");
        assert_eq!(recovered.status(), ServiceStatus::Recovering);
    }
    let args = json!({"next_service_identity": next, "previous_service_identity": previous});
    service.pass("transition_service_to_open", args);
    assert_eq!(recovered.status(), ServiceStatus::WaitingForRecoveryShares);
    let shares = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    assert!(recovered.complete());
    assert!(!recovered.complete());
    assert_eq!(recovered.status(), ServiceStatus::Open);
    assert_ne!(service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap(), shares);

    // A later recovery begins where this one ended.
    let first = service.look(|tx| PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.expect(tx)).unwrap();
    assert_eq!(first.endorsement_epoch_begin, "2.1");
    let created: TxId = info.current_service_create_txid.unwrap().parse().unwrap();
    let end = TxId::new(created.view.0 - RECOVERY_VIEW_STEP, created.seqno.0 - 1);
    assert_eq!(first.endorsement_epoch_end, Some(end.to_string()));
    let again = Recovered::new(&service);
    again.begin();
    let args = json!({
        "next_service_identity": again.cert.to_pem(), "previous_service_identity": next,
    });
    service.pass("transition_service_to_open", args);
    assert!(again.complete());
    let second = service.look(|tx| PREVIOUS_SERVICE_IDENTITY_ENDORSEMENT.expect(tx)).unwrap();
    assert_eq!(second.endorsement_epoch_begin, created.to_string());
    assert!(second.previous_version.is_some());
    let message = CoseSign1::parse(&second.endorsement.0).unwrap();
    message.verify(again.keys.key.public(), None).unwrap();
    assert_eq!(message.payload().unwrap(), recovered.keys.key.public().spki_der());
}

#[test]
fn a_recovery_gives_back_no_trust_that_members_took_away() {
    let service = Service::open();
    let recovered = Recovered::new(&service);
    let record = recovered.record();
    let TrustedCode::Virtual { measurement, host_data } = record.node.code.clone();
    let try_recover =
        |service: &Service| recover_service(&mut service.store.begin(), &record, TxId::new(4, 99));
    try_recover(&service).unwrap();
    service.pass("remove_virtual_host_data", json!({"host_data": host_data}));
    let untrusted = RecoverError::UntrustedCode(record.node.code.clone());
    assert_eq!(try_recover(&service), Err(untrusted.clone()));
    service.pass("add_virtual_host_data", json!({"host_data": host_data}));
    try_recover(&service).unwrap();
    service.pass("remove_virtual_measurement", json!({"measurement": measurement}));
    assert_eq!(try_recover(&service), Err(untrusted));

    let never_opened = Service::active();
    let opening = RecoverError::NotOpen(ServiceStatus::Opening);
    assert_eq!(try_recover(&never_opened), Err(opening));
    let empty = &mut Store::new(View(2)).begin();
    assert!(matches!(
        recover_service(empty, &record, TxId::new(4, 1)),
        Err(RecoverError::Table(_))
    ));
}

/// The keys of a service after a new ledger secret came into use.
struct Renewed<'a> {
    before: &'a Keys,
    latest: Arc<LedgerSecret>,
}

impl ServiceControl for Renewed<'_> {
    fn service_key(&self) -> Arc<KeyPair> {
        self.before.service_key()
    }

    fn ledger_secret(&self) -> LedgerPeriod {
        let previous_stored_at = Some(Seqno(9));
        LedgerPeriod { valid_from: Seqno(20), secret: self.latest.clone(), previous_stored_at }
    }

    fn previous_ledger_secret(&self) -> Option<LedgerPeriod> {
        Some(self.before.ledger_secret())
    }
}

#[test]
fn a_new_ledger_secret_goes_into_custody_with_the_one_before() {
    let service = Service::open();
    let before = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    let latest = Arc::new(LedgerSecret::new([8; 32]));
    let renewed = Renewed { before: &service.keys, latest: latest.clone() };
    let entropy = service.environment_entropy();
    let mut tx = service.store.begin();
    renew_custody(&mut tx, &renewed, entropy).unwrap();

    let shares = RECOVERY_SHARES.expect(&mut tx).unwrap();
    assert_ne!(shares, before);
    assert_eq!(shares.previous_secret_stored_version, Some(9));
    let history = HISTORICAL_ENCRYPTED_LEDGER_SECRET.expect(&mut tx).unwrap();
    assert_eq!(history.next_version, Some(20));
    let previous = history.previous_ledger_secret.unwrap();
    assert_eq!((previous.version, previous.previous_secret_stored_version), (1, None));
    let sealed = GcmCipher::parse(&previous.encrypted_data.0).unwrap();
    let secret = sealed.open(latest.key(), b"").unwrap();
    assert_eq!(secret.as_slice(), service.keys.secret.key().as_bytes());

    // A service that is not open has no shares to renew.
    let opening = Service::active();
    let mut tx = opening.store.begin();
    renew_custody(&mut tx, &renewed, entropy).unwrap();
    assert_eq!(RECOVERY_SHARES.get(&mut tx), Ok(None));
    assert!(HISTORICAL_ENCRYPTED_LEDGER_SECRET.get(&mut tx).unwrap().is_some());
}

/// Whatever has become of the members' keys, a service starts again on its own ledger.
#[test]
fn custody_that_cannot_be_renewed_stops_no_service() {
    let service = Service::open();
    let before = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    let entropy = service.environment_entropy();
    let spoilt = |spoil: &dyn Fn(&mut Tx)| {
        let mut tx = service.store.begin();
        spoil(&mut tx);
        let renewed = renew_custody(&mut tx, &*service.keys, entropy);
        renewed.map(|()| RECOVERY_SHARES.expect(&mut tx).unwrap())
    };
    let member = service.members[0].id;
    let no_key = |tx: &mut Tx| MEMBER_ENCRYPTION_KEYS.put(tx, &member, &Pem("no key".to_owned()));
    assert_eq!(spoilt(&no_key), Ok(before.clone()));
    let nobody = |tx: &mut Tx| MEMBERS.clear(tx);
    assert_eq!(spoilt(&nobody), Ok(before));
    let broken = |tx: &mut Tx| {
        tx.put(MEMBERS.name(), member.to_string().as_bytes(), "no JSON");
    };
    assert!(matches!(spoilt(&broken), Err(CustodyError::Table(_))));
}

/// Owners hold no share, so that they do not count towards the threshold of shares.
#[test]
fn owners_do_not_count_towards_the_threshold() {
    let service = Service::open();
    let owner = Member::new("owner", true, service.environment_entropy());
    let key = owner.encryption.as_ref().unwrap().public().to_pem();
    let args = json!({"cert": owner.cert.to_pem(), "recovery_role": "Owner",
        "encryption_pub_key": key});
    service.pass("set_member", args);
    service.activate(&owner);
    // Three participants and an owner: shares of four are not to be had.
    let raised = service.propose(json!([{
        "name": "set_recovery_threshold", "args": {"recovery_threshold": 4},
    }]));
    let id = raised.expect(200).json()["proposalId"].as_str().unwrap().to_owned();
    for member in &service.members[..2] {
        service.vote(member, &id, YES).expect(200);
    }
    let why = service.vote(&service.members[2], &id, YES).refused(500, "InternalError");
    assert!(why.contains("active recovery participants (3)"), "{why}");
    // One participant may go, the second may not, though the owner stays.
    let leave = |member: &Member| {
        let actions =
            json!([{"name": "remove_member", "args": {"member_id": member.id.to_string()}}]);
        let id = service.propose(actions).expect(200).json()["proposalId"].clone();
        let id = id.as_str().unwrap();
        service.vote(&service.members[0], id, YES).expect(200);
        service.vote(&service.members[1], id, YES).expect(200);
        service.vote(&owner, id, YES)
    };
    leave(&service.members[2]).expect(200);
}

/// What a member keeps after it was set again, in another role, opens nothing.
#[test]
fn a_share_holder_who_is_demoted_keeps_nothing_of_use() {
    let service = Service::open();
    let before = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    let demoted = &service.members[2];
    let args = json!({"cert": demoted.cert.to_pem(), "recovery_role": "NonParticipant"});
    service.pass("set_member", args);
    let after = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    assert_ne!(after.wrapped_latest_ledger_secret, before.wrapped_latest_ledger_secret);
    assert!(!after.encrypted_shares.contains_key(&demoted.id.to_string()));
    assert_eq!(after.encrypted_shares.len(), 2);
}

#[test]
fn an_owner_recovers_alone() {
    let service = Service::open();
    let owner = Member::new("owner", true, service.environment_entropy());
    let key = owner.encryption.as_ref().unwrap();
    let args = json!({"cert": owner.cert.to_pem(), "recovery_role": "Owner",
        "encryption_pub_key": key.public().to_pem()});
    service.pass("set_member", args);
    service.activate(&owner);
    let shares = service.look(|tx| RECOVERY_SHARES.expect(tx)).unwrap();
    let encrypted = &shares.encrypted_shares[&owner.id.to_string()];
    let full = Share::parse(&key.decrypt_oaep(&encrypted.0, b"").unwrap()).unwrap();
    assert!(full.is_full_key());
    let wrapped = GcmCipher::parse(&shares.wrapped_latest_ledger_secret.0).unwrap();
    let secret = wrapped.open(&full.wrapping_key(), b"").unwrap();
    assert_eq!(secret.as_slice(), service.keys.secret.key().as_bytes());
}

#[test]
fn a_service_that_could_not_live_is_refused() {
    let service = Service::new();
    let entropy = service.environment_entropy();
    let cert = coco_crypto::x509::Certificate::from_pem(&service.cert).unwrap();
    let good = NewService {
        cert: Pem(service.cert.clone()),
        service_data: Json::Null,
        config: ServiceConfig::default(),
        constitution: default_constitution(),
        members: service.members.iter().map(founding).collect(),
        node: new_node(&cert, &service.keys.key, entropy),
    };
    let create = |change: &dyn Fn(&mut NewService)| {
        let mut new = good.clone();
        change(&mut new);
        let mut tx = Store::new(View(2)).begin();
        create_service(&mut tx, &new, TxId::new(2, 1)).map(|()| tx)
    };
    let mut tx = create(&|_| ()).unwrap();
    let config = coco_governance::tables::SERVICE_CONFIG.expect(&mut tx).unwrap();
    assert_eq!(config.recovery_threshold, 3);
    assert!(
        MEMBERS.rows(&mut tx).unwrap().iter().all(|(_, it)| it.status == MemberStatus::Accepted)
    );

    let refused = |change: &dyn Fn(&mut NewService)| create(change).err().unwrap();
    assert_eq!(refused(&|new| new.members.clear()), GenesisError::NoMembers);
    let expected = GenesisError::Threshold { threshold: 4, members: 3 };
    assert_eq!(refused(&|new| new.config.recovery_threshold = 4), expected);
    let expected = GenesisError::DuplicateMember { index: 3 };
    assert_eq!(refused(&|new| new.members.push(new.members[0].clone())), expected);
    let broken = |new: &mut NewService| new.members[1].cert = Pem("no PEM".to_owned());
    assert!(matches!(refused(&broken), GenesisError::MemberCert { index: 1, .. }));
    let broken =
        |new: &mut NewService| new.members[2].encryption_public_key = Some(Pem(String::new()));
    assert!(matches!(refused(&broken), GenesisError::EncryptionKey { index: 2, .. }));
    let broken = |new: &mut NewService| new.members[0].encryption_public_key = None;
    assert!(matches!(refused(&broken), GenesisError::RoleWithoutKey { index: 0, .. }));
}
