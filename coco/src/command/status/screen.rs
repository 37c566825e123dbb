//! The report for people.

use coco_governance::tables::NodeStatus;

use super::latency::Latency;
use super::report::{NodeReport, Report, ServiceReport};
use crate::moment::day;
use crate::nodes::{NodeRole, printable, short};
use crate::output::{columns, counted};

/// Longest address or error in a line.
const TEXT_WIDTH: usize = 160;

/// All of it, some 80 characters wide.
pub(super) fn text(report: &Report) -> String {
    let rows: Vec<[String; 9]> =
        std::iter::once(header()).chain(report.nodes.iter().map(row)).collect();
    let mut text = format!("{}\n\n{}", service(&report.service), columns(&rows));
    let notes = notes(&report.nodes);
    if !notes.is_empty() {
        text.push_str("\n\n");
        text.push_str(&notes.join("\n"));
    }
    text
}

/// The same on a terminal, in place of what was there before.
pub(super) fn over_the_last(text: &str) -> String {
    // Home; each line up to its end; everything below.
    format!("\x1b[H{}\x1b[K\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn service(service: &ServiceReport) -> String {
    let ServiceReport { url, status, view, recovery_count, .. } = service;
    let recovered = match recovery_count {
        0 => String::new(),
        count => format!(", recovered {}", counted(*count, "time")),
    };
    let primary = service.primary_id.as_deref().map_or("unknown", short);
    format!(
        "service       {} in view {view}, primary {primary}{recovered}, as {url} says\n\
         identity      sha256 {}, valid to {}\n\
         constitution  sha256 {}",
        status.as_str(),
        service.certificate_fingerprint,
        day(&service.certificate_valid_to),
        service.constitution_digest,
    )
}

fn header() -> [String; 9] {
    ["node", "role", "address", "state", "view", "committed", "lag", "commit", "certificate to"]
        .map(str::to_owned)
}

fn row(report: &NodeReport) -> [String; 9] {
    let NodeReport { node, answer, .. } = report;
    let dash = || "-".to_owned();
    let role = answer.as_ref().map(|answer| answer.role).or(node.role);
    let state = match (answer, report.reachable, node.status) {
        (Some(answer), ..) => printable(&answer.state, TEXT_WIDTH),
        (None, Some(_), _) => "no answer".to_owned(),
        (None, None, NodeStatus::Retired) if node.removable => "may be stopped".to_owned(),
        (None, None, status) => format!("{status:?}"),
    };
    [
        short(&node.node_id).to_owned(),
        role.map_or_else(dash, |role| role.as_str().to_owned()),
        node.address.as_deref().map_or_else(dash, |address| printable(address, TEXT_WIDTH)),
        state,
        answer.as_ref().map_or_else(dash, |answer| answer.view.to_string()),
        answer.as_ref().map_or_else(dash, |answer| answer.committed.to_string()),
        report.lag.map_or_else(dash, |lag| lag.to_string()),
        report.commit_latency.as_ref().map_or_else(dash, latency),
        node.certificate_valid_to.as_deref().map_or("-", day).to_owned(),
    ]
}

fn latency(latency: &Latency) -> String {
    let Latency { mean_ms, p99_at_most_ms, .. } = latency;
    match p99_at_most_ms {
        Some(bound) => format!("{mean_ms:.1} ms, 99% <= {bound} ms"),
        None => format!("{mean_ms:.1} ms"),
    }
}

/// What needs somebody's attention.
fn notes(nodes: &[NodeReport]) -> Vec<String> {
    let mut notes = Vec::new();
    let trusted = nodes.iter().filter(|node| node.node.status == NodeStatus::Trusted).count();
    let answering = nodes.iter().filter(|node| node.answer.is_some()).count();
    if answering * 2 <= trusted {
        notes.push(format!(
            "{answering} of {trusted} trusted nodes answer: without a majority nothing is committed"
        ));
    } else if !nodes.iter().any(is_primary) {
        notes.push("no node is the primary now: an election takes a moment".to_owned());
    }
    for report in nodes {
        let id = short(&report.node.node_id);
        if let Some(error) = &report.error {
            notes.push(format!("{id}: {}", printable(error, TEXT_WIDTH)));
        }
        if report.node.status == NodeStatus::Pending {
            notes.push(format!("{id} waits to be trusted: coco node trust {id}"));
        }
    }
    notes
}

fn is_primary(report: &NodeReport) -> bool {
    report.answer.as_ref().is_some_and(|answer| answer.role == NodeRole::Primary)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use coco_governance::tables::ServiceStatus;

    use super::super::report::tests::{answer, node};
    use super::*;

    fn report(nodes: Vec<NodeReport>) -> Report {
        let service = ServiceReport {
            url: "https://127.0.0.1:8000".to_owned(),
            status: ServiceStatus::Open,
            certificate_fingerprint: "5f".repeat(32),
            certificate_valid_to: "2027-01-31T23:59:59Z".to_owned(),
            constitution_digest: "6a".repeat(32),
            recovery_count: 0,
            view: 2,
            primary_id: Some("a".repeat(64)),
        };
        Report { service, nodes }
    }

    #[test]
    fn a_node_that_is_down_is_shown_as_such() {
        let trusted = |id| node(id, NodeStatus::Trusted);
        let mut primary = answer(NodeRole::Primary, 2, 1234);
        primary.state = "Part\x1b[2JOfNetwork".to_owned();
        let mut first = NodeReport::new(trusted("a"), Some(Ok(primary)));
        first.commit_latency =
            Some(Latency { batches: 7, mean_ms: 1.26, p99_at_most_ms: Some(2.5) });
        let down = NodeReport::new(trusted("b"), Some(Err(anyhow!("connection refused"))));
        let waits = NodeReport::new(node("c", NodeStatus::Pending), None);
        let text = text(&report(vec![first, down, waits]));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("service       Open in view 2, primary aaaaaaaaaaaa, as"));
        assert!(
            lines[5].contains("2.1234") && lines[5].contains("1.3 ms, 99% <= 2.5 ms"),
            "{text}"
        );
        assert!(lines[6].contains("backup") && lines[6].contains("no answer"), "{text}");
        assert!(lines[7].contains("Pending"), "{text}");
        assert!(text.contains("1 of 2 trusted nodes answer"), "{text}");
        assert!(text.contains("bbbbbbbbbbbb: connection refused"));
        assert!(text.ends_with("coco node trust cccccccccccc"));
        assert!(!text.contains('\x1b'), "what a node says moves no cursor");
    }

    #[test]
    fn nothing_is_noted_of_a_network_that_is_well() {
        let role =
            |id, role| NodeReport::new(node(id, NodeStatus::Trusted), Some(Ok(answer(role, 2, 9))));
        let nodes = vec![role("a", NodeRole::Primary), role("b", NodeRole::Backup)];
        assert!(notes(&nodes).is_empty());
        assert_eq!(notes(&nodes[1..]), ["no node is the primary now: an election takes a moment"]);
    }

    #[test]
    fn a_screen_goes_over_the_last_one() {
        assert_eq!(over_the_last("a\nb"), "\x1b[Ha\x1b[K\nb\x1b[K\x1b[J");
    }
}
