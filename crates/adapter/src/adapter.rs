//! What every adapter is.

use coco_kv::TxId;

/// A protocol plugged into the enclave: [`Endpoints`](crate::Endpoints) of CCF's kind, or a
/// [`Protocol`](crate::Protocol) with an interface and transactions of its own.
pub trait Adapter: Send + Sync + 'static {
    /// A short name, for the configuration, logs and metrics.
    fn name(&self) -> &'static str;

    /// Everything up to `last` is committed. Called on a task of the node, once for one or more
    /// batches; must be short.
    fn committed(&self, _last: TxId) {}
}
