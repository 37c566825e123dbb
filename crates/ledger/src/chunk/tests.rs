use coco_crypto::Curve;
use coco_kv::Seqno;
use proptest::prelude::*;

use super::*;
use crate::audit::{AuditOptions, AuditReport, Auditor, Fault};
use crate::entry::EntryFlags;
use crate::testing::{Disk, OwnLedger};

fn config() -> ChunkWriterConfig {
    ChunkWriterConfig { chunk_bytes: 6_000, write_ahead_bytes: 4_096 }
}

fn audit(ledger: &OwnLedger, chunks: &[(String, Vec<u8>)]) -> Result<AuditReport, Fault> {
    let mut options = AuditOptions::of_certificate(&ledger.service.to_pem()).unwrap();
    options.secrets = Some(ledger.secrets.clone());
    let mut auditor = Auditor::new(options);
    for (name, file) in chunks {
        auditor.chunk(name, file, &mut |_| {})?;
    }
    auditor.finish()
}

/// Three signed batches in one open chunk, and the offsets behind its entries.
fn open_chunk() -> (OwnLedger, ChunkName, Vec<u8>, Vec<usize>) {
    let config = ChunkWriterConfig { chunk_bytes: u64::MAX, ..config() };
    let mut ledger = OwnLedger::new(Curve::P256, config);
    for number in 0..6 {
        ledger.put(number);
        if number % 3 == 2 {
            ledger.sign();
        }
    }
    ledger.trim();
    let (name, file) = ledger.disk.files.first_key_value().unwrap();
    let (name, file) = (*name, file.clone());
    // A digest that ends with a zero looks like one that is not there in full.
    if file[file.len() - 9] == 0 {
        return open_chunk();
    }
    let mut ends = vec![8];
    ends.extend(ledger.entries.iter().scan(8, |end, entry| {
        *end += entry.bytes.len();
        Some(*end)
    }));
    (ledger, name, file, ends)
}

/// The last signature transaction that ends at or before an offset, and its end.
fn last_signature_before(
    ledger: &OwnLedger,
    ends: &[usize],
    offset: usize,
) -> (Option<u64>, usize) {
    let signed = ledger.signatures.iter().map(|(tx_id, _)| tx_id.seqno.0);
    let last = signed.filter(|seqno| ends[*seqno as usize] <= offset).max();
    (last, ends[last.unwrap_or(0) as usize])
}

#[test]
fn a_ledger_written_here_passes_the_audit_on_either_curve() {
    for curve in [Curve::P256, Curve::P384] {
        let mut ledger = OwnLedger::new(curve, config());
        for number in 0..40 {
            ledger.put(number);
            if number % 4 == 3 {
                ledger.sign();
            }
            if number == 20 {
                ledger.sign();
                ledger.commit();
                ledger.recover();
            }
        }
        // Open chunks are readable with the zeros written ahead, and without.
        for trimmed in [false, true] {
            if trimmed {
                ledger.trim();
            }
            let chunks = ledger.disk.chunks();
            let report = audit(&ledger, &chunks).unwrap();
            assert_eq!(report.last.seqno.0, ledger.entries.len() as u64);
            assert_eq!(report.identities.len(), 2);
            assert_eq!(report.views, ledger.views);
            assert_eq!(report.stats.service_signatures, ledger.signatures.len() as u64);
            assert!(report.stats.chunks > 3);
        }
        ledger.commit();
        let open = ledger.disk.files.iter().filter(|(name, _)| !name.is_committed()).count();
        assert!(open <= 1);
        // Completed files are exact to the byte.
        for (name, file) in ledger.disk.files.iter().filter(|(name, _)| name.is_committed()) {
            let table = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            let count = (name.end().unwrap().0 - name.start.0 + 1) as usize;
            assert_eq!(file.len(), table + 4 * count);
        }
    }
}

#[test]
fn a_signature_entry_stays_small() {
    let mut ledger = OwnLedger::new(Curve::P384, ChunkWriterConfig::default());
    for number in 0..3_000 {
        ledger.put(number);
        if number % 10 == 9 {
            ledger.sign();
        }
    }
    let largest = ledger
        .signatures
        .iter()
        .map(|(tx_id, _)| ledger.entries[tx_id.seqno.0 as usize - 1].bytes.len());
    assert!(largest.max().unwrap() < 3_000);
}

#[test]
fn at_every_cut_the_last_whole_batch_is_found() {
    let (ledger, name, file, ends) = open_chunk();
    for length in (0..=file.len()).filter(|at| at % 5 == 0 || ends.contains(at)) {
        // The file ends there, or what follows never reached the disk.
        let torn = file[..length].to_vec();
        let mut zeros = torn.clone();
        zeros.resize(file.len() + 2_000, 0);
        for torn in [torn, zeros] {
            let recovered =
                recover_open_chunk(name, &torn, Some(&ledger.secrets), MAX_BATCHES_IN_FLIGHT)
                    .unwrap();
            // Zeros that are lost are as good as written.
            let same = torn.iter().zip(&file).take_while(|(left, right)| left == right).count();
            let (last, end) = last_signature_before(&ledger, &ends, same);
            assert_eq!(recovered.last.map(|tx_id| tx_id.seqno.0), last, "{length}");
            assert_eq!(recovered.end_offset, end as u64);
            assert_eq!(recovered.positions.len() as u64, last.unwrap_or(0));
            let content = torn.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            assert_eq!(recovered.cut.is_some(), content > end, "{length}");
            // Without secrets the root tells, from the first signature on that has one.
            if length > ends[2] {
                let without = recover_open_chunk(name, &torn, None, MAX_BATCHES_IN_FLIGHT).unwrap();
                let kept = |chunk: RecoveredChunk| (chunk.last, chunk.positions, chunk.end_offset);
                assert_eq!(kept(without), kept(recovered), "{length}");
            }
        }
    }
}

#[test]
fn an_audit_may_leave_a_torn_tail_out() {
    let (ledger, name, file, ends) = open_chunk();
    let (_, first) = last_signature_before(&ledger, &ends, ends[3]);
    for length in (first + 1..file.len()).step_by(101) {
        let mut torn = file[..length].to_vec();
        torn.resize(file.len() + 2_000, 0);
        let mut options = AuditOptions::of_certificate(&ledger.service.to_pem()).unwrap();
        options.secrets = Some(ledger.secrets.clone());
        options.accept_torn_tail = true;
        let mut auditor = Auditor::new(options);
        auditor.chunk(&name.to_string(), &torn, &mut |_| {}).unwrap();
        let report = auditor.finish().unwrap();
        // Zeros that are lost are as good as written.
        let same = torn.iter().zip(&file).take_while(|(left, right)| left == right).count();
        let (last, _) = last_signature_before(&ledger, &ends, same);
        assert_eq!(Some(report.last_signed.seqno.0), last, "{length}");
        let is_torn = !ends.contains(&same);
        assert_eq!(report.torn_tail.is_some(), is_torn, "{length}");
        let strict = audit(&ledger, &[(name.to_string(), torn)]);
        assert_eq!(strict.is_err(), is_torn, "{length}");
    }
}

#[test]
fn a_flipped_bit_is_never_cut_silently() {
    let (ledger, name, file, ends) = open_chunk();
    let last_start = ends[ends.len() - 2];
    for at in (8..file.len()).step_by(3).chain(last_start..last_start + 44) {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        let entry = ends.iter().filter(|end| **end <= at).count() as u64;
        match recover_open_chunk(name, &damaged, Some(&ledger.secrets), MAX_BATCHES_IN_FLIGHT) {
            Err(error) => {
                assert_eq!(error.seqno.0, entry, "{at}: {error}");
                assert_eq!(error.offset, ends[entry as usize - 1] as u64);
            }
            // The frame header of the last entry of all is all that cannot be told from a torn
            // write: no secret covers it, and nothing stands behind it.
            Ok(_) if at >= last_start && at < last_start + 8 => {}
            Ok(recovered) => panic!("{at} of entry {entry}: {recovered:?}"),
        }
    }
}

#[test]
fn a_lost_sector_of_the_last_sync_is_cut() {
    let (ledger, name, file, ends) = open_chunk();
    // The second batch was lost in part, the third reached the disk in the same sync. The first
    // sector of a batch holds the end of the batch before it, which was on the disk already.
    let (_, end) = last_signature_before(&ledger, &ends, ends[4]);
    let shared = end..end.next_multiple_of(512);
    let own = shared.end..shared.end + 512;
    for lost in [shared, own] {
        let mut damaged = file.clone();
        damaged[lost.clone()].fill(0);
        let recovered =
            recover_open_chunk(name, &damaged, Some(&ledger.secrets), MAX_BATCHES_IN_FLIGHT)
                .unwrap();
        let kept = last_signature_before(&ledger, &ends, lost.start);
        let found = (recovered.last.map(|tx_id| tx_id.seqno.0), recovered.end_offset as usize);
        assert_eq!(found, kept);
        assert!(recovered.cut.is_some());
    }
}

#[test]
fn a_lost_sector_behind_which_more_stands_than_was_on_its_way_is_damage() {
    let config = ChunkWriterConfig { chunk_bytes: u64::MAX, ..config() };
    let mut ledger = OwnLedger::new(Curve::P256, config);
    let mut batches = 0;
    // Of each of them one batch is lost in part, and so many stand behind it.
    for behind in 0..5 {
        while batches < behind + 2 {
            for number in 0..3 {
                ledger.put(number);
            }
            ledger.sign();
            batches += 1;
        }
        ledger.trim();
        let (name, file) = ledger.disk.files.first_key_value().unwrap();
        let whole = recover_open_chunk(*name, file, None, MAX_BATCHES_IN_FLIGHT).unwrap();
        let of_batch = |tx_id: coco_kv::TxId| whole.positions[tx_id.seqno.0 as usize - 1] as usize;
        let (signed, _) = &ledger.signatures[ledger.signatures.len() - behind - 2];
        let mut damaged = file.clone();
        let sector = (of_batch(*signed) + 2_000).next_multiple_of(512);
        damaged[sector..sector + 512].fill(0);
        let recovered = |most| recover_open_chunk(*name, &damaged, Some(&ledger.secrets), most);
        let within = recovered(MAX_BATCHES_IN_FLIGHT);
        assert_eq!(within.is_ok(), behind < MAX_BATCHES_IN_FLIGHT, "{behind}: {within:?}");
        let cut = recovered(usize::MAX).unwrap();
        assert!(cut.cut.is_some() && cut.end_offset as usize <= sector, "{behind}: {cut:?}");
    }
}

#[test]
fn a_repaired_chunk_is_written_on() {
    let (mut ledger, name, mut file, ends) = open_chunk();
    file.truncate(file.len() - 100);
    let recovered = recover_open_chunk(name, &file, None, MAX_BATCHES_IN_FLIGHT).unwrap();
    let mut disk = Disk::default();
    disk.files.insert(name, file);
    disk.apply(recovered.repair());
    assert_eq!(disk.files[&name].len() as u64, recovered.end_offset);
    let last = recovered.last.unwrap().seqno;
    let resumed = Resumed {
        last,
        committed: last,
        complete: Vec::new(),
        open: Some((name, recovered.positions, recovered.end_offset)),
    };
    let mut writer = ChunkWriter::resume(config(), resumed);
    for entry in &ledger.entries[last.0 as usize..] {
        writer.append(entry.tx_id.seqno, EntryFlags::NONE, &entry.bytes).unwrap();
    }
    disk.apply(writer.take_operations());
    assert!(ends.len() as u64 > last.0);
    audit(&ledger, &disk.chunks()).unwrap();
    // The zeros written ahead are the only difference.
    writer.trim();
    disk.apply(writer.take_operations());
    ledger.trim();
    assert_eq!(disk.files, ledger.disk.files);
}

#[test]
fn a_crash_between_any_two_operations_of_a_completion_is_survived() {
    let mut ledger =
        OwnLedger::new(Curve::P256, ChunkWriterConfig { chunk_bytes: u64::MAX, ..config() });
    ledger.put(1);
    ledger.sign();
    let entries = ledger.entries.clone();
    let mut writer = ChunkWriter::new(config());
    for entry in &entries {
        let last = entry.tx_id.seqno.0 == entries.len() as u64;
        let flags = if last { EntryFlags::FORCE_CHUNK_AFTER } else { EntryFlags::NONE };
        writer.append(entry.tx_id.seqno, flags, &entry.bytes).unwrap();
    }
    let operations = writer.take_operations();
    let is_entries = |op: &FileOperation| matches!(op, FileOperation::Write { offset: 0, bytes, .. } if bytes.len() > 8);
    let written = operations.iter().position(is_entries).unwrap() + 1;
    for count in written..operations.len() {
        let mut disk = Disk::default();
        disk.apply(operations[..count].to_vec());
        let (name, file) = disk.files.first_key_value().unwrap();
        let recovered =
            recover_open_chunk(*name, file, Some(&ledger.secrets), MAX_BATCHES_IN_FLIGHT).unwrap();
        assert_eq!(
            recovered.last.map(|tx_id| tx_id.seqno.0),
            Some(entries.len() as u64),
            "{count}"
        );
        disk.apply(recovered.repair());
        audit(&ledger, &disk.chunks()).unwrap();
    }
}

#[test]
fn entries_out_of_order_are_refused() {
    let mut writer = ChunkWriter::new(config());
    let refused = writer.append(Seqno(2), EntryFlags::NONE, b"x");
    assert_eq!(refused, Err(ChunkWriterError::Order { expected: Seqno(1), given: Seqno(2) }));
    writer.append(Seqno(1), EntryFlags::NONE, b"x").unwrap();
    writer.commit(Seqno(1));
    let refused = writer.rollback(Seqno(0));
    let committed = ChunkWriterError::Committed { committed: Seqno(1), to: Seqno(0) };
    assert_eq!(refused, Err(committed));
}

#[derive(Clone, Debug)]
enum Step {
    Append(u8, u16),
    Commit(f64),
    Rollback(f64),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..4, 1_u16..600).prop_map(|(flags, size)| Step::Append(flags, size)),
        1 => (0.0..1.0).prop_map(Step::Commit),
        1 => (0.0..1.0).prop_map(Step::Rollback),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    #[test]
    fn files_hold_what_was_appended(steps in proptest::collection::vec(step(), 1..60), ahead in prop_oneof![Just(0_u64), Just(1_000)]) {
        let config = ChunkWriterConfig { chunk_bytes: 2_000, write_ahead_bytes: ahead };
        let (mut writer, mut disk) = (ChunkWriter::new(config), Disk::default());
        let mut is_trimmed = false;
        // The model: the entries, and for each whether a chunk ends with it.
        let (mut model, mut committed): (Vec<(Vec<u8>, bool)>, usize) = (Vec::new(), 0);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(bits, size) => {
                    let flags = EntryFlags::from_bits(bits).unwrap();
                    let entry = vec![1 + (number % 255) as u8; size.into()];
                    let seqno = Seqno(model.len() as u64 + 1);
                    writer.append(seqno, flags, &entry).unwrap();
                    if flags.contains(EntryFlags::FORCE_CHUNK_BEFORE) && let Some(last) = model.last_mut() {
                        last.1 = true;
                    }
                    model.push((entry, flags.contains(EntryFlags::FORCE_CHUNK_AFTER)));
                }
                Step::Commit(at) => {
                    committed = committed.max((model.len() as f64 * at) as usize);
                    writer.commit(Seqno(committed as u64));
                }
                Step::Rollback(at) => {
                    let to = committed + ((model.len() - committed) as f64 * at) as usize;
                    writer.rollback(Seqno(to as u64)).unwrap();
                    model.truncate(to);
                }
                Step::Trim => {
                    writer.trim();
                    is_trimmed = true;
                }
            }
            if number % 3 == 0 {
                disk.apply(writer.take_operations());
            }
        }
        // Once is enough, whatever comes after it.
        if !is_trimmed {
            writer.trim();
        }
        disk.apply(writer.take_operations());

        let mut expected = Disk::default();
        let mut start = 0;
        while start < model.len() {
            let end = (start..model.len()).find(|at| model[*at].1).map_or(model.len(), |at| at + 1);
            let is_complete = model[end - 1].1;
            let (mut file, mut table) = (vec![0; 8], Vec::new());
            for (entry, _) in &model[start..end] {
                table.extend_from_slice(&(file.len() as u32).to_le_bytes());
                file.extend_from_slice(entry);
            }
            let last = Seqno(end as u64);
            let mut name = ChunkName::open(Seqno(start as u64 + 1));
            if is_complete {
                let offset = file.len() as u64;
                file[..8].copy_from_slice(&offset.to_le_bytes());
                file.extend_from_slice(&table);
                name = name.with_state(match end <= committed {
                    true => ChunkState::Committed { end: last },
                    false => ChunkState::Complete { end: last },
                });
            }
            expected.files.insert(name, file);
            start = end;
        }
        prop_assert_eq!(&disk.files.keys().collect::<Vec<_>>(), &expected.files.keys().collect::<Vec<_>>());
        prop_assert_eq!(disk.files, expected.files);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(file in proptest::collection::vec(any::<u8>(), 0..300), end in proptest::option::of(1_u64..20)) {
        let name = ChunkName::open(Seqno(1));
        let name = end.map_or(name, |end| name.with_state(ChunkState::Complete { end: Seqno(end) }));
        if let Ok(chunk) = ChunkReader::new(name, &file) {
            prop_assert!(chunk.entries().count() <= file.len());
        }
        let _ = recover_open_chunk(name, &file, None, MAX_BATCHES_IN_FLIGHT);
    }
}

/// The names of the files after some operations.
fn names_after(names: &mut Vec<String>, operations: Vec<FileOperation>) -> Vec<(String, String)> {
    let mut renames = Vec::new();
    for operation in operations {
        match operation {
            FileOperation::Create { name } => names.push(name.to_string()),
            FileOperation::Rename { from, to } => {
                let at = names.iter().position(|name| *name == from.to_string()).unwrap();
                names[at] = to.to_string();
                renames.push((from.to_string(), to.to_string()));
            }
            FileOperation::Remove { name } => names.retain(|other| *other != name.to_string()),
            _ => {}
        }
    }
    names.sort();
    renames
}

#[test]
fn chunks_of_a_recovery_get_their_names_when_it_is_complete() {
    let last = Seqno(4);
    let open = Some((ChunkName::open(Seqno(1)), vec![8, 9, 10, 11], 12));
    let resumed = Resumed { last, committed: last, open, ..Resumed::default() };
    let mut writer = ChunkWriter::resume(config(), resumed).recovering();
    let mut names = vec!["ledger_1".to_owned()];
    let (before, after) = (EntryFlags::FORCE_CHUNK_BEFORE, EntryFlags::FORCE_CHUNK_AFTER);
    for (seqno, flags) in [(5, before), (6, after), (7, after), (8, EntryFlags::NONE)] {
        writer.append(Seqno(seqno), flags, b"entry").unwrap();
    }
    writer.commit(Seqno(6));
    names_after(&mut names, writer.take_operations());
    let during = ["1-4.committed", "5-6.committed.recovery", "7-7.recovery", "8.recovery"];
    assert_eq!(names, during.map(|name| format!("ledger_{name}")));

    writer.end_recovery();
    let renames = names_after(&mut names, writer.take_operations());
    assert_eq!(
        names,
        ["1-4.committed", "5-6.committed", "7-7", "8"].map(|n| format!("ledger_{n}"))
    );
    assert_eq!(renames[0].1, "ledger_8", "the newest first");
    // From here on it is a writer like any other.
    writer.append(Seqno(9), after, b"entry").unwrap();
    writer.append(Seqno(10), after, b"entry").unwrap();
    writer.commit(Seqno(10));
    writer.end_recovery();
    names_after(&mut names, writer.take_operations());
    let expected = ["1-4", "10-10", "5-6", "7-7", "8-9"].map(|n| format!("ledger_{n}.committed"));
    assert_eq!(names, expected);
}
