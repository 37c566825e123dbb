//! Governance of a whole service in one process: a store, the `/gov` frontend, members who sign
//! with real keys, and nothing else.

mod actions;
mod harness;
mod life;
mod reads;
mod refusals;
