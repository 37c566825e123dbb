//! `coco member`: governance from the command line. Keys stay on this machine.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::governance::{Proposal, actions, plain_ballot};
use crate::output::{Output, counted};
use crate::scripts::check_ballot;
use crate::service::{ServiceArgs, SignedArgs, read};

/// Longest proposal read from stdin.
const MAX_INPUT_BYTES: u64 = 64 << 20;

#[derive(Subcommand, Debug)]
pub(crate) enum MemberCommand {
    /// Propose one or more actions
    #[command(after_help = "\
A proposal is JSON: {\"actions\": [{\"name\": \"...\", \"args\": {...}}]}. It takes effect when the
constitution says so, by default when more than half of the active members vote for it.

Examples:
  coco member propose proposal.json
  coco member propose --action set_recovery_threshold --args '{\"recovery_threshold\": 2}'
  coco member propose proposal.json --as member1
  coco member propose proposal.json --url https://node:8000 --service-cert service_cert.pem \\
      --cert alice_cert.pem --key alice_privk.pem")]
    Propose(ProposeArgs),
    /// Vote for or against a proposal
    #[command(after_help = "\
The first characters of a proposal's id are enough.

Examples:
  coco member vote 3f2a
  coco member vote 3f2a --against --as member2
  coco member vote 3f2a --ballot ballot.js     a module that exports vote(proposal, proposerId)")]
    Vote(VoteArgs),
    /// Take back one's own proposal
    #[command(after_help = "Example:\n  coco member withdraw 3f2a --as member1")]
    Withdraw(ProposalArgs),
    /// List members and proposals
    #[command(after_help = "\
Examples:
  coco member list
  coco member list --url https://node:8000 --service-cert service_cert.pem --json")]
    List(ServiceArgs),
    /// Show what a proposal would do, and how it stands
    #[command(after_help = "Example:\n  coco member show 3f2a")]
    Show(ShowArgs),
    /// Acknowledge the state of the service: makes a new member active
    #[command(after_help = "\
Examples:
  coco member ack --as member0
  coco member ack --url https://node:8000 --service-cert service_cert.pem \\
      --cert alice_cert.pem --key alice_privk.pem")]
    Ack(SignedArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ProposeArgs {
    /// File with the proposal; - reads it from stdin
    #[arg(value_name = "FILE", required_unless_present = "action")]
    file: Option<PathBuf>,
    /// Name of a single action, instead of a file
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    action: Option<String>,
    /// Arguments of the single action, as JSON
    #[arg(long, value_name = "JSON", requires = "action", conflicts_with = "file")]
    args: Option<String>,
    #[command(flatten)]
    signed: SignedArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ProposalArgs {
    /// The proposal's id, or its first characters
    #[arg(value_name = "PROPOSAL")]
    proposal: String,
    #[command(flatten)]
    signed: SignedArgs,
}

#[derive(Args, Debug)]
pub(crate) struct VoteArgs {
    #[command(flatten)]
    proposal: ProposalArgs,
    /// Vote no
    #[arg(long, conflicts_with = "ballot")]
    against: bool,
    /// File with a ballot in JavaScript, which sees the proposal and decides
    #[arg(long, value_name = "FILE")]
    ballot: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The proposal's id, or its first characters
    #[arg(value_name = "PROPOSAL")]
    proposal: String,
    #[command(flatten)]
    service: ServiceArgs,
}

pub(crate) fn run(command: &MemberCommand, output: Output) -> Result<()> {
    match command {
        MemberCommand::Propose(arguments) => propose(arguments, output),
        MemberCommand::Vote(arguments) => vote(arguments, output),
        MemberCommand::Withdraw(arguments) => withdraw(arguments, output),
        MemberCommand::List(service) => list(service, output),
        MemberCommand::Show(arguments) => show(arguments, output),
        MemberCommand::Ack(arguments) => ack(arguments, output),
    }
}

fn propose(arguments: &ProposeArgs, output: Output) -> Result<()> {
    let proposal = match (&arguments.action, &arguments.file) {
        (Some(name), _) => {
            let args = match &arguments.args {
                Some(text) => serde_json::from_str(text).context("--args is not JSON")?,
                None => json!({}),
            };
            actions(&[(name, args)])
        }
        (None, Some(file)) => proposal_file(file)?,
        (None, None) => bail!("name a file or an --action"),
    };
    let signer = arguments.signed.signer.load(&arguments.signed.service.dir)?;
    let proposal = arguments.signed.service.connect()?.propose(&signer, &proposal)?;
    print_proposal(&proposal, output)
}

fn proposal_file(file: &Path) -> Result<Value> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        let input = std::io::stdin().lock();
        input.take(MAX_INPUT_BYTES).read_to_string(&mut text).context("stdin cannot be read")?;
        text
    } else {
        read(file)?
    };
    let proposal: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    if !proposal.get("actions").is_some_and(Value::is_array) {
        bail!("{} has no array \"actions\"", file.display());
    }
    Ok(proposal)
}

fn vote(arguments: &VoteArgs, output: Output) -> Result<()> {
    let ballot = match &arguments.ballot {
        Some(file) => {
            let ballot = read(file)?;
            check_ballot(file, &ballot)?;
            ballot
        }
        None => plain_ballot(!arguments.against),
    };
    let signed = &arguments.proposal.signed;
    let signer = signed.signer.load(&signed.service.dir)?;
    let client = signed.service.connect()?;
    client.move_to_primary()?;
    let proposal = client.find_proposal(&arguments.proposal.proposal)?;
    print_proposal(&client.vote(&signer, &proposal.proposal_id, &ballot)?, output)
}

fn withdraw(arguments: &ProposalArgs, output: Output) -> Result<()> {
    let signer = arguments.signed.signer.load(&arguments.signed.service.dir)?;
    let client = arguments.signed.service.connect()?;
    client.move_to_primary()?;
    let proposal = client.find_proposal(&arguments.proposal)?;
    match client.withdraw(&signer, &proposal.proposal_id)? {
        Some(proposal) => print_proposal(&proposal, output),
        None => bail!("the service does not know the proposal any more"),
    }
}

fn list(service: &ServiceArgs, output: Output) -> Result<()> {
    let client = service.connect()?;
    let (members, mut proposals) = (client.members()?, client.proposals()?);
    proposals.sort_by_key(|proposal| !proposal.is_open());
    output.print(&json!({ "members": members, "proposals": proposals }), || {
        let mut text = String::from("members");
        for member in &members {
            let data = member.more.get("memberData").filter(|data| !data.is_null());
            let data = data.map(Value::to_string).unwrap_or_default();
            text.push_str(&format!("\n  {}  {:<8}  {data}", member.member_id, member.status));
        }
        text.push_str("\nproposals");
        for proposal in &proposals {
            let Proposal { proposal_id, proposal_state, ballot_count, .. } = proposal;
            text.push_str(&format!(
                "\n  {proposal_id}  {proposal_state:<9}  {}",
                counted(*ballot_count, "ballot")
            ));
        }
        if proposals.is_empty() {
            text.push_str("\n  none");
        }
        text
    })?;
    Ok(())
}

fn show(arguments: &ShowArgs, output: Output) -> Result<()> {
    let client = arguments.service.connect()?;
    let proposal = client.find_proposal(&arguments.proposal)?;
    let proposed = client.proposed_actions(&proposal.proposal_id)?;
    let actions = proposed.get("actions").cloned().unwrap_or_default();
    output.print(&json!({ "proposal": proposal, "actions": actions }), || {
        let more = match proposal.more.is_empty() {
            true => String::new(),
            false => format!("\n{:#}", Value::Object(proposal.more.clone())),
        };
        format!("{}{more}\n{:#}", summary(&proposal), abbreviated(actions))
    })?;
    Ok(())
}

/// The same value, with the middle of long texts (sources, certificates) left out.
fn abbreviated(value: Value) -> Value {
    const KEPT: usize = 60;
    match value {
        Value::String(text) => {
            let length = text.chars().count();
            if length <= KEPT.saturating_mul(2) {
                return Value::String(text);
            }
            let start: String = text.chars().take(KEPT).collect();
            Value::String(format!("{start}... ({length} characters; --json prints all)"))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(abbreviated).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, it)| (key, abbreviated(it))).collect())
        }
        other => other,
    }
}

fn ack(arguments: &SignedArgs, output: Output) -> Result<()> {
    let signer = arguments.signer.load(&arguments.service.dir)?;
    arguments.service.connect()?.acknowledge(&signer)?;
    let id = signer.id();
    output.print(&json!({ "memberId": id, "status": "Active" }), || format!("{id} is active"))?;
    Ok(())
}

fn print_proposal(proposal: &Proposal, output: Output) -> Result<()> {
    output.print(proposal, || {
        let next = match proposal.is_open() {
            true => format!(
                "\nMembers vote with: coco member vote {}",
                proposal.proposal_id.get(..8).unwrap_or(&proposal.proposal_id)
            ),
            false => String::new(),
        };
        format!("{}{next}", summary(proposal))
    })?;
    Ok(())
}

fn summary(proposal: &Proposal) -> String {
    let Proposal { proposal_id, proposer_id, proposal_state, ballot_count, .. } = proposal;
    let ballots = counted(*ballot_count, "ballot");
    format!("proposal {proposal_id}\n  {proposal_state}, {ballots}, by {proposer_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_abbreviated() {
        let short = json!({ "a": ["b", 1, null] });
        assert_eq!(abbreviated(short.clone()), short);
        let text = abbreviated(json!(["ü".repeat(500)])).to_string();
        assert!(text.contains("500 characters") && text.len() < 300, "{text}");
    }

    #[test]
    fn arguments_are_those_of_a_single_action() {
        use clap::Parser as _;
        let parse = |more: &[&str]| {
            let line = [&["coco", "member", "propose"], more].concat();
            crate::cli::Cli::try_parse_from(line).map(drop)
        };
        parse(&["--action", "a", "--args", "{}"]).unwrap();
        parse(&["p.json"]).unwrap();
        let error = parse(&["p.json", "--args", "{}"]).unwrap_err().to_string();
        assert!(error.contains("cannot be used with"), "{error}");
    }

    #[test]
    fn a_proposal_file_is_checked_before_it_is_sent() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("proposal.json");
        for (text, fault) in
            [("{", "is not JSON"), ("{}", "no array"), (r#"{"actions":1}"#, "no array")]
        {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", proposal_file(&file).unwrap_err());
            assert!(error.contains(fault), "{error}");
        }
        std::fs::write(&file, r#"{"actions":[]}"#).unwrap();
        assert_eq!(proposal_file(&file).unwrap(), json!({ "actions": [] }));
    }
}
