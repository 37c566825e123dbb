//! Whole networks on one thread under a seed, and what must hold in them.
//!
//! A run is a service of a few nodes with real consensus, ledger and store, a network, disks and
//! clocks that misbehave, clients that write and read, and an operator who replaces nodes. All that
//! happens is drawn from one seed, so a run that fails is played again with `coco-sim --seed N`.
//!
//! ```text
//!             Plan (from the seed: sizes, speeds, kinds of faults)
//!               │
//!   clients ─▶ World ──────── one event after the other, in virtual time ────────┐
//!   operator    │                                                                │
//!   faults      ├─▶ Node: Raft │ Replica (ledger, tree, store) │ Disk            │
//!               ├─▶ Network: cut, lost, late, doubled, tampered with             ▼
//!               └─▶ Checker ◀── commits, roles, encryptions, answers         Report
//! ```
//!
//! What is checked, while the run goes on and at its end:
//! * one history: whatever two nodes have committed has the same Merkle root; nothing committed is
//!   taken back, and a node's committed position never goes back;
//! * what is committed is, at that moment, on the synced disks of a quorum, dead nodes included;
//! * nothing is encrypted twice at one `view.seqno`, and each view has one primary;
//! * a backup accepts every batch that a primary made, after verifying root and signature;
//! * wrong ledgers and frames are refused, and whatever a host has done to a disk, what verifies of
//!   it is the one history; receipts verify;
//! * clients: answered writes are committed, void ones never are; a later operation sees what an
//!   earlier answer told; and a search that ignores positions finds a linearization for each key;
//! * after the last fault the service works again within bounded time, has as many voters as it
//!   should, its governed list of nodes is the quorum's, and every disk reads as the one history.
//!
//! The [`Mutant`]s are nodes with one mistake; each must be caught.
//!
//! The crate is on the host's side of the boundary, but has no clock, no global randomness and no
//! map without order.
//!
//! ```
//! let report = coco_sim::play(7, None);
//! assert_eq!(report.violation, None);
//! assert_eq!(report.trace, coco_sim::play(7, None).trace);
//! ```

mod channel;
mod check;
mod disk;
mod history;
mod keys;
mod mutant;
mod network;
mod node;
mod plan;
mod random;
mod receipts;
mod replica;
mod report;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use mutant::Mutant;
pub use report::Report;

/// Plays the run of a seed, with sound nodes or mutants. A node that panics is a violation too.
pub fn play(seed: u64, mutant: Option<Mutant>) -> Report {
    let played = catch_unwind(AssertUnwindSafe(|| world::World::new(seed, mutant).play()));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Some(format!("panic: {}", text.unwrap_or_default()));
        Report { violation, ..Report::of(seed) }
    })
}
