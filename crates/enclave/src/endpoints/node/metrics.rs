//! What the node counts: as CCF's JSON, and in the text format of Prometheus.

use std::fmt::Write as _;

use bytes::Bytes;
use coco_adapter::{Call, Mode, Response, RouteSyntax};
use coco_consensus::Role;
use http::{HeaderValue, Method, header};
use serde_json::{Value as Json, json};

use super::{Endpoints, Sessions, operation, properties};
use crate::node::Node;
use crate::pipeline::{LATENCY_BOUNDS_US, Latencies, Pipeline};
use crate::session::InterfaceMetrics;

pub(super) fn add(to: &mut Endpoints) -> Result<(), RouteSyntax> {
    let sessions = to.sessions.clone();
    let json = move |call: &mut Call<'_>| call.reply(&session_metrics(&sessions));
    let summary = operation("Sessions of this node's interfaces");
    to.registry.add(Method::GET, "/metrics", properties(Mode::ReadOnly), summary, json)?;

    let (node, sessions) = (to.node.clone(), to.sessions.clone());
    let text = move |_: &mut Call<'_>| Ok(prometheus(&node, &sessions));
    let summary = operation("Metrics in Prometheus's text format");
    to.registry.add(Method::GET, "/metrics/prometheus", properties(Mode::ReadOnly), summary, text)
}

fn session_metrics(sessions: &Sessions) -> Json {
    let (mut active, mut peak) = (0, 0);
    let mut interfaces = serde_json::Map::new();
    for (interface, metrics) in sessions.iter() {
        active += metrics.active();
        peak += metrics.peak();
        let counted = json!({
            "active": metrics.active(),
            "peak": metrics.peak(),
            "soft_cap": interface.limits.max_sessions_soft,
            "hard_cap": interface.limits.max_sessions_hard,
            "errors": metrics.errors,
        });
        interfaces.insert(interface.name.clone(), counted);
    }
    json!({ "sessions": { "active": active, "peak": peak, "interfaces": interfaces } })
}

fn prometheus(node: &Node, sessions: &Sessions) -> Response {
    let mut text = Exposition::default();
    let info = label("node_id", &node.id().to_string());
    text.add("gauge", "info", "This node.", [(info, 1)]);
    ledger(&mut text, node.pipeline());
    consensus(&mut text, node.pipeline());
    served(&mut text, sessions);
    let mut response = Response::new(Bytes::from(text.0));
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn ledger(text: &mut Exposition, pipeline: &Pipeline) {
    let metrics = pipeline.metrics();
    let committed = pipeline.last_committed();
    text.one(
        "counter",
        "transactions_total",
        "Transactions that wrote something.",
        metrics.transactions,
    );
    text.one(
        "counter",
        "conflicts_total",
        "Executions thrown away by conflicts.",
        metrics.conflicts,
    );
    text.one("counter", "batches_total", "Batches signed.", metrics.batches);
    text.one("counter", "ledger_bytes_total", "Bytes of entries.", metrics.ledger_bytes);
    text.one(
        "gauge",
        "uncommitted_transactions",
        "Executed, not yet committed.",
        metrics.uncommitted,
    );
    text.one("gauge", "batches_in_flight", "Proposed here, not yet committed.", metrics.in_flight);
    text.one("gauge", "committed_seqno", "Last committed position.", committed.seqno.0);
    text.one("gauge", "committed_view", "Its view.", committed.view.0);
    text.latencies(
        "commit_seconds",
        "From the proposal of a batch to commitment.",
        &metrics.latencies,
    );
}

/// Replicas are known to the primary only.
fn consensus(text: &mut Exposition, pipeline: &Pipeline) {
    let (leads, view) = match pipeline.role() {
        Role::Primary(view) => (1, view),
        Role::Backup { view, .. } => (0, view),
    };
    text.one("gauge", "primary", "Whether this node is the primary.", leads);
    text.one("gauge", "view", "The view that this node is in.", view.0);
    let membership = pipeline.membership();
    let count = |nodes: usize| u64::try_from(nodes).unwrap_or(u64::MAX);
    let nodes = [("voter", membership.voters.len()), ("learner", membership.learners.len())];
    let nodes = nodes.map(|(kind, nodes)| (label("kind", kind), count(nodes)));
    text.add("gauge", "nodes", "Who takes part, as this node knows.", nodes);
    let replicas = pipeline.replicas().into_iter();
    let replicas = replicas
        .map(|replica| (label("node_id", &replica.node.to_string()), replica.persisted.seqno.0));
    text.add("gauge", "replica_persisted_seqno", "What a node has on its disk.", replicas);
}

fn served(text: &mut Exposition, sessions: &Sessions) {
    let by_interface = |count: fn(&InterfaceMetrics) -> usize| {
        sessions.iter().map(move |(interface, metrics)| {
            let count = u64::try_from(count(metrics)).unwrap_or(u64::MAX);
            (label("interface", &interface.name), count)
        })
    };
    text.add("gauge", "sessions", "Sessions open now.", by_interface(|it| it.active()));
    text.add("gauge", "sessions_peak", "Most sessions open at once.", by_interface(|it| it.peak()));
}

/// `{name="value"}`
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{{name}=\"{value}\"}}")
}

/// The text format, version 0.0.4. Names begin with `coco_`.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, kind: &str, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP coco_{name} {help}\n# TYPE coco_{name} {kind}");
    }

    fn add(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, u64)>,
    ) {
        self.head(kind, name, help);
        for (labels, value) in samples {
            let _ = writeln!(self.0, "coco_{name}{labels} {value}");
        }
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.add(kind, name, help, [(String::new(), value)]);
    }

    /// A histogram, whose buckets include those of smaller bounds.
    fn latencies(&mut self, name: &str, help: &str, latencies: &Latencies) {
        self.head("histogram", name, help);
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| seconds(*us)).chain(["+Inf".to_owned()]);
        let mut count = 0_u64;
        for (bound, batches) in bounds.zip(latencies.buckets) {
            count = count.saturating_add(batches);
            let _ = writeln!(self.0, "coco_{name}_bucket{} {count}", label("le", &bound));
        }
        let sum = seconds(latencies.sum_us);
        let _ = writeln!(self.0, "coco_{name}_sum {sum}\ncoco_{name}_count {count}");
    }
}

/// Exactly, without trailing zeros: `0.0025`.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_exact() {
        for (us, text) in [(0, "0"), (100, "0.0001"), (2_500, "0.0025"), (10_000_000, "10")] {
            assert_eq!(seconds(us), text);
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("a", "b\\c\"d\ne"), "{a=\"b\\\\c\\\"d\\ne\"}");
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut latencies = Latencies { sum_us: 1_500, ..Latencies::default() };
        (latencies.buckets[0], latencies.buckets[14]) = (2, 1);
        let mut text = Exposition::default();
        text.latencies("x", "Help.", &latencies);
        let lines: Vec<&str> = text.0.lines().collect();
        assert_eq!(lines[..2], ["# HELP coco_x Help.", "# TYPE coco_x histogram"]);
        assert_eq!(lines[2], "coco_x_bucket{le=\"0.0001\"} 2");
        let end = ["coco_x_bucket{le=\"5\"} 2", "coco_x_bucket{le=\"+Inf\"} 3"];
        assert_eq!(lines[15..], [&end[..], &["coco_x_sum 0.0015", "coco_x_count 3"]].concat());
    }
}
