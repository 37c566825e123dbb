//! What nodes take from each other, bring each other and take back.

use super::*;

#[test]
fn what_a_node_passes_on_to_others_it_does_not_keep() {
    in_virtual_time(async {
        let service = Service::of(1).await;
        for key in 0..100 {
            write(&service.nodes[0], key, "value").await;
        }
        let service = service.with(2).await;
        let historical = &service.nodes[0].pipeline.inner.historical;
        let early = TxId::new(2, 9);
        assert!(historical.cached_state(early).is_none());
        historical.state(early).await.unwrap();
        assert!(historical.cached_state(early).is_some(), "who asks may ask again");
        service.stop().await;
    });
}

#[test]
fn a_snapshot_is_due_only_when_the_one_before_is_written() {
    in_virtual_time(async {
        let service = Service::of(1).await;
        let pipeline = &service.nodes[0].pipeline;
        let write_all = async |keys: std::ops::Range<u64>| {
            for key in keys {
                write(&service.nodes[0], key, "value").await;
            }
        };
        write_all(0..200).await;
        let first = pipeline.take_snapshot_due().unwrap().state.tx_id().seqno;
        write_all(200..400).await;
        assert!(pipeline.take_snapshot_due().is_none(), "the first is being written");
        pipeline.snapshot_done(first);
        write_all(400..401).await;
        let second = pipeline.take_snapshot_due().unwrap().state.tx_id().seqno;
        assert!(second > first, "{second} after {first}");
        service.stop().await;
    });
}

#[test]
fn a_node_that_was_away_for_long_gets_the_ledger_from_others() {
    in_virtual_time(async {
        let mut service = Service::new();
        service.max_kept_bytes = 4 << 10;
        let service = service.with(3).await;
        let away = &service.nodes[2];
        write(&service.nodes[0], 1, "together").await;
        service.cut_off(away.id);
        for key in 0..200 {
            write(&service.nodes[0], key, "without it").await;
        }
        assert!(away.pipeline.last_committed().seqno < Seqno(100));
        service.heal();
        service.converge().await;
        service.stop().await;
    });
}

#[test]
fn work_rests_by_its_ease_but_not_for_ever() {
    in_virtual_time(async {
        let host = SimulatedHost::new(1, SimulatedDisk::new());
        let mut rests = Rests::at_most(Duration::from_secs(3), 2);
        let mut rest_after = async |milliseconds| {
            let begun = host.uptime();
            host.sleep(Duration::from_millis(milliseconds)).await;
            let done = host.uptime();
            rests.after(&host, begun).await;
            (host.uptime() - done).as_millis()
        };
        assert_eq!(rest_after(6).await, 12);
        assert_eq!(rest_after(2000).await, 2988);
        assert_eq!(rest_after(2000).await, 0);
    });
}

/// The primary is gone. Of the other two, one must have the ledger up to what the other has and has
/// not heard to be committed, nor can hear before the first has it.
#[test]
fn what_a_node_must_install_it_gets_from_one_that_does_not_know_it_as_committed() {
    in_virtual_time(async {
        let mut service = Service::new();
        service.max_kept_bytes = 4 << 10;
        let service = service.with(3).await;
        let [primary, unaware, lagging] = &service.nodes[..] else { panic!("three nodes") };
        write(primary, 1, "together").await;
        service.cut_off(lagging.id);
        for key in 0..200 {
            write(primary, key, "without it").await;
        }
        let moment = Duration::from_millis(1);
        let tx = put(primary, 999, "not told");
        let (executed, fate) = primary.pipeline.commit_and_wait(tx, &Outcome::default()).unwrap();
        let fate = tokio::spawn(fate);
        while unaware.pipeline.store().head().seqno < executed.tx_id.seqno {
            tokio::time::sleep(moment).await;
        }
        service.network.lost.lock().insert((primary.id, unaware.id));
        assert_eq!(fate.await.unwrap(), TxStatus::Committed);
        service.heal();
        let at = loop {
            let installing = *lagging.pipeline.inner.installing.lock();
            if let Some(at) = installing {
                break at;
            }
            tokio::time::sleep(moment).await;
        };
        service.cut_off(primary.id);
        assert!(at.seqno >= executed.tx_id.seqno);
        assert_eq!(unaware.pipeline.status(executed.tx_id), TxStatus::Pending);

        // It gives that to whoever names it, and nothing more to anybody else.
        let after = unaware.pipeline.last_committed().seqno;
        let given = async |to: u64, committed| {
            let entries = unaware.pipeline.ledger(after, Seqno(to), committed).await.unwrap();
            let (mut rest, mut count) = (&entries[..], 0);
            while !rest.is_empty() {
                rest = split_entry(rest).unwrap().1;
                count += 1;
            }
            after.0 + count
        };
        assert_eq!(given(u64::MAX, at).await, at.seqno.0);
        assert_eq!(given(at.seqno.0 - 1, at).await, at.seqno.0 - 1);
        let others = [(0, 0), (1, at.seqno.0), (3, at.seqno.0), (2, at.seqno.0 + 1)];
        for (view, seqno) in others {
            assert_eq!(given(u64::MAX, TxId::new(view, seqno)).await, after.0, "{view}.{seqno}");
        }

        let gone_at = tokio::time::Instant::now();
        let goes_on = async { write(service.elected().await, 2, "by two").await };
        tokio::time::timeout(Duration::from_secs(60), goes_on).await.expect("it goes on");
        assert!(gone_at.elapsed() < Duration::from_secs(2), "{:?}", gone_at.elapsed());
        assert_eq!(unaware.pipeline.status(executed.tx_id), TxStatus::Committed);
        service.network.lost.lock().clear();
        service.heal();
        service.converge().await;
        service.stop().await;
    });
}

/// It stood in memory, and has valid signatures.
#[test]
fn what_was_taken_back_is_given_to_nobody() {
    in_virtual_time(async {
        let service = Service::of(3).await;
        let old = &service.nodes[0];
        let kept = write(old, 1, "kept").await.seqno;
        service.cut_off(old.id);
        let lost = old.pipeline.commit(put(old, 2, "lost"), &Outcome::default()).unwrap().tx_id;
        let new = service.elected().await;
        write(new, 3, "later").await;
        let historical = &old.pipeline.inner.historical;
        let first = lost.seqno;
        let void = historical.entries(first, first).await.unwrap();
        service.heal();
        service.converge().await;
        assert_ne!(historical.entries(first, first).await.unwrap(), void, "it is forgotten");
        let given = async |node: &TestNode| {
            let last = node.pipeline.last_committed().seqno;
            node.pipeline.ledger(kept, last, TxId::default()).await.unwrap()
        };
        assert_eq!(given(old).await, given(new).await);
        service.stop().await;
    });
}

/// What is wrong with a signature shows only when it is verified, while the disk may work already.
#[test]
fn a_batch_with_a_wrong_signature_is_refused_and_the_right_one_taken() {
    in_virtual_time(async {
        let service = Service::of(2).await;
        write(&service.nodes[0], 1, "value").await;
        service.converge().await;
        let backup = &service.nodes[1].pipeline.inner;
        let signer = service.nodes[0].pipeline.inner.keys.signer();
        let (end, secrets) = (backup.store.head(), backup.keys.secrets());
        let tx_id = TxId { view: end.view, seqno: end.seqno.next() };
        let tree = backup.writer.lock().tree_to(end.seqno).unwrap();
        let sign = |tree: &MerkleTree| {
            let by = SignedBy::ServiceAndNode;
            SignatureTransaction::sign(tx_id, tree, end.seqno.0, signer, by, 0).unwrap()
        };
        let batch = |signature: &SignatureTransaction| {
            let (writes, flags) = (signature.writes(), EntryFlags::NONE);
            let secret = secrets.secret_for(tx_id.seqno).unwrap();
            let entry = encode_entry(tx_id, &writes, Digest::ZERO, secret, flags).unwrap();
            Batch { first: tx_id.seqno, last: tx_id, entries: entry.bytes.into() }
        };
        let mut other_tree = tree.clone();
        assert!(other_tree.retract_to(end.seqno.0));
        other_tree.append(Digest([7; 32]));
        let (right, other) = (sign(&tree), sign(&other_tree));
        let mut of_node = right.clone();
        of_node.node.as_mut().unwrap().signature = other.node.unwrap().signature;
        let of_service = SignatureTransaction { service: other.service, ..right.clone() };
        let without_node = SignatureTransaction { node: None, ..of_service.clone() };
        let without_service = SignatureTransaction { service: None, ..right.clone() };
        let refused = backup.apply(&batch(&without_service)).unwrap_err().to_string();
        assert!(refused.contains("last entry is none"), "{refused}");
        for wrong in [of_node, of_service, without_node] {
            let refused = backup.apply(&batch(&wrong)).unwrap_err().to_string();
            assert!(refused.contains("does not verify"), "{refused}");
            assert_eq!(backup.store.head(), end);
            assert_eq!(backup.writer.lock().last(), end.seqno);
        }
        backup.apply(&batch(&right)).unwrap();
        assert_eq!(backup.store.head(), tx_id);
    });
}

#[test]
fn a_batch_holds_no_more_than_the_log_takes() {
    in_virtual_time(async {
        let service = Service::of(1).await;
        let node = &service.nodes[0];
        let value = "x".repeat(12 << 20);
        let mut fates = Vec::new();
        for number in 0..20 {
            loop {
                let transaction = put(node, number, &value);
                match node.pipeline.commit_and_wait(transaction, &Outcome::default()) {
                    Ok((_, fate)) => break fates.push(fate),
                    Err(error) => assert_eq!(error, CommitError::TooManyPending),
                }
                assert!(number > 4, "there is room for some");
                node.pipeline.more_committed().await;
            }
        }
        for fate in fates {
            assert_eq!(fate.await, TxStatus::Committed);
        }
        assert!(!node.pipeline.has_failed());
    });
}
