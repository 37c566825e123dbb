//! Streams that are in their handshake.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// Handshakes that are under way at a time.
const MAX_HANDSHAKES: usize = 64;

/// The calls of others that are not yet known to come from a node. Of too many the oldest gives way:
/// a node is done soon, so that whoever only takes up room keeps none out.
#[derive(Default)]
pub(super) struct Calls(VecDeque<oneshot::Sender<()>>);

impl Calls {
    /// Takes one up. What is returned resolves when it must give way, and is to be dropped when its
    /// handshake is done.
    pub fn take_up(&mut self) -> oneshot::Receiver<()> {
        self.0.retain(|call| !call.is_closed());
        if self.0.len() >= MAX_HANDSHAKES {
            self.0.pop_front();
        }
        let (call, gives_way) = oneshot::channel();
        self.0.push_back(call);
        gives_way
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_gives_way_unless_it_is_done() {
        let mut calls = Calls::default();
        let done = calls.take_up();
        let mut waiting: Vec<_> = (1..MAX_HANDSHAKES).map(|_| calls.take_up()).collect();
        drop(done);
        waiting.push(calls.take_up());
        assert!(waiting.iter_mut().all(|call| call.now_or_never().is_none()));
        let mut last = calls.take_up();
        assert!(waiting.remove(0).now_or_never().is_some());
        assert!(waiting.iter_mut().all(|call| call.now_or_never().is_none()));
        assert!((&mut last).now_or_never().is_none());
    }
}
