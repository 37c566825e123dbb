//! The untrusted side of a node, for a node that runs in one process: sockets, files, clock,
//! randomness and signals.
//!
//! [`InProcessHost`] is the in-process launcher's [`Host`](coco_enclave::host::Host): the enclave
//! reads the TCP stream itself, without a hop, because the whole process is the enclave (a
//! confidential VM or container) or because nothing is to be protected (development). What crosses
//! the trait is the same as with every other launcher: TLS records, encrypted ledger bytes, hints.
//!
//! ```text
//!   tokio threads                                  one thread per area (ledger, snapshots, sealed)
//!   ─────────────                                  ──────────────────────────────────────────────
//!   accept(interface) ◀── TCP listeners
//!   submit(ops, sync, done) ──▶ queue ──▶ take all that waits, carry it out in order
//!                                         one fdatasync per changed file, fsync per directory
//!                   done(result) ◀─────── in order of submission
//! ```
//!
//! Invariants:
//! * Submissions to an area are carried out in order, and what a synced submission follows is
//!   synced with it: after a power cut a prefix is there.
//! * After an input/output error in a write or a sync nothing more is written to that area: the
//!   pages may be lost although a second sync would succeed.
//! * No two processes hold the same ledger directory.
//! * The host keeps to its directories, whatever file name it is handed.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use coco_host::{HostSettings, InProcessHost, Interface};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let directory = scratch.path();
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let _context = runtime.enter();
//! let mut settings = HostSettings::in_directory(directory);
//! settings.interfaces.push(Interface { name: "app".into(), bind_address: "127.0.0.1:0".into() });
//! let host = InProcessHost::start(settings)?;
//! assert_ne!(host.bound_addresses()["app"].port(), 0);
//! # Ok(())
//! # }
//! ```

mod background;
mod descriptors;
mod disk;
mod entropy;
mod error;
mod executable;
mod files_cleanup;
mod in_process;
mod listener;
mod signals;

pub use disk::{DiskLayout, FileDisk};
pub use entropy::SystemEntropy;
pub use error::HostError;
pub use executable::executable_digest;
pub use files_cleanup::FilesCleanup;
pub use in_process::{HostSettings, InProcessHost};
pub use listener::Interface;
pub use signals::{Signal, Signals};
