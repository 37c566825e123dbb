//! The built-in endpoints: CCF's `/node` frontend, and those that every frontend has.

mod common;
mod node;

pub(crate) use common::Common;
pub(crate) use node::{Files, is_closed, location_at};
pub use node::{Sessions, frontend as node_frontend};
