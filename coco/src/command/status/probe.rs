//! What one node says of itself.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use coco_kv::TxId;
use serde::{Deserialize, Serialize};

use super::latency::Histogram;
use crate::client::Client;
use crate::nodes::NodeRole;

/// The answers of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// Where it is in its life, in CCF's words.
    pub(super) state: String,
    pub(super) role: NodeRole,
    pub(super) view: u64,
    /// Its last committed transaction, as `view.seqno`.
    #[serde(serialize_with = "as_text")]
    pub(super) committed: TxId,
    /// How long it took to answer the first question, with the handshake.
    pub(super) answer_ms: u64,
    /// What others have on their disks, as the primary knows: node id -> seqno.
    #[serde(skip)]
    pub(super) persisted: BTreeMap<String, u64>,
    #[serde(skip)]
    pub(super) commits: Option<Histogram>,
}

fn as_text<S: serde::Serializer>(committed: &TxId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(committed)
}

/// `/node/consensus`
#[derive(Deserialize)]
struct Consensus {
    details: Details,
}

#[derive(Deserialize)]
struct Details {
    leadership_state: String,
    current_view: u64,
    #[serde(default)]
    acks: BTreeMap<String, Acknowledged>,
}

#[derive(Deserialize)]
struct Acknowledged {
    seqno: u64,
}

/// `/node/state`
#[derive(Deserialize)]
struct State {
    state: String,
}

/// `/node/commit`
#[derive(Deserialize)]
struct Commit {
    transaction_id: String,
}

/// Asks the node that the client talks to.
pub(super) fn ask(client: &Client) -> Result<Answer> {
    let start = Instant::now();
    let Commit { transaction_id } = client.get_json("/node/commit")?;
    let answer_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let State { state } = client.get_json("/node/state")?;
    let Consensus { details } = client.get_json("/node/consensus")?;
    let metrics = client.get("/node/metrics/prometheus")?;
    let metrics = metrics.accepted().ok().and_then(|reply| String::from_utf8(reply.body).ok());
    let committed = transaction_id.parse();
    let persisted = details.acks.into_iter().map(|(node, its)| (node, its.seqno));
    Ok(Answer {
        state,
        role: match &*details.leadership_state {
            "Leader" => NodeRole::Primary,
            _ => NodeRole::Backup,
        },
        view: details.current_view,
        committed: committed.ok().context("the last committed transaction is not one")?,
        answer_ms,
        persisted: persisted.collect(),
        commits: metrics.as_deref().and_then(Histogram::parse),
    })
}
