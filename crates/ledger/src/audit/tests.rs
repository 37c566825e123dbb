use super::*;
use crate::chunk::ChunkReader;
use crate::testing::{Recorded, recorded};

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
