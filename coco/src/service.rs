//! Which service a command talks to, and as whom: from options, or from a `coco dev` folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::advice::Advise;
use crate::client::Client;
use crate::dev::Account;
use crate::governance_message::Signer;

/// Where `coco dev` keeps a service.
pub(crate) const DEFAULT_DIR: &str = "coco-dev";

/// How long a node may take to show that it is there.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// The service to talk to.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServiceArgs {
    /// Folder of a `coco dev` service, which tells what is not given by the options below
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) dir: PathBuf,

    /// Address of the service, such as https://127.0.0.1:8000
    #[arg(long, value_name = "URL", value_parser = https_url)]
    pub(crate) url: Option<String>,

    /// File with the service's certificate: nothing else is trusted
    #[arg(long, value_name = "FILE")]
    pub(crate) service_cert: Option<PathBuf>,
}

/// The member who signs.
#[derive(Args, Clone, Debug)]
pub(crate) struct SignerArgs {
    /// Member whose key is in the `coco dev` folder
    #[arg(long = "as", value_name = "NAME", default_value = "member0")]
    pub(crate) name: String,

    /// File with the member's certificate, for a member who is not in the folder
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,

    /// File with the member's private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// A service, and the member who signs.
#[derive(Args, Clone, Debug)]
pub(crate) struct SignedArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) signer: SignerArgs,
}

/// What `coco dev` writes down about the service it runs, in `service.json`; with `--json` it is
/// what it prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningService {
    /// Where it listens.
    pub(crate) url: String,
    /// File with its certificate.
    pub(crate) service_cert: PathBuf,
    /// Names of the members, whose keys are in the folder.
    pub(crate) members: Vec<String>,
    /// Names of the participants.
    pub(crate) users: Vec<String>,
    /// `VERB /path` of the application.
    pub(crate) endpoints: Vec<String>,
    /// Folder with the ledger.
    pub(crate) ledger: PathBuf,
    /// File with the node's log.
    pub(crate) log: PathBuf,
    /// Process id of the node, or of whoever runs the nodes.
    pub(crate) pid: u32,
    /// The nodes, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<RunningDevNode>,
    /// Its Ethereum chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ethereum: Option<RunningEthereum>,
}

/// One of several nodes of a development service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningDevNode {
    /// `node0` and so on; the folder of this name is its own.
    pub(crate) name: String,
    pub(crate) node_id: String,
    /// Where it listens for clients.
    pub(crate) url: String,
    /// Where it serves JSON-RPC, if the service has an Ethereum chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ethereum: Option<String>,
    /// Folder with its ledger.
    pub(crate) ledger: PathBuf,
    /// File with its log.
    pub(crate) log: PathBuf,
    /// Its process id.
    pub(crate) pid: u32,
}

/// The Ethereum chain of a development service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningEthereum {
    /// Where JSON-RPC is served, over HTTP and WebSocket.
    pub(crate) url: String,
    /// The chain id.
    pub(crate) chain_id: u64,
    /// Accounts with money, whose keys are public.
    pub(crate) accounts: Vec<Account>,
}

/// The file with a [`RunningService`].
pub(crate) fn description_file(dir: &Path) -> PathBuf {
    dir.join("service.json")
}

/// The files of an identity, named as CCF's keygenerator.sh does.
pub(crate) fn identity_files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}_cert.pem")), dir.join(format!("{name}_privk.pem")))
}

impl ServiceArgs {
    /// A client that trusts the service's certificate.
    pub(crate) fn connect(&self) -> Result<Client> {
        let (urls, certificate) = (self.urls()?, self.certificate()?);
        let url = node_to_ask(&urls, |url| knows_primary(url, &certificate));
        let url = url.context("the service has no address")?;
        Client::new(url, &certificate)
            .with_context(|| format!("{} is not usable", self.certificate_file().display()))
    }

    /// Where its nodes listen, the first before others.
    pub(crate) fn urls(&self) -> Result<Vec<String>> {
        match &self.url {
            Some(url) => Ok(vec![url.clone()]),
            None => {
                let RunningService { url, nodes, .. } = self.running()?;
                let others = nodes.into_iter().map(|node| node.url);
                let others: Vec<String> = others.filter(|other| *other != url).collect();
                Ok([vec![url], others].concat())
            }
        }
    }

    /// The service's certificate, PEM.
    pub(crate) fn certificate(&self) -> Result<String> {
        read(&self.certificate_file()).advise(|| "name the file with --service-cert".to_owned())
    }

    fn certificate_file(&self) -> PathBuf {
        match &self.service_cert {
            Some(file) => file.clone(),
            None => self.dir.join("service_cert.pem"),
        }
    }

    /// The options that name this service, each after a space: for commands to paste.
    pub(crate) fn as_options(&self) -> String {
        let url = self.url.as_ref().map(|url| format!(" --url {url}"));
        let file = self.service_cert.as_ref();
        let file = file.map(|file| format!(" --service-cert {}", file.display()));
        let dir = (url.is_none() || file.is_none()) && self.dir != Path::new(DEFAULT_DIR);
        let dir = dir.then(|| format!(" --dir {}", self.dir.display()));
        [dir, url, file].into_iter().flatten().collect()
    }

    /// What the folder tells.
    pub(crate) fn running(&self) -> Result<RunningService> {
        let file = description_file(&self.dir);
        let text = read(&file).advise(|| {
            "name the service with --url and --service-cert, or start one with `coco dev`"
                .to_owned()
        })?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what coco dev wrote", file.display()))
    }
}

impl SignerArgs {
    /// The member's key.
    pub(crate) fn load(&self, dir: &Path) -> Result<Signer> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => load_signer(cert, key),
            _ => {
                let (cert, key) = identity_files(dir, &self.name);
                load_signer(&cert, &key)
                    .advise(|| "name the member's files with --cert and --key".to_owned())
            }
        }
    }
}

impl SignedArgs {
    /// The signer, and after it the others whose keys are in the folder, unless the signer is named
    /// by files: who agree to what the signer proposes.
    pub(crate) fn members(&self) -> Result<Vec<Signer>> {
        let dir = &self.service.dir;
        let mut members = vec![self.signer.load(dir)?];
        if self.signer.cert.is_none() {
            let names = self.service.running().map(|service| service.members);
            for name in names.unwrap_or_default() {
                if name != self.signer.name {
                    let (cert, key) = identity_files(dir, &name);
                    members.push(load_signer(&cert, &key)?);
                }
            }
        }
        Ok(members)
    }
}

/// Nodes show who they are by TLS: nothing else is talked to.
fn https_url(text: &str) -> Result<String, String> {
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    match text.starts_with("https://") && !address.is_empty() {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("the address of a service begins with https://, as https://{address}"))
        }
    }
}

/// Of several nodes the first that knows a primary, since one that has left the service knows none;
/// or else the first that answers. Of the first it is said why it does not answer.
fn node_to_ask(urls: &[String], knows_primary: impl Fn(&str) -> Option<bool>) -> Option<&String> {
    if urls.len() == 1 {
        return urls.first();
    }
    let mut answering = None;
    for url in urls {
        match knows_primary(url) {
            Some(true) => return Some(url),
            Some(false) => answering = answering.or(Some(url)),
            None => {}
        }
    }
    answering.or(urls.first())
}

/// What a node says; nothing if it does not answer.
fn knows_primary(url: &str, certificate: &str) -> Option<bool> {
    #[derive(Deserialize)]
    struct Network {
        primary_id: Option<String>,
    }
    let client = Client::with_timeout(url, certificate, ANSWER_LIMIT).ok()?;
    let reply = client.get("/node/network").ok()?;
    let network = reply.accepted().ok().and_then(|reply| reply.json::<Network>().ok());
    Some(network.is_some_and(|network| network.primary_id.is_some()))
}

/// A member's key from its files.
pub(crate) fn load_signer(cert: &Path, key: &Path) -> Result<Signer> {
    Signer::from_pem(&read(cert)?, &read(key)?).with_context(|| format!("{}", cert.display()))
}

/// A text file.
pub(crate) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_knows_the_primary_is_asked() {
        let urls: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        for (known, asked) in [
            ([Some(true), Some(true), None], "a"),
            ([Some(false), None, Some(true)], "c"),
            ([None, Some(false), Some(false)], "b"),
            ([None, None, None], "a"),
        ] {
            let knows = |url: &str| known[urls.iter().position(|it| it == url).unwrap()];
            assert_eq!(node_to_ask(&urls, knows).unwrap(), asked, "{known:?}");
        }
        let only = |_: &str| unreachable!("there is no other");
        assert_eq!(node_to_ask(&urls[..1], only).unwrap(), "a");
        assert_eq!(node_to_ask(&[], |_| None), None);
    }

    #[test]
    fn an_address_begins_with_https() {
        let good = "https://127.0.0.1:8000";
        assert_eq!(https_url(good).unwrap(), good);
        for wrong in ["127.0.0.1:8000", "http://127.0.0.1:8000"] {
            assert!(https_url(wrong).unwrap_err().ends_with(", as https://127.0.0.1:8000"));
        }
        assert!(https_url("https://").is_err() && https_url("").is_err());
    }

    #[test]
    fn options_name_the_service_again() {
        let service = |dir: &str, url: Option<&str>, service_cert: Option<&str>| ServiceArgs {
            dir: dir.into(),
            url: url.map(str::to_owned),
            service_cert: service_cert.map(PathBuf::from),
        };
        let (url, cert) = (Some("https://a:1"), Some("s.pem"));
        for (service, options) in [
            (service("coco-dev", None, None), ""),
            (service("other", None, None), " --dir other"),
            (service("other", url, None), " --dir other --url https://a:1"),
            (service("coco-dev", url, cert), " --url https://a:1 --service-cert s.pem"),
        ] {
            assert_eq!(service.as_options(), options);
        }
    }
}
