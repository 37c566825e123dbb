//! Nodes that ask to join, are trusted, and are retired.

use coco_crypto::Certificate;
use coco_crypto::x509::Validity;
use coco_governance::tables::{NODE_ENDORSED_CERTS, NODES, NodeStatus};
use coco_kv::Tx;
use serde_json::json;

use super::harness::{Service, new_node};

fn status(tx: &mut Tx, id: &coco_crypto::Digest) -> Option<NodeStatus> {
    NODES.get(tx, id).unwrap().map(|info| info.status)
}

/// Why a proposal that members accept does not take effect.
#[track_caller]
fn failed(service: &Service, action: &str, args: serde_json::Value) -> String {
    service.decide(action, args).refused(500, "InternalError")
}

#[test]
fn members_trust_a_node_that_asks_and_retire_it() {
    let service = Service::open();
    let cert = Certificate::from_pem(&service.cert).unwrap();
    let asking = new_node(&cert, &service.keys.key, service.environment_entropy());
    let id = asking.id;
    service.write(|tx| NODES.put(tx, &id, &asking.info));

    let from = "2026-01-31T00:00:00Z";
    let too_long =
        json!({"node_id": id.to_string(), "valid_from": from, "validity_period_days": 366});
    let why = failed(&service, "transition_node_to_trusted", too_long);
    assert!(why.contains("validity_period_days must be at most 365, not 366"), "{why}");

    service.pass(
        "transition_node_to_trusted",
        json!({"node_id": id.to_string(), "valid_from": from, "validity_period_days": 9}),
    );
    let (info, endorsed) = service.look(|tx| {
        let endorsed = NODE_ENDORSED_CERTS.get(tx, &id).unwrap().unwrap();
        (NODES.get(tx, &id).unwrap().unwrap(), Certificate::from_pem(&endorsed.0).unwrap())
    });
    assert_eq!(info.status, NodeStatus::Trusted);
    assert_eq!(info.ledger_secret_seqno, Some(1));
    endorsed.verify_signed_by(&cert).unwrap();
    assert_eq!(endorsed.validity(), Validity::days(1_769_817_600, 9));
    assert_eq!(coco_crypto::sha256(endorsed.spki_der()), id);

    service.pass("remove_node", json!({"node_id": id.to_string()}));
    assert_eq!(service.look(|tx| status(tx, &id)), Some(NodeStatus::Retired));
    let again = json!({"node_id": id.to_string(), "valid_from": from});
    let why = failed(&service, "transition_node_to_trusted", again);
    assert!(why.contains("is Retired"), "{why}");
}

#[test]
fn a_node_that_was_never_trusted_is_forgotten_and_the_last_one_stays() {
    let service = Service::open();
    let cert = Certificate::from_pem(&service.cert).unwrap();
    let asking = new_node(&cert, &service.keys.key, service.environment_entropy());
    service.write(|tx| NODES.put(tx, &asking.id, &asking.info));
    service.pass("remove_node", json!({"node_id": asking.id.to_string()}));
    assert_eq!(service.look(|tx| status(tx, &asking.id)), None);

    service.pass("remove_node", json!({"node_id": asking.id.to_string()}));
    let trust = json!({"node_id": asking.id.to_string(), "valid_from": "260131000000Z"});
    let why = failed(&service, "transition_node_to_trusted", trust);
    assert!(why.contains("does not exist"), "{why}");
    let why = failed(&service, "remove_node", json!({"node_id": service.node.to_string()}));
    assert!(why.contains("is the only one that is trusted"), "{why}");
}
