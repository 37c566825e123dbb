//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command::{
    app::AppCommand,
    keys::KeysCommand,
    ledger::LedgerCommand,
    member::MemberCommand,
    node::{RetireArgs, TrustArgs},
    receipt::ReceiptCommand,
    seat::SeatCommand,
    status::StatusArgs,
};
use crate::dev::DevArgs;
use crate::dev::import::ImportArgs;
use crate::node::NodeArgs;
use crate::service::ServiceArgs;

/// Coco: a confidential, governed ledger that runs applications.
#[derive(Parser, Debug)]
#[command(name = "coco", version, arg_required_else_help = true, propagate_version = true)]
#[command(after_help = "\
Start here:
  coco dev                         a running service with an example application
  coco dev --app DIR               ... with your application (app.json and src/)
  coco status                      the service above, and how its nodes are
  coco member list                 its members and proposals
  coco ledger verify coco-dev/ledger --service-cert coco-dev/service_cert.pem

Every command has examples of its own: coco COMMAND --help")]
pub(crate) struct Cli {
    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a whole service for development: keys, node, members, participants, application
    Dev(DevArgs),
    /// Make a service for development whose Ethereum chain was made elsewhere
    ImportChain(ImportArgs),
    /// Run a node, check its configuration; list, trust, retire and seat the nodes of a service
    #[command(subcommand)]
    Node(NodeCommand),
    /// Show a service and its nodes on one screen
    Status(StatusArgs),
    /// Take part in governance: propose, vote, acknowledge
    #[command(subcommand)]
    Member(MemberCommand),
    /// Put an application into a service
    #[command(subcommand)]
    App(AppCommand),
    /// Make keys and certificates
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Audit ledger files, offline
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Check receipts, offline
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  coco completions bash > /etc/bash_completion.d/coco")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a folder
    #[command(after_help = "Example:\n  coco man /usr/local/share/man/man1")]
    Man {
        /// The folder; created if need be
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Run a node until it is told to stop (SIGTERM or control-C)
    #[command(after_help = "\
The configuration is JSON in CCF's schema. `coco dev` leaves one to learn from in
coco-dev/node.json.

Examples:
  coco node start --config node.json
  coco node start --config node.json --log-level debug")]
    Start(NodeArgs),
    /// Read a configuration and the files it names, without starting anything
    #[command(after_help = "Example:\n  coco node check --config node.json && echo good")]
    Check(NodeArgs),
    /// List the nodes of a service, and those who wait to be trusted
    #[command(after_help = "\
Examples:
  coco node list
  coco node list --url https://node:8000 --service-cert service_cert.pem --json")]
    List(ServiceArgs),
    /// Propose to trust a node that has asked to join, and vote for it
    #[command(after_help = "\
The first characters of a node's id are enough. With the keys of a `coco dev` folder every member
there votes; with --cert and --key only that member does, and the others vote with
`coco member vote`. Messages are signed here, and go to the primary whichever node is asked.

Examples:
  coco node trust 3f2a
  coco node trust 3f2a --valid-days 90
  coco node trust 3f2a --url https://node:8000 --service-cert service_cert.pem \\
      --cert alice_cert.pem --key alice_privk.pem")]
    Trust(TrustArgs),
    /// Propose that a node leaves, and vote for it
    #[command(after_help = "\
The node takes part until its retirement is committed. It may be stopped when `coco node list` says
so; --wait waits for that. A node that only asked to join is forgotten. The last trusted node stays.

Examples:
  coco node retire 3f2a --wait
  coco node retire 3f2a --url https://node:8000 --service-cert service_cert.pem \\
      --cert alice_cert.pem --key alice_privk.pem")]
    Retire(RetireArgs),
    /// List, approve and remove seats: addresses at which an operator's node needs no vote
    #[command(subcommand)]
    Seat(SeatCommand),
}

/// Accepts the command line of CCF's executables, which have no commands:
/// `--config FILE [--check] [--log-level LEVEL]`.
pub(crate) fn as_ccf_writes_it(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let starts_with_option = arguments.get(1).is_some_and(|first| {
        let first = first.to_string_lossy();
        ["-c", "--check", "--log-level"].contains(&&*first) || first.starts_with("--config")
    });
    if starts_with_option {
        let checks = arguments.iter().any(|argument| argument == "--check");
        arguments.retain(|argument| argument != "--check");
        let command = if checks { "check" } else { "start" };
        arguments.splice(1..1, ["node".into(), command.into()]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn translated(line: &str) -> String {
        let words = as_ccf_writes_it(line.split(' ').map(OsString::from));
        let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into()).collect();
        words.join(" ")
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|command| visit(command, &path));
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no example");
            }
        }
        visit(&Cli::command(), "");
    }

    #[test]
    fn ccf_command_lines_are_understood() {
        assert_eq!(
            translated("./node --config 0.config.json --log-level info"),
            "./node node start --config 0.config.json --log-level info"
        );
        assert_eq!(translated("coco --config=a --check"), "coco node check --config=a");
        assert_eq!(translated("coco -c a"), "coco node start -c a");
        assert_eq!(translated("coco dev --json"), "coco dev --json");
        assert_eq!(translated("coco"), "coco");
        let line = as_ccf_writes_it("x --config a --log-level fail".split(' ').map(Into::into));
        assert!(Cli::try_parse_from(line).is_ok());
    }
}
