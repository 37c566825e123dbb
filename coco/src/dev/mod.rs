//! `coco dev`: a whole service in one command.
//!
//! ```text
//!   folder      keys of members and participants, node.json        made here, unless --keep
//!   node        in this process, as `coco node start` runs it; several in processes of their own
//!   bootstrap   over the node's own /gov interface: acknowledge, propose, vote, open
//! ```

mod accounts;
mod bootstrap;
mod configuration;
mod folder;
pub(crate) mod import;
mod leftovers;
mod process;
mod several;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Error, Result, anyhow, bail};
use clap::Args;
use coco_enclave::config::Config;
use coco_enclave::node::StartError;

use crate::advice::advised;
use crate::application::Application;
use crate::bundle::Bundle;
use crate::client::Client;
use crate::node::{
    LogLevel, PidFile, ProgramDigest, Protocols, RunningNode, log_to_file, log_to_stdout,
    read_files, read_genesis, runtime,
};
use crate::output::Output;
use crate::service::{RunningDevNode, RunningEthereum, RunningService, description_file, read};

pub(crate) use accounts::Account;
use configuration::{ETHEREUM_INTERFACE, INTERFACE, Listening};
use folder::{DevFolder, FirstBlock, MAX_NODES};

/// Where wallets and tools look for a development chain.
const ETHEREUM_PORT: u16 = 8545;
/// Where the first of several nodes waits for the others.
const NODE_PORT: u16 = 8081;

#[derive(Args, Debug)]
#[command(after_help = "\
The folder then holds the keys of member0..2 and user0..1, the service's certificate, the ledger,
the node's log (node.log) and its configuration (node.json). Everything is thrown away by the next
`coco dev`, unless with --keep; a folder that holds anything else is left alone.

With --nodes each node is a process of its own, with its ledger, log and configuration in a folder of
its own (node0, node1, ...): end one (`kill -9`) to see how the others go on. Ports count up from
node to node.

The node's TEE is software, which protects nothing: this is for development.

Examples:
  coco dev
  coco dev --app examples/notes --port 8443
  coco dev --keep                  all data again, under a new service certificate
  coco dev --nodes 3               a service that survives the loss of a node
  coco member list                 from another terminal, in the same working directory")]
pub(crate) struct DevArgs {
    /// Folder for keys, ledger and log
    #[arg(long, value_name = "DIR", default_value = "coco-dev")]
    dir: PathBuf,
    /// Application to load: a folder with app.json and src/, a bundle.json, or dist/ with either
    #[arg(long, value_name = "DIR")]
    app: Option<PathBuf>,
    /// Go on with the data of the folder: its members agree to a service that recovers the last one
    #[arg(long)]
    keep: bool,
    /// How many nodes the service has
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: u8,
    /// Port for clients; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// Port for Ethereum's JSON-RPC; 0 takes a free one, as does `--port 0` [default: 8545]
    #[arg(long, value_name = "PORT")]
    ethereum_port: Option<u16>,
    /// Serve Ethereum's JSON-RPC with TLS, which ends in the enclave, instead of as plain HTTP
    #[arg(long)]
    ethereum_tls: bool,
    /// Let gas on a new chain cost so many wei; otherwise it is free
    #[arg(long, value_name = "WEI", conflicts_with = "keep")]
    ethereum_base_fee: Option<u64>,
    /// Port for other nodes, which can then join; 0 takes a free one [default: 8081 with --nodes,
    /// otherwise the node stays alone]
    #[arg(long, value_name = "PORT")]
    node_port: Option<u16>,
    /// What is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    log_level: LogLevel,
    /// Log to the terminal instead of node.log
    #[arg(long, conflicts_with = "json")]
    log_to_terminal: bool,
}

impl DevArgs {
    fn ethereum_port(&self) -> u16 {
        let usual = if self.port == 0 { 0 } else { ETHEREUM_PORT };
        self.ethereum_port.unwrap_or(usual)
    }

    fn node_port(&self) -> u16 {
        let usual = if self.port == 0 { 0 } else { NODE_PORT };
        self.node_port.unwrap_or(usual)
    }
}

pub(crate) fn run(arguments: &DevArgs, application: &Application, output: Output) -> Result<()> {
    let start = Instant::now();
    let program = ProgramDigest::begin();
    let bundle = bundle(arguments, application)?;
    let folder = DevFolder::at(&arguments.dir);
    let is_new = !(arguments.keep && folder.has_service());
    if is_new && arguments.keep {
        folder.refuse_to_lose_a_ledger()?;
    }
    if is_new {
        folder.refuse_other_things()?;
    }
    folder.refuse_while_running()?;
    if arguments.keep && (arguments.nodes > 1 || folder.has_several_nodes()) {
        return Err(several_are_not_kept());
    }
    if arguments.nodes > 1 {
        return several::run(arguments, &folder, bundle.as_ref(), start, output);
    }
    let listening = Listening {
        clients: arguments.port,
        ethereum: Some(arguments.ethereum_port()),
        nodes: arguments.node_port,
        ethereum_tls: arguments.ethereum_tls,
    };
    listening.refuse_taken_ports()?;
    if is_new {
        folder.create(listening, &FirstBlock::of_development(arguments.ethereum_base_fee)?)?;
    } else {
        folder.reuse(listening)?;
    }
    let config = Config::parse(&read(&folder.config_file())?)?;
    log(arguments, &folder, &config)?;
    let files = read_files(&config, program)?;
    let adapters = Protocols::of(&config)?.with(application.adapter());
    let pid_file = PidFile::create(&folder.pid_file())?;
    let runtime = runtime(config.worker_threads)?;
    let node = runtime.block_on(RunningNode::start(config, files, adapters));
    let node = node.map_err(|error| if is_new { error } else { not_recovered(error, &folder) })?;
    let wanted = Wanted {
        is_new,
        replaces: arguments.app.is_some(),
        bundle: bundle.as_ref(),
        ethereum_tls: arguments.ethereum_tls,
    };
    let opened = open(&folder, &node, wanted);
    match opened.and_then(|service| announce(&folder, &service, start, output)) {
        Ok(()) => runtime.block_on(node.until_stopped(std::future::pending()))?,
        Err(error) => {
            runtime.block_on(node.stop());
            return Err(error.context(format!("see also {}", folder.log_file().display())));
        }
    }
    drop(pid_file);
    Ok(())
}

/// Only the program that has sealed a service's secrets gets them back.
fn not_recovered(error: Error, folder: &DevFolder) -> Error {
    let needs_members = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(StartError::RecoveryNeeded(_)))
    };
    if !error.chain().any(needs_members) {
        return error;
    }
    let path = folder.path().display();
    let what = format!("the service in {path} cannot be gone on with: {}", error.root_cause());
    advised(
        anyhow!(what),
        "this folder was made by another build: run that one, or leave out --keep for a new service",
    )
}

/// A node never comes back under its identity: the service would have to begin again with one node,
/// and with the ledger that has most of the others'.
fn several_are_not_kept() -> anyhow::Error {
    advised(
        anyhow!(
            "--keep goes on with the ledger of one node; which of several ledgers holds all that \
             was committed is not decided by this version"
        ),
        "leave out --keep for a new service, or --nodes for one node whose data can be kept; \
         `coco ledger verify` reads what several nodes have left",
    )
}

/// What to load: what was asked for, or the example for nodes that run scripts.
fn bundle(arguments: &DevArgs, application: &Application) -> Result<Option<Bundle>> {
    match (application, &arguments.app) {
        (Application::Scripts, Some(app)) => Bundle::load(app).map(Some),
        (Application::Scripts, None) => bootstrap::example().map(Some),
        (Application::Native(_), None) => Ok(None),
        (Application::Native(_), Some(_)) => {
            bail!("this program has its application compiled in and loads no other")
        }
    }
}

fn log(arguments: &DevArgs, folder: &DevFolder, config: &Config) -> Result<()> {
    if arguments.log_to_terminal {
        log_to_stdout(arguments.log_level, config.logging.format);
        return Ok(());
    }
    log_to_folder(arguments.log_level, folder)
}

fn log_to_folder(level: LogLevel, folder: &DevFolder) -> Result<()> {
    let path = folder.log_file();
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
    log_to_file(level, file);
    Ok(())
}

/// What the service is to become.
struct Wanted<'a> {
    is_new: bool,
    /// Whether the bundle takes the place of the application that is there.
    replaces: bool,
    bundle: Option<&'a Bundle>,
    ethereum_tls: bool,
}

/// Brings the service into the state that the announcement tells of.
fn open(folder: &DevFolder, node: &RunningNode, wanted: Wanted<'_>) -> Result<RunningService> {
    let address = node.address(INTERFACE).context("the node has no interface for clients")?;
    let url = format!("https://{address}");
    let client = Client::new(&url, &read(&folder.service_cert_file())?)?;
    if wanted.is_new {
        bootstrap::open(&client, folder, wanted.bundle)?;
    } else {
        bootstrap::reopen(&client, folder)?;
    }
    bootstrap::wait_until_open(&client)?;
    if let Wanted { is_new: false, replaces: true, bundle: Some(bundle), .. } = wanted {
        bootstrap::replace_app(&client, folder, bundle)?;
    }
    let service = RunningService {
        url,
        service_cert: folder.service_cert_file(),
        members: folder.member_names(),
        users: folder.user_names(),
        endpoints: bootstrap::endpoints(&client)?,
        ledger: folder.ledger(),
        log: folder.log_file(),
        pid: std::process::id(),
        nodes: Vec::new(),
        ethereum: ethereum(folder, node.address(ETHEREUM_INTERFACE), wanted.ethereum_tls)?,
    };
    describe(folder, &service)?;
    Ok(service)
}

/// Writes down what other commands read.
fn describe(folder: &DevFolder, service: &RunningService) -> Result<()> {
    let file = description_file(folder.path());
    std::fs::write(&file, serde_json::to_string_pretty(service)?)
        .with_context(|| format!("{} cannot be written", file.display()))
}

/// Where Ethereum is served, and who has money there.
fn ethereum(
    folder: &DevFolder,
    address: Option<SocketAddr>,
    tls: bool,
) -> Result<Option<RunningEthereum>> {
    let Some(address) = address else { return Ok(None) };
    let genesis = read_genesis(&folder.genesis_file())?;
    let accounts = accounts::funded(&genesis)?;
    let chain_id = genesis.config.chain_id;
    Ok(Some(RunningEthereum { url: ethereum_url(address, tls), chain_id, accounts }))
}

fn ethereum_url(address: SocketAddr, tls: bool) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}

fn announce(
    folder: &DevFolder,
    service: &RunningService,
    start: Instant,
    output: Output,
) -> Result<()> {
    tracing::info!("The service is open after {} ms", start.elapsed().as_millis());
    output.print(service, || announcement(folder, service, start.elapsed().as_millis()))?;
    Ok(())
}

fn announcement(folder: &DevFolder, service: &RunningService, elapsed_ms: u128) -> String {
    let RunningService { url, service_cert, ledger, log, nodes, .. } = service;
    let dir = folder.path().display();
    let endpoints = service.endpoints.join("\n               ");
    let (members, users) = (service.members.join(", "), service.users.join(", "));
    let example = example_call(folder, service);
    let nodes: String = nodes.iter().map(node_announcement).collect();
    let ethereum = service.ethereum.as_ref().map(ethereum_announcement).unwrap_or_default();
    format!(
        "A service is open at {url} ({elapsed_ms} ms)\n\n\
         application    {endpoints}\n\
         members        {members}\n\
         participants   {users}\n\
         keys           {dir}/NAME_cert.pem, {dir}/NAME_privk.pem\n\
         certificate    {}\n\
         ledger         {}\n\
         log            {}\n\
         {nodes}{ethereum}\n\
         Try:\n{example}\n\n\
         The TEE is software and protects nothing: for development only. Control-C stops.",
        service_cert.display(),
        ledger.display(),
        log.display(),
    )
}

fn node_announcement(node: &RunningDevNode) -> String {
    let RunningDevNode { name, url, ethereum, pid, ledger, .. } = node;
    let ethereum = ethereum.as_ref().map(|url| format!(", {url}")).unwrap_or_default();
    format!("{name}          {url}{ethereum}, process {pid}, {}\n", ledger.display())
}

fn ethereum_announcement(ethereum: &RunningEthereum) -> String {
    let RunningEthereum { url, chain_id, accounts } = ethereum;
    let line = |account: &accounts::Account| {
        format!("               {} {}\n", account.address, account.private_key)
    };
    let lines: String = accounts.iter().map(line).collect();
    let warning = match accounts.is_empty() {
        true => "none",
        false => "10,000 ether each; the keys are PUBLIC, never use them elsewhere",
    };
    format!("ethereum       {url}, chain id {chain_id}\naccounts       {warning}\n{lines}")
}

/// A line to paste: a write and a read if the application is the example, else what always works.
fn example_call(folder: &DevFolder, service: &RunningService) -> String {
    let dir = folder.path().display();
    let url = &service.url;
    let curl = format!(
        "curl --cacert {} --cert {dir}/user0_cert.pem --key {dir}/user0_privk.pem",
        service.service_cert.display()
    );
    let has = |endpoint: &str| service.endpoints.iter().any(|line| line == endpoint);
    if has("PUT /records/{key}") && has("GET /records/{key}") {
        let put = format!("{curl} -i -X PUT {url}/app/records/hello -d world");
        return format!("  {put}\n  {curl} {url}/app/records/hello");
    }
    let get = service
        .endpoints
        .iter()
        .find_map(|line| line.strip_prefix("GET ").filter(|path| !path.contains('{')));
    match get {
        Some(path) => format!("  {curl} {url}/app{path}"),
        None => format!("  {curl} {url}/node/network"),
    }
}
