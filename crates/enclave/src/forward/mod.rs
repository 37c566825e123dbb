//! What only the primary can do, done there for the clients of other nodes.
//!
//! ```text
//!   a backup:     request ▶ Forwarder ▶ question ┐ channel
//!   the primary:  dispatch ◀ answer::Answering ◀─┘            executes as if it had come there
//! ```
//!
//! A request is forwarded once, to one node, and by nobody who has it from another: it is executed
//! once or not at all. Whoever asks learns the answer, that nothing was executed, or, if the way
//! breaks, that nobody knows.

mod answer;
pub mod message;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_adapter::ForwardError;
use coco_consensus::{NodeId, Role};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::channels::wire::MAX_EXCHANGED_BYTES;
use crate::channels::{AskError, NodeChannels};
use crate::host::Host;
use crate::pipeline::Pipeline;
use crate::session::within;
use message::{Answer, ForwardedRequest, ForwardedResponse, MessageError, Question, Refusal};

pub(crate) use answer::Answering;

/// Questions on their way at a time, and their bytes: less than the primary takes up from a node.
const MAX_QUESTIONS: usize = 1_024;
const MAX_KIB: usize = 64 << 10;
/// How long a question waits for its turn before it is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node's way to whoever is primary.
pub(crate) struct Forwarder {
    host: Arc<dyn Host>,
    channels: Arc<NodeChannels>,
    pipeline: Pipeline,
    places: Semaphore,
    kib: Semaphore,
}

impl Forwarder {
    /// The way that leads through these channels.
    pub fn new(host: Arc<dyn Host>, channels: Arc<NodeChannels>, pipeline: Pipeline) -> Self {
        let (places, kib) = (Semaphore::new(MAX_QUESTIONS), Semaphore::new(MAX_KIB));
        Self { host, channels, pipeline, places, kib }
    }

    /// Lets this answer the questions of others, for as long as it lives.
    pub fn answer_with(&self, answering: &Arc<Answering>) {
        let answers: Arc<dyn crate::channels::Answers> = Arc::<Answering>::clone(answering);
        self.channels.answer_with(&answers);
    }

    /// Has the primary execute a client's request.
    pub async fn request(
        &self,
        request: ForwardedRequest,
        patience: Duration,
    ) -> Result<ForwardedResponse, ForwardError> {
        match self.ask(Question::Request(Box::new(request)), patience).await? {
            Answer::Response(response) => Ok(response),
            Answer::Message(_) | Answer::Refused(_) => Err(ForwardError::Unknown),
        }
    }

    /// Has the primary's protocol of this name answer a message.
    pub async fn message(
        &self,
        protocol: String,
        message: Bytes,
        patience: Duration,
    ) -> Result<Bytes, ForwardError> {
        match self.ask(Question::Message { protocol, message }, patience).await? {
            Answer::Message(answer) => Ok(answer),
            Answer::Response(_) | Answer::Refused(_) => Err(ForwardError::Unknown),
        }
    }

    /// The primary's answer, unless it refuses. An answer to something else leaves open what was
    /// executed.
    async fn ask(&self, question: Question, patience: Duration) -> Result<Answer, ForwardError> {
        let refused = |error: MessageError| ForwardError::Refused(error.to_string());
        let encoded = question.encode().map_err(refused)?;
        drop(question);
        let bytes = encoded.len();
        if bytes > MAX_EXCHANGED_BYTES {
            return Err(ForwardError::TooLarge { bytes, limit: MAX_EXCHANGED_BYTES });
        }
        let turn = self.turn(bytes);
        let turn = within(&*self.host, PATIENCE.min(patience), turn).await;
        let _turn = turn.flatten().ok_or(ForwardError::TooMany)?;
        let primary = self.primary().ok_or(ForwardError::NoPrimary)?;
        let answered = within(&*self.host, patience, self.channels.question(primary, encoded));
        let answer = match answered.await {
            Some(Ok(answer)) => answer,
            Some(Err(AskError::Unreachable)) => return Err(ForwardError::NoPrimary),
            Some(Err(AskError::Busy)) => return Err(ForwardError::TooMany),
            Some(Err(AskError::Lost)) | None => return Err(ForwardError::Unknown),
        };
        match Answer::decode(answer) {
            Ok(Answer::Refused(Refusal::NotPrimary)) => Err(ForwardError::NoPrimary),
            Ok(Answer::Refused(Refusal::NotServed(why) | Refusal::ByProtocol(why))) => {
                Err(ForwardError::Refused(why))
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                tracing::error!(%error, node = %primary, "an answer cannot be read");
                Err(ForwardError::Unknown)
            }
        }
    }

    /// Resolves when there is room for another question of this size.
    async fn turn(&self, bytes: usize) -> Option<[SemaphorePermit<'_>; 2]> {
        let kib = u32::try_from(bytes.div_ceil(1_024)).ok()?;
        let place = self.places.acquire().await.ok()?;
        Some([place, self.kib.acquire_many(kib).await.ok()?])
    }

    /// The other node that is primary, as far as this one knows.
    fn primary(&self) -> Option<NodeId> {
        match self.pipeline.role() {
            Role::Backup { primary, .. } => primary,
            Role::Primary(_) => None,
        }
    }
}
