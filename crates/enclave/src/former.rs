//! What a former node has left in the directory of the ledger, for one that joins there.
//!
//! ```text
//!   before it joins      chunks in order ─▶ each leaf and each signed root agree ─▶ one run
//!   when the log asks    last signature that the service has, byte by byte ─▶ end of what is kept
//! ```
//! A signature transaction carries the root over everything before it. So a run that agrees with
//! itself, and ends with a signature transaction that is on the service's ledger, is a part of that
//! ledger. What does not fit is set aside, and never read again.

use std::io;

use coco_kv::{Seqno, TxId};
use coco_ledger::{
    ChunkError, ChunkName, ChunkReader, ChunkState, Entry, EntryError, FileOperation, MerkleTree,
    Resumed, SignatureError, SignatureTransaction, TreeError, recover_open_chunk,
};

use crate::disk::{read_file, set_aside, submit};
use crate::host::{Area, DiskOp, FileEntry, Host};
use crate::ledger_files::disk_operations;
use crate::offload::offload;

/// A chunk larger than this is not one of ours: positions in it have 32 bits.
const MAX_CHUNK_BYTES: u64 = 8 << 30;

/// Consecutive chunks that agree with each other.
pub(crate) struct FormerLedger {
    chunks: Vec<FormerChunk>,
}

struct FormerChunk {
    name: ChunkName,
    /// Its last entry, a signature transaction.
    last: TxId,
    /// Its signature transactions.
    signatures: Vec<Seqno>,
    /// The tree up to its last entry, without leaves before that.
    tree: MerkleTree,
    /// It has all the entries that its name promises, and the table of their positions.
    is_whole: bool,
    /// Where the entries begin, and where the last one ends, of one that is not named committed.
    positions: Vec<u32>,
    end_offset: u64,
    /// What makes the file end with its last signature.
    repair: Vec<FileOperation>,
}

/// What is kept of the files.
pub(crate) struct Kept {
    pub files: Resumed,
    /// The tree up to the last entry in them.
    pub tree: MerkleTree,
}

/// A chunk does not agree with itself or with those before it.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the disk failed: {0}")]
    Io(#[from] io::Error),
    #[error("it is longer than {MAX_CHUNK_BYTES} bytes")]
    TooLong,
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error(transparent)]
    Open(#[from] coco_ledger::RecoverError),
    #[error("entry {0}: {1}")]
    Entry(Seqno, EntryError),
    #[error("entry {expected} says that it is {found}")]
    Seqno { expected: Seqno, found: TxId },
    #[error("the signature at {0}: {1}")]
    Signature(Seqno, SignatureError),
    #[error("the tree at {0}: {1}")]
    Tree(Seqno, TreeError),
    #[error("the root that is signed at {0} is another one")]
    Root(Seqno),
    #[error("it does not end with a signature")]
    Unsigned,
}

impl FormerLedger {
    /// Reads what is in the directory and sets aside what does not belong to the run that begins
    /// with the first chunk; none if nothing is left.
    pub async fn find(host: &dyn Host) -> io::Result<Option<Self>> {
        let files = host.disk().list(Area::Ledger).await?;
        let mut names: Vec<ChunkName> = files
            .iter()
            .filter(|file| !file.read_only)
            .filter_map(|file| file.name.parse().ok())
            .collect();
        // Of several with one start the committed one first, then the longest.
        names.sort_by_key(|name| {
            (name.recovery, name.start, !name.is_committed(), std::cmp::Reverse(name.end()))
        });
        let mut run = Self { chunks: Vec::new() };
        let mut others = Vec::new();
        for name in names {
            if name.recovery || !run.goes_on_with(name) {
                others.push(name);
                continue;
            }
            match run.read(host, name).await {
                Ok(chunk) => run.chunks.push(chunk),
                Err(Fault::Io(error)) => return Err(error),
                Err(fault) => {
                    tracing::warn!(file = %name, %fault, "a ledger file of a former node");
                    others.push(name);
                }
            }
        }
        move_aside(host, &files, others).await?;
        Ok((!run.chunks.is_empty()).then_some(run))
    }

    /// The first entry.
    pub fn start(&self) -> Seqno {
        self.chunks.first().map_or(Seqno(0), |chunk| chunk.name.start)
    }

    /// The signature transactions, in order.
    pub fn signatures(&self) -> Vec<Seqno> {
        self.chunks.iter().flat_map(|chunk| chunk.signatures.iter().copied()).collect()
    }

    /// Keeps the chunks that end at or before `end`, and sets the others aside; none if there are
    /// no such.
    pub async fn keep_to(&self, host: &dyn Host, end: Seqno) -> io::Result<Option<Kept>> {
        let files = host.disk().list(Area::Ledger).await?;
        let split = self.chunks.partition_point(|chunk| chunk.last.seqno <= end);
        let (kept, others) = self.chunks.split_at_checked(split).unwrap_or_default();
        move_aside(host, &files, others.iter().map(|chunk| chunk.name).collect()).await?;
        let Some(last) = kept.last() else { return Ok(None) };
        let mut resumed =
            Resumed { last: last.last.seqno, committed: last.last.seqno, ..Resumed::default() };
        let mut operations = Vec::new();
        for chunk in kept.iter().filter(|chunk| !chunk.name.is_committed()) {
            let (positions, end_offset) = (chunk.positions.clone(), chunk.end_offset);
            if chunk.is_whole {
                resumed.complete.push((chunk.name, positions, end_offset));
                continue;
            }
            let open = chunk.name.with_state(ChunkState::Open);
            if open != chunk.name {
                let (from, to) = (chunk.name.to_string(), open.to_string());
                operations.push(DiskOp::Rename { from, to });
            }
            operations.extend(disk_operations(chunk.repair.clone()));
            resumed.open = Some((open, positions, end_offset));
        }
        submit(host, Area::Ledger, operations).await?;
        Ok(Some(Kept { files: resumed, tree: last.tree.clone() }))
    }

    /// Whether a chunk of this name follows; nothing follows one that was in use.
    fn goes_on_with(&self, name: ChunkName) -> bool {
        let follows = |last: &FormerChunk| last.is_whole && name.start == last.last.seqno.next();
        self.chunks.last().is_none_or(follows)
    }

    async fn read(&self, host: &dyn Host, name: ChunkName) -> Result<FormerChunk, Fault> {
        let bytes = read_file(host, Area::Ledger, &name.to_string(), MAX_CHUNK_BYTES).await?;
        let bytes = bytes.ok_or(Fault::TooLong)?;
        let before = self.chunks.last().map(|last| last.tree.clone());
        offload(move || FormerChunk::check(name, &bytes, before)).await?
    }
}

impl FormerChunk {
    /// Reads a chunk that follows the last leaf of `tree`; the first one begins with the tree that
    /// its own first signature has.
    fn check(name: ChunkName, file: &[u8], before: Option<MerkleTree>) -> Result<Self, Fault> {
        let mut chunk = Self {
            name,
            last: TxId::default(),
            signatures: Vec::new(),
            tree: MerkleTree::new(),
            is_whole: name.is_committed(),
            positions: Vec::new(),
            end_offset: coco_ledger::FIRST_ENTRY_OFFSET,
            repair: Vec::new(),
        };
        let entries = chunk.entries(file)?;
        chunk.tree = match before {
            Some(tree) => tree,
            None => tree_before(name.start, &entries)?,
        };
        for (seqno, entry) in (name.start.0..).map(Seqno).zip(&entries) {
            chunk.entry(seqno, entry)?;
        }
        if chunk.signatures.last() != Some(&chunk.last.seqno) {
            return Err(Fault::Unsigned);
        }
        chunk.tree.flush_to(chunk.last.seqno.0);
        Ok(chunk)
    }

    /// The entries; of a chunk that is not named committed those up to its last signature.
    fn entries<'a>(&mut self, file: &'a [u8]) -> Result<Vec<&'a [u8]>, Fault> {
        let named: Result<Vec<_>, ChunkError> = ChunkReader::new(self.name, file)
            .and_then(|chunk| chunk.entries().map(|entry| Ok(entry?.bytes)).collect());
        if self.name.is_committed() {
            return Ok(named?);
        }
        let open = self.name.with_state(ChunkState::Open);
        // What is cut off here, however much it is, comes from other nodes.
        let recovered = recover_open_chunk(open, file, None, usize::MAX)?;
        self.is_whole = self.name.end().is_some()
            && named.is_ok_and(|named| named.len() == recovered.positions.len());
        let ends = recovered.positions.iter().skip(1).map(|at| u64::from(*at));
        let ends = ends.chain([recovered.end_offset]);
        let entry = |(start, end): (&u32, u64)| {
            let range = usize::try_from(*start).ok()?..usize::try_from(end).ok()?;
            file.get(range)
        };
        let entries = recovered.positions.iter().zip(ends).filter_map(entry).collect();
        (self.end_offset, self.repair) = (recovered.end_offset, recovered.repair());
        self.positions = recovered.positions;
        Ok(entries)
    }

    fn entry(&mut self, seqno: Seqno, bytes: &[u8]) -> Result<(), Fault> {
        let entry = Entry::parse(bytes).map_err(|error| Fault::Entry(seqno, error))?;
        let found = entry.tx_id();
        if found.seqno != seqno || found.view < self.last.view {
            return Err(Fault::Seqno { expected: seqno, found });
        }
        if let Some(signature) = signature_of(seqno, &entry)? {
            let root = self.tree.root();
            let is_signed = signature.node.is_none_or(|node| node.root == root);
            if !is_signed || tree_of(seqno, &signature.tree)?.root() != root {
                return Err(Fault::Root(seqno));
            }
            self.signatures.push(seqno);
        }
        self.tree.append(entry.leaf());
        self.last = found;
        Ok(())
    }
}

fn signature_of(seqno: Seqno, entry: &Entry<'_>) -> Result<Option<SignatureTransaction>, Fault> {
    let writes = entry.public_writes().map_err(|error| Fault::Entry(seqno, error))?;
    SignatureTransaction::parse(&writes).map_err(|error| Fault::Signature(seqno, error))
}

fn tree_of(seqno: Seqno, bytes: &[u8]) -> Result<MerkleTree, Fault> {
    MerkleTree::parse(bytes).map_err(|error| Fault::Tree(seqno, error))
}

/// The tree up to the entry before `start`, as the first signature has it.
fn tree_before(start: Seqno, entries: &[&[u8]]) -> Result<MerkleTree, Fault> {
    for (seqno, bytes) in (start.0..).map(Seqno).zip(entries) {
        let entry = Entry::parse(bytes).map_err(|error| Fault::Entry(seqno, error))?;
        if let Some(signature) = signature_of(seqno, &entry)? {
            let mut tree = tree_of(seqno, &signature.tree)?;
            return tree.retract_to(start.0).then_some(tree).ok_or(Fault::Root(seqno));
        }
    }
    Err(Fault::Unsigned)
}

/// Finds how many of so many positions two ledgers share, which are the first ones. What differs is
/// mostly short, so that the search begins at the end.
#[derive(Debug)]
pub(crate) struct ForkSearch {
    /// The positions before this one are shared.
    low: usize,
    /// Those from this one on are not.
    high: usize,
    step: usize,
}

impl ForkSearch {
    pub fn among(count: usize) -> Self {
        Self { low: 0, high: count, step: 1 }
    }

    /// The position to be compared next; none once the answer is known.
    pub fn guess(&self) -> Option<usize> {
        let guess = match self.low {
            0 => self.high.saturating_sub(self.step),
            low => low + (self.high - low) / 2,
        };
        (self.low < self.high).then_some(guess)
    }

    /// Whether the position that was guessed is shared.
    pub fn tell(&mut self, is_shared: bool) {
        match (self.guess(), is_shared) {
            (Some(guess), true) => self.low = guess + 1,
            (Some(guess), false) => {
                self.high = guess;
                self.step = self.step.saturating_mul(2);
            }
            (None, _) => {}
        }
    }

    /// How many are shared.
    pub fn shared(&self) -> usize {
        self.low
    }
}

async fn move_aside(host: &dyn Host, files: &[FileEntry], names: Vec<ChunkName>) -> io::Result<()> {
    let aside = |name: &ChunkName| {
        tracing::warn!(file = %name, "set aside: not a part of the ledger that goes on here");
        set_aside(&name.to_string(), files)
    };
    let renames: Vec<_> = names.iter().map(aside).collect();
    match renames.is_empty() {
        true => Ok(()),
        false => submit(host, Area::Ledger, renames).await,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ForkSearch;

    proptest! {
        #[test]
        fn the_fork_is_found_and_soon_if_it_is_near_the_end(
            (count, shared) in (0..100_000_usize).prop_flat_map(|count| (Just(count), 0..=count)),
        ) {
            let mut fork = ForkSearch::among(count);
            let mut guesses = 0;
            while let Some(guess) = fork.guess() {
                prop_assert!(guess < count);
                fork.tell(guess < shared);
                guesses += 1;
            }
            prop_assert_eq!(fork.shared(), shared);
            let differ = (count - shared).max(1);
            prop_assert!(guesses <= 2 * (differ.ilog2() + 1) + 1, "{} of {}", guesses, differ);
        }
    }
}
