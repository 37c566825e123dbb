//! The JS engine: limits, modules, and the `ccf` global that scripts see.
//!
//! Applications, constitutions and ballots are ES modules that run here, on QuickJS. This crate
//! knows what a script may do and how long; which endpoint runs is `coco-apps`' business, when a
//! constitution runs is governance's.
//!
//! ```text
//!   ScriptEngine ──┬─ idle interpreters ──▶ a realm as good as new for every call
//!                  └─ kept realms, by key ─▶ `interpreter_reuse`
//!   Interpreter = heap + limits + module loader + realm, rewound after the call
//!   realm = language + ccf, console ──▶ natives ──▶ the call's transaction, lent for its length
//! ```
//!
//! Invariants:
//! * Realms share nothing: what one call leaves in its globals no other call sees, except where an
//!   application asked to reuse interpreters.
//! * A script reaches a transaction only while the call that lent it runs, and only the maps that
//!   its [`Context`] allows.
//! * Every call ends: heap, stack and time are limited, and running out of each has its own error.
//! * Threads that run scripts have at least 2 MiB of stack ([`Limits::MAX_STACK_BYTES`]).
//!
//! Governance runs a constitution like this:
//!
//! ```no_run
//! use coco_adapter::Environment;
//! use coco_kv::Tx;
//! use coco_script::{ApplyNatives, Constitution, Limits, ScriptEngine, ScriptError, Vote};
//!
//! fn decide(
//!     engine: &ScriptEngine,
//!     environment: &dyn Environment,
//!     natives: &dyn ApplyNatives,
//!     tx: &mut Tx,
//!     source: &str,
//!     proposal: &str,
//! ) -> Result<String, ScriptError> {
//!     let limits = Limits::default();
//!     let constitution = Constitution { engine, source, environment, limits };
//!     let validity = constitution.validate(tx, proposal)?;
//!     if !validity.valid {
//!         return Ok(validity.description);
//!     }
//!     let ballot = "export function vote(rawProposal, proposerId) { return true; }";
//!     let vote = constitution.vote(tx, ballot, proposal, "alice")?;
//!     let votes = [Vote { member_id: "bob".to_owned(), vote }];
//!     let state = constitution.resolve(tx, proposal, "alice", &votes, "1")?;
//!     if state == "Accepted" {
//!         constitution.apply(tx, natives, proposal, "1")?;
//!     }
//!     Ok(state)
//! }
//! ```

mod access;
mod call;
mod constitution;
mod engine;
mod error;
mod global;
mod handler;
mod interpreter;
mod limits;
mod module;
mod natives;
mod program;
mod timed;

pub use access::Context;
pub use constitution::{Constitution, Validity, Vote, check_ballot, check_constitution};
pub use engine::ScriptEngine;
pub use error::{Position, ScriptError, Thrown};
pub use handler::Handler;
pub use limits::Limits;
pub use module::{ModuleSource, ModuleTable};
pub use natives::{ApplyNatives, NativeError};
pub use program::{Program, check_sources};

/// The version of QuickJS (QuickJS-ng) that runs scripts.
pub const QUICKJS_VERSION: &str = "0.16.2";

#[cfg(test)]
mod tests {
    #[test]
    fn the_engine_is_the_one_we_name() {
        assert_eq!(super::QUICKJS_VERSION, coco_quickjs::version());
    }
}
