//! Keys and certificates of members and participants, in files named as CCF's keygenerator.sh does:
//!
//! ```text
//! NAME_cert.pem       certificate, self-signed        NAME_enc_pubk.pem    RSA public key
//! NAME_privk.pem      its private key                 NAME_enc_privk.pem   its private key
//! ```

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use coco_crypto::x509::{DistinguishedName, Validity};
use coco_crypto::{Certificate, Curve, KeyPair, RsaKeyPair};
use coco_host::SystemEntropy;

use crate::governance_message::now_seconds;
use crate::service::identity_files;

/// Bits of a member's encryption key, as CCF's keygenerator.sh makes it.
const ENCRYPTION_KEY_BITS: u32 = 2048;

/// A fresh identity.
pub(crate) struct Identity {
    pub(crate) key: KeyPair,
    pub(crate) certificate: Certificate,
    /// Recovery shares are encrypted to it.
    pub(crate) encryption_key: Option<RsaKeyPair>,
}

/// Which identity to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) curve: Curve,
    pub(crate) days: u32,
    pub(crate) encryption_key: bool,
}

impl Identity {
    /// Makes the keys and a certificate `CN=name`, valid from now.
    pub(crate) fn generate(wanted: Wanted<'_>) -> Result<Self> {
        let key = KeyPair::generate(wanted.curve, &SystemEntropy)?;
        let now = i64::try_from(now_seconds())?;
        let validity = Validity::days(now, wanted.days);
        let subject = DistinguishedName::common_name(wanted.name);
        let certificate = Certificate::for_member(&key, &subject, validity, &SystemEntropy)?;
        let encryption_key = match wanted.encryption_key {
            true => Some(RsaKeyPair::generate(ENCRYPTION_KEY_BITS)?),
            false => None,
        };
        Ok(Self { key, certificate, encryption_key })
    }

    /// Writes the files into a folder; none may be there already. Gives their names.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
        let (cert, key) = identity_files(folder, name);
        let mut files = vec![
            (cert, self.certificate.to_pem(), PUBLIC),
            (key, self.key.to_pem().to_string(), PRIVATE),
        ];
        if let Some(encryption_key) = &self.encryption_key {
            let (public, private) = encryption_key_files(folder, name);
            files.push((public, encryption_key.public().to_pem(), PUBLIC));
            files.push((private, encryption_key.to_pem().to_string(), PRIVATE));
        }
        for (file, text, mode) in &files {
            create(file, text, *mode)
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        Ok(files.into_iter().map(|(file, ..)| file).collect())
    }
}

/// The files of an encryption key: public, private.
pub(crate) fn encryption_key_files(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}_enc_pubk.pem")), folder.join(format!("{name}_enc_privk.pem")))
}

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

fn create(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use coco_crypto::CoseSign1;
    use coco_crypto::cbor::Value;
    use coco_crypto::cose::label;

    use super::*;
    use crate::governance_message::Kind;
    use crate::service::load_signer;

    fn wanted(curve: Curve, encryption_key: bool) -> Wanted<'static> {
        Wanted { name: "alice", curve, days: 365, encryption_key }
    }

    #[test]
    fn written_files_are_read_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let identity = Identity::generate(wanted(Curve::P256, true)).unwrap();
        let files = identity.write(folder.path(), "alice").unwrap();
        assert_eq!(files.len(), 4);
        let signer = load_signer(&files[0], &files[1]).unwrap();
        assert_eq!(signer.id, identity.certificate.fingerprint());
        let mode = |file: &PathBuf| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(files.iter().map(mode).collect::<Vec<_>>(), [0o644, 0o600, 0o644, 0o600]);
        let text = std::fs::read_to_string(&files[3]).unwrap();
        let restored = RsaKeyPair::from_pem(&text).unwrap();
        assert_eq!(restored.public().to_pem(), std::fs::read_to_string(&files[2]).unwrap());
        assert!(identity.write(folder.path(), "alice").is_err(), "nothing is overwritten");
    }

    #[test]
    fn the_wrong_key_is_refused() {
        let folder = tempfile::TempDir::new().unwrap();
        let mut files = Vec::new();
        for name in ["alice", "bob"] {
            let identity = Identity::generate(wanted(Curve::P384, false)).unwrap();
            files.extend(identity.write(folder.path(), name).unwrap());
        }
        let refused = load_signer(&files[0], &files[3]).map(|signer| signer.id);
        assert!(format!("{:#}", refused.unwrap_err()).contains("not the certificate's"));
    }

    /// The envelope of governance messages, to the byte up to the signature.
    #[test]
    fn messages_have_ccfs_envelope() {
        for (curve, algorithm) in [(Curve::P256, -7), (Curve::P384, -35)] {
            let identity = Identity::generate(wanted(curve, false)).unwrap();
            let pem = identity.key.to_pem();
            let signer =
                crate::governance_message::Signer::from_pem(&identity.certificate.to_pem(), &pem)
                    .unwrap();
            let kind = Kind::Ballot { proposal_id: "abcd" };
            let message = signer.sign(kind, 1_700_000_000, b"{}");
            let parsed = CoseSign1::parse(&message).unwrap();
            parsed.verify(identity.key.public(), None).unwrap();
            assert_eq!(parsed.payload(), Some(&b"{}"[..]));
            let header: Vec<(Value, Value)> =
                parsed.protected().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            let text = |text: &str| Value::Text(text.to_owned());
            let expected = [
                (Value::Int(label::ALGORITHM.into()), Value::Int(algorithm)),
                (Value::Int(label::KEY_ID.into()), Value::Bytes(signer.id().into_bytes())),
                (text("ccf.gov.msg.type"), text("ballot")),
                (text("ccf.gov.msg.created_at"), Value::Int(1_700_000_000)),
                (text("ccf.gov.msg.proposal_id"), text("abcd")),
            ];
            assert_eq!(header, expected);
            assert_eq!(message[..2], [0xd2, 0x84], "tag 18, an array of four");
            let ack = signer.sign(Kind::Ack, 1, b"");
            let ack = CoseSign1::parse(&ack).unwrap();
            assert_eq!(ack.protected().get("ccf.gov.msg.proposal_id"), None);
            assert_eq!(ack.payload(), Some(&b""[..]));
        }
    }
}
