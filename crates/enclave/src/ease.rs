//! How work that can wait leaves cores and disk to others: after each piece it rests for so many
//! times as long as the piece took, which is its *ease*.

use std::time::Duration;

use crate::host::Host;

/// Rests after a piece that was begun at this uptime.
pub(crate) async fn rest_after(host: &dyn Host, begun: Duration, ease: u32) {
    // Even a sleep of no time lasts until the clock's next tick.
    if ease > 0 {
        host.sleep(host.uptime().saturating_sub(begun).saturating_mul(ease)).await;
    }
}

/// The rests of a replay, whose pieces are shorter than a clock's tick: there is one whenever enough
/// is done. All in all only for so long, since a ledger that grows faster is never caught up with.
pub(crate) struct Rests {
    begun: Duration,
    left: Duration,
}

impl Rests {
    const AFTER: Duration = Duration::from_millis(4);
    const EASE: u32 = 2;
    const AT_MOST: Duration = Duration::from_secs(3);

    pub fn new() -> Self {
        Self { begun: Duration::ZERO, left: Self::AT_MOST }
    }

    /// Work begins.
    pub fn begin(&mut self, host: &dyn Host) {
        self.begun = host.uptime();
    }

    /// A part of the work is done.
    pub async fn rest_if_due(&mut self, host: &dyn Host) {
        let worked = host.uptime().saturating_sub(self.begun);
        if worked >= Self::AFTER && !self.left.is_zero() {
            let rest = worked.saturating_mul(Self::EASE).min(self.left);
            self.left -= rest;
            host.sleep(rest).await;
            self.begin(host);
        }
    }
}
