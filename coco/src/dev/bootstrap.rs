//! Opening a new or a recovered service the way its members would: by signed messages to its own
//! interface.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::folder::DevFolder;
use crate::bundle::Bundle;
use crate::client::Client;
use crate::governance::actions;
use crate::governance_message::Signer;
use crate::service::read;

/// How long an accepted proposal may take to be committed.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// The application that is loaded when none is named.
pub(crate) fn example() -> Result<Bundle> {
    let records = ("records.js", include_str!("app/src/records.js"));
    Bundle::from_sources(include_str!("app/app.json"), [records])
}

/// Members become active; participants, application and service come in one proposal.
pub(crate) fn open(client: &Client, folder: &DevFolder, bundle: Option<&Bundle>) -> Result<()> {
    let members = folder.members()?;
    for member in &members {
        client.acknowledge(member)?;
    }
    let users = folder.user_certificates()?;
    let mut steps: Vec<(&str, Value)> =
        users.iter().map(|cert| ("set_user", json!({ "cert": cert }))).collect();
    steps.extend(bundle.map(|bundle| ("set_js_app", json!({ "bundle": bundle }))));
    let identity = read(&folder.service_cert_file())?;
    steps.push(("transition_service_to_open", json!({ "next_service_identity": identity })));
    agree(client, &members, &actions(&steps))
}

/// The members agree that the service of the folder goes on under the identity that the node has
/// made for it.
pub(crate) fn reopen(client: &Client, folder: &DevFolder) -> Result<()> {
    let previous: Value = client.get_json("/node/service/previous_identity")?;
    let identity = read(&folder.service_cert_file())?;
    let opening = json!({
        "previous_service_identity": previous.get("previous_service_identity"),
        "next_service_identity": identity,
    });
    agree(client, &folder.members()?, &actions(&[("transition_service_to_open", opening)]))
}

/// Loads another application into the service that was kept.
pub(crate) fn replace_app(client: &Client, folder: &DevFolder, bundle: &Bundle) -> Result<()> {
    let proposal = actions(&[("set_js_app", json!({ "bundle": bundle }))]);
    agree(client, &folder.members()?, &proposal)
}

fn agree(client: &Client, members: &[Signer], proposal: &Value) -> Result<()> {
    if !client.agree(members, proposal)?.is_accepted()? {
        bail!("all members have voted, and the proposal is still open");
    }
    Ok(())
}

/// The service serves applications once its opening is committed.
pub(crate) fn wait_until_open(client: &Client) -> Result<()> {
    let start = Instant::now();
    loop {
        let reply = client.get("/node/ready/app")?;
        if reply.status == 204 || reply.status == 200 {
            return Ok(());
        }
        if start.elapsed() > OPEN_LIMIT {
            let network: Value = client.get_json("/node/network")?;
            bail!("the service does not open: {network}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The application's endpoints as `VERB /path`, as the service itself describes them.
pub(crate) fn endpoints(client: &Client) -> Result<Vec<String>> {
    /// Served by every node under /app, whatever the application.
    const COMMON: [&str; 5] = ["/api", "/commit", "/tx", "/receipt", "/receipt/cose"];
    let document: Value = client.get_json("/app/api")?;
    let paths = document.get("paths").and_then(Value::as_object);
    let mut lines = Vec::new();
    for (path, item) in paths.into_iter().flatten() {
        let path = path.strip_prefix("/app").unwrap_or(path);
        if COMMON.contains(&path) {
            continue;
        }
        let verbs = item.as_object().into_iter().flatten().map(|(verb, _)| verb.to_uppercase());
        lines.extend(verbs.map(|verb| format!("{verb} {path}")));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_bundle() {
        let lines = example().unwrap().endpoints();
        assert!(lines.contains(&"PUT /records/{key}".to_owned()), "{lines:?}");
    }
}
