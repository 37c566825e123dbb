//! adapters/native
