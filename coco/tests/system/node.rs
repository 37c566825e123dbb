//! `coco node` as an operator, or CCF's test infrastructure, runs it.

use std::path::Path;

use crate::support::{Process, coco, coco_json};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a member and a configuration for a new service.
fn prepared() -> TempDir {
    let directory = TempDir::new().unwrap();
    coco_json(directory.path(), &["keys", "new", "member0", "--encryption-key"]);
    let config = json!({
        "network": { "rpc_interfaces": {
            "clients": { "bind_address": "127.0.0.1:0" },
            "operators": {
                "bind_address": "127.0.0.1:0",
                "endorsement": { "authority": "Node" },
            },
        } },
        "command": {
            "type": "Start",
            "service_certificate_file": "service_cert.pem",
            "start": {
                "members": [{
                    "certificate_file": "member0_cert.pem",
                    "encryption_public_key_file": "member0_enc_pubk.pem",
                }],
            },
        },
        "output_files": { "rpc_addresses_file": "addresses.json" },
        "logging": { "format": "Text" },
    });
    std::fs::write(directory.path().join("node.json"), config.to_string()).unwrap();
    directory
}

/// Reads the log until a line contains `text`.
fn wait_for(process: &mut Process, text: &str) {
    while !process.line().contains(text) {}
}

#[test]
fn a_node_leaves_its_operators_files_and_keeps_stderr_silent() {
    let directory = prepared();
    let path = directory.path();
    let mut node = Process::spawn(path, &["--config", "node.json", "--log-level", "info"]);
    wait_for(&mut node, "Interface operators listens on");
    let addresses: Value =
        serde_json::from_slice(&std::fs::read(path.join("addresses.json")).unwrap()).unwrap();
    for name in ["clients", "operators"] {
        let (host, port) = addresses[name].as_str().unwrap().split_once(':').unwrap();
        assert_eq!(host, "127.0.0.1");
        assert_ne!(port, "0");
    }
    let pid: u32 = std::fs::read_to_string(path.join("node.pid")).unwrap().parse().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    for certificate in ["service_cert.pem", "nodecert.pem"] {
        let text = std::fs::read_to_string(path.join(certificate)).unwrap();
        assert!(text.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    }
    let url = format!("https://{}", addresses["clients"].as_str().unwrap());
    let listed =
        coco_json(path, &["member", "list", "--url", &url, "--service-cert", "service_cert.pem"]);
    assert_eq!(listed["members"][0]["status"], "Accepted");

    // A second node: the pid file is in its way, then the ledger.
    let second = coco(path, &["node", "start", "-c", "node.json"]);
    let text = String::from_utf8(second.stdout).unwrap();
    assert!(!second.status.success());
    assert!(text.contains("PID file node.pid already exists. Exiting."), "{text}");
    assert_eq!(String::from_utf8(second.stderr).unwrap(), "");

    node.signal("HUP");
    wait_for(&mut node, "Hangup: ");
    assert!(node.wait().success());
    assert_eq!(node.error_text(), "");
    assert!(!path.join("node.pid").exists());

    let again = coco(path, &["node", "start", "-c", "node.json"]);
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(!again.status.success());
    assert!(
        text.contains("On start, ledger directory should not exist or be empty (ledger)"),
        "{text}"
    );
    let certificate = ["--service-cert", "service_cert.pem"];
    let verdict = coco_json(path, &[&["ledger", "verify", "ledger"], &certificate[..]].concat());
    assert_eq!(verdict["valid"], true);
}

#[test]
fn configurations_are_checked() {
    let directory = prepared();
    let path = directory.path();
    assert_eq!(coco_json(path, &["node", "check", "-c", "node.json"])["members"], 1);
    assert!(coco(path, &["--config", "node.json", "--check"]).status.success());
    let text = std::fs::read_to_string(path.join("node.json")).unwrap();
    coco_json(path, &["keys", "new", "ops"]);
    let joins = |certificate: &str, private_key: &str| {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["network"]["node_to_node_interface"] = json!({ "bind_address": "127.0.0.1:0" });
        config["command"] = json!({
            "type": "Join",
            "service_certificate_file": "ops_cert.pem",
            "join": { "target_rpc_address": "10.0.0.1:8080", "seat": {
                "operator_certificate_file": certificate,
                "operator_private_key_file": private_key,
            } },
        });
        config.to_string()
    };
    std::fs::write(path.join("joins.json"), joins("ops_cert.pem", "ops_privk.pem")).unwrap();
    assert_eq!(coco_json(path, &["node", "check", "-c", "joins.json"])["command"], "Join");
    let constitution = "export function validate(input) {} export function apply(text, id) {}
        export function resolve(proposal, proposerId, votes, proposalId) {}";
    std::fs::write(path.join("constitution.js"), constitution).unwrap();
    let own = changed(&text, "command/start/constitution_files", json!(["constitution.js"]));
    std::fs::write(path.join("own.json"), own).unwrap();
    assert_eq!(coco_json(path, &["node", "check", "-c", "own.json"])["members"], 1);
    let table = [
        (joins("ops_cert.pem", "missing.pem"), "missing.pem"),
        (joins("member0_cert.pem", "ops_privk.pem"), "not that of the certificate"),
        (joins("ops_privk.pem", "ops_cert.pem"), "command.join.seat: the operator's certificate"),
        (text.replace("\"network\"", "\"netwrok\""), "netwrok"),
        (text.replace("member0_cert.pem", "missing.pem"), "missing.pem"),
        (text.replace("\"Start\"", "\"Begin\""), "Begin"),
        (changed(&text, "command/type", json!("Recover")), "command.recover"),
        (
            changed(&text, "command/start/service_configuration/recovery_threshold", json!(200)),
            "200",
        ),
        (
            changed(&text, "command/start/constitution_files", json!(["member0_cert.pem"])),
            "constitution_files",
        ),
        (changed(&text, "command/start/service_subject_name", json!("nobody")), "nobody"),
        (
            changed(&text, "command/start/members/0/certificate_file", json!("node.json")),
            "member 0",
        ),
        (changed(&text, "node_certificate/subject_name", json!("nobody")), "nobody"),
        (changed(&text, "node_certificate/subject_alt_names", json!(["x"])), "x"),
        (changed(&text, "ledger/max_transaction_size", json!("1B")), "max_transaction_size"),
        (
            changed(&text, "network/rpc_interfaces/clients/accepted_endpoints", json!(["("])),
            "clients",
        ),
        (changed(&text, "network/rpc_interfaces/clients/bind_address", json!("here")), "host:port"),
        (changed(&text, "network/rpc_interfaces/clients/protocol", json!("udp")), "tcp"),
        (
            changed(
                &text,
                "network/rpc_interfaces/clients/enabled_operator_features",
                json!(["All"]),
            ),
            "All",
        ),
        (
            changed(
                &text,
                "network/rpc_interfaces/clients/http_configuration/max_frame_size",
                json!("8KB"),
            ),
            "max_frame_size",
        ),
        ("{".to_owned(), "not valid"),
    ];
    for (config, named) in table {
        std::fs::write(path.join("bad.json"), config).unwrap();
        let output = coco(path, &["node", "check", "--config", "bad.json"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(error.contains(named), "{error}");
    }
}

/// The configuration with another value at a path.
fn changed(text: &str, path: &str, value: Value) -> String {
    let mut config: Value = serde_json::from_str(text).unwrap();
    *path.split('/').fold(&mut config, |at, key| match key.parse::<usize>() {
        Ok(number) => &mut at[number],
        Err(_) => &mut at[key],
    }) = value;
    config.to_string()
}

#[test]
fn a_start_that_cannot_succeed_leaves_nothing_behind() {
    let directory = prepared();
    let path = directory.path();
    let text = std::fs::read_to_string(path.join("node.json")).unwrap();
    let sealed = changed(&text, "output_files/sealed_service_location", json!("sealed"));
    let bad =
        changed(&sealed, "command/start/service_configuration/recovery_threshold", json!(200));
    std::fs::write(path.join("bad.json"), bad).unwrap();
    let output = coco(path, &["node", "start", "-c", "bad.json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("a recovery threshold of 200"), "{said}");
    let left = std::fs::read_dir(path.join("sealed")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the next try finds nothing in its way");
}
