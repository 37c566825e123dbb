//! The whole system as its first user meets it: `coco dev`, governance, receipts, audit.

use std::io::Write as _;
use std::process::Command;

use crate::support::{Dev, Process, coco, coco_json};
use serde_json::Value;

const VERIFY: [&str; 5] =
    ["ledger", "verify", "coco-dev/ledger", "--service-cert", "coco-dev/service_cert.pem"];

#[test]
fn a_service_from_nothing_to_an_audited_ledger() {
    let dev = Dev::start(&[]);
    let user = dev.client("user0");
    let transaction = dev.put(&user, "/app/records/one", "first");
    assert_eq!(dev.get(&user, "/app/records/one"), (200, "first".to_owned()));
    assert_eq!(dev.get(&user, "/records"), (200, r#"["one"]"#.to_owned()));
    assert_eq!(dev.get(&user, "/app/records/two").0, 404);

    // Receipts of both kinds convince the offline verifier.
    for (path, file) in [("/node/receipt", "r.json"), ("/node/receipt/cose", "r.cose")] {
        let url = format!("{}{path}?transaction_id={transaction}", dev.url());
        let bytes = user.get(&url).call().unwrap().body_mut().read_to_vec().unwrap();
        std::fs::write(dev.path().join(file), bytes).unwrap();
        let arguments = ["receipt", "verify", file, "--service-cert", "coco-dev/service_cert.pem"];
        let proven = coco_json(dev.path(), &arguments);
        assert_eq!(proven["transaction_id"], transaction.as_str());
        let claims = "ab".repeat(32);
        let wrong_claims = [&arguments[..], &["--claims-digest", &claims]].concat();
        assert!(!coco(dev.path(), &wrong_claims).status.success());
    }

    let directory = dev.stop();
    let verdict = coco_json(directory.path(), &VERIFY);
    assert_eq!((&verdict["valid"], &verdict["unsigned"]), (&Value::Bool(true), &Value::from(0)));
    let stats = coco_json(directory.path(), &["ledger", "stats", "coco-dev/ledger"]);
    assert_eq!(stats["transactions"], verdict["transactions"]);
    assert!(stats["maps"].get("records").is_none(), "private maps are not to be seen");
}

#[test]
fn members_govern_from_the_command_line() {
    let dev = Dev::start(&[]);
    let run = |arguments: &[&str]| coco_json(dev.path(), arguments);
    let action = ["member", "propose", "--action", "set_recovery_threshold", "--args"];
    let proposal = run(&[&action[..], &[r#"{"recovery_threshold": 3}"#]].concat());
    assert_eq!(proposal["proposalState"], "Open");
    let id = proposal["proposalId"].as_str().unwrap();
    let short = &id[..12];
    let shown = run(&["member", "show", short]);
    assert_eq!(shown["actions"][0]["name"], "set_recovery_threshold");
    assert_eq!(run(&["member", "vote", short, "--as", "member1"])["proposalState"], "Open");
    assert_eq!(run(&["member", "vote", short, "--as", "member2"])["proposalState"], "Accepted");
    let listed = run(&["member", "list"]);
    assert_eq!(listed["members"].as_array().unwrap().len(), 3);

    // A refusal names the service's reason and the next step, and is not a success.
    let refused = coco(dev.path(), &["member", "vote", id, "--as", "member0"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(text.contains("ProposalNotOpen") && text.contains("what to do:"), "{text}");
    let bad = [&action[..], &[r#"{"recovery_threshold": 0}"#]].concat();
    let text = String::from_utf8(coco(dev.path(), &bad).stderr).unwrap();
    assert!(text.contains("ProposalFailedToValidate"), "{text}");

    let proposal = run(&[&action[..], &[r#"{"recovery_threshold": 1}"#]].concat());
    let id = proposal["proposalId"].as_str().unwrap();
    // A ballot that cannot be counted does not use up the vote; one that can is the only one.
    std::fs::write(dev.path().join("ballot.js"), "export function vote(").unwrap();
    let vote = ["member", "vote", id, "--ballot", "ballot.js"];
    let text = String::from_utf8(coco(dev.path(), &vote).stderr).unwrap();
    assert!(text.contains("ballot.js, line 1: SyntaxError"), "{text}");
    assert_eq!(run(&vote[..3])["ballotCount"], 1);
    let against = ["member", "vote", id, "--against"];
    let text = String::from_utf8(coco(dev.path(), &against).stderr).unwrap();
    assert!(text.contains("VoteAlreadyExists") && text.contains("what to do: "), "{text}");
    assert_eq!(run(&["member", "withdraw", id])["proposalState"], "Withdrawn");

    // A new member is made, added, and becomes active by an acknowledgement.
    run(&["keys", "new", "alice", "--dir", "keys", "--curve", "p384"]);
    let certificate = std::fs::read_to_string(dev.path().join("keys/alice_cert.pem")).unwrap();
    let args = serde_json::json!({ "cert": certificate }).to_string();
    let proposal = run(&["member", "propose", "--action", "set_member", "--args", &args]);
    let id = proposal["proposalId"].as_str().unwrap();
    for member in ["member0", "member1"] {
        run(&["member", "vote", id, "--as", member]);
    }
    let alice = ["--cert", "keys/alice_cert.pem", "--key", "keys/alice_privk.pem"];
    assert_eq!(run(&[&["member", "ack"], &alice[..]].concat())["status"], "Active");
    let members = run(&["member", "list"])["members"].clone();
    assert!(members.as_array().unwrap().iter().all(|member| member["status"] == "Active"));
    dev.stop();
}

#[test]
fn a_service_of_one_node_is_looked_at() {
    let dev = Dev::start(&[]);
    dev.put(&dev.client("user0"), "/app/records/one", "first");
    let nodes = coco_json(dev.path(), &["node", "list"])["nodes"].clone();
    let node = &nodes[0];
    assert_eq!((&node["role"], &node["status"]), (&"primary".into(), &"Trusted".into()));
    assert_eq!(format!("https://{}", node["address"].as_str().unwrap()), dev.url());
    let status = coco_json(dev.path(), &["status"]);
    assert_eq!(status["service"]["status"], "Open");
    assert_eq!(status["nodes"][0]["lag"], 0);
    assert!(status["nodes"][0]["commit_latency"]["batches"].as_u64().unwrap() > 0);

    let id = node["node_id"].as_str().unwrap();
    let text = |arguments: &[&str]| {
        let refused = coco(dev.path(), arguments);
        assert!(!refused.status.success());
        String::from_utf8(refused.stderr).unwrap()
    };
    let last = text(&["node", "retire", &id[..8]]);
    assert!(last.contains("the only one that is trusted"), "{last}");
    assert!(text(&["node", "trust", id]).contains("trusted already"));
    let shown = coco(dev.path(), &["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("PartOfNetwork") && shown.contains(&id[..12]), "{shown}");
    // Who watches stops when nobody reads it.
    let watch = ["status", "--watch", "--interval", "1ms"];
    let mut watching = Process::spawn(dev.path(), &watch);
    watching.line();
    watching.stop_reading();
    assert!(watching.wait().success());
    assert!(text(&["status", "--watch", "--interval", "0ms"]).contains("must not be zero"));
    let directory = dev.stop();
    let nobody = coco(directory.path(), &["status"]);
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("no answer from"));
}

#[test]
fn an_application_is_deployed_and_survives_restarts_and_kills() {
    let dev = Dev::start(&[]);
    let app = dev.path().join("app/src");
    std::fs::create_dir_all(&app).unwrap();
    let source = r#"
        export function put(request) {
          ccf.kv["m"].set(ccf.strToBuf(request.params.key), request.body.arrayBuffer());
          return { statusCode: 204 };
        }
        export function get(request) {
          return { body: ccf.bufToStr(ccf.kv["m"].get(ccf.strToBuf(request.params.key))) };
        }"#;
    std::fs::write(app.join("app.js"), source).unwrap();
    let endpoint = |function: &str, mode: &str| {
        serde_json::json!({
            "js_module": "app.js", "js_function": function, "forwarding_required": "always",
            "redirection_strategy": "to_primary", "authn_policies": ["user_cert"],
            "mode": mode, "openapi": {},
        })
    };
    let metadata = serde_json::json!({ "endpoints": { "/m/{key}": {
        "put": endpoint("put", "readwrite"), "get": endpoint("get", "readonly"),
    } } });
    std::fs::write(dev.path().join("app/app.json"), metadata.to_string()).unwrap();
    let deployed = coco_json(dev.path(), &["app", "deploy", "app"]);
    assert_eq!(deployed["proposal"]["proposalState"], "Accepted");
    let user = dev.client("user1");
    dev.put(&user, "/app/m/a", "before the stop");

    let dev = Dev::start_in(dev.stop(), &["--keep"]);
    let user = dev.client("user1");
    assert_eq!(dev.get(&user, "/app/m/a").1, "before the stop");
    dev.put(&user, "/app/m/b", "before the kill");

    let directory = dev.kill();
    assert!(coco(directory.path(), &VERIFY).status.success());
    let dev = Dev::start_in(directory, &["--keep"]);
    let user = dev.client("user1");
    assert_eq!(dev.get(&user, "/app/m/b").1, "before the kill");

    // The folder is in use: a second node is refused, and told so.
    let second = coco(dev.path(), &["dev", "--keep", "--port", "0"]);
    assert!(!second.status.success());
    assert!(String::from_utf8(second.stderr).unwrap().contains("a node is running"));
    let directory = dev.stop();
    assert!(coco(directory.path(), &VERIFY).status.success());
}

#[test]
fn only_what_a_development_service_has_made_is_deleted() {
    let directory = Dev::start(&[]).stop();
    let folder = directory.path().join("coco-dev");
    let said = |directory: &std::path::Path, arguments: &[&str]| {
        let refused = coco(directory, &[&["dev", "--port", "0"], arguments].concat());
        assert!(!refused.status.success());
        String::from_utf8(refused.stderr).unwrap()
    };
    let ledger = || std::fs::read_dir(folder.join("ledger")).unwrap().count();
    std::fs::write(folder.join("important.txt"), "x").unwrap();
    std::fs::write(folder.join("node.pid"), "4194305").unwrap();
    let text = said(directory.path(), &[]);
    assert!(text.contains("coco-dev holds other things: coco-dev/important.txt"), "{text}");
    assert!(ledger() > 0 && folder.join("important.txt").exists());
    assert!(folder.join("node.pid").exists());
    std::fs::remove_file(folder.join("important.txt")).unwrap();

    // Nor for a service that cannot begin.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for arguments in
        [&["--port", &port][..], &["--port", "0", "--ethereum-port", &port, "--nodes", "2"]]
    {
        let text = coco(directory.path(), &[&["dev"], arguments].concat()).stderr;
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(&format!("port {port} cannot be listened on")), "{text}");
        assert!(ledger() > 0);
    }

    // What tells of the service is gone: --keep does not begin another one.
    for name in ["service.json", "node.json"] {
        let text = std::fs::read(folder.join(name)).unwrap();
        std::fs::remove_file(folder.join(name)).unwrap();
        let refused = said(directory.path(), &["--keep"]);
        assert!(refused.contains(&format!("without coco-dev/{name}\n")), "{refused}");
        assert!(ledger() > 0);
        std::fs::write(folder.join(name), text).unwrap();
    }

    // Another build is another program, to which the TEE opens nothing.
    let other = directory.path().join("coco-of-another-build");
    std::fs::copy(env!("CARGO_BIN_EXE_coco"), &other).unwrap();
    std::fs::OpenOptions::new().append(true).open(&other).unwrap().write_all(b"\n").unwrap();
    let keep = ["dev", "--port", "0", "--keep"];
    let refused = Command::new(&other).current_dir(directory.path()).args(keep).output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("what to do: this folder was made by another build"), "{text}");
    assert!(!refused.status.success() && !text.contains("Recover)"), "{text}");

    // From within the folder, all that a service of one node and one of several have left goes.
    for arguments in [&["--nodes", "2"][..], &[]] {
        let arguments = [&["dev", "--port", "0", "--json", "--dir", "."], arguments].concat();
        let mut process = Process::spawn(&folder, &arguments);
        process.line();
        process.signal("TERM");
        assert!(process.wait().success());
    }
    assert!(ledger() > 0 && !folder.join("node0").exists());
}

#[test]
fn a_service_is_governed_after_its_first_node_has_left() {
    let dev = Dev::start(&["--nodes", "3"]);
    let id = dev.service["nodes"][0]["node_id"].as_str().unwrap().to_owned();
    let run = |arguments: &[&str]| coco_json(dev.path(), arguments);
    let retire = ["node", "retire", &id, "--wait"];
    assert_eq!(run(&retire)["may_be_stopped"], true);
    assert_eq!(run(&retire)["may_be_stopped"], true, "it is waited for again");
    let again = coco(dev.path(), &retire[..3]);
    assert!(String::from_utf8(again.stderr).unwrap().contains("it may be stopped"));

    let action = ["member", "propose", "--action", "set_recovery_threshold", "--args"];
    let proposal = run(&[&action[..], &[r#"{"recovery_threshold": 3}"#]].concat());
    assert_eq!(proposal["proposalState"], "Open");
    let status = run(&["status"]);
    let primary = status["service"]["primary_id"].as_str().unwrap();
    assert_ne!(primary, id);
    // Also as the node sees it that has left.
    let asked = ["status", "--url", dev.url(), "--service-cert", "coco-dev/service_cert.pem"];
    let seen = run(&asked)["service"]["primary_id"].clone();
    assert_eq!(seen, primary);
    dev.stop();
}
