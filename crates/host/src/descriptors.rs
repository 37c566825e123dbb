//! Files and streams that the process may have open.
//!
//! Whoever connects takes a descriptor, and need not say a word for it. The node's own files come
//! first: a ledger whose next file cannot be opened is not written any more. The system gives out the
//! lowest descriptor that is free, so that a stream's own number says how much is taken.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use coco_enclave::channels::NODE_TO_NODE_INTERFACE;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What clients leave to files and to other nodes, and what those leave to files.
const FOR_FILES_AND_NODES: u64 = 256;
const FOR_FILES: u64 = 128;
/// Refusals are logged no more often than this.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How many there are, and who may have one.
pub(crate) struct Descriptors {
    limit: u64,
    refusal_logged: Mutex<Option<Instant>>,
}

impl Descriptors {
    /// As many as the system lets the process have.
    pub(crate) fn raised() -> Self {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // Where that is refused, fewer have to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    pub(crate) fn of(limit: u64) -> Self {
        Self { limit, refusal_logged: Mutex::default() }
    }

    /// Whether a stream that was accepted leaves enough to what is more important.
    pub(crate) fn suffice_for(&self, interface: &str, stream: &impl AsRawFd) -> bool {
        let taken = u64::try_from(stream.as_raw_fd()).unwrap_or(u64::MAX);
        let suffice = taken < self.end_for(interface);
        if !suffice {
            self.log_refusal(interface);
        }
        suffice
    }

    /// The first descriptor that such a stream may not have.
    fn end_for(&self, interface: &str) -> u64 {
        let reserved = match interface {
            NODE_TO_NODE_INTERFACE => FOR_FILES,
            _ => FOR_FILES_AND_NODES,
        };
        // Of few it is the half.
        self.limit - reserved.min(self.limit / 2)
    }

    fn log_refusal(&self, interface: &str) {
        let mut logged = self.refusal_logged.lock();
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            let limit = self.limit;
            tracing::warn!(
                interface,
                limit,
                "Connections are refused: the process may not open more files (ulimit -n)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_room_to_nodes_and_both_to_files() {
        let ends = |limit| {
            let descriptors = Descriptors::of(limit);
            let clients = descriptors.end_for("primary_rpc_interface");
            (clients, descriptors.end_for(NODE_TO_NODE_INTERFACE))
        };
        assert_eq!(ends(1_024), (768, 896));
        assert_eq!(ends(300), (150, 172));
        assert_eq!(ends(20), (10, 10));
        assert_eq!(ends(0), (0, 0));
    }

    #[test]
    fn the_limit_is_what_the_system_allows() {
        let raised = Descriptors::raised();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised.limit, limit.current.unwrap_or(u64::MAX));
    }
}
