//! What anybody may read.

use coco_crypto::sha256;
use serde_json::json;

use super::harness::Service;

#[test]
fn the_service_describes_itself() {
    let service = Service::active();
    let expected = json!({
        "status": "Opening",
        "certificate": service.cert,
        "recoveryCount": 0,
        "creationTransactionId": "2.1",
        "serviceData": {"name": "test"},
        "configuration": {
            "recoveryThreshold": 2,
            "maximumNodeCertificateValidityDays": 365,
            "maximumServiceCertificateValidityDays": 365,
            "recentCoseProposalsWindowSize": 100,
        },
    });
    assert_eq!(service.get("/service/info").expect(200).json(), expected);
    let constitution = service.get("/service/constitution").expect(200);
    assert_eq!(constitution.content_type, "text/javascript");
}

#[test]
fn members_and_nodes_are_listed() {
    let service = Service::new();
    let all = service.get("/service/members").expect(200).json();
    let all = all["value"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    let member = &service.members[0];
    let expected = json!({
        "memberId": member.id.to_string(),
        "status": "Accepted",
        "memberData": null,
        "certificate": member.cert.to_pem(),
        "recoveryRole": "Participant",
        "publicEncryptionKey": member.encryption.as_ref().unwrap().public().to_pem(),
    });
    assert!(all.contains(&expected), "{all:?}");

    let node = service.get(&format!("/service/nodes/{}", service.node)).expect(200).json();
    assert_eq!(node["status"], "Trusted");
    assert_eq!(node["retiredCommitted"], false);
    let interfaces =
        json!({"primary": {"publishedAddress": "example.com:443", "protocol": "HTTP1"}});
    assert_eq!(node["rpcInterfaces"], interfaces);
    assert_eq!(node["quoteInfo"]["format"], "Insecure_Virtual");
    let host_data = sha256(b"the program").to_string();
    assert_eq!(node["quoteInfo"]["details"]["hostData"], json!(host_data));
    assert!(node["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    let nodes = service.get("/service/nodes").expect(200).json();
    assert_eq!(nodes, json!({"value": [node]}));
    let users = service.get("/service/users").expect(200).json();
    assert_eq!(users, json!({"value": []}));

    let policy = service.get("/service/join-policy").expect(200).json();
    let measurement = "Insecure hard-coded virtual measurement v1";
    assert_eq!(policy["virtual"], json!({"measurements": [measurement], "hostData": [host_data]}));
    assert_eq!(policy["sgx"], json!({"measurements": []}));
}

#[test]
fn transactions_have_a_status() {
    let service = Service::new();
    let expected = json!({"status": "Committed", "transactionId": "2.1"});
    assert_eq!(service.get("/service/transactions/commit").expect(200).json(), expected);
    assert_eq!(service.get("/service/transactions/2.1").expect(200).json(), expected);
    let unknown = service.get("/service/transactions/3.9").expect(200).json();
    assert_eq!(unknown, json!({"status": "Unknown", "transactionId": "3.9"}));
}
