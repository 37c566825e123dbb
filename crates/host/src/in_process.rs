//! The host of a node that runs in the same process.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use coco_crypto::Entropy;
use coco_enclave::host::{Accepted, BoxFuture, Disk, Host, Stream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::background::become_background;
use crate::descriptors::Descriptors;
use crate::listener::Listeners;
use crate::{DiskLayout, FileDisk, FilesCleanup, HostError, Interface, SystemEntropy};

/// How long a server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What a host is given by the operator.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// Where to listen.
    pub interfaces: Vec<Interface>,
    /// Where files lie.
    pub disk: DiskLayout,
    /// A disk operation that takes longer is logged.
    pub slow_io_threshold: Duration,
    /// Which of the files are kept.
    pub files_cleanup: FilesCleanup,
}

impl HostSettings {
    /// No interface, all files below one directory, and CCF's threshold of 10 ms.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            interfaces: Vec::new(),
            disk: DiskLayout {
                ledger: directory.join("ledger"),
                read_only_ledgers: Vec::new(),
                snapshots: directory.join("snapshots"),
                read_only_snapshots: Vec::new(),
                sealed: directory.join("sealed"),
            },
            slow_io_threshold: Duration::from_millis(10),
            files_cleanup: FilesCleanup::default(),
        }
    }
}

/// Sockets, files, clock and randomness of the process itself.
pub struct InProcessHost {
    listeners: Listeners,
    disk: FileDisk,
    /// Ended with the host.
    _cleanup: JoinSet<()>,
    started: Instant,
}

impl InProcessHost {
    /// Binds every interface and takes the directories. Must be called on a tokio runtime.
    pub fn start(settings: HostSettings) -> Result<Self, HostError> {
        let listeners = Listeners::bind(&settings.interfaces, Descriptors::raised())?;
        let disk = FileDisk::open(settings.disk.clone(), settings.slow_io_threshold)?;
        // Once the directories are this process's.
        let mut cleanup = JoinSet::new();
        cleanup.spawn(settings.files_cleanup.run(settings.disk));
        Ok(Self { listeners, disk, _cleanup: cleanup, started: Instant::now() })
    }

    /// Where each interface listens in fact.
    pub fn bound_addresses(&self) -> BTreeMap<String, SocketAddr> {
        self.listeners.addresses().map(|(name, address)| (name.to_owned(), address)).collect()
    }

    /// Accepts no further connection: the first step of a graceful stop.
    pub fn close_interfaces(&self) {
        self.listeners.close();
    }
}

impl Host for InProcessHost {
    fn entropy(&self) -> &dyn Entropy {
        &SystemEntropy
    }

    fn now_ms(&self) -> u64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since_1970.map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn accept<'a>(&'a self, interface: &'a str) -> BoxFuture<'a, io::Result<Accepted>> {
        Box::pin(self.listeners.accept(interface))
    }

    fn connect<'a>(&'a self, server: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let connecting = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(server));
            let stream =
                connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }

    fn disk(&self) -> &dyn Disk {
        &self.disk
    }

    fn run_in_background(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("background".to_owned());
        let run = move || {
            become_background();
            work();
        };
        thread.spawn(run).map(drop)
    }
}
