//! A node from start to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coco_enclave::channels::NODE_TO_NODE_INTERFACE;
use coco_enclave::config::{Config, Files};
use coco_enclave::node::{Adapters, Node};
use coco_enclave::server::Server;
use coco_host::{
    DiskLayout, FilesCleanup, HostError, HostSettings, InProcessHost, Interface, Signal, Signals,
};
use tokio::runtime::Runtime;

use super::output_files::Started;
use crate::advice::{Advise, advised};

/// How long a stop may take before the process leaves what is left undone.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// The threads of each of so many nodes that share this machine: one core is left to the disks'
/// threads and to long work, which have their own.
pub(crate) fn usual_worker_threads(nodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores.saturating_sub(1) / nodes.max(1)).max(1)
}

/// The threads a node runs on; 0 means as many as one that has the machine for itself.
pub(crate) fn runtime(worker_threads: usize) -> Result<Runtime> {
    let worker_threads = match worker_threads {
        0 => usual_worker_threads(1),
        threads => threads,
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads)
        .enable_all()
        .thread_name("node")
        .build()
        .context("no threads for the node")
}

/// A node that serves.
pub(crate) struct RunningNode {
    node: Node,
    server: Server,
    host: Arc<InProcessHost>,
    signals: Signals,
    ignore_first_terminate: bool,
}

impl RunningNode {
    /// Binds the interfaces, starts the node and writes the operator's files.
    pub(crate) async fn start(
        mut config: Config,
        files: Files,
        adapters: Adapters,
    ) -> Result<Self> {
        let mut signals = Signals::install()?;
        let host = InProcessHost::start(host_settings(&config)).map_err(|error| {
            let advice = what_to_change(&error);
            advised(error, advice)
        })?;
        let host = Arc::new(host);
        let addresses = host.bound_addresses();
        publish(&mut config, &addresses);
        // A node that is to join may have to wait for its members.
        let node = tokio::select! {
            node = Node::start(host.clone(), config.clone(), files, adapters) => {
                node.context("the node does not start")?
            }
            signal = signals.next() => bail!("{signal:?}: stopped before the node had started"),
        };
        let server = Server::start(node.clone()).context("the interfaces cannot be served")?;
        let identity = node.identity();
        let started = Started {
            config: &config,
            service_certificate: &identity.service_certificate,
            node_certificate: &identity.self_signed,
            addresses: &addresses,
        };
        started.write().advise(|| "check output_files in the configuration".to_owned())?;
        for (name, address) in &addresses {
            tracing::info!("Interface {name} listens on {address}");
        }
        let ignore_first_terminate = config.ignore_first_sigterm;
        Ok(Self { node, server, host, signals, ignore_first_terminate })
    }

    /// Where an interface listens.
    pub(crate) fn address(&self, interface: &str) -> Option<SocketAddr> {
        self.host.bound_addresses().get(interface).copied()
    }

    /// Serves until a signal arrives, or until `other` resolves, then stops the node in order.
    pub(crate) async fn until_stopped(mut self, other: impl Future<Output = ()>) -> Result<()> {
        let mut other = std::pin::pin!(other);
        loop {
            let signal = tokio::select! {
                signal = self.signals.next() => signal,
                () = &mut other => {
                    tracing::info!("The input has ended: stopping");
                    break;
                }
            };
            match signal {
                Signal::Terminate if self.ignore_first_terminate => {
                    tracing::info!("Terminate: ignored the first time");
                    self.ignore_first_terminate = false;
                    self.node.set_stop_notice();
                }
                Signal::Hangup => {
                    tracing::info!("Hangup: stopping");
                    break;
                }
                signal => {
                    tracing::info!("{signal:?}: stopping");
                    break;
                }
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Accepts nothing more, answers what was asked, and writes down what was taken in.
    pub(crate) async fn stop(self) {
        self.host.close_interfaces();
        let stopped = async {
            self.server.stop().await;
            self.node.shutdown().await;
        };
        if tokio::time::timeout(STOP_LIMIT, stopped).await.is_err() {
            tracing::error!("The node did not stop in time; what was not committed is lost");
        }
    }
}

fn what_to_change(error: &HostError) -> &'static str {
    match error {
        HostError::Listen { .. } | HostError::DuplicateInterface(_) => {
            "if another process listens there, stop it, or choose another bind_address \
             (`coco dev --port`, `--ethereum-port`)"
        }
        HostError::LedgerInUse(_) => "stop the other node, or choose another ledger.directory",
        HostError::Directory { .. } => "check the directory's owner and the space on its disk",
        HostError::System { .. } => "check the limits of processes and open files (ulimit -a)",
    }
}

fn host_settings(config: &Config) -> HostSettings {
    let interface = |(name, interface): (&String, &coco_enclave::config::Interface)| Interface {
        name: name.clone(),
        bind_address: interface.bind_address.clone(),
    };
    let sealed = config.output_files.sealed_service_location.as_deref().unwrap_or("sealed");
    let read_only_snapshots = config.snapshots.read_only_directory.iter();
    let read_only_snapshots = read_only_snapshots.filter(|directory| !directory.is_empty());
    let node_to_node = config.network.node_to_node_interface.as_ref();
    let node_to_node = node_to_node.map(|interface| Interface {
        name: NODE_TO_NODE_INTERFACE.to_owned(),
        bind_address: interface.bind_address.clone(),
    });
    HostSettings {
        interfaces: config.interfaces().iter().map(interface).chain(node_to_node).collect(),
        disk: DiskLayout {
            ledger: PathBuf::from(&config.ledger.directory),
            read_only_ledgers: config.ledger.read_only_directories.iter().map(Into::into).collect(),
            snapshots: PathBuf::from(&config.snapshots.directory),
            read_only_snapshots: read_only_snapshots.map(Into::into).collect(),
            sealed: PathBuf::from(sealed),
        },
        slow_io_threshold: config.slow_io_logging_threshold.0,
        files_cleanup: FilesCleanup {
            max_snapshots: config.files_cleanup.max_snapshots,
            max_committed_chunks: config.files_cleanup.max_committed_ledger_chunks,
            interval: config.files_cleanup.interval.0,
        },
    }
}

/// An interface without a published address publishes the one that it is bound to, and one that
/// publishes port 0 the port that it got.
fn publish(config: &mut Config, addresses: &BTreeMap<String, SocketAddr>) {
    let network = &mut config.network;
    let interfaces = network.rpc_interfaces.iter_mut();
    let mut published: Vec<(&str, &mut Option<String>)> =
        interfaces.map(|(name, it)| (name.as_str(), &mut it.published_address)).collect();
    if let Some(interface) = &mut network.node_to_node_interface {
        published.push((NODE_TO_NODE_INTERFACE, &mut interface.published_address));
    }
    for (name, published) in published {
        let Some(bound) = addresses.get(name) else { continue };
        *published = Some(match published.take() {
            None => bound.to_string(),
            Some(address) => match address.strip_suffix(":0") {
                Some(host) => format!("{host}:{}", bound.port()),
                None => address,
            },
        });
    }
}
