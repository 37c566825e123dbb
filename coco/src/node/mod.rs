//! `coco node`: a node in this process.

mod input;
mod log;
mod output_files;
mod protocols;
mod run;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use coco_enclave::config::{Config, Time};
use coco_enclave::node::Node;
use coco_ethereum::Ethereum;
use coco_host::SystemEntropy;
use serde_json::json;

use crate::advice::Advise;
use crate::application::Application;
use crate::output::Output;
use crate::service::read;

pub(crate) use input::{ProgramDigest, read_files};
pub(crate) use log::{LogLevel, log_to_file, log_to_stdout};
pub(crate) use output_files::PidFile;
pub(crate) use protocols::{Protocols, read_genesis};
pub(crate) use run::{RunningNode, runtime, usual_worker_threads};

#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// File with the configuration, in CCF's JSON schema
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// What is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// Wait so long for the configuration to appear, such as 5s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    config_timeout: Duration,
    /// Stop also when the standard input ends: for programs that run nodes
    #[arg(long)]
    until_input_ends: bool,
}

/// A time as configurations have it: `250ms`, `5s`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    text.parse::<Time>().map(|time| time.0).map_err(|error| error.to_string())
}

/// Runs a node until it is told to stop. Everything it has to say goes to stdout, as log lines.
pub(crate) fn start(arguments: &NodeArgs, application: &Application) -> Result<()> {
    let config = load(arguments)?;
    log_to_stdout(arguments.log_level, config.logging.format);
    let run = || -> Result<()> {
        let adapters = Protocols::of(&config)?.with(application.adapter());
        let files = read_files(&config, ProgramDigest::begin())?;
        let pid_file = PidFile::create(Path::new(&config.output_files.pid_file))?;
        let runtime = runtime(config.worker_threads)?;
        runtime.block_on(async {
            let mut end = std::pin::pin!(end_of_input(arguments.until_input_ends));
            let node = tokio::select! {
                node = RunningNode::start(config, files, adapters) => node?,
                () = &mut end => bail!("the input has ended before the node had started"),
            };
            node.until_stopped(end).await
        })?;
        drop(pid_file);
        Ok(())
    };
    run().inspect_err(|error| tracing::error!("{error:#}"))
}

/// Resolves when the standard input has ended, if that is of interest.
async fn end_of_input(matters: bool) {
    let (ended, end) = tokio::sync::oneshot::channel();
    if !matters {
        return std::future::pending().await;
    }
    // Nothing interrupts such a read: the thread ends with the process at the latest.
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        if let Err(error) = read {
            tracing::warn!(%error, "the standard input cannot be read");
        }
        let _ = ended.send(());
    });
    let _ = end.await;
}

/// Reads a configuration and what it names.
pub(crate) fn check(arguments: &NodeArgs, output: Output) -> Result<()> {
    let config = load(arguments)?;
    let files = read_files(&config, ProgramDigest::begin())?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    Node::check(&config, &files, &SystemEntropy, i64::try_from(now)?)
        .with_context(|| format!("{}", arguments.config.display()))?;
    let protocols = Protocols::of(&config)?;
    let protocols: Vec<&str> = protocols.ethereum.iter().map(|_| Ethereum::NAME).collect();
    let summary = json!({
        "config": arguments.config,
        "command": config.command.kind,
        "interfaces": config.interfaces().keys().collect::<Vec<_>>(),
        "members": files.members.len(),
        "protocols": protocols,
    });
    output.print(&summary, || {
        let interfaces: Vec<&str> = config.interfaces().keys().map(String::as_str).collect();
        format!(
            "{} is good: {:?} with {} members, interfaces {}",
            arguments.config.display(),
            config.command.kind,
            files.members.len(),
            interfaces.join(", ")
        )
    })?;
    Ok(())
}

fn load(arguments: &NodeArgs) -> Result<Config> {
    let start = Instant::now();
    while !arguments.config.exists() && start.elapsed() < arguments.config_timeout {
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = read(&arguments.config)
        .advise(|| "`coco dev` leaves an example in coco-dev/node.json".to_owned())?;
    Config::parse(&text).with_context(|| format!("{}", arguments.config.display()))
}
