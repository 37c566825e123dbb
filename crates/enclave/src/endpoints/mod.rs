//! The built-in endpoints: CCF's `/node` frontend, and those that every frontend has.

mod frontend;
mod node;

pub(crate) use frontend::FrontendEndpoint;
pub(crate) use node::{Files, is_closed, redirect_to};
pub use node::{Sessions, frontend as node_frontend};
