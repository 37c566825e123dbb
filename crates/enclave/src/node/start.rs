//! How a node comes to a service: it makes a new one, or recovers that of its ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use coco_adapter::{Adapter, AdapterError, Endpoints, Outcome, TxStatus};
use coco_attestation::{EvidenceError, TeeError};
use coco_consensus::{Consensus, Membership, NodeId, Raft, SingleNode};
use coco_crypto::x509::{DistinguishedName, NameError, Validity};
use coco_crypto::{Certificate, CertificateError, Digest, KeyError, KeyPair, RsaError};
use coco_governance::genesis::{GenesisError, NewMember, NewNode, NewService};
use coco_governance::recovery::{RecoverError, RecoveredService};
use coco_governance::seats::Statement;
use coco_governance::tables::{
    Base64, NODES, NodeStatus, Pem, RecoveryRole, ServiceConfig, TableKey as _,
};
use coco_governance::{
    CustodyError, LedgerPeriod, create_service, governance_api, recover_service,
};
use coco_kv::{Seqno, Store, Tx, TxId, View};
use coco_ledger::{
    ChunkWriter, ChunkWriterConfig, LedgerSecret, MAX_BATCHES_IN_FLIGHT, MerkleTree, Resumed,
    Signer, ViewHistory,
};
use coco_script::ScriptEngine;
use parking_lot::Mutex;
use serde_json::Value as Json;

use super::log::{self, TICK};
use super::material::{Material, curve, node_to_node, rpc_interfaces};
use super::pending::{self, PendingNodes};
use super::{Adapters, Identity, Inner, Node, NodeState, backup_fetch, retirement};
use crate::channels::NodeChannels;
use crate::config::{self, CommandType, Config, Files};
use crate::former::FormerLedger;
use crate::forward::Forwarder;
use crate::host::{Area, Host};
use crate::identities::Identities;
use crate::interface::InterfaceError;
use crate::issuers::{self, RefreshMetrics};
use crate::join::message::{JoinRequest, NodeInterfaces, open_secrets};
use crate::join::{self, JoinError};
use crate::ledger_files::LedgerFiles;
use crate::pipeline::{Alone, Channels, CommitError, Continuation, Pipeline, Settings};
use crate::recovery::{self, RecoveryError};
use crate::sealed::{self, SealedError, ServiceSecrets};
use crate::service::{Clock, NodeEnvironment, ServiceKeys};
use crate::session::TlsError;
use crate::snapshots;

/// The view in which a service begins, as in CCF.
const FIRST_VIEW: View = View(2);
/// The file in use is extended by this many zeros at a time.
const WRITE_AHEAD_BYTES: u64 = 1 << 20;

/// A node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A new service needs an empty ledger.
    #[error("On start, ledger directory should not exist or be empty ({directory})")]
    LedgerNotEmpty {
        /// As configured.
        directory: String,
    },
    /// This version does not have it.
    #[error("command.type {command:?} is not in this version")]
    NotOffered {
        /// What was asked for.
        command: CommandType,
    },
    /// An interface cannot be served as configured.
    #[error("network.rpc_interfaces.{name}: {error}")]
    Interface {
        /// Which.
        name: String,
        /// What is wrong.
        error: InterfaceError,
    },
    /// The service does not take the node.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// TLS cannot be used with the node's key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secrets of the service are not to be had here.
    #[error(
        "the service's secrets cannot be unsealed on this machine ({0}); \
         the service must be recovered with its members' recovery shares (command.type Recover)"
    )]
    RecoveryNeeded(#[source] SealedError),
    /// The secrets of the service cannot be sealed.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The ledger cannot be continued.
    #[error(transparent)]
    Ledger(#[from] RecoveryError),
    /// The disk failed.
    #[error("the ledger directory: {0}")]
    Io(#[from] std::io::Error),
    /// The first transaction cannot be made as configured.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The service on the ledger cannot be recovered by this node.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The new ledger secret cannot be given into the members' custody.
    #[error("the members' recovery shares: {0}")]
    Custody(#[source] CustodyError),
    /// A protocol does not start on this ledger.
    #[error("{name}: {error}")]
    Protocol {
        /// Which.
        name: &'static str,
        /// Why.
        error: AdapterError,
    },
    /// A protocol wants to write where it has to find everything.
    #[error("{name}: its state was begun by the service's first node, which this one joins")]
    BegunElsewhere {
        /// Which.
        name: &'static str,
    },
    /// The first transaction was not executed.
    #[error("the first transaction: {0}")]
    Commit(#[from] CommitError),
    /// The first transaction did not reach the disk.
    #[error("the first transaction could not be written to the ledger")]
    NotCommitted,
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The encryption key cannot be made.
    #[error(transparent)]
    EncryptionKey(#[from] RsaError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A name in the configuration is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The TEE gives no evidence.
    #[error(transparent)]
    Tee(#[from] TeeError),
    /// The TEE's evidence does not hold.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The executor stopped.
    #[error("the start was interrupted")]
    Interrupted,
}

/// What the ways to start have found or made.
struct Origin {
    service_key: Arc<KeyPair>,
    identity: Identity,
    secrets: ServiceSecrets,
    store: Store,
    tree: MerkleTree,
    views: ViewHistory,
    /// The last transaction on the ledger.
    last: Seqno,
    view: View,
    files: Resumed,
    /// What a former node has left in the directory.
    former: Option<FormerLedger>,
    startup_seqno: Seqno,
    /// The last root that was signed, if this is a recovery.
    recovers: Option<Digest>,
    /// The service has other nodes, from which everything else comes.
    joins: bool,
}

impl Node {
    /// Starts a node: with `command.type` `Start` as the first of a new service, with `Restart` as
    /// the first of a service that recovers the one on this disk, once its members agree. Returns
    /// when the node's first transaction is committed. Must be called on a tokio runtime; the
    /// node's tasks live there.
    pub async fn start(
        host: Arc<dyn Host>,
        config: Config,
        files: Files,
        adapters: impl Into<Adapters>,
    ) -> Result<Self, StartError> {
        let adapters = adapters.into();
        let clock = Arc::new(Clock::new(Arc::clone(&host)));
        let now_s = i64::try_from(clock.now_ms() / 1_000).unwrap_or(i64::MAX);
        // Before anything is written that the next try would find.
        Self::check(&config, &files, host.entropy(), now_s)?;
        if config.command.kind == CommandType::Start {
            require_empty_ledger(&*host, &config).await?;
        }
        let material = Material::make(&*host, &config, &files, now_s).await?;
        let origin = match config.command.kind {
            CommandType::Start => new_service(&*host, &config, &material, now_s).await?,
            CommandType::Join => {
                let demands = adapters.demands();
                joined_service(&host, &config, &material, &files, demands).await?
            }
            _ => recovered_service(&*host, &config, &material, now_s).await?,
        };
        let node = assemble(host, config, clock, adapters, material, origin, &files)?;
        node.begin(files).await
    }
}

async fn require_empty_ledger(host: &dyn Host, config: &Config) -> Result<(), StartError> {
    let files = host.disk().list(Area::Ledger).await?;
    match files.iter().any(|file| !file.read_only) {
        true => Err(StartError::LedgerNotEmpty { directory: config.ledger.directory.clone() }),
        false => Ok(()),
    }
}

/// Makes the identity and the secrets of a new service.
async fn new_service(
    host: &dyn Host,
    config: &Config,
    material: &Material,
    now_s: i64,
) -> Result<Origin, StartError> {
    let start = config.command.start.clone().unwrap_or_default();
    let subject: DistinguishedName = start.service_subject_name.parse()?;
    let service_key = KeyPair::generate(curve(config), host.entropy())?;
    let validity = Validity::days(now_s, start.initial_service_certificate_validity_days);
    let service_certificate =
        Certificate::for_service(&service_key, &subject, validity, host.entropy())?;
    let secrets = ServiceSecrets {
        identities: Identities::of_new(service_certificate.clone())?,
        issuer: start.cose_signatures.issuer,
        subject: start.cose_signatures.subject,
        periods: vec![LedgerPeriod {
            valid_from: Seqno(1),
            secret: Arc::new(LedgerSecret::generate(host.entropy())),
            previous_stored_at: None,
        }],
    };
    if config.output_files.sealed_service_location.is_some() {
        sealed::require_none(host).await?;
        sealed::seal(host, &*material.tee, &secrets).await?;
    }
    let mut views = ViewHistory::new();
    let begun = views.record(TxId { view: FIRST_VIEW, seqno: Seqno(1) });
    assert!(begun.is_ok(), "the first view is a small number");
    Ok(Origin {
        identity: material.endorsed(service_certificate, &service_key, host)?,
        service_key: Arc::new(service_key),
        secrets,
        store: Store::new(FIRST_VIEW),
        tree: MerkleTree::new(),
        views,
        last: Seqno(0),
        view: FIRST_VIEW,
        files: Resumed::default(),
        former: None,
        startup_seqno: Seqno(0),
        recovers: None,
        joins: false,
    })
}

/// Shows the service this node's evidence until it gives its secrets. Everything else comes by the
/// log.
async fn joined_service(
    host: &Arc<dyn Host>,
    config: &Config,
    material: &Material,
    files: &Files,
    protocols: BTreeMap<String, Json>,
) -> Result<Origin, StartError> {
    let node_to_node_interface = node_to_node(config).ok_or(JoinError::NoInterface)?;
    let command = config.command.join.clone().unwrap_or_default();
    let service = files.service_certificate.as_deref().unwrap_or_default();
    let service = Certificate::from_pem(service).map_err(JoinError::ServiceCertificate)?;
    let service_id = service.public_key().map_err(JoinError::ServiceCertificate)?.id();
    let seat_statement = files.operator.as_ref().map(|operator| {
        let address = node_to_node_interface.address();
        Base64(operator.sign(Statement { address, node_id: material.id(), service_id }))
    });
    let request = JoinRequest {
        node_info_network: NodeInterfaces {
            node_to_node_interface,
            rpc_interfaces: rpc_interfaces(config),
        },
        quote_info: material.evidence.clone(),
        public_encryption_key: Pem(material.encryption_key.public().to_pem()),
        startup_seqno: 0,
        certificate_signing_request: Pem(material.request.to_pem()),
        node_data: files.node_data.clone().unwrap_or(Json::Null),
        protocols,
        seat_statement,
    };
    let (own, key) = (&material.self_signed, &material.node_key);
    // What is here is looked at while members think about the new node.
    let joined = async {
        join::join(host, &command, &service, own, key, &request).await.map_err(StartError::from)
    };
    let found = async { Ok::<_, StartError>(FormerLedger::find(&**host).await?) };
    let (network, former) = tokio::try_join!(joined, found)?;
    let wrong =
        |reason: String| JoinError::Answer { target: command.target_rpc_address.clone(), reason };
    let (service_key, secrets) = open_secrets(&material.encryption_key, &network.sealed_secrets)
        .map_err(|error| wrong(error.to_string()))?;
    let latest = secrets.identities.at(Seqno(u64::MAX));
    if latest.certificate != service || latest.key != *service_key.public() {
        return Err(wrong("the secrets are those of another service".to_owned()).into());
    }
    let node_certificate = Certificate::from_pem(&network.endorsed_certificate.0)?;
    if node_certificate.spki_der() != material.node_key.public().spki_der() {
        return Err(wrong("the endorsed certificate is another node's".to_owned()).into());
    }
    node_certificate.verify_signed_by(&service)?;
    Ok(Origin {
        service_key: Arc::new(service_key),
        identity: Identity {
            service_certificate: service,
            node_certificate,
            self_signed: material.self_signed.clone(),
            node_key: Arc::clone(&material.node_key),
        },
        secrets,
        store: Store::new(View(0)),
        tree: MerkleTree::new(),
        views: ViewHistory::new(),
        last: Seqno(0),
        view: View(0),
        files: Resumed::default(),
        former,
        startup_seqno: Seqno(0),
        recovers: None,
        joins: true,
    })
}

/// Opens the sealed secrets and recovers the ledger with them. A host that restores an old disk
/// makes two histories begin at one position. They share no identity: each begins with a new one,
/// of which members approve at most one; and no key and nonce: from here on private data are
/// encrypted under a new secret.
async fn recovered_service(
    host: &dyn Host,
    config: &Config,
    material: &Material,
    now_s: i64,
) -> Result<Origin, StartError> {
    let mut secrets =
        sealed::unseal(host, &*material.tee).await.map_err(StartError::RecoveryNeeded)?;
    let mut known = coco_ledger::LedgerSecrets::new();
    for period in &secrets.periods {
        known.insert(period.valid_from, Arc::clone(&period.secret));
    }
    let recovered =
        recovery::recover(host, &Arc::new(known), &secrets.identities, max_torn_batches(config))
            .await?;

    let valid_from = recovered.last.seqno.next();
    let service_key = KeyPair::generate(curve(config), host.entropy())?;
    let previous = &secrets.identities.at(recovered.last.seqno).certificate;
    let validity = previous.validity().moved_to(now_s);
    let service_certificate =
        Certificate::succeeding(previous, &service_key, validity, host.entropy())?;
    secrets.identities = secrets.identities.followed_by(valid_from, service_certificate.clone())?;
    // A secret that an earlier recovery made, which was not completed, makes room.
    secrets.periods.retain(|period| period.valid_from < valid_from);
    secrets.periods.push(LedgerPeriod {
        valid_from,
        secret: Arc::new(LedgerSecret::generate(host.entropy())),
        previous_stored_at: Some(valid_from),
    });
    sealed::seal(host, &*material.tee, &secrets).await?;

    Ok(Origin {
        identity: material.endorsed(service_certificate, &service_key, host)?,
        service_key: Arc::new(service_key),
        secrets,
        store: recovered.store,
        tree: recovered.tree,
        views: recovered.views,
        last: recovered.last.seqno,
        view: recovered.view,
        files: recovered.files,
        former: None,
        startup_seqno: recovered.last_snapshot,
        recovers: Some(recovered.last_signed_root),
        joins: false,
    })
}

/// How many batches a crash can have torn. Where a batch is reported before it is durable, or by other
/// nodes before it is on this one's disk, more are on their way to it.
fn max_torn_batches(config: &Config) -> usize {
    match config.ledger.sync {
        config::Sync::Always if !config.is_networked() => MAX_BATCHES_IN_FLIGHT,
        _ => usize::MAX,
    }
}

/// Puts the node's parts together. Nothing runs yet.
fn assemble(
    host: Arc<dyn Host>,
    config: Config,
    clock: Arc<Clock>,
    adapters: Adapters,
    material: Material,
    origin: Origin,
    files: &Files,
) -> Result<Starting, StartError> {
    let secrets = origin.secrets;
    let identity = origin.identity;
    let record = material.record(&config, files, &identity);
    let signer = Signer {
        node_key: Arc::clone(&material.node_key),
        node_certificate: identity.node_certificate.to_pem(),
        service_key: origin.service_key,
        issuer: secrets.issuer,
        subject: secrets.subject,
    };
    let (periods, identities) = (secrets.periods, secrets.identities);
    let keys = Arc::new(ServiceKeys::new(signer, periods, identities, host.entropy())?);
    let engine = Arc::new(ScriptEngine::new());
    let governance: Arc<dyn Endpoints> =
        Arc::new(governance_api(Arc::<ServiceKeys>::clone(&keys), Arc::clone(&engine)));

    let chunk_rules = ChunkWriterConfig {
        chunk_bytes: config.ledger.chunk_size.0,
        write_ahead_bytes: WRITE_AHEAD_BYTES,
    };
    let mut writer = ChunkWriter::resume(chunk_rules, origin.files);
    writer.commit(origin.last);
    if origin.recovers.is_some() {
        writer = writer.recovering();
    }
    let me = NodeId(material.id());
    let networked = config.is_networked();
    let last =
        TxId { view: origin.views.view_of(origin.last).unwrap_or_default(), seqno: origin.last };
    let consensus: Box<dyn Consensus> = match (origin.joins, networked) {
        (true, _) => Box::new(Raft::join(log::settings(&config, host.entropy()), me)),
        (false, true) => {
            let settings = log::settings(&config, host.entropy());
            Box::new(Raft::start(settings, me, origin.view, last))
        }
        (false, false) => Box::new(SingleNode::new(origin.view, origin.last)),
    };
    let membership = if origin.joins { Membership::default() } else { Membership::of(me) };
    let channels = match networked {
        true => {
            let certificate = identity.node_certificate.to_pem();
            let service = identity.service_certificate.public_key()?;
            let key = &material.node_key;
            Some(NodeChannels::new(Arc::clone(&host), key, &certificate, service)?)
        }
        false => None,
    };
    let pipeline = Pipeline::new(Continuation {
        host: Arc::clone(&host),
        store: origin.store,
        keys: Arc::clone(&keys),
        clock: Arc::clone(&clock),
        adapters: std::iter::once(Arc::clone(&governance) as Arc<dyn Adapter>)
            .chain(adapters.all())
            .collect(),
        protocols: adapters.protocols.clone(),
        settings: Settings::of(&config),
        tree: origin.tree,
        views: origin.views,
        consensus,
        membership,
        channels: match &channels {
            Some(channels) => Arc::new(Arc::clone(channels)),
            None => Arc::new(Alone) as Arc<dyn Channels>,
        },
        files: LedgerFiles::new(writer),
        former: origin.former,
        last_snapshot: origin.startup_seqno,
        historical_cache_bytes: config.historical_cache_soft_limit.0,
        is_recovery: origin.recovers.is_some(),
    });
    let forwarder = channels.as_ref().map(|channels| {
        Arc::new(Forwarder::new(Arc::clone(&host), Arc::clone(channels), pipeline.clone()))
    });
    let environment =
        NodeEnvironment::new(Arc::clone(&host), clock, pipeline.clone(), forwarder.clone());
    let inner = Inner {
        id: material.id(),
        identity: ArcSwap::from_pointee(identity),
        encryption_key: material.encryption_key,
        evidence: material.evidence,
        host,
        config,
        pipeline,
        environment: Arc::new(environment),
        forwarder,
        keys,
        engine,
        governance,
        adapters,
        state: Mutex::new(NodeState::PartOfNetwork),
        stop_notice: AtomicBool::new(false),
        refresh_metrics: RefreshMetrics::default(),
        pending_nodes: PendingNodes::default(),
        recovered_seqno: origin.recovers.map(|_| origin.last),
        tasks: Mutex::default(),
    };
    let create_tx_id = TxId { view: origin.view, seqno: origin.last.next() };
    let (recovers, joins) = (origin.recovers, origin.joins);
    Ok(Starting { node: Node(Arc::new(inner)), record, create_tx_id, recovers, joins, channels })
}

/// A node before its first transaction.
struct Starting {
    node: Node,
    record: NewNode,
    create_tx_id: TxId,
    recovers: Option<Digest>,
    joins: bool,
    channels: Option<Arc<NodeChannels>>,
}

impl Starting {
    /// Spawns the node's tasks and commits its first transactions.
    async fn begin(self, files: Files) -> Result<Node, StartError> {
        let Self { node, record, create_tx_id, recovers, joins, channels } = self;
        let inner = &node.0;
        let pipeline = &inner.pipeline;
        let (host, keys) = (Arc::clone(&inner.host), Arc::clone(&inner.keys));
        let snapshots = inner.config.snapshots.clone();
        let snapshots = snapshots::run(host, pipeline.clone(), keys, snapshots);
        *inner.tasks.lock() = vec![tokio::spawn(pipeline.run()), tokio::spawn(snapshots)];
        if let Some(channels) = channels {
            let mut tasks = inner.tasks.lock();
            tasks.extend(pipeline.replicate(TICK).map(tokio::spawn));
            tasks.extend(channels.open(pipeline.clone()).map(tokio::spawn));
        }
        if joins {
            node.take_part().await?;
            return Ok(node);
        }

        let mut tx = pipeline.store().begin();
        let identity = inner.identity.load();
        if let Some(last_signed_root) = recovers {
            let cert = Pem(identity.service_certificate.to_pem());
            let service = RecoveredService { cert, last_signed_root, node: record };
            recover_service(&mut tx, &service, create_tx_id)?;
            renew_custody(&mut tx, &node)?;
        } else {
            let service = described_service(&inner.config, files, record, &identity);
            create_service(&mut tx, &service, create_tx_id)?;
        }
        let executed = pipeline.commit(tx, &Outcome::default())?;
        node.start_protocols()?;
        let committed = pipeline.wait_committed(pipeline.store().head());
        if committed.await != TxStatus::Committed {
            return Err(StartError::NotCommitted);
        }
        if inner.config.output_files.sealed_service_location.is_some() {
            sealed::forget_older(&*inner.host).await?;
        }
        let (tx_id, id) = (executed.tx_id, inner.id);
        tracing::info!(%tx_id, %id, "the node is part of the network");
        node.begin_duties();
        if recovers.is_some() {
            tracing::warn!(
                "the service is recovering: its members must agree to its new identity \
                 (transition_service_to_open), which this node then opens"
            );
            inner.tasks.lock().push(tokio::spawn(super::reopen::run(node.clone())));
        }
        Ok(node)
    }
}

impl Node {
    /// Waits until the log has brought the ledger here, with the trust in this node on it.
    async fn take_part(&self) -> Result<(), StartError> {
        let inner = &self.0;
        tracing::info!(id = %inner.id, "trusted; waiting for the ledger");
        loop {
            let committed = inner.pipeline.last_committed().seqno;
            let mut tx = inner.pipeline.store().begin();
            let listed = NODES.get(&mut tx, &inner.id).ok().flatten();
            let version = tx.version_of_previous_write(NODES.name(), &inner.id.to_bytes());
            let is_trusted = listed.is_some_and(|info| info.status == NodeStatus::Trusted);
            drop(tx);
            let is_here = !inner.pipeline.is_installing();
            if is_here && is_trusted && version.is_some_and(|version| version <= committed) {
                break;
            }
            inner.host.sleep(TICK).await;
        }
        self.take_up_protocols()?;
        tracing::info!(id = %inner.id, "the node is part of the network");
        self.begin_duties();
        Ok(())
    }

    /// What any node does when it is primary.
    fn begin_duties(&self) {
        let mut tasks = self.0.tasks.lock();
        tasks.push(tokio::spawn(issuers::run(self.clone())));
        if self.is_networked() {
            tasks.push(tokio::spawn(retirement::run(self.clone())));
            tasks.push(tokio::spawn(pending::run(self.clone())));
            let backup_fetch = &self.0.config.snapshots.backup_fetch;
            if backup_fetch.enabled {
                let fetches = backup_fetch::run(self.clone(), backup_fetch.clone());
                tasks.push(tokio::spawn(fetches));
            }
        }
    }

    /// Each protocol begins, or takes up what it has on the ledger, in a transaction of its own.
    fn start_protocols(&self) -> Result<(), StartError> {
        let inner = &self.0;
        for protocol in &inner.adapters.protocols {
            let mut tx = inner.pipeline.store().begin();
            let environment = Arc::clone(&inner.environment);
            protocol
                .start(&mut tx, environment)
                .map_err(|error| StartError::Protocol { name: protocol.name(), error })?;
            inner.pipeline.commit(tx, &Outcome::default())?;
        }
        Ok(())
    }

    /// Each protocol takes up what the service's first node has begun.
    fn take_up_protocols(&self) -> Result<(), StartError> {
        let inner = &self.0;
        for protocol in &inner.adapters.protocols {
            let name = protocol.name();
            let mut tx = inner.pipeline.store().begin();
            let started = protocol.start(&mut tx, Arc::clone(&inner.environment) as _);
            started.map_err(|error| StartError::Protocol { name, error })?;
            if tx.has_writes() {
                return Err(StartError::BegunElsewhere { name });
            }
        }
        Ok(())
    }
}

/// The service as the configuration describes it.
fn described_service(
    config: &Config,
    files: Files,
    node: NewNode,
    identity: &Identity,
) -> NewService {
    let start = config.command.start.clone().unwrap_or_default();
    let configured = start.service_configuration;
    NewService {
        cert: Pem(identity.service_certificate.to_pem()),
        service_data: files.service_data.unwrap_or(Json::Null),
        config: ServiceConfig {
            recovery_threshold: configured.recovery_threshold,
            consensus: configured.consensus,
            maximum_node_certificate_validity_days: Some(
                configured.maximum_node_certificate_validity_days.into(),
            ),
            maximum_service_certificate_validity_days: Some(
                configured.maximum_service_certificate_validity_days.into(),
            ),
            recent_cose_proposals_window_size: Some(configured.recent_cose_proposals_window_size),
            reconfiguration_type: configured.reconfiguration_type,
        },
        constitution: files.constitution,
        members: files.members.iter().map(founder).collect(),
        node,
    }
}

/// A founding member as configured.
pub(super) fn founder(member: &config::StartMemberFiles) -> NewMember {
    NewMember {
        cert: Pem(member.certificate.clone()),
        encryption_public_key: member.encryption_public_key.clone().map(Pem),
        member_data: member.data.clone().unwrap_or(Json::Null),
        recovery_role: member.recovery_role.map(|role| match role {
            config::RecoveryRole::NonParticipant => RecoveryRole::NonParticipant,
            config::RecoveryRole::Participant => RecoveryRole::Participant,
            config::RecoveryRole::Owner => RecoveryRole::Owner,
        }),
    }
}

/// The new ledger secret goes into the members' custody.
fn renew_custody(tx: &mut Tx, node: &Node) -> Result<(), StartError> {
    let inner = &node.0;
    coco_governance::renew_custody(tx, &*inner.keys, inner.host.entropy())
        .map_err(StartError::Custody)
}
