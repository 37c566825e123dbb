//! `coco keys`: identities for members and participants.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use coco_crypto::Curve;
use serde_json::json;

use crate::advice::Advise;
use crate::identity::{Identity, Wanted};
use crate::output::Output;

#[derive(Subcommand, Debug)]
pub(crate) enum KeysCommand {
    /// Make a key and a self-signed certificate
    #[command(after_help = "\
The certificate goes to the members, who add its owner with the action set_member or set_user. The
private key stays where it was made. A member with an encryption key holds a recovery share.

Examples:
  coco keys new alice
  coco keys new alice --encryption-key --dir keys
  coco keys new bob --curve p384 --days 730")]
    New(NewArgs),
}

#[derive(Args, Debug)]
pub(crate) struct NewArgs {
    /// Name of the owner: of the files, and in the certificate
    #[arg(value_name = "NAME")]
    name: String,
    /// Folder for the files; created if need be
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Elliptic curve of the key
    #[arg(long, value_enum, default_value_t = CurveName::P256)]
    curve: CurveName,
    /// Days the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365,
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Make an RSA key for recovery shares as well
    #[arg(long)]
    encryption_key: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CurveName {
    /// NIST P-256, the faster one
    P256,
    /// NIST P-384, CCF's default
    P384,
}

pub(crate) fn run(command: &KeysCommand, output: Output) -> Result<()> {
    match command {
        KeysCommand::New(arguments) => new(arguments, output),
    }
}

fn new(arguments: &NewArgs, output: Output) -> Result<()> {
    let NewArgs { name, dir, curve, days, encryption_key } = arguments;
    ensure!(
        !name.is_empty() && name.len() <= 64 && !name.contains(['/', '\0']),
        "{name:?} is no name for files: at most 64 bytes, without slashes"
    );
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be used", dir.display()))?;
    let curve = match curve {
        CurveName::P256 => Curve::P256,
        CurveName::P384 => Curve::P384,
    };
    let wanted = Wanted { name, curve, days: *days, encryption_key: *encryption_key };
    let identity = Identity::generate(wanted)?;
    let files = identity
        .write(dir, name)
        .advise(|| "choose another name or --dir: existing keys are not overwritten".to_owned())?;
    let id = identity.certificate.fingerprint().to_string();
    output.print(&json!({ "id": id, "files": files }), || {
        let files: Vec<String> = files.iter().map(|file| format!("  {}", file.display())).collect();
        format!("id {id}\n{}", files.join("\n"))
    })?;
    Ok(())
}
