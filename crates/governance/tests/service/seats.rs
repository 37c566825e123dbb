//! Nodes that take seats which members have approved.

use std::sync::Arc;

use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, Digest, KeyPair};
use coco_governance::seats::{Candidate, Operator, SeatError, Statement, StatementError, Usher};
use coco_governance::tables::{
    CONSTITUTION, NODE_ENDORSED_CERTS, NODES, NodeInfo, NodeStatus, Pem, SEATS, SERVICE_INFO, Seat,
    ServiceStatus,
};
use coco_governance::{ServiceControl as _, default_constitution};
use coco_script::ScriptEngine;
use serde_json::json;

use super::harness::{Keys, Member, NOW_S, Service, new_node};

const ADDRESS: &str = "10.0.0.2:8081";
/// Where the service's first node is.
const FIRST: &str = "[::1]:8001";

/// A service with a seat, and a node that asks for it.
struct Fixture {
    service: Service,
    operator: Operator,
    stranger: Operator,
    node_id: Digest,
    info: NodeInfo,
}

fn operator(member: &Member) -> Operator {
    Operator::from_pem(&member.cert.to_pem(), &member.key.to_pem()).unwrap()
}

impl Fixture {
    fn new() -> Self {
        Self::at(ADDRESS, Service::open())
    }

    fn at(address: &str, service: Service) -> Self {
        let entropy = service.environment_entropy();
        let its = Member::new("operator", false, entropy);
        let stranger = operator(&Member::new("stranger", false, entropy));
        let cert = Certificate::from_pem(&service.cert).unwrap();
        let node = new_node(&cert, &service.keys.key, entropy);
        let mut info = node.info;
        info.node_to_node_interface.as_mut().unwrap().published_address = Some(address.to_owned());
        service
            .pass("set_node_seat", json!({"address": address, "operator_cert": its.cert.to_pem()}));
        let operator = operator(&its);
        Self { service, operator, stranger, node_id: node.id, info }
    }

    fn statement(&self) -> Statement<'_> {
        let address = self.info.node_to_node_interface.as_ref().unwrap().address();
        let service_id = self.service.keys.service_key().public().id();
        Statement { address, node_id: self.node_id, service_id }
    }

    fn seat(&self, statement: &[u8], is_silent: bool) -> Result<NodeInfo, SeatError> {
        let mut seated = None;
        self.service.write(|tx| {
            let usher = Usher {
                control: &*self.service.keys,
                engine: &ScriptEngine::new(),
                environment: &self.service.environment,
                is_silent: &|_| is_silent,
            };
            let candidate = Candidate { node_id: self.node_id, info: &self.info, statement };
            seated = Some(usher.seat(tx, &candidate));
        });
        seated.unwrap()
    }

    fn seat_by(&self, operator: &Operator) -> Result<NodeInfo, SeatError> {
        self.seat(&operator.sign(self.statement()), false)
    }

    fn refused(&self) -> String {
        let refusal = self.seat_by(&self.operator).unwrap_err().to_string();
        assert_eq!(self.service.look(|tx| NODES.get(tx, &self.node_id)).unwrap(), None);
        refusal
    }

    fn constitution(&self, change: impl Fn(String) -> String) {
        self.service.write(|tx| CONSTITUTION.put(tx, &change(default_constitution())));
    }
}

#[test]
fn members_approve_a_seat_and_remove_it() {
    let Fixture { service, .. } = Fixture::at(FIRST, Service::open());
    let listed = service.get("/service/seats").expect(200).json();
    let seat = &listed["value"][0];
    assert_eq!(seat["address"], FIRST);
    assert_eq!(seat["nodeIds"], json!([service.node.to_string()]));
    let certificate = Certificate::from_pem(seat["operatorCertificate"].as_str().unwrap()).unwrap();
    assert_eq!(seat["operatorId"], certificate.fingerprint().to_string());

    service.pass("remove_node_seat", json!({"address": FIRST}));
    assert_eq!(service.get("/service/seats").expect(200).json(), json!({"value": []}));
    let again = service.decide("remove_node_seat", json!({"address": FIRST}));
    let why = again.refused(500, "InternalError");
    assert!(why.contains("A seat at [::1]:8001 does not exist"), "{why}");
}

#[test]
fn what_is_no_seat_is_not_proposed() {
    let service = Service::active();
    let cert = service.members[0].cert.to_pem();
    for (address, operator_cert, why) in [
        ("10.0.0.2", &*cert, "args.address must be an address like"),
        ("10.0.0.2:0", &cert, "args.address must be an address like"),
        ("a b:80", &cert, "args.address must be an address like"),
        ("::1:80", &cert, "args.address must be an address like"),
        (ADDRESS, "x", "args.operator_cert must be PEM"),
        (ADDRESS, &format!("{cert}{cert}"), "args.operator_cert must be a single"),
    ] {
        let args = json!({"address": address, "operator_cert": operator_cert});
        let proposed = service.propose(json!([{"name": "set_node_seat", "args": args}]));
        let message = proposed.refused(400, "ProposalFailedToValidate");
        assert!(message.contains(why), "{address}: {message}");
    }
}

#[test]
fn a_node_takes_its_seat_without_a_vote() {
    let fixture = Fixture::new();
    let info = fixture.seat_by(&fixture.operator).unwrap();
    assert_eq!((info.status, info.ledger_secret_seqno), (NodeStatus::Trusted, Some(1)));
    let (recorded, endorsed, seat) = fixture.service.look(|tx| {
        let endorsed = NODE_ENDORSED_CERTS.get(tx, &fixture.node_id).unwrap().unwrap();
        let seat = SEATS.get(tx, &ADDRESS.to_owned()).unwrap().unwrap();
        (NODES.get(tx, &fixture.node_id).unwrap(), endorsed, seat)
    });
    assert_eq!(recorded, Some(info));
    assert_eq!(seat.node_id, Some(fixture.node_id.to_string()));
    let endorsed = Certificate::from_pem(&endorsed.0).unwrap();
    let service = Certificate::from_pem(&fixture.service.cert).unwrap();
    endorsed.verify_signed_by(&service).unwrap();
    let validity = endorsed.validity();
    assert_eq!(validity.not_after_unix_s - validity.not_before_unix_s, 365 * 86_400 - 1);
    // The other node is elsewhere.
    let first = fixture.service.look(|tx| NODES.get(tx, &fixture.service.node)).unwrap().unwrap();
    assert_eq!(first.status, NodeStatus::Trusted);
}

#[test]
fn whoever_was_there_is_retired_once_it_is_gone() {
    let fixture = Fixture::at(FIRST, Service::open());
    let first = fixture.service.node;
    let status = || fixture.service.look(|tx| NODES.get(tx, &first)).unwrap().unwrap().status;
    let statement = fixture.operator.sign(fixture.statement());
    let refused = fixture.seat(&statement, false).unwrap_err();
    assert!(matches!(refused, SeatError::Taken { node_id, .. } if node_id == first), "{refused}");
    assert_eq!(status(), NodeStatus::Trusted);
    assert_eq!(fixture.seat(&statement, true).unwrap().status, NodeStatus::Trusted);
    assert_eq!(status(), NodeStatus::Retired);
}

#[test]
fn only_the_operator_of_the_seat_puts_a_node_there() {
    let fixture = Fixture::new();
    let refused = fixture.seat_by(&fixture.stranger).unwrap_err();
    let expected = StatementError::OtherOperator;
    assert!(matches!(refused, SeatError::Statement { error, .. } if error == expected));
    let right = fixture.statement();
    for wrong in [
        Statement { node_id: fixture.service.node, ..right },
        Statement { address: FIRST, ..right },
        Statement { service_id: fixture.node_id, ..right },
    ] {
        let refused = fixture.seat(&fixture.operator.sign(wrong), false).unwrap_err();
        let expected = "the signature is not over this node, address and service";
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    fixture.service.pass("remove_node_seat", json!({"address": ADDRESS}));
    assert_eq!(fixture.refused(), "members have approved no seat at 10.0.0.2:8081");
}

#[test]
fn the_constitution_decides() {
    let fixture = Fixture::new();
    let replaced = |body: &str| {
        fixture.constitution(|text| text.replace("return true;", body));
    };
    fixture.constitution(|text| text.replace("export function mayTakeSeat", "function elsewhere"));
    assert_eq!(fixture.refused(), "the constitution has every node voted for");
    replaced("return false;");
    assert_eq!(fixture.refused(), "the constitution does not let this node take its seat");
    for failing in ["throw new Error('no');", "return 1;", "for (;;) {}", "governed('x').clear();"]
    {
        replaced(failing);
        assert_eq!(fixture.refused(), "the constitution's mayTakeSeat() failed", "{failing}");
    }
    let id = fixture.node_id;
    replaced(&format!(
        "return _candidate.node_id === '{id}' && _candidate.address === '{ADDRESS}' \
         && _candidate.node.status === 'Pending' && _candidate.replaces.length === 0 \
         && governed('nodes.seats').has(ccf.strToBuf(_candidate.address)) \
         && _candidate.seat.operator_cert.startsWith('-----BEGIN');"
    ));
    assert!(fixture.seat_by(&fixture.operator).is_ok());
}

#[test]
fn a_constitution_says_it_with_one_parameter() {
    let service = Service::open();
    let with = |text: &str| json!({"constitution": default_constitution().replace("mayTakeSeat(_candidate)", text)});
    service.pass("set_constitution", with("unrelated(_candidate)"));
    let actions = json!([{"name": "set_constitution", "args": with("mayTakeSeat(a, b)")}]);
    let message = service.propose(actions).refused(400, "ProposalFailedToValidate");
    assert!(message.contains("mayTakeSeat must have 1 parameters, not 2"), "{message}");
}

#[test]
fn a_service_that_is_not_open_has_its_nodes_voted_for() {
    let fixture = Fixture::at(ADDRESS, Service::active());
    assert!(fixture.refused().ends_with("this one is Opening"));
    for status in [ServiceStatus::Recovering, ServiceStatus::WaitingForRecoveryShares] {
        fixture.service.write(|tx| {
            let mut info = SERVICE_INFO.expect(tx).unwrap();
            info.status = status;
            SERVICE_INFO.put(tx, &info);
        });
        assert!(fixture.refused().ends_with(&format!("this one is {}", status.as_str())));
    }
}

#[test]
fn a_seat_that_is_approved_anew_forgets_who_took_it() {
    let fixture = Fixture::new();
    fixture.seat_by(&fixture.operator).unwrap();
    let operator_cert = fixture.service.members[0].cert.to_pem();
    let args = json!({"address": ADDRESS, "operator_cert": operator_cert});
    fixture.service.pass("set_node_seat", args);
    let seat = fixture.service.look(|tx| SEATS.get(tx, &ADDRESS.to_owned())).unwrap();
    let operator_cert = Pem(operator_cert);
    assert_eq!(seat, Some(Seat { operator_cert, node_id: None }));
    // The node stays; only the next one is another operator's.
    let info = fixture.service.look(|tx| NODES.get(tx, &fixture.node_id)).unwrap().unwrap();
    assert_eq!(info.status, NodeStatus::Trusted);
}

#[test]
fn seats_outlive_a_recovery_and_statements_do_not() {
    let mut fixture = Fixture::at(FIRST, Service::open());
    let before = fixture.operator.sign(fixture.statement());
    let entropy = fixture.service.environment_entropy();
    let key = KeyPair::generate(Curve::P256, entropy).unwrap();
    let name = DistinguishedName::common_name("Service");
    let cert = Certificate::for_service(&key, &name, Validity::days(NOW_S, 30), entropy).unwrap();
    // What a recovery leaves: another identity, and the nodes of the last service retired.
    fixture.service.write(|tx| {
        let mut info = SERVICE_INFO.expect(tx).unwrap();
        info.cert = Pem(cert.to_pem());
        SERVICE_INFO.put(tx, &info);
        let mut first = NODES.get(tx, &fixture.service.node).unwrap().unwrap();
        first.status = NodeStatus::Retired;
        NODES.put(tx, &fixture.service.node, &first);
    });
    let secret = fixture.service.keys.secret.clone();
    fixture.service.keys = Arc::new(Keys { key: Arc::new(key), secret });
    let refused = fixture.seat(&before, false).unwrap_err();
    assert!(matches!(refused, SeatError::Statement { .. }), "{refused}");
    let info = fixture.seat_by(&fixture.operator).unwrap();
    assert_eq!(info.status, NodeStatus::Trusted);
}
