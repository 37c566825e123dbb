//! A node: one enclave from its start to its stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use coco_adapter::{Adapter, Endpoints, Environment, Protocol};
use coco_attestation::Evidence;
use coco_consensus::Role;
use coco_crypto::{Certificate, Digest, KeyPair, RsaKeyPair};
use coco_kv::{Seqno, View};
use coco_script::ScriptEngine;
use parking_lot::Mutex;
use serde_json::Value as Json;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::forward::Forwarder;
use crate::host::Host;
use crate::issuers::RefreshMetrics;
use crate::pipeline::Pipeline;
use crate::service::{NodeEnvironment, ServiceKeys};

mod backup_fetch;
mod check;
mod log;
mod material;
pub(crate) mod pending;
mod reopen;
mod retirement;
mod start;

use pending::PendingNodes;
pub use start::StartError;

/// A running node; clones share it.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    host: Arc<dyn Host>,
    config: Config,
    pipeline: Pipeline,
    environment: Arc<NodeEnvironment>,
    /// The way to the primary, if the node can be one of several.
    forwarder: Option<Arc<Forwarder>>,
    keys: Arc<ServiceKeys>,
    engine: Arc<ScriptEngine>,
    governance: Arc<dyn Endpoints>,
    adapters: Adapters,
    id: Digest,
    identity: ArcSwap<Identity>,
    encryption_key: RsaKeyPair,
    evidence: Evidence,
    state: Mutex<NodeState>,
    stop_notice: AtomicBool,
    refresh_metrics: RefreshMetrics,
    pending_nodes: PendingNodes,
    recovered_seqno: Option<Seqno>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What is plugged into a node.
#[derive(Clone)]
pub struct Adapters {
    /// The application, under `/app`.
    pub app: Arc<dyn Endpoints>,
    /// Protocols that interfaces of the node may name.
    pub protocols: Vec<Arc<dyn Protocol>>,
}

impl From<Arc<dyn Endpoints>> for Adapters {
    fn from(app: Arc<dyn Endpoints>) -> Self {
        Self { app, protocols: Vec::new() }
    }
}

impl<A: Endpoints> From<Arc<A>> for Adapters {
    fn from(app: Arc<A>) -> Self {
        (app as Arc<dyn Endpoints>).into()
    }
}

impl Adapters {
    /// What the protocols of a node that joins demand of the service.
    fn demands(&self) -> BTreeMap<String, Json> {
        let demands = self.protocols.iter().map(|protocol| (protocol.name(), protocol.demands()));
        demands.filter_map(|(name, demands)| Some((name.to_owned(), demands?))).collect()
    }

    fn all(&self) -> impl Iterator<Item = Arc<dyn Adapter>> {
        let app: Arc<dyn Adapter> = Arc::clone(&self.app) as _;
        std::iter::once(app).chain(self.protocols.iter().map(|protocol| Arc::clone(protocol) as _))
    }
}

/// The certificates that a node shows, and the key of its own.
pub struct Identity {
    /// The service's, self-signed.
    pub service_certificate: Certificate,
    /// The node's, endorsed by the service.
    pub node_certificate: Certificate,
    /// The node's, self-signed.
    pub self_signed: Certificate,
    /// The node's key.
    pub node_key: Arc<KeyPair>,
}

/// Where a node is in its life, in CCF's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Serves requests.
    PartOfNetwork,
    /// Serves governance, until members have agreed to the service that it recovers.
    PartOfPublicNetwork,
    /// Finishes what was begun, and takes nothing new.
    Stopping,
    /// The disk or the keys have failed: reads still work, writes do not.
    Failed,
}

impl NodeState {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PartOfNetwork => "PartOfNetwork",
            Self::PartOfPublicNetwork => "PartOfPublicNetwork",
            Self::Stopping => "Stopping",
            Self::Failed => "Failed",
        }
    }
}

impl Node {
    /// The host that the node runs on.
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.0.host
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The way to the ledger.
    pub fn pipeline(&self) -> &Pipeline {
        &self.0.pipeline
    }

    /// What the node offers to adapters.
    pub fn environment(&self) -> &dyn Environment {
        &*self.0.environment
    }

    /// The application.
    pub fn app(&self) -> &Arc<dyn Endpoints> {
        &self.0.adapters.app
    }

    /// The protocol of this name.
    pub fn protocol(&self, name: &str) -> Option<&Arc<dyn Protocol>> {
        self.0.adapters.protocols.iter().find(|protocol| protocol.name() == name)
    }

    /// The node that orders transactions now, as far as this one knows.
    pub fn primary(&self) -> Option<Digest> {
        match self.0.pipeline.role() {
            Role::Primary(_) => Some(self.id()),
            Role::Backup { primary, .. } => primary.map(|primary| primary.0),
        }
    }

    /// The way to whoever is primary, if the node can be one of several.
    pub(crate) fn forwarder(&self) -> Option<&Arc<Forwarder>> {
        self.0.forwarder.as_ref()
    }

    /// Whether it has an interface for other nodes, so that they can take part.
    pub fn is_networked(&self) -> bool {
        self.0.config.is_networked()
    }

    /// The names of the protocols.
    pub fn protocol_names(&self) -> Vec<&'static str> {
        self.0.adapters.protocols.iter().map(|protocol| protocol.name()).collect()
    }

    /// The governance frontend, `/gov`.
    pub fn governance(&self) -> &Arc<dyn Endpoints> {
        &self.0.governance
    }

    /// The keys of the service.
    pub fn service_keys(&self) -> &Arc<ServiceKeys> {
        &self.0.keys
    }

    /// Runs the constitution.
    pub(crate) fn engine(&self) -> &ScriptEngine {
        &self.0.engine
    }

    /// SHA-256 of the node's public key.
    pub fn id(&self) -> Digest {
        self.0.id
    }

    /// The present certificates; they change when they are renewed.
    pub fn identity(&self) -> Arc<Identity> {
        self.0.identity.load_full()
    }

    /// The key under which the node receives ledger secrets.
    pub fn encryption_key(&self) -> &RsaKeyPair {
        &self.0.encryption_key
    }

    /// What the TEE says of this node.
    pub fn evidence(&self) -> &Evidence {
        &self.0.evidence
    }

    /// Where the node is in its life.
    pub fn state(&self) -> NodeState {
        let pipeline = &self.0.pipeline;
        match *self.0.state.lock() {
            _ if pipeline.has_failed() => NodeState::Failed,
            NodeState::PartOfNetwork if pipeline.is_recovering() => NodeState::PartOfPublicNetwork,
            state => state,
        }
    }

    /// Notes that the operator is about to stop the node.
    pub fn set_stop_notice(&self) {
        self.0.stop_notice.store(true, Ordering::Release);
    }

    /// Whether the operator is about to stop the node.
    pub fn stop_notice(&self) -> bool {
        self.0.stop_notice.load(Ordering::Acquire)
    }

    /// What was tried to refresh the keys of token issuers.
    pub(crate) fn refresh_metrics(&self) -> &RefreshMetrics {
        &self.0.refresh_metrics
    }

    /// When nodes that wait to be trusted were last heard of.
    pub(crate) fn pending_nodes(&self) -> &PendingNodes {
        &self.0.pending_nodes
    }

    /// The view of new transactions.
    pub fn view(&self) -> View {
        self.0.pipeline.store().view()
    }

    /// The position from which the node went on without replaying: that of its snapshot, or 0.
    pub fn startup_seqno(&self) -> Seqno {
        self.0.pipeline.startup_seqno()
    }

    /// The last signature found on the ledger, if the node recovered a service.
    pub fn last_recovered_signed_seqno(&self) -> Option<Seqno> {
        self.0.recovered_seqno
    }

    /// Takes no more transactions, brings what was executed to the disk under a signature, and
    /// leaves the files exact. Sessions should be closed before.
    pub async fn shutdown(&self) {
        *self.0.state.lock() = NodeState::Stopping;
        self.0.pipeline.stop().await;
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        tasks.iter().for_each(JoinHandle::abort);
    }
}
