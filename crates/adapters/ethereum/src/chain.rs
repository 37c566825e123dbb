//! One chain: its rules, and what a node keeps of it besides the store.

use alloy_primitives::B256;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::block::{ExecutedAt, ExecutedHere};
use crate::{ChainRules, Codes, RecentTries};

/// A chain as a node runs it. All that decides is in the store; the rest are caches.
#[derive(Debug)]
pub struct Chain {
    rules: ChainRules,
    codes: Codes,
    tries: RecentTries,
    executed: Mutex<ExecutedHere>,
    gate: RwLock<()>,
}

/// While it lives, nobody else's transaction passes the commit point.
#[must_use]
pub struct Hold<'a>(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'a, ()>);

/// While it lives, nobody holds the others up.
#[must_use]
pub struct Pass<'a>(#[expect(dead_code, reason = "held")] RwLockReadGuard<'a, ()>);

impl Chain {
    pub(crate) fn with_rules(rules: ChainRules) -> Self {
        let (codes, tries, executed, gate) = Default::default();
        Self { rules, codes, tries, executed, gate }
    }

    /// Lets nobody else pass the commit point, as sealing a block needs it: whatever commits while
    /// the block's roots are computed would belong to it. Waiting for commitment under a hold
    /// never ends.
    pub fn hold(&self) -> Hold<'_> {
        Hold(self.gate.write())
    }

    /// To be taken for passing the commit point, and no longer than that.
    pub fn pass(&self) -> Pass<'_> {
        Pass(self.gate.read())
    }

    /// Remembers a transaction that passed the commit point, until its block is sealed. To be told
    /// under the same [`pass`](Self::pass), so that what was executed again is the last told.
    pub(crate) fn remember_executed(&self, hash: B256, executed: ExecutedAt) {
        self.executed.lock().insert(hash, executed);
    }

    /// What was executed since the last seal.
    pub(crate) fn take_executed(&self) -> ExecutedHere {
        std::mem::take(&mut *self.executed.lock())
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
