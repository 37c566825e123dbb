//! Files that a node writes for its operator.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use coco_crypto::Certificate;
use coco_enclave::config::{CommandType, Config};

/// The process id in a file, while this exists.
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file; it must not be there, for then another node may run.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let created = OpenOptions::new().write(true).create_new(true).open(path);
        let mut file = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("PID file {} already exists. Exiting.", path.display())
            }
            created => created.with_context(|| format!("{} cannot be written", path.display()))?,
        };
        write!(file, "{}", std::process::id())
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "PID file {} cannot be removed", self.path.display());
        }
    }
}

/// What the operator is told when a node has started.
pub(crate) struct Started<'a> {
    pub(crate) config: &'a Config,
    pub(crate) service_certificate: &'a Certificate,
    pub(crate) node_certificate: &'a Certificate,
    pub(crate) addresses: &'a BTreeMap<String, SocketAddr>,
}

impl Started<'_> {
    /// Writes certificates and addresses where the configuration says.
    pub(crate) fn write(&self) -> Result<()> {
        let output = &self.config.output_files;
        write(&output.node_certificate_file, &self.node_certificate.to_pem())?;
        if self.config.command.kind != CommandType::Join {
            let file = &self.config.command.service_certificate_file;
            write(file, &self.service_certificate.to_pem())?;
        }
        let for_clients = |name: &str| self.config.interface(name).is_some();
        let addresses: BTreeMap<&str, String> = self
            .addresses
            .iter()
            .filter(|(name, _)| for_clients(name))
            .map(|(name, at)| (name.as_str(), at.to_string()))
            .collect();
        write(&output.rpc_addresses_file, &serde_json::to_string(&addresses)?)?;
        if let Some(interface) = &self.config.network.node_to_node_interface {
            write(&output.node_to_node_address_file, interface.address())?;
        }
        Ok(())
    }
}

/// Writes a whole file or none, so that a reader that polls sees it complete; an empty name means
/// that it is not wanted.
fn write(file: &str, text: &str) -> Result<()> {
    if file.is_empty() {
        return Ok(());
    }
    let draft = format!("{file}.new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, file))
        .with_context(|| format!("{file} cannot be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_pid_file() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("node.pid");
        let held = PidFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        let refused = PidFile::create(&path).map(drop).unwrap_err().to_string();
        assert!(refused.ends_with("node.pid already exists. Exiting."), "{refused}");
        drop(held);
        assert!(!path.exists());
    }
}
