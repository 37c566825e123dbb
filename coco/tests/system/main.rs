//! The `coco` program as a process: development services, nodes, governance, audit.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at the first surprise"
)]

mod dev;
mod ethereum;
mod node;
mod support;
