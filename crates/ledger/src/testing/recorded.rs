//! Recorded ledgers of real services, for the tests of this crate.

use std::path::PathBuf;

use coco_kv::Seqno;

use crate::secret::{LedgerSecret, LedgerSecrets};

/// One recorded service.
pub(crate) struct Recorded {
    pub name: String,
    pub service_certificate: String,
    /// Chunks by name, in order of their first seqno.
    pub chunks: Vec<(String, Vec<u8>)>,
    pub snapshots: Vec<(String, Vec<u8>)>,
    pub secrets: LedgerSecrets,
}

/// All recorded services; none, said aloud, if the vectors are not here. Their absence is an error
/// in CI.
#[expect(clippy::disallowed_methods, reason = "tests read the recorded files")]
pub(crate) fn recorded() -> Vec<Recorded> {
    let base = std::env::var("COCO_VECTORS").map(PathBuf::from).unwrap_or_else(|_| {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors"))
    });
    let Ok(services) = std::fs::read_dir(base.join("ccf")) else {
        assert!(std::env::var("CI").is_err(), "CI has no vectors at {}", base.display());
        eprintln!("skipped: no vectors at {}", base.display());
        return Vec::new();
    };
    let files = |path: PathBuf, prefix: &str| {
        let mut files: Vec<(u64, String, Vec<u8>)> = std::fs::read_dir(path)
            .unwrap()
            .map(|file| file.unwrap())
            .filter_map(|file| {
                let name = file.file_name().into_string().unwrap();
                let digits: String =
                    name.strip_prefix(prefix)?.chars().take_while(char::is_ascii_digit).collect();
                Some((digits.parse().unwrap(), name, std::fs::read(file.path()).unwrap()))
            })
            .collect();
        files.sort();
        files.into_iter().map(|(_, name, bytes)| (name, bytes)).collect()
    };
    let mut services: Vec<_> = services.map(|service| service.unwrap().path()).collect();
    services.sort();
    services
        .into_iter()
        .map(|path| {
            let text = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
            let decryption: serde_json::Value =
                serde_json::from_str(&text("decryption.json")).unwrap();
            let mut secrets = LedgerSecrets::new();
            for (from, raw) in decryption["periods"].as_object().unwrap() {
                let mut secret = [0; 32];
                hex::decode_to_slice(raw.as_str().unwrap(), &mut secret).unwrap();
                secrets.insert(Seqno(from.parse().unwrap()), LedgerSecret::new(secret));
            }
            Recorded {
                name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                service_certificate: text("common/service_cert.pem"),
                chunks: files(path.join("ledger"), "ledger_"),
                snapshots: files(path.join("snapshots"), "snapshot_"),
                secrets,
            }
        })
        .collect()
}

impl Recorded {
    /// The entries of all chunks.
    pub fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().flat_map(|(_, bytes)| {
            let table = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let mut rest = &bytes[8..if table == 0 { bytes.len() } else { table }];
            std::iter::from_fn(move || {
                let frame = u64::from_le_bytes(rest.get(..8)?.try_into().unwrap());
                let (entry, after) = rest.split_at(8 + (frame >> 16) as usize);
                rest = after;
                Some(entry)
            })
        })
    }
}
