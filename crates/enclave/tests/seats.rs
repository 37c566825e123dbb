//! Nodes that come back in seats which members have approved, and those who only say so.

#![allow(clippy::disallowed_methods, reason = "tests are on the host's side")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test"
)]

mod linked;
mod served;
mod simulated;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coco_attestation::Tee as _;
use coco_attestation::insecure::{InsecureSeed, SoftwareTee};
use coco_crypto::x509::DistinguishedName;
use coco_crypto::{Curve, Digest, RsaKeyPair, SigningRequest, sha256};
use coco_governance::default_constitution;
use coco_governance::seats::{Operator, Statement};
use coco_governance::tables::{
    CONSTITUTION, NODES, NodeStatus, Pem, SEATS, Seat, VIRTUAL_HOST_DATA,
};
use coco_kv::Seqno;
use linked::{Network, govern, open, read, until, write};
use serde_json::{Value as Json, json};
use served::Someone;
use served::client::Answer;
use simulated::in_virtual_time;
use simulated::node::audited;

fn someone(seed: u64) -> Someone {
    Someone::new(seed, Curve::P256, 365)
}

fn operator(of: &Someone) -> Operator {
    let (certificate, key) = of.pems();
    Operator::from_pem(&certificate, &key).unwrap()
}

fn address(number: usize) -> String {
    format!("node{number}:7000")
}

/// What members vote for.
async fn approve(network: &Network, number: usize, operator: &Someone) {
    govern(network, |tx| {
        CONSTITUTION.put(tx, &default_constitution());
        let operator_cert = Pem(operator.certificate.to_pem());
        SEATS.put(tx, &address(number), &Seat { operator_cert, node_id: None });
    })
    .await;
}

async fn three() -> Network {
    let network = Network::of(3).await;
    open(network.node(0)).await;
    write(network.node(0), "a", "1").await;
    network
}

fn status(network: &Network, id: Digest) -> Option<NodeStatus> {
    let mut tx = network.node(0).pipeline().store().begin();
    NODES.get(&mut tx, &id).unwrap().map(|info| info.status)
}

fn service_id(network: &Network) -> Digest {
    network.node(0).identity().service_certificate.public_key().unwrap().id()
}

/// A node in the hand of the test, as far as it joins.
struct Stranger {
    someone: Someone,
    number: usize,
    request: Json,
}

impl Stranger {
    fn new(seed: u64, number: usize, program: Digest) -> Self {
        let someone = someone(seed);
        let name = DistinguishedName::common_name("Node");
        let csr = SigningRequest::create(&someone.key, &name, &[]).unwrap();
        let tee = SoftwareTee::new(program, &InsecureSeed::new([7; 32]));
        let encryption_key = RsaKeyPair::generate(2_048).unwrap();
        let request = json!({
            "node_info_network": {
                "node_to_node_interface": {"bind_address": address(number)},
                "rpc_interfaces": {},
            },
            "quote_info": tee.evidence(&someone.key.public().id()).unwrap(),
            "public_encryption_key": encryption_key.public().to_pem(),
            "certificate_signing_request": csr.to_pem(),
        });
        Self { someone, number, request }
    }

    fn id(&self) -> Digest {
        self.someone.key.public().id()
    }

    async fn ask(
        &self,
        network: &Network,
        operator: &Operator,
        statement: Statement<'_>,
    ) -> Answer {
        let mut request = self.request.clone();
        request["seat_statement"] = json!(STANDARD.encode(operator.sign(statement)));
        let mut client = network.client(network.target, 8000, Some(&self.someone)).await;
        let extra = "content-type: application/json\r\n";
        client.call("POST", "/node/join", extra, request.to_string().as_bytes()).await
    }

    /// Asks as an honest node does.
    async fn ask_rightly(&self, network: &Network, operator: &Operator) -> Json {
        let (address, service_id) = (address(self.number), service_id(network));
        let statement = Statement { address: &address, node_id: self.id(), service_id };
        self.ask(network, operator, statement).await.json()
    }
}

fn refusal(answer: &Json) -> &str {
    assert_eq!(answer["node_status"], "Pending", "{answer}");
    assert_eq!(answer["network_info"], Json::Null);
    answer["seat_refusal"].as_str().unwrap()
}

#[test]
fn a_node_takes_the_seat_of_one_that_is_gone() {
    in_virtual_time(async {
        let mut network = three().await;
        let its = someone(1);
        approve(&network, 2, &its).await;
        let former = network.node(2).id();
        network.members[2].node.shutdown().await;
        let gone_at = tokio::time::Instant::now();
        network.try_replace(2, Some(operator(&its))).await.unwrap();
        network.settle(3).await;
        println!("counts {:?} after the other one was gone", gone_at.elapsed());
        network.agree().await;

        let next = network.node(2).id();
        assert_eq!(status(&network, former), Some(NodeStatus::Retired));
        assert_eq!(status(&network, next), Some(NodeStatus::Trusted));
        let voters = network.node(0).pipeline().membership().voters;
        assert!(voters.iter().any(|voter| voter.0 == next));
        assert!(voters.iter().all(|voter| voter.0 != former));
        let mut tx = network.node(0).pipeline().store().begin();
        let seat = SEATS.get(&mut tx, &address(2)).unwrap().unwrap();
        assert_eq!(seat.node_id, Some(next.to_string()));
        drop(tx);
        assert_eq!(read(network.node(2), "a").as_deref(), Some("1"));
        let after = write(network.node(0), "b", "2").await;

        // It takes part: with it, and without another one, there is a quorum.
        network.fabric.cut_off(1);
        let last = write(network.node(0), "c", "3").await;
        assert!(last.seqno > after.seqno);
        let key = network.node(0).identity().service_certificate.public_key().unwrap();
        for number in [0, 2] {
            network.node(number).shutdown().await;
        }
        let report = audited(&network.members[0].disk, key);
        assert!(report.last.seqno >= last.seqno && report.last.seqno > Seqno(0));
    });
}

#[test]
fn who_is_there_keeps_its_seat_as_long_as_it_answers() {
    in_virtual_time(async {
        let mut network = three().await;
        let its = someone(1);
        approve(&network, 2, &its).await;
        let former = network.node(2).clone();
        let first = network.node(0).clone();
        let stop = async {
            let is_pending = || {
                let mut tx = first.pipeline().store().begin();
                let rows = NODES.rows(&mut tx).unwrap();
                rows.iter().any(|(_, info)| info.status == NodeStatus::Pending)
            };
            until(is_pending).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(is_pending());
            assert_eq!(first.pipeline().membership().voters.len(), 3);
            former.shutdown().await;
        };
        let (replaced, ()) = tokio::join!(network.try_replace(2, Some(operator(&its))), stop);
        replaced.unwrap();
        network.settle(3).await;
        network.agree().await;
        assert_eq!(status(&network, former.id()), Some(NodeStatus::Retired));
    });
}

#[test]
fn a_new_primary_lets_a_node_take_the_seat_of_the_last_one() {
    in_virtual_time(async {
        let mut network = three().await;
        let its = someone(1);
        approve(&network, 0, &its).await;
        let first = network.node(0).id();
        let stranger = Stranger::new(2, 0, sha256(b"program"));
        // It answers itself, and so is there.
        let answer = stranger.ask_rightly(&network, &operator(&its)).await;
        assert!(refusal(&answer).contains(&format!("that of node {first}")), "{answer}");

        network.fabric.cut_off(0);
        network.target = network.primary().await;
        let successor = network.node(network.target).clone();
        let asked_at = tokio::time::Instant::now();
        while stranger.ask_rightly(&network, &operator(&its)).await["node_status"] != "Trusted" {
            assert!(asked_at.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut tx = successor.pipeline().store().begin();
        let former = NODES.get(&mut tx, &first).unwrap().unwrap();
        assert_eq!(former.status, NodeStatus::Retired);
        drop(tx);
        until(|| successor.pipeline().membership().voters.len() == 2).await;
    });
}

#[test]
fn only_its_operator_puts_a_node_into_a_seat() {
    in_virtual_time(async {
        let network = three().await;
        let (its, other) = (someone(1), someone(2));
        approve(&network, 5, &its).await;
        let right = operator(&its);

        let elsewhere = Stranger::new(10, 6, sha256(b"program"));
        let answer = elsewhere.ask_rightly(&network, &right).await;
        assert_eq!(refusal(&answer), "members have approved no seat at node6:7000");

        let node = Stranger::new(11, 5, sha256(b"program"));
        let answer = node.ask_rightly(&network, &operator(&other)).await;
        assert!(refusal(&answer).ends_with("another operator has signed"), "{answer}");

        // What the operator has signed for another node, address or service does not serve.
        let (seat, another) = (address(5), address(6));
        let statement =
            Statement { address: &seat, node_id: node.id(), service_id: service_id(&network) };
        for replayed in [
            Statement { node_id: elsewhere.id(), ..statement },
            Statement { address: &another, ..statement },
            Statement { service_id: sha256(b"another service"), ..statement },
        ] {
            let answer = node.ask(&network, &right, replayed).await.json();
            assert!(refusal(&answer).contains("not over this node"), "{answer}");
        }

        let other_code = Stranger::new(12, 5, sha256(b"another program"));
        let answer = other_code.ask_rightly(&network, &right).await;
        assert_eq!(answer["error"]["code"], "InvalidQuote");

        // Who waits is looked at again: members may have stopped trusting its code.
        let program = sha256(b"program").to_string();
        govern(&network, |tx| VIRTUAL_HOST_DATA.remove(tx, &program)).await;
        let answer = node.ask_rightly(&network, &right).await;
        assert!(refusal(&answer).starts_with("its evidence is not accepted"), "{answer}");
        let present = coco_governance::tables::Present;
        govern(&network, |tx| VIRTUAL_HOST_DATA.put(tx, &program, &present)).await;

        govern(&network, |tx| {
            let text = default_constitution().replace("return true;", "throw new Error('no');");
            CONSTITUTION.put(tx, &text);
        })
        .await;
        let answer = node.ask_rightly(&network, &right).await;
        assert_eq!(refusal(&answer), "the constitution's mayTakeSeat() failed");
        govern(&network, |tx| CONSTITUTION.put(tx, &default_constitution())).await;

        let answer = node.ask_rightly(&network, &right).await;
        assert_eq!(answer["node_status"], "Trusted", "{answer}");
        assert!(answer["network_info"]["sealed_secrets"].is_string());
        let again = node.ask_rightly(&network, &right).await;
        assert_eq!(again["node_status"], "Trusted");
    });
}

#[test]
fn of_two_that_race_for_a_seat_one_gets_it_until_it_is_gone() {
    in_virtual_time(async {
        let network = three().await;
        let its = someone(1);
        approve(&network, 5, &its).await;
        let operator = operator(&its);
        let (one, other) =
            (Stranger::new(10, 5, sha256(b"program")), Stranger::new(11, 5, sha256(b"program")));
        let (first, second) = tokio::join!(
            one.ask_rightly(&network, &operator),
            other.ask_rightly(&network, &operator)
        );
        let has_it = |answer: &Json| answer["node_status"] == "Trusted";
        assert!(has_it(&first) != has_it(&second), "{first} {second}");
        let (winner, loser) = if has_it(&first) { (&one, &other) } else { (&other, &one) };
        // What never was a voter is replaced without a change of the quorum.
        loop {
            assert_eq!(network.node(0).pipeline().membership().voters.len(), 3);
            let answer = loser.ask_rightly(&network, &operator).await;
            if has_it(&answer) {
                break;
            }
            assert!(refusal(&answer).contains("is not known to be gone"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(status(&network, winner.id()), Some(NodeStatus::Retired));
        assert_eq!(winner.ask_rightly(&network, &operator).await["node_status"], "Retired");
        assert_eq!(status(&network, loser.id()), Some(NodeStatus::Trusted));
        write(network.node(0), "b", "2").await;
        assert_eq!(network.node(0).pipeline().membership().voters.len(), 3);
    });
}
