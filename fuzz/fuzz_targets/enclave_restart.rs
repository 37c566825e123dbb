//! A node that restarts on a disk which the host has changed: ledger, snapshots, sealed secrets.
#![no_main]

#[path = "../../crates/enclave/tests/simulated/mod.rs"]
mod simulated;

use std::sync::{Arc, LazyLock};

use coco_adapter::Outcome;
use coco_enclave::host::Area;
use coco_fuzz::in_virtual_time;
use coco_kv::MapName;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use simulated::SimulatedDisk;
use simulated::node::{start, start_open};

const AREAS: [Area; 3] = [Area::Ledger, Area::Snapshots, Area::Sealed];
const SNAPSHOTS: &str = r#", "snapshots": {"tx_count": 5}, "ledger": {"chunk_size": "4KB"}"#;

#[derive(Arbitrary, Debug)]
struct Change {
    area: u8,
    file: u8,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Set { at: u16, to: u8 },
    Insert { at: u16, bytes: Vec<u8> },
    Cut { to: u16 },
    Swap { with: u8 },
    Remove,
    Rename(u8),
}

/// Names that a host might try.
const NAMES: [&str; 6] = [
    "ledger_1-4.committed",
    "ledger_1",
    "ledger_9999999999999999999",
    "ledger_5-3.committed.recovery",
    "snapshot_1_2.committed",
    "service_18446744073709551615.sealed",
];

/// A disk with a service's files.
static DISK: LazyLock<Arc<SimulatedDisk>> = LazyLock::new(|| {
    let disk = SimulatedDisk::new();
    in_virtual_time(async {
        let node = start_open(1, &disk, "Start", SNAPSHOTS).await.unwrap();
        for number in 0..20_u64 {
            let mut tx = node.pipeline().store().begin();
            tx.put(&MapName::new("records"), number.to_le_bytes(), vec![7; 300]);
            tx.put(&MapName::new("public:log"), number.to_le_bytes(), b"text");
            let (_, committed) =
                node.pipeline().commit_and_wait(tx, &Outcome::default()).unwrap();
            committed.await;
        }
        node.shutdown().await;
    });
    disk
});

fn apply(disk: &SimulatedDisk, change: Change) {
    let area = AREAS[usize::from(change.area) % AREAS.len()];
    let names = disk.names(area);
    let Some(name) = names.get(usize::from(change.file) % names.len().max(1)) else { return };
    match change.what {
        What::Set { at, to } => disk.tamper(area, name, |bytes| {
            let at = usize::from(at) % bytes.len().max(1);
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = to);
        }),
        What::Insert { at, bytes: new } => disk.tamper(area, name, |bytes| {
            let at = usize::from(at) % (bytes.len() + 1);
            bytes.splice(at..at, new);
        }),
        What::Cut { to } => disk.tamper(area, name, |bytes| bytes.truncate(to.into())),
        What::Swap { with } => {
            let other = disk.file(area, &names[usize::from(with) % names.len()]).unwrap();
            disk.tamper(area, name, |bytes| *bytes = other);
        }
        What::Remove => disk.remove(area, name),
        What::Rename(to) => {
            let (bytes, to) = (disk.file(area, name).unwrap(), NAMES[usize::from(to) % NAMES.len()]);
            disk.remove(area, name);
            if disk.file(area, to).is_none() {
                disk.add(area, to, &bytes);
            }
        }
    }
}

fuzz_target!(|changes: Vec<Change>| {
    let disk = DISK.copy();
    changes.into_iter().take(8).for_each(|change| apply(&disk, change));
    in_virtual_time(async {
        if let Ok(node) = start(2, &disk, "Restart", SNAPSHOTS).await {
            node.shutdown().await;
        }
    });
});
