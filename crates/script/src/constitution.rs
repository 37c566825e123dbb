//! What governance runs: the constitution's functions and ballots.
//!
//! Each step gets a new interpreter realm and never less than the default limits.

use coco_adapter::Environment;
use coco_kv::{Tx, Value as Bytes};
use rquickjs::{Array, Function, Object, Value};
use serde::{Deserialize, Serialize};

use crate::access::Context;
use crate::call::{CallState, Lender};
use crate::interpreter::{Fault, Interpreter, Running};
use crate::{ApplyNatives, Limits, ScriptEngine, ScriptError};

/// What `validate` says of a proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// Whether the proposal is well-formed.
    pub valid: bool,
    /// Why not.
    pub description: String,
}

/// One ballot's outcome, as `resolve` sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who voted, hex.
    pub member_id: String,
    /// What.
    pub vote: bool,
}

/// A constitution with what its functions need around them.
///
/// The text is one ES module: the concatenation of the files a service was started with.
#[derive(Clone, Copy)]
pub struct Constitution<'a> {
    /// Runs the scripts.
    pub engine: &'a ScriptEngine,
    /// The whole text.
    pub source: &'a str,
    /// The node.
    pub environment: &'a dyn Environment,
    /// The configured limits; never less than the defaults apply.
    pub limits: Limits,
}

const CONSTITUTION: &str = "/constitution.js";
const BALLOT: &str = "/ballot.js";

impl Constitution<'_> {
    /// `validate(input)`: `proposal` is the proposal's JSON text as submitted.
    pub fn validate(&self, tx: &mut Tx, proposal: &str) -> Result<Validity, ScriptError> {
        self.run(tx, Context::GovernanceReadOnly, None, CONSTITUTION, self.source, |running| {
            let validate = running.exported(CONSTITUTION, "validate")?;
            let reply = running.settle(validate.call((proposal,))?, "validate")?;
            let object = expect_object(reply, "validate")?;
            let valid = object.get::<_, Value<'_>>("valid")?.as_bool();
            let valid = valid.ok_or_else(|| bad_return("validate", VALIDITY))?;
            let description: Value<'_> = object.get("description")?;
            let description = match description.as_string() {
                Some(text) => text.to_string()?,
                None if description.is_undefined() || description.is_null() => String::new(),
                None => return Err(bad_return("validate", VALIDITY)),
            };
            Ok(Validity { valid, description })
        })
    }

    /// `vote(rawProposal, proposerId)` of a ballot, which is an ES module of its own.
    pub fn vote(
        &self,
        tx: &mut Tx,
        ballot: &str,
        proposal: &str,
        proposer_id: &str,
    ) -> Result<bool, ScriptError> {
        self.run(tx, Context::GovernanceReadOnly, None, BALLOT, ballot, |running| {
            let vote = running.exported(BALLOT, "vote")?;
            let reply = running.settle(vote.call((proposal, proposer_id))?, "vote")?;
            reply.as_bool().ok_or_else(|| bad_return("vote", "a boolean"))
        })
    }

    /// `resolve(proposal, proposerId, votes, proposalId)`: the state that the proposal is in now.
    pub fn resolve(
        &self,
        tx: &mut Tx,
        proposal: &str,
        proposer_id: &str,
        votes: &[Vote],
        proposal_id: &str,
    ) -> Result<String, ScriptError> {
        self.run(tx, Context::GovernanceReadOnly, None, CONSTITUTION, self.source, |running| {
            let resolve = running.exported(CONSTITUTION, "resolve")?;
            let array = Array::new(running.ctx.clone())?;
            for (index, vote) in votes.iter().enumerate() {
                let entry = Object::new(running.ctx.clone())?;
                entry.set("member_id", vote.member_id.as_str())?;
                entry.set("vote", vote.vote)?;
                array.set(index, entry)?;
            }
            let reply = resolve.call((proposal, proposer_id, array, proposal_id))?;
            let reply = running.settle(reply, "resolve")?;
            match reply.as_string() {
                Some(state) => Ok(state.to_string()?),
                None => Err(bad_return("resolve", "the name of a proposal state")),
            }
        })
    }

    /// `apply(proposal, proposalId)`, with the natives that only it may use.
    pub fn apply(
        &self,
        tx: &mut Tx,
        natives: &dyn ApplyNatives,
        proposal: &str,
        proposal_id: &str,
    ) -> Result<(), ScriptError> {
        let context = Context::GovernanceReadWrite;
        self.run(tx, context, Some(natives), CONSTITUTION, self.source, |running| {
            let apply = running.exported(CONSTITUTION, "apply")?;
            let reply = apply.call((proposal, proposal_id))?;
            running.settle(reply, "apply").map(drop)
        })
    }

    /// `mayTakeSeat(candidate)`: whether a node takes its seat without a vote. Nothing where the
    /// constitution says nothing about it. `candidate` is JSON text.
    pub fn may_take_seat(&self, tx: &mut Tx, candidate: &str) -> Result<Option<bool>, ScriptError> {
        self.run(tx, Context::GovernanceReadOnly, None, CONSTITUTION, self.source, |running| {
            let may_take_seat = match running.exported(CONSTITUTION, MAY_TAKE_SEAT) {
                Err(Fault::Script(ScriptError::NoSuchFunction { .. })) => return Ok(None),
                exported => exported?,
            };
            let candidate = running.ctx.json_parse(candidate)?;
            let reply = running.settle(may_take_seat.call((candidate,))?, MAY_TAKE_SEAT)?;
            let answer = reply.as_bool().ok_or_else(|| bad_return(MAY_TAKE_SEAT, "a boolean"))?;
            Ok(Some(answer))
        })
    }

    fn run<R>(
        &self,
        tx: &mut Tx,
        context: Context,
        natives: Option<&dyn ApplyNatives>,
        name: &str,
        source: &str,
        body: impl for<'js> FnOnce(&Running<'_, 'js>) -> Result<R, Fault>,
    ) -> Result<R, ScriptError> {
        let mut state = CallState::new(context);
        let lender = Lender { tx, state: &mut state, environment: self.environment, natives };
        let limits = self.limits.at_least(Limits::default());
        let text = Bytes::from(source.as_bytes());
        self.engine.run_source(context, limits, lender, name, text, body)
    }
}

const MAY_TAKE_SEAT: &str = "mayTakeSeat";
const VALIDITY: &str = "an object {valid: boolean, description: string}";

fn expect_object<'js>(value: Value<'js>, function: &str) -> Result<Object<'js>, Fault> {
    value.into_object().ok_or_else(|| bad_return(function, VALIDITY))
}

fn bad_return(function: &str, expected: &'static str) -> Fault {
    Fault::Script(ScriptError::BadReturn { function: function.to_owned(), expected })
}

/// Whether a text is a constitution: an ES module that parses, evaluates and exports the functions
/// `validate`, `resolve` and `apply`, with CCF's numbers of parameters, and `mayTakeSeat`, if at all,
/// with one.
pub fn check_constitution(source: &str) -> Result<(), ScriptError> {
    // Without a call there is no clock: evaluation is short.
    check_within(Limits { execution_ms: 100, ..Limits::default() }, source)
}

/// Whether a text is a ballot: an ES module that parses, evaluates and exports the function `vote`.
pub fn check_ballot(source: &str) -> Result<(), ScriptError> {
    let mut interpreter = Interpreter::new(Context::GovernanceReadOnly)?;
    interpreter.load_text(BALLOT, Bytes::from(source.as_bytes()));
    let limits = Limits { execution_ms: 100, ..Limits::default() };
    interpreter.run_borrowed(limits, |running| running.exported(BALLOT, "vote").map(drop))
}

/// [`check_constitution`] from within a running script.
pub(crate) fn check_nested(source: &str) -> Result<(), ScriptError> {
    check_within(Limits::nested(), source)
}

/// With read-only access to whatever store there is.
fn check_within(limits: Limits, source: &str) -> Result<(), ScriptError> {
    let mut interpreter = Interpreter::new(Context::GovernanceReadOnly)?;
    interpreter.load_text(CONSTITUTION, Bytes::from(source.as_bytes()));
    interpreter.run_borrowed(limits, exports_all)
}

fn exports_all(running: &Running<'_, '_>) -> Result<(), Fault> {
    for (function, expected) in FUNCTIONS {
        has_parameters(running.exported(CONSTITUTION, function)?, function, expected)?;
    }
    match running.exported(CONSTITUTION, MAY_TAKE_SEAT) {
        Err(Fault::Script(ScriptError::NoSuchFunction { .. })) => Ok(()),
        exported => has_parameters(exported?, MAY_TAKE_SEAT, 1),
    }
}

fn has_parameters(exported: Function<'_>, function: &str, expected: i32) -> Result<(), Fault> {
    let found = exported.get::<_, i32>("length")?;
    if found == expected {
        return Ok(());
    }
    Err(ScriptError::BadParameters { function: function.to_owned(), expected, found }.into())
}

/// The functions of a constitution with their numbers of parameters.
const FUNCTIONS: [(&str, i32); 3] = [("validate", 1), ("resolve", 4), ("apply", 2)];
