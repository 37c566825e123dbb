//! Fuzzing: every parser of bytes from the host or the network, one target each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, command, root, succeed, works};

/// Inputs longer than this only slow the fuzzer down.
const MAX_INPUT_BYTES: usize = 256 * 1024;

/// What a target's run came to.
struct Outcome {
    target: String,
    runs: u64,
    seconds: u64,
    finding: bool,
}

/// Runs each target for a number of seconds and prints a table. libFuzzer's instrumentation is an
/// unstable compiler flag, hence the variable; sanitizers are off because the code is safe Rust.
pub fn run(seconds: u32, only: Option<&str>) -> Result<()> {
    let cargo_fuzz = install()?;
    seed_from_vectors()?;
    let names = targets()?;
    let mut outcomes = Vec::new();
    for name in names.iter().filter(|name| only.is_none_or(|part| name.contains(part))) {
        println!("\n== fuzz {name}");
        let build = ["fuzz", "build", "--sanitizer", "none", name];
        succeed(instrumented(&cargo_fuzz, &build).env("COCO_VECTORS", vectors()))?;
        outcomes.push(fuzz(&cargo_fuzz, name, seconds)?);
    }
    println!("\n| target | runs | seconds | findings |\n|---|---|---|---|");
    for Outcome { target, runs, seconds, finding } in &outcomes {
        println!("| {target} | {runs} | {seconds} | {} |", u8::from(*finding));
    }
    let found: Vec<_> = outcomes.iter().filter(|o| o.finding).map(|o| &*o.target).collect();
    if !found.is_empty() {
        bail!("findings in {}: see fuzz/artifacts", found.join(", "));
    }
    Ok(())
}

/// Installs `cargo fuzz` under `target/tools` the first time, where the machine has none.
fn install() -> Result<PathBuf> {
    if works(&mut cargo(&["fuzz", "--version"])) {
        return Ok("cargo-fuzz".into());
    }
    let tools = root().join("target/tools");
    let program = tools.join("bin/cargo-fuzz");
    if !program.exists() {
        succeed(cargo(&["install", "--locked", "cargo-fuzz", "--root"]).arg(&tools))?;
    }
    Ok(program)
}

fn instrumented(cargo_fuzz: &Path, arguments: &[&str]) -> Command {
    let mut fuzz = command(cargo_fuzz, arguments);
    fuzz.env("RUSTC_BOOTSTRAP", "1");
    fuzz
}

fn fuzz(cargo_fuzz: &Path, target: &str, seconds: u32) -> Result<Outcome> {
    let mut fuzz = instrumented(cargo_fuzz, &["fuzz", "run", "--sanitizer", "none", target, "--"]);
    fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_INPUT_BYTES}"));
    let output =
        fuzz.env("COCO_VECTORS", vectors()).output().context("cargo fuzz cannot be run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let finding = !output.status.success();
    if finding {
        let lines: Vec<_> = said.lines().collect();
        println!("{}", lines.split_at(lines.len().saturating_sub(60)).1.join("\n"));
    }
    let (runs, seconds) = done(&said).unwrap_or_default();
    println!("{runs} runs in {seconds} s, {} finding", if finding { "a" } else { "no" });
    Ok(Outcome { target: target.to_owned(), runs, seconds, finding })
}

/// libFuzzer's last word: `Done 123 runs in 60 second(s)`.
fn done(said: &str) -> Option<(u64, u64)> {
    let mut words = said.lines().rev().find_map(|line| line.strip_prefix("Done "))?.split(' ');
    let runs = words.next()?.parse().ok()?;
    Some((runs, words.nth(2)?.parse().ok()?))
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

fn vectors() -> PathBuf {
    let default = root().join("../shared/vectors");
    std::env::var_os("COCO_VECTORS").map_or(default, PathBuf::from)
}

/// Recorded ledgers are where random bytes would never get to.
fn seed_from_vectors() -> Result<()> {
    let vectors = vectors().join("ccf");
    let Ok(services) = std::fs::read_dir(&vectors) else {
        println!("no recorded ledgers at {}: the fuzzer begins with nothing", vectors.display());
        return Ok(());
    };
    for service in services.flatten().map(|service| service.path()) {
        for chunk in files(&service.join("ledger")) {
            let bytes = std::fs::read(&chunk)?;
            if bytes.len() <= MAX_INPUT_BYTES {
                seed("ledger_chunk", &chunk, 0, &bytes)?;
                seed("ledger_audit", &chunk, 0, &bytes)?;
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
