//! Finding and reading chunk files and secrets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use coco_kv::Seqno;
use coco_ledger::{
    ChunkEntry, ChunkName, ChunkReader, ChunkState, Entry, FIRST_ENTRY_OFFSET, LedgerSecret,
    LedgerSecrets,
};
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{LedgerArgs, SecretsArgs};
use crate::advice::advised;
use crate::service::read;

/// A chunk file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChunkFile {
    pub(super) name: ChunkName,
    pub(super) path: PathBuf,
    pub(super) len_bytes: u64,
}

impl LedgerArgs {
    /// The chunk files of all folders, by first entry. Of several with the same first entry it is the
    /// committed one, as for a node, else the longest, and that in the first folder.
    pub(super) fn chunks(&self) -> Result<Vec<ChunkFile>> {
        let mut chunks = Vec::new();
        for folder in &self.folders {
            find_chunks(folder, &mut chunks)
                .with_context(|| format!("{} cannot be read", folder.display()))?;
        }
        if chunks.is_empty() {
            let folders: Vec<String> =
                self.folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(advised(
                anyhow!("there is no ledger in {}", folders.join(", ")),
                "name the folder with files such as ledger_1-14.committed",
            ));
        }
        // The sort keeps the order of the folders.
        chunks.sort_by_key(|ChunkFile { name, .. }| {
            (name.start, name.recovery, !name.is_committed(), Reverse(name.end()))
        });
        chunks.dedup_by_key(|chunk| (chunk.name.start, chunk.name.recovery));
        Ok(chunks)
    }

    /// The names of everything in the folders.
    pub(super) fn file_names(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for folder in &self.folders {
            let unreadable = || format!("{} cannot be read", folder.display());
            for entry in fs::read_dir(folder).with_context(unreadable)? {
                let name = entry.with_context(unreadable)?.file_name();
                names.insert(name.to_string_lossy().into_owned());
            }
        }
        Ok(names.into_iter().collect())
    }
}

fn find_chunks(folder: &Path, chunks: &mut Vec<ChunkFile>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        // Files that a node set aside or sent in part, or that are none of the ledger's, are not part
        // of it.
        let Some(Ok(name)) = name.map(str::parse::<ChunkName>) else { continue };
        if matches!(name.state, ChunkState::CommittedPrefix { .. }) {
            continue;
        }
        let len_bytes = fs::metadata(&path)?.len();
        chunks.push(ChunkFile { name, path, len_bytes });
    }
    Ok(())
}

impl ChunkFile {
    /// The whole file: a chunk is some megabytes.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        fs::read(&self.path).with_context(|| format!("{} cannot be read", self.path.display()))
    }

    /// Calls `visit` with every entry in order, until it says that it has seen enough.
    pub(super) fn visit_entries(
        &self,
        visit: &mut dyn FnMut(ChunkEntry<'_>, &Entry<'_>) -> Result<Go>,
    ) -> Result<Go> {
        let bytes = self.read()?;
        if self.name.state == ChunkState::Open && (bytes.len() as u64) < FIRST_ENTRY_OFFSET {
            // It was only just created.
            return Ok(Go::On);
        }
        let at = |offset: u64| format!("{} at byte {offset}", self.path.display());
        let reader = match ChunkReader::new(self.name, &bytes) {
            // It was being completed: the entries are there, the positions table is not.
            Err(_) if !self.name.is_committed() => {
                ChunkReader::ignoring_table(self.name.with_state(ChunkState::Open), &bytes)
            }
            reader => reader.with_context(|| at(0))?,
        };
        let mut entries = reader.entries();
        loop {
            let (offset, _) = entries.next_position();
            let Some(found) = entries.next() else { return Ok(Go::On) };
            let found = found.with_context(|| at(offset))?;
            let entry = Entry::parse(found.bytes).with_context(|| at(offset))?;
            if let Go::Stop = visit(found, &entry).with_context(|| at(offset))? {
                return Ok(Go::Stop);
            }
        }
    }
}

/// Whether to see more entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Stop,
}

#[derive(Deserialize)]
struct SecretsFile {
    periods: BTreeMap<u64, Hex>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Hex(String);

impl SecretsArgs {
    /// The secrets, if a file with them is named.
    pub(super) fn load(&self) -> Result<Option<LedgerSecrets>> {
        let Some(file) = &self.secrets else { return Ok(None) };
        let text = Zeroizing::new(read(file)?);
        let not_secrets = || format!("{} holds no ledger secrets", file.display());
        let parsed: SecretsFile = serde_json::from_str(&text).with_context(not_secrets)?;
        let mut secrets = LedgerSecrets::new();
        for (seqno, hex) in &parsed.periods {
            let mut raw = Zeroizing::new([0; 32]);
            hex::decode_to_slice(hex.0.as_bytes(), &mut raw[..])
                .map_err(|_| anyhow!("the secret from {seqno} on is not 64 hex digits"))
                .with_context(not_secrets)?;
            secrets.insert(Seqno(*seqno), LedgerSecret::new(*raw));
        }
        ensure!(!secrets.is_empty(), not_secrets());
        Ok(Some(secrets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_in_several_folders_is_one() {
        let (main, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (old, new) = ("ledger_1-5.committed", "ledger_6");
        for (folder, names) in [(&main, vec![old, new, "ledger_9.ignored"]), (&archive, vec![old])]
        {
            names.iter().for_each(|name| fs::write(folder.path().join(name), name).unwrap());
        }
        let folders = vec![main.path().to_owned(), archive.path().to_owned()];
        let chunks = LedgerArgs { folders }.chunks().unwrap();
        let paths: Vec<_> = chunks.into_iter().map(|chunk| chunk.path).collect();
        assert_eq!(paths, [main.path().join(old), main.path().join(new)]);
    }

    #[test]
    fn of_several_states_of_a_chunk_the_committed_one_is_read_or_else_the_longest() {
        let (main, archive) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (committed, complete) = ("ledger_1-21.committed", "ledger_22-40");
        let archived = ["ledger_1-21", "ledger_1", "ledger_22", "ledger_22-30.committed_prefix"];
        for (folder, names) in [(&main, &[committed, complete][..]), (&archive, &archived)] {
            names.iter().for_each(|name| fs::write(folder.path().join(name), name).unwrap());
        }
        let expected = [main.path().join(committed), main.path().join(complete)];
        for folders in [[&archive, &main], [&main, &archive]] {
            let folders = folders.iter().map(|folder| folder.path().to_owned()).collect();
            let chunks = LedgerArgs { folders }.chunks().unwrap();
            let paths: Vec<_> = chunks.into_iter().map(|chunk| chunk.path).collect();
            assert_eq!(paths, expected);
        }
    }

    #[test]
    fn a_chunk_that_was_only_created_has_no_entries() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ledger_1"), [0; 7]).unwrap();
        let chunks = LedgerArgs { folders: vec![folder.path().to_owned()] }.chunks().unwrap();
        let visited = chunks[0].visit_entries(&mut |_, _| panic!("an entry"));
        assert_eq!(visited.unwrap(), Go::On);
    }
}
