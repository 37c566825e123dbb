//! How work that can wait leaves cores and disk to others: after each piece it rests for so many
//! times as long as the piece took, which is its *ease*.

use std::time::Duration;

use crate::host::Host;

/// The rests of some work.
pub(crate) struct Rests {
    ease: u32,
    left: Duration,
}

impl Rests {
    /// Of work that everybody waits for.
    pub fn none() -> Self {
        Self::new(0)
    }

    /// As long as the work takes.
    pub fn new(ease: u32) -> Self {
        Self::at_most(Duration::MAX, ease)
    }

    /// For so long in all: somebody waits for the work to be done.
    pub fn at_most(left: Duration, ease: u32) -> Self {
        Self { ease, left }
    }

    /// Rests after a piece that was begun at this uptime.
    pub async fn after(&mut self, host: &dyn Host, begun: Duration) {
        let worked = host.uptime().saturating_sub(begun);
        let rest = worked.saturating_mul(self.ease).min(self.left);
        // Even a sleep of no time lasts until the clock's next tick.
        if !rest.is_zero() {
            self.left = self.left.saturating_sub(rest);
            host.sleep(rest).await;
        }
    }
}
