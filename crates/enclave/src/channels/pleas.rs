//! What other nodes ask for of the ledger and of snapshots.
//!
//! It comes from the disk, which takes its time: neither the log behind a question nor the log before
//! an answer waits for that. Of one line one is answered at a time.

use bytes::Bytes;
use coco_consensus::NodeId;
use tokio::sync::mpsc;

use super::Line;
use super::wire::{Message, SnapshotOffer};
use crate::pipeline::Pipeline;

/// Those of one line that wait; who asks for more gets no answer. A node asks for a few at a time.
const MAX_WAITING: usize = 64;

/// Where a line's questions are put in, and where they are taken out.
pub(super) fn pleas() -> (mpsc::Sender<Message>, mpsc::Receiver<Message>) {
    mpsc::channel(MAX_WAITING)
}

/// Answers a node's questions, in order, until there can be no more.
pub(super) async fn answer_pleas(
    pipeline: &Pipeline,
    node: NodeId,
    line: &Line,
    mut pleas: mpsc::Receiver<Message>,
) {
    while let Some(plea) = pleas.recv().await {
        if let Some(answer) = answer(pipeline, node, plea).await {
            line.answer(&answer).await;
        }
    }
}

async fn answer(pipeline: &Pipeline, node: NodeId, plea: Message) -> Option<Message> {
    match plea {
        Message::LedgerPlease { number, after, to, committed } => {
            let entries = pipeline.ledger(after, to, committed).await;
            let entries = entries.unwrap_or_else(|error| {
                tracing::warn!(%node, %error, "the ledger cannot be given");
                Bytes::new()
            });
            Some(Message::Ledger { number, entries })
        }
        Message::SnapshotPlease { number, to } => {
            let offer = pipeline.snapshot_offer(to).await.unwrap_or_else(|error| {
                tracing::warn!(%node, %error, "the snapshots cannot be listed");
                SnapshotOffer::Nothing
            });
            Some(Message::Snapshot { number, offer })
        }
        Message::PiecePlease { number, name, offset } => {
            let piece = pipeline.snapshot_piece(name, offset).await;
            let bytes = piece.unwrap_or_else(|error| {
                tracing::warn!(%node, %name, %error, "the snapshot cannot be given");
                Bytes::new()
            });
            Some(Message::Piece { number, bytes })
        }
        _ => None,
    }
}
