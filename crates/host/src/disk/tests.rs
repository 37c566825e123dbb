//! Order, durability in groups, reopening, and a model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;

struct Scratch {
    directory: TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    fn layout(&self) -> DiskLayout {
        let path = self.directory.path();
        DiskLayout {
            ledger: path.join("ledger"),
            read_only_ledgers: vec![path.join("old")],
            read_only_snapshots: vec![path.join("old_snapshots")],
            snapshots: path.join("snapshots"),
            sealed: path.join("sealed"),
        }
    }

    fn open(&self) -> FileDisk {
        for old in ["old", "old_snapshots"] {
            std::fs::create_dir_all(self.directory.path().join(old)).unwrap();
        }
        FileDisk::open(self.layout(), Duration::from_secs(60)).unwrap()
    }
}

fn create(name: &str) -> DiskOp {
    DiskOp::Create { name: name.to_owned() }
}

/// Creates a file of so many zeros.
fn created(name: &str, len_bytes: u64) -> Vec<DiskOp> {
    vec![create(name), DiskOp::WriteZeros { name: name.to_owned(), offset: 0, len_bytes }]
}

fn write(name: &str, offset: u64, bytes: &[u8]) -> DiskOp {
    DiskOp::Write { name: name.to_owned(), offset, bytes: Bytes::copy_from_slice(bytes) }
}

fn rename(from: &str, to: &str) -> DiskOp {
    DiskOp::Rename { from: from.to_owned(), to: to.to_owned() }
}

async fn submit(disk: &FileDisk, area: Area, ops: Vec<DiskOp>, sync: bool) -> io::Result<()> {
    let (answer, answered) = oneshot::channel();
    disk.submit(area, ops, sync, Box::new(move |result| drop(answer.send(result))));
    answered.await.unwrap()
}

async fn read(disk: &FileDisk, name: &str) -> io::Result<Vec<u8>> {
    disk.read(Area::Ledger, name, 0, u64::MAX).await
}

#[tokio::test]
async fn reads_see_what_was_submitted_before() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    let nobody = || -> Done { Box::new(|_| {}) };
    disk.submit(Area::Ledger, created("a", 8), true, nobody());
    disk.submit(Area::Ledger, vec![write("a", 2, b"xyz")], false, nobody());
    let before_the_rename = disk.read(Area::Ledger, "a", 1, 4);
    disk.submit(Area::Ledger, vec![rename("a", "b")], true, nobody());
    assert_eq!(before_the_rename.await.unwrap(), b"\0xyz");
    assert_eq!(read(&disk, "b").await.unwrap(), b"\0\0xyz\0\0\0");
    assert_eq!(disk.read(Area::Ledger, "b", 7, 9).await.unwrap(), b"\0");
    assert_eq!(disk.read(Area::Ledger, "b", 90, 9).await.unwrap(), b"");
    assert_eq!(read(&disk, "a").await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn results_come_in_order_of_submission() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    let (send, results) = mpsc::channel();
    disk.submit(Area::Ledger, created("a", 4096), true, Box::new(|result| result.unwrap()));
    for number in 0..200_u8 {
        let send = send.clone();
        let op = write("a", u64::from(number) * 8, &[number; 8]);
        disk.submit(Area::Ledger, vec![op], true, Box::new(move |_| send.send(number).unwrap()));
    }
    drop(disk); // finishes what waits
    drop(send);
    assert_eq!(results.iter().collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    let bytes = std::fs::read(scratch.layout().ledger.join("a")).unwrap();
    assert!((0..200).all(|number| bytes[usize::from(number) * 8..][..8] == [number; 8]));
}

#[tokio::test]
async fn one_sync_serves_everything_that_waits() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    submit(&disk, Area::Ledger, created("a", 1 << 20), true).await.unwrap();
    // Holds the thread, in a turn of its own, so that the others queue up behind it.
    let (release, held) = mpsc::channel::<()>();
    let (holds, holding) = mpsc::channel::<()>();
    let hold = move |_| {
        holds.send(()).unwrap();
        held.recv().unwrap_or(());
    };
    disk.submit(Area::Ledger, vec![], false, Box::new(hold));
    holding.recv().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..50_u64 {
        let order = order.clone();
        // A synced one's result waits for the sync at the end of the group, an unsynced one's
        // does not.
        let sync = number % 2 == 0;
        let done: Done = Box::new(move |_| order.lock().unwrap().push(number));
        disk.submit(Area::Ledger, vec![write("a", number, b"x")], sync, done);
    }
    release.send(()).unwrap();
    submit(&disk, Area::Ledger, vec![], true).await.unwrap();
    let order = order.lock().unwrap().clone();
    let odd = (0..50).filter(|number| number % 2 == 1);
    let even = (0..50).filter(|number| number % 2 == 0);
    assert_eq!(order, odd.chain(even).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_submission_stops_at_its_first_fault() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    submit(&disk, Area::Ledger, created("a", 0), true).await.unwrap();
    let table: [(Vec<DiskOp>, io::ErrorKind); 8] = [
        (created("a", 1), io::ErrorKind::AlreadyExists),
        (vec![write("missing", 0, b"x")], io::ErrorKind::NotFound),
        (vec![rename("missing", "b")], io::ErrorKind::NotFound),
        (vec![create("c"), rename("c", "a")], io::ErrorKind::AlreadyExists),
        (vec![DiskOp::Remove { name: "missing".into() }], io::ErrorKind::NotFound),
        (vec![DiskOp::Truncate { name: "a".into(), len_bytes: 9 }], io::ErrorKind::InvalidInput),
        (vec![write("a", u64::MAX, b"x")], io::ErrorKind::InvalidInput),
        (vec![create("../escape")], io::ErrorKind::InvalidInput),
    ];
    for (mut ops, kind) in table {
        let text = format!("{ops:?}");
        ops.push(write("a", 0, b"not reached"));
        for sync in [false, true] {
            let ops = match sync {
                false => std::mem::take(&mut ops),
                true => vec![write("missing", 0, b"")],
            };
            let error = submit(&disk, Area::Ledger, ops, sync).await.unwrap_err();
            assert_eq!(error.kind(), if sync { io::ErrorKind::NotFound } else { kind }, "{text}");
        }
    }
    assert_eq!(read(&disk, "a").await.unwrap(), b"");
    for name in ["", ".", "..", "a/b", "a\0b", &"n".repeat(256)] {
        assert_eq!(read(&disk, name).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    // None of this was an input/output error: the area still works.
    submit(&disk, Area::Ledger, vec![write("a", 0, b"x")], true).await.unwrap();
}

#[tokio::test]
async fn read_only_directories_are_read_and_left_alone() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    let old = scratch.directory.path().join("old");
    std::fs::write(old.join("ledger_1-4.committed"), b"old").unwrap();
    std::fs::write(old.join("both"), b"older").unwrap();
    std::fs::create_dir(old.join("folder")).unwrap();
    submit(&disk, Area::Ledger, created("both", 2), true).await.unwrap();
    assert_eq!(read(&disk, "ledger_1-4.committed").await.unwrap(), b"old");
    assert_eq!(read(&disk, "both").await.unwrap(), b"\0\0");
    let mut listed = disk.list(Area::Ledger).await.unwrap();
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    let entry = |name: &str, len_bytes, read_only| FileEntry {
        name: name.to_owned(),
        len_bytes,
        read_only,
    };
    assert_eq!(listed, [entry("both", 2, false), entry("ledger_1-4.committed", 3, true)]);
    let refused =
        submit(&disk, Area::Ledger, vec![write("ledger_1-4.committed", 0, b"x")], true).await;
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list(Area::Snapshots).await.unwrap(), []);
    let old = scratch.directory.path().join("old_snapshots");
    std::fs::write(old.join("snapshot_1_2.committed"), b"old").unwrap();
    let expected = [entry("snapshot_1_2.committed", 3, true)];
    assert_eq!(disk.list(Area::Snapshots).await.unwrap(), expected);
}

#[tokio::test]
async fn a_file_is_listed_also_while_it_is_renamed() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    for number in 0..200 {
        submit(&disk, Area::Ledger, vec![create(&format!("other{number}"))], false).await.unwrap();
    }
    submit(&disk, Area::Ledger, vec![create("to0")], false).await.unwrap();
    let disk = Arc::new(disk);
    let renamer = std::thread::spawn({
        let disk = Arc::clone(&disk);
        move || {
            let (answer, answers) = mpsc::channel();
            for number in 0..1_000 {
                let ops = vec![rename(&format!("to{number}"), &format!("to{}", number + 1))];
                let answer = answer.clone();
                let done = Box::new(move |result| answer.send(result).unwrap());
                disk.submit(Area::Ledger, ops, false, done);
                answers.recv().unwrap().unwrap();
            }
        }
    });
    loop {
        let is_last = renamer.is_finished();
        let listed = disk.list(Area::Ledger).await.unwrap();
        assert_eq!(listed.iter().filter(|file| file.name.starts_with("to")).count(), 1);
        if is_last {
            break;
        }
    }
    renamer.join().unwrap();
}

#[tokio::test]
async fn one_process_holds_a_ledger_directory() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    let second = FileDisk::open(scratch.layout(), Duration::ZERO);
    assert!(matches!(second, Err(HostError::LedgerInUse(_))));
    drop(disk);
    scratch.open();
}

#[tokio::test]
async fn many_open_files_are_all_written() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    for number in 0..100 {
        let name = format!("f{number}");
        let ops = vec![create(&name), write(&name, 0, name.as_bytes())];
        submit(&disk, Area::Snapshots, ops, number % 7 == 0).await.unwrap();
    }
    assert_eq!(disk.list(Area::Snapshots).await.unwrap().len(), 100);
    let last = disk.read(Area::Snapshots, "f99", 0, 3).await.unwrap();
    assert_eq!(last, b"f99");
}

#[tokio::test]
async fn a_panicking_receiver_harms_nobody_else() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    disk.submit(Area::Ledger, vec![], true, Box::new(|_| panic!("expected in this test")));
    submit(&disk, Area::Ledger, created("a", 1), true).await.unwrap();
}

#[tokio::test]
async fn appends_that_are_durable_at_once_read_back() {
    let scratch = Scratch::new();
    let disk = scratch.open();
    submit(&disk, Area::Ledger, created("a", 40_000), true).await.unwrap();
    let (mut expected, mut at) = (vec![0; 40_000], 0);
    for length in (1..).map(|number: usize| number * 37 % 5_000 + 1) {
        if at + length > expected.len() {
            break;
        }
        let bytes = vec![length.to_le_bytes()[0] | 1; length];
        expected[at..at + length].copy_from_slice(&bytes);
        submit(&disk, Area::Ledger, vec![write("a", at as u64, &bytes)], true).await.unwrap();
        assert_eq!(read(&disk, "a").await.unwrap(), expected);
        at += length;
        // Behind the back of those: their last block is no longer what they remember.
        expected[at - 1] = 0;
        submit(&disk, Area::Ledger, vec![write("a", at as u64 - 1, &[0])], false).await.unwrap();
        submit(&disk, Area::Ledger, vec![], true).await.unwrap();
    }
    assert_eq!(read(&disk, "a").await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lent_threads_carry_out_everything_in_order() {
    lend_to_four_writers(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_spare_thread_carries_out_everything_in_order_too() {
    lend_to_four_writers(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_only_thread_is_not_used_unless_it_is_spare() {
    assert_eq!(lend_to_four_writers(false).await, 0);
}

/// How many of the writes were carried out on the thread that was lent; a slow disk keeps to its own.
async fn lend_to_four_writers(is_spare: bool) -> usize {
    let scratch = Scratch::new();
    let disk = Arc::new(scratch.open());
    submit(&disk, Area::Ledger, created("a", 10_000), true).await.unwrap();
    let on_lent = Arc::new(AtomicUsize::new(0));
    let writers = (0..4_u8).map(|writer| {
        let (disk, on_lent) = (disk.clone(), on_lent.clone());
        tokio::spawn(async move {
            for number in 0..50_u8 {
                let (answer, answered) = oneshot::channel();
                let mut answer = Some(answer);
                disk.lend_thread(Area::Ledger, is_spare, &mut || {
                    let Some(answer) = answer.take() else { return };
                    let (on_lent, lent) = (on_lent.clone(), std::thread::current().id());
                    let ops = vec![write("a", u64::from(writer) * 100, &[number; 100])];
                    let done = Box::new(move |result| {
                        let is_lent = std::thread::current().id() == lent;
                        on_lent.fetch_add(usize::from(is_lent), Ordering::Relaxed);
                        let _ = answer.send(result);
                    });
                    disk.submit(Area::Ledger, ops, true, done);
                });
                answered.await.unwrap().unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(read(&disk, "a").await.unwrap()[..400], [49; 400]);
    on_lent.load(Ordering::Relaxed)
}

/// One step of the model test; `name` and `to` are indices into a few names.
#[derive(Clone, Debug)]
enum Step {
    Create { name: usize },
    WriteZeros { name: usize, offset: u64, len_bytes: u64 },
    Write { name: usize, offset: u64, bytes: Vec<u8> },
    Truncate { name: usize, len_bytes: u64 },
    Rename { name: usize, to: usize },
    Remove { name: usize },
    Reopen,
}

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

impl Step {
    fn any() -> impl Strategy<Value = Self> {
        let name = 0..NAMES.len();
        prop_oneof![
            name.clone().prop_map(|name| Self::Create { name }),
            (name.clone(), 0..20_000_u64, 0..20_000_u64).prop_map(|(name, offset, len_bytes)| {
                Self::WriteZeros { name, offset, len_bytes }
            }),
            (name.clone(), 0..20_000_u64, prop::collection::vec(any::<u8>(), 0..6_000))
                .prop_map(|(name, offset, bytes)| Self::Write { name, offset, bytes }),
            (name.clone(), 0..3000_u64)
                .prop_map(|(name, len_bytes)| Self::Truncate { name, len_bytes }),
            (name.clone(), name.clone()).prop_map(|(name, to)| Self::Rename { name, to }),
            name.prop_map(|name| Self::Remove { name }),
            Just(Self::Reopen),
        ]
    }

    fn op(&self) -> Option<DiskOp> {
        let name = |index: &usize| NAMES[*index].to_owned();
        Some(match self {
            Self::Create { name: n } => DiskOp::Create { name: name(n) },
            Self::WriteZeros { name: n, offset, len_bytes } => {
                DiskOp::WriteZeros { name: name(n), offset: *offset, len_bytes: *len_bytes }
            }
            Self::Write { name: n, offset, bytes } => {
                DiskOp::Write { name: name(n), offset: *offset, bytes: bytes.clone().into() }
            }
            Self::Truncate { name: n, len_bytes } => {
                DiskOp::Truncate { name: name(n), len_bytes: *len_bytes }
            }
            Self::Rename { name: n, to } => DiskOp::Rename { from: name(n), to: name(to) },
            Self::Remove { name: n } => DiskOp::Remove { name: name(n) },
            Self::Reopen => return None,
        })
    }

    /// Whether it succeeds, on a map of names to bytes.
    fn on_model(&self, files: &mut BTreeMap<usize, Vec<u8>>) -> bool {
        match self {
            Self::Create { name } if !files.contains_key(name) => {
                files.insert(*name, Vec::new());
                true
            }
            Self::Write { name, offset, bytes } => write_to(files, *name, *offset, bytes),
            Self::WriteZeros { name, offset, len_bytes } => {
                write_to(files, *name, *offset, &vec![0; *len_bytes as usize])
            }
            Self::Truncate { name, len_bytes } => match files.get_mut(name) {
                Some(file) if file.len() as u64 >= *len_bytes => {
                    file.truncate(*len_bytes as usize);
                    true
                }
                _ => false,
            },
            Self::Rename { name, to } if files.contains_key(name) && !files.contains_key(to) => {
                let file = files.remove(name).unwrap();
                files.insert(*to, file);
                true
            }
            Self::Remove { name } => files.remove(name).is_some(),
            Self::Reopen => true,
            _ => false,
        }
    }
}

/// Whether the file is there.
fn write_to(files: &mut BTreeMap<usize, Vec<u8>>, name: usize, offset: u64, bytes: &[u8]) -> bool {
    let Some(file) = files.get_mut(&name) else { return false };
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if !bytes.is_empty() {
        file.resize(file.len().max(end), 0);
        file[start..end].copy_from_slice(bytes);
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn behaves_like_a_map_of_bytes(steps in prop::collection::vec((Step::any(), any::<bool>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let scratch = Scratch::new();
            let mut disk = scratch.open();
            let mut model = BTreeMap::new();
            for (step, sync) in &steps {
                let expected = step.on_model(&mut model);
                match step.op() {
                    Some(op) => {
                        let result = submit(&disk, Area::Ledger, vec![op], *sync).await;
                        prop_assert_eq!(result.is_ok(), expected, "{:?}", step);
                    }
                    None => {
                        drop(disk);
                        disk = scratch.open();
                    }
                }
            }
            let listed = disk.list(Area::Ledger).await.unwrap();
            prop_assert_eq!(listed.len(), model.len());
            for (name, bytes) in &model {
                prop_assert_eq!(&read(&disk, NAMES[*name]).await.unwrap(), bytes);
            }
            Ok(())
        })?;
    }
}
