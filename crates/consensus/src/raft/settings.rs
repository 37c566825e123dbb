//! What can be chosen about a Raft log.

/// Times in ticks of the driver, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Without a sign of the primary for this long, at least, a voter stands for election; without
    /// a quorum's answers for this long, the primary steps down.
    pub election_ticks: usize,
    /// The longest that a voter waits before it stands. Each view draws anew between the two, so
    /// that votes are seldom split.
    pub max_election_ticks: usize,
    /// The primary shows itself this often.
    pub heartbeat_ticks: usize,
    /// A node that was told to install the ledger is told again after this long.
    pub install_retry_ticks: usize,
    /// A message is filled with entries up to this size; one entry is always sent whole.
    pub max_message_bytes: usize,
    /// Messages on their way to a node and not answered, at most.
    pub max_inflight_messages: usize,
    /// Proposals beyond this size are refused until some are committed.
    pub max_uncommitted_bytes: usize,
    /// The log is kept for nodes that lag behind up to this size; then they must install.
    pub max_kept_bytes: usize,
    /// Seeds the election timeouts. Random on a real node, so that nobody can foresee them.
    pub seed: u64,
}

impl Default for Settings {
    /// For ticks of 10 ms: a primary is missed after 100 to 300 ms.
    fn default() -> Self {
        Self {
            election_ticks: 10,
            max_election_ticks: 30,
            heartbeat_ticks: 2,
            install_retry_ticks: 100,
            max_message_bytes: 1 << 20,
            max_inflight_messages: 128,
            max_uncommitted_bytes: 64 << 20,
            max_kept_bytes: 256 << 20,
            seed: 0,
        }
    }
}

impl Settings {
    /// The engine's own form of these settings.
    pub(super) fn engine(&self, id: u64, applied: u64) -> raft::Config {
        // The engine refuses a timeout of no width, and heartbeats as rare as elections.
        let election_tick = self.election_ticks.max(self.heartbeat_ticks + 1).max(2);
        let bytes = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        raft::Config {
            id,
            applied,
            election_tick,
            heartbeat_tick: self.heartbeat_ticks.max(1),
            min_election_tick: election_tick,
            max_election_tick: self.max_election_ticks.max(election_tick + 2),
            max_size_per_msg: bytes(self.max_message_bytes),
            max_inflight_msgs: self.max_inflight_messages.max(1),
            // Asked by ourselves: the engine answers only when a batch is encrypted already.
            max_uncommitted_size: raft::NO_LIMIT,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            // See `Consensus::tell_committed`: a frame to each node for every batch would be a third
            // of all frames.
            skip_bcast_commit: true,
            ..raft::Config::new(id)
        }
    }

    /// How long a voter waits before it stands: a function of who, when and as what, so that it
    /// does not matter how often the engine asks. Above `election_ticks`, so that a voter that may
    /// not stand yet no longer holds on to the primary it had.
    pub(super) fn election_timeout(
        &self,
        id: u64,
        view: u64,
        role: u64,
        engine: &raft::Config,
    ) -> usize {
        let shortest = engine.min_election_tick + 1;
        let width = engine.max_election_tick.saturating_sub(shortest).max(1);
        let drawn =
            [id, view, role].into_iter().fold(mix(self.seed), |hash, part| mix(hash ^ part));
        shortest + usize::try_from(drawn % width as u64).unwrap_or(0)
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input changes every bit
/// of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_spread_over_the_whole_range() {
        let settings = Settings::default();
        let engine = settings.engine(1, 0);
        let drawn: std::collections::BTreeSet<_> =
            (0..1_000).map(|view| settings.election_timeout(7, view, 0, &engine)).collect();
        assert_eq!(drawn, (11..30).collect());
    }

    #[test]
    fn whatever_is_chosen_the_engine_takes_it() {
        let zero = Settings {
            election_ticks: 0,
            max_election_ticks: 0,
            heartbeat_ticks: 0,
            install_retry_ticks: 0,
            max_message_bytes: 0,
            max_inflight_messages: 0,
            max_uncommitted_bytes: 0,
            max_kept_bytes: 0,
            seed: 0,
        };
        for settings in [zero, Settings { heartbeat_ticks: 50, ..Settings::default() }] {
            let engine = settings.engine(1, 0);
            engine.validate().unwrap();
            let timeout = settings.election_timeout(1, 2, 3, &engine);
            assert!(engine.min_election_tick <= timeout && timeout < engine.max_election_tick);
        }
    }
}
