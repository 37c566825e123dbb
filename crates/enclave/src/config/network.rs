//! `network`: the interfaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Size, Time, megabytes, millis, section};

/// The interfaces of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// For other nodes; without it a node is alone.
    #[serde(default)]
    pub node_to_node_interface: Option<NodeInterface>,
    /// For everybody else, by name.
    pub rpc_interfaces: BTreeMap<String, Interface>,
}

/// The interface for other nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeInterface {
    /// `address:port`; port 0 takes a free one.
    pub bind_address: String,
    /// What others see; the bound address if absent.
    #[serde(default)]
    pub published_address: Option<String>,
    /// `tcp` or `udp`; only the former is served.
    #[serde(default)]
    pub protocol: Option<String>,
}

impl NodeInterface {
    /// `host:port` others use.
    pub fn address(&self) -> &str {
        self.published_address.as_ref().unwrap_or(&self.bind_address)
    }
}

impl Interface {
    /// `host:port` clients use.
    pub fn address(&self) -> &str {
        self.published_address.as_ref().unwrap_or(&self.bind_address)
    }
}

/// An interface for clients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// `address:port`; port 0 takes a free one.
    pub bind_address: String,
    /// What others see; the bound address if absent.
    #[serde(default)]
    pub published_address: Option<String>,
    /// `tcp` or `udp`; only the former is served.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Which HTTP is offered.
    #[serde(default)]
    pub app_protocol: AppProtocol,
    /// From this many sessions on, new ones get 503.
    #[serde(default = "default_soft_limit")]
    pub max_open_sessions_soft: u64,
    /// From this many sessions on, new ones are not accepted.
    #[serde(default = "default_hard_limit")]
    pub max_open_sessions_hard: u64,
    /// Limits of requests.
    #[serde(default)]
    pub http_configuration: HttpConfiguration,
    /// Whose certificate is presented.
    #[serde(default)]
    pub endorsement: Endorsement,
    /// Regular expressions of the paths served; absent means all.
    #[serde(default)]
    pub accepted_endpoints: Option<Vec<String>>,
    /// Limit on a forwarded request.
    #[serde(default = "default_forwarding_timeout")]
    pub forwarding_timeout_ms: u64,
    /// Where to send a client whose request this node cannot serve.
    #[serde(default)]
    pub redirections: Option<Redirections>,
    /// Operator features offered here, such as file access.
    #[serde(default)]
    pub enabled_operator_features: Vec<String>,
    /// Ours: the protocol that is spoken here instead of CCF's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coco: Option<ProtocolInterface>,
}

/// An interface that speaks a protocol of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolInterface {
    /// Name of the protocol, such as `ethereum`.
    pub protocol: String,
    /// Web pages that browsers may let in, as `scheme://host[:port]`; `*` for all. Absent: all
    /// where the interface is `Unsecured`, none otherwise.
    #[serde(default)]
    pub allowed_origins: Option<Vec<String>>,
    /// Requests in a message that holds several.
    #[serde(default = "default_batch_requests")]
    pub max_batch_requests: u32,
    /// Bytes of the answer to a message.
    #[serde(default = "default_reply_size")]
    pub max_reply_size: Size,
    /// Pause between pings of a WebSocket.
    #[serde(default = "default_ping_interval")]
    pub ping_interval: Time,
}

fn default_batch_requests() -> u32 {
    1_000
}
fn default_reply_size() -> Size {
    megabytes(32)
}
fn default_ping_interval() -> Time {
    millis(20_000)
}

fn default_soft_limit() -> u64 {
    1_000
}
fn default_hard_limit() -> u64 {
    1_010
}
fn default_forwarding_timeout() -> u64 {
    3_000
}

/// Which HTTP an interface speaks. Both are offered by ALPN; the choice is CCF's and decides only
/// what a client without ALPN gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    HTTP1,
    /// HTTP/2.
    HTTP2,
}

section! {
    /// Limits of requests.
    HttpConfiguration {
        /// Bytes of a body.
        max_body_size: Size = megabytes(1),
        /// Bytes of all headers.
        max_header_size: Size = Size(16 << 10),
        /// Number of headers.
        max_headers_count: u32 = 256,
        /// HTTP/2 streams at once.
        max_concurrent_streams_count: u32 = 100,
        /// HTTP/2 window.
        initial_window_size: Size = Size(64 << 10),
        /// HTTP/2 frame.
        max_frame_size: Size = Size(16 << 10),
        /// The whole header must have arrived after this.
        header_timeout: Time = millis(10_000),
    }
}

/// Whose certificate is presented.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endorsement {
    /// Whose.
    pub authority: Authority,
}

/// Whose certificate is presented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authority {
    /// The node's, endorsed by the service.
    #[default]
    Service,
    /// The node's own.
    Node,
    /// None: plain HTTP, for development on the loopback address.
    Unsecured,
}

/// Where to send a client whose request this node cannot serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirections {
    /// When it needs the primary.
    #[serde(default)]
    pub to_primary: Option<Redirection>,
    /// When it needs a backup.
    #[serde(default)]
    pub to_backup: Option<Redirection>,
}

/// One redirection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "target", deny_unknown_fields)]
pub enum Redirection {
    /// To the published address of a node's interface.
    NodeByRole {
        /// Which node.
        role: Role,
        /// Which interface; the one of the request if absent.
        #[serde(default)]
        interface: Option<String>,
    },
    /// To a fixed address, such as a load balancer's.
    StaticAddress {
        /// `host:port`.
        address: String,
    },
}

/// A node's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Orders transactions.
    Primary,
    /// Follows.
    Backup,
}

impl Network {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let reserved = crate::channels::NODE_TO_NODE_INTERFACE;
        if self.rpc_interfaces.contains_key(reserved) {
            return Err(ConfigError::OutOfRange {
                key: "network.rpc_interfaces",
                value: reserved.to_owned(),
                rule: "another name: this one is that of the interface for other nodes",
            });
        }
        if let Some(NodeInterface { bind_address, protocol, .. }) = &self.node_to_node_interface {
            check_address("network.node_to_node_interface.bind_address", bind_address)?;
            check_transport("network.node_to_node_interface.protocol", protocol.as_deref())?;
        }
        for interface in self.rpc_interfaces.values() {
            check_address("network.rpc_interfaces.*.bind_address", &interface.bind_address)?;
            check_transport("network.rpc_interfaces.*.protocol", interface.protocol.as_deref())?;
            interface.http_configuration.check()?;
            let (soft, hard) = (interface.max_open_sessions_soft, interface.max_open_sessions_hard);
            if soft > hard {
                return Err(ConfigError::OutOfRange {
                    key: "network.rpc_interfaces.*.max_open_sessions_soft",
                    value: soft.to_string(),
                    rule: "at most max_open_sessions_hard",
                });
            }
            interface.check_protocol()?;
        }
        Ok(())
    }
}

/// `host:port`; whether the host is one shows when it is bound.
fn check_address(key: &'static str, address: &str) -> Result<(), ConfigError> {
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    match !host.is_empty() && port.parse::<u16>().is_ok() {
        true => Ok(()),
        false => {
            let value = format!("{address:?}");
            Err(ConfigError::OutOfRange { key, value, rule: "host:port" })
        }
    }
}

fn check_transport(key: &'static str, protocol: Option<&str>) -> Result<(), ConfigError> {
    match protocol {
        None | Some("tcp") => Ok(()),
        Some(other) => {
            let value = format!("{other:?}");
            Err(ConfigError::OutOfRange { key, value, rule: "tcp, which alone is served" })
        }
    }
}

impl HttpConfiguration {
    /// What would refuse every request.
    fn check(&self) -> Result<(), ConfigError> {
        const LEAST: &str = "at least 1";
        let zero = [
            ("network.rpc_interfaces.*.http_configuration.max_header_size", self.max_header_size.0),
            (
                "network.rpc_interfaces.*.http_configuration.max_headers_count",
                self.max_headers_count.into(),
            ),
            (
                "network.rpc_interfaces.*.http_configuration.max_concurrent_streams_count",
                self.max_concurrent_streams_count.into(),
            ),
        ];
        match zero.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => {
                Err(ConfigError::OutOfRange { key, value: "0".to_owned(), rule: LEAST })
            }
            None => Ok(()),
        }
    }
}

impl Interface {
    fn check_protocol(&self) -> Result<(), ConfigError> {
        let Some(protocol) = &self.coco else { return Ok(()) };
        let refuse = |key, value: String, rule| Err(ConfigError::OutOfRange { key, value, rule });
        if self.endorsement.authority == Authority::Unsecured && !self.is_loopback() {
            let rule = "a loopback address where endorsement.authority is Unsecured";
            let address = self.bind_address.clone();
            return refuse("network.rpc_interfaces.*.bind_address", address, rule);
        }
        if protocol.max_batch_requests == 0 {
            let key = "network.rpc_interfaces.*.coco.max_batch_requests";
            return refuse(key, "0".to_owned(), "at least 1");
        }
        if protocol.ping_interval.0 < std::time::Duration::from_secs(1) {
            let key = "network.rpc_interfaces.*.coco.ping_interval";
            return refuse(key, protocol.ping_interval.to_string(), "at least 1s");
        }
        let origins = protocol.allowed_origins.iter().flatten();
        match origins.into_iter().find(|origin| !is_origin(origin)) {
            Some(origin) => {
                let key = "network.rpc_interfaces.*.coco.allowed_origins";
                refuse(key, origin.clone(), "*, or scheme://host[:port] as browsers write it")
            }
            None => Ok(()),
        }
    }

    fn is_loopback(&self) -> bool {
        let host = self.bind_address.rsplit_once(':').map_or("", |(host, _)| host);
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

/// Whether a text is an origin as browsers serialise it: no path, no trailing slash.
fn is_origin(text: &str) -> bool {
    text == "*"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            let lower = |part: &str| !part.is_empty() && part == part.to_ascii_lowercase();
            lower(scheme) && lower(host) && !host.contains(['/', '*', '?', '#', '@', ' '])
        })
}
