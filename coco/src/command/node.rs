//! `coco node list`, `trust` and `retire`: the nodes of a service, and who of them takes part.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use clap::Args;
use coco_governance::tables::NodeStatus;
use serde_json::{Value, json};

use crate::advice::advised;
use crate::client::Client;
use crate::governance::{Proposal, actions};
use crate::governance_message::now_seconds;
use crate::moment::{day, rfc3339};
use crate::node::time;
use crate::nodes::{NodeRole, ServiceNode, find_node, printable, short};
use crate::output::{Output, counted};
use crate::service::{ServiceArgs, SignedArgs};

/// Pause between two questions whether a node may be stopped.
const POLL: Duration = Duration::from_millis(100);
/// How long one node may take to answer that.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Longest text of an operator's data in a table.
const DATA_WIDTH: usize = 48;

#[derive(Args, Debug)]
pub(crate) struct TrustArgs {
    #[command(flatten)]
    node: NamedNode,
    /// Days that the node's certificate is valid; as many as the service admits if not given
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    valid_days: Option<u32>,
    #[command(flatten)]
    signed: SignedArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    node: NamedNode,
    /// Wait until the node may be stopped
    #[arg(long)]
    wait: bool,
    /// Wait at most so long, such as 90s
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, requires = "wait")]
    timeout: Duration,
    #[command(flatten)]
    signed: SignedArgs,
}

#[derive(Args, Debug)]
struct NamedNode {
    /// The node's id, or its first characters
    #[arg(value_name = "NODE_ID")]
    node_id: String,
}

pub(crate) fn list(service: &ServiceArgs, output: Output) -> Result<()> {
    let client = service.connect()?;
    let nodes = client.nodes()?;
    output.print(&json!({ "nodes": nodes }), || table(&nodes))?;
    Ok(())
}

pub(crate) fn trust(arguments: &TrustArgs, output: Output) -> Result<()> {
    let client = arguments.signed.service.connect()?;
    client.move_to_primary()?;
    let node = find_node(&client.nodes()?, &arguments.node.node_id)?;
    may_be_trusted(&node)?;
    let args = json!({
        "node_id": node.node_id,
        "valid_from": rfc3339(i64::try_from(now_seconds())?),
        "validity_period_days": arguments.valid_days,
    });
    let proposal = actions(&[("transition_node_to_trusted", without_nulls(args))]);
    let proposal = client.agree(&arguments.signed.members()?, &proposal)?;
    let accepted = proposal.is_accepted()?;
    output.print(&json!({ "node_id": node.node_id, "proposal": proposal }), || {
        let id = &node.node_id;
        match accepted {
            true => format!(
                "node {id} is trusted\n\
                 It gets the ledger now, and counts when it has it: `coco status` shows how far it is."
            ),
            false => format!("node {id} is pending\n{}", still_open(&proposal, &arguments.signed)),
        }
    })?;
    Ok(())
}

pub(crate) fn retire(arguments: &RetireArgs, output: Output) -> Result<()> {
    let client = arguments.signed.service.connect()?;
    client.move_to_primary()?;
    let nodes = client.nodes()?;
    let node = find_node(&nodes, &arguments.node.node_id)?;
    let others = others(&arguments.signed.service, &nodes, &node)?;
    if arguments.wait && node.status == NodeStatus::Retired {
        wait_until_removable(&others, &node.node_id, arguments.timeout)?;
        let result = json!({ "node_id": node.node_id, "may_be_stopped": true });
        output.print(&result, || has_left(&node.node_id))?;
        return Ok(());
    }
    may_be_retired(&nodes, &node)?;
    let proposal = actions(&[("remove_node", json!({ "node_id": node.node_id }))]);
    let proposal = client.agree(&arguments.signed.members()?, &proposal)?;
    let accepted = proposal.is_accepted()?;
    if arguments.wait && !accepted && !output.is_json() {
        eprintln!("{}", still_open(&proposal, &arguments.signed));
    }
    let may_be_stopped = if node.status == NodeStatus::Pending {
        // It has nothing of the service.
        accepted
    } else if arguments.wait {
        wait_until_removable(&others, &node.node_id, arguments.timeout)?;
        true
    } else {
        false
    };
    let result = json!({
        "node_id": node.node_id,
        "proposal": proposal,
        "may_be_stopped": may_be_stopped,
    });
    output.print(&result, || {
        let id = &node.node_id;
        match (may_be_stopped, accepted) {
            (true, _) if node.status == NodeStatus::Pending => {
                format!("node {id} is forgotten; as long as it runs it asks again: stop it")
            }
            (true, _) => has_left(id),
            (false, true) => format!(
                "node {id} is retired\n\
                 It may be stopped when `coco node list` says so; --wait waits for that."
            ),
            (false, false) => {
                let status = node.status;
                format!("node {id} is {status:?}\n{}", still_open(&proposal, &arguments.signed))
            }
        }
    })?;
    Ok(())
}

fn has_left(node_id: &str) -> String {
    format!("node {node_id} has left: it may be stopped")
}

fn may_be_trusted(node: &ServiceNode) -> Result<()> {
    let id = &node.node_id;
    match node.status {
        NodeStatus::Pending => Ok(()),
        NodeStatus::Trusted => Err(advised(
            anyhow!("node {id} is trusted already"),
            "nothing is to be done; `coco status` shows how far it is",
        )),
        NodeStatus::Retired => Err(advised(
            anyhow!("node {id} is retired, and a node that has left does not come back"),
            "start a new one, which makes a key and an id of its own",
        )),
    }
}

fn may_be_retired(nodes: &[ServiceNode], node: &ServiceNode) -> Result<()> {
    let id = &node.node_id;
    let is_other =
        |other: &&ServiceNode| other.status == NodeStatus::Trusted && other.node_id != node.node_id;
    match node.status {
        NodeStatus::Retired => Err(advised(
            anyhow!("node {id} is retired already"),
            match node.removable {
                true => "it may be stopped",
                false => "it may be stopped when `coco node list` says so",
            },
        )),
        NodeStatus::Trusted if !nodes.iter().any(|node| is_other(&node)) => Err(advised(
            anyhow!("node {id} is the only one that is trusted: without it there is no service"),
            "let another node join and trust it (`coco node trust`) before this one leaves",
        )),
        NodeStatus::Trusted | NodeStatus::Pending => Ok(()),
    }
}

/// Clients of the trusted nodes that stay.
fn others(
    service: &ServiceArgs,
    nodes: &[ServiceNode],
    leaving: &ServiceNode,
) -> Result<Vec<Client>> {
    let stays =
        |node: &&ServiceNode| node.status == NodeStatus::Trusted && node.node_id != leaving.node_id;
    let addresses = nodes.iter().filter(stays).filter_map(|node| node.address.as_ref());
    let certificate = service.certificate()?;
    addresses
        .map(|address| {
            Client::with_timeout(&format!("https://{address}"), &certificate, ANSWER_LIMIT)
        })
        .collect()
}

/// Until one of the others says so: a node that lags behind, or is down, says nothing against it.
fn wait_until_removable(others: &[Client], node_id: &str, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let mut silent = None;
    loop {
        for client in others {
            match client.removable_nodes() {
                Ok(removable) if removable.contains(node_id) => return Ok(()),
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        if start.elapsed() >= limit {
            let error = match silent {
                Some(error) => error.context("not every node answers"),
                None => anyhow!("its retirement is not committed"),
            };
            return Err(advised(
                error.context(format!("node {node_id} may not be stopped yet, after {limit:?}")),
                "look at `coco status` for nodes that are down, and at `coco member list` for \
                 votes that are missing; `coco node list` says when the node may be stopped",
            ));
        }
        std::thread::sleep(POLL);
    }
}

/// What other members have to do.
pub(super) fn still_open(proposal: &Proposal, signed: &SignedArgs) -> String {
    let Proposal { proposal_id, ballot_count, .. } = proposal;
    let short = proposal_id.get(..8).unwrap_or(proposal_id);
    let service = signed.service.as_options();
    let ballots = counted(*ballot_count, "ballot");
    format!(
        "Proposal {proposal_id} is open, with {ballots}. The other members vote with:\n  \
         coco member vote {short}{service} --cert NAME_cert.pem --key NAME_privk.pem"
    )
}

fn without_nulls(mut arguments: Value) -> Value {
    if let Some(arguments) = arguments.as_object_mut() {
        arguments.retain(|_, value| !value.is_null());
    }
    arguments
}

/// A line for each node, its columns aligned.
fn table(nodes: &[ServiceNode]) -> String {
    let header = ["node", "status", "role", "address", "certificate to", "data"].map(str::to_owned);
    let row = |node: &ServiceNode| {
        let status = match node.removable {
            true => "Retired, may be stopped".to_owned(),
            false => format!("{:?}", node.status),
        };
        let data = match node.node_data.is_null() {
            true => String::new(),
            false => printable(&node.node_data.to_string(), DATA_WIDTH),
        };
        [
            short(&node.node_id).to_owned(),
            status,
            node.role.map_or("-", NodeRole::as_str).to_owned(),
            node.address.as_deref().map_or_else(|| "-".to_owned(), |at| printable(at, DATA_WIDTH)),
            node.certificate_valid_to.as_deref().map_or("-", day).to_owned(),
            data,
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(nodes.iter().map(row)).collect();
    crate::output::columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advice::explain;

    fn node(id: &str, status: NodeStatus, removable: bool) -> ServiceNode {
        ServiceNode {
            node_id: id.repeat(32),
            status,
            role: (status == NodeStatus::Trusted).then_some(NodeRole::Backup),
            address: Some(format!("10.0.0.1:{}", 8000 + id.len())),
            certificate_valid_to: Some("2027-01-31T23:59:59Z".to_owned()),
            node_data: Value::Null,
            removable,
        }
    }

    #[test]
    fn only_a_node_that_waits_is_trusted() {
        assert!(may_be_trusted(&node("ab", NodeStatus::Pending, false)).is_ok());
        let error = |status| explain(&may_be_trusted(&node("ab", status, false)).unwrap_err());
        assert!(error(NodeStatus::Trusted).contains("trusted already"));
        assert!(error(NodeStatus::Retired).contains("start a new one"));
    }

    #[test]
    fn the_last_node_stays() {
        let (one, two) =
            (node("ab", NodeStatus::Trusted, false), node("cd", NodeStatus::Trusted, false));
        let gone = node("ef", NodeStatus::Retired, true);
        assert!(may_be_retired(&[one.clone(), two.clone()], &one).is_ok());
        let error =
            |nodes: &[ServiceNode], node| explain(&may_be_retired(nodes, node).unwrap_err());
        let only = error(&[one.clone(), gone.clone()], &one);
        assert!(only.contains("no service") && only.contains("coco node trust"), "{only}");
        assert!(error(&[one.clone(), gone.clone()], &gone).ends_with("it may be stopped"));
        let waits = node("ab", NodeStatus::Pending, false);
        assert!(may_be_retired(std::slice::from_ref(&waits), &waits).is_ok());
    }

    #[test]
    fn a_table_has_a_line_for_each_node() {
        let mut trusted = node("ab", NodeStatus::Trusted, false);
        trusted.node_data = json!({ "rack": "7".repeat(100) });
        let text = table(&[trusted, node("cd", NodeStatus::Retired, true)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        let column = lines[0].find("role").unwrap();
        assert!(lines[1][column..].starts_with("backup  10.0.0.1:8002  2027-01-31      {\"rack\""));
        assert!(lines[1].ends_with("..."));
        assert!(lines[2][column..].starts_with("-       10.0.0.1:8002"), "{text}");
    }
}
