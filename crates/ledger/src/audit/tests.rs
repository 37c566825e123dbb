use std::sync::Arc;

use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, Digest, KeyPair, SigningRequest};
use coco_kv::{MapName, WriteSet};
use serde_json::json;

use super::*;
use crate::chunk::{ChunkReader, ChunkWriterConfig};
use crate::signature::{SignatureTransaction, SignedBy, Signer};
use crate::tables::{
    NODES_ENDORSED_CERTIFICATES, NODES_INFO, PREVIOUS_SERVICE_IDENTITY, SERVICE_INFO, SINGLE_KEY,
};
use crate::testing::{Counter, OwnLedger, Recorded, recorded};

impl Recorded {
    fn audit(&self, with_secrets: bool) -> Result<AuditReport, Fault> {
        audit_chunks(self, &self.chunks, with_secrets)
    }
}

fn audit_chunks(
    service: &Recorded,
    chunks: &[(String, Vec<u8>)],
    with_secrets: bool,
) -> Result<AuditReport, Fault> {
    let mut options = AuditOptions::of_certificate(&service.service_certificate).unwrap();
    options.secrets = with_secrets.then(|| service.secrets.clone());
    let mut source = Chunks(chunks);
    match audit(&mut source, Auditor::new(options), &mut |_| {}) {
        Ok(report) => Ok(report),
        Err(AuditError::Fault(fault)) => Err(*fault),
        Err(AuditError::Source { .. }) => unreachable!("reading from memory"),
    }
}

struct Chunks<'a>(&'a [(String, Vec<u8>)]);

impl ChunkSource for Chunks<'_> {
    type Bytes = Vec<u8>;
    type Error = std::convert::Infallible;

    fn names(&mut self) -> Result<Vec<String>, Self::Error> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn read(&mut self, name: &str) -> Result<Vec<u8>, Self::Error> {
        Ok(self.0.iter().find(|(other, _)| other == name).unwrap().1.clone())
    }
}

#[test]
fn every_recorded_ledger_passes() {
    for service in recorded() {
        for with_secrets in [false, true] {
            let report = service.audit(with_secrets).unwrap_or_else(|fault| {
                panic!("{}: {fault}", service.name);
            });
            let entries = service.entries().count() as u64;
            assert_eq!(report.stats.entries, entries);
            assert_eq!(report.stats.decrypted, if with_secrets { entries } else { 0 });
            assert_eq!(report.last.seqno.0, entries);
            assert!(report.unsigned() <= 1, "{}", service.name);
            assert_eq!(report.stats.chunks, service.chunks.len() as u64);
            assert!(report.stats.node_signatures > 0);
        }
    }
}

/// A ledger with a fault is to be refused with exactly this entry named.
struct Tampered<'a> {
    service: &'a Recorded,
    /// The auditor before each chunk, with and without secrets.
    before: Vec<[Auditor; 2]>,
}

impl<'a> Tampered<'a> {
    fn new(service: &'a Recorded) -> Self {
        let auditor = |with_secrets: bool| {
            let mut options = AuditOptions::of_certificate(&service.service_certificate).unwrap();
            options.secrets = with_secrets.then(|| service.secrets.clone());
            Auditor::new(options)
        };
        let mut at = [auditor(false), auditor(true)];
        let mut before = Vec::new();
        for (name, bytes) in &service.chunks {
            before.push(at.clone());
            at.iter_mut().for_each(|auditor| auditor.chunk(name, bytes, &mut |_| {}).unwrap());
        }
        Self { service, before }
    }

    /// The fault when chunk `index` has other bytes, or another name.
    fn fault(&self, index: usize, name: &str, bytes: &[u8], with_secrets: bool) -> Option<Fault> {
        let mut auditor = self.before[index][usize::from(with_secrets)].clone();
        auditor
            .chunk(name, bytes, &mut |_| {})
            .and_then(|()| {
                // The next signature is at the latest in the chunk after.
                let rest = &self.service.chunks[index + 1..];
                rest.iter()
                    .take(2)
                    .try_for_each(|(name, bytes)| auditor.chunk(name, bytes, &mut |_| {}))
            })
            .err()
    }

    fn expect(&self, index: usize, bytes: &[u8], with_secrets: bool, seqno: u64, what: &str) {
        let (name, _) = &self.service.chunks[index];
        self.expect_named(index, name, bytes, with_secrets, seqno, what);
    }

    fn expect_named(
        &self,
        index: usize,
        name: &str,
        bytes: &[u8],
        with_secrets: bool,
        seqno: u64,
        what: &str,
    ) {
        let place = format!("{what} of {seqno} in {} {name}", self.service.name);
        match self.fault(index, name, bytes, with_secrets) {
            None => panic!("{place}: not noticed"),
            Some(fault) => assert_eq!(fault.seqno.map(|s| s.0), Some(seqno), "{place}: {fault}"),
        }
    }

    fn last_signed(&self) -> u64 {
        self.service.audit(false).unwrap().last_signed.seqno.0
    }
}

/// The offsets of a chunk's entries, and where the last one ends.
fn offsets(chunk: &(String, Vec<u8>)) -> Vec<usize> {
    let reader = ChunkReader::new(chunk.0.parse().unwrap(), &chunk.1).unwrap();
    let mut offsets = Vec::new();
    for entry in reader.entries() {
        let entry = entry.unwrap();
        if offsets.is_empty() {
            offsets.push(entry.offset as usize);
        }
        offsets.push(entry.offset as usize + entry.bytes.len());
    }
    offsets
}

/// The same chunk with its entries in this order, and a table that fits.
fn with_entries(chunk: &(String, Vec<u8>), order: &[usize]) -> Vec<u8> {
    let offsets = offsets(chunk);
    let (mut bytes, mut table) = (chunk.1[..8].to_vec(), Vec::new());
    for at in order {
        table.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&chunk.1[offsets[*at]..offsets[at + 1]]);
    }
    if bytes[..8] != [0; 8] {
        let end = bytes.len() as u64;
        bytes[..8].copy_from_slice(&end.to_le_bytes());
        bytes.extend_from_slice(&table);
    }
    bytes
}

/// Where the parts of an entry are that a flipped bit may hit.
fn parts(entry: &[u8]) -> Vec<(&'static str, std::ops::Range<usize>)> {
    let public = u64::from_le_bytes(entry[36..44].try_into().unwrap()) as usize;
    let mut parts = vec![
        ("version", 0..1),
        ("size", 2..8),
        ("tag", 8..24),
        ("IV seqno", 24..32),
        ("IV view", 32..36),
        ("public length", 36..44),
        ("type and seqno", 44..53),
        ("digests and names", 53..(53 + 100).min(44 + public)),
        ("public domain", 53..44 + public),
    ];
    if entry.len() > 44 + public {
        parts.push(("ciphertext", 44 + public..entry.len()));
    }
    for (what, needle) in [
        ("node signature", &b"\"sig\":\""[..]),
        ("node root", b"\"root\":\""),
        ("node signature's position", b"\"seqno\":"),
        ("tree", b"ccf.internal.tree"),
    ] {
        if let Some(at) = entry.windows(needle.len()).position(|window| window == needle) {
            let start = at + needle.len() + if what == "tree" { 48 } else { 0 };
            let end = if what.ends_with("position") { start + 1 } else { start + 60 };
            parts.push((what, start..end));
        }
    }
    let cose = b"ccf.internal.cose_signatures";
    if let Some(at) = entry.windows(cose.len()).position(|window| window == cose) {
        // Past counts, key and length: the base64 text of header and signature.
        let start = at + cose.len() + 56;
        parts.extend([
            ("COSE header", start..start + 160),
            ("COSE signature", start + 200..start + 320),
        ]);
    }
    parts
}

#[test]
fn a_flipped_bit_names_its_entry() {
    for service in recorded() {
        let tampered = Tampered::new(&service);
        let last_signed = tampered.last_signed();
        let (mut seqno, mut random, mut tried) = (0, 1_u64, 0);
        for (index, chunk) in service.chunks.iter().enumerate() {
            for entry in offsets(chunk).windows(2) {
                seqno += 1;
                let bytes = &chunk.1[entry[0]..entry[1]];
                let is_signature = bytes.windows(17).any(|window| window == b"ccf.internal.tree");
                if seqno % 7 != 1 && !(is_signature && seqno % 3 == 0) && seqno + 12 < last_signed {
                    continue;
                }
                for (what, range) in parts(bytes) {
                    for with_secrets in [false, true] {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let at = range.start + (random >> 33) as usize % range.len();
                        let bit = (random >> 29) as u8 % 8;
                        let mut copy = chunk.1.clone();
                        copy[entry[0] + at] ^= 1 << bit;
                        // What the last signature does not cover, only its secret protects.
                        if seqno >= last_signed && !with_secrets {
                            let fault = tampered.fault(index, &chunk.0, &copy, false);
                            assert!(fault.is_none_or(|fault| fault.seqno.unwrap().0 == seqno));
                            continue;
                        }
                        tampered.expect(index, &copy, with_secrets, seqno, what);
                        tried += 1;
                    }
                }
                for flag in 0..8 {
                    let mut copy = chunk.1.clone();
                    copy[entry[0] + 1] ^= 1 << flag;
                    if seqno < last_signed {
                        tampered.expect(index, &copy, true, seqno, "flags");
                    }
                }
            }
        }
        assert!(tried > 100, "{}", service.name);
    }
}

#[test]
fn dropped_swapped_and_doubled_entries_are_named() {
    for service in recorded() {
        let tampered = Tampered::new(&service);
        let mut first = 1;
        for (index, chunk) in service.chunks.iter().enumerate() {
            let count = offsets(chunk).len() - 1;
            let all: Vec<usize> = (0..count).collect();
            assert_eq!(with_entries(chunk, &all), chunk.1, "the rebuilt chunk is the chunk");
            for at in (0..count).step_by(3) {
                let seqno = first + at as u64;
                let mut dropped = all.clone();
                dropped.remove(at);
                if at + 1 < count || chunk.0.contains('-') {
                    // Without its last entry a chunk is one short, if its name says so.
                    let seqno = if dropped.is_empty() { first } else { seqno };
                    tampered.expect(index, &with_entries(chunk, &dropped), false, seqno, "drop");
                }
                let mut doubled = all.clone();
                doubled.insert(at, at);
                tampered.expect(index, &with_entries(chunk, &doubled), false, seqno + 1, "double");
                if at + 1 < count {
                    let mut swapped = all.clone();
                    swapped.swap(at, at + 1);
                    tampered.expect(index, &with_entries(chunk, &swapped), false, seqno, "swap");
                }
            }
            first += count as u64;
        }
    }
}

#[test]
fn truncated_and_extended_chunks_are_named() {
    for service in recorded() {
        let tampered = Tampered::new(&service);
        let mut first = 1;
        for (index, chunk) in service.chunks.iter().enumerate() {
            let (offsets, is_open) = (offsets(chunk), !chunk.0.contains('-'));
            let count = offsets.len() - 1;
            for length in
                (0..chunk.1.len()).step_by(chunk.1.len() / 23 + 1).chain([chunk.1.len() - 1])
            {
                let whole = offsets.iter().filter(|end| **end <= length).count().saturating_sub(1);
                // An open chunk may well end behind any entry.
                if is_open && (offsets.contains(&length)) {
                    continue;
                }
                let file = &chunk.1[..length];
                let fault = tampered.fault(index, &chunk.0, file, false).unwrap();
                let expected = first + whole as u64;
                if whole < count {
                    assert_eq!(fault.seqno.unwrap().0, expected, "{length} {fault}");
                }
                assert_eq!(fault.file, chunk.0);
            }
            let next = first + count as u64;
            let longer = [&chunk.1[..], &[8, 0, 0, 0]].concat();
            tampered.expect(index, &longer, false, next, "four more bytes");
            let longer = [&chunk.1[..], &[1]].concat();
            assert!(tampered.fault(index, &chunk.0, &longer, false).is_some());
            first = next;
        }
    }
}

#[test]
fn renamed_and_missing_chunks_are_named() {
    for service in recorded() {
        let tampered = Tampered::new(&service);
        let mut first = 1;
        for (index, chunk) in service.chunks.iter().enumerate() {
            let next = first + offsets(chunk).len() as u64 - 1;
            let (other_start, bytes) =
                (format!("ledger_{}-{}.committed", first + 1, next), &chunk.1);
            tampered.expect_named(index, &other_start, bytes, false, first, "renamed");
            if chunk.0.contains('-') {
                let other_end = format!("ledger_{first}-{next}.committed");
                tampered.expect_named(index, &other_end, bytes, false, next, "renamed");
            }
            if index + 1 < service.chunks.len() {
                let mut chunks = service.chunks.clone();
                chunks.remove(index);
                let fault = audit_chunks(&service, &chunks, false).unwrap_err();
                assert_eq!(fault.seqno.unwrap().0, first, "{fault}");
                assert!(matches!(*fault.kind, FaultKind::Gap { .. }));
            }
            first = next;
        }
        let mut chunks = service.chunks.clone();
        chunks[0].0.push('x');
        let fault = audit_chunks(&service, &chunks, false).unwrap_err();
        assert!(matches!(*fault.kind, FaultKind::Name(_)));
    }
}

#[test]
fn another_service_is_refused() {
    let services = recorded();
    for (one, other) in services.iter().zip(services.iter().skip(1)) {
        let mut options = AuditOptions::of_certificate(&other.service_certificate).unwrap();
        options.accept_torn_tail = true;
        let mut auditor = Auditor::new(options);
        for (name, bytes) in &one.chunks {
            auditor.chunk(name, bytes, &mut |_| {}).unwrap();
        }
        assert_eq!(*auditor.finish().unwrap_err().kind, FaultKind::OtherService);
    }
}

#[test]
fn an_audit_goes_on_from_a_snapshot() {
    for service in recorded() {
        for (name, bytes) in &service.snapshots {
            let name: crate::SnapshotName = name.parse().unwrap();
            let file = crate::SnapshotFile::read(bytes, crate::StateWanted::Public).unwrap();
            let mut options = AuditOptions::of_certificate(&service.service_certificate).unwrap();
            options.secrets = Some(service.secrets.clone());
            let mut auditor = Auditor::after_snapshot(options, &file).unwrap();
            for (chunk, bytes) in &service.chunks {
                if chunk.parse::<ChunkName>().unwrap().start > name.seqno {
                    auditor.chunk(chunk, bytes, &mut |_| {}).unwrap();
                }
            }
            let whole = service.audit(true).unwrap();
            let report = auditor.finish().unwrap();
            assert_eq!((report.last, report.views), (whole.last, whole.views));
        }
    }
}

#[test]
fn an_empty_ledger_is_refused() {
    for service in recorded() {
        let fault = audit_chunks(&service, &[], false).unwrap_err();
        assert_eq!(*fault.kind, FaultKind::NoChunks);
    }
}

/// The service that is trusted in what follows; no ledger here has its key.
fn victim() -> Certificate {
    OwnLedger::empty(Curve::P384, ChunkWriterConfig::default()).service
}

fn own_ledger() -> OwnLedger {
    OwnLedger::new(Curve::P256, ChunkWriterConfig::default())
}

fn audit_own(ledger: &OwnLedger, trusted: &Certificate) -> Result<AuditReport, FaultKind> {
    let mut auditor = Auditor::new(AuditOptions::of_certificate(&trusted.to_pem()).unwrap());
    let chunks = ledger.disk.chunks();
    let read = chunks.iter().try_for_each(|(name, it)| auditor.chunk(name, it, &mut |_| {}));
    read.and_then(|()| auditor.finish()).map_err(|fault| *fault.kind)
}

/// A signature transaction without the service's signature, as CCF writes it.
fn sign_by_node(ledger: &mut OwnLedger, signer: &Signer) {
    let (tx_id, flushed) = (ledger.next(), ledger.last_signed());
    let by = SignedBy::ServiceAndNode;
    let signed = SignatureTransaction::sign(tx_id, &ledger.tree, flushed, signer, by, 0).unwrap();
    let signed = SignatureTransaction { service: None, ..signed };
    ledger.append(&signed.writes(), Digest::ZERO);
    ledger.signatures.push((tx_id, Arc::new(signed)));
}

/// What a recovery writes: `next` is the identity from here on.
fn succession(ledger: &OwnLedger, next: &Certificate) -> WriteSet {
    let mut writes = WriteSet::new();
    let info = json!({"cert": next.to_pem(), "status": "Opening"}).to_string();
    writes.put(&MapName::new(SERVICE_INFO), SINGLE_KEY, info);
    let previous = json!(ledger.service.to_pem()).to_string();
    writes.put(&MapName::new(PREVIOUS_SERVICE_IDENTITY), SINGLE_KEY, previous);
    writes
}

/// A node with a certificate that it has signed itself.
fn stranger(seed: u64) -> Signer {
    let entropy = Counter::new(seed);
    let key = Arc::new(KeyPair::generate(Curve::P256, &entropy).unwrap());
    let name = DistinguishedName::common_name("CCF Node");
    let own = Certificate::for_service(&key, &name, Validity::days(0, 1), &entropy).unwrap();
    let (issuer, subject) = ("issuer".into(), "subject".into());
    let (service_key, node_certificate) = (Arc::clone(&key), own.to_pem());
    Signer { node_key: key, node_certificate, service_key, issuer, subject }
}

fn node_id(signer: &Signer) -> String {
    signer.node_key.public().id().to_string()
}

/// The nodes' table as before CCF 2.0, with the certificate in it.
fn put_node(writes: &mut WriteSet, signer: &Signer, status: &str) {
    let info = json!({"status": status, "cert": signer.node_certificate}).to_string();
    writes.put(&MapName::new(NODES_INFO), node_id(signer).as_str(), info);
}

#[test]
fn an_identity_that_nobody_has_signed_does_not_count() {
    let mut ledger = own_ledger();
    ledger.put(1);
    ledger.sign();
    let writes = succession(&ledger, &victim());
    ledger.append(&writes, Digest::ZERO);
    assert_eq!(audit_own(&ledger, &victim()).unwrap_err(), FaultKind::OtherService);
    let report = audit_own(&ledger, &ledger.service).unwrap();
    assert_eq!((report.identities.len(), report.unsigned()), (1, 1));
}

#[test]
fn nodes_of_an_identity_do_not_sign_for_the_next() {
    let mut ledger = own_ledger();
    ledger.sign();
    let writes = succession(&ledger, &victim());
    ledger.append(&writes, Digest::ZERO);
    let signer = ledger.signer.clone();
    sign_by_node(&mut ledger, &signer);
    let fault = audit_own(&ledger, &victim()).unwrap_err();
    let expected = ServiceFault::SignerNotEndorsed(node_id(&signer));
    assert_eq!(fault, FaultKind::Service(expected));
}

#[test]
fn a_node_that_nobody_has_endorsed_does_not_sign() {
    let mut ledger = OwnLedger::empty(Curve::P256, ChunkWriterConfig::default());
    let signer = stranger(30);
    let mut writes = WriteSet::new();
    let info = json!({"cert": victim().to_pem(), "status": "Opening"}).to_string();
    writes.put(&MapName::new(SERVICE_INFO), SINGLE_KEY, info);
    put_node(&mut writes, &signer, "Trusted");
    ledger.append(&writes, Digest::ZERO);
    sign_by_node(&mut ledger, &signer);
    let fault = audit_own(&ledger, &victim()).unwrap_err();
    let expected = ServiceFault::SignerNotEndorsed(node_id(&signer));
    assert_eq!(fault, FaultKind::Service(expected));
}

#[test]
fn nothing_is_signed_before_there_is_a_service() {
    let mut ledger = OwnLedger::empty(Curve::P256, ChunkWriterConfig::default());
    let signer = stranger(30);
    let mut writes = WriteSet::new();
    put_node(&mut writes, &signer, "Trusted");
    ledger.append(&writes, Digest::ZERO);
    sign_by_node(&mut ledger, &signer);
    let fault = audit_own(&ledger, &victim()).unwrap_err();
    assert_eq!(fault, FaultKind::Service(ServiceFault::NoService));
}

/// Nodes that joined before CCF 2.0 have certificates that they have signed themselves.
#[test]
fn a_node_is_endorsed_by_what_the_service_has_signed() {
    let mut ledger = own_ledger();
    let joined = stranger(31);
    let mut writes = WriteSet::new();
    put_node(&mut writes, &joined, "Trusted");
    ledger.append(&writes, Digest::ZERO);
    let first = ledger.signer.clone();
    sign_by_node(&mut ledger, &first);
    sign_by_node(&mut ledger, &joined);
    audit_own(&ledger, &ledger.service).unwrap();
    // As long as that is not signed, it has nothing to sign with, and never if it is retired.
    let (late, retired) = (stranger(32), stranger(33));
    for (signer, status, signs_before) in [(&late, "Trusted", false), (&retired, "Retired", true)] {
        let mut ledger = own_ledger();
        let mut writes = WriteSet::new();
        put_node(&mut writes, signer, status);
        ledger.append(&writes, Digest::ZERO);
        if signs_before {
            sign_by_node(&mut ledger, &first);
        }
        sign_by_node(&mut ledger, signer);
        let fault = audit_own(&ledger, &ledger.service).unwrap_err();
        let expected = ServiceFault::SignerNotEndorsed(node_id(signer));
        assert_eq!(fault, FaultKind::Service(expected));
    }
}

#[test]
fn a_snapshot_gives_no_keys_to_nodes_of_earlier_identities() {
    let mut ledger = own_ledger();
    let before = ledger.signer.clone();
    ledger.sign();
    ledger.recover();
    let service = ServiceHistory::of_state(&ledger.state).unwrap();
    let root = ledger.tree.root();
    let sign = |signer: &Signer| {
        let (tx_id, flushed) = (ledger.next(), ledger.last_signed());
        let by = SignedBy::ServiceAndNode;
        let signed = SignatureTransaction::sign(tx_id, &ledger.tree, flushed, signer, by, 0);
        SignatureTransaction { service: None, ..signed.unwrap() }
    };
    service.verify(&sign(&ledger.signer), root).unwrap();
    let refused = service.verify(&sign(&before), root);
    assert_eq!(refused, Err(ServiceFault::SignerNotEndorsed(node_id(&before))));
}

#[test]
fn a_recovered_ledger_is_of_the_identity_that_signed_last() {
    let mut ledger = own_ledger();
    ledger.sign();
    let first = ledger.service.clone();
    ledger.recover();
    assert_eq!(audit_own(&ledger, &first).unwrap().identities.len(), 1);
    assert_eq!(audit_own(&ledger, &ledger.service).unwrap_err(), FaultKind::OtherService);
    ledger.sign();
    assert_eq!(audit_own(&ledger, &ledger.service).unwrap().identities.len(), 2);
    assert_eq!(audit_own(&ledger, &first).unwrap_err(), FaultKind::OtherService);
}

#[test]
fn a_renewed_certificate_of_a_node_is_endorsed_by_the_present_service() {
    let mut ledger = own_ledger();
    let key = ledger.signer.node_key.clone();
    let name = DistinguishedName::common_name("CCF Node");
    let entropy = Counter::new(34);
    let request = SigningRequest::create(&key, &name, &[]).unwrap();
    let (service, service_key) = (&ledger.service, &ledger.signer.service_key);
    let renewed = request.endorse(service, service_key, Validity::days(0, 2), &entropy).unwrap();
    let mut writes = WriteSet::new();
    let map = MapName::new(NODES_ENDORSED_CERTIFICATES);
    writes.put(&map, node_id(&ledger.signer).as_str(), renewed.to_pem());
    ledger.append(&writes, Digest::ZERO);
    let signer = Signer { node_certificate: renewed.to_pem(), ..ledger.signer.clone() };
    sign_by_node(&mut ledger, &signer);
    audit_own(&ledger, &ledger.service).unwrap();
}

/// Several chunks, none of them committed: complete ones, and an open one.
fn uncommitted() -> (OwnLedger, Vec<(String, Vec<u8>)>) {
    let config = ChunkWriterConfig { chunk_bytes: 6_000, write_ahead_bytes: 4_096 };
    let mut ledger = OwnLedger::new(Curve::P256, config);
    for number in 0..11 {
        ledger.put(number);
        ledger.sign();
    }
    let chunks = ledger.disk.chunks();
    assert!(chunks.len() > 2 && !chunks.last().unwrap().0.contains('-'));
    (ledger, chunks)
}

fn audit_after_crash(
    ledger: &OwnLedger,
    chunks: &[(String, Vec<u8>)],
) -> Result<AuditReport, FaultKind> {
    let mut options = AuditOptions::of_certificate(&ledger.service.to_pem()).unwrap();
    options.accept_torn_tail = true;
    let audited = audit(&mut Chunks(chunks), Auditor::new(options), &mut |_| {});
    audited.map_err(|error| match error {
        AuditError::Fault(fault) => *fault.kind,
        AuditError::Source { .. } => unreachable!("reading from memory"),
    })
}

fn table_offset(file: &[u8]) -> usize {
    u64::from_le_bytes(file[..8].try_into().unwrap()) as usize
}

#[test]
fn a_chunk_that_was_only_created_is_empty() {
    let (ledger, mut chunks) = uncommitted();
    let whole = audit_after_crash(&ledger, &chunks).unwrap();
    let next = whole.last.seqno.next();
    // Behind a chunk that is still open, and in the place of one.
    let open = chunks.last().unwrap().0.clone();
    for len in [0, 3, 7, 8, 4_096] {
        let mut with_next = chunks.clone();
        with_next.push((format!("ledger_{next}"), vec![0; len]));
        let report = audit_after_crash(&ledger, &with_next).unwrap();
        assert_eq!((report.last, report.torn_tail), (whole.last, None), "{len}");

        *chunks.last_mut().unwrap() = (open.clone(), vec![0; len]);
        let report = audit_after_crash(&ledger, &chunks).unwrap();
        let start = open.parse::<ChunkName>().unwrap().start;
        assert_eq!((report.last.seqno.next(), report.torn_tail), (start, None), "{len}");
        chunks = ledger.disk.chunks();
    }
}

#[test]
fn a_chunk_that_was_being_completed_is_whole_up_to_its_table() {
    let (ledger, mut chunks) = uncommitted();
    chunks.pop();
    let whole = audit_after_crash(&ledger, &chunks).unwrap();
    assert_eq!(whole.torn_tail, None);
    let (name, file) = chunks.pop().unwrap();
    let table = table_offset(&file);
    let with_zeros = |from: usize, to: usize| {
        let mut copy = file.clone();
        copy[from..to].fill(0);
        copy
    };
    let torn = (table..file.len()).map(|end| file[..end].to_vec());
    let torn = torn.chain([with_zeros(table, file.len()), with_zeros(0, 8)]);
    let start = name.parse::<ChunkName>().unwrap().start;
    for (at, torn) in torn.enumerate() {
        for name in [name.clone(), format!("ledger_{start}")] {
            chunks.push((name.clone(), torn.clone()));
            let report = audit_after_crash(&ledger, &chunks).unwrap();
            assert_eq!(report.last, whole.last, "{name} {at}");
            assert_eq!(report.torn_tail, Some((name, table as u64)), "{at}");
            chunks.pop();
        }
        // What is named committed is exact.
        chunks.push((format!("{name}.committed"), torn));
        audit_after_crash(&ledger, &chunks).unwrap_err();
        chunks.pop();
    }
}

#[test]
fn what_was_on_its_way_behind_a_torn_chunk_is_left_out() {
    let (ledger, mut chunks) = uncommitted();
    let (open, last) = chunks.pop().unwrap();
    let (complete, file) = chunks.pop().unwrap();
    let torn_at = table_offset(&file) - 100;
    let mut torn = file.clone();
    torn[torn_at..].fill(0);
    let name: ChunkName = complete.parse().unwrap();
    let signed: Vec<u64> = ledger.signatures.iter().map(|(tx_id, _)| tx_id.seqno.0).collect();
    let kept = *signed.iter().rfind(|seqno| **seqno < name.end().unwrap().0).unwrap();
    let with = |next: (String, Vec<u8>)| {
        let more = [(complete.clone(), torn.clone()), next];
        audit_after_crash(&ledger, &[&chunks[..], &more].concat())
    };
    let in_flight = *offsets(&(open.clone(), last.clone())).last().unwrap();
    for len in [0, 8, 100, in_flight] {
        let report = with((open.clone(), last[..len].to_vec())).unwrap();
        assert_eq!(report.last_signed.seqno.0, kept, "{len}");
        let (file, _) = report.torn_tail.unwrap();
        assert_eq!(file, complete);
    }
    // More than that, or anything committed, was written after it.
    let mut longer = OwnLedger::new(Curve::P256, ChunkWriterConfig::default());
    for _ in 0..3 {
        longer.sign();
    }
    let longer = longer.disk.chunks().pop().unwrap().1;
    let gap = |fault| matches!(fault, FaultKind::Gap { .. });
    assert!(gap(with((open.clone(), longer)).unwrap_err()));
    let start = name.end().unwrap().next();
    let committed = format!("ledger_{start}-{}.committed", start.next());
    assert!(gap(with((committed, last)).unwrap_err()));
}
