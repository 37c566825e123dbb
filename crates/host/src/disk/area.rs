//! The files of one area, as its thread sees them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coco_enclave::host::{DiskOp, FileEntry};

use super::direct::DirectFile;
use super::extent::Extent;
use super::worker::same_error;
use crate::HostError;

/// Files kept open for writing.
const MAX_OPEN: usize = 16;

/// What is written at a time to fill a file with zeros.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// An area's directories and what was changed there since the last sync.
pub(crate) struct AreaFiles {
    directory: PathBuf,
    read_only: Vec<PathBuf>,
    /// Held for its lock.
    _lock: Option<File>,
    open: HashMap<String, OpenFile>,
    /// Counts changes of names, before each is made; and how many of them are synced.
    name_changes: Arc<AtomicU64>,
    synced_name_changes: u64,
    /// The input/output error after which nothing is written any more.
    broken: Option<io::Error>,
}

struct OpenFile {
    file: File,
    extent: Extent,
    changed: Changed,
    direct: Direct,
}

enum Direct {
    Untried,
    Open(DirectFile),
    /// The file system cannot.
    Refused,
}

impl OpenFile {
    fn new(file: File, len_bytes: u64, changed: Changed) -> Self {
        Self { file, extent: Extent::of(len_bytes), changed, direct: Direct::Untried }
    }

    fn mark(&mut self, changed: Changed) {
        self.changed = self.changed.max(changed);
        if let Direct::Open(direct) = &mut self.direct {
            direct.forget();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Changed {
    Nothing,
    /// Bytes within blocks that exist already, or an appended length: `fdatasync` does.
    Data,
    /// The file is new or was cut.
    Metadata,
}

impl AreaFiles {
    /// An area in a directory that need not exist yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            read_only: Vec::new(),
            _lock: None,
            open: HashMap::new(),
            name_changes: Arc::default(),
            synced_name_changes: 0,
            broken: None,
        }
    }

    /// The same area with more directories to read from.
    pub(crate) fn with_read_only(self, read_only: Vec<PathBuf>) -> Self {
        Self { read_only, ..self }
    }

    /// An area whose directory is created and locked, with more directories to read from.
    pub(crate) fn locked(directory: PathBuf, read_only: Vec<PathBuf>) -> Result<Self, HostError> {
        let refused = |source| HostError::Directory { path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(refused)?;
        let lock = File::open(&directory).map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HostError::LedgerInUse(directory)),
            Err(TryLockError::Error(source)) => return Err(refused(source)),
        }
        Ok(Self { _lock: Some(lock), ..Self::new(directory).with_read_only(read_only) })
    }

    /// Makes a change visible to reads; [`sync`](Self::sync) makes it durable.
    pub(crate) fn carry_out(&mut self, op: DiskOp) -> io::Result<()> {
        if let Some(error) = &self.broken {
            return Err(same_error(error));
        }
        match op {
            DiskOp::Create { name } => self.create(&name),
            DiskOp::Write { name, offset, bytes } => {
                let len_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.write(&name, offset, len_bytes, |open, end| {
                    open.extent = open.extent.written_to(end);
                    open.file.write_all_at(&bytes, offset)
                })
            }
            DiskOp::WriteZeros { name, offset, len_bytes } => {
                self.write(&name, offset, len_bytes, |open, end| {
                    open.extent = open.extent.zeroed(offset, end);
                    write_zeros(&open.file, offset, len_bytes)
                })
            }
            DiskOp::Truncate { name, len_bytes } => self.truncate(&name, len_bytes),
            DiskOp::Rename { from, to } => self.rename(&from, &to),
            DiskOp::Remove { name } => self.remove(&name),
        }
    }

    /// Writes so that the bytes survive a power cut at once. False: not in this place; write and
    /// sync do.
    pub(crate) fn write_durably(
        &mut self,
        name: &str,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<bool> {
        if let Some(error) = &self.broken {
            return Err(same_error(error));
        }
        let (path, names_changed) = (self.path(name)?, self.names_changed());
        let open = self.writable(name)?;
        // The bytes are worth as much as the names and lengths that lead to them.
        if names_changed || open.changed != Changed::Nothing {
            return Ok(false);
        }
        if let Direct::Untried = open.direct {
            open.direct = DirectFile::open(&path).map_or(Direct::Refused, Direct::Open);
        }
        let Direct::Open(direct) = &mut open.direct else { return Ok(false) };
        let written = direct.write(&open.file, open.extent, offset, bytes);
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::InvalidInput) {
            // Opened, and refused only now: larger blocks, or none.
            open.direct = Direct::Refused;
            return Ok(false);
        }
        match &written {
            Ok(true) => {
                let end = offset.saturating_add(bytes.len() as u64);
                open.extent = open.extent.written_to(end);
            }
            Ok(false) => {}
            Err(error) => self.broken = Some(same_error(error)),
        }
        written
    }

    /// Makes every change so far survive a power cut.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if let Some(error) = &self.broken {
            return Err(same_error(error));
        }
        let synced = self.sync_changed();
        self.break_on_error(synced)
    }

    /// The file of this name, in the first directory that has it.
    pub(crate) fn open_to_read(&self, name: &str) -> io::Result<File> {
        let name = file_name(name)?;
        let mut last = Err(io::Error::from(io::ErrorKind::NotFound));
        for directory in self.directories() {
            last = File::open(directory.join(name));
            if !matches!(&last, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
        }
        last
    }

    /// What is to be listed. Names change only in a turn, and this is one: the count is of before.
    pub(crate) fn listing(&self) -> Listing {
        Listing {
            directories: self.directories().map(Path::to_owned).collect(),
            seen: self.name_changes.load(Ordering::SeqCst),
            name_changes: Arc::clone(&self.name_changes),
        }
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.directory).chain(&self.read_only).map(PathBuf::as_path)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        fs::create_dir_all(&self.directory)?;
        self.count_name_change();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        self.keep_open(name, OpenFile::new(file, 0, Changed::Metadata))
    }

    fn write(
        &mut self,
        name: &str,
        offset: u64,
        len_bytes: u64,
        write: impl FnOnce(&mut OpenFile, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.checked_add(len_bytes).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a file cannot be this long")
        })?;
        let open = self.writable(name)?;
        if len_bytes == 0 {
            // Nor does it make the file longer.
            return Ok(());
        }
        open.mark(Changed::Data);
        let written = write(open, end);
        self.break_on_error(written)
    }

    fn truncate(&mut self, name: &str, len_bytes: u64) -> io::Result<()> {
        let open = self.writable(name)?;
        if open.extent.len_bytes < len_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file is shorter already"));
        }
        open.mark(Changed::Metadata);
        open.extent = open.extent.cut_to(len_bytes);
        let cut = open.file.set_len(len_bytes);
        self.break_on_error(cut)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (source, target) = (self.path(from)?, self.path(to)?);
        // Nobody else writes here, so that nothing comes between the check and the rename.
        if fs::symlink_metadata(&target).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.count_name_change();
        fs::rename(source, target)?;
        if let Some(open) = self.open.remove(from) {
            self.open.insert(to.to_owned(), open);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        self.count_name_change();
        fs::remove_file(path)?;
        self.open.remove(name);
        Ok(())
    }

    fn names_changed(&self) -> bool {
        self.name_changes.load(Ordering::SeqCst) != self.synced_name_changes
    }

    fn count_name_change(&self) {
        self.name_changes.fetch_add(1, Ordering::SeqCst);
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.directory.join(file_name(name)?))
    }

    fn writable(&mut self, name: &str) -> io::Result<&mut OpenFile> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().read(true).write(true).open(self.path(name)?)?;
            let len_bytes = file.metadata()?.len();
            self.keep_open(name, OpenFile::new(file, len_bytes, Changed::Nothing))?;
        }
        self.open.get_mut(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Keeps a file open, closing others when there are too many. A closed one is synced first:
    /// a later sync could not reach it.
    fn keep_open(&mut self, name: &str, file: OpenFile) -> io::Result<()> {
        if self.open.len() >= MAX_OPEN {
            let synced = self.sync_changed();
            self.break_on_error(synced)?;
            self.open.clear();
        }
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn sync_changed(&mut self) -> io::Result<()> {
        for open in self.open.values_mut() {
            match open.changed {
                Changed::Nothing => {}
                Changed::Data => open.file.sync_data()?,
                Changed::Metadata => open.file.sync_all()?,
            }
            open.changed = Changed::Nothing;
        }
        if self.names_changed() {
            File::open(&self.directory)?.sync_all()?;
            self.synced_name_changes = self.name_changes.load(Ordering::SeqCst);
        }
        Ok(())
    }

    fn break_on_error(&mut self, result: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &result {
            self.broken = Some(same_error(error));
        }
        result
    }
}

/// The files of an area, to be listed on any thread: with many files that takes long.
pub(crate) struct Listing {
    /// The area's own, and the read-only ones.
    directories: Vec<PathBuf>,
    seen: u64,
    name_changes: Arc<AtomicU64>,
}

impl Listing {
    /// All files; one that lies in several directories is named once, from the first.
    pub(crate) fn files(&self) -> io::Result<Vec<FileEntry>> {
        let mut entries: HashMap<String, FileEntry> = HashMap::new();
        for (at, directory) in self.directories.iter().enumerate() {
            let read_only = at > 0;
            let listed = match fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && !read_only => continue,
                listed => listed?,
            };
            for entry in listed {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                // Follows links: mounted volumes are often made of them.
                let Ok(metadata) = fs::metadata(entry.path()) else { continue };
                if metadata.is_file() {
                    let len_bytes = metadata.len();
                    entries.entry(name.clone()).or_insert(FileEntry { name, len_bytes, read_only });
                }
            }
        }
        Ok(entries.into_values().collect())
    }

    /// Whether no name has changed since: a file that is renamed meanwhile may not be seen at all.
    pub(crate) fn is_current(&self) -> bool {
        self.name_changes.load(Ordering::SeqCst) == self.seen
    }
}

/// Up to `len_bytes` bytes from `offset`.
pub(crate) fn read_range(mut file: File, offset: u64, len_bytes: u64) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(offset).min(len_bytes);
    // Room that is not zeroed first: the allocator would do that by giving its pages away.
    let mut bytes = Vec::new();
    let room = usize::try_from(there).map_err(io::Error::other)?;
    bytes.try_reserve_exact(room).map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(offset))?;
    file.take(there).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A name that stays in its directory.
fn file_name(name: &str) -> io::Result<&str> {
    let plain = !name.is_empty()
        && name.len() <= 255
        && !name.contains(['/', '\0'])
        && name != "."
        && name != "..";
    plain.then_some(name).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no file name"))
    })
}

fn write_zeros(file: &File, mut offset: u64, len_bytes: u64) -> io::Result<()> {
    let end = offset.saturating_add(len_bytes);
    while offset < end {
        let step = end.saturating_sub(offset).min(ZEROS.len() as u64);
        let zeros = usize::try_from(step).ok().and_then(|step| ZEROS.get(..step));
        file.write_all_at(zeros.unwrap_or(&ZEROS), offset)?;
        offset = offset.saturating_add(step);
    }
    Ok(())
}
