//! The service as its nodes describe it, at one moment.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use coco_crypto::{Certificate, sha256};
use coco_governance::tables::{NodeStatus, ServiceStatus};
use serde::{Deserialize, Serialize};

use super::latency::{Histogram, Latency};
use super::probe::{self, Answer};
use crate::client::{Client, governance};
use crate::moment::rfc3339;
use crate::nodes::{NodeRole, ServiceNode};

/// Nodes that are asked at the same time.
const MAX_ASKED_AT_ONCE: usize = 32;

/// All that is shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) service: ServiceReport,
    pub(super) nodes: Vec<NodeReport>,
}

/// The service, as the node says that was asked first.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServiceReport {
    /// That node.
    pub(super) url: String,
    pub(super) status: ServiceStatus,
    /// SHA-256 of the certificate that is trusted.
    pub(super) certificate_fingerprint: String,
    /// Its last second, as RFC 3339 has it.
    pub(super) certificate_valid_to: String,
    /// SHA-256 of the constitution in force.
    pub(super) constitution_digest: String,
    pub(super) recovery_count: u64,
    pub(super) view: u64,
    pub(super) primary_id: Option<String>,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NodeReport {
    #[serde(flatten)]
    pub(super) node: ServiceNode,
    /// Absent if it was not asked: it takes no part.
    pub(super) reachable: Option<bool>,
    /// Why it was not reached.
    pub(super) error: Option<String>,
    pub(super) answer: Option<Answer>,
    /// Positions that it is behind the primary's last committed one.
    pub(super) lag: Option<u64>,
    /// Of the batches that it has made; absent if there were none.
    pub(super) commit_latency: Option<Latency>,
}

/// `/node/network`
#[derive(Deserialize)]
struct Network {
    service_status: ServiceStatus,
    current_view: u64,
    primary_id: Option<String>,
    recovery_count: u64,
}

/// Who looks, perhaps again and again.
pub(super) struct Observer {
    /// Nodes to ask first, as `https://host:port`.
    urls: Vec<String>,
    /// Others that were there the last time.
    learnt: Vec<String>,
    /// The service's certificate, PEM.
    certificate: String,
    timeout: Duration,
    /// What each node had counted the last time.
    counted: BTreeMap<String, Histogram>,
}

impl Observer {
    pub(super) fn new(urls: Vec<String>, certificate: String, timeout: Duration) -> Self {
        Self { urls, learnt: Vec::new(), certificate, timeout, counted: BTreeMap::new() }
    }

    /// Asks one node about the service, then all about themselves.
    pub(super) fn look(&mut self) -> Result<Report> {
        let certificate = Certificate::from_pem(&self.certificate)
            .context("the service certificate is not a certificate in PEM")?;
        let (mut service, nodes) = self.first_answer(&certificate)?;
        let asked = nodes.iter().filter(|node| node.status == NodeStatus::Trusted);
        let urls = asked.filter_map(|node| Some((node.node_id.clone(), url(node)?)));
        let urls: BTreeMap<String, String> = urls.collect();
        self.learnt = urls.values().cloned().collect();
        let mut answers = self.ask_all(&urls);
        let nodes = nodes.into_iter().map(|node| {
            let answer = answers.remove(&node.node_id);
            NodeReport::new(node, answer)
        });
        let mut nodes: Vec<NodeReport> = nodes.collect();
        self.compare(&mut nodes);
        // The node that was asked may have left; the others know.
        service.primary_id = service.primary_id.or_else(|| primary(&nodes));
        Ok(Report { service, nodes })
    }

    /// The first node that knows a primary, or else the first that answers; the error of the first
    /// that does not, if none does.
    fn first_answer(&self, certificate: &Certificate) -> Result<(ServiceReport, Vec<ServiceNode>)> {
        let (mut first_answer, mut first_error) = (None, None);
        for url in self.urls.iter().chain(&self.learnt) {
            let answer = self
                .client(url)
                .and_then(|client| Ok((service(&client, certificate)?, client.nodes()?)));
            match answer {
                Ok(answer) if answer.0.primary_id.is_some() => return Ok(answer),
                Ok(answer) => first_answer = first_answer.or(Some(answer)),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        if let Some(answer) = first_answer {
            return Ok(answer);
        }
        Err(first_error.unwrap_or_else(|| anyhow!("there is no node to ask")))
    }

    fn client(&self, url: &str) -> Result<Client> {
        Client::with_timeout(url, &self.certificate, self.timeout)
    }

    fn ask_all(&self, urls: &BTreeMap<String, String>) -> BTreeMap<String, Result<Answer>> {
        let urls: Vec<(&String, &String)> = urls.iter().collect();
        let mut answers = BTreeMap::new();
        for some in urls.chunks(MAX_ASKED_AT_ONCE) {
            thread::scope(|scope| {
                let ask = |url: &str| self.client(url).and_then(|client| probe::ask(&client));
                let asked: Vec<_> =
                    some.iter().map(|(id, url)| (*id, scope.spawn(move || ask(url)))).collect();
                for (id, thread) in asked {
                    let answer = thread.join().unwrap_or_else(|_| Err(anyhow!("asking failed")));
                    answers.insert(id.clone(), answer);
                }
            });
        }
        answers
    }

    /// How far each is behind the primary, and how fast it has committed since the last look.
    fn compare(&mut self, nodes: &mut [NodeReport]) {
        let primary = latest_primary(nodes).and_then(|node| node.answer.clone());
        for node in nodes {
            let id = &node.node.node_id;
            if let Some(primary) = &primary {
                let committed = node.answer.as_ref().map(|answer| answer.committed.seqno.0);
                let reached = committed.or_else(|| primary.persisted.get(id).copied());
                node.lag = reached.map(|reached| primary.committed.seqno.0.saturating_sub(reached));
            }
            let Some(commits) = node.answer.as_ref().and_then(|answer| answer.commits.clone())
            else {
                continue;
            };
            node.commit_latency = commits.since(self.counted.get(id)).latency();
            self.counted.insert(id.clone(), commits);
        }
    }
}

impl NodeReport {
    pub(super) fn new(node: ServiceNode, answer: Option<Result<Answer>>) -> Self {
        let mut report = Self {
            node,
            reachable: answer.as_ref().map(Result::is_ok),
            error: None,
            answer: None,
            lag: None,
            commit_latency: None,
        };
        match answer {
            Some(Ok(answer)) => report.answer = Some(answer),
            Some(Err(error)) => report.error = Some(format!("{error:#}")),
            None => {}
        }
        report
    }
}

/// The id of the node that is the primary, as it says itself, or as the others say.
fn primary(nodes: &[NodeReport]) -> Option<String> {
    let listed = || nodes.iter().find(|node| node.node.role == Some(NodeRole::Primary));
    latest_primary(nodes).or_else(listed).map(|node| node.node.node_id.clone())
}

/// Of those who say that they are the primary, that of the latest view.
fn latest_primary(nodes: &[NodeReport]) -> Option<&NodeReport> {
    let view_led = |node: &NodeReport| {
        let answer = node.answer.as_ref().filter(|answer| answer.role == NodeRole::Primary);
        answer.map(|answer| answer.view)
    };
    nodes.iter().filter(|node| view_led(node).is_some()).max_by_key(|node| view_led(node))
}

fn url(node: &ServiceNode) -> Option<String> {
    Some(format!("https://{}", node.address.as_ref()?))
}

fn service(client: &Client, certificate: &Certificate) -> Result<ServiceReport> {
    let network: Network = client.get_json("/node/network")?;
    let constitution = client.get(&governance("service/constitution"))?.accepted()?;
    Ok(ServiceReport {
        url: client.url(),
        status: network.service_status,
        certificate_fingerprint: certificate.fingerprint().to_string(),
        certificate_valid_to: rfc3339(certificate.validity().not_after_unix_s),
        constitution_digest: sha256(&constitution.body).to_string(),
        recovery_count: network.recovery_count,
        view: network.current_view,
        primary_id: network.primary_id,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use coco_kv::TxId;
    use serde_json::Value;

    use super::*;

    pub(in super::super) fn node(id: &str, status: NodeStatus) -> ServiceNode {
        ServiceNode {
            node_id: id.repeat(64),
            status,
            role: (status == NodeStatus::Trusted).then_some(NodeRole::Backup),
            address: Some("127.0.0.1:8000".to_owned()),
            certificate_valid_to: Some("2027-01-31T23:59:59Z".to_owned()),
            node_data: Value::Null,
            removable: false,
        }
    }

    pub(in super::super) fn answer(role: NodeRole, view: u64, seqno: u64) -> Answer {
        Answer {
            state: "PartOfNetwork".to_owned(),
            role,
            view,
            committed: TxId::new(view, seqno),
            answer_ms: 3,
            persisted: BTreeMap::from([("d".repeat(64), 90)]),
            commits: None,
        }
    }

    fn report(id: &str, answer: Result<Answer>) -> NodeReport {
        NodeReport::new(node(id, NodeStatus::Trusted), Some(answer))
    }

    #[test]
    fn lag_is_behind_the_primary_of_the_latest_view() {
        let mut nodes = [
            report("a", Ok(answer(NodeRole::Primary, 2, 500))),
            report("b", Ok(answer(NodeRole::Primary, 3, 100))),
            report("c", Ok(answer(NodeRole::Backup, 3, 95))),
            report("d", Err(anyhow!("refused"))),
            report("e", Err(anyhow!("refused"))),
        ];
        let mut observer = Observer::new(Vec::new(), String::new(), Duration::ZERO);
        observer.compare(&mut nodes);
        let lags: Vec<Option<u64>> = nodes.iter().map(|node| node.lag).collect();
        // The fourth as the primary knows it; of the fifth nothing is known.
        assert_eq!(lags, [Some(0), Some(0), Some(5), Some(10), None]);
        assert_eq!(primary(&nodes), Some("b".repeat(64)));
        assert_eq!(primary(&nodes[2..]), None);
    }

    #[test]
    fn programs_read_one_object_for_each_node() {
        let report = report("a", Ok(answer(NodeRole::Primary, 2, 5)));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["node_id"], "a".repeat(64));
        assert_eq!(
            (&json["reachable"], &json["answer"]["committed"]),
            (&true.into(), &"2.5".into())
        );
        let silent = NodeReport::new(node("b", NodeStatus::Pending), None);
        assert_eq!(serde_json::to_value(&silent).unwrap()["reachable"], Value::Null);
    }

    #[test]
    fn somebody_must_be_there() {
        let certificate = crate::identity::Identity::generate(crate::identity::Wanted {
            name: "service",
            curve: coco_crypto::Curve::P256,
            days: 1,
            encryption_key: false,
        });
        let certificate = certificate.unwrap().certificate.to_pem();
        let nobody = vec!["https://127.0.0.1:1".to_owned()];
        let mut observer = Observer::new(nobody, certificate, Duration::from_secs(5));
        let error = crate::advice::explain(&observer.look().unwrap_err());
        assert!(error.contains("no answer from https://127.0.0.1:1"), "{error}");
    }
}
