//! Proposals and ballots.

use std::collections::BTreeMap;

use coco_adapter::{Call, ErrorCode, ErrorResponse, Response};
use coco_crypto::{Digest, sha256, sha256_concat};
use coco_kv::Tx;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::request::{
    ApiVersion, id_param, no_content, root_at_read, signed_by_active, text_response,
};
use super::{Endpoints, Governance};
use crate::decision::{Court, Undecided, remove_other_closed_proposals};
use crate::replay::{self, Submission};
use crate::tables::{
    Base64, COSE_HISTORY, Failure, PROPOSALS, PROPOSALS_INFO, ProposalInfo, ProposalState,
    SERVICE_CONFIG,
};

pub(super) fn add_to(endpoints: &mut Endpoints) {
    let any = ApiVersion::Preview;
    endpoints.post_active("/members/proposals:create", "Submit a proposal", create);
    endpoints.get("/members/proposals", any, "All proposals in the store", list);
    endpoints.get("/members/proposals/{proposalId}", any, "One proposal", read);
    endpoints.get("/members/proposals/{proposalId}/actions", any, "What it proposes", actions);
    endpoints.post_active("/members/proposals/{proposalId}:withdraw", "Take it back", withdraw);
    let ballot = "/members/proposals/{proposalId}/ballots/{memberId}";
    endpoints.post_active(&format!("{ballot}:submit"), "Submit a ballot", submit_ballot);
    endpoints.get(ballot, any, "A member's ballot", read_ballot);
}

fn create(governance: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let signed = signed_by_active(call, "proposal")?;
    if signed.created_at_s > replay::LATEST_CREATED_AT_S {
        let message =
            format!("Header parameter created_at is later than {}.", replay::LATEST_CREATED_AT_S);
        return Err(ErrorResponse::bad_request(ErrorCode::InvalidCreatedAt, message));
    }
    // One proposal from far in the future would make every honest one too old.
    let latest = call.environment.now_ms() / 1_000 + replay::MAX_CLOCK_SKEW_S;
    if signed.created_at_s > latest {
        let message = format!("Header parameter created_at is in the future: later than {latest}.");
        return Err(ErrorResponse::bad_request(ErrorCode::InvalidCreatedAt, message));
    }
    let signature = &signed.envelope.signature;
    let root = root_at_read(call)?;
    let id = sha256_concat(&[root.as_ref(), sha256(signature).as_ref()]);
    // A read dependency: of two submissions at once the second runs again and finds the first.
    if PROPOSALS.has(call.tx, &id) {
        return Err(ErrorResponse::internal("Proposal ID collision."));
    }
    refuse_replay(call.tx, signed.created_at_s, signature, &id)?;

    let content = signed.envelope.content.as_ref();
    let proposal = std::str::from_utf8(content).map_err(|_| invalid_proposal("it is not UTF-8"))?;
    let court = court(governance, call)?;
    court.validate(call.tx, proposal).map_err(undecided)?.map_err(|why| invalid_proposal(&why))?;

    PROPOSALS.put(call.tx, &id, &content.to_vec());
    COSE_HISTORY.put(call.tx, &signed.member, &Base64(signed.envelope.message.to_vec()));
    let mut info = ProposalInfo {
        proposer_id: signed.member.to_string(),
        state: ProposalState::Open,
        ballots: BTreeMap::new(),
        final_votes: None,
        vote_failures: None,
        failure: None,
    };
    // `apply` may look at its own proposal.
    PROPOSALS_INFO.put(call.tx, &id, &info);
    court.decide(call.tx, &id, proposal, &mut info, &mut call.outcome).map_err(undecided)?;
    call.reply(&summary(&id, &info))
}

fn list(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let rows = PROPOSALS_INFO.rows(call.tx)?;
    let value: Vec<_> = rows.iter().map(|(id, info)| summary(id, info)).collect();
    call.reply(&json!({"value": value}))
}

fn read(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "proposalId")?;
    let info = existing(call.tx, &id)?;
    call.reply(&summary(&id, &info))
}

fn actions(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "proposalId")?;
    let proposal = PROPOSALS.get(call.tx, &id)?.ok_or_else(|| no_proposal(&id))?;
    Ok(text_response(proposal, "application/json"))
}

fn withdraw(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let signed = signed_by_active(call, "withdrawal")?;
    let id = id_param(call, "proposalId")?;
    signed.require_proposal(&id)?;
    // Withdrawing what is gone succeeds, so that a retry does.
    let Some(mut info) = PROPOSALS_INFO.get(call.tx, &id)? else { return Ok(no_content()) };
    let (member, proposer) = (signed.member.to_string(), &info.proposer_id);
    if member != *proposer {
        let message = format!(
            "Proposal {id} can only be withdrawn by proposer {proposer}, not caller {member}.",
        );
        return Err(ErrorResponse::forbidden(ErrorCode::AuthorizationFailed, message));
    }
    require_open(&id, &info, "cannot be withdrawn")?;
    info.state = ProposalState::Withdrawn;
    remove_other_closed_proposals(call.tx, &id)?;
    PROPOSALS_INFO.put(call.tx, &id, &info);
    COSE_HISTORY.put(call.tx, &signed.member, &Base64(signed.envelope.message.to_vec()));
    call.reply(&summary(&id, &info))
}

fn submit_ballot(governance: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    #[derive(Deserialize)]
    struct Ballot {
        ballot: String,
    }
    let signed = signed_by_active(call, "ballot")?;
    let id = id_param(call, "proposalId")?;
    signed.require_proposal(&id)?;
    signed.require_member(&id_param(call, "memberId")?)?;

    let mut info = existing(call.tx, &id)?;
    let proposal = PROPOSALS.get(call.tx, &id)?.ok_or_else(|| no_proposal(&id))?;
    require_open(&id, &info, "cannot receive ballots")?;
    let ballot: Ballot = serde_json::from_slice(&signed.envelope.content).map_err(|error| {
        let message = format!(
            "Signed request body is not a JSON object containing required string field \
             \"ballot\": {error}.",
        );
        ErrorResponse::bad_request(ErrorCode::InvalidInput, message)
    })?;
    let member = signed.member.to_string();
    match info.ballots.get(&member) {
        Some(earlier) if *earlier == ballot.ballot => return call.reply(&summary(&id, &info)),
        Some(_) => {
            let message = format!("Different ballot already submitted by {member} for {id}.");
            return Err(ErrorResponse::bad_request(ErrorCode::VoteAlreadyExists, message));
        }
        None => info.ballots.insert(member, ballot.ballot),
    };
    COSE_HISTORY.put(call.tx, &signed.member, &Base64(signed.envelope.message.to_vec()));

    let proposal = String::from_utf8_lossy(&proposal);
    let court = court(governance, call)?;
    court.decide(call.tx, &id, &proposal, &mut info, &mut call.outcome).map_err(undecided)?;
    call.reply(&summary(&id, &info))
}

fn read_ballot(_: &Governance, call: &mut Call<'_>) -> Result<Response, ErrorResponse> {
    let id = id_param(call, "proposalId")?;
    let member = id_param(call, "memberId")?;
    let mut info = existing(call.tx, &id)?;
    let ballot = info.ballots.remove(&member.to_string()).ok_or_else(|| {
        let message = format!("There is no ballot by member {member} in proposal {id}.");
        ErrorResponse::not_found(ErrorCode::VoteNotFound, message)
    })?;
    Ok(text_response(ballot, "text/javascript"))
}

/// A proposal as the API shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    proposal_id: String,
    proposer_id: &'a str,
    proposal_state: ProposalState,
    ballot_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    final_votes: Option<&'a BTreeMap<String, bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vote_failures: Option<&'a BTreeMap<String, Failure>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Failure>,
}

fn summary<'a>(id: &Digest, info: &'a ProposalInfo) -> Summary<'a> {
    Summary {
        proposal_id: id.to_string(),
        proposer_id: &info.proposer_id,
        proposal_state: info.state,
        ballot_count: info.ballots.len(),
        final_votes: info.final_votes.as_ref(),
        vote_failures: info.vote_failures.as_ref(),
        failure: info.failure.as_ref(),
    }
}

fn court<'a, 'call: 'a>(
    governance: &'a Governance,
    call: &mut Call<'call>,
) -> Result<Court<'a>, ErrorResponse> {
    let (engine, control) = (&governance.engine, governance.control.as_ref());
    Court::sitting(call.tx, engine, control, call.environment).map_err(undecided)
}

fn existing(tx: &mut Tx, id: &Digest) -> Result<ProposalInfo, ErrorResponse> {
    PROPOSALS_INFO.get(tx, id)?.ok_or_else(|| no_proposal(id))
}

fn no_proposal(id: &Digest) -> ErrorResponse {
    let message = format!("Could not find proposal {id}.");
    ErrorResponse::not_found(ErrorCode::ProposalNotFound, message)
}

fn require_open(id: &Digest, info: &ProposalInfo, so: &str) -> Result<(), ErrorResponse> {
    if info.state == ProposalState::Open {
        return Ok(());
    }
    let message = format!("Proposal {id} is currently in state {:?} and {so}.", info.state);
    Err(ErrorResponse::bad_request(ErrorCode::ProposalNotOpen, message))
}

fn invalid_proposal(why: &str) -> ErrorResponse {
    let message = format!("Proposal failed to validate: {why}");
    ErrorResponse::bad_request(ErrorCode::ProposalFailedToValidate, message)
}

fn refuse_replay(
    tx: &mut Tx,
    created_at_s: u64,
    signature: &[u8],
    id: &Digest,
) -> Result<(), ErrorResponse> {
    let configured = SERVICE_CONFIG.get(tx)?.and_then(|it| it.recent_cose_proposals_window_size);
    let window = configured.unwrap_or(replay::DEFAULT_WINDOW);
    let (code, message) = match replay::submit(tx, created_at_s, signature, id, window)? {
        Submission::Accepted => return Ok(()),
        Submission::Replay(earlier) => (
            ErrorCode::ProposalReplay,
            format!("Proposal submission replay, already exists as proposal {earlier}."),
        ),
        Submission::TooOld { created_at_least } => (
            ErrorCode::ProposalCreatedTooLongAgo,
            format!(
                "Proposal created too long ago, created_at must be at least {created_at_least}."
            ),
        ),
    };
    Err(ErrorResponse::bad_request(code, message))
}

/// Nothing is written when the constitution fails.
fn undecided(error: Undecided) -> ErrorResponse {
    let trace = match &error {
        Undecided::Validate(error) | Undecided::Resolve(error) | Undecided::Apply(error) => {
            error.trace().filter(|trace| !trace.is_empty())
        }
        _ => None,
    };
    let message = match trace {
        Some(trace) => format!("{error}\n{trace}"),
        None => error.to_string(),
    };
    ErrorResponse::internal(message)
}
