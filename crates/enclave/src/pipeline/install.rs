//! How the ledger comes to a node that lacks much of it, when the log asks for it.
//!
//! ```text
//!   newest snapshot of any node ─▶ verified ─▶ store, tree, views: as if replayed up to there
//!   entries after it, in pieces ─▶ each batch checked as one that the log brings ─▶ exactly `at`
//! ```
//! Without a snapshot it begins with the first entry. What another node gives is never believed:
//! a snapshot has the service's receipt, a batch both signatures over a root that is computed here.
//!
//! Who is asked is told what is to be reached, and gives its ledger up to there if it has just that,
//! whether it knows it as committed or not (`Pipeline::ledger`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use coco_consensus::{Batch, NodeId};
use coco_kv::{Seqno, TxId};
use coco_ledger::{ChunkName, Entry, Resumed, split_entry};
use tokio::sync::oneshot;

use super::Standing;
use super::batch::RecentBatches;
use super::drive::Inner;
use super::follow::{BatchFault, is_signature};
use super::replicate::FollowError;
use crate::disk::{set_aside, submit};
use crate::ease::Rests;
use crate::former::{ForkSearch, Kept};
use crate::historical::FetchError;
use crate::host::Area;
use crate::snapshots::{LoadedSnapshot, Search};

/// How much of a replay is left to others, whenever so much is done, and for how long in all: a
/// ledger that grows faster is never caught up with.
const EASE: u32 = 2;
const PIECE: Duration = Duration::from_millis(4);
const MAX_RESTS: Duration = Duration::from_secs(3);

/// Pause before an installation is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// A batch that is brought here takes at most this many bytes.
const MAX_BATCH_BYTES: usize = coco_consensus::wire::MAX_BATCH_BYTES;
/// A node that has a part of the ledger replays this many transactions rather than leap over them.
const MAX_REPLAYED: u64 = 50_000;
/// Entries before a snapshot that are brought for the files alone, at most; before that the files
/// begin anew.
const MAX_FILLED: u64 = 1_000_000;

/// The ledger of others cannot be brought here now.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("it cannot be had now: {0}")]
    Io(#[from] std::io::Error),
    #[error("the files here: {0}")]
    Own(#[from] FetchError),
    #[error("no node has entry {0} any more")]
    Missing(Seqno),
    #[error(transparent)]
    Batch(#[from] BatchFault),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("batch {0} was not asked for")]
    Beyond(TxId),
    #[error("{found} ends a batch where {expected} was to")]
    End { found: TxId, expected: TxId },
    #[error("the entries given are not those before the snapshot")]
    Others,
    #[error("a batch is larger than {MAX_BATCH_BYTES} bytes")]
    TooLarge,
    #[error("the node stopped")]
    Stopped,
}

/// What is to be reached, and how often that was tried before.
#[derive(Clone, Copy)]
struct Aim {
    /// The log says that this is committed.
    at: TxId,
    attempt: usize,
}

/// Entries of a batch, until its signature comes.
struct Gathered {
    /// The end of the last whole batch.
    end: Seqno,
    /// The last entry that has come.
    last: Seqno,
    begun: Vec<u8>,
}

impl Gathered {
    fn after(end: Seqno) -> Self {
        Self { end, last: end, begun: Vec::new() }
    }

    /// Takes the next entry; a batch if that is its signature.
    fn push(&mut self, entry: &[u8]) -> Result<Option<Batch>, InstallError> {
        self.last = self.last.next();
        self.begun.extend_from_slice(entry);
        if self.begun.len() > MAX_BATCH_BYTES {
            return Err(InstallError::TooLarge);
        }
        if !is_signature(entry)? {
            return Ok(None);
        }
        let view = Entry::parse(entry).map_err(BatchFault::from)?.tx_id().view;
        let first = std::mem::replace(&mut self.end, self.last).next();
        let entries = Bytes::from(std::mem::take(&mut self.begun));
        Ok(Some(Batch { first, last: TxId { view, seqno: self.last }, entries }))
    }
}

impl Inner {
    /// Brings the ledger here whenever the log asks for it. Runs until the pipeline has stopped.
    pub async fn keep_installed(self: Arc<Self>) {
        let mut rests = Rests::at_most(MAX_RESTS, EASE);
        while self.standing() != Standing::Stopped && self.standing() != Standing::Failed {
            self.install_signal.notified().await;
            let asked = *self.installing.lock();
            let Some(at) = asked else { continue };
            tracing::info!(%at, "the ledger is brought here from other nodes");
            let (mut attempt, mut is_missing) = (0, false);
            while let Err(error) = self.install(Aim { at, attempt }, is_missing, &mut rests).await {
                if self.standing() == Standing::Stopped || self.standing() == Standing::Failed {
                    return;
                }
                tracing::warn!(%at, %error, "the ledger is not brought here yet");
                attempt += 1;
                is_missing = matches!(error, InstallError::Missing(_));
                self.host.sleep(PAUSE).await;
            }
            *self.installing.lock() = None;
            if let Err(error) = self.log.lock().consensus.installed(at) {
                return self.fail(&error);
            }
            self.pump();
        }
    }

    /// Makes the ledger end with what is aimed at. What is here and committed stays.
    async fn install(
        self: &Arc<Self>,
        aim: Aim,
        is_missing: bool,
        rests: &mut Rests,
    ) -> Result<(), InstallError> {
        let at = aim.at;
        let end = self.progress.committed_seqno();
        if self.store.head().seqno > end {
            let mut writer = self.writer.lock();
            self.try_take_back(&mut writer, end)?;
        }
        let mut snapshot: Option<LoadedSnapshot> = None;
        let lags = at.seqno.0.saturating_sub(end.0) > MAX_REPLAYED;
        if (end == Seqno(0) || lags || is_missing)
            && let Some(rules) = self.settings.snapshot_fetch
        {
            let (host, channels, keys) = (&*self.host, &*self.channels, &*self.keys);
            let search = Search { host, channels, keys, rules, after: end, to: at.seqno };
            snapshot = search.newest().await;
        }
        let begin = snapshot.as_ref().map_or(end, |snapshot| snapshot.state.tx_id().seqno);
        self.take_up_former(begin, aim).await?;
        if let Some(snapshot) = snapshot {
            self.go_on_from(snapshot, aim).await?;
        }
        if let Err(error) = self.replay(begin, aim, rests).await {
            // Whatever is wrong with files of this node's own, others have the same entries.
            let reached = self.progress.committed_seqno();
            if !matches!(error, InstallError::Stopped) && reached < self.files.lock().last() {
                self.begin_files_after(reached).await?;
            }
            return Err(error);
        }
        let end = self.progress.committed_seqno();
        let found = TxId { view: self.progress.view_of(end).unwrap_or_default(), seqno: end };
        if found != at {
            return Err(InstallError::End { found, expected: at });
        }
        self.written().await
    }

    /// Checks, applies and commits the batches after `end`, up to what is aimed at.
    async fn replay(
        self: &Arc<Self>,
        end: Seqno,
        aim: Aim,
        rests: &mut Rests,
    ) -> Result<(), InstallError> {
        let to = aim.at.seqno;
        // Without a voter's replay there may be no quorum.
        let may_rest = !self.is_voter();
        let mut begun = self.host.uptime();
        let mut gathered = Gathered::after(end);
        let own_end = self.files.lock().last();
        while gathered.end < to {
            let bytes = match gathered.last < own_end {
                true => self.historical.entries(gathered.last.next(), own_end).await?,
                false => self.entries(gathered.last, to, aim).await?,
            };
            let mut rest: &[u8] = &bytes;
            while !rest.is_empty() {
                let (entry, after) = split_entry(rest).map_err(BatchFault::from)?;
                rest = after;
                if let Some(batch) = gathered.push(entry)? {
                    let last = batch.last;
                    if last.seqno > to {
                        return Err(InstallError::Beyond(last));
                    }
                    let operations = self.apply(&batch)?;
                    if !operations.is_empty() {
                        self.submit_unsynced(operations);
                    }
                    self.commit(last);
                    // Adapters learn of it, and what could undo it goes.
                    self.wake.notify_one();
                    // Others have things to do, too.
                    tokio::task::yield_now().await;
                    if may_rest && self.host.uptime().saturating_sub(begun) >= PIECE {
                        rests.after(&*self.host, begun).await;
                        begun = self.host.uptime();
                    }
                }
            }
        }
        Ok(())
    }

    fn is_voter(&self) -> bool {
        let me = NodeId(self.keys.signer().node_key.public().id());
        self.membership.read().voters.contains(&me)
    }

    /// The next entries of the ledger, from a node that has them. Whom to ask first changes with
    /// each attempt: what the last one gave may have been wrong.
    async fn entries(&self, after: Seqno, to: Seqno, aim: Aim) -> Result<Bytes, InstallError> {
        if self.standing() != Standing::Running {
            return Err(InstallError::Stopped);
        }
        let mut sources = self.channels.sources();
        let first = aim.attempt.checked_rem(sources.len()).unwrap_or(0);
        sources.rotate_left(first);
        let mut fault = sources.is_empty().then(|| std::io::ErrorKind::NotConnected.into());
        for node in sources {
            match self.channels.ledger(node, after, to, aim.at).await {
                Ok(entries) if !entries.is_empty() => return Ok(entries),
                Ok(_) => {}
                Err(error) => fault = Some(error),
            }
        }
        Err(fault.map_or(InstallError::Missing(after.next()), InstallError::Io))
    }

    /// Keeps those files of a former node that belong to the service's ledger, if they lead on from
    /// `begin`.
    async fn take_up_former(self: &Arc<Self>, begin: Seqno, aim: Aim) -> Result<(), InstallError> {
        let Some(former) = self.former.lock().clone() else { return Ok(()) };
        let end = match former.start() <= begin.next() {
            true => self.shared_end(former.signatures(), aim).await?,
            false => Seqno(0),
        };
        if let Some(Kept { files, tree }) = former.keep_to(&*self.host, end).await? {
            tracing::info!(last = %files.last, "ledger files of a former node are kept");
            let renames = {
                let (mut own, last) = (self.files.lock(), files.last);
                own.go_on_from(files);
                own.commit(last)
            };
            self.submit_unsynced(renames);
            *self.files_tree.lock() = Some(tree);
        }
        self.historical.clear();
        *self.former.lock() = None;
        Ok(())
    }

    /// The last of these signature transactions in the own files, no later than what is aimed at,
    /// that is on the service's ledger, too. All before it are.
    async fn shared_end(
        &self,
        mut signatures: Vec<Seqno>,
        aim: Aim,
    ) -> Result<Seqno, InstallError> {
        signatures.retain(|seqno| *seqno <= aim.at.seqno);
        let mut fork = ForkSearch::among(signatures.len());
        while let Some(seqno) = fork.guess().and_then(|guess| signatures.get(guess)) {
            let is_shared = self.is_shared(*seqno, aim).await?;
            fork.tell(is_shared);
        }
        let last = fork.shared().checked_sub(1).and_then(|last| signatures.get(last));
        Ok(last.copied().unwrap_or_default())
    }

    async fn is_shared(&self, seqno: Seqno, aim: Aim) -> Result<bool, InstallError> {
        let Ok(own) = self.historical.entries(seqno, seqno).await else { return Ok(false) };
        match self.entries(Seqno(seqno.0.saturating_sub(1)), seqno, aim).await {
            Ok(others) => Ok(others == own),
            Err(InstallError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Goes on from a verified snapshot, which is of a later state than the one here.
    async fn go_on_from(
        self: &Arc<Self>,
        snapshot: LoadedSnapshot,
        aim: Aim,
    ) -> Result<(), InstallError> {
        let at = snapshot.state.tx_id();
        let is_behind = self.files.lock().last() < at.seqno;
        if is_behind && !self.fill(&snapshot, aim).await {
            self.begin_files_after(at.seqno).await?;
        }
        let mut writer = self.writer.lock();
        writer.go_on_from(snapshot.tree, snapshot.len_bytes);
        writer.set_chunk_bytes(self.files.lock().open_bytes());
        self.store.reset(snapshot.state);
        self.queue.take_back(at.seqno);
        *self.recent.write() = RecentBatches::default();
        *self.snapshot_due.lock() = None;
        self.snapshot_coming.store(0, Ordering::SeqCst);
        self.cut_to.store(at.seqno.0, Ordering::SeqCst);
        self.progress.go_on_from(at, snapshot.views);
        self.startup_seqno.store(at.seqno.0, Ordering::SeqCst);
        drop(writer);
        self.wake.notify_one();
        Ok(())
    }

    /// Brings the entries between the end of the files and a snapshot, for the files alone; whether
    /// they are there now.
    async fn fill(self: &Arc<Self>, snapshot: &LoadedSnapshot, aim: Aim) -> bool {
        let (end, to) = (self.files.lock().last(), snapshot.state.tx_id().seqno);
        if end == Seqno(0) || to.0 - end.0 > MAX_FILLED {
            return false;
        }
        let filled = self.try_fill(end, snapshot, aim).await;
        filled.inspect_err(|error| tracing::warn!(%error, "the ledger's files begin anew")).is_ok()
    }

    /// The leaves of the entries must lead from the root at `end` to that of the snapshot.
    async fn try_fill(
        self: &Arc<Self>,
        end: Seqno,
        snapshot: &LoadedSnapshot,
        aim: Aim,
    ) -> Result<(), InstallError> {
        let to = snapshot.state.tx_id().seqno;
        let of_files = self.files_tree.lock().take().filter(|tree| tree.len() == end.0 + 1);
        let tree = of_files.or_else(|| self.writer.lock().tree_to(end));
        let mut tree = tree.ok_or(InstallError::Missing(end))?;
        let mut gathered = Gathered::after(end);
        while gathered.end < to {
            let bytes = self.entries(gathered.last, to, aim).await?;
            let mut rest: &[u8] = &bytes;
            while !rest.is_empty() {
                let (entry, after) = split_entry(rest).map_err(BatchFault::from)?;
                rest = after;
                tree.append(Entry::parse(entry).map_err(BatchFault::from)?.leaf());
                if let Some(batch) = gathered.push(entry)? {
                    tree.flush_to(gathered.end.0);
                    let operations = self.files.lock().append(&batch).map_err(FollowError::from)?;
                    self.submit_unsynced(operations);
                    tokio::task::yield_now().await;
                }
            }
        }
        if tree.len() != snapshot.tree.len() || tree.root() != snapshot.tree.root() {
            return Err(InstallError::Others);
        }
        let renames = self.files.lock().commit(to);
        self.submit_unsynced(renames);
        Ok(())
    }

    /// Sets aside what is in the directory of the ledger; the next chunk begins after `seqno`.
    async fn begin_files_after(&self, seqno: Seqno) -> Result<(), InstallError> {
        let begun = Resumed { last: seqno, committed: seqno, ..Resumed::default() };
        self.files.lock().go_on_from(begun);
        self.historical.clear();
        let files = self.host.disk().list(Area::Ledger).await?;
        let own = files.iter().filter(|file| !file.read_only);
        let own = own.filter(|file| file.name.parse::<ChunkName>().is_ok());
        let renames: Vec<_> = own.map(|file| set_aside(&file.name, &files)).collect();
        if renames.is_empty() {
            return Ok(());
        }
        tracing::warn!(files = renames.len(), "ledger files are set aside");
        Ok(submit(&*self.host, Area::Ledger, renames).await?)
    }

    /// Resolves when everything that was submitted is on the disk.
    async fn written(&self) -> Result<(), InstallError> {
        let (done, written) = oneshot::channel();
        let report = Box::new(move |result| {
            let _ = done.send(result);
        });
        let sync = self.settings.sync != crate::config::Sync::Never;
        self.host.disk().submit(Area::Ledger, Vec::new(), sync, report);
        Ok(written.await.map_err(|_| InstallError::Stopped)??)
    }
}
