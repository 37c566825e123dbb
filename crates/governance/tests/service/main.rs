//! Governance of a whole service in one process: a store, the `/gov` frontend, members who sign
//! with real keys, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test reads its data from files and fails by panicking"
)]

mod actions;
mod apps;
mod harness;
mod life;
mod nodes;
mod reads;
mod recorded;
mod refusals;
mod seats;
