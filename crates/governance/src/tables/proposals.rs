//! Constitution, proposals and what members signed.

use std::collections::BTreeMap;

use coco_crypto::Digest;
use serde::{Deserialize, Serialize};

use super::codec::{from_json, json_values};
use super::{Base64, Cell, Table, TableValue, canonical_json, tables};

tables! {
    /// The constitution's source.
    CONSTITUTION: Cell<String> = "public:ccf.gov.constitution";
    /// Proposal id -> the proposal as submitted.
    PROPOSALS: Table<Digest, Vec<u8>> = "public:ccf.gov.proposals";
    /// Proposal id -> who proposed it and what became of it.
    PROPOSALS_INFO: Table<Digest, ProposalInfo> = "public:ccf.gov.proposals_info";
    /// Member id -> the last governance message the member signed.
    COSE_HISTORY: Table<Digest, Base64> = "public:ccf.gov.cose_history";
    /// `<created_at, 10 digits>:<SHA-256 of the signature>` -> proposal id.
    COSE_RECENT_PROPOSALS: Table<String, Digest> = "public:ccf.gov.cose_recent_proposals";
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposalState {
    /// Ballots are welcome.
    Open,
    /// Passed and applied.
    Accepted,
    /// Taken back by its proposer.
    Withdrawn,
    /// Voted down.
    Rejected,
    /// Passed but could not be applied.
    Failed,
    /// Made void by another proposal.
    Dropped,
}

impl ProposalState {
    /// The state of a name, as a constitution returns it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "Open" => Self::Open,
            "Accepted" => Self::Accepted,
            "Withdrawn" => Self::Withdrawn,
            "Rejected" => Self::Rejected,
            "Failed" => Self::Failed,
            "Dropped" => Self::Dropped,
            _ => return None,
        })
    }
}

/// Why a script failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For people.
    pub reason: String,
    /// Stack trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// A proposal's progress. Member ids are hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalInfo {
    /// Who proposed it, hex member id.
    pub proposer_id: String,
    /// What became of it.
    pub state: ProposalState,
    /// Member -> ballot script.
    #[serde(default)]
    pub ballots: BTreeMap<String, String>,
    /// Member -> vote, once it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_votes: Option<BTreeMap<String, bool>>,
    /// Member -> why the ballot failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote_failures: Option<BTreeMap<String, Failure>>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

json_values!(ProposalInfo);

/// As a value, an id is a JSON string.
impl TableValue for Digest {
    fn to_bytes(&self) -> Vec<u8> {
        canonical_json(&self.to_string())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let text: String = from_json(bytes)?;
        text.parse().map_err(|error: coco_crypto::DigestSyntax| error.to_string())
    }
}
