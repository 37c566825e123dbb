//! `coco app`: applications into services.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::bundle::Bundle;
use crate::governance::actions;
use crate::output::Output;
use crate::service::SignedArgs;

#[derive(Subcommand, Debug)]
pub(crate) enum AppCommand {
    /// Propose an application for a service, and vote for it
    #[command(after_help = "\
The folder holds app.json and src/*.js, or bundle.json, or dist/ with either of them.
With the keys of a `coco dev` folder every member there votes; with --cert and --key only that
member does, and the others vote with `coco member vote`.

Examples:
  coco app deploy examples/notes
  coco app deploy dist --url https://node:8000 --service-cert service_cert.pem \\
      --cert alice_cert.pem --key alice_privk.pem")]
    Deploy(DeployArgs),
}

#[derive(Args, Debug)]
pub(crate) struct DeployArgs {
    /// The application's folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    #[command(flatten)]
    signed: SignedArgs,
}

pub(crate) fn run(command: &AppCommand, output: Output) -> Result<()> {
    match command {
        AppCommand::Deploy(arguments) => deploy(arguments, output),
    }
}

fn deploy(arguments: &DeployArgs, output: Output) -> Result<()> {
    let bundle = Bundle::load(&arguments.folder)?;
    let client = arguments.signed.service.connect()?;
    let proposal = actions(&[("set_js_app", json!({ "bundle": bundle }))]);
    let proposal = client.agree(&arguments.signed.members()?, &proposal)?;
    let result = json!({ "proposal": proposal, "endpoints": bundle.endpoints() });
    output.print(&result, || {
        let endpoints = bundle.endpoints().join("\n  ");
        match proposal.is_open() {
            false => format!("{}\n  {endpoints}", proposal.proposal_state),
            true => format!(
                "Open; the other members vote with\n  coco member vote {} --url URL ...",
                proposal.proposal_id
            ),
        }
    })?;
    Ok(())
}
