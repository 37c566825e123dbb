//! The `coco` command, and the library that compiles an application in Rust into a node.
//!
//! ```text
//!   coco dev          keys ─▶ node ─▶ members active ─▶ application ─▶ open     one command
//!   coco import-chain the same with an Ethereum chain that was made elsewhere
//!   coco node         a node from a configuration file; which nodes a service has
//!   coco status       the service and its nodes on one screen
//!   coco member, app  governance over HTTPS; messages are signed here, keys stay here
//!   coco ledger,      audit of files, offline: needs no service, no network
//!        receipt
//! ```
//!
//! [`main`] runs the `coco` binary, whose nodes run JavaScript applications. [`main_with`] is the
//! same command with an application of your own compiled in: anything that implements
//! [`coco_adapter::Endpoints`].
//!
//! Invariants:
//! * Private keys are made and used on this machine and sent nowhere.
//! * A service is trusted for its certificate and for nothing else.
//! * Results go to stdout, for people or with `--json` for programs; errors go to stderr and say
//!   what to do next. A node (`coco node start`) writes nothing to stderr.
//! * The exit status is 0 exactly when the command did, or verified, what it was asked for.
//!
//! An application of your own is a whole program:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use coco_adapter::Registry;
//!
//! fn main() -> ExitCode {
//!     let mut app = Registry::new("hello", "Hello", "Says hello");
//!     // app.add(method, path, properties, openapi, handler) ...
//!     coco::main_with(app)
//! }
//! ```

mod advice;
mod application;
mod bundle;
mod cli;
mod client;
mod command;
mod dev;
mod governance;
mod governance_message;
mod identity;
mod moment;
mod node;
mod nodes;
mod output;
mod scripts;
mod service;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use coco_adapter::Endpoints;
use tikv_jemallocator::Jemalloc;

use crate::application::Application;
use crate::cli::{Cli, Command, NodeCommand};
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Runs the command line with nodes that run JavaScript applications.
pub fn main() -> ExitCode {
    run(&Application::Scripts)
}

/// Runs the command line with nodes that run `app`.
pub fn main_with(app: impl Endpoints) -> ExitCode {
    run(&Application::Native(Arc::new(app)))
}

fn run(application: &Application) -> ExitCode {
    let cli = Cli::parse_from(cli::as_ccf_writes_it(std::env::args_os()));
    // A node has its log; anything on stderr counts as a crash for those who watch it.
    let logged = matches!(cli.command, Command::Node(NodeCommand::Start(_)));
    match dispatch(&cli, application) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = advice::explain(&error);
            if logged {
                // The last resort when stdout is gone is the exit status.
                drop(output::line(&text));
            } else {
                eprintln!("{text}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli, application: &Application) -> Result<()> {
    let output = Output::new(cli.json);
    match &cli.command {
        Command::Dev(arguments) => dev::run(arguments, application, output),
        Command::ImportChain(arguments) => dev::import::run(arguments, application, output),
        Command::Node(NodeCommand::Start(arguments)) => node::start(arguments, application),
        Command::Node(NodeCommand::Check(arguments)) => node::check(arguments, output),
        Command::Node(NodeCommand::List(service)) => command::node::list(service, output),
        Command::Node(NodeCommand::Trust(arguments)) => command::node::trust(arguments, output),
        Command::Node(NodeCommand::Retire(arguments)) => command::node::retire(arguments, output),
        Command::Node(NodeCommand::Seat(command)) => command::seat::run(command, output),
        Command::Status(arguments) => command::status::run(arguments, output),
        Command::Member(command) => command::member::run(command, output),
        Command::App(command) => command::app::run(command, output),
        Command::Keys(command) => command::keys::run(command, output),
        Command::Ledger(command) => command::ledger::run(command, output),
        Command::Receipt(command) => command::receipt::run(command, output),
        Command::Completions { shell } => command::shell::completions(*shell),
        Command::Man { folder } => command::shell::man(folder),
    }
}
