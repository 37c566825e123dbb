//! One chain: its rules, and what a node keeps of it besides the store.

use crate::{ChainRules, Codes, RecentTries};

/// A chain as a node runs it. All that decides is in the store; code and tries are caches.
#[derive(Debug)]
pub struct Chain {
    rules: ChainRules,
    codes: Codes,
    tries: RecentTries,
}

impl Chain {
    pub(crate) fn with_rules(rules: ChainRules) -> Self {
        Self { rules, codes: Codes::default(), tries: RecentTries::default() }
    }

    /// The rules.
    pub fn rules(&self) -> &ChainRules {
        &self.rules
    }

    /// The code that was used lately.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// The tries of the last blocks.
    pub fn tries(&self) -> &RecentTries {
        &self.tries
    }
}
