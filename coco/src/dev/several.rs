//! `coco dev --nodes`: several nodes of one service, each a process of its own.
//!
//! ```text
//!   this process   keys ─▶ node0 starts the service ─▶ others join while it opens ─▶ open
//!   each node      `coco node start` in a folder of its own; it ends when its input does
//! ```
//!
//! However this process ends, so does the input of the nodes: none is left behind. A node that is
//! killed stays down, and the others go on.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use coco_host::Signals;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::configuration::{Command, ETHEREUM_INTERFACE, Listening};
use super::folder::{DevFolder, FirstBlock};
use super::process::NodeProcess;
use super::{DevArgs, announce, bootstrap, describe, ethereum};
use crate::bundle::Bundle;
use crate::client::Client;
use crate::node::{LogLevel, PidFile, runtime, usual_worker_threads};
use crate::output::Output;
use crate::service::{RunningService, read};

/// How long all nodes may take to start and to take part.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at what other processes do.
const POLL: Duration = Duration::from_millis(5);
/// Pause between two looks whether a node has ended.
const WATCH: Duration = Duration::from_millis(200);

/// Starts them, opens the service, and lets it run until it is told to stop.
pub(super) fn run(
    arguments: &DevArgs,
    folder: &DevFolder,
    bundle: Option<&Bundle>,
    start: Instant,
    output: Output,
) -> Result<()> {
    if arguments.log_to_terminal {
        bail!("the logs of several nodes are in their folders, not on the terminal");
    }
    let listening = ports(arguments)?;
    listening.iter().try_for_each(Listening::refuse_taken_ports)?;
    let chain = FirstBlock::of_development(arguments.ethereum_base_fee)?;
    folder.create_shared(&chain)?;
    let pid_file = PidFile::create(&folder.pid_file())?;
    let mut nodes = Nodes { all: Vec::new(), log_level: arguments.log_level };
    let opened = open(&mut nodes, folder, &chain.fees, &listening, bundle);
    let ran = opened.and_then(|service| {
        runtime(1)?.block_on(async {
            // Whoever reads the announcement may tell it to stop.
            let signals = Signals::install()?;
            announce(folder, &service, start, output)?;
            nodes.watch(signals).await
        })
    });
    let stopped = nodes.stop(&read(&folder.service_cert_file()).unwrap_or_default());
    drop(pid_file);
    ran.and(stopped)
}

/// Where each node listens: ports count up from node to node.
fn ports(arguments: &DevArgs) -> Result<Vec<Listening>> {
    let numbered = |first: u16, number: u8, option: &str| match first {
        0 => Ok(0),
        first => first
            .checked_add(number.into())
            .with_context(|| format!("{option} {first} leaves no ports for all nodes")),
    };
    let listening = |number: u8| {
        Ok(Listening {
            clients: numbered(arguments.port, number, "--port")?,
            ethereum: Some(numbered(arguments.ethereum_port(), number, "--ethereum-port")?),
            nodes: Some(numbered(arguments.node_port(), number, "--node-port")?),
            ethereum_tls: arguments.ethereum_tls,
        })
    };
    let all: Vec<Listening> = (0..arguments.nodes).map(listening).collect::<Result<_>>()?;
    let mut taken = BTreeSet::new();
    let ports = all.iter().flat_map(|node| [Some(node.clients), node.ethereum, node.nodes]);
    if let Some(twice) = ports.flatten().find(|port| *port != 0 && !taken.insert(*port)) {
        bail!(
            "port {twice} is to serve two purposes: choose others with --port, --ethereum-port, \
             --node-port"
        );
    }
    Ok(all)
}

fn open(
    nodes: &mut Nodes,
    folder: &DevFolder,
    fees: &Value,
    listening: &[Listening],
    bundle: Option<&Bundle>,
) -> Result<RunningService> {
    let deadline = Instant::now() + START_LIMIT;
    let mut places = (0_u8..).zip(listening);
    let (_, first) = places.next().context("a service has a node")?;
    let threads = usual_worker_threads(listening.len());
    folder.create_home(0, *first, Command::Start { fees }, threads)?;
    let started = nodes.start(folder, 0)?;
    let target = started.wait_started(deadline)?.to_string();
    let chain = ethereum(folder, started.address(ETHEREUM_INTERFACE), first.ethereum_tls)?;
    for (number, listening) in places {
        folder.create_home(number, *listening, Command::Join { target: &target }, threads)?;
        nodes.start(folder, number)?;
    }
    let certificate = read(&folder.service_cert_file())?;
    let mut running = Vec::new();
    for node in &mut nodes.all {
        running.push(node.describe(&certificate, first.ethereum_tls, deadline)?);
    }
    let client = Client::new(&format!("https://{target}"), &certificate)?;
    wait_until_all_count(&client, running.len(), deadline)?;
    bootstrap::open(&client, folder, bundle)?;
    for node in &running {
        bootstrap::wait_until_open(&Client::new(&node.url, &certificate)?)?;
    }
    let first = running.first().context("a service has a node")?;
    let service = RunningService {
        url: first.url.clone(),
        service_cert: folder.service_cert_file(),
        members: folder.member_names(),
        users: folder.user_names(),
        endpoints: bootstrap::endpoints(&client)?,
        ledger: first.ledger.clone(),
        log: first.log.clone(),
        pid: std::process::id(),
        nodes: running,
        ethereum: chain,
    };
    describe(folder, &service)?;
    Ok(service)
}

/// Until every node is a part of the majority, so that the loss of any is survived from the start.
fn wait_until_all_count(client: &Client, count: usize, deadline: Instant) -> Result<()> {
    #[derive(Deserialize)]
    struct Consensus {
        details: Details,
    }
    #[derive(Deserialize)]
    struct Details {
        configs: Vec<Configuration>,
    }
    #[derive(Deserialize)]
    struct Configuration {
        nodes: Map<String, Value>,
    }
    loop {
        let Consensus { details } = client.get_json("/node/consensus")?;
        if details.configs.iter().all(|configuration| configuration.nodes.len() == count) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not all of {count} nodes take part after {START_LIMIT:?}");
        }
        thread::sleep(POLL);
    }
}

/// All of them.
struct Nodes {
    all: Vec<NodeProcess>,
    log_level: LogLevel,
}

impl Nodes {
    fn start(&mut self, folder: &DevFolder, number: u8) -> Result<&mut NodeProcess> {
        self.all.push(NodeProcess::start(folder, number, self.log_level)?);
        self.all.last_mut().context("it was added")
    }

    /// Until a signal arrives, or no node is left.
    async fn watch(&mut self, mut signals: Signals) -> Result<()> {
        loop {
            tokio::select! {
                _ = signals.next() => return Ok(()),
                () = tokio::time::sleep(WATCH) => {}
            }
            let ended = self.all.iter_mut().map(NodeProcess::has_ended).filter(|ended| *ended);
            if ended.count() == self.all.len() {
                bail!("all nodes have ended");
            }
        }
    }

    /// Backups first: then the primary has nobody to hand over to, and no election begins that
    /// nobody could win.
    fn stop(&mut self, certificate: &str) -> Result<()> {
        let running = self.all.iter_mut().filter(|node| !node.ended);
        let (mut last, mut first): (Vec<_>, Vec<_>) =
            running.partition(|node| node.is_primary(certificate));
        let mut late = Vec::new();
        for group in [&mut first, &mut last] {
            group.iter_mut().for_each(|node| node.end_input());
            let slow = group
                .iter_mut()
                .filter_map(|node| (!node.wait_stopped()).then(|| node.name.clone()));
            late.extend(slow);
        }
        if !late.is_empty() {
            bail!("not stopped in time, and ended: {}", late.join(", "));
        }
        Ok(())
    }
}
