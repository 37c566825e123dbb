//! Requests that may take long, answered where they hold up nobody else.
//!
//! Few threads of the node answer all sessions and write the ledger: a request stays on them only if
//! it takes microseconds. Any other is answered on a thread for such work, of which there are few,
//! too: for each request a place is asked for anew, so that a message with many of them has no
//! advantage over others.

use std::sync::Arc;

use coco_crypto::Digest;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::forward::Call;
use super::{Asked, Asker, Rpc, RpcError, refusal};
use crate::maps::TRANSACTIONS;

/// Methods that take microseconds, or wait for something without working. All others may take long.
const SHORT: [&str; 24] = [
    "eth_sendRawTransaction",
    "eth_sendRawTransactionSync",
    "eth_chainId",
    "eth_blockNumber",
    "eth_getTransactionCount",
    "eth_getBalance",
    "eth_getStorageAt",
    "eth_gasPrice",
    "eth_maxPriorityFeePerGas",
    "eth_baseFee",
    "eth_subscribe",
    "eth_unsubscribe",
    "eth_uninstallFilter",
    "eth_syncing",
    "eth_mining",
    "eth_hashrate",
    "eth_coinbase",
    "eth_protocolVersion",
    "net_version",
    "net_listening",
    "net_peerCount",
    "web3_clientVersion",
    "rpc_modules",
    "coco_getReceipt",
];

/// Methods about one transaction: short, unless its record is large.
const OF_A_TRANSACTION: [&str; 4] = [
    "eth_getTransactionReceipt",
    "eth_getTransactionByHash",
    "eth_getRawTransactionByHash",
    "coco_transactionStatus",
];

impl Rpc {
    /// A transaction with so much data and so many logs takes long to show.
    const LARGE_RECORD_BYTES: usize = 32 * 1024;
    /// How long a message with many requests may keep its thread before others have their turn.
    const TURN_MS: u64 = 5;

    /// Whether a call may take long to answer on this node.
    pub(super) fn is_long(&self, call: &Call, participant: Option<Digest>) -> bool {
        let method = call.method.as_str();
        if SHORT.contains(&method)
            || OF_A_TRANSACTION.contains(&method) && !self.has_large_record(call)
        {
            return false;
        }
        !self.has_to_forward(call, participant)
    }

    fn has_large_record(&self, call: &Call) -> bool {
        let Ok(hash) = call.params.required::<alloy_primitives::B256>(0) else { return false };
        let record = self.node.begin().get(&TRANSACTIONS, hash.as_slice());
        record.is_some_and(|record| record.len() > Self::LARGE_RECORD_BYTES)
    }

    /// The reply to a request that may take long, within the time of its message.
    pub(super) async fn reply_offloaded(
        self: &Arc<Self>,
        asked: Asked,
        asker: Asker<'_>,
    ) -> Option<Vec<u8>> {
        let id = asked.id.clone();
        // Whether it was executed must be known: whoever sends it again would pay twice.
        let sends = asked.call.as_ref().is_ok_and(|call| call.method == "eth_sendTransaction");
        let rpc = Arc::clone(self);
        let Asker { participant, limits, waits, deadline_ms, room, .. } = asker;
        let waits = Arc::clone(waits);
        let reply = self.offloaded(async move {
            let waits = &waits;
            let (session, shared) = (None, None);
            let asker = Asker { session, shared, participant, limits, waits, deadline_ms, room };
            rpc.reply_here(asked, asker, None).await
        });
        let left_ms = deadline_ms.saturating_sub(self.node.now_ms());
        let error = tokio::select! {
            biased;
            reply = reply => match reply {
                Some(reply) => return reply,
                None => RpcError::new(-32603, "internal error"),
            },
            () = self.node.sleep(left_ms), if !sends => timed_out(),
        };
        refusal(id, &error)
    }

    /// Does work where it holds up nobody else; none if it failed. Nothing is done for whoever has
    /// gone before its turn came.
    pub(super) async fn offloaded<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let runtime = Handle::try_current().ok();
        let is_threaded =
            |runtime: &Handle| runtime.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let Some(runtime) = runtime.filter(is_threaded) else { return Some(work.await) };
        let (done, result) = oneshot::channel();
        let work = move || {
            if !done.is_closed() {
                let _ = done.send(runtime.block_on(work));
            }
        };
        self.node.offload(Box::new(work)).await;
        result.await.ok()
    }

    /// Lets others have their turn if this one, which began at `turn_ms`, was long; what time it is.
    pub(super) async fn take_turns(&self, turn_ms: &mut u64) -> u64 {
        let now_ms = self.node.now_ms();
        if now_ms.saturating_sub(*turn_ms) >= Self::TURN_MS {
            *turn_ms = now_ms;
            tokio::task::yield_now().await;
        }
        now_ms
    }
}

/// A message is not answered in time; geth's words.
pub(super) fn timed_out() -> RpcError {
    RpcError::unavailable("request timed out")
}
