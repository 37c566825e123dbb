//! Snapshots of other nodes, for a node that lacks much of the ledger.
//!
//! ```text
//! offers of all nodes ─▶ newest that helps ─▶ pieces ─▶ snapshot_s_e ─▶ verified, decoded
//!                                              (resumed where it was broken off)   └─▶ .committed
//! ```
//! What another node gives is worth what its receipt is worth: a snapshot that the service has not
//! recorded is refused, and the next one is tried.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use coco_consensus::NodeId;
use coco_kv::Seqno;
use coco_ledger::SnapshotName;

use super::load::{LoadError, OfSnapshot, committed, load};
use super::write_gently;
use crate::channels::wire::SnapshotOffer;
use crate::config::{BackupFetch, Config, Join};
use crate::disk::{set_aside, submit};
use crate::ease::Rests;
use crate::host::{Area, DiskOp, Host};
use crate::pipeline::Channels;
use crate::service::ServiceKeys;

/// Whoever is writing a snapshot is asked again after this, and for so long.
const ASK_AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(120);
/// A node that joins is waited for, a backup's copy is for later.
const EASE_OF_JOIN: u32 = 3;
const MAX_RESTS_OF_JOIN: Duration = Duration::from_secs(6);
const EASE_OF_BACKUP: u32 = 10;
/// Snapshots that are tried, one after the other.
const MAX_TRIES: usize = 8;

/// How snapshots are fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchRules {
    pub max_bytes: u64,
    /// Tries for each piece, and the pause between them.
    pub attempts: u32,
    pub pause: Duration,
    /// How much is left to others, and for how long in all.
    pub ease: u32,
    pub max_rests: Duration,
}

impl FetchRules {
    /// Those for backups.
    pub fn of_backup(config: &BackupFetch) -> Self {
        Self {
            max_bytes: config.max_size.0,
            attempts: config.max_attempts.max(1),
            pause: config.retry_interval.0,
            ease: EASE_OF_BACKUP,
            max_rests: Duration::MAX,
        }
    }

    /// Those configured; none if snapshots are not to be fetched.
    pub fn of(config: &Config) -> Option<Self> {
        let Join {
            fetch_recent_snapshot,
            fetch_snapshot_max_attempts,
            fetch_snapshot_retry_interval,
            fetch_snapshot_max_size,
            ..
        } = config.command.join.clone().unwrap_or_default();
        fetch_recent_snapshot.then_some(Self {
            max_bytes: fetch_snapshot_max_size.0,
            attempts: fetch_snapshot_max_attempts.max(1),
            pause: fetch_snapshot_retry_interval.0,
            ease: EASE_OF_JOIN,
            max_rests: MAX_RESTS_OF_JOIN,
        })
    }
}

/// A snapshot is not brought here.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("it is not given: {0}")]
    Io(#[from] io::Error),
    #[error("it ends at {found} bytes instead of {expected}")]
    Length { found: u64, expected: u64 },
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// A snapshot that may be used, and who has it: this node if nobody.
#[derive(Clone, Copy)]
struct Candidate {
    name: SnapshotName,
    node: Option<NodeId>,
    len_bytes: u64,
}

/// What snapshots are looked for, and where.
pub(crate) struct Search<'a> {
    pub host: &'a dyn Host,
    pub channels: &'a dyn Channels,
    pub keys: &'a ServiceKeys,
    pub rules: FetchRules,
    /// The state is to be a later one than this, and no later than that.
    pub after: Seqno,
    pub to: Seqno,
}

impl Search<'_> {
    /// The newest snapshot of this node or another that the service has recorded; none if there is
    /// none, and the ledger itself must do.
    pub async fn newest<T: OfSnapshot>(&self) -> Option<T> {
        let mut candidates = self.candidates().await;
        let mut rests = Rests::at_most(self.rules.max_rests, self.rules.ease);
        for _ in 0..MAX_TRIES {
            // The newest, and of the same the one that is here already.
            candidates.sort_by_key(|candidate| (candidate.name, Reverse(candidate.node)));
            let Candidate { name, node, len_bytes } = candidates.pop()?;
            let from = node.map_or_else(|| "this node".to_owned(), |node| node.to_string());
            let loaded = match node {
                None => self.load_own(name, &mut rests).await.map_err(FetchError::from),
                Some(node) => self.bring(node, name, len_bytes, &mut rests).await,
            };
            match loaded {
                Ok(loaded) => {
                    tracing::info!(%name, from, "a snapshot is verified");
                    return Some(loaded);
                }
                Err(error) => tracing::warn!(%name, from, %error, "a snapshot is refused"),
            }
            if let Some(node) = node {
                let before = Seqno(name.seqno.0.saturating_sub(1));
                candidates.extend(self.offered(node, before).await);
            }
        }
        None
    }

    async fn candidates(&self) -> Vec<Candidate> {
        let mut found = Vec::new();
        match committed(self.host).await {
            Ok(files) => found.extend(files.into_iter().filter_map(|file| {
                let candidate =
                    Candidate { name: file.name, node: None, len_bytes: file.len_bytes };
                self.fits(&candidate).then_some(candidate)
            })),
            Err(error) => tracing::warn!(%error, "the snapshots of this node cannot be listed"),
        }
        for node in self.channels.sources() {
            found.extend(self.offered(node, self.to).await);
        }
        found
    }

    /// The newest snapshot of another node that is no later than `to`. One that is being written is
    /// waited for.
    async fn offered(&self, node: NodeId, to: Seqno) -> Option<Candidate> {
        let until = self.host.uptime() + PATIENCE;
        loop {
            let offer = self.channels.newest_snapshot(node, to).await;
            let offer =
                offer.inspect_err(|error| tracing::debug!(%node, %error, "no answer")).ok()?;
            match offer {
                SnapshotOffer::There(name, len_bytes) => {
                    let candidate = Candidate { name, node: Some(node), len_bytes };
                    return (name.seqno <= to && self.fits(&candidate)).then_some(candidate);
                }
                SnapshotOffer::Coming(seqno) if self.helps(seqno) && self.host.uptime() < until => {
                    self.host.sleep(ASK_AGAIN).await;
                }
                SnapshotOffer::Coming(_) | SnapshotOffer::Nothing => return None,
            }
        }
    }

    fn fits(&self, candidate: &Candidate) -> bool {
        let fitting = 1..=self.rules.max_bytes;
        self.helps(candidate.name.seqno) && fitting.contains(&candidate.len_bytes)
    }

    fn helps(&self, seqno: Seqno) -> bool {
        self.after < seqno && seqno <= self.to
    }

    async fn load<T: OfSnapshot>(
        &self,
        file: &str,
        name: SnapshotName,
        rests: &mut Rests,
    ) -> Result<T, LoadError> {
        let key = self.keys.identity_key(name.evidence);
        load(self.host, file, name, &self.keys.secrets(), key, rests).await
    }

    async fn load_own<T: OfSnapshot>(
        &self,
        name: SnapshotName,
        rests: &mut Rests,
    ) -> Result<T, LoadError> {
        let loaded = self.load(&name.to_string(), name, rests).await;
        if let Err(LoadError::Wrong(_)) = &loaded {
            self.make_room(name).await?;
        }
        loaded
    }

    /// Sets a file aside whose name another one is to have.
    async fn make_room(&self, name: SnapshotName) -> io::Result<()> {
        let files = self.host.disk().list(Area::Snapshots).await?;
        let name = name.to_string();
        let is_here = files.iter().any(|file| file.name == name && !file.read_only);
        match is_here {
            true => submit(self.host, Area::Snapshots, vec![set_aside(&name, &files)]).await,
            false => Ok(()),
        }
    }

    async fn bring<T: OfSnapshot>(
        &self,
        node: NodeId,
        name: SnapshotName,
        len_bytes: u64,
        rests: &mut Rests,
    ) -> Result<T, FetchError> {
        let file = SnapshotName { is_committed: false, ..name }.to_string();
        let was_begun = self.download(node, name, &file, len_bytes, rests).await?;
        let mut loaded = self.load(&file, name, rests).await;
        if was_begun && matches!(loaded, Err(LoadError::Wrong(_))) {
            // Perhaps what was here before is at fault.
            self.remove(&file).await?;
            self.download(node, name, &file, len_bytes, rests).await?;
            loaded = self.load(&file, name, rests).await;
        }
        if loaded.is_err() {
            self.remove(&file).await?;
        } else {
            self.make_room(name).await?;
            let rename = DiskOp::Rename { from: file, to: name.to_string() };
            submit(self.host, Area::Snapshots, vec![rename]).await?;
        }
        Ok(loaded?)
    }

    async fn remove(&self, file: &str) -> io::Result<()> {
        let remove = DiskOp::Remove { name: file.to_owned() };
        submit(self.host, Area::Snapshots, vec![remove]).await
    }

    /// Brings the pieces that are missing; whether some were here.
    async fn download(
        &self,
        node: NodeId,
        name: SnapshotName,
        file: &str,
        len_bytes: u64,
        rests: &mut Rests,
    ) -> Result<bool, FetchError> {
        let files = self.host.disk().list(Area::Snapshots).await?;
        let begun = files.iter().find(|it| it.name == file && !it.read_only);
        let begun = match begun.map(|begun| begun.len_bytes) {
            Some(begun) if begun <= len_bytes => begun,
            too_long => {
                if too_long.is_some() {
                    self.remove(file).await?;
                }
                let create = DiskOp::Create { name: file.to_owned() };
                submit(self.host, Area::Snapshots, vec![create]).await?;
                0
            }
        };
        let mut offset = begun;
        while offset < len_bytes {
            let bytes = self.piece(node, name, offset).await?;
            let end = offset + bytes.len() as u64;
            if bytes.is_empty() || end > len_bytes {
                return Err(FetchError::Length { found: end, expected: len_bytes });
            }
            write_gently(self.host, file, offset, bytes, rests).await?;
            offset = end;
        }
        Ok(begun > 0)
    }

    async fn piece(&self, node: NodeId, name: SnapshotName, offset: u64) -> io::Result<Bytes> {
        let mut attempts = 1;
        loop {
            match self.channels.snapshot_piece(node, name, offset).await {
                Err(error) if attempts < self.rules.attempts => {
                    tracing::debug!(%name, offset, %error, "a piece of a snapshot is asked for again");
                    attempts += 1;
                    self.host.sleep(self.rules.pause).await;
                }
                other => return other,
            }
        }
    }
}
