//! Who takes part and who leads, and what becomes of whoever waits meanwhile.

use super::*;

#[test]
fn nodes_that_are_trusted_learn_the_ledger_and_then_count() {
    in_virtual_time(async {
        let mut service = Service::of(1).await;
        for key in 0..100 {
            write(&service.nodes[0], key, "before they came").await;
        }
        service = service.with(3).await;
        let tx_id = write(&service.nodes[0], 200, "after").await;
        service.converge().await;
        for node in &service.nodes {
            assert_eq!(node.pipeline.status(tx_id), TxStatus::Committed);
            let receipt = node.pipeline.receipt(tx_id).await.unwrap();
            receipt.verify(service.key.public()).unwrap();
            let early = node.pipeline.receipt(TxId::new(2, 9)).await.unwrap();
            early.verify(service.key.public()).unwrap();
        }
        let backup = &service.nodes[1];
        let refused = backup.pipeline.commit(put(backup, 1, "x"), &Outcome::default());
        assert_eq!(refused, Err(CommitError::NotPrimary));
        service.stop().await;
    });
}

#[test]
fn a_primary_that_is_cut_off_is_replaced_and_its_pending_transactions_get_their_answer() {
    in_virtual_time(async {
        let service = Service::of(3).await;
        let old = &service.nodes[0];
        let kept = write(old, 1, "kept").await;
        service.cut_off(old.id);
        let lost: Vec<_> = (0..300)
            .map(|key| {
                let tx = put(old, 1_000 + key, "lost");
                let (executed, fate) =
                    old.pipeline.commit_and_wait(tx, &Outcome::default()).unwrap();
                (executed.tx_id, tokio::spawn(fate))
            })
            .collect();
        let cut_at = tokio::time::Instant::now();
        let new = service.elected().await;
        assert_ne!(new.id, old.id);
        assert!(cut_at.elapsed() < Duration::from_secs(1), "{:?}", cut_at.elapsed());
        // It has it, and learns that it is committed.
        assert_eq!(new.pipeline.wait_committed(kept).await, TxStatus::Committed);
        let written = write(new, 2, "later").await;
        assert!(written.view > kept.view);
        service.heal();
        for (tx_id, fate) in lost {
            assert_eq!(fate.await.unwrap(), TxStatus::Invalid, "{tx_id}");
        }
        service.converge().await;
        let expected = BTreeMap::from([(1, "kept".to_owned()), (2, "later".to_owned())]);
        assert_eq!(records(old), expected);
        assert_eq!(old.pipeline.status(written), TxStatus::Committed);
        let refused = old.pipeline.commit(put(old, 1, "x"), &Outcome::default());
        assert_eq!(refused, Err(CommitError::NotPrimary));
        service.stop().await;
    });
}

#[test]
fn leadership_goes_round_while_clients_write() {
    in_virtual_time(async {
        let service = Arc::new(Service::of(3).await);
        let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let (service, acknowledged) = (Arc::clone(&service), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    for number in 0..60 {
                        tokio::time::sleep(Duration::from_millis(20 + writer)).await;
                        let key = writer * 1_000 + number;
                        let node = service.elected().await;
                        let tx = put(node, key, "value");
                        let Ok((executed, fate)) =
                            node.pipeline.commit_and_wait(tx, &Outcome::default())
                        else {
                            continue;
                        };
                        // A node that is cut off keeps its clients waiting until it hears more.
                        let wait = Duration::from_secs(5);
                        if let Ok(status) = tokio::time::timeout(wait, fate).await {
                            acknowledged.lock().insert(key, (executed.tx_id, status));
                        }
                    }
                })
            })
            .collect();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let primary = service.elected().await.id;
            service.cut_off(primary);
            tokio::time::sleep(Duration::from_millis(500)).await;
            service.heal();
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let node = service.elected().await;
        write(node, 9_999, "last").await;
        service.converge().await;
        let records = records(&service.nodes[0]);
        let acknowledged = std::mem::take(&mut *acknowledged.lock());
        let committed = acknowledged.values().filter(|(_, it)| *it == TxStatus::Committed);
        assert!(committed.count() > 100);
        for (key, (tx_id, status)) in acknowledged {
            assert_eq!(records.contains_key(&key), status == TxStatus::Committed, "{key} {tx_id}");
            for node in &service.nodes {
                assert_eq!(node.pipeline.status(tx_id), status, "{tx_id}");
            }
        }
        Arc::into_inner(service).unwrap().stop().await;
    });
}

#[test]
fn a_node_that_is_retired_leaves_and_a_primary_that_stops_hands_over() {
    in_virtual_time(async {
        let service = Service::of(4).await;
        let (first, leaving) = (&service.nodes[0], &service.nodes[3]);
        set_status(first, leaving, NodeStatus::Retired).await;
        while first.pipeline.membership().voters.len() != 3 {
            tokio::time::sleep(TICK).await;
        }
        assert!(!first.pipeline.membership().nodes().contains(&leaving.id));
        write(first, 1, "by three").await;
        let stopped_at = tokio::time::Instant::now();
        first.pipeline.stop().await;
        service.cut_off(first.id);
        let next = service.elected().await;
        assert!(stopped_at.elapsed() < Duration::from_millis(100), "{:?}", stopped_at.elapsed());
        write(next, 2, "by two").await;
    });
}

#[test]
fn a_primary_that_stops_does_not_wait_for_a_quorum_that_is_gone() {
    in_virtual_time(async {
        let service = Service::of(3).await;
        let first = &service.nodes[0];
        for other in &service.nodes[1..] {
            service.cut_off(other.id);
        }
        let transaction = put(first, 1, "for nobody");
        let (_, fate) = first.pipeline.commit_and_wait(transaction, &Outcome::default()).unwrap();
        let fate = tokio::spawn(fate);
        let stopped = tokio::time::timeout(Duration::from_secs(3), first.pipeline.stop());
        stopped.await.expect("it stops when it no longer leads");
        assert_eq!(fate.await.unwrap(), TxStatus::Pending, "the others may have it");
    });
}
