//! The channels to the other nodes of the service, which end in the enclaves.
//!
//! ```text
//!   pipeline ── send ──▶ queue of a line ──▶ TLS ──▶ host stream ──▶ the other enclave
//!            ◀─ receive ──────────────────── TLS ◀──
//! ```
//!
//! A node calls every other that takes part in the log and that it has no line to, at the address
//! on the ledger; a line that the other has opened serves as well. So a node that joins, and has
//! no ledger yet, is called. Who may have a line is decided by the governed list: of those whose
//! key the service has endorsed, all that are not retired for good. Queues are bounded; what does
//! not fit is lost, as the log expects of a network. The log goes before the questions that nodes
//! ask each other, so that no flood of these costs a node its primary.

mod calls;
mod exchange;
mod pleas;
mod queue;
mod tls;
pub mod wire;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use coco_consensus::{Membership, NodeId, Role};
use coco_crypto::{KeyPair, PublicKey};
use coco_governance::tables::{NODES, NodeInfo, NodeStatus};
use coco_kv::{Seqno, StateMap, TxId};
use coco_ledger::SnapshotName;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::host::{BoxFuture, Host};
use crate::pipeline::{Channels, Pipeline};
use crate::session::TlsError;
use calls::Calls;
pub(crate) use exchange::{Answers, AskError};
use exchange::{Open, TakenUp};
use pleas::{answer_pleas, pleas};
use queue::{Queue, Queued};
use tls::Handshakes;
pub(crate) use tls::ServiceClient;
use wire::{Message, SnapshotOffer};

/// The name by which the host knows the interface for other nodes.
pub const NODE_TO_NODE_INTERFACE: &str = "node_to_node_interface";

/// Messages of the log that wait in a line, at most, and their bytes.
const MAX_QUEUED_MESSAGES: usize = 1_024;
const MAX_QUEUED_BYTES: usize = 192 << 20;
/// The same of questions and answers.
const MAX_EXCHANGES: usize = 4_096;
const MAX_QUEUED_EXCHANGE_BYTES: usize = 128 << 20;
/// Lines that others have opened, at most.
const MAX_LINES: usize = 512;
/// A handshake takes no longer than this, and an answer from the disk no longer than that.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// A line on which nothing goes gets a ping; one from which nothing comes is given up.
const PING_INTERVAL: Duration = Duration::from_millis(300);
const SILENCE: Duration = Duration::from_millis(1_500);
/// Pauses between calls to a node that does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The channels of a node.
pub(crate) struct NodeChannels {
    me: NodeId,
    host: Arc<dyn Host>,
    handshakes: Handshakes,
    /// Set when the pipeline that uses the channels is there.
    pipeline: std::sync::OnceLock<Pipeline>,
    lines: Mutex<HashMap<NodeId, Vec<Line>>>,
    line_count: AtomicUsize,
    /// The others that take part, and whether this one does. Who does not, as it is retired, is called
    /// if at all.
    followed: Mutex<BTreeSet<NodeId>>,
    takes_part: AtomicBool,
    /// Wakes whoever calls others.
    changed: Notify,
    next_number: AtomicU64,
    /// Who waits for an answer, and from whom.
    asked: Mutex<HashMap<u64, (NodeId, oneshot::Sender<Message>)>>,
    questions: Open,
    /// What answers the questions of others; the server's, so that it ends with that.
    answers: Mutex<Option<Weak<dyn Answers>>>,
}

/// A stream to another node.
#[derive(Clone)]
struct Line {
    number: u64,
    log: Queue,
    exchanges: Queue,
}

impl Line {
    /// A frame of the log; it is lost if there is no room.
    fn send(&self, frame: Bytes) {
        self.log.push(Message::Log(frame).encode());
    }

    /// A question, or what belongs to one. Whether there was room.
    fn exchange(&self, message: &Message) -> bool {
        self.exchanges.push(message.encode())
    }

    /// Waits until there is room.
    async fn answer(&self, message: &Message) {
        self.exchanges.push_in_turn(message.encode()).await;
    }
}

impl NodeChannels {
    /// The channels of a node with this key, whose certificate the service has endorsed (PEM).
    pub fn new(
        host: Arc<dyn Host>,
        key: &KeyPair,
        certificate: &str,
        service_key: PublicKey,
    ) -> Result<Arc<Self>, TlsError> {
        let handshakes = Handshakes::new(&host, certificate, &key.to_pem(), service_key)?;
        Ok(Arc::new(Self {
            me: NodeId(key.public().id()),
            host,
            handshakes,
            pipeline: std::sync::OnceLock::new(),
            lines: Mutex::default(),
            line_count: AtomicUsize::new(0),
            followed: Mutex::default(),
            takes_part: AtomicBool::new(false),
            changed: Notify::new(),
            next_number: AtomicU64::new(0),
            asked: Mutex::default(),
            questions: Open::default(),
            answers: Mutex::default(),
        }))
    }

    /// Opens the channels of this pipeline. Must be called on the runtime; the tasks end when they
    /// are aborted.
    pub fn open(self: &Arc<Self>, pipeline: Pipeline) -> [BoxFuture<'static, ()>; 2] {
        let _ = self.pipeline.set(pipeline);
        [Box::pin(Arc::clone(self).answer_calls()), Box::pin(Arc::clone(self).call_others())]
    }

    async fn answer_calls(self: Arc<Self>) {
        let mut calls = Calls::default();
        loop {
            let accepted = match self.host.accept(NODE_TO_NODE_INTERFACE).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no channel is accepted");
                    self.host.sleep(FIRST_PAUSE).await;
                    continue;
                }
            };
            if self.line_count.load(Ordering::Acquire) >= MAX_LINES {
                continue;
            }
            let (channels, gives_way) = (Arc::clone(&self), calls.take_up());
            tokio::spawn(async move {
                let handshake = channels.handshakes.accept(accepted.stream);
                let peer = accepted.peer;
                let opened = tokio::select! {
                    opened = channels.in_time(HANDSHAKE_PATIENCE, handshake) => opened,
                    _ = gives_way => return,
                };
                match opened {
                    Ok((node, _)) if !channels.admits(node) => {
                        tracing::warn!(%node, peer, "refused a channel: not a node in service");
                    }
                    Ok((node, stream)) => channels.serve(node, stream).await,
                    Err(error) => tracing::warn!(%error, peer, "a channel is not opened"),
                }
            });
        }
    }

    /// Calls the others that there is no line to.
    async fn call_others(self: Arc<Self>) {
        let mut called: HashMap<NodeId, tokio::task::JoinHandle<()>> = HashMap::new();
        loop {
            let followed = self.followed.lock().clone();
            called.retain(|node, calls| {
                let goes_on = followed.contains(node);
                if !goes_on {
                    calls.abort();
                }
                goes_on
            });
            for node in followed {
                called
                    .entry(node)
                    .or_insert_with(|| tokio::spawn(Arc::clone(&self).keep_line_to(node)));
            }
            self.changed.notified().await;
        }
    }

    async fn keep_line_to(self: Arc<Self>, node: NodeId) {
        let mut pause = FIRST_PAUSE;
        loop {
            if !self.has_line(node) && self.takes_part.load(Ordering::Acquire) {
                let begun = self.host.uptime();
                match self.call(node).await {
                    // Who refuses this one ends the line at once.
                    Ok(()) if self.host.uptime().saturating_sub(begun) < SILENCE => {
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Ok(()) => pause = FIRST_PAUSE,
                    Err(error) => {
                        tracing::debug!(%node, %error, "a node does not answer");
                        if let Some(pipeline) = self.pipeline.get() {
                            pipeline.unreachable(node);
                        }
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
            let is_called = self.has_line(node);
            self.host.sleep(if is_called { PING_INTERVAL } else { pause }).await;
        }
    }

    /// Calls a node and serves the line until it ends.
    async fn call(self: &Arc<Self>, node: NodeId) -> io::Result<()> {
        let not_listed = || io::Error::new(io::ErrorKind::NotFound, "no address is known");
        let interface = self.listed(node).and_then(|info| info.node_to_node_interface);
        let interface = interface.ok_or_else(not_listed)?;
        let handshake = async {
            let stream = self.host.connect(interface.address()).await?;
            self.handshakes.connect(node, stream).await
        };
        let stream = self.in_time(HANDSHAKE_PATIENCE, handshake).await?;
        self.serve(node, stream).await;
        Ok(())
    }

    async fn in_time<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        tokio::select! {
            done = work => done,
            () = self.host.sleep(patience) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// What the ledger says of a node, as far as it is here.
    fn listed(&self, node: NodeId) -> Option<NodeInfo> {
        let mut tx = self.pipeline.get()?.store().begin();
        NODES.get(&mut tx, &node.0).ok()?
    }

    /// Whether a node that the service has endorsed may have a channel. Who lacks the ledger, or
    /// hears of no primary, cannot know better than the service who has come meanwhile.
    fn admits(&self, node: NodeId) -> bool {
        let Some(pipeline) = self.pipeline.get() else { return false };
        let lags = || {
            pipeline.store().head().seqno == Seqno(0)
                || pipeline.is_installing()
                || matches!(pipeline.role(), Role::Backup { primary: None, .. })
        };
        self.is_in_service(node).unwrap_or_else(lags)
    }

    /// What the list alone says of that.
    fn is_in_service(&self, node: NodeId) -> Option<bool> {
        match self.listed(node).map(|info| (info.status, info.retired_committed))? {
            (NodeStatus::Trusted, _) => Some(true),
            // It still has to learn that it is retired.
            (NodeStatus::Retired, is_over) => Some(!is_over),
            (NodeStatus::Pending, _) => None,
        }
    }

    /// Whether a node that has a channel may keep it. `seen` is a list that it is in service by,
    /// which is not read again as long as it is the same.
    fn still_admits(&self, node: NodeId, seen: &mut Option<StateMap>) -> bool {
        let Some(pipeline) = self.pipeline.get() else { return false };
        let list = pipeline.store().snapshot().map(NODES.name()).cloned();
        if let (Some(list), Some(seen)) = (&list, &*seen)
            && list.is_same(seen)
        {
            return true;
        }
        // Read after `list` was taken: what has changed meanwhile shows the next time.
        *seen = list.filter(|_| self.is_in_service(node) == Some(true));
        seen.is_some() || self.admits(node)
    }

    fn has_line(&self, node: NodeId) -> bool {
        self.lines.lock().get(&node).is_some_and(|lines| !lines.is_empty())
    }

    /// Carries messages both ways until the stream ends.
    async fn serve(
        self: &Arc<Self>,
        node: NodeId,
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
    ) {
        let number = self.next_number();
        let (log, queued_log) = Queue::new(MAX_QUEUED_MESSAGES, MAX_QUEUED_BYTES);
        let (exchanges, queued_exchanges) = Queue::new(MAX_EXCHANGES, MAX_QUEUED_EXCHANGE_BYTES);
        let line = Line { number, log, exchanges };
        self.lines.lock().entry(node).or_default().push(line.clone());
        self.line_count.fetch_add(1, Ordering::AcqRel);
        tracing::info!(%node, "a channel is open");
        let _registered = Registered { channels: self, node, number };
        let Some(pipeline) = self.pipeline.get() else { return };
        let (pleas, waiting) = pleas();
        let (reader, writer) = tokio::io::split(stream);
        let ended = tokio::select! {
            ended = self.read(node, &line, pleas, reader) => ended,
            () = answer_pleas(pipeline, node, &line, waiting) => Ok(()),
            ended = write(&*self.host, writer, queued_log, queued_exchanges) => ended,
        };
        if let Err(error) = ended {
            tracing::info!(%node, %error, "a channel has ended");
        }
    }

    async fn read(
        self: &Arc<Self>,
        node: NodeId,
        line: &Line,
        pleas: mpsc::Sender<Message>,
        stream: impl AsyncRead,
    ) -> io::Result<()> {
        let mut stream = std::pin::pin!(tokio::io::BufReader::with_capacity(64 << 10, stream));
        let mut taken_up = TakenUp::default();
        let mut admitted_by = None;
        loop {
            let message = self.in_time(SILENCE, Message::read(&mut stream)).await?;
            let Some(pipeline) = self.pipeline.get() else { return Ok(()) };
            // The list may have changed since the line was opened.
            if !self.still_admits(node, &mut admitted_by) {
                return Err(io::Error::other("not a node in service any more"));
            }
            match message {
                Message::Ping => {}
                Message::Log(frame) => pipeline
                    .receive(node, frame)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
                plea @ (Message::LedgerPlease { .. }
                | Message::SnapshotPlease { .. }
                | Message::PiecePlease { .. }) => {
                    if pleas.try_send(plea).is_err() {
                        tracing::warn!(%node, "a node asks for too much at a time");
                    }
                }
                Message::Ledger { number, .. }
                | Message::Snapshot { number, .. }
                | Message::Piece { number, .. } => {
                    let mut asked = self.asked.lock();
                    if asked.get(&number).is_some_and(|(of, _)| *of == node)
                        && let Some((_, asker)) = asked.remove(&number)
                    {
                        // Whoever has asked may have given up just now.
                        let _ = asker.send(message);
                    }
                }
                Message::Question { number, question } => {
                    let answers = self.answers.lock().clone();
                    taken_up.add(answers, line, number, question)?;
                }
                Message::Cancel { number } => taken_up.cancel(number),
                Message::Answer { number, answer } => self.answered(line, number, Ok(answer)),
                Message::Busy { number } => self.answered(line, number, Err(AskError::Busy)),
            }
        }
    }

    /// The newest line to a node.
    fn line(&self, to: NodeId) -> Option<Line> {
        self.lines.lock().get(&to).and_then(|lines| lines.last()).cloned()
    }

    fn next_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks a node and waits for its answer, which carries the number of the question.
    fn ask<T: 'static>(
        self: &Arc<Self>,
        node: NodeId,
        question: impl FnOnce(u64) -> Message,
        read: impl FnOnce(Message) -> Option<T> + Send + 'static,
    ) -> BoxFuture<'static, io::Result<T>> {
        let channels = Arc::clone(self);
        let number = self.next_number();
        let question = question(number);
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            channels.asked.lock().insert(number, (node, answer));
            let _forgotten = Forgotten { channels: &channels, number };
            if !channels.line(node).is_some_and(|line| line.exchange(&question)) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let answered = async { answered.await.map_err(|_| io::ErrorKind::BrokenPipe.into()) };
            let answer = channels.in_time(ANSWER_PATIENCE, answered).await?;
            read(answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "another answer"))
        })
    }
}

/// A question that nobody waits for any more.
struct Forgotten<'a> {
    channels: &'a NodeChannels,
    number: u64,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.channels.asked.lock().remove(&self.number);
    }
}

impl Channels for Arc<NodeChannels> {
    fn send(&self, to: NodeId, frame: Bytes) {
        if let Some(line) = self.line(to) {
            line.send(frame);
        }
    }

    fn follow(&self, membership: &Membership) {
        let mut nodes = membership.nodes();
        self.takes_part.store(nodes.remove(&self.me), Ordering::Release);
        *self.followed.lock() = nodes;
        self.changed.notify_one();
    }

    fn sources(&self) -> Vec<NodeId> {
        let primary = match self.pipeline.get().map(Pipeline::role) {
            Some(Role::Backup { primary, .. }) => primary,
            _ => None,
        };
        let mut sources: Vec<_> = self.lines.lock().keys().copied().collect();
        sources.sort_by_key(|node| (Some(*node) != primary, *node));
        sources
    }

    fn ledger(
        &self,
        from: NodeId,
        after: Seqno,
        to: Seqno,
        committed: TxId,
    ) -> BoxFuture<'static, io::Result<Bytes>> {
        let question = |number| Message::LedgerPlease { number, after, to, committed };
        self.ask(from, question, |answer| match answer {
            Message::Ledger { entries, .. } => Some(entries),
            _ => None,
        })
    }

    fn newest_snapshot(
        &self,
        from: NodeId,
        to: Seqno,
    ) -> BoxFuture<'static, io::Result<SnapshotOffer>> {
        self.ask(
            from,
            |number| Message::SnapshotPlease { number, to },
            |answer| match answer {
                Message::Snapshot { offer, .. } => Some(offer),
                _ => None,
            },
        )
    }

    fn snapshot_piece(
        &self,
        from: NodeId,
        name: SnapshotName,
        offset: u64,
    ) -> BoxFuture<'static, io::Result<Bytes>> {
        let question = |number| Message::PiecePlease { number, name, offset };
        self.ask(from, question, |answer| match answer {
            Message::Piece { bytes, .. } => Some(bytes),
            _ => None,
        })
    }
}

/// A line in the table, for as long as it is served.
struct Registered<'a> {
    channels: &'a NodeChannels,
    node: NodeId,
    number: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.channels.line_count.fetch_sub(1, Ordering::AcqRel);
        let mut lines = self.channels.lines.lock();
        if let Some(of_node) = lines.get_mut(&self.node) {
            of_node.retain(|line| line.number != self.number);
            if of_node.is_empty() {
                lines.remove(&self.node);
            }
        }
        drop(lines);
        self.channels.lose_answers(self.number);
    }
}

/// Writes what is queued, the log before everything else.
async fn write(
    host: &dyn Host,
    stream: impl AsyncWrite,
    mut log: Queued,
    mut exchanges: Queued,
) -> io::Result<()> {
    let mut stream = std::pin::pin!(tokio::io::BufWriter::with_capacity(64 << 10, stream));
    loop {
        let mut next = tokio::select! {
            biased;
            message = log.next() => match message {
                Some(message) => Some(message),
                None => return Ok(()),
            },
            message = exchanges.next() => match message {
                Some(message) => Some(message),
                None => return Ok(()),
            },
            () = host.sleep(PING_INTERVAL) => Some(Message::Ping.encode()),
        };
        // What waits by now goes out with one flush.
        while let Some(message) = next {
            stream.write_all(&message).await?;
            next = log.next_now().or_else(|| exchanges.next_now());
        }
        stream.flush().await?;
    }
}
