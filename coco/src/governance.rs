//! What members do, through a service's `/gov` interface.

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::advice::advised;
use crate::client::{Client, Refused, governance};
use crate::governance_message::{Kind, Signer, now_seconds};

/// A proposal as the service describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Proposal {
    pub(crate) proposal_id: String,
    pub(crate) proposer_id: String,
    pub(crate) proposal_state: String,
    #[serde(default)]
    pub(crate) ballot_count: u64,
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

/// A member as the service describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Member {
    pub(crate) member_id: String,
    pub(crate) status: String,
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

#[derive(Deserialize)]
struct Listed<T> {
    value: Vec<T>,
}

impl Proposal {
    pub(crate) fn is_open(&self) -> bool {
        self.proposal_state == "Open"
    }

    /// Whether it is accepted already; an error if it never will be.
    pub(crate) fn is_accepted(&self) -> Result<bool> {
        match &*self.proposal_state {
            "Accepted" => Ok(true),
            "Open" => Ok(false),
            state => bail!("the proposal is {state}: {}", Value::Object(self.more.clone())),
        }
    }
}

/// A ballot that says yes or no to whatever is proposed.
pub(crate) fn plain_ballot(agree: bool) -> String {
    format!("export function vote(proposal, proposerId) {{ return {agree}; }}")
}

/// `{"actions": [{"name": .., "args": ..}, ..]}`
pub(crate) fn actions(actions: &[(&str, Value)]) -> Value {
    let actions: Vec<Value> =
        actions.iter().map(|(name, args)| json!({ "name": name, "args": args })).collect();
    json!({ "actions": actions })
}

impl Client {
    /// Submits a proposal: an object with `actions`.
    pub(crate) fn propose(&self, signer: &Signer, proposal: &Value) -> Result<Proposal> {
        let payload = serde_json::to_vec(proposal)?;
        let message = signer.sign(Kind::Proposal, now_seconds(), &payload);
        let reply = self.post_cose("members/proposals:create", &message)?;
        reply.accepted().map_err(with_advice).context("the proposal was not taken")?.json()
    }

    /// The first of the members proposes; all vote for it, one after the other, while it is open.
    pub(crate) fn agree(&self, members: &[Signer], proposal: &Value) -> Result<Proposal> {
        let Some(first) = members.first() else { bail!("there is no member to propose") };
        let mut proposal = self.propose(first, proposal)?;
        for member in members {
            if proposal.is_open() {
                proposal = self.vote(member, &proposal.proposal_id, &plain_ballot(true))?;
            }
        }
        Ok(proposal)
    }

    /// Submits a ballot: the source of a module that exports `vote`.
    pub(crate) fn vote(
        &self,
        signer: &Signer,
        proposal_id: &str,
        ballot: &str,
    ) -> Result<Proposal> {
        let payload = serde_json::to_vec(&json!({ "ballot": ballot }))?;
        let message = signer.sign(Kind::Ballot { proposal_id }, now_seconds(), &payload);
        let path = format!("members/proposals/{proposal_id}/ballots/{}:submit", signer.id());
        let reply = self.post_cose(&path, &message)?;
        reply.accepted().map_err(with_advice).context("the ballot was not taken")?.json()
    }

    /// Withdraws a proposal; `None` when the service knows no such proposal.
    pub(crate) fn withdraw(&self, signer: &Signer, proposal_id: &str) -> Result<Option<Proposal>> {
        let message = signer.sign(Kind::Withdrawal { proposal_id }, now_seconds(), &[]);
        let path = format!("members/proposals/{proposal_id}:withdraw");
        let reply = self.post_cose(&path, &message)?.accepted().map_err(with_advice)?;
        if reply.status == 204 { Ok(None) } else { reply.json().map(Some) }
    }

    /// Acknowledges the state of the service: what makes a member active.
    pub(crate) fn acknowledge(&self, signer: &Signer) -> Result<()> {
        let path = format!("members/state-digests/{}", signer.id());
        let message = signer.sign(Kind::StateDigest, now_seconds(), &[]);
        let updated = self.post_cose(&format!("{path}:update"), &message)?;
        let updated = updated.accepted().map_err(with_advice).context("no state digest")?;
        let message = signer.sign(Kind::Ack, now_seconds(), &updated.body);
        let acknowledged = self.post_cose(&format!("{path}:ack"), &message)?;
        acknowledged.accepted().map_err(with_advice).context("the digest was not taken")?;
        Ok(())
    }

    pub(crate) fn proposals(&self) -> Result<Vec<Proposal>> {
        Ok(self.get_json::<Listed<Proposal>>(&governance("members/proposals"))?.value)
    }

    pub(crate) fn members(&self) -> Result<Vec<Member>> {
        Ok(self.get_json::<Listed<Member>>(&governance("service/members"))?.value)
    }

    /// The proposal whose id starts with `prefix`.
    pub(crate) fn find_proposal(&self, prefix: &str) -> Result<Proposal> {
        find_proposal(self.proposals()?, prefix)
    }

    /// What was proposed.
    pub(crate) fn proposed_actions(&self, proposal_id: &str) -> Result<Value> {
        self.get_json(&governance(&format!("members/proposals/{proposal_id}/actions")))
    }
}

fn find_proposal(mut proposals: Vec<Proposal>, prefix: &str) -> Result<Proposal> {
    const NAMES: &str = "`coco member list` names them";
    if prefix.is_empty() {
        return Err(advised(anyhow!("an empty id names no proposal"), NAMES));
    }
    proposals.retain(|proposal| proposal.proposal_id.starts_with(prefix));
    match (proposals.pop(), proposals.is_empty()) {
        (Some(proposal), true) => Ok(proposal),
        (Some(_), false) => bail!("several proposals start with {prefix:?}: give more of the id"),
        (None, _) => Err(advised(anyhow!("no proposal starts with {prefix:?}"), NAMES)),
    }
}

/// The next step for the refusals that members meet most.
fn with_advice(refused: Refused) -> anyhow::Error {
    let advice = match refused.code.as_str() {
        "InvalidAuthenticationInfo" => {
            "check that the key is that of a member, and that the member is active \
             (`coco member list`; `coco member ack` activates)"
        }
        "ProposalReplay" => "this very message was sent before: nothing more is to be done",
        "VoteAlreadyExists" => {
            "a ballot is not taken back: `coco member show` tells how the proposal stands; who has \
             proposed it may withdraw it (`coco member withdraw`) and propose again"
        }
        "ProposalNotOpen" => "the proposal is decided already: `coco member show` tells how",
        "PrimaryNotFound" => {
            "no node is the primary now: an election takes a moment, and needs a majority of the \
             nodes (`coco node list`, `coco status`); or the node that was asked has left the \
             service: name another one with --url"
        }
        "ProposalCreatedTooLongAgo" => "set this machine's clock right and sign again",
        _ => return refused.into(),
    };
    advised(refused, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_keep_what_is_not_named() {
        let text = r#"{"proposalId":"ab","proposerId":"cd","proposalState":"Open","ballotCount":1,"finalVotes":{"x":true}}"#;
        let proposal: Proposal = serde_json::from_str(text).unwrap();
        assert!(proposal.is_open() && !proposal.is_accepted().unwrap());
        let failed = Proposal { proposal_state: "Failed".to_owned(), ..proposal.clone() };
        assert!(failed.is_accepted().unwrap_err().to_string().contains("finalVotes"));
        assert_eq!(proposal.more["finalVotes"]["x"], true);
        assert_eq!(serde_json::to_string(&proposal).unwrap(), text);
    }

    #[test]
    fn a_proposal_is_named_by_the_start_of_its_id() {
        let proposal = |id: &str| Proposal {
            proposal_id: id.to_owned(),
            proposer_id: "ff".to_owned(),
            proposal_state: "Open".to_owned(),
            ballot_count: 0,
            more: Map::new(),
        };
        let proposals = ["ab12", "ab34"].map(proposal).to_vec();
        assert_eq!(find_proposal(proposals.clone(), "ab3").unwrap().proposal_id, "ab34");
        assert!(find_proposal(proposals.clone(), "ab").is_err());
        assert!(find_proposal(proposals.clone(), "cd").is_err());
        let only = find_proposal(proposals[..1].to_vec(), "").unwrap_err();
        assert!(crate::advice::explain(&only).contains("an empty id names no proposal"));
    }

    #[test]
    fn actions_have_the_wire_form() {
        let expected = json!({"actions": [{"name": "remove_user", "args": {"user_id": "x"}}]});
        assert_eq!(actions(&[("remove_user", json!({ "user_id": "x" }))]), expected);
    }
}
