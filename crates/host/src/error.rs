//! Why a host does not start.

use std::io;
use std::path::PathBuf;

/// The operator's settings cannot be met. The system's own answer is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// An interface's address cannot be resolved or bound.
    #[error("interface {interface:?} cannot listen on {address:?}")]
    Listen {
        /// The interface.
        interface: String,
        /// The address as configured.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Two interfaces have one name.
    #[error("interface {0:?} is defined twice")]
    DuplicateInterface(String),
    /// A directory cannot be created, opened or locked.
    #[error("directory {path} cannot be used")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the ledger directory.
    #[error("ledger directory {0} is in use by another node")]
    LedgerInUse(PathBuf),
    /// A thread or a signal handler cannot be had.
    #[error("the operating system refuses {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}
