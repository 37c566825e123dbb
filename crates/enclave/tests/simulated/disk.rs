//! A disk that keeps what was synced and, after a crash, an arbitrary part of the rest.
//!
//! Names follow a journal: after a crash, creations, renames, truncations and removals have
//! happened up to some point, in order. Data do not: of what was written and not synced, each
//! sector is there or is not, whatever the order.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coco_enclave::host::{Area, BoxFuture, Disk, DiskOp, Done, FileEntry};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Random;

const SECTOR: usize = 512;

type Files = BTreeMap<(u8, String), Inode>;
type Inode = u64;

#[derive(Clone, Default)]
struct Image {
    names: Files,
    data: BTreeMap<Inode, Vec<u8>>,
}

/// A change since the last sync.
enum Change {
    Create((u8, String), Inode),
    Rename((u8, String), (u8, String)),
    Remove((u8, String)),
    Truncate(Inode, usize),
    Write(Inode, usize, Bytes),
}

struct Submission {
    area: u8,
    operations: Vec<DiskOp>,
    sync: bool,
    done: Done,
}

#[derive(Default)]
struct State {
    /// What reads see.
    current: Image,
    /// What survives for certain.
    durable: Image,
    changes: Vec<Change>,
    next_inode: Inode,
    queue: VecDeque<Submission>,
    submissions: u64,
    syncs: u64,
    /// The power fails when this submission is carried out.
    crash_at: Option<u64>,
    crashed: bool,
    /// Every write fails from this submission on.
    fail_at: Option<u64>,
}

/// The disk of a simulated host. It outlives hosts: give it to the next one after a crash.
#[derive(Default)]
pub struct SimulatedDisk {
    state: Mutex<State>,
    work: Arc<Notify>,
    reads: Arc<Mutex<Reads>>,
    /// For each time a thread was lent, whether nobody else had work for it.
    lent: Mutex<Vec<bool>>,
}

/// Who reads what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reads {
    /// How long a read takes.
    pub pause: Duration,
    /// Files that were read from their beginning.
    pub files: u64,
    /// Lists of an area's files.
    pub lists: u64,
    /// Reads at this moment, and the most there ever were.
    pub now: u64,
    pub peak: u64,
}

impl SimulatedDisk {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Since the last call: for each time a thread was lent, whether nobody else had work for it.
    pub fn take_lent(&self) -> Vec<bool> {
        std::mem::take(&mut self.lent.lock())
    }

    /// From now on each read takes this long; counting begins anew.
    pub fn count_reads(&self, pause: Duration) {
        *self.reads.lock() = Reads { pause, ..Reads::default() };
    }

    pub fn reads(&self) -> Reads {
        *self.reads.lock()
    }

    /// Another disk with the same content.
    pub fn copy(&self) -> Arc<Self> {
        let current = self.state.lock().current.clone();
        let next_inode = self.state.lock().next_inode;
        let state = State { durable: current.clone(), current, next_inode, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    /// Spawns what carries out submissions, each after a fraction of a millisecond.
    pub fn attach(self: &Arc<Self>) {
        let disk = Arc::clone(self);
        disk.state.lock().crashed = false;
        tokio::spawn(async move {
            loop {
                disk.work.notified().await;
                while disk.has_work() {
                    tokio::time::sleep(Duration::from_micros(80)).await;
                    disk.carry_out();
                }
            }
        });
    }

    fn has_work(&self) -> bool {
        !self.state.lock().queue.is_empty()
    }

    fn carry_out(&self) {
        let finished = {
            let mut state = self.state.lock();
            state.submissions += 1;
            if state.crash_at.is_some_and(|at| state.submissions >= at) {
                state.crashed = true;
            }
            if state.crashed {
                // Some of it may have reached the disk.
                if let Some(submission) = state.queue.pop_front() {
                    let _ = state.apply(submission.area, submission.operations);
                }
                state.queue.clear();
                return;
            }
            let failing = state.fail_at.is_some_and(|at| state.submissions >= at);
            // One sync serves all that waits.
            let mut finished = Vec::new();
            let waiting: Vec<_> = state.queue.drain(..).collect();
            let sync = waiting.iter().any(|submission| submission.sync);
            for Submission { area, operations, done, .. } in waiting {
                let result = match failing {
                    true => Err(io::Error::other("the disk is full")),
                    false => state.apply(area, operations),
                };
                finished.push((done, result));
            }
            if sync && !failing {
                state.sync();
            }
            finished
        };
        for (done, result) in finished {
            done(result);
        }
    }

    /// The number of submissions carried out so far.
    pub fn submissions(&self) -> u64 {
        self.state.lock().submissions
    }

    /// The number of syncs so far.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Lets the power fail at a later submission.
    pub fn crash_after(&self, submissions: u64) {
        let mut state = self.state.lock();
        state.crash_at = Some(state.submissions + submissions);
    }

    /// Lets every submission fail from a later one on.
    pub fn fail_after(&self, submissions: u64) {
        let mut state = self.state.lock();
        state.fail_at = Some(state.submissions + submissions);
    }

    pub fn has_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// What is on the disk after the power came back.
    pub fn power_on(&self, random: &mut Random) {
        self.state.lock().lose_unsynced(random);
    }

    /// What is on the disk when only the process was killed: everything that was carried out.
    pub fn process_restarted(&self) {
        let mut state = self.state.lock();
        state.queue.clear();
        state.crash_at = None;
    }

    pub fn names(&self, area: Area) -> Vec<String> {
        let state = self.state.lock();
        let names = state.current.names.keys();
        names.filter(|(of, _)| *of == number(area)).map(|(_, name)| name.clone()).collect()
    }

    pub fn file(&self, area: Area, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.current.names.get(&(number(area), name.to_owned()))?;
        state.current.data.get(inode).cloned()
    }

    /// Changes a file behind everybody's back.
    pub fn tamper(&self, area: Area, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state.lock();
        let inode = state.current.names[&(number(area), name.to_owned())];
        change(state.current.data.get_mut(&inode).unwrap());
        state.durable = state.current.clone();
        state.changes.clear();
    }

    /// Removes a file behind everybody's back.
    pub fn remove(&self, area: Area, name: &str) {
        let mut state = self.state.lock();
        state.current.names.remove(&(number(area), name.to_owned()));
        state.durable = state.current.clone();
        state.changes.clear();
    }

    /// Adds a file behind everybody's back.
    pub fn add(&self, area: Area, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.next_inode += 1;
        let inode = state.next_inode;
        state.current.names.insert((number(area), name.to_owned()), inode);
        state.current.data.insert(inode, bytes.to_vec());
        state.durable = state.current.clone();
        state.changes.clear();
    }
}

fn number(area: Area) -> u8 {
    match area {
        Area::Ledger => 0,
        Area::Snapshots => 1,
        Area::Sealed => 2,
    }
}

impl State {
    fn apply(&mut self, area: u8, operations: Vec<DiskOp>) -> io::Result<()> {
        for operation in operations {
            let change = self.change(area, operation)?;
            self.current.apply(&change);
            self.changes.push(change);
        }
        Ok(())
    }

    fn change(&mut self, area: u8, operation: DiskOp) -> io::Result<Change> {
        let names = &self.current.names;
        let inode = |name: &str| {
            let found = names.get(&(area, name.to_owned())).copied();
            found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.to_owned()))
        };
        let taken = |name: &str| names.contains_key(&(area, name.to_owned()));
        Ok(match operation {
            DiskOp::Create { name } => {
                assert!(!taken(&name), "{name} exists");
                self.next_inode += 1;
                self.current.data.insert(self.next_inode, Vec::new());
                Change::Create((area, name), self.next_inode)
            }
            DiskOp::WriteZeros { name, offset, len_bytes } => {
                let zeros = vec![0; len_bytes as usize].into();
                Change::Write(inode(&name)?, offset as usize, zeros)
            }
            DiskOp::Write { name, offset, bytes } => {
                Change::Write(inode(&name)?, offset as usize, bytes)
            }
            DiskOp::Truncate { name, len_bytes } => {
                Change::Truncate(inode(&name)?, len_bytes as usize)
            }
            DiskOp::Rename { from, to } => {
                inode(&from)?;
                assert!(!taken(&to), "{to} exists");
                Change::Rename((area, from), (area, to))
            }
            DiskOp::Remove { name } => {
                inode(&name)?;
                Change::Remove((area, name))
            }
        })
    }

    fn sync(&mut self) {
        self.syncs += 1;
        for change in self.changes.drain(..) {
            self.durable.apply(&change);
        }
    }

    fn lose_unsynced(&mut self, random: &mut Random) {
        let mut image = std::mem::take(&mut self.durable);
        let changes = std::mem::take(&mut self.changes);
        let named = changes.iter().filter(|change| !matches!(change, Change::Write(..))).count();
        let mut names_left = random.below(named as u64 + 1);
        // Often all or nothing of the data, sometimes anything.
        let chance = [0, 100, 50, 90][random.below(4) as usize];
        for change in changes {
            match &change {
                Change::Write(inode, offset, bytes) => {
                    image.write_some(*inode, *offset, bytes, random, chance);
                }
                _ if names_left > 0 => {
                    names_left -= 1;
                    image.apply(&change);
                }
                _ => {}
            }
        }
        self.current = image.clone();
        self.durable = image;
        self.queue.clear();
        self.crash_at = None;
    }
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(name, inode) => {
                self.names.insert(name.clone(), *inode);
                self.data.entry(*inode).or_default();
            }
            Change::Rename(from, to) => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Change::Remove(name) => {
                self.names.remove(name);
            }
            Change::Truncate(inode, len_bytes) => {
                self.data.entry(*inode).or_default().resize(*len_bytes, 0);
            }
            Change::Write(inode, offset, bytes) => {
                let data = self.data.entry(*inode).or_default();
                if data.len() < offset + bytes.len() {
                    data.resize(offset + bytes.len(), 0);
                }
                data[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Writes those sectors that made it.
    fn write_some(
        &mut self,
        inode: Inode,
        offset: usize,
        bytes: &[u8],
        random: &mut Random,
        chance: u64,
    ) {
        let mut at = offset;
        let end = offset + bytes.len();
        while at < end {
            let sector_end = ((at / SECTOR + 1) * SECTOR).min(end);
            if random.below(100) < chance {
                let part = bytes[at - offset..sector_end - offset].to_vec();
                self.apply(&Change::Write(inode, at, part.into()));
            }
            at = sector_end;
        }
    }
}

impl Disk for SimulatedDisk {
    fn submit(&self, area: Area, operations: Vec<DiskOp>, sync: bool, done: Done) {
        let mut state = self.state.lock();
        if state.crashed {
            return;
        }
        let area = number(area);
        state.queue.push_back(Submission { area, operations, sync, done });
        self.work.notify_one();
    }

    fn lend_thread(&self, _: Area, is_spare: bool, submissions: &mut dyn FnMut()) {
        self.lent.lock().push(is_spare);
        submissions();
    }

    fn list(&self, area: Area) -> BoxFuture<'static, io::Result<Vec<FileEntry>>> {
        let state = self.state.lock();
        let entry = |((_, name), inode): (&(u8, String), &Inode)| FileEntry {
            name: name.clone(),
            len_bytes: state.current.data.get(inode).map_or(0, |data| data.len() as u64),
            read_only: false,
        };
        let of_area = state.current.names.iter().filter(|((of, _), _)| *of == number(area));
        let entries = of_area.map(entry).collect();
        self.reads.lock().lists += 1;
        Box::pin(async { Ok(entries) })
    }

    fn read(
        &self,
        area: Area,
        name: &str,
        offset: u64,
        len_bytes: u64,
    ) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        let missing = io::Error::new(io::ErrorKind::NotFound, name.to_owned());
        let answer = self.file(area, name).ok_or(missing).map(|data| {
            let start = data.len().min(offset as usize);
            let end = data.len().min(start + len_bytes as usize);
            data[start..end].to_vec()
        });
        let reads = Arc::clone(&self.reads);
        Box::pin(async move {
            let pause = {
                let mut reads = reads.lock();
                reads.files += u64::from(offset == 0);
                reads.now += 1;
                reads.peak = reads.peak.max(reads.now);
                reads.pause
            };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            reads.lock().now -= 1;
            answer
        })
    }
}
