//! Ledger chunks read back from the host's disk.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use coco_kv::Seqno;
use coco_ledger::tables::{COSE_SIGNATURES, SIGNATURES};
use coco_ledger::{ChunkError, ChunkName, ChunkReader, ChunkState, Entry, EntryError, MerkleTree};
use coco_ledger::{SignatureError, SignatureTransaction, TreeError};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::disk::read_file;
use crate::host::{Area, Host};

/// A file larger than this is not one of ours: positions in a chunk have 32 bits.
const MAX_CHUNK_BYTES: u64 = (4 << 30) + (4 << 30);
/// Tries to read a file that is renamed while it is looked for.
const MAX_READ_TRIES: usize = 5;
/// Chunks that are read at a time.
const MAX_READS_AT_ONCE: usize = 4;

/// An entry cannot be had from the disk, or is not what was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the ledger cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("no ledger file holds {0}")]
    NoChunk(Seqno),
    #[error("{file} is not a ledger chunk: {fault}")]
    Chunk { file: ChunkName, fault: ChunkError },
    #[error("{file} ends before {seqno}, which is committed")]
    Short { file: ChunkName, seqno: Seqno },
    #[error("{file} is {bytes} bytes long, more than any chunk")]
    TooLong { file: ChunkName, bytes: u64 },
    #[error("entry {seqno} at offset {offset} of {file} is damaged: {fault}")]
    Entry { file: ChunkName, offset: u64, seqno: Seqno, fault: EntryError },
    #[error("entry {seqno} at offset {offset} of {file} is not the one that was signed")]
    NotSigned { file: ChunkName, offset: u64, seqno: Seqno },
    #[error("what stands in the files at {0} or after it is of another view")]
    OtherView(Seqno),
    #[error("no signature follows {seqno} in {file}")]
    NoSignature { file: ChunkName, seqno: Seqno },
    #[error("the signature at {seqno} in {file} is damaged: {fault}")]
    Signature { file: ChunkName, seqno: Seqno, fault: SignatureError },
    #[error("the Merkle tree at {seqno} in {file} is damaged: {fault}")]
    Tree { file: ChunkName, seqno: Seqno, fault: TreeError },
    #[error("the signature at {seqno} in {file} does not verify: {fault}")]
    NotVerified { file: ChunkName, seqno: Seqno, fault: coco_ledger::ReceiptError },
    #[error("entry {0} cannot be proven: {1}")]
    Proof(Seqno, EntryError),
    #[error("the range holds more than {limit_bytes} bytes")]
    TooMuch { limit_bytes: u64 },
    #[error("no view is known of {0}")]
    NoView(Seqno),
}

/// A chunk in memory.
pub(crate) struct LoadedChunk {
    pub name: ChunkName,
    bytes: Bytes,
    /// Offset and length of each entry.
    entries: Vec<(usize, usize)>,
    /// Signatures that have been verified, by seqno.
    pub verified: Mutex<HashMap<Seqno, Arc<VerifiedSignature>>>,
}

/// A signature transaction whose signatures have been verified, and its tree.
pub(crate) struct VerifiedSignature {
    pub signature: Arc<SignatureTransaction>,
    pub tree: MerkleTree,
}

impl LoadedChunk {
    pub fn new(name: ChunkName, bytes: Bytes) -> Result<Self, FetchError> {
        let damaged = |fault| FetchError::Chunk { file: name, fault };
        let reader = ChunkReader::new(name, &bytes).map_err(damaged)?;
        let mut entries = Vec::new();
        for entry in reader.entries() {
            match entry {
                Ok(entry) => {
                    let offset = usize::try_from(entry.offset).unwrap_or(usize::MAX);
                    entries.push((offset, entry.bytes.len()));
                }
                // Entries that are just being written may follow.
                Err(_) if name.state == ChunkState::Open => break,
                Err(fault) => return Err(damaged(fault)),
            }
        }
        Ok(Self { name, bytes, entries, verified: Mutex::default() })
    }

    /// The bytes of an entry, and where they begin in the file.
    pub fn entry(&self, seqno: Seqno) -> Result<(Bytes, u64), FetchError> {
        let short = FetchError::Short { file: self.name, seqno };
        let at = seqno.0.checked_sub(self.name.start.0).and_then(|at| usize::try_from(at).ok());
        let Some((offset, length)) = at.and_then(|at| self.entries.get(at)).copied() else {
            return Err(short);
        };
        Ok((self.bytes.slice(offset..offset + length), offset as u64))
    }

    pub fn parse<'a>(
        &self,
        seqno: Seqno,
        (bytes, offset): &'a (Bytes, u64),
    ) -> Result<Entry<'a>, FetchError> {
        let (file, offset) = (self.name, *offset);
        Entry::parse(bytes).map_err(|fault| FetchError::Entry { file, offset, seqno, fault })
    }

    /// The first signature transaction at or after `seqno`.
    pub fn signature_at_or_after(&self, seqno: Seqno) -> Result<Seqno, FetchError> {
        let end = self.name.start.0 + self.entries.len() as u64;
        for candidate in (seqno.0..end).map(Seqno) {
            let located = self.entry(candidate)?;
            if is_signature(&self.parse(candidate, &located)?) {
                return Ok(candidate);
            }
        }
        Err(FetchError::NoSignature { file: self.name, seqno })
    }

    /// The last entry; the one before the first if there is none.
    pub fn last(&self) -> Seqno {
        Seqno((self.name.start.0 + self.entries.len() as u64).saturating_sub(1))
    }

    fn covers(&self, seqno: Seqno) -> bool {
        let end = self.name.start.0 + self.entries.len() as u64;
        (self.name.start.0..end).contains(&seqno.0)
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

fn is_signature(entry: &Entry<'_>) -> bool {
    entry.public_blocks().map_while(Result::ok).any(|block| {
        let name: &str = block.name;
        name == SIGNATURES || name == COSE_SIGNATURES
    })
}

/// The chunks used last, up to a number of bytes; at least one.
struct ChunkCache {
    chunks: VecDeque<Arc<LoadedChunk>>,
    limit_bytes: u64,
}

impl ChunkCache {
    fn new(limit_bytes: u64) -> Self {
        Self { chunks: VecDeque::new(), limit_bytes }
    }

    fn holding(&mut self, seqno: Seqno) -> Option<Arc<LoadedChunk>> {
        let at = self.chunks.iter().position(|chunk| chunk.covers(seqno))?;
        let chunk = self.chunks.remove(at)?;
        self.chunks.push_back(Arc::clone(&chunk));
        Some(chunk)
    }

    fn insert(&mut self, chunk: Arc<LoadedChunk>) {
        self.chunks.retain(|other| other.name.start != chunk.name.start);
        self.chunks.push_back(chunk);
        let mut bytes: u64 = self.chunks.iter().map(|chunk| chunk.size()).sum();
        while bytes > self.limit_bytes && self.chunks.len() > 1 {
            bytes -= self.chunks.pop_front().map_or(0, |chunk| chunk.size());
        }
    }
}

/// The ledger's chunks, read when they are asked for. A chunk is read once for all who ask for it
/// meanwhile, and no more than a few are read at a time: each is in memory before its size counts
/// towards the cache's limit.
pub(crate) struct Chunks {
    cache: Mutex<ChunkCache>,
    /// Committed chunks as they were listed last: such a file stays what it is until it is removed.
    listed: Mutex<Vec<ChunkName>>,
    reads: Semaphore,
    /// Held by whoever reads the chunk that begins there.
    reading: Mutex<HashMap<Seqno, Weak<AsyncMutex<()>>>>,
}

impl Chunks {
    /// At most about `limit_bytes` of chunks are kept, and the last one in any case.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            cache: Mutex::new(ChunkCache::new(limit_bytes)),
            listed: Mutex::default(),
            reads: Semaphore::new(MAX_READS_AT_ONCE),
            reading: Mutex::default(),
        }
    }

    /// Forgets what was read: the files are others now.
    pub fn clear(&self) {
        self.cache.lock().chunks.clear();
        self.listed.lock().clear();
    }

    /// The chunk that holds `seqno` with the signature after it, both of which are committed.
    pub async fn load(
        &self,
        host: &dyn Host,
        seqno: Seqno,
    ) -> Result<Arc<LoadedChunk>, FetchError> {
        if let Some(chunk) = self.cached(seqno) {
            return Ok(chunk);
        }
        let mut tries = 0;
        loop {
            match self.read(host, seqno).await {
                Err(FetchError::Io(error))
                    if error.kind() == io::ErrorKind::NotFound && tries < MAX_READ_TRIES =>
                {
                    self.listed.lock().clear();
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    /// Keeps a part of the ledger that was read elsewhere.
    pub fn keep(&self, chunk: Arc<LoadedChunk>) {
        self.cache.lock().insert(chunk);
    }

    /// The chunk that holds `seqno` and the signature after it, if it is in memory.
    pub fn cached(&self, seqno: Seqno) -> Option<Arc<LoadedChunk>> {
        let chunk = self.cache.lock().holding(seqno)?;
        // An open chunk may have grown since.
        let is_whole = chunk.name.state != ChunkState::Open;
        (is_whole || chunk.signature_at_or_after(seqno).is_ok()).then_some(chunk)
    }

    async fn read(&self, host: &dyn Host, seqno: Seqno) -> Result<Arc<LoadedChunk>, FetchError> {
        let name = self.locate(host, seqno).await?;
        let reader = self.reader(name.start);
        let _alone = reader.lock().await;
        // Whoever was before us may have read what we need.
        if let Some(chunk) = self.cached(seqno) {
            return Ok(chunk);
        }
        // It is never closed.
        let _permit = self.reads.acquire().await;
        let bytes = read_file(host, Area::Ledger, &name.to_string(), MAX_CHUNK_BYTES).await?;
        let bytes = bytes.ok_or(FetchError::TooLong { file: name, bytes: MAX_CHUNK_BYTES })?;
        let chunk = Arc::new(LoadedChunk::new(name, bytes.into())?);
        self.cache.lock().insert(Arc::clone(&chunk));
        Ok(chunk)
    }

    async fn locate(&self, host: &dyn Host, seqno: Seqno) -> Result<ChunkName, FetchError> {
        if let Some(name) = holding(&self.listed.lock(), seqno) {
            return Ok(name);
        }
        let files = host.disk().list(Area::Ledger).await?;
        let mut names: Vec<ChunkName> =
            files.iter().filter_map(|it| it.name.parse().ok()).collect();
        let found = holding(&names, seqno);
        names.retain(|name| name.is_committed());
        *self.listed.lock() = names;
        found.ok_or(FetchError::NoChunk(seqno))
    }

    fn reader(&self, start: Seqno) -> Arc<AsyncMutex<()>> {
        let mut reading = self.reading.lock();
        if let Some(reader) = reading.get(&start).and_then(Weak::upgrade) {
            return reader;
        }
        reading.retain(|_, reader| reader.strong_count() > 0);
        let reader = Arc::new(AsyncMutex::new(()));
        reading.insert(start, Arc::downgrade(&reader));
        reader
    }
}

/// Of a chunk that is in several directories, the committed one; an open one only if no other.
fn holding(names: &[ChunkName], seqno: Seqno) -> Option<ChunkName> {
    let holds =
        |name: &&ChunkName| name.start <= seqno && name.end().is_none_or(|end| seqno <= end);
    names.iter().filter(holds).max_by_key(|name| (name.start, name.is_committed())).copied()
}
