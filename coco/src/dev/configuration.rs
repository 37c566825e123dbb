//! The configuration of a node of a development service, in CCF's schema.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::folder::DevFolder;
use crate::advice::Advise;
use crate::identity::encryption_key_files;
use crate::service::identity_files;

/// The interface for clients.
pub(crate) const INTERFACE: &str = "primary_rpc_interface";
/// The interface for wallets.
pub(crate) const ETHEREUM_INTERFACE: &str = "ethereum_rpc_interface";
/// Where a node says where it listens, in its folder.
pub(crate) const ADDRESSES: &str = "rpc_addresses.json";

/// Certificates of a folder that is kept shall last.
pub(super) const VALIDITY_DAYS: u32 = 365;

/// Where and how a node listens: ports, of which 0 takes a free one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Listening {
    pub(crate) clients: u16,
    /// For wallets; without it there is no chain.
    pub(crate) ethereum: Option<u16>,
    /// For other nodes; without it the node stays alone.
    pub(crate) nodes: Option<u16>,
    /// Whether Ethereum is served with the service's certificate, not as plain HTTP.
    pub(crate) ethereum_tls: bool,
}

impl Listening {
    /// Whether every port can be had; asked before anything is removed for a service that uses them.
    pub(crate) fn refuse_taken_ports(&self) -> Result<()> {
        let ports = [
            (Some(self.clients), "--port"),
            (self.ethereum, "--ethereum-port"),
            (self.nodes, "--node-port"),
        ];
        for (port, option) in ports {
            let Some(port) = port else { continue };
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .with_context(|| format!("port {port} cannot be listened on"))
                .advise(|| format!("stop whoever listens there, or take another {option}"))?;
        }
        Ok(())
    }
}

/// How the node comes to its service.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command<'a> {
    /// It begins one, whose chain has these fees.
    Start { fees: &'a Value },
    /// It goes on with the one of its folder.
    Restart,
    /// It joins that of a node with this address.
    Join { target: &'a str },
}

/// What the configuration is made of.
pub(super) struct NodeConfig<'a> {
    /// With the keys of the members.
    pub(super) folder: &'a DevFolder,
    /// The node's own folder.
    pub(super) home: &'a Path,
    pub(super) listening: Listening,
    pub(super) command: Command<'a>,
    /// Of which 0 means as many as fit the machine.
    pub(super) worker_threads: usize,
}

impl NodeConfig<'_> {
    pub(super) fn to_json(&self) -> Value {
        let at = |name: &str| self.home.join(name);
        // A service of several nodes does not go on with what is in the folder of one of them.
        let sealed = (self.home == self.folder.path()).then(|| at("sealed"));
        json!({
            "network": self.network(),
            "node_certificate": {
                "subject_alt_names": ["iPAddress:127.0.0.1", "dNSName:localhost"],
                "curve_id": "Secp256R1",
                "initial_validity_days": VALIDITY_DAYS,
            },
            "command": self.command(),
            "ledger": { "directory": at("ledger") },
            "snapshots": { "directory": at("snapshots") },
            "worker_threads": self.worker_threads,
            "output_files": {
                "node_certificate_file": at("node_cert.pem"),
                "pid_file": at("node.pid"),
                "rpc_addresses_file": at(ADDRESSES),
                "sealed_service_location": sealed,
            },
        })
    }

    fn network(&self) -> Value {
        let Listening { clients, ethereum, nodes, ethereum_tls } = self.listening;
        let local = |port: u16| format!("127.0.0.1:{port}");
        let mut interfaces = json!({
            INTERFACE: {
                "bind_address": local(clients),
                "http_configuration": { "max_body_size": "16MB" },
            },
        });
        if let (Some(port), Some(interfaces)) = (ethereum, interfaces.as_object_mut()) {
            let authority = if ethereum_tls { "Service" } else { "Unsecured" };
            let interface = json!({
                "bind_address": local(port),
                "endorsement": { "authority": authority },
                "http_configuration": { "max_body_size": "5MB" },
                "coco": { "protocol": "ethereum" },
            });
            interfaces.insert(ETHEREUM_INTERFACE.to_owned(), interface);
        }
        json!({
            "node_to_node_interface": nodes.map(|port| json!({ "bind_address": local(port) })),
            "rpc_interfaces": interfaces,
        })
    }

    fn command(&self) -> Value {
        let (kind, fees) = match self.command {
            Command::Start { fees } => ("Start", fees),
            Command::Restart => ("Restart", &Value::Null),
            Command::Join { target } => {
                return json!({
                    "type": "Join",
                    "service_certificate_file": self.folder.service_cert_file(),
                    "join": { "target_rpc_address": target, "retry_timeout": "50ms" },
                });
            }
        };
        let keys = self.folder.path();
        let member = |name: &String| {
            json!({
                "certificate_file": identity_files(keys, name).0,
                "encryption_public_key_file": encryption_key_files(keys, name).0,
            })
        };
        let members: Vec<Value> = self.folder.member_names().iter().map(member).collect();
        let chain = json!({ "genesis_file": self.folder.genesis_file(), "fees": fees });
        let protocols = match self.listening.ethereum {
            Some(_) => json!({ "ethereum": chain }),
            None => json!({}),
        };
        json!({
            "type": kind,
            "service_certificate_file": self.folder.service_cert_file(),
            "start": {
                "members": members,
                "service_configuration": { "recovery_threshold": 2 },
                "initial_service_certificate_validity_days": VALIDITY_DAYS,
                "service_subject_name": "CN=Coco Development Service",
                "protocols": protocols,
            },
        })
    }
}
