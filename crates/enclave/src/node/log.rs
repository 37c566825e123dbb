//! The log that a node's configuration asks for.

use std::time::Duration;

use coco_consensus::Settings;
use coco_crypto::Entropy;

use crate::config::Config;

/// One tick of the log's clock.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// CCF's timeouts in ticks. A voter waits between half of the election timeout and all of it, as in
/// CCF.
pub(super) fn settings(config: &Config, entropy: &dyn Entropy) -> Settings {
    let ticks = |time: Duration| {
        usize::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX / 2)
    };
    let election_ticks = ticks(config.consensus.election_timeout.0).max(4);
    let heartbeat_ticks = ticks(config.consensus.message_timeout.0).max(1);
    let mut seed = [0; 8];
    entropy.fill(&mut seed);
    Settings {
        election_ticks: election_ticks / 2,
        max_election_ticks: election_ticks,
        heartbeat_ticks: heartbeat_ticks.min(election_ticks / 4),
        seed: u64::from_le_bytes(seed),
        ..Settings::default()
    }
}
