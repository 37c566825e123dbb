//! A listening interface: who endorses its certificate and what it lets in.

use std::ops::RangeInclusive;
use std::time::Duration;

use regex::RegexSet;

use crate::config::{self, Redirection, Role};

const WINDOW: RangeInclusive<u32> = 1..=(1 << 31) - 1;
const FRAME: RangeInclusive<u32> = 1 << 14..=(1 << 24) - 1;

/// One interface of the node.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name in the configuration.
    pub name: String,
    /// What its certificate proves.
    pub endorsement: Endorsement,
    /// How much it lets in.
    pub limits: Limits,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// The paths it serves; `None` serves all.
    pub accepted_endpoints: Option<AcceptedEndpoints>,
    /// Operator endpoints it opens beyond the usual ones.
    pub operator_features: Vec<OperatorFeature>,
    /// The protocol that it speaks instead of CCF's.
    pub protocol: Option<ProtocolInterface>,
    /// Where it sends clients whose requests are for another node; `None` forwards them.
    pub redirections: Option<Redirections>,
}

/// Where an interface sends clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirections {
    /// With what is for the primary.
    pub to_primary: Redirection,
    /// With what is for a backup.
    pub to_backup: Redirection,
}

impl From<&config::Redirections> for Redirections {
    fn from(configured: &config::Redirections) -> Self {
        let to = |configured: &Option<Redirection>, role| {
            configured.clone().unwrap_or(Redirection::NodeByRole { role, interface: None })
        };
        Self {
            to_primary: to(&configured.to_primary, Role::Primary),
            to_backup: to(&configured.to_backup, Role::Backup),
        }
    }
}

/// What an interface with a protocol of its own lets in.
#[derive(Clone, Debug)]
pub struct ProtocolInterface {
    /// The protocol's name.
    pub name: String,
    /// Web pages that browsers may let in.
    pub origins: Origins,
    /// Requests in a message that holds several.
    pub max_batch_requests: usize,
    /// Bytes of the answer to a message.
    pub max_reply_bytes: usize,
    /// Pause between pings of a WebSocket.
    pub ping_interval: Duration,
}

/// Web pages by their origin, as browsers send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Every page.
    All,
    /// Those of these origins.
    Listed(Vec<String>),
}

impl Origins {
    /// Whether a page may be let in.
    pub fn contain(&self, origin: &str) -> bool {
        match self {
            Self::All => true,
            Self::Listed(listed) => listed.iter().any(|listed| listed == origin),
        }
    }

    fn configured(configured: Option<&[String]>, endorsement: Endorsement) -> Self {
        match configured {
            Some(listed) if listed.iter().any(|origin| origin == "*") => Self::All,
            Some(listed) => Self::Listed(listed.to_vec()),
            None if endorsement == Endorsement::Unsecured => Self::All,
            None => Self::Listed(Vec::new()),
        }
    }
}

/// Who vouches for the certificate that an interface shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endorsement {
    /// The service: the node's certificate signed by the service key. Handshakes fail until the
    /// node is part of a service.
    Service,
    /// Nobody: the node's self-signed certificate, there from the start.
    Node,
    /// Plain HTTP, for loopback development.
    Unsecured,
}

/// Endpoints that an operator must open interface by interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorFeature {
    /// Download of snapshots.
    SnapshotRead,
    /// Download of ledger chunks.
    LedgerChunkRead,
    /// Taking a snapshot on demand.
    SnapshotCreate,
}

/// How much an interface lets in. The defaults are CCF's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions beyond this number get 503 on every request.
    pub max_sessions_soft: usize,
    /// Sessions beyond this number are closed at once.
    pub max_sessions_hard: usize,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Largest request line with all headers.
    pub max_header_bytes: usize,
    /// Most headers in a request.
    pub max_header_count: usize,
    /// HTTP/2: most requests in flight.
    pub max_concurrent_streams: u32,
    /// HTTP/2: initial flow-control window.
    pub initial_window_bytes: u32,
    /// HTTP/2: largest frame.
    pub max_frame_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions_soft: 1000,
            max_sessions_hard: 1010,
            max_body_bytes: 1024 * 1024,
            max_header_bytes: 16 * 1024,
            max_header_count: 256,
            max_concurrent_streams: 100,
            initial_window_bytes: 64 * 1024,
            max_frame_bytes: 16 * 1024,
        }
    }
}

/// How long an interface waits for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a whole request head, from its first byte.
    pub request_head: Duration,
    /// For a request body to go on arriving, and for a reply to go on being taken.
    pub stall: Duration,
    /// For the next request on a silent session; `None` waits for ever.
    pub idle: Option<Duration>,
    /// For sessions to end by themselves when the node stops.
    pub shutdown: Duration,
    /// For the primary to answer a request that is forwarded to it.
    pub forwarding: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(20),
            stall: Duration::from_secs(20),
            idle: Some(Duration::from_secs(60)),
            shutdown: Duration::from_secs(5),
            forwarding: Duration::from_secs(3),
        }
    }
}

/// Regular expressions over whole paths.
#[derive(Clone, Debug)]
pub struct AcceptedEndpoints(RegexSet);

impl AcceptedEndpoints {
    /// Compiles the expressions; a path is accepted when one of them matches all of it.
    pub fn parse(patterns: &[String]) -> Result<Self, regex::Error> {
        let whole = patterns.iter().map(|pattern| format!("^(?:{pattern})$"));
        RegexSet::new(whole).map(Self)
    }

    /// Whether the interface serves a path.
    pub fn contains(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

impl Interface {
    /// An interface with default limits that serves every path.
    pub fn new(name: &str, endorsement: Endorsement) -> Self {
        Self {
            name: name.to_owned(),
            endorsement,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            accepted_endpoints: None,
            operator_features: Vec::new(),
            protocol: None,
            redirections: None,
        }
    }

    /// An interface as configured.
    pub fn configured(
        name: &str,
        config: &config::Interface,
        idle: Option<Duration>,
    ) -> Result<Self, InterfaceError> {
        let http = &config.http_configuration;
        let endorsement = match config.endorsement.authority {
            config::Authority::Service => Endorsement::Service,
            config::Authority::Node => Endorsement::Node,
            config::Authority::Unsecured => Endorsement::Unsecured,
        };
        let accepted = config.accepted_endpoints.as_deref();
        let features = config.enabled_operator_features.iter();
        Ok(Self {
            endorsement,
            limits: Limits {
                max_sessions_soft: saturate(config.max_open_sessions_soft),
                max_sessions_hard: saturate(config.max_open_sessions_hard),
                max_body_bytes: saturate(http.max_body_size.0),
                max_header_bytes: saturate(http.max_header_size.0),
                max_header_count: saturate(http.max_headers_count.into()),
                max_concurrent_streams: http.max_concurrent_streams_count,
                initial_window_bytes: bounded(
                    "initial_window_size",
                    http.initial_window_size.0,
                    WINDOW,
                )?,
                max_frame_bytes: bounded("max_frame_size", http.max_frame_size.0, FRAME)?,
            },
            timeouts: Timeouts {
                request_head: http.header_timeout.0,
                idle,
                forwarding: Duration::from_millis(config.forwarding_timeout_ms),
                ..Timeouts::default()
            },
            accepted_endpoints: accepted.map(AcceptedEndpoints::parse).transpose()?,
            operator_features: features
                .map(|feature| OperatorFeature::parse(feature))
                .collect::<Result<_, _>>()?,
            protocol: config.coco.as_ref().map(|protocol| ProtocolInterface {
                name: protocol.protocol.clone(),
                origins: Origins::configured(protocol.allowed_origins.as_deref(), endorsement),
                max_batch_requests: saturate(protocol.max_batch_requests.into()),
                max_reply_bytes: saturate(protocol.max_reply_size.0),
                ping_interval: protocol.ping_interval.0,
            }),
            redirections: config.redirections.as_ref().map(Redirections::from),
            ..Self::new(name, endorsement)
        })
    }

    /// Whether the interface serves a path.
    pub fn accepts(&self, path: &str) -> bool {
        self.accepted_endpoints.as_ref().is_none_or(|accepted| accepted.contains(path))
    }

    /// Whether an operator opened a feature here.
    pub fn offers(&self, feature: OperatorFeature) -> bool {
        self.operator_features.contains(&feature)
    }
}

/// An interface's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// Not a regular expression.
    #[error("accepted_endpoints: {0}")]
    AcceptedEndpoints(#[from] regex::Error),
    /// HTTP/2 does not allow the value.
    #[error("http_configuration.{key} is {number}, but HTTP/2 allows {bounds:?}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// What it holds.
        number: u64,
        /// What it may hold.
        bounds: RangeInclusive<u32>,
    },
    /// The node has no such protocol.
    #[error("coco.protocol: this node has no {name:?}, only {known:?}")]
    UnknownProtocol {
        /// As configured.
        name: String,
        /// What it has.
        known: Vec<&'static str>,
    },
    /// No such feature.
    #[error("enabled_operator_features: {0:?} is not an operator feature")]
    UnknownFeature(String),
}

impl OperatorFeature {
    fn parse(name: &str) -> Result<Self, InterfaceError> {
        match name {
            "SnapshotRead" => Ok(Self::SnapshotRead),
            "LedgerChunkRead" => Ok(Self::LedgerChunkRead),
            "SnapshotCreate" => Ok(Self::SnapshotCreate),
            unknown => Err(InterfaceError::UnknownFeature(unknown.to_owned())),
        }
    }
}

/// The number, or as much of it as memory could ever hold.
fn saturate(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A number that HTTP/2 bounds (RFC 9113 section 6.5.2).
fn bounded(
    key: &'static str,
    number: u64,
    bounds: RangeInclusive<u32>,
) -> Result<u32, InterfaceError> {
    match u32::try_from(number) {
        Ok(fits) if bounds.contains(&fits) => Ok(fits),
        _ => Err(InterfaceError::OutOfRange { key, number, bounds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_endpoints_match_whole_paths() {
        let patterns = ["/node/.*".to_owned(), "/app/log".to_owned()];
        let accepted = AcceptedEndpoints::parse(&patterns).unwrap();
        assert!(accepted.contains("/node/state"));
        assert!(accepted.contains("/app/log"));
        assert!(!accepted.contains("/app/log/private"));
        assert!(!accepted.contains("/gov/node/x"));
        assert!(AcceptedEndpoints::parse(&["(".to_owned()]).is_err());
    }
}
