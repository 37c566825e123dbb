//! adapters/apps
