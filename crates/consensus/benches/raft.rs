//! CPU per batch of a log on several nodes: `cargo bench -p coco-consensus`.
//!
//! All nodes run on one thread, every frame is encoded and decoded, every batch is "persisted" at
//! once; so the time is that of all nodes together, and of nothing but the log.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;

use bytes::Bytes;
use coco_consensus::{Batch, Change, Consensus, Effect, NodeId, Raft, Settings};
use coco_crypto::Digest;
use coco_kv::{Seqno, TxId, View};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Batches proposed before the network is served, as a pipeline does under load.
const PIPELINED: u64 = 100;

struct Network {
    nodes: BTreeMap<NodeId, Raft>,
    frames: VecDeque<(NodeId, NodeId, Bytes)>,
}

fn id(number: u8) -> NodeId {
    NodeId(Digest([number; 32]))
}

impl Network {
    fn of(count: u8) -> Self {
        let first = Raft::start(Settings::default(), id(1), View(2), TxId::default());
        let mut network = Self { nodes: BTreeMap::from([(id(1), first)]), frames: VecDeque::new() };
        for node in (2..=count).map(id) {
            network.nodes.insert(node, Raft::join(Settings::default(), node));
            for change in [Change::Learner(node), Change::Voter(node)] {
                let batch = network.next_batch(Bytes::new());
                network.primary().propose_change(batch, &[change]).unwrap();
                network.settle();
                (0..4).for_each(|_| network.primary().tick());
                network.settle();
            }
        }
        network
    }

    fn primary(&mut self) -> &mut Raft {
        self.nodes.get_mut(&id(1)).unwrap()
    }

    fn next_batch(&mut self, entries: Bytes) -> Batch {
        let end = self.primary().end().seqno;
        Batch {
            first: end.next(),
            last: TxId { view: View(2), seqno: Seqno(end.0 + 100) },
            entries,
        }
    }

    fn settle(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        loop {
            for node in &ids {
                let raft = self.nodes.get_mut(node).unwrap();
                while let Some(effect) = raft.next_effect() {
                    match effect {
                        Effect::Persist(write, _) => raft.persisted(write).unwrap(),
                        Effect::Install(at) => raft.installed(at).unwrap(),
                        Effect::Send(to, frame) => self.frames.push_back((*node, to, frame)),
                        other => drop(black_box(other)),
                    }
                }
            }
            let Some(_) = self.frames.front() else { return };
            for (from, to, frame) in std::mem::take(&mut self.frames) {
                self.nodes.get_mut(&to).unwrap().receive(from, frame).unwrap();
            }
        }
    }
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("all nodes, per batch");
    group.throughput(Throughput::Elements(PIPELINED));
    for (nodes, bytes) in [(1, 256), (3, 256), (3, 25_600), (5, 25_600)] {
        let mut network = Network::of(nodes);
        let entries = Bytes::from(vec![7; bytes]);
        group.bench_function(format!("{nodes} nodes, {bytes} B"), |bencher| {
            bencher.iter(|| {
                for _ in 0..PIPELINED {
                    let batch = network.next_batch(entries.clone());
                    network.primary().propose(batch).unwrap();
                }
                network.settle();
                let committed = network.primary().committed();
                network.nodes.values_mut().for_each(|node| node.compact(committed));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
