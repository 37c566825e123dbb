//! How a proposal is decided: ballots are run, the constitution resolves, and applies what passed.

use std::collections::BTreeMap;

use coco_adapter::{Environment, Outcome};
use coco_crypto::Digest;
use coco_kv::Tx;
use coco_script::{Constitution, Limits, ScriptEngine, ScriptError, Vote};

use crate::ServiceControl;
use crate::natives::Natives;
use crate::tables::{
    CONSTITUTION, Failure, JS_RUNTIME_OPTIONS, PROPOSALS, PROPOSALS_INFO, ProposalInfo,
    ProposalState, TableError,
};

/// Why nothing was decided. The transaction must not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    /// The service has no constitution.
    #[error("No constitution is set - proposals cannot be evaluated")]
    NoConstitution,
    /// The constitution could not say whether the proposal is well formed.
    #[error("Failed to execute validation: {0}")]
    Validate(ScriptError),
    /// The constitution could not say whether the proposal passes.
    #[error("Failed to resolve(): {0}")]
    Resolve(ScriptError),
    /// The constitution returned something else than a state.
    #[error("Failed to resolve(): {0:?} is not a state that a proposal can have")]
    State(String),
    /// The proposal passed but cannot be carried out.
    #[error("Failed to apply(): {0}")]
    Apply(ScriptError),
    /// A governed table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The constitution in force, with what it runs in.
pub(crate) struct Court<'a> {
    source: String,
    limits: Limits,
    engine: &'a ScriptEngine,
    control: &'a dyn ServiceControl,
    environment: &'a dyn Environment,
}

impl<'a> Court<'a> {
    /// The constitution that the transaction reads.
    pub(crate) fn sitting(
        tx: &mut Tx,
        engine: &'a ScriptEngine,
        control: &'a dyn ServiceControl,
        environment: &'a dyn Environment,
    ) -> Result<Self, Undecided> {
        let source = CONSTITUTION.get(tx)?.ok_or(Undecided::NoConstitution)?;
        let options = JS_RUNTIME_OPTIONS.get(tx)?.unwrap_or_default();
        let limits = Limits {
            heap_bytes: options.max_heap_bytes,
            stack_bytes: options.max_stack_bytes,
            execution_ms: options.max_execution_time_ms,
        };
        Ok(Self { source, limits, engine, control, environment })
    }

    /// Whether a proposal is well formed; otherwise why not.
    pub(crate) fn validate(
        &self,
        tx: &mut Tx,
        proposal: &str,
    ) -> Result<Result<(), String>, Undecided> {
        let validity = self.constitution().validate(tx, proposal).map_err(Undecided::Validate)?;
        Ok(if validity.valid { Ok(()) } else { Err(validity.description) })
    }

    /// Brings an open proposal as far as its ballots carry it, and writes its new state. What the
    /// node must do when it is applied goes into `outcome`.
    pub(crate) fn decide(
        &self,
        tx: &mut Tx,
        id: &Digest,
        proposal: &str,
        info: &mut ProposalInfo,
        outcome: &mut Outcome,
    ) -> Result<(), Undecided> {
        let constitution = self.constitution();
        let (votes, failures) = self.count(tx, proposal, info);
        let state = constitution
            .resolve(tx, proposal, &info.proposer_id, &votes, &id.to_string())
            .map_err(Undecided::Resolve)?;
        info.state = match ProposalState::from_name(&state) {
            Some(ProposalState::Failed) | None => return Err(Undecided::State(state)),
            Some(state) => state,
        };

        if info.state != ProposalState::Open {
            remove_other_closed_proposals(tx, id)?;
            let votes = votes.into_iter().map(|vote| (vote.member_id, vote.vote));
            info.final_votes = Some(votes.collect());
            info.vote_failures = Some(failures);
        }
        if info.state == ProposalState::Accepted {
            let natives = Natives::new(self.control, self.environment, self.engine);
            constitution
                .apply(tx, &natives, proposal, &id.to_string())
                .map_err(Undecided::Apply)?;
            natives.add_to(outcome);
        }
        PROPOSALS_INFO.put(tx, id, info);
        Ok(())
    }

    /// Whether a node takes its seat without a vote; nothing if the constitution does not say.
    pub(crate) fn may_take_seat(
        &self,
        tx: &mut Tx,
        candidate: &str,
    ) -> Result<Option<bool>, ScriptError> {
        self.constitution().may_take_seat(tx, candidate)
    }

    /// Runs every ballot. One that fails is no vote; why is recorded.
    fn count(
        &self,
        tx: &mut Tx,
        proposal: &str,
        info: &ProposalInfo,
    ) -> (Vec<Vote>, BTreeMap<String, Failure>) {
        let (mut votes, mut failures) = (Vec::new(), BTreeMap::new());
        for (member_id, ballot) in &info.ballots {
            let member_id = member_id.clone();
            match self.constitution().vote(tx, ballot, proposal, &info.proposer_id) {
                Ok(vote) => votes.push(Vote { member_id, vote }),
                Err(error) => {
                    let trace = error.trace().map(str::to_owned);
                    failures.insert(member_id, Failure { reason: error.to_string(), trace });
                }
            }
        }
        (votes, failures)
    }

    fn constitution(&self) -> Constitution<'_> {
        Constitution {
            engine: self.engine,
            source: &self.source,
            environment: self.environment,
            limits: self.limits,
        }
    }
}

/// Removes every closed proposal but this one: the store shows the last outcome, the ledger all.
pub(crate) fn remove_other_closed_proposals(tx: &mut Tx, id: &Digest) -> Result<(), TableError> {
    for (other, info) in PROPOSALS_INFO.rows(tx)? {
        if other != *id && info.state != ProposalState::Open {
            PROPOSALS.remove(tx, &other);
            PROPOSALS_INFO.remove(tx, &other);
        }
    }
    Ok(())
}
