//! Old files go: all but the newest snapshots and ledger chunks, as `files_cleanup` says.
//!
//! A chunk goes only if the same bytes are in a read-only directory, and if the newest snapshot is of
//! a later state: what the node has itself always leads from a snapshot to the end of the ledger.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coco_ledger::{ChunkName, ChunkState, SnapshotName};
use tokio::task::spawn_blocking;

use crate::DiskLayout;

/// How many files are kept, and how often that is looked after. None: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesCleanup {
    /// Committed snapshots.
    pub max_snapshots: Option<usize>,
    /// Committed chunks.
    pub max_committed_chunks: Option<usize>,
    /// Pause between two looks.
    pub interval: Duration,
}

impl FilesCleanup {
    /// Looks after the files for ever, or ends at once if all are kept.
    pub(crate) async fn run(self, layout: DiskLayout) {
        if self.max_snapshots.or(self.max_committed_chunks).is_none() {
            return;
        }
        let mut without_copy = 0;
        loop {
            tokio::time::sleep(self.interval).await;
            let layout = layout.clone();
            match spawn_blocking(move || self.remove_old(&layout)).await {
                Ok(Ok(outcome)) => {
                    if !outcome.removed.is_empty() {
                        tracing::info!(files = outcome.removed.len(), "old files are removed");
                    }
                    if outcome.without_copy > without_copy {
                        let files = outcome.without_copy;
                        tracing::warn!(
                            files,
                            "old chunks kept: no read-only directory has the same"
                        );
                    }
                    without_copy = outcome.without_copy;
                }
                Ok(Err(error)) => tracing::warn!(%error, "old files are not removed"),
                Err(error) => tracing::error!(%error, "old files are not removed"),
            }
        }
    }

    /// Removes what need not be kept, the oldest first. Blocks.
    fn remove_old(self, layout: &DiskLayout) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        if let Some(kept) = self.max_snapshots {
            let mut snapshots = snapshots(&layout.snapshots)?;
            snapshots.sort_unstable_by_key(|(name, _)| *name);
            let excess = snapshots.len().saturating_sub(kept);
            for (_, path) in snapshots.drain(..excess) {
                outcome.remove(path)?;
            }
        }
        if let Some(kept) = self.max_committed_chunks {
            let newest = snapshots(&layout.snapshots)?.into_iter().map(|(name, _)| name).max();
            let mut chunks = committed_chunks(&layout.ledger)?;
            chunks.sort_unstable_by_key(|(name, _)| *name);
            let excess = chunks.len().saturating_sub(kept);
            let copies = copies(&layout.read_only_ledgers)?;
            for (name, path) in chunks.drain(..excess) {
                let is_past =
                    newest.zip(name.end()).is_some_and(|(newest, end)| end < newest.seqno);
                if !is_past {
                    break;
                }
                if has_copy(&path, copies.get(&name).map_or(&[], Vec::as_slice))? {
                    outcome.remove(path)?;
                } else {
                    outcome.without_copy += 1;
                }
            }
        }
        Ok(outcome)
    }
}

/// What a look at the files came to.
#[derive(Debug, Default)]
struct Outcome {
    removed: Vec<PathBuf>,
    /// Chunks that would have been removed.
    without_copy: usize,
}

impl Outcome {
    fn remove(&mut self, path: PathBuf) -> io::Result<()> {
        fs::remove_file(&path)?;
        self.removed.push(path);
        Ok(())
    }
}

fn committed_chunks(directory: &Path) -> io::Result<Vec<(ChunkName, PathBuf)>> {
    let mut chunks = named::<ChunkName>(directory)?;
    chunks.retain(|(name, _)| matches!(name.state, ChunkState::Committed { .. }) && !name.recovery);
    Ok(chunks)
}

fn snapshots(directory: &Path) -> io::Result<Vec<(SnapshotName, PathBuf)>> {
    let mut snapshots = named::<SnapshotName>(directory)?;
    snapshots.retain(|(name, _)| name.is_committed);
    Ok(snapshots)
}

/// The files whose names are of this kind. A directory that is not there yet has none.
fn named<T: std::str::FromStr>(directory: &Path) -> io::Result<Vec<(T, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

/// The files of each chunk in these directories.
fn copies(directories: &[PathBuf]) -> io::Result<HashMap<ChunkName, Vec<PathBuf>>> {
    let mut copies: HashMap<_, Vec<_>> = HashMap::new();
    for directory in directories {
        for (name, path) in named(directory)? {
            copies.entry(name).or_default().push(path);
        }
    }
    Ok(copies)
}

/// Whether one of these files has the same bytes.
fn has_copy(path: &Path, copies: &[PathBuf]) -> io::Result<bool> {
    for copy in copies {
        let copy = match File::open(copy) {
            // A link to nothing, or removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            copy => copy?,
        };
        if is_same(File::open(path)?, copy)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_same(one: File, other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        if left.is_empty() || right.is_empty() {
            return Ok(left.len() == right.len());
        }
        let common = left.len().min(right.len());
        if left.get(..common) != right.get(..common) {
            return Ok(false);
        }
        one.consume(common);
        other.consume(common);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directories {
        _root: tempfile::TempDir,
        layout: DiskLayout,
    }

    impl Directories {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| {
                let path = root.path().join(name);
                fs::create_dir_all(&path).unwrap();
                path
            };
            let layout = DiskLayout {
                ledger: at("ledger"),
                read_only_ledgers: vec![at("old"), at("older")],
                snapshots: at("snapshots"),
                read_only_snapshots: Vec::new(),
                sealed: at("sealed"),
            };
            Self { _root: root, layout }
        }

        fn chunks(&self, names: &[&str]) {
            for name in names {
                fs::write(self.layout.ledger.join(name), name).unwrap();
            }
        }

        fn copies(&self, names: &[&str], number: usize) {
            for name in names {
                fs::write(self.layout.read_only_ledgers[number].join(name), name).unwrap();
            }
        }

        fn snapshots(&self, names: &[&str]) {
            for name in names {
                fs::write(self.layout.snapshots.join(name), "").unwrap();
            }
        }

        fn removed(&self, cleanup: FilesCleanup) -> Vec<String> {
            let removed = cleanup.remove_old(&self.layout).unwrap().removed;
            removed
                .iter()
                .map(|path| {
                    assert!(!path.exists());
                    path.file_name().unwrap().to_str().unwrap().to_owned()
                })
                .collect()
        }
    }

    const CHUNKS: [&str; 4] = [
        "ledger_1-9.committed",
        "ledger_10-19.committed",
        "ledger_20-101.committed",
        "ledger_102-110.committed",
    ];

    fn chunks(kept: usize) -> FilesCleanup {
        FilesCleanup { max_committed_chunks: Some(kept), ..FilesCleanup::default() }
    }

    #[test]
    fn the_newest_snapshots_are_kept() {
        let directories = Directories::new();
        directories.snapshots(&[
            "snapshot_9_11.committed",
            "snapshot_100_102.committed",
            "snapshot_20_22.committed",
            "snapshot_5_7",
            "notes.txt",
        ]);
        let two = FilesCleanup { max_snapshots: Some(2), ..FilesCleanup::default() };
        assert_eq!(directories.removed(two), ["snapshot_9_11.committed"]);
        assert!(directories.removed(two).is_empty());
        assert!(directories.removed(FilesCleanup::default()).is_empty());
    }

    #[test]
    fn a_chunk_goes_only_if_it_is_elsewhere() {
        let directories = Directories::new();
        directories.snapshots(&["snapshot_105_107.committed"]);
        directories.chunks(&CHUNKS);
        directories.chunks(&["ledger_111", "ledger_1-9.committed.ignored"]);
        let kept = chunks(1).remove_old(&directories.layout).unwrap();
        assert!(kept.removed.is_empty());
        assert_eq!(kept.without_copy, 3);
        directories.copies(&["ledger_10-19.committed"], 1);
        fs::write(directories.layout.read_only_ledgers[0].join(CHUNKS[0]), "another text of 20")
            .unwrap();
        fs::write(directories.layout.read_only_ledgers[0].join(CHUNKS[2]), "shorter").unwrap();
        assert_eq!(directories.removed(chunks(1)), ["ledger_10-19.committed"]);
        let to_nothing = directories.layout.read_only_ledgers[0].join(CHUNKS[2]);
        fs::remove_file(&to_nothing).unwrap();
        std::os::unix::fs::symlink("nowhere", to_nothing).unwrap();
        directories.copies(&CHUNKS, 1);
        assert_eq!(directories.removed(chunks(2)), ["ledger_1-9.committed"]);
        assert_eq!(directories.removed(chunks(1)), ["ledger_20-101.committed"]);
    }

    #[test]
    fn what_follows_the_newest_snapshot_is_kept() {
        let directories = Directories::new();
        directories.chunks(&CHUNKS);
        directories.copies(&CHUNKS, 0);
        assert!(directories.removed(chunks(1)).is_empty());
        directories.snapshots(&["snapshot_101_103.committed", "snapshot_500_502"]);
        assert_eq!(directories.removed(chunks(1)), CHUNKS[..2]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        let mut directories = Directories::new();
        directories.layout.snapshots.push("later");
        directories.layout.ledger.push("later");
        let both = FilesCleanup { max_snapshots: Some(1), ..chunks(1) };
        assert!(directories.removed(both).is_empty());
    }
}
