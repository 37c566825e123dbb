//! Recorded ledgers pass; tampered copies do not.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;
use crate::advice::explain;
use crate::cli::{Cli, Command};
use crate::command::ledger::LedgerCommand;
use crate::identity::{Identity, Wanted};

/// The recorded services, or nothing where the vectors are not at hand.
fn recorded() -> Vec<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let root = std::env::var_os("COCO_VECTORS").map_or(default.into(), PathBuf::from);
    let Ok(folders) = fs::read_dir(root.join("ccf")) else {
        assert!(std::env::var_os("CI").is_none(), "the recorded ledgers are missing");
        eprintln!("skipped: no recorded ledgers");
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("ledger").is_dir());
    folders.sort();
    folders
}

fn verdict(ledger: &Path, more: &[&str]) -> Result<Result<AuditReport, Box<Fault>>> {
    let mut line = vec!["coco", "--json", "ledger", "verify", ledger.to_str().unwrap()];
    line.extend(more);
    let Command::Ledger(LedgerCommand::Verify(arguments)) = Cli::parse_from(line).command else {
        panic!("another command")
    };
    verify(&arguments, Output::new(true))
}

#[test]
fn recorded_ledgers_pass() {
    for folder in recorded() {
        let ledger = folder.join("ledger");
        let secrets = folder.join("decryption.json");
        let certificate = folder.join("common/service_cert.pem");
        let report = verdict(&ledger, &[]).unwrap().unwrap();
        assert_eq!((report.unsigned(), &report.torn_tail), (0, &None));
        let with_secrets = ["--secrets", secrets.to_str().unwrap()];
        if secrets.is_file() {
            let report = verdict(&ledger, &with_secrets).unwrap().unwrap();
            assert_eq!(report.stats.decrypted, report.stats.entries);
        }
        if certificate.is_file() {
            let trusted = ["--service-cert", certificate.to_str().unwrap()];
            verdict(&ledger, &trusted).unwrap().unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_is_named() {
    let Some(folder) = recorded().into_iter().next() else { return };
    let copy = tempfile::TempDir::new().unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("ledger")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let victim = names[names.len() / 2].clone();
    let file = copy.path().join(&victim);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::remove_file(&file).unwrap();
    fs::write(&file, bytes).unwrap();
    let fault = verdict(copy.path(), &[]).unwrap().unwrap_err();
    assert_eq!(fault.file, victim);
    assert!(fault.offset > 0);
    assert!(explain(&refusal(&fault)).contains("take this file from another node's ledger"));
}

#[test]
fn another_services_certificate_is_not_the_files_fault() {
    let Some(folder) = recorded().into_iter().next() else { return };
    let other = Identity::generate(Wanted {
        name: "other",
        curve: coco_crypto::Curve::P384,
        days: 1,
        encryption_key: false,
    });
    let scratch = tempfile::TempDir::new().unwrap();
    let file = scratch.path().join("other_cert.pem");
    fs::write(&file, other.unwrap().certificate.to_pem()).unwrap();
    let trusted = ["--service-cert", file.to_str().unwrap()];
    let fault = verdict(&folder.join("ledger"), &trusted).unwrap().unwrap_err();
    let text = explain(&refusal(&fault));
    assert!(text.contains("the ledger is not that of the service certificate"), "{text}");
    assert!(text.contains("has a new certificate") && !text.contains("this file"), "{text}");
}

#[test]
fn a_chunk_may_lie_elsewhere_in_another_state() {
    let Some(folder) = recorded().into_iter().next() else { return };
    let (ledger, archive) = (folder.join("ledger"), tempfile::TempDir::new().unwrap());
    for entry in fs::read_dir(&ledger).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if let Some(complete) = name.strip_suffix(".committed") {
            fs::copy(entry.path(), archive.path().join(complete)).unwrap();
        }
    }
    let whole = verdict(&ledger, &[]).unwrap().unwrap();
    let both = verdict(&ledger, &[archive.path().to_str().unwrap()]).unwrap().unwrap();
    assert_eq!((both.last, both.stats.chunks), (whole.last, whole.stats.chunks));
}

#[test]
fn a_chunk_whose_table_is_torn_names_its_service() {
    let Some(folder) = recorded().into_iter().next() else { return };
    let copy = tempfile::TempDir::new().unwrap();
    let mut file = fs::read(folder.join("ledger/ledger_1-14.committed")).unwrap();
    file.truncate(file.len() - 3);
    fs::write(copy.path().join("ledger_1-14"), &file).unwrap();
    let report = verdict(copy.path(), &[]).unwrap().unwrap();
    assert_eq!(report.last.seqno.0, 14);
    assert_eq!(report.torn_tail.unwrap().0, "ledger_1-14");
}

#[test]
fn a_file_that_a_live_node_has_just_created_is_no_fault() {
    let Some(folder) = recorded().into_iter().next() else { return };
    let copy = tempfile::TempDir::new().unwrap();
    for entry in fs::read_dir(folder.join("ledger")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let whole = verdict(copy.path(), &[]).unwrap().unwrap();
    let next = whole.last.seqno.next();
    fs::write(copy.path().join(format!("ledger_{next}")), "").unwrap();
    let report = verdict(copy.path(), &[]).unwrap().unwrap();
    assert_eq!((report.last, report.torn_tail), (whole.last, None));
}

#[test]
fn an_empty_folder_is_no_ledger() {
    let folder = tempfile::TempDir::new().unwrap();
    let error = verdict(folder.path(), &[]).unwrap_err();
    assert!(format!("{error:#}").contains("there is no ledger"));
}
