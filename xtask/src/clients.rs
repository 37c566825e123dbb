//! Tests with unmodified third-party clients: PyPI `ccf`, `httpx` and `web3`; npm
//! `@microsoft/ccf-app`, `ethers`, `viem`, `web3` and Foundry.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{command, root, succeed, works};

/// PyPI `ccf` 7 asks for this version.
const PYTHON_MINOR_WANTED: u32 = 12;

/// Builds what the suites deploy, prepares the Python environment and runs the suites.
pub fn test() -> Result<()> {
    npm("examples/bank", &[&["ci"], &["run", "check"], &["run", "build"]])?;
    // anvil is for benchmarks only.
    npm("tests/ethereum", &[&["ci", "--omit=dev"], &["run", "build"]])?;
    let python = prepare_python()?;
    prepare_namespaces();
    let mut suites = command(python, &["-m", "pytest", "-q", "--durations=10", "tests"]);
    succeed(suites.env("COCO_BIN", root().join("target/release")))
}

/// Runs npm in a folder, once for each of the argument lists.
fn npm(folder: &str, runs: &[&[&str]]) -> Result<()> {
    for arguments in runs {
        let mut npm = command("npm", arguments);
        succeed(npm.args(["--no-audit", "--no-fund"]).current_dir(root().join(folder)))
            .with_context(|| format!("{folder} needs Node.js and npm"))?;
    }
    Ok(())
}

/// A virtual environment in `target/python` with what `tests/requirements.txt` names.
fn prepare_python() -> Result<PathBuf> {
    let folder = root().join("target/python");
    let python = folder.join("bin/python");
    let wanted = std::fs::read(root().join("tests/requirements.txt"))?;
    let installed = folder.join("requirements.txt");
    let is_current = std::fs::read(&installed).is_ok_and(|installed| installed == wanted);
    if !is_current || !works(&mut command(&python, &["-m", "pytest", "--version"])) {
        let (base, minor) = newest_python()?;
        create_environment(&base, &folder)?;
        let mut install = command(&python, &["-m", "pip", "install", "-q", "-r"]);
        install.arg(root().join("tests/requirements.txt"));
        if minor < PYTHON_MINOR_WANTED {
            println!(
                "Python 3.{minor} is older than PyPI ccf asks for; installing it all the same"
            );
            install.arg("--ignore-requires-python");
        }
        succeed(&mut install)?;
        std::fs::write(&installed, wanted)?;
    }
    Ok(python)
}

/// What makes network namespaces; without it the tests of faults are skipped, and say so.
fn prepare_namespaces() {
    if works(&mut command("ip", &["-V"])) {
        return;
    }
    println!("there is no `ip`; trying Debian's package");
    if let Err(error) = succeed(&mut command("apt-get", &["install", "-y", "iproute2"])) {
        println!("{error:#}");
    }
}

fn create_environment(base: &Path, folder: &Path) -> Result<()> {
    let create = || command(base, &["-m", "venv", "--clear"]).arg(folder).status();
    if create().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("this Python cannot create environments; trying Debian's package");
    succeed(&mut command("apt-get", &["install", "-y", "python3-venv"]))
        .context("install the package python3-venv, then run this again")?;
    succeed(command(base, &["-m", "venv", "--clear"]).arg(folder))
}

/// The newest Python 3 at hand, with its minor version.
fn newest_python() -> Result<(PathBuf, u32)> {
    let mut candidates: Vec<PathBuf> =
        (11..=15).rev().map(|minor| PathBuf::from(format!("python3.{minor}"))).collect();
    candidates.push("python3".into());
    if let Some(home) = std::env::var_os("HOME") {
        let versions = Path::new(&home).join(".pyenv/versions");
        let installed = std::fs::read_dir(versions).into_iter().flatten().flatten();
        candidates.extend(installed.map(|version| version.path().join("bin/python3")));
    }
    let found = candidates.into_iter().filter_map(|path| minor_version(&path).map(|m| (path, m)));
    match found.max_by_key(|(_, minor)| *minor) {
        Some((path, minor)) if minor >= 11 => Ok((path, minor)),
        _ => bail!("the client tests need Python 3.11 or newer, 3.12 for preference"),
    }
}

fn minor_version(python: &Path) -> Option<u32> {
    let script = "import sys; print(sys.version_info.minor if sys.version_info.major == 3 else 0)";
    let output = command(python, &["-c", script]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
