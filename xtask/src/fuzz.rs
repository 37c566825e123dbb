//! Fuzzing: every parser of bytes from the host or the network, one target each.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{cargo, command, root, succeed, works};

/// Inputs longer than this only slow the fuzzer down.
const MAX_INPUT_BYTES: usize = 256 * 1024;

/// Runs each target for a number of seconds. libFuzzer's instrumentation is an unstable compiler
/// flag, hence the variable; sanitizers are off because the code is safe Rust.
pub fn run(seconds: u32, only: Option<&str>) -> Result<()> {
    if !works(&mut cargo(&["fuzz", "--version"])) {
        succeed(&mut cargo(&["install", "--locked", "cargo-fuzz"]))?;
    }
    seed_from_vectors()?;
    for name in targets()?.iter().filter(|name| only.is_none_or(|part| name.contains(part))) {
        println!("\n== fuzz {name}");
        let mut fuzz = command("cargo", &["fuzz", "run", "--sanitizer", "none", name, "--"]);
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_INPUT_BYTES}"));
        succeed(fuzz.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(&folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    let stem = |path: PathBuf| path.file_stem()?.to_str().map(str::to_owned);
    let mut names: Vec<String> = files.flatten().filter_map(|file| stem(file.path())).collect();
    names.sort();
    Ok(names)
}

/// Recorded ledgers are where random bytes would never get to.
fn seed_from_vectors() -> Result<()> {
    let default = root().join("../shared/vectors");
    let vectors = std::env::var_os("COCO_VECTORS").map_or(default, PathBuf::from).join("ccf");
    let Ok(services) = std::fs::read_dir(&vectors) else {
        println!("no recorded ledgers at {}: the fuzzer begins with nothing", vectors.display());
        return Ok(());
    };
    for service in services.flatten().map(|service| service.path()) {
        for chunk in files(&service.join("ledger")) {
            let bytes = std::fs::read(&chunk)?;
            if bytes.len() <= MAX_INPUT_BYTES {
                seed("ledger_chunk", &chunk, 0, &bytes)?;
            }
            for (number, entry) in entries(&bytes).into_iter().enumerate().step_by(5) {
                seed("ledger_entry", &chunk, number, entry)?;
            }
        }
        for snapshot in files(&service.join("snapshots")) {
            let bytes = std::fs::read(&snapshot)?;
            seed("ledger_snapshot", &snapshot, 0, &bytes)?;
        }
        for certificate in files(&service.join("common")) {
            let bytes = std::fs::read(&certificate)?;
            seed("crypto_x509", &certificate, 0, &bytes)?;
            seed("crypto_keys", &certificate, 0, &bytes)?;
        }
    }
    Ok(())
}

fn seed(target: &str, source: &Path, number: usize, bytes: &[u8]) -> Result<()> {
    let corpus = root().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&corpus)?;
    let service = source.parent().and_then(Path::parent).and_then(Path::file_name);
    let name = [service, source.file_name()].map(|part| part.unwrap_or_default().to_string_lossy());
    Ok(std::fs::write(corpus.join(format!("{}-{number}", name.join("-"))), bytes)?)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect()
}

/// The entries of a complete chunk: see `docs/src/formats.md`.
fn entries(chunk: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let end = chunk.first_chunk().map_or(0, |offset| u64::from_le_bytes(*offset) as usize);
    let mut rest = chunk.get(8..end).unwrap_or_default();
    while let Some(header) = rest.first_chunk::<8>() {
        let size = (u64::from_le_bytes(*header) >> 16) as usize + header.len();
        let Some((entry, after)) = rest.split_at_checked(size) else { break };
        found.push(entry);
        rest = after;
    }
    found
}
