//! `coco node seat`: where an operator may put a node without a vote for each.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use coco_crypto::Certificate;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::node::still_open;
use crate::advice::advised;
use crate::client::{Client, governance};
use crate::governance::actions;
use crate::nodes::{printable, short};
use crate::output::{Output, columns};
use crate::service::{ServiceArgs, SignedArgs, read};

/// Longest address in a table.
const ADDRESS_WIDTH: usize = 64;

#[derive(Subcommand, Debug)]
pub(crate) enum SeatCommand {
    /// List the seats, and who sits there
    #[command(after_help = "\
Examples:
  coco node seat list
  coco node seat list --url https://node:8000 --service-cert service_cert.pem --json")]
    List(ServiceArgs),
    /// Propose that an operator may put a node at an address without a vote, and vote for it
    #[command(after_help = "\
The address is the one that other nodes call: `published_address` of the node's
`network.node_to_node_interface`, or its `bind_address`. A node takes the seat when

  * members trust its code, as for any node that joins,
  * the operator's key has signed for it, which its configuration names:
      \"join\": { \"seat\": { \"operator_certificate_file\": \"ops_cert.pem\",
                          \"operator_private_key_file\": \"ops_privk.pem\" }, ... }
  * and the node that was trusted there before, if any, has fallen silent. That one is retired.

A seat has one operator: approved again, it is the other one's. `coco keys new` makes the keys.

Examples:
  coco keys new ops
  coco node seat approve 10.0.0.2:8081 --operator ops_cert.pem
  coco node seat approve 10.0.0.2:8081 --operator ops_cert.pem --url https://node:8000 \\
      --service-cert service_cert.pem --cert alice_cert.pem --key alice_privk.pem")]
    Approve(ApproveArgs),
    /// Propose that nodes at an address are voted for again, and vote for it
    #[command(after_help = "\
A node that sits there stays.

Example:
  coco node seat remove 10.0.0.2:8081")]
    Remove(RemoveArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ApproveArgs {
    /// Where other nodes call the node
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// File with the certificate of whoever runs the node
    #[arg(long, value_name = "FILE")]
    operator: PathBuf,
    #[command(flatten)]
    signed: SignedArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Where other nodes call the node
    #[arg(value_name = "HOST:PORT")]
    address: String,
    #[command(flatten)]
    signed: SignedArgs,
}

/// A seat as the service describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase"))]
struct Seat {
    address: String,
    #[serde(default)]
    operator_id: Option<String>,
    operator_certificate: String,
    node_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    value: Vec<Seat>,
}

pub(crate) fn run(command: &SeatCommand, output: Output) -> Result<()> {
    match command {
        SeatCommand::List(service) => list(service, output),
        SeatCommand::Approve(arguments) => approve(arguments, output),
        SeatCommand::Remove(arguments) => remove(arguments, output),
    }
}

fn list(service: &ServiceArgs, output: Output) -> Result<()> {
    let seats = seats(&service.connect()?)?;
    output.print(&json!({ "seats": seats }), || table(&seats))?;
    Ok(())
}

fn approve(arguments: &ApproveArgs, output: Output) -> Result<()> {
    let ApproveArgs { address, operator, signed } = arguments;
    let operator_cert = read(operator)?;
    let certificate = Certificate::from_pem(&operator_cert)
        .with_context(|| format!("{} is no certificate", operator.display()))?;
    let operator_id = certificate.fingerprint().to_string();
    let args = json!({ "address": address, "operator_cert": operator_cert });
    let agreed = format!("operator {} may put a node at {address}", short(&operator_id));
    propose(signed, address, "set_node_seat", args, &agreed, output)
}

fn remove(arguments: &RemoveArgs, output: Output) -> Result<()> {
    let RemoveArgs { address, signed } = arguments;
    let client = signed.service.connect()?;
    if !seats(&client)?.iter().any(|seat| seat.address == *address) {
        let error = anyhow!("there is no seat at {address:?}");
        return Err(advised(error, "`coco node seat list` names them"));
    }
    let agreed = format!("nodes at {address} are voted for from now on");
    propose(signed, address, "remove_node_seat", json!({ "address": address }), &agreed, output)
}

fn propose(
    signed: &SignedArgs,
    address: &str,
    action: &str,
    args: Value,
    agreed: &str,
    output: Output,
) -> Result<()> {
    let client = signed.service.connect()?;
    client.move_to_primary()?;
    let proposal = client.agree(&signed.members()?, &actions(&[(action, args)]))?;
    let accepted = proposal.is_accepted()?;
    output.print(&json!({ "address": address, "proposal": proposal }), || match accepted {
        true => agreed.to_owned(),
        false => still_open(&proposal, signed),
    })?;
    Ok(())
}

fn seats(client: &Client) -> Result<Vec<Seat>> {
    Ok(client.get_json::<Listed>(&governance("service/seats"))?.value)
}

/// A line for each seat, its columns aligned.
fn table(seats: &[Seat]) -> String {
    let header = ["seat", "operator", "node"].map(str::to_owned);
    let row = |seat: &Seat| {
        let nodes: Vec<&str> = seat.node_ids.iter().map(|node| short(node)).collect();
        [
            printable(&seat.address, ADDRESS_WIDTH),
            seat.operator_id.as_deref().map_or("-", short).to_owned(),
            if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") },
        ]
    };
    let rows: Vec<[String; 3]> = std::iter::once(header).chain(seats.iter().map(row)).collect();
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_seat() {
        let text = r#"{"address": "10.0.0.2:8081", "operatorId": "0123456789abcdef",
            "operatorCertificate": "PEM", "nodeIds": ["fedcba9876543210"]}"#;
        let taken: Seat = serde_json::from_str(text).unwrap();
        let free = Seat { operator_id: None, node_ids: Vec::new(), ..taken.clone() };
        let expected = "\
seat           operator      node
10.0.0.2:8081  0123456789ab  fedcba987654
10.0.0.2:8081  -             -";
        assert_eq!(table(&[taken.clone(), free]), expected);
        let json = serde_json::to_value(taken).unwrap();
        assert_eq!(json["node_ids"][0], "fedcba9876543210");
    }
}
