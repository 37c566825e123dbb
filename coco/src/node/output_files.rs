//! Files that a node writes for its operator.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use coco_crypto::Certificate;
use coco_enclave::config::{CommandType, Config};

/// The process id in a file, while this exists.
pub(crate) struct PidFile {
    path: PathBuf,
    /// Held for its lock, which ends with the process however that ends.
    _file: File,
}

impl PidFile {
    /// Writes the file. It must not be there, unless the process that has left it is gone.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let failed = || format!("{} cannot be written", path.display());
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let mut file = opened.with_context(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("PID file {} already exists. Exiting.", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
        }
        file.set_len(0).with_context(failed)?;
        write!(file, "{}", std::process::id()).with_context(failed)?;
        Ok(Self { path: path.to_owned(), _file: file })
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
        fs::write(&path, "4194305, which was killed").unwrap();
        let held = PidFile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(held);
    }
}
