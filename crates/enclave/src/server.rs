//! The serving side of a node: its interfaces with their certificates.

use std::sync::Arc;

use crate::dispatch::Dispatcher;
use crate::endpoints::{Sessions, node_frontend};
use crate::forward::Answering;
use crate::interface::{Endorsement, Interface, InterfaceError};
use crate::node::{Identity, Node};
use crate::session::{Dispatch, Listener, ServerTls, TlsError};

/// Serves a node's interfaces until it is stopped.
pub struct Server {
    node: Node,
    listeners: Vec<Arc<Listener>>,
    /// The TLS of each interface that has it, with who endorses it.
    tls: Vec<(Endorsement, Arc<ServerTls>)>,
    /// Serves the clients of other nodes, for as long as it is here.
    _answering: Arc<Answering>,
}

/// The interfaces cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An interface's configuration is wrong.
    #[error("interface {name}: {error}")]
    Interface {
        /// Its name.
        name: String,
        /// What is wrong.
        error: InterfaceError,
    },
    /// The node's certificate cannot be used for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A built-in endpoint has a malformed path.
    #[error(transparent)]
    Route(#[from] coco_adapter::RouteSyntax),
}

impl Server {
    /// Starts to serve all interfaces of the node's configuration. Must be called on the runtime.
    pub fn start(node: Node) -> Result<Self, ServerError> {
        let idle = node.config().idle_connection_timeout.map(|idle| idle.0);
        let mut interfaces = Vec::new();
        for (name, config) in &node.config().network.rpc_interfaces {
            let interface = Interface::configured(name, config, idle)
                .map_err(|error| ServerError::Interface { name: name.clone(), error })?;
            interfaces.push((Arc::new(interface), Arc::default()));
        }
        let sessions: Sessions = Arc::new(interfaces);
        let frontend = Arc::new(node_frontend(&node, &sessions)?);
        let dispatch = Arc::new(Dispatcher::new(node.clone(), frontend));
        let (mut listeners, mut tls) = (Vec::new(), Vec::new());
        for (interface, metrics) in sessions.iter() {
            let own = match interface.endorsement {
                Endorsement::Unsecured => None,
                Endorsement::Service | Endorsement::Node => {
                    Some(Arc::new(ServerTls::new(node.host().clone())?))
                }
            };
            tls.extend(own.clone().map(|own| (interface.endorsement, own)));
            let host = node.host().clone();
            let dispatch: Arc<dyn Dispatch> = match &interface.protocol {
                None => dispatch.clone(),
                Some(served) => {
                    let protocol = dispatch.protocol(served).map_err(|error| {
                        ServerError::Interface { name: interface.name.clone(), error }
                    })?;
                    Arc::new(protocol)
                }
            };
            let (interface, metrics) = (interface.clone(), metrics.clone());
            listeners.push(Listener::new(host, interface, own, dispatch, metrics));
        }
        let answering = Arc::new(Answering::new(node.clone(), dispatch));
        if let Some(forwarder) = node.forwarder() {
            forwarder.answer_with(&answering);
        }
        let server = Self { node, listeners, tls, _answering: answering };
        server.refresh_certificates()?;
        for listener in &server.listeners {
            tokio::spawn(listener.clone().serve());
        }
        Ok(server)
    }

    /// Shows the node's present certificates from the next handshakes on.
    pub fn refresh_certificates(&self) -> Result<(), TlsError> {
        let identity: Arc<Identity> = self.node.identity();
        let key = identity.node_key.to_pem();
        for (endorsement, tls) in &self.tls {
            let chain = match endorsement {
                Endorsement::Service => identity.node_certificate.to_pem(),
                Endorsement::Node | Endorsement::Unsecured => identity.self_signed.to_pem(),
            };
            tls.install(&chain, &key)?;
        }
        Ok(())
    }

    /// Accepts nothing more, answers what is in flight, and ends the sessions.
    pub async fn stop(&self) {
        let stopping = self.listeners.iter().map(|listener| listener.stop());
        futures_util::future::join_all(stopping).await;
    }
}
