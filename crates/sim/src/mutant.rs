//! Nodes that are broken on purpose: if the checks do not notice, they are worth nothing.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One mistake that a node makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Reports batches as persisted before they are.
    AckBeforeSync,
    /// Acknowledges its whole log instead of what the append held (CCF #6001).
    AckBeyondAppend,
    /// Says yes to every candidate.
    VoteTwice,
    /// Counts acknowledgements whatever the view of the entry (CCF #3828; Raft paper, 5.4.2).
    CommitOldView,
    /// Holds what earlier views have left committed by the blank entry of its own.
    CommitByBlank,
    /// Counts learners for the quorum.
    LearnerCounts,
    /// Takes appends without looking at what is before them.
    SkipLogMatching,
    /// Leaves on its disk what is void.
    ForgetTruncation,
    /// Leaves in its store what is void.
    ForgetRollback,
    /// Encrypts another transaction at a position that it has used.
    ReuseSeqno,
    /// Comes back after a crash under its old identity.
    OldIdentity,
    /// Answers reads from what it has.
    StaleRead,
    /// Answers writes when they are proposed.
    EarlyReply,
    /// Calls a write void when it is taken back, although a later primary may bring it again.
    HastyInvalid,
    /// Takes frames that its channel would have refused.
    TrustFrames,
    /// Takes a ledger that is brought or left without looking at its signatures.
    TrustLedger,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::AckBeforeSync,
        Self::AckBeyondAppend,
        Self::VoteTwice,
        Self::CommitOldView,
        Self::CommitByBlank,
        Self::LearnerCounts,
        Self::SkipLogMatching,
        Self::ForgetTruncation,
        Self::ForgetRollback,
        Self::ReuseSeqno,
        Self::OldIdentity,
        Self::StaleRead,
        Self::EarlyReply,
        Self::HastyInvalid,
        Self::TrustFrames,
        Self::TrustLedger,
    ];
}

impl Mutant {
    /// Seeds among which one catches the mutant: measured, with room for changes of the plans.
    pub fn caught_within(self) -> Range<u64> {
        match self {
            // The first is 342: a test need not play those before.
            Self::CommitByBlank => 300..600,
            Self::HastyInvalid => 0..500,
            Self::ForgetTruncation => 0..150,
            Self::CommitOldView | Self::ForgetRollback | Self::TrustLedger => 0..100,
            _ => 0..20,
        }
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mutant| mutant.to_string() == name);
        found.ok_or_else(|| format!("no mutant {name}; there are {:?}", Self::ALL))
    }
}
