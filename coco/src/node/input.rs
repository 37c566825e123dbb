//! Reading the files that a configuration names.

use std::io;
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use coco_crypto::Digest;
use coco_enclave::config::{
    CommandType, Config, Files, JoinSeat, Start, StartMember, StartMemberFiles,
};
use coco_governance::seats::Operator;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::service::read;

/// The digest of this program, which takes a while to read: made on a thread of its own.
pub(crate) struct ProgramDigest(JoinHandle<io::Result<Digest>>);

impl ProgramDigest {
    /// Begins.
    pub(crate) fn begin() -> Self {
        Self(thread::spawn(coco_host::executable_digest))
    }

    fn finish(self) -> Result<Digest> {
        let digest = self.0.join().map_err(|_| anyhow!("reading the executable failed"))?;
        digest.context("the executable cannot be read")
    }
}

/// Reads all of them; file names are relative to the working directory.
pub(crate) fn read_files(config: &Config, program: ProgramDigest) -> Result<Files> {
    let start = config.command.start.as_ref();
    let members = start.map(|start| start.members.iter().map(member).collect()).transpose()?;
    let joins = config.command.kind == CommandType::Join;
    let service_certificate = joins.then_some(&*config.command.service_certificate_file);
    let seat = config.command.join.as_ref().filter(|_| joins).and_then(|join| join.seat.as_ref());
    Ok(Files {
        operator: seat.map(operator).transpose()?,
        service_certificate: service_certificate.map(|file| read(Path::new(file))).transpose()?,
        members: members.unwrap_or_default(),
        constitution: start.map(constitution).transpose()?.unwrap_or_default(),
        node_data: optional_json(config.node_data_json_file.as_deref())?,
        service_data: optional_json(config.service_data_json_file.as_deref())?,
        executable_digest: program.finish()?,
    })
}

fn operator(seat: &JoinSeat) -> Result<Operator> {
    let certificate = read(Path::new(&seat.operator_certificate_file))?;
    let private_key = Zeroizing::new(read(Path::new(&seat.operator_private_key_file))?);
    Operator::from_pem(&certificate, &private_key).context("command.join.seat")
}

fn member(member: &StartMember) -> Result<StartMemberFiles> {
    Ok(StartMemberFiles {
        certificate: read(Path::new(&member.certificate_file))?,
        encryption_public_key: given(member.encryption_public_key_file.as_deref())
            .map(|file| read(Path::new(file)))
            .transpose()?,
        data: optional_json(member.data_json_file.as_deref())?,
        recovery_role: member.recovery_role,
    })
}

/// The files in order, each followed by a line break; the default constitution when none is named.
fn constitution(start: &Start) -> Result<String> {
    if start.constitution_files.is_empty() {
        return Ok(coco_governance::default_constitution());
    }
    let mut text = String::new();
    for file in &start.constitution_files {
        text.push_str(&read(Path::new(file))?);
        text.push('\n');
    }
    coco_script::check_constitution(&text).context("command.start.constitution_files")?;
    Ok(text)
}

fn optional_json(file: Option<&str>) -> Result<Option<Value>> {
    let read_json = |file: &str| {
        let text = read(Path::new(file))?;
        serde_json::from_str(&text).with_context(|| format!("{file} is not JSON"))
    };
    given(file).map(read_json).transpose()
}

/// CCF's templates write an absent file as an empty name.
fn given(file: Option<&str>) -> Option<&str> {
    file.filter(|file| !file.is_empty())
}
