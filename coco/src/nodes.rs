//! The nodes of a service, as it lists them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use coco_crypto::Certificate;
use coco_governance::tables::{NodeStatus, RpcInterface};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::advice::advised;
use crate::client::{Client, governance};
use crate::moment::rfc3339;

/// A node of a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ServiceNode {
    pub(crate) node_id: String,
    pub(crate) status: NodeStatus,
    /// Absent where a node takes no part.
    pub(crate) role: Option<NodeRole>,
    /// `host:port` for clients who trust the service's certificate.
    pub(crate) address: Option<String>,
    /// The last second of its certificate, as RFC 3339 has it.
    pub(crate) certificate_valid_to: Option<String>,
    /// What operators say of it.
    pub(crate) node_data: Value,
    /// Its retirement is complete: it may be stopped.
    pub(crate) removable: bool,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeRole {
    /// Orders transactions.
    Primary,
    /// Follows.
    Backup,
}

impl NodeRole {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// `/node/network/nodes`
#[derive(Deserialize)]
struct Listed {
    nodes: Vec<ListedNode>,
}

#[derive(Deserialize)]
struct ListedNode {
    node_id: String,
    status: NodeStatus,
    primary: bool,
    rpc_interfaces: BTreeMap<String, RpcInterface>,
    #[serde(default)]
    node_data: Value,
}

/// `/gov/service/nodes`, where it says more.
#[derive(Deserialize)]
struct Governed {
    value: Vec<GovernedNode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GovernedNode {
    node_id: String,
    certificate: Option<String>,
}

impl Client {
    /// All nodes that the service knows: primary, backups, those who wait, those who have left.
    pub(crate) fn nodes(&self) -> Result<Vec<ServiceNode>> {
        let Listed { nodes } = self.get_json("/node/network/nodes")?;
        let governed: Governed = self.get_json(&governance("service/nodes"))?;
        let mut certificates: BTreeMap<String, String> = BTreeMap::new();
        for GovernedNode { node_id, certificate } in governed.value {
            certificates.extend(certificate.map(|certificate| (node_id, certificate)));
        }
        let removable = self.removable_nodes()?;
        let interface = interface_at(&nodes, &self.url());
        let describe = |node: ListedNode| ServiceNode {
            role: role(&node),
            address: address(&node, interface.as_deref()),
            certificate_valid_to: certificates.get(&node.node_id).and_then(|pem| valid_to(pem)),
            removable: removable.contains(&node.node_id),
            node_id: node.node_id,
            status: node.status,
            node_data: node.node_data,
        };
        let mut nodes: Vec<ServiceNode> = nodes.into_iter().map(describe).collect();
        nodes.sort_by_key(|node| (node.role.is_none(), node.role != Some(NodeRole::Primary)));
        Ok(nodes)
    }

    /// The ids of those whose retirement is complete.
    pub(crate) fn removable_nodes(&self) -> Result<BTreeSet<String>> {
        let Listed { nodes } = self.get_json("/node/network/removable_nodes")?;
        Ok(nodes.into_iter().map(|node| node.node_id).collect())
    }

    /// Talks to the primary from now on, if the node that is asked knows it.
    pub(crate) fn move_to_primary(&self) -> Result<()> {
        let Listed { nodes } = self.get_json("/node/network/nodes")?;
        let interface = interface_at(&nodes, &self.url());
        let primary = nodes.iter().find(|node| node.primary);
        if let Some(address) = primary.and_then(|node| address(node, interface.as_deref())) {
            self.move_to(&format!("https://{address}"));
        }
        Ok(())
    }
}

/// The node whose id starts with `prefix`.
pub(crate) fn find_node(nodes: &[ServiceNode], prefix: &str) -> Result<ServiceNode> {
    if prefix.is_empty() {
        return Err(advised(anyhow!("an empty id names no node"), "`coco node list` names them"));
    }
    let mut found = nodes.iter().filter(|node| node.node_id.starts_with(prefix));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node.clone()),
        (Some(_), Some(_)) => bail!("several nodes start with {prefix:?}: give more of the id"),
        (None, _) => Err(advised(
            anyhow!("the service knows no node {prefix:?}"),
            "`coco node list` names them; a node that is to join is listed once it has reached \
             the service: its log says what keeps it from that",
        )),
    }
}

/// The first characters of a node's id: enough to name it.
pub(crate) fn short(node_id: &str) -> &str {
    node_id.get(..12).unwrap_or(node_id)
}

/// What a node says of itself, for a terminal: it may be a stranger's.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    let mut shown: String =
        text.chars().map(|it| if it.is_control() { '?' } else { it }).take(longest).collect();
    if text.chars().nth(longest).is_some() {
        shown.push_str("...");
    }
    shown
}

fn role(node: &ListedNode) -> Option<NodeRole> {
    match (node.primary, node.status) {
        (true, _) => Some(NodeRole::Primary),
        (false, NodeStatus::Trusted) => Some(NodeRole::Backup),
        (false, NodeStatus::Pending | NodeStatus::Retired) => None,
    }
}

fn valid_to(certificate: &str) -> Option<String> {
    let certificate = Certificate::from_pem(certificate).ok()?;
    Some(rfc3339(certificate.validity().not_after_unix_s))
}

/// The name of the interface that is meant by a URL: that with its address, or else with its port,
/// since nodes are also reached under other names.
fn interface_at(nodes: &[ListedNode], url: &str) -> Option<String> {
    fn port(address: &str) -> &str {
        address.rsplit_once(':').map_or("443", |(_, port)| port)
    }
    let asked = url.split_once("://").map_or(url, |(_, rest)| rest);
    let named = |matches: &dyn Fn(&str) -> bool| {
        let mut interfaces = nodes.iter().flat_map(|node| &node.rpc_interfaces);
        let found = interfaces.find(|(_, interface)| matches(interface.address()));
        found.map(|(name, _)| name.clone())
    };
    named(&|address| address == asked).or_else(|| named(&|address| port(address) == port(asked)))
}

/// Where a node has the interface of this name, or else one for CCF's endpoints that shows the
/// service's certificate.
fn address(node: &ListedNode, interface: Option<&str>) -> Option<String> {
    let named = interface.and_then(|name| node.rpc_interfaces.get(name));
    let shows_service = |interface: &&RpcInterface| {
        interface.endorsement.as_ref().is_none_or(|endorsement| endorsement.authority == "Service")
    };
    let mut of_ccf = node.rpc_interfaces.values().filter(|interface| interface.is_ccf());
    let found = named.or_else(|| of_ccf.find(shows_service));
    found.map(|interface| interface.address().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listed(id: &str, primary: bool, host: &str) -> ListedNode {
        let node = json!({
            "node_id": id,
            "status": "Trusted",
            "primary": primary,
            "rpc_interfaces": {
                "aside": {
                    "bind_address": format!("{host}:8545"),
                    "endorsement": { "authority": "Unsecured" },
                },
                "clients": {
                    "bind_address": "0.0.0.0:8000",
                    "published_address": format!("{host}:8000"),
                    "endorsement": { "authority": "Service" },
                },
                "operators": {
                    "bind_address": format!("{host}:9000"),
                    "endorsement": { "authority": "Service" },
                },
            },
        });
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn other_nodes_are_reached_at_the_interface_that_was_asked() {
        let nodes = [listed("a", true, "10.0.0.1"), listed("b", false, "10.0.0.2")];
        for (url, interface) in [
            ("https://10.0.0.1:9000", Some("operators")),
            ("https://localhost:8000", Some("clients")),
            ("https://10.0.0.9:7", None),
        ] {
            assert_eq!(interface_at(&nodes, url).as_deref(), interface, "{url}");
        }
        let at = |interface| address(&nodes[1], interface).unwrap();
        assert_eq!(at(Some("operators")), "10.0.0.2:9000");
        assert_eq!(at(None), "10.0.0.2:8000", "never the one without the service's certificate");
        assert_eq!(at(Some("elsewhere")), "10.0.0.2:8000");
    }

    #[test]
    fn a_node_is_named_by_the_start_of_its_id() {
        let node = |id: &str| ServiceNode {
            node_id: id.to_owned(),
            status: NodeStatus::Pending,
            role: None,
            address: None,
            certificate_valid_to: None,
            node_data: Value::Null,
            removable: false,
        };
        let nodes = [node("ab12"), node("ab34"), node("cd56")];
        assert_eq!(find_node(&nodes, "ab3").unwrap().node_id, "ab34");
        let error = |prefix| crate::advice::explain(&find_node(&nodes, prefix).unwrap_err());
        assert!(error("ab").contains("several nodes"));
        assert!(error("ef").contains("coco node list"));
        let only = find_node(&nodes[..1], "").unwrap_err();
        assert!(crate::advice::explain(&only).contains("an empty id names no node"));
    }

    #[test]
    fn what_strangers_say_moves_no_cursor() {
        assert_eq!(printable("10.0.0.1:80\u{1b}[2J\n", 80), "10.0.0.1:80?[2J?");
        assert_eq!(printable("abcdef", 3), "abc...");
        assert_eq!(short("abc"), "abc");
    }
}
