//! Questions that a node asks another over its channel, and their answers.
//!
//! A question goes out over one line, once, and its answer comes back over the same. If the line
//! ends before, nobody knows whether the question has arrived, and it is not asked again.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use coco_consensus::NodeId;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::wire::Message;
use super::{Line, NodeChannels};
use crate::host::BoxFuture;

/// Questions of one line that are being answered, at most, and their bytes.
const MAX_QUESTIONS: usize = 2_048;
const MAX_QUESTION_BYTES: usize = 128 << 20;

/// What answers the questions of other nodes.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Answers a question of another node, within `wire::MAX_EXCHANGED_BYTES`. The future is dropped
    /// when nobody waits any more.
    fn answer(&self, question: Bytes) -> BoxFuture<'static, Bytes>;
}

/// A question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// It was not sent: there is no line, or no room in it.
    #[error("there is no way to the node")]
    Unreachable,
    /// The other node has too many questions to take it up.
    #[error("the node does not take it up now")]
    Busy,
    /// It was sent, and the line has ended.
    #[error("the channel has ended before an answer")]
    Lost,
}

/// Who waits for the answer to a question, and the line that it went over.
pub(super) struct Asked {
    line: u64,
    answer: oneshot::Sender<Result<Bytes, AskError>>,
}

/// The questions that this node has asked and that have no answer yet.
pub(super) type Open = parking_lot::Mutex<HashMap<u64, Asked>>;

impl NodeChannels {
    /// From now on, and for as long as `answers` lives, it answers other nodes.
    pub fn answer_with(&self, answers: &Arc<dyn Answers>) {
        *self.answers.lock() = Some(Arc::downgrade(answers));
    }

    /// Asks another node. Whoever drops the future tells that node that nobody waits any more.
    pub async fn question(&self, node: NodeId, question: Bytes) -> Result<Bytes, AskError> {
        let line = self.line(node).ok_or(AskError::Unreachable)?;
        let number = self.next_number();
        let (answer, answered) = oneshot::channel();
        self.questions.lock().insert(number, Asked { line: line.number, answer });
        let waiting = Waiting { channels: self, line, number };
        if !waiting.line.exchange(&Message::Question { number, question }) {
            self.questions.lock().remove(&number);
            return Err(AskError::Unreachable);
        }
        answered.await.unwrap_or(Err(AskError::Lost))
    }

    /// An answer has come over a line; what nobody waits for is forgotten.
    pub(super) fn answered(&self, line: &Line, number: u64, answer: Result<Bytes, AskError>) {
        let mut questions = self.questions.lock();
        if questions.get(&number).is_some_and(|asked| asked.line == line.number)
            && let Some(asked) = questions.remove(&number)
        {
            // Whoever has asked may have given up just now.
            let _ = asked.answer.send(answer);
        }
    }

    /// What was asked over a line that has ended has no answer.
    pub(super) fn lose_answers(&self, line: u64) {
        self.questions.lock().retain(|_, asked| asked.line != line);
    }
}

/// A question that somebody waits for.
struct Waiting<'a> {
    channels: &'a NodeChannels,
    line: Line,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let number = self.number;
        if self.channels.questions.lock().remove(&number).is_some() {
            self.line.exchange(&Message::Cancel { number });
        }
    }
}

/// The questions of one line that are being answered. They end with it.
#[derive(Default)]
pub(super) struct TakenUp {
    tasks: JoinSet<()>,
    by_number: HashMap<u64, AbortHandle>,
    by_task: HashMap<Id, (u64, usize)>,
    bytes: usize,
}

impl TakenUp {
    /// Takes a question up, if there is room for it.
    pub fn add(
        &mut self,
        answers: Option<Weak<dyn Answers>>,
        line: &Line,
        number: u64,
        question: Bytes,
    ) -> io::Result<()> {
        self.forget_done();
        if self.by_number.contains_key(&number) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a question is asked twice"));
        }
        let length = question.len();
        let has_room =
            self.tasks.len() < MAX_QUESTIONS && self.bytes + length <= MAX_QUESTION_BYTES;
        let answers = answers.and_then(|answers| answers.upgrade()).filter(|_| has_room);
        let Some(answers) = answers else {
            line.exchange(&Message::Busy { number });
            return Ok(());
        };
        let line = line.clone();
        let task = self.tasks.spawn(async move {
            let answer = answers.answer(question);
            // It may wait for long; whoever stops the node does not wait for it.
            drop(answers);
            let answer = answer.await;
            line.answer(&Message::Answer { number, answer }).await;
        });
        self.bytes += length;
        self.by_task.insert(task.id(), (number, length));
        self.by_number.insert(number, task);
        Ok(())
    }

    /// Nobody waits for the answer any more.
    pub fn cancel(&mut self, number: u64) {
        if let Some(task) = self.by_number.get(&number) {
            task.abort();
        }
    }

    fn forget_done(&mut self) {
        while let Some(done) = self.tasks.try_join_next_with_id() {
            let id = match done {
                Ok((id, ())) => id,
                Err(error) => {
                    if error.is_panic() {
                        tracing::error!(%error, "a question of another node has no answer");
                    }
                    error.id()
                }
            };
            if let Some((number, length)) = self.by_task.remove(&id) {
                self.by_number.remove(&number);
                self.bytes -= length;
            }
        }
    }
}
