//! Several enclaves in one process, each with its host: they join, replicate over their channels,
//! lose a primary, and retire.

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

use coco_adapter::{CommitError, Outcome, TxStatus};
use coco_crypto::{Digest, sha256};
use coco_enclave::node::Node;
use coco_governance::tables::{NODES, NodeStatus};
use coco_kv::{MapName, Seqno};
use linked::{Network, open, read, until, write};
use simulated::in_virtual_time;
use simulated::node::audited;

async fn set_status(node: &Node, id: Digest, status: NodeStatus) {
    let mut tx = node.pipeline().store().begin();
    let mut info = NODES.get(&mut tx, &id).unwrap().unwrap();
    info.status = status;
    NODES.put(&mut tx, &id, &info);
    let (_, fate) = node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
    assert_eq!(fate.await, TxStatus::Committed);
}

#[test]
fn three_enclaves_join_replicate_and_survive_their_primary() {
    in_virtual_time(async {
        let network = Network::of(3).await;
        open(network.node(0)).await;
        let first = write(network.node(0), "a", "1").await;
        network.agree().await;
        for member in &network.members {
            assert_eq!(read(&member.node, "a").as_deref(), Some("1"));
            let receipt = member.node.pipeline().receipt(first).await.unwrap();
            let identity = member.node.identity();
            receipt.verify(&identity.service_certificate.public_key().unwrap()).unwrap();
        }
        let mut tx = network.node(1).pipeline().store().begin();
        tx.put(&MapName::new("records"), "b", "at a backup");
        let refused = network.node(1).pipeline().commit(tx, &Outcome::default());
        assert_eq!(refused, Err(CommitError::NotPrimary));

        network.fabric.cut_off(0);
        let cut_at = tokio::time::Instant::now();
        let next = network.primary().await;
        assert_ne!(next, 0);
        assert!(cut_at.elapsed() < Duration::from_secs(1), "{:?}", cut_at.elapsed());
        let second = write(network.node(next), "b", "2").await;
        assert!(second.view > first.view);
        network.fabric.heal();
        network.agree().await;
        assert_eq!(read(network.node(0), "b").as_deref(), Some("2"));
        let key = network.node(0).identity().service_certificate.public_key().unwrap();
        for member in &network.members {
            member.node.shutdown().await;
            let report = audited(&member.disk, key.clone());
            assert!(report.last.seqno >= second.seqno);
        }
    });
}

#[test]
fn a_node_of_other_code_does_not_join() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        let before = network.node(0).pipeline().last_committed();
        let refused = network.try_add(sha256(b"another program")).await.unwrap_err().to_string();
        assert!(refused.contains("401") && refused.contains("InvalidQuote"), "{refused}");
        assert!(refused.contains("host data"), "{refused}");
        assert_eq!(network.node(0).pipeline().last_committed(), before);
    });
}

#[test]
fn a_node_waits_until_members_trust_it_and_leaves_when_they_retire_it() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        open(network.node(0)).await;
        write(network.node(0), "a", "1").await;
        let first = network.node(0).clone();
        let pending = || {
            let mut tx = first.pipeline().store().begin();
            let rows = NODES.rows(&mut tx).unwrap();
            rows.into_iter().find(|(_, info)| info.status == NodeStatus::Pending)
        };
        let trusted = async {
            until(|| pending().is_some()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (id, info) = pending().unwrap();
            // What the action of members does.
            let csr = info.certificate_signing_request.unwrap();
            let csr = coco_crypto::SigningRequest::from_pem(&csr.0).unwrap();
            let (keys, identity) = (first.service_keys(), first.identity());
            let key = coco_governance::ServiceControl::service_key(&**keys);
            let validity = identity.node_certificate.validity();
            let entropy = first.host().entropy();
            let service = &identity.service_certificate;
            let endorsed = csr.endorse(service, &key, validity, entropy).unwrap();
            let mut tx = first.pipeline().store().begin();
            let endorsed = coco_governance::tables::Pem(endorsed.to_pem());
            coco_governance::tables::NODE_ENDORSED_CERTS.put(&mut tx, &id, &endorsed);
            first.pipeline().commit(tx, &Outcome::default()).unwrap();
            set_status(&first, id, NodeStatus::Trusted).await;
        };
        let (joined, ()) = tokio::join!(network.try_add(sha256(b"program")), trusted);
        let second = network.node(joined.unwrap()).clone();
        network.settle(2).await;
        assert_eq!(read(&second, "a").as_deref(), Some("1"));

        set_status(&first, second.id(), NodeStatus::Retired).await;
        until(|| first.pipeline().membership().voters.len() == 1).await;
        let is_over = || {
            let mut tx = first.pipeline().store().begin();
            NODES.get(&mut tx, &second.id()).unwrap().unwrap().retired_committed
        };
        until(is_over).await;
        let after = write(&first, "b", "2").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(second.pipeline().last_committed().seqno < after.seqno, "it hears no more");
    });
}

#[test]
fn a_node_that_asks_no_more_is_forgotten() {
    in_virtual_time(async {
        let timeout = r#", "pending_node_timeout": "10s""#;
        let mut network = Network::default().configured("", timeout).with(1).await;
        open(network.node(0)).await;
        let first = network.node(0).clone();
        let waiting = || {
            let rows = NODES.rows(&mut first.pipeline().store().begin()).unwrap();
            rows.iter().filter(|(_, info)| info.status == NodeStatus::Pending).count()
        };
        let asks = network.try_add(sha256(b"program"));
        assert!(tokio::time::timeout(Duration::from_secs(40), asks).await.is_err());
        assert_eq!(waiting(), 1, "it asks all the time");
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(waiting(), 1);
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(waiting(), 0);
    });
}

#[test]
fn a_node_that_comes_late_gets_the_whole_ledger() {
    in_virtual_time(async {
        let mut network = Network::of(1).await;
        for number in 0..300 {
            write(network.node(0), &format!("key {}", number % 7), &number.to_string()).await;
        }
        let before = network.node(0).pipeline().last_committed().seqno;
        assert!(before > Seqno(500));
        network.try_add(sha256(b"program")).await.unwrap();
        network.settle(2).await;
        network.agree().await;
        assert_eq!(read(network.node(1), "key 5").as_deref(), Some("299"));
    });
}
