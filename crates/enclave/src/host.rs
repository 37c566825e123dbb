//! The one way out of the enclave: everything a node needs from the untrusted side.
//!
//! Whatever comes back from here is attacker-controlled: bytes may be anything, the clock may lie,
//! the disk may lose, tear or replace what was written. The host can delay or stop a node; it must
//! not be able to read, forge or reorder.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use coco_crypto::Entropy;
use tokio::io::{AsyncRead, AsyncWrite};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The untrusted side of a node.
pub trait Host: Send + Sync + 'static {
    /// Randomness. A real TEE has an instruction for it; the launcher says which source it is.
    fn entropy(&self) -> &dyn Entropy;

    /// Milliseconds since 1970: a hint, which may jump.
    fn now_ms(&self) -> u64;

    /// Time since some fixed moment; never decreases on an honest host.
    fn uptime(&self) -> Duration;

    /// Resolves after at least `duration` on an honest host.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// The next connection on an interface, by its name in the configuration. Waits for ever when
    /// the interface is closed.
    fn accept<'a>(&'a self, interface: &'a str) -> BoxFuture<'a, io::Result<Accepted>>;

    /// A connection to a server, `host:port`, whose name the host resolves. A host may have no way
    /// out.
    fn connect<'a>(&'a self, server: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        let _ = server;
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// The node's files.
    fn disk(&self) -> &dyn Disk;

    /// Does work on a thread that lets all others go first where cores are short, if the host has
    /// such threads. Must be called on the runtime.
    fn run_in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        drop(tokio::task::spawn_blocking(work));
        Ok(())
    }
}

/// A connection from outside.
pub struct Accepted {
    /// The bytes.
    pub stream: Box<dyn Stream>,
    /// Who it claims to be, for logs: `address:port`.
    pub peer: String,
}

/// A byte stream to the outside world.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A group of files with its own directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// Ledger chunks: the main directory, and after it the read-only ones.
    Ledger,
    /// Snapshots.
    Snapshots,
    /// Blobs sealed by the TEE.
    Sealed,
}

/// A file as the host lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// File name, without directory.
    pub name: String,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Lies in a read-only directory.
    pub read_only: bool,
}

/// A change to the files of an area.
#[derive(Debug)]
pub enum DiskOp {
    /// Creates an empty file (an error if it exists).
    Create {
        /// File name.
        name: String,
    },
    /// Writes zeros at an offset, so that later syncs of what is written there touch no metadata;
    /// the file exists.
    WriteZeros {
        /// File name.
        name: String,
        /// Where.
        offset: u64,
        /// How many.
        len_bytes: u64,
    },
    /// Writes bytes at an offset; the file exists.
    Write {
        /// File name.
        name: String,
        /// Where.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// Cuts a file to a length.
    Truncate {
        /// File name.
        name: String,
        /// The length that stays.
        len_bytes: u64,
    },
    /// Renames a file, replacing nothing.
    Rename {
        /// The name it has.
        from: String,
        /// The name it gets.
        to: String,
    },
    /// Removes a file.
    Remove {
        /// File name.
        name: String,
    },
}

/// Called once when a submission is done.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The node's files. Submissions to an area are carried out one after the other, in order; reads of
/// it see every submission made to it before them. Nothing is promised between areas.
pub trait Disk: Send + Sync {
    /// Carries out `ops` in order. With `sync`, `done` is called only after what they wrote (and
    /// renames) survives a power cut; one sync may serve several submissions. `done` runs on the
    /// host's thread, or on one that is lent: it must be quick.
    fn submit(&self, area: Area, ops: Vec<DiskOp>, sync: bool, done: Done);

    /// Calls `submissions`. What they submit to the area may then be carried out on the calling
    /// thread, which blocks for about one sync: for a caller with nothing to do before that, whom
    /// two changes of thread would cost as much again. `is_spare`: nor has anybody else.
    fn lend_thread(&self, area: Area, is_spare: bool, submissions: &mut dyn FnMut()) {
        let _ = (area, is_spare);
        submissions();
    }

    /// The files of an area, in no particular order.
    fn list(&self, area: Area) -> BoxFuture<'static, io::Result<Vec<FileEntry>>>;

    /// Up to `len_bytes` bytes from `offset`; fewer only at the end of the file.
    fn read(
        &self,
        area: Area,
        name: &str,
        offset: u64,
        len_bytes: u64,
    ) -> BoxFuture<'static, io::Result<Vec<u8>>>;
}
