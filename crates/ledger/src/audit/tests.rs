use super::*;
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
