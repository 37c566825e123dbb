//! The steps of `cargo xtask test`, in order.

use anyhow::{Context, Result, bail};

use crate::clients;
use crate::links;
use crate::run::{cargo, command, root, succeed, works};

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "format", run: format },
    Step { name: "lint", run: lint },
    Step { name: "unit", run: unit },
    Step { name: "documentation", run: documentation },
    Step { name: "dependencies", run: dependencies },
    Step { name: "build", run: build },
    Step { name: "clients", run: clients::test },
];

/// The names of the steps.
pub fn names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

/// Runs the steps named, or all of them; stops at the first that fails.
pub fn run(only: &[String]) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| !names().any(|known| known == name.as_str())) {
        bail!("there is no step {unknown:?}; `cargo xtask test --list` names them");
    }
    for step in STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|n| n == step.name)) {
        println!("\n== {}", step.name);
        (step.run)().with_context(|| format!("step {:?} failed", step.name))?;
    }
    println!("\nAll steps passed.");
    Ok(())
}

fn format() -> Result<()> {
    succeed(&mut cargo(&["fmt", "--all", "--", "--check"]))
}

fn lint() -> Result<()> {
    succeed(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn unit() -> Result<()> {
    succeed(&mut cargo(&["test", "--workspace", "--no-fail-fast"]))
}

fn documentation() -> Result<()> {
    links::check()?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    succeed(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Installs `cargo deny` under `target/tools` the first time, where the machine has none.
fn dependencies() -> Result<()> {
    const CHECK: &[&str] = &["deny", "--offline", "check", "bans", "licenses", "sources"];
    // The check looks at the packages of every platform.
    succeed(&mut cargo(&["fetch", "--locked"]))?;
    if works(&mut cargo(&["deny", "--version"])) {
        return succeed(&mut cargo(CHECK));
    }
    let tools = root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        // Its work takes a moment, its optimised build minutes.
        let mut install = cargo(&["install", "--locked", "--debug", "cargo-deny", "--root"]);
        succeed(install.env("CARGO_PROFILE_DEV_DEBUG", "0").arg(&tools))?;
    }
    succeed(&mut command(program, CHECK.split_first().map_or(&[], |(_, rest)| rest)))
}

fn build() -> Result<()> {
    succeed(&mut cargo(&["build", "--release", "--package", "coco", "--package", "coco-basic"]))
}
