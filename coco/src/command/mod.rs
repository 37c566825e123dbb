//! The commands that talk to a service or look at files.

pub(crate) mod app;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod member;
pub(crate) mod node;
pub(crate) mod receipt;
pub(crate) mod seat;
pub(crate) mod shell;
pub(crate) mod status;
