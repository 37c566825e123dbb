//! The primary's side: questions of other nodes, answered.

use std::sync::Arc;

use bytes::Bytes;
use coco_adapter::{ErrorResponse, Protocol};

use super::message::{Answer, ForwardedResponse, MessageError, Question, Refusal};
use crate::channels::Answers;
use crate::channels::wire::MAX_EXCHANGED_BYTES;
use crate::dispatch::Dispatcher;
use crate::host::BoxFuture;
use crate::node::Node;

/// Answers the questions of other nodes.
pub(crate) struct Answering {
    node: Node,
    dispatcher: Arc<Dispatcher>,
}

impl Answering {
    /// Answers for a node that serves requests by this dispatcher.
    pub fn new(node: Node, dispatcher: Arc<Dispatcher>) -> Self {
        Self { node, dispatcher }
    }

    fn take_up(&self, question: Bytes) -> Result<BoxFuture<'static, Answer>, Refusal> {
        let malformed = |error: MessageError| {
            tracing::error!(%error, "a question of another node cannot be read");
            Refusal::NotServed(format!("the question cannot be read: {error}"))
        };
        match Question::decode(question).map_err(malformed)? {
            Question::Request(request) => {
                let response = self.dispatcher.dispatch_forwarded(*request)?;
                Ok(Box::pin(async move { Answer::Response(response.await) }))
            }
            Question::Message { protocol, message } => {
                let protocol = self.protocol(&protocol)?;
                let answer = protocol.answer_forwarded(message);
                Ok(Box::pin(async move {
                    match answer.await {
                        Ok(answer) => Answer::Message(answer),
                        Err(error) => Answer::Refused(Refusal::ByProtocol(error.to_string())),
                    }
                }))
            }
        }
    }

    fn protocol(&self, name: &str) -> Result<&Arc<dyn Protocol>, Refusal> {
        if !self.node.pipeline().leads() {
            return Err(Refusal::NotPrimary);
        }
        if !self.dispatcher.is_app_open() {
            return Err(Refusal::NotServed("the service is not open".to_owned()));
        }
        let protocol = self.node.protocol(name);
        protocol.ok_or_else(|| Refusal::NotServed(format!("there is no protocol {name}")))
    }
}

impl Answers for Answering {
    fn answer(&self, question: Bytes) -> BoxFuture<'static, Bytes> {
        let answer = self.take_up(question);
        Box::pin(async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(refusal) => Answer::Refused(refusal),
            };
            encoded(answer)
        })
    }
}

/// The bytes of an answer. One that is too large for a channel is replaced by an error that says so:
/// what was executed stays that.
fn encoded(answer: Answer) -> Bytes {
    let fits = |bytes: &Bytes| bytes.len() <= MAX_EXCHANGED_BYTES;
    if let Some(bytes) = answer.encode().ok().filter(fits) {
        return bytes;
    }
    let message = "The response is too large to be passed on to the node that the request came to.";
    let shorter = match answer {
        Answer::Response(ForwardedResponse { seen, closes_session, response: large }) => {
            let mut response = ErrorResponse::internal(message).to_response();
            let name = crate::dispatch::TRANSACTION_ID;
            if let Some(tx_id) = large.headers().get(name) {
                response.headers_mut().insert(name, tx_id.clone());
            }
            Answer::Response(ForwardedResponse { seen, closes_session, response })
        }
        // No answer at all: it may have been executed.
        Answer::Message(_) | Answer::Refused(_) => return Bytes::new(),
    };
    shorter.encode().unwrap_or_default()
}
