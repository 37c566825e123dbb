//! A ledger file as an auditor reads it, and as a node recovers it.
#![no_main]

use std::sync::LazyLock;

use coco_crypto::{Curve, Entropy, KeyPair, PublicKey};
use coco_kv::Seqno;
use coco_ledger::audit::{AuditOptions, Auditor, chunk_order};
use coco_ledger::{ChunkName, MAX_BATCHES_IN_FLIGHT, recover_open_chunk};
use libfuzzer_sys::fuzz_target;

struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

/// Whom the auditor trusts: not who signed any of the seeds, so all but the verdict is reached.
static SERVICE: LazyLock<PublicKey> =
    LazyLock::new(|| KeyPair::generate(Curve::P384, &Sevens).unwrap().public().clone());

fuzz_target!(|bytes: &[u8]| {
    let name = ChunkName::open(Seqno(1));
    if let Ok(recovered) = recover_open_chunk(name, bytes, None, MAX_BATCHES_IN_FLIGHT) {
        assert!(recovered.end_offset <= bytes.len().max(8) as u64);
        let _ = recovered.repair();
    }
    for name in ["ledger_1", "ledger_1-20.committed"] {
        let service = SERVICE.clone();
        let options = AuditOptions { service, secrets: None, accept_torn_tail: true };
        let mut auditor = Auditor::new(options);
        if auditor.chunk(name, bytes, &mut |_| {}).is_ok() {
            let _ = auditor.finish();
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = chunk_order(text.lines().map(str::to_owned));
    }
});
